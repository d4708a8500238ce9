"""Networks of the sizes that others have published for editing scene text, with random weights: what an edit of theirs costs.

MOSTEL (Qu et al., AAAI 2023) after the layers of its public code; its warp of the target's picture is left out, the network
that finds it is not. RS-STE (Fang et al., CVPR 2025) after its figures, 54 M parameters on 32 x 128 pixels: patches of
4 x 8 pixels and 32 characters, with as many tokens again for what comes out, are our guess.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 256)  # of MOSTEL, from full size to an eighth


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class Residuals(nn.Module):
    def __init__(self, channels: int, count: int = 4):
        super().__init__()
        few = channels // 4
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, few, 1), nn.ReLU(), nn.Conv2d(few, few, 3, 1, 1), nn.ReLU(), nn.Conv2d(few, channels, 1))
            for _ in range(count)
        )  # fmt: skip
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        for part, norm in zip(self.parts, self.norms):
            x = norm(x + part(x)).relu()
        return x


class Pyramid(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(4))
        self.out = nn.Conv2d(5 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = (level(F.adaptive_avg_pool2d(x, n)) for level, n in zip(self.levels, (1, 2, 3, 6)))
        return self.out(torch.cat([*(F.interpolate(p, x.shape[2:], mode="bilinear") for p in pooled), x], 1)).relu()


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first = nn.Sequential(block(3, WIDTHS[0]), block(WIDTHS[0], WIDTHS[0]))
        deeper = (nn.Sequential(block(a, b, 2), block(b, b), block(b, b)) for a, b in zip(WIDTHS, WIDTHS[1:]))
        self.levels = nn.ModuleList([first, *deeper])
        self.residuals = Residuals(WIDTHS[-1])

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return self.residuals(x), found


class Decoder(nn.Module):
    """beside: channels that join at 1/8, 1/4 and 1/2 of the size."""

    def __init__(self, inputs: int, beside: tuple[int, int, int] = (0, 0, 0)):
        super().__init__()
        d, c, b, a = WIDTHS[::-1]
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(wide, narrow, 3, 2, 1, 1) for wide, narrow in ((d, c), (c, b), (b, a))
        )
        widths = ((inputs + beside[0], d), (c + beside[1], c), (b + beside[2], b), (a, a))
        self.levels = nn.ModuleList(nn.Sequential(block(i, o), block(o, o)) for i, o in widths)

    def forward(self, x: Tensor, beside: list[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
        found = []
        for n, level in enumerate(self.levels):
            x = self.ups[n - 1](x).relu() if n else x
            joins = beside[n] if n < len(beside) else None
            x = level(x if joins is None else torch.cat([x, joins], 1))
            found.append(x)
        return x, found


class Mostel(nn.Module):
    """source and a plain picture of the target, (B, 3, 64, 256) -> the edited picture."""

    size = (64, 256)

    def __init__(self) -> None:
        super().__init__()
        deep, joined = WIDTHS[-1], (WIDTHS[3], WIDTHS[2], WIDTHS[1])
        self.behind, self.old, self.new = Encoder(), Encoder(), Encoder()
        self.pyramid, self.pyramids = Pyramid(deep), Pyramid(2 * deep)
        self.strokes, self.background = Decoder(deep), Decoder(deep, (0, *joined[1:]))
        self.mask, self.text = Decoder(2 * deep, joined), Decoder(2 * deep, joined)
        self.warp = nn.Sequential(
            nn.Linear(deep * self.size[0] // 8 * self.size[1] // 8, 512), nn.ReLU(), nn.Linear(512, 20)
        )
        self.outs = nn.ModuleList(nn.Conv2d(WIDTHS[0], channels, 3, 1, 1) for channels in (1, 3, 1))
        self.last = nn.Sequential(block(2 * WIDTHS[0], 2 * WIDTHS[0]), nn.Conv2d(2 * WIDTHS[0], 3, 3, 1, 1))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        x, levels = self.behind(source)
        x = self.pyramid(x)
        strokes = self.outs[0](self.strokes(x, [])[0]).sigmoid()
        background, beside = self.background(x, [None, levels[2], levels[1]])
        background = torch.lerp(source, self.outs[1](background).float().sigmoid(), strokes.float())
        old, new = self.old(source * strokes)[0], self.new(target)[0]
        x = self.pyramids(torch.cat([new, old], 1))
        mask, text = self.mask(x, beside[:3])[0], self.text(x, beside[:3])[0]
        edited = self.last(torch.cat([text, mask], 1)).sigmoid() + 0 * self.warp(old.flatten(1)).mean()
        return torch.lerp(background, edited.float(), self.outs[2](mask).float().sigmoid())


class RsSte(nn.Module):
    """source (B, 3, 32, 128), target int64 (B, 32) -> the edited picture. What it reads is computed, too."""

    size = (32, 128)

    def __init__(self, dim: int = 704, layers: int = 9, patch: tuple[int, int] = (4, 8), letters: int = 100):
        super().__init__()
        self.patch, tokens = patch, self.size[0] // patch[0] * self.size[1] // patch[1] + 32
        self.seen, self.said = nn.Conv2d(3, dim, patch, patch), nn.Embedding(letters, dim)
        self.places = nn.Parameter(torch.randn(1, 2 * tokens, dim))
        layer = nn.TransformerEncoderLayer(dim, dim // 64, 4 * dim, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.drawn, self.read = nn.Linear(dim, 3 * patch[0] * patch[1]), nn.Linear(dim, letters)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        seen, said = self.seen(source), self.said(target)
        given = torch.cat([seen.flatten(2).transpose(1, 2), said], 1)
        x = torch.cat([given, torch.zeros_like(given)], 1) + self.places
        x = self.layers(x)[:, given.shape[1] :]
        drawn, read = self.drawn(x[:, : -said.shape[1]]), self.read(x[:, -said.shape[1] :])
        picture = F.fold(drawn.transpose(1, 2), self.size, self.patch, stride=self.patch)
        return picture.sigmoid() + 0 * read.mean()
