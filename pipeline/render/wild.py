"""Domain randomisation: layouts that exist nowhere, so that the generator learns plates it has never been shown."""

from __future__ import annotations

import numpy as np

from platemint.pipeline.plate import LETTERS, LONGEST, SEPARATORS
from platemint.pipeline.render.glyphs import FONTS
from platemint.pipeline.render.layout import Layout, Piece, Row

_PATTERNS = (
    "LLLDDDD",
    "LLDDDD",
    "LLLDDD",
    "DLLLDDD",
    "LLDDDLL",
    "PLAAAAA",
    "PLAAAAA",
    "PLAAAAA",
    "PLAAAAA",
    "LLDDLLL",
    "AAAAAA",
    "AAAAA",
    "AAAAAAA",
    "AAAA",
    "AAAAAAAA",
)
_LONG = ("LLDDLLDDDD", "LLDDLDDDD", "AAAAAAAAA")  # where there are two rows or a wide one
_SEPARATORS = ("", "", " ", " ", "-", "·", ".")


def _color(rng, dark: bool) -> tuple[int, int, int]:
    base = rng.uniform(0, 90) if dark else rng.uniform(150, 250)
    red, green, blue = np.clip(base + rng.normal(0, 38, 3), 0, 255).astype(int).tolist()
    return red, green, blue


def _colors(rng) -> tuple[tuple, tuple]:
    """A background and an ink that differ enough to be read, dark on light as often as light on dark in use.

    One in ten differs in hue more than in light, as yellow on turquoise does.
    """
    colorful = rng.random() < 0.1
    while True:
        dark_plate = rng.random() < 0.4
        background, ink = _color(rng, dark_plate), _color(rng, dark_plate if colorful else not dark_plate)
        apart = np.subtract(background, ink)
        light = abs(np.dot(apart, (0.3, 0.6, 0.1)))
        if np.linalg.norm(apart) > 110 and light > 20 if colorful else light > 60:
            return background, ink


def _pattern(rng, roomy: bool) -> str:
    plain = str(rng.choice(_PATTERNS + 2 * _LONG if roomy else _PATTERNS))
    separator = str(rng.choice(_SEPARATORS))
    if not separator:
        return plain
    cut = int(rng.integers(1, len(plain) - 1))
    return plain[:cut] + separator + plain[cut:]


def _font(rng) -> str:
    return f"{rng.choice(FONTS)}:{rng.choice((300, 400, 500, 600, 700))}"


def _lettering(rng) -> dict:
    """Letters between those of the fonts: bars higher or lower, corners sharp or round, 1 with a flag or without."""
    return {
        "waist": round(float(np.clip(rng.normal(0, 0.04), -0.1, 0.1)), 2) if rng.random() < 0.5 else 0.0,
        "rounding": int(rng.integers(2, 8)) if rng.random() < 0.3 else 0,
        "bar_one": bool(rng.random() < 0.3),
    }


def _rows(rng, width: float, height: float) -> tuple[Row, ...]:
    two_rows = height / width > 0.55 or (height / width > 0.42 and rng.random() < 0.2)
    pattern = _pattern(rng, roomy=two_rows or width / height > 3.5)
    if two_rows:
        cut = int(rng.integers(2, 4 if len(pattern) < 9 else 6))
        parts = [p.strip(" -·.") or "AA" for p in (pattern[:cut], pattern[cut:])]
    else:
        parts = [pattern]
    share = rng.uniform(0.42, 0.82) if len(parts) == 1 else rng.uniform(0.3, 0.4)
    free = 1 - share * len(parts)
    top, rows = rng.uniform(0.2, 0.8) * free * (0.5 if len(parts) == 2 else 1), []
    widest = max(len(p) for p in parts)
    for part in parts:
        pitch = width * rng.uniform(0.8, 0.94) / widest
        pitch = min(pitch, share * height * rng.uniform(0.6, 1.0) / 0.8)
        cell = pitch * rng.uniform(0.72, 0.92)
        rows.append(
            Row(
                pattern=part,
                top=top * height,
                height=share * height,
                cell=cell,
                gap=pitch - cell,
                space=pitch * rng.uniform(0.1, 0.6),
            )
        )
        top += share + free * 0.3
    return tuple(rows)


