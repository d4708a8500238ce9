"""Runs: the same bytes whoever runs them and however often they are killed, quotas kept, faults told."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from stand_ins import Lucky, NoQ, recipe

from platemint import run_pipeline
from platemint.pipeline import run
from platemint.pipeline.draw import draw_targets
from platemint.pipeline.plan import make_plan
from platemint.pipeline.plate import PlatemintError, same_reading
from platemint.pipeline.recipe import recipe_hash
from platemint.pipeline.shard import run_shard
from platemint.pipeline.stages import Stages
from platemint.pipeline.verify import verify
from platemint.pipeline.versions import changed, versions

HERE = Path(__file__).parent


def contents(folder: Path) -> dict[str, object]:
    """Every file of a run but its page, which says how long it took; of commits all but the times, and no recipe."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name, data in files.items():
        if name.startswith("commits/"):
            files[name] = json.loads(data) | {"seconds": None}
    return {name: data for name, data in files.items() if name not in ("recipe.yaml", "report.html")}


def labels(folder: Path) -> list[str]:
    return [text for path in sorted(folder.glob("data/*.parquet")) for text in pq.read_table(path)["text"].to_pylist()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("run") / "plates"
    made = recipe(out)
    assert run.generate(made, stages=Lucky(made)).exit_code == 0
    return out


def test_quotas_hold_on_accepted_plates_and_every_attempt_is_kept(finished):
    manifest = json.loads((finished / "manifest.json").read_text())
    texts = labels(finished)
    assert len(texts) == len(set(texts)) == manifest["accepted"] == 120
    assert manifest["counts"] == json.loads((finished / "plan.json").read_text())["quotas"]
    firsts = [text[0] for text in texts]
    assert {firsts.count(c) for c in set(firsts)} <= {120 // 26, 120 // 26 + 1} and len(set(firsts)) == 26
    dropped = [row for path in finished.glob("dropped/*") for row in pq.read_table(path).to_pylist()]
    assert len(dropped) == manifest["rejected"]["reader"] > 20
    assert all(row["score_reader"] < 0.35 for row in dropped)
    kept = [row for path in finished.glob("data/*") for row in pq.read_table(path).to_pylist()]
    otherwise = sum(not same_reading(row["reading"], row["text"]) for row in kept)
    assert manifest["read_otherwise"] == otherwise
    assert f"On {otherwise} plates the reader reads another text" in (finished / "README.md").read_text()


def test_a_run_folder_is_a_dataset(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")

    read = datasets.load_dataset(str(finished), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in read.items()} == {"train": 90, "val": 30}
    assert sorted([*read["train"]["text"], *read["val"]["text"]]) == sorted(labels(finished))
    assert read["val"][0]["image"].size == (74, 24)
    assert "120 labelled license plates" in (finished / "README.md").read_text()


def test_rejected_texts_are_tried_on_another_source(finished):
    rows = [row for folder in ("data", "dropped") for path in (finished / folder).glob("*") for row in rows_of(path)]
    again = [row for row in rows if row["layout"] == "long"]
    by_target = {}
    for row in again:
        by_target.setdefault(row["index"], []).append(row)
    tried_often = [attempts for attempts in by_target.values() if len(attempts) > 1]
    assert tried_often and all(len({row["text"] for row in attempts}) == 1 for attempts in tried_often)
    assert any(len({row["source"] for row in attempts}) > 1 for attempts in tried_often)


def rows_of(path: Path) -> list[dict]:
    return pq.read_table(path, columns=["index", "text", "source", "layout", "round"]).to_pylist()


def test_a_shard_depends_on_nothing_but_recipe_and_number(finished, tmp_path):
    made = recipe(tmp_path / "alone")
    stages = Lucky(made)
    shard = make_plan(stages).shards[3]
    commit = run_shard(shard, stages)
    for file in commit["files"]:
        assert (tmp_path / "alone" / file["path"]).read_bytes() == (finished / file["path"]).read_bytes()


def test_another_seed_is_another_dataset(finished, tmp_path):
    made = recipe(tmp_path / "other", seed=1)
    run.generate(made, stages=Lucky(made))
    assert labels(tmp_path / "other") != labels(finished)


def test_worker_processes_give_the_same_bytes(finished, tmp_path):
    made = recipe(tmp_path / "plates", workers=2)
    progress = io.StringIO()
    assert run.generate(made, progress, Lucky(made)).accepted == 120
    assert contents(tmp_path / "plates") == contents(finished)
    assert "120 of 120 plates" in progress.getvalue()


KILLS = """
import os, random, signal, sys, time
from platemint.pipeline import run
from stand_ins import Lucky, recipe

def start(name, count=120, renames=None):
    child = os.fork()
    if child == 0:
        if renames is not None:
            left, rename = iter(range(renames)), os.replace
            os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL) if next(left, None) is None else rename(*a)
        made = recipe(f"{sys.argv[1]}/{name}", count)
        run.generate(made, stages=Lucky(made))
        os._exit(0)
    return child

def killed(child):
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])

for name in ("first", "whole"):  # the first start is slower
    began = time.monotonic()
    assert not killed(start(name))
whole = time.monotonic() - began
deaths = runs = 0
while deaths < 10:  # killed at random moments, up to four times a run
    for _ in range(4):
        child = start(f"random-{runs}")
        time.sleep(random.uniform(0, whole))
        os.kill(child, signal.SIGKILL)
        deaths += killed(child)
    assert not killed(start(f"random-{runs}"))
    runs += 1

renames = 0  # and short runs, killed just before their first, second, ... rename
while killed(start(f"renames-{renames}", 40, renames)):
    assert not killed(start(f"renames-{renames}", 40))
    renames += 1
print(runs, renames)
"""


def test_killed_at_any_moment_and_resumed_gives_the_same_bytes(finished, tmp_path):
    out = subprocess.run(
        [sys.executable, "-c", KILLS, tmp_path], cwd=HERE,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    runs, renames = map(int, out.stdout.split())
    assert renames == 3 + 3 * 3 + 4  # plan, recipe, set aside; three shards; card, croissant, manifest, page
    for k in range(runs):
        assert contents(tmp_path / f"random-{k}") == contents(tmp_path / "whole") == contents(finished)
    for k in range(renames):
        assert contents(tmp_path / f"renames-{k}") == contents(tmp_path / f"renames-{renames}")


LIMITED = """
import resource, sys
from platemint.pipeline import run
from platemint.pipeline.plate import PlatemintError
from stand_ins import Lucky, recipe

resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
made = recipe(sys.argv[1])
try:
    run.generate(made, stages=Lucky(made))
except PlatemintError as error:
    sys.exit(str(error))
"""


def test_a_file_that_cannot_be_written_whole_leaves_none_and_the_run_goes_on_later(finished, tmp_path):
    """A limit on file size fails as a full disk does: in the middle of a write."""
    out = tmp_path / "plates"
    failed = subprocess.run(
        [sys.executable, "-c", LIMITED, out], cwd=HERE,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert failed.returncode == 1 and failed.stderr.startswith(f"{out}/data/") and "Traceback" not in failed.stderr
    left = contents(out)
    assert "plan.json" in left and not [name for name in left if name.startswith(("data/", "commits/"))]
    assert not [name for name in left if name.endswith(".part")]
    made = recipe(out)
    run.generate(made, stages=Lucky(made))
    assert contents(out) == contents(finished)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_stops_the_run_cleanly_and_it_continues_when_there_is_room(finished, mounted, workers):
    out = mounted(f"size={300 * workers}k") / "plates"  # room for a shard of each worker, not for all six
    made = recipe(out, workers=workers)
    with pytest.raises(PlatemintError, match="No space left"):
        run.generate(made, stages=Lucky(made))
    done = sorted(out.glob("commits/*"))
    assert 0 < len(done) < 6 and not list(out.rglob(".*"))
    for commit in done:
        assert all(
            (out / file["path"]).stat().st_size == file["bytes"] for file in json.loads(commit.read_text())["files"]
        )
    subprocess.run(["mount", "-o", "remount,size=4m", out.parent], check=True)
    run.generate(made, stages=Lucky(made))
    assert contents(out) == contents(finished)


class Doomed(Lucky):
    """Killed by the system while it edits, as when memory runs out."""

    def edit(self, plates):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_told_and_leaves_a_run_to_go_on_with(finished, tmp_path):
    made = recipe(tmp_path / "plates", workers=2)
    with pytest.raises(PlatemintError, match="engine.workers: .*killed"):
        run.generate(made, stages=Doomed(made))
    run.generate(made, stages=Lucky(made))
    assert contents(tmp_path / "plates") == contents(finished)


def test_a_read_only_folder_is_named(mounted):
    out = mounted("size=1m,ro") / "plates"
    made = recipe(out)
    with pytest.raises(PlatemintError, match=f"{out}.*(?i:read-only).*--out"):
        run.generate(made, stages=Lucky(made))


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "plates").write_text("mine")
    for out in (tmp_path / "plates", tmp_path / "plates" / "run"):
        made = recipe(out)
        with pytest.raises(PlatemintError, match=f"{out}.*--out"):
            run.generate(made, stages=Lucky(made))
    assert (tmp_path / "plates").read_text() == "mine"


def test_files_of_others_are_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    made = recipe(tmp_path)
    with pytest.raises(PlatemintError, match="not a run's"):
        run.generate(made, stages=Lucky(made))
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_network_that_is_not_there_is_told_before_anything_is_made(tmp_path):
    made = recipe(tmp_path / "plates", edit={"checkpoint": "no-such-network"})
    stages = Stages(made)
    stages.sources = Lucky.sources
    with pytest.raises(PlatemintError, match="edit.checkpoint: no-such-network"):
        run.generate(made, stages=stages)
    assert not (tmp_path / "plates").exists()


@pytest.fixture
def short(tmp_path):
    """A short run that is done."""
    made = recipe(tmp_path / "short", count=40)
    run.generate(made, stages=Lucky(made))
    return tmp_path / "short"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"edit": {"batch": 4}}, "edit.batch was 8, is 4"),
        ({"count": 41}, "count was 40"),
    ],
)
def test_another_recipe_is_refused_by_the_field_that_differs(short, change, said):
    before = contents(short)
    made = recipe(short, **({"count": 40} | change))
    with pytest.raises(PlatemintError, match=said):
        run.generate(made, stages=Lucky(made))
    assert contents(short) == before


