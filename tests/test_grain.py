"""grain: noise is found as strong and as coarse as it is, put where something was painted, and nowhere else."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from platemint.pipeline.grain import grain_of, grained

SIZE = 96, 320
SOFT = 0.8  # deviation, in pixels, of the kernel that makes noise coarse
LIKENESS = np.exp(-1 / (4 * SOFT**2))  # of neighbours, after it


def noise(deviation, seed, soft=0.0):
    white = np.random.default_rng(seed).standard_normal((*SIZE, 1), np.float32).repeat(3, 2)
    coarse = cv2.GaussianBlur(white, (0, 0), soft) if soft else white
    return coarse / coarse.std() * deviation


def bars(width=24):
    """A mask of six bars, float32."""
    mask = np.zeros(SIZE, np.float32)
    for left in range(20, 300, 50):
        mask[20:76, left : left + width] = 1
    return cv2.GaussianBlur(mask, (0, 0), 0.7)


def photograph(ground=0.02, ink=0.02, soft=0.0, colour=(0.2, 0.2, 0.2)):
    """uint8: bars on a light plate, each with noise of such deviations."""
    mask = bars()[..., None]
    flat = 0.8 * (1 - mask) + np.array(colour, np.float32) * mask
    grainy = flat + noise(ground, 1, soft) * (1 - mask) + noise(ink, 2, soft) * mask
    return (grainy.clip(0, 1) * 255).round().astype(np.uint8)


@pytest.mark.parametrize("soft", [0.0, SOFT])
def test_noise_is_found_as_strong_and_as_coarse_as_it_is(soft):
    grain = grain_of(photograph(0.03, 0.015, soft), bars())
    assert grain.ground.deviation[0] == pytest.approx(0.03, rel=0.2)
    assert grain.ink.deviation[0] == pytest.approx(0.015, rel=0.25)
    assert grain.ground.likeness == pytest.approx([LIKENESS if soft else 0] * 2, abs=0.12)
    assert (grain.ground.deviation[1:] < 0.003).all()  # it has no colour


def test_what_is_printed_beside_the_characters_is_not_taken_for_noise():
    plain = photograph()
    printed = plain.copy()
    for top in range(24, 72, 12):
        printed[top : top + 6, 46:68] = (200, 40, 40)  # an emblem between two bars
    a, b = (grain_of(image, bars()).ground.deviation for image in (plain, printed))
    assert b == pytest.approx(a, rel=0.3, abs=0.002)


def test_a_drawn_picture_has_no_grain_and_neither_has_one_without_strokes():
    assert grain_of(photograph(0, 0), bars()) is None
    assert grain_of(photograph(), np.zeros(SIZE, np.float32)) is None
    assert grain_of(photograph()[:8, :8], bars()[20:28, 20:28]) is None  # strokes everywhere, and few pixels


@pytest.mark.parametrize("soft", [0.0, SOFT])
def test_painted_parts_become_as_noisy_as_the_photograph_and_others_stay(soft):
    grain = grain_of(photograph(0.03, 0.015, soft), bars())
    flat = np.full((*SIZE, 3), 0.5, np.float32)
    changed, strokes = np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32)
    changed[10:80, 60:250] = 1
    strokes[:, 150:] = 1
    result = grained(flat, changed, strokes, grain, "AB1")
    assert (result[changed == 0] == 0.5).all() and result.dtype == np.float32
    ground, ink = (result[10:80, part].mean(2).std() for part in (np.s_[60:145], np.s_[155:250]))
    assert ground == pytest.approx(0.03, rel=0.25) and ink == pytest.approx(0.015, rel=0.3)
    assert np.array_equal(result, grained(flat, changed, strokes, grain, "AB1"))
    for other in (grained(flat, changed, strokes, grain, "AB2"),
                  grained(flat, changed, strokes, replace(grain, seed=1), "AB1")):  # fmt: skip
        assert np.corrcoef((other - flat)[changed > 0].ravel(), (result - flat)[changed > 0].ravel())[0, 1] < 0.1
    untouched = np.zeros(SIZE, np.float32)
    assert np.array_equal(grained(flat, untouched, strokes, grain, "AB1"), flat)


def test_grey_photographs_stay_grey():
    grain = grain_of(photograph(), bars())
    result = grained(np.full((*SIZE, 3), 0.5, np.float32), np.ones(SIZE, np.float32), bars(), grain, "A")
    levels = (result * 255).round()
    assert (np.ptp(levels, axis=2) == 0).all() and levels.std() > 2


def test_colour_is_as_coarse_as_in_a_compressed_photograph():
    """A red edge on grey: brightness may change within a pixel, colour only within two or more."""
    grain = grain_of(photograph(0.004, 0.004), bars())
    picture = np.full((*SIZE, 3), 0.5, np.float32)
    picture[:, 101:] = (0.8, 0.35, 0.35)
    result = grained(picture, np.ones(SIZE, np.float32), np.zeros(SIZE, np.float32), grain, "A")
    before, after = (np.abs(np.diff(some[..., 0] - some[..., 2], axis=1)).mean(0).max() for some in (picture, result))
    assert after < 0.7 * before


def test_private_grain_is_compression_alone():
    cells = cv2.dilate(bars(), np.ones((5, 5), np.uint8))
    grain = grain_of(photograph(0.03, 0.03), cells, private=True)
    changed, flat = np.ones(SIZE, np.float32), np.full((*SIZE, 3), 0.5, np.float32)
    assert np.abs(grained(flat, changed, bars(), grain, "A") - flat).max() < 0.01
    sharp = flat * (1 - bars()[..., None]) + (0.8, 0.2, 0.2) * bars()[..., None]
    assert np.abs(grained(sharp.astype(np.float32), changed, bars(), grain, "A") - sharp).max() > 0.02
    assert grain_of(photograph(0, 0), cells, private=True) is None
