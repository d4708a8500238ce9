"""anonymize: the same dataset with other plates. What cannot be proven to be gone does not leave as it was.

A picture is written only when each of its plates has a new text that reads right and an old one that nobody reads any
more, or has been redacted; so a run that is killed leaves no real plate behind, in no file.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np

from pipeline import write
from pipeline.audit_page import page
from pipeline.corpora.frames import Dataset, Frame, Spot, open_dataset, rewrite
from pipeline.edit import Editor, batched
from pipeline.filter import Filter
from pipeline.metrics import within_one
from pipeline.picture import Picture, open_picture
from pipeline.plate import LONGEST, Plate, PlatemintError, Readings, characters, same_reading, unspellable
from pipeline.progress import Count
from pipeline.pseudonym import ATTEMPTS, Drawn, Forbidden, Keyed, read_key
from pipeline.recipe import AnonymizeRecipe, GenerateRecipe
from pipeline.run import versions
from pipeline.scan import Scan, scan
from pipeline.shard import Stages
from pipeline.view import View, views_of

FRAMES = 16  # pictures in memory at once
MARK = ".anonymizing"  # in a folder whose run has not ended: nothing in it may be relied on
AUDIT, PAGE, RECIPE = "audit.json", "audit.html", "recipe.yaml"
LEGIBLE = 0.3  # likelihood of the source's own text from which on a new one has to be read too
CELLS = (4, 2)  # a redacted plate is as many patches of one colour, smoothed


@dataclass
class Case:
    """One plate on its way: where it is in which frame, and what became of it. fate: replaced, redacted or withheld."""

    frame: Frame
    spot: Spot
    view: View
    source: np.ndarray  # the plate as it was, uint8 (h, w, 3)
    legible: bool = True
    fate: str = ""
    text: str = ""
    reason: str = ""
    result: np.ndarray | None = None
    region: np.ndarray | None = None  # bool (h, w), pixels of the view that may differ


@dataclass
class Audit:
    """What became of all plates, for people and programs; see `as_dict`."""

    fates: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    pictures: Counter = field(default_factory=Counter)
    outside: Counter = field(default_factory=Counter)
    scan: Scan | None = None


class Anonymizer:
    """Networks, pseudonyms and rules of one run."""

    def __init__(self, recipe: AnonymizeRecipe, dataset: Dataset):
        self.recipe, self.dataset = recipe, dataset
        self.texts = sorted({spot.text for frame in dataset.frames for spot in frame.spots if spot.text})
        self.forbidden = Forbidden(self.texts, recipe.draw.blocked, recipe.draw.reserved)
        self.real = Readings(self.texts)
        self.pseudonym = self._pseudonyms()
        self.edit, self.filter = Editor(recipe.edit), Filter(recipe.filter, recipe.edit)

    def _pseudonyms(self) -> Drawn | Keyed:
        if self.recipe.key_file:
            folders = (self.recipe.source.path, self.recipe.folder)
            return Keyed(read_key(self.recipe.key_file, folders), self.forbidden)
        plates = [(s.text, f.path) for f in self.dataset.frames for s in f.spots if _writable(s.text)]
        return Drawn(plates, self.forbidden, self.recipe.track_consistent)

    def cases(self, frame: Frame, pixels: np.ndarray) -> list[Case]:
        """The plates of a frame. Those that have no text, or one that cannot be written, are as good as decided."""
        cases = []
        for spot, view in zip(frame.spots, views_of(frame.spots, pixels)):
            case = Case(frame, spot, view, view.cut(pixels))
            if not _writable(spot.text):
                self.give_up(case, "no text" if not spot.text else "a text that cannot be written")
            cases.append(case)
        return cases

    def give_up(self, case: Case, reason: str) -> None:
        """Redacts a plate, or has its picture withheld, as the recipe says."""
        case.reason = reason
        case.fate = "redacted" if self.recipe.on_doubt == "redact" or reason == "no text" else "withheld"
        case.result, case.region = redacted(case.source), np.ones(case.source.shape[:2], bool)

    def settle(self, cases: list[Case]) -> None:
        """Gives every plate a new text that holds, or gives it up."""
        open_ = [case for case in cases if not case.fate]
        for case, plate in zip(open_, self.filter.scored([_as_is(case) for case in open_])):
            case.legible = plate.scores["reader"] >= LEGIBLE
        for attempt in range(ATTEMPTS):
            tried = [(case, text) for case in open_ if (text := self._text(case, attempt))]
            plates = self.edit([Plate(c.source, c.spot.text, target=text) for c, text in tried])
            for (case, text), plate, reason in zip(tried, plates, self._faults([c for c, _ in tried], plates)):
                case.reason = reason
                if not reason:
                    case.fate, case.text, case.result = "replaced", text, plate.image
                    case.region = (plate.source_mask > 0) | (plate.target_mask > 0)
            open_ = [case for case in open_ if not case.fate]
        for case in open_:
            self.give_up(case, case.reason or "no new text is free")

    def _text(self, case: Case, attempt: int) -> str:
        """The attempt's text, "" where there is none: a key gives one text alone."""
        text = self.pseudonym(case.spot.text, case.frame.path, attempt)
        return "" if text in self.real or same_reading(text, case.spot.text) else text

    def _faults(self, cases: list[Case], plates: list[Plate]) -> list[str]:
        """Why each edit cannot leave, "" where it can: it reads right, and its source's text is read in no light."""
        scored = self.filter.scored(plates)
        reasons = [self._unreadable(case, plate) for case, plate in zip(cases, scored)]
        for look in LOOKS.values():
            seen = self.filter.scored([replace(p, image=look(p.image)) for p in plates])
            for i, plate in enumerate(seen):
                if not reasons[i] and self._leaks(plate):
                    reasons[i] = "source read"
        return reasons

    def _unreadable(self, case: Case, plate: Plate) -> str:
        reason = self.filter.decide(plate.scores)
        if reason == "reader" and not case.legible:  # nobody could read the photograph: the mask has to prove it
            reason = self.filter.decide(plate.scores | {"reader": 1.0})
        return reason

    def _leaks(self, plate: Plate) -> bool:
        old, near = plate.original_text, within_one(plate.reading, plate.original_text)
        return plate.scores["residue"] > self.recipe.filter.max_residue or (
            near and not same_reading(plate.reading, plate.text) and bool(characters(old))
        )


