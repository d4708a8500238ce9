"""Annotations find their pictures however they are named; while one does not, no picture that may be its leaves."""

import csv
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_ins import stamp, stamped
from test_frames import BOX, SIZE, VOC, make, other, plates, reasons, write_out

from platemint.pipeline.anonymize.unfinished import UNFINISHED
from platemint.pipeline.corpora.datasets import open_dataset, rewrite_dataset
from platemint.pipeline.plate import PlatemintError

COCO_BOX = [20, 30, 100, 30]
YOLO_BOX = "0 0.175 0.15 0.25 0.1\n"


def coco(*names: str, **image) -> str:
    """An image for each name, and a plate ABC1234 in each."""
    images = [{"id": i, "file_name": name, "width": 400, "height": 300} | image for i, name in enumerate(names)]
    records = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": COCO_BOX, "attributes": {"text": f"ABC123{i}"}}
        for i, _ in enumerate(names)
    ]
    return json.dumps({"images": images, "annotations": records, "categories": [{"id": 1, "name": "plate"}]})


NFC, NFD = (unicodedata.normalize(form, "straße_ö.jpg") for form in ("NFC", "NFD"))
SPELLINGS = [
    ("images/x.jpg", "D:\\work\\images\\x.jpg"),
    ("images/x.jpg", "/home/bob/x.jpg"),
    ("images/x.jpg", "file:///home/bob/images/x.jpg"),
    ("images/x.jpg", "images\\X.JPG"),
    ("x.jpg", "../train/images/x.jpg"),
    ("train/x.jpg", "/data/train/x.jpg"),
    (NFD, NFC),
    (NFC, NFD),
    ("my street #0.jpg", "images/my%20street%20%230.jpg"),
    ("my%20street.jpg", "my street.jpg"),
    ("x.jpg", "x.png"),
    ("X.JPEG", "x"),
    ("img.2020.05.jpg", "img.2020.05"),
]


@pytest.mark.parametrize("there, named", SPELLINGS)
def test_a_picture_is_found_by_a_name_from_elsewhere(tmp_path, there, named):
    root = make(tmp_path / "in", {there: None, "a.json": coco(named), "bare.jpg": None})
    dataset = open_dataset(root)
    assert plates(dataset)[there] == [("ABC1230", BOX)] and dataset.left_over == 0 and "bare.jpg" in plates(dataset)
    assert rewrite_dataset(dataset, lambda frame, text: text)["a.json"][1] == (root / "a.json").read_bytes()
    again = open_dataset(write_out(dataset, other, tmp_path / "out"))
    assert plates(again)[there] == [("BCD2341", BOX)]


@pytest.mark.parametrize(
    "there, named",
    [
        (["a/x.jpg", "b/x.jpg"], "/home/bob/x.jpg"),
        (["a/x.jpg", "A/X.jpg"], "D:/a/x.JPG"),
        (["x.jpg", "x.webp"], "x.png"),
        (["val/x.jpg"], "/data/train/x.jpg"),
        (["cam2/0001.jpg"], "cam1/0001.jpg"),
        (["xx.jpg"], "x.jpg"),
    ],
)
def test_a_name_that_may_mean_none_or_several_is_left_over(tmp_path, there, named):
    dataset = open_dataset(make(tmp_path, dict.fromkeys(there) | {"marks.json": coco(named, "1.jpg"), "1.jpg": None}))
    assert [*plates(dataset)] == ["1.jpg"]
    assert dataset.left_over == 1 and dataset.withheld == sorted(there) and dataset.lost == ["ABC1230"]


def test_a_picture_that_two_names_mean_is_set_aside(tmp_path):
    dataset = open_dataset(
        make(tmp_path, {"1.jpg": None, "2.jpg": None, "a.json": coco("1.jpg", "cam2/1.jpg", "2.jpg")})
    )
    assert [*plates(dataset)] == ["2.jpg"] and [path for path, _ in reasons(dataset)] == ["1.jpg"]


@pytest.mark.parametrize("ids", [(0, "0"), ("7", 7), (7.0, 7), ("a b", "a b")])
def test_ids_may_be_numbers_or_texts(tmp_path, ids):
    data = json.loads(coco("1.jpg"))
    data["images"][0]["id"], data["annotations"][0]["image_id"] = ids
    data["annotations"][0]["category_id"] = "1"
    assert plates(open_dataset(make(tmp_path, {"1.jpg": None, "a.json": json.dumps(data)}))) == {
        "1.jpg": [("ABC1230", BOX)]
    }


