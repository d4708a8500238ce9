"""evaluate realism: how far edits are from photographs, on patches around strokes and on whole plates.

Three measures. A convolutional classifier trained from scratch, and a linear one on features of a recogniser that nobody
trained on our plates, tell edits from photographs: both learn from some sources, photographs and edits of each, and are
tested on others. An area under the ROC curve (AUC) of 0.5 is a coin's: it sees no difference. In the same features the
Frechet distance is measured (Heusel et al., NIPS 2017, there of Inception's features), between photographs of a half of
the sources and edits of the other half. Rendered plates and photographs compressed once more stand beside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import sqrtm
from torch import nn

from platemint.pipeline.evaluate.features import Features
from platemint.pipeline.evaluate.lpr import edited, plates_of, with_each_others_texts
from platemint.pipeline.grain import compressed
from platemint.pipeline.networks import resize
from platemint.pipeline.plate import Plate, PlatemintError, Stream
from platemint.pipeline.progress import Count
from platemint.pipeline.recipe import Edit
from platemint.pipeline.render import load_layouts, random_text, render_plate

PATCH = 24  # pixels of the photograph
PATCHES = 6  # of a plate
WHOLE = (48, 160)  # height and width of a whole plate
JPEG = 75  # quality of photographs compressed once more
BATCH, LR = 64, 2e-3
TESTED = 0.3  # of the sources
FEWEST = 10  # sources on either side
RESAMPLES = 500
DECAY = 0.01  # of the weights of a linear classifier on standardized features
HALVINGS = 20

Scores = Callable[[np.ndarray], np.ndarray]  # pictures or features (n, ...) -> float (n,), higher where they seem made
Fit = Callable[[np.ndarray, np.ndarray], Scores]  # of what is real, and of what is made


@dataclass(frozen=True)
class Pictures:
    """Pictures of one kind. values: uint8 (n, h, w, 3), or their features, float64 (n, d).

    source: int64 (n,), number of the photograph of each.
    """

    values: np.ndarray
    source: np.ndarray


def patches_of(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """PATCHES squares around strokes: uint8 (n, PATCH, PATCH, 3). mask: uint8 (h, w), where the strokes are.

    A picture smaller than a square is continued by its mirror image.
    """
    y, x = np.nonzero(mask > 127)
    if not len(y):
        return np.empty((0, PATCH, PATCH, 3), np.uint8)
    half, (height, width) = PATCH // 2, image.shape[:2]
    wider = cv2.copyMakeBorder(image, half, half, half, half, cv2.BORDER_REFLECT_101)
    chosen = rng.integers(len(y), size=PATCHES)
    centre = lambda at, size: np.clip(at, min(half, size // 2), max(size - half, size // 2))  # noqa: E731
    corners = zip(centre(y[chosen], height), centre(x[chosen], width))
    return np.stack([wider[top : top + PATCH, left : left + PATCH] for top, left in corners])


def cut_pictures(plates: Sequence[tuple[np.ndarray, np.ndarray, int]], seed: int) -> dict[str, Pictures]:
    """The patches, and the whole pictures, of plates: image, mask of its strokes, number of its source."""
    rng = np.random.default_rng([seed, Stream.EVALUATE_REALISM])
    some = [patches_of(image, mask, rng) for image, mask, _ in plates]
    numbers = np.array([number for *_, number in plates])
    whole = np.stack([resize(image, *WHOLE) for image, *_ in plates])
    return {
        "patches": Pictures(np.concatenate(some), np.repeat(numbers, [len(part) for part in some])),
        "plates": Pictures(whole, numbers),
    }


def classifier() -> nn.Module:
    """Pictures, float (B, 3, h, w) in 0..1, of any size -> logits (B,) of being made."""
    layers, inputs = [], 3
    for outputs, stride in ((16, 1), (32, 2), (32, 2), (32, 1)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1), nn.Flatten(0))


def train_classifier(real: np.ndarray, made: np.ndarray, steps: int, seed: int) -> Scores:
    """Logits of a classifier that has learned to tell these pictures apart, as many of each in a batch.

    Batches are mirrored at random.
    """
    torch.manual_seed(seed)
    rng, network = np.random.default_rng([seed, Stream.EVALUATE_REALISM, 1]), classifier()
    optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    said = torch.arange(BATCH).ge(BATCH // 2).float()
    for _ in range(steps):
        chosen = [images[rng.integers(len(images), size=BATCH // 2)] for images in (real, made)]
        images = as_input(np.concatenate(chosen))
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(network(images.flip(3) if rng.random() < 0.5 else images), said).backward()
        optimizer.step()
        schedule.step()
    network.eval()
    return lambda images: classifier_logits(network, images)


def as_input(images: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w) in 0..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def classifier_logits(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """What a classifier says of pictures, uint8 (n, h, w, 3): float32 (n,)."""
    return np.concatenate([network(as_input(images[i : i + 256])).numpy() for i in range(0, len(images), 256)])


def linear_classifier(real: np.ndarray, made: np.ndarray) -> Scores:
    """Logits of a logistic regression on features, float (n, d), standardized; both kinds weigh the same."""
    both = np.concatenate([real, made])
    mean, deviation = both.mean(0), both.std(0) + 1e-9
    said = torch.arange(len(both)).ge(len(real)).double()
    weights = torch.where(said > 0, 1 / len(made), 1 / len(real)) / 2
    standard, layer = torch.from_numpy((both - mean) / deviation), nn.Linear(both.shape[1], 1).double()
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        wrong = F.binary_cross_entropy_with_logits(layer(standard).flatten(), said, weights, reduction="sum")
        total = wrong + DECAY / 2 * layer.weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    slope, bias = layer.weight.detach().numpy()[0], layer.bias.item()
    return lambda features: (features - mean) / deviation @ slope + bias


def auc(real: np.ndarray, made: np.ndarray) -> float:
    """How often something made has the higher logit than something real; ties count half (Mann and Whitney, 1947)."""
    order = np.sort(real)
    below, upto = np.searchsorted(order, made), np.searchsorted(order, made, side="right")
    return float((below + upto).mean() / 2 / len(real))


def told_apart(real: Pictures, made: Pictures, fit: Fit, seed: int) -> dict[str, float]:
    """AUC on sources that were not learned from, with its 95 % interval by bootstrap over sources.

    Raises PlatemintError where there are too few sources.
    """
    rng = np.random.default_rng([seed, Stream.EVALUATE_REALISM, 2])
    sources = np.unique(np.concatenate([real.source, made.source]))
    tested = rng.permutation(sources)[: round(TESTED * len(sources))]
    if min(len(tested), len(sources) - len(tested)) < FEWEST:
        raise PlatemintError(f"{len(sources)} plates are too few to learn from and test on; give more of them")
    sides = [[_of(part, tested, held) for part in (real, made)] for held in (False, True)]
    score = fit(*(part.values for part in sides[0]))
    scores = [(score(part.values), part.source) for part in sides[1]]
    drawn = [auc(*_resampled(scores, tested, rng)) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"value": auc(*(score for score, _ in scores)), "low": float(low), "high": float(high)}


def _of(pictures: Pictures, tested: np.ndarray, held: bool) -> Pictures:
    chosen = np.isin(pictures.source, tested) == held
    return Pictures(pictures.values[chosen], pictures.source[chosen])


def _resampled(scores, tested: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Logits of both kinds of sources drawn with replacement."""
    times = np.bincount(np.searchsorted(np.sort(tested), rng.choice(tested, len(tested))), minlength=len(tested))
    return [np.repeat(score, times[np.searchsorted(np.sort(tested), source)]) for score, source in scores]


