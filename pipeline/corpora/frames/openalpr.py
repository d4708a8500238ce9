"""OpenALPR's endtoend: beside X.jpg an X.txt with a line `X.jpg x y w h TEXT` for each plate, parted by tabs.

The line may name another suffix than the picture has (HPM9362.jpeg is called HPM9362.jpg); in br/, X is the plate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.corpora.frames.records import Folder, Mark, box, folded, numbers, stem
from pipeline.corpora.frames.rewording import Rewording

_LINE = re.compile(r"[^\t\n]+(\t-?[\d.]+){4}\t[^\t\n]*\n?")


def find(folder: Folder) -> dict[str, str]:
    return folder.twins(".txt", lambda text: bool(_LINE.match(text)))


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Mark]:
    """Raises ValueError for a line in another form."""
    if not text.strip():
        raise ValueError("the annotation is empty")
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split("\t")
        if len(fields) != 6 or folded(stem(fields[0])) != folded(stem(picture)):
            raise ValueError(f"line {number} is not `name x y w h text` of this picture, parted by tabs")
        x, y, width, height = numbers(fields[1:5])
        yield Mark(picture, fields[5].strip(), box(x, y, x + width, y + height), row=str(number))


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    return "".join(_renewed(line, picture, new) for line in text.splitlines(keepends=True))


def _renewed(line: str, picture: str, new: Rewording) -> str:
    name, *place, label = line.split("\t")
    plain = label.strip()
    label = label.replace(plain, new.text(picture, plain)) if plain else label
    return "\t".join([new.reference(name, picture), *place, label])
