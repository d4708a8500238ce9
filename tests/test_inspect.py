"""Inspecting corpora and runs: every plate is counted, once, where it belongs."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inspect import inspect, table
from pipeline.plate import ALPHABET, PlatemintError

texts_of_plates = st.lists(st.text("AB0189-·京沪", min_size=1, max_size=9), min_size=1, max_size=40)


def corpus(folder, lines):
    path = folder / "labels.csv"
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
    labels = ["AB12,train", "AC12,train", "AB13,val", "ab-1 2,val", ",val", "Ж1,train"]
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
    lines = table(report).splitlines()
    heading, letters = next((a, b) for a, b in zip(lines, lines[1:]) if a.startswith("letters"))
    assert "8.00" in letters
    bars = dict(zip(heading[heading.index("A") :], letters[heading.index("A") :]))
    assert bars["A"] == "█" and bars["B"] == "▄" and bars["C"] == "▁" and bars["D"] == "·"
    provinces = lines[next(n for n, line in enumerate(lines) if line.startswith("provinces")) + 1]
    assert provinces.split()[-1].startswith("██▅▅··"), "as wide as the characters above"
    assert "train 8, val 5" in table(report)


def test_the_table_of_a_large_variety_stays_short(tmp_path):
    patterns = [f"{n:06b}".replace("0", "A").replace("1", "7") for n in range(64)]
    text = table(inspect(corpus(tmp_path, [f"{pattern},train" for pattern in patterns])))
    assert "and 56 more" in text and len(text.splitlines()) < 30 and max(map(len, text.splitlines())) <= 120


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(st.text(ALPHABET + "?Ä", min_size=1, max_size=12), max_size=20))
def test_any_run_has_a_table(tmp_path_factory, texts):
    report = inspect(run(tmp_path_factory.mktemp("run"), [texts]))
    assert f"run of {len(texts)} plates" in table(report)


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
