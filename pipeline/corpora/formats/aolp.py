"""AOLP: one plate in each picture of Subset_AC, Subset_LE and Subset_RP.

groundtruth_localization/N.txt holds x1, y1, x2, y2, a line each, floats, sometimes swapped; groundtruth_recognition/
N.txt a character in each line, as many as the new text has. Or one line `TEXT x1 y1 x2 y2 p1x p1y ... p4x p4y` from
https://github.com/TJ-CVRSG/tiny_alpr: box, then corners from the lower right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from platemint.pipeline.corpora.records import Folder, Record, agreeing, box, numbers, points
from platemint.pipeline.corpora.rewording import NO_TEXT, Rewording

LOCALIZATION, RECOGNITION = "groundtruth_localization", "groundtruth_recognition"
_KEYPOINTS = re.compile(r"\s*(\S{4,})((?:\s+-?[\d.]+){12})\s*")
_BOX = re.compile(r"\s*-?[\d.]+(\s+-?[\d.]+){3}\s*")


def find(folder: Folder) -> dict[str, str]:
    boxes = folder.paired(".txt", lambda text: bool(_BOX.fullmatch(text)))
    return _keypoints(folder) | {note: picture for note, picture in boxes.items() if _is_original(note)}


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    """Raises ValueError for a file in another form. Where a picture has both forms, the one with the corners counts."""
    if RECOGNITION in note or (LOCALIZATION in note and picture in _keypoints(folder).values()):
        return
    match = _KEYPOINTS.fullmatch(text)
    if match and not _is_original(note):
        values = numbers(match[2].split())
        yield Record(picture, match[1], agreeing(points(values[4:]), box(*values[:4])))
    elif LOCALIZATION in note and _BOX.fullmatch(text):
        label = note.replace(LOCALIZATION, RECOGNITION)
        label = "".join(folder.text(label).split()) or None if label in folder.files else None
        yield Record(picture, label, box(*numbers(text.split())))
    else:
        raise ValueError("the annotation is neither four numbers nor a text and twelve numbers")


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    if RECOGNITION in note:
        return _lettered(text, new.text(picture, "".join(text.split())))
    match = _KEYPOINTS.fullmatch(text)
    if match and not _is_original(note):
        return text[: match.start(1)] + (new.text(picture, match[1]) or NO_TEXT) + text[match.end(1) :]
    return text


@lru_cache(maxsize=1)
def _keypoints(folder: Folder) -> dict[str, str]:
    """The files of tiny_alpr's form and their pictures."""
    found = folder.paired(".txt", lambda text: bool(_KEYPOINTS.fullmatch(text)))
    return {note: picture for note, picture in found.items() if not _is_original(note)}


def _is_original(note: str) -> bool:
    return LOCALIZATION in note or RECOGNITION in note


def _lettered(text: str, label: str) -> str:
    """A file of one character per line with those of another text."""
    if label == "".join(text.split()):
        return text
    end = "\r\n" if "\r\n" in text else "\n"
    return end.join(label) + (end if text.endswith("\n") else "")
