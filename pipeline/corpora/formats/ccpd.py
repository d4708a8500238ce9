"""CCPD: the picture's name holds box, corners and text.

AREA-TILTS-BOX-VERTICES-INDICES-BRIGHTNESS-BLUR.jpg, as in
025-95_113-154&383_386&473-386&473_177&454_154&383_363&402-0_0_22_27_27_33_16-37-15.jpg: vertices begin at the lower
right; indices count in `PROVINCES`, `LETTERS`, then `CHARACTERS`, seven of them, for green plates eight; the last of
each alphabet means no character; box and vertices have to agree (https://github.com/detectRecog/CCPD).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from platemint.pipeline.corpora.records import Folder, Record, agreeing, box, numbers, points, stem
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.plate import PlatemintError, characters

PROVINCES = "皖沪津渝冀晋蒙辽吉黑苏浙京闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新警学O"
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZO"
CHARACTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789O"
NONE = "O"
LENGTHS = (7, 8)
NAME = re.compile(
    r"(?P<head>[^-]+-[^-]+-(?P<box>\d+&\d+_\d+&\d+)-(?P<corners>\d+&\d+(?:_\d+&\d+){3}))"
    r"-(?P<text>\d+(?:_\d+){6,7})(?P<tail>-\d+-\d+(?:-\d+)?)"
)


def fits(folder: Folder) -> bool:
    return any(NAME.fullmatch(stem(picture)) for picture in folder.pictures)


def read_names(folder: Folder) -> Iterator[Record]:
    """Names without & are of pictures that show no plate (CCPD-NP)."""
    for picture in folder.pictures:
        if "&" in picture:
            try:
                yield _mark(picture)
            except ValueError as fault:
                yield Record(picture, fault=str(fault))


def rename(name: str, picture: str, new: Rewording) -> str:
    """The new stem of a picture's name. Raises PlatemintError for a text that CCPD has no indices for."""
    match = NAME.fullmatch(name)
    if not match:
        return new.swap(name, picture)
    old = text_of_indices(match["text"])
    text = new.text(picture, old)
    return name if text == old else f"{match['head']}-{encoded(text, picture)}{match['tail']}"


def text_of_indices(indices: str) -> str:
    """The text of a name's indices. Raises ValueError for an index out of its alphabet."""
    values = [int(index) for index in indices.split("_")]
    if any(value >= len(alphabet) for value, alphabet in zip(values, _alphabets())):
        raise ValueError("an index of the name is out of its alphabet")
    return "".join(alphabet[value] for value, alphabet in zip(values, _alphabets())).replace(NONE, "")


def encoded(text: str, picture: str) -> str:
    """The indices of a text, of "" those of no character. Raises PlatemintError where CCPD cannot write it."""
    plain = characters(text) or NONE * LENGTHS[0]
    if len(plain) not in LENGTHS or any(
        (c == NONE) != (not text) or c not in alphabet for c, alphabet in zip(plain, _alphabets())
    ):
        raise PlatemintError(
            f"{picture}: a CCPD name cannot hold the new text {text}: it takes a province, a letter and five or six "
            "letters or digits, without I and O; draw another text"
        )
    return "_".join(str(alphabet.index(c)) for c, alphabet in zip(plain, _alphabets()))


def _mark(picture: str) -> Record:
    match = NAME.fullmatch(stem(picture))
    if not match:
        raise ValueError("not a name of CCPD's form")
    corners, sides = (numbers(re.split("[&_]", match[part])) for part in ("corners", "box"))
    return Record(picture, text_of_indices(match["text"]) or None, agreeing(points(corners), box(*sides)))


def _alphabets() -> list[str]:
    return [PROVINCES, LETTERS] + [CHARACTERS] * 6
