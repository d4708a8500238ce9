"""Files that hold many pictures with their texts. A picture is read by its file and its member.

One module per format has:

SUFFIX                                  of its files
chosen(root, files) -> files            those of a folder's files with that suffix that count
read(corpus, files)                     puts their labels into a corpus
picture(file, member) -> bytes          one picture, or ValueError
records(root, file) -> records          its pictures as frames that one plate fills, each called file/member
rewrite(file, name, target, new, picture)   writes it with the pictures that have a new path, and other texts
others(file) -> names                   what of it is not understood, and left out where it is rewritten
parts(file) -> parts                    all that it holds, to be searched

and, where pictures have numbers and no names, member(number): how the one of a number is called. Where a folder's files
have an index beside them: INDEX, its name, and write_index(folder, files), which writes it. Where files are tables:
other_columns(folder, note), as in `datasets`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from posixpath import dirname, join
from tarfile import TarError

from platemint.pipeline.corpora import checks, name_texts
from platemint.pipeline.corpora.formats import lmdb, mds, parquet, webdataset
from platemint.pipeline.corpora.labels import Corpus, Label, counted
from platemint.pipeline.corpora.records import Dataset, Folder, Frame, Part, Unrecognised
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.object_store import ObjectPath
from platemint.pipeline.plate import UNREADABLE, PlatemintError
from platemint.pipeline.storage import TEMPORARY, read_file

CONTAINERS = {"parquet": parquet, "lmdb": lmdb, "webdataset": webdataset, "mds": mds}
_OF_SUFFIX = {module.SUFFIX: module for module in CONTAINERS.values()}


def find_containers(path: Path) -> dict[str, list[Path]]:
    """The files of each format below a folder, or the file itself; formats of which there is none are left out."""
    root, files = (path.parent, [path]) if path.is_file() else (path, sorted(path.rglob("*.*")))
    files = [file for file in files if file.suffix in _OF_SUFFIX and not file.name.startswith(".") and file.is_file()]
    found = {
        name: module.chosen(root, [file for file in files if file.suffix == module.SUFFIX])
        for name, module in CONTAINERS.items()
    }
    return {name: files for name, files in found.items() if files}


def is_container(path: Path | ObjectPath) -> bool:
    """Whether a path's suffix is that of a file of many pictures."""
    return path.suffix in _OF_SUFFIX


def evidence(files: list[Path]) -> str:
    """What a format was known by."""
    return f"{counted(len(files), 'file')} such as {files[0].name}"


def read_container(format: str, files: list[Path], path: Path, unreadable: Collection[str]) -> Corpus:
    """The labels of files of one format."""
    root = path.parent if path.is_file() else path
    corpus = Corpus(root, unreadable, format=format, evidence=evidence(files))
    CONTAINERS[format].read(corpus, files)
    return corpus


def data_of(label: Label) -> bytes:
    """The picture file that a plate is on. Raises ValueError with the reason where it cannot be read."""
    if not label.member:
        return read_file(label.path)
    try:
        return _OF_SUFFIX[label.path.suffix].picture(label.path, label.member)
    except OSError as fault:
        raise ValueError(f"cannot be read: {fault.strerror}") from None
    except PlatemintError:
        raise ValueError("the file that holds it is damaged") from None


def file_and_member(path: Path) -> tuple[Path, str]:
    """The file that holds a picture called file/member, and the member; the path itself and "" for any other."""
    for file in path.parents:
        if file.suffix in _OF_SUFFIX and file.is_file():
            return file, path.relative_to(file).as_posix()
    return path, ""


def held_data(file: Path, member: str) -> bytes:
    """A picture of a file, never one that it only points to. Raises ValueError where there is none, and OSError."""
    module = _OF_SUFFIX[file.suffix]
    try:
        return getattr(module, "embedded", module.picture)(file, member)
    except PlatemintError:
        raise ValueError("the file that holds it is damaged") from None


def open_containers(root: str | Path, format: str = "", unreadable: Iterable[str] = UNREADABLE) -> Dataset:
    """A folder's files of many pictures as a dataset: each picture a frame, called file/member, that one plate fills.

    Its notes are the files. Raises Unrecognised where there is none, PlatemintError where they are of several formats.
    """
    folder = Folder(root, (), unreadable)
    there = {folder.root / name for name in folder.files}
    found = {
        name: [f for f in files if f in there]
        for name, files in find_containers(folder.root).items()
        if format in ("", name)
    }
    found = {name: files for name, files in found.items() if files}
    if not found:
        raise Unrecognised(f"{root}: no files of {format or ', '.join(CONTAINERS)} here")
    if len(found) > 1:
        raise PlatemintError(f"{root}: looks like several formats ({', '.join(found)}); say which with --format")
    ((name, files),) = found.items()
    dataset = Dataset(folder, name, {})
    _fill(dataset, files)
    return dataset


