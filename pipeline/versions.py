"""versions: what a run's bytes depend on besides its recipe, its sources and its networks."""

from __future__ import annotations

import platform
from contextlib import suppress
from functools import cache
from importlib import metadata

import cv2
from PIL import features

# That decode, draw, compute, choose texts or write.
_PACKAGES = ("platemint", "numpy", "scipy", "pyarrow", "torch", "faker", "pillow")
_CODECS = {"jpg": "libjpeg", "libjpeg_turbo": "libjpeg-turbo", "webp": "libwebp", "zlib": "zlib", "libtiff": "libtiff",
           "freetype2": "freetype"}  # fmt: skip


@cache
def versions() -> dict[str, str]:
    """The version of each program and library, by name; of those that Pillow is built with too."""
    found = {"python": platform.python_version(), "opencv": cv2.__version__}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):  # platemint may run from a clone
            found[name] = metadata.version(name)
    return found | {name: number for key, name in _CODECS.items() if (number := features.version(key))}


def changed(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """What differs, as "torch was 2.12.0, is 2.13.0"."""
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return [f"{name} was {old.get(name, 'not there')}, is {new.get(name, 'not there')}" for name in names]
