"""plan: what a run of anonymize will do: its dataset, the new text of every plate, and its shards.

Texts are drawn once, for the whole run, so that a shard is a function of the plan and its number. A shard gets its
own pictures and texts, never those of the run.
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from platemint.pipeline.anonymize.anonymizer import Anonymizer
from platemint.pipeline.anonymize.detector import Detector
from platemint.pipeline.anonymize.not_replaced import place_of
from platemint.pipeline.anonymize.pseudonyms import ATTEMPTS, Drawn, Forbidden, Keyed, read_key
from platemint.pipeline.anonymize.read_texts import completed, is_wanted
from platemint.pipeline.anonymize.replacement import writable
from platemint.pipeline.corpora.datasets import BARE, Dataset, Frame, open_any, rewrite_dataset
from platemint.pipeline.corpora.records import Refused
from platemint.pipeline.networks import batched, editable_alphabet
from platemint.pipeline.plate import PlatemintError, Readings, characters
from platemint.pipeline.recipe import NOT_IN_HASH, AnonymizeRecipe, GenerateRecipe
from platemint.pipeline.stages import Stages
from platemint.pipeline.versions import versions

AUDIT, PAGE = "audit.json", "audit.html"  # what a run writes beside the dataset's own files
PICTURES = 64  # of a shard, at most: what a kill costs
NOT_IN_PLAN = NOT_IN_HASH | {"list_file": True}  # the place of the list does not change the output


@dataclass(frozen=True)
class AnonymizeShard:
    """What one transaction anonymizes. numbers: of its frames among the dataset's.

    texts: of each frame, {old text: new one of each attempt, "" where it has none}.
    """

    number: int
    numbers: tuple[int, ...]
    frames: tuple[Frame, ...]
    texts: tuple[dict[str, tuple[str, ...]], ...]


class AnonymizePlan:
    """Dataset, networks, rules, and once they are drawn new texts and shards. Writes nothing but the key, if there is none.

    Raises PlatemintError where the folder written lies in the dataset or around it, for a dataset, key, list, network or
    detector that cannot be used.
    """

    def __init__(self, recipe: AnonymizeRecipe, anonymizer: Anonymizer | None = None, progress: TextIO | None = None):
        """anonymizer: of the recipe, where there is one already."""
        self.recipe, self.dataset, folders = recipe, _open_dataset(recipe), (recipe.source.path, recipe.folder)
        if recipe.list_file:
            place_of(recipe.list_file, folders)
        self.detector = Detector(recipe.detector) if recipe.detector.path else None
        self.anonymizer = anonymizer or Anonymizer(recipe)
        self.annotated = sum(len(frame.annotations) for frame in self.dataset.frames) + len(self.dataset.lost)
        known = _texts(self.dataset)
        if is_wanted(recipe):
            self.dataset = completed(self.dataset, recipe, self.anonymizer.filter, self.detector, progress)
        self.texts = sorted(_texts(self.dataset))
        self.read = len(self.texts) - len(known)  # texts that nobody but the reader gave
        self.forbidden = Forbidden(self.texts, recipe.draw.blocked, recipe.draw.reserved)
        self.real = Readings(self.texts)
        self.alphabet = editable_alphabet(recipe.edit)
        stages = Stages(GenerateRecipe(edit=recipe.edit))
        self.networks, self.device, self.gpus = stages.checkpoints, stages.device, stages.gpus
        self.key = read_key(recipe.key_file, folders) if recipe.key_file else None
        self.pseudonym: Drawn | Keyed | None = None  # once texts are drawn
        self.single: frozenset[str] = frozenset()  # texts, without separators, that have one attempt alone

    def draw(self, secret: bytes) -> list[AnonymizeShard]:
        """Draws new texts for all plates, and cuts the dataset into shards. secret: what is not computed from a key.

        Raises PlatemintError where the dataset's format cannot write what it has to.
        """
        self.pseudonym = Keyed(self.key, self.forbidden) if self.key else self._drawn(secret)
        becomes = rewritten(self.dataset, lambda frame, old: self.pseudonym(old, frame.path, 0))
        if taken := {AUDIT, PAGE}.intersection(new for new, _ in becomes.values()):
            raise PlatemintError(f"{self.dataset.root}: has an {taken.pop()} of its own; give it another name")
        pieces = cut(self.dataset.frames, self.recipe.track_consistent)
        self.single = _scattered(self.dataset.frames, pieces) if self.recipe.track_consistent else frozenset()
        return [self._shard(number, piece) for number, piece in enumerate(pieces)]

    def _drawn(self, secret: bytes) -> Drawn:
        plates = ((annotation.text, frame.path) for frame in self.dataset.frames for annotation in frame.annotations)
        plates = [plate for plate in plates if writable(plate[0], self.alphabet)]
        return Drawn(secret, plates, self.forbidden, self.recipe.track_consistent)

    def _shard(self, number: int, numbers: list[int]) -> AnonymizeShard:
        frames = tuple(self.dataset.frames[n] for n in numbers)
        return AnonymizeShard(number, tuple(numbers), frames, tuple(self.new_texts(frame) for frame in frames))

    def new_texts(self, frame: Frame) -> dict[str, tuple[str, ...]]:
        """{old text: new one of each attempt} of a frame's plates; "" for one that reads like a text of the dataset."""
        old = dict.fromkeys(
            annotation.text for annotation in frame.annotations if writable(annotation.text, self.alphabet)
        )
        return {text: self._attempts(text, frame) for text in old}

    def _attempts(self, text: str, frame: Frame) -> tuple[str, ...]:
        attempts = 1 if characters(text) in self.single else ATTEMPTS
        new = (self.pseudonym(text, frame.path, attempt) for attempt in range(attempts))
        return tuple("" if text in self.real else text for text in new)

    def facts(self, secret: bytes) -> dict:
        """What a run that goes on has to find unchanged: versions, and digests that reveal nothing without the secret."""
        recipe = self.recipe.model_dump(mode="json", exclude=NOT_IN_PLAN)
        found = self.detector.sha256 if self.detector else ""
        return {
            "secret": _digest(secret, ["secret"]),
            "recipe": {field: _digest(secret, [field, repr(value)]) for field, value in recipe.items()},
            "dataset": _digest(secret, self._contents()),
            "networks": _digest(secret, [*self.networks.values(), self.device, found]),
            "versions": versions(),
        }

    def _contents(self) -> Iterator[str]:
        """What the dataset consists of: its plates as they were read, and size and time of each file."""
        yield from map(repr, (*self.dataset.frames, self.dataset.lost, self.dataset.named))
        for path in self.dataset.folder.files:
            stat = (self.dataset.root / path).stat()
            yield repr((path, stat.st_size, stat.st_mtime_ns))


