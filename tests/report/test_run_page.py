"""The page of a run: its figures are the run's, it opens in a browser, filters, and shows no photograph unasked."""

import base64
import io
import json
import re
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image
from stand_ins import Lucky, recipe

from platemint import run_pipeline
from platemint.pipeline.recipe import GenerateRecipe
from platemint.pipeline.report import gallery as gallery_module
from platemint.pipeline.report.corpus_page import corpus_remarks
from platemint.pipeline.report.gallery import HEIGHTS, WIDTHS, Gallery, gallery
from platemint.pipeline.report.inspect import PATTERN
from platemint.pipeline.report.page import for_script, heat_maps, histograms
from platemint.pipeline.report.run_page import (
    PAGE,
    PAGE_WITH_SOURCES,
    _never_seen,
    _of_other_splits,
    _read_otherwise,
    run_page,
)
from platemint.pipeline.run import generate
from platemint.pipeline.write import SAYS, scores


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of rendered plates, its page written at its end."""
    folder = tmp_path_factory.mktemp("page") / "run"
    made = recipe(folder)
    generate(made, stages=Lucky(made))
    return folder


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def rows_of(run, kind):
    return [row for file in sorted(run.glob(f"{kind}/*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_every_figure_is_the_runs(run):
    text = (run / PAGE).read_text(encoding="utf8")
    accepted, dropped, data = rows_of(run, "data"), rows_of(run, "dropped"), data_of(text)
    for figure, name in ((120, "asked for"), (len(accepted), "accepted"), (len(dropped), "tries dropped")):
        assert f"<b>{figure}</b>{name}" in text
    shown = {(t, data["reason"]["values"][r], k) for t, r, k in zip(data["text"], data["reason"]["of"], data["round"])}
    assert shown == {(row["text"], row.get("reason") or "", row["round"]) for row in [*accepted, *dropped]}
    bars = re.findall(r"accepted: ([\d,]+), dropped: ([\d,]+)", text)
    scores = len(data["scores"])
    assert sum(int(a) for a, _ in bars) == scores * len(accepted)
    assert sum(int(d) for _, d in bars) == scores * len(dropped)


def test_why_plates_were_dropped_is_said_in_words_with_the_patterns_it_befell(run):
    text, dropped, accepted = (run / PAGE).read_text(encoding="utf8"), rows_of(run, "dropped"), rows_of(run, "data")
    for reason in {row["reason"] for row in dropped}:
        times = sum(row["reason"] == reason for row in dropped)
        meaning, count = re.search(
            rf'<tr><td>{reason}</td><td>(.*?)</td><td class="number">([\d,]+)</td>', text
        ).groups()
        assert int(count) == times and (SAYS[reason] in meaning or reason == "swapped") and len(meaning) > 20
    patterns = re.findall(r'<tr><td>([DLPS]+)</td><td class="number">(\d+)</td><td class="number">(\d+)</td>', text)
    assert patterns
    of = {
        name: [sum(row["text"].translate(PATTERN) == name for row in rows) for rows in (accepted, dropped)]
        for name, *_ in patterns
    }
    assert [(name, str(sum(of[name])), str(of[name][1])) for name, *_ in patterns] == patterns
    assert len(of) == len(patterns) <= 8


REPORT = {"balance": {"overall": {"counts": {"A": 5, "京": 2, "沪": 0}}}}


def test_what_to_look_at_first_is_said_with_its_count():
    accepted = {
        "text": np.array(["AB-10", "AB 1I", "京A1", "X9"]),
        "reading": np.array(["AB1O", "AB7I", "京A1", "X9"]),
        "split": np.array(["train", "val", "val", "test"]),
        "score_reader": np.array([0.9, 0.921, 0.95, 0.92]),
    }
    other, alike = _read_otherwise(accepted, 0.85)
    assert not other.good and other.reason == "read otherwise" and "On 1 of 4" in other.text
    assert "0.93 instead of 0.85 would have dropped 1 of them and 2 others" in other.text
    assert alike.reason == "O for 0, I for 1" and "On 1 plates" in alike.text and "(1 plates hold" in alike.text
    assert "instead" not in _read_otherwise(accepted | {"score_reader": np.ones(4)}, 0.85)[0].text  # no threshold helps
    [same] = _read_otherwise({name: column[2:] for name, column in accepted.items()}, 0.85)
    assert same.good and not same.reason and "On none of 2" in same.text
    [new] = _never_seen(REPORT | {"against": {"balance": {"overall": {"counts": {"A": 9}}}}})
    assert not new.good and new.characters == ("京",) and "2 times" in new.text
    [known] = _never_seen(REPORT | {"against": REPORT})
    assert known.good and _never_seen(REPORT) == []
    of_corpus = GenerateRecipe(source={"path": "x"})
    [splits] = _of_other_splits(of_corpus, accepted)
    assert "1 of split test and 2 of split val" in splits.text
    assert _of_other_splits(GenerateRecipe(), accepted) == []


def test_kept_plates_that_are_read_otherwise_are_marked_for_the_wall():
    texts = [("AB-10", "AB1O", ""), ("AB-10", "AB17", ""), ("AB-10", "AB17", "reader"), ("AB-10", "", "")]
    plates = [{"text": t, "reading": r, "reason": reason, "images": []} for t, r, reason in texts]
    assert for_script(Gallery(plates, 4))["otherwise"] == [1, 2, 0, 2]
    assert for_script(Gallery([{"text": "A", "images": []}], 1))["otherwise"] == [
        0
    ]  # of a corpus, which nobody has read


def test_scores_are_told_apart_however_small():
    plates = [{"text": "A", "images": [], "score_residue": score} for score in (2.7e-4, 2.9e-5, 0.0)]
    first, second, third = for_script(Gallery(plates, 3), ["residue"])["scores"]["residue"]
    assert first > second > third == 0


def test_the_highest_bar_is_one_that_is_drawn():
    [drawn] = histograms({"min_slots": 0.6}, {"slots": ([3, 10] + 18 * [0], [7, 4] + 18 * [0])})
    assert drawn["highest"] == 10 and max(high for _, _, high, _ in drawn["bars"]) == 100


def test_a_corpus_is_judged_before_it_is_used():
    counts = {"京": 90, "沪": 10, "津": 0}
    row = {"counts": counts, "expected": dict.fromkeys(counts, 100 / 3), "position": 0}
    report = {
        "balance": {"positions": [row], "overall": row},
        "repeated": {"texts": 2},
        "set_aside": {"no label": 3},
        "splits": {"train": 100},
    }
    said = corpus_remarks(report)
    assert not any(remark.good for remark in said[1:]) and "津 Tianjin" in said[1].text
    assert "3 times" in said[0].text and said[0].good  # 2.7 times its share
    row["counts"] = {"京": 99, "沪": 1, "津": 0} | dict.fromkeys("渝冀", 0)
    row["expected"] = dict.fromkeys(row["counts"], 20)
    assert "At position 0 京 Beijing stands on 99 plates, 5 times its share" in corpus_remarks(report)[0].text
    row["counts"] = dict.fromkeys(row["counts"], 20)
    good = report | {"repeated": {"texts": 0}, "set_aside": {}, "splits": {"train": 9, "val": 1}}
    assert all(remark.good for remark in corpus_remarks(good))


def test_provinces_have_a_table_of_their_own():
    row = {"counts": {"A": 5, "京": 2}, "expected": {"A": 4.0, "京": 3.0}, "entropy": 0.9}
    maps = heat_maps({"characters": "A京", "balance": {"positions": [row | {"position": 0}], "overall": row}})
    assert [("".join(part["characters"]), len(part["rows"])) for part in maps] == [("A", 2), ("京", 2)]
    assert [part["rows"][0]["entropy"] for part in maps] == [0.9, None]
    first = {"position": 0, "counts": {"京": 2}, "expected": {"京": 3.0}, "entropy": 0.5}  # where no letter may stand
    maps = heat_maps({"characters": "A京", "balance": {"positions": [first], "overall": row}})
    assert [part["rows"][0]["entropy"] for part in maps] == [0.5, None]
    with_more = {"characters": "A京", "balance": {"positions": [], "overall": row | {"counts": {"A": 5}}}}
    against = {"balance": {"positions": [], "overall": row}}
    titles = [part["title"] for part in heat_maps(with_more | {"against": against})]
    assert titles == ["in the corpus", "in the corpus, other characters", "in the run"]  # which no province may be in


def test_pictures_are_small_and_those_of_their_rows(run):
    found = gallery(run)
    assert found.total == len(found.plates) == len(rows_of(run, "data")) + len(rows_of(run, "dropped"))
    by_place = {(row["index"], row["round"]): row for row in rows_of(run, "data")}
    for plate in found.plates:
        small = np.asarray(Image.open(io.BytesIO(base64.b64decode(plate["images"][2]))))
        assert small.shape[0] <= HEIGHTS[0] and small.shape[1] <= WIDTHS * HEIGHTS[0]
        if not plate.get("reason"):
            whole = np.asarray(Image.open(io.BytesIO(by_place[plate["index"], plate["round"]]["image"]["bytes"])))
            assert abs(small.mean() - whole.mean()) < 6


def test_pictures_stop_at_a_budget(run, monkeypatch):
    monkeypatch.setattr(gallery_module, "MOST_BYTES", 50_000)
    found = gallery(run)
    names = 1_000  # of fields, and values that plates have in common
    assert 20_000 < len(json.dumps(for_script(found, scores(recipe(run))))) <= 50_000 + names
    assert len(found.plates) < found.total and {bool(plate.get("reason")) for plate in found.plates} == {True, False}


def test_pictures_are_as_tall_as_lets_all_plates_fit(run, monkeypatch):
    def tallest():
        decoded = (Image.open(io.BytesIO(base64.b64decode(plate["images"][2]))) for plate in gallery(run).plates)
        return max(picture.height for picture in decoded)

    rows = len(rows_of(run, "data")) + len(rows_of(run, "dropped"))
    monkeypatch.setattr(gallery_module, "HEIGHTS", (16, 8))  # the run's own pictures are small
    monkeypatch.setattr(gallery_module, "BYTES", {16: 5_000, 8: 0})
    for budget, height in ((3 * rows * 5_000, 16), (3 * rows * 5_000 - 1, 8)):
        monkeypatch.setattr(gallery_module, "MOST_BYTES", budget)
        assert tallest() == height


def test_a_script_in_a_text_stays_text(run):
    facts = (run / "recipe.yaml").read_text(encoding="utf8")
    try:
        (run / "recipe.yaml").write_text(facts + "# </script><script>alert(1)</script>\n", encoding="utf8")
        assert "<script>alert(1)" not in run_page(run, stages=Lucky(recipe(run)))
    finally:
        (run / "recipe.yaml").write_text(facts, encoding="utf8")


def test_it_loads_nothing(run):
    text = (run / PAGE).read_text(encoding="utf8")
    assert "default-src 'none'" in text
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", text) and "url(" not in text


def corpus(folder, run):
    """A labelled corpus of a run's pictures: they stand for photographs."""
    folder.mkdir()
    rows = rows_of(run, "data")
    for row in rows:
        (folder / f"{row['index']}.png").write_bytes(row["image"]["bytes"])
    lines = [f"{row['index']}.png,{row['text']},train" for row in rows]
    (folder / "labels.csv").write_text("\n".join(["path,text,split", *lines]) + "\n", encoding="utf8")
    return folder / "labels.csv"


