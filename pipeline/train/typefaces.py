"""Reference glyphs for rendered pairs: what masks cut from other photographs of the same typeface average to.

They come badly placed, blurred, incomplete and sometimes wrong, as from a corpus, so that the generator learns to trust
them as far as they deserve, and to draw what is missing like what is there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from platemint.models.spg import FRAME, confidence
from platemint.pipeline.plate import SEPARATORS, kind_of
from platemint.pipeline.references import sharpened
from platemint.pipeline.render.glyphs import FONTS
from platemint.pipeline.render.photo import Cell, Lettering, stamp_cell

NONE = 0.3  # of all pairs have no references: pictures of a typeface nobody has collected
OTHER = 0.05  # come with another typeface's, as where a corpus mixes them
WRONG = 0.05  # of the glyphs are another character's, by a wrong label
GLYPHS = 12  # whose truth comes along
MOST = 200  # photographs that a glyph is averaged from
WEIGHTS = (300, 400, 500, 600, 700)


@dataclass(frozen=True)
class Typefaces:
    """Draws references for pairs. alphabet: of the generator. size: height and width of a glyph, pixels."""

    alphabet: str
    size: tuple[int, int]

    def __call__(self, lettering: Lettering, text: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """References float32 (1 + alphabet, 2, h, w), and float32 (1 + alphabet, 1, h, w) what they are references to.

        text: of the picture, which brings its own characters along where there is nothing else. The truth is of
        GLYPHS characters, present or not, and 0 for others.
        """
        references = np.zeros((1 + len(self.alphabet), 2, *self.size), np.float32)
        truth = np.zeros((1 + len(self.alphabet), 1, *self.size), np.float32)
        if rng.random() < NONE:
            return references, truth
        swell = int(np.clip(lettering.swell + round(rng.normal(0, 1)), -2, 4))
        lettering = replace(lettering, swell=swell, slant=0.0)  # a slot leans with its character
        if rng.random() < OTHER:
            lettering = replace(lettering, family=str(rng.choice(FONTS)), weight=int(rng.choice(WEIGHTS)))
        shown = {"D", "L", *map(kind_of, text)} - {""}  # other scripts only where they are wanted
        drawn = [c for c in self.alphabet if c not in SEPARATORS and (kind_of(c) in shown or c in text)]
        glyphs = {c: self._glyph(c, lettering) for c in drawn}
        counts = _counts(drawn, text, rng)
        shift, stretch, blur = rng.normal(0, 0.02, 2), 1 + rng.normal(0, 0.03, 2), rng.uniform(0.2, 1.4)
        faint = rng.uniform(0.8, 1.0)
        # Where slots are found too wide, so they are on the plate to be edited.
        for c in rng.choice(drawn, GLYPHS, replace=False):
            truth[self._number(c), 0] = _moved(glyphs[str(c)], shift, stretch, 0.0)
        for c, count in counts.items():
            shown = glyphs[str(rng.choice(drawn)) if rng.random() < WRONG else c]
            single = count**-0.5
            moved = (
                shift + rng.normal(0, 0.015 + 0.05 * single, 2),
                stretch * (1 + rng.normal(0, 0.01 + 0.05 * single, 2)),
            )
            soft = _moved(shown, *moved, blur + abs(rng.normal(0, 0.1 + 0.3 * single)))
            noise = cv2.resize(rng.normal(0, 0.15 * single, (8, 5)).astype(np.float32), self.size[::-1])
            references[self._number(c), 0] = sharpened(np.clip(faint * soft + noise, 0, 1))
            references[self._number(c), 1] = confidence(count)
        return references, truth

    def _number(self, character: str) -> int:
        return 1 + self.alphabet.index(character)

    def _glyph(self, character: str, lettering: Lettering) -> np.ndarray:
        """A character in the frame of its slot: float32 (h, w) in 0..1."""
        height, width = self.size
        canvas = np.zeros((3 * height, 3 * width), np.uint8)
        high, wide = (3 * side / FRAME for side in self.size)
        cell = Cell(character, (3 * width - wide) / 2, (3 * height - high) / 2, wide, high, True)
        stamp_cell(canvas, cell, lettering, 1.0)
        return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _counts(drawn: list[str], text: str, rng: np.random.Generator) -> dict[str, int]:
    """How many photographs showed each character that any showed: a picture alone, or more or less of a corpus."""
    if rng.random() < 0.2:
        return {c: text.count(c) for c in text if c not in SEPARATORS}
    mean = np.exp(rng.uniform(0, np.log(MOST)))
    present = 1.0 if rng.random() < 0.4 else rng.uniform(0.05, 1.0)
    return {c: 1 + int(rng.poisson(mean * rng.uniform(0.2, 1.8))) for c in drawn if rng.random() < present}


def _moved(glyph: np.ndarray, shift: np.ndarray, stretch: np.ndarray, blur: float) -> np.ndarray:
    """A glyph stretched around its middle, shifted by parts of its size, and blurred by a deviation in pixels."""
    size = np.array(glyph.shape[::-1])
    offset = (size - 1) / 2 * (1 - stretch) + shift * size
    matrix = np.float32([[stretch[0], 0, offset[0]], [0, stretch[1], offset[1]]])
    moved = cv2.warpAffine(glyph, matrix, glyph.shape[::-1], flags=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(moved, (0, 0), blur) if blur else moved
