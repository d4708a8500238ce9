"""Small deterministic stages in place of photographs and networks, so that faults of a run can be tried in seconds."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from platemint.pipeline.anonymize.anonymizer import Anonymizer
from platemint.pipeline.anonymize.plan import AnonymizePlan
from platemint.pipeline.anonymize.run import anonymize
from platemint.pipeline.filter import Filter
from platemint.pipeline.plate import DIGITS, LETTERS, Group, Plate, same_reading
from platemint.pipeline.recipe import AnonymizeRecipe, GenerateRecipe
from platemint.pipeline.stages import Stages
from platemint.pipeline.text_frame import WHOLE
from platemint.pipeline.write import scores


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
    read_as = ""

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

    def standing(self, plates):
        return [None] * len(plates)

    def decide(self, scores):
        return ""


class Fills:
    """A finder to which every plate fills its picture."""

    def __init__(self, *_):
        pass

    def frames(self, pictures):
        return [WHOLE] * len(pictures)


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


# ------------------------------------------------------------------------------------ anonymize: plates that are stamps

BLANK = 77  # a stamp is a row of pixels, one for a character: its code, what that lacks of 255, and this


def stamp(image: np.ndarray, text: str, row: int, column: int) -> None:
    codes = np.frombuffer(text.encode(), np.uint8)
    image[row, column : column + len(codes)] = np.stack([codes, 255 - codes, np.full_like(codes, BLANK)], 1)


def strokes(image: np.ndarray) -> np.ndarray:
    """The pixels of stamps, bool (H, W)."""
    return (image[..., 0] == 255 - image[..., 1]) & (image[..., 2] == BLANK)


def stamped(image: np.ndarray) -> str:
    """What is stamped on a picture, row by row."""
    return bytes(image[strokes(image)][:, 0]).decode("latin-1")


def write_target(plate: Plate) -> np.ndarray:
    """The picture without its stamp, and the target a little below."""
    image, old = plate.image.copy(), strokes(plate.image)
    image[old] = 9
    row, column = np.argwhere(old)[0]
    stamp(image, plate.target, row + 3, column)
    return image


class Stamps(Anonymizer):
    """Reads and writes stamps. `image_of` and `scores_of` are there to be done badly."""

    finder = None

    def networks(self):
        return self.stamp, self

    @staticmethod
    def image_of(plate: Plate) -> np.ndarray:
        return write_target(plate)

    @staticmethod
    def scores_of(plate: Plate) -> dict[str, float]:
        says = {"reader": plate.text, "residue": plate.original_text}
        return {name: float(same_reading(plate.reading, text)) for name, text in says.items()}

    def stamp(self, plates: list[Plate]) -> list[Plate]:
        edited = []
        for plate in plates:
            image = self.image_of(plate)
            mask = np.uint8(255) * (strokes(image) | strokes(plate.image))
            edited.append(
                replace(plate, image=image, text=plate.target, original=plate.image, original_text=plate.text,
                        source_mask=mask, target_mask=mask)
            )  # fmt: skip
        return edited

    def scored(self, plates: list[Plate]) -> list[Plate]:
        read = [replace(plate, reading=stamped(plate.image)) for plate in plates]
        sure = dict.fromkeys(("stability", "slots", "mask_reader"), 0.9)
        return [replace(plate, scores=sure | self.scores_of(plate)) for plate in read]

    def standing(self, plates: list[Plate]) -> list[None]:
        return [None] * len(plates)

    def read(self, pictures: list[np.ndarray]) -> list[tuple[str, float]]:
        return [(stamped(image), 1.0) for image in pictures]

    def decide(self, scores: dict[str, float]) -> str:
        filter = Filter.__new__(Filter)
        filter.limits = self.recipe.filter
        return filter.decide(scores)


def frames(root: Path, plates: dict[str, list[str]], size: tuple[int, int] = (240, 100)) -> Path:
    """A dataset in OpenALPR's form: {name of a picture: its plates' texts}, noise with a stamp for each plate."""
    width, height = size
    root.mkdir(parents=True, exist_ok=True)
    for number, (name, texts) in enumerate(plates.items()):
        image = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        image[..., 2] |= 128  # no stamp by chance
        lines = []
        for k, text in enumerate(texts):
            x, y, w, h = 8 + 76 * (k % 3), 10 + 45 * (k // 3), 60, 30
            stamp(image, text, y + h // 2, x + 9)
            lines.append(f"{name}.png\t{x}\t{y}\t{w}\t{h}\t{text}\n")
        cv2.imwrite(str(root / f"{name}.png"), image[..., ::-1])
        if lines:
            (root / f"{name}.txt").write_text("".join(lines))
    return root


def anonymized(corpus: Path, out: Path, stages: type[Stamps] = Stamps, progress=None, **fields) -> dict:
    """The audit of a run with stand-in networks."""
    made = AnonymizeRecipe(source={"path": str(corpus)}, out=str(out), **fields)
    return anonymize(made, progress, AnonymizePlan(made, stages(made)))


# ------------------------------------------------------------------------------------------------------------ processes


def slow_program(
    *args: object, stamp: float = 0.2, edit: float = 0.05, pictures: int = 3, waits: bool = False, **options
) -> subprocess.Popen:
    """The program with stand-in networks that take their time, in a process group of its own, as a terminal has it.

    stamp, edit: seconds that a batch takes. pictures: of a shard of anonymize. waits: says `ready` once it is loaded, and
    begins when a line comes. options: of the process.
    """
    code = f"import stand_ins; stand_ins.run_slowly({stamp}, {edit}, {pictures}, {waits})"
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, cwd=Path(__file__).parent, start_new_session=True, text=True, **options)


def killed_after_two(commits: Path, *args: object) -> None:
    """Runs `slow_program` and kills it, its workers too, once two shards have their record in that folder."""
    with slow_program(*args) as process:
        end = time.monotonic() + 240
        while len(list(commits.glob("*.json"))) < 2:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)


def run_slowly(stamp: float, edit: float, pictures: int, waits: bool) -> None:
    """What `slow_program` runs."""
    from platemint import run_pipeline
    from platemint.pipeline import edit_folder, stages, train  # noqa: F401 (loaded before it is ready)
    from platemint.pipeline.anonymize import plan

    signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts this may ignore it
    Stamps.stamp, Lucky.edit = _slow(Stamps.stamp, stamp), _slow(Lucky.edit, edit)
    plan.Anonymizer, stages.Stages, plan.PICTURES = Stamps, Lucky, pictures
    if waits:
        print("ready", flush=True)
        sys.stdin.readline()
    run_pipeline.main()


def _slow(work: Callable, seconds: float) -> Callable:
    def worked(*args):
        time.sleep(seconds)
        return work(*args)

    return worked


def tar(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    """A tar file, and the folder it lies in. links: symbolic ones, by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as opened:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            opened.addfile(member)