@pytest.mark.parametrize(
    "files, format",
    [
        ({"Labels/STREET.txt": YOLO_BOX}, "yolo"),
        ({"labels/street.TXT": YOLO_BOX}, "yolo"),
        ({"Street.txt": "STREET.JPG\t20\t30\t100\t30\tABC1234\n"}, "openalpr"),
        ({"STREET.txt": "plate: ABC1234\ncorners: 20,30 120,30 120,60 20,60\n"}, "ufpr"),
        ({"Annotations/0001.xml": VOC.replace("abc-1234.jpg", "Street.JPG")}, "voc"),
    ],
)
def test_an_annotation_file_finds_its_picture_in_any_case_or_by_the_name_in_it(tmp_path, files, format):
    dataset = open_dataset(make(tmp_path, {"street.jpg": None} | files))
    assert dataset.format == format and plates(dataset)["street.jpg"] and not dataset.left_over


def test_pictures_that_differ_in_their_suffix_share_an_annotation_file(tmp_path):
    files = dict.fromkeys(["images/a.jpg", "images/a.png", "images/A.jpg", "images/b.jpg"])
    files |= {"labels/a.txt": YOLO_BOX, "labels/A.txt": YOLO_BOX, "labels/b.txt": YOLO_BOX}
    dataset = open_dataset(make(tmp_path / "in", files))
    assert all(len(found) == 1 for found in plates(dataset).values()) and len(dataset.frames) == 4
    dataset.frames = [frame for frame in dataset.frames if frame.path != "images/a.jpg"]
    assert "labels/a.txt" in rewrite_dataset(dataset, other)


def test_pictures_that_share_an_annotation_with_texts_are_set_aside(tmp_path):
    line = "a.jpg\t20\t30\t100\t30\tABC1234\n"
    dataset = open_dataset(
        make(tmp_path, {"a.jpg": None, "a.png": None, "a.txt": line, "b.jpg": None, "b.txt": line.replace("a.", "b.")})
    )
    assert [*plates(dataset)] == ["b.jpg"] and [path for path, _ in reasons(dataset)] == ["a.jpg", "a.png"]


def test_the_names_of_what_shares_an_annotation_change_alike(tmp_path):
    files = dict.fromkeys(["1_AB123CD.jpg", "1_AB123CD.png"]) | {"1_AB123CD.txt": YOLO_BOX}
    becomes = rewrite_dataset(open_dataset(make(tmp_path, files)), other)
    assert {new for new, _ in becomes.values()} == {"1_unreadable.jpg", "1_unreadable.png", "1_unreadable.txt"}


# ------------------------------------------------------------------------------------------------------- left over


@pytest.mark.parametrize(
    "files",
    [
        {"1.txt": YOLO_BOX, "gone.txt": YOLO_BOX},
        {"a.json": coco("1.jpg", "gone.jpg")},
        {"a.json": coco("1.jpg").replace('"image_id": 0', '"image_id": 9')},
        {"a.csv": "path,text\n1.jpg,ABC1234\ngone.jpg,ABC1235\n"},
        {"1.xml": VOC, "gone.xml": VOC},
        {"1.txt": YOLO_BOX, "bare.xml": "<shape>1 2 3 4</shape>"},  # beside a picture, in a form that is not known
        {"1.txt": YOLO_BOX, "BARE.json": '{"x": [[220, 30, 120.5, 30]]}'},
        {"1.txt": YOLO_BOX, "notes.txt": "name;xmin;ymin\nc:\\bare.jpg;3;4\n"},
        {"1.txt": YOLO_BOX, "notes.json": '{"shapes": ["bare.JPG"'},
    ],
)
def test_while_an_annotation_is_left_over_pictures_without_one_are_withheld(tmp_path, files):
    dataset = open_dataset(make(tmp_path, {"1.jpg": None, "bare.jpg": None} | files))
    assert dataset.left_over and "bare.jpg" in dataset.withheld and "bare.jpg" not in plates(dataset)
    assert not any("bare" in old for old in rewrite_dataset(dataset, other))


