"""evaluate realism: what looks alike is not told apart, what does not is; sources that are tested are not learned from."""

import cv2
import numpy as np
import pytest

from platemint.pipeline.evaluate import realism
from platemint.pipeline.evaluate.realism import Pictures, auc, cut_pictures, told_apart
from platemint.pipeline.plate import PlatemintError


def pictures(count: int, blur: float, seed: int) -> Pictures:
    images = np.random.default_rng(seed).integers(0, 255, (count, 24, 24, 3)).astype(np.uint8)
    return Pictures(np.stack([cv2.GaussianBlur(i, (0, 0), blur) if blur else i for i in images]), np.arange(count))


def test_blurred_pictures_are_told_from_others_and_equal_ones_are_not(monkeypatch):
    monkeypatch.setattr(realism, "BATCH", 16)
    real = pictures(120, 0, 1)
    assert told_apart(real, pictures(120, 1, 2), 20, 0)["auc"] > 0.95
    figure = told_apart(real, real, 20, 0)
    assert figure["auc"] == 0.5 and figure["low"] <= 0.5 <= figure["high"]


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 40), rng.integers(3, 12, 30)
    assert auc(a, b) == pytest.approx(((b[:, None] > a) + (b[:, None] == a) / 2).mean())


@pytest.mark.parametrize("size", [(12, 40), (24, 94), (150, 300)])
def test_patches_of_any_plate_are_cut_around_its_strokes(size):
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 2, size[1] // 2] = 255
    image = mask[..., None].repeat(3, 2)
    found = cut_pictures([(image, mask, 7), (image, np.zeros_like(mask), 8)], 0)
    assert found["patches"].images.shape == (realism.PATCHES, 24, 24, 3) and (found["patches"].source == 7).all()
    assert (found["patches"].images.reshape(realism.PATCHES, -1).max(1) == 255).all()
    assert found["plates"].source.tolist() == [7, 8]


def test_too_few_plates_are_refused():
    with pytest.raises(PlatemintError, match="too few"):
        told_apart(pictures(20, 0, 1), pictures(20, 1, 2), 1, 0)
