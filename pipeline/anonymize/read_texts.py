"""read_texts: what new texts are drawn for besides labels: plates without a text, and plates that a detector found.

A reading counts where readings at all scales agree and the first has a high score. A wrong one would leave strokes of
characters that nobody knows of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TextIO

import numpy as np

from platemint.pipeline.anonymize.detector import Detector, covered
from platemint.pipeline.anonymize.picture import open_picture
from platemint.pipeline.corpora.datasets import FORMATS, WITHOUT_TEXT, Annotation, Dataset, Frame
from platemint.pipeline.corpora.finds import homes
from platemint.pipeline.corpora.records import bounds, box
from platemint.pipeline.corpora.rectify import views_of
from platemint.pipeline.filter import Filter
from platemint.pipeline.networks import batched
from platemint.pipeline.plate import LONGEST, behind_province, same_reading
from platemint.pipeline.progress import Count
from platemint.pipeline.recipe import AnonymizeRecipe

SCALES = (1.0, 0.94, 1.12)  # of a plate's outline: a box that cuts a character off is found out by a wider one
LEAST = 5  # characters, a province left out: fewer are often a part of a plate
MEMORY = 64 << 20  # bytes of cuts held until they are read

Seen = tuple[str, int, list[np.ndarray]]  # a picture, which of its plates, cuts of it


def is_wanted(recipe: AnonymizeRecipe) -> bool:
    return recipe.read_texts or recipe.detector.finds != "list"


def completed(
    dataset: Dataset, recipe: AnonymizeRecipe, reader: Filter, detector: Detector | None, progress: TextIO | None = None
) -> Dataset:
    """The dataset with a detector's finds among its plates, and with the texts of plates that had none, where sure."""
    finder = detector if recipe.detector.finds != "list" else None
    frames = {frame.path: frame for frame in dataset.frames}
    wanted = [
        frame for frame in dataset.frames if finder or not all(annotation.text for annotation in frame.annotations)
    ]
    reporter = Count(len(wanted), progress, "pictures looked at for unknown plates")
    looks: list[Seen] = []
    for frame, pixels in _opened(dataset, wanted, reporter):
        frames[frame.path] = known = _with_finds(frame, pixels, finder, dataset.format)
        looks += [(frame.path, place, _cuts(annotation, pixels)) for place, annotation in _unread(known, recipe)]
        if sum(cut.nbytes for *_, cuts in looks for cut in cuts) >= MEMORY:
            _read(frames, looks, reader, recipe.min_reading)
            looks = []
    _read(frames, looks, reader, recipe.min_reading)
    reporter.close()
    return replace(dataset, frames=[frames[frame.path] for frame in dataset.frames])


def sure(readings: list[tuple[str, float]], least: float) -> str:
    """The text that all readings of a plate agree on, "" where one differs, the first scores less, or it is too short."""
    text, score = readings[0]
    agreed = all(same_reading(text, other) for other, _ in readings)
    return text if agreed and score >= least and _fits(text) else ""


