"""edit: writes each plate's target on it with the SPG, in batches, and changes nothing else of the photograph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from platemint.models.reader import Reader
from platemint.models.spg import SPG, Fill, SourceLayers, cell_mask, compose, encode_texts, erasure, region, repaint
from platemint.pipeline.alignment import known_places
from platemint.pipeline.edges import slope_of, steepened
from platemint.pipeline.find import TextFinder
from platemint.pipeline.grain import Grain, grain_of, grained
from platemint.pipeline.networks import (
    autocast,
    choose_device,
    in_batches,
    load_network,
    network_input,
)
from platemint.pipeline.plate import Plate, PlatemintError, kin
from platemint.pipeline.recipe import Edit
from platemint.pipeline.references import References, collect_references, glyphs_of
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
        """The plates edited, in order; an image's result depends on the others by rounding at most.

        Raises PlatemintError for a text that is empty, too long or cannot be spelled.
        """
        for plate in plates:
            self.check(plate)
        return in_batches(self._edit, [self._placed(plate) for plate in self.find(plates)], self.options.batch)

    def find(self, plates: list[Plate]) -> list[Plate]:
        """The plates with the frame in which they are edited, and to be read; as they are where none is looked for."""
        if not self.finder:
            return plates
        firsts, of = distinct(plates)
        found = self.finder(firsts)
        return [replace(plate, frame=found[number].frame) for plate, number in zip(plates, of)]

    def _placed(self, plate: Plate) -> Plate:
        """The plate with the places of its characters where the generator alone would look for them elsewhere."""
        if self.references is None or plate.places is not None:
            return plate
        return replace(plate, places=self.references.places.get(plate.source))

    def collected(self, plates: Iterable[Plate], reader: Reader, threads: int = 1) -> References | None:
        """How plates of one corpus draw their characters; None where the options want no references.

        threads: see `collect_references`.
        """
        if self.options.references == "none":
            return None
        known = (plate for plate in plates if self._spells(plate.text))  # others are refused when they are to be edited
        batch = self.options.batch
        return collect_references(known, self.spg, reader, batch, self.device, self.dtype, self.find, threads)

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
        """What an edit needs of its photograph is made once for all of these edits."""
        config = self.spg.config
        size = config.height, config.width
        photos, of = (plates, [*range(len(plates))]) if self.private else distinct(plates)
        source = network_input([cut_out(p.image, p.frame, *size) for p in photos], *size, self.device)
        source_text, target_text = self._codes([p.text for p in photos]), self._codes([p.target for p in plates])
        places = known_places([p.places for p in photos], config.longest).to(self.device)
        with autocast(self.device, self.dtype):
            if self.private:
                between = self._codes([unlike(plate.target, config.alphabet) for plate in plates])
                edit = self.spg.private(source, source_text, between, target_text, places)
            else:
                seen = self.spg.source_layers(source, source_text, places)
                numbers = torch.tensor(of, device=self.device)
                edit = self.spg.edit(seen, target_text, numbers, references=self._references(photos, seen))
        filled = [edit.filled] if self.private else []  # else it is made at the photograph's own resolution
        layers = torch.cat([edit.B_s, edit.B_t, edit.ink, edit.correction, *filled], 1)
        layers = layers.float().permute(0, 2, 3, 1).cpu().numpy()
        slots = edit.target_slots.float().cpu().numpy()
        cells = edit.source_slots.float().cpu() if self.private else [None] * len(plates)
        grounds = [ground_of(part_of(plate), layers[of.index(n)], cells[n]) for n, plate in enumerate(photos)]
        edits = (finish(part_of(p), grounds[n], *layer) for p, n, *layer in zip(plates, of, layers, slots))
        return [put_back(plate, edit) for plate, edit in zip(plates, edits)]

    def _codes(self, texts: list[str]) -> Tensor:
        return encode_texts(texts, self.spg.config.alphabet, self.spg.config.longest).to(self.device)

    def _references(self, sources: list[Plate], seen: SourceLayers) -> Tensor | None:
        """How the corpus draws each source's characters, as `models.spg` takes it."""
        if self.references is None:
            return None
        known = self.references.sources
        others = [number for number, plate in enumerate(sources) if plate.source not in known]
        own = glyphs_of(seen.at(torch.tensor(others, device=self.device)), self.spg.config) if others else None
        cuts = iter(own.by_plate(len(others)) if own else ())
        found = [
            self.references.of(known[plate.source]) if plate.source in known else self.references.like(next(cuts))
            for plate in sources
        ]
        return torch.from_numpy(np.stack(found)).to(self.device)


