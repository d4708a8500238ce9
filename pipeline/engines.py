"""Who runs shards: processes of this machine, or a Ray cluster.

A shard is a pure function of recipe and number, so every engine gives the same bytes.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from platemint.pipeline import lock
from platemint.pipeline.object_store import ObjectPath
from platemint.pipeline.plate import Failure, Interrupted, PlatemintError
from platemint.pipeline.recipe import Engine
from platemint.pipeline.versions import changed, versions

Shard = TypeVar("Shard")
Commit = TypeVar("Commit")

# Threads of one process share its networks and start at once; but only one of them runs Python at a time, so that more
# than a few wait for each other. Torch lets go of Python, which is why two use two cores.
MOST_THREADS = 4
MOST_DEATHS = 3  # of workers over one shard: what kills more is no accident
NAMESPACE = "platemint"  # of a connection to Ray that is ours
OBJECTS = 100 << 20  # bytes of a Ray that is started here: it hands over shards and commits, and no picture

_work: Callable | None = None  # a worker process's share of the run: handed over once, since networks are slow to load
_number = None  # the lock on this worker's number, held as long as the process lives


@dataclass(frozen=True)
class Team:
    """So many workers, each with so many batches in work at a time. gpus: there are; each worker sees one.

    ray: they are actors of Ray, of so many cores each; else processes, of which 1 is the one that asks.
    """

    workers: int
    threads: int
    gpus: int = 0
    ray: bool = False
    cores: float = 0.0

    @property
    def here(self) -> bool:
        """Whether shards are run in the process that asks."""
        return self.workers <= 1 and not self.ray

    def each(
        self, work: Callable[[Shard], Commit], shards: Sequence[Shard], folder: Path | ObjectPath
    ) -> Iterator[Commit]:
        """work(shard) for every shard, in the order they finish. folder: the run's, which is held (see `lock`).

        Elsewhere than here `work` must pickle, and what it loads is loaded once a worker. Raises Interrupted where a
        SIGINT has asked to stop: shards that were begun are finished first, unless a second one says at once.
        """
        done = 0
        with _interruptible() as asked:
            coming = _on_ray if self.ray else _in_processes if self.workers > 1 else _one_by_one
            for commit in coming(self, work, shards, asked, folder) if shards else ():
                done += 1
                yield commit
            if done < len(shards):
                raise Interrupted(
                    f"{folder}: stopped as asked; {done:,} shards were finished now and {len(shards) - done:,} are left. "
                    "Run the same command again: it goes on with them"
                )


def team(
    options: Engine, shards: int, worth: int, gpus: int = 0, cores_each: int = MOST_THREADS, batch_cores: int = 1
) -> Team:
    """Who shall run so many shards, as a recipe says. cores_each: of a worker without a GPU. batch_cores: that a batch takes.

    worth: workers that it is worth starting: one takes some three seconds to load torch and the networks. Raises
    PlatemintError where Ray is not installed, and Failure where its cluster does not answer.
    """
    if options.kind == "ray" and shards:
        return _ray_team(options, shards, gpus, cores_each, batch_cores)
    workers = processes(options.workers, shards, worth, gpus, cores_each)
    return Team(workers, threads(workers, batch_cores), gpus)


def processes(workers: int | str, shards: int, worth: int, gpus: int = 0, cores_each: int = MOST_THREADS) -> int:
    """How many processes shall run so many shards; 1 is the one that asks.

    workers: as many as that, or "auto": one for each GPU or, without any, for every so many cores, but no more than it
    is worth starting.
    """
    if workers == "auto":
        workers = min(gpus or -(-_cores() // cores_each), worth)
    return max(1, min(int(workers), shards))


def threads(processes: int, cores_each: int = 1) -> int:
    """How many batches each of so many processes works on at a time, when a batch takes so many cores."""
    return max(1, min(MOST_THREADS, _cores() // (processes * cores_each)))


def in_threads(work: Callable[[Any], Any], items: Iterable, threads: int) -> Iterator:
    """work(item) of every item, in their order, so many at a time. So few are waiting that a run can be interrupted soon."""
    coming: deque = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            coming.append(pool.submit(work, item))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _cores() -> int:
    """Cores that this process may use: affinity and the limits of its container count."""
    from joblib import cpu_count

    return cpu_count()


# ------------------------------------------------------------------------------------------------------- interruptions


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Is set by the first SIGINT; the second one is a KeyboardInterrupt. Only the main thread can be asked."""
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before == signal.SIG_IGN:
        yield asked
        return

    def ask(*_) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        os.write(2, b"\nstopping when the shards in work are finished; Ctrl-C once more stops at once\n")

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _ignored() -> Iterator[None]:
    """Processes started in here ignore SIGINT: a terminal sends it to all that it runs, and only one shall decide.

    A mask would not do: multiprocessing's resource tracker takes SIGINT out of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# -------------------------------------------------------------------------------------------------------- this machine


def _one_by_one(
    team: Team, work: Callable, shards: Sequence, asked: threading.Event, folder: Path | ObjectPath
) -> Iterator:
    for shard in shards:
        if asked.is_set():
            return
        yield work(shard)


def _in_processes(
    team: Team, work: Callable, shards: Sequence, asked: threading.Event, folder: Path | ObjectPath
) -> Iterator:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with TemporaryDirectory() as numbers:
        begin = (work, Path(numbers), team.workers, team.gpus)
        pool = Parallel(team.workers, "loky", "generator_unordered", batch_size=1, pre_dispatch="n_jobs",
                        initializer=_begin, initargs=begin)  # fmt: skip
        try:
            with _ignored():
                coming = pool(delayed(_run)(shard) for shard in shards if not asked.is_set())
            yield from coming
        except TerminatedWorkerError as error:
            raise Failure(
                f"engine.workers: one of {team.workers} worker processes was killed, most likely for want of memory: "
                "run the same command again with fewer workers, it continues after the last finished shard"
            ) from error
        finally:  # else they stay for minutes, with their networks and open files
            get_reusable_executor(reuse=True).shutdown(kill_workers=True)


def _begin(work: Callable, numbers: Path, workers: int, gpus: int) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpus:  # before torch looks for them
        there = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        there = there if there[0] else [str(gpu) for gpu in range(gpus)]
        os.environ["CUDA_VISIBLE_DEVICES"] = there[_own_number(numbers, workers) % gpus]


def _own_number(numbers: Path, workers: int) -> int:
    """The least number that no living worker has: one that takes a dead one's place takes its number too."""
    global _number
    from filelock import FileLock, Timeout

    for number in range(workers):
        _number = FileLock(numbers / str(number))
        with suppress(Timeout):
            _number.acquire(timeout=0)
            return number
    return 0


