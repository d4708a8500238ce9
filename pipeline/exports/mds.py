"""MDS, MosaicML's streaming format: for each split a folder of shard.00000.mds and so on, with index.json.

Written here (`corpora.formats.mds`), from the format's description (https://docs.mosaicml.com/projects/streaming): the
library (`mosaicml-streaming`) wants an older numpy, torchvision, transformers and the clients of every cloud.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from platemint.pipeline.corpora.formats import mds
from platemint.pipeline.exports.files import PerSplit, write_file
from platemint.pipeline.exports.plates import ExportedPlates, Labelled


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
        self.folder, self.facts = folder, mds.facts_of(columns, dict.fromkeys(columns))
        self.shards: list[dict] = []
        self.samples: list[dict[str, bytes]] = []
        self.size = 0

    def add(self, values: dict[str, bytes]) -> None:
        size = 4 * len(values) + sum(map(len, values.values()))
        if self.samples and self.size + size > mds.MOST_BYTES:
            self._write()
        self.samples.append(values)
        self.size += size

    def finish(self) -> None:
        """Writes the last shard, and the index of all."""
        self._write()
        write_file(self.folder / mds.INDEX, mds.index_of(self.shards))

    def _write(self) -> None:
        name, data = f"shard.{len(self.shards):05d}.mds", io.BytesIO()
        mds.write_shard(data, self.facts, self.samples, len(self.samples))
        write_file(self.folder / name, data.getvalue())
        self.shards.append(mds.indexed(self.facts, name, len(data.getvalue()), len(self.samples)))
        self.samples, self.size = [], 0
