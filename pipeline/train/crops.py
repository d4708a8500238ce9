"""Which crops of a labelled corpus a network can learn from: what is wrong with it is said with the figure, or refused.

Bad labels do not make a training fail, they make it worse, and nobody sees why. So a corpus is judged before it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from platemint.models.reader import Reader, decode
from platemint.pipeline.balance.grammar import positions_like
from platemint.pipeline.corpora import Corpus, Label, read_corpus
from platemint.pipeline.corpora.datasets import AUTO
from platemint.pipeline.corpora.pixels import read_plate
from platemint.pipeline.filter import likelihood
from platemint.pipeline.networks import autocast, batched, choose_device, network_input, resize
from platemint.pipeline.plate import ALPHABET, DIGITS, UNREADABLE, PlatemintError, canonical, pattern
from platemint.pipeline.recipe import Edit
from platemint.pipeline.sample import split_apart, usable_photos

LEAST_CROPS, FEW_CROPS = 20, 200  # fewer are refused; fewer are warned of
LEAST_TEXTS = 10
LEAST_HEIGHT, LEAST_WIDTH = 8, 16  # pixels
MOST_HEIGHT, MOST_WIDTH = 128, 416  # pixels kept of a crop: twice what the larger generator sees
LEAST_CONTRAST = (
    8  # of 255, between a picture's darkest and lightest hundredth; the faintest of 2,147 real crops has 20
)
MOST_UNSPELLABLE = 0.01  # of all labels: a letter in more of them belongs to the plates, it is no slip
MOST_ASIDE = 0.5

# Measured with the shipped reader on 2,147 real crops: at these 3 right labels are suspected, and of 20 % shuffled ones
# 98 % are (97 % in the split that the reader has not learned).
SURE = 0.8  # probability per character from which on a reading counts
FAR = 0.5  # share of the characters in which a label differs from what the picture says
FEW_SURE = (
    0.3  # below this share of sure readings, or of sure ones that are some label, the reader does not know a plate
)
FEW_WRONG, MOST_WRONG = 0.02, 0.3

LISTED = 10  # characters or reasons a message names
CANNOT_WRITE = re.compile("the label holds (.+), which platemint cannot write")  # as pipeline/corpora/labels.py says it

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Crop:
    """One labelled picture. image: uint8 (h, w, 3) RGB. text: normalised, separators included.

    group: the kinds of its characters, as in "LLLDDDD" (see `pipeline.plate.pattern`): plates of one group can swap
    texts. name: how the corpus names the picture.
    """

    image: np.ndarray
    text: str
    group: str
    name: str


def learnable_crops(
    path: str,
    split: str = "train",
    reader: Reader | None = None,
    say: Say = print,
    unreadable: Collection[str] = UNREADABLE,
    format: str = AUTO,
    most_aside: float = MOST_ASIDE,
    alphabet: str = ALPHABET,
) -> list[Crop]:
    """The crops of a corpus's split to learn from, in the corpus's order. What is left out or doubtful, `say` is told.

    alphabet: what the network can spell.
    reader: reads every crop to find labels that stand on the wrong picture. format: of the corpus. most_aside: share of
    its labels, and of the split's pictures, that may be unusable. Raises PlatemintError, with the figure and
    the remedy, where too few crops, texts or spellable labels are left, or too many labels are wrong.
    """
    corpus = read_corpus(path, unreadable, format)
    say(f"{path}: read as {corpus.read_as}")
    corpus.spell_with(alphabet)
    _judge_labels(path, corpus, say, most_aside)
    crops = _crops_of(path, corpus, split, say, most_aside)
    _refuse_few(path, crops, split, corpus)
    if reader is not None:
        crops = _without_wrong_labels(path, crops, reader, say)
        _refuse_few(path, crops, split, corpus)
    _warn(path, crops, say)
    return crops


# ----------------------------------------------------------------------------------------------------------- the labels


def _judge_labels(path: str, corpus: Corpus, say: Say, most_aside: float) -> None:
    """Says which labels were set aside, in all splits; refuses letters that belong to the plates but not to us."""
    total = len(corpus.labels) + len(corpus.set_aside)
    holders = _unspellable(corpus)
    slips = max(1, MOST_UNSPELLABLE * total)  # one label is a slip in a corpus of any size
    systematic = {c: items for c, items in holders.items() if _is_letter(c) and len(items) > slips}
    if systematic:
        raise PlatemintError(
            f"{path}: {len(systematic)} letters that platemint cannot spell stand in more than "
            f"{_share(MOST_UNSPELLABLE, 1)} of its {total} labels: {_listed(systematic, total)}; "
            f"teach them with alphabet.add={''.join(systematic)} where they are a plate's, or spell them otherwise"
        )
    if holders:
        say(f"{path}: labels with characters that platemint cannot spell are left out: {_listed(holders, total)}")
    _say_aside(path, [item for item in corpus.set_aside if not CANNOT_WRITE.match(item["reason"])], total, say)
    _refuse_aside(f"{path}: labels", corpus.set_aside, total, most_aside)


def _unspellable(corpus: Corpus) -> dict[str, list[dict[str, str]]]:
    """The set-aside labels that hold each character that cannot be spelled, the most frequent character first."""
    holders: dict[str, list[dict[str, str]]] = {}
    for item in corpus.set_aside:
        if found := CANNOT_WRITE.match(item["reason"]):
            for character in found[1]:
                holders.setdefault(character, []).append(item)
    return dict(sorted(holders.items(), key=lambda holder: -len(holder[1])))


def _is_letter(character: str) -> bool:
    """Letters, digits and the marks on them; a # or ? says that somebody could not read, or is a slip."""
    return unicodedata.category(character)[0] in "LNM"


