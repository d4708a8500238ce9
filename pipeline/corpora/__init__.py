"""Reading plates that have labels: one file per dataset format. Labels only: no picture is opened here."""

from __future__ import annotations

from pathlib import Path

from pipeline.corpora import filenames, gt, table
from pipeline.corpora.labels import Corpus, Label
from pipeline.plate import PlatemintError

__all__ = ["Corpus", "Label", "read_corpus"]

FORMS = (
    "a .csv or .jsonl with the columns path and text (split is optional), a gt.txt with `name text` lines, "
    "or pictures named TEXT_anything.jpg"
)


def read_corpus(path: str | Path) -> Corpus:
    """The labels of a corpus: a folder in any form of `FORMS`, or the label file itself.

    Labels that cannot be used are in `set_aside`, with the reason. Raises PlatemintError where there is no corpus.
    """
    path = Path(path)
    if path.is_file():
        return _read_file(path)
    if not path.is_dir():
        raise PlatemintError(f"{path}: no such folder or file; a corpus is {FORMS}")
    tables = [p for p in sorted(path.iterdir()) if p.suffix.lower() in table.SUFFIXES and table.fits(p)]
    if len(tables) > 1:
        names = ", ".join(p.name for p in tables)
        raise PlatemintError(f"{path}: several tables of labels ({names}); give the path of the one that counts")
    if tables:
        return _read_file(tables[0])
    truth = next((path / name for name in gt.NAMES if (path / name).is_file()), None)
    corpus = _read_file(truth) if truth else filenames.read(path)
    if not truth and not corpus.labels:
        raise PlatemintError(f"{path}: no labelled plates found here; a corpus is {FORMS}")
    return corpus


def _read_file(path: Path) -> Corpus:
    if path.suffix.lower() in table.SUFFIXES:
        return table.read(path)
    if path.suffix.lower() == ".txt":
        return gt.read(path)
    raise PlatemintError(f"{path}: not a file of labels; a corpus is {FORMS}")
