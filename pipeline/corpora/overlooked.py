"""Files in no known form that seem to be about pictures without a plate: annotations that would be overlooked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from posixpath import basename

from platemint.pipeline.corpora.records import PICTURES, Dataset, folded

KINDS = (".txt", ".json", ".jsonl", ".csv", ".xml")
AUDIT = "audit.json"  # of an anonymized dataset: it may list pictures, and holds no annotations
UNKNOWN = "is about pictures without a plate, as annotations are, but in no form that is known"
_BETWEEN = re.compile(r"[\"'<>/\\|:,;\t\r\n]+")  # names
_NAME = re.compile(f".+(?:{'|'.join(map(re.escape, PICTURES))})", re.IGNORECASE)
_PLACES = re.compile(
    r"box|poly|points|shape|region|x_?min|annotation|plate|licen[cs]e|transcription|(?<![\d.])(?:\d[\d.]*[\s,;]+){3}\d",
    re.IGNORECASE,
)  # words and numbers that say where things are: tables of splits, cameras or weather have none


def count(dataset: Dataset) -> None:
    """Takes such files for annotations left over, and sets them aside."""
    bare = {frame.path for frame in dataset.unannotated}
    names = {folded(basename(path)) for path in bare}
    for path in dataset.unknown if bare else ():
        if path != AUDIT and path.lower().endswith(KINDS) and _PLACES.search(text := _text(dataset, path)):
            beside = dataset.folder.beside(path) in bare
            if beside or names & {folded(name) for name in _names_in(text)}:
                dataset.put_aside(path, "", UNKNOWN)
                dataset.left_over += 1


def _names_in(text: str) -> Iterator[str]:
    return (name[0] for piece in _BETWEEN.split(text) if (name := _NAME.match(piece)))


def _text(dataset: Dataset, path: str) -> str:
    try:
        return (dataset.root / path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
