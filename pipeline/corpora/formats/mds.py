"""MDS, MosaicML's streaming format: shards that each say what columns they hold, one of pictures and one of texts.

A shard is the number of samples, where each begins and the last ends, a JSON object about the columns, and the samples:
sizes of the columns, then the columns. Nothing in it is unpickled. Compressed shards cannot be read from the middle.
Beside the shards of a folder stands an index.json, without which the library does not find them.

Rewritten, a shard has pictures, texts, and of its other columns those of words, numbers and JSON, old texts replaced in them.
Columns of other kinds, and about the source of a picture, are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from platemint.pipeline import storage
from platemint.pipeline.corpora.labels import Corpus, split_named
from platemint.pipeline.corpora.records import Part, Record, of_member
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.corpora.table_rows import columns_of
from platemint.pipeline.corpora.text_fields import is_of_source
from platemint.pipeline.parsing import parse_json
from platemint.pipeline.plate import PlatemintError

SUFFIX = ".mds"
INDEX = "index.json"
VERSION = 2
PICTURES, TEXT, VALUE = ("bytes", "jpeg", "png"), "str", "json"  # encodings: of pictures, as files; of text; of JSON
TEXTS = (TEXT, "str_int", "str_float", "str_decimal")
SCALARS = {"int": "int64"} | {name: name for name in (
    "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
)}  # fmt: skip
MOST_BYTES = 1 << 26  # of a shard that is written, as the library has it by itself


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


def records(root: Path, file: Path) -> Iterator[Record]:
    """Raises PlatemintError as `read` does."""
    name = file.relative_to(root).as_posix()
    shard = _shard(file, file.stat().st_mtime_ns)
    for number in range(len(shard.offsets) - 1):
        path = f"{name}/{number}"
        try:
            values = _sample(file, number, (shard.text, shard.split))
        except ValueError as fault:
            yield Record(path, fault=str(fault))
            continue
        split = _decoded(values.get(shard.split, b""), shard.encodings.get(shard.split, ""))
        yield of_member(path, _decoded(values[shard.text], TEXT), str(split or "") or split_named(name))


def member(number: int) -> str:
    """The name of the picture of that number, from 0."""
    return str(number)


def others(file: Path) -> list[str]:
    """The columns that are left out where a shard is rewritten."""
    shard = _shard(file, file.stat().st_mtime_ns)
    return sorted({*shard.encodings} - {*_kept(shard)})


def rewrite(file: Path, name: str, target: Path, new: Rewording, picture: Callable[[str], bytes]) -> None:
    """Writes a shard with the samples whose pictures have a new path. picture: the new bytes of a path."""
    shard = _shard(file, file.stat().st_mtime_ns)
    kept = _kept(shard)
    numbers = [number for number in range(len(shard.offsets) - 1) if f"{name}/{number}" in new.paths]

    def samples() -> Iterator[dict[str, bytes]]:
        for number in numbers:
            path = f"{name}/{number}"
            values = _sample(file, number, kept)
            values = {column: _reworded(shard, column, values[column], path, new) for column in kept}
            yield values | {shard.picture: picture(path)}

    facts = facts_of(
        {column: shard.encodings[column] for column in kept}, {column: shard.sizes[column] for column in kept}
    )
    with open(target, "wb") as opened:
        write_shard(opened, facts, samples(), len(numbers))


def write_index(folder: Path, files: Iterable[Path]) -> None:
    """Writes the index of a folder's shards, in order."""
    shards = []
    for file in files:
        shard = _shard(file, file.stat().st_mtime_ns)
        facts = facts_of(shard.encodings, shard.sizes)
        shards.append(indexed(facts, file.name, file.stat().st_size, len(shard.offsets) - 1))
    storage.write(folder / INDEX, index_of(shards))


def parts(file: Path) -> Iterator[Part]:
    """What a shard says of itself, every value, and what a sample holds behind its columns."""
    shard = _shard(file, file.stat().st_mtime_ns)
    begin = 4 + 4 * len(shard.offsets)
    with open(file, "rb") as opened:
        opened.seek(begin)
        yield Part("header.json", opened.read(int(shard.offsets[0]) - begin))
        for number, size in enumerate(np.diff(shard.offsets).tolist()):
            data, end = opened.read(size), 0
            for name, at, length in _columns(shard, data):
                yield _part(f"{number}/{name}", data[at : at + length], shard.encodings[name])
                end = at + length
            yield Part(f"{number}/padding", data[end:])


