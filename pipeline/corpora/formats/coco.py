"""COCO: one JSON file with images, annotations and categories.

A plate is an annotation of a category of plates, or one with a text: under text, plate or plate_text, in the
annotation or its attributes. A segmentation of four points gives the corners, else bbox, and both have to agree. Ids
may be numbers or texts.
Rewritten files keep their indentation and escapes where they are as Python's json writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product

from platemint.pipeline.corpora.checks import turn_of
from platemint.pipeline.corpora.records import (
    TEXT_KEYS,
    Corners,
    Folder,
    Record,
    Refused,
    agreeing,
    bounds,
    box,
    declared_size,
    numbers,
    points,
)
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.parsing import parse_json
from platemint.pipeline.plate import PlatemintError

LISTS = ("images", "annotations")
NAMES = "categories"  # of classes, which a plate may happen to read like
_STYLES = tuple(
    {"indent": indent, "ensure_ascii": ascii, "separators": separators}
    for indent, ascii, separators in product((None, 2, 4, 1, "\t", 0), (True, False), (None, (",", ":")))
)


def find(folder: Folder) -> dict[str, str]:
    return {note: "" for note in folder.of_kind(".json") if _is_coco(note, folder)}


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    """Raises PlatemintError for images without id or file_name and annotations without image_id."""
    data = parse_json(text)
    pictures, entries, categories = _understood(data, note, folder)
    sizes = {_id(image["id"]): _declared(image) for image in data["images"]}
    folder.listed |= {*categories.values()}
    yield from (Record(path, empty=True) for path in pictures.values() if path not in folder.pictures)
    for entry, path in entries:
        record = _mark(entry, path or note, sizes.get(_id(entry["image_id"]), ()))
        if not path:
            record = record._replace(fault="the annotation is of no image in the file")
        yield record._replace(kind=_kind(entry, categories, folder))


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    data = parse_json(text)
    pictures, entries, _ = _understood(data, note, new.folder)
    images = [(image, path) for image, path in zip(data["images"], pictures.values()) if path in new.paths]
    turns = {path: turn for image, path in images if (turn := turn_of(new.folder, path, _declared(image)))}
    renewed = {key: value if key in (*LISTS, NAMES) else _swapped(value, "", new) for key, value in data.items()}
    renewed["images"] = [
        _swapped(image, path, new)
        | {"file_name": new.reference(image["file_name"], path)}
        | ({"width": image["height"], "height": image["width"]} if path in turns else {})
        for image, path in images
    ]
    renewed["annotations"] = [
        _annotated(entry, path, new, turns.get(path)) for entry, path in entries if path in new.paths
    ]
    return text if renewed == data else json_as_before(renewed, data, text)


def room(note: str, text: str, picture: str, folder: Folder) -> set[str]:
    """Its images, but for those that it has another size of."""
    data = parse_json(text)
    pictures, _, _ = _understood(data, note, folder)
    images = zip(data["images"], pictures.values())
    return {path for image, path in images if path in folder.pictures and _is_as_shown(image, path, folder)}


def add(note: str, text: str, found: dict[str, list[Corners]], folder: Folder) -> str:
    """Annotations of the category of plates, with a text where others have theirs."""
    data = parse_json(text)
    pictures, _, _ = _understood(data, note, folder)
    ids = (_id(entry.get("id", "")) for entry in data["annotations"])
    new_id, holder = max((int(id) for id in ids if id.isdecimal()), default=0) + 1, _text_holder(data["annotations"])
    added = []
    for image, path in zip(data["images"], pictures.values()):
        for x1, y1, x2, y2 in map(bounds, found.get(path, ())):
            place = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "segmentation": []}
            entry = {"id": new_id + len(added), "image_id": image["id"], "category_id": _plate_category(data, folder)}
            added.append(entry | place | {"iscrowd": 0} | holder)
    return json_as_before(data | {"annotations": data["annotations"] + added}, data, text) if added else text


def _is_as_shown(image: dict, path: str, folder: Folder) -> bool:
    try:
        return _declared(image) in ((), folder.size(path))
    except ValueError:
        return False


def _text_holder(entries: list[dict]) -> dict:
    """The part of a new annotation that holds its text, in the manner of the first that has one."""
    place = next(filter(None, map(_place, entries)), None)
    key = place[1] if place else TEXT_KEYS[0]
    at_top = place and any(place[0] is entry for entry in entries)
    return {key: ""} if at_top else {"attributes": {key: ""}}


def _plate_category(data: dict, folder: Folder) -> object:
    """The id of the category that plates have, else of the first annotation with a text, else of any."""
    categories = data.get(NAMES, [])
    named = [c["id"] for c in categories if _id(c["id"]) in folder.classes or folder.speaks_of_plates(str(c["name"]))]
    texts = (a["category_id"] for a in data["annotations"] if _place(a) and "category_id" in a)
    return next(iter([*named, *texts, *(c["id"] for c in categories)]), 1)


def _turned(entry: dict, turn: Callable[[float, float], tuple[float, float]]) -> dict:
    """An annotation with its places turned; without those that cannot be, which would be wrong in the new picture."""
    turned = {key: value for key, value in entry.items() if key not in ("bbox", "segmentation", "keypoints")}
    with suppress(TypeError, ValueError):
        x, y, width, height = entry["bbox"] if entry.get("bbox") else ()
        x1, y1, x2, y2 = bounds((turn(x, y), turn(x + width, y + height)))
        turned["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    with suppress(TypeError, ValueError):
        outlines = entry.get("segmentation")
        turned["segmentation"] = [[v for point in points(line) for v in turn(*point)] for line in outlines]
    return turned


def _is_coco(note: str, folder: Folder) -> bool:
    try:
        data = parse_json(folder.text(note))
    except (PlatemintError, ValueError):
        return False
    return isinstance(data, dict) and all(isinstance(data.get(key), list) for key in LISTS)


def _understood(data: dict, note: str, folder: Folder) -> tuple[dict[str, str], list, dict[str, str]]:
    """The picture of each image id, each annotation with its picture or None, and the name of each category id."""
    try:
        pictures = {_id(image["id"]): folder.find(image["file_name"], note) for image in data["images"]}
        entries = [(entry, pictures.get(_id(entry["image_id"]))) for entry in data["annotations"]]
        categories = {_id(category["id"]): str(category["name"]) for category in data.get(NAMES, [])}
    except (AttributeError, KeyError, TypeError) as fault:
        raise PlatemintError(
            f"{folder.root / note}: not COCO: an image needs id and file_name, an annotation image_id, "
            f"a category id and name ({type(fault).__name__}: {fault})"
        ) from None
    if len(pictures) < len(data["images"]):
        raise PlatemintError(f"{folder.root / note}: two images have one id; give each its own")
    return pictures, entries, categories


def _kind(entry: dict, categories: dict[str, str], folder: Folder) -> str:
    """The name of an annotation's category, or its number where somebody named it by that."""
    number = _id(entry.get("category_id", ""))
    if number and number not in {*categories, *folder.classes} and categories:
        raise Refused(f"{folder.root}: an annotation is of category {number}, which its file's categories lack; add it")
    return number if number in folder.classes else categories.get(number, "")


