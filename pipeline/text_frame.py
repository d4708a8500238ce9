"""text frame: the part of a picture in which a plate's text stands level and fills what the networks look at.

A frame is float32 (4, 2): its corners, clockwise from the upper left, as fractions of the picture's width and height. What
the networks say of a frame comes back into the picture by the same homography.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from platemint.pipeline.networks import resize
from platemint.pipeline.plate import Plate

WHOLE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
MARGIN = (0.4, 0.35)  # of the text's height, beside it and above: about what rendered plates have
LOOSE = 1.7  # times the frame within it: a picture that is not larger is taken as it is
LEAST = 3.0  # pixels: lower text cannot be read, and is not framed


def around(block: np.ndarray, size: tuple[int, int], margin: tuple[float, float] = MARGIN) -> np.ndarray:
    """The frame of a text block, float32 (4, 2), with a margin beside and above it, in parts of its height.

    size: width and height of the picture, which says how long a fraction is.
    """
    pixels = block.astype(np.float64) * size
    across, down = _sides(pixels)
    x, y = margin[0] * down / across, margin[1]
    wide = np.array([[[-x, -y], [1 + x, -y], [1 + x, 1 + y], [-x, 1 + y]]])
    matrix = cv2.getPerspectiveTransform(WHOLE, pixels.astype(np.float32))
    return (cv2.perspectiveTransform(wide, matrix)[0] / size).astype(np.float32)


def usable(block: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a block has the shape of one: convex, the right way round, of some pixels, and within the picture."""
    pixels = block.astype(np.float64) * size
    sides = np.roll(pixels, -1, 0) - pixels
    after, middle = np.roll(sides, -1, 0), block.mean(0)
    turns = sides[:, 0] * after[:, 1] - sides[:, 1] * after[:, 0]
    return bool(turns.min() > 0 and min(_sides(pixels)) >= LEAST and (middle > 0).all() and (middle < 1).all())


def _sides(pixels: np.ndarray) -> tuple[float, float]:
    """Mean length of the upper and lower, and of the left and right side of a block in pixels."""
    a, b, c, d = pixels
    across, down = (np.linalg.norm(p - q) + np.linalg.norm(r - s) for p, q, r, s in ((b, a, c, d), (d, a, c, b)))
    return float(across / 2), float(down / 2)


def pixels_of(frame: np.ndarray | None, picture: np.ndarray) -> tuple[int, int]:
    """Height and width of a frame in the pixels of its picture, at least 1; None is the whole picture."""
    if frame is None:
        return picture.shape[0], picture.shape[1]
    across, down = _sides(frame.astype(np.float64) * picture.shape[1::-1])
    return max(1, round(down)), max(1, round(across))


def fills(frame: np.ndarray) -> bool:
    """Whether a picture is hardly larger than the upright box around the frame: a tilted plate fills a tight crop."""
    width, height = frame.max(0).clip(0, 1) - frame.min(0).clip(0, 1)
    return bool(width * height * LOOSE >= 1)


def is_whole(frame: np.ndarray | None) -> bool:
    """Whether a frame is its whole picture, or nobody has looked for one."""
    return frame is None or np.array_equal(frame, WHOLE)


