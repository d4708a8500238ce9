"""Grammars of plate texts: which characters may stand where, from a layout, a country of Faker's or a corpus's labels.

A grammar says what a label may be changed into (`Grammar.positions_of`) and which kinds of text there are, with their
shares (`Grammar.forms`).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from platemint.pipeline.corpora import read_corpus
from platemint.pipeline.corpora.datasets import AUTO
from platemint.pipeline.object_store import place
from platemint.pipeline.plate import (
    ALPHABET,
    DIGITS,
    KINDS,
    LETTERS,
    LONGEST,
    PROVINCES,
    READABLE,
    SEPARATORS,
    PlatemintError,
    _kind,
    characters,
    kin,
    kind_of,
    normalise,
    pattern,
    spell_like,
    unspellable,
)
from platemint.pipeline.recipe import nearest

if TYPE_CHECKING:
    from faker import Faker

    from platemint.pipeline.render import Layout

FAKER = "faker:"
BATCH, MOST_BATCHES = 50_000, 10  # plates drawn of Faker; a batch takes about a second, and few need more than two
_KIND = str.maketrans({c: kind_of(c) for c in READABLE if kind_of(c)})

# Letters that Faker draws although the country does not issue them: {Faker's locale: {a place in "LL-DDDD": letters}}.
LEFT_OUT = {
    "en_GB": {"^LL": "IQZ", "LLL$": "IQ"},  # DVLA, INF104: no I, Q, Z in the memory tag, no I, Q in the last three
    "fr_FR": {"^LL-DDD-LL$": "IOU"},  # SIV, series of 2009; the older one is left as Faker has it
    "it_IT": {"L": "IOQU"},  # series of 1994, 22 letters
    "nl_NL": {"L": "ACEIOQUY"},  # RDW: no vowels since side code 4, of 1978, nor C and Q, which look like 0
    "pl_PL": {"^L+": "Q", " [LD]+$": "BDIOQZ"},  # Dz.U. 2016 poz. 1038: no Q; behind the place none like 8, 0, 1, 2
    "zh_CN": {"L": "IO"},  # GA 36
    "zh_TW": {"L": "IO"},  # Highway Bureau, rules of numbering
}


@dataclass(frozen=True)
class Form:
    """One kind of text. positions: the alphabet of each character, without separators, rows one after the other.

    template: how it is printed, "?" for a character, separators as they stand ("???-????"; `plate.spell_like` fills
    it). rows: characters in each row, (7,) or (2, 4). share: of its grammar, 0..1.
    """

    positions: tuple[str, ...]
    template: str
    rows: tuple[int, ...]
    share: float

    @property
    def strings(self) -> int:
        """How many texts there are of this form."""
        return math.prod(map(len, self.positions))


@dataclass(frozen=True)
class Grammar:
    """The forms of some place's plates. name: for messages. forms: most frequent first; their shares add up to 1."""

    name: str
    forms: tuple[Form, ...]

    def positions_of(self, text: str) -> tuple[str, ...]:
        """What each character of a label may become, its separators standing for themselves; () where no form fits.

        The label may be spelled with other separators than the form. Of several forms the one with the fewest strings.
        """
        plain = characters(text)
        forms = [form for form in self.forms if len(form.positions) == len(plain)]
        fitting = [form for form in forms if all(c in alphabet for c, alphabet in zip(plain, form.positions))]
        if not fitting:
            return ()
        rest = iter(min(fitting, key=lambda form: form.strings).positions)
        return tuple(c if c in SEPARATORS else next(rest) for c in text)


