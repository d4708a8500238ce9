"""WebDataset: tar files of KEY.jpg with KEY.txt, or with a KEY.json that has the text in a field.

A key is a name up to its first dot. What is compressed cannot be read from the middle: unpack .tar.gz first.
Rewritten, a tar has the pictures, their texts and fields; links, and members of other kinds, are left out.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from pathlib import Path
from posixpath import basename, dirname, join, normpath, splitext

from platemint.pipeline.corpora.labels import Corpus, is_picture, split_named
from platemint.pipeline.corpora.records import Part, Record, of_member
from platemint.pipeline.corpora.rewording import Rewording
from platemint.pipeline.corpora.table_rows import columns_of
from platemint.pipeline.corpora.text_fields import is_of_source
from platemint.pipeline.parsing import parse_json
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.storage import MOST_BYTES

SUFFIX = ".tar"
MOST_TEXT = 1 << 20  # bytes

Span = tuple[int, int]  # of bytes in a file: from, how many


def chosen(root: Path, files: list[Path]) -> list[Path]:
    """All of them."""
    return files


def read(corpus: Corpus, files: Collection[Path]) -> None:
    """Pictures without a text are set aside. Raises PlatemintError for what is no tar file."""
    for file in files:
        members, texts, fields = _sorted(file)
        of_folder = split_named(file.relative_to(corpus.root).as_posix())
        for name in filter(is_picture, members):
            found = _fields(file, fields.get(_key(name), ""))
            columns = columns_of(tuple(found))
            if columns.places:
                corpus.put_aside(f"{file.relative_to(corpus.root)}/{name}", "", "has a plate's place, and is no crop")
                continue
            text = _text(file, texts[_key(name)]) if _key(name) in texts else found.get(columns.text)
            corpus.add_member(file, name, text, str(found.get(columns.split) or "") or of_folder)


def picture(file: Path, member: str) -> bytes:
    """The bytes of a member. Raises ValueError where there is none."""
    start, size = _members(file, file.stat().st_mtime_ns).get(member, (0, -1))
    if size < 0:
        raise ValueError("no such member")
    if size > MOST_BYTES:
        raise ValueError(f"file of more than {MOST_BYTES >> 20} MiB")
    return _bytes(file, start, size)


def _bytes(file: Path, start: int, size: int) -> bytes:
    with open(file, "rb") as opened:
        opened.seek(start)
        return opened.read(size)


def records(root: Path, file: Path) -> Iterator[Record]:
    """Of each picture one for each text that its sample has; two that differ are two readings of one plate."""
    of_file = file.relative_to(root).as_posix()
    members, texts, fields = _sorted(file)
    pictures = Counter(_key(name) for name in members if is_picture(name))
    for name in filter(is_picture, members):
        path, key, found = f"{of_file}/{name}", _key(name), _fields(file, fields.get(_key(name), ""))
        columns = columns_of(tuple(found))
        split = str(found.get(columns.split) or "") or split_named(of_file)
        said = [_text(file, texts[key])] if key in texts else []
        said += [found[columns.text]] if columns.text else []
        fault = _fault(name, pictures[key], bool(columns.places))
        for text in said or [None]:
            record = of_member(path, text, split)
            yield record._replace(fault=fault or record.fault)


def rename(name: str, picture: str, new: Rewording) -> str:
    """The new stem of a picture's name: one that changes has no dot, so that all of it is the sample's key."""
    swapped = new.swap(name, picture)
    return name if swapped == name else swapped.replace(".", "-")


def others(file: Path) -> list[str]:
    """The members that are left out where a tar is rewritten, each kind of them once."""
    members, texts, fields = _sorted(file)
    known = {*filter(is_picture, members), *texts.values(), *(name for name in fields.values() if _fields(file, name))}
    there = [member for member in _headers(file) if not member.isdir()]
    return sorted(
        {f"*{splitext(m.name)[1]}" for m in there if m.name.removeprefix("./") not in known or not m.isfile()}
    )


def rewrite(file: Path, name: str, target: Path, new: Rewording, picture: Callable[[str], bytes]) -> None:
    """Writes a tar with the samples whose pictures have a new path. picture: the new bytes of a path."""
    members, texts, fields = _sorted(file)
    paths = {_key(member): f"{name}/{member}" for member in filter(is_picture, members)}
    with tarfile.open(target, "w") as opened:
        for member in members:
            key = _key(member)
            if (path := paths.get(key, "")) not in new.paths:
                continue
            renamed = new.paths[path].removeprefix(new.swap(name) + "/")
            if path == f"{name}/{member}":
                _add(opened, renamed, picture(path))
            elif texts.get(key) == member:
                _add(opened, _key(renamed) + ".txt", new.text(path, str(_text(file, member))).encode())
            elif fields.get(key) == member and (found := _fields(file, member)):
                _add(opened, _key(renamed) + ".json", _reworded(found, path, new))


def parts(file: Path) -> Iterator[Part]:
    """Every member, the names that headers hold, and the bytes between and behind members."""
    end = 0
    for member in _headers(file):
        names = (member.name, member.linkname, member.uname, member.gname, *member.pax_headers.values())
        yield Part("header", "\n".join(names).encode(errors="surrogateescape"))
        size = _stored(member) if member.isreg() else 0
        blocks = -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        end = max(end, member.offset_data + blocks)
        if size:
            data = _bytes(file, member.offset_data, blocks)
            yield Part(member.name, data[:size])
            yield Part("padding", data[size:])
    yield Part("end", _bytes(file, end, max(0, file.stat().st_size - end)))


def _fault(name: str, pictures: int, placed: bool) -> str:
    """Why a picture's sample cannot be rewritten, "" where it can."""
    if normpath(name) != name or name.startswith(("/", "..")):
        return "its name leads out of the tar, or is not a plain one"
    if pictures > 1:
        return "its sample has several pictures"
    return "has a plate's place, and is no crop" if placed else ""


