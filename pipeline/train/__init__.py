"""train: generator, reader or finder, on pictures rendered on the fly and on real crops, resumable to the same loss curve.

Pair number i of a run is a pure function of (seed, i), and the whole state of a run is in one file, written atomically;
so a killed run continues as if nothing had happened. Under `torchrun` every process takes its share of each batch and
gradients are averaged, so that a run is the same run on one GPU or on several.
"""

from __future__ import annotations

import csv
import os
import pickle
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from platemint.models import checkpoint
from platemint.pipeline import lock
from platemint.pipeline.networks import choose_device
from platemint.pipeline.plate import Failure, PlatemintError
from platemint.pipeline.recipe import TrainRecipe, dump
from platemint.pipeline.render.layout import spelled_with, training_layouts
from platemint.pipeline.train.alphabets import freeze_known, spelled
from platemint.pipeline.train.finder import FinderTask
from platemint.pipeline.train.generator import SPGTask
from platemint.pipeline.train.pairs import Batch, pair_batches, validation
from platemint.pipeline.train.reading import ReaderTask

TASKS = {"spg": SPGTask, "reader": ReaderTask, "finder": FinderTask}
VALIDATION_PAIRS = 64
Say = Callable[[str], object]  # where progress is reported, a line at a time


# ------------------------------------------------------------------------------------------------------- the processes


