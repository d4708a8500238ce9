"""Inspecting corpora and runs: every plate is counted, once, where it belongs, and drawn as what it is."""

import json
import math
import os
from collections import Counter
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from platemint import run_pipeline
from platemint.pipeline.balance.shares import Target, read_target
from platemint.pipeline.plate import ALPHABET, DIGITS, LETTERS, PROVINCES, PlatemintError, canonical
from platemint.pipeline.report import heatmap
from platemint.pipeline.report.heatmap import CELL, DOUBLINGS, GAP, colour, columns, draw, figure_of
from platemint.pipeline.report.inspect import counts_as_text, inspect
from platemint.pipeline.report.near_duplicates import SHOWN, near_duplicates

texts_of_plates = st.lists(st.text("AB0189-·京沪", min_size=1, max_size=9), min_size=1, max_size=40)


def corpus(folder, lines):
    path = folder / "labels.csv"
    for n in range(len(lines)):
        (folder / f"{n}.jpg").touch()
    path.write_text(
        "path,text,split\n" + "".join(f"{n}.jpg,{line}\n" for n, line in enumerate(lines)), encoding="utf-8"
    )
    return path


def run(folder, shards):
    (folder / "data").mkdir()
    for n, texts in enumerate(shards):
        rows = {
            "text": texts,
            "layout": ["uk"] * len(texts),
            "split": ["val"] * len(texts),
            "image": [b"x"] * len(texts),
        }
        pq.write_table(pa.table(rows), folder / "data" / f"val-{n:05d}-of-{len(shards):05d}.parquet")
    return folder


@settings(max_examples=40, deadline=None)
@given(texts=texts_of_plates)
def test_every_character_is_counted_once(tmp_path_factory, texts):
    report = inspect(run(tmp_path_factory.mktemp("run"), [texts[::2], texts[1::2], []]))
    found = {(row["position"], c): n for row in report["positions"] for c, n in row["counts"].items()}
    assert found == Counter((p, c) for text in texts for p, c in enumerate(text))
    assert report["plates"] == len(texts) and report["distinct"] == len(set(texts))
    assert report["lengths"] == Counter(str(len(text)) for text in texts)
    in_all = {c: n for row in report["overall"] for c, n in row["counts"].items()}
    assert in_all == Counter("".join(texts))
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_a_corpus_by_hand(tmp_path):
    labels = ["AB12,train", "AC12,train", "AB13,val", "ab-1 2,val", ",val", "♥1,train"]
    report = inspect(corpus(tmp_path, labels))
    assert report["kind"] == "corpus" and report["plates"] == 4 and report["distinct"] == 4
    assert report["splits"] == {"train": 2, "val": 2} and report["layouts"] == {}
    assert report["patterns"] == {"LLDD": 3, "LL-D D": 1} and report["lengths"] == {"4": 3, "6": 1}
    assert sum(report["set_aside"].values()) == 2
    cells = {(row["position"], row["class"]): row for row in report["positions"]}
    assert cells[1, "letters"]["counts"] == {"B": 3, "C": 1}
    assert cells[1, "letters"]["max_min"] == 3 and cells[1, "letters"]["entropy"] == pytest.approx(0.811278, abs=1e-6)
    assert cells[2, "separators"]["counts"] == {"-": 1} and cells[2, "digits"]["counts"] == {"1": 3}
    assert [row["class"] for row in report["overall"]] == ["letters", "digits", "separators"]


def test_plates_that_look_like_missing_values_are_counted(tmp_path):
    report = inspect(corpus(tmp_path, ["NULL,train", "NA,train", "00123,train", "1E5,train"]))
    assert report["plates"] == 4 and report["lengths"] == {"4": 1, "2": 1, "5": 1, "3": 1}


