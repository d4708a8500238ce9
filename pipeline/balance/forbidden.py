"""Texts that no plate may get, beside those of the source corpus: a file of texts, or another corpus."""

from __future__ import annotations

from pathlib import Path

from platemint.pipeline.corpora import read_corpus, table_rows, text_lines
from platemint.pipeline.corpora.containers import CONTAINERS
from platemint.pipeline.corpora.labels import lines
from platemint.pipeline.plate import PlatemintError, normalise

OF_CORPORA = (*table_rows.SUFFIXES, *(module.SUFFIX for module in CONTAINERS.values()), ".json", ".xml")


def forbidden_texts(path: str) -> frozenset[str]:
    """The texts of a .txt file with one a line, of a table with a column text, or of a corpus; none for "".

    Those of a corpus count whether its plates can be used or not. Normalised; raises PlatemintError where there is
    nothing to read.
    """
    if not path:
        return frozenset()
    place = Path(path)
    if not place.exists():
        raise PlatemintError(f"{path}: draw.forbid: no such file or folder")
    texts = frozenset(filter(None, map(normalise, _texts(place))))
    if not texts:
        raise PlatemintError(f"{path}: draw.forbid: holds no text; give a .txt with one a line, a table or a corpus")
    return texts


def _texts(place: Path) -> list[str]:
    suffix = place.suffix.lower()
    if place.is_file() and suffix in table_rows.SUFFIXES and not table_rows.is_crop_table(place):
        rows = table_rows.sound_rows(place)
        return [str(row.fields.get(table_rows.columns_of(tuple(row.fields)).text) or "") for row in rows]
    if place.is_file() and suffix not in OF_CORPORA and place.name not in text_lines.NAMES:
        return lines(place)
    return [*read_corpus(place).texts]