def test_other_sources_networks_or_commits_are_refused(short):
    made = recipe(short, count=40)
    stages = Lucky(made)
    stages.sources = type("Other", (type(stages.sources),), {"fingerprint": "other noise"})()
    with pytest.raises(PlatemintError, match="sources"):
        run.generate(made, stages=stages)
    stages = Lucky(made)
    stages.checkpoints = {"spg": "1"}
    with pytest.raises(PlatemintError, match="checkpoints"):
        run.generate(made, stages=stages)
    commit = short / "commits/00001.json"
    commit.write_text(commit.read_text().replace(json.loads(commit.read_text())["recipe_sha256"], "0" * 64))
    with pytest.raises(PlatemintError, match="00001.json.*another recipe"):
        run.generate(made, stages=Lucky(made))


@pytest.fixture
def others(monkeypatch):
    """Other versions from now on, of a library that computes and of one that decodes."""
    before = versions()
    after = before | {"torch": "0.1", "pillow": "0.2"}
    for module in ("platemint.pipeline.run", "platemint.pipeline.shard"):
        monkeypatch.setattr(f"{module}.versions", lambda: after)
    return [f"{name} was {before[name]}, is {after[name]}" for name in ("torch", "pillow")]


def test_a_run_goes_on_with_other_versions_only_where_they_are_accepted(short, others, monkeypatch):
    made = recipe(short, count=40)
    whole = contents(short)
    assert run.generate(made, stages=Lucky(made)).accepted == 40 and contents(short) == whole  # nothing was left to do
    (short / "commits/00001.json").unlink()
    left = contents(short)
    with pytest.raises(PlatemintError) as refused:
        run.generate(made, stages=Lucky(made))
    assert all(said in str(refused.value) for said in [*others, "--accept-versions"]) and contents(short) == left
    assert run.generate(made, stages=Lucky(made), accept_versions=True).accepted == 40
    commits = [json.loads((short / f"commits/0000{n}.json").read_text())["versions"]["torch"] for n in range(3)]
    assert commits == [versions()["torch"], "0.1", versions()["torch"]]
    assert json.loads((short / "manifest.json").read_text())["versions"]["torch"] == sorted({*commits})
    assert json.loads((short / "plan.json").read_text())["versions"] == versions()  # with which it was begun
    assert verify(short).faults == []
    monkeypatch.undo()  # and back: of one shard the versions are others still
    (short / "commits/00002.json").unlink()
    with pytest.raises(PlatemintError, match="torch was 0.1, is"):
        run.generate(made, stages=Lucky(made))


