"""Cells: the parts of a plate that an edit paints anew, chosen so that they reveal nothing of the old characters.

A character's own slot says what stands in it: a 1 is narrow, an L leans to the left. From the new characters' slots alone
a trained reader guesses 29 % of the old ones where 19 % is chance; from slots on an even row, 20 %.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

GAPS = 2  # in a row, at most: as in AB 123 CD
GAP = 0.06  # of the distance of neighbours: by so much a row has to fit worse without a gap for there to be one
WIDER = 1.1  # times the least distance of neighbours, that a gap is at least
FEW, EMBLEM = (
    4,
    1.7,
)  # rows of so few characters have gaps only where these are as wide as an emblem, times the least distance
OFF = 0.6  # of half a slot: what stands further off its place on an even row is not covered there


def even(slots: Tensor, text: Tensor, height: int, width: int) -> Tensor:
    """The slots of plates with the same characters' count and no character's own shape: all alike, evenly spaced.

    One row with up to two gaps, or two rows, is fitted to each plate's slots by least squares; along a row axes may grow
    as they do in perspective. slots: float (B, N, 3, 2), as in `models.spg`. text: int64 (B, N), 0-padded.
    height, width: of the picture.
    """
    size = torch.tensor([width, height], device=slots.device)
    n = (text > 0).sum(1)
    centres, axes, gaps, second = (table.to(slots.device)[n] for table in _rows(text.shape[1]))
    places = slots.float() * size
    centre, there = places[:, :, 0], text > 0
    right = F.normalize((places[:, :, 1] * there[..., None]).sum(1), dim=-1)
    steps = _steps(centre, right).masked_fill(~there[:, 1:], torch.nan)
    pitch = steps.abs().nanmedian(1).values.nan_to_num(1.0).clamp(min=1e-3)
    lower = torch.where((steps < 0).any(1), steps.nan_to_num(torch.inf).argmin(1) + 1, 0)
    fitted = _times(centres, centre[:, None])
    off = ((fitted - centre[:, None]) ** 2 * there[:, None, :, None]).sum((2, 3)) / (n.clamp(min=1) * pitch**2)[:, None]
    apart = _steps(fitted, right[:, None]).masked_fill(~there[:, None, 1:], torch.inf)
    least = apart.masked_fill(gaps, torch.inf).amin(2, keepdim=True)
    wider = torch.where(n > FEW, WIDER, EMBLEM)[:, None, None]
    narrow = (gaps & (apart < wider * least)).any(2)
    cost = (off + GAP**2 * gaps.sum(2)).masked_fill(narrow | (second != lower[:, None]), torch.inf)
    row, best = torch.arange(len(n), device=n.device), cost.argmin(1)
    alike = [_times(axes[row, best], places[:, :, k]) for k in (1, 2)]
    return torch.stack([fitted[row, best], *alike], 2) / size


def covering(own: Tensor, row: Tensor) -> Tensor:
    """The slots whose cells cover a plate's characters, (B, 2 N, 3, 2): an even row's, and those off it once more.

    own: where characters stand, row: where on an even row, (B, N, 3, 2) both. What stands off it is covered by a cell
    like all others, which does not have its own shape.
    """
    off = (own[:, :, 0, :1] - row[:, :, 0, :1]).abs() > OFF * row[:, :, 1, :1].abs()
    centre = torch.where(off, own[:, :, 0], row[:, :, 0])
    return torch.cat([row, torch.cat([centre[:, :, None], row[:, :, 1:]], 2)], 1)


def _steps(centres: Tensor, right: Tensor) -> Tensor:
    """How far each of (..., N, 2) is to the right of the one before it: (..., N - 1)."""
    return ((centres[..., 1:, :] - centres[..., :-1, :]) * right[..., None, :]).sum(-1)


def _times(projections: Tensor, points: Tensor) -> Tensor:
    """(..., N, N) on (..., N, 2); not a matrix product, which autocast would round."""
    return (projections[..., None] * points[..., None, :, :]).sum(-2)


@lru_cache
def _rows(longest: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each count of characters the rows that they may stand in.

    Projections of their centres, and of their axes, on what such a row allows, float (1 + N, rows, N, N); which steps
    are gaps, bool (1 + N, rows, N - 1); the first character of a second row, int64 (1 + N, rows): 0 for none, -1 beyond
    the rows that there are.
    """
    rows = [[_row(n, longest, *kind) for kind in _kinds(n)] for n in range(longest + 1)]
    most = max(map(len, rows))
    none = torch.eye(longest), torch.eye(longest), torch.zeros(longest - 1, dtype=torch.bool), torch.tensor(-1)
    full = [layouts + [none] * (most - len(layouts)) for layouts in rows]
    centres, axes, gaps, second = (
        torch.stack([torch.stack([row[k] for row in layouts]) for layouts in full]) for k in range(4)
    )
    return centres, axes, gaps, second


def _kinds(n: int) -> list[tuple[tuple[int, ...], int]]:
    """Characters in front of which there is a gap, and the one that begins a second row, 0 for none."""
    few = min(GAPS, max(n > 2, n - 4))  # more, and each character would have its own place again
    gaps = [places for count in range(few + 1) for places in combinations(range(1, n), count)]
    return [(places, 0) for places in gaps] + [((), first) for first in range(1, n)]


def _row(n: int, longest: int, gaps: tuple[int, ...], second: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    index = torch.arange(n, dtype=torch.float64)
    one, below = torch.ones_like(index), (index >= second).double()
    if second:
        centres, axes = [1 - below, below, (1 - below) * index, below * index], [1 - below, below]
    else:
        centres, axes = [one, index, *((index >= gap).double() for gap in gaps)], [one, index]
    wide = torch.zeros(longest - 1, dtype=torch.bool)
    wide[[gap - 1 for gap in gaps]] = True
    return _projection(centres, longest), _projection(axes, longest), wide, torch.tensor(second)


def _projection(columns: list[Tensor], longest: int) -> Tensor:
    """On the space of the columns (n,), float (N, N); places beyond n stay."""
    basis, whole = torch.stack(columns, 1), torch.eye(longest)
    whole[: len(basis), : len(basis)] = (basis @ torch.linalg.pinv(basis)).float()
    return whole


def smooth(values: Tensor, weight: Tensor, deviation: float) -> Tensor:
    """Values (B, C, H, W) averaged around each pixel, as far as weight (B, 1, H, W) in 0..1 says that they count.

    Normalised convolution with a Gaussian. Source: Knutsson and Westin, CVPR 1993.
    """
    reach = round(3 * deviation)
    at = torch.arange(-reach, reach + 1, device=values.device)
    bell = torch.exp(-(at**2) / (2 * deviation**2))
    known = torch.cat([values * weight, weight], 1).float()
    for dim in (2, 3):
        known = _convolved(known, bell / bell.sum(), dim)
    return known[:, :-1] / known[:, -1:].clamp(min=1e-6)


def _convolved(values: Tensor, bell: Tensor, dim: int) -> Tensor:
    """Along one dimension, zeros beyond the border; as a product with a band matrix, which is fast at these sizes."""
    n = values.shape[dim]
    apart = torch.arange(n, device=values.device)[:, None] - torch.arange(n, device=values.device)
    reach = len(bell) // 2
    band = torch.where(apart.abs() <= reach, bell[(apart + reach).clamp(0, 2 * reach)], 0.0)
    with torch.autocast(values.device.type, enabled=False):
        return band @ values if dim == 2 else values @ band
