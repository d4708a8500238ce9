"""kinds: what kind each plate of a corpus is, such as its country, where a table of labels has a column that says so."""

from __future__ import annotations

import contextlib
from pathlib import Path

from platemint.pipeline.corpora import Label, read_corpus, table_rows
from platemint.pipeline.corpora.labels import Corners, read_text
from platemint.pipeline.corpora.pixels import source_id

KINDS = ("source", "country", "layout", "group")  # columns of a corpus's table that may say what kind of plate it is
PUBLIC = ("country", "layout")  # those of them that say nothing of where photographs come from
MOST_KINDS = 20  # a column of more values names the pictures, not their kinds
Plated = tuple[Path, Corners]


def kinds_of(source: Path) -> dict[Plated, str]:
    """{plate: its kind} as a corpus's table of labels says in a column of KINDS; {} where it does not."""
    return {plated(label): kind for label, kind in _labelled(source)}


def kinds_by_source(source: Path) -> dict[str, str]:
    """Countries or layouts by the id that `pipeline.corpora.pixels` gives a photograph; what cannot be read is left out.

    Columns that may name sources or groups are not looked at: these are for pages that may be passed on.
    """
    found = {}
    for label, kind in _labelled(source, PUBLIC):
        with contextlib.suppress(OSError, ValueError):
            found[source_id(label)] = kind
    return found


def _labelled(source: Path, columns: tuple[str, ...] = KINDS) -> list[tuple[Label, str]]:
    files = [source] if source.is_file() else sorted(source.iterdir())
    for file in filter(table_rows.is_crop_table, files):
        rows = {
            str(row.number): row.fields for row in table_rows.parse(file.name, read_text(file)).rows() if row.fields
        }
        for column in columns:
            if 1 < len({row.get(column) for row in rows.values()}) <= MOST_KINDS:
                return [(label, str(rows[label.row].get(column) or "")) for label in read_corpus(file).labels]
    return []


def plated(label: Label) -> Plated:
    """Which plate a label is of, however its corpus was opened."""
    return label.path, label.corners
