"""How even a corpus or a finished run is: characters per position, lengths, layouts, as a dict and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from unicodedata import east_asian_width

import numpy as np

from pipeline.balance import count_table, evenness
from pipeline.corpora import read_corpus
from pipeline.plate import DIGITS, LETTERS, PROVINCES, SEPARATORS, PlatemintError

CLASSES = {"letters": LETTERS, "digits": DIGITS, "provinces": PROVINCES, "separators": SEPARATORS}
PATTERN = str.maketrans({c: kind for kind, alphabet in zip("LDP", CLASSES.values()) for c in alphabet})
BARS = "▁▂▃▄▅▆▇█"
LISTED = 8  # layouts or patterns a table names


def inspect(path: str | Path) -> dict:
    """Counts and evenness of a corpus in any form `read_corpus` knows, or of the accepted rows of a run folder.

    Ready for JSON: path, kind ("corpus" or "run"), plates, distinct (different texts); {name: plates} of splits,
    layouts, lengths, patterns (L letter, D digit, P province) and set_aside (reasons; corpus only), most frequent
    first; positions: for each position (from 0, separators included) and class of characters seen there, a dict of
    position, class, plates, counts {character: n}, and max_min, entropy, gini and kl (see `evenness`) over the
    characters seen; overall: the same over all positions. Raises PlatemintError where nothing can be read.
    """
    path = Path(path)
    is_run = (path / "plan.json").is_file() or any(path.glob("data/*.parquet"))
    read = _read_run if is_run else _read_corpus
    columns, set_aside = read(path)
    texts = columns["text"]
    table, seen = count_table(texts)
    return {
        "path": str(path),
        "kind": "run" if is_run else "corpus",
        "plates": len(texts),
        "distinct": len(set(texts)),
        "splits": _tally(columns["split"]),
        "layouts": _tally(filter(None, columns["layout"])),
        "lengths": _tally(str(len(text)) for text in texts),
        "patterns": _tally(text.translate(PATTERN) for text in texts),
        "set_aside": _tally(set_aside),
        "positions": [
            {"position": position} | cell for position, row in enumerate(table) for cell in _by_class(row, seen)
        ],
        "overall": list(_by_class(table.sum(axis=0), seen)),
    }


def table(report: dict) -> str:
    """A report of `inspect` for people: under each character a bar, full for the most frequent one of its row."""
    distinct = f"{report['distinct']:,} different texts"
    lines = [f"{report['path']}: {report['kind']} of {report['plates']:,} plates, {distinct}"]
    for key in ("splits", "layouts", "lengths", "patterns", "set_aside"):
        if report[key]:
            lines.append(f"{key.replace('_', ' '):10} {_listed(report[key])}")
    for overall in report["overall"]:
        rows = [row for row in report["positions"] if row["class"] == overall["class"]]
        lines += ["", *_block(overall, rows)]
    return "\n".join(lines)


def _read_corpus(path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Columns text, layout and split, and the reasons for what is set aside."""
    corpus = read_corpus(path)
    columns = {"text": [label.text for label in corpus.labels], "split": [label.split for label in corpus.labels]}
    return columns | {"layout": []}, [item["reason"] for item in corpus.set_aside]


def _read_run(path: Path) -> tuple[dict[str, list[str]], list[str]]:
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
            raise PlatemintError(f"{shard}: not a whole shard of a run ({fault}); `verify` tells more") from None
    return columns, []


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
