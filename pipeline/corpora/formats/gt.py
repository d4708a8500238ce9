"""Crops with one text file of `name text` lines: gt.txt as the SPG's authors write it, PaddleOCR's rec_gt_train.txt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from posixpath import basename, dirname, join

from platemint.pipeline.corpora import table_rows, text_lines
from platemint.pipeline.corpora.labels import lines_of
from platemint.pipeline.corpora.records import Folder, Record
from platemint.pipeline.corpora.rewording import Rewording

SOURCES, TARGETS = text_lines.NAMES
NAMES = re.compile(r"gt2?\.txt|rec_gt.*\.txt")


def find(folder: Folder) -> dict[str, str]:
    notes = [note for note in folder.of_kind(".txt") if NAMES.fullmatch(basename(note))]
    return {note: "" for note in notes if not table_rows.is_headed(note, folder.peek(note))}


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    """The texts that pictures have; beside a gt2.txt, gt.txt holds others, which they shall get."""
    if not _of_targets(note, folder):
        for number, line in enumerate(lines_of(text), 1):
            if line.strip():
                name, _, label = _parts(line, note, folder)
                yield Record(_picture(name, note, folder), label, row=str(number))


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    return "".join(_renewed(line, note, new) if line.strip() else line for line in lines_of(text))


def _renewed(line: str, note: str, new: Rewording) -> str:
    """A line about a frame with its new text and name, "" for any other line."""
    body = line.strip()
    name, between, label = _parts(line, note, new.folder)
    picture = _picture(name, note, new.folder)
    if picture not in new.paths:
        return ""
    label = new.swap(label) if _of_targets(note, new.folder) else new.text(picture, label)
    if label and not between:
        between = "\t" if "\t" in line else " "
    return line.replace(body, new.reference(name, picture, note) + between + label)


def _parts(line: str, note: str, folder: Folder) -> tuple[str, str, str]:
    return text_lines.split_line(line, lambda name: _picture(name, note, folder) in folder.pictures)


def _picture(name: str, note: str, folder: Folder) -> str:
    within = folder.find(f"{text_lines.PICTURES}/{name}", note)
    return within if within in folder.pictures else folder.find(name, note)


def _of_targets(note: str, folder: Folder) -> bool:
    return basename(note) == TARGETS and join(dirname(note), SOURCES) in folder.files
