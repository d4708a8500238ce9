"""One shard as a transaction: sample, edit, filter, write, and last of all the commit that makes it count.

A shard is a pure function of recipe and number: whoever mints it, whenever, the same bytes come out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter

import numpy as np

from pipeline import write
from pipeline.draw import Targets, quotas
from pipeline.plate import Plate, PlatemintError, same_reading
from pipeline.quotas import Wish, had
from pipeline.recipe import GenerateRecipe, recipe_hash
from pipeline.shares import read_target

THREADS = 4  # that fetch sources and encode results beside the network
MOST_OFTEN = 2  # times its share that a photograph may serve in a shard: easy ones shall not stand in for hard ones

Tick = Callable[[int, int], None]  # told accepted and rejected plates of every batch


class Stages:
    """What plates of a run go through. Each stage is built when first used: loading networks takes seconds."""

    def __init__(self, recipe: GenerateRecipe):
        self.recipe = recipe

    @cached_property
    def sources(self):
        from pipeline.sample import open_sources

        return open_sources(self.recipe)

    @cached_property
    def wish(self) -> Wish:
        """How often characters shall come. Raises PlatemintError for a table that cannot be read."""
        balance, have = self.recipe.balance, {}
        if balance.top_up:
            texts = [[photo.text for photo in photos] for photos in self.sources.photos]
            have = had(self.sources.groups, texts, balance)
        return Wish(balance, read_target(balance.target), have)

    @cached_property
    def checkpoints(self) -> dict[str, str]:
        """sha256 of each network's file. Raises PlatemintError where there is none."""
        from models.checkpoint import CheckpointError, find

        found = {}
        for field in ("checkpoint", "reader"):
            name = getattr(self.recipe.edit, field)
            try:
                found[name] = write.sha256(find(name).read_bytes())
            except CheckpointError as error:
                raise PlatemintError(f"edit.{field}: {error}") from error
        return found

    @cached_property
    def device(self) -> str:
        """The kind of device and the precision, on which bytes depend: "cpu bfloat16". Raises where it is not there."""
        from pipeline.edit import choose_device

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
        from pipeline.edit import Editor

        return Editor(self.recipe.edit)

    @cached_property
    def filter(self) -> Callable[[list[Plate]], list[Plate]]:
        from pipeline.filter import Filter

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


def run_shard(shard: Shard, stages: Stages, tick: Tick | None = None) -> dict:
    """Mints a shard, writes its files and then its commit, which it returns: without it nothing of the shard counts."""
    recipe, groups = stages.recipe, stages.sources.groups
    seconds = Counter()
    kept, dropped, missing = mint(shard, stages, seconds, tick)
    with _timed(seconds, "write"):
        kept += [_real_row(stages, *plate) for plate in shard.real]
    with _timed(seconds, "write"):
        files = [
            _store(recipe.folder, shard.data, kept, write.schema(recipe)),
            _store(recipe.folder, shard.dropped, dropped, write.schema(recipe, dropped=True)),
        ]
    served = np.setdiff1d(np.arange(len(shard.index)), missing)
    absent = {str(shard.index[place]): str(shard.targets.text[place]) for place in missing}
    commit = {
        "shard": shard.number,
        "recipe_sha256": recipe_hash(recipe),
        "files": files,
        "accepted": len(kept) - len(shard.real),
        "real": len(shard.real),
        "rejected": dict(sorted(Counter(row["reason"] for row in dropped).items())),
        "missing": absent,
        "counts": quotas(take(shard.targets, served), groups, stages.wish),
        "shortfall": quotas(take(shard.targets, missing), groups, stages.wish),
        "reasons": why_missing(absent, dropped),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
    }
    write.replace(recipe.folder / shard.commit, json.dumps(commit, indent=1, ensure_ascii=False) + "\n")
    return commit


def why_missing(missing: dict[str, str], dropped: list[dict]) -> dict[str, dict[str, dict[str, int]]]:
    """Why characters are missing: {position: {character: {reason: plates dropped for it}}}.

    missing: {place among the run's targets: text}. dropped: rows of dropped plates.
    """
    found: dict[str, dict[str, dict[str, int]]] = {}
    for row in dropped:
        for position, character in enumerate(missing.get(str(row["index"]), "")):
            counts = found.setdefault(str(position), {}).setdefault(character, {})
            counts[row["reason"]] = counts.get(row["reason"], 0) + 1
    return found


def _real_row(stages: Stages, number: int, group: int, photo: int) -> dict:
    """The row of a corpus's own plate."""
    plate = stages.sources.get(group, photo)
    return write.real_row(replace(plate, index=number), stages.sources.photos[group][photo].path, stages.recipe)


def mint(
    shard: Shard, stages: Stages, seconds: Counter, tick: Tick | None = None
) -> tuple[list[dict], list[dict], np.ndarray]:
    """The rows accepted and dropped, and the places in the shard of targets that no source could serve.

    A target whose plate is rejected goes back as a whole and is tried on another source in the next round.
    """
    kept, dropped, uses = [], [], Counter()
    pending = np.arange(len(shard.index))
    with ThreadPoolExecutor(THREADS) as pool:
        for attempt in range(stages.recipe.filter.rounds):
            served = []
            turns = _turns(stages.sources, shard, attempt, pending, uses)
            batches = _batches(pool, partial(_source, stages.sources, shard, attempt, turns), pending, stages, seconds)
            for plates in _judged(batches, stages, seconds):
                for plate in plates:
                    (dropped if plate.reason else kept).append(pool.submit(write.row, plate, stages.recipe))
                good = [plate.index for plate in plates if not plate.reason]
                served += good
                uses.update(turns[place] for place in np.flatnonzero(np.isin(shard.index, good)).tolist())
                if tick:
                    tick(len(good), len(plates) - len(good))
            pending = pending[~np.isin(shard.index[pending], served)]
        with _timed(seconds, "write"):
            return _in_order(kept), _in_order(dropped), pending


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


def _in_order(rows: list) -> list[dict]:
    return sorted((future.result() for future in rows), key=lambda row: (row["index"], row["round"]))


def _store(folder: Path, name: str, rows: list[dict], schema) -> dict:
    data = write.parquet(rows, schema)
    write.replace(folder / name, data)
    return {"path": name, "rows": len(rows), "bytes": len(data), "sha256": write.sha256(data)}


@contextmanager
def _timed(seconds: Counter, stage: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[stage] += perf_counter() - start
