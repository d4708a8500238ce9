"""Annotation tools, corner lines, outlines and character boxes: each field is read, damage set aside, texts reworded."""

import io
import json
import math
import random

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from stand_ins import anonymized, frames
from test_frames import (
    BOX,
    CCPD,
    CVAT,
    DATASETS,
    GREEN,
    LABEL_STUDIO,
    NAMES,
    OF_CHARACTERS,
    OTHER,
    RECTANGLE,
    SIZE,
    SKEWED,
    VOC,
    make,
    other,
    plates,
    reasons,
    region,
    spelled,
    task,
    told,
    write_out,
)
from test_frames_geometry import turned

from platemint.pipeline.anonymize.compare import verify_against
from platemint.pipeline.corpora.datasets import FORMATS, LAST, open_dataset, rewrite_dataset
from platemint.pipeline.corpora.formats.yolo_characters import Character, in_reading_order
from platemint.pipeline.corpora.outlines import four_corners
from platemint.pipeline.plate import PROVINCES, PlatemintError, characters

PLATE = f"{NAMES.index('license plate')} 0.175 0.15 0.25 0.1\n"  # `BOX` of `SIZE`
LINE = "4,0.05,0.3,0.3,0.05,0.1,0.1,0.2,0.2,ABC1234,\n"


def corners_of(root, picture: str = "1.png"):
    ((_, corners),) = plates(open_dataset(root))[picture]
    return corners


def only_fault(root) -> str:
    """Why 1.jpg is set aside, while 2.jpg is not."""
    dataset = open_dataset(root)
    assert [frame.path for frame in dataset.frames] == ["2.jpg"]
    found = [reason for path, reason in reasons(dataset) if path == "1.jpg"]
    assert len(found) == 1 and "ABC" not in found[0]
    for old, (_, data) in rewrite_dataset(dataset, other).items():
        assert old != "1.jpg" and b"1.jpg" not in (data or b"")
    return found[0]


# -------------------------------------------------------------------------------------------------- which format it is


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_fits_one_format_alone(tmp_path, name):
    format, files, _ = DATASETS[name]
    root = make(tmp_path, files)
    fitting = []
    for candidate in FORMATS:
        try:
            fitting += [candidate] if open_dataset(root, candidate).frames else []
        except PlatemintError:
            continue
    included = getattr(FORMATS[format], "INCLUDES", ())
    assert {*fitting} - {"pictures", LAST, *included} == {format} - {LAST} and format in fitting


EMPTY_FIRST = {
    "cvat": {f"{n}.xml": CVAT.split("<image")[0] + f'<image name="{n}.jpg" /></annotations>' for n in range(3)}
    | {"3.xml": CVAT.split("<image")[0] + f'<image name="3.jpg">{CVAT.split("<image")[2].split(">", 1)[1]}</annotations>'},
    "label_studio": {f"{n}.json": json.dumps([task(n, f"{n}.jpg")]) for n in range(3)}
    | {"3.json": json.dumps([task(3, "3.jpg", *LABEL_STUDIO[1]["annotations"][0]["result"])])},
    "lp2024": dict.fromkeys(["0.txt", "1.txt", "2.txt"], "") | {"3.txt": "ABC1234 20 30 120 35 121 66 19 60"},
    "corner_lines": dict.fromkeys(["0.txt", "1.txt", "2.txt"], "") | {"3.txt": LINE},
    "yolo_characters": {"data.yaml": OF_CHARACTERS, **dict.fromkeys(["0.txt", "1.txt", "2.txt"], ""),
                        "3.txt": PLATE + spelled("ABC1234")},
    "yolo": {"data.yaml": "names: [plate]", **dict.fromkeys(["0.txt", "1.txt", "2.txt"], ""), "3.txt": "0 .5 .5 .1 .1"},
}  # fmt: skip


@pytest.mark.parametrize("format", EMPTY_FIRST)
def test_files_without_annotations_come_first(tmp_path, format):
    pictures = dict.fromkeys(f"{n}.jpg" for n in range(4))
    dataset = open_dataset(make(tmp_path, pictures | EMPTY_FIRST[format]))
    assert dataset.format == format and dataset.set_aside == [] and len(dataset.unannotated) == 3
    assert dataset.frames[3].annotations


@pytest.mark.parametrize(
    "names, format",
    [
        ("[license_plate]", "yolo"),
        (str([str(n) for n in range(15)]), "yolo"),
        ("['0', '1', '2', plate, car]", "yolo"),
        ("[A, B, C, D, plate]", "yolo"),
        (str([*range(10), *"ABC"]), "yolo_characters"),
        (str({n: c.lower() for n, c in enumerate(NAMES)}), "yolo_characters"),
        (str([*PROVINCES]), "yolo_characters"),
    ],
)
def test_classes_tell_whether_boxes_are_things_or_characters(tmp_path, names, format):
    files = {"data.yaml": f"names: {names}\n", "1.jpg": None, "1.txt": "0 0.3 0.5 0.2 0.5\n0 0.7 0.5 0.2 0.5\n"}
    assert open_dataset(make(tmp_path, files), classes=["0"] if format == "yolo" else []).format == format


