"""evaluate lpr: arms share no text or source with what is tested, equal seeds give equal figures, better sets better ones."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from platemint.models.recogniser import Recogniser, RecogniserConfig, slot_codes, slot_texts
from platemint.pipeline.alignment import Standing
from platemint.pipeline.edit import Editor
from platemint.pipeline.evaluate import lpr
from platemint.pipeline.evaluate.lpr import (
    Arm,
    ArmResult,
    Sample,
    compare,
    interval,
    learned_and_tested,
    permuted,
    rare,
)
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.storage import encode as encode_picture

CONFIG = RecogniserConfig("ABC123", slots=6, channels=(8, 16, 16))


def drawn(text: str, rng: np.random.Generator) -> Sample:
    """A picture in which each character is a bar of its own height: easy to learn."""
    image = rng.integers(200, 255, (lpr.HEIGHT, lpr.WIDTH, 3)).astype(np.uint8)
    for i, character in enumerate(text):
        image[2 : 4 + 4 * "ABC123".index(character), 20 * i + 6 : 20 * i + 16] = 20
    return Sample(image, text, text)


def some(count: int, seed: int) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [drawn("".join(rng.choice(list("ABC123"), 6)), rng) for _ in range(count)]


def test_texts_of_any_length_are_encoded_and_decoded():
    codes = slot_codes(["A1", "", "CCC333"], CONFIG)
    logits = torch.nn.functional.one_hot(codes, 7).float()
    assert slot_texts(logits, CONFIG) == ["A1", "", "CCC333"]
    assert Recogniser(CONFIG)(torch.rand(2, 3, 32, 128)).shape == (2, 6, 7)
    with pytest.raises(KeyError):
        slot_codes(["Z"], CONFIG)


def test_a_recogniser_learns_and_equal_seeds_give_equal_readings(monkeypatch):
    monkeypatch.setattr(lpr, "BATCH", 16)
    arms = {
        1.0: [Arm("real", (some(200, 1),), augmented=False), Arm("two", (some(3, 2), some(200, 3)), augmented=False)]
    }
    tested = some(60, 9)
    once, twice = (compare(arms, tested, 150, 1, None) for _ in range(2))
    assert [r.right[0].tolist() for r in once] == [r.right[0].tolist() for r in twice]
    for result in once:
        mean, low, high = interval(result.right)
        assert mean > 0.5 and low <= mean <= high
        assert result.characters.total() == 360


def test_augmented_pictures_stay_pictures_and_differ():
    rng = np.random.default_rng(0)
    images = torch.rand(8, 3, 32, 128)
    changed = lpr.augmented(images, rng)
    assert changed.shape == images.shape and changed.min() >= 0 and changed.max() <= 1
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("split", ["", "val", "elsewhere"])
def test_what_is_tested_is_not_learned(split):
    image = np.zeros((30, 90, 3), np.uint8)
    names = {"": "train", "val": "val", "elsewhere": "elsewhere"}
    plates = [(image, f"AB{i // 2:03}", f"source {i}", names[split] if i % 3 == 0 else "train") for i in range(300)]
    learned, tested = learned_and_tested(plates, "elsewhere" if split == "elsewhere" else "", 0)
    assert learned and tested
    assert not {lpr.canonical(text) for _, text, _ in learned} & {s.text for s in tested}
    made = {
        "mine": [(image, s.text, "new") for s in tested[:3]]
        + [(image, "ZZ999", tested[0].source), (image, "ZZ998", "x")]
    }
    kept = lpr._without_tested(learned, tested, made)
    assert [s.text for s in kept.made["mine"]] == ["ZZ998"] and kept.left_out == 4


def test_permuted_characters_go_with_their_cells():
    """Each character's cell has a colour of its own; letters stay among letters, digits among digits."""
    text = "AB23"
    image = np.zeros((20, 80, 3), np.uint8)
    for i in range(4):
        image[:, 20 * i : 20 * i + 20] = 50 * (i + 1)
    places = np.array([0.125, 0.375, 0.625, 0.875], np.float32)
    where = Standing(places, places, np.zeros(4, bool), np.zeros((48, 160), np.float32))
    made = permuted([(image, text, "s")] * 2, [where, None], 0, 40)
    seen = Counter(sample.text for sample in made)
    assert set(seen) == {"AB23", "BA23", "AB32", "BA32"}
    for sample in made:
        colours = [int(sample.image[16, x, 0]) for x in (16, 48, 80, 112)]
        assert colours == [50 * (1 + text.index(c)) for c in sample.text]


def test_intervals_hold_the_mean_and_shrink_with_plates():
    rng = np.random.default_rng(0)
    few, many = ([rng.random(n) < 0.7 for _ in range(3)] for n in (20, 2000))
    widths = [high - low for _, low, high in (interval(few), interval(many))]
    assert widths[1] < widths[0] / 3


