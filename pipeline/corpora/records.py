"""What annotated datasets are read into, and the folder they are read from."""

from __future__ import annotations

import math
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from posixpath import basename, dirname, join, normpath, splitext
from typing import NamedTuple
from urllib.parse import unquote

from platemint.pipeline.corpora.labels import (
    PICTURES,
    Corners,
    counted,
    decoded,
    is_picture,
    read_text,
    split_named,
    unused,
    words,
)
from platemint.pipeline.plate import UNREADABLE, PlatemintError
from platemint.pipeline.storage import open_image

TEXT_KEYS = ("text", "plate", "plate_text")  # attributes that hold a plate's text
PLATE = re.compile(r"plate|licen[cs]e|matricula|placa|\blp\b", re.IGNORECASE)  # in names of classes: these are plates
MOST_PIXELS = 64_000_000  # of a frame
ORIENTATION = 0x0112  # EXIF; 5 to 8 lie on their side
AGREED = 0.6  # IoU from which on a plate's box and its corners say the same: boxes are drawn with some margin
_PEEK = 4096  # bytes that show what a file is
ABSOLUTE = re.compile(r"/|[A-Za-z]+:")


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated plate in one picture.

    text: normalised (see `pipeline.plate.normalise`), also where platemint cannot spell it; "" where the annotation has
    none or says unreadable. corners: 4 points x, y in pixels of the upright picture (as `pipeline.storage.read_picture`
    gives it): upper left, upper right, lower right, lower left; a box becomes its four corners; () is a crop: the plate
    is the whole picture.

    drawn: the corners as the annotation has them. labelled: whether it has a place for a text. read: the text is what
    our reader reads, the annotation having none. found: by a detector, and in no annotation. row: where the annotation
    stands in its file, "" where that says nothing.
    """

    text: str
    corners: Corners = ()
    drawn: Corners = field(default=(), compare=False)
    labelled: bool = field(default=True, compare=False)
    read: bool = field(default=False, compare=False)
    found: bool = field(default=False, compare=False)
    row: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture, its path below the root with / between folders, and its plates."""

    path: str
    annotations: tuple[Annotation, ...]
    split: str