def test_many_classes_without_names_may_be_characters(tmp_path):
    root = make(tmp_path, {"1.jpg": None, "1.txt": spelled("ABCDE12345", step=9)})
    with pytest.raises(PlatemintError, match="10 classes are in use and none has a name"):
        open_dataset(root)
    assert open_dataset(root, classes=["1"]).format == "yolo"


def test_voc_and_cvat_in_one_folder_are_named(tmp_path):
    files = {"abc-1234.jpg": None, "abc-1234.xml": VOC, "annotations.xml": CVAT}
    with pytest.raises(PlatemintError, match=r"several formats \(voc, cvat\)"):
        open_dataset(make(tmp_path, files))


def test_tracks_of_a_video_are_not_taken_for_pictures_without_plates(tmp_path):
    video = '<annotations><track label="plate"><box frame="0" xtl="1" ytl="1" xbr="9" ybr="9" /></track></annotations>'
    dataset = open_dataset(make(tmp_path, {"1.jpg": None, "1.xml": video, "2.jpg": None, "2.txt": LINE}))
    assert dataset.format == "corner_lines" and dataset.withheld == ["1.jpg"]


# ------------------------------------------------------------------------------------------------------------ outlines


@pytest.mark.parametrize("degrees", range(-80, 90, 20))
def test_the_rectangle_around_an_outline_turns_with_it_and_holds_it(degrees):
    turn = np.array([[math.cos(math.radians(degrees)), -math.sin(math.radians(degrees))],
                     [math.sin(math.radians(degrees)), math.cos(math.radians(degrees))]])  # fmt: skip
    rectangle = np.array([(-50, -15), (50, -15), (50, 15), (-50, 15)]) @ turn.T + (3000, 200)
    between = [rectangle[0] + (rectangle[1] - rectangle[0]) * part for part in (0.3, 0.7)]
    found = four_corners(tuple(map(tuple, [rectangle[0], *between, *rectangle[1:]])))
    assert np.allclose(sorted(found), sorted(map(tuple, rectangle)), atol=0.01)


@pytest.mark.parametrize("form", ["yolo", "corner_lines", "cvat", "label_studio"])
def test_an_outline_of_more_than_four_points_is_a_turned_rectangle(tmp_path, form):
    quad = np.array([(100, 100), (180, 160), (162, 184), (82, 124)], float)  # 100 x 30, turned
    outline = np.insert(quad, 1, (quad[0] + quad[1]) / 2, 0)
    parts = outline / SIZE
    files = {
        "yolo": {"1.txt": "0 " + " ".join(map(str, parts.ravel()))},
        "corner_lines": {"1.txt": f"5,{','.join(map(str, parts.T.ravel()))},ABC1234,"},
        "cvat": {"a.xml": '<annotations><image name="1.png" width="400" height="300"><polygon label="plate" points="'
                 + ";".join(f"{x},{y}" for x, y in outline) + '" /></image></annotations>'},
        "label_studio": {"a.json": json.dumps([task(1, "1.png", region("a", "polygonlabels", {
            "points": (parts * 100).tolist(), "polygonlabels": ["plate"]}))])},
    }  # fmt: skip
    assert np.allclose(corners_of(make(tmp_path, files[form] | {"1.png": None})), quad, atol=0.05)


@pytest.mark.parametrize("form", ["yolo", "corner_lines", "cvat", "label_studio"])
def test_four_points_are_the_corners_as_they_are(tmp_path, form):
    values = np.array(SKEWED, float)
    parts = values / SIZE
    files = {
        "yolo": {"1.txt": "0 " + " ".join(map(str, parts.ravel()))},
        "corner_lines": {"1.txt": f"4,{','.join(map(str, parts.T.ravel()))},,"},
        "cvat": {"a.xml": '<annotations><image name="1.png"><polyline label="plate" points="'
                 + ";".join(f"{x},{y}" for x, y in values) + '" /></image></annotations>'},
        "label_studio": {"a.json": json.dumps([task(1, "1.png", region("a", "polygon", {
            "points": (parts * 100).tolist()}))])},
    }  # fmt: skip
    assert np.allclose(corners_of(make(tmp_path, files[form] | {"1.png": None})), SKEWED)


@pytest.mark.parametrize(
    "line",
    ["3,0.1,0.2,0.1,0.2,0.2", "4,0.1,0.3,0.3,0.1,0.1,0.1,0.2", "4,0.1,0.3,0.3,0.1,0.1,0.1,0.2,x,ABC1234,",
     "plate,0.1,0.3", "2,0.1,0.3,0.1,0.2,ABC1234,", "4,0.1,0.3,0.3,0.1,0.1,0.1,nan,0.2,ABC1234,"],
)  # fmt: skip
def test_a_broken_corner_line_sets_its_picture_aside(tmp_path, line):
    files = {"1.jpg": None, "1.txt": LINE + line + "\n", "2.jpg": None, "2.txt": LINE}
    assert "line 2 is not `4,x1" in only_fault(make(tmp_path, files))


