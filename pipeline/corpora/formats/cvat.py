"""CVAT for images, 1.1: one XML file with an element image for each picture, and in it a shape for each thing.

    <annotations><image name="1.jpg" width="400" height="300">
        <box label="plate" xtl="20" ytl="30" xbr="120" ybr="60"><attribute name="text">ABC1234</attribute></box>

Pixels count from 0. A box may be turned about its middle (rotation, in degrees clockwise). Of shapes with points, four
are a plate's corners; of more, the rectangle of least area around them counts. A plate is a shape with a label of
plates, or one with a text: in an attribute that is called text, plate_number or the like. In a picture without shapes, a
tag with a text says what the whole picture, a crop, reads. A rewritten file is the same XML, without its comments and
with empty elements as <a />.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import cos, radians, sin
from xml.etree.ElementTree import Element, SubElement, tostring

from platemint.pipeline.corpora.checks import turn_of
from platemint.pipeline.corpora.formats.voc import xml_as_before
from platemint.pipeline.corpora.outlines import four_corners
from platemint.pipeline.corpora.records import (
    Corners,
    Folder,
    Record,
    bounds,
    box,
    declared_size,
    numbers,
    points,
    split_named,
)
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.corpora.text_fields import hidden_text, holds_text
from platemint.pipeline.parsing import parse_xml
from platemint.pipeline.plate import PlatemintError

SIDES = ("xtl", "ytl", "xbr", "ybr")
TAG = "tag"  # says something about the whole picture
NAMES = ("label", "name")  # attributes with names of classes, which a plate may happen to read like, and of fields
_ROOT = re.compile(r"<annotations[\s>]")
_IMAGE = re.compile(r"<image\s")


def find(folder: Folder) -> dict[str, str]:
    return {note: "" for note in folder.of_kind(".xml") if _is_cvat(note, folder)}


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    """Raises PlatemintError for what is not XML, or declares a document type."""
    number = 0
    for image in _root(note, text, folder).findall("image"):
        path = folder.find(image.get("name", ""), note)
        if path not in folder.pictures:
            yield Record(path or note, empty=bool(path), fault="" if path else "an image has no name")
        shapes = [shape for shape in image if shape.tag != TAG]
        for shape in image:
            number += 1
            if shape.tag != TAG or _text(shape, folder) is not None:
                record = _record(shape, bool(shapes), folder)
                split = split_named(image.get("subset", ""))
                yield record._replace(picture=path or note, row=str(number), split=split, declared=_declared(image))


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    root = _root(note, text, new.folder)
    before = tostring(root)
    labels = {name for label in root.iter("label") for name in label.findall("name")}
    for image in root.findall("image"):
        path = new.folder.find(image.get("name", ""), note)
        if path in new.paths:
            _renew(image, path, new)
        else:
            root.remove(image)
    for part in root:
        for element in part.iter() if part.tag != "image" else ():
            element.text = element.text if element in labels else _swapped(element.text, "", new)
    return xml_as_before(root, before, text)


def room(note: str, text: str, picture: str, folder: Folder) -> set[str]:
    """Its images, but for those that it has another size of."""
    images = _root(note, text, folder).findall("image")
    paths = {folder.find(image.get("name", ""), note): _declared(image) for image in images}
    return {path for path, size in paths.items() if path in folder.pictures and size in ((), folder.size(path))}


def add(note: str, text: str, found: dict[str, list[Corners]], folder: Folder) -> str:
    """Boxes with the label of plates, and with an attribute for the text that is called as the first one's."""
    root = _root(note, text, folder)
    before = tostring(root)
    shapes = [shape for image in root.findall("image") for shape in image]
    label = next(filter(folder.speaks_of_plates, (shape.get("label", "") for shape in shapes)), "license_plate")
    name = next((place.get("name") for shape in shapes if (place := _text(shape, folder)) is not None), "text")
    for image in root.findall("image"):
        for corners in found.get(folder.find(image.get("name", ""), note), ()):
            sides = zip(SIDES, map("{:g}".format, bounds(corners)))
            shape = SubElement(image, "box", {"label": label, "source": "auto", "occluded": "0", **dict(sides)})
            SubElement(shape, "attribute", name=name)
    return xml_as_before(root, before, text)


def _is_cvat(note: str, folder: Folder) -> bool:
    if not _ROOT.search(folder.peek(note)):
        return False
    with suppress(PlatemintError):
        return bool(_IMAGE.search(folder.text(note)))
    return False


def _root(note: str, text: str, folder: Folder) -> Element:
    try:
        return parse_xml(text)
    except ValueError as fault:
        raise PlatemintError(f"{folder.root / note}: {fault}") from None


