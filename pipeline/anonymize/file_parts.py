"""What picture files are made of: the coded picture, what decoding needs, and everything else, which is metadata.

Sources: ITU-T T.81 and its APPn users (JFIF, Exif, Adobe), the PNG specification, RFC 9649 (WebP), BITMAPINFOHEADER.
"""

from __future__ import annotations

import mmap
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PIXELS = "pixels"  # the coded picture, and tables of its coding: numbers that spell a text by chance only
NEEDED = ""  # headers with a few numbers in them
BROKEN = "broken"  # from here on the file is not as its format has it
TRAILING = "trailing bytes"
UNKNOWN = "unknown format"
MOST_INFLATED = 16 << 20  # bytes of a compressed text chunk that are unpacked
Bytes = bytes | mmap.mmap

_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # a marker; 0 is a stuffed byte, D0 to D7 restarts in the scan
_SOS, _EOI, _COM = 0xDA, 0xD9, 0xFE
_TABLES, _FRAME = (0xC4, 0xCC, 0xDB), (*range(0xC0, 0xD0), _SOS, 0xDC, 0xDD)  # DHT DAC DQT; SOF SOS DNL DRI
_APP = {
    (0xE0, b"JFIF\0"): "JFIF",
    (0xE0, b"JFXX\0"): "thumbnail",
    (0xE1, b"Exif\0"): "EXIF",
    (0xE1, b"http://ns.adobe.com/"): "XMP",
    (0xE2, b"ICC_PROFILE\0"): "ICC",
    (0xED, b"Photoshop 3.0\0"): "IPTC",
    (0xEE, b"Adobe"): "Adobe",
}
_APP_NEEDED = {"JFIF": 14, "Adobe": 12}  # bytes, where they hold no more than decoding needs: no thumbnail, no text
_PNG = {
    **dict.fromkeys((b"IDAT", b"fdAT", b"PLTE", b"tRNS"), PIXELS),
    **dict.fromkeys((b"IHDR", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"bKGD", b"cICP"), NEEDED),
    **dict.fromkeys((b"tEXt", b"zTXt", b"iTXt"), "text"),
    b"eXIf": "EXIF",
    b"iCCP": "ICC",
}
_WEBP = {
    **dict.fromkeys((b"VP8 ", b"VP8L", b"ALPH"), PIXELS),
    b"VP8X": NEEDED,
    b"EXIF": "EXIF",
    b"XMP ": "XMP",
    b"ICCP": "ICC",
}


class Segment(NamedTuple):
    """Bytes start..end - 1 of a file. kind: `PIXELS`, `NEEDED`, or which metadata it is."""

    kind: str
    start: int
    end: int


def metadata_of(path: str | Path) -> tuple[str, ...]:
    """Which metadata a picture file holds, each kind once, sorted: () for none.

    EXIF, XMP, IPTC, ICC, comment, text, thumbnail, trailing bytes, APPn and chunks by name, "broken" for a file that
    is not as its format has it, and "unknown format" for what is no JPEG, PNG, WebP or BMP. Raises OSError.
    """
    with mapped(path) as data:
        return metadata_in(data)


def metadata_in(data: Bytes) -> tuple[str, ...]:
    """The same of a picture file's bytes."""
    kinds = set()
    for segment in segments(data):
        kinds.add(segment.kind)
        if segment.kind == "EXIF" and b"\xff\xd8\xff" in data[segment.start : segment.end]:
            kinds.add("thumbnail")
    return tuple(sorted(kinds - {PIXELS, NEEDED}))


