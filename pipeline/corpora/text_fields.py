"""Which fields of annotation tools hold a plate's text: people call them as they like."""

from __future__ import annotations

import re

from platemint.pipeline.corpora.name_texts import is_text_in_name
from platemint.pipeline.corpora.records import TEXT_KEYS
from platemint.pipeline.plate import normalise

# Letters only. The first count for things of whatever class, the others for plates alone: a bus has a number too.
OF_ANYTHING = tuple(key.replace("_", "") for key in TEXT_KEYS)
OF_PLATES = (
    "platenumber", "plateno", "platenum", "platestring", "platelabel", "numberplate", "number", "licenseplate",
    "licenceplate", "licenseplatenumber", "licenceplatenumber", "licenseplatetext", "licensenumber", "lp", "lptext",
    "lpnumber", "lpstring", "registration", "registrationnumber", "transcription", "transcript", "ocr", "ocrtext",
    "reading", "string", "value", "characters", "chars",
)  # fmt: skip

# Names of fields that say where a picture comes from or how its old plate was read: what they hold is about the source.
_OF_SOURCE = re.compile(r"path|file|ur[il]|source|origin|exif|gps|reading|score|hash|sha\d|md5")


def is_of_source(name: str) -> bool:
    """Whether a field of that name is about the source of a picture: in a new picture's record it has no place."""
    return bool(_OF_SOURCE.search(name.casefold()))


def holds_text(name: str, of_plate: bool) -> bool:
    """Whether a field of that name holds a text. of_plate: the field is one of a plate."""
    plain = re.sub(r"[\W\d_]+", "", name.casefold())
    return plain in OF_ANYTHING or (of_plate and plain in OF_PLATES)


def hidden_text(fields: dict[str, str]) -> str:
    """What is wrong where a field, {name: value}, looks like the text of a plate and is none's; "" where none does."""
    hidden = [name for name, value in fields.items() if is_text_in_name(normalise(value))]
    return (
        f"{', '.join(hidden)}: looks like a plate's text; call the field of a plate text, or take it out"
        if hidden
        else ""
    )