@dataclass
class Dataset:
    """An annotated dataset as it lies in a folder. format: a name in `FORMATS`.

    notes: its annotation files, each with the picture that it alone belongs to, "" where it is about several. lists:
    files that name pictures, such as those of a split. unknown: files that are none of these. set_aside: what cannot
    be used, as {"path", "row", "reason"}, with names as they are, which may be plates. A picture with one unusable
    annotation is set aside as a whole: it would be published with a plate that nobody replaced. lost: the texts of the
    plates that are set aside with their annotations, "" for none. named: texts that only names of pictures hold. Names
    with one of these say "unreadable" when rewritten.

    left_over: how many annotations of plates belong to no picture. While there are any, withheld holds the pictures
    without a plate in any annotation, which are no frames then: each may be the one that is meant. classes: of plates,
    where the format has classes.
    """

    folder: Folder
    format: str
    notes: dict[str, str]
    lists: list[str] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    set_aside: list[dict[str, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    left_over: int = 0
    withheld: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        return self.folder.root

    @property
    def unannotated(self) -> list[Frame]:
        """Pictures without a plate in any annotation, which may yet show one."""
        return [frame for frame in self.frames if not frame.annotations]

    @property
    def evidence(self) -> str:
        """What the format was known by. It names no file: files of one picture may be called as its plate."""
        return counted(len(self.notes), "annotation file") if self.notes else "names of pictures"

    def sharing(self, picture: str) -> list[str]:
        """The pictures that an annotation file of a picture is about: also others that differ in their suffix."""
        return [p for p in self.folder.fellows(picture) if p == picture or p not in self._owners] or [picture]

    @cached_property
    def _owners(self) -> frozenset[str]:
        return frozenset(self.notes.values())

    def put_aside(self, path: str, row: str, reason: str) -> None:
        self.set_aside.append(unused(path, row, reason))


class Refused(PlatemintError):
    """A fault of one annotation file that makes nonsense of all of them."""


class Unrecognised(PlatemintError):
    """A folder in none of the known formats."""


class Record(NamedTuple):
    """One annotation as a format finds it, not yet checked. picture: path below the root, whether it exists or not.

    corners: 4 points in any order, () for a crop. fault: why it cannot be used. kind: the class it is of, "" for a
    plate. declared: width and height of the picture as the annotation has them, () for none; corners are in its pixels.
    empty: it names a picture that is not there, and nothing in it.
    """

    picture: str
    text: str | None = None
    corners: Corners = ()
    row: str = ""
    split: str = ""
    fault: str = ""
    kind: str = ""
    declared: tuple[float, ...] = ()
    empty: bool = False


class Part(NamedTuple):
    """A part of a file that holds many pictures, as it is searched. numbers: it holds fractions or times alone."""

    name: str
    data: bytes
    numbers: bool = False


def of_member(picture: str, text: object, split: str = "") -> Record:
    """The record of a picture of a file that holds many, which one plate fills. text: what stands there, None for none."""
    if text is None or isinstance(text, str):
        return Record(picture, text, split=split)
    shown = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return Record(picture, shown, split=split, fault="the label is not text")


class Folder:
    """The files below a root as paths relative to it, with / between folders. Links are not followed.

    classes: names or numbers of the classes that are plates, in lower case; empty: those that speak of plates. listed:
    the names of classes that annotation files list, whether in use or not. claims: by which names annotation files mean
    pictures, {(annotation file, picture): names}. unreadable: words that stand where a text should.
    """

    def __init__(
        self, root: str | Path, classes: Iterable[str] = (), unreadable: Iterable[str] = UNREADABLE, note: str = ""
    ):
        """note: the one annotation file that counts, "" for all.

        Raises PlatemintError where there is no such folder or a part of it cannot be read.
        """
        self.root = Path(root)
        self.classes = frozenset(name.casefold() for name in classes)
        self.unreadable = tuple(unreadable)
        self.listed: set[str] = set()
        self.claims: dict[tuple[str, str], set[str]] = {}
        self.files: list[str] = []
        self.links: list[str] = []
        if not self.root.is_dir():
            raise PlatemintError(f"{root}: no such folder; give the folder of a dataset")
        for place, folders, files in os.walk(self.root, onerror=_unreadable):
            for path in (Path(place, name) for name in sorted(folders + files)):
                if path.is_symlink():
                    self.links.append(path.relative_to(self.root).as_posix())
                elif path.is_file():
                    self.files.append(path.relative_to(self.root).as_posix())
        self.pictures = {path for path in self.files if is_picture(path)}
        if note:
            self.files = sorted({*self.pictures, note})
        self._named: dict[str, list[str]] = {}
        for path in sorted(self.pictures):
            for name in dict.fromkeys(basename(spelled(path)) for spelled in (*_SPELLINGS, _bare)):
                self._named.setdefault(name, []).append(path)
        self._shapes: dict[str, tuple[int, int, int]] = {}

    def speaks_of_plates(self, name: str) -> bool:
        """Whether a class is one of plates, by its name."""
        return name.casefold() in self.classes if self.classes else bool(PLATE.search(name))

    def of_kind(self, *suffixes: str) -> list[str]:
        named = (path for path in self.files if path.lower().endswith(suffixes))
        return [path for path in named if not basename(path).startswith("._")]  # what macOS keeps about a file

    def text(self, path: str) -> str:
        """A file's text with its line ends as they are. Raises PlatemintError where it cannot be read."""
        return read_text(self.root / path)

    def peek(self, path: str, most: int = _PEEK) -> str:
        """The first lines of a file, to tell what it is; "" where it cannot be read."""
        try:
            with open(self.root / path, "rb") as file:
                return decoded(file.read(most), "replace")
        except OSError:
            return ""

    def size(self, picture: str) -> tuple[int, int]:
        """Width and height in pixels, upright, from the file's header alone. Raises ValueError for no picture."""
        width, height, orientation = self.shape(picture)
        return (height, width) if orientation >= 5 else (width, height)

    def shape(self, picture: str) -> tuple[int, int, int]:
        """Width and height as they are stored, and the EXIF orientation, 1 to 8. Raises ValueError for no picture."""
        if picture not in self._shapes:
            self._shapes[picture] = _shape(self.root / picture)
        return self._shapes[picture]

    def find(self, name: str, note: str, any_suffix: bool = True) -> str:
        """The picture that an annotation file means by a name: below its own folder or one above, or like it (see `_like`).

        Where there is none, or several: the path it would have beside the annotation file. any_suffix: a picture that
        is called so but for its suffix will do.
        """
        name, place = name.replace("\\", "/"), dirname(note)
        expected = normpath(join(place, name)) if name else ""
        while (path := normpath(join(place, name))) not in self.pictures and place:
            place = dirname(place)
        if path not in self.pictures:
            path = self._like(name, note, any_suffix) if name and not self._linked(expected) else ""
        if path:
            self.claims.setdefault((note, path), set()).add(normpath(name))
        return path or expected

    def beside(self, note: str) -> str:
        """The picture with the stem of an annotation file, the nearest of several, "" for none."""
        for spelled in (_bare_exact, _bare):
            name = spelled(stem(note) + ".jpg")
            alike = [p for p in self._named.get(name, ()) if basename(spelled(p)) == name]
            if alike:
                return self._nearest([*{splitext(p)[0]: p for p in reversed(alike)}.values()], note)
        return ""

    def fellows(self, picture: str) -> list[str]:
        """The pictures of one folder and stem."""
        name = _bare(picture)
        return [p for p in self._named.get(basename(name), ()) if _bare(p) == name]

    def paired(
        self, suffix: str, fits: Callable[[str], bool], named: Callable[[str], str] = lambda _: ""
    ) -> dict[str, str]:
        """Annotation files that each belong to a picture: of their stem, else the one that they name.

        {} where the text of none fits.
        """
        paired = {note: self.beside(note) for note in self.of_kind(suffix)}
        for note in [note for note, picture in paired.items() if not picture]:
            picture = self.find(name, note) if (name := named(self.peek(note))) else ""
            paired[note] = picture if picture in self.pictures else ""
        if not any(fits(self.peek(note)) for note, picture in paired.items() if picture):
            return {}
        return {n: picture or splitext(n)[0] for n, picture in paired.items() if picture or fits(self.peek(n))}

    def absence(self, path: str) -> str:
        """Why a path is none of the pictures."""
        if not path:
            return "no file is named"
        if path.startswith(("/", "../")):
            return "outside the dataset's folder"
        if self._linked(path):
            return "a link, which is not followed"
        return "no such picture, or several"

    def _linked(self, path: str) -> bool:
        return any(path == link or path.startswith(link + "/") for link in self.links)

    def _like(self, name: str, note: str, any_suffix: bool) -> str:
        """The picture whose path ends most like a name from elsewhere, "" for none or several.

        Of the two paths one has to be the end of the other, unless the name is a path of another machine. Then, in this
        order: as they are; in any case, Unicode form, with or without %XX; with any suffix of a picture.
        """
        for spelled in (*_SPELLINGS, _bare) if any_suffix else _EXACT:
            wanted = _parts(spelled(name))
            alike = {
                path: shared
                for path in self._named.get(wanted[-1], ())
                if (shared := _shared_end(wanted, _parts(spelled(path)), bool(ABSOLUTE.match(name))))
            }
            if alike:
                most = max(alike.values())
                return self._nearest([path for path, shared in alike.items() if shared == most], note)
        return ""

    def _nearest(self, pictures: list[str], note: str) -> str:
        """Of several pictures the one whose folders resemble the annotation file's most; "" where that is not one."""

        def likeness(path: str) -> tuple[bool, int]:
            return dirname(path) == dirname(note), len({*words(dirname(path))} & {*words(splitext(note)[0])})

        best = max(map(likeness, pictures), default=None)
        nearest = [path for path in pictures if likeness(path) == best]
        return nearest[0] if len(nearest) == 1 else ""


def stem(path: str) -> str:
    return splitext(basename(path))[0]


def folded(path: str) -> str:
    """A path as it is compared with those of other machines: any case, Unicode form, with or without %XX."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", unquote(path)).casefold())


def _bare_exact(path: str) -> str:
    return splitext(path)[0] if path.lower().endswith(PICTURES) else path


def _bare(path: str) -> str:
    return folded(_bare_exact(path))


_EXACT = (str, folded)
_SPELLINGS = (*_EXACT, _bare_exact)


def _parts(path: str) -> list[str]:
    """The folders and the name of a path, without what leads out of the dataset."""
    parts = [part for part in normpath(path).split("/") if part.strip(".") and not part.endswith(":")]
    return parts or [""]


def _shared_end(wanted: list[str], there: list[str], absolute: bool) -> int:
    """How many parts two paths share at their ends; 0 where they cannot mean one picture."""
    pairs = zip(reversed(wanted), reversed(there))
    shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(wanted), len(there)))
    if shared in (len(wanted), len(there)):
        return shared
    splits = {split_named("/".join(parts[:-shared])) for parts in (wanted, there)} - {""} if shared else set()
    return shared if absolute and len(splits) < 2 else 0


def numbers(texts: Iterable[object]) -> list[float]:
    """Raises ValueError where one is no finite number."""
    try:
        values = [float(text) for text in texts]
    except OverflowError:  # JSON holds integers of any length
        values = [math.inf]
    if not all(map(math.isfinite, values)):
        raise ValueError("a coordinate is not finite")
    return values


def declared_size(width: object, height: object) -> tuple[float, ...]:
    """The size of a picture that an annotation declares, () where it is not two numbers above 0."""
    try:
        size = tuple(numbers((width, height)))
    except (TypeError, ValueError):
        return ()
    return size if min(size) > 0 else ()


def box(x1: float, y1: float, x2: float, y2: float) -> Corners:
    """The corners of an upright box from any two opposite ones: they are swapped in some datasets."""
    (x1, x2), (y1, y2) = sorted((x1, x2)), sorted((y1, y2))
    return (x1, y1), (x2, y1), (x2, y2), (x1, y2)


def bounds(corners: Corners) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of the upright box around points."""
    (x1, y1), (x2, y2) = (tuple(map(end, zip(*corners))) for end in (min, max))
    return x1, y1, x2, y2


def area(corners: Corners) -> float:
    """Of the upright box around points."""
    x1, y1, x2, y2 = bounds(corners)
    return (x2 - x1) * (y2 - y1)


def shared_area(a: Corners, b: Corners) -> float:
    """The area that the upright boxes around both share."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = bounds(a), bounds(b)
    return max(0, min(ax2, bx2) - max(ax1, bx1)) * max(0, min(ay2, by2) - max(ay1, by1))


def box_iou(a: Corners, b: Corners) -> float:
    """Of the upright boxes around both; 0 where one is the whole picture, or both are nothing."""
    if not a or not b:
        return 0.0
    both = shared_area(a, b)
    return both / ((area(a) + area(b) - both) or 1)


def agreeing(corners: Corners, box: Corners) -> Corners:
    """The corners. Raises ValueError where they say another place than the box does."""
    if box_iou(corners, box) < AGREED:
        raise ValueError("the plate's box and its corners lie apart")
    return corners


def points(values: list[float]) -> Corners:
    """x, y, x, y, ... as points."""
    return tuple(zip(values[::2], values[1::2]))


def _unreadable(fault: OSError) -> None:
    raise PlatemintError(f"{fault.filename}: cannot be read: {fault.strerror}; make it readable or remove it")


def _shape(path: Path) -> tuple[int, int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a picture's oddities matter only to who decodes it
            with open_image(path, MOST_PIXELS) as picture:
                orientation = picture.getexif().get(ORIENTATION, 1)
                return *picture.size, orientation if orientation in range(1, 9) else 1
    except OSError as fault:
        raise ValueError(f"cannot be read: {fault.strerror or fault}") from None
    except ValueError:
        raise
    except Exception:  # of an EXIF block that decoders stumble over
        raise ValueError("broken picture: cannot be decoded") from None
