"""YOLO with one class for each character: label files as `yolo` reads them, whose classes are called 0 to 9, A to Z, 京.

A text is put together from its characters' boxes: row by row, however tilted, and in each from the left. Where a class
speaks of plates, each of its boxes is a plate, and the characters inside are its text. A dataset without such boxes is
one of crops: each picture is a plate. Boxes of other classes say nothing about plates.
The characters of a new text stand in the old ones' boxes, so it has as many. A plate without a new text loses its
characters' boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from math import hypot
from posixpath import basename
from statistics import median
from typing import NamedTuple

from platemint.pipeline.corpora.formats import yolo
from platemint.pipeline.corpora.records import Corners, Folder, Record, Refused, area, bounds, box_iou
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.plate import SEPARATORS, characters

SAME_CHARACTER = 0.7  # IoU of two boxes
ROW_GAP = 0.5  # of a character's height, between middles, from which on the next row begins
NEAR = 3  # heights to the next character of a row, at most
LEAST_WIDTH = 0.25  # of a crop, that its characters take together


class Character(NamedTuple):
    """A box of a character. row: of the label file. text: what its class stands for."""

    row: int
    text: str
    corners: Corners


class SpelledPlate(NamedTuple):
    """A plate and its characters in reading order. kind: its class, "" for a crop; row: 0 for one. Corners () likewise."""

    row: int
    kind: str
    corners: Corners
    characters: list[Character]

    @property
    def text(self) -> str:
        return "".join(character.text for character in self.characters)


def find(folder: Folder) -> dict[str, str]:
    return yolo.notes(folder, empty=True) if yolo.alphabet(folder) else {}  # crops may have lost all their texts


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    """Raises ValueError for characters that are no plate's, and as `yolo.read` does."""
    if not picture:
        return
    for group in _groups(text, picture, folder):
        label = group.text if group.characters else None
        yield Record(picture, label, group.corners, str(group.row or ""), kind=group.kind)


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    """Raises Refused for a text that has another number of characters, or one that no class stands for."""
    if not picture:
        return yolo.rewrite(note, text, picture, new)
    becomes: dict[int, str] = {}
    for group in _groups(text, picture, new.folder):
        if group.characters and (label := new.text(picture, group.text, group.corners)) != group.text:
            becomes |= _renumbered(group, label, new.folder)
    lines = enumerate(text.splitlines(keepends=True), 1)
    return "".join(_with_class(line, becomes[row]) if row in becomes else line for row, line in lines)


def in_reading_order(found: Sequence[Character]) -> list[Character]:
    """Row by row from above, in each from the left, along the rows' common slope."""
    if not found:
        return []
    slope, height = _slope(found), median(_height(character) for character in found)

    def down(character: Character) -> float:
        x, y = _middle(character.corners)
        return y - slope * x

    def along(character: Character) -> float:
        x, y = _middle(character.corners)
        return x + slope * y

    rows: list[list[Character]] = []
    for character in sorted(found, key=down):
        if not rows or down(character) - down(rows[-1][-1]) > ROW_GAP * height:
            rows.append([])
        rows[-1].append(character)
    return [character for row in rows for character in sorted(row, key=along)]


def _groups(text: str, picture: str, folder: Folder) -> list[SpelledPlate]:
    """The plates of a picture. Raises ValueError where characters lie on each other or belong to no plate."""
    names, found, plates = yolo.alphabet(folder), [], []
    for thing in yolo.things(text, picture, folder):
        name = yolo.class_name(thing.number, folder)
        if thing.number in names and not _is_plate(thing.number, folder):
            found.append(Character(thing.row, names[thing.number], thing.corners))
        elif _is_plate(thing.number, folder):
            plates.append(SpelledPlate(thing.row, name, thing.corners, []))
    if any(box_iou(a.corners, b.corners) > SAME_CHARACTER for a, b in combinations(found, 2)):
        raise ValueError("two characters have one place")
    if not plates and found:
        plates = [_crop(found, picture, folder)]
    elif found:
        _share_out(found, plates)
    return [plate._replace(characters=in_reading_order(plate.characters)) for plate in plates]


