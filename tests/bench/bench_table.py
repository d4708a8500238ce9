"""One table of ratios, all from one run on one machine: what the README's table of speed is made with.

    python tests/bench/bench_table.py [--plates N] [--only NAME ...] [--trdg PYTHON]

Each row takes less than a minute on two cores. A machine that does something else at the same time measures that, too:
the load is printed first. --trdg: an interpreter that has TextRecognitionDataGenerator (`pip install trdg`), whose
requirements are older than ours. Rows whose packages are missing say so.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from bench_pipeline import medians, of_shard
from torch.utils.flop_counter import FlopCounterMode

from platemint.pipeline import write
from platemint.pipeline.recipe import load_recipe
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.stages import Stages

PROGRAM = Path(__file__).parents[2] / "run_pipeline.py"
LEAST = 2.0  # seconds that something is measured for
TRDG = """
import sys, time
from trdg.generators import GeneratorFromStrings
texts, effects = sys.argv[1].split(","), eval(sys.argv[2])
made = iter(GeneratorFromStrings(texts, count=-1, **effects))
next(made)
begin, count = time.perf_counter(), 0
while time.perf_counter() - begin < 5:
    next(made)
    count += 1
print(count / (time.perf_counter() - begin))
"""
EFFECTS = {"plain": {}, "with effects": {"blur": 1, "random_blur": True, "skewing_angle": 5, "random_skew": True,
                                         "distorsion_type": 3, "background_type": 0}}  # fmt: skip
Row = tuple[str, str, str]  # what, figure, ratio


def per_second(work: Callable[[], int]) -> float:
    """How many a second; work gives how many it made."""
    work()
    begin, made = time.perf_counter(), 0
    while time.perf_counter() - begin < LEAST:
        made += work()
    return made / (time.perf_counter() - begin)


def convolutions(threads: int) -> float:
    """FLOP/s of a bfloat16 convolution of 96 channels, 3 x 3, on half-size plates."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    layer = torch.nn.Conv2d(96, 96, 3, padding=1).to(torch.bfloat16, memory_format=torch.channels_last)
    picture = torch.rand(16, 96, 24, 80).to(torch.bfloat16, memory_format=torch.channels_last)

    @torch.inference_mode()
    def work() -> int:
        layer(picture)
        return 2 * 16 * 24 * 80 * 96 * 96 * 9

    rate = per_second(work)
    torch.set_num_threads(before)
    return rate


def pipeline(options: argparse.Namespace) -> Iterator[Row]:
    cores = len(os.sched_getaffinity(0))
    one, all_ = convolutions(1), convolutions(cores)
    yield "bf16 convolutions, 96 channels", f"{all_ / 1e9:,.0f} GFLOP/s on {cores} cores", f"{all_ / one:.2f} of one"
    stages = Stages(load_recipe(None, ["filter.rounds=1"], "generate", {"count": options.plates}))
    works = of_shard(stages, options.plates)
    middle, _ = medians(works, turns=3)
    with FlopCounterMode(display=False) as counter:
        plates = works["networks"]()
    flops = counter.get_total_flops() / plates
    rate = f"{middle['networks']:.1f} plates/s"
    yield "generator and two readings alone", rate, f"{middle['networks'] * flops / one:.2f} of a core's convolutions"
    share = f"{middle['pipeline'] / middle['networks']:.2f} of the networks"
    yield "whole pipeline, one shard", f"{middle['pipeline']:.1f} plates/s, {flops / 1e9:.1f} GFLOP each", share


def workers(options: argparse.Namespace) -> Iterator[Row]:
    """The program on twice as many plates, less on as many: what it takes to start is no rate."""
    rates = {}
    with tempfile.TemporaryDirectory() as scratch:
        for count in (1, 2):
            seconds = []
            for times in (1, 2):
                command = ["generate", "--out", f"{scratch}/{count}-{times}", "--count", options.plates * times]
                begin = time.perf_counter()
                program(
                    *command, "--set", f"engine.workers={count}", "--set", f"write.shard_rows={options.plates // 4}"
                )
                seconds.append(time.perf_counter() - begin)
            rates[count] = options.plates / max(seconds[1] - seconds[0], 1e-9)
            yield (
                f"generate, {count} worker{'s' * (count > 1)}",
                f"{rates[count]:.1f} plates/s",
                f"{rates[count] / rates[1]:.2f}",
            )


