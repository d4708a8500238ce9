"""lock: an output folder is written by one process at a time.

The lock is the operating system's own, so that it goes with its process: what a kill leaves behind is taken over. On
storage without such locks it is a file with the process in it (see `filelock`).

An object store has no locks, and nothing there goes with a process. So who begins later takes over: the earlier one sees
that before it commits its next shard, and stops.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from platemint.pipeline.object_store import ObjectPath
from platemint.pipeline.plate import Failure, PlatemintError

LOCK, HOLDER = ".lock", ".lock.json"  # in the folder while it is held; HOLDER says by whom, for people
FILES = (LOCK, HOLDER)
TRIES = 20  # at reading HOLDER, within a second: it is written once the folder is held


@contextmanager
def held(folder: Path | ObjectPath) -> Iterator[bytes]:
    """Holds a folder, which is made where there is none; gives the record of that. Nothing is left of it afterwards.

    Raises Failure, at once, where another process holds it, and PlatemintError where it cannot be written.
    """
    if isinstance(folder, ObjectPath):
        with _claimed(folder) as record:
            yield record
        return
    lock, new = FileLock(folder / LOCK), not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        record = _sign(folder)
    except Timeout:
        raise Failure(
            f"{folder}: is being written by {shown_holder(folder)}: wait until that has ended, or end it, and run the same "
            "command again; or choose another --out"
        ) from None
    except OSError as fault:
        lock.release()
        raise PlatemintError(f"{folder}: cannot be written ({fault.strerror or fault}): choose another --out") from None
    try:
        yield record
    finally:
        for name in reversed(FILES):  # the lock itself last: its holder may still be looked up
            with suppress(OSError):
                (folder / name).unlink()
        if new:
            with suppress(OSError):  # it stays where anything is in it
                folder.rmdir()
        lock.release()


@contextmanager
def _claimed(folder: ObjectPath) -> Iterator[bytes]:
    if not folder.name:
        raise PlatemintError(f"{folder}: is a whole bucket: choose a folder in it")
    record = _sign(folder)
    try:
        yield record
    finally:
        with suppress(PlatemintError):
            if holder(folder) == record:
                (folder / HOLDER).unlink()


def holder(folder: Path | ObjectPath) -> bytes | None:
    """The record of who holds a folder, which no two starts have in common; None where nobody does."""
    try:
        return (folder / HOLDER).read_bytes()
    except OSError:
        return None


def _sign(folder: Path | ObjectPath) -> bytes:
    since = datetime.now().astimezone().isoformat(timespec="microseconds")
    record = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}).encode()
    (folder / HOLDER).write_bytes(record)
    return record


def shown_holder(folder: Path | ObjectPath) -> str:
    """The holder of a folder: "process 4711 on HOST since TIME"."""
    for _ in range(TRIES):
        try:
            holder = json.loads((folder / HOLDER).read_text(encoding="utf8"))
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):  # it has only just begun
            time.sleep(0.05)
    return "another process"
