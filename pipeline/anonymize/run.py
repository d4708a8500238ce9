"""run: anonymize, the same dataset with other plates: its folder, its shards, going on after a kill, publishing.

A picture is written only when all of its plates are settled, under a number, in the folder of what is unfinished. When
all are, they get their names, and the annotations that go with them are written; then the output is searched.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TextIO

from platemint.pipeline import engines, lock, storage
from platemint.pipeline.anonymize.audit import Audit, all_versions, as_dict, may_leave, sha256_of_files, what_stays
from platemint.pipeline.anonymize.detector import look
from platemint.pipeline.anonymize.not_replaced import PICTURE, place_of
from platemint.pipeline.anonymize.plan import AUDIT, PAGE, AnonymizePlan, AnonymizeShard, rewritten
from platemint.pipeline.anonymize.pseudonyms import KEY_BYTES
from platemint.pipeline.anonymize.read_texts import is_wanted
from platemint.pipeline.anonymize.replacement import ENHANCED
from platemint.pipeline.anonymize.search import scan
from platemint.pipeline.anonymize.shard import Work
from platemint.pipeline.anonymize.unfinished import UNFINISHED, Unfinished, digest
from platemint.pipeline.corpora import containers
from platemint.pipeline.corpora.checks import WITHHELD
from platemint.pipeline.corpora.datasets import Dataset, Frame
from platemint.pipeline.plate import Failure, PlatemintError
from platemint.pipeline.progress import Count
from platemint.pipeline.recipe import AnonymizeRecipe
from platemint.pipeline.report.audit_page import page
from platemint.pipeline.report.gallery import Gallery, NewPlate, anonymized_gallery
from platemint.pipeline.storage import read_json
from platemint.pipeline.versions import changed, versions

OURS = {"pictures", "plates", "source_texts", "given_up"}  # by which our audit.json is known
WORTH_A_PROCESS = 64  # pictures; one process anonymizes tens in the time that another takes to start


@dataclass(frozen=True)
class Settled:
    """What became of all pictures. dataset: with those that cannot be opened set aside. texts: {picture: {old: new}}.

    written: {picture: its number in the dataset}. plates: of these, as their commits have them.
    """

    dataset: Dataset
    texts: dict[str, dict[str, str]]
    written: dict[str, int]
    plates: dict[str, list[dict]]
    audit: Audit

    @property
    def kept(self) -> Dataset:
        """The dataset without the frames that are not written, whose texts stay known as lost."""
        return _without(self.dataset, self.written)

    def new_text(self, frame: Frame, old: str) -> str:
        """What the plates of a frame read from now on that read `old`."""
        return self.texts[frame.path][old]

    def rewritten(self) -> dict[str, tuple[str, bytes | None]]:
        """New path and bytes of every file; see `rewrite_dataset`."""
        return rewritten(self.kept, self.new_text)


def anonymize(
    recipe: AnonymizeRecipe,
    progress: TextIO | None = None,
    plan: AnonymizePlan | None = None,
    accept_versions: bool = False,
    overwrite: bool = False,
) -> dict:
    """Writes the dataset of recipe.source anew, with other plates, into the recipe's folder; returns its audit.

    Goes on where an earlier start of the same recipe was interrupted. progress: a stream to report on. plan: of the
    recipe, where there is one already. accept_versions: go on with other versions of what decides bytes than the run was
    begun with. overwrite: begin anew, with all removed that the folder holds of an earlier run, finished or not.
    Raises PlatemintError as `AnonymizePlan` does, where the folder cannot be written, and where it holds anything or
    another run that was interrupted; Failure where another process is writing it.
    """
    plan = plan or AnonymizePlan(recipe, progress=progress)
    with lock.held(recipe.folder):
        if overwrite:
            _remove(Unfinished(recipe.folder))
        return _carried_out(plan, progress, accept_versions)


def _remove(record: Unfinished) -> None:
    """Removes an output of anonymize, finished or not, with all that its folder holds; nothing of any other folder."""
    try:
        finished = read_json(record.folder / AUDIT).keys() >= OURS
    except (PlatemintError, AttributeError):
        finished = False
    if finished:
        record.mark.mkdir(exist_ok=True)  # first: what a kill leaves of the dataset shall not pass for whole
    record.refuse_others()
    if record.mark.is_dir():
        record.clear()


def _carried_out(plan: AnonymizePlan, progress: TextIO | None, accept_versions: bool) -> dict:
    recipe, record = plan.recipe, Unfinished(plan.recipe.folder)
    record.refuse_others()
    secret = _secret(plan, record)
    shards, facts = plan.draw(secret), plan.facts(secret)
    stored = record.facts()
    commits = _commits(record, shards) if stored else {}
    if stored:
        _refuse_another_run(record, stored, facts)
        if not accept_versions:
            _refuse_other_versions(record, [stored, *commits.values()])
    with _writing(recipe.folder):
        commits, kept = _whole(plan, record, shards, commits)
        record.clear([*kept, record.secret_file, record.plan_file] if stored else ())
    if not stored:
        record.begin(None if plan.key else secret, facts)
    todo = [shard for shard in shards if shard.number not in commits]
    commits |= _anonymized(plan, Work(plan.anonymizer, plan.dataset.root, record, facts["secret"]), todo, progress)
    return _finished(plan, record, [commits[shard.number] for shard in shards], progress)


def _secret(plan: AnonymizePlan, record: Unfinished) -> bytes:
    """What a run's texts are drawn from: that of the run that was interrupted, else a new one. A key gives one itself."""
    if plan.key:
        return hmac.digest(plan.key, b"platemint anonymize run", "sha256")
    return record.secret() or secrets.token_bytes(KEY_BYTES)


