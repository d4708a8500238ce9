"""anonymize in shards: any number of workers gives the same files, and an interrupted run goes on, or says why not."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import stand_ins
from stand_ins import Stamps, anonymized, frames, killed_after_two, luck, stamped

from platemint.pipeline import engines
from platemint.pipeline.anonymize import plan as plans
from platemint.pipeline.anonymize.compare import verify_against
from platemint.pipeline.anonymize.plan import AnonymizePlan, connected, cut
from platemint.pipeline.anonymize.pseudonyms import KEY_BYTES
from platemint.pipeline.anonymize.search import scan
from platemint.pipeline.anonymize.shard import Work
from platemint.pipeline.anonymize.unfinished import UNFINISHED, Unfinished
from platemint.pipeline.corpora.datasets import Annotation, Frame
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.recipe import AnonymizeRecipe

HERE = Path(__file__).parents[1]
PLATES = {f"{n:02d}": [f"ABC{1000 + n % 7}", f"XYZ-{200 + n}"][: 1 + n % 2] for n in range(24)}
TEXTS = sorted({text for texts in PLATES.values() for text in texts})


class Luckless(Stamps):
    """Half of the edits are not read right, so that plates of one text come to different attempts."""

    @staticmethod
    def scores_of(plate):
        unlucky = plate.target and luck(stand_ins.replace(plate, source=plate.original.tobytes().hex())) < 0.5
        return Stamps.scores_of(plate) | ({"reader": 0.5} if unlucky else {})


class Interrupted(Luckless):
    """Fails in the middle of the run. left: groups of pictures until then."""

    left = 2

    def encoded(self, pictures):
        if self.left <= 0:
            raise InterruptedError
        self.left -= 1
        return super().encoded(pictures)


@pytest.fixture
def small(monkeypatch):
    """Shards of five pictures."""
    monkeypatch.setattr(plans, "PICTURES", 5)


@pytest.fixture
def one_secret(monkeypatch):
    monkeypatch.setattr("secrets.token_bytes", lambda n: bytes(range(n)))


@pytest.fixture
def corpus(tmp_path):
    return frames(tmp_path / "in", PLATES)


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def interrupted(corpus: Path, out: Path, **fields) -> Unfinished:
    with pytest.raises(InterruptedError):
        anonymized(corpus, out, Interrupted, **fields)
    return Unfinished(out)


# ------------------------------------------------------------------------------------------------------ equal results


def test_any_number_of_workers_gives_the_same_files(corpus, tmp_path, small, one_secret):
    for name, workers in (("1", 1), ("2", 2)):
        anonymized(corpus, tmp_path / name, Luckless, track_consistent=True, engine={"workers": workers})
    assert files(tmp_path / "1") == files(tmp_path / "2") and verify_against(tmp_path / "1", corpus).faults == []
    assert 10 < json.loads((tmp_path / "1/audit.json").read_text())["plates"]["replaced"] < 36


@pytest.mark.parametrize("consistent", [False, True])
def test_threads_change_nothing(corpus, tmp_path, one_secret, monkeypatch, consistent):
    monkeypatch.setattr("platemint.pipeline.anonymize.shard.FRAMES", 3)
    for threads in (1, 4):
        monkeypatch.setattr(engines, "_cores", lambda threads=threads: threads)
        anonymized(corpus, tmp_path / str(threads), Luckless, track_consistent=consistent)
    assert files(tmp_path / "1") == files(tmp_path / "4")


def test_another_secret_is_another_run(corpus, tmp_path):
    for name in "12":
        anonymized(corpus, tmp_path / name)
    labels = [{data for name, data in files(tmp_path / name).items() if name.endswith(".txt")} for name in "12"]
    assert not labels[0] & labels[1]


# --------------------------------------------------------------------------------------------------------- the shards


def some_frames(rng: np.random.Generator, count: int, texts: int) -> list[Frame]:
    plates = [[f"T{t}" for t in rng.integers(texts, size=rng.integers(3))] for _ in range(count)]
    return [Frame(str(n), tuple(map(Annotation, some)), "") for n, some in enumerate(plates)]


@pytest.mark.parametrize("consistent", [False, True])
@pytest.mark.parametrize("count, texts", [(0, 1), (1, 1), (40, 3), (200, 150), (200, 2000)])
def test_every_picture_is_in_one_shard(small, count, texts, consistent):
    found = some_frames(np.random.default_rng(count + texts), count, texts)
    pieces = cut(found, consistent)
    assert sorted(n for piece in pieces for n in piece) == list(range(count))
    assert all(0 < len(piece) <= 5 for piece in pieces) and len(pieces) <= count / 3 + 1
    if consistent:
        at = {n: number for number, piece in enumerate(pieces) for n in piece}
        assert all(len({at[n] for n in group}) == 1 for group in connected(found) if len(group) <= 5)


def test_groups_share_no_text_and_do_not_fall_apart():
    found = some_frames(np.random.default_rng(0), 100, 90)
    texts = [{a.text for n in group for a in found[n].annotations} for group in connected(found)]
    assert sum(map(len, texts)) == len(set().union(*texts))
    for group in connected(found):
        seen, rest = {a.text for a in found[group[0]].annotations}, set(group[1:])
        while more := {n for n in rest if seen & {a.text for a in found[n].annotations}}:
            seen |= {a.text for n in more for a in found[n].annotations}
            rest -= more
        assert not rest


def test_a_text_of_several_shards_has_one_attempt_and_one_new_text(tmp_path, small):
    corpus = frames(tmp_path / "in", {f"{n:02d}": ["ABC1234"] for n in range(12)} | {"x": ["XYZ777"], "y": ["XYZ777"]})
    recipe = AnonymizeRecipe(source={"path": str(corpus)}, track_consistent=True)
    shards = AnonymizePlan(recipe, Stamps(recipe)).draw(bytes(KEY_BYTES))
    assert [len(shard.numbers) for shard in shards] == [5, 5, 4]
    new = [(old, texts) for shard in shards for some in shard.texts for old, texts in some.items()]
    assert len({texts for old, texts in new if old == "ABC1234"}) == 1
    assert {(old, len(texts)) for old, texts in new} == {("ABC1234", 1), ("XYZ777", 6)}


def test_what_a_worker_is_sent_does_not_grow_with_the_run(tmp_path, small):
    sizes = []
    for count in (10, 100):
        corpus = frames(tmp_path / str(count), {f"{n:03d}": [f"ABC{1000 + n}"] for n in range(count)})
        recipe = AnonymizeRecipe(source={"path": str(corpus)})
        plan = AnonymizePlan(recipe, Stamps(recipe))
        shards = plan.draw(bytes(KEY_BYTES))
        sizes.append(len(pickle.dumps(Work(plan.anonymizer, plan.dataset.root, Unfinished(tmp_path / "out"), ""))))
        sizes.append(max(len(pickle.dumps(shard)) for shard in shards))
    assert abs(sizes[0] - sizes[2]) < 10 and abs(sizes[1] - sizes[3]) < 100


# ------------------------------------------------------------------------------------------------------------ going on


@pytest.mark.parametrize(
    "fields, workers",
    [({}, 1), ({"track_consistent": True}, 1), ({"track_consistent": True}, 2), ({"key_file": "key"}, 1)],
)
def test_a_run_that_goes_on_comes_to_the_same_files(corpus, tmp_path, small, monkeypatch, fields, workers):
    monkeypatch.chdir(tmp_path)
    record = interrupted(corpus, tmp_path / "out", **fields)
    secret, shards, again = record.secret(), len([*record.mark.glob("commits/*")]), []
    assert (secret is None) == ("key_file" in fields) and shards >= 2

    class Counted(Luckless):
        def encoded(self, pictures):
            again.append(len(pictures))
            return super().encoded(pictures)

    anonymized(corpus, tmp_path / "out", Counted, engine={"workers": workers}, **fields)
    assert not (tmp_path / "out" / UNFINISHED).exists()
    assert workers > 1 or sum(again) <= 24 - 4 * shards
    salt = secret or b""
    monkeypatch.setattr("secrets.token_bytes", lambda n: salt[:n])
    anonymized(corpus, tmp_path / "whole", Luckless, **fields)
    different = {name for name, data in files(tmp_path / "whole").items() if files(tmp_path / "out")[name] != data}
    assert (
        different <= {"audit.json", "audit.html"} and files(tmp_path / "out").keys() == files(tmp_path / "whole").keys()
    )
    audits = [json.loads((tmp_path / name / "audit.json").read_text()) for name in ("out", "whole")]
    for audit in audits:  # ids are under a salt of each process
        audit["given_up"] = sorted((item["outcome"], item["reason"]) for item in audit["given_up"])
        del audit["source_texts"]["bytes"]
    assert audits[0] == audits[1]


def test_pictures_that_have_their_names_already_are_not_made_again(corpus, tmp_path, small, monkeypatch):
    """Killed while it was publishing."""
    rename, left = os.replace, iter(range(10))

    def replace(old, new):
        if Path(new).suffix == ".png" and next(left, None) is None:
            raise InterruptedError
        rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", replace)
        with pytest.raises(PlatemintError):
            anonymized(corpus, tmp_path / "out")
    named = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    (tmp_path / "out/13.png.part").write_text("half")
    assert len(named) == 10
    monkeypatch.setattr(Interrupted, "left", 0)
    assert anonymized(corpus, tmp_path / "out", Interrupted)["plates"]["replaced"] == 36
    assert all(path.stat().st_mtime_ns == at for path, at in named.items())
    assert len(files(tmp_path / "out")) == 24 + 24 + 2 and verify_against(tmp_path / "out", corpus).faults == []


def test_a_shard_whose_files_are_gone_or_half_is_made_again(corpus, tmp_path, small):
    record = interrupted(corpus, tmp_path / "out")
    pictures = sorted(record.mark.glob("pictures/*"))
    pictures[0].unlink()
    pictures[-1].write_bytes(pictures[-1].read_bytes()[:100])
    record.commit(1).write_text("{")
    anonymized(corpus, tmp_path / "out")
    assert verify_against(tmp_path / "out", corpus).faults == []


def test_a_picture_that_is_no_longer_what_was_written_is_made_again(corpus, tmp_path, small):
    record = interrupted(corpus, tmp_path / "out")
    for picture in record.mark.glob("pictures/*"):
        picture.write_bytes(picture.read_bytes()[::-1])  # of the same size
    anonymized(corpus, tmp_path / "out")
    assert verify_against(tmp_path / "out", corpus).faults == []


def strings(value) -> set[str]:
    """All strings of a JSON value, keys included."""
    if isinstance(value, dict):
        return set(value).union(*map(strings, value.values()))
    return (
        set().union(*map(strings, value)) if isinstance(value, list) else {value} if isinstance(value, str) else set()
    )


def test_what_is_kept_of_an_unfinished_run_tells_no_text_name_or_path(tmp_path, small):
    corpus = frames(tmp_path / "SECRET9", {f"{text}_x": [text, ""] for text in TEXTS})
    (corpus / f"{TEXTS[0]}_x.png").write_bytes(b"no picture")
    record = interrupted(corpus, tmp_path / "out", list_file=str(tmp_path / "LIST77"), name="NAME88")
    kept = files(record.mark)
    assert {name.split("/")[0] for name in kept} == {"secret", "plan.json", "commits", "pictures"}
    assert not scan(tmp_path / "out", [*TEXTS, "SECRET9", "LIST77", "NAME88"]).hits
    known = {"shard", "versions", "frames", "frame", "plates", "outcome", "reason", "attempt", "characters", "not_placed",
             "aside", "bytes", "sha256", "pixels", "changed", "outside", "replaced", "redacted", "", "no text", "reader",
             "scores", "stability", "slots", "mask_reader", "residue"}  # fmt: skip
    commits = [json.loads(data) for name, data in kept.items() if name.startswith("commits")]
    told = set().union(*(strings(commit["frames"]) for commit in commits))
    told -= {frame.get("sha256") for commit in commits for frame in commit["frames"]}  # of the pictures that lie beside
    assert len(commits) >= 2 and {word for word in told - known if not word.startswith("not a picture")} == set()
    assert record.secret_file.stat().st_mode & 0o777 == 0o600 and len(record.secret()) == KEY_BYTES
    pictures = [stamped(stand_ins.cv2.imread(str(path))[..., ::-1]) for path in record.mark.glob("pictures/*")]
    assert pictures and not any(text in said for said in pictures for text in TEXTS)


def test_the_secret_dies_with_the_run(corpus, tmp_path, monkeypatch):
    rewrite = plans.rewrite_dataset
    with monkeypatch.context() as patch:  # a run that ends with what must not be passed on
        patch.setattr(plans, "rewrite_dataset", lambda dataset, new: rewrite(dataset, lambda frame, old: old))
        assert anonymized(corpus, tmp_path / "out")["source_texts"]["found"]
    assert list((tmp_path / "out" / UNFINISHED).iterdir()) == []
    anonymized(corpus, tmp_path / "out")
    assert not (tmp_path / "out" / UNFINISHED).exists()


# ------------------------------------------------------------------------------------------------- what must be the same


def test_another_run_is_refused_and_what_is_there_stays(corpus, tmp_path, small, monkeypatch):
    out = tmp_path / "out"
    interrupted(corpus, out)
    before = files(out)
    note = corpus / "03.txt"
    text = note.read_text()
    for told, fields, change in (
        ("on_doubt", {"on_doubt": "withhold"}, None),
        ("draw", {"draw": {"blocked": ["QQ"]}}, None),
        ("track_consistent", {"track_consistent": True}, None),
        ("the key", {"key_file": str(tmp_path / "key")}, None),
        ("the dataset", {}, text.replace("ABC1003", "ABC1004")),
        ("the dataset", {}, text + "\n"),
    ):
        note.write_text(change or text)
        times = (corpus / "02.txt").stat()
        os.utime(note, ns=(times.st_atime_ns, note.stat().st_mtime_ns))
        with pytest.raises(PlatemintError, match=f"interrupted run.*{told}.*--out") as fault:
            anonymized(corpus, out, **fields)
        assert files(out) == before and not [word for word in (*TEXTS, "03.") if word in str(fault.value)]


def test_another_list_and_other_workers_are_the_same_run(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(Interrupted, "left", 1)
    interrupted(corpus, tmp_path / "out")  # in one shard, for which no process is started
    anonymized(corpus, tmp_path / "out", list_file=str(tmp_path / "list"), engine={"workers": 3})
    assert (tmp_path / "list").is_file() and not (tmp_path / "out" / UNFINISHED).exists()


def test_a_run_without_its_secret_or_with_another_key_is_refused(corpus, tmp_path, small):
    record = interrupted(corpus, tmp_path / "out")
    record.secret_file.unlink()
    with pytest.raises(PlatemintError, match="the secret"):
        anonymized(corpus, tmp_path / "out")
    interrupted(corpus, tmp_path / "keyed", key_file=str(tmp_path / "key"))
    (tmp_path / "key").unlink()
    with pytest.raises(PlatemintError, match="the key"):
        anonymized(corpus, tmp_path / "keyed", key_file=str(tmp_path / "key"))


def test_other_versions_are_refused_unless_accepted_and_told_in_the_audit(call, corpus, tmp_path, small, monkeypatch):
    interrupted(corpus, tmp_path / "out")
    for module in ("run", "plan", "shard", "audit"):
        monkeypatch.setattr(f"platemint.pipeline.anonymize.{module}.versions", lambda: {"torch": "9.9"})
    result = call(corpus, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "is 9.9" in result.stderr and "--accept-versions" in result.stderr
    result = call(corpus, "--out", tmp_path / "out", "--accept-versions")
    assert result.exit_code == 0 and json.loads(result.stdout)["made_with"]["torch"].endswith(", 9.9")


# --------------------------------------------------------------------------------------------------------------- kill -9


def test_workers_and_all_are_killed_and_the_next_run_goes_on(corpus, tmp_path, call, monkeypatch):
    monkeypatch.setattr(plans, "PICTURES", 3)
    out, record = tmp_path / "out", Unfinished(tmp_path / "out")
    args = ["anonymize", corpus, "--out", out, "--set", "engine.workers=2"]
    killed_after_two(record.mark / "commits", *args)
    assert not scan(out, TEXTS).hits
    done = {path: path.read_bytes() for path in record.mark.glob("commits/*.json")}
    pictures = [stand_ins.cv2.imread(str(path)) for path in record.mark.glob("pictures/[0-9]*")]
    assert 2 <= len(done) < 8 and not any(text in stamped(p[..., ::-1]) for p in pictures for text in TEXTS)
    assert call(corpus, "--out", out).exit_code == 0
    assert verify_against(out, corpus).faults == [] and not list(out.rglob(".*"))


def test_a_worker_that_outlives_its_run_writes_nothing(corpus, tmp_path):
    recipe = AnonymizeRecipe(source={"path": str(corpus)}, out=str(tmp_path / "out"))
    plan, record = AnonymizePlan(recipe, Stamps(recipe)), Unfinished(tmp_path / "out")
    shards = plan.draw(bytes(KEY_BYTES))
    record.begin(bytes(KEY_BYTES), plan.facts(bytes(KEY_BYTES)))
    for run_ in ("of another run", ""):
        with pytest.raises(PlatemintError, match="no longer this run's"):
            Work(plan.anonymizer, plan.dataset.root, record, run_)(shards[0])
    assert {path.name for path in record.mark.iterdir()} == {"secret", "plan.json"}
