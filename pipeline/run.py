"""A run: its folder, its lock, going on after an interruption, and the manifest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from time import perf_counter
from typing import TextIO

from platemint.pipeline import engines, exports, lock, storage, write
from platemint.pipeline.balance.quotas import add_quotas
from platemint.pipeline.croissant import croissant
from platemint.pipeline.dataset_card import card, meanings
from platemint.pipeline.engines import Team
from platemint.pipeline.object_store import ObjectPath
from platemint.pipeline.plan import Earlier, Plan, Shard, in_files, is_added_to, make_plan, plan_file, stored_plans
from platemint.pipeline.plate import Failure, PlatemintError
from platemint.pipeline.progress import Progress
from platemint.pipeline.recipe import NOT_IN_HASH, GenerateRecipe, dump, recipe_hash
from platemint.pipeline.shard import make_plates, run_shard
from platemint.pipeline.stages import Stages
from platemint.pipeline.storage import read_json
from platemint.pipeline.versions import changed, versions

WITH_A_PAGE = 1_000_000  # plates at most of a run whose page is made at its end; `report` makes that of a larger one
TRIAL = 8  # plates made for an estimate
LOOKED_AT = 64  # photographs that are looked at for one
LOOKS = 16  # shards that are looked at at a time: an object store takes its while to answer
WORTH_A_PROCESS = 1000  # plates; one process makes hundreds with its threads in the time that another takes to start


@dataclass(frozen=True)
class Result:
    """What a run came to. shortfall: quotas that could not be filled, {position: {character: missing}}.

    reasons: why, {position: {character: {reason: plates dropped for it}}}. exported: what `write.also` has asked for.
    """

    folder: Path | ObjectPath
    accepted: int
    real: int
    missing: int
    shortfall: dict[str, dict[str, int]]
    reasons: dict[str, dict[str, dict[str, int]]]
    exported: tuple[exports.Exported, ...] = ()

    @property
    def exit_code(self) -> int:
        return 3 if self.missing or any(export.set_aside for export in self.exported) else 0


def generate(
    recipe: GenerateRecipe,
    progress: TextIO | None = None,
    stages: Stages | None = None,
    accept_versions: bool = False,
    extend: bool = False,
    overwrite: bool = False,
) -> Result:
    """Carries out a recipe, or goes on where an earlier start of the same recipe was interrupted.

    progress: a stream to report on. accept_versions: go on with other versions of what decides bytes than the run was
    begun with. extend: where the folder holds a run that differs in nothing but a lower count, add what is missing to it,
    as `extension` says. overwrite: remove the run that the folder holds, and begin anew.
    Raises PlatemintError if the folder holds something else than this very run, if the quotas cannot be met by any
    strings, or if the folder cannot be written; Failure if another process is writing it.
    """
    stages = stages or Stages(recipe)
    stages.progress = progress
    stages.ready()
    exports.ready(recipe.folder, recipe.write.also, overwrite or _changes_plates(recipe, extend))
    with lock.held(recipe.folder) as stages.holder:
        _refuse_foreign(recipe.folder)
        if overwrite:
            _remove(recipe.folder)
        return _Run(stages, progress, accept_versions).carried_out(extend)


def repair(
    folder: Path | ObjectPath,
    progress: TextIO | None = None,
    stages: type[Stages] = Stages,
    accept_versions: bool = False,
) -> list[str]:
    """Makes again what is missing or damaged in the folder of a finished run, and nothing else; the shards' commits.

    Raises PlatemintError where the folder holds no run, and where what it was made from is no longer the same; Failure
    where what is made is not what the run ended with.
    """
    plans = stored_plans(folder)
    if not plans:
        raise PlatemintError(f"{folder}: is not a run folder: it holds no plan.json")
    if not (folder / "manifest.json").exists():
        raise PlatemintError(f"{folder}: is not finished: the command that it was begun with goes on with it")
    recipe = GenerateRecipe.model_validate(plans[-1]["recipe"] | {"out": str(folder)})
    opened = stages(recipe)
    opened.progress = progress
    opened.ready()
    with lock.held(folder) as opened.holder:
        run = _Run(opened, progress, accept_versions, _ended_with(folder))
        run.carried_out(extend=False)
    for exported in exports.kept(folder, recipe.write.also) if progress else ():
        print(f"{exported}: is left as it is: remove it and repair again to have it exported anew", file=progress)
    return run.made


def planned(stages: Stages, extend: bool = False, overwrite: bool = False) -> tuple[Plan, str]:
    """What `generate` would do next, with nothing written: the plan, and what is said of an extension.

    Raises PlatemintError as `generate` does, and where the part to be extended is not finished.
    """
    folder = stages.recipe.folder
    counts = [stages.recipe.count] if overwrite else _counts(folder, stages.recipe, extend)
    earlier = Earlier()
    for part, count in enumerate(counts[:-1]):
        before = _with_count(stages, count)
        plan = make_plan(before, earlier)
        commits = [_commit(folder, shard, before.recipe) for shard in plan.shards]
        if not all(commits):
            raise PlatemintError(f"{folder}: {plan_file(part)} is not carried out yet: do that first, then --extend")
        earlier = earlier.after(plan, [commit for commit in commits if commit], folder)
    return make_plan(stages, earlier), extension(stages, earlier) if earlier.parts else ""


def extension(stages: Stages, earlier: Earlier) -> str:
    """What plates that are added to a run are balanced with."""
    recipe = stages.recipe
    what = f"{len(earlier.texts):,} plates stay as they are, {recipe.count - earlier.count:,} are added"
    if not is_added_to(stages.demand):
        what += "; these are balanced by themselves, as the recipe says: with per: character or a table of positions"
    else:
        what += ", so that every position's characters come as the recipe says over all of them together"
    if recipe.balance.pairs:
        what += "; pairs of neighbours are even among the added ones"
    return f"{recipe.folder}: {what}; groups have their shares of all {recipe.count:,}; no text comes twice"


def _with_count(stages: Stages, count: int) -> Stages:
    return stages.for_recipe(stages.recipe.model_copy(update={"count": count}))


class _Run:
    """A run in its folder, which is held. ended_with: fingerprints of the commits that it ended with, by shard.

    Without ended_with a shard counts as finished by its files' sizes; with it, it has to be what it was. made: commits
    of the shards that were made now.
    """

    def __init__(
        self,
        stages: Stages,
        progress: TextIO | None,
        accept_versions: bool,
        ended_with: dict[int, str] | None = None,
    ):
        self.recipe, self.stages, self.folder = stages.recipe, stages, stages.recipe.folder
        self.progress, self.accept_versions, self.ended_with = progress, accept_versions, ended_with
        self.reporter = Progress(stages.recipe.count, progress)
        self.made: list[str] = []
        self.before: dict[int, str] = {}  # fingerprints of commits that are not those the run ended with

    def carried_out(self, extend: bool) -> Result:
        earlier, commits, shards = Earlier(), [], []
        for count in _counts(self.folder, self.recipe, extend):
            stages = _with_count(self.stages, count)
            plan = make_plan(stages, earlier)
            if earlier.parts and self.progress and not (self.folder / plan_file(earlier.parts)).exists():
                print(extension(stages, earlier), file=self.progress)
            done = self._part(plan, stages, earlier.parts, sum(commit["accepted"] for commit in commits))
            commits += done
            shards += plan.facts["shards"]
            if count != self.recipe.count:
                earlier = earlier.after(plan, done, self.folder)
        self.reporter.tell(end=True)
        self._refuse_other_bytes(commits)
        result = _finish(self.folder, self.recipe, shards, commits)
        exported = exports.export_run(self.folder, self.recipe.write.also, self.progress)
        if self.recipe.count <= WITH_A_PAGE:
            from platemint.pipeline.report.run_page import write_page

            write_page(self.folder, stages=self.stages, plan=None if earlier.parts else plan)
        return replace(result, exported=exported)

    def _part(self, plan: Plan, stages: Stages, part: int, before: int) -> list[dict]:
        """Makes what is left of a part; its commits, in order. before: plates of the earlier ones."""
        folder, recipe = self.folder, stages.recipe
        facts = plan.facts | {"checkpoints": stages.checkpoints, "device": stages.device}
        if stages.references:
            facts["references"] = stages.references.fingerprint
        _refuse_another_run(folder, plan_file(part), facts)
        with ThreadPool(LOOKS) as pool:
            found = pool.map(partial(self._finished, recipe=recipe), plan.shards)
        commits = {shard.number: commit for shard, commit in zip(plan.shards, found) if commit}
        todo = [shard for shard in plan.shards if shard.number not in commits]
        if todo and not self.accept_versions:
            _refuse_other_versions(folder, plan_file(part), commits.values())
        _clear(folder, {shard.commit for shard in todo})
        _open_folder(folder, plan_file(part), recipe, facts, stages.sources.set_aside)
        self.reporter.resume(before + sum(commit["accepted"] for commit in commits.values()))
        team = _team(stages, todo)
        try:
            with _work(plan, stages, team, self.reporter) as work:
                for commit in team.each(work, todo, folder):
                    commits[commit["shard"]] = commit
                    if not team.here:
                        self.reporter.add(commit["accepted"], sum(commit["rejected"].values()))
        except storage.NoRoom as fault:
            raise Failure(f"{fault}{_rest_takes(plan.shards, commits)}") from fault
        self.made += [shard.commit for shard in todo]
        return [commits[number] for number in sorted(commits)]

    def _finished(self, shard: Shard, recipe: GenerateRecipe) -> dict | None:
        """The commit of a finished shard, None where it has to be made (again)."""
        commit = _commit(self.folder, shard, recipe, by_hash=self.ended_with is not None)
        if commit and (self.ended_with or {}).get(shard.number, fingerprint(commit)) != fingerprint(commit):
            self.before[shard.number] = fingerprint(commit)
            return None
        return commit

    def _refuse_other_bytes(self, commits: list[dict]) -> None:
        """Raises Failure where a shard that was made again is neither what the run ended with nor what it was before."""
        ended, made = self.ended_with or {}, {commit["shard"]: fingerprint(commit) for commit in commits}
        other = [n for n, one in made.items() if one not in (ended.get(n, one), self.before.get(n))]
        if other and not self.accept_versions:
            raise Failure(
                f"{self.folder}: shard {other[0]} was made again, and it is not the one that the run ended with, on which "
                "its manifest insists: repair it on the kind of machine it was made on, restore it, or begin the run anew "
                "with --overwrite"
            )


def _ended_with(folder: Path | ObjectPath) -> dict[int, str]:
    """Fingerprints of the commits that a run ended with, by shard; none where its manifest does not tell."""
    try:
        return dict(enumerate(read_json(folder / "manifest.json")["commits"]))
    except (PlatemintError, LookupError, TypeError):
        return {}


def _rest_takes(shards: list[Shard], commits: dict[int, dict]) -> str:
    """What the shards that are left take on disk, by those that are finished."""
    rows = {shard.number: len(shard.index) + len(shard.real) for shard in shards}
    done, size = sum(rows[n] for n in commits), sum(f["bytes"] for c in commits.values() for f in c["files"])
    left = sum(rows.values()) - done
    return f". The {left:,} plates that are left take about {size * left // done:,} bytes" if done else ""


def _team(stages: Stages, shards: list[Shard]) -> Team:
    plates, recipe = sum(len(shard.index) for shard in shards), stages.recipe
    worth, batch_cores = plates // WORTH_A_PROCESS, recipe.edit.threads
    return engines.team(recipe.engine, len(shards), worth, stages.gpus, batch_cores=batch_cores)


@contextmanager
def _work(plan: Plan, stages: Stages, team: Team, reporter: Progress) -> Iterator[Callable[[Shard], dict]]:
    """What runs a shard: here, where its batches are reported too, or by workers, which are sent only this."""
    run = partial(run_shard, threads=team.threads)
    if team.here:
        yield partial(run, stages=stages, rules=plan.rules, tick=reporter.add)
        return
    with in_files(plan, stages) as (for_workers, rules):
        yield partial(run, stages=for_workers, rules=rules)


def estimate_run(plan: Plan, stages: Stages) -> dict[str, float]:
    """Bytes on disk and seconds the run will take, from really making its first few plates (0: none accepted)."""
    recipe = stages.recipe
    _ = stages.edit, stages.filter  # loaded before the clock starts
    start = perf_counter()
    made = make_plates(plan.shards[0].part(slice(TRIAL)), stages)
    seconds = perf_counter() - start
    kept, dropped = [*made.kept.values()], made.dropped
    size = len(write.parquet(kept, write.schema(recipe))) + len(write.parquet(dropped, write.schema(recipe, True)))
    scale = recipe.count / len(kept) if kept else 0.0
    team = _team(stages, plan.shards)
    seconds = scale * seconds / (team.workers * team.threads) + stages.seconds_of_looks
    return {"bytes": scale * size, "seconds": seconds}


def _refuse_foreign(folder: Path | ObjectPath) -> None:
    """Raises PlatemintError where a folder holds anything and is no run's."""
    if not (folder / plan_file(0)).exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise PlatemintError(f"{folder}: holds files that are not a run's: choose another --out")


