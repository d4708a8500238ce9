"""Small deterministic stages in place of photographs and networks, so that faults of a run can be tried in seconds."""

import hashlib

import cv2
import numpy as np

from pipeline.plate import DIGITS, LETTERS, Plate
from pipeline.recipe import GenerateRecipe
from pipeline.sample import Group
from pipeline.shard import Stages
from pipeline.write import scores


class Sources:
    """Two layouts in train, one in val; every photograph is noise of its own."""

    groups = (
        Group("short", "train", (LETTERS, LETTERS, DIGITS), 0.5, 7),
        Group("long", "train", (LETTERS, LETTERS, DIGITS, DIGITS), 0.25, 0),
        Group("long", "val", (LETTERS, LETTERS, DIGITS, DIGITS), 0.25, 3),
    )
    texts = frozenset({"AA00", "ZZ9"})
    set_aside = [{"path": "empty.jpg", "row": "", "reason": "empty file"}]
    fingerprint = "noise"

    def turn(self, group: int, index: int, round: int) -> int:
        return (index + 5 * round) % (self.groups[group].sources or 10**9)

    def get(self, group: int, number: int) -> Plate:
        belongs = self.groups[group]
        image = np.random.default_rng([group, number]).integers(0, 255, (24, 72 + group, 3), np.uint8)
        return Plate(image, "AA00"[: len(belongs.positions)], belongs.layout, f"{group}/{number}", belongs.split)


def edit(plates: list[Plate]) -> list[Plate]:
    """Writes the target across the picture."""
    for plate in plates:
        plate.original, plate.original_text = plate.image, plate.text
        plate.target_mask = np.zeros(plate.image.shape[:2], np.uint8)
        cv2.putText(plate.target_mask, plate.target, (2, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 2)
        plate.image = np.where(plate.target_mask[..., None] > 0, np.uint8(0), plate.image)
        plate.text = plate.target
    return plates


def luck(plate: Plate) -> float:
    """0..1, a function of what the plate is, as a network's score is."""
    return hashlib.sha256(f"{plate.source} {plate.target}".encode()).digest()[0] / 255


class Agrees:
    """A filter for anonymize that takes everything and reads what shall be read."""

    def __init__(self, *_):
        pass

    def scored(self, plates):
        for plate in plates:
            plate.reading = plate.text
            plate.scores = {"reader": 1.0, "residue": 0.0}
        return plates

    def decide(self, scores):
        return ""


class Lucky(Stages):
    """Accepts what has the luck, and no text with a character in `never`."""

    sources = Sources()
    checkpoints = {"spg": "0"}
    device = "none"
    never = ""

    def edit(self, plates: list[Plate]) -> list[Plate]:
        return edit(plates)

    def filter(self, plates: list[Plate]) -> list[Plate]:
        for plate in plates:
            plate.reading = plate.text
            plate.scores = dict.fromkeys(scores(self.recipe), 0.9) | {"residue": 0.1, "reader": luck(plate)}
            bad = plate.scores["reader"] < self.recipe.filter.min_reader or set(plate.text) & set(self.never)
            plate.reason = "reader" if bad else ""
        return plates


class NoQ(Lucky):
    never = "Q"


def recipe(out, count: int = 120, workers: int = 1, seed: int = 0, **sections: dict) -> GenerateRecipe:
    """Six shards of which four are train; a third of the attempts are rejected, nothing is missing at the end."""
    sections = {
        "edit": {"batch": 8},
        "filter": {"rounds": 30, "min_reader": 0.35},
        "write": {"shard_rows": 25},
    } | sections
    return GenerateRecipe(name="plates", count=count, seed=seed, out=str(out), engine={"workers": workers}, **sections)
