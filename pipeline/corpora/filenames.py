"""Pictures whose names begin with their text: ABC1234_anything.jpg."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.corpora.labels import Corpus

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SPLITS = ("train", "val", "test")


def read(folder: Path) -> Corpus:
    """A corpus from the names of a folder's pictures, at any depth; a first folder named as a split is one."""
    corpus = Corpus(folder)
    for name in sorted(_pictures(folder)):
        text, underscore, _ = name.name.partition("_")
        split = name.parts[0] if name.parts[0] in SPLITS else ""
        corpus.add(str(name), text if underscore else "", split)
    return corpus


def _pictures(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith(SUFFIXES):
                yield Path(place, name).relative_to(folder)
