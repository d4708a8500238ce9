"""Texts of another length than their plate's: only where it has room, exactly as often as asked, evenly balanced."""

from collections import Counter

import cv2
import numpy as np
import pytest
from stand_ins import Lucky, recipe

from platemint.pipeline.alignment import Standing
from platemint.pipeline.lengths import NO_ROOM, Room, respelled, room, room_of_layout
from platemint.pipeline.plan import make_plan
from platemint.pipeline.plate import DIGITS, LETTERS, PlatemintError, characters
from platemint.pipeline.recipe import load_recipe
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.shard import run_shard
from platemint.pipeline.stages import Stages

ROOMY = ["br-mercosur", "us-california"]


class LuckyRenderer(Lucky):
    """Takes rendered plates; edits and filters as `Lucky` does."""

    @property
    def sources(self):
        from platemint.pipeline.sample import open_sources

        return open_sources(self.recipe)


def rendered(out, lengths, **sections):
    return recipe(out, source={"layouts": ROOMY}, draw={"lengths": lengths, "blocked": []}, **sections)


def stand(places, lower=False):
    places = np.array(places, np.float32)
    return Standing(places, places, np.full(len(places), lower), np.zeros((2, 2), np.float32))


def test_the_longest_run_of_an_alphabet_grows_or_shrinks():
    like = (LETTERS, LETTERS, LETTERS, DIGITS, DIGITS, DIGITS)
    assert respelled(like, 1) == (*like, DIGITS) and respelled(like, -2) == like[:4] and respelled(like, -3) == ()
    assert respelled((DIGITS, *[LETTERS] * 3, *[DIGITS] * 3), -1) == (DIGITS, *[LETTERS] * 3, DIGITS, DIGITS)
    assert respelled((LETTERS, " ", DIGITS, DIGITS), 2) == (LETTERS, " ", *[DIGITS] * 4)
    assert respelled((LETTERS, LETTERS, DIGITS, DIGITS), -1) == () and respelled((DIGITS,) * 12, 1) == ()


EVEN, GAPPED = [0.25, 0.35, 0.45, 0.55, 0.65, 0.75], [0.2, 0.3, 0.4, 0.6, 0.7, 0.8]


@pytest.mark.parametrize(
    "text, standing, takes",
    [
        ("ABC123", stand(EVEN), {-2, -1, 1, 2}),
        ("ABC123", stand([0.08, 0.25, 0.42, 0.58, 0.75, 0.92]), {-2, -1}),  # no room at the ends
        ("ABC123", stand(GAPPED), {-2, 2}),  # with one more or fewer a character would stand in the gap
        ("ABC-123", stand(EVEN), set()),
        ("京A1234", stand(EVEN), set()),
        ("ABC123", stand(EVEN, lower=True), set()),
        ("ABC123", None, set()),
    ],
)
def test_a_row_grows_around_its_middle_as_far_as_the_plate_reaches(text, standing, takes):
    found = room(text, standing)
    assert {d for d in (-2, -1, 1, 2) if found.takes(d)} == takes


def test_layouts_have_room_between_what_is_printed():
    layouts = load_layouts()
    rooms = {name: room_of_layout(layout) for name, layout in layouts.items()}
    assert all(rooms[name] == NO_ROOM for name in ("cn-blue", "br-mercosur-moto", "vn-two-row"))
    assert rooms["us-california"] == rooms["br-mercosur"] == Room(0, True)
    assert all(not rooms[name].even for name in ("hr", "us-florida", "tw-2012"))
    assert rooms["za-gauteng"] == Room(1, True)


def test_each_length_comes_as_often_as_asked_and_all_positions_stay_even(tmp_path):
    stages = LuckyRenderer(rendered(tmp_path, {-1: 0.25, -2: 0.1}, count=200))
    plan = make_plan(stages)
    groups = stages.sources.groups
    asked = Counter()
    for entry in plan.facts["groups"]:
        asked[entry["longer"]] += entry["targets"]
    assert asked == {0: 130, -1: 50, -2: 20}
    for counts in plan.facts["quotas"].values():
        assert max(counts.values()) - min(counts.values()) <= 1
    for shard in plan.shards:
        for group, text in zip(shard.targets.group.tolist(), shard.targets.text.tolist()):
            own = len(load_layouts()[groups[group].layout].positions)
            assert len(characters(text)) == own + groups[group].longer


def test_a_rendered_source_is_as_long_as_its_layout_whatever_it_shall_say(tmp_path):
    stages = LuckyRenderer(rendered(tmp_path, {-1: 0.5}))
    sources = stages.sources
    derived = next(n for n, group in enumerate(sources.groups) if group.longer)
    plate = sources.get(derived, (0, 0))
    assert len(plate.text) == len(sources.groups[derived].positions) + 1
    commit = run_shard(make_plan(stages).shards[0], stages)
    assert commit["accepted"] and not commit["missing"]


def test_plates_without_other_lengths_are_drawn_as_before(tmp_path):
    plain = make_plan(LuckyRenderer(rendered(tmp_path, {})))
    never = make_plan(LuckyRenderer(rendered(tmp_path, {-1: 0.0})))
    assert [s.targets.text.tolist() for s in plain.shards] == [s.targets.text.tolist() for s in never.shards]


def corpus(folder, name, count=12):
    folder.mkdir()
    rng, layout = np.random.default_rng(3), load_layouts([name])[name]
    for i in range(count):
        plate = render_plate(layout, random_text(layout.positions, rng), rng, severity=0.1)
        cv2.imwrite(str(folder / f"{plate.text}_{i}.png"), plate.image[..., ::-1])
    return folder


def test_a_corpus_s_plates_are_looked_at_for_room(tmp_path):
    path = corpus(tmp_path / "corpus", "us-california")
    given = [f"source.path={path}", "draw.lengths={-1: 0.5}", "count=40", "write.real=true", "draw.blocked=[]"]
    stages = Stages(load_recipe(None, given))
    own, shorter = stages.sources.groups[0], stages.sources.groups[-1]
    assert (own.longer, shorter.longer) == (0, -1) and 0 < shorter.sources <= own.sources
    assert own.weight + shorter.weight == pytest.approx(1) and len(shorter.positions) == len(own.positions) - 1
    plan = make_plan(stages)
    assert sum(entry["targets"] for entry in plan.facts["groups"] if entry["longer"]) == 20
    assert sum(len(shard.real) for shard in plan.shards) == 12  # each photograph once


def test_a_length_that_no_plate_has_room_for_is_refused(tmp_path):
    path = corpus(tmp_path / "corpus", "tw-2012", 3)
    with pytest.raises(PlatemintError, match="draw.lengths: \\+1: not one plate"):
        _ = Stages(load_recipe(None, [f"source.path={path}", "draw.lengths={1: 0.5}"])).sources
    with pytest.raises(PlatemintError, match="draw.lengths: -1"):
        _ = LuckyRenderer(recipe(tmp_path, source={"layouts": ["cn-blue"]}, draw={"lengths": {-1: 0.5}})).sources


@pytest.mark.parametrize(
    "sets, said",
    [
        (["draw.lengths={0: 0.5}"], "not one of -2"),
        (["draw.lengths={-1: 0.6, 1: 0.5}"], "more than 1"),
        (["draw.lengths={-1: 0.1}", "balance.top_up=true", "source.path=x"], "top_up"),
    ],
)
def test_lengths_that_cannot_be_are_refused(sets, said):
    with pytest.raises(PlatemintError, match=said):
        load_recipe(None, sets)
