"""Annotated datasets: what is read, what is set aside, and that a reworded one is the same dataset with other texts."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from platemint.pipeline.corpora import records
from platemint.pipeline.corpora.datasets import BARE, FORMATS, Dataset, open_dataset, rewrite_dataset
from platemint.pipeline.corpora.filenames import NOT_A_TEXT
from platemint.pipeline.plate import PROVINCES, SEPARATORS, PlatemintError, characters

SHARED = Path(__file__).parents[3] / "shared" / "plates"

SIZE = (400, 300)
BOX = ((20, 30), (120, 30), (120, 60), (20, 60))
SKEWED = ((20, 30), (120, 35), (121, 66), (19, 60))
OTHER = ((220, 130), (320, 130), (320, 160), (220, 160))

UFPR = """camera: GoPro Hero4 Silver
position_vehicle: 10 10 300 200
\ttype: car
\tmake: Volvo
\tmodel: XC60
\tyear: 2014
plate: AYU0035
corners: 20,30 120,35 121,66 19,60
\tchar 1: 22 32 8 14
\tchar 2: 32 32 8 14
\tchar 3: 42 32 8 14
\tchar 4: 52 32 8 14
\tchar 5: 62 32 8 14
\tchar 6: 72 32 8 14
\tchar 7: 82 32 8 14
"""
OLDER_UFPR = """vehicles: 2
position_vehicle: 10 10 300 200
\ttype: car
plate: BCD1234
position_plate: 20 30 100 30
\tchar 1: 22 32 8 14
position_vehicle: 200 100 150 150
\ttype: motorcycle
plate: BCE-5678
position_plate: 220 130 100 30
"""
RODOSOL = "type: car\nplate: OVJ6688\nlayout: Brazilian\ncorners: 20,30 120,35 121,66 19,60"
CCPD = "025-95_113-20&30_121&66-121&66_19&60_20&30_120&35-0_0_22_27_27_33_16-37-15"
GREEN = "0135-90_90-20&30_121&66-121&66_19&60_20&30_120&35-10_3_3_24_25_26_27_28-37-15"
VOC = """<?xml version="1.0"?>
<annotation>
\t<folder>ABC1234</folder>
\t<filename>abc-1234.jpg</filename>
\t<path>C:\\data\\abc-1234.jpg</path>
\t<size>
\t\t<width>400</width>
\t\t<height>300</height>
\t\t<depth>3</depth>
\t</size>
\t<object>
\t\t<name>license-plate</name>
\t\t<attributes><attribute><name>plate</name><value>ABC1234</value></attribute></attributes>
\t\t<bndbox><xmin>21</xmin><ymin>31</ymin><xmax>121</xmax><ymax>61</ymax></bndbox>
\t</object>
\t<object>
\t\t<name>car</name>
\t\t<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>300</xmax><ymax>300</ymax></bndbox>
\t</object>
\t<object>
\t\t<name>XYZ-99</name>
\t\t<bndbox><xmin>221</xmin><ymin>131</ymin><xmax>321</xmax><ymax>161</ymax></bndbox>
\t</object>
</annotation>
"""
COCO = {
    "info": {"description": "京AB1234 and others"},
    "images": [
        {"id": 1, "file_name": "京AB1234_front.jpg", "width": 400, "height": 300},
        {"id": 2, "file_name": "two.jpg", "width": 400, "height": 300, "note": "shows jab1235"},
        {"id": 3, "file_name": "bare.jpg", "width": 400, "height": 300},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 2, "bbox": [20, 30, 100.0, 30], "attributes": {"text": "京AB1234"}},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [19, 30, 102, 36], "plate_text": "JAB1235",
         "segmentation": [[121, 66, 19, 60, 20, 30, 120, 35]]},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [0, 0, 399, 299]},
        {"id": 4, "image_id": 2, "category_id": 2, "bbox": [220, 130, 100, 30], "attributes": {"text": ""}},
    ],
    "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "License Plate"}],
}  # fmt: skip

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <name>front of ABC-1234</name>
      <labels><label><name>plate</name><attributes><attribute><name>text</name></attribute></attributes></label></labels>
    </task>
  </meta>
  <image id="0" name="bare.jpg" width="400" height="300">
  </image>
  <image id="1" name="set/abc1234.jpg" width="400" height="300" subset="Validation">
    <box label="plate" source="manual" occluded="0" xtl="20.00" ytl="30.00" xbr="120.00" ybr="60.00" z_order="0">
      <attribute name="text">ABC1234</attribute>
      <attribute name="note">abc 1234 again</attribute>
    </box>
    <box label="car" xtl="0" ytl="0" xbr="300" ybr="200" />
    <polygon label="plate" occluded="0" points="121.00,66.00;19.00,60.00;20.00,30.00;120.00,35.00" z_order="0">
      <attribute name="text">XY-9876</attribute>
    </polygon>
    <box label="plate" xtl="220" ytl="130" xbr="320" ybr="160"><attribute name="text" /></box>
  </image>
  <image id="2" name="crop.jpg" width="400" height="300">
    <tag label="plate" source="manual">
      <attribute name="text">KLM555</attribute>
    </tag>
  </image>
</annotations>
"""
CVAT_TRUTH = {
    "bare.jpg": [], "images/set/abc1234.jpg": [("ABC1234", BOX), ("XY-9876", SKEWED), ("", OTHER)],
    "crop.jpg": [("KLM555", ())],
}  # fmt: skip
RECTANGLE = {"x": 5.0, "y": 10.0, "width": 25.0, "height": 10.0, "rotation": 0}
CORNERS_OF_A_POLYGON = [[5.0, 10.0], [30.0, 35 / 3], [30.25, 22.0], [4.75, 20.0]]


