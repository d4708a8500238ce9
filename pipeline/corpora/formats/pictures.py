"""Pictures without any annotation. What a detector finds on them is written as COCO.

Their names may be plates, and nobody knows which: they become numbers, in the order of their paths.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache

from platemint.pipeline.corpora.formats import coco
from platemint.pipeline.corpora.records import Corners, Folder, Record
from platemint.pipeline.corpora.rewording import Rewording

NOTE = "annotations.json"
CATEGORY = {"id": 1, "name": "license_plate"}

rewrite = coco.rewrite


def fits(folder: Folder) -> bool:
    return bool(folder.pictures)


def read_names(folder: Folder) -> Iterator[Record]:
    return iter(())


def rename(name: str, picture: str, new: Rewording) -> str:
    return numbered(picture, new.folder)


def numbered(picture: str, folder: Folder) -> str:
    """The stem that a picture gets."""
    return f"{_numbers(folder)[picture]:06}"


def add(note: str, text: str, found: dict[str, list[Corners]], folder: Folder) -> str:
    """A file of all pictures."""
    images = [_image(picture, folder) for picture in found]
    empty = json.dumps({"images": images, "annotations": [], "categories": [CATEGORY]}, indent=1, ensure_ascii=False)
    return coco.add(note, empty + "\n", found, folder)


def _image(picture: str, folder: Folder) -> dict:
    named = {"id": _numbers(folder)[picture], "file_name": picture}
    try:
        return named | dict(zip(("width", "height"), folder.size(picture)))
    except ValueError:  # it is set aside once it is opened
        return named


@lru_cache(maxsize=1)
def _numbers(folder: Folder) -> dict[str, int]:
    return {picture: number for number, picture in enumerate(sorted(folder.pictures), 1)}
