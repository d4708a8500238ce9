"""Labels that stand in two splits, or nearly: a reader tested on what it has learned looks better than it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, islice

import numpy as np

from platemint.pipeline.plate import canonical

SHOWN = 5  # examples of each kind


def near_duplicates(texts: Sequence[str], splits: Sequence[str]) -> dict:
    """Texts that read the same in two splits, and pairs from two splits that are one character apart.

    Texts compare as readings do (`canonical`: no separators, O as 0); one apart are two of the same length that differ
    in one place. Ready for JSON: `same` has texts (how many different ones), `one_apart` has pairs; both have plates
    ({split: plates with such a twin in another split}) and a few examples, sorted, each as
    {split: text, other split: text}.
    """
    homes = _Homes(texts, splits)
    return {"same": _same(homes), "one_apart": _one_apart(homes)}


class _Homes:
    """Which text stands in which split; an entry is such a pair, numbered by text and then by split.

    texts: str (texts,), canonical; splits: str (splits,); both sorted and different. text, split: int64 (entries,),
    their numbers. plates, first: int64 (entries,), how many plates have it, and the first. alone: int64 (texts,), the
    only split of a text, -1 for one that has several.
    """

    def __init__(self, texts: Sequence[str], splits: Sequence[str]):
        self.spelled = texts
        self.texts, text = np.unique(np.array([canonical(text) for text in texts], dtype=str), return_inverse=True)
        self.splits, split = np.unique(np.array(splits, dtype=str), return_inverse=True)
        keys, self.first, self.plates = np.unique(
            text * len(self.splits) + split, return_index=True, return_counts=True
        )
        self.text, self.split = np.divmod(keys, max(1, len(self.splits)))
        self.alone = np.full(len(self.texts), -1, dtype=np.int64)
        self.alone[self.text] = self.split
        self.alone[np.bincount(self.text, minlength=len(self.texts)) > 1] = -1

    def plates_of(self, flagged: np.ndarray) -> dict[str, int]:
        """Plates of the entries flagged, bool (entries,), by split."""
        plates = np.bincount(self.split[flagged], self.plates[flagged], minlength=len(self.splits))
        return {str(split): int(n) for split, n in zip(self.splits, plates) if n}

    def of(self, text: int) -> range:
        """The entries of a text."""
        return range(*np.searchsorted(self.text, [text, text + 1]).tolist())

    def example(self, a: int, b: int) -> dict[str, str]:
        """Two texts, or one twice, as the first plates of the first splits that tell them apart have them."""
        s, t = next((s, t) for s in self.of(a) for t in self.of(b) if self.split[s] != self.split[t])
        return {str(self.splits[self.split[entry]]): self.spelled[self.first[entry]] for entry in (s, t)}


def _same(homes: _Homes) -> dict:
    several = np.flatnonzero(homes.alone < 0)
    return {
        "texts": len(several),
        "plates": homes.plates_of(homes.alone[homes.text] < 0),
        "examples": [homes.example(text, text) for text in several[:SHOWN].tolist()],
    }


def _one_apart(homes: _Homes) -> dict:
    """A pair crosses splits unless both texts stand in one and the same split only: all pairs less those."""
    pairs, found = 0, []
    flagged = np.zeros(len(homes.text), dtype=bool)
    for members, group in _agreeing(homes.texts) if len(homes.splits) > 1 else ():
        size = np.bincount(group)
        keys = group * len(homes.splits) + homes.alone[members]
        kept, kept_size = np.unique(keys[homes.alone[members] >= 0], return_counts=True)
        crossing = _pairs(size)
        np.subtract.at(crossing, kept // len(homes.splits), _pairs(kept_size))
        pairs += int(crossing.sum())
        found += _first(homes, members, group, crossing)
        flagged |= _has_neighbour(homes, members, group, (size, kept, kept_size))
    examples = [homes.example(a, b) for a, b in sorted(found)[:SHOWN]]
    return {"pairs": pairs, "plates": homes.plates_of(flagged), "examples": examples}


def _agreeing(texts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each position, the texts, different ones, str (texts,), that agree with another everywhere but there.

    Yields their numbers, int64 (members,), ascending, and the group of each, int64 (members,), from 0. Texts of a
    group differ in that one place. Groups come from numbering the texts' beginnings and ends by sorting, three times a
    position, so that they are exact, and a million texts take seconds.
    """
    codes = texts.view(np.uint32).reshape(len(texts), -1)
    ends = [np.zeros(len(texts), dtype=np.int64)]
    for column in codes.T[:0:-1]:
        ends.append(_numbered(ends[-1], column))
    begins = np.zeros(len(texts), dtype=np.int64)
    for column, end in zip(codes.T, reversed(ends)):
        there = np.flatnonzero(column)  # numpy pads short texts with 0
        group = _numbered(begins[there], end[there])
        several = np.bincount(group)[group] > 1
        if several.any():
            yield there[several], np.unique(group[several], return_inverse=True)[1]
        begins = _numbered(begins, column)


def _numbered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A number from 0 for each different pair of a number of a, below 2**31, and one of b: int64 (n,)."""
    return np.unique(a * (int(b.max(initial=0)) + 1) + b, return_inverse=True)[1]


def _pairs(n: np.ndarray) -> np.ndarray:
    return n * (n - 1) // 2


def _first(homes: _Homes, members: np.ndarray, group: np.ndarray, crossing: np.ndarray) -> list[tuple[int, int]]:
    """Crossing pairs of texts, as many as are shown or all there are, from the first groups that have one."""
    of_crossing = np.flatnonzero(crossing[group])
    first = np.sort(np.unique(group[of_crossing], return_index=True)[1])[:SHOWN]
    found: list[tuple[int, int]] = []
    for chosen in group[of_crossing][first]:
        every = combinations(members[group == chosen].tolist(), 2)
        found += islice(((a, b) for a, b in every if homes.alone[a] < 0 or homes.alone[a] != homes.alone[b]), SHOWN)
    return found


def _has_neighbour(homes: _Homes, members: np.ndarray, group: np.ndarray, sizes: tuple) -> np.ndarray:
    """Which entries have a neighbour in another split: bool (entries,). sizes: as in `_one_apart`."""
    size, kept, kept_size = sizes
    group_of = np.full(len(homes.texts), -1, dtype=np.int64)
    group_of[members] = group
    entries = np.flatnonzero(group_of[homes.text] >= 0)
    text, split = homes.text[entries], homes.split[entries]
    key = group_of[text] * len(homes.splits) + split
    place = np.minimum(np.searchsorted(kept, key), max(0, len(kept) - 1))
    only_here = np.where(kept[place] == key, kept_size[place], 0) if len(kept) else np.zeros(len(key), dtype=np.int64)
    flagged = np.zeros(len(homes.text), dtype=bool)
    flagged[entries] = size[group_of[text]] - only_here - (homes.alone[text] < 0) > 0
    return flagged
