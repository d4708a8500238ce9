"""find: where in each picture the text of its plate stands, so that crops of any margin are edited and read alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from platemint.models.finder import likeliest_block
from platemint.pipeline.networks import autocast, choose_device, in_batches, load_network, network_input
from platemint.pipeline.plate import Plate
from platemint.pipeline.recipe import Edit
from platemint.pipeline.text_frame import WHOLE, around, cut_out, fills, points_in_picture, usable

SURE = 0.5  # of 1: below, the picture is taken as it is
AGAIN = (1.0, 1.0)  # of the text's height: around what is found, the second look


class TextFinder:
    """Plates -> the same with the frame their text stands in; the whole picture where it fills it, or none is found."""

    def __init__(self, options: Edit):
        self.options = options
        self.device, self.dtype = choose_device(options)
        self.network = load_network(options.finder, "finder", options)

    def __call__(self, plates: list[Plate]) -> list[Plate]:
        """The plates in order; those that have a frame keep it."""
        open_ = [plate for plate in plates if plate.frame is None]
        frames = iter(self.frames([plate.image for plate in open_]))
        return [plate if plate.frame is not None else replace(plate, frame=next(frames)) for plate in plates]

    def frames(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        """The frame of each picture, uint8 (h, w, 3): float32 (4, 2), WHOLE where it is taken as it is."""
        return in_batches(self._frames, pictures, self.options.batch)

    def _frames(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        found = self.blocks(pictures)
        loose = [i for i, block in enumerate(found) if block is not None and not fills(_frame(block, pictures[i]))]
        for i, block in zip(loose, self._closer([pictures[i] for i in loose], [found[i] for i in loose])):
            found[i] = block
        frames = [WHOLE if block is None else _frame(block, picture) for block, picture in zip(found, pictures)]
        return [WHOLE if fills(frame) else frame for frame in frames]

    def _closer(self, pictures: list[np.ndarray], blocks: list[np.ndarray]) -> list[np.ndarray]:
        """Blocks looked at once more, from near: in a large picture the first look sees little of them."""
        if not pictures:
            return []
        height, width = self.network.config.height, self.network.config.width
        views = [around(block, picture.shape[1::-1], AGAIN) for block, picture in zip(blocks, pictures)]
        seen = self.blocks([cut_out(picture, view, height, width) for picture, view in zip(pictures, views)])
        return [
            block if closer is None else points_in_picture(closer, view)
            for block, closer, view in zip(blocks, seen, views)
        ]

    @torch.inference_mode()
    def blocks(self, pictures: list[np.ndarray]) -> list[np.ndarray | None]:
        """The text block of each picture, float32 (4, 2) in fractions of it, None where there is none for sure."""
        config = self.network.config
        with autocast(self.device, self.dtype):
            found, sure = likeliest_block(
                *self.network(network_input(pictures, config.height, config.width, self.device))
            )
        return [
            block if certain >= SURE and usable(block, picture.shape[1::-1]) else None
            for block, certain, picture in zip(found.float().cpu().numpy(), sure.tolist(), pictures)
        ]


def _frame(block: np.ndarray, picture: np.ndarray) -> np.ndarray:
    return around(block, picture.shape[1::-1])
