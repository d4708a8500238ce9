"""picture: a file's pixels, and the same kind of file with other pixels and nothing else: no EXIF, no thumbnail."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

from pipeline.sample import FORMATS

MOST_BYTES = 256 << 20
MOST_PIXELS = 64_000_000  # of a frame
MODES = ("RGB", "L", "P", "RGBA", "LA", "CMYK", "1")  # of 8 bits a channel or fewer; others lose in what follows


@dataclass(frozen=True)
class Picture:
    """A decoded file. pixels: uint8 (H, W, 3) RGB, upright. alpha: uint8 (H, W), None without. gray: it had one channel.

    format: as Pillow names it. tables, sampling: of a JPEG, quantisation and chroma, so that it is encoded as it was.
    """

    pixels: np.ndarray
    format: str
    gray: bool
    alpha: np.ndarray | None
    tables: dict | None
    sampling: int

    def encode(self, pixels: np.ndarray) -> bytes:
        """A file of the same format with these pixels, uint8 (H, W, 3), and no metadata.

        PNG, BMP and TIFF are lossless; JPEG is encoded once, with the source's own quantisation tables and chroma
        sampling; WebP is lossless. CMYK becomes RGB, palettes become RGB.
        """
        picture = Image.fromarray(pixels)
        if self.gray:
            picture = Image.fromarray(pixels[..., 0])
        if self.alpha is not None:
            picture.putalpha(Image.fromarray(self.alpha))
        sink = io.BytesIO()
        picture.save(sink, self.format, **self._settings())
        return sink.getvalue()

    def _settings(self) -> dict:
        if self.format == "JPEG":
            sampling = 0 if self.gray or self.sampling < 0 else self.sampling
            return {"qtables": self.tables, "subsampling": sampling} if self.tables else {"quality": 95}
        return {"WEBP": {"lossless": True, "exact": True}, "TIFF": {"compression": "tiff_lzw"}}.get(self.format, {})


def open_picture(path: Path) -> Picture:
    """A file's picture. Raises ValueError with the reason where it cannot be decoded or would lose by being written."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"file of more than {MOST_BYTES >> 20} MiB")
    try:
        picture = Image.open(io.BytesIO(path.read_bytes()), formats=FORMATS)
    except Exception:  # decoders meet hostile files with errors of every kind
        raise ValueError(f"not a picture ({', '.join(FORMATS)})") from None
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than {MOST_PIXELS:,}")
    if picture.mode not in MODES:
        raise ValueError(f"pixels of kind {picture.mode}, not of 8 bits a channel")
    if getattr(picture, "n_frames", 1) > 1:
        raise ValueError("several pictures in one file")
    tables = dict(picture.quantization) if picture.format == "JPEG" and picture.mode in ("RGB", "L") else None
    sampling = JpegImagePlugin.get_sampling(picture) if tables else -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            upright = ImageOps.exif_transpose(picture)
            has_alpha = upright.mode in ("RGBA", "LA") or "transparency" in upright.info
            alpha = np.asarray(upright.convert("RGBA"))[..., 3] if has_alpha else None
            pixels = np.array(upright.convert("RGB"))
        except Exception:
            raise ValueError("broken picture: cannot be decoded") from None
    gray = picture.mode in ("L", "LA", "1")
    return Picture(pixels, picture.format, gray, alpha, tables, sampling)
