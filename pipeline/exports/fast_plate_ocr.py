"""fast-plate-ocr: for each split a folder with annotations.csv and pictures, and one plate_config.yaml.

Its reader is pandas with the usual words for missing values: a plate that reads so would count as "no plate".
https://github.com/ankandrew/fast-plate-ocr
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from platemint.pipeline.exports.files import lines_per_split, write_file
from platemint.pipeline.exports.plates import ExportedPlates, Labelled

MISSING = ("", "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null")
PADS = "_~^"  # the first that no text holds pads them
UNKNOWN = "Unknown"  # region of a plate without a layout
HEIGHT, WIDTH = 64, 128  # pixels, as its own models have them


@contextmanager
def writer(plates: ExportedPlates, folder: Path) -> Iterator[Callable[[Labelled], str]]:
    regions = {layout: _region(country) for layout, country in plates.regions().items()}
    write_file(folder / "plate_config.yaml", _config(plates, regions))
    columns = ["image_path", "plate_text"] + ["plate_region"] * bool(regions)
    with lines_per_split(folder, "{split}/annotations.csv") as annotations:

        def add(plate: Labelled) -> str:
            if plate.text in MISSING:
                raise ValueError(f"fast-plate-ocr takes the text {plate.text} for a missing one")
            rows = csv.writer(annotations[plate.split], lineterminator="\n")
            if not annotations[plate.split].tell():
                rows.writerow(columns)
            rows.writerow([f"images/{plate.name}", plate.text, regions.get(plate.layout, UNKNOWN)][: len(columns)])
            write_file(folder / plate.split / "images" / plate.name, plate.data)
            return f"{plate.split}/images/{plate.name}"

        yield add


def _region(country: str) -> str:
    """NA, for Namibia, would be missing."""
    return country.lower() if country in MISSING else country


def _config(plates: ExportedPlates, regions: dict[str, str]) -> str:
    pad = next(c for c in PADS if c not in plates.alphabet)
    config = {
        "max_plate_slots": plates.longest,
        "alphabet": plates.alphabet + pad,
        "pad_char": pad,
        "img_height": HEIGHT,
        "img_width": WIDTH,
        "keep_aspect_ratio": False,
        "interpolation": "linear",
        "image_color_mode": "rgb",
    }
    if regions:
        unknown = [UNKNOWN] * bool(plates.layouts - {*regions})
        config["plate_regions"] = sorted({*regions.values()}) + unknown
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