@contextmanager
def mapped(path: str | Path) -> Iterator[Bytes]:
    """A file's bytes, read as they are looked at. Raises OSError."""
    with open(path, "rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            yield b""
            return
        with data:
            yield data


def segments(data: Bytes) -> Iterator[Segment]:
    """The segments of a picture file, in order; of any other file one, `UNKNOWN`. Damage is a segment too."""
    head = data[:12]
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return _webp(data)
    return _bmp(data) if head.startswith(b"BM") else iter([Segment(UNKNOWN, 0, len(data))])


def inflated(data: Bytes, segment: Segment) -> tuple[bytes, bool]:
    """The compressed text or profile of a PNG chunk, b"" for none, and whether it was unpacked to its end."""
    name = data[segment.start + 4 : segment.start + 8]
    if name not in (b"zTXt", b"iTXt", b"iCCP"):
        return b"", True
    rest = data[segment.start + 8 : segment.end - 4].partition(b"\0")[2]  # behind the keyword or the profile's name
    if name == b"iTXt":  # a flag, a method, two texts that end in 0
        rest = rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else b""
    else:
        rest = rest[1:]  # a method
    stream, found = zlib.decompressobj(), bytearray()
    try:
        for start in range(0, len(rest), 1024):  # bit by bit, so that of a broken stream the sound part is had
            found += stream.decompress(rest[start : start + 1024], MOST_INFLATED - len(found))
            if len(found) == MOST_INFLATED:
                break
    except zlib.error:
        pass
    return bytes(found), stream.eof or not rest


def _jpeg(data: Bytes) -> Iterator[Segment]:
    place = 2
    while place + 2 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # markers may be filled up with them
            place += 1
            continue
        if marker == _EOI:
            yield from _rest(TRAILING, place + 2, data)
            return
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4])
        if not place + 4 <= end <= len(data):
            break
        yield Segment(_jpeg_kind(marker, data[place + 4 : end]), place, end)
        place = end
        if marker == _SOS and (found := _AFTER_SCAN.search(data, place)):
            place = found.start()
            yield Segment(PIXELS, end, place)
    yield from _rest(BROKEN, place, data)


def _jpeg_kind(marker: int, payload: bytes) -> str:
    if marker in _TABLES:
        return PIXELS
    if marker in _FRAME:
        return NEEDED
    if not 0xE0 <= marker <= 0xEF:
        return "comment" if marker == _COM else f"marker {marker:X}"
    named = {kind for (app, begin), kind in _APP.items() if marker == app and payload.startswith(begin)}
    kind = named.pop() if named else f"APP{marker & 15}"
    return NEEDED if _APP_NEEDED.get(kind) == len(payload) else kind


def _png(data: Bytes) -> Iterator[Segment]:
    place, name = 8, b""
    while place + 12 <= len(data) and name != b"IEND":
        name = data[place + 4 : place + 8]
        end = place + 12 + int.from_bytes(data[place : place + 4])
        if end > len(data):
            break
        kind = _PNG.get(name, f"chunk {name.decode('latin-1')}")
        if name == b"iTXt" and data[place + 8 : place + 26] == b"XML:com.adobe.xmp\0":
            kind = "XMP"
        yield Segment(kind, place + 8 * (kind == PIXELS), end)
        place = end
    yield from _rest(TRAILING if name == b"IEND" else BROKEN, place, data)


def _webp(data: Bytes) -> Iterator[Segment]:
    place, whole = 12, 8 + int.from_bytes(data[4:8], "little")
    while place + 8 <= whole <= len(data):
        name, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        end = place + 8 + length + length % 2
        if end > whole:
            break
        kind = _WEBP.get(name, f"chunk {name.decode('latin-1')}")
        yield Segment(kind, place + 8 * (kind == PIXELS), end)
        place = end
    yield from _rest(TRAILING if place == whole else BROKEN, place, data)


def _bmp(data: Bytes) -> Iterator[Segment]:
    """Palette and rows are one segment. Of packed rows the length is not known, so the file counts as broken."""
    start, header, width, height = (int.from_bytes(data[k : k + 4], "little", signed=True) for k in (10, 14, 18, 22))
    bits, packed = int.from_bytes(data[28:30], "little"), data[30:34] not in (bytes(4), b"\3\0\0\0")
    end = start + (width * bits + 31) // 32 * 4 * abs(height)
    if packed or not 40 <= header <= start - 14 <= end - 14 <= len(data) - 14:
        return (yield from _rest(BROKEN, 2, data))
    yield Segment(PIXELS, 14 + header, end)
    yield from _rest(TRAILING, end, data)


def _rest(kind: str, place: int, data: Bytes) -> Iterator[Segment]:
    if place < len(data) or kind == BROKEN:  # a file may break off where a segment ends
        yield Segment(kind, place, len(data))
