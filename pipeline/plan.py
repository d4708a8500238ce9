"""What a run will do, decided before its first plate: groups, quotas, targets and shards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from platemint.pipeline import storage
from platemint.pipeline.balance.forbidden import forbidden_texts
from platemint.pipeline.balance.quotas import Demand, add_quotas
from platemint.pipeline.balance.swaps import SwapRules
from platemint.pipeline.draw import Targets, draw_targets, quotas
from platemint.pipeline.object_store import ObjectPath
from platemint.pipeline.plate import Group, PlatemintError, Readings, SortedTexts, Taken
from platemint.pipeline.recipe import NOT_IN_HASH, recipe_hash
from platemint.pipeline.stages import Stages
from platemint.pipeline.versions import versions

TOGETHER = 8  # targets of a shard that one photograph serves, where the run has so many: more saves little


@dataclass(frozen=True)
class Shard:
    """What one transaction writes, all of one split: edited plates, or the corpus's own ones as they are.

    number: in the run. index: int64 (n,), places of its targets among the run's. real: (number in the run, group, photograph) of each plate
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


@dataclass(frozen=True)
class Earlier:
    """What the finished parts of a run come to, on top of which the next one is planned: none, where it is the first.

    count: plates asked for. of_group: how many of each group. counts: characters of those accepted, {pool's name:
    {character: count}}. texts: of these, sorted.
    """

    parts: int = 0
    count: int = 0
    shards: int = 0
    of_group: tuple[int, ...] = ()
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    texts: tuple[str, ...] = ()

    def after(self, plan: Plan, commits: Iterable[dict], folder: Path | ObjectPath) -> Earlier:
        """The same with one more part, whose shards are all in the folder."""
        planned = [group["targets"] for group in plan.facts["groups"]]
        files = [folder / shard.data for shard in plan.shards if len(shard.index)]
        texts = (_texts(file) for file in files)
        return Earlier(
            self.parts + 1,
            plan.facts["recipe"]["count"],
            self.shards + len(plan.shards),
            tuple(a + b for a, b in zip(self.of_group or [0] * len(planned), planned)),
            add_quotas([self.counts, *(commit["counts"] for commit in commits)]),
            tuple(sorted([*self.texts, *(text for some in texts for text in some)])),
        )

    def facts(self) -> dict:
        """What the plan of the next part says of them."""
        return {"parts": self.parts, "count": self.count, "texts_sha256": storage.sha256("\n".join(self.texts))}


def _texts(file: Path | ObjectPath) -> list[str]:
    with file.open("rb") as opened:
        return pq.read_table(opened, columns=["text"])["text"].to_pylist()


def plan_file(part: int) -> str:
    """The name of the plan of a run's part, from 0; the first one is the run's where nothing was added to it."""
    return f"plan-{part + 1}.json" if part else "plan.json"


def stored_plans(folder: Path | ObjectPath) -> list[dict]:
    """The plans of a run's parts, in order. Raises PlatemintError where one is damaged."""
    found: list[dict] = []
    while (folder / plan_file(len(found))).exists():
        found.append(storage.read_json(folder / plan_file(len(found))))
    return found


def is_added_to(demand: Demand) -> bool:
    """Whether plates that a run gets later are balanced together with those it has; else by themselves.

    A character counted over all positions, and a table for each position, leave no pool that could be topped up alone.
    """
    return demand.balance.per != "character" and not demand.target.by_position


def make_plan(stages: Stages, earlier: Earlier = Earlier()) -> Plan:
    """Draws every target of the run, or of its part behind the earlier ones, and cuts it into shards.

    Raises PlatemintError where the strings do not suffice, and for a balance that cannot be.
    """
    recipe, sources, demand = stages.recipe, stages.sources, stages.demand
    if earlier.parts and is_added_to(demand):
        demand = replace(demand, have=add_quotas([demand.have, earlier.counts]))
    given = forbidden_texts(recipe.draw.forbid)
    forbidden, reserved = Readings(sources.texts | given), (*recipe.draw.reserved, *earlier.texts)
    count, drawn = recipe.count - earlier.count, (earlier.parts, earlier.of_group)
    targets = draw_targets(sources.groups, count, recipe.seed, forbidden, reserved, demand, *drawn)
    targets = together(targets, sources.groups, recipe.write.shard_rows)
    shards = _cut(targets, [group.split for group in sources.groups], recipe.write.shard_rows, earlier)
    with_targets = len(shards)
    if recipe.write.real and not earlier.parts:
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
        **({"on_top_of": earlier.facts()} if earlier.parts else {}),
    }
    known = np.sort(np.concatenate([targets.text, np.array(earlier.texts, dtype=str)]))
    taken = Taken(forbidden, frozenset(recipe.draw.reserved), SortedTexts(known))
    rules = None if recipe.balance.pairs else SwapRules(taken, earlier.shards + with_targets, recipe.seed)
    return Plan(json.loads(json.dumps(facts)), shards, rules)