def _refuse_another_run(record: Unfinished, stored: dict, facts: dict) -> None:
    """Raises PlatemintError where an interrupted run differs from this one in what decides its bytes."""
    if stored.get("secret") != facts["secret"]:
        changes = ["the key, or the secret that the run keeps"]
    else:
        changes = [f"the {name}" for name in ("dataset", "networks") if stored.get(name) != facts[name]]
        changes += [field for field, digest in facts["recipe"].items() if stored["recipe"].get(field) != digest]
    if changes:
        raise PlatemintError(
            f"{record.folder}: holds an interrupted run, and since then there have changed: {', '.join(changes)}. Undo that "
            "to go on, --overwrite to remove it and begin anew, or choose another --out"
        )


def _refuse_other_versions(record: Unfinished, made: Iterable[dict]) -> None:
    """Raises PlatemintError where a run was begun, or any of its shards made, with other versions."""
    if changes := dict.fromkeys(change for old in made for change in changed(old["versions"], versions())):
        raise PlatemintError(
            f"{record.folder}: holds an interrupted run made with other versions ({'; '.join(changes)}), and its bytes may "
            "depend on them: install those it was made with, choose another --out, or go on with --accept-versions"
        )


def _commits(record: Unfinished, shards: Sequence[AnonymizeShard]) -> dict[int, dict]:
    """The commits there are, by their shard's number."""
    found = {}
    for shard in shards:
        try:
            found[shard.number] = read_json(record.commit(shard.number))
        except PlatemintError:  # the shard has to be computed, or computed again
            continue
    return found


def _whole(
    plan: AnonymizePlan, record: Unfinished, shards: Sequence[AnonymizeShard], commits: dict[int, dict]
) -> tuple[dict[int, dict], list[Path]]:
    """The commits whose files are all there, and these files and theirs.

    Where every shard has its commit, pictures may have got their names already.
    """
    published = {}
    if commits and len(commits) == len(shards):
        settled = _settled(plan, commits.values())
        names = settled.rewritten()
        published = {number: record.folder / names[path][0] for path, number in settled.written.items()}
    whole, kept = {}, []
    for number, commit in commits.items():
        files = [(_there(record, published, f), f) for f in commit["frames"] if "bytes" in f]
        if all(_is_written(path, frame) for path, frame in files):
            whole[number] = commit
            kept += [record.commit(number), *(path for path, _ in files)]
    return whole, kept


def _is_written(path: Path, frame: dict) -> bool:
    """Whether a picture is there, to the byte."""
    there = path.is_file() and path.stat().st_size == frame["bytes"]
    return there and digest(path.read_bytes()) == frame.get("sha256")


def _there(record: Unfinished, published: dict[int, Path], frame: dict) -> Path:
    """Where a frame's picture is, or should be."""
    path = record.picture(frame["frame"])
    return path if path.is_file() else published.get(frame["frame"], path)


def _anonymized(
    plan: AnonymizePlan, work: Work, todo: list[AnonymizeShard], progress: TextIO | None
) -> dict[int, dict]:
    """Has shards anonymized; their commits, by number."""
    pictures, commits = sum(len(shard.numbers) for shard in todo), {}
    reporter = Count(len(plan.dataset.frames), progress, "pictures")
    reporter.resume(len(plan.dataset.frames) - pictures)
    recipe, worth = plan.recipe, pictures // WORTH_A_PROCESS
    team = engines.team(recipe.engine, len(todo), worth, plan.gpus, cores_each=1, batch_cores=recipe.edit.threads)
    tick = _ticking(reporter) if team.here else None
    work = replace(work, threads=team.threads, tick=tick)
    try:
        for commit in team.each(work, todo, recipe.folder):
            commits[commit["shard"]] = commit
            if not tick:
                reporter.add(len(commit["frames"]), 0)
    except storage.NoRoom as fault:
        raise Failure(f"{fault}{_rest_takes(pictures, commits.values())}") from fault
    reporter.close()
    return commits


def _rest_takes(pictures: int, commits: Iterable[dict]) -> str:
    """What the pictures that are left take on disk, by those that are finished."""
    sizes = [frame.get("bytes", 0) for commit in commits for frame in commit["frames"]]
    left = pictures - len(sizes)
    return (
        f". The {left:,} pictures that are left take about {sum(sizes) * left // len(sizes):,} bytes" if sizes else ""
    )


def _ticking(reporter: Count) -> Callable[[], None]:
    """Counts a picture, for several threads."""
    lock = Lock()

    def tick() -> None:
        with lock:
            reporter.add(1, 0)

    return tick


