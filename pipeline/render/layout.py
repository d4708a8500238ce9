"""Layouts: what a plate of one kind looks like, read from recipes/layouts/*.yaml. A new country is a new file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from platemint.pipeline.parsing import parse_yaml
from platemint.pipeline.plate import (
    DIGITS,
    LETTERS,
    LONGEST,
    PROVINCES,
    SEPARATORS,
    PlatemintError,
    normalise,
    unspellable,
)
from platemint.pipeline.render.glyphs import FONTS, HELD_OUT_FONTS

FOLDER = Path(__file__).parents[2] / "recipes" / "layouts"
HELD_OUT_COUNTRIES = ("CA", "IN", "MY", "NL")  # of layouts/held-out: nothing is trained on their plates unless named
CLASSES = {"D": DIGITS, "L": LETTERS, "A": DIGITS + LETTERS, "P": PROVINCES}

Color = tuple[int, int, int]
Positive = Annotated[float, Field(gt=0)]
Box = tuple[float, float, Positive, Positive]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Row(_Strict):
    """One row of characters. Lengths in millimetres, from the plate's upper left corner."""

    pattern: str = Field(
        min_length=1, description="Letters of classes, and separators; a space is a gap, - · and . are drawn."
    )
    top: float = Field(description="Upper edge of the characters.")
    height: Positive = Field(description="Height of capital letters.")
    cell: Positive = Field(description="Width of a character's cell; a font is stretched so that its capitals fill it.")
    gap: float = Field(ge=0, description="Distance of neighbouring cells.")
    space: float = Field(0.0, ge=0, description="Width of a separator, without the gaps beside it.")
    center: float | None = Field(None, description="Middle of the row across the plate; left out, the plate's middle.")


class Piece(_Strict):
    """Something printed that is not part of the text: a band, a caption, an emblem."""

    kind: str = Field(
        pattern="^(box|disc|text|emblem)$", description="An emblem is some figure, drawn anew for every photograph."
    )
    box: Box = Field(description="x, y, width and height.")
    color: Color = Field(description="Red, green and blue.")
    text: str = Field("", description="What a piece of kind text says.")

    @model_validator(mode="after")
    def _says_something(self):
        if self.kind == "text" and not self.text.strip():
            raise ValueError("a piece of kind text needs a text")
        return self


class Layout(_Strict):
    """A kind of plate: geometry, colours, fonts, grammar and alphabet. Lengths in millimetres, colours sRGB 0..255."""

    name: str = Field(description="Of its file, without .yaml; it is not written there.")
    country: str = Field(description="Two letters, as ISO 3166-1 has them.")
    about: str = Field("", description="For people.")
    size: tuple[Positive, Positive] = Field(description="Width and height.")
    rows: tuple[Row, ...] = Field(min_length=1, max_length=2, description="One or two rows of characters.")
    classes: dict[str, str] = Field(
        {},
        description="Alphabets by pattern letter, beside D, L, A and P: digits, letters, either, Chinese provinces.",
    )
    background: tuple[Color, ...] = Field(min_length=1, description="Colours; one is drawn for each photograph.")
    gradient: Color | None = Field(None, description="Colour at the lower edge.")
    pictorial: float = Field(0.0, ge=0, le=1, description="Strength of a scene printed behind the characters.")
    ink: tuple[Color, ...] = Field(min_length=1, description="Colours of characters: as many as backgrounds, or one.")
    border: float = Field(0.0, ge=0, description="Width of a printed line along the edge, in the ink's colour.")
    fonts: tuple[str, ...] = Field(min_length=1, description="Family:weight; one is drawn for each photograph.")
    slant: float = Field(0.0, description="Shift of a character's top to the right, over its height.")
    waist: float = Field(
        0.0, ge=-0.2, le=0.2, description="How far what stands in a character's middle is lifted, over its height."
    )
    rounding: int = Field(0, ge=0, le=8, description="Radius of a stroke's corners, in 96ths of the height.")
    bar_one: bool = Field(False, description="Whether 1 is a bare bar, without a flag or a foot.")
    pieces: tuple[Piece, ...] = Field((), description="What is printed beside the text: bands, captions, emblems.")
    blocked: tuple[str, ...] = Field((), description="Words that its country issues no plate with.")

    @field_validator("blocked")
    @classmethod
    def _words(cls, blocked):
        for word in blocked:
            if not word.isalnum() or normalise(word) != word:
                raise ValueError(f"{word!r} is not a word in capital letters and digits")
        return blocked

    @field_validator("fonts")
    @classmethod
    def _known_fonts(cls, fonts):
        for font in fonts:
            family, _, weight = font.partition(":")
            if family not in FONTS + HELD_OUT_FONTS or not weight.isdigit() or not 100 <= int(weight) <= 900:
                raise ValueError(f"{font!r} is not 'Family:weight' of 100 to 900 with a family of {', '.join(FONTS)}")
        return fonts

    @field_validator("classes")
    @classmethod
    def _spellable(cls, classes):
        for letter, alphabet in classes.items():
            if not alphabet.isalnum() or normalise(alphabet) != alphabet:
                raise ValueError(f"class {letter!r} holds characters no plate is written with: {alphabet!r}")
        return classes

    @model_validator(mode="after")
    def _fits_the_generator(self):
        if len(self.pattern) > LONGEST:
            raise ValueError(f"rows.pattern: {len(self.pattern)} characters are more than the {LONGEST} of a text")
        return self

    def alphabet(self, letter: str) -> str:
        return self.classes.get(letter) or CLASSES[letter]

    @property
    def pattern(self) -> str:
        return "".join(row.pattern for row in self.rows)

    @property
    def positions(self) -> tuple[str, ...]:
        """The alphabet of each character of a label, separators left out as corpora leave them out."""
        return tuple(self.alphabet(c) for c in self.pattern if c not in SEPARATORS)


