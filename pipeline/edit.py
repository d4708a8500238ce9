"""edit: writes each plate's target on it with the SPG, in batches, and changes nothing else of the photograph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from platemint.models.reader import Reader
from platemint.models.spg import SPG, Fill, cell_mask, compose, encode_texts, erasure, repaint
from platemint.pipeline.alignment import known_places
from platemint.pipeline.edges import steepened
from platemint.pipeline.find import TextFinder
from platemint.pipeline.networks import (
    autocast,
    batched,
    choose_device,
    in_batches,
    load_network,
    network_input,
)
from platemint.pipeline.plate import Plate, PlatemintError, kin
from platemint.pipeline.recipe import Edit
from platemint.pipeline.references import References, collect_references, cut_glyphs
from platemint.pipeline.text_frame import cut_out, part_of, pixels_of, put_back, slots_in_picture, to_picture

QUALITY = 95  # of pictures for people
# Strokes that the network is not sure of come out soft. Unsharp masking of B_t settles them: of 300 real crops strangers
# then read 94 % instead of 92 %, both of them 79 % instead of 72 %. (Amount, and deviation in pixels of the network's.)
SHARPEN, AROUND = 1.2, 1.2


class Editor:
    """Plates with a target -> plates that say it. Networks are loaded once, when the editor is made.

    private: an edit reveals nothing of the source's text: new characters stand evenly, on cells painted anew.
    references: of the corpus that the plates are of, if any. Private edits take none: they would show the source's own
    characters.
    """

    def __init__(self, options: Edit, private: bool = False):
        self.options, self.private = options, private
        self.references: References | None = None
        self.device, self.dtype = choose_device(options)
        self.spg: SPG = load_network(options.checkpoint, "spg", options)
        self.finder = TextFinder(options) if options.find == "auto" and not private else None

    def __call__(self, plates: list[Plate]) -> list[Plate]:
        """The plates edited, in order; an image's result does not depend on the others.

        Raises PlatemintError for a text that is empty, too long or cannot be spelled.
        """
        for plate in plates:
            self.check(plate)
        return in_batches(self._edit, [self._placed(plate) for plate in self.find(plates)], self.options.batch)

    def find(self, plates: list[Plate]) -> list[Plate]:
        """The plates with the frame in which they are edited, and to be read; as they are where none is looked for."""
        return self.finder(plates) if self.finder else plates

    def _placed(self, plate: Plate) -> Plate:
        """The plate with the places of its characters where the generator alone would look for them elsewhere."""
        if self.references is None or plate.places is not None:
            return plate
        return replace(plate, places=self.references.places.get(plate.source))

    def collected(self, plates: Iterable[Plate], reader: Reader) -> References | None:
        """How plates of one corpus draw their characters; None where the options want no references."""
        if self.options.references == "none":
            return None
        known = (plate for plate in plates if self._spells(plate.text))  # others are refused when they are to be edited
        found = (plate for some in batched(known, self.options.batch) for plate in self.find(some))
        return collect_references(found, self.spg, reader, self.options.batch, self.device, self.dtype)

    def _spells(self, text: str) -> bool:
        config = self.spg.config
        return 0 < len(text) <= config.longest and not set(text) - set(config.alphabet)

    def check(self, plate: Plate) -> None:
        """Raises PlatemintError for a text that is empty, too long or cannot be spelled."""
        config = self.spg.config
        for name, text in (("source text", plate.text), ("target", plate.target)):
            if not self._spells(text):
                raise PlatemintError(
                    f"{name} {text!r}: must be 1 to {config.longest} characters of {config.alphabet!r}"
                )

    @torch.inference_mode()
    def _edit(self, plates: list[Plate]) -> list[Plate]:
        config = self.spg.config
        size = config.height, config.width
        source = network_input([cut_out(p.image, p.frame, *size) for p in plates], *size, self.device)
        steps = [[p.text for p in plates], [p.target for p in plates]]
        if self.private:
            steps.insert(1, [unlike(text, config.alphabet) for text in steps[1]])
        texts = [encode_texts(step, config.alphabet, config.longest).to(self.device) for step in steps]
        places = known_places([p.places for p in plates], config.longest).to(self.device)
        with autocast(self.device, self.dtype):
            if self.private:
                edit = self.spg.private(source, *texts, places=places)
            else:
                edit = self.spg(source, *texts, places=places, references=self._references(plates))
        filled = [edit.filled] if self.private else []  # else it is made at the photograph's own resolution
        layers = torch.cat([edit.B_s, edit.B_t, edit.ink, edit.correction, *filled], 1)
        layers = layers.float().permute(0, 2, 3, 1).cpu().numpy()
        slots = edit.target_slots.float().cpu().numpy()
        cells = edit.source_slots.float().cpu() if self.private else [None] * len(plates)
        edits = map(finish, map(part_of, plates), layers, slots, cells)
        return [put_back(plate, edit) for plate, edit in zip(plates, edits)]

    def _references(self, plates: list[Plate]) -> Tensor | None:
        """How the corpus draws each plate's characters, as `models.spg` takes it."""
        if self.references is None:
            return None
        known = self.references.sources
        others = [plate for plate in plates if plate.source not in known]
        cuts = iter(cut_glyphs(self.spg, others, self.device, self.dtype).by_plate(len(others)) if others else [])
        found = [
            self.references.of(known[p.source]) if p.source in known else self.references.like(next(cuts))
            for p in plates
        ]
        return torch.from_numpy(np.stack(found)).to(self.device)