@pytest.mark.parametrize(
    "line", ["20 30 120 35 121 66 19 60", "AB 1 2 3 4 5 6 7", "AB 1 2 3 4 5 6 7 8.5", "AB 1 2 3 4 5 6 7 8 9"]
)
def test_a_broken_line_of_lp2024_sets_its_picture_aside(tmp_path, line):
    sound = "ABC1234 20 30 120 35 121 66 19 60\n"
    files = {"1.jpg": None, "1.txt": sound + line + "\n", "2.jpg": None, "2.txt": sound}
    assert "line 2 is not `TEXT x1 y1" in only_fault(make(tmp_path, files))


def test_a_plate_of_lp2024_without_a_new_text_is_marked_as_unreadable(tmp_path):
    lines = "ABC1234 20 30 120 35 121 66 19 60\r\n_ 220 130 320 130 320 160 220 160\r\n"
    dataset = open_dataset(make(tmp_path, {"1.jpg": None, "1.txt": lines}))
    assert rewrite_dataset(dataset, lambda frame, text: "")["1.txt"][1].decode() == lines.replace("ABC1234", "_")


def test_corner_lines_keep_all_but_the_text(tmp_path):
    lines = "4,0.05,0.3,0.3,0.05,0.1,0.1,0.2,0.2,ABC1234,\r\n\r\n4,0.5,0.8,0.8,0.5,0.1,0.1,0.2,0.2,,\r\n"
    dataset = open_dataset(make(tmp_path, {"1.jpg": None, "1.txt": lines}))
    assert rewrite_dataset(dataset, lambda frame, text: "XYZ9876")["1.txt"][1].decode() == lines.replace(
        "ABC1234", "XYZ9876"
    )
    assert rewrite_dataset(dataset, lambda frame, text: "")["1.txt"][1].decode() == lines.replace("ABC1234", "")


# ---------------------------------------------------------------------------------------------------------------- CVAT


def cvat(*shapes: str, size: tuple[int, int] = SIZE, name: str = "1.jpg") -> str:
    first = f'<image name="{name}" width="{size[0]}" height="{size[1]}">{"".join(shapes)}</image>'
    second = f'<image name="2.jpg">{shape()}</image>'
    return f"<annotations>{first}{second}</annotations>"


def shape(text: str | None = "ABC1234", tag: str = "box", attribute: str = "text", **fields: object) -> str:
    place = {"label": "plate"} | (dict(zip(("xtl", "ytl", "xbr", "ybr"), (20, 30, 120, 60))) if tag == "box" else {})
    held = "" if text is None else f'<attribute name="{attribute}">{text}</attribute>'
    attributes = " ".join(f'{key}="{value}"' for key, value in (place | fields).items())
    return f"<{tag} {attributes}>{held}</{tag}>"


IN_THE_MIDDLE = {"xtl": 150, "ytl": 130, "xbr": 250, "ybr": 160}


@pytest.mark.parametrize("degrees", [0, 20, 90, 180, 340.5])
def test_a_box_of_cvat_is_turned_clockwise_about_its_middle(tmp_path, degrees):
    root = make(tmp_path, {"1.jpg": None, "2.jpg": None, "a.xml": cvat(shape(rotation=degrees, **IN_THE_MIDDLE))})
    expected = cv2.boxPoints(((200, 145), (100, 30), degrees))
    assert np.allclose(sorted(corners_of(root, "1.jpg")), sorted(map(tuple, expected.tolist())), atol=0.01)


@pytest.mark.parametrize("name", ["text", "Plate Number", "license_plate", "LP", "OCR text", "number"])
def test_a_text_stands_in_a_field_of_some_name(tmp_path, name):
    root = make(tmp_path, {"1.jpg": None, "2.jpg": None, "a.xml": cvat(shape(attribute=name))})
    assert plates(open_dataset(root))["1.jpg"] == [("ABC1234", BOX)]
    again = open_dataset(write_out(open_dataset(root), other, tmp_path / "out"))
    assert plates(again)["1.jpg"] == [("BCD2345", BOX)] and "abc1234" not in told(tmp_path / "out")


@pytest.mark.parametrize(
    "shapes, said",
    [
        ([shape(xtl="left")], "could not convert"),
        ([shape(xbr=900)], "reaches out"),
        ([shape(xbr=20)], "less than a pixel"),
        ([shape(tag="mask", rle="1, 2", left=1, top=2)], "drawn as mask"),
        ([shape(tag="points", points="1,2;3,4")], "2 points"),
        ([shape(tag="polygon", points="1,2;3,4;5")], ""),
        ([shape(attribute="sign")], "sign: looks like a plate's text"),
        ([shape("QRS555"), shape(label="car", attribute="Plate number")], "Plate number: looks like a plate's text"),
        ([shape(None), shape(tag="tag")], "belongs to none of the picture's shapes"),
        ([shape(), shape("ABC1235")], "different texts"),
    ],
)
def test_a_damaged_shape_of_cvat_sets_its_picture_aside(tmp_path, shapes, said):
    root = make(tmp_path, {"1.jpg": None, "2.jpg": None, "a.xml": cvat(*shapes)})
    assert said in only_fault(root)


