"""MDS, MosaicML's streaming format: shards that each say what columns they hold, one of pictures and one of texts.

A shard is the number of samples, where each begins and the last ends, a JSON object about the columns, and the samples:
sizes of the columns, then the columns. Nothing in it is unpickled. Compressed shards cannot be read from the middle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from platemint.pipeline.corpora.labels import Corpus, split_named
from platemint.pipeline.corpora.table_rows import columns_of
from platemint.pipeline.parsing import parse_json
from platemint.pipeline.plate import PlatemintError

SUFFIX = ".mds"
PICTURES, TEXT, VALUE = ("bytes", "jpeg", "png"), "str", "json"  # encodings: of pictures, as files; of text; of JSON


class MdsShard(NamedTuple):
    """offsets: uint32 (samples + 1,), bytes from the file's beginning. encodings, sizes: of columns, by name, in order."""

    offsets: np.ndarray
    encodings: dict[str, str]
    sizes: dict[str, int | None]
    picture: str
    text: str
    split: str


def chosen(root: Path, files: list[Path]) -> list[Path]:
    """All of them."""
    return files


def read(corpus: Corpus, files: Collection[Path]) -> None:
    """Raises PlatemintError for what is no shard, and for one without a column of pictures and one of texts."""
    for file in files:
        shard = _shard(file, file.stat().st_mtime_ns)
        of_folder = split_named(file.relative_to(corpus.root).as_posix())
        for number in range(len(shard.offsets) - 1):
            try:
                values = _sample(file, number, (shard.text, shard.split))
            except ValueError as fault:
                corpus.put_aside(f"{file.relative_to(corpus.root).as_posix()}/{number}", "", str(fault))
                continue
            split = _decoded(values.get(shard.split, b""), shard.encodings.get(shard.split, ""))
            corpus.add_member(file, str(number), _decoded(values[shard.text], TEXT), str(split or "") or of_folder)


def picture(file: Path, member: str) -> bytes:
    """The picture of a sample, numbered from 0. Raises ValueError where there is none."""
    name = _shard(file, file.stat().st_mtime_ns).picture
    return _sample(file, int(member), (name,))[name]


def _sample(file: Path, number: int, wanted: Collection[str]) -> dict[str, bytes]:
    """The bytes of some columns of a sample."""
    shard = _shard(file, file.stat().st_mtime_ns)
    start, end = shard.offsets[number : number + 2].tolist()
    with open(file, "rb") as opened:
        opened.seek(start)
        data = opened.read(end - start)
    return {name: data[at : at + size] for name, at, size in _columns(shard, data) if name in wanted}


def _columns(shard: MdsShard, data: bytes) -> Iterator[tuple[str, int, int]]:
    """Where the columns of a sample lie in it. Raises ValueError where they reach out of it."""
    varying = sum(size is None for size in shard.sizes.values())
    sizes = iter(np.frombuffer(data[: 4 * varying], "<u4").tolist())
    at = 4 * varying
    for name, size in shard.sizes.items():
        size = next(sizes, len(data)) if size is None else size
        if at + size > len(data):
            raise ValueError("the sample is damaged")
        yield name, at, size
        at += size


def _decoded(data: bytes, encoding: str) -> Any:
    """A text or a value, the bytes themselves where they are neither."""
    try:
        return data.decode() if encoding == TEXT else parse_json(data) if encoding == VALUE else ""
    except ValueError:
        return data


@lru_cache(maxsize=64)
def _shard(file: Path, stamp: int) -> MdsShard:
    """What a shard says of itself, as it was at a time."""
    try:
        with open(file, "rb") as opened:
            count = int.from_bytes(opened.read(4), "little")
            if 4 * count > file.stat().st_size:
                raise ValueError("it is too short")
            offsets = np.frombuffer(opened.read(4 * (count + 1)), "<u4")
            facts = parse_json(opened.read(int(offsets[0]) - 4 - 4 * (count + 1)))
        names, encodings, sizes = (facts[f"column_{kind}"] for kind in ("names", "encodings", "sizes"))
        if (np.diff(offsets.astype(np.int64)) < 0).any() or offsets[-1] != file.stat().st_size:
            raise ValueError("it is cut off")
        if not all(isinstance(name, str) for name in names):
            raise ValueError("the names of its columns are none")
        if any(size is not None and (type(size) is not int or size < 0) for size in sizes):
            raise ValueError("the sizes of its columns are none")
        encodings, sizes = dict(zip(names, encodings, strict=True)), dict(zip(names, sizes, strict=True))
    except (OSError, ValueError, LookupError, TypeError) as fault:
        raise PlatemintError(f"{file}: not a whole MDS shard ({fault}): fetch or write it again") from None
    columns = columns_of(tuple(names))
    picture = next((name for name in names if encodings[name] in PICTURES), "")
    if not picture or encodings.get(columns.text) != TEXT:
        raise PlatemintError(
            f"{file}: needs a column of pictures ({', '.join(PICTURES)}) and one of texts (str); it has: {encodings}"
        )
    return MdsShard(offsets, encodings, sizes, picture, columns.text, columns.split)
