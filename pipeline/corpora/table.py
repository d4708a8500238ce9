"""CSV and JSONL tables with a row per picture: path, text and, where there is one, split."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.corpora.labels import Corpus, lines
from pipeline.plate import PlatemintError

SUFFIXES = (".csv", ".jsonl")
PATH = ("path", "image_path", "file_name")  # ours, fast-plate-ocr's, an imagefolder's
TEXT = ("text", "plate_text")


def fits(path: Path) -> bool:
    """Whether the table has the columns of a corpus."""
    try:
        return None not in _columns(path)
    except PlatemintError:
        return False


def read(path: Path) -> Corpus:
    """A corpus from a table; paths in it count from the table's own folder. Raises PlatemintError for other columns."""
    name, text = _columns(path)
    if not name or not text:
        raise PlatemintError(f"{path}: needs the columns path and text, named in its first row, and rows below it")
    corpus = Corpus(path.parent)
    for number, row in rows(path):
        corpus.add(str(row.get(name) or ""), row.get(text), str(row.get("split") or ""), number)
    return corpus


def _columns(path: Path) -> list[str | None]:
    """The names of the table's path and text columns, None for one that is missing."""
    _, first = next(rows(path), (1, {}))
    return [next((c for c in names if c in first), None) for names in (PATH, TEXT)]


def rows(path: Path) -> Iterator[tuple[int, dict]]:
    return _jsonl(path) if path.suffix.lower() == ".jsonl" else _csv(path)


def _csv(path: Path) -> Iterator[tuple[int, dict]]:
    """Line number and fields of each row, all of them text: a plate may read NULL, 00123 or 1E5."""
    text = lines(path)
    delimiter = max(",;\t", key=text[0].count) if text else ","
    reader = csv.DictReader(text, delimiter=delimiter)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as fault:
        raise PlatemintError(f"{path}, line {reader.line_num}: not CSV: {fault}") from None


def _jsonl(path: Path) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(lines(path), 1):
        if line.strip():
            yield number, _object(path, number, line)


def _object(path: Path, number: int, line: str) -> dict:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise PlatemintError(f"{path}, line {number}: not a JSON object in one line")
    return row
