"""What a balance wishes for is what is drawn, to the character, and what cannot be had is refused by name."""

import re
from collections import Counter, defaultdict
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platemint.pipeline.balance.forbidden import forbidden_texts
from platemint.pipeline.balance.quotas import Demand, Pool, group_weights, had
from platemint.pipeline.balance.shares import Target
from platemint.pipeline.draw import _fill_columns, _PairMender, _patterns, draw_targets, quotas
from platemint.pipeline.plate import DIGITS, LETTERS, PROVINCES, Group, PlatemintError, Readings, characters
from platemint.pipeline.recipe import Balance, load_recipe
from platemint.pipeline.sample import open_sources

ALPHABETS = {"L": LETTERS, "D": DIGITS, "P": PROVINCES, "N": LETTERS.replace("I", "").replace("O", "")}


def group(pattern: str, weight: float = 1.0, split: str = "train", layout: str = "some", blocked=()) -> Group:
    return Group(layout, split, tuple(ALPHABETS.get(c, c) for c in pattern), weight, 1, tuple(blocked))


def counted(targets, groups, demand) -> dict[Pool, Counter]:
    """Characters of every pool, counted the slow way."""
    pools = defaultdict(Counter)
    for text, g in zip(targets.text.tolist(), targets.group.tolist()):
        for position, (c, alphabet) in enumerate(zip(text, groups[g].positions, strict=True)):
            assert c in alphabet
            pools[Pool(position, alphabet, demand.scope(groups[g]))][c] += 1
    return pools


patterns = st.text("LDN-", min_size=6, max_size=8).filter(lambda pattern: len(pattern.replace("-", "")) >= 6)
groups_of = st.lists(
    st.builds(group, patterns, st.floats(0.1, 10), st.sampled_from(["train", "val"]), st.sampled_from(["a", "b"])),
    min_size=1,
    max_size=6,
)


def table(seed: int) -> dict[str, float]:
    """Shares of some letters and digits, unlike each other; those left out of it are not wanted."""
    rng = np.random.default_rng(seed)
    some = rng.choice(list(ALPHABETS["N"]), 15, replace=False).tolist() + rng.choice(list(DIGITS), 6, False).tolist()
    return dict(zip(some, rng.uniform(0.2, 4, len(some)).tolist()))


def demands(groups):
    """Wishes in all forms, of what the groups may have."""
    there = {c for g in groups for alphabet in g.positions for c in alphabet}
    tables = st.integers(0, 99).map(lambda seed: {c: share for c, share in table(seed).items() if c in there})
    return st.one_of(
        st.builds(Demand, st.sampled_from([Balance(per=per) for per in ("position", "layout", "character")])),
        st.builds(
            Demand,
            st.sampled_from([Balance(), Balance(per="layout"), Balance(per="character")]),
            tables.map(lambda shares: Target("table", shares)),
        ),
        tables.map(lambda shares: Demand(Balance(), Target("table", {}, {0: shares}))),
    )


@settings(max_examples=40, deadline=None)
@given(groups_of, st.data(), st.integers(30, 400), st.integers(0, 99))
def test_drawn_texts_hold_what_is_wished_to_the_character(groups, data, count, seed):
    demand = data.draw(demands(groups))
    try:
        targets = draw_targets(groups, count, seed, frozenset(), demand=demand)
    except PlatemintError as refused:  # a table by position may ask for what its plates have no room for
        assert (demand.target.by_position or demand.balance.per == "character") and "it cannot be as wanted" in str(
            refused
        )
        return
    assert len(set(targets.text.tolist())) == len(targets.text) == count
    pools = counted(targets, groups, demand)
    plan = quotas(targets, groups, demand)
    assert {Pool.named(name): +Counter(counts) for name, counts in plan.items()} == pools
    wished = demand.counts({pool: counts.total() for pool, counts in pools.items()})
    for pool, counts in pools.items():
        if pool in wished:
            assert counts == +Counter(wished[pool]) and sum(wished[pool].values()) == counts.total()
        else:
            assert max(counts.values()) - min(counts[c] for c in pool.alphabet) <= 1
    assert demand.faults(plan) == []


