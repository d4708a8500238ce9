"""Targets: quotas to the character, no text twice or forbidden, and an answer in bounded time where it cannot be."""

import itertools
import re
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platemint.pipeline.balance.rounding import largest_remainder
from platemint.pipeline.draw import draw_targets, quotas
from platemint.pipeline.plate import DIGITS, LETTERS, PROVINCES, Group, PlatemintError

ALPHABETS = {"L": LETTERS, "D": DIGITS, "P": PROVINCES, "N": LETTERS.replace("I", "").replace("O", "")}


def group(pattern: str, weight: float = 1.0, split: str = "train", layout: str = "some") -> Group:
    return Group(layout, split, tuple(ALPHABETS.get(c, c) for c in pattern), weight, 1)


def faults(targets, groups, count, forbidden=()) -> list[str]:
    """Everything a draw promises, recounted the slow way."""
    texts = targets.text.tolist()
    found = []
    if not len(texts) == len(set(texts)) == count:
        found.append("not so many different texts")
    if set(texts) & set(forbidden):
        found.append("a forbidden text")
    pools = defaultdict(Counter)
    for text, g in zip(texts, targets.group):
        if len(text) != len(groups[g].positions) or any(c not in a for c, a in zip(text, groups[g].positions)):
            found.append(f"{text} is not of its group")
        for position, alphabet in enumerate(groups[g].positions):
            pools[position, alphabet].update(text[position])
    for (position, alphabet), counts in pools.items():
        low, high = divmod(counts.total(), len(alphabet))
        if any(not low <= counts[c] <= low + (high > 0) for c in alphabet):
            found.append(f"uneven at {position} over {alphabet}")
    asked = largest_remainder([g.weight for g in groups], count)
    if Counter(targets.group.tolist()) != Counter({g: n for g, n in enumerate(asked.tolist()) if n}):
        found.append("not the groups' shares")
    for g in range(len(groups)):
        if targets.group_index[targets.group == g].tolist() != list(range(asked[g])):
            found.append("group_index does not run")
    splits = [groups[g].split for g in targets.group]
    if sum(a != b for a, b in itertools.pairwise(splits)) >= len(set(splits)) > 0:
        found.append("splits are mixed")
    return found


