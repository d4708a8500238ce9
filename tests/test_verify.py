"""Verification finds every kind of damage, and says in which file and row."""

import io
import json
import shutil

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import Lucky, NoQ, recipe

from platemint.pipeline import run, storage, write
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.verify import verify

DATA, COMMIT, DROPPED = "data/train-00001-of-00002.parquet", "commits/00001.json", "dropped/00001.parquet"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A finished run nobody touches: 40 plates in three shards."""
    out = tmp_path_factory.mktemp("sound") / "plates"
    made = recipe(out, count=40, write={"shard_rows": 15, "masks": True})
    run.generate(made, stages=Lucky(made))
    return out


@pytest.fixture
def folder(sound, tmp_path):
    """A copy to damage."""
    return shutil.copytree(sound, tmp_path / "plates")


def edit_json(path, change):
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def forge(folder, name, change, commit=COMMIT):
    """Rewrites rows of a shard and mends every hash that covers them, as one who wants to hide it would."""
    table = pq.read_table(folder / name)
    rows = table.to_pylist()
    rows = change(rows) or rows
    data = write.parquet(rows, table.schema)
    (folder / name).write_bytes(data)

    def update(facts):
        for file in facts["files"]:
            if file["path"] == name:
                file.update(bytes=len(data), sha256=storage.sha256(data))

    edit_json(folder / commit, update)
    commits = [json.loads(path.read_text()) for path in sorted(folder.glob("commits/*"))]
    edit_json(folder / "manifest.json", lambda facts: facts.update(run.manifest(commits)))


def test_a_sound_run_has_no_fault(sound, tmp_path):
    report = verify(sound)
    assert report.faults == [] and report.plates == 40 and report.dropped > 5 and report.files == 6
    made = recipe(tmp_path / "short", filter={"rounds": 2})
    assert run.generate(made, stages=NoQ(made)).missing
    assert verify(tmp_path / "short").faults == []  # a shortfall that is owned up to is no fault


@settings(max_examples=80, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), file=st.integers(0, 9))
def test_any_flipped_bit_is_found(sound, where, bit, file):
    """A shard is named; what a commit or plan says wrongly may show in its shard. Times are not checked."""
    kinds = ("data/*", "dropped/*", "commits/*", "plan.json", "manifest.json")
    files = [path for kind in kinds for path in sorted(sound.glob(kind))]
    path = files[file % len(files)]
    whole = path.read_bytes()
    end = whole.find(b'"seconds"') if path.parent.name == "commits" else len(whole)
    flipped = bytearray(whole)
    flipped[int(where * end)] ^= 1 << bit
    same = path.suffix == ".json" and _parses_alike(whole, flipped)
    path.write_bytes(flipped)
    try:
        faults = verify(sound).faults
    except PlatemintError as error:
        faults = [str(error)]
    finally:
        path.write_bytes(whole)
    assert same or any(path.name in fault or path.suffix == ".json" for fault in faults)


def _parses_alike(whole: bytes, flipped: bytes) -> bool:
    """Whether only white space changed."""
    try:
        return json.loads(whole) == json.loads(flipped)
    except ValueError:
        return False


@pytest.mark.parametrize("name", [DATA, COMMIT, DROPPED, "manifest.json", "recipe.yaml"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert any(fault.startswith(name) for fault in verify(folder).faults)


def test_no_run_no_verdict(tmp_path):
    with pytest.raises(PlatemintError, match="not a run folder"):
        verify(tmp_path)


@pytest.mark.parametrize("name", [DATA, DROPPED])
@pytest.mark.parametrize("left", [0, 100, -1])
def test_a_truncated_file_is_named(folder, name, left):
    (folder / name).write_bytes((folder / name).read_bytes()[:left])
    assert any(fault.startswith(name) and "not a whole Parquet" in fault for fault in verify(folder).faults)


@pytest.mark.parametrize(
    "name", ["data/.train-00001-of-00002.parquet.77.part", ".plan.json.7.part", "data/mine.parquet"]
)
def test_a_leftover_file_is_named(folder, name):
    (folder / name).write_bytes(b"half")
    assert verify(folder).faults == [f"{name}: does not belong to the run"]


def test_an_edited_label_is_found_though_the_hashes_were_mended(folder):
    def relabel(rows):
        rows[3]["text"] = ("B" if rows[3]["text"][0] == "A" else "A") + rows[3]["text"][1:]

    forge(folder, DATA, relabel)
    faults = verify(folder).faults
    assert len(faults) == 3 and all(fault.startswith(f"{DATA}: ") for fault in faults)
    assert sum("at position 0" in fault for fault in faults) == 2 and "not the planned ones" in faults[2]


def test_labels_that_changed_places_are_found(folder):
    def swap(rows):
        same = [row for row in rows if row["layout"] == "short"]
        same[0]["text"], same[1]["text"] = same[1]["text"], same[0]["text"]

    forge(folder, DATA, swap)
    assert verify(folder).faults == [f"{DATA}: its labels, and those its commit misses, are not the planned ones"]


def row_change(**values):
    def change(rows):
        rows[3].update(values)

    return change


def swap_pictures(rows):
    rows[3]["image"], rows[4]["image"] = rows[4]["image"], rows[3]["image"]


def tear_picture(rows):
    rows[3]["image"]["bytes"] = rows[3]["image"]["bytes"][:-40]


def shrink_mask(rows):
    rows[3]["mask"]["bytes"] = cv2.imencode(".png", np.zeros((5, 5), np.uint8))[1].tobytes()


def repeat_text(rows):
    rows[4]["text"], rows[4]["layout"] = rows[3]["text"], rows[3]["layout"]


def serve_twice(rows):
    rows[4]["index"] = rows[3]["index"]


@pytest.mark.parametrize(
    "change, row, said",
    [
        (swap_pictures, 3, "picture is named"),
        (tear_picture, 3, "image cannot be decoded"),
        (shrink_mask, 3, "differ in size"),
        (repeat_text, 4, "stands in the run twice"),
        (serve_twice, 4, "served twice"),
        (row_change(text="A?1"), 3, "does not fit its layout"),
        (row_change(split="val"), 3, "is of split 'val'"),
        (row_change(source="2/0"), None, "source is in split 'train' too"),
        (row_change(index=4000), 3, "never planned"),
        (row_change(round=30), 3, "never planned"),
        (row_change(score_reader=0.2), 3, "against filter.min_reader 0.35"),
        (row_change(score_slots=float("nan")), 3, "outside 0..1"),
        (row_change(score_slots=1.5), 3, "outside 0..1"),
        (row_change(image=None), 3, "empty field"),
        (lambda rows: rows[1:], None, "rows, its commit says"),
        (lambda rows: [*rows, rows[0]], None, "rows, its commit says"),
    ],
)
def test_a_forged_row_is_named(folder, change, row, said):
    forge(folder, DATA, change)
    faults = verify(folder).faults
    assert any(said in fault and (row is None or f"{DATA}, row {row}:" in fault) for fault in faults), faults


@pytest.mark.parametrize(
    "change, said",
    [
        (row_change(reason="luck"), "drops for"),
        (row_change(reason=""), "drops for"),
        (serve_twice, "one plate too many"),
    ],
)
def test_a_forged_drop_is_found(folder, change, said):
    def with_round(rows):
        change(rows)
        rows[4]["round"] = rows[3]["round"]

    forge(folder, DROPPED, with_round)
    assert any(DROPPED in fault and said in fault for fault in verify(folder).faults)


def test_other_columns_are_found(folder):
    table = pq.read_table(folder / DATA).drop_columns(["reading"])
    sink = io.BytesIO()
    pq.write_table(table, sink)
    (folder / DATA).write_bytes(sink.getvalue())
    assert any(fault.startswith(DATA) and "columns" in fault for fault in verify(folder).faults)


def test_a_wrong_quota_is_found(folder):
    def more(plan):
        key = next(key for key in plan["quotas"] if key.startswith("0/"))
        plan["quotas"][key]["A"] += 3

    edit_json(folder / "plan.json", more)
    faults = verify(folder).faults
    assert any("plan.json: plans" in fault and "'A' at 0/" in fault for fault in faults)
    assert any("not even" in fault for fault in faults) and any("not the plan" in fault for fault in faults)


@pytest.mark.parametrize(
    "change",
    [
        lambda commit: commit.update(recipe_sha256="0" * 64),
        lambda commit: commit.update(accepted=commit["accepted"] - 1),
        lambda commit: commit["missing"].update({"3": "AB1"}),
        lambda commit: commit["rejected"].clear(),
        lambda commit: commit["files"].reverse(),
        lambda commit: commit.pop("counts"),
        lambda commit: commit.update(files=[]),
    ],
)
def test_a_changed_commit_is_named(folder, change):
    edit_json(folder / COMMIT, change)
    assert any(COMMIT in fault or DATA in fault or DROPPED in fault for fault in verify(folder).faults)


def test_another_recipe_in_the_folder_is_found(folder):
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    assert verify(folder).faults == ["recipe.yaml: is not the recipe the run was planned with"]
    path.write_text("seed: [")
    assert any(fault.startswith("recipe.yaml") for fault in verify(folder).faults)


def test_the_unfinished_and_the_damaged_are_mended_by_generating_again(folder):
    for name in (DATA, COMMIT, "manifest.json"):
        (folder / name).unlink()
    assert len(verify(folder).faults) >= 1
    made = recipe(folder, count=40, write={"shard_rows": 15, "masks": True})
    run.generate(made, stages=Lucky(made))
    assert verify(folder).faults == []
