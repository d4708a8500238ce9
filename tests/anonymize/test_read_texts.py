"""Plates without a text or an annotation: read where the reader is sure, else redacted; and written down."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from stand_ins import Stamps, anonymized, frames, stamped
from test_detector import finder, framed

from platemint.pipeline.anonymize.compare import verify_against
from platemint.pipeline.anonymize.picture import open_picture
from platemint.pipeline.anonymize.plan import AnonymizePlan
from platemint.pipeline.anonymize.read_texts import SCALES, sure
from platemint.pipeline.anonymize.search import scan
from platemint.pipeline.corpora.datasets import open_dataset, rewrite_dataset
from platemint.pipeline.corpora.rectify import views_of
from platemint.pipeline.filter import Filter
from platemint.pipeline.plate import Readings, characters
from platemint.pipeline.recipe import AnonymizeRecipe, Limits

PLATES = {"one": ["ABC1234", "XYZ7777"], "KLM5556_two": ["KLM5556"], "three": ["ABC1234"]}
OLD = ["ABC1234", "XYZ7777", "KLM5556"]
BOXES = [(8, 10, 68, 40), (84, 10, 144, 40)]  # where `frames` has a picture's plates
SIZE = 240, 100


# --------------------------------------------------------------------- the same pictures in formats with and without texts


def as_yolo(root: Path, plates: dict[str, list]) -> None:
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    for path in root.glob("*.png"):
        path.rename(root / "images/train" / path.name)
    for name, boxes in plates.items():
        if boxes:
            places = (
                ((x1 + x2) / 2 / 240, (y1 + y2) / 200, (x2 - x1) / 240, (y2 - y1) / 100) for x1, y1, x2, y2 in boxes
            )
            lines = [f"1 {' '.join(f'{v:.6f}' for v in place)}\n" for place in places]
            (root / f"labels/train/{name}.txt").write_text("".join(lines))
    (root / "data.yaml").write_text("names: [car, plate]\n")


def as_coco(root: Path, plates: dict[str, list], told: str = "") -> None:
    images = [{"id": i, "file_name": f"{name}.png", "width": 240, "height": 100} for i, name in enumerate(plates)]
    places = [(i, box) for i, boxes in enumerate(plates.values()) for box in boxes]
    annotations = [
        {"id": 7 + n, "image_id": i, "category_id": 3, "bbox": [x1, y1, x2 - x1, y2 - y1], "attributes": {"text": told}}
        for n, (i, (x1, y1, x2, y2)) in enumerate(places)
    ]
    data = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 2, "name": "car"}, {"id": 3, "name": "plate"}],
    }
    (root / "all.json").write_text(json.dumps(data))


def as_voc(root: Path, plates: dict[str, list]) -> None:
    sides = ("xmin", "ymin", "xmax", "ymax")
    for name, boxes in plates.items():
        things = [
            f"<object><name>Plate</name><text></text><bndbox>{''.join(f'<{k}>{v + 1}</{k}>' for k, v in zip(sides, box))}"
            "</bndbox></object>"
            for box in boxes
        ]
        if boxes:
            (root / f"{name}.xml").write_text(
                f"<annotation><filename>{name}.png</filename>{''.join(things)}</annotation>"
            )


def as_openalpr(root: Path, plates: dict[str, list]) -> None:
    for name, boxes in plates.items():
        lines = [f"{name}.png\t{x1}\t{y1}\t{x2 - x1}\t{y2 - y1}\t\n" for x1, y1, x2, y2 in boxes]
        if boxes:
            (root / f"{name}.txt").write_text("".join(lines))


def as_ufpr(root: Path, plates: dict[str, list]) -> None:
    for name, boxes in plates.items():
        blocks = [
            f"type: car\nplate: unknown\ncorners: {x1},{y1} {x2},{y1} {x2},{y2} {x1},{y2}\n" for x1, y1, x2, y2 in boxes
        ]
        if boxes:
            (root / f"{name}.txt").write_text("".join(blocks))


def as_table(root: Path, plates: dict[str, list]) -> None:
    with open(root / "plates.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "note", "text", *(f"{axis}{i}" for i in range(1, 5) for axis in "xy")])
        for name, boxes in plates.items():
            for x1, y1, x2, y2 in boxes:
                table.writerow([f"{name}.png", "kept", "", x1, y1, x2, y1, x2, y2, x1, y2])


def as_labels(root: Path, plates: dict[str, list]) -> None:
    lines = []
    for name, boxes in plates.items():
        things = [
            {"transcription": "", "points": [[x1, y1], [x2, y1], [x2, y2], [x1, y2]], "difficult": False}
            for x1, y1, x2, y2 in boxes
        ]
        lines.append(f"{name}.png\t{json.dumps(things)}\n")
    (root / "Label.txt").write_text("".join(lines))


def as_corner_lines(root: Path, plates: dict[str, list]) -> None:
    for name, boxes in plates.items():
        places = ([x1, x2, x2, x1, y1, y1, y2, y2] for x1, y1, x2, y2 in boxes)
        lines = (f"4,{','.join(str(v / (240 if i < 4 else 100)) for i, v in enumerate(place))},,\n" for place in places)
        if boxes:
            (root / f"{name}.txt").write_text("".join(lines))


def as_lp2024(root: Path, plates: dict[str, list]) -> None:
    for name, boxes in plates.items():
        if boxes:
            lines = (f"_ {x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2}\n" for x1, y1, x2, y2 in boxes)
            (root / f"{name}.txt").write_text("".join(lines))


def as_cvat(root: Path, plates: dict[str, list]) -> None:
    box = '<box label="Plate" xtl="{}" ytl="{}" xbr="{}" ybr="{}"><attribute name="plate_number" /></box>'
    images = (
        f'<image name="{name}.png" width="240" height="100">{"".join(box.format(*place) for place in boxes)}</image>'
        for name, boxes in plates.items()
    )
    (root / "annotations.xml").write_text(f"<annotations>{''.join(images)}</annotations>")


def as_label_studio(root: Path, plates: dict[str, list]) -> None:
    tasks = []
    for number, (name, boxes) in enumerate(plates.items()):
        results = []
        for n, (x1, y1, x2, y2) in enumerate(boxes):
            place = {"x": x1 / 2.4, "y": y1, "width": (x2 - x1) / 2.4, "height": y2 - y1, "rotation": 0}
            shared = {"id": f"r{n}", "original_width": 240, "original_height": 100}
            results.append(shared | {"type": "rectanglelabels", "value": place | {"rectanglelabels": ["Plate"]}})
            results.append(shared | {"type": "textarea", "from_name": "text", "value": place | {"text": []}})
        tasks.append({"id": number, "data": {"image": f"/x/{name}.png"}, "annotations": [{"result": results}]})
    (root / "export.json").write_text(json.dumps(tasks))


FORMS = {
    "corner_lines": as_corner_lines, "lp2024": as_lp2024, "cvat": as_cvat, "label_studio": as_label_studio,
    "yolo": as_yolo, "coco": as_coco, "voc": as_voc, "openalpr": as_openalpr, "ufpr": as_ufpr, "table": as_table,
    "ppocrlabel": as_labels,
}  # fmt: skip


def dataset(
    root: Path, form: str, plates: dict[str, list[str]] = PLATES, annotated: dict[str, int] | None = None
) -> Path:
    """Stamped pictures, annotated without texts. annotated: how many plates of a picture are, all by default."""
    frames(root, plates)
    for path in root.glob("*.txt"):
        path.unlink()
    counts = {name: len(texts) for name, texts in plates.items()} | (annotated or {})
    FORMS[form](root, {name: BOXES[:count] for name, count in counts.items()})
    return root


def read_back(out: Path) -> dict[str, list[tuple[str, str]]]:
    """{picture: [(label, what is stamped on the plate)]}."""
    found = {}
    for frame in open_dataset(out).frames:
        pixels = open_picture(out / frame.path).pixels
        views = views_of(frame.annotations, pixels)
        found[frame.path] = [
            (annotation.text, stamped(view.cut(pixels))) for annotation, view in zip(frame.annotations, views)
        ]
    return found


def is_clean(out: Path, texts: list[str] = OLD) -> bool:
    """Whether no file, name or picture has a text."""
    stamps = [stamped(cv2.imread(str(path))[..., ::-1]) for path in out.rglob("*.png")]
    return not scan(out, texts).hits and not any(text in stamp for text in texts for stamp in stamps)


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("form", FORMS)
def test_plates_without_a_text_are_read_and_replaced_and_their_texts_go_from_names(tmp_path, form):
    corpus, out = dataset(tmp_path / "in", form), tmp_path / "out"
    audit = anonymized(corpus, out, read_texts=True)
    assert (audit["plates"]["annotated"], audit["plates"]["replaced"], audit["plates"]["redacted"]) == (4, 4, 0)
    told = audit["reading"]
    assert (told["without_text"], told["read"], told["read_and_replaced"], told["texts"]) == (
        4,
        4,
        4,
        2,
    )  # a name told the third
    assert told["replaced_without_label"] == (4 if form == "yolo" else 0)
    assert audit["source_texts"]["searched"] == 3 and is_clean(out)
    plates = [plate for plates in read_back(out).values() for plate in plates]
    assert len(plates) == 4 and not any(stamp in Readings(OLD) for _, stamp in plates)
    assert all(label == ("" if form == "yolo" else stamp) and len(stamp) == 7 for label, stamp in plates)
    assert verify_against(out, corpus).faults == []
    assert not list(out.rglob("*KLM5556*")) and len([*out.rglob("*_two.*")]) >= 1


@pytest.mark.parametrize("form", ["yolo", "coco"])
def test_without_being_asked_nobody_reads(tmp_path, form):
    audit = anonymized(dataset(tmp_path / "in", form), tmp_path / "out")
    assert audit["plates"]["redacted"] == 4 and audit["reasons"] == {"no text": 4} and "reading" not in audit


def test_a_word_for_unreadable_gives_way_to_the_new_text_as_it_is_written(tmp_path):
    corpus, out = dataset(tmp_path / "in", "ufpr"), tmp_path / "out"
    anonymized(corpus, out, read_texts=True)
    ((_, stamp),) = read_back(out)["three.png"]
    assert (
        "plate: unknown" in (corpus / "three.txt").read_text()
        and f"plate: {stamp}\n" in (out / "three.txt").read_text()
    )


def test_yolo_files_without_texts_stay_to_the_byte(tmp_path):
    corpus, out = dataset(tmp_path / "in", "yolo"), tmp_path / "out"
    anonymized(corpus, out, read_texts=True)
    assert (out / "labels/train/one.txt").read_bytes() == (corpus / "labels/train/one.txt").read_bytes()


class Hesitant(Stamps):
    """Reads one plate otherwise when it looks again, is not sure of another, and reads only a part of a third."""

    def read(self, pictures):
        found = super().read(pictures)
        for n, (text, _) in enumerate(found):
            if text == "ABC1234" and n % len(SCALES):
                found[n] = "ABC12345", 1.0
            elif text == "XYZ7777":
                found[n] = text, 0.9
            elif text == "KLM5556":
                found[n] = "5556", 1.0
        return found


def test_plates_that_are_not_read_for_sure_are_redacted(tmp_path):
    for on_doubt in ("redact", "withhold"):
        audit = anonymized(
            dataset(tmp_path / on_doubt, "coco"),
            tmp_path / f"{on_doubt}-out",
            Hesitant,
            read_texts=True,
            on_doubt=on_doubt,
        )
        assert audit["plates"] == {"annotated": 4, "replaced": 0, "redacted": 4, "withheld": 0, "set_aside": 0}
        assert audit["reading"]["read"] == audit["reading"]["texts"] == 0
    less = anonymized(dataset(tmp_path / "in", "coco"), tmp_path / "out", Hesitant, read_texts=True, min_reading=0.9)
    assert less["plates"]["replaced"] == 1


def test_a_reading_counts_where_all_looks_agree_and_the_first_is_sure():
    assert sure([("ABC1234", 0.96), ("ABC1234", 0.3)], 0.96) == "ABC1234"
    assert sure([("ABCO123", 1.0), ("ABC0123", 1.0)], 0.9) == "ABCO123"  # pairs that nobody tells apart
    assert sure([("京A12345", 1.0)], 0.9) == "京A12345"
    for other in [("ABC1235", 1.0), ("ABC123", 1.0), ("", 1.0)]:
        assert sure([("ABC1234", 1.0), other], 0.9) == ""
    for text in ("", "1234", "京1234", "A京12345", "ABCDEFG123456"):
        assert sure([(text, 1.0), (text, 1.0)], 0.9) == ""
    assert sure([("ABC1234", 0.95)], 0.96) == ""


class Stubborn(Stamps):
    """Cannot replace a plate."""

    @staticmethod
    def scores_of(plate):
        bad = plate.original_text == "ABC1234" and plate.text != plate.original_text
        return Stamps.scores_of(plate) | ({"reader": 0.0} if bad else {})


def test_a_plate_that_was_read_and_cannot_be_replaced_is_redacted_and_its_label_stays_empty(tmp_path):
    corpus, out = dataset(tmp_path / "in", "coco"), tmp_path / "out"
    audit = anonymized(corpus, out, Stubborn, read_texts=True, on_doubt="withhold")
    assert audit["plates"]["redacted"] == 2 and audit["plates"]["withheld"] == 0 and is_clean(out)
    assert audit["reading"] | {"min_reading": 0} == {
        "min_reading": 0, "without_text": 4, "read": 4, "read_and_replaced": 2, "replaced_without_label": 0, "texts": 2,
    }  # fmt: skip
    assert sorted(bool(label) for plates in read_back(out).values() for label, _ in plates) == [
        False,
        False,
        True,
        True,
    ]
    assert verify_against(out, corpus).faults == []


def test_a_plate_keeps_its_new_text_where_that_is_wished(tmp_path):
    corpus = dataset(tmp_path / "in", "coco")
    key = {"key_file": str(tmp_path / "key")}
    outs = {name: tmp_path / name for name in ("track", "key1", "key2", "none")}
    for name, fields in {"track": {"track_consistent": True}, "key1": key, "key2": key, "none": {}}.items():
        anonymized(corpus, outs[name], read_texts=True, **fields)
    seen = {name: read_back(out) for name, out in outs.items()}
    assert all(seen[name]["one.png"][0] == seen[name]["three.png"][0] for name in ("track", "key1", "key2"))
    assert seen["key1"] == seen["key2"] and seen["none"]["one.png"][0] != seen["none"]["three.png"][0]


def test_no_new_text_may_read_like_one_that_was_read(tmp_path):
    corpus = dataset(tmp_path / "in", "yolo")
    recipes = (AnonymizeRecipe(source={"path": str(corpus)}, read_texts=demand) for demand in (False, True))
    unread, read = (AnonymizePlan(recipe, Stamps(recipe)) for recipe in recipes)
    read.draw(bytes(32))
    assert all(text in read.forbidden and text in read.real and text in read.texts for text in OLD)
    assert "XYZ7777" not in unread.forbidden and len(read.pseudonym("XYZ7777", "images/train/one.png")) == 7


def test_a_text_that_was_read_is_searched_for(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "platemint.pipeline.anonymize.plan.rewrite_dataset",
        lambda dataset, new: rewrite_dataset(dataset, lambda frame, old: old),
    )
    corpus = dataset(tmp_path / "in", "coco")
    audit = anonymized(corpus, tmp_path / "out", read_texts=True)
    assert audit["source_texts"]["found"] >= 1


def test_only_the_owners_list_says_which_plate_was_given_up(tmp_path):
    corpus, out, owner = dataset(tmp_path / "in", "voc"), tmp_path / "out", tmp_path / "list.csv"
    audit = anonymized(corpus, out, Stubborn, read_texts=True, list_file=str(owner))
    assert {item["outcome"] for item in audit["given_up"]} == {"redacted"} and "ABC1234" in owner.read_text()
    assert is_clean(out)


def test_pictures_that_cannot_be_opened_are_set_aside_as_ever(tmp_path):
    corpus = dataset(tmp_path / "in", "openalpr")
    data = (corpus / "three.png").read_bytes()
    (corpus / "three.png").write_bytes(data[: len(data) // 2])
    audit = anonymized(corpus, tmp_path / "out", read_texts=True)
    assert audit["plates"]["set_aside"] == 1 and audit["plates"]["replaced"] == 3


def test_a_background_picture_that_is_none_is_set_aside_too(tmp_path):
    corpus = dataset(tmp_path / "in", "coco", annotated={"three": 0})
    (corpus / "three.png").write_bytes(b"no picture")
    audit = anonymized(corpus, tmp_path / "out", read_texts=True)
    assert audit["pictures"]["set_aside"] == 1 and audit["plates"]["replaced"] == 3


def test_the_page_tells_what_was_read(tmp_path):
    anonymized(dataset(tmp_path / "in", "coco"), tmp_path / "out", read_texts=True)
    page = (tmp_path / "out/audit.html").read_text()
    assert "plates read for sure, those that a detector found included</td><td>4</td>" in page
    assert "read and, where the reader was sure, treated like others" in page and "reading." not in page


def test_a_reading_is_what_scoring_says_of_it(untrained):
    reader = Filter(Limits(), untrained)
    pictures = list(np.random.default_rng(0).integers(0, 255, (11, 30, 90, 3), np.uint8))
    for picture, (text, score) in zip(pictures, reader.read(pictures)):
        assert reader.read([picture])[0] == (text, pytest.approx(score, abs=1e-4)) and 0 <= score <= 1
        assert characters(text) == text


# ---------------------------------------------------------------------------------------------------------------- finds

PLACE = (8, 10, 68, 40)  # of the plate that no annotation covers, in both pictures that have one
WITH_ROOM = ["yolo", "coco", "voc", "openalpr", "table", "corner_lines", "lp2024", "cvat"]


@pytest.fixture
def model(tmp_path):
    return str(finder(tmp_path / "found.onnx", shape=[1, 3, 256, 256]))


def partly(root: Path, form: str) -> Path:
    """A picture with an annotated plate, one with one beside it that nobody annotated, and one with only such a plate.

    A model finds the annotated plate of the first, and the others.
    """
    plates = {"known": ["QRS1111"], "both": ["KLM5556", "XYZ7777"], "alone": ["ABC1234"]}
    frames(root, plates)
    for path in root.glob("*.txt"):
        path.unlink()
    framed(root / "known.png", *BOXES[0][:2])
    framed(root / "both.png", *BOXES[1][:2])
    framed(root / "alone.png", *BOXES[0][:2])
    FORMS[form](root, {"known": BOXES[:1], "both": BOXES[:1], "alone": []})
    return root


def near(corners, place) -> bool:
    return np.abs(np.subtract([*corners[0], *corners[2]], place)).max() <= 3


@pytest.mark.parametrize("form", WITH_ROOM)
@pytest.mark.parametrize("finds", ["redact", "replace"])
def test_finds_are_dealt_with_and_annotated_as_what_they_are(tmp_path, model, form, finds):
    corpus, out = partly(tmp_path / "in", form), tmp_path / "out"
    audit = anonymized(corpus, out, read_texts=True, detector={"path": model, "finds": finds})
    found, replaced = audit["detector"], finds == "replace"
    assert audit["plates"] == {
        "annotated": 2, "found": 2, "replaced": 4 if replaced else 2, "redacted": 0 if replaced else 2, "withheld": 0,
        "set_aside": 0,
    }  # fmt: skip
    assert (found["found_replaced"], found["found_redacted"], found["plates_uncovered"]) == (
        2 * replaced,
        2 - 2 * replaced,
        0,
    )
    in_table = form == "table"  # no row names the picture that has only this plate
    assert found["found_not_annotated"] == in_table and audit["reading"]["read"] == 2 + 2 * replaced
    assert (
        is_clean(out, ["QRS1111", "KLM5556"] + ["XYZ7777", "ABC1234"] * replaced)
        and verify_against(out, corpus).faults == []
    )
    copy = {Path(frame.path).stem: frame for frame in open_dataset(out).frames}
    assert near(copy["both"].annotations[1].corners, BOXES[1]) and len(copy["both"].annotations) == 2
    assert len(copy["alone"].annotations) == 1 - in_table and all(
        near(s.corners, BOXES[0]) for s in copy["alone"].annotations
    )
    for plates in read_back(out).values():
        assert all(label == ("" if form == "yolo" else stamp) for label, stamp in plates)
    for name in ("both", "alone"):
        stamps = stamped(cv2.imread(str(next(out.rglob(f"{name}.png"))))[..., ::-1])
        assert "XYZ7777" not in stamps and "ABC1234" not in stamps
    page = (out / "audit.html").read_text()
    assert "What a plate detector found outside annotations was" in page and "detector." not in page


def test_finds_are_of_the_classes_that_plates_have(tmp_path, model):
    for form in ("yolo", "coco", "voc"):
        anonymized(partly(tmp_path / form, form), tmp_path / f"{form}-out", detector={"path": model, "finds": "redact"})
    assert (tmp_path / "yolo-out/labels/train/alone.txt").read_text().startswith("1 0.1")
    data = json.loads((tmp_path / "coco-out/all.json").read_text())
    assert [(a["id"], a["category_id"]) for a in data["annotations"]] == [(7, 3), (8, 3), (9, 3), (10, 3)]
    assert {a["image_id"] for a in data["annotations"]} == {i["id"] for i in data["images"]}
    assert "<name>Plate</name>" in (tmp_path / "voc-out/alone.xml").read_text()


def test_a_chosen_class_is_that_of_finds_too(call, tmp_path, model):
    corpus = partly(tmp_path / "in", "yolo")
    (corpus / "data.yaml").write_text("names: [car, number]\n")
    assert (
        call(
            corpus, "--out", tmp_path / "out", "--class", "number", "--detector", model, "--detector-finds", "redact"
        ).exit_code
        == 0
    )
    assert (tmp_path / "out/labels/train/alone.txt").read_text().startswith("1 ")


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_files_about_pictures_of_another_size_take_no_finds(tmp_path, model, form):
    corpus, out = partly(tmp_path / "in", form), tmp_path / "out"
    if form == "coco":
        data = json.loads((corpus / "all.json").read_text())
        data["images"][2] |= {"width": 120, "height": 50}
        (corpus / "all.json").write_text(json.dumps(data))
    else:
        size = "<size><width>120</width><height>50</height></size>"
        (corpus / "alone.xml").write_text(f"<annotation><filename>alone.png</filename>{size}</annotation>")
    audit = anonymized(corpus, out, detector={"path": model, "finds": "redact"})
    assert audit["detector"]["found_not_annotated"] == 1 and verify_against(out, corpus).faults == []
    assert is_clean(out, ["ABC1234", "XYZ7777"])


def test_new_files_lie_where_others_of_the_format_lie(tmp_path, model):
    corpus = partly(tmp_path / "in", "yolo")
    for split in ("val", "test/night"):
        frames(corpus / "images" / split, {"more": ["ABC1234"]})
        (corpus / "images" / split / "more.txt").unlink()
        framed(corpus / "images" / split / "more.png", *PLACE[:2])
        (corpus / "images" / split / "more.png").rename(corpus / "images" / split / f"more_{split[:3]}.png")
    audit = anonymized(corpus, tmp_path / "out", detector={"path": model, "finds": "redact"})
    assert audit["detector"]["found_not_annotated"] == 0
    for path in ("labels/train/alone.txt", "labels/val/more_val.txt", "labels/test/night/more_tes.txt"):
        assert len((tmp_path / "out" / path).read_text().splitlines()) == 1
    assert verify_against(tmp_path / "out", corpus).faults == []


def test_a_file_that_two_pictures_share_takes_no_finds_of_one(tmp_path, model):
    corpus, out = partly(tmp_path / "in", "yolo"), tmp_path / "out"
    frames(corpus / "other", {"both": ["KLM5556"]})
    other = cv2.imread(str(corpus / "other/both.png"))
    cv2.imwrite(str(corpus / "images/train/both.tiff"), other)
    for path in (corpus / "other").iterdir():
        path.unlink()
    audit = anonymized(corpus, out, detector={"path": model, "finds": "redact"})
    assert audit["plates"]["found"] == 2 and audit["detector"]["found_not_annotated"] == 1
    assert len((out / "labels/train/both.txt").read_text().splitlines()) == 1
    assert verify_against(out, corpus).faults == []


@pytest.mark.parametrize("form", ["ufpr", "ppocrlabel"])
def test_where_a_format_has_no_place_for_finds_they_are_dealt_with_in_the_pictures(tmp_path, model, form):
    corpus, out = partly(tmp_path / "in", form), tmp_path / "out"
    audit = anonymized(corpus, out, detector={"path": model, "finds": "redact"})
    assert audit["plates"]["found"] == audit["detector"]["found_not_annotated"] == 2
    assert is_clean(out, ["XYZ7777", "ABC1234"]) and verify_against(out, corpus).faults == []


def test_with_finds_listed_nothing_but_the_list_is_as_without(tmp_path, model):
    corpus = partly(tmp_path / "in", "coco")
    audit = anonymized(corpus, tmp_path / "out", detector={"path": model})
    assert (
        audit["detector"]["plates_uncovered"] == 2
        and "finds" not in audit["detector"]
        and "found" not in audit["plates"]
    )
    assert "XYZ7777" in stamped(cv2.imread(str(tmp_path / "out/both.png"))[..., ::-1])


def test_a_find_that_reads_like_a_word_is_redacted(tmp_path, model):
    corpus = frames(tmp_path / "in", {"known": ["QRS1111"], "sign": ["TAXISTOP"]})
    (corpus / "sign.txt").unlink()
    framed(corpus / "sign.png", *PLACE[:2])
    audit = anonymized(corpus, tmp_path / "out", detector={"path": model, "finds": "replace"})
    assert audit["detector"]["found_redacted"] == 1 and audit["reasons"] == {"found, no text": 1}


def test_the_check_from_outside_knows_only_the_finds_that_the_audit_lists(tmp_path, model):
    corpus, out = partly(tmp_path / "in", "ufpr"), tmp_path / "out"
    anonymized(corpus, out, detector={"path": model, "finds": "redact"})
    audit = json.loads((out / "audit.json").read_text())
    gone = audit["detector"]["settled"].pop()
    (out / "audit.json").write_text(json.dumps(audit))
    faults = verify_against(out, corpus).faults
    assert any(gone["picture"] in fault and "differs outside of its plates" in fault for fault in faults)
    assert any("detector.found_redacted" in fault for fault in faults)


# --------------------------------------------------------------------------------------------------- pictures and nothing else


def bare(root: Path) -> Path:
    frames(root / "a", {"KLM5556": ["KLM5556"], "empty": []})
    frames(root, {"ABC1234": ["ABC1234"]})
    for path in root.rglob("*.txt"):
        path.unlink()
    framed(root / "ABC1234.png", *PLACE[:2])
    framed(root / "a/KLM5556.png", *PLACE[:2])
    return root


@pytest.mark.parametrize("finds", ["redact", "replace"])
def test_pictures_and_a_detector_are_enough(call, tmp_path, model, finds):
    corpus, out = bare(tmp_path / "in"), tmp_path / "out"
    result = call(corpus, "--out", out, "--detector", model, "--detector-finds", finds)
    assert result.exit_code == 0 and is_clean(out)
    assert verify_against(out, corpus).faults == []
    data = json.loads((out / "annotations.json").read_text())
    assert {image["file_name"] for image in data["images"]} == {"000001.png", "a/000002.png", "a/000003.png"}
    assert {p.relative_to(out).as_posix() for p in out.rglob("*.png")} == {
        image["file_name"] for image in data["images"]
    }
    assert [image["width"] for image in data["images"]] == [240] * 3 and len(data["annotations"]) == 2
    plates = [plate for plates in read_back(out).values() for plate in plates]
    assert all(label == stamp and bool(label) == (finds == "replace") for label, stamp in plates) and len(plates) == 2


def test_where_nothing_is_found_the_annotations_are_empty(call, tmp_path, model):
    corpus, out = frames(tmp_path / "in", {"empty": []}), tmp_path / "out"
    assert call(corpus, "--out", out, "--detector", model, "--detector-finds", "redact").exit_code == 0
    assert json.loads((out / "annotations.json").read_text())["annotations"] == []
    assert verify_against(out, corpus).faults == []


def test_pictures_alone_need_a_detector_and_say_so(call, tmp_path, model):
    corpus, out = frames(tmp_path / "in", {"front": [], "rear": []}), tmp_path / "out"
    for args in ([], ["--detector", model], ["--format", "pictures"], ["--format", "pictures", "--detector", model]):
        result = call(corpus, "--out", out, *args)
        assert result.exit_code == 2 and not out.exists(), args
    assert "--detector-finds" in result.output
    result = call(corpus, "--out", out, "--detector-finds", "redact")
    assert (
        result.exit_code == 2 and "finds: redact is about what a detector finds" in result.output and not out.exists()
    )


@pytest.mark.parametrize("form", ["", "pictures"])
def test_annotations_that_nobody_understands_are_not_passed_over(call, tmp_path, model, form):
    corpus, out = bare(tmp_path / "in"), tmp_path / "out"
    (corpus / "boxes.json").write_text('[{"file": "ABC1234.png", "box": [1, 2, 3, 4]}]')
    args = ["--detector", model, "--detector-finds", "redact", *(["--format", form] if form else [])]
    result = call(corpus, "--out", out, *args)
    assert result.exit_code == 3 and "a folder of their own" in result.stderr and not [*out.rglob("*.png")]


def test_what_is_no_annotation_does_not_hinder(call, tmp_path, model):
    corpus, out = bare(tmp_path / "in"), tmp_path / "out"
    (corpus / "README.txt").write_text("Taken in May.")
    assert call(corpus, "--out", out, "--detector", model, "--detector-finds", "redact").exit_code == 0
    assert not (out / "README.txt").exists() and verify_against(out, corpus).faults == []


def test_annotations_of_a_known_format_are_not_passed_over_by_name(call, tmp_path, model):
    corpus, out = partly(tmp_path / "in", "coco"), tmp_path / "out"
    args = corpus, "--out", out, "--detector", model, "--detector-finds", "redact", "--format", "pictures"
    assert call(*args).exit_code == 2 and not out.exists()


def test_broken_pictures_are_set_aside(call, tmp_path, model):
    corpus, out = bare(tmp_path / "in"), tmp_path / "out"
    (corpus / "broken.png").write_bytes(b"no picture")
    call(corpus, "--out", out, "--detector", model, "--detector-finds", "redact")
    audit = json.loads((out / "audit.json").read_text())
    assert audit["pictures"]["set_aside"] == 1 and audit["pictures"]["written"] == 3
    assert len(json.loads((out / "annotations.json").read_text())["images"]) == 3
