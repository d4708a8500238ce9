"""Exports: what a trainer's own library or parsing rule reads there is what the Parquet holds, and corpora read it again."""

import csv
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from stand_ins import Lucky, recipe

from platemint import run_pipeline
from platemint.pipeline import run
from platemint.pipeline.corpora import read_corpus
from platemint.pipeline.corpora.containers import data_of
from platemint.pipeline.corpora.formats import mds
from platemint.pipeline.exports import FORMATS, export
from platemint.pipeline.exports.plates import ExportedPlates
from platemint.pipeline.plate import Failure, PlatemintError, characters, unspellable
from platemint.pipeline.progress import Count
from platemint.pipeline.recipe import Export
from platemint.pipeline.render.layout import FOLDER
from platemint.pipeline.verify import verify
from platemint.pipeline.write import rows_as_csv

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
    pq.write_table(pa.Table.from_pylist(some, schema=schema), path, row_group_size=3, write_page_checksum=True)
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
        env = lmdb.open(str(folder / split), readonly=True, lock=False, readahead=False, meminit=False)
        with env, env.begin(write=False) as read:
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
    readable = {
        split: sorted(pair for pair in pairs if not unspellable(pair[0])) for split, pairs in expected(form).items()
    }
    assert {split: sorted(pairs) for split, pairs in read.items()} == readable


@pytest.mark.parametrize("form", FORMATS)
def test_scores_survive(canonical, tmp_path, form):
    if form == "webdataset":
        pytest.importorskip("webdataset")
    folder = tmp_path / "export"
    export(canonical, form, folder)
    found = [*fields_in(folder, form)]
    wanted = [row for row in rows() if row["text"] not in LOST.get(form, ())]
    assert len(found) == len(wanted)
    for fields in found:
        (row,) = [row for row in wanted if row["index"] == int(fields["index"])]
        for name in ("score_reader", "score_residue", "layout", "split"):
            there = fields[name] if fields[name] not in ("", None) else None
            kind = float if name.startswith("score_") else str
            assert there is None if not row[name] and row[name] != 0 else kind(there) == row[name]
        if "file" in fields and form != "lmdb":
            assert (folder / fields["file"]).read_bytes() == row["image"]["bytes"]


def fields_in(folder: Path, form: str):
    """Every row's columns, in the format itself or in scores.csv."""
    if form == "webdataset":
        webdataset = pytest.importorskip("webdataset")
        urls = [f"file:{path}" for path in folder.glob("*.tar")]
        yield from (json.loads(sample["json"]) for sample in webdataset.WebDataset(urls, shardshuffle=False))
    elif form == "imagefolder":
        for path in folder.glob("*/metadata.jsonl"):
            yield from map(json.loads, path.read_text(encoding="utf8").splitlines())
    elif form == "mds":
        for split in ("train", "val"):
            for path in (folder / split).glob("*.mds"):
                yield from mds_fields(path)
    else:
        yield from csv.DictReader((folder / "scores.csv").open(encoding="utf8"))


def mds_fields(path: Path):
    shards = json.loads((path.parent / "index.json").read_text())["shards"]
    (shard,) = [shard for shard in shards if shard["raw_data"]["basename"] == path.name]
    names, data = shard["column_names"], path.read_bytes()
    for i in range(shard["samples"]):
        start, end = np.frombuffer(data[4 * (1 + i) : 4 * (3 + i)], np.uint32)
        ends = 4 * len(names) + np.cumsum([0, *np.frombuffer(data[start : start + 4 * len(names)], np.uint32)])
        values = {name: data[start + a : start + b] for name, a, b in zip(names, ends, ends[1:])}
        yield {name: json.loads(value) for name, value in values.items() if name not in ("image", "text")}


# ----------------------------------------------------------------------------------------------------------- of a format


