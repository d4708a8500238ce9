"""Shards: what goes in comes out, in the form others read, whole or not at all."""

import errno
import io
import json
import os
from dataclasses import replace

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stand_ins import recipe

from platemint.pipeline import storage, write
from platemint.pipeline.edit import Editor
from platemint.pipeline.filter import Filter
from platemint.pipeline.plate import Plate, PlatemintError
from platemint.pipeline.recipe import Limits
from platemint.pipeline.storage import LEAST_SIDE, MOST_SIDE


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("size", [(LEAST_SIDE, MOST_SIDE), (MOST_SIDE, LEAST_SIDE)])
def test_the_longest_sources_can_be_edited_judged_and_written(untrained, format, size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    (edited,) = Filter(Limits(), untrained)(Editor(untrained)([Plate(image, "ABC123", target="XYZ789")]))
    for pixels in (edited.image, edited.target_mask):
        assert cv2.imdecode(np.frombuffer(storage.encode(pixels, format, 95), np.uint8), -1).shape[:2] == size


def plate(rng, index=0, reason="", height=20, width=64):
    return Plate(
        rng.integers(0, 255, (height, width, 3), np.uint8), "京A·123", "china-blue", "5f", "val", index=index, round=1,
        target_mask=rng.integers(0, 255, (height, width), np.uint8), reading="京A123", reason=reason,
        rendered=True, scores={
            "stability": 0.1, "slots": 0.2, "mask_reader": 0.3, "reader": 0.4, "residue": 0.5, "source_reader": 0.6
        },
    )  # fmt: skip


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 90), st.integers(0, 99))
def test_png_and_masks_keep_every_pixel(height, width, seed):
    rng = np.random.default_rng(seed)
    made = plate(rng, height=height, width=width)
    row = write.row(made, recipe("x", write={"format": "png", "masks": True}))
    assert (pixels(row["image"]["bytes"]) == made.image).all()
    assert (pixels(row["mask"]["bytes"]) == made.target_mask).all()


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_quality_buys_likeness_and_colour_is_not_thinned(format):
    stripes = np.zeros((32, 64, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 0)  # red and black columns: gone where colour is stored at half resolution
    low, high = (pixels(storage.encode(stripes, format, quality)).astype(int) for quality in (30, 100))
    assert abs(high - stripes).mean() < abs(low - stripes).mean()
    if format == "jpeg":
        assert abs(high - stripes).mean() < 3


def test_a_shard_is_read_by_datasets_without_help(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")

    rng = np.random.default_rng(0)
    plates = [plate(rng, index) for index in range(230)]
    made = recipe("x", write={"format": "png", "masks": True})
    storage.write(tmp_path / "val-0.parquet", write.parquet([write.row(p, made) for p in plates], write.schema(made)))
    read = datasets.load_dataset(
        "parquet", data_files={"val": str(tmp_path / "val-0.parquet")}, cache_dir=str(tmp_path / "cache")
    )["val"]
    assert isinstance(read.features["image"], datasets.Image) and isinstance(read.features["mask"], datasets.Image)
    assert len(read) == 230
    for row, made in zip(read, plates):
        assert (np.asarray(row["image"]) == made.image).all()
        assert (np.asarray(row["mask"]) == made.target_mask).all()
        assert (row["text"], row["layout"], row["split"]) == ("京A·123", "china-blue", "val")
        assert (row["index"], row["round"], row["reading"]) == (made.index, 1, "京A123")
        assert row["score_residue"] == pytest.approx(0.5)
        assert row["digital_source_type"].endswith("/trainedAlgorithmicMedia")


def test_pandas_reads_texts_as_texts(tmp_path):
    """Also those that a table of text would turn into numbers or missing values."""
    import pandas

    rng, rows = np.random.default_rng(0), []
    for index, text in enumerate(("00123", "1E5", "NULL", "NA")):
        made = plate(rng, index)
        made.text = made.reading = text
        rows.append(write.row(made, recipe("x")))
    (tmp_path / "a.parquet").write_bytes(write.parquet(rows, write.schema(recipe("x"))))
    table = pandas.read_parquet(tmp_path / "a.parquet")
    assert table.text.tolist() == table.reading.tolist() == ["00123", "1E5", "NULL", "NA"]
    assert table["index"].tolist() == [0, 1, 2, 3] and table.score_reader.tolist() == pytest.approx([0.4] * 4)


def test_row_groups_are_small_and_pages_have_checksums():
    rng = np.random.default_rng(0)
    made = recipe("x")
    data = bytearray(write.parquet([write.row(plate(rng, k), made) for k in range(230)], write.schema(made)))
    shard = pq.ParquetFile(io.BytesIO(data))
    assert [shard.metadata.row_group(k).num_rows for k in range(shard.num_row_groups)] == [100, 100, 30]
    data[len(data) // 2] ^= 1  # inside a picture
    with pytest.raises(OSError, match="(?i)crc"):
        pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read()


def test_the_same_columns_in_every_shard_of_a_run():
    made = recipe("x")
    rows = [write.row(plate(np.random.default_rng(0)), made)]
    full, empty = (pq.ParquetFile(io.BytesIO(write.parquet(r, write.schema(made)))) for r in (rows, []))
    assert full.schema_arrow.equals(empty.schema_arrow, check_metadata=True)
    features = json.loads(full.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == full.schema_arrow.names


@pytest.mark.parametrize("pixels_too", [True, False])
def test_dropped_rows_hold_a_reason_and_pixels_only_where_asked(pixels_too):
    made = recipe("x", write={"masks": True, "dropped_pixels": pixels_too})
    row = write.row(plate(np.random.default_rng(0), reason="reader"), made)
    table = pq.read_table(io.BytesIO(write.parquet([row], write.schema(made, dropped=True))))
    assert table["reason"].to_pylist() == ["reader"]
    assert ("image" in table.column_names, "mask" in table.column_names) == (pixels_too, pixels_too)


def test_photographs_and_rendered_plates_are_declared_apart():
    rng = np.random.default_rng(0)
    photo = write.row(replace(plate(rng), rendered=False), recipe("x", source={"path": "somewhere"}))
    assert photo["digital_source_type"].endswith("/compositeWithTrainedAlgorithmicMedia")


def test_a_score_nobody_measured_is_not_written_as_a_blank():
    made = plate(np.random.default_rng(0))
    del made.scores["reader"]
    with pytest.raises(KeyError, match="reader"):
        write.row(made, recipe("x"))


def test_replace_keeps_the_old_file_when_the_disk_fills(tmp_path, monkeypatch):
    path = tmp_path / "shard"
    storage.write(path, b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PlatemintError, match=f"{path}: .*No space left"):
        storage.write(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["shard"]