@settings(max_examples=30, deadline=None)
@given(groups_of, st.data(), st.integers(60, 300))
def test_one_character_traded_for_another_is_a_fault_that_names_its_deck(groups, data, count):
    demand = data.draw(demands(groups))
    try:
        plan = quotas(draw_targets(groups, count, 0, frozenset(), demand=demand), groups, demand)
    except PlatemintError:
        return
    counts = plan[name := data.draw(st.sampled_from([name for name in plan if len(plan[name]) > 1]))]
    more, less = data.draw(st.lists(st.sampled_from(list(counts)), min_size=2, max_size=2, unique=True))
    counts[more] += 2
    counts[less] -= 2
    assert any(name in fault for fault in demand.faults(plan)), (name, demand.faults(plan))


def test_a_position_is_even_over_all_layouts_or_in_each():
    groups = [group("LDD", 0.7, layout="a"), group("LDDD", 0.3, layout="b")]
    for per, names in (("position", {""}), ("layout", {"a", "b"})):
        demand = Demand(Balance(per=per))
        pools = counted(draw_targets(groups, 365, 3, frozenset(), demand=demand), groups, demand)
        assert {pool.scope for pool in pools} == names
        assert all(max(n.values()) - min(n[c] for c in pool.alphabet) <= 1 for pool, n in pools.items())


def test_a_character_is_even_wherever_it_stands():
    """Z may stand at two places and A at one: what A gets there, Z gives up."""
    groups = [Group("some", "train", (DIGITS, "XYZ", "ABCXYZ"), 1.0, 1)]
    demand = Demand(Balance(per="character"))
    targets = draw_targets(groups, 60, 0, frozenset(), demand=demand)
    total = Counter("".join(targets.text.tolist()))
    assert {total[c] for c in "ABCXYZ"} == {20} and {total[c] for c in DIGITS} == {6}
    assert {text[2] for text in targets.text.tolist()} == set("ABC")  # nothing else can do it


def test_a_table_by_character_and_by_position_is_met():
    groups = [group("LLDD", 0.5), group("LDDD", 0.5)]
    table = {"A": 0.5, "B": 0.25, "C": 0.25}
    for target in (Target("t", table), Target("t", {}, {0: table})):
        targets = draw_targets(groups, 200, 0, frozenset(), demand=Demand(Balance(), target))
        firsts = Counter(text[0] for text in targets.text.tolist())
        assert firsts == {"A": 100, "B": 50, "C": 50}
        lasts = Counter(text[-1] for text in targets.text.tolist())
        assert set(lasts.values()) == {20}  # a class that the table leaves out is even
    seconds = Counter(text[1] for text in targets.text.tolist() if text[1].isalpha())
    assert len(seconds) == 26  # the table of position 0 is for that alone


def test_decks_of_a_position_meet_its_table_together():
    """B can only come from the first group, so A comes from the second, which has no B."""
    groups = [Group("a", "train", ("AB", DIGITS, DIGITS), 0.5, 1), Group("b", "train", ("AC", DIGITS, DIGITS), 0.5, 1)]
    demand = Demand(Balance(), Target("t", {}, {0: {"A": 0.25, "B": 0.5, "C": 0.25}}))
    targets = draw_targets(groups, 100, 0, frozenset(), demand=demand)
    found = Counter((g, text[0]) for g, text in zip(targets.group.tolist(), targets.text.tolist()))
    assert found == {(0, "B"): 50, (1, "A"): 25, (1, "C"): 25}


@pytest.mark.parametrize(
    ("target", "per", "said"),
    [
        (Target("t", {"A": 1, "京": 1}), "position", "no plate of the source may have 京: leave it out"),
        (Target("t", {"A": 1, "京": 0}), "position", ""),
        (Target("t", {}, {0: {"A": 1, "京": 1, "沪": 1}}), "position", "no plate of the source may have 京, 沪"),
        (Target("t", {}, {0: {"A": 1, "1": 1}}), "position", "at position 0 .*: 1 60 times, 0 are possible"),
        (Target("t", {}, {7: {"A": 1}}), "position", "position 7"),
        (Target("t", {}, {0: {"B": 3, "C": 1}}), "position", "at position 0 .*: .*B 90 times, 60 are possible"),
        (Target("t", {"B": 1}), "character", "over all positions .*: .*B 120 times, 60 are possible"),
    ],
)
def test_what_the_plates_have_no_room_for_is_refused_by_name(target, per, said):
    groups = [Group("x", "train", ("AB", DIGITS, DIGITS), 0.5, 1), Group("x", "train", ("AC", DIGITS, DIGITS), 0.5, 1)]
    demand = Demand(Balance(per=per), target)
    if not said:
        assert {text[0] for text in draw_targets(groups, 80, 0, frozenset(), demand=demand).text.tolist()} == {"A"}
        return
    with pytest.raises(PlatemintError, match=f"^balance.*{said}"):
        draw_targets(groups, 120, 0, frozenset(), demand=demand)


