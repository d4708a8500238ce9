"""Topping up a corpus: what is rare rises to one level, what is frequent is left alone, and the files alone prove it."""

import csv
import json
import math
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import Lucky
from test_sample import corpus, picture
from test_verify import edit_json, forge

from platemint import run_pipeline
from platemint.pipeline import run
from platemint.pipeline.balance.quotas import Demand, Pool, had
from platemint.pipeline.balance.shares import Target
from platemint.pipeline.plate import DIGITS, LETTERS, Group, PlatemintError, Readings
from platemint.pipeline.rebalance import ToppedUp, propose
from platemint.pipeline.recipe import Balance, load_recipe
from platemint.pipeline.stages import Stages
from platemint.pipeline.verify import verify

IN_USE = "".join(c for c in LETTERS if c not in "IOQ")  # of a corpus that has none of these


class Topping(Lucky):
    """Photographs of a corpus, of which a third of the attempts fail, and all on plates that say so."""

    sources = Stages.sources
    takes_none = "X"  # in a photograph's own text

    def filter(self, plates):
        for plate in super().filter(plates):
            if self.takes_none in plate.original_text:
                plate.reason, plate.scores["reader"] = "reader", 0.0
        return plates


def made(source, out="", *sets, **fields):
    given = {"source.path": str(source), "out": str(out), "balance.top_up": True, "filter.min_reader": 0.35}
    return load_recipe("rebalance", sets, overrides=given | fields)


def topped_up(source, out, count=None, until=None, **fields):
    """A finished run, as the command makes it."""
    first = Topping(made(source, out, **fields))
    proposal = propose(first, count, until)
    return run.generate(
        made(source, out, **fields, count=proposal.count),
        stages=first.for_recipe(first.recipe.model_copy(update={"count": proposal.count})),
    )


