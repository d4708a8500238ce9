"""Annotated datasets: pictures with plates as boxes, corners or crops. Read, and written again with other texts.

`open_dataset` reads one, `rewrite_dataset` gives each of its files anew. One module of `formats` per format; each has

    find(folder) -> {annotation file: picture it alone belongs to, or ""}     {} where the folder is not of the format
    read(note, text, picture, folder) -> records, or ValueError                one annotation file
    rewrite(note, text, picture, new) -> text                                 the same file, reworded

or, where the names of the pictures hold everything, fits(folder), read_names(folder) and rename(stem, picture, new).
Formats that have a place for plates that a detector found also have

    add(note, text, {picture: corners}, folder) -> text                       the same file with these, without texts
    room(note, text, picture, folder) -> pictures                             of which it takes any; else its own

and formats of tables

    other_columns(folder, note) -> names                                      of columns without picture, text or place

The file may be a new one, its text empty, where each picture has its own. Corners are of boxes in whole pixels.
No picture's pixels are read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from posixpath import splitext

from platemint.pipeline.corpora import checks, containers, finds, lists, name_texts, overlooked
from platemint.pipeline.corpora.classes import of_plates
from platemint.pipeline.corpora.formats import (
    aolp,
    ccpd,
    coco,
    corner_lines,
    cvat,
    gt,
    label_studio,
    lp2024,
    names,
    openalpr,
    pictures,
    ppocrlabel,
    table,
    ufpr,
    voc,
    yolo,
    yolo_characters,
)
from platemint.pipeline.corpora.labels import marked
from platemint.pipeline.corpora.records import (
    PLATE,
    Annotation,
    Dataset,
    Folder,
    Frame,
    Record,
    Refused,
    Unrecognised,
    split_named,
)
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.plate import UNREADABLE, PlatemintError

__all__ = [
    "AUTO",
    "FORMATS",
    "NAMED_BY",
    "Annotation",
    "Dataset",
    "Frame",
    "Unrecognised",
    "open_dataset",
    "rewrite_dataset",
]

FORMATS = {
    "table": table,
    "gt": gt,
    "openalpr": openalpr,
    "ufpr": ufpr,
    "aolp": aolp,
    "corner_lines": corner_lines,
    "lp2024": lp2024,
    "yolo": yolo,
    "yolo_characters": yolo_characters,
    "coco": coco,
    "voc": voc,
    "cvat": cvat,
    "label_studio": label_studio,
    "ppocrlabel": ppocrlabel,
    "ccpd": ccpd,
    "names": names,
    "pictures": pictures,
}
BARE = "pictures"  # without annotations: only for runs with a detector
WITHOUT_TEXT = ("yolo", "yolo_characters")  # formats in which a plate alone has no place for one
_STEM = "the annotation file's name, which has to be its picture's but for the suffix"
NAMED_BY = {  # what says which picture an annotation is about
    "table": "the column of pictures (path, image_path, file_name, file) of the table",
    "gt": "the name that each line of the text file begins with",
    "ppocrlabel": "the name that each line of the label file begins with",
    "coco": "images[].file_name and annotations[].image_id of the .json file",
    "cvat": "the name of each image element of the .xml file",
    "label_studio": "the picture in each task's data, such as data.image",
    "pictures": "the files in other forms, or put the pictures into a folder of their own",
} | dict.fromkeys(["openalpr", "ufpr", "aolp", "corner_lines", "lp2024", "yolo", "yolo_characters", "voc"], _STEM)
AUTO = "auto"  # the format that fits
LAST = "names"  # fits many a folder that is of another format as well
GONE_WITH_TEXT = (LAST, "yolo_characters")  # formats in which a crop without its text is one without annotations


def open_dataset(
    root: str | Path,
    format: str = AUTO,
    sure: bool = False,
    classes: Iterable[str] = (),
    unreadable: Iterable[str] = UNREADABLE,
    bare: bool = False,
    note: str = "",
) -> Dataset:
    """The frames of a dataset's folder, by path. format: a name in `FORMATS`, auto or "" for the one that fits.

    sure: it is of this format even where nothing in it shows that or any other, all its plates being gone. classes: the
    classes of plates, by name or number; none: those that speak of plates, or the only one in use. unreadable: words
    that stand where a text should (see `pipeline.plate.says_unreadable`). bare: pictures without annotations will do.
    note: the one annotation file that counts, by its path below the root; "": all of them.
    Raises Unrecognised where no format fits, PlatemintError where several do, where it is not clear which classes are
    plates, and for an annotation file about several pictures that cannot be read; whatever else cannot be used is in
    `set_aside`.
    """
    format = "" if format == AUTO else format
    folder = Folder(root, classes, unreadable, note)
    found, notes = _recognised(folder, format, sure, bare)
    dataset = Dataset(folder, found, notes, lists.find_lists(folder, notes))
    dataset.unknown = sorted({*folder.files} - folder.pictures - {*notes} - {*dataset.lists})
    for link in folder.links:
        dataset.put_aside(link, "", folder.absence(link))
    records = [*_annotations(dataset)]
    dataset.classes = of_plates(folder, records, sure)
    plates = (m for m in records if not m.kind or m.kind in dataset.classes or m.text is not None)
    checks.collect(dataset, plates, _listed(dataset))
    if not sure:
        overlooked.count(dataset)
        if format:
            _refuse_others(dataset)
    checks.withhold(dataset)
    dataset.named = name_texts.texts_in_names(dataset)
    return dataset


def open_any(
    root: str | Path,
    format: str = AUTO,
    sure: bool = False,
    classes: Iterable[str] = (),
    unreadable: Iterable[str] = UNREADABLE,
    bare: bool = False,
) -> Dataset:
    """As `open_dataset`, files that hold many pictures included (see `containers`): these where no annotations are found.

    A file of many pictures goes before pictures called as their plates, and before pictures without annotations.
    """
    if format in containers.CONTAINERS:
        return containers.open_containers(root, format, unreadable)
    held = containers.find_containers(Path(root)) if format in ("", AUTO) else {}
    try:
        dataset = open_dataset(root, format, sure, classes, unreadable, bare and not held)
    except Unrecognised:
        if not held:
            raise
        return containers.open_containers(root, "", unreadable)
    return containers.open_containers(root, "", unreadable) if held and dataset.format == LAST else dataset


def rewrite_dataset(dataset: Dataset, new_text: Callable[[Frame, str], str]) -> dict[str, tuple[str, bytes | None]]:
    """What becomes of a dataset's files with new texts on its plates: {old path: (new path, new bytes)}, as relative.

    new_text: what the plates of a frame that read so shall read; asked once for each text of a frame, never for "".
    Bytes are None for a picture: the caller supplies them. Files that hold pictures are not there: `containers.write_containers`. What is set aside or unknown is not there, nor what
    annotation files say about it. Old texts go from annotations, other strings and names, in any case, with or without
    separators; of new ones, names take the separators only where the old had some. Names that hold no text stay, and
    no two pictures get one name. Pictures are to be written upright: places in them as they are stored are turned with
    them. With the texts that are there every other file stays as it is.
    Raises PlatemintError for a text that the format cannot write and for two annotation files that get one name.
    """
    if dataset.format in containers.CONTAINERS:
        return {old: (path, None) for old, path in containers.reworded(dataset, new_text).paths.items()}
    module = FORMATS[dataset.format]
    found = finds.homes(dataset, module)
    new = Rewording(dataset, new_text, getattr(module, "rename", None))
    becomes: dict[str, tuple[str, bytes | None]] = {old: (path, None) for old, path in new.paths.items()}
    for note, owner in (finds.new_notes(found, module) | dataset.notes).items():
        picture = next((path for path in dataset.sharing(owner) if path in new.paths), "") if owner else ""
        if picture or not owner:
            text = dataset.folder.text(note) if note in dataset.notes else ""
            text = module.add(note, text, found[note], dataset.folder) if note in found else text
            text = module.rewrite(note, text, picture, new)
            becomes[note] = (new.note(note, picture), _encoded(dataset, note, text))
    for path in dataset.lists:
        text = lists.rewrite_list(path, dataset.folder.text(path), new)
        becomes[path] = (new.note(path, ""), _encoded(dataset, path, text))
    _refuse_collisions(becomes)
    return becomes


def kept_columns(dataset: Dataset) -> list[str]:
    """Of tables and Parquet files the columns that `rewrite_dataset` keeps but for old texts: no picture, text or place."""
    module = FORMATS.get(dataset.format) or containers.CONTAINERS[dataset.format]
    tables = dataset.notes if hasattr(module, "other_columns") else ()
    return list(dict.fromkeys(name for note in tables for name in module.other_columns(dataset.folder, note)))


def _recognised(folder: Folder, format: str, sure: bool, bare: bool) -> tuple[str, dict[str, str]]:
    """The format of a folder and its annotation files."""
    if format and format not in FORMATS:
        raise PlatemintError(f"format: there is no {format}; choose one of {', '.join(FORMATS)}")
    wanted = [format] if format else [name for name in FORMATS if name != BARE]
    fits = {name: found for name in wanted if (found := _found(FORMATS[name], folder)) is not None}
    if len(fits) > 1 or (bare and not format):  # a run that replaces a detector's finds has no crops
        fits.pop(LAST, None)
    for name in [*fits]:
        for other in getattr(FORMATS[name], "INCLUDES", ()):
            fits.pop(other, None)
    if not fits and sure and all(_found(FORMATS[name], folder) is None for name in FORMATS if name != BARE):
        return format, {}
    if not fits and bare and folder.pictures:
        return BARE, {}
    if not fits:
        reason = table.missing_columns(folder)
        raise Unrecognised(f"{folder.root}: no annotations found; looked for the formats {', '.join(wanted)}{reason}")
    if len(fits) > 1:
        shown = ", ".join(f"{name} by {Dataset(folder, name, notes).evidence}" for name, notes in fits.items())
        raise PlatemintError(
            f"{folder.root}: looks like several formats ({', '.join(fits)}): {shown}; say which with format=, or give "
            "the folder of one dataset"
        )
    return fits.popitem()


def _refuse_others(dataset: Dataset) -> None:
    """Raises Refused where another format has plates in a picture that this one, chosen by name, has none in."""
    bare = {frame.path for frame in dataset.unannotated}
    others = {name: module for name, module in FORMATS.items() if name not in (dataset.format, LAST)}
    for name, module in others.items() if bare else ():
        other = Dataset(dataset.folder, name, _found(module, dataset.folder) or {})
        plates = (record for record in _annotations(other) if not record.kind or PLATE.search(record.kind))
        if {*other.notes} - {*dataset.notes} and any(record.picture in bare and not record.empty for record in plates):
            raise Refused(
                f"{dataset.root}: there are annotations of {name} too, and of pictures that {dataset.format} says "
                "nothing about; give the folder of one dataset"
            )


def _found(module, folder: Folder) -> dict[str, str] | None:
    """A format's annotation files in a folder, {} where names hold everything, None where it does not fit."""
    if hasattr(module, "fits"):
        return {} if module.fits(folder) else None
    return module.find(folder) or None


