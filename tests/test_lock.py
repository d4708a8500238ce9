"""One process at a time writes a folder: the second one says who does, and a killed one is no obstacle."""

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import time
from itertools import product
from pathlib import Path

import pytest
from stand_ins import frames, slow_program

from platemint.pipeline import lock
from platemint.pipeline.anonymize.compare import verify_against
from platemint.pipeline.anonymize.search import scan
from platemint.pipeline.anonymize.unfinished import UNFINISHED
from platemint.pipeline.plate import Failure, PlatemintError
from platemint.pipeline.verify import verify

HERE = Path(__file__).parent
PLATES = {f"picture-{n}": [f"ABC{1000 + n}", f"XYZ-{200 + n}"] for n in range(12)}
GENERATE = ["--count", "60", "--set", "filter.rounds=90", "--set", "edit.batch=4", "--set", "filter.min_reader=0.35"]
GENERATE += ["--set", "write.shard_rows=10"]


def start(*args) -> subprocess.Popen:
    """The program with slow stand-in networks, which waits for `go`."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return slow_program(*args, stamp=1, pictures=64, waits=True, **pipes)


def go(*processes: subprocess.Popen) -> None:
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.close()
        process.stdin = None


def ended(process: subprocess.Popen) -> tuple[int, str]:
    error = process.communicate(timeout=120)[1]
    return process.returncode, error


@pytest.fixture
def verbs(tmp_path):
    """The arguments of each verb, all into one folder; what is found wrong with what it has written."""
    corpus, out = frames(tmp_path / "in", PLATES), tmp_path / "out"
    return {
        "anonymize": (["anonymize", corpus, "--out", out], lambda: verify_against(out, corpus).faults),
        "generate": (["generate", "--out", out, *GENERATE], lambda: verify(out).faults),
    }


PAIRS = list(product(["anonymize", "generate"], repeat=2))


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_of_two_processes_one_writes_and_the_other_is_told(verbs, tmp_path, pair):
    out = tmp_path / "out"
    processes = [start(*verbs[verb][0]) for verb in pair]
    go(*processes)
    results = [ended(process) for process in processes]
    assert sorted(code for code, _ in results) == [0, 1], results
    winner = [code for code, _ in results].index(0)
    assert verbs[pair[winner]][1]() == []
    (told,) = (error for code, error in results if code == 1)
    pid = processes[winner].pid
    assert re.search(rf"{out}: is being written by process {pid} on \S+ since \S+: wait .* --out", told), told
    assert "Traceback" not in told and not [path for path in out.rglob(".*") if path.name.startswith(".lock")]


@pytest.mark.parametrize("verb", ["anonymize", "generate"])
def test_what_a_kill_leaves_is_taken_over(verbs, tmp_path, verb):
    out, (args, faults) = tmp_path / "out", verbs[verb]
    killed, again = start(*args), start(*args)
    go(killed)
    wait_for(
        lambda: (
            (out / lock.HOLDER).exists()
            and list(out.glob(f"{UNFINISHED}/*") if verb == "anonymize" else out.glob("data/*"))
        )
    )
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert json.loads((out / lock.HOLDER).read_text())["pid"] == killed.pid
    go(again)
    assert ended(again)[0] == 0 and faults() == [] and not list(out.rglob(".*"))


def wait_for(seen, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_train_and_edit_hold_their_folders_too(tmp_path):
    (tmp_path / "crops").mkdir()
    (tmp_path / "gt.txt").write_text("a.png ABC123\n")
    with lock.held(tmp_path / "out"):
        for args in (
            ["train", "--set", f"out={tmp_path / 'out'}", "--set", "steps=1"],
            ["edit", "--input_dir", tmp_path / "crops", "--input_text", tmp_path / "gt.txt", "--out", tmp_path / "out"],
        ):
            process = start(*args)
            go(process)
            code, told = ended(process)
            assert code == 1 and f"is being written by process {os.getpid()}" in told, told


def test_a_folder_that_was_not_there_and_got_nothing_is_gone_again(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        with pytest.raises(ZeroDivisionError), lock.held(tmp_path / name):
            raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["there"] and not os.listdir(tmp_path / "there")


def test_it_is_no_part_of_what_is_searched(tmp_path):
    with lock.held(tmp_path / "out"):
        found = scan(tmp_path / "out", ["LOCK", "HOST"], lock.FILES)
    assert (found.files, found.bytes, found.hits) == (0, 0, [])


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_storage_without_locks(tmp_path, monkeypatch):
    """A file system that knows no flock is locked by a file with the process in it; other faults are told."""

    def fails(number):
        def flock(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    fails(errno.ENOSYS)
    with (
        lock.held(tmp_path / "out"),
        pytest.raises(Failure, match=f"by process {os.getpid()}"),
        lock.held(tmp_path / "out"),
    ):
        raise AssertionError
    assert not os.listdir(tmp_path)
    fails(errno.ENOLCK)
    with pytest.raises(PlatemintError, match="cannot be written.*--out"), lock.held(tmp_path / "out"):
        raise AssertionError
