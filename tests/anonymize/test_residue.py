"""Characters of old plates: looked for where they stood, on plates with emblems, and in edits that leave some standing."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from platemint.pipeline.alignment import spread_over_text
from platemint.pipeline.anonymize.residue import LIMIT, UNTOUCHED, erased, in_view, untouched
from platemint.pipeline.edit import Editor, unlike
from platemint.pipeline.filter import Filter
from platemint.pipeline.plate import DIGITS, LETTERS, PROVINCES, Plate, canonical
from platemint.pipeline.recipe import Edit, Limits

PLATES = ("ABK4572", "KTR8241", "ZEN3658", "HM624RB")


def plate(text: str, emblem: int = -1, light: bool = False) -> np.ndarray:
    """A plate, uint8 (96, 400, 3). emblem: the number of characters before a round mark as high as they are, -1 for none."""
    image = np.full((96, 400, 3), 235, np.uint8)
    x = 20
    for i, character in enumerate(text):
        if i == emblem:
            cv2.circle(image, (x + 18, 48), 17, (190, 60, 50), -1)
            cv2.circle(image, (x + 18, 48), 8, (240, 220, 90), -1)
            x += 48
        cv2.putText(image, character, (x, 72), cv2.FONT_HERSHEY_DUPLEX, 1.9, (25, 25, 25), 4, cv2.LINE_AA)
        x += 48
    return 255 - image if light else image


@pytest.fixture(scope="module")
def filter():
    return Filter(Limits(), Edit())


@pytest.fixture(scope="module")
def editor():
    return Editor(Edit(), private=True)


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("emblem", [0, 1, 2, 3])
def test_the_reader_finds_characters_beside_an_emblem(filter, emblem, light):
    image = plate("ABK4572", emblem, light)
    (standing,) = filter.standing([Plate(image, "ABK-4572")])
    at = [(20 + 48 * (i + (i >= emblem)) + 16) / 400 for i in range(7)]
    assert np.abs(standing.places - at).max() < 0.5 * 48 / 400
    assert not standing.lower.any() and np.isfinite(standing.known).sum() >= 6


@pytest.mark.parametrize("text", PLATES)
@pytest.mark.parametrize("emblem", [-1, 0, 2])
def test_characters_that_stay_are_in_view_and_painted_ones_are_not(filter, text, emblem):
    image = plate(text, emblem)
    (standing,) = filter.standing([Plate(image, text)])
    nothing = np.zeros(image.shape[:2], np.uint8)
    assert (in_view(image, image, nothing, standing) > 0.9).all()
    assert (untouched(image, image, standing) > UNTOUCHED).all()
    for left in range(len(text)):
        result = np.full_like(image, 235)
        x = int(400 * standing.places[left])
        result[:, max(0, x - 22) : x + 23] = image[:, max(0, x - 22) : x + 23]
        shares = in_view(image, result, nothing, standing)
        assert shares[left] > LIMIT and (np.delete(shares, left) < LIMIT).all()
        for kept in (0.5, 0.2):  # thinly painted over
            thin = cv2.addWeighted(result, kept, np.full_like(image, 235), 1 - kept, 0)
            assert in_view(image, thin, nothing, standing)[left] > LIMIT


def test_new_strokes_over_old_ones_are_not_held_against_an_edit(filter):
    image, result = plate("ABK4572"), plate("ZEN3658")
    (standing,) = filter.standing([Plate(image, "ABK4572")])
    mask = np.where(result[..., 0] < 128, 255, 0).astype(np.uint8)
    assert (in_view(image, result, mask, standing) < LIMIT).all()
    assert (in_view(image, result, 0 * mask, standing) > LIMIT).any()


@pytest.mark.parametrize("light", [False, True])
def test_what_is_left_standing_is_painted_over_and_nothing_else(filter, light):
    text, other = "ABK4572", "ZEN3658"
    image, result, nowhere = plate(text, light=light), plate(other, light=light), np.zeros((96, 400), np.uint8)
    mask = np.where((result[..., 0] > 128) == light, 255, 0).astype(np.uint8)
    (standing,) = filter.standing([Plate(image, text)])
    for left in range(len(text)):
        column = np.s_[:, 18 + 48 * left : 62 + 48 * left]
        kept, new = result.copy(), mask.copy()
        kept[column], new[column] = image[column], 0  # neither erased nor written upon
        assert in_view(image, kept, new, standing)[left] > LIMIT
        mended, where = erased(image, kept, new, standing)
        assert (in_view(image, mended, new, standing) < 0.05).all()
        assert where[column].any() and not (where & (new > 127)).any()
        assert np.array_equal(mended[~where], kept[~where])
        around = np.median(plate("", light=light)[..., 0])
        assert np.abs(mended[column].astype(int) - around).mean() < 6  # of 210 between strokes and plate
    clean, where = erased(image, result, mask, standing)
    assert clean is result and not where.any()
    assert np.array_equal(erased(image, image, nowhere, standing)[1].shape, image.shape[:2])


@pytest.mark.parametrize("text", PLATES)
@pytest.mark.parametrize("light", [False, True])
def test_a_frame_around_a_plate_is_not_taken_for_its_strokes(filter, text, light):
    """A plate in a frame of its strokes' colour is, between frame and strokes, a stroke of the other colour."""
    image = cv2.copyMakeBorder(plate(text)[20:84, :380], 14, 10, 12, 12, cv2.BORDER_CONSTANT, value=(20, 20, 20))
    image = 255 - image if light else image
    (standing,) = filter.standing([Plate(image, text)])
    blank = np.where((image[..., :1] > 128) == light, image[16, 16], image)  # characters and frame are gone
    (half,) = [cv2.addWeighted(blank, 0.5, image, 0.5, 0)]
    nothing = np.zeros(image.shape[:2], np.uint8)
    assert (in_view(image, half, nothing, standing) > LIMIT).all()
    assert (in_view(image, blank, nothing, standing) < LIMIT).all()


