"""evaluate lpr: whether a recogniser trained on edits reads real plates better. The measure that users care about.

A small recogniser (`models.recogniser`) is trained from scratch, with equal steps, on sets made of the same real plates:
the plates alone, the same augmented, their characters permuted, balanced rendered plates, edits, and mixtures. All are
tested on real plates that share neither text nor file with what was learned from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pyarrow import parquet
from torch import Tensor

from platemint.models.recogniser import Recogniser, RecogniserConfig, loss, slot_codes, slot_texts
from platemint.pipeline.alignment import Standing, pitch
from platemint.pipeline.balance.grammar import positions_like
from platemint.pipeline.corpora import read_corpus
from platemint.pipeline.corpora.formats.parquet import is_run
from platemint.pipeline.corpora.pixels import read_plate
from platemint.pipeline.edit import Editor
from platemint.pipeline.engines import threads
from platemint.pipeline.filter import Filter
from platemint.pipeline.find import TextFinder
from platemint.pipeline.networks import autocast, choose_device, load_network, resize
from platemint.pipeline.plate import (
    DIGITS,
    LETTERS,
    READABLE,
    Plate,
    PlatemintError,
    Stream,
    canonical,
    characters,
    pattern,
)
from platemint.pipeline.progress import Count
from platemint.pipeline.recipe import Edit, Limits
from platemint.pipeline.references import References
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.sample import usable_photos
from platemint.pipeline.storage import decode as decode_picture
from platemint.pipeline.text_frame import cut_out, is_whole, pixels_of

HEIGHT, WIDTH = 32, 128  # pixels of the recogniser
BATCH = 64
LR, WARM = 2e-3, 0.1  # largest learning rate; part of the steps in which it rises
TESTED = 0.3  # of the plates where a corpus has no split to test on
FEWEST = 20  # plates on either side
RESAMPLES = 1000
RARE = 8  # characters in the table of rare ones


@dataclass(frozen=True)
class Sample:
    """One plate to learn from or to be tested on. image: uint8 (HEIGHT, WIDTH, 3). text: without separators, folded.

    source: id of the photograph that it is, or was made of; "" for a rendered one.
    """

    image: np.ndarray
    text: str
    source: str = ""


@dataclass(frozen=True)
class Arm:
    """One way to train. parts: sets of samples that share each batch evenly. augmented: whether pictures are distorted."""

    name: str
    parts: tuple[Sequence[Sample], ...]
    augmented: bool = True

    @property
    def texts(self) -> Iterator[str]:
        return (sample.text for part in self.parts for sample in part)


@dataclass
class ArmResult:
    """What recognisers of one arm read. learned: samples. right: whether each plate was read, bool (plates,) of each seed.

    characters: {(character, whether it was read right): times}, over all seeds.
    """

    name: str
    fraction: float
    learned: int
    right: list[np.ndarray] = field(default_factory=list)
    characters: Counter = field(default_factory=Counter)


def sample(image: np.ndarray, text: str, source: str = "") -> Sample:
    """A plate, uint8 (h, w, 3), and its text as the recogniser has them."""
    return Sample(resize(image, HEIGHT, WIDTH), canonical(text), source)


# ----------------------------------------------------------------------------------------------------------- training


def train_recogniser(arm: Arm, config: RecogniserConfig, steps: int, seed: int, tick: Callable[[], None]) -> Recogniser:
    """A recogniser trained from scratch: a one-cycle learning rate, AdamW, bfloat16 where the machine has it.

    Equal seeds give equal weights on one machine.
    """
    device, dtype = choose_device(Edit())
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, Stream.EVALUATE_LPR])
    network = Recogniser(config).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps, pct_start=WARM)
    for images, codes in arm_batches(arm, config, steps, rng):
        images = images.to(device, memory_format=torch.channels_last)
        with autocast(device, dtype):
            logits = network(images)
        optimizer.zero_grad()
        loss(logits, codes.to(device)).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        tick()
    return network.eval()


def arm_batches(
    arm: Arm, config: RecogniserConfig, steps: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Float (BATCH, 3, H, W) in 0..1 and codes, each of the arm's parts giving an equal share of every batch."""
    share = BATCH // len(arm.parts)
    for _ in range(steps):
        drawn = [part[i] for part in arm.parts for i in rng.integers(len(part), size=share)]
        images = torch.from_numpy(np.stack([s.image for s in drawn])).permute(0, 3, 1, 2).float() / 255
        yield (augmented(images, rng) if arm.augmented else images), slot_codes([s.text for s in drawn], config)


