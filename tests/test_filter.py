"""filter: every score does what it says, decisions follow thresholds and nothing else."""

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from test_edit import plates

from platemint.pipeline import run
from platemint.pipeline.edit import Editor
from platemint.pipeline.filter import Filter, fold, likelihood, slot_agreement, stability
from platemint.pipeline.plate import READABLE
from platemint.pipeline.recipe import Edit, Filtering, GenerateRecipe, Limits, Source
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.report.run_page import run_page

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


# ---------------------------------------------------------------------------------------------------- of the source


@pytest.fixture(scope="module")
def ships():
    return Editor(Edit()), Filter(Filtering(), Edit())


@pytest.fixture(scope="module")
def photographs():
    """Rendered plates that count as photographs, in three styles."""
    rng, layouts = np.random.default_rng(0), load_layouts(["br-mercosur", "de", "us-texas"]).values()
    made = [(layout, render_plate(layout, random_text(layout.positions, rng), rng, severity=0.2))
            for layout in layouts for _ in range(8)]  # fmt: skip
    return [
        replace(plate, rendered=False, source=str(i), target=random_text(layout.positions, rng))
        for i, (layout, plate) in enumerate(made)
    ]


def nothing(plate):
    height, width = plate.image.shape[:2]
    coarse = np.random.default_rng(int(plate.source)).integers(0, 255, (6, 9, 3), np.uint8)
    return replace(plate, image=cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def beside(plate, other, axis):
    return replace(plate, image=np.concatenate([plate.image, cv2.resize(other.image, plate.image.shape[1::-1])], axis))


NOT_ITS_LABEL = {
    "upside down": lambda plate, other: replace(plate, image=plate.image[::-1, ::-1].copy()),
    "mirrored": lambda plate, other: replace(plate, image=plate.image[:, ::-1].copy()),
    "no plate": lambda plate, other: nothing(plate),
    "another's label": lambda plate, other: replace(plate, text=other.text),
    "two plates side by side": lambda plate, other: beside(plate, other, 1),
}


@pytest.mark.parametrize("kind", NOT_ITS_LABEL)
def test_a_source_that_does_not_show_its_label_is_dropped_for_it(kind, ships, photographs):
    editor, judge = ships
    pairs = zip(photographs, photographs[1:] + photographs[:1])
    judged = judge(editor([NOT_ITS_LABEL[kind](*pair) for pair in pairs]))
    reasons = Counter(plate.reason for plate in judged)
    assert not reasons[""] and reasons["source_reader"] >= 0.9 * len(judged)


def test_sources_that_show_their_label_stay_however_dirty(ships, photographs):
    editor, judge = ships
    rng = np.random.default_rng(1)
    for blur, noise in ((0, 0), (1.2, 8), (0, 30)):
        dirty = [cv2.GaussianBlur(p.image, (0, 0), blur) if blur else p.image for p in photographs]
        dirty = [np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8) for image in dirty]
        judged = judge(editor([replace(p, image=image) for p, image in zip(photographs, dirty)]))
        assert "source_reader" not in {plate.reason for plate in judged}


def test_of_two_plates_one_above_the_other_none_is_kept_under_the_other_s_text(ships, photographs):
    editor, judge = ships
    pairs = zip(photographs, photographs[1:] + photographs[:1])
    for plate in judge(editor([beside(*pair, 0) for pair in pairs])):
        changed = np.flatnonzero((plate.image != plate.original).any((1, 2)))
        assert plate.reason or changed.max() < 0.55 * len(plate.image)


def test_rendered_sources_are_not_read(ships, photographs):
    editor, judge = ships
    judged = judge(editor([replace(plate, rendered=True, text=plate.text[::-1]) for plate in photographs[:4]]))
    assert [plate.scores["source_reader"] for plate in judged] == [1.0] * 4


def test_what_references_know_of_a_source_is_what_would_be_read_and_is_not_read_again(ships, photographs, monkeypatch):
    editor, judge = ships
    mixed = [*photographs[:6], *(NOT_ITS_LABEL["mirrored"](p, p) for p in photographs[6:9])]
    edits, read = editor(mixed), []
    reading = judge._read
    monkeypatch.setattr(judge, "_read", lambda pictures: read.append(len(pictures)) or reading(pictures))
    unknown = judge(edits)
    monkeypatch.setattr(judge, "references", editor.collected(mixed, judge.reader))
    known = judge(edits)
    assert read == [9, 9, 9, 9, 9]  # edits, masks and sources; then edits and masks
    assert [p.scores["source_reader"] for p in known] == pytest.approx([p.scores["source_reader"] for p in unknown])
    assert [p.reason == "source_reader" for p in known] == [False] * 6 + [True] * 3


def test_a_run_drops_edits_of_a_mirrored_corpus_and_says_why(tmp_path, photographs):
    (tmp_path / "in").mkdir()
    for i, plate in enumerate(photographs[:8]):
        cv2.imwrite(str(tmp_path / "in" / f"{plate.text}_{i}.png"), plate.image[:, :: -1 if i % 2 else 1, ::-1])
    options = Filtering(rounds=6)
    made = GenerateRecipe(count=12, out=str(tmp_path / "out"), source=Source(path=str(tmp_path / "in")), filter=options)
    run.generate(made)
    kept, dropped = (pq.read_table(tmp_path / "out" / kind).to_pylist() for kind in ("data", "dropped"))
    assert kept and min(row["score_source_reader"] for row in kept) >= made.filter.min_source_reader
    wrong = [row for row in dropped if row["reason"] == "source_reader"]
    assert wrong and not {row["source"] for row in wrong} & {row["source"] for row in kept}
    page = run_page(tmp_path / "out")
    assert page.count("source_reader") >= 3  # a histogram of the score, a reason with its count, the gallery's data
