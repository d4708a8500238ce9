"""Texts that no plate may get, beside those of the source corpus: a file of texts, or another corpus."""

from __future__ import annotations

from pathlib import Path

from platemint.pipeline.corpora import here, read_corpus, table_rows, text_lines
from platemint.pipeline.corpora.containers import CONTAINERS
from platemint.pipeline.corpora.labels import lines
from platemint.pipeline.object_store import place
from platemint.pipeline.plate import PlatemintError, normalise

OF_CORPORA = (*table_rows.SUFFIXES, *(module.SUFFIX for module in CONTAINERS.values()), ".json", ".xml")


def forbidden_texts(path: str) -> frozenset[str]:
    """The texts of a .txt file with one a line, of a table with a column text, or of a corpus; none for "".

    Those of a corpus count whether its plates can be used or not. Normalised; raises PlatemintError where there is
    nothing to read.
    """
    if not path:
        return frozenset()
    there = place(path)
    if not there.exists():
        raise PlatemintError(f"{path}: draw.forbid: no such file or folder")
    texts = frozenset(filter(None, map(normalise, _texts(here(there)))))
    if not texts:
        raise PlatemintError(f"{path}: draw.forbid: holds no text; give a .txt with one a line, a table or a corpus")
    return texts


def _texts(path: Path) -> list[str]:
    suffix = path.suffix.lower()
    if path.is_file() and suffix in table_rows.SUFFIXES and not table_rows.is_crop_table(path):
        rows = table_rows.sound_rows(path)
        return [str(row.fields.get(table_rows.columns_of(tuple(row.fields)).text) or "") for row in rows]
    if path.is_file() and suffix not in OF_CORPORA and path.name not in text_lines.NAMES:
        return lines(path)
    return [*read_corpus(path).texts]
