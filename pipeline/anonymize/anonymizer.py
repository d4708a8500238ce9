"""anonymize: the same dataset with other plates. What cannot be proven to be gone does not leave as it was.

A picture is written only when each of its plates has a new text that reads right and an old one that nobody reads any
more, or has been redacted; so a run that is killed leaves no real plate behind, in no file. Where encoding loses, that
is proven of what the file shows.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np

from platemint.pipeline import lock, storage
from platemint.pipeline.alignment import Standing, spread
from platemint.pipeline.anonymize import residue
from platemint.pipeline.anonymize.detector import Detector, look
from platemint.pipeline.anonymize.not_replaced import PICTURE, GivenUp, place_of
from platemint.pipeline.anonymize.picture import Picture, differing, open_picture, shown
from platemint.pipeline.anonymize.pseudonyms import ATTEMPTS, Drawn, Forbidden, Keyed, read_key
from platemint.pipeline.anonymize.read_texts import Unknown, completed, is_wanted
from platemint.pipeline.anonymize.residue import in_view
from platemint.pipeline.anonymize.search import Scan, scan
from platemint.pipeline.corpora.frames import BARE, Annotation, Dataset, Frame, open_dataset, rewrite
from platemint.pipeline.corpora.frames.checks import WITHHELD
from platemint.pipeline.corpora.rectify import Box, View, overlapping, views_of
from platemint.pipeline.edit import Editor
from platemint.pipeline.filter import Filter
from platemint.pipeline.networks import batched
from platemint.pipeline.plate import (
    LONGEST,
    TELLING,
    Failure,
    Plate,
    PlatemintError,
    Readings,
    canonical,
    characters,
    same_reading,
    unspellable,
    within_one,
)
from platemint.pipeline.progress import Count
from platemint.pipeline.recipe import AnonymizeRecipe, GenerateRecipe
from platemint.pipeline.report.audit_page import not_covered, page, settings
from platemint.pipeline.run import versions
from platemint.pipeline.stages import Stages

FRAMES = 16  # pictures in memory at once, at most
PIXELS = 64_000_000  # of these together, from which on no other one is opened
UNFINISHED = ".anonymizing"  # in a folder whose run has not ended, or has ended with what must not be passed on
AUDIT, PAGE = "audit.json", "audit.html"
ENCODED = "not proven once encoded"  # why a plate is given up that held until its picture was encoded
ERASED = 0.75  # part of the old strokes' pixels that have to change where nobody could read the photograph
LEGIBLE = 0.3  # likelihood of the source's own text from which on a new one has to be read too
HALF_READ = 0.5  # likeness of a reading and a text from which on the one is a poor reading of the other
BLANK = np.zeros((1, 1), np.uint8)  # the mask of plates that are only read
CELLS = (4, 2)  # a redacted plate is as many patches of one colour, smoothed


@dataclass
class Replacement:
    """One plate on its way: where it is in which frame, and what became of it. outcome: replaced, redacted or withheld.

    pixels: of the whole frame. coded: what encoding makes of it, None where it loses nothing (see `Picture.coded`).
    reason: why it is not replaced. edit: the one that is accepted, to be scored once more.
    """

    frame: Frame
    annotation: Annotation
    view: View
    pixels: np.ndarray
    source: np.ndarray  # the plate as it was, uint8 (h, w, 3)
    coded: Callable[[np.ndarray, Box], np.ndarray] | None = None
    erased: bool = False  # whether the last edit has changed the old strokes, before encoding changes pixels anywhere
    reading: str = ""  # what our reader reads of it, whatever its label says
    legible: bool = True
    standing: Standing | None = None  # where its characters stand, None where nobody can tell
    outcome: str = ""
    text: str = ""
    reason: str = ""
    edit: Plate | None = None
    result: np.ndarray | None = None
    region: np.ndarray | None = None  # bool (h, w), pixels of the view that may differ

    def edited(self, plate: Plate) -> Plate:
        """An edit of the plate, whose picture shows what will be seen of it: pixels outside its masks never get out."""
        region = (plate.source_mask > 0) | (plate.target_mask > 0)
        seen = partial(self.view.seen, self.pixels, self.source, plate.image, region)
        self.erased = _erased(replace(plate, image=seen()))
        return replace(plate, image=seen(self.coded))


@dataclass
class Audit:
    """What became of all plates, for people and programs; see `as_dict`."""

    outcomes: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    pictures: Counter = field(default_factory=Counter)
    outside: Counter = field(default_factory=Counter)
    characters: Counter = field(default_factory=Counter)  # the source's, on replaced plates; see `_looked_for`
    given_up: GivenUp = field(default_factory=GivenUp)
    scan: Scan | None = None
    unknown: Unknown = field(default_factory=Unknown)
    reading: dict = field(default_factory=dict)  # see `pipeline.read_plates.Unknown`; empty where nobody read
    detector: dict = field(default_factory=dict)  # see `pipeline.detector.look`; empty where nobody looked

    def count(self, items: list[Replacement]) -> None:
        """Takes note of a picture's plates."""
        withheld = any(item.outcome == "withheld" for item in items)
        self.pictures["withheld" if withheld else "written"] += 1
        self.pictures["bare"] += not items
        for number, item in enumerate(items, 1):
            outcome = "withheld" if withheld else item.outcome
            self.outcomes[outcome] += 1
            self.unknown.add(item.frame.path, item.annotation, outcome)
            if outcome == "replaced":
                self.characters += _looked_for(item)
            if reason := item.reason or "in one picture with another" * withheld:
                self.reasons[reason] += 1
                self.given_up.plate(item.frame.path, number, item.annotation.text, outcome, reason)