@pytest.mark.parametrize(
    "files",
    [
        {"a.json": json.dumps(json.loads(coco("1.jpg")) | {"images": json.loads(coco("1.jpg", "gone.jpg"))["images"]})},
        {"1.txt": YOLO_BOX, "bare.txt": "", "gone.txt": "", "readme.txt": "1.jpg and bare.jpg"},
        {"1.txt": YOLO_BOX, "bare.json": '{"camera": 7, "weather": "bare.jpg"}'},
        {"1.txt": YOLO_BOX, "split.csv": "bare.jpg,train\n1.jpg,val\n"},
        {"1.txt": YOLO_BOX, "meta.json": '{"boxes": "1.jpg"}', "train.txt": "1.jpg\nbare.jpg\ngone.jpg\n"},
        {"1.xml": VOC, "gone.xml": "<annotation/>"},
    ],
)
def test_what_says_nothing_of_a_plate_leaves_background_pictures_alone(tmp_path, files):
    dataset = open_dataset(make(tmp_path, {"1.jpg": None, "bare.jpg": None} | files))
    assert dataset.left_over == 0 and plates(dataset)["bare.jpg"] == [] and not dataset.withheld


def photographs(root: Path, names: list[str]) -> None:
    """Noise with a stamp ABC123N on the plate of `COCO_BOX`, N counting the names."""
    for number, name in enumerate(names):
        image = np.random.default_rng(number).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
        image[..., 2] |= 128
        stamp(image, f"ABC123{number}", 45, 40)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / name)


def test_the_program_withholds_what_may_be_meant_and_says_what_to_mend(call, tmp_path):
    corpus, out, listed = tmp_path / "in", tmp_path / "out", tmp_path / "list.csv"
    photographs(corpus, ["one.png", "QRS9876.png"])
    (corpus / "a.json").write_text(coco("one.png", "gone.png"))
    result = call(corpus, "--out", out, "--list", listed)
    assert result.exit_code == 3 and "images[].file_name" in result.stderr
    assert not [name for name in ("QRS", "gone", "one.png", "ABC") if name in result.stderr + result.stdout]
    audit = json.loads((out / "audit.json").read_text())
    assert audit["pictures"] == {"found": 2, "written": 1, "without_annotation": 0, "withheld": 1, "set_aside": 0}
    assert audit["annotations"] == {"left_over": 1, "pictures_withheld": 1} and not (out / UNFINISHED).exists()
    assert {path.name for path in out.rglob("*.png")} == {"one.png"}
    assert "1 annotations of plates found no picture" in (out / "audit.html").read_text()
    with open(listed) as file:
        assert {(row["picture"], row["outcome"]) for row in csv.DictReader(file)} == {
            ("QRS9876.png", "picture withheld"), ("gone.png", "set aside")
        }  # fmt: skip


def test_the_program_keeps_background_pictures_where_all_annotations_found_theirs(call, tmp_path):
    corpus, out = tmp_path / "in", tmp_path / "out"
    photographs(corpus, ["one.png", "bare.png"])
    (corpus / "a.json").write_text(coco("C:\\one.PNG"))
    result = call(corpus, "--out", out)
    assert result.exit_code == 0 and (out / "bare.png").is_file()
    assert "Every annotation of a plate found its picture" in (out / "audit.html").read_text()
    assert "ABC1230" not in stamped(np.asarray(Image.open(out / "one.png")))


def test_a_run_that_writes_no_picture_says_so(call, tmp_path):
    corpus, out = tmp_path / "in", tmp_path / "out"
    photographs(corpus, ["one.png"])
    (corpus / "a.json").write_text(coco("one.png", width=100, height=100))
    result = call(corpus, "--out", out)
    assert result.exit_code == 3 and "not one picture was written" in result.stderr


# ------------------------------------------------------------------------------------------------------ recognition


@pytest.mark.parametrize("empty", ["", "\n", " \r\n"])
def test_a_format_is_recognised_however_many_files_say_nothing_before(tmp_path, empty):
    files = {f"a{k:03d}.jpg": None for k in range(60)} | {f"a{k:03d}.txt": empty for k in range(59)}
    dataset = open_dataset(make(tmp_path, files | {"a059.txt": YOLO_BOX}))
    assert dataset.format == "yolo" and len(dataset.unannotated) == 59 and len(dataset.frames) == 60


def test_vehicles_without_plates_come_first(tmp_path):
    files = {f"{k:02d}.png": None for k in range(30)} | {f"{k:02d}.txt": "vehicles: 0\n" for k in range(29)}
    dataset = open_dataset(make(tmp_path, files | {"29.txt": "plate: ABC1234\nposition_plate: 20 30 100 30\n"}))
    assert dataset.format == "ufpr" and len(dataset.frames) == 30


LABEL = '1.jpg\t[{"transcription": "ABC1234", "points": [[20, 30], [120, 30], [120, 60], [20, 60]]}]\n'


