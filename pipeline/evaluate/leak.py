"""evaluate leak: a reader trained to guess the source's text from the anonymized picture, on plates it has never seen.

The probe is a strong attacker: it starts from our reader, so it knows plates, and it learns from pairs of anonymized
pictures and true texts that no attacker would have. What it guesses right is compared with chance, that is without the
strokes: a constant guess, a guess for another plate, and the same probe on pictures out of which the characters are
cut, since a design goes with certain letters; and with what it guesses of blurred and of untouched plates.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
import torch
from torch import Tensor

from platemint.models.reader import Reader, align, ctc
from platemint.models.spg import encode_texts
from platemint.pipeline.anonymize.anonymizer import Anonymizer
from platemint.pipeline.anonymize.replacement import Replacement
from platemint.pipeline.corpora.datasets import AUTO, Annotation, Frame
from platemint.pipeline.corpora.kinds import kinds_of, plated
from platemint.pipeline.draw import draw_targets
from platemint.pipeline.networks import autocast, batched, choose_device, load_network, network_input, resize
from platemint.pipeline.plate import Plate, PlatemintError, Readings, Stream, canonical, characters
from platemint.pipeline.progress import Count
from platemint.pipeline.recipe import AnonymizeRecipe, Edit, GenerateRecipe, Source
from platemint.pipeline.stages import Stages
from platemint.pipeline.train.reading import disturb

KINDS = ("surround", "edited", "blurred", "untouched")  # the first one is without any stroke
CHANCES = ("constant", "shuffled", "surround")
TESTED = 0.3  # of the plates; the others are learned from
FEWEST = 10  # plates on either side of the split
BATCH = 16
LR = 6e-4  # as a reader is trained afresh: enough to unlearn the text that is shown
WARM = 0.1  # of the steps
CLIP = 5.0  # largest gradient norm
SHUFFLES = 20  # other plates' predictions that each plate is given
RESAMPLES = 2000
GRAY = 128  # where the characters are cut out
BLUR = 2  # the box's part of the plate's width and height, one half: deface.py of ORB-HD/deface


@dataclass(frozen=True)
class Specimen:
    """One plate and its anonymized picture. text: the source's. kind: what anybody sees of it: country and pattern.

    pictures: of each of `KINDS`: uint8 (h, w, 3) at the probe's own size.
    """

    text: str
    kind: str
    pictures: dict[str, np.ndarray]


class Leak:
    """What `evaluate leak` measures: edits of a corpus's crops that anonymize would let out.

    count: edits tried; more than there are photographs takes these again, with other texts. split: of the corpus, ""
    for all. format: of the corpus. Raises PlatemintError for a network, corpus or split that is not there, and where
    texts do not suffice.
    """

    def __init__(
        self, options: Edit, source: Path, split: str = "", count: int = 1500, seed: int = 0, format: str = AUTO
    ):
        self.source, self.seed, self.count = source, seed, count
        wanted = Source(path=str(source), split=split, format=format)
        self.stages = Stages(GenerateRecipe(seed=seed, edit=options, source=wanted))
        sources, reserved = self.stages.sources, self.stages.recipe.draw.reserved
        self.targets = draw_targets(sources.groups, count, seed, Readings(sources.texts), reserved)
        self.probe = load_network(options.reader, "reader", options)
        self.anonymizer = Anonymizer(AnonymizeRecipe(edit=options))

    def specimens(self, progress: TextIO | None = None) -> list[Specimen]:
        """The accepted edits."""
        kinds = kinds_of(self.source)
        photos, size = self.stages.sources.photos, (self.probe.config.height, self.probe.config.width)
        country = {photo.source: kinds.get(plated(photo.label), "") for group in photos for photo in group}
        reporter, found = Count(self.count, progress, "plates edited"), []
        for numbers in batched(range(self.count), self.stages.recipe.edit.batch):
            tried = [self._case(number) for number in numbers]
            items = [item for _, group_items in tried for item in group_items]
            self.anonymizer.settle(items, {})
            names = [f"{country[plate.source]} {self._pattern(n)}" for n, (plate, _) in zip(numbers, tried)]
            for name, (_, group_items) in zip(names, tried):
                found += [_specimen(item, name, size) for item in group_items if item.outcome == "replaced"]
            reporter.add(len(numbers), 0)
        reporter.close()
        return found

    def _case(self, number: int) -> tuple[Plate, list[Replacement]]:
        """A target's plate, and the case that anonymize makes of it."""
        sources, group = self.stages.sources, int(self.targets.group[number])
        plate = sources.get(group, sources.turn(group, int(self.targets.group_index[number]), 0))
        frame, new = Frame(str(number), (Annotation(plate.text),), plate.split), str(self.targets.text[number])
        return plate, self.anonymizer.items(frame, plate.image, {plate.text: (new,)})

    def _pattern(self, number: int) -> str:
        return self.stages.sources.groups[int(self.targets.group[number])].name.rpartition("/")[2]