def augmented(images: Tensor, rng: np.random.Generator) -> Tensor:
    """The pictures shifted, turned, scaled, brightened and noisy, each its own way. images: float (B, 3, H, W), 0..1."""
    b = len(images)
    draw = lambda low, high: torch.from_numpy(rng.uniform(low, high, b).astype(np.float32))  # noqa: E731
    angle, scale = draw(-0.06, 0.06), draw(0.9, 1.1)
    ratio = images.shape[3] / images.shape[2]
    rows = [
        torch.stack([scale * angle.cos(), -angle.sin() / ratio, draw(-0.06, 0.06)], 1),
        torch.stack([angle.sin() * ratio, scale * angle.cos(), draw(-0.08, 0.08)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gain, bias = (draw(*bounds)[:, None, None, None] for bounds in ((0.7, 1.3), (-0.15, 0.15)))
    noise = torch.from_numpy(rng.standard_normal(moved.shape, np.float32)) * draw(0, 0.06)[:, None, None, None]
    return (moved * gain + bias + noise).clamp(0, 1)


@torch.inference_mode()
def read_samples(network: Recogniser, tested: Sequence[Sample]) -> list[str]:
    """What a recogniser reads of plates."""
    device = next(network.parameters()).device
    texts = []
    for start in range(0, len(tested), 256):
        images = torch.from_numpy(np.stack([s.image for s in tested[start : start + 256]]))
        texts += slot_texts(network(images.to(device).permute(0, 3, 1, 2).float() / 255), network.config)
    return texts


# ---------------------------------------------------------------------------------------------------------- baselines


def permuted(
    samples: Sequence[tuple[np.ndarray, str, str]], standing: Sequence[Standing | None], seed: int, count: int
):
    """Plates with their own characters in another order: cells cut out and pasted where the reader has placed them.

    samples: image uint8 (h, w, 3), text and source. Characters change places within their kind (letters, digits) and
    row. Source: character permutation, Laroca et al. 2025, who cut at annotated boxes.
    """
    rng, made = np.random.default_rng([seed, Stream.EVALUATE_LPR, 1]), []
    able = [(plate, where) for plate, where in zip(samples, standing) if where is not None]
    while able and len(made) < count:
        (image, text, source), where = able[int(rng.integers(len(able)))]
        order = _within_kinds(characters(text), where.lower, rng)
        made.append(sample(_pasted(image, where, order), "".join(characters(text)[i] for i in order), source))
    return made


def _within_kinds(text: str, lower: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An order, int64 (n,), in which characters change places with others of their kind and row."""
    kinds = np.array([(c in DIGITS) + 2 * (c in LETTERS) + 4 * bool(low) for c, low in zip(text, lower)])
    order = np.arange(len(text))
    for kind in np.unique(kinds):
        at = np.flatnonzero(kinds == kind)
        order[at] = rng.permutation(at)
    return order


def _pasted(image: np.ndarray, where: Standing, order: np.ndarray) -> np.ndarray:
    """The picture with the cell of character order[i] where character i stood."""
    result, (height, width) = image.copy(), image.shape[:2]
    for target, origin in enumerate(order):
        row = where.lower == where.lower[target]
        half = pitch(where.places[row]) * width / 2
        two_rows = where.lower.any()
        top = height // 2 if two_rows and where.lower[target] else 0
        bottom = height // 2 if two_rows and not where.lower[target] else height
        x1, x2, y1, y2 = (round(where.places[k] * width + side * half) for k in (target, origin) for side in (-1, 1))
        x1, x2, y1, y2 = (min(max(x, 0), width) for x in (x1, x2, y1, y2))
        if x2 - x1 > 1 and y2 - y1 > 1:
            result[top:bottom, x1:x2] = cv2.resize(image[top:bottom, y1:y2], (x2 - x1, bottom - top))
    return result


# ------------------------------------------------------------------------------------------------------------ measure


def compare(
    arms: Mapping[float, Sequence[Arm]], tested: Sequence[Sample], steps: int, seeds: int, progress: TextIO | None
) -> list[ArmResult]:
    """Results of all arms at all fractions of the real plates, over several seeds. arms: of each fraction."""
    every = [
        (fraction, arm) for fraction, arms_of_fraction in arms.items() for arm in arms_of_fraction if all(arm.parts)
    ]
    config = shape([text for _, arm in every for text in arm.texts], [s.text for s in tested])
    reporter = Count(len(every) * seeds * steps, progress, "steps")
    results = []
    for fraction, arm in every:
        result = ArmResult(arm.name, fraction, sum(map(len, arm.parts)))
        for seed in range(seeds):
            readings = read_samples(train_recogniser(arm, config, steps, seed, lambda: reporter.add(1, 0)), tested)
            result.right.append(np.array([r == s.text for r, s in zip(readings, tested)]))
            result.characters.update(hit for r, s in zip(readings, tested) for hit in _hits(r, s.text))
        results.append(result)
    reporter.close()
    return results


def shape(texts: Iterable[str], tested: Iterable[str]) -> RecogniserConfig:
    """A recogniser for the texts that are learned and tested: their characters, and slots for the longest."""
    every = [*texts, *tested]
    there = {*"".join(every)}
    alphabet = "".join([*(c for c in READABLE if c in there), *sorted(there.difference(READABLE))])
    return RecogniserConfig(alphabet, max(map(len, every)), HEIGHT, WIDTH)


def _hits(reading: str, text: str) -> Iterator[tuple[str, bool]]:
    """Of each character whether it was read at its place; of a text read too short the missing ones are wrong."""
    return ((c, reading[i : i + 1] == c) for i, c in enumerate(text))


def interval(right: Sequence[np.ndarray], seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % interval of the accuracy, by bootstrap over plates and seeds."""
    table = np.stack(right).astype(float)
    rng = np.random.default_rng([seed, Stream.EVALUATE_LPR, 2])
    seeds, plates = table.shape
    means = [
        table[rng.integers(seeds, size=seeds)][:, rng.integers(plates, size=plates)].mean() for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(table.mean()), float(low), float(high)


@dataclass(frozen=True)
class Plates:
    """Real plates to learn from and to be tested on, and what was made of the former, by name."""

    learned: list[tuple[np.ndarray, str, str]]  # image uint8 (h, w, 3), text, source
    tested: list[Sample]
    made: dict[str, list[Sample]]
    left_out: int  # of the made ones: their text or source is tested


class Lpr:
    """What `evaluate lpr` measures. Raises PlatemintError for corpora that cannot be read or are too small."""

    def __init__(self, options: Edit, train: Sequence[Path], test: Path, split: str = "", seed: int = 0):
        self.options, self.seed = options, seed
        self.filter = Filter(Limits(), options)
        learned, tested = learned_and_tested(self._framed(plates_of(test)), split, seed)
        for name, plates_given in (("to learn from", learned), ("to test on", tested)):
            if len(plates_given) < FEWEST:
                raise PlatemintError(f"{test}: only {len(plates_given)} plates {name}; at least {FEWEST} are needed")
        names = [path.name for path in train]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise PlatemintError(f"--train: two folders are called {twice}, which names them in the table; rename one")
        made = {path.name: self._framed(plates_of(path)) for path in train}
        self.plates = _without_tested(learned, tested, made)

    def _framed(self, plates: list[tuple[np.ndarray, str, str, str]]) -> list[tuple[np.ndarray, str, str, str]]:
        """Plates of loose crops cut out, so that the recogniser, which is small, sees them large."""
        if self.options.find == "none":
            return plates
        frames = TextFinder(self.options).frames([image for image, *_ in plates])
        return [
            (image if is_whole(f) else cut_out(image, f, *pixels_of(f, image)), *rest)
            for f, (image, *rest) in zip(frames, plates)
        ]

    def fraction(self, part: float) -> list[tuple[np.ndarray, str, str]]:
        """So much of the real plates, at random; a larger part holds a smaller one."""
        order = np.random.default_rng([self.seed, Stream.EVALUATE_LPR, 3]).permutation(len(self.plates.learned))
        return [self.plates.learned[i] for i in sorted(order[: max(1, round(part * len(order)))])]

    def arms(self, part: float, rendered: Sequence[Sample]) -> list[Arm]:
        """Ways to train on a part of the real plates. rendered: as many are permuted, too."""
        share = self.fraction(part)
        real = [sample(*plate) for plate in share]
        own, every = {source for *_, source in share}, {source for *_, source in self.plates.learned}
        made = {
            name: [s for s in samples if s.source in own or s.source not in every]
            for name, samples in self.plates.made.items()
        }
        shuffled = permuted(share, self.standing(share), self.seed, len(rendered))
        return [
            Arm("real", (real,), augmented=False),
            Arm("real, augmented", (real,)),
            Arm("real + permuted", (real, shuffled)),
            Arm("real + rendered", (real, rendered)),
            *(Arm(f"{name} alone", (samples,)) for name, samples in made.items()),
            *(Arm(f"real + {name}", (real, samples)) for name, samples in made.items()),
            *(Arm(f"real + {name} + rendered", (real, samples, rendered)) for name, samples in made.items()),
        ]

    def standing(self, plates: Sequence[tuple[np.ndarray, str, str]]) -> list[Standing | None]:
        return self.filter.standing([Plate(image, text) for image, text, _ in plates])

    def rendered(self, count: int) -> list[Sample]:
        """Plates drawn from layouts whose texts have a pattern of the real ones; from all layouts where none has."""
        layouts = list(load_layouts().values())
        seen = {pattern(positions_like(characters(text))) for _, text, _ in self.plates.learned}
        alike = [layout for layout in layouts if pattern(p for p in layout.positions if len(p) > 1) in seen] or layouts
        rng = np.random.default_rng([self.seed, Stream.EVALUATE_LPR, 4])
        chosen = (alike[int(i)] for i in rng.integers(len(alike), size=count))
        plates = (render_plate(layout, random_text(layout.positions, rng), rng) for layout in chosen)
        return [sample(plate.image, plate.text) for plate in plates]

    def own_texts(self) -> list[Arm]:
        """The real plates, and edits that have been given the same texts: each plate that of another one of its pattern."""
        plates = with_each_others_texts(self.plates.learned, self.seed)
        made, self.filter.references = edited(plates, self.options)
        edits = [plate for plate in self.filter(made) if not plate.reason]
        real = [sample(*plate) for plate in self.plates.learned]
        return [
            Arm("real", (real,)),
            Arm("edits with the real texts", ([sample(e.image, e.text, e.source) for e in edits],)),
        ]


def with_each_others_texts(learned: Sequence[tuple[np.ndarray, str, str]], seed: int):
    """Plates with the text of another one of their pattern as target; those that have no other are left out."""
    groups: dict[str, list[int]] = {}
    for i, (_, text, _) in enumerate(learned):
        groups.setdefault(pattern(positions_like(text)), []).append(i)
    rng, plates = np.random.default_rng([seed, Stream.EVALUATE_LPR, 5]), []
    for group in groups.values():
        order = rng.permutation(group)
        for i, other in zip(order, np.roll(order, 1)):
            (image, text, source), target = learned[i], learned[other][1]
            if target != text:
                plates.append(Plate(image, text, target=target, source=source))
    return plates


def edited(plates: list[Plate], options: Edit) -> tuple[list[Plate], References | None]:
    """Plates of one corpus edited as a run edits them, and how they draw their characters together."""
    editor, reader = Editor(options), load_network(options.reader, "reader", options)
    editor.references = editor.collected(plates, reader, threads(1, options.threads))
    return editor(plates), editor.references


def plates_of(path: Path) -> list[tuple[np.ndarray, str, str, str]]:
    """The plates of a corpus or run: image, text, source and split. Those that cannot be used are left out."""
    if is_run(path):
        return list(_rows_of(path))
    corpus = read_corpus(path)
    photos = usable_photos(corpus, corpus.labels)
    return [(read_plate(label)[0], label.text, photo.source, label.split) for label, photo in photos]


def _rows_of(run: Path) -> Iterator[tuple[np.ndarray, str, str, str]]:
    """The plates of a run, with the sources that they were made of, which labels do not have."""
    for file in sorted((run / "data").glob("*.parquet")):
        for row in parquet.read_table(file, columns=["image", "text", "source", "split"]).to_pylist():
            yield decode_picture(row["image"]["bytes"]), row["text"], row["source"], row["split"]


def learned_and_tested(plates: Sequence[tuple], split: str, seed: int) -> tuple[list[tuple], list[Sample]]:
    """Plates to learn from, and to test on: those of a split, else of val or test, else a share drawn by text."""
    splits = {plate[3] for plate in plates}
    chosen = {split} if split else {"val", "test"} & splits
    if not chosen:
        texts = sorted({canonical(plate[1]) for plate in plates})
        drawn = np.random.default_rng([seed, Stream.EVALUATE_LPR, 6]).random(len(texts)) < TESTED
        held = {text for text, out in zip(texts, drawn) if out}
    else:
        held = {canonical(plate[1]) for plate in plates if plate[3] in chosen}
    tested = [
        sample(*plate[:3]) for plate in plates if canonical(plate[1]) in held and (not chosen or plate[3] in chosen)
    ]
    return [plate[:3] for plate in plates if canonical(plate[1]) not in held], tested


def _without_tested(learned: list[tuple], tested: list[Sample], made: dict[str, list[tuple]]) -> Plates:
    texts, sources = {s.text for s in tested}, {s.source for s in tested} - {""}
    kept = {
        name: [sample(*p[:3]) for p in part if canonical(p[1]) not in texts and p[2] not in sources]
        for name, part in made.items()
    }
    left_out = sum(map(len, made.values())) - sum(map(len, kept.values()))
    return Plates(learned, tested, kept, left_out)


def evaluate_lpr(
    lpr: Lpr, fractions: Sequence[float], steps: int, seeds: int, count: int, own: bool, progress: TextIO | None = None
) -> dict:
    """The report: accuracies of all arms at all fractions, and of edits with the real texts where `own` is asked."""
    rendered = lpr.rendered(count)
    arms = {part: lpr.arms(part, rendered) for part in fractions}
    results = compare(arms, lpr.plates.tested, steps, seeds, progress)
    report = {
        "learned": len(lpr.plates.learned),
        "tested": len(lpr.plates.tested),
        "left_out": lpr.plates.left_out,
        "steps": steps,
        "seeds": seeds,
        "arms": [_figures(result, lpr.seed) for result in results],
        "rare": rare(results, Counter("".join(canonical(text) for _, text, _ in lpr.plates.learned))),
    }
    if own:
        own_results = compare({1.0: lpr.own_texts()}, lpr.plates.tested, steps, seeds, progress)
        real, edits = report["own_texts"] = [_figures(result, lpr.seed) for result in own_results]
        report["tstr"] = edits["plates"]["mean"] / max(real["plates"]["mean"], 1e-9)
    return report


def _figures(result: ArmResult, seed: int) -> dict:
    mean, low, high = interval(result.right, seed)
    right = sum(n for (_, hit), n in result.characters.items() if hit)
    return {
        "name": result.name,
        "fraction": result.fraction,
        "learned": result.learned,
        "plates": {"mean": mean, "low": low, "high": high},
        "characters": right / max(1, result.characters.total()),
    }


def rare(results: Sequence[ArmResult], seen: Counter) -> list[dict]:
    """Of the characters that are rarest among the real plates learned from: how often each arm reads them right."""
    tested = {c for result in results for c, _ in result.characters}
    rows = []
    for character in sorted(tested, key=lambda c: (seen[c], c))[:RARE]:
        right = {
            f"{r.name}, {r.fraction:g}": _share(r.characters[character, True], r.characters[character, False])
            for r in results
        }
        rows.append({"character": character, "learned": seen[character], "right": right})
    return rows


def _share(right: int, wrong: int) -> float:
    return right / max(1, right + wrong)


def lpr_as_text(report: dict) -> str:
    """A report for people."""
    lines = [
        f"learned from {report['learned']:,} real plates and what is made of them, {report['steps']:,} steps, "
        f"{report['seeds']} seeds; tested on {report['tested']:,} others; "
        f"{report['left_out']:,} made plates left out, since their text or source is tested",
        f"{'fraction':>8}  {'trained on':32}{'learned':>8}{'plates read, %':>24}{'characters, %':>15}",
        *map(_line, report["arms"]),
    ]
    if "own_texts" in report:
        lines += ["with the texts of the real plates:", *map(_line, report["own_texts"])]
        lines.append(f"TSTR (edits alone / real alone): {report['tstr']:.2f}")
    lines.append("rarest characters, % read right, by the arms in their order above:")
    for row in report["rare"]:
        shares = "".join(f"{100 * share:6.0f}" for share in row["right"].values())
        lines.append(f"  {row['character']} ({row['learned']} learned){shares}")
    return "\n".join(lines)


def _line(arm: dict) -> str:
    mean, low, high = (100 * arm["plates"][name] for name in ("mean", "low", "high"))
    figures = f"{mean:.1f} ({low:.1f}..{high:.1f})"
    return f"{arm['fraction']:8g}  {arm['name']:32}{arm['learned']:8,}{figures:>24}{100 * arm['characters']:15.1f}"


def plot(report: dict, path: Path) -> None:
    """Plate accuracy over the fraction of real plates, a line an arm, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(arm["name"] for arm in report["arms"]):
        arms = sorted((arm for arm in report["arms"] if arm["name"] == name), key=lambda arm: arm["fraction"])
        means = [100 * arm["plates"]["mean"] for arm in arms]
        sides = [[100 * abs(arm["plates"][side] - arm["plates"]["mean"]) for arm in arms] for side in ("low", "high")]
        axes.errorbar([arm["fraction"] for arm in arms], means, sides, marker="o", capsize=3, label=name)
    axes.set(xlabel="fraction of the real plates", ylabel="real plates read, %", ylim=(0, 100))
    axes.legend()
    figure.savefig(path, format="png", dpi=120)
