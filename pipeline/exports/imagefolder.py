"""Hugging Face's imagefolder: for each split a folder of pictures and metadata.jsonl, which keeps NULL and 0012."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from platemint.pipeline.exports.files import lines_per_split, write_file
from platemint.pipeline.exports.plates import ExportedPlates, Labelled


@contextmanager
def writer(plates: ExportedPlates, folder: Path) -> Iterator[Callable[[Labelled], str]]:
    with lines_per_split(folder, "{split}/metadata.jsonl") as metadata:

        def add(plate: Labelled) -> str:
            row = plate.fields | {"file_name": plate.name, "text": plate.text}
            metadata[plate.split].write(json.dumps(row, ensure_ascii=False) + "\n")
            write_file(folder / plate.split / plate.name, plate.data)
            return ""

        yield add
