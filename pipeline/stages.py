"""The stages of a run: sources, what is demanded of their characters, and the networks that edit and judge."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from platemint.pipeline import storage
from platemint.pipeline.balance.quotas import Demand, had
from platemint.pipeline.balance.shares import read_target
from platemint.pipeline.plate import Plate, PlatemintError
from platemint.pipeline.recipe import GenerateRecipe


class Stages:
    """What plates of a run go through. Each stage is built when first used: loading networks takes seconds.

    sources_file, references_file: where a worker process finds the photographs of a corpus, and the glyphs on them;
    None: they are opened from the recipe.
    """

    def __init__(self, recipe: GenerateRecipe):
        self.recipe = recipe
        self.sources_file: Path | None = None
        self.references_file: Path | None = None

    def for_recipe(self, recipe: GenerateRecipe) -> Stages:
        """The same stages for a recipe of another count: sources and networks are not opened twice."""
        other = type(self)(recipe)
        other.__dict__.update({name: value for name, value in self.__dict__.items() if name != "recipe"})
        return other

    @cached_property
    def sources(self):
        """CorpusSources or RenderedSources. Raises PlatemintError for a corpus without any usable plate."""
        from platemint.pipeline.sample import CorpusSources, tried

        sources = self._untried
        if self.sources_file or not (self.recipe.source.tries and isinstance(sources, CorpusSources)):
            return sources
        return tried(sources, self.recipe, lambda plates: self.filter(self.edit(plates)))

    @cached_property
    def _untried(self):
        """The sources, before any that take no text are left out."""
        from platemint.pipeline.sample import CorpusSources, open_sources

        return CorpusSources.read(self.sources_file) if self.sources_file else open_sources(self.recipe)

    @cached_property
    def references(self):
        """How a corpus's plates draw their characters; None for rendered ones, whose typefaces are known."""
        from platemint.pipeline.networks import load_network
        from platemint.pipeline.references import MOST_PLATES, References

        if not self.recipe.source.path:
            return None
        if self.references_file:
            return References.read(self.references_file)
        reader = load_network(self.recipe.edit.reader, "reader", self.recipe.edit)
        return self._editor.collected(self._untried.some(MOST_PLATES), reader)

    @cached_property
    def demand(self) -> Demand:
        """How often characters shall come. Raises PlatemintError for a table that cannot be read."""
        balance, have = self.recipe.balance, {}
        if balance.top_up:
            texts = [[photo.text for photo in photos] for photos in self.sources.photos]
            have = had(self.sources.groups, texts, balance)
        return Demand(balance, read_target(balance.target), have)

    @cached_property
    def checkpoints(self) -> dict[str, str]:
        """sha256 of each network's file. Raises PlatemintError where there is none."""
        from platemint.models.checkpoint import CheckpointError, find

        found = {}
        for field in ("checkpoint", "reader"):
            name = getattr(self.recipe.edit, field)
            try:
                found[name] = storage.sha256(find(name).read_bytes())
            except CheckpointError as error:
                raise PlatemintError(f"edit.{field}: {error}") from error
        return found

    @cached_property
    def device(self) -> str:
        """The kind of device and the precision, on which bytes depend: "cpu bfloat16". Raises where it is not there."""
        from platemint.pipeline.networks import choose_device

        device, dtype = choose_device(self.recipe.edit)
        return f"{device.type} {str(dtype).removeprefix('torch.')}"

    @cached_property
    def gpus(self) -> int:
        """How many GPUs the recipe's device leaves to choose from: 0 where the networks run on the CPU."""
        from platemint.pipeline.networks import gpus

        return gpus(self.recipe.edit)

    def ready(self) -> None:
        """Loads the networks. Raises PlatemintError, before anything is written, where one cannot be."""
        _ = self.checkpoints, self.device, self.edit, self.filter

    def __getstate__(self) -> dict:
        """Without networks and sources: a process that runs shards opens its own, and is sent little."""
        own = ("edit", "_editor", "filter", "sources", "_untried", "references")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    @cached_property
    def edit(self) -> Callable[[list[Plate]], list[Plate]]:
        """Plates with a target -> plates that say it."""
        self._editor.references = self.references
        return self._editor

    @cached_property
    def _editor(self):
        from platemint.pipeline.edit import Editor

        return Editor(self.recipe.edit)

    @cached_property
    def filter(self) -> Callable[[list[Plate]], list[Plate]]:
        """Edited plates -> the same with scores, and with the reason where one is rejected."""
        from platemint.pipeline.filter import Filter

        return Filter(self.recipe.filter, self.recipe.edit)