def test_the_table_shows_what_is_uneven(tmp_path):
    report = inspect(corpus(tmp_path, ["京A1,train"] * 8 + ["沪B1,val"] * 4 + ["沪C1,val"]))
    lines = counts_as_text(report).splitlines()
    heading, letters = next((a, b) for a, b in pairwise(lines) if a.startswith("letters"))
    assert "8.00" in letters
    bars = dict(zip(heading[heading.index("A") :], letters[heading.index("A") :]))
    assert bars["A"] == "█" and bars["B"] == "▄" and bars["C"] == "▁" and bars["D"] == "·"
    provinces = lines[next(n for n, line in enumerate(lines) if line.startswith("provinces")) + 1]
    assert provinces.split()[-1].startswith("██▅▅··"), "as wide as the characters above"
    assert "train 8, val 5" in counts_as_text(report)


def test_the_table_of_a_large_variety_stays_short(tmp_path, monkeypatch):
    patterns = [f"{n:06b}".replace("0", "A").replace("1", "7") for n in range(64)]
    monkeypatch.chdir(tmp_path)  # so that the corpus's own name is short
    text = counts_as_text(inspect(corpus(Path(), [f"{pattern},train" for pattern in patterns])))
    assert "and 56 more" in text and len(text.splitlines()) < 40 and max(map(len, text.splitlines())) <= 120


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(st.text(ALPHABET + "?Ä", min_size=1, max_size=12), max_size=20))
def test_any_run_has_a_table(tmp_path_factory, texts):
    report = inspect(run(tmp_path_factory.mktemp("run"), [texts]))
    assert f"run of {len(texts)} plates" in counts_as_text(report)


def test_faults_are_told(tmp_path):
    with pytest.raises(PlatemintError, match="nowhere"):
        inspect(tmp_path / "nowhere")
    broken = run(tmp_path, [["AB1"], ["AB2"]]) / "data" / "val-00001-of-00002.parquet"
    broken.write_bytes(broken.read_bytes()[:-30])
    with pytest.raises(PlatemintError, match=broken.name):
        inspect(tmp_path)
    pq.write_table(pa.table({"text": ["AB1"]}), broken)
    with pytest.raises(PlatemintError, match="layout"):
        inspect(tmp_path)


# ------------------------------------------------------------------------------------------------ balance and targets


def balance(folder, texts, target="uniform"):
    return inspect(corpus(folder, [f"{text},train" for text in texts]), target=target)["balance"]


def target_file(folder, *lines):
    path = folder / "target.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_balance_by_hand(tmp_path):
    found = balance(tmp_path, ["A1", "A2", "A3", "B4"])
    letters, digits = found["positions"]
    assert list(letters["counts"]) == list("ABCDEFGHJKLMNPRSTUVWXYZ"), "no I, O, Q: no label has them"
    assert letters["counts"]["A"] == 3 and letters["counts"]["Z"] == 0 and letters["plates"] == 4
    assert letters["expected"]["A"] == letters["expected"]["Z"] == pytest.approx(4 / 23)
    assert letters["absent"] == 21 and letters["max_min"] is None
    assert letters["entropy"] == pytest.approx(0.811278 / math.log2(23), abs=1e-6)
    assert letters["kl"] == pytest.approx(math.log2(23) - 0.811278, abs=1e-6)
    assert letters["gini"] == pytest.approx((20 * 1 + 22 * 3) / (23 * 4))
    assert digits["kl"] == pytest.approx(math.log2(10 / 4)) and digits["gini"] == pytest.approx(0.6)
    assert found["overall"]["kl_mean"] == pytest.approx((letters["kl"] + digits["kl"]) / 2)
    assert found["overall"]["kl"] == pytest.approx((letters["kl"] + digits["kl"]) / 2), "each class is of one position"
    assert found["overall"]["plates"] == 8 and found["overall"]["absent"] == 21 + 6


def test_kinds_that_share_a_position_are_each_compared_with_themselves(tmp_path):
    texts = [*LETTERS] * 3 + [*DIGITS] * 7
    even = balance(tmp_path, texts)["positions"][0]
    assert even["kl"] == pytest.approx(0) and even["entropy"] == pytest.approx(1) and even["absent"] == 0
    assert even["max_min"] == pytest.approx(1) and even["gini"] == pytest.approx(0)
    row = balance(tmp_path, ["京", "京", "1", "1"])["positions"][0]
    assert row["kl"] == pytest.approx((math.log2(31) + math.log2(10)) / 2)


