"""Quotas and evenness: sums, bounds and edge cases hold for any input."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.balance import count_table, deck, divergence, evenness, largest_remainder, lattice, water_fill

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
    cards = deck(alphabet, n, np.random.default_rng(seed)).tolist()
    for start in range(0, n - k + 1, k):
        assert sorted(cards[start : start + k]) == alphabet
    assert Counter(cards) == Counter(alphabet[i % k] for i in range(n))


def test_a_deck_is_shuffled_by_the_given_generator():
    first, same, other = (deck("ABCDEFGHIJ", 100, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
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
