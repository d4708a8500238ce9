"""A small slot-headed recogniser, as plate trainers use: what `evaluate lpr` trains from scratch on real and made plates.

One softmax a slot, the last ones empty where a text is shorter. It is a yardstick: small enough to be trained many times
on a CPU, and unlike our reader (CTC), which checks the edits that it learns from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class RecogniserConfig:
    """Shape of a recogniser. alphabet: its characters; separators are left out. slots: characters of a text, at most."""

    alphabet: str
    slots: int = 9
    height: int = 32
    width: int = 128
    channels: tuple[int, int, int] = (32, 64, 128)


class Block(nn.Sequential):
    """A convolution to half the size, and one at that size."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        )  # fmt: skip


class Recogniser(nn.Module):
    """images float (B, 3, H, W) in 0..1 RGB -> logits (B, slots, 1 + alphabet), class 0 is an empty slot.

    Each slot attends to the places of the plate with a map of its own, as fast-plate-ocr's heads and CCPD's baseline of
    fixed slots do in their ways.
    """

    def __init__(self, config: RecogniserConfig):
        super().__init__()
        self.config = config
        a, b, c = config.channels
        self.features = nn.Sequential(Block(3, a), Block(a, b), Block(b, c))
        self.attention = nn.Conv2d(c, config.slots, 1)
        self.place = nn.Parameter(_prior(config.slots, config.height // 8, config.width // 8))
        self.out = nn.Linear(c, len(config.alphabet) + 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images - 0.5)
        maps = (self.attention(features) + self.place).flatten(2).softmax(-1)
        return self.out(maps @ features.flatten(2).transpose(1, 2)).float()


def _prior(slots: int, height: int, width: int) -> Tensor:
    """What slots attend to before training: side by side along the plate, (1, slots, height, width)."""
    x = (torch.arange(width) + 0.5) / width
    middle = (torch.arange(slots) + 0.5) / slots
    return (-0.5 * ((x - middle[:, None]) * slots) ** 2)[None, :, None].repeat(1, 1, height, 1)


def slot_codes(texts: Sequence[str], config: RecogniserConfig) -> Tensor:
    """int64 (B, slots), 0-padded. Raises KeyError for a foreign character; a text must not be longer than the slots."""
    index = {c: i + 1 for i, c in enumerate(config.alphabet)}
    codes = torch.zeros(len(texts), config.slots, dtype=torch.int64)
    for row, text in zip(codes, texts):
        row[: len(text)] = torch.tensor([index[c] for c in text])
    return codes


def slot_texts(logits: Tensor, config: RecogniserConfig) -> list[str]:
    """The text of each image: the likeliest character of each slot that is not empty."""
    return ["".join(config.alphabet[i - 1] for i in row if i) for row in logits.argmax(-1).tolist()]


def loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Mean cross-entropy over slots, the empty ones included: how long a text is has to be learned too."""
    return F.cross_entropy(logits.flatten(0, 1), codes.flatten())