def with_column(labels, name, values):
    """A further column in a table of labels, its values in turn; returns them."""
    first, *rows = labels.read_text(encoding="utf8").splitlines()
    chosen = [values[i % len(values)] for i in range(len(rows))]
    lines = [f"{first},{name}", *(f"{row},{value}" for row, value in zip(rows, chosen))]
    labels.write_text("\n".join(lines) + "\n", encoding="utf8")
    return chosen


def test_photographs_are_shown_only_where_asked(run, tmp_path, untrained):
    out, labels = tmp_path / "run", corpus(tmp_path / "corpus", run)
    kinds = with_column(labels, "country", ("UY", "PY", "PY"))
    with_column(labels, "group", ("customer-17", "customer-23"))
    fields = untrained.model_dump(include={"checkpoint", "reader", "batch"})
    least = dict.fromkeys(("source_reader", "reader", "mask_reader", "slots", "stability"), 0)
    limits = {f"min_{name}": value for name, value in least.items()} | {"rounds": 2, "max_residue": 1}
    made = recipe(out, 24, edit=fields, filter=limits, source={"path": str(labels)})
    generate(made)
    plain = data_of((out / PAGE).read_text(encoding="utf8"))
    assert plain["text"] and not any(images[0] for images in plain["images"])
    names = {row["source"] for row in rows_of(out, "data")}
    assert names and not any(name in (out / PAGE).read_text(encoding="utf8") for name in names)
    page = (out / PAGE).read_text(encoding="utf8")
    found = re.findall(r"<tr><td>(UY|PY)</td>" + 3 * r'<td class="number">(\d+)(?: \(\d+ %\))?</td>', page)
    assert {name: int(count) for name, count, *_ in found} == dict(Counter(kinds)) and "customer" not in page
    for column, part in ((2, "data"), (3, "dropped")):
        assert sum(int(row[column]) for row in found) == len(rows_of(out, part))
    before = (out / PAGE).read_bytes()
    result = CliRunner().invoke(run_pipeline.main, ["report", str(out), "--sources"])
    assert result.exit_code == 0 and result.output.strip() == str(out / PAGE_WITH_SOURCES)
    assert (out / PAGE).read_bytes() == before
    text = (out / PAGE_WITH_SOURCES).read_text(encoding="utf8")
    data = data_of(text)
    assert all(images[0] for images in data["images"]) and "do not pass it on" in text
    of = {row["text"] for row in rows_of(run, "data")}
    assert {*data["was"]} <= of and not any(plain["was"])  # the texts of photographs are shown with them alone


