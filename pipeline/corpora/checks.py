"""From annotations as they stand to frames whose plates can be cut out: what cannot is set aside with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import combinations
from posixpath import dirname

from platemint.pipeline.corpora.labels import MOST_LABEL
from platemint.pipeline.corpora.records import (
    Annotation,
    Corners,
    Dataset,
    Folder,
    Frame,
    Record,
    area,
    bounds,
    box_iou,
    split_named,
)
from platemint.pipeline.plate import normalise, says_unreadable

SAME_PLATE = 0.9  # IoU of two boxes
INSIDE = 0.8  # least part of a plate that lies in its picture: boxes overhang where an edge cuts a plate off
ON_END = 1.5  # so many times as high as wide, a plate stands on end: plates of two rows are about square
Point = tuple[float, float]
_LEAST_AREA = 1.0  # square pixels
WITHHELD = "no annotation, while others found no picture"


def plate_text(raw: str | None, unreadable: Sequence[str]) -> str:
    """A text as the annotation has it, normalised; "" for none and for words and marks that say unreadable."""
    text = normalise((raw or "")[:MOST_LABEL])
    return "" if says_unreadable(text, unreadable) else text


def collect(dataset: Dataset, records: Iterable[Record], listed: dict[str, str]) -> None:
    """Fills in the dataset's frames, and what is set aside. listed: the split of each picture that a list names."""
    of_picture: dict[str, list[Record]] = {path: [] for path in sorted(dataset.folder.pictures)}
    for record in records:
        if record.picture in of_picture:
            of_picture[record.picture].append(record)
        else:
            _leave_over(dataset, record)
    contested = _contested(dataset)
    stored = any(_is_stored(dataset.folder, record) for found in of_picture.values() for record in found)
    for path, found in of_picture.items():
        split = (
            next((record.split for record in found if record.split), "")
            or split_named(dirname(path))
            or listed.get(path)
        )
        row, annotations = "", []
        try:
            if path in contested:
                raise ValueError("one annotation file means this picture by several names")
            for record in found:
                row = record.row
                annotations += [] if record.empty else [_checked_corners(dataset.folder, record, stored)]
            _refuse_rivals(annotations)
        except ValueError as fault:
            dataset.put_aside(path, row, str(fault))
            dataset.lost += [plate_text(record.text, dataset.folder.unreadable) for record in found if not record.empty]
        else:
            dataset.frames.append(Frame(path, tuple(dict.fromkeys(annotations)), split or "train"))


def withhold(dataset: Dataset) -> None:
    """While annotations are left over, takes pictures without a plate out of the frames."""
    if dataset.left_over:
        dataset.withheld = [frame.path for frame in dataset.unannotated]
        dataset.frames = [frame for frame in dataset.frames if frame.annotations]


def _leave_over(dataset: Dataset, record: Record) -> None:
    dataset.put_aside(record.picture, record.row, record.fault or dataset.folder.absence(record.picture))
    if not record.empty:
        dataset.left_over += 1
        dataset.lost.append(plate_text(record.text, dataset.folder.unreadable))


def _contested(dataset: Dataset) -> set[str]:
    """Pictures that one annotation file means by several names: of pictures that are alike, some are missing."""
    claims = dataset.folder.claims.items()
    return {picture for (note, picture), names in claims if len(names) > 1 and note in dataset.notes}


def _checked_corners(folder: Folder, record: Record, stored: bool) -> Annotation:
    """Raises ValueError with the reason where the annotation cannot be used. stored: see `_upright`."""
    if record.fault:
        raise ValueError(record.fault)
    corners = record.corners
    if corners:
        corners = _in_order(_clipped(_upright(folder, record, stored), folder.size(record.picture)))
    return Annotation(
        plate_text(record.text, folder.unreadable),
        corners,
        record.corners,
        labelled=record.text is not None,
        row=record.row,
    )


def _clipped(corners: Corners, size: tuple[int, int]) -> Corners:
    """The part of a plate that lies in its picture. Raises ValueError where that is too little, or nothing."""
    inside = tuple((min(max(x, 0), size[0]), min(max(y, 0), size[1])) for x, y in corners)
    if area(inside) < INSIDE * area(corners):
        raise ValueError(f"the plate reaches out of the picture, which has {size[0]} x {size[1]} pixels")
    if _area(_in_order(inside)) < _LEAST_AREA:
        raise ValueError("the plate's corners enclose less than a pixel")
    return inside


def _is_stored(folder: Folder, record: Record) -> bool:
    """Whether an annotation can only be about its picture as it is stored, before EXIF turns it.

    Its declared size says so, or else a plate that stands on end in a picture that lies on its side.
    """
    if not record.corners or record.fault:
        return False
    try:
        *_, orientation = folder.shape(record.picture)
    except ValueError:
        return False
    if record.declared:
        return turn_of(folder, record.picture, record.declared) is not None
    x1, y1, x2, y2 = bounds(record.corners)
    return orientation >= 5 and y2 - y1 > ON_END * (x2 - x1)


def _upright(folder: Folder, record: Record, stored: bool) -> Corners:
    """A plate's corners in pixels of the upright picture, from those of the picture that its annotation declares.

    stored: whether annotations of the dataset are about pictures as they are stored. Raises ValueError where the
    declared picture is no scaled or turned copy of the file's, and where nothing shows whether it is turned.
    """
    *raw, orientation = folder.shape(record.picture)
    size = folder.size(record.picture)
    declared = record.declared or size
    as_shown, as_stored = _fits(declared, size), orientation > 1 and (not record.declared or _fits(declared, raw))
    if not as_shown and not as_stored:
        raise ValueError(f"declared as {declared[0]:g} x {declared[1]:g} pixels, the picture has {size[0]} x {size[1]}")
    if stored and as_shown and as_stored:
        raise ValueError(
            "EXIF turns the picture, and nothing shows whether the annotation is of the picture as shown or as stored"
        )
    corners = record.corners
    if turn := turn_of(folder, record.picture, record.declared):
        corners, declared = tuple(turn(*point) for point in corners), declared[::-1]
    return tuple((x * size[0] / declared[0], y * size[1] / declared[1]) for x, y in corners)


def turn_of(folder: Folder, picture: str, declared: Sequence[float]) -> Callable[[float, float], Point] | None:
    """What takes points of a picture as it is stored to the picture as EXIF turns it, both in the declared pixels.

    None where its annotation is not of the picture as stored: width and height change places where it is. And for no
    picture, which is set aside once it is opened.
    """
    try:
        *raw, orientation = folder.shape(picture)
    except ValueError:
        return None
    if not declared or _fits(declared, folder.size(picture)) or not _fits(declared, raw):
        return None
    return partial(_turned, width=declared[0], height=declared[1], orientation=orientation)


def _fits(declared: Sequence[float], size: Sequence[int]) -> bool:
    """Whether one is the other at another scale, but for the rounding to pixels."""
    return abs(declared[0] * size[1] - declared[1] * size[0]) <= max(size)


def _turned(x: float, y: float, width: float, height: float, orientation: int) -> Point:
    """Where a point of a stored picture that lies on its side is once EXIF's orientation has turned it."""
    x = width - x if orientation in (7, 8) else x
    return (height - y if orientation in (6, 7) else y), x


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


def _refuse_rivals(annotations: list[Annotation]) -> None:
    """Raises ValueError where two annotations of one plate read differently (the texts stay out of the message)."""
    for a, b in combinations(annotations, 2):
        if a.text != b.text and (a.corners == b.corners or box_iou(a.corners, b.corners) > SAME_PLATE):
            raise ValueError("two annotations of one plate have different texts")
