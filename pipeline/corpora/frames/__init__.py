"""Annotated datasets: pictures with plates as boxes, corners or crops. Read, and written again with other texts.

`open_dataset` reads one, `rewrite` says what becomes of each of its files. One module per format; each has

    find(folder) -> {annotation file: picture it alone belongs to, or ""}     {} where the folder is not of the format
    read(note, text, picture, folder) -> marks, or ValueError                 one annotation file
    rewrite(note, text, picture, new) -> text                                 the same file, reworded

or, where the names of the pictures hold everything, fits(folder), read_names(folder) and rename(stem, picture, new).
No picture's pixels are read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from posixpath import splitext

from pipeline.corpora.frames import aolp, ccpd, checks, coco, gt, lists, name_texts, names, openalpr, ppocrlabel
from pipeline.corpora.frames import table, ufpr, voc, yolo
from pipeline.corpora.frames.classes import of_plates
from pipeline.corpora.frames.records import Dataset, Folder, Frame, Mark, Refused, Spot, split_named
from pipeline.corpora.frames.rewording import Rewording
from pipeline.corpora.labels import marked
from pipeline.plate import UNREADABLE, PlatemintError

__all__ = ["FORMATS", "NAMED_BY", "Dataset", "Frame", "Spot", "open_dataset", "rewrite"]

FORMATS = {
    "table": table,
    "gt": gt,
    "openalpr": openalpr,
    "ufpr": ufpr,
    "aolp": aolp,
    "yolo": yolo,
    "coco": coco,
    "voc": voc,
    "ppocrlabel": ppocrlabel,
    "ccpd": ccpd,
    "names": names,
}
_STEM = "the annotation file's name, which has to be its picture's but for the suffix"
NAMED_BY = {  # what says which picture an annotation is about
    "table": "the column of pictures (path, image_path, file_name, file) of the table",
    "gt": "the name that each line of the text file begins with",
    "ppocrlabel": "the name that each line of the label file begins with",
    "coco": "images[].file_name and annotations[].image_id of the .json file",
} | dict.fromkeys(["openalpr", "ufpr", "aolp", "yolo", "voc"], _STEM)
LAST = "names"  # fits many a folder that is of another format as well


def open_dataset(
    root: str | Path,
    format: str = "",
    sure: bool = False,
    classes: Iterable[str] = (),
    unreadable: Iterable[str] = UNREADABLE,
) -> Dataset:
    """The frames of a dataset's folder, by path. format: a name in `FORMATS`, "" for the one that fits.

    sure: it is of this format even where nothing in it shows that or any other, all its plates being gone. classes: the
    classes of plates, by name or number; none: those that speak of plates, or the only one in use. unreadable: words
    that stand where a text should (see `pipeline.plate.says_unreadable`).
    Raises PlatemintError where no format fits or several do, where it is not clear which classes are plates, and for an
    annotation file about several pictures that cannot be read; whatever else cannot be used is in `set_aside`.
    """
    folder = Folder(root, classes, unreadable)
    format, notes = _recognised(folder, format, sure)
    dataset = Dataset(folder, format, notes, lists.find(folder, notes))
    dataset.unknown = sorted({*folder.files} - folder.pictures - {*notes} - {*dataset.lists})
    for link in folder.links:
        dataset.put_aside(link, "", folder.absence(link))
    marks = [*_marks(dataset)]
    dataset.classes = of_plates(folder, marks, sure)
    plates = (m for m in marks if not m.kind or m.kind in dataset.classes or m.text is not None)
    checks.collect(dataset, plates, _listed(dataset))
    dataset.named = name_texts.find(dataset)
    return dataset


def rewrite(dataset: Dataset, new_text: Callable[[Frame, str], str]) -> dict[str, tuple[str, bytes | None]]:
    """What becomes of a dataset's files with new texts on its plates: {old path: (new path, new bytes)}, as relative.

    new_text: what the plates of a frame that read so shall read; asked once for each text of a frame, never for "".
    Bytes are None for a picture: the caller supplies them. What is set aside or unknown is not there, nor what
    annotation files say about it. Old texts go from annotations, other strings and names, in any case, with or without
    separators; of new ones, names take the separators only where the old had some. Names that hold no text stay, and
    no two pictures get one name. With the texts that are there every file stays as it is.
    Raises PlatemintError for a text that the format cannot write and for two annotation files that get one name.
    """
    new = Rewording(dataset, new_text, getattr(FORMATS[dataset.format], "rename", None))
    becomes: dict[str, tuple[str, bytes | None]] = {old: (path, None) for old, path in new.paths.items()}
    for note, owner in dataset.notes.items():
        picture = next((path for path in dataset.sharing(owner) if path in new.paths), "") if owner else ""
        if picture or not owner:
            text = FORMATS[dataset.format].rewrite(note, dataset.folder.text(note), picture, new)
            becomes[note] = (new.note(note, picture), _encoded(dataset, note, text))
    for path in dataset.lists:
        text = lists.rewrite(path, dataset.folder.text(path), new)
        becomes[path] = (new.note(path, ""), _encoded(dataset, path, text))
    _refuse_collisions(becomes)
    return becomes


def _recognised(folder: Folder, format: str, sure: bool) -> tuple[str, dict[str, str]]:
    """The format of a folder and its annotation files."""
    if format and format not in FORMATS:
        raise PlatemintError(f"format: there is no {format}; choose one of {', '.join(FORMATS)}")
    wanted = [format] if format else FORMATS
    fits = {name: found for name in wanted if (found := _found(FORMATS[name], folder)) is not None}
    if len(fits) > 1:
        fits.pop(LAST, None)
    fits = {name: found for name, found in fits.items() if not any(found and {*found} < {*f} for f in fits.values())}
    if not fits and sure and all(_found(module, folder) is None for module in FORMATS.values()):
        return format, {}
    if not fits:
        told = table.not_understood(folder)
        raise PlatemintError(f"{folder.root}: no annotations found; looked for the formats {', '.join(wanted)}{told}")
    if len(fits) > 1:
        raise PlatemintError(
            f"{folder.root}: looks like several formats ({', '.join(fits)}); say which with format=, or give the "
            "folder of one dataset"
        )
    return fits.popitem()


def _found(module, folder: Folder) -> dict[str, str] | None:
    """A format's annotation files in a folder, {} where names hold everything, None where it does not fit."""
    if hasattr(module, "fits"):
        return {} if module.fits(folder) else None
    return module.find(folder) or None


