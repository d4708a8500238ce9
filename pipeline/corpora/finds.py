"""finds: which annotation files plates are written into that a detector found: their pictures', or new ones."""

from __future__ import annotations

from posixpath import dirname, join, splitext
from types import ModuleType

from platemint.pipeline.corpora.records import Corners, Dataset, stem

Plates = dict[str, list[Corners]]  # {picture: where its plates are}


def homes(dataset: Dataset, module: ModuleType) -> dict[str, Plates]:
    """The plates to write into each annotation file. Plates of pictures that no file takes are left out.

    module: of the dataset's format.
    """
    plates = {
        frame.path: [annotation.drawn for annotation in frame.annotations if annotation.found]
        for frame in dataset.frames
    }
    if hasattr(module, "NOTE"):
        return {module.NOTE: plates}
    left = {picture: corners for picture, corners in plates.items() if corners}
    if not left or not hasattr(module, "add"):
        return {}
    found: dict[str, Plates] = {}
    for note, owner in dataset.notes.items():
        for picture in left.keys() & _room(dataset, module, note, owner, left):
            found.setdefault(note, {})[picture] = left.pop(picture)
    return found | _new_files(dataset, left)


def new_notes(found: dict[str, Plates], module: ModuleType) -> dict[str, str]:
    """The picture that each file belongs to, were it a new one; "" for a file about several."""
    return {note: "" if hasattr(module, "NOTE") else next(iter(plates)) for note, plates in found.items()}


def _room(dataset: Dataset, module: ModuleType, note: str, owner: str, wanted: Plates) -> set[str]:
    """The pictures that an annotation file has a place for plates of."""
    if owner and (owner not in wanted or dataset.sharing(owner) != [owner]):
        return set()
    if not hasattr(module, "room"):
        return {owner}
    return module.room(note, dataset.folder.text(note), owner, dataset.folder)


def _new_files(dataset: Dataset, plates: Plates) -> dict[str, Plates]:
    """Files for pictures that have none, where each has its own."""
    owners = {owner: note for note, owner in dataset.notes.items() if owner}
    have = {picture for owner in owners for picture in dataset.sharing(owner)}
    folders = {dirname(owner): note for owner, note in owners.items()}
    files = {}
    for picture in plates.keys() - have if owners else ():
        note = _beside(picture, folders)
        if len(dataset.folder.fellows(picture)) == 1 and not (dataset.root / note).exists():
            files[note] = {picture: plates[picture]}
    return files


def _beside(picture: str, folders: dict[str, str]) -> str:
    """The path of a picture's annotation file, as pictures lead to theirs: images/val/a.jpg to labels/val/a.txt.

    folders: an annotation file for each folder of pictures.
    """
    here = dirname(picture)
    there = here if here in folders else min(folders)
    from_, to = there.split("/"), dirname(folders[there]).split("/")
    leads = dict(zip(from_, to)) if len(from_) == len(to) else {}
    parts = [leads.get(part, part) for part in here.split("/")] if leads else to
    return join("/".join(parts), stem(picture) + splitext(folders[there])[1])