def test_rare_characters_are_those_learned_least():
    result = ArmResult("real", 1.0, 10, [], Counter({("A", True): 3, ("B", True): 1, ("B", False): 1, ("C", False): 2}))
    rows = rare([result], Counter("AAAAB"))
    assert [row["character"] for row in rows] == ["C", "B", "A"]
    assert rows[1]["right"] == {"real, 1": 0.5} and rows[1]["learned"] == 1


def test_a_corpus_that_is_too_small_is_refused(tmp_path, monkeypatch):
    image = np.zeros((30, 90, 3), np.uint8)
    monkeypatch.setattr(lpr, "plates_of", lambda path: [(image, f"AB{i:03}", str(i), "train") for i in range(40)])
    with pytest.raises(PlatemintError, match="to test on; at least 20"):
        lpr.Lpr(lpr.Edit(), [], tmp_path)


def test_runs_of_one_name_are_refused(tmp_path, monkeypatch):
    image = np.zeros((30, 90, 3), np.uint8)
    splits = ["train", "val"]
    plates = [(image, f"AB{i:03}", str(i), splits[i % 2]) for i in range(60)]
    monkeypatch.setattr(lpr, "plates_of", lambda path: plates)
    with pytest.raises(PlatemintError, match="two folders are called run"):
        lpr.Lpr(lpr.Edit(), [tmp_path / "a/run", tmp_path / "b/run"], tmp_path)


def test_the_report_is_shown_and_drawn(tmp_path):
    results = [
        ArmResult(name, f, 9, [np.ones(5, bool)], Counter({("A", True): 5}))
        for name in ("real", "edits")
        for f in (0.1, 1)
    ]
    report = {
        "learned": 9, "tested": 5, "left_out": 0, "steps": 3, "seeds": 1,
        "arms": [lpr._figures(result, 0) for result in results], "rare": rare(results, Counter("A")),
        "own_texts": [lpr._figures(results[0], 0)], "tstr": 0.5,
    }  # fmt: skip
    text = lpr.lpr_as_text(report)
    assert "100.0 (100.0..100.0)" in text and "TSTR (edits alone / real alone): 0.50" in text
    lpr.plot(report, tmp_path / "lpr.png")
    assert (tmp_path / "lpr.png").read_bytes()[:4] == b"\x89PNG"


def test_plates_are_read_from_corpora_and_from_runs_with_their_sources(tmp_path):
    (tmp_path / "crops").mkdir()
    pictures = [np.full((32, 96, 3), 60 * n, np.uint8) for n in range(1, 4)]
    rows = [f"{n}.png,AB{n}23,{split}" for n, split in enumerate(("train", "val", "train"), 1)]
    for n, picture in enumerate(pictures, 1):
        (tmp_path / f"crops/{n}.png").write_bytes(encode_picture(picture, "png", 0))
    (tmp_path / "crops/labels.csv").write_text("\n".join(["path,text,split", *rows]))
    found = lpr.plates_of(tmp_path / "crops")
    assert [(text, split) for _, text, _, split in found] == [("AB123", "train"), ("AB223", "val"), ("AB323", "train")]
    assert all(np.array_equal(image, picture) for (image, *_), picture in zip(found, pictures))
    table = {
        "image": [{"bytes": encode_picture(picture, "png", 0), "path": "x.png"} for picture in pictures],
        "text": ["AB923", "AB823", "NULL"], "source": [source for _, _, source, _ in found], "split": ["train"] * 3,
    }  # fmt: skip
    (tmp_path / "run/data").mkdir(parents=True)
    parquet.write_table(pa.table(table), tmp_path / "run/data/train-00000-of-00001.parquet")
    (tmp_path / "run/plan.json").write_text("{}")
    made = lpr.plates_of(tmp_path / "run")
    assert [text for _, text, *_ in made] == ["AB923", "AB823", "NULL"]
    assert [source for *_, source, _ in made] == table["source"]
    assert all(np.array_equal(image, picture) for (image, *_), picture in zip(made, pictures))
    others = pa.table({name: table[name] for name in ("image", "text")})  # of anybody's, without sources
    (tmp_path / "other/data").mkdir(parents=True)
    parquet.write_table(others, tmp_path / "other/data/train-00000-of-00001.parquet")
    assert [text for _, text, *_ in lpr.plates_of(tmp_path / "other")] == ["AB923", "AB823", "NULL"]


def test_edits_that_are_measured_are_made_as_a_run_makes_them(untrained):
    """With what the corpus shows of its characters: a run's edits have it."""
    rng, layout = np.random.default_rng(0), load_layouts(["br-mercosur"])["br-mercosur"]
    learned = [render_plate(layout, random_text(layout.positions, rng), rng, severity=0.2) for _ in range(12)]
    plates = lpr.with_each_others_texts([(plate.image, plate.text, str(n)) for n, plate in enumerate(learned)], 0)
    made, references = lpr.edited(plates, untrained)
    assert references is not None and {*references.sources} == {plate.source for plate in plates}
    editor = Editor(untrained)
    editor.references = references
    assert all(np.array_equal(a.image, b.image) for a, b in zip(made, editor(plates)))
