"""evaluate: how good edits are, on rendered pairs whose true target is known and on real plates, which have none.

Every figure stands beside that of a "copy": the edit replaced by its unedited source. What a copy reaches is no merit.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
import torch
from torch import Tensor

from platemint.models.reader import greedy_decode
from platemint.models.spg import region
from platemint.pipeline import storage
from platemint.pipeline.corpora import Corpus, read_corpus
from platemint.pipeline.corpora.datasets import AUTO
from platemint.pipeline.corpora.kinds import kinds_of, plated
from platemint.pipeline.draw import draw_targets
from platemint.pipeline.edit import QUALITY, Editor, contact_sheet
from platemint.pipeline.evaluate.metrics import (
    colour_difference,
    distance,
    edited_region,
    ink_colour,
    likeness,
    mask_overlap,
    outside_change,
    stroke_width,
    unit_mask,
)
from platemint.pipeline.filter import likelihood
from platemint.pipeline.networks import autocast, batched, choose_device, load_network, network_input
from platemint.pipeline.plate import Plate, Readings, Stream, same_reading, spell_like, within_one
from platemint.pipeline.progress import Count
from platemint.pipeline.recipe import Edit, GenerateRecipe, Source
from platemint.pipeline.render import Layout, Photo, load_layouts, photograph, random_text
from platemint.pipeline.render.layout import FOLDER as LAYOUTS
from platemint.pipeline.stages import Stages
from platemint.pipeline.text_frame import cut_out
from platemint.pipeline.write import rows_as_csv

HEIGHTS = (24, 400)  # pixels, of rendered pairs
CLASSES = (24, 48, 96, 192)  # least height of each class of sizes that pairs are grouped by
OTHERS = 10, 300  # plates of the same kinds that pairs take their references from: for each pair, and at most
SHOWN = 40  # plates on a sheet of the worst
THUMBNAIL = (192, 64)  # width and height there, as `contact_sheet` has them

# ------------------------------------------------------------------------------------------------ what is printed


@dataclass(frozen=True)
class Figure:
    """A figure in the table. badness: how bad a value is, for the sheets of the worst; None: there is no sheet."""

    title: str
    places: int
    badness: Callable[[float], float] | None = None
    largest: bool = False  # over the plates, instead of the mean


@dataclass(frozen=True)
class Section:
    """Figures of one kind of source. by_group: (figure, column) of the short table by group. prefix: of sheets."""

    title: str
    columns: tuple[str, ...]
    figures: dict[str, Figure]
    by_group: tuple[tuple[str, str], ...]
    prefix: str = ""


def _low(value: float) -> float:
    return -value


def _high(value: float) -> float:
    return value


SECTIONS = {
    "pairs": Section(
        "rendered pairs, layouts and fonts not in training",
        ("edit", "copy", "truth"),
        {
            "mse": Figure("MSE, 0..1", 5),
            "psnr": Figure("PSNR, dB", 2, _low),
            "ssim": Figure("SSIM as MOSTEL reports it", 4, _low),
            "ms_ssim": Figure("MS-SSIM", 4, _low),
            "distance": Figure("distance in the reader's features", 4, _high),
            "region_mse": Figure("MSE inside the edited region", 5),
            "region_psnr": Figure("PSNR inside the edited region, dB", 2, _low),
            "iou_source": Figure("IoU of B_s", 4, _low),
            "iou_target": Figure("IoU of B_t", 4, _low),
            "likelihood": Figure("likelihood of the target text", 4, _low),
            "read": Figure("read as the target text", 4),
        },
        (
            ("read", "edit"),
            ("read", "truth"),
            ("region_psnr", "edit"),
            ("region_psnr", "copy"),
            ("distance", "edit"),
            ("iou_target", "edit"),
        ),
    ),
    "corpus": Section(
        "real plates",
        ("edit", "copy", "untouched"),  # untouched: by the text it has
        {
            "read": Figure("read as the text it shall have", 4),
            "likelihood": Figure("likelihood of that text", 4, _low),
            "leak": Figure("read as the source's text or one off", 4),
            "outside_mean": Figure("change outside the region, 0..255", 4),
            "outside_max": Figure("largest change there", 0, largest=True),
            "area": Figure("share of the picture in the region", 4),
            "ink": Figure("ink's colour difference, delta E 76", 2, _high),
            "stroke": Figure("stroke width, target / source", 4, lambda ratio: abs(np.log(max(ratio, 1e-6)))),
        },
        (("read", "edit"), ("read", "untouched"), ("leak", "edit"), ("ink", "edit"), ("stroke", "edit")),
        "corpus-",
    ),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One edit and what was measured on it.

    figures: {figure: {column: value}}, nan where it has none. groups: what it is counted under. facts: for edits.json.
    """

    plate: Plate | None
    figures: dict[str, dict[str, float]]
    groups: tuple[str, ...]
    facts: dict


