"""rebalance: how many plates to add to a corpus. What is then added is a run of `generate` with `balance.top_up`.

Evenness is 0..1: the entropy of the characters at a position over that of the evenest spread of as many plates (or of
the spread wanted for), as a mean over positions, alphabets and splits, each counting as often as it has plates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from platemint.pipeline.balance.evenness import divergence, entropy
from platemint.pipeline.balance.quotas import Pool, group_weights
from platemint.pipeline.balance.rounding import largest_remainder
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.stages import Stages

MOST = 100_000_000  # plates that are thought of at all
POINTS = 60  # of the curve


@dataclass(frozen=True)
class Proposal:
    """How many plates to add, and why. curve: (plates added, evenness) from none to level. least: see `least_plates`."""

    count: int
    why: str
    curve: tuple[tuple[int, float], ...]
    least: int

    @property
    def text(self) -> str:
        """For people: some points of the curve, the count and its reason."""
        shown = sorted({*np.linspace(0, len(self.curve) - 1, 9).round().astype(int).tolist()})
        rows = [f"  {n:12,}  {even:.4f}" for n, even in (self.curve[i] for i in shown)]
        return "\n".join(
            [
                "plates added  evenness",
                *rows,
                f"{self.count:,} plates: {self.why}",
                f"lower bound for so even a corpus, whatever texts are added: {self.least:,}; one position needs these by itself",
            ]
        )


class ToppedUp:
    """A corpus that plates are added to: what every pool has, and what it gets when so many plates are added."""

    def __init__(self, stages: Stages):
        self.stages, self.groups = stages, stages.sources.groups
        self.weights = group_weights(self.groups, stages.recipe.balance)
        scopes = [stages.demand.scope(group) for group in self.groups]
        self.pools = [
            [Pool(position, alphabet, scope) for position, alphabet in enumerate(group.positions)]
            for group, scope in zip(self.groups, scopes)
        ]

    def after(self, plates: int) -> dict[Pool, dict[str, int]]:
        """Every pool's characters once so many plates are added, those that have a choice."""
        sizes: dict[Pool, int] = {}
        for pools, n, weight in zip(self.pools, largest_remainder(self.weights, plates).tolist(), self.weights):
            for pool in pools if weight else ():
                sizes[pool] = sizes.get(pool, 0) + n
        added, have = self.stages.demand.counts(sizes), self.stages.demand.have
        return {
            pool: {c: n + have[pool.name].get(c, 0) for c, n in counts.items()}
            for pool, counts in added.items()
            if len(pool.alphabet) > 1
        }

    def evenness(self, plates: int) -> float:
        """The corpus's evenness, 0..1, once so many plates are added."""
        pools = self.after(plates)
        sizes = [sum(counts.values()) for counts in pools.values()]
        return float(np.average([self._even(*pool) for pool in pools.items()], weights=sizes)) if pools else 1.0

    def _even(self, pool: Pool, counts: dict[str, int]) -> float:
        """How even a pool is, 0..1; 1 where no character could have one more of the others'.

        The entropy it lacks; of an uneven target, its divergence from that. What is not wanted for does not count.
        """
        wanted = self.stages.demand.target.expected(np.ones(len(pool.alphabet)), -1, pool.alphabet)
        there, wanted = np.array([counts[c] for c in pool.alphabet])[wanted > 0], wanted[wanted > 0]
        best = largest_remainder(wanted, int(there.sum()))
        off = divergence(there, wanted) - divergence(best, wanted)
        return min(1.0, max(0.0, 1 - off / entropy(best))) if entropy(best) else 1.0

    def plates_until(self, until: float) -> int:
        """The fewest plates, added as `generate` adds them, that make the corpus so even."""
        return _first(lambda n: self.evenness(n) >= until - 1e-12)

    def least_plates(self, plates: int) -> int:
        """Fewer than these cannot be added for what so many bring: one position of one split needs them by itself.

        Whoever adds plates adds at most one character to a pool with each.
        """
        demand, before = self.stages.demand, self.after(0)
        least = 0
        for pool, counts in self.after(plates).items():
            goal = self._even(pool, counts)
            have = before.get(pool, dict.fromkeys(counts, 0))

            def reached(n: int, pool: Pool = pool, have: dict = have, goal: float = goal) -> bool:
                added = demand.alone(pool, n)
                return self._even(pool, {c: have[c] + added[c] for c in have}) >= goal - 1e-9

            least = max(least, _first(reached))
        return least


def _first(good: Callable[[int], bool]) -> int:
    """The least number that is good, where all above it are: doubled until it is, then halved in between."""
    if good(0):
        return 0
    high = 1
    while not good(high):
        high *= 2
        if high > MOST:
            raise PlatemintError(f"--until: not reached with {MOST:,} plates; ask for less")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    return high


def propose(stages: Stages, count: int | None = None, until: float | None = None) -> Proposal:
    """How many plates a corpus is topped up with: as many as are asked for, or make it so even, or the curve's knee.

    The knee is where the curve of evenness over plates lies highest above its chord (Satopaa et al., Finding a
    "kneedle" in a haystack, 2011). Raises PlatemintError where the corpus is level as it is.
    """
    corpus = ToppedUp(stages)
    level = corpus.plates_until(1)
    if level == 0:
        raise PlatemintError(
            f"{stages.recipe.source.path}: every character comes equally often; there is nothing to add"
        )
    places = np.unique(np.r_[0, np.geomspace(1, level, POINTS).round(), np.linspace(0, level, POINTS // 2).round()])
    curve = tuple((n, corpus.evenness(n)) for n in places.astype(int).tolist())
    if count is not None:
        return Proposal(count, f"as asked for; {level:,} would make it level", curve, corpus.least_plates(count))
    if until is not None:
        n = max(1, corpus.plates_until(until))
        return Proposal(
            n, f"the fewest, as `generate` adds them, for an evenness of {until:g}", curve, corpus.least_plates(n)
        )
    n, why = _knee(curve)
    return Proposal(n, why, curve, corpus.least_plates(n))


def _knee(curve: tuple[tuple[int, float], ...]) -> tuple[int, str]:
    n, even = (np.array(column, dtype=np.float64) for column in zip(*curve))
    knee = int(np.argmax((even - even[0]) / max(even[-1] - even[0], 1e-12) - n / n[-1]))
    if knee in (0, len(n) - 1):
        return int(n[-1]), "the curve has no knee: they make it level"
    before, after = ((even[b] - even[a]) / (n[b] - n[a]) * 1000 for a, b in ((0, knee), (knee, len(n) - 1)))
    return int(n[knee]), (
        f"the knee of this curve: up to there 1,000 plates raise evenness by {before:.3g}, beyond it by {after:.2g}; "
        "another --count or --until overrides it"
    )
