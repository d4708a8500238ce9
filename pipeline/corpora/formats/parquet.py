"""Parquet: a column of pictures, as Hugging Face's datasets have it, beside one of texts; so are our own runs.

A picture is a struct of bytes and path, bytes alone, or a path alone; paths count from the file's own folder. Texts are
read as they stand in the file: no NULL or NA among them gets lost, and no 00123 becomes a number.

Rewritten, a file has pictures, texts, and of its other columns those of words, numbers and times, old texts replaced in
them. Columns of bytes, of lists of numbers (masks, embeddings) and about the source of a picture are left out.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from platemint.pipeline.corpora.labels import Corpus, split_named
from platemint.pipeline.corpora.records import Folder, Part, Record, Refused, of_member
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.corpora.table_rows import columns_of
from platemint.pipeline.corpora.text_fields import is_of_source
from platemint.pipeline.parsing import parse_json
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.storage import read_file, read_json

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIX = ".parquet"
MAGIC = b"PAR1"  # begins a file
MOST_CHUNK = 2 << 30  # bytes of a row group's column: groups of pictures have a hundred megabytes
ROWS = 100  # of a group that is written, and read at a time
FEATURES = b"huggingface"  # key of the metadata that says what the columns are
SLOTS = "slots"  # column of where each character stands
NO_COMMIT = "its shard has no commit: the run that wrote it was interrupted, and goes on when it is started again"


def chosen(root: Path, files: list[Path]) -> list[Path]:
    """Of the files below a root those that hold accepted plates: of a run those in data/."""
    return [file for file in files if file.parent == root / "data"] if is_run(root) else files


def is_run(root: Path) -> bool:
    """Whether a folder is a run of ours."""
    return (root / "plan.json").is_file()


def columns_in(file: Path) -> list[str]:
    """The names of a file's columns. Raises PlatemintError where it is damaged."""
    return _schema(file).names


def read(corpus: Corpus, files: Collection[Path]) -> None:
    """Raises PlatemintError for a file without a column of pictures and one of texts."""
    committed = _committed(corpus.root, _stamp(corpus.root)) if is_run(corpus.root) else {*files}
    for file in files:
        if file in committed:
            _read_file(corpus, file)
        else:
            corpus.put_aside(file.relative_to(corpus.root).as_posix(), "", NO_COMMIT)


def picture(file: Path, member: str) -> bytes:
    """The picture of a row, numbered from 0. Raises ValueError where there is none."""
    return _bytes(_held(file, int(member)), file.parent)


def embedded(file: Path, member: str) -> bytes:
    """The same where the file itself holds it: a path may lead anywhere."""
    data = _held(file, int(member)).get("bytes")
    if data is None:
        raise ValueError("the row holds no picture")
    return data


def records(root: Path, file: Path) -> Iterator[Record]:
    """Raises Refused where pictures are files of their own."""
    name = file.relative_to(root).as_posix()
    if is_run(root) and file not in _committed(root, _stamp(root)):
        yield Record(name, fault=NO_COMMIT, empty=True)
        return
    schema = _schema(file)
    pictures, text, split = _columns(file, schema)
    if not _holds_pictures(schema.field(pictures).type):
        raise Refused(
            f"{file}: {pictures}: names pictures that are files of their own, and only pictures in the file are "
            "rewritten: put them into the column, or give a .jsonl table of the same rows"
        )
    number = 0
    with _whole(file):
        for batch in _batches(file, list(filter(None, [text, split]))):
            for row in batch.to_pylist():
                yield of_member(f"{name}/{number}", row[text], str(row.get(split) or "") or split_named(name))
                number += 1


def member(number: int) -> str:
    """The name of the picture of that number, from 0."""
    return str(number)


def others(file: Path) -> list[str]:
    """The columns that are left out where a file is rewritten."""
    return sorted({*_schema(file).names} - {*_kept(file)})


def other_columns(folder: Folder, note: str) -> list[str]:
    """The columns of a rewritten file but for its pictures and texts."""
    file = folder.root / note
    pictures, text, _ = _columns(file, _schema(file))
    return [name for name in _kept(file) if name not in (pictures, text)]


def rewrite(file: Path, name: str, target: Path, new: Rewording, picture: Callable[[str], bytes]) -> None:
    """Writes a file with the rows whose pictures have a new path. picture: the new bytes of a path."""
    import pyarrow as pa
    from pyarrow import parquet

    pictures, text, _ = _columns(file, _schema(file))
    schema, number, written = _new_schema(file), 0, 0
    with parquet.ParquetWriter(target, schema, write_page_checksum=True, store_schema=False) as writer:
        writer.add_key_value_metadata(_features(file, new))
        for batch in _batches(file, [column for column in schema.names if column != pictures]):
            paths = [f"{name}/{n}" for n in range(number, number + len(batch))]
            kept = [path for path in paths if path in new.paths]
            with _whole(file):  # of types that cannot be filtered
                rows = batch.filter(pa.array([path in new.paths for path in paths]))
            if kept:
                data = [{"bytes": picture(path), "path": f"{n:09}"} for n, path in enumerate(kept, written)]
                columns = {
                    field.name: _reworded(rows, field, kept, new, text) for field in schema if field.name != pictures
                }
                columns[pictures] = _array(data, schema.field(pictures).type)
                writer.write_batch(pa.record_batch([columns[column] for column in schema.names], schema=schema))
            number, written = number + len(paths), written + len(kept)