def _specimen(item: Replacement, kind: str, size: tuple[int, int]) -> Specimen:
    pictures = {
        "surround": surround(item.source, item.region),
        "edited": item.result,
        "blurred": blurred(item.source),
        "untouched": item.source,
    }
    return Specimen(item.annotation.text, kind, {name: resize(picture, *size) for name, picture in pictures.items()})


def surround(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A plate, uint8 (h, w, 3), out of which the rectangle around a region, bool (h, w), is cut: gray there."""
    x, y, width, height = cv2.boundingRect(region.astype(np.uint8))
    cut = image.copy()
    cut[y : y + height, x : x + width] = GRAY
    return cut


def blurred(image: np.ndarray) -> np.ndarray:
    """A plate as redaction tools blur it: uint8 (h, w, 3)."""
    height, width = image.shape[:2]
    return cv2.blur(image, (max(1, width // BLUR), max(1, height // BLUR)))


# ------------------------------------------------------------------------------------------------------- the probe


def split_plates(specimens: Sequence[Specimen], seed: int) -> tuple[list[int], list[int]]:
    """Places of the specimens to learn from and of those to test on: all of a text's are on one side.

    Raises PlatemintError where there are too few plates.
    """
    texts = sorted({canonical(specimen.text) for specimen in specimens})
    if min(len(texts) * TESTED, len(texts) * (1 - TESTED)) < FEWEST:
        raise PlatemintError(
            f"{len(specimens)} edits of {len(texts)} plates were accepted, too few to learn from and test on; give "
            "more crops (--source) or try more edits (--count)"
        )
    order = np.random.default_rng([seed, Stream.EVALUATE_LEAK]).permutation(len(texts))
    tested = {texts[place] for place in order[: round(TESTED * len(texts))]}
    sides = ([], [])
    for place, specimen in enumerate(specimens):
        sides[canonical(specimen.text) in tested].append(place)
    return sides


@dataclass(frozen=True)
class Attack:
    """Probes that start from one reader and learn for equally many steps, whatever pictures they are shown."""

    start: Reader
    options: Edit
    steps: int
    seed: int

    def __call__(self, specimens: Sequence[Specimen], progress: TextIO | None = None) -> dict:
        """Trains and judges a probe for each kind of picture. Raises PlatemintError where there are too few plates."""
        learned, tested = ([specimens[i] for i in side] for side in split_plates(specimens, self.seed))
        reporter, kinds = Count(len(KINDS) * self.steps, progress, "steps"), {}
        guesses: dict[str, list[str]] = {}
        for kind in KINDS:
            guesses[kind] = self.guessed(self.trained(learned, kind, reporter), tested, kind)
            kinds[kind] = compared(guesses[kind], guesses["surround"], learned, tested, self.seed)
        reporter.close()
        sides = {"learned": _counts(learned), "tested": _counts(tested)}
        return {"steps": self.steps, "seed": self.seed, **sides, "kinds": kinds, "verdict": verdict(kinds)}

    def trained(self, specimens: Sequence[Specimen], kind: str, reporter: Count) -> Reader:
        """A reader that has learned the source's text from pictures of a kind."""
        probe, rng = (
            copy.deepcopy(self.start).requires_grad_(True).train(),
            np.random.default_rng([self.seed, Stream.EVALUATE_LEAK, 1]),
        )
        texts, places = self._spelled(specimens)
        optimiser = torch.optim.AdamW(probe.parameters(), LR)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, LR, self.steps + 1, pct_start=WARM, cycle_momentum=False
        )
        for _ in range(self.steps):
            chosen = rng.integers(len(specimens), size=BATCH)
            read = self._read(probe, [disturb(specimens[i].pictures[kind], rng) for i in chosen])
            optimiser.zero_grad()
            (ctc(read, texts[chosen]).mean() + aligned(read, texts[chosen], places[chosen])).backward()
            torch.nn.utils.clip_grad_norm_(probe.parameters(), CLIP)
            optimiser.step()
            schedule.step()
            reporter.add(1, 0)
        return probe.eval()

    @torch.inference_mode()
    def guessed(self, probe: Reader, specimens: Sequence[Specimen], kind: str) -> list[str]:
        """The text that a probe guesses of each picture of a kind; how many characters it has is to be seen."""
        texts = []
        for batch in batched(specimens, self.options.batch):
            read = self._read(probe, [specimen.pictures[kind] for specimen in batch]).cpu()
            texts += guessed(read, [len(characters(specimen.text)) for specimen in batch], probe.config.alphabet)
        return texts

    @torch.inference_mode()
    def _spelled(self, specimens: Sequence[Specimen]) -> tuple[Tensor, Tensor]:
        """Source texts and the time step of each of their characters, int64 (n, N), as untouched plates show them."""
        device, _ = choose_device(self.options)
        texts = encode_texts([characters(specimen.text) for specimen in specimens], self.start.config.alphabet)
        pictures = batched([specimen.pictures["untouched"] for specimen in specimens], self.options.batch)
        read = torch.cat([self._read(self.start, batch) for batch in pictures])
        texts = texts.to(device)
        return texts.clone(), align(read, texts).round().long()

    def _read(self, probe: Reader, pictures: list[np.ndarray]) -> Tensor:
        device, dtype = choose_device(self.options)
        with autocast(device, dtype):
            return probe(network_input(pictures, probe.config.height, probe.config.width, device))


