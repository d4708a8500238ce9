"""From layout and text to a photograph: print the plate, then do to it what road, camera and file do.

A photograph's alpha matte travels with it through every geometric and optical step, so the mask is exact: before
sensor and file noise, picture = background * (1 - mask) + ink * mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from platemint.pipeline.plate import SEPARATORS
from platemint.pipeline.render.glyphs import CAP, cap_width, glyph, square
from platemint.pipeline.render.layout import Layout, Row


@dataclass(slots=True)
class Photo:
    """A rendered plate and its ground truth.

    image: uint8 (H, W, 3) RGB. mask: uint8 (H, W), coverage of the text's ink. owner: uint8 (H, W), which character of
    text (1-based, 0 = none) the ink belongs to. boxes: float32 (n, 4, 2), the corners of each character's cell
    (upper left, upper right, lower right, lower left) as fractions of width and height. lettering: its typeface.
    """

    image: np.ndarray
    mask: np.ndarray
    owner: np.ndarray
    boxes: np.ndarray
    text: str
    layout: str
    block: np.ndarray  # float32 (4, 2): the corners of all cells together, likewise
    lettering: Lettering


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a character stands: corner and size in a layout's millimetres."""

    character: str
    x: float
    y: float
    width: float
    height: float
    printed: bool  # part of the text, and so of the mask; False: a separator the text leaves out


def character_boxes(layout: Layout, text: str) -> list[Cell]:
    """Where each character stands, in millimetres. Separators that the text leaves out stay on the plate."""
    found, rest, n = [], list(text), 0
    spelled = any(c in SEPARATORS for c in text)
    for row in layout.rows:
        x = (row.center if row.center is not None else layout.size[0] / 2) - _row_width(row) / 2
        for letter in row.pattern:
            separator = letter in SEPARATORS
            width = row.space if separator else row.cell
            in_text = not separator or spelled
            character = rest[n] if in_text else letter
            n += in_text
            found.append(Cell(character, x, row.top, width, row.height, in_text))
            x += width + row.gap
    if n != len(text):
        raise ValueError(f"text {text!r} does not fit pattern {layout.pattern!r} of layout {layout.name}")
    return found


def _row_width(row: Row) -> float:
    widths = [row.space if letter in SEPARATORS else row.cell for letter in row.pattern]
    return sum(widths) + row.gap * (len(widths) - 1)


# ---------------------------------------------------------------------------------------------------- the printed plate


