"""What training minimises. Masks (B, 1, H, W), pictures (B, 3, H, W), weights (B, 1, H, W); every loss is a scalar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dice(mask: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice overlap of soft masks, per picture: strokes count alike on large and small text."""
    both = (mask * truth).sum((1, 2, 3))
    return (1 - (2 * both + 1) / ((mask**2).sum((1, 2, 3)) + (truth**2).sum((1, 2, 3)) + 1)).mean()


def weighted_bce(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross entropy with strokes weighing three times the plate around them, which covers far more."""
    return F.binary_cross_entropy_with_logits(logits, truth, weight=1 + 2 * truth)


def laplacian(mask: Tensor, truth: Tensor, levels: int = 3) -> Tensor:
    """L1 over a Laplacian pyramid of the difference: edges at every scale."""
    difference, loss = mask - truth, 0.0
    for level in range(levels):
        coarse = F.avg_pool2d(difference, 2)
        up = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        loss = loss + 2**level * (difference - up).abs().mean()
        difference = coarse
    return loss + 2**levels * difference.abs().mean()


def mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """10 Dice + weighted BCE + 5 Laplacian L1: the SPG authors' mixture but for the last, which they weigh 50."""
    mask = logits.sigmoid()
    return 10 * dice(mask, truth) + weighted_bce(logits, truth) + 5 * laplacian(mask, truth)


def slot_loss(slots: Tensor, truth: Tensor, text: Tensor) -> Tensor:
    """L1 distance of predicted from true slots (B, N, 3, 2), over the characters there are."""
    there = (text > 0)[:, :, None, None]
    return ((slots - truth).abs() * there).sum() / (6 * there.sum()).clamp(min=1)


def pointer_loss(logits: Tensor, truth: Tensor, text: Tensor, height: int, width: int) -> Tensor:
    """Cross entropy of the image token, of height x width, that a character's true centre lies in.

    logits: (pointers, B, N, height * width); every pointer counts alike.
    """
    x, y = truth[:, :, 0].unbind(-1)
    token = (y * height).long().clamp(0, height - 1) * width + (x * width).long().clamp(0, width - 1)
    there = text > 0
    return sum(F.cross_entropy(pointer[there], token[there]) for pointer in logits) / len(logits)  # type: ignore[return-value]


def pointed_near(logits: Tensor, near: Tensor, text: Tensor) -> Tensor:
    """Minus the log-probability that a pointer picks one of the tokens `near`, bool (B, N, tokens), per picture (B,).

    logits: (pointers, B, N, tokens); pointers and characters count alike.
    """
    there = text > 0
    missed = logits.logsumexp(-1) - logits.masked_fill(~near, -1e4).logsumexp(-1)
    return (missed.mean(0) * there).sum(1) / there.sum(1).clamp(min=1)


def region_l1(picture: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference inside the edited region."""
    return ((picture - truth).abs() * weight).sum() / (3 * weight.sum()).clamp(min=1)


def perceptual(features: list[Tensor], truth: list[Tensor]) -> Tensor:
    """L1 between a reader's features of two pictures, each level weighing the same."""
    apart = ((a - b).abs().mean() / b.abs().mean().clamp(min=1e-3) for a, b in zip(features, truth))
    return sum(apart) / len(truth)  # type: ignore[return-value]


def hinge_real_fake(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's hinge loss on patch logits."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def mask_iou(mask: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of masks cut at a half, per picture (B,); 1 where both are empty."""
    a, b = mask > 0.5, truth > 0.5
    union = (a | b).sum((1, 2, 3))
    return torch.where(
        union > 0, (a & b).sum((1, 2, 3)) / union.clamp(min=1), torch.ones_like(union, dtype=torch.float)
    )