def _digest(secret: bytes, parts: Iterable[str]) -> str:
    """A keyed digest, its bytes in pairs: in one piece they would by chance spell plates of digits and letters up to F."""
    digest = hmac.new(secret, b"platemint plan 1", "sha256")
    for part in parts:
        digest.update(f"\n{part}".encode(errors="surrogateescape"))
    return digest.digest().hex(":")


def cut(frames: list[Frame], consistent: bool) -> list[list[int]]:
    """The numbers of the frames of each shard; every frame is in one.

    consistent: a text has one new text in all frames, and which of its attempts holds is found out where it comes first.
    So frames that share texts, themselves or by way of others, go into one shard. Where such frames are more than a shard
    takes they are cut in order, and a text of several shards has its first attempt alone, as with a key.
    """
    groups = connected(frames) if consistent else [[n] for n in range(len(frames))]
    return packed((list(part) for group in groups for part in batched(group, PICTURES)), PICTURES)


def packed(groups: Iterable[list[int]], most: int) -> list[list[int]]:
    """Groups put together, in order, to as many numbers at most; a larger group stands alone."""
    pieces: list[list[int]] = []
    for group in groups:
        if pieces and len(pieces[-1]) + len(group) <= most:
            pieces[-1] += group
        else:
            pieces.append([*group])
    return pieces


def connected(frames: list[Frame]) -> list[list[int]]:
    """Numbers of frames in groups of which no two share a text, in the order of their first ones."""
    texts: dict[str, int] = {}
    pairs = [(n, texts.setdefault(t, len(texts))) for n, frame in enumerate(frames) for t in _spelled(frame)]
    at, text = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    nodes = len(frames) + len(texts)  # frames and behind them texts
    graph = coo_array((np.ones(len(at), dtype=bool), (at, len(frames) + text)), shape=(nodes, nodes))
    _, labels = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = {}
    for n, label in enumerate(labels[: len(frames)].tolist()):
        groups.setdefault(label, []).append(n)
    return list(groups.values())


def _scattered(frames: list[Frame], pieces: list[list[int]]) -> frozenset[str]:
    """The texts, without separators, that come in several shards."""
    shards = defaultdict(set)
    for number, piece in enumerate(pieces):
        for text in (text for n in piece for text in _spelled(frames[n])):
            shards[text].add(number)
    return frozenset(text for text, numbers in shards.items() if len(numbers) > 1)


def _spelled(frame: Frame) -> set[str]:
    return {characters(annotation.text) for annotation in frame.annotations} - {""}


def rewritten(dataset: Dataset, new_text: Callable[[Frame, str], str]) -> dict[str, tuple[str, bytes | None]]:
    """As `rewrite`, with faults that quote neither plates nor names of pictures, which may be plates."""
    try:
        return rewrite_dataset(dataset, new_text)
    except Refused:  # of the format, which quotes none
        raise
    except PlatemintError:
        raise PlatemintError(
            f"{dataset.root}: with other plates, two files would get one name, or a name or file could not hold a new "
            "text; give annotation files names without plates"
        ) from None


def _open_dataset(recipe: AnonymizeRecipe) -> Dataset:
    found = recipe.detector.finds != "list"
    source = recipe.source
    dataset = open_any(source.path, source.format, False, source.classes, source.unreadable, found)
    if dataset.format == BARE and not found:
        raise PlatemintError(
            f"{dataset.root}: format: {BARE} have no annotations, so that a detector has to find the plates: "
            "--detector FILE.onnx --detector-finds redact or replace"
        )
    _refuse_overlap(dataset.root, recipe.folder)
    return dataset


def _texts(dataset: Dataset) -> set[str]:
    annotated = (annotation.text for frame in dataset.frames for annotation in frame.annotations)
    return {*annotated, *dataset.lost, *dataset.named} - {""}


def _refuse_overlap(corpus: Path, out: Path) -> None:
    a, b = corpus.resolve(), out.resolve()
    if a.is_relative_to(b) or b.is_relative_to(a):
        raise PlatemintError(f"--out {out}: lies in the dataset {corpus} or around it; choose a folder apart from it")