def _id(value: object) -> str:
    """An id as it is compared: 7, "7" and 7.0 are one."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _declared(image: dict) -> tuple[float, ...]:
    """Width and height of an image, () where it does not have both."""
    return declared_size(image.get("width"), image.get("height"))


def _place(entry: dict) -> tuple[dict, str] | None:
    """Where an annotation's text stands: the object that holds it, and the key."""
    holders = (entry.get("attributes"), entry)
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


def _mark(entry: dict, path: str, declared: tuple[float, ...]) -> Record:
    place = _place(entry)
    record = Record(path, place[0][place[1]] if place else None, row=str(entry.get("id", "")), declared=declared)
    try:
        return record._replace(corners=_corners(entry))
    except (IndexError, TypeError, ValueError) as fault:
        return record._replace(fault=f"the annotation has no usable bbox: {fault}")


def _corners(entry: dict) -> Corners:
    """Raises ValueError where bbox and segmentation say two places, or neither says one."""
    outlines = entry.get("segmentation") or ()
    outline = points(numbers(value for line in outlines for value in line)) if isinstance(outlines, list) else ()
    if not entry.get("bbox") and outline:
        bbox = box(*bounds(outline))
    else:
        x, y, width, height = numbers(entry.get("bbox") or ())
        bbox = box(x, y, x + width, y + height)
    if outline:
        agreeing(outline, bbox)
    return outline if len(outline) == 4 and len(outlines) == 1 else bbox


def _annotated(entry: dict, picture: str, new: Rewording, turn: Callable | None) -> dict:
    renewed = _swapped(_turned(entry, turn) if turn else entry, picture, new)
    if place := _place(entry):
        holder, key = _place(renewed)
        holder[key] = new.text(picture, place[0][place[1]], _corners(entry))
    return renewed


def _swapped(value: object, picture: str, new: Rewording) -> object:
    """A copy of a JSON value without the old texts in its strings."""
    if isinstance(value, dict):
        return {key: _swapped(item, picture, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_swapped(item, picture, new) for item in value]
    return new.field(value, picture) if isinstance(value, str) else value


def json_as_before(renewed: dict, data: dict, text: str) -> str:
    """Written as the file was, if one of the usual styles gives it, else with Python's defaults."""
    style = next((style for style in _STYLES if json.dumps(data, **style) == text.strip()), {"ensure_ascii": False})
    return json.dumps(renewed, **style) + text[len(text.rstrip()) :]
