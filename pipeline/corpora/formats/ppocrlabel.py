"""PPOCRLabel and PaddleOCR's detection: label files with a line `picture<TAB>JSON` for each picture.

The JSON lists what is written there: [{"transcription": "ABC1234", "points": [[x, y], ...4], "difficult": false}, ...].
PPOCRLabel also cuts each one out, into crop_img/ with the texts in rec_gt.txt: these are read too. A crop that is not
listed there is a plate without a text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from posixpath import dirname, join

from platemint.pipeline.corpora.formats import gt
from platemint.pipeline.corpora.records import Corners, Folder, Record, bounds, box, numbers, points
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.parsing import parse_json

INCLUDES = ("gt",)
CROPS = "crop_img"


def find(folder: Folder) -> dict[str, str]:
    found = {note: "" for note in folder.of_kind(".txt") if _is_label(folder.peek(note))}
    return found and found | gt.find(folder)


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    """Lines in another form are faults of their pictures."""
    if not _is_label(text):
        yield from gt.read(note, text, picture, folder)
        return
    for number, line in enumerate(text.splitlines(), 1):
        name, things = _parts(line)
        path = folder.find(name, note)
        if things is None:
            yield Record(path if name else note, row=str(number), fault="not a name, a tab and a list in JSON")
        yield from (_mark(thing, path, str(number)) for thing in things or ())
    for crop in sorted(_crops(note, folder)):
        yield Record(crop)


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    if not _is_label(text):
        return gt.rewrite(note, text, picture, new)
    return "".join(_renewed(line, note, new) for line in text.splitlines(keepends=True))


def _is_label(text: str) -> bool:
    """Whether the first line of a file, or its beginning, is a label's."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    name, tab, rest = line.partition("\t")
    return bool(name and tab) and (rest.strip() == "[]" or rest.startswith("[{") and '"transcription"' in rest)


def _parts(line: str) -> tuple[str, list[dict] | None]:
    """The name in a line and what it lists; None where it is in another form, [] where it is blank."""
    name, _, rest = line.partition("\t")
    try:
        things = parse_json(rest) if line.strip() else []
    except ValueError:
        return name, None
    is_list = isinstance(things, list) and all(isinstance(thing, dict) for thing in things)
    return name, things if is_list else None


def _mark(thing: dict, path: str, row: str) -> Record:
    try:
        return Record(path, str(thing["transcription"]), _corners(thing["points"]), row)
    except (KeyError, TypeError, ValueError):
        return Record(path, row=row, fault="no transcription, or not points of two numbers")


def _corners(outline: list) -> Corners:
    values = numbers(value for x, y in outline for value in (x, y))
    return points(values) if len(values) == 8 else box(*bounds(points(values)))


def _crops(note: str, folder: Folder) -> set[str]:
    """The crops beside a label file that no list of texts names."""
    place = join(dirname(note), CROPS) + "/"
    crops = {path for path in folder.pictures if path.startswith(place)}
    listed = {record.picture for path in gt.find(folder) for record in gt.read(path, folder.text(path), "", folder)}
    return crops - listed if crops else crops


def _renewed(line: str, note: str, new: Rewording) -> str:
    """A line about a frame with its new texts and name, "" for any other line."""
    name, things = _parts(line)
    picture = new.folder.find(name, note) if line.strip() else ""
    if picture not in new.paths:
        return "" if line.strip() else line
    renewed = [
        thing | {"transcription": new.text(picture, str(thing["transcription"]), _corners(thing["points"]))}
        for thing in things
    ]
    things_text = line.partition("\t")[2]
    end = things_text[len(things_text.rstrip()) :]
    things_text = things_text if renewed == things else json.dumps(renewed, ensure_ascii=line.isascii()) + end
    return f"{new.reference(name, picture)}\t{things_text}"
