"""One gt.txt for a folder of pictures: `name text` lines as the SPG's authors write them, or tab-separated ones."""

from __future__ import annotations

from pathlib import Path

from pipeline.corpora.labels import Corpus, lines

# Beside pictures to be edited, gt.txt holds the texts they shall get and gt2.txt the texts they have.
NAMES = ("gt2.txt", "gt.txt")
PICTURES = "i_s"  # where that form keeps its pictures


def pairs(path: Path) -> list[tuple[int, str, str]]:
    """(line number, name, text) of every line that names a picture."""
    split = [line.strip().partition("\t" if "\t" in line else " ") for line in lines(path)]
    return [(number, name, text) for number, (name, _, text) in enumerate(split, 1) if name]


def read(path: Path) -> Corpus:
    """A corpus from a gt.txt; names count from its folder, or from i_s in it."""
    corpus = Corpus(path.parent)
    folder = path.parent / PICTURES if (path.parent / PICTURES).is_dir() else path.parent
    for number, name, text in pairs(path):
        corpus.add(name, text, row=number, folder=folder)
    return corpus
