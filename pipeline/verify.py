"""Checks a run folder against its plan and commits: every picture decoded, every label counted again."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from platemint.pipeline import storage, write
from platemint.pipeline.balance.quotas import Demand, add_quotas
from platemint.pipeline.balance.shares import Target
from platemint.pipeline.object_store import ObjectPath, place
from platemint.pipeline.plan import is_added_to, plan_file, stored_plans
from platemint.pipeline.plate import KINDS, PlatemintError, Readings
from platemint.pipeline.recipe import GenerateRecipe, load_recipe, recipe_hash
from platemint.pipeline.run import by_position, fingerprint, manifest, plans_sha256
from platemint.pipeline.shard import why_missing
from platemint.pipeline.storage import read_json


@dataclass
class Verification:
    """What verification found. faults: one line each, naming file and row; empty if all is well."""

    faults: list[str] = field(default_factory=list)
    files: int = 0
    plates: int = 0
    real: int = 0
    dropped: int = 0

    @property
    def summary(self) -> str:
        found = f"{len(self.faults)} faults" if self.faults else "no fault"
        real = f"{self.real:,} real plates, " if self.real else ""
        return f"{self.files} files, {self.plates:,} plates, {real}{self.dropped:,} dropped plates: {found}"


def verify(run: str | Path | ObjectPath) -> Verification:
    """Verifies a run folder. Raises PlatemintError where there is no run to verify, or its plan is beyond reading."""
    folder = place(run)
    plans = stored_plans(folder)
    if not plans:
        raise PlatemintError(f"{folder}: is not a run folder: it holds no plan.json")
    try:
        verifier = _Verifier(folder, plans)
    except (LookupError, TypeError, ValueError) as error:
        raise PlatemintError(f"{folder / plan_file(len(plans) - 1)}: is damaged ({error!r})") from error
    verifier.check()
    return verifier.report


class _Verifier:
    """Goes through a run folder once, and remembers what must agree over all its shards."""

    def __init__(self, folder: Path | ObjectPath, plans: list[dict]):
        self.folder, self.plans, self.report = folder, plans, Verification()
        self.recipe = GenerateRecipe.model_validate(plans[-1]["recipe"])
        self.shards = [(shard, plan) for plan in plans for shard in plan["shards"]]
        self.texts: set[str] = set()
        self.real_texts: list[str] = []
        self.split_of: dict[str, str] = {}  # by source
        self.served = np.zeros(self.recipe.count, bool)  # planned targets that have their plate
        self.patterns: dict[tuple[str, str], list[list[str]]] = {}  # positions by layout and split
        for group in (group for plan in plans for group in plan["groups"]):
            self.patterns.setdefault((group["layout"], group["split"]), []).append(group["positions"])

    def check(self) -> None:
        with self.reading("recipe.yaml"):
            recipes = self.recipe, load_recipe(self.folder / "recipe.yaml")
            if any(recipe_hash(recipe) != self.plans[-1]["recipe_sha256"] for recipe in recipes):
                self.fault("recipe.yaml", "is not the recipe the run was planned with")
        commits = []
        for shard, plan in self.shards:
            with self.reading(shard["commit"]):
                commits.append(self.shard(shard, plan))
        if len(commits) == len(self.shards):  # else the totals would only repeat that a shard is missing
            self.totals(commits)
        self.leftovers()

    def fault(self, where: str, what: str) -> None:
        self.report.faults.append(f"{where}: {what}")

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Makes whatever goes wrong with the contents of this file a fault of it."""
        try:
            yield
        except PlatemintError as error:
            self.fault(name, str(error))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            self.fault(name, f"is damaged ({error!r})")

    def stored(self, name: str) -> dict:
        """A JSON file that a finished run has."""
        if not (self.folder / name).exists():
            raise PlatemintError("missing: the run is not finished, generate again to go on with it")
        return read_json(self.folder / name)

    def shard(self, shard: dict, plan: dict) -> dict:
        """Checks a commit and its two files; gives the commit."""
        commit = self.stored(shard["commit"])
        data, dropped = commit["files"]
        if commit["recipe_sha256"] != plan["recipe_sha256"]:
            self.fault(shard["commit"], "was made by another recipe")
        if (data["path"], dropped["path"]) != (shard["data"], shard["dropped"]):
            self.fault(shard["commit"], "does not name the files that plan.json gives to this shard")
        kept = self.data_file(data, shard["split"], commit)
        texts = {int(index): text for index, text in commit["missing"].items()}
        texts.update((index, row["text"]) for index, row in kept.items())
        texts.update((int(index), text) for index, text in commit["planned"].items())  # as they were before swaps
        if storage.sha256("\n".join(texts[index] for index in sorted(texts))) != shard["targets_sha256"]:
            self.fault(shard["data"], "its labels, and those its commit misses, are not the planned ones")
        self.dropped_file(dropped, shard["split"], commit, kept)
        return commit

    def data_file(self, file: dict, split: str, commit: dict) -> dict[int, dict]:
        """Checks a file of accepted plates; gives text and round of each, by index."""
        labels, kept = Counter(), {}
        for where, row in self.rows(file, commit["accepted"] + commit["real"], write.schema(self.recipe)):
            if row["origin"] == "real":
                self.report.real += 1
                self.real_texts.append(row["text"])
                for what in self.common(row, split):
                    self.fault(where, what)
                continue
            self.report.plates += 1
            for what in [*self.common(row, split, row["image"]["path"]), *self.accepted(row)]:
                self.fault(where, what)
            labels.update(enumerate(row["text"]))
            kept[row["index"]] = {"text": row["text"], "round": row["round"]}
        expected = by_position(commit["counts"])
        expected = Counter({(int(p), c): n for p, counts in expected.items() for c, n in counts.items()})
        for position, character in sorted(key for key in labels | expected if labels[key] != expected[key]):
            has, says = labels[position, character], expected[position, character]
            self.fault(file["path"], f"holds {has} {character!r} at position {position}, its commit says {says}")
        return kept

    def dropped_file(self, file: dict, split: str, commit: dict, kept: dict[int, dict]) -> None:
        reasons, tries, missed = Counter(), set(), []
        for where, row in self.rows(file, sum(commit["rejected"].values()), write.schema(self.recipe, dropped=True)):
            self.report.dropped += 1
            for what in self.common(row, split):
                self.fault(where, what)
            attempt = row["index"], row["round"]
            if attempt in tries or row["index"] in kept and row["round"] >= kept[row["index"]]["round"]:
                self.fault(where, f"is one plate too many for target {row['index']} in round {row['round']}")
            tries.add(attempt)
            reasons[row["reason"]] += 1
            if str(row["index"]) in commit["missing"]:
                missed.append({name: row[name] for name in ("index", "text", "reason")})
        if why_missing(commit["missing"], missed) != commit["reasons"]:
            self.fault(file["path"], "its commit says of missing characters that they were dropped for other reasons")
        if "" in reasons or reasons != commit["rejected"]:
            self.fault(file["path"], f"drops for {dict(reasons)}, its commit says {commit['rejected']}")

    def rows(self, file: dict, count: int, schema: pa.Schema) -> Iterator[tuple[str, dict]]:
        """The rows of a file that can be read, with their place; faults of the file itself are noted on the way."""
        name = file["path"]
        self.report.files += 1
        try:
            data = (self.folder / name).read_bytes()
        except OSError as error:
            return self.fault(name, f"cannot be read ({error.strerror})")
        if (len(data), storage.sha256(data)) != (file["bytes"], file["sha256"]):
            self.fault(name, "its bytes are not those that were committed")
        try:
            shard = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            return self.fault(name, f"is not a whole Parquet file ({error})")
        if shard.metadata.num_rows != file["rows"] or file["rows"] != count:
            self.fault(name, f"holds {shard.metadata.num_rows} rows, its commit says {file['rows']} and counts {count}")
        if not shard.schema_arrow.equals(schema, check_metadata=True):
            return self.fault(name, "its columns are not those of this recipe")
        yield from self.row_groups(name, shard)

    def row_groups(self, name: str, shard: pq.ParquetFile) -> Iterator[tuple[str, dict]]:
        first = 0
        for group in range(shard.num_row_groups):
            after = first + shard.metadata.row_group(group).num_rows
            try:
                rows = shard.read_row_group(group).to_pylist()
            except (pa.ArrowException, OSError) as error:
                self.fault(name, f"rows {first} to {after - 1} cannot be read ({error})")
            else:
                for place, row in enumerate(rows, first):
                    if any(value is None and not _may_lack(row, column) for column, value in row.items()):
                        self.fault(f"{name}, row {place}", "has an empty field")
                    else:
                        yield f"{name}, row {place}", row
            first = after

    def common(self, row: dict, split: str, path: str = "") -> Iterator[str]:
        """Faults of a row: kept, dropped or of a corpus's own plate."""
        if row["split"] != split:
            yield f"is of split {row['split']!r} in a file of {split!r}"
        if self.split_of.setdefault(row["source"], split) != split:
            yield f"its source is in split {self.split_of[row['source']]!r} too"
        patterns = self.patterns.get((row["layout"], split), [])
        if row.get("origin") == "real":  # a plate that is there may have letters that no new one gets
            patterns = [_of_whole_kinds(positions) for positions in patterns]
        if not any(_spells(row["text"], positions) for positions in patterns):
            yield f"its text {row['text']!r} does not fit its layout {row['layout']!r}"
        yield from self.pictures(row)
        if row.get("slots") is not None and len(row["slots"]) != write.SLOT * len(row["text"]):
            yield f"its {len(row['slots'])} numbers of slots are not {write.SLOT} for each character of its text"
        if row.get("origin") == "real":
            return
        if not (0 <= row["index"] < self.recipe.count and 0 <= row["round"] < self.recipe.filter.rounds):
            yield f"its target {row['index']} or round {row['round']} was never planned"
        stem = f"{split}-{row['index']:09d}"
        if path and path != stem + storage.SUFFIX[self.recipe.write.format]:
            yield f"its picture is named {path!r}"
        for name in write.scores(self.recipe):
            if not 0 <= row[f"score_{name}"] <= 1:
                yield f"score_{name} is {row[f'score_{name}']}, outside 0..1"

    def accepted(self, row: dict) -> Iterator[str]:
        """Faults of a row that must hold for kept plates only."""
        if row["text"] in self.texts:
            yield f"its text {row['text']!r} stands in the run twice"
        self.texts.add(row["text"])
        if 0 <= row["index"] < len(self.served):
            if self.served[row["index"]]:
                yield f"its target {row['index']} is served twice"
            self.served[row["index"]] = True
        for name, threshold in self.recipe.filter:
            score = row.get(f"score_{name[4:]}")
            below = name.startswith("min_") and score < np.float32(threshold)
            if below or name.startswith("max_") and score > np.float32(threshold):
                yield f"score_{name[4:]} is {score}, against filter.{name} {threshold}"

    def pictures(self, row: dict) -> Iterator[str]:
        sizes = {}
        for column in ("image", "mask"):
            if row.get(column):
                try:
                    sizes[column] = _decoded_size(row[column]["bytes"])
                except (OSError, ValueError, SyntaxError, TypeError) as error:  # what Pillow raises for damaged files
                    yield f"its {column} cannot be decoded ({error})"
        if len(set(sizes.values())) > 1:
            yield f"its image and mask differ in size: {sizes}"

    def totals(self, commits: list[dict]) -> None:
        with self.reading(plan_file(0)):
            self.real()
        earlier: list[dict] = []  # commits of the parts before
        for part, plan in enumerate(self.plans):
            made = commits[len(earlier) : len(earlier) + len(plan["shards"])]
            with self.reading(plan_file(part)):
                self.quotas(plan_file(part), plan, earlier, made)
            earlier += made
        with self.reading("manifest.json"):
            stored = self.stored("manifest.json")
            if stored.pop("plan_sha256") != plans_sha256(self.folder):
                self.fault("plan.json", "is not the plan the run was made with")
            for (shard, _), commit, expected in zip(self.shards, commits, stored["commits"], strict=True):
                if fingerprint(commit) != expected:
                    self.fault(shard["commit"], "is not the commit the run ended with")
            if stored != manifest(commits):
                self.fault("manifest.json", "is not what the commits come to")

    def real(self) -> None:
        """The corpus's own plates, where they were to be written: as many as planned, and no new text reads like one."""
        expected = sum(shard["real"] for shard, _ in self.shards)
        if len(self.real_texts) != expected:
            self.fault("plan.json", f"plans {expected} real plates, the files hold {len(self.real_texts)}")
        known = Readings(self.real_texts)
        for text in sorted(text for text in self.texts if text in known):
            self.fault("data", f"the text {text!r} was made, and a real plate reads like it")
        had = by_position(self.plans[0]["have"])
        if expected and had and had != _by_position(self.real_texts):
            self.fault("plan.json", "counts other characters on real plates than the files hold")

    def quotas(self, name: str, plan: dict, earlier: list[dict], made: list[dict]) -> None:
        """Of a part's plan. earlier: commits of the parts before it. made: its own."""
        planned, table = plan["quotas"], plan["target"]
        found = add_quotas(commit[part] for commit in made for part in ("counts", "shortfall"))
        by_position = {int(position): shares for position, shares in table["by_position"].items()}
        demand = Demand(self.recipe.balance, Target("", table["by_character"], by_position), plan["have"])
        for what in demand.faults(planned):
            self.fault(name, what)
        there = [self.plans[0]["have"], *(commit["counts"] for commit in earlier)] if is_added_to(demand) else []
        if earlier and plan["have"] != add_quotas(there):
            self.fault(name, "is not on top of what the commits before it have")
        cells = {(key, c) for table in (planned, found) for key, counts in table.items() for c in counts}
        for key, c in sorted(cells):
            plans, have = (table.get(key, {}).get(c, 0) for table in (planned, found))
            if plans != have:
                self.fault(name, f"plans {plans} {c!r} at {key}, the commits have {have}")

    def leftovers(self) -> None:
        """Files that do not belong to the run: those in data/ would be read as part of the dataset."""
        ours = {shard.get(kind) for shard, _ in self.shards for kind in ("data", "dropped", "commit")}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            of_run = name.endswith(storage.TEMPORARY) or name.startswith(("data/", "dropped/", "commits/"))
            if of_run and name not in ours and path.is_file():
                self.fault(name, "does not belong to the run")


def _may_lack(row: dict, column: str) -> bool:
    """A corpus's own plate has no scores, no mask and no slots."""
    return row.get("origin") == "real" and column.startswith(("score_", "mask", "slots"))


def _by_position(texts: list[str]) -> dict[str, dict[str, int]]:
    """{position: {character: count}} of texts, in order."""
    columns = (Counter(filter(None, column)) for column in zip_longest(*texts))
    return {str(position): dict(sorted(counts.items())) for position, counts in enumerate(columns)}


def _of_whole_kinds(positions: Iterable[str]) -> list[str]:
    """The alphabets of positions with all letters, digits or provinces where they have some."""
    return [next((kind for kind in KINDS.values() if set(alphabet) <= set(kind)), alphabet) for alphabet in positions]


def _spells(text: str, positions: list[str]) -> bool:
    return len(text) == len(positions) and all(c in alphabet for c, alphabet in zip(text, positions))


def _decoded_size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as picture:
        picture.load()
        return picture.size