def together(targets: Targets, groups: Sequence[Group], rows: int) -> Targets:
    """The targets, numbered anew inside their groups so that several of a shard are for one photograph.

    What an edit needs of its photograph is then made once for these. Over all targets each photograph still serves as
    often as it did. rows: targets of a shard.
    """
    index = targets.group_index.copy()
    shards = {split: -(-sum(asked) // rows) for split, asked in _asked_of(targets, groups).items()}
    for number, group in enumerate(groups):
        at = np.flatnonzero(targets.group == number)
        if group.sources and len(at):
            of_shard = len(at) / shards[group.split]
            index[at] = index[at[0]] + _turns(len(at), group.sources, of_shard)
    return replace(targets, group_index=index)


def _asked_of(targets: Targets, groups: Sequence[Group]) -> dict[str, list[int]]:
    """How many targets each group of a split has."""
    asked: dict[str, list[int]] = {}
    for group, n in zip(groups, np.bincount(targets.group, minlength=len(groups)).tolist()):
        asked.setdefault(group.split, []).append(n)
    return asked


def _turns(count: int, photos: int, of_shard: float) -> np.ndarray:
    """The numbers 0..count-1, int64, in the order in which targets take them: number % photos is their photograph."""
    times = count // photos  # that each photograph serves at least
    rounds = -(-times // TOGETHER)
    found, start = [], 0
    for uses in (times // rounds + (n < times % rounds) for n in range(rounds)):
        found.append(start + _round(photos, uses, of_shard))
        start += photos * uses
    return np.concatenate([*found, np.arange(start, count)])


def _round(photos: int, uses: int, of_shard: float) -> np.ndarray:
    """The numbers 0..photos*uses-1 in such an order that photographs come in stretches of few, each several times.

    A stretch is short beside a shard: one that two shards share serves neither as well.
    """
    few = min(photos, max(2, int(of_shard) // (4 * uses)))
    stretch, turn = np.divmod(np.arange(photos * uses), few * uses)
    use, photo = np.divmod(turn, np.minimum(few, photos - stretch * few))  # the last stretch may have fewer
    return use * photos + stretch * few + photo


def _cut(targets: Targets, splits: Sequence[str], rows: int, earlier: Earlier) -> list[Shard]:
    """Shards of at most so many targets, in order and each of one split."""
    split, shards = np.asarray(splits)[targets.group], []
    part = f"-part{earlier.parts + 1}" if earlier.parts else ""
    for name in dict.fromkeys(splits):
        if not re.fullmatch(r"\w+", name):
            raise PlatemintError(f"split {name!r}: names files, so it must be of letters, digits and _: rename it")
        index = np.flatnonzero(split == name)
        pieces = [index[start : start + rows] for start in range(0, len(index), rows)]
        for k, piece in enumerate(pieces):
            data = f"data/{name}{part}-{k:05d}-of-{len(pieces):05d}.parquet"
            number = earlier.shards + len(shards)
            shards.append(Shard(number, name, data, piece + earlier.count, take(targets, piece)))
    return shards


def _real_shards(sources, number: int, rows: int) -> list[Shard]:
    """Shards of the corpus's own plates, numbered from `number` on."""
    plates: dict[str, list[tuple[int, int, int]]] = {}
    for group, photos in enumerate(sources.photos):
        if sources.groups[group].longer:  # its photographs are those of another group
            continue
        for photo in range(len(photos)):
            of_split = plates.setdefault(sources.groups[group].split, [])
            of_split.append((len(of_split), group, photo))
    nothing = np.zeros(0, dtype=np.int64)
    shards = []
    for split, of_split in plates.items():
        pieces = [tuple(of_split[start : start + rows]) for start in range(0, len(of_split), rows)]
        for k, piece in enumerate(pieces):
            data = f"data/{split}-real-{k:05d}-of-{len(pieces):05d}.parquet"
            targets = Targets(nothing.astype(np.int32), nothing.astype(str), nothing)
            shards.append(Shard(number + len(shards), split, data, nothing, targets, piece))
    return shards


@contextmanager
def in_files(plan: Plan, stages: Stages) -> Iterator[tuple[Stages, SwapRules | None]]:
    """Stages and rules for worker processes: they pickle to the same size, however large run and corpus are.

    What grows with these, texts and photographs, lies in files of the run's folder meanwhile, and who uses it opens
    them. A killed run leaves them behind; the next start deletes them. Texts are looked up in the file itself, which takes
    a local folder: of a run on an object store they are sent along.
    """
    folder = stages.recipe.folder
    names = (f".{name}{storage.TEMPORARY}" for name in ("photos", "glyphs", "planned", "forbidden"))
    photos, glyphs, planned, forbidden = (folder / name for name in names)
    rules, for_workers = plan.rules, stages.for_recipe(stages.recipe)
    try:
        if any(part.source.path for part in stages.recipe.parts):
            stages.sources.write(photos)
            for_workers.sources_file = photos
        if stages.references:
            stages.references.write(glyphs)
            for_workers.references_file = glyphs
        if rules and isinstance(planned, Path) and isinstance(forbidden, Path):
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