def test_a_table_by_position_does_not_top_up():
    demand = Demand(Balance(top_up=True), Target("t", {}, {0: {"A": 1}}), {f"0/{LETTERS}/train": {"A": 1}})
    with pytest.raises(PlatemintError, match="balance.target: .*without position"):
        draw_targets([group("LDD")], 10, 0, frozenset(), demand=demand)


# --- topping up


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from(LETTERS[:12]), st.integers(1, 60), min_size=1),
    st.dictionaries(st.sampled_from(LETTERS[:12]), st.integers(1, 60), min_size=1),
    st.integers(1, 400),
)
def test_topping_up_raises_the_rare_of_each_split_to_one_level(train, val, count):
    groups = [
        Group("", "train", (LETTERS[:12], DIGITS, DIGITS, DIGITS), 0.6, 1),
        Group("", "val", (LETTERS[:12], DIGITS, DIGITS, DIGITS), 0.4, 1),
    ]
    balance = Balance(top_up=True)
    texts = [[f"{c}{n:03d}" for c, times in have.items() for n in range(times)] for have in (train, val)]
    demand = Demand(balance, have=had(groups, texts, balance))
    targets = draw_targets(groups, count, 0, Readings([*texts[0], *texts[1]]), demand=demand)
    pools = counted(targets, groups, demand)
    assert {pool.scope for pool in pools} <= {"train", "val"}
    for pool, added in pools.items():
        column = [text[pool.position] for text in texts[pool.scope == "val"]]
        before = Counter(column)
        after = before + added
        raised = [after[c] for c in added]
        assert max(raised) <= min(after[c] for c in pool.alphabet) + 1  # nobody gets one who stands above the lowest
    assert demand.faults(quotas(targets, groups, demand)) == []


def test_splits_that_lack_the_same_get_different_texts():
    """One text each, and both would begin with B and go on with the same digits."""
    groups = [group("LDDD", split="train"), group("LDDD", split="val")]
    balance, texts = Balance(top_up=True), [["A000"], ["A000"]]
    demand = Demand(balance, have=had(groups, texts, balance))
    for seed in range(20):
        targets = draw_targets(groups, 2, seed, frozenset(), demand=demand)
        assert len({*targets.text.tolist()}) == 2 and not any(set("A0") & {*text} for text in targets.text.tolist())
        assert demand.faults(quotas(targets, groups, demand)) == []


def test_more_of_what_is_there_is_a_fault_also_of_a_corpus_topped_up():
    groups, balance = [group("D", split="train")], Balance(top_up=True)
    demand = Demand(balance, have=had(groups, [["0", "0", "1"]], balance))
    name = f"0/{DIGITS}/train"
    good = dict.fromkeys(DIGITS, 0) | dict.fromkeys("2345", 1)
    other = dict.fromkeys(DIGITS, 0) | dict.fromkeys("6789", 1)
    assert demand.faults({name: good}) == demand.faults({name: other}) == []
    for bad in (
        good | {"2": 0, "1": 1},
        good | {"2": 0, "0": 1},
        good | {"2": 2, "3": 0},
        good | {"0": -1, "6": 1, "7": 1},
    ):
        assert demand.faults({name: bad}) == [f"its quotas at {name} are not as wanted"]


def test_what_a_corpus_has_is_counted_by_deck_and_foreign_characters_too():
    groups = [group("LD", split="train"), group("ND", split="val")]
    found = had(groups, [["A1", "A2"], ["I3"]], Balance(top_up=True))
    assert found[f"0/{LETTERS}/train"] == dict.fromkeys(LETTERS, 0) | {"A": 2}
    assert found[f"0/{ALPHABETS['N']}/val"]["I"] == 1  # no letter of this pool, but it is there
    assert found[f"1/{DIGITS}/train"]["1"] == found[f"1/{DIGITS}/val"]["3"] == 1


# --- layouts and lengths


def shares(groups, **balance):
    return group_weights(groups, Balance(**balance)).tolist()


THREE = [group("LLDD", 0.5, layout="a"), group("LLD", 0.3, layout="a"), group("L-LD", 0.2, layout="b")]