def test_a_table_for_all_positions(tmp_path):
    target = target_file(tmp_path, "character,share", "a,3", "B,1", "C,0")
    found = balance(tmp_path, ["A1", "A2", "A3", "B4"], target)
    letters, digits = found["positions"]
    assert letters["expected"] == {"A": 3, "B": 1} and letters["kl"] == 0 and letters["absent"] == 0
    assert letters["max_min"] == 3 and letters["entropy"] == pytest.approx(0.811278, abs=1e-6), (
        "evenness stays evenness"
    )
    assert digits["kl"] == pytest.approx(math.log2(10 / 4)), "the table does not name digits: evenly"
    swapped = balance(tmp_path, ["AB", "AB", "AB", "BA"], target)["positions"]
    assert swapped[1]["kl"] == pytest.approx(0.25 * math.log2(1 / 3) + 0.75 * math.log2(3))
    unwanted = balance(tmp_path, ["AC"], target)
    assert unwanted["positions"][1]["kl"] is unwanted["overall"]["kl"] is unwanted["overall"]["kl_mean"] is None
    assert unwanted["positions"][1]["expected"]["C"] == 0


def test_a_table_by_position(tmp_path):
    target = target_file(tmp_path, "position;share;character", "0;.5;A", "0;.5;1", "7;1;B")
    first, second = balance(tmp_path, ["AA"] * 4, target)["positions"]
    assert first["kl"] == 1 and first["expected"] == {"1": 2, "A": 2} and first["absent"] == 1
    assert second["kl"] == pytest.approx(math.log2(23)), "the table does not name position 1: evenly"


@settings(max_examples=30, deadline=None)
@given(texts=texts_of_plates, share=st.floats(1e-300, 1e300))
def test_a_table_of_equal_shares_is_uniform(tmp_path_factory, texts, share):
    folder = run(tmp_path_factory.mktemp("run"), [texts])
    plain = inspect(folder)
    table_of_all = Target("uniform", dict.fromkeys(plain["characters"], share))
    same = inspect(folder, target=table_of_all)
    for a, b in zip(plain["balance"]["positions"], same["balance"]["positions"]):
        assert a.pop("counts") == b.pop("counts") and a.pop("expected") == pytest.approx(b.pop("expected"))
        assert a == pytest.approx(b, abs=1e-9)


@pytest.mark.parametrize(
    "lines, said",
    [
        (["letter,share", "A,1"], "line 1: needs the columns position,character,share or character,share"),
        (["character,share"], "line 1: needs the columns"),
        ([""], "line 1: needs the columns"),
        (["character,share", "A,1", "B,much"], "line 3: share: must be a number of 0 or more, not 'much'"),
        (["character,share", "A,-1"], "line 2: share: must be"),
        (["character,share", "A,nan"], "line 2: share: must be"),
        (["character,share", "A,inf"], "line 2: share: must be"),
        (["character,share", "AB,1"], "line 2: character: must be one digit, letter or province, not 'AB'"),
        (["character,share", ",1"], "line 2: character"),
        (["character,share", "-,1"], "line 2: character"),
        (["character,share", "♥,1"], "line 2: character"),
        (["character,share", "A,1", "a,2"], "line 3: character: A has a share already"),
        (["character,share", "A,0"], "share: not one above 0"),
        (["position,character,share", "0,A,1", "1,A,0"], "share: not one above 0 at position 1"),
        (["position,character,share", "first,A,1"], "line 2: position: must be a whole number from 0, not 'first'"),
        (["position,character,share", "-1,A,1"], "line 2: position"),
        (["position,character,share", "1.5,A,1"], "line 2: position"),
        (["position,character,share", "0,A"], "line 2: the row has not as many fields as the header"),
        (["character,share", "A,1,2"], "line 2: the row has not as many fields as the header"),
    ],
)
def test_a_bad_table_is_wrong_use(tmp_path, lines, said):
    path = target_file(tmp_path, *lines)
    result = call("inspect", corpus(tmp_path, ["A1,train"]), "--target", path, "--picture", tmp_path / "map.png")
    assert result.exit_code == 2 and f"{path}" in result.output and said in result.output
    assert not (tmp_path / "map.png").exists()


