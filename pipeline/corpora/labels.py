"""What every dataset format is read into."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from posixpath import basename

from platemint.pipeline.plate import (
    LONGEST,
    UNREADABLE,
    PlatemintError,
    characters,
    normalise,
    says_unreadable,
    unspellable,
)

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MOST_LABEL = (
    1000  # characters of a label that are looked at: what is longer is none, and a file may hold it a million times
)
MOST_REASON = 300  # characters: a reason may quote what stands in a file
SPLIT = re.compile(r"\w{1,50}")  # splits name files
_SPLITS = {
    "train": re.compile(r"train(ing)?(set)?"),
    "val": re.compile(r"(val(id(ation)?)?|dev(elopment)?)(set)?"),
    "test": re.compile(r"(test(ing)?|eval(uation)?)(set)?"),
}
_MARKS = {  # byte order marks; that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


Corners = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Label:
    """One labelled plate. path: of its picture, absolute. text: normalised (see `pipeline.plate.normalise`). split:
    "train", ..., "" where nothing names one.

    name, row: how the corpus names the picture, and the line in its label file ("" without one). corners: of the plate,
    4 points x, y in pixels of the upright picture, clockwise from the upper left; () where it is the whole picture.
    member: which picture of a file that holds many, such as a key of an LMDB; "" where the file is the picture.
    """

    path: Path
    text: str
    split: str
    name: str
    row: str
    corners: Corners = ()
    member: str = ""

    @property
    def place(self) -> str:
        """Where the picture is, for messages."""
        return f"{self.path}/{self.member}" if self.member else str(self.path)


@dataclass
class Corpus:
    """Labels of a dataset. root: its folder; no link is followed out of it.

    unreadable: words that stand where a text should (see `says_unreadable`). set_aside: what cannot be used, as
    {"path": name, "row": row, "reason": why}. lost: texts of plates that are set aside. format: in which it was found
    to be written, and evidence: by what.
    """

    root: Path
    unreadable: Collection[str] = UNREADABLE
    labels: list[Label] = field(default_factory=list)
    set_aside: list[dict[str, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    format: str = ""
    evidence: str = ""

    @property
    def texts(self) -> frozenset[str]:
        """Every text of a plate of the corpus, whether the plate can be used or not."""
        return frozenset([*(label.text for label in self.labels), *self.lost])

    @property
    def read_as(self) -> str:
        """The format and what it was known by, for people."""
        return f"{self.format} ({self.evidence})"

    def add(
        self,
        name: str,
        text: object,
        split: str = "",
        row: int | str = "",
        folder: Path | None = None,
        corners: Corners = (),
    ) -> None:
        """Takes in one plate, or sets it aside.

        name: of its picture, absolute, or relative to `folder` or else to the root.
        """
        self._add(Label((folder or self.root).absolute() / name, "", split, name, str(row), corners), text)

    def add_member(self, file: Path, member: str, text: object, split: str = "") -> None:
        """Takes in one picture of a file that holds many, or sets it aside."""
        name = f"{file.relative_to(self.root).as_posix()}/{member}"
        self._add(Label(file.absolute(), "", split, name, "", member=member), text)

    def _add(self, label: Label, text: object) -> None:
        reason, text = _check(label.name, text, label.split, self.unreadable)
        if reason:
            self.put_aside(label.name, label.row, reason)
        else:
            self.labels.append(replace(label, text=text, split=standard_split(label.split)))

    def spell_with(self, alphabet: str) -> None:
        """Sets aside the plates whose texts an alphabet cannot spell."""
        for label in self.labels:
            if lacks := unspellable(label.text, alphabet):
                self.put_aside(label.name, label.row, f"the label holds {lacks}, which platemint cannot write")
                self.lost.append(label.text)
        self.labels = [label for label in self.labels if not unspellable(label.text, alphabet)]

    def put_aside(self, name: str, row: str, reason: str) -> None:
        """Notes why a picture is not used."""
        self.set_aside.append(unused(name, row, reason))


def counted(number: int, noun: str) -> str:
    """As in "1 file" and "2,000 files"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def unused(name: str, row: str, reason: str) -> dict[str, str]:
    """Why a picture is not used, in characters that any file can hold: names come in every encoding."""
    fields = {"path": name, "row": row, "reason": reason[:MOST_REASON]}
    return {key: text.encode(errors="backslashreplace").decode() for key, text in fields.items()}


def is_picture(path: str) -> bool:
    """Whether a file's name is a picture's; ._x beside x is what macOS keeps about it."""
    return path.lower().endswith(PICTURES) and not basename(path).startswith("._")


def words(text: str) -> list[str]:
    """The words of a path: labels/Subset_AC is labels, Subset, AC."""
    return [word for word in re.split(r"[\W_]+", text) if word]


@lru_cache(maxsize=4096)
def split_named(text: str) -> str:
    """The split that a path or word speaks of: train, val or test, "" for none. val2017 is val."""
    found = (
        split
        for word in words(text.lower())
        for split in _SPLITS
        if _SPLITS[split].fullmatch(word.rstrip("0123456789"))
    )
    return next(found, "")


@lru_cache(maxsize=4096)
def standard_split(name: str) -> str:
    """train, val or test for a split that is called so in other words, such as Validation; any other name as it is."""
    return next((split for split, spelled in _SPLITS.items() if spelled.fullmatch(name.lower())), name)


def decoded(data: bytes, errors: str = "strict") -> str:
    """The text of a file, in UTF-8 unless a byte order mark says UTF-16 or 32. Raises UnicodeDecodeError."""
    record, encoding = marked(data)
    return data[len(record) :].decode(encoding, errors)


def marked(data: bytes) -> tuple[bytes, str]:
    """The byte order mark of a file, b"" for none, and its encoding."""
    return next((item for item in _MARKS.items() if data.startswith(item[0])), (b"", "utf-8"))


def lines_of(text: str) -> list[str]:
    """The lines of a text with their ends: other characters that may end one, such as U+2028, stand in labels."""
    return io.StringIO(text, newline="").readlines()


def ended(text: str) -> str:
    """The text with its last line ended, so that lines can be added below it."""
    return text if not text or text.endswith("\n") else text + "\n"


def read_text(path: Path) -> str:
    """A label file. Raises PlatemintError where it cannot be read."""
    try:
        return decoded(path.read_bytes())
    except UnicodeDecodeError as fault:
        raise PlatemintError(f"{path}: not {fault.encoding.upper()} (byte {fault.start}); save it as UTF-8") from None
    except OSError as fault:
        raise PlatemintError(f"{path}: cannot be read: {fault.strerror}") from None


def lines(path: Path) -> list[str]:
    """The lines of a label file without their ends. Raises PlatemintError where it cannot be read."""
    return [line.rstrip("\r\n") for line in lines_of(read_text(path))]


def _check(name: str, text: object, split: str, unreadable: Collection[str]) -> tuple[str, str]:
    """The reason why a label cannot be used ("" for none), and its normalised text."""
    if not name or "\0" in name:
        return "no file is named", ""
    if text is None or text == "":
        return "no label", ""
    if not isinstance(text, str):
        return f"the label {text!r} is not text", ""
    text = normalise(text[:MOST_LABEL])
    if not characters(text):
        return "no label", ""
    if says_unreadable(text, unreadable):
        return "the label says that the plate is unreadable", ""
    if unspellable(text):
        return f"the label holds {unspellable(text)}, which platemint cannot write", ""
    if len(text) > LONGEST:
        return f"the label is longer than {LONGEST} characters", ""
    if split and not SPLIT.fullmatch(split):
        return f"the split {split!r} is not a word", ""
    return "", text
