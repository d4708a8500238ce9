"""edit: writes each plate's target on it with the SPG, in batches, and changes nothing else of the photograph."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from models import checkpoint
from models.reader import Reader, decode
from models.spg import SPG, compose, encode_texts
from pipeline.plate import Plate, PlatemintError, normalise
from pipeline.recipe import Edit


def choose_device(options: Edit) -> tuple[torch.device, torch.dtype]:
    """The device and the precision of its convolutions. Raises PlatemintError for a device that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = next(n for n in there if there[n]) if options.device == "auto" else options.device
    if not there[name]:
        raise PlatemintError(f"edit.device: {name} is not available here; use auto or cpu")
    fast = {"cuda": lambda: torch.cuda.is_bf16_supported(), "mps": lambda: False, "cpu": _cpu_has_bfloat16}
    bfloat16 = fast[name]() if options.precision == "auto" else options.precision == "bfloat16"
    return torch.device(name), torch.bfloat16 if bfloat16 else torch.float32


def _cpu_has_bfloat16() -> bool:
    """Without the instructions, bfloat16 is emulated and slower than float32."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def load_network(name: str, kind: str, options: Edit):
    """A network on the chosen device. Raises PlatemintError where the checkpoint is missing, broken or of another kind."""
    device, _ = choose_device(options)
    torch.set_num_threads(options.threads)
    try:
        return checkpoint.load(name, kind).to(device).requires_grad_(False)
    except checkpoint.CheckpointError as fault:
        raise PlatemintError(f"edit.{'reader' if kind == 'reader' else 'checkpoint'}: {fault}") from None


def network_input(pictures: list[np.ndarray], height: int, width: int, device) -> Tensor:
    """uint8 pictures (h, w, 3) of any size -> float (B, 3, height, width) in 0..1, stretched, channels_last."""
    small = np.stack([resize(p, height, width) for p in pictures])
    return torch.from_numpy(small).to(device).permute(0, 3, 1, 2).float().div(255)


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Averages where a picture shrinks, interpolates where it grows."""
    shrink = picture.shape[0] > height and picture.shape[1] > width
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)


class Editor:
    """Plates with a target -> plates that say it. Networks are loaded once, when the editor is made."""

    def __init__(self, options: Edit):
        self.options = options
        self.device, self.dtype = choose_device(options)
        self.spg: SPG = load_network(options.checkpoint, "spg", options)

    def __call__(self, plates: list[Plate]) -> list[Plate]:
        """The plates edited, in order; an image's result does not depend on the others.

        Raises PlatemintError for a text that is empty, too long or cannot be spelled.
        """
        for plate in plates:
            self.check(plate)
        size = self.options.batch
        return [p for i in range(0, len(plates), size) for p in self._edit(plates[i : i + size])]

    def check(self, plate: Plate) -> None:
        """Raises PlatemintError for a text that is empty, too long or cannot be spelled."""
        config = self.spg.config
        for name, text in (("source text", plate.text), ("target", plate.target)):
            if not 0 < len(text) <= config.longest or set(text) - set(config.alphabet):
                raise PlatemintError(f"{name} {text!r}: must be 1 to {config.longest} characters of {config.alphabet!r}")

    @torch.inference_mode()
    def _edit(self, plates: list[Plate]) -> list[Plate]:
        config = self.spg.config
        source = network_input([p.image for p in plates], config.height, config.width, self.device)
        texts = [encode_texts(t, config.alphabet, config.longest).to(self.device) for t in ([p.text for p in plates], [p.target for p in plates])]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype is torch.bfloat16):
            edit = self.spg(source, *texts)
        layers = torch.cat([edit.B_s, edit.B_t, edit.ink, edit.correction], 1).float().permute(0, 2, 3, 1).cpu().numpy()
        slots = edit.target_slots.float().cpu().numpy()
        return [_finish(plate, layer, slot) for plate, layer, slot in zip(plates, layers, slots)]