def finish(plate: Plate, layers: np.ndarray, slots: np.ndarray, cell_slots: Tensor | None = None) -> Plate:
    """The plate with its edit composed at the photograph's own resolution.

    layers: float32 (h, w, 8 or 11) of the plate's frame, at the network's size: B_s, B_t, ink, correction and, with
    cell_slots, the filled plate. slots: of the target, in the frame. cell_slots: of the source, float32 (2 N, 3, 2),
    likewise, where whole cells are painted anew.
    """
    height, width = plate.image.shape[:2]
    layers = np.concatenate([layers[..., :1], _sharp(layers[..., 1:2]), layers[..., 2:]], 2)
    channels = (slice(2), slice(2, 5), slice(5, 8), *([slice(8, 11)] if cell_slots is not None else []))
    parts = (
        to_picture(
            layers[..., channel], plate.frame, height, width, goes_on=number > 0
        )  # masks end where the frame does
        for number, channel in enumerate(channels)
    )
    masks, ink, correction, *filled = (torch.from_numpy(part).permute(2, 0, 1)[None] for part in parts)
    B_s, B_t = masks.clamp(0, 1).chunk(2, 1)
    source = torch.from_numpy(plate.image.astype(np.float32)).permute(2, 0, 1)[None] / 255
    if cell_slots is None:
        empty = Fill(source, B_s)
        scale = pixels_of(plate.frame, plate.image)[0] / layers.shape[0]
        steep = steepened(source, empty, B_s, B_t, ink, scale)
        image = compose(source, empty, B_s, steep, ink, correction)
    else:
        there = (torch.arange(len(cell_slots) // 2) < len(plate.text)).repeat(2)[None]
        cell_slots = torch.from_numpy(slots_in_picture(cell_slots.numpy(), plate.frame))
        B_s = erasure(cell_mask(cell_slots[None], there, height, width), B_s)
        image = repaint(source, B_s, B_t, *filled, ink, correction)
    return replace(
        plate,
        image=np.ascontiguousarray(image.mul(255).round().byte()[0].permute(1, 2, 0).numpy()),
        text=plate.target,
        original=plate.image,
        original_text=plate.text,
        source_mask=_byte(B_s),
        target_mask=_byte(B_t),
        slots=slots_in_picture(slots[: len(plate.target)], plate.frame),
    )


def unlike(text: str, alphabet: str) -> str:
    """A text of the same pattern that differs at every character of which the alphabet has another of its kind (`kin`).

    The same one for the same text.
    """
    return "".join(_other(c, i, kin(c, alphabet)) for i, c in enumerate(text))


def _other(character: str, i: int, alphabet: str) -> str:
    if len(alphabet) == 1:
        return character
    return alphabet[(alphabet.index(character) + 1 + (3 * i + 2) % (len(alphabet) - 1)) % len(alphabet)]


def _sharp(mask: np.ndarray) -> np.ndarray:
    """A mask, float32 (h, w, 1) in 0..1, of which what stands out stands out more."""
    return np.clip(mask + SHARPEN * (mask - cv2.GaussianBlur(mask, (0, 0), AROUND)[..., None]), 0, 1)


def _byte(mask: Tensor) -> np.ndarray:
    return mask[0, 0].mul(255).round().byte().numpy()


def contact_sheet(plates: list[Plate], columns: int = 2, height: int = 64, width: int = 192) -> np.ndarray:
    """Source, source mask, target mask and edit of each plate side by side: uint8 RGB."""
    rows = []
    for plate in plates:
        masks = [mask[..., None].repeat(3, 2) for mask in (plate.source_mask, plate.target_mask)]
        layers = [plate.original, *masks, plate.image]
        rows.append(np.concatenate([cv2.resize(layer, (width, height)) for layer in layers], 1))
    while len(rows) % columns:
        rows.append(np.zeros_like(rows[0]))
    return np.concatenate([np.concatenate(rows[i::columns], 0) for i in range(columns)], 1)
