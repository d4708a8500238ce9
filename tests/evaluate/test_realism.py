"""evaluate realism: what looks alike is not told apart, what does not is; sources that are tested are not learned from."""

import sys
from functools import partial

import cv2
import numpy as np
import pytest

from platemint.pipeline.evaluate import features, realism
from platemint.pipeline.evaluate.realism import (
    Pictures,
    auc,
    cut_pictures,
    evaluate_realism,
    frechet,
    frechet_of_halves,
    linear_classifier,
    realism_as_text,
    told_apart,
    train_classifier,
)
from platemint.pipeline.plate import Plate, PlatemintError


def pictures(count: int, blur: float, seed: int) -> Pictures:
    images = np.random.default_rng(seed).integers(0, 255, (count, 24, 24, 3)).astype(np.uint8)
    return Pictures(np.stack([cv2.GaussianBlur(i, (0, 0), blur) if blur else i for i in images]), np.arange(count))


def contrasts(images: np.ndarray) -> np.ndarray:
    """Stand-ins for a recogniser's features: three numbers of each picture, which a blur changes."""
    images = images.astype(float)
    return np.stack([images.mean((1, 2, 3)), images.std((1, 2, 3)), np.abs(np.diff(images, axis=2)).mean((1, 2, 3))], 1)


def seen(some: Pictures) -> Pictures:
    return Pictures(contrasts(some.values), some.source)


@pytest.mark.parametrize(
    "of, fit", [(lambda p: p, partial(train_classifier, steps=20, seed=0)), (seen, linear_classifier)]
)
def test_blurred_pictures_are_told_from_others_and_equal_ones_are_not(monkeypatch, of, fit):
    monkeypatch.setattr(realism, "BATCH", 16)
    real = of(pictures(120, 0, 1))
    assert told_apart(real, of(pictures(120, 1, 2)), fit, 0)["value"] > 0.95
    figure = told_apart(real, real, fit, 0)
    assert figure["value"] == 0.5 and figure["low"] <= 0.5 <= figure["high"]


def test_sources_that_are_tested_are_not_learned_from():
    """Whoever learns a source by heart knows nothing of another one."""
    learned, asked = set(), set()

    def by_heart(real, made):
        learned.update(real[:, 0])
        return lambda features: (asked.update(features[:, 0]), np.zeros(len(features)))[1]

    numbered = Pictures(np.arange(120.0)[:, None], np.repeat(np.arange(60), 2))
    told_apart(numbered, numbered, by_heart, 0)
    assert not {n // 2 for n in learned} & {n // 2 for n in asked} and len(learned | asked) == 120


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 40), rng.integers(3, 12, 30)
    assert auc(a, b) == pytest.approx(((b[:, None] > a) + (b[:, None] == a) / 2).mean())


def test_frechet_distance_of_sets_whose_distance_is_known():
    """Scaled by s and moved by m: |mean' - mean|^2 + (s - 1)^2 trace(C)."""
    a = np.random.default_rng(0).normal(size=(200, 5)) @ np.random.default_rng(1).normal(size=(5, 5))
    moved = ((2 * a + 3).mean(0) - a.mean(0)) @ ((2 * a + 3).mean(0) - a.mean(0))
    assert frechet(a, 2 * a + 3) == pytest.approx(moved + np.trace(np.cov(a, rowvar=False)))
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)


def test_a_distance_is_of_other_sources_and_photographs_have_the_least():
    real = seen(pictures(120, 0, 1))
    floor, copy = (
        frechet_of_halves(real, real, 0),
        frechet_of_halves(real, Pictures(real.values.copy(), real.source), 0),
    )
    assert 0 < floor["low"] <= floor["value"] <= floor["high"] and copy == floor
    blurred = seen(pictures(120, 1, 2))
    assert frechet_of_halves(real, blurred, 0)["low"] > 10 * floor["high"]
    scaled = [Pictures(some.values * 7, some.source) for some in (real, blurred)]  # as another layer's would be
    assert frechet_of_halves(*scaled, 0)["value"] == pytest.approx(frechet_of_halves(real, blurred, 0)["value"])


@pytest.mark.parametrize("size", [(12, 40), (24, 94), (150, 300)])
def test_patches_of_any_plate_are_cut_around_its_strokes(size):
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 2, size[1] // 2] = 255
    image = mask[..., None].repeat(3, 2)
    found = cut_pictures([(image, mask, 7), (image, np.zeros_like(mask), 8)], 0)
    assert found["patches"].values.shape == (realism.PATCHES, 24, 24, 3) and (found["patches"].source == 7).all()
    assert (found["patches"].values.reshape(realism.PATCHES, -1).max(1) == 255).all()
    assert found["plates"].source.tolist() == [7, 8]


def test_too_few_plates_are_refused():
    with pytest.raises(PlatemintError, match="too few"):
        told_apart(pictures(20, 0, 1), pictures(20, 1, 2), linear_classifier, 0)


def test_every_measure_stands_beside_rendered_and_recompressed_plates():
    """Edits that are blurred photographs: told apart, and farther off than photographs are from each other."""
    rng, mask, edits = np.random.default_rng(0), np.full((24, 80), 255, np.uint8), []
    for _ in range(40):
        photo = rng.integers(0, 255, (24, 80, 3)).astype(np.uint8)
        plate = Plate(cv2.GaussianBlur(photo, (0, 0), 2), "AB")
        plate.original, plate.source_mask, plate.target_mask = photo, mask, mask
        edits.append(plate)
    report = evaluate_realism(edits, 2, 0, contrasts)
    others = {"edits", "rendered", "recompressed"}
    kinds = {name: set(measure) for name, measure in report["measures"].items()}
    assert kinds == {"classifier": others, "linear": others, "frechet": others | {"photographs"}}
    assert report["measures"]["linear"]["edits"]["plates"]["value"] > 0.95
    far = report["measures"]["frechet"]
    assert far["edits"]["patches"]["low"] > far["photographs"]["patches"]["high"]
    text = realism_as_text(report)
    assert text.count("recompressed ") == 3 and text.count("photographs ") >= 1 and "0.5 is chance" in text
    assert set(evaluate_realism(edits, 1, 0, None)["measures"]) == {"classifier"}


# --------------------------------------------------------------------------------------------- the recogniser's features


def test_features_of_a_picture_depend_on_no_other_one():
    see = features.Features()
    images = np.random.default_rng(0).integers(0, 255, (features.BATCH + 1, 24, 24, 3)).astype(np.uint8)
    found = see(images)
    assert found.shape == (len(images), features.CHANNELS) and np.isfinite(found).all()
    assert see(images[-1:])[0] == pytest.approx(found[-1], abs=1e-4)
    assert see(np.zeros((1, 48, 160, 3), np.uint8)).shape == (1, features.CHANNELS)


def test_what_is_missing_is_named_with_the_remedy(monkeypatch, tmp_path):
    class Elsewhere:
        submodule_search_locations = [str(tmp_path)]

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "PP-OCRv6_rec_small.onnx").write_bytes(b"another one")
    for spec, said in ((None, "need rapidocr"), (Elsewhere, "this version does not have")):
        monkeypatch.setattr(features, "find_spec", lambda name, spec=spec: spec)
        with pytest.raises(PlatemintError, match=rf"{said}.*\[realism\].*--no-features"):
            features.Features()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(PlatemintError, match=r"need onnx and onnxruntime.*\[realism\]"):
        features.Features()