@pytest.mark.parametrize("size", [(800, 600), (200, 150)])
def test_a_scaled_annotation_of_cvat_is_followed_and_a_contradicting_one_set_aside(tmp_path, size):
    sides = dict(zip(("xtl", "ytl", "xbr", "ybr"), (side * size[0] / 400 for side in (20, 30, 120, 60))))
    files = {"1.jpg": None, "2.jpg": None}
    root = make(tmp_path / "scaled", files | {"a.xml": cvat(shape(**sides), size=size)})
    assert np.allclose(corners_of(root, "1.jpg"), BOX)
    assert "declared as" in only_fault(make(tmp_path / "other", files | {"a.xml": cvat(shape(), size=(300, 400))}))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("drawn", [{}, {"rotation": 15}, {"tag": "polygon", "points": "20,30;120,35;121,66;19,60"}])
def test_a_cvat_annotation_of_the_stored_picture_is_turned_with_it(tmp_path, orientation, drawn):
    data, _ = turned(SIZE, (20, 30, 120, 60), orientation)
    text = cvat(shape(**drawn), '<ellipse label="car" cx="9" cy="9" rx="3" ry="3" />')
    dataset = open_dataset(make(tmp_path / "in", {"1.jpg": data, "2.jpg": None, "a.xml": text}))
    out = write_out(dataset, lambda frame, text: text, tmp_path / "out")
    ImageOps.exif_transpose(Image.open(io.BytesIO(data))).save(out / "1.jpg", "PNG", exif=b"")
    again = open_dataset(out)
    assert again.set_aside == [] and "ellipse" not in (out / "a.xml").read_text()
    before, after = (np.array(plates(d)["1.jpg"][0][1]) for d in (dataset, again))
    assert np.allclose(np.sort(before, 0), np.sort(after, 0), atol=1e-6)


@pytest.mark.parametrize("broken", [CVAT[:-9], CVAT.replace("?>", "?><!DOCTYPE x []>", 1)])
def test_a_broken_file_of_cvat_is_refused_by_name(tmp_path, broken):
    with pytest.raises(PlatemintError, match=r"annotations.xml: (not XML|the file declares)"):
        open_dataset(make(tmp_path, {"annotations.xml": broken, "crop.jpg": None}))


def test_images_of_cvat_without_a_picture_or_a_name_are_left_over(tmp_path):
    text = cvat(shape(), name="gone.jpg").replace("</annotations>", f"<image>{shape()}</image></annotations>")
    dataset = open_dataset(make(tmp_path, {"1.jpg": None, "2.jpg": None, "a.xml": text}))
    assert [*plates(dataset)] == ["2.jpg"] and dataset.withheld == ["1.jpg"]
    assert dataset.left_over == 3 and {path for path, _ in reasons(dataset)} == {"gone.jpg", "a.xml"}
    assert b"gone" not in rewrite_dataset(dataset, other)["a.xml"][1]


def test_names_of_labels_stay_even_where_a_plate_reads_like_one(tmp_path):
    text = cvat(shape("PLATE5"), '<box label="plate5" xtl="1" ytl="1" xbr="9" ybr="9" />').replace(
        "<annotations>", "<annotations><meta><name>plate5</name><label><name>plate5</name></label></meta>"
    )
    root = make(tmp_path, {"1.jpg": None, "2.jpg": None, "a.xml": text})
    said = rewrite_dataset(open_dataset(root, classes=["plate"]), lambda frame, text: "QRS777")["a.xml"][1].decode()
    assert said.count("plate5") == 2 and "<label><name>plate5</name></label>" in said and "<name>qrs777</name>" in said


# -------------------------------------------------------------------------------------------------------- Label Studio


def plate(id: str = "r1", text: str | None = "ABC1234", **value: object) -> list[dict]:
    place = region(id, "rectanglelabels", RECTANGLE | {"rectanglelabels": ["plate"]} | value)
    return [place] + ([] if text is None else [region(id, "textarea", {"text": [text]}, "text")])


def export(*results: dict, image: str = "1.jpg", **fields) -> dict:
    return {"1.jpg": None, "2.jpg": None,
            "a.json": json.dumps([task(1, image, *results, **fields), task(2, "2.jpg", *plate())])}  # fmt: skip


@pytest.mark.parametrize("degrees", [0, 20, 90, 340.5])
def test_a_rectangle_of_label_studio_is_turned_clockwise_about_its_corner(tmp_path, degrees):
    root = make(tmp_path, export(*plate(rotation=degrees, x=30.0, y=40.0)))
    right, down = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    expected = [
        (120 + a * right - b * down, 120 + a * down + b * right) for a, b in ((0, 0), (100, 0), (100, 30), (0, 30))
    ]
    assert np.allclose(sorted(corners_of(root, "1.jpg")), sorted(expected))


