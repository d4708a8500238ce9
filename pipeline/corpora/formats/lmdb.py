"""LMDB as recognisers of text read it: image-000000001 (a picture file) and label-000000001, up to num-samples.

Rewritten, a database has these keys and no others, numbered anew without gaps.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from platemint.pipeline.corpora.labels import Corpus, split_named
from platemint.pipeline.corpora.records import Part, Record, of_member
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.plate import PlatemintError

if TYPE_CHECKING:
    import lmdb

SUFFIX = ".mdb"
CHECK = Path(__file__).parents[1] / "lmdb_check.py"
COUNT, PICTURE, LABEL = "num-samples", "image-{:09d}", "label-{:09d}"
_KNOWN = re.compile(r"num-samples|(?:image|label)-\d{9,}")
_DIGITS = 18  # of a number of pictures; none has more
_AT_ONCE = 256  # pictures of a transaction
_lock = Lock()


def chosen(root: Path, files: list[Path]) -> list[Path]:
    """All but lock.mdb."""
    return [file for file in files if file.name != "lock.mdb"]


def read(corpus: Corpus, files: Collection[Path]) -> None:
    """Raises PlatemintError for a database that does not say how many pictures it holds."""
    for file in files:
        split = split_named(file.parent.relative_to(corpus.root).as_posix())
        for member, text in _labels(file):
            corpus.add_member(file, member, text, split)


def _labels(file: Path) -> Iterator[tuple[str, object]]:
    """The key of each picture, and its text."""
    with _reading(file) as transaction:
        count = (transaction.get(COUNT.encode()) or b"").decode("ascii", "replace")[:_DIGITS]
        if not count.isdecimal() or int(count) > _opened(file).stat()["entries"]:
            raise PlatemintError(f"{file}: {COUNT} is {count!r}, not the number of its pictures: build it again")
        for number in range(1, int(count) + 1):
            yield PICTURE.format(number), _text(transaction.get(LABEL.format(number).encode()))


def picture(file: Path, member: str) -> bytes:
    """The picture under a key. Raises ValueError where there is none."""
    with _reading(file) as transaction:
        data = transaction.get(member.encode())
    if data is None:
        raise ValueError("no such key")
    return data


def records(root: Path, file: Path) -> Iterator[Record]:
    """Raises PlatemintError as `read` does."""
    name = file.relative_to(root).as_posix()
    for member, text in _labels(file):
        yield of_member(f"{name}/{member}", text, split_named(name))


def member(number: int) -> str:
    """The key of the picture of that number, from 0."""
    return PICTURE.format(number + 1)


def others(file: Path) -> list[str]:
    """The keys that are left out where a database is rewritten, each kind of them once."""
    with _reading(file) as transaction:
        keys = (key.decode(errors="backslashreplace") for key in transaction.cursor().iternext(values=False))
        return sorted({re.sub(r"\d+", "#", key) for key in keys if not _KNOWN.fullmatch(key)})


def rewrite(file: Path, name: str, target: Path, new: Rewording, picture: Callable[[str], bytes]) -> None:
    """Writes a database with the pictures that have a new path. picture: the new bytes of a path."""
    import lmdb

    with lmdb.open(str(target), subdir=False, lock=False, map_size=1 << 24, sync=False) as environment:
        items: list[tuple[bytes, bytes]] = []
        written = 0
        for old, text in _labels(file):
            path = f"{name}/{old}"
            if path in new.paths:
                items.append((member(written).encode(), picture(path)))
                written += 1
                if isinstance(text, str):
                    items.append((LABEL.format(written).encode(), new.text(path, text).encode()))
            if len(items) >= _AT_ONCE:
                _put(environment, items)
                items = []
        _put(environment, [*items, (COUNT.encode(), str(written).encode())])
        environment.sync(True)


def _put(environment: lmdb.Environment, items: list[tuple[bytes, bytes]]) -> None:
    """Puts items into a database in one transaction, which grows as it needs to."""
    import lmdb

    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in items:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


def parts(file: Path) -> Iterator[Part]:
    """Every value, and every key that is not one of the format's."""
    with _reading(file) as transaction:
        for key, value in transaction.cursor():
            name = key.decode(errors="backslashreplace")
            yield Part(name, value)
            if not _KNOWN.fullmatch(name):
                yield Part("key", key)
    release()


def release() -> None:
    """Closes the databases that were read: a process may open one once, and others may want to."""
    with _lock:
        _environment.cache_clear()


def _text(label: bytes | None) -> object:
    try:
        return None if label is None else label.decode()
    except UnicodeDecodeError:
        return label  # bytes are no text, and the corpus says so


@contextmanager
def _reading(file: Path) -> Iterator[lmdb.Transaction]:
    """Raises PlatemintError where a database turns out to be damaged."""
    import lmdb

    try:
        with _opened(file).begin() as transaction:
            yield transaction
    except lmdb.Error as fault:
        raise _damaged(file, fault) from None


def _damaged(file: Path, fault: object) -> PlatemintError:
    return PlatemintError(f"{file}: not an LMDB that can be read ({fault}): fetch or build it again")


def _opened(file: Path) -> lmdb.Environment:
    with _lock:  # a process may open a database once
        return _environment(file, file.stat().st_ino, file.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _environment(file: Path, inode: int, stamp: int) -> lmdb.Environment:
    import lmdb

    checked = subprocess.run([sys.executable, "-P", str(CHECK), file], capture_output=True, text=True)
    if checked.returncode:
        raise _damaged(file, checked.stderr.strip() or "its pages lead out of it")
    try:
        return lmdb.open(str(file), subdir=False, readonly=True, lock=False, readahead=False)
    except lmdb.Error as fault:
        raise _damaged(file, fault) from None
