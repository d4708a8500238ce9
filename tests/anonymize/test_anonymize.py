"""Datasets written anew with other plates: labels say what pictures say, nothing real gets out, whatever goes wrong."""

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import stand_ins
from PIL import Image
from stand_ins import Stamps, anonymized, frames, stamped, write_target
from test_shown_plates import cuts, on_page, small

from platemint import run_pipeline
from platemint.pipeline.anonymize.anonymizer import ENCODED
from platemint.pipeline.anonymize.compare import verify_against
from platemint.pipeline.anonymize.picture import open_picture
from platemint.pipeline.anonymize.pseudonyms import Keyed, read_key
from platemint.pipeline.anonymize.search import scan
from platemint.pipeline.anonymize.unfinished import UNFINISHED
from platemint.pipeline.corpora.datasets import open_dataset, rewrite_dataset
from platemint.pipeline.corpora.rectify import views_of
from platemint.pipeline.filter import Filter
from platemint.pipeline.find import TextFinder
from platemint.pipeline.plate import PlatemintError, Readings, characters, same_reading, within_one
from platemint.pipeline.recipe import AnonymizeRecipe
from platemint.pipeline.render import load_layouts, photograph, random_text
from platemint.pipeline.storage import FORMATS
from platemint.pipeline.text_frame import cut_out, is_whole

HERE = Path(__file__).parents[1]
PLATES = {
    "train/ABC1234_front": ["ABC1234"],
    "train/seen-abc-1234": ["ABC1234", "XYZ-777", "ABC-1234"],
    "val/two": ["KLM5556", "ABC1234"],
    "val/bare": [],
    "val/dark": ["", "KLM5556"],
}
TEXTS = ["ABC1234", "XYZ-777", "KLM5556"]


def dataset(root: Path, plates: dict[str, list[str]] = PLATES) -> Path:
    """Stand-in frames, in folders."""
    for folder in {Path(name).parent for name in plates}:
        frames(root / folder, {Path(n).name: texts for n, texts in plates.items() if Path(n).parent == folder})
    return root


def shown(out: Path) -> dict[str, list[tuple[str, str]]]:
    """{picture: [(label, what is stamped on the plate)]} of a written dataset."""
    found = {}
    for frame in open_dataset(out).frames:
        pixels = open_picture(out / frame.path).pixels
        plates = zip(frame.annotations, views_of(frame.annotations, pixels))
        found[frame.path] = [(annotation.text, stamped(view.cut(pixels))) for annotation, view in plates]
    return found


def is_clean(out: Path, texts: list[str] = TEXTS) -> bool:
    """Whether no file, name or picture has a text."""
    stamps = [stamped(cv2.imread(str(path))[..., ::-1]) for path in out.rglob("*.png")]
    return not scan(out, texts).hits and not any(characters(t) in characters(s) for t in texts for s in stamps)


def adds_up(audit: dict) -> bool:
    plates, pictures = audit["plates"], audit["pictures"]
    counted = sum(plates[outcome] for outcome in ("replaced", "redacted", "withheld", "set_aside"))
    seen = sum(pictures[outcome] for outcome in ("written", "withheld", "set_aside"))
    given_up = plates["redacted"] + plates["withheld"]
    listed = Counter(item["outcome"] for item in audit["given_up"])
    aside = pictures["set_aside"] + audit["missing_pictures_and_other_faults"]
    return (counted, seen, sum(audit["reasons"].values()), aside) == (
        plates["annotated"], pictures["found"], given_up, listed["set aside"]
    ) and listed["redacted"] + listed["withheld"] == given_up  # fmt: skip


# ------------------------------------------------------------------------------------------------- what is written


def test_the_output_is_the_same_dataset_with_other_plates(tmp_path):
    corpus, out = dataset(tmp_path / "in"), tmp_path / "out"
    audit = anonymized(corpus, out)
    assert audit["plates"] == {"annotated": 8, "replaced": 7, "redacted": 1, "withheld": 0, "set_aside": 0}
    assert audit["pictures"]["written"] == 5 and audit["pictures"]["without_annotation"] == 1 and adds_up(audit)
    assert audit == json.loads((out / "audit.json").read_text()) and not (out / UNFINISHED).exists()
    before, after = open_dataset(corpus), open_dataset(out)
    assert after.format == before.format and not after.set_aside
    places = [
        sorted((f.split, [annotation.corners for annotation in f.annotations]) for f in d.frames)
        for d in (before, after)
    ]
    assert places[0] == places[1]
    labels = [pair for pairs in shown(out).values() for pair in pairs]
    assert all(characters(label) == characters(stamp) for label, stamp in labels)
    assert sum(bool(label) for label, _ in labels) == 7
    assert not any(label in Readings(TEXTS) for label, _ in labels if label) and is_clean(out)


def test_the_audit_says_what_it_was_made_with_and_no_path(tmp_path):
    secret = {"list_file": str(tmp_path / "LST1111"), "key_file": str(tmp_path / "KEY2222"), "name": "NAM3333"}
    fields = secret | {"draw": {"reserved": ["RSV4444"]}, "filter": {"max_residue": 0.15}, "on_doubt": "withhold"}
    audit = anonymized(dataset(tmp_path / "SRC5555"), tmp_path / "out", **fields)
    scores = {f"filter.{name}": limit for name, limit in AnonymizeRecipe(**fields).filter}
    assert audit["settings"] == {"on_doubt": "withhold"} | scores
    assert len(audit["made_with"]["generator, sha256"]) == 64 and "torch" in audit["made_with"]
    for name in ("audit.json", "audit.html"):
        text = (tmp_path / "out" / name).read_text()
        assert not [word for word in ("LST1111", "KEY2222", "NAM3333", "RSV4444", "SRC5555", "tmp") if word in text]
    assert "0.15" in (tmp_path / "out/audit.html").read_text()


