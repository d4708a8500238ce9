"""Plates per second of the whole pipeline against its bare networks, in turn, in the same minute.

    python tests/bench/bench_pipeline.py [--source CORPUS] [--plates N]

The pipeline samples, edits, filters, encodes and packs a shard in memory, under the recipe's defaults. The bare
networks get one ready batch of the same size again and again: the generator alone, and the generator plus the reader
twice, which is what the filter needs. Ratios of medians over five turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from platemint.models.spg import encode_texts
from platemint.pipeline import write
from platemint.pipeline.engines import threads
from platemint.pipeline.plan import make_plan
from platemint.pipeline.recipe import load_recipe
from platemint.pipeline.shard import make_plates
from platemint.pipeline.stages import Stages

TURNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="")
    parser.add_argument("--plates", type=int, default=256)
    options = parser.parse_args()
    stages = Stages(
        load_recipe(None, ["filter.rounds=1"], "generate", {"source.path": options.source, "count": options.plates})
    )
    middle, rates = medians(of_shard(stages, options.plates), TURNS)
    for name, values in rates.items():
        print(f"{name:10} {middle[name]:7.1f} plates/s  ({min(values):.1f} to {max(values):.1f})")
    print(f"pipeline / generator alone: {middle['pipeline'] / middle['generator']:.2f}")
    print(f"pipeline / generator and reader twice: {middle['pipeline'] / middle['networks']:.2f}")


def of_shard(stages: Stages, plates: int) -> dict[str, Callable[[], int]]:
    """What is compared; each gives how many plates it went through."""
    shard = make_plan(stages).shards[0].part(slice(plates))
    return {
        "pipeline": lambda: _pipeline(shard, stages),
        "generator": _bare(stages, readings=0),
        "networks": _bare(stages, readings=2),
    }


def medians(works: dict[str, Callable[[], int]], turns: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Plates per second of each, in turn: the medians, and all of them."""
    for work in works.values():
        work()
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            start = time.perf_counter()
            plates = work()
            rates[name].append(plates / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in rates.items()}, rates


def _pipeline(shard, stages) -> int:
    made = make_plates(shard, stages, threads=threads(1))
    write.parquet([*made.kept.values()], write.schema(stages.recipe))
    return len(made.kept) + len(made.dropped)


def _bare(stages, readings: int):
    editor, judge, batch = stages.edit, stages.filter, stages.recipe.edit.batch
    config = editor.spg.config
    picture = torch.rand(batch, 3, config.height, config.width).to(editor.device, memory_format=torch.channels_last)
    text = encode_texts(["ABC1234"] * batch, config.alphabet, config.longest).to(editor.device)

    @torch.inference_mode()
    def work() -> int:
        for _ in range(8):
            with torch.autocast(editor.device.type, torch.bfloat16, enabled=editor.dtype is torch.bfloat16):
                out = editor.spg(picture, text, text).O_t
                for _ in range(readings):
                    out = judge.reader(picture)
            np.asarray(out.float().cpu())  # waits for the device
        return 8 * batch

    return work


if __name__ == "__main__":
    main()
