"""Plates drawn from layouts, with ground truth: the default source, and what phase 1 trains on."""

from __future__ import annotations

import numpy as np

from platemint.pipeline.plate import Plate, spell_like
from platemint.pipeline.render.layout import Layout, load_layouts
from platemint.pipeline.render.photo import Photo, photograph
from platemint.pipeline.render.wild import longer_or_shorter, random_text, vary, wild_layout

__all__ = ["Layout", "Photo", "load_layouts", "photograph", "random_text", "render_pair", "render_plate"]


def render_plate(layout: Layout, text: str, rng: np.random.Generator, severity: float = 0.6) -> Plate:
    """One photograph of a plate, 32 to 96 pixels high, with the exact mask of its text as `source_mask`."""
    photo = photograph(layout, [text], int(rng.integers(32, 97)), severity, rng)[0]
    return Plate(image=photo.image, text=text, layout=layout.name, source_mask=photo.mask)


def render_pair(
    layouts: list[Layout], rng: np.random.Generator, wild: float = 0.5, more: str = ""
) -> tuple[Photo, Photo]:
    """Two photographs that share everything but the text, of a made-up layout (share `wild`) or a loosened real one.

    Three pairs in ten spell separators out, as some corpora do. In one pair of six the second text is longer or
    shorter, where the plate allows it. more: characters of made-up layouts beside A-Z, digits and provinces.
    """
    layout = wild_layout(rng, more) if rng.random() < wild else vary(layouts[int(rng.integers(len(layouts)))], rng)
    kinds = [layout, layout]
    if rng.random() < 0.3 and (rows := longer_or_shorter(layout, rng)):
        kinds[1] = layout.model_copy(update={"rows": rows})
    texts = [random_text(kind.positions, rng) for kind in kinds]
    if rng.random() < 0.3:
        texts = [spell_like(text, kind.pattern) for kind, text in zip(kinds, texts)]
    height = int(np.exp(rng.uniform(np.log(22), np.log(90))))
    source, target = photograph(layout, texts, height, rng.uniform(0.2, 1.0), rng, [kind.rows for kind in kinds])
    return source, target
