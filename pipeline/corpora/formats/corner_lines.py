"""Corner lines of alpr-unconstrained (https://github.com/sergiomsilva/alpr-unconstrained, Silva and Jung 2018).

Beside X.jpg an X.txt with a line `4,x1,x2,x3,x4,y1,y2,y3,y4,TEXT,` for each plate: how many corners, all x, all y as
parts of the picture's width and height, and the text, empty where nobody wrote one. With more corners the rectangle of
least area around them counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from platemint.pipeline.corpora.labels import ended
from platemint.pipeline.corpora.outlines import four_corners
from platemint.pipeline.corpora.records import Corners, Folder, Record, bounds, box, numbers
from platemint.pipeline.corpora.rewording import Rewording

_SLACK = 0.01  # relative coordinates reach beyond 1 by rounding


class Line(NamedTuple):
    """fields: all that commas part. place: of the text among them. outline: in parts of the picture."""

    fields: list[str]
    place: int
    outline: Corners

    @property
    def text(self) -> str:
        return self.fields[self.place].strip() if self.place < len(self.fields) else ""


def find(folder: Folder) -> dict[str, str]:
    return folder.paired(".txt", _fits)


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    """Raises ValueError for a line in another form."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                parsed = _parsed(line)
            except ValueError as fault:
                raise ValueError(f"line {number} is not `4,x1,...,x4,y1,...,y4,TEXT,`: {fault}") from None
            yield Record(picture, parsed.text, _corners(parsed, picture, folder), row=str(number))


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    return "".join(_renewed(line, picture, new) for line in text.splitlines(keepends=True))


def add(note: str, text: str, found: dict[str, list[Corners]], folder: Folder) -> str:
    lines = []
    for picture, plates in found.items():
        width, height = folder.size(picture)
        for corners in (box(*bounds(plate)) for plate in plates):
            values = [x / width for x, _ in corners] + [y / height for _, y in corners]
            lines.append(f"4,{','.join(f'{value:.9f}' for value in values)},,\n")
    return ended(text) + "".join(lines)


def _fits(text: str) -> bool:
    line = next((line for line in text.splitlines() if line.strip()), "")
    try:
        outline = _parsed(line).outline
    except ValueError:
        return False
    return all(-_SLACK <= value <= 1 + _SLACK for point in outline for value in point)


def _parsed(line: str) -> Line:
    """Raises ValueError for a line in another form."""
    fields = line.rstrip("\r\n").split(",")
    count = int(fields[0])
    values = fields[1 : 2 * count + 1]
    if count < 3 or len(values) < 2 * count:
        raise ValueError(f"{len(values)} numbers for {count} corners")
    x, y = numbers(values[:count]), numbers(values[count:])
    return Line(fields, 2 * count + 1, tuple(zip(x, y)))


def _corners(line: Line, picture: str, folder: Folder) -> Corners:
    width, height = folder.size(picture) if picture in folder.pictures else (1, 1)
    return four_corners(
        tuple((round(x * width, 3), round(y * height, 3)) for x, y in line.outline)
    )  # as `add` has them


def _renewed(line: str, picture: str, new: Rewording) -> str:
    if not line.strip():
        return line
    parsed = _parsed(line)
    label = new.text(picture, parsed.text, _corners(parsed, picture, new.folder))
    if label == parsed.text:
        return line
    fields = [*parsed.fields[: parsed.place], label, *map(new.other, parsed.fields[parsed.place + 1 :])]
    return ",".join(fields) + line[len(line.rstrip("\r\n")) :]
