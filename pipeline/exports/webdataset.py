"""WebDataset: tar shards SPLIT-000000.tar of KEY.jpg, KEY.txt (the text) and KEY.json (all columns)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from platemint.pipeline.exports.files import PerSplit
from platemint.pipeline.exports.plates import ExportedPlates, Labelled
from platemint.pipeline.plate import PlatemintError

MOST_BYTES = 1e9  # of a shard


def ready() -> None:
    """Raises PlatemintError where the library is missing."""
    try:
        import webdataset  # noqa: F401
    except ImportError as fault:
        raise PlatemintError(
            f"export to webdataset needs the library of that name, which cannot be imported ({fault}): "
            f"`{sys.executable} -m pip install -c constraints.txt -e '.[webdataset]'`"
        ) from None


@contextmanager
def writer(plates: ExportedPlates, folder: Path) -> Iterator[Callable[[Labelled], str]]:
    import webdataset

    whole = str(folder.absolute()).replace("%", "%%")  # the name is a pattern of the shard's number

    def open_(split: str) -> webdataset.ShardWriter:
        name = f"{whole}/{split}-%06d.tar"
        return webdataset.ShardWriter(name, maxsize=MOST_BYTES, mtime=0, encoder=False, verbose=0)

    shards = PerSplit(open_)

    def add(plate: Labelled) -> str:
        columns = json.dumps(plate.fields | {"text": plate.text}, ensure_ascii=False)
        files = {plate.suffix[1:]: plate.data, "txt": plate.text.encode(), "json": columns.encode()}
        shards[plate.split].write({"__key__": f"{plate.number:09d}"} | files)
        return ""

    try:
        yield add
    finally:
        for shard in shards.values():
            shard.close()
