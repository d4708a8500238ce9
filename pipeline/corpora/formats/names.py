"""Crops named after their plates: ABC1234.jpg, ABC1234_anything.jpg. Other pictures beside them are set aside."""

from __future__ import annotations

from collections.abc import Iterator

from platemint.pipeline.corpora.filenames import NOT_A_TEXT, are_texts, may_be_text, split_stem
from platemint.pipeline.corpora.records import Folder, Record
from platemint.pipeline.corpora.rewording import NO_TEXT, Rewording
from platemint.pipeline.plate import normalise, says_unreadable


def fits(folder: Folder) -> bool:
    return are_texts(folder.pictures, (*folder.unreadable, NO_TEXT))


def read_names(folder: Folder) -> Iterator[Record]:
    for picture in folder.pictures:
        text = split_stem(picture)[0]
        named = may_be_text(text) or says_unreadable(normalise(text), (*folder.unreadable, NO_TEXT))
        yield Record(picture, text) if named else Record(picture, fault=NOT_A_TEXT)


def rename(name: str, picture: str, new: Rewording) -> str:
    """The new stem of a picture's name."""
    text, rest = split_stem(picture)
    text, rest = new.text(picture, text), new.swap(rest, picture)
    return text + rest if text else NO_TEXT + (rest or "_")  # then a number behind it is no part of the text
