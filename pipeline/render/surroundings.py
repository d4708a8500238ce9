"""Loose crops: a plate somewhere in a picture of a car, with whatever else is printed there. What the finder learns."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import cv2
import numpy as np

from platemint.pipeline.plate import DIGITS, LETTERS
from platemint.pipeline.render.glyphs import FONTS, glyph
from platemint.pipeline.render.layout import Layout
from platemint.pipeline.render.photo import Exposure, Photo, _texture, photograph
from platemint.pipeline.render.wild import random_text, vary_layout, wild_layout

LARGEST = (256, 144)  # pixels, width and height of a picture: a little more than the finder sees
SMALLEST = 0.15  # of a picture's width: as much of it a plate fills at least
NO_PLATE, TURNED, TWO = 0.08, 0.05, 0.1  # shares of pictures without a plate, of turned or mirrored ones, and of two


def loose_crop(layouts: list[Layout], rng: np.random.Generator, wild: float = 0.5) -> tuple[Photo, np.ndarray]:
    """A plate in its surroundings, and the text blocks that can be read there: float32 (n, 4, 2), as Photo has them.

    n is 1, or 2 where there is a second plate, and 0 where there is none or where it is upside down or mirrored.
    """
    layout = wild_layout(rng) if rng.random() < wild else vary_layout(layouts[int(rng.integers(len(layouts)))], rng)
    kind, others = rng.random(), []
    hidden = kind < NO_PLATE
    if NO_PLATE + TURNED < kind < NO_PLATE + TURNED + TWO:
        other = wild_layout(rng)
        others = photograph(other, [random_text(other.positions, rng)], int(rng.integers(16, 64)), 0.4, rng)
    blocks: list[np.ndarray] = []
    place = partial(_placed, rng=rng, others=others, blocks=blocks, hidden=hidden)
    height = int(np.exp(rng.uniform(np.log(11), np.log(80))))
    text = random_text(layout.positions, rng)
    (photo,) = photograph(layout, [text], height, rng.uniform(0.2, 1.0), rng, place=place)
    if hidden:
        return photo, np.zeros((0, 4, 2), np.float32)
    if kind < NO_PLATE + TURNED:
        photo.image = np.ascontiguousarray(photo.image[::-1, ::-1] if rng.random() < 0.6 else photo.image[:, ::-1])
        return photo, np.zeros((0, 4, 2), np.float32)
    return photo, np.stack([photo.block, *blocks]).astype(np.float32)


def _placed(exposure: Exposure, plate: tuple[int, int], rng, others, blocks, hidden: bool) -> Exposure:
    """The exposure of a plate that lies anywhere, at any tilt, in a picture of a car."""
    height = exposure.size[1]
    corners, size = _view(rng, exposure.size[0] / height, height)
    surround = _car(rng, 2 * size[0], 2 * size[1])
    for other in others:
        blocks += _second(surround, other, 2 * corners, rng)
    if rng.random() < 0.4:
        _holder(surround, 2 * corners, rng)
    w, h = plate
    goal = 2 * corners + (1e5 if hidden else 0)
    source = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    noise = rng.standard_normal((size[1], size[0], exposure.noise.shape[2]), np.float32) * exposure.noise.std()
    matrix = cv2.getPerspectiveTransform(source, goal.astype(np.float32))
    return replace(exposure, size=size, matrix=matrix, surround=surround, noise=noise)


def _view(rng, aspect: float, height: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The plate's corners in pixels, float64 (4, 2), and the size of the picture around it."""
    corners = np.array([[-aspect, -1], [aspect, -1], [aspect, 1], [-aspect, 1]]) / 2
    angle = np.radians(rng.normal(0, 4) if rng.random() < 0.75 else rng.normal(0, 15))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shear = np.array([[1, rng.normal(0, 0.06)], [rng.normal(0, 0.06), 1]])
    corners = corners * [rng.uniform(0.75, 1.05), 1] @ shear @ turn + rng.normal(0, 0.03, (4, 2))
    low, high = corners.min(0), corners.max(0)
    if rng.random() < 0.3:
        margin = rng.uniform(-0.03, 0.2, 4)
    else:
        margin = (
            rng.uniform(0.05, 2) * rng.uniform(0.3, 1.7, 4) * ([1, 1, 1, 1] if rng.random() < 0.7 else [2, 1, 2, 1])
        )
    margin = np.minimum(margin, (1 / SMALLEST - 1) / 2 * np.tile(high - low, 2))
    low, high = low - margin[:2], high + margin[2:]
    scale = min(height, *(LARGEST / (high - low)))
    width, tall = np.maximum(8, np.round(scale * (high - low))).astype(int).tolist()
    return (corners - low) * (width, tall) / (high - low), (width, tall)


