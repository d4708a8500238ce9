"""Object stores: runs, corpora and exports on s3:// and gs://, through fsspec.

A store has no folders, no renames and no locks; an object appears whole, and one can be written on condition that there is
none of its name. `place` tells what lies in a store from what lies here. Runs are written and verified in place; what is
read as a whole, such as a corpus, is fetched into a cache first.

universal_pathlib has such paths too, but its exists() and is_file() are False where a store cannot be reached, and then a run
would be begun anew instead of told that.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

from platemint.pipeline.plate import Failure, PlatemintError

LIBRARIES = {"s3": "s3fs", "gs": "gcsfs"}  # that know a store; an extra of the store's name installs it
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
}
CACHE = "PLATEMINT_CACHE"  # variable that names the folder for what is fetched
AT_ONCE = 256  # files that are on their way


def place(path: str | Path | ObjectPath) -> Path | ObjectPath:
    """A local path, or one on an object store. Raises PlatemintError for a URL of another kind."""
    if isinstance(path, ObjectPath) or "://" not in str(path):
        return path if isinstance(path, ObjectPath) else Path(path)
    url = urlsplit(str(path))
    if url.scheme == "file" and url.netloc in ("", "localhost"):
        return Path(unquote(url.path))
    if url.scheme not in LIBRARIES or not url.netloc:
        raise PlatemintError(f"{path}: files are read and written locally and on {', '.join(LIBRARIES)}://BUCKET/NAME")
    return ObjectPath(str(path).rstrip("/"))


@dataclass(frozen=True, order=True)
class ObjectPath:
    """A file or folder of an object store. What pathlib.Path has, too, does the same.

    Every use raises PlatemintError where the store's library or credentials are missing or access is refused, and Failure
    where the store does not answer.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(f"{self.url}/{name}")

    @property
    def bucket(self) -> str:
        return self.url.split("/")[2]

    @property
    def name(self) -> str:
        """The last part, "" for a whole bucket."""
        return self.url.split("://")[1].partition("/")[2].rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> ObjectPath:
        return ObjectPath(self.url.rpartition("/")[0]) if self.name else self

    def with_name(self, name: str) -> ObjectPath:
        return self.parent / name

    def relative_to(self, folder: ObjectPath) -> PurePosixPath:
        return PurePosixPath(self.url.removeprefix(f"{folder.url}/"))

    def exists(self) -> bool:
        return bool(self._info())

    def is_file(self) -> bool:
        return self._info().get("type") == "file"

    def is_dir(self) -> bool:
        return self._info().get("type") == "directory"

    def stat(self) -> SimpleNamespace:
        if not (info := self._info()):
            raise self._missing()
        return SimpleNamespace(st_size=info["size"])

    def read_bytes(self) -> bytes:
        try:
            with self._reached() as store:
                return store.cat_file(self.url)
        except FileNotFoundError:
            raise self._missing() from None

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb") -> io.BytesIO:
        """For reading: it is read whole, since a shard's many small columns take longer one by one."""
        return io.BytesIO(self.read_bytes())

    def write_bytes(self, data: bytes, new: bool = False) -> None:
        """new: raises FileExistsError where it is there already, which the store decides, however many write it."""
        try:
            with self._reached() as store:
                store.pipe_file(self.url, data, mode="create" if new else "overwrite")
        except FileNotFoundError as fault:
            raise PlatemintError(
                f"{self}: there is no bucket {self.bucket} ({fault}): make it, or name another"
            ) from None

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self._reached() as store:
                store.rm_file(self.url)
        except FileNotFoundError:
            if not missing_ok:
                raise self._missing() from None

    def iterdir(self) -> Iterator[ObjectPath]:
        with self._listed() as store:
            names = store.ls(self.url, detail=False)
        yield from (self / name for name in sorted({name.rstrip("/").rpartition("/")[2] for name in names}))

    def rglob(self, pattern: str) -> Iterator[ObjectPath]:
        """Files only: a store has no folders."""
        yield from (self / name for name in sorted(self.files()) if fnmatchcase(name.rpartition("/")[2], pattern))

    def files(self) -> dict[str, dict[str, Any]]:
        """{name below this folder: what fsspec says of it} of all files; {} where there is none."""
        found: dict[str, dict[str, Any]] = {}
        with self._listed() as store:
            root = store._strip_protocol(self.url)
            found = store.find(self.url, detail=True)
        files = {name.removeprefix(f"{root}/"): info for name, info in found.items() if info["type"] == "file"}
        return {name: info for name, info in files.items() if name and name[-1] != "/"}  # some tools mark folders so

    def _info(self) -> dict[str, Any]:
        """{} where there is nothing."""
        try:
            with self._reached() as store:
                return store.info(self.url)
        except FileNotFoundError:
            return {}

    def _missing(self) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.url)

    @contextmanager
    def _listed(self) -> Iterator[Any]:
        """As `_reached`, with nothing at all for a folder that is not there."""
        try:
            with self._reached() as store:
                yield store
        except FileNotFoundError:
            pass

    @contextmanager
    def _reached(self) -> Iterator[Any]:
        """The file system of fsspec. What goes wrong becomes one message; only what is missing or there is left as it is."""
        kind = self.url.split("://")[0]
        try:
            import fsspec

            yield fsspec.filesystem(kind, use_listings_cache=False)
        except (FileNotFoundError, FileExistsError):
            raise
        except ImportError:
            raise PlatemintError(
                f"{self}: {LIBRARIES[kind]} is not installed: pip install -c constraints.txt -e '.[{kind}]'"
            ) from None
        except Exception as fault:  # of libraries that are not ours to import
            said = (str(fault) or type(fault).__name__).splitlines()[0]
            if isinstance(fault, PermissionError) or said.startswith("Forbidden"):
                raise PlatemintError(
                    f"{self}: access is refused ({said}): the credentials have to be right, and to allow listing, reading, "
                    "writing and deleting there"
                ) from None
            if "Credentials" in type(fault).__name__:
                raise PlatemintError(f"{self}: no credentials ({said}): {CREDENTIALS[kind]}") from None
            raise Failure(
                f"{self}: the store does not answer as it should ({said}): run the same command again when it does, a run "
                "goes on where it was"
            ) from fault