def _listed(holders: dict[str, list[dict[str, str]]], total: int) -> str:
    shown = [
        f"{c!r} in {len(items)} ({_share(len(items), total)}), the first {_place(items[0])}"
        for c, items in list(holders.items())[:LISTED]
    ]
    return "; ".join(shown) + (f"; and {len(holders) - LISTED} more characters" if len(holders) > LISTED else "")


# --------------------------------------------------------------------------------------------------------- the pictures


def _crops_of(path: str, corpus: Corpus, split: str, say: Say, most_aside: float) -> list[Crop]:
    """The split's crops whose picture can be used; the others are said, and refused where they are the most."""
    labels = [label for label in corpus.labels if label.split == split]
    part = Corpus(corpus.root)
    crops = [
        crop
        for label, _ in usable_photos(part, split_apart(labels, corpus.labels, part))
        if (crop := _crop(part, label))
    ]
    _say_aside(path, part.set_aside, len(labels), say)
    _refuse_aside(f"{path}: pictures of split {split}", part.set_aside, len(labels), most_aside)
    return crops


def _crop(part: Corpus, label: Label) -> Crop | None:
    """The crop of a label, None where its picture shows nothing: then `part` takes it."""
    try:
        image, _ = read_plate(label)
        fault = _fault(image)
    except ValueError as changed:
        fault = str(changed)
    if fault:
        part.put_aside(label.name, label.row, fault)
        return None
    shrink = min(1.0, MOST_HEIGHT / image.shape[0], MOST_WIDTH / image.shape[1])
    if shrink < 1:
        image = resize(image, *(max(LEAST_HEIGHT, round(shrink * side)) for side in image.shape[:2]))
    return Crop(image, label.text, pattern(positions_like(label.text)), label.name)


def _fault(image: np.ndarray) -> str:
    """Why nothing can be read on a picture, uint8 (h, w, 3); "" where something may be."""
    height, width = image.shape[:2]
    if height < LEAST_HEIGHT or width < LEAST_WIDTH:
        return f"{width} x {height} pixels are too few to read a plate"
    low, high = np.percentile(image, (1, 99), axis=(0, 1))
    contrast = (high - low).max()
    return f"no contrast: its grey levels span {contrast:.0f} of 255" if contrast < LEAST_CONTRAST else ""


def _say_aside(path: str, items: list[dict[str, str]], total: int, say: Say) -> None:
    """A line for each kind of reason: how many, and the first."""
    kinds: dict[str, list[dict[str, str]]] = {}
    for item in items:
        kinds.setdefault(re.sub(r"(?<=picture as ).*|[^a-z ]", "", item["reason"]), []).append(item)
    ordered = sorted(kinds.values(), key=len, reverse=True)
    for same in ordered[:LISTED]:
        count = f"{len(same)} of {total} ({_share(len(same), total)}) left out"
        say(f"{path}: {count}; the first: {_place(same[0])}: {same[0]['reason']}")
    if rest := sum(map(len, ordered[LISTED:])):
        say(f"{path}: {rest} of {total} left out for {len(ordered) - LISTED} more reasons")


def _refuse_aside(what: str, items: list[dict[str, str]], total: int, most: float) -> None:
    if len(items) > most * total:
        raise PlatemintError(
            f"{what}: {len(items)} of {total} ({_share(len(items), total)}) cannot be used, more than "
            f"{_share(most, 1)} (max_set_aside); the first: {_place(items[0])}: {items[0]['reason']}; mend them or "
            "take them out of the corpus"
        )


# ------------------------------------------------------------------------------------------------------------- together