def test_a_target_that_is_no_table_is_wrong_use(tmp_path):
    (tmp_path / "latin.csv").write_bytes("character,share\nÄ,1\n".encode("latin-1"))
    (tmp_path / "folder.csv").mkdir()
    for name, said in (("nope.csv", "cannot be read"), ("latin.csv", "not UTF-8"), ("folder.csv", "cannot be read"),
                       ("unifrom", "neither uniform nor a .csv file")):  # fmt: skip
        result = call("inspect", corpus(tmp_path, ["A1,train"]), "--target", tmp_path / name)
        assert result.exit_code == 2 and name in result.output and said in result.output


# ------------------------------------------------------------------------------------------------------ near-duplicates


def brute_force(texts, splits):
    """What `near duplicates` counts, pair by pair of plates."""
    plates = [(canonical(text), split) for text, split in zip(texts, splits)]
    same, pairs, flagged = set(), set(), {"same": set(), "one_apart": set()}
    for (i, (a, s)), (j, (b, t)) in combinations(enumerate(plates), 2):
        if s == t:
            continue
        if a == b:
            same.add(a)
            flagged["same"] |= {i, j}
        elif len(a) == len(b) and sum(x != y for x, y in zip(a, b)) == 1:
            pairs.add(frozenset((a, b)))
            flagged["one_apart"] |= {i, j}
    return len(same), len(pairs), {k: dict(Counter(splits[i] for i in found)) for k, found in flagged.items()}


@settings(max_examples=100, deadline=None)
@given(
    plates=st.lists(
        st.tuples(st.text("AO0Q1I-京", min_size=1, max_size=4), st.sampled_from(["train", "val", "test"])), max_size=25
    )
)
def test_near_duplicates_are_those_of_brute_force(plates):
    texts, splits = [text for text, _ in plates], [split for _, split in plates]
    found = near_duplicates(texts, splits)
    same, pairs, flagged = brute_force(texts, splits)
    assert found["same"]["texts"] == same and found["same"]["plates"] == flagged["same"]
    assert found["one_apart"]["pairs"] == pairs and found["one_apart"]["plates"] == flagged["one_apart"]
    for kind, count in (("same", same), ("one_apart", pairs)):
        examples = found[kind]["examples"]
        assert len({str(example) for example in examples}) == len(examples) == min(SHOWN, count)
        for example in examples:
            (s, a), (t, b) = example.items()
            assert (a, s) in plates and (b, t) in plates
            assert brute_force([a, b], [s, t])[:2] == ((1, 0) if kind == "same" else (0, 1))
    assert json.loads(json.dumps(found)) == found


def test_near_duplicates_by_hand(tmp_path):
    report = inspect(
        corpus(tmp_path, ["ABO123,train", "AB-0123,val", "AB0124,val", "AB0125,val", "XY1,train", "XY12,val"])
    )
    near = report["near"]
    assert near["same"] == {
        "texts": 1,
        "plates": {"train": 1, "val": 1},
        "examples": [{"train": "ABO123", "val": "AB-0123"}],
    }
    assert near["one_apart"] == {
        "pairs": 2,
        "plates": {"train": 1, "val": 2},
        "examples": [{"train": "ABO123", "val": "AB0124"}, {"train": "ABO123", "val": "AB0125"}],
    }
    said = counts_as_text(report)
    assert "train ABO123 = val AB-0123" in said and "train ABO123 ~ val AB0124" in said
    assert "one character apart: 2 (plates: train 1, val 2)" in said
    assert "near " not in counts_as_text(inspect(corpus(tmp_path, ["AB1,val", "AB1,val", "AB2,val"]))), (
        "there is one split only"
    )


# ------------------------------------------------------------------------------------------------------------- heat map


def brightness(pixel):
    return float(np.dot(pixel, (0.2126, 0.7152, 0.0722)))


