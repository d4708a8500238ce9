"""Runs that are stopped, added to, begun anew, damaged and repaired: what is there stays, and what is told holds."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from anonymize.test_anonymize_shards import PLATES, TEXTS, corpus, files, interrupted, small  # noqa: F401 (fixtures)
from click.testing import CliRunner
from stand_ins import Lucky, NoQ, frames, recipe, slow_program
from test_lock import wait_for
from test_run import contents, labels
from test_verify import edit_json

from platemint import run_pipeline
from platemint.pipeline import run, storage
from platemint.pipeline.anonymize.compare import verify_against
from platemint.pipeline.anonymize.unfinished import UNFINISHED
from platemint.pipeline.plate import DIGITS, LETTERS, Failure, PlatemintError
from platemint.pipeline.recipe import Engine
from platemint.pipeline.report.run_page import PAGE_WITH_SOURCES
from platemint.pipeline.verify import verify

HERE = Path(__file__).parent


LIMITS = {"rounds": 30, "min_reader": 0.2}  # at which all is accepted in the end


def made(folder: Path, count: int = 40, stages: type[Lucky] = Lucky, how: dict | None = None, **fields) -> run.Result:
    one = recipe(folder, count, **({"filter": LIMITS} | fields))
    return run.generate(one, stages=stages(one), **(how or {}))


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    out = tmp_path_factory.mktemp("forty") / "plates"
    made(out)
    return out


@pytest.fixture
def folder(forty, tmp_path):
    return shutil.copytree(forty, tmp_path / "plates")


@pytest.fixture
def command(monkeypatch):
    """Calls the program with stand-in stages."""
    monkeypatch.setattr("platemint.pipeline.stages.Stages", Lucky)

    def call(*args):
        result = CliRunner().invoke(run_pipeline.main, [*map(str, args)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return call


# -------------------------------------------------------------------------------------------------------- --extend


def spread(texts: list[str], position: int, alphabet: str) -> int:
    counts = Counter(text[position] for text in texts if len(text) > position)
    return max(counts[c] for c in alphabet) - min(counts[c] for c in alphabet)


def groups(folder: Path) -> Counter:
    rows = (row for path in folder.glob("data/*") for row in pq.read_table(path).to_pylist())
    return Counter((row["layout"], row["split"]) for row in rows)


def test_an_extended_run_keeps_what_it_had_and_is_balanced_over_all(folder):
    before = contents(folder)
    for count in (67, 101):
        assert made(folder, count, how={"extend": True}).accepted == count
        texts, has = labels(folder), groups(folder)
        assert len({*texts}) == len(texts) == count
        assert all(spread(texts, position, LETTERS) <= 1 for position in (0, 1))
        assert spread(texts, 2, DIGITS) <= 1
        wanted = {("short", "train"): count / 2, ("long", "train"): count / 4, ("long", "val"): count / 4}
        assert all(abs(has[group] - n) <= 1 for group, n in wanted.items())
        assert verify(folder).faults == []
    after = contents(folder)
    changed = {name for name, data in before.items() if after[name] != data}
    assert changed <= {"manifest.json", "README.md", "croissant.json"}
    assert {f"data/train-part{n}-00000-of-0000{k}.parquet" for n, k in ((2, 1), (3, 2))} <= after.keys()
    assert made(folder, 101).accepted == 101 and contents(folder) == after  # nothing is left to do
    assert made(folder, 101, how={"extend": True}).accepted == 101 and contents(folder) == after


def test_rendered_plates_of_a_part_are_not_those_of_the_one_before(folder):
    """Photographs go on in turn, so that an endless source gives new ones."""
    made(folder, 80, how={"extend": True})
    rows = [row for path in sorted(folder.glob("data/*")) for row in pq.read_table(path).to_pylist()]
    endless = [row for row in rows if (row["layout"], row["split"]) == ("long", "train")]
    first = [row["source"] for row in endless if row["round"] == 0]
    assert len(endless) == 20 and len(first) == len({*first}) > 10
    assert sorted(row["index"] for row in rows) == list(range(80))


def test_characters_that_the_first_part_lacks_are_made_up_for(tmp_path):
    """Of the first run no text with a Q was accepted; the part that is added has as many more of them."""
    out, fields = tmp_path / "plates", {"filter": {"rounds": 3, "min_reader": 0.0}}
    first = made(out, 104, NoQ, **fields)
    assert first.missing and not any("Q" in text for text in labels(out))
    made(out, 208, how={"extend": True}, **fields)
    texts = labels(out)
    assert all(spread(texts, position, LETTERS) <= 1 for position in (0, 1)) and verify(out).faults == []


@pytest.mark.parametrize(
    "balance, said", [({"per": "character"}, "by themselves"), ({"pairs": True}, "pairs of neighbours are even among")]
)
def test_what_is_balanced_how_is_told(tmp_path, command, balance, said):
    sets = ["--set", "filter.min_reader=0"]
    for field, value in balance.items():
        sets += ["--set", f"balance.{field}={value}"]
    args = ["generate", "--out", tmp_path / "plates", *sets]
    assert command(*args, "--count", 52).exit_code == 0
    refused = command(*args, "--count", 78)
    assert refused.exit_code == 2 and "count was 52, is 78" in refused.stderr and "--extend to add 26" in refused.stderr
    before = contents(tmp_path / "plates")
    shown = command(*args, "--count", 78, "--extend", "--dry-run")
    assert said in shown.output and "52 plates stay as they are, 26 are added" in shown.output
    assert contents(tmp_path / "plates") == before
    result = command(*args, "--count", 78, "--extend")
    assert result.exit_code == 0 and said in result.stderr and verify(tmp_path / "plates").faults == []


@pytest.mark.parametrize(
    "fields, said", [({"count": 30}, "count was 40, is 30"), ({"seed": 1, "count": 60}, "seed was")]
)
def test_no_other_change_is_an_extension(folder, fields, said):
    before = contents(folder)
    with pytest.raises(PlatemintError, match=f"{said}.*--overwrite") as refused:
        made(folder, how={"extend": True}, **fields)
    assert "--extend to add" not in str(refused.value) and contents(folder) == before


EXTENDING = """
import os, signal, sys
from platemint.pipeline import run
from stand_ins import Lucky, recipe
left, rename = iter(range(int(sys.argv[2]))), os.replace
os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL) if next(left, None) is None else rename(*a)
made = recipe(sys.argv[1], 80, filter={"rounds": 30, "min_reader": 0.2})
run.generate(made, stages=Lucky(made), extend=True)
"""


def test_an_extension_that_is_killed_goes_on_to_the_same_bytes(forty, tmp_path):
    whole = shutil.copytree(forty, tmp_path / "whole")
    made(whole, 80, how={"extend": True})
    for renames in (0, 3, 5, 9, 12):
        out = shutil.copytree(forty, tmp_path / str(renames))
        killed = subprocess.run([sys.executable, "-c", EXTENDING, out, str(renames)], cwd=HERE, capture_output=True)
        assert killed.returncode == -signal.SIGKILL
        made(out, 80, how={"extend": True})
        assert contents(out) == contents(whole)


def test_an_extension_of_an_unfinished_run_finishes_it_first(folder):
    (folder / "commits/00001.json").unlink()
    with pytest.raises(PlatemintError, match="not carried out yet"):
        one = recipe(folder, 60, filter=LIMITS)
        run.planned(Lucky(one), extend=True)
    made(folder, 60, how={"extend": True})
    assert verify(folder).faults == [] and len(labels(folder)) == 60


# ------------------------------------------------------------------------------------------------------- --overwrite


def test_overwriting_removes_the_run_and_nothing_else(folder, tmp_path, command):
    made(folder, 60, how={"extend": True})
    for name in ("notes.txt", "data/mine.txt"):
        (folder / name).write_text("mine")
    (folder / PAGE_WITH_SOURCES).write_text("photographs that the run before was made from")
    made(folder, seed=1, how={"overwrite": True})
    assert not (folder / PAGE_WITH_SOURCES).exists()
    for name in ("notes.txt", "data/mine.txt"):
        assert (folder / name).read_text() == "mine"
        (folder / name).unlink()
    made(tmp_path / "other", seed=1)
    assert contents(folder) == contents(tmp_path / "other")
    both = command("generate", "--out", folder, "--extend", "--overwrite")
    assert both.exit_code == 2 and "give one of them" in both.stderr


def test_overwriting_leaves_a_folder_that_holds_no_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(PlatemintError, match="not a run's"):
        made(tmp_path, how={"overwrite": True})
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_another_recipe_and_the_remedies_are_told(folder):
    with pytest.raises(PlatemintError) as refused:
        made(folder, 41, edit={"batch": 4})
    assert all(said in str(refused.value) for said in ("count was 40, is 41", "edit.batch was 8, is 4", "--overwrite"))
    assert "--extend" not in str(refused.value)  # which would not do


def test_anonymize_overwrites_its_own_outputs_and_no_others(corpus, tmp_path, call, small):  # noqa: F811
    out = tmp_path / "out"
    interrupted(corpus, out)
    assert call(corpus, "--out", out, "--on-doubt", "withhold").exit_code == 2
    assert call(corpus, "--out", out, "--on-doubt", "withhold", "--overwrite").exit_code == 0
    refused = call(corpus, "--out", out)
    assert refused.exit_code == 2 and "--overwrite" in refused.stderr
    (out / "old.txt").write_text("of an older version of the dataset")
    before = files(out)
    assert call(corpus, "--out", out, "--overwrite").exit_code == 0
    assert "old.txt" not in files(out) and verify_against(out, corpus).faults == []
    assert files(out)["00.txt"] != before["00.txt"] and not (out / UNFINISHED).exists()  # under a new secret
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/audit.json").write_text('{"plates": 3}')
    refused = call(corpus, "--out", tmp_path / "photos", "--overwrite")
    assert refused.exit_code == 2 and os.listdir(tmp_path / "photos") == ["audit.json"]


# ---------------------------------------------------------------------------------------------------- verify --repair


def damage(folder: Path) -> None:
    """A byte of one shard, a file of the next, the commit of the last."""
    path = folder / "data/train-00000-of-00002.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (folder / "dropped/00001.parquet").unlink()
    (folder / "commits/00002.json").write_text("{")


def times(folder: Path) -> dict[str, int]:
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*.parquet")}


def test_repair_makes_what_is_damaged_again_and_nothing_else(forty, folder, command):
    made(folder, 80, how={"extend": True})
    whole = contents(folder)
    damage(folder)
    before = times(folder)
    assert command("verify", folder).exit_code == 1
    result = command("verify", folder, "--repair")
    assert result.exit_code == 0 and "no fault" in result.output, result.output
    assert re.findall(r"commits/(\d+)", result.output) == ["00000", "00001", "00002"]
    assert contents(folder) == whole
    after = times(folder)
    again = {shard[kind] for shard in json.loads(whole["plan.json"])["shards"][:3] for kind in ("data", "dropped")}
    assert {name for name, time in before.items() if after[name] == time} == before.keys() - again and len(again) == 6
    result = command("verify", folder, "--repair")
    assert result.exit_code == 0 and "made again" not in result.output and times(folder) == after


@pytest.mark.parametrize("name", ["README.md", "recipe.yaml", "set_aside.csv"])
def test_files_beside_the_shards_are_repaired(folder, command, name):
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    assert command("verify", folder, "--repair").exit_code == 0
    if name != "recipe.yaml":  # where it lies is not kept
        assert (folder / name).read_bytes() == whole


def test_a_manifest_that_lies_is_mended_and_a_commit_that_lies_is_no_excuse(folder, command):
    whole = contents(folder)
    edit_json(folder / "manifest.json", lambda facts: facts["commits"].reverse())
    assert command("verify", folder, "--repair").exit_code == 0 and contents(folder) == whole
    edit_json(folder / "commits/00000.json", lambda facts: facts["reasons"].update({"0": {"A": {"reader": 1}}}))
    result = command("verify", folder, "--repair")
    assert (
        result.exit_code == 0 and "00000.json: its shard was made again" in result.output and contents(folder) == whole
    )


class Otherwise(Lucky):
    """Another machine, which does not come to the same bytes."""

    def edit(self, plates):
        edited = super().edit(plates)
        for plate in edited:
            plate.image = plate.image // 2
        return edited


def test_a_repair_that_comes_to_other_bytes_is_refused(folder):
    damage(folder)
    with pytest.raises(Failure, match="made again, and it is not the one"):
        run.repair(folder, stages=Otherwise)
    assert any("not the commit the run ended with" in fault for fault in verify(folder).faults)
    assert run.repair(folder, stages=Lucky) and verify(folder).faults == []


def test_what_cannot_be_repaired_is_told(folder, tmp_path, command):
    assert command("verify", tmp_path, "--repair").exit_code == 2
    assert "--overwrite" in command("verify", folder, "--repair", "--against", tmp_path).stderr
    (folder / "manifest.json").unlink()
    result = command("verify", folder, "--repair")
    assert result.exit_code == 2 and "not finished" in result.stderr


# ------------------------------------------------------------------------------------------------------------- Ctrl-C

GENERATE = ["--set", "filter.rounds=90", "--set", "edit.batch=4", "--set", "filter.min_reader=0.35", "--count", 60]
GENERATE += ["--set", "write.shard_rows=10"]
ANONYMIZE = ["--track-consistent"]


def start(verb: str, out: Path, *args, seconds: float = 0.05) -> subprocess.Popen:
    """The program with slow stand-in networks, in a process group of its own, as a terminal has it."""
    source = [out.parent / "in"] if verb == "anonymize" else []
    options = GENERATE if verb == "generate" else ANONYMIZE
    command = [verb, *source, "--out", out, *options, *args]
    return slow_program(*command, stamp=0.3, edit=seconds, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def commits(out: Path) -> list[Path]:
    return [*out.glob("commits/*.json"), *out.glob(f"{UNFINISHED}/commits/*.json")]


def faults(verb: str, out: Path) -> list[str]:
    return verify(out).faults if verb == "generate" else verify_against(out, out.parent / "in").faults


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("verb", ["generate", "anonymize"])
def test_ctrl_c_ends_after_the_shards_in_work(tmp_path, verb, workers):
    frames(tmp_path / "in", PLATES)
    out, more = tmp_path / "out", ["--set", f"engine.workers={workers}"]
    process = start(verb, out, *more)
    wait_for(lambda: commits(out))
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: all processes get it
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in error, error
    assert "stopping when the shards in work are finished" in error and "same command again" in error
    assert 1 <= len(commits(out)) < 6 and not list(out.rglob("*.part"))
    assert int(re.search(r"(\d+) shards were finished", error)[1]) == len(commits(out))
    done = {path: path.read_bytes() for path in commits(out)}
    if verb == "generate":  # while it lasts: anonymize publishes
        for path, data in done.items():
            assert path.read_bytes() == data
    again = start(verb, out, *more)
    assert again.communicate(timeout=60) and again.returncode == 0 and faults(verb, out) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_ctrl_c_stops_at_once(tmp_path, workers):
    out, more = tmp_path / "out", ["--set", f"engine.workers={workers}"]
    process = start("generate", out, *more, "--set", "write.shard_rows=30", seconds=1.0)
    wait_for(lambda: out.is_dir() and (out / "set_aside.csv").exists())
    time.sleep(1)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
    error = process.communicate(timeout=20)[1]
    assert process.returncode == 130 and "at once" in error and "Traceback" not in error, error
    assert not commits(out) and not (out / ".lock").exists()
    again = start("generate", out, *more, "--set", "write.shard_rows=30")
    assert again.communicate(timeout=60) and again.returncode == 0 and faults("generate", out) == []


# ----------------------------------------------------------------------------------------------------------- full disks


def test_a_full_disk_names_the_bytes_needed(mounted):
    out = mounted("size=300k") / "plates"
    with pytest.raises(Failure) as fault:
        made(out, 120)
    told = re.search(r"it takes ([\d,]+) bytes and ([\d,]+) are free.*The (\d+) plates that are left take about ([\d,]+)",
                     str(fault.value))  # fmt: skip
    needed, free, plates, rest = (int(number.replace(",", "")) for number in told.groups())
    assert free < needed and 0 < plates < 120 and not list(out.rglob(".*"))
    subprocess.run(["mount", "-o", f"remount,size={300 * 1024 + 3 * rest}", out.parent], check=True)
    before = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    assert made(out, 120).accepted == 120
    taken = sum(path.stat().st_size for path in out.rglob("*.parquet")) - before
    assert 0.7 < rest / taken < 1.4


def test_a_full_disk_while_anonymizing(mounted, tmp_path, call, small):  # noqa: F811
    corpus = frames(tmp_path / "in", PLATES)  # noqa: F811
    out = mounted("size=700k") / "out"
    result = call(corpus, "--out", out)
    assert result.exit_code == 1 and re.search(r"takes [\d,]+ bytes and [\d,]+ are free.*same command", result.stderr)
    assert re.search(r"The \d+ pictures that are left take about [\d,]+ bytes", result.stderr), result.stderr
    assert not [text for text in TEXTS if text in result.stderr]
    subprocess.run(["mount", "-o", "remount,size=9m", out.parent], check=True)
    assert call(corpus, "--out", out).exit_code == 0 and verify_against(out, corpus).faults == []


def test_a_fault_of_the_disk_survives_the_way_from_another_process():
    import pickle

    fault = pickle.loads(pickle.dumps(storage.NoRoom(Path("x"), 10, 3)))
    assert (fault.needed, fault.free, str(fault)) == (10, 3, str(storage.NoRoom(Path("x"), 10, 3)))


def test_an_address_without_ray_is_refused():
    with pytest.raises(ValueError, match="kind: ray"):
        Engine(address="auto")
    assert json.loads(Engine(kind="ray", address="auto").model_dump_json())["address"] == "auto"
