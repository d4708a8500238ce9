"""Files written with other pixels: the same format, the same pixels where nothing changed, and no metadata."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from platemint.pipeline.anonymize.file_parts import metadata_of
from platemint.pipeline.anonymize.picture import open_picture, shown

SHAPE = (96, 160)
GRAINY = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)
SOFT = cv2.GaussianBlur(GRAINY, (0, 0), 2) // 2 + 60  # no pixel at 0 or 255
MODES = {
    "RGB": "JPEG PNG BMP TIFF WEBP",
    "L": "JPEG PNG BMP TIFF WEBP",
    "P": "PNG BMP TIFF",
    "1": "PNG BMP TIFF",
    "RGBA": "PNG TIFF WEBP",
    "LA": "PNG TIFF",
    "CMYK": "JPEG TIFF",
}
KINDS = [(mode, format) for mode, formats in MODES.items() for format in formats.split()]


def saved(path: Path, picture: Image.Image, format: str, **options) -> Path:
    picture.save(path, format, **options)
    return path


def image(mode: str) -> Image.Image:
    picture = Image.fromarray(GRAINY)
    if mode.endswith("A"):
        picture.putalpha(Image.fromarray(GRAINY[..., 1]))
    return picture.convert(mode)


def written(path: Path, pixels: np.ndarray | None = None) -> Path:
    """The picture of a file, encoded again."""
    picture = open_picture(path)
    again = path.with_name("again" + path.suffix)
    again.write_bytes(picture.encode(picture.pixels if pixels is None else pixels))
    return again


def changed(pixels: np.ndarray) -> np.ndarray:
    new = pixels.copy()
    new[20:40, 50:90] = 255 - new[20:40, 50:90]
    return new


@pytest.mark.parametrize("mode, format", [kind for kind in KINDS if kind[1] != "JPEG"])
def test_lossless_formats_keep_every_pixel(tmp_path, mode, format):
    source = saved(
        tmp_path / "a", image(mode), format, **({"lossless": True, "exact": True} if format == "WEBP" else {})
    )
    first = open_picture(source)
    again = open_picture(written(source))
    assert again.format == format == Image.open(tmp_path / "again").format
    assert (again.pixels == first.pixels).all() and again.gray == first.gray
    assert (again.alpha is None) == (first.alpha is None)
    assert first.alpha is None or (again.alpha == first.alpha).all()
    assert not first.gray or Image.open(tmp_path / "again").mode in ("L", "LA", "RGB")
    if mode != "CMYK":
        assert (first.pixels == np.asarray(image(mode).convert("RGB"))).all()
    if mode.endswith("A"):
        assert (first.alpha == GRAINY[..., 1]).all()
    new = first.pixels.copy()
    new[5:9, 5:9] = 7
    assert (open_picture(written(source, new)).pixels == new).all()


def test_a_transparent_palette_stays_transparent(tmp_path):
    picture = Image.fromarray(GRAINY).quantize(16)
    source = saved(tmp_path / "a.png", picture, "PNG", transparency=3)
    wanted = np.where(np.asarray(picture) == 3, 0, 255)
    assert (np.asarray(Image.open(written(source)).convert("RGBA"))[..., 3] == wanted).all()


# Sampling (0: 4:4:4, 1: 4:2:2, 2: 4:2:0), quality; of unchanged blocks' pixels the share that moves, and how far.
PROMISED = [(0, 60, 0, 0), (0, 85, 0, 0), (2, 60, 0, 0), (2, 85, 0, 0), (0, 90, 0.001, 1), (2, 90, 0.001, 1),
            (0, 95, 0.05, 3), (2, 95, 0.05, 3), (1, 85, 1, 21)]  # fmt: skip


@pytest.mark.parametrize("sampling, quality, share, most", PROMISED)
def test_jpeg_is_coded_as_it_was_and_unchanged_blocks_stay(tmp_path, sampling, quality, share, most):
    source = saved(tmp_path / "a.jpg", Image.fromarray(SOFT), "JPEG", quality=quality, subsampling=sampling)
    before = open_picture(source)
    new = changed(before.pixels)
    after = open_picture(written(source, new))
    assert after.tables == before.tables and after.sampling == before.sampling == sampling
    moved = abs(after.pixels.astype(int) - before.pixels).max(2)
    blocks = np.ones(SHAPE, bool)
    blocks[16 - 2 : 48 + 2, 48 - 2 : 96 + 2] = False  # blocks of 16 with a changed pixel, and what is smoothed beside
    assert (moved[blocks] > 0).mean() <= share and moved[blocks].max() <= most
    assert abs(after.pixels.astype(int) - new)[20:40, 50:90].mean() < (6 if sampling else 4) + (90 - quality) / 5


@pytest.mark.parametrize("mode, sampling", [("RGB", 0), ("RGB", 1), ("RGB", 2), ("L", 0)])
@pytest.mark.parametrize("box", [(50, 20, 90, 40), (0, 0, 60, 30), (80, 30, 160, 96), (0, 0, 160, 96)])
def test_what_is_coded_of_a_box_is_what_the_whole_file_shows_there(tmp_path, mode, sampling, box):
    options = {"quality": 75, **({"subsampling": sampling} if mode == "RGB" else {})}
    picture = open_picture(saved(tmp_path / "a.jpg", Image.fromarray(SOFT).convert(mode), "JPEG", **options))
    pixels, (x1, y1, x2, y2) = changed(picture.pixels), box
    seen, whole = picture.coded(pixels, box), shown(picture.encode(pixels))
    assert np.array_equal(seen[y1:y2, x1:x2], whole[y1:y2, x1:x2])
    assert seen.shape == pixels.shape and not np.array_equal(seen, pixels)


def test_gray_jpeg_stays_gray_and_unchanged_blocks_stay(tmp_path):
    source = saved(tmp_path / "a.jpg", Image.fromarray(SOFT).convert("L"), "JPEG", quality=85)
    before = open_picture(source)
    after = open_picture(written(source, changed(before.pixels)))
    assert Image.open(tmp_path / "again.jpg").mode == "L" and after.tables == before.tables
    blocks = np.ones(SHAPE, bool)
    blocks[16:40, 48:96] = False
    assert (after.pixels == before.pixels)[blocks].all() and not (after.pixels == before.pixels).all()


def test_jpeg_coded_as_rgb_and_odd_sizes_are_written(tmp_path):
    for size in ((1, 1), (2, 3), (17, 9), (33, 31)):
        for sampling in (0, 1, 2):
            picture = Image.fromarray(SOFT).resize(size)
            source = saved(tmp_path / "a.jpg", picture, "JPEG", subsampling=sampling)
            assert open_picture(written(source)).pixels.shape == (*size[::-1], 3)
    source = saved(tmp_path / "rgb.jpg", Image.fromarray(SOFT), "JPEG", keep_rgb=True, quality=95)
    again = open_picture(written(source))
    assert abs(again.pixels.astype(int) - open_picture(source).pixels).mean() < 4


@pytest.mark.parametrize("height, width", [(95, 160), (96, 159), (95, 159), (3, 5), (2, 3), (1, 9)])
def test_jpeg_of_an_odd_size_keeps_its_colours(tmp_path, height, width):
    """Faint ones as well, whose chroma may lie anywhere without a difference that is large on the average."""
    for pixels in (SOFT, (SOFT // 8 + (96, 100, 104)).astype(np.uint8)):
        picture = Image.fromarray(pixels[:height, :width])
        source = saved(tmp_path / "a.jpg", picture, "JPEG", quality=85, subsampling=2)
        before, after = open_picture(source), open_picture(written(source))
        moved = np.abs(after.pixels.astype(int) - before.pixels)
        assert (before.planes is not None) == (height > 1)
        assert moved.max() <= 14 and moved.mean() < 0.5


def exif(orientation: int) -> bytes:
    data = Image.Exif()
    data[0x0112], data[0x010E] = orientation, "ABC1234"
    data.get_ifd(0x8825)[29] = "2026:01:01"
    thumbnail = io.BytesIO()
    Image.fromarray(SOFT).resize((40, 24)).save(thumbnail, "JPEG")
    return data.tobytes() + thumbnail.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_exif_turns_is_written_upright(tmp_path, format, orientation):
    data = exif(orientation)
    if format == "TIFF":
        data = Image.Exif()
        data[0x0112] = orientation
    source = saved(
        tmp_path / "a", Image.fromarray(SOFT), format, exif=data, **({"quality": 95} if format == "JPEG" else {})
    )
    upright = np.asarray(ImageOps.exif_transpose(Image.open(source)).convert("RGB"))
    again = Image.open(written(source))
    assert (open_picture(source).pixels == upright).all() and not again.getexif().get(0x0112, 0) > 1
    assert again.size == upright.shape[1::-1]
    assert abs(np.asarray(again.convert("RGB")).astype(int) - upright).max() <= (24 if format == "JPEG" else 0)
    assert b"ABC1234" not in (tmp_path / "again").read_bytes()


def test_nothing_but_pixels_is_written(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "ABC1234", zip=True)
    told = {"exif": exif(6), "icc_profile": profile, "xmp": b"<x:xmpmeta>ABC1234</x:xmpmeta>"}
    for format, more in {"JPEG": {"comment": "ABC1234"}, "PNG": {"pnginfo": text}, "WEBP": {}}.items():
        source = saved(tmp_path / "a", Image.fromarray(SOFT), format, **told, **more)
        source.write_bytes(source.read_bytes() + b"ABC1234")
        assert metadata_of(source) and not metadata_of(written(source))
    source = saved(tmp_path / "a", Image.fromarray(SOFT), "TIFF", description="ABC1234", icc_profile=profile)
    again = Image.open(written(source))
    assert b"ABC1234" in source.read_bytes() and b"ABC1234" not in (tmp_path / "again").read_bytes()
    assert not {0x010E, 34675} & set(again.tag_v2)


def png(width: int, height: int, bits: int = 8, color: int = 2, rows: bytes = bytes(1000)) -> bytes:
    def chunk(name, payload):
        return len(payload).to_bytes(4) + name + payload + zlib.crc32(name + payload).to_bytes(4)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def bad_files() -> dict[str, tuple[bytes | None, str]]:
    """Name: (bytes, None for a folder; what the reason says)."""

    def data(picture, format, **options):
        sink = io.BytesIO()
        picture.save(sink, format, **options)
        return sink.getvalue()

    plain = Image.fromarray(SOFT)
    deep = np.zeros((9, 9, 3), np.uint16)
    return {
        "truncated": (data(plain, "JPEG")[:900], "decoded"),
        "truncated.png": (data(plain, "PNG")[:900], "decoded"),
        "half a header": (data(plain, "TIFF")[:200], "not a picture|decoded"),
        "empty": (b"", "empty"),
        "folder": (None, "cannot be read"),
        "text": (b"ABC1234", "not a picture"),
        "gif": (data(plain, "GIF"), "not a picture"),
        "16 bits, gray": (data(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG"), "8 bits"),
        "16 bits, RGB png": (cv2.imencode(".png", deep)[1].tobytes(), "8 bits"),
        "16 bits, RGB tiff": (cv2.imencode(".tif", deep)[1].tobytes(), "8 bits"),
        "16 bits, alpha": (cv2.imencode(".png", np.zeros((9, 9, 4), np.uint16))[1].tobytes(), "8 bits"),
        "floats": (data(Image.fromarray(np.zeros((9, 9), np.float32)), "TIFF"), "8 bits"),
        "moving png": (data(plain, "PNG", save_all=True, append_images=[plain.rotate(9)]), "several"),
        "moving webp": (data(plain, "WEBP", save_all=True, append_images=[plain.rotate(9)]), "several"),
        "poster": (data(Image.new("1", (20_000, 10_000)), "PNG"), "more than 64,000,000 pixels"),
        "pages": (data(plain, "TIFF", save_all=True, append_images=[plain]), "several"),
        "30,000 squared": (png(30_000, 30_000), "pixels"),
        "9,000 squared": (png(9_000, 9_000), "pixels"),
        "ribbon": (png(60_000, 2), "pixels"),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", bad_files())
def test_what_cannot_be_written_again_is_refused_with_the_reason(tmp_path, name):
    data, reason = bad_files()[name]
    path = tmp_path / "ABC1234.jpg"
    path.mkdir() if data is None else path.write_bytes(data)
    with pytest.raises(ValueError, match=reason) as refused:
        open_picture(path)
    assert "ABC1234" not in str(refused.value)


@pytest.mark.parametrize("sampling", [0, 2])
def test_of_several_pictures_in_a_phones_jpeg_the_first_is_used(tmp_path, sampling):
    first, second = (Image.fromarray(pixels) for pixels in (SOFT, GRAINY))
    options = {"quality": 90, "subsampling": sampling}
    alone = saved(tmp_path / "alone.jpg", first, "JPEG", **options)
    both = saved(tmp_path / "both.jpg", first, "MPO", save_all=True, append_images=[second], **options)
    assert Image.open(both).n_frames == 2
    one, two = open_picture(alone), open_picture(both)
    assert two.format == "JPEG" and np.array_equal(one.pixels, two.pixels)
    assert two.encode(changed(two.pixels)) == one.encode(changed(one.pixels))  # so nothing of the second is in it
    assert metadata_of(written(both)) == () and Image.open(written(both)).format == "JPEG"


def test_a_file_that_is_gone_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        open_picture(tmp_path / "ABC1234.jpg")


PEAK = """
import pathlib, re, sys
from platemint.pipeline.anonymize.picture import open_picture, shown

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

before = peak()
try:
    open_picture(pathlib.Path(sys.argv[1]))
except ValueError:
    print(peak() - before)
"""


def test_a_huge_picture_is_refused_before_it_takes_memory(tmp_path):
    """A whole one: black, 1 bit a pixel."""
    path = tmp_path / "huge.png"
    path.write_bytes(png(30_000, 30_000, 1, 0, bytes(30_000 * 3_751)))
    here = Path(__file__).parents[2]
    assert int(subprocess.check_output([sys.executable, "-c", PEAK, path], cwd=here)) < 20_000  # KiB


def test_a_gray_edit_has_the_brightness_of_the_edit(tmp_path):
    source = saved(tmp_path / "a.png", image("L"), "PNG")
    new = open_picture(source).pixels.copy()
    new[:9, :9] = (200, 0, 0)
    again = open_picture(written(source, new)).pixels
    assert (again[:9, :9] == 60).all() and (again[9:] == new[9:]).all()
