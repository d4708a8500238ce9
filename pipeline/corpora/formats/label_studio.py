"""Label Studio's JSON export: a list of tasks, each with its data, which names a picture, and its annotations.

    [{"data": {"image": "/data/upload/1/0a1b2c3d-1.jpg"}, "annotations": [{"result": [
        {"id": "r1", "type": "rectanglelabels", "original_width": 400, "original_height": 300,
         "value": {"x": 5, "y": 10, "width": 25, "height": 10, "rotation": 0, "rectanglelabels": ["plate"]}},
        {"id": "r1", "type": "textarea", "from_name": "text", "value": {"text": ["ABC1234"]}}]}]}]

Results of one id are about one region. Places are in percent of the picture; a rectangle may be turned about its upper
left corner (rotation, in degrees clockwise); a polygon of four points is a plate's corners, of more the rectangle of
least area around them counts. A plate is a region with a label of plates, without any, or with a text. A text of no
region is that of the only plate, or of a picture without regions: a crop. Uploads have eight digits before their names.
What annotators did not submit goes from a rewritten file, and so do predictions: they may nearly read as a plate does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import cos, radians, sin
from posixpath import normpath
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from platemint.pipeline.corpora.checks import turn_of
from platemint.pipeline.corpora.formats.coco import json_as_before
from platemint.pipeline.corpora.labels import is_picture
from platemint.pipeline.corpora.name_texts import is_text_in_name
from platemint.pipeline.corpora.outlines import four_corners
from platemint.pipeline.corpora.records import Corners, Folder, Record, box, declared_size, numbers
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.corpora.text_fields import hidden_text, holds_text
from platemint.pipeline.parsing import parse_json
from platemint.pipeline.plate import PlatemintError, normalise

ANNOTATIONS = ("annotations", "completions")  # the second up to version 0.9
UNSUBMITTED = ("predictions", "drafts", "prediction")  # of a task, or of an annotation the result it began with
NAMED = ("file_upload", "storage_filename")  # other fields of a task that name its picture
TEXT, RELATION, LABELS = "textarea", "relation", "labels"  # types of results; that of labels is an end of several
UNREADABLE_SHAPES = ("brush", "bitmask", "ellipse", "keypoint", "vector")  # no plate can be cut out by them
_UPLOAD = re.compile(r"(?P<place>(?:.*/)?)[0-9a-f]{8}-(?P<name>[^/]+)")


class Region(NamedTuple):
    """What an annotation says of one place. corners: in pixels as declared, () for the whole picture.

    label: "" for none. holder: the value or note whose text it is, None where it has no place for one. field: of the
    text. fault: why it cannot be used.
    """

    label: str = ""
    corners: Corners = ()
    declared: tuple[float, ...] = ()
    holder: dict | None = None
    field: str = ""
    fault: str = ""

    @property
    def text(self) -> str | None:
        if self.holder is None:
            return None
        found = self.holder.get("text", "")
        return "".join(map(str, found[:1])) if isinstance(found, list) else str(found)

    @property
    def placed(self) -> bool:
        return bool(self.corners or self.fault)


def find(folder: Folder) -> dict[str, str]:
    return {note: "" for note in folder.of_kind(".json") if _is_export(note, folder)}


def read(note: str, text: str, picture: str, folder: Folder) -> Iterator[Record]:
    for number, task in enumerate(parse_json(text), 1):
        row = str(task.get("id", number))
        path = _picture(task, note, folder)
        if path not in folder.pictures:
            yield Record(path or note, row=row, empty=bool(path), fault="" if path else "the task names no picture")
        try:
            regions = _regions(_submitted(task), path, folder)
        except (AttributeError, KeyError, TypeError, ValueError) as fault:
            yield Record(path or note, row=row, fault=f"the task's annotation cannot be used: {fault}")
            continue
        for region in regions:
            record = Record(path or note, region.text, region.corners, row, fault=region.fault, kind=region.label)
            if turn_of(folder, path, region.declared):
                record = record._replace(fault="annotated as the picture is stored, which EXIF turns")
            yield record._replace(declared=region.declared)


def rewrite(note: str, text: str, picture: str, new: Rewording) -> str:
    data = parse_json(text)
    renewed = [
        _renewed(task, path, note, new) for task in data if (path := _picture(task, note, new.folder)) in new.paths
    ]
    return text if renewed == data else json_as_before(renewed, data, text)


def _is_export(note: str, folder: Folder) -> bool:
    if not folder.peek(note).lstrip().startswith("["):
        return False
    try:
        data = parse_json(folder.text(note))
    except (PlatemintError, ValueError):
        return False
    tasks = [task for task in data if isinstance(task, dict)]
    return len(tasks) == len(data) and any(map(_is_task, tasks)) and all("data" in task for task in tasks)


def _is_task(task: dict) -> bool:
    lists = any(isinstance(task.get(key), list) for key in ANNOTATIONS)
    return lists and isinstance(task.get("data"), dict) and bool(_named(task)[1])


def _named(task: dict) -> tuple[str, str]:
    """The key of a task's data that names its picture, and the name; "" and "" for none."""
    data = task.get("data")
    pairs = data.items() if isinstance(data, dict) else ()
    return next(((key, value) for key, value in pairs if isinstance(value, str) and is_picture(_path(value))), ("", ""))