def region(id: str, type: str, value: dict, from_name: str = "label") -> dict:
    """A result as Label Studio exports it."""
    size = {"original_width": 400, "original_height": 300, "image_rotation": 0}
    return size | {
        "id": id,
        "type": type,
        "value": value,
        "from_name": from_name,
        "to_name": "image",
        "origin": "manual",
    }


def task(number: int, image: str, *results: dict, **fields) -> dict:
    annotation = {"id": 10 * number, "was_cancelled": False, "result": [*results], "prediction": {}}
    return {"id": number, "data": {"image": image}, "annotations": [annotation], "predictions": [], "meta": {}} | fields


LABEL_STUDIO = [
    task(1, "/data/upload/1/0a1b2c3d-bare.jpg"),
    task(
        2, "/data/upload/1/1a2b3c4d-ABC1234_front.jpg",
        region("r1", "rectanglelabels", RECTANGLE | {"rectanglelabels": ["License Plate"]}),
        region("r1", "textarea", RECTANGLE | {"text": ["ABC1234"]}, "text"),
        region("r2", "polygonlabels", {"points": CORNERS_OF_A_POLYGON, "polygonlabels": ["License Plate"]}),
        region("r2", "textarea", {"points": CORNERS_OF_A_POLYGON, "text": ["XY-9876"]}, "text"),
        region("r3", "rectanglelabels", RECTANGLE | {"x": 55.0, "y": 130 / 3, "rectanglelabels": ["License Plate"]}),
        region("r3", "textarea", RECTANGLE | {"x": 55.0, "y": 130 / 3, "text": []}, "text"),
        region("r4", "rectanglelabels", RECTANGLE | {"width": 90.0, "rectanglelabels": ["car"]}),
        file_upload="1a2b3c4d-ABC1234_front.jpg", note="shows abc-1234",
    ),
    task(3, "/data/local-files/?d=set/crop.jpg", region("r1", "textarea", {"text": ["KLM555"]}, "text")),
]  # fmt: skip
LABEL_STUDIO_TRUTH = {
    "media/bare.jpg": [], "media/ABC1234_front.jpg": [("ABC1234", BOX), ("XY-9876", SKEWED), ("", OTHER)],
    "media/crop.jpg": [("KLM555", ())],
}  # fmt: skip
NAMES = [*"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", *PROVINCES, "license plate", "car"]
OF_CHARACTERS = f"path: ../ABC1234\ntrain: images\nnc: {len(NAMES)}\nnames: {NAMES}\n"


def spelled(*rows: str, x: float = 24, y: float = 33, step: float = 13, fall: float = 0) -> str:
    """Lines of YOLO for a plate's characters, from a place in a picture of `SIZE`, in no order. fall: per step."""
    lines = [
        f"{NAMES.index(c)} {(x + i * step) / SIZE[0]:.6f} {(y + 14 * r + i * fall) / SIZE[1]:.6f} 0.0225 0.04\n"
        for r, row in enumerate(rows)
        for i, c in enumerate(row)
    ]
    return "".join(lines[1::2] + lines[::2])


