"""literals: what stands in an annotation file because of its format: coordinates, sizes, ids, keys, names of classes.

A plate may read 1280 or IMAGES. Such a text, found in a width or a key, says nothing of a plate. What a file holds of
this kind is known by its fields, never by its form: a number counts where its key, tag or column is known to hold numbers, a
word where keys or names of classes stand and the word is known. A file that is not sound JSON, XML, CSV or lines of
`key: value` or of numbers has no literals, so that every text in it counts.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from platemint.pipeline.anonymize.file_parts import Bytes

Span = tuple[int, int]

# Keys, tags, columns and names of classes of the formats that `pipeline.corpora.datasets` knows.
WORDS = frozenset(
    """annotation annotations attribute attributes area background bbox bike bndbox box bus camera candidates captured
    car categories category char class coco color contributor corner corners counts creation data database dataset date
    depth description difficult file filename filepath flickr folder height icon id ids image imagedata images img info
    instance iscrowd key keypoints label labels labelled layout licence licences license licenses location lp make
    matricula model motorcycle name names number numbers object occluded occlusion orientation owner path placa plate
    plates points polygon pose position reading readings region results root score scores segmentation segmented shape
    shapes size source split splits state str string supercategory tag test text texts thing track train training
    transcription truck truncated type unspecified url val valid validation value value values van vehicle vehicles
    version video width word year""".split()
)
# Last words of keys that hold numbers and no text: places, sizes, likelihoods, times.
NUMBERS = frozenset(
    """angle area bbox bndbox bottom box boxes bytes cx cy conf confidence corner corners crowd depth difficult fps frame h
    height index iscrowd keypoints left likelihood limit occluded orientation points polygon right rotation samples score
    scores segmentation segmented size time timestamp top truncated version vertices visibility w width x xc xmax xmin xtl xbr
    y yc year ymax ymin ytl ybr""".split()
)
IDS = frozenset(
    f"{of}id" for of in ("", "image", "category", "annotation", "class", "frame", "track", "video", "object")
)
LONG_ID = 6  # digits from which on an id may be a plate itself
NAMES = frozenset(("name", "names", "supercategory"))  # of classes

_ONE = rb"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_NUMBER, _NUMERIC = re.compile(_ONE), re.compile(rb"\s*%b(?:[\s,]+%b)*\s*" % (_ONE, _ONE))  # one, and one or several
_WORD = re.compile(rb"(?:\xef\xbb\xbf)?[A-Za-z][A-Za-z _./-]*\d?")
_JSON = re.compile(rb'"((?:[^"\\]|\\.)*)"(\s*:)?|([-\d][\d.eE+-]*)|([{}\[\]])')
_XML = re.compile(
    rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|<(/?)([^\s<>/]+)((?:[^<>\"']|\"[^\"]*\"|'[^']*')*)>", re.DOTALL
)
_ATTRIBUTE = re.compile(rb"([^\s=]+)\s*=\s*[\"']([^\"']*)[\"']")
_FIELD = re.compile(rb"[ \t]*(?:- )?([A-Za-z][\w.-]*(?: +[\w.-]+)*)[ \t]*:[ \t]*((?:.*\S)?)\s*")
_CELL = {d: re.compile(rb'(?:^|(?<=%b))("(?:[^"]|"")*"|[^%b"]*)(?=%b|$)' % (d, d, d)) for d in (b",", b";", b"\t")}
_PLACED = re.compile(rb"[^\t]+\t((?:-?[\d.]+\t){4})[^\t]*\s*")  # OpenALPR: name, x, y, w, h, text
_FRACTION = re.compile(rb"-?[01](\.\d*)?(?:e-\d+)?")
_OUTLINED = re.compile(rb"\s*\S+((?:\s+-?\d+(?:\.\d+)?){8,12})\s*")  # LP-2024, tiny_alpr: text, corners
_FOUR = re.compile(rb"\s*(-?\d+\.\d+\s+){3}-?\d+\.\d+\s*")  # AOLP: a box and nothing else


def literals(path: str, data: Bytes) -> list[Span]:
    """Where a file's literals stand: start and end in bytes. path: its suffix decides how it is parsed."""
    suffix = path.lower().rpartition(".")[2]
    data = bytes(data)
    try:
        return sorted(_READERS.get(suffix, _nothing)(data))
    except (ValueError, RecursionError, ElementTree.ParseError, csv.Error):
        return []


def _nothing(data: bytes) -> Iterator[Span]:
    return iter(())


def _json(data: bytes, begin: int = 0) -> Iterator[Span]:
    json.loads(data.decode("utf-8-sig"))  # else strings might begin where they end
    key, outer = b"", []
    for token in _JSON.finditer(data):
        text, is_key, number, bracket = token.groups()
        if is_key:
            key = text
        if bracket and bracket in b"{[":
            outer.append(key)
        elif bracket:
            key = outer.pop()
        span = token.span(3 if number else 1)
        if is_key and _is_word(text) or not bracket and not is_key and _is_literal(key, number or text):
            yield begin + span[0], begin + span[1]


def _json_lines(data: bytes) -> Iterator[Span]:
    for start, line in _lines(data):
        if line.strip():
            yield from _json(line, start)