def test_regions_are_the_countries_of_layouts(canonical, tmp_path):
    export(canonical, "fast-plate-ocr", tmp_path / "export")
    config = yaml.safe_load((tmp_path / "export/plate_config.yaml").read_text(encoding="utf8"))
    assert config["plate_regions"] == ["BR", "CN", "GB", "Unknown"] and config["max_plate_slots"] == 9
    tables = [pd.read_csv(path, dtype=str) for path in (tmp_path / "export").glob("*/annotations.csv")]
    table = pd.concat(tables).set_index("plate_text")["plate_region"]
    assert table["ABC1D23"] == "BR" and table["0012"] == "Unknown" and {*table[CHINESE]} == {"CN"}


def test_a_region_that_reads_as_missing_is_written_otherwise(tmp_path):
    """Namibia's NA; and a layout that is a file of the run's."""
    layout = yaml.safe_load((Path(run_pipeline.__file__).parent / "recipes/layouts/uk.yaml").read_text(encoding="utf8"))
    (tmp_path / "windhoek.yaml").write_text(yaml.safe_dump(layout | {"country": "NA"}))
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/recipe.yaml").write_text(f"source: {{layouts: [{tmp_path / 'windhoek.yaml'}]}}")
    parquet_of(tmp_path / "rows/a.parquet", [row | {"layout": "windhoek"} for row in rows({"N1W": "", "N2W": ""})])
    export(tmp_path / "rows", "fast-plate-ocr", tmp_path / "export")
    read = pd.read_csv(tmp_path / "export/train/annotations.csv")
    assert [*read["plate_region"]] == ["na", "na"]


MODEL = """
model: cct
rescaling: {scale: 0.00392}
tokenizer:
  blocks:
    - {layer: Conv2D, filters: 8, kernel_size: 3, strides: 4}
    - {layer: Conv2D, filters: 16, kernel_size: 3, strides: 2}
  patch_size: 2
  patch_mlp: {layer: MLP, hidden_units: [16], dropout_rate: 0.0}
transformer_encoder: {layers: 1, heads: 1, projection_dim: 16, units: [16, 16], token_reducer_heads: 1}
"""


