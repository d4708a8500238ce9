"""Texts longer or shorter than the plate they are written on: which plates have room for them, and what they spell.

The generator keeps the distance of neighbours and the row's middle (`models.spg`). So a plate takes another length where
its characters stand evenly in one row, with nothing printed among them, and a longer row ends on the plate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from platemint.pipeline.alignment import Standing, pitch
from platemint.pipeline.networks import batched
from platemint.pipeline.plate import LONGEST, PROVINCES, SEPARATORS, Group, Plate, PlatemintError
from platemint.pipeline.recipe import GenerateRecipe
from platemint.pipeline.render.layout import Layout
from platemint.pipeline.render.photo import cells

EVEN = 1.45  # times their usual distance: neighbours further apart have something between them, or may have
FEWEST = 3  # characters of a text
EDGE = 0.02  # of a plate's width: so near to its sides no character ends
DRAWN = set(SEPARATORS) - {" "}
NO_ROOM = -1


def respelled(positions: tuple[str, ...], difference: int) -> tuple[str, ...]:
    """The positions with so many more, or fewer: the longest run of one alphabet grows or shrinks, the last of several.

    () where the text would have fewer than `FEWEST` characters or more than LONGEST, or the run would vanish.
    """
    runs = [[alphabet, len([*some])] for alphabet, some in groupby(positions)]
    longest = max((run for run in reversed(runs) if len(run[0]) > 1), key=lambda run: run[1], default=["", 0])
    longest[1] += difference
    new = tuple(alphabet for alphabet, n in runs for _ in range(n))
    characters = sum(p not in SEPARATORS for p in new)
    return new if longest[1] >= 1 and characters >= FEWEST and len(new) <= LONGEST else ()


def room(text: str, standing: Standing | None) -> int:
    """How many characters more than its text a plate has room for; NO_ROOM where it takes no other length, shorter or longer.

    standing: of the text's characters.
    """
    if (
        standing is None
        or standing.lower.any()
        or len(standing.places) < 2
        or DRAWN & set(text)
        or text[0] in PROVINCES
    ):
        return NO_ROOM
    apart = np.diff(standing.places)
    return _between(standing.places, pitch(standing.places), float(apart.max()), EDGE, 1 - EDGE)


def room_of_layout(layout: Layout) -> int:
    """The same for plates drawn from a layout."""
    if len(layout.rows) > 1 or DRAWN & set(layout.pattern) or set(layout.alphabet(layout.pattern[0])) & set(PROVINCES):
        return NO_ROOM
    row = layout.rows[0]
    placed = cells(layout, "0" * len(layout.positions))
    places = np.array([c.x + c.width / 2 for c in placed if c.printed])
    left, right = 0.0, layout.size[0]
    for piece in layout.pieces:
        x, y, w, h = piece.box
        if y < row.top + row.height and row.top < y + h:
            if x + w / 2 < places[0]:
                left = max(left, x + w)
            elif x + w / 2 > places[-1]:
                right = min(right, x)
            else:
                return NO_ROOM
    edge = EDGE * layout.size[0]
    return _between(places, row.cell + row.gap, float(np.diff(places).max()), left + edge, right - edge)


def _between(places: np.ndarray, apart: float, widest: float, left: float, right: float) -> int:
    """How many characters more fit between two ends, around the same middle."""
    if widest > EVEN * apart:
        return NO_ROOM
    free = min(places[0] - left, right - places[-1]) - apart / 2
    return max(0, int(2 * free / apart))


def other_lengths(group: Group, lengths: dict[int, float], roomy: dict[int, int]) -> Iterator[Group]:
    """A group of the same sources for each other length: {difference: share}; roomy: how many have room for it.

    A share is of the texts of those that have room, so that none of them serves more often than the others.
    """
    for difference, share in lengths.items():
        positions = respelled(group.positions, difference)
        if positions and roomy[difference]:
            weight = group.weight * share * roomy[difference] / max(1, group.sources)
            yield replace(group, positions=positions, weight=weight, sources=roomy[difference], longer=difference)


def lengths_of(recipe: GenerateRecipe) -> dict[int, float]:
    """What a recipe wishes: {characters more: share of the texts}."""
    return {int(difference): share for difference, share in recipe.draw.lengths if share}


def fits(difference: int, room: int) -> bool:
    """Whether a plate of such room takes a text of so many characters more, or fewer."""
    return room != NO_ROOM and difference <= room


def with_lengths(sources, recipe: GenerateRecipe, where: Callable[[list[Plate]], Sequence[Standing | None]]):
    """A corpus's sources with a group for each other length after the groups they are of, which give up its share.

    where: the characters of plates stand (`Filter.standing`). Raises PlatemintError for a length that not one plate has
    room for.
    """
    lengths, groups, photos, more = lengths_of(recipe), [], [], []
    for number, group in enumerate(sources.groups):
        rooms = _rooms(sources, number, recipe, where)
        chosen = {d: tuple(p for p, n in zip(sources.photos[number], rooms) if fits(d, n)) for d in lengths}
        derived = [*other_lengths(group, lengths, {d: len(some) for d, some in chosen.items()})]
        more += [(other, chosen[other.longer]) for other in derived]
        groups.append(replace(group, weight=group.weight - sum(other.weight for other in derived)))
        photos.append(sources.photos[number])
    refuse_unmet(lengths, [group for group, _ in more], recipe.source.path)
    return replace(
        sources,
        groups=(*groups, *(group for group, _ in more)),
        photos=(*photos, *(some for _, some in more)),
    )


def _rooms(sources, group: int, recipe: GenerateRecipe, where) -> list[int]:
    """The room of each photograph of a group."""
    rooms: list[int] = []
    for turns in batched(range(len(sources.photos[group])), recipe.edit.batch):
        plates = [sources.get(group, turn) for turn in turns]
        rooms += [room(plate.text, standing) for plate, standing in zip(plates, where(plates))]
    return rooms


def refuse_unmet(lengths: dict[int, float], groups: Sequence[Group], of: str) -> None:
    """Raises PlatemintError for a length that no group has."""
    if unmet := lengths.keys() - {group.longer for group in groups}:
        raise PlatemintError(
            f"draw.lengths: {', '.join(f'{d:+d}' for d in sorted(unmet))}: not one plate of {of or 'the layouts'} has room "
            "for it: characters have to stand evenly in one row, with nothing printed among them, and end on the plate; "
            "leave it out"
        )


def rendered_lengths(groups: Sequence[Group], layouts: dict[str, Layout], recipe: GenerateRecipe) -> tuple[Group, ...]:
    """The groups of rendered plates, and one for each other length after them.

    Raises PlatemintError for a length that not one layout has room for.
    """
    lengths, kept, more = lengths_of(recipe), [], []
    rooms = {name: room_of_layout(layout) for name, layout in layouts.items()}
    for group in groups:
        derived = [
            replace(other, sources=0)
            for other in other_lengths(group, lengths, {d: fits(d, rooms[group.layout]) for d in lengths})
        ]
        kept.append(replace(group, weight=group.weight - sum(other.weight for other in derived)))
        more += derived
    refuse_unmet(lengths, more, "")
    return (*kept, *more)
