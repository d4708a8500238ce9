"""YOLO: for images/x.jpg a labels/x.txt with a line for each object, relative to the picture's width and height.

`class cx cy w h` is a box, `class x1 y1 ... x4 y4` four corners, more points an outline, of which the rectangle of least
area around it counts. Behind a box may stand key points, of two or three numbers each: four are the plate's corners. Behind a box or
four corners, predictions have a confidence and the number of a track. There are no texts. data.yaml or classes.txt
name the classes; without names, all are plates. Where each class is a character, see `yolo_characters`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import product
from posixpath import basename
from typing import NamedTuple

import yaml

from platemint.pipeline.corpora.labels import ended
from platemint.pipeline.corpora.outlines import four_corners
from platemint.pipeline.corpora.records import (
    AGREED,
    Corners,
    Folder,
    Record,
    Refused,
    bounds,
    box,
    box_iou,
    numbers,
    points,
)
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.parsing import parse_yaml
from platemint.pipeline.plate import PlatemintError, normalise

SETTINGS = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
FEWEST_CHARACTERS = 10  # classes that are characters, from which on a dataset is one of characters
MOST = 1 << 20  # bytes of a label file that are looked at for its classes
_WITHIN = 0.8  # least part that a box has of what it and its key points cover: these may stick out a little
_SLACK = 0.01  # relative coordinates reach beyond 1 by rounding


class Settings(NamedTuple):
    """names: of classes, {} where no file says so. keypoints: how many a box has, and of how many numbers each."""

    names: dict[int, str] = {}
    keypoints: tuple[int, ...] = ()


class Thing(NamedTuple):
    """A line of a label file. number: of its class. corners: 4 points in pixels."""

    row: int
    number: int
    corners: Corners


def find(folder: Folder) -> dict[str, str]:
    return {} if alphabet(folder) else notes(folder)


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    """Raises Refused for a class that has no name among named ones, PlatemintError for a broken data.yaml."""
    if not picture:
        data_yaml(folder)
        return
    _refuse_unnamed(folder)
    for thing in things(text, picture, folder):
        yield Record(picture, None, thing.corners, str(thing.row), kind=class_name(thing.number, folder))


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    return text if picture else _swapped(note, text, new)


def notes(folder: Folder, empty: bool = False) -> dict[str, str]:
    """The label files, whatever their classes are, and the settings. empty: also where all files are empty."""
    found = folder.paired(".txt", lambda text: _fits(text) or (empty and not text.strip()))
    return found and found | {path: "" for path in folder.files if basename(path) in SETTINGS}


def things(text: str, picture: str, folder: Folder) -> Iterator[Thing]:
    """What the lines of a label file say. Raises ValueError for a line in another form."""
    width, height = folder.size(picture) if picture in folder.pictures else (1, 1)
    for number, line in enumerate(text.splitlines(), 1):
        kind, *values = line.split() or [""]
        if not kind:
            continue
        try:
            corners = _corners(kind, values, data_yaml(folder).keypoints)
        except ValueError as fault:
            raise ValueError(f"line {number} is not a class and the numbers of a box or an outline: {fault}") from None
        corners = tuple((x * width, y * height) for x, y in corners)
        yield Thing(number, int(kind), four_corners(corners))


def alphabet(folder: Folder) -> dict[int, str]:
    """The characters that classes stand for, {} in a dataset of things. Numbers as names, up to 10 and more, are none."""
    names: dict[int, str] = {}
    with suppress(PlatemintError):  # `read` says what is wrong
        names = {number: normalise(name) for number, name in data_yaml(folder).names.items()}
    found = {number: name for number, name in names.items() if len(name) == 1}
    numbered = any(name.isdecimal() and len(name) > 1 for name in names.values())
    return found if len({*found.values()}) >= FEWEST_CHARACTERS and not numbered else {}


@lru_cache(maxsize=1)
def _refuse_unnamed(folder: Folder) -> None:
    """Raises Refused where so many classes have no names that they may be characters, which would stay as they are."""
    if data_yaml(folder).names or folder.classes:
        return
    files = (folder.peek(note, MOST) for note in notes(folder) if basename(note) not in SETTINGS)
    used = {line.split()[0] for text in files for line in text.splitlines() if line.strip()}
    if len(used) >= FEWEST_CHARACTERS:
        raise Refused(
            f"{folder.root}: {len(used)} classes are in use and none has a name: they may be things or characters; name "
            "them in a data.yaml or classes.txt, or give the number of plates as --class"
        )


def _swapped(note: str, text: str, new: Rewording) -> str:
    """Settings with other texts, but for the names of classes: a plate may happen to read like one."""
    if not note.endswith(("yaml", "yml")):
        return text
    start, end = _names_at(text)
    return new.swap(text[:start]) + text[start:end] + new.swap(text[end:])


def _names_at(text: str) -> tuple[int, int]:
    """Where the names of classes stand in a data.yaml, 0, 0 where it has none."""
    try:
        entries = yaml.compose(text, yaml.SafeLoader).value
        return next((v.start_mark.index, v.end_mark.index) for key, v in entries if key.value == "names")
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, StopIteration):
        return 0, 0


def add(note: str, text: str, found: dict[str, list[Corners]], folder: Folder) -> str:
    lines = []
    for picture, plates in found.items():
        width, height = folder.size(picture)
        for x1, y1, x2, y2 in map(bounds, plates):
            values = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
            lines.append(f"{_plate_class(folder)} {' '.join(f'{value:.6f}' for value in values)}\n")
    return ended(text) + "".join(lines)


@lru_cache(maxsize=1)
def _plate_class(folder: Folder) -> str:
    """The number that plates have: of the class that is named or chosen as theirs, else the one that comes first."""
    names = data_yaml(folder).names.items()
    plates = [str(number) for number, name in names if str(number) in folder.classes or folder.speaks_of_plates(name)]
    in_use = (folder.peek(path).split() for path in find(folder) if basename(path) not in SETTINGS)
    return (plates or [words[0] for words in in_use if words] or [*sorted(folder.classes), "0"])[0]


def _fits(text: str) -> bool:
    kind, *values = next((line.split() for line in text.splitlines() if line.strip()), [""])
    try:
        return kind.isdecimal() and len(values) >= 4 and all(-_SLACK <= v <= 1 + _SLACK for v in numbers(values)[:4])
    except ValueError:
        return False


def _corners(kind: str, texts: list[str], keypoints: tuple[int, ...]) -> Corners:
    """A plate's corners in parts of its picture. Raises ValueError for numbers that have no one meaning."""
    values = numbers(texts)
    if not kind.isdecimal() or len(values) < 4:
        raise ValueError("a class and at least four numbers are needed")
    x, y, w, h = values[:4]
    whole = box(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    if _is_prediction(values[4:]):
        return whole
    if keypoints:
        return _with_keypoints(whole, values[4:], *keypoints)
    for each, more in product((2, 3), (0, 1, 2)):
        count, rest = divmod(len(values) - 4 - more, each)
        landmarks = _landmarks(values[4:], count, each)
        if (
            count >= 2
            and not rest
            and _is_prediction(values[len(values) - more :])
            and box_iou(landmarks, whole) >= AGREED
        ):
            return landmarks if len(landmarks) == count == 4 else whole
    return _outline(values)


def _is_prediction(values: list[float]) -> bool:
    """Whether these are nothing, a confidence, the number of a track, or both."""
    if len(values) == 1:
        return 0 <= values[0] <= 1 or values[0].is_integer()
    return not values or (len(values) == 2 and 0 <= values[0] <= 1 and values[1].is_integer())


def _with_keypoints(whole: Corners, values: list[float], count: int, each: int) -> Corners:
    """The corners that key points are, else their box. Raises ValueError where they lie outside of it."""
    landmarks = _landmarks(values, count, each)
    if len(values) < count * each or not _is_prediction(values[count * each :]):
        raise ValueError(f"data.yaml promises {count} key points of {each} numbers")
    if landmarks and box_iou((*landmarks, *whole), whole) < _WITHIN:
        raise ValueError("the key points lie outside of their box")
    return landmarks if len(landmarks) == count == 4 and box_iou(landmarks, whole) >= AGREED else whole


def _landmarks(values: list[float], count: int, each: int) -> Corners:
    """The key points that are labelled: others are 0 or negative, or marked so by their third number."""
    found = [values[i * each : (i + 1) * each] for i in range(count)]
    return tuple((x, y) for x, y, *seen in found if x > 0 and y > 0 and seen != [0])


def _outline(values: list[float]) -> Corners:
    """The points of an outline, four or more."""
    n = len(values)
    if n == 9 or (n == 10 and values[9].is_integer()):
        if not _is_prediction(values[8:]) or values[9:] in ([0], [1]):  # the fifth point of an outline at the edge?
            raise ValueError("four corners are followed by what may be a confidence or not")
        return points(values[:8])
    if n < 8 or n % 2:
        raise ValueError(f"{n} numbers are neither")
    return points(values)


def class_name(number: int, folder: Folder) -> str:
    """The name of a class, or its number where somebody named it by that. Raises Refused where it has none."""
    names = data_yaml(folder).names
    if str(number) in folder.classes or (folder.classes and not names):
        return str(number)
    if names and number not in names:
        raise Refused(
            f"{folder.root}: an annotation is of class {number}, but the classes that have names are "
            f"{', '.join(map(str, sorted(names)))}; name all classes, or give the number of plates as --class"
        )
    return names.get(number, "")


@lru_cache(maxsize=1)
def data_yaml(folder: Folder) -> Settings:
    """What a dataset's settings say. Raises PlatemintError for a file that cannot be parsed."""
    path = next((path for path in folder.files if basename(path) in SETTINGS), None)
    if path is None:
        return Settings()
    try:
        text = folder.text(path)
        said = parse_yaml(text) if path.endswith(("yaml", "yml")) else {"names": text.splitlines()}
        named = said["names"].items() if isinstance(said["names"], dict) else enumerate(said["names"])
        names = {int(i): str(name).strip() for i, name in named}
        keypoints = tuple(map(int, said.get("kpt_shape") or ()))
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        raise PlatemintError(f"{folder.root / path}: names: has no list of class names; add it") from None
    if keypoints and (len(keypoints) != 2 or keypoints[1] not in (2, 3) or keypoints[0] < 1):
        raise PlatemintError(f"{folder.root / path}: kpt_shape: is not a number of key points and 2 or 3")
    folder.listed |= {*filter(None, names.values())}
    return Settings(names, keypoints)
