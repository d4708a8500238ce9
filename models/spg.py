"""The Style-Preserving Generator (Hsu et al., IEEE TCSVT 2025), whole, in the paper's names.

    source S, texts -> C_e -> T = (T_e, T_d) -> C_d -> B_s, B_t      which strokes are there, which shall be
    S, B_s          -> Fill, E_s                                     the plate without them, and how they looked
    filled plate, B_t, style -> G_t -> O_t                           the edited plate
    O_t | S         -> D_t                                           real or edited? (training only)

Where this differs from the paper: T_d places every character in a slot of the plate and C_d refines a learned glyph
placed there; masks are alpha mattes; Fill continues the plate around the stroke instead of drawing noise, so an edit
never depends on its batch; G_t corrects a composite of filled plate and ink instead of painting from nothing, and
nothing outside the two masks changes.

Shapes: images float (B, 3, H, W) in 0..1, RGB, at the config's height and width; masks float (B, 1, H, W) in 0..1;
texts int64 (B, N), 0 is padding, i > 0 is alphabet[i - 1]; slots float (B, N, 3, 2): centre, half width vector, half
height vector, as fractions of width and height; references float (B, 1 + alphabet, 2, h, w), h and w of a learned
glyph: what each character looks like on other plates of its typeface, a matte in 0..1 in the frame of its slot, and
how sure that is, 0 (never seen) to 1, the same all over the glyph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from platemint.models.cells import covering, even, smooth


@dataclass(frozen=True)
class SPGConfig:
    """Everything that shapes the network; stored in the checkpoint, so loading needs nothing else."""

    alphabet: str
    height: int = 48
    width: int = 160
    channels: tuple[int, int, int] = (48, 96, 160)  # at 1/2, 1/4 and 1/8 of the picture
    heads: int = 5
    encoder_layers: int = 2  # T_e
    decoder_layers: int = 2  # T_d
    style: int = 128
    glyph: tuple[int, int, int] = (3, 32, 20)  # channels, height, width of a learned glyph
    hint: int = 16  # channels by which a character's token describes its look to C_d
    close_up: tuple[int, int] = (2, 12)  # times each slot is looked at, and channels that are
    longest: int = 12  # characters in a text
    typeface: int = 64  # numbers that sum up what reference glyphs have in common


# What a recipe may ask for by name; `small` is what a CPU can train and run, `base` wants a GPU.
SIZES = {
    "small": {},
    "base": dict(
        height=64, width=208, channels=(80, 160, 320), heads=8, encoder_layers=4, decoder_layers=3, style=256,
        glyph=(4, 48, 32), hint=32, close_up=(2, 20),
    ),
}  # fmt: skip


class Norm(nn.LayerNorm):
    """Layer norm over channels, position by position: independent of the batch, and fast in channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def conv(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    """A convolution that keeps height and width, size being odd."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


class Residual(nn.Module):
    """Two convolutions beside an identity; a style vector may scale and shift what lies between them."""

    def __init__(self, channels: int, style: int = 0):
        super().__init__()
        self.conv1, self.norm, self.conv2 = conv(channels, channels), Norm(channels), conv(channels, channels)
        self.film = nn.Linear(style, 2 * channels) if style else None
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        y = self.norm(self.conv1(x))
        if self.film is not None:
            scale, shift = self.film(style)[:, :, None, None].chunk(2, 1)
            y = y * (1 + scale) + shift
        return x + self.conv2(F.silu(y))


class Down(nn.Sequential):
    """Half the size without losing a pixel: space to depth, then a 1 x 1 convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(nn.PixelUnshuffle(2), conv(4 * inputs, outputs, 1))


class Attention(nn.Module):
    """Multi-head attention with a plain softmax: at these sizes faster on a CPU than the fused kernels' backward."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, memory: Tensor, absent: Tensor | None = None) -> Tensor:
        b, n, d = x.shape
        q = self.q(x).view(b, n, self.heads, -1).transpose(1, 2)
        k, v = self.kv(memory).view(b, memory.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5
        if absent is not None:  # (B, n or 1, keys)
            weights = weights.masked_fill(absent[:, None], -1e4)
        return self.out((weights.softmax(-1) @ v).transpose(1, 2).reshape(b, n, d))


class Layer(nn.Module):
    """A pre-norm transformer layer: self-attention, optionally cross-attention, and a two-layer perceptron."""

    def __init__(self, dim: int, heads: int, cross: bool):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.self_attention = Attention(dim, heads)
        self.cross_attention = Attention(dim, heads) if cross else None
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))

    def forward(
        self, x: Tensor, absent: Tensor | None = None, memory: Tensor | None = None, before: Tensor | None = None
    ) -> Tensor:
        """before: (B, M, C), tokens that x looks at too and that do not look at it."""
        y = self.norms[0](x)
        x = x + self.self_attention(y, y if before is None else torch.cat([self.norms[0](before), y], 1), absent)
        if self.cross_attention is not None:
            x = x + self.cross_attention(self.norms[1](x), memory)
        return x + self.mlp(self.norms[2](x))


class C_e(nn.Module):
    """Source encoder: features of the plate at 1/2, 1/4 and 1/8 of its size."""

    def __init__(self, config: SPGConfig):
        super().__init__()
        a, b, c = config.channels
        self.to_half = nn.Sequential(nn.PixelUnshuffle(2), conv(12, a), Residual(a))
        self.to_quarter = nn.Sequential(Down(a, b), Residual(b))
        self.to_eighth = nn.Sequential(Down(b, c), Residual(c))

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half = self.to_half(source - 0.5)
        quarter = self.to_quarter(half)
        return half, quarter, self.to_eighth(quarter)


@dataclass(slots=True)
class Found:
    """What T knows of source characters.

    image: tokens (B, C, H/8, W/8). states: (layers, B, N, C), character tokens as each decoder layer gets them. tokens: at
    last. slots: (B, N, 3, 2). pointer: the logits (2, B, N, image tokens) of both pointers.
    """

    image: Tensor
    states: Tensor
    tokens: Tensor
    slots: Tensor
    pointer: Tensor


class T(nn.Module):
    """T_e relates the image tokens to each other; T_d asks them where each character of both texts stands.

    The source's characters never look at the target's: what stands on a plate does not depend on what shall.
    """

    def __init__(self, config: SPGConfig):
        super().__init__()
        dim, n = config.channels[2], config.longest
        self.place = nn.Parameter(torch.zeros(1, config.height // 8 * (config.width // 8), dim))
        self.character = nn.Embedding(len(config.alphabet) + 1, dim)
        self.from_left, self.from_right, self.role = nn.Embedding(n, dim), nn.Embedding(n, dim), nn.Embedding(2, dim)
        self.T_e = nn.ModuleList(Layer(dim, config.heads, cross=False) for _ in range(config.encoder_layers))
        self.T_d = nn.ModuleList(Layer(dim, config.heads, cross=True) for _ in range(config.decoder_layers))
        self.seen, self.second_thought = nn.Linear(dim, dim), Layer(dim, config.heads, cross=True)
        self.norm = nn.LayerNorm(dim)
        self.slot = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 6))
        self.close_up = CloseUp(config)
        self.point, self.pointed, self.offset = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, 2)
        nn.init.normal_(self.place, std=0.02)
        for table in (self.character, self.from_left, self.from_right, self.role):
            nn.init.normal_(table.weight, std=0.3)
        for late in (self.slot[-1], self.seen):
            nn.init.zeros_(late.weight), nn.init.zeros_(late.bias)

    def tokens(self, text: Tensor, role: int) -> Tensor:
        n = text.shape[1]
        index = torch.arange(n, device=text.device).expand_as(text)
        right = ((text > 0).sum(1, keepdim=True) - 1 - index).clamp(min=0)
        return self.character(text) + self.from_left(index) + self.from_right(right) + self.role.weight[role]

    def source(self, half: Tensor, features: Tensor, text: Tensor, places: Tensor | None = None) -> Found:
        """Where a plate's own characters stand.

        places: float (B, N), where across the plate they are known to stand, nan where they are not.
        """
        b, c, h, w = features.shape
        image = features.flatten(2).transpose(1, 2) + self.place
        for layer in self.T_e:
            image = layer(image)
        tokens, absent, states = self.tokens(text, 0), (text == 0)[:, None], []
        for layer in self.T_d:
            states.append(tokens)
            tokens = layer(tokens, absent, image)
        even = _even_slots(text)
        first = self.pointer(self.norm(tokens), image, even[:, :, 0, 0], h, w, places)
        # Each token gets the place it has picked as input, so that of two characters in one place one can move.
        states.append(tokens + self.seen(first.softmax(-1).to(image.dtype) @ image))
        tokens = self.norm(self.second_thought(states[-1], absent, image))
        guess = even + self._moves(tokens)
        pointer = self.pointer(tokens, image, guess[:, :, 0, 0], h, w, places)
        places = token_places(h, w, image.device) + 0.1 * self.offset(image).float()
        centre = _picked_place(pointer, text, places, h, w)
        slots = self.close_up(half, tokens, torch.cat([centre[:, :, None], guess[:, :, 1:]], 2))
        return Found(
            image.transpose(1, 2).view(b, c, h, w), torch.stack(states), tokens, slots, torch.stack([first, pointer])
        )

    def target(self, image: Tensor, states: Tensor, slots: Tensor, source_text: Tensor, text: Tensor):
        """Where a text shall stand: its tokens (B, M, C) and slots. image, states, slots: of `Found`, a plate for each text."""
        image = image.flatten(2).transpose(1, 2)
        tokens, absent = self.tokens(text, 1), (torch.cat([source_text, text], 1) == 0)[:, None]
        for layer, before in zip((*self.T_d, self.second_thought), states):
            tokens = layer(tokens, absent, image, before)
        tokens = self.norm(tokens)
        return tokens, _matching_slots(slots, source_text, text) + self._moves(tokens)

    def _moves(self, tokens: Tensor) -> Tensor:
        return 0.2 * self.slot(tokens).float().unflatten(2, (3, 2))

    def pointer(
        self, tokens: Tensor, image: Tensor, guess: Tensor, h: int, w: int, places: Tensor | None = None
    ) -> Tensor:
        """Which image token each character's centre lies in: logits (B, N, h * w), likeness plus nearness to a guess.

        Picking a place among places is learned far quicker than a place from nothing. Where places are known, a token
        that is further away than its neighbours is out of the question.
        """
        likeness = self.point(tokens) @ self.pointed(image).transpose(1, 2) * tokens.shape[-1] ** -0.5
        x = token_places(h, w, image.device)[:, 0]
        logits = likeness.float() - (x - guess[:, :, None]) ** 2 / (2 * 0.12**2)
        if places is not None:
            away = (x - places[:, :, None]) * w
            logits = logits - (2 * away**2).nan_to_num(0.0)
        return logits


class CloseUp(nn.Module):
    """Refines slots twice: from the features in and around a slot, at half the plate's size, it predicts the slot's offset."""

    def __init__(self, config: SPGConfig):
        super().__init__()
        self.rounds, channels = config.close_up
        v, u = torch.meshgrid(torch.linspace(-1.3, 1.3, 5), torch.linspace(-1.5, 1.5, 7), indexing="ij")
        self.register_buffer("grid", torch.stack([u, v], -1).flatten(0, 1), persistent=False)
        self.reduce = nn.Conv2d(config.channels[0], channels, 1)
        seen = len(self.grid) * channels + config.channels[2]
        self.correct = nn.Sequential(nn.Linear(seen, 128), nn.GELU(), nn.Linear(128, 6))
        nn.init.zeros_(self.correct[-1].weight), nn.init.zeros_(self.correct[-1].bias)

    def forward(self, half: Tensor, tokens: Tensor, slots: Tensor) -> Tensor:
        picture = self.reduce(half).float()
        for _ in range(self.rounds):
            centre, axes = slots[:, :, None, 0], slots[:, :, 1:]
            points = centre + _along(self.grid, axes)
            seen = F.grid_sample(picture, 2 * points - 1, align_corners=False).permute(0, 2, 3, 1).flatten(2)
            off = self.correct(torch.cat([seen.to(tokens.dtype), tokens], -1)).float().unflatten(-1, (3, 2))
            slots = slots + 0.3 * _along(off, axes)  # in the slot's own axes, so that small and large plates are alike
        return slots


def _along(steps: Tensor, axes: Tensor) -> Tensor:
    """Steps (..., k, 2) along the half axes (B, N, 2, 2) of slots; not a matrix product, which autocast would round."""
    return steps[..., 0:1] * axes[:, :, None, 0] + steps[..., 1:2] * axes[:, :, None, 1]


def token_places(h: int, w: int, device: torch.device) -> Tensor:
    """The centres (h * w, 2) of a grid of tokens, x and y as fractions of width and height."""
    y, x = torch.meshgrid(
        (torch.arange(h, device=device) + 0.5) / h, (torch.arange(w, device=device) + 0.5) / w, indexing="ij"
    )
    return torch.stack([x, y], -1).flatten(0, 1)


def _even_slots(text: Tensor) -> Tensor:
    """The first guess: characters side by side over the plate's middle."""
    n = (text > 0).sum(1, keepdim=True).clamp(min=1).float()
    x = 0.08 + 0.84 * (torch.arange(text.shape[1], device=text.device) + 0.5) / n
    half = 0.36 / n
    zero, mid = torch.zeros_like(x), torch.full_like(x, 0.5)
    axes = [torch.stack(p, -1) for p in ((x, mid), (half.expand_as(x), zero), (zero, mid * 0.6))]
    return torch.stack(axes, 2)


def _picked_place(logits: Tensor, text: Tensor, places: Tensor, h: int, w: int) -> Tensor:
    """Mean (B, N, 2) of the places (B, h * w, 2) around each character's token: never between two far apart."""
    grid = token_places(h, w, logits.device)
    picked = grid[_in_reading_order(logits.detach(), text, h, w)]
    away = (grid - picked[:, :, None]).abs() * torch.tensor([w, h], device=logits.device)
    with torch.autocast(logits.device.type, enabled=False):  # bfloat16 would round places to half pixels
        return logits.masked_fill((away > 1.5).any(-1), -1e4).softmax(-1) @ places


def _in_reading_order(logits: Tensor, text: Tensor, h: int, w: int) -> Tensor:
    """The likeliest tokens (B, N) of which each stands to the right of the one before it, or begins a lower row.

    Found by dynamic programming (Viterbi, 1967); logits (B, N, h * w). Out of order costs as much as being e^8 times
    less likely, so that it is possible where nothing else is.
    """
    x, y = torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy")
    dx, dy = (at.flatten() - at.flatten()[:, None] for at in (x, y))  # [from, to]
    in_order = ((dx >= 1) & (dy.abs() <= 2)) | ((dx < 0) & (dy >= 2))
    cost = torch.where(in_order, 0.0, -8.0).to(logits.device)
    score = logits.log_softmax(-1)
    best, came_from = score[:, 0], []
    for n in range(1, text.shape[1]):
        reached, before = (best[:, :, None] + cost).max(1)
        there = text[:, n, None] > 0
        best = torch.where(there, reached + score[:, n], best)
        came_from.append(torch.where(there, before, torch.arange(h * w, device=logits.device)))
    picked = [best.argmax(1)]
    for before in reversed(came_from):
        picked.append(before.gather(1, picked[-1][:, None])[:, 0])
    return torch.stack(picked[::-1], 1)


def _matching_slots(slots: Tensor, source_text: Tensor, target_text: Tensor) -> Tensor:
    """The source's slots for a target of equal length; for another length, as far apart and around the same middle."""
    n, m = ((t > 0).sum(1, keepdim=True).clamp(min=1) for t in (source_text, target_text))
    index = torch.arange(target_text.shape[1], device=slots.device).float()
    at = torch.minimum(index, m - 1.0) + (n - m) / 2
    low = torch.minimum(at.floor().long(), n - 2).clamp(min=0)
    high = torch.minimum(low + 1, n - 1)
    share = (at - low)[:, :, None, None]  # below 0 and above 1 it continues the row
    before, after = (slots.gather(1, i[:, :, None, None].expand(-1, -1, 3, 2)) for i in (low, high))
    return torch.lerp(before, after, share)


def slot_grid(slots: Tensor, height: int, width: int) -> Tensor:
    """For every pixel and slot, the pixel's place inside the slot, -1..1 in both axes: (B, N, height, width, 2)."""
    y = (torch.arange(height, device=slots.device) + 0.5) / height
    x = (torch.arange(width, device=slots.device) + 0.5) / width
    centre, right, down = (slots[:, :, i, :, None, None] for i in range(3))
    dx, dy = x - centre[:, :, 0], y[:, None] - centre[:, :, 1]
    area = right[:, :, 0] * down[:, :, 1] - right[:, :, 1] * down[:, :, 0]
    area = torch.where(area.abs() < 1e-4, torch.full_like(area, 1e-4), area)
    u = (dx * down[:, :, 1] - dy * down[:, :, 0]) / area
    v = (dy * right[:, :, 0] - dx * right[:, :, 1]) / area
    return torch.stack([u, v], -1)


SURE = 200  # photographs from which on a reference glyph is as sure as can be
FRAME = 1.15  # half widths and heights of its slot that a reference glyph shows: a W is wider than its cell


def confidence(count: float) -> float:
    """How sure a reference glyph averaged from so many photographs is, in 0..1."""
    return min(1.0, math.log1p(count) / math.log1p(SURE))


def framed(mask: Tensor, slots: Tensor, size: tuple[int, int]) -> Tensor:
    """What stands in the frame of each slot: (B, C, H, W) -> (B, N, C, *size), the way back from `placed`."""
    y, x = (2 * (torch.arange(side, device=slots.device) + 0.5) / side - 1 for side in size)
    v, u = torch.meshgrid(y, x, indexing="ij")
    steps = FRAME * torch.stack([u, v], -1).flatten(0, 1)
    points = slots[:, :, None, 0] + _along(steps, slots[:, :, 1:])
    seen = F.grid_sample(mask.float(), 2 * points - 1, align_corners=False)
    return seen.transpose(1, 2).unflatten(3, size)


def placed(glyphs: Tensor, slots: Tensor, height: int, width: int, frame: float = 1.0) -> Tensor:
    """Glyphs (B, N, C, h, w), each in its slot: (B, C, height, width). frame: of a slot that a glyph shows."""
    grid = (slot_grid(slots, height, width) / frame).flatten(0, 1)
    shown = F.grid_sample(glyphs.flatten(0, 1).float(), grid, align_corners=False)
    return shown.unflatten(0, glyphs.shape[:2]).sum(1)


class Typeface(nn.Module):
    """From reference glyphs of some characters to the glyph of any, drawn in the spirit of those that are present.

    What sets each reference apart from the learned glyphs of its character is averaged to one vector, by which the
    glyphs wanted are drawn from their own learned ones, and from their own references where they have some.
    """

    def __init__(self, config: SPGConfig, hidden: int = 32):
        super().__init__()
        (channels, height, width), dim = config.glyph, config.typeface
        self.seen = nn.Sequential(
            nn.PixelUnshuffle(4), conv(16 * (channels + 1), dim, 1), nn.SiLU(), conv(dim, dim), nn.SiLU(),
            nn.Flatten(), nn.Linear(dim * (height // 4) * (width // 4), dim),
        )  # fmt: skip
        self.to_half = nn.Sequential(nn.PixelUnshuffle(2), conv(4 * (channels + 2), hidden))
        self.layers = nn.ModuleList(Residual(hidden, dim) for _ in range(2))
        self.out = nn.Sequential(Norm(hidden), nn.SiLU(), conv(hidden, 4), nn.PixelShuffle(2))
        nn.init.zeros_(self.out[2].weight), nn.init.zeros_(self.out[2].bias)

    def summary(self, learned: Tensor, references: Tensor) -> Tensor:
        """What the references of each picture have in common: float (B, typeface), 0 where there are none."""
        sure = references[:, :, 1, 0, 0]
        picture, character = sure.nonzero(as_tuple=True)
        if not len(picture):
            return sure.new_zeros(len(sure), self.seen[-1].out_features)
        weight = sure[picture, character][:, None]
        seen = torch.cat([references[picture, character, :1], learned[character]], 1)
        total = sure.new_zeros(len(sure), self.seen[-1].out_features)
        total = total.index_add(0, picture, self.seen(seen).float() * weight)
        return total / sure.sum(1, keepdim=True).clamp(min=1e-3)

    def forward(self, learned: Tensor, references: Tensor, of: Tensor, character: Tensor) -> Tensor:
        """Logits (K, 1, h, w) of glyphs. of, character: int64 (K,), whose references, and which glyph is wanted.

        learned: of the alphabet, (1 + alphabet, channels, h, w).
        """
        own, style = references[of, character], self.summary(learned, references)[of]
        x = self.to_half(torch.cat([learned[character], own], 1))
        for layer in self.layers:
            x = layer(x, style)
        return self.out(x).float() + 8 * (own[:, :1] - 0.5) * (own[:, 1:] > 0)


# What is taken from a mask's logits where references that are sure show no ink. Without it a 1 that is a bare bar on all plates
# of a corpus gets the flag that typefaces have, and recognisers learn a wrong 1. Chosen on split train.
BARE = 7.0


def _near(glyphs: Tensor) -> Tensor:
    """Where the strokes of glyphs, (B, N, 1, h, w) in 0..1, are or just beside: they are not placed to the pixel."""
    flat = glyphs.flatten(0, 1)
    return (flat + widened(flat)).clamp(max=1).view_as(glyphs)


class C_d(nn.Module):
    """Character-mask decoder: a text's tokens and slots -> logits (B, 1, H, W) of its mask, source or target alike."""

    def __init__(self, config: SPGConfig):
        super().__init__()
        a, b, c = config.channels
        self.size = config.height, config.width
        self.typeface = Typeface(config)
        # How far the mask follows glyphs that references show, and glyphs that are drawn in the spirit of others.
        self.trust = nn.Parameter(torch.tensor([4.0, 1.0]))
        self.glyphs = nn.Parameter(0.1 * torch.randn(len(config.alphabet) + 1, *config.glyph))
        self.hint = nn.Linear(c, config.hint)
        self.up_quarter = conv(c, b, 1)
        self.at_quarter = nn.Sequential(conv(2 * b + config.hint, b, 1), Residual(b))
        self.up_half = conv(b, a, 1)
        self.at_half = nn.Sequential(
            conv(2 * a + config.hint + 4 * (config.glyph[0] + 2), a, 1),  # the last 8 are of references
            Residual(a),
            Residual(a),
            Norm(a),
            nn.SiLU(),
            conv(a, 4),
        )
        self.shuffle = nn.PixelShuffle(2)

    def placed_glyphs(self, text: Tensor, slots: Tensor) -> Tensor:
        """The glyphs of a text, each in its slot: (B, glyph channels, H, W)."""
        return placed(self.glyphs[text] * (text > 0)[:, :, None, None, None], slots, *self.size)

    def placed_references(self, text: Tensor, slots: Tensor, references: Tensor | None, of: Tensor | None) -> Tensor:
        """The glyphs of a text in the typeface of its references, (B, 3, H, W).

        As they are in 0..1, how sure these are, and what they add to the logits of the mask; 0 where a picture has no
        references at all.
        """
        if references is None or not references[:, :, 1].any():
            return slots.new_zeros(text.shape[0], 3, *self.size)
        of = torch.arange(text.shape[0], device=text.device) if of is None else of
        own, sure = references[of[:, None], text].split(1, 2)
        there = (text > 0) & (references[:, :, 1, 0, 0] > 0).any(1)[of, None]
        shown = self.completed(own, references, of, text, there & (sure[:, :, 0, 0, 0] == 0))
        vote = (2 * shown - 1) * torch.where(sure > 0, *self.trust)
        layers = torch.cat([shown, sure, vote, _near(shown)], 2) * there[:, :, None, None, None]
        shown, sure, vote, near = placed(layers, slots, *self.size, FRAME).split(1, 1)
        return torch.cat([shown, sure, vote - BARE * sure * (1 - near).clamp(min=0)], 1)  # frames overlap a little

    def completed(self, own: Tensor, references: Tensor, of: Tensor, text: Tensor, absent: Tensor) -> Tensor:
        """The glyphs of texts, (B, N, 1, h, w) in 0..1: those absent, bool (B, N), drawn in the spirit of the others."""
        row, place = absent.nonzero(as_tuple=True)
        if not len(row):
            return own
        plates, of = of[row].unique(return_inverse=True)
        drawn = self.typeface(self.glyphs, references[plates], of, text[row, place]).sigmoid()
        return own.index_put((row, place), drawn)

    def placed_hints(self, text: Tensor, tokens: Tensor, slots: Tensor, height: int, width: int) -> Tensor:
        """What each character's token says of its look, spread over its slot: (B, hint, height, width)."""
        inside = torch.sigmoid(6 * (1.1 - slot_grid(slots, height, width).abs())).prod(-1)
        inside = inside * (text > 0)[:, :, None, None]
        return torch.einsum("bnhw,bnc->bchw", inside.to(tokens.dtype), self.hint(tokens))

    def forward(
        self,
        features: Sequence[Tensor],
        image: Tensor,
        text: Tensor,
        tokens: Tensor,
        slots: Tensor,
        references: Tensor | None = None,
        of: Tensor | None = None,
    ) -> Tensor:
        """of: int64 (B,), whose references are each text's; None: as many as texts, in their order."""
        half, quarter = features
        n = max(1, int((text > 0).sum(1).max()))  # padding costs as much to place as a character
        text, tokens, slots = text[:, :n], tokens[:, :n], slots[:, :n]
        hints = self.placed_hints(text, tokens, slots, *quarter.shape[2:])
        x = _double(self.up_quarter(image))
        x = self.at_quarter(torch.cat([x, quarter, hints], 1))
        seen, vote = self.placed_references(text, slots, references, of).split([2, 1], 1)
        glyphs = torch.cat([F.pixel_unshuffle(some, 2) for some in (self.placed_glyphs(text, slots), seen)], 1)
        x = torch.cat([_double(self.up_half(x)), half, _double(hints), glyphs.to(x.dtype)], 1)
        return self.shuffle(self.at_half(x)) + vote


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def widened(mask: Tensor) -> Tensor:
    """The largest of each pixel's 3 x 3 neighbours, (B, C, H, W): max pooling, which on a CPU takes four times as long."""
    x = F.pad(mask, (1, 1, 1, 1), value=-torch.inf)
    x = torch.maximum(torch.maximum(x[..., :-2], x[..., 1:-1]), x[..., 2:])
    return torch.maximum(torch.maximum(x[..., :-2, :], x[..., 1:-1, :]), x[..., 2:, :])


def push_pull(values: Tensor, weight: Tensor) -> Tensor:
    """Continue values (B, C, H, W) smoothly from where weight (B, 1, H, W) in 0..1 is high to where it is low.

    Averages of known values on ever coarser grids fill what finer grids do not know.
    Source: the push-pull pyramid of Gortler et al., The Lumigraph, 1996.
    """
    if min(values.shape[2:]) <= 2:
        mean = (values * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1e-3)
        return mean.expand_as(values)
    kwargs = dict(kernel_size=2, stride=2, ceil_mode=True, count_include_pad=False)
    mass = F.avg_pool2d(weight, **kwargs)
    mean = F.avg_pool2d(values * weight, **kwargs) / mass.clamp(min=1e-4)
    coarse = push_pull(mean, (4 * mass).clamp(max=1))
    coarse = F.interpolate(coarse, size=values.shape[2:], mode="bilinear", align_corners=False)
    return values * weight + coarse * (1 - weight)


def Fill(source: Tensor, B_s: Tensor) -> Tensor:
    """The plate without its characters: every stroke replaced by what surrounds it."""
    reach = widened(B_s)
    return push_pull(source, (1 - 1.6 * reach).clamp(0, 1) ** 2)


def Ink(source: Tensor, filled: Tensor, B_s: Tensor) -> Tensor:
    """The strokes' colour, continued over the whole plate; where a stroke half covers a pixel, unmixed from it."""
    pure = (filled + (source - filled) / B_s.clamp(min=0.25)).clamp(0, 1)
    return push_pull(pure, (1.25 * (B_s - 0.2)).clamp(0, 1) ** 2)  # fainter than that is the mask's noise


def region(B_s: Tensor, B_t: Tensor) -> Tensor:
    """What an edit may change: both masks and a margin, (B, 1, H, W), exactly 0 outside."""
    both = widened(torch.maximum(B_s, B_t))
    return ((both - 0.06) * 6).clamp(0, 1)


BORDER = 5  # pixels of the network: around a stroke, and as wide as it, lies a rim that has its shape
STROKES_END = 1.6  # times half a slot: no stroke of its character is further off


def cell_mask(slots: Tensor, text: Tensor, height: int, width: int, reach: float = 1.2) -> Tensor:
    """What of a plate its characters' cells take up, (B, 1, height, width) in 0..1, exactly 0 outside.

    reach: of a cell, in half widths and half heights of its slot.
    """
    inside = ((reach - slot_grid(slots, height, width).abs()) / 0.15 + 0.5).clamp(0, 1).prod(-1)
    return (inside * (text > 0)[:, :, None, None]).amax(1, keepdim=True)


class E_s(nn.Module):
    """Style encoder: how the source's strokes and plate look, as one vector (B, style)."""

    def __init__(self, config: SPGConfig):
        super().__init__()
        a, b, _ = config.channels
        self.features = nn.Sequential(
            nn.PixelUnshuffle(2), conv(16, a), nn.SiLU(), Down(a, b), nn.SiLU(), Residual(b), Norm(b), nn.SiLU()
        )
        self.style = nn.Linear(2 * b, config.style)

    def forward(self, source: Tensor, B_s: Tensor) -> Tensor:
        x = self.features(torch.cat([source - 0.5, B_s], 1))
        on = F.avg_pool2d(B_s, 4) + 1e-3
        strokes = (x * on).sum((2, 3)) / on.sum((2, 3))
        return self.style(torch.cat([strokes, x.mean((2, 3))], 1))


class G_t(nn.Module):
    """Target generator: filled plate, composite and B_t -> what the composite lacks, (B, 3, H, W)."""

    def __init__(self, config: SPGConfig):
        super().__init__()
        a, b, _ = config.channels
        self.to_half = conv(4 * 8, a)
        self.half_in = Residual(a, config.style)
        self.down, self.quarter, self.up = Down(a, b), Residual(b, config.style), conv(b, a, 1)
        self.half_out = Residual(a, config.style)
        self.out = nn.Sequential(Norm(a), nn.SiLU(), conv(a, 12), nn.PixelShuffle(2))
        nn.init.zeros_(self.out[2].weight), nn.init.zeros_(self.out[2].bias)

    def forward(self, composite: Tensor, filled: Tensor, B_s: Tensor, B_t: Tensor, style: Tensor) -> Tensor:
        x = torch.cat([composite - 0.5, filled - 0.5, B_s, B_t], 1)
        x = self.half_in(self.to_half(F.pixel_unshuffle(x, 2)), style)
        x = x + _double(self.up(self.quarter(self.down(x), style)))
        return 0.5 * torch.tanh(self.out(self.half_out(x, style)))


class D_t(nn.Module):
    """Target discriminator, conditioned on the source: patch logits (B, 1, H/8, W/8)."""

    def __init__(self, config: SPGConfig):
        super().__init__()
        a, b, c = config.channels
        norm = nn.utils.parametrizations.spectral_norm
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2), norm(conv(24, a)), nn.LeakyReLU(0.2), nn.PixelUnshuffle(2), norm(conv(4 * a, b)),
            nn.LeakyReLU(0.2), nn.PixelUnshuffle(2), norm(conv(4 * b, c, 1)), nn.LeakyReLU(0.2), norm(conv(c, 1, 1)),
        )  # fmt: skip

    def forward(self, picture: Tensor, source: Tensor) -> Tensor:
        return self.layers(torch.cat([picture - 0.5, source - 0.5], 1))


@dataclass(slots=True)
class SourceLayers:
    """What the network knows of plates before it is told what to write on them.

    source, text: as given. half, quarter: features at 1/2 and 1/4 of the size. image, states, slots, pointer: see `Found`.
    logits: of B_s.
    """

    source: Tensor
    text: Tensor
    half: Tensor
    quarter: Tensor
    image: Tensor
    states: Tensor
    slots: Tensor
    pointer: Tensor
    logits: Tensor

    def at(self, of: Tensor) -> SourceLayers:
        """The layers of these plates, int64 (B,), any of them as often as it is named."""
        layers = {name: getattr(self, name) for name in self.__slots__}
        return SourceLayers(**{n: x[:, of] if n in ("states", "pointer") else x[of] for n, x in layers.items()})


@dataclass(slots=True)
class EditLayers:
    """What one forward pass gives: mask logits, masks, slots, T's pointers' logits, layers and the edited plate."""

    source_logits: Tensor
    target_logits: Tensor
    B_s: Tensor
    B_t: Tensor
    source_slots: Tensor
    target_slots: Tensor
    pointer: Tensor
    filled: Tensor
    ink: Tensor
    correction: Tensor
    O_t: Tensor


def compose(
    source: Tensor, filled: Tensor, B_s: Tensor, B_t: Tensor, ink: Tensor, correction: Tensor | float
) -> Tensor:
    """The edited plate from its layers, at any resolution: ink over the filled plate, corrected, inside the region.

    Where the region is 0 the result equals the source exactly.
    """
    picture = torch.lerp(filled, ink, B_t) + correction
    return torch.lerp(source, picture.clamp(0, 1), region(B_s, B_t))


def repaint(source: Tensor, erased: Tensor, B_t: Tensor, filled: Tensor, ink: Tensor, correction: Tensor) -> Tensor:
    """The edited plate with its characters' cells painted anew, whatever of the old strokes was seen there.

    erased: `erasure` at the source's resolution. filled, ink: smooth. Where erased and B_t are 0, and in a margin of
    B_t, the result equals the source exactly.
    """
    picture = torch.lerp(filled, ink, B_t) + correction * widened(B_t)
    return torch.lerp(source, picture.clamp(0, 1), torch.maximum(erased, region(B_t, B_t)))


def erasure(cell: Tensor, B_s: Tensor) -> Tensor:
    """The cells, and strokes that stand out of them, (B, 1, H, W) in 0..1, as a byte holds it: 0 is 0 there too."""
    return torch.maximum(cell, ((B_s - 0.5) * 4).clamp(0, 1)).mul(255).round().div(255)


class SPG(nn.Module):
    """Edits a plate's characters and keeps its style: (source, source text, target text) -> EditLayers."""

    def __init__(self, config: SPGConfig):
        super().__init__()
        self.config = config
        self.C_e, self.T, self.C_d = C_e(config), T(config), C_d(config)
        self.E_s, self.G_t = E_s(config), G_t(config)

    def source_layers(self, source: Tensor, text: Tensor, places: Tensor | None = None) -> SourceLayers:
        """What an edit needs of plates and the texts that stand on them, whatever shall stand there."""
        half, quarter, eighth = self.C_e(source)
        found = self.T.source(half, eighth, text, places)
        logits = self.C_d((half, quarter), found.image, text, found.tokens, found.slots).float()
        return SourceLayers(source, text, half, quarter, found.image, found.states, found.slots, found.pointer, logits)

    def target_mask(
        self,
        seen: SourceLayers,
        text: Tensor,
        references: Tensor | None = None,
        of: Tensor | None = None,
        private: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Logits of B_t, and the slots of the text. seen: of a plate for each text. references, of: as C_d takes them."""
        tokens, slots = self.T.target(seen.image, seen.states, seen.slots, seen.text, text)
        if private:
            slots = even(slots, text, *seen.source.shape[2:])
        return self.C_d((seen.half, seen.quarter), seen.image, text, tokens, slots, references, of).float(), slots

    def forward(
        self,
        source: Tensor,
        source_text: Tensor,
        target_text: Tensor,
        attached: bool = False,
        private: bool = False,
        places: Tensor | None = None,
        references: Tensor | None = None,
    ) -> EditLayers:
        """places: as T takes them. The others: as `edit` does."""
        height, width = source.shape[2:]
        assert (height, width) == (self.config.height, self.config.width), source.shape
        return self.edit(
            self.source_layers(source, source_text, places), target_text, None, attached, private, references
        )

    def edit(
        self,
        seen: SourceLayers,
        target_text: Tensor,
        of: Tensor | None = None,
        attached: bool = False,
        private: bool = False,
        references: Tensor | None = None,
    ) -> EditLayers:
        """Writes texts on plates.

        of: int64 (B,), the plate that each text is for; None: as many as texts, in their order. references: a plate's.
        attached: losses of the picture reach the masks. Where true masks are known, these settle them alone.
        private: as the half of a `private` edit.
        """
        height, width = seen.source.shape[2:]
        B_s = seen.logits.sigmoid()
        if private:  # an emblem as high as a character is none, and stays
            B_s = B_s * cell_mask(seen.slots, seen.text, height, width, STROKES_END)
        S = B_s if attached else B_s.detach()
        filled = Fill(seen.source, S)
        ink, style = Ink(seen.source, filled, S), self.E_s(seen.source, S)
        if of is not None:
            seen = seen.at(of)
            B_s, S, filled, ink, style = (layer[of] for layer in (B_s, S, filled, ink, style))
        t_logits, t_slots = self.target_mask(seen, target_text, references, of, private)
        B_t, s_slots = t_logits.sigmoid(), seen.slots
        T_ = B_t if attached else B_t.detach()
        if private:
            s_slots = covering(s_slots, even(s_slots, seen.text, height, width))
            cell = cell_mask(s_slots, seen.text.repeat(1, 2), height, width)
            filled, ink = smooth(filled, cell, height / 3), smooth(ink, torch.ones_like(S), height / 3)
        composite = torch.lerp(filled, ink, T_)
        correction = self.G_t(composite, filled, S, T_, style).float()
        if private:
            B_s = F.max_pool2d(B_s, BORDER, 1, BORDER // 2)
            O_t = repaint(seen.source, erasure(cell, B_s), T_, filled, ink, correction)
        else:
            O_t = torch.lerp(seen.source, (composite + correction).clamp(0, 1), region(S, T_))
        return EditLayers(seen.logits, t_logits, B_s, B_t, s_slots, t_slots, seen.pointer, filled, ink, correction, O_t)

    def private(
        self,
        source: Tensor,
        source_text: Tensor,
        between_text: Tensor,
        target_text: Tensor,
        places: Tensor | None = None,
    ) -> EditLayers:
        """An edit that reveals nothing of the source's characters: new ones stand evenly, on cells painted anew.

        C_d sees the old strokes, and draws the new ones somewhat differently beside them: a trained reader guesses 3
        points more than chance from that. So the plate is edited twice: the second edit sees only the text in between,
        which must not depend on the source's. The layers are for `repaint`; source_slots are the cells.
        """
        first = self(source, source_text, between_text, private=True, places=places)
        second = self(first.O_t, between_text, target_text, private=True, places=first.target_slots[:, :, 0, 0])
        return replace(second, B_s=first.B_s, source_slots=first.source_slots, filled=first.filled, ink=first.ink)


def encode_texts(texts: list[str], alphabet: str, length: int = 0) -> Tensor:
    """int64 (B, length or the longest text's), 0-padded, on the CPU. Raises KeyError for a foreign character."""
    index = {c: i + 1 for i, c in enumerate(alphabet)}
    codes = torch.zeros(len(texts), max([1, length, *map(len, texts)]), dtype=torch.int64)
    for row, text in zip(codes, texts):
        row[: len(text)] = torch.tensor([index[c] for c in text], dtype=torch.int64)
    return codes
