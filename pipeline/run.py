"""A run: its folder, its lock, going on after an interruption, and the manifest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TextIO

from platemint.pipeline import engines, lock, storage, write
from platemint.pipeline.dataset_card import card
from platemint.pipeline.plan import Plan, Shard, in_files, make_plan
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.progress import Progress
from platemint.pipeline.recipe import GenerateRecipe, dump, recipe_hash
from platemint.pipeline.shard import make_plates, run_shard
from platemint.pipeline.stages import Stages
from platemint.pipeline.storage import read_json
from platemint.pipeline.versions import changed, versions

TRIAL = 8  # plates made for an estimate
WORTH_A_PROCESS = 1000  # plates; one process makes hundreds with its threads in the time that another takes to start


@dataclass(frozen=True)
class Result:
    """What a run came to. shortfall: quotas that could not be filled, {position: {character: missing}}.

    reasons: why, {position: {character: {reason: plates dropped for it}}}.
    """

    folder: Path
    accepted: int
    real: int
    missing: int
    shortfall: dict[str, dict[str, int]]
    reasons: dict[str, dict[str, dict[str, int]]]

    @property
    def exit_code(self) -> int:
        return 3 if self.missing else 0


def generate(
    recipe: GenerateRecipe,
    progress: TextIO | None = None,
    stages: Stages | None = None,
    plan: Plan | None = None,
    accept_versions: bool = False,
) -> Result:
    """Carries out a recipe, or goes on where an earlier start of the same recipe was interrupted.

    progress: a stream to report on. plan: of these stages, where it is made already. accept_versions: go on with
    other versions of what decides bytes than the run was begun with.
    Raises PlatemintError if the folder holds something else than this very run, if the quotas cannot be met by any
    strings, or if the folder cannot be written; Failure if another process is writing it.
    """
    stages = stages or Stages(recipe)
    plan = plan or make_plan(stages)
    stages.ready()
    with lock.held(recipe.folder):
        return _carried_out(plan, stages, progress, accept_versions)


def _carried_out(plan: Plan, stages: Stages, progress: TextIO | None, accept_versions: bool) -> Result:
    recipe, folder = stages.recipe, stages.recipe.folder
    facts = plan.facts | {"checkpoints": stages.checkpoints, "device": stages.device}
    if stages.references:
        facts["references"] = stages.references.fingerprint
    _refuse_another_run(folder, facts)
    commits = {shard.number: commit for shard in plan.shards if (commit := _commit(folder, shard, recipe))}
    todo = [shard for shard in plan.shards if shard.number not in commits]
    if todo and not accept_versions:
        _refuse_other_versions(folder, commits.values())
    _open_folder(folder, recipe, facts, stages.sources.set_aside)
    reporter = Progress(recipe.count, progress)
    reporter.resume(sum(commit["accepted"] for commit in commits.values()))
    processes = _processes(stages, todo)
    with _work(plan, stages, processes, reporter) as work:
        for commit in engines.each(work, todo, processes, stages.gpus):
            commits[commit["shard"]] = commit
            if processes > 1:
                reporter.add(commit["accepted"], sum(commit["rejected"].values()))
    reporter.tell(end=True)
    return _finish(folder, recipe, facts, [commits[number] for number in sorted(commits)])


def _processes(stages: Stages, shards: list[Shard]) -> int:
    plates = sum(len(shard.index) for shard in shards)
    workers, worth = stages.recipe.engine.workers, plates // WORTH_A_PROCESS
    return engines.processes(workers, len(shards), worth, stages.gpus)


@contextmanager
def _work(plan: Plan, stages: Stages, processes: int, reporter: Progress) -> Iterator[Callable[[Shard], dict]]:
    """What runs a shard: here, where its batches are reported too, or in processes, which are sent only this."""
    run = partial(run_shard, threads=engines.threads(processes, stages.recipe.edit.threads))
    if processes == 1:
        yield partial(run, stages=stages, rules=plan.rules, tick=reporter.add)
        return
    with in_files(plan, stages) as (for_workers, rules):
        yield partial(run, stages=for_workers, rules=rules)


def estimate(plan: Plan, stages: Stages) -> dict[str, float]:
    """Bytes on disk and seconds the run will take, from really making its first few plates (0: none accepted)."""
    recipe = stages.recipe
    _ = stages.edit, stages.filter  # loaded before the clock starts
    start = perf_counter()
    made = make_plates(plan.shards[0].part(slice(TRIAL)), stages)
    seconds = perf_counter() - start
    kept, dropped = [*made.kept.values()], made.dropped
    size = len(write.parquet(kept, write.schema(recipe))) + len(write.parquet(dropped, write.schema(recipe, True)))
    scale = recipe.count / len(kept) if kept else 0.0
    processes = _processes(stages, plan.shards)
    at_once = processes * engines.threads(processes, recipe.edit.threads)
    return {"bytes": scale * size, "seconds": scale * seconds / at_once}


def _open_folder(folder: Path, recipe: GenerateRecipe, facts: dict, set_aside: list[dict]) -> None:
    """Makes the folder a run's, and clears what a kill has left."""
    for part in folder.glob(f"**/.*{storage.TEMPORARY}"):
        part.unlink()
    if not (folder / "plan.json").exists():
        storage.write(folder / "plan.json", _json(facts))  # first: it makes the folder a run's
    storage.write(folder / "recipe.yaml", dump(recipe))
    storage.write(folder / "set_aside.csv", write.table(set_aside, ("path", "row", "reason")))


