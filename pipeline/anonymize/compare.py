"""verify --against: the audit of an anonymized folder, made again from outside: from the two folders and nothing else.

Its faults name source texts and places, for whoever has the corpus; they are no part of what may be given away.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from posixpath import dirname, join, splitext
from typing import TextIO

import cv2
import numpy as np
from PIL import Image

from platemint.pipeline.anonymize.audit import OWN, sha256_of_files
from platemint.pipeline.anonymize.file_parts import UNKNOWN, metadata_in
from platemint.pipeline.anonymize.loose import closer_views
from platemint.pipeline.anonymize.not_replaced import ASIDE, PICTURE
from platemint.pipeline.anonymize.picture import Picture, differing, open_picture, read_picture_file, shown
from platemint.pipeline.anonymize.plan import AUDIT
from platemint.pipeline.anonymize.residue import UNTOUCHED, untouched
from platemint.pipeline.anonymize.search import Hit, Scan, scan
from platemint.pipeline.anonymize.unfinished import UNFINISHED
from platemint.pipeline.corpora import containers
from platemint.pipeline.corpora.checks import SAME_PLATE
from platemint.pipeline.corpora.datasets import (
    BARE,
    GONE_WITH_TEXT,
    Annotation,
    Dataset,
    Frame,
    kept_columns,
    open_any,
)
from platemint.pipeline.corpora.formats.pictures import numbered
from platemint.pipeline.corpora.records import Corners, box, box_iou
from platemint.pipeline.corpora.rectify import View, views_of
from platemint.pipeline.filter import Filter
from platemint.pipeline.find import TextFinder
from platemint.pipeline.plate import Plate, PlatemintError, Readings, canonical, characters, same_reading
from platemint.pipeline.progress import Count
from platemint.pipeline.recipe import Edit, Limits
from platemint.pipeline.report.audit_page import GIVEN_UP, HEAD, TAIL, letters, own_words
from platemint.pipeline.storage import read_json

BLOCK = 16  # pixels that a JPEG codes together, of each side, where its colours are stored at half the size
SPILL = 2  # pixels that the colours of such a block reach beyond it when they are enlarged again
_WORDS = re.compile(rb"[\w.+:-]+")
_COUNT = re.compile(rb"-?\d+(\.\d+)?")  # in audit.json; the page parts thousands by commas
_MADE_WITH = re.compile(
    rb"[0-9a-f]{64}|\d+(\.\w+)+(\+\w+)?|\d{4}-\d\d-\d\d|([0-9a-f]{2}:){7}[0-9a-f]{2}"
)  # hash, version, day, id
# What a TIFF file needs to be decoded, and the resolution: size, bits, compression, colours, strips, planes, predictor,
# palette, alpha, sample format. All else is metadata.
TIFF_NEEDED = {256, 257, 258, 259, 262, 273, 277, 278, 279, 282, 283, 284, 296, 317, 320, 338, 339}


@dataclass
class Report:
    """What was found. faults: one line each, naming file and remedy or place; empty if all is well.

    files: without the audit's two, which are searched as well. compared: pictures held against the corpus's own outside
    of their plates. lossy: of these, JPEG files; mean and largest: how far their pixels there are from the corpus's,
    0..255, as encoding anew makes them. characters: looked for where they stood, of plates, replaced or redacted, that
    our reader reads in the corpus without a mistake; an audit counts those of replaced plates, whether read or not.
    """

    faults: list[str] = field(default_factory=list)
    files: int = 0
    pictures: int = 0
    plates: int = 0
    compared: int = 0
    characters: int = 0
    lossy: int = 0
    values: int = 0
    total: int = 0
    largest: int = 0

    @property
    def mean(self) -> float:
        return self.total / max(self.values, 1)

    @property
    def summary(self) -> str:
        found = f"{len(self.faults)} faults" if self.faults else "no fault"
        jpeg = f" ({self.lossy:,} JPEG: mean difference {self.mean:.2f}, largest {self.largest})" if self.lossy else ""
        return (
            f"{self.files:,} files beside the audit, {self.pictures:,} pictures, {self.plates:,} plates; "
            f"{self.compared:,} pictures compared outside of plates{jpeg}; {self.characters:,} characters, of plates that "
            f"our reader reads in the corpus, looked for where they stood: {found}"
        )


def verify_against(
    folder: str | Path,
    corpus: str | Path,
    format: str = "",
    progress: TextIO | None = None,
    classes: Iterable[str] = (),
) -> Report:
    """Checks an anonymized folder against the dataset it was made from.

    format: of the corpus, where several fit. classes: of its plates, as it was anonymized with.

    Raises PlatemintError where either folder is not there or the corpus cannot be read.
    """
    source = open_any(corpus, format, classes=classes, bare=_took_finds(Path(folder)))
    check = _Check(Path(folder), source)
    found = scan(folder, check.real)
    found.hits = [hit for hit in found.hits if not _is_ours(hit, Path(folder))]
    found.literals = [hit for hit in found.literals if hit.path not in OWN]
    check.texts(found)
    try:
        form = "coco" if source.format == BARE else source.format
        copy = open_any(folder, form, sure=True, classes=source.classes)
    except PlatemintError as fault:
        check.fault(str(folder), f"is no dataset of the corpus's format, {source.format} ({fault})")
        return check.report
    check.labels(copy)
    check.files(copy)
    reporter = Count(len(copy.frames), progress, "pictures checked")
    for frame in copy.frames:
        check.picture(frame)
        reporter.add(1, 0)
    reporter.close()
    check.figures(copy)
    return check.report


class _Check:
    """Goes through an anonymized folder once."""

    def __init__(self, folder: Path, source: Dataset):
        self.folder, self.source, self.report = folder, source, Report()
        annotated = (annotation.text for frame in source.frames for annotation in frame.annotations)
        self.real = sorted({*annotated, *source.lost, *source.named} - {""})
        self.finds = _finds(folder)
        self.origins = containers.origins(source, _left_out(folder))
        self.pictures = {_path(frame, source): frame for frame in source.frames}
        places = Counter(map(_places, source.frames))
        self.placed = {_places(frame): frame for frame in source.frames if places[_places(frame)] == 1}
        self.scan = Scan()
        self.pixels = 0

    @property
    def own(self) -> list[Path]:
        """The audit's files that are there."""
        return [self.folder / name for name in OWN if (self.folder / name).is_file()]

    def fault(self, where: str, what: str) -> None:
        self.report.faults.append(f"{where}: {what}")

    def texts(self, found: Scan) -> None:
        """No name and no byte spells a text of the corpus."""
        self.scan, self.report.files = found, found.files - len(self.own)
        for hit in found.hits:
            self.fault(hit.path, f"spells {hit.text}, a text of the corpus ({hit.where}, at {hit.offset})")
        for unread in found.unread:
            self.report.faults.append(f"{unread}; it could not be searched, so remove it")

    def labels(self, copy: Dataset) -> None:
        """No label reads like a text of the corpus; none is unusable, or about a picture that is not there."""
        real = Readings(self.real)
        for frame in copy.frames:
            self.report.plates += len(frame.annotations)
            for annotation in frame.annotations:
                if annotation.text and annotation.text in real:
                    self.fault(frame.path, f"is labelled {annotation.text}, which reads like a text of the corpus")
        for item in copy.set_aside:
            self.fault(item["path"], f"{item['row'] and 'row ' + item['row'] + ': '}{item['reason']}")

    def files(self, copy: Dataset) -> None:
        """There is nothing but the dataset and its audit."""
        if (self.folder / UNFINISHED).exists():
            self.fault(
                UNFINISHED,
                "the run has not ended, or ended with faults; mend those listed here and anonymize again, same --out",
            )
        for path in copy.unknown:
            if path not in OWN:
                self.fault(path, "is no file of the dataset; remove it")

    def picture(self, frame: Frame) -> None:
        """A picture decodes, holds no metadata, and outside of its plates shows what the corpus's shows."""
        self.report.pictures += 1
        try:
            new = open_picture(self.folder / frame.path)
        except ValueError as fault:
            return self.fault(frame.path, str(fault))
        self.pixels += new.pixels.shape[0] * new.pixels.shape[1]
        if kinds := _metadata(self.folder / frame.path, new):
            self.fault(frame.path, f"holds metadata: {', '.join(kinds)}")
        if original := self.original(frame):
            try:
                self.beside(frame, original, open_picture(self.source.root / original.path), new)
            except ValueError as fault:
                self.fault(frame.path, f"the corpus's picture, {original.path}, cannot be compared: {fault}")

    def original(self, frame: Frame) -> Frame | None:
        """The corpus's frame of the same path or, where names were plates, the one with its plates in these places."""
        annotations = [
            annotation
            for annotation in frame.annotations
            if not any(box_iou(annotation.corners, found) > SAME_PLATE for found in self.found(frame))
        ]
        places = _places(replace(frame, annotations=tuple(annotations)))
        return self.named(frame) or (self.placed.get(places) if places else None)

    def named(self, frame: Frame) -> Frame | None:
        """The corpus's frame that a path of the copy stands for, None where its name was a plate."""
        return self.pictures.get(self.origins.get(frame.path, frame.path))

    def found(self, frame: Frame) -> list[Corners]:
        """Where a detector has found plates on a picture that the corpus does not annotate."""
        return [box(*find["box"]) for find in self.finds if find["picture"] == frame.path]

    def beside(self, frame: Frame, original: Frame, old: Picture, new: Picture) -> None:
        """Compares a picture with the corpus's, outside of the plates that are annotated or were found there."""
        if (old.format, old.pixels.shape) != (new.format, new.pixels.shape):
            return self.fault(frame.path, f"is a file of another kind or size than the corpus's, {original.path}")
        found = [Annotation("", corners) for corners in self.found(frame)]
        views = views_of([*original.annotations, *found], old.pixels)
        closer = closer_views(self.finder, views, [old.pixels] * len(views))
        looks = [near or view for near, view in zip(closer, views)]
        self.in_view(frame, original, [(look.cut(old.pixels), look.cut(new.pixels)) for look in looks])
        free = plates(views, old.pixels.shape[:2])
        wrong = differing(new.pixels, old.pixels)
        if new.format == "JPEG":
            free = _blocks(free)
            wrong &= differing(new.pixels, _again(old))
            self._measure(np.abs(new.pixels.astype(np.int16) - old.pixels)[~free])
        wrong &= ~free
        self.report.compared += 1
        if wrong.any():
            y, x = np.argwhere(wrong)[0].tolist()
            self.fault(frame.path, f"differs outside of its plates, in {wrong.sum():,} pixels, the first at {x}, {y}")

    def in_view(self, frame: Frame, original: Frame, cuts: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """No character stands where it stood on a plate that our reader reads in the corpus's picture.

        cuts: of each plate, as it was and as it is. New strokes may have the old ones' colour, so that a character counts
        only where more is read there than the new text.
        """
        labels = {annotation.corners: annotation.text for annotation in frame.annotations}
        asked = [
            (*cut, annotation.text, labels.get(annotation.corners, ""))
            for annotation, cut in zip(original.annotations, cuts)
            if annotation.text
        ]
        readings = self.reader.read([before for before, *_ in asked]) if asked else []
        asked = [plate for plate, (reading, _) in zip(asked, readings) if same_reading(reading, plate[2])]
        now = self.reader.read([after for _, after, *_ in asked]) if asked else []
        where = self.reader.standing([Plate(before, text) for before, _, text, _ in asked])
        for (before, after, old, new), (reading, _), standing in zip(asked, now, where):
            self.report.characters += len(characters(old))
            left = _added(reading, new, old)
            if standing and len(canonical(reading)) > len(canonical(new)):
                left += (_others(old, new) & (untouched(before, after, standing) > UNTOUCHED)).sum()
            if left:
                self.fault(frame.path, f"{left} characters of the plate {old} are still in view")

    @cached_property
    def finder(self) -> TextFinder:
        return TextFinder(Edit())

    @cached_property
    def reader(self) -> Filter:
        return Filter(Limits(), Edit())

    def _measure(self, difference: np.ndarray) -> None:
        report = self.report
        report.lossy += 1
        report.values += difference.size
        report.total += int(difference.sum())
        report.largest = max(report.largest, int(difference.max(initial=0)))

    def figures(self, copy: Dataset) -> None:
        """audit.json says what the two folders show."""
        try:
            said = _flat(read_json(self.folder / AUDIT))
            listed = [str(item["picture"]) for item in said.get("detector.uncovered", ())]
            listed += map(str, said.get("detector.not_looked_at", ()))
            listed += [str(find["picture"]) for find in said.get("detector.settled", ())]
        except (AttributeError, KeyError, TypeError, PlatemintError):
            return self.fault(AUDIT, "is missing or damaged: nothing says what was done")
        for path in listed:
            if path not in copy.folder.pictures:
                self.fault(AUDIT, f"detector: lists {path}, which is no picture of the folder")
        only_told = ("pictures.set_aside", "reading.replaced_without_label", "reading.texts")
        found = (said.get(name, 0) for name in only_told)
        for name, value in self.counted(copy, *(n if isinstance(n, int) else 0 for n in found)).items():
            if said.get(name) != value:
                self.fault(AUDIT, f"{name}: says {said.get(name)}, but the folders show {value}")
        self.given_up(said)

    def given_up(self, said: dict[str, object]) -> None:
        """The list of what was given up has as much of each kind as the figures say."""
        try:
            listed = said[GIVEN_UP]
            outcomes, ids = Counter(item["outcome"] for item in listed), {item["id"] for item in listed}
            reasons = Counter(item["reason"] for item in listed if item["outcome"] in ("redacted", "withheld"))
            aside = said["pictures.set_aside"] + said["missing_pictures_and_other_faults"]
            figures = {outcome: said[f"plates.{outcome}"] for outcome in ("redacted", "withheld")}
            figures |= {ASIDE: aside, PICTURE: said["annotations.pictures_withheld"]}
        except (KeyError, TypeError):
            return self.fault(AUDIT, f"{GIVEN_UP}: is missing or damaged")
        for outcome in sorted({*outcomes, *figures}):
            if outcomes[outcome] != figures.get(outcome, 0):
                self.fault(
                    AUDIT, f"{GIVEN_UP}: lists {outcomes[outcome]} {outcome}, the figures say {figures.get(outcome, 0)}"
                )
        if dict(reasons) != said["reasons"]:
            self.fault(AUDIT, f"{GIVEN_UP}: its reasons are not those of the figures")
        if len(ids) < len(listed):
            self.fault(AUDIT, f"{GIVEN_UP}: lists an id twice")

    def counted(self, copy: Dataset, aside: int, unlabelled: int, read: int) -> dict[str, int | str | list[str]]:
        """The figures of audit.json that can be counted from outside; plates withheld can only be counted by what is left.

        As audit.json has them: aside: pictures set aside, which only decoding all of the corpus's pictures would show.
        unlabelled: plates replaced whose annotations have no text; read: texts read that nobody annotated.
        """
        outcomes = Counter(find["outcome"] for find in self.finds)
        loose = Counter(find["picture"] for find in self.finds if not find["annotated"])
        bare, found = sum(frame.path not in loose for frame in copy.unannotated), len(self.source.folder.pictures)
        gone = bare - len(self.source.unannotated) if self.source.format in GONE_WITH_TEXT else 0
        annotations = [annotation for frame in copy.frames for annotation in frame.annotations]
        labelled = sum(bool(annotation.text) for annotation in annotations)
        finds = (
            {f"detector.found_{outcome}": outcomes[outcome] for outcome in ("replaced", "redacted")}
            if self.finds
            else {}
        )
        originals = ((self.named(frame), frame.path) for frame in copy.frames)
        return {
            "plates.replaced": labelled + unlabelled,
            "plates.redacted": len(annotations) + loose.total() - labelled - unlabelled + gone,
            "pictures.written": len(copy.frames),
            "pictures.found": found,
            "pictures.withheld": found - len(copy.frames) - aside,
            "pictures.without_annotation": bare - gone,
            "annotations.left_over": self.source.left_over,
            "annotations.pictures_withheld": len(self.source.withheld),
            "files_not_copied": len(self.source.unknown),
            "pixels.pixels": self.pixels,
            "pixels.outside": 0,
            **finds,
            "source_texts.searched": len(self.real) - len(self.scan.unsearched) + read,
            "source_texts.too_short_to_search": len(self.scan.unsearched),
            "source_texts.found": len(self.scan.hits),
            "source_texts.found_in_numbers_and_keys": len(self.scan.literals),
            "source_texts.files": self.report.files,
            "source_texts.bytes": self.scan.bytes - sum(path.stat().st_size for path in self.own),
            "kept.picture_paths": sum(old is not None and old.path == path for old, path in originals),
            "kept.columns": kept_columns(self.source),
            "output.sha256": self.sha256(),
        }

    def sha256(self) -> str:
        """Of the folder's files, "" where one cannot be read, which is a fault anyway."""
        try:
            return sha256_of_files(self.folder)
        except OSError:
            return ""


def _others(old: str, new: str) -> np.ndarray:
    """Which characters of the old text the new one does not have in the same place, bool (n,)."""
    old, new = canonical(old), canonical(new)
    return np.array([len(old) != len(new) or a != b for a, b in zip(old, new.ljust(len(old)))], bool)


def _added(reading: str, new: str, old: str) -> int:
    """How many characters of the old text are read between those of the new one."""
    rest, kept = [*canonical(reading)], canonical(new)
    for character in kept:
        if character not in rest:
            return 0  # read otherwise, not more
        rest.remove(character)
    return sum(character in canonical(old) for character in rest) if kept else 0


def _flat(audit: dict) -> dict[str, object]:
    """{"plates": {"replaced": 3}, "identity": "none"} as {"plates.replaced": 3, "identity": "none"}."""
    sections = {f"{name}.{key}": v for name, part in audit.items() if isinstance(part, dict) for key, v in part.items()}
    return audit | sections


def plates(views: list[View], shape: tuple[int, int]) -> np.ndarray:
    """The pixels of a frame that plates and their margins cover, bool (H, W), to the pixel's width."""
    free = np.zeros(shape, np.uint8)
    for view in views:
        x1, y1, x2, y2 = view.box
        if view.matrix is None:
            free[y1:y2, x1:x2] = 1
        else:
            (w, h), back = view.size, np.linalg.inv(view.matrix)
            outline = np.array([[[-1, -1], [w, -1], [w, h], [-1, h]]], dtype=np.float64)
            corners = cv2.perspectiveTransform(outline, back)[0]
            cv2.fillConvexPoly(free, (16 * corners).round().astype(np.int32), 1, shift=4)
    return free > 0


def _blocks(free: np.ndarray) -> np.ndarray:
    """All pixels of a JPEG that depend on some pixels, bool (H, W)."""
    height, width = free.shape
    whole = np.pad(free, ((0, -height % BLOCK), (0, -width % BLOCK)))
    touched = whole.reshape(len(whole) // BLOCK, BLOCK, -1, BLOCK).any((1, 3))
    grown = touched.repeat(BLOCK, 0).repeat(BLOCK, 1)[:height, :width].astype(np.uint8)
    return cv2.dilate(grown, np.ones((2 * SPILL + 1, 2 * SPILL + 1), np.uint8)) > 0


def _finds(folder: Path) -> list[dict]:
    """The plates that a detector found in the corpus, by the audit; [] where it has none or is damaged."""
    try:
        finds = _flat(read_json(folder / AUDIT)).get("detector.settled", [])
        return [
            {"picture": f["picture"], "box": f["box"], "outcome": f["outcome"], "annotated": f["annotated"]}
            for f in finds
        ]
    except (AttributeError, KeyError, TypeError, PlatemintError):
        return []


def _columns_said(folder: Path) -> list[str]:
    """The names of columns that an audit lists, which `_Check.figures` holds against the corpus's."""
    try:
        return [str(name) for name in read_json(folder / AUDIT)["kept"]["columns"]]
    except (AttributeError, KeyError, TypeError, PlatemintError):
        return []


def _left_out(folder: Path) -> dict[str, list[int]]:
    """The pictures of files of many that are not in the copy, by the audit; {} where it says none or is damaged."""
    try:
        said = read_json(folder / AUDIT).get("left_out", [])
        return {str(item["file"]): [int(n) for n in item["pictures"]] for item in said}
    except (AttributeError, KeyError, TypeError, ValueError, PlatemintError):
        return {}


def _took_finds(folder: Path) -> bool:
    """Whether a detector's finds were dealt with, by the audit: then pictures without annotations were a dataset."""
    try:
        return "settled" in read_json(folder / AUDIT).get("detector", {})
    except (AttributeError, TypeError, PlatemintError):
        return False


def _path(frame: Frame, source: Dataset) -> str:
    """Where the copy has a frame's picture, unless its name held a text."""
    if source.format != BARE:
        return frame.path
    return join(dirname(frame.path), numbered(frame.path, source.folder) + splitext(frame.path)[1])


def _places(frame: Frame) -> tuple:
    """Where a frame's plates are; empty for a crop, which is one as a whole."""
    return tuple(annotation.corners for annotation in frame.annotations if annotation.corners)


def _again(picture: Picture) -> np.ndarray:
    """A JPEG's pixels, encoded once more as they are: its blocks are coded one by one, whatever others show."""
    return shown(picture.encode(picture.pixels))


def _is_ours(hit: Hit, folder: Path) -> bool:
    """Whether a text was found among the audit's own words and figures: a plate may read FAMILY or 1280."""
    if hit.path not in OWN or hit.where != "bytes":
        return False
    data = (folder / hit.path).read_bytes()
    head, tail = HEAD.encode(), TAIL.encode()
    if data.startswith(head) and hit.offset < len(head) or data.endswith(tail) and hit.offset >= len(data) - len(tail):
        return True
    if hit.text.isalpha():
        return any(hit.text in words for words in (own_words(), *map(letters, _columns_said(folder))))
    around = next(word for word in _WORDS.finditer(data) if word.end() > hit.offset)
    counts = hit.path == AUDIT and data[around.start() - 1 : around.start()] != b'"' and _COUNT.fullmatch(around[0])
    return bool(counts or _MADE_WITH.fullmatch(around[0]))


def _metadata(path: Path, picture: Picture) -> tuple[str, ...]:
    data = read_picture_file(path)
    kinds = metadata_in(data)
    if kinds == (UNKNOWN,) and picture.format == "TIFF":
        with Image.open(io.BytesIO(data)) as tiff:
            kinds = tuple(f"tag {tag}" for tag in sorted({*tiff.tag_v2} - TIFF_NEEDED))
    return kinds