def _refuse_few(path: str, crops: list[Crop], split: str, corpus: Corpus) -> None:
    if len(crops) < LEAST_CROPS:
        splits = Counter(label.split for label in corpus.labels)
        there = ", ".join(f"{name} {count}" for name, count in splits.most_common()) or "no label at all"
        raise PlatemintError(
            f"{path}: {len(crops)} usable crops in split {split}, at least {LEAST_CROPS} are needed to learn from; "
            f"the corpus has: {there}; add crops, or name their split {split}"
        )
    texts = Counter(crop.text for crop in crops)
    if len(texts) < LEAST_TEXTS:
        (text, count), *_ = texts.most_common(1)
        raise PlatemintError(
            f"{path}: {len(texts)} different texts on {len(crops)} crops ({text} on {count}), at least {LEAST_TEXTS} "
            "are needed; a network would learn them by heart: check the column of the labels, or add other plates"
        )


def _warn(path: str, crops: list[Crop], say: Say) -> None:
    texts = {crop.text for crop in crops}
    if len(crops) < FEW_CROPS:
        say(f"{path}: warning: only {len(crops)} crops to learn from; {FEW_CROPS} or more are better")
    if len(texts) < len(crops) / 2:
        share = _share(len(texts), len(crops))
        say(f"{path}: warning: only {len(texts)} different texts on {len(crops)} crops ({share}); add other plates")
    if missing := [digit for digit in DIGITS if not any(digit in text for text in texts)]:
        never = ", ".join(missing)
        say(f"{path}: warning: {len(missing)} of the 10 digits are in no label: {never}; they cannot be learned here")


# --------------------------------------------------------------------------------------------------------- wrong labels


def _without_wrong_labels(path: str, crops: list[Crop], reader: Reader, say: Say) -> list[Crop]:
    """The crops without those on which the reader surely reads something else than their label.

    Its word counts only where it knows the plates: where it is often sure, and its sure readings are often labels of
    this corpus, be it of another crop. Raises PlatemintError where too many labels are wrong.
    """
    readings = _read(crops, reader)
    texts = {canonical(crop.text) for crop in crops}
    apart = [_difference(reading, crop.text) for (reading, _), crop in zip(readings, crops)]
    swapped = [far > FAR and canonical(reading) in texts for (reading, _), far in zip(readings, apart)]
    sure = [sureness > SURE or other for (_, sureness), other in zip(readings, swapped)]
    doubtful = [known and far > FAR for known, far in zip(sure, apart)]
    wrong = [number for number, doubted in enumerate(doubtful) if doubted]
    believed = sum(sure) - len(wrong) + sum(swapped)
    if sum(sure) < FEW_SURE * len(crops) or believed < FEW_SURE * sum(sure):
        say(
            f"{path}: warning: the labels could not be checked: the reader is sure on {sum(sure)} of {len(crops)} "
            f"crops ({_share(sum(sure), len(crops))}), and on {believed} of these it reads a label of the corpus; "
            "either it does not know these plates, or most labels belong to other pictures: look at some"
        )
        return crops
    if wrong:
        first = crops[wrong[0]]
        figure = (
            f"{len(wrong)} of {sum(sure)} labels that the reader could check ({_share(len(wrong), sum(sure))}) say "
            f"something else than the picture; {sum(swapped)} of these show another crop's label; the first: "
            f"{first.name}: label {first.text}, reads {readings[wrong[0]][0]}"
        )
        _judge_wrong(path, len(wrong) / sum(sure), figure, say)
    return [crop for crop, doubted in zip(crops, doubtful) if not doubted]


def _judge_wrong(path: str, share: float, figure: str, say: Say) -> None:
    """Says, warns of or refuses a share of wrong labels, 0..1."""
    if share > MOST_WRONG:
        raise PlatemintError(
            f"{path}: {figure}; more than {_share(MOST_WRONG, 1)} is no slip: see whether labels and files go together"
        )
    if share > FEW_WRONG:
        say(f"{path}: warning: {figure}; left out; look at the labels, more may be wrong")
    else:
        say(f"{path}: {figure}; left out")


@torch.inference_mode()
def _read(crops: list[Crop], reader: Reader) -> list[tuple[str, float]]:
    """What the reader reads on each crop, and how probable that is to it, per character, 0..1."""
    config, options = reader.config, Edit()
    device = next(reader.parameters()).device
    dtype = choose_device(options.model_copy(update={"device": device.type}))[1]
    readings = []
    for some in batched(crops, options.batch):
        with autocast(device, dtype):
            seen = reader(network_input([crop.image for crop in some], config.height, config.width, device)).cpu()
        texts = decode(seen, config.alphabet)
        readings += zip(texts, likelihood(seen, texts, config.alphabet))
    return readings


def _difference(a: str, b: str) -> float:
    """Edit distance of two texts, read as `canonical` has them, over the longer one's length: 0..1."""
    return Levenshtein.normalized_distance(canonical(a), canonical(b))


# ------------------------------------------------------------------------------------------------------------- in words


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.3g} %"


def _place(item: dict[str, str]) -> str:
    return f"{item['path']} (line {item['row']})" if item["row"] else item["path"]
