"""Swaps: a text that no photograph takes swaps characters with another one, and all guarantees of the run hold."""

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import Lucky, Sources, recipe
from test_verify import edit_json

from platemint.pipeline import run
from platemint.pipeline.balance.quotas import Demand
from platemint.pipeline.balance.swaps import Swapper, SwapRules
from platemint.pipeline.draw import draw_targets
from platemint.pipeline.plan import make_plan, take
from platemint.pipeline.plate import DIGITS, LETTERS, Group, Readings, SortedTexts, Taken, characters
from platemint.pipeline.recipe import Balance
from platemint.pipeline.shard import MOST_OFTEN, run_shard
from platemint.pipeline.verify import verify

HERE = Path(__file__).parents[1]
GROUPS = (
    Group("short", "train", (LETTERS, LETTERS, DIGITS, DIGITS), 0.5, 1, ("AB", "Z9")),
    Group("long", "train", (LETTERS, "-", LETTERS, DIGITS, DIGITS, DIGITS), 0.5, 1, ("AB",)),
)


def swappers(shards: int, demand: Demand, seed: int = 0, forbidden=frozenset(), reserved=frozenset()) -> list[Swapper]:
    """The swappers of a run of 300 plates."""
    targets = draw_targets(GROUPS, 300, seed, forbidden, reserved, demand)
    size, rules = 300 // shards, SwapRules(Taken(forbidden, reserved, SortedTexts(sorted_texts(targets))), shards, seed)
    places = [slice(number * size, (number + 1) * size) for number in range(shards)]
    some = [take(targets, part) for part in places]
    return [
        Swapper(n, part.text.tolist(), [GROUPS[g] for g in part.group], demand, rules) for n, part in enumerate(some)
    ]


def sorted_texts(targets):
    return targets.text[targets.text.argsort()]


def pools(swapper: Swapper) -> dict:
    counts = defaultdict(Counter)
    for text, of in zip(swapper.texts, swapper.pools, strict=True):
        for c, pool in zip(text, of, strict=True):
            counts[pool][c] += 1
    return counts


FORBIDDEN = Readings(f"{a}{b}{n:02d}" for a in LETTERS for b in "CDEFGH" for n in range(0, 100, 2))
RESERVED = frozenset(f"K-{c}{n:03d}" for c in LETTERS for n in range(0, 1000, 3))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(0, 9), st.sampled_from(["position", "layout"]), st.data())
def test_trades_keep_every_count_and_make_no_text_that_must_not_be(shards, seed, per, data):
    demand, made, planned = Demand(Balance(per=per)), [], set()
    some = swappers(shards, demand, seed, FORBIDDEN, RESERVED)
    for swapper in some:
        before, first = pools(swapper), list(swapper.texts)
        planned |= {*first}
        seen, done = set(first), 0
        for _ in range(60):
            place = data.draw(st.integers(0, len(first) - 1))
            old = list(swapper.texts)
            other = swapper.swap(place, range(len(first)))
            changed = [p for p, (a, b) in enumerate(zip(old, swapper.texts, strict=True)) if a != b]
            assert changed == ([] if other is None else sorted({place, other}))
            new = {swapper.texts[p] for p in changed}
            assert len(new) == len(changed) and not new & seen  # nor one that was given up: it is among the dropped
            seen |= new
            done += bool(new)
        assert done > 50 and pools(swapper) == before
        assert len(set(swapper.texts)) == len(first)
        for text, group in zip(swapper.texts, swapper.groups):
            assert not any(word in characters(text) for word in group.blocked)
        made.append(seen - {*first})
    assert sum(map(len, made)) == len(set().union(*made))  # no text is made in two shards
    new = set().union(*made)
    assert not new & planned and not any(text in FORBIDDEN for text in new) and not new & RESERVED


def test_the_same_seed_trades_the_same_and_only_with_partners():
    demand = Demand()
    (first,), (same,), (other,) = (swappers(1, demand, seed) for seed in (0, 0, 1))
    partners = set(range(100, 200))
    found = [[t.swap(place, partners) for place in range(30)] for t in (first, same, other)]
    assert found[0] == found[1] != found[2] and first.texts == same.texts
    assert {*found[0]} <= partners and len({*found[0]}) > 20
    assert first.swap(5, ()) is None and first.texts == same.texts