def summary(measured: Sequence[Measured], section: Section) -> dict:
    """{"count", "figures": {figure: {column: mean}}}; None where no plate has a value."""
    figures = {}
    for name, figure in section.figures.items():
        columns = [c for c in section.columns if c in measured[0].figures[name]]
        figures[name] = {c: _combined([j.figures[name][c] for j in measured], figure) for c in columns}
    return {"count": len(measured), "figures": figures}


def _combined(values: list[float], figure: Figure) -> float | None:
    there = [value for value in values if value == value]
    if not there:
        return None
    return float(max(there) if figure.largest else np.mean(there))


def summarise(measured: Sequence[Measured], section: Section) -> dict:
    """`summary` of all, and under "groups" of every group, in the order of their names."""
    names = sorted({name for j in measured for name in j.groups})
    groups = {name: summary([j for j in measured if name in j.groups], section) for name in names}
    return summary(measured, section) | {"groups": groups}


def edits_as_text(report: dict) -> str:
    """A report of `evaluate_edits` for people: one table per section, then its groups."""
    lines = [f"{report['checkpoint']} measured by {report['reader']}, seed {report['seed']}, {report['device']}"]
    for kind, section in SECTIONS.items():
        if kind in report:
            lines += ["", *_block(report[kind], section), "", *_groups(report[kind]["groups"], section)]
    return "\n".join(lines)


def _block(part: dict, section: Section) -> list[str]:
    aside = [f"set aside: {reason}: {count:,}" for reason, count in part.get("set_aside", {}).items()]
    heading = f"{part['count']:,} {section.title}{part.get('of', '')}"
    lines = [heading, *aside, " " * 38 + "".join(f"{column:>11}" for column in section.columns)]
    for name, figure in section.figures.items():
        values = part["figures"][name]
        cells = (_cell(values[c], figure) if c in values else "" for c in section.columns)
        lines.append(f"{figure.title:38}{''.join(f'{cell:>11}' for cell in cells)}".rstrip())
    return lines


def _groups(groups: dict[str, dict], section: Section) -> list[str]:
    wide = max(map(len, groups))
    titles = [f"{figure} {column}" for figure, column in section.by_group]
    lines = [f"{'':{wide}}  plates  " + "  ".join(titles)]
    for name, part in groups.items():
        values = (_cell(part["figures"][f][c], section.figures[f]) for f, c in section.by_group)
        cells = "  ".join(f"{value:>{len(title)}}" for value, title in zip(values, titles))
        lines.append(f"{name:{wide}}  {part['count']:6,}  {cells}")
    return lines


def _cell(value: float | None, figure: Figure) -> str:
    return "-" if value is None else f"{value:.{figure.places}f}"


# ------------------------------------------------------------------------------------------------- rendered pairs


def held_out_layouts() -> list[Layout]:
    """The layouts that `load_layouts` does not know by name and training never sees, in fonts it never sees."""
    return list(load_layouts([str(path) for path in sorted((LAYOUTS / "held-out").glob("*.yaml"))]).values())


def rendered_pair(layouts: Sequence[Layout], seed: int, number: int) -> tuple[Photo, Photo]:
    """Pair `number`, a function of layouts, seed and number alone: source and true target, different in text only.

    Layouts take turns. Texts have equal length and read differently; three pairs in ten spell separators out. Heights
    are log-uniform over HEIGHTS, severities uniform over 0.2..1. Layouts are not loosened as in training.
    """
    rng = np.random.default_rng([seed, Stream.EVALUATE_EDITS, number])
    layout = layouts[number % len(layouts)]
    texts = [random_text(layout.positions, rng) for _ in range(2)]
    while same_reading(*texts):
        texts[1] = random_text(layout.positions, rng)
    if rng.random() < 0.3:
        texts = [spell_like(text, layout.pattern) for text in texts]
    height = int(np.exp(rng.uniform(*np.log(HEIGHTS))))
    source, target = photograph(layout, texts, height, rng.uniform(0.2, 1.0), rng)
    return source, target


