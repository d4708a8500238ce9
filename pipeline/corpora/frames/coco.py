"""COCO: one JSON file with images, annotations and categories.

A plate is an annotation of a category of plates, or one with a text: under text, plate or plate_text, in the annotation
or its attributes. A segmentation of four points gives the corners, else bbox, and both have to agree. Ids may be numbers
or texts.
Rewritten files keep their indentation and escapes where they are as Python's json writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product

from pipeline.corpora.frames.records import TEXT_KEYS, Corners, Folder, Mark, Refused, agreeing, bounds, box, numbers, points
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
    pictures, annotations, categories = _understood(data, note, folder)
    sizes = {_id(image["id"]): _declared(image) for image in data["images"]}
    folder.listed |= {*categories.values()}
    yield from (Mark(path, empty=True) for path in pictures.values() if path not in folder.pictures)
    for annotation, path in annotations:
        mark = _mark(annotation, path or note, sizes.get(_id(annotation["image_id"]), ()))
        if not path:
            mark = mark._replace(fault="the annotation is of no image in the file")
        yield mark._replace(kind=_kind(annotation, categories, folder))


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


def _understood(data: dict, note: str, folder: Folder) -> tuple[dict[str, str], list, dict[str, str]]:
    """The picture of each image id, each annotation with its picture or None, and the name of each category id."""
    try:
        pictures = {_id(image["id"]): folder.find(image["file_name"], note) for image in data["images"]}
        annotations = [(annotation, pictures.get(_id(annotation["image_id"]))) for annotation in data["annotations"]]
        categories = {_id(category["id"]): str(category["name"]) for category in data.get(NAMES, [])}
    except (AttributeError, KeyError, TypeError) as fault:
        raise PlatemintError(
            f"{folder.root / note}: not COCO: an image needs id and file_name, an annotation image_id, "
            f"a category id and name ({type(fault).__name__}: {fault})"
        ) from None
    if len(pictures) < len(data["images"]):
        raise PlatemintError(f"{folder.root / note}: two images have one id; give each its own")
    return pictures, annotations, categories


def _kind(annotation: dict, categories: dict[str, str], folder: Folder) -> str:
    """The name of an annotation's category, or its number where somebody named it by that."""
    number = _id(annotation.get("category_id", ""))
    if number and number not in {*categories, *folder.classes} and categories:
        raise Refused(f"{folder.root}: an annotation is of category {number}, which its file's categories lack; add it")
    return number if number in folder.classes else categories.get(number, "")


def _id(value: object) -> str:
    """An id as it is compared: 7, "7" and 7.0 are one."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _declared(image: dict) -> tuple[float, ...]:
    """Width and height of an image, () where it does not have both."""
    size = image.get("width"), image.get("height")
    return size if all(isinstance(side, int | float) and side > 0 for side in size) else ()


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


def _mark(annotation: dict, path: str, declared: tuple[float, ...]) -> Mark:
    place = _place(annotation)
    mark = Mark(path, place[0][place[1]] if place else None, row=str(annotation.get("id", "")), declared=declared)
    try:
        return mark._replace(corners=_corners(annotation))
    except (IndexError, TypeError, ValueError) as fault:
        return mark._replace(fault=f"the annotation has no usable bbox: {fault}")


def _corners(annotation: dict) -> Corners:
    """Raises ValueError where bbox and segmentation say two places, or neither says one."""
    outlines = annotation.get("segmentation") or ()
    outline = points(numbers(value for line in outlines for value in line)) if isinstance(outlines, list) else ()
    if not annotation.get("bbox") and outline:
        bbox = box(*bounds(outline))
    else:
        x, y, width, height = numbers(annotation.get("bbox") or ())
        bbox = box(x, y, x + width, y + height)
    if outline:
        agreeing(outline, bbox)
    return outline if len(outline) == 4 and len(outlines) == 1 else bbox


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
