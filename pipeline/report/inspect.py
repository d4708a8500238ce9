"""How even a corpus or a finished run is: characters per position, lengths, layouts, as a dict and as a table.

The dict holds every figure that the table prints and `pipeline.report.heatmap` draws.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from unicodedata import east_asian_width

import numpy as np

from platemint.pipeline.balance.evenness import count_table, divergence, evenness
from platemint.pipeline.balance.shares import UNIFORM, Target, read_target, shared_by_class
from platemint.pipeline.corpora import here, read_corpus
from platemint.pipeline.corpora.datasets import AUTO
from platemint.pipeline.corpora.formats.parquet import columns_in, is_run
from platemint.pipeline.object_store import ObjectPath
from platemint.pipeline.plate import (
    CHINESE_KINDS,
    DIGITS,
    LETTERS,
    PROVINCES,
    READABLE,
    SEPARATORS,
    PlatemintError,
    kind_of,
)
from platemint.pipeline.report.near_duplicates import near_duplicates

CLASSES = {"letters": LETTERS, "digits": DIGITS, "provinces": PROVINCES, "separators": SEPARATORS}
PATTERN = str.maketrans({c: kind_of(c) for c in READABLE if kind_of(c)})
BARS = "▁▂▃▄▅▆▇█"
FIGURES = ("count", "absent", "max/min", "entropy", "gini", "kl")  # of a row of a balance
LISTED = 8  # layouts, patterns or repeated texts a table names


def inspect(
    path: str | Path | ObjectPath,
    against: str | Path | ObjectPath | None = None,
    target: Target | str | Path = UNIFORM,
    format: str = AUTO,
) -> dict:
    """Counts and evenness of a corpus in any form `read_corpus` knows, or of the accepted rows of a run folder.

    Ready for JSON: path, kind ("corpus" or "run"), read_as (a corpus's format and how it was known), plates,
    distinct (different texts); {name: plates} of splits, layouts, lengths, patterns (L letter, D digit, P province)
    and set_aside (reasons; corpus only), most frequent first; repeated: of texts that several plates have, how many
    there are, their plates, and the most frequent, {text: plates}; kind_marks: characters that say what kind of plate it is
    and are not balanced, {character: n}; positions: for each position (from 0, separators
    included) and class of characters seen there, a dict of position, class, plates, counts {character: n}, and
    max_min, entropy, gini and kl (see `evenness`) over the characters seen; overall: the same over all positions;
    near: see `near duplicates`.

    target: a table of shares (see `pipeline.balance.shares`), or its file. It is named in `target`. `balance` compares with
    it, digits, letters and provinces together: see `_balance`; `characters` are those it looks for, in order.
    against: another corpus or run, in `against` all the above of it, both judged by the same characters. format: of the
    corpus.
    Raises PlatemintError where nothing can be read, or a corpus has not one picture with a label.
    """
    target = target if isinstance(target, Target) else read_target(target)
    columns, report = _report(here(path), target, format)
    if against is None:
        return report | _balance(columns, _in_use([columns], target), target)
    other_columns, other = _report(here(against), target, AUTO)
    in_use = _in_use([columns, other_columns], target)
    report |= _balance(columns, in_use, target)
    return report | {"against": other | _balance(other_columns, in_use, target)}


def _report(path: Path, target: Target, format: str) -> tuple[list[str], dict]:
    """The texts of a corpus or a run, and its report without balance."""
    run = format == AUTO and _is_run(path)
    columns, set_aside, read_as = _read_run(path) if run else _read_corpus(path, format)
    texts = columns["text"]
    table, seen = count_table(texts)
    return texts, {
        "path": str(path),
        "kind": "run" if run else "corpus",
        "read_as": read_as,
        "plates": len(texts),
        "distinct": len(set(texts)),
        "repeated": _repeated(texts),
        "kind_marks": _tally(c for text in texts for c in text if c in CHINESE_KINDS),
        "splits": _tally(columns["split"]),
        "layouts": _tally(filter(None, columns["layout"])),
        "lengths": _tally(str(len(text)) for text in texts),
        "patterns": _tally(text.translate(PATTERN) for text in texts),
        "set_aside": _tally(set_aside),
        "positions": [
            {"position": position} | cell for position, row in enumerate(table) for cell in _by_class(row, seen)
        ],
        "overall": list(_by_class(table.sum(axis=0), seen)),
        "near": near_duplicates(texts, columns["split"]),
        "target": target.name,
    }


def _repeated(texts: list[str]) -> dict:
    repeated = {text: n for text, n in _tally(texts).items() if n > 1}
    most = dict(list(repeated.items())[:LISTED])
    return {"texts": len(repeated), "plates": sum(repeated.values()), "most": most}


def _is_run(path: Path) -> bool:
    """Whether a folder is a run's, or has shards of one: their rows say which layout a plate is of."""
    shards = sorted(path.glob("data/*.parquet"))
    return is_run(path) or (bool(shards) and "layout" in columns_in(shards[0]))


def _in_use(corpora: Iterable[list[str]], target: Target) -> str:
    """The characters whose balance is judged: digits, letters, provinces and other scripts', each kind where it occurs.

    Of the letters I, O and Q those that occur: many countries leave some of them out, as too like 1 and 0.
    """
    seen = target.characters.union(*(set("".join(texts)) for texts in corpora))
    alphabets = [alphabet for alphabet in (DIGITS, LETTERS, PROVINCES) if seen & set(alphabet)]
    alphabets += sorted(filter(kind_of, seen.difference(*alphabets)), key=lambda c: ("DLP".find(kind_of(c)) < 0, c))
    return "".join(c for c in "".join(alphabets) if c in seen or c not in "IOQ")


def _balance(texts: list[str], characters: str, target: Target) -> dict:
    """`characters`, and `balance`: positions, a dict for each, and overall, one for all of them.

    plates: with one of the characters there. counts: {character: n} of the position's alphabet, 0 for one that is
    absent; expected: {character: n} as the target has it. absent: number of zeros. max_min, entropy, gini: see
    `evenness`, an even spread having as many digits, letters and provinces as there are; kl: bits from the target.
    None stands for infinite. overall has kl_mean, too: the mean of the positions' kl, each as often as it has plates.
    """
    table, seen = count_table(texts)
    counts = np.zeros((len(table), len(characters)), dtype=np.int64)
    for number, c in enumerate(characters):
        if c in seen:
            counts[:, number] = table[:, seen.index(c)]
    expected = np.array([target.expected(row, p, characters) for p, row in enumerate(counts)]).reshape(counts.shape)
    alphabets = ((counts > 0) | (expected > 0)).astype(np.float64)
    even = np.array([shared_by_class(n, characters, a) for n, a in zip(counts, alphabets)]).reshape(counts.shape)
    rows = [_figures(*row, characters) for row in zip(counts, expected, even)]
    weighted = [divergence(n, e) * n.sum() for n, e in zip(counts, expected) if n.any()]
    overall = _figures(counts.sum(axis=0), expected.sum(axis=0), even.sum(axis=0), characters)
    overall["kl_mean"] = _finite(sum(weighted) / max(1, counts.sum()))
    positions = [{"position": position} | row for position, row in enumerate(rows)]
    return {"characters": characters, "balance": {"positions": positions, "overall": overall}}


def _figures(counts: np.ndarray, expected: np.ndarray, even: np.ndarray, characters: str) -> dict:
    """A row of the balance. counts: int64, expected and even float64, (characters,)."""
    alphabet, spread = (counts > 0) | (expected > 0), even > 0
    figures = evenness(counts[spread], even[spread]) | {"kl": divergence(counts, expected)}
    return {
        "plates": int(counts.sum()),
        "counts": {c: int(n) for c, n, there in zip(characters, counts, alphabet) if there},
        "expected": {c: float(n) for c, n, there in zip(characters, expected, alphabet) if there},
        "absent": int((alphabet & (counts == 0)).sum()),
    } | {name: _finite(figure) for name, figure in figures.items()}


def _finite(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None


def counts_as_text(report: dict) -> str:
    """A report of `inspect` for people: under each character a bar, full for the most frequent one of its row."""
    lines = _headlines(report)
    for overall in report["overall"]:
        rows = [row for row in report["positions"] if row["class"] == overall["class"]]
        lines += ["", *_block(overall, rows)]
    if "against" not in report:
        return "\n".join([*lines, "", *_balance_lines([report])])
    before = _headlines(report["against"])
    return "\n".join([*lines, "", "before:", *before, "", *_balance_lines([report["against"], report])])


def _headlines(report: dict) -> list[str]:
    """What it is, its most frequent names of each kind, and texts that stand in two splits."""
    distinct = f"{report['distinct']:,} different texts"
    lines = [f"{report['path']}: {report['kind']} of {report['plates']:,} plates, {distinct}"]
    lines += [f"{'read as':10} {report['read_as']}"] if report["read_as"] else []
    if (repeated := report["repeated"])["texts"]:
        several = f"{repeated['texts']:,} texts stand on several plates, {repeated['plates']:,} in all"
        lines.append(f"{'repeated':10} {several}: {_listed(repeated['most'])}")
    for key in ("splits", "layouts", "lengths", "patterns", "set_aside"):
        if report[key]:
            lines.append(f"{key.replace('_', ' '):10} {_listed(report[key])}")
    return lines + (_near_lines(report["near"]) if len(report["splits"]) > 1 else [])


def _near_lines(near: dict) -> list[str]:
    same, apart = near["same"], near["one_apart"]
    lines = []
    for said, sign, found in (
        (f"texts that read the same in two splits: {same['texts']:,}", "=", same),
        (f"pairs of texts from two splits that are one character apart: {apart['pairs']:,}", "~", apart),
    ):
        plates = ", ".join(f"{split} {n:,}" for split, n in found["plates"].items())
        lines.append(f"{'near':10} {said}" + (f" (plates: {plates})" if plates else ""))
        for example in found["examples"]:
            lines.append(f"{'':10} " + f" {sign} ".join(f"{split} {text}" for split, text in example.items()))
    return lines


def _balance_lines(reports: list[dict]) -> list[str]:
    """The evenness of whole positions, a line for each and one for all of them; two reports side by side."""
    balances = [report["balance"] for report in reports]
    longest = max((b["positions"] for b in balances), key=len)
    rows = [[b["positions"][p] if p < len(b["positions"]) else None for b in balances] for p in range(len(longest))]
    titles = ["before", "after"] if len(reports) > 1 else []
    return [
        *([_beside("", titles)] if titles else []),
        _beside("balance", [_aligned(FIGURES)] * len(reports)),
        *(_beside(f"position {p}", [_aligned(figures(row)) for row in both]) for p, both in enumerate(rows)),
        _beside("all", [_aligned(figures(b["overall"])) for b in balances]),
        _beside("mean", [_aligned(["", "", "", "", "", figure(b["overall"]["kl_mean"])]) for b in balances]),
        f"{'':12} kl: bits from {reports[0]['target']}; mean: a character's, over positions",
    ]


def _aligned(cells: Sequence[str]) -> str:
    return " ".join(f"{cell:>{width}}" for cell, width in zip(cells, (9, 6, 8, 7, 6, 7)))


def _beside(name: str, parts: list[str]) -> str:
    return f"{name:12} " + "  |  ".join(f"{part:48}" for part in parts).rstrip()


def figures(row: dict | None) -> list[str]:
    """A row of a balance in print, as FIGURES names its cells; "-" where there is nothing to tell."""
    if not row or not row["plates"]:
        return ["0", *["-"] * 5]
    max_min = figure(row["max_min"], 2)
    return [f"{row['plates']:,}", f"{row['absent']}", max_min, *(figure(row[k]) for k in ("entropy", "gini", "kl"))]


def figure(value: float | None, digits: int = 3) -> str:
    """In print; None is infinite."""
    return "∞" if value is None else f"{value:,.{digits}f}"


def _read_corpus(path: Path, format: str) -> tuple[dict[str, list[str]], list[str], str]:
    """Columns text, layout and split, the reasons for what is set aside, and the format.

    Pictures that are not there are among what is set aside.
    """
    corpus = read_corpus(path, format=format)
    for label in corpus.labels:
        if not os.path.isfile(label.path):  # of a name that no file system takes it says no, too
            corpus.put_aside(label.name, label.row, "no such file")
    corpus.labels = [label for label in corpus.labels if os.path.isfile(label.path)]
    if not corpus.labels:
        first = corpus.set_aside[0] if corpus.set_aside else {"path": "", "reason": "no labels"}
        raise PlatemintError(
            f"{path}: not one plate: {len(corpus.set_aside):,} set aside, the first: {first['path']}: {first['reason']}"
        )
    columns = {"text": [label.text for label in corpus.labels], "split": [label.split for label in corpus.labels]}
    return columns | {"layout": []}, [item["reason"] for item in corpus.set_aside], corpus.read_as


def _read_run(path: Path) -> tuple[dict[str, list[str]], list[str], str]:
    """The same of a run's shards; pictures are not read."""
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, list[str]] = {"text": [], "layout": [], "split": []}
    for shard in sorted(path.glob("data/*.parquet")):
        try:
            with parquet.ParquetFile(shard) as file:
                rows = file.read(columns=list(columns)).to_pydict()
            for name, values in columns.items():
                values += rows[name]
        except (OSError, pa.ArrowException, KeyError) as fault:
            raise PlatemintError(
                f"{shard}: not a complete shard of a run ({fault}); `verify` lists what is wrong"
            ) from None
    return columns, [], ""


def _tally(names: Iterable[str]) -> dict[str, int]:
    """Counts, the most frequent first."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _by_class(counts: np.ndarray, seen: str) -> Iterable[dict]:
    """Counts of characters, int64 (characters,), apart for each class that occurs."""
    known = "".join(CLASSES.values())
    for name, alphabet in (CLASSES | {"others": "".join(c for c in seen if c not in known)}).items():
        occurring = {c: int(n) for c, n in zip(seen, counts) if n and c in alphabet}
        if occurring:
            values = list(occurring.values())
            yield {"class": name, "plates": sum(values), "counts": occurring} | evenness(values)


def _listed(counts: dict[str, int]) -> str:
    shown = ", ".join(f"{name} {n:,}" for name, n in list(counts.items())[:LISTED])
    return shown + (f", and {len(counts) - LISTED} more" if len(counts) > LISTED else "")


def _block(overall: dict, rows: list[dict]) -> list[str]:
    """A class of characters: a heading with its alphabet, a line per position, and one for all of them."""
    alphabet = CLASSES.get(overall["class"]) or "".join(sorted(overall["counts"]))
    heading = f"{overall['class']:12} {'count':>9} {'max/min':>8} {'entropy':>8}  {alphabet}"
    positions = [_line(f"position {row['position']}", row, alphabet) for row in rows]
    return [heading, *positions, _line("all", overall, alphabet)]


def _line(name: str, row: dict, alphabet: str) -> str:
    figures = f"{name:12} {row['plates']:9,} {row['max_min']:8.2f} {row['entropy']:8.3f}"
    return f"{figures}  {''.join(_bar(c, row['counts']) for c in alphabet)}".rstrip()


def _bar(character: str, counts: dict[str, int]) -> str:
    """As wide as the character on a terminal, and as high as its count; a dot where it never occurs."""
    count = counts.get(character, 0)
    bar = BARS[-(-len(BARS) * count // max(counts.values())) - 1] if count else "·"
    return bar * (2 if east_asian_width(character) == "W" else 1)
