"""The balance of a corpus as a picture: a row per position, a column per character, colour for how often it is there.

Colour shows a count as a multiple of the wanted one, on the same fixed scale in every picture: a doubling is the same
step anywhere. Viridis keeps its order for colour-blind eyes and in print without colour. Drawn by matplotlib; what its
font does not have, such as provinces, is drawn by OpenCV's, which needs no font to be installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Patch, Rectangle

from platemint.pipeline.plate import kind_of
from platemint.pipeline.report.inspect import FIGURES, figure, figures

DOUBLINGS = 3  # the scale goes from an eighth of the wanted count to eight times it
GAP = 0.25  # cells: between digits, letters and provinces, and above the row of all positions

DPI = 72  # so that a point is a pixel
CELL, MARGIN, NAMES, HEADER = 28, 28, 56, 84  # pixels: of a cell; page margin, row names, title and column names
LEGEND, NARROWEST = 150, 1040  # pixels: the legend's height, the least width of the page
FIGURE_WIDTHS = (76, 58, 72, 68, 58, 62)  # pixels, of the columns at a row's end
SMALLEST, SMALL, NORMAL, LARGE = 10, 12, 14, 17  # pixels: font sizes

PAPER, INK, FAINT, EMPTY, PALE = "#ffffff", "#222222", "#696969", "#f0f0f0", "#afafaf"
UNFINISHED = "#d55e00"  # vermilion of Okabe and Ito's palette: not on the scale, and apart from it for all eyes
SCALE = ScalarMappable(LogNorm(2.0**-DOUBLINGS, 2.0**DOUBLINGS, clip=True), "viridis")


def draw(report: dict) -> np.ndarray:
    """The balance of a report of `inspect`, or two balances where it was made against another: uint8 (H, W, 3) RGB."""
    canvas = FigureCanvasAgg(figure_of(report))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def figure_of(report: dict) -> Figure:
    """The same as a figure: first the axes of each panel, in cells (`columns`; rows from 0 down), then the scale's."""
    panels = [("before: ", report["against"]), ("after: ", report)] if "against" in report else [("", report)]
    heights = [HEADER + round((len(part["balance"]["positions"]) + 1 + GAP) * CELL) for _, part in panels]
    cells = max([0.0, *(left + 1 for left in columns(report["characters"]).values())])
    width = max(NARROWEST, round(cells * CELL) + 2 * MARGIN + NAMES + sum(FIGURE_WIDTHS))
    height = sum(heights) + (len(panels) + 1) * MARGIN + LEGEND
    with style.context("default"):  # whatever the user's own style is
        page = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
        top = 0
        for (title, part), tall in zip(panels, heights):
            top += MARGIN
            axes = _axes(page, (MARGIN + NAMES, top + HEADER, round(max(cells, 1) * CELL), tall - HEADER))
            axes.set(xlim=(0, max(cells, 1)), ylim=((tall - HEADER) / CELL, 0))
            _panel(axes, title, part, report["characters"])
            top += tall
        _legend(page, report, panels, top + MARGIN)
    return page


def columns(characters: str) -> dict[str, float]:
    """Left edge of each character's column, in cells."""
    kinds = [kind_of(c) for c in characters]
    gaps = np.cumsum([0, *(GAP * (a != b) for a, b in pairwise(kinds))])
    return {c: number + float(gap) for number, (c, gap) in enumerate(zip(characters, gaps))}


def colour(multiple: float) -> tuple[int, int, int]:
    """Of a count that is `multiple` (> 0) times the wanted one: red, green, blue, 0..255."""
    red, green, blue, _ = SCALE.to_rgba(np.array([multiple]), bytes=True)[0].tolist()
    return red, green, blue


def _axes(page: Figure, place: tuple[int, int, int, int]) -> Axes:
    """place: left, top, width and height in pixels."""
    left, top, width, height = place
    across, down = page.get_size_inches() * DPI
    axes = page.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_axis_off()
    return axes


