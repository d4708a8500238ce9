"""Rows and the Parquet shards that hold them: `datasets.load_dataset("parquet")` decodes them without help."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from platemint.pipeline.corpora.containers import data_of
from platemint.pipeline.corpora.formats.parquet import SLOTS
from platemint.pipeline.corpora.labels import Label
from platemint.pipeline.plate import Plate
from platemint.pipeline.recipe import GenerateRecipe
from platemint.pipeline.storage import SUFFIX, encode

ROW_GROUP = 100  # rows: what the dataset viewer fetches for one page of small pictures
# IPTC digital source types: a network repainted part of a photograph, or the whole picture is synthetic.
_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
EDITED_PHOTOGRAPH = _IPTC + "compositeWithTrainedAlgorithmicMedia"
SYNTHETIC = _IPTC + "trainedAlgorithmicMedia"
PHOTOGRAPH = _IPTC + "digitalCapture"
AS_IT_IS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}  # files that readers of shards know
_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # begin one, in one spreadsheet or another
SAYS = {  # of each score, in a few words
    "stability": "how well the mask holds when cut higher or lower",
    "slots": "ink in each character's place and nowhere else",
    "mask_reader": "how probable the text is to the reader, from the mask alone (O, Q and 0, I and 1 count as one)",
    "reader": "how probable the text is to the reader, from the plate (O, Q and 0, I and 1 count as one)",
    "residue": "how probable the old text still is",
    "source_reader": "how probable the source's label is to the reader, from the source",
}
SLOT = 6  # numbers for each character, see `schema`
_NUMBERS = pa.list_(pa.field("element", pa.float32()))  # called as Parquet calls it, so that it is read as it is


def row(plate: Plate, recipe: GenerateRecipe) -> dict:
    """The row of an accepted plate, or of a rejected one (`plate.reason` set)."""
    rejected = bool(plate.reason)
    stem = f"{plate.split}-{plate.index:09d}" + (f"-{plate.round}" if rejected else "")
    pictures: dict[str, Any] = {}
    if not rejected or recipe.write.dropped_pixels:
        data = encode(plate.image, recipe.write.format, recipe.write.quality)
        pictures["image"] = {"bytes": data, "path": stem + SUFFIX[recipe.write.format]}
        if recipe.write.masks:
            pictures["mask"] = {"bytes": encode(plate.target_mask, "png", 0), "path": stem + "-mask.png"}
        if recipe.write.slots:
            pictures[SLOTS] = plate.slots.ravel().tolist()
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
        "digital_source_type": SYNTHETIC if plate.rendered else EDITED_PHOTOGRAPH,
        **{f"score_{name}": plate.scores[name] for name in scores(recipe)},
    }


def real_row(plate: Plate, label: Label, recipe: GenerateRecipe) -> dict:
    """The row of a corpus's own plate.

    The very bytes of its file, where it fills it and readers of shards know its format; else its pixels.
    """
    data = b"" if label.corners else data_of(label)
    suffix = _suffix(data) if data else None
    data = data if suffix else encode(plate.image, "png", 0)
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


def _suffix(data: bytes) -> str | None:
    """Of a picture file, whatever its name says; None where readers of shards may not know its format."""
    with Image.open(io.BytesIO(data)) as picture:
        return AS_IT_IS.get(picture.format)


def schema(recipe: GenerateRecipe, dropped: bool = False) -> pa.Schema:
    """Columns of a run's shards, the same in every shard of the run (also in an empty one).

    Slots are six numbers for each character of the text, in parts of the picture's width and height: x and y of its
    middle, of the way from there to the middle of its right edge, and of that to the middle of its lower edge.
    """
    pictures = dict.fromkeys(["image"] + ["mask"] * recipe.write.masks, _PICTURE)
    pictures |= {SLOTS: _NUMBERS} if recipe.write.slots else {}
    fields = {
        **({} if dropped and not recipe.write.dropped_pixels else pictures),
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


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == _PICTURE:
        return {"_type": "Image"}
    if kind == _NUMBERS:
        return {"_type": "Sequence", "feature": _feature(pa.float32())}
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


def rows_as_csv(rows: Iterable[Mapping[str, Any]], columns: Iterable[str], end: str = "\r\n") -> str:
    """Rows as CSV for people (see `csv_cells`). end: of a line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator=end)
    writer.writeheader()
    writer.writerows(map(csv_cells, rows))
    return text.getvalue()


def csv_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table that people open: ' stands before what a spreadsheet would take for a formula, and run.

    Numbers stay as they are. Tables that programs read (labels, names of pictures) are written to the byte instead.
    Source: OWASP, CSV Injection.
    """
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(FORMULAS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
