"""LP-2024: for images/X.jpg a labels/X.txt with a line `TEXT x1 y1 x2 y2 x3 y3 x4 y4` for each plate, in whole pixels.

`_` stands for a text that nobody can read. As the dataset's own lp_detect_draw.py has it
(https://github.com/LP32343738/LP2024).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from platemint.pipeline.corpora.labels import ended
from platemint.pipeline.corpora.records import Corners, Folder, Record, bounds, box, numbers, points
from platemint.pipeline.corpora.rewording import Rewording

UNREADABLE = "_"
_LINE = re.compile(r"\s*(?P<text>\S+)(?P<place>(?:\s+-?\d+){8})\s*")


def find(folder: Folder) -> dict[str, str]:
    return folder.paired(".txt", _fits)


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    """Raises ValueError for a line in another form."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            match = _LINE.fullmatch(line)
            if not match:
                raise ValueError(f"line {number} is not `TEXT x1 y1 x2 y2 x3 y3 x4 y4` in whole pixels")
            yield Record(picture, match["text"], _corners(match), row=str(number))


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    return "".join(_renewed(line, picture, new) for line in text.splitlines(keepends=True))


def add(note: str, text: str, found: dict[str, list[Corners]], folder: Folder) -> str:
    corners = (box(*bounds(plate)) for plates in found.values() for plate in plates)
    lines = [f"{UNREADABLE} {' '.join(f'{round(v)}' for point in plate for v in point)}\n" for plate in corners]
    return ended(text) + "".join(lines)


def _fits(text: str) -> bool:
    """Whether the first line is one. Where all numbers are 0 and 1, it is YOLO's."""
    match = _LINE.fullmatch(next((line for line in text.splitlines() if line.strip()), ""))
    return bool(match) and not {*match["place"].split()} <= {"0", "1"}


def _corners(match: re.Match[str]) -> Corners:
    return points(numbers(match["place"].split()))


def _renewed(line: str, picture: str, new: Rewording) -> str:
    if not (match := _LINE.fullmatch(line)):
        return line
    label = new.text(picture, match["text"], _corners(match)).replace(" ", "") or UNREADABLE
    return line[: match.start("text")] + label + line[match.end("text") :]