def test_the_versions_name_all_that_decides_bytes():
    assert {"python", "opencv", "numpy", "torch", "pillow", "pyarrow", "scipy", "faker", "libjpeg"} <= versions().keys()
    assert all(re.match(r"\d", version) for version in versions().values())
    assert changed({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == [
        "a was 1, is not there",
        "b was 2, is 3",
        "c was not there, is 4",
    ]


def test_a_plan_is_drawn_once(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("platemint.pipeline.plan.draw_targets", lambda *args: drawn.append(args) or draw_targets(*args))
    monkeypatch.setattr("platemint.pipeline.stages.Stages", Lucky)
    options = ["--count", 30, "--set", "filter.rounds=90", "--set", "filter.min_reader=0.35", "--out", tmp_path / "run"]
    assert CliRunner().invoke(run_pipeline.main, ["generate", *map(str, options)]).exit_code == 0
    assert len(drawn) == 1


def test_other_workers_and_a_moved_folder_are_no_other_recipe(short, tmp_path):
    before = contents(short)
    short.rename(tmp_path / "moved")
    made = recipe(tmp_path / "moved", count=40, workers=3)
    assert run.generate(made, stages=Lucky(made)).accepted == 40
    assert contents(tmp_path / "moved") == before


@pytest.mark.parametrize("damage", ["", "{"])
def test_a_damaged_commit_is_made_again(short, damage):
    before = contents(short)
    (short / "commits/00002.json").write_text(damage)
    made = recipe(short, count=40)
    run.generate(made, stages=Lucky(made))
    assert contents(short) == before


def test_a_lost_shard_is_minted_again_and_no_other(short):
    before = contents(short)
    lost, kept = short / "data/train-00001-of-00002.parquet", short / "data/train-00000-of-00002.parquet"
    lost.write_bytes(lost.read_bytes()[:100])
    stamp = kept.stat().st_mtime_ns
    made = recipe(short, count=40)
    run.generate(made, stages=Lucky(made))
    assert contents(short) == before and kept.stat().st_mtime_ns == stamp


def test_what_cannot_be_filled_is_reported_by_position_and_character(tmp_path):
    made = recipe(tmp_path / "plates", filter={"rounds": 2, "min_reader": 0.0})
    result = run.generate(made, stages=NoQ(made))
    plan = json.loads((tmp_path / "plates/plan.json").read_text())
    assert result.exit_code == 3 and result.accepted + result.missing == 120
    for position, counts in result.shortfall.items():
        if position in "01":
            letters = next(q for key, q in plan["quotas"].items() if key.startswith(f"{position}/"))
            assert counts["Q"] == letters["Q"]
    assert sum(result.shortfall["0"].values()) == result.missing
    manifest = json.loads((tmp_path / "plates/manifest.json").read_text())
    assert manifest["missing"] == result.missing and manifest["rejected"] == {"reader": 2 * result.missing}
    assert not any("Q" in text for text in labels(tmp_path / "plates"))
    before = contents(tmp_path / "plates")
    assert run.generate(made, stages=NoQ(made)) == result and contents(tmp_path / "plates") == before


def test_an_estimate_comes_near_what_the_run_takes(finished, tmp_path):
    made = recipe(tmp_path / "plates")
    stages = Lucky(made)
    guess = run.estimate_run(make_plan(stages), stages)
    real = sum(file["bytes"] for file in json.loads((finished / "manifest.json").read_text())["files"])
    assert 0.5 < guess["bytes"] / real < 2 and guess["seconds"] > 0
    assert not (tmp_path / "plates").exists()


def test_croissant_describes_every_row(tmp_path):
    croissant = pytest.importorskip("mlcroissant")
    made = recipe(tmp_path / "run", source={"license": "CC-BY-4.0"})
    run.generate(made, stages=Lucky(made))
    described = croissant.Dataset(jsonld=str(tmp_path / "run" / "croissant.json"))
    assert not described.metadata.ctx.issues.errors
    rows = pa.concat_tables([pq.read_table(file) for file in sorted((tmp_path / "run" / "data").glob("*.parquet"))])
    found = {row["plates/index"]: row["plates/text"].decode() for row in described.records("plates")}
    assert found == dict(zip(rows["index"].to_pylist(), rows["text"].to_pylist()))
    assert described.metadata.license == ["CC-BY-4.0"]
    assert "license: CC-BY-4.0" in (tmp_path / "run" / "README.md").read_text(encoding="utf8")


def test_a_licence_changes_no_byte(tmp_path):
    assert recipe_hash(recipe(tmp_path)) == recipe_hash(recipe(tmp_path, source={"license": "MIT"}))
