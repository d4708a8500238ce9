"""train: the generator or the reader, on pairs rendered on the fly, resumable to the same loss curve.

Pair number i of a run is a pure function of (seed, i), and the whole state of a run is in one file, written atomically;
so a killed run continues as if nothing had happened.
"""

from __future__ import annotations

import csv
import os
import pickle
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from models import checkpoint, losses
from models.reader import Reader, ReaderConfig, ctc, decode
from models.spg import SPG, D_t, SPGConfig, encode_texts, region
from pipeline.edit import autocast, choose_device, resize
from pipeline.plate import ALPHABET, READABLE, PlatemintError, characters, same_reading
from pipeline.recipe import TrainRecipe, dump
from pipeline.render import Photo, load_layouts, render_pair

HEIGHT, WIDTH = SPGConfig.height, SPGConfig.width


# ------------------------------------------------------------------------------------------------------------- the data


@dataclass(slots=True)
class Batch:
    """Pairs, stacked: pictures uint8 (B, 3, H, W), masks uint8 (B, 1, H, W), texts, true slots float32 (B, N, 3, 2)."""

    source: Tensor
    target: Tensor
    source_mask: Tensor
    target_mask: Tensor
    source_text: list[str]
    target_text: list[str]
    source_slots: Tensor
    target_slots: Tensor


def _shrink(picture: np.ndarray) -> Tensor:
    """Any (h, w[, c]) picture at the network's size, channels first."""
    small = resize(picture, HEIGHT, WIDTH).reshape(HEIGHT, WIDTH, -1)
    return torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))


def slots_of(boxes: np.ndarray) -> np.ndarray:
    """Corners (n, 4, 2) -> slots (n, 3, 2): centre, half width vector, half height vector."""
    ul, ur, lr, ll = boxes.transpose(1, 0, 2)
    return np.stack([boxes.mean(1), (ur + lr - ul - ll) / 4, (ll + lr - ul - ur) / 4], 1)


class Pairs(torch.utils.data.Dataset):
    """Rendered pairs by number: the same number gives the same pair, in whatever process."""

    def __init__(self, recipe: TrainRecipe):
        self.recipe = recipe
        self.layouts = list(load_layouts(recipe.layouts).values())

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch

    def __getitem__(self, number: int) -> tuple[Photo, Photo]:
        cv2.setNumThreads(1)
        return render_pair(self.layouts, np.random.default_rng([self.recipe.seed, number]), self.recipe.wild)


def collate(pairs: list[tuple[Photo, Photo]]) -> Batch:
    """Stacks pairs at the network's size."""
    sides = list(zip(*pairs))
    pictures = [torch.stack([_shrink(p.image) for p in side]) for side in sides]
    masks = [torch.stack([_shrink(p.mask) for p in side]) for side in sides]
    texts = [[p.text for p in side] for side in sides]
    slots = []
    for side in sides:
        stacked = torch.zeros(len(side), max(len(p.text) for p in side), 3, 2)
        for row, photo in zip(stacked, side):
            row[: len(photo.text)] = torch.from_numpy(slots_of(photo.boxes))
        slots.append(stacked)
    return Batch(*pictures, *masks, *texts, *slots)


def batches(recipe: TrainRecipe, first_step: int):
    """Batches from a step on, rendered ahead by recipe.workers processes."""
    numbers = range(first_step * recipe.batch, recipe.steps * recipe.batch)
    # spawned, since a forked child inherits OpenCV's and torch's thread pools without their threads, and hangs
    ahead = (
        dict(num_workers=recipe.workers, multiprocessing_context="spawn", prefetch_factor=4) if recipe.workers else {}
    )
    return torch.utils.data.DataLoader(Pairs(recipe), recipe.batch, sampler=numbers, collate_fn=collate, **ahead)


def _unit(pictures: Tensor, device) -> Tensor:
    return pictures.to(device).float().div_(255).contiguous(memory_format=torch.channels_last)


# ------------------------------------------------------------------------------------------------------------ the tasks


