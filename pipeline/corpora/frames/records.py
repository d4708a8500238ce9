"""What annotated datasets are read into, and the folder they are read from."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from posixpath import basename, dirname, join, normpath, splitext
from typing import NamedTuple

from pipeline.corpora.labels import unused
from pipeline.plate import PlatemintError
from pipeline.sample import open_image

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
TEXT_KEYS = ("text", "plate", "plate_text")  # attributes that hold a plate's text
PLATE = re.compile(r"plate|licen[cs]e|matricula|placa|\blp\b", re.IGNORECASE)  # in names of classes: these are plates
MOST_PIXELS = 64_000_000  # of a frame
ORIENTATION = 0x0112  # EXIF; 5 to 8 lie on their side
_PEEK = 4096  # bytes that show what a file is
_FEW = 20  # files that show what a folder is
_SPLIT = re.compile(r"(train|val|test)(?:ing|id|idation)?\d*")

Corners = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Spot:
    """One annotated plate in one picture.

    text: normalised (see `pipeline.plate.normalise`), also where platemint cannot spell it; "" where the annotation has
    none or says unreadable. corners: 4 points x, y in pixels of the upright picture (as `pipeline.sample.read_picture`
    gives it): upper left, upper right, lower right, lower left; a box becomes its four corners; () is a crop: the plate
    is the whole picture.
    """

    text: str
    corners: Corners = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture, its path below the root with / between folders, and its plates."""

    path: str
    spots: tuple[Spot, ...]
    split: str