NOTE = {"meta": {"text": ["ABC1234"]}}
TEXTS = {
    "its region's": plate(),
    "a label of its own": [region("r1", "rectangle", RECTANGLE), region("r1", "labels", RECTANGLE | {"labels": ["plate"]}),
                           region("r1", "textarea", RECTANGLE | {"text": ["ABC1234"]}, "transcription")],
    "as a string": [*plate(text=None), region("r1", "textarea", {"text": "ABC1234"})],
    "no label": [region("r1", "rectangle", RECTANGLE), region("r1", "textarea", {"text": ["ABC1234"]}, "any")],
    "the picture's": [*plate(text=None), region("r2", "textarea", {"text": ["ABC1234"]}, "transcription")],
    "the region's note": [plate(text=None)[0] | NOTE],
    "with a comment": [*plate(), region("r9", "textarea", {"text": ["rainy"]}, "comment")],
    "with another field": [*plate(), region("r1", "textarea", {"text": ["grey"]}, "colour")],
    "with a relation": [*plate(), {"type": "relation", "from_id": "r1", "to_id": "r1"}],
}  # fmt: skip


@pytest.mark.parametrize("results", TEXTS.values(), ids=TEXTS)
def test_a_text_of_label_studio_finds_its_region(tmp_path, results):
    dataset = open_dataset(make(tmp_path / "in", export(*results)))
    assert plates(dataset)["1.jpg"] == [("ABC1234", BOX)]
    again = open_dataset(write_out(dataset, other, tmp_path / "out"))
    assert plates(again)["1.jpg"] == [("BCD2345", BOX)] and "abc1234" not in told(tmp_path / "out")


BRUSH = region("r1", "brushlabels", {"rle": [1, 2], "brushlabels": ["plate"]})
CAR = [region("r1", "rectanglelabels", RECTANGLE | {"rectanglelabels": ["car"]}),
       region("r1", "textarea", {"text": ["ABC1234"]}, "comment")]  # fmt: skip
SEVERAL = [{"id": 1, "result": plate()}, {"id": 2, "result": plate(text="ABC1235")}]


@pytest.mark.parametrize(
    "files, said",
    [
        (export(*plate(x="left")), "could not convert"),
        (export(*plate(x=90.0)), "reaches out"),
        (export(*plate(width=0)), "less than a pixel"),
        (export(BRUSH, *plate(text="X")[1:]), "drawn as brushlabels"),
        (export(plate()[0] | {"image_rotation": 90}), "turned in the tool"),
        (export(plate()[0] | {"original_width": 300, "original_height": 400}), "declared as"),
        (export(*plate(), region("r1", "textarea", {"text": ["ABC1234"]}, "plate")), "several texts"),
        (export(*plate(text=None), region("r1", "textarea", {"text": ["ABC1234", "ABC1235"]})), "several texts"),
        (export(*plate(), region("r2", "textarea", {"text": ["ABC1235"]}, "text")), "a text is of no region"),
        (export(*CAR), "comment: looks like a plate's text"),
        (export(*plate(), annotations=SEVERAL), "mark one as ground truth"),
        (export(annotations=[{"was_cancelled": True, "result": plate()}]), "skipped"),
        (export(annotations=[], predictions=[{"result": plate()}]), "not submitted"),
        (export(annotations=[{"result": [7]}]), "cannot be used"),
        (export(annotations=[{"result": [{"id": "r1", "type": "rectanglelabels"}]}]), "cannot be used"),
        (export(annotations=[7]), "cannot be used"),
    ],
)
def test_a_damaged_task_of_label_studio_sets_its_picture_aside(tmp_path, files, said):
    assert said in only_fault(make(tmp_path, files))


def test_of_several_annotations_the_true_one_is_read_and_nothing_else_written(tmp_path):
    wrong = {"id": 1, "result": plate(text="ABC1Z34"), "prediction": {}}
    true = {"id": 2, "result": plate(), "ground_truth": True, "prediction": {"result": plate(text="ABO1234")}}
    files = export(
        annotations=[wrong, true], predictions=[{"result": plate(text="AB01234")}], drafts=[{"x": "A8C1234"}]
    )
    dataset = open_dataset(make(tmp_path, files))
    assert plates(dataset)["1.jpg"] == [("ABC1234", BOX)]
    (first, _) = json.loads(rewrite_dataset(dataset, other)["a.json"][1])
    assert [a["id"] for a in first["annotations"]] == [2] and first["predictions"] == first["drafts"] == []
    assert first["annotations"][0]["prediction"] == {} and "1234" not in json.dumps(first)