@pytest.mark.parametrize("emblem", [0, 1, 3])
def test_edits_leave_no_character_and_an_emblem_before_them(filter, editor, emblem):
    for text in PLATES:
        source = Plate(plate(text, emblem), text, target=unlike(text, DIGITS + LETTERS + PROVINCES))
        (standing,) = filter.standing([source])
        (edit,) = editor([replace(source, places=spread_over_text(standing.known, text))])
        shares = in_view(source.image, edit.image, edit.target_mask, standing)
        assert (shares < LIMIT).all(), (text, shares)
        if not emblem:  # between two characters its edge may go with theirs
            assert np.abs(edit.image[31:65, 28:48].astype(int) - source.image[31:65, 28:48]).mean() < 25


def test_an_edit_whose_row_is_off_by_a_character_is_caught(filter, editor):
    caught = 0
    for text in PLATES:
        source = Plate(plate(text, 0), text, target=unlike(text, DIGITS + LETTERS + PROVINCES))
        (standing,) = filter.standing([source])
        wrong = standing.places - 48 / 400  # on the emblem
        (edit,) = editor([replace(source, places=wrong.astype(np.float32))])
        caught += (in_view(source.image, edit.image, edit.target_mask, standing) > LIMIT).any()
    assert caught == len(PLATES)


def test_places_leave_separators_out():
    places = spread_over_text(np.float32([0.1, 0.2, 0.3]), "A-B C")
    assert np.isnan(places[[1, 3]]).all() and places[[0, 2, 4]].tolist() == np.float32([0.1, 0.2, 0.3]).tolist()
    assert canonical("A-B C") == "ABC"


def few(text: str, before: int) -> np.ndarray:
    """A plate of few characters, uint8 (96, 400, 3), with an emblem twice as wide as one of them before the given one."""
    image, x = np.full((96, 400, 3), 235, np.uint8), 30
    for i, character in enumerate(text):
        if i == before:
            cv2.ellipse(image, (x + 55, 52), (48, 30), 0, 0, 360, (60, 110, 60), -1)
            x += 125
        cv2.putText(image, character, (x, 76), cv2.FONT_HERSHEY_DUPLEX, 2.0, (25, 25, 25), 5, cv2.LINE_AA)
        x += 52
    return image


def edges(image: np.ndarray) -> np.ndarray:
    gray = image[..., 1].astype(np.float32)
    return cv2.magnitude(cv2.Sobel(gray, -1, 1, 0), cv2.Sobel(gray, -1, 0, 1))


@pytest.mark.parametrize("text", ["4779", "W17K"])
@pytest.mark.parametrize("emblem", [1, 2, 3])
def test_no_outline_of_a_character_is_left_beside_an_emblem(filter, editor, text, emblem):
    """Strokes erased to their very border leave a rim that a person reads, though none of their own pixels is in view."""
    image = few(text, emblem)
    (standing,) = filter.standing([Plate(image, text)])
    (edit,) = editor(
        [
            Plate(
                image,
                text,
                target=unlike(text, DIGITS + LETTERS + PROVINCES),
                places=spread_over_text(standing.known, text),
            )
        ]
    )
    strokes = (image[..., 0] < 50).astype(np.uint8)
    beside_new = cv2.dilate(edit.target_mask, np.ones((7, 7))) < 40
    rim = (cv2.dilate(strokes, np.ones((7, 7))) > cv2.erode(strokes, np.ones((3, 3)))) & beside_new
    assert rim.sum() > 100 and edges(edit.image)[rim].mean() < 0.1 * edges(image)[rim].mean()  # a third, with outlines
