"""Texts that no plate may get, beside those of the source corpus: a file of texts, or another corpus."""

from __future__ import annotations

from pathlib import Path

from platemint.pipeline.corpora import gt, read_corpus, table
from platemint.pipeline.corpora.labels import lines
from platemint.pipeline.plate import PlatemintError, normalise


def forbidden_texts(path: str) -> frozenset[str]:
    """The texts of a .txt file with one a line, of a table with a column text, or of a corpus; none for "".

    Normalised; raises PlatemintError where there is nothing to read.
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
    if place.is_file() and suffix in table.SUFFIXES and not table.fits(place):
        rows = table.sound_rows(place)
        return [str(row.fields.get(table.columns_of(tuple(row.fields)).text) or "") for row in rows]
    if place.is_file() and suffix not in table.SUFFIXES and place.name not in gt.NAMES:
        return lines(place)
    return [label.text for label in read_corpus(place).labels]
