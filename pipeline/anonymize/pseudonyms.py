"""Pseudonyms: which new text each real plate of a dataset gets.

`Drawn` and `Keyed` are both called with a real text, its frame and the number of the attempt, and give the new text,
separators where the real one has them; "" where there is none, and then the plate has to be withheld.

Two labels are the same plate when they differ in separators only. Labels with O and with 0 are two plates: of such
pairs either may be meant (there are plates with O and plates with Q), and a letter's new text is a letter. A plate
labelled both ways gets two new texts. What must not be drawn is compared the other way round, as it reads: O like 0.
"""

from __future__ import annotations

import hmac
import math
import os
import re
import secrets
import stat
from collections.abc import Container, Iterable, Sequence
from itertools import product
from pathlib import Path

from platemint.pipeline.balance.grammar import letters_in_use, positions_like
from platemint.pipeline.draw import draw_targets
from platemint.pipeline.plate import (
    TELLING,
    Group,
    PlatemintError,
    behind_province,
    canonical,
    characters,
    pattern,
    spell_like,
)

ATTEMPTS = 6  # texts an occurrence has: one, and more for a plate that could not be edited
SAMPLED = 2000  # texts of a pattern looked at, or all it has, to estimate how many are free
TRIES = 1000  # random texts until a pattern counts as used up
FREE = 0.99  # of a pattern's texts, for exact balance: whatever the others are, most of each character's are left
ROUNDS = 24  # FF1 has 10; small domains are safe from message recovery with more (Bellare, Hoang, Tessaro, CCS 2016)
KEY_BYTES = 32


class Forbidden:
    """Texts that no plate may get, as a container. real: those of the dataset; blocked, reserved: as of a recipe.

    Forbidden is what reads like a real text, holds one (of `TELLING` characters or more), holds a blocked word or is a
    reserved one. Of Chinese plates, real and new, only the part behind the province counts.
    """

    def __init__(self, real: Iterable[str], blocked: Sequence[str] = (), reserved: Iterable[str] = ()):
        self._real = frozenset(canonical(behind_province(text)) for text in real)
        self._lengths = sorted({len(text) for text in self._real if len(text) >= TELLING})
        self._blocked, self._reserved = blocked, frozenset(reserved)

    def __contains__(self, text: str) -> bool:
        plain = characters(text)
        if plain in self._reserved or any(word in plain for word in self._blocked):
            return True
        read = canonical(behind_province(plain))
        parts = (read[start : start + n] for n in self._lengths for start in range(len(read) - n + 1))
        return read in self._real or any(part in self._real for part in parts)


class _Stream:
    """Random choices that a secret makes, and that nobody can predict without it: HMAC-SHA-256 of a counter."""

    def __init__(self, secret: bytes):
        self._secret, self._count = secret, 0

    def number(self) -> int:
        """0..2^256 - 1, the next one at every call."""
        self._count += 1
        return int.from_bytes(hmac.digest(self._secret, f"platemint draw 1 {self._count}".encode(), "sha256"))

    def choice(self, items: str) -> str:
        return items[self.number() % len(items)]  # of so large a number the remainder is even