def test_an_unfinished_run_is_refused(tmp_path):
    result = CliRunner().invoke(run_pipeline.main, ["report", str(tmp_path)])
    assert result.exit_code == 2 and "holds no finished run" in result.output


def test_a_table_of_evaluate_lpr_is_shown(run):
    mean = {"mean": 0.5, "low": 0.4, "high": 0.6}
    arm = {"name": "real + edits", "fraction": 1.0, "learned": 100, "plates": mean, "characters": 0.75}
    report = {"learned": 1, "tested": 2, "left_out": 0, "steps": 3, "seeds": 1, "arms": [arm], "rare": []}
    assert "Not measured: whether" in run_page(run, stages=Lucky(recipe(run)))
    try:
        (run / "lpr.json").write_text(json.dumps(report))
        text = run_page(run, stages=Lucky(recipe(run)))
    finally:
        (run / "lpr.json").unlink()
    assert "real + edits" in text and "50.0 (40.0..60.0)" in text and "Not measured: whether" not in text


def test_a_corpus_has_a_page(run, tmp_path):
    labels, html = corpus(tmp_path / "corpus", run), tmp_path / "corpus.html"
    (tmp_path / "corpus" / "0.png").write_bytes(b"no picture")
    result = CliRunner().invoke(run_pipeline.main, ["inspect", str(labels), "--html", str(html)])
    assert result.exit_code == 0, result.output
    data, rows = data_of(html.read_text(encoding="utf8")), rows_of(run, "data")
    assert sorted(data["text"]) == sorted(row["text"] for row in rows if row["index"])
    assert all(images[2] for images in data["images"])


def test_a_corpus_whose_table_names_kinds_shows_them(run, tmp_path):
    labels, html = corpus(tmp_path / "corpus", run), tmp_path / "corpus.html"
    kinds = with_column(labels, "country", ("UY", "PY", "PY"))
    assert CliRunner().invoke(run_pipeline.main, ["inspect", str(labels), "--html", str(html)]).exit_code == 0
    text = html.read_text(encoding="utf8")
    for kind in ("UY", "PY"):
        assert re.search(rf"<span>{kind}</span>.*?>{kinds.count(kind)}</span>", text)