def _run(shard: Shard) -> Commit:
    return _work(shard)


# ----------------------------------------------------------------------------------------------------------------- Ray


def _ray_team(options: Engine, shards: int, gpus: int, cores_each: int, batch_cores: int) -> Team:
    """One actor for each GPU or, where the networks run without, for every so many cores of the cluster."""
    nodes = [node["Resources"] for node in _connected(options.address).nodes() if node["Alive"]]
    cores = min(cores_each, max(node.get("CPU", 0) for node in nodes))
    wanted = shards if options.workers == "auto" else min(int(options.workers), shards)
    if gpus:
        room = sum(int(node.get("GPU", 0)) for node in nodes)
        cores = min([cores, *(node.get("CPU", 0) / node["GPU"] for node in nodes if node.get("GPU"))])
    else:
        each = sum(node.get("CPU", 0) for node in nodes) / wanted  # cores, where there are so many actors
        cores = cores if options.workers == "auto" else min(cores, max(1.0, each // 1))
        room = sum(int(node.get("CPU", 0) // cores) for node in nodes)
    return Team(max(1, min(wanted, room)), max(1, int(cores // batch_cores)), gpus, True, cores)


def _connected(address: str):
    """Ray, connected to a cluster or, without an address, to one of this machine that ends with the run."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise PlatemintError(
            "engine.kind: Ray is not installed: pip install -c constraints.txt -e '.[ray]', on every machine"
        ) from None
    if ray.is_initialized():
        return ray
    here = {} if address else {"num_cpus": _cores(), "object_store_memory": OBJECTS, "include_dashboard": False}
    try:
        with _ignored():
            ray.init(address or "local", namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, RuntimeError, ValueError) as fault:
        raise Failure(
            f"engine.address: no Ray answers at {address or 'this machine'} ({str(fault).splitlines()[0]}): see that "
            "`ray status` works there, and that Python and Ray have the same versions there as here"
        ) from None
    return ray


def _on_ray(
    team: Team, work: Callable, shards: Sequence, asked: threading.Event, folder: Path | ObjectPath
) -> Iterator:
    """A call for each shard, one at a time for each actor: no more are on their way."""
    import ray

    actors, left = _Actors(team, work, folder), deque(shards)
    try:
        while actors.busy or (left and not asked.is_set()):
            while left and actors.idle and not asked.is_set():
                actors.give(left.popleft())
            for shard, commit in actors.ended():
                if commit is None:
                    left.appendleft(shard)
                else:
                    yield commit
    finally:
        actors.end()
        if ray.get_runtime_context().namespace == NAMESPACE:  # else Ray was there before
            ray.shutdown()


class _Actors:
    """The actors of a run. idle: those that wait for a shard. at: {call: (its actor, its shard, None where it begins)}.

    One that dies gives its shard back, and another one is asked for in its place, which comes once there is room for it.
    Ray's own retries would keep the shard waiting for that, for ever where a node is gone.
    """

    def __init__(self, team: Team, work: Callable, folder: Path | ObjectPath):
        import ray

        self.ray, self.folder = ray, folder
        self.make = ray.remote(num_cpus=team.cores, num_gpus=1 if team.gpus else 0)(_Actor)
        blob = ray.put(ray.cloudpickle.dumps(work))
        self.beginning = blob, os.getcwd(), folder, lock.holder(folder), versions()
        self.idle: list = []
        self.at: dict = {}
        self.deaths: Counter = Counter()  # by the number of a shard; None: of actors that had none
        for _ in range(team.workers):
            self._start()

    @property
    def busy(self) -> bool:
        return any(shard is not None for _, shard in self.at.values())

    def give(self, shard) -> None:
        actor = self.idle.pop()
        self.at[actor.run.remote(shard)] = actor, shard

    def ended(self) -> Iterator[tuple]:
        """Waits a second for an actor to be done: its shard with the commit, or with None where it has to be made again."""
        for call in self.ray.wait([*self.at], num_returns=1, timeout=1.0)[0]:
            actor, shard = self.at.pop(call)
            result = self._result(call, actor, shard)
            if result is not None:
                self.idle.append(actor)
            if shard is not None:
                yield shard, result

    def end(self) -> None:
        for actor in [*self.idle, *(actor for actor, _ in self.at.values())]:
            self.ray.kill(actor)

    def _start(self) -> None:
        actor = self.make.remote()
        self.at[actor.begin.remote(*self.beginning)] = actor, None

    def _result(self, call, actor, shard):
        """What a call has come to, None where its actor has died. Raises what it has raised."""
        try:
            result = self.ray.get(call)
        except self.ray.exceptions.RayTaskError as fault:
            raise Failure(f"engine.kind: a Ray worker could not run a shard ({fault.cause!r})") from None
        except self.ray.exceptions.RayError as fault:
            self._replace(actor, shard, fault)
            return None
        if isinstance(result, BaseException):
            raise result
        return result

    def _replace(self, actor, shard, fault: Exception) -> None:
        self.ray.kill(actor)  # where it is merely out of reach it shall not go on
        number = None if shard is None else shard.number
        self.deaths[number] += 1
        if self.deaths[number] > MOST_DEATHS:
            raise Failure(
                f"{self.folder}: engine.kind: {MOST_DEATHS + 1} Ray workers died over one shard, most likely for want of "
                "memory: run the same command again with fewer workers, it goes on after the last finished shard"
            ) from fault
        self._start()


class _Actor:
    """A worker of a Ray cluster. It gives faults back as results: Ray would log them, and they may quote plates."""

    def begin(
        self, work: bytes, cwd: str, folder: Path | ObjectPath, holder: bytes, made_with: dict
    ) -> BaseException | bool:
        """Loads what shards need, once. holder: what the run's folder is held with, by which it is known here too."""
        try:
            with suppress(OSError):  # relative paths count from there
                os.chdir(cwd)
            _refuse_another_place(folder, holder, made_with)
            self.work = pickle.loads(work)
        except Exception as fault:
            return fault
        return True

    def run(self, shard: Shard) -> Commit | BaseException:
        try:
            return self.work(shard)
        except Exception as fault:
            return fault


def _refuse_another_place(folder: Path | ObjectPath, holder: bytes, made_with: dict) -> None:
    """Raises Failure on a machine that has not the run's folder, or would make other bytes."""
    node = socket.gethostname()
    if lock.holder(folder) != holder:
        raise Failure(
            f"{folder}: is not there on {node}: a cluster needs storage that all its machines have at one path, or an object "
            "store, for the output and for what is read"
        )
    if changes := changed(made_with, versions()):
        raise Failure(
            f"{node}: has other versions than where the run was started ({'; '.join(changes)}): install those"
        )
