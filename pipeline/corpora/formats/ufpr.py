"""UFPR-ALPR and RodoSol-ALPR: beside each picture a .txt of `key: value` lines.

A plate is a line `plate: TEXT`, then `corners: x,y x,y x,y x,y`, or `position_plate: x y w h` in older releases; in
UFPR a line `char N: x y w h` for each character follows, all within the plate. Several vehicles follow one another.
Where a new text has another number of characters, the lines of its plate's characters are left out: nobody knows where
the new ones stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from platemint.pipeline.corpora.records import Corners, Folder, Record, area, box, numbers, points, shared_area
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.plate import characters

WITHIN = 0.8  # least part of the characters' common box that lies in the plate's
_LINE = re.compile(r"(?P<key>\s*(?P<word>[^:\s]+)(?:[^\S\n][^:\n]*)?:[ \t]*)(?P<value>(?:.*\S)?)(?P<end>\s*)")
_PLATE = re.compile(r"^[ \t]*plate:", re.MULTILINE)
_NO_VEHICLE = re.compile(r"\s*vehicles:\s*0\s*")


def find(folder: Folder) -> dict[str, str]:
    return folder.paired(".txt", lambda text: bool(_PLATE.search(text)))


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    """Raises ValueError for a line in another form, a plate without place, and characters outside of theirs."""
    if not _PLATE.search(text) and not _NO_VEHICLE.fullmatch(text):
        raise ValueError("the annotation has no line `plate: TEXT`")
    plates: list[dict[str, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if not match and line.strip():
            raise ValueError(f"line {number} is not `key: value`")
        word = match["word"] if match else ""
        if word == "plate":
            plates.append({"row": [str(number)]})
        if plates and word:
            plates[-1].setdefault(word, []).append(match["value"])
    yield from (_mark(plate, picture) for plate in plates)


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    lines, same_length = [], True
    drawn = {record.row: record.corners for record in read(note, text, picture, new.folder)}
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        match = _LINE.fullmatch(line)
        if not match:
            lines.append(line)
            continue
        value = match["value"]
        if match["word"] == "plate":
            label = new.text(picture, value, drawn.get(str(number), ()))
            same_length = len(characters(label)) == len(characters(value))
            lines.append(match["key"] + label + match["end"])
        elif match["word"] != "char" or same_length:
            lines.append(match["key"] + new.other(value, picture) + match["end"])
    return "".join(lines)


def _mark(plate: dict[str, list[str]], picture: str) -> Record:
    """A mark from the values of each key from a plate's line to the next's."""
    (row,), word = plate["row"], next((word for word in ("corners", "position_plate") if word in plate), "")
    if not word:
        raise ValueError(f"line {row}: the plate has neither corners nor position_plate")
    corners = _corners(word, plate[word][0])
    characters = tuple(point for value in plate.get("char", ()) for point in _corners("char", value))
    if characters and shared_area(corners, characters) < WITHIN * area(characters):
        raise ValueError(f"line {row}: the plate and its characters lie apart")
    return Record(picture, plate["plate"][0], corners, row)


def _corners(word: str, value: str) -> Corners:
    values = numbers(re.split(r"[,\s]+", value))
    if len(values) != (8 if word == "corners" else 4):
        raise ValueError(f"{word} has {len(values)} numbers")
    if word == "corners":
        return points(values)
    x, y, width, height = values
    return box(x, y, x + width, y + height)
