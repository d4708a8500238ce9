"""Parquet: a column of pictures, as Hugging Face's datasets have it, beside one of texts; so are our own runs.

A picture is a struct of bytes and path, bytes alone, or a path alone; paths count from the file's own folder. Texts are
read as they stand in the file: no NULL or NA among them gets lost, and no 00123 becomes a number.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from platemint.pipeline.corpora.labels import Corpus, split_named
from platemint.pipeline.corpora.table_rows import columns_of
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.storage import read_file, read_json

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIX = ".parquet"
SLOTS = "slots"  # column of where each character stands
AT_ONCE = 100  # rows
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
    committed = _committed(corpus.root) if is_run(corpus.root) else {*files}
    for file in files:
        if file in committed:
            _read_file(corpus, file)
        else:
            corpus.put_aside(file.relative_to(corpus.root).as_posix(), "", NO_COMMIT)


def picture(file: Path, member: str) -> bytes:
    """The picture of a row, numbered from 0. Raises ValueError where there is none."""
    stamp, number = file.stat().st_mtime_ns, int(member)
    starts = _starts(file, stamp)
    group = bisect.bisect_right(starts, number) - 1
    return _bytes(_pictures(file, stamp, group)[number - starts[group]], file.parent)


def _read_file(corpus: Corpus, file: Path) -> None:
    from pyarrow import parquet

    schema = _schema(file)
    pictures, text, split = _columns(file, schema)
    is_path = not _holds_pictures(schema.field(pictures).type)
    wanted = list(filter(None, [text, split, pictures if is_path else ""]))
    with _whole(file), parquet.ParquetFile(file) as opened:
        rows = opened.read(columns=wanted).to_pydict()
    of_folder = split_named(file.relative_to(corpus.root).as_posix())
    for number, label in enumerate(rows[text]):
        of = str(rows[split][number] or "") if split else of_folder
        if is_path:
            corpus.add(str(rows[pictures][number] or ""), label, of, number, file.parent)
        else:
            corpus.add_member(file, str(number), label, of)


def _schema(file: Path) -> pa.Schema:
    from pyarrow import parquet

    with _whole(file):
        return parquet.read_schema(file)


@contextmanager
def _whole(file: Path) -> Iterator[None]:
    """Raises PlatemintError where a file turns out to be damaged."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as fault:
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

    in_struct = pa.types.is_struct(type) and type.get_field_index("bytes") >= 0
    return in_struct or pa.types.is_binary(type) or pa.types.is_large_binary(type)


def _committed(run: Path) -> set[Path]:
    """The shards of a run that count."""
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
    from pyarrow import parquet

    with parquet.ParquetFile(file) as opened:
        name, *_ = _columns(file, opened.schema_arrow)
        return opened.read_row_group(group, columns=[name]).column(name).to_pylist()


class Row(NamedTuple):
    """One row. text: as it stands there. slots: see `pipeline.write.schema`. fields: columns of texts and numbers.

    picture: gives its bytes, or raises ValueError with the reason.
    """

    text: object
    split: str
    slots: list[float] | None
    fields: dict[str, object]
    picture: Callable[[], bytes]


def rows(file: Path, pictures: bool = True) -> Iterator[Row]:
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
        for batch in opened.iter_batches(AT_ONCE, columns=wanted):
            for row in batch.to_pylist():
                fields = {name: row[name] for name in plain}
                held = partial(_bytes, row.get(image), file.parent)
                yield Row(row[text], str(row.get(split) or ""), row.get(SLOTS), fields, held)


def _bytes(held: dict | bytes | str | None, folder: Path) -> bytes:
    """What a column of pictures holds in a row. Raises ValueError where that is no picture."""
    held = held if isinstance(held, dict) else {"path" if isinstance(held, str) else "bytes": held}
    if held.get("bytes") is None and held.get("path"):
        return read_file(folder / held["path"])
    if held.get("bytes") is None:
        raise ValueError("the row holds no picture")
    return held["bytes"]


def _is_field(field: pa.Field) -> bool:
    """Whether a column holds one text or number in each row, and not what a picture is called elsewhere."""
    from pyarrow import types

    kinds = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return any(kind(field.type) for kind in kinds) and not columns_of((field.name,)).path
