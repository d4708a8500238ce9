"""find: crops of any margin are edited in a frame around the text; outside of it not a pixel changes."""

import cv2
import numpy as np
import pytest
import torch

from platemint.models.finder import Finder, FinderConfig, block_depth, likeliest_block, quad_area
from platemint.pipeline import text_frame
from platemint.pipeline.edit import Editor
from platemint.pipeline.filter import Filter
from platemint.pipeline.find import TextFinder
from platemint.pipeline.plate import Plate
from platemint.pipeline.recipe import Edit, Limits
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.render.surroundings import loose_crop
from platemint.pipeline.text_frame import (
    WHOLE,
    around,
    cut_out,
    fills,
    is_whole,
    part_of,
    points_in_picture,
    put_back,
    slots_in_picture,
    to_picture,
    usable,
)
from platemint.pipeline.train.finder import wanted

TILTED = np.array([[0.3, 0.42], [0.62, 0.5], [0.6, 0.72], [0.28, 0.6]], np.float32)


@pytest.fixture(scope="module")
def finder():
    return TextFinder(Edit())


@pytest.fixture(scope="module")
def loose():
    """Rendered plates in pictures several times as large, and their text blocks."""
    rng, layouts, found = np.random.default_rng(7), list(load_layouts().values()), []
    while len(found) < 40:
        photo, blocks = loose_crop(layouts, rng, wild=0.0)
        if (
            len(blocks) == 1
            and not fills(around(blocks[0], photo.image.shape[1::-1]))
            and np.ptp(blocks[0][:, 1]) > 0.1
        ):
            found.append((photo, blocks[0]))
    return found


