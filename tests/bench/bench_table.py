"""One table of ratios, all from one run on one machine: what the README's table of speed is made with.

    python tests/bench/bench_table.py [--plates N] [--only NAME ...] [--others PYTHON]

Each row takes less than a minute on two cores. A machine that does something else at the same time measures that, too:
the load is printed first. --others: an interpreter that has other renderers, which want older libraries than ours:
`pip install trdg synthtiger 'pillow<10' 'numpy<2' 'opencv-python<4.12'`. Rows whose packages are missing say so.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import fontpkg
import numpy as np
import torch
from bench_pipeline import medians, of_shard
from published_editors import Mostel, RsSte
from torch.utils.flop_counter import FlopCounterMode

from platemint.models.spg import encode_texts
from platemint.pipeline import write
from platemint.pipeline.recipe import load_recipe
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.stages import Stages

PROGRAM = Path(__file__).parents[2] / "run_pipeline.py"
CORES = len(os.sched_getaffinity(0))
LEAST = 2.0  # seconds that something is measured for
BATCH = 16  # of edits
LARGE = "source.layouts=[us-texas,uk,cn-blue]"  # that have texts enough for a million plates
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
# In between, since a process begins with its parent's memory, and this one has had networks.
MEASURED = """
import resource, subprocess, sys
told = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(told.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
TIGER = """
import sys, time
import numpy as np
from synthtiger import components as c, layers
texts, font = sys.argv[1].split(","), sys.argv[2]
style = c.Selector([c.TextBorder(), c.TextShadow(), c.TextExtrusion()])
shape = c.Iterator([c.Perspective(percents=((0.85, 1),)), c.Rotate(angle=(-5, 5))])
after = c.Iterator([c.AdditiveGaussianNoise(), c.GaussianBlur(), c.Resample(), c.JpegCompression()])
def work(text):
    line = layers.TextLayer(text, font, 48, (*np.random.randint(0, 256, 3).tolist(), 255))
    style.apply([line])
    shape.apply([line])
    plate = layers.RectLayer(line.size, (*np.random.randint(0, 256, 3).tolist(), 255))
    plate.center = line.center
    picture = (line + plate).merge()
    after.apply([picture])
    return picture.output()
work(texts[0])
begin, count = time.perf_counter(), 0
while time.perf_counter() - begin < 5:
    work(texts[count % len(texts)])
    count += 1
print(count / (time.perf_counter() - begin))
"""
Row = tuple[str, str, str]  # what, figure, ratio


def per_second(work: Callable[[], int]) -> float:
    """How many a second; work gives how many it made."""
    work()
    begin, made = time.perf_counter(), 0
    while time.perf_counter() - begin < LEAST:
        made += work()
    return made / (time.perf_counter() - begin)


@lru_cache
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
    one, all_ = convolutions(1), convolutions(CORES)
    yield "bf16 convolutions, 96 channels", f"{all_ / 1e9:,.0f} GFLOP/s on {CORES} cores", f"{all_ / one:.2f} of one"
    stages = Stages(load_recipe(None, ["filter.rounds=1"], "generate", {"count": options.plates}))
    works = of_shard(stages, options.plates)
    middle, _ = medians(works, turns=3)
    flops = operations(stages)
    rate = f"{middle['networks']:.1f} plates/s"
    yield "generator and two readings alone", rate, of_convolutions(middle["networks"], flops)
    share = f"{middle['pipeline'] / middle['networks']:.2f} of the networks, "
    figure = f"{middle['pipeline']:.1f} plates/s, {flops / 1e9:.1f} GFLOP each"
    yield "whole pipeline, one shard", figure, share + of_convolutions(middle["pipeline"], flops)


def of_convolutions(rate: float, flops: int) -> str:
    return f"{rate * flops / convolutions(CORES):.2f} of {CORES} cores' convolutions"


def operations(stages: Stages) -> int:
    """Floating point operations of an edit and two readings."""
    spg, reader = stages.edit.spg, stages.filter.reader
    config, device = spg.config, stages.edit.device
    picture = torch.rand(1, 3, config.height, config.width, device=device)
    text = encode_texts(["ABC1234"], config.alphabet, config.longest).to(device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        spg(picture, text, text)
        for _ in range(2):
            reader(picture)
    return counter.get_total_flops()


def workers(options: argparse.Namespace) -> Iterator[Row]:
    """The program on four shards, less on two: what it takes to start is no rate."""
    rates, flops = {}, operations(Stages(load_recipe(None, [], "generate", {})))
    with tempfile.TemporaryDirectory() as scratch:
        for count in (1, 2):
            seconds = []
            for times in (2, 4):
                command = ["generate", "--out", f"{scratch}/{count}-{times}", "--count", options.plates * times]
                begin = time.perf_counter()
                program(*command, "--set", f"engine.workers={count}", "--set", f"write.shard_rows={options.plates}")
                seconds.append(time.perf_counter() - begin)
            rates[count] = 2 * options.plates / max(seconds[1] - seconds[0], 1e-9)
            yield (
                f"generate, {count} worker{'s' * (count > 1)}",
                f"{rates[count]:.1f} plates/s",
                f"{rates[count] / rates[1]:.2f} of one, {of_convolutions(rates[count], flops)}",
            )


def program(*arguments: object) -> int:
    """Runs the program; the memory that it took at most, in bytes."""
    command = [sys.executable, "-c", MEASURED, sys.executable, PROGRAM, *map(str, arguments)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    ended, kilobytes = map(int, told.stdout.split())
    if ended not in (0, 3):
        raise SystemExit(f"{arguments}: ended with {ended}")
    return kilobytes << 10


def editors(options: argparse.Namespace) -> Iterator[Row]:
    """The generator alone against others' networks at their own sizes: same batch, same precision, all cores."""
    stages = Stages(load_recipe(None, [], "generate", {}))
    spg, dtype = stages.edit.spg, stages.edit.dtype
    text = encode_texts(["ABC1234"] * BATCH, spg.config.alphabet, spg.config.longest)
    ours = _edits(spg, (spg.config.height, spg.config.width), (text, text), dtype)
    yield "an edit of ours, 48 x 160", f"{ours:.1f} edits/s, {_millions(spg):.1f} M parameters", ""
    others = (
        ("MOSTEL", Mostel(), torch.rand(BATCH, 3, *Mostel.size)),
        ("RS-STE", RsSte(), torch.zeros(BATCH, 32, dtype=torch.int64)),
    )
    for name, network, target in others:
        rate = _edits(network.eval(), network.size, (target,), dtype)
        size = "{} x {}".format(*network.size)
        yield (
            f"of {name}'s size, {size}",
            f"{rate:.1f} edits/s, {_millions(network):.1f} M parameters",
            f"ours {ours / rate:.2f} of it",
        )


def _edits(
    network: torch.nn.Module, size: tuple[int, int], texts: tuple[torch.Tensor, ...], dtype: torch.dtype
) -> float:
    network = network.to(memory_format=torch.channels_last)
    source = torch.rand(BATCH, 3, *size).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def work() -> int:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            network(source, *texts)
        return BATCH

    return per_second(work)


def _millions(network: torch.nn.Module) -> float:
    return sum(weight.numel() for weight in network.parameters()) / 1e6


def renderer(options: argparse.Namespace) -> Iterator[Row]:
    layout, rng = load_layouts(["us-texas"])["us-texas"], np.random.default_rng(0)

    def work() -> int:
        render_plate(layout, random_text(layout.positions, rng), rng)
        return 1

    ours = per_second(work)
    yield "renderer, with exact masks", f"{ours:.0f} plates/s", ""
    texts = ",".join(random_text(layout.positions, rng) for _ in range(100))
    runs = {f"TRDG, {name}": [TRDG, texts, repr(effects)] for name, effects in EFFECTS.items()}
    runs["SynthTIGER, with effects"] = [TIGER, texts, str(fontpkg.path("Roboto Condensed", 500, nearest=True))]
    for name, command in runs.items():
        told = (
            subprocess.run([options.others, "-c", *command], capture_output=True, text=True) if options.others else None
        )
        if told is None or told.returncode:
            reason = (told.stderr.strip().splitlines() or ["it failed"])[-1][:80] if told else "no --others PYTHON"
            yield name, f"skipped: {reason}", ""
        else:
            rate = float(told.stdout.split()[-1])  # it may greet first
            yield name, f"{rate:.0f} pictures/s", f"ours {ours / rate:.2f} of it"


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
            used = program("generate", "--out", f"{scratch}/run", "--count", count, "--set", LARGE, "--dry-run")
        held[count] = used
        shown = f"{used >> 20:,} MiB, {time.perf_counter() - begin:.0f} s"
        yield f"{count:,} plates planned", shown, f"{used / held[10_000]:.2f}"


ROWS = {
    "pipeline": pipeline,
    "workers": workers,
    "editors": editors,
    "renderer": renderer,
    "writers": writers,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plates", type=int, default=128)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=[*ROWS])
    parser.add_argument("--others", metavar="PYTHON", default="")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    busy = "; the machine is busy: these are no figures to publish" if load > 0.5 else ""
    print(f"{CORES} cores, load {load:.1f}{busy}", flush=True)
    for name in options.only:
        for what, figure, ratio in ROWS[name](options):
            print(f"{what:36} {figure:44} {ratio}", flush=True)


if __name__ == "__main__":
    main()
