"""Pictures named after their plates: ABC1234.jpg, or with more behind an underscore, ABC1234_anything.jpg.

A name is taken for a text where it has both letters and digits, as plates have them. What counts pictures, such as
IMG1234 or frame0012, keeps its letters from picture to picture.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from math import sqrt
from pathlib import Path
from posixpath import basename, splitext

from platemint.pipeline.corpora.labels import Corpus, is_picture
from platemint.pipeline.plate import LONGEST, PROVINCES, UNREADABLE, characters, normalise, says_unreadable

NOT_A_TEXT = "its name does not begin with a plate's text, of letters and digits"
LEAST = 3  # characters
MOST_LETTERS = 4  # in a row: more make a word
_CAMERAS = re.compile(r"(IMG|DSC|DSCN|DSCF|PICT|MVI|VID|PIC|CAM|CROP)\d+")
_STEM = re.compile(r"(.*?)((?:_| ?\().*)?", re.DOTALL)


def read_named_pictures(folder: Path, unreadable: Collection[str] = UNREADABLE) -> Corpus:
    """A corpus from the names of a folder's pictures, at any depth; without labels where they are no texts."""
    corpus = Corpus(folder, unreadable)
    names, faults = [], []
    for place, _, files in os.walk(folder, onerror=faults.append):
        names += [Path(place, file).relative_to(folder).as_posix() for file in files if is_picture(file)]
    for name in sorted(names) if are_texts(names, unreadable) else ():
        text = split_stem(name)[0]
        if may_be_text(text) or says_unreadable(normalise(text), unreadable):
            corpus.add(name, text)
        else:
            corpus.put_aside(name, "", NOT_A_TEXT)
    for fault in faults:
        corpus.put_aside(fault.filename, "", f"folder cannot be read: {fault.strerror}")
    return corpus


def split_stem(path: str) -> tuple[str, str]:
    """Where the text of a picture stands in its name, and what is behind it: ABC1234_2.jpg and ABC1234 (2).jpg."""
    text, rest = _STEM.fullmatch(splitext(basename(path))[0]).groups()
    return text, rest or ""


def are_texts(paths: Collection[str], unreadable: Collection[str]) -> bool:
    """Whether pictures are named after their plates: at least half of them, and no great number after one."""
    found = [split_stem(path)[0] for path in paths]
    texts = {characters(normalise(text)) for text in found if may_be_text(text)}
    named = sum(may_be_text(text) or says_unreadable(normalise(text), unreadable) for text in found)
    return (
        differ_beyond_numbers(texts)
        and 2 * named >= len(found)
        and 2 * len(texts) >= sqrt(sum(map(may_be_text, found)))
    )


def may_be_text(text: str) -> bool:
    """Whether a word may be a plate's text."""
    plain = characters(normalise(text))
    letters = re.findall(r"[^\W\d_]+", plain)
    mixed = bool(letters) and any(map(str.isdigit, plain)) and plain.isalnum() and (text.isupper() or text.islower())
    fits = LEAST <= len(plain) <= LONGEST and not _CAMERAS.fullmatch(plain)
    return mixed and fits and max(map(len, letters)) <= MOST_LETTERS


def differ_beyond_numbers(texts: Collection[str]) -> bool:
    """Whether texts differ in more than numbers, as plates do; and are no hash values."""
    kinds = {text if set(text) & set(PROVINCES) else re.sub(r"\d+", "0", text) for text in texts}
    hashes = all(re.fullmatch("[0-9A-F]{8,}", text) for text in texts)
    return bool(texts) and not hashes and len(kinds) >= sqrt(len(texts))