patterns = st.text("LDN-", min_size=4, max_size=8).filter(lambda pattern: len(pattern.replace("-", "")) >= 4)
groups_of = st.lists(
    st.builds(group, patterns, st.floats(0.01, 10), st.sampled_from(["train", "val"]), st.sampled_from(["a", "b"])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(groups_of, st.integers(1, 3000), st.integers(0, 2**63 - 1))
def test_quotas_are_exact_and_texts_unique(groups, count, seed):
    first = draw_targets(groups, count, seed, frozenset())
    forbidden = set(first.text.tolist()[: count // 2]) if count < 1000 else set()
    second = draw_targets(groups, count, seed, forbidden, reserved=["NULL"])
    assert faults(first, groups, count) == [] and faults(second, groups, count, forbidden | {"NULL"}) == []


tiny = st.lists(st.sampled_from(["A", "AB", "12", "ABC", "1234"]), min_size=1, max_size=3).filter(
    lambda alphabets: len(list(itertools.product(*alphabets))) <= 16
)


def can_be_even(free: list[str], positions: list[str], n: int) -> bool:
    """Whether n of the free texts hold every character equally often: tries all choices."""
    return any(
        all(
            n // len(a) <= sum(text[p] == c for text in texts) <= -(-n // len(a))
            for p, a in enumerate(positions)
            for c in a
        )
        for texts in itertools.combinations(free, n)
    )


@settings(max_examples=150, deadline=None)
@given(tiny, st.data())
def test_texts_are_found_whenever_there_are_any(positions, data):
    space = ["".join(text) for text in itertools.product(*positions)]
    forbidden = data.draw(st.sets(st.sampled_from(space), max_size=5))
    n = data.draw(st.integers(1, len(space)))
    possible = can_be_even([text for text in space if text not in forbidden], positions, n)
    groups = [Group("tiny", "train", tuple(positions), 1.0, 1)]
    try:
        targets = draw_targets(groups, n, data.draw(st.integers(0, 99)), forbidden)
    except PlatemintError:
        assert not possible
    else:
        assert possible and faults(targets, groups, n, forbidden) == []


@pytest.mark.parametrize(("pattern", "count"), [("LD", 260), ("LD", 259), ("LD", 131), ("DDDD", 10_000)])
def test_a_space_is_used_up_to_the_last_text(pattern, count):
    groups = [group(pattern, split="train"), group(pattern, split="val"), group(pattern, layout="other")]
    assert faults(draw_targets(groups, count, 0, frozenset()), groups, count) == []


def test_a_nearly_full_space_gives_way_around_forbidden_texts():
    groups = [group("DDDD"), group("DDDD", split="val")]
    forbidden = {f"{n:04d}" for n in np.random.default_rng(0).choice(10_000, 900, replace=False)}
    assert faults(draw_targets(groups, 8500, 0, forbidden), groups, 8500, forbidden) == []


def test_a_small_group_trades_with_others_for_what_is_left_to_it():
    """Twenty letters may stand alone, and all twenty are needed; every letter is dealt twice, so none is spare."""
    groups = [group("L", 20), group("LLLD", 32)]
    for seed in range(10):
        targets = draw_targets(groups, 52, seed, frozenset("ABCDEF"))
        assert faults(targets, groups, 52, "ABCDEF") == []
        assert sorted(targets.text[targets.group == 0]) == list("GHIJKLMNOPQRSTUVWXYZ")


@pytest.mark.parametrize("count", [4, 5])
def test_which_characters_come_once_more_can_change(count):
    """At n = 5 of ABC x ABC, A is left in one text only, so B and C must come twice at the first position."""
    groups = [Group("tiny", "train", ("ABC", "ABC"), 1.0, 1)]
    for seed in range(40):
        targets = draw_targets(groups, count, seed, {"AA", "AB", "BB"})
        assert faults(targets, groups, count, {"AA", "AB", "BB"}) == []


def test_who_has_one_text_only_gets_it():
    groups = [group("LLD", 5999), group("AB1", 1)]
    for seed in range(3):
        targets = draw_targets(groups, 6000, seed, frozenset())
        assert targets.text[targets.group == 1].tolist() == ["AB1"] and faults(targets, groups, 6000) == []


@pytest.mark.parametrize("count", [1, 7, 150, 5000])
def test_a_corpus_of_hundreds_of_small_groups(count):
    rng = np.random.default_rng(5)
    looks = ["".join(rng.choice(list("LD"), size=rng.integers(4, 8))) for _ in range(300)]
    groups = [group(look, 1 / 300, rng.choice(["train", "val"])) for look in looks]
    targets = draw_targets(groups, count, 3, frozenset())
    assert faults(targets, groups, count) == []


def test_reserved_texts_are_never_drawn():
    groups = [Group("words", "train", ("NM", "AB", "CD"), 1.0, 1)]
    for seed in range(10):
        drawn = draw_targets(groups, 4, seed, frozenset({"MAD"}), reserved=["NAC", "NBD", "MBC"])
        assert sorted(drawn.text) == ["MAC", "MBD", "NAD", "NBC"]


def test_same_seed_same_targets():
    groups = [group("LLLDDD", 0.7), group("LLDD", 0.3, "val")]
    first, same, other = (draw_targets(groups, 500, seed, frozenset()) for seed in (1, 1, 2))
    assert (first.text == same.text).all() and (first.group == same.group).all()
    assert len(set(first.text.tolist()) & set(other.text.tolist())) < 50


def test_positions_do_not_run_in_step():
    """Of many groups with one text each, neighbours in one pool must not be neighbours in the next."""
    groups = [group(f"LL-{a}{b}") for a in LETTERS for b in LETTERS]
    pairs = {text[:2] for text in draw_targets(groups, len(groups), 0, frozenset()).text.tolist()}
    assert len(pairs) > 0.55 * 676  # 0.63 for independent positions, 0.04 in step


def test_any_stretch_holds_each_groups_share_and_even_characters():
    groups = [group("LLLDDDD", 0.6), group("LLDDD", 0.3), group("PNNNNN", 0.1)] + [group("LLLL", 0.005)] * 40
    targets = draw_targets(groups, 12_000, 0, frozenset())
    share = np.bincount(targets.group, minlength=3) / 12_000
    for start in range(0, 12_000, 1000):
        part = slice(start, start + 1000)
        assert (abs(np.bincount(targets.group[part], minlength=len(groups)) - 1000 * share) <= 2).all()
        digits = Counter(text[-1] for text in targets.text[part].tolist() if text[-1].isdigit())
        assert max(digits.values()) - min(digits.values()) <= 6  # by chance it would be about 30


def test_quotas_count_what_was_drawn():
    groups = [group("LD"), group("ND", split="val"), group("LLLL", 1e-9)]
    targets = draw_targets(groups, 60, 0, frozenset())
    found = quotas(targets, groups)
    assert set(found) == {f"0/{LETTERS}", f"0/{ALPHABETS['N']}", f"1/{DIGITS}"}
    assert found[f"1/{DIGITS}"] == dict(Counter(text[1] for text in sorted(targets.text, key=lambda t: t[1])))
    assert sum(found[f"0/{LETTERS}"].values()) == 30 and len(found[f"0/{LETTERS}"]) == 26
    none = draw_targets(groups, 1, 0, frozenset())
    assert quotas(type(none)(none.group[:0], none.text[:0], none.group_index[:0]), groups) == {}


@pytest.mark.parametrize(
    ("groups", "count", "forbidden", "message"),
    [
        ([group("LD")], 261, [], r"group some/train/LD is asked for 261 .* 260 are possible: lower it to 260 or less"),
        ([group("LLLD"), group("L", 1)], 100, ["A"], r"train/L is asked for 50 .* 25 are possible: lower it to 50 or"),
        ([group("L"), group("L", 1, "val")], 30, [], r"\(with 1 more of its pattern\) is asked for 30 .* 26 are"),
        ([group("AB1")], 1, ["AB1"], r"group some/train/AB1 is asked for 1 .* 0 are possible: leave"),
        ([group("DD")], 80, [f"1{d}" for d in DIGITS], r"90 are possible, but no 80 were found .* equally often"),
        ([], 5, [], "no group"),
    ],
)
def test_what_cannot_be_is_told(groups, count, forbidden, message):
    with pytest.raises(PlatemintError, match=message):
        draw_targets(groups, count, 0, frozenset(forbidden))


def test_the_count_an_error_names_is_possible():
    groups = [group("LLLDD", 0.9), group("LD", 0.1)]
    with pytest.raises(PlatemintError) as told:
        draw_targets(groups, 9000, 0, frozenset({"A1"}))
    count = int(re.search(r"lower it to (\d+)", str(told.value))[1])
    assert faults(draw_targets(groups, count, 0, frozenset()), groups, count) == [] and count > 2000


class Everything:
    def __contains__(self, text: str) -> bool:
        return True


def test_a_hopeless_draw_ends():
    start = time.process_time()
    with pytest.raises(PlatemintError, match="some/train/LLLDDDD is asked for 2000"):
        draw_targets([group("LLLDDDD")], 2000, 0, Everything())
    assert time.process_time() - start < 20
