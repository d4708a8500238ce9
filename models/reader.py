"""A small CTC recogniser: recognition and perceptual losses in training, mask check and leak check in the pipeline.

Two rows of time steps, the upper half of the plate and then the lower, so that plates of one and of two rows are read
by the same network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from platemint.models.spg import Down, Layer, Norm, Residual, conv


@dataclass(frozen=True)
class ReaderConfig:
    """Shape of a reader; stored in the checkpoint. alphabet: what it reads, separators are never read."""

    alphabet: str
    height: int = 48
    width: int = 160
    channels: tuple[int, int, int] = (40, 80, 128)
    heads: int = 4
    layers: int = 2


class Reader(nn.Module):
    """images float (B, 3, H, W) in 0..1 RGB -> CTC log-probabilities (B, W/2, 1 + alphabet), class 0 is blank."""

    def __init__(self, config: ReaderConfig):
        super().__init__()
        self.config = config
        a, b, c = config.channels
        self.to_half = nn.Sequential(nn.PixelUnshuffle(2), conv(12, a), Residual(a))
        self.to_quarter = nn.Sequential(Down(a, b), Residual(b))
        self.to_rows = nn.Sequential(conv(2 * b, c, 1), Residual(c))  # height 1/8, width 1/4
        self.column = nn.Sequential(Norm(c), nn.Conv2d(c, c, (config.height // 16, 1), stride=(config.height // 16, 1)))
        self.place = nn.Parameter(0.02 * torch.randn(1, config.width // 2, c))
        self.layers = nn.ModuleList(Layer(c, config.heads, cross=False) for _ in range(config.layers))
        self.out = nn.Sequential(nn.LayerNorm(c), nn.Linear(c, len(config.alphabet) + 1))

    def features(self, image: Tensor) -> list[Tensor]:
        """What the reader sees at 1/2, 1/4 and 1/8 of the size: the basis of a perceptual distance made for plates."""
        half = self.to_half(image - 0.5)
        quarter = self.to_quarter(half)
        b, c, h, w = quarter.shape
        folded = quarter.reshape(b, c, h // 2, 2, w).transpose(2, 3).reshape(b, 2 * c, h // 2, w)
        return [half, quarter, self.to_rows(folded.contiguous(memory_format=torch.channels_last))]

    def forward(self, image: Tensor) -> Tensor:
        return self.read_features(self.features(image))

    def read_features(self, features: list[Tensor]) -> Tensor:
        x = self.column(features[-1]).flatten(2).transpose(1, 2) + self.place
        for layer in self.layers:
            x = layer(x)
        return F.log_softmax(self.out(x).float(), -1)


def greedy_decode(log_probabilities: Tensor, alphabet: str) -> list[str]:
    """Greedy CTC decoding: the text of each image."""
    texts = []
    for steps in log_probabilities.argmax(-1).tolist():
        kept = [step for step, before in zip(steps, [0, *steps]) if step and step != before]
        texts.append("".join(alphabet[step - 1] for step in kept))
    return texts


def align(log_probabilities: Tensor, texts: Tensor) -> Tensor:
    """Where each character of known texts stands: its place (B, N) among the time steps, float, 0 where there is none.

    The middle of its stretch on the likeliest path that spells the text (forced alignment: Viterbi over the states of
    Graves et al., Connectionist temporal classification, 2006). texts int64 (B, N), 0-padded, N at least 1.
    """
    b, steps, _ = log_probabilities.shape
    n = texts.shape[1]
    states = texts.new_zeros(b, 2 * n + 1)  # a blank before, between and after the characters
    states[:, 1::2] = texts
    score = log_probabilities.gather(2, states[:, None].expand(-1, steps, -1))
    skips = torch.zeros_like(states, dtype=torch.bool)
    skips[:, 3::2] = texts[:, 1:] != texts[:, :-1]  # over the blank, which only equal neighbours need
    best = score.new_full(states.shape, -1e9)
    best[:, :2] = score[:, 0, :2]
    came_from = []
    for step in range(1, steps):
        two = F.pad(best, (2, 0), value=-1e9)[:, :-2].masked_fill(~skips, -1e9)
        reached, back = torch.stack([best, F.pad(best, (1, 0), value=-1e9)[:, :-1], two]).max(0)
        best = reached + score[:, step]
        came_from.append(back)
    last = 2 * (texts > 0).sum(1, keepdim=True)
    ends = best.gather(1, torch.cat([last, (last - 1).clamp(min=0)], 1))
    path = [last - ends.argmax(1, keepdim=True)]
    for back in reversed(came_from):
        path.append(path[-1] - back.gather(1, path[-1]))
    at = torch.cat(path[::-1], 1)[:, :, None] == 2 * torch.arange(n, device=texts.device) + 1
    places = torch.arange(steps, device=texts.device, dtype=torch.float)[:, None]
    return (at * places).sum(1) / at.sum(1).clamp(min=1)


def ctc(log_probabilities: Tensor, texts: Tensor) -> Tensor:
    """CTC loss per image (B,), per character; texts int64 (B, N), 0-padded."""
    lengths = (texts > 0).sum(1)
    steps = torch.full_like(lengths, log_probabilities.shape[1])
    loss = F.ctc_loss(log_probabilities.transpose(0, 1), texts, steps, lengths, reduction="none", zero_infinity=True)
    return loss / lengths.clamp(min=1)
