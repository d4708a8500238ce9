"""YOLO: for images/x.jpg a labels/x.txt with a line for each object, relative to the picture's width and height.

`class cx cy w h` is a box, `class x1 y1 ... x4 y4` four corners, more points an outline, of which the upright box
counts. There are no texts. The classes named in data.yaml or classes.txt that speak of plates are plates; without such
names, or with one class alone, all are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from posixpath import basename

import yaml

from pipeline.corpora.frames.records import PLATE, Corners, Folder, Mark, bounds, box, numbers, points
from pipeline.corpora.frames.rewording import Rewording
from pipeline.plate import PlatemintError

SETTINGS = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
_SLACK = 0.01  # relative coordinates reach beyond 1 by rounding


def find(folder: Folder) -> dict[str, str]:
    found = folder.twins(".txt", _fits)
    return found and found | {path: "" for path in folder.files if basename(path) in SETTINGS}


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Mark]:
    """Raises ValueError for a line in another form, PlatemintError for a broken data.yaml. No line is no object."""
    if not picture:
        _classes(folder)
        return
    for number, line in enumerate(text.splitlines(), 1):
        kind, *values = line.split() or [""]
        if kind and not _is_line(kind, values):
            raise ValueError(f"line {number} is not a class and the numbers of a box or an outline")
        if kind and _is_plate(int(kind), folder):
            yield Mark(picture, None, _corners(numbers(values), *folder.size(picture)), str(number))


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    return text if picture else new.swap(text)


def _fits(text: str) -> bool:
    kind, *values = next((line.split() for line in text.splitlines() if line.strip()), [""])
    return _is_line(kind, values) and all(-_SLACK <= value <= 1 + _SLACK for value in numbers(values))


def _is_line(kind: str, values: list[str]) -> bool:
    try:
        numbers(values)
    except ValueError:
        return False
    return kind.isdecimal() and (len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0))


def _corners(values: list[float], width: int, height: int) -> Corners:
    if len(values) == 4:
        x, y, w, h = values
        outline = box(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    else:
        outline = points(values)
    outline = tuple((x * width, y * height) for x, y in outline)
    return outline if len(outline) == 4 else box(*bounds(outline))


def _is_plate(kind: int, folder: Folder) -> bool:
    classes = _classes(folder)
    plates = {number for number, name in classes.items() if PLATE.search(name)}
    return len(classes) < 2 or not plates or kind in plates


@lru_cache(maxsize=1)
def _classes(folder: Folder) -> dict[int, str]:
    """The name of each class; {} where no file says so. Raises PlatemintError for a file that cannot be parsed."""
    path = next((path for path in folder.files if basename(path) in SETTINGS), None)
    if path is None:
        return {}
    try:
        text = folder.text(path)
        names = yaml.safe_load(text)["names"] if path.endswith(("yaml", "yml")) else text.splitlines()
        named = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(i): name if isinstance(name, str) else "" for i, name in named}
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        raise PlatemintError(f"{folder.root / path}: names: has no list of class names; add it") from None