class Anonymizer:
    """Dataset, networks, pseudonyms and rules of one run. Writes nothing but the key, where there is none yet.

    Raises PlatemintError where the folder written lies in the dataset or around it, for a dataset, key, list, network or
    detector that cannot be used, and where the dataset's format cannot write what it has to.
    """

    def __init__(self, recipe: AnonymizeRecipe, dataset: Dataset | None = None, progress: TextIO | None = None):
        """dataset: None for the recipe's; another one is anonymized in memory alone."""
        self.recipe, self.dataset = recipe, dataset or _open_dataset(recipe)
        if recipe.list_file:
            place_of(recipe.list_file, (recipe.source.path, recipe.folder))
        self.detector = Detector(recipe.detector) if recipe.detector.path else None
        self.edit, self.filter = self.networks()
        known = _texts(self.dataset)
        self.annotated = sum(len(frame.annotations) for frame in self.dataset.frames) + len(self.dataset.lost)
        if is_wanted(recipe):
            self.dataset = completed(self.dataset, recipe, self.filter, self.detector, progress)
        annotations = [
            (annotation.text, frame.path) for frame in self.dataset.frames for annotation in frame.annotations
        ]
        self.texts = sorted(_texts(self.dataset))
        self.read = len(self.texts) - len(known)  # texts that nobody but the reader gave
        self.forbidden = Forbidden(self.texts, recipe.draw.blocked, recipe.draw.reserved)
        self.real = Readings(self.texts)
        self.pseudonym = self._pseudonyms([annotation for annotation in annotations if _writable(annotation[0])])
        self.tried: dict[tuple[str, str], int] = {}  # the attempt that a plate's first picture has taken
        if dataset is None:
            becomes = _rewritten(self.dataset, lambda frame, old: self.pseudonym(old, frame.path, 0))
            if taken := {AUDIT, PAGE}.intersection(new for new, _ in becomes.values()):
                raise PlatemintError(f"{self.dataset.root}: has an {taken.pop()} of its own; give it another name")

    def networks(self) -> tuple[Editor, Filter]:
        return Editor(self.recipe.edit, private=True), Filter(self.recipe.filter, self.recipe.edit)

    def _pseudonyms(self, plates: list[tuple[str, str]]) -> Drawn | Keyed:
        if self.recipe.key_file:
            folders = (self.recipe.source.path, self.recipe.folder)
            return Keyed(read_key(self.recipe.key_file, folders), self.forbidden)
        return Drawn(plates, self.forbidden, self.recipe.track_consistent)

    def items(self, frame: Frame, pixels: np.ndarray, coded: Callable | None = None) -> list[Replacement]:
        """The plates of a frame. Those that have no text, one that cannot be written or a neighbour are decided.

        coded: as a `Replacement` has it.
        """
        items, views = [], views_of(frame.annotations, pixels)
        for annotation, view, shared in zip(frame.annotations, views, overlapping(views)):
            item = Replacement(frame, annotation, view, pixels, view.cut(pixels), coded)
            if not _writable(annotation.text):
                none = "found, no text" if annotation.found else "no text"
                self.give_up(item, "a text that cannot be written" if annotation.text else none)
            elif shared:  # whatever is proven of one would be undone by the other
                self.give_up(item, "overlaps another plate")
            items.append(item)
        return items

    def give_up(self, item: Replacement, reason: str) -> None:
        """Redacts a plate, or has its picture withheld, as the recipe says."""
        redact = self.recipe.on_doubt == "redact" or item.annotation.read or not item.annotation.text
        item.outcome, item.text, item.reason = "redacted" if redact else "withheld", "", reason
        item.result, item.region = redacted(item.source), np.ones(item.source.shape[:2], bool)

    def settle(self, items: list[Replacement]) -> None:
        """Gives every plate a new text that holds, or gives it up."""
        open_ = [item for item in items if not item.outcome]
        for item, plate in zip(open_, self.filter.scored([_as_is(item) for item in open_])):
            item.reading, item.legible = plate.reading, plate.scores["reader"] >= LEGIBLE
        for item in open_:
            if not item.legible and not _resembles(item.reading, item.annotation.text):
                self.give_up(item, "not read where it is annotated")
        open_ = [item for item in open_ if not item.outcome]
        for item, standing in zip(open_, self.filter.standing([_as_is(item) for item in open_])):
            item.standing = standing
        for attempt in range(ATTEMPTS):
            tried = [(item, text) for item in open_ if (text := self._text(item, attempt))]
            plates = self._edited([_to_edit(item, text) for item, text in tried])
            plates = [_mended(item, plate) for (item, _), plate in zip(tried, plates)]
            seen = [item.edited(plate) for (item, _), plate in zip(tried, plates)]
            reasons = self._faults([c for c, _ in tried], seen)
            for (item, text), plate, edit, reason in zip(tried, plates, seen, reasons):
                item.reason = reason
                if not reason:
                    self.tried.setdefault(self._plate(item), attempt)
                    item.outcome, item.text, item.edit, item.result = "replaced", text, edit, plate.image
                    item.region = (plate.source_mask > 0) | (plate.target_mask > 0)
            open_ = [item for item in open_ if not item.outcome]
        for item in open_:
            self.give_up(item, item.reason or "no new text is free")
        self._alike(items)

    def encoded(self, pictures: list[tuple[Picture, list[Replacement]]]) -> list[tuple[bytes, Counter] | None]:
        """The file of each picture with its plates settled, and its pixels counted as `compose` does; None: withheld.

        Where encoding loses, plates are cut out of what the file shows and, unless that is what was foreseen, have to
        hold there too. One that does not is given up, and its picture encoded and looked at again: a JPEG's blocks may
        be shared with another plate.
        """
        files, open_ = {}, range(len(pictures))
        while open_ := [n for n in open_ if all(item.outcome != "withheld" for item in pictures[n][1])]:
            again: list[tuple[int, Replacement, Plate]] = []
            for n in open_:
                picture, items = pictures[n]
                pixels, counted = compose(picture.pixels, items)
                files[n] = picture.encode(pixels), counted
                replaced = [item for item in items if item.outcome == "replaced" and not picture.exact]
                seen = shown(files[n][0]) if replaced else pixels
                cuts = [(item, item.view.cut(seen)) for item in replaced]
                unlike = [(item, cut) for item, cut in cuts if not np.array_equal(cut, item.edit.image)]
                again += [(n, item, replace(item.edit, image=cut)) for item, cut in unlike]
            reasons = self._faults([item for _, item, _ in again], [plate for *_, plate in again])
            failed = [(n, item) for (n, item, _), reason in zip(again, reasons) if reason]
            for _, item, plate in again:
                item.edit = plate  # as the file shows it
            for _, item in failed:
                self.give_up(item, ENCODED)
            open_ = sorted({n for n, _ in failed})
            for n in open_:
                del files[n]
                self._alike(pictures[n][1])
        return [files.get(n) for n in range(len(pictures))]

    def _edited(self, plates: list[Plate]) -> list[Plate]:
        try:
            return self.edit(plates)
        except PlatemintError:  # it would quote the plate
            raise PlatemintError(
                "edit.checkpoint: this network cannot write the text of some plate; choose one of the whole alphabet"
            ) from None

    def _plate(self, item: Replacement) -> tuple[str, str]:
        """Which plates have one new text: those of one text in a frame, or in all frames."""
        return characters(item.annotation.text), "" if self.recipe.track_consistent else item.frame.path

    def _alike(self, items: list[Replacement]) -> None:
        """Plates of one text share their outcome in a frame: one label cannot say two things."""
        lost = {(item.frame.path, characters(item.annotation.text)) for item in items if item.outcome != "replaced"}
        for item in items:
            if item.outcome == "replaced" and (item.frame.path, characters(item.annotation.text)) in lost:
                self.give_up(item, "the same plate twice")

    def _text(self, item: Replacement, attempt: int) -> str:
        """The attempt's text, "" where there is none: a key gives one text alone, and one that is in use stays."""
        if self.tried.get(self._plate(item), attempt) != attempt:
            return ""
        text = self.pseudonym(item.annotation.text, item.frame.path, attempt)
        return "" if text in self.real or same_reading(text, item.annotation.text) else text

    def _faults(self, items: list[Replacement], plates: list[Plate]) -> list[str]:
        """Why each edit cannot leave, "" where it can: it reads right, and its source's text is read in no light."""
        looks = [replace(p, image=look(p.image)) for p in plates for look in ENHANCED.values()]
        scored = list(batched(self.filter.scored(looks), len(ENHANCED)))
        return [self._fault(item, seen) for item, seen in zip(items, scored)]

    def _fault(self, item: Replacement, seen: list[Plate]) -> str:
        """seen: the edit in each light, plain first."""
        if reason := self._unreadable(item, seen[0]):
            return reason
        if any(self._leaks(item, plate) for plate in seen):
            return "source read"
        if item.legible and any(len(characters(p.reading)) > len(characters(p.text)) for p in seen):
            return "a character too many read"
        return "source characters in view" * (remaining(item, seen[0]) > 0)

    def _unreadable(self, item: Replacement, plate: Plate) -> str:
        reason = self.filter.decide(plate.scores)
        if reason == "reader" and not item.legible and item.erased:  # nobody could read it: the mask has to prove it
            reason = self.filter.decide(plate.scores | {"reader": 1.0})
        return reason

    def _leaks(self, item: Replacement, plate: Plate) -> bool:
        """Whether the old text is read, or what was read before, should its label be wrong, or one off them."""
        olds = (item.annotation.text, *([item.reading] if len(item.reading) >= TELLING else []))
        near = any(within_one(plate.reading, old) for old in olds) and not same_reading(plate.reading, plate.text)
        return near or plate.scores["residue"] > self.recipe.filter.max_residue