def aligned(read: Tensor, texts: Tensor, places: Tensor) -> Tensor:
    """Loss of each character at the place where it stood, among all characters.

    With CTC alone, a probe that is unsure says nothing for thousands of steps, and what it could guess is not seen.
    read: (B, T, 1 + alphabet) log-probabilities. texts, places: int64 (B, N), texts 0-padded.
    """
    there = read[..., 1:].log_softmax(-1).gather(1, places[..., None].expand(-1, -1, read.shape[2] - 1))
    return -there.gather(2, (texts - 1).clamp(min=0)[..., None])[..., 0][texts > 0].mean()


def guessed(read: Tensor, lengths: Sequence[int], alphabet: str) -> list[str]:
    """The likeliest characters where so many of them stand likeliest, however likely it is that nothing stands there.

    read: (B, T, 1 + alphabet) log-probabilities.
    """
    either = torch.stack([read[..., 0], read[..., 1:].logsumexp(-1)], -1)  # nothing, or any character
    ones = torch.stack([(torch.arange(max(lengths)) < length).long() for length in lengths])
    places, best = align(either, ones).round().long().tolist(), read[..., 1:].argmax(-1).tolist()
    return ["".join(alphabet[row[p]] for p in at[:n]) for row, at, n in zip(best, places, lengths)]


def _counts(specimens: Sequence[Specimen]) -> dict[str, int]:
    return {"edits": len(specimens), "plates": len({canonical(specimen.text) for specimen in specimens})}


# ----------------------------------------------------------------------------------------------------- the figures


def agreement(guess: str, text: str) -> float:
    """Share of a text's characters that a guess has at the same position, as readings are compared: 0..1."""
    a, b = canonical(guess), canonical(text)
    return sum(x == y for x, y in zip(a, b)) / len(b)


def constants(specimens: Sequence[Specimen]) -> dict[str, str]:
    """For each kind of plate the text that has each position's most frequent character among those learned from.

    Under "" the one of all kinds, for a kind that was never learned.
    """
    texts = defaultdict(set)
    for specimen in specimens:
        texts[specimen.kind].add(canonical(specimen.text))
        texts[""].add(canonical(specimen.text))
    return {kind: _constant(sorted(kind_texts)) for kind, kind_texts in texts.items()}


def _constant(texts: list[str]) -> str:
    length = Counter(map(len, texts)).most_common(1)[0][0]
    return "".join(Counter(text[i] for text in texts if len(text) > i).most_common(1)[0][0] for i in range(length))


def shuffled(guesses: Sequence[str], tested: Sequence[Specimen], rng: np.random.Generator) -> list[float]:
    """How much of each plate's text is in the guesses for others of its kind (of all, where it has no others)."""
    scores = []
    for specimen in tested:
        others = [i for i, o in enumerate(tested) if canonical(o.text) != canonical(specimen.text)]
        others = [i for i in others if tested[i].kind == specimen.kind] or others
        chosen = rng.choice(others, min(SHUFFLES, len(others)), replace=False)
        scores.append(float(np.mean([agreement(guesses[i], specimen.text) for i in chosen])))
    return scores


