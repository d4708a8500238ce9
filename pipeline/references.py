"""References: how a corpus's own typefaces draw each character, from the masks of all its plates together.

No single photograph shows a whole alphabet, and none shows a letter sharply; but plates of one kind share their letters.
A plate's references are averaged from those plates of the corpus that look most like it where both show the same
characters, so that corpora of several typefaces need no names for them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from platemint.models.reader import Reader, align, greedy_decode
from platemint.models.spg import SPG, SourceLayers, SPGConfig, confidence, encode_texts, framed
from platemint.pipeline import storage
from platemint.pipeline.alignment import elsewhere, known_places, spread_over_text, standing
from platemint.pipeline.engines import in_threads
from platemint.pipeline.filter import fold, likelihood
from platemint.pipeline.networks import autocast, batched, in_batches, network_input
from platemint.pipeline.object_store import ObjectPath
from platemint.pipeline.plate import SEPARATORS, Plate, canonical
from platemint.pipeline.text_frame import cut_out

MOST_PLATES = (
    2000  # of a corpus that are looked at before a run: a minute or two, and a typeface has settled long before
)
# Chosen by how well glyphs of real plates (split train) are foretold from their other characters.
MOST_ALIKE = 60  # glyphs that one reference is averaged from
ALIKE = 0.02  # of the difference of mattes in 0..1: a plate that differs by so much more counts e times less
FAR = 0.5  # share of its characters in which a label differs from what is read: more, and it is another plate's
SURE = 0.5  # of 1: a label that is less probable to the reader says nothing of where its characters stand
LEAST = 3  # plates, counted so, that a reference needs where there are as many: few may all be wrong
SHARPEN, EDGE = 10, 0.45  # slope and place of the step that makes a mean of many masks as sharp as one of them
UNLIKE = 0.12  # difference from the others' mean, 0..1, at which a glyph counts e times less: it shows something else


Means = dict[int, tuple[np.ndarray, float]]  # by character, 1-based: mean glyph, uint8 (h, w), and how sure that is


@dataclass(frozen=True)
class Cut:
    """Glyphs cut from plates' masks. glyphs: uint8 (n, h, w). character: int64 (n,), 1-based. plate: int64 (n,)."""

    glyphs: np.ndarray
    character: np.ndarray
    plate: np.ndarray

    def part(self, at: np.ndarray) -> Cut:
        """Those glyphs, bool (n,)."""
        return Cut(self.glyphs[at], self.character[at], self.plate[at])

    def by_plate(self, plates: int) -> list[Cut]:
        """The glyphs of each of so many plates."""
        return [self.part(self.plate == number) for number in range(plates)]