ADDRESSES = {
    "http://localhost:8080/data/upload/1/0a1b2c3d-ABC1234.jpg": "in/ABC1234.jpg",
    "https://host/set/ABC1234.jpg?token=ABC1234&x=1": "set/ABC1234.jpg",
    "s3://bucket/set/ABC1234.jpg": "ABC1234.jpg",
    "/data/local-files/?d=home/set/ABC1234.jpg": "set/ABC1234.jpg",
    "/data/upload/1/0a1b2c3d-ABC1234.jpg": "images/0a1b2c3d-ABC1234.jpg",
    "upload/0a1b2c3d-ABC1234.jpg": "upload/ABC1234.jpg",
    "ABC1234.jpg": "ABC1234.jpg",
}


@pytest.mark.parametrize("named, there", ADDRESSES.items(), ids=ADDRESSES)
def test_a_picture_is_found_by_its_address_which_no_longer_leads_to_the_old_one(tmp_path, named, there):
    files = export(*plate(), image=named) | {there: None}
    del files["1.jpg"]
    dataset = open_dataset(make(tmp_path / "in", files))
    assert dataset.left_over == 0 and plates(dataset)[there] == [("ABC1234", BOX)]
    out = write_out(dataset, other, tmp_path / "out")
    again = open_dataset(out)
    assert again.left_over == 0 and len(again.frames) == 2 and "abc1234" not in told(out)
    assert "://" not in (out / "a.json").read_text() and "token" not in (out / "a.json").read_text()


def test_two_uploads_of_one_name_are_not_one_picture(tmp_path):
    tasks = [task(n, f"/data/upload/1/{n}a1b2c3d-1.jpg", *plate()) for n in (1, 2)]
    dataset = open_dataset(make(tmp_path, {"1.jpg": None, "a.json": json.dumps(tasks)}))
    assert dataset.frames == [] and "by several names" in reasons(dataset)[0][1]


@pytest.mark.parametrize(
    "text", ["[1, 2]", "[]", '[{"a": 1}]', '{"data": 1}', "[" * 100_000, '[{"data": {}, "annotations": []}]']
)
def test_other_json_is_no_export_of_label_studio(tmp_path, text):
    dataset = open_dataset(make(tmp_path, {"1.jpg": None, "1.txt": LINE, "a.json": text}))
    assert dataset.format == "corner_lines" and dataset.unknown == ["a.json"]


# ---------------------------------------------------------------------------------------------------- character boxes


def boxes(rows: list[str], degrees: float, seed: int) -> list[Character]:
    """The boxes of a plate's characters, turned, each a little off its place and size, shuffled."""
    rng = random.Random(seed)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    found = []
    for r, row in enumerate(rows):
        for i, text in enumerate(row):
            x, y = 14 * i + 7 * (max(map(len, rows)) - len(row)) + rng.uniform(-1, 1), 26 * r + rng.uniform(-1, 1)
            w, h = (4 if text == "1" else 10) + rng.uniform(-1, 1), 20 + rng.uniform(-1, 1)
            x, y = 500 + c * x - s * y, 500 + s * x + c * y
            found.append(Character(len(found), text, ((x - w / 2, y - h / 2), (x + w / 2, y - h / 2),
                                                      (x + w / 2, y + h / 2), (x - w / 2, y + h / 2))))  # fmt: skip
    rng.shuffle(found)
    return found


@pytest.mark.parametrize(
    "rows", [["ABC1234"], ["京A", "B1234"], ["ABC", "1234"], ["AB-12", "3456"], ["1"], ["12", "ABCD", "34"]]
)
@pytest.mark.parametrize("degrees", range(-25, 26, 5))
def test_characters_are_read_row_by_row_however_the_plate_is_tilted(rows, degrees):
    for seed in range(5):
        assert "".join(c.text for c in in_reading_order(boxes(rows, degrees, seed))) == "".join(rows)


def characterised(first: str, settings: str = OF_CHARACTERS) -> dict:
    """A dataset of two pictures, of which the second is sound."""
    return {"data.yaml": settings, "1.jpg": None, "1.txt": first, "2.jpg": None, "2.txt": PLATE + spelled("XYZ9876")}


OUTSIDE = f"{NAMES.index('A')} 0.9 0.9 0.0225 0.04\n"


@pytest.mark.parametrize(
    "text, said",
    [
        (spelled("ABC1234"), "without a plate's box"),
        (PLATE + spelled("ABC1234") + OUTSIDE, "line 9: the character lies in no plate's box"),
        (PLATE + spelled("ABC1234") + spelled("ABC1234", x=25), "two characters have one place"),
        (PLATE + "7 0.1\n", "line 2 is not a class"),
        (PLATE + "A 0.1 0.1 0.1 0.1\n", "line 2 is not a class"),
        (PLATE + PLATE + spelled("ABC1234"), "different texts"),
    ],
)
def test_damaged_boxes_of_characters_set_their_picture_aside(tmp_path, text, said):
    assert said in only_fault(make(tmp_path, characterised(text)))


def test_a_frame_is_not_taken_for_a_crop(tmp_path):
    files = characterised(spelled("ABC1234")) | {"2.txt": spelled("XYZ9876", step=50)}
    assert "too little of the picture for a crop" in only_fault(make(tmp_path, files))


