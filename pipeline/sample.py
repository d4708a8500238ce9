"""Where plates come from: a corpus of labelled plates, or the renderer."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from platemint.pipeline import storage
from platemint.pipeline.balance.grammar import letters_in_use, of_layout, positions_like, read_grammar
from platemint.pipeline.balance.rounding import spread_evenly
from platemint.pipeline.corpora import Corpus, Label, read_corpus
from platemint.pipeline.corpora.labels import standard_split
from platemint.pipeline.corpora.pixels import read_plate, read_plates
from platemint.pipeline.object_store import ObjectPath
from platemint.pipeline.plate import Failure, Group, Plate, PlatemintError, Stream, characters, normalise, pattern
from platemint.pipeline.recipe import GenerateRecipe, nearest
from platemint.pipeline.storage import sha256

REASONS = 3  # that a message names
FEW = 8  # photographs: among as many one will take a text that others do not


@dataclass(frozen=True, slots=True)
class SourcePhoto:
    """One usable photograph of a plate.

    source: the first 16 hex digits of a sha256, of its picture's bytes and, where it is cut out, its place there.
    style: see `style_of`.
    """

    label: Label
    source: str
    style: tuple[float, float, float]

    @property
    def path(self) -> Path:
        return self.label.path

    @property
    def text(self) -> str:
        return self.label.text


@dataclass(frozen=True)
class CorpusSources:
    """Photographs of a corpus. photos: of each group, in the order of their use: any stretch shows all kinds of them,
    light and dark, small and large, level and tilted. fingerprint: changes with the corpus.

    texts: every text of the corpus, which no target may equal. set_aside: {"path", "row", "reason"} of unused pictures.
    read_as: the corpus's format and how it was known.
    """

    groups: tuple[Group, ...]
    photos: tuple[tuple[SourcePhoto, ...], ...]
    texts: frozenset[str]
    set_aside: list[dict[str, str]]
    fingerprint: str
    read_as: str = ""

    def write(self, path: Path | ObjectPath) -> None:
        """Writes what worker processes need of it to a file: groups and photographs."""
        storage.write(path, json.dumps(self.stored(), default=str))

    def stored(self) -> dict:
        """What worker processes need of it, for JSON."""
        photos = [[(astuple(photo.label), photo.source, photo.style) for photo in group] for group in self.photos]
        return {"groups": [astuple(group) for group in self.groups], "photos": photos}

    @classmethod
    def read(cls, path: Path | ObjectPath) -> CorpusSources:
        """Groups and photographs that `write` has written; nothing else is known."""
        return cls.of_stored(storage.read_json(path))

    @classmethod
    def of_stored(cls, stored: dict) -> CorpusSources:
        """Groups and photographs of `stored`."""
        groups = tuple(Group(*_as_tuples(group)) for group in stored["groups"])
        photos = (tuple(_stored_photo(*_as_tuples(photo)) for photo in photos) for photos in stored["photos"])
        return cls(groups, tuple(photos), frozenset(), [], "")

    def apart_from(self, others: list[CorpusSources]) -> CorpusSources:
        """The sources without pictures of other corpora, and without texts that stand there in another split.

        These are set aside; groups of which nothing is left are left out.
        """
        seen = {photo.source: photo.label.name for other in others for group in other.photos for photo in group}
        home = {p.text: g.split for other in others for g, group in zip(other.groups, other.photos) for p in group}
        groups, photos, aside = [], [], [*self.set_aside]
        for group, some in zip(self.groups, self.photos):
            kept = tuple(p for p in some if p.source not in seen and home.get(p.text, group.split) == group.split)
            for photo in {*some} - {*kept} if not group.longer else ():
                same = seen.get(photo.source)
                why = f"the same picture as {same}" if same else f"its text is also in the split {home[photo.text]}"
                aside.append({"path": photo.label.name, "row": photo.label.row, "reason": f"{why} of another corpus"})
            if kept:
                weight = group.weight * len(kept) / len(some)
                groups.append(replace(group, sources=len(kept), weight=weight))
                photos.append(kept)
        return replace(self, groups=tuple(groups), photos=tuple(photos), set_aside=aside)

    def turn(self, group: int, index: int, round: int) -> int:
        """Which photograph is for a group's index-th target at its round-th attempt.

        Targets take photographs in turn, so that all are used alike, and an attempt takes one far from the last.
        """
        n = len(self.photos[group])
        return (index + round * _stride(n)) % n

    def get(self, group: int, turn: int) -> Plate:
        """A group's photograph by its number. Raises Failure if the file is no longer what it was."""
        photo = self.photos[group][turn]
        try:
            image, source = read_plate(photo.label)
        except ValueError as fault:
            raise Failure(f"{photo.label.place}: was usable when the run began, now: {fault}") from None
        if source != photo.source:
            raise Failure(f"{photo.label.place}: is not the picture it was when the run began; choose another --out")
        belongs = self.groups[group]
        return Plate(image=image, text=photo.text, layout=belongs.layout, source=source, split=belongs.split)

    def some(self, most: int) -> Iterator[Plate]:
        """Photographs of all groups, at most so many: each group's first ones, which show all kinds of its own."""
        turns = sorted((turn, group) for group, photos in enumerate(self.photos) for turn in range(len(photos)))
        return (self.get(group, turn) for turn, group in turns[:most])