def pasted(crop: np.ndarray, block: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A photographed plate, uint8 (h, w, 3), somewhere in a picture of a car, and its text block there.

    block: where the text stands in the crop, float32 (4, 2) in fractions of it.
    """
    h, w = crop.shape[:2]
    corners, size = _view(rng, w / h, int(np.exp(rng.uniform(np.log(14), np.log(96)))))
    source = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, 2 * corners.astype(np.float32))
    picture = _car(rng, 2 * size[0], 2 * size[1])
    cv2.warpPerspective(
        crop.astype(np.float32), matrix, picture.shape[1::-1], dst=picture, borderMode=cv2.BORDER_TRANSPARENT
    )
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) * np.exp(rng.normal(0, 0.25))
    picture += rng.normal(0, rng.uniform(0, 8), picture.shape)
    there = cv2.perspectiveTransform((block * (w, h))[None].astype(np.float64), matrix.astype(np.float64))[0]
    return np.clip(picture, 0, 255).astype(np.uint8), (there / (2 * np.array(size, np.float32))).astype(np.float32)


# ------------------------------------------------------------------------------------------------ what is around plates


def _tone(rng) -> tuple[float, float, float]:
    red, green, blue = np.clip(rng.uniform(5, 250) + rng.normal(0, 22, 3), 0, 255).tolist()
    return red, green, blue


def _car(rng, width: int, height: int) -> np.ndarray:
    """Paint, bumper edges, grilles, lamps, stickers and words: float32 (height, width, 3), 0..255."""
    canvas = np.array(_tone(rng), np.float32) + rng.uniform(2, 40) * _texture(
        rng, height, width, int(rng.integers(2, 9)), 3
    )
    if rng.random() < 0.4:
        canvas += rng.uniform(2, 25) * _texture(rng, height, width, int(rng.integers(20, 60)), 1)[..., None]
    parts = (_band, _band, _grille, _box, _lamp, _words, _words)
    for _ in range(rng.integers(1, 10)):
        parts[int(rng.integers(len(parts)))](canvas, rng)
    return np.clip(canvas, 0, 255)


def _band(canvas, rng) -> None:
    """An edge of the bumper: what is below it, or a stripe of it, has another tone."""
    h, w = canvas.shape[:2]
    y, thick = rng.uniform(0, h), h * (rng.uniform(0.01, 0.3) if rng.random() < 0.7 else 1)
    slope, bend = rng.normal(0, 0.08) * w, rng.normal(0, 0.08) * h
    x = np.linspace(-0.1, 1.1, 9)
    edge = np.stack([x * w, y + slope * (x - 0.5) + bend * (4 * (x - 0.5) ** 2)], 1)
    outline = np.concatenate([edge, edge[::-1] + (0, thick)]).round().astype(np.int32)
    cv2.fillPoly(canvas, [outline], _tone(rng), cv2.LINE_AA)


def _grille(canvas, rng) -> None:
    """Bars side by side, as radiators, vents and rows of letters seen from far have them."""
    h, w = canvas.shape[:2]
    upright, tone, step = rng.random() < 0.5, _tone(rng), h * rng.uniform(0.03, 0.15)
    x, y, wide, tall = (
        rng.uniform(-0.2, 0.9) * w,
        rng.uniform(-0.1, 0.9) * h,
        rng.uniform(0.1, 1) * w,
        rng.uniform(0.05, 0.5) * h,
    )
    for at in np.arange(0, wide if upright else tall, step):
        begin, end = ((x + at, y), (x + at, y + tall)) if upright else ((x, y + at), (x + wide, y + at))
        points = np.array([begin, end]).round().astype(np.int32)
        cv2.polylines(canvas, [points], False, tone, max(1, round(step * 0.4)), cv2.LINE_AA)


def _box(canvas, rng) -> None:
    """A flat part: sticker, reflector, step, dent, filled or outlined."""
    h, w = canvas.shape[:2]
    size = np.exp(rng.uniform(np.log(0.04), np.log(0.7), 2)) * (w, h)
    corners = cv2.boxPoints(((rng.uniform(0, w), rng.uniform(0, h)), tuple(size.tolist()), float(rng.normal(0, 6))))
    corners = corners.round().astype(np.int32)
    if rng.random() < 0.6:
        cv2.fillPoly(canvas, [corners], _tone(rng), cv2.LINE_AA)
    else:
        cv2.polylines(canvas, [corners], True, _tone(rng), max(1, round(0.02 * h)), cv2.LINE_AA)


def _lamp(canvas, rng) -> None:
    h, w = canvas.shape[:2]
    center, axes = (
        (rng.uniform(0, 1, 2) * (w, h)).round().astype(int),
        (rng.uniform(0.02, 0.3, 2) * h).round().astype(int),
    )
    thick = -1 if rng.random() < 0.6 else max(1, round(0.02 * h))
    cv2.ellipse(
        canvas, center.tolist(), axes.tolist(), float(rng.normal(0, 20)), 0, 360, _tone(rng), thick, cv2.LINE_AA
    )


def _words(canvas, rng) -> None:
    """A telephone number, a brand, a dealer's name: smaller than a plate's text, or without a plate around it."""
    h, w = canvas.shape[:2]
    tall = h * np.exp(rng.uniform(np.log(0.03), np.log(0.16)))
    _write(canvas, rng, (rng.uniform(0, w), rng.uniform(0, h)), tall, float(rng.normal(0, 5)))


def _write(canvas, rng, center, tall: float, angle: float) -> None:
    """A made-up word, tall pixels high, around a point."""
    kind = rng.random()
    alphabet = DIGITS if kind < 0.3 else LETTERS if kind < 0.6 else LETTERS.lower()
    font = str(rng.choice(FONTS)), int(rng.choice((300, 500, 700)))
    spaced = int(rng.integers(4, 30))
    letters = [np.pad(glyph(c, *font), ((8, 8), (spaced, 0))) for c in rng.choice(list(alphabet), rng.integers(3, 13))]
    word = np.concatenate(letters, 1)
    scale = tall / word.shape[0]
    if scale < 0.5:
        word = cv2.resize(word, None, fx=2 * scale, fy=2 * scale, interpolation=cv2.INTER_AREA)
        scale = tall / word.shape[0]
    matrix = cv2.getRotationMatrix2D((word.shape[1] / 2, word.shape[0] / 2), angle, scale)
    matrix[:, 2] += np.array(center) - (word.shape[1] / 2, word.shape[0] / 2)
    ink = cv2.warpAffine(word, matrix, (canvas.shape[1], canvas.shape[0]))[..., None].astype(np.float32) / 255
    canvas += ink * (np.array(_tone(rng), np.float32) - canvas)


def _holder(canvas, corners: np.ndarray, rng) -> None:
    """The frame that a plate is screwed into, or the dark recess behind it; a dealer's name on it."""
    right, down = corners[1] - corners[0], corners[3] - corners[0]
    tall = np.linalg.norm(down)
    beside, above, below = rng.uniform(0.02, (0.12, 0.3, 0.3))
    across, down = right / np.linalg.norm(right), down / tall
    moves = [[-beside, -above], [beside, -above], [beside, below], [-beside, below]]
    outline = corners + tall * np.array(moves) @ [across, down]
    cv2.fillPoly(canvas, [outline.round().astype(np.int32)], _tone(rng), cv2.LINE_AA)
    angle = -float(np.degrees(np.arctan2(right[1], right[0])))
    for thick, edge, away in ((above, corners[:2], -down), (below, corners[2:], down)):
        if thick > 0.1 and rng.random() < 0.7:
            _write(canvas, rng, edge.mean(0) + away * tall * thick / 2, 0.8 * tall * thick, angle)


def _second(canvas, other: Photo, corners: np.ndarray, rng) -> list[np.ndarray]:
    """Another, smaller plate beside the plate's middle; its text's corners as fractions, none where it is hidden."""
    h, w = canvas.shape[:2]
    box = other.image.shape[1], other.image.shape[0]
    scale = rng.uniform(0.4, 0.9) * np.linalg.norm(corners[3] - corners[0]) / box[1]
    at = rng.uniform(0, 1, 2) * np.maximum(1, (w - scale * box[0], h - scale * box[1]))
    matrix = np.array([[scale, 0, at[0]], [0, scale, at[1]]])
    cv2.warpAffine(other.image.astype(np.float32), matrix, (w, h), dst=canvas, borderMode=cv2.BORDER_TRANSPARENT)
    block = (other.block * box * scale + at) / (w, h)
    apart = cv2.intersectConvexConvex((block * (w, h)).astype(np.float32), corners.astype(np.float32))[0] <= 0
    inside = (block > 0).all() and (block < 1).all()
    return [block.astype(np.float32)] if apart and inside else []
