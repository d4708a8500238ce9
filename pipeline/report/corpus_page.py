"""inspect --html: a corpus on one page, before any run: how even it is, what was set aside, and its plates."""

from __future__ import annotations

from pathlib import Path

from platemint.pipeline.corpora import read_corpus
from platemint.pipeline.report.gallery import corpus_gallery
from platemint.pipeline.report.page import for_script, heat_maps, rendered_page, shares


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
        shares=shares(report),
        gallery=for_script(shown, order="as in the corpus"),
        shown=shown,
    )
