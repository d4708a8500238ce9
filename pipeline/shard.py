"""One shard as a transaction: sample, edit, filter, write, and last of all the commit that makes it count.

A shard is a pure function of recipe and number: whoever runs it, whenever, the same bytes come out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from platemint.pipeline import lock, storage, write
from platemint.pipeline.balance.swaps import TRIES_BEFORE_SWAP, Swapper, SwapRules
from platemint.pipeline.draw import Targets, quotas
from platemint.pipeline.engines import in_threads
from platemint.pipeline.object_store import ObjectPath
from platemint.pipeline.plan import Shard, take
from platemint.pipeline.plate import Failure, Group, Plate, same_reading
from platemint.pipeline.recipe import recipe_hash
from platemint.pipeline.stages import Stages
from platemint.pipeline.versions import versions

MOST_OFTEN = 2  # times its share that a photograph may serve in a shard: easy ones shall not stand in for hard ones
LIKELY = 0.75  # chance of finding a plate from which on a group's texts may give characters to those that found none

Photo = tuple  # of a group: its number and the photograph's, as `sources.get` takes them
Tick = Callable[[int, int], None]  # called with the accepted and the rejected plates of every batch


def run_shard(
    shard: Shard, stages: Stages, rules: SwapRules | None = None, tick: Tick | None = None, threads: int = 1
) -> dict:
    """Makes a shard's plates, writes its files and then its commit, which it returns: without it nothing counts.

    rules: for swaps of characters between its texts; None: texts stay as planned. threads: see `make_plates`.
    """
    made = make_plates(shard, stages, rules, tick, threads)
    recipe, seconds = stages.recipe, made.seconds
    _refuse_another_run(stages)
    start = perf_counter()
    kept = _in_order(made.kept.values()) + [_real_row(stages, *plate) for plate in shard.real]
    dropped = _in_order(made.dropped)
    files = [
        _store(recipe.folder, shard.data, kept, write.schema(recipe)),
        _store(recipe.folder, shard.dropped, dropped, write.schema(recipe, dropped=True)),
    ]
    seconds["write"] += perf_counter() - start
    commit = _commit(made, stages, dropped, files)
    _refuse_another_run(stages)
    storage.commit(recipe.folder / shard.commit, json.dumps(commit, indent=1, ensure_ascii=False) + "\n")
    return commit


def _refuse_another_run(stages: Stages) -> None:
    """Raises Failure where the folder is another start's: this one's process was killed, and its workers have lived on.

    On an object store a later start takes over from one that is still there, too.
    """
    folder = stages.recipe.folder
    if stages.holder and lock.holder(folder) != stages.holder:
        raise Failure(
            f"{folder}: is no longer this run's: {lock.shown_holder(folder)} has taken it over; let it go on, or end it and "
            "run the same command again"
        )


def _commit(made: MadePlates, stages: Stages, dropped: list[dict], files: list[dict]) -> dict:
    shard, targets, missing = made.shard, made.targets, made.pending
    served = np.setdiff1d(np.arange(len(shard.index)), missing)
    absent = {str(shard.index[place]): str(targets.text[place]) for place in missing}
    swapped = np.flatnonzero(targets.text != shard.targets.text)
    return {
        "shard": shard.number,
        "recipe_sha256": recipe_hash(stages.recipe),
        "versions": versions(),
        "files": files,
        "accepted": len(made.kept),
        "read_otherwise": sum(not same_reading(row["reading"], row["text"]) for row in made.kept.values()),
        "real": len(shard.real),
        "rejected": dict(sorted(Counter(row["reason"] for row in dropped).items())),
        "missing": absent,
        "planned": {str(shard.index[place]): str(shard.targets.text[place]) for place in swapped},
        "counts": quotas(take(targets, served), stages.sources.groups, stages.demand),
        "shortfall": quotas(take(targets, missing), stages.sources.groups, stages.demand),
        "reasons": why_missing(absent, dropped),
        "seconds": {stage: round(value, 3) for stage, value in made.seconds.items()},
    }


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


class Attempt(NamedTuple):
    """One plate that has gone through all stages. place: of its target in the shard. reason: "" where it is accepted."""

    place: int
    reason: str
    row: dict


@dataclass
class MadePlates:
    """What has become of a shard's targets so far.

    targets: the shard's, as swaps have left them. pending: int64, ascending, places of targets that no plate serves.
    kept: the row of each target that one serves, by place; photo: the photograph it shows. dropped: rows.
    failed: photographs that each text has been rejected on, by place. tried, accepted: plates of each group.
    seconds: of each stage, added up over threads.
    """

    shard: Shard
    targets: Targets
    pending: np.ndarray
    kept: dict[int, dict] = field(default_factory=dict)
    photo: dict[int, Photo] = field(default_factory=dict)
    dropped: list[dict] = field(default_factory=list)
    failed: Counter = field(default_factory=Counter)
    tried: Counter = field(default_factory=Counter)
    accepted: Counter = field(default_factory=Counter)
    seconds: Counter = field(default_factory=Counter)

    def add(self, attempt: Attempt, photo: Photo) -> None:
        """Takes up a plate, accepted or rejected."""
        group = int(self.targets.group[attempt.place])
        self.tried[group] += 1
        if attempt.reason:
            self.dropped.append(attempt.row)
        else:
            self.kept[attempt.place], self.photo[attempt.place] = attempt.row, photo
            self.accepted[group] += 1

    def end_round(self) -> None:
        """Finds the targets that are to be tried again."""
        self.pending = np.array([place for place in self.pending.tolist() if place not in self.kept], dtype=np.int64)
        self.failed.update(self.pending.tolist())

    def easy_groups(self, groups: Sequence[Group]) -> set[int]:
        """The groups whose texts are likely to find a plate before they would be swapped, by their share so far."""
        chance = {g: 1 - (1 - self.accepted[g] / n) ** _tries_before_swap(groups[g]) for g, n in self.tried.items()}
        return {group for group, likely in chance.items() if likely > LIKELY}

    def swap(self, swapper: Swapper, groups: Sequence[Group]) -> int:
        """Swaps characters of texts that enough photographs have failed; plates of the other texts are dropped.

        Returns how many plates that are.
        """
        of = self.targets.group.tolist()
        stuck = [
            place for place in self.pending.tolist() if self.failed[place] >= _tries_before_swap(groups[of[place]])
        ]
        easy = self.easy_groups(groups) if stuck else ()
        partners = {place for place, group in enumerate(of) if group in easy or place not in self.kept}
        others = {place: swapper.swap(place, partners) for place in stuck}
        others = {place: other for place, other in others.items() if other is not None}
        for place in [*others, *others.values()]:
            self.failed[place] = 0
        undone = set(others.values()) & self.kept.keys()
        for place in undone:
            self.dropped.append(self.kept.pop(place) | {"reason": "swapped"})
            del self.photo[place]
        self.pending = np.union1d(self.pending, [*others.values()]).astype(np.int64)
        self.targets = replace(self.targets, text=np.array(swapper.texts))
        return len(undone)


def make_plates(
    shard: Shard, stages: Stages, rules: SwapRules | None = None, tick: Tick | None = None, threads: int = 1
) -> MadePlates:
    """Tries every target on one source after the other, until it is accepted or the rounds are over.

    A target whose plate is rejected is tried again as a whole. When several sources have failed it, it swaps characters
    (see `pipeline.balance.swaps`). threads: batches that are worked on at a time; they change no byte.
    """
    rounds, groups = stages.recipe.filter.rounds, stages.sources.groups
    _ = stages.edit, stages.filter  # loaded before several threads ask for them
    made = MadePlates(shard, shard.targets, np.arange(len(shard.index)))
    swapper = _swapper(shard, stages, rules) if rules else None
    tick = tick or (lambda accepted, rejected: None)
    for attempt in range(rounds):
        photos = _choose_photos(made, stages.sources, attempt)
        run_batch = partial(_run_batch, made=made, photos=photos, stages=stages, attempt=attempt)
        # Targets of one photograph side by side: what their edits need of it is made once.
        pending = sorted(made.pending.tolist(), key=photos.__getitem__)
        size = stages.recipe.edit.batch
        batches = (pending[start : start + size] for start in range(0, len(pending), size))
        for attempts, seconds in in_threads(run_batch, batches, threads):
            for one in attempts:
                made.add(one, photos[one.place])
            made.seconds.update(seconds)
            rejected = sum(bool(one.reason) for one in attempts)
            tick(len(attempts) - rejected, rejected)
        made.end_round()
        if swapper and attempt + TRIES_BEFORE_SWAP < rounds:
            undone = made.swap(swapper, groups)
            tick(-undone, undone)
    return made


def _run_batch(
    places: list[int], made: MadePlates, photos: dict[int, Photo], stages: Stages, attempt: int
) -> tuple[list[Attempt], dict[str, float]]:
    """One batch on its way through the stages, and the seconds that each of them took."""
    clock = [perf_counter()]
    photographs = {photo: stages.sources.get(*photo) for photo in dict.fromkeys(photos[place] for place in places)}
    sampled = {place: _sampled(place, made, photographs[photos[place]], attempt) for place in places}
    # A rendered source may say the target by chance: it is passed over, the next round brings another.
    sampled = {place: plate for place, plate in sampled.items() if not same_reading(plate.text, plate.target)}
    clock.append(perf_counter())
    plates = stages.edit([*sampled.values()])
    clock.append(perf_counter())
    plates = stages.filter(plates)
    clock.append(perf_counter())
    rows = [write.row(plate, stages.recipe) for plate in plates]
    clock.append(perf_counter())
    attempts = [Attempt(place, plate.reason, row) for place, plate, row in zip(sampled, plates, rows)]
    return attempts, dict(zip(("sample", "edit", "filter", "write"), np.diff(clock).tolist()))


def _sampled(place: int, made: MadePlates, photograph: Plate, attempt: int) -> Plate:
    """The photograph that shall show the target at this place of the shard."""
    shard = made.shard
    return replace(
        photograph,
        target=str(made.targets.text[place]),
        index=int(shard.index[place]),
        round=attempt,
        split=shard.split,
    )


def _choose_photos(made: MadePlates, sources, attempt: int) -> dict[int, Photo]:
    """For each pending target, by place, the photograph to try: the next that has not served `MOST_OFTEN` times its share."""
    targets, uses, chosen = made.targets, Counter(made.photo.values()), {}
    asked = [*zip(targets.group.tolist(), targets.group_index.tolist())]
    planned = Counter((group, sources.turn(group, index, 0)) for group, index in asked)
    share: Counter = Counter()  # of a group's photographs, the most that one of them is planned to serve
    for (group, _), plates in planned.items():
        share[group] = max(share[group], plates)
    for place in made.pending.tolist():
        group, index = asked[place]
        turn, there = sources.turn(group, index, attempt), sources.groups[group].sources
        if there:
            most = MOST_OFTEN * share[group]
            turn = next(t for step in range(there) if uses[group, t := (turn + step) % there] < most)
        uses[group, turn] += 1
        chosen[place] = group, turn
    return chosen


def _tries_before_swap(group: Group) -> int:
    """Photographs a text is tried on before it swaps characters: all there are, where they are few."""
    return min(group.sources or TRIES_BEFORE_SWAP, TRIES_BEFORE_SWAP)


def _swapper(shard: Shard, stages: Stages, rules: SwapRules) -> Swapper:
    groups = [stages.sources.groups[g] for g in shard.targets.group.tolist()]
    return Swapper(shard.number, shard.targets.text.tolist(), groups, stages.demand, rules)


def _real_row(stages: Stages, number: int, group: int, photo: int) -> dict:
    """The row of a corpus's own plate."""
    plate = stages.sources.get(group, photo)
    return write.real_row(replace(plate, index=number), stages.sources.photos[group][photo].label, stages.recipe)


def _in_order(rows: Iterable[dict]) -> list[dict]:
    return sorted(rows, key=lambda row: (row["index"], row["round"]))


def _store(folder: Path | ObjectPath, name: str, rows: list[dict], schema) -> dict:
    data = write.parquet(rows, schema)
    storage.write(folder / name, data)
    return {"path": name, "rows": len(rows), "bytes": len(data), "sha256": storage.sha256(data)}