def _path(name: str) -> str:
    """The path in a name that may be a URL: behind its host, without what follows; of local files what it asks for."""
    if is_picture(name) and "?" not in name:
        return name
    try:
        parts = urlsplit(name)
    except ValueError:
        return ""
    local = parse_qs(parts.query).get("d")
    return "/" + local[0].lstrip("/") if local else parts.path


def _picture(task: dict, note: str, folder: Folder) -> str:
    """The picture that a task is about, by its name or without what an upload puts before it."""
    path = _path(_named(task)[1])
    upload = _UPLOAD.fullmatch(path)
    found = folder.find(path, note)
    if found not in folder.pictures and upload:
        plain = upload["place"] + upload["name"]
        found = folder.find(plain, note)
        if names := folder.claims.get((note, found)):  # two uploads of one name are two pictures
            names.discard(normpath(plain))
            names.add(path)
    return found


def _submitted(task: dict) -> dict:
    """The annotation of a task that counts: of several, the one that is marked as true. Raises ValueError for doubt."""
    found = next((task[key] for key in ANNOTATIONS if isinstance(task.get(key), list)), [])
    kept = [annotation for annotation in found if not annotation.get("was_cancelled")]
    kept = [annotation for annotation in kept if annotation.get("ground_truth")] or kept
    if len(kept) > 1:
        raise ValueError("there are several; mark one as ground truth, or delete the others")
    if not kept and (found or any(task.get(key) for key in UNSUBMITTED)):
        raise ValueError("it is skipped or not submitted")
    return kept[0] if kept else {}


def _regions(annotation: dict, path: str, folder: Folder) -> list[Region]:
    """What an annotation says of its picture, in order. Raises ValueError for a text that may be several regions'."""
    groups: dict[str, list[dict]] = {}
    for number, result in enumerate(annotation.get("result", ())):
        if result.get("type") != RELATION:
            groups.setdefault(str(result.get("id", number)), []).append(result)
    regions = [_region(results, path, folder) for results in groups.values()]
    placed = [region for region in regions if region.placed]
    loose = [region for region in regions if region.holder is not None and not region.placed]
    if placed:
        loose = [region for region in loose if holds_text(region.field, True)]
    if len(loose) > 1:
        raise ValueError("several texts are of no region")
    if not placed or not loose:
        return placed or loose
    open_ = [n for n, region in enumerate(placed) if region.holder is None and _is_plate(region.label, folder)]
    if len(open_) != 1:
        raise ValueError("a text is of no region, and not one plate lacks its text")
    placed[open_[0]] = placed[open_[0]]._replace(holder=loose[0].holder, field=loose[0].field)
    return placed


def _region(results: list[dict], path: str, folder: Folder) -> Region:
    """What the results of one id say."""
    labels = [
        str(label)
        for result in results
        for key, names in result["value"].items()
        if key.endswith(LABELS) and isinstance(names, list)
        for label in names
    ]
    label = next(filter(folder.speaks_of_plates, labels), "".join(labels[:1]))
    region = Region(label)
    if not _is_plate(label, folder) and (hidden := hidden_text(_unread_fields(results))):
        return Region(fault=hidden)
    try:
        region = region._replace(**_text_place(results, _is_plate(label, folder)))
        shape = next((result for result in results if _has_place(result["value"])), None)
        if shape is None and (drawn := [r["type"] for r in results if r["type"].startswith(UNREADABLE_SHAPES)]):
            raise ValueError(f"a plate is drawn as {drawn[0]}; draw a rectangle or a polygon")
        return region if shape is None else region._replace(**_place(shape, path, folder))
    except ValueError as fault:
        return region._replace(fault=str(fault))