def read_grammar(spec: str, format: str = AUTO) -> Grammar:
    """The grammar of "faker:LOCALE", of a layout's name or .yaml file, or of a corpus's labels (folder or label file).

    format: of the corpus. Raises PlatemintError for what is none of these or has no label that can be used.
    """
    from platemint.pipeline.render import load_layouts

    if spec.startswith(FAKER):
        return of_faker(spec.removeprefix(FAKER))
    if spec in load_layouts() or Path(spec).suffix in (".yaml", ".yml"):
        return of_layout(*load_layouts([spec]).values())
    if not place(spec).exists():
        hint = nearest(spec, load_layouts())
        raise PlatemintError(f"{spec}: neither {FAKER}LOCALE nor a layout{hint} nor a corpus (folder or label file)")
    return of_labels((label.text for label in read_corpus(spec, format=format).labels), f"labels of {spec}")


def of_layout(layout: Layout) -> Grammar:
    """The one form of a layout, in its rows."""
    rows = tuple(len(characters(row.pattern)) for row in layout.rows)
    return Grammar(f"layout {layout.name}", (Form(layout.positions, _template(layout.pattern), rows, 1.0),))


def of_labels(texts: Iterable[str], name: str = "labels") -> Grammar:
    """The patterns of labels, as `read_corpus` gives them, with their shares: letters stay letters, digits digits.

    Labels that differ in their separators only are of one form, printed as most of them are. Raises PlatemintError
    where there are none. Every label is of its grammar but a Chinese one with an I or O, which no form has (GA 36).
    """
    count = Counter(texts)
    if not count:
        raise PlatemintError(f"{name}: not one label that can be used, so no grammar; `inspect` says why")
    letters = letters_in_use(count)
    templates: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for text, n in sorted(count.items()):  # so that ties are broken alike, whatever order the texts come in
        templates[positions_like(characters(text), letters)][_template(text)] += n
    forms = [
        Form(positions, spelled.most_common(1)[0][0], (len(positions),), spelled.total() / count.total())
        for positions, spelled in templates.items()
    ]
    return Grammar(name, tuple(sorted(forms, key=lambda form: -form.share)))


@lru_cache
def of_faker(locale: str) -> Grammar:
    """The forms of the plates that Faker draws for a locale such as "de_DE", without the letters of LEFT_OUT.

    An alphabet is what was seen at its place. Plates are drawn, with a seed of their own, until BATCH of them show
    nothing new: of a form that is 1 in 300 plates a place then lacks some letter once in 10,000 times. Plates that
    platemint cannot spell or that are too long are left out, and shares are of the others.
    Raises PlatemintError for a locale without plates of its own and for one where fewer than half can be spelled.
    """
    fake, home = _open_faker(locale)
    count, seen = _draw(fake, f"{FAKER}{locale}")
    forms = []
    for shape, n in count.most_common():
        kept = seen[shape] - _left_out(home, shape)
        positions = tuple(
            "".join(c for c in READABLE if (place, c) in kept)
            for place, kind in enumerate(shape)
            if kind not in SEPARATORS
        )
        forms.append(Form(positions, _template(shape), (len(positions),), n / count.total()))
    return Grammar(f"{FAKER}{locale}", tuple(forms))


def grammar_as_text(grammar: Grammar) -> str:
    """For people, a line per form: share, pattern, strings, and what places leave out of their kind of characters."""
    patterns = [spell_like(pattern(form.positions), form.template) for form in grammar.forms]
    wide, long = max(map(len, patterns)), max(len(f"{form.strings:,}") for form in grammar.forms)
    lines = (
        f"{100 * form.share:5.1f} %  {name:{wide}}  {form.strings:{long},} strings  {_gaps(form.positions)}".rstrip()
        for name, form in zip(patterns, grammar.forms)
    )
    return "\n".join([f"{grammar.name}:", *lines])


def positions_like(text: str, letters: str = LETTERS) -> tuple[str, ...]:
    """What each character of a label may become: letters stay letters, digits digits, provinces provinces.

    letters: those in use where the plate comes from, of every script. Chinese plates use neither I nor O (GA 36). What
    has no like there stays, as separators and the characters that say a Chinese plate's kind do.
    """
    if text[0] in PROVINCES:
        letters = LETTERS.translate(str.maketrans("", "", "IO"))
    return tuple(kin(c, DIGITS + letters + PROVINCES) for c in text)


