"""The audit page: every figure in words, nothing that runs or comes from elsewhere, nothing of the dataset."""

import html
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner
from stand_ins import anonymized, frames

from platemint import run_pipeline
from platemint.pipeline.anonymize.audit import made_with
from platemint.pipeline.anonymize.replacement import ENHANCED
from platemint.pipeline.recipe import AnonymizeRecipe
from platemint.pipeline.report.audit_page import SHA256_COMMAND, audit_settings, not_covered, page
from platemint.pipeline.report.gallery import Gallery

AUDIT = {
    "plates": {"replaced": 1234, "redacted": 5, "withheld": 0},
    "reasons": {"source read": 3, "no text": 2, "-": 0},
    "annotations": {"left_over": 0, "pictures_withheld": 0},
    "pictures": {"written": 900, "withheld": 0, "set_aside": 7, "without_annotation": 11},
    "files_not_copied": 13,
    "pixels": {"pixels": 1_000_000, "changed": 2_000, "outside": 0},
    "source_characters": {"looked_for": 8638, "in_view": 0, "not_placed": 21},
    "source_texts": {"searched": 1100, "too_short_to_search": 4, "found": 0, "files": 1801, "bytes": 123_456_789},
    "identity": "none",
    "not_covered": ["vehicles may still identify"],
    "kept": {"picture_paths": 899, "columns": ["licence"]},
    "output": {"sha256": "0a" * 32, "command": SHA256_COMMAND},
}


SCORES = Counter(
    {("reader", True, 19): 1200, ("reader", False, 3): 5, ("residue", True, 0): 1204, ("residue", False, 9): 1}
)


class Elements(HTMLParser):
    """All tags, their attributes, and that each is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in ("meta", "input", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


PLATES = Gallery(
    [
        {"text": f"AB{n}", "reason": "" if n % 3 else "source read", "layout": "", "split": "", "images": ["", "", ""],
         "score_reader": n / 70}
        for n in range(70)
    ], 1239,
)  # fmt: skip


def shown(audit=AUDIT, **fields):
    recipe = AnonymizeRecipe(source={"path": "/data/ABC1234"}, out="/data/XYZ9876", **fields)
    facts = audit | {"settings": audit_settings(recipe), "made_with": made_with(recipe)}
    return page(facts, recipe, ENHANCED, PLATES, SCORES)


def test_every_figure_is_there_in_words():
    text = shown()
    for figure in ("1,234", "1,100", "123,456,789", "900", "13", "0.85", "0.2"):
        assert re.search(rf"\b{re.escape(figure)}\b", text), figure
    assert "the old text might still be read" in text and "sharpened" in text
    assert "No text of the dataset was found" in text and "vehicles may still identify" in text
    assert len(re.findall(r"\b[0-9a-f]{64}\b", text)) == 4  # generator, reader, finder and the output
    assert "<td>-</td>" not in text


def test_it_is_one_file_that_loads_nothing_and_names_nothing():
    text = shown()
    elements = Elements(text)
    assert not elements.open
    assert not elements.tags & {"link", "img", "iframe", "object"} and not elements.attributes & {"src", "action"}
    assert all(target.startswith("#") for target in re.findall('href="(.*?)"', text))
    assert "default-src 'none'" in text and "url(" not in text and "ABC1234" not in text and "XYZ9876" not in text


def test_the_audit_comes_first_and_is_printed_without_the_rest():
    text = shown()
    parts = [
        text.index(part)
        for part in ('class="result"', "Decision</h2>", '<div class="screen">', 'id="plates"', 'id="scores"')
    ]
    assert parts == sorted(parts) and "@media print { .screen { display: none; }" in text


def test_scores_are_drawn_with_their_thresholds():
    text = shown()
    assert "replaced: 1,200, given up: 0" in text and "replaced: 0, given up: 5" in text
    assert "reader: at least 0.85 is replaced" in text and "residue: at most 0.2 is replaced" in text


@pytest.mark.parametrize(
    "section, name", [("source_texts", "found"), ("source_characters", "in_view"), ("pixels", "outside")]
)
def test_what_must_not_be_passed_on_says_so(section, name):
    text = shown(AUDIT | {section: AUDIT[section] | {name: 21}})
    assert "Not to be passed on" in text and "21" in text


def test_everything_is_escaped():
    evil = "<script>alert(1)</script>&"
    text = shown(AUDIT | {"reasons": {evil: 1}, "not_covered": [evil], "identity": evil, evil: {evil: 1}})
    assert text.count("<script") == 2 and text.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;") == 5


def read(text):
    """What a page says, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).split())


