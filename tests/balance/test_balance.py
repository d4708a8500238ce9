"""Quotas and evenness: sums, bounds and edge cases hold for any input."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platemint.pipeline.balance.evenness import count_table, divergence, entropy, evenness
from platemint.pipeline.balance.rounding import (
    Infeasible,
    apportion,
    largest_remainder,
    lattice,
    pool,
    rake,
    reweigh,
    round_table,
    spread_evenly,
    water_fill,
)

counts = st.lists(st.integers(0, 1000), min_size=1, max_size=30)
sizes = st.lists(st.integers(1, 12), min_size=1, max_size=4)
shares = st.lists(st.floats(0, 1e6), min_size=1, max_size=30).filter(lambda shares: sum(shares) > 1e-6)


@given(shares, st.integers(0, 10**7))
def test_largest_remainder_adds_up_and_stays_within_one(shares, total):
    whole = largest_remainder(shares, total)
    exact = np.array(shares) / sum(shares) * total
    assert whole.sum() == total
    assert (abs(whole - exact) < 1 + 1e-6).all()


def test_largest_remainder_by_hand():
    assert largest_remainder([47, 16, 15.8, 12, 6.1, 3.1], 10).tolist() == [5, 2, 1, 1, 1, 0]
    assert largest_remainder([1] * 7, 3).tolist() == [1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("shares", [[0, 0], [1, -1, 5], [1, math.nan], [math.inf, 1]])
def test_largest_remainder_refuses_what_has_no_shares(shares):
    with pytest.raises(ValueError):
        largest_remainder(shares, 10)


@given(counts, st.integers(0, 5000))
def test_water_raises_the_lowest_to_one_level(have, n):
    new = water_fill(have, n)
    after = np.array(have) + new
    assert new.sum() == n and (new >= 0).all()
    if n:  # no class that got some stands higher than the lowest, up to rounding
        assert after[new > 0].max() <= after.min() + 1


@given(st.integers(1, 40), st.integers(0, 300), st.integers(0, 99))
def test_every_stretch_of_a_deck_is_even(k, n, seed):
    alphabet = [chr(65 + i) for i in range(k)]
    cards = pool(alphabet, n, np.random.default_rng(seed)).tolist()
    for start in range(0, n - k + 1, k):
        assert sorted(cards[start : start + k]) == alphabet
    assert Counter(cards) == Counter(alphabet[i % k] for i in range(n))


def test_a_deck_is_shuffled_by_the_given_generator():
    first, same, other = (pool("ABCDEFGHIJ", 100, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert first == same != other


@settings(deadline=None)
@given(sizes, st.data())
def test_a_lattice_has_different_rows_and_even_columns(sizes, data):
    space = math.prod(sizes)
    n = data.draw(st.integers(0, space))
    rows = lattice(sizes, n)
    assert rows.shape == (n, len(sizes)) and len(set(map(tuple, rows.tolist()))) == n
    for column, size in zip(rows.T, sizes):
        assert Counter(column.tolist()) == Counter(i % size for i in range(n))


def test_a_lattice_ends_with_the_whole_space():
    assert set(map(tuple, lattice([4, 6, 10], 240).tolist())) == set(itertools.product(range(4), range(6), range(10)))
    with pytest.raises(ValueError, match="only 240"):
        lattice([4, 6, 10], 241)


@given(st.lists(st.text("AB9-京", min_size=1, max_size=6), max_size=40))
def test_the_count_table_agrees_with_counting(texts):
    table, seen = count_table(texts)
    expected = Counter((position, c) for text in texts for position, c in enumerate(text))
    found = {(p, c): n for p, row in enumerate(table.tolist()) for c, n in zip(seen, row) if n}
    assert found == expected and list(seen) == sorted({c for text in texts for c in text})


@given(counts)
def test_evenness_stays_in_its_ranges_and_ignores_order(counts):
    figures = evenness(counts)
    assert figures["max_min"] >= 1 and 0 <= figures["entropy"] <= 1 and 0 <= figures["gini"] <= 1 and figures["kl"] >= 0
    assert figures == evenness(counts[::-1])


@given(st.integers(1, 50), st.integers(1, 1000))
def test_even_counts_are_perfectly_even(n, count):
    assert evenness([count] * n) == pytest.approx({"max_min": 1, "entropy": 1, "gini": 0, "kl": 0}, abs=1e-12)


def test_evenness_by_hand():
    assert evenness([1, 3]) == pytest.approx(
        {"max_min": 3, "entropy": 0.811278, "gini": 0.25, "kl": 0.188722}, abs=1e-6
    )
    assert evenness([0, 4])["max_min"] == math.inf
    assert evenness([0, 4])["entropy"] == 0 and evenness([0, 4])["kl"] == 1


@given(counts=st.lists(st.integers(0, 10**6), max_size=40), times=st.integers(1, 50))
def test_an_even_spread_may_be_any(counts, times):
    assert evenness(counts, [times] * len(counts)) == pytest.approx(evenness(counts), abs=1e-9)
    even = [2**-n for n in range(len(counts))]
    assert evenness([times / q for q in even], [1 / q for q in even]) == pytest.approx(evenness([times] * len(counts)))


def test_evenness_of_an_uneven_wish_by_hand():
    figures = evenness([2, 2], [3, 1])  # of four, three and one are wanted
    assert figures["max_min"] == pytest.approx(3)  # twice as often as wanted, two thirds as often
    assert figures["kl"] == pytest.approx(0.5 * math.log2(2 / 3) + 0.5 * math.log2(2))
    assert figures["entropy"] == 1 and figures["gini"] == pytest.approx(0.25)


def test_divergence_by_hand():
    assert divergence([1, 3], [1, 1]) == pytest.approx(1 - 0.811278, abs=1e-6)
    assert divergence([4, 0], [1, 1]) == 1 and divergence([3, 1], [0.75, 0.25]) == 0
    assert divergence([4, 1], [1, 0]) == math.inf and divergence([4, 0], [1, 0]) == divergence([0, 0], [1, 0]) == 0
    assert divergence([], []) == 0


@given(counts, st.integers(0, 5000), st.data())
def test_weighted_water_rises_to_one_level(have, n, data):
    """Against a level found by halving: each class gets what it lacks of it, rounded up or down."""
    weights = np.array(data.draw(st.lists(st.floats(0.1, 10), min_size=len(have), max_size=len(have))))
    have, low, high = np.array(have), 0.0, 1e6
    for _ in range(100):
        level = (low + high) / 2
        low, high = (low, level) if np.maximum(0, level * weights - have).sum() > n else (level, high)
    new = water_fill(have, n, weights)
    assert new.sum() == n and (abs(new - np.maximum(0, level * weights - have)) < 1 + 1e-6).all()


@given(counts, st.integers(0, 5000))
def test_no_other_way_of_adding_leaves_a_higher_minimum(have, n):
    new, one_by_one = water_fill(have, n), np.array(have)
    for _ in range(min(n, 300)):
        one_by_one[np.argmin(one_by_one)] += 1
    assert n > 300 or (np.array(have) + new).min() == one_by_one.min()


def test_water_passes_over_what_is_not_wanted():
    assert water_fill([0, 5, 0], 4, [1, 0, 1]).tolist() == [2, 0, 2]
    assert water_fill([0, 0], 8, [3, 1]).tolist() == [6, 2] and water_fill([15, 0], 4, [3, 1]).tolist() == [0, 4]


# --- tables


@st.composite
def tables(draw, most=6, largest=30):
    """A table of whole numbers, and where it may have more than nothing."""
    shape = draw(st.integers(1, most)), draw(st.integers(1, most))
    cells = draw(st.lists(st.integers(-largest // 2, largest), min_size=math.prod(shape), max_size=math.prod(shape)))
    cells = np.array(cells).reshape(shape)
    cells.flat[0] = max(cells.flat[0], 0)
    return np.maximum(cells, 0), cells >= 0


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(1, 10**5))
def test_apportioned_tables_have_their_sums_and_no_foreign_entry(made, times):
    """Entries that must be 0 among them, and totals as large as runs are."""
    table, allowed = made[0] * times, made[1]
    found = apportion(table.sum(1), allowed, table.sum(0))
    assert (found.sum(1) == table.sum(1)).all() and (found.sum(0) == table.sum(0)).all()
    assert (found >= 0).all() and not found[~allowed].any()


@pytest.mark.parametrize("n", [1, 100, 10**6, 10**8])
def test_entries_that_must_vanish_do(n):
    """Both rows may hold the first column, and only one of them the second: so that one gets nothing of the first."""
    assert apportion(np.array([n, n]), np.array([[1, 1], [1, 0]], bool), np.array([n, n])).tolist() == [[0, n], [n, 0]]


@settings(max_examples=60, deadline=None)
@given(tables(most=2, largest=5), st.data())
def test_apportioned_tables_are_found_where_there_are_any_and_even(made, data):
    """Against all tables there are: one is found where there is one, and no entry is far from the evenest."""
    allowed, sizes = made[1], made[0].sum(1)
    wanted = np.array(data.draw(st.lists(st.integers(0, 10), min_size=allowed.shape[1], max_size=allowed.shape[1])))
    if wanted.sum() != sizes.sum():
        wanted = made[0].sum(0)
    every = itertools.product(*(range(sizes[row] + 1) if may else (0,) for (row, _), may in np.ndenumerate(allowed)))
    some = [table for cells in every if ((table := np.reshape(cells, allowed.shape)).sum(1) == sizes).all()]
    fitting = [table for table in some if (table.sum(0) == wanted).all()]
    try:
        found = apportion(sizes, allowed, wanted)
    except Infeasible as fault:
        assert not fitting
        missed = [sum(abs(table.sum(0) - wanted)) for table in some]
        nearest = np.array([fault.missed[c][1] if c in fault.missed else w for c, w in enumerate(wanted)])
        assert [w for w, _ in fault.missed.values()] == [wanted[c] for c in fault.missed]
        assert any((table.sum(0) == nearest).all() for table in some)  # what it names can be had
        assert sum(abs(nearest - wanted)) == min(missed)  # and nothing is nearer
    else:
        assert any((table == found).all() for table in fitting)
        best = max(fitting, key=lambda table: entropy(table.ravel()))
        assert abs(found - best).max() <= 1


def test_an_even_table_is_apportioned_evenly():
    assert apportion(np.array([6, 12]), np.ones((2, 3), bool), np.array([6, 6, 6])).tolist() == [[2, 2, 2], [4, 4, 4]]


def test_columns_that_cannot_be_had_are_named():
    with pytest.raises(Infeasible) as told:
        apportion(np.array([10, 10]), np.array([[1, 1, 0], [1, 0, 1]], bool), np.array([2, 14, 4]))
    assert told.value.missed[1] == (14, 10) and "14" in str(told.value)


@settings(max_examples=60, deadline=None)
@given(tables(largest=20), st.integers(0, 99))
def test_whole_tables_round_each_entry_and_keep_the_sums(made, seed):
    rng = np.random.default_rng(seed)
    table = made[0] + rng.uniform(0, 3, made[0].shape)
    rows = largest_remainder(table.sum(1), round(float(table.sum())))
    columns = largest_remainder(table.sum(0), int(rows.sum()))
    if not (table.sum() and rows.all() and columns.all()):
        return
    raked = rake(table, rows, columns)
    found = round_table(raked)
    assert (found.sum(1) == rows).all() and (found.sum(0) == columns).all() and (abs(found - raked) < 1 + 1e-6).all()


def test_raking_keeps_what_entries_are_to_each_other():
    """Odds ratios are those of the start: the least change that gives the sums."""
    start = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = rake(start, np.array([30, 70]), np.array([50, 50]))
    assert found.sum(0) == pytest.approx([50, 50]) and found.sum(1) == pytest.approx([30, 70])
    assert found[0, 0] * found[1, 1] / (found[0, 1] * found[1, 0]) == pytest.approx(4 / 6)


# --- shares


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_reweighed_kinds_have_their_shares(seed, a, b, zeros):
    """Shares that some weights have, so they can be had, some only with weights of 0."""
    rng = np.random.default_rng(seed)
    of = np.stack([rng.integers(a, size=12), rng.integers(b, size=12)])
    truth = rng.uniform(0.01, 1, 12) * (rng.random(12) < 0.5 if zeros else 1)
    if not truth.sum():
        return
    shares = [np.bincount(kind, truth, n) / truth.sum() for kind, n in zip(of, (a, b))]
    found = reweigh(rng.uniform(0.1, 1, 12), list(zip(of, shares)))
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    for kind, share in zip(of, shares):
        assert np.bincount(kind, found, len(share)) == pytest.approx(share, abs=1e-7)


def test_reweighing_keeps_what_weights_of_one_kind_are_to_each_other():
    found = reweigh(np.array([3.0, 1.0, 0.0, 6.0]), [(np.array([0, 0, 0, 1]), np.array([0.8, 0.2]))])
    assert found.tolist() == pytest.approx([0.6, 0.2, 0, 0.2])


def test_shares_that_contradict_each_other_are_refused():
    """All of kind 0 one way are kind 0 the other way, so the other's share is not below the one's."""
    ways = [(np.array([0, 1, 1]), np.array([0.7, 0.3])), (np.array([0, 0, 1]), np.array([0.4, 0.6]))]
    with pytest.raises(Infeasible) as told:
        reweigh(np.ones(3), ways)
    wanted = np.concatenate([share for _, share in ways])
    nearest = np.array([told.value.missed.get(c, (w, w))[1] for c, w in enumerate(wanted)])
    assert {c: w for c, (w, _) in told.value.missed.items()} == {c: wanted[c] for c in told.value.missed}
    fitted = reweigh(np.ones(3), [(ways[0][0], nearest[:2]), (ways[1][0], nearest[2:])])
    assert fitted.sum() == pytest.approx(1) and abs(wanted - nearest).sum() == pytest.approx(0.6)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(0, 99), st.data())
def test_any_stretch_holds_about_each_ones_share(counts, seed, data):
    """Of each class at most two off, and what two off in every class can shift a stretch by."""
    row = spread_evenly(counts, np.random.default_rng(seed))
    assert np.bincount(row, minlength=len(counts)).tolist() == counts
    if not len(row):
        return
    start = data.draw(st.integers(0, len(row) - 1))
    stretch = row[start : data.draw(st.integers(start, len(row)))]
    share = np.array(counts) / len(row)
    assert (
        abs(np.bincount(stretch, minlength=len(counts)) - share * len(stretch)) <= 2 + 2 * len(counts) * share
    ).all()


def test_a_spread_is_shuffled_and_evener_than_chance():
    first, same, other = (spread_evenly([50] * 8, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert first == same != other
    blocks = [Counter(first[start : start + 40]) for start in range(0, 400, 40)]
    assert max(abs(block[c] - 5) for block in blocks for c in range(8)) <= 2
    chance = np.random.default_rng(0).permutation(np.repeat(range(8), 50)).tolist()
    blocks = [Counter(chance[start : start + 40]) for start in range(0, 400, 40)]
    assert max(abs(block[c] - 5) for block in blocks for c in range(8)) > 3


def test_entropy_by_hand():
    assert entropy([1, 1]) == 1 and entropy([4, 4, 4, 4]) == 2 and entropy([1, 3]) == pytest.approx(0.811278, abs=1e-6)
    assert entropy([0, 0]) == entropy([7]) == entropy([]) == 0


@given(counts)
def test_entropy_is_highest_when_even(counts):
    assert 0 <= entropy(counts) <= math.log2(len(counts)) + 1e-9
    assert entropy(counts) == pytest.approx(entropy(np.array(counts) * 3))
