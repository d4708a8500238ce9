"""The detector: every known form of model, right to the pixel in pictures of any shape, and what is made of its finds.

The models are built here: most find a red square by its pixels, so that colours, scale and place have to be right.
"""

import hashlib
import json
import sys

import cv2
import numpy as np
import pytest
from report.test_audit_page import shown
from stand_ins import anonymized, frames

from platemint.pipeline.anonymize.compare import verify_against
from platemint.pipeline.anonymize.detector import GRAY, Detector, covered, letterboxed, look
from platemint.pipeline.corpora.datasets import Annotation, Frame, open_dataset, rewrite_dataset
from platemint.pipeline.corpora.records import box
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.recipe import Detect

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

RED, BLUE = (191, 26, 26), (26, 26, 191)  # 0.75 and 0.1 of 1: not red any more where a value is not divided by 255
SIZE = 96
FORMS = ["end2end", "nms", "raw"]
IMAGE = [1, 3, SIZE, SIZE]


def saved(path, nodes, constants=(), shape=IMAGE, kind=TensorProto.FLOAT, outputs=("found",), more=(), **metadata):
    """A model's file. nodes: operator, inputs, output, attributes. shape, kind: of its input, "image"."""
    graph = helper.make_graph(
        [helper.make_node(op, given.split(), made.split(), **attributes) for op, given, made, attributes in nodes],
        "model",
        [helper.make_tensor_value_info("image", kind, shape), *more],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(constants).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    path.write_bytes(model.SerializeToString())
    return path


def finder(path, form="end2end", shape=IMAGE, shy=False, **metadata):
    """A model that finds the red there is, with a score of 0.75. shy: whites make it give no number."""
    constants = {
        "score": np.float32([0.75]),
        "zero": np.float32([0]),
        "one": np.float32([1]),
        "half": np.float32([0.5]),
    }
    nodes = [("Split", "image", "r g b", {"axis": 1})]
    for channel, low, high in (("r", 0.6, 0.9), ("g", -1, 0.3), ("b", -1, 0.3)):
        constants |= {f"{channel}low": np.float32(low), f"{channel}high": np.float32(high)}
        nodes += [("Greater", f"{channel} {channel}low", f"{channel}1", {}), ("Less", f"{channel} {channel}high", f"{channel}2", {}),
                  ("And", f"{channel}1 {channel}2", f"{channel}3", {})]  # fmt: skip
    nodes += [
        ("And", "r3 g3", "rg", {}),
        ("And", "rg b3", "red", {}),
        ("Cast", "red", "mask", {"to": TensorProto.FLOAT}),
    ]
    for axis, others in (("x", [0, 1, 2]), ("y", [0, 1, 3])):
        nodes += [("ReduceMax", "mask", f"{axis}s", {"axes": others, "keepdims": 0})]
        for end, last in (("1", 0), ("2", 1)):
            nodes += [("ArgMax", f"{axis}s", f"{axis}i{end}", {"axis": 0, "keepdims": 1, "select_last_index": last}),
                      ("Cast", f"{axis}i{end}", f"{axis}f{end}", {"to": TensorProto.FLOAT})]  # fmt: skip
        nodes += [("Identity", f"{axis}f1", f"{axis}1", {}), ("Add", f"{axis}f2 one", f"{axis}2", {}),
                  ("Sub", f"{axis}2 {axis}1", f"{axis}size", {}), ("Add", f"{axis}1 {axis}2", f"{axis}sum", {}),
                  ("Mul", f"{axis}sum half", f"{axis}middle", {})]  # fmt: skip
    nodes += [("ReduceMax", "mask", "any", {"axes": [0, 1, 2, 3], "keepdims": 0}), ("Mul", "any score", "sure", {})]
    if shy:
        constants["white"] = np.float32(0.95)
        nodes += [("ReduceMax", "image", "brightest", {"axes": [0, 1, 2, 3], "keepdims": 0}),
                  ("Sub", "white brightest", "dark", {}), ("Sqrt", "dark", "root", {}), ("Mul", "root zero", "doubt", {}),
                  ("Add", "sure doubt", "score2", {})]  # fmt: skip
    sure = "score2" if shy else "sure"
    row, dims = {
        "end2end": (f"zero x1 y1 x2 y2 zero {sure}", [1, 7]),
        "nms": (f"x1 y1 x2 y2 {sure} zero", [1, 1, 6]),
        "raw": (f"xmiddle ymiddle xsize ysize {sure}", [1, 5, 1]),
    }[form]
    constants |= {"dims": np.int64(dims), "nothing": np.zeros((1, 9, 6), np.float32), "many": np.int64([1, 5, 40])}
    nodes += [("Concat", row, "row", {"axis": 0}), ("Reshape", "row dims", "plain", {})]
    nodes += {
        "end2end": [("Identity", "plain", "found", {})],
        "nms": [("Concat", "plain nothing", "found", {"axis": 1})],
        "raw": [("Expand", "plain many", "found", {})],
    }[form]
    return saved(path, nodes, constants, shape, **metadata)


def constant(path, value, **fields):
    """A model that finds the same in every picture."""
    return saved(path, [("Identity", "value", "found", {})], {"value": np.float32(value)}, **fields)


def detector(path, **options):
    return Detector(Detect(path=str(path), **options))


def picture(width, height, red, blue=None):
    """A green-gray picture, uint8 (height, width, 3) RGB, with boxes of red and of blue."""
    image = np.full((height, width, 3), (90, 120, 90), np.uint8)
    for colour, place in ((RED, red), (BLUE, blue)):
        if place:
            x1, y1, x2, y2 = place
            image[y1:y2, x1:x2] = colour
    return image


# ------------------------------------------------------------------------------------------------- pictures and boxes

SHAPES = {
    "square": (96, 96, (20, 30, 60, 45)),
    "wide": (400, 120, (300, 80, 380, 110)),
    "tall": (90, 330, (10, 250, 70, 280)),
    "small": (31, 17, (12, 6, 28, 12)),
    "large": (1501, 1111, (1200, 900, 1400, 1000)),
    "at the edge": (301, 100, (0, 70, 60, 100)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width, height, red", SHAPES.values(), ids=SHAPES)
def test_a_plate_is_found_where_it_is_in_pictures_of_any_shape(tmp_path, form, width, height, red):
    image = picture(width, height, red, (2, 1, 8, 4))
    ((found, score),) = detector(finder(tmp_path / "f.onnx", form)).find(image)
    near = 1.5 * max(width, height) / SIZE + 1  # a pixel of the input, and rounding outward
    assert np.abs(np.subtract(found, red)).max() <= near and score == 0.75
    assert 0 <= found[0] < found[2] <= width and 0 <= found[1] < found[3] <= height


@pytest.mark.parametrize("form", FORMS)
def test_where_there_is_no_plate_none_is_found(tmp_path, form):
    for image in (picture(200, 90, None), picture(200, 90, None, (20, 30, 60, 50))):
        assert detector(finder(tmp_path / "f.onnx", form)).find(image) == []


def test_pictures_lie_in_the_middle_of_gray():
    for (width, height), place in {(200, 100): (24, 72), (100, 100): (0, 96)}.items():
        canvas, scale, (x, y) = letterboxed(np.full((height, width, 3), 7, np.uint8), (96, 96))
        inside = np.zeros((96, 96), bool)
        inside[place[0] : place[1]] = True
        assert (canvas[inside] == 7).all() and (canvas[~inside] == GRAY).all()
        assert (x, y) == (0, place[0]) and np.allclose(scale, 96 / width)
    canvas, scale, (x, y) = letterboxed(np.full((30, 91, 3), 7, np.uint8), (64, 96))  # 63.3 more rows are 16 and 16
    assert (canvas != GRAY).all(2).sum() == 96 * 32 and (x, y) == (0, 16)
    assert letterboxed(np.zeros((2, 30000, 3), np.uint8), (96, 96))[0].any()  # the thinnest is still a row


def test_scores_below_the_least_do_not_count(tmp_path):
    path = finder(tmp_path / "f.onnx")
    image = picture(96, 96, (20, 30, 60, 45))
    assert [len(detector(path, min_score=score).find(image)) for score in (0.0, 0.75, 0.76)] == [1, 1, 0]


def test_boxes_end_at_the_picture_and_repetitions_are_one(tmp_path):
    rows = [
        [0, -20, 40, 30, 60, 0, 0.5],
        [0, -20, 41, 31, 61, 0, 0.9],
        [0, 60, 60, 200, 90, 0, 0.4],
        [0, 5, 0, 50, 20, 0, 1],
    ]
    found = detector(constant(tmp_path / "f.onnx", rows)).find(np.zeros((48, 96, 3), np.uint8))  # its rows are 24 to 72
    assert found == [((0, 17, 31, 37), pytest.approx(0.9)), ((60, 36, 96, 48), pytest.approx(0.4))]


def test_a_file_that_leaves_its_size_open_is_given_the_one_it_tells(tmp_path):
    image = picture(200, 90, (120, 30, 180, 50))
    for size, metadata in {(64, 128): {"imgsz": [64, 128]}, (640, 640): {}}.items():
        found = detector(finder(tmp_path / "f.onnx", "raw", ["n", 3, "height", "width"], **metadata))
        ((place, _),) = found.find(image)
        assert found.size == size and np.abs(np.subtract(place, (120, 30, 180, 50))).max() <= 3


NAMES = {0: "car", 1: "License_Plate", 2: "person"}


def test_of_several_classes_those_named_after_plates_count(tmp_path):
    rows = [[[10, 10, 30, 20, 0.8, 0], [40, 40, 60, 50, 0.7, 1], [70, 70, 90, 80, 0.6, 2]]]
    raw = np.zeros((1, 7, 12), np.float32)
    raw[0, :, 0], raw[0, :, 1] = (20, 15, 20, 10, 0.8, 0.3, 0.1), (50, 45, 20, 10, 0, 0.7, 0)
    for output in (rows, raw):
        path = constant(tmp_path / "f.onnx", output, names=NAMES, task="detect")
        assert detector(path).find(np.zeros((96, 96, 3), np.uint8)) == [((40, 40, 60, 50), pytest.approx(0.7))]
    counts = {"{0: 'number'}": 3, "['number', 'numberplate', 'x']": 1, "{'0': 'car', '1': 'placa', '2': 'plate'}": 2}
    for names, count in counts.items():
        path = constant(tmp_path / "f.onnx", rows, names=names)
        assert len(detector(path).find(np.zeros((96, 96, 3), np.uint8))) == count


# ---------------------------------------------------------------------------------------------------------- bad models

NO_ROWS = np.zeros((0, 7))
UNKNOWN = {
    "output of an unknown form, (1, 25200, 6)": {"value": np.zeros((1, 25200, 6))},
    "output of an unknown form, (1, 100, 85)": {"value": np.zeros((1, 100, 85))},
    "output of an unknown form, (2, 5, 40)": {"value": np.zeros((2, 5, 40))},
    "output of an unknown form, (5,)": {"value": np.zeros(5)},
    "output of an unknown form, ()": {"value": 1.0},
    "not finite": {"value": [[0, 1, 1, 9, 9, 0, np.nan]]},
    "image: tensor(float16) (1, 3, 96, 96)": {"value": NO_ROWS, "kind": TensorProto.FLOAT16},
    "image: tensor(uint8)": {"value": NO_ROWS, "kind": TensorProto.UINT8},
    "(1, 96, 96, 3)": {"value": NO_ROWS, "shape": [1, 96, 96, 3]},
    "(4, 3, 96, 96)": {"value": NO_ROWS, "shape": [4, 3, 96, 96]},
    "(1, 3, 96)": {"value": NO_ROWS, "shape": [1, 3, 96]},
    "other: tensor(float)": {
        "value": NO_ROWS,
        "more": [helper.make_tensor_value_info("other", TensorProto.FLOAT, [1])],
    },
    "a model for the task pose": {"value": NO_ROWS, "task": "pose"},
    "finds car, person, and no plates": {"value": NO_ROWS, "names": {0: "car", 1: "person"}},
    "finds a, b, c, d, e, ..., and no plates": {"value": NO_ROWS, "names": dict(enumerate("abcdefg"))},
    "names are 7": {"value": NO_ROWS, "names": 7},
    "names are {'car': 0}": {"value": NO_ROWS, "names": {"car": 0}},
    "names cannot be read": {"value": NO_ROWS, "names": "{0: plate"},
    "imgsz is 640": {"value": NO_ROWS, "imgsz": 640, "shape": [1, 3, "h", "w"]},
}


@pytest.mark.parametrize("said", UNKNOWN)
def test_models_of_another_form_are_refused(tmp_path, said):
    path = constant(tmp_path / "f.onnx", **UNKNOWN[said])
    with pytest.raises(PlatemintError) as fault:
        detector(path)
    assert said in str(fault.value) and str(fault.value).startswith(f"detector.path: {path}: ")
    assert "unknown form" not in said or "(1, 4 + classes, n)" in str(fault.value)


def test_models_with_several_outputs_are_refused(tmp_path):
    nodes = [("Identity", "value", name, {}) for name in ("found", "masks")]
    path = saved(tmp_path / "f.onnx", nodes, {"value": np.zeros((0, 7), np.float32)}, outputs=("found", "masks"))
    with pytest.raises(PlatemintError, match="has 2 outputs; known is one"):
        detector(path)


def test_files_that_are_no_models_are_refused(tmp_path):
    whole = finder(tmp_path / "f.onnx").read_bytes()
    for name, data in {"text": b"a model", "empty": b"", "half": whole[: len(whole) // 2]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PlatemintError, match=f"detector.path: .*{name}: not an ONNX model"):
            detector(tmp_path / name)
    for name in ("nothing", "."):
        with pytest.raises(PlatemintError, match="no such file; give"):
            detector(tmp_path / name)


def test_without_onnxruntime_it_is_said_how_to_install_it(tmp_path, monkeypatch):
    path = finder(tmp_path / "f.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PlatemintError, match=r"needs onnxruntime.*pip install .*\[detector\]"):
        detector(path)


# ------------------------------------------------------------------------------------------------------------ coverage

PLATE = Annotation("ABC1234", box(40, 40, 100, 60))
TILTED = Annotation("ABC1234", ((40, 60), (92, 30), (102, 47), (50, 77)))
FINDS = {
    "the plate": ((41, 39, 99, 61), True),
    "a little more": ((35, 36, 105, 64), True),
    "a part of it": ((40, 40, 80, 60), True),
    "the next plate": ((102, 40, 162, 60), False),
    "both plates": ((40, 40, 162, 60), False),
    "all of the car": ((0, 0, 200, 120), False),
    "a corner": ((90, 55, 150, 75), False),
    "next to nothing of it": ((60, 45, 70, 50), False),
}


@pytest.mark.parametrize("found, is_covered", FINDS.values(), ids=FINDS)
def test_only_what_is_an_annotated_plate_is_covered(found, is_covered):
    assert covered(found, [Annotation("X", box(150, 90, 190, 110)), PLATE]) == is_covered
    assert not covered(found, [])


def test_a_tilted_plate_covers_the_box_around_it_and_a_crop_everything():
    assert covered((40, 30, 102, 77), [TILTED])
    assert not covered((40, 30, 70, 45), [TILTED])  # beside it, in the corner of that box
    assert covered((1, 1, 9, 9), [Annotation("ABC1234")])


def test_pictures_that_cannot_be_looked_at_are_listed(tmp_path):
    whites = picture(96, 96, (20, 30, 60, 45))
    whites[60:] = 255
    for name, image in {"a.png": picture(96, 96, (20, 30, 60, 45)), "b.png": whites}.items():
        cv2.imwrite(str(tmp_path / name), image[..., ::-1])
    (tmp_path / "c.png").write_bytes(b"")
    there = {name: Frame(name, (), "train") for name in ("a.png", "b.png", "c.png")}
    found = look(detector(finder(tmp_path / "f.onnx", shy=True)), tmp_path, there)
    assert found.pop("sha256") == hashlib.sha256((tmp_path / "f.onnx").read_bytes()).hexdigest()
    assert found == {
        "min_score": 0.25, "pictures": 1, "pictures_not_looked_at": 2, "plates": 1, "plates_covered": 0,
        "plates_uncovered": 1, "uncovered": [{"picture": "a.png", "box": [20, 30, 60, 45], "score": 0.75}],
        "not_looked_at": ["b.png", "c.png"],
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- anonymize


def framed(path, x, y):
    """Draws a plate that the model finds, 60 x 30 pixels, around whatever is there."""
    image = cv2.imread(str(path))
    cv2.rectangle(image, (x + 2, y + 2), (x + 57, y + 27), RED[::-1], 5)
    cv2.imwrite(str(path), image)


@pytest.fixture
def corpus(tmp_path):
    """Three pictures: one whose plate is annotated, one with another plate, one with nothing but such a plate."""
    root = frames(tmp_path / "in", {"ABC1234_known": ["ABC1234"], "XYZ7777_other": ["XYZ7777"], "bare": []})
    framed(root / "ABC1234_known.png", 8, 10)
    framed(root / "XYZ7777_other.png", 150, 60)
    framed(root / "bare.png", 100, 20)
    return root


@pytest.fixture
def model(tmp_path):
    return finder(tmp_path / "ABC1234.onnx", shape=[1, 3, 256, 256])


def test_plates_that_no_annotation_covers_are_listed_under_their_pictures_new_names(call, corpus, model, tmp_path):
    result = call(corpus, "--out", tmp_path / "out", "--detector", model)
    assert result.exit_code == 3
    audit = json.loads((tmp_path / "out/audit.json").read_text())
    assert json.loads(result.stdout) == {k: v for k, v in audit.items() if k != "given_up"}
    found = audit["detector"]
    assert (found["pictures"], found["plates"], found["plates_covered"], found["plates_uncovered"]) == (3, 3, 1, 2)
    places = {item["picture"]: item["box"] for item in found["uncovered"]}
    (other,) = places.keys() - {"bare.png"}
    assert other.endswith("_other.png") and "XYZ7777" not in other
    assert places.keys() < {frame.path for frame in open_dataset(tmp_path / "out").frames}
    for name, (x, y) in {other: (150, 60), "bare.png": (100, 20)}.items():
        assert np.abs(np.subtract(places[name], (x, y, x + 60, y + 30))).max() <= 3
    assert found["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any(b"ABC1234" in data for data in written)
    _, line = result.stderr.splitlines()
    assert line.startswith("2 plates that no annotation covers") and line.endswith("out/audit.json")


def test_where_every_plate_is_covered_all_is_well(call, corpus, model, tmp_path):
    for name in ("XYZ7777_other", "bare"):
        for path in corpus.glob(f"{name}*"):
            path.unlink()
    result = call(corpus, "--out", tmp_path / "out", "--detector", model)
    assert result.exit_code == 0 and len(result.stderr.splitlines()) == 1
    found = json.loads(result.stdout)["detector"]
    assert found["plates_covered"] == 1 and found["uncovered"] == found["not_looked_at"] == []
    assert '<p class="result">No text' in (tmp_path / "out/audit.html").read_text()


def test_a_text_in_the_output_is_worse_than_an_uncovered_plate(call, corpus, model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "platemint.pipeline.anonymize.plan.rewrite_dataset",
        lambda dataset, new: rewrite_dataset(dataset, lambda frame, old: old),
    )
    assert call(corpus, "--out", tmp_path / "out", "--detector", model).exit_code == 1


def test_the_page_does_not_say_that_all_is_well(corpus, model, tmp_path):
    audit = anonymized(corpus, tmp_path / "out", detector={"path": str(model)})
    text = (tmp_path / "out/audit.html").read_text()
    assert '<p class="result bad">Not to be passed on yet: a detector found 2 plates' in text
    assert "found 2, listed in audit.json" in text and "plates that nobody annotated stay as they are" in text
    assert "of these, plates that no annotation covers</td><td>2</td>" in text
    assert "A plate detector looked at every picture" in text and audit["detector"]["sha256"] in text
    assert not [name for name in ("bare", ".png", "ABC1234", "detector.plates") if name in text]
    plain = shown()
    assert "plates that nobody" not in plain and "detector" not in plain  # AUDIT there has words of its own
    unseen = audit["detector"] | {"plates_uncovered": 0, "pictures_not_looked_at": 5}
    assert "could not look at 5 pictures" in shown(json.loads(json.dumps(audit)) | {"detector": unseen})


def test_the_output_stands_the_check_from_outside_until_the_list_is_changed(corpus, model, tmp_path):
    out = tmp_path / "out"
    audit = anonymized(corpus, out, detector={"path": str(model)})
    assert verify_against(out, corpus).faults == []
    audit["detector"]["uncovered"][0]["picture"] = "elsewhere.png"
    audit["detector"]["not_looked_at"] = ["../in/bare.png"]
    (out / "audit.json").write_text(json.dumps(audit))
    faults = verify_against(out, corpus).faults
    assert len(faults) == 2 and "lists elsewhere.png" in faults[0] and "lists ../in/bare.png" in faults[1]
    audit["detector"]["uncovered"] = 7
    (out / "audit.json").write_text(json.dumps(audit))
    assert ["missing or damaged" in fault for fault in verify_against(out, corpus).faults] == [True]


def test_a_detector_that_cannot_be_used_is_exit_code_2_and_nothing_is_written(call, corpus, tmp_path):
    bad = constant(tmp_path / "bad.onnx", np.zeros(3))
    (tmp_path / "text.onnx").write_text("no model")
    key = tmp_path / "key"
    for path in (bad, tmp_path / "text.onnx", tmp_path / "nothing.onnx", ""):
        result = call(corpus, "--out", tmp_path / "out", "--key-file", key, "--detector", path)
        assert result.exit_code == 2 and str(path) in result.output and "Traceback" not in result.output
    result = call(corpus, "--out", tmp_path / "out", "--set", f"detector.path={tmp_path / 'nothing.onnx'}")
    assert result.exit_code == 2 and "no such file" in result.output
    assert not (tmp_path / "out").exists() and not key.exists()
