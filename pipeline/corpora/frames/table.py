"""CSV and JSONL with a picture's name and its text in each row: crops, or frames with the plate's four corners.

platemint's own path,text; fast-plate-ocr's image_path,plate_text; OpenALPR's seg_and_ocr, whose rows name,state,text
have no header; file,text,x1,y1,...,x4,y4 with the corners in any order. Rows that change are written with the quotes
they need; every other byte stays.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

from pipeline.corpora import table
from pipeline.corpora.frames.records import PICTURES, Corners, Folder, Mark, numbers, points
from pipeline.corpora.frames.rewording import Rewording
from pipeline.corpora.labels import SPLIT

NAME = (*table.PATH, "file")
CORNERS = tuple(f"{axis}{i}" for i in range(1, 5) for axis in "xy")
SEGMENTED = ["path", "state", "text"]  # of seg_and_ocr


def find(folder: Folder) -> dict[str, str]:
    """The tables that have the columns."""
    return {note: "" for note in folder.of_kind(*table.SUFFIXES) if all(_columns(note, folder.peek(note)))}


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Mark]:
    name, plate = _columns(note, text)
    for number, _, row in _rows(note, text):
        if row is not None:
            fields = {"picture": folder.find(str(row.get(name) or ""), note), "row": str(number)}
            try:
                yield Mark(**fields, **_content(row, plate))
            except ValueError as fault:
                yield Mark(**fields, fault=str(fault))


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    columns, delimiter = _columns(note, text), _delimiter(text)
    return "".join(
        line if row is None else _renewed(line, row, columns, delimiter, note, new)
        for _, line, row in _rows(note, text)
    )


def room(note: str, text: str, picture: str, folder: Folder) -> set[str]:
    """Those that the rows of a table with corners name."""
    name, _ = _columns(note, text)
    rows = [row for _, _, row in _rows(note, text) if row and set(CORNERS) <= row.keys()]
    return {folder.find(str(row.get(name) or ""), note) for row in rows}


def add(note: str, text: str, found: dict[str, list[Corners]], folder: Folder) -> str:
    """A row for each plate, with the name and the split that another row of its picture has."""
    name, plate = _columns(note, text)
    lines, rows = [], {}
    for _, line, row in _rows(note, text):
        lines.append(line)
        if row and (picture := folder.find(str(row.get(name) or ""), note)) in found:
            rows.setdefault(picture, (line, row))
    end = next((line[len(line.rstrip("\r\n")) :] for line in lines), "") or "\n"
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += end
    for picture, (line, row) in rows.items():
        for corners in found[picture]:
            values = [int(v) if float(v).is_integer() else v for point in corners for v in point]
            kept = {name: row[name], "split": row.get("split"), plate: "", **dict(zip(CORNERS, values))}
            fields = {key: kept.get(key, "") for key in row}
            lines.append(_dumped(note, line.rstrip("\r\n") + end, fields, _delimiter(text)))
    return "".join(lines)


def _content(row: dict, plate: str) -> dict:
    """The fields of a mark. Raises ValueError for a broken row."""
    if not row:
        raise ValueError("not a JSON object in one line")
    if None in row:
        raise ValueError("the row has not as many fields as the header")
    if not isinstance(row.get(plate), str | None):
        raise ValueError("the label is not text")
    if row.get("split") and not SPLIT.fullmatch(str(row["split"])):
        raise ValueError("the split is not a word")
    corners = ()
    if set(CORNERS) <= row.keys():
        try:
            corners = points(numbers(row[c] for c in CORNERS))
        except (TypeError, ValueError):
            raise ValueError("a corner is not a number") from None
    return {"text": row.get(plate), "split": str(row.get("split") or ""), "corners": corners}


def _renewed(line: str, row: dict, columns: list[str], delimiter: str, note: str, new: Rewording) -> str:
    """A row about a frame with its new text and names, "" for any other row."""
    name, plate = columns
    picture = new.folder.find(str(row.get(name) or ""), note)
    if picture not in new.paths:
        return ""
    fields = {key: new.other(value, picture) if isinstance(value, str) else value for key, value in row.items()}
    fields[name] = new.reference(row[name], picture)
    if isinstance(row.get(plate), str):
        fields[plate] = new.text(picture, row[plate], _content(row, plate)["corners"])
    return line if fields == row else _dumped(note, line, fields, delimiter)


def _dumped(note: str, line: str, fields: dict, delimiter: str) -> str:
    end = line[len(line.rstrip("\r\n")) :]
    if _is_jsonl(note):
        return json.dumps(fields, ensure_ascii=line.isascii()) + end
    sink = io.StringIO()
    quoting = csv.QUOTE_ALL if line.startswith('"') else csv.QUOTE_MINIMAL
    csv.writer(sink, delimiter=delimiter, quoting=quoting, lineterminator=end).writerow(fields.values())
    return sink.getvalue()


def _rows(note: str, text: str) -> Iterator[tuple[int, str, dict | None]]:
    """Line number, line and its fields by name: None for a header or blank line, {} where it cannot be parsed."""
    lines, delimiter = text.splitlines(keepends=True), _delimiter(text)
    header = [] if _is_jsonl(note) or not lines else _header(lines[0], delimiter)
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and header and header is not SEGMENTED):
            yield number, line, None
        else:
            yield number, line, _object(line) if _is_jsonl(note) else _fields(header, line, delimiter)


def _columns(note: str, text: str) -> list[str | None]:
    """The names of the columns for the picture's name and the plate's text, None for one that is missing."""
    first = text.partition("\n")[0]
    there = _object(first) if _is_jsonl(note) else _header(first, _delimiter(text))
    return [next((c for c in names if c in there), None) for names in (NAME, table.TEXT)]


def _header(line: str, delimiter: str) -> list[str]:
    cells = _cells(line, delimiter)
    return SEGMENTED if len(cells) == len(SEGMENTED) and cells[0].lower().endswith(PICTURES) else cells


def _fields(header: list[str], line: str, delimiter: str) -> dict:
    """A row's cells by name; with the key None where there are too many or too few."""
    cells = _cells(line, delimiter)
    return dict(zip(header, cells)) | ({None: ""} if len(cells) != len(header) else {})


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # a NUL, or a cell longer than any name
        return []


def _delimiter(text: str) -> str:
    return max(",;\t", key=text.partition("\n")[0].count)


def _object(line: str) -> dict:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _is_jsonl(note: str) -> bool:
    return note.lower().endswith(".jsonl")
