"""evaluate leak: an anonymizer that leaves the text is found out, one that leaves nothing is at chance."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from stand_ins import Agrees

from platemint import run_pipeline
from platemint.pipeline.anonymize import anonymizer as anonymize
from platemint.pipeline.evaluate import leak
from platemint.pipeline.evaluate.leak import Attack, Leak, Specimen, agreement
from platemint.pipeline.networks import load_network, resize
from platemint.pipeline.plate import PlatemintError, canonical
from platemint.pipeline.recipe import Edit
from platemint.pipeline.render import load_layouts, random_text, render_plate

PLATES = 60
OPTIONS = Edit()


def rendered():
    """(text, picture) of plates of one layout."""
    layout, rng = load_layouts(["us-scenic"])["us-scenic"], np.random.default_rng(0)
    for _ in range(PLATES):
        text = random_text(layout.positions, rng)
        yield text, render_plate(layout, text, rng).image


@pytest.fixture(scope="module")
def plates():
    return list(rendered())


def specimens(plates, edited):
    """What the probe sees where `edited` makes anonymized pictures."""
    blank = np.full((48, 160, 3), leak.GRAY, np.uint8)
    return [
        Specimen(
            t,
            "one",
            {"surround": blank, "edited": edited(p), "blurred": small(leak.blurred(p)), "untouched": small(p)},
        )
        for t, p in plates
    ]


def small(picture):
    return resize(picture, 48, 160)


def noise(picture):
    return np.random.default_rng(list(picture.tobytes()[:64])).integers(0, 255, (48, 160, 3), np.uint8)


@pytest.fixture(scope="module")
def attack():
    return Attack(load_network("reader", "reader", OPTIONS), OPTIONS, 8, 0)


def test_an_anonymizer_that_does_nothing_is_found_out(plates, attack):
    report = attack(specimens(plates, small))
    edited = report["kinds"]["edited"]
    assert report["verdict"] == "above chance" and edited["probe"]["mean"] > 0.8
    assert edited == report["kinds"]["untouched"]
    assert all(edited[f"over_{chance}"]["low"] > 0.5 for chance in leak.CHANCES)


def test_noise_is_at_chance_and_the_same_again(plates, attack):
    report = attack(specimens(plates, noise))
    assert report["verdict"] == "at chance"
    assert report["kinds"]["edited"]["over_shuffled"]["low"] <= 0
    assert report["tested"]["plates"] == 18 and report["learned"]["plates"] == 42
    assert attack(specimens(plates, noise)) == report


def test_a_probe_that_cannot_read_proves_nothing(plates, untrained):
    blind = Attack(load_network(untrained.reader, "reader", OPTIONS), OPTIONS, 1, 0)
    report = blind(specimens(plates, noise))
    assert report["verdict"] == "nothing" and "no result" in leak.WORDS["nothing"]


def test_what_surrounds_the_text_can_tell_as_much(plates, attack):
    """Where a picture's rest gives the text away, an edit that does so too gives away no stroke."""
    telling = specimens(plates, small)
    for specimen in telling:
        specimen.pictures["surround"] = specimen.pictures["untouched"]
        specimen.pictures["blurred"] = specimen.pictures["edited"]
    report = attack(telling)
    assert report["kinds"]["edited"]["over_surround"] == {"mean": 0, "low": 0, "high": 0}
    assert report["kinds"]["edited"]["over_shuffled"]["low"] > 0.5


def test_characters_are_cut_out_as_one():
    region = np.zeros((20, 60), bool)
    region[5:10, 10:20] = region[8:15, 40:50] = True
    picture = np.random.default_rng(0).integers(0, 100, (20, 60, 3), np.uint8)
    cut = leak.surround(picture, region)
    gone = (cut == leak.GRAY).all(2)
    assert gone[5:15, 10:50].all() and gone.sum() == 400
    assert np.array_equal(cut[~gone], picture[~gone]) and (leak.surround(picture, region & False) == picture).all()


def test_a_plate_is_on_one_side():
    some = [Specimen(text, "", {}) for n in range(40) for text in (f"AB0{n:02}", f"AB-O{n:02}")]
    sides = leak.split_plates(some, 0)
    learned, tested = ({canonical(some[i].text) for i in side} for side in sides)
    assert not learned & tested and len(tested) == 12 and len(sides[1]) == 24
    assert leak.split_plates(some, 1) != sides
    with pytest.raises(PlatemintError, match="too few to learn from"):
        leak.split_plates(some[:20], 0)