def _stamp(
    canvas: np.ndarray, bitmap: np.ndarray, x: float, y: float, width: float, height: float, slant: float
) -> None:
    """Maximum of canvas and the bitmap scaled into a box, sheared by slant. Subpixel placement."""
    h, w = bitmap.shape
    sx, sy = width / w, height / h
    matrix = np.array([[sx, -slant * sy, x + slant * height], [0, sy, y]], np.float32)
    x0, x1 = max(0, int(x - abs(slant) * height) - 1), min(canvas.shape[1], int(x + width + abs(slant) * height) + 2)
    y0, y1 = max(0, int(y) - 1), min(canvas.shape[0], int(y + height) + 2)
    if x1 <= x0 or y1 <= y0:
        return
    if sx < 0.5 or sy < 0.5:  # halve first: a warp reads four neighbours only and would skip strokes
        k = max(1, round(0.7 / sx)), max(1, round(0.7 / sy))
        bitmap = cv2.resize(bitmap, (max(1, w // k[0]), max(1, h // k[1])), interpolation=cv2.INTER_AREA)
        matrix[:, 0] *= w / bitmap.shape[1]
        matrix[:, 1] *= h / bitmap.shape[0]
    matrix[:, 2] -= x0, y0
    placed = cv2.warpAffine(bitmap, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    np.maximum(canvas[y0:y1, x0:x1], placed, out=canvas[y0:y1, x0:x1])


@dataclass(frozen=True, slots=True)
class Lettering:
    """How a plate's characters look. For swell, waist, rounding and bar_one see `glyph`, for slant Layout."""

    family: str
    weight: int
    swell: int = 0
    slant: float = 0.0
    waist: float = 0.0
    rounding: int = 0
    bar_one: bool = False

    def glyph(self, character: str) -> np.ndarray:
        return glyph(character, self.family, self.weight, self.swell, self.waist, self.rounding, self.bar_one)


def stamp_cell(canvas: np.ndarray, cell: Cell, lettering: Lettering, scale: float) -> None:
    """Prints a cell's character on a coverage canvas, uint8 (H, W), at scale pixels per millimetre."""
    if cell.character == " ":
        return
    if cell.character in SEPARATORS:
        size = min(cell.width, 0.16 * cell.height)
        wide, high = (cell.width, 0.45 * size) if cell.character == "-" else (size, size)
        y = cell.y + cell.height - high if cell.character == "." else cell.y + (cell.height - high) / 2
        bitmap = np.full((8, 8), 255, np.uint8)
        if cell.character != "-":
            bitmap = cv2.circle(np.zeros((16, 16), np.uint8), (8, 8), 7, 255, -1)
        _stamp(canvas, bitmap, (cell.x + (cell.width - wide) / 2) * scale, y * scale, wide * scale, high * scale, 0.0)
        return
    bitmap = lettering.glyph(cell.character)
    stretch = cell.width / (cap_width(lettering.family, lettering.weight) * cell.height)
    if square(cell.character):
        stretch = cell.width / cell.height
    width = min(bitmap.shape[1] / CAP * cell.height * stretch, 1.12 * cell.width)
    _stamp(
        canvas,
        bitmap,
        (cell.x + (cell.width - width) / 2) * scale,
        cell.y * scale,
        width * scale,
        cell.height * scale,
        lettering.slant,
    )


def _texture(rng, height: int, width: int, cells_: int, channels: int = 1) -> np.ndarray:
    """Smooth noise in -1..1 with about cells_ bumps across: float32 (height, width[, channels])."""
    rows = max(2, round(cells_ * height / width))
    coarse = rng.uniform(-1, 1, (rows, max(2, cells_), channels)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return smooth if channels > 1 else smooth.reshape(height, width)


def _scene(rng, plate: np.ndarray, strength: float) -> None:
    """A picture behind the characters: soft colour fields, hills, a sun; lighter than the ink."""
    h, w = plate.shape[:2]
    plate += strength * 45 * _texture(rng, h, w, int(rng.integers(2, 9)), 3)
    for _ in range(rng.integers(0, 4)):
        color = tuple(float(c) for c in plate.mean((0, 1)) + rng.normal(0, 55 * strength, 3))
        if rng.random() < 0.5:
            points = np.stack([np.linspace(0, w, 7), h * (rng.uniform(0.3, 1) + rng.normal(0, 0.08, 7))], 1)
            cv2.fillPoly(plate, [np.vstack([points, [[w, h], [0, h]]]).astype(np.int32)], color)
        else:
            cv2.circle(
                plate, (int(rng.uniform(0, w)), int(rng.uniform(0, h))), int(rng.uniform(0.1, 0.4) * h), color, -1
            )
    cv2.GaussianBlur(plate, (0, 0), 1.0, dst=plate)


def _blank(layout: Layout, rng, scale: float, choice: int, font) -> np.ndarray:
    """The plate without its text: float32 (H, W, 3), 0..255."""
    w, h = (max(8, round(side * scale)) for side in layout.size)
    plate = np.empty((h, w, 3), np.float32)
    plate[:] = layout.background[choice]
    if layout.gradient is not None:
        plate += np.linspace(0, 1, h, dtype=np.float32)[:, None, None] ** 2 * (np.float32(layout.gradient) - plate)
    if layout.pictorial:
        _scene(rng, plate, layout.pictorial)
    ink = np.float32(layout.ink[choice % len(layout.ink)])
    if layout.border:
        t = max(1, round(layout.border * scale))
        cv2.rectangle(plate, (2 * t, 2 * t), (w - 1 - 2 * t, h - 1 - 2 * t), tuple(map(float, ink)), t)
    for piece in layout.pieces:
        _print_piece(plate, piece, scale, font, rng)
    return plate


def _print_piece(plate, piece, scale: float, font, rng) -> None:
    x, y, w, h = (v * scale for v in piece.box)
    if piece.kind == "box":
        cv2.rectangle(plate, (round(x), round(y)), (round(x + w), round(y + h)), piece.color, -1)
    elif piece.kind == "disc":
        cv2.ellipse(
            plate, (round(x + w / 2), round(y + h / 2)), (round(w / 2), round(h / 2)), 0, 0, 360, piece.color, -1
        )
    elif piece.kind == "emblem":
        _emblem(plate, x, y, w, h, piece.color, rng)
    else:
        ink = np.zeros(plate.shape[:2], np.uint8)
        pitch = w / len(piece.text)
        for i, character in enumerate(piece.text):
            if character != " ":
                _stamp(ink, glyph(character, *font), x + i * pitch, y, 0.85 * pitch, h, 0.0)
        _blend(plate, ink, np.float32(piece.color))


def _emblem(plate, x: float, y: float, w: float, h: float, color, rng) -> None:
    """A figure as on pictorial plates: a few star-shaped blobs and bars that touch each other."""
    for _ in range(rng.integers(1, 5)):
        tone = tuple(float(c) for c in np.add(color, rng.normal(0, 25, 3)))
        center = np.array([x + w * rng.uniform(0.25, 0.75), y + h * rng.uniform(0.25, 0.75)])
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(4, 14))))
        reach = rng.uniform(0.12, 0.5, (len(angles), 1)) * (w, h)
        points = center + reach * np.stack([np.cos(angles), np.sin(angles)], 1)
        points = np.clip(points, (x, y), (x + w, y + h)).round().astype(np.int32)
        if rng.random() < 0.7:
            cv2.fillPoly(plate, [points], tone)
        else:
            cv2.polylines(plate, [points], bool(rng.random() < 0.5), tone, max(1, round(0.08 * min(w, h))))


def _blend(plate: np.ndarray, coverage: np.ndarray, color: np.ndarray) -> None:
    alpha = coverage[..., None].astype(np.float32) * (1 / 255)
    plate += alpha * (color - plate)


def _emboss(plate: np.ndarray, coverage: np.ndarray, depth: float, angle: float) -> None:
    """Light catches one flank of pressed strokes and shades the other."""
    soft = cv2.GaussianBlur(coverage, (0, 0), max(0.6, plate.shape[0] / 90)).astype(np.float32)
    dx, dy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    plate += (depth * (np.cos(angle) * dx + np.sin(angle) * dy))[..., None]


# ------------------------------------------------------------------------------------------------ road, camera and file


@dataclass(slots=True)
class Exposure:
    """Everything about one photograph but its text. Drawn once, so a pair shares it."""

    size: tuple[int, int]  # width, height of the picture
    matrix: np.ndarray  # plate pixels -> picture pixels at double size
    shade: np.ndarray  # multiplies the plate
    dirt: np.ndarray  # alpha of dirt
    dirt_color: np.ndarray
    screws: list
    frame: tuple | None
    surround: np.ndarray
    kernel: np.ndarray | None
    gain: np.ndarray
    bias: float
    gamma: float
    gray: bool
    noise: np.ndarray
    down: float
    quality: int


def _kernel(rng, height: int, severity: float) -> np.ndarray | None:
    """Point spread of defocus and motion, at double picture size."""
    spread = 2 * height / 60 * abs(rng.normal(0, 0.55 * severity))
    motion = 2 * height / 60 * (abs(rng.normal(0, 2.2)) if rng.random() < 0.25 * severity else 0)
    if spread < 0.3 and motion < 1:
        return None
    side = int(2 * np.ceil(2.5 * spread + motion / 2) + 1)
    kernel = np.zeros((side, side), np.float32)
    angle = rng.normal(0, 0.5)
    reach = np.array([np.cos(angle), np.sin(angle)]) * motion / 2
    c = side // 2
    cv2.line(
        kernel, tuple(np.round(c - reach).astype(int).tolist()), tuple(np.round(c + reach).astype(int).tolist()), 1.0
    )
    if spread >= 0.3:
        kernel = cv2.GaussianBlur(kernel, (0, 0), spread)
    return kernel / kernel.sum()


def _view(rng, plate_size, size, severity: float) -> np.ndarray:
    """Homography from plate to picture (double size): margins, tilt and perspective."""
    (w, h), (W, H) = plate_size, (2 * size[0], 2 * size[1])
    corners = np.float32([[0, 0], [w, 0], [w, h], [0, h]])
    margin = rng.uniform(-0.01, 0.05 + 0.07 * severity, 4) * (W, H, W, H)
    target = np.float32(
        [[margin[0], margin[1]], [W - margin[2], margin[1]], [W - margin[2], H - margin[3]], [margin[0], H - margin[3]]]
    )
    tilt = rng.normal(0, 0.075 * severity) if rng.random() < 0.75 else 0.0
    shear = rng.normal(0, 0.05 * severity)
    center = target.mean(0)
    offset = target - center
    shift = np.stack([shear * offset[:, 1], tilt * offset[:, 0]], 1)
    target = center + offset + shift
    need = np.abs(target - center).max(0) / (np.float32([W, H]) * 0.515)
    target = center + (target - center) / np.maximum(1, need)
    target += rng.normal(0, 0.016 * severity, (4, 2)) * (W, H)
    return cv2.getPerspectiveTransform(corners, target.astype(np.float32))


def _shade(rng, h: int, w: int, severity: float) -> np.ndarray:
    """Uneven light and a cast shadow: float32 (h, w, 1)."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (np.cos(angle) * (x / w - 0.5) + np.sin(angle) * (y / h - 0.5)) * rng.uniform(0, 0.6 * severity)
    shade = 1 + ramp
    if rng.random() < 0.3 * severity:
        angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3)
        edge = (np.cos(angle) * (x / w - 0.5) + np.sin(angle) * (y / h - 0.5) - offset) * rng.uniform(10, 80)
        shade *= 1 - rng.uniform(0.2, 0.6) / (1 + np.exp(-np.clip(edge, -30, 30)))
    return shade[..., None]


def _expose(layout: Layout, plate_size, height: int, severity: float, rng) -> Exposure:
    w, h = plate_size
    aspect = layout.size[0] / layout.size[1] * np.exp(rng.normal(0, 0.08 * severity))
    size = max(16, round(height * aspect)), height
    dirty = rng.random() < 0.35 * severity
    dirt = (
        np.clip(_texture(rng, h, w, int(rng.integers(4, 30))) - rng.uniform(0.1, 0.7), 0, 1) * rng.uniform(0.3, 1)
        if dirty
        else None
    )
    screws = (
        [
            (
                (rng.uniform(0.04, 0.96), rng.choice([0.1, 0.5, 0.9]) + rng.normal(0, 0.03)),
                rng.uniform(0.02, 0.045),
                rng.uniform(40, 220),
            )
            for _ in range(rng.integers(0, 5))
        ]
        if rng.random() < 0.5 * severity
        else []
    )
    frame = (
        (rng.uniform(0.02, 0.07), rng.uniform(10, 70) if rng.random() < 0.7 else rng.uniform(120, 200))
        if rng.random() < 0.3 * severity
        else None
    )
    night, gray = rng.random() < 0.2 * severity, rng.random() < 0.2 * severity
    gain = np.exp(rng.normal(0, 0.16 * severity, 1) + rng.normal(0, 0.09 * severity, 3)) * (
        rng.uniform(0.2, 0.6) if night else 1
    )
    down = rng.uniform(0.35, 1) if rng.random() < 0.4 * severity else 1.0
    sigma = 255 * (rng.uniform(0, 0.018) + (rng.uniform(0, 0.03) if night else 0)) * severity
    noise = rng.standard_normal((size[1], size[0], 1 if gray else 3), np.float32) * sigma
    return Exposure(
        size=size,
        matrix=_view(rng, plate_size, size, severity),
        shade=_shade(rng, h, w, severity),
        dirt=dirt[..., None] if dirty else None,
        dirt_color=np.float32(rng.uniform(40, 150)) * np.float32([1, 0.92, 0.8]),
        screws=screws,
        frame=frame,
        surround=np.float32(np.clip(rng.uniform(10, 160) + rng.normal(0, 15, 3), 0, 255))
        + 18 * _texture(rng, 2 * size[1], 2 * size[0], int(rng.integers(2, 10)), 3),
        kernel=_kernel(rng, height, severity),
        gain=gain.astype(np.float32),
        bias=float(rng.uniform(0, 45) if rng.random() < 0.3 * severity else 0),
        gamma=float(np.exp(rng.normal(0, 0.2 * severity))),
        gray=bool(gray),
        noise=noise,
        down=float(down),
        quality=int(rng.uniform(45, 98)) if rng.random() < 0.8 * severity else 0,
    )


def _weather(plate: np.ndarray, mask: np.ndarray, owner: np.ndarray, exposure: Exposure) -> None:
    """Light, screws, dirt and frame. What lies over the ink takes it out of the mask."""
    h, w = mask.shape
    for (x, y), radius, tone in exposure.screws:
        center, r = (round(x * w), round(y * h)), max(1, round(radius * h))
        cv2.circle(plate, center, r, (tone,) * 3, -1)
        for layer in (mask, owner):
            cv2.circle(layer, center, r, 0, -1)
    plate *= exposure.shade
    if exposure.dirt is not None:
        plate += exposure.dirt * (exposure.dirt_color - plate)
    if exposure.frame is not None:
        t, tone = max(1, round(exposure.frame[0] * h)), exposure.frame[1]
        for layer, value in ((plate, (tone,) * 3), (mask, 0), (owner, 0)):
            cv2.rectangle(layer, (t // 2, t // 2), (w - 1 - t // 2, h - 1 - t // 2), value, t)


def _shoot(plate, mask, owner, exposure: Exposure):
    """Through the lens onto the sensor: image float32 (H, W, 3), mask uint8, owner uint8."""
    W, H = exposure.size
    double = (2 * W, 2 * H)
    picture = exposure.surround.copy()
    cv2.warpPerspective(
        plate, exposure.matrix, double, dst=picture, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT
    )
    matte = cv2.warpPerspective(mask, exposure.matrix, double, flags=cv2.INTER_LINEAR)
    owner = cv2.warpPerspective(owner, exposure.matrix, double, flags=cv2.INTER_NEAREST)
    if exposure.kernel is not None:
        picture, matte = (
            cv2.filter2D(layer, -1, exposure.kernel, borderType=cv2.BORDER_REPLICATE) for layer in (picture, matte)
        )
        reach = np.ones((exposure.kernel.shape[0] | 1,) * 2, np.uint8)
        owner = np.where(owner > 0, owner, cv2.dilate(owner, reach))
    if exposure.down < 1:
        small = max(8, round(W * exposure.down)), max(8, round(H * exposure.down))
        picture, matte = (
            cv2.resize(cv2.resize(layer, small, interpolation=cv2.INTER_AREA), (W, H), interpolation=cv2.INTER_CUBIC)
            for layer in (picture, matte)
        )
    else:
        picture, matte = (cv2.resize(layer, (W, H), interpolation=cv2.INTER_AREA) for layer in (picture, matte))
    owner = cv2.resize(owner, (W, H), interpolation=cv2.INTER_NEAREST)
    return picture, matte, owner


def _develop(picture: np.ndarray, exposure: Exposure) -> np.ndarray:
    """Exposure, white balance, infrared or colour, noise, tone curve, JPEG: uint8 (H, W, 3)."""
    picture = np.clip(picture * exposure.gain + exposure.bias, 0, 255)
    if exposure.gray:
        picture = np.repeat(picture @ np.float32([[0.4], [0.4], [0.2]]), 3, axis=2)
    picture = 255 * (np.clip(picture, 0, 255) / 255) ** exposure.gamma + exposure.noise
    image = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    if exposure.quality:
        image = cv2.imdecode(
            cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, exposure.quality])[1], cv2.IMREAD_COLOR
        )
    return image


def photograph(
    layout: Layout,
    texts: list[str],
    height: int,
    severity: float,
    rng: np.random.Generator,
    rows=(),
    place: Callable[[Exposure, tuple[int, int]], Exposure] | None = None,
) -> list[Photo]:
    """Photographs of one plate under one light that differ in nothing but the text.

    texts: each fits the layout's pattern, with or without its separators. height: of the picture, pixels.
    severity: 0 = a clean scan .. 1 = everything that happens on a road. rows: for each text, where the layout's own
    do not fit it. place: gives the exposure of a plate, pixels (width, height), another view and other surroundings.
    """
    kinds = [layout.model_copy(update={"rows": r}) for r in rows] or [layout] * len(texts)
    scale = 1.6 * max(height, 24) / layout.size[1]
    family, _, weight = str(rng.choice(layout.fonts)).partition(":")
    font, choice = (family, int(weight)), int(rng.integers(len(layout.background)))
    swell = int(np.clip(round(rng.normal(0, 1.5 * severity)), -2, 4))
    lettering = Lettering(*font, swell, layout.slant, layout.waist, layout.rounding, layout.bar_one)
    blank = _blank(layout, rng, scale, choice, font)
    ink = np.float32(layout.ink[choice % len(layout.ink)]) + np.float32(rng.normal(0, 8 * severity, 3))
    depth, angle = (rng.uniform(0, 0.22) if rng.random() < 0.5 else 0.0), rng.uniform(0, 2 * np.pi)
    exposure = _expose(layout, (blank.shape[1], blank.shape[0]), height, severity, rng)
    if place:
        exposure = place(exposure, (blank.shape[1], blank.shape[0]))
    return [_photo(k, text, blank, ink, lettering, scale, depth, angle, exposure) for k, text in zip(kinds, texts)]


def _photo(layout, text, blank, ink, lettering, scale, depth, angle, exposure) -> Photo:
    plate = blank.copy()
    mask, owner = (np.zeros(plate.shape[:2], np.uint8) for _ in range(2))
    fixed = np.zeros(plate.shape[:2], np.uint8)
    placed = character_boxes(layout, text)
    number = 0
    for cell in placed:
        if not cell.printed:
            stamp_cell(fixed, cell, lettering, scale)
            continue
        number += 1
        one = np.zeros_like(mask)
        stamp_cell(one, cell, lettering, scale)
        owner[one > mask] = number
        np.maximum(mask, one, out=mask)
    everything = np.maximum(mask, fixed)
    _blend(plate, everything, ink)
    if depth:
        _emboss(plate, everything, depth, angle)
    _weather(plate, mask, owner, exposure)
    picture, matte, owner = _shoot(plate, mask, owner, exposure)
    return Photo(
        image=_develop(picture, exposure),
        mask=matte,
        owner=np.where(matte > 0, owner, 0).astype(np.uint8),
        boxes=_boxes([c for c in placed if c.printed], layout.slant, scale, exposure),
        text=text,
        layout=layout.name,
        block=_boxes([_block(placed)], layout.slant, scale, exposure)[0],
        lettering=lettering,
    )


def _block(placed: list[Cell]) -> Cell:
    """One cell around all."""
    left, top = min(c.x for c in placed), min(c.y for c in placed)
    right, bottom = max(c.x + c.width for c in placed), max(c.y + c.height for c in placed)
    return Cell("", left, top, right - left, bottom - top, False)


def _boxes(placed: list[Cell], slant: float, scale: float, exposure: Exposure) -> np.ndarray:
    corners = np.float32(
        [
            [
                (c.x + slant * c.height, c.y),
                (c.x + c.width + slant * c.height, c.y),
                (c.x + c.width, c.y + c.height),
                (c.x, c.y + c.height),
            ]
            for c in placed
        ]
    )
    seen = cv2.perspectiveTransform((corners * scale).reshape(-1, 1, 2), exposure.matrix.astype(np.float64))
    return (seen.reshape(-1, 4, 2) / (2 * np.float32(exposure.size))).astype(np.float32)
