"""How evenly characters are spread: pure functions on arrays, the same for target strings and for corpora.

Entropies are sums of scipy.special's terms, as scipy.stats.entropy adds them: every worker process loads this file, and
scipy.stats would add a second to its start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import entr, rel_entr


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
        "entropy": min(1.0, float(entr(p).sum() / entr(q).sum())),
        "gini": max(0.0, 1 - float((q * (2 * np.cumsum(p) - p)).sum())),  # twice the area over the Lorenz curve, less 1
        "kl": divergence(counts, even),
    }


def entropy(counts: Sequence[int] | np.ndarray) -> float:
    """Shannon's entropy of counts (n,) as shares, in bits; 0 where all are 0."""
    counts = np.asarray(counts, dtype=np.float64)
    return float(entr(counts / counts.sum()).sum()) / math.log(2) if counts.any() else 0.0


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
    return max(0.0, float(rel_entr(p, q).sum()) / math.log(2))
