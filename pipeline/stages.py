"""The stages of a run: sources, what is demanded of their characters, and the networks that edit and judge."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TextIO

from platemint.pipeline import storage
from platemint.pipeline.balance.quotas import Demand, had
from platemint.pipeline.balance.shares import read_target
from platemint.pipeline.object_store import ObjectPath
from platemint.pipeline.plate import Plate, PlatemintError
from platemint.pipeline.recipe import Edit, GenerateRecipe

if TYPE_CHECKING:
    from platemint.pipeline.edit import Editor
    from platemint.pipeline.filter import Filter
    from platemint.pipeline.references import References


class Stages:
    """What plates of a run go through. Each stage is built when first used: loading networks takes seconds.

    sources_file, references_file: where a worker process finds the photographs of a corpus, and the glyphs on them;
    None: they are opened from the recipe.
    holder: the record by which the run holds its folder (see `lock`), for whoever makes a shard to see that it still does.
    progress: a stream to say on how far the corpus has been looked at; None: nowhere.
    most_looked_at: photographs that are looked at for references, at most; fewer only to foretell how long a run takes.
    seconds_of_looks: what looking at all of them takes, by those that were.
    """

    progress: TextIO | None = None
    most_looked_at: int | None = None
    seconds_of_looks: float = 0.0

    def __init__(self, recipe: GenerateRecipe):
        self.recipe = recipe
        self.sources_file: Path | ObjectPath | None = None
        self.references_file: Path | ObjectPath | None = None
        self.holder: bytes | None = None

    def for_recipe(self, recipe: GenerateRecipe) -> Stages:
        """The same stages for a recipe of another count: sources and networks are not opened twice."""
        other = type(self)(recipe)
        other.__dict__.update({name: value for name, value in self.__dict__.items() if name != "recipe"})
        return other

    @cached_property
    def sources(self) -> Any:
        """CorpusSources, RenderedSources or a mix of them. Raises PlatemintError for a corpus without a usable plate."""
        from platemint.pipeline.corpora import here
        from platemint.pipeline.mix import MixedSources, mixed
        from platemint.pipeline.sample import CorpusSources

        if self.sources_file:
            file, recipe = self.sources_file, self.recipe
            for part in recipe.parts:  # another machine has not fetched them yet
                here(part.source.path)
            return MixedSources.read(file, recipe) if recipe.sources else CorpusSources.read(file)
        parts = [self._usable(*part) for part in zip(self._opened, self.recipe.parts)]
        return mixed(parts, self.recipe) if self.recipe.sources else parts[0]

    @cached_property
    def _opened(self) -> list:
        """The source of each part of the recipe, with all its plates."""
        from platemint.pipeline.mix import rendered
        from platemint.pipeline.sample import open_sources

        parts: list = []
        for part in self.recipe.parts:
            parts.append(open_sources(part, rendered(parts)))
        return parts

    def _usable(self, sources, recipe: GenerateRecipe):
        """The one source of a recipe, without plates that take no text, and with those that take other lengths."""
        from platemint.pipeline.lengths import with_lengths
        from platemint.pipeline.sample import CorpusSources, tried

        if recipe.source.tries and isinstance(sources, CorpusSources):
            sources = tried(sources, recipe, lambda plates: self.filter(self.edit(plates)))
        if recipe.source.path and recipe.draw.lengths:
            sources = with_lengths(sources, recipe, self.filter.standing)
        return sources

    @cached_property
    def references(self) -> References | None:
        """How the plates of corpora draw their characters; None for rendered ones, whose typefaces are known."""
        from platemint.pipeline.engines import threads
        from platemint.pipeline.networks import load_network
        from platemint.pipeline.progress import Count
        from platemint.pipeline.references import MOST_PLATES, References
        from platemint.pipeline.sample import CorpusSources

        if self.sources_file:
            return References.read(self.references_file) if self.references_file else None
        if self.recipe.edit.references == "none" or not any(part.source.path for part in self.recipe.parts):
            return None
        corpora = [part for part in self._opened if isinstance(part, CorpusSources)]
        every, some = (
            [min(most // len(corpora), sum(map(len, corpus.photos))) for corpus in corpora]
            for most in (MOST_PLATES, self.most_looked_at or MOST_PLATES)
        )
        plates = chain.from_iterable(corpus.some(most) for corpus, most in zip(corpora, some))
        reader = load_network(self.recipe.edit.reader, "reader", self.edit_options)
        looked_at = Count(sum(some), self.progress, "photographs looked at")
        start = perf_counter()
        found = self._editor.collected(looked_at.over(plates), reader, threads(1, self.recipe.edit.threads))
        self.seconds_of_looks = (perf_counter() - start) * sum(every) / max(1, sum(some))
        looked_at.tell(end=True)
        return found

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
        from platemint.models.checkpoint import CheckpointError, find_checkpoint

        found = {}
        for field in ("checkpoint", "reader", *(["finder"] if self.recipe.edit.find == "auto" else [])):
            name = getattr(self.recipe.edit, field)
            try:
                found[name] = storage.sha256(find_checkpoint(name).read_bytes())
            except CheckpointError as error:
                raise PlatemintError(f"edit.{field}: {error}") from error
        return found

    @cached_property
    def device(self) -> str:
        """The kind of device and the precision, on which bytes depend: "cpu bfloat16". Raises where it is not there."""
        return f"{self.edit_options.device} {self.edit_options.precision}"

    @cached_property
    def edit_options(self) -> Edit:
        """The recipe's, with the device and precision of the process that began the run: every other one takes the same."""
        from platemint.pipeline.networks import pinned

        return pinned(self.recipe.edit)

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
        own = ("edit", "_editor", "filter", "sources", "_opened", "references", "progress")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    @cached_property
    def edit(self) -> Callable[[list[Plate]], list[Plate]]:
        """Plates with a target -> plates that say it."""
        self._editor.references = self.references
        return self._editor

    @cached_property
    def _editor(self) -> Editor:
        from platemint.pipeline.edit import Editor

        return Editor(self.edit_options)

    @cached_property
    def filter(self) -> Filter:
        """Edited plates -> the same with scores, and with the reason where one is rejected."""
        from platemint.pipeline.filter import Filter

        made = Filter(self.recipe.filter, self.edit_options)
        made.references = self.references
        return made
