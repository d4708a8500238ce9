"""The one record that flows through every stage, and the spelling rules all stages share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from enum import IntEnum, unique
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Levenshtein

DIGITS = "0123456789"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PROVINCES = "京沪津渝冀晋蒙辽吉黑苏浙皖闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新"
ACCENTED = "ÄÖÜČĆĐŠŽ"  # on plates of Germany, Croatia and their neighbours
CHINESE_KINDS = (
    "警学港澳挂使领"  # police, learner, Hong Kong, Macau, trailer, embassy, consulate: they say a plate's kind
)
SEPARATORS = "-·. "
KINDS = {"D": DIGITS, "L": LETTERS, "P": PROVINCES, "A": DIGITS + LETTERS}  # of alphabets, in patterns
# What a network that starts afresh can spell. What one that is there can is its checkpoint's to say, and grows by
# training (`alphabet.add` of a recipe).
READABLE = DIGITS + LETTERS + PROVINCES + CHINESE_KINDS + ACCENTED  # labels leave separators out
ALPHABET = READABLE + SEPARATORS
LONGEST = 12  # characters in a text, separators included: as much as the generator can write
TELLING = 4  # characters, separators left out: a shorter text stands in any longer one by chance

# What people write where a plate cannot be read, or annotation tools where nobody wrote anything. NULL and NA are not
# among them: plates read so.
UNREADABLE = (
    "UNREADABLE", "NOT READABLE", "UNKNOWN", "ILLEGIBLE", "OCCLUDED", "OBSCURED", "BLURRED", "BLURRY", "UNCLEAR",
    "NO PLATE", "NO TEXT", "NONE", "N/A", "NAN", "EMPTY", "BLANK", "INVALID", "MISSING", "UNDEFINED",
    "PLATE", "LICENSE PLATE", "LICENCE PLATE", "NUMBER PLATE",
)  # fmt: skip

# People label these pairs inconsistently (US plates print O and write 0), so readings compare folded.
FOLD = str.maketrans("OIQ", "010")
_LOOKALIKES = str.maketrans({"•": "·", "‧": "·", "・": "·", "–": "-", "—": "-", "_": "-"})


class PlatemintError(Exception):
    """A fault a user can cause and mend: the message names the file, the field and the remedy. Exit code 2."""


class Failure(PlatemintError):
    """What stops a run though nothing is wrong with what it was given, such as a full disk. Exit code 1."""


class Interrupted(Failure):
    """A run that ends early because somebody asked for it (Ctrl-C). Exit code 130."""


@unique
class Stream(IntEnum):
    """Streams of random numbers of one seed. A generator's seed begins [seed, stream], so that no two draw the same.

    The values decide the bytes of every run: they never change.
    """

    SAMPLE = 1
    DRAW = int.from_bytes(b"draw")
    SWAPS = int.from_bytes(b"trade")
    EVALUATE_EDITS = int.from_bytes(b"eval")
    EVALUATE_LEAK = int.from_bytes(b"leak")
    EVALUATE_LPR = int.from_bytes(b"lpr")
    EVALUATE_REALISM = int.from_bytes(b"real")

    @property
    def word(self) -> str:
        """The stream as text, for generators that are seeded with text."""
        return self.to_bytes(8).lstrip(b"\0").decode()


@dataclass(slots=True)
class Plate:
    """One license plate on its way from source to labelled row.

    image: uint8 (H, W, 3), RGB, any size. text: what the picture says, normalised (see `normalise`).
    layout: name of the plate's layout file, "" where unknown. source: opaque id of the photograph it comes from.
    target: what it shall say; "" until drawn. places: float32 (n,), where across the picture the characters of its text
    stand as far as that is known, in parts of its width, else nan; None where nobody has looked. frame: float32 (4, 2),
    where the text stands (see pipeline/text_frame.py); None where nobody has looked. index, round: which planned target
    it serves, and at which attempt. rendered: drawn from a layout, and no photograph.
    After edit: image and text are the new ones, original and original_text the source's (in memory only, never
    written), source_mask and target_mask uint8 (H, W), 0..255, at the image's own size, slots float32 (n, 3, 2), where
    each character of the new text stands (see models/spg.py).
    After filter: reading is what our reader reads, scores are named figures in 0..1, reason is "" for a plate that is
    kept and names the failed check otherwise.
    """

    image: np.ndarray
    text: str
    layout: str = ""
    source: str = ""
    split: str = "train"
    rendered: bool = False
    target: str = ""
    places: np.ndarray | None = None
    frame: np.ndarray | None = None
    index: int = -1
    round: int = 0
    original: np.ndarray | None = None
    original_text: str = ""
    source_mask: np.ndarray | None = None
    target_mask: np.ndarray | None = None
    slots: np.ndarray | None = None
    reading: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    reason: str = ""


def normalise(text: str) -> str:
    """Upper case, compatibility forms folded (NFKC), look-alike separators unified, outer and double spaces removed."""
    text = unicodedata.normalize("NFKC", text.translate(_LOOKALIKES)).upper().translate(_LOOKALIKES)
    return re.sub(r"\s+", " ", text).strip()


def unspellable(text: str, alphabet: str = "") -> str:
    """The characters of a normalised text that an alphabet lacks, each once, in order; separators are in all of them.

    Without an alphabet: those that stand on no plate of any country, being neither letters nor digits.
    """
    there = alphabet.__contains__ if alphabet else str.isalnum
    return "".join(dict.fromkeys(c for c in text if c not in SEPARATORS and not there(c)))


@lru_cache(maxsize=4096)
def kind_of(character: str) -> str:
    """D digit, P province, L letter of A-Z or an accented one; else the script's name as Unicode has it, as HANGUL.

    "" for what stands for itself alone: separators, and the characters that say a Chinese plate's kind.
    """
    if character in SEPARATORS + CHINESE_KINDS:
        return ""
    found = next((kind for kind in "DPL" if character in KINDS[kind]), "")
    script = unicodedata.name(character, "?").split()[0]
    return found or ("L" if script == "LATIN" else script)


@lru_cache(maxsize=4096)
def kin(character: str, alphabet: str) -> str:
    """The characters of an alphabet that may stand where this one does: digits for a digit, and so on (`kind_of`).

    Where a letter of A-Z stands no accented one may: most countries have none.
    """
    kind = kind_of(character)
    strange = ACCENTED if character in LETTERS else ""
    return "".join(c for c in alphabet if kind and kind_of(c) == kind and c not in strange) or character


def characters(text: str) -> str:
    """The text without separators: what a reader is expected to read."""
    return "".join(c for c in text if c not in SEPARATORS)


def says_unreadable(text: str, words: Iterable[str]) -> bool:
    """Whether a normalised text is none of a plate's: one of the words, or nothing but marks, such as ### or XXXX.

    words: in any case, with any separators.
    """
    plain = characters(text)
    marks_only = {c for c in plain if c.isalnum()} <= ({"X"} if len(plain) > 2 else set())
    return marks_only or plain in _plainly(tuple(words))


@lru_cache
def _plainly(words: tuple[str, ...]) -> frozenset[str]:
    return frozenset(characters(normalise(word)) for word in words)


def behind_province(text: str) -> str:
    """The characters behind the province of a Chinese plate, which single it out nearly alone; all of any other's."""
    return characters(text).lstrip(PROVINCES)


