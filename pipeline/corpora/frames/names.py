"""Crops whose names begin with their text: ABC1234_anything.jpg."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.corpora.frames.records import Folder, Mark, stem
from pipeline.corpora.frames.rewording import Rewording


def fits(folder: Folder) -> bool:
    """Whether a name has a digit before its underscore: the least that tells texts from words."""
    return any(any(map(str.isdigit, _text(picture))) for picture in folder.pictures)


def read_names(folder: Folder) -> Iterator[Mark]:
    for picture in folder.pictures:
        if _text(picture):
            yield Mark(picture, _text(picture))


def rename(name: str, picture: str, new: Rewording) -> str:
    """The new stem of a picture's name."""
    text, underscore, rest = name.partition("_")
    return new.text(picture, text) + underscore + new.swap(rest, picture) if underscore else new.swap(name, picture)


def _text(picture: str) -> str:
    text, underscore, _ = stem(picture).partition("_")
    return text if underscore else ""
