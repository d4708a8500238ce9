"""Grammars: what they hold they accept, and no country comes out as another one."""

import math
import random
import re

import pytest
from faker import Faker
from hypothesis import given
from hypothesis import strategies as st

from platemint.pipeline.balance import grammar as module
from platemint.pipeline.balance.grammar import (
    LEFT_OUT,
    Form,
    Grammar,
    grammar_as_text,
    letters_in_use,
    of_faker,
    of_labels,
    of_layout,
    positions_like,
    read_grammar,
)
from platemint.pipeline.plate import (
    DIGITS,
    LETTERS,
    LONGEST,
    PROVINCES,
    READABLE,
    PlatemintError,
    characters,
    normalise,
    pattern,
    spell_like,
    unspellable,
)
from platemint.pipeline.render.layout import FOLDER, load_layouts

LABELS = st.text(DIGITS + LETTERS + PROVINCES + "-·. ", min_size=1, max_size=LONGEST).filter(characters)
LOCALES = "de_DE en_GB fr_FR it_IT pl_PL zh_CN zh_TW pt_BR es_ES nl_NL en_US tr_TR".split()


def without(letters, alphabet=LETTERS):
    return "".join(c for c in alphabet if c not in letters)


@st.composite
def forms(draw):
    alphabets = st.text(READABLE, min_size=1).map(lambda text: "".join(dict.fromkeys(text)))
    positions = draw(st.lists(alphabets, min_size=1, max_size=8))
    template = "".join(draw(st.sampled_from(["?", "?", "-?", "·?", " ?"])) for _ in positions)
    return Form(tuple(positions), template, (len(positions),), 1.0)


def shape(text):
    return re.sub(r"\d", "0", re.sub("[A-Z]", "A", text))


def drawn(form, rng):
    return spell_like("".join(map(rng.choice, form.positions)), form.template)


# ---------------------------------------------------------------------------------------------------------- any grammar


@given(forms(), st.randoms(use_true_random=False))
def test_what_a_form_holds_its_grammar_accepts(form, rng):
    text = drawn(form, rng)
    positions = Grammar("one", (form,)).positions_of(text)
    assert spell_like("?" * len(form.positions), form.template) == form.template
    assert tuple(a for a, c in zip(positions, form.template, strict=True) if c == "?") == form.positions
    assert all(a == c for a, c in zip(positions, form.template) if c != "?")
    assert math.prod(map(len, positions)) == form.strings


def test_a_label_fits_with_and_without_separators():
    positions = ("AB", "AB", "12")
    fits = Grammar("one", (Form(positions, "??-?", (3,), 1.0),)).positions_of
    assert fits("AB1") == positions
    assert fits("AB-1") == fits("AB·1")[:2] + ("-", "12") == ("AB", "AB", "-", "12")
    assert all(fits(text) == () for text in ("", "AB", "AB12", "AC1", "1BA", "---"))


def test_of_several_forms_that_fit_the_one_with_the_fewest_strings_counts():
    wide, narrow = Form(("AB", "12"), "??", (2,), 0.9), Form(("A", "12"), "??", (2,), 0.1)
    fits = Grammar("two", (wide, narrow)).positions_of
    assert fits("A1") == narrow.positions and fits("B1") == wide.positions


# ---------------------------------------------------------------------------------------------------------- of a layout


def test_a_layout_is_one_form_in_its_rows():
    layouts = load_layouts(["tw-2012", "br-mercosur-moto"])
    assert of_layout(layouts["tw-2012"]) == Grammar(
        "layout tw-2012", (Form((without("IO"),) * 3 + (DIGITS,) * 4, "???-????", (7,), 1.0),)
    )
    (form,) = of_layout(layouts["br-mercosur-moto"]).forms
    assert form.rows == (3, 4) and form.template == "?" * 7


# ------------------------------------------------------------------------------------------------------------ of labels


