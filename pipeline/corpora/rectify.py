"""view: a plate cut out of a frame as the networks want it, level and filling the picture, and put back changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np

from platemint.pipeline.corpora.datasets import Annotation
from platemint.pipeline.corpora.extent import extend_to_strokes
from platemint.pipeline.corpora.labels import Label

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels of a frame

MARGIN = 0.06  # of the plate's height, around it: the networks know plates with a little of what is around them
LEAST = 24  # pixels of a cut's height: smaller plates are enlarged, so that strokes have pixels to stand on
MOST = 1600  # pixels of its width
FLAT = 0.15  # of a quadrilateral's area: a plate has no three corners that enclose less


@dataclass(frozen=True)
class View:
    """The way from a frame's pixels to a plate's. matrix: float64 (3, 3), None where the cut is a part as it is.

    box: x1, y1, x2, y2 of the part of the frame that the cut is, or that holds it. size: width and height of the cut.
    """

    box: Box
    size: tuple[int, int]
    matrix: np.ndarray | None = None

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """The plate, uint8 (h, w, 3), of a frame, uint8 (H, W, 3)."""
        if self.matrix is None:
            x1, y1, x2, y2 = self.box
            return pixels[y1:y2, x1:x2].copy()
        return cv2.warpPerspective(
            pixels, self.matrix, self.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )

    def paste(
        self, pixels: np.ndarray, allowed: np.ndarray, before: np.ndarray, after: np.ndarray, region: np.ndarray
    ) -> None:
        """Puts a changed cut back into a frame, which changes inside the region alone; marks it as allowed to.

        Of a tilted plate only pixels that differ, and their neighbours, are put back: all others stay sharp. They are
        replaced, since a difference added to them would leave what the way here has blurred: the old edges.
        before, after: uint8 (h, w, 3). region: bool (h, w). pixels, allowed: of the frame, changed in place.
        """
        x1, y1, x2, y2 = self.box
        part, free = pixels[y1:y2, x1:x2], allowed[y1:y2, x1:x2]
        if self.matrix is None:
            part[region] = after[region]
            free |= region
            return
        back = self.matrix @ np.array([[1, 0, x1], [0, 1, y1], [0, 0, 1]], dtype=np.float64)  # of the part alone
        differs = (after != before).any(2) & region
        changed = region[..., None] * cv2.dilate(differs.astype(np.float32), np.ones((3, 3)))[..., None]
        moved, weight = (
            cv2.warpPerspective(layer, back, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            for layer in (changed * after, changed)
        )
        there = weight > 0
        kept = part[there] * (1 - weight[there, None])
        part[there] = np.clip(kept + moved[there], 0, 255).round().astype(np.uint8)
        free |= there

    def seen(
        self,
        pixels: np.ndarray,
        before: np.ndarray,
        after: np.ndarray,
        region: np.ndarray,
        coded: Callable[[np.ndarray, Box], np.ndarray] | None = None,
    ) -> np.ndarray:
        """A changed cut, uint8 (h, w, 3), as it can be cut out again once it is back in its frame.

        coded: what encoding makes of a frame's pixels in a box, where it loses.
        """
        if self.matrix is None and not coded:
            return np.where(region[..., None], after, before)
        frame = pixels.copy()
        self.paste(frame, np.zeros(frame.shape[:2], bool), before, after, region)
        return self.cut(coded(frame, self.box) if coded else frame)

    def in_frame(self, points: np.ndarray) -> np.ndarray:
        """Places in the cut, float (n, 2) in its pixels, as places in the frame, float64 (n, 2)."""
        if self.matrix is None:
            return points + np.array(self.box[:2], np.float64)
        return cv2.perspectiveTransform(points[None].astype(np.float64), np.linalg.inv(self.matrix))[0]

    def outline(self) -> np.ndarray:
        """The cut's corners in the frame, float32 (4, 2), clockwise."""
        if self.matrix is None:
            x1, y1, x2, y2 = self.box
            return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
        return _outline(self.size, self.matrix).astype(np.float32)


def overlapping(views: list[View]) -> list[bool]:
    """Which views share pixels with another one."""
    outlines = [view.outline() for view in views]
    shared = [False] * len(views)
    for (i, a), (j, b) in combinations(enumerate(outlines), 2):
        if cv2.intersectConvexConvex(a, b)[0] > 0:
            shared[i] = shared[j] = True
    return shared


def views_of(annotations: Iterable[Annotation | Label], pixels: np.ndarray) -> list[View]:
    """A view of each plate of a frame, uint8 (H, W, 3): of the whole plate, also where its annotation cuts it."""
    return [view_of(np.array(annotation.corners, dtype=np.float64), pixels) for annotation in annotations]


def view_of(corners: np.ndarray, pixels: np.ndarray) -> View:
    """The same of one plate. corners: float64 (4, 2), clockwise from the upper left, or (0,), the whole frame."""
    height, width = pixels.shape[:2]
    if not len(corners):
        return View((0, 0, width, height), (width, height))
    low, high = corners.min(0), corners.max(0)
    if _flattest(corners) < FLAT:  # there is no seeing it level
        corners = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
    corners = extend_to_strokes(corners, pixels)
    low, high = corners.min(0), corners.max(0)
    upright = np.ptp(corners[[0, 3], 0]) < 1 and np.ptp(corners[[1, 2], 0]) < 1
    upright &= np.ptp(corners[[0, 1], 1]) < 1 and np.ptp(corners[[2, 3], 1]) < 1
    margin = MARGIN * (high - low)[1]
    box = _inside(low - margin, high + margin, width, height)
    if upright and box[3] - box[1] >= LEAST:
        return View(box, (box[2] - box[0], box[3] - box[1]))
    sides = np.linalg.norm(np.roll(corners, -1, 0) - corners, axis=1)  # top, right, bottom, left
    scale = min(max(1.0, LEAST / max(sides[1], sides[3])), MOST / max(sides[0], sides[2]))
    w, h = scale * max(sides[0], sides[2]), scale * max(sides[1], sides[3])
    edge = MARGIN * h
    size = max(1, round(w + 2 * edge)), max(1, round(h + 2 * edge))
    goal = np.array([[edge, edge], [edge + w, edge], [edge + w, edge + h], [edge, edge + h]])
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), goal.astype(np.float32))
    seen = _outline(size, matrix)
    return View(_inside(seen.min(0) - 1, seen.max(0) + 1, width, height), size, matrix)


def _flattest(corners: np.ndarray) -> float:
    """The least area that three neighbouring corners enclose, as a part of all four's; negative where one is dented."""
    forth, back = np.roll(corners, -1, 0) - corners, np.roll(corners, 1, 0) - corners
    triangles = (forth[:, 0] * back[:, 1] - forth[:, 1] * back[:, 0]) / 2
    return float(triangles.min() / (triangles.sum() / 2))


def _outline(size: tuple[int, int], matrix: np.ndarray) -> np.ndarray:
    """The corners of a cut in the frame that it is of, float64 (4, 2)."""
    w, h = size
    corners = np.array([[[0, 0], [w, 0], [w, h], [0, h]]], dtype=np.float64)
    return cv2.perspectiveTransform(corners, np.linalg.inv(matrix))[0]


def _inside(low: np.ndarray, high: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """The whole pixels of a box that lie in a picture."""
    x1, y1 = np.clip(np.floor(low), 0, (width - 1, height - 1)).astype(int).tolist()
    x2, y2 = np.clip(np.ceil(high), (x1 + 1, y1 + 1), (width, height)).astype(int).tolist()
    return x1, y1, x2, y2