@pytest.mark.slow
def test_fast_plate_ocr_trains_on_its_export(canonical, tmp_path):
    """Its own checks of the dataset, which end in an error, and a few steps of its own trainer."""
    missing = [name for name in ("fast_plate_ocr", "keras", "albumentations") if not importlib.util.find_spec(name)]
    if missing:
        pytest.skip(f"fast-plate-ocr's trainer needs {', '.join(missing)}")
    export(canonical, "fast-plate-ocr", tmp_path / "export")
    (tmp_path / "model.yaml").write_text(MODEL)
    files = {"model-config-file": tmp_path / "model.yaml", "plate-config-file": tmp_path / "export/plate_config.yaml"}
    files |= {"annotations": tmp_path / "export/train/annotations.csv", "output-dir": tmp_path / "trained"}
    files |= {"val-annotations": tmp_path / "export/val/annotations.csv"}
    settings = {"validate-dataset": "error", "epochs": 6, "batch-size": 4, "lr": 0.01, "seed": 0}
    given = [f"--{name}={value}" for name, value in (files | settings).items()]
    program = [sys.executable, "-W", "ignore", "-c", "from fast_plate_ocr.cli.train import train; train()", *given]
    done = subprocess.run(program, env=os.environ | {"KERAS_BACKEND": "torch"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (log,) = (tmp_path / "trained").glob("*/training_log.csv")
    losses = pd.read_csv(log)[["plate_loss", "region_loss"]]
    assert len(losses) == 6 and (losses.iloc[-1] < losses.iloc[0]).all()


def test_boxes_of_characters_are_those_of_their_slots(canonical, tmp_path):
    export(canonical, "yolo", tmp_path / "export")
    lines = (tmp_path / "export/labels/train/0000/000000008.txt").read_text().splitlines()
    text = [row["text"] for row in rows() if row["split"] == "train"][7]
    assert text == "沪AD12345" and len(lines) == 1 + len(text)
    found = np.array([[float(value) for value in line.split()[1:]] for line in lines[1:]])
    middle, right, down = np.array(slots(text)).reshape(-1, 3, 2).transpose(1, 0, 2)
    points = np.stack([middle + a * right + b * down for a in (-1, 1) for b in (-1, 1)]).clip(0, 1)
    low, high = points.min(0), points.max(0)
    assert np.abs(found - np.concatenate([(low + high) / 2, high - low], 1)).max() < 1e-5


def test_boxes_that_do_not_read_as_the_text_are_set_aside(tmp_path):
    made = rows({"AB12": "", "CD34": "", "EF56": "", "GH78": ""})
    made[0]["slots"] = made[0]["slots"][6:] + made[0]["slots"][:6]  # the first stands last
    made[1]["slots"] = None
    made[2]["slots"] = made[2]["slots"][:-1]
    export(parquet_of(tmp_path / "a.parquet", made), "yolo", tmp_path / "export")
    listed = [*csv.DictReader((tmp_path / "export/set_aside.csv").open())]
    reasons = ["do not read as its text", "the row has no slots", "numbers of slots are not"]
    assert len(listed) == 3 and all(reason in row["reason"] for reason, row in zip(reasons, listed))
    assert [label.text for label in read_corpus(tmp_path / "export").labels] == ["GH78"]


def test_without_slots_yolo_has_the_plates_box_and_a_table_of_texts(tmp_path):
    bare = [{name: value for name, value in row.items() if name != "slots"} for row in rows()]
    export(parquet_of(tmp_path / "a.parquet", bare), "yolo", tmp_path / "export")
    labels = (tmp_path / "export/labels").rglob("*.txt")
    assert {path.read_text() for path in labels} == {"0 0.500000 0.500000 1.000000 1.000000\n"}
    corpus = read_corpus(tmp_path / "export")
    read = sorted((label.text, label.split, data_of(label)) for label in corpus.labels)
    wanted = [(row["text"], row["split"], row["image"]["bytes"]) for row in bare if not unspellable(row["text"])]
    assert corpus.format == "table" and read == sorted(wanted)


def test_pictures_of_one_name_are_both_kept_in_ccpd(tmp_path):
    one = rows({"京A12345": "cn-blue"})[0]
    export(parquet_of(tmp_path / "a.parquet", [one, one | {"index": 1}]), "ccpd", tmp_path / "export")
    names = (tmp_path / "export/splits/train.txt").read_text().split()
    assert len({*names}) == 2 and [label.text for label in read_corpus(tmp_path / "export").labels] == ["京A12345"] * 2


def test_mds_of_several_shards(canonical, tmp_path, monkeypatch):
    monkeypatch.setattr(mds, "MOST_BYTES", 20_000)
    export(canonical, "mds", tmp_path / "export")
    sizes = [path.stat().st_size for path in (tmp_path / "export").rglob("*.mds")]
    assert len(sizes) > 3 and max(sizes) < 22_000
    assert read_mds(tmp_path / "export") == expected("mds")
    assert len(read_corpus(tmp_path / "export").labels) == sum(not unspellable(text) for text in TEXTS)


def test_a_damaged_sample_of_mds_is_set_aside(canonical, tmp_path):
    export(canonical, "mds", tmp_path / "export")
    shard = tmp_path / "export/train/shard.00000.mds"
    data = bytearray(shard.read_bytes())
    start = int(np.frombuffer(data[4:8], np.uint32)[0])
    data[start : start + 4] = b"\xff\xff\xff\x7f"
    shard.write_bytes(data)
    corpus = read_corpus(tmp_path / "export")
    assert {"path": "train/shard.00000.mds/0", "row": "", "reason": "the sample is damaged"} in corpus.set_aside
    assert len(corpus.labels) == sum(not unspellable(text) for text in TEXTS) - 1


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"\xff" * 9, lambda data: data[:300] + b"{"])
def test_a_damaged_mds_shard_is_refused(canonical, tmp_path, damage):
    export(canonical, "mds", tmp_path / "export")
    shard = tmp_path / "export/train/shard.00000.mds"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(PlatemintError, match=r"00000.mds: not a whole MDS shard"):
        read_corpus(tmp_path / "export")


