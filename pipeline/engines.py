"""Who runs shards. A shard is a pure function of recipe and number, so every engine gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from platemint.pipeline.plate import Failure

Shard = TypeVar("Shard")
Commit = TypeVar("Commit")

_work: Callable | None = None  # a worker process's share of the run: handed over once, since networks are slow to load


def each(work: Callable[[Shard], Commit], shards: Sequence[Shard], workers: int) -> Iterator[Commit]:
    """work(shard) for every shard, in the order they finish: here, or in as many processes as there are workers.

    In processes `work` must pickle, and what it loads is loaded once a process.
    """
    workers = min(workers, len(shards))
    if workers <= 1:
        yield from map(work, shards)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    pool = Parallel(workers, "loky", "generator_unordered", batch_size=1, initializer=_take, initargs=(work,))
    try:
        yield from pool(delayed(_run)(shard) for shard in shards)
    except TerminatedWorkerError as error:
        raise Failure(
            f"engine.workers: one of {workers} worker processes was killed, most likely for want of memory: "
            "run the same command again with fewer workers, it continues after the last finished shard"
        ) from error


def _take(work: Callable) -> None:
    global _work
    _work = work


def _run(shard: Shard) -> Commit:
    return _work(shard)