@given(LABELS)
def test_positions_like_a_label_keep_its_pattern(text):
    positions = positions_like(text)
    kinds = [DIGITS, LETTERS, PROVINCES]
    for c, alphabet in zip(text, positions, strict=True):
        kind = next((kind for kind in kinds if c in kind), c)
        assert set(alphabet) <= set(kind)
        assert c in alphabet or (text[0] in PROVINCES and c in "IO")
    assert len(pattern(positions)) == len(text)


@given(st.lists(LABELS, min_size=1))
def test_a_grammar_of_labels_accepts_its_labels(texts):
    grammar = of_labels(texts)
    shares = [form.share for form in grammar.forms]
    assert math.isclose(sum(shares), 1) and shares == sorted(shares, reverse=True)
    for text in texts:
        chinese = characters(text)[0] in PROVINCES
        assert bool(grammar.positions_of(text)) == (not chinese or not set(text) & set("IO"))
    for form in grammar.forms:
        assert sum(form.rows) == len(form.positions) == form.template.count("?")


def test_labels_that_differ_in_separators_only_are_one_form():
    grammar = of_labels(["AB-12", "AC-12", "AB12", "O1"])
    letters = without("IQ")
    assert grammar.forms == (
        Form((letters, letters, DIGITS, DIGITS), "??-??", (4,), 0.75),
        Form((letters, DIGITS), "??", (2,), 0.25),
    )
    assert of_labels(["AB12", "1A", "AB-12", "A1"]) == of_labels(["A1", "AB-12", "AB12", "1A"])


def test_letters_in_use_are_told_by_plates_other_than_chinese_ones():
    assert letters_in_use(["AB1", "皖O1"]) == without("IOQ")
    assert letters_in_use(["AI1", "皖O1"]) == without("OQ")


# ------------------------------------------------------------------------------------------------------------- of Faker


@pytest.mark.parametrize("locale", LOCALES)
def test_fresh_plates_of_faker_are_of_its_grammar(locale):
    grammar, fake = of_faker(locale), Faker(locale)
    fake.seed_instance(1)
    never = set("".join(LEFT_OUT.get(locale, {}).values()))
    texts = []
    while len(texts) < 2000:
        text = normalise(fake.license_plate())
        if not unspellable(text) and not never & set(text):
            texts.append(text)
    assert sum(bool(grammar.positions_of(text)) for text in texts) >= 0.99 * len(texts)
    assert math.isclose(sum(form.share for form in grammar.forms), 1)
    templates = {form.template for form in grammar.forms}
    assert all(re.sub(r"\w", "?", text) in templates for text in texts)


@pytest.mark.parametrize("locale", ["en_US", "id_ID"])
def test_what_was_drawn_is_what_faker_s_own_formats_say(locale):
    expected = {}
    for text in Faker(locale).license_plate.__self__.license_formats:
        alphabets = [{"#": DIGITS, "%": DIGITS[1:], "?": LETTERS}.get(c, c) for c in normalise(text)]
        expected.setdefault(shape("".join(a[0] for a in alphabets)), []).append(alphabets)
    for form in of_faker(locale).forms:
        places = zip(*expected.pop(shape(spell_like("".join(a[0] for a in form.positions), form.template))))
        assert form.positions == tuple("".join(sorted(set().union(*a))) for a in places if characters(a[0]))
    assert not expected


def test_rare_forms_have_whole_alphabets():
    """One plate in 2,000 is of the second form: few of its letters show in a first batch."""

    class Fake:
        random = random.Random(0)

        def license_plate(self):
            letters = "".join(self.random.choices(LETTERS, k=2))
            return letters if self.random.random() < 0.0005 else letters[0] + "1"

    count, seen = module._draw(Fake(), "rare")
    assert count.total() > 2 * module.BATCH
    assert seen["LL"] == {(place, letter) for place in (0, 1) for letter in LETTERS}