def program(*arguments: object) -> int:
    """Runs the program; the memory that it took at most, in bytes."""
    process = subprocess.Popen([sys.executable, PROGRAM, *map(str, arguments)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 3):
        raise SystemExit(f"{arguments}: ended with {process.returncode}")
    return used.ru_maxrss << 10


def renderer(options: argparse.Namespace) -> Iterator[Row]:
    layout, rng = load_layouts(["us-texas"])["us-texas"], np.random.default_rng(0)

    def work() -> int:
        render_plate(layout, random_text(layout.positions, rng), rng)
        return 1

    ours = per_second(work)
    yield "renderer, with exact masks", f"{ours:.0f} plates/s", ""
    texts = ",".join(random_text(layout.positions, rng) for _ in range(100))
    for name, effects in EFFECTS.items() if options.trdg else ():
        command = [options.trdg, "-c", TRDG, texts, repr(effects)]
        told = subprocess.run(command, capture_output=True, text=True)
        if told.returncode:
            yield f"TRDG, {name}", "skipped: " + (told.stderr.strip().splitlines() or ["it failed"])[-1][:80], ""
        else:
            yield f"TRDG, {name}", f"{float(told.stdout):.0f} pictures/s", f"ours {ours / float(told.stdout):.2f} of it"
    if not options.trdg:
        yield "TRDG", "skipped: no --trdg PYTHON", ""


def writers(options: argparse.Namespace) -> Iterator[Row]:
    """Plates that are encoded already, into one file."""
    made = load_recipe(None, [], "generate", {})
    rng, schema = np.random.default_rng(0), write.schema(made)
    plain = {field.name: None for field in schema}
    rows = [plain | {"image": {"bytes": rng.bytes(8000), "path": f"{n}.jpg"}, "text": f"AB{n}"} for n in range(1000)]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "x")
        ours = per_second(lambda: file.write_bytes(write.parquet(rows, schema)) and len(rows))
        yield "shards written by us, checksummed", f"{ours:,.0f} plates/s", ""
        for name, work in (("datasets", _by_datasets), ("webdataset", _by_webdataset)):
            if find_spec(name):
                rate = per_second(lambda work=work: work(rows, file))
                yield f"by {name}", f"{rate:,.0f} plates/s", f"ours {ours / rate:.2f} of it"
            else:
                yield f"by {name}", f"skipped: {name} is not installed", ""


def _by_datasets(rows: list[dict], file: Path) -> int:
    import datasets

    datasets.disable_progress_bars()
    held = datasets.Dataset.from_list([{"image": row["image"], "text": row["text"]} for row in rows])
    held.cast_column("image", datasets.Image()).to_parquet(str(file))
    return len(rows)


def _by_webdataset(rows: list[dict], file: Path) -> int:
    import webdataset

    with io.BytesIO() as sink, webdataset.TarWriter(sink, encoder=False) as tar:
        for n, row in enumerate(rows):
            tar.write({"__key__": f"{n:06}", "jpg": row["image"]["bytes"], "txt": row["text"].encode()})
        file.write_bytes(sink.getvalue())
    return len(rows)


def memory(options: argparse.Namespace) -> Iterator[Row]:
    held = {}
    for count in (10_000, 1_000_000):
        with tempfile.TemporaryDirectory() as scratch:
            begin = time.perf_counter()
            used = program("generate", "--out", f"{scratch}/run", "--count", count, "--dry-run")
        held[count] = used
        shown = f"{used >> 20:,} MiB, {time.perf_counter() - begin:.0f} s"
        yield f"{count:,} plates planned", shown, f"{used / held[10_000]:.2f}"


ROWS = {"pipeline": pipeline, "workers": workers, "renderer": renderer, "writers": writers, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plates", type=int, default=128)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=[*ROWS])
    parser.add_argument("--trdg", default="")
    options = parser.parse_args()
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    busy = "; the machine is busy: these are no figures to publish" if load > 0.5 else ""
    print(f"{cores} cores, load {load:.1f}{busy}", flush=True)
    for name in options.only:
        for what, figure, ratio in ROWS[name](options):
            print(f"{what:36} {figure:44} {ratio}", flush=True)


if __name__ == "__main__":
    main()
