"""CSV and JSONL with a picture's name in each row, and its text: crops, or frames with a plate's place in a row.

platemint's own path,text; fast-plate-ocr's image_path,plate_text; OpenALPR's seg_and_ocr, whose rows name,state,text
have no header; file,text,x1,y1,...,x4,y4 with the corners in any order; boxes as two corners or as corner and size, in
columns or in one. A field bbox of four numbers is x, y, width, height, as in COCO (xyxy says that it is two corners).
Rows of one picture are plates of it; tables with places need no texts. Rows that change are written with the quotes
they need; every other byte stays.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator

from platemint.pipeline.corpora import table_rows
from platemint.pipeline.corpora.labels import SPLIT, standard_split
from platemint.pipeline.corpora.records import Corners, Folder, Record, Refused, bounds, box, numbers, points
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.corpora.table_rows import Columns, TableRow, columns_of

_FIRST = 1 << 20  # bytes that hold a header or a first row


def find(folder: Folder) -> dict[str, str]:
    """The tables that name pictures, and plates in them or their places."""
    tables = [note for note in folder.of_kind(*table_rows.SUFFIXES) if _is_ours(_first(note, folder))]
    return dict.fromkeys(
        tables + [n for n in folder.of_kind(*table_rows.HEADED) if table_rows.is_headed(n, folder.peek(n))], ""
    )


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    """Raises Refused for a column that looks like a plate's place and is not understood."""
    rows = [row for row in table_rows.parse(note, text).rows() if row.fields is not None]
    for row in rows:
        if obscure := table_rows.obscure_fields(row):
            raise Refused(table_rows.obscure_place(folder.root / note, row, obscure))
    placed = any(columns_of(tuple(row.fields)).places for row in rows)
    records = [_record(row, note, folder, placed) for row in rows]
    _refuse_ends(records, rows, note, folder)
    yield from records


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    parsed = table_rows.parse(note, text)
    return "".join(row.raw if row.fields is None else _renewed(row, parsed, note, new) for row in parsed.rows())


def other_columns(folder: Folder, note: str) -> list[str]:
    """The columns of a table but for its pictures, texts and places."""
    names = _first(note, folder).columns
    columns = columns_of(names)
    return [name for name in names if name not in (columns.path, columns.text, *columns.places)]


def missing_columns(folder: Folder) -> str:
    """What tables lack that are none of this format's, for a message. It quotes nothing that may be a plate."""
    tables = {note: _first(note, folder).columns for note in folder.of_kind(*table_rows.SUFFIXES)}
    quoted = (
        f"; {note}: needs the columns path and text, or path and xmin,ymin,xmax,ymax"
        + (f"; it has: {', '.join(names)}" if all(re.fullmatch(r"[^\d.]+", name) for name in names) else "")
        for note, names in tables.items()
    )
    return "".join([*quoted][:3])


def room(note: str, text: str, picture: str, folder: Folder) -> set[str]:
    """Those that the rows of a table with places name."""
    rows = [row for row in table_rows.parse(note, text).rows() if row.fields and columns_of(tuple(row.fields)).places]
    return {_picture_of(row, note, folder) for row in rows}


def add(note: str, text: str, found: dict[str, list[Corners]], folder: Folder) -> str:
    """A row for each plate, with the name and the split that another row of its picture has."""
    parsed = table_rows.parse(note, text)
    rows = [*parsed.rows()]
    first: dict[str, TableRow] = {}
    for row in rows:
        if row.fields and (picture := _picture_of(row, note, folder)) in found:
            first.setdefault(picture, row)
    lines = [row.raw for row in rows]
    end = next((_end(line) for line in lines), "") or "\n"
    if lines and not _end(lines[-1]):
        lines[-1] += end
    for picture, row in first.items():
        added = (_dumped(row.raw.rstrip("\r\n") + end, _added(row, at), parsed) for at in found[picture])
        lines += added
    return "".join(lines)


def _added(row: TableRow, corners: Corners) -> dict:
    """The fields of a row about another plate of a row's picture."""
    columns = columns_of(tuple(row.fields))
    (x1, y1), (x2, y2) = bounds(corners)[:2], bounds(corners)[2:]
    values = {
        table_rows.CORNERS: [v for point in corners for v in point],
        table_rows.ENDS: [x1, y1, x2, y2],
        table_rows.SIDES: [x1, y1, x2 - x1, y2 - y1],
    }[columns.form]
    values = [int(v) if float(v).is_integer() else v for v in values]
    place = dict(zip(columns.places, values if len(columns.places) > 1 else [values]))
    kept = {name: row.fields[name] for name in (columns.path, columns.split, columns.kind, *columns.size) if name}
    return dict.fromkeys(row.fields, "") | kept | place


def _picture_of(row: TableRow, note: str, folder: Folder) -> str:
    return folder.find(str(row.fields.get(columns_of(tuple(row.fields)).path) or ""), note)


def _end(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :]


def _first(note: str, folder: Folder) -> table_rows.Table:
    return table_rows.parse(note, folder.peek(note, _FIRST))


def _is_ours(parsed: table_rows.Table) -> bool:
    columns = columns_of(parsed.columns)
    return bool(columns.path and (columns.text or columns.places or columns.obscure))