@dataclass(frozen=True)
class Peers:
    """The processes of one run, as torchrun's environment describes them; one, where it does not."""

    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls, recipe: TrainRecipe) -> Peers:
        world = int(os.environ.get("WORLD_SIZE", 1))
        if world == 1:
            return cls()
        if recipe.batch % world:
            raise PlatemintError(f"batch: {recipe.batch} cannot be shared evenly by {world} processes")
        device, _ = choose_device(recipe)
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), world)

    def average(self, network: nn.Module) -> None:
        """Gradients become their mean over the processes."""
        if self.world > 1:
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            flat = torch.cat([g.flatten() for g in gradients])
            dist.all_reduce(flat)
            for gradient, mean in zip(gradients, (flat / self.world).split([g.numel() for g in gradients])):
                gradient.copy_(mean.view_as(gradient))

    def any(self, true: bool) -> bool:
        """Whether it is true for any process."""
        if self.world == 1:
            return true
        flag = torch.tensor(float(true), device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(flag)
        return bool(flag)


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

    def __init__(self, recipe: TrainRecipe, folder: Path, say: Say = print):
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder, self.step, self.best, self.stale = recipe, folder, 0, -1e9, 0
        self.peers = Peers.join(recipe)
        device, dtype = choose_device(recipe)
        self.say = _silent if self.peers.rank else say
        crops = _crops(recipe, self.say) if recipe.source else []
        self.task = TASKS[recipe.network](recipe, device, dtype, crops)
        if recipe.alphabet.freeze:
            freeze_known(self.task.network, len(checkpoint.checkpoint_alphabet(recipe.start, recipe.network)))
        for note in spelled_with(self.task.alphabet, training_layouts(recipe.layouts))[1]:
            self.say(note)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.task.network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema)
        )
        self.optimizer = torch.optim.AdamW(
            self.task.network.parameters(),
            recipe.lr,
            betas=(0.9, 0.99),
            weight_decay=0.0 if recipe.alphabet.freeze else 0.01,
        )
        critic = self.task.critic
        self.critic_optimizer = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.5, 0.99)) if critic else None
        self.held_out = None

    def batches(self) -> Iterable[Batch]:
        """The share of the batches that this process has, from the present step on."""
        task, peers = self.task, self.peers
        return pair_batches(self.recipe, task.alphabet, task.size, self.step, peers.rank, peers.world, task.kind)

    def _parts(self) -> dict:
        parts = {"network": self.task.network, "average": self.average, "optimizer": self.optimizer}
        return parts | (
            {"critic": self.task.critic, "critic_optimizer": self.critic_optimizer} if self.task.critic else {}
        )

    def save(self) -> None:
        """state.pt, to resume from, moved into place when whole."""
        if self.peers.rank:
            return
        temporary = self.folder / "state.pt.tmp"
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        facts = {"step": self.step, "best": self.best, "stale": self.stale, "recipe": _identity(self.recipe)}
        torch.save(facts | parts, temporary)
        os.replace(temporary, self.folder / "state.pt")

    def load(self) -> None:
        """Takes up where state.pt stopped. Raises PlatemintError where it is damaged or another recipe's."""
        path = self.folder / "state.pt"
        try:
            state = torch.load(path, map_location=self.task.device, weights_only=True)
            begun = _identity(TrainRecipe()) | state["recipe"]  # a field that came later had its default
            changed = [k for k, v in _identity(self.recipe).items() if begun[k] != v]
            if changed:
                raise PlatemintError(
                    f"{path}: was made with another {', '.join(changed)}; undo that or choose another name"
                )
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.step, self.best, self.stale = state["step"], state["best"], state["stale"]
        except (EOFError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError) as fault:
            raise PlatemintError(f"{path}: is damaged ({fault}); start afresh under another name") from None

    def advance(self, batch: Batch) -> dict[str, float]:
        """One step. Raises Failure, with the batch saved, when the loss is not a number."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        rng = np.random.default_rng([self.recipe.seed, 1, self.step, self.peers.rank])
        loss, figures = self.task.loss(batch, self.step, rng)
        self._check(loss, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.peers.average(self.task.network)
        figures["gradient"] = float(nn.utils.clip_grad_norm_(self.task.network.parameters(), self.recipe.clip))
        self.optimizer.step()
        self.average.update_parameters(self.task.network)
        if self.critic_optimizer and (critic := self.task.critic_loss()) is not None:
            self.critic_optimizer.zero_grad(set_to_none=True)
            critic.backward()
            self.peers.average(self.task.critic)
            self.critic_optimizer.step()
            figures["critic"] = float(critic.detach())
        self.step += 1
        return {"loss": float(loss.detach()), **figures}

    def _check(self, loss: Tensor, batch: Batch) -> None:
        bad = not torch.isfinite(loss)
        if bad:
            torch.save(asdict(batch), self.folder / "nan-batch.pt")
        if self.peers.any(bad):
            raise Failure(
                f"loss is {loss.item()} at step {self.step}; batch saved as {self.folder / 'nan-batch.pt'}; "
                "start again with a lower lr, from the checkpoint if it is good"
            )

    def validate(self) -> float:
        """Scores the averaged weights on pairs never trained on; the best become the run's checkpoint."""
        if self.held_out is None:
            self.held_out = validation(
                self.recipe, self.task.alphabet, self.task.size, VALIDATION_PAIRS, self.task.kind
            )
        network = self.average.module.eval()
        score = self.task.score(network, self.held_out)
        self.stale = 0 if score > self.best else self.stale + 1
        if score > self.best:
            self.best = score
            if self.peers.rank == 0:
                path = self.folder / f"{self.recipe.name}.safetensors"
                checkpoint.save(network, path, step=str(self.step), score=f"{score:.4f}")
        return score


def _crops(recipe: TrainRecipe, say: Say) -> list[tuple[np.ndarray, str]]:
    from platemint.pipeline.train.crops import learnable_crops

    reader = checkpoint.load(recipe.reader, "reader") if recipe.reader else None
    crops = learnable_crops(
        recipe.source, "train", reader, say, recipe.unreadable, recipe.format, recipe.max_set_aside, spelled(recipe)
    )
    return [(crop.image, crop.text) for crop in crops]


def train(recipe: TrainRecipe, resume: bool = False, say: Say = print) -> Path:
    """Trains to recipe.steps, or until the validation score stops rising, and returns the checkpoint's path.

    resume: continue the run in the recipe's folder. Raises PlatemintError where the folder holds another run (without
    resume) or none (with resume), and for a corpus that cannot teach; Failure where another process trains in it.
    """
    first = os.environ.get("RANK", "0") == "0"  # the only one of several processes that writes
    with lock.held(recipe.folder) if first else nullcontext():
        return _trained(recipe, resume, say)


