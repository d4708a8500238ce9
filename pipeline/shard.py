"""One shard as a transaction: sample, edit, filter, write, and last of all the commit that makes it count.

A shard is a pure function of recipe and number: whoever mints it, whenever, the same bytes come out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter

import numpy as np

from platemint.pipeline import storage, write
from platemint.pipeline.balance.quotas import Demand, had
from platemint.pipeline.balance.shares import read_target
from platemint.pipeline.balance.swaps import PATIENCE, Swapper, SwapRules
from platemint.pipeline.draw import Targets, quotas
from platemint.pipeline.plate import Plate, PlatemintError, same_reading
from platemint.pipeline.recipe import GenerateRecipe, recipe_hash
from platemint.pipeline.versions import versions

THREADS = 4  # that fetch sources and encode results beside the network
MOST_OFTEN = 2  # times its share that a photograph may serve in a shard: easy ones shall not stand in for hard ones

Tick = Callable[[int, int], None]  # told accepted and rejected plates of every batch


class Stages:
    """What plates of a run go through. Each stage is built when first used: loading networks takes seconds."""

    def __init__(self, recipe: GenerateRecipe):
        self.recipe = recipe

    def again(self, recipe: GenerateRecipe) -> Stages:
        """The same stages for a recipe of another count: sources and networks are not opened twice."""
        other = type(self)(recipe)
        other.__dict__.update({name: value for name, value in self.__dict__.items() if name != "recipe"})
        return other

    @cached_property
    def sources(self):
        from platemint.pipeline.sample import open_sources, tried

        sources = open_sources(self.recipe)
        if not self.recipe.source.tries:
            return sources
        return tried(sources, self.recipe, lambda plates: self.filter(self.edit(plates)))

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

    def ready(self) -> None:
        """Loads the networks. Raises PlatemintError, before anything is written, where one cannot be."""
        _ = self.checkpoints, self.device, self.edit, self.filter

    def __getstate__(self) -> dict:
        """Without the networks: a process that runs shards loads its own."""
        return {name: value for name, value in self.__dict__.items() if name not in ("edit", "filter")}

    @cached_property
    def edit(self) -> Callable[[list[Plate]], list[Plate]]:
        from platemint.pipeline.edit import Editor

        return Editor(self.recipe.edit)

    @cached_property
    def filter(self) -> Callable[[list[Plate]], list[Plate]]:
        from platemint.pipeline.filter import Filter

        return Filter(self.recipe.filter, self.recipe.edit)


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
        return f"dropped/{self.number:05d}.parquet"

    @property
    def commit(self) -> str:
        return f"commits/{self.number:05d}.json"

    def part(self, places: np.ndarray | slice) -> Shard:
        """The shard with some of its targets only."""
        return replace(self, index=self.index[places], targets=take(self.targets, places))


def take(targets: Targets, places: np.ndarray | slice) -> Targets:
    """Some of the targets, in the order of `places`."""
    return Targets(targets.group[places], targets.text[places], targets.group_index[places])


def run_shard(shard: Shard, stages: Stages, rules: SwapRules | None = None, tick: Tick | None = None) -> dict:
    """Mints a shard, writes its files and then its commit, which it returns: without it nothing of the shard counts.

    rules: for swaps of characters between its texts; None: texts stay as planned.
    """
    recipe, groups = stages.recipe, stages.sources.groups
    seconds = Counter()
    minted = mint(shard, stages, seconds, rules, tick)
    kept, dropped, missing, targets = minted.kept, minted.dropped, minted.missing, minted.targets
    with _timed(seconds, "write"):
        kept += [_real_row(stages, *plate) for plate in shard.real]
        files = [
            _store(recipe.folder, shard.data, kept, write.schema(recipe)),
            _store(recipe.folder, shard.dropped, dropped, write.schema(recipe, dropped=True)),
        ]
    served = np.setdiff1d(np.arange(len(shard.index)), missing)
    absent = {str(shard.index[place]): str(targets.text[place]) for place in missing}
    swapped = np.flatnonzero(targets.text != shard.targets.text)
    commit = {
        "shard": shard.number,
        "recipe_sha256": recipe_hash(recipe),
        "versions": versions(),
        "files": files,
        "accepted": len(kept) - len(shard.real),
        "real": len(shard.real),
        "rejected": dict(sorted(Counter(row["reason"] for row in dropped).items())),
        "missing": absent,
        "planned": {str(shard.index[place]): str(shard.targets.text[place]) for place in swapped},
        "counts": quotas(take(targets, served), groups, stages.demand),
        "shortfall": quotas(take(targets, missing), groups, stages.demand),
        "reasons": why_missing(absent, dropped),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
    }
    storage.write(recipe.folder / shard.commit, json.dumps(commit, indent=1, ensure_ascii=False) + "\n")
    return commit


def why_missing(missing: dict[str, str], dropped: list[dict]) -> dict[str, dict[str, dict[str, int]]]:
    """Why characters are missing: {position: {character: {reason: plates dropped for it}}}.

    missing: {place among the run's targets: text}. dropped: rows of dropped plates.
    """
    found: dict[str, dict[str, dict[str, int]]] = {}
    for row in dropped:
        text = missing.get(str(row["index"]), "")
        for position, character in enumerate(text if row["text"] == text else ""):
            counts = found.setdefault(str(position), {}).setdefault(character, {})
            counts[row["reason"]] = counts.get(row["reason"], 0) + 1
    return found


def _real_row(stages: Stages, number: int, group: int, photo: int) -> dict:
    """The row of a corpus's own plate."""
    plate = stages.sources.get(group, photo)
    return write.real_row(replace(plate, index=number), stages.sources.photos[group][photo].label, stages.recipe)


@dataclass(frozen=True)
class Minted:
    """What became of a shard's targets. kept, dropped: rows, in order. missing: places of targets nothing could serve.

    targets: the shard's, as trades have left them.
    """

    kept: list[dict]
    dropped: list[dict]
    missing: np.ndarray
    targets: Targets


def mint(
    shard: Shard, stages: Stages, seconds: Counter, rules: SwapRules | None = None, tick: Tick | None = None
) -> Minted:
    """Tries every target on one source after the other, until it is accepted or the rounds are over.

    A target whose plate is rejected goes back as a whole. When several sources have failed it, it swaps characters.
    """
    rounds, sources = stages.recipe.filter.rounds, stages.sources
    swapper = _swapper(shard, stages, rules) if rules else None
    kept, served, dropped, failed, tried, accepted = {}, {}, [], Counter(), Counter(), Counter()
    pending, targets, tick = np.arange(len(shard.index)), shard.targets, tick or _nobody
    patience = [min(sources.groups[g].sources or PATIENCE, PATIENCE) for g in targets.group.tolist()]
    with ThreadPoolExecutor(THREADS) as pool:
        for attempt in range(rounds):
            turns = _turns(sources, shard, attempt, pending, Counter(served.values()))
            source = partial(_source, sources, replace(shard, targets=targets), attempt, turns)
            for plates in _judged(_batches(pool, source, pending, stages, seconds), stages, seconds):
                for plate, place in zip(
                    plates, np.searchsorted(shard.index, [plate.index for plate in plates]).tolist()
                ):
                    row = pool.submit(write.row, plate, stages.recipe)
                    tried[int(targets.group[place])] += 1
                    if plate.reason:
                        dropped.append(row)
                    else:
                        kept[place], served[place] = row, turns[place]
                        accepted[int(targets.group[place])] += 1
                good = sum(not plate.reason for plate in plates)
                tick(good, len(plates) - good)
            pending = np.array([place for place in pending.tolist() if place not in kept], dtype=np.int64)
            failed.update(pending.tolist())
            if swapper and attempt + PATIENCE < rounds:
                stuck = [place for place in pending.tolist() if failed[place] >= patience[place]]
                easy = _easy_groups(accepted, tried, sources.groups) if stuck else ()
                partners = {p for p, g in enumerate(targets.group.tolist()) if g in easy or p not in kept}
                undone = _swap_characters(swapper, stuck, partners, failed)
                for place in undone & kept.keys():
                    dropped.append(pool.submit(_given_up, kept.pop(place)))
                    del served[place]
                    tick(-1, 1)
                pending = np.union1d(pending, [*undone]).astype(np.int64)
                targets = replace(targets, text=np.array(swapper.texts))
        with _timed(seconds, "write"):
            return Minted(_in_order(kept.values()), _in_order(dropped), pending, targets)


def _swapper(shard: Shard, stages: Stages, rules: SwapRules) -> Swapper:
    groups = [stages.sources.groups[g] for g in shard.targets.group.tolist()]
    return Swapper(shard.number, shard.targets.text.tolist(), groups, stages.demand, rules)


def _nobody(accepted: int, rejected: int) -> None:
    """Is told how a shard gets on where nobody else is."""


def _easy_groups(accepted: Counter, tried: Counter, groups: Sequence) -> set[int]:
    """The groups whose texts find a plate in `PATIENCE` tries, at most one for each photograph, as a rule."""
    chance = {g: 1 - (1 - accepted[g] / n) ** min(groups[g].sources or PATIENCE, PATIENCE) for g, n in tried.items()}
    return {group for group, likely in chance.items() if likely > 0.75}


def _swap_characters(swapper: Swapper, stuck: list[int], partners: set[int], failed: Counter) -> set[int]:
    """Swaps characters of stuck targets, and gives the places of the others that were swapped with."""
    undone = set()
    for place in stuck:
        other = swapper.swap(place, partners)
        if other is not None:
            failed[place] = failed[other] = 0
            undone.add(other)
    return undone


def _given_up(row) -> dict:
    """The row of a plate whose text has been swapped away since."""
    return row.result() | {"reason": "swapped"}


def _turns(sources, shard: Shard, attempt: int, places: np.ndarray, uses: Counter) -> dict[int, tuple]:
    """For each target at these places its group and the photograph to try, as `sources.get` takes them.

    A photograph that has served `MOST_OFTEN` times its share is passed over. uses: how often each one has served.
    """
    asked, planned, turns = np.bincount(shard.targets.group), uses.copy(), {}
    for place in places.tolist():
        group, index = int(shard.targets.group[place]), int(shard.targets.group_index[place])
        turn, there = sources.turn(group, index, attempt), sources.groups[group].sources
        if there:
            most = -(-MOST_OFTEN * int(asked[group]) // there)
            turn = next(t for step in range(there) if planned[group, t := (turn + step) % there] < most)
        planned[group, turn] += 1
        turns[place] = group, turn
    return turns


def _source(sources, shard: Shard, attempt: int, turns: dict[int, tuple], place: int) -> Plate:
    """The photograph that shall show the target at this place of the shard."""
    targets = shard.targets
    plate = sources.get(*turns[place])
    return replace(
        plate, target=str(targets.text[place]), index=int(shard.index[place]), round=attempt, split=shard.split
    )


def _batches(
    pool: ThreadPoolExecutor, get: Callable[[int], Plate], places: np.ndarray, stages: Stages, seconds: Counter
) -> Iterator[list[Plate]]:
    """Batches of source plates, in order; threads fetch the next batch while this one is in use."""
    size = stages.recipe.edit.batch
    coming = []
    for start in range(0, len(places) + size, size):
        with _timed(seconds, "sample"):
            ready = [future.result() for future in coming]
        coming = [pool.submit(get, int(place)) for place in places[start : start + size]]
        # A rendered source may say the target by chance: its turn is passed over, the next round brings another.
        if batch := [plate for plate in ready if not same_reading(plate.text, plate.target)]:
            yield batch


def _judged(batches: Iterator[list[Plate]], stages: Stages, seconds: Counter) -> Iterator[list[Plate]]:
    """The batches edited and filtered, in order; a thread filters one while the next is being edited."""

    def judge(plates: list[Plate]) -> list[Plate]:
        with _timed(seconds, "filter"):
            return stages.filter(plates)

    with ThreadPoolExecutor(1) as thread:
        before = None
        for batch in batches:
            with _timed(seconds, "edit"):
                edited = stages.edit(batch)
            if before:
                yield before.result()
            before = thread.submit(judge, edited)
        if before:
            yield before.result()


def _in_order(rows: Iterable) -> list[dict]:
    return sorted((future.result() for future in rows), key=lambda row: (row["index"], row["round"]))


def _store(folder: Path, name: str, rows: list[dict], schema) -> dict:
    data = write.parquet(rows, schema)
    storage.write(folder / name, data)
    return {"path": name, "rows": len(rows), "bytes": len(data), "sha256": storage.sha256(data)}


@contextmanager
def _timed(seconds: Counter, stage: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[stage] += perf_counter() - start
