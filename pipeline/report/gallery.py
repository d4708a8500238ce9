"""Small pictures of plates for a page, as many as a file of a few megabytes holds: of a run source, mask and result."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from platemint.pipeline.corpora import Corpus
from platemint.pipeline.corpora.datasets import Annotation
from platemint.pipeline.corpora.pixels import read_plate
from platemint.pipeline.corpora.rectify import views_of
from platemint.pipeline.plate import Plate
from platemint.pipeline.storage import decode

HEIGHTS = (132, 88, 44)  # pixels of a small picture: the tallest with which all plates fit
WIDTHS = 144 / 44  # of a picture at most, in its heights
BYTES = {
    132: 3_300,
    88: 2_400,
    44: 0,
}  # of one as base64 with its part of the plate's row, measured on real and rendered plates
QUALITY = 55  # of its WebP
LAYERS = 3  # of a run's plate: source, mask and result
MOST_NEW = 600  # plates of an anonymized dataset; each may have a picture of its own, which is decoded for it
UNSPELLED = 3  # characters of base64 in a row on its page: no plate that is searched for is so short
MOST_BYTES = 9_000_000  # of all plates as JSON, pictures in base64; the page with all else shall stay below 10 MB
DROPPED_SHARE = 0.25  # of these bytes, for dropped plates: there are fewer of them, and one wants to see why

SourceOf = Callable[[Mapping], "Plate | None"]  # the photograph or rendering that a row's plate was made from


@dataclass(frozen=True)
class Gallery:
    """Plates that a page shows.

    plates: the columns of a row without its pictures; `was`, the text of its source where that is shown; and `images`:
    base64 WebP of source, mask and result, "" for one that is not there. total: the run's plates, shown or not.
    """

    plates: list[dict]
    total: int


def gallery(folder: Path, source_of: SourceOf | None = None, seed: int = 0) -> Gallery:
    """Plates of a run, accepted and dropped, drawn evenly over it until they fill `MOST_BYTES`.

    source_of: gives the plate that a row's was made from, or None; without it none is shown. Plates of origin real are
    not shown: they are photographs of the corpus.
    """
    accepted, dropped = (sorted(folder.glob(f"{name}/*.parquet")) for name in ("data", "dropped"))
    count = sum(_rows_in(file) for file in [*accepted, *dropped])
    height = _height(count * LAYERS)
    few = _pictures(dropped, int(DROPPED_SHARE * MOST_BYTES), source_of, height, seed)
    plates = few + _pictures(accepted, MOST_BYTES - sum(map(_size, few)), source_of, height, seed)
    return Gallery(sorted(plates, key=lambda plate: (plate["index"], plate["round"])), count)


def corpus_gallery(corpus: Corpus, seed: int = 0) -> Gallery:
    """Plates of a corpus in random order, until they fill `MOST_BYTES`; pictures that fail are left out."""
    shown, left, height = [], MOST_BYTES, _height(len(corpus.labels))
    for number in np.random.default_rng(seed).permutation(len(corpus.labels)):
        label = corpus.labels[number]
        try:
            images = ["", "", _small(read_plate(label)[0], height)]
        except (OSError, ValueError):  # a run sets it aside
            continue
        plate = {"text": label.text, "layout": "", "split": label.split, "images": images, "index": int(number)}
        left -= _size(plate)
        if left < 0:
            break
        shown.append(plate)
    return Gallery(sorted(shown, key=lambda plate: plate["index"]), len(corpus.labels))


@dataclass(frozen=True)
class NewPlate:
    """A plate of a picture that anonymize has written. annotations: of the picture; place: the plate's among them.

    text: the new one, "" where it was made unreadable. reason: why it was, else "". scores: {name: 0..1}.
    """

    file: Path
    annotations: tuple[Annotation, ...]
    place: int
    text: str
    reason: str
    scores: dict[str, float]


def anonymized_gallery(plates: Sequence[NewPlate], seed: int = 0) -> Gallery:
    """At most `MOST_NEW` plates, drawn evenly, cut out of the pictures as they are written; half of them unreadable ones.

    Their base64 is in pieces, so that it spells no plate by chance.
    """
    order = np.random.default_rng(seed).permutation(len(plates)).tolist()
    given_up = [i for i in order if plates[i].reason]
    replaced = [i for i in order if not plates[i].reason]
    fewer = given_up[: max(MOST_NEW // 2, MOST_NEW - len(replaced))]
    chosen = {*(fewer + replaced)[:MOST_NEW]}
    height = _height(len(chosen))
    by_file: dict[Path, list[NewPlate]] = {}
    for plate in (plates[i] for i in order if i in chosen):  # both kinds mixed, as they are in the output
        by_file.setdefault(plate.file, []).append(plate)
    return Gallery([shown for file, some in by_file.items() for shown in _new_plates(file, some, height)], len(plates))


def _new_plates(file: Path, plates: list[NewPlate], height: int) -> Iterator[dict]:
    pixels = decode(file.read_bytes())
    views = views_of(plates[0].annotations, pixels)
    for plate in plates:
        image = _small(views[plate.place].cut(pixels), height)
        pieces = ":".join(image[i : i + UNSPELLED] for i in range(0, len(image), UNSPELLED))
        scores = {f"score_{name}": score for name, score in plate.scores.items()}
        yield {
            "text": plate.text,
            "reason": plate.reason,
            "layout": "",
            "split": "",
            "images": ["", "", pieces],
            **scores,
        }


def _rows_in(file: Path) -> int:
    return pq.ParquetFile(file).metadata.num_rows


def _height(pictures: int) -> int:
    """How tall so many pictures may be to fit into `MOST_BYTES`."""
    return next(height for height in HEIGHTS if pictures * BYTES[height] <= MOST_BYTES or height == HEIGHTS[-1])


def _pictures(files: Sequence[Path], budget: int, source_of: SourceOf | None, height: int, seed: int) -> list[dict]:
    """Plates of row groups in random order, until the budget is spent."""
    groups = [(file, k) for file in files for k in range(pq.ParquetFile(file).num_row_groups)]
    order = np.random.default_rng(seed).permutation(len(groups))
    shown, left = [], budget
    for row in _rows(groups[i] for i in order):
        source = source_of(row) if source_of else None
        images = [_small(picture, height) for picture in _layers(row, source)]
        plate = {k: v for k, v in row.items() if k not in ("image", "mask")} | {"images": images}
        if source:
            plate["was"] = source.text
        left -= _size(plate)
        if left < 0:
            break
        shown.append(plate)
    return shown


def _size(plate: dict) -> int:
    """Bytes that a plate takes on a page, at most."""
    return len(json.dumps(plate, default=str))


def _rows(groups: Iterator[tuple[Path, int]]) -> Iterator[dict]:
    for file, number in groups:
        for row in pq.ParquetFile(file).read_row_group(number).to_pylist():
            if row.get("image") and row.get("origin") != "real":
                yield row


def _layers(row: Mapping, source: Plate | None) -> Iterator[np.ndarray | None]:
    """Source, mask and result of a row."""
    yield source.image if source else None
    yield decode(row["mask"]["bytes"]) if row.get("mask") else None
    yield decode(row["image"]["bytes"])


def _small(picture: np.ndarray | None, tallest: int) -> str:
    """base64 of a WebP of a picture, made smaller where it is taller or wider than a page holds it; "" for no picture."""
    if picture is None:
        return ""
    height, width = picture.shape[:2]
    scale = min(tallest / height, WIDTHS * tallest / width)
    if scale < 1:
        size = max(1, round(scale * width)), max(1, round(scale * height))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "webp", quality=QUALITY, method=2)
    return base64.b64encode(data.getvalue()).decode()