def _settled(plan: AnonymizePlan, commits: Iterable[dict]) -> Settled:
    """What commits say became of every picture of the dataset."""
    dataset = replace(plan.dataset, set_aside=[*plan.dataset.set_aside], lost=[*plan.dataset.lost])
    audit, texts, written, plates = Audit(), {}, {}, {}
    found = {item["frame"]: item for commit in commits for item in commit["frames"]}
    for number, frame in enumerate(dataset.frames):
        item = found[number]
        if "aside" in item:
            dataset.put_aside(frame.path, "", item["aside"])
            dataset.lost += [annotation.text for annotation in frame.annotations]
            continue
        audit.count(frame, item["plates"])
        if "bytes" in item:
            audit.pixels.update(item["pixels"])
            new = plan.new_texts(frame)
            outcomes = zip((annotation.text for annotation in frame.annotations), item["plates"])
            texts[frame.path] = {old: "" if p["attempt"] < 0 else new[old][p["attempt"]] for old, p in outcomes}
            written[frame.path], plates[frame.path] = number, item["plates"]
    return Settled(dataset, texts, written, plates, audit)


def _without(dataset: Dataset, written: Container[str]) -> Dataset:
    kept, lost = ([f for f in dataset.frames if (f.path in written) is there] for there in (True, False))
    return replace(
        dataset,
        frames=kept,
        lost=dataset.lost + [annotation.text for frame in lost for annotation in frame.annotations],
    )


def _finished(plan: AnonymizePlan, record: Unfinished, commits: list[dict], progress: TextIO | None) -> dict:
    """Publishes what all shards have made, searches it, and ends the run; returns the audit."""
    recipe, folder = plan.recipe, record.folder
    settled = _settled(plan, commits)
    audit, kept = settled.audit, settled.kept
    names = _published(record, settled)
    audit.left_out = containers.left_out(settled.dataset, names)
    audit.kept, audit.sha256 = what_stays(kept, names), sha256_of_files(folder)
    audit.scan = scan(folder, plan.texts, (UNFINISHED, *lock.FILES))
    if plan.detector:
        audit.detector = look(plan.detector, folder, {names[f.path]: f for f in kept.frames}, progress)
    if is_wanted(recipe):
        reading, finds = audit.unknown.facts(kept, recipe, names)
        audit.reading = reading | {"texts": plan.read}
        audit.detector |= finds
    audit.given_up.aside(kept.set_aside)
    for path in kept.withheld:
        audit.given_up.picture(path, PICTURE, WITHHELD)
    if recipe.list_file:
        audit.given_up.write(place_of(recipe.list_file, (recipe.source.path, folder)))
    facts = as_dict(audit, plan, settled.dataset, all_versions(commits))
    storage.write(folder / AUDIT, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    shown = _gallery(record, settled, names) if may_leave(facts) else Gallery([], 0)
    storage.write(folder / PAGE, page(facts, recipe, ENHANCED, shown, audit.scores))
    record.end(may_leave(facts))  # else the mark stays: the folder must not look finished
    return facts


def _gallery(record: Unfinished, settled: Settled, names: dict[str, str]) -> Gallery:
    """New plates, cut out of the pictures that are written; those of one file are still beside it, by number."""
    published = {number: record.folder / names[path] for path, number in settled.written.items()}
    plates = []
    for frame in settled.kept.frames:
        file = _there(record, published, {"frame": settled.written[frame.path]})
        for place, (annotation, plate) in enumerate(zip(frame.annotations, settled.plates[frame.path])):
            text = settled.new_text(frame, annotation.text)
            plates.append(NewPlate(file, frame.annotations, place, text, plate["reason"], plate["scores"]))
    return anonymized_gallery(plates)


def _published(record: Unfinished, settled: Settled) -> dict[str, str]:
    """Gives finished pictures their new names, and writes the annotations that go with them; returns {old: new}."""
    becomes, kept = settled.rewritten(), settled.kept
    if kept.format in containers.CONTAINERS:
        with _writing(record.folder):
            new = containers.reworded(kept, settled.new_text)
            containers.write_containers(
                kept, new, lambda path: record.picture(settled.written[path]).read_bytes(), record.folder
            )
        return new.paths
    for old, (new, data) in becomes.items():
        with _writing(record.folder):
            if data is not None:
                storage.write(record.folder / new, data)
            elif (made := record.picture(settled.written[old])).is_file():  # else it has its name since before a kill
                (record.folder / new).parent.mkdir(parents=True, exist_ok=True)
                made.replace(record.folder / new)
    return {old: new for old, (new, _) in becomes.items()}


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, PlatemintError) as fault:
        cause = fault.__cause__ or fault  # of `storage.write`, which names a file: it may be a real picture's name
        if not isinstance(cause, OSError):
            raise
        needed = f"; {fault.needed:,} bytes more are needed" if isinstance(fault, storage.NoRoom) else ""
        raise Failure(
            f"{folder}: cannot be written ({cause.strerror}{needed}): make room or make the folder writable, and run the "
            "same command again: it goes on; or choose another --out"
        ) from None