def _stored_photo(label: tuple, source: str, style: tuple[float, float, float]) -> SourcePhoto:
    path, *rest = label
    return SourcePhoto(Label(Path(path), *rest), source, style)


def _as_tuples(stored):
    """What JSON has made lists of."""
    return tuple(map(_as_tuples, stored)) if isinstance(stored, list) else stored


class RenderedSources:
    """Plates drawn from layouts, as many as are wanted; the same interface as CorpusSources.

    first: number of its first group among all that a mix renders, so that no two draw the same.
    """

    def __init__(self, recipe: GenerateRecipe, first: int = 0):
        from platemint.pipeline.lengths import rendered_lengths
        from platemint.pipeline.networks import editable_alphabet
        from platemint.pipeline.render import load_layouts
        from platemint.pipeline.render.layout import spelled_with

        self.seed, self.first = recipe.seed, first
        self.layouts, notes = spelled_with(editable_alphabet(recipe.edit), load_layouts(recipe.source.layouts))
        shares = {"train": 1 - recipe.source.val_share, "val": recipe.source.val_share}
        self.groups = tuple(
            Group(layout.name, split, layout.positions, share / len(self.layouts), 0, _blocked(recipe, layout))
            for split, share in shares.items()
            if share
            for layout in self.layouts.values()
        )
        if recipe.draw.lengths:
            self.groups = rendered_lengths(self.groups, self.layouts, recipe)
        self.texts: frozenset[str] = frozenset()
        self.read_as = ""
        self.set_aside = [{"path": "", "row": "", "reason": note} for note in notes]
        self.fingerprint = sha256("\n".join(repr(layout) for layout in self.layouts.values()).encode())

    def turn(self, group: int, index: int, round: int) -> tuple[int, int]:
        """Every attempt at a target has a plate of its own."""
        return index, round

    def get(self, group: int, turn: tuple[int, int]) -> Plate:
        """A plate with a random text of the group's grammar: the same for the same numbers."""
        from platemint.pipeline.render import random_text, render_plate

        belongs = self.groups[group]
        rng, layout = np.random.default_rng([self.seed, Stream.SAMPLE, self.first + group, *turn]), belongs.layout
        plate = render_plate(self.layouts[layout], random_text(self.layouts[layout].positions, rng), rng)
        plate.source, plate.split = sha256(plate.image.tobytes())[:16], belongs.split
        return plate


def open_sources(recipe: GenerateRecipe, first: int = 0) -> CorpusSources | RenderedSources:
    """The source a recipe asks for; every picture of a corpus is decoded once, so that a run meets no surprise.

    Raises PlatemintError for an unknown layout or split and for a corpus without any usable plate.
    """
    return _open_corpus(recipe) if recipe.source.path else RenderedSources(recipe, first)


def _open_corpus(recipe: GenerateRecipe) -> CorpusSources:
    from platemint.pipeline.networks import editable_alphabet
    from platemint.pipeline.render import load_layouts

    source, alphabet = recipe.source, editable_alphabet(recipe.edit)
    corpus = read_corpus(source.path, source.unreadable, source.format, source.classes)
    corpus.spell_with(alphabet)
    texts, found = corpus.texts, len(corpus.labels) + len(corpus.set_aside)
    layout = next(iter(load_layouts([recipe.source.layout]).values())) if recipe.source.layout else None
    rules = of_layout(layout) if layout else read_grammar(recipe.source.grammar) if recipe.source.grammar else None
    positions_of = rules.positions_of if rules else partial(positions_like, letters=letters_in_use(texts))
    members: dict[tuple[str, tuple[str, ...]], list[SourcePhoto]] = {}
    photos = usable_photos(corpus, _of_split(split_apart(corpus.labels, corpus.labels, corpus), recipe))
    unusable = [*corpus.set_aside]
    for label, photo in photos:
        positions = tuple("".join(c for c in a if c in alphabet) for a in positions_of(label.text))
        if positions:
            members.setdefault((label.split, positions), []).append(photo)
        else:
            wanted = f"layout {layout.name}, {pattern(layout.positions)}" if layout else f"grammar {rules.name}"
            corpus.put_aside(label.name, label.row, f"the label does not fit the {wanted}")
    if not members:
        first = corpus.set_aside[0] if corpus.set_aside else {"path": "", "reason": "no labels"}
        raise PlatemintError(
            f"{recipe.source.path}: source.path: not one usable plate; {len(corpus.set_aside)} set aside, "
            f"the first: {first['path']}: {first['reason']}"
        )
    _refuse_many_aside(unusable, found, recipe)
    return replace(_sources(members, layout, recipe, texts, corpus.set_aside), read_as=corpus.read_as)


