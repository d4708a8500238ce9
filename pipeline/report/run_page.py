"""report.html: what a run came to, in one file, for whoever has to say whether to train on it.

The page needs no network and loads nothing: its pictures, style and script are in it. It is made from the run's files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from platemint.pipeline import storage
from platemint.pipeline.corpora.kinds import kinds_by_source
from platemint.pipeline.object_store import ObjectPath, fetched, place
from platemint.pipeline.plan import Plan, make_plan, plan_file
from platemint.pipeline.plate import FOLD, Plate, PlatemintError
from platemint.pipeline.recipe import GenerateRecipe, load_recipe
from platemint.pipeline.report.gallery import SourceOf, gallery
from platemint.pipeline.report.inspect import PATTERN, figure, inspect
from platemint.pipeline.report.page import (
    BINS,
    MOST_ROWS,
    OTHERWISE,
    Remark,
    bound_of,
    for_script,
    heat_maps,
    histograms,
    read_otherwise,
    rendered_page,
    shares,
)
from platemint.pipeline.stages import Stages
from platemint.pipeline.write import SAYS, scores

PAGE = "report.html"
PAGE_WITH_SOURCES = "report-sources.html"  # a name of its own: the other page may be passed on
FEW_SOURCES = 100  # photographs, below which a page says that there are few
MOST_PATTERNS = 8  # of texts, in the table of those that were dropped
OTHER_REASONS = {
    "swapped": "it passed; then it exchanged characters with a text that could not be made, and was made anew"
}
MANY_DROPPED = 0.5  # share of tries that were dropped, from which on a page says so


def run_page(folder: Path, with_sources: bool = False, stages: Stages | None = None, plan: Plan | None = None) -> str:
    """The page of a finished generate or rebalance run, as HTML.

    with_sources: show photographs of the corpus beside their edits; renderings are shown in any case. stages, plan: of
    the run, where they are at hand. Raises PlatemintError where the folder holds no finished run.
    """
    manifest, facts = _finished(folder)
    recipe = load_recipe(folder / "recipe.yaml")
    if not isinstance(recipe, GenerateRecipe):
        raise PlatemintError(f"{folder}: is a run of {recipe.task}: pages are made of generate and rebalance")
    rendered = [not part.source.path for part in recipe.parts]
    shown_sources = (any(rendered) or with_sources) and not (folder / plan_file(1)).exists()  # of an extended run none
    source_of = _source_of(stages or Stages(recipe), plan, with_sources) if shown_sources else None
    commits = [storage.read_json(path) for path in sorted(folder.glob("commits/*.json"))]
    columns = _columns(folder, recipe)
    shown = gallery(folder, source_of, recipe.seed)
    report = inspect(folder, **_before(recipe))
    return rendered_page(
        "run_page.html",
        recipe=recipe,
        manifest=manifest,
        facts=facts,
        headline=_headline(recipe, manifest),
        remarks=_remarks(recipe, manifest, report, columns),
        photographs=with_sources and not all(rendered),
        heat_maps=heat_maps(report),
        shares=shares(report),
        kind_marks=report["kind_marks"],
        histograms=_histograms(recipe, columns),
        reasons=_reasons(recipe, manifest),
        patterns=_dropped_patterns(columns),
        kinds=_kinds(recipe, columns),
        uses=_uses(columns),
        rates=_rates(commits),
        shortfall=manifest["shortfall"],
        lpr=_lpr(folder),
        recipe_text=(folder / "recipe.yaml").read_text(encoding="utf8"),
        gallery=for_script(shown, scores(recipe), recipe.filter.model_dump()),
        shown=shown,
    )


def write_page(
    folder: Path | ObjectPath, with_sources: bool = False, stages: Stages | None = None, plan: Plan | None = None
) -> Path | ObjectPath:
    """Writes `run_page` into the run's folder, and returns its path; from an object store the run is fetched for it.

    Raises as `run_page` does.
    """
    page = folder / (PAGE_WITH_SOURCES if with_sources else PAGE)
    storage.write(page, run_page(fetched(folder), with_sources, stages, plan))
    return page


def _finished(folder: Path) -> tuple[dict, dict]:
    if not (folder / "manifest.json").is_file() or not (folder / "plan.json").is_file():
        raise PlatemintError(f"{folder}: holds no finished run (no manifest.json): start it again to finish it")
    return storage.read_json(folder / "manifest.json"), storage.read_json(folder / "plan.json")


def _before(recipe: GenerateRecipe) -> dict:
    """What `inspect` compares a run with: the corpus it was made from, where that is still there."""
    source = recipe.source
    there = bool(source.path) and not recipe.sources and place(source.path).exists()
    return {"against": source.path} if there else {}


def _source_of(stages: Stages, plan: Plan | None, with_photographs: bool) -> SourceOf:
    """Finds the plate that a row's was made from, as sampling took it; photographs only where asked for."""
    sources = stages.sources
    corpora = any(part.source.path for part in stages.recipe.parts)
    photos = sources.photos if corpora and with_photographs else ()
    turns = {photo.source: (g, n) for g, group in enumerate(photos) for n, photo in enumerate(group)}
    group, group_index = _places(plan or make_plan(stages))

    def found(row: Mapping) -> Plate | None:
        number = int(group[row["index"]])
        if row["source"] in turns:
            return sources.get(*turns[row["source"]])
        if corpora and sources.groups[number].sources:  # photographs
            return None
        return sources.get(number, sources.turn(number, int(group_index[row["index"]]), row["round"]))

    return found