def _remove(folder: Path | ObjectPath) -> None:
    """Removes the files of a run, and no other; its plans last, so that until then the folder is known for a run's."""
    from platemint.pipeline.report.run_page import PAGE_WITH_SOURCES

    plans = stored_plans(folder)
    ours = {shard[kind] for plan in plans for shard in plan["shards"] for kind in ("commit", "data", "dropped")}
    for path in [*folder.rglob("*")] if ours else ():
        if path.relative_to(folder).as_posix() in ours:
            path.unlink()
    for name in ("manifest.json", "README.md", "set_aside.csv", "recipe.yaml", PAGE_WITH_SOURCES) if plans else ():
        (folder / name).unlink(missing_ok=True)
    for part in reversed(range(len(plans))):
        (folder / plan_file(part)).unlink()


def _clear(folder: Path | ObjectPath, commits: set[str]) -> None:
    """Removes what a kill has left, and commits of shards that have to be made (again)."""
    for path in [*folder.rglob("*")]:
        half = path.name.startswith(".") and path.name.endswith(storage.TEMPORARY)
        if half or path.relative_to(folder).as_posix() in commits:
            path.unlink()


def _open_folder(
    folder: Path | ObjectPath, plan: str, recipe: GenerateRecipe, facts: dict, set_aside: list[dict]
) -> None:
    """Makes the folder a run's."""
    if not (folder / plan).exists():
        storage.commit(folder / plan, _json(facts))  # first: it makes the folder a run's
    storage.write(folder / "recipe.yaml", dump(recipe))
    storage.write(folder / "set_aside.csv", write.rows_as_csv(set_aside, ("path", "row", "reason")))


