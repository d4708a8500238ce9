"""Looks for source texts in a tree of files: proof that an anonymized dataset does not spell them anywhere.

Every byte of every file is searched, and every name. A text is found as part of something longer, in any case, with any
separators or without, in UTF-8 and UTF-16, with %XX and \\uXXXX for characters, in compressed chunks of PNG files, and
a Chinese plate also without its province. Where a text is a number or a word of an annotation file's format, it is
recognised by the field that it stands in. Parquet, LMDB and tar files are searched in what they hold, decompressed, part
by part. It is not found in archives and the like, which are listed as unread, nor
in base64, as HTML entities or as pixels that show it, nor where it is broken over lines or folders.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from platemint.pipeline.anonymize.file_parts import PIXELS, Bytes, Segment, inflated, mapped, segments
from platemint.pipeline.anonymize.literals import literals
from platemint.pipeline.corpora import containers
from platemint.pipeline.corpora.records import Part
from platemint.pipeline.plate import DIGITS, LETTERS, TELLING, PlatemintError, behind_province

BLOCK = 1 << 18  # bytes searched at once: as many as a processor's cache takes; even, for UTF-16
OVERLAP = 512  # bytes of the next block searched with it: a text is no longer, whatever is between its characters
CLOSED = {
    b"PAR1": "Parquet", b"PK\3\4": "zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"%PDF": "PDF",
}  # fmt: skip

# A character's code is its place in this, from 1; anything else is 0, and separators are left out. To those count all
# bytes of "·•‧・–—" in UTF-8 (\xb7 is "·" in Latin-1 and UTF-16 too): what they let through besides is far from text.
_SPELLED = DIGITS + LETTERS
_BASE = len(_SPELLED) + 1
_APART = 255
_CODES = np.zeros(256, dtype=np.uint8)
for _code, _character in enumerate(_SPELLED, 1):
    _CODES[[ord(_character), ord(_character.lower())]] = _code
_CODES[list("-._ ·•‧・–—".encode())] = _APART
_TABLE = _CODES.tobytes()
# Written so that each begins with characters that are sure to be there: ten times as fast as one with both in it.
_PERCENT = re.compile(rb"%[0-9A-Fa-f]{2}(?:%[0-9A-Fa-f]{2})*")
_JSON = re.compile(rb"\\u[0-9A-Fa-f]{4}(?:\\u[0-9A-Fa-f]{4})*")


@dataclass(frozen=True)
class Hit:
    """A source text in the tree. path: relative to its root. where: "name", "bytes", "compressed text", "pixels"
    or "literals".

    offset: in the file, of the text's first byte, or of the chunk that holds it compressed; in the name for a name.
    """

    path: str
    where: str
    offset: int
    text: str


@dataclass
class Scan:
    """What was found. hits: outside of coded pictures; there must be none.

    literals: hits in what stands in annotation files because of their format (see `pipeline.anonymize.literals`).
    chance: hits inside coded pictures, where any short text comes up at some time, and expected: how many there would
    be if the bytes there followed each other at random. A JPEG's standard tables spell 456789 and CDEFGHIJSTUVWXYZ.
    unsearched: texts that cannot be looked for, being found everywhere (fewer than `TELLING` characters, not counting
    separators and province) or not spelled in A-Z and 0-9. unread: what was not looked into, and why.
    """

    hits: list[Hit] = field(default_factory=list)
    chance: list[Hit] = field(default_factory=list)
    literals: list[Hit] = field(default_factory=list)
    expected: float = 0.0
    unsearched: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0


def scan(root: str | Path, texts: Iterable[str], but: Container[str] = ()) -> Scan:
    """Searches a folder's files and all names in it. texts: normalised. Never follows a link.

    but: names of what lies in the folder itself and is left out: it will not stay.
    Raises PlatemintError where there is no folder.
    """
    if not Path(root).is_dir():
        raise PlatemintError(f"{root}: no such folder")
    searched = _Search(Path(root), texts, but)
    searched.run()
    return searched.found


class _Texts:
    """Texts to look for, and how. spelled: {codes: text}."""

    def __init__(self, texts: Iterable[str]):
        self.spelled: dict[bytes, str] = {}
        self.unsearched = []
        for text in sorted(set(texts)):
            plain = behind_province(text)
            if len(plain) < TELLING or not plain.isascii():
                self.unsearched.append(text)
            else:
                self.spelled.setdefault(plain.encode().translate(_TABLE), text)
        self.lengths = sorted(set(map(len, self.spelled)))
        self.begins = np.zeros(_BASE**TELLING, dtype=bool)  # by the number that the first `TELLING` codes make
        for codes in self.spelled:
            self.begins[_numbers(codes)[0]] = True

    def find(self, data: bytes) -> dict[tuple[int, int, str], None]:
        """Start, end and text of each hit, with escaped characters as they are and as what they stand for."""
        plain = _JSON.sub(_unescaped, _PERCENT.sub(_unescaped, data))
        return dict.fromkeys([*self._find(data), *(self._find(plain) if plain != data else ())])

    def _find(self, data: bytes) -> Iterator[tuple[int, int, str]]:
        yield from self._find_codes(data.translate(_TABLE))
        # UTF-16 of either byte order is every second byte, with 0 before or behind.
        found = np.frombuffer(data, dtype=np.uint8)
        zero = np.pad(found == 0, 1, constant_values=True)
        if (zero[:-6] & zero[2:-4] & zero[4:-2] & zero[6:]).any():
            codes = _CODES[found] * (zero[:-2] | zero[2:])
            for begin in (0, 1):
                hits = self._find_codes(codes[begin::2].tobytes())
                yield from ((begin + 2 * start, begin + 2 * end, text) for start, end, text in hits)

    def _find_codes(self, codes: bytes) -> Iterator[tuple[int, int, str]]:
        close = codes.translate(None, bytes([_APART]))
        places = None
        for start in np.flatnonzero(self.begins[_numbers(close)]).tolist():
            for length in (n for n in self.lengths if start + n <= len(close)):
                if text := self.spelled.get(close[start : start + length]):
                    if places is None:
                        places = np.flatnonzero(np.frombuffer(codes, dtype=np.uint8) != _APART)
                    yield int(places[start]), int(places[start + length - 1]) + 1, text

    def expected(self, counts: np.ndarray) -> float:
        """How often texts come in bytes that come so often, int64 (256,), each whatever stands before it."""
        total = int(counts.sum())
        share = np.bincount(_CODES, counts, _APART + 1) / max(total, 1)
        between = 1 / (1 - min(share[_APART], 0.99))  # any number of separators may stand there
        found = 0.0
        for length in self.lengths:
            same = [codes for codes in self.spelled if len(codes) == length]
            table = np.frombuffer(b"".join(same), dtype=np.uint8).reshape(-1, length)
            found += share[table].prod(1).sum() * between ** (length - 1)
        return float(total * found)


class _Search:
    """One walk through a tree."""

    def __init__(self, root: Path, texts: Iterable[str], but: Container[str]):
        self.root, self.texts, self.but = root, _Texts(texts), but
        self.found = Scan(unsearched=self.texts.unsearched)
        self.counts = np.zeros(256, dtype=np.int64)  # of bytes in coded pictures

    def run(self) -> None:
        for place, folders, files in os.walk(self.root, onerror=lambda bad: self.leave(bad.filename, bad.strerror)):
            if Path(place) == self.root:
                folders[:], files = ([name for name in names if name not in self.but] for names in (folders, files))
            for path in (Path(place, name) for name in sorted(folders) + sorted(files)):
                self.name(path.name, self.relative(path))
                if path.is_symlink() or not path.is_dir():
                    self.entry(path)
        self.found.expected = self.texts.expected(self.counts)

    def relative(self, path: str | Path) -> str:
        return Path(path).relative_to(self.root).as_posix().encode(errors="backslashreplace").decode()

    def leave(self, path: str | Path, reason: str) -> None:
        self.unread(self.relative(path), reason)

    def unread(self, name: str, reason: str) -> None:
        self.found.unread.append(f"{name}: {reason}")

    def name(self, name: str, path: str) -> None:
        for start, _, text in self.texts.find(os.fsencode(name)):
            self.found.hits.append(Hit(path, "name", start, text))

    def entry(self, path: Path) -> None:
        """Searches what is no folder."""
        if path.is_symlink():
            self.name(os.readlink(path), self.relative(path))
            return self.leave(path, "a link, which is not followed")
        if not path.is_file():
            return self.leave(path, "not a file")
        try:
            self.file(path)
        except OSError as fault:
            self.leave(path, fault.strerror)

    def file(self, path: Path) -> None:
        self.found.files += 1
        self.found.bytes += path.stat().st_size
        name = self.relative(path)
        parts = containers.container_parts(path)
        try:
            for part in parts or ():
                self.part(name, part)
        except ValueError as fault:
            self.leave(path, str(fault))
            with mapped(path) as data:
                return self.data(name, data)
        if parts is None:
            with mapped(path) as data:
                self.data(name, data)
                self.closed(name, data)

    def part(self, name: str, part: Part) -> None:
        """Searches a part of a file that holds many pictures."""
        name = f"{name}/{part.name}"
        if part.numbers:
            self.found.literals += [Hit(name, "literals", start, text) for start, _, text in self.hits(part.data)]
        else:
            self.data(name, part.data)
            self.closed(name, part.data)

    def data(self, name: str, data: Bytes) -> None:
        coded = []
        for segment in segments(data):
            if segment.kind == PIXELS:
                coded.append(segment)
                for block, _ in _blocks(data, segment.start, segment.end, 0):
                    self.counts += np.bincount(np.frombuffer(block, dtype=np.uint8), minlength=256)
            else:
                self.compressed(name, data, segment)
        hits = list(self.hits(data))
        pixels = [(segment.start, segment.end) for segment in coded]
        spans = literals(name, data) if hits and not coded else []
        for start, end, text in hits:
            if _within(start, end, pixels):
                self.found.chance.append(Hit(name, "pixels", start, text))
            elif _within(start, end, spans):
                self.found.literals.append(Hit(name, "literals", start, text))
            else:
                self.found.hits.append(Hit(name, "bytes", start, text))

    def closed(self, name: str, data: Bytes) -> None:
        """Lists what is compressed as a whole."""
        if kind := next((kind for magic, kind in CLOSED.items() if data[: len(magic)] == magic), ""):
            self.unread(name, f"{kind}: what it holds compressed cannot be seen")

    def compressed(self, name: str, data: Bytes, segment: Segment) -> None:
        text, whole = inflated(data, segment)
        for _, _, found in self.hits(text):
            self.found.hits.append(Hit(name, "compressed text", segment.start, found))
        if not whole:
            self.unread(name, f"compressed text at byte {segment.start} cannot be unpacked to its end")

    def hits(self, data: Bytes) -> Iterator[tuple[int, int, str]]:
        for block, begin in _blocks(data, 0, len(data), OVERLAP):
            for start, end, text in self.texts.find(block):
                if start < BLOCK:  # else the next block has it too
                    yield begin + start, begin + end, text


def _within(start: int, end: int, spans: list[tuple[int, int]]) -> bool:
    """Whether a hit lies inside one of some spans that are in order and apart."""
    before = bisect_right(spans, start, key=lambda span: span[0]) - 1
    return before >= 0 and end <= spans[before][1]


def _blocks(data: Bytes, start: int, end: int, overlap: int) -> Iterator[tuple[bytes, int]]:
    for begin in range(start, end, BLOCK):
        yield data[begin : min(begin + BLOCK + overlap, end)], begin


def _numbers(codes: bytes) -> np.ndarray:
    """The number that each `TELLING` codes in a row make, uint32 (n - TELLING + 1,); one with a 0 in it is no text's."""
    code = np.frombuffer(codes, dtype=np.uint8)
    n = max(len(code) - TELLING + 1, 0)
    number = np.zeros(n, dtype=np.uint32)
    for place in range(TELLING):
        number = number * np.uint32(_BASE) + code[place : place + n]
    return number


def _unescaped(escaped: re.Match[bytes]) -> bytes:
    """What an escape stands for, in as many bytes, so that all else stays where it is."""
    sequence = escaped[0]
    if sequence.startswith(b"%"):
        return bytes.fromhex(sequence.replace(b"%", b"").decode()).ljust(len(sequence))
    characters = (chr(int(code, 16)) for code in sequence.split(b"\\u")[1:])
    return "".join(characters).encode(errors="surrogatepass").ljust(len(sequence))