def test_it_says_what_is_signed_and_what_has_to_be_done_before():
    said = read(shown()).partition("What is signed")[2]
    assert "1,801 files, written on" in said and "0a" * 32 in said and SHA256_COMMAND in said
    decision = said.partition("Decision")[2]
    assert decision.startswith(" May be passed on when: python run_pipeline.py verify OUTPUT --against DATASET was run")
    bad = read(shown(AUDIT | {"pixels": AUDIT["pixels"] | {"outside": 1}})).partition("What is signed")[2]
    assert "Decision May not be passed on: see" in bad and "☐" not in bad
    left = AUDIT | {"annotations": {"left_over": 2, "pictures_withheld": 5}}
    assert "annotations that found no picture were" in read(shown(left)) and "no picture were" not in decision


def test_names_are_said_to_have_changed_only_where_they_have():
    assert "new texts, and 1 pictures other names" in read(shown())
    same = AUDIT | {"kept": AUDIT["kept"] | {"picture_paths": 900}}
    assert "other names" not in read(shown(same))


def test_it_says_what_still_leads_to_the_originals():
    said = " ".join(not_covered(AnonymizeRecipe(), {}, AUDIT["kept"], 900))
    assert "899 of 900 pictures kept their path" in said and "columns kept: licence" in said
    assert "columns kept" not in " ".join(not_covered(AnonymizeRecipe(), {}, {"picture_paths": 0, "columns": []}, 0))


@pytest.mark.parametrize(
    "identity, words", [("keyed", "pseudonymised, not anonymous"), ("within this run", "belong together")]
)
def test_it_says_what_links_plates(identity, words):
    assert words in shown(AUDIT | {"identity": identity})


def test_it_says_what_became_of_doubtful_plates():
    assert "made unreadable. A plate" in shown()
    assert "kept out of the output with its whole picture" in shown(on_doubt="withhold")


def test_it_lists_what_was_given_up_as_far_as_a_page_goes():
    items = [{"id": f"id{k}", "outcome": "redacted", "reason": "source read"} for k in range(1207)]
    few, many = shown(AUDIT | {"given_up": items[:3]}), shown(AUDIT | {"given_up": items})
    assert few.count("redacted: the old text might still be read") == 3 and "id2<" in few
    assert many.count("redacted: the old") == 200 and "id199<" in many and "1,007 more stand in audit.json" in many
    assert "more stand in" not in few and "Plates given up" not in shown(AUDIT | {"given_up": []})


def test_report_names_the_page_of_an_anonymized_dataset_with_nothing_of_its_source(tmp_path):
    plates = {"gatehouse": ["KQZ4831", "XYZ-777"], "WVU6420_back": ["WVU6420", ""], "courtyard": []}
    out = tmp_path / "out"
    anonymized(frames(tmp_path / "in", plates), out)
    result = CliRunner().invoke(run_pipeline.main, ["report", str(out)])
    assert result.exit_code == 0 and result.output.strip() == str(out / "audit.html")
    text = (out / "audit.html").read_text(encoding="utf8")
    said = "".join(c for c in text.upper() if c.isalnum())
    of_the_source = ("KQZ4831", "XYZ777", "WVU6420", "GATEHOUSE", "COURTYARD")
    assert not [word for word in of_the_source if word in said] and "<h1>Audit of an anonymized dataset</h1>" in text
    assert not (out / "report.html").exists()


@pytest.mark.parametrize("options, missing, says", [
    (["--sources"], "", "no page of it shows what it was made from"), ([], "audit.html", "has no audit.html"),
])  # fmt: skip
def test_report_makes_no_other_page_of_an_anonymized_dataset(tmp_path, options, missing, says):
    out = tmp_path / "out"
    anonymized(frames(tmp_path / "in", {"a": ["KQZ4831"]}), out)
    if missing:
        (out / missing).unlink()
    result = CliRunner().invoke(run_pipeline.main, ["report", str(out), *options])
    assert result.exit_code == 2 and says in result.output
    assert not (out / "report.html").exists()