def _part(name: str, data: bytes, encoding: str) -> Part:
    """A value as it is searched: numbers are spelled."""
    kind = np.dtype(SCALARS.get(encoding, "V1"))
    if encoding in SCALARS and len(data) == kind.itemsize:
        return Part(name, str(np.frombuffer(data, kind)[0]).encode(), numbers=kind.kind == "f")
    return Part(f"{name}.json" if encoding == VALUE else name, data)


def _kept(shard: MdsShard) -> list[str]:
    """The columns that a rewritten shard has."""
    understood = (*TEXTS, VALUE, *SCALARS)
    return [
        name
        for name, encoding in shard.encodings.items()
        if name in (shard.picture, shard.text) or (encoding in understood and not is_of_source(name))
    ]


def _reworded(shard: MdsShard, column: str, data: bytes, path: str, new: Rewording) -> bytes:
    """A value with the old texts replaced. What is not as its encoding has it becomes empty."""
    encoding = shard.encodings[column]
    if encoding in SCALARS or column == shard.picture:
        return data
    value = _decoded(data, VALUE if encoding == VALUE else TEXT)
    if encoding == VALUE:
        return json.dumps(new.anywhere(_about_itself(value), path), ensure_ascii=False).encode()
    if isinstance(value, bytes):
        return b""
    return (new.text(path, value) if column == shard.text else new.other(value, path)).encode()


def _about_itself(value: object) -> object:
    """A JSON value without what is about the source of a picture, and null for bytes that are none."""
    if isinstance(value, dict):
        return {key: _about_itself(item) for key, item in value.items() if not is_of_source(key)}
    if isinstance(value, list):
        return [_about_itself(item) for item in value]
    return None if isinstance(value, bytes) else value


# -------------------------------------------------------------------------------------------------------------- writing


def facts_of(encodings: Mapping[str, str], sizes: Mapping[str, int | None]) -> dict[str, Any]:
    """What a shard says of itself. encodings, sizes: of its columns, by name, in order."""
    return {
        "version": VERSION, "format": "mds", "compression": None, "hashes": [], "size_limit": MOST_BYTES,
        "column_names": [*encodings], "column_encodings": [*encodings.values()], "column_sizes": [*sizes.values()],
    }  # fmt: skip


def write_shard(opened: BinaryIO, facts: dict[str, Any], samples: Iterable[dict[str, bytes]], count: int) -> None:
    """Writes so many samples. samples: of each the bytes of its columns, by name."""
    head = json.dumps(facts, sort_keys=True).encode()
    at = 4 + 4 * (count + 1) + len(head)
    offsets = [at]
    opened.write(bytes(at - len(head)) + head)
    for values in samples:
        data = sample_of(facts, values)
        opened.write(data)
        at += len(data)
        offsets.append(at)
    if at >= 1 << 32:
        raise PlatemintError(
            f"an MDS shard holds up to 4 GiB, and this one would have {at:,} bytes: give smaller shards"
        )
    opened.seek(0)
    opened.write(np.array([count, *offsets], "<u4").tobytes())


def sample_of(facts: dict[str, Any], values: dict[str, bytes]) -> bytes:
    """A sample: the sizes of the columns whose size varies, then the columns."""
    columns = [values[name] for name in facts["column_names"]]
    sizes = [len(data) for data, size in zip(columns, facts["column_sizes"]) if size is None]
    return np.array(sizes, "<u4").tobytes() + b"".join(columns)


def indexed(facts: dict[str, Any], name: str, size: int, samples: int) -> dict[str, Any]:
    """What an index has of a shard of that size, in bytes."""
    raw = {"basename": name, "bytes": size, "hashes": {}}
    return facts | {"samples": samples, "raw_data": raw, "zip_data": None}


def index_of(shards: list[dict[str, Any]]) -> str:
    return json.dumps({"version": VERSION, "shards": shards}, sort_keys=True)


# -------------------------------------------------------------------------------------------------------------- reading


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
    if columns.places:
        raise PlatemintError(
            f"{file}: {', '.join(columns.places)}: looks like a plate's place in its picture, and in MDS each picture is read "
            "as one plate: cut the plates out, or give the frames in another format"
        )
    return MdsShard(offsets, encodings, sizes, picture, columns.text, columns.split)
