"""Target strings: rows of shuffled columns, so that every position holds each character as often as is wanted.

A pool is all the characters that one position takes from one alphabet: LLLDDDD and LLDDDD share the pools of their
first two positions. Each character comes floor or ceil of n / len(alphabet) times, or as often as
`pipeline.balance.quotas` has it. The characters of a pool are divided among the patterns (groups whose strings look
alike). Texts that come twice or must not be drawn are then mended by swapping single characters inside a pool, which
leaves every count as it was; where pairs of neighbours are even too, by swapping all that follows a character that two
texts share, which leaves the pairs as well.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from platemint.pipeline.balance.evenness import count_table
from platemint.pipeline.balance.quotas import Demand, Pool, group_weights
from platemint.pipeline.balance.rounding import (
    largest_remainder,
    lattice,
    pool,
    round_table,
    spread_evenly,
    water_fill,
)
from platemint.pipeline.plate import PlatemintError, Stream, Taken, characters

if TYPE_CHECKING:
    from platemint.pipeline.plate import Group

MOST_SWAPS = 1_000_000  # most that are tried before mending is given up (some seconds), beside PER_FAULT
PER_ROW = 100  # swaps are plenty where the rows are few: solvable cases took up to 33
PER_FAULT = 20  # swaps more; where there is room, a fault takes up to four
SMALL = 200  # rows of a pattern that are looked through for a pair
NEAR = 16  # swaps that fail inside the pattern before other patterns of the pool are asked too
LISTED = 4  # an alphabet product up to so many times the texts asked is listed to see how many are free
COUNTED = 200_000  # ... and up to so many texts where drawing failed, for the message


@dataclass(frozen=True)
class Targets:
    """What a run shall write, split by split. group: int32 (N,), a place in `groups`. text: str (N,), all different.

    group_index: int64 (N,), running number inside the group. The groups of a split take turns, so that any stretch of
    consecutive targets holds about each group's share, and nearly even characters.
    """

    group: np.ndarray
    text: np.ndarray
    group_index: np.ndarray


def draw_targets(
    groups: Sequence[Group],
    count: int,
    seed: int,
    forbidden: Container[str],
    reserved: Iterable[str] = (),
    demand: Demand | None = None,
    part: int = 0,
    drawn: Sequence[int] = (),
) -> Targets:
    """`count` different strings, none in `forbidden` or `reserved`, shared over the groups by weight.

    part, drawn: of a run that is drawn in parts, which one this is, and how many strings each group got in those before:
    shared by weight, as near as can be, are all of them.
    demand: how often characters, layouts and lengths shall come; None: every character of a position alike. Raises
    PlatemintError, naming group, asked and possible, where the strings do not suffice, where no arrangement is found
    within a bounded search, and where what is demanded cannot be had.
    """
    demand = demand or Demand()
    if not groups:
        raise PlatemintError("source: no group of plates to draw texts for: see that the source holds labelled plates")
    rng = np.random.default_rng([seed, Stream.DRAW, part])
    weights = group_weights(groups, demand.balance)
    asked = water_fill(drawn, count, weights) if part else largest_remainder(weights, count)
    taken = Taken(forbidden, frozenset(reserved))
    patterns = _patterns(groups, asked, demand)
    asked_for = _Asked(groups, asked, count, sum(drawn))
    _check_room(patterns, asked_for, taken)
    texts, pools = _fill_columns(patterns, demand, rng)
    mending = _PairMender if demand.balance.pairs else _Mender
    mender = mending(texts, pools, patterns, taken, Random(int(rng.integers(2**62))))
    if faults := mender.mend():
        raise _unmended(faults, patterns, asked_for, taken)
    targets = _take_turns(mender.texts, patterns, groups, asked, rng)
    return replace(targets, group_index=targets.group_index + np.array(drawn)[targets.group]) if part else targets


def quotas(targets: Targets, groups: Sequence[Group], demand: Demand | None = None) -> dict[str, dict[str, int]]:
    """{pool's name: {character: count}} of these targets, zeros included (see `pipeline.balance.quotas.Demand`)."""
    demand = demand or Demand()
    present = np.bincount(targets.group, minlength=len(groups))
    texts = targets.text[np.argsort(targets.group, kind="stable")]
    parts = np.split(texts, np.cumsum(present)[:-1])
    found: dict[str, dict[str, int]] = {}
    for group, part in zip(groups, parts):
        table, seen = count_table(part)
        for position, alphabet in enumerate(group.positions if len(part) else ()):
            name = Pool(position, alphabet, demand.scope(group)).name
            counts = found.setdefault(name, dict.fromkeys(alphabet, 0))
            for character, n in zip(seen, table[position].tolist()):
                if n:
                    counts[character] += n
    return found


@dataclass
class _Pattern:
    """Groups that draw from the same strings and pools. Its texts are the rows from `start` on, `size` of them.

    scope: of its pools. blocked: words that none of its texts may hold.
    """

    positions: tuple[str, ...]
    scope: str
    blocked: tuple[str, ...]
    groups: list[int]
    size: int
    start: int = 0

    @property
    def space(self) -> int:
        return math.prod(map(len, self.positions))

    @cached_property
    def free(self) -> list[int]:
        """Positions that have a choice."""
        return [p for p, alphabet in enumerate(self.positions) if len(alphabet) > 1]

    def pools(self) -> list[Pool]:
        return [Pool(position, alphabet, self.scope) for position, alphabet in enumerate(self.positions)]

    def blocks(self, text: str) -> bool:
        """Whether a text holds a word that is not to be seen, separators inside it or not."""
        plain = characters(text) if self.blocked else ""
        return any(word in plain for word in self.blocked)

    def free_texts(self, taken: Container[str]) -> list[str]:
        """Its strings that are not taken."""
        alphabets = [np.array(list(alphabet)) for alphabet in self.positions]
        rows = lattice([len(alphabet) for alphabet in alphabets], self.space)
        texts = _joined([alphabet[column] for alphabet, column in zip(alphabets, rows.T)])
        return [text for text in texts if text not in taken and not self.blocks(text)]


@dataclass
class _Parts:
    """The patterns among which the characters of a pool are divided.

    order: an alphabet, whose first come once more where it cannot be even. spare: characters that come once less than
    others, which may replace these.
    """

    order: np.ndarray
    parts: list[_Pattern]
    spare: set[str]

    @cached_property
    def ends(self) -> list[int]:
        return list(accumulate(part.size for part in self.parts))

    def row(self, number: int) -> int:
        """The row that has this character of the pool, 0 <= number < ends[-1]."""
        part = self.parts[bisect_right(self.ends, number)]
        return part.start + number - (self.ends[bisect_right(self.ends, number)] - part.size)


def _patterns(groups: Sequence[Group], asked: np.ndarray, demand: Demand) -> list[_Pattern]:
    """Patterns that are asked for, those with the fewest strings first: they have the least choice."""
    found: dict[tuple, _Pattern] = {}
    for g in np.flatnonzero(asked).tolist():
        key = tuple(groups[g].positions), demand.scope(groups[g]), tuple(groups[g].blocked)
        pattern = found.setdefault(key, _Pattern(*key, [], 0))
        pattern.groups.append(g)
        pattern.size += int(asked[g])
    patterns = sorted(found.values(), key=lambda pattern: pattern.space)
    for before, pattern in pairwise(patterns):
        pattern.start = before.start + before.size
    return patterns


def _fill_columns(
    patterns: list[_Pattern], demand: Demand, rng: np.random.Generator
) -> tuple[list[str], dict[Pool, _Parts]]:
    """All rows' texts, pattern by pattern, not yet mended, and among which patterns each pool is divided."""
    pools: dict[Pool, _Parts] = {}
    for pattern in patterns:
        for key in pattern.pools():
            pools.setdefault(key, _Parts(rng.permutation(list(key.alphabet)), [], set())).parts.append(pattern)
    wanted = demand.counts({key: sum(part.size for part in divided.parts) for key, divided in pools.items()})
    columns: dict[tuple[int, int], np.ndarray] = {}
    for key, divided in pools.items():
        counts = wanted.get(key)
        left = np.array(list(counts))[spread_evenly(list(counts.values()), rng)] if counts else None
        begin = 0
        for k in rng.permutation(len(divided.parts)).tolist():  # at random, so that pools do not run in step
            part = divided.parts[k]
            columns[part.start, key.position] = (
                _part(part, key.position, np.roll(divided.order, -begin), rng) if left is None else left[: part.size]
            )
            left = None if left is None else left[part.size :]
            begin += part.size
        over = begin % len(divided.order)
        even = set(divided.order[over:].tolist()) if over else set()
        divided.spare = demand.spare(key, counts) if counts else even
    rows = ([columns[q.start, p] for p in range(len(q.positions))] for q in patterns)
    texts = (_joined(_with_even_pairs(part, rng) if demand.balance.pairs else part) for part in rows)
    return [text for part in texts for text in part], pools


def _with_even_pairs(columns: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Columns of characters, each str (n,), reordered so that neighbours' pairs come as evenly as the columns allow.

    Fixed positions are passed over: a separator between two characters makes them no strangers.
    """
    columns, before = [column.copy() for column in columns], None
    for column in columns:
        seen, codes = np.unique(column, return_inverse=True)
        if len(seen) == 1:
            continue
        if before is not None:
            n, m = np.bincount(before), np.bincount(codes)
            table = round_table(np.outer(n, m) / len(column))
            for code, row in enumerate(table):
                column[before == code] = seen[spread_evenly(row, rng)]
            codes = np.searchsorted(seen, column)
        before = codes
    return columns


def _part(pattern: _Pattern, position: int, order: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pattern's column of characters. The first of `order` come once more where it cannot be even.

    Where most of the strings are needed, shuffled columns would nearly all collide: there rows come from a lattice.
    """
    if pattern.size * 2 <= pattern.space:
        return pool(order, pattern.size, rng)
    return order[lattice([len(alphabet) for alphabet in pattern.positions], pattern.size)[:, position]]


def _joined(columns: list[np.ndarray]) -> list[str]:
    """Columns of characters, each str (n,), as n texts."""
    rows = np.ascontiguousarray(np.stack(columns, axis=1))
    return rows.view(f"U{len(columns)}").ravel().tolist()


class _Mender:
    """Swaps characters inside pools until no text is taken and none comes twice.

    A row at fault swaps the character of one position with another row of the same pool, or with a spare character.
    A swap stands unless it leaves more faults than it found; so the fault may move on, and ends where there is room.
    """

    def __init__(
        self,
        texts: list[str],
        pools: dict[Pool, _Parts],
        patterns: list[_Pattern],
        taken: Container[str],
        random: Random,
    ):
        self.texts, self.pools, self.patterns, self.taken = texts, pools, patterns, taken
        self.random = random.random  # the one method that gives the same numbers in every Python
        self.starts = [pattern.start for pattern in patterns]
        self.used: set[str] = set()  # texts of the rows without fault
        self.faults: dict[int, None] = {}  # rows; a dict is a set that keeps its order
        for row, text in enumerate(texts):
            self._settle(row, text)

    def mend(self) -> list[int]:
        """Rows still at fault after as many swaps as are allowed: [] when all is well."""
        failed = 0
        for _ in range(min(MOST_SWAPS, PER_ROW * (len(self.texts) + 200)) + PER_FAULT * len(self.faults)):
            if not self.faults:
                break
            row, _ = self.faults.popitem()  # and back at the end: reading the last key instead takes time per key gone
            self.faults[row] = None
            failed = 0 if self._swap_characters(row, self.pattern(row), wide=failed > NEAR) else failed + 1
        return list(self.faults)

    def pattern(self, row: int) -> _Pattern:
        return self.patterns[bisect_right(self.starts, row) - 1]

    def _swap_characters(self, row: int, pattern: _Pattern, wide: bool) -> bool:
        """Tries one swap and says whether it mended a fault. wide: with other patterns and spare characters too."""
        position = self._below(pattern.free)  # of a pattern without any, the one text is settled before all others
        divided = self.pools[Pool(position, pattern.positions[position], pattern.scope)]
        if wide and divided.spare and self.random() < 0.3:
            return self._use_spare(row, position, divided)
        if wide and self.random() < 0.5:
            other = divided.row(int(self.random() * divided.ends[-1]))
        else:
            other = pattern.start + int(self.random() * pattern.size)
        old, old_other = self.texts[row], self.texts[other]
        if old[position] == old_other[position]:
            return False
        new, new_other = (_with(old, position, old_other[position]), _with(old_other, position, old[position]))
        return self._may(row, new) and self._may(other, new_other) and self._swap(row, new, other, new_other)

    def _may(self, row: int, new: str) -> bool:
        """Whether a row may have this text as far as counts go: swaps keep the counts of single characters."""
        return True

    def _swap(self, row: int, new: str, other: int, new_other: str) -> bool:
        """Gives a row at fault and another one new texts, unless that makes more faults; says whether it made fewer."""
        old_other, sound = self.texts[other], other not in self.faults
        if sound:
            self.used.remove(old_other)
        good = self._is_free(row, new)
        good_other = new != new_other and self._is_free(other, new_other)
        if good + good_other < sound:
            self.used.add(old_other)
            return False
        self._settle(other, new_other)
        self._settle(row, new)
        return good + good_other > sound

    def _use_spare(self, row: int, position: int, divided: _Parts) -> bool:
        """Takes a spare character for one that came once more, and says whether that mended the row."""
        old, new = self.texts[row][position], self._below(sorted(divided.spare))
        if old in divided.spare or not self._may(row, _with(self.texts[row], position, new)):
            return False
        divided.spare ^= {new, old}
        self._settle(row, _with(self.texts[row], position, new))
        return row not in self.faults

    def _settle(self, row: int, text: str) -> None:
        """Gives a row its text, and notes whether it is at fault. The text it had must not be in `used` any more."""
        self.texts[row] = text
        if self._is_free(row, text):
            self.used.add(text)
            self.faults.pop(row, None)
        else:
            self.faults[row] = None

    def _is_free(self, row: int, text: str) -> bool:
        return text not in self.used and text not in self.taken and not self.pattern(row).blocks(text)

    def _below(self, items: list):
        return items[int(self.random() * len(items))]


class _PairMender(_Mender):
    """Swaps what follows a character that two rows of a pattern share: no count of a character or a pair changes.

    Rows of a small pattern may share none: they swap single characters if that makes pairs that no row has yet.
    """

    def _swap_characters(self, row: int, pattern: _Pattern, wide: bool) -> bool:
        if wide and pattern.size <= SMALL:
            return super()._swap_characters(row, pattern, wide)
        cut = self._below(pattern.free)
        for _ in range(PER_FAULT):
            other = pattern.start + int(self.random() * pattern.size)
            a, b = self.texts[row], self.texts[other]
            if other != row and a[cut] == b[cut] and a[cut:] != b[cut:]:
                return self._swap(row, a[:cut] + b[cut:], other, b[:cut] + a[cut:])
        return False

    def _may(self, row: int, new: str) -> bool:
        pattern, old = self.pattern(row), self.texts[row]
        rows = self.texts[pattern.start : pattern.start + pattern.size]
        made = [(a, b) for a, b in pairwise(pattern.free) if (new[a], new[b]) != (old[a], old[b])]
        return pattern.size <= SMALL and not any((r[a], r[b]) == (new[a], new[b]) for a, b in made for r in rows)


def _with(text: str, position: int, character: str) -> str:
    return text[:position] + character + text[position + 1 :]


def _take_turns(
    texts: list[str], patterns: list[_Pattern], groups: Sequence[Group], asked: np.ndarray, rng: np.random.Generator
) -> Targets:
    """Puts the rows in the run's order: split by split, and in a split the groups in turn."""
    members = [g for pattern in patterns for g in pattern.groups]
    group = np.repeat(members, asked[members])
    number = np.concatenate([np.arange(n) for n in asked[members]])
    splits = {split: k for k, split in enumerate(dict.fromkeys(g.split for g in groups))}
    split = np.array([splits[g.split] for g in groups])
    ahead = (rng.permutation(len(groups)) + 0.5) / len(groups)  # small groups shall not all come at the same place
    turn = (number + ahead[group]) / asked[group]
    order = np.lexsort((turn, split[group]))
    return Targets(group[order].astype(np.int32), np.array(texts)[order], number[order].astype(np.int64))


@dataclass(frozen=True)
class _Asked:
    """What is asked for: of each group, int64 (n,), and in all. before: in a run's earlier parts."""

    groups: Sequence[Group]
    of: np.ndarray
    count: int
    before: int

    def of_pattern(self, pattern: _Pattern) -> str:
        """In words, for a message."""
        g = max(pattern.groups, key=lambda g: self.of[g])
        others = f" (with {len(pattern.groups) - 1} more of its pattern)" if len(pattern.groups) > 1 else ""
        return f"group {self.groups[g].name}{others} is asked for {pattern.size} different texts"

    def remedy(self, most: int) -> str:
        """most: as can be had."""
        lower = f"lower it to {most + self.before} or less, or " if most else ""
        return f"{lower}leave the plates of such groups out of the source"


def _check_room(patterns: list[_Pattern], asked: _Asked, taken: Container[str]) -> None:
    """Raises PlatemintError where a pattern has fewer strings than are asked of it."""
    short = []
    for pattern in patterns:
        if pattern.space <= LISTED * pattern.size and (free := len(pattern.free_texts(taken))) < pattern.size:
            short.append((pattern, free))
    if not short:
        return
    named = "; ".join(f"{asked.of_pattern(p)}, where {free} are possible" for p, free in short[:3])
    more = f"; and {len(short) - 3} more" if len(short) > 3 else ""
    most = min(asked.count * free // pattern.size for pattern, free in short)
    raise PlatemintError(f"count: {named}{more}: {asked.remedy(most)}")


def _unmended(faults: list[int], patterns: list[_Pattern], asked: _Asked, taken: Taken) -> PlatemintError:
    """The error for rows that could not be mended, naming the pattern that has most of them."""
    starts = [pattern.start for pattern in patterns]
    [(worst, stuck)] = Counter(bisect_right(starts, row) - 1 for row in faults).most_common(1)
    pattern = patterns[worst]
    room, even, placed = pattern.space, pattern.size, pattern.size - stuck
    if pattern.space <= COUNTED:
        free = pattern.free_texts(taken)
        room, even = len(free), _most_even(free, pattern)
    return PlatemintError(
        f"count: {asked.of_pattern(pattern)}; {room} are possible, but no {pattern.size} were found that hold "
        "every character equally often and that no other group uses: "
        + asked.remedy(asked.count * min(even, placed) // pattern.size)
    )


def _most_even(free: list[str], pattern: _Pattern) -> int:
    """How many of the free texts can hold every character equally often, judged by single positions."""
    columns = map(Counter, zip(*free))
    return min(
        (len(alphabet) * min(left[c] for c in alphabet) for alphabet, left in zip(pattern.positions, columns)),
        default=0,
    )
