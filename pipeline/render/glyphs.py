"""Glyphs: one character of one font as a high-resolution coverage bitmap, cached."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

CAP = 96  # height in pixels at which glyphs are kept: twice the tallest character a plate crop usually shows

# Families with an open licence (OFL-1.1), installed as packages: relatives of plate typefaces, none of which is free.
FONTS = (
    "Barlow Condensed", "Saira Condensed", "Saira", "Fjalla One", "Bebas Neue", "Oswald", "Share Tech", "Teko",
    # What follows is for training alone: a letter of a font never seen is guessed from the fonts that were.
    "Overpass", "Rajdhani", "Dosis", "Encode Sans", "IBM Plex Sans Condensed", "Yanone Kaffeesatz", "Anton",
    "Titillium Web", "Chakra Petch", "Exo 2", "Sofia Sans", "Alumni Sans", "Inconsolata", "JetBrains Mono",
    "Libre Franklin", "Viga",
)  # fmt: skip
HELD_OUT_FONTS = ("Roboto Condensed", "Archivo Narrow", "PT Sans Narrow")  # for measuring: never drawn in training


@lru_cache(maxsize=64)
def _face(family: str, weight: int):
    import fontpkg
    from PIL import ImageFont

    face = ImageFont.truetype(str(fontpkg.path(family, weight, nearest=True)), size=2 * CAP)
    try:
        axes = face.get_variation_axes()
    except OSError:  # not a variable font
        return face
    face.set_variation_by_axes(
        [np.clip(weight, a["minimum"], a["maximum"]) if a["name"] == b"Weight" else a["default"] for a in axes]
    )
    return face


def _latin(character: str, family: str, weight: int) -> np.ndarray:
    """The glyph between the cap line and the baseline; ink above or below (Q's tail) is pressed into that height."""
    from PIL import Image, ImageDraw

    face = _face(family, weight)
    left, top, right, bottom = face.getbbox(character, anchor="ls")
    _, cap_top, _, _ = face.getbbox("H", anchor="ls")
    top, bottom = min(top, cap_top), max(bottom, 0)
    picture = Image.new("L", (max(1, right - left), bottom - top))
    ImageDraw.Draw(picture).text((-left, -top), character, fill=255, font=face, anchor="ls")
    return np.asarray(picture)


def square(character: str) -> bool:
    """Whether a character fills its whole cell, as Chinese, Korean and Japanese ones do."""
    return ord(character) > 0x2E80


@lru_cache
def _drawn_by(family: str) -> frozenset[int]:
    """The code points that a font has."""
    import fontpkg
    from fontTools.ttLib import TTFont

    with TTFont(str(fontpkg.path(family, 500, nearest=True)), lazy=True) as font:
        return frozenset(font.getBestCmap())


def _hanzi(character: str, weight: int) -> np.ndarray:
    """OpenCV's built-in face draws Chinese, Japanese, Korean and Cyrillic characters, so no font needs to be installed."""
    picture = np.zeros((3 * CAP, 3 * CAP), np.uint8)
    cv2.putText(picture, character, (CAP // 2, 5 * CAP // 2), (255,), cv2.FontFace("uni"), 2 * CAP, int(weight))
    rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@lru_cache(maxsize=8192)
def _upright(character: str, family: str, weight: int) -> np.ndarray:
    """Coverage of a character as its font has it: uint8 (CAP, W), trimmed at the sides, cap height filling the rows."""
    if square(character):
        return cv2.resize(_hanzi(character, weight), (CAP, CAP), interpolation=cv2.INTER_AREA)
    raw = _latin(character, family, weight) if ord(character) in _drawn_by(family) else _hanzi(character, weight)
    return cv2.resize(raw, (max(1, round(raw.shape[1] * CAP / raw.shape[0])), CAP), interpolation=cv2.INTER_AREA)


def _bar(family: str, weight: int) -> np.ndarray:
    """A bar as wide as the stem of a T: how some countries draw 1."""
    stem = _upright("T", family, weight)[CAP // 2 : 3 * CAP // 4]
    return np.full((CAP, max(1, round(float(stem.sum(1).mean()) / 255))), 255, np.uint8)


@lru_cache(maxsize=8192)
def glyph(
    character: str,
    family: str,
    weight: int,
    swell: int = 0,
    waist: float = 0.0,
    rounding: int = 0,
    bar_one: bool = False,
) -> np.ndarray:
    """Coverage of a character: uint8 (CAP, W), trimmed at the sides, cap height filling the rows.

    swell: pixels (at CAP) by which strokes are thickened (> 0) or thinned (< 0), as embossing and dirt do.
    waist: how far what stands in the middle is lifted, as a share of the height. rounding: radius of corners, pixels.
    bar_one: 1 is a bare bar.
    """
    raw = _bar(family, weight) if bar_one and character == "1" else _upright(character, family, weight)
    if swell:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (abs(swell) * 2 + 1,) * 2)
        pad = cv2.copyMakeBorder(raw, 0, 0, abs(swell), abs(swell), cv2.BORDER_CONSTANT)
        raw = cv2.dilate(pad, kernel) if swell > 0 else cv2.erode(pad, kernel)
    if waist:
        x, y = np.meshgrid(np.arange(raw.shape[1], dtype=np.float32), np.arange(CAP, dtype=np.float32))
        high = y / (CAP - 1)
        raw = cv2.remap(raw, x, y + np.float32(4 * waist * CAP) * high * (1 - high), cv2.INTER_LINEAR)
    if rounding:
        soft = cv2.GaussianBlur(raw, (0, 0), rounding / 2, borderType=cv2.BORDER_CONSTANT).astype(np.float32)
        raw = np.clip((soft - 128) * rounding + 128, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(raw)


@lru_cache(maxsize=512)
def cap_width(family: str, weight: int) -> float:
    """Width of a typical capital over its height, so that a font can be stretched to a layout's character cell."""
    return float(np.median([glyph(c, family, weight).shape[1] for c in "ABDHN0256"])) / CAP
