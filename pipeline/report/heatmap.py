"""The balance of a corpus as a picture: a row per position, a column per character, colour for how often it is there.

Colour tells a count as a multiple of the wanted one, on the same fixed scale in every picture: a doubling is the same
step anywhere. Viridis keeps its order for colour-blind eyes and in print without colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

import cv2
import numpy as np

from platemint.pipeline.plate import DIGITS, LETTERS, PROVINCES
from platemint.pipeline.report.inspect import FIGURES, figure, figures

DOUBLINGS = 3  # the scale goes from an eighth of the wanted count to eight times it

MARGIN, NAMES, HEADER, GAP = 28, 56, 26, 10  # pixels: page margin, row names, column names, between parts
HEIGHT, WIDEST, NARROWEST = 28, 40, 28  # pixels: of a cell
COLUMNS_WIDE = 1900  # pixels within which all columns shall fit, if cells need not become too narrow for it
FIGURE_WIDTHS = (76, 58, 72, 68, 58, 62)  # pixels, of the columns at a row's end
SMALLEST, SMALL, NORMAL, LARGE = 11, 13, 15, 19  # pixels: font sizes
PANEL_TITLE, LEGEND = 58, 136  # pixels: heights

PAPER, INK, FAINT = (255, 255, 255), (34, 34, 34), (105, 105, 105)
EMPTY, EDGE, PALE = (240, 240, 240), (205, 205, 205), (175, 175, 175)
UNFINISHED = (213, 94, 0)  # vermilion of Okabe and Ito's palette: not on the scale, and apart from it for all eyes

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Sheet:
    """Where everything stands, in pixels. characters: of the columns; rows: positions of each panel."""

    characters: str
    rows: tuple[int, ...]

    @property
    def cell_width(self) -> int:
        return int(np.clip(COLUMNS_WIDE // max(1, len(self.characters)), NARROWEST, WIDEST))

    @property
    def figures_left(self) -> int:
        return self.column(len(self.characters)) + GAP

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        width = self.figures_left + sum(FIGURE_WIDTHS) + MARGIN
        return self.legend_top + LEGEND, max(width, 1040)

    @property
    def legend_top(self) -> int:
        return self.panel_top(len(self.rows))

    @cached_property
    def _lefts(self) -> list[int]:
        """Left edges of the columns, with gaps between digits, letters and provinces, and of one more after them."""
        kinds = [next(n for n, a in enumerate((DIGITS, LETTERS, PROVINCES)) if c in a) for c in self.characters]
        gaps = np.cumsum([0] + [GAP * (a != b) for a, b in pairwise(kinds)] + [0] * bool(kinds))
        return [MARGIN + NAMES + number * self.cell_width + int(gap) for number, gap in enumerate(gaps)]

    def column(self, number: int) -> int:
        """Left edge of a column, or of what follows the last one."""
        return self._lefts[number]

    def panel_top(self, panel: int) -> int:
        heights = (PANEL_TITLE + HEADER + (rows + 1) * HEIGHT + GAP + MARGIN for rows in self.rows[:panel])
        return MARGIN + sum(heights)

    def row(self, panel: int, number: int) -> int:
        """Top edge of a row; the one after the last position is that of all of them, set off by a gap."""
        below = GAP if number == self.rows[panel] else 0
        return self.panel_top(panel) + PANEL_TITLE + HEADER + number * HEIGHT + below

    def cell(self, panel: int, row: int, character: str) -> tuple[slice, slice]:
        """The pixels of a cell: rows and columns of the picture."""
        top, left = self.row(panel, row), self.column(self.characters.index(character))
        return slice(top, top + HEIGHT - 1), slice(left, left + self.cell_width - 1)


def sheet_of(report: dict) -> Sheet:
    """The sheet on which a report of `inspect` is drawn."""
    return Sheet(report["characters"], tuple(len(part["balance"]["positions"]) for _, part in _panels(report)))


def draw(report: dict) -> np.ndarray:
    """The balance of a report of `inspect`, or two balances where it was made against another: uint8 (H, W, 3) RGB."""
    sheet = sheet_of(report)
    image = np.full((*sheet.size, 3), PAPER, dtype=np.uint8)
    for number, (title, part) in enumerate(_panels(report)):
        _panel(image, sheet, number, title, part)
    _legend(image, sheet, report)
    return image


def colour(multiple: float) -> Colour:
    """Of a count that is `multiple` (> 0) times the wanted one."""
    place = (np.log2(multiple) / DOUBLINGS + 1) / 2
    return _viridis()[round(255 * float(np.clip(place, 0, 1)))]


@cache
def _viridis() -> list[Colour]:
    """256 colours, from rare to frequent."""
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_VIRIDIS)
    return [tuple(map(int, bgr[::-1])) for bgr in table.reshape(-1, 3)]


def _panels(report: dict) -> list[tuple[str, dict]]:
    return [("before: ", report["against"]), ("after: ", report)] if "against" in report else [("", report)]


def _panel(image: np.ndarray, sheet: Sheet, panel: int, title: str, report: dict) -> None:
    """A title, the column names, a row for each position and one for all."""
    top, balance = sheet.panel_top(panel), report["balance"]
    room = image.shape[1] - 2 * MARGIN
    _write(image, title + _end_of(report["path"], room - _width(title, LARGE), LARGE), (MARGIN, top + 17), LARGE)
    mean = figure(balance["overall"]["kl_mean"])
    target = _end_of(report["target"], room // 2, SMALL)
    said = f"{report['kind']} of {report['plates']:,} plates; on average {mean} bits a character from {target}"
    _write(image, said, (MARGIN, top + 40), SMALL, FAINT)
    _column_names(image, sheet, top + PANEL_TITLE + HEADER - 8)
    for number, row in enumerate(balance["positions"]):
        _row(image, sheet, (panel, number), str(row["position"]), row)
    _row(image, sheet, (panel, len(balance["positions"])), "all", balance["overall"])


def _column_names(image: np.ndarray, sheet: Sheet, base: int) -> None:
    _write(image, "position", (MARGIN, base), SMALL, FAINT)
    for number, character in enumerate(sheet.characters):
        _write(image, character, (sheet.column(number) + sheet.cell_width // 2, base), NORMAL, align="centre")
    for right, name in zip(_figure_edges(sheet), FIGURES):
        name = {"gini": "Gini", "kl": "KL, bits"}.get(name, name)
        _write(image, name, (right, base), SMALL, FAINT, "right")


def _figure_edges(sheet: Sheet) -> list[int]:
    """Right edges of the columns at a row's end."""
    return (sheet.figures_left + np.cumsum(FIGURE_WIDTHS)).tolist()


