"""residue: whether each of a plate's old characters is gone from where it stood, by the reader and by the two pictures.

The generator may be wrong about where a character stands, and then neither erases it nor knows that it did not. So the
place comes from the reader, which finds the characters of a text it knows beside emblems and bands (`models.reader.align`),
and what is left of a character from the difference between the source's strokes and the result's.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from platemint.models.spg import push_pull
from platemint.pipeline.alignment import Standing, pitch
from platemint.pipeline.corpora.strokes import strokes

# Of a character's strokes: more in view and it may be read. Of 514 edits, with what remained painted over, all are below.
LIMIT = 0.15
SAME = 0.12  # of the strokes' contrast: what has changed by less is as it was
UNTOUCHED = 0.85  # of a character's strokes: as much of the same colour, and it was left standing

HEIGHT, WIDTH = 96, 320  # pixels at which pictures are compared
HALF = 0.45  # of the distance of neighbours: half the width of what is a character's own
CORE, BETWEEN = 0.3, 0.4  # of it: nearer to a character's middle it is, further off is what lies between two
TAIL = 0.12  # of what the reader looks at lies above the row, and below it
MIDDLE = (0.36, 0.37)  # of a character's width and height: what is further off is a frame's, or a slogan's
LOWEST, HIGHEST, ALIKE_HIGH = 0.4, 1.5, 0.2  # of that band: so high a character is, and so much it differs from others
BEYOND = (0.2, 0.1)  # of a character's height and width: so far around it strokes are painted over with its own
FAINT = 0.05  # share in view from which on strokes are painted over, and compared by their shape
ALIKE = 0.6  # correlation of shapes from which on it is the same character
BARE = 0.3  # of its strokes: where new ones cover more, shapes cannot be compared
ROW = 0.38  # of the band: as far from its middle a character reaches
CLEAR = 0.35  # of the strongest strokes' contrast: fainter marks are no strokes
THICK = 19  # pixels: strokes of which the top-hat has the border alone are closed
RIM = 7  # pixels: three on each side of a stroke have its shape
NEW = 60  # of 255: where the new characters' mask is higher they are drawn


@dataclass(frozen=True)
class Remains:
    """What a result still shows of a character: the share of its strokes, and all strokes around it in the source.

    around: the part of a (HEIGHT, WIDTH) picture. strokes: bool, of that part, with those of what touches the character.
    """

    share: float
    around: tuple[slice, slice]
    strokes: np.ndarray


def in_view(source: np.ndarray, result: np.ndarray, new: np.ndarray, standing: Standing) -> np.ndarray:
    """Which part of each source character's strokes the result still shows, float (n,) in 0..1.

    Where they are faint and have kept their shape, it is their likeness to the source's.

    source, result: uint8 (h, w, 3). new: uint8 (h, w), the mask of the new characters, whose strokes are not counted.
    """
    return np.array([remains.share for remains in _remains(source, result, new, standing)])


def erased(
    source: np.ndarray, result: np.ndarray, new: np.ndarray, standing: Standing
) -> tuple[np.ndarray, np.ndarray]:
    """The result with what is still in view of source characters painted over, uint8 (h, w, 3), and where, bool (h, w).

    It is continued from around. More goes than `in_view` looks at, a piece of a frame that touches a character included.

    source, result, new, standing: as `in_view` takes them.
    """
    where = np.zeros((HEIGHT, WIDTH), np.uint8)
    for remains in _remains(source, result, new, standing):
        where[remains.around] |= remains.strokes & (remains.share > FAINT)
    if not where.any():
        return result, np.zeros(result.shape[:2], bool)
    height, width = result.shape[:2]
    where = cv2.dilate(cv2.morphologyEx(where, cv2.MORPH_CLOSE, np.ones((THICK, THICK))), np.ones((RIM, RIM)))
    new = cv2.dilate(cv2.resize(new, (WIDTH, HEIGHT)), np.ones((3, 3))) > NEW
    where, new = (cv2.resize(layer.astype(np.uint8), (width, height)) > 0 for layer in (where & ~new, new))
    pixels, known = (torch.from_numpy(layer).float() for layer in (result, ~(where | new)))
    filled = push_pull(pixels.permute(2, 0, 1)[None], known[None, None])[0].permute(1, 2, 0)
    return np.where(where[..., None], filled.round().byte().numpy(), result), where


def untouched(source: np.ndarray, result: np.ndarray, standing: Standing) -> np.ndarray:
    """Which part of each source character's strokes has kept its very colour in the result, float (n,) in 0..1.

    source, result: uint8 (h, w, 3). For a caller that does not know where new characters were drawn: these may cover old ones, but
    seldom in their colour.
    """
    shares = np.zeros(len(standing.places))
    before, after = _gray(source), _gray(result)
    for row in {*standing.lower.tolist()}:
        at, band = standing.lower == row, _band(standing, row)
        changed = np.abs(after - before) > SAME * _contrast(before, standing.places[at], band)
        shares[at] = [remains.share for remains in _row_in_view(before, before, changed, standing.places[at], band)]
    return shares


def _contrast(picture: np.ndarray, places: np.ndarray, band: tuple[int, int]) -> float:
    """Of the clearest strokes of a row, in grey levels."""
    columns = _columns(places)
    (found,) = strokes([picture], band, *_in_and_between(places))
    return float(np.quantile(found[band[0] : band[1], columns], 0.95))


def _gray(picture: np.ndarray) -> np.ndarray:
    how = cv2.INTER_AREA if picture.shape[0] > HEIGHT else cv2.INTER_CUBIC
    gray = cv2.cvtColor(cv2.resize(picture, (WIDTH, HEIGHT), interpolation=how), cv2.COLOR_RGB2GRAY)
    return cv2.GaussianBlur(gray.astype(np.float32), (0, 0), 1)


def _band(standing: Standing, lower: bool) -> tuple[int, int]:
    """The first and last line of a row of characters, by what the reader looks at."""
    looked_at = cv2.GaussianBlur(standing.looked_at, (0, 0), 1.5).sum(1)
    middle = len(looked_at) // 2
    if standing.lower.any():
        looked_at[: middle if lower else 0] = 0
        looked_at[len(looked_at) if lower else middle :] = 0
    part = np.cumsum(looked_at) / looked_at.sum().clip(1e-9)
    low, high = (np.searchsorted(part, tail) * HEIGHT // len(part) for tail in (TAIL, 1 - TAIL))
    return int(low), int(high) + 1


def _remains(source: np.ndarray, result: np.ndarray, new: np.ndarray, standing: Standing) -> list[Remains]:
    """Of each source character, in order."""
    drawn = cv2.dilate(cv2.resize(new, (WIDTH, HEIGHT)), np.ones((5, 5))) > NEW
    before, after = _gray(source), _gray(result)
    found: list[Remains] = []
    for row in sorted({*standing.lower.tolist()}):  # a second row's characters follow the first's
        places = standing.places[standing.lower == row]
        found += _row_in_view(before, after, drawn, places, _band(standing, row))
    return found


def _row_in_view(
    before: np.ndarray, after: np.ndarray, drawn: np.ndarray, places: np.ndarray, band: tuple[int, int]
) -> list[Remains]:
    """Of each character of a row."""
    columns = _columns(places)
    old, new = strokes([before, after], band, *_in_and_between(places))
    kept, clear = np.minimum(old, new), old > CLEAR * np.quantile(old[band[0] : band[1], columns], 0.95)
    found = []
    for cell in _cells(clear, places, band):
        own = _own(clear[cell])
        free = own & ~drawn[cell]
        share, bare = ((layer[cell] * free).sum() / max(1.0, (old[cell] * own).sum()) for layer in (kept, old))
        near = cv2.dilate(own.astype(np.uint8), np.ones((9, 9))).astype(bool) & ~drawn[cell]
        likeness = _likeness(old[cell][near], new[cell][near]) if share > FAINT and bare > BARE else 0.0
        all_ = _grown(cell)
        found.append(Remains(max(share, likeness) if likeness > ALIKE else share, all_, clear[all_]))
    return found


def _cells(clear: np.ndarray, places: np.ndarray, band: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Where each character of a row stands: as high as the strokes that stand alone, else the middle of the band."""
    height, half = band[1] - band[0], HALF * pitch(places)
    _, _, stats, centres = cv2.connectedComponentsWithStats(clear.astype(np.uint8))
    near = np.abs(centres[:, :1] / WIDTH - places) < CORE * pitch(places)
    high = (LOWEST * height < stats[:, 3]) & (stats[:, 3] < HIGHEST * height) & (stats[:, 2] < WIDTH * 3 * half)
    whole = np.flatnonzero(near.any(1) & high & (centres[:, 1] > band[0]) & (centres[:, 1] < band[1]))
    whole = whole[np.abs(stats[whole, 3] / np.median(stats[whole, 3]) - 1) < ALIKE_HIGH] if len(whole) else whole
    middles, size = np.full(len(places), sum(band) / 2), ROW * height
    if len(whole) > max(1, len(places) // 3):
        slope = 1 if np.ptp(centres[whole, 0]) > WIDTH / 4 else 0
        line = np.polyfit(centres[whole, 0] / WIDTH, stats[whole, 1] + stats[whole, 3] / 2, slope)
        middles, size = np.polyval(line, places), np.median(stats[whole, 3]) / 2 + 1
    return [
        np.s_[
            max(0, round(middle - size)) : max(1, round(middle + size)),
            max(0, round(WIDTH * (place - half))) : max(1, round(WIDTH * (place + half))),
        ]
        for place, middle in zip(places, middles)
    ]


def _grown(cell: tuple[slice, slice]) -> tuple[slice, slice]:
    """A cell and what is close to it, where strokes of its character may go on."""
    rows, columns = cell
    up, aside = (round(part * (side.stop - side.start)) for part, side in zip(BEYOND, cell))
    return np.s_[max(0, rows.start - up) : rows.stop + up, max(0, columns.start - aside) : columns.stop + aside]


def _likeness(old: np.ndarray, new: np.ndarray) -> float:
    """The correlation of two pictures' strokes, float (n,) each: a character painted over thinly keeps its shape."""
    if old.size < 2 or not old.std() or not new.std():
        return 0.0
    return float(np.corrcoef(old, new)[0, 1])


def _own(clear: np.ndarray) -> np.ndarray:
    """Of the strokes around a character its own: those in the middle, and pieces centred there.

    Not a frame's or a slogan's, unless they touch it: then it is the middle alone.
    """
    _, pieces, _, centres = cv2.connectedComponentsWithStats(clear.astype(np.uint8))
    height, width = clear.shape
    central = (np.abs(centres / np.maximum((width - 1, height - 1), 1) - 0.5) < MIDDLE).all(1)
    central[0] = False  # what is no stroke
    across, up = (np.abs((np.arange(side) + 0.5) / side - 0.5) for side in (width, height))
    inner = (across < MIDDLE[0]) & (up < MIDDLE[1])[:, None]
    return central[pieces] | (clear & inner)


def _in_and_between(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The columns in the middle of characters, and those between them, bool (WIDTH,) both."""
    x = (np.arange(WIDTH) + 0.5) / WIDTH
    away = np.abs(x[:, None] - places).min(1) / pitch(places)
    return away < CORE, (away > BETWEEN) & (x > places.min()) & (x < places.max())


def _columns(places: np.ndarray) -> np.ndarray:
    """The columns in which characters stand, bool (WIDTH,)."""
    x = (np.arange(WIDTH) + 0.5) / WIDTH
    return (np.abs(x[:, None] - places) < HALF * pitch(places)).any(1)