def test_a_class_that_no_name_belongs_to_is_refused(tmp_path):
    with pytest.raises(PlatemintError, match="of class 99"):
        open_dataset(make(tmp_path, characterised(PLATE + "99 0.1 0.1 0.1 0.1\n")))


def test_each_plate_has_the_characters_inside_it(tmp_path):
    second = f"{NAMES.index('license plate')} 0.675 0.48333333 0.25 0.1\n"
    lines = (spelled("ABC", "1234") + spelled("XYZ9876", x=224, y=138, fall=1) + PLATE + second).splitlines(
        keepends=True
    )
    random.Random(0).shuffle(lines)
    found = plates(open_dataset(make(tmp_path, characterised("".join(lines)))))["1.jpg"]
    assert sorted(text for text, _ in found) == ["ABC1234", "XYZ9876"]
    assert all(np.allclose(corners, BOX if text[0] == "A" else OTHER, atol=0.01) for text, corners in found)


def test_new_texts_change_classes_and_nothing_else(tmp_path):
    text = PLATE + spelled("京A", "B1234") + f"{NAMES.index('car')}  0.5 0.5 1 1\r\n"
    dataset = open_dataset(make(tmp_path, characterised(text)))
    new = rewrite_dataset(dataset, lambda frame, text: "沪-CD9876" if "京" in text else text)
    after = new["1.txt"][1].decode()
    assert [line.split(maxsplit=1)[1] for line in after.splitlines(keepends=True)] == [
        line.split(maxsplit=1)[1] for line in text.splitlines(keepends=True)
    ]
    (tmp_path / "1.txt").write_bytes(new["1.txt"][1])
    assert [text for text, _ in plates(open_dataset(tmp_path))["1.jpg"]] == ["沪CD9876"]
    changed = [(a.split()[0], b.split()[0]) for a, b in zip(text.splitlines(), after.splitlines())]
    assert {NAMES[int(old)] for old, new in changed if old != new} == {*"京AB1234"}


def test_a_plate_without_a_new_text_loses_its_characters(tmp_path):
    dataset = open_dataset(make(tmp_path, characterised(PLATE + spelled("ABC1234"))))
    assert rewrite_dataset(dataset, lambda frame, text: "")["1.txt"][1].decode() == PLATE
    names = "\n".join(NAMES)
    dataset = open_dataset(
        make(tmp_path / "crops", {"classes.txt": names, "1.jpg": None, "1.txt": spelled("ABC1234", step=50)})
    )
    assert rewrite_dataset(dataset, lambda frame, text: "")["1.txt"][1] == b""


@pytest.mark.parametrize(
    "text, said", [("ABC123", "7 characters cannot get 6"), ("ABC-12345", "7 characters cannot get 8")]
)
def test_a_text_of_another_length_is_refused(tmp_path, text, said):
    dataset = open_dataset(make(tmp_path, characterised(PLATE + spelled("ABC1234"))))
    with pytest.raises(PlatemintError, match=said):
        rewrite_dataset(dataset, lambda frame, old: text)


def test_a_character_without_a_class_is_refused_by_name(tmp_path):
    settings = OF_CHARACTERS.replace("'Q'", "'qq'")
    dataset = open_dataset(make(tmp_path, characterised(PLATE + spelled("ABC1234"), settings)))
    with pytest.raises(PlatemintError, match="no class is called Q"):
        rewrite_dataset(dataset, lambda frame, old: "QQQ9876")


@pytest.mark.parametrize(
    "settings", [OF_CHARACTERS, "names:\n" + "".join(f"  {n}: '{c}'\n" for n, c in enumerate(NAMES))]
)
def test_names_of_classes_stay_though_plates_read_like_them(tmp_path, settings):
    files = characterised(PLATE + spelled("A"), settings) | {"2.txt": PLATE + spelled("CAR")}
    dataset = open_dataset(make(tmp_path, files))
    assert [text for found in plates(dataset).values() for text, _ in found] == ["A", "CAR"]
    new = rewrite_dataset(dataset, lambda frame, text: other(frame, text))["data.yaml"][1].decode()
    assert new.partition("names")[2] == settings.partition("names")[2]


# ---------------------------------------------------------------------------------------------------------------- CCPD


def test_green_plates_of_ccpd_keep_eight_indices(tmp_path):
    dataset = open_dataset(make(tmp_path / "in", {f"{GREEN}.jpg": None, f"{CCPD}.jpg": None}))
    assert plates(dataset)[f"{GREEN}.jpg"] == [("苏DD01234", SKEWED)]
    new = rewrite_dataset(dataset, lambda frame, text: "京AF98765" if len(text) == 8 else "京A98765")
    green, blue = (new[f"{name}.jpg"][0].split("-")[4] for name in (GREEN, CCPD))
    assert len(green.split("_")) == 8 and len(blue.split("_")) == 7
    again = open_dataset(
        write_out(dataset, lambda frame, text: "京AF98765" if len(text) == 8 else "京A98765X"[:7], tmp_path / "out")
    )
    assert {text for found in plates(again).values() for text, _ in found} == {"京AF98765", "京A98765"}


