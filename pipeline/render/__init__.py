"""Plates drawn from layouts, with ground truth: the default source, and what phase 1 trains on."""

from __future__ import annotations

import numpy as np

from pipeline.plate import Plate, spell_like
from pipeline.render.layout import Layout, load_layouts
from pipeline.render.photo import Photo, photograph
from pipeline.render.wild import random_text, vary, wild_layout

__all__ = ["Layout", "Photo", "load_layouts", "photograph", "random_text", "render_pair", "render_plate"]


def render_plate(layout: Layout, text: str, rng: np.random.Generator, severity: float = 0.6) -> Plate:
    """One photograph of a plate, 32 to 96 pixels high, with the exact mask of its text as `source_mask`."""
    photo = photograph(layout, [text], int(rng.integers(32, 97)), severity, rng)[0]
    return Plate(image=photo.image, text=text, layout=layout.name, source_mask=photo.mask)


def render_pair(layouts: list[Layout], rng: np.random.Generator, wild: float = 0.5) -> tuple[Photo, Photo]:
    """Two photographs that share everything but the text, of a made-up layout (share `wild`) or a loosened real one.

    Three pairs in ten spell separators out, as some corpora do. Both texts have the same length.
    """
    layout = wild_layout(rng) if rng.random() < wild else vary(layouts[int(rng.integers(len(layouts)))], rng)
    texts = [random_text(layout.positions, rng) for _ in range(2)]
    if rng.random() < 0.3:
        texts = [spell_like(text, layout.pattern) for text in texts]
    height = int(np.exp(rng.uniform(np.log(22), np.log(90))))
    return tuple(photograph(layout, texts, height, rng.uniform(0.2, 1.0), rng))