def _record(row: TableRow, note: str, folder: Folder, placed: bool) -> Record:
    """placed: rows of the table say where a plate is."""
    columns = columns_of(tuple(row.fields))
    name, text, split, kind = (
        row.fields.get(column) for column in (columns.path, columns.text, columns.split, columns.kind)
    )
    record = Record(folder.find(str(name or ""), note), None if text is None else str(text), row=str(row.number))
    try:
        if row.fault:
            raise ValueError(row.fault)
        if text is not None and not isinstance(text, str):
            raise ValueError("the label is not text")
        if split and not SPLIT.fullmatch(str(split)):
            raise ValueError("the split is not a word")
        record = record._replace(split=standard_split(str(split or "")))
        return _placed(record, row, columns, str(kind or "")) if placed else record
    except ValueError as fault:
        return record._replace(fault=str(fault))


def _placed(record: Record, row: TableRow, columns: Columns, kind: str) -> Record:
    """A record with its place. Raises ValueError where that is none."""
    values = [row.fields[name] for name in columns.places]
    if all(value in (None, "", []) for value in values):
        if record.text:
            raise ValueError("the row has a text and no place of its plate")
        return record._replace(empty=True)
    try:
        corners = _corners(columns.form, numbers(_listed(values)))
        declared = tuple(numbers(row.fields[name] for name in columns.size))
    except (TypeError, ValueError):
        raise ValueError(f"{', '.join((*columns.places, *columns.size))}: not the numbers of a place") from None
    if declared and min(declared) <= 0:
        raise ValueError("the declared width and height are not above 0")
    return record._replace(corners=corners, declared=declared, kind=kind, text=record.text or (None if kind else ""))


def _drawn(row: TableRow, columns: Columns) -> Corners:
    """The corners of a row's plate as the row has them, () where it says none."""
    try:
        return _corners(columns.form, numbers(_listed([row.fields[name] for name in columns.places])))
    except (TypeError, ValueError):
        return ()


def _listed(values: list) -> list:
    """The numbers of a place, of a column each or all in one: in lists, or as text."""
    if len(values) == 1 and isinstance(values[0], str):
        return re.split(r"[\s,;]+", re.sub(r"[\[\](){}]", " ", values[0]).strip(" ,;"))
    return [item for value in values for item in (_listed(value) if isinstance(value, list) else [value])]


def _corners(form: str, values: list[float]) -> Corners:
    if form == table_rows.CORNERS:
        if len(values) != 8:
            raise ValueError
        return points(values)
    x, y, right, bottom = values
    return box(x, y, right, bottom) if form == table_rows.ENDS else box(x, y, x + right, y + bottom)


def _refuse_ends(records: list[Record], rows: list[TableRow], note: str, folder: Folder) -> None:
    """Raises Refused where one column of four numbers is plainly not x, y, width, height but two corners."""
    sides = [
        (record, bounds(record.corners))
        for record, row in zip(records, rows)
        if record.corners and not record.fault and record.picture in folder.pictures and _is_bbox(row)
    ]
    sizes = {record.picture: record.declared or _size(record.picture, folder) for record, _ in sides}
    beyond = any(
        x2 > sizes[record.picture][0] + 1 or y2 > sizes[record.picture][1] + 1 for record, (_, _, x2, y2) in sides
    )
    if beyond and all(x2 - x1 > x1 and y2 - y1 > y1 for _, (x1, y1, x2, y2) in sides):
        raise Refused(
            f"{folder.root / note}: bbox: as x, y, width, height it reaches out of its picture; if it is x, y, x, y call "
            "it xyxy"
        )


def _is_bbox(row: TableRow) -> bool:
    columns = columns_of(tuple(row.fields))
    return columns.form == table_rows.SIDES and len(columns.places) == 1


def _size(picture: str, folder: Folder) -> tuple[float, float]:
    try:
        return folder.size(picture)
    except ValueError:
        return float("inf"), float("inf")


def _renewed(row: TableRow, parsed: table_rows.Table, note: str, new: Rewording) -> str:
    """A row about a frame with its new text and names, "" for any other row."""
    columns = columns_of(tuple(row.fields))
    name = str(row.fields.get(columns.path) or "")
    picture = new.folder.find(name, note)
    if picture not in new.paths:
        return ""
    fields = {key: new.anywhere(value, picture) for key, value in row.fields.items()}
    fields[columns.path] = new.reference(name, picture, note)
    if columns.text and isinstance(text := row.fields.get(columns.text), str):
        fields[columns.text] = new.text(picture, text, _drawn(row, columns))
    return row.raw if fields == row.fields else _dumped(row.raw, fields, parsed)


def _dumped(raw: str, fields: dict, parsed: table_rows.Table) -> str:
    end = raw[len(raw.rstrip("\r\n")) :]
    if parsed.jsonl:
        return json.dumps(fields, ensure_ascii=raw.isascii()) + end
    sink = io.StringIO()
    quoting = csv.QUOTE_ALL if raw.startswith('"') else csv.QUOTE_MINIMAL
    csv.writer(sink, delimiter=parsed.delimiter, quoting=quoting).writerow(fields.values())
    return sink.getvalue().removesuffix("\r\n") + end  # with another line end it would not quote these two
