"""LMDB as recognisers of scene text read it (DTRB, PARSeq, PaddleOCR): an environment for each split.

image-000000001, label-000000001 and so on; num-samples says how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from platemint.pipeline.corpora.formats.lmdb import COUNT, LABEL, PICTURE
from platemint.pipeline.exports.files import PerSplit
from platemint.pipeline.exports.plates import ExportedPlates, Labelled
from platemint.pipeline.plate import Failure

if TYPE_CHECKING:
    import lmdb

MOST_BYTES = 1 << 40  # of an environment: address space, of which the disk holds only what is written
AT_ONCE = 1000  # plates that one transaction writes


@contextmanager
def writer(plates: ExportedPlates, folder: Path) -> Iterator[Callable[[Labelled], str]]:
    import lmdb

    open_ = PerSplit(lambda split: _Split(folder / split))

    def add(plate: Labelled) -> str:
        open_[plate.split].add(plate)
        return f"{plate.split}/{PICTURE.format(plate.number)}"

    try:
        yield add
        for split in open_.values():
            split.commit()
    except lmdb.Error as fault:
        raise Failure(f"{folder.name}: cannot be written ({fault}): make room, or choose another --out") from fault
    finally:
        for split in open_.values():
            split.close()


class _Split:
    """The environment of a split. plates: as many as it has been given."""

    def __init__(self, folder: Path):
        import lmdb

        self.folder, self.plates = folder, 0
        self.environment: lmdb.Environment = lmdb.open(str(folder), map_size=MOST_BYTES)
        self.waiting: dict[str, bytes] = {}

    def add(self, plate: Labelled) -> None:
        self.plates = plate.number
        self.waiting[PICTURE.format(plate.number)] = plate.data
        self.waiting[LABEL.format(plate.number)] = plate.text.encode()
        if plate.number % AT_ONCE == 0:
            self.commit()

    def commit(self) -> None:
        with self.environment.begin(write=True) as transaction:
            for key, value in self.waiting.items():
                transaction.put(key.encode(), value)
            transaction.put(COUNT.encode(), str(self.plates).encode())
        self.waiting.clear()

    def close(self) -> None:
        self.environment.close()
        (self.folder / "lock.mdb").unlink(missing_ok=True)  # readers make their own