def _counts(folder: Path | ObjectPath, recipe: GenerateRecipe, extend: bool) -> list[int]:
    """How many plates the run has at the end of each of its parts. Raises PlatemintError where the folder holds another."""
    plans = stored_plans(folder)
    if not plans:
        return [recipe.count]
    there, count = [plan["recipe"]["count"] for plan in plans], recipe.count
    changes = _changes(plans[-1]["recipe"], recipe.model_dump(mode="json", exclude=NOT_IN_HASH))
    grows = count > there[-1] and len(changes) == 1
    if not changes:
        return there
    if grows and extend:
        return [*there, count]
    more = f"--extend to add {count - there[-1]:,} plates and leave those that are there, " if grows else ""
    raise _another_run(folder, changes, more)


def _changes_plates(recipe: GenerateRecipe, extend: bool) -> bool:
    """Whether a run is not finished yet, or is to be extended. Raises PlatemintError where the folder holds another."""
    grows = len(_counts(recipe.folder, recipe, extend)) > len(stored_plans(recipe.folder))
    return grows or not (recipe.folder / "manifest.json").exists()


def _another_run(folder: Path | ObjectPath, changes: Iterable[str], remedy: str = "") -> PlatemintError:
    return PlatemintError(
        f"{folder}: holds another run ({'; '.join(changes)}): undo the change to go on with it, {remedy}--overwrite to "
        "remove it and begin anew, or choose another --out"
    )


