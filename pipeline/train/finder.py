"""The finder's task: plates anywhere in pictures of cars. Of rendered ones the text block is known.

Of labelled real crops, where a corpus is given, the generator that ships says where the characters of the text stand.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from platemint.models import checkpoint
from platemint.models.finder import Finder, FinderConfig, block_depth, likeliest_block
from platemint.models.spg import encode_texts, token_places
from platemint.pipeline.networks import autocast, batched, network_input
from platemint.pipeline.recipe import Edit, TrainRecipe
from platemint.pipeline.render.layout import spelled_with, training_layouts
from platemint.pipeline.render.surroundings import loose_crop, pasted
from platemint.pipeline.train.alphabets import spelled
from platemint.pipeline.train.pairs import shrink, unit_pictures

MOST = 2  # text blocks in a picture
DEEP = 0.3  # from this depth on a cell lies on a block; on the rim nothing is asked of it
CLOSE = 0.2  # of a text's height: as near to the truth is a corner that is found
SURE = 0.5
HOLD_BACK = 16  # one of so many real plates


@dataclass(slots=True)
class LooseCrops:
    """Pictures uint8 (B, 3, H, W), and their text blocks float32 (B, 2, 4, 2), nan where there is none."""

    pictures: Tensor
    blocks: Tensor


class Rendered(torch.utils.data.Dataset):
    """Loose crops by number: picture and text blocks."""

    def __init__(self, recipe: TrainRecipe, alphabet: str):
        self.recipe = recipe
        self.layouts = list(spelled_with(alphabet, training_layouts(recipe.layouts))[0].values())

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        cv2.setNumThreads(1)
        photo, blocks = loose_crop(self.layouts, np.random.default_rng([self.recipe.seed, number]), self.recipe.wild)
        return photo.image, blocks


@dataclass(frozen=True)
class StackCrops:
    """Stacks loose crops at a network's size (H, W)."""

    size: tuple[int, int]

    def __call__(self, crops: list[tuple[np.ndarray, np.ndarray]]) -> LooseCrops:
        blocks = torch.full((len(crops), MOST, 4, 2), torch.nan)
        for row, (_, some) in zip(blocks, crops):
            row[: len(some)] = torch.from_numpy(some)
        return LooseCrops(torch.stack([shrink(picture, self.size) for picture, _ in crops]), blocks)


