"""Reading labelled plates: one file per dataset format, one function for all of them. No pixels are read here.

A crop is a picture that one plate fills; of a frame, each annotated plate with a text is a label with its corners.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from platemint.pipeline.corpora import containers, datasets, filenames, table_rows, text_lines
from platemint.pipeline.corpora.containers import CONTAINERS
from platemint.pipeline.corpora.datasets import AUTO, BARE, LAST, WITHOUT_TEXT, Dataset, Unrecognised
from platemint.pipeline.corpora.labels import Corpus, Label, split_named
from platemint.pipeline.corpora.records import Folder
from platemint.pipeline.object_store import ObjectPath, fetched, place
from platemint.pipeline.plate import UNREADABLE, PlatemintError

__all__ = ["FORMATS", "Corpus", "Label", "here", "read_corpus"]

FORMATS = (*(name for name in datasets.FORMATS if name != BARE), *CONTAINERS)
OF_CROPS = ("table", "gt")
FORMS = (
    "a .csv, .tsv or .jsonl with the columns path and text (split is optional), a gt.txt with `name text` lines, "
    "pictures named TEXT.jpg or TEXT_anything.jpg, a folder of frames whose annotations have texts "
    f"({', '.join(name for name in datasets.FORMATS if name not in (BARE, *WITHOUT_TEXT))}), a run, or files of "
    f"{', '.join(CONTAINERS)}"
)


def read_corpus(
    path: str | Path | ObjectPath,
    unreadable: Collection[str] = UNREADABLE,
    format: str = AUTO,
    classes: Collection[str] = (),
) -> Corpus:
    """The labels of a dataset: a folder in any form of `FORMS`, or the file that holds them.

    path: may be on an object store: then it is fetched whole (see `object_store.fetched`).
    unreadable: words that stand where a text should. format: one of `FORMATS`, or auto for the one that fits. classes:
    of plates, where a format has classes (see `open_dataset`).
    A picture that is not where its label says is one below the root that is named alike, where that is plain (see
    `Folder.find`); without a split it has that of its folder, or train.
    Labels that cannot be used are in `set_aside`, with the reason. Raises PlatemintError where there is no corpus, and
    where several formats fit.
    """
    path = here(path)
    if not path.is_file() and not path.is_dir():
        raise PlatemintError(f"{path}: no such folder or file; a corpus is {FORMS}")
    if format not in ("", AUTO, *FORMATS):
        raise PlatemintError(f"{path}: format: there is no {format}; choose {AUTO} or one of {', '.join(FORMATS)}")
    corpus = _read(path, format or AUTO, unreadable, classes)
    _find_pictures(corpus)
    for number, label in enumerate(corpus.labels):
        if not label.split:
            place = os.path.relpath(label.path.parent, corpus.root.absolute())
            split = "" if place.startswith("..") else split_named(place)
            corpus.labels[number] = replace(label, split=split or "train")
    return corpus


def here(path: str | Path | ObjectPath) -> Path:
    """Where a dataset lies on this machine, fetched first from an object store; a file of labels with what is beside it."""
    there = place(path)
    return fetched(there, with_folder=not containers.is_container(there))


def _read(path: Path, wanted: str, unreadable: Collection[str], classes: Collection[str]) -> Corpus:
    """wanted: the format. Labels of crops in a folder's own table go before whatever else lies below it."""
    if wanted in (AUTO, *OF_CROPS):
        labels = path if path.is_file() else _table_in(path, wanted)
        if labels and (corpus := _of_crops(labels, wanted, unreadable)):
            return corpus
    found = containers.find_containers(path) if wanted in (AUTO, *CONTAINERS) else {}
    fits = {name: files for name, files in found.items() if wanted in (AUTO, name)}
    if wanted in CONTAINERS and not fits:
        raise PlatemintError(f"{path}: format: no {CONTAINERS[wanted].SUFFIX} file here; a corpus is {FORMS}")
    dataset = _annotated(path, wanted, unreadable, classes) if not fits or (wanted == AUTO and path.is_dir()) else None
    if dataset and (dataset.format != LAST or not fits):
        _refuse_several(path, dataset, fits)
        return _labels_of(dataset, unreadable)
    _refuse_several(path, None, fits)
    if not fits:
        shown = "not a file of labels" if path.is_file() else f"no labelled plates found here{_told(path)}"
        raise PlatemintError(f"{path}: {shown}; a corpus is {FORMS}")
    return containers.read_container(*next(iter(fits.items())), path, unreadable)


