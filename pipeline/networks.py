"""networks: device and precision, checkpoints, and pictures as tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from platemint.models import checkpoint
from platemint.pipeline.plate import SEPARATORS, Failure, PlatemintError
from platemint.pipeline.recipe import Edit, TrainRecipe


def batched(items: Iterable, size: int) -> Iterator[list]:
    """Lists of at most so many items, in order (itertools has it from Python 3.12 on)."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def in_batches(work: Callable[[list], Iterable], items: Sequence, size: int) -> list:
    """All results, in order, of work(some) on lists of at most so many items, each giving a result for every item.

    Lists get half as long whenever the GPU's memory does not suffice, which changes results by rounding at most.
    Raises Failure where it does not suffice for a single item.
    """
    done: list = []
    while len(done) < len(items):
        some = list(items[len(done) : len(done) + size])
        try:
            done += work(some)
        except torch.cuda.OutOfMemoryError:
            size = len(some) // 2
        if not size:
            raise Failure(
                "edit.device: the GPU's memory does not suffice for a single plate: end what else uses it and run the same "
                "command again, or take another GPU (CUDA_VISIBLE_DEVICES) or edit.device=cpu"
            )
        if size < len(some):
            torch.cuda.empty_cache()  # only now: until here the fault held the list's tensors
    return done


def choose_device(options: Edit | TrainRecipe) -> tuple[torch.device, torch.dtype]:
    """The device and the precision of its convolutions. Raises PlatemintError for a device that is not there.

    auto never takes mps: torch lacks operators there that reading needs, so it has to be asked for.
    """
    there = {"cuda": torch.cuda.is_available(), "cpu": True, "mps": torch.backends.mps.is_available()}
    name = next(n for n in there if there[n]) if options.device == "auto" else options.device
    if not there[name]:
        raise PlatemintError(f"device: {name} is not available here; use auto or cpu")
    fast = {"cuda": lambda: torch.cuda.is_bf16_supported(), "mps": lambda: False, "cpu": _cpu_has_bfloat16}
    bfloat16 = fast[name]() if options.precision == "auto" else options.precision == "bfloat16"
    return torch.device(name), torch.bfloat16 if bfloat16 else torch.float32


def pinned(options: Edit) -> Edit:
    """The same with the device and precision that are chosen here, so that no other machine chooses others."""
    device, dtype = choose_device(options)
    return options.model_copy(update={"device": device.type, "precision": str(dtype).removeprefix("torch.")})


def gpus(options: Edit) -> int:
    """How many GPUs there are for these options: 0 where the device chosen is another."""
    return torch.cuda.device_count() if choose_device(options)[0].type == "cuda" else 0


def _cpu_has_bfloat16() -> bool:
    """Without the instructions, bfloat16 is emulated and slower than float32."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Convolutions and products in dtype, where that is bfloat16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16)


def editable_alphabet(options: Edit) -> str:
    """The characters that the generator writes and the reader reads, and separators: what can be written and checked.

    Raises PlatemintError for a checkpoint missing, broken or of another kind.
    """
    found = {}
    for field, kind in (("checkpoint", "spg"), ("reader", "reader")):
        try:
            found[kind] = checkpoint.checkpoint_alphabet(getattr(options, field), kind)
        except checkpoint.CheckpointError as fault:
            raise PlatemintError(f"edit.{field}: {fault}") from None
    return "".join(c for c in found["spg"] if c in SEPARATORS or c in found["reader"])


def load_network(name: str, kind: str, options: Edit) -> Any:
    """A network on the chosen device. Raises PlatemintError for a checkpoint missing, broken or of another kind."""
    device, _ = choose_device(options)
    torch.set_num_threads(options.threads)
    try:
        return checkpoint.load(name, kind).to(device).requires_grad_(False)
    except checkpoint.CheckpointError as fault:
        raise PlatemintError(f"edit.{'checkpoint' if kind == 'spg' else kind}: {fault}") from None


def network_input(pictures: list[np.ndarray], height: int, width: int, device: torch.device) -> Tensor:
    """uint8 pictures (h, w, 3) of any size -> float (B, 3, height, width) in 0..1, stretched, channels_last."""
    small = np.stack([resize(p, height, width) for p in pictures])
    return torch.from_numpy(small).to(device).permute(0, 3, 1, 2).float().div(255)


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Averages where a picture shrinks, interpolates where it grows."""
    shrink = picture.shape[0] > height and picture.shape[1] > width
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