class FinderTask:
    """The finder learns which cells lie on a text block, and where the corners of theirs are."""

    critic, kind = None, (Rendered, StackCrops)

    def __init__(self, recipe: TrainRecipe, device, dtype, crops: list[tuple[np.ndarray, str]]):
        self.recipe, self.device, self.dtype = recipe, device, dtype
        self.alphabet = spelled(recipe)
        self.network = checkpoint.load(recipe.start, "finder").train() if recipe.start else Finder(FinderConfig())
        self.network.to(device=device, memory_format=torch.channels_last)
        self.size = self.network.config.height, self.network.config.width
        real = list(zip((image for image, _ in crops), blocks_of(crops, device, dtype)))
        self.held_back = self._pasted(real[::HOLD_BACK]) if real else None
        self.real = [crop for i, crop in enumerate(real) if i % HOLD_BACK]

    def examples(self, batch: LooseCrops, rng: np.random.Generator) -> LooseCrops:
        """The batch, with some of its pictures replaced by real plates."""
        if self.real:
            for i in np.flatnonzero(rng.random(len(batch.pictures)) < self.recipe.real_share):
                picture, block = pasted(*self.real[rng.integers(len(self.real))], rng)
                batch.pictures[i], batch.blocks[i] = shrink(picture, self.size), torch.nan
                batch.blocks[i, 0] = torch.from_numpy(block)
        return batch

    def _pasted(self, real: list[tuple[np.ndarray, np.ndarray]]) -> LooseCrops:
        """Real plates that tell how training is doing, and are not learned."""
        rng = np.random.default_rng(0)
        made = [pasted(*crop, rng) for crop in real]
        return StackCrops(self.size)([(picture, block[None]) for picture, block in made])

    def loss(self, batch: LooseCrops, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        batch = self.examples(batch, rng)
        with autocast(self.device, self.dtype):
            logits, corners = self.network(unit_pictures(batch.pictures, self.device))
        there, on, truth = wanted(batch.blocks.to(self.device), corners.shape[1], self.size)
        score = F.binary_cross_entropy_with_logits(logits, on.float(), reduction="none")
        score = (score * there).mean() * 10
        heights = text_height(truth)[..., None, None]
        off = ((corners - truth).abs() * _aspect(self.size, self.device) / heights).clamp(max=4).mean((-1, -2))
        off = (off * on).sum() / on.sum().clamp(min=1)
        figures = {"score": float(score.detach()), "corners": float(off.detach())}
        return score + off, figures

    def critic_loss(self) -> None:
        return None

    def _found(self, network: nn.Module, batch: LooseCrops) -> tuple[Tensor, Tensor]:
        with autocast(self.device, self.dtype):
            return likeliest_block(*network(unit_pictures(batch.pictures, self.device)))

    @torch.no_grad()
    def score(self, network: nn.Module, batch: LooseCrops) -> float:
        """Share of pictures whose text is found, all corners being CLOSE; or not, where there is none.

        With a corpus, the mean of that of rendered pictures and of plates held back.
        """
        sets = [batch, *([self.held_back] if self.held_back else [])]
        return float(np.mean([self._right(network, some) for some in sets]))

    def _right(self, network: nn.Module, batch: LooseCrops) -> float:
        quads, sure = self._found(network, batch)
        blocks = batch.blocks.to(self.device)
        away = ((quads[:, None] - blocks) * _aspect(self.size, self.device)).norm(dim=-1).amax(-1) / text_height(blocks)
        none = blocks.isnan().all((1, 2, 3))
        right = torch.where(none, sure < SURE, (away.nan_to_num(9).amin(1) < CLOSE) & (sure >= SURE))
        return float(right.float().mean())

    @torch.no_grad()
    def sheet(self, network: nn.Module, batch: LooseCrops) -> list[Tensor]:
        """Pictures (B, 3, H, W) with what is found drawn on them: green where the network is sure, else red."""
        quads, sure = self._found(network, batch)
        size, drawn = np.array(self.size[::-1]), []
        for picture, quad, certain in zip(batch.pictures, quads.cpu().numpy(), sure.tolist()):
            canvas = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
            color = (0, 255, 0) if certain >= SURE else (255, 0, 0)
            cv2.polylines(canvas, [(quad * size).round().astype(np.int32)], True, color)
            drawn.append(torch.from_numpy(canvas).permute(2, 0, 1))
        return [unit_pictures(torch.stack(drawn), self.device)]


@torch.no_grad()
def blocks_of(crops: list[tuple[np.ndarray, str]], device, dtype) -> list[np.ndarray]:
    """The text block of each labelled crop, float32 (4, 2), by the slots of the generator that ships."""
    if not crops:
        return []
    spg = checkpoint.load(Edit().checkpoint, "spg").to(device)
    config, found = spg.config, []
    for some in batched(crops, Edit().batch):
        source = network_input([image for image, _ in some], config.height, config.width, device)
        texts = encode_texts([text for _, text in some], config.alphabet, config.longest).to(device)
        with autocast(device, dtype):
            slots = spg.source_layers(source, texts).slots.float().cpu().numpy()
        found += [block_of(row[: len(text)]) for row, (_, text) in zip(slots, some)]
    return found


def block_of(slots: np.ndarray) -> np.ndarray:
    """The corners, float32 (4, 2), of the block of all slots (n, 3, 2): lines along their upper and lower ends."""
    centres, axes = slots[:, 0], slots[:, 1:].mean(0)
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    corners = centres[:, None] + np.einsum("kj,njd->nkd", signs, slots[:, 1:])
    local = corners @ np.linalg.inv(axes)  # in half widths and half heights of a slot
    rows = local[..., 1].mean(1)
    upper, lower = local[rows < rows.min() + 1], local[rows > rows.max() - 1]
    ends = np.array([local[..., 0].min(), local[..., 0].max()])
    top, bottom = (_line(points)(ends) for points in (upper[:, :2], lower[:, 2:]))
    block = np.array([[ends[0], top[0]], [ends[1], top[1]], [ends[1], bottom[1]], [ends[0], bottom[0]]])
    return (block @ axes).astype(np.float32)


def _line(points: np.ndarray) -> np.poly1d:
    return np.poly1d(np.polyfit(*points.reshape(-1, 2).T, 1))


def _aspect(size: tuple[int, int], device) -> Tensor:
    """What turns fractions of a picture's width and height into parts of its height."""
    return torch.tensor([size[1] / size[0], 1.0], device=device)


def text_height(blocks: Tensor) -> Tensor:
    """The mean length of the left and right sides of text blocks (..., 4, 2), as a part of the picture's height: (...,).

    In the network's own picture; at least a fiftieth, so that what is tiny does not outweigh the rest.
    """
    sides = torch.stack([blocks[..., 3, :] - blocks[..., 0, :], blocks[..., 2, :] - blocks[..., 1, :]], -2)
    return sides.norm(dim=-1).mean(-1).clamp(min=0.02)


def wanted(blocks: Tensor, cells: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """What each cell shall say. blocks: float (B, n, 4, 2), nan where there is none.

    there: float (B, cells), 0 where nothing is asked of it. on: bool (B, cells), whether it lies on a text block.
    truth: float (B, cells, 4, 2), the corners of the block it is deepest in.
    """
    height, width = size
    rows = round((cells * height / width) ** 0.5)
    points = token_places(rows, cells // rows, blocks.device)
    b, n = blocks.shape[:2]
    deep = block_depth(blocks.flatten(0, 1), points).view(b, n, cells).nan_to_num(-1e3)
    apart = (points - blocks.mean(2)[:, :, None]).norm(dim=-1).nan_to_num(1e3)
    middle = (apart == apart.amin(2, keepdim=True)) & (apart < 1e2)
    deep = torch.where(middle, 1.0, deep)
    best, whose = deep.max(1)
    on = best > DEEP
    truth = blocks.nan_to_num(0)[torch.arange(b)[:, None], whose]
    return ((best <= 0) | on).float(), on, truth
