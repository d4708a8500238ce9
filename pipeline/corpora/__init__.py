"""Reading plates that have labels: one file per dataset format. Labels only: no picture is opened here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from platemint.pipeline.corpora import filenames, gt, table
from platemint.pipeline.corpora.labels import Corpus, Label, split_named
from platemint.pipeline.plate import UNREADABLE, PlatemintError

__all__ = ["Corpus", "Label", "read_corpus"]

FORMS = (
    "a .csv, .tsv or .jsonl with the columns path and text (split is optional), a gt.txt with `name text` lines, "
    "or pictures named TEXT.jpg or TEXT_anything.jpg"
)


def read_corpus(path: str | Path, unreadable: Collection[str] = UNREADABLE) -> Corpus:
    """The labels of a corpus: a folder in any form of `FORMS`, or the label file itself.

    unreadable: words that stand where a text should. A picture that is not where its label says is one below the root
    that is named alike, where that is plain (see `Folder.find`); without a split it has that of its folder, or train.
    Labels that cannot be used are in `set_aside`, with the reason. Raises PlatemintError where there is no corpus.
    """
    path = Path(path)
    if not path.is_file() and not path.is_dir():
        raise PlatemintError(f"{path}: no such folder or file; a corpus is {FORMS}")
    corpus = _read_file(path, unreadable) if path.is_file() else _read_folder(path, unreadable)
    _find_pictures(corpus)
    for number, label in enumerate(corpus.labels):
        if not label.split:
            place = os.path.relpath(label.path.parent, corpus.root.absolute())
            split = "" if place.startswith("..") else split_named(place)
            corpus.labels[number] = replace(label, split=split or "train")
    return corpus


def _read_folder(path: Path, unreadable: Collection[str]) -> Corpus:
    files = [p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith("._")]
    tables = [p for p in files if table.fits(p)]
    if len(tables) > 1:
        names = ", ".join(p.name for p in tables)
        raise PlatemintError(f"{path}: several tables of labels ({names}); give the path of the one that counts")
    if tables:
        return _read_file(tables[0], unreadable)
    truth = next((path / name for name in gt.NAMES if (path / name).is_file()), None)
    corpus = _read_file(truth, unreadable) if truth else filenames.read(path, unreadable)
    if not truth and not corpus.labels:
        others = [f"{p.name} {table.misfit(table.parse(p.name, table.head(p)))}" for p in files if table.is_table(p)]
        told = "".join(f"; {other}" for other in others[:3])
        raise PlatemintError(f"{path}: no labelled plates found here{told}; a corpus is {FORMS}")
    return corpus


def _read_file(path: Path, unreadable: Collection[str]) -> Corpus:
    if table.is_table(path) or table.fits(path):
        return table.read(path, unreadable)
    if path.suffix.lower() == ".txt":
        return gt.read(path, unreadable)
    raise PlatemintError(f"{path}: not a file of labels; a corpus is {FORMS}")


def _find_pictures(corpus: Corpus) -> None:
    """Gives labels whose picture is not where they say the one that is named alike, unless other labels mean it too."""
    from platemint.pipeline.corpora.frames.records import Folder

    there = {label.path for label in corpus.labels if os.path.isfile(label.path)}
    lost = {label.name for label in corpus.labels if label.path not in there}
    if not lost:
        return
    folder = Folder(corpus.root)
    alike = {name: found for name in lost if (found := folder.find(name, "", any_suffix=False)) in folder.pictures}
    claims = Counter(alike.values())
    for number, label in enumerate(corpus.labels):
        path = corpus.root.absolute() / alike.get(label.name, label.name)
        if label.name in alike and claims[alike[label.name]] == 1 and path not in there:
            corpus.labels[number] = replace(label, path=path)
