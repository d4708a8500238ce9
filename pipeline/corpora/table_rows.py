"""CSV and JSONL tables with a row per picture or per plate. The one parser of them: every row comes out of it.

Delimiters are commas, semicolons or tabs; names of columns are matched in any case and with any separators, and known
by several words. A quotation mark that nothing closes, or that would swallow other rows, spoils the row it stands in.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from platemint.pipeline.corpora.labels import Corpus, decoded, is_picture, lines_of, read_text, split_named
from platemint.pipeline.parsing import parse_json
from platemint.pipeline.plate import UNREADABLE, PlatemintError

SUFFIXES = (".csv", ".tsv", ".jsonl")
HEADED = (".txt",)  # a table where its header says so, as Excel's Unicode text
DELIMITERS = ",;\t"
# Words for columns, letters and digits only; of several that are there the first counts.
PATH = ("path", "imagepath", "filepath", "filename", "file", "imagefile", "imagename", "image", "imgpath", "imgname",
        "img", "picture", "photo", "name")  # fmt: skip
TEXT = ("text", "platetext", "plate", "platenumber", "plateno", "licenseplate", "licenceplate", "licenseplatenumber",
        "licenceplatenumber", "lp", "lptext", "lpnumber", "registration", "words", "word", "transcription", "groundtruth",
        "string", "label")  # fmt: skip
SPLIT = ("split", "subset", "partition")
KIND = ("class", "classname", "category", "categoryname", "label", "labelname")
SIZES = (("imagewidth", "imageheight"), ("imgwidth", "imgheight"), ("imagew", "imageh"), ("width", "height"))
# Columns that say where a plate is, and how: its four corners, two opposite ones, or a corner with width and height.
CORNERS, ENDS, SIDES = "corners", "ends", "sides"
PLACES = (
    (CORNERS, ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")),
    (ENDS, ("xmin", "ymin", "xmax", "ymax")),
    (ENDS, ("x1", "y1", "x2", "y2")),
    (ENDS, ("x0", "y0", "x1", "y1")),
    (ENDS, ("left", "top", "right", "bottom")),
    (SIDES, ("x", "y", "w", "h")),
    (SIDES, ("x", "y", "width", "height")),
    (SIDES, ("left", "top", "width", "height")),
    (SIDES, ("xmin", "ymin", "width", "height")),
    (CORNERS, ("corners",)),
    (CORNERS, ("polygon",)),
    (CORNERS, ("points",)),
    (ENDS, ("xyxy",)),
    (SIDES, ("xywh",)),
    (SIDES, ("bbox",)),
    (SIDES, ("boundingbox",)),
    (SIDES, ("box",)),
)
_OF_A_PLATE = re.compile(r"(?:bbox|box|bndbox|boundingbox|plate|lp|licenseplate|licenceplate|roi)(?=.)")
_CORNER = "(?:min|max|cent(?:er|re)|start|end|tl|tr|bl|br|(?:top|bottom|upper|lower)?(?:left|right)|top|bottom)"
_LIKE_A_PLACE = re.compile(
    rf"[xywh]\d*|[xy]c|c[xy]|{_CORNER}[xy]|[xy]{_CORNER}|left|top|right|bottom"
    "|.*(?:bbox|xyxy|xywh|polygon|vertices|coord|segmentation|keypoint|landmark|shapeattributes).*"
    "|.*(?:box|boxes|corners?|points|quad|rect|rectangle)"
)
SEGMENTED = ("path", "state", "text")
_WORDS = "such as image_path, filename, file, image, name; plate_text, plate, label, words"
_TURNS = ("angle", "rotation", "theta")  # of a box; of a crop they are no matter
_MANY = 4  # numbers in one field: a place
MOST_LINES = 100  # of a record: with more, a quotation mark is one that nothing closes
_HEAD = 1 << 20  # bytes that hold a header, or a first row


@dataclass(frozen=True)
class Columns:
    """What columns are about, by their names; "" and () where there are none.

    places: of a plate's place, as `form` says it: CORNERS (x, y, x, y, ...), ENDS (x, y, x, y) or SIDES (x, y, width,
    height; a field bbox of four numbers too, as COCO has it), each number in a column or all of them in one.
    size: of the picture's width and height. kind: of a plate's class. obscure: look like a place and are not understood.
    """

    path: str
    text: str
    split: str
    places: tuple[str, ...]
    form: str
    size: tuple[str, ...]
    kind: str
    obscure: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row. number: of the line it begins in. raw: its characters, with its line end. fault: why it cannot be used.

    fields: by column, of a CSV all text: a plate may read NULL, 00123 or 1E5; what can be known of them where there is a
    fault; None for a header and for blank lines.
    """

    number: int
    raw: str
    fields: dict | None = None
    fault: str = ""


