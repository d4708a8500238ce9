"""edges: new strokes as steep at their edges as the photograph's own.

Masks are drawn at the network's size. In a larger picture their edges are softer than the photograph's strokes.
"""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

MIDDLE = 0.42  # of a mask: what becomes a half where edges are made steeper; lower, so that faint strokes do not vanish
STEEPEST = 2.5  # times as steep as drawn: more tears strokes of which the network is not sure


def slope_of(source: Tensor, filled: Tensor, B_s: Tensor, ink: Tensor, scale: float) -> float:
    """How steep the edges of a photograph's strokes are (see `steepness`), as `steepened` takes it.

    source, filled, ink: float (1, 3, H, W); B_s: float (1, 1, H, W) in 0..1; all at the picture's size. scale: pixels of it in one
    of the mask as it was drawn.
    """
    return steepness(_share(source, filled, ink), B_s, _reach(scale))


def steepened(B_t: Tensor, slope: float, scale: float) -> Tensor:
    """B_t, float (1, 1, H, W) in 0..1, with edges as steep as the source's strokes have, where these are steeper.

    Zero stays zero.
    """
    times = min(max(slope / max(steepness(B_t, B_t, _reach(scale)), 1e-3), 1.0), STEEPEST)
    shift = min(0.5 - MIDDLE * times, 0.0)  # zero stays zero
    return (B_t * times + shift).clamp(0, 1) if times > 1 else B_t


def _reach(scale: float) -> int:
    return max(1, round(scale))


def steepness(picture: Tensor, mask: Tensor, reach: int) -> float:
    """Mean, over a mask's contour, of the steepest gradient within reach, a pixel; 0 without strokes.

    picture, mask: float (1, 1, H, W). Gradients are Sobel's.
    """
    strokes = (mask[0, 0].numpy() > 0.5).astype(np.uint8)
    contour = cv2.morphologyEx(strokes, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    x, y = (cv2.Sobel(picture[0, 0].numpy(), cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    around = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return cv2.mean(cv2.dilate(cv2.magnitude(x, y), around), contour)[0]


def _share(source: Tensor, filled: Tensor, ink: Tensor) -> Tensor:
    """How much of each pixel is ink, by its colour: float (1, 1, H, W), a little beyond 0..1."""
    axis = ink - filled
    along = ((source - filled) * axis).sum(1, keepdim=True)
    return (along / (axis**2).sum(1, keepdim=True).clamp(min=1e-3)).clamp(-0.2, 1.2)
