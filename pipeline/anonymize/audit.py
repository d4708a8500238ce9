"""audit: how many plates of a dataset were replaced, redacted or withheld, without naming any."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from platemint.pipeline import lock
from platemint.pipeline.anonymize.not_replaced import GivenUp
from platemint.pipeline.anonymize.plan import AUDIT, PAGE, AnonymizePlan
from platemint.pipeline.anonymize.read_texts import Unknown
from platemint.pipeline.anonymize.search import Scan
from platemint.pipeline.anonymize.unfinished import UNFINISHED
from platemint.pipeline.corpora.datasets import Dataset, Frame, kept_columns
from platemint.pipeline.recipe import AnonymizeRecipe, GenerateRecipe
from platemint.pipeline.report.audit_page import SHA256_COMMAND, audit_settings, not_covered
from platemint.pipeline.report.page import bin_of
from platemint.pipeline.stages import Stages
from platemint.pipeline.versions import versions

OWN = (AUDIT, PAGE)  # files of an anonymized folder that its audit does not count: they are written after it


@dataclass
class Audit:
    """What became of all plates, for people and programs; see `as_dict`."""

    outcomes: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    pictures: Counter = field(default_factory=Counter)
    pixels: Counter = field(default_factory=Counter)
    characters: Counter = field(
        default_factory=Counter
    )  # the source's, on replaced plates; see `Replacement.looked_for`
    scores: Counter = field(default_factory=Counter)  # {(name, whether it was replaced, bin of a histogram): plates}
    given_up: GivenUp = field(default_factory=GivenUp)
    scan: Scan = field(default_factory=Scan)
    unknown: Unknown = field(default_factory=Unknown)
    reading: dict = field(default_factory=dict)  # see `pipeline.anonymize.read_texts.Unknown`; empty where nobody read
    left_out: dict = field(default_factory=dict)  # see `pipeline.corpora.containers.left_out`
    detector: dict = field(default_factory=dict)  # see `pipeline.anonymize.detector.look`; empty where nobody looked
    kept: dict = field(default_factory=dict)  # see `what_stays`
    sha256: str = ""  # see `sha256_of_files`

    def count(self, frame: Frame, plates: list[dict]) -> None:
        """Counts a picture's plates, as a commit has them."""
        withheld = any(plate["outcome"] == "withheld" for plate in plates)
        self.pictures["withheld" if withheld else "written"] += 1
        self.pictures["bare"] += not plates
        for number, (annotation, plate) in enumerate(zip(frame.annotations, plates), 1):
            outcome, reason = plate["outcome"], plate["reason"]
            if withheld:
                outcome, reason = "withheld", reason or "in one picture with another"
            self.outcomes[outcome] += 1
            self.unknown.add(frame.path, annotation, outcome)
            self.scores.update((name, outcome == "replaced", bin_of(score)) for name, score in plate["scores"].items())
            if outcome == "replaced":
                self.characters.update(plate["characters"])
            if reason:
                self.reasons[reason] += 1
                self.given_up.plate(frame.path, number, annotation.text, outcome, reason)


def what_stays(dataset: Dataset, paths: Mapping[str, str]) -> dict:
    """How many pictures keep their path, and which columns stay beside plates' texts. paths: of pictures, old to new."""
    return {
        "picture_paths": sum(paths[frame.path] == frame.path for frame in dataset.frames),
        "columns": kept_columns(dataset),
    }


def sha256_of_files(folder: Path) -> str:
    """One hash of all files of an output but the audit's own, with their paths: what `SHA256_COMMAND` prints there."""
    beside = {folder / name for name in (*OWN, UNFINISHED, *lock.FILES)}
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    names = [os.fsencode(path.relative_to(folder)) for path in files if not beside.intersection((path, *path.parents))]
    listed = hashlib.sha256()
    for name in sorted(names):
        with open(os.path.join(os.fsencode(folder), name), "rb") as file:
            listed.update(hashlib.file_digest(file, "sha256").hexdigest().encode() + b"  ./" + name + b"\0")
    return listed.hexdigest()


