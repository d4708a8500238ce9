"""From annotations as they stand to frames whose plates can be cut out: what cannot is set aside with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import combinations
from posixpath import dirname

from pipeline.corpora.frames.records import Corners, Dataset, Folder, Frame, Mark, Spot, bounds, split_named
from pipeline.plate import characters, normalise

UNREADABLE = {"UNREADABLE", "UNKNOWN", "ILLEGIBLE", "OCCLUDED"}
SAME_PLATE = 0.9  # IoU of two boxes
_TOLERANCE = 1.0  # pixels outside of the picture: rounding, and counting from 1
_LEAST_AREA = 1.0  # square pixels


def plate_text(raw: str | None) -> str:
    """A text as the annotation has it, normalised; "" for none and for words and marks that say unreadable."""
    text = normalise(raw or "")
    return text if any(map(str.isalnum, text)) and characters(text) not in UNREADABLE else ""


def collect(dataset: Dataset, marks: Iterable[Mark], listed: dict[str, str]) -> None:
    """Fills in the dataset's frames, and what is set aside. listed: the split of each picture that a list names."""
    of_picture: dict[str, list[Mark]] = {path: [] for path in sorted(dataset.folder.pictures)}
    for mark in marks:
        if mark.picture in of_picture:
            of_picture[mark.picture].append(mark)
        else:
            dataset.put_aside(mark.picture, mark.row, mark.fault or dataset.folder.absence(mark.picture))
            dataset.lost.append(plate_text(mark.text))
    for path, found in of_picture.items():
        split = next((mark.split for mark in found if mark.split), "") or split_named(dirname(path)) or listed.get(path)
        row, spots = "", []
        try:
            for mark in found:
                row = mark.row
                spots.append(_spot(dataset.folder, mark))
            _refuse_rivals(spots)
        except ValueError as fault:
            dataset.put_aside(path, row, str(fault))
            dataset.lost += [plate_text(mark.text) for mark in found]
        else:
            dataset.frames.append(Frame(path, tuple(dict.fromkeys(spots)), split or "train"))


def _spot(folder: Folder, mark: Mark) -> Spot:
    """Raises ValueError with the reason where the annotation cannot be used."""
    if mark.fault:
        raise ValueError(mark.fault)
    corners = _in_order(mark.corners)
    if corners:
        if _area(corners) < _LEAST_AREA:
            raise ValueError("the plate's corners enclose less than a pixel")
        limits = folder.size(mark.picture)
        if not all(-_TOLERANCE <= v <= limit + _TOLERANCE for point in corners for v, limit in zip(point, limits)):
            raise ValueError(f"the plate reaches out of the picture, which has {limits[0]} x {limits[1]} pixels")
    return Spot(plate_text(mark.text), corners)


def _in_order(corners: Corners) -> Corners:
    """Four points clockwise as one sees them, the long upper edge first, in whatever order they come.

    The edge that leads furthest to the right is the upper one: plates are longer than high and seldom stand upright.
    """
    if not corners:
        return ()
    middle = [sum(values) / 4 for values in zip(*corners)]
    turn = sorted(corners, key=lambda point: math.atan2(point[1] - middle[1], point[0] - middle[0]))
    first = max(range(4), key=lambda i: turn[(i + 1) % 4][0] - turn[i][0])
    return tuple(turn[first:] + turn[:first])


def _area(corners: Corners) -> float:
    following = corners[1:] + corners[:1]
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(corners, following))) / 2


def _refuse_rivals(spots: list[Spot]) -> None:
    """Raises ValueError where two annotations of one plate read differently (the texts stay out of the message)."""
    for a, b in combinations(spots, 2):
        if a.text != b.text and (a.corners == b.corners or _iou(a.corners, b.corners) > SAME_PLATE):
            raise ValueError("two annotations of one plate have different texts")


def _iou(a: Corners, b: Corners) -> float:
    """Of the upright boxes around both; 0 where one is the whole picture."""
    if not a or not b:
        return 0.0
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = bounds(a), bounds(b)
    both = max(0, min(ax2, bx2) - max(ax1, bx1)) * max(0, min(ay2, by2) - max(ay1, by1))
    return both / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - both)