class FeatureReader:
    """Our reader: features and log-probabilities of pictures."""

    def __init__(self, options: Edit):
        self.device, self.dtype = choose_device(options)
        self.reader = load_network(options.reader, "reader", options)
        self.alphabet = self.reader.config.alphabet

    @torch.inference_mode()
    def __call__(self, pictures: list[np.ndarray]) -> tuple[list[Tensor], Tensor]:
        """Features, levels of (B, C, h, w), and log-probabilities (B, T, 1 + alphabet) on the CPU.

        pictures: uint8 (h, w, 3) RGB of any size.
        """
        config = self.reader.config
        with autocast(self.device, self.dtype):
            features = self.reader.features(network_input(pictures, config.height, config.width, self.device))
            return features, self.reader.read_features(features).cpu()


def measure_pairs(pairs: list[tuple[Photo, Photo]], edit: Callable, reader: FeatureReader) -> list[Measured]:
    """Edits every pair's source to its target's text, and compares with the target."""
    edited = edit([Plate(s.image, s.text, s.layout, target=t.text) for s, t in pairs])
    truths, texts = [t.image for _, t in pairs], [t.text for _, t in pairs]
    true_features, _ = seen_truth = reader(truths)
    seen = {"edit": reader([p.image for p in edited]), "copy": reader([s.image for s, _ in pairs]), "truth": seen_truth}
    apart = {column: distance(seen[column][0], true_features) for column in ("edit", "copy")}
    readings = {column: greedy_decode(read, reader.alphabet) for column, (_, read) in seen.items()}
    likely = {column: likelihood(read, texts, reader.alphabet) for column, (_, read) in seen.items()}
    return [
        Measured(
            plate,
            _pair_figures(plate, source, target)
            | {
                "distance": {column: apart[column][i] for column in apart},
                "likelihood": {column: likely[column][i] for column in likely},
                "read": {column: float(same_reading(readings[column][i], target.text)) for column in readings},
            },
            (source.layout, _size_class(source.image.shape[0])),
            {
                "layout": source.layout,
                "height": source.image.shape[0],
                "source": source.text,
                "target": target.text,
                "reading": readings["edit"][i],
            },
        )
        for i, (plate, (source, target)) in enumerate(zip(edited, pairs))
    ]


def _pair_figures(plate: Plate, source: Photo, target: Photo) -> dict[str, dict[str, float]]:
    """The figures of one pair that need no reader."""
    edited = edited_region(source.mask, target.mask)
    edit, copy = (likeness(picture, target.image, edited) for picture in (plate.image, source.image))
    return {name: {"edit": edit[name], "copy": copy[name]} for name in edit} | {
        "iou_source": {"edit": mask_overlap(plate.source_mask, source.mask)},
        "iou_target": {
            "edit": mask_overlap(plate.target_mask, target.mask),
            "copy": mask_overlap(source.mask, target.mask),
        },
    }


def _size_class(height: int) -> str:
    low = max(least for least in CLASSES if least <= height)
    high = min([least - 1 for least in CLASSES if least > height], default=HEIGHTS[1])
    return f"{low:3} to {high:3} px high"


# ----------------------------------------------------------------------------------------------------- real plates


def measure_plates(
    plates: list[Plate], groups: list[tuple[str, ...]], edit: Callable, reader: FeatureReader
) -> list[Measured]:
    """Edits plates to their targets and judges the edits beside the untouched pictures."""
    edited = edit(plates)
    seen = {name: reader(looked)[1] for name, looked in _looked_at(edited, reader).items()}
    seen["untouched"] = seen["copy"]
    wanted = {"edit": [p.target for p in plates], "copy": [p.target for p in plates]}
    wanted["untouched"] = [p.text for p in plates]
    readings = {column: greedy_decode(read, reader.alphabet) for column, read in seen.items()}
    likely = {column: likelihood(seen[column], wanted[column], reader.alphabet) for column in seen}
    return [
        Measured(
            plate,
            _plate_figures(plate)
            | {
                "read": {c: float(same_reading(readings[c][i], wanted[c][i])) for c in seen},
                "likelihood": {c: likely[c][i] for c in seen},
                "leak": {c: float(_leaks(readings[c][i], plate)) for c in ("edit", "copy")},
            },
            groups[i],
            {"source": plate.source, "target": plate.text, "reading": readings["edit"][i]},
        )
        for i, plate in enumerate(edited)
    ]