def letters_in_use(texts: Iterable[str]) -> str:
    """A-Z without those of I, O and Q that no label has, then letters with accents and of other scripts that one has.

    Many countries leave out some of I, O and Q, as too like 1 and 0.
    """
    seen = set().union(*(text for text in texts if text[0] not in PROVINCES))
    more = sorted(c for c in seen - {*LETTERS} if kind_of(c) not in ("", "D", "P"))
    return "".join([*(c for c in LETTERS if c not in "IOQ" or c in seen), *more])


def _template(text: str) -> str:
    return "".join(c if c in SEPARATORS else "?" for c in text)


def _gaps(positions: tuple[str, ...]) -> str:
    """What places leave out, as in "1-2: no I Q Z; 5-7: no I Q", or the few they have; separators do not count."""
    places = groupby(enumerate(positions, 1), key=lambda place: _gap(place[1]))
    spans = ((gap, [place for place, _ in span]) for gap, span in places if gap)
    return "; ".join(f"{span[0]}{f'-{span[-1]}' if span[1:] else ''}: {gap}" for gap, span in spans)


def _gap(alphabet: str) -> str:
    missing = [c for c in KINDS.get(_kind(alphabet), "") if c not in alphabet]
    if not missing or len(alphabet) == 1:  # a fixed character stands in the pattern
        return ""
    return f"no {' '.join(missing)}" if len(missing) <= len(alphabet) else f"only {' '.join(alphabet)}"


def _open_faker(locale: str) -> tuple[Faker, str]:
    """A source of a locale's plates, seeded, and the locale in full ("de_DE" of "de")."""
    from faker import Faker
    from faker.config import AVAILABLE_LOCALES

    if locale not in AVAILABLE_LOCALES:
        hint = nearest(locale, AVAILABLE_LOCALES)
        raise PlatemintError(f"{FAKER}{locale}: Faker has no such locale{hint}; they are written like de_DE")
    fake = Faker(locale, providers=["faker.providers.automotive"])
    home = fake.license_plate.__self__.__module__.rpartition(".")[2]  # type: ignore[attr-defined]
    if not home.startswith(locale):  # Faker falls back to another country silently
        raise PlatemintError(
            f"{FAKER}{locale}: Faker has no plates for {locale} and would give US ones; take another locale, or a "
            f"layout or labels of that country ({FAKER}{home} where US plates are meant)"
        )
    fake.seed_instance(0)  # of this instance alone: Faker.seed would change others'
    return fake, home


def _draw(fake: Faker, name: str) -> tuple[Counter[str], dict[str, set[tuple[int, str]]]]:
    """How many plates were drawn of each shape, as in "LL-DDDD", and which characters stood where in them."""
    count: Counter[str] = Counter()
    seen: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for _ in range(MOST_BATCHES):
        known = sum(map(len, seen.values()))
        drawn = [normalise(fake.license_plate()) for _ in range(BATCH)]
        texts = [text for text in drawn if len(text) <= LONGEST and not unspellable(text, ALPHABET)]
        if len(texts) < BATCH / 2:  # of an alphabet that is mostly foreign the few letters we know say nothing
            raise PlatemintError(
                f"{name}: platemint can spell only {100 * len(texts) / BATCH:.0f} % of Faker's plates for this locale; "
                f"the others hold {unspellable(''.join(drawn), ALPHABET)[:10]}; take a layout or labels of that country"
            )
        for text in texts:
            shape = text.translate(_KIND)
            count[shape] += 1
            seen[shape].update(enumerate(text))
        if sum(map(len, seen.values())) == known:
            break
    return count, seen


def _left_out(home: str, shape: str) -> set[tuple[int, str]]:
    """The places and letters of a shape that the country leaves out."""
    return {
        (place, letter)
        for where, letters in LEFT_OUT.get(home, {}).items()
        for found in re.finditer(where, shape)
        for place in range(*found.span())
        for letter in letters
    }
