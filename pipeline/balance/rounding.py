"""Whole numbers and columns with given sums: pure functions on arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


class Infeasible(ValueError):
    """Totals that cannot be had. missed: {column: (wanted, nearest that can be)} of those that cannot have theirs."""

    def __init__(self, missed: dict[int, tuple[float, float]]):
        super().__init__(f"no table has these totals; the nearest: {missed}")
        self.missed = missed


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


def water_fill(have: Sequence[int] | np.ndarray, n: int, weights: Sequence[float] | np.ndarray = ()) -> np.ndarray:
    """How to share `n` new ones over classes that already `have` some so that the lowest rise to one level.

    int64 (classes,), sum n. weights: how high the classes' levels shall stand to each other; without them, all alike;
    a class of weight 0 gets none. Classes above the level get none, the others what they lack of it, rounded up or
    down. All alike, no other way of adding n leaves a larger minimum.
    """
    have = np.asarray(have, dtype=np.float64)
    weights = np.ones(len(have)) if len(weights) == 0 else np.asarray(weights, dtype=np.float64)
    if n == 0:
        return np.zeros(len(have), dtype=np.int64)
    wanted = np.flatnonzero(weights)
    ascending = wanted[np.argsort(have[wanted] / weights[wanted], kind="stable")]
    height = have[ascending] / weights[ascending]
    levels = (n + np.cumsum(have[ascending])) / np.cumsum(weights[ascending])  # if only the i + 1 lowest are raised
    level = levels[np.flatnonzero(levels >= height)[-1]]
    return largest_remainder(np.maximum(0, level * weights - have), n)


def rake(start: np.ndarray, rows: np.ndarray, columns: np.ndarray, rounds: int = 10_000) -> np.ndarray:
    """The table, float64 (R, C), nearest to `start` in Kullback-Leibler's sense whose rows and columns sum as asked.

    Iterative proportional fitting (Deming and Stephan, 1940); zeros of start stay zeros. It converges where there is
    such a table: quickly, unless an entry has to vanish (see `_may_be`); then it stops after so many rounds, far off.
    """
    table = np.asarray(start, dtype=np.float64).copy()
    for _ in range(rounds):
        table *= (rows / np.maximum(table.sum(1), 1e-300))[:, None]
        table *= columns / np.maximum(table.sum(0), 1e-300)
        if np.abs(table.sum(1) - rows).sum() <= 1e-9 * max(1.0, float(np.sum(rows))):
            break
    return table


def round_table(table: np.ndarray) -> np.ndarray:
    """A table of whole numbers, int64 (R, C), with the row and column sums of the float one, which are whole.

    Every entry is rounded up or down, mostly to the nearer (controlled rounding; Cox, 1987). That is a transportation
    problem, and the corners that linear programming finds are whole.
    """
    low = np.floor(table + 1e-6)
    up = table - low
    entries = np.argwhere(up > 1e-6)
    if len(entries):
        over = np.r_[up.sum(1), up.sum(0)].round()
        rounded_up = _solve(-up[tuple(entries.T)], _sums(entries, table.shape), over, most=1)
        low[tuple(entries.T)] += rounded_up.round()
    return low.astype(np.int64)


def apportion(sizes: np.ndarray, allowed: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """What rows of these `sizes` (R,) hold of columns of which there shall be `wanted` (C,) in all: int64 (R, C).

    allowed: bool (R, C), the columns a row may hold. Of all such tables the evenest (of the largest entropy), rounded.
    sizes and wanted are whole and have one sum. Raises Infeasible where there is no such table.
    """
    entries = np.argwhere(allowed)
    filled = _nearest(_sums(entries, allowed.shape), np.r_[sizes, wanted], len(sizes)).round()
    _refuse(wanted, np.bincount(entries[:, 1], filled, len(wanted)))
    start = np.zeros(allowed.shape)
    start[tuple(entries[_may_be(entries, filled > 0)].T)] = 1
    return round_table(rake(start, sizes, wanted))


def reweigh(weights: np.ndarray, shares: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The weights (n,) as little changed as can be so that kinds have their shares: float64 (n,), sum 1.

    shares: for one or two ways of sorting the n into kinds, (of (n,), the kind's number; share (kinds,), sum 1). By
    iterative proportional fitting. Raises Infeasible, its columns counted through all kinds, where shares contradict.
    """
    there = np.flatnonzero(weights)
    kinds = [(of[there], share) for of, share in shares]
    starts = np.cumsum([0, *(len(share) for _, share in kinds)])
    rows = np.concatenate([np.zeros(len(there)), *(1 + start + of for start, (of, _) in zip(starts, kinds))])
    sums = _sparse(rows, np.tile(np.arange(len(there)), 1 + len(kinds)), (1 + starts[-1], len(there)))
    wanted = np.concatenate([[1.0], *(share for _, share in kinds)])
    filled = _nearest(sums, wanted, 1)
    _refuse(wanted[1:], (sums @ filled)[1:])
    if len(kinds) == 2:
        may_be = _may_be(np.stack([of for of, _ in kinds], axis=1), filled > 1e-9)
        there, kinds = there[may_be], [(of[may_be], share) for of, share in kinds]
    fitted = np.asarray(weights, dtype=np.float64)[there]
    for _ in range(10_000):
        before = fitted
        for of, share in kinds:
            fitted = fitted * (share / np.maximum(np.bincount(of, fitted, len(share)), 1e-300))[of]
        if np.abs(fitted - before).sum() < 1e-12:
            break
    whole_weights = np.zeros(len(weights))
    whole_weights[there] = fitted
    return whole_weights


