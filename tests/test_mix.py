"""Several sources in one run: shares hold, balance is over all of them, and a source stays in its split."""

from collections import Counter

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from stand_ins import Lucky, recipe

from platemint.pipeline.mix import MixedSources
from platemint.pipeline.plan import in_files, make_plan
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.recipe import load_recipe
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.shard import run_shard
from platemint.pipeline.stages import Stages


class LuckyMix(Lucky):
    """Opens what its recipe names; edits and filters as `Lucky` does."""

    sources = Stages.sources


def corpus(folder, layout, count, seed, split="train", texts=()):
    folder.mkdir()
    rng, layout = np.random.default_rng(seed), load_layouts([layout])[layout]
    lines = ["path,text,split"]
    for i in range(count):
        text = texts[i] if texts else random_text(layout.positions, rng)
        cv2.imwrite(str(folder / f"{i}.png"), render_plate(layout, text, rng, severity=0.1).image[..., ::-1])
        lines.append(f"{i}.png,{text},{split}")
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf8")
    return str(folder)


def mix(tmp_path, sources, **sections):
    return LuckyMix(recipe(tmp_path / "out", sources=sources, **sections))


def targets_by(plan, stages):
    """{group's number: targets} of a plan."""
    return {n: entry["targets"] for n, entry in enumerate(plan.facts["groups"])}


def test_shares_hold_and_balance_is_over_all_of_them(tmp_path):
    us = corpus(tmp_path / "us", "us-california", 6, 1)
    br = corpus(tmp_path / "br", "br-mercosur", 9, 2)
    sources = [{"path": us, "share": 0.5}, {"path": br, "share": 0.2}, {"layouts": ["cn-blue", "uk"]}]
    stages = mix(tmp_path, sources, count=200)
    plan = make_plan(stages)
    by_group = targets_by(plan, stages)
    assert [by_group[0], by_group[1], by_group[2] + by_group[3]] == [100, 40, 60]
    for counts in plan.facts["quotas"].values():
        assert max(counts.values()) - min(counts.values()) <= 1
    assert sum(plan.facts["quotas"]["5/0123456789"].values()) == 140  # one pool for both corpora


def test_a_mix_runs_and_says_of_each_plate_what_it_is(tmp_path):
    us = corpus(tmp_path / "us", "us-california", 4, 1)
    stages = mix(tmp_path, [{"path": us, "share": 0.5}, {"layouts": ["uk"]}], count=40)
    plan = make_plan(stages)
    commits = [run_shard(shard, stages, plan.rules) for shard in plan.shards]
    assert sum(commit["accepted"] for commit in commits) == 40
    rows = [row for shard in plan.shards for row in pq.read_table(tmp_path / "out" / shard.data).to_pylist()]
    kinds = Counter((row["layout"], row["digital_source_type"].rpartition("/")[2]) for row in rows)
    assert kinds == {("", "compositeWithTrainedAlgorithmicMedia"): 20, ("uk", "trainedAlgorithmicMedia"): 20}


def test_workers_find_the_same_mix_in_its_file(tmp_path):
    us = corpus(tmp_path / "us", "us-california", 4, 1)
    stages = mix(tmp_path, [{"path": us, "share": 0.5}, {"layouts": ["uk", "se"]}])
    (tmp_path / "out").mkdir()
    with in_files(make_plan(stages), stages) as (for_workers, _):
        there = MixedSources.read(for_workers.sources_file, stages.recipe)
        assert there.groups == stages.sources.groups
        for group in range(len(there.groups)):
            turns = [sources.turn(group, 1, 0) for sources in (there, stages.sources)]
            plates = [sources.get(group, turns[0]) for sources in (there, stages.sources)]
            assert turns[0] == turns[1] and np.array_equal(*(plate.image for plate in plates))


