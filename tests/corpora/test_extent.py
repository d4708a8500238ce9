"""Annotations that cut through characters: the whole plate is found, and others stay as they are."""

import cv2
import numpy as np
import pytest

from platemint.pipeline.corpora.datasets import Annotation
from platemint.pipeline.corpora.extent import extend_to_strokes
from platemint.pipeline.corpora.rectify import views_of

LEFT, TOP, RIGHT, BOTTOM = 150, 120, 450, 190  # of the plate in the frame
FIRST, LAST, HIGHEST, LOWEST = 177, 426, 145, 171  # where its characters begin and end


def frame(light: bool = False, angle: float = 0.0) -> np.ndarray:
    image = np.full((320, 600, 3), 120, np.uint8)
    image = cv2.GaussianBlur(image + np.random.default_rng(0).integers(0, 12, image.shape, np.uint8), (0, 0), 2)
    ground, ink = ((40, 60, 140), (240, 240, 240)) if light else ((235, 235, 235), (20, 20, 20))
    cv2.rectangle(image, (LEFT, TOP), (RIGHT, BOTTOM), ground, -1)
    for i, character in enumerate("HKM2468"):
        cv2.putText(image, character, (FIRST + 38 * i, BOTTOM - 16), cv2.FONT_HERSHEY_DUPLEX, 1.5, ink, 4, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((300, 160), angle, 1)
    return cv2.warpAffine(image, turn, (600, 320), borderMode=cv2.BORDER_REPLICATE)


def corners(x1, y1, x2, y2, angle: float = 0.0) -> np.ndarray:
    points = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float)
    turn = cv2.getRotationMatrix2D((300, 160), angle, 1)
    return points @ turn[:, :2].T + turn[:, 2]


def unturned(points: np.ndarray, angle: float) -> np.ndarray:
    turn = cv2.invertAffineTransform(cv2.getRotationMatrix2D((300, 160), angle, 1))
    return points @ turn[:, :2].T + turn[:, 2]


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("angle", [0.0, 9.0, -7.0])
@pytest.mark.parametrize(
    "cut", [(20, 0, 0, 0), (35, 0, 0, 0), (0, 0, 25, 0), (40, 0, 38, 0), (0, 17, 0, 0), (0, 0, 0, 22), (30, 14, 30, 18)]
)
def test_strokes_that_cross_the_border_belong_to_the_plate(light, angle, cut):
    left, top, right, bottom = cut
    given = corners(LEFT + left, TOP + top, RIGHT - right, BOTTOM - bottom, angle)
    found = unturned(extend_to_strokes(given, frame(light, angle)), angle)
    (x1, y1), (x2, y2) = found.min(0), found.max(0)
    assert x1 <= FIRST and x2 >= LAST and y1 <= HIGHEST and y2 >= LOWEST
    assert x1 > LEFT - 40 and x2 < RIGHT + 40 and y1 > TOP - 40 and y2 < BOTTOM + 40  # nor much of the car


@pytest.mark.parametrize("angle", [0.0, 9.0])
def test_an_annotation_around_all_of_its_characters_stays(angle):
    given = corners(LEFT, TOP, RIGHT, BOTTOM, angle)
    assert np.abs(extend_to_strokes(given, frame(angle=angle)) - given).max() < 8


def test_a_plate_in_a_frame_is_seen_whole_and_a_crop_stays():
    picture = frame()
    tight, crop = views_of(
        [Annotation("HKM2468", tuple(map(tuple, corners(LEFT + 36, TOP, RIGHT - 36, BOTTOM)))), Annotation("HKM2468")],
        picture,
    )
    assert tight.box[0] <= FIRST and tight.box[2] >= LAST and crop.size == (600, 320)


def test_at_the_pictures_edge_nothing_breaks():
    picture = frame()[100:, 160:]
    for box in ((0, 20, 100, 90), (0, 0, 30, 10), (430, 210, 440, 220)):
        assert np.isfinite(extend_to_strokes(corners(*box), picture)).all()