class SPGTask:
    """Phase 1: masks and slots first; from `generator_from` on also the picture, judged by reader and discriminator."""

    def __init__(self, recipe: TrainRecipe):
        self.recipe, (self.device, self.dtype) = recipe, choose_device(recipe)
        if recipe.start:
            self.network = checkpoint.load(recipe.start, "spg").train()
        else:
            self.network = SPG(SPGConfig(ALPHABET))
            prime_glyphs(self.network)
        self.critic = D_t(self.network.config)
        self.reader = (
            checkpoint.load(recipe.reader, "reader").requires_grad_(False).to(self.device) if recipe.reader else None
        )
        for network in (self.network, self.critic):
            network.to(device=self.device, memory_format=torch.channels_last)

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        texts = (encode_texts(t, ALPHABET).to(self.device) for t in (batch.source_text, batch.target_text))
        return _unit(batch.source, self.device), *texts

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        source, *texts = self._inputs(batch)
        truth = [_unit(m, self.device) for m in (batch.source_mask, batch.target_mask)]
        painting = step >= self.recipe.generator_from
        with autocast(self.device, self.dtype):
            if painting:
                edit = self.network(source, *texts)
                logits, slots = (edit.source_logits, edit.target_logits), (edit.source_slots, edit.target_slots)
                pointer = edit.pointer
            else:
                *logits, source_slots, target_slots, pointer = self.network.masks(source, *texts)
                slots = source_slots, target_slots
            true_slots = batch.source_slots.to(self.device), batch.target_slots.to(self.device)
            parts = {
                "mask_s": losses.mask_loss(logits[0], truth[0]),
                "mask_t": losses.mask_loss(logits[1], truth[1]),
                "slots": 40 * sum(losses.slot_loss(s, t, x) for s, t, x in zip(slots, true_slots, texts)),
                "pointer": losses.pointer_loss(pointer, true_slots[0], texts[0], HEIGHT // 8, WIDTH // 8),
            }
            if painting:
                parts |= self._picture_losses(batch, source, edit)
        total = sum(parts.values())
        figures = {k: float(v.detach()) for k, v in parts.items()}
        for name, logit, mask in zip(("iou_s", "iou_t"), logits, truth):
            figures[name] = float(losses.iou(logit.detach().sigmoid(), mask).mean())
        return total, figures

    def _picture_losses(self, batch: Batch, source: Tensor, edit) -> dict[str, Tensor]:
        target = _unit(batch.target, self.device)
        weight = region(*(_unit(m, self.device) for m in (batch.source_mask, batch.target_mask)))
        parts = {"l1": 30 * losses.region_l1(edit.O_t, target, weight)}
        if self.reader is not None:
            ours = self.reader.features(edit.O_t)
            with torch.no_grad():
                theirs = self.reader.features(target)
            codes = encode_texts([characters(t) for t in batch.target_text], READABLE).to(self.device)
            parts["perceptual"] = losses.perceptual(ours, theirs)
            parts["recognition"] = (
                self.recipe.recognition * ctc(self.reader.read_features(ours), codes).clamp(max=4).mean()
            )
        if self.recipe.adversarial:
            self.critic.requires_grad_(False)
            parts["adversarial"] = -self.recipe.adversarial * self.critic(edit.O_t, source).float().mean()
            self.critic.requires_grad_(True)
            self._fake, self._real, self._source = edit.O_t.detach(), target, source
        return parts

    def critic_loss(self) -> Tensor | None:
        """D_t's loss on the pictures of the last `loss`; None while nothing is painted."""
        if getattr(self, "_fake", None) is None:
            return None
        with autocast(self.device, self.dtype):
            return losses.hinge_real_fake(
                self.critic(self._real, self._source).float(), self.critic(self._fake, self._source).float()
            )

    @torch.no_grad()
    def sheet(self, batch: Batch) -> np.ndarray:
        """Source, B_s, B_t, edit and truth side by side, a row a plate: uint8 RGB."""
        source, *texts = self._inputs(batch)
        with autocast(self.device, self.dtype):
            edit = self.network(source, *texts)
        rows = [
            source,
            edit.B_s.expand(-1, 3, -1, -1),
            edit.B_t.expand(-1, 3, -1, -1),
            edit.O_t.float(),
            _unit(batch.target, self.device),
        ]
        return _tile(torch.cat(rows, 3))


class ReaderTask:
    """The reader learns rendered plates, bare masks, and labelled real crops where a corpus is given."""

    def __init__(self, recipe: TrainRecipe):
        self.recipe, (self.device, self.dtype), self.critic = recipe, choose_device(recipe), None
        self.network = (
            checkpoint.load(recipe.start, "reader").train() if recipe.start else Reader(ReaderConfig(READABLE))
        )
        self.network.to(device=self.device, memory_format=torch.channels_last)
        self.real = _real_crops(recipe.source) if recipe.source else []

    def examples(self, batch: Batch, step: int) -> tuple[Tensor, list[str], Tensor]:
        """Both pictures of each pair, their texts and frames (see `frames_of`).

        Some are replaced by their bare mask, some by a real crop, disturbed a little.
        """
        rng = np.random.default_rng([self.recipe.seed, 1, step])
        pictures = torch.cat([batch.source, batch.target])
        masks = torch.cat([batch.source_mask, batch.target_mask])
        texts = batch.source_text + batch.target_text
        frames = torch.stack(
            [frames_of(t, s, WIDTH // 4) for t, s in zip(texts, [*batch.source_slots, *batch.target_slots])]
        )
        texts = [characters(t) for t in texts]
        for i, draw in enumerate(rng.random(len(texts))):
            if draw < 0.12:
                pictures[i] = 255 - masks[i]
            elif self.real and draw < 0.12 + self.recipe.real_share:
                image, texts[i] = self.real[rng.integers(len(self.real))]
                pictures[i], frames[i] = _shrink(_disturb(image, rng)), UNKNOWN
        return _unit(pictures, self.device), texts, frames.to(self.device)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        pictures, texts, frames = self.examples(batch, step)
        with autocast(self.device, self.dtype):
            read = self.network(pictures)
        loss = ctc(read, encode_texts(texts, READABLE).to(self.device)).mean()
        # CTC alone sits on blanks for thousands of steps; the renderer knows where each character stands.
        aligned = nn.functional.nll_loss(read.transpose(1, 2), frames, ignore_index=UNKNOWN, reduction="sum")
        aligned = aligned / (frames != UNKNOWN).sum().clamp(min=1)
        found = decode(read.detach(), READABLE)
        right = np.mean([same_reading(text, truth) for text, truth in zip(found, texts)])
        return loss + aligned, {"ctc": float(loss.detach()), "aligned": float(aligned.detach()), "read": float(right)}

    def critic_loss(self) -> None:
        return None

    @torch.no_grad()
    def sheet(self, batch: Batch) -> np.ndarray:
        return _tile(self.examples(batch, 0)[0])


TASKS = {"spg": SPGTask, "reader": ReaderTask}


UNKNOWN = -100  # frames nobody knows the class of


def frames_of(text: str, slots: Tensor, steps: int) -> Tensor:
    """The reader's class at each of its 2 x steps frames: int64, a character around its centre, else blank (0).

    A second row of characters begins where they jump back to the left.
    """
    frames = torch.zeros(2, steps, dtype=torch.int64)
    row, before = 0, -1.0
    for character, (centre, right, _) in zip(text, slots.tolist()):
        row = min(1, row + (centre[0] < before - 0.05))
        before = centre[0]
        if character in READABLE:
            low, high = (round(steps * (centre[0] + side * 0.4 * right[0])) for side in (-1, 1))
            frames[row, max(0, low) : max(0, high) + 1] = 1 + READABLE.index(character)
    return frames.flatten()


def prime_glyphs(network: SPG) -> None:
    """Starts C_d's learned glyphs from three typefaces: training refines letters instead of discovering them."""
    from pipeline.render.photo import Cell, stamp_cell

    channels, height, width = network.config.glyph
    fonts = [("Saira Condensed", 500), ("Barlow Condensed", 600), ("Fjalla One", 400)]
    with torch.no_grad():
        for number, character in enumerate(network.config.alphabet, start=1):
            for channel in range(channels):
                canvas = np.zeros((4 * height, 4 * width), np.uint8)
                stamp_cell(
                    canvas, Cell(character, 0, 0, 4 * width, 4 * height, True), fonts[channel % len(fonts)], 0, 1.0, 0.0
                )
                small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
                network.C_d.glyphs[number, channel] = torch.from_numpy(small).float() / 255


def _real_crops(path: str) -> list[tuple[np.ndarray, str]]:
    """Pictures and texts of a corpus's split train. Raises PlatemintError where none is usable."""
    from pipeline.corpora import read_corpus
    from pipeline.sample import read_picture

    corpus, crops, first = read_corpus(path), [], ""
    for label in corpus.labels:
        if label.split == "train":
            try:
                crops.append((read_picture(label.path)[0], characters(label.text)))
            except ValueError as fault:
                first = first or f"; the first that failed: {label.name}: {fault}"
    if not crops:
        raise PlatemintError(f"{path}: source: no readable labelled crop in split train to learn from{first}")
    return crops


def _disturb(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A real crop under slightly other light, framing and focus."""
    h, w = image.shape[:2]
    corners = np.float32([[0, 0], [w, 0], [w, h], [0, h]])
    moved = corners + rng.normal(0, 0.025, (4, 2)).astype(np.float32) * np.float32([w, h])
    out = cv2.warpPerspective(
        image, cv2.getPerspectiveTransform(corners, moved.astype(np.float32)), (w, h), borderMode=cv2.BORDER_REPLICATE
    )
    if rng.random() < 0.3:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 0.02 * h + 0.4))
    out = out.astype(np.float32) * np.exp(rng.normal(0, 0.2)) + rng.normal(0, rng.uniform(0, 8), out.shape)
    return np.clip(out, 0, 255).astype(np.uint8)


def _tile(rows: Tensor, columns: int = 2) -> np.ndarray:
    picture = (rows.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    picture = picture[: len(picture) // columns * columns]
    return np.concatenate([np.concatenate(list(picture[i::columns]), 0) for i in range(columns)], 1)


# ------------------------------------------------------------------------------------------------------------- the loop


def learning_rate(recipe: TrainRecipe, step: int) -> float:
    """Warm-up, plateau, then straight down to a hundredth over the last `cooldown` share of the steps."""
    left = (recipe.steps - step) / max(1.0, recipe.cooldown * recipe.steps)
    return recipe.lr * min(1.0, (step + 1) / recipe.warmup) * max(0.01, min(1.0, left))


MAY_CHANGE = {"out", "steps", "workers", "threads", "log_every", "sheet_every", "save_minutes", "device"}


def _identity(recipe: TrainRecipe) -> dict:
    """What may not change when a run is resumed."""
    return recipe.model_dump(mode="json", exclude=MAY_CHANGE)


class Run:
    """A training run: networks, optimisers, averages, and the folder they are kept in."""

    def __init__(self, recipe: TrainRecipe, folder: Path):
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder, self.step = recipe, folder, 0
        self.task = TASKS[recipe.network](recipe)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.task.network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema)
        )
        self.optimizer = torch.optim.AdamW(
            self.task.network.parameters(), recipe.lr, betas=(0.9, 0.99), weight_decay=0.01
        )
        critic = self.task.critic
        self.critic_optimizer = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.5, 0.99)) if critic else None

    def _parts(self) -> dict:
        parts = {"network": self.task.network, "average": self.average, "optimizer": self.optimizer}
        return parts | (
            {"critic": self.task.critic, "critic_optimizer": self.critic_optimizer} if self.task.critic else {}
        )

    def save(self) -> None:
        """state.pt to resume from and the averaged weights as a checkpoint, each moved into place when whole."""
        temporary = self.folder / "state.pt.tmp"
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        torch.save({"step": self.step, "recipe": _identity(self.recipe), **parts}, temporary)
        os.replace(temporary, self.folder / "state.pt")
        checkpoint.save(self.average.module, self.folder / f"{self.recipe.name}.safetensors", step=str(self.step))

    def load(self) -> None:
        """Takes up where state.pt stopped. Raises PlatemintError where it is damaged or another recipe's."""
        path = self.folder / "state.pt"
        try:
            state = torch.load(path, map_location=self.task.device, weights_only=True)
            changed = [k for k, v in _identity(self.recipe).items() if state["recipe"].get(k) != v]
            if changed:
                raise PlatemintError(
                    f"{path}: was made with another {', '.join(changed)}; undo that or choose another name"
                )
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
        except (EOFError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError) as fault:
            raise PlatemintError(f"{path}: is damaged ({fault}); start afresh under another name") from None
        self.step = state["step"]

    def advance(self, batch: Batch) -> dict[str, float]:
        """One step. Raises PlatemintError, with the batch saved, when the loss is not a number."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        loss, figures = self.task.loss(batch, self.step)
        if not torch.isfinite(loss):
            torch.save(asdict(batch), self.folder / "nan-batch.pt")
            raise PlatemintError(
                f"loss is {loss.item()} at step {self.step}; batch saved as {self.folder / 'nan-batch.pt'}; "
                "start again with a lower lr, from the checkpoint if it is good"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        figures["gradient"] = float(nn.utils.clip_grad_norm_(self.task.network.parameters(), self.recipe.clip))
        self.optimizer.step()
        self.average.update_parameters(self.task.network)
        if self.critic_optimizer and (critic := self.task.critic_loss()) is not None:
            self.critic_optimizer.zero_grad(set_to_none=True)
            critic.backward()
            self.critic_optimizer.step()
            figures["critic"] = float(critic.detach())
        self.step += 1
        return {"loss": float(loss.detach()), **figures}


def train(recipe: TrainRecipe, resume: bool = False, say=print) -> Path:
    """Trains to recipe.steps and returns the checkpoint's path. resume: continue the run in the recipe's folder.

    Raises PlatemintError where the folder holds another run (without resume) or none (with resume).
    """
    folder = recipe.folder
    state = folder / "state.pt"
    if state.exists() and not resume:
        raise PlatemintError(
            f"{folder}: holds a training run; continue it with --resume, or choose another name or out"
        )
    if resume and not state.exists():
        raise PlatemintError(f"{folder}: nothing to resume, state.pt is missing; start without --resume")
    (folder / "sheets").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(recipe.threads)
    try:
        run = Run(recipe, folder)
    except checkpoint.CheckpointError as fault:
        raise PlatemintError(f"start or reader: {fault}") from None
    if resume:
        run.load()
    (folder / "recipe.yaml").write_text(dump(recipe), encoding="utf8")
    _loop(run, say)
    return folder / f"{recipe.name}.safetensors"


def _loop(run: Run, say) -> None:
    from torch.utils.tensorboard import SummaryWriter

    recipe, log, since, pending = run.recipe, _Log(run.folder / "losses.csv", run.step), time.monotonic(), []
    board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step)
    saved = time.monotonic()
    for batch in batches(recipe, run.step):
        pending.append(run.advance(batch))
        if run.step % recipe.log_every == 0:
            figures = {k: float(np.mean([p[k] for p in pending if k in p])) for k in pending[-1]}
            seconds = time.monotonic() - since
            rate, left = len(pending) * recipe.batch / seconds, (recipe.steps - run.step) * seconds / len(pending)
            say(
                f"step {run.step}/{recipe.steps}  {rate:.1f} pairs/s  {left / 60:.0f} min left  "
                + "  ".join(f"{k} {v:.3f}" for k, v in figures.items())
            )
            log.write(run.step, figures)
            for name, value in figures.items():
                board.add_scalar(name, value, run.step)
            since, pending = time.monotonic(), []
            if time.monotonic() - saved > 60 * recipe.save_minutes:  # here only: a resumed run must log the same means
                run.save()
                saved = time.monotonic()
        if run.step % recipe.sheet_every == 0:
            sheet = run.task.sheet(batch)
            cv2.imwrite(str(run.folder / "sheets" / f"{run.step:07d}.png"), sheet[..., ::-1])
            board.add_image("sheet", sheet, run.step, dataformats="HWC")
    run.save()
    board.close()


class _Log:
    """losses.csv: one row per logged step; rows past the step a run resumes from are dropped."""

    def __init__(self, path: Path, step: int):
        self.path = path
        rows = list(csv.reader(path.open(encoding="utf8"))) if path.exists() else []
        with path.open("w", encoding="utf8", newline="") as file:
            csv.writer(file).writerows(r for r in rows if r and r[0].isdigit() and int(r[0]) <= step)

    def write(self, step: int, figures: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf8", newline="") as file:
            csv.writer(file).writerow([step, *(f"{k}={v:.6f}" for k, v in figures.items())])
