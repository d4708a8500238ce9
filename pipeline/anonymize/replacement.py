"""replacement: one plate on its way to a new text: what it shows before and after, and how a plate is redacted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import cv2
import numpy as np
from rapidfuzz.distance import Indel

from platemint.pipeline.alignment import Standing, spread_over_text
from platemint.pipeline.anonymize import residue
from platemint.pipeline.anonymize.picture import differing
from platemint.pipeline.anonymize.residue import in_view
from platemint.pipeline.corpora.datasets import Annotation, Frame
from platemint.pipeline.corpora.rectify import Box, View
from platemint.pipeline.plate import LONGEST, Plate, canonical, characters, kind_of, unspellable

ERASED = 0.75  # part of the old strokes' pixels that have to change where nobody could read the photograph
HALF_READ = 0.5  # likeness of a reading and a text from which on the one is a poor reading of the other
BLANK = np.zeros((1, 1), np.uint8)  # the mask of plates that are only read
CELLS = (4, 2)  # a redacted plate is as many patches of one colour, smoothed


@dataclass
class Replacement:
    """One plate on its way: where it is in which frame, and what became of it. outcome: replaced, redacted or withheld.

    pixels: of the whole frame. coded: what encoding makes of it, None where it loses nothing (see `Picture.coded`).
    texts: the new text of each attempt, "" where an attempt has none. attempt: the one that is accepted. reason: why it
    is not replaced. edit: the one that is accepted, to be scored once more. scores: of the last edit, 0..1; {} of none.
    """

    frame: Frame
    annotation: Annotation
    view: View
    pixels: np.ndarray
    source: np.ndarray  # the plate as it was, uint8 (h, w, 3)
    texts: Sequence[str] = ()
    coded: Callable[[np.ndarray, Box], np.ndarray] | None = None
    erased: bool = False  # whether the last edit has changed the old strokes, before encoding changes pixels anywhere
    reading: str = ""  # what our reader reads of it, whatever its label says
    legible: bool = True
    standing: Standing | None = None  # where its characters stand, None where the reader cannot place them
    outcome: str = ""
    attempt: int = -1
    reason: str = ""
    edit: Plate | None = None
    scores: dict[str, float] = field(default_factory=dict)
    result: np.ndarray | None = None
    region: np.ndarray | None = None  # bool (h, w), pixels of the view that may differ
    annotated: View | None = None  # the whole annotation, where the view is of the plate alone

    def look_at(self, view: View) -> None:
        """From now on the plate is what a view closer than its annotation shows."""
        self.annotated, self.view, self.source = self.view, view, view.cut(self.pixels)

    def look_at_all(self) -> None:
        """From now on the plate is all of its annotation again."""
        if self.annotated:
            self.view, self.source, self.annotated = self.annotated, self.annotated.cut(self.pixels), None

    def as_is(self) -> Plate:
        """The untouched plate, to be read."""
        text = self.annotation.text
        nowhere = np.zeros((len(text), 3, 2), np.float32)
        return Plate(self.source, text, original=self.source, original_text=text, source_mask=BLANK, target_mask=BLANK,
                     slots=nowhere)  # fmt: skip

    def to_edit(self, text: str) -> Plate:
        """The plate with a new text, to be edited."""
        places = None if self.standing is None else spread_over_text(self.standing.known, self.annotation.text)
        return Plate(self.source, self.annotation.text, target=text, places=places)

    def mended(self, plate: Plate) -> Plate:
        """An edit with what is still in view of old characters painted over."""
        if self.standing is None:
            return plate
        image, where = residue.erased(self.source, plate.image, plate.target_mask, self.standing)
        return replace(plate, image=image, source_mask=np.where(where, np.uint8(255), plate.source_mask))

    def edited(self, plate: Plate) -> Plate:
        """An edit of the plate, whose picture shows what will be seen of it: pixels outside its masks never get out."""
        region = (plate.source_mask > 0) | (plate.target_mask > 0)
        seen = partial(self.view.seen, self.pixels, self.source, plate.image, region)
        self.erased = _erased(replace(plate, image=seen()))
        return replace(plate, image=seen(self.coded))

    def resembles(self, reading: str) -> bool:
        """Whether a reading is most of the old text: of a plate that is hard to read, not of something else."""
        return Indel.normalized_similarity(canonical(reading), canonical(self.annotation.text)) >= HALF_READ

    def remaining(self, plate: Plate) -> int:
        """How many of the plate's old characters can still be seen in its edit, as far as their places are known."""
        if self.standing is None:
            return 0
        return int((in_view(self.source, plate.image, plate.target_mask, self.standing) > residue.LIMIT).sum())

    def looked_for(self) -> dict[str, int]:
        """The old characters of a replaced plate: looked_for, in_view of these, and not_placed, which nobody can read."""
        count = len(characters(self.annotation.text))
        if self.standing is None:
            return {"not_placed": count}
        return {"looked_for": count, "in_view": self.remaining(self.edit)}


def writable(text: str, alphabet: str) -> bool:
    """Whether networks of an alphabet can write a normalised text, and every character of it can become another."""
    plain = characters(text)
    return bool(plain) and not unspellable(text, alphabet) and all(map(kind_of, plain)) and len(text) <= LONGEST


def _erased(plate: Plate) -> bool:
    """Whether an edit has changed the old strokes, as its mask has them."""
    strokes = plate.source_mask > 127
    return strokes.any() and (plate.image != plate.original).any(2)[strokes].mean() >= ERASED


def compose_frame(pixels: np.ndarray, items: list[Replacement]) -> tuple[np.ndarray, Counter]:
    """The frame with its plates' results; and how many pixels changed, and how many of these outside every region."""
    new, allowed = pixels.copy(), np.zeros(pixels.shape[:2], bool)
    for item in items:
        item.view.paste(new, allowed, item.source, item.result, item.region)
    changed = differing(new, pixels)
    return new, Counter(changed=int(changed.sum()), outside=int((changed & ~allowed).sum()), pixels=changed.size)


# ------------------------------------------------------------------------------------------------ enhancements, and redaction


def _stretched(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, (2, 98), axis=(0, 1))
    return np.clip((image - low) * (255 / np.maximum(high - low, 1)), 0, 255).astype(np.uint8)


def _sharpened(image: np.ndarray) -> np.ndarray:
    soft = cv2.GaussianBlur(image, (0, 0), max(1.0, image.shape[0] / 40)).astype(np.float32)
    return np.clip(2.5 * image - 1.5 * soft, 0, 255).astype(np.uint8)


def _enlarged(image: np.ndarray) -> np.ndarray:
    h, w = image.shape[:2]
    part = image[h // 12 : h - h // 12, w // 40 : w - w // 40]  # and cropped, so that the reader sees another grid
    return cv2.resize(part, (2 * w, 2 * h), interpolation=cv2.INTER_CUBIC)


# What somebody who wants the old text back would try first.
ENHANCED = {"plain": lambda image: image, "stretched": _stretched, "sharpened": _sharpened, "enlarged": _enlarged}


def redacted(image: np.ndarray) -> np.ndarray:
    """A plate of which a few patches' mean colours are left: uint8 (h, w, 3)."""
    h, w = image.shape[:2]
    few = cv2.resize(image, CELLS, interpolation=cv2.INTER_AREA)
    return cv2.resize(few, (w, h), interpolation=cv2.INTER_CUBIC if min(h, w) > 4 else cv2.INTER_NEAREST)
