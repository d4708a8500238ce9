"""Which classes of a dataset are plates: whose names contain words for plates, else which have texts, else the only one in use.

Or those that somebody names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from platemint.pipeline.corpora.records import PLATE, Folder, Record, Refused


def of_plates(folder: Folder, records: Collection[Record], sure: bool) -> tuple[str, ...]:
    """The classes in use that are plates. sure: `folder.classes` are, whether in use or not.

    Raises Refused where it is not clear which classes are plates, and where one is named that is not there.
    """
    used = {record.kind for record in records if record.kind}
    chosen = {name for name in used if name.casefold() in folder.classes}
    if sure:
        return tuple(sorted(chosen))
    known = used | folder.listed
    if missing := folder.classes - {name.casefold() for name in known}:
        raise Refused(f"{folder.root}: --class: there is no class {', '.join(sorted(missing))}; {_told(known)}")
    if folder.classes:
        return tuple(sorted(chosen))
    speaking = {name for name in used if PLATE.search(name)}
    with_texts = [record.kind for record in records if record.text is not None]
    if speaking or with_texts:
        return tuple(sorted(speaking or {*with_texts} - {""}))
    if len(used) > 1 or (used and any(map(PLATE.search, known))):
        raise Refused(
            f"{folder.root}: no annotation is of a class that speaks of plates; {_told(known)}; say which are plates "
            "with --class NAME, once for each (recipe: source.classes)"
        )
    return tuple(used)


def _told(known: Iterable[str]) -> str:
    return f"the classes are {', '.join(sorted(known))}" if known else "its format has no classes"
