"""Draws the picture of edit.md anew with the weights that ship: `python docs/pictures.py`."""

from pathlib import Path

import cv2
import numpy as np
import torch

from platemint import Editor
from platemint.models.spg import Fill
from platemint.pipeline.plate import Plate
from platemint.pipeline.recipe import Edit
from platemint.pipeline.render import load_layouts, render_plate

EDITS = {
    "us-california": ("5KTR382", "8MWB605"),
    "eu-fr": ("BD-417-GX", "ZK-592-PT"),
    "cn-blue": ("粤B·7K32M", "沪C·4N81T"),
}
TITLES = ("source", "old strokes: B_s", "old strokes filled", "new strokes: B_t", "edit")
WIDTH, HEIGHT, BETWEEN, TITLE = 220, 84, 10, 28  # pixels


def main() -> None:
    """Three plates, a row each, with what the network makes of them on the way."""
    layouts = load_layouts([*EDITS])
    plates = []
    for seed, (name, (text, target)) in enumerate(EDITS.items()):
        plate = render_plate(layouts[name], text, np.random.default_rng(seed), severity=0.5)
        plate.target = target
        plates.append(plate)
    rows = [_titles(), *(_row(edit) for edit in Editor(Edit())(plates))]
    cv2.imwrite(
        str(Path(__file__).with_name("edit.jpg")), np.concatenate(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92]
    )


def _titles() -> np.ndarray:
    title = np.full((TITLE, len(TITLES) * (WIDTH + BETWEEN), 3), 255, np.uint8)
    for column, text in enumerate(TITLES):
        (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
        left = column * (WIDTH + BETWEEN) + (WIDTH - wide) // 2
        cv2.putText(title, text, (left, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return title


def _row(edit: Plate) -> np.ndarray:
    source = torch.from_numpy(edit.original).permute(2, 0, 1)[None] / 255
    filled = Fill(source, torch.from_numpy(edit.source_mask)[None, None] / 255)
    filled = (filled[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    masks = [mask[..., None].repeat(3, 2) for mask in (edit.source_mask, edit.target_mask)]
    return np.concatenate([_cell(p) for p in (edit.original, masks[0], filled, masks[1], edit.image)], 1)


def _cell(picture: np.ndarray) -> np.ndarray:
    """In the middle of a white cell, as large as fits."""
    scale = min(WIDTH / picture.shape[1], HEIGHT / picture.shape[0])
    small = cv2.resize(
        picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    cell = np.full((HEIGHT + BETWEEN, WIDTH + BETWEEN, 3), 255, np.uint8)
    top, left = (HEIGHT - small.shape[0]) // 2, (WIDTH - small.shape[1]) // 2
    cell[top : top + small.shape[0], left : left + small.shape[1]] = small
    return cell


if __name__ == "__main__":
    main()
