"""CCPD: names of pictures hold box, corners and text; splits/SPLIT.txt lists them, green plates lie in a folder of it.

A picture is one plate, so its box is the picture. Area is in parts of a thousand, tilts are 90, as of a level plate;
brightness is the mean and blur the variance of the Laplacian, both of grey values (https://github.com/detectRecog/CCPD).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from platemint.pipeline.corpora.formats import ccpd
from platemint.pipeline.exports.files import lines_per_split, write_file
from platemint.pipeline.exports.plates import ExportedPlates, Labelled
from platemint.pipeline.plate import PlatemintError, characters
from platemint.pipeline.storage import decode

BLUE, GREEN = "ccpd_base", "ccpd_green"  # of seven characters, of eight


@contextmanager
def writer(plates: ExportedPlates, folder: Path) -> Iterator[Callable[[Labelled], str]]:
    with lines_per_split(folder, "splits/{split}.txt") as lists:

        def add(plate: Labelled) -> str:
            green = len(characters(plate.text)) == max(ccpd.LENGTHS)
            place = f"{GREEN}/{plate.split}" if green else BLUE
            name = _free(folder / place, plate)
            write_file(folder / place / name, plate.data)
            if not green:
                lists[plate.split].write(f"{place}/{name}\n")
            return f"{place}/{name}"

        yield add


def _free(folder: Path, plate: Labelled) -> str:
    """The name of a plate's picture. Its blur is one more where another picture has all the same.

    Raises ValueError where CCPD cannot write the text, and for a picture that cannot be decoded.
    """
    try:
        indices = ccpd.encoded(plate.text, "")
    except PlatemintError:
        raise ValueError(
            f"CCPD has no name for {plate.text}: it takes a province, a letter and five or six letters or digits, "
            "without I and O"
        ) from None
    grey = cv2.cvtColor(decode(plate.data), cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    box = f"0&0_{width}&{height}-{width}&{height}_0&{height}_0&0_{width}&0"
    bright, blur = round(grey.mean()), round(cv2.Laplacian(grey, cv2.CV_64F).var())
    while (folder / (name := f"1000-90_90-{box}-{indices}-{bright}-{blur}{plate.suffix}")).exists():
        blur += 1
    return name
