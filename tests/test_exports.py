"""Exports: what a trainer's own library or parsing rule reads there is what the Parquet holds, and corpora read it again."""

import csv
import io
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from platemint.pipeline.corpora import read_corpus
from platemint.pipeline.corpora.containers import data_of
from platemint.pipeline.exports import FORMATS, export
from platemint.pipeline.plate import characters

HERE = Path(__file__).parent
CHINESE = ["京A12345", "沪AD12345", "粤B·9K8L7", "藏N0000A"]
TEXTS = {  # text: layout
    "NULL": "",
    "0012": "",
    "1E5": "",
    "AB-123 CD": "",
    "NA": "uk",
    "AB 12,3": "",
    "X.Y·Z 9": "",
    "ABC1D23": "br-mercosur-moto",
    **dict.fromkeys(CHINESE, "cn-blue"),
    "黑F·ABC12": "cn-yellow-two-row",
}
TWO_ROWS = {"ABC1D23": 3, "黑F·ABC12": 3}  # characters of the first
SUFFIX = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


def picture(seed: int, form: str) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 96 + seed, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def slots(text: str) -> list[float]:
    """Equal cells from left to right, of one row or of two; a plate that is a little tilted."""
    first, found = TWO_ROWS.get(text, len(text)), []
    for i in range(len(text)):
        row, column, there = (0, i, first) if i < first else (1, i - first, len(text) - first)
        height = 0.5 if first == len(text) else 0.25
        x, y = 0.1 + 0.8 * (column + 0.5) / there, height + 2 * row * height
        found += [x, y + 0.05 * x, 0.35 / there, 0.01, 0.004, 0.6 * height]
    return found


def rows(texts: dict[str, str] = TEXTS) -> list[dict]:
    made = []
    for i, (text, layout) in enumerate(texts.items()):
        scored = {"score_reader": 0.5 + i / 64, "score_residue": None if i == 2 else i / 128}
        form = [*SUFFIX][i % 3]
        image = {"bytes": picture(i, form), "path": "../../elsewhere.jpg"}
        made.append(
            {"image": image, "text": text, "layout": layout, "split": "val" if i % 4 == 3 else "train", "index": i}
            | scored
            | {"slots": slots(text)}
        )
    return made


def parquet_of(path: Path, some: list[dict], **columns) -> Path:
    types = {
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        **dict.fromkeys(("text", "layout", "split"), pa.string()),
        "index": pa.int64(),
        **dict.fromkeys(("score_reader", "score_residue"), pa.float32()),
        "slots": pa.list_(pa.float32()),
    } | columns
    schema = pa.schema([(name, kind) for name, kind in types.items() if any(name in row for row in some)])
    pq.write_table(pa.Table.from_pylist(some, schema=schema), path, row_group_size=3)
    return path


@pytest.fixture(scope="module")
def canonical(tmp_path_factory):
    """A Parquet file of labels that readers of tables, recognisers and file names get wrong."""
    return parquet_of(tmp_path_factory.mktemp("rows") / "plates.parquet", rows())


# ------------------------------------------------------------ what a format's consumers read: {split: [(text, picture)]}


def read_fast_plate_ocr(folder: Path) -> dict:
    """As `fast_plate_ocr.train.data.annotations.read_annotations_csv` does it."""
    found = {}
    config = yaml.safe_load((folder / "plate_config.yaml").read_text(encoding="utf8"))
    assert config["pad_char"] in config["alphabet"] and len({*config["alphabet"]}) == len(config["alphabet"])
    for table in sorted(folder.glob("*/annotations.csv")):
        read = pd.read_csv(table, dtype={"plate_text": str})
        assert [*read.columns] == ["image_path", "plate_text", "plate_region"]
        assert {*read["plate_region"]} <= {*config["plate_regions"]}
        texts = read["plate_text"].fillna("")
        assert texts.str.len().max() <= config["max_plate_slots"] and {*"".join(texts)} <= {*config["alphabet"]}
        found[table.parent.name] = [
            (text, (table.parent / path).read_bytes()) for path, text in zip(read["image_path"], texts)
        ]
    return found


