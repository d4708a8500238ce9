"""Texts of plates that stand in names alone: pictures called 8940_DB766UD.jpg whose annotations have no texts.

No list says which part of a name is a plate. It is taken for one where it has letters and digits as plates have them,
and where letters differ from picture to picture: what counts pictures, such as IMG1234 or frame0012, keeps its letters.
"""

from __future__ import annotations

import re
from math import sqrt
from posixpath import splitext

from pipeline.corpora.frames.records import Dataset
from pipeline.plate import characters, normalise

LENGTHS = range(5, 10)  # characters of a text that is looked for
MOST_LETTERS = 4  # in a row: more make a word
_PIECE = re.compile(r"[^\W_]+(?:[-· .][^\W_]+)*")  # a text may stand with separators in it
_LETTERS = re.compile(r"[^\W\d_]+")


def find(dataset: Dataset) -> list[str]:
    """The texts in names of pictures that have plates and no text of one, where names hold texts."""
    told = {frame.path for frame in dataset.frames if any(spot.text for spot in frame.spots)}
    if not any(frame.spots and frame.path not in told for frame in dataset.frames):
        return []
    found = {text for path in dataset.folder.pictures - told for text in _texts(splitext(path)[0])}
    kinds = {re.sub(r"\d+", "0", text) for text in found}
    hexadecimal = all(set(text.lower()) <= set("0123456789abcdef") for text in found)
    return [] if hexadecimal or len(kinds) < sqrt(len(found)) else sorted(found)


def _texts(path: str) -> set[str]:
    """The parts of a name that look like a plate's text: whole runs of letters and digits, else joined ones."""
    texts = set()
    for piece in _PIECE.findall(path):
        runs = [run for run in re.split(r"[-· .]", piece) if _is_text(run)]
        texts |= {characters(normalise(text)) for text in runs or [piece] if _is_text(text)}
    return texts


def _is_text(run: str) -> bool:
    plain = characters(normalise(run))
    letters = _LETTERS.findall(plain)
    mixed = bool(letters) and any(map(str.isdigit, plain)) and (run.isupper() or run.islower())
    return mixed and len(plain) in LENGTHS and max(map(len, letters)) <= MOST_LETTERS