def _xml(data: bytes) -> Iterator[Span]:
    if re.search(rb"<!(DOCTYPE|ENTITY)", data, re.IGNORECASE):
        return
    ElementTree.fromstring(data)
    opened, end = b"", 0
    for tag in _XML.finditer(data):
        close, name, attributes = tag.groups()
        if name and not close:
            opened = name
            if _is_word(name):
                yield tag.span(2)
            for attribute in _ATTRIBUTE.finditer(data, *tag.span(3)):
                yield from _pair(attribute)
        elif name and name == opened and _is_literal(name, data[end : tag.start()].strip()):
            yield end, tag.start()
        if name and close and _is_word(name):
            yield tag.span(2)
        end = tag.end()


def _table(data: bytes) -> Iterator[Span]:
    lines = list(_lines(data))
    if not lines:
        return
    delimiter = max(_CELL, key=lines[0][1].count)
    header = _cells(lines[0][1], delimiter)
    names = [_bare(cell[1]) for cell in header]
    if any(map(_NUMBER.fullmatch, names)) or not any(map(_is_word, names)):
        return  # its first line is a row
    yield from (cell.span(1) for cell, name in zip(header, names) if _is_word(name) or _holds_numbers(name))
    for start, line in lines[1:]:
        cells = _cells(line, delimiter)
        if len(cells) == len(names):  # else nobody knows which cell is which
            for cell, name in zip(cells, names):
                if _is_literal(name, _bare(cell[1])):
                    yield start + cell.start(1), start + cell.end(1)


def _text(data: bytes) -> Iterator[Span]:
    """Lines of numbers, corners, of `key: value`, of a name and numbers, or of a name and JSON."""
    if _FOUR.fullmatch(data):
        yield 0, len(data)
        return
    for start, line in _lines(data):
        if places := _corner_lines_numbers(line):
            yield start, start + places
        elif _NUMERIC.fullmatch(line):
            yield from _numbers(start, line)
        elif field := _FIELD.fullmatch(line):
            yield from ((start + a, start + b) for a, b in _pair(field))
        elif placed := _PLACED.fullmatch(line):
            yield start + placed.start(1), start + placed.end(1)
        elif outlined := _OUTLINED.fullmatch(line):
            yield start + outlined.start(1), start + outlined.end(1)
        elif b"\t[{" in line:
            yield from _json(line.partition(b"\t")[2], start + line.index(b"\t") + 1)


def _corner_lines_numbers(line: bytes) -> int:
    """How far a line of alpr-unconstrained, `4,x1,...,x4,y1,...,y4,TEXT,`, holds numbers; 0 for any other line."""
    fields = line.split(b",")
    count = int(fields[0]) if fields[0].isdigit() else 0
    numbers = fields[: 2 * count + 1]
    places = count >= 3 and len(numbers) == 2 * count + 1 and all(map(_FRACTION.fullmatch, numbers[1:]))
    return len(b",".join(numbers)) if places else 0


def _numbers(start: int, line: bytes) -> Iterator[Span]:
    """Of a class and at least four numbers all; what begins like a text stays out, and fewer may be one."""
    words = [*re.finditer(rb"\S+", line)]
    if len(words) > 4:
        first = words[len(re.sub(rb"\D", b"", words[0][0])) > 3]
        yield start + first.start(), start + len(line)


def _pair(match: re.Match[bytes]) -> Iterator[Span]:
    """Of a key and its value those that are literals."""
    if _is_word(match[1]):
        yield match.span(1)
    if _is_literal(match[1], match[2]):
        yield match.span(2)


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Where each line begins, and the line without its end."""
    for line in re.finditer(rb"[^\r\n]+", data):
        yield line.start(), line[0]


def _cells(line: bytes, delimiter: bytes) -> list[re.Match[bytes]]:
    return [*_CELL[delimiter].finditer(line)]


def _bare(cell: bytes) -> bytes:
    return cell.strip(b'"')


def _words(key: bytes) -> list[str]:
    """The words of a key, in lower case: image_id, imageId and image-id are image, id."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", key.decode("utf8", "replace"))]


def _is_word(text: bytes) -> bool:
    """Whether all of a text are words of formats, in letters of whatever case."""
    return bool(_WORD.fullmatch(text)) and all(word in WORDS or word in NUMBERS for word in _words(text))


def _holds_numbers(key: bytes) -> bool:
    words = _words(key) or [""]
    return words[-1] in NUMBERS or words[0] in ("position", "char")


def _is_literal(key: bytes, value: bytes) -> bool:
    """Whether what stands under a key does so because of the format."""
    if _holds_numbers(key):
        return bool(_NUMERIC.fullmatch(value))
    if "".join(_words(key)) in IDS:
        return bool(_NUMBER.fullmatch(value)) and len(value) < LONG_ID
    return key.lower().decode("utf8", "replace") in NAMES and _is_word(value)


_READERS = {
    "json": _json, "geojson": _json, "jsonl": _json_lines, "ndjson": _json_lines, "xml": _xml, "csv": _table,
    "tsv": _table, "txt": _text, "yaml": _text, "yml": _text,
}  # fmt: skip