def _refuse_several(path: Path, dataset: Dataset | None, fits: dict[str, list[Path]]) -> None:
    """Raises PlatemintError where a folder is of several formats."""
    found = {name: containers.evidence(files) for name, files in fits.items()}
    found |= {dataset.format: dataset.evidence} if dataset else {}
    if len(found) > 1:
        shown = ", ".join(f"{name} by {evidence}" for name, evidence in found.items())
        raise PlatemintError(
            f"{path}: looks like several formats ({', '.join(found)}): {shown}; say which with --format, or give the "
            "folder of one dataset"
        )


def _table_in(path: Path, wanted: str) -> Path | None:
    """The file of labels of crops in a folder, None where there is none."""
    tables = [p for p in _files(path) if table_rows.is_crop_table(p)] if wanted != "gt" else []
    if len(tables) > 1:
        names = ", ".join(p.name for p in tables)
        raise PlatemintError(f"{path}: several tables of labels ({names}); give the path of the one that counts")
    return next(iter([*tables, *(path / name for name in text_lines.NAMES if (path / name).is_file())]), None)


def _files(path: Path) -> list[Path]:
    return [p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith("._")]


def _of_crops(path: Path, wanted: str, unreadable: Collection[str]) -> Corpus | None:
    """The corpus of a file of labels whose pictures are crops, None where it is another file."""
    if wanted in (AUTO, "table") and (table_rows.is_table(path) or table_rows.is_crop_table(path)):
        corpus = table_rows.read_table(path, unreadable)
        return corpus and replace(corpus, format="table", evidence=path.name)
    if wanted in (AUTO, "gt") and path.suffix.lower() == ".txt" and text_lines.has_name_text_lines(path):
        return replace(text_lines.read_gt(path, unreadable), format="gt", evidence=path.name)
    return None


def _annotated(path: Path, wanted: str, unreadable: Collection[str], classes: Collection[str]) -> Dataset | None:
    """Annotated frames, or crops in the manner of frames; None where there are none."""
    root, note = (path.parent, path.name) if path.is_file() else (path, "")
    try:
        return datasets.open_dataset(root, wanted, classes=classes, unreadable=unreadable, note=note)
    except Unrecognised:
        return None


def _labels_of(dataset: Dataset, unreadable: Collection[str]) -> Corpus:
    """A label for each plate of a dataset."""
    if dataset.format == LAST:
        return replace(filenames.read_named_pictures(dataset.root, unreadable), format=LAST, evidence=dataset.evidence)
    corpus = Corpus(dataset.root, unreadable, lost=[*filter(None, dataset.lost)], format=dataset.format)
    corpus.evidence = dataset.evidence + (f" such as {min(dataset.notes)}" if dataset.notes else "")
    in_lists = Counter(item["path"] for item in dataset.set_aside if item["path"] in dataset.lists)
    for path, lines in in_lists.items():
        corpus.put_aside(path, "", f"{lines:,} lines name no picture of the dataset")
    corpus.set_aside += [item for item in dataset.set_aside if item["path"] not in in_lists]
    for frame in dataset.frames:
        for annotation in frame.annotations:
            text = annotation.text if annotation.labelled else None
            corpus.add(frame.path, text, frame.split, annotation.row, corners=annotation.corners)
    return corpus


def _told(path: Path) -> str:
    """What tables in a folder lack, for a message."""
    tables = [p for p in _files(path) if table_rows.is_table(p)]
    return "".join(f"; {p.name} {table_rows.misfit(table_rows.parse(p.name, table_rows.head(p)))}" for p in tables[:3])


def _find_pictures(corpus: Corpus) -> None:
    """Gives labels whose picture is not where they say the one that is named alike, unless other labels mean it too."""
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
