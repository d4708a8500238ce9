"""The generator's task. Phase 1: rendered pairs with true masks. Phase 2: mixed with real plates, which have none.

A real plate is edited to a drawn text and back again, the plate itself being the truth of the way back; the reader says
whether the way there can be read. Without the reader the cycle falls into copying (RS-STE, CVPR 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from platemint.models import checkpoint, losses
from platemint.models.reader import align, ctc, greedy_decode
from platemint.models.spg import SIZES, SPG, D_t, EditLayers, SPGConfig, encode_texts, region, token_places
from platemint.pipeline.networks import autocast
from platemint.pipeline.plate import SEPARATORS, Plate, characters, kin, same_reading
from platemint.pipeline.recipe import TrainRecipe
from platemint.pipeline.references import References, collect_references
from platemint.pipeline.train.alphabets import prime_glyphs, refuse_unread, spelled, start
from platemint.pipeline.train.pairs import Batch, Pairs, Stack, shrink, unit_pictures
from platemint.pipeline.train.reading import disturb, rare_first
from platemint.pipeline.train.typefaces import GLYPHS, NONE, Typefaces

HELD_BACK = 64  # real crops at most that phase 2 is validated on, never trained on


class SPGTask:
    """Masks and slots first; from `generator_from` on also the picture, judged by reader and discriminator."""

    def __init__(
        self, recipe: TrainRecipe, device: torch.device, dtype: torch.dtype, crops: list[tuple[np.ndarray, str]]
    ):
        self.recipe, self.device, self.dtype = recipe, device, dtype
        if recipe.start:
            self.network = start(recipe)
        else:
            self.network = SPG(SPGConfig(spelled(recipe), **SIZES[recipe.size]))
            prime_glyphs(self.network, self.network.config.alphabet)
        for name, part in self.network.named_children():
            part.requires_grad_(not recipe.parts or name in recipe.parts)
        config = self.network.config
        self.alphabet = config.alphabet
        self.size = config.height, config.width
        self.kind = partial(Pairs, typefaces=Typefaces(config.alphabet, config.glyph[1:])), Stack
        self.critic = D_t(config) if recipe.adversarial else None
        self.reader = (
            checkpoint.load(recipe.reader, "reader").requires_grad_(False).to(device) if recipe.reader else None
        )
        refuse_unread(self.alphabet, self.reader)
        for network in filter(None, (self.network, self.critic)):
            network.to(device=device, memory_format=torch.channels_last)
        self.crops, numbers = crops, range(len(crops))
        self.held_back = numbers[::16][:HELD_BACK]
        self.learned = [i for i in numbers if i not in self.held_back]
        self.chances = rare_first([crops[i][1] for i in self.learned])
        self.references = self._collected() if crops else None
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def _collected(self) -> References:
        """What the corpus's crops show of each other's typefaces, by the masks of the network that training starts from."""
        plates = [Plate(image, text, source=str(i)) for i, (image, text) in enumerate(self.crops)]
        network = self.network.eval()
        found = collect_references(plates, network, self.reader, self.recipe.batch, self.device, self.dtype)
        network.train()
        return found

    def _texts(self, *texts: list[str]) -> list[Tensor]:
        return [encode_texts(side, self.alphabet).to(self.device) for side in texts]

    def loss(self, batch: Batch, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        self._seen.clear()
        with autocast(self.device, self.dtype):
            parts, overlaps = self._rendered(batch, painting=step >= self.recipe.generator_from)
            if self.crops:
                parts |= self._real(rng)
        return sum(parts.values()), {k: float(v.detach()) for k, v in (parts | overlaps).items()}

    def _rendered(self, batch: Batch, painting: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        source = unit_pictures(batch.source, self.device)
        texts = self._texts(batch.source_text, batch.target_text)
        truth = [unit_pictures(m, self.device) for m in (batch.source_mask, batch.target_mask)]
        references = batch.references.to(self.device)
        if painting:
            edit = self.network(source, *texts, attached=bool(self.crops), references=references)
            logits, slots, pointer = (
                (edit.source_logits, edit.target_logits),
                (edit.source_slots, edit.target_slots),
                edit.pointer,
            )
        else:
            seen = self.network.source_layers(source, texts[0])
            target_logits, target_slots = self.network.target_mask(seen, texts[1], references)
            logits, slots, pointer = (seen.logits, target_logits), (seen.slots, target_slots), seen.pointer
        true_slots = batch.source_slots.to(self.device), batch.target_slots.to(self.device)
        height, width = self.size
        parts = {
            "mask_s": losses.mask_loss(logits[0], truth[0]),
            "mask_t": losses.mask_loss(logits[1], truth[1]),
            "slots": 40 * sum(losses.slot_loss(s, t, x) for s, t, x in zip(slots, true_slots, texts)),
            "pointer": losses.pointer_loss(pointer, true_slots[0], texts[0], height // 8, width // 8),
            "typeface": self._completed(references, batch.glyphs.to(self.device)),
        }
        if painting:
            target = unit_pictures(batch.target, self.device)
            parts["l1"] = 30 * losses.region_l1(edit.O_t, target, region(*truth))
            parts |= self._judged(edit.O_t, target, batch.target_text, source)
        overlaps = {
            name: losses.mask_iou(logit.detach().sigmoid(), mask).mean()
            for name, logit, mask in zip(("iou_s", "iou_t"), logits, truth)
        }
        return parts, overlaps

    def _completed(self, references: Tensor, glyphs: Tensor) -> Tensor:
        """How far glyphs are from those that references are of, whether present or not."""
        drawn = glyphs.amax((2, 3, 4)) > 0
        known = drawn.any(1)
        if not known.any():
            return references.new_zeros(())
        text = drawn[known].float().topk(GLYPHS).indices
        C_d, of = self.network.C_d, torch.arange(len(text), device=text.device).repeat_interleave(GLYPHS)
        logits = C_d.typeface(C_d.glyphs, references[known], of, text.flatten())
        truth = glyphs[known][of, text.flatten()]
        share = known.float().mean()  # so that processes that share a batch come to what one does
        return share * (5 * losses.dice(logits.sigmoid(), truth) + losses.weighted_bce(logits, truth))

    def _judged(self, picture: Tensor, target: Tensor, texts: list[str], source: Tensor) -> dict[str, Tensor]:
        """What reader and discriminator say of a picture whose truth is known."""
        parts = {}
        if self.reader is not None:
            ours = self.reader.features(self._to_reader(picture))
            with torch.no_grad():
                theirs = self.reader.features(self._to_reader(target))
            parts["perceptual"] = losses.perceptual(ours, theirs)
            parts["recognition"] = self.recipe.recognition * self._unread(ours, texts).mean()
        if self.critic is not None:
            parts["adversarial"] = self._adversarial(picture, target, source)
        return parts

    def _adversarial(self, edits: Tensor, photographs: Tensor, sources: Tensor) -> Tensor:
        """How far D_t, which `critic_loss` then teaches on the same pictures, takes edits for edits."""
        self._seen.append((edits.detach(), photographs, sources))
        self.critic.requires_grad_(False)
        loss = -self.recipe.adversarial * self.critic(edits, sources).float().mean()
        self.critic.requires_grad_(True)
        return loss

    def _to_reader(self, picture: Tensor) -> Tensor:
        size = self.reader.config.height, self.reader.config.width
        return picture if picture.shape[2:] == size else F.interpolate(picture, size, mode="bilinear", antialias=True)

    def _unread(self, features: list[Tensor], texts: list[str]) -> Tensor:
        """CTC loss per character of each picture (B,), at most 4: what cannot be read at all teaches nothing."""
        codes = encode_texts([characters(t) for t in texts], self.reader.config.alphabet).to(self.device)
        return ctc(self.reader.read_features(features), codes).clamp(max=4)

    def _read(self, picture: Tensor, texts: list[str]) -> Tensor:
        return self._unread(self.reader.features(self._to_reader(picture)), texts)

    def _real(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Real crops to a drawn text and back. An edit need not be easier to read than its photograph is."""
        numbers = rng.choice(self.learned, self.recipe.real, p=self.chances)
        chosen = [self.crops[i] for i in numbers]
        source = unit_pictures(
            torch.stack([shrink(disturb(image, rng), self.size) for image, _ in chosen]), self.device
        )
        texts = [text for _, text in chosen]
        targets = [another_text(shortened(text, rng), rng, self.alphabet) for text in texts]
        x, y = self._texts(texts, targets)
        with torch.no_grad():
            theirs = self.reader.features(self._to_reader(source))
            legible = torch.exp(-self._unread(theirs, texts))
            near = self._near(theirs, texts)
        references = self._of_others(numbers)
        references[torch.from_numpy(rng.random(len(numbers)) < NONE)] = 0
        there = self.network(source, x, y, attached=True, references=references)
        back = self.network(there.O_t.detach(), y, x, attached=True, references=references)
        unread = self._read(there.O_t, targets)
        unread_masks = self._read(_bare(there.B_s), texts) + self._read(_bare(there.B_t), targets)
        B_s, B_t = there.B_s.detach(), there.B_t.detach()
        weight = legible / legible.sum().clamp(min=1e-3)
        judged = {}
        if self.critic is not None:  # no photograph has the drawn text, so D_t is shown no source beside either
            unknown = torch.full_like(source, 0.5)
            judged["real_adversarial"] = sum(self._adversarial(edit.O_t, source, unknown) for edit in (there, back))
        return judged | {
            "real_read": self.recipe.recognition * (weight * unread).sum(),
            "real_masks": 0.5 * self.recipe.recognition * (weight * unread_masks).sum(),
            "real_l1": 30 * losses.region_l1(back.O_t, source, region(B_s, B_t)),
            "real_perceptual": losses.perceptual(self.reader.features(self._to_reader(back.O_t)), theirs),
            "real_pointer": (weight * losses.pointed_near(there.pointer, near, x)).sum(),
            "real_cycle": 0.3 * (losses.mask_loss(back.source_logits, B_t) + losses.mask_loss(back.target_logits, B_s)),
        }

    def _of_others(self, numbers: Sequence[int]) -> Tensor:
        """The references of crops, each from the other crops alone."""
        return torch.from_numpy(np.stack([self.references.of(int(i), alone=True) for i in numbers])).to(self.device)

    def _near(self, features: list[Tensor], texts: list[str]) -> Tensor:
        """The image tokens around the place where the reader finds each character: bool (B, N, tokens).

        It finds the characters of a text it knows beside emblems and side letters too. A separator may be anywhere.
        """
        steps = self.reader.config.width // 4  # a row
        codes = encode_texts([characters(t) for t in texts], self.reader.config.alphabet).to(self.device)
        found = align(self.reader.read_features(features), codes)
        row, x = found.div(steps, rounding_mode="floor"), (found % steps + 0.5) / steps
        height, width = (side // 8 for side in self.size)
        places = token_places(height, width, self.device)
        near = (places[:, 0] - x[..., None]).abs() * width < 1.2
        two_rows = row.max(1, keepdim=True).values[..., None] > 0
        upper = places[:, 1] < 0.5
        near &= ~two_rows | (upper == (row[..., None] == 0))
        everywhere = torch.ones(len(texts), max(map(len, texts)), height * width, dtype=torch.bool, device=self.device)
        for kept, text, rows in zip(everywhere, texts, near):
            at = [i for i, c in enumerate(text) if c not in SEPARATORS]
            kept[at] = rows[: len(at)]
        return everywhere

    def critic_loss(self) -> Tensor | None:
        """D_t's loss on the pictures of the last `loss`; None while nothing is painted."""
        with autocast(self.device, self.dtype):
            parts = [
                losses.hinge_real_fake(self.critic(real, source).float(), self.critic(fake, source).float())
                for fake, real, source in self._seen
            ]
        return sum(parts) if parts else None

    def _edit(self, network: nn.Module, source: Tensor, batch: Batch) -> EditLayers:
        texts = self._texts(batch.source_text, batch.target_text)
        return network(source, *texts, references=batch.references.to(self.device))

    @torch.no_grad()
    def score(self, network: nn.Module, batch: Batch) -> float:
        """On rendered pairs the target mask's overlap with the truth, less the error inside the edited region.

        With a corpus, plus the share of its held back crops whose edits are read.
        """
        source, target = unit_pictures(batch.source, self.device), unit_pictures(batch.target, self.device)
        truth = [unit_pictures(m, self.device) for m in (batch.source_mask, batch.target_mask)]
        with autocast(self.device, self.dtype):
            edit = self._edit(network, source, batch)
        score = float(losses.mask_iou(edit.B_t, truth[1]).mean() - losses.region_l1(edit.O_t, target, region(*truth)))
        return score + (self._reading_rate(network) if self.held_back else 0.0)

    def _reading_rate(self, network: nn.Module) -> float:
        rng = np.random.default_rng(0)
        crops = [self.crops[i] for i in self.held_back]
        source = unit_pictures(torch.stack([shrink(image, self.size) for image, _ in crops]), self.device)
        texts = [text for _, text in crops]
        targets = [another_text(text, rng, self.alphabet) for text in texts]
        with autocast(self.device, self.dtype):
            edit = network(source, *self._texts(texts, targets), references=self._of_others(self.held_back))
            read = greedy_decode(self.reader(self._to_reader(edit.O_t)), self.reader.config.alphabet)
        return float(np.mean([same_reading(a, b) for a, b in zip(read, targets)]))

    @torch.no_grad()
    def sheet(self, network: nn.Module, batch: Batch) -> list[Tensor]:
        """Source, B_s, B_t, edit and truth: pictures (B, 3, H, W) in 0..1, a column each."""
        source = unit_pictures(batch.source, self.device)
        with autocast(self.device, self.dtype):
            edit = self._edit(network, source, batch)
        masks = (mask.expand(-1, 3, -1, -1) for mask in (edit.B_s, edit.B_t))
        return [source, *masks, edit.O_t.float(), unit_pictures(batch.target, self.device)]


def _bare(mask: Tensor) -> Tensor:
    """A mask as the reader knows bare masks: dark on white."""
    return (1 - mask).expand(-1, 3, -1, -1)


def another_text(text: str, rng: np.random.Generator, alphabet: str) -> str:
    """A text of the same pattern: a digit for a digit, a letter for a letter, a province for a province."""
    return "".join(str(rng.choice(list(kin(c, alphabet)))) for c in text)


def shortened(text: str, rng: np.random.Generator) -> str:
    """The text, or in one case of five, where it is long enough and holds no separator, without two of its characters.

    The others stand where characters stood, so nothing is written on what is printed among them. On the way back a text
    grows, and the picture is known.
    """
    if len(text) < 6 or set(text) & set(SEPARATORS) or rng.random() > 0.2:
        return text
    cut = int(rng.integers(1, len(text) - 2))  # not the first: it may be a province
    return text[:cut] + text[cut + 2 :]