@pytest.mark.parametrize(
    "guess, text, share",
    [("ABC123", "ABC-123", 1), ("AB0", "ABO", 1), ("", "ABC", 0), ("ABD", "ABC", 2 / 3), ("XABC", "ABC", 0)],
)
def test_agreement(guess, text, share):
    assert agreement(guess, text) == pytest.approx(share)


def test_the_constant_guess_is_each_position_s_commonest_of_plates_learned_from():
    learned = [Specimen(t, k, {}) for t, k in (("AB1", "x"), ("AC1", "x"), ("AC2", "x"), ("ZZZZ", "y"), ("AC1", "x"))]
    assert leak.constants(learned) == {"x": "AC1", "y": "ZZZZ", "": "AC1"}


def test_shuffled_guesses_are_others_of_the_kind():
    tested = [Specimen("AAA", "x", {}), Specimen("AAB", "x", {}), Specimen("AAB", "x", {}), Specimen("ZZZ", "y", {})]
    scores = leak.shuffled(["AAA", "AAB", "AAB", "ZZZ"], tested, np.random.default_rng(0))
    assert scores == pytest.approx([2 / 3, 2 / 3, 2 / 3, 0])


def test_edits_of_one_plate_count_as_one_try():
    values = np.random.default_rng(0).random(50)
    single = leak.bootstrap_mean(values, [str(n) for n in range(50)], 0)
    tenfold = leak.bootstrap_mean(values.repeat(10), [str(n) for n in range(50) for _ in range(10)], 0)
    assert single == pytest.approx(tenfold)
    assert single["low"] < single["mean"] < single["high"]


def test_characters_are_told_where_nothing_is_likelier():
    read = torch.full((1, 8, 4), 0.1)
    read[0, :, 0] = 0.6
    read[0, [1, 4, 6], [3, 1, 1]] = 0.3
    assert leak.guessed(read.log(), [3], "ABC") == ["CAA"]
    assert leak.guessed(read.log().repeat(2, 1, 1), [3, 2], "ABC")[0] == "CAA"


@pytest.fixture
def corpus(plates, tmp_path):
    for number, (_, picture) in enumerate(plates):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    rows = [f"{number}.png,{text}" for number, (text, _) in enumerate(plates)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,text", *rows]) + "\n")
    return tmp_path / "labels.csv"


@pytest.fixture
def idle(monkeypatch):
    """Networks of anonymize that leave plates as they are and are content with that."""

    def edit(plates):
        for plate in plates:
            plate.original, plate.original_text, plate.text = plate.image, plate.text, plate.target
            plate.source_mask = plate.target_mask = np.full(plate.image.shape[:2], 255, np.uint8)
        return plates

    monkeypatch.setattr(anonymize, "Editor", lambda options, private: edit)
    monkeypatch.setattr(anonymize, "Filter", Agrees)


def test_the_command(corpus, idle):
    call = ["evaluate", "leak", "--source", str(corpus), "--count", "90", "--steps", "2"]
    shown = CliRunner().invoke(run_pipeline.main, call)
    assert shown.exit_code == 0, shown.output
    assert "90 of 90 edits accepted" in shown.output and "above chance: the edited" in shown.output
    report = json.loads(CliRunner().invoke(run_pipeline.main, [*call, "--json"]).stdout)
    assert report["learned"]["edits"] + report["tested"]["edits"] == 90
    assert report["learned"]["plates"] + report["tested"]["plates"] == PLATES


def test_only_edits_that_anonymize_lets_out_count(corpus, idle, monkeypatch):
    monkeypatch.setattr(Agrees, "decide", lambda self, scores: "slots")
    assert Leak(OPTIONS, corpus, count=8).specimens() == []


def test_faults_of_a_user_are_wrong_use(corpus):
    call = ["evaluate", "leak", "--source", str(corpus)]
    for wrong in (["--split", "vla"], ["--checkpoint", "none"], ["--reader", "none"]):
        assert CliRunner().invoke(run_pipeline.main, [*call, *wrong]).exit_code == 2