def _refuse_many_aside(items: list[dict[str, str]], found: int, recipe: GenerateRecipe) -> None:
    """Raises PlatemintError where more of a corpus's records cannot be used than the recipe allows.

    Plates that do not fit its layout or grammar are no faults, and not among the items.
    """
    most = recipe.source.max_set_aside
    if len(items) <= most * found:
        return
    kinds: dict[str, list[dict[str, str]]] = {}
    for item in items:
        kinds.setdefault(re.sub(r"(?<=picture as ).*|\d+", "", item["reason"]), []).append(item)
    commonest = sorted(kinds.values(), key=len, reverse=True)[:REASONS]
    shown = "; ".join(
        f"{len(alike):,} times: {alike[0]['reason']} (the first: {_place(alike[0])})" for alike in commonest
    )
    raise PlatemintError(
        f"{recipe.source.path}: {len(items):,} of {found:,} records cannot be used, more than {100 * most:g} % "
        f"(source.max_set_aside); {shown}; mend them, say which --format it is, or raise source.max_set_aside"
    )


def _place(item: dict[str, str]) -> str:
    return f"{item['path']}, line {item['row']}" if item["row"] else item["path"]


def _sources(members: dict, layout, recipe: GenerateRecipe, texts: frozenset[str], set_aside: list) -> CorpusSources:
    total = sum(map(len, members.values()))
    name, blocked = layout.name if layout else "", _blocked(recipe, layout)
    groups, photos = [], []
    for number, ((split, positions), group) in enumerate(sorted(members.items())):
        order = _varied([photo.style for photo in group], np.random.default_rng([recipe.seed, Stream.SAMPLE, number]))
        groups.append(Group(name, split, positions, len(group) / total, len(group), blocked))
        photos.append(tuple(group[i] for i in order))
    used = "\n".join(f"{photo.source} {photo.text}" for group in photos for photo in group)
    fingerprint = sha256("\n".join([used, *sorted(texts)]).encode())
    return CorpusSources(tuple(groups), tuple(photos), texts, set_aside, fingerprint)


def tried(sources: CorpusSources, recipe: GenerateRecipe, judge: Callable[[list[Plate]], list[Plate]]) -> CorpusSources:
    """The sources with weight 0 for groups of few photographs of which none takes new texts: they would never be done.

    judge: edits plates and says why one is rejected. On each photograph `recipe.source.tries` texts of its group are
    tried; one that takes a quarter of them will do. Photographs of the others are listed as set aside.
    """
    groups, aside = [], list(sources.set_aside)
    for number, group in enumerate(sources.groups):
        if group.sources < FEW and not _takes_texts(sources, number, recipe, judge):
            reason = (
                f"most of {recipe.source.tries} texts tried on it were rejected; so on all plates like {group.name}"
            )
            labels = (photo.label for photo in sources.photos[number])
            aside += [{"path": label.name, "row": label.row, "reason": reason} for label in labels]
            group = replace(group, weight=0.0)
        groups.append(group)
    if not any(group.weight for group in groups):
        raise PlatemintError(f"{recipe.source.path}: not one plate takes new texts; {aside[-1]['reason']}")
    return replace(sources, groups=tuple(groups), set_aside=aside)


def _takes_texts(
    sources: CorpusSources, group: int, recipe: GenerateRecipe, judge: Callable[[list[Plate]], list[Plate]]
) -> bool:
    positions, tries = sources.groups[group].positions, recipe.source.tries
    rng = np.random.default_rng([recipe.seed, Stream.SAMPLE, group, 1])
    for turn in range(len(sources.photos[group])):
        texts = ("".join(str(rng.choice(list(alphabet))) for alphabet in positions) for _ in range(tries))
        plate = sources.get(group, turn)
        if sum(not p.reason for p in judge([replace(plate, target=text) for text in texts])) >= tries / 4:
            return True
    return False


def _blocked(recipe: GenerateRecipe, layout) -> tuple[str, ...]:
    words = (*recipe.draw.blocked, *(layout.blocked if layout else ()))
    return tuple(filter(None, (characters(normalise(word)) for word in words)))


