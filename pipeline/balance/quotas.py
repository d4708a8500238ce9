"""How often each character shall come: what a recipe's balance means for the pools that targets take their characters from.

A pool is all the characters that one position takes from one alphabet, over the whole run; over one layout where the
balance is per layout, and over one split where a corpus is topped up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from platemint.pipeline.balance.rounding import Infeasible, apportion, reweigh, water_fill
from platemint.pipeline.balance.shares import Target
from platemint.pipeline.plate import SEPARATORS, PlatemintError
from platemint.pipeline.recipe import Balance

if TYPE_CHECKING:
    from platemint.pipeline.plate import Group


class Pool(NamedTuple):
    """One position's characters of one alphabet. scope: what it is for, "" for the whole run."""

    position: int
    alphabet: str
    scope: str = ""

    @property
    def name(self) -> str:
        """As plan.json has it: "0/ABC", and "0/ABC/train" where it is for train only."""
        return f"{self.position}/{self.alphabet}" + (f"/{self.scope}" if self.scope else "")

    @classmethod
    def named(cls, name: str) -> Pool:
        position, alphabet, *scope = name.split("/", 2)
        return cls(int(position), alphabet, *scope)


@dataclass(frozen=True)
class Demand:
    """A recipe's balance, with the table it names and the characters a corpus has already, {pool's name: counts}."""

    balance: Balance = Balance()
    target: Target = Target()
    have: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def scope(self, group: Group) -> str:
        """What the pools of a group's characters are for."""
        parts = (group.layout if self.balance.per == "layout" else "", group.split if self.balance.top_up else "")
        return "/".join(filter(None, parts))

    def counts(self, sizes: Mapping[Pool, int]) -> dict[Pool, dict[str, int]]:
        """How often each character comes in pools of these sizes; a pool that is left out shall be even.

        Raises PlatemintError, naming what cannot be had and what is nearest to it, where the pools have no room.
        """
        foreign = self.target.characters.difference(*(pool.alphabet for pool in sizes))
        if foreign:
            named = ", ".join(sorted(foreign))
            raise PlatemintError(f"balance.target: no plate of the source may have {named}: leave it out of the table")
        if beyond := set(self.target.by_position).difference(pool.position for pool in sizes):
            raise PlatemintError(f"balance.target: no plate of the source has a position {min(beyond)}, counted from 0")
        if self.have and self.target.by_position:
            raise PlatemintError(
                "balance.target: a corpus is topped up by a table of character,share, without position"
            )
        found = {}
        for pools in self._counted_as_one(sizes):
            found |= self._together({pool: sizes[pool] for pool in pools})
        uneven = [d for d in sizes if d not in found and (self.target.by_character or d.name in self.have)]
        return found | {pool: self.alone(pool, sizes[pool]) for pool in uneven}

    def _counted_as_one(self, pools: Iterable[Pool]) -> list[list[Pool]]:
        """Pools that only together have what is wanted: all of them, or those of a position that the table names."""
        free = sorted(pool for pool in pools if pool.alphabet not in SEPARATORS)
        if self.balance.per == "character":
            return [free] if free else []
        named = ([pool for pool in free if pool.position == p] for p in sorted(self.target.by_position))
        return [pools for pools in named if pools]

    def alone(self, pool: Pool, size: int) -> dict[str, int]:
        """A pool's characters as the table has them, less those that the corpus has."""
        weights = self.target.expected(np.ones(len(pool.alphabet)), -1, pool.alphabet)
        if pool.alphabet in SEPARATORS:
            weights = np.ones(1)
        have = self.have.get(pool.name, {})
        return dict(zip(pool.alphabet, water_fill([have.get(c, 0) for c in pool.alphabet], size, weights).tolist()))

    def spare(self, pool: Pool, counts: Mapping[str, int]) -> set[str]:
        """Characters of a topped-up pool that could as well have come once more instead of one that did."""
        if pool.name not in self.have or self.target.by_character:
            return set()
        there = self._levels(pool, counts)
        lowest = min(there.values())
        return (
            {c for c in there if there[c] == lowest} if any(counts[c] and there[c] > lowest for c in there) else set()
        )

    def _levels(self, pool: Pool, counts: Mapping[str, int]) -> dict[str, int]:
        have = self.have.get(pool.name, {})
        return {c: have.get(c, 0) + counts[c] for c in pool.alphabet}

    def _alike(self, pool: Pool, counts: Mapping[str, int], wanted: Mapping[str, int]) -> bool:
        """Whether counts are the wanted ones, or raise a corpus to the same level with others of its characters."""
        if pool.name not in self.have or self.target.by_character:
            return counts == wanted
        levels = (sorted(self._levels(pool, counted).values()) for counted in (counts, wanted))
        return min(counts.values()) >= 0 and next(levels) == next(levels)

    def _together(self, sizes: dict[Pool, int]) -> dict[Pool, dict[str, int]]:
        position = next(iter(sizes)).position if self.balance.per != "character" else -1
        shares = self.target.by_position.get(position, {})
        alphabets = [pool.alphabet for pool in sizes] + ["".join(c for c in shares if shares[c])]
        characters = "".join(sorted(set("".join(alphabets))))
        size, allowed = np.array([*sizes.values()]), np.array([[c in d.alphabet for c in characters] for d in sizes])
        by_room = size @ (allowed / allowed.sum(1, keepdims=True))
        table = _apportion(size, allowed, self.target.whole(by_room, position, characters), characters, position)
        return {
            pool: {c: n for c, n in zip(characters, row.tolist()) if c in pool.alphabet}
            for pool, row in zip(sizes, table)
        }

    def faults(self, quotas: Mapping[str, Mapping[str, int]]) -> list[str]:
        """What is wrong with quotas of a plan, {pool's name: {character: count}}: nothing, where they are as wanted."""
        pools = {Pool.named(name): counts for name, counts in quotas.items()}
        wanted = self.counts({pool: sum(counts.values()) for pool, counts in pools.items()})
        faults, together = [], self._counted_as_one(pools)
        for group in together:
            if _summed(pools[pool] for pool in group) != _summed(wanted[pool] for pool in group):
                faults.append(f"its quotas at {', '.join(pool.name for pool in group)} are not as wanted")
        for pool, counts in pools.items():
            if (
                pool in wanted
                and not any(pool in group for group in together)
                and not self._alike(pool, counts, wanted[pool])
            ):
                faults.append(f"its quotas at {pool.name} are not as wanted")
            if pool not in wanted and max(counts.values()) - min(counts.values()) > 1:
                faults.append(f"its quotas at {pool.name} are not even")
        return faults


