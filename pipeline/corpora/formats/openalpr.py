"""OpenALPR's endtoend: beside X.jpg an X.txt with a line `X.jpg x y w h TEXT` for each plate, parted by tabs.

The line may name another suffix than the picture has (HPM9362.jpeg is called HPM9362.jpg); in br/, X is the plate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from posixpath import basename

from platemint.pipeline.corpora.labels import ended
from platemint.pipeline.corpora.records import Corners, Folder, Record, bounds, box, folded, numbers, stem
from platemint.pipeline.corpora.rewording import Rewording

_LINE = re.compile(r"[^\t\n]+(\t-?[\d.]+){4}\t[^\t\n]*\n?")


def find(folder: Folder) -> dict[str, str]:
    return folder.paired(".txt", lambda text: bool(_LINE.match(text)))


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    """Raises ValueError for a line in another form."""
    if not text.strip():
        raise ValueError("the annotation is empty")
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split("\t")
        if len(fields) != 6 or folded(stem(fields[0])) != folded(stem(picture)):
            raise ValueError(f"line {number} is not `name x y w h text` of this picture, parted by tabs")
        yield Record(picture, fields[5].strip(), _corners(fields[1:5]), row=str(number))


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    return "".join(_renewed(line, picture, new) for line in text.splitlines(keepends=True))


def add(note: str, text: str, found: dict[str, list[Corners]], folder: Folder) -> str:
    lines = []
    for picture, plates in found.items():
        for x1, y1, x2, y2 in map(bounds, plates):
            lines.append(f"{basename(picture)}\t{x1:g}\t{y1:g}\t{x2 - x1:g}\t{y2 - y1:g}\t\n")
    return ended(text) + "".join(lines)


def _renewed(line: str, picture: str, new: Rewording) -> str:
    name, *place, label = line.split("\t")
    plain = label.strip()
    text = new.text(picture, plain, _corners(place))
    label = label.replace(plain, text) if plain else text + label
    return "\t".join([new.reference(name, picture), *place, label])


def _corners(place: list[str]) -> Corners:
    x, y, width, height = numbers(place)
    return box(x, y, x + width, y + height)
