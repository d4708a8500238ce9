"""The scan finds a source text wherever a file can hold it, and says what it did not look into."""

import io
import json
import os
import zlib
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from platemint.pipeline.anonymize.file_parts import metadata_of
from platemint.pipeline.anonymize.search import BLOCK, scan
from platemint.pipeline.plate import LETTERS, PlatemintError
from platemint.pipeline.storage import encode

PLATE, CHINESE = "ABC-1234", "皖A·12345"
GPS, DESCRIPTION, USER_COMMENT = 0x8825, 0x010E, 0x9286
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 200, 3), dtype=np.uint8))


def saved(format: str, **options) -> bytes:
    file = io.BytesIO()
    NOISE.save(file, format, **options)
    return file.getvalue()


def exif(text: str, thumbnail: bytes = b"") -> bytes:
    data = Image.Exif()
    data[DESCRIPTION] = text
    data.get_ifd(GPS)[29] = "2026:01:01"
    data.get_ifd(0x8769)[USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
    return data.tobytes() + thumbnail


def icc(text: str) -> bytes:
    """A colour profile with a text behind it, as a description would stand."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + text.encode("utf-16-be")


def png_text(text: str, **how) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    (info.add_itxt if "lang" in how else info.add_text)("Comment", "x " * 3000 + text, **how)
    return info


def segment(marker: int, payload: bytes) -> bytes:
    """A JPEG with one more segment behind its first marker."""
    plain = saved("JPEG")
    return plain[:2] + bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2) + payload + plain[2:]


def chunk(name: bytes, payload: bytes) -> bytes:
    """A PNG with one more chunk behind its first."""
    plain = saved("PNG")
    whole = len(payload).to_bytes(4) + name + payload + zlib.crc32(name + payload).to_bytes(4)
    return plain[:33] + whole + plain[33:]


def webp(name: bytes, payload: bytes) -> bytes:
    """A WebP picture with one more chunk behind its last."""
    plain = saved("WEBP") + name + len(payload).to_bytes(4, "little") + payload + bytes(len(payload) % 2)
    return plain[:4] + (len(plain) - 8).to_bytes(4, "little") + plain[8:]


HIDDEN = {  # name: (file, what metadata it is)
    "exif.jpg": (saved("JPEG", exif=exif("abc 1234")), ("EXIF",)),
    "thumbnail.jpg": (saved("JPEG", exif=exif(PLATE, saved("JPEG", quality=10))), ("EXIF", "thumbnail")),
    "comment.jpg": (saved("JPEG", comment="at ABC1234"), ("comment",)),
    "profile.jpg": (saved("JPEG", icc_profile=icc(PLATE)), ("ICC",)),
    "xmp.jpg": (saved("JPEG", xmp=b"<x:xmpmeta>ABC.1234</x:xmpmeta>"), ("XMP",)),
    "iptc.jpg": (segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\x0f\x1c\2\x78\0\7ABC1234"), ("IPTC",)),
    "jfxx.jpg": (segment(0xE0, b"JFXX\0\x10ABC1234"), ("thumbnail",)),
    "app9.jpg": (segment(0xE9, b"ABC1234"), ("APP9",)),
    "reserved.jpg": (segment(0xF5, b"ABC1234"), ("marker F5",)),
    "adobe.jpg": (segment(0xEE, b"Adobe\0\0\0\0\0\0\0ABC1234"), ("Adobe",)),
    "trailing.jpg": (saved("JPEG") + b"ABC1234", ("trailing bytes",)),
    "progressive.jpg": (saved("JPEG", progressive=True, restart_marker_rows=1) + b"ABC1234", ("trailing bytes",)),
    "exif.png": (saved("PNG", exif=exif(PLATE)), ("EXIF",)),
    "text.png": (saved("PNG", pnginfo=png_text("ABC1234")), ("text",)),
    "ztxt.png": (saved("PNG", pnginfo=png_text("ABC1234", zip=True)), ("text",)),
    "itxt.png": (saved("PNG", pnginfo=png_text("ABC·1234", zip=True, lang="en")), ("text",)),
    "profile.png": (saved("PNG", icc_profile=icc(PLATE)), ("ICC",)),
    "xmp.png": (chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0ABC1234"), ("XMP",)),
    "private.png": (chunk(b"prVt", b"ABC1234"), ("chunk prVt",)),
    "trailing.png": (saved("PNG") + b"ABC1234", ("trailing bytes",)),
    "exif.webp": (saved("WEBP", exif=exif(PLATE)), ("EXIF",)),
    "xmp.webp": (saved("WEBP", xmp=b"ABC1234", icc_profile=icc("")), ("ICC", "XMP")),
    "own.webp": (webp(b"OWN ", b"ABC1234"), ("chunk OWN ",)),
    "trailing.webp": (saved("WEBP") + b"ABC1234", ("trailing bytes",)),
    "trailing.bmp": (saved("BMP") + b"ABC1234", ("trailing bytes",)),
    "cut.jpg": (saved("JPEG")[:-2] + b"ABC1234", ("broken",)),
    "cut.png": (saved("PNG")[:-12] + b"ABC1234", ("broken",)),
    "cut.webp": (saved("WEBP")[:-12] + b"ABC1234", ("broken",)),
    "strange.tif": (b"II*\0ABC1234", ("unknown format",)),
}
SPELLED = {
    "plain": b"x,ABC1234,y",
    "inside": b"XABC12345",
    "case and separators": b"a_b.c - 12\xc2\xb734",
    "dashes": "ABC–12•34".encode(),
    "utf-16-le": "Plate ABC·1234!".encode("utf-16-le"),
    "utf-16-be": "Plate ABC·1234".encode("utf-16-be"),
    "utf-16 at an odd place": b"x" + "abc1234".encode("utf-16"),
    "percent": b"images/ABC%201234.jpg",
    "percent all": b"".join(b"%%%02x" % c for c in b"ABC-1234"),
    "percent dot": quote("ABC·1234").encode(),
    "json": json.dumps("ABC·1234").encode(),
    "json all": b"".join(b"\\u%04X" % c for c in b"ABC1234"),
    "after a percent sign": b"100%ABC1234",
    "at a block's end": bytes(BLOCK - 4) + b"ABC1234",
    "in a later block": b"." * (3 * BLOCK) + b"\nABC1234\n" + b"," * BLOCK,
}
CHINESE_SPELLED = [
    CHINESE.encode(), b"a12345", "皖A12345".encode("gbk"), CHINESE.encode("utf-16"), json.dumps(CHINESE).encode(),
    quote("皖A-12345").encode(), "京A12345".encode(),
]  # fmt: skip


def test_a_clean_tree(tmp_path):
    for number, format in enumerate(("jpeg", "png", "webp")):
        (tmp_path / f"{number}.{format}").write_bytes(encode(np.asarray(NOISE), format, 95))
        assert metadata_of(tmp_path / f"{number}.{format}") == ()
    for format in ("JPEG", "PNG", "WEBP", "BMP", "GIF"):
        (tmp_path / format).write_bytes(saved(format))
        assert metadata_of(tmp_path / format) == (("unknown format",) if format == "GIF" else ())
    (tmp_path / "labels.csv").write_text("path,text\n0.jpg,XYZ1234\n1.png,ABC1243\n皖A12354.png,皖A·12354\n")
    (tmp_path / "empty").write_bytes(b"")
    found = scan(tmp_path, [PLATE, CHINESE])
    assert found.hits == found.chance == found.unread == found.unsearched == []
    assert found.files == 10 and found.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize("name", HIDDEN)
def test_every_hiding_place_of_a_picture_is_found(tmp_path, name):
    data, kinds = HIDDEN[name]
    (tmp_path / name).write_bytes(data)
    found = scan(tmp_path, [PLATE])
    assert {(hit.path, hit.text) for hit in found.hits} == {(name, PLATE)} and found.chance == []
    where = {hit.where for hit in found.hits}
    assert where == ({"compressed text"} if name in ("ztxt.png", "itxt.png", "profile.png") else {"bytes"})
    assert metadata_of(tmp_path / name) == kinds


@pytest.mark.parametrize("how", SPELLED)
def test_every_spelling_is_found(tmp_path, how):
    (tmp_path / "file").write_bytes(SPELLED[how])
    [hit] = scan(tmp_path, [PLATE, "ABC5678"]).hits
    assert (hit.path, hit.where, hit.text) == ("file", "bytes", PLATE)
    assert SPELLED[how][hit.offset :][:1] in b"Aa%\\" or how == "utf-16-be"


def test_a_chinese_plate_is_found_without_its_province(tmp_path):
    for number, data in enumerate(CHINESE_SPELLED):
        (tmp_path / str(number)).write_bytes(data)
    assert {(hit.path, hit.text) for hit in scan(tmp_path, [CHINESE]).hits} == {(str(n), CHINESE) for n in range(7)}


def test_names_of_files_folders_and_links(tmp_path):
    root = tmp_path / "abc1234-out"
    (root / "Lot_ABC 12-34").mkdir(parents=True)
    (root / "Lot_ABC 12-34" / f"{CHINESE}_1.jpg").write_bytes(b"")
    (root / "link").symlink_to("../corpus/abc1234.jpg")
    (root / "folder").symlink_to(tmp_path)
    (root / os.fsdecode(b"\xff\xfeABC1234")).write_bytes(b"")
    found = scan(root, [PLATE, CHINESE])
    assert sorted((hit.path, hit.where) for hit in found.hits) == [
        ("Lot_ABC 12-34", "name"), (f"Lot_ABC 12-34/{CHINESE}_1.jpg", "name"), ("\\udcff\\udcfeABC1234", "name"),
        ("link", "name"),
    ]  # fmt: skip
    assert sorted(found.unread) == [f"{name}: a link, which is not followed" for name in ("folder", "link")]


def test_what_cannot_be_looked_for_or_into_is_said(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\3\4...")
    (tmp_path / "b.parquet").write_bytes(b"PAR1ABC1234")
    broken = saved("PNG", pnginfo=png_text("ABC1234", zip=True)).replace(b"Comment\0\0x", b"Comment\0\0y")
    (tmp_path / "c.png").write_bytes(broken)
    os.mkfifo(tmp_path / "pipe")
    found = scan(tmp_path, [PLATE, "A1-2", "皖A12", "AB皖C123", *"XY"])
    assert found.unsearched == ["A1-2", "AB皖C123", "X", "Y", "皖A12"] and [hit.path for hit in found.hits] == [
        "b.parquet"
    ]
    assert [entry.partition(":")[0] for entry in found.unread] == ["a.zip", "b.parquet", "c.png", "pipe"]
    with pytest.raises(PlatemintError, match="no such folder"):
        scan(tmp_path / "absent", [PLATE])


def test_a_bomb_is_unpacked_so_far_and_no_further(tmp_path):
    (tmp_path / "bomb.png").write_bytes(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200 << 20), 9)))
    assert scan(tmp_path, [PLATE]).unread == ["bomb.png: compressed text at byte 33 cannot be unpacked to its end"]


def some_texts(n: int) -> list[str]:
    letters, numbers = np.random.default_rng(1).choice(list(LETTERS), (n, 3)), range(1000, 1000 + n)
    return [f"{''.join(row)}{number}" for row, number in zip(letters, numbers)]


def test_random_bytes_hold_no_plate(tmp_path):
    (tmp_path / "noise").write_bytes(np.random.default_rng(2).bytes(20_000_000))
    found = scan(tmp_path, some_texts(2000))
    assert found.hits == [] and found.bytes == 20_000_000


def test_chance_hits_in_a_picture_are_as_many_as_expected(tmp_path):
    """Short texts, since of long ones there would be none to count: 400 of four characters in six megabytes."""
    noise = np.random.default_rng(3).integers(0, 256, (1000, 2000, 3), dtype=np.uint8)
    texts = [f"{a}{b}{c}7" for a in "ABCDEFGH" for b in "KLMNP" for c in "1234567890"]
    for format in ("jpeg", "png", "webp"):
        (tmp_path / f"noise.{format}").write_bytes(encode(noise, format, 90))
    found = scan(tmp_path, texts)
    assert found.hits == [] and {hit.where for hit in found.chance} == {"pixels"}
    assert found.expected > 4 and abs(len(found.chance) - found.expected) < 5 * found.expected**0.5


def test_a_grey_picture_expects_nothing(tmp_path):
    """All its bytes are 128, which counts as a separator: it is one in a dash's UTF-8."""
    Image.new("RGB", (64, 32), (128, 128, 128)).save(tmp_path / "grey.bmp")
    found = scan(tmp_path, [PLATE])
    assert found.hits == found.chance == [] and found.expected == 0


def test_no_damage_stops_it(tmp_path):
    rng = np.random.default_rng(4)
    for name, (data, _) in HIDDEN.items():
        for n in range(12):
            cut = bytearray(data[: rng.integers(len(data))] if n % 2 else data)
            for place in rng.integers(0, max(len(cut), 1), 8 if cut else 0):
                cut[place] = rng.integers(256)
            (tmp_path / f"{n}-{name}").write_bytes(cut)
            metadata_of(tmp_path / f"{n}-{name}")
    assert scan(tmp_path, [PLATE]).files == 12 * len(HIDDEN)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_picture_cut_anywhere_is_broken(tmp_path, format):
    whole = saved(format)
    for length in range(16, len(whole), 97):
        (tmp_path / "cut").write_bytes(whole[:length])
        assert metadata_of(tmp_path / "cut") == ("broken",)
