"""Seconds to draw targets, against as many random characters without any promise. python tests/bench/bench_draw.py"""

import sys
import time

import numpy as np

from platemint.pipeline.draw import draw_targets
from platemint.pipeline.plate import DIGITS, LETTERS, Group

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
GROUPS = [Group("one", "train", (LETTERS,) * 3 + (DIGITS,) * 4, 1.0, 0)]


def draw() -> None:
    draw_targets(GROUPS, COUNT, 0, frozenset())


def plain() -> None:
    rng = np.random.default_rng(0)
    columns = [np.array(list(alphabet))[rng.integers(len(alphabet), size=COUNT)] for alphabet in GROUPS[0].positions]
    np.stack(columns, axis=1).view(f"U{len(columns)}").ravel()


def seconds(work) -> float:
    """The best of five, since a busy machine only ever adds."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


balanced, random = seconds(draw), seconds(plain)
print(f"{COUNT:,} targets: {balanced:.3f} s; plain random characters: {random:.3f} s; ratio {balanced / random:.1f}")