def test_mosaicml_streaming_reads_mds(canonical, tmp_path):
    try:
        from streaming import LocalDataset
    except Exception as fault:  # it imports much that may be missing
        pytest.skip(f"mosaicml-streaming: {fault}")
    export(canonical, "mds", tmp_path / "export")
    for split, pairs in expected("mds").items():
        samples = [*LocalDataset(str(tmp_path / "export" / split))]
        assert [(sample["text"], sample["image"]) for sample in samples] == pairs
        of_split = [row for row in rows() if row["split"] == split]
        assert [sample["score_residue"] for sample in samples] == [row["score_residue"] for row in of_split]


# ------------------------------------------------------------------------------------------------------------ of a run


class WithSlots(Lucky):
    """Says of every character that it stands in an even row."""

    def edit(self, plates):
        for plate in super().edit(plates):
            plate.slots = np.array(slots(plate.text), np.float32).reshape(-1, 3, 2)
        return plates


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "plates"
    made = recipe(out, write={"shard_rows": 25, "slots": True})
    run.generate(made, stages=WithSlots(made))
    return out


def tables(folder: Path) -> dict[str, pa.Table]:
    return {path.name: pq.read_table(path) for path in sorted(folder.glob("[d]*/*.parquet"))}


def test_slots_are_a_column_beside_others_that_stay(finished, tmp_path):
    made = recipe(tmp_path / "plates")
    run.generate(made, stages=Lucky(made))
    bare, with_slots = tables(tmp_path / "plates"), tables(finished)
    assert [*bare] == [*with_slots] and len(bare) > 8
    for name, rows_ in with_slots.items():
        assert rows_.drop_columns("slots").equals(bare[name])
        for text, stored in zip(rows_["text"].to_pylist(), rows_["slots"].to_pylist()):
            assert np.allclose(stored, slots(text))
    assert not verify(finished).faults
    datasets = pytest.importorskip("datasets")
    assert datasets.Dataset.from_parquet(
        [str(path) for path in finished.glob("data/train*")], cache_dir=str(tmp_path / "cache")
    )[0]["slots"]


def test_wrong_slots_are_a_fault(finished, tmp_path):
    folder = tmp_path / "plates"
    shutil.copytree(finished, folder)
    path = next(folder.glob("data/val*"))
    rows_ = pq.read_table(path)
    shorter = pa.array([some[:-1] for some in rows_["slots"].to_pylist()], pa.list_(pa.float32()))
    pq.write_table(rows_.set_column(rows_.column_names.index("slots"), "slots", shorter), path, row_group_size=100)
    assert any("numbers of slots" in fault for fault in verify(folder).faults)


def test_yolo_of_a_run(finished, tmp_path):
    export(finished, "yolo", tmp_path / "export")
    read = sorted((label.text, label.split) for label in read_corpus(tmp_path / "export").labels)
    assert read == sorted((label.text, label.split) for label in read_corpus(finished).labels) and len(read) == 120


def test_a_run_is_exported_as_its_recipe_says(finished, tmp_path):
    forms = {"shard_rows": 25, "also": ["lmdb", "imagefolder"]}
    made = recipe(tmp_path / "mine", write=forms)
    done = run.generate(made, stages=Lucky(made))
    assert done.exit_code == 0 and [made.folder.name for made in done.exported] == ["mine-lmdb", "mine-imagefolder"]
    texts = sorted(label.text for label in read_corpus(finished).labels)
    for form in ("", "-lmdb", "-imagefolder"):
        assert sorted(label.text for label in read_corpus(tmp_path / f"mine{form}").labels) == texts
    assert not verify(tmp_path / "mine").faults
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("mine-*/**/*")}
    assert run.generate(made, stages=Lucky(made)).exported == done.exported
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("mine-*/**/*")} == before

    plain = recipe(tmp_path / "plain")
    run.generate(plain, stages=Lucky(plain))  # exports change no byte
    for path in (tmp_path / "plain").rglob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "mine" / path.relative_to(tmp_path / "plain")).read_bytes()
    shutil.rmtree(tmp_path / "mine")
    other = recipe(tmp_path / "mine", seed=1, write=forms)
    with pytest.raises(PlatemintError, match="another state of .*mine: remove it"):
        run.generate(other, stages=Lucky(other))


