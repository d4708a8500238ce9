"""New texts for a dataset's plates, wherever the old ones stand: in annotations, in other strings, in names."""

from __future__ import annotations

import re
from collections.abc import Callable
from posixpath import basename, dirname, join, relpath, splitext

from rapidfuzz.distance import Indel

from platemint.pipeline.corpora.checks import plate_text
from platemint.pipeline.corpora.records import ABSOLUTE, PICTURES, Corners, Dataset, Frame, folded, stem
from platemint.pipeline.plate import FOLD, SEPARATORS, TELLING, characters

# Shorter texts stand in many a name by chance: they count only between characters that are neither letter nor digit.
_TELLING = 5
_RUN = re.compile(r"[^\W_]+(?:[-·. _][^\W_]+)*")  # a text may stand with or without separators
_MISREAD = 0.6  # likeness of a field and an old text of its picture, from which on the one is the other with mistakes
NO_TEXT = "unreadable"  # in names, for a plate that has no new text: empty ones would be no names
_NUMBERS = re.compile(r"(?!\d{5,}$)[-+\d.,;\s]*")  # coordinates; five digits or more alone may be a plate


class Rewording:
    """What becomes of the texts and names of a dataset. paths: of each frame's picture, old to new."""

    def __init__(self, dataset: Dataset, new_text: Callable[[Frame, str], str], rename: Callable | None):
        self.folder = dataset.folder
        self._texts = {
            frame.path: {
                old: new_text(frame, old)
                for old in dict.fromkeys(annotation.text for annotation in frame.annotations)
                if old
            }
            for frame in dataset.frames
        }
        self._read = {
            frame.path: {
                annotation.drawn: self._texts[frame.path][annotation.text]
                for annotation in frame.annotations
                if annotation.read
            }
            for frame in dataset.frames
        }
        self._own = {path: {_squeezed(old): new for old, new in texts.items()} for path, texts in self._texts.items()}
        self._all = {_squeezed(old): "" for old in (*dataset.lost, *dataset.named)}
        self._all |= {old: new for texts in reversed(self._own.values()) for old, new in texts.items()}
        self._lengths = sorted({len(old) for old in self._all if old}, reverse=True)
        self.paths = self._new_paths(rename)

    def text(self, picture: str, raw: str, drawn: Corners = ()) -> str:
        """The new text of a plate whose annotation says `raw`: as it is, where it stays or was never readable.

        drawn: the plate's corners as the annotation has them: where it says nothing, the plate may have been read.
        """
        old = plate_text(raw, self.folder.unreadable)
        new = self._texts[picture].get(old, old) if old else self._read[picture].get(drawn, "")
        if new == old:
            return raw
        return new.lower() if old and raw.islower() else new

    def swap(self, string: str, picture: str = "") -> str:
        """A string with every old text in it replaced, in any case and with or without separators.

        picture: the one the string is about; where a text stands for other new ones elsewhere, its own counts.
        """
        own = self._own.get(picture, {})
        return _RUN.sub(lambda run: self._swapped(run[0], own), string)

    def field(self, string: str, picture: str) -> str:
        """The same for a field of one of the picture's annotations.

        A field that is an old text but for mistakes, as some reader has read it, comes out empty.
        """
        swapped = self.swap(string, picture)
        return "" if swapped == string and self._is_misread(string, picture) else swapped

    def other(self, string: str, picture: str = "") -> str:
        """The same for a field that is neither text nor name: coordinates stay."""
        return string if _NUMBERS.fullmatch(string) else self.field(string, picture)

    def _is_misread(self, string: str, picture: str) -> bool:
        """Numbers are not: identifiers, times and the like share digits with a plate by chance."""
        squeezed = _squeezed(string)
        if not _RUN.fullmatch(string.strip()) or len(squeezed) < TELLING or squeezed.isdecimal():
            return False
        replaced = (old for old, new in self._own.get(picture, {}).items() if old != _squeezed(new))
        return any(Indel.normalized_similarity(old, squeezed) >= _MISREAD for old in replaced)

    def anywhere(self, value: object, picture: str = "") -> object:
        """The same for the strings in a JSON value."""
        if isinstance(value, dict):
            return {key: self.anywhere(item, picture) for key, item in value.items()}
        if isinstance(value, list):
            return [self.anywhere(item, picture) for item in value]
        return self.other(value, picture) if isinstance(value, str) else value

    def reference(self, name: str, picture: str, note: str = "") -> str:
        """How an annotation names a picture from now on that it names `name`: its suffix stays, even a wrong one.

        note: the annotation file, where names count from its folder; then a path from a machine's root becomes one
        from there, since it would still mean the old picture.
        """
        if note and ABSOLUTE.match(name):
            return relpath(self.paths[picture], dirname(self.note(note, "")) or ".")
        cut = max(name.rfind("/"), name.rfind("\\")) + 1
        head, base = name[:cut], name[cut:]
        old, new = stem(picture), stem(self.paths[picture])
        if old != new:
            suffix = splitext(base)[1]
            base = new + (suffix if suffix.lower() in PICTURES else "")
        return self.swap(head) + base

    def note(self, note: str, picture: str) -> str:
        """The new path of an annotation file: one that has its picture's stem keeps having it."""
        base = basename(note)
        if not picture or folded(stem(note)) != folded(stem(picture)):
            base = self.swap(base)
        elif (new := stem(self.paths[picture])) != stem(picture):
            base = new + splitext(base)[1]
        return join(self.swap(dirname(note)), base)

    def _new_paths(self, rename: Callable | None) -> dict[str, str]:
        """A new path for each picture, no two alike even without their suffixes: annotation files share their stems.

        Those that were alike without them stay so where they can: one annotation file may be about both.
        """
        wanted = {}
        for old in self._texts:
            name, suffix = splitext(basename(old))
            name = rename(name, old, self) if rename else self.swap(name, old)
            wanted[old] = join(self.swap(dirname(old)), name), suffix
        kept = {old for old, new in wanted.items() if old == "".join(new)}
        taken = {wanted[old][0].casefold() for old in kept}
        shared: dict[tuple[str, str], str] = {}
        paths = {}
        for old, (new, suffix) in wanted.items():
            key, name, number = (splitext(old)[0], new), new, 2
            while old not in kept and key not in shared and name.casefold() in taken:
                name, number = f"{new}-{number}", number + 1
            name = new if old in kept else shared.setdefault(key, name)
            taken.add(name.casefold())
            paths[old] = name + suffix
        return paths

    def _swapped(self, run: str, own: dict[str, str]) -> str:
        at = [i for i, c in enumerate(run) if c.isalnum()]
        squeezed = _squeezed(run)
        done, end, i = "", 0, 0
        while i < len(at):
            n, new = next(self._texts_at(squeezed, at, i, own), (1, None))
            if new is not None:
                last = at[i + n - 1] + 1
                done += run[end : at[i]] + _spelled(run[at[i] : last], new)
                end = last
            i += n
        return done + run[end:]

    def _texts_at(self, squeezed: str, at: list[int], i: int, own: dict[str, str]):
        """Length and new text of old texts that begin at a character, the longest first."""
        for n in (n for n in self._lengths if i + n <= len(at)):
            key = squeezed[i : i + n]
            new = own.get(key, self._all.get(key))
            if new is not None and (n >= _TELLING or _alone(at, i, n)):
                yield n, new


def _alone(at: list[int], i: int, n: int) -> bool:
    """Whether something else stands before and behind n characters of a run."""
    end = i + n
    return (i == 0 or at[i] - at[i - 1] > 1) and (end == len(at) or at[end] - at[end - 1] > 1)


def _squeezed(text: str) -> str:
    """Letters and digits only, as readings are compared; one character for each of the text's."""
    return "".join(c.upper()[0] for c in text if c.isalnum()).translate(FOLD)


def _spelled(found: str, new: str) -> str:
    """A new text in the manner of the old one as it was found: separators only where it had some, and its case."""
    if _squeezed(found) == _squeezed(new):
        return found
    new = (new if any(c in SEPARATORS + "_" for c in found) else characters(new)) or NO_TEXT
    return new.lower() if found.islower() else new