# Name: (format, files: text or None for a picture, plates of each picture: text and corners).
DATASETS = {
    "platemint csv": (
        "table",
        {
            "labels.csv": "path,text,split,seen_at\r\nc/1.jpg,ABC1234,train,gate ABC-1234\r\nc/2.jpg,京A12345,val,3\r\n"
            'c/abc1234-2.jpg,"ABC1234",train,3\r\nc/4.jpg,,train,\r\n',
            "c/1.jpg": None, "c/2.jpg": None, "c/abc1234-2.jpg": None, "c/4.jpg": None,
        },
        {"c/1.jpg": [("ABC1234", ())], "c/2.jpg": [("京A12345", ())], "c/abc1234-2.jpg": [("ABC1234", ())],
         "c/4.jpg": [("", ())]},
    ),
    "platemint jsonl": (
        "table",
        {"a.jsonl": '{"path": "1.jpg", "text": "\\u4eacA-12345", "n": 2}\n\n{"path": "2.jpg", "text": null}\n',
         "1.jpg": None, "2.jpg": None},
        {"1.jpg": [("京A-12345", ())], "2.jpg": [("", ())]},
    ),
    "fast-plate-ocr": (
        "table",
        {"train/annotations.csv": "image_path,plate_text\nimages/1.jpg,NULL\n", "train/images/1.jpg": None,
         "val/annotations.csv": "image_path,plate_text\nimages/1.jpg,00123\n", "val/images/1.jpg": None},
        {"train/images/1.jpg": [("NULL", ())], "val/images/1.jpg": [("00123", ())]},
    ),
    "corners": (
        "table",
        {"corners.csv": "\ufefffile,text,x1,y1,x2,y2,x3,y3,x4,y4\n津KNG518.jpg,津KNG518,121,66,19,60,20,30,120,35\n"
         "渝B3587学.JPG,渝B3587学,19,60,20,30,120,35,121,66\n渝B3587学.JPG,鲁A88888,320,160,220,160,220,130,320,130.0\n",
         "津KNG518.jpg": None, "渝B3587学.JPG": None},
        {"津KNG518.jpg": [("津KNG518", SKEWED)], "渝B3587学.JPG": [("渝B3587学", SKEWED), ("鲁A88888", OTHER)]},
    ),
    "seg_and_ocr": (
        "table",
        {"groundtruth.csv": "ak1165.png,ak,FUW999\nal1.png,al,FUW998\n", "ak1165.png": None, "al1.png": None},
        {"ak1165.png": [("FUW999", ())], "al1.png": [("FUW998", ())]},
    ),
    "gt.txt of the SPG": (
        "gt",
        {"gt2.txt": "1.jpg MNK·0036\n2.jpg MQR·1871\n", "gt.txt": "1.jpg RGF·7863\n2.jpg MNK·0036\n",
         "i_s/1.jpg": None, "i_s/2.jpg": None},
        {"i_s/1.jpg": [("MNK·0036", ())], "i_s/2.jpg": [("MQR·1871", ())]},
    ),
    "gt of PaddleOCR": (
        "gt",
        {"rec/rec_gt_train.txt": "train/a b.jpg\tAB 123\r\n", "rec/rec_gt_val.txt": "val/ab123_2.jpg\tAB 124",
         "rec/train/a b.jpg": None, "rec/val/ab123_2.jpg": None},
        {"rec/train/a b.jpg": [("AB 123", ())], "rec/val/ab123_2.jpg": [("AB 124", ())]},
    ),
    "names": (
        "names",
        {"ABC1234_x.jpg": None, "val/ab-1235_ABC1234.png": None, "京A12345_.webp": None},
        {"ABC1234_x.jpg": [("ABC1234", ())], "val/ab-1235_ABC1234.png": [("AB-1235", ())],
         "京A12345_.webp": [("京A12345", ())]},
    ),
    "openalpr": (
        "openalpr",
        {"br/AYO9034.jpg": None, "br/AYO9034.txt": "AYO9034.jpg\t20\t30\t100\t30\tAYO9034\n",
         "br/HPM9362.jpeg": None, "br/HPM9362.txt": "HPM9362.jpg\t20\t30\t100\t30\tHPM9362",
         "us/1.jpg": None, "us/1.txt": "1.jpg\t20\t30\t100\t30\tABC12\n1.jpg\t220\t130\t100\t30\tUNKNOWN\n"},
        {"br/AYO9034.jpg": [("AYO9034", BOX)], "br/HPM9362.jpeg": [("HPM9362", BOX)],
         "us/1.jpg": [("ABC12", BOX), ("", OTHER)]},
    ),
    "ccpd": (
        "ccpd",
        {f"ccpd_base/{CCPD}.jpg": None, f"ccpd_green/test/{GREEN}.jpg": None, "ccpd_np/1000.jpg": None,
         "splits/train.txt": f"ccpd_base/{CCPD}.jpg\n", "splits/none.txt": "prose\n"},
        {f"ccpd_base/{CCPD}.jpg": [("皖AY339S", SKEWED)], f"ccpd_green/test/{GREEN}.jpg": [("苏DD01234", SKEWED)],
         "ccpd_np/1000.jpg": []},
    ),
    "ufpr": (
        "ufpr",
        {"training/track0001/track0001[01].png": None, "training/track0001/track0001[01].txt": UFPR,
         "testing/t/1.png": None, "testing/t/1.txt": OLDER_UFPR},
        {"testing/t/1.png": [("BCD1234", BOX), ("BCE-5678", OTHER)],
         "training/track0001/track0001[01].png": [("AYU0035", SKEWED)]},
    ),
    "rodosol": (
        "ufpr",
        {"images/cars-br/img_1.jpg": None, "images/cars-br/img_1.txt": RODOSOL,
         "split.txt": "./images/cars-br/img_1.jpg;testing\n"},
        {"images/cars-br/img_1.jpg": [("OVJ6688", SKEWED)]},
    ),
    "aolp": (
        "aolp",
        {"Subset_AC/Image/1.jpg": None, "Subset_AC/groundtruth_localization/1.txt": "20.0\n30\n120\n60.0\n",
         "Subset_AC/groundtruth_recognition/1.txt": "D\nF\n7\n6\n8\n6\n",
         "Subset_LE/Image/1.jpg": None, "Subset_LE/groundtruth_localization/1.txt": "120\r\n60\r\n20\r\n30",
         "Subset_LE/groundtruth_recognition/1.txt": "1\r\n2\r\n3\r\n4"},
        {"Subset_AC/Image/1.jpg": [("DF7686", BOX)], "Subset_LE/Image/1.jpg": [("1234", BOX)]},
    ),
    "tiny_alpr": (
        "aolp",
        {"Subset_AC/Image/1.jpg": None, "Subset_RP/Image/1.jpg": None,
         "Subset_AC/groundtruth_localization/1.txt": "20\n30\n121\n60\n",
         "Subset_AC/groundtruth_recognition/1.txt": "D\nF\n7\n6\n8\n6\n",
         "notes/Subset_AC_Keypoints/1.txt": "DF7686 20 60 121 30 121 66 19 60 20 30 120 35",
         "notes/Subset_RP_Keypoints/1.txt": "8888YA 20 60 121 30 120 60 20 60 20 30 120 30\n"},
        {"Subset_AC/Image/1.jpg": [("DF7686", SKEWED)], "Subset_RP/Image/1.jpg": [("8888YA", BOX)]},
    ),
    "yolo": (
        "yolo",
        {"images/train/x.jpg": None, "images/val/x.jpg": None, "images/val/none.jpg": None, "labels/val/none.txt": "",
         "labels/train/x.txt": "0 0.5 0.5 1 1\n1 0.17500 0.15000 0.25000 0.10000\n",
         "labels/val/x.txt": "1 0.3025 0.22 0.0475 0.2 0.05 0.1 0.3 0.11666667\n",
         "data.yaml": "train: images/train\nval: images/val\nnc: 2\nnames: [car, plate]\n",
         "train.txt": "images/train/x.jpg\n"},
        {"images/train/x.jpg": [("", BOX)], "images/val/none.jpg": [], "images/val/x.jpg": [("", SKEWED)]},
    ),
    "coco": (
        "coco",
        {"annotations/instances_train.json": json.dumps(COCO, indent=2),
         **dict.fromkeys(["train/京AB1234_front.jpg", "train/two.jpg", "train/bare.jpg"])},
        {"train/bare.jpg": [], "train/two.jpg": [("JAB1235", SKEWED), ("", OTHER)],
         "train/京AB1234_front.jpg": [("京AB1234", BOX)]},
    ),
    "ppocrlabel": (
        "ppocrlabel",
        {"Label.txt": 'set/1.jpg\t[{"transcription": "京A12345", "points": [[20, 30], [120, 35], [121, 66], [19, 60]], '
         '"difficult": false}, {"transcription": "###", "points": [[220, 130], [320, 130], [320, 160], [220, 160]]}]\n'
         "set/2.jpg\t[]\n", "rec_gt.txt": "crop_img/1_crop_0.jpg\t京A12345\n", "fileState.txt": "C:/set/1.jpg\t1\n",
         **dict.fromkeys(["1.jpg", "2.jpg", "crop_img/1_crop_0.jpg", "crop_img/1_crop_1.jpg"])},
        {"1.jpg": [("京A12345", SKEWED), ("", OTHER)], "2.jpg": [], "crop_img/1_crop_0.jpg": [("京A12345", ())],
         "crop_img/1_crop_1.jpg": [("", ())]},
    ),
    "cvat": (
        "cvat",
        {"annotations.xml": CVAT, **dict.fromkeys(["bare.jpg", "images/set/abc1234.jpg", "crop.jpg"])}, CVAT_TRUTH,
    ),
    "label studio": (
        "label_studio",
        {"export.json": json.dumps(LABEL_STUDIO), **dict.fromkeys(LABEL_STUDIO_TRUTH)}, LABEL_STUDIO_TRUTH,
    ),
    "alpr-unconstrained": (
        "corner_lines",
        {"a/0.txt": "", "a/0.jpg": None, "a/1.jpg": None, "a/2.jpg": None,
         "a/1.txt": "4,0.050000,0.300000,0.302500,0.047500,0.100000,0.116667,0.220000,0.200000,ABC1234,\n"
         "4,0.55,0.8,0.8,0.55,0.43333333,0.43333333,0.53333333,0.53333333,,\n",
         "a/2.txt": "4,0.05,0.3,0.3,0.05,0.1,0.1,0.2,0.2,1234567,"},
        {"a/0.jpg": [], "a/1.jpg": [("ABC1234", SKEWED), ("", OTHER)], "a/2.jpg": [("1234567", BOX)]},
    ),
    "lp-2024": (
        "lp2024",
        {"train/images/0.jpg": None, "train/labels/0.txt": "", "train/images/1.jpg": None,
         "train/labels/1.txt": "ABC-1234 20 30 120 35 121 66 19 60\n_ 220 130 320 130 320 160 220 160"},
        {"train/images/0.jpg": [], "train/images/1.jpg": [("ABC-1234", SKEWED), ("", OTHER)]},
    ),
    "yolo of characters, frames": (
        "yolo_characters",
        {"data.yaml": OF_CHARACTERS, "images/0.jpg": None, "labels/0.txt": "", "images/1.jpg": None,
         "labels/1.txt": f"{NAMES.index('car')} 0.5 0.5 1 1\n{NAMES.index('license plate')} 0.175 0.15 0.25 0.1\n"
         f"{spelled('ABC1234')}{NAMES.index('license plate')} 0.675 0.48333333 0.25 0.1\n",
         "images/2.jpg": None, "labels/2.txt": f"{NAMES.index('license plate')} 0.175 0.15 0.25 0.1\n{spelled('京A', 'B12345')}"},
        {"images/0.jpg": [], "images/1.jpg": [("ABC1234", BOX), ("", OTHER)], "images/2.jpg": [("京AB12345", BOX)]},
    ),
    "yolo of characters, crops": (
        "yolo_characters",
        {"classes.txt": "\n".join(NAMES), "a.jpg": None, "a.txt": spelled("ABC", "1234", step=60), "b.jpg": None, "b.txt": "",
         "c.png": None, "c.txt": spelled("京XZ1234", step=50, fall=24)},
        {"a.jpg": [("ABC1234", ())], "b.jpg": [], "c.png": [("京XZ1234", ())]},
    ),
    "voc": (
        "voc",
        {"JPEGImages/abc-1234.jpg": None, "Annotations/abc-1234.xml": VOC, "ImageSets/Main/val.txt": "abc-1234  1\n"},
        {"JPEGImages/abc-1234.jpg": [("ABC1234", BOX), ("XYZ-99", OTHER)]},
    ),
}  # fmt: skip
SPLITS = {
    "cvat": {"images/set/abc1234.jpg": "val"},
    "platemint csv": {"c/2.jpg": "val"},
    "fast-plate-ocr": {"val/images/1.jpg": "val"},
    "rodosol": "test",
}