def _add(opened: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    opened.addfile(member, io.BytesIO(data))


def _reworded(fields: dict, path: str, new: Rewording) -> bytes:
    """Fields with the old texts replaced, without those that are about the picture's source."""
    text = columns_of(tuple(fields)).text
    kept = {key: new.anywhere(value, path) for key, value in fields.items() if key == text or not is_of_source(key)}
    if isinstance(fields.get(text), str):
        kept[text] = new.text(path, fields[text])
    return json.dumps(kept, ensure_ascii=False).encode()


def _sorted(file: Path) -> tuple[dict[str, Span], dict[str, str], dict[str, str]]:
    """Where each member lies; by key, the members that hold texts, and fields."""
    members = _members(file, file.stat().st_mtime_ns)
    texts = {_key(name): name for name in members if name.endswith(".txt")}
    return members, texts, {_key(name): name for name in members if name.endswith(".json")}


def _key(name: str) -> str:
    return join(dirname(name), basename(name).partition(".")[0])


def _text(file: Path, member: str) -> object:
    """The text in a member, or its bytes where these are none in UTF-8."""
    start, size = _members(file, file.stat().st_mtime_ns)[member]
    data = _bytes(file, start, min(size, MOST_TEXT))
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return data


def _fields(file: Path, member: str) -> dict:
    """The fields in a member, {} where it holds no JSON object, or there is none."""
    try:
        fields = parse_json(_text(file, member)) if member else {}
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


@lru_cache(maxsize=256)
def _members(file: Path, stamp: int) -> dict[str, Span]:
    """Where each file in a tar lies, as it was at a time, in order."""
    members = (member for member in _headers(file) if member.isfile() and not member.issparse())
    return {member.name.removeprefix("./"): (member.offset_data, member.size) for member in members}


def _headers(file: Path) -> list[tarfile.TarInfo]:
    """What a tar says of its members. Raises PlatemintError where it is damaged, or says what cannot be."""
    try:
        with tarfile.open(file, "r:") as opened:
            members = list(opened)
        end = file.stat().st_size
        if any(
            member.size < 0 or (member.isreg() and member.offset_data + _stored(member) > end) for member in members
        ):
            raise ValueError("a member reaches out of it")
        return members
    except (OSError, ValueError, OverflowError, tarfile.TarError) as fault:  # its headers are texts of numbers
        raise PlatemintError(f"{file}: not a whole tar file ({fault}): fetch or write it again") from None


def _stored(member: tarfile.TarInfo) -> int:
    """Bytes that a member takes: of a sparse one nobody knows."""
    return 0 if member.issparse() else member.size
