"""Pascal VOC: for each picture an .xml of its stem, with an object for each thing in it; pixels count from 1.

A plate is an object whose name is a class of plates or is itself a text with digits, or one with a text: in an element
text, plate or plate_text, or in an attribute of that name (object/attributes/attribute/{name,value}). Four corners
may stand in polygon/{x1,y1,...,x4,y4}, else bndbox counts; both have to agree. A rewritten file is the same XML, without its comments and
with empty elements as <a />.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from pipeline.corpora.frames.records import PLATE, TEXT_KEYS, Corners, Folder, Mark, agreeing, box, folded, numbers, points, stem
from pipeline.corpora.frames.rewording import Rewording
from pipeline.plate import LONGEST, characters, normalise, unspellable

CORNERS = tuple(f"{axis}{i}" for i in range(1, 5) for axis in "xy")
_LEAST = 4  # characters of a name that is a text
_NAMES = ("filename", "path")
_DECLARATION = re.compile(r"\s*<\?xml.*?\?>\s*")
_DOCTYPE = re.compile(r"<!(DOCTYPE|ENTITY)", re.IGNORECASE)


def find(folder: Folder) -> dict[str, str]:
    return folder.twins(".xml", lambda text: "<annotation" in text)


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Mark]:
    """Raises ValueError for what is not XML, or declares a document type."""
    root = _parsed(text)
    declared = _declared(root)
    for number, thing in enumerate(root.iter("object"), 1):
        place = _place(thing)
        mark = Mark(picture, None if place is None else place.text or "", row=str(number), declared=declared)
        mark = mark._replace(kind="" if place is not None else thing.findtext("name", "").strip())
        try:
            yield mark._replace(corners=_corners(thing))
        except ValueError as fault:
            yield mark._replace(fault=str(fault))


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    root = _parsed(text)
    places = {_place(thing) for thing in root.iter("object")}
    before = ElementTree.tostring(root)
    for element in root.iter():
        element.text = _renewed(element, element in places, picture, new)
        element.tail = new.other(element.tail, picture) if element.tail else None
        element.attrib.update({key: new.other(value, picture) for key, value in element.attrib.items()})
    if ElementTree.tostring(root) == before and "<!--" not in text:
        return text
    declaration = _DECLARATION.match(text)
    return (declaration[0] if declaration else "") + ElementTree.tostring(root, "unicode") + text[len(text.rstrip()) :]


def _parsed(text: str) -> ElementTree.Element:
    if _DOCTYPE.search(text):
        raise ValueError("the file declares a document type, which can make it explode; remove <!DOCTYPE ...>")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as fault:
        raise ValueError(f"not XML: {fault}") from None


def _place(thing: ElementTree.Element) -> ElementTree.Element | None:
    """The element that holds the text of an object."""
    for attribute in thing.iter("attribute"):
        if attribute.findtext("name", "").lower() in TEXT_KEYS:
            return attribute.find("value")
    name = thing.find("name")
    found = next((element for key in TEXT_KEYS if (element := thing.find(key)) is not None), name)
    return found if found is not name or (name is not None and _is_text(name.text or "")) else None


def _is_text(name: str) -> bool:
    text = normalise(name)
    fits = _LEAST <= len(text) <= LONGEST and not unspellable(text) and not PLATE.search(name)
    return fits and any(map(str.isdigit, characters(text)))


def _declared(root: ElementTree.Element) -> tuple[float, ...]:
    """Width and height of the picture, () where the file does not say both."""
    try:
        size = numbers([root.findtext("size/width", ""), root.findtext("size/height", "")])
    except ValueError:
        return ()
    return tuple(size) if min(size) > 0 else ()


def _corners(thing: ElementTree.Element) -> Corners:
    """Raises ValueError where there is neither polygon nor bndbox, they hold no numbers, or say two places."""
    polygon, bounds = thing.find("polygon"), thing.find("bndbox")
    corners = polygon is not None and all(polygon.find(tag) is not None for tag in CORNERS)
    if not corners and bounds is None:
        raise ValueError("a plate has neither bndbox nor a polygon of four corners")
    outline = points([value - 1 for value in numbers(map(polygon.findtext, CORNERS))]) if corners else ()
    if bounds is None:
        return outline
    sides = [value - 1 for value in numbers(bounds.findtext(tag, "") for tag in ("xmin", "ymin", "xmax", "ymax"))]
    return agreeing(outline, box(*sides)) if corners else box(*sides)


def _renewed(element: ElementTree.Element, is_text: bool, picture: str, new: Rewording) -> str | None:
    text = element.text or ""
    if is_text:
        return new.text(picture, text)
    if element.tag in _NAMES and folded(stem(text.replace("\\", "/"))) == folded(stem(picture)):
        return new.reference(text, picture)
    return element.text if element.tag == "name" else new.other(text, picture)