def test_letters_that_a_country_leaves_out_are_left_out_where_it_does():
    tag, last = without("IQZ"), without("IQ")
    assert {form.positions for form in of_faker("en_GB").forms} == {(tag, tag, DIGITS, DIGITS, last, last, last)}
    france = {form.template: form.positions for form in of_faker("fr_FR").forms}
    assert france["??-???-??"][0] == without("IOU") and france["???-???-??"][3] == LETTERS
    poland = {spell_like(pattern(form.positions), form.template): form.positions for form in of_faker("pl_PL").forms}
    assert poland["LL DDDLL"] == (without("Q"),) * 2 + (DIGITS,) * 3 + (without("BDIOQZ"),) * 2
    assert {form.positions[0] for form in of_faker("zh_CN").forms} == {PROVINCES}
    assert {a for form in of_faker("zh_TW").forms for a in form.positions} == {DIGITS, without("IO")}
    assert set(LEFT_OUT) <= set(LOCALES)


@pytest.mark.parametrize("locale", "cs_CZ en_AU en_IN hr_HR en_IE bg_BG sl_SI lv_LV".split())
def test_a_country_without_plates_in_faker_is_refused_and_not_given_us_ones(locale):
    with pytest.raises(PlatemintError, match=f"faker:{locale}: Faker has no plates for {locale} and would give US"):
        read_grammar(f"faker:{locale}")


@pytest.mark.parametrize("locale", "ar_SA bn_BD ja_JP ko_KR th_TH ru_RU".split())
def test_a_country_whose_plates_cannot_be_spelled_is_refused(locale):
    with pytest.raises(PlatemintError, match=rf"faker:{locale}: platemint can spell only \d+ % .* hold [^;]{{1,10}};"):
        read_grammar(f"faker:{locale}")


def test_an_unknown_locale_is_refused_with_the_nearest():
    with pytest.raises(PlatemintError, match=r"faker:de_DD: Faker has no such locale \(did you mean de_DE\?\)"):
        read_grammar("faker:de_DD")
    with pytest.raises(PlatemintError, match="faker:: Faker has no such locale"):
        read_grammar("faker:")


def test_nobody_else_s_faker_is_disturbed():
    fake = Faker("de_DE")
    Faker.seed(7)
    expected = [fake.license_plate() for _ in range(3)]
    Faker.seed(7)
    of_faker.__wrapped__("it_IT")
    assert [fake.license_plate() for _ in range(3)] == expected


# ---------------------------------------------------------------------------------------------------- by name, in words


def test_a_grammar_is_read_from_a_layout_or_a_corpus(tmp_path):
    (tmp_path / "labels.csv").write_text("path,text\n1.jpg,AB-12\n2.jpg,\n")
    (tmp_path / "mine.yaml").write_text((FOLDER / "uk.yaml").read_text())
    assert read_grammar("tw-1992").name == "layout tw-1992"
    assert read_grammar(str(tmp_path / "mine.yaml")).name == "layout mine"
    for path in (tmp_path, tmp_path / "labels.csv"):
        grammar = read_grammar(str(path))
        assert grammar.name == f"labels of {path}" and [form.template for form in grammar.forms] == ["??-??"]
    with pytest.raises(PlatemintError, match=r"tw-2013: neither faker:LOCALE nor a layout \(did you mean tw-2012\?\)"):
        read_grammar("tw-2013")
    with pytest.raises(PlatemintError, match="gone.yaml"):
        read_grammar("gone.yaml")


def test_a_corpus_without_labels_has_no_grammar(tmp_path):
    (tmp_path / "labels.csv").write_text("path,text\n1.jpg,\n")
    with pytest.raises(PlatemintError, match="labels of .*: not one label that can be used"):
        read_grammar(str(tmp_path))


def test_the_table_names_forms_and_what_they_leave_out():
    letters = without("IO")
    mixture = Form((PROVINCES, letters, DIGITS + letters), "??·?", (3,), 0.75)
    fixed = Form(("M", "AB", "AB", DIGITS[1:]), "??-??", (4,), 0.25)
    assert grammar_as_text(Grammar("two", (mixture, fixed))).splitlines() == [
        "two:",
        " 75.0 %  PL·A   25,296 strings  2-3: no I O",
        " 25.0 %  ML-LD      36 strings  2-3: only A B; 4: no 0",
    ]