def _writable(text: str) -> bool:
    return bool(characters(text)) and not unspellable(text) and len(text) <= LONGEST


def _erased(plate: Plate) -> bool:
    """Whether an edit has changed the old strokes, as its mask has them."""
    strokes = plate.source_mask > 127
    return strokes.any() and (plate.image != plate.original).any(2)[strokes].mean() >= ERASED


def _resembles(reading: str, text: str) -> bool:
    """Whether a reading is most of a text: of a plate that is hard to read, not of something else."""
    return SequenceMatcher(None, canonical(reading), canonical(text), autojunk=False).ratio() >= HALF_READ


def _looked_for(item: Replacement) -> Counter:
    """The old characters of a replaced plate: looked_for, in_view of these, and not_placed, which nobody can read."""
    count = len(characters(item.annotation.text))
    if item.standing is None:
        return Counter(not_placed=count)
    return Counter(looked_for=count, in_view=remaining(item, item.edit))


def remaining(item: Replacement, plate: Plate) -> int:
    """How many of a plate's old characters can still be seen in its edit, as far as their places are known."""
    if item.standing is None:
        return 0
    return int((in_view(item.source, plate.image, plate.target_mask, item.standing) > residue.LIMIT).sum())


def _mended(item: Replacement, plate: Plate) -> Plate:
    """An edit with what is still in view of old characters painted over."""
    if item.standing is None:
        return plate
    image, where = residue.erased(item.source, plate.image, plate.target_mask, item.standing)
    return replace(plate, image=image, source_mask=np.where(where, np.uint8(255), plate.source_mask))