def may_leave(audit: dict) -> bool:
    """Whether a folder may be passed on, by its audit.

    No source text was found in it, no character of one is in view, and no pixel outside of a plate has changed.
    """
    faults = audit["source_texts"]["found"], audit["source_characters"]["in_view"], audit["pixels"]["outside"]
    return not any(faults)


def as_dict(audit: Audit, plan: AnonymizePlan, dataset: Dataset, used: Mapping[str, str]) -> dict:
    """The audit, ready for JSON. It names no picture of the dataset, since names may be plates.

    dataset: the plan's, with the pictures that cannot be opened set aside. used: versions.
    """
    recipe = plan.recipe
    aside = {item["path"] for item in dataset.set_aside}
    left_out = [{"file": file, "pictures": numbers} for file, numbers in audit.left_out.items()]
    return {
        "plates": {
            "annotated": plan.annotated,
            **({"found": audit.unknown.found} if recipe.detector.finds != "list" else {}),
            **{outcome: audit.outcomes[outcome] for outcome in ("replaced", "redacted", "withheld")},
            "set_aside": len(dataset.lost),
        },
        "reasons": dict(audit.reasons.most_common()),
        "pictures": {
            "found": len(dataset.folder.pictures),
            "written": audit.pictures["written"],
            "without_annotation": audit.pictures["bare"],
            "withheld": audit.pictures["withheld"] + len(dataset.withheld),
            "set_aside": len(aside & dataset.folder.pictures),
        },
        "annotations": {"left_over": dataset.left_over, "pictures_withheld": len(dataset.withheld)},
        "missing_pictures_and_other_faults": len(aside - dataset.folder.pictures),
        "files_not_copied": len(dataset.unknown),
        "pixels": {name: audit.pixels[name] for name in ("pixels", "changed", "outside")},
        "source_characters": {name: audit.characters[name] for name in ("looked_for", "in_view", "not_placed")},
        "source_texts": {  # how often they were found, not where: `verify --against` lists the places
            "searched": len(plan.texts) - len(audit.scan.unsearched),
            "too_short_to_search": len(audit.scan.unsearched),
            "found": len(audit.scan.hits),
            "found_in_numbers_and_keys": len(audit.scan.literals),
            "found_in_coded_pixels": len(audit.scan.chance),
            "expected_there_by_chance": round(audit.scan.expected, 3),
            "not_looked_into": len(audit.scan.unread),
            "files": audit.scan.files,
            "bytes": audit.scan.bytes,
        },
        "kept": audit.kept,
        **({"left_out": left_out} if left_out else {}),
        **({"reading": audit.reading} if audit.reading else {}),
        **({"detector": audit.detector} if audit.detector else {}),
        "identity": "keyed" if recipe.key_file else "within this run" if recipe.track_consistent else "none",
        "not_covered": not_covered(recipe, audit.detector, audit.kept, audit.pictures["written"]),
        "settings": audit_settings(recipe),
        "made_with": made_with(recipe, used),
        "output": {"sha256": audit.sha256, "command": SHA256_COMMAND},
        "given_up": audit.given_up.public(),
    }


def made_with(recipe: AnonymizeRecipe, used: Mapping[str, str] | None = None) -> dict[str, str]:
    """Day (UTC), versions, and sha256 of the networks, which go without their names: these may be paths.

    used: versions, None for those that are there.
    """
    networks = Stages(GenerateRecipe(edit=recipe.edit)).checkpoints
    return {
        "day (UTC)": datetime.now(UTC).date().isoformat(),
        **(versions() if used is None else used),
        "generator, sha256": networks[recipe.edit.checkpoint],
        "reader, sha256": networks[recipe.edit.reader],
        **({"finder, sha256": networks[recipe.edit.finder]} if recipe.edit.find == "auto" else {}),
    }


def all_versions(commits: Iterable[dict]) -> dict[str, str]:
    """The versions that a run's commits were made with: "2.12.0", or "2.12.0, 2.13.0" where it went on with others."""
    made = [*(commit["versions"] for commit in commits), versions()]
    names = dict.fromkeys(name for versions_used in made for name in versions_used)
    return {
        name: ", ".join(dict.fromkeys(versions_used[name] for versions_used in made if name in versions_used))
        for name in names
    }
