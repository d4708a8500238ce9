"""Files that hold many pictures with their texts. A picture is read by its file and its member.

One module per format has:

SUFFIX                                  of its files
chosen(root, files) -> files            those of a folder's files with that suffix that count
read(corpus, files)                     puts their labels into a corpus
picture(file, member) -> bytes          one picture, or ValueError
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from platemint.pipeline.corpora.formats import lmdb, mds, parquet, webdataset
from platemint.pipeline.corpora.labels import Corpus, Label, counted
from platemint.pipeline.storage import read_file

CONTAINERS = {"parquet": parquet, "lmdb": lmdb, "webdataset": webdataset, "mds": mds}
_OF_SUFFIX = {module.SUFFIX: module for module in CONTAINERS.values()}


def find(path: Path) -> dict[str, list[Path]]:
    """The files of each format below a folder, or the file itself; formats of which there is none are left out."""
    root, files = (path.parent, [path]) if path.is_file() else (path, sorted(path.rglob("*.*")))
    files = [file for file in files if file.suffix in _OF_SUFFIX and not file.name.startswith(".") and file.is_file()]
    found = {
        name: module.chosen(root, [file for file in files if file.suffix == module.SUFFIX])
        for name, module in CONTAINERS.items()
    }
    return {name: files for name, files in found.items() if files}


def evidence(files: list[Path]) -> str:
    """What a format was known by."""
    return f"{counted(len(files), 'file')} such as {files[0].name}"


def read(format: str, files: list[Path], path: Path, unreadable: Collection[str]) -> Corpus:
    """The labels of files of one format."""
    root = path.parent if path.is_file() else path
    corpus = Corpus(root, unreadable, format=format, evidence=evidence(files))
    CONTAINERS[format].read(corpus, files)
    return corpus


def data_of(label: Label) -> bytes:
    """The picture file that a plate is on. Raises ValueError with the reason where it cannot be read."""
    if not label.member:
        return read_file(label.path)
    try:
        return _OF_SUFFIX[label.path.suffix].picture(label.path, label.member)
    except OSError as fault:
        raise ValueError(f"cannot be read: {fault.strerror}") from None
