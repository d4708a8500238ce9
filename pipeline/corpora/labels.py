"""What every dataset format is read into."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.plate import LONGEST, PlatemintError, characters, normalise, unspellable

SPLIT = re.compile(r"\w{1,50}")  # splits name files


@dataclass(frozen=True, slots=True)
class Label:
    """One labelled picture. path: absolute. text: normalised (see `pipeline.plate.normalise`). split: "train", ...

    name, row: how the corpus names the picture, and the line in its label file ("" without one).
    """

    path: Path
    text: str
    split: str
    name: str
    row: str


@dataclass
class Corpus:
    """Labels of a folder of pictures. root: no picture outside of it is opened.

    set_aside: what cannot be used, as {"path": name, "row": row, "reason": why}.
    """

    root: Path
    labels: list[Label] = field(default_factory=list)
    set_aside: list[dict[str, str]] = field(default_factory=list)

    def add(self, name: str, text: object, split: str = "", row: int | str = "", folder: Path | None = None) -> None:
        """Takes in one picture (name relative to `folder` or else to the root), or sets it aside. No split is train."""
        reason, text = _check(name, text, split)
        if reason:
            self.put_aside(name, str(row), reason)
        else:
            self.labels.append(Label((folder or self.root).absolute() / name, text, split or "train", name, str(row)))

    def put_aside(self, name: str, row: str, reason: str) -> None:
        """Notes why a picture is not used."""
        self.set_aside.append(unused(name, row, reason))


def unused(name: str, row: str, reason: str) -> dict[str, str]:
    """Why a picture is not used, in characters that any file can hold: names come in every encoding."""
    fields = {"path": name, "row": row, "reason": reason}
    return {key: text.encode(errors="backslashreplace").decode() for key, text in fields.items()}


def lines(path: Path) -> list[str]:
    """The lines of a label file. Raises PlatemintError where it cannot be read as UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as fault:
        raise PlatemintError(f"{path}: not UTF-8 (byte {fault.start}); save the labels as UTF-8") from None
    except OSError as fault:
        raise PlatemintError(f"{path}: cannot be read: {fault.strerror}") from None


def _check(name: str, text: object, split: str) -> tuple[str, str]:
    """The reason why a label cannot be used ("" for none), and its normalised text."""
    if not name or "\0" in name:
        return "no file is named", ""
    if text is None or text == "":
        return "no label", ""
    if not isinstance(text, str):
        return f"the label {text!r} is not text", ""
    text = normalise(text)
    if not characters(text):
        return "no label", ""
    if unspellable(text):
        return f"the label holds {unspellable(text)}, which platemint cannot write", ""
    if len(text) > LONGEST:
        return f"the label is longer than {LONGEST} characters", ""
    if split and not SPLIT.fullmatch(split):
        return f"the split {split!r} is not a word", ""
    return "", text