def _annotations(dataset: Dataset) -> Iterator[Record]:
    """Every annotation of a dataset, with the split that its file's own name speaks of where it is given none."""
    module, folder = FORMATS[dataset.format], dataset.folder
    if hasattr(module, "read_names"):
        yield from module.read_names(folder)
    for note, picture in dataset.notes.items():
        split = "" if picture else split_named(splitext(note)[0])
        sharing = dataset.sharing(picture) if picture else [""]
        for path in sharing:
            try:
                records = list(module.read(note, folder.text(note), path, folder))
                if len(sharing) > 1 and any(checks.plate_text(record.text, folder.unreadable) for record in records):
                    raise ValueError("pictures share its annotation file, which holds texts; give each one of its own")
            except Refused:
                raise
            except (PlatemintError, ValueError) as fault:
                if not path:
                    raise
                records = [Record(path, fault=str(fault))]
            yield from (record._replace(split=record.split or split) for record in records)


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
    """An annotation file's bytes, in its encoding and with the mark at their beginning that it had; UTF-8 for a new one."""
    path, record, encoding = dataset.root / note, b"", "utf-8"
    if path.is_file():
        with open(path, "rb") as file:
            record, encoding = marked(file.read(4))
    return record + text.encode(encoding)


def _refuse_collisions(becomes: dict[str, tuple[str, bytes | None]]) -> None:
    first: dict[str, str] = {}
    for old, (path, _) in becomes.items():
        if first.setdefault(path, old) != old:
            raise PlatemintError(f"{old} and {first[path]}: both would become {path}; give their plates other texts")
