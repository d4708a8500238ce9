"""Ray: the bytes of a run on one machine, whoever dies on the way, and nothing of an anonymized dataset in Ray's files."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from anonymize.test_anonymize_shards import PLATES, TEXTS, Luckless, files, one_secret, small  # noqa: F401 (fixtures)
from bench.bench_kills import descendants
from stand_ins import Lucky, anonymized, frames, recipe
from test_lock import wait_for
from test_run import contents, finished  # noqa: F401 (fixture)
from test_safety import commits, faults, start

from platemint.pipeline import engines, run
from platemint.pipeline.plate import Failure, PlatemintError
from platemint.pipeline.recipe import Engine

HERE = Path(__file__).parent
RAY = {"kind": "ray", "workers": 2}
SMALL = {"object_store_memory": 80 << 20}

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def machines():
    """A Ray cluster of one machine of two cores, to which others can be added. Its workers know the stand-ins."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False} | SMALL)
        ray.init(machines.address, log_to_driver=False)
        yield machines
        ray.shutdown()
        machines.shutdown()


@pytest.fixture(scope="module")
def cluster(machines):
    """The folder of the cluster's files."""
    return Path(machines.head_node.get_session_dir_path())


@pytest.fixture
def lost(machines, tmp_path):
    """A second machine, which `lose_machine` knows by the file that is written here."""
    node = machines.add_node(num_cpus=1, **SMALL)
    (tmp_path / "raylet").write_text(str(node.all_processes["raylet"][0].process.pid))
    yield node
    machines.remove_node(node, allow_graceful=False)


def on_ray(out: Path, stages: type[Lucky], workers: int = 2) -> run.Result:
    made = recipe(out).model_copy(update={"engine": Engine(kind="ray", workers=workers)})
    return run.generate(made, stages=stages(made))


def die_once(folder: Path) -> None:
    """kill -9 of the process that comes here first."""
    try:
        (folder / "died").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def lose_machine(folder: Path) -> None:
    """kill -9 of the second machine: its raylet, all that this has started, and us, who run there. Others wait for that."""
    raylet, end = int((folder / "raylet").read_text()), time.monotonic() + 60
    if raylet == os.getppid():
        (folder / "died").touch()
        for process in [raylet, *({*descendants(raylet)} - {os.getpid()}), os.getpid()]:
            os.kill(process, signal.SIGKILL)
    while not (folder / "died").exists():
        assert time.monotonic() < end
        time.sleep(0.02)


class Mortal(Lucky):
    """One worker is killed in the middle of a shard."""

    batches = 0
    die = staticmethod(die_once)

    def edit(self, plates):
        self.batches += 1
        if self.batches == 3:
            self.die(self.recipe.folder.parent)
        return super().edit(plates)


class OnMachines(Mortal):
    """One machine is lost in the middle of a shard."""

    die = staticmethod(lose_machine)


class Doomed(Lucky):
    """A shard that kills whoever takes it."""

    def edit(self, plates):
        os.kill(os.getpid(), signal.SIGKILL)


class MortalStamps(Luckless):
    die = staticmethod(die_once)

    def encoded(self, pictures):
        self.die(self.recipe.folder.parent)
        return super().encoded(pictures)


class OnMachinesStamps(MortalStamps):
    die = staticmethod(lose_machine)


def test_a_worker_that_is_killed_costs_its_shard_and_the_bytes_are_those_of_one_machine(cluster, finished, tmp_path):  # noqa: F811
    assert on_ray(tmp_path / "plates", Mortal).accepted == 120 and (tmp_path / "died").exists()
    assert contents(tmp_path / "plates") == contents(finished)
    assert ray.is_initialized()  # it was there before, and stays


def test_a_machine_that_is_lost_costs_its_shard_and_the_bytes_are_those_of_one_machine(lost, finished, tmp_path):  # noqa: F811
    assert on_ray(tmp_path / "plates", OnMachines, workers=3).accepted == 120 and (tmp_path / "died").exists()
    assert contents(tmp_path / "plates") == contents(finished)


def test_anonymize_with_a_machine_lost(lost, tmp_path, small, one_secret):  # noqa: F811
    corpus = frames(tmp_path / "in", PLATES)
    anonymized(corpus, tmp_path / "1", Luckless, track_consistent=True)
    anonymized(corpus, tmp_path / "2", OnMachinesStamps, track_consistent=True, engine=RAY | {"workers": 3})
    assert files(tmp_path / "1") == files(tmp_path / "2") and (tmp_path / "died").exists()


