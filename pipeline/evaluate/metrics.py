"""What an edit is measured by: its likeness to a known truth, and figures that need none. Pictures in, numbers out."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from platemint.models.losses import mask_iou
from platemint.models.spg import region
from platemint.pipeline.networks import resize
from platemint.pipeline.plate import Plate

# ------------------------------------------------------------------------- figures of a picture whose truth is known

BEST_PSNR = 100.0  # dB, given for equal pictures: infinity has no mean
LUMA = np.array([0.299, 0.587, 0.114])
MS_SSIM_SIZE = (192, 640)  # the network's shape; five scales of an 11-pixel window need more than 160 pixels


def mean_squared_error(picture: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> float:
    """Mean squared difference over pixels and channels, of values in 0..1: 0..1.

    picture, truth: uint8 (H, W, 3) RGB. where: bool (H, W), pixels that count (all), nan where there is none.
    Source: evaluation.py of qqqyd/MOSTEL (Qu et al., AAAI 2023), there over the whole picture only. It stretches both
    pictures to the truth's size with the sides swapped, by an oversight; here they are compared as they are.
    """
    error = ((picture.astype(np.float64) - truth) / 255) ** 2
    counted = error if where is None else error[where]
    return float(counted.mean()) if counted.size else float("nan")


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio 10 log10(1 / MSE) in dB, at most BEST_PSNR.

    Source: as `mean_squared_error`; a mean is taken over the pictures' ratios. MOSTEL leaves equal pictures out.
    """
    return min(BEST_PSNR, float(-10 * np.log10(max(mse, 1e-300)))) if mse == mse else mse


def luma(picture: np.ndarray) -> np.ndarray:
    """Brightness (ITU-R BT.601) of uint8 (H, W, 3) RGB: float64 (H, W), 0..255, not rounded."""
    return picture @ LUMA


def similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean structural similarity, and the mean of its contrast and structure terms alone: each -1..1.

    a, b: float64 (H, W), 0..255, of 11 pixels a side at least. Source: Wang et al., IEEE TIP 2004: Gaussian window of
    11 pixels and deviation 1.5, K1 0.01, K2 0.03, whole windows only.
    """
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b, aa, bb, ab = (cv2.GaussianBlur(x, (11, 11), 1.5)[5:-5, 5:-5] for x in (a, b, a * a, b * b, a * b))
    contrast = (2 * (ab - mean_a * mean_b) + c2) / (aa - mean_a**2 + bb - mean_b**2 + c2)
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((light * contrast).mean()), float(contrast.mean())


def mostel_ssim(picture: np.ndarray, truth: np.ndarray) -> float:
    """What MOSTEL and those who compare with it report as SSIM, -1..1; uint8 (H, W, 3) RGB of equal size.

    Source: evaluation.py of qqqyd/MOSTEL. Written as multi-scale SSIM over five scales, it never passes the halved
    pictures on, so that all five are the full scale: |C|^0.8668 x |S|^0.1333 x sign(S) with S and C of `similarity`,
    on unrounded brightness. Kept as it is, since published figures are this one.
    """
    whole, contrast = similarity(luma(picture), luma(truth))
    return float(abs(contrast) ** (0.0448 + 0.2856 + 0.3001 + 0.2363) * abs(whole) ** 0.1333 * np.sign(whole))


def ms_ssim(picture: np.ndarray, truth: np.ndarray) -> float:
    """Multi-scale structural similarity, 0..1; uint8 (H, W, 3) RGB of equal size.

    Source: Wang et al., Asilomar 2003, five scales with the published weights, by pytorch-msssim; on the brightness of
    both pictures stretched to MS_SSIM_SIZE, since most plates are too low for five scales.
    """
    import pytorch_msssim

    sides = (torch.from_numpy(resize(luma(p).astype(np.float32), *MS_SSIM_SIZE))[None, None] for p in (picture, truth))
    return float(pytorch_msssim.ms_ssim(*sides, data_range=255))


def distance(features: list[Tensor], truth: list[Tensor]) -> list[float]:
    """How differently a reader sees pictures and truths, each 0 (alike) .. 4 a level.

    features: levels float (B, C, h, w), of `Reader.features`. Source: Zhang et al., The unreasonable effectiveness of
    deep features as a perceptual metric, CVPR 2018, equation 1 with all weights 1: squared differences of features
    scaled to length 1 over the channels, averaged over positions, summed over levels; but features of our reader.
    """
    levels = [(F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)) for a, b in zip(features, truth)]
    return sum((a - b).square().sum(1).mean((1, 2)) for a, b in levels).tolist()


def likeness(picture: np.ndarray, truth: np.ndarray, edited: np.ndarray) -> dict[str, float]:
    """Every figure of a picture beside its truth, uint8 (H, W, 3) RGB. edited: bool (H, W), pixels an edit changes."""
    whole, inside = mean_squared_error(picture, truth), mean_squared_error(picture, truth, edited)
    return {
        "mse": whole,
        "psnr": psnr(whole),
        "ssim": mostel_ssim(picture, truth),
        "ms_ssim": ms_ssim(picture, truth),
        "region_mse": inside,
        "region_psnr": psnr(inside),
    }


def edited_region(source_mask: np.ndarray, target_mask: np.ndarray) -> np.ndarray:
    """The pixels a true edit changes by more than half: bool (H, W). Masks uint8 (H, W), 0..255."""
    return (region(unit_mask(source_mask), unit_mask(target_mask)) > 0.5)[0, 0].numpy()


def mask_overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of uint8 masks (H, W) cut at a half: 0..1 (`models.losses.mask_iou`)."""
    return float(mask_iou(unit_mask(mask), unit_mask(truth)))