def _emblems(rng, width: float, rows, ink) -> tuple[tuple[Row, ...], tuple[Piece, ...]]:
    """A figure or small stacked letters as tall as the characters, beside them or in a gap between them."""
    row = rows[0]
    color = ink if rng.random() < 0.4 else _color(rng, rng.random() < 0.6)
    wide = row.height * rng.uniform(0.4, 1.0)
    n = len(row.pattern)
    if " " in row.pattern:
        row = row.model_copy(update={"space": wide + 0.1 * row.cell})
    squeeze = min(1.0, (0.97 * width - wide) / (n * (row.cell + row.gap) + (row.space if " " in row.pattern else 0)))
    sizes = {"cell": row.cell * squeeze, "gap": row.gap * squeeze}
    long = n * (row.cell + row.gap) * squeeze
    if " " in row.pattern:
        before = row.pattern.index(" ")
        long = (n - 1) * (row.cell + row.gap) * squeeze + row.space
        x = (width - long) / 2 + before * (row.cell + row.gap) * squeeze
    elif rng.random() < 0.6:
        x = (width - long - wide) / 2
        sizes["center"] = x + wide + long / 2
    else:
        x = (width + long - wide) / 2
        sizes["center"] = x - long / 2
    top, tall = row.top + rng.uniform(-0.1, 0.1) * row.height, row.height * rng.uniform(0.6, 1.1)
    if rng.random() < 0.25:
        letters = rng.choice(list(LETTERS), 2)
        pieces = tuple(
            Piece(
                kind="text", box=(x, row.top + i * 0.53 * row.height, 0.3 * wide, 0.45 * row.height), color=ink, text=t
            )
            for i, t in enumerate(letters)
        )
    else:
        pieces = (Piece(kind="emblem", box=(x + 0.05 * wide, top, 0.9 * wide, tall), color=color),)
    return (row.model_copy(update=sizes), *rows[1:]), pieces


def _captions(rng, width: float, height: float, rows, ink) -> tuple[Piece, ...]:
    """Small print and stickers above and below the characters, which no edit may touch."""
    pieces = []
    bands = [(0.02, rows[0].top / height - 0.04), ((rows[-1].top + rows[-1].height) / height + 0.03, 0.97)]
    for top, bottom in bands:
        tall = bottom - top
        if tall > 0.07 and rng.random() < 0.75:
            word = "".join(rng.choice(list(LETTERS + LETTERS.lower()), rng.integers(4, 14)))
            h = tall * rng.uniform(0.5, 0.95)
            w = min(0.8, len(word) * 0.5 * h * height / width)
            x = rng.uniform(0.05, 0.95 - w)
            color = ink if rng.random() < 0.4 else _color(rng, rng.random() < 0.6)
            pieces.append(
                Piece(kind="text", box=(x * width, top * height, w * width, h * height), color=color, text=word)
            )
        for _ in range(rng.integers(0, 3)):
            if tall > 0.08:
                x, side = rng.uniform(0.02, 0.9), tall * rng.uniform(0.5, 1) * height
                pieces.append(
                    Piece(
                        kind=str(rng.choice(["box", "disc"])),
                        box=(x * width, top * height, side * rng.uniform(0.6, 1.5), side),
                        color=_color(rng, rng.random() < 0.5),
                    )
                )
    if rng.random() < 0.25:
        pieces.append(Piece(kind="box", box=(0, 0, width * rng.uniform(0.05, 0.09), height), color=_color(rng, True)))
    return tuple(pieces)


