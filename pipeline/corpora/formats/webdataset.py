"""WebDataset: tar files of KEY.jpg with KEY.txt, or with a KEY.json that has the text in a field.

A key is a name up to its first dot. What is compressed cannot be read from the middle: unpack .tar.gz first.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from posixpath import basename, dirname, join

from platemint.pipeline.corpora.labels import Corpus, is_picture, split_named
from platemint.pipeline.corpora.table_rows import columns_of
from platemint.pipeline.plate import PlatemintError

SUFFIX = ".tar"
MOST_BYTES = 1 << 20  # of a text

Span = tuple[int, int]  # of bytes in a file: from, how many


def chosen(root: Path, files: list[Path]) -> list[Path]:
    """All of them."""
    return files


def read(corpus: Corpus, files: Collection[Path]) -> None:
    """Pictures without a text are set aside. Raises PlatemintError for what is no tar file."""
    for file in files:
        members = _members(file, file.stat().st_mtime_ns)
        texts = {_key(name): name for name in members if name.endswith(".txt")}
        fields = {_key(name): name for name in members if name.endswith(".json")}
        of_folder = split_named(file.relative_to(corpus.root).as_posix())
        for name in filter(is_picture, members):
            found = _fields(file, fields.get(_key(name), ""))
            columns = columns_of(tuple(found))
            if columns.places:
                corpus.put_aside(f"{file.relative_to(corpus.root)}/{name}", "", "has a plate's place, and is no crop")
                continue
            text = _text(file, texts[_key(name)]) if _key(name) in texts else found.get(columns.text)
            corpus.add_member(file, name, text, str(found.get(columns.split) or "") or of_folder)


def picture(file: Path, member: str) -> bytes:
    """The bytes of a member. Raises ValueError where there is none."""
    start, size = _members(file, file.stat().st_mtime_ns).get(member, (0, -1))
    if size < 0:
        raise ValueError("no such member")
    with open(file, "rb") as opened:
        opened.seek(start)
        return opened.read(size)


def _key(name: str) -> str:
    return join(dirname(name), basename(name).partition(".")[0])


def _text(file: Path, member: str) -> object:
    """The text in a member, or its bytes where these are none in UTF-8."""
    data = picture(file, member)[:MOST_BYTES]
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return data


def _fields(file: Path, member: str) -> dict:
    """The fields in a member, {} where it holds no JSON object, or there is none."""
    try:
        fields = json.loads(_text(file, member)) if member else {}
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


@lru_cache(maxsize=256)
def _members(file: Path, stamp: int) -> dict[str, Span]:
    """Where each file in a tar lies, as it was at a time, in order."""
    try:
        with tarfile.open(file, "r:") as opened:
            return {member.name: (member.offset_data, member.size) for member in opened if member.isfile()}
    except (OSError, tarfile.TarError) as fault:
        raise PlatemintError(f"{file}: not a whole tar file ({fault}): fetch or write it again") from None