def _looked_at(edited: list[Plate], reader: FeatureReader) -> dict[str, list[np.ndarray]]:
    """Edits and their sources, of each the frame that its text stands in."""
    size = reader.reader.config.height, reader.reader.config.width
    edits, sources = ([cut_out(getattr(p, name), p.frame, *size) for p in edited] for name in ("image", "original"))
    return {"edit": edits, "copy": sources}


def _leaks(reading: str, plate: Plate) -> bool:
    """Whether a reading gives the source's text away; a target may itself lie one character off it, by chance."""
    return within_one(reading, plate.original_text) and not same_reading(reading, plate.text)


def _plate_figures(plate: Plate) -> dict[str, dict[str, float]]:
    """The figures of an edited plate that need no reader. The copy's ink is what lies under the target's mask."""
    mean, most = outside_change(plate)
    was = ink_colour(plate.original, plate.source_mask)
    ink = {"edit": plate.image, "copy": plate.original}
    widths = [stroke_width(mask) for mask in (plate.target_mask, plate.source_mask)]
    return {
        "outside_mean": {"edit": mean, "copy": 0.0},
        "outside_max": {"edit": most, "copy": 0.0},
        "area": {
            "edit": float((region(unit_mask(plate.source_mask), unit_mask(plate.target_mask)) > 0).float().mean())
        },
        "ink": {c: colour_difference(ink_colour(ink[c], plate.target_mask), was) for c in ink},
        "stroke": {"edit": widths[0] / widths[1]},
    }


def split_to_measure(corpus: Corpus, split: str | None) -> str:
    """The split asked for; where none is, val if the corpus has one, else "", which is all."""
    return split if split is not None else "val" if any(label.split == "val" for label in corpus.labels) else ""


# ------------------------------------------------------------------------------------------------------ the whole


class Edits:
    """What `evaluate edits` measures: networks, rendered pairs and, where a corpus is given, real plates.

    count: of pairs; and of plates, each photograph taken once at most. split: of the corpus, None for val or else all.
    format: of the corpus.
    Raises PlatemintError for a network, a corpus or a split that is not there, and where texts do not suffice.
    """

    def __init__(
        self,
        options: Edit,
        source: Path | None = None,
        split: str | None = None,
        count: int = 200,
        seed: int = 0,
        format: str = AUTO,
    ):
        self.count, self.layouts, self.plates = count, held_out_layouts(), 0
        wanted = Source()
        if source:
            split = split_to_measure(read_corpus(source, format=format), split)
            wanted = Source(path=str(source), format=format, split=split)
        self.stages = Stages(GenerateRecipe(seed=seed, edit=options, source=wanted))
        _ = self.stages.checkpoints
        self.reader, self.editor = FeatureReader(options), Editor(options)
        if source:
            self._draw(source)

    def _others(self) -> Iterator[Plate]:
        """Further plates of the rendered pairs' kinds, as the corpus would show them that the pairs' sources were of."""
        for number in range(self.count, self.count + min(OTHERS[0] * self.count, OTHERS[1])):
            photo, _ = rendered_pair(self.layouts, self.stages.recipe.seed, number)
            yield Plate(photo.image, photo.text, source=str(number))

    def _draw(self, source: Path) -> None:
        """Chooses photographs and targets as a run does."""
        recipe, sources = self.stages.recipe, self.stages.sources
        self.plates = min(self.count, sum(group.sources for group in sources.groups))
        forbidden = Readings(sources.texts)
        self.targets = draw_targets(sources.groups, self.plates, recipe.seed, forbidden, recipe.draw.reserved)
        kinds = kinds_of(source)
        self.kinds = {
            photo.source: kinds.get(plated(photo.label), "")
            for group_photos in sources.photos
            for photo in group_photos
        }

    def pairs(self) -> Iterator[list[Measured]]:
        """The rendered pairs, measured, in batches."""
        recipe = self.stages.recipe
        self.editor.references = self.editor.collected(self._others(), self.reader.reader)
        for numbers in batched(range(self.count), recipe.edit.batch):
            pairs = [rendered_pair(self.layouts, recipe.seed, number) for number in numbers]
            yield measure_pairs(pairs, self.editor, self.reader)

    def corpus(self) -> Iterator[list[Measured]]:
        """The real plates, measured, in batches; none without a corpus."""
        sources = self.stages.sources
        for places in batched(range(self.plates), self.stages.recipe.edit.batch):
            plates, names = [], []
            for place in places:
                group = int(self.targets.group[place])
                plate = sources.get(group, sources.turn(group, int(self.targets.group_index[place]), 0))
                plates.append(replace(plate, target=str(self.targets.text[place]), index=place))
                names.append((self.kinds[plate.source] or sources.groups[group].name,))
            yield measure_plates(plates, names, self.stages.edit, self.reader)