EMPTY, PALE, PAPER, UNFINISHED = (
    tuple(bytes.fromhex(name[1:])) for name in (heatmap.EMPTY, heatmap.PALE, heatmap.PAPER, heatmap.UNFINISHED)
)


def cell(report, image, row, character, panel=0):
    rows, left = corner(report, row, character, panel)
    return image[rows : rows + CELL - 1, left : left + CELL - 1]


@cache
def page_of(report):
    return figure_of(json.loads(report))


def corner(report, row, character, panel=0):
    """The pixel, counted from the top and from the left, where a cell begins."""
    page = page_of(json.dumps(report))
    part = report["against"] if "against" in report and not panel else report
    below = row + GAP * (row == len(part["balance"]["positions"]))
    left, up = page.axes[panel].transData.transform((columns(report["characters"])[character], below))
    return round(page.bbox.height - up), round(left)


def fill(box):
    """The colour a cell is filled with: that of its corner."""
    return tuple(int(v) for v in box[0, 0])


@given(doublings=st.floats(-DOUBLINGS, DOUBLINGS - 1))
def test_twice_as_frequent_is_brighter(doublings):
    assert brightness(colour(2 * 2**doublings)) > brightness(colour(2**doublings)) + 10


def test_colours_tell_multiples_of_what_is_wanted(tmp_path):
    counts = dict(zip(DIGITS, (1, 2, 4, 8, 16, 3, 3, 3, 0, 0)))
    report = inspect(corpus(tmp_path, [f"{c},train" for c, n in counts.items() for _ in range(n)]))
    image = draw(report)
    assert image.dtype == np.uint8 and image.ndim == 3
    fills = {c: fill(cell(report, image, 0, c)) for c in DIGITS}
    for c, n in counts.items():
        assert fills[c] == (colour(n / 4) if n else fill(cell(report, image, 0, "9")))
    assert [brightness(fills[c]) for c in "01234"] == sorted(brightness(fills[c]) for c in "01234")
    inks = [len(np.unique(cell(report, image, 0, c).reshape(-1, 3), axis=0)) for c in "01234"]
    assert min(inks) > 3, "counts are written in"


def test_marks(tmp_path):
    target = target_file(tmp_path, "character,share", *(f"{c},1" for c in "0123456789A"))
    report = inspect(corpus(tmp_path, [*["A1,train"] * 12, "B2,train"]), target=target)
    image = draw(report)
    zero, rare = cell(report, image, 1, "3"), cell(inspect_few := few(tmp_path), draw(inspect_few), 0, "7")
    assert (zero == UNFINISHED).all(-1).sum() > 20 and (zero == PAPER).all(-1).mean() > 0.4
    assert (rare == PALE).all(-1).sum() > 20 and not (rare == UNFINISHED).all(-1).any()
    assert (cell(report, image, 0, "3") == EMPTY).all() and (cell(report, image, 1, "C") == EMPTY).all()
    unwanted = cell(report, image, 0, "B")
    assert fill(unwanted) == UNFINISHED and tuple(unwanted[4, 4]) == colour(2**DOUBLINGS)
    for row, character in ((0, "A"), (1, "1")):
        assert not (cell(report, image, row, character) == UNFINISHED).all(-1).any()


def few(folder):
    return inspect(corpus(folder, ["1,train", "2,train"]))


def test_before_and_after_have_one_scale(tmp_path):
    (tmp_path / "before").mkdir()
    uneven = ["A0", "A0", "A0", "A1", "B1", "B1", "C1", "D2"]
    before = corpus(tmp_path / "before", [f"{text},train" for text in uneven])
    after = corpus(tmp_path, [f"{text},train" for text in uneven * 9 + ["A0京Q"]])
    report = inspect(after, before)
    assert report["path"] == str(after) and report["against"]["path"] == str(before)
    assert report["characters"] == report["against"]["characters"] and "京" in report["characters"]
    image = draw(report)
    for row in (0, 1):
        both = report["against"]["balance"]["positions"][row], report["balance"]["positions"][row]
        for character, count in both[0]["counts"].items():
            for panel, part in enumerate(both):
                n, wanted = part["counts"][character], part["expected"][character]
                if n:
                    assert fill(cell(report, image, row, character, panel)) == colour(n / wanted)
    assert report["balance"]["positions"][0]["counts"]["Q"] == 0, "in use at a later position, after"
    said = counts_as_text(report)
    beside = [line for line in said.splitlines() if line.startswith("position 1 ")][-1].split("|")
    assert beside[0].split()[2] == "8" and beside[1].split()[0] == "73"
    assert len(report["balance"]["positions"]) == 4 and len(report["against"]["balance"]["positions"]) == 2


