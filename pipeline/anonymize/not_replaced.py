"""not_replaced: what of a dataset was not replaced, under ids that reveal nothing, and the owner's list of what they stand for.

An id is a keyed hash of a picture's path and the number of the plate in it. Names and plates are few enough to be tried
one by one against a hash, so its key is a salt that is thrown away with the run: only the owner's list says which is
which. It names real plates, and is no part of what is given away.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from platemint.pipeline import storage
from platemint.pipeline.anonymize.pseudonyms import outside_of
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.write import rows_as_csv

COLUMNS = ("id", "picture", "plate", "text", "outcome", "reason")
ASIDE = "set aside"
PICTURE = "picture withheld"  # outcome of one without any annotation
UNUSABLE = "could not be used"  # of what is set aside: its full reason may quote the dataset
SALT_BYTES = 32


class GivenUp:
    """Plates redacted or withheld, pictures withheld, and what is set aside, as it becomes known. rows: as the owner's list has them."""

    def __init__(self):
        self.rows: list[dict] = []
        self._salt = secrets.token_bytes(SALT_BYTES)

    def plate(self, picture: str, number: int, text: str, outcome: str, reason: str) -> None:
        """number: of the plate in its picture, from 1."""
        self._add(picture, number, text, outcome, reason)

    def picture(self, path: str, outcome: str, reason: str) -> None:
        """A picture of which nothing is annotated."""
        self._add(path, "", "", outcome, reason)

    def aside(self, items: Iterable[dict[str, str]]) -> None:
        """What a dataset has set aside, one row for a path, whatever is wrong with it."""
        reasons: dict[str, list[str]] = {}
        for item in items:
            row = f"row {item['row']}: " if item["row"] else ""
            reasons.setdefault(item["path"], []).append(row + item["reason"])
        for path, path_reasons in reasons.items():
            self._add(path, "", "", ASIDE, "; ".join(path_reasons))

    def public(self) -> list[dict[str, str]]:
        """Id, outcome and reason of all, in the order of their ids, which is not the dataset's."""
        rows = (
            {
                "id": row["id"],
                "outcome": row["outcome"],
                "reason": UNUSABLE if row["outcome"] == ASIDE else row["reason"],
            }
            for row in self.rows
        )
        return sorted(rows, key=lambda row: row["id"])

    def write(self, path: Path) -> None:
        """Writes the owner's list, readable by its owner alone; raises PlatemintError where it cannot be written."""
        storage.write(path, rows_as_csv(self.rows, COLUMNS, "\n").encode(errors="backslashreplace"), private=True)

    def _add(self, picture: str, number: int | str, text: str, outcome: str, reason: str) -> None:
        where = f"{picture}\0{number}".encode(errors="surrogateescape")
        # In pairs: an id in one piece would by chance spell plates of digits and letters up to F.
        id = hmac.digest(self._salt, where, "sha256")[:8].hex(":")
        self.rows.append(dict(zip(COLUMNS, (id, picture, number, text, outcome, reason))))


def place_of(path: str | Path, apart_from: Iterable[str | Path]) -> Path:
    """Where the owner's list is to stand. A list of an earlier run may be there: it will be replaced.

    Raises PlatemintError for a place inside a folder that may be given away, one that cannot be written, and where
    anything else is already.
    """
    place = outside_of(path, apart_from, "list")
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise PlatemintError(f"{path}: list: cannot be written there; make the folder, or make it writable")
    if os.path.lexists(place) and not _is_list(place):
        raise PlatemintError(f"{path}: list: is there already and is no list of this kind; choose another name")
    return place


def _is_list(place: Path) -> bool:
    if place.is_symlink() or not place.is_file():
        return False
    try:
        with open(place, encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip("\n") == ",".join(COLUMNS)
    except OSError:
        return False
