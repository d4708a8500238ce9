"""The finder: where in a picture a plate's text stands, as the four corners of the block of all its characters.

Each cell of a coarse grid says whether it lies on such a block, and where its corners are: the quadrilateral geometry of
EAST (Zhou et al., CVPR 2017) on a network small enough to run before every edit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from platemint.models.spg import Down, Layer, Norm, Residual, conv, token_places

CELL = 8  # pixels


@dataclass(frozen=True)
class FinderConfig:
    """Shape of a finder; stored in the checkpoint."""

    height: int = 80
    width: int = 160
    channels: tuple[int, int, int] = (32, 64, 96)  # at 1/4, 1/8 and 1/16 of the picture
    heads: int = 4


class Finder(nn.Module):
    """images float (B, 3, H, W) in 0..1 RGB -> of each cell the logit that text is there, (B, cells), and its corners.

    The corners, (B, cells, 4, 2), are fractions of width and height, clockwise from the upper left in reading order.
    """

    def __init__(self, config: FinderConfig):
        super().__init__()
        self.config = config
        a, b, c = config.channels
        self.to_quarter = nn.Sequential(nn.PixelUnshuffle(4), conv(48, a), Residual(a))
        self.to_eighth = nn.Sequential(Down(a, b), Residual(b), Residual(b))
        self.to_sixteenth = nn.Sequential(Down(b, c), Residual(c))
        self.place = nn.Parameter(0.02 * torch.randn(1, config.height // 16 * (config.width // 16), c))
        self.whole = Layer(c, config.heads, cross=False)
        self.up, self.merge = (
            conv(c, b, 1),
            nn.Sequential(conv(2 * b, b, 1), Residual(b), Residual(b), Norm(b), nn.SiLU()),
        )
        self.out = nn.Linear(b, 9)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        eighth = self.to_eighth(self.to_quarter(image - 0.5))
        deep = self.to_sixteenth(eighth)
        b, c, h, w = deep.shape
        deep = self.whole(deep.flatten(2).transpose(1, 2) + self.place).transpose(1, 2).view(b, c, h, w)
        up = F.interpolate(self.up(deep), scale_factor=2, mode="nearest")
        x = self.merge(torch.cat([up, eighth], 1)).flatten(2).transpose(1, 2)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would round corners to pixels
            x = self.out(x.float())
        places = token_places(2 * h, 2 * w, image.device)
        return x[..., 0], places[:, None] + x[..., 1:].unflatten(-1, (4, 2))


def block_depth(quads: Tensor, points: Tensor) -> Tensor:
    """How deep points (n, 2) lie in convex quadrilaterals (B, 4, 2): (B, n), 1 in the middle, 0 on the border."""
    sides = (quads.roll(-1, 1) - quads)[:, None]
    to_points = points[None, :, None] - quads[:, None]
    to_middle = quads.mean(1, keepdim=True)[:, :, None] - quads[:, None]
    return (_cross(sides, to_points) / _cross(sides, to_middle)).amin(-1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def likeliest_block(logits: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """The text block of each picture, (B, 4, 2), and how sure the network is of it, (B,) in 0..1.

    Of two plates the larger one is taken, and the one nearer to the middle where they are alike.
    """
    score = logits.float().sigmoid()
    size = quad_area(corners).clamp(min=1e-6).sqrt()
    away = (corners.mean(2) - 0.5).square().sum(-1)
    best = (score * size * torch.exp(-2 * away)).argmax(1)
    chosen = corners.gather(1, best[:, None, None, None].expand(-1, 1, 4, 2))[:, 0]
    spread = chosen.amax(1) - chosen.amin(1)
    near = ((corners.mean(2) - chosen.mean(1)[:, None]).abs() < spread[:, None] / 3).all(-1)
    weight = score.square() * near
    weight = weight / weight.sum(1, keepdim=True)
    return (weight[..., None, None] * corners).sum(1), (score * near).amax(1)


def quad_area(quads: Tensor) -> Tensor:
    """Of quadrilaterals (..., 4, 2): (...,), negative where they are mirrored."""
    return _cross(quads[..., 2, :] - quads[..., 0, :], quads[..., 3, :] - quads[..., 1, :]) / 2
