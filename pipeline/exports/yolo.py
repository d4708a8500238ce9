"""YOLO: images/SPLIT and labels/SPLIT, with data.yaml.

Where rows have slots, each character has a box and a class, and the plate around them another. Without slots there is the
plate's box alone; the texts, which YOLO has no place for, are in labels.csv then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml

from platemint.pipeline.corpora.formats.yolo_characters import Character, in_reading_order
from platemint.pipeline.corpora.records import box
from platemint.pipeline.exports.files import table, write_file
from platemint.pipeline.exports.plates import ExportedPlates, Labelled
from platemint.pipeline.plate import SEPARATORS, characters

PLATE = "license_plate"
WHOLE = (0.5, 0.5, 1.0, 1.0)  # of the picture: middle, width and height


@contextmanager
def writer(plates: ExportedPlates, folder: Path) -> Iterator[Callable[[Labelled], str]]:
    names = [PLATE, *characters(plates.alphabet)] if plates.with_slots else [PLATE]
    splits = {split: f"images/{split}" for split in plates.counts}
    settings = {**splits, "names": dict(enumerate(names))}
    write_file(folder / "data.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    with table(folder / "labels.csv", dict.fromkeys(["path", "text", *plates.columns])) as texts:

        def add(plate: Labelled) -> str:
            boxes = [(PLATE, WHOLE), *(yolo_boxes(plate) if plates.with_slots else ())]
            lines = (f"{names.index(name)} {' '.join(f'{value:.6f}' for value in where)}\n" for name, where in boxes)
            stem = plate.name.removesuffix(plate.suffix)
            write_file(folder / "labels" / plate.split / f"{stem}.txt", "".join(lines))
            write_file(folder / "images" / plate.split / plate.name, plate.data)
            name = f"images/{plate.split}/{plate.name}"
            if plates.with_slots:
                return name
            texts.writerow(plate.fields | {"path": name, "text": plate.text})
            return ""

        yield add


def yolo_boxes(plate: Labelled) -> list[tuple[str, tuple[float, ...]]]:
    """(character, (x, y of its middle, width, height in parts of the picture)) of each but separators.

    Raises ValueError where a row has no slots, and where its boxes do not read as its text.
    """
    if plate.slots is None:
        raise ValueError("the row has no slots, which other rows have: its characters would be taken for background")
    middle, reach = plate.slots[:, 0], np.abs(plate.slots[:, 1:]).sum(1)
    low, high = np.clip(middle - reach, 0, 1), np.clip(middle + reach, 0, 1)
    found = [
        Character(row, c, box(*(np.array([*low[row], *high[row]]) * (plate.size * 2)).tolist()))
        for row, c in enumerate(plate.text)
        if c not in SEPARATORS
    ]
    if [character.row for character in in_reading_order(found)] != [character.row for character in found]:
        raise ValueError("the boxes of its characters do not read as its text")
    sides = np.concatenate([(low + high) / 2, high - low], 1)
    return [(character.text, tuple(sides[character.row].tolist())) for character in found]