def _declared(image: Element) -> tuple[float, ...]:
    """Width and height of the picture, () where they are not both there."""
    return declared_size(image.get("width"), image.get("height"))


def _text(shape: Element, folder: Folder) -> Element | None:
    """The attribute that holds the text of a shape."""
    is_plate = folder.speaks_of_plates(shape.get("label", ""))
    attributes = shape.findall("attribute")
    return next((a for of in (False, is_plate) for a in attributes if holds_text(a.get("name", ""), of)), None)


def _record(shape: Element, among_shapes: bool, folder: Folder) -> Record:
    """A shape's annotation, not yet with its picture. among_shapes: its picture has shapes with places."""
    place, kind = _text(shape, folder), shape.get("label", "")
    record = Record("", None if place is None else place.text or "", kind=kind)
    if not (record.text or "").strip():
        of_plate = folder.speaks_of_plates(kind)
        fields = {a.get("name", ""): a.text or "" for a in shape.findall("attribute")}
        if hidden := hidden_text({name: text for name, text in fields.items() if of_plate or holds_text(name, True)}):
            return record._replace(kind="", fault=hidden)
    try:
        if shape.tag == TAG and among_shapes:
            raise ValueError("the text of a tag belongs to none of the picture's shapes; give it to one")
        return record._replace(corners=_corners(shape))
    except ValueError as fault:
        return record._replace(fault=str(fault))


def _corners(shape: Element) -> Corners:
    """Raises ValueError for a shape that is no outline, and for one without numbers."""
    if shape.tag == TAG:
        return ()
    if shape.tag == "box":
        return _turned(box(*numbers(shape.get(side, "") for side in SIDES)), *numbers([shape.get("rotation") or 0]))
    pairs = ";".join(part.get("points", "") for part in shape.iter() if part.get("points"))
    if not pairs:
        raise ValueError(f"a plate is drawn as {shape.tag}; draw a box or a polygon")
    return four_corners(points(numbers(re.split("[,;]", pairs))))


def _turned(corners: Corners, degrees: float) -> Corners:
    """A box turned about its middle, clockwise as one sees it."""
    x1, y1, x2, y2 = bounds(corners)
    (x, y), (right, down) = ((x1 + x2) / 2, (y1 + y2) / 2), (cos(radians(degrees)), sin(radians(degrees)))
    if not degrees:
        return corners
    return tuple((x + (a - x) * right - (b - y) * down, y + (a - x) * down + (b - y) * right) for a, b in corners)


def _renew(image: Element, path: str, new: Rewording) -> None:
    """Gives an image, and what is in it, other texts and its new name; and turns it with its picture."""
    for shape in image:
        place = _text(shape, new.folder)
        drawn = _record(shape, False, new.folder).corners
        for element in shape.iter():
            if element is place:
                element.text = new.text(path, element.text or "", drawn) or None
            else:
                element.text = _swapped(element.text, path, new)
            others = {key: value for key, value in element.attrib.items() if key not in NAMES}
            element.attrib.update({key: new.other(value, path) for key, value in others.items()})
    image.set("name", new.reference(image.get("name", ""), path))
    if turn := turn_of(new.folder, path, _declared(image)):
        width, height = image.get("width", ""), image.get("height", "")
        image.attrib.update(width=height, height=width)
        for shape in [*image]:
            _turn(shape, turn, image)


def _turn(shape: Element, turn: Callable[[float, float], tuple[float, float]], image: Element) -> None:
    """Turns a shape's places; takes one out that has others, which would be wrong in the new picture."""
    if shape.tag == "box":
        sides = bounds(tuple(turn(*point) for point in box(*(float(shape.get(side, "nan")) for side in SIDES))))
        shape.attrib.update({side: f"{value:.10g}" for side, value in zip(SIDES, sides)})
        (x, y), (x1, y1), (x2, y2) = turn(0, 0), turn(1, 0), turn(0, 1)
        if "rotation" in shape.attrib and (x1 - x) * (y2 - y) < (x2 - x) * (y1 - y):  # mirrored
            shape.set("rotation", f"{-float(shape.get('rotation')):.10g}")
    elif shape.get("points"):
        turned = (turn(*point) for point in points(numbers(re.split("[,;]", shape.get("points")))))
        shape.set("points", ";".join(f"{x:.10g},{y:.10g}" for x, y in turned))
    elif shape.tag != TAG:
        image.remove(shape)


def _swapped(text: str | None, path: str, new: Rewording) -> str | None:
    return new.other(text, path) if text else text