def test_one_source_alone_gives_the_bytes_it_gave(tmp_path):
    """As `source:` and as the one of `sources:` the targets and the plates are the same."""
    us = corpus(tmp_path / "us", "us-california", 4, 1)
    alone, listed = Stages(load_recipe(None, [f"source.path={us}"])), mix(tmp_path, [{"path": us}], count=500)
    assert listed.sources.parts[0].groups == alone.sources.groups
    one, other = (make_plan(LuckyMix(s.recipe)) for s in (alone, listed))
    assert np.concatenate([s.targets.text for s in one.shards]).tolist() == [
        text for s in other.shards for text in s.targets.text.tolist()
    ]


def test_a_picture_and_a_text_stay_in_the_split_of_the_first_corpus(tmp_path):
    texts = ["1ABC234", "2BCD345", "3CDE456"]
    first = corpus(tmp_path / "a", "us-california", 3, 1, "train", texts)
    second = corpus(tmp_path / "b", "us-california", 2, 2, "val", [texts[0], "4DEF567"])
    third = tmp_path / "c"
    third.mkdir()
    (third / "again.png").write_bytes((tmp_path / "a" / "1.png").read_bytes())
    (third / "labels.csv").write_text("path,text\nagain.png,2BCD345\n", encoding="utf8")
    stages = mix(tmp_path, [{"path": first, "share": 0.5}, {"path": second}])
    texts_of = [[photo.text for photo in photos] for photos in stages.sources.photos]
    assert [sorted(some) for some in texts_of] == [sorted(texts), ["4DEF567"]]
    (aside,) = stages.sources.set_aside
    assert aside["path"] == "0.png" and "split train of another corpus" in aside["reason"]
    ids = [photo.source for photos in stages.sources.photos for photo in photos]
    assert len(set(ids)) == len(ids)
    with pytest.raises(PlatemintError, match="stand in the corpora before it"):
        _ = mix(tmp_path, [{"path": first}, {"path": str(third)}]).sources


@pytest.mark.parametrize(
    "sources, said",
    [
        ("[{layouts: [uk], share: 0.5}, {layouts: [se], share: 0.4}]", "add up to 0.9"),
        ("[{layouts: [uk], share: 0.8}, {layouts: [se], share: 0.4}]", "add up to 1.2"),
        ("[{layouts: [uk], share: 1.0}, {layouts: [se]}]", "nothing is left"),
        ("[{layouts: [uk], share: 0.0}, {layouts: [se]}]", "share of 0"),
        ("[{path: x, share: 0.5}, {path: ./x, share: 0.5}]", "x stands there twice"),
        ("[{path: x, share: 0.5, split: train}, {path: x, share: 0.5}]", "x stands there twice"),
        ("[{layouts: [uk]}, {}]", "neither a corpus"),
        ("[{layouts: [uk], shard: 1.0}]", "unknown field.*did you mean share"),
        ("[{path: x, layouts: [uk]}]", "layouts is for"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(sources, said):
    with pytest.raises(PlatemintError, match=said):
        load_recipe(None, [f"sources={sources}"])


def test_source_and_sources_exclude_each_other(tmp_path):
    with pytest.raises(PlatemintError, match="give one of them"):
        load_recipe(None, ["source.path=x", "sources=[{layouts: [uk]}]"])


def test_two_parts_cannot_render_one_layout(tmp_path):
    with pytest.raises(PlatemintError, match="uk: is rendered by two"):
        _ = mix(tmp_path, [{"layouts": ["uk", "se"]}, {"layouts": ["uk"]}]).sources


def test_a_corpus_without_a_plate_is_named(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(PlatemintError, match="empty"):
        _ = mix(tmp_path, [{"path": str(empty)}, {"layouts": ["uk"]}]).sources


def test_the_corpora_of_a_mix_can_be_written_too(tmp_path):
    us = corpus(tmp_path / "us", "us-california", 4, 1)
    stages = mix(tmp_path, [{"path": us}, {"layouts": ["uk"]}], write={"real": True})
    assert sum(len(shard.real) for shard in make_plan(stages).shards) == 4