def _may_be(entries: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Which entries (n, 2) of a table are not 0 in every table of its sums: bool (n,). filled: those that are not now.

    One that is 0 now can be raised if a round of others, up and down by turns, gives back to row and column what it
    takes: if the two are strongly connected by ways from rows over any entry, and from columns over filled ones.
    """
    from scipy.sparse.csgraph import connected_components

    row, column = entries[:, 0], entries[:, 0].max() + 1 + entries[:, 1]
    ways = _sparse(np.r_[row, column[filled]], np.r_[column, row[filled]], (column.max() + 1,) * 2)
    _, part = connected_components(ways, directed=True, connection="strong")
    return part[row] == part[column]


def _refuse(wanted: np.ndarray, nearest: np.ndarray) -> None:
    missed = np.flatnonzero(np.abs(wanted - nearest) > 1e-6)
    if len(missed):
        raise Infeasible({int(c): (wanted[c].item(), nearest[c].item()) for c in missed})


def _sums(entries: np.ndarray, shape: tuple[int, int]):
    """Which row sums, and then which column sums, of a table each of some `entries` (n, 2) counts in: sparse."""
    n = np.arange(len(entries))
    return _sparse(np.r_[entries[:, 0], shape[0] + entries[:, 1]], np.r_[n, n], (sum(shape), len(n)))


def _sparse(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]):
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def _nearest(sums, wanted: np.ndarray, exact: int) -> np.ndarray:
    """Entries whose sums miss `wanted` by the least in all; the first `exact` of them by nothing."""
    from scipy.sparse import hstack

    n, soft = sums.shape[1], np.arange(exact, len(wanted))
    short = _sparse(soft, np.arange(len(soft)), (len(wanted), len(soft)))
    cost = np.r_[np.zeros(n), np.ones(2 * len(soft))]
    return _solve(cost, hstack([sums, short, -short]), wanted)[:n]


def _solve(cost: np.ndarray, sums, wanted: np.ndarray, most: float | None = None) -> np.ndarray:
    from scipy.optimize import linprog

    found = linprog(cost, A_eq=sums, b_eq=wanted, bounds=(0, most), method="highs-ds")
    if found.status:
        raise ValueError(f"no table has these row and column sums: {found.message}")
    return found.x


def spread_evenly(counts: Sequence[int] | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """So many of each class, shuffled so that any stretch holds about each one's share: int64 (sum of counts,)."""
    counts = np.asarray(counts, dtype=np.int64)
    of = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    return of[np.argsort((number + rng.random(len(of))) / counts[of], kind="stable")]


def pool(alphabet: Sequence[str] | np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` shuffled characters, str (n,), in which no character is more than one ahead of another.

    Each stretch of len(alphabet) from the start holds every character once, so any stretch of a pool is nearly even
    too. The n % len(alphabet) characters that come once more than the others are the first of `alphabet`.
    """
    places = np.arange(n)
    shuffled = np.argsort(places // len(alphabet) + rng.random(n), kind="stable")
    return np.asarray(list(alphabet))[shuffled % len(alphabet)]


def lattice(sizes: Sequence[int], n: int) -> np.ndarray:
    """`n` different rows of range(sizes[0]) x range(sizes[1]) x ..., int64 (n, len(sizes)), with even columns.

    A column of size k holds the numbers below n % k once more than the others, as a pool does. With n = prod(sizes) it
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
