"""The plates that are exported: rows of a run's shards, or of other Parquet, read one after the other."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from platemint.pipeline.corpora import containers
from platemint.pipeline.corpora.formats import parquet
from platemint.pipeline.corpora.labels import SPLIT, split_named, standard_split, unused
from platemint.pipeline.parsing import parse_yaml
from platemint.pipeline.plate import DIGITS, LETTERS, PlatemintError
from platemint.pipeline.render.layout import load_layouts
from platemint.pipeline.storage import MOST_PIXELS, open_image, read_json, sha256
from platemint.pipeline.write import SLOT

if TYPE_CHECKING:
    from platemint.pipeline.render.layout import Layout

SUFFIX = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
IN_FOLDER = 10_000  # pictures: file systems and their tools are slow with many more


@dataclass(frozen=True, slots=True)
class Labelled:
    """One plate as it is exported.

    number: from 1, in its split. data: the bytes of its picture file, size its width and height in pixels, suffix the
    one that its format has. slots: float32 (characters of the text, 3, 2), see `pipeline.plate.Plate`; None where the
    row has none. fields: the row's other columns of texts and numbers, scores among them.
    """

    number: int
    split: str
    text: str
    data: bytes
    size: tuple[int, int]
    suffix: str
    slots: np.ndarray | None
    fields: dict[str, Any]

    @property
    def name(self) -> str:
        """Of its picture file, below a folder of its split's pictures."""
        return f"{(self.number - 1) // IN_FOLDER:04d}/{self.number:09d}{self.suffix}"

    @property
    def layout(self) -> str:
        return str(self.fields.get("layout") or "")


class ExportedPlates:
    """All plates of a run's folder, of a Parquet file, or of a folder of them: iterated over, they are read anew.

    counts: rows of each split. Of all texts: characters, every character in use, in order; longest, how many a text has.
    layouts: names of layouts in use. columns: of the fields, in order. with_slots: whether any row has slots.
    set_aside: {"path": file, "row": number from 0, "reason"} of rows that cannot be exported, as far as they were read.
    fingerprint: changes with the rows.
    """

    def __init__(self, path: Path):
        """Looks through the texts, and at no picture. Raises PlatemintError where there is nothing to export."""
        self.path = path
        self.root = self.path if self.path.is_dir() else self.path.parent
        self.files = (
            self._finished() if parquet.is_run(self.root) else containers.find_containers(self.path).get("parquet", [])
        )
        if not self.files:
            raise PlatemintError(
                f"{self.path}: no run and no Parquet here: give a run's folder, or Parquet with pictures"
            )
        self.set_aside: list[dict[str, str]] = []
        self._look_through()
        self.fingerprint = sha256("\n".join(f"{file.name} {file.stat().st_size}" for file in self.files))
        if parquet.is_run(self.root):
            self.fingerprint = sha256((self.root / "manifest.json").read_bytes())

    def _look_through(self) -> None:
        self.counts: Counter = Counter()
        self.layouts: set[str] = set()
        self.longest, self.with_slots = 0, False
        columns: dict[str, None] = {}
        characters: set[str] = set()
        for file in self.files:
            for row in parquet.rows(file, pictures=False):
                columns |= dict.fromkeys(row.fields)
                self.with_slots |= row.slots is not None
                with suppress(ValueError):
                    text = _text(row, split := self._split(row, file))
                    self.counts[split] += 1
                    characters.update(text)
                    self.longest = max(self.longest, len(text))
                    self.layouts.add(str(row.fields.get("layout") or ""))
        self.columns = ["split", *(name for name in columns if name != "split")]
        self.characters = "".join(sorted(characters))

    def __iter__(self) -> Iterator[Labelled]:
        """Every plate, in the order of files and rows. What cannot be exported is set aside."""
        numbers: Counter = Counter()
        self.set_aside.clear()
        for file in self.files:
            for number, row in enumerate(parquet.rows(file)):
                self._at, split = (file, number), self._split(row, file)
                try:
                    plate = _labelled(row, split, numbers[split] + 1)
                except ValueError as fault:
                    self.put_aside(str(fault))
                else:
                    numbers[split] += 1
                    yield plate

    def put_aside(self, reason: str) -> None:
        """Notes why the plate that was given last is not exported."""
        file, number = self._at
        self.set_aside.append(unused(file.relative_to(self.root).as_posix(), str(number), reason))

    @property
    def alphabet(self) -> str:
        """Digits, letters, and every other character in use: of two exports nearly always the same."""
        return DIGITS + LETTERS + "".join(c for c in self.characters if c not in DIGITS + LETTERS)

    def regions(self) -> dict[str, str]:
        """The country of each layout that is known, by its name."""
        return {name: layout.country for name, layout in self._known_layouts().items() if name in self.layouts}

    def _known_layouts(self) -> dict[str, Layout]:
        """The layouts that ship, and those files that the run was given, as far as they are still there."""
        recipe = self.root / "recipe.yaml"
        said = parse_yaml(recipe.read_text(encoding="utf8")) or {} if recipe.exists() else {}
        sources = [said.get("source") or {}, *(said.get("sources") or ())]
        known = load_layouts()
        for name in [
            name for source in sources for name in (*(source.get("layouts") or ()), source.get("layout") or "")
        ]:
            if name and name not in known and Path(name).is_file():
                known |= load_layouts([name])
        return known

    def _finished(self) -> list[Path]:
        """The shards of a run, in order. Raises PlatemintError where it has not ended."""
        if not (self.root / "manifest.json").exists():
            raise PlatemintError(f"{self.root}: the run is not finished: generate again to go on with it, then export")
        files = (file["path"] for file in read_json(self.root / "manifest.json")["files"])
        return [self.root / name for name in files if name.startswith("data/")]

    def _split(self, row: parquet.PictureRow, file: Path) -> str:
        of_file = split_named(file.relative_to(self.root).as_posix())
        return standard_split(row.split) or of_file or "train"


def _labelled(row: parquet.PictureRow, split: str, number: int) -> Labelled:
    """Raises ValueError with the reason where the row is no labelled picture."""
    text, data = _text(row, split), row.picture()
    image = open_image(io.BytesIO(data), MOST_PIXELS)
    slots = None
    if row.slots is not None:
        slots = np.array(row.slots, np.float32)
        if slots.size != SLOT * len(text):
            raise ValueError(f"{slots.size} numbers of slots are not {SLOT} for each of {len(text)} characters")
        slots = slots.reshape(-1, 3, 2)
    fields = row.fields | {"split": split}
    return Labelled(number, split, text, data, image.size, SUFFIX[image.format or ""], slots, fields)


def _text(row: parquet.PictureRow, split: str) -> str:
    """A row's text. Raises ValueError with the reason where the row has no use as an example."""
    if row.text is None or row.text == "":
        raise ValueError("no label")
    if not isinstance(row.text, str):
        raise ValueError(f"the label {row.text!r} is not text")
    if not row.text.isprintable() or row.text != row.text.strip():
        raise ValueError("the label holds blanks at its ends, or characters that no plate has")
    if not SPLIT.fullmatch(split):
        raise ValueError(f"the split {split!r} is not a word")
    return row.text