def test_layouts_and_lengths_have_the_shares_wished_for():
    assert shares(THREE) == pytest.approx([0.5, 0.3, 0.2])
    assert shares(THREE, layouts={"b": 0.6}) == pytest.approx([0.25, 0.15, 0.6])
    assert shares(THREE, layouts={"a": 0.2, "b": 0.8}) == pytest.approx([0.125, 0.075, 0.8])
    assert shares(THREE, lengths={4: 0.1}) == pytest.approx([0.1, 0.54, 0.36])  # separators are no characters
    assert shares(THREE, layouts={"a": 0.5}, lengths={3: 0.75}) == pytest.approx([0.25, 0.25, 0.5])
    assert shares(THREE, layouts={"b": 0.0}) == pytest.approx([0.625, 0.375, 0])
    assert shares(THREE, layouts={"a": 1.0}) == pytest.approx([0.625, 0.375, 0])
    assert shares(THREE, layouts={"a": 0.5}, lengths={3: 0.5}) == pytest.approx([0.5, 0, 0.5], abs=1e-9)


def test_the_shares_are_those_of_the_texts_drawn():
    targets = draw_targets(THREE, 1000, 0, frozenset(), demand=Demand(Balance(layouts={"b": 0.37}, lengths={"4": 0.1})))
    assert np.bincount(targets.group).tolist() == [100, 530, 370]


@pytest.mark.parametrize(
    ("balance", "said"),
    [
        ({"layouts": {"c": 0.5}}, "balance.layouts: no plate of the source is of c; there are: a, b"),
        ({"lengths": {7: 0.5}}, "balance.lengths: no plate of the source is of 7; there are: 3, 4"),
        ({"layouts": {"a": 0.7, "b": 0.7}}, "balance.layouts: the shares add up to 1.4"),
        ({"layouts": {"a": 0.7, "b": 0.2}}, "balance.layouts: the shares add up to 0.9"),
        ({"layouts": {"b": 0.8}, "lengths": {4: 0.5}}, "lengths: 4 0.5, 0.2 is possible|layouts: b 0.8, 0.5 is"),
    ],
)
def test_shares_that_cannot_be_are_refused(balance, said):
    with pytest.raises(PlatemintError, match=said):
        shares(THREE, **balance)


@pytest.mark.parametrize("share", [1.5, -0.1, "half"])
def test_a_share_is_a_part_of_one(share):
    with pytest.raises(PlatemintError, match="balance.layouts"):
        load_recipe(None, [f"balance.layouts={{a: {share}}}"])


# --- pairs of neighbours


def pairs(texts: list[str], positions) -> dict[int, Counter]:
    """Of each free position but the last, how often its characters come before those of the next free one."""
    free = [p for p, alphabet in enumerate(positions) if len(alphabet) > 1]
    return {a: Counter((text[a], text[b]) for text in texts) for a, b in pairwise(free)}


def uneven_pairs(texts: list[str], positions) -> list[int]:
    """Positions whose pairs with the next are not all floor or ceil of what single characters let one expect."""
    free = [p for p, alphabet in enumerate(positions) if len(alphabet) > 1]
    singles = {p: Counter(text[p] for text in texts) for p in free}
    found = []
    for (a, b), counts in zip(pairwise(free), pairs(texts, positions).values()):
        exact = {(x, y): singles[a][x] * singles[b][y] / len(texts) for x in positions[a] for y in positions[b]}
        if any(abs(counts[pair] - even) >= 1 for pair, even in exact.items()):
            found.append(a)
    return found


