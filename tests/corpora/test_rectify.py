"""Plates cut out of frames and put back: what nobody changed stays to the bit, what changed is where it was."""

import cv2
import numpy as np
import pytest

from platemint.pipeline.anonymize.replacement import redacted
from platemint.pipeline.corpora.datasets import Annotation
from platemint.pipeline.corpora.rectify import LEAST, MOST, overlapping, views_of

WIDTH, HEIGHT = 900, 640
FRAME = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def box(x1, y1, x2, y2):
    return (x1, y1), (x2, y1), (x2, y2), (x1, y2)


def tilted(x, y, width, height, degrees):
    turn = np.deg2rad(degrees)
    right, down = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    corners = [(x, y) + a * width * right + b * height * down for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
    return tuple(map(tuple, corners))


UPRIGHT = {"box": box(100, 200, 220, 240), "high": box(20, 100, 850, 500), "fractions": box(100.4, 200.2, 220.7, 240)}
TILTED = {
    "tilted": tilted(300, 200, 160, 40, 12),
    "steep": tilted(400, 100, 160, 40, 60),
    "keystone": ((100, 100), (300, 130), (300, 170), (100, 180)),
    "ten high": box(400, 300, 440, 310),
    "ten high, tilted": tilted(400, 300, 40, 10, -9),
    "400 high, tilted": tilted(60, 60, 700, 400, 5),
}
EDGES = {
    "corner": box(0, 0, 90, 30),
    "outside": box(-1, HEIGHT - 29, 80, HEIGHT + 1),
    "outside, tilted": tilted(WIDTH - 75, 5, 80, 30, -4),
    "ten high": box(WIDTH - 40, HEIGHT - 10, WIDTH + 1, HEIGHT + 1),
}
ODD = {
    "dented": ((100, 100), (200, 100), (120, 115), (100, 160)),
    "triangle": ((100, 100), (200, 100), (150, 150), (100, 200)),
    "a line": ((0, 100), (900, 101), (900, 101.5), (0, 100.4)),
    "bow": ((100, 100), (200, 150), (200, 100), (100, 170)),
}
ALL = {"crop": (), **UPRIGHT, **TILTED, **{f"edge, {k}": v for k, v in EDGES.items()}, **ODD}


def view_of(corners, frame=FRAME):
    return views_of([Annotation("", corners)], frame)[0]


def pasted(view, after, region, frame=FRAME):
    new, allowed = frame.copy(), np.zeros(frame.shape[:2], bool)
    view.paste(new, allowed, view.cut(frame), after, region)
    return new, allowed


@pytest.mark.parametrize("corners", ALL.values(), ids=ALL)
def test_an_unchanged_cut_leaves_every_pixel(corners):
    view = view_of(corners)
    cut = view.cut(FRAME)
    assert cut.shape == (*view.size[::-1], 3) and cut.shape[1] <= max(MOST * 1.2, WIDTH)
    assert (pasted(view, cut, np.ones(cut.shape[:2], bool))[0] == FRAME).all()


@pytest.mark.parametrize("corners", ALL.values(), ids=ALL)
def test_a_change_stays_where_it_is_allowed(corners):
    view = view_of(corners)
    cut = view.cut(FRAME)
    region = np.zeros(cut.shape[:2], bool)
    region[len(region) // 3 :, : cut.shape[1] // 2] = True
    new, allowed = pasted(view, 255 - cut, region)
    changed = (new != FRAME).any(2)
    x1, y1, x2, y2 = view.box
    assert changed.any() and not (changed & ~allowed).any()
    assert not np.delete(np.delete(changed, slice(y1, y2), 0), slice(x1, x2), 1).any()
    assert (new == pasted(view, np.where(region[..., None], 255 - cut, 0).astype(np.uint8), region)[0]).all()


@pytest.mark.parametrize("corners", [(), *UPRIGHT.values(), *list(EDGES.values())[:2]])
def test_an_upright_box_is_a_part_of_the_frame_as_it_is(corners):
    view = view_of(corners)
    x1, y1, x2, y2 = view.box
    assert view.matrix is None and (view.cut(FRAME) == FRAME[y1:y2, x1:x2]).all()


@pytest.mark.parametrize("corners", TILTED.values(), ids=TILTED)
def test_what_is_painted_on_a_cut_is_seen_there_again(corners):
    smooth = cv2.GaussianBlur(FRAME, (0, 0), 4)
    view = view_of(corners, smooth)
    cut = view.cut(smooth)
    h, w = cut.shape[:2]
    assert h >= LEAST
    ramp = np.dstack([np.tile(np.linspace(0, 255, w), (h, 1)), np.tile(np.linspace(255, 0, h)[:, None], (1, w))] * 2)
    after, region = ramp[..., :3].astype(np.uint8), np.ones((h, w), bool)
    seen = view.seen(smooth, cut, after, region).astype(int)
    inner = slice(h // 8, -(h // 8)), slice(h // 8, -(h // 8))
    assert abs(seen - after)[inner].max() <= 255 * 2 / h + 4
    assert (view.seen(smooth, cut, cut, region) == cut).all()


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"crop", "a line"}))
def test_of_a_redacted_plate_no_stroke_is_left(name):
    """Stripes finer than the cut can show, which a difference added to them would leave."""
    frame = np.zeros_like(FRAME)
    frame[:, ::4] = frame[::4] = 255
    view = view_of(ALL[name], frame)
    cut = view.cut(frame)
    new, _ = pasted(view, redacted(cut), np.ones(cut.shape[:2], bool), frame)
    plate = np.zeros(frame.shape[:2], np.uint8)
    cv2.fillPoly(plate, [np.array(ALL[name]).astype(int)], 1)
    patches = cv2.GaussianBlur(new, (0, 0), 3).astype(int)
    before, after = (abs(picture - patches)[plate > 0].mean() for picture in (frame, new))
    assert before > 80 and after < 16


def test_plates_that_share_pixels_are_told():
    annotations = [
        Annotation("", c)
        for c in (box(0, 0, 90, 30), box(60, 20, 150, 50), box(200, 0, 290, 30), tilted(300, 9, 90, 30, 9))
    ]
    assert overlapping(views_of(annotations, FRAME)) == [True, True, False, False]
    assert overlapping(views_of([Annotation("A"), Annotation("B", TILTED["steep"])], FRAME)) == [True, True]
    assert overlapping([]) == []