def test_every_character_has_its_name_over_its_column(tmp_path):
    report = inspect(corpus(tmp_path, ["京A1,train"]))
    image = draw(report)
    assert report["characters"] == DIGITS + "ABCDEFGHJKLMNPRSTUVWXYZ" + PROVINCES
    names = set()
    for character in report["characters"]:
        top, left = corner(report, 0, character)
        names.add(image[top - 24 : top - 2, left : left + CELL].tobytes())
    assert len(names) == len(report["characters"]), "none is a box or a question mark, none is cut off"


@settings(max_examples=5, deadline=None)
@given(
    texts=st.lists(st.text(ALPHABET + "?Ä", min_size=1, max_size=12), max_size=20),
    before=st.none() | st.lists(st.text(ALPHABET, min_size=1, max_size=12), max_size=20),
)
def test_any_run_has_a_picture_with_its_margins_free(tmp_path_factory, texts, before):
    folder = run(tmp_path_factory.mktemp("run" * 60), [texts])
    report = inspect(folder, None if before is None else run(tmp_path_factory.mktemp("before"), [before]))
    image = draw(report)
    assert (image[:, -10:] == PAPER).all() and (image[-8:] == PAPER).all() and (image[:, :10] == PAPER).all()
    assert np.array_equal(draw(json.loads(json.dumps(report, allow_nan=False))), image), "JSON has every figure"
    assert counts_as_text(json.loads(json.dumps(report))) == counts_as_text(report)


# --------------------------------------------------------------------------------------------------------- command line


def call(*args):
    result = CliRunner().invoke(run_pipeline.main, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_the_picture_is_written_beside_any_output(tmp_path):
    labels, picture = corpus(tmp_path, ["A1,train", "B1,val"]), tmp_path / "new" / "map.png"
    plain = call("inspect", labels)
    assert plain.exit_code == 0 and not picture.exists()
    drawn = call("inspect", labels, "--picture", picture, "--json", "--against", labels)
    assert drawn.exit_code == 0 and os.listdir(picture.parent) == ["map.png"]
    report = json.loads(drawn.stdout)
    assert report["against"]["balance"] == report["balance"] and report["near"]["one_apart"]["pairs"] == 1
    assert np.array_equal(cv2.imread(str(picture))[..., ::-1], draw(report)), "the whole picture, from the JSON alone"
    again = picture.read_bytes()
    assert call("inspect", labels, "--picture", picture, "--against", labels).stdout.startswith(plain.stdout[:40])
    assert picture.read_bytes() == again


def test_a_picture_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    labels, picture = corpus(tmp_path, ["A1,train"]), tmp_path / "map.png"
    picture.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = call("inspect", labels, "--picture", picture)
    assert result.exit_code == 1 and "map.png" in result.output and "No space left" in result.output
    assert picture.read_bytes() == b"old" and sorted(os.listdir(tmp_path)) == ["0.jpg", "labels.csv", "map.png"]


def test_a_picture_of_another_name_is_wrong_use(tmp_path):
    labels = corpus(tmp_path, ["A1,train"])
    for wrong in (tmp_path / "map.jpg", tmp_path):
        assert call("inspect", labels, "--picture", wrong).exit_code == 2
    assert call("inspect", labels, "--against", tmp_path / "nope").exit_code == 2
    assert sorted(os.listdir(tmp_path)) == ["0.jpg", "labels.csv"]


def test_the_even_target_has_a_name():
    assert read_target("uniform") == Target()
