"""filter: every score does what it says, decisions follow thresholds and nothing else."""

import numpy as np
import pytest
import torch
from test_edit import plates

from platemint.pipeline.edit import Editor
from platemint.pipeline.filter import Filter, fold, likelihood, slot_agreement, stability
from platemint.pipeline.plate import READABLE
from platemint.pipeline.recipe import Limits

OPEN = Limits(min_stability=0, min_slots=0, min_mask_reader=0, min_reader=0, max_residue=1)
SLOTS = np.float32([[[0.25, 0.5], [0.1, 0], [0, 0.3]], [[0.75, 0.5], [0.1, 0], [0, 0.3]]])


def block(*columns):
    mask = np.zeros((40, 100), np.uint8)
    for x in columns:
        mask[12:28, x - 6 : x + 6] = 255
    return mask


def test_stability_is_one_for_settled_strokes_and_falls_with_doubt():
    sharp = block(25, 75)
    doubtful = np.where(sharp > 0, np.uint8(130), np.uint8(0))
    assert stability(sharp) == 1 and stability(doubtful) < 0.1 and stability(np.zeros_like(sharp)) == 0


def test_slots_want_ink_in_every_place_and_nowhere_else():
    good = slot_agreement(block(25, 75), SLOTS, "AB")
    assert good == pytest.approx(1)
    assert slot_agreement(block(25), SLOTS, "AB") == 0  # a character is missing
    assert slot_agreement(block(25, 50, 75), SLOTS, "AB") < 0.75  # one too many
    assert slot_agreement(block(25), SLOTS, "A-") == pytest.approx(1)  # a separator needs no ink
    assert slot_agreement(np.zeros((40, 100), np.uint8), SLOTS, "AB") == 0


def test_likelihood_is_of_the_text_and_forgives_what_labels_confuse():
    logits = torch.full((1, 6, len(READABLE) + 1), -9.0)
    logits[0, :, 0] = 0
    for step, c in ((1, "A"), (3, "O"), (5, "7")):
        logits[0, step, READABLE.index(c) + 1] = 9
    log_probabilities = logits.log_softmax(-1)
    (exact,), (folded,), (wrong,) = (likelihood(log_probabilities, [t], READABLE) for t in ("AO7", "A-07", "AB7"))
    assert exact > 0.95 and folded == pytest.approx(exact) and wrong < 0.3
    assert likelihood(log_probabilities, [""], READABLE) == [0.0]
    assert fold(log_probabilities, READABLE).exp().sum(-1) == pytest.approx(1, abs=1e-4)


@pytest.fixture(scope="module")
def edited(untrained):
    return Editor(untrained)(plates())


def test_every_plate_gets_every_score_in_range(untrained, edited):
    for plate in Filter(OPEN.model_copy(update={"min_reader": 0.9}), untrained)(edited):
        assert set(plate.scores) == {"stability", "slots", "mask_reader", "reader", "residue"}
        assert all(0 <= score <= 1 for score in plate.scores.values())
        assert plate.image is not None and plate.reason in ("reader", "")


@pytest.mark.parametrize(
    "score, limit",
    [
        ("stability", "min_stability"),
        ("slots", "min_slots"),
        ("mask_reader", "min_mask_reader"),
        ("reader", "min_reader"),
        ("residue", "max_residue"),
    ],
)
def test_each_threshold_drops_by_its_own_name(untrained, score, limit):
    scores = {"stability": 0.6, "slots": 0.6, "mask_reader": 0.6, "reader": 0.6, "residue": 0.4}
    judge = Filter(OPEN, untrained)
    assert judge.decide(scores) == ""
    judge.limits = OPEN.model_copy(update={limit: 0.3 if score == "residue" else 0.7})
    assert judge.decide(scores) == score


def test_scores_do_not_depend_on_the_batch(untrained, edited):
    judge = Filter(Limits(), untrained)
    together = judge(edited)
    alone = judge(edited[2:3])[0]
    assert alone.reading == together[2].reading and alone.scores == pytest.approx(together[2].scores, abs=1e-6)