def smooth(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 9, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


# ---------------------------------------------------------------------------------------------------------- geometry


def test_what_is_cut_comes_back_where_it_was():
    picture = smooth(120, 240)
    seen = cut_out(picture, TILTED, 48, 160)
    back = to_picture(np.float32(seen), TILTED, 120, 240, goes_on=False)
    inside = np.zeros((120, 240), np.uint8)
    cv2.fillConvexPoly(inside, (TILTED * (240, 120)).round().astype(np.int32), 1)
    sure = cv2.erode(inside, np.ones((9, 9))) > 0
    assert sure.sum() > 500 and np.abs(back[sure] - picture[sure]).mean() < 2
    assert not back[cv2.dilate(inside, np.ones((9, 9))) == 0].any()


def test_a_level_frame_shows_the_pixels_it_lies_on():
    """As OpenCV's resize of the same part: no half pixel is lost on the way."""
    picture = smooth(100, 300)
    frame = np.array([[60, 20], [220, 20], [220, 68], [60, 68]], np.float32) / (300, 100)
    assert np.abs(cut_out(picture, frame.astype(np.float32), 48, 160).astype(int) - picture[20:68, 60:220]).max() <= 1


@pytest.mark.parametrize("height, width", [(31, 77), (48, 160), (200, 500)])
def test_of_a_whole_picture_all_is_as_without_a_frame(height, width):
    picture, layer = smooth(height, width), np.random.default_rng(0).random((48, 160, 2), np.float32)
    assert np.array_equal(cut_out(picture, WHOLE, 48, 160), cut_out(picture, None, 48, 160))
    ways = [to_picture(layer, frame, height, width, goes_on=False) for frame in (WHOLE, None)]
    assert np.array_equal(*ways)
    plate = Plate(picture, "A1", frame=WHOLE)
    assert part_of(plate) is plate and put_back(plate, plate) is plate


def test_slots_of_a_frame_lie_at_the_same_places_of_the_picture():
    slots = np.array([[[0.2, 0.5], [0.05, 0.0], [0.0, 0.3]], [[0.7, 0.4], [0.05, 0.01], [0.0, 0.3]]], np.float32)
    there = slots_in_picture(slots, TILTED)
    assert np.allclose(there[:, 0], points_in_picture(slots[:, 0], TILTED), atol=1e-6)
    ends = points_in_picture(slots[:, 0] + slots[:, 1], TILTED)
    assert np.allclose(there[:, 0] + there[:, 1], ends, atol=2e-3)


def test_a_frame_has_its_margin_on_all_sides():
    block = np.array([[100, 50], [200, 50], [200, 70], [100, 70]], np.float32) / (400, 200)
    frame = around(block, (400, 200), (0.5, 0.25)) * (400, 200)
    assert np.allclose(frame, [[90, 45], [210, 45], [210, 75], [90, 75]], atol=1e-3)


@pytest.mark.parametrize(
    "block",
    [
        WHOLE[::-1],  # mirrored
        WHOLE[[0, 2, 1, 3]],  # crossed
        WHOLE * 1e-4,  # of no pixel
        WHOLE + 2,  # outside of the picture
        np.float32([[0, 0], [1, 0], [1, 1], [0.9, 0.05]]),  # dented
    ],
)
def test_a_shape_that_no_text_has_is_not_usable(block):
    assert not usable(block, (300, 100)) and usable(TILTED, (300, 100))


# ----------------------------------------------------------------------------------------------------------- network


def test_depth_is_one_in_the_middle_nought_on_the_border_and_below_outside():
    quad = torch.tensor([[[0.2, 0.2], [0.8, 0.3], [0.8, 0.7], [0.2, 0.6]]])
    points = torch.stack([quad[0].mean(0), quad[0, :2].mean(0), torch.tensor([0.5, 0.9])])
    middle, border, outside = block_depth(quad, points)[0].tolist()
    assert middle == pytest.approx(1) and border == pytest.approx(0, abs=1e-6) and outside < 0


def test_cells_that_say_what_they_shall_give_the_block_back():
    """Of two plates of equal shape the larger one is taken; of equal ones that nearer to the middle."""
    small, large = TILTED * 0.5, TILTED
    for blocks, expected in (((small, large), large), ((large - 0.25, large), large)):
        truth = torch.from_numpy(np.stack(blocks))[None]
        there, on, corners = wanted(truth, 200, (80, 160))
        quad, sure = likeliest_block(torch.where(on, 8.0, -8.0), corners)
        assert torch.allclose(quad[0], torch.from_numpy(expected), atol=1e-3) and sure > 0.9
        assert there[on].all() and on.sum() > 2


def test_every_block_has_a_cell_however_small():
    tiny = torch.from_numpy(TILTED * 0.02 + 0.313)[None, None]
    _, on, _ = wanted(tiny, 200, (80, 160))
    assert on.sum() == 1
    assert not wanted(torch.full((1, 2, 4, 2), torch.nan), 200, (80, 160))[1].any()


def test_a_picture_s_block_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    network, x = Finder(FinderConfig()).eval(), torch.rand(5, 3, 80, 160)
    with torch.no_grad():
        (logits, corners), (one, its) = network(x), network(x[3:4])
    assert torch.allclose(logits[3:4], one, atol=1e-5) and torch.allclose(corners[3:4], its, atol=1e-5)
    assert quad_area(torch.from_numpy(WHOLE)) == 1 and quad_area(torch.from_numpy(WHOLE[::-1].copy())) == -1


# ------------------------------------------------------------------------------------------------ the network that ships


def test_text_is_found_where_it_was_rendered(finder, loose):
    frames = finder.frames([photo.image for photo, _ in loose])
    apart = []
    for frame, (photo, block) in zip(frames, loose):
        true = around(block, photo.image.shape[1::-1])
        both, _ = cv2.intersectConvexConvex(frame, true)
        apart.append(both / (cv2.contourArea(frame) + cv2.contourArea(true) - both))
    assert np.median(apart) > 0.75 and np.mean(np.array(apart) > 0.5) > 0.8


def test_the_same_frame_alone_and_among_others(finder, loose):
    """But for rounding: in float32 sums of another batch size may be added up in another order."""
    pictures = [photo.image for photo, _ in loose[:5]]
    together = finder.frames(pictures)
    assert all(np.allclose(finder.frames([p])[0], f, atol=1e-3) for p, f in zip(pictures, together, strict=True))


def test_tight_crops_are_taken_as_they_are(finder):
    """And so their edits are the bytes that they are without looking."""
    rng, plates = np.random.default_rng(3), []
    for layout in load_layouts(["cn-blue", "uk", "br-mercosur"]).values():
        plate = render_plate(layout, random_text(layout.positions, rng), rng, severity=0.2)
        plate.target = random_text(layout.positions, rng)
        plates.append(plate)
    assert all(map(is_whole, finder.frames([plate.image for plate in plates])))
    found, other = (Editor(Edit(find=find))(plates) for find in ("auto", "none"))
    assert all(np.array_equal(a.image, b.image) and np.array_equal(a.slots, b.slots) for a, b in zip(found, other))


def test_a_plate_in_a_wide_picture_is_edited_and_read_as_the_tight_one():
    """With a plate and a half of noise around it; without looking hardly one is."""
    rng, layout = np.random.default_rng(11), load_layouts(["br-mercosur"])["br-mercosur"]
    wide, reader = [], Filter(Limits(), Edit())
    for number in range(12):
        plate = render_plate(layout, random_text(layout.positions, rng), rng, severity=0.2)
        h, w = plate.image.shape[:2]
        picture = cv2.GaussianBlur(smooth(4 * h, w + 3 * h, number), (0, 0), 2)
        picture[3 * h // 2 : 5 * h // 2, 3 * h // 2 : 3 * h // 2 + w] = plate.image
        wide.append(Plate(picture, plate.text, target=random_text(layout.positions, rng)))
    likely = {f: [p.scores["reader"] for p in reader(Editor(Edit(find=f))(wide))] for f in ("auto", "none")}
    assert np.median(likely["auto"]) > 0.8 > 0.4 > np.median(likely["none"])


def odd_pictures():
    rng, layout = np.random.default_rng(5), load_layouts(["uk"])["uk"]
    plate = render_plate(layout, random_text(layout.positions, rng), rng, severity=0.1).image
    high, wide = plate.shape[:2]
    two = smooth(3 * high, 3 * wide)
    two[high // 2 : high // 2 + high, 20 : 20 + wide] = two[high : 2 * high, -wide - 10 : -10] = plate
    broad = smooth(90, 4000)
    broad[20 : 20 + high, 1500 : 1500 + wide][: 90 - 20] = plate[: 90 - 20]
    return {
        "no plate": smooth(100, 200),
        "one colour": np.full((60, 180, 3), 90, np.uint8),
        "two plates": two,
        "upside down": np.ascontiguousarray(plate[::-1, ::-1]),
        "mirrored": np.ascontiguousarray(plate[:, ::-1]),
        "1 pixel high": plate[high // 2 : high // 2 + 1],
        "1 pixel": plate[:1, :1],
        "4000 pixels wide": broad,
    }


@pytest.mark.parametrize("name", odd_pictures())
def test_odd_pictures_are_edited_inside_their_frame_or_as_they_are(finder, name):
    """And scored: whatever was written there, nothing outside of the frame has changed."""
    picture = odd_pictures()[name]
    (edited,) = Filter(Limits(), Edit())(Editor(Edit())([Plate(picture.copy(), "AB12CDE", target="XY34ZZZ")]))
    assert edited.image.shape == picture.shape and np.array_equal(edited.original, picture)
    assert edited.source_mask.shape == edited.target_mask.shape == picture.shape[:2]
    assert all(0 <= score <= 1 for score in edited.scores.values())
    x1, y1, x2, y2 = text_frame.box_of(edited.frame, *picture.shape[:2])
    changed = (edited.image != picture).any(2)
    changed[y1:y2, x1:x2] = False
    assert not changed.any()


@pytest.mark.parametrize("name", ["no plate", "one colour", "1 pixel"])
def test_where_no_text_is_none_is_found(finder, name):
    assert is_whole(finder.frames([odd_pictures()[name]])[0])


@pytest.mark.parametrize("private", [False, True], ids=["strokes", "private"])
def test_pixels_outside_both_masks_are_the_source_s_bit_for_bit(untrained, private):
    rng, layout = np.random.default_rng(2), load_layouts(["uk"])["uk"]
    plate = render_plate(layout, random_text(layout.positions, rng), rng)
    picture = smooth(150, 400)
    picture[40 : 40 + plate.image.shape[0], 90 : 90 + plate.image.shape[1]] = plate.image
    given = Plate(picture, plate.text, target=random_text(layout.positions, rng), frame=TILTED)
    (edited,) = Editor(untrained, private)([given])
    ink = np.maximum(edited.source_mask, edited.target_mask)
    far = cv2.dilate(ink, np.ones((3, 3), np.uint8)) < (1 if private else 0.06 * 255 - 1)
    assert far.mean() > 0.5 and np.array_equal(edited.image[far], picture[far])
    assert (edited.image != picture).any()