def _row(image: np.ndarray, sheet: Sheet, place: tuple[int, int], name: str, row: dict) -> None:
    """place: panel and row."""
    base = sheet.row(*place) + HEIGHT - 9
    _write(image, name, (MARGIN + NAMES - GAP, base), NORMAL, align="right")
    for character in sheet.characters:
        box = image[sheet.cell(*place, character)]
        if character in row["counts"]:
            _cell(box, row["counts"][character], row["expected"][character])
        else:
            box[:] = EMPTY
    for right, text in zip(_figure_edges(sheet), figures(row)):
        _write(image, text, (right, base), SMALL, align="right")


def _cell(box: np.ndarray, count: int, expected: float) -> None:
    """Fills the box, uint8 (h, w, 3): crossed where nothing is, framed where nothing is wanted."""
    height, width = box.shape[:2]
    if not count:
        _cross(box, UNFINISHED if expected >= 1 else PALE)
        return
    fill = colour(count / expected) if expected else _viridis()[-1]
    box[:] = fill
    if not expected:
        _frame(box, UNFINISHED, 2)
    ink = PAPER if np.dot(fill, (0.299, 0.587, 0.114)) < 128 else INK
    text = next((t for t in _spellings(count) if _width(t, SMALLEST) <= width - 2), "")
    _write(box, text, (width // 2, height // 2 + 4), SMALLEST, ink, "centre")


def _cross(box: np.ndarray, ink: Colour) -> None:
    """An empty box with two crossing lines and a thin edge."""
    height, width = box.shape[:2]
    box[:] = PAPER
    _frame(box, EDGE, 1)
    middle, arm = (width // 2, height // 2), 5
    for sign in (1, -1):
        ends = [(middle[0] - arm, middle[1] - sign * arm), (middle[0] + arm, middle[1] + sign * arm)]
        _line(box, *ends, ink)


def _line(box: np.ndarray, start: tuple[int, int], end: tuple[int, int], ink: Colour) -> None:
    pixels = np.ascontiguousarray(box)  # OpenCV draws on whole arrays only
    cv2.line(pixels, start, end, ink, 2, cv2.LINE_AA)
    box[:] = pixels


def _frame(box: np.ndarray, ink: Colour, thickness: int) -> None:
    box[:thickness] = box[-thickness:] = ink
    box[:, :thickness] = box[:, -thickness:] = ink


def _spellings(count: int) -> list[str]:
    """A count in figures, and shorter: 12345 is 12,345, 12345 or 12k."""
    short = next((f"{count / size:.0f}{unit}" for size, unit in ((10**6, "M"), (10**3, "k")) if count >= size), "")
    return [f"{count:,}", f"{count}", short]


def _legend(image: np.ndarray, sheet: Sheet, report: dict) -> None:
    """The scale with its figures, the marks, and what the figures at the row ends mean."""
    top, target = sheet.legend_top, _end_of(report["target"], 320, SMALL)
    _write(image, "count, as a multiple of the wanted one", (MARGIN, top + 12), SMALL, FAINT)
    _scale(image, (MARGIN + 14, top + 24))
    _marks(image, (MARGIN + 430, top + 4), report)
    lines = (
        "absent: characters of the alphabet that never stand there. max/min, entropy and Gini are 1, 1 and 0 where",
        f"digits, letters and provinces are evenly spread. KL: bits from what is wanted ({target}), 0 where it is met.",
    )
    for number, line in enumerate(lines):
        _write(image, line, (MARGIN, top + 100 + 19 * number), SMALL, FAINT)


def _scale(image: np.ndarray, corner: tuple[int, int], width: int = 361) -> None:
    """All colours side by side with the multiples they stand for. corner: left and top."""
    left, top = corner
    image[top : top + 18, left : left + width] = [colour(2 ** (DOUBLINGS * x)) for x in np.linspace(-1, 1, width)]
    for step in range(-DOUBLINGS, DOUBLINGS + 1):
        x = left + round((step / DOUBLINGS + 1) / 2 * (width - 1))
        image[top + 18 : top + 23, x] = FAINT
        multiple = f"1/{2**-step}" if step < 0 else f"{2**step}"
        beyond = {-DOUBLINGS: "≤ ", DOUBLINGS: "≥ "}.get(step, "")
        _write(image, beyond + multiple, (x, top + 38), SMALL, align="centre")


def _marks(image: np.ndarray, corner: tuple[int, int], report: dict) -> None:
    """Samples of cells that need words. corner: left and top."""
    samples = [
        ("never seen", 0, 1.0),
        ("never seen, less than one wanted", 0, 0.5),
        ("not in the position's alphabet", None, 0.0),
    ]
    if any(n and not row["expected"][c] for row in _rows(report) for c, n in row["counts"].items()):
        samples.append(("seen, not wanted", 1, 0.0))
    for number, (meaning, count, expected) in enumerate(samples):
        left, top = corner[0] + number // 2 * 310, corner[1] + number % 2 * (HEIGHT + 8)
        box = image[top : top + HEIGHT - 1, left : left + NARROWEST - 1]
        if count is None:
            box[:] = EMPTY
        else:
            _cell(box, count, expected)
        _write(image, meaning, (left + NARROWEST + 8, top + HEIGHT - 9), SMALL)


def _rows(report: dict) -> list[dict]:
    """All rows that are drawn."""
    balances = [part["balance"] for _, part in _panels(report)]
    return [row for balance in balances for row in (*balance["positions"], balance["overall"])]


@cache
def _face():
    return cv2.FontFace("uni")  # OpenCV's own; it has every province


def _width(text: str, size: int) -> int:
    return cv2.getTextSize((1, 1), text, (0, 0), _face(), size)[2]


def _end_of(path: str, room: int, size: int) -> str:
    """As much of a path's end as `room` pixels hold; bytes that are no text are question marks."""
    path = path.encode(errors="replace").decode()
    if _width(path, size) <= room:
        return path
    return next(short for n in range(1, len(path) + 1) if _width(short := "..." + path[n:], size) <= room)


def _write(
    image: np.ndarray, text: str, place: tuple[int, int], size: int, ink: Colour = INK, align: str = "left"
) -> None:
    """Writes on uint8 (H, W, 3). place: x of the left edge, the centre or the right edge, and y of the baseline."""
    if not text:
        return
    x = place[0] - {"left": 0, "centre": _width(text, size) / 2, "right": _width(text, size)}[align]
    pixels = np.ascontiguousarray(image)
    cv2.putText(pixels, text, (round(x), place[1]), ink, _face(), size, 0)
    if pixels is not image:
        image[:] = pixels
