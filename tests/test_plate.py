"""Spelling rules that every stage relies on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platemint.pipeline.plate import (
    Readings,
    Stream,
    canonical,
    characters,
    normalise,
    same_reading,
    unspellable,
    within_one,
)


@pytest.mark.parametrize(
    "raw, text",
    [
        ("abc•1234", "ABC·1234"),
        (" ab  12 ", "AB 12"),
        ("ＡＢ１２", "AB12"),
        ("AB–12", "AB-12"),
        ("AB_12", "AB-12"),
        ("皖a·12345", "皖A·12345"),
    ],
)
def test_normalise(raw, text):
    assert normalise(raw) == text and normalise(text) == text


def test_what_cannot_be_spelled_is_named_once():
    assert unspellable("AB♥12Ä♥") == "♥" and unspellable("皖A·12 3-.") == ""
    assert unspellable("AB♥12Ä♥", "AB12") == "♥Ä" and unspellable("A-1 2", "A12") == ""


def test_readings_agree_up_to_separators_and_lookalikes():
    assert characters("A-B·1 2") == "AB12"
    assert same_reading("AO1-Q", "A0I0") and not same_reading("AB1", "A81")
    known = Readings({"ABC-1230"})
    assert "ABC123O" in known and "ABC·1230" in known and "ABC1231" not in known


def one_off(text):
    """All texts that one change, one character less or one more makes of a text, over a small alphabet."""
    heads = [(text[:i], text[i:]) for i in range(len(text) + 1)]
    return {a + c + b[cut:] for a, b in heads for c in ("", *"A0") for cut in (0, 1)}


@given(st.text("AO0-", max_size=5), st.text("AO0-", max_size=5))
def test_one_character_apart(a, b):
    assert within_one(a, b) == (canonical(b) in one_off(canonical(a))) == within_one(b, a)


def test_streams_of_random_numbers_differ_and_stay_as_they_are():
    """Each is used in one file; another value would change the bytes of every run."""
    words = [stream.word for stream in Stream]
    assert words == ["\x01", "draw", "trade", "eval", "leak", "lpr", "real"]
    assert len({*Stream.__members__.values()}) == len(words)
    draws = {tuple(np.random.default_rng([0, stream]).integers(2**62, size=3)) for stream in Stream}
    assert len(draws) == len(words)
