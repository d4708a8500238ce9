"""Rows and the Parquet shards that hold them: `datasets.load_dataset("parquet")` decodes them without help."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from platemint.pipeline.plate import Failure, Plate
from platemint.pipeline.recipe import GenerateRecipe

TEMPORARY = ".part"  # a file under this suffix is not there yet: a killed process may leave one behind
ROW_GROUP = 100  # rows: what the dataset viewer fetches for one page of small pictures
SUFFIX = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}
# IPTC digital source types: a network repainted part of a photograph, or the whole picture is synthetic.
_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
EDITED_PHOTOGRAPH = _IPTC + "compositeWithTrainedAlgorithmicMedia"
SYNTHETIC = _IPTC + "trainedAlgorithmicMedia"
PHOTOGRAPH = _IPTC + "digitalCapture"
AS_IT_IS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}  # files that readers of shards know
_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encode(image: np.ndarray, format: str, quality: int) -> bytes:
    """A picture file without metadata. image: uint8 (H, W, 3) RGB or (H, W); format: jpeg, png or webp; quality 1..100.

    Colour is kept at full resolution in JPEG: strokes on a plate are thin and often differ from it in colour alone.
    Sides are at most those of `pipeline.sample.read_picture`, which every format holds.
    """
    settings = {
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality,
                 cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
        "png": [],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
    }  # fmt: skip
    pixels = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image
    return cv2.imencode(SUFFIX[format], pixels, settings[format])[1].tobytes()


def row(plate: Plate, recipe: GenerateRecipe) -> dict:
    """The row of an accepted plate, or of a rejected one (`plate.reason` set)."""
    rejected = bool(plate.reason)
    stem = f"{plate.split}-{plate.index:09d}" + (f"-{plate.round}" if rejected else "")
    pictures = {}
    if not rejected or recipe.write.dropped_pixels:
        data = encode(plate.image, recipe.write.format, recipe.write.quality)
        pictures["image"] = {"bytes": data, "path": stem + SUFFIX[recipe.write.format]}
        if recipe.write.masks:
            pictures["mask"] = {"bytes": encode(plate.target_mask, "png", 0), "path": stem + "-mask.png"}
    return {
        **pictures,
        "text": plate.text,
        "layout": plate.layout,
        "split": plate.split,
        "source": plate.source,
        "index": plate.index,
        "round": plate.round,
        "reading": plate.reading,
        "reason": plate.reason,
        "origin": "synthetic",
        "digital_source_type": EDITED_PHOTOGRAPH if recipe.source.path else SYNTHETIC,
        **{f"score_{name}": plate.scores[name] for name in scores(recipe)},
    }


def real_row(plate: Plate, path: Path, recipe: GenerateRecipe) -> dict:
    """The row of a corpus's own plate: the very bytes of its file, where readers of shards know its format."""
    with Image.open(path) as picture:  # whatever its name says
        suffix = AS_IT_IS.get(picture.format)
    data = path.read_bytes() if suffix else encode(plate.image, "png", 0)
    name = f"{plate.split}-real-{plate.index:09d}{suffix or '.png'}"
    return {
        "image": {"bytes": data, "path": name},
        "text": plate.text,
        "layout": plate.layout,
        "split": plate.split,
        "source": plate.source,
        "index": plate.index,
        "round": 0,
        "reading": "",
        "origin": "real",
        "digital_source_type": PHOTOGRAPH,
    }


def schema(recipe: GenerateRecipe, dropped: bool = False) -> pa.Schema:
    """Columns of a run's shards, the same in every shard of the run (also in an empty one)."""
    pictures = ["image"] + ["mask"] * recipe.write.masks
    fields = {
        **({} if dropped and not recipe.write.dropped_pixels else dict.fromkeys(pictures, _PICTURE)),
        **dict.fromkeys(("text", "layout", "split", "source"), pa.string()),
        "index": pa.int64(),
        "round": pa.int32(),
        "reading": pa.string(),
        **({"reason": pa.string()} if dropped else {}),
        "origin": pa.string(),
        **{f"score_{name}": pa.float32() for name in scores(recipe)},
        "digital_source_type": pa.string(),
    }
    features = {name: _feature(kind) for name, kind in fields.items()}
    return pa.schema(fields.items(), {"huggingface": json.dumps({"info": {"features": features}})})


def scores(recipe: GenerateRecipe) -> list[str]:
    """Names of the stored scores: every score has a threshold in the recipe's filter section, `min_` or `max_` NAME."""
    return [name[4:] for name in type(recipe.filter).model_fields if name.startswith(("min_", "max_"))]


def _feature(kind: pa.DataType) -> dict[str, str]:
    if kind == _PICTURE:
        return {"_type": "Image"}
    return {"dtype": {pa.float32(): "float32"}.get(kind, str(kind)), "_type": "Value"}


def parquet(rows: Sequence[dict], schema: pa.Schema) -> bytes:
    """A Parquet file of the rows: checksummed pages, `ROW_GROUP` rows a group. Equal rows give equal bytes."""
    sink = pa.BufferOutputStream()
    repeated = ["layout", "split", "reason", "origin", "digital_source_type"]
    pq.write_table(
        pa.Table.from_pylist(list(rows), schema=schema), sink, row_group_size=ROW_GROUP, write_page_checksum=True,
        write_page_index=True, use_dictionary=[name for name in repeated if name in schema.names],
    )  # fmt: skip
    return sink.getvalue().to_pybytes()


def table(rows: Sequence[dict], columns: Iterable[str]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def sha256(data: bytes | str) -> str:
    """Hexadecimal sha256, of text as UTF-8."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def replace(path: Path, data: bytes | str, private: bool = False) -> None:
    """Writes a file so that at any moment it is whole, absent, or still the old one, power cuts included.

    private: nobody else may read it (POSIX), nor a file that somebody has put in its way.
    Raises Failure, and leaves nothing half written, when the disk is full or the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb", opener=_private) if private else open(part, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync(path.parent)
    except OSError as error:
        raise Failure(
            f"{path}: cannot be written ({error.strerror or error}): make room or make the folder writable, and run "
            "the same command again; or choose another --out"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _sync(folder: Path) -> None:
    """A rename survives a power cut only once its folder is on disk (Windows does that by itself)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
