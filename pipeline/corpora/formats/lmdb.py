"""LMDB as recognisers of text read it: image-000000001 (a picture file) and label-000000001, up to num-samples."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from platemint.pipeline.corpora.labels import Corpus, split_named
from platemint.pipeline.plate import PlatemintError

if TYPE_CHECKING:
    import lmdb

SUFFIX = ".mdb"
COUNT, PICTURE, LABEL = "num-samples", "image-{:09d}", "label-{:09d}"
_lock = Lock()


def chosen(root: Path, files: list[Path]) -> list[Path]:
    """All but lock.mdb."""
    return [file for file in files if file.name != "lock.mdb"]


def read(corpus: Corpus, files: Collection[Path]) -> None:
    """Raises PlatemintError for a database that does not say how many pictures it holds."""
    for file in files:
        split = split_named(file.parent.relative_to(corpus.root).as_posix())
        environment = _opened(file)
        with environment.begin() as transaction:
            count = (transaction.get(COUNT.encode()) or b"").decode("ascii", "replace")
            if not count.isdecimal() or int(count) > environment.stat()["entries"]:
                raise PlatemintError(f"{file}: {COUNT} is {count!r}, not the number of its pictures: build it again")
            for number in range(1, int(count) + 1):
                label = transaction.get(LABEL.format(number).encode())
                corpus.add_member(file, PICTURE.format(number), _text(label), split)


def picture(file: Path, member: str) -> bytes:
    """The picture under a key. Raises ValueError where there is none."""
    with _opened(file).begin() as transaction:
        data = transaction.get(member.encode())
    if data is None:
        raise ValueError("no such key")
    return data


def _text(label: bytes | None) -> object:
    try:
        return None if label is None else label.decode()
    except UnicodeDecodeError:
        return label  # bytes are no text, and the corpus says so


def _opened(file: Path) -> lmdb.Environment:
    with _lock:  # a process may open a database once
        return _environment(file, file.stat().st_ino)


@lru_cache(maxsize=16)
def _environment(file: Path, inode: int) -> lmdb.Environment:
    import lmdb

    try:
        return lmdb.open(str(file), subdir=False, readonly=True, lock=False, readahead=False)
    except lmdb.Error as fault:
        raise PlatemintError(f"{file}: not an LMDB that can be read ({fault}): fetch or build it again") from None