def test_a_shard_that_kills_all_who_take_it_ends_the_run(cluster, finished, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(engines, "MOST_DEATHS", 1)
    with pytest.raises(Failure, match="engine.kind: 2 Ray workers died over one shard"):
        on_ray(tmp_path / "plates", Doomed)
    assert on_ray(tmp_path / "plates", Lucky).accepted == 120
    assert contents(tmp_path / "plates") == contents(finished)


def test_anonymize_with_a_worker_killed(cluster, tmp_path, small, one_secret):  # noqa: F811
    corpus = frames(tmp_path / "in", PLATES)
    anonymized(corpus, tmp_path / "1", Luckless, track_consistent=True)
    anonymized(corpus, tmp_path / "2", MortalStamps, track_consistent=True, engine=RAY)
    assert files(tmp_path / "1") == files(tmp_path / "2") and (tmp_path / "died").exists()
    secret = bytes(range(32))
    told = [secret, secret.hex().encode(), secret.hex(":").encode(), *(text.encode() for text in TEXTS)]
    written = [path for path in cluster.rglob("*") if path.is_file()]
    assert len(written) > 10  # logs and the like
    assert not [(path, some) for path in written for data in [path.read_bytes()] for some in told if some in data]


class Quoting(Luckless):
    """Fails with a message that quotes plates, as only a bug would."""

    def encoded(self, pictures):
        raise ZeroDivisionError(" ".join(item.annotation.text for _, items in pictures for item in items))


def test_what_fails_in_a_worker_is_told_to_nobody_but_the_caller(cluster, tmp_path, small):  # noqa: F811
    corpus = frames(tmp_path / "in", PLATES)
    with pytest.raises(ZeroDivisionError, match="ABC100"):  # which the command line leaves unsaid
        anonymized(corpus, tmp_path / "out", Quoting, engine=RAY)
    texts = [text.encode() for text in TEXTS]
    assert not [p for p in cluster.rglob("*") if p.is_file() for data in [p.read_bytes()] for t in texts if t in data]


def test_a_folder_that_other_machines_do_not_see_is_refused(tmp_path):
    with pytest.raises(Failure, match="is not there on .*storage that all its machines have"):
        engines._refuse_another_place(tmp_path, b"held by somebody", engines.versions())
    (tmp_path / ".lock.json").write_bytes(b"held by somebody")
    engines._refuse_another_place(tmp_path, b"held by somebody", engines.versions())
    with pytest.raises(Failure, match="other versions .*torch was 0.1"):
        engines._refuse_another_place(tmp_path, b"held by somebody", engines.versions() | {"torch": "0.1"})


@pytest.mark.parametrize(
    "nodes, gpus, options, expected",
    [
        ([{"CPU": 16}, {"CPU": 6}], 0, {}, (5, 4, 4)),  # four and one of four cores
        ([{"CPU": 2}], 0, {"workers": 2}, (2, 1, 1)),
        ([{"CPU": 8}], 0, {"workers": 3}, (3, 2, 2)),
        ([{"CPU": 8}], 0, {"workers": 50}, (8, 1, 1)),
        ([{"CPU": 2}], 0, {}, (1, 2, 2)),
        ([{"CPU": 32, "GPU": 8}, {"CPU": 8}], 1, {}, (8, 4, 4)),
        ([{"CPU": 4, "GPU": 2}], 1, {"workers": 1}, (1, 2, 2)),
    ],
)
def test_there_is_an_actor_for_each_gpu_or_for_every_so_many_cores(monkeypatch, nodes, gpus, options, expected):
    alive = [{"Alive": True, "Resources": node} for node in nodes] + [{"Alive": False, "Resources": {"CPU": 64}}]
    monkeypatch.setattr(ray, "nodes", lambda: alive)
    monkeypatch.setattr(engines, "_connected", lambda address: ray)
    team = engines.team(Engine(kind="ray", **options), shards=100, worth=1, gpus=gpus)
    assert (team.workers, team.threads, team.cores) == expected and team.ray and not team.here


def test_without_ray_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PlatemintError, match=r"engine.kind: Ray is not installed: pip install .*\[ray\]"):
        engines.team(Engine(kind="ray"), shards=1, worth=1)


@pytest.mark.parametrize("verb", ["generate", "anonymize"])
def test_the_command_starts_a_ray_of_its_own_and_ends_it_when_it_is_interrupted(tmp_path, verb, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    frames(tmp_path / "in", PLATES)
    out = tmp_path / "out"
    process = start(verb, out, "--engine", "ray", seconds=0.2)
    wait_for(lambda: commits(out), 120)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 130 and "Traceback" not in error and "same command again" in error, error
    assert 1 <= len(commits(out)) < 6 and not list(out.rglob("*.part"))
    again = start(verb, out, seconds=0)  # and one machine goes on
    assert again.communicate(timeout=60) and again.returncode == 0 and faults(verb, out) == []
