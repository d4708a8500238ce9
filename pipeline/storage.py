"""storage: files. Atomic writes, hashes, and pictures of unknown origin, with limits on what is decoded."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import warnings
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps

from platemint.pipeline.object_store import ObjectPath
from platemint.pipeline.parsing import parse_json
from platemint.pipeline.plate import Failure, PlatemintError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # formats that are decoded, whatever else Pillow knows
MOST_BYTES = 64 << 20
MOST_PIXELS = 4_000_000  # a crop of one plate is far smaller
MOST_SCANS = 100  # of a progressive JPEG, which has about ten
LEAST_SIDE, MOST_SIDE = 8, 16_383  # pixels; WebP holds no longer ones, and no plate is that long


TEMPORARY = ".part"  # a file under this suffix is not there yet: a killed process may leave one behind
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # faults of a disk, or of what a user may have of it
SUFFIX = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}


def encode(image: np.ndarray, format: str, quality: int) -> bytes:
    """A picture file without metadata. image: uint8 (H, W, 3) RGB or (H, W); format: jpeg, png or webp; quality 1..100.

    Colour is kept at full resolution in JPEG: strokes on a plate are thin and often differ from it in colour alone.
    Sides are at most those of `read_picture`, which every format holds.
    """
    settings = {
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality,
                 cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
        "png": [],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
    }  # fmt: skip
    pixels = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image
    return cv2.imencode(SUFFIX[format], pixels, settings[format])[1].tobytes()


def sha256(data: bytes | str) -> str:
    """Hexadecimal sha256, of text as UTF-8."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


class NoRoom(Failure):
    """A disk that is full. needed: bytes of the file that has no room. free: bytes that are left for it."""

    def __init__(self, path: Path, needed: int, free: int):
        super().__init__(path, needed, free)  # what it is pickled by
        self.path, self.needed, self.free = path, needed, free

    def __str__(self) -> str:
        return (
            f"{self.path}: cannot be written (No space left on device): it takes {self.needed:,} bytes and "
            f"{self.free:,} are free: make room and run the same command again, it goes on; or choose another --out"
        )


def commit(path: Path | ObjectPath, data: str) -> None:
    """Writes a file of JSON that makes others count. On an object store that is done where there is none.

    One that is there already stays where it says the same but for its `seconds`: a worker that has been lost since may have
    written it, or the store's answer got lost. Else Failure is raised. A local folder has one process at a time (see `lock`).
    """
    if isinstance(path, Path):
        return write(path, data)
    try:
        path.write_bytes(data.encode(), new=True)
    except FileExistsError:
        if _untimed(path.read_text()) != _untimed(data):
            raise Failure(
                f"{path}: another process has written it meanwhile, so it works on the same run: let it, or end it and run "
                "the same command again"
            ) from None


def _untimed(data: str) -> dict:
    return parse_json(data) | {"seconds": None}


def write(path: Path | ObjectPath, data: bytes | str, private: bool = False) -> None:
    """Writes a file so that at any moment it is whole, absent, or still the old one, power cuts included.

    private: nobody else may read it (POSIX), nor a file that somebody has put in its way; local files only.
    Raises Failure, and leaves nothing half written, when the disk is full (NoRoom) or the folder cannot be written.
    """
    data = data.encode() if isinstance(data, str) else data
    if isinstance(path, ObjectPath):
        return path.write_bytes(data)
    try:
        _put(path, data, private)
    except OSError as error:
        if error.errno in FULL:
            raise NoRoom(path, len(data), _free(path.parent)) from error
        raise Failure(
            f"{path}: cannot be written ({error.strerror or error}): make room or make the folder writable, and run "
            "the same command again; or choose another --out"
        ) from error


def _put(path: Path, data: bytes, private: bool) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb", opener=_private) if private else open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _free(folder: Path) -> int:
    """Bytes that are left on the disk of a folder that may not be there itself."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), Path())
    return shutil.disk_usage(there).free


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _sync(folder: Path) -> None:
    """A rename survives a power cut only once its folder is on disk (Windows does that by itself)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_picture(path: Path) -> tuple[np.ndarray, str]:
    """A picture file's pixels, uint8 (H, W, 3) RGB, upright as its EXIF says, and its source id (see Photo).

    Raises ValueError with the reason where it is no picture of one plate.
    """
    data = read_file(path)
    return decode(data), sha256(data)[:16]


def read_file(path: Path) -> bytes:
    """A stranger's file. Raises ValueError with the reason where it is none, too large, or cannot be read."""
    try:
        if not path.is_file():
            raise ValueError("no such file")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"file of more than {MOST_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as fault:
        raise ValueError(f"cannot be read: {fault.strerror}") from None


def open_image(file: Path | BinaryIO, most_pixels: int) -> Image.Image:
    """A picture file's header, its pixels not yet decoded. Raises ValueError with the reason where it is no picture.

    most_pixels: what the caller takes; Pillow refuses far more by itself, and this is said of those. Raises OSError for
    a file that cannot be read.
    """
    try:
        return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        raise ValueError(f"more than {most_pixels:,} pixels") from None
    except Exception as fault:  # decoders meet hostile files with errors of every kind
        if isinstance(fault, OSError) and fault.errno:
            raise
        raise ValueError(f"not a picture ({', '.join(FORMATS)})") from None


def decode(data: bytes, most_pixels: int = MOST_PIXELS) -> np.ndarray:
    """A picture file's pixels, uint8 (H, W, 3) RGB, upright as its EXIF says. Raises ValueError with the reason."""
    if not data:
        raise ValueError("empty file")
    refuse_many_scans(data)
    picture = open_image(io.BytesIO(data), most_pixels)
    width, height = picture.size
    if width * height > most_pixels or max(width, height) > MOST_SIDE:
        shown = " for a crop of one plate" if most_pixels == MOST_PIXELS else ""
        raise ValueError(f"{width} x {height} pixels are too many{shown}")
    if min(width, height) < LEAST_SIDE:
        raise ValueError(f"{width} x {height} pixels are too few to show a plate")
    if picture.mode[0] in "IF":
        raise ValueError(f"pixels of kind {picture.mode}; save it with 8 bits a channel")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of oddities that do not hinder decoding
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except Exception:
        raise ValueError("broken picture: cannot be decoded") from None


def refuse_many_scans(data: bytes) -> None:
    """Raises ValueError for a JPEG in so many scans that decoding takes minutes: each is one over the whole picture."""
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MOST_SCANS:
        raise ValueError(f"a JPEG of more than {MOST_SCANS} scans")


def read_json(path: Path | ObjectPath) -> dict:
    """A JSON file of the run folder. Raises PlatemintError where it is missing or damaged."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlatemintError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise PlatemintError(f"{path}: is damaged ({error}): restore it, or generate into another folder") from error
