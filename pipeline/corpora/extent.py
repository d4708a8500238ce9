"""extent: the whole plate of an annotation that cuts through its characters, found by the strokes that cross its border.

Boxes drawn by hand, by a detector or rounded leave out halves of characters, which are no less private for it.
"""

from __future__ import annotations

import cv2
import numpy as np

from platemint.pipeline.corpora.strokes import strokes

HEIGHT = 48  # pixels to which a plate is brought
BESIDE, ABOVE = 34, 14  # pixels of that around it that are looked at
EDGE = 3  # pixels: how far a stroke fades out
ROUNDS = 3  # each may find strokes that cross the border of the one before
CLEAR = 0.35  # of the strongest strokes' contrast: fainter marks are no strokes
FAINT = 10.0  # of 255: nor are these
TALL, WIDE = 0.3, 1.1  # of the plate's height: no character is lower, none is wider
MIDDLE = 0.4  # of the plate's height: as near to its middle line is the middle of a character of its row
NEAR = 0.3  # of the plate's height: as near stands the next character of a row
ALIKE = 0.2  # of their height: as much do characters of a row differ in height


def extend_to_strokes(corners: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The corners of the plate, float64 (4, 2), clockwise from the upper left, moved out to where its strokes end.

    corners: as annotated, in a frame, uint8 (H, W, 3). They stay where no stroke crosses the border.
    """
    for _ in range(ROUNDS):
        left, top, right, bottom = _missing(corners, pixels)
        if not (left or top or right or bottom):
            break
        corners = _moved(corners, left, top, right, bottom)
    return corners


def _missing(corners: np.ndarray, pixels: np.ndarray) -> tuple[float, float, float, float]:
    """By how much the plate goes on beyond its left, upper, right and lower side, in parts of its width and height."""
    sides = np.linalg.norm(np.roll(corners, -1, 0) - corners, axis=1)
    width = max(8, round(HEIGHT * max(sides[0], sides[2]) / max(sides[1], sides[3], 1)))
    x1, y1, x2, y2 = BESIDE, ABOVE, BESIDE + width, ABOVE + HEIGHT
    goal = np.float32([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), goal)
    size = width + 2 * BESIDE, HEIGHT + 2 * ABOVE
    around = cv2.warpPerspective(pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    boxes = _characters(_pieces(around, (y1, y2), (x1, x2)), size)
    left, right = _beyond(boxes, x1, x2)
    top, bottom = _above(boxes, y1, y2, x1, x2)
    return (x1 - left) / width, (y1 - top) / HEIGHT, (right - x2) / width, (bottom - y2) / HEIGHT


def _pieces(around: np.ndarray, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """Where strokes are, uint8 (h, w) of 0 and 1."""
    gray = cv2.GaussianBlur(cv2.cvtColor(around, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 0.8)
    (old,) = strokes([gray], rows, np.s_[columns[0] : columns[1]])
    level = CLEAR * np.quantile(old[rows[0] : rows[1], columns[0] : columns[1]], 0.95)
    return (old > max(FAINT, level)).astype(np.uint8)


def _characters(pieces: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """x1, y1, x2, y2 of the pieces that may be characters of the plate's row, int (n, 4)."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(pieces)
    x, y, w, h = stats[1:, :4].T
    whole = (x > 0) & (y > 0) & (x + w < size[0]) & (y + h < size[1])  # else it goes on: an edge of the car
    central = np.abs(y + h / 2 - ABOVE - HEIGHT / 2) < MIDDLE * HEIGHT
    found = whole & central & (h > TALL * HEIGHT) & (w < WIDE * HEIGHT)
    return np.stack([x, y, x + w, y + h], 1)[found]


def _beyond(boxes: np.ndarray, x1: int, x2: int) -> tuple[int, int]:
    """How far the row reaches: pieces that cross a side, and the next ones that are as high as those inside."""
    inside = boxes[(boxes[:, 0] >= x1) & (boxes[:, 2] <= x2)]
    height = np.median(inside[:, 3] - inside[:, 1]) if len(inside) > 1 else np.inf
    alike = np.abs(boxes[:, 3] - boxes[:, 1] - height) < ALIKE * height
    left, right = x1, x2
    for box, next_ in sorted(zip(boxes.tolist(), alike), key=lambda pair: -pair[0][2]):
        if box[0] < left and (box[2] > left + 1 or (next_ and box[2] > left - NEAR * HEIGHT)):
            left = box[0] - EDGE
    for box, next_ in sorted(zip(boxes.tolist(), alike), key=lambda pair: pair[0][0]):
        if box[2] > right and (box[0] < right - 1 or (next_ and box[0] < right + NEAR * HEIGHT)):
            right = box[2] + EDGE
    return left, right


def _above(boxes: np.ndarray, y1: int, y2: int, x1: int, x2: int) -> tuple[int, int]:
    """How high and low characters reach that cross the upper or lower side, two of them at least."""
    inside = boxes[(boxes[:, 2] > x1) & (boxes[:, 0] < x2)]
    over, under = inside[inside[:, 1] < y1 - 1, 1], inside[inside[:, 3] > y2 + 1, 3]
    return (int(over.min()) - EDGE if len(over) > 1 else y1), (int(under.max()) + EDGE if len(under) > 1 else y2)


def _moved(corners: np.ndarray, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Corners moved out along the plate's sides by parts of their length."""
    a, b, c, d = corners
    a, b, c, d = a - left * (b - a), b + right * (b - a), c + right * (c - d), d - left * (c - d)
    return np.array([a - top * (d - a), b - top * (c - b), c + bottom * (c - b), d + bottom * (d - a)])