def spell_like(text: str, pattern: str) -> str:
    """A text without separators, with those of the pattern put in: 'ABC1234' like 'LLL-DDDD' is 'ABC-1234'."""
    rest = iter(text)
    return "".join(c if c in SEPARATORS else next(rest) for c in pattern)


def canonical(text: str) -> str:
    """The text as readings are compared: without separators, and of the pairs people confuse (O/0, I/1, Q/0) one."""
    return characters(text).translate(FOLD)


def same_reading(a: str, b: str) -> bool:
    """Whether two texts agree up to separators and the pairs people label inconsistently."""
    return canonical(a) == canonical(b)


class SortedTexts(Container[str]):
    """Texts that are looked up by binary search, which takes microseconds.

    stored: str (n,), sorted, or the file that `in_file` wrote: mapped into memory when first used, and never pickled.
    """

    def __init__(self, stored: np.ndarray | Path):
        self.stored = stored

    def __contains__(self, text: object) -> bool:
        if (
            not isinstance(text, str) or len(text) * 4 > self._texts.dtype.itemsize
        ):  # longer than any; numpy would widen them all to compare
            return False
        place = int(np.searchsorted(self._texts, text))
        return place < len(self._texts) and bool(self._texts[place] == text)

    @cached_property
    def _texts(self) -> np.ndarray:
        return np.load(self.stored, mmap_mode="r") if isinstance(self.stored, Path) else self.stored

    def __getstate__(self) -> dict:
        return {"stored": self.stored}

    def in_file(self, path: Path) -> SortedTexts:
        """The same texts, written to a file."""
        with path.open("wb") as file:
            np.save(file, self._texts)
        return SortedTexts(path)


class Readings(Container[str]):
    """A set of texts that contains whatever reads like one of them: ABC-1234 is there where ABC1234 is."""

    def __init__(self, texts: Iterable[str]):
        self._canonical: frozenset[str] | SortedTexts = frozenset(map(canonical, texts))

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and canonical(text) in self._canonical

    def in_file(self, path: Path) -> Readings:
        """The same set, its texts in a file (see `SortedTexts.in_file`)."""
        readings, texts = Readings(()), self._canonical
        texts = texts if isinstance(texts, SortedTexts) else SortedTexts(np.array(sorted(texts), dtype=str))
        readings._canonical = texts.in_file(path)
        return readings


@dataclass(frozen=True)
class Group:
    """Sources whose new texts are drawn together: one layout, one split, one grammar.

    positions: the alphabet of each character; one character alone is fixed, such as a separator. weight: the group's
    share of the run, 0..1. sources: number of photographs, 0 for endless (rendered). blocked: words that no text may
    hold. longer: how many characters more the new texts have than their sources, negative for fewer.
    """

    layout: str
    split: str
    positions: tuple[str, ...]
    weight: float
    sources: int
    blocked: tuple[str, ...] = ()
    longer: int = 0

    @property
    def name(self) -> str:
        """For messages: layout, split and pattern, as in "us-texas/train/LLLDDDD"."""
        return f"{self.layout or 'corpus'}/{self.split}/{pattern(self.positions)}"


def within_one(a: str, b: str) -> bool:
    """Whether at most one character changed, added or left out makes a text the other, up to `canonical` spelling."""
    return Levenshtein.distance(canonical(a), canonical(b), score_cutoff=1) <= 1


@dataclass(frozen=True)
class Taken:
    """Texts that may not be drawn. planned: those that are drawn already."""

    forbidden: Container[str]
    reserved: frozenset[str]
    planned: Container[str] = frozenset()

    def __contains__(self, text: str) -> bool:
        return text in self.forbidden or text in self.reserved or text in self.planned


def pattern(positions: Iterable[str]) -> str:
    """A letter per position: D digits, L letters, P provinces, S another script's, A a mixture; what is fixed as it is."""
    return "".join(alphabet if len(alphabet) == 1 else _kind(alphabet) for alphabet in positions)


def _kind(alphabet: str) -> str:
    kinds = {kind_of(c) for c in alphabet}
    return "A" if len(kinds) > 1 else next(kind if kind in KINDS else "S" for kind in kinds)