class References:
    """Glyphs of a corpus's plates, and what they say of one plate's typeface.

    sources: of each plate, see `Plate.source`. letters: of the alphabet, 1 + its length. source_scores: how probable a
    plate's label is to our reader, 0..1 (see `pipeline.filter.likelihood`), by source. places: of the plates on which the
    generator, by itself, would take something else for their characters, such as an emblem: as `Plate` has them.
    """

    def __init__(
        self,
        cut: Cut,
        sources: Sequence[str],
        letters: int,
        source_scores: Mapping[str, float] = {},
        places: Mapping[str, np.ndarray] = {},
    ):
        self.cut, self.letters = cut, letters
        self.sources = {source: number for number, source in enumerate(sources)}
        self.source_scores, self.places = source_scores, places
        self._kept: dict[int, Means] = {}

    @classmethod
    def read(cls, path: Path | ObjectPath) -> References:
        """What `write` has written."""
        with np.load(io.BytesIO(path.read_bytes())) as stored:
            sources, letters, scores, places = json.loads(str(stored["facts"]))
            cut = Cut(stored["glyphs"], stored["character"], stored["plate"])
        return cls(cut, sources, letters, scores, {name: np.array(at, np.float32) for name, at in places.items()})

    def write(self, path: Path | ObjectPath) -> None:
        """Writes it to a file. The glyphs of each plate say what it reads: the file is not for others."""
        file = io.BytesIO()
        np.savez(file, **vars(self.cut), facts=self._facts)
        storage.write(path, file.getvalue())

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of all that decides what they are."""
        return storage.sha256(b"".join([*(part.tobytes() for part in vars(self.cut).values()), self._facts.encode()]))

    @property
    def _facts(self) -> str:
        places = {source: at.tolist() for source, at in self.places.items()}
        return json.dumps([list(self.sources), self.letters, dict(self.source_scores), places])

    @cached_property
    def _of_character(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.cut.character == c) for c in range(self.letters)]

    @cached_property
    def _glyphs(self) -> np.ndarray:
        return self.cut.glyphs.astype(np.float32) / 255

    def of(self, plate: int, alone: bool = False) -> np.ndarray:
        """References of one of the plates, float32 (letters, 2, h, w), as `models.spg` has them.

        alone: from the other plates alone, so that nothing is learned by looking at the answer.
        """
        return self._as_input(self._of_others(plate) if alone else self._of(plate))

    def like(self, some: Cut) -> np.ndarray:
        """References of a plate that is none of these and whose glyphs these are."""
        return self._as_input(self._averaged(self._alike(some.glyphs.astype(np.float32) / 255, some.character)))

    def _of_others(self, plate: int) -> Means:
        weights = self._alike_to(plate)
        weights[plate] = 0
        return self._averaged(weights)

    def _of(self, plate: int) -> Means:
        """Kept, since a run edits each plate several times."""
        if plate not in self._kept:
            self._kept[plate] = self._averaged(self._alike_to(plate))
        return self._kept[plate]

    def _alike_to(self, plate: int) -> np.ndarray:
        own = self.cut.plate == plate
        return self._alike(self._glyphs[own], self.cut.character[own])

    def _averaged(self, weights: np.ndarray) -> Means:
        """The mean glyph of each character over plates, which count so much (n,)."""
        weights = weights[self.cut.plate]
        found: Means = {}
        for character, at in enumerate(self._of_character):
            at = at[np.argsort(-weights[at], kind="stable")[:MOST_ALIKE]]
            if weights[at].sum() > 0.99 * min(LEAST, len(self.sources)):
                mean, count = _robust_mean(self._glyphs[at], weights[at])
                found[character] = np.round(255 * mean).astype(np.uint8), confidence(count)
        return found

    def _as_input(self, means: Means) -> np.ndarray:
        found = np.zeros((self.letters, 2, *self.cut.glyphs.shape[1:]), np.float32)
        for character, (mean, sure) in means.items():
            found[character] = mean.astype(np.float32) / 255, np.full(mean.shape, sure, np.float32)
        return found

    def _alike(self, glyphs: np.ndarray, characters: np.ndarray) -> np.ndarray:
        """How much each plate counts for another, 0..1: by how far glyphs of the same characters differ on average."""
        apart, shared = np.zeros(len(self.sources)), np.zeros(len(self.sources))
        for glyph, character in zip(glyphs, characters):
            at = self._of_character[character]
            np.add.at(apart, self.cut.plate[at], np.abs(self._glyphs[at] - glyph).mean((1, 2)))
            np.add.at(shared, self.cut.plate[at], 1)
        if not shared.any():  # a plate of which nothing is known: like any other
            return np.ones(len(shared))
        apart = (apart + apart.sum() / shared.sum()) / (shared + 1)  # few characters in common say little
        nearest = np.sort(apart[shared > 0])[:4][-1]  # of three others
        return np.exp((nearest - apart) / ALIKE).clip(0, 1)


def _robust_mean(glyphs: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean (h, w) of glyphs (n, h, w) to which what is unlike the others adds little, and how many it amounts to.

    The mean is first taken around the glyph that all are nearest to, which a minority of wrong ones does not move.
    """
    flat, weights = glyphs.reshape(len(glyphs), -1), weights.astype(np.float32)
    square = (flat**2).sum(1)
    apart = (square + square[:, None] - 2 * flat @ flat.T).clip(0) ** 0.5
    mean = flat[np.argmin(apart @ weights)]
    for _ in range(2):
        kept = weights * np.exp(-((np.abs(flat - mean).mean(1) / UNLIKE) ** 2)) + 1e-6
        mean = kept / kept.sum() @ flat
    return sharpened(mean).reshape(glyphs.shape[1:]), float(kept.sum())


def sharpened(mean: np.ndarray) -> np.ndarray:
    """A mean of masks, 0..1, as sharp as one of them."""
    return 1 / (1 + np.exp(-SHARPEN * (mean - EDGE)))


@dataclass(frozen=True)
class _Look:
    """What was seen of a plate before a run. right: whether most of its label is read on it. score: see `References`.

    places: as `Plate` has them, None where the generator finds its characters by itself.
    """

    cut: Cut
    right: bool
    score: float
    places: np.ndarray | None


@torch.inference_mode()
def _cut(spg: SPG, plates: Sequence[Plate], device, dtype) -> tuple[Cut, np.ndarray]:
    """The glyphs, and where across the plate the generator takes its characters to stand, float32 (n, N)."""
    config = spg.config
    size = config.height, config.width
    source = network_input([cut_out(p.image, p.frame, *size) for p in plates], *size, device)
    text = encode_texts([p.text for p in plates], config.alphabet, config.longest).to(device)
    places = known_places([p.places for p in plates], config.longest).to(device)
    with autocast(device, dtype):
        seen = spg.source_layers(source, text, places)
        return glyphs_of(seen, config), seen.slots[:, :, 0, 0].float().cpu().numpy()