def _panel(axes: Axes, title: str, report: dict, characters: str) -> None:
    """A title, the column names, a row for each position and one for all."""
    balance, left = report["balance"], -(NAMES / CELL)
    mean, room = figure(balance["overall"]["kl_mean"]), int(axes.figure.bbox.width) - 2 * MARGIN
    target = _end_of(report["target"], room // 3, SMALL)
    said = f"{report['kind']} of {report['plates']:,} plates; on average {mean} bits a character from {target}"
    _write(axes, title + _end_of(report["path"], room - 4 * LARGE, LARGE), (left, -2.4), LARGE)
    _write(axes, said, (left, -1.6), SMALL, FAINT)
    _write(axes, "position", (left, -0.3), SMALL, FAINT)
    place = columns(characters)
    for character, x in place.items():
        _write(axes, character, (x + 0.5, -0.3), NORMAL, align="center")
    for x, name in zip(_figure_edges(axes), FIGURES):
        _write(axes, {"gini": "Gini", "kl": "KL, bits"}.get(name, name), (x, -0.3), SMALL, FAINT, "right")
    rows = [(float(number), str(row["position"]), row) for number, row in enumerate(balance["positions"])]
    rows.append((len(rows) + GAP, "all", balance["overall"]))
    for y, name, row in rows:
        _write(axes, name, (-0.4, y + 0.67), NORMAL, align="right")
        for x, text in zip(_figure_edges(axes), figures(row)):
            _write(axes, text, (x, y + 0.67), SMALL, align="right")
    _cells(
        axes, [((x, y), row["counts"].get(c), row["expected"].get(c)) for y, _, row in rows for c, x in place.items()]
    )


def _figure_edges(axes: Axes) -> list[float]:
    """Right edges of the columns at a row's end, in cells."""
    return (axes.get_xlim()[1] + np.cumsum(FIGURE_WIDTHS) / CELL).tolist()


def _square(corner: tuple[float, float], fill: str, inset: float = 0) -> Rectangle:
    """A cell but for a pixel between neighbours. inset: pixels left free all around."""
    (x, y), side = corner, (CELL - 1 - 2 * inset) / CELL
    return Rectangle((x + inset / CELL, y + inset / CELL), side, side, facecolor=fill, linewidth=0, antialiased=False)


def _cells(axes: Axes, cells: list[tuple[tuple[float, float], int | None, float | None]]) -> None:
    """Corner, count and wanted count of each, None outside the alphabet. A cross stands where nothing is."""
    axes.add_collection(PatchCollection([p for c in cells for p in _filled(*c)], match_original=True), autolim=False)
    for (x, y), count, expected in cells:
        if count:
            ink = PAPER if np.dot(_fill(count, expected), (0.299, 0.587, 0.114)) < 128 else INK
            text = next((t for t in _spellings(count) if 0.65 * SMALLEST * len(t) < CELL), "")  # a figure: 0.64 em
            _write(axes, text, (x + 0.5, y + 0.63), SMALLEST, ink, "center")
    for ink in (UNFINISHED, PALE):
        unseen = [c for c, count, expected in cells if count == 0 and (expected >= 1) == (ink == UNFINISHED)]
        axes.plot([x + 0.5 for x, _ in unseen], [y + 0.5 for _, y in unseen], **_cross(ink))


def _filled(corner: tuple[float, float], count: int | None, expected: float | None) -> Iterator[Rectangle]:
    """What a cell is filled with: framed where nothing is wanted."""
    if count is None:
        yield _square(corner, EMPTY)
    elif count:
        yield _square(corner, UNFINISHED)
        yield _square(corner, f"#{bytes(_fill(count, expected)).hex()}", inset=0 if expected else 2)


def _fill(count: int, expected: float | None) -> tuple[int, int, int]:
    return colour(count / expected if expected else 2.0**DOUBLINGS)


def _cross(ink: str) -> dict:
    return {"marker": "x", "color": ink, "markersize": 9, "markeredgewidth": 2, "linestyle": ""}


def _spellings(count: int) -> list[str]:
    """A count in figures, and shorter: 12345 is 12,345, 12345 or 12k."""
    short = next((f"{count / size:.0f}{unit}" for size, unit in ((10**6, "M"), (10**3, "k")) if count >= size), "")
    return [f"{count:,}", f"{count}", short]


def _legend(page: Figure, report: dict, panels: list[tuple[str, dict]], top: int) -> None:
    """The scale with its figures, the marks, and what the figures at the row ends mean. top: in pixels."""
    across, down = page.get_size_inches() * DPI
    steps = range(-DOUBLINGS, DOUBLINGS + 1)
    names = [f"1/{2**-step}" if step < 0 else f"{2**step}" for step in steps]
    scale = _axes(page, (MARGIN + 14, top + 22, 361, 18))
    scale.set_axis_on()
    bar = page.colorbar(SCALE, cax=scale, orientation="horizontal", ticks=[2.0**step for step in steps])
    bar.minorticks_off()
    bar.ax.set_xticklabels([f"≤ {names[0]}", *names[1:-1], f"≥ {names[-1]}"], size=SMALL)
    bar.outline.set_visible(False)
    marks: dict[str, Artist] = {
        "never seen": Line2D([], [], **_cross(UNFINISHED)),
        "never seen, less than one wanted": Line2D([], [], **_cross(PALE)),
        "not in the position's alphabet": Patch(facecolor=EMPTY),
    }
    if any(n and not row["expected"][c] for row in _rows(panels) for c, n in row["counts"].items()):
        brightest = f"#{bytes(colour(2.0**DOUBLINGS)).hex()}"
        marks["seen, not wanted"] = Patch(facecolor=brightest, edgecolor=UNFINISHED, linewidth=2)
    page.legend(
        marks.values(),
        marks.keys(),
        loc="upper left",
        bbox_to_anchor=((MARGIN + 420) / across, 1 - top / down),
        ncols=2,
        frameon=False,
        fontsize=SMALL,
        borderpad=0,
        handleheight=1.5,
    )
    target = _end_of(report["target"], 320, SMALL)
    lines = (
        (0, "count, as a multiple of the wanted one"),
        (
            90,
            "absent: characters of the alphabet that never stand there. max/min, entropy and Gini are 1, 1 and 0 where",
        ),
        (
            109,
            f"digits, letters and provinces are evenly spread. KL: bits from what is wanted ({target}), 0 where it is met.",
        ),
    )
    notes = _axes(page, (0, top, int(across), LEGEND))
    notes.set(xlim=(0, across), ylim=(LEGEND, 0))
    for y, line in lines:
        _write(notes, line, (MARGIN, y + 12), SMALL, FAINT)


def _rows(panels: list[tuple[str, dict]]) -> list[dict]:
    """All rows that are drawn."""
    balances = [part["balance"] for _, part in panels]
    return [row for balance in balances for row in (*balance["positions"], balance["overall"])]


def _end_of(text: str, room: int, size: int) -> str:
    """As much of its end as `room` pixels hold, a character being no wider than high; what is no text is a ?."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    most = room // size
    return text if len(text) <= most else "..." + text[len(text) - most + 3 :]


def _write(axes: Axes, text: str, place: tuple[float, float], size: int, ink: str = INK, align: str = "left") -> None:
    """Writes beside what is drawn. place: the left edge, the centre or the right edge, and the baseline."""
    if set(map(ord, text)) <= _known():
        axes.text(*place, text, size=size, color=ink, ha=align, va="baseline", parse_math=False)
        return
    picture, below = _by_opencv(text, size, ink)
    anchor = {"left": 0.0, "center": 0.5, "right": 1.0}[align], below
    box = AnnotationBbox(OffsetImage(picture), place, frameon=False, pad=0, box_alignment=anchor, annotation_clip=False)
    axes.add_artist(box)


@cache
def _known() -> frozenset[int]:
    """The code points of matplotlib's own font."""
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def _by_opencv(text: str, size: int, ink: str) -> tuple[np.ndarray, float]:
    """A line of text, uint8 (h, w, 4) RGBA, and how much of its height is below the baseline, 0..1."""
    face, base, height = cv2.FontFace("uni"), round(1.1 * size), round(1.5 * size)
    width = cv2.getTextSize((1, 1), text, (0, 0), face, size)[2]
    coverage = np.zeros((height, width + 2), np.uint8)
    cv2.putText(coverage, text, (1, base), (255,), face, size, 0)
    picture = np.empty((*coverage.shape, 4), np.uint8)
    picture[..., :3] = [int(ink[i : i + 2], 16) for i in (1, 3, 5)]
    picture[..., 3] = coverage
    return picture, 1 - base / height