@settings(max_examples=12, deadline=None)
@given(groups_of, st.integers(1, 600), st.integers(0, 99))
def test_pairs_of_neighbours_are_as_even_as_single_characters(groups, count, seed):
    demand = Demand(Balance(pairs=True))
    targets = draw_targets(groups, count, seed, frozenset(), demand=demand)
    forbidden = set(targets.text.tolist()[: count // 20])
    again = draw_targets(groups, count, seed, forbidden, demand=demand)
    for drawn in (targets, again):
        texts = drawn.text.tolist()
        assert len(set(texts)) == count
        for pool, counts in counted(drawn, groups, demand).items():
            assert max(counts.values()) - min(counts[c] for c in pool.alphabet) <= 1
        of = defaultdict(list)
        for text, g in zip(texts, drawn.group.tolist()):
            of[groups[g].positions].append(text)
        assert all(uneven_pairs(part, positions) == [] for positions, part in of.items())
    assert not forbidden & set(again.text.tolist())


def test_pairs_that_count_as_one_are_one_apart():
    groups = [group("L-DD"), group("LLDDD", 2)]
    drawn = draw_targets(groups, 3001, 0, frozenset(), demand=Demand(Balance(pairs=True)))
    for g in (0, 1):
        for counts in pairs(drawn.text[drawn.group == g].tolist(), groups[g].positions).values():
            assert max(counts.values()) - min(counts.values()) <= 1
    by_chance = draw_targets(groups, 3001, 0, frozenset())
    counts = pairs(by_chance.text[by_chance.group == 0].tolist(), groups[0].positions)[2]
    assert max(counts.values()) - min(counts.values()) > 3  # without being asked for they are left to chance


def test_mending_keeps_every_pair():
    """Half of the texts dealt are forbidden: trades of what follows a shared character leave all pairs as they were."""
    groups, demand = [group("LLDD"), group("LL-DDD", 2, blocked=["AB1", "Z99"])], Demand(Balance(pairs=True))
    asked = np.array([300, 600])
    patterns = _patterns(groups, asked, demand)
    texts, pools = _fill_columns(patterns, demand, np.random.default_rng(0))
    before, taken = list(texts), frozenset(texts[::2])
    mender = _PairMender(texts, pools, patterns, taken, Random(0))
    assert len(mender.faults) >= 450 and mender.mend() == []
    assert not taken & set(mender.texts) and len(set(mender.texts)) == 900
    for pattern in patterns:
        rows = slice(pattern.start, pattern.start + pattern.size)
        assert pairs(mender.texts[rows], pattern.positions) == pairs(before[rows], pattern.positions)


# --- texts that must not be


def test_blocked_words_are_never_drawn_separators_inside_or_not():
    groups = [
        Group("a", "train", ("ABC", "ABC", DIGITS), 0.5, 1, ("BA", "C1")),
        Group("b", "train", ("ABC", "-", "ABC", DIGITS), 0.5, 1, ("BA", "C1")),
    ]
    for seed in range(5):
        texts = draw_targets(groups, 60, seed, frozenset()).text.tolist()
        assert not any(word in characters(text) for text in texts for word in ("BA", "C1"))
    for pairs_too in (False, True):
        groups, words = [group("LL-LDD", blocked=["ASS", "A12", "ZZ9"])], ("ASS", "A12", "ZZ9")
        texts = draw_targets(groups, 9000, 0, (), (), Demand(Balance(pairs=pairs_too))).text.tolist()
        assert not any(word in characters(text) for text in texts for word in words)
    free = draw_targets([group("LL-LDD")], 9000, 0, ()).text.tolist()
    assert any(word in characters(text) for text in free for word in words)


def test_blocked_words_are_the_recipe_s_and_the_layout_s():
    made = load_recipe(None, ["source.layouts=[us-california]", "draw.blocked=[aß, 'k-k', '']"])
    [plates] = open_sources(made).groups
    assert {"ASS", "KK"} <= set(plates.blocked) and "" not in plates.blocked


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("texts.txt", "ab-12\nCD34\n\n"),
        ("texts.csv", "text\nab-12\nCD34\n"),
        ("texts.csv", "plate_text;seen\nab-12;1\nCD34;2\n"),
        ("texts.jsonl", '{"text": "ab-12"}\n{"text": "CD34"}\n'),
        ("labels.csv", "path,text,split\n1.png,ab-12,train\n2.png,CD34,val\n"),
        ("gt.txt", "1.png ab-12\n2.png CD34\n"),
        ("corpus/labels.csv", "path,text\n1.png,ab-12\n2.png,CD34\n"),
    ],
)
def test_texts_to_forbid_come_in_any_form(tmp_path, name, data):
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    place.write_text(data, encoding="utf8")
    texts = forbidden_texts(str(place.parent if place.parent != tmp_path else place))
    assert texts == {"AB-12", "CD34"}
    groups = [Group("", "train", ("AC", "BD", "13", "24"), 1.0, 1)]
    drawn = draw_targets(groups, 8, 0, Readings(texts))
    assert not {"AB12", "CD34"} & set(drawn.text.tolist())


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("none.txt", None, "no such file"),
        ("empty.txt", "\n \n", "holds no text"),
        ("other.csv", "seen\nAB12\n", "holds no text"),
        ("empty.csv", "", "holds no text"),
    ],
)
def test_nothing_to_forbid_is_told(tmp_path, name, data, said):
    if data is not None:
        (tmp_path / name).write_text(data)
    with pytest.raises(PlatemintError, match=re.escape(str(tmp_path / name)) + f": draw.forbid: {said}"):
        forbidden_texts(str(tmp_path / name))
    assert forbidden_texts("") == frozenset()