def _fill(dataset: Dataset, files: list[Path]) -> None:
    module, folder = CONTAINERS[dataset.format], dataset.folder
    records, kinds = [], []
    for file in files:
        of_file = list(module.records(folder.root, file))
        name = file.relative_to(folder.root).as_posix()
        records += of_file
        if all(record.picture != name for record in of_file):  # else nothing of it counts
            dataset.notes[name] = ""
            kinds += [f"{name}/{kind}" for kind in module.others(file)]
    folder.pictures = {record.picture for record in records if not record.empty}
    indexes = {join(dirname(name), module.INDEX) for name in dataset.notes} if hasattr(module, "INDEX") else set()
    dataset.unknown = sorted([*({*folder.files} - {*dataset.notes} - indexes), *kinds])
    for link in folder.links:
        dataset.put_aside(link, "", folder.absence(link))
    checks.collect(dataset, records, {})
    dataset.named = name_texts.texts_in_names(dataset)


def reworded(dataset: Dataset, new_text: Callable[[Frame, str], str]) -> Rewording:
    """New texts and names. Pictures that have numbers are numbered anew, in order, without those that are not frames.

    Raises PlatemintError where two files get one name.
    """
    module = CONTAINERS[dataset.format]
    new = Rewording(dataset, new_text, getattr(module, "rename", None))
    files = {name: new.swap(name) for name in dataset.notes}
    if len({name.casefold() for name in files.values()}) < len(files):
        raise PlatemintError(f"{dataset.root}: two files would get one name; give their plates other texts")
    if hasattr(module, "member"):
        for name, members in _by_file(new.paths).items():
            new.paths |= {f"{name}/{old}": f"{files[name]}/{module.member(n)}" for n, old in enumerate(members)}
    return new


def write_containers(dataset: Dataset, new: Rewording, picture: Callable[[str], bytes], out: Path) -> None:
    """Writes a dataset's files below a folder, each whole or not at all. picture: the new bytes of a frame's picture."""
    module, written = CONTAINERS[dataset.format], defaultdict(list)
    for name in dataset.notes:
        target = out / new.swap(name)
        part = target.with_name(f".{target.name}{TEMPORARY}")
        target.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        module.rewrite(dataset.root / name, name, part, new, picture)
        with open(part, "rb") as whole:
            os.fsync(whole.fileno())
        part.replace(target)
        written[target.parent].append(target)
    for folder, files in written.items() if hasattr(module, "write_index") else ():
        module.write_index(folder, sorted(files))


def left_out(dataset: Dataset, paths: dict[str, str]) -> dict[str, list[int]]:
    """Which of a dataset's pictures, counted from 0 in each file, are not in its copy: {new file: numbers}.

    paths: of the pictures that are, old to new. Of files in which pictures have names nothing is said.
    """
    if not hasattr(CONTAINERS.get(dataset.format), "member"):
        return {}
    files = {_split(old)[0]: _split(new)[0] for old, new in paths.items()}
    gone = {
        files.get(name): [n for n, old in enumerate(members) if f"{name}/{old}" not in paths]
        for name, members in _by_file(dataset.folder.pictures).items()
    }
    return {name: numbers for name, numbers in gone.items() if name and numbers}


def origins(dataset: Dataset, gone: dict[str, list[int]]) -> dict[str, str]:
    """Which of a dataset's pictures each picture of its copy is: {new path: old}. gone: as `left_out` says."""
    module = CONTAINERS.get(dataset.format)
    found: dict[str, str] = {}
    for name, members in _by_file(dataset.folder.pictures).items() if hasattr(module, "member") else ():
        missing = {*gone.get(name, ())}
        kept = (f"{name}/{old}" for n, old in enumerate(members) if n not in missing)
        found |= {f"{name}/{module.member(n)}": old for n, old in enumerate(kept)}
    return found


def container_parts(file: Path) -> Iterator[Part] | None:
    """All that a file of many pictures holds, to be searched; None for any other. Raises ValueError where it is damaged."""
    module = _OF_SUFFIX.get(file.suffix)
    return _sound(module.parts(file)) if module and file.name != "lock.mdb" else None


def _sound(parts: Iterator[Part]) -> Iterator[Part]:
    try:
        yield from parts
    except (PlatemintError, TarError):
        raise ValueError("damaged: not all of it could be read") from None


def _by_file(paths: Iterable[str]) -> dict[str, list[str]]:
    """The members of each file whose pictures have numbers, in order."""
    members = defaultdict(list)
    for path in paths:
        name, member = _split(path)
        members[name].append(member)
    return {name: sorted(some, key=lambda member: (len(member), member)) for name, some in members.items()}


def _split(path: str) -> tuple[str, str]:
    name, _, member = path.rpartition("/")
    return name, member