def bootstrap_mean(values: Sequence[float], plates: Sequence[str], seed: int) -> dict[str, float]:
    """Mean and 95 % interval, {"mean", "low", "high"}, by bootstrap over plates: edits of one are no two tries."""
    _, number = np.unique(plates, return_inverse=True)
    sums, counts = np.bincount(number, values), np.bincount(number)
    draws = np.random.default_rng([seed, Stream.EVALUATE_LEAK, 2]).integers(len(sums), size=(RESAMPLES, len(sums)))
    low, high = np.percentile(sums[draws].sum(1) / counts[draws].sum(1), (2.5, 97.5))
    return {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}


def compared(
    guesses: Sequence[str], unseeing: Sequence[str], learned: Sequence[Specimen], tested: Sequence[Specimen], seed: int
) -> dict:
    """Accuracy of a probe's guesses, and of those of `CHANCES`; and how far the first are over each of the others.

    unseeing: guesses of the probe that sees no character.
    """
    constant, plates = constants(learned), [canonical(specimen.text) for specimen in tested]
    values = {
        "probe": [agreement(guess, specimen.text) for guess, specimen in zip(guesses, tested)],
        "constant": [agreement(constant.get(s.kind, constant[""]), s.text) for s in tested],
        "shuffled": shuffled(guesses, tested, np.random.default_rng([seed, Stream.EVALUATE_LEAK, 3])),
        "surround": [agreement(guess, specimen.text) for guess, specimen in zip(unseeing, tested)],
    }
    for chance in CHANCES:
        values[f"over_{chance}"] = np.subtract(values["probe"], values[chance])
    return {name: bootstrap_mean(figures, plates, seed) for name, figures in values.items()}


def verdict(kinds: dict[str, dict]) -> str:
    """One of `WORDS`. Chance is the best of the guesses that see no stroke; a trace is more than all but a constant."""
    over = {kind: {chance: part[f"over_{chance}"]["low"] > 0 for chance in CHANCES} for kind, part in kinds.items()}
    if not all(over["untouched"].values()) or kinds["edited"]["over_constant"]["high"] < 0:
        return "nothing"
    if not over["edited"]["shuffled"] or not over["edited"]["surround"]:
        return "at chance"
    return "above chance" if over["edited"]["constant"] else "traces"


def evaluate_leak(leak: Leak, steps: int, progress: TextIO | None = None) -> dict:
    """Measures everything; `leak_as_text` prints what it returns."""
    specimens = leak.specimens(progress)
    attack = Attack(leak.probe, leak.stages.recipe.edit, steps, leak.seed)
    facts = {"checkpoints": leak.stages.checkpoints, "tried": leak.count, "accepted": len(specimens)}
    return facts | attack(specimens, progress)


WORDS = {
    "at chance": "at chance within the error bar: the probe guesses no more of the source's text than without the picture",
    "traces": "no more than a constant guess, but more than guesses for other plates of the kind and than from "
    "plates without their characters: a trace of the text",
    "above chance": "above chance: the edited pictures reveal some of the source's text",
    "nothing": "no result: the probe does not read untouched plates, or guesses less of edited ones than a constant guess "
    "does; it has not learned enough: give it more --steps or more crops",
}


def leak_as_text(report: dict) -> str:
    """A report for people."""
    learned, tested = report["learned"], report["tested"]
    columns = ("probe", *CHANCES, *(f"over_{chance}" for chance in CHANCES))
    lines = [
        f"{', '.join(report['checkpoints'])}: {report['accepted']:,} of {report['tried']:,} edits accepted",
        f"learned from {learned['edits']:,} edits of {learned['plates']:,} plates in {report['steps']:,} steps",
        f"tested on {tested['edits']:,} edits of {tested['plates']:,} other plates, seed {report['seed']}",
        "characters of the source's text guessed at their positions, %, with 95 % intervals by bootstrap over plates",
        f"{'':10}" + "".join(f"{column.replace('_', ' '):>20}" for column in columns),
    ]
    for kind, part in report["kinds"].items():
        lines.append(f"{kind:10}" + "".join(f"{_percent(part[column]):>20}" for column in columns))
    return "\n".join([*lines, WORDS[report["verdict"]]])


def _percent(figure: dict[str, float]) -> str:
    mean, low, high = (100 * figure[name] for name in ("mean", "low", "high"))
    return f"{mean:.1f} ({low:.1f}..{high:.1f})"