def test_what_stands_in_an_exports_way_is_told_before_the_run(tmp_path):
    (tmp_path / "mine-lmdb").mkdir()
    (tmp_path / "mine-lmdb/notes.txt").write_text("mine")
    made = recipe(tmp_path / "mine", write={"also": ["lmdb"]})
    with pytest.raises(PlatemintError, match="mine-lmdb: holds files already: choose another --out, or remove it"):
        run.generate(made, stages=Lucky(made))
    assert not (tmp_path / "mine").exists()


def test_yolo_in_a_recipe_needs_slots():
    with pytest.raises(ValueError, match="also: yolo needs slots: true"):
        recipe("x", write={"also": ["yolo"]})
    assert get_args(Export) == tuple(FORMATS)


def test_a_run_that_is_not_finished_is_not_exported(finished, tmp_path):
    folder = tmp_path / "plates"
    shutil.copytree(finished, folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(PlatemintError, match="is not finished: generate again to go on with it, then export"):
        export(folder, "lmdb", tmp_path / "export")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plates"]


# ------------------------------------------------------------------------------------------------------------- faults


def command(*arguments) -> tuple[int, str]:
    result = CliRunner().invoke(run_pipeline.main, ["export", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_verb(canonical, tmp_path):
    assert command(canonical, "--to", "paddleocr", "--out", tmp_path / "a") == (
        0,
        f"{tmp_path / 'a'}: 13 plates (train 10, val 3)\n",
    )
    code, said = command(canonical, "--to", "fast-plate-ocr", "--out", tmp_path / "b")
    assert code == 3 and said.endswith(f"; 2 set aside, see {tmp_path / 'b' / 'set_aside.csv'}\n")
    assert command(canonical, "--to", "paddleocr", "--out", tmp_path / "a") == (
        2,
        f"Error: {tmp_path / 'a'}: holds files already: choose another --out, or remove it first\n",
    )
    code, said = command(canonical, "--to", "padleocr", "--out", tmp_path / "c")
    assert code == 2 and "padleocr: no such format (did you mean paddleocr?); there are fast-plate-ocr, " in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_an_empty_folder_is_filled(canonical, tmp_path):
    (tmp_path / "there").mkdir()
    export(canonical, "paddleocr", tmp_path / "there")
    assert read_paddleocr(tmp_path / "there") == expected("paddleocr")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_rows_that_are_no_example_are_set_aside(tmp_path):
    made = rows({"A1": "", "B2": "", "C3": "", "D4": "", "E5": "", "F6": "", "G7": ""})
    made[0]["text"] = None
    made[1]["text"] = "B2\tX"
    made[2]["image"] = {"bytes": b"no picture", "path": None}
    made[3]["image"] = {"bytes": None, "path": None}
    made[4]["split"] = "../../up"
    made[5]["image"] = {"bytes": None, "path": "not-there.jpg"}
    for row in made:
        del row["slots"]
    done = export(parquet_of(tmp_path / "a.parquet", made), "paddleocr", tmp_path / "export")
    listed = [*csv.DictReader((tmp_path / "export/set_aside.csv").open())]
    reasons = [
        "no label",
        "characters that no plate has",
        "not a picture",
        "holds no picture",
        "'../../up' is not a word",
    ]
    reasons.append("no such file")
    assert done.set_aside == 6 and done.plates == {"train": 1}
    assert all(reason in row["reason"] for reason, row in zip(reasons, listed))
    assert (tmp_path / "export/rec_gt_train.txt").read_text() == "train/0000/000000001.jpg\tG7\n"


def test_names_of_pictures_elsewhere_do_not_leave(tmp_path):
    """A column of file names is none that a format has: it would be taken for that of the exported pictures."""
    made = [row | {"filename": f"/home/me/{row['text']}.jpg", "note": "dusk"} for row in rows({"AB12": "", "CD34": ""})]
    path = parquet_of(tmp_path / "a.parquet", made, filename=pa.string(), note=pa.string())
    for form in ("imagefolder", "yolo", "mds", "paddleocr"):
        export(path, form, tmp_path / form)
        written = b"".join(file.read_bytes() for file in (tmp_path / form).rglob("*.*"))
        assert b"/home/me" not in written and b"dusk" in written
        assert len(read_corpus(tmp_path / form).labels) == 2


def test_where_no_row_fits_nothing_is_written(tmp_path):
    path = parquet_of(tmp_path / "a.parquet", rows({"AB12": "", "CD34": ""}))
    with pytest.raises(PlatemintError, match="no row can be exported to ccpd; the first: CCPD has no name for AB12"):
        export(path, "ccpd", tmp_path / "export")
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_a_damaged_shard_leaves_nothing(canonical, tmp_path):
    data = bytearray(canonical.read_bytes())
    at = data.index(rows()[-1]["image"]["bytes"][20:60])
    data[at : at + 30] = bytes(30)
    (tmp_path / "a.parquet").write_bytes(data)
    for form in ("lmdb", "mds", "imagefolder"):
        with pytest.raises(PlatemintError, match=r"a\.parquet: not a whole Parquet file"):
            export(tmp_path / "a.parquet", form, tmp_path / "export")
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_what_is_no_parquet_of_plates_is_refused(tmp_path):
    for name, said in (("empty", "no run and no Parquet here"), ("a.parquet", "needs a column of pictures")):
        if name == "empty":
            (tmp_path / name).mkdir()
        else:
            pq.write_table(pa.table({"text": ["A1"], "number": [1]}), tmp_path / name)
        code, message = command(tmp_path / name, "--to", "lmdb", "--out", tmp_path / "export")
        assert code == 2 and said in message


KILLED = """
import os, signal, sys
from platemint.pipeline.exports import export, plates

labelled, left = plates._labelled, iter(range(9))
def dies(*row):
    if next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return labelled(*row)
plates._labelled = dies
export(*sys.argv[1:])
"""


@pytest.mark.parametrize("form", ["lmdb", "webdataset", "yolo"])
def test_a_killed_export_leaves_no_folder_and_is_made_again(canonical, tmp_path, form):
    if form == "webdataset":
        pytest.importorskip("webdataset")
    program = [sys.executable, "-c", KILLED, canonical, form, tmp_path / "export"]
    assert subprocess.run(program, env=os.environ).returncode == -signal.SIGKILL
    assert not (tmp_path / "export").exists() and [*tmp_path.iterdir()]
    export(canonical, form, tmp_path / "export")
    assert READERS[form](tmp_path / "export") == expected(form)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("form", ["lmdb", "webdataset", "mds", "imagefolder"])
def test_a_full_disk_is_told_and_leaves_nothing(mounted, tmp_path, form):
    if form == "webdataset":
        pytest.importorskip("webdataset")
    many = parquet_of(tmp_path / "a.parquet", [row | {"index": i} for i in range(20) for row in rows()])
    disk = mounted("size=1m")
    with pytest.raises(Failure, match="make room"):
        export(many, form, disk / "export")
    assert [*disk.iterdir()] == []


def test_two_processes_do_not_write_one_folder(canonical, tmp_path):
    waits = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "print('begun', flush=True), sys.stdin.read()")
    program = [sys.executable, "-c", waits, canonical, "paddleocr", tmp_path / "export"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"begun\n"
        with pytest.raises(Failure, match=f"is being written by process {first.pid} on"):
            export(canonical, "paddleocr", tmp_path / "export")
        first.stdin.close()
        first.wait(60)
    assert read_paddleocr(tmp_path / "export") == expected("paddleocr")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def _hasty(total, stream, things):
    count = Count(total, stream, things)
    count.bar.delay, count.bar.mininterval = 0, 0
    return count


def test_progress_is_told(canonical, tmp_path, monkeypatch):
    monkeypatch.setattr("platemint.pipeline.exports.Count", _hasty)
    told = io.StringIO()
    export(canonical, "lmdb", tmp_path / "export", told)
    assert "13 of 13 plates" in told.getvalue() and "left" in told.getvalue()


def test_an_earlier_export_in_the_way_of_a_larger_run_is_told_before_it(tmp_path):
    made = recipe(tmp_path / "mine", 60, write={"also": ["lmdb"], "shard_rows": 25})
    run.generate(made, stages=Lucky(made))
    before = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    more = recipe(tmp_path / "mine", 90, write={"also": ["lmdb"], "shard_rows": 25})
    for asked in ({"extend": True}, {"overwrite": True}):
        with pytest.raises(PlatemintError, match="mine-lmdb: is an export of another state .*: remove it or move it"):
            run.generate(more, stages=Lucky(more), **asked)
        assert {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()} == before
    shutil.rmtree(tmp_path / "mine-lmdb")
    assert sum(run.generate(more, stages=Lucky(more), extend=True).exported[0].plates.values()) == 90


def test_the_country_of_a_layout_of_any_source_is_known(tmp_path):
    layout = (FOLDER / "nl-2008.yaml").read_text().replace("country: NL", "country: XX")
    assert "country: XX" in layout
    (tmp_path / "mine.yaml").write_text(layout)
    rows = {"image": [picture(0, "PNG")], "text": ["AB1"], "layout": ["mine"]}
    for said in (
        {"source": {"layouts": [str(tmp_path / "mine.yaml")]}},
        {"sources": [{"layout": str(tmp_path / "mine.yaml")}]},
    ):
        run_ = tmp_path / str(len(said) + len(next(iter(said))))
        (run_ / "data").mkdir(parents=True)
        pq.write_table(pa.table(rows), run_ / "data" / "train-0.parquet")
        (run_ / "plan.json").write_text("{}")
        (run_ / "manifest.json").write_text(json.dumps({"files": [{"path": "data/train-0.parquet"}]}))
        (run_ / "recipe.yaml").write_text(json.dumps(said))
        assert ExportedPlates(run_).regions() == {"mine": "XX"}


def test_tables_for_people_hold_no_formulas_and_those_for_programs_their_bytes(tmp_path):
    formulas = ["=1+1", "+A1", "-B2+3", "@SUM(A1)", "\tx", "＝1"]
    shown = list(
        csv.DictReader(io.StringIO(rows_as_csv([{"a": f, "b": n} for f in formulas for n in (-1.5, "-2")], "ab")))
    )
    assert {row["a"] for row in shown} == {f"'{f}" for f in formulas} and {row["b"] for row in shown} == {"-1.5", "-2"}
    pictures, texts = [picture(0, "PNG")] * 3 + [b"no picture"], ["-A1", "=AB2", "+C3", "D4"]
    pq.write_table(pa.table({"image": pictures, "text": texts, "note": formulas[:4]}), tmp_path / "-a.parquet")
    export(tmp_path / "-a.parquet", "fast-plate-ocr", tmp_path / "out")
    labels = pd.read_csv(tmp_path / "out/train/annotations.csv", dtype=str, keep_default_na=False)
    assert [*labels["plate_text"]] == texts[:3], "what trainers read"
    scores = pd.read_csv(tmp_path / "out/scores.csv", dtype=str, keep_default_na=False)
    assert [*scores["note"]] == [f"'{f}" for f in formulas[:3]]
    assert pd.read_csv(tmp_path / "out/set_aside.csv")["path"].tolist() == ["'-a.parquet"]