class Drawn:
    """New texts drawn from a secret of one run: the same secret, the same texts. Without it nothing links old and new.

    secret: `KEY_BYTES` of the system's randomness. It outlives a process that is killed, so that the run can go on, and
    is thrown away when the run ends (see `pipeline.anonymize.unfinished`).
    occurrences: (real text, frame) of every plate. consistent: a real text has one new text in all frames, which
    follows a vehicle through the run, for whoever knows it in one frame. Otherwise it has another one in each frame.

    First attempts hold each character of a position equally often, plus or minus one, as `draw_targets` has it, and
    likewise second ones; all are different. Patterns that have too few free texts for that are left out of it: theirs
    are drawn one by one, and unless `consistent` may come again.
    """

    def __init__(
        self,
        secret: bytes,
        occurrences: Iterable[tuple[str, str]],
        forbidden: Container[str],
        consistent: bool = False,
    ):
        self._consistent, stream = consistent, _Stream(secret)
        keys = list(dict.fromkeys(self._key(text, frame) for text, frame in occurrences))
        letters = letters_in_use(text for text, _ in keys)
        wanted: dict[tuple[str, ...], list[int]] = {}
        for place, (text, _) in enumerate(keys):
            if _all_change(positions := positions_like(text, letters)):
                wanted.setdefault(positions, []).append(place)
        roomy = {p: places for p, places in wanted.items() if _has_room(p, ATTEMPTS * len(places), forbidden, stream)}
        used: set[str] = set()
        attempts = [[""] * len(keys) for _ in range(ATTEMPTS)]
        for texts in attempts:
            _draw_even(texts, roomy, forbidden, used, stream)
            for positions in (p for p in wanted if p not in roomy):  # in order, so that a secret gives the same texts
                for place in wanted[positions]:
                    texts[place] = _random_text(positions, forbidden, used if consistent else (), stream)
                    used.add(texts[place])
        self._texts = dict(zip(keys, zip(*attempts)))

    def __call__(self, text: str, frame: str, attempt: int = 0) -> str:
        """A new text for an occurrence, another one for each attempt, from 0; "" for more than `ATTEMPTS`."""
        texts = self._texts.get(self._key(text, frame), ())
        return spell_like(texts[attempt], text) if attempt < len(texts) and texts[attempt] else ""

    def _key(self, text: str, frame: str) -> tuple[str, str]:
        return characters(text), "" if self._consistent else frame


class Keyed:
    """New texts computed from a key: a plate has the same one in every frame, run and machine, and no two plates share.

    A Feistel network over the numbers of a pattern's texts, after FF1 of NIST SP 800-38G: halves added to each other
    modulo their size, the pattern as tweak. Unlike FF1 its round function is HMAC-SHA-256, positions have alphabets of
    different size, the two halves of a number are about equal, and what falls outside the domain goes round again
    (cycle walking). So it is no approved cipher. As with any, whoever has the key has all links back; a pattern of few
    texts (two digits) shows most of them to whoever knows the others; and that two frames show one plate is plain.

    Letters are A to Z, whatever the dataset uses, so that a pseudonym does not depend on what else is in it.
    """

    def __init__(self, key: bytes, forbidden: Container[str]):
        self._secret, self._forbidden = key, forbidden

    def __call__(self, text: str, frame: str, attempt: int = 0) -> str:
        """The new text; "" at a second attempt, where it is forbidden, and for a label with other letters than A-Z or
        a Chinese one with I or O (GA 36).
        """
        plain = characters(text)
        positions = positions_like(plain)
        spelled = all(c in alphabet for c, alphabet in zip(plain, positions))
        if attempt or not spelled or not _all_change(positions):
            return ""
        new = _text(_permuted(self._secret, pattern(positions), _number(plain, positions), _size(positions)), positions)
        # Not walked past like what is outside the domain: if new is a real plate X, X has a pseudonym of its own, and
        # walking on from X would give this plate the same one. It would also change with the dataset.
        return "" if new in self._forbidden else spell_like(new, text)


def read_key(path: str | Path, apart_from: Iterable[str | Path]) -> bytes:
    """The key of a file, 32 bytes, in it as hexadecimal digits; made of the system's randomness where there is none.

    apart_from: folders that may be given away, so that no key must be inside: the corpus and the output. Raises
    PlatemintError, which never quotes what the file holds, for a file there, a link, one that others can read, and
    one that holds no key. File modes are POSIX's.
    """
    place = outside_of(path, apart_from, "key-file")
    try:
        return _make_key(place)
    except FileExistsError:
        mode, digits = _read_file(place)
    except OSError as fault:
        raise PlatemintError(f"{path}: key-file: cannot be made: {fault.strerror}") from None
    if not stat.S_ISREG(mode):
        raise PlatemintError(f"{path}: key-file: is not a file itself, but a link, a folder or the like")
    if mode & 0o077:
        raise PlatemintError(f"{path}: key-file: others have access to it (mode {mode & 0o777:o}); chmod 600 {path}")
    if not re.fullmatch(rb"[0-9a-f]{%d}\n?" % (2 * KEY_BYTES), digits):
        raise PlatemintError(f"{path}: key-file: does not hold {2 * KEY_BYTES} hexadecimal digits and nothing else")
    return bytes.fromhex(digits.decode())


