"""strokes: what stands out of a plate as characters do, dark on light or light on dark."""

from __future__ import annotations

import cv2
import numpy as np

WIDEST = 0.22  # of the row's height: no stroke is wider


def strokes(
    pictures: list[np.ndarray],
    rows: tuple[int, int],
    columns: slice | np.ndarray,
    between: np.ndarray | None = None,
) -> list[np.ndarray]:
    """The contrast of the strokes of each picture, float32 (h, w), dark ones or light ones, whichever the first has.

    pictures: float32 (h, w), gray, of one plate. rows: the first line of its characters and the one after the last.
    columns: where they stand; between: bool (w,), where none does, if that is known: the plate is light there too where
    its characters are dark. Strokes are what a closing fills of dark ones, or an opening takes of light ones (top-hat
    transform; Meyer, 1979).
    """
    top, bottom = rows
    size = max(3, int(WIDEST * (bottom - top)) | 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    middle = slice((3 * top + bottom) // 4, (top + 3 * bottom) // 4 + 1)

    def there(kind: list[np.ndarray]) -> float:
        first = kind[0][middle]
        return first[:, columns].mean() - (first[:, between].mean() if between is not None and between.any() else 0)

    kinds = [
        [cv2.morphologyEx(picture, kind, disc) for picture in pictures]
        for kind in (cv2.MORPH_BLACKHAT, cv2.MORPH_TOPHAT)
    ]
    return max(kinds, key=there)
