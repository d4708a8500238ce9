"""Who runs shards. A shard is a pure function of recipe and number, so every engine gives the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from platemint.pipeline.plate import Failure

Shard = TypeVar("Shard")
Commit = TypeVar("Commit")

# Threads of one process share its networks and start at once; but only one of them runs Python at a time, so that more
# than a few wait for each other. Torch lets go of Python, which is why two use two cores.
MOST_THREADS = 4

_work: Callable | None = None  # a worker process's share of the run: handed over once, since networks are slow to load
_number = None  # the lock on this worker's number, held as long as the process lives


def processes(workers: int | str, shards: int, worth: int, gpus: int = 0, cores_each: int = MOST_THREADS) -> int:
    """How many processes shall run so many shards; 1 is the one that asks.

    workers: as many as that, or "auto": one for each GPU or, without any, for every so many cores, but no more than it
    is worth starting: a process takes some three seconds to load torch and the networks.
    """
    if workers == "auto":
        workers = min(gpus or -(-_cores() // cores_each), worth)
    return max(1, min(int(workers), shards))


def threads(processes: int, cores_each: int = 1) -> int:
    """How many batches each of so many processes works on at a time, when a batch takes so many cores."""
    return max(1, min(MOST_THREADS, _cores() // (processes * cores_each)))


def _cores() -> int:
    """Cores that this process may use: affinity and the limits of its container count."""
    from joblib import cpu_count

    return cpu_count()


def each(work: Callable[[Shard], Commit], shards: Sequence[Shard], workers: int, gpus: int = 0) -> Iterator[Commit]:
    """work(shard) for every shard, in the order they finish: here, or in as many processes as there are workers.

    In processes `work` must pickle, and what it loads is loaded once a process. gpus: there are; each process sees one.
    """
    workers = min(workers, len(shards))
    if workers <= 1:
        yield from map(work, shards)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with TemporaryDirectory() as numbers:
        begin = (work, Path(numbers), workers, gpus)
        pool = Parallel(workers, "loky", "generator_unordered", batch_size=1, initializer=_begin, initargs=begin)
        try:
            yield from pool(delayed(_run)(shard) for shard in shards)
        except TerminatedWorkerError as error:
            raise Failure(
                f"engine.workers: one of {workers} worker processes was killed, most likely for want of memory: "
                "run the same command again with fewer workers, it continues after the last finished shard"
            ) from error
        finally:  # else they stay for minutes, with their networks and open files
            get_reusable_executor(reuse=True).shutdown(kill_workers=True)


def _begin(work: Callable, numbers: Path, workers: int, gpus: int) -> None:
    global _work
    _work = work
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
