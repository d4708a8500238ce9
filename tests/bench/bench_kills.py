"""Random kills (kill -9) of the program or of one of its workers; every run has to come to an undisturbed one's bytes.

    python tests/bench/bench_kills.py [--engine local|ray] [--kills N] [--count PLATES] [--seed S]

The program is `generate` with the networks that ship, on rendered plates, with two workers. At a random moment of a run,
while it starts or between two random commits, the program itself or one of its workers is killed, evenly; after up to three
kills the run is started once more and left in peace. Moments go by commits, since on a busy machine no two runs take as long. Its files are then compared with those of a run of one process that nobody has killed: all but the seconds in
commits and in report.html, and folder and engine in recipe.yaml.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "run_pipeline.py"
WORKERS = {"local": "popen_loky", "ray": "ray::_Actor"}  # in their command lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=WORKERS, default="local")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench(Path(scratch), options)


def bench(scratch: Path, options: argparse.Namespace) -> None:
    finish(scratch / "whole", "local", 1, options.count)
    expected, chance = contents(scratch / "whole"), random.Random(options.seed)
    timed = start(scratch / "timed", options.engine, 2, options.count)
    began = time.monotonic()
    reached(timed, scratch / "timed", 1)
    loading = time.monotonic() - began
    assert timed.wait() in (0, 3)
    shards = commits(scratch / "whole")
    each = (time.monotonic() - began - loading) / shards
    killed, runs, same = Counter(), 0, contents(scratch / "timed") == expected
    while killed.total() < options.kills:
        folder = scratch / f"run-{runs}"
        for _ in range(min(3, options.kills - killed.total())):
            process = start(folder, options.engine, 2, options.count)
            moment = chance.uniform(-1, shards)
            reached(process, folder, int(max(moment, 0)))
            with suppress(subprocess.TimeoutExpired):
                process.wait((moment + 1) * loading if moment < 0 else moment % 1 * each)
            killed[kill_one(process, WORKERS[options.engine], chance)] += 1
            process.wait()
        del killed[""]  # was too late
        finish(folder, options.engine, 2, options.count)
        same += contents(folder) == expected
        runs += 1
        print(f"{dict(killed)}: {same} of {runs + 1} runs have the bytes of an undisturbed one", flush=True)
    sys.exit(same != runs + 1)


def reached(process: subprocess.Popen, folder: Path, count: int) -> None:
    """Waits until a run has so many commits, or has ended."""
    while process.poll() is None and commits(folder) < count:
        time.sleep(0.02)


def commits(folder: Path) -> int:
    return len([*folder.glob("commits/*.json")])


def finish(*args) -> None:
    assert start(*args).wait() in (0, 3)  # a quota that is short of a plate is as good


def start(folder: Path, engine: str, workers: int, count: int) -> subprocess.Popen:
    """The program, quiet, in a process group of its own."""
    sets = ["--set", f"engine.workers={workers}", "--set", "write.shard_rows=10"]
    command = ["generate", "--out", folder, "--count", str(count), "--engine", engine, *sets]
    return subprocess.Popen(
        [sys.executable, PROGRAM, *command], start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def kill_one(process: subprocess.Popen, worker: str, chance: random.Random) -> str:
    """Kills the program or a worker of it, which it says; "" where all is over already."""
    if process.poll() is not None:
        return ""
    workers = [pid for pid, command in descendants(process.pid).items() if worker in command]
    victim, what = chance.choice([(process.pid, "program"), (chance.choice(workers or [0]), "worker")])
    if not victim:
        victim, what = process.pid, "program"
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return ""
    return what


def descendants(of: int) -> dict[int, str]:
    """The command lines of all processes that a process has started, and of those that they have."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has ended
            continue
    found, new = set(), {of}
    while new:
        found |= new
        new = {pid for pid, parent in parents.items() if parent in found} - found
    return {pid: commands[pid] for pid in found - {of}}


def contents(folder: Path) -> dict[str, object]:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in [name for name in files if name.startswith("commits/")]:
        files[name] = json.loads(files[name]) | {"seconds": None}
    return {name: data for name, data in files.items() if name not in ("recipe.yaml", "report.html")}


if __name__ == "__main__":
    main()
