"""Rendered pairs for training: pair number i of a run is a pure function of (seed, i), in whatever process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from platemint.pipeline.networks import resize
from platemint.pipeline.plate import DIGITS, LETTERS, PROVINCES, unspellable
from platemint.pipeline.recipe import TrainRecipe
from platemint.pipeline.render import Photo, render_pair
from platemint.pipeline.render.layout import spelled_with, training_layouts
from platemint.pipeline.train.typefaces import Typefaces

Glyphs = tuple[np.ndarray, np.ndarray]
PLAIN = DIGITS + LETTERS + PROVINCES  # what made-up layouts are written with; further characters stand among them


@dataclass(slots=True)
class Batch:
    """Pairs, stacked: pictures uint8 (B, 3, H, W), masks uint8 (B, 1, H, W), texts, true slots float32 (B, N, 3, 2).

    references, glyphs: as `Typefaces` draws them, (B, 1 + alphabet, 2 or 1, h, w), for a generator; else None.
    """

    source: Tensor
    target: Tensor
    source_mask: Tensor
    target_mask: Tensor
    source_text: list[str]
    target_text: list[str]
    source_slots: Tensor
    target_slots: Tensor
    references: Tensor | None = None
    glyphs: Tensor | None = None


def shrink(picture: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Any (h, w[, c]) picture at a network's size (H, W), channels first."""
    small = resize(picture, *size).reshape(*size, -1)
    return torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))


def unit_pictures(pictures: Tensor, device: torch.device) -> Tensor:
    """uint8 pictures -> float 0..1 on a device, channels_last."""
    return pictures.to(device).float().div_(255).contiguous(memory_format=torch.channels_last)


def slots_of(boxes: np.ndarray) -> np.ndarray:
    """Corners (n, 4, 2) -> slots (n, 3, 2): centre, half width vector, half height vector."""
    ul, ur, lr, ll = boxes.transpose(1, 0, 2)
    return np.stack([boxes.mean(1), (ur + lr - ul - ll) / 4, (ll + lr - ul - ur) / 4], 1)


class Pairs(torch.utils.data.Dataset):
    """Rendered pairs by number, with references where a task draws them."""

    def __init__(self, recipe: TrainRecipe, alphabet: str, typefaces: Typefaces | None = None):
        self.recipe, self.typefaces = recipe, typefaces
        self.layouts = [*spelled_with(alphabet, training_layouts(recipe.layouts))[0].values()]
        self.more = unspellable(alphabet, PLAIN)

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch

    def __getitem__(self, number: int) -> tuple[Photo, Photo, Glyphs | None]:
        cv2.setNumThreads(1)
        source, target = render_pair(self.layouts, self._rng(number), self.recipe.wild, self.more)
        drawn = self.typefaces and self.typefaces(source.lettering, source.text, self._rng(number, 1))
        return source, target, drawn

    def _rng(self, number: int, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, number, *stream])


@dataclass(frozen=True)
class Stack:
    """Stacks pairs at a network's size (H, W)."""

    size: tuple[int, int]

    def __call__(self, pairs: list[tuple[Photo, Photo, Glyphs | None]]) -> Batch:
        *sides, drawn = zip(*pairs)
        pictures = [torch.stack([shrink(p.image, self.size) for p in side]) for side in sides]
        masks = [torch.stack([shrink(p.mask, self.size) for p in side]) for side in sides]
        texts = [[p.text for p in side] for side in sides]
        slots = []
        for side in sides:
            stacked = torch.zeros(len(side), max(len(p.text) for p in side), 3, 2)
            for row, photo in zip(stacked, side):
                row[: len(photo.text)] = torch.from_numpy(slots_of(photo.boxes))
            slots.append(stacked)
        glyphs = [torch.from_numpy(np.stack(some)) for some in zip(*drawn)] if drawn[0] else []
        return Batch(*pictures, *masks, *texts, *slots, *glyphs)


def pair_batches(
    recipe: TrainRecipe,
    alphabet: str,
    size: tuple[int, int],
    first_step: int,
    rank: int = 0,
    world: int = 1,
    kind: tuple[Callable, Callable] = (Pairs, Stack),
) -> Iterable:
    """The share that this process has of every batch from a step on, rendered ahead by recipe.workers processes.

    alphabet: what the network can spell. kind: what renders an example by its number, and what stacks examples.
    Raises PlatemintError for a layout that holds something else.
    """
    examples, stack = kind
    numbers = range(first_step * recipe.batch + rank, recipe.steps * recipe.batch, world)
    # spawned, since a forked child inherits OpenCV's and torch's thread pools without their threads, and hangs
    ahead = (
        dict(num_workers=recipe.workers, multiprocessing_context="spawn", prefetch_factor=4) if recipe.workers else {}
    )
    return torch.utils.data.DataLoader(
        examples(recipe, alphabet), recipe.batch // world, sampler=numbers, collate_fn=stack(size), **ahead
    )


def validation(
    recipe: TrainRecipe,
    alphabet: str,
    size: tuple[int, int],
    count: int,
    kind: tuple[Callable, Callable] = (Pairs, Stack),
) -> Any:
    """Examples of a seed that no run trains on, stacked, the same for every run of the same layouts."""
    make, stack = kind
    examples = make(recipe.model_copy(update={"seed": 2**63 - 1}), alphabet)
    return stack(size)([examples[number] for number in range(count)])
