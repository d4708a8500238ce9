"""Plans: what a worker process is sent does not grow with the run, and is all that a shard needs."""

import pickle
from functools import partial

import numpy as np
import pytest
import stand_ins
import torch
from test_sample import corpus

from platemint.pipeline import engines, lock, networks
from platemint.pipeline.draw import Targets
from platemint.pipeline.plan import TOGETHER, in_files, make_plan, together
from platemint.pipeline.plate import Failure, Group
from platemint.pipeline.recipe import load_recipe
from platemint.pipeline.shard import run_shard
from platemint.pipeline.stages import Stages


def sent(stages: Stages) -> tuple[int, int]:
    """Bytes that a worker process is sent at its start and for the largest shard."""
    plan = make_plan(stages)
    stages.recipe.folder.mkdir()
    with in_files(plan, stages) as (for_workers, rules):
        work = len(pickle.dumps(partial(run_shard, stages=for_workers, rules=rules)))
    assert not any(stages.recipe.folder.iterdir())
    return work, max(len(pickle.dumps(shard)) for shard in plan.shards)


def test_what_a_worker_is_sent_does_not_grow_with_the_texts_of_a_run(tmp_path):
    given = ({"out": str(tmp_path / str(n)), "count": n, "write.shard_rows": 250} for n in (1_000, 100_000))
    few, many = (sent(Stages(load_recipe(None, overrides=made))) for made in given)
    assert np.abs(np.subtract(few, many)).max() < 2_000 and max(many) < 100_000


def test_nor_with_the_photographs_of_a_corpus(tmp_path):
    sizes = []
    for n in (10, 200):
        corpus(tmp_path / str(n), [(f"ABC{i:04d}", "train") for i in range(n)])
        made = {"source.path": str(tmp_path / str(n)), "out": str(tmp_path / f"out-{n}"), "count": 50}
        sizes.append(sent(Stages(load_recipe(None, overrides=made)))[0])
    assert abs(sizes[0] - sizes[1]) < 500


def test_stages_and_rules_from_files_are_those_of_the_plan(tmp_path):
    corpus(tmp_path / "corpus", [(f"ABC{i:04d}", ("train", "val")[i % 2]) for i in range(10)])
    made = {"source.path": str(tmp_path / "corpus"), "out": str(tmp_path / "out"), "count": 50}
    stages = Stages(load_recipe(None, overrides=made))
    plan = make_plan(stages)
    stages.recipe.folder.mkdir()
    texts = [text for shard in plan.shards for text in shard.targets.text.tolist()]
    tried = [*texts, "ABC0003", "ABC-0004", "A8C0003", "NULL", "XYZ9999", "", "LONGER-THAN-ANY"]
    with in_files(plan, stages) as sent:
        there, rules = pickle.loads(pickle.dumps(sent))
        assert there.sources.groups == stages.sources.groups and there.sources.photos == stages.sources.photos
        assert there.demand == stages.demand
        assert [text in rules.taken for text in tried] == [text in plan.rules.taken for text in tried]
        assert all(text in rules.taken for text in texts) and "XYZ9999" not in rules.taken


@pytest.mark.parametrize(
    "workers, shards, worth, gpus, found",
    [("auto", 9, 9, 0, 2), ("auto", 9, 0, 0, 1), ("auto", 9, 9, 3, 3), ("auto", 2, 9, 3, 2), (7, 9, 0, 0, 7), (7, 3, 9, 1, 3)],
)  # fmt: skip
def test_auto_uses_cores_or_gpus_as_far_as_there_is_work(monkeypatch, workers, shards, worth, gpus, found):
    monkeypatch.setattr(engines, "_cores", lambda: 8)
    assert engines.processes(workers, shards, worth, gpus) == found
    assert engines.threads(found) == max(1, min(4, 8 // found))


def seen(shard: int) -> str:
    """The GPUs that a worker process may use."""
    import os
    import time

    time.sleep(0.5)  # so that each process gets some
    return os.environ["CUDA_VISIBLE_DEVICES"]


def test_each_worker_has_a_gpu_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert {*engines.Team(2, 1, gpus=2).each(seen, range(6), tmp_path)} == {"4", "6"}


def test_a_worker_that_outlives_its_run_writes_nothing(tmp_path):
    """Its program was killed, and another one has begun the folder anew."""
    stages = stand_ins.Lucky(stand_ins.recipe(tmp_path / "run", 40))
    plan = make_plan(stages)
    with lock.held(tmp_path / "run") as stages.holder, in_files(plan, stages) as (for_workers, rules):
        worker = for_workers
    with lock.held(tmp_path / "run"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(Failure, match="no longer this run's"):
            run_shard(plan.shards[0], worker)
        assert sorted(tmp_path.rglob("*")) == before


def test_workers_take_the_device_and_the_precision_that_a_run_was_begun_with(untrained, monkeypatch):
    monkeypatch.setattr(networks, "_cpu_has_bfloat16", lambda: True)
    stages = Stages(load_recipe(None, overrides={"edit": untrained.model_dump()}))
    assert stages.device.endswith(" bfloat16")
    sent = pickle.dumps(stages)
    monkeypatch.setattr(networks, "_cpu_has_bfloat16", lambda: False)
    worker = pickle.loads(sent)
    assert worker.edit.dtype == worker.filter.dtype == torch.bfloat16
    assert worker.recipe == stages.recipe  # by whose hash its commits are known
    assert Stages(worker.recipe).device.endswith(" float32")


@pytest.mark.parametrize("photos, count", [(1, 40), (7, 40), (90, 500), (1000, 999), (1000, 2999), (3000, 40_000)])
def test_photographs_serve_several_targets_of_a_shard_and_over_the_run_all_as_often(photos, count):
    """Of two groups of a split, whose targets take turns; and added to a run that has `before` of each."""
    groups = [Group("", "train", ("AB",), 0.5, sources, ()) for sources in (photos, 2 * photos)]
    group, rows, before = np.tile([0, 1], count).astype(np.int32), 200, 13
    index = before + np.repeat(np.arange(count), 2)
    found = together(Targets(group, np.full(2 * count, "A"), index), groups, rows).group_index
    for number, n in enumerate((photos, 2 * photos)):
        own, turns = found[group == number], index[group == number]
        assert sorted(own) == sorted(turns)  # so over the run each photograph serves as often as before
        shards = [own[start : start + rows // 2] % n for start in range(0, count, rows // 2)]
        served = np.mean([len(shard) / len(np.unique(shard)) for shard in shards])
        most = max(min(count // n, TOGETHER), -(-min(rows // 2, count) // n), 1)
        assert served > 0.5 * most and max(np.bincount(shard).max() for shard in shards) <= 2 * most
        if n > TOGETHER and len(np.unique(own % n)) > TOGETHER:
            assert not (np.diff(own % n) == 0).any()  # nor do plates of one photograph stand side by side


def test_targets_of_rendered_plates_keep_their_numbers():
    targets = Targets(np.zeros(50, np.int32), np.full(50, "A"), np.arange(50))
    assert np.array_equal(together(targets, [Group("de", "train", ("AB",), 1.0, 0, ())], 10).group_index, np.arange(50))
