"""PaddleOCR's recognition: rec_gt_SPLIT.txt of `path<TAB>text` lines, pictures below, and dict.txt of the characters.

The blank is no line of dict.txt: a config has `use_space_char: true` for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from platemint.pipeline.exports.files import lines_per_split, write_file
from platemint.pipeline.exports.plates import ExportedPlates, Labelled


@contextmanager
def writer(plates: ExportedPlates, folder: Path) -> Iterator[Callable[[Labelled], str]]:
    write_file(folder / "dict.txt", "".join(f"{c}\n" for c in plates.characters if c != " "))
    with lines_per_split(folder, "rec_gt_{split}.txt") as labels:

        def add(plate: Labelled) -> str:
            name = f"{plate.split}/{plate.name}"
            labels[plate.split].write(f"{name}\t{plate.text}\n")
            write_file(folder / name, plate.data)
            return name

        yield add