class Table:
    """A table from a file's text. columns: their names in order, () where they have none; of JSONL its first object's."""

    def __init__(self, text: str, jsonl: bool):
        self.jsonl, self._lines = jsonl, lines_of(text)
        first = next((line for line in self._lines if line.strip()), "")
        self.delimiter = max(DELIMITERS, key=first.count)
        self._first = next((cells for _, raw, cells, _ in self._records(0) if raw.strip()), []) if not jsonl else []
        self.headed = not any(map(is_picture, self._first))
        if jsonl:
            self.columns = next((tuple(row.fields) for row in self.rows() if row.fields), ())
        else:
            self.columns = _distinct(self._first) if self.headed else _unnamed(self._first)

    def rows(self) -> Iterator[TableRow]:
        """Every row, the header and blank lines too, in order: their `raw` together is the text."""
        return self._objects() if self.jsonl else self._cells()

    def _objects(self) -> Iterator[TableRow]:
        for number, line in enumerate(self._lines, 1):
            fields = _object(line)
            fault = "" if fields is not None else "not a JSON object in one line"
            yield TableRow(number, line, fields or {}, fault) if line.strip() else TableRow(number, line)

    def _cells(self) -> Iterator[TableRow]:
        headed, width, columns = self.headed, len(self.columns), columns_of(self.columns)
        needed = {columns.path, columns.text, *columns.places, *columns.size} if columns.path else {*self.columns}
        for number, raw, cells, fault in self._records(width):
            if headed or not raw.strip():
                headed = headed and not raw.strip()
                yield TableRow(number, raw)
                continue
            if len(cells) > width and not any(cells[width:]):
                cells = cells[:width]
            if len(cells) > width or needed.intersection(self.columns[len(cells) :]):
                fault = fault or f"the row has not as many fields as the header: {len(cells)}, not {width}"
            yield TableRow(number, raw, dict(zip(self.columns, cells)), fault)

    def _records(self, width: int) -> Iterator[tuple[int, str, list[str], str]]:
        """Line number, characters, cells and fault of each record, which is a line unless a quoted cell has several."""
        at = 0
        while at < len(self._lines):
            cells, count = self._record(at)
            if cells is None or (count > 1 and self._swallows(at, count, width)):
                cells, count, fault = self._split(self._lines[at]), 1, "a stray quotation mark: close it, or remove it"
            else:
                fault = ""
            yield at + 1, "".join(self._lines[at : at + count]), cells, fault
            at += count

    def _record(self, at: int) -> tuple[list[str] | None, int]:
        """Cells of the record that begins in a line, None where its quotation marks are wrong, and its lines' number."""
        if '"' not in self._lines[at]:
            return self._split(self._lines[at]), 1
        lines = self._lines[at : at + MOST_LINES]
        reader = csv.reader(iter(lines), delimiter=self.delimiter, strict=True, skipinitialspace=True)
        try:
            return next(reader), reader.line_num
        except csv.Error:
            return None, 1

    def _swallows(self, at: int, count: int, width: int) -> bool:
        """Whether a record of several lines holds rows: lines with as many cells as a row has, quoted or not."""
        whole = [len(self._split(line)) >= width for line in self._lines[at : at + count]]
        return sum(whole) > 1 or any(whole[1:-1])

    def _split(self, line: str) -> list[str]:
        """The cells of a line by its delimiters alone."""
        return [cell.lstrip(" ").strip('"') for cell in line.rstrip("\r\n").split(self.delimiter)]


@lru_cache(maxsize=1024)
def columns_of(names: tuple[str, ...]) -> Columns:
    """What columns of such names are about."""
    folded = {_folded(name): name for name in reversed(names)}
    bare = {_OF_A_PLATE.sub("", key, 1): name for key, name in reversed(folded.items())}
    form, keys = next(((form, keys) for form, keys in PLACES if {*keys} <= {*bare}), ("", ()))
    places = tuple(bare[key] for key in keys)
    path, text, split = (_one_of(words, folded) for words in (PATH, TEXT, SPLIT))
    kind = _one_of(KIND, {key: name for key, name in folded.items() if name != text})
    free = {key: name for key, name in folded.items() if name not in places}
    size = next((tuple(free[key] for key in keys) for keys in SIZES if {*keys} <= {*free}), ())
    known = {path, text, split, kind, *size, *places}
    obscure = tuple(name for name in names if name not in known and _is_like_a_place(_folded(name), bool(places)))
    return Columns(path, text, split, places, form, size, kind, obscure)


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _is_like_a_place(key: str, placed: bool) -> bool:
    """placed: other columns say where a plate is."""
    return any(map(_LIKE_A_PLACE.fullmatch, (key, _OF_A_PLATE.sub("", key, 1)))) or (placed and key in _TURNS)


def _one_of(words: tuple[str, ...], folded: dict[str, str]) -> str:
    return next((folded[word] for word in words if word in folded), "")


def obscure_fields(row: TableRow) -> list[str]:
    """The columns of a row that look like a plate's place by name or value, and are not understood."""
    columns = columns_of(tuple(row.fields))
    known = {columns.path, columns.text, *columns.places}
    return [*columns.obscure, *(name for name, value in row.fields.items() if name not in known and _is_place(value))]