def _varied(styles: list[tuple[float, float, float]], rng: np.random.Generator) -> np.ndarray:
    """An order, int64 (n,), of which any stretch shows each kind of style about as often as there is.

    A kind is a third of the plates by brightness, of these a third by height, and likewise by tilt.
    """
    ranks = np.argsort(np.argsort(np.array(styles), axis=0, kind="stable"), axis=0)
    _, kind = np.unique(3 * ranks // len(styles) @ (9, 3, 1), return_inverse=True)
    turns, order = spread_evenly(np.bincount(kind), rng), np.empty(len(styles), dtype=np.int64)
    for k in range(kind.max() + 1):
        order[turns == k] = rng.permutation(np.flatnonzero(kind == k))
    return order


def style_of(image: np.ndarray) -> tuple[float, float, float]:
    """What makes photographs differ: mean brightness 0..255, height in pixels, and tilt in degrees, clockwise.

    image: uint8 (H, W, 3). The tilt is that of the edges that lie nearly level, the stronger ones counting more.
    """
    gray = image.mean(2, dtype=np.float32)
    across, down = np.gradient(gray, axis=1), np.gradient(gray, axis=0)
    level = np.abs(down) > 2 * np.abs(across)
    slope = np.arctan2(
        -(across * np.sign(down))[level].sum(dtype=np.float64), np.abs(down[level]).sum(dtype=np.float64)
    )
    return float(gray.mean()), float(image.shape[0]), float(np.degrees(slope))


def split_apart(labels: list[Label], among: list[Label], aside: Corpus) -> list[Label]:
    """The labels whose text stood in no other split first, among all of a corpus: a plate stays in its split.

    The others are set aside in `aside`.
    """
    home = {label.text: label.split for label in reversed(among)}
    for label in labels:
        if home[label.text] != label.split:
            aside.put_aside(label.name, label.row, f"its text is also in the split {home[label.text]}")
    return [label for label in labels if home[label.text] == label.split]


def _of_split(labels: list[Label], recipe: GenerateRecipe) -> list[Label]:
    wanted, there = standard_split(recipe.source.split), sorted({label.split for label in labels})
    if wanted and labels and wanted not in there:
        hint = nearest(wanted, there)
        raise PlatemintError(f"{recipe.source.path}: source.split: no split {wanted}{hint}; it has {', '.join(there)}")
    return [label for label in labels if wanted in ("", label.split)]


def usable_photos(corpus: Corpus, labels: list[Label]) -> list[tuple[Label, SourcePhoto]]:
    """The labels whose picture can be used, each with its picture; the others are set aside in the corpus."""
    root = corpus.root.absolute()
    on_picture: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        on_picture.setdefault(label.place, []).append(number)
    with warnings.catch_warnings(), ThreadPool() as pool:
        warnings.simplefilter("ignore")  # a picture's oddities matter only where it cannot be decoded
        checked = pool.map(lambda numbers: _check([labels[i] for i in numbers], root), on_picture.values())
    found = {i: result for numbers, results in zip(on_picture.values(), checked) for i, result in zip(numbers, results)}
    kept, first = [], {}
    for number, label in enumerate(labels):
        source, style, reason = found[number]
        if not reason and first.setdefault(source, label) is not label:
            reason = f"the same picture as {first[source].name}"
        if reason:
            corpus.put_aside(label.name, label.row, reason)
        else:
            kept.append((label, SourcePhoto(label, source, style)))
    return kept


def _check(labels: list[Label], root: Path) -> list[tuple[str, tuple[float, float, float], str]]:
    """Of each plate of one picture its source id and style, and the reason it cannot be used ("" for none)."""
    path = labels[0].path
    try:
        within = Path(os.path.normpath(path)).is_relative_to(root)  # else a label names it so, and may
        if within and not path.resolve().is_relative_to(root.resolve()):
            return [("", (0, 0, 0), "a link out of the corpus folder")] * len(labels)
        return [_judged(read) for read in read_plates(labels)]
    except (OSError, RuntimeError, ValueError) as fault:  # links in a circle are either of the first two
        return [("", (0, 0, 0), str(fault))] * len(labels)


def _judged(read: tuple[np.ndarray, str] | ValueError) -> tuple[str, tuple[float, float, float], str]:
    return ("", (0, 0, 0), str(read)) if isinstance(read, ValueError) else (read[1], style_of(read[0]), "")


def _stride(n: int) -> int:
    """A step near the golden section of n that visits all of 0..n-1."""
    return next(step for step in range(round(n * 0.618) or 1, n + 2) if math.gcd(step, n) == 1)