def _marks(dataset: Dataset) -> Iterator[Mark]:
    """Every annotation of a dataset, with the split that its file's own name speaks of where it is given none."""
    module, folder = FORMATS[dataset.format], dataset.folder
    if hasattr(module, "read_names"):
        yield from module.read_names(folder)
    for note, picture in dataset.notes.items():
        split = "" if picture else split_named(splitext(note)[0])
        sharing = dataset.sharing(picture) if picture else [""]
        for path in sharing:
            try:
                marks = list(module.read(note, folder.text(note), path, folder))
                if len(sharing) > 1 and any(checks.plate_text(mark.text, folder.unreadable) for mark in marks):
                    raise ValueError("pictures share its annotation file, which holds texts; give each one of its own")
            except Refused:
                raise
            except (PlatemintError, ValueError) as fault:
                if not path:
                    raise
                marks = [Mark(path, fault=str(fault))]
            yield from (mark._replace(split=mark.split or split) for mark in marks)


def _listed(dataset: Dataset) -> dict[str, str]:
    """The split of each picture that a list gives one to. Lines that name no picture are set aside."""
    splits: dict[str, str] = {}
    for path in dataset.lists:
        for entry in lists.entries(path, dataset.folder.text(path), dataset.folder):
            if entry.picture and entry.split:
                splits.setdefault(entry.picture, entry.split)
            elif entry.name and not entry.picture:
                dataset.put_aside(path, str(entry.row), "the line names no picture of the dataset")
    return splits


def _encoded(dataset: Dataset, note: str, text: str) -> bytes:
    """An annotation file's bytes, in its encoding and with the mark at their beginning that it had."""
    with open(dataset.root / note, "rb") as file:
        mark, encoding = marked(file.read(4))
    return mark + text.encode(encoding)


def _refuse_collisions(becomes: dict[str, tuple[str, bytes | None]]) -> None:
    first: dict[str, str] = {}
    for old, (path, _) in becomes.items():
        if first.setdefault(path, old) != old:
            raise PlatemintError(f"{old} and {first[path]}: both would become {path}; give their plates other texts")
