"""Where annotations say plates are: sizes, turns, boxes and corners have to agree; each form is read as what it is."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageOps
from test_frames import CCPD, KEYPOINTS, UFPR, VOC, make, plates, reasons
from test_frames_matching import COCO_BOX, coco

from platemint.pipeline.corpora.datasets import open_dataset, rewrite_dataset
from platemint.pipeline.plate import PlatemintError

X, Y, W, H = COCO_BOX
VOC_PLATE = (
    "<annotation><size><width>{}</width><height>{}</height></size><object><name>plate</name>"
    "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object></annotation>"
)


def declaring(form: str, size: tuple[float, float], box: tuple[float, ...]) -> dict[str, str]:
    """An annotation of 1.png in a format that declares the picture's size. box: x1, y1, x2, y2."""
    x1, y1, x2, y2 = box
    if form == "voc":
        return {"1.xml": VOC_PLATE.format(*size, *(side + 1 for side in box))}
    data = json.loads(coco("1.png", width=size[0], height=size[1]))
    data["annotations"][0]["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    return {"a.json": json.dumps(data)}


def turned(size: tuple[int, int], box: tuple[int, ...], orientation: int) -> tuple[bytes, tuple[int, ...]]:
    """A stored picture that is white in a box, with an orientation; and where that is white once shown."""
    image = Image.new("L", size)
    image.paste(255, box)
    exif, sink = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(sink, "PNG", exif=exif)
    return sink.getvalue(), ImageOps.exif_transpose(Image.open(sink)).getbbox()


def bounds(root) -> tuple[float, ...]:
    (((_, corners),),) = plates(open_dataset(root)).values()
    return (*np.min(corners, 0), *np.max(corners, 0))


@pytest.mark.parametrize("form", ["coco", "voc"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("scale", [1, 0.5, 3])
def test_a_box_follows_the_turn_and_scale_between_the_declared_picture_and_the_file(tmp_path, form, orientation, scale):
    data, shown = turned((400, 300), (20, 30, 120, 60), orientation)
    stored = declaring(form, (400 * scale, 300 * scale), [side * scale for side in (20, 30, 120, 60)])
    upright = (400, 300) if orientation < 5 else (300, 400)
    as_shown = declaring(form, (upright[0] * scale, upright[1] * scale), [side * scale for side in shown])
    if orientation in (1, 5, 6, 7, 8):
        assert bounds(make(tmp_path / "stored", {"1.png": data} | stored)) == pytest.approx(shown)
    assert bounds(make(tmp_path / "shown", {"1.png": data} | as_shown)) == pytest.approx(shown)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("form", ["coco", "coco outline", "voc", "voc polygon"])
def test_an_annotation_of_the_stored_picture_is_turned_with_the_picture_that_is_written(tmp_path, form, orientation):
    data, shown = turned((400, 300), (20, 30, 120, 60), orientation)
    files = with_segmentation([QUAD]) if "outline" in form else with_polygon(QUAD)
    files = files if " " in form else declaring(form, (400, 300), (20, 30, 120, 60))
    dataset = open_dataset(make(tmp_path / "in", {"1.png": data} | files))
    out = tmp_path / "out"
    out.mkdir()
    for name, (_, text) in rewrite_dataset(dataset, lambda frame, text: text).items():
        (out / name).write_bytes(text or b"")
    ImageOps.exif_transpose(Image.open(io.BytesIO(data))).save(out / "1.png", exif=b"")
    again = open_dataset(out)
    assert plates(again) == plates(dataset) and bounds(out) == pytest.approx(shown)
    assert (rewrite_dataset(again, lambda frame, text: text)).keys() == {"1.png", *files}


def test_what_cannot_be_turned_is_left_out(tmp_path):
    broken = "<object><name>car</name><bndbox><xmin>left</xmin></bndbox></object></annotation>"
    data, _ = turned((400, 300), (20, 30, 120, 60), 6)
    voc = declaring("voc", (400, 300), (20, 30, 120, 60))["1.xml"].replace("</annotation>", broken)
    becomes = rewrite_dataset(
        open_dataset(make(tmp_path / "voc", {"1.png": data, "1.xml": voc})), lambda frame, text: text
    )
    assert b"left" not in becomes["1.xml"][1] and b"<name>car</name>" in becomes["1.xml"][1]
    told = json.loads(declaring("coco", (400, 300), (20, 30, 120, 60))["a.json"])
    told["categories"].append({"id": 2, "name": "car"})
    told["annotations"] += [{"image_id": 0, "category_id": 2, "bbox": box} for box in ([1, 2], ["a"] * 4, None)]
    files = {"1.png": data, "a.json": json.dumps(told)}
    becomes = rewrite_dataset(open_dataset(make(tmp_path / "coco", files)), lambda frame, text: text)
    assert [len(a.get("bbox", ())) for a in json.loads(becomes["a.json"][1])["annotations"]] == [4, 0, 0, 0]


def test_where_one_picture_is_annotated_as_stored_those_that_do_not_tell_are_set_aside(tmp_path):
    data = json.loads(coco("1.png", "2.png", "3.png"))
    files = {"1.png": turned((400, 300), (20, 30, 120, 60), 6)[0], "2.png": turned((400, 300), (1, 1, 9, 9), 3)[0]}
    dataset = open_dataset(make(tmp_path, files | {"a.json": json.dumps(data), "3.png": None}))
    ((path, reason),) = reasons(dataset)
    assert path == "2.png" and "EXIF" in reason and {*plates(dataset)} == {"1.png", "3.png"}


@pytest.mark.parametrize("on_end", [False, True])
def test_without_a_declared_size_plates_that_stand_on_end_tell_that_turned_pictures_are_annotated_as_stored(
    tmp_path, on_end
):
    files = {f"{turn}.png": turned((400, 300), (0, 0, 9, 9), turn)[0] for turn in (1, 3, 6, 8)}
    files |= {f"{turn}.txt": "0 0.5 0.5 0.4 0.2\n" for turn in (1, 3, 8)}
    files["6.txt"] = f"0 0.5 0.5 {'0.1 0.4' if on_end else '0.4 0.1'}\n"
    dataset = open_dataset(make(tmp_path, files))
    assert {*plates(dataset)} == ({"1.png"} if on_end else {"1.png", "3.png", "6.png", "8.png"})
    assert all("EXIF" in reason for _, reason in reasons(dataset))


@pytest.mark.parametrize("form", ["coco", "voc"])
@pytest.mark.parametrize("size", [(640, 640), (300, 400), (400, 200)])
def test_a_declared_size_that_is_no_copy_of_the_pictures_sets_it_aside(tmp_path, form, size):
    files = declaring(form, size, (20, 30, 120, 60))
    ((path, reason),) = reasons(open_dataset(make(tmp_path, {"1.png": None, "2.png": None} | files)))
    assert path == "1.png" and reason == f"declared as {size[0]} x {size[1]} pixels, the picture has 400 x 300"


@pytest.mark.parametrize("form", ["coco", "voc"])
@pytest.mark.parametrize("size", [(0, 0), (401, 300), (800, 599), ("", ""), (None, None)])
def test_sizes_that_say_nothing_or_are_rounded_do_no_harm(tmp_path, form, size):
    scale = 2 if size[0] == 800 else 1
    files = declaring(form, size, [side * scale for side in (20, 30, 120, 60)])
    assert bounds(make(tmp_path, {"1.png": None} | files)) == pytest.approx((20, 30, 120, 60), abs=0.5)


OVERHANG = [
    ((-20, 30, 80, 60), (0, 30, 80, 60)),
    ((305, 280, 405, 302), (305, 280, 400, 300)),
    ((-30, 0, 70, 30), None),
]


@pytest.mark.parametrize("box, inside", OVERHANG)
def test_a_box_that_overhangs_a_little_is_clipped_and_others_are_set_aside(tmp_path, box, inside):
    x1, y1, x2, y2 = box
    line = f"1.jpg\t{x1}\t{y1}\t{x2 - x1}\t{y2 - y1}\tABC1234\n"
    root = make(tmp_path, {"1.jpg": None, "1.txt": line})
    if inside:
        assert bounds(root) == inside
    else:
        assert "reaches out of the picture" in reasons(open_dataset(root))[0][1]


QUAD = [20, 30, 120, 30, 120, 60, 20, 60]
AWAY = [value + 150 for value in QUAD]
BESIDE = [value + 60 * (i % 2 == 0) for i, value in enumerate(QUAD)]


def with_segmentation(outlines: list[list[float]], name: str = "1") -> dict[str, str]:
    data = json.loads(coco(name))
    data["annotations"][0]["segmentation"] = outlines
    return {"a.json": json.dumps(data)}


def with_polygon(values: list[int]) -> dict[str, str]:
    tags = "".join(
        f"<{axis}{i // 2 + 1}>{v + 1}</{axis}{i // 2 + 1}>" for i, v in enumerate(values) for axis in ("xy"[i % 2],)
    )
    return {
        "1.xml": VOC_PLATE.format(400, 300, 21, 31, 121, 61).replace("</object>", f"<polygon>{tags}</polygon></object>")
    }


def pairs(values: list[int], within: str = "&", between: str = "_") -> str:
    return between.join(f"{x}{within}{y}" for x, y in zip(values[::2], values[1::2]))


FORMS = {
    "coco": lambda quad: with_segmentation([quad]),
    "coco outline": lambda quad: with_segmentation([[*quad[:4], quad[2], quad[3] + 10, *quad[4:]]]),
    "voc": with_polygon,
    "ccpd": lambda quad: {CCPD.replace("121&66_19&60_20&30_120&35", pairs(quad)) + ".jpg": None},
    "aolp": lambda quad: {"1.txt": "DF7686 20 30 120 60 " + " ".join(map(str, quad))},
    "ufpr": lambda quad: {"1.txt": UFPR.replace("20,30 120,35 121,66 19,60", pairs(quad, ",", " "))},
    "yolo": lambda quad: {
        "1.txt": "0 0.175 0.15 0.25 0.1 " + " ".join(f"{v / (300 if i % 2 else 400):.6f}" for i, v in enumerate(quad)),
        "data.yaml": "names: [plate]\nkpt_shape: [4, 2]\n",
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_box_and_corners_have_to_agree(tmp_path, form):
    for name, quad in (("good", QUAD), ("away", AWAY), ("beside", BESIDE)):
        dataset = open_dataset(make(tmp_path / name, ({} if form == "ccpd" else {"1.jpg": None}) | FORMS[form](quad)))
        assert (len(dataset.frames), len(dataset.set_aside)) == ((1, 0) if name == "good" else (0, 1)), name
        assert not dataset.set_aside or "apart" in reasons(dataset)[0][1] or "outside" in reasons(dataset)[0][1]


def test_a_coco_annotation_may_have_its_outline_alone(tmp_path):
    data = json.loads(coco("1.jpg"))
    data["annotations"][0] |= {"segmentation": [[20, 30, 120, 30, 130, 45, 120, 60, 20, 60]], "bbox": []}
    assert bounds(make(tmp_path, {"1.jpg": None, "a.json": json.dumps(data)})) == (20, 30, 130, 60)


def test_a_box_of_another_axis_order_in_tiny_alpr_is_set_aside(tmp_path):
    dataset = open_dataset(make(tmp_path, {"1.jpg": None, "1.txt": KEYPOINTS.replace("20 60 121 30", "60 20 30 121")}))
    assert "apart" in reasons(dataset)[0][1]


# ------------------------------------------------------------------------------------------------------- YOLO's forms

BOX = "0.175 0.15 0.25 0.1"  # x 20..120, y 30..60 of 400 x 300
CORNERS = "0.05 0.1 0.3 0.1 0.3 0.2 0.05 0.2"
VISIBLE = "0.05 0.1 2 0.3 0.1 2 0.3 0.2 2.000 0.05 0.2 1"
LINES = {
    "a confidence": f"{BOX} 0.87",
    "a track": f"{BOX} 12",
    "a confidence and a track": f"{BOX} 0.871094 1",
    "corners": CORNERS,
    "corners with a confidence": f"{CORNERS} 0.9",
    "corners with a confidence and a track": f"{CORNERS} 0.9 12",
    "key points": f"{BOX} {CORNERS}",
    "key points with a confidence": f"{BOX} {CORNERS} 0.9",
    "visible key points": f"{BOX} {VISIBLE}",
    "visible key points, predicted": f"{BOX} {VISIBLE.replace('2.000', '0.97')} 0.87 3",
    "the same box by two corners": f"{BOX} 0.05 0.1 0.3 0.2",
    "five key points": f"{BOX} {CORNERS} 0.175 0.15",
    "an outline": "0.05 0.1 0.2 0.1 0.3 0.1 0.3 0.2 0.05 0.2",
    "an outline of six": "0.05 0.1 0.2 0.1 0.3 0.1 0.3 0.2 0.05 0.2 0.05 0.15",
}
DECLARED = {
    "one point": ("[1, 2]", f"{BOX} 0.1 0.15"),
    "one point, visible": ("[1, 3]", f"{BOX} 0.1 0.15 2"),
    "two points": ("[2, 3]", f"{BOX} 0.1 0.15 2 0 0 0"),
    "four points, one hidden": ("[4, 3]", f"{BOX} 0.05 0.1 2 0.3 0.1 2 0.3 0.2 2 0 0 0"),
    "none labelled": ("[4, 2]", f"{BOX} -1 -1 -1 -1 -1 -1 -1 -1"),
    "predicted": ("[4, 2]", f"{BOX} {CORNERS} 0.9"),
    "of which a box has none": ("[4, 2]", BOX),
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_line_is_read_as_what_it_is(tmp_path, line):
    root = make(tmp_path, {"1.jpg": None, "1.txt": f"0 {line}\n"})
    assert bounds(root) == pytest.approx((20, 30, 120, 60)), reasons(open_dataset(root))


@pytest.mark.parametrize("shape, line", DECLARED.values(), ids=DECLARED)
def test_key_points_are_as_many_as_the_settings_say(tmp_path, shape, line):
    settings = f"names: [plate]\nkpt_shape: {shape}\n"
    assert bounds(make(tmp_path, {"1.jpg": None, "1.txt": f"0 {line}\n", "data.yaml": settings})) == pytest.approx(
        (20, 30, 120, 60)
    )


def test_corners_of_a_tilted_plate_count_for_more_than_its_box(tmp_path):
    tilted = "0.05 0.1 0.3 0.11666667 0.3 0.2 0.05 0.18333333"
    ((_, corners),) = plates(open_dataset(make(tmp_path, {"1.jpg": None, "1.txt": f"0 {BOX} {tilted}\n"})))["1.jpg"]
    assert np.allclose(corners, [(20, 30), (120, 35), (120, 60), (20, 55)])


@pytest.mark.parametrize(
    "line",
    [
        BOX.rsplit(" ", 1)[0],
        f"{BOX} 1.5",
        f"{BOX} 0.1 0.15",
        f"{BOX} 0.1 0.2 0.3",
        f"{CORNERS} 0.5 1",
        f"{CORNERS} 1.5",
        f"{CORNERS} 0.1 0.2 0.3",
        f"{BOX} left",
        f"{BOX} nan",
    ],
)
def test_a_line_with_more_than_one_meaning_or_none_sets_its_picture_aside(tmp_path, line):
    files = {"1.jpg": None, "1.txt": f"0 {BOX}\n0 {line}\n", "2.jpg": None, "2.txt": f"0 {BOX}\n"}
    dataset = open_dataset(make(tmp_path, files))
    assert [*plates(dataset)] == ["2.jpg"] and "line 2 is not a class" in reasons(dataset)[0][1]


def test_key_points_outside_of_their_box_or_too_few_set_the_picture_aside(tmp_path):
    files = {"data.yaml": "names: [plate]\nkpt_shape: [4, 2]\n", "1.jpg": None, "2.jpg": None}
    files |= {"1.txt": f"0 {BOX} 0.5 0.5 0.6 0.5 0.6 0.6 0.5 0.6\n", "2.txt": f"0 {BOX} 0.05 0.1\n"}
    assert [*plates(open_dataset(make(tmp_path, files)))] == []


@pytest.mark.parametrize("shape", ["7", "[4, 5]", "[a, b]", "[4]"])
def test_a_broken_shape_of_key_points_is_refused_by_name(tmp_path, shape):
    files = {"data.yaml": f"names: [plate]\nkpt_shape: {shape}\n", "1.jpg": None, "1.txt": f"0 {BOX}\n"}
    with pytest.raises(PlatemintError, match="data.yaml"):
        open_dataset(make(tmp_path, files))


# ------------------------------------------------------------------------------------------------------------ classes


def yolo(names: str, *kinds: int) -> dict:
    """A picture with a box of each class, side by side."""
    boxes = [f"{kind} {0.1 + 0.2 * i} 0.5 0.1 0.1\n" for i, kind in enumerate(kinds)]
    return {"1.jpg": None, "1.txt": "".join(boxes), "data.yaml": f"names: {names}\n"}


def in_coco(names: list[str], *kinds: int) -> dict:
    records = [
        {"id": i, "image_id": 1, "category_id": kind, "bbox": [40 * i, 9, 30, 9]} for i, kind in enumerate(kinds)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    data = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": records, "categories": categories}
    return {"1.jpg": None, "a.json": json.dumps(data)}


def in_voc(*names: str) -> dict:
    things = [
        f"<object><name>{name}</name><bndbox><xmin>{40 * i + 1}</xmin><ymin>9</ymin><xmax>{40 * i + 31}</xmax>"
        "<ymax>19</ymax></bndbox></object>"
        for i, name in enumerate(names)
    ]
    return {"1.jpg": None, "1.xml": f"<annotation>{''.join(things)}</annotation>"}


@pytest.mark.parametrize(
    "files, count",
    [
        (yolo("[car, license_plate]", 0, 1, 1), 2),
        (yolo("[root, number]", 1, 1), 2),
        (yolo("{0: number}", 0), 1),
        (in_coco(["root", "number"], 1, 1), 2),
        (in_coco(["vehicle", "Placa"], 0, 1), 1),
        (in_voc("number", "number"), 2),
        (in_voc("car", "placa", "number"), 1),
        (in_voc("car", "AB-1234"), 1),
    ],
)
def test_classes_that_speak_of_plates_are_or_else_the_only_one_in_use(tmp_path, files, count):
    assert [len(found) for found in plates(open_dataset(make(tmp_path, files))).values()] == [count]


SEVERAL = [yolo("[car, number]", 0, 1), in_coco(["car", "number"], 0, 1), in_voc("car", "number")]


@pytest.mark.parametrize("files", SEVERAL)
def test_of_several_classes_that_do_not_speak_of_plates_one_has_to_be_named(tmp_path, files):
    root = make(tmp_path, files)
    with pytest.raises(PlatemintError, match="the classes are car, number; say which are plates with --class NAME"):
        open_dataset(root)
    assert [len(found) for found in plates(open_dataset(root, classes=["Number"])).values()] == [1]
    assert [len(found) for found in plates(open_dataset(root, classes=["car", "number"])).values()] == [2]
    with pytest.raises(PlatemintError, match="there is no class bus; the classes are car, number"):
        open_dataset(root, classes=["bus"])


@pytest.mark.parametrize("files", SEVERAL[:2])
def test_a_class_may_be_named_by_its_number(tmp_path, files):
    assert open_dataset(make(tmp_path, files), classes=["1"]).classes == ("1",)


def test_a_class_beyond_the_names_is_refused_unless_it_is_named(tmp_path):
    root = make(tmp_path, yolo("[car, license_plate]", 2))
    with pytest.raises(PlatemintError, match="is of class 2, but the classes that have names are 0, 1"):
        open_dataset(root)
    assert len(plates(open_dataset(root, classes=["2"]))["1.jpg"]) == 1
    with pytest.raises(PlatemintError, match="is of category 2, which its file's categories lack"):
        open_dataset(make(tmp_path / "coco", in_coco(["car", "license_plate"], 2)))


@pytest.mark.parametrize("files", [yolo("[car, license_plate]", 0), in_coco(["car", "plate"], 0)])
def test_where_a_class_of_plates_is_not_in_use_another_one_is_not_taken_for_it(tmp_path, files):
    root = make(tmp_path, files)
    with pytest.raises(PlatemintError, match="no annotation is of a class that speaks of plates"):
        open_dataset(root)
    assert plates(open_dataset(root, classes=[next(n for n in ("license_plate", "plate") if n in str(files))])) == {
        "1.jpg": []
    }


def test_a_format_without_classes_has_none_to_name(tmp_path):
    with pytest.raises(PlatemintError, match="its format has no classes"):
        open_dataset(make(tmp_path, {"1.png": None, "1.txt": UFPR}), classes=["plate"])


def test_the_program_takes_classes_and_the_copy_is_checked_with_them(call, tmp_path):
    from platemint.pipeline.anonymize.compare import verify_against

    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    root = make(tmp_path / "in", in_coco(["car", "number"], 0, 1) | {"1.jpg": None})
    Image.fromarray(pixels).save(root / "1.jpg")
    refused = call(root, "--out", tmp_path / "out")
    assert refused.exit_code == 2 and "car, number" in refused.stderr and not (tmp_path / "out").exists()
    assert call(root, "--out", tmp_path / "out", "--class", "number").exit_code == 0
    assert not verify_against(tmp_path / "out", root, classes=["number"]).faults


def test_things_that_are_no_plates_may_lie_anywhere(tmp_path):
    files = in_coco(["car", "plate"], 0, 1)
    data = json.loads(files["a.json"])
    data["annotations"][0]["bbox"] = [-500, 0, 9, 9]
    assert len(plates(open_dataset(make(tmp_path, files | {"a.json": json.dumps(data)})))["1.jpg"]) == 1
    xml = VOC.replace("<ymin>1</ymin>", "").replace("ABC1234</folder>", "x</folder>")
    assert plates(open_dataset(make(tmp_path / "voc", {"1.jpg": None, "1.xml": xml})))
