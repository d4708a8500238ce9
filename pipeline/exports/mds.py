"""MDS, MosaicML's streaming format: for each split a folder of shard.00000.mds and so on, with index.json.

Written here, from the format's description: the library (`mosaicml-streaming`) wants an older numpy, torchvision,
transformers and the clients of every cloud. A shard is the number of samples, where each begins and one more where the
last ends (uint32), a JSON object that says what columns there are, and the samples: the sizes of their columns (uint32),
then these in order of their names (https://docs.mosaicml.com/projects/streaming).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from platemint.pipeline.exports.files import PerSplit, write_file
from platemint.pipeline.exports.plates import ExportedPlates, Labelled

VERSION = 2
MOST_BYTES = 1 << 26  # of a shard, which is held in memory until it is written


@contextmanager
def writer(plates: ExportedPlates, folder: Path) -> Iterator[Callable[[Labelled], str]]:
    columns = dict.fromkeys(plates.columns, "json") | {"image": "bytes", "text": "str"}  # null is a value in JSON
    splits = PerSplit(lambda split: _Split(folder / split, dict(sorted(columns.items()))))

    def add(plate: Labelled) -> str:
        fields = {name: json.dumps(plate.fields.get(name), ensure_ascii=False).encode() for name in plates.columns}
        splits[plate.split].add(fields | {"image": plate.data, "text": plate.text.encode()})
        return ""

    yield add
    for split in splits.values():
        split.finish()


class _Split:
    """The shards of a split. columns: encodings by name, sorted."""

    def __init__(self, folder: Path, columns: dict[str, str]):
        self.folder, self.columns = folder, columns
        self.facts = {
            "version": VERSION, "format": "mds", "compression": None, "hashes": [], "size_limit": MOST_BYTES,
            "column_names": [*columns], "column_encodings": [*columns.values()], "column_sizes": [None] * len(columns),
        }  # fmt: skip
        self.head = json.dumps(self.facts, sort_keys=True).encode()
        self.shards: list[dict] = []
        self.samples: list[bytes] = []
        self.size = 0

    def add(self, values: dict[str, bytes]) -> None:
        parts = [values[name] for name in self.columns]
        sample = np.array([*map(len, parts)], "<u4").tobytes() + b"".join(parts)
        if self.samples and self.size + len(sample) > MOST_BYTES:
            self._write()
        self.samples.append(sample)
        self.size += len(sample)

    def finish(self) -> None:
        """Writes the last shard, and the index of all."""
        self._write()
        index = {"version": VERSION, "shards": self.shards}
        write_file(self.folder / "index.json", json.dumps(index, sort_keys=True))

    def _write(self) -> None:
        count = len(self.samples)
        offsets = np.cumsum([4 + 4 * (count + 1) + len(self.head), *map(len, self.samples)]).astype("<u4")
        data = b"".join([np.array(count, "<u4").tobytes(), offsets.tobytes(), self.head, *self.samples])
        name = f"shard.{len(self.shards):05d}.mds"
        write_file(self.folder / name, data)
        raw = {"basename": name, "bytes": len(data), "hashes": {}}
        self.shards.append(self.facts | {"samples": count, "raw_data": raw, "zip_data": None})
        self.samples, self.size = [], 0