def _to_edit(item: Replacement, text: str) -> Plate:
    places = None if item.standing is None else spread(item.standing.known, item.annotation.text)
    return Plate(item.source, item.annotation.text, target=text, places=places)


def _as_is(item: Replacement) -> Plate:
    """The untouched plate, to be read."""
    nowhere = np.zeros((len(item.annotation.text), 3, 2), np.float32)
    return Plate(item.source, item.annotation.text, original=item.source, original_text=item.annotation.text,
                 source_mask=BLANK, target_mask=BLANK, slots=nowhere)  # fmt: skip


# ------------------------------------------------------------------------------------------------ looks, and redaction


def _stretched(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, (2, 98), axis=(0, 1))
    return np.clip((image - low) * (255 / np.maximum(high - low, 1)), 0, 255).astype(np.uint8)


def _sharpened(image: np.ndarray) -> np.ndarray:
    soft = cv2.GaussianBlur(image, (0, 0), max(1.0, image.shape[0] / 40)).astype(np.float32)
    return np.clip(2.5 * image - 1.5 * soft, 0, 255).astype(np.uint8)


def _enlarged(image: np.ndarray) -> np.ndarray:
    h, w = image.shape[:2]
    part = image[h // 12 : h - h // 12, w // 40 : w - w // 40]  # and cropped, so that the reader sees another grid
    return cv2.resize(part, (2 * w, 2 * h), interpolation=cv2.INTER_CUBIC)


# How somebody who wants the old text back would look first.
ENHANCED = {"plain": lambda image: image, "stretched": _stretched, "sharpened": _sharpened, "enlarged": _enlarged}


def redacted(image: np.ndarray) -> np.ndarray:
    """A plate of which a few patches' mean colours are left: uint8 (h, w, 3)."""
    h, w = image.shape[:2]
    few = cv2.resize(image, CELLS, interpolation=cv2.INTER_AREA)
    return cv2.resize(few, (w, h), interpolation=cv2.INTER_CUBIC if min(h, w) > 4 else cv2.INTER_NEAREST)


# ------------------------------------------------------------------------------------------------------------- the run


def anonymize(recipe: AnonymizeRecipe, progress: TextIO | None = None, anonymizer: Anonymizer | None = None) -> dict:
    """Writes the dataset of recipe.source anew, with other plates, into the recipe's folder; returns its audit.

    anonymizer: of the recipe, where there is one already. Raises PlatemintError as it does, and where the folder cannot
    be written or holds anything; Failure where another process is writing it.
    """
    anonymizer = anonymizer or Anonymizer(recipe)
    with lock.held(recipe.folder):
        return _written(recipe, progress, anonymizer)


def _written(recipe: AnonymizeRecipe, progress: TextIO | None, anonymizer: Anonymizer) -> dict:
    dataset, folder = anonymizer.dataset, recipe.folder
    _open_folder(folder)
    audit, texts, written = Audit(), {}, {}
    reporter = Count(len(dataset.frames), progress, "pictures")
    for number, (frame, items, file) in enumerate(_settled(anonymizer, reporter)):
        audit.count(items)
        if file:
            data, counted = file
            audit.outside.update(counted)
            storage.write(folder / UNFINISHED / str(number), data)
            texts[frame.path] = {item.annotation.text: item.text for item in items}
            written[frame.path] = number
    reporter.close()
    dataset = _without(dataset, written)
    names = _publish(folder, dataset, texts, written)
    audit.scan = scan(folder, anonymizer.texts, (UNFINISHED, *lock.FILES))
    if anonymizer.detector:
        audit.detector = look(anonymizer.detector, folder, {names[f.path]: f for f in dataset.frames}, progress)
    if is_wanted(recipe):
        reading, finds = audit.unknown.facts(dataset, recipe, names)
        audit.reading = reading | {"texts": anonymizer.read}
        audit.detector |= finds
    audit.given_up.aside(dataset.set_aside)
    for path in dataset.withheld:
        audit.given_up.picture(path, PICTURE, WITHHELD)
    if recipe.list_file:
        audit.given_up.write(place_of(recipe.list_file, (recipe.source.path, folder)))
    facts = as_dict(audit, anonymizer)
    storage.write(folder / AUDIT, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    storage.write(folder / PAGE, page(facts, recipe, ENHANCED))
    if may_leave(facts):  # else the mark stays: nobody shall take the folder for finished
        (folder / UNFINISHED).rmdir()
    return facts


def may_leave(audit: dict) -> bool:
    """Whether a folder may be passed on, by its audit.

    No source text was found in it, no character of one is in view, and no pixel outside of a plate has changed.
    """
    faults = audit["source_texts"]["found"], audit["source_characters"]["in_view"], audit["pixels"]["outside"]
    return not any(faults)


def _settled(
    anonymizer: Anonymizer, reporter: Count
) -> Iterator[tuple[Frame, list[Replacement], tuple[bytes, Counter] | None]]:
    """Every frame whose picture can be opened, with its plates decided and its file as `encoded` gives it."""
    for opened in _together(_opened(anonymizer.dataset, reporter)):
        pictures = [
            (picture, anonymizer.items(frame, picture.pixels, None if picture.exact else picture.coded))
            for frame, picture in opened
        ]
        anonymizer.settle([item for _, items in pictures for item in items])
        files = anonymizer.encoded(pictures)
        yield from ((frame, items, file) for (frame, _), (_, items), file in zip(opened, pictures, files))


def _opened(dataset: Dataset, reporter: Count) -> Iterator[tuple[Frame, Picture]]:
    """Every frame with its picture; those that cannot be opened are set aside."""
    for frame in dataset.frames:
        reporter.add(1, 0)
        try:
            picture = open_picture(dataset.root / frame.path)
        except ValueError as fault:
            dataset.put_aside(frame.path, "", str(fault))
            dataset.lost += [annotation.text for annotation in frame.annotations]
        else:
            yield frame, picture


def _together(opened: Iterable[tuple[Frame, Picture]]) -> Iterator[list[tuple[Frame, Picture]]]:
    """As many at once as may be in memory."""
    some, pixels = [], 0
    for frame, picture in opened:
        some.append((frame, picture))
        pixels += picture.pixels.size // 3
        if len(some) == FRAMES or pixels >= PIXELS:
            yield some
            some, pixels = [], 0
    if some:
        yield some


def _without(dataset: Dataset, written: Container[str]) -> Dataset:
    """The dataset without the frames that are not written, whose texts stay known as lost."""
    kept, lost = ([f for f in dataset.frames if (f.path in written) is there] for there in (True, False))
    return replace(
        dataset,
        frames=kept,
        lost=dataset.lost + [annotation.text for frame in lost for annotation in frame.annotations],
    )


def compose(pixels: np.ndarray, items: list[Replacement]) -> tuple[np.ndarray, Counter]:
    """The frame with its plates' results; and how many pixels changed, and how many of these outside every region."""
    new, allowed = pixels.copy(), np.zeros(pixels.shape[:2], bool)
    for item in items:
        item.view.paste(new, allowed, item.source, item.result, item.region)
    changed = differing(new, pixels)
    return new, Counter(changed=int(changed.sum()), outside=int((changed & ~allowed).sum()), pixels=changed.size)


def _publish(
    folder: Path, dataset: Dataset, texts: dict[str, dict[str, str]], written: dict[str, int]
) -> dict[str, str]:
    """Gives finished pictures their new names, and writes the annotations that go with them; returns {old: new}."""
    becomes = _rewritten(dataset, lambda frame, text: texts[frame.path][text])
    for old, (new, data) in becomes.items():
        with _writing(folder):
            if data is not None:
                storage.write(folder / new, data)
                continue
            (folder / new).parent.mkdir(parents=True, exist_ok=True)
            (folder / UNFINISHED / str(written[old])).replace(folder / new)
    return {old: new for old, (new, _) in becomes.items()}


def _rewritten(dataset: Dataset, new_text: Callable[[Frame, str], str]) -> dict[str, tuple[str, bytes | None]]:
    """As `rewrite`, with faults that quote neither plates nor names of pictures, which may be plates."""
    try:
        return rewrite(dataset, new_text)
    except PlatemintError:
        raise PlatemintError(
            f"{dataset.root}: with other plates, two files would get one name, or a name or file could not hold a new "
            "text; give annotation files names without plates"
        ) from None


def as_dict(audit: Audit, anonymizer: Anonymizer) -> dict:
    """The audit, ready for JSON. It names no picture of the dataset, since names may be plates."""
    dataset, recipe = anonymizer.dataset, anonymizer.recipe
    aside = {item["path"] for item in dataset.set_aside}
    return {
        "plates": {
            "annotated": anonymizer.annotated,
            **({"found": audit.unknown.found} if recipe.detector.finds != "list" else {}),
            **{outcome: audit.outcomes[outcome] for outcome in ("replaced", "redacted", "withheld")},
            "set_aside": len(dataset.lost),
        },
        "reasons": dict(audit.reasons.most_common()),
        "pictures": {
            "found": len(dataset.folder.pictures),
            "written": audit.pictures["written"],
            "without_annotation": audit.pictures["bare"],
            "withheld": audit.pictures["withheld"] + len(dataset.withheld),
            "set_aside": len(aside & dataset.folder.pictures),
        },
        "annotations": {"left_over": dataset.left_over, "pictures_withheld": len(dataset.withheld)},
        "missing_pictures_and_other_faults": len(aside - dataset.folder.pictures),
        "files_not_copied": len(dataset.unknown),
        "pixels": {name: audit.outside[name] for name in ("pixels", "changed", "outside")},
        "source_characters": {name: audit.characters[name] for name in ("looked_for", "in_view", "not_placed")},
        "source_texts": {  # how often they were found, not where: that is for `verify --against` to tell
            "searched": len(anonymizer.texts) - len(audit.scan.unsearched),
            "too_short_to_search": len(audit.scan.unsearched),
            "found": len(audit.scan.hits),
            "found_in_numbers_and_keys": len(audit.scan.literals),
            "found_in_coded_pixels": len(audit.scan.chance),
            "expected_there_by_chance": round(audit.scan.expected, 3),
            "not_looked_into": len(audit.scan.unread),
            "files": audit.scan.files,
            "bytes": audit.scan.bytes,
        },
        **({"reading": audit.reading} if audit.reading else {}),
        **({"detector": audit.detector} if audit.detector else {}),
        "identity": "keyed" if recipe.key_file else "within this run" if recipe.track_consistent else "none",
        "not_covered": not_covered(recipe, audit.detector),
        "settings": settings(recipe),
        "made_with": made_with(recipe),
        "given_up": audit.given_up.public(),
    }


def made_with(recipe: AnonymizeRecipe) -> dict[str, str]:
    """Day (UTC), versions, and sha256 of the networks, which go without their names: these may be paths."""
    networks = Stages(GenerateRecipe(edit=recipe.edit)).checkpoints
    return {
        "day (UTC)": datetime.now(UTC).date().isoformat(),
        **versions(),
        "generator, sha256": networks[recipe.edit.checkpoint],
        "reader, sha256": networks[recipe.edit.reader],
    }


def _open_dataset(recipe: AnonymizeRecipe) -> Dataset:
    found = recipe.detector.finds != "list"
    source = recipe.source
    dataset = open_dataset(source.path, source.format, False, source.classes, source.unreadable, found)
    if dataset.format == BARE and not found:
        raise PlatemintError(
            f"{dataset.root}: format: {BARE} have no annotations, so that a detector has to find the plates: "
            "--detector FILE.onnx --detector-finds redact or replace"
        )
    _refuse_overlap(dataset.root, recipe.folder)
    return dataset


def _texts(dataset: Dataset) -> set[str]:
    annotated = (annotation.text for frame in dataset.frames for annotation in frame.annotations)
    return {*annotated, *dataset.lost, *dataset.named} - {""}


def _refuse_overlap(corpus: Path, out: Path) -> None:
    a, b = corpus.resolve(), out.resolve()
    if a.is_relative_to(b) or b.is_relative_to(a):
        raise PlatemintError(f"--out {out}: lies in the dataset {corpus} or around it; choose a folder apart from it")


def _open_folder(folder: Path) -> None:
    """A folder, empty but for its lock, with the mark of a run that has not ended. What a killed one has left is cleared."""
    record = folder / UNFINISHED
    with _writing(folder):
        interrupted = record.is_dir() and not record.is_symlink()
        if not interrupted and folder.exists() and _contents(folder):
            raise PlatemintError(f"{folder}: is not empty; choose another --out, or remove what is there")
        record.mkdir(parents=True, exist_ok=True)
        for path in [*record.iterdir(), *_contents(folder)]:  # the mark stays as long as anything else
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            elif path != record:
                shutil.rmtree(path)


def _contents(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name not in lock.FILES]


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, PlatemintError) as fault:
        cause = fault.__cause__ or fault  # of `storage.replace`, which names a file: it may be a real picture's name
        if not isinstance(cause, OSError):
            raise
        raise Failure(
            f"{folder}: cannot be written ({cause.strerror}): make room or make the folder writable, and run the same "
            "command again: it begins anew; or choose another --out"
        ) from None