def read_paddleocr(folder: Path) -> dict:
    """As SimpleDataSet and BaseRecLabelEncode of PaddleOCR do it."""
    with open(folder / "dict.txt", "rb") as file:
        known = [line.decode("utf-8").strip("\n").strip("\r\n") for line in file.readlines()] + [" "]
    assert all(len(c) == 1 for c in known) and len({*known}) == len(known)
    found = {}
    for split in ("train", "val"):
        with open(folder / f"rec_gt_{split}.txt", "rb") as file:
            parts = [line.decode("utf-8").strip("\n").split("\t") for line in file.readlines()]
        assert all(len(part) == 2 and {*part[1]} <= {*known} for part in parts)
        found[split] = [(text, (folder / name).read_bytes()) for name, text in parts]
    return found


def read_lmdb(folder: Path) -> dict:
    """As LmdbDataset of deep-text-recognition-benchmark does it."""
    lmdb = pytest.importorskip("lmdb")
    found = {}
    for split in ("train", "val"):
        with lmdb.open(str(folder / split), readonly=True, lock=False, readahead=False, meminit=False) as env:
            with env.begin(write=False) as read:
                count = int(read.get(b"num-samples"))
                assert env.stat()["entries"] == 2 * count + 1
                found[split] = [
                    (read.get(b"label-%09d" % i).decode("utf-8"), bytes(read.get(b"image-%09d" % i)))
                    for i in range(1, count + 1)
                ]
    return found


def read_webdataset(folder: Path) -> dict:
    webdataset = pytest.importorskip("webdataset")
    found = {}
    for split in ("train", "val"):
        shards = webdataset.WebDataset([f"file:{path}" for path in folder.glob(f"{split}-*.tar")], shardshuffle=False)
        found[split] = [
            (s["txt"].decode(), next(s[suffix] for suffix in SUFFIX.values() if suffix in s)) for s in shards
        ]
    return found


def read_mds(folder: Path) -> dict:
    """As MDSReader of mosaicml-streaming does it."""
    found = {}
    for split in ("train", "val"):
        found[split] = []
        for shard in json.loads((folder / split / "index.json").read_text())["shards"]:
            data = (folder / split / shard["raw_data"]["basename"]).read_bytes()
            assert len(data) == shard["raw_data"]["bytes"] and shard["format"] == "mds" and shard["version"] == 2
            for i in range(shard["samples"]):
                start, end = np.frombuffer(data[4 * (1 + i) : 4 * (3 + i)], np.uint32)
                sample, values, at = data[start:end], {}, 4 * len(shard["column_names"])
                for k, name in enumerate(shard["column_names"]):
                    (size,) = np.frombuffer(sample[4 * k : 4 * k + 4], np.uint32)
                    values[name] = sample[at : at + size]
                    at += size
                found[split].append((values["text"].decode(), values["image"]))
    return found


def read_imagefolder(folder: Path, cache: Path) -> dict:
    datasets = pytest.importorskip("datasets")
    read = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(cache))
    names = {"train": "train", "validation": "val", "val": "val"}
    return {
        names[split]: [
            (row["text"], Path(row["image"]["path"]).read_bytes())
            for row in rows.cast_column("image", datasets.Image(decode=False))
        ]
        for split, rows in read.items()
    }


PROVINCES = "皖沪津渝冀晋蒙辽吉黑苏浙京闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新警学O"
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZO"
ADS = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789O"