@dataclass
class Unknown:
    """What became of plates that had no text or no annotation. plates: picture, plate, outcome, once it is decided."""

    plates: list[tuple[str, Annotation, str]] = field(default_factory=list)

    def add(self, picture: str, annotation: Annotation, outcome: str) -> None:
        if annotation.read or annotation.found or not annotation.text:
            self.plates.append((picture, annotation, outcome))

    @property
    def found(self) -> int:
        return sum(annotation.found for _, annotation, _ in self.plates)

    def facts(self, dataset: Dataset, recipe: AnonymizeRecipe, names: dict[str, str]) -> tuple[dict, dict]:
        """Figures of the plates that were read, and of a detector's finds, {} where they are listed only.

        dataset: as it is written. names: of its pictures, old to new.
        """
        plates = homes(dataset, FORMATS[dataset.format]).values() if dataset.format in FORMATS else ()
        annotated = {picture for pictures in plates for picture in pictures}
        return self._read(recipe, annotated), {} if recipe.detector.finds == "list" else self._finds(
            recipe, annotated, names
        )

    def _read(self, recipe: AnonymizeRecipe, annotated: set[str]) -> dict:
        read = [(picture, annotation, outcome) for picture, annotation, outcome in self.plates if annotation.read]
        replaced = [(picture, annotation) for picture, annotation, outcome in read if outcome == "replaced"]
        labelled = [
            annotation.labelled and (picture in annotated or not annotation.found) for picture, annotation in replaced
        ]
        return {
            "min_reading": recipe.min_reading,
            "without_text": sum(not annotation.found for _, annotation, _ in self.plates),
            "read": len(read),
            "read_and_replaced": len(replaced),
            "replaced_without_label": len(replaced) - sum(labelled),
        }

    def _finds(self, recipe: AnonymizeRecipe, annotated: set[str], names: dict[str, str]) -> dict:
        found = [(picture, annotation, outcome) for picture, annotation, outcome in self.plates if annotation.found]
        outcomes = Counter(outcome for *_, outcome in found)
        settled = [
            {
                "picture": names[picture],
                "box": [*map(int, bounds(annotation.corners))],
                "outcome": outcome,
                "annotated": picture in annotated,
            }
            for picture, annotation, outcome in found
            if outcome != "withheld"
        ]
        return {
            "finds": recipe.detector.finds,
            **{f"found_{outcome}": outcomes[outcome] for outcome in ("replaced", "redacted", "withheld")},
            "found_not_annotated": sum(not item["annotated"] for item in settled),
            "settled": settled,
        }


def _opened(dataset: Dataset, frames: list[Frame], reporter: Count) -> Iterator[tuple[Frame, np.ndarray]]:
    """Frames and their pixels. Pictures that cannot be opened are left out: who writes them sets them aside."""
    for frame in frames:
        reporter.add(1, 0)
        try:
            yield frame, open_picture(dataset.root / frame.path).pixels
        except ValueError:
            continue


def _with_finds(frame: Frame, pixels: np.ndarray, detector: Detector | None, format: str) -> Frame:
    """A frame with what a detector finds outside its annotated plates; one that cannot be run leaves it as it is."""
    try:
        found = detector.find(pixels) if detector else []
    except ValueError:
        return frame
    annotations = list(frame.annotations)
    for place, _ in found:
        if not covered(place, annotations):
            annotations.append(Annotation("", box(*place), box(*place), format not in WITHOUT_TEXT, found=True))
    return replace(frame, annotations=tuple(annotations))


def _unread(frame: Frame, recipe: AnonymizeRecipe) -> list[tuple[int, Annotation]]:
    finds = recipe.detector.finds == "replace"
    wanted = {True: finds, False: recipe.read_texts}
    return [
        (place, annotation)
        for place, annotation in enumerate(frame.annotations)
        if not annotation.text and wanted[annotation.found]
    ]


def _cuts(annotation: Annotation, pixels: np.ndarray) -> list[np.ndarray]:
    """A plate at each of `SCALES`."""
    corners = np.array(annotation.corners or box(0, 0, *pixels.shape[1::-1]), dtype=np.float64)
    middle = corners.mean(0)
    outlines = [tuple(map(tuple, middle + scale * (corners - middle))) for scale in SCALES]
    return [
        view.cut(pixels) for view in views_of([replace(annotation, corners=outline) for outline in outlines], pixels)
    ]


def _read(frames: dict[str, Frame], looks: list[Seen], reader: Filter, least: float) -> None:
    """Puts texts that are sure into the frames."""
    readings = reader.read([cut for *_, cuts in looks for cut in cuts])
    for (path, place, _), seen in zip(looks, batched(readings, len(SCALES))):
        annotations = list(frames[path].annotations)
        text = sure(seen, least)
        if text and (not annotations[place].found or any(map(str.isdigit, text))):  # signs have words, with few digits
            annotations[place] = replace(annotations[place], text=text, read=True)
            frames[path] = replace(frames[path], annotations=tuple(annotations))


def _fits(text: str) -> bool:
    behind = behind_province(text)
    return LEAST <= len(behind) <= len(text) <= LONGEST and behind.isascii()
