"""The reader's task: rendered plates, their bare masks, and labelled real crops where a corpus is given."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from platemint.models.reader import Reader, ReaderConfig, ctc, decode
from platemint.models.spg import encode_texts
from platemint.pipeline.networks import autocast
from platemint.pipeline.plate import READABLE, SEPARATORS, characters, same_reading, unspellable
from platemint.pipeline.recipe import TrainRecipe
from platemint.pipeline.train.alphabets import start
from platemint.pipeline.train.pairs import Batch, shrink, unit

UNKNOWN = -100  # frames nobody knows the class of


class ReaderTask:
    """The reader learns rendered plates, bare masks, and real crops (image, text)."""

    critic = typefaces = None

    def __init__(self, recipe: TrainRecipe, device, dtype, crops: list[tuple[np.ndarray, str]]):
        self.recipe, self.device, self.dtype = recipe, device, dtype
        whole = READABLE + unspellable(recipe.alphabet.add, READABLE)
        self.network = start(recipe) if recipe.start else Reader(ReaderConfig(whole))
        self.alphabet = self.network.config.alphabet
        self.network.to(device=device, memory_format=torch.channels_last)
        self.size = self.network.config.height, self.network.config.width
        self.crops, self.chances = crops, rare_first([text for _, text in crops])

    def examples(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, list[str], Tensor]:
        """Both pictures of each pair, their texts and frames (see `frames_of`).

        Some are replaced by their bare mask, some by a real crop, disturbed a little.
        """
        pictures = torch.cat([batch.source, batch.target])
        masks = torch.cat([batch.source_mask, batch.target_mask])
        texts = batch.source_text + batch.target_text
        frames = torch.stack(
            [
                frames_of(t, s, self.size[1] // 4, self.alphabet)
                for t, s in zip(texts, [*batch.source_slots, *batch.target_slots])
            ]
        )
        texts = [characters(t) for t in texts]
        for i, draw in enumerate(rng.random(len(texts))):
            if draw < 0.12:
                pictures[i] = 255 - masks[i]
            elif self.crops and draw < 0.12 + self.recipe.real_share:
                image, texts[i] = self.crops[rng.choice(len(self.crops), p=self.chances)]
                pictures[i], frames[i] = shrink(disturb(image, rng), self.size), UNKNOWN
        return unit(pictures, self.device), [characters(t) for t in texts], frames.to(self.device)

    def loss(self, batch: Batch, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        pictures, texts, frames = self.examples(batch, rng)
        with autocast(self.device, self.dtype):
            read = self.network(pictures)
        loss = ctc(read, encode_texts(texts, self.alphabet).to(self.device)).mean()
        # CTC alone sits on blanks for thousands of steps; the renderer knows where each character stands.
        aligned = nn.functional.nll_loss(read.transpose(1, 2), frames, ignore_index=UNKNOWN, reduction="sum")
        aligned = aligned / (frames != UNKNOWN).sum().clamp(min=1)
        figures = {
            "ctc": float(loss.detach()),
            "aligned": float(aligned.detach()),
            "read": _right(read.detach(), texts, self.alphabet),
        }
        return loss + aligned, figures

    def critic_loss(self) -> None:
        return None

    @torch.no_grad()
    def score(self, network: nn.Module, batch: Batch) -> float:
        """Share of rendered plates read without a fault."""
        with autocast(self.device, self.dtype):
            read = network(unit(torch.cat([batch.source, batch.target]), self.device))
        return _right(read, [characters(t) for t in batch.source_text + batch.target_text], self.alphabet)

    def sheet(self, network: nn.Module, batch: Batch) -> list[Tensor]:
        """What is read, a column of pictures (B, 3, H, W)."""
        return [self.examples(batch, np.random.default_rng(0))[0]]


def _right(read: Tensor, texts: list[str], alphabet: str) -> float:
    return float(np.mean([same_reading(text, truth) for text, truth in zip(decode(read, alphabet), texts)]))


def frames_of(text: str, slots: Tensor, steps: int, alphabet: str) -> Tensor:
    """The reader's class at each of its 2 x steps frames: int64, a character around its centre, else blank (0).

    A second row of characters begins where they jump back to the left.
    """
    frames = torch.zeros(2, steps, dtype=torch.int64)
    row, before = 0, -1.0
    for character, (centre, right, _) in zip(text, slots.tolist()):
        row = min(1, row + (centre[0] < before - 0.05))
        before = centre[0]
        if character not in SEPARATORS:
            low, high = (round(steps * (centre[0] + side * 0.4 * right[0])) for side in (-1, 1))
            frames[row, max(0, low) : max(0, high) + 1] = 1 + alphabet.index(character)
    return frames.flatten()


def rare_first(texts: list[str]) -> np.ndarray:
    """How likely each text is drawn, float64 (n,), summing to 1: texts with rare characters more often.

    A corpus with one province on nearly all plates would teach that province for every character hard to read.
    """
    count = Counter(c for text in texts for c in text)
    weight = np.array([np.mean([count[c] ** -0.5 for c in text]) for text in texts])
    return weight / weight.sum()


def disturb(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A real crop, uint8 (h, w, 3), under slightly other light, framing and focus."""
    h, w = image.shape[:2]
    corners = np.float32([[0, 0], [w, 0], [w, h], [0, h]])
    moved = corners + rng.normal(0, 0.025, (4, 2)).astype(np.float32) * np.float32([w, h])
    out = cv2.warpPerspective(
        image, cv2.getPerspectiveTransform(corners, moved.astype(np.float32)), (w, h), borderMode=cv2.BORDER_REPLICATE
    )
    if rng.random() < 0.3:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 0.02 * h + 0.4))
    out = out.astype(np.float32) * np.exp(rng.normal(0, 0.2)) + rng.normal(0, rng.uniform(0, 8), out.shape)
    return np.clip(out, 0, 255).astype(np.uint8)