def test_a_text_without_a_choice_is_never_traded():
    group = Group("one", "train", ("A", "-", "1"), 1.0, 1)
    targets = draw_targets([group], 1, 0, frozenset())
    rules = SwapRules(Taken(frozenset(), frozenset(), SortedTexts(targets.text)), 1, 0)
    assert Swapper(0, targets.text.tolist(), [group], Demand(), rules).swap(0, {0}) is None


# --- runs in which some texts fail on every photograph they may have


class FewPhotographs(Sources):
    """A group with one photograph and one with two, beside one with nine: what these refuse they always refuse."""

    groups = (
        Group("one", "train", (LETTERS, LETTERS, DIGITS, DIGITS), 0.3, 1),
        Group("two", "train", (LETTERS, LETTERS, DIGITS, DIGITS), 0.2, 2),
        Group("nine", "train", (LETTERS, LETTERS, DIGITS, DIGITS), 0.5, 9),
    )


class Stubborn(Lucky):
    sources = FewPhotographs()


def stubborn(out, **more):
    return recipe(out, count=120, filter={"rounds": 60, "min_reader": 0.35}, write={"shard_rows": 60}, **more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("swapped") / "plates"
    made = stubborn(out)
    result = run.generate(made, stages=Stubborn(made))
    assert result.exit_code == 0 and result.accepted == 120
    return out


def commits(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) | {"seconds": None} for path in sorted(folder.glob("commits/*"))]


def contents(folder: Path) -> dict:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in ("recipe.yaml", "report.html"):
        files.pop(name)
    return {name: data for name, data in files.items() if "commits/" not in name} | {"commits": commits(folder)}


