"""Pseudonyms: nothing links old to new by default, a key does it one-to-one, and no new text is a real one."""

import math
import os
import secrets
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from platemint.pipeline.anonymize.pseudonyms import ATTEMPTS, KEY_BYTES, Drawn, Forbidden, Keyed, read_key
from platemint.pipeline.anonymize.search import scan
from platemint.pipeline.balance.grammar import positions_like
from platemint.pipeline.plate import DIGITS, LETTERS, PlatemintError, canonical, characters
from platemint.pipeline.recipe import Draw

ROOT = Path(__file__).parents[2]
KEY, OTHER = bytes(range(KEY_BYTES)), bytes(KEY_BYTES)
NOTHING = Forbidden(())


def some_texts(pattern: str, n: int, seed: int = 0) -> list[str]:
    """n different texts: L a letter, D a digit, all else itself."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < n:
        found["".join(str(rng.choice(list({"L": LETTERS, "D": DIGITS}.get(c, c)))) for c in pattern)] = None
    return list(found)


def test_what_is_forbidden():
    draw = Draw()
    taken = Forbidden(["ABC-1230", "皖A·12345", "XY7", "B12K"], draw.blocked, draw.reserved)
    assert all(text in taken for text in ("ABC1230", "ABC·123O", "XY7", "X-Y-7", "NULL", "AFUK12", "A-FU-K12"))
    assert all(text in taken for text in ("皖A12345", "京A·12345", "A12345"))  # the province counts for nothing
    assert all(text in taken for text in ("AAB12K7", "XABC1230", "京BB12K0"))  # a real text inside
    assert all(text not in taken for text in ("ABC1231", "AXY78", "皖A12346", "AB-12", "NULL1"))  # three stand anywhere


# -- drawn --------------------------------------------------------------------------------------------------------


def evenness(texts: list[str], patterns: list[str]) -> int:
    """The most by which two characters of a pool differ in how often they come."""
    pools: dict[tuple[int, str], Counter] = {}
    for text, like in zip(texts, patterns):
        for position, (c, alphabet) in enumerate(zip(characters(text), positions_like(characters(like)))):
            pools.setdefault((position, alphabet), Counter(dict.fromkeys(alphabet, 0)))[c] += 1
    return max(max(counts.values()) - min(counts.values()) for counts in pools.values())


def test_every_occurrence_gets_a_text_of_its_own():
    real = [*some_texts("LLL-DDDD", 150), *some_texts("LLDDDQO", 70), *some_texts("京LDDDDD", 30)]
    occurrences = [(text, frame) for text in real for frame in ("1", "2", "3")]
    forbidden = Forbidden(real, Draw().blocked, Draw().reserved)
    new = Drawn(secrets.token_bytes(KEY_BYTES), occurrences, forbidden)
    attempts = [[new(*key, attempt) for key in occurrences] for attempt in range(ATTEMPTS)]
    every = [text for texts in attempts for text in texts]
    assert len(set(every)) == len(every) == ATTEMPTS * 750 and not any(text in forbidden for text in every)
    assert all(text[3] == "-" for text in attempts[0][:450])
    assert all(evenness(texts, [text for text, _ in occurrences]) <= 1 for texts in attempts)
    assert new(*occurrences[0], ATTEMPTS) == "" and new("ABC-0000", "1") == ""


def test_a_scan_for_the_real_texts_finds_none_of_the_new_ones(tmp_path):
    """Short real texts are the hard case: 100 of two letters and two digits, which longer texts could hold."""
    real = [*some_texts("LLDD", 100), *some_texts("LLLDDDD", 2000), *some_texts("京LLDDLL", 300)]
    new = Drawn(secrets.token_bytes(KEY_BYTES), [(text, "1") for text in real], Forbidden(real))
    (tmp_path / "labels.txt").write_text(
        "\n".join(new(text, "1", attempt) for text in real for attempt in range(ATTEMPTS))
    )
    assert scan(tmp_path, real).hits == []


def test_a_plate_seen_twice_in_one_frame_stays_one_plate():
    new = Drawn(secrets.token_bytes(KEY_BYTES), [("AB-123", "1"), ("AB 123", "1"), ("AB123", "2")], NOTHING)
    assert characters(new("AB-123", "1")) == characters(new("AB 123", "1")) != new("AB123", "2")
    assert new("AB-123", "1")[2] == "-" and new("AB 123", "1")[2] == " "


def test_no_two_runs_draw_the_same():
    occurrences = [(text, "1") for text in some_texts("LLLDDDD", 300)]
    runs = [
        [new(*key) for key in occurrences]
        for new in (
            Drawn(secrets.token_bytes(KEY_BYTES), occurrences, NOTHING),
            Drawn(secrets.token_bytes(KEY_BYTES), occurrences, NOTHING),
        )
    ]
    assert len(set(runs[0]) & set(runs[1])) < 3


def test_consistent_follows_a_plate_and_no_other():
    real = some_texts("LLDDDD", 200)
    new = Drawn(
        secrets.token_bytes(KEY_BYTES),
        [(text, str(frame)) for text in real for frame in range(3)],
        Forbidden(real),
        consistent=True,
    )
    found = {text: {new(text, str(frame)) for frame in range(3)} for text in real}
    assert all(len(texts) == 1 for texts in found.values()) and len(set.union(*found.values())) == 200
    assert evenness([*set.union(*found.values())], real) <= 1


@pytest.mark.parametrize("consistent", [False, True])
def test_a_pattern_nearly_used_up(consistent):
    """Of 100 texts of two digits 90 are real; the ten others begin with 3, so nothing can be even."""
    real = [f"{n:02d}" for n in range(100) if n // 10 != 3]
    new = Drawn(secrets.token_bytes(KEY_BYTES), [(text, "1") for text in real], Forbidden(real), consistent)
    found = [new(text, "1", attempt) for text in real for attempt in range(ATTEMPTS)]
    kept = [text for text in found if text]
    assert all(text[0] == "3" for text in kept)
    assert (len(kept) == len(set(kept)) == 10) if consistent else len(kept) == len(found)


def test_a_pattern_all_used_up_is_withheld():
    real = [*DIGITS, "ABC123"]
    new = Drawn(secrets.token_bytes(KEY_BYTES), [(text, "1") for text in real], Forbidden(real))
    assert {new(digit, "1") for digit in DIGITS} == {""} and new("ABC123", "1") != ""


# -- keyed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["D", "L", "DD", "LD", "D1", "DDD", "LLD", "京L", "PD"])
def test_keyed_is_one_to_one_on_a_whole_pattern(pattern):
    example = pattern.translate(str.maketrans("LDP", "A0京"))
    domain = list(map("".join, product(*positions_like(example))))
    found = [Keyed(KEY, NOTHING)(text, "") for text in domain]
    assert sorted(found) == sorted(domain)
    assert len(domain) < 200 or sum(a == b for a, b in zip(found, domain)) < 8  # 1 by chance


def test_separators_do_not_make_another_plate():
    new = Keyed(KEY, NOTHING)
    assert new("ABC-1234", "1") == new("ABC1234", "2")[:3] + "-" + new("A BC1234", "3")[4:]
    assert characters(new("皖A·12345", "")) == new("皖A12345", "")


def test_letters_that_look_like_digits_make_another_plate():
    new = Keyed(KEY, NOTHING)
    assert positions_like(new("ABO1234", "")) == positions_like("ABO1234")
    assert positions_like(new("AB01234", "")) == positions_like("AB01234")
    assert len({canonical(new(text, "")) for text in ("ABO1234", "ABQ1234", "AB01234")}) == 3


def test_another_key_gives_other_texts_and_no_pattern_echoes_another():
    real = some_texts("LLLDDDD", 2000)
    one, other = ([Keyed(key, NOTHING)(text, "") for text in real] for key in (KEY, OTHER))
    assert sum(a == b for a, b in zip(one, other)) == 0 and sum(a == b for a, b in zip(one, real)) == 0
    digits = [Keyed(KEY, NOTHING)(text[3:], "") for text in real]
    assert sum(a[3:] == b for a, b in zip(one, digits)) < 5


def test_characters_of_pseudonyms_are_spread_evenly():
    real = [f"AAA{n:04d}" for n in range(6000)]  # neighbours, the hardest case
    found = [Keyed(KEY, NOTHING)(text, "") for text in real]
    for position, alphabet in enumerate(positions_like("AAA0000")):
        counts, expected = Counter(text[position] for text in found), 6000 / len(alphabet)
        chi2 = sum((counts[c] - expected) ** 2 / expected for c in alphabet)
        free = len(alphabet) - 1
        assert abs(chi2 - free) < 5 * math.sqrt(2 * free)


def test_the_same_key_in_another_process():
    code = (
        f"from platemint.pipeline.anonymize.pseudonyms import *; print(Keyed({KEY!r}, Forbidden(()))('ABC-1234', 'x'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == Keyed(KEY, NOTHING)("ABC-1234", "y") == "FYX-0452"  # as in every version to come


def test_a_pseudonym_that_is_a_real_text_is_withheld():
    real = some_texts("LDD", 800)
    free, new = Keyed(KEY, NOTHING), Keyed(KEY, Forbidden(real))
    found = [new(text, "") for text in real]
    assert "" in found and not set(found) & set(real)
    kept = [text for text in found if text]
    assert len(kept) == len(set(kept)) and all(new(t, "") in ("", free(t, "")) for t in real)
    assert free(real[0], "", attempt=1) == "" and free("京O1234", "") == ""


# -- key files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def given_away(tmp_path) -> list[Path]:
    for name in ("corpus", "out"):
        (tmp_path / name).mkdir()
    return [tmp_path / "corpus", tmp_path / "out"]


def test_a_key_is_made_once(tmp_path, given_away):
    before = os.umask(0)
    try:
        key = read_key(tmp_path / "key", given_away)
    finally:
        os.umask(before)
    assert len(key) == KEY_BYTES and (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert read_key(tmp_path / "key", given_away) == key != read_key(tmp_path / "other", given_away)
    assert (tmp_path / "key").read_text() == key.hex() + "\n"
    assert key.hex() not in repr(Keyed(key, NOTHING)) + str(Keyed(key, NOTHING))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644])
def test_a_key_others_have_access_to_is_refused(tmp_path, mode):
    read_key(tmp_path / "key", [])
    (tmp_path / "key").chmod(mode)
    with pytest.raises(PlatemintError, match=f"mode {mode:o}"):
        read_key(tmp_path / "key", [])


@pytest.mark.parametrize("content", [b"", b"0" * 62, b"ab" * 32 + b"00", b"xy" * 32, b"\xff" * 64, bytes(range(32))])
def test_what_is_no_key_is_refused_and_never_quoted(tmp_path, content):
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(PlatemintError, match="does not hold 64 hexadecimal digits") as told:
        read_key(file, [])
    assert len(content) < 62 or content[:8].decode("latin-1") not in str(told.value)
    assert told.value.__cause__ is None and file.read_bytes() == content


def test_a_link_a_folder_and_a_pipe_are_refused(tmp_path):
    read_key(tmp_path / "real", [])
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "nowhere", "folder", "pipe"):
        with pytest.raises(PlatemintError, match="is not a file itself"):
            read_key(tmp_path / name, [])
    assert not (tmp_path / "absent").exists()


def test_a_key_is_kept_apart_from_what_is_given_away(tmp_path, given_away):
    (tmp_path / "way").symlink_to(tmp_path / "out")
    for place in ("out/key", "corpus/key", "way/key", "corpus/../out/key"):
        with pytest.raises(PlatemintError, match="keep the key apart"):
            read_key(tmp_path / place, given_away)
    assert not any(any(folder.iterdir()) for folder in given_away)
    with pytest.raises(PlatemintError, match="cannot be made: No such file"):
        read_key(tmp_path / "absent" / "key", given_away)
