"""Outlines of plates that are drawn with more points than four corners."""

from __future__ import annotations

import cv2
import numpy as np

from platemint.pipeline.corpora.records import Corners, points


def four_corners(outline: Corners) -> Corners:
    """Four points as they are; of more, in pixels, the rectangle of least area around them, in whatever turn.

    Raises ValueError for fewer than three points.
    """
    if len(outline) == 4:
        return outline
    if len(outline) < 3:
        raise ValueError(f"an outline of {len(outline)} points encloses nothing")
    values = np.array(outline, dtype=np.float64)
    origin = values.min(0)  # the rectangle comes in single precision: small numbers keep more of their places
    corners = cv2.boxPoints(cv2.minAreaRect((values - origin).astype(np.float32))) + origin
    return points(corners.round(3).ravel().tolist())
