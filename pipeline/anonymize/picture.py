"""picture: a file's pixels, and the same kind of file with other pixels and nothing else: no EXIF, no thumbnail."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

from platemint.pipeline.corpora import containers
from platemint.pipeline.corpora.records import MOST_PIXELS, ORIENTATION
from platemint.pipeline.storage import FORMATS, open_image, refuse_many_scans

MOST_BYTES = 256 << 20
ALIKE = 4  # of 255: what smoothing chroma changes of a picture is a fraction of it
SPACED = 3  # every so many pixels are looked at for that; odd, since chroma stands for two
MOST_SIDE = 32_000  # pixels: OpenCV turns no longer ones
MODES = ("RGB", "L", "P", "RGBA", "LA", "CMYK", "1")  # of 8 bits a channel or fewer; others lose in what follows
_DEEP = re.compile(";16[BLNS]")  # of a coding with 16 bits a channel, which Pillow cuts to 8 silently
MCU = 16  # pixels: no JPEG's units of blocks are wider or higher
_444, _420 = 0, 2  # chroma samplings, as Pillow counts them


@dataclass(frozen=True)
class Picture:
    """A decoded file. pixels: uint8 (H, W, 3) RGB, upright. alpha: uint8 (H, W), None without. gray: of one channel.

    format: as Pillow names it. tables, sampling: of a JPEG, quantisation and chroma, so that it is encoded as it was.
    planes: uint8 (H, W, 3), a JPEG's luma and chroma as they are coded, None where they cannot be had.
    """

    pixels: np.ndarray
    format: str
    gray: bool
    alpha: np.ndarray | None
    tables: dict | None
    sampling: int
    planes: np.ndarray | None

    @property
    def exact(self) -> bool:
        """Whether a file that `encode` makes shows the very pixels it was given: JPEG and gray ones do not."""
        return self.format != "JPEG" and not self.gray

    def encode(self, pixels: np.ndarray) -> bytes:
        """A file of the same format with these pixels, uint8 (H, W, 3), and no metadata.

        PNG, BMP and TIFF are lossless, as is WebP. CMYK and palettes become RGB. JPEG is encoded once, with the
        source's own quantisation tables and, where it is 4:4:4, 4:2:2 or 4:2:0, chroma sampling. What that does to
        blocks in which nothing changed (measured on blurred noise, parts of the pixels and how far they move, of 255):
        gray, 4:4:4 and 4:2:0 come back equal up to quality 85, 0.1 % move by 1 at 90, 4 % by 3 at most at 95, and
        4:2:0 also beside changed blocks, where chroma is smoothed. Blocks that the picture's edge cuts, or with pixels
        at 0 or 255, move by up to 14. 4:2:2 and pictures that EXIF turns are coded from RGB: most pixels move, by up to
        21.
        """
        picture = Image.fromarray(pixels)
        if self.planes is not None:
            changed, planes = differing(pixels, self.pixels), self.planes.copy()
            if changed.any():
                planes[changed] = np.asarray(Image.fromarray(pixels[changed][None]).convert("YCbCr"))[0]
            picture = Image.merge("YCbCr", [Image.fromarray(planes[..., i]) for i in range(3)])
        if self.gray:
            picture = picture.convert("L")
        if self.alpha is not None:
            picture.putalpha(Image.fromarray(self.alpha))
        sink = io.BytesIO()
        picture.save(sink, self.format, **self._settings())
        return sink.getvalue()

    def coded(self, pixels: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
        """These pixels, uint8 (H, W, 3), and in a box (x1, y1, x2, y2) what a file that `encode` makes shows of them.

        A JPEG codes blocks by themselves: the file is made of those in and around the box.
        """
        x1, y1 = (max(0, side // MCU - 1) * MCU for side in box[:2])
        x2, y2 = ((side // MCU + 2) * MCU for side in box[2:])
        part = np.s_[y1:y2, x1:x2]
        planes = None if self.planes is None else self.planes[part]
        small = replace(self, pixels=self.pixels[part], alpha=None, planes=planes)
        seen = pixels.copy()
        seen[part] = shown(small.encode(np.ascontiguousarray(pixels[part])))
        return seen

    def _settings(self) -> dict:
        if self.format == "JPEG":
            sampling = 0 if self.gray or self.sampling < 0 else self.sampling
            return {"qtables": self.tables, "subsampling": sampling} if self.tables else {"quality": 95}
        return {"WEBP": {"lossless": True, "exact": True}, "TIFF": {"compression": "tiff_lzw"}}.get(self.format, {})


def differing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two pictures, uint8 (H, W, 3), are not the same: bool (H, W). Ten times as fast as any(2)."""
    unlike = a != b
    return unlike[..., 0] | unlike[..., 1] | unlike[..., 2]


