"""What pages that show plates have in common: the frame, tables of balance and shares, and plates for the script.

A page is one file that needs no network and loads nothing: its pictures, style and script are in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from platemint.pipeline.plate import DIGITS, LETTERS, PROVINCES, characters, same_reading
from platemint.pipeline.report.gallery import Gallery
from platemint.pipeline.report.inspect import figure
from platemint.pipeline.write import SAYS

MOST_ROWS = 12  # of a table of shares
BINS = 20  # of a histogram of scores
OTHERWISE = ("", "O for 0, I for 1", "read otherwise")  # what plates are called on which the reader reads another text
FIELDS = (
    "text",
    "was",
    "layout",
    "split",
    "reason",
    "reading",
    "index",
    "round",
)  # of a plate on a page, beside its scores


# For those who cannot read them, or whose browser has no such letters.
NAMES = dict(
    zip(
        PROVINCES,
        "Beijing Shanghai Tianjin Chongqing Hebei Shanxi Inner_Mongolia Liaoning Jilin Heilongjiang Jiangsu Zhejiang Anhui Fujian "
        "Jiangxi Shandong Henan Hubei Hunan Guangdong Guangxi Hainan Sichuan Guizhou Yunnan Tibet Shaanxi Gansu Qinghai Ningxia "
        "Xinjiang".replace("_", "\u00a0").split(" "),
        strict=True,
    )
)


def named(character: str) -> str:
    """A character, with its name where it is one of NAMES."""
    return f"{character} {NAMES[character]}" if character in NAMES else character


@dataclass(frozen=True)
class Remark:
    """What to know before plates are used. good: nothing to do about it.

    reason: filter of the wall that shows the plates it is about. characters: likewise, plates whose text has one of them.
    orders: scores by which the wall shows them, lowest first.
    """

    good: bool
    text: str
    reason: str = ""
    characters: tuple[str, ...] = ()
    orders: tuple[str, ...] = ()


def rendered_page(template: str, **values) -> str:
    """A template of this folder with its values. Raises jinja2.UndefinedError where it names another one."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["names"] = NAMES
    environment.filters["named"] = named
    environment.filters["figure"] = lambda value: f"{value:,}" if isinstance(value, int) else figure(value)
    return environment.get_template(template).render(**values)


def heat_maps(report: dict) -> list[dict]:
    """Balances as tables, the corpus's before the run's: characters, and for each position its cells and its entropy.

    No table is wider than digits and letters take: other characters, as provinces, have a table of their own, without
    the entropy, which is of all characters.
    """
    parts = [("in the corpus", report["against"]), ("in the run", report)] if "against" in report else [("", report)]
    common = [c for c in report["characters"] if c in DIGITS + LETTERS]
    others = [c for c in report["characters"] if c not in common]
    maps = [_heat_map(title, part, characters) for title, part in parts for characters in (common, others)]
    return [one for one in maps if one["rows"]]


def _heat_map(title: str, part: dict, characters: list[str]) -> dict:
    """A table of these characters: all positions if digits or letters are among them, else those where any may stand."""
    usual = any(c in DIGITS + LETTERS for c in characters)
    rows = [
        {
            "name": str(row.get("position", "all")),
            "entropy": row["entropy"] if usual else None,
            "cells": [_cell(row, character) for character in characters],
        }
        for row in [*part["balance"]["positions"], part["balance"]["overall"]]
        if usual or any(c in row["counts"] for c in characters)
    ]
    return {
        "title": title if usual or not title else f"{title}, other characters",
        "characters": characters,
        "rows": rows,
    }


def _cell(row: dict, character: str) -> dict | None:
    """Count, wanted count and colours of a cell; None for a character that is not of the position's alphabet."""
    from platemint.pipeline.report.heatmap import colour

    if character not in row["counts"]:
        return None
    count, expected = row["counts"][character], row["expected"].get(character, 0.0)
    fill = colour(count / expected) if count and expected else (255, 255, 255)
    return {"count": count, "expected": expected, "fill": f"#{bytes(fill).hex()}", "ink": _ink(fill)}


