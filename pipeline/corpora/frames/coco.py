"""COCO: one JSON file with images, annotations and categories.

A plate is an annotation of a category that speaks of plates, or of the only category, or one with a text: under text,
plate or plate_text, in the annotation or its attributes. A segmentation of four points gives the corners, else bbox.
Rewritten files keep their indentation and escapes where they are as Python's json writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product

from pipeline.corpora.frames.records import PLATE, TEXT_KEYS, Corners, Folder, Mark, box, numbers, points
from pipeline.corpora.frames.rewording import Rewording
from pipeline.plate import PlatemintError

LISTS = ("images", "annotations")
NAMES = "categories"  # of classes, which a plate may happen to read like
_STYLES = tuple(
    {"indent": indent, "ensure_ascii": ascii, "separators": separators}
    for indent, ascii, separators in product((None, 2, 4, 1, "\t", 0), (True, False), (None, (",", ":")))
)


def find(folder: Folder) -> dict[str, str]:
    return {note: "" for note in folder.of_kind(".json") if _is_coco(note, folder)}


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Mark]:
    """Raises PlatemintError for images without id or file_name and annotations without image_id."""
    data = json.loads(text)
    pictures, annotations, plates = _understood(data, note, folder)
    for path in pictures.values():
        if path not in folder.pictures:
            yield Mark(path)
    for annotation, path in annotations:
        row = str(annotation.get("id", ""))
        if path is None:
            yield Mark(note, row=row, fault="the annotation is of no image in the file")
        elif path in folder.pictures and (annotation.get("category_id") in plates or _place(annotation)):
            yield _mark(annotation, path, row)


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    data = json.loads(text)
    pictures, annotations, _ = _understood(data, note, new.folder)
    renewed = {key: value if key in (*LISTS, NAMES) else _swapped(value, "", new) for key, value in data.items()}
    renewed["images"] = [
        _swapped(image, path, new) | {"file_name": new.reference(image["file_name"], path)}
        for image, path in zip(data["images"], pictures.values())
        if path in new.paths
    ]
    renewed["annotations"] = [
        _annotated(annotation, path, new) for annotation, path in annotations if path in new.paths
    ]
    return text if renewed == data else _dumped(renewed, data, text)


def _is_coco(note: str, folder: Folder) -> bool:
    try:
        data = json.loads(folder.text(note))
    except (PlatemintError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and all(isinstance(data.get(key), list) for key in LISTS)


def _understood(data: dict, note: str, folder: Folder) -> tuple[dict[object, str], list, set[object]]:
    """The picture of each image id, each annotation with its picture or None, and the ids of categories of plates."""
    try:
        pictures = {image["id"]: folder.find(image["file_name"], note) for image in data["images"]}
        annotations = [(annotation, pictures.get(annotation["image_id"])) for annotation in data["annotations"]]
        categories = {category["id"]: str(category["name"]) for category in data.get(NAMES, [])}
    except (AttributeError, KeyError, TypeError) as fault:
        raise PlatemintError(
            f"{folder.root / note}: not COCO: an image needs id and file_name, an annotation image_id, "
            f"a category id and name ({type(fault).__name__}: {fault})"
        ) from None
    if len(pictures) < len(data["images"]):
        raise PlatemintError(f"{folder.root / note}: two images have one id; give each its own")
    return pictures, annotations, {key for key, name in categories.items() if PLATE.search(name) or len(categories) < 2}


def _place(annotation: dict) -> tuple[dict, str] | None:
    """Where an annotation's text stands: the object that holds it, and the key."""
    holders = (annotation.get("attributes"), annotation)
    return next(
        (
            (holder, key)
            for holder in holders
            if isinstance(holder, dict)
            for key in TEXT_KEYS
            if isinstance(holder.get(key), str)
        ),
        None,
    )


def _mark(annotation: dict, path: str, row: str) -> Mark:
    place = _place(annotation)
    try:
        return Mark(path, place[0][place[1]] if place else None, _corners(annotation), row)
    except (TypeError, ValueError) as fault:
        return Mark(path, row=row, fault=f"the annotation has no usable bbox: {fault}")


def _corners(annotation: dict) -> Corners:
    outlines = annotation.get("segmentation")
    if isinstance(outlines, list) and len(outlines) == 1 and len(outlines[0]) == 8:
        return points(numbers(outlines[0]))
    x, y, width, height = numbers(annotation.get("bbox") or ())
    return box(x, y, x + width, y + height)


def _annotated(annotation: dict, picture: str, new: Rewording) -> dict:
    renewed = _swapped(annotation, picture, new)
    if place := _place(annotation):
        holder, key = _place(renewed)
        holder[key] = new.text(picture, place[0][place[1]])
    return renewed


def _swapped(value: object, picture: str, new: Rewording) -> object:
    """A copy of a JSON value with the old texts in its strings replaced."""
    if isinstance(value, dict):
        return {key: _swapped(item, picture, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_swapped(item, picture, new) for item in value]
    return new.swap(value, picture) if isinstance(value, str) else value


def _dumped(renewed: dict, data: dict, text: str) -> str:
    """Written as the file was, if one of the usual styles gives it, else with Python's defaults."""
    style = next((style for style in _STYLES if json.dumps(data, **style) == text.strip()), {"ensure_ascii": False})
    return json.dumps(renewed, **style) + text[len(text.rstrip()) :]
