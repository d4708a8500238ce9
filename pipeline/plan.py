"""What a run will do, decided before its first plate: groups, quotas, targets and shards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np

from platemint.pipeline import storage
from platemint.pipeline.balance.forbidden import forbidden_texts
from platemint.pipeline.balance.swaps import SwapRules
from platemint.pipeline.draw import Targets, draw_targets, quotas
from platemint.pipeline.plate import PlatemintError, Readings, SortedTexts, Taken
from platemint.pipeline.recipe import NOT_IN_HASH, recipe_hash
from platemint.pipeline.stages import Stages
from platemint.pipeline.versions import versions


@dataclass(frozen=True)
class Shard:
    """What one transaction writes, all of one split: edited plates, or the corpus's own ones as they are.

    index: int64 (n,), places of its targets among the run's. real: (number in the run, group, photograph) of each plate
    that is written as it is.
    """

    number: int
    split: str
    data: str
    index: np.ndarray
    targets: Targets
    real: tuple[tuple[int, int, int], ...] = ()

    @property
    def dropped(self) -> str:
        """Name of the file of rejected plates."""
        return f"dropped/{self.number:05d}.parquet"

    @property
    def commit(self) -> str:
        """Name of the record that makes the shard count."""
        return f"commits/{self.number:05d}.json"

    def part(self, places: np.ndarray | slice) -> Shard:
        """The shard with some of its targets only."""
        return replace(self, index=self.index[places], targets=take(self.targets, places))

    def facts(self) -> dict:
        """What plan.json says of it."""
        return {
            "data": self.data,
            "dropped": self.dropped,
            "commit": self.commit,
            "split": self.split,
            "targets": len(self.index),
            "targets_sha256": storage.sha256("\n".join(self.targets.text)),
            "real": len(self.real),
        }


def take(targets: Targets, places: np.ndarray | slice) -> Targets:
    """Some of the targets, in the order of `places`."""
    return Targets(targets.group[places], targets.text[places], targets.group_index[places])


@dataclass(frozen=True)
class Plan:
    """What a run will do. facts: what plan.json says of it.

    rules: for swaps of characters between texts; None where pairs are even, which swaps would undo.
    """

    facts: dict
    shards: list[Shard]
    rules: SwapRules | None


def make_plan(stages: Stages) -> Plan:
    """Draws every target of the run and cuts it into shards.

    Raises PlatemintError where the strings do not suffice, and for a balance that cannot be.
    """
    recipe, sources, demand = stages.recipe, stages.sources, stages.demand
    given = forbidden_texts(recipe.draw.forbid)
    forbidden = Readings(sources.texts | given)
    targets = draw_targets(sources.groups, recipe.count, recipe.seed, forbidden, recipe.draw.reserved, demand)
    shards = _cut(targets, [group.split for group in sources.groups], recipe.write.shard_rows)
    with_targets = len(shards)
    if recipe.write.real:
        shards += _real_shards(sources, len(shards), recipe.write.shard_rows)
    planned = np.bincount(targets.group, minlength=len(sources.groups)).tolist()
    facts = {
        "recipe_sha256": recipe_hash(recipe),
        "recipe": recipe.model_dump(mode="json", exclude=NOT_IN_HASH),
        "versions": versions(),
        "sources": sources.fingerprint,
        "set_aside": len(sources.set_aside),
        "groups": [asdict(group) | {"targets": n} for group, n in zip(sources.groups, planned)],
        "forbidden": {"texts": len(given), "sha256": storage.sha256("\n".join(sorted(given)))},
        "target": {"by_character": demand.target.by_character, "by_position": demand.target.by_position},
        "have": demand.have,
        "quotas": quotas(targets, sources.groups, demand),
        "shards": [shard.facts() for shard in shards],
    }
    taken = Taken(forbidden, frozenset(recipe.draw.reserved), SortedTexts(np.sort(targets.text)))
    rules = None if recipe.balance.pairs else SwapRules(taken, with_targets, recipe.seed)
    return Plan(json.loads(json.dumps(facts)), shards, rules)


def _cut(targets: Targets, splits: Sequence[str], rows: int) -> list[Shard]:
    """Shards of at most so many targets, in order and each of one split."""
    split = np.asarray(splits)[targets.group]
    shards = []
    for name in dict.fromkeys(splits):
        if not re.fullmatch(r"\w+", name):
            raise PlatemintError(f"split {name!r}: names files, so it must be of letters, digits and _: rename it")
        index = np.flatnonzero(split == name)
        pieces = [index[start : start + rows] for start in range(0, len(index), rows)]
        for k, piece in enumerate(pieces):
            data = f"data/{name}-{k:05d}-of-{len(pieces):05d}.parquet"
            shards.append(Shard(len(shards), name, data, piece, take(targets, piece)))
    return shards


def _real_shards(sources, number: int, rows: int) -> list[Shard]:
    """Shards of the corpus's own plates, numbered from `number` on."""
    plates: dict[str, list[tuple[int, int, int]]] = {}
    for group, photos in enumerate(sources.photos):
        for photo in range(len(photos)):
            some = plates.setdefault(sources.groups[group].split, [])
            some.append((len(some), group, photo))
    nothing = np.zeros(0, dtype=np.int64)
    shards = []
    for split, some in plates.items():
        pieces = [tuple(some[start : start + rows]) for start in range(0, len(some), rows)]
        for k, piece in enumerate(pieces):
            data = f"data/{split}-real-{k:05d}-of-{len(pieces):05d}.parquet"
            targets = Targets(nothing.astype(np.int32), nothing.astype(str), nothing)
            shards.append(Shard(number + len(shards), split, data, nothing, targets, piece))
    return shards


@contextmanager
def in_files(plan: Plan, stages: Stages) -> Iterator[tuple[Stages, SwapRules | None]]:
    """Stages and rules for worker processes: they pickle to the same size, however large run and corpus are.

    What grows with these, texts and photographs, lies in files of the run's folder meanwhile, and who uses it opens
    them. A killed run leaves them behind; the next start deletes them.
    """
    names = (f".{name}{storage.TEMPORARY}" for name in ("photos", "glyphs", "planned", "forbidden"))
    photos, glyphs, planned, forbidden = (stages.recipe.folder / name for name in names)
    rules, for_workers = plan.rules, stages.for_recipe(stages.recipe)
    try:
        if stages.recipe.source.path:
            stages.sources.write(photos)
            for_workers.sources_file = photos
        if stages.references:
            stages.references.write(glyphs)
            for_workers.references_file = glyphs
        if rules:
            taken = rules.taken
            assert isinstance(taken.forbidden, Readings) and isinstance(
                taken.planned, SortedTexts
            )  # as make_plan has it
            taken = replace(taken, forbidden=taken.forbidden.in_file(forbidden), planned=taken.planned.in_file(planned))
            rules = replace(rules, taken=taken)
        yield for_workers, rules
    finally:
        for path in (photos, glyphs, planned, forbidden):
            path.unlink(missing_ok=True)
