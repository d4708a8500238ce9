"""filter: scores every edited plate, then decides by the recipe's thresholds. Scores are kept, whatever is decided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from platemint.models.reader import ctc, greedy_decode
from platemint.models.spg import encode_texts
from platemint.pipeline import recipe as recipes
from platemint.pipeline.alignment import Standing, standing
from platemint.pipeline.networks import autocast, choose_device, in_batches, load_network, network_input
from platemint.pipeline.plate import FOLD, SEPARATORS, Plate, canonical
from platemint.pipeline.text_frame import cut_out, part_of

if TYPE_CHECKING:
    from platemint.pipeline.references import References

REACH = 1.15  # of a slot, in its half widths and heights: where its character's ink may lie
OFFSET = 38  # of 255, about 0.15: how far the two cuts of the stability score lie from the middle


def stability(mask: np.ndarray) -> float:
    """IoU of a mask cut above and below the middle: 1 where every stroke is settled (SAM's stability score)."""
    high, low = (mask > 127 + OFFSET).sum(), (mask > 127 - OFFSET).sum()
    return float(high / low) if low else 0.0


def slot_agreement(mask: np.ndarray, slots: np.ndarray, text: str) -> float:
    """Whether the mask's ink lies in the text's slots, and every slot has some.

    The share of ink inside the slots, times how far the emptiest slot is filled (full from a tenth of its area on).
    mask: uint8 (H, W). slots: (n, 3, 2) as fractions. Gaps and small separators need no ink.
    """
    ink, covered, filled = mask / 255.0, np.zeros(mask.shape, bool), []
    total = ink.sum()
    if not total:
        return 0.0
    for slot, character in zip(slots, text):
        window, inside = slot_pixels(slot, mask.shape, REACH)
        covered[window] |= inside
        if character not in SEPARATORS:
            filled.append((ink[window] * inside).sum() / max(1, inside.sum()))
    return float((ink * covered).sum() / total * min([1.0, *(10 * f for f in filled)]))


def slot_pixels(slot: np.ndarray, shape: tuple[int, ...], reach: float) -> tuple[tuple[slice, slice], np.ndarray]:
    """The pixels that a slot takes up, in a window of the picture: bool of the window's size.

    slot: float (3, 2), as in `models.spg`. reach: of the slot, in its half widths and half heights.
    """
    height, width = shape
    (x, y), right, down = slot.astype(np.float64)
    far = reach * (np.abs(right) + np.abs(down))
    low, high = np.floor((slot[0] - far) * (width, height)), np.ceil((slot[0] + far) * (width, height))
    (x1, y1), (x2, y2) = (end.clip(0, (width, height)).astype(int).tolist() for end in (low, high))
    dx, dy = (np.arange(x1, x2) + 0.5) / width - x, ((np.arange(y1, y2) + 0.5) / height - y)[:, None]
    area = right[0] * down[1] - right[1] * down[0]
    area = area if abs(area) > 1e-4 else 1e-4
    u, v = (dx * down[1] - dy * down[0]) / area, (dy * right[0] - dx * right[1]) / area
    return np.s_[y1:y2, x1:x2], (np.abs(u) < reach) & (np.abs(v) < reach)


def fold(log_probabilities: Tensor, alphabet: str) -> Tensor:
    """Log-probabilities (B, T, 1 + alphabet) with the pairs people label inconsistently counted as one (O as 0)."""
    folded = log_probabilities.clone()
    for other, one in FOLD.items():
        if chr(other) in alphabet and chr(one) in alphabet:
            one, other = alphabet.index(chr(one)) + 1, alphabet.index(chr(other)) + 1
            folded[..., one] = torch.logaddexp(folded[..., one], folded[..., other])
            folded[..., other] = -1e4
    return folded


def likelihood(log_probabilities: Tensor, texts: list[str], alphabet: str) -> list[float]:
    """How probable each text is to a reader, per character, 0..1; separators and look-alike pairs do not count."""
    plain = [canonical(text) for text in texts]
    spellable = ["".join(c for c in text if c in alphabet) for text in plain]
    loss = ctc(fold(log_probabilities, alphabet), encode_texts(spellable, alphabet))
    return [min(1.0, float(np.exp(-value))) if text else 0.0 for value, text in zip(loss.tolist(), spellable)]


class Filter:
    """Edited plates -> the same plates with reading, scores and, where one is out of bounds, the reason.

    limits: where they are `Filtering`, sources are judged too. references: of the corpus that they are of, if any; what
    they know of a source is not read again.
    """

    def __init__(self, limits: recipes.Limits, options: recipes.Edit):
        self.limits, self.options = limits, options
        self.references: References | None = None
        self.device, self.dtype = choose_device(options)
        self.reader = load_network(options.reader, "reader", options)

    @property
    def judges_sources(self) -> bool:
        """Whether a plate's source counts, too."""
        return isinstance(self.limits, recipes.Filtering)

    def __call__(self, plates: list[Plate]) -> list[Plate]:
        return [replace(plate, reason=self.decide(plate.scores)) for plate in self.scored(plates)]

    def scored(self, plates: list[Plate]) -> list[Plate]:
        """The plates with reading and scores, and nothing decided."""
        return in_batches(self._score, plates, self.options.batch)

    def standing(self, plates: list[Plate]) -> list[Standing | None]:
        """Where the characters of each plate's text stand in its picture, None where that is not clear."""
        return in_batches(self._standing, plates, self.options.batch)

    def _standing(self, plates: list[Plate]) -> list[Standing | None]:
        pictures, texts = [p.image for p in plates], [p.text for p in plates]
        return standing(self.reader, pictures, texts, self.device, self.dtype)

    def read(self, pictures: list[np.ndarray]) -> list[tuple[str, float]]:
        """What our reader reads of plates, uint8 (h, w, 3) each, and how probable that is per character, 0..1."""
        return in_batches(self._texts, pictures, self.options.batch)

    def _texts(self, pictures: list[np.ndarray]) -> Iterable[tuple[str, float]]:
        seen, alphabet = self._read(pictures), self.reader.config.alphabet
        texts = greedy_decode(seen, alphabet)
        return zip(texts, likelihood(seen, texts, alphabet))

    def decide(self, scores: dict[str, float]) -> str:
        """The name of the first score out of bounds, "" for a plate to keep."""
        limits = self.limits
        of_sources = ["source_reader"] if self.judges_sources else []
        for name in (*of_sources, "stability", "slots", "mask_reader", "reader"):
            if scores[name] < getattr(limits, f"min_{name}"):
                return name
        return "residue" if scores["residue"] > limits.max_residue else ""

    def _score(self, whole: list[Plate]) -> list[Plate]:
        plates = [part_of(plate) for plate in whole]
        bare = {id(p.target_mask): np.repeat(self.view(255 - p.target_mask, p)[..., None], 3, 2) for p in plates}
        place = {
            mask: number for number, mask in enumerate(bare)
        }  # several pictures of one plate share its mask, which is read once
        seen, masks = self._read([self.view(p.image, p) for p in plates]), self._read(list(bare.values()))
        masks = masks[[place[id(p.target_mask)] for p in plates]]
        alphabet = self.reader.config.alphabet
        texts = [p.text for p in plates]
        readings = greedy_decode(seen, alphabet)
        reader, mask_reader = likelihood(seen, texts, alphabet), likelihood(masks, texts, alphabet)
        residue = likelihood(seen, [p.original_text for p in plates], alphabet)
        of_sources = [{"source_reader": score} for score in self._source_scores(whole)] if self.judges_sources else []
        return [
            replace(
                whole[i],
                reading=readings[i],
                scores={
                    "stability": stability(plate.target_mask),
                    "slots": slot_agreement(plate.target_mask, plate.slots, plate.text),
                    "mask_reader": mask_reader[i],
                    "reader": reader[i],
                    "residue": residue[i],
                    **(of_sources[i] if of_sources else {}),
                },
            )
            for i, plate in enumerate(plates)
        ]

    def _source_scores(self, plates: list[Plate]) -> list[float]:
        """How probable each source's own label is to our reader; 1 of rendered ones, whose text nobody has to read.

        What references do not know is read in every batch anew: what one batch kept for another would depend on which
        came first, and so would a run's bytes.
        """
        known = self.references.source_scores if self.references else {}
        unread = {id(p.original): p for p in plates if not p.rendered and p.source not in known}
        read = dict(zip(unread, self._source_likelihood([*unread.values()])))
        return [1.0 if p.rendered else known[p.source] if p.source in known else read[id(p.original)] for p in plates]

    def _source_likelihood(self, plates: list[Plate]) -> list[float]:
        if not plates:
            return []
        seen = self._read([self.view(p.original, p) for p in plates])
        return likelihood(seen, [p.original_text for p in plates], self.reader.config.alphabet)

    def view(self, picture: np.ndarray, plate: Plate) -> np.ndarray:
        """What the reader sees of a picture of a plate: its frame, uint8 of the reader's size."""
        config = self.reader.config
        return cut_out(picture, plate.frame, config.height, config.width)

    @torch.inference_mode()
    def _read(self, pictures: list[np.ndarray]) -> Tensor:
        config = self.reader.config
        with autocast(self.device, self.dtype):
            return self.reader(network_input(pictures, config.height, config.width, self.device)).cpu()
