"""The pixels of labelled plates: whole pictures, and plates cut out of frames, level where their corners are known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from platemint.pipeline.corpora.containers import data_of
from platemint.pipeline.corpora.labels import Label
from platemint.pipeline.corpora.records import MOST_PIXELS, bounds
from platemint.pipeline.corpora.rectify import views_of
from platemint.pipeline.storage import LEAST_SIDE, decode, sha256

Read = tuple[np.ndarray, str]  # pixels, uint8 (H, W, 3) RGB, and source id


def read_plate(label: Label) -> Read:
    """A plate's pixels, uint8 (H, W, 3) RGB, and its source id: of its picture's bytes, and its place where it has one.

    Raises ValueError with the reason where nothing can be made of it.
    """
    if not label.corners:
        return _whole(data_of(label))
    return _cut(
        label, *_frame(label.path, label.member, label.path.stat().st_mtime_ns if os.path.isfile(label.path) else 0)
    )


def read_plates(labels: Sequence[Label]) -> list[Read | ValueError]:
    """The plates of one picture, which is decoded once; for each that cannot be read the reason."""
    try:
        data = data_of(labels[0])
        frame = _decoded(data) if any(label.corners for label in labels) else None
    except ValueError as fault:
        return [fault] * len(labels)
    return [_tried(label, data, frame) for label in labels]


def _tried(label: Label, data: bytes, frame: Read | None) -> Read | ValueError:
    try:
        return _cut(label, *frame) if label.corners else _whole(data)
    except ValueError as fault:
        return fault


def source_id(label: Label) -> str:
    """The id of a label's photograph, as the others give it, without decoding it. Raises ValueError, OSError likewise."""
    digest = sha256(data_of(label))
    return _cut_id(digest, label) if label.corners else digest[:16]


def _cut_id(digest: str, label: Label) -> str:
    return sha256(f"{digest} {label.corners}")[:16]


def _whole(data: bytes) -> Read:
    return decode(data), sha256(data)[:16]


def _decoded(data: bytes) -> Read:
    """A frame's pixels and the sha256 of its file."""
    return decode(data, MOST_PIXELS), sha256(data)


@lru_cache(maxsize=1)  # plates of one picture are read one after the other
def _frame(path, member: str, stamp: int) -> Read:
    return _decoded(data_of(Label(path, "", "", "", "", member=member)))


def _cut(label: Label, frame: np.ndarray, digest: str) -> Read:
    x1, y1, x2, y2 = bounds(label.corners)
    if min(x2 - x1, y2 - y1) < LEAST_SIDE:
        raise ValueError(f"{x2 - x1:.0f} x {y2 - y1:.0f} pixels are too few to show a plate")
    (view,) = views_of([label], frame)
    return view.cut(frame), _cut_id(digest, label)
