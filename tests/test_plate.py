"""Spelling rules that every stage relies on."""

import pytest

from platemint.pipeline.plate import Readings, characters, normalise, same_reading, unspellable


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
    assert unspellable("AB♥12Ä♥") == "♥Ä" and unspellable("皖A·12 3-.") == ""


def test_readings_agree_up_to_separators_and_lookalikes():
    assert characters("A-B·1 2") == "AB12"
    assert same_reading("AO1-Q", "A0I0") and not same_reading("AB1", "A81")
    known = Readings({"ABC-1230"})
    assert "ABC123O" in known and "ABC·1230" in known and "ABC1231" not in known