def labels(lows: dict[str, int], seed: int, digits: str = DIGITS) -> list[str]:
    """Different texts LLDDD, of which so many begin with each letter."""
    rng, found = np.random.default_rng(seed), []
    for letter, times in lows.items():
        while times:
            text = letter + str(rng.choice(list("ABCD"))) + "".join(rng.choice(list(digits), 3))
            if text not in found:
                found.append(text)
                times -= 1
    return found


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Two splits: A heads the first, D the second; of twenty-six letters four are there."""
    train = labels({"A": 30, "B": 8, "C": 3, "D": 1}, 0)
    val = [text for text in labels({"D": 9, "A": 3}, 1) if text not in train]
    rows = [(text, "train") for text in train] + [(text, "val") for text in val]
    return corpus(tmp_path_factory.mktemp("uneven") / "corpus", rows)


@pytest.fixture(scope="module")
def level(uneven, tmp_path_factory):
    """Added until level, and merged."""
    result = topped_up(uneven, tmp_path_factory.mktemp("level") / "run", until=1.0, **{"write.real": True})
    assert result.exit_code == 0
    return result.folder


@pytest.fixture
def folder(level, tmp_path):
    return shutil.copytree(level, tmp_path / "run")


def rows(folder: Path, origin: str = "") -> list[dict]:
    files = sorted(folder.glob("data/*.parquet"))
    return [row for path in files for row in pq.read_table(path).to_pylist() if origin in row["origin"]]


def columns(rows: list[dict]) -> dict[tuple[str, int], Counter]:
    """Characters of every split and position."""
    found = defaultdict(Counter)
    for row in rows:
        for position, c in enumerate(row["text"]):
            found[row["split"], position][c] += 1
    return found


def table(corpus: Path) -> list[tuple[str, str, str]]:
    lines = (corpus / "labels.csv").read_text().splitlines()[1:]
    return [tuple(line.split(",")) for line in lines]


def test_until_1_makes_every_position_of_every_split_level(level):
    """Real and new plates counted together, from the files."""
    together = columns(rows(level))
    assert {split for split, _ in together} == {"train", "val"}
    for (split, position), counts in together.items():
        alphabet = IN_USE if position < 2 else DIGITS
        assert max(counts.values()) - min(counts[c] for c in alphabet) <= 1 and {*counts} == {*alphabet}


def test_heads_are_left_alone_and_no_more_is_added_than_it_takes(level, uneven):
    new = columns(rows(level, "synthetic"))
    assert new["train", 0]["A"] == 0 and new["val", 0]["D"] == 0
    assert len(rows(level, "synthetic")) == ToppedUp(Topping(made(uneven))).plates_until(1)
    assert new["train", 0].total() == 22 * 29 - 12  # every other letter one less often than A


def test_real_rows_are_the_files_of_the_corpus(level, uneven):
    real = rows(level, "real")
    files = {(path, text, split): (uneven / path).read_bytes() for path, text, split in table(uneven)}
    found = Counter((row["text"], row["split"], row["image"]["bytes"]) for row in real)
    assert found == Counter((text, split, data) for (_, text, split), data in files.items())
    assert {row["origin"] for row in rows(level)} == {"real", "synthetic"}
    assert all(row["score_reader"] is None for row in real)


def test_pictures_that_shards_cannot_hold_are_stored_as_png_whatever_their_name(tmp_path):
    folder = corpus(tmp_path / "corpus", [(f"AB{n}", "train") for n in range(3)])
    pixels = picture(folder / "0.png", 50)
    data = cv2.imencode(".bmp", pixels[..., ::-1])[1].tobytes()
    (folder / "0.png").write_bytes(data)
    result = topped_up(folder, tmp_path / "run", count=20, **{"write.real": True})
    [row] = [row for row in rows(result.folder, "real") if row["text"] == "AB0"]
    assert np.array_equal(cv2.imdecode(np.frombuffer(row["image"]["bytes"], np.uint8), 1)[..., ::-1], pixels)
    assert verify(result.folder).faults == []


def test_sources_and_texts_stay_in_their_split_and_no_new_text_reads_like_a_real_one(level):
    splits = defaultdict(set)
    for row in rows(level):
        splits[row["source"]].add(row["split"])
        splits[row["text"]].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    real = Readings(row["text"] for row in rows(level, "real"))
    new = [row["text"] for row in rows(level, "synthetic")]
    assert len(set(new)) == len(new) and not any(text in real for text in new)
    assert verify(level).faults == []


def test_the_merged_folder_is_a_dataset(level, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")

    read = datasets.load_dataset(str(level), cache_dir=str(tmp_path / "cache"))
    expected = Counter((row["split"], row["origin"]) for row in rows(level))
    assert Counter((split, origin) for split, part in read.items() for origin in part["origin"]) == expected
    assert read["val"][0]["image"].size == (80, 24)


def test_one_split_is_topped_up_alone(uneven, tmp_path):
    result = topped_up(uneven, tmp_path / "run", count=40, **{"source.split": "val"})
    assert {row["split"] for row in rows(result.folder)} == {"val"} and len(rows(result.folder)) == 40
    train = Readings(text for _, text, split in table(uneven) if split == "train")
    assert not any(row["text"] in train for row in rows(result.folder))


# --- how many plates


class Counted:
    """A corpus that is nothing but its labels."""

    def __init__(self, groups, texts, target=Target(), count=1):
        balance = Balance(top_up=True)
        self.sources = type("Sources", (), {"groups": groups})()
        self.recipe = made("corpus", count=count)
        self.demand = Demand(balance, target, had(groups, texts, balance))


def counted(texts: dict[str, list[str]], target=Target()) -> Counted:
    total = sum(map(len, texts.values()))
    groups = [Group("", split, (LETTERS[:6], DIGITS), len(some) / total, 1) for split, some in texts.items()]
    return Counted(groups, texts.values(), target)


some_texts = st.lists(
    st.tuples(st.sampled_from("ABCDEF"), st.sampled_from(DIGITS)).map("".join), min_size=1, max_size=80
)
corpora = st.one_of(
    st.fixed_dictionaries({"train": some_texts}), st.fixed_dictionaries({"train": some_texts, "val": some_texts})
)


@settings(max_examples=40, deadline=None)
@given(corpora)
def test_more_plates_never_make_it_less_even(texts):
    """Up to the one plate by which rounding moves shares between splits."""
    whole = ToppedUp(counted(texts))
    curve = [whole.evenness(n) for n in range(0, 300, 6)]
    assert all(0 <= even <= 1 for even in curve) and curve[-1] >= curve[0]
    assert all(later > before - 0.01 for before, later in zip(curve, curve[1:]))


@settings(max_examples=20, deadline=None)
@given(corpora)
def test_an_uneven_wish_is_met_in_the_end(texts):
    """And its letters and digits then are as the table has them, those apart that it does not want."""
    shares = {"A": 3, "B": 1, "7": 2, "8": 1, "9": 0.5}
    whole = ToppedUp(counted(texts, Target("t", shares)))
    for pool, counts in whole.after(whole.plates_until(1)).items():
        wished = {c: shares[c] for c in pool.alphabet if c in shares}
        total, of = sum(counts[c] for c in wished), sum(wished.values())
        assert all(abs(counts[c] - total * share / of) <= 1.5 for c, share in wished.items())


@settings(max_examples=40, deadline=None)
@given(corpora, st.floats(0.5, 1))
def test_as_few_plates_as_make_it_so_even(texts, until):
    whole = ToppedUp(counted(texts))
    n = whole.plates_until(until)
    assert whole.evenness(n) >= until - 1e-12
    if n and len(texts) == 1:
        assert all(whole.evenness(fewer) < until for fewer in range(max(0, n - 20), n))
    assert whole.least_plates(n) <= n


@settings(max_examples=40, deadline=None)
@given(some_texts)
def test_level_means_level_and_takes_what_its_worst_position_takes(texts):
    whole = ToppedUp(counted({"train": texts}))
    n = whole.plates_until(1)
    for counts in whole.after(n).values():
        assert max(counts.values()) - min(counts.values()) <= 1
    lacks = []
    for position, alphabet in enumerate((LETTERS[:6], DIGITS)):
        have = Counter(text[position] for text in texts)
        top = max(have.values())
        lacks.append(sum(max(0, top - 1 - have[c]) for c in alphabet))  # up to one below the head
    assert n == max(lacks) == whole.least_plates(n)


def test_no_fewer_plates_than_the_bound_reach_it():
    """Tried on one position: of all ways to add one plate less than the bound, none is as even."""
    from itertools import combinations_with_replacement

    have = Counter("AAAAAABBC")
    whole = ToppedUp(Counted([Group("", "train", ("ABC", "-"), 1.0, 1)], [[f"{c}-" for c in have.elements()]]))
    for n in range(1, 8):
        goal, least = whole.evenness(n), whole.least_plates(n)
        assert least <= n
        for fewer in range(least):
            for added in combinations_with_replacement("ABC", fewer):
                counts = have + Counter(added)
                even = -sum(k / counts.total() * math.log2(k / counts.total()) for k in counts.values())
                best = [counts.total() // 3 + (i < counts.total() % 3) for i in range(3)]
                best = -sum(k / counts.total() * math.log2(k / counts.total()) for k in best)
                assert even / best < goal - 1e-9


def test_the_knee_lies_between_the_ends_and_says_why(uneven):
    proposal = propose(Topping(made(uneven)))
    ends = proposal.curve[0][0], proposal.curve[-1][0]
    assert ends[0] == 0 < proposal.least <= proposal.count < ends[1] == ToppedUp(Topping(made(uneven))).plates_until(1)
    up_to, beyond = map(float, re.findall(r"raise evenness by ([\d.e-]+), beyond it by ([\d.e-]+)", proposal.why)[0])
    assert up_to > 2 * beyond > 0
    assert (
        f"{proposal.count:,} plates: the knee" in proposal.text and f"are added: {proposal.least:,};" in proposal.text
    )
    assert proposal.curve[-1][1] == pytest.approx(1)


def test_the_wrong_way_round_is_not_even():
    whole = ToppedUp(
        Counted([Group("", "train", ("AB", "-"), 1.0, 1)], [["A-"] * 10 + ["B-"] * 30], Target("t", {"A": 3, "B": 1}))
    )
    assert whole.evenness(0) < 0.5 and whole.plates_until(1) in (78, 79, 80)
    assert whole.after(80)[Pool(0, "AB", "train")] == {"A": 90, "B": 30}


def test_long_tails():
    """One value holds 95 % of a position, and one digit is a fourteenth of the others."""
    texts = [("A" if n % 20 else "BCDEF"[n // 20 % 5]) + DIGITS[n % 9] for n in range(1260)] + ["A9"] * 10
    stages = counted({"train": texts})
    have = Counter(text[0] for text in texts)
    assert have["A"] / len(texts) > 0.95 and Counter(text[1] for text in texts)["0"] == 140
    whole = ToppedUp(stages)
    before, level = whole.evenness(0), whole.plates_until(1)
    assert before < 0.6 and level == 5 * (have["A"] - 1) - sum(have[c] for c in "BCDEF")
    proposal = propose(stages)
    assert proposal.count < level / 2 and whole.evenness(proposal.count) > 0.85
    [letters, digits] = whole.after(proposal.count).values()
    assert letters["A"] == have["A"] and max(digits.values()) - min(digits.values()) <= 1
    assert len({letters[c] for c in "BCDEF"}) <= 2  # all tails at one level


def test_a_table_of_shares_tops_up_to_these(uneven, tmp_path):
    """Letters it leaves out get nothing; digits, of which it says nothing, are level."""
    shares = tmp_path / "shares.csv"
    shares.write_text("character,share\nA,2\nB,1\nC,1\n")
    result = topped_up(uneven, tmp_path / "run", until=1.0, **{"balance.target": str(shares), "source.split": "train"})
    new = columns(rows(result.folder))["train", 0]
    assert {*new} <= set("ABC") and verify(result.folder).faults == []
    after = Counter({"A": 30, "B": 8, "C": 3}) + new
    assert abs(after["B"] - after["A"] / 2) <= 1 and abs(after["C"] - after["A"] / 2) <= 1
    shares.write_text("position,character,share\n0,A,1\n")
    with pytest.raises(PlatemintError, match="balance.target: .*without position"):
        topped_up(uneven, tmp_path / "other", count=10, **{"balance.target": str(shares)})


# --- groups that take no new text


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory):
    """Twelve plates of three characters, and one of four whose photograph takes no text."""
    rows = [(f"{letter}{n % 10}{n % 3}", "train") for n, letter in enumerate("AAAAAABBCDEF")] + [("XAB1", "train")]
    return corpus(tmp_path_factory.mktemp("hopeless") / "corpus", rows)


def test_a_group_that_takes_no_text_gets_none_and_keeps_counting(hopeless, tmp_path):
    result = topped_up(hopeless, tmp_path / "run", until=0.9, **{"write.real": True})
    assert result.exit_code == 0 and result.missing == 0 and verify(result.folder).faults == []
    plan = json.loads((result.folder / "plan.json").read_text())
    [none] = [group for group in plan["groups"] if len(group["positions"]) == 4]
    assert none["weight"] == 0 and none["targets"] == 0
    with open(result.folder / "set_aside.csv", newline="") as file:
        [aside] = csv.DictReader(file)
    assert aside["path"] == "12.png" and "most of 6 texts tried on it were rejected" in aside["reason"]
    assert sum(counts.get("X", 0) for counts in plan["have"].values()) == 1
    assert "XAB1" in {row["text"] for row in rows(result.folder, "real")}
    assert {len(row["text"]) for row in rows(result.folder, "synthetic")} == {3}


def test_a_corpus_that_takes_no_text_at_all_is_refused(tmp_path):
    folder = corpus(tmp_path / "corpus", [("XA1", "train"), ("XB2", "train"), ("XB3", "train")])
    with pytest.raises(PlatemintError, match="not one plate takes new texts; most of 6 texts tried on it"):
        topped_up(folder, tmp_path / "run", count=5)


# --- proof from the files


def one_less(rows):
    return rows[1:]


def one_more(rows):
    return [*rows, rows[0] | {"index": len(rows), "text": "AA999"}]


def relabel(rows):
    rows[0]["text"] = rows[0]["text"][:-1] + ("1" if rows[0]["text"][-1] == "0" else "0")


@pytest.mark.parametrize(
    ("change", "by", "said"),
    [
        (one_less, -1, "real plates, the files hold"),
        (one_more, 1, "real plates, the files hold"),
        (relabel, 0, "counts other characters on real plates than the files hold"),
    ],
)
def test_another_real_row_is_found(folder, change, by, said):
    """Though its commit and every hash were forged as well."""
    name = next(path for path in sorted(folder.glob("data/train-real-*"))).relative_to(folder).as_posix()
    [commit] = [p for p in sorted(folder.glob("commits/*")) if json.loads(p.read_text())["files"][0]["path"] == name]

    def count(facts):
        facts["real"] += by
        facts["files"][0]["rows"] += by

    edit_json(commit, count)
    forge(folder, name, change, commit.relative_to(folder).as_posix())
    assert any(said in fault for fault in verify(folder).faults)


def test_other_characters_said_to_be_had_are_found(folder):
    def more(plan):
        counts = next(counts for name, counts in plan["have"].items() if name.startswith("0/"))
        counts["A"] += 1

    edit_json(folder / "plan.json", more)
    assert "plan.json: counts other characters on real plates than the files hold" in verify(folder).faults


def test_a_new_text_that_reads_like_a_real_one_is_found(folder):
    new = next(path for path in sorted(folder.glob("data/train-0*"))).relative_to(folder).as_posix()
    real = next(row["text"] for row in rows(folder, "real") if row["split"] == "train")
    [commit] = [p for p in sorted(folder.glob("commits/*")) if json.loads(p.read_text())["files"][0]["path"] == new]
    forge(folder, new, lambda rows: rows[0].update(text=real), commit.relative_to(folder).as_posix())
    assert f"data: the text {real!r} was made, and a real plate reads like it" in verify(folder).faults


# --- the command


@pytest.fixture
def call(monkeypatch):
    monkeypatch.setattr("platemint.pipeline.stages.Stages", Topping)

    def call(*args):
        sets = ["--set", "filter.min_reader=0.35"]
        result = CliRunner().invoke(run_pipeline.main, ["rebalance", *map(str, args), *sets])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return call


def test_a_dry_run_shows_curve_and_reason_and_writes_nothing(call, uneven, tmp_path):
    before = sorted(path.name for path in uneven.iterdir())
    result = call(uneven, "--out", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0 and not any(tmp_path.iterdir())
    assert sorted(path.name for path in uneven.iterdir()) == before
    for said in (
        "plates added  evenness",
        "the knee of this curve",
        "lower bound for so even a corpus",
        "top_up: true",
        "time: ",
    ):
        assert said in result.output


def test_the_command_adds_what_it_says_and_verifies(call, uneven, tmp_path):
    result = call(uneven, "--out", tmp_path / "run", "--count", 30, "--merge")
    real = len(table(uneven))
    assert result.exit_code == 0 and f"30 plates, and {real} of the corpus as they are" in result.output
    again = call(uneven, "--out", tmp_path / "run", "--count", 30, "--merge")
    assert again.exit_code == 0
    other = call(uneven, "--out", tmp_path / "run", "--count", 31, "--merge")
    assert other.exit_code == 2 and "count was 30, is 31" in other.output
    assert verify(tmp_path / "run").faults == []


def test_what_is_wrong_use_exits_2(call, uneven, tmp_path):
    for args, said in [
        ((uneven, "--count", 5, "--until", 0.9), "--count and --until"),
        ((uneven, "--count", 5, "--until", 0), "--count and --until"),
        ((uneven, "--until", 1.5), "--until"),
        ((uneven, "--count", 0), "--count"),
        ((uneven, "--split", "vall"), "did you mean val?"),
        ((tmp_path / "nope",), "no such folder or file"),
        ((uneven, "--set", "balance.pairs=true"), "top_up"),
    ]:
        result = call(*args, "--out", tmp_path / "run")
        assert result.exit_code == 2 and said in result.output, result.output
    assert not any(tmp_path.iterdir())


def test_a_corpus_that_is_level_is_told_so(call, tmp_path):
    texts = [f"{letter}{digit}" for letter in LETTERS for digit in DIGITS]
    folder = corpus(tmp_path / "corpus", [(text, "train") for text in texts])
    result = call(folder, "--out", tmp_path / "run")
    assert result.exit_code == 2 and "every character comes equally often; there is nothing to add" in result.output
    assert not (tmp_path / "run").exists()


def test_a_run_that_falls_short_exits_3(call, hopeless, tmp_path):
    result = call(hopeless, "--out", tmp_path / "run", "--count", 60, "--set", "filter.rounds=1")
    assert result.exit_code == 3 and "plates are missing" in result.output
