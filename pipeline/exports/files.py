"""Files of exports: tables that are opened when their first row comes, and pictures."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO


def write_file(path: Path, data: bytes | str) -> None:
    """A file, and its folder where that is not there yet."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


class TableFile:
    """A CSV file in UTF-8, which is there once it has a row."""

    def __init__(self, open_: Callable[[], TextIO], columns: Iterable[str]):
        self.open, self.columns = open_, list(columns)
        self.rows: csv.DictWriter | None = None

    def writerow(self, row: Mapping[str, Any]) -> None:
        if self.rows is None:
            self.rows = csv.DictWriter(self.open(), self.columns, lineterminator="\n")
            self.rows.writeheader()
        self.rows.writerow(row)


@contextmanager
def table(path: Path, columns: Iterable[str]) -> Iterator[TableFile]:
    """A table that is written within the context."""
    with ExitStack() as stack:
        yield TableFile(lambda: stack.enter_context(open(path, "w", encoding="utf8", newline="")), columns)


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A whole table."""
    with table(path, columns) as file:
        for row in rows:
            file.writerow(row)


class PerSplit(dict):
    """What is open for each split, opened when it is first asked for."""

    def __init__(self, open_: Callable[[str], Any]):
        super().__init__()
        self.open = open_

    def __missing__(self, split: str) -> Any:
        self[split] = self.open(split)
        return self[split]


@contextmanager
def lines_per_split(folder: Path, name: str) -> Iterator[PerSplit]:
    """A text file for each split, by its name, which has {split} in it."""

    def open_(split: str) -> TextIO:
        path = folder / name.format(split=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        return stack.enter_context(open(path, "w", encoding="utf8", newline=""))

    with ExitStack() as stack:
        yield PerSplit(open_)