def _refuse_another_run(folder: Path | ObjectPath, plan: str, facts: dict) -> None:
    """Raises PlatemintError where a folder is not this very run's."""
    if not (folder / plan).exists():
        return
    stored = read_json(folder / plan)
    different = [key for key in facts if key != "versions" and stored.get(key) != facts[key]]
    if different:
        changes = _changes(stored.get("recipe", {}), facts["recipe"])
        raise _another_run(folder, changes or [f"{key} have changed since" for key in different])


def _refuse_other_versions(folder: Path | ObjectPath, plan: str, commits: Iterable[dict]) -> None:
    """Raises PlatemintError where a run was begun, or any of its shards made, with other versions."""
    begun = [read_json(folder / plan)] if (folder / plan).exists() else []
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


def _commit(folder: Path | ObjectPath, shard: Shard, recipe: GenerateRecipe, by_hash: bool = False) -> dict | None:
    """The commit of a finished shard, None where it has to be made (again). Raises if another recipe's lies there.

    by_hash: its files have to be the very bytes, not only as many.
    """
    try:
        commit = read_json(folder / shard.commit)
        whole = all(_is_there(folder, file, by_hash) for file in commit["files"])
    except (PlatemintError, LookupError, TypeError):
        return None
    if commit["recipe_sha256"] != recipe_hash(recipe):
        if by_hash:
            return None
        raise PlatemintError(
            f"{folder / shard.commit}: was made by another recipe: --overwrite begins anew, or choose another --out"
        )
    return commit if whole else None