def parts(file: Path) -> Iterator[Part]:
    """All that a file holds, and its bytes outside of columns: names, statistics, metadata."""
    from pyarrow import parquet

    with _whole(file), parquet.ParquetFile(file) as opened:
        for data in _outside(file, opened.metadata):
            yield Part("footer", data)
        number = 0
        for batch in opened.iter_batches(ROWS):
            for name, column in zip(batch.schema.names, batch.columns):
                yield from _parts(name, column, number)
            number += len(batch)


def _parts(name: str, column: Any, first: int) -> Iterator[Part]:
    """Of a column's rows each that holds bytes by itself, all else together."""
    if _holds_bytes(column.type):
        for row, value in enumerate(column.to_pylist(), first):
            for data in _bytes_in(value):
                yield Part(f"{row}/{name}", data)
    else:
        data = "\n".join(map(_shown, column.to_pylist())).encode(errors="surrogatepass")
        yield Part(f"{first}/{name}", data, numbers=_is_decimal(column.type))


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _bytes_in(value: object) -> Iterator[bytes]:
    """The bytes in a value, with its texts as bytes."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            yield from _bytes_in(item)
    elif value is not None:
        yield value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


def _outside(file: Path, metadata: Any) -> Iterator[bytes]:
    """The bytes of a file outside of its columns' pages."""
    groups = (metadata.row_group(n) for n in range(metadata.num_row_groups))
    chunks = (group.column(n) for group in groups for n in range(group.num_columns))
    spans = sorted((_begin(chunk), _begin(chunk) + chunk.total_compressed_size) for chunk in chunks)
    with open(file, "rb") as opened:
        at = len(MAGIC)
        for start, end in [*spans, (file.stat().st_size, 0)]:
            if start > at:
                opened.seek(at)
                yield opened.read(start - at)
            at = max(at, end)


def _begin(chunk: Any) -> int:
    dictionary = chunk.dictionary_page_offset
    return chunk.data_page_offset if dictionary is None else min(dictionary, chunk.data_page_offset)


def _batches(file: Path, columns: list[str]) -> Iterator[Any]:
    from pyarrow import parquet

    with _whole(file), parquet.ParquetFile(file) as opened:
        yield from opened.iter_batches(ROWS, columns=columns)


def _kept(file: Path) -> list[str]:
    """The columns that a rewritten file has."""
    schema = _schema(file)
    pictures, text, split = _columns(file, schema)
    return [
        field.name
        for field in schema
        if field.name in (pictures, text, split)
        or (not is_of_source(field.name) and _is_understood(_plain_type(field.type)))
    ]


def _new_schema(file: Path) -> pa.Schema:
    import pyarrow as pa

    old, kept = _schema(file), _kept(file)
    pictures, *_ = _columns(file, old)
    types = {name: _plain_type(old.field(name).type) for name in kept}
    if pa.types.is_struct(types[pictures]):
        types[pictures] = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.schema(types.items())


def _features(file: Path, new: Rewording) -> dict[str, str]:
    """The metadata by which Hugging Face's datasets know columns, of those that are kept; {} where there is none."""
    try:
        said = parse_json((_schema(file).metadata or {})[FEATURES])["info"]["features"]
        features = {name: new.anywhere(said[name]) for name in _kept(file)}
    except (KeyError, TypeError, ValueError):
        return {}
    return {FEATURES.decode(): json.dumps({"info": {"features": features}})}


def _reworded(rows: pa.RecordBatch, field: pa.Field, paths: list[str], new: Rewording, text: str) -> pa.Array:
    """A column with the old texts replaced. paths: of the rows' pictures. text: the column of labels."""
    column = rows.column(field.name)
    if field.name == text:
        values = [value if value is None else new.text(path, value) for value, path in zip(column.to_pylist(), paths)]
    elif _is_worded(field.type):
        values = [new.anywhere(value, path) for value, path in zip(column.to_pylist(), paths)]
    else:
        return column.cast(field.type)
    return _array(values, field.type)


def _array(values: list, type: pa.DataType) -> pa.Array:
    """Values as a column; of pictures the bytes alone, where that is what the column holds."""
    import pyarrow as pa

    bare = pa.types.is_binary(type) or pa.types.is_large_binary(type)
    return pa.array([value["bytes"] for value in values] if bare else values, type)