def _with_more(rng, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows with one or two of their characters of class M."""
    changed = [*rows]
    for _ in range(rng.integers(1, 3)):
        r = int(rng.integers(len(rows)))
        pattern = changed[r].pattern
        i = int(rng.choice([i for i, letter in enumerate(pattern) if letter not in SEPARATORS]))
        changed[r] = changed[r].model_copy(update={"pattern": f"{pattern[:i]}M{pattern[i + 1 :]}"})
    return tuple(changed)


def wild_layout(rng: np.random.Generator, more: str = "") -> Layout:
    """A made-up plate: any colours, proportions, pattern, font and small print.

    more: characters of which one plate in three has one or two.
    """
    height = 100.0
    width = height * float(np.exp(rng.uniform(np.log(1.25), np.log(4.8))))
    background, ink = _colors(rng)
    rows = _rows(rng, width, height)
    pieces: tuple[Piece, ...] = ()
    if len(rows) == 1 and rng.random() < 0.3:
        rows, pieces = _emblems(rng, width, rows, ink)
    if more and rng.random() < 1 / 3:
        rows = _with_more(rng, rows)
    return Layout(
        name="wild",
        classes={"M": more} if more else {},
        country="XX",
        size=(width, height),
        rows=rows,
        background=(background,),
        gradient=_color(rng, False) if rng.random() < 0.3 and sum(background) > 450 else None,
        pictorial=float(rng.uniform(0, 0.9)) if rng.random() < 0.4 else 0.0,
        ink=(ink,),
        border=float(rng.uniform(1, 4)) if rng.random() < 0.5 else 0.0,
        fonts=(_font(rng),),
        slant=float(rng.normal(0, 0.04)),
        **_lettering(rng),
        pieces=_captions(rng, width, height, rows, ink) + pieces,
    )


def vary_layout(layout: Layout, rng: np.random.Generator) -> Layout:
    """A real layout with every measure loosened a little: other font, other cell, shifted rows and colours."""

    def shade(color):
        return tuple(int(c) for c in np.clip(np.add(color, rng.normal(0, 22, 3)), 0, 255))

    rows = tuple(
        row.model_copy(
            update={
                "top": row.top + rng.normal(0, 0.03) * layout.size[1],
                "height": row.height * rng.uniform(0.93, 1.06),
                "cell": row.cell * rng.uniform(0.86, 1.08),
                "gap": row.gap * rng.uniform(0.7, 1.25),
            }
        )
        for row in layout.rows
    )
    fonts = (_font(rng),) if rng.random() < 0.5 else layout.fonts
    pieces = tuple(p for p in layout.pieces if rng.random() > 0.15)
    if len(rows) == 1 and rng.random() < 0.12:
        rows, more = _emblems(rng, layout.size[0], rows, layout.ink[0])
        pieces += more
    return layout.model_copy(
        update={
            "rows": rows,
            "fonts": fonts,
            "pieces": pieces,
            "background": tuple(shade(c) for c in layout.background),
            "ink": tuple(shade(c) for c in layout.ink),
            "slant": float(rng.normal(0, 0.02)),
            **_lettering(rng),
        }
    )


def longer_or_shorter(layout: Layout, rng: np.random.Generator) -> tuple[Row, ...] | None:
    """The layout's rows with one or two characters more or fewer, as far apart and around the same middle.

    None where something printed between the characters would have to move, or where there is no room.
    """
    row = layout.rows[0]
    if len(layout.rows) > 1 or set(row.pattern) & set("-·.") or any(p.kind == "emblem" for p in layout.pieces):
        return None
    pattern = row.pattern
    for _ in range(rng.integers(1, 3)):
        i = int(rng.choice([i for i, letter in enumerate(pattern) if letter != " "]))
        pattern = pattern[:i] + (pattern[i] * 2 if rng.random() < 0.5 else "") + pattern[i + 1 :]
    plain = len(pattern.replace(" ", ""))
    wide = plain * (row.cell + row.gap) + pattern.count(" ") * (row.space + row.gap)
    squeeze = min(1.0, 0.97 * layout.size[0] / wide)
    if plain == len(row.pattern.replace(" ", "")) or plain < 3 or len(pattern) > LONGEST or squeeze < 0.8:
        return None
    sizes = {name: getattr(row, name) * squeeze for name in ("cell", "gap", "space")}
    return (row.model_copy(update={"pattern": pattern, **sizes}),)


def random_text(positions: tuple[str, ...] | list[str], rng: np.random.Generator) -> str:
    """One character of each alphabet, independently and uniformly."""
    return "".join(str(alphabet[rng.integers(len(alphabet))]) for alphabet in positions)