def test_names_that_are_plates_change_and_others_stay(tmp_path):
    anonymized(dataset(tmp_path / "in"), tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert {"val/two.png", "val/bare.png", "val/dark.png"} < names
    (front,) = [name for name in names if name.endswith("_front.png")]
    (seen,) = [name for name in names if name.startswith("train/seen-")]
    for name, text in ((front, front[6:13]), (seen, seen[11:-4])):
        assert text.upper() in {characters(label) for label, _ in shown(tmp_path / "out")[name]} | {
            label for label, _ in shown(tmp_path / "out")[name]
        }


def test_pixels_outside_of_plates_stay(tmp_path):
    corpus, out = dataset(tmp_path / "in", {"a": ["ABC1234", "XYZ-777", ""], "b": []}), tmp_path / "out"
    audit = anonymized(corpus, out)
    for frame in open_dataset(corpus).frames:
        before, after = (open_picture(root / frame.path).pixels for root in (corpus, out))
        outside = np.ones(before.shape[:2], bool)
        for x1, y1, x2, y2 in (view.box for view in views_of(frame.annotations, before)):
            outside[y1:y2, x1:x2] = False
        changed = (before != after).any(2)
        assert not changed[outside].any() and changed.any() == bool(frame.annotations)
    assert audit["pixels"]["outside"] == 0 < audit["pixels"]["changed"]


def texts_of(out: Path) -> dict[str, set[str]]:
    """{name of a picture: new texts} where names stay."""
    return {Path(path).stem: {characters(label) for label, _ in pairs} for path, pairs in shown(out).items()}


ONE_CAR = {"one": ["ABC1234", "ABC-1234"], "two": ["ABC1234"], "three": ["ABC 1234"]}


def test_by_default_a_plate_has_one_new_text_in_a_frame_and_another_one_elsewhere(tmp_path):
    anonymized(dataset(tmp_path / "in", ONE_CAR), tmp_path / "out")
    found = list(texts_of(tmp_path / "out").values())
    assert all(len(texts) == 1 for texts in found) and len(set.union(*found)) == 3


class Luckless(Stamps):
    """Two edits in three are not read right, so that plates of one text come to different attempts."""

    @staticmethod
    def scores_of(plate):
        unlucky = plate.target and hash((plate.target, plate.original.tobytes())) % 3
        return Stamps.scores_of(plate) | ({"reader": 0.5} if unlucky else {})


@pytest.mark.parametrize("consistent", [False, True])
@pytest.mark.parametrize("stages", [Stamps, Luckless])
def test_labels_are_right_whatever_attempt_a_plate_needs(tmp_path, stages, consistent):
    plates = {f"{k:02d}": ["ABC1234", "XYZ777", "ABC-1234"] for k in range(40)}
    audit = anonymized(dataset(tmp_path / "in", plates), tmp_path / "out", stages, track_consistent=consistent)
    found = shown(tmp_path / "out")
    assert adds_up(audit) and is_clean(tmp_path / "out")
    assert (audit["plates"]["redacted"] > 20) == (stages is Luckless) and audit["plates"]["replaced"] > 5
    for pairs in found.values():
        assert all(characters(label) == characters(stamp) for label, stamp in pairs if label)
        assert characters(pairs[0][0]) == characters(pairs[2][0])
    for k in (0, 1):
        new = {pairs[k][0] for pairs in found.values() if pairs[k][0]}
        assert len(new) <= 1 if consistent else len(new) > 1


def test_tracks_hold_within_a_run_and_not_between_runs(tmp_path):
    corpus, runs = dataset(tmp_path / "in", ONE_CAR), []
    for name in ("first", "second"):
        anonymized(corpus, tmp_path / name, track_consistent=True)
        runs.append(set.union(*texts_of(tmp_path / name).values()))
    assert len(runs[0]) == len(runs[1]) == 1 and runs[0] != runs[1]


def test_a_key_gives_the_same_texts_in_every_run_and_dataset(tmp_path):
    key = tmp_path / "key"
    other = dataset(tmp_path / "other", {"x": ["QRS999"], "y": ["ABC-1234"]})
    for corpus, name in ((dataset(tmp_path / "in", ONE_CAR), "1"), (tmp_path / "in", "2"), (other, "3")):
        assert anonymized(corpus, tmp_path / name, key_file=str(key))["identity"] == "keyed"
    first, second, third = (texts_of(tmp_path / name) for name in "123")
    assert first == second and set.union(*first.values()) == third["y"]
    files = [path.read_bytes() for name in "123" for path in (tmp_path / name).rglob("*") if path.is_file()]
    assert not any(key.read_bytes().strip() in data for data in files)


@pytest.mark.parametrize("doubt", ["redact", "withhold"])
def test_a_keyed_text_that_is_a_real_plate_is_not_used(tmp_path, doubt):
    taken = Keyed(read_key(tmp_path / "key", ()), ())("ABC1234", "")
    corpus = dataset(tmp_path / "in", {"a": ["ABC1234"], "b": [taken]})
    audit = anonymized(corpus, tmp_path / "out", key_file=str(tmp_path / "key"), on_doubt=doubt)
    assert audit["plates"]["replaced"] == 1 and audit["reasons"] == {"no new text is free": 1} and adds_up(audit)
    assert is_clean(tmp_path / "out", ["ABC1234", taken])
    assert ("a" in texts_of(tmp_path / "out")) == (doubt == "redact")


# --------------------------------------------------------------------------------------------------------- in doubt


class Leaves(Stamps):
    """The source as it is."""

    @staticmethod
    def image_of(plate):
        return plate.image


class Half(Stamps):
    """Half of the characters are the source's."""

    @staticmethod
    def image_of(plate):
        half = plate.target[:3] + plate.text[3:]
        if half == plate.target:  # which a drawn text may be by chance
            half = plate.text[:3] + plate.target[3:]
        return write_target(stand_ins.replace(plate, target=half))


class Unmarked(Stamps):
    """The edit is right, its masks are empty: what is pasted would be nothing."""

    def stamp(self, plates):
        blank = [np.zeros(plate.image.shape[:2], np.uint8) for plate in plates]
        edited = zip(super().stamp(plates), blank)
        return [stand_ins.replace(plate, source_mask=mask, target_mask=mask) for plate, mask in edited]


class Faint(Stamps):
    """The old text is seen once the contrast is stretched: then all is brighter, and the reader knows it for that."""

    def scored(self, plates):
        plates = super().scored(plates)
        for plate in plates:
            if plate.image.max() == 255 and plate.target:
                plate.reading = plate.original_text
        return plates


class Unsure(Stamps):
    @staticmethod
    def scores_of(plate):
        return {"reader": 0.6, "residue": 0.1}


class Mislabelled(Stamps):
    """Edits leave the source, whose label is wrong, so that nobody finds the label's text."""

    @staticmethod
    def image_of(plate):
        return plate.image

    @staticmethod
    def scores_of(plate):
        return {"reader": 0.1, "residue": 0.0}


@pytest.mark.parametrize("doubt", ["redact", "withhold"])
@pytest.mark.parametrize("stages", [Leaves, Half, Unmarked, Faint, Unsure, Mislabelled])
def test_what_is_not_proven_gone_does_not_leave(tmp_path, stages, doubt):
    corpus, out = dataset(tmp_path / "in"), tmp_path / "out"
    audit = anonymized(corpus, out, stages, on_doubt=doubt)
    assert audit["plates"]["replaced"] == 0 and adds_up(audit) and is_clean(out)
    assert audit["source_texts"]["found"] == 0
    if doubt == "redact":
        assert audit["plates"]["redacted"] == 8 and not any(label for some in shown(out).values() for label, _ in some)
    else:  # only the picture without plates is left
        assert audit["plates"]["withheld"] == 8 and audit["pictures"]["withheld"] == 4
        assert sorted(os.listdir(out)) == ["audit.html", "audit.json", "val"] and os.listdir(out / "val") == [
            "bare.png"
        ]


class Blind(Stamps):
    """Is sure of nothing that it reads from a photograph. mask: what it makes of masks."""

    mask, reads = 0.9, "ABC"

    def scored(self, plates):
        scores = {"stability": 0.9, "slots": 0.9, "mask_reader": self.mask, "reader": 0.0, "residue": 0.0}
        return [
            stand_ins.replace(p, reading=self.reads if p.text == p.original_text else "", scores=scores) for p in plates
        ]


class Blinder(Blind):
    mask = 0.05


class BlindToIdleness(Blind, Leaves):
    pass


class Elsewhere(Blind):
    reads = "SUNTRUP"  # something else stands where the plate is annotated


def test_where_the_photograph_is_unreadable_the_mask_has_to_prove_the_text(tmp_path):
    corpus = dataset(tmp_path / "in", {"a": ["ABC1234"]})
    assert anonymized(corpus, tmp_path / "1", Blind)["plates"]["replaced"] == 1
    assert anonymized(corpus, tmp_path / "2", Blinder)["plates"]["redacted"] == 1
    assert anonymized(corpus, tmp_path / "3", BlindToIdleness)["plates"]["redacted"] == 1
    assert anonymized(corpus, tmp_path / "4", Elsewhere)["reasons"] == {"not read where it is annotated": 1}


def test_texts_that_cannot_be_written_and_overlapping_plates_are_given_up(tmp_path):
    corpus = dataset(tmp_path / "in", {"a": ["ABC1234", "ABCDEFG123456"], "b": ["KLM5556", "KLM5556"], "c": ["X"]})
    (corpus / "b.txt").write_text("b.png\t8\t10\t60\t30\tKLM5556\nb.png\t12\t12\t60\t30\tKLM5556\n")
    (corpus / "c.txt").write_text("c.png\t8\t10\t60\t30\t警A12345\n", encoding="utf-8")
    audit = anonymized(corpus, tmp_path / "out")
    assert audit["reasons"] == {"a text that cannot be written": 2, "overlaps another plate": 2}
    assert audit["plates"]["replaced"] == 1 and adds_up(audit)
    assert is_clean(tmp_path / "out", ["ABC1234", "ABCDEFG123456"])
    assert not scan(tmp_path / "out", ["KLM5556"]).hits
    assert "警" not in (tmp_path / "out/c.txt").read_text(encoding="utf-8")


class Inked(Stamps):
    """Writes in a dark blue. Who sees any other colour there, or none at all, reads the old text, but of XYZ-777."""

    ink = np.array([0, 0, 60], np.uint8)

    def stamp(self, plates):
        edited = stand_ins.edit(plates)
        for plate in edited:
            plate.image = np.where(plate.target_mask[..., None] > 0, self.ink, plate.original)
            plate.source_mask = np.zeros_like(plate.target_mask)
        return edited

    def scored(self, plates):
        return [stand_ins.replace(p, reading=p.original_text if self.spoilt(p) else p.text) for p in self.rated(plates)]

    def rated(self, plates):
        sure = dict.fromkeys(("stability", "slots", "mask_reader", "reader"), 0.9)
        return [stand_ins.replace(p, scores=sure | {"residue": 0.9 * self.spoilt(p)}) for p in plates]

    def spoilt(self, plate):
        """Looks that keep colours in their places tell; an untouched plate is what it says."""
        if not plate.target or plate.original_text == "XYZ-777" or plate.image.shape != plate.original.shape:
            return False
        return (plate.image[plate.target_mask == 255][:, :2] > 0).any()


class Unforeseen(Inked):
    """As if encoding did to plates what it did not do to each of them alone."""

    def items(self, frame, pixels, texts, coded=None):
        return super().items(frame, pixels, texts)


@pytest.mark.parametrize("doubt", ["redact", "withhold"])
@pytest.mark.parametrize("kind, reason", [(Inked, "residue"), (Unforeseen, ENCODED)])
@pytest.mark.parametrize("mode, suffix, holds", [("RGB", "png", True), ("RGB", "jpg", False), ("L", "png", False)])
def test_plates_have_to_hold_in_the_file_that_leaves(tmp_path, mode, suffix, holds, doubt, kind, reason):
    """JPEG moves colours, and a gray picture has none: what was proven of the pixels is not so of the file."""
    corpus, out = frames(tmp_path / "in", {"a": ["ABC1234", "XYZ-777", "ABC-1234"], "b": ["XYZ-777"]}), tmp_path / "out"
    for path in list(corpus.glob("*.png")):
        soft = Image.fromarray(np.full((100, 240, 3), 150, np.uint8)).convert(mode)
        path.unlink()
        soft.save(path.with_suffix(f".{suffix}"), **({"quality": 70} if suffix == "jpg" else {}))
        note = path.with_suffix(".txt")
        note.write_text(note.read_text().replace(".png", f".{suffix}"))
    audit = anonymized(corpus, out, kind, on_doubt=doubt)
    assert adds_up(audit) and audit["pixels"]["outside"] == 0
    found = {frame.path: frame for frame in open_dataset(out).frames}
    dark = {path: (open_picture(out / path).pixels < 75).all(2).any(0) for path in found}
    assert dark[f"b.{suffix}"].any() and found[f"b.{suffix}"].annotations[0].text
    if holds:
        assert audit["plates"]["replaced"] == 4
    elif doubt == "redact":
        assert audit["plates"] | {"replaced": 2, "redacted": 2} == audit["plates"]
        assert sum(audit["reasons"].values()) == 2 and reason in audit["reasons"]
        assert [bool(annotation.text) for annotation in found[f"a.{suffix}"].annotations] == [False, True, False]
        assert [bool(dark[f"a.{suffix}"][x : x + 60].any()) for x in (8, 84, 160)] == [False, True, False]
    else:
        assert list(found) == [f"b.{suffix}"] and audit["pictures"]["withheld"] == 1


class Uneven(Unforeseen):
    """One of two plates of one text is spoilt by encoding."""

    def spoilt(self, plate):
        return plate.original_text != "ABC-1234" and super().spoilt(plate)


def test_the_same_plate_twice_shares_the_fate_that_encoding_decides(tmp_path):
    corpus = frames(tmp_path / "in", {"a": ["ABC1234", "ABC-1234", "XYZ-777"]})
    Image.fromarray(np.full((100, 240), 150, np.uint8)).save(corpus / "a.png")
    audit = anonymized(corpus, tmp_path / "out", Uneven)
    assert audit["reasons"] == {ENCODED: 1, "the same plate twice": 1} and audit["plates"]["replaced"] == 1
    (frame,) = open_dataset(tmp_path / "out").frames
    assert sorted(bool(annotation.text) for annotation in frame.annotations) == [False, False, True]


def test_memory_is_bound_by_pixels_too(tmp_path, monkeypatch):
    corpus = frames(tmp_path / "in", {f"{k:02d}": ["ABC1234"] for k in range(20)})
    together = []

    class Watched(Stamps):
        def encoded(self, pictures):
            together.append(len(pictures))
            return super().encoded(pictures)

    assert anonymized(corpus, tmp_path / "1", Watched)["plates"]["replaced"] == 20 and sorted(together) == [4, 16]
    together.clear()
    monkeypatch.setattr("platemint.pipeline.anonymize.shard.PIXELS", 3 * 240 * 100 - 1)
    assert anonymized(corpus, tmp_path / "2", Watched)["plates"]["replaced"] == 20 and Counter(together) == {3: 6, 1: 2}


def ccpd(indices: str) -> str:
    return f"025-95_113-20&30_121&66-121&66_20&66_20&30_121&30-{indices}-37-15"


def test_every_format_can_say_that_a_plate_has_no_text(tmp_path):
    """And names that were such a text stay names, inside of the folder."""
    plain = {"ABC1234/x/ABC1234": ["ABC1234"], "abc1234": ["ABC1234"], "train/x/abc-1234": ["ABC1234"]}
    anonymized(dataset(tmp_path / "openalpr", plain), tmp_path / "openalpr-out", Leaves)
    assert len(shown(tmp_path / "openalpr-out")) == 3 and is_clean(tmp_path / "openalpr-out")

    pictures = {
        "ccpd": [ccpd("0_0_22_27_27_33_16"), ccpd("31_3_3_24_25_26_27"), "no-plate"],
        "names": ["ABC1234_1", "ABC1234_2"],
    }
    pictures |= {"tiny": ["1"], "table": ["1"], "gt": ["my car"]}
    notes = {
        "tiny": ("1.txt", "ABC1234 20 30 121 66 121 66 20 66 20 30 121 30\n"),
        "table": ("labels.csv", "path,text\n1.png,ABC1234\n"),
        "gt": ("gt.txt", "my car.png\tABC1234\n"),
    }
    for name, files in pictures.items():
        frames(tmp_path / name, dict.fromkeys(files, []))
        if name in notes:
            (tmp_path / name / notes[name][0]).write_text(notes[name][1])
        audit = anonymized(tmp_path / name, tmp_path / f"{name}-out", Leaves)
        assert audit["plates"]["redacted"] == len(set(files) - {"no-plate"}) and audit["source_texts"]["found"] == 0
        if name == "names":  # which hold no text any more
            there = ["audit.html", "audit.json", "unreadable_1.png", "unreadable_2.png"]
            assert sorted(os.listdir(tmp_path / "names-out")) == there
            continue
        again = open_dataset(tmp_path / f"{name}-out")
        assert again.format == open_dataset(tmp_path / name).format and not again.set_aside
        assert len(again.frames) == len(files)
        assert not any(annotation.text for frame in again.frames for annotation in frame.annotations)
        assert all(frame.annotations for frame in again.frames if frame.path != "no-plate.png")


class Partial(Stamps):
    """One plate's edits are never read right."""

    @staticmethod
    def scores_of(plate):
        return Stamps.scores_of(plate) | ({"reader": 0.5} if plate.target and plate.original_text == "ABC1234" else {})


def test_withheld_pictures_are_withheld_from_names_and_lists_too(tmp_path):
    plates = {"ABC1234/1": ["ABC1234", "XYZ-777"], "ABC1234/2": ["KLM5556"], "abc1234-empty": []}
    corpus = dataset(tmp_path / "in", plates)
    (corpus / "train.txt").write_text("ABC1234/1.png\nABC1234/2.png\n")
    audit = anonymized(corpus, tmp_path / "out", Partial, on_doubt="withhold")
    assert audit["pictures"] == {"found": 3, "written": 2, "without_annotation": 1, "withheld": 1, "set_aside": 0}
    assert audit["reasons"] == {"reader": 1, "in one picture with another": 1} and adds_up(audit)
    (listed,) = (tmp_path / "out/train.txt").read_text().splitlines()
    assert (tmp_path / "out" / listed).is_file() and is_clean(tmp_path / "out")


# ---------------------------------------------------------------------------------------------- what was given up


def listed(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("doubt", ["redact", "withhold"])
def test_the_owner_can_look_up_what_was_given_up_and_nobody_else(tmp_path, doubt):
    corpus = dataset(tmp_path / "in", {"ABC1234/1": ["XYZ-777", "ABC1234"], "ABC1234/2": ["KLM5556"], "dark": [""]})
    (corpus / "BAD1000.png").write_bytes(b"ABC1234")
    audits = []
    for run in ("first", "second"):
        audit = anonymized(corpus, tmp_path / run, Partial, on_doubt=doubt, list_file=str(tmp_path / f"{run}.csv"))
        rows = listed(tmp_path / f"{run}.csv")
        assert adds_up(audit) and (tmp_path / f"{run}.csv").stat().st_mode & 0o777 == 0o600
        assert sorted(r["id"] for r in rows) == [item["id"] for item in audit["given_up"]]
        for item in audit["given_up"]:
            (row,) = [row for row in rows if row["id"] == item["id"]]
            assert row["outcome"] == item["outcome"] and item["reason"] in (row["reason"], "could not be used")
            assert re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){7}", item["id"])
        audits.append(audit)
    found = {(r["picture"], r["plate"], r["text"], r["outcome"], r["reason"]) for r in rows}
    assert found >= {
        ("dark.png", "1", "", "redacted", "no text"),
        ("BAD1000.png", "", "", "set aside", f"not a picture ({', '.join(FORMATS)})"),
    }
    if doubt == "redact":
        assert ("ABC1234/1.png", "2", "ABC1234", "redacted", "reader") in found and len(found) == 3
    else:
        assert ("ABC1234/1.png", "2", "ABC1234", "withheld", "reader") in found and len(found) == 4
        assert ("ABC1234/1.png", "1", "XYZ-777", "withheld", "in one picture with another") in found
    first, second = ({item["id"] for item in audit["given_up"]} for audit in audits)
    assert not first & second  # nothing but the salt of a run makes ids
    assert not scan(tmp_path / "second", ["ABC1234", "XYZ-777", "BAD1000"]).hits


def test_a_fault_that_quotes_a_plate_is_told_to_the_owner_alone(tmp_path):
    corpus = dataset(tmp_path / "in", {"a": ["ABC1234"], "b": ["KLM5556"]})
    (corpus / "a.txt").write_text("a.png\t8\tABC1234\t60\t30\tABC1234\n")
    audit = anonymized(corpus, tmp_path / "out", list_file=str(tmp_path / "list.csv"))
    (row,) = listed(tmp_path / "list.csv")
    assert row["picture"] == "a.png" and "ABC1234" in row["reason"]
    assert [item["outcome"] for item in audit["given_up"]] == ["set aside"] and "ABC1234" not in json.dumps(audit)
    assert "set aside" in (tmp_path / "out/audit.html").read_text() and is_clean(tmp_path / "out")


def test_a_list_of_an_interrupted_run_is_replaced(tmp_path):
    corpus, own = dataset(tmp_path / "in", {"dark": [""]}), tmp_path / "list.csv"
    for out in "12":
        anonymized(corpus, tmp_path / out, list_file=str(own))
    assert len(listed(own)) == 1 and own.stat().st_mode & 0o777 == 0o600
    assert {p.name for p in tmp_path.iterdir()} == {"in", "1", "2", "list.csv"}


# ------------------------------------------------------------------------------------------------------ bad input


@pytest.fixture
def bad(tmp_path):
    """A dataset in which much is wrong; five plates in four good pictures."""
    corpus = dataset(tmp_path / "in", PLATES | {f"train/BAD100{k}": [f"BAD100{k}"] for k in range(6)})
    folder = corpus / "train"
    (folder / "BAD1000.txt").write_text("BAD1000.png\t200\t80\t60\t30\tBAD1000\n")  # outside
    (folder / "BAD1001.txt").write_text("BAD1001.png\t8\t10\t60\t30\tBAD1001\nBAD1001.png\t8\t10\t60\t30\tBAD1111\n")
    (folder / "BAD1002.png").unlink()
    (folder / "BAD1003.png").rename(tmp_path / "elsewhere.png")
    (folder / "BAD1003.png").symlink_to(tmp_path / "elsewhere.png")
    (folder / "BAD1004.png").write_bytes((folder / "BAD1004.png").read_bytes()[:9000])
    (folder / "BAD1005.txt").write_text("BAD1005.png\t8\t10\t60\n")
    (folder / "BAD1001-again.png").write_bytes((corpus / "val/bare.png").read_bytes())
    (folder / "thesis.odt").write_text("BAD1001")
    (corpus / "BAD1000").mkdir()
    (corpus / "BAD1000" / "bare.png").write_bytes((corpus / "val/bare.png").read_bytes())
    return corpus


BAD_TEXTS = [*TEXTS, *(f"BAD100{k}" for k in range(6)), "BAD1111"]


def test_bad_input_is_set_aside_counted_and_named_nowhere(bad, tmp_path, capfd):
    audit = anonymized(bad, tmp_path / "out", progress=sys.stderr)
    assert audit["plates"] == {"annotated": 15, "replaced": 7, "redacted": 1, "withheld": 0, "set_aside": 7}
    assert audit["pictures"] == {"found": 11, "written": 4, "without_annotation": 0, "withheld": 3, "set_aside": 4}
    assert audit["annotations"] == {"left_over": 2, "pictures_withheld": 3}
    assert audit["missing_pictures_and_other_faults"] == 3 and audit["files_not_copied"] == 1 and adds_up(audit)
    assert is_clean(tmp_path / "out", BAD_TEXTS) and audit["source_texts"]["searched"] == 10
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    told = "".join(capfd.readouterr()) + (tmp_path / "out/audit.json").read_text()
    assert not [text for text in (*BAD_TEXTS, "front", "elsewhere", "thesis", "two.", str(bad)) if text in told]


def test_the_program_names_no_plate_and_tells_the_audit(call, bad, tmp_path):
    result = call(bad, "--out", tmp_path / "out")
    assert result.exit_code == 3 and json.loads(result.stdout)["plates"]["replaced"] == 7
    assert (
        "2 annotations of plates belong to no picture" in result.stderr
        and "Mend the annotation file's name" in result.stderr
    )
    assert not [text for text in (*BAD_TEXTS, "front", "elsewhere", "two.") if text in result.output]


AWKWARD = [
    "ABC1234",
    "xyz-777",
    "ABCDEFG123456",
    "警A12345",
    '"KLM,5556"',
    "%s%d%n",
    "{plate}",
    "\\u0041BC",
    "<b>QRS</b>",
    "-",
]


def quoted(result) -> list[str]:
    """Which awkward texts, or names of pictures after them, the program has told."""
    names = [f"picture-{k}" for k in range(len(AWKWARD))]
    parts = {text.strip('"') for text in AWKWARD if len(text) > 1} | {characters(text.upper()) for text in AWKWARD[:3]}
    return [word for word in (*parts, *names) if word in result.output + result.stderr]


@pytest.fixture
def awkward(tmp_path):
    corpus = dataset(tmp_path / "in", {f"picture-{k}": [text] for k, text in enumerate(AWKWARD)})
    (corpus / "ABC1234.png").write_bytes(b"ABC1234")
    (corpus / "picture-1.txt").write_text("picture-1.png\txyz-777\t1\t1\t1\txyz-777\n")
    return corpus


@pytest.mark.parametrize("options", [[], ["--on-doubt", "withhold"], ["--track-consistent"], ["--key-file", "key"]])
def test_nothing_real_is_told_whatever_plates_say(call, awkward, tmp_path, options, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platemint.pipeline.progress.Progress.add", lambda self, *counts: self.tell())
    result = call(awkward, "--out", tmp_path / "out", "--list", tmp_path / "list", *options)
    assert result.exit_code == 0 and quoted(result) == [] and "pictures" in result.stderr
    assert "xyz-777" in (tmp_path / "list").read_text()


class Quotes(Stamps):
    """Networks whose faults quote the plate. fault: what they raise."""

    fault: type[Exception]

    def stamp(self, plates):
        raise self.fault(f"{plates[0].text} picture-0")


@pytest.mark.parametrize("fault", [PlatemintError, KeyError, OSError, MemoryError, cv2.error])
def test_faults_in_the_middle_of_a_run_quote_nothing(call, awkward, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(Quotes, "fault", fault, raising=False)
    monkeypatch.setattr("platemint.pipeline.anonymize.plan.Anonymizer", Quotes)
    result = call(awkward, "--out", tmp_path / "out")
    assert result.exit_code == (2 if fault is PlatemintError else 1)
    assert quoted(result) == [] and "Traceback" not in result.output
    read_as, line = result.stderr.splitlines()
    assert "choose one of the whole alphabet" in line if fault is PlatemintError else "left out" in line
    assert (tmp_path / "out" / UNFINISHED).is_dir()


def test_faults_of_names_and_of_writing_quote_nothing(call, tmp_path, monkeypatch):
    def collide(dataset, new):
        raise PlatemintError("picture-0.png and ABC1234.txt: both would become ABC1234")

    corpus = dataset(tmp_path / "in", {"picture-0": ["ABC1234"], "picture-1": ["XYZ-777"]})
    with monkeypatch.context() as patch:
        patch.setattr("platemint.pipeline.anonymize.plan.rewrite_dataset", collide)
        result = call(corpus, "--out", tmp_path / "out")
    assert result.exit_code == 2 and quoted(result) == [] and "without plates" in result.stderr
    rename = os.replace

    def full(old, new):
        if str(new).endswith(".txt"):
            raise OSError(28, "No space left on device", str(new))
        rename(old, new)

    monkeypatch.setattr("os.replace", full)
    result = call(corpus, "--out", tmp_path / "out")
    assert result.exit_code == 1 and quoted(result) == [] and "No space left" in result.stderr


def test_a_text_that_is_found_in_the_output_is_exit_code_1(call, tmp_path, monkeypatch):
    corpus = dataset(tmp_path / "in", {"a": ["ABC1234"]})
    monkeypatch.setattr(
        "platemint.pipeline.anonymize.plan.rewrite_dataset",
        lambda dataset, new: rewrite_dataset(dataset, lambda frame, old: old),
    )
    result = call(corpus, "--out", tmp_path / "out")
    assert result.exit_code == 1 and json.loads(result.stdout)["source_texts"]["found"] == 1
    read_as, line = result.stderr.splitlines()
    assert read_as.startswith("read as ")
    assert line.startswith("NOT TO BE PASSED ON: 1 times") and "--against" in line and "ABC" not in line


def test_the_marks_own_name_is_no_plate(tmp_path):
    assert anonymized(dataset(tmp_path / "in", {"a": ["ZING"]}), tmp_path / "out")["source_texts"]["found"] == 0
    assert not (tmp_path / "out" / UNFINISHED).exists()


def test_what_must_not_be_passed_on_keeps_its_mark_and_can_be_made_again(call, tmp_path, monkeypatch):
    corpus, out = dataset(tmp_path / "in", {"a": ["ABC1234"]}), tmp_path / "out"
    monkeypatch.setattr(
        "platemint.pipeline.anonymize.plan.rewrite_dataset",
        lambda dataset, new: rewrite_dataset(dataset, lambda frame, old: old),
    )
    result = call(corpus, "--out", out, "--list", tmp_path / "list")
    assert result.exit_code == 1 and (out / UNFINISHED).is_dir() and (out / "audit.json").is_file()
    faults = verify_against(out, corpus).faults
    assert any(f.startswith(".anonymizing: the run has not ended") for f in faults)
    assert any(f.startswith("a.txt: spells ABC1234") for f in faults)
    monkeypatch.undo()
    monkeypatch.setattr("platemint.pipeline.anonymize.plan.Anonymizer", Stamps)
    result = call(corpus, "--out", out, "--list", tmp_path / "list")
    assert (
        result.exit_code == 0
        and result.stderr.startswith("read as ")
        and len(result.stderr.splitlines()) == 1
        and not (out / UNFINISHED).exists()
        and is_clean(out)
    )
    assert verify_against(out, corpus).faults == []


def test_wrong_use_is_exit_code_2_and_writes_nothing(call, tmp_path):
    corpus, out = dataset(tmp_path / "in"), tmp_path / "out"
    (tmp_path / "empty").mkdir()
    wrong = {
        "no such folder": [tmp_path / "none"],
        "no annotations found": [tmp_path / "empty"],
        "there is no cocoa": [corpus, "--format", "cocoa"],
        "unknown field": [corpus, "--set", "filter.min_raeder=1"],
        "give one of them": [corpus, "--key-file", tmp_path / "key", "--track-consistent"],
        "keep the key apart": [corpus, "--key-file", corpus / "key"],
        "keep the list apart": [corpus, "--list", corpus / "list"],
        "list: is inside": [corpus, "--list", out / "list"],
        "is no list of this kind": [corpus, "--list", tmp_path / "thesis"],
        "list: is there already": [corpus, "--list", tmp_path / "link"],
        "list: cannot be written there": [corpus, "--list", tmp_path / "none/list"],
        "one file": [corpus, "--list", tmp_path / "key", "--key-file", tmp_path / "empty/../key"],
    }
    (tmp_path / "thesis").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for said, args in wrong.items():
        result = call(*args, "--out", out)
        assert result.exit_code == 2 and said in result.output, result.output
    for inside in (corpus, corpus / "out", tmp_path):
        result = call(corpus, "--out", inside)
        assert result.exit_code == 2 and "--out" in result.output
    assert not out.exists() and not (corpus / "out").exists() and not (tmp_path / "key").exists()
    assert (tmp_path / "thesis").read_text() == "mine" and not (corpus / "list").exists()


def test_a_network_that_is_not_there_is_told_before_anything_is_written(tmp_path):
    program = [sys.executable, run_pipeline.__file__, "anonymize", dataset(tmp_path / "in"), "--out", tmp_path / "out"]
    result = subprocess.run([*program, "--set", "edit.reader=none"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and "edit.reader: none" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_audit_of_the_datasets_own_is_not_overwritten(tmp_path):
    frames(tmp_path / "in", {"a": []})
    image = {"id": 1, "file_name": "a.png"}
    (tmp_path / "in/audit.json").write_text(json.dumps({"images": [image], "annotations": [], "categories": []}))
    with pytest.raises(PlatemintError, match="audit.json of its own"):
        anonymized(tmp_path / "in", tmp_path / "out")


# -------------------------------------------------------------------------------------------- the folder, and accidents


def test_a_folder_that_holds_anything_is_refused_and_left_alone(tmp_path):
    corpus, out = dataset(tmp_path / "in"), tmp_path / "out"
    precious = tmp_path / "precious"
    (precious / "inner").mkdir(parents=True)
    (precious / "inner/thesis").write_text("mine")
    for name, make in {
        "file": lambda: (out / "thesis").write_text("mine"),
        "link": lambda: (out / "link").symlink_to(precious),
        "mark that is a link": lambda: (out / UNFINISHED).symlink_to(precious / "inner"),
    }.items():
        out.mkdir()
        make()
        with pytest.raises(PlatemintError, match="not empty"):
            anonymized(corpus, out)
        assert (precious / "inner/thesis").read_text() == "mine", name
        out.rename(tmp_path / name)
    out.write_text("mine")
    with pytest.raises(PlatemintError, match="cannot be written"):
        anonymized(corpus, out)
    (tmp_path / "way").symlink_to(corpus)
    with pytest.raises(PlatemintError, match="lies in the dataset"):
        anonymized(corpus, tmp_path / "way/out")


def test_what_an_interrupted_run_has_left_is_cleared_and_links_are_not_followed(tmp_path):
    corpus, out = dataset(tmp_path / "in"), tmp_path / "out"
    (out / UNFINISHED).mkdir(parents=True)
    (out / UNFINISHED / "3").write_text("half")
    (out / "train").mkdir()
    (out / "train/old.png").write_text("old")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis").write_text("mine")
    for place in (out / "link", out / "train/link", out / UNFINISHED / "link"):
        place.symlink_to(tmp_path / "precious")
    anonymized(corpus, out)
    anonymized(corpus, tmp_path / "fresh")
    assert sorted(os.listdir(out)) == sorted(os.listdir(tmp_path / "fresh"))
    assert len(list((out / "train").iterdir())) == 4 and (tmp_path / "precious/thesis").read_text() == "mine"


def test_full_and_read_only_disks_are_told_and_nothing_real_is_on_them(mounted, tmp_path):
    corpus, disk = dataset(tmp_path / "in", {f"ABC12{k}": [f"ABC12{k}"] for k in range(10, 50)}), mounted("size=600k")
    texts = [f"ABC12{k}" for k in range(10, 50)]
    with pytest.raises(PlatemintError, match="No space left"):
        anonymized(corpus, disk / "out")
    assert (
        (disk / "out" / UNFINISHED).is_dir() and list((disk / "out" / UNFINISHED).iterdir()) and is_clean(disk, texts)
    )
    subprocess.run(["mount", "-o", "remount,size=9m", disk], check=True)
    assert anonymized(corpus, disk / "out")["plates"]["replaced"] == 40 and not (disk / "out" / UNFINISHED).exists()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(PlatemintError, match="cannot be written.*(?i:read-only)"):
        anonymized(corpus, disk / "other")


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import cv2
from platemint.pipeline.anonymize import plan
from platemint.pipeline.anonymize.search import scan
from platemint.pipeline.anonymize.unfinished import UNFINISHED
from stand_ins import Stamps, anonymized, frames, stamped

plan.PICTURES = SHARD = 4
texts = [f"KLM{k}" for k in range(1000, 1040)]
root = Path(sys.argv[1])
corpus, out, secret, settled = root / "in", root / "out", root / "out" / UNFINISHED / "secret", root / "settled"
plan_file = out / UNFINISHED / "plan.json"
for kind in ("seen", "lost"):
    frames(corpus / kind, {f"{t}-{kind}": [t, t] for t in texts[kind == "lost" :: 2]})

class Counted(Stamps):
    def settle(self, items, tried):
        with open(settled, "a") as file:
            file.write("x" * (len(items) // 2))
        super().settle(items, tried)

def start(renames=None):
    child = os.fork()
    if child == 0:
        if renames is not None:
            left, rename = iter(range(renames)), os.replace
            os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL) if next(left, None) is None else rename(*a)
        try:
            anonymized(corpus, out, Counted)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child

def killed(child):
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)

def check():
    assert not scan(out, texts).hits
    for path in out.rglob("*"):
        if path.is_file() and path.read_bytes()[:4] == b"\\x89PNG" and not path.name.endswith(".part"):
            said = stamped(cv2.imread(str(path))[..., ::-1])
            assert len(said) == 14 and not any(text in said for text in texts), (path, said)
    assert not secret.exists() or secret.stat().st_mode & 0o777 == 0o600
    return secret.read_text() if secret.exists() else ""

began = time.monotonic()
assert not killed(start())
whole = time.monotonic() - began
count = len(list(out.rglob("[!.]*")))
deaths = []
for run in range(4):
    os.system(f"rm -rf '{out}' '{settled}'")
    secrets = []
    for turn in range(100):
        child = start() if turn % 2 else start(random.randrange(1, 60))
        if turn % 2:
            time.sleep(random.uniform(0.1, 0.5) * whole)
            os.kill(child, signal.SIGKILL)
        if not killed(child):
            break
        if out.exists():
            kept = check()
            if (out / "audit.html").exists() and not plan_file.exists():  # had ended, all but its mark
                break
            secrets += [kept] if plan_file.exists() else []
            assert (out / UNFINISHED).exists() or not list(out.glob("[!.]*"))
    deaths.append(turn)
    if (out / UNFINISHED).exists():
        os.system(f"rm -rf '{out / UNFINISHED}'")
    check()
    assert len(list(out.rglob("[!.]*"))) == count and not (out / UNFINISHED).exists()
    assert 40 <= settled.stat().st_size <= 40 + 2 * SHARD * turn  # a kill costs the shard in hand alone
    assert len(set(secrets)) <= 1 and "" not in secrets
print(sum(deaths), min(deaths))
"""


def test_killed_at_any_moment_nothing_real_is_on_disk_and_the_next_run_goes_on(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLS, tmp_path], cwd=HERE, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    deaths, fewest = map(int, done.stdout.split())
    assert deaths >= 5 and fewest >= 1  # of four runs


# ------------------------------------------------------------------------------------------ with the networks that ship


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Frames of noise with rendered plates: upright ones and a tilted one in each, as a table of corners and a UFPR."""
    root, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(5)
    layouts = load_layouts(["ar-mercosur", "us-california", "eu-pl"])
    lines = ["file,text," + ",".join(f"{axis}{i}" for i in range(1, 5) for axis in "xy")]
    for number in range(4):
        frame = cv2.GaussianBlur(rng.integers(0, 256, (400, 640, 3), np.uint8), (0, 0), 3)
        for k, layout in enumerate(list(layouts.values())[:2]):
            text = random_text(layout.positions, rng)
            plate = photograph(layout, [text], 60, 0.1, rng)[0].image
            h, w = plate.shape[:2]
            turn = cv2.getRotationMatrix2D((w / 2, h / 2), (-8, 0)[k], 0.97)
            turn[:, 2] += (60 + 30 * number, 40 + 190 * k)
            corners = cv2.transform(np.array([[[0, 0], [w, 0], [w, h], [0, h]]], np.float32), turn)[0]
            warped = cv2.warpAffine(plate, turn, (640, 400))
            cover = cv2.warpAffine(np.ones((h, w), np.uint8), turn, (640, 400))
            frame[cover > 0] = warped[cover > 0]
            lines.append(
                f"{text}-{number}.{'jpg' if number % 2 else 'png'},{text}," + ",".join(map(str, corners.ravel()))
            )
        name = lines[-1].split(",")[0]
        lines[-2] = name + lines[-2][lines[-2].index(",") :]
        cv2.imwrite(str(root / name), frame[..., ::-1])
    (root / "corners.csv").write_text("\n".join(lines) + "\n")
    return root


def readings(root: Path) -> list[tuple[str, str, float]]:
    """Label, reading and likelihood of each plate of a dataset, by the reader that ships."""
    recipe = AnonymizeRecipe()
    reader, found = Filter(recipe.filter, recipe.edit), []
    for frame in open_dataset(root).frames:
        pixels = open_picture(root / frame.path).pixels
        for annotation, view in zip(frame.annotations, views_of(frame.annotations, pixels)):
            cut = view.cut(pixels)
            blank = np.zeros(cut.shape[:2], np.uint8)
            plate = stand_ins.Plate(cut, annotation.text, original=cut, original_text=annotation.text, source_mask=blank,
                                    target_mask=blank, slots=np.zeros((len(annotation.text), 3, 2), np.float32))  # fmt: skip
            plate = reader.scored([plate])[0]
            found.append((annotation.text, plate.reading, plate.scores["reader"]))
    return found


def test_the_networks_that_ship_replace_plates_in_frames(scenes, tmp_path):
    real = [text for text, *_ in readings(scenes)]
    assert sum(same_reading(text, read) for text, read, _ in readings(scenes)) >= 6
    made = AnonymizeRecipe(source={"path": str(scenes)}, out=str(tmp_path / "out"))
    audit = stand_ins.anonymize(made)
    assert audit["plates"]["annotated"] == 8 and audit["plates"]["replaced"] >= 5 and adds_up(audit)
    assert audit["source_texts"]["found"] == audit["pixels"]["outside"] == 0
    found = readings(tmp_path / "out")
    for text, reading, _ in found:
        assert text not in Readings(real) and reading not in Readings(real)
    assert sum(same_reading(text, reading) for text, reading, _ in found if text) == audit["plates"]["replaced"]


@pytest.fixture(scope="module")
def loose(tmp_path_factory):
    """Crops with one and a half plates of something else around each plate; the label of the last is another's."""
    root, rng = tmp_path_factory.mktemp("loose"), np.random.default_rng(8)
    layout, lines = load_layouts(["br-mercosur"])["br-mercosur"], ["path,text"]
    for number in range(4):
        text = random_text(layout.positions, rng)
        plate = photograph(layout, [text], 40, 0.1, rng)[0].image
        h, w = plate.shape[:2]
        crop = cv2.GaussianBlur(rng.integers(60, 200, (4 * h, w + 3 * h, 3), np.uint8), (0, 0), 5)
        crop[3 * h // 2 : 3 * h // 2 + h, 3 * h // 2 : 3 * h // 2 + w] = plate
        cv2.imwrite(str(root / f"{number}.png"), crop[..., ::-1])
        lines.append(f"{number}.png,{text if number < 3 else random_text(layout.positions, rng)}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def loose_out(loose, tmp_path_factory):
    """The anonymized folder of these, and its audit."""
    out = tmp_path_factory.mktemp("loose_out")
    return out, stand_ins.anonymize(AnonymizeRecipe(source={"path": str(loose)}, out=str(out)))


def found_texts(root: Path) -> list[str]:
    """What our reader reads in each crop where the finder sees text, "" where it sees none."""
    recipe = AnonymizeRecipe()
    reader, finder = Filter(recipe.filter, recipe.edit), TextFinder(recipe.edit)
    pictures = [cv2.imread(str(root / f"{n}.png"))[..., ::-1].copy() for n in range(4)]
    frames = finder.frames(pictures)
    texts = [text for text, _ in reader.read([cut_out(p, f, 48, 160) for p, f in zip(pictures, frames)])]
    return ["" if is_whole(f) else text for text, f in zip(texts, frames)]


def test_plates_in_loose_crops_are_replaced_where_they_stand_and_else_the_whole_crop_is_redacted(loose, loose_out):
    before, (out, audit) = found_texts(loose), loose_out
    assert audit["plates"]["replaced"] >= 2 and audit["plates"]["redacted"] >= 1 and adds_up(audit)
    assert audit["source_characters"]["in_view"] == 0 < audit["source_characters"]["looked_for"]
    assert all(len(text) >= 6 for text in before)
    rows = [line.split(",") for line in (out / "labels.csv").read_text().split()[1:]]
    for (name, text, *_), old, now in zip(rows, before, found_texts(out)):
        was, new = (cv2.imread(str(root / name)).astype(int) for root in (loose, out))
        changed = (was != new).any(2)
        h, w = changed.shape[0] // 4, changed.shape[1]
        if text:
            assert same_reading(now, text) and not within_one(now, old)
            changed[3 * h // 2 - h // 2 : 3 * h, h : w - h] = False
            assert not changed.any()  # nothing is drawn on the car
        else:
            assert changed.mean() > 0.95 and len(now) < 3
    assert verify_against(out, loose).faults == []


def test_the_page_of_loose_crops_shows_them_as_they_were_written_and_counts_them(loose, loose_out):
    out, audit = loose_out
    counted = audit["plates"]
    text = (out / "audit.html").read_text(encoding="utf8")
    for figure in (
        "<b>4</b>plates annotated",
        f"<b>{counted['replaced']}</b>replaced",
        f"<b>{counted['redacted']}</b>made",
    ):
        assert figure in text
    data, labels = on_page(out), (out / "labels.csv").read_text().split()[1:]
    new = {text: name for name, text in (line.split(",")[:2] for line in labels)}
    assert sorted(data["text"]) == sorted(line.split(",")[1] for line in labels)
    shown = [small(plate) for plate in data["images"]]
    assert {*shown} == cuts(out) and len(shown) == 4 and not {*shown} & cuts(loose)
    for text, picture in zip(data["text"], shown):
        if text:
            now = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).astype(int)
            h, w = now.shape[:2]
            old = cv2.resize(cv2.imread(str(loose / new[text])), (w, h), interpolation=cv2.INTER_AREA)
            change = np.abs(now - old).mean(2)
            plate = np.s_[3 * h // 8 + 2 : 5 * h // 8 - 2, w // 2 - h // 4 : w // 2 + h // 4]
            assert change[plate].mean() > 3 * change[: h // 4].mean()  # the plate is another, its surroundings are not


def test_a_redacted_plate_is_read_by_nobody(scenes, tmp_path):
    class Failing(stand_ins.Anonymizer):
        def networks(self):
            return (lambda plates: []), super().networks()[1]

        def _text(self, item, attempt):
            return ""

    before = readings(scenes)
    made = AnonymizeRecipe(source={"path": str(scenes)}, out=str(tmp_path / "out"))
    assert stand_ins.anonymize(made, None, stand_ins.AnonymizePlan(made, Failing(made)))["plates"]["redacted"] == 8
    after = readings(tmp_path / "out")
    assert len(after) == 8 and all(not text and len(reading) <= 2 for text, reading, _ in after)
    assert sum(len(reading) >= 6 for _, reading, _ in before) >= 7


def test_an_editor_that_leaves_the_source_is_caught_by_the_reader_that_ships(scenes, tmp_path):
    class Lazy(stand_ins.Anonymizer):
        """Masks of a good edit, and the picture as it was."""

        def networks(self):
            edit, filter = super().networks()
            return (lambda plates: [stand_ins.replace(p, image=p.original) for p in edit(plates)]), filter

    made = AnonymizeRecipe(source={"path": str(scenes)}, out=str(tmp_path / "out"), on_doubt="withhold")
    audit = stand_ins.anonymize(made, None, stand_ins.AnonymizePlan(made, Lazy(made)))
    assert audit["plates"]["replaced"] == 0 and audit["pictures"]["withheld"] == 4
    assert not list((tmp_path / "out").rglob("*.png")) and not list((tmp_path / "out").rglob("*.jpg"))