def _is_plate(label: str, folder: Folder) -> bool:
    return not label or folder.speaks_of_plates(label)


def _text_place(results: list[dict], of_plate: bool) -> dict:
    """The holder and the field of a region's text, {} for none. Raises ValueError where there are several."""
    areas = [result for result in results if result.get("type") == TEXT and "text" in result["value"]]
    named = [area for area in areas if holds_text(str(area.get("from_name", "")), of_plate)]
    found = named or (areas if of_plate else [])
    if len(found) > 1 or any(isinstance(a["value"]["text"], list) and len(a["value"]["text"]) > 1 for a in found):
        raise ValueError("a region has several texts; keep one, or call its field text")
    if found:
        return {"holder": found[0]["value"], "field": str(found[0].get("from_name", ""))}
    notes = [result["meta"] for result in results if isinstance(result.get("meta"), dict) and "text" in result["meta"]]
    notes = [note for note in notes if is_text_in_name(normalise(Region(holder=note).text or ""))] if of_plate else []
    return {"holder": notes[0], "field": "meta"} if notes else {}


def _unread_fields(results: list[dict]) -> dict[str, str]:
    """The texts that annotate something else than a plate, by the names of their fields."""
    areas = {str(result.get("from_name", "")): result["value"] for result in results if result.get("type") == TEXT}
    return {name: Region(holder=value).text or "" for name, value in areas.items() if not holds_text(name, False)}


def _has_place(value: dict) -> bool:
    return "points" in value or {"x", "y", "width", "height"} <= value.keys()


def _place(shape: dict, path: str, folder: Folder) -> dict:
    """The corners of a region, and the size that is declared with it. Raises ValueError where they cannot be known."""
    if shape.get("image_rotation"):
        raise ValueError("the picture was turned in the tool")
    declared = declared_size(shape.get("original_width"), shape.get("original_height"))
    width, height = declared or (folder.size(path) if path in folder.pictures else (100, 100))
    value = shape["value"]
    if "points" in value:
        corners = tuple(tuple(numbers(point)) for point in value["points"])
        corners = four_corners(tuple((x * width / 100, y * height / 100) for x, y in corners))
    else:
        x, y, w, h = numbers(value[key] for key in ("x", "y", "width", "height"))
        corners = box(x * width / 100, y * height / 100, (x + w) * width / 100, (y + h) * height / 100)
        corners = _turned(corners, *numbers([value.get("rotation") or 0]))
    return {"corners": corners, "declared": declared}


def _turned(corners: Corners, degrees: float) -> Corners:
    """A box turned about its upper left corner, clockwise as one sees it."""
    (x, y), (right, down) = corners[0], (cos(radians(degrees)), sin(radians(degrees)))
    return tuple((x + (a - x) * right - (b - y) * down, y + (a - x) * down + (b - y) * right) for a, b in corners)


def _renewed(task: dict, path: str, note: str, new: Rewording) -> dict:
    """A task with other texts, its picture's new name, and nothing but the annotation that counts."""
    counts = _submitted(task)
    kept = {key: [counts] if key in ANNOTATIONS and counts else value for key, value in task.items()}
    renewed = _swapped(kept, path, new)
    for old, fresh in zip(_regions(counts, path, new.folder), _regions(_submitted(renewed), path, new.folder)):
        if fresh.holder is not None and (label := new.text(path, old.text, old.corners)) != old.text:
            fresh.holder["text"] = ([label] if label else []) if isinstance(fresh.holder["text"], list) else label
    key, name = _named(task)
    renewed["data"][key] = _reference(name, path, note, new)
    for key in NAMED:
        if isinstance(name := task.get(key), str) and is_picture(name):
            renewed[key] = new.reference(name, path)
    return renewed


def _swapped(value: object, path: str, new: Rewording, key: str = "") -> object:
    """A copy of a JSON value without the old texts in its strings, but for names of labels, and without predictions."""
    if key in UNSUBMITTED and isinstance(value, dict | list):
        return type(value)()
    if isinstance(value, dict):
        return {name: _swapped(item, path, new, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_swapped(item, path, new, key) for item in value]
    return new.other(value, path) if isinstance(value, str) and not key.endswith(LABELS) else value


def _reference(name: str, path: str, note: str, new: Rewording) -> str:
    """How a task names its picture from now on: as before, but a URL would lead to the old one."""
    leads_elsewhere = "://" in name or not is_picture(name)
    return new.reference("/", path, note) if leads_elsewhere else new.reference(name, path)
