"""Pictures whose names begin with their text: ABC1234_anything.jpg."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.corpora.labels import Corpus

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SPLITS = ("train", "val", "test")


def read(folder: Path) -> Corpus:
    """A corpus from the names of a folder's pictures, at any depth; a first folder named as a split is one."""
    corpus = Corpus(folder)
    names, faults = [], []
    for place, _, files in os.walk(folder, onerror=faults.append):
        names += [Path(place, file).relative_to(folder) for file in files if file.lower().endswith(SUFFIXES)]
    for name in sorted(names):
        text, underscore, _ = name.name.partition("_")
        corpus.add(str(name), text if underscore else "", name.parts[0] if name.parts[0] in SPLITS else "")
    for fault in faults:
        corpus.put_aside(fault.filename, "", f"folder cannot be read: {fault.strerror}")
    return corpus
