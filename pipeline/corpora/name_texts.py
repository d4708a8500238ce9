"""Texts of plates that stand in names alone: pictures called 8940_DB766UD.jpg whose annotations have no texts.

No list says which part of a name is a plate. It is taken for one where it has letters and digits as plates have them,
and where letters differ from picture to picture: what counts pictures, such as IMG1234 or frame0012, keeps its letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import sqrt
from posixpath import splitext

from platemint.pipeline.corpora.records import Dataset
from platemint.pipeline.plate import characters, normalise

LENGTHS = range(5, 11)  # characters of a text that is looked for
MOST_LETTERS = 4  # in a row: more make a word
_PIECE = re.compile(r"[^\W_]+(?:[-· .][^\W_]+)*")  # a text may stand with separators in it
_LETTERS = re.compile(r"[^\W\d_]+")


def texts_in_names(dataset: Dataset) -> list[str]:
    """The texts in names of pictures that have plates and no text of one, where names hold texts."""
    with_text = {frame.path for frame in dataset.frames if any(annotation.text for annotation in frame.annotations)}
    if not any(frame.annotations and frame.path not in with_text for frame in dataset.frames):
        return []
    runs = {run for path in dataset.folder.pictures - with_text for run in _runs(splitext(path)[0])}
    texts = {characters(normalise(run)) for run in runs}
    kinds = {re.sub(r"\d+", "0", text) for text in texts}
    hashes = all(set(run) <= set("0123456789abcdef") for run in runs)
    return [] if hashes or len(kinds) < sqrt(len(texts)) else sorted(texts)


def _runs(path: str) -> Iterator[str]:
    """The parts of a name that look like a plate's text: whole runs of letters and digits, else joined ones."""
    for piece in _PIECE.findall(path):
        yield from filter(
            is_text_in_name, [run for run in re.split(r"[-· .]", piece) if is_text_in_name(run)] or [piece]
        )


def is_text_in_name(run: str) -> bool:
    """Whether a string looks like a plate's text: letters and digits, as many as plates have, in one case."""
    plain = characters(normalise(run))
    letters = _LETTERS.findall(plain)
    mixed = bool(letters) and any(map(str.isdigit, plain)) and (run.isupper() or run.islower())
    return mixed and len(plain) in LENGTHS and max(map(len, letters)) <= MOST_LETTERS