def frechet(real: np.ndarray, made: np.ndarray) -> float:
    """The Frechet distance of the normal distributions that fit two sets of features, float (n, d) and (m, d)."""
    between = real.mean(0) - made.mean(0)
    real, made = np.cov(real, rowvar=False), np.cov(made, rowvar=False)
    return float(between @ between + np.trace(real + made - 2 * sqrtm(real @ made).real))


def frechet_of_halves(real: Pictures, made: Pictures, seed: int) -> dict[str, float]:
    """The Frechet distance of a half of the sources to the other half, over the variance of what is real.

    Of HALVINGS draws the mean, and the range of 95 %. A small set's distance is too large. As halves are alike in size, it
    is so by about as much for every kind, and what photographs have to photographs is what is to be expected of none.
    """
    rng = np.random.default_rng([seed, Stream.EVALUATE_REALISM, 5])
    sources, drawn = np.unique(np.concatenate([real.source, made.source])), []
    for _ in range(HALVINGS):
        half = rng.permutation(sources)[: len(sources) // 2]
        drawn.append(frechet(_of(real, half, True).values, _of(made, half, False).values))
    drawn = np.divide(drawn, real.values.var(0).sum())
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"value": float(drawn.mean()), "low": float(low), "high": float(high)}


# ------------------------------------------------------------------------------------------------------- the measure


