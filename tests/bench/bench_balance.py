"""What balance costs and what it brings. python tests/bench/bench_balance.py [--large]

Cost: seconds and peak memory to draw targets and plan a run, each in a process of its own: 100,000 targets, in 10 and
in 10,000 shards; with --large 10,000,000 as well.

Gain: a simulated filter that accepts 30 % to 100 %, depending on the character: largest over smallest count of accepted
characters at the worst position, of 10,000 plates. Closed: the run as it is. Open: 10,000 over the mean acceptance as
many balanced texts, each tried once. What a text is accepted with is that of its first character, the smallest of all
its characters, or their geometric mean.
"""

import argparse
import hashlib
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from platemint.pipeline.draw import draw_targets
from platemint.pipeline.plan import make_plan
from platemint.pipeline.plate import DIGITS, LETTERS, Group, Plate
from platemint.pipeline.recipe import load_recipe
from platemint.pipeline.shard import make_plates
from platemint.pipeline.stages import Stages
from platemint.pipeline.write import scores

PLATES = 10_000
POSITIONS = (LETTERS,) * 3 + (DIGITS,) * 4
CHANCE = dict(zip(LETTERS, np.linspace(0.3, 1, 26))) | dict(zip(DIGITS, np.linspace(0.3, 1, 10)))
KINDS = {
    "first": lambda text: CHANCE[text[0]],
    "smallest": lambda text: min(CHANCE[c] for c in text),
    "mean": lambda text: float(np.exp(np.mean([np.log(CHANCE[c]) for c in text]))),
}


class Sources:
    """A thousand photographs of nothing."""

    groups = (Group("one", "train", POSITIONS, 1.0, 1000),)
    texts = frozenset()
    set_aside = []
    fingerprint = ""
    image = np.zeros((8, 8, 3), np.uint8)

    def turn(self, group: int, index: int, round: int) -> int:
        return (index + 618 * round + round) % 1000

    def get(self, group: int, number: int) -> Plate:
        return Plate(self.image, "", "one", str(number))


class Simulated(Stages):
    """Accepts a text on a photograph, for good, with the chance that its kind gives it."""

    sources = Sources()
    kind = ""

    def edit(self, plates: list[Plate]) -> list[Plate]:
        for plate in plates:
            plate.text = plate.target
        return plates

    def filter(self, plates: list[Plate]) -> list[Plate]:
        for plate in plates:
            plate.scores = dict.fromkeys(scores(self.recipe), 1.0)
            plate.reason = "" if luck(plate.source, plate.text) < KINDS[self.kind](plate.text) else "reader"
        return plates


def luck(source: str, text: str) -> float:
    """0..1, the same for the same."""
    return int.from_bytes(hashlib.sha256(f"{source} {text}".encode()).digest()[:6]) / 2**48


def uneven(texts: list[str]) -> float:
    """Largest over smallest count at the worst position."""
    columns = [Counter(column) for column in zip(*texts)]
    return max(max(n.values()) / min(n[c] for c in a) for n, a in zip(columns, POSITIONS))


def closed(kind: str, rounds: int) -> tuple[float, int]:
    """Unevenness of a run's accepted plates, and how many are missing."""
    stages = Simulated(load_recipe(None, [f"filter.rounds={rounds}", "edit.batch=256"], overrides={"count": PLATES}))
    stages.kind = kind
    plan = make_plan(stages)
    made = [make_plates(shard, stages, plan.rules) for shard in plan.shards]
    return uneven([row["text"] for part in made for row in part.kept.values()]), sum(len(part.pending) for part in made)


def opened(kind: str) -> float:
    """The same for texts drawn once and tried once."""
    some = draw_targets(Sources.groups, PLATES, 1, frozenset()).text.tolist()
    count = round(PLATES / np.mean([KINDS[kind](text) for text in some]))
    texts = draw_targets(Sources.groups, count, 0, frozenset()).text.tolist()
    return uneven([text for n, text in enumerate(texts) if luck(str(n % 1000), text) < KINDS[kind](text)])


def cost(count: int, shards: int) -> None:
    """Draws and plans, and prints seconds and memory: run in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = -(-count // shards)
    stages = Stages(load_recipe(None, [f"write.shard_rows={rows}"], overrides={"count": count}))
    stages.sources = Sources()
    start = time.perf_counter()
    draw_targets(Sources.groups, count, 0, frozenset())
    drawn = time.perf_counter() - start
    made = len(make_plan(stages).shards)
    planned = time.perf_counter() - start - drawn
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{count:,} targets in {made:,} shards: drawn in {drawn:.2f} s, drawn and planned in {planned:.2f} s; "
        f"peak {peak / 1024:,.0f} MiB, of which {before / 1024:,.0f} before",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="10,000,000 targets too")
    parser.add_argument("--cost", nargs=2, type=int, metavar=("COUNT", "SHARDS"), help="only this one")
    options = parser.parse_args()
    if options.cost:
        return cost(*options.cost)
    sizes = [(100_000, 10), (100_000, 10_000)]
    for size in sizes + [(10_000_000, 10), (10_000_000, 10_000)] * options.large:
        subprocess.run([sys.executable, Path(__file__), "--cost", *map(str, size)], check=True)
    for kind in KINDS:
        print(f"chance of a text by its characters, {kind}: open loop {opened(kind):.2f}", end="", flush=True)
        for rounds in (12, 60):
            ratio, missing = closed(kind, rounds)
            print(f"; closed loop, {rounds} rounds: {ratio:.3f} ({missing} missing)", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