def _crop(found: list[Character], picture: str, folder: Folder) -> SpelledPlate:
    """The plate that a picture without a plate's box is."""
    if _has_plates(folder):
        raise ValueError("there are characters without a plate's box, which other pictures have")
    x1, _, x2, _ = bounds([point for character in found for point in character.corners])
    if picture in folder.pictures and x2 - x1 < LEAST_WIDTH * folder.size(picture)[0]:
        raise ValueError("the characters take too little of the picture for a crop, and no plate has a box")
    return SpelledPlate(0, "", (), found)


def _share_out(found: list[Character], plates: list[SpelledPlate]) -> None:
    """Gives each character to the plate it lies in, the smallest of several."""
    for character in found:
        around = [plate for plate in plates if _holds(plate.corners, _middle(character.corners))]
        if not around:
            raise ValueError(f"line {character.row}: the character lies in no plate's box")
        min(around, key=lambda plate: area(plate.corners)).characters.append(character)


@lru_cache(maxsize=1)
def _has_plates(folder: Folder) -> bool:
    """Whether any label file has a plate's box."""
    files = (note for note in yolo.notes(folder) if basename(note) not in yolo.SETTINGS)
    words = (line.split() for note in files for line in folder.peek(note, yolo.MOST).splitlines())
    return any(_is_plate(int(word[0]), folder) for word in words if word and word[0].isdecimal())


def _is_plate(number: int, folder: Folder) -> bool:
    name = yolo.data_yaml(folder).names.get(number, "")
    return str(number) in folder.classes or folder.speaks_of_plates(name)


def _renumbered(group: SpelledPlate, label: str, folder: Folder) -> dict[int, str]:
    """The class that each row of a plate's characters gets with a new text, "" for none."""
    old = [character for character in group.characters if character.text not in SEPARATORS]
    plain = characters(label)
    if not plain:
        return {character.row: "" for character in group.characters}
    if len(plain) != len(old):
        raise Refused(
            f"{folder.root}: a plate of {len(old)} characters cannot get {len(plain)}: each has a box of its own; give "
            "new texts of the old ones' length"
        )
    numbers = {name: str(number) for number, name in reversed(yolo.alphabet(folder).items())}
    if missing := {*plain} - {*numbers}:
        raise Refused(
            f"{folder.root}: no class is called {', '.join(sorted(missing))}, which new texts need; add it to the names "
            "of classes, or draw texts without it"
        )
    return {box.row: numbers[c] for box, c in zip(old, plain) if box.text != c}


def _with_class(line: str, number: str) -> str:
    """A line with another class, "" without one."""
    first = line.split(maxsplit=1)[0]
    return line.replace(first, number, 1) if number else ""


def _slope(found: Sequence[Character]) -> float:
    """How far rows fall from left to right: the median over each character and the one to its right."""
    slopes = [_fall(a, b) for a in found if (b := _neighbour(a, found))]
    return median(slopes) if slopes else 0.0


def _neighbour(character: Character, found: Sequence[Character]) -> Character | None:
    """The nearest character to the right, none that is further above or below than that."""
    (x, y), height = _middle(character.corners), _height(character)
    ways = ((other, *_middle(other.corners)) for other in found if other is not character)
    near = [
        (hypot(x2 - x, y2 - y), other.row, other) for other, x2, y2 in ways if abs(y2 - y) <= x2 - x <= NEAR * height
    ]
    return min(near)[2] if near else None


def _fall(a: Character, b: Character) -> float:
    (x1, y1), (x2, y2) = _middle(a.corners), _middle(b.corners)
    return (y2 - y1) / (x2 - x1) if x2 > x1 else 0.0


def _middle(corners: Corners) -> tuple[float, float]:
    x1, y1, x2, y2 = bounds(corners)
    return (x1 + x2) / 2, (y1 + y2) / 2


def _height(character: Character) -> float:
    _, y1, _, y2 = bounds(character.corners)
    return y2 - y1


def _holds(corners: Corners, point: tuple[float, float]) -> bool:
    x1, y1, x2, y2 = bounds(corners)
    return x1 <= point[0] <= x2 and y1 <= point[1] <= y2