def read_ccpd(folder: Path) -> dict:
    """As the loaders of CCPD's own code do it: the third field from the end holds the label."""
    lists = {split: (folder / f"splits/{split}.txt").read_text().split() for split in ("train", "val")}
    for path in sorted(folder.glob("ccpd_green/*/*")):
        lists[path.parent.name].append(path.relative_to(folder).as_posix())
    found = {}
    for split, names in lists.items():
        found[split] = []
        for name in names:
            fields = name.rsplit("/", 1)[-1].rsplit(".", 1)[0].split("-")
            indices = [int(index) for index in fields[-3].split("_")]
            (left, top), (right, bottom) = (map(int, point.split("&")) for point in fields[2].split("_"))
            data = (folder / name).read_bytes()
            assert (left, top, right, bottom) == (0, 0, *Image.open(io.BytesIO(data)).size) and len(fields) == 7
            text = PROVINCES[indices[0]] + LETTERS[indices[1]] + "".join(ADS[i] for i in indices[2:])
            found[split].append((text, data))
    return found


def read_yolo(folder: Path) -> dict:
    """As Ultralytics does it: labels/ for images/, class x y w h in parts; characters in the order of their lines."""
    settings = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf8"))
    found = {}
    for split in ("train", "val"):
        found[split] = []
        for path in sorted((folder / settings[split]).rglob("*.*")):
            label = Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")
            lines = [line.split() for line in label.read_text().splitlines()]
            boxes = np.array([[float(v) for v in values] for _, *values in lines])
            low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
            assert low.min() > -1e-5 and high.max() < 1 + 1e-5
            names = [settings["names"][int(kind)] for kind, *_ in lines]
            assert names[0] == "license_plate" and (boxes[0] == (0.5, 0.5, 1, 1)).all()
            found[split].append(("".join(names[1:]), path.read_bytes()))
    return found


READERS = {
    "fast-plate-ocr": read_fast_plate_ocr,
    "paddleocr": read_paddleocr,
    "lmdb": read_lmdb,
    "webdataset": read_webdataset,
    "mds": read_mds,
    "imagefolder": read_imagefolder,
    "ccpd": read_ccpd,
    "yolo": read_yolo,
}
LOST = {"fast-plate-ocr": ["NULL", "NA"], "ccpd": [text for text in TEXTS if text[0] < "一"]}
BARE = ("ccpd", "yolo")  # formats without separators


def expected(form: str) -> dict[str, list[tuple[str, bytes]]]:
    """What an export has to hold."""
    found = defaultdict(list)
    for row in rows():
        text = characters(row["text"]) if form in BARE else row["text"]
        if row["text"] not in LOST.get(form, ()):
            found[row["split"]].append((text, row["image"]["bytes"]))
    return dict(found)


def in_order(found: dict, form: str) -> dict:
    return {split: sorted(pairs) if form == "ccpd" else pairs for split, pairs in found.items()}


@pytest.mark.parametrize("form", FORMATS)
def test_a_consumer_reads_every_label_and_picture(canonical, tmp_path, form):
    if form == "webdataset":
        pytest.importorskip("webdataset")
    made = export(canonical, form, tmp_path / "export")
    read = READERS[form](tmp_path / "export", *[tmp_path / "cache"] * (form == "imagefolder"))
    assert in_order(read, form) == in_order(expected(form), form)
    assert made.set_aside == len(LOST.get(form, ()))
    assert made.plates == {split: len(pairs) for split, pairs in read.items()}
    aside = tmp_path / "export" / "set_aside.csv"
    listed = [*csv.DictReader(aside.open(encoding="utf8"))] if aside.exists() else []
    assert [[*TEXTS][int(row["row"])] for row in listed] == LOST.get(form, [])


@pytest.mark.parametrize("form", FORMATS)
def test_corpora_read_an_export_again(canonical, tmp_path, form):
    if form == "webdataset":
        pytest.importorskip("webdataset")
    export(canonical, form, tmp_path / "export")
    corpus = read_corpus(tmp_path / "export")
    read = defaultdict(list)
    for label in corpus.labels:
        read[label.split].append((label.text, data_of(label)))
    assert {s: sorted(pairs) for s, pairs in read.items()} == {s: sorted(pairs) for s, pairs in expected(form).items()}