@dataclass
class Dataset:
    """An annotated dataset as it lies in a folder. format: a name in `FORMATS`.

    notes: its annotation files, each with the picture that it alone belongs to, "" where it is about several. lists:
    files that name pictures, such as those of a split. unknown: files that are none of these. set_aside: what cannot
    be used, as {"path", "row", "reason"}, with names as they are, which may be plates. A picture with one unusable
    annotation is set aside as a whole: it would be published with a plate that nobody replaced. lost: the texts of the
    plates that are set aside with their annotations, "" for none; names that hold one say "unreadable" when rewritten.
    """

    folder: Folder
    format: str
    notes: dict[str, str]
    lists: list[str] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    set_aside: list[dict[str, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder.root

    @property
    def unannotated(self) -> list[Frame]:
        """Pictures without a plate in any annotation, which may yet show one."""
        return [frame for frame in self.frames if not frame.spots]

    def put_aside(self, path: str, row: str, reason: str) -> None:
        self.set_aside.append(unused(path, row, reason))


class Mark(NamedTuple):
    """One annotation as a format finds it, not yet checked. picture: path below the root, whether it exists or not.

    corners: 4 points in any order, () for a crop. fault: why it cannot be used.
    """

    picture: str
    text: str | None = None
    corners: Corners = ()
    row: str = ""
    split: str = ""
    fault: str = ""


class Folder:
    """The files below a root as paths relative to it, with / between folders. Links are not followed."""

    def __init__(self, root: str | Path):
        """Raises PlatemintError where there is no such folder or a part of it cannot be read."""
        self.root = Path(root)
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
        self.pictures = {path for path in self.files if path.lower().endswith(PICTURES)}
        self._named: dict[str, list[str]] = {}
        for path in sorted(self.pictures):
            for name in (basename(path), stem(path)):
                self._named.setdefault(name, []).append(path)
        self._sizes: dict[str, tuple[int, int]] = {}

    def of_kind(self, *suffixes: str) -> list[str]:
        return [path for path in self.files if path.lower().endswith(suffixes)]

    def text(self, path: str) -> str:
        """A file's text with its line ends as they are. Raises PlatemintError where it cannot be read as UTF-8."""
        try:
            return (self.root / path).read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as fault:
            raise PlatemintError(f"{self.root / path}: not UTF-8 (byte {fault.start}); save it as UTF-8") from None
        except OSError as fault:
            raise PlatemintError(f"{self.root / path}: cannot be read: {fault.strerror}") from None

    def peek(self, path: str) -> str:
        """The first lines of a file, to tell what it is; "" where it cannot be read."""
        try:
            with open(self.root / path, "rb") as file:
                return file.read(_PEEK).decode("utf-8-sig", errors="replace")
        except OSError:
            return ""

    def size(self, picture: str) -> tuple[int, int]:
        """Width and height in pixels, upright, from the file's header alone. Raises ValueError for no picture."""
        if picture not in self._sizes:
            self._sizes[picture] = _size(self.root / picture)
        return self._sizes[picture]

    def find(self, name: str, note: str) -> str:
        """The picture that an annotation file means by a name: below its own folder or one above, or nearest to it.

        Where there is none, or none is nearest: the path it would have beside the annotation file.
        """
        name, place = name.replace("\\", "/"), dirname(note)
        expected = normpath(join(place, name)) if name else ""
        while (path := normpath(join(place, name))) not in self.pictures and place:
            place = dirname(place)
        if path in self.pictures:
            return path
        tail = "/" + normpath(name)
        return self._nearest([p for p in self._named.get(basename(tail), ()) if p.endswith(tail)], note) or expected

    def beside(self, note: str) -> str:
        """The picture with the stem of an annotation file, the nearest of several, "" for none."""
        return self._nearest([p for p in self._named.get(stem(note), ()) if stem(p) == stem(note)], note)

    def twins(self, suffix: str, fits: Callable[[str], bool]) -> dict[str, str]:
        """Annotation files that each belong to a picture of their stem; {} where no text of the first few fits."""
        paired = {note: self.beside(note) for note in self.of_kind(suffix)}
        if not any(fits(self.peek(note)) for note in islice((n for n, picture in paired.items() if picture), _FEW)):
            return {}
        return {n: picture or splitext(n)[0] for n, picture in paired.items() if picture or fits(self.peek(n))}

    def absence(self, path: str) -> str:
        """Why a path is none of the pictures."""
        if not path:
            return "no file is named"
        if path.startswith(("/", "../")):
            return "outside the dataset's folder"
        if any(path == link or path.startswith(link + "/") for link in self.links):
            return "a link, which is not followed"
        return "no such picture, or several"

    def _nearest(self, pictures: list[str], note: str) -> str:
        """Of several pictures the one whose folders resemble the annotation file's most; "" where that is not one."""

        def likeness(path: str) -> tuple[bool, int]:
            return dirname(path) == dirname(note), len({*words(dirname(path))} & {*words(splitext(note)[0])})

        best = max(map(likeness, pictures), default=None)
        nearest = [path for path in pictures if likeness(path) == best]
        return nearest[0] if len(nearest) == 1 else ""


def stem(path: str) -> str:
    return splitext(basename(path))[0]


def words(text: str) -> list[str]:
    """The words of a path: labels/Subset_AC is labels, Subset, AC."""
    return [word for word in re.split(r"[\W_]+", text) if word]


def split_named(text: str) -> str:
    """The split that a path or word speaks of: train, val or test, "" for none."""
    return next((match[1] for word in words(text) if (match := _SPLIT.fullmatch(word.lower()))), "")


def numbers(texts: Iterable[object]) -> list[float]:
    """Raises ValueError where one is no finite number."""
    values = [float(text) for text in texts]
    if not all(map(math.isfinite, values)):
        raise ValueError("a coordinate is not finite")
    return values


def box(x1: float, y1: float, x2: float, y2: float) -> Corners:
    """The corners of an upright box from any two opposite ones: they are swapped in some datasets."""
    (x1, x2), (y1, y2) = sorted((x1, x2)), sorted((y1, y2))
    return (x1, y1), (x2, y1), (x2, y2), (x1, y2)


def bounds(corners: Corners) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of the upright box around points."""
    (x1, y1), (x2, y2) = (tuple(map(end, zip(*corners))) for end in (min, max))
    return x1, y1, x2, y2


def points(values: list[float]) -> Corners:
    """x, y, x, y, ... as points."""
    return tuple(zip(values[::2], values[1::2]))


def _unreadable(fault: OSError) -> None:
    raise PlatemintError(f"{fault.filename}: cannot be read: {fault.strerror}; make it readable or remove it")


def _size(path: Path) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a picture's oddities matter only to who decodes it
            with open_image(path, MOST_PIXELS) as picture:
                return picture.size[:: -1 if picture.getexif().get(ORIENTATION, 1) >= 5 else 1]
    except OSError as fault:
        raise ValueError(f"cannot be read: {fault.strerror or fault}") from None
    except ValueError:
        raise
    except Exception:  # of an EXIF block that decoders stumble over
        raise ValueError("broken picture: cannot be decoded") from None