def edits_with_texts_of_others(source: Path, options: Edit, split: str, count: int, seed: int) -> list[Plate]:
    """Edits of a corpus's plates, each with the text of another one of its pattern, so that texts do not tell."""
    found = [plate[:3] for plate in plates_of(source) if split in ("", plate[3])]
    order = np.random.default_rng([seed, Stream.EVALUATE_REALISM, 3]).permutation(len(found))
    return edited(with_each_others_texts([found[i] for i in order[:count]], seed), options)[0]


def compared_kinds(edits: Sequence[Plate], seed: int) -> dict[str, list[tuple[np.ndarray, np.ndarray, int]]]:
    """What is told apart from photographs, which stand first: image, mask of its strokes, number of its source."""
    drawn = _rendered(len(edits), seed)
    return {
        "photographs": [(e.original, e.source_mask, i) for i, e in enumerate(edits)],
        "edits": [(e.image, e.target_mask, i) for i, e in enumerate(edits)],
        "rendered": [(plate.image, plate.source_mask, i) for i, plate in enumerate(drawn)],
        "recompressed": [(compressed(e.original, JPEG), e.source_mask, i) for i, e in enumerate(edits)],
    }


def _rendered(count: int, seed: int) -> list[Plate]:
    rng, layouts = np.random.default_rng([seed, Stream.EVALUATE_REALISM, 4]), list(load_layouts().values())
    chosen = (layouts[int(i)] for i in rng.integers(len(layouts), size=count))
    return [render_plate(some, random_text(some.positions, rng), rng) for some in chosen]


def evaluate_realism(
    edits: Sequence[Plate], steps: int, seed: int, features: Features | None, progress: TextIO | None = None
) -> dict:
    """The report: {measure: {kind: {part: figure}}}, each kind against photographs; two measures are of features."""
    kinds = {name: cut_pictures(some, seed) for name, some in compared_kinds(edits, seed).items()}
    fit = partial(train_classifier, steps=steps, seed=seed)
    measures = {"classifier": (kinds, partial(told_apart, fit=fit, seed=seed))}
    if features:
        seen = _seen(kinds, features, progress)
        measures["linear"] = seen, partial(told_apart, fit=linear_classifier, seed=seed)
        measures["frechet"] = seen, partial(frechet_of_halves, seed=seed)
    reporter, figures = Count(len(measures) * len(kinds), progress, "comparisons"), {}
    for measure, (of, compare) in measures.items():
        figures[measure] = {}
        for name, parts in of.items():
            if name != "photographs" or measure == "frechet":  # equal pictures are told apart by nothing
                figures[measure][name] = {part: compare(of["photographs"][part], parts[part]) for part in parts}
            reporter.add(1, 0)
    reporter.close()
    return {"plates": len(edits), "steps": steps, "seed": seed, "measures": figures}


def _seen(kinds: dict[str, dict[str, Pictures]], features: Features, progress: TextIO | None) -> dict:
    reporter, seen = Count(len(kinds), progress, "kinds of pictures seen by the recogniser"), {}
    for name, parts in kinds.items():
        seen[name] = {part: Pictures(features(some.values), some.source) for part, some in parts.items()}
        reporter.add(1, 0)
    reporter.close()
    return seen


HEADS = {
    "classifier": "Told from photographs by a classifier trained from scratch: area under the ROC curve, 0.5 is chance",
    "linear": "The same by a linear classifier on features of PP-OCRv4, which was not trained on these plates",
    "frechet": "Frechet distance to photographs of other plates in the same features, over their variance",
}


def realism_as_text(report: dict) -> str:
    """A report for people."""
    lines = [f"{report['plates']:,} plates; in brackets the range of 95 %"]
    for measure, kinds in report["measures"].items():
        lines += ["", HEADS[measure], f"{'':14}{'patches':>20}{'whole plates':>20}"]
        for name, parts in kinds.items():
            lines.append(f"{name:14}" + "".join(f"{_figure(part):>20}" for part in parts.values()))
    return "\n".join(lines)


def _figure(part: dict[str, float]) -> str:
    return f"{part['value']:.2f} ({part['low']:.2f}..{part['high']:.2f})"