def _is_there(folder: Path | ObjectPath, file: dict, by_hash: bool) -> bool:
    path = folder / file["path"]
    there = path.is_file() and path.stat().st_size == file["bytes"]
    return there and (not by_hash or storage.sha256(path.read_bytes()) == file["sha256"])


def _finish(folder: Path | ObjectPath, recipe: GenerateRecipe, shards: list[dict], commits: list[dict]) -> Result:
    total = {"plan_sha256": plans_sha256(folder)} | manifest(commits)
    storage.write(folder / "README.md", card(recipe, shards, total))
    storage.write(folder / "croissant.json", croissant(recipe, total, write.schema(recipe), meanings(recipe)))
    storage.write(folder / "manifest.json", _json(total))
    return Result(
        folder, total["accepted"], total["real"], total["missing"], by_position(total["shortfall"]), total["reasons"]
    )


def plans_sha256(folder: Path | ObjectPath) -> str:
    """Of the plans of all parts, one behind the other."""
    files = (folder / plan_file(part) for part in range(len(stored_plans(folder))))
    return storage.sha256(b"".join(file.read_bytes() for file in files))


def manifest(commits: list[dict]) -> dict:
    """What all commits of a run, in order, come to; with the hash of its plans the contents of manifest.json."""
    rejected = sum((Counter(commit["rejected"]) for commit in commits), Counter())
    return {
        "recipe_sha256": commits[-1]["recipe_sha256"],
        "versions": _all_versions(commits),
        "accepted": sum(commit["accepted"] for commit in commits),
        "read_otherwise": sum(commit.get("read_otherwise", 0) for commit in commits),  # older commits do not say
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