ROTATED = str.maketrans(
    "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789" + PROVINCES,
    "BCDEFGHJKLMNPQRSTUVWXYZA1234567890" + PROVINCES[1:] + PROVINCES[0],
)


def make(root: Path, files: dict) -> Path:
    """Files with a text or bytes; None is a picture."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            Image.new("L", SIZE).save(path)
        else:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def other(frame, text: str) -> str:
    """Another text of the same form."""
    return text.translate(ROTATED).replace("学", "A").replace("O", "P")


def shorter(frame, text: str) -> str:
    return other(frame, text)[:-1]


def write_out(dataset: Dataset, new_text, root: Path) -> Path:
    """The reworded dataset, its pictures copied."""
    for old, (name, data) in rewrite_dataset(dataset, new_text).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((dataset.root / old).read_bytes() if data is None else data)
    return root


def plates(dataset: Dataset) -> dict:
    return {
        frame.path: [(annotation.text, annotation.corners) for annotation in frame.annotations]
        for frame in dataset.frames
    }


def reasons(dataset: Dataset) -> list[tuple[str, str]]:
    return [(row["path"], row["reason"]) for row in dataset.set_aside]


def told(root: Path) -> str:
    """All that names and annotation files of a folder say, without escapes and separators, in lower case."""
    files = [path for path in root.rglob("*") if path.is_file()]
    said = [path.relative_to(root).as_posix() for path in files]
    said += [p.read_text() for p in files if p.suffix in (".txt", ".csv", ".json", ".jsonl", ".xml", ".yaml")]
    said = re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), "\n".join(said))
    return re.sub(f"[{re.escape(SEPARATORS)}_]", "", said).lower()


@pytest.fixture(params=DATASETS)
def case(request, tmp_path):
    format, files, truth = DATASETS[request.param]
    return open_dataset(make(tmp_path / "in", files)), format, truth, SPLITS.get(request.param, {})


def test_texts_and_corners_are_read(case):
    dataset, format, truth, splits = case
    assert dataset.format == format and dataset.set_aside == []
    read = plates(dataset)
    assert [(path, [text for text, _ in found]) for path, found in read.items()] == [
        (path, [text for text, _ in found]) for path, found in sorted(truth.items())
    ]
    for path, found in truth.items():
        for (_, corners), (_, expected) in zip(read[path], found):
            assert np.shape(corners) == np.shape(expected) and np.allclose(corners, expected, atol=0.01)
    for frame in dataset.frames:
        assert frame.split == (splits if isinstance(splits, str) else splits.get(frame.path, frame.split))


def test_the_same_texts_give_the_same_files(case):
    dataset = case[0]
    for old, (new, data) in rewrite_dataset(dataset, lambda frame, text: text).items():
        assert new == old
        assert data == (None if old in dataset.folder.pictures else (dataset.root / old).read_bytes())


@pytest.mark.parametrize("new_text", [other, shorter])
def test_other_texts_stand_wherever_the_old_ones_stood(case, tmp_path, new_text):
    dataset, format, *_ = case
    if format in ("ccpd", "yolo_characters") and new_text is shorter:
        return
    again = open_dataset(write_out(dataset, new_text, tmp_path / "out"))
    assert again.format == format and again.set_aside == [] and len(again.frames) == len(dataset.frames)
    becomes = rewrite_dataset(dataset, new_text)
    expected = {
        becomes[frame.path][0]: [(new_text(frame, s.text) if s.text else "", s.corners) for s in frame.annotations]
        for frame in dataset.frames
    }
    assert plates(again) == expected
    assert {becomes[f.path][0]: f.split for f in dataset.frames} == {f.path: f.split for f in again.frames}
    said = told(again.root)
    for frame in dataset.frames:
        for annotation in frame.annotations:
            assert not annotation.text or characters(annotation.text).lower() not in said


def test_every_format_has_a_case():
    assert {format for format, *_ in DATASETS.values()} == {*FORMATS} - {BARE}


ALPR = "1.jpg\t20\t30\t100\t30\tABC1234\n"
KEYPOINTS = "DF7686 20 60 121 30 121 66 19 60 20 30 120 35"
CORNERS = "file,text,x1,y1,x2,y2,x3,y3,x4,y4\n"


def beside(good: str, bad: str | bytes, suffix: str = ".txt") -> dict:
    """Annotations of 1.jpg and 2.jpg, of which the first is to be set aside."""
    return {"1" + suffix: bad, "2" + suffix: good.replace("1.jpg", "2.jpg")}


@pytest.mark.parametrize(
    "files, said",
    [
        (beside(ALPR, ALPR.replace("\t100", "\t500")), "reaches out of the picture, which has 400 x 300"),
        (beside(ALPR, ALPR.replace("\t20", "\t-29")), "reaches out"),
        (beside(ALPR, ALPR.replace("\t100", "\t0")), "less than a pixel"),
        (beside(ALPR, ALPR.replace("\t20", "\tnan")), "not finite"),
        (beside(ALPR, ALPR.replace("\t20", "\tleft")), "could not convert"),
        (beside(ALPR, ALPR + "1.jpg\t21\t30\t100\t30\tABC1235\n"), "different texts"),
        (beside(ALPR, ALPR + "1.jpg 21 30 100 30 ABC1235\n"), "line 2 is not"),
        (beside(ALPR, ALPR.replace("1.jpg", "9.jpg")), "line 1 is not"),
        (beside(ALPR, ""), "empty"),
        (beside(ALPR, b"1.jpg\xff"), "not UTF-8"),
        (beside(ALPR, ALPR) | {"1.jpg": "GIF89a"}, "not a picture"),
        (beside(UFPR, UFPR.replace("plate", "plaque")), "no line `plate: TEXT`"),
        (beside(UFPR, UFPR.replace("corners", "vertices")), "neither corners nor position_plate"),
        (beside(UFPR, UFPR.replace("20,30 ", "")), "corners has 6 numbers"),
        (beside(UFPR, UFPR + "ABC1234\n"), "line 16 is not"),
        (beside("0 0.5 0.5 0.2 0.1", "0 0.5 0.5 0.2"), "line 1 is not a class"),
        (beside("0 0.5 0.5 0.2 0.1", "0 0.9 0.5 0.4 0.1"), "reaches out"),
        (beside(KEYPOINTS, "AB12 1 2 3"), "neither four numbers"),
        (beside(VOC, VOC.replace("?>", "?><!DOCTYPE x []>"), ".xml"), "document type"),
        (beside(VOC, VOC[:-9], ".xml"), "not XML"),
        (beside(VOC, VOC.replace("bndbox", "box"), ".xml"), "neither bndbox nor a polygon"),
        ({"a.csv": "path,text\n1.jpg\n2.jpg,A\n"}, "not as many fields"),
        ({"a.csv": "path,text\n1.jpg,A,B\n2.jpg,A\n"}, "not as many fields"),
        ({"a.csv": "path,text\n1.jpg,A1\n1.jpg,A2\n2.jpg,A\n"}, "different texts"),
        ({"a.csv": "path,text,split\n1.jpg,A,../../etc\n2.jpg,A,val\n"}, "split"),
        ({"a.csv": CORNERS + "1.jpg,A,0,0,a,0,9,9,0,9\n"}, "not the numbers of a place"),
        ({"a.csv": CORNERS + "1.jpg,A,0,0,9,9,0,0,9,9\n"}, "less than a pixel"),
        ({"a.jsonl": '{"path": "2.jpg", "text": "A"}\n{"path": "1.jpg", "text": 7}\n'}, "not text"),
        ({"a.json": json.dumps(COCO | {"images": [{"id": 1, "file_name": "2.jpg"}, {"id": 2, "file_name": "1.jpg"}],
          "annotations": [{"image_id": 2, "category_id": 2, "bbox": [1, 2, 3]}]})}, "no usable bbox"),
    ],
)  # fmt: skip
def test_a_picture_with_an_unusable_annotation_is_set_aside_and_written_nowhere(tmp_path, files, said):
    dataset = open_dataset(make(tmp_path, {"1.jpg": None, "2.jpg": None} | files))
    assert [frame.path for frame in dataset.frames] == ["2.jpg"]
    ((path, reason),) = reasons(dataset)
    assert path == "1.jpg" and said in reason and "ABC" not in reason
    for old, (_, data) in rewrite_dataset(dataset, other).items():
        assert not old.startswith("1") and b"1.jpg" not in (data or b"")


@pytest.mark.parametrize(
    "name, said",
    [(CCPD.replace("33_16", "33_99"), "out of its alphabet"), ("01-90_90-1&2_3&4-0_0_1-1-1", "not a name of CCPD's")],
)
def test_a_broken_ccpd_name_is_set_aside(tmp_path, name, said):
    dataset = open_dataset(make(tmp_path, {f"{CCPD}.jpg": None, f"{name}.jpg": None}))
    ((path, reason),) = reasons(dataset)
    assert path == f"{name}.jpg" and said in reason and len(dataset.frames) == 1


def test_a_text_that_ccpd_cannot_hold_is_refused_by_name(tmp_path):
    dataset = open_dataset(make(tmp_path, {f"{CCPD}.jpg": None}))
    for text in ("ABC1234", "皖AY33", "皖AO1234", "皖I12345"):
        with pytest.raises(PlatemintError, match=f"{CCPD}.*{text}"):
            rewrite_dataset(dataset, lambda frame, old, text=text: text)
    assert (
        rewrite_dataset(dataset, lambda frame, old: "皖A-D12345")[f"{CCPD}.jpg"][0].split("-")[4]
        == "0_0_3_25_26_27_28_29"
    )


def test_pictures_that_are_not_there_are_set_aside_and_their_rows_left_out(tmp_path):
    rows = ["gone.jpg", "../9.jpg", "/etc/9.jpg", "link.jpg", "away/1.jpg", "", "1.jpg"]
    root = make(tmp_path / "in", {"a.csv": "path,text\n" + "".join(f"{name},AB123\n" for name in rows), "1.jpg": None})
    make(tmp_path, {"1.jpg": None, "9.jpg": None})
    (root / "link.jpg").symlink_to(root / "1.jpg")
    (root / "away").symlink_to(tmp_path)
    dataset = open_dataset(root)
    said = reasons(dataset)
    assert sorted(said[:2]) == [("away", LINK), ("link.jpg", LINK)]
    assert [reason for _, reason in said[2:]] == [NONE, OUTSIDE, OUTSIDE, LINK, LINK, "no file is named"]
    assert [row["row"] for row in dataset.set_aside[2:]] == ["2", "3", "4", "5", "6", "7"]
    assert rewrite_dataset(dataset, other) == {
        "1.jpg": ("1.jpg", None),
        "a.csv": ("a.csv", b"path,text\n1.jpg,BC234\n"),
    }


LINK, NONE, OUTSIDE = "a link, which is not followed", "no such picture, or several", "outside the dataset's folder"


def test_a_picture_of_which_the_size_is_needed_is_refused_with_the_true_reason(tmp_path):
    folder = records.Folder(make(tmp_path, {"small.jpg": None, "text.png": "GIF89a", "poster.png": "", "gone.png": ""}))
    Image.new("1", (20_000, 10_000)).save(tmp_path / "poster.png")
    (tmp_path / "gone.png").unlink()
    assert folder.size("small.jpg") == SIZE
    for name, said in {
        "text": "not a picture",
        "poster": "more than 64,000,000 pixels",
        "gone": "No such file",
    }.items():
        with pytest.raises(ValueError, match=said):
            folder.size(f"{name}.png")


def test_annotations_without_a_picture_are_set_aside(tmp_path):
    files = {"1.jpg": None, "1.txt": ALPR, "2.txt": ALPR.replace("1.jpg", "2.jpg"), "x/readme.txt": "about"}
    dataset = open_dataset(make(tmp_path, files))
    assert reasons(dataset) == [("2", NONE)] and dataset.unknown == ["x/readme.txt"]
    assert set(rewrite_dataset(dataset, other)) == {"1.jpg", "1.txt"}


def test_lines_of_lists_that_name_no_picture_are_left_out(tmp_path):
    files = {"a/AB123_x.jpg": None, "b/1.jpg": None, "val.txt": "a/AB123_x.jpg\r\nb/2.jpg\n\n./b/1.jpg 1\n"}
    dataset = open_dataset(make(tmp_path, files))
    assert reasons(dataset) == [("val.txt", "the line names no picture of the dataset"), ("b/1.jpg", NOT_A_TEXT)]
    assert {frame.split for frame in dataset.frames} == {"val"} and not dataset.unannotated
    assert rewrite_dataset(dataset, other)["val.txt"] == ("val.txt", b"a/BC234_x.jpg\r\n\n")


def test_no_two_pictures_get_one_name(tmp_path):
    names = ["AB123.jpg", "ab-123.png", "XY999.jpg", "c/AB123.jpg"]
    rows = ["AB123", "AB-123", "XY998", "AB123"]
    files = {"a.csv": "path,text\n" + "".join(f"{name},{text}\n" for name, text in zip(names, rows))}
    dataset = open_dataset(make(tmp_path / "in", files | dict.fromkeys(names)))
    root = write_out(dataset, lambda frame, text: "XY999", tmp_path / "out")
    again = open_dataset(root)
    assert set(plates(again)) == {"XY999-2.jpg", "xy999-3.png", "XY999.jpg", "c/XY999.jpg"} and not again.set_aside
    assert {text for found in plates(again).values() for text, _ in found} == {"XY999"}


def test_names_lose_a_text_in_every_spelling_and_keep_what_is_none(tmp_path):
    names = ["a_京A-B1234x.jpg", "ja_b12 34.jpg", "京ab1234/7.jpg", "0AB12.jpg", "AB1.jpg", "zAB1.jpg", "AB-1_z.jpg"]
    rows = ["京AB1234", "JAB1234", "x", "OAB12", "AB1", "z", "z"]
    files = {"a.csv": "path,text\n" + "".join(f"{name},{text}\n" for name, text in zip(names, rows))}
    dataset = open_dataset(make(tmp_path, files | dict.fromkeys(names)))
    new = {"京AB1234": "沪C-99999", "JAB1234": "KK77777", "OAB12": "UUU77", "AB1": "TT2"}
    becomes = rewrite_dataset(dataset, lambda frame, text: new.get(text, text))
    assert [becomes[name][0] for name in names] == [
        "a_沪C-99999x.jpg", "kk77777.jpg", "沪c99999/7.jpg", "UUU77.jpg", "TT2.jpg", "zAB1.jpg", "TT2_z.jpg"
    ]  # fmt: skip


def test_a_picture_has_its_own_new_text_in_its_name_where_one_text_gets_several(tmp_path):
    names = ["AB123_1.jpg", "AB123_2.jpg", "AB123/AB123_x.jpg", "ab123/ab123.jpg"]
    dataset = open_dataset(make(tmp_path, dict.fromkeys(names)))
    becomes = rewrite_dataset(dataset, lambda frame, text: "ZZ" + frame.path[6] * 3 if text == "AB123" else text)
    assert [becomes[name][0] for name in names] == [
        "ZZ111_1.jpg",
        "ZZ222_2.jpg",
        "ZZAAA/ZZAAA_x.jpg",
        "zzaaa/zzaaa.jpg",
    ]


COCO_WITH_READING = json.dumps(
    {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 400, "height": 300}],
        "categories": [{"id": 1, "name": "plate"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 30, 80, 20],
             "attributes": {"text": "AB1234", "seen": "A81Z34", "camera": "gate 7", "lane": "4"}},
        ],
    }
)  # fmt: skip
VOC_WITH_READING = (
    "<annotation><filename>1.jpg</filename><size><width>400</width><height>300</height></size><object><name>plate</name>"
    "<text>AB1234</text><seen>A81Z34</seen><camera>gate 7</camera><lane>4</lane><bndbox><xmin>20</xmin><ymin>30</ymin>"
    "<xmax>100</xmax><ymax>50</ymax></bndbox></object></annotation>"
)
WITH_READINGS = {
    "table": {"a.csv": "path,text,seen,camera,lane\n1.jpg,AB1234,A81Z34,gate 7,4\n"},
    "lines": {
        "a.jsonl": '{"path": "1.jpg", "text": "AB1234", "by": {"seen": ["ab-1284"]}, "camera": "gate 7", "lane": 4}\n'
    },
    "coco": {"a.json": COCO_WITH_READING},
    "voc": {"1.xml": VOC_WITH_READING},
}


@pytest.mark.parametrize("kind", WITH_READINGS)
def test_what_some_reader_has_misread_does_not_stay(tmp_path, kind):
    """A field that holds the old text but for a character or two is found by no search for the text."""
    dataset = open_dataset(make(tmp_path / "in", WITH_READINGS[kind] | {"1.jpg": None}))
    assert [a.text for frame in dataset.frames for a in frame.annotations] == ["AB1234"]
    write_out(dataset, lambda frame, text: "XK7790", tmp_path / "out")
    (note,) = ((tmp_path / "out" / name).read_text() for name in WITH_READINGS[kind])
    assert "XK7790" in note and "gate 7" in note and "4" in note
    assert not re.search("A81Z34|ab-1284|AB1234", note)


def test_a_word_or_number_beside_a_plate_stays(tmp_path):
    row = "1.jpg,AB1234,{},12345,2024-11-27,north 12,AB\n"
    header = "path,text,seen,id,day,place,state\n"
    for seen in ("front", "Audi A4", "1234", "unsure", "XX9876"):
        folder = tmp_path / seen
        dataset = open_dataset(make(folder / "in", {"a.csv": header + row.format(seen), "1.jpg": None}))
        write_out(dataset, lambda frame, text: "XK7790", folder / "out")
        assert (folder / "out" / "a.csv").read_text() == header + row.format(seen).replace("AB1234", "XK7790")


def test_lines_of_characters_go_where_the_new_text_has_another_length(tmp_path):
    dataset = open_dataset(make(tmp_path, {"1.png": None, "1.txt": UFPR}))
    same, fewer = (rewrite_dataset(dataset, new)["1.txt"][1].decode() for new in (other, shorter))
    assert same == UFPR.replace("AYU0035", "BZV1146")
    assert fewer == UFPR[: UFPR.index("\tchar")].replace("AYU0035", "BZV114")


@pytest.mark.parametrize("style", [{}, {"indent": 4, "ensure_ascii": False}, {"separators": (",", ":")}])
def test_coco_keeps_its_style_and_loses_what_is_set_aside(tmp_path, style):
    truth = json.dumps(COCO, **style)
    root = make(tmp_path, {"a.json": truth, "京AB1234_front.jpg": None, "two.jpg": None})
    dataset = open_dataset(root)
    assert reasons(dataset) == [("bare.jpg", NONE)]
    new = json.loads(text := rewrite_dataset(dataset, other)["a.json"][1])
    assert text.decode() == json.dumps(new, **style)
    assert [image["id"] for image in new["images"]] == [1, 2] and new["annotations"][0]["bbox"] == [20, 30, 100.0, 30]
    assert new["images"][1]["note"] == "shows kbc2346" and new["info"]["description"] == "沪BC2345 and others"


@pytest.mark.parametrize(
    "broken",
    [{"images": [{"id": 1}]}, {"annotations": [{"id": 1}]}, {"annotations": [7]}, {"images": COCO["images"] * 2}],
)
def test_a_broken_coco_file_is_refused_by_name(tmp_path, broken):
    with pytest.raises(PlatemintError, match="a.json"):
        open_dataset(make(tmp_path, {"a.json": json.dumps(COCO | broken), "two.jpg": None}))


def test_yolo_without_or_with_broken_names(tmp_path):
    files = {"1.jpg": None, "1.txt": "0 0.5 0.5 0.2 0.1\n3 0.1 0.1 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n"}
    files |= {"2.jpg": None, "2.txt": "0 0.1 0.1 0.2 0.1 0.3 0.1 0.3 0.2 0.2 0.2 0.1 0.2\n"}
    frames = open_dataset(make(tmp_path, files)).frames
    assert [[len(annotation.corners) for annotation in frame.annotations] for frame in frames] == [[4, 4], [4]]
    for text in ("names: 7", "nc: 2", "[", "names: {a: plate}"):
        with pytest.raises(PlatemintError, match=r"data.yaml: names"):
            open_dataset(make(tmp_path, {"data.yaml": text}))


def test_boxes_are_of_the_upright_picture(tmp_path):
    make(
        tmp_path,
        {"1.txt": ALPR.replace("\t30\t100", "\t330\t100"), "2.txt": ALPR.replace("1.jpg", "2.jpg"), "2.jpg": None},
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", SIZE).save(tmp_path / "1.jpg", exif=exif)
    assert not open_dataset(tmp_path).set_aside


def test_the_format_is_found_or_said(tmp_path):
    root = make(tmp_path, {"1.jpg": None, "1.txt": ALPR, "a.csv": "path,text\n1.jpg,AB123\n"})
    with pytest.raises(
        PlatemintError, match=r"several formats \(table, openalpr\): table by 1 annotation file, openalpr by 1 "
    ):
        open_dataset(root)
    assert open_dataset(root, "table").unknown == ["1.txt"]
    assert open_dataset(root, format="openalpr").unknown == ["a.csv"]
    with pytest.raises(PlatemintError, match="looked for the formats coco"):
        open_dataset(root, "coco")
    with pytest.raises(PlatemintError, match="there is no csv; choose one of table, "):
        open_dataset(root, "csv")


def test_a_folder_without_annotations_is_refused(tmp_path):
    with pytest.raises(PlatemintError, match="no such folder"):
        open_dataset(tmp_path / "none")
    with pytest.raises(PlatemintError, match="looked for the formats table, gt, openalpr, .*names"):
        open_dataset(make(tmp_path, {"photo.jpg": None, "a.json": "{}", "b.json": "[" * 100_000}))


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real plates here")
@pytest.mark.parametrize("name, format, count", [("cn", "table", 50), ("us", "openalpr", 109)])
def test_real_frames(tmp_path, name, format, count):
    dataset = open_dataset(SHARED / "frames" / name)
    assert (dataset.format, len(dataset.frames), dataset.set_aside, dataset.unknown) == (format, count, [], [])
    for frame in dataset.frames:
        for (x1, y1), (x2, _), (x3, y3), (x4, y4) in [annotation.corners for annotation in frame.annotations]:
            assert x1 < x2 and x4 < x3 and y1 < y4 and x1 < x3 and y1 < y3
    again = open_dataset(write_out(dataset, other, tmp_path))
    assert len(again.frames) == count and not again.set_aside
    said = told(tmp_path)
    assert not any(
        characters(annotation.text).lower() in said for frame in dataset.frames for annotation in frame.annotations
    )
    same = rewrite_dataset(dataset, lambda frame, text: text)
    assert all(old == new and data in (None, (dataset.root / old).read_bytes()) for old, (new, data) in same.items())
