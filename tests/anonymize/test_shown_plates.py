"""Plates on the page of an anonymized dataset: cut out of its output, whatever kind of files it is, and nothing else."""

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from stand_ins import Stamps, anonymized, frames
from test_anonymize_containers import WRITERS, corpus

from platemint.pipeline.anonymize import run
from platemint.pipeline.anonymize.compare import verify_against
from platemint.pipeline.corpora.datasets import Annotation, open_any
from platemint.pipeline.corpora.rectify import views_of
from platemint.pipeline.report import gallery
from platemint.pipeline.storage import decode

PLATES = {"gatehouse": ["KQZ4831", "XYZ-777"], "WVU6420_back": ["WVU6420", ""], "courtyard": []}


def on_page(out: Path) -> dict:
    text = (out / "audit.html").read_text(encoding="utf8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def small(plate: list[str]) -> bytes:
    return base64.b64decode(plate[2].replace(":", ""))


def cuts(root: Path) -> set[bytes]:
    """Small copies of all annotated plates of a dataset, as they are in its files."""
    found = set()
    for frame in open_any(root, "").frames:
        pixels = decode((root / frame.path).read_bytes())
        copies = [gallery._small(view.cut(pixels), gallery.HEIGHTS[0]) for view in views_of(frame.annotations, pixels)]
        found.update(map(base64.b64decode, copies))
    return found


def source_words(root: Path) -> list[str]:
    """Texts, names and hashes of a dataset, letters and digits alone."""
    files = [path for path in root.rglob("*") if path.is_file()]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    words = [*(t for texts in PLATES.values() for t in texts if t), *PLATES, *hashes, root.name]
    return ["".join(c for c in word.upper() if c.isalnum()) for word in words]


def test_every_picture_is_cut_out_of_the_output_and_none_out_of_the_source(tmp_path):
    source, out = frames(tmp_path / "SRC5555", PLATES), tmp_path / "out"
    assert anonymized(source, out)["plates"]["replaced"] == 3
    data = on_page(out)
    shown = {small(plate) for plate in data["images"]}
    assert shown == cuts(out) and len(shown) == 4 and not shown & cuts(source)
    labels = {a.text for frame in open_any(out, "").frames for a in frame.annotations}
    assert {*data["text"]} == labels and "annotated without a text" in data["reason"]["values"]


def test_nothing_on_the_page_is_of_the_source(tmp_path):
    source, out = frames(tmp_path / "SRC5555", PLATES), tmp_path / "out"
    anonymized(source, out)
    said = "".join(c for c in (out / "audit.html").read_text(encoding="utf8").upper() if c.isalnum())
    assert [word for word in source_words(source) if word in said] == []
    assert verify_against(out, source).faults == []  # which searches the page, too


@pytest.mark.parametrize("format", WRITERS)
def test_pictures_of_files_of_many_are_shown_as_well(tmp_path, format):
    source, out = corpus(tmp_path / "in", format), tmp_path / "out"
    anonymized(source, out)
    data = on_page(out)
    assert len(data["images"]) == 12 and all(Image.open(io.BytesIO(small(p))).format == "WEBP" for p in data["images"])
    assert verify_against(out, source).faults == []


def test_a_plate_that_is_given_up_says_why_and_has_the_scores_of_its_last_edit(tmp_path):
    class Doubtful(Stamps):
        @staticmethod
        def scores_of(plate):
            return {"reader": 0.375, "residue": 0.0}

    out = tmp_path / "out"
    anonymized(frames(tmp_path / "in", {"a": ["KQZ4831"]}), out, Doubtful)
    data = on_page(out)
    assert data["text"] == [""] and data["reason"]["values"] == ["the new text was not read from the plate"]
    assert data["scores"]["reader"] == [0.38] and "given up: 1" in (out / "audit.html").read_text()


def test_of_what_may_not_be_passed_on_nothing_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "may_leave", lambda audit: False)
    anonymized(frames(tmp_path / "in", {"a": ["KQZ4831"]}), tmp_path / "out")
    assert on_page(tmp_path / "out")["images"] == []


def test_pieces_of_base64_spell_nothing_and_half_of_a_large_wall_are_unreadable_plates(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "MOST_NEW", 10)
    file = tmp_path / "a.png"
    Image.new("RGB", (60, 20), "teal").save(file)
    plates = [
        gallery.NewPlate(file, (Annotation("X", ()),), 0, f"AB{n}", "reader" if n % 2 else "", {}) for n in range(40)
    ]
    found = gallery.anonymized_gallery(plates)
    assert found.total == 40 and len(found.plates) == 10 and sum(bool(p["reason"]) for p in found.plates) == 5
    assert max(len(piece) for plate in found.plates for piece in plate["images"][2].split(":")) == gallery.UNSPELLED
    given_up = [bool(plate["reason"]) for plate in found.plates]
    assert given_up not in (sorted(given_up), sorted(given_up, reverse=True))  # mixed
    few = gallery.anonymized_gallery([p for p in plates if p.reason] + plates[:3])
    assert sum(bool(p["reason"]) for p in few.plates) >= 8