def _read(path: Path) -> Layout:
    try:
        fields = parse_yaml(path.read_text(encoding="utf8"))
        layout = Layout(**fields, name=path.stem)
        for letter in layout.pattern:
            if letter not in SEPARATORS:
                layout.alphabet(letter)
    except ValidationError as fault:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in fault.errors())
        raise PlatemintError(f"{path}: {'; '.join(problems)}") from None
    except (yaml.YAMLError, TypeError, UnicodeDecodeError) as fault:
        raise PlatemintError(f"{path}: not a plate layout: {fault}") from None
    except KeyError as fault:
        known = ", ".join(CLASSES)
        raise PlatemintError(f"{path}: rows.pattern uses {fault}, neither in classes nor one of {known}") from None
    return layout


@lru_cache
def _all() -> dict[str, Layout]:
    return {path.stem: _read(path) for path in sorted(FOLDER.glob("*.yaml"))}


def load_layouts(names: list[str] | tuple[str, ...] = ()) -> dict[str, Layout]:
    """The named layouts (all that ship, where none is named), by name. A name may be a path to a layout file.

    Raises PlatemintError for an unknown name, with the names there are, and for a file that is no layout.
    """
    chosen = {}
    for name in names or _all():
        if name not in _all() and not (Path(name).suffix in (".yaml", ".yml") and Path(name).is_file()):
            raise PlatemintError(f"layout {name!r} is neither a file nor one of {', '.join(_all())}")
        layout = _all()[name] if name in _all() else _read(Path(name))
        if layout.name in chosen:
            raise PlatemintError(f"layout {name!r}: there is already one called {layout.name}; rename the file")
        chosen[layout.name] = layout
    return chosen


def training_layouts(names: list[str] | tuple[str, ...] = ()) -> dict[str, Layout]:
    """The named layouts; where none is named, all but those of the countries whose layouts measure a generator."""
    layouts = load_layouts(names)
    return layouts if names else {name: k for name, k in layouts.items() if k.country not in HELD_OUT_COUNTRIES}


def spelled_with(alphabet: str, layouts: dict[str, Layout]) -> tuple[dict[str, Layout], list[str]]:
    """The layouts without the characters that an alphabet lacks, and a line for people on each that lacks some.

    One with a position of which nothing is left is left out. Raises PlatemintError where no layout is left.
    """
    kept, notes = {}, []
    for name, layout in layouts.items():
        lacks = unspellable("".join(layout.positions), alphabet)
        classes = {c: _without(lacks, layout.alphabet(c)) for c in layout.pattern if c not in SEPARATORS}
        if lacks:
            notes.append(f"layout {name}: the network cannot spell {lacks}: {_HOW_FAR[all(classes.values())]}")
        if all(classes.values()):
            kept[name] = layout.model_copy(update={"classes": layout.classes | classes}) if lacks else layout
    if not kept:
        raise PlatemintError(
            "\n".join(notes) + "\nso no layout is left; `train --set alphabet.add=` teaches characters"
        )
    return kept, notes


_HOW_FAR = {True: "drawn without", False: "left out"}


def _without(characters: str, alphabet: str) -> str:
    return "".join(c for c in alphabet if c not in characters)
