"""A mix: several sources in one run, corpora and rendered plates, each with its share; balance is over all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from platemint.pipeline import storage
from platemint.pipeline.object_store import ObjectPath
from platemint.pipeline.plate import Plate, PlatemintError
from platemint.pipeline.recipe import GenerateRecipe, shares_of
from platemint.pipeline.sample import CorpusSources, RenderedSources, SourcePhoto
from platemint.pipeline.storage import sha256

Sources = CorpusSources | RenderedSources


class MixedSources:
    """The groups of all parts, part by part; the same interface as CorpusSources.

    shares: of the run, of each part; they add up to 1.
    """

    def __init__(self, parts: Sequence[Sources], shares: Sequence[float]):
        self.parts = tuple(parts)
        self.groups = tuple(
            replace(group, weight=share * group.weight / sum(g.weight for g in part.groups))
            for part, share in zip(self.parts, shares)
            for group in part.groups
        )
        self.texts = frozenset().union(*(part.texts for part in self.parts))
        self.set_aside = [item for part in self.parts for item in part.set_aside]
        self.read_as = "; ".join(part.read_as or "rendered" for part in self.parts)
        self.fingerprint = sha256("\n".join(part.fingerprint for part in self.parts).encode())

    @cached_property
    def photos(self) -> tuple[tuple[SourcePhoto, ...], ...]:
        """Photographs of each group, none of one that is rendered."""
        return tuple(
            photos
            for part in self.parts
            for photos in (part.photos if isinstance(part, CorpusSources) else [()] * len(part.groups))
        )

    @cached_property
    def _home(self) -> list[tuple[Sources, int]]:
        """The part of each group, and the group's number there."""
        return [(part, number) for part in self.parts for number in range(len(part.groups))]

    def turn(self, group: int, index: int, round: int):
        """Which photograph is for a group's index-th target at its round-th attempt."""
        part, number = self._home[group]
        return part.turn(number, index, round)

    def get(self, group: int, turn) -> Plate:
        """A group's photograph by its number."""
        part, number = self._home[group]
        return part.get(number, turn)

    def write(self, path: Path | ObjectPath) -> None:
        """Writes what worker processes need of the corpora to a file."""
        stored = [part.stored() if isinstance(part, CorpusSources) else None for part in self.parts]
        storage.write(path, json.dumps(stored, default=str))

    @classmethod
    def read(cls, path: Path | ObjectPath, recipe: GenerateRecipe) -> MixedSources:
        """The sources that `write` has written; rendered ones are made from the recipe."""
        parts: list[Sources] = []
        for stored, part in zip(storage.read_json(path), recipe.parts):
            parts.append(CorpusSources.of_stored(stored) if stored else RenderedSources(part, rendered(parts)))
        return cls(parts, shares_of(recipe.sources))


def rendered(parts: Sequence[Sources]) -> int:
    """How many groups of the parts are rendered."""
    return sum(len(part.groups) for part in parts if isinstance(part, RenderedSources))


def mixed(parts: Sequence[Sources], recipe: GenerateRecipe) -> MixedSources:
    """The parts as one.

    A picture that stands in several corpora is the first one's, and a text that stands in several splits stays in the
    first one's: the others' are set aside. Raises PlatemintError where nothing of a part is left, and for a layout that two parts render.
    """
    kept: list[Sources] = []
    for part, source in zip(parts, recipe.sources):
        if isinstance(part, CorpusSources):
            part = part.apart_from([other for other in kept if isinstance(other, CorpusSources)])
            if not part.groups:
                raise PlatemintError(
                    f"sources: {source.path}: all its plates stand in the corpora before it: leave it out"
                )
        elif twice := _layouts([part]) & _layouts(kept):
            raise PlatemintError(
                f"sources: {', '.join(sorted(twice))}: is rendered by two of them: leave it out of one"
            )
        kept.append(part)
    return MixedSources(kept, shares_of(recipe.sources))


def _layouts(parts: Sequence[Sources]) -> set[str]:
    """The layouts that parts render."""
    return {group.layout for part in parts if isinstance(part, RenderedSources) for group in part.groups}