def _trained(recipe: TrainRecipe, resume: bool, say: Say) -> Path:
    folder = recipe.folder
    state = folder / "state.pt"
    if state.exists() and not resume:
        raise PlatemintError(
            f"{folder}: holds a training run; continue it with --resume, or choose another name or out"
        )
    if resume and not state.exists():
        raise PlatemintError(f"{folder}: nothing to resume, state.pt is missing; start without --resume")
    if recipe.source and recipe.network == "spg" and not recipe.reader:
        raise PlatemintError("reader: real plates can only be learned with a reader to judge legibility; name one")
    torch.set_num_threads(recipe.threads)
    try:
        run = Run(recipe, folder, say)
    except checkpoint.CheckpointError as fault:
        raise PlatemintError(f"start or reader: {fault}") from None
    (folder / "sheets").mkdir(parents=True, exist_ok=True)
    if resume:
        run.load()
    if run.peers.rank == 0:
        (folder / "recipe.yaml").write_text(dump(recipe), encoding="utf8")
    _loop(run)
    return folder / f"{recipe.name}.safetensors"


def _silent(line: str) -> None:
    """What all processes of a run but the first say."""


def _loop(run: Run) -> None:
    recipe, say, board, pending = run.recipe, run.say, _Board(run), []
    since = saved = time.monotonic()
    for batch in run.batches():
        pending.append(run.advance(batch))
        last = run.step == recipe.steps
        if run.step % recipe.log_every == 0:
            figures = {k: float(np.mean([p[k] for p in pending if k in p])) for k in pending[-1]}
            seconds = time.monotonic() - since
            rate, left = len(pending) * recipe.batch / seconds, (recipe.steps - run.step) * seconds / len(pending)
            say(
                f"step {run.step}/{recipe.steps}  {rate:.1f} pairs/s  {left / 60:.0f} min left  "
                + "  ".join(f"{k} {v:.3f}" for k, v in figures.items())
            )
            board.figures(run.step, figures)
            since, pending = time.monotonic(), []
        if run.step % recipe.sheet_every == 0:
            board.sheet(run.step, _tile(run.task.sheet(run.average.module, batch)))
        if run.step % recipe.validate_every == 0 or last:
            score = run.validate()
            board.figures(run.step, {"score": score})
            say(f"step {run.step}/{recipe.steps}  validation {score:.4f}  best {run.best:.4f}")
            if recipe.patience and run.stale >= recipe.patience and not last:
                say(f"stopped: the validation score has not risen for {run.stale} validations")
                break
        # only between two log lines: a resumed run must log the same means
        if not pending and time.monotonic() - saved > 60 * recipe.save_minutes:
            run.save()
            saved = time.monotonic()
    run.save()
    board.close()


def _tile(columns: list[Tensor], rows: int = 16) -> np.ndarray:
    """Columns of pictures (B, 3, H, W) in 0..1 side by side: uint8 RGB."""
    wide = torch.cat([column[:rows] for column in columns], 3).clamp(0, 1)
    return (wide * 255).byte().permute(0, 2, 3, 1).flatten(0, 1).cpu().numpy()


class _Board:
    """losses.csv, one row per logged step, TensorBoard and sample sheets; of the first process only.

    Rows past the step a run resumes from are dropped.
    """

    def __init__(self, run: Run):
        self.path, self.on = run.folder / "losses.csv", run.peers.rank == 0
        if not self.on:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step)
        rows = list(csv.reader(self.path.open(encoding="utf8"))) if self.path.exists() else []
        with self.path.open("w", encoding="utf8", newline="") as file:
            csv.writer(file).writerows(r for r in rows if r and r[0].isdigit() and int(r[0]) <= run.step)

    def figures(self, step: int, figures: dict[str, float]) -> None:
        if self.on:
            with self.path.open("a", encoding="utf8", newline="") as file:
                csv.writer(file).writerow([step, *(f"{k}={v:.6f}" for k, v in figures.items())])
            for name, value in figures.items():
                self.writer.add_scalar(name, value, step)

    def sheet(self, step: int, sheet: np.ndarray) -> None:
        if self.on:
            cv2.imwrite(str(self.path.parent / "sheets" / f"{step:07d}.png"), sheet[..., ::-1])
            self.writer.add_image("sheet", sheet, step, dataformats="HWC")

    def close(self) -> None:
        if self.on:
            self.writer.close()
