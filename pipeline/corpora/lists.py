"""Files that name a dataset's pictures, a line each, most often those of a split.

CCPD's splits/train.txt, RodoSol's split.txt (`path;training`), YOLO's train.txt, VOC's ImageSets (stems, with 1, 0 or
-1 behind). Lines that name no picture, or say more about it, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from platemint.pipeline.corpora.records import Folder, split_named, stem, words
from platemint.pipeline.corpora.rewording import Rewording


class Entry(NamedTuple):
    """A line of a list: the name in it, what stands behind, the picture meant ("" for none), the split it is given."""

    row: int
    name: str
    rest: str
    picture: str
    split: str


def find_lists(folder: Folder, notes: dict[str, str]) -> list[str]:
    """The text files of which at least half the lines name a picture."""
    return [path for path in folder.of_kind(".txt", ".lst") if path not in notes and _is_list(path, folder)]


def entries(path: str, text: str, folder: Folder) -> Iterator[Entry]:
    for row, line in enumerate(text.splitlines(keepends=True), 1):
        for cut in reversed([*re.finditer(r"[;,\t ]|\s*$", line)]):  # names may hold blanks
            name, rest = line[: cut.start()], line[cut.start() :]
            picture = folder.find(name, path) if _says_little(rest) else ""
            if picture in folder.pictures:
                break
            picture = ""
        yield Entry(row, name, rest, picture, split_named(rest) or split_named(stem(path)))


def rewrite_list(path: str, text: str, new: Rewording) -> str:
    return "".join(
        (new.reference(entry.name, entry.picture) if entry.name else "") + entry.rest
        for entry in entries(path, text, new.folder)
        if entry.picture in new.paths or not entry.name
    )


def _is_list(path: str, folder: Folder) -> bool:
    found = [bool(entry.picture) for entry in entries(path, folder.peek(path), folder) if entry.name]
    return any(found) and sum(found) >= len(found) / 2


def _says_little(rest: str) -> bool:
    """Whether nothing but flags and a split stand behind a name: no text of a plate."""
    return all(word in ("0", "1") or split_named(word) for word in words(rest))
