"""Pascal VOC: for each picture an .xml of its stem, or that names it, with an object for each thing in it.

Pixels count from 1. A plate is an object whose name is a class of plates or is itself a text with digits, or one with a
text: in an element text, plate or plate_text, or in an attribute of that name (object/attributes/attribute, with name
and value). Four corners may stand in polygon/{x1,y1,...,x4,y4}, else bndbox counts; both have to agree. A rewritten
file is the same XML, without its comments and with empty elements as <a />.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from posixpath import basename
from xml.etree import ElementTree
from xml.sax.saxutils import escape, unescape

from platemint.pipeline.corpora.checks import turn_of
from platemint.pipeline.corpora.records import (
    PLATE,
    TEXT_KEYS,
    Corners,
    Folder,
    Record,
    agreeing,
    bounds,
    box,
    declared_size,
    folded,
    numbers,
    points,
    stem,
)
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.parsing import parse_xml
from platemint.pipeline.plate import LONGEST, characters, normalise, unspellable

CORNERS = tuple(f"{axis}{i}" for i in range(1, 5) for axis in "xy")
SIDES = ("xmin", "ymin", "xmax", "ymax")
_LEAST = 4  # characters of a name that is a text
_NAMES = ("filename", "path")
_ROOT = re.compile(r"<annotation[\s>]")
_FILENAME = re.compile(r"<filename>([^<]*)</filename>")
_DECLARATION = re.compile(r"\s*<\?xml.*?\?>\s*")
_NAME = re.compile(r"<object>\s*<name>([^<]*)</name>")
_NEW = (
    "<annotation>\n\t<filename>{name}</filename>\n\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n"
    "\t\t<depth>3</depth>\n\t</size>\n</annotation>\n"
)
_OBJECT = (
    "\t<object>\n\t\t<name>{}</name>\n\t\t<text />\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
    "\t\t<difficult>0</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>{}</xmin>\n\t\t\t<ymin>{}</ymin>\n\t\t\t<xmax>{}</xmax>\n"
    "\t\t\t<ymax>{}</ymax>\n\t\t</bndbox>\n\t</object>\n"
)


def find(folder: Folder) -> dict[str, str]:
    return folder.paired(".xml", lambda text: bool(_ROOT.search(text)), _named)


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    """Raises ValueError for what is not XML, or declares a document type."""
    root = parse_xml(text)
    declared = _declared(root)
    for number, thing in enumerate(root.iter("object"), 1):
        place = _place(thing)
        record = Record(picture, None if place is None else place.text or "", row=str(number), declared=declared)
        record = record._replace(kind="" if place is not None else thing.findtext("name", "").strip())
        try:
            yield record._replace(corners=_corners(thing))
        except ValueError as fault:
            yield record._replace(fault=str(fault))


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    root = parse_xml(text)
    drawn = {place: _corners(thing) for thing in root.iter("object") if (place := _place(thing)) is not None}
    before = ElementTree.tostring(root)
    for element in root.iter():
        element.text = _renewed(element, drawn.get(element), picture, new)
        element.tail = new.other(element.tail, picture) if element.tail else None
        element.attrib.update({key: new.other(value, picture) for key, value in element.attrib.items()})
    if turn := turn_of(new.folder, picture, _declared(root)):
        _turn(root, turn)
    return xml_as_before(root, before, text)


def room(note: str, text: str, picture: str, folder: Folder) -> set[str]:
    """Its picture, unless it has another size of it."""
    return {picture} if _declared(parse_xml(text)) in ((), folder.size(picture)) else set()


def add(note: str, text: str, found: dict[str, list[Corners]], folder: Folder) -> str:
    """Objects of the class of plates, with an element for the text."""
    for picture, plates in found.items():
        width, height = folder.size(picture)
        text = text or _NEW.format(name=escape(basename(picture)), width=width, height=height)
        end = text.rindex("</annotation>")
        sides = (map("{:g}".format, (v + 1 for v in bounds(corners))) for corners in plates)
        text = text[:end] + "".join(_OBJECT.format(_plate_class(folder), *side) for side in sides) + text[end:]
    return text


@lru_cache(maxsize=1)
def _plate_class(folder: Folder) -> str:
    """The class that plates have in the first file that has one."""
    names = (name for note in find(folder) for name in map(str.strip, _NAME.findall(folder.text(note))))
    plates = (name for name in names if folder.speaks_of_plates(unescape(name)) and not _is_text(unescape(name)))
    return next(plates, "license_plate")


def _turn(root: ElementTree.Element, turn: Callable[[float, float], tuple[float, float]]) -> None:
    """Turns all places in a file, and the size of its picture."""
    width, height = root.find("size/width"), root.find("size/height")
    width.text, height.text = height.text, width.text
    for place in [*root.iter("bndbox"), *root.iter("polygon")]:
        tags = SIDES if place.tag == "bndbox" else CORNERS
        try:
            turned = [turn(*point) for point in points([float(place.findtext(tag)) - 1 for tag in tags])]
        except (TypeError, ValueError):  # of a thing that is no plate: it would be wrong in the new picture
            place.clear()
            continue
        values = bounds(turned) if tags is SIDES else [value for point in turned for value in point]
        for tag, value in zip(tags, values):
            place.find(tag).text = f"{value + 1:.10g}"


def _named(text: str) -> str:
    """The picture's name as the beginning of a file has it."""
    match = _FILENAME.search(text)
    return unescape(match[1].strip()) if match else ""


def xml_as_before(root: ElementTree.Element, before: bytes, text: str) -> str:
    """A changed file, with the declaration and the end that its text had. before: the tree as it was in bytes."""
    if ElementTree.tostring(root) == before and "<!--" not in text:
        return text
    declaration = _DECLARATION.match(text)
    return (declaration[0] if declaration else "") + ElementTree.tostring(root, "unicode") + text[len(text.rstrip()) :]


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
    return declared_size(root.findtext("size/width"), root.findtext("size/height"))


def _corners(thing: ElementTree.Element) -> Corners:
    """Raises ValueError where there is neither polygon nor bndbox, they hold no numbers, or say two places."""
    polygon, bndbox = thing.find("polygon"), thing.find("bndbox")
    corners = polygon is not None and all(polygon.find(tag) is not None for tag in CORNERS)
    if not corners and bndbox is None:
        raise ValueError("a plate has neither bndbox nor a polygon of four corners")
    outline = points([value - 1 for value in numbers(map(polygon.findtext, CORNERS))]) if corners else ()
    if bndbox is None:
        return outline
    sides = [value - 1 for value in numbers(bndbox.findtext(tag, "") for tag in SIDES)]
    return agreeing(outline, box(*sides)) if corners else box(*sides)


def _renewed(element: ElementTree.Element, drawn: Corners | None, picture: str, new: Rewording) -> str | None:
    text = element.text or ""
    if drawn is not None:
        return new.text(picture, text, drawn) or None
    if element.tag in _NAMES and folded(stem(text.replace("\\", "/"))) == folded(stem(picture)):
        return new.reference(text, picture)
    return element.text if element.tag == "name" else new.other(text, picture)