def _refuse_another_run(folder: Path, facts: dict) -> None:
    """Raises PlatemintError where a folder is not this very run's."""
    if not (folder / "plan.json").exists():
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise PlatemintError(f"{folder}: holds files that are not a run's: choose another --out")
        return
    stored = read_json(folder / "plan.json")
    different = [key for key in facts if key != "versions" and stored.get(key) != facts[key]]
    if different:
        changes = _changes(stored.get("recipe", {}), facts["recipe"])
        changes = changes or [f"{key} have changed since" for key in different]
        raise PlatemintError(
            f"{folder}: holds another run ({'; '.join(changes)}): choose another --out, or undo the change to go on"
        )


def _refuse_other_versions(folder: Path, commits: Iterable[dict]) -> None:
    """Raises PlatemintError where a run was begun, or any of its shards made, with other versions."""
    begun = [read_json(folder / "plan.json")] if (folder / "plan.json").exists() else []
    made = [facts.get("versions", {}) for facts in [*begun, *commits]]
    if changes := dict.fromkeys(change for old in made for change in changed(old, versions())):
        raise PlatemintError(
            f"{folder}: was made with other versions ({'; '.join(changes)}), and its bytes may depend on them: install "
            "those it was made with, choose another --out, or go on with --accept-versions"
        )


def _changes(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Fields in which two recipes differ, as "edit.batch was 32, is 8"."""
    changes = []
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            changes += _changes(a, b, f"{prefix}{key}.")
        elif a != b:
            changes.append(f"{prefix}{key} was {a!r}, is {b!r}")
    return changes


def _commit(folder: Path, shard: Shard, recipe: GenerateRecipe) -> dict | None:
    """The commit of a finished shard, None where it has to be made (again). Raises if another recipe's lies there."""
    try:
        commit = read_json(folder / shard.commit)
    except PlatemintError:
        return None
    if commit["recipe_sha256"] != recipe_hash(recipe):
        raise PlatemintError(f"{folder / shard.commit}: was made by another recipe: choose another --out")
    files = [(folder / file["path"], file["bytes"]) for file in commit["files"]]
    whole = all(path.is_file() and path.stat().st_size == size for path, size in files)
    return commit if whole else None


def _finish(folder: Path, recipe: GenerateRecipe, facts: dict, commits: list[dict]) -> Result:
    total = {"plan_sha256": storage.sha256((folder / "plan.json").read_bytes())} | manifest(commits)
    storage.write(folder / "README.md", card(recipe, facts, total))
    storage.write(folder / "manifest.json", _json(total))
    return Result(
        folder, total["accepted"], total["real"], total["missing"], by_position(total["shortfall"]), total["reasons"]
    )


def manifest(commits: list[dict]) -> dict:
    """What all commits of a run, in order, come to; with the hash of plan.json the contents of manifest.json."""
    rejected = sum((Counter(commit["rejected"]) for commit in commits), Counter())
    return {
        "recipe_sha256": commits[0]["recipe_sha256"],
        "versions": _all_versions(commits),
        "accepted": sum(commit["accepted"] for commit in commits),
        "real": sum(commit["real"] for commit in commits),
        "missing": sum(len(commit["missing"]) for commit in commits),
        "rejected": dict(sorted(rejected.items())),
        "counts": add_quotas(commit["counts"] for commit in commits),
        "shortfall": add_quotas(commit["shortfall"] for commit in commits),
        "reasons": _add_reasons(commit["reasons"] for commit in commits),
        "files": [file for commit in commits for file in commit["files"]],
        "commits": [fingerprint(commit) for commit in commits],
    }


def _all_versions(commits: list[dict]) -> dict[str, list[str]]:
    """The versions that commits were made with, one for each name unless a run went on with others."""
    found = {(name, version) for commit in commits for name, version in commit["versions"].items()}
    return {name: sorted(v for n, v in found if n == name) for name in sorted({name for name, _ in found})}


def fingerprint(commit: dict) -> str:
    """sha256 of all that a commit says but the seconds it took, which differ from one time to the next."""
    return storage.sha256(json.dumps(commit | {"seconds": {}}, sort_keys=True))


def add_quotas(tables: Iterable[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    """The sum of tables {"position" or "position/alphabet": {character: count}}, in order, zeros kept."""
    total: dict[str, dict[str, int]] = {}
    for table in tables:
        for key, counts in table.items():
            sums = total.setdefault(key, {})
            for character, count in counts.items():
                sums[character] = sums.get(character, 0) + count
    return {
        key: dict(sorted(total[key].items())) for key in sorted(total, key=lambda key: (int(key.split("/")[0]), key))
    }


def _add_reasons(tables: Iterable[dict]) -> dict[str, dict[str, dict[str, int]]]:
    """The sum of tables {position: {character: {reason: count}}}, in order of positions and characters."""
    total: dict[str, dict[str, Counter]] = {}
    for position, table in (item for table in tables for item in table.items()):
        for character, counts in table.items():
            total.setdefault(position, {}).setdefault(character, Counter()).update(counts)
    return {p: {c: dict(sorted(total[p][c].items())) for c in sorted(total[p])} for p in sorted(total, key=int)}


def by_position(table: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """{"position/alphabet": {character: count}} summed over alphabets, zeros left out."""
    merged = add_quotas({key.split("/", 1)[0]: counts} for key, counts in table.items())
    shown = {position: {c: n for c, n in counts.items() if n} for position, counts in merged.items()}
    return {position: counts for position, counts in shown.items() if counts}


def _json(data: dict) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
