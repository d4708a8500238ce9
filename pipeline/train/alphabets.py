"""What a network can spell, and how it learns to spell more without losing what it knew."""

from __future__ import annotations

import unicodedata

import cv2
import numpy as np
import torch
from torch import nn

from platemint.models import checkpoint
from platemint.models.reader import Reader
from platemint.models.spg import SPG
from platemint.pipeline.plate import ALPHABET, READABLE, SEPARATORS, PlatemintError, unspellable
from platemint.pipeline.recipe import TrainRecipe
from platemint.pipeline.render.glyphs import glyph
from platemint.pipeline.render.photo import Cell, Lettering, stamp_cell

FONTS = (("Saira Condensed", 500), ("Barlow Condensed", 600), ("Fjalla One", 400))
RARE = 12.0  # a reader's new class starts that many nats below the one it comes from, whose figure it else would halve


def spelled(recipe: TrainRecipe) -> str:
    """What the network that a recipe trains can spell; one that starts afresh, what its reader reads."""
    if recipe.network == "finder":  # which spells nothing: what layouts are rendered with
        return ALPHABET
    if recipe.start:
        old = checkpoint.checkpoint_alphabet(recipe.start, recipe.network)
    elif recipe.network == "reader":
        old = READABLE
    else:
        read = checkpoint.checkpoint_alphabet(recipe.reader, "reader") if recipe.reader else READABLE
        old = "".join(c for c in ALPHABET if c in read or c in SEPARATORS)
    return old + unspellable(recipe.alphabet.add, old)


def start(recipe: TrainRecipe) -> nn.Module:
    """The network a recipe starts from, with the characters it adds."""
    network = checkpoint.load(recipe.start, recipe.network)
    old = network.config.alphabet
    near = {c: nearest_character(c, old) for c in unspellable(recipe.alphabet.add, old)}
    network = checkpoint.grown(network, near)
    if isinstance(network, SPG):
        prime_glyphs(network, "".join(near))  # from A training finds no way to Ä: the dots stay missing
    elif near:
        network.out[-1].bias.data[1 + len(old) :] -= RARE
    return network.train()


def freeze_known(network: nn.Module, known: int) -> None:
    """Leaves nothing to train but the rows of the characters behind the first `known` ones of the alphabet.

    Weight decay has to be 0, since it changes weights without a gradient.
    """
    own = checkpoint.per_character(network)
    for name, weight in network.named_parameters():
        weight.requires_grad_(name in own)
        if name in own:
            weight.register_hook(
                lambda gradient: torch.cat([torch.zeros_like(gradient[: 1 + known]), gradient[1 + known :]])
            )


def nearest_character(character: str, alphabet: str) -> str:
    """The character of an alphabet that is nearest to one: its letter without the accent, else what looks most alike."""
    if _plain(character) in alphabet:
        return _plain(character)
    look = _look(character)
    return max((c for c in alphabet if c not in SEPARATORS), key=lambda c: float((_look(c) * look).sum()))


def _plain(character: str) -> str:
    """A of Ä, D of Đ; the character itself where it has no other."""
    try:
        return unicodedata.lookup(unicodedata.name(character).split(" WITH ")[0])
    except (KeyError, ValueError):
        return character


def _look(character: str) -> np.ndarray:
    """A character stretched to one size, softened, its mean 0 and its length 1: float32 (32, 20)."""
    ink = cv2.resize(glyph(character, *FONTS[0]), (20, 32), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(ink.astype(np.float32), (0, 0), 1.5)
    soft -= soft.mean()
    return soft / max(1e-6, float(np.linalg.norm(soft)))


def _drawn(character: str, family: str, weight: int, height: int, width: int) -> np.ndarray:
    canvas = np.zeros((4 * height, 4 * width), np.uint8)
    stamp_cell(canvas, Cell(character, 0, 0, 4 * width, 4 * height, True), Lettering(family, weight), 1.0)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


def prime_glyphs(network: SPG, characters: str) -> None:
    """Starts C_d's learned glyphs from three typefaces: training refines letters instead of discovering them."""
    channels, height, width = network.config.glyph
    with torch.no_grad():
        for character in characters:
            number = 1 + network.config.alphabet.index(character)
            for channel in range(channels):
                small = _drawn(character, *FONTS[channel % len(FONTS)], height, width)
                network.C_d.glyphs[number, channel] = torch.from_numpy(small).float() / 255


def refuse_unread(alphabet: str, reader: Reader | None) -> None:
    """Raises PlatemintError where a reader does not read all that a generator is to learn."""
    if reader is not None and (unread := unspellable(alphabet, reader.config.alphabet)):
        raise PlatemintError(
            f"reader: does not read {unread}, so it cannot teach them; train a reader with alphabet.add={unread} first "
            "(recipe train-reader) and name its checkpoint"
        )
