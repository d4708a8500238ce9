"""One gt.txt for a folder of pictures: `name text` lines as the SPG's authors write them, or tab-separated ones."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

from platemint.pipeline.corpora.labels import Corpus, is_picture, lines
from platemint.pipeline.plate import UNREADABLE

# Beside pictures to be edited, gt.txt holds the texts they shall get and gt2.txt the texts they have.
NAMES = ("gt2.txt", "gt.txt")
PICTURES = "i_s"  # where that form keeps its pictures


def split_line(line: str, is_there: Callable[[str], bool]) -> tuple[str, str, str]:
    """The name in a line, what separates, and the text. Both may hold blanks.

    Without a tab the longest name counts that is a picture's which is there; else the longest with a picture's suffix,
    else the first word.
    """
    line = line.strip()
    if "\t" in line:
        return line.partition("\t")
    cuts = [(line[: cut.start()], cut[0], line[cut.end() :]) for cut in re.finditer(" +|$", line)]
    named = [cut for cut in reversed(cuts) if is_picture(cut[0])]
    return next((cut for cut in named if is_there(cut[0])), (named or cuts)[0])


def has_name_text_lines(path: Path) -> bool:
    """Whether a text file has such lines, and not tables or JSON behind its names."""
    line = next((line for line in lines(path) if line.strip()), "")
    return not line.partition("\t")[2].lstrip().startswith("[")


def pairs(path: Path, folder: Path) -> list[tuple[int, str, str]]:
    """(line number, name, text) of every line that names a picture. folder: of the pictures."""
    split = [split_line(line, lambda name: os.path.isfile(folder / name)) for line in lines(path)]
    return [(number, name, text) for number, (name, _, text) in enumerate(split, 1) if name]


def read_gt(path: Path, unreadable: Collection[str] = UNREADABLE) -> Corpus:
    """A corpus from a gt.txt; names count from its folder, or from i_s in it. unreadable: as `Corpus` has it."""
    corpus = Corpus(path.parent, unreadable)
    folder = path.parent / PICTURES if (path.parent / PICTURES).is_dir() else path.parent
    for number, name, text in pairs(path, folder):
        corpus.add(name, text, row=number, folder=folder)
    return corpus