def _is_understood(type: pa.DataType) -> bool:
    return _is_plain(type) or _is_worded(type)


def _plain_type(type: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    return type.value_type if pa.types.is_dictionary(type) else type


def _is_plain(type: pa.DataType) -> bool:
    """Whether a column holds one number or time in a row."""
    from pyarrow import types

    kinds = (types.is_boolean, types.is_integer, types.is_floating, types.is_temporal, types.is_decimal, types.is_null)
    return any(kind(type) for kind in kinds)


def _is_worded(type: pa.DataType) -> bool:
    """Whether a column holds texts, with numbers beside them at most."""
    from pyarrow import types

    if types.is_list(type) or types.is_large_list(type):
        return _is_worded(type.value_type)
    if types.is_struct(type):
        fields = [type.field(n) for n in range(type.num_fields)]
        return all(not is_of_source(field.name) and _is_understood(field.type) for field in fields)
    return types.is_string(type) or types.is_large_string(type)


def _is_decimal(type: pa.DataType) -> bool:
    """Whether a column holds fractions, whose digits spell numbers by chance."""
    from pyarrow import types

    return types.is_floating(type) or types.is_temporal(type)


def _holds_bytes(type: pa.DataType) -> bool:
    from pyarrow import types

    if types.is_binary(type) or types.is_large_binary(type) or types.is_fixed_size_binary(type):
        return True
    return any(_holds_bytes(type.field(n).type) for n in range(type.num_fields))


def _held(file: Path, number: int) -> dict:
    """What the column of pictures has in a row."""
    stamp = file.stat().st_mtime_ns
    with _whole(file):
        starts = _starts(file, stamp)
        group = bisect.bisect_right(starts, number) - 1
        held = _pictures(file, stamp, group)[number - starts[group]] if 0 <= number < starts[-1] else None
    return held if isinstance(held, dict) else {"bytes": held}


def _read_file(corpus: Corpus, file: Path) -> None:
    from pyarrow import parquet

    schema = _schema(file)
    pictures, text, split = _columns(file, schema)
    is_path = not _holds_pictures(schema.field(pictures).type)
    wanted = list(filter(None, [text, split, pictures if is_path else ""]))
    with _whole(file), parquet.ParquetFile(file, read_dictionary=_flat_texts(schema, wanted)) as opened:
        read = opened.read(columns=wanted)
        rows = {name: [v for chunk in read.column(name).chunks for v in _values(chunk)] for name in wanted}
    of_folder = split_named(file.relative_to(corpus.root).as_posix())
    for number, label in enumerate(rows[text]):
        of = str(rows[split][number] or "") if split else of_folder
        if is_path:
            corpus.add(str(rows[pictures][number] or ""), label, of, number, file.parent)
        else:
            corpus.add_member(file, str(number), label, of)


def _flat_texts(schema: pa.Schema, names: Collection[str]) -> list[str]:
    """The columns that are texts. Read as dictionaries, what stands in many rows is in memory once."""
    from pyarrow import types

    return [
        name
        for name in names
        if types.is_string(schema.field(name).type) or types.is_large_string(schema.field(name).type)
    ]


def _values(column: pa.Array) -> list:
    """A column's values. What a file holds once is one object, in however many rows it stands."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        return column.to_pylist()
    values = column.dictionary.to_pylist()
    return [None if n is None else values[n] for n in column.indices.to_pylist()]


def _schema(file: Path) -> pa.Schema:
    from pyarrow import parquet

    with _whole(file):
        facts = parquet.read_metadata(file)
        schema = facts.schema.to_arrow_schema()
        if facts.num_rows > file.stat().st_size:
            raise ValueError(f"it says that it holds {facts.num_rows:,} rows")
        chunks = (
            group.column(n)
            for group in map(facts.row_group, range(facts.num_row_groups))
            for n in range(group.num_columns)
        )
        if any(chunk.total_uncompressed_size > MOST_CHUNK for chunk in chunks):
            raise ValueError(f"a column has more than {MOST_CHUNK >> 20:,} MiB in one row group")
        if len({*schema.names}) < len(schema.names):
            raise ValueError("two of its columns have one name")
        return schema


@contextmanager
def _whole(file: Path) -> Iterator[None]:
    """Raises PlatemintError where a file turns out to be damaged."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, OverflowError, pa.ArrowException) as fault:  # also of values that Python has not
        raise PlatemintError(f"{file}: not a whole Parquet file ({fault}): fetch or write it again") from None


def _columns(file: Path, schema: pa.Schema) -> tuple[str, str, str]:
    """The names of the columns of pictures, texts and splits ("" for no splits)."""
    columns = columns_of(tuple(schema.names))
    held = tuple(field.name for field in schema if _holds_pictures(field.type))
    pictures = columns_of(held).path or next(iter(held), columns.path)
    if not pictures or not columns.text:
        raise PlatemintError(
            f"{file}: needs a column of pictures (image) and one of texts (text); it has: {', '.join(schema.names)}"
        )
    if columns.places:
        raise PlatemintError(
            f"{file}: {', '.join(columns.places)}: looks like a plate's place in its picture, and in Parquet each "
            "picture is read as one plate: cut the plates out, or give the frames in another format"
        )
    return pictures, columns.text, columns.split


def _holds_pictures(type: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(type) and type.get_field_index("bytes") >= 0:
        type = type.field("bytes").type
        if pa.types.is_null(type):  # of a file in which there are paths alone
            return True
    return pa.types.is_binary(type) or pa.types.is_large_binary(type)


def _stamp(run: Path) -> int:
    """When commits of a run were last added or removed; 0 where there are none."""
    folder = run / "commits"
    return folder.stat().st_mtime_ns if folder.is_dir() else 0


@lru_cache(maxsize=1)
def _committed(run: Path, stamp: int) -> set[Path]:
    """The shards of a run that count, as it was at a time."""
    commits = (read_json(path) for path in sorted((run / "commits").glob("*.json")))
    return {run / file["path"] for commit in commits for file in commit["files"]}


@lru_cache(maxsize=256)
def _starts(file: Path, stamp: int) -> list[int]:
    """The first row of each row group of a file, as it was at a time."""
    from pyarrow import parquet

    groups = parquet.read_metadata(file)
    return list(accumulate((groups.row_group(n).num_rows for n in range(groups.num_row_groups)), initial=0))


@lru_cache(maxsize=4)  # of about a hundred pictures each: neighbours are read one after the other
def _pictures(file: Path, stamp: int, group: int) -> list[dict | bytes | None]:
    """Raises ValueError where a row group's pictures are more than memory should hold."""
    from pyarrow import parquet

    name, *_ = _columns(file, _schema(file))
    pictures, size = [], 0
    with parquet.ParquetFile(file) as opened:
        for batch in opened.iter_batches(_at_once(opened.metadata), row_groups=[group], columns=[name]):
            size += batch.nbytes
            if size > MOST_CHUNK:
                raise ValueError(f"its row group {group} has pictures of more than {MOST_CHUNK >> 20:,} MiB")
            pictures += batch.column(name).to_pylist()
    return pictures


def _at_once(metadata: Any) -> int:
    """How many rows are read at a time: few where what a file holds once may stand in each of them, and is large."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    largest = max(
        (group.column(n).total_uncompressed_size for group in groups for n in range(group.num_columns)), default=0
    )
    return min(ROWS, max(1, MOST_CHUNK // max(largest, 1)))


class PictureRow(NamedTuple):
    """One row. text: as it stands there. slots: see `pipeline.write.schema`. fields: columns of texts and numbers.

    picture: gives its bytes, or raises ValueError with the reason.
    """

    text: object
    split: str
    slots: list[float] | None
    fields: dict[str, object]
    picture: Callable[[], bytes]


def rows(file: Path, pictures: bool = True) -> Iterator[PictureRow]:
    """The rows of a file, of which few are held at a time. pictures: False leaves these unread.

    Raises PlatemintError for a file without a column of pictures and one of texts, and for one that is damaged.
    """
    from pyarrow import parquet

    schema = _schema(file)
    image, text, split = _columns(file, schema)
    plain = [field.name for field in schema if _is_field(field) and field.name not in (image, text)]
    slots = [SLOTS] if SLOTS in schema.names else []
    wanted = [*plain, text, *slots, *([image] if pictures else [])]
    with _whole(file), parquet.ParquetFile(file, page_checksum_verification=True, pre_buffer=False) as opened:
        for batch in opened.iter_batches(_at_once(opened.metadata), columns=wanted):
            for row in batch.to_pylist():
                fields = {name: row[name] for name in plain}
                held = partial(_bytes, row.get(image), file.parent)
                yield PictureRow(row[text], str(row.get(split) or ""), row.get(SLOTS), fields, held)


def _bytes(held: dict | bytes | str | None, folder: Path) -> bytes:
    """What a column of pictures holds in a row. Raises ValueError where that is no picture."""
    held = held if isinstance(held, dict) else {"path" if isinstance(held, str) else "bytes": held}
    if held.get("bytes") is None and isinstance(held.get("path"), str) and held["path"]:
        return read_file(folder / held["path"])
    if held.get("bytes") is None:
        raise ValueError("the row holds no picture")
    return held["bytes"]


def _is_field(field: pa.Field) -> bool:
    """Whether a column holds one text or number in each row, and not what a picture is called elsewhere."""
    from pyarrow import types

    kinds = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return any(kind(field.type) for kind in kinds) and not columns_of((field.name,)).path