def add_quotas(tables: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """The sum of tables {"position" or "position/alphabet": {character: count}}, in order, zeros kept."""
    total: dict[str, dict[str, int]] = {}
    for table in tables:
        for key, counts in table.items():
            sums = total.setdefault(key, {})
            for character, count in counts.items():
                sums[character] = sums.get(character, 0) + count
    return {
        key: dict(sorted(total[key].items())) for key in sorted(total, key=lambda key: (int(key.split("/")[0]), key))
    }


def had(groups: Sequence[Group], texts: Sequence[Iterable[str]], balance: Balance) -> dict[str, dict[str, int]]:
    """How often each character stands in the texts of each group's plates: {pool's name: {character: count}}."""
    found: dict[str, dict[str, int]] = {}
    scope = Demand(balance).scope
    for group, group_texts in zip(groups, texts):
        for position, column in enumerate(zip(*group_texts)):
            alphabet = group.positions[position]
            counts = found.setdefault(Pool(position, alphabet, scope(group)).name, dict.fromkeys(alphabet, 0))
            for character, n in Counter(column).items():
                counts[character] = counts.get(character, 0) + n  # a label may hold what its country leaves out
    return found


def _summed(tables: Iterable[Mapping[str, int]]) -> Counter:
    return sum((Counter(table) for table in tables), Counter())


def _apportion(size: np.ndarray, allowed: np.ndarray, wanted: np.ndarray, characters: str, position: int) -> np.ndarray:
    try:
        return apportion(size, allowed, wanted)
    except Infeasible as fault:
        if any(abs(w - n) > 1 for w, n in fault.missed.values()):
            raise PlatemintError(_refusal(fault, characters, position)) from None
        for c, (_, nearest) in fault.missed.items():  # rounding alone: a share of a class met another of the table
            wanted[c] = nearest
        return apportion(size, allowed, wanted)


def _refusal(fault: Infeasible, characters: str, position: int) -> str:
    where = "over all positions" if position < 0 else f"at position {position}"
    missed = [f"{characters[c]} {w:g} times, {n:g} are possible" for c, (w, n) in fault.missed.items()]
    more = f"; and {len(missed) - 6} more" if len(missed) > 6 else ""
    return f"balance: {where} it cannot be as wanted: {'; '.join(missed[:6])}{more}. The plates have no room for it"


def group_weights(groups: Sequence[Group], balance: Balance) -> np.ndarray:
    """Each group's share of the run, float64 (n,), sum 1, when layouts and lengths have the shares wanted for them.

    Raises PlatemintError for a layout or length that no group has, and for shares that contradict each other.
    """
    weights = np.array([group.weight for group in groups], dtype=np.float64)
    kinds, names = [], []
    for field_, shares, of in (
        ("layouts", dict(balance.layouts), [group.layout for group in groups]),
        (
            "lengths",
            dict(balance.lengths),
            [str(sum(p not in SEPARATORS for p in group.positions)) for group in groups],
        ),
    ):
        if shares:
            numbers, wanted, named = _kinds(f"balance.{field_}", shares, of)
            kinds.append((numbers, wanted))
            names += named
    if not kinds:
        return weights / weights.sum()
    try:
        return reweigh(weights, kinds)
    except Infeasible as fault:
        missed = "; ".join(f"{names[c]} {w:.3g}, {n:.3g} is possible" for c, (w, n) in fault.missed.items())
        raise PlatemintError(f"balance: these shares cannot all be had: {missed}; change one of them") from None


def _kinds(field_: str, shares: Mapping[str, float], of: list[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The kind's number of every group, the kinds' shares, and their names; those not named are one kind together."""
    unknown = [name for name in shares if name not in of]
    if unknown:
        there = ", ".join(sorted(set(of)))
        raise PlatemintError(f"{field_}: no plate of the source is of {unknown[0]}; there are: {there}")
    kinds, rest = list(shares), 1 - sum(shares.values())
    others = [name not in shares for name in of]
    if rest < -1e-9 or (abs(rest) > 1e-9 and not any(others)):
        raise PlatemintError(f"{field_}: the shares add up to {1 - rest:.4g}; they are parts of 1")
    numbers = np.array([len(kinds) if other else kinds.index(name) for name, other in zip(of, others)])
    wanted = [*shares.values(), *([max(rest, 0.0)] if any(others) else [])]
    return numbers, np.array(wanted), [f"{field_}: {name}" for name in [*kinds, "others"][: len(wanted)]]