# ------------------------------------------------------------------------------------------------- fetched and uploaded


def fetched(place: Path | ObjectPath, with_folder: bool = False) -> Path:
    """Where a file, or all of a folder, lies on this machine: itself, or a copy in the cache that is brought up to date.

    with_folder: of a file all that lies beside it as well, which it may name. The cache is the folder that PLATEMINT_CACHE
    names, or platemint in ~/.cache; what is there and has the size and time it has in the store is not fetched again.
    Raises PlatemintError where there is nothing, or a name leads out of the folder; Failure where there is no room.
    """
    if isinstance(place, Path):
        return place
    if not place.exists():
        raise PlatemintError(f"{place}: no such file or folder")
    alone = place.is_file()
    root = place.parent if alone else place
    files = {place.name: place._info()} if alone and not with_folder else root.files()
    home = _cache() / hashlib.sha256(root.url.encode()).hexdigest()[:16]
    folder = home / (root.name or root.bucket)
    if led := [name for name in files if ".." in name.split("/") or name.startswith("/") or "\\" in name]:
        raise PlatemintError(f"{root}: the name {led[0]!r} leads out of the folder: rename the object")
    try:
        home.mkdir(parents=True, exist_ok=True)
        _bring_up_to_date(root, files, folder, keep=alone and not with_folder)
    except OSError as fault:
        raise Failure(
            f"{home}: {place} cannot be fetched ({fault.strerror or fault}): {CACHE} names another place"
        ) from None
    return folder / place.name if alone else folder


def _cache() -> Path:
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "platemint")


def _bring_up_to_date(root: ObjectPath, files: dict[str, dict], folder: Path, keep: bool) -> None:
    """keep: files that are not among those named."""
    from filelock import FileLock
    from tqdm import tqdm

    with FileLock(folder.parent / "lock"):
        folder.mkdir(exist_ok=True)
        wanted = [name for name, info in files.items() if not _is_there(folder / name, info)]
        needed, free = sum(files[name]["size"] for name in wanted), shutil.disk_usage(folder).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"it takes {needed:,} bytes and {free:,} are free")
        for file in () if keep else [*folder.rglob("*")]:
            if file.is_file() and file.relative_to(folder).as_posix() not in files:
                file.unlink()
        with tqdm(total=len(wanted), desc=f"fetching {root}", unit=" files", disable=None) as bar:
            for start in range(0, len(wanted), AT_ONCE):
                _fetch(root, {name: files[name] for name in wanted[start : start + AT_ONCE]}, folder)
                bar.update(len(wanted[start : start + AT_ONCE]))


def _is_there(file: Path, info: dict) -> bool:
    return file.is_file() and file.stat().st_size == info["size"] and int(file.stat().st_mtime) == _changed(info)


def _changed(info: dict) -> int | None:
    """When an object was written, in seconds since 1970; None where its store does not tell."""
    time = info.get("LastModified") or info.get("mtime")
    return int(time.timestamp()) if time else None


def _fetch(root: ObjectPath, files: dict[str, dict], folder: Path) -> None:
    """Each file is there once it is whole."""
    parts = folder.parent / "parts"
    shutil.rmtree(parts, ignore_errors=True)  # what a killed process has left
    here = [parts / str(number) for number in range(len(files))]
    try:
        with root._reached() as store:
            store.get([(root / name).url for name in files], list(map(str, here)))
    except FileNotFoundError as fault:
        raise Failure(f"{root}: {fault}: was deleted while it was fetched: run the same command again") from None
    for part, (name, info) in zip(here, files.items()):
        if changed := _changed(info):
            os.utime(part, (changed, changed))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, folder / name)


def upload(folder: Path, out: ObjectPath, last: str) -> None:
    """Puts all files of a folder into a store. last: the name of the one that says that it is whole."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    names.remove(last)
    with out._reached() as store:
        store.put([str(folder / name) for name in names], [(out / name).url for name in names])
    (out / last).write_bytes((folder / last).read_bytes())