def read_picture_file(path: Path) -> bytes:
    """The bytes of a picture: a file, or a file/member (see `containers`). Raises ValueError where it cannot be read."""
    try:
        file, member = containers.file_and_member(path)
        data = containers.held_data(file, member) if member else b""
        if len(data) > MOST_BYTES or (not member and path.stat().st_size > MOST_BYTES):
            raise ValueError(f"file of more than {MOST_BYTES >> 20} MiB")
        return data if member else path.read_bytes()
    except OSError as fault:
        raise ValueError(f"cannot be read: {fault.strerror}") from None


def open_picture(path: Path) -> Picture:
    """A file's picture. Raises ValueError with the reason where it cannot be decoded or would lose by being written."""
    data = read_picture_file(path)
    if not data:
        raise ValueError("empty file")
    refuse_many_scans(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a picture's oddities matter only where it cannot be decoded
        picture = open_image(io.BytesIO(data), MOST_PIXELS)
        if picture.format == "MPO":  # a phone's JPEG with other pictures behind the first, which is the photograph
            picture = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        _refuse(picture)
        try:
            return _decoded(picture, data)
        except Exception:
            raise ValueError("broken picture: cannot be decoded") from None


def shown(data: bytes) -> np.ndarray:
    """What a file that `Picture.encode` has made shows: uint8 (H, W, 3) RGB."""
    return np.asarray(Image.open(io.BytesIO(data), formats=FORMATS).convert("RGB"))


def _refuse(picture: Image.Image) -> None:
    """Raises ValueError for what a header shows: too many pixels, or of a kind that would lose."""
    width, height = picture.size
    if width * height > MOST_PIXELS or max(width, height) > MOST_SIDE:
        raise ValueError(f"{width} x {height} pixels: more than {MOST_PIXELS:,}, or than {MOST_SIDE:,} on a side")
    if picture.mode not in MODES or _DEEP.search(str(picture.tile)):
        raise ValueError(f"pixels of kind {picture.mode}, not of 8 bits a channel")
    try:
        picture.seek(1)  # to count them would read on through the whole file
    except EOFError:
        picture.seek(0)
        return
    except Exception:
        raise ValueError("broken picture: cannot be decoded") from None
    raise ValueError("several pictures in one file")


def _decoded(picture: Image.Image, data: bytes) -> Picture:
    tables = dict(picture.quantization) if picture.format == "JPEG" and picture.mode in ("RGB", "L") else None
    sampling = JpegImagePlugin.get_sampling(picture) if tables else -1
    level = picture.getexif().get(ORIENTATION, 1) == 1
    upright = ImageOps.exif_transpose(picture)
    has_alpha = upright.mode in ("RGBA", "LA") or "transparency" in upright.info
    pixels = np.array(upright.convert("RGB"))
    return Picture(
        pixels=pixels,
        format=picture.format,
        gray=picture.mode in ("L", "LA", "1"),
        alpha=np.asarray(upright.convert("RGBA"))[..., 3] if has_alpha else None,
        tables=tables,
        sampling=sampling,
        planes=_planes(data, sampling, pixels) if level and picture.mode == "RGB" else None,
    )


def _planes(data: bytes, sampling: int, pixels: np.ndarray) -> np.ndarray | None:
    """Luma and chroma of a JPEG, uint8 (H, W, 3), chroma repeated where it is coded at half the size.

    Decoders smooth such chroma when they enlarge it. A picture decoded at half the size shows it as it is coded.
    pixels: the decoded picture, uint8 (H, W, 3) RGB; None where the planes do not show it.
    """
    if sampling not in (_444, _420):
        return None
    try:
        luma, chroma = (JpegImagePlugin.JpegImageFile(io.BytesIO(data)) for _ in range(2))
        width, height = luma.size
        luma.draft("YCbCr", None)
        step = 2 if sampling == _420 else 1
        chroma.draft("YCbCr", (max(1, width // step), max(1, height // step)))  # of no less it would be whole
        planes, chroma = np.array(luma), np.asarray(chroma)
    except OSError:  # coded as RGB
        return None
    if chroma.shape[:2] != (-(-height // step), -(-width // step)):
        return None
    planes[..., 1:] = chroma.repeat(step, 0).repeat(step, 1)[:height, :width, 1:]
    sampled = np.s_[::SPACED, ::SPACED]
    shown = np.asarray(Image.fromarray(np.ascontiguousarray(planes[sampled]), "YCbCr").convert("RGB"))
    alike = (
        np.abs(shown.astype(np.int16) - pixels[sampled]).mean() < ALIKE
    )  # some files' colours are not what they claim
    return planes if alike else None