def outside_of(path: str | Path, folders: Iterable[str | Path], field: str) -> Path:
    """The place of a secret file. Raises PlatemintError where it is inside a folder that may be given away."""
    path = Path(path)
    place = path.parent.resolve() / path.name
    for folder in folders:
        if place.is_relative_to(Path(folder).resolve()):
            name = field.removesuffix("-file")
            raise PlatemintError(f"{path}: {field}: is inside {folder}; keep the {name} apart from what is given away")
    return place


def _read_file(place: Path) -> tuple[int, bytes]:
    """Mode and first bytes of a file, never of what a link leads to. Raises PlatemintError where it cannot be read."""
    mode = os.lstat(place).st_mode
    if not stat.S_ISREG(mode):  # not opened: a pipe would be waited for
        return mode, b""
    try:
        with open(place, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
            return os.fstat(file.fileno()).st_mode, file.read(2 * KEY_BYTES + 2)
    except OSError as fault:
        raise PlatemintError(f"{place}: key-file: cannot be read: {fault.strerror}") from None


def _make_key(place: Path) -> bytes:
    """Raises FileExistsError where there is anything by that name, a link to nowhere included."""
    key = secrets.token_bytes(KEY_BYTES)
    with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())  # pseudonyms made with a key that a power cut takes could never be made again
    return key


def _draw_even(
    texts: list[str],
    wanted: dict[tuple[str, ...], list[int]],
    forbidden: Container[str],
    used: set[str],
    stream: _Stream,
) -> None:
    """Puts a text at each place that is wanted of a pattern, none of them used before."""
    if not wanted:
        return
    groups = [Group("", "all", positions, len(places), len(places)) for positions, places in wanted.items()]
    rest, count = [iter(places) for places in wanted.values()], sum(map(len, wanted.values()))
    targets = draw_targets(groups, count, stream.number(), forbidden, used)
    for group, text in zip(targets.group.tolist(), targets.text.tolist()):
        texts[next(rest[group])] = text
    used.update(targets.text.tolist())


def _has_room(positions: tuple[str, ...], count: int, forbidden: Container[str], stream: _Stream) -> bool:
    """Whether so many texts of a pattern can be had evenly: nearly all are free, and four times as many."""
    if _size(positions) <= SAMPLED:
        looks = list(map("".join, product(*positions)))
    else:
        looks = ["".join(map(stream.choice, positions)) for _ in range(SAMPLED)]  # counted, never used
    return 4 * count <= _size(positions) and sum(text not in forbidden for text in looks) >= FREE * len(looks)


def _all_change(positions: tuple[str, ...]) -> bool:
    """Whether every character can become another: the only one of its script in a dataset could not."""
    return all(len(alphabet) > 1 for alphabet in positions)


def _random_text(positions: tuple[str, ...], forbidden: Container[str], used: Container[str], stream: _Stream) -> str:
    """A free text, "" where none is found."""
    texts = ("".join(map(stream.choice, positions)) for _ in range(TRIES))
    return next((text for text in texts if text not in forbidden and text not in used), "")


def _permuted(key: bytes, tweak: str, number: int, size: int) -> int:
    """Another number below `size`, one-to-one; key and tweak say which."""
    left = math.isqrt(size - 1) + 1
    right = -(-size // left)
    while True:
        a, b = divmod(number, right)
        for turn in range(0, ROUNDS, 2):
            a = (a + _pseudorandom(key, f"{tweak} {turn} {b}")) % left
            b = (b + _pseudorandom(key, f"{tweak} {turn + 1} {a}")) % right
        number = a * right + b
        if number < size:
            return number


def _pseudorandom(key: bytes, message: str) -> int:
    return int.from_bytes(hmac.digest(key, f"platemint pseudonym 1 {message}".encode(), "sha256"))


def _size(positions: tuple[str, ...]) -> int:
    return math.prod(map(len, positions))


def _number(text: str, positions: tuple[str, ...]) -> int:
    """A text's number among those of its pattern, 0.._size - 1."""
    number = 0
    for character, alphabet in zip(text, positions):
        number = number * len(alphabet) + alphabet.index(character)
    return number


def _text(number: int, positions: tuple[str, ...]) -> str:
    found = []
    for alphabet in reversed(positions):
        number, digit = divmod(number, len(alphabet))
        found.append(alphabet[digit])
    return "".join(reversed(found))