# ------------------------------------------------------------------------------------------------- the whole of a run

FRAMES = {"one": ["ABC1234"], "XYZ9876": ["XYZ9876", "KLM5556"], "bare": [], "none": ["", "DEF4321"]}
CROP = {"crop": ["GHJ7777"]}


def converted(root, form: str):
    """The stand-in frames, of 240 x 100 pixels, in another format."""
    found = {path.stem: [line.split("\t") for line in path.read_text().splitlines()] for path in root.glob("*.txt")}
    for path in root.glob("*.txt"):
        path.unlink()
    found = {
        path.stem: [(*map(int, line[1:5]), line[5]) for line in found.get(path.stem, ())] for path in root.glob("*.png")
    }
    WRITERS[form](root, found)
    return root


def _in_corner_lines(root, found):
    for name, items in found.items():
        lines = (f"4,{x / 240},{(x + w) / 240},{(x + w) / 240},{x / 240},{y / 100},{y / 100},{(y + h) / 100},{(y + h) / 100},{text},\n"
                 for x, y, w, h, text in items)  # fmt: skip
        (root / f"{name}.txt").write_text("".join(lines))


def _in_lp2024(root, found):
    for name, items in found.items():
        lines = (f"{text or '_'} {x} {y} {x + w} {y} {x + w} {y + h} {x} {y + h}\n" for x, y, w, h, text in items)
        (root / f"{name}.txt").write_text("".join(lines))


def _in_characters(root, found):
    (root / "data.yaml").write_text(OF_CHARACTERS.replace("ABC1234", "x"))
    for name, items in found.items():
        lines = []
        for x, y, w, h, text in items:
            lines.append(
                f"{NAMES.index('license plate')} {(x + w / 2) / 240} {(y + h / 2) / 100} {w / 240} {h / 100}\n"
            )
            lines += [
                f"{NAMES.index(c)} {(x + 5 + 8 * i) / 240} {(y + h / 2) / 100} {7 / 240} 0.14\n"
                for i, c in enumerate(text)
            ]
        (root / f"{name}.txt").write_text("".join(lines))


def _in_crops_of_characters(root, found):
    (root / "classes.txt").write_text("\n".join(NAMES[:36]))
    for name, items in found.items():
        lines = [
            f"{NAMES.index(c)} {(20 + 30 * i) / 240} 0.5 0.1 0.5\n" for *_, text in items for i, c in enumerate(text)
        ]
        (root / f"{name}.txt").write_text("".join(lines))


def _in_cvat(root, found):
    images = "".join(
        f'<image name="{name}.png" width="240" height="100">'
        + "".join(shape(text, xtl=x, ytl=y, xbr=x + w, ybr=y + h) for x, y, w, h, text in items)
        + "</image>\n"
        for name, items in found.items()
    )
    (root / "annotations.xml").write_text(f"<annotations>{images}</annotations>\n")


def _in_label_studio(root, found):
    tasks = []
    for number, (name, items) in enumerate(found.items(), 1):
        results = []
        for n, (x, y, w, h, text) in enumerate(items):
            value = {"x": x / 2.4, "y": y, "width": w / 2.4, "height": h, "rotation": 0}
            results.append(region(f"r{n}", "rectanglelabels", value | {"rectanglelabels": ["plate"]}))
            results.append(region(f"r{n}", "textarea", value | {"text": [text] if text else []}, "text"))
        sized = [result | {"original_width": 240, "original_height": 100} for result in results]
        tasks.append(task(number, f"/data/upload/1/0a1b2c3d-{name}.png", *sized))
    (root / "export.json").write_text(json.dumps(tasks))


WRITERS = {
    "corner_lines": _in_corner_lines, "lp2024": _in_lp2024, "yolo_characters": _in_characters, "cvat": _in_cvat, "label_studio": _in_label_studio,
    "crops": _in_crops_of_characters,
}  # fmt: skip


@pytest.mark.parametrize("form", WRITERS)
def test_a_dataset_is_anonymized_and_verified_against_its_source(tmp_path, form):
    corpus = converted(frames(tmp_path / "in", CROP if form == "crops" else FRAMES), form)
    before = open_dataset(corpus)
    audit = anonymized(corpus, tmp_path / "out")
    texts = {a.text for frame in before.frames for a in frame.annotations} - {""}
    assert audit["plates"]["annotated"] == (1 if form == "crops" else 5) and audit["source_texts"]["found"] == 0
    after = open_dataset(tmp_path / "out", before.format, sure=True, classes=before.classes)
    labels = {a.text for frame in after.frames for a in frame.annotations} - {""}
    assert len(labels) == audit["plates"]["replaced"] >= (0 if form == "crops" else 4) and not labels & texts
    assert all(len(characters(label)) == 7 for label in labels)
    assert verify_against(tmp_path / "out", corpus).faults == []