def _finish(plate: Plate, layers: np.ndarray, slots: np.ndarray) -> Plate:
    """The plate with its edit composed at the photograph's own resolution.

    layers: float32 (h, w, 8) at the network's size: B_s, B_t, ink, correction. slots: of the target.
    """
    height, width = plate.image.shape[:2]
    shrink = height < layers.shape[0] and width < layers.shape[1]
    how = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
    parts = (cv2.resize(layers[..., k], (width, height), interpolation=how) for k in (slice(2), slice(2, 5), slice(5, 8)))
    masks, ink, correction = (torch.from_numpy(part).permute(2, 0, 1)[None] for part in parts)
    B_s, B_t = masks.clamp(0, 1).chunk(2, 1)
    source = torch.from_numpy(plate.image.astype(np.float32)).permute(2, 0, 1)[None] / 255
    image = compose(source, B_s, B_t, ink, correction).mul(255).round().byte()[0].permute(1, 2, 0)
    return replace(
        plate,
        image=np.ascontiguousarray(image.numpy()),
        text=plate.target,
        original=plate.image,
        original_text=plate.text,
        source_mask=_byte(B_s),
        target_mask=_byte(B_t),
        slots=slots[: len(plate.target)],
    )


def _byte(mask: Tensor) -> np.ndarray:
    return mask[0, 0].mul(255).round().byte().numpy()


# ------------------------------------------------------------------------------------- the SPG authors' inference call


def read_texts(reader: Reader, pictures: list[np.ndarray], device, dtype) -> list[tuple[str, float]]:
    """What the reader reads in pictures of any size, with its confidence."""
    config = reader.config
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
        return decode(reader(network_input(pictures, config.height, config.width, device)), config.alphabet)


def edit_folder(input_dir: Path, input_text: Path, source_text: Path | None, name: str, out: Path) -> str:
    """Edits the pictures of a folder to the texts of a `name text` file; returns a summary.

    source_text: what the pictures say, in the same form; where None, our reader reads them. Writes the edited pictures
    under their own names, a gt.txt with their new texts, and sheet.png (source, B_s, B_t, edit) to out. What cannot be
    edited is set aside with its reason.
    """
    from pipeline.corpora import gt
    from pipeline.sample import read_picture

    editor, aside = Editor(Edit(checkpoint=name)), {}
    known = {file: text for _, file, text in gt.pairs(source_text)} if source_text else {}
    plates = {}
    for _, file, text in gt.pairs(input_text):
        path = input_dir / gt.PICTURES / file
        try:
            image, source = read_picture(path if path.is_file() else input_dir / file)
            plates[file] = Plate(image, normalise(known.get(file, "")), source=source, target=normalise(text))
        except ValueError as fault:
            aside[file] = str(fault)
    _read_missing(plates, editor)
    for file, plate in list(plates.items()):
        try:
            editor.check(plate)
        except PlatemintError as fault:
            aside[file] = str(fault)
            del plates[file]
    edited = dict(zip(plates, editor(list(plates.values()))))
    _write_folder(edited, out)
    summary = f"{out}: {len(edited)} plates edited, {len(aside)} set aside"
    return "\n".join([summary, *(f"  {file}: {reason}" for file, reason in aside.items())])


def _read_missing(plates: dict[str, Plate], editor: Editor) -> None:
    """Reads the source texts that were not given."""
    unknown = [plate for plate in plates.values() if not plate.text]
    if unknown:
        reader = load_network(editor.options.reader, "reader", editor.options)
        for plate, (text, _) in zip(unknown, read_texts(reader, [p.image for p in unknown], editor.device, editor.dtype)):
            plate.text = text


def _write_folder(edited: dict[str, Plate], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for file, plate in edited.items():
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(out / file), plate.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95]):
            raise PlatemintError(f"{out / file}: cannot be written; is the disk full, or the folder read-only?")
    lines = "".join(f"{file} {plate.text}\n" for file, plate in edited.items())
    temporary = out / "gt.txt.tmp"
    temporary.write_text(lines, encoding="utf8")
    os.replace(temporary, out / "gt.txt")
    if edited:
        cv2.imwrite(str(out / "sheet.png"), contact_sheet(list(edited.values()))[..., ::-1])


def contact_sheet(plates: list[Plate], columns: int = 2, height: int = 64, width: int = 192) -> np.ndarray:
    """Source, source mask, target mask and edit of each plate side by side: uint8 RGB."""
    rows = []
    for plate in plates:
        layers = [plate.original, plate.source_mask[..., None].repeat(3, 2), plate.target_mask[..., None].repeat(3, 2), plate.image]
        rows.append(np.concatenate([cv2.resize(layer, (width, height)) for layer in layers], 1))
    while len(rows) % columns:
        rows.append(np.zeros_like(rows[0]))
    return np.concatenate([np.concatenate(rows[i::columns], 0) for i in range(columns)], 1)