def _ink(fill: tuple[int, int, int]) -> str:
    """Black or white, whichever has the higher contrast on a colour: at least 4.5, as WCAG 2.2 (1.4.3) wants it.

    Source: relative luminance as WCAG 2.2 defines it; both contrasts are equal at sqrt(1.05 * 0.05) - 0.05.
    """
    value = np.array(fill) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return "#000" if np.dot(linear, (0.2126, 0.7152, 0.0722)) > 0.179 else "#fff"


def shares(report: dict) -> list[dict]:
    """Layouts, lengths, patterns and splits, the most frequent first, as shares of the plates; the last row is the rest."""
    tables = [("Layouts", "layouts"), ("Lengths", "lengths"), ("Patterns", "patterns"), ("Splits", "splits")]
    found = []
    for title, key in tables:
        rows = [*report[key].items()]
        if len(rows) > MOST_ROWS:
            others = rows[MOST_ROWS - 1 :]
            rows = [*rows[: MOST_ROWS - 1], (f"{len(others):,} others", sum(n for _, n in others))]
        found.append({"title": title, "rows": [(name, n, n / report["plates"]) for name, n in rows]})
    return [table for table in found if table["rows"]]


def bin_of(score: float) -> int:
    """Where a score of 0..1 belongs in a histogram."""
    return min(int(score * BINS), BINS - 1)


def bound_of(limits: Mapping[str, float], score: str) -> tuple[str, float]:
    """What a score has to be, in words and as a number. limits: of a recipe's filter."""
    if f"min_{score}" in limits:
        return "at least", limits[f"min_{score}"]
    return "at most", limits[f"max_{score}"]


def histograms(limits: Mapping[str, float], counts: Mapping[str, Sequence[Sequence[int]]]) -> list[dict]:
    """Of each score its bars and its threshold. limits: of a recipe's filter.

    counts: plates in each of `BINS` bins from 0 to 1, of those that were kept and of the others. Heights are in per cent.
    """
    found = []
    for name, (kept, lost) in counts.items():
        highest = max(1, *kept, *lost)
        bars = [(a, b, _height(a, highest), _height(b, highest)) for a, b in zip(kept, lost)]
        side, threshold = bound_of(limits, name)
        found.append(
            {
                "name": name,
                "says": SAYS[name],
                "bars": bars,
                "highest": highest,
                "threshold": threshold,
                "side": side,
            }
        )
    return found


def _height(count: int, highest: int) -> int:
    """Of a bar, in per cent: the square root of its share, so that a few plates beside many can be seen."""
    return int(np.ceil(100 * (count / highest) ** 0.5))


def for_script(
    shown: Gallery,
    scores: Sequence[str] = (),
    limits: Mapping[str, float] = {},
    kept: str = "accepted",
    lost: str = "dropped",
    order: str = "as made",
) -> dict:
    """The gallery as the page's script takes it: a list for each field and score, texts of few values by number.

    limits: of a recipe's filter, with those of scores. kept, lost: what plates without and with a reason are called. order:
    what the order is called in which they are. A plate's score may be missing. otherwise: of kept plates 2 where the reader
    reads another text, 1 where it takes characters for others that look the same (O for 0), else 0.
    """
    fields: dict = {"kept": kept, "lost": lost, "order": order}
    fields["bounds"] = {score: "{} {:g}".format(*bound_of(limits, score)) for score in scores if limits}
    fields |= {name: [plate.get(name, "") for plate in shown.plates] for name in FIELDS}
    for name in ("layout", "split", "reason"):
        values = sorted(set(fields[name]))
        fields[name] = {"values": values, "of": [values.index(value) for value in fields[name]]}
    fields["scores"] = {n: [_rounded(plate.get(f"score_{n}")) for plate in shown.plates] for n in scores}
    fields["images"] = [plate["images"] for plate in shown.plates]
    fields["otherwise"] = [
        0 if plate.get("reason") or "reading" not in plate else read_otherwise(plate["text"], plate["reading"])
        for plate in shown.plates
    ]
    fields["others"] = OTHERWISE if any(fields["otherwise"]) else ()
    return fields


def read_otherwise(text: str, reading: str) -> int:
    """2 for a reading that is another text, 1 for one that differs in O for 0 and the like (see `same_reading`), else 0."""
    if same_reading(text, reading):
        return int(characters(text) != characters(reading))
    return 2


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 6)  # an order by it tells small ones apart