def distinct(plates: Sequence[Plate]) -> tuple[list[Plate], list[int]]:
    """The first plate of each photograph with all that is known of it, and which of these each plate is like."""
    first: dict[tuple, int] = {}
    of = [
        first.setdefault((id(plate.image), plate.text, id(plate.places), id(plate.frame)), number)
        for number, plate in enumerate(plates)
    ]
    order = {number: place for place, number in enumerate(first.values())}
    return [plates[number] for number in order], [order[number] for number in of]


@dataclass(frozen=True)
class Ground:
    """What all edits of a photograph are composed on, at its own resolution: float (1, 3 or 1, H, W) in 0..1.

    B_s: the old strokes, or whole cells that are painted anew. slope: how steep the strokes' edges are; None where cells
    are painted anew. grain: None where the photograph has none.
    """

    source: Tensor
    B_s: Tensor
    filled: Tensor
    ink: Tensor
    slope: float | None
    grain: Grain | None


def ground_of(plate: Plate, layers: np.ndarray, cell_slots: Tensor | None = None) -> Ground:
    """A photograph without its characters.

    layers: float32 (h, w, 8 or 11) of the plate's frame, at the network's size: B_s, B_t, ink, correction and, with
    cell_slots, the filled plate. cell_slots: of the source, float32 (2 N, 3, 2), in the frame, where whole cells are painted
    anew.
    """
    height, width = plate.image.shape[:2]
    source = torch.from_numpy(plate.image.astype(np.float32)).permute(2, 0, 1)[None] / 255
    B_s = _in_picture(layers[..., :1], plate, goes_on=False).clamp(0, 1)
    ink = _in_picture(layers[..., 2:5], plate)
    if cell_slots is None:
        filled = Fill(source, B_s)
        slope = slope_of(source, filled, B_s, ink, _scale(plate, layers))
        return Ground(source, B_s, filled, ink, slope, grain_of(plate.image, B_s[0, 0].numpy()))
    there = (torch.arange(len(cell_slots) // 2) < len(plate.text)).repeat(2)[None]
    cell_slots = torch.from_numpy(slots_in_picture(cell_slots.numpy(), plate.frame))
    B_s = erasure(cell_mask(cell_slots[None], there, height, width), B_s)
    grain = grain_of(plate.image, B_s[0, 0].numpy(), private=True)
    return Ground(source, B_s, _in_picture(layers[..., 8:11], plate), ink, None, grain)


def finish(plate: Plate, ground: Ground, layers: np.ndarray, slots: np.ndarray) -> Plate:
    """The plate with its edit composed at the photograph's own resolution.

    layers: as `ground_of` takes them. slots: of the target, in the plate's frame.
    """
    B_t = _in_picture(_sharp(layers[..., 1:2]), plate, goes_on=False).clamp(0, 1)
    correction = _in_picture(layers[..., 5:8], plate)
    if ground.slope is None:
        image = repaint(ground.source, ground.B_s, B_t, ground.filled, ground.ink, correction)
        changed = torch.maximum(ground.B_s, region(B_t, B_t))
    else:
        steep = steepened(B_t, ground.slope, _scale(plate, layers))
        image = compose(ground.source, ground.filled, ground.B_s, steep, ground.ink, correction)
        changed = region(ground.B_s, steep)
    picture = image[0].permute(1, 2, 0).numpy()
    if ground.grain is not None:
        picture = grained(picture, changed[0, 0].numpy(), B_t[0, 0].numpy(), ground.grain, plate.target)
    return replace(
        plate,
        image=np.ascontiguousarray((picture * 255).round().astype(np.uint8)),
        text=plate.target,
        original=plate.image,
        original_text=plate.text,
        source_mask=_byte(ground.B_s),
        target_mask=_byte(B_t),
        slots=slots_in_picture(slots[: len(plate.target)], plate.frame),
    )


def _in_picture(layer: np.ndarray, plate: Plate, goes_on: bool = True) -> Tensor:
    """A layer, float32 (h, w, c), of the plate's frame in its picture, float (1, c, H, W); masks end where the frame does."""
    layer = to_picture(layer, plate.frame, *plate.image.shape[:2], goes_on=goes_on)
    return torch.from_numpy(layer.reshape(*layer.shape[:2], -1)).permute(2, 0, 1)[None]


def _scale(plate: Plate, layers: np.ndarray) -> float:
    """Pixels of the picture in one of the network's."""
    return pixels_of(plate.frame, plate.image)[0] / layers.shape[0]


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