def glyphs_of(seen: SourceLayers, config: SPGConfig) -> Cut:
    """The glyphs of plates' characters, separators left out, by the masks that the generator has made of them."""
    glyphs = framed(seen.logits.sigmoid(), seen.slots, config.glyph[1:])[:, :, 0].mul(255).round().byte().cpu().numpy()
    text = seen.text.cpu()
    known = torch.tensor([False, *(c not in SEPARATORS for c in config.alphabet)])[text].numpy()
    plate, _ = np.nonzero(known)
    return Cut(glyphs[known], text.numpy()[known], plate)


def collect_references(
    plates: Iterable[Plate],
    spg: SPG,
    reader: Reader,
    batch: int,
    device,
    dtype,
    find: Callable[[list[Plate]], list[Plate]] = list,
    threads: int = 1,
) -> References | None:
    """The references of a corpus; None of no plates at all.

    find: gives plates their frames. threads: batches that are worked on at a time; they change no byte.
    Plates on which the reader reads something else than their label add nothing. Where that is so of most, it is the
    reader that does not know them, and all count.
    """
    looks: list[_Look] = []
    sources: list[str] = []

    def look(some: list[Plate]) -> list[_Look]:
        return _looked_at(spg, reader, find(some), device, dtype)

    def looked(some: list[Plate]) -> tuple[list[_Look], list[str]]:
        return in_batches(look, some, batch), [plate.source for plate in some]

    for seen, of in in_threads(looked, batched(plates, batch), threads):
        looks += seen
        sources += of
    if not looks:
        return None
    cuts = [Cut(one.cut.glyphs, one.cut.character, np.full_like(one.cut.plate, i)) for i, one in enumerate(looks)]
    whole = Cut(*(np.concatenate([getattr(cut, name) for cut in cuts]) for name in ("glyphs", "character", "plate")))
    right = np.array([one.right for one in looks])
    if right.mean() > 0.5:
        whole = whole.part(right[whole.plate])
    scores = {source: one.score for source, one in zip(sources, looks)}
    places = {source: one.places for source, one in zip(sources, looks) if one.places is not None}
    return References(whole, sources, 1 + len(spg.config.alphabet), scores, places)


def _looked_at(spg: SPG, reader: Reader, plates: list[Plate], device, dtype) -> list[_Look]:
    cut, middles = _cut(spg, plates, device, dtype)
    right, scores, aligned = _read(plates, reader, device, dtype)
    lost = [i for i, at in enumerate(aligned) if at is not None and elsewhere(at, middles[i, : len(at)])]
    places = dict(zip(lost, _places([plates[i] for i in lost], reader, device, dtype)))
    places = {i: at for i, at in places.items() if elsewhere(at, middles[i, : len(at)])}
    cuts = cut.by_plate(len(plates))
    if places:  # glyphs from where the characters stand
        again, _ = _cut(spg, [replace(plates[i], places=at) for i, at in places.items()], device, dtype)
        for i, part in zip(places, again.by_plate(len(places))):
            cuts[i] = part
    return [_Look(cuts[i], right[i], scores[i], places.get(i)) for i in range(len(plates))]


@torch.inference_mode()
def _read(
    plates: list[Plate], reader: Reader, device, dtype
) -> tuple[list[bool], list[float], list[np.ndarray | None]]:
    """Of each plate whether most of its label is read on it, how probable the label is, and where it is read.

    Where: as `Plate.places`, of one reading, which is not checked; None where the label is not read for sure.
    """
    config = reader.config
    with autocast(device, dtype):
        seen = reader(network_input(_views(plates, reader), config.height, config.width, device)).cpu()
    found = zip(greedy_decode(seen, config.alphabet), plates)
    right = [Levenshtein.normalized_distance(canonical(text), canonical(p.text)) <= FAR for text, p in found]
    scores = likelihood(seen, [p.text for p in plates], config.alphabet)
    texts = [canonical(p.text) for p in plates]
    texts = [t if score > SURE and set(t) <= set(config.alphabet) else "" for t, score in zip(texts, scores)]
    columns = config.width // 4  # of each of two rows
    at = align(fold(seen, config.alphabet), encode_texts(texts, config.alphabet)).numpy() % columns / columns
    return right, scores, [spread_over_text(row, p.text) if t else None for row, t, p in zip(at, texts, plates)]


def _places(plates: list[Plate], reader: Reader, device, dtype) -> list[np.ndarray]:
    """Where the characters of plates stand, as `Plate.places`, as far as two readings agree."""
    if not plates:
        return []
    texts = [p.text for p in plates]
    found = standing(reader, _views(plates, reader), texts, device, dtype)
    return [
        np.full(len(text), np.nan, np.float32) if one is None else spread_over_text(one.known, text)
        for one, text in zip(found, texts)
    ]


def _views(plates: list[Plate], reader: Reader) -> list[np.ndarray]:
    return [cut_out(p.image, p.frame, reader.config.height, reader.config.width) for p in plates]