def test_a_second_annotation_file_is_never_ignored(tmp_path):
    files = dict.fromkeys(["1.jpg", "2.jpg", "crop_img/1_crop_0.jpg"])
    root = make(tmp_path, files | {"Label.txt": LABEL, "rec_gt.txt": "crop_img/1_crop_0.jpg\tABC1234\n"})
    assert open_dataset(root).format == "ppocrlabel"
    with pytest.raises(PlatemintError, match="annotations of ppocrlabel too, and of pictures that gt says nothing"):
        open_dataset(root, "gt")
    (root / "2.txt").write_text(YOLO_BOX)
    with pytest.raises(PlatemintError, match=r"several formats \(yolo, ppocrlabel\)"):
        open_dataset(root)


def test_broken_lines_of_a_label_file_set_their_pictures_aside(tmp_path):
    lines = ["1.jpg\t[{\n", "2.jpg\t[7]\n", '3.jpg\t[{"points": []}]\n', LABEL.replace("1.jpg", "4.jpg")]
    files = {"Label.txt": LABEL.replace("1.jpg", "5.jpg") + "".join(lines)} | {f"{k}.jpg": None for k in range(1, 6)}
    dataset = open_dataset(make(tmp_path, files))
    assert [*plates(dataset)] == ["4.jpg", "5.jpg"] and [path for path, _ in reasons(dataset)] == [
        "1.jpg",
        "2.jpg",
        "3.jpg",
    ]


# --------------------------------------------------------------------------------------------------- texts in names


@pytest.mark.parametrize(
    "names, kept",
    [
        (["8940_DB766UD", "8941_VVA4G42"], ["8940_unreadable", "8941_unreadable"]),
        (["DB766UD", "vva4g42-2"], ["unreadable", "unreadable-2"]),
        (["DB 766 UD", "VVA-4G42_x"], ["unreadable", "unreadable_x"]),
        (["京A12345/1", "沪B54321/2"], ["unreadable/1", "unreadable/2"]),
        (["IMG0001_AB12CDE", "IMG0002_XY34ZZZ"], None),
    ],
)
def test_texts_that_stand_in_names_alone_go(tmp_path, names, kept):
    files = {f"{name}.jpg": None for name in names} | {f"{name}.txt": YOLO_BOX for name in names}
    files["train.txt"] = "".join(f"{name}.jpg\n" for name in names)
    dataset = open_dataset(make(tmp_path / "in", files))
    out = write_out(dataset, other, tmp_path / "out")
    written = sorted(path.relative_to(out).with_suffix("").as_posix() for path in out.rglob("*.jpg"))
    assert kept is None or written == sorted(kept)
    told = (out / "train.txt").read_text() + "".join(written)
    assert not any(text in told for text in ("DB766UD", "766", "4G42", "4g42", "12345", "AB12CDE", "XY34ZZZ"))
    assert len(open_dataset(out).frames) == 2 and not open_dataset(out).left_over


@pytest.mark.parametrize(
    "names",
    [
        [f"street_{k}" for k in range(4)],
        [f"IMG_{k}" for k in range(1234, 1238)],
        [f"img{k:04d}" for k in range(4)],
        [f"frame{k:04d}" for k in range(4)],
        [f"cam{c}/DSC{k:05d}" for k in range(9) for c in "ab"],
        ["1b9d6bcd-bbfd-4b2d-9b5d-ab8dfd4bed00", "7c9e6679-7425-40de-944b-e07fc1f90ae7"],
        ["street_0_jpg.rf.0a1b2c3d4e5f60718293a4b5c6d7e8f9", "street_1_jpg.rf.1a1b2c3d4e5f60718293a4b5c6d7e8f9"],
    ],
)
def test_names_that_count_pictures_stay(tmp_path, names):
    files = {f"{name}.jpg": None for name in names} | {f"{name}.txt": YOLO_BOX for name in names}
    dataset = open_dataset(make(tmp_path, files))
    assert all(old == new for old, (new, _) in rewrite_dataset(dataset, other).items()) and not dataset.named


def test_names_are_not_looked_into_where_annotations_have_the_texts(tmp_path):
    files = {"AB123CD.jpg": None, "XY987ZZ.jpg": None, "a.csv": "path,text\nAB123CD.jpg,KK11KKK\nXY987ZZ.jpg,LL22LLL\n"}
    dataset = open_dataset(make(tmp_path, files))
    assert not dataset.named and set(rewrite_dataset(dataset, other)) == set(files)