def unit_mask(mask: np.ndarray) -> Tensor:
    """uint8 (H, W) -> float32 (1, 1, H, W) in 0..1."""
    return torch.from_numpy(mask.astype(np.float32) / 255)[None, None]


# --------------------------------------------------------------------------------------- figures that need no truth


def outside_change(plate: Plate) -> tuple[float, float]:
    """Mean and largest difference of edit and original, 0..255, over the pixels the edit's region leaves alone.

    The plate's masks are rounded to 8 bits: a step more is taken for the region. 0, 0 where it covers everything.
    """
    masks = (unit_mask(mask) + 1 / 255 for mask in (plate.source_mask, plate.target_mask))
    outside = (region(*masks) == 0)[0, 0].numpy()
    change = np.abs(plate.image.astype(np.int16) - plate.original)[outside]
    return (float(change.mean()), float(change.max())) if change.size else (0.0, 0.0)


def ink_colour(picture: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """CIELAB (L 0..100, a, b; D65) of the median colour under a mask: float32 (3,), None where the mask is empty.

    picture: uint8 (H, W, 3) sRGB. mask: uint8 (H, W), cut at a half.
    """
    under = picture[mask > 127]
    if not len(under):
        return None
    return cv2.cvtColor((np.median(under, 0)[None, None] / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[0, 0]


def colour_difference(a: np.ndarray | None, b: np.ndarray | None) -> float:
    """CIE 1976 delta E*ab of two CIELAB colours: their Euclidean distance, about 2.3 just noticeable; nan for None."""
    return float("nan") if a is None or b is None else float(np.linalg.norm(a - b))


def stroke_width(mask: np.ndarray) -> float:
    """Mean width of a mask's strokes in pixels, 2 x area / perimeter; nan where it is empty. uint8 (H, W), cut at half.

    The perimeter is the total variation of the cut mask (coarea formula; Rudin, Osher and Fatemi, 1992), by forward
    differences. A bar of width w and length l gives w / (1 + w / l).
    """
    cut = np.pad((mask > 127).astype(np.float64), 1)
    across, down = np.diff(cut, axis=1)[:-1], np.diff(cut, axis=0)[:, :-1]
    return float(2 * cut.sum() / np.hypot(across, down).sum()) if cut.any() else float("nan")
