"""inspect --html: a corpus on one page, before any run: how even it is, what was set aside, and its plates."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from platemint.pipeline.corpora import read_corpus
from platemint.pipeline.corpora.kinds import kinds_of
from platemint.pipeline.report.gallery import corpus_gallery
from platemint.pipeline.report.page import Remark, for_script, heat_maps, named, rendered_page, shares

UNEVEN = 3  # times as often as wanted: from there on a page names the character


def corpus_page(report: dict, path: Path, format: str) -> str:
    """The page of a corpus as HTML. report: of `inspect`. format: as `read_corpus` takes it.

    Raises PlatemintError where the corpus cannot be read.
    """
    shown = corpus_gallery(read_corpus(path, format=format))
    return rendered_page(
        "corpus_page.html",
        name=path.name or str(path),
        report=report,
        heat_maps=heat_maps(report),
        shares=[*_kinds(path), *shares(report)],
        remarks=corpus_remarks(report),
        gallery=for_script(shown, order="as in the corpus"),
        shown=shown,
    )


def _kinds(path: Path) -> list[dict]:
    """A table like those of `shares`, of the kinds that a column of the corpus's labels tells apart, if one does."""
    counts = Counter(kinds_of(path).values())
    rows = [(name or "none", count, count / counts.total()) for name, count in counts.most_common()]
    return [{"title": "Kinds", "rows": rows}] if rows else []


def corpus_remarks(report: dict) -> list[Remark]:
    """What to know of a corpus before anything is made of it."""
    balance = report["balance"]
    absent = [named(c) for c, count in balance["overall"]["counts"].items() if not count]
    repeated, aside = report["repeated"], sum(report["set_aside"].values())
    several = (
        f"{repeated['texts']:,} texts stand on several plates, listed below: one vehicle, or samples such as ANYTEXT."
    )
    tested = any(split != "train" for split in report["splits"])
    one = "All plates are of split train: set some aside to measure on (source.val_share), or have others for it."
    return [
        *_most_uneven(balance["positions"]),
        Remark(not absent, f"On no plate: {', '.join(absent)}." if absent else "Every character is on some plate."),
        Remark(tested, "Plates to measure on are there: a split of their own." if tested else one),
        Remark(not repeated["texts"], several if repeated["texts"] else "Each plate has a text of its own."),
        Remark(not aside, f"{aside:,} records could not be used." if aside else "No record was set aside."),
    ]


def _most_uneven(positions: list[dict]) -> list[Remark]:
    """The character that most exceeds what is wanted of it at some position, where it does so by far."""
    found = [
        (count / row["expected"][c], count, c, row["position"])
        for row in positions
        for c, count in row["counts"].items()
        if row["expected"].get(c, 0) >= 1
    ]
    times, count, character, position = max(found, default=(0, 0, "", 0))
    if times < UNEVEN:
        return [Remark(True, f"At no position does a character stand {UNEVEN} times as often as its share.")]
    text = f"At position {position} {named(character)} stands on {count:,} plates, {times:.0f} times its share; rebalance adds what is missing."
    return [Remark(False, text)]