def _places(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Group and number in the group of every target of a run, by its place in the run."""
    group = np.zeros(sum(len(shard.index) for shard in plan.shards), dtype=np.int64)
    group_index = np.zeros_like(group)
    for shard in plan.shards:
        group[shard.index], group_index[shard.index] = shard.targets.group, shard.targets.group_index
    return group, group_index


def _columns(folder: Path, recipe: GenerateRecipe) -> dict[str, dict[str, np.ndarray]]:
    """Columns without pictures of accepted and of dropped plates; those of origin real are left out."""
    names = ["source", "origin", "split", "text", "reading", *(f"score_{name}" for name in scores(recipe))]
    found = {}
    for kind in ("data", "dropped"):
        tables = [pq.read_table(file, columns=names) for file in sorted(folder.glob(f"{kind}/*.parquet"))]
        columns = {name: np.concatenate([[], *(t[name].to_numpy() for t in tables)]) for name in names}
        made = columns["origin"] != "real"
        found[kind] = {name: column[made] for name, column in columns.items()}
    return found


def _headline(recipe: GenerateRecipe, manifest: dict) -> list[tuple[str, int]]:
    dropped = sum(manifest["rejected"].values())
    return [
        ("asked for", recipe.count),
        ("accepted", manifest["accepted"]),
        ("tries dropped", dropped),
        ("could not be made", manifest["missing"]),
    ]


def _remarks(recipe: GenerateRecipe, manifest: dict, report: dict, columns: dict) -> list[Remark]:
    """What speaks for training on the run, and what against it."""
    tries = manifest["accepted"] + sum(manifest["rejected"].values())
    dropped = 1 - manifest["accepted"] / max(1, tries)
    sources = len(set(columns["data"]["source"].tolist()))
    missing = manifest["missing"]
    return [
        Remark(
            not missing,
            f"{missing:,} planned plates could not be made." if missing else "Every planned plate is there.",
        ),
        _evenness(report),
        Remark(
            dropped < MANY_DROPPED,
            f"{100 * dropped:.1f} % of all tries were dropped.",
        ),
        _variety(recipe, sources, report),
        *_read_otherwise(columns["data"], recipe.filter.min_reader),
        *_never_seen(report),
        *_of_other_splits(recipe, columns["data"]),
        Remark(
            False,
            f"One reader ({recipe.edit.reader}) made all checks. Let another one look, too, that shares no mistake with it.",
        ),
        Remark(
            False,
            "The checks say whether the text can be read. Whether letters look like the plate's own, and whether faint traces of the old "
            "ones are left, they do not say. Look first at the plates with the lowest",
            orders=("slots", "stability"),
        ),
        *_use(recipe, report),
    ]


def _use(recipe: GenerateRecipe, report: dict) -> list[Remark]:
    """How edits of a corpus are used best, by what `evaluate lpr` has shown (docs/measured.md)."""
    if not any(part.source.path for part in recipe.parts):
        return []
    beside = (
        "Meant to be trained on beside the photographs, half of each batch of either; edits alone teach less than both."
    )
    licence = recipe.license or "not named in the recipe (source.license)"
    shows = f"No anonymized copy: vehicles and places are those of the photographs. So is the licence: {licence}."
    return [
        *([] if report["repeated"]["texts"] else [Remark(True, "No text comes twice, and none is one of the corpus.")]),
        Remark(True, beside),
        Remark(bool(recipe.license), shows),
    ]


def _read_otherwise(accepted: dict, least: float) -> list[Remark]:
    """How many accepted plates the reader reads as another text than they were given. least: score that they have to have."""
    found = np.array([read_otherwise(*pair) for pair in zip(accepted["text"].tolist(), accepted["reading"].tolist())])
    others, alike, score = int((found == 2).sum()), int((found == 1).sum()), accepted["score_reader"]
    remarks = [Remark(True, f"On none of {len(found):,} plates the reader reads another text than they were given.")]
    if others:
        text = f"On {others:,} of {len(found):,} plates the reader reads another text than they were given."
        higher = float(np.ceil(100 * np.median(score[found == 2])) / 100)
        right, wrong = (int((score[part] < higher).sum()) for part in (found < 2, found == 2))
        if least < higher < 1:
            text += f" filter.min_reader: {higher:g} instead of {least:g} would have dropped {wrong:,} of them and {right:,} others."
        remarks = [Remark(False, text, reason=OTHERWISE[2])]
    if alike:
        able = sum(text != text.translate(FOLD) for text in accepted["text"].tolist())
        text = (
            f"On {alike:,} plates it takes O or Q for 0, I for 1 or the other way round ({able:,} plates hold O, Q or I). The checks count "
            "these as one, as many typefaces draw them alike."
        )
        remarks.append(Remark(False, text, reason=OTHERWISE[1]))
    return remarks


def _never_seen(report: dict) -> list[Remark]:
    """Characters of the run that no photograph of the corpus shows."""
    if "against" not in report:
        return []
    before, after = (part["balance"]["overall"]["counts"] for part in (report["against"], report))
    new = tuple(c for c, count in after.items() if count and not before.get(c))
    if not new:
        return [Remark(True, "Every character of the run is on a photograph of the corpus.")]
    times = sum(after[c] for c in new)
    text = (
        f"{len(new):,} characters stand on no photograph of the corpus, and {times:,} times in the run. The generator draws them as it "
        "has learned them from other plates and typefaces. Look at them:"
    )
    return [Remark(False, text, characters=new)]


def _of_other_splits(recipe: GenerateRecipe, accepted: dict) -> list[Remark]:
    """Edits of photographs that are not of split train."""
    if not any(part.source.path for part in recipe.parts):
        return []
    others = Counter(split for split in accepted["split"].tolist() if split != "train")
    if not others:
        return []
    named = " and ".join(f"{count:,} of split {split}" for split, count in sorted(others.items()))
    text = f"The plates keep the splits of their photographs: {named}. Train on split train alone, and measure on photographs."
    return [Remark(True, text)]


def _variety(recipe: GenerateRecipe, sources: int, report: dict) -> Remark:
    if not any(part.source.path for part in recipe.parts):
        return Remark(False, "All plates were rendered: there is no real light, dirt or camera in them.")
    of = f", of {report['against']['plates']:,} plates in the corpus" if "against" in report else ""
    return Remark(sources >= FEW_SOURCES, f"The plates were made from {sources:,} different photographs{of}.")


def _evenness(report: dict) -> Remark:
    """Entropy over all characters, before and after."""
    after = report["balance"]["overall"]
    text = f"Digits, letters and the like, each among themselves, have an entropy of {figure(after['entropy'])} (1: all alike)"
    if "against" in report:
        before = report["against"]["balance"]["overall"]
        text += f"; in the corpus it is {figure(before['entropy'])}"
    return Remark(True, text + ".")


def _histograms(recipe: GenerateRecipe, columns: dict) -> list[dict]:
    """Of each score, the accepted and the dropped plates."""
    counts = {
        name: tuple(
            np.histogram(columns[kind][f"score_{name}"], BINS, (0, 1))[0].tolist() for kind in ("data", "dropped")
        )
        for name in scores(recipe)
    }
    return histograms(recipe.filter.model_dump(), counts)


def _reasons(recipe: GenerateRecipe, manifest: dict) -> list[tuple[str, str, int]]:
    """Why plates were dropped: the reason's name, what it means, and how many plates."""
    limits = recipe.filter.model_dump()
    beyond = {"at least": "below", "at most": "above"}
    says = {}
    for name in scores(recipe):
        side, bound = bound_of(limits, name)
        says[name] = f"{SAYS[name]}: {beyond[side]} {bound:g}"
    rows = sorted(manifest["rejected"].items(), key=lambda item: -item[1])
    return [(reason, says.get(reason, OTHER_REASONS.get(reason, "")), count) for reason, count in rows]


def _dropped_patterns(columns: dict) -> list[tuple[str, int, int]]:
    """Patterns of texts of which most plates were dropped: tries, and how many of them were."""
    accepted, dropped = (
        Counter(text.translate(PATTERN) for text in columns[kind]["text"].tolist()) for kind in ("data", "dropped")
    )
    most = dropped.most_common(MOST_PATTERNS)
    return [(name, accepted[name] + count, count) for name, count in most]


def _kinds(recipe: GenerateRecipe, columns: dict) -> list[tuple[str, int, int, int]]:
    """Of each kind that a column of the corpus's table tells apart: its plates in the corpus, accepted, and dropped tries."""
    source = place(recipe.source.path) if recipe.source.path and not recipe.sources else None
    if not isinstance(source, Path) or not source.exists():
        return []
    kinds = kinds_by_source(source)
    accepted, dropped = (
        Counter(kinds.get(number, "") for number in columns[part]["source"].tolist()) for part in ("data", "dropped")
    )
    every = Counter(kinds.values())
    return [(kind or "none", count, accepted[kind], dropped[kind]) for kind, count in every.most_common()]


def _uses(columns: dict) -> dict:
    """How many pictures served how often: {"sources", "most", "rows": [(times, pictures)]}."""
    served = Counter(Counter(columns["data"]["source"].tolist()).values())
    rows = sorted(served.items())
    return {"sources": sum(served.values()), "most": max(served, default=0), "rows": rows[:MOST_ROWS]}


def _rates(commits: Iterable[dict]) -> list[tuple[str, float, float]]:
    """Of each stage its seconds over all threads, and accepted plates per second of it."""
    seconds: Counter = Counter()
    accepted = 0
    for commit in commits:
        seconds.update(commit["seconds"])
        accepted += commit["accepted"]
    return [(stage, value, accepted / value if value else 0.0) for stage, value in seconds.items()]


def _lpr(folder: Path) -> str:
    """The table of `evaluate lpr`, where its report lies in the run's folder."""
    if not (folder / "lpr.json").is_file():
        return ""
    from platemint.pipeline.evaluate.lpr import lpr_as_text

    return lpr_as_text(storage.read_json(folder / "lpr.json"))
