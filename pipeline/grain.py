"""grain: what is painted anew gets the noise of the photograph around it, and is compressed as photographs are.

Noise is measured where neither strokes nor their edges are, on the ground between them, and inside strokes where these are
wide enough. It is taken for Gaussian, alike over the plate but for this, and as coarse across and down as the
differences of neighbouring pixels say.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import cv2
import numpy as np

FEWEST = 40  # pairs of pixels that noise is measured by
LEVELS = 255
BLOCK = 16  # pixels that are compressed together
KEPT = 0.5  # of all differences, the smallest: the others may be of what is printed on the plate
MEAN_OF_KEPT = 0.3246  # of so many absolute values of a standard normal distribution
COARSEST = 0.9  # correlation of neighbours
LEAST = 0.3 / LEVELS  # deviation of brightness: less is no photograph's, and what it is of was never compressed
# Of what cameras write: it halves the resolution of colour. Edits of split train are told from photographs alike at 90 and 95.
QUALITY = 90
INSIDE, BESIDE = 0.9, 0.06  # of a mask: what is certainly stroke, and what certainly is none


@dataclass(frozen=True)
class Noise:
    """Gaussian noise.

    deviation: float (3,), of brightness and two differences of colour (YCrCb), of 0..1. likeness: correlation of neighbours
    across and down, 0..COARSEST.
    """

    deviation: np.ndarray
    likeness: tuple[float, float]


NO_NOISE = Noise(np.zeros(3), (0.0, 0.0))


@dataclass(frozen=True)
class Grain:
    """The noise of a plate's ground and of its strokes. seed: of the photograph."""

    ground: Noise
    ink: Noise
    seed: int


def grain_of(image: np.ndarray, strokes: np.ndarray, private: bool = False) -> Grain | None:
    """A photograph's grain; None where it has none, or shows too little ground to measure it on.

    image: uint8 (H, W, 3) RGB. strokes: float32 (H, W) in 0..1, the mask of strokes. private: it is one of whole cells. Beside
    these are borders and landscapes, which would be taken for noise, so there is none.
    """
    y, x = (np.flatnonzero((strokes > 0.5).any(axis)) for axis in (1, 0))
    if not len(y):
        return None
    part = np.s_[max(y[0] - 2, 0) : y[-1] + 3, max(x[0] - 2, 0) : x[-1] + 3]  # emblems are further off
    colours, mask, square = _ycrcb(image[part]), strokes[part], np.ones((3, 3), np.uint8)
    ground = _noise(colours, cv2.dilate(mask, square) < BESIDE)
    ink = None if private else _noise(colours, cv2.erode(mask, square) > INSIDE)
    ground = ground or ink
    if ground is None or ground.deviation[0] < LEAST:
        return None
    noises = (NO_NOISE, NO_NOISE) if private else (ground, ink or ground)
    return Grain(*noises, zlib.crc32(image.tobytes()))


def _ycrcb(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image.astype(np.float32) / LEVELS, cv2.COLOR_RGB2YCrCb)


def _noise(colours: np.ndarray, where: np.ndarray) -> Noise | None:
    """Of pixels, float32 (H, W, 3), where they count, bool (H, W); None of too few.

    For Gaussian noise of neighbours alike by r, the differences at a distance of two vary by 1 + r + r^2 + r^3 times what
    those at a distance of one do.
    """
    variances, likeness = [], []
    for axis in (1, 0):
        near, far = (_variance(colours, where, axis, lag) for lag in (1, 2))
        if near is None or far is None:
            return None
        r = np.linspace(0, COARSEST, 91)
        likeness.append(float(np.interp(far[0] / max(near[0], 1e-9), 1 + r + r**2 + r**3, r)))
        variances.append(near / (2 * (1 - likeness[-1])))
    across, down = likeness
    return Noise(np.sqrt(np.mean(variances, 0)), (across, down))


def _variance(colours: np.ndarray, where: np.ndarray, axis: int, lag: int) -> np.ndarray | None:
    """Float (3,), of the differences of pixels lag apart, which outliers hardly move; None of too few."""
    a, b = (np.moveaxis(colours, axis, 0)[part] for part in (np.s_[lag:], np.s_[:-lag]))
    both = np.moveaxis(where, axis, 0)
    both = both[lag:] & both[:-lag]
    if both.sum() < FEWEST:
        return None
    apart = np.abs(a[both] - b[both])
    kept = int(KEPT * len(apart))
    return (np.partition(apart, kept, axis=0)[:kept].mean(0) / MEAN_OF_KEPT) ** 2


def grained(picture: np.ndarray, changed: np.ndarray, strokes: np.ndarray, grain: Grain, text: str) -> np.ndarray:
    """A picture, float32 (H, W, 3) in 0..1, with grain and traces of compression where it was changed.

    changed, strokes: float32 (H, W) in 0..1. Where changed is 0 nothing is touched. The same for the same text.
    """
    y, x = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
    if not len(y):
        return picture
    part = np.s_[y[0] // BLOCK * BLOCK : y[-1] + 1, x[0] // BLOCK * BLOCK : x[-1] + 1]
    some, share = picture[part], changed[part][..., None]
    rng = np.random.default_rng([grain.seed, zlib.crc32(text.encode())])
    noise = _drawn(grain.ground, some.shape[:2], rng)
    if grain.ink is not grain.ground:
        noise += strokes[part][..., None] * (_drawn(grain.ink, some.shape[:2], rng) - noise)
    noisy = some + share * _rgb(noise)
    coded = compressed((noisy.clip(0, 1) * LEVELS).round().astype(np.uint8))
    result = picture.copy()
    result[part] += share * (coded.astype(np.float32) / LEVELS - some)
    return result.clip(0, 1)


def _drawn(noise: Noise, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Noise, float32 (*size, 3) in YCrCb."""
    if not noise.deviation.any():
        return np.zeros((*size, 3), np.float32)
    white = rng.standard_normal((*size, 3), np.float32)
    across, down = (_kernel(r) for r in noise.likeness)
    coarse = cv2.sepFilter2D(white, -1, across, down, borderType=cv2.BORDER_REFLECT_101)
    left = np.sqrt((across**2).sum() * (down**2).sum())  # of the deviation of white noise
    return coarse * (noise.deviation / left).astype(np.float32)


def _kernel(likeness: float) -> np.ndarray:
    """A Gaussian that makes neighbours in white noise alike by so much, float64 (n, 1)."""
    deviation = max((-1 / (4 * np.log(max(likeness, 1e-6)))) ** 0.5, 0.05)
    return cv2.getGaussianKernel(2 * int(np.ceil(3 * deviation)) + 1, deviation)


def _rgb(noise: np.ndarray) -> np.ndarray:
    """Differences in YCrCb as differences in RGB (ITU-R BT.601)."""
    y, cr, cb = np.moveaxis(noise, 2, 0)
    return np.stack([y + 1.403 * cr, y - 0.714 * cr - 0.344 * cb, y + 1.773 * cb], 2)


def compressed(image: np.ndarray, quality: int = QUALITY) -> np.ndarray:
    """uint8 (H, W, 3), as it comes out of a JPEG file with colour at half the resolution (4:2:0)."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    return cv2.imdecode(cv2.imencode(".jpg", image[..., ::-1], settings)[1], cv2.IMREAD_COLOR)[..., ::-1]