def _writable(text: str) -> bool:
    return bool(characters(text)) and not unspellable(text) and len(text) <= LONGEST


def _as_is(case: Case) -> Plate:
    """The untouched plate, to be read."""
    blank = np.zeros(case.source.shape[:2], np.uint8)
    nowhere = np.zeros((len(case.spot.text), 3, 2), np.float32)
    return Plate(case.source, case.spot.text, original=case.source, original_text=case.spot.text,
                 source_mask=blank, target_mask=blank, slots=nowhere)  # fmt: skip


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
LOOKS = {"plain": lambda image: image, "stretched": _stretched, "sharpened": _sharpened, "enlarged": _enlarged}


def redacted(image: np.ndarray) -> np.ndarray:
    """A plate of which a few patches' mean colours are left: uint8 (h, w, 3)."""
    h, w = image.shape[:2]
    few = cv2.resize(image, CELLS, interpolation=cv2.INTER_AREA)
    return cv2.resize(few, (w, h), interpolation=cv2.INTER_CUBIC if min(h, w) > 4 else cv2.INTER_NEAREST)


# ------------------------------------------------------------------------------------------------------------- the run


def anonymize(recipe: AnonymizeRecipe, progress: TextIO | None = None) -> dict:
    """Writes the dataset of recipe.source anew, with other plates, into the recipe's folder; returns its audit.

    Raises PlatemintError where the folder holds anything, lies in the dataset or around it, or a format cannot write
    what it has to.
    """
    dataset = open_dataset(recipe.source.path, recipe.source.format)
    folder = recipe.folder
    _refuse_overlap(dataset.root, folder)
    anonymizer = Anonymizer(recipe, dataset)
    planned = anonymizer.pseudonym
    rewrite(dataset, lambda frame, old: planned(old, frame.path, 0) or "X")  # what a format cannot write is told first
    _open_folder(folder)
    audit, texts, written = Audit(), {}, {}
    reporter = Count(len(dataset.frames), progress, "pictures")
    for number, (frame, cases, picture) in enumerate(_settled(anonymizer)):
        fate = "withheld" if picture is None or any(case.fate == "withheld" for case in cases) else "written"
        audit.pictures[fate] += 1
        for case in cases:
            audit.fates["withheld" if fate == "withheld" else case.fate] += 1
            audit.reasons[case.reason or "-"] += bool(case.reason)
        reporter.add(1, 0)
        if fate == "withheld":
            continue
        pixels, outside = compose(picture.pixels, cases)
        audit.outside.update(outside)
        write.replace(folder / MARK / str(number), picture.encode(pixels))
        texts[frame.path] = {case.spot.text: case.text for case in cases}
        written[frame.path] = number
    reporter.close()
    kept = replace(dataset, frames=[frame for frame in dataset.frames if frame.path in written])
    _publish(folder, kept, texts, written)
    audit.scan = scan(folder, anonymizer.texts)
    facts = as_dict(audit, dataset, recipe)
    write.replace(folder / AUDIT, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    write.replace(folder / PAGE, page(facts, recipe, LOOKS, made_with(recipe)))
    shutil.rmtree(folder / MARK)
    return facts


def _settled(anonymizer: Anonymizer) -> Iterator[tuple[Frame, list[Case], Picture | None]]:
    """Every frame with its plates decided; no picture where it cannot be opened."""
    dataset = anonymizer.dataset
    for frames in batched(dataset.frames, FRAMES):
        opened: list[tuple[Frame, Picture | None]] = []
        for frame in frames:
            try:
                opened.append((frame, open_picture(dataset.root / frame.path)))
            except ValueError as fault:
                dataset.put_aside(frame.path, "", str(fault))
                opened.append((frame, None))
        cases = [anonymizer.cases(frame, p.pixels) if p else [] for frame, p in opened]
        anonymizer.settle([case for some in cases for case in some])
        for (frame, picture), some in zip(opened, cases):
            _alike(some)
            yield frame, some, picture


def _alike(cases: list[Case]) -> None:
    """Plates of one frame with one text share their fate: one label cannot say two things."""
    for text in {case.spot.text for case in cases}:
        same = [case for case in cases if case.spot.text == text]
        worst = next((fate for fate in ("withheld", "redacted") if any(case.fate == fate for case in same)), "")
        if worst:
            for case in same:
                case.fate, case.text = worst, ""
                case.result, case.region = redacted(case.source), np.ones(case.source.shape[:2], bool)


def compose(pixels: np.ndarray, cases: list[Case]) -> tuple[np.ndarray, Counter]:
    """The frame with its plates' results; and how many pixels changed, and how many of these outside every region."""
    new, allowed = pixels.copy(), np.zeros(pixels.shape[:2], bool)
    for case in cases:
        case.view.paste(new, allowed, case.source, case.result, case.region)
    changed = (new != pixels).any(2)
    return new, Counter(changed=int(changed.sum()), outside=int((changed & ~allowed).sum()), pixels=changed.size)


def _publish(folder: Path, dataset: Dataset, texts: dict[str, dict[str, str]], written: dict[str, int]) -> None:
    """Gives finished pictures their new names, and writes the annotations that go with them."""
    for old, (new, data) in rewrite(dataset, lambda frame, text: texts[frame.path][text]).items():
        if data is not None:
            write.replace(folder / new, data)
        elif old in written:
            (folder / new).parent.mkdir(parents=True, exist_ok=True)
            (folder / MARK / str(written[old])).replace(folder / new)


def as_dict(audit: Audit, dataset: Dataset, recipe: AnonymizeRecipe) -> dict:
    """The audit, ready for JSON. It names no picture of the dataset, since names may be plates."""
    return {
        "plates": {fate: audit.fates[fate] for fate in ("replaced", "redacted", "withheld")},
        "reasons": dict(audit.reasons.most_common()),
        "pictures": {
            "written": audit.pictures["written"],
            "withheld": audit.pictures["withheld"],
            "set_aside": len({item["path"] for item in dataset.set_aside}),
            "without_annotation": len(dataset.unannotated),
        },
        "files_not_copied": len(dataset.unknown),
        "pixels": {name: audit.outside[name] for name in ("pixels", "changed", "outside")},
        "source_texts": {  # how often they were found, not where: that is for `verify --against` to tell
            "searched": len({s.text for f in dataset.frames for s in f.spots if s.text}) - len(audit.scan.unsearched),
            "too_short_to_search": len(audit.scan.unsearched),
            "found": len(audit.scan.hits),
            "found_in_coded_pixels": len(audit.scan.chance),
            "expected_there_by_chance": round(audit.scan.expected, 3),
            "files": audit.scan.files,
            "bytes": audit.scan.bytes,
        },
        "identity": "keyed" if recipe.key_file else "within this run" if recipe.track_consistent else "none",
        "not_covered": [
            "vehicles, places, faces, stickers and times may still identify",
            "plates that nobody annotated stay as they are",
            *(["keyed texts are pseudonyms: who has the key has the plates"] if recipe.key_file else []),
        ],
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


def _refuse_overlap(corpus: Path, out: Path) -> None:
    a, b = corpus.resolve(), out.resolve()
    if a.is_relative_to(b) or b.is_relative_to(a):
        raise PlatemintError(f"--out {out}: lies in the dataset {corpus} or around it; choose a folder apart from it")


def _open_folder(folder: Path) -> None:
    """An empty folder, with the mark of a run that has not ended. What an interrupted run has left is cleared."""
    try:
        if (folder / MARK).is_dir():
            shutil.rmtree(folder)
        elif folder.exists() and any(folder.iterdir()):
            raise PlatemintError(f"{folder}: is not empty; choose another --out, or remove what is there")
        (folder / MARK).mkdir(parents=True)
    except OSError as fault:
        raise PlatemintError(f"{folder}: cannot be written ({fault.strerror}); choose another --out") from None
