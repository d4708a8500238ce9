"""alignment: where the characters of a text stand in a picture, by the reader."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from platemint.models.reader import Reader, align
from platemint.models.spg import encode_texts
from platemint.pipeline.networks import autocast, network_input
from platemint.pipeline.plate import SEPARATORS, characters

# A reader may predict a character without seeing it, as 皖 in a corpus that has no other province. Its place counts only
# where the reader finds it again in the same picture, padded on the left.
PADDED = (0.15, 0.05)  # of the width, to the left and right
ELSEWHERE = 0.6  # of that distance: as far off is the place of another character, or of an emblem
AGREE = 0.35  # of the distance of neighbours: so far apart two readings may place a character


@dataclass(frozen=True)
class Standing:
    """Where a source's characters, separators left out, stand by the reader.

    known: float32 (n,), parts of the picture's width, nan where two readings disagree. places: the same, continued
    from neighbours where unknown. lower: bool (n,), those of a second row. looked_at: float32 (48, 160), how much the
    reading depends on each pixel.
    """

    known: np.ndarray
    places: np.ndarray
    lower: np.ndarray
    looked_at: np.ndarray


def standing(
    reader: Reader, pictures: list[np.ndarray], texts: list[str], device: torch.device, dtype: torch.dtype
) -> list[Standing | None]:
    """Where the characters of each picture, uint8 (h, w, 3), stand, None where none can be placed."""
    steps = reader.config.width // 4  # a row
    codes = encode_texts([characters(text) for text in texts], reader.config.alphabet).to(device)
    seen, looked_at = _aligned(reader, pictures, codes, device, dtype)
    left, right = PADDED
    wider, _ = _aligned(reader, [_padded(picture) for picture in pictures], codes, device, dtype)
    first, second = (seen % steps) / steps, (wider % steps) / steps * (1 + left + right) - left
    counts = (codes > 0).sum(1).tolist()
    return [_standing(first[i, :n], second[i, :n], seen[i, :n] >= steps, looked_at[i]) for i, n in enumerate(counts)]


def elsewhere(places: np.ndarray, others: np.ndarray) -> bool:
    """Whether some characters' places, both (n,) and nan where unknown, are so far apart that they are another's."""
    return bool((np.abs(places - others) > ELSEWHERE * pitch(others)).any())


def known_places(places: list[np.ndarray | None], longest: int) -> Tensor:
    """float32 (B, longest), nan where nothing is known."""
    table = torch.full((len(places), longest), torch.nan)
    for row, known in zip(table, places):
        if known is not None:
            row[: len(known)] = torch.from_numpy(known)
    return table


def spread_over_text(places: np.ndarray, text: str) -> np.ndarray:
    """Places of a text's characters with nan for its separators in between: float32 (len(text),)."""
    rest = iter(places)
    return np.array([np.nan if c in SEPARATORS else next(rest) for c in text], np.float32)


def _padded(picture: np.ndarray) -> np.ndarray:
    left, right = (round(part * picture.shape[1]) for part in PADDED)
    return cv2.copyMakeBorder(picture, 0, 0, left, right, cv2.BORDER_REPLICATE)


def _aligned(reader: Reader, pictures: list[np.ndarray], codes, device, dtype) -> tuple[np.ndarray, np.ndarray]:
    """Each character's time step (B, N), and how much their likelihood depends on each pixel (B, height, width)."""
    seen = network_input(pictures, reader.config.height, reader.config.width, device).requires_grad_(True)
    with torch.enable_grad(), autocast(device, dtype):
        steps = reader(seen).float()
        found = align(steps.detach(), codes)
        at = found.round().long()[:, :, None].expand(-1, -1, steps.shape[2])
        chosen = steps.gather(1, at).gather(2, codes[:, :, None])[..., 0]
        (grown,) = torch.autograd.grad((chosen * (codes > 0)).sum(), seen)
    return found.cpu().numpy(), grown.abs().sum(1).float().cpu().numpy()


def _standing(first: np.ndarray, second: np.ndarray, lower: np.ndarray, looked_at: np.ndarray) -> Standing | None:
    places = first.astype(np.float32)
    for row in {*lower.tolist()}:
        at = np.flatnonzero(lower == row)
        places[at] = _continued(first[at], second[at])
    if np.isnan(places).any():
        return None
    agreed = np.where(np.abs(first - places) < 1e-6, places, np.nan).astype(np.float32)
    return Standing(agreed, places, lower, looked_at)


def _continued(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Places on which both readings agree, and the others as far from the nearest of them as characters are apart."""
    apart_by = pitch(first)
    known = np.flatnonzero(np.abs(first - second) < AGREE * apart_by)
    if not len(known):
        return np.full_like(first, np.nan)
    index = np.arange(len(first))
    nearest = known[np.abs(index[:, None] - known).argmin(1)]
    apart = pitch(first[known]) if len(known) > 1 else apart_by
    return np.where(np.isin(index, known), first, first[nearest] + (index - nearest) * apart)


def pitch(places: np.ndarray) -> float:
    """Median distance of neighbours, in the unit of places, (n,); 1/8 where there is one alone."""
    return float(np.median(np.diff(places))) if len(places) > 1 else 1 / 8
