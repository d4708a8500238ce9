"""Texts longer or shorter than the plate they are written on: which plates have room for them, and what they spell.

The generator keeps the distance of neighbours and the row's middle (`models.spg`). So a row grows at both ends alike: with
two characters more or fewer all others stand where characters stood, with one they stand between, where nothing else may
be. A plate takes another length where it has one row, a longer one ends before the plate does, and nothing comes to
stand on an emblem or a dash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from platemint.pipeline.alignment import Standing, pitch
from platemint.pipeline.networks import batched
from platemint.pipeline.plate import LONGEST, PROVINCES, SEPARATORS, Group, Plate, PlatemintError
from platemint.pipeline.recipe import GenerateRecipe
from platemint.pipeline.render.layout import Layout
from platemint.pipeline.render.photo import character_boxes

EVEN = 1.45  # times their usual distance: neighbours further apart have something between them, or may have
FEWEST = 4  # characters of a text: networks are trained on no shorter ones
EDGE = 0.02  # of a plate's width: so near to its sides no character ends
DRAWN = set(SEPARATORS) - {" "}


def respelled(positions: tuple[str, ...], difference: int) -> tuple[str, ...]:
    """The positions with so many more, or fewer: the longest run of one alphabet grows or shrinks, the last of several.

    () where the text would have fewer than `FEWEST` characters or more than LONGEST, or the run would vanish.
    """
    runs = [(alphabet, len([*some])) for alphabet, some in groupby(positions)]
    length, chosen = max(((n, i) for i, (alphabet, n) in enumerate(runs) if len(alphabet) > 1), default=(0, -1))
    new = tuple(a for i, (a, n) in enumerate(runs) for _ in range(n + difference * (i == chosen)))
    characters = sum(p not in SEPARATORS for p in new)
    return new if length + difference >= 1 and characters >= FEWEST and len(new) <= LONGEST else ()


@dataclass(frozen=True)
class Room:
    """What a plate has room for. longer: so many characters more, at most; even: nothing stands among its characters."""

    longer: int
    even: bool

    def takes(self, difference: int) -> bool:
        """Whether the plate takes a text of so many characters more, or fewer."""
        return difference <= self.longer and (self.even or difference % 2 == 0)


NO_ROOM = Room(-LONGEST, False)


def room(text: str, standing: Standing | None) -> Room:
    """What the plate of a text has room for; NO_ROOM where it takes no other length. standing: of its characters."""
    if (
        standing is None
        or standing.lower.any()
        or len(standing.places) < 2
        or DRAWN & set(text)
        or text[0] in PROVINCES
    ):
        return NO_ROOM
    places = standing.places
    return _between(places, pitch(places), float(np.diff(places).max()), EDGE, 1 - EDGE)


def room_of_layout(layout: Layout) -> Room:
    """The same for plates drawn from a layout."""
    if len(layout.rows) > 1 or set(layout.alphabet(layout.pattern[0])) & set(PROVINCES):
        return NO_ROOM
    row = layout.rows[0]
    placed = [c for c in character_boxes(layout, "0" * len(layout.positions)) if c.printed]
    places = np.array([c.x + c.width / 2 for c in placed])
    edge = EDGE * layout.size[0]
    beside = [
        (x, x + w) for x, y, w, h in (p.box for p in layout.pieces) if y < row.top + row.height and row.top < y + h
    ]
    left = max([edge, *(end for start, end in beside if end <= placed[0].x)])
    right = min([layout.size[0] - edge, *(start for start, end in beside if start >= placed[-1].x + placed[-1].width)])
    return _between(places, row.cell + row.gap, float(np.diff(places).max()), left, right)


def _between(places: np.ndarray, apart: float, widest: float, left: float, right: float) -> Room:
    """The room of a row around the same middle, between two ends."""
    free = min(places[0] - left, right - places[-1]) - apart / 2
    return Room(max(0, int(2 * free / apart)), widest <= EVEN * apart)


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


def with_lengths(sources, recipe: GenerateRecipe, where: Callable[[list[Plate]], Sequence[Standing | None]]):
    """A corpus's sources with a group for each other length after the groups they are of, which give up its share.

    where: the characters of plates stand (`Filter.standing`). Raises PlatemintError for a length that not one plate has
    room for.
    """
    lengths, groups, more = lengths_of(recipe), [], []
    for number, group in enumerate(sources.groups):
        rooms = _rooms(sources, number, recipe, where)
        chosen = {d: tuple(p for p, room in zip(sources.photos[number], rooms) if room.takes(d)) for d in lengths}
        derived = [*other_lengths(group, lengths, {d: len(some) for d, some in chosen.items()})]
        more += [(other, chosen[other.longer]) for other in derived]
        groups.append(_less(group, derived))
    refuse_unmet(lengths, [group for group, _ in more], recipe.source.path)
    return replace(
        sources,
        groups=(*groups, *(group for group, _ in more)),
        photos=(*sources.photos, *(some for _, some in more)),
    )


def _rooms(sources, group: int, recipe: GenerateRecipe, where) -> list[Room]:
    """The room of each photograph of a group."""
    rooms: list[Room] = []
    for turns in batched(range(len(sources.photos[group])), recipe.edit.batch):
        plates = [sources.get(group, turn) for turn in turns]
        rooms += [room(plate.text, standing) for plate, standing in zip(plates, where(plates))]
    return rooms


def _less(group: Group, derived: Sequence[Group]) -> Group:
    """A group without the share of those derived from it."""
    return replace(group, weight=group.weight - sum(other.weight for other in derived))


def rendered_lengths(groups: Sequence[Group], layouts: dict[str, Layout], recipe: GenerateRecipe) -> tuple[Group, ...]:
    """The groups of rendered plates, and one for each other length after them.

    Raises PlatemintError for a length that not one layout has room for.
    """
    lengths, kept, more = lengths_of(recipe), [], []
    rooms = {name: room_of_layout(layout) for name, layout in layouts.items()}
    for group in groups:
        roomy = {d: int(rooms[group.layout].takes(d)) for d in lengths}
        derived = [replace(other, sources=0) for other in other_lengths(group, lengths, roomy)]
        kept.append(_less(group, derived))
        more += derived
    refuse_unmet(lengths, more, "the layouts")
    return (*kept, *more)


def refuse_unmet(lengths: dict[int, float], groups: Sequence[Group], of: str) -> None:
    """Raises PlatemintError for a length that no group has."""
    if unmet := lengths.keys() - {group.longer for group in groups}:
        raise PlatemintError(
            f"draw.lengths: {', '.join(f'{d:+d}' for d in sorted(unmet))}: not one plate of {of} has room for it: it takes "
            "one row that ends on the plate and, where one character more or fewer is asked, nothing among the "
            "characters; leave it out"
        )
