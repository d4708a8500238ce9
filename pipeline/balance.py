"""Quotas and evenness: pure functions on arrays, the same for target strings and for corpora that exist already."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def largest_remainder(shares: Sequence[float] | np.ndarray, total: int) -> np.ndarray:
    """Whole numbers, int64 (n,), that add up to `total` and stand to each other as `shares` do.

    Each is its exact share rounded down, and what is then left goes to the largest fractions, the first of equal ones.
    shares: finite, none negative, not all 0; ValueError otherwise.
    """
    shares = np.asarray(shares, dtype=np.float64)
    if not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise ValueError("shares must be finite, none negative and not all 0")
    exact = shares / shares.sum() * total
    whole = np.floor(exact).astype(np.int64)
    by_fraction = np.argsort(whole - exact, kind="stable")
    whole[by_fraction[: total - whole.sum()]] += 1
    return whole


def water_fill(have: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
    """How to share `n` new ones over classes that already `have` some so that the lowest rise to one level.

    int64 (classes,), sum n. Classes above the level get none; no other way of adding n leaves a larger minimum.
    """
    have = np.asarray(have, dtype=np.float64)
    if n == 0:
        return np.zeros(len(have), dtype=np.int64)
    ascending = np.sort(have)
    levels = (n + np.cumsum(ascending)) / np.arange(1, len(have) + 1)  # if only the i + 1 lowest are raised
    level = levels[np.flatnonzero(levels >= ascending)[-1]]
    return largest_remainder(np.maximum(0, level - have), n)


def deck(alphabet: Sequence[str] | np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` shuffled cards, str (n,), in which no character is more than one ahead of another.

    Each run of len(alphabet) cards from the top holds every character once, so any stretch of a deck is nearly even
    too. The n % len(alphabet) characters that come once more than the others are the first of `alphabet`.
    """
    cards = np.arange(n)
    shuffled = np.argsort(cards // len(alphabet) + rng.random(n), kind="stable")
    return np.asarray(list(alphabet))[shuffled % len(alphabet)]


def lattice(sizes: Sequence[int], n: int) -> np.ndarray:
    """`n` different rows of range(sizes[0]) x range(sizes[1]) x ..., int64 (n, len(sizes)), with even columns.

    A column of size k holds the numbers below n % k once more than the others, as a deck does. With n = prod(sizes) it
    is the whole space. All columns count upwards together; a column that would come back to a row already seen slips by
    one each time the columns before it have come round. Raises ValueError where n > prod(sizes).
    """
    if n > math.prod(sizes):
        raise ValueError(f"there are only {math.prod(sizes)} different rows, not {n}")
    rows = np.zeros((n, len(sizes)), dtype=np.int64)
    step, before = np.arange(n), 1
    for column, size in enumerate(sizes):
        slip = step // math.lcm(before, size) % math.gcd(before, size)
        rows[:, column] = (step + slip - slip[-1:]) % size  # less the last slip: the unfinished round starts at 0
        before *= size
    return rows


def count_table(texts: Sequence[str] | np.ndarray) -> tuple[np.ndarray, str]:
    """How often each character stands at each position: int64 (positions, characters), and the characters, sorted.

    Positions count from 0 and include separators; texts of different lengths may be mixed.
    """
    texts = np.asarray(texts, dtype=str)
    if texts.size == 0 or not texts.dtype.itemsize:
        return np.zeros((0, 0), dtype=np.int64), ""
    codes = np.ascontiguousarray(texts).view(np.uint32).reshape(len(texts), -1)
    seen = np.unique(codes[codes > 0])  # numpy pads short texts with 0
    cells = np.arange(codes.shape[1]) * len(seen) + np.searchsorted(seen, codes)
    table = np.bincount(cells[codes > 0], minlength=codes.shape[1] * len(seen))
    return table.reshape(-1, len(seen)).astype(np.int64), "".join(map(chr, seen))


def evenness(counts: Sequence[int] | np.ndarray, even: Sequence[float] | np.ndarray | None = None) -> dict[str, float]:
    """How evenly `counts` (n,) are spread over their n classes; a class with count 0 counts as one.

    even (n,), each above 0: how an even spread stands to each other; without it, all alike.
    max_min: largest over smallest, 1 when even, inf where a class has none. entropy: Shannon's, over that of an even
    spread, 0..1, 1 when even. gini: 0..1, 0 when even. kl: divergence from an even spread in bits, 0 when even.
    All are those of an even spread where there is nothing to compare: fewer than two classes, or all counts 0.
    """
    counts = np.asarray(counts, dtype=np.float64)
    even = np.ones(len(counts)) if even is None else np.asarray(even, dtype=np.float64)
    if len(counts) < 2 or counts.sum() == 0:
        return {"max_min": 1.0, "entropy": 1.0, "gini": 0.0, "kl": 0.0}
    ascending = np.argsort(counts / even, kind="stable")
    counts, even = counts[ascending], even[ascending]
    p, q = counts / counts.sum(), even / even.sum()
    least = counts[0] / even[0]
    return {
        "max_min": float(counts[-1] / even[-1] / least) if least else math.inf,
        "entropy": min(1.0, _bits(p) / _bits(q)),
        "gini": max(0.0, 1 - float((q * (2 * np.cumsum(p) - p)).sum())),  # twice the area over the Lorenz curve, less 1
        "kl": divergence(counts, even),
    }


def divergence(counts: Sequence[int] | np.ndarray, target: Sequence[float] | np.ndarray) -> float:
    """How far `counts` (n,) are from standing to each other as `target` (n,) does: Kullback-Leibler's, in bits.

    0 where they do, and where all counts are 0; inf where something occurs of which the target has none.
    """
    counts, target = np.asarray(counts, dtype=np.float64), np.asarray(target, dtype=np.float64)
    seen = counts > 0
    if not seen.any():
        return 0.0
    if (target[seen] <= 0).any():
        return math.inf
    p, q = counts[seen] / counts.sum(), target[seen] / target.sum()
    return max(0.0, float((p * np.log2(p / q)).sum()))


def _bits(p: np.ndarray) -> float:
    """Shannon's entropy of probabilities, float64 (n,), that add up to 1."""
    p = p[p > 0]
    return abs(float((p * np.log2(p)).sum()))