def _is_place(value: object) -> bool:
    """Whether a value, or one in it, is as many numbers as a place has, or fields that look like one."""
    if isinstance(value, str):
        cells = re.split(r"[\s,;]+", value.strip("[](){} "))
        return len(cells) >= _MANY and all(re.fullmatch(r"[\[(]*-?[\d.]+[\])]*", cell) for cell in cells)
    if isinstance(value, dict):
        columns = columns_of(tuple(value))
        return bool(columns.places or columns.obscure) or any(map(_is_place, value.values()))
    return isinstance(value, list) and (len(_numbers(value)) >= _MANY or any(map(_is_place, value)))


def _numbers(values: list) -> list[float]:
    """The numbers in a list and in the lists in it."""
    parts = [_numbers(value) if isinstance(value, list) else [value] for value in values]
    return [value for part in parts for value in part if isinstance(value, int | float)]


def parse(name: str, text: str) -> Table:
    """The table in a file of that name."""
    return Table(text, name.lower().endswith(".jsonl"))


def sound_rows(path: Path) -> list[TableRow]:
    """The rows of a table. Raises PlatemintError, naming the line, for one that cannot be used."""
    rows = [row for row in parse(path.name, read_text(path)).rows() if row.fields is not None]
    if fault := next((row for row in rows if row.fault), None):
        raise PlatemintError(f"{path}, line {fault.number}: {fault.fault}")
    return rows


def is_headed(name: str, text: str) -> bool:
    """Whether a text, or its beginning, is a table with a header that names the columns of a corpus."""
    table = parse(name, text)
    return not misfit(table) and table.headed


def is_table(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def is_crop_table(path: Path) -> bool:
    """Whether a file is a table with the columns of a corpus; a text file is one where its first line says so."""
    if is_table(path):
        return not misfit(parse(path.name, head(path)))
    return path.suffix.lower() in HEADED and is_headed(path.name, head(path))


def head(path: Path) -> str:
    """The first lines of a file, "" where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return decoded(file.read(_HEAD), "replace")
    except OSError:
        return ""


def read_table(path: Path, unreadable: Collection[str] = UNREADABLE) -> Corpus | None:
    """A corpus of crops from a table, None where its rows say where in their pictures plates are.

    Paths count from the table's own folder. unreadable: as `Corpus` has it. Raises PlatemintError where it has not the
    columns, or one that looks like a plate's place and is not understood.
    """
    table, corpus = parse(path.name, read_text(path)), Corpus(path.parent, unreadable)
    if has_places(table):
        return None
    if fault := misfit(table):
        raise PlatemintError(f"{path}: {fault}")
    for row in table.rows():
        if row.fields is not None:
            _add(corpus, row, path)
    return corpus


def misfit(table: Table) -> str:
    """Why a table is none of a corpus's, "" where it is one."""
    columns = columns_of(table.columns)
    if columns.path and columns.text:
        return ""
    there = ", ".join(map(str, table.columns)) or "none that its first row names"
    return f"needs the columns path and text, or others that mean these ({_WORDS}), and rows below; it has: {there}"


def has_places(table: Table) -> bool:
    """Whether rows say where in their pictures plates are."""
    rows = table.rows() if table.jsonl else ()  # of which each has columns of its own
    columns = {table.columns, *(tuple(row.fields) for row in rows if row.fields)}
    return any(columns_of(names).places for names in columns)


def _add(corpus: Corpus, row: TableRow, path: Path) -> None:
    columns = columns_of(tuple(row.fields))
    if obscure := obscure_fields(row):
        raise PlatemintError(obscure_place(path, row, obscure))
    name, text, split = (row.fields.get(column) for column in (columns.path, columns.text, columns.split))
    if row.fault:
        corpus.put_aside(str(name or ""), str(row.number), row.fault)
    else:
        corpus.add(str(name or ""), text, str(split or ""), row.number)


def obscure_place(path: Path, row: TableRow, obscure: Collection[str]) -> str:
    """What is said of columns that look like a plate's place."""
    return (
        f"{path}, line {row.number}: {', '.join(obscure)}: looks like a plate's place, and is not understood; "
        "known are xmin,ymin,xmax,ymax, x1,y1,x2,y2, x,y,w,h, x1,y1,...,x4,y4, bbox and corners: give it one of these "
        "names if it is that, or take it out"
    )


def _object(line: str) -> dict | None:
    try:
        fields = parse_json(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _unnamed(cells: list[str]) -> tuple[str, ...]:
    """Names for the columns of a table without a header, () where it is not plain which is which.

    A picture's name beside a text, or OpenALPR's name, state, text. Beside a split's name it is a list of that split.
    """
    if len(cells) == 2 and any(map(split_named, filter(lambda cell: not is_picture(cell), cells))):
        return ()
    named = [is_picture(cell) for cell in cells]
    known = {(True, False): ("path", "text"), (False, True): ("text", "path"), (True, False, False): SEGMENTED}
    return known.get(tuple(named), ())


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Names of columns, no two alike."""
    names = [name.strip() for name in names]
    return tuple(name if name not in names[:i] else f"{name} (column {i + 1})" for i, name in enumerate(names))