def rows(folder: Path, kind: str) -> list[dict]:
    return [row for path in sorted(folder.glob(f"{kind}/*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_without_trades_plates_are_missing(tmp_path):
    made = stubborn(tmp_path / "plates")
    stages = Stubborn(made)
    assert any(run_shard(shard, stages)["missing"] for shard in make_plan(stages).shards)


def test_nothing_is_missing_and_every_quota_holds(finished):
    manifest, plan = (json.loads((finished / name).read_text()) for name in ("manifest.json", "plan.json"))
    assert manifest["missing"] == 0 and manifest["reasons"] == {} and manifest["counts"] == plan["quotas"]
    texts = [row["text"] for row in rows(finished, "data")]
    assert len(set(texts)) == 120
    for position in range(4):
        column = Counter(text[position] for text in texts)
        assert max(column.values()) - min(column.values()) <= 1 and len(column) == (26, 26, 10, 10)[position]
    assert verify(finished).faults == []


def test_a_commit_tells_which_texts_were_traded_and_what_became_of_the_plates(finished):
    made = stubborn(finished)
    stages = Stubborn(made)
    kept = {row["index"]: row for row in rows(finished, "data")}
    planned = {}
    for shard, commit in zip(make_plan(stages).shards, commits(finished), strict=True):
        planned |= {int(index): text for index, text in commit["planned"].items()}
        for index, text in zip(shard.index.tolist(), shard.targets.text.tolist()):
            assert planned.get(index, kept[index]["text"]) == text
            assert index not in planned or kept[index]["text"] != text
    swapped = [row for row in rows(finished, "dropped") if row["reason"] == "swapped"]
    assert planned and swapped
    for row in swapped:  # was good, gave its text away, and got another one later
        assert row["score_reader"] >= 0.35 and row["round"] < kept[row["index"]]["round"]
        assert row["text"] not in {plate["text"] for plate in kept.values()}
    counted = sum(commit["rejected"].get("swapped", 0) for commit in commits(finished))
    assert counted == len(swapped)


def test_the_reasons_of_what_is_missing_are_those_of_its_drops(tmp_path):
    class Never(Stubborn):
        never = "Q"

    made = stubborn(tmp_path / "plates")
    result = run.generate(made, stages=Never(made))
    assert result.exit_code == 3 and result.missing >= 5
    assert verify(result.folder).faults == []
    expected = defaultdict(Counter)
    for commit in commits(result.folder):
        for row in rows(result.folder, "dropped"):
            if commit["missing"].get(str(row["index"])) == row["text"]:
                for position, c in enumerate(row["text"]):
                    expected[str(position), c][row["reason"]] += 1
    told = {(p, c): counts for p, table in result.reasons.items() for c, counts in table.items()}
    assert told == expected
    lacking = {(p, c) for p, counts in result.shortfall.items() for c in counts}
    assert lacking >= {("0", "Q"), ("1", "Q")}


def test_a_photograph_serves_no_more_than_twice_its_share(finished):
    served = Counter((row["layout"], row["source"]) for row in rows(finished, "data") if row["index"] < 60)
    asked = Counter(row["layout"] for row in rows(finished, "data") if row["index"] < 60)
    for (layout, _), times in served.items():
        share = asked[layout] / {"one": 1, "two": 2, "nine": 9}[layout]
        assert times <= 2 * share + 1


class Beside(Sources):
    """A photograph that takes no text at all, beside three that take any."""

    groups = (
        Group("none", "train", (LETTERS, LETTERS, DIGITS, DIGITS), 0.1, 1),
        Group("any", "train", (LETTERS, LETTERS, DIGITS, DIGITS), 0.9, 3),
    )


class Hopeless(Lucky):
    sources = Beside()

    def filter(self, plates):
        for plate in super().filter(plates):
            plate.reason = "reader" if plate.layout == "none" else ""
            plate.scores["reader"] = 0.0 if plate.reason else 1.0
        return plates


def test_swaps_without_end_do_not_use_up_photographs(tmp_path):
    """Each takes a plate from another text, whose photograph is then free again."""
    made = recipe(tmp_path / "plates", count=30, filter={"rounds": 100, "min_reader": 0.5})
    result = run.generate(made, stages=Hopeless(made))
    rejected = sum((Counter(commit["rejected"]) for commit in commits(result.folder)), Counter())
    assert result.missing == 3 and rejected["swapped"] > 2 * MOST_OFTEN * 27
    assert verify(result.folder).faults == []


def test_two_workers_give_the_same_bytes(finished, tmp_path):
    made = stubborn(tmp_path / "plates").model_copy(update={"engine": recipe("", workers=2).engine})
    assert run.generate(made, stages=Stubborn(made)).accepted == 120
    assert contents(tmp_path / "plates") == contents(finished)


KILLED = """
import os, signal, sys
from platemint.pipeline import run
from balance.test_swaps import Stubborn, stubborn

left, rename = iter(range(int(sys.argv[2]))), os.replace
os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL) if next(left, None) is None else rename(*a)
made = stubborn(sys.argv[1])
run.generate(made, stages=Stubborn(made))
"""


@pytest.mark.parametrize("renames", [3, 5, 6])
def test_killed_and_resumed_it_gives_the_same_bytes(finished, tmp_path, renames):
    """Before the first shard's data, before its commit, and after it."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "plates", str(renames)], cwd=HERE, capture_output=True, timeout=60,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    made = stubborn(tmp_path / "plates")
    assert run.generate(made, stages=Stubborn(made)).exit_code == 0
    assert contents(tmp_path / "plates") == contents(finished)


@pytest.mark.parametrize("forgery", ["other text", "one more", "one less", "swapped"])
def test_a_forged_plan_of_a_commit_is_found(finished, tmp_path, forgery):
    folder = shutil.copytree(finished, tmp_path / "plates")
    path = folder / "commits/00000.json"

    def forge(commit):
        planned = commit["planned"]
        first, second = list(planned)[:2]
        if forgery == "other text":
            planned[first] = "AA00" if planned[first] != "AA00" else "BB11"
        if forgery == "one more":
            planned[next(str(i) for i in range(60) if str(i) not in planned)] = "AA00"
        if forgery == "one less":
            del planned[first]
        if forgery == "swapped":
            planned[first], planned[second] = planned[second], planned[first]

    edit_json(path, forge)
    made = [json.loads(path.read_text()) for path in sorted(folder.glob("commits/*"))]
    edit_json(folder / "manifest.json", lambda facts: facts.update(run.manifest(made)))
    assert verify(folder).faults == [
        "data/train-00000-of-00002.parquet: its labels, and those its commit misses, are not the planned ones"
    ]


def test_even_pairs_are_not_swapped_away(tmp_path):
    made = stubborn(tmp_path / "plates", balance={"pairs": True})
    result = run.generate(made, stages=Stubborn(made))
    assert not any(commit["planned"] for commit in commits(result.folder))
    assert result.missing and verify(result.folder).faults == []
