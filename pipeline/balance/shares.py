"""How often each character is wanted: what a corpus is compared with. Evenly, or as a table of the user's has it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from platemint.pipeline.balance.rounding import largest_remainder
from platemint.pipeline.corpora import table_rows
from platemint.pipeline.plate import PlatemintError, kind_of, normalise

UNIFORM = "uniform"
COLUMNS = ("position", "character", "share")


@dataclass(frozen=True)
class Target:
    """Shares wanted of characters; they need not add up to 1. Without any: every character of a class alike.

    by_character: for every position. How the characters of one class (digits, letters, provinces) stand to each other;
    how often the class itself comes is a matter of layouts, and taken as it is. A class that is not named is wanted
    evenly spread.
    by_position: for single positions, from 0: all that is wanted there, whatever its class; nothing else is.
    """

    name: str = UNIFORM
    by_character: Mapping[str, float] = field(default_factory=dict)
    by_position: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    @property
    def characters(self) -> set[str]:
        """All characters with a share above 0."""
        tables = (self.by_character, *self.by_position.values())
        return {c for shares in tables for c, share in shares.items() if share}

    def expected(self, counts: np.ndarray, position: int, characters: str) -> np.ndarray:
        """The counts, int64 (characters,), of a position as they are wanted with as many plates: float64, likewise."""
        if position in self.by_position:
            return _shared(counts.sum(), _weights(self.by_position[position], characters))
        weights = _weights(self.by_character, characters)
        for belongs in _classes(characters):
            if not weights[belongs].any():
                weights[belongs] = 1
        return shared_by_class(counts, characters, weights)

    def whole(self, counts: np.ndarray, position: int, characters: str) -> np.ndarray:
        """The same in whole numbers, int64 (characters,), each at most one off; a class keeps its size if it is whole."""
        expected, total = self.expected(counts, position, characters), round(float(counts.sum()))
        if position in self.by_position:
            return largest_remainder(expected, total)
        found, classes = np.zeros(len(characters), dtype=np.int64), _classes(characters)
        for belongs, n in zip(classes, largest_remainder([counts[belongs].sum() for belongs in classes], total)):
            if n:
                found[belongs] = largest_remainder(expected[belongs], int(n))
        return found


def shared_by_class(counts: np.ndarray, characters: str, weights: np.ndarray) -> np.ndarray:
    """The counts of each class, int64 (characters,), shared over it anew, float64, as float64 `weights` have it."""
    shared = np.zeros(len(characters))
    for belongs in _classes(characters):
        shared[belongs] = _shared(counts[belongs].sum(), weights[belongs])
    return shared


def _classes(characters: str) -> list[np.ndarray]:
    """Where the digits, the letters and so on are among the characters (`kind_of`): bool (characters,) each."""
    kinds = [kind_of(c) for c in characters]
    return [np.array([k == kind for k in kinds], dtype=bool) for kind in dict.fromkeys(filter(None, kinds))]


def _weights(shares: Mapping[str, float], characters: str) -> np.ndarray:
    return np.array([shares.get(c, 0) for c in characters], dtype=np.float64)


def _shared(total: int, weights: np.ndarray) -> np.ndarray:
    if not total:
        return np.zeros(len(weights))
    weights = weights / weights.max()  # first: shares may be as large as floats go
    return total * weights / weights.sum()


def read_target(path: str | Path) -> Target:
    """A target from a CSV with the columns character and share, and position (from 0) where each has its own.

    "uniform" is the even one. Raises PlatemintError, naming file, line and field, for what cannot be understood.
    """
    if str(path) == UNIFORM:
        return Target()
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise PlatemintError(f"{path}: target: neither {UNIFORM} nor a .csv file")
    tables: dict[int | None, dict[str, float]] = {}
    for number, row in _rows(path):
        where = f"{path}, line {number}"
        position = _position(row["position"], where) if "position" in row else None
        shares, character = tables.setdefault(position, {}), _character(row["character"], where)
        if character in shares:
            raise PlatemintError(f"{where}: character: {character} has a share already")
        shares[character] = _share(row["share"], where)
    for position, shares in tables.items():
        if not any(shares.values()):
            at = "" if position is None else f" at position {position}"
            raise PlatemintError(f"{path}: share: not one above 0{at}")
    return Target(str(path), tables.pop(None, {}), tables)


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and fields of each row. Raises PlatemintError where it is not such a table."""
    rows = [(row.number, row.fields) for row in table_rows.sound_rows(path)]
    names = tuple(name for name in rows[0][1] if name) if rows else ()
    if sorted(names) not in (sorted(COLUMNS), sorted(COLUMNS[1:])):
        known = f"{','.join(COLUMNS)} or {','.join(COLUMNS[1:])}"
        raise PlatemintError(f"{path}, line 1: needs the columns {known}, and rows below")
    return rows


def _position(value: str, where: str) -> int:
    if not (value.strip().isascii() and value.strip().isdigit() and len(value) < 10):
        raise PlatemintError(f"{where}: position: must be a whole number from 0, not {value!r}")
    return int(value)


def _character(value: str, where: str) -> str:
    character = normalise(value)
    if len(character) != 1 or not character.isalnum():
        raise PlatemintError(f"{where}: character: must be one digit, letter or province, not {value!r}")
    return character


def _share(value: str, where: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = math.nan
    if not (math.isfinite(share) and share >= 0):
        raise PlatemintError(f"{where}: share: must be a number of 0 or more, not {value!r}")
    return share