def cut_out(picture: np.ndarray, frame: np.ndarray | None, height: int, width: int) -> np.ndarray:
    """What the frame shows, uint8 (height, width[, 3]), of a picture, uint8 (h, w[, 3]); edges go on beyond the picture."""
    if is_whole(frame):
        return resize(picture, height, width)
    pixels = frame.astype(np.float64) * picture.shape[1::-1]
    across, down = _sides(pixels)
    fine = (
        max(1, int(np.ceil(across / width))),
        max(1, int(np.ceil(down / height))),
    )  # a warp reads four neighbours only
    size = width * fine[0], height * fine[1]
    matrix = cv2.getPerspectiveTransform(pixels.astype(np.float32), WHOLE * np.array(size, np.float32))
    seen = cv2.warpPerspective(picture, _centred(matrix), size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return seen if fine == (1, 1) else cv2.resize(seen, (width, height), interpolation=cv2.INTER_AREA)


def _centred(matrix: np.ndarray) -> np.ndarray:
    """A homography of places in pictures, made one of pixels' indices, as OpenCV wants it: a pixel's middle is at .5."""
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return np.linalg.inv(shift) @ matrix @ shift


def to_picture(layer: np.ndarray, frame: np.ndarray | None, height: int, width: int, goes_on: bool) -> np.ndarray:
    """A layer of the frame, float32 (h, w, c), in its picture, float32 (height, width, c).

    goes_on: beyond the frame it continues as at its edge; else it is 0 there.
    """
    if is_whole(frame):
        shrink = height < layer.shape[0] and width < layer.shape[1]
        return cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
    pixels = frame.astype(np.float64) * (width, height)
    down, across = (max(1, round(side)) for side in _sides(pixels)[::-1])
    if across < layer.shape[1] and down < layer.shape[0]:
        layer = cv2.resize(layer, (across, down), interpolation=cv2.INTER_AREA)
    size = np.array(layer.shape[1::-1], np.float32)
    matrix = cv2.getPerspectiveTransform(WHOLE * size, pixels.astype(np.float32))
    border = cv2.BORDER_REPLICATE if goes_on else cv2.BORDER_CONSTANT
    return cv2.warpPerspective(layer, _centred(matrix), (width, height), flags=cv2.INTER_CUBIC, borderMode=border)


def points_in_picture(points: np.ndarray, frame: np.ndarray | None) -> np.ndarray:
    """Places in a frame, float (..., 2) in fractions of it, as fractions of its picture."""
    if is_whole(frame):
        return points
    matrix = cv2.getPerspectiveTransform(WHOLE, frame)
    flat = points.reshape(1, -1, 2).astype(np.float64)
    return cv2.perspectiveTransform(flat, matrix).reshape(points.shape).astype(np.float32)


def slots_in_picture(slots: np.ndarray, frame: np.ndarray | None) -> np.ndarray:
    """Slots (n, 3, 2) of a frame (see models/spg.py) as those of its picture."""
    if is_whole(frame) or not len(slots):
        return slots
    centre, right, down = slots.transpose(1, 0, 2)
    ends = points_in_picture(np.stack([centre - right, centre + right, centre - down, centre + down]), frame)
    return np.stack([points_in_picture(centre, frame), (ends[1] - ends[0]) / 2, (ends[3] - ends[2]) / 2], 1)


def box_of(frame: np.ndarray | None, height: int, width: int) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2: the whole pixels of a picture that a frame lies on."""
    if is_whole(frame):
        return 0, 0, width, height
    low, high = frame.min(0) * (width, height), frame.max(0) * (width, height)
    x1, y1 = np.clip(np.floor(low), 0, (width - 1, height - 1)).astype(int).tolist()
    x2, y2 = np.clip(np.ceil(high), (x1 + 1, y1 + 1), (width, height)).astype(int).tolist()
    return x1, y1, x2, y2


def part_of(plate: Plate) -> Plate:
    """The plate with no more of its picture and masks than its frame lies on, and its frame and slots in that."""
    if is_whole(plate.frame):
        return plate
    height, width = plate.image.shape[:2]
    x1, y1, x2, y2 = box_of(plate.frame, height, width)
    size = np.array([x2 - x1, y2 - y1], np.float32)
    layers = {name: getattr(plate, name) for name in ("image", "original", "source_mask", "target_mask")}
    cuts = {name: layer[y1:y2, x1:x2] for name, layer in layers.items() if layer is not None}
    frame, slots = (plate.frame * (width, height) - (x1, y1)) / size, plate.slots
    if slots is not None:
        axes = slots[:, 1:] * (width, height) / size
        slots = np.concatenate([(slots[:, :1] * (width, height) - (x1, y1)) / size, axes], 1).astype(np.float32)
    return replace(plate, **cuts, frame=frame.astype(np.float32), slots=slots)


def put_back(plate: Plate, part: Plate) -> Plate:
    """An edit of `part_of(plate)` as one of the plate: outside the part its picture is the plate's."""
    if is_whole(plate.frame):
        return part
    height, width = plate.image.shape[:2]
    x1, y1, x2, y2 = box_of(plate.frame, height, width)
    image, masks = plate.image.copy(), np.zeros((2, height, width), np.uint8)
    image[y1:y2, x1:x2] = part.image
    masks[:, y1:y2, x1:x2] = part.source_mask, part.target_mask
    size = np.array([x2 - x1, y2 - y1], np.float32) / (width, height)
    slots = part.slots * size
    slots[:, 0] += np.array([x1, y1], np.float32) / (width, height)
    return replace(part, image=image, original=plate.image, frame=plate.frame, source_mask=masks[0],
                   target_mask=masks[1], slots=slots.astype(np.float32))  # fmt: skip