def evaluate_edits(edits: Edits, progress: TextIO | None = None, out: Path | None = None) -> dict:
    """Measures everything; returns what `edits_as_text` prints, and writes it to out with the worst of each score.

    out: folder for edits.json (all figures, with those of each plate), worst-SCORE.png (rows of source, B_s, B_t and
    edit, the worst first) and, with a corpus, set_aside.csv. The sheets show the corpus's plates. progress: a stream.
    """
    if out:
        out.mkdir(parents=True, exist_ok=True)  # before the work, since it may fail
    recipe, reporter, sheets = edits.stages.recipe, Count(edits.count + edits.plates, progress, "plates measured"), {}
    report = {
        "checkpoint": recipe.edit.checkpoint,
        "reader": recipe.edit.reader,
        "sha256": edits.stages.checkpoints,
        "device": edits.stages.device,
        "seed": recipe.seed,
    }
    rows = {}
    for kind, batches in {"pairs": edits.pairs, "corpus": edits.corpus}.items():
        measured = list(_watched(batches(), reporter, Worst(SECTIONS[kind], sheets) if out else None))
        if measured:
            report[kind] = summarise(measured, SECTIONS[kind])
            rows[kind] = [j.facts | {"figures": _without_nan(j.figures)} for j in measured]
    if edits.plates:
        aside = edits.stages.sources.set_aside
        report["corpus"]["set_aside"] = dict(Counter(item["reason"] for item in aside).most_common())
        split = recipe.source.split
        report["corpus"]["of"] = f" of {recipe.source.path}" + (f", split {split}" if split else "")
        rows["set_aside"] = aside
    reporter.close()
    if out:
        _store(out, report, rows, sheets)
    return report


def _watched(batches: Iterable[list[Measured]], reporter: Count, worst: Worst | None) -> Iterator[Measured]:
    """Each measured plate, without its pictures once the sheets have seen them: thousands would not fit in memory."""
    number = 0
    for batch in batches:
        for measured in batch:
            if worst:
                worst.see(measured, number)
            number += 1
            yield replace(measured, plate=None)
        reporter.add(len(batch), 0)


class Worst:
    """Keeps the worst plates of each score of a section in sheets, {sheet: [(badness, number, small plate)]}."""

    def __init__(self, section: Section, sheets: dict[str, list[tuple[float, int, Plate]]]):
        self.section, self.sheets = section, sheets

    def see(self, measured: Measured, number: int) -> None:
        layers = ("image", "original", "source_mask", "target_mask")
        small = replace(measured.plate, **{k: cv2.resize(getattr(measured.plate, k), THUMBNAIL) for k in layers})
        for name, figure in self.section.figures.items():
            value = measured.figures[name]["edit"]
            if figure.badness and value == value:
                sheet = self.sheets.setdefault(self.section.prefix + name, [])
                sheet.append((figure.badness(value), number, small))
                sheet.sort(key=lambda entry: (-entry[0], entry[1]))
                del sheet[SHOWN:]


def _without_nan(figures: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    return {n: {c: value if value == value else None for c, value in columns.items()} for n, columns in figures.items()}


def _store(out: Path, report: dict, rows: dict[str, list[dict]], sheets: dict) -> None:
    aside = rows.pop("set_aside", None)
    data = {k: part | {"rows": rows[k]} if k in rows else part for k, part in report.items()}
    for name, sheet in sheets.items():
        picture = contact_sheet([plate for _, _, plate in sheet])
        storage.write(out / f"worst-{name}.png", storage.encode(picture, "png", QUALITY))
    if aside is not None:
        storage.write(out / "set_aside.csv", rows_as_csv(aside, ("path", "row", "reason")))
    storage.write(out / "edits.json", json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
