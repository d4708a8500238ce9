"""verify --against: a sound anonymized folder passes, and whatever is planted in it is found and named."""

import io
import json
import shutil
import subprocess

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from stand_ins import Agrees, Fills, edit

from platemint import run_pipeline
from platemint.pipeline.anonymize import anonymizer
from platemint.pipeline.anonymize.audit import sha256_of_files
from platemint.pipeline.anonymize.compare import _is_ours, verify_against
from platemint.pipeline.anonymize.run import anonymize
from platemint.pipeline.anonymize.search import Hit
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.recipe import AnonymizeRecipe
from platemint.pipeline.report.audit_page import SHA256_COMMAND

BOX = (40, 30, 70, 26)  # x, y, width, height
ITEM = {"id": "00:11:22:33:44:55:66:77", "outcome": "redacted", "reason": "reader"}
PLATES = {"one.png": "ABC1234", "two.jpg": "XYZ9876", "KLM4567.png": "KLM4567", "four.bmp": "DEF5678"}


def painted(plates):
    for plate in edit(plates):
        plate.source_mask = np.zeros_like(plate.target_mask)
    return plates


def photograph(seed):
    """Soft noise, as a JPEG holds it, uint8 (120, 200, 3)."""
    few = np.random.default_rng(seed).integers(0, 255, (12, 20, 3), np.uint8)
    return Image.fromarray(few).resize((200, 120), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def networks():
    """In place of networks: texts are written across plates, and whatever is read is right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anonymizer, "Editor", lambda options, private: painted)
        patch.setattr(anonymizer, "Filter", Agrees)
        patch.setattr(anonymizer, "TextFinder", Fills)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory, networks):
    """A corpus of frames in OpenALPR's form and its anonymized copy, made without networks."""
    root = tmp_path_factory.mktemp("made")
    (root / "corpus").mkdir()
    for seed, (name, text) in enumerate(PLATES.items()):
        photograph(seed).save(root / "corpus" / name, exif=_exif() if name.endswith("jpg") else b"")
        x, *rest = BOX
        note = "\t".join([name, *map(str, (x + (text in name), *rest)), text])
        (root / "corpus" / name).with_suffix(".txt").write_text(note + "\n")
    anonymize(AnonymizeRecipe(out=str(root / "out"), source={"path": str(root / "corpus")}))
    return root


def _exif():
    exif = Image.Exif()
    exif[0x010E] = "a car"
    return exif.tobytes()


@pytest.fixture
def folders(made, tmp_path):
    """The anonymized folder, to be spoilt, and its corpus."""
    shutil.copytree(made / "out", tmp_path / "out")
    return tmp_path / "out", made / "corpus"


def faults(folders):
    return verify_against(*folders).faults


def test_a_sound_folder_passes(folders):
    report = verify_against(*folders)
    assert report.faults == []
    assert (report.pictures, report.plates, report.compared, report.lossy) == (4, 4, 4, 1)
    said = json.loads((folders[0] / "audit.json").read_text())
    assert report.files == said["source_texts"]["files"] == 8 and said["kept"]["picture_paths"] == 3
    assert 0 < report.mean < 2 and "no fault" in report.summary
    assert not (folders[0] / "KLM4567.png").exists()


def spelled(folder, text):
    """The first place of a text in each of the audit's two files, as a hit."""
    data = {name: (folder / name).read_bytes().upper() for name in ("audit.json", "audit.html")}
    return [Hit(name, "bytes", some.index(text.encode()), text) for name, some in data.items() if text.encode() in some]


def test_the_audit_s_own_words_and_figures_are_no_plates(folders):
    out = folders[0]
    audit = json.loads((out / "audit.json").read_text())
    figures = str(audit["pixels"]["pixels"]), audit["made_with"]["generator, sha256"][7:12].upper()
    for text in ("FAMILY", "NUMPY", "SETTINGS", "17672F", *figures):
        assert (found := spelled(out, text)) and all(_is_ours(hit, out) for hit in found), text
    assert not _is_ours(Hit("one.txt", "bytes", 0, "FAMILY"), out)
    assert not _is_ours(Hit("audit.html", "bytes", 9999, "QXZWKV"), out)


@pytest.mark.parametrize("name, planted", [("audit.json", '"note": "{}",'), ("audit.html", "<p>{}</p>")])
@pytest.mark.parametrize("text", ["ABC1234", "96000"])
def test_a_text_in_the_audit_is_found(folders, tmp_path, name, planted, text):
    """Also one that is a figure of the audit as well."""
    out, corpus = folders[0], tmp_path / "corpus"
    shutil.copytree(folders[1], corpus)
    (corpus / "one.txt").write_text("\t".join(["one.png", *map(str, BOX), text]))
    path = out / name
    begin = 1 if name.endswith("json") else path.read_text().index("</style>") + 8
    path.write_text(path.read_text()[:begin] + planted.format(text) + path.read_text()[begin:])
    assert any(f.startswith(f"{name}: spells {text}") for f in faults((out, corpus)))


def test_a_label_that_is_left_is_found(folders):
    note = folders[0] / "one.txt"
    fields = note.read_text().split("\t")
    note.write_text("\t".join([*fields[:-1], "abc 1234\n"]))
    found = faults(folders)
    assert any(f.startswith("one.png: is labelled ABC 1234") for f in found)
    assert any(f.startswith("one.txt: spells ABC1234") and "bytes" in f for f in found)


def test_a_label_that_reads_like_a_real_one_is_found_where_no_byte_tells(folders):
    corpus = folders[1].parent / "with-o"
    shutil.copytree(folders[1], corpus)
    (corpus / "one.txt").write_text("\t".join(["one.png", *map(str, BOX), "AOC1234"]))
    note = folders[0] / "one.txt"
    note.write_text("\t".join([*note.read_text().split("\t")[:-1], "A0C1234\n"]))
    found, changed = faults((folders[0], corpus))
    assert found == "one.png: is labelled A0C1234, which reads like a text of the corpus"
    assert changed.startswith("audit.json: output.sha256: says")


def test_a_file_name_that_is_left_is_found(folders):
    out = folders[0]
    new = next(path for path in out.glob("*.png") if path.name != "one.png")
    new.rename(out / "klm-4567.png")
    new.with_suffix(".txt").rename(out / "klm-4567.txt")
    assert any(f.startswith("klm-4567.png: spells KLM4567") and "name" in f for f in faults(folders))


@pytest.mark.parametrize("name", ["one.png", "two.jpg"])
def test_metadata_is_found(folders, name):
    path = folders[0] / name
    picture = Image.open(io.BytesIO(path.read_bytes()))
    picture.save(path, exif=_exif(), **({"quality": "keep"} if name.endswith("jpg") else {}))
    assert f"{name}: holds metadata: EXIF" in faults(folders)


@pytest.mark.parametrize("name", ["one.png", "four.bmp"])
def test_one_pixel_outside_is_found(folders, name):
    path = folders[0] / name
    pixels = np.array(Image.open(path))
    pixels[100, 150, 2] ^= 1
    Image.fromarray(pixels).save(path)
    assert any(
        f == f"{name}: differs outside of its plates, in 1 pixels, the first at 150, 100" for f in faults(folders)
    )


def test_one_pixel_outside_is_found_where_the_name_was_a_plate(folders):
    (path,) = [path for path in folders[0].glob("*.png") if path.name not in PLATES]
    pixels = np.array(Image.open(path))
    pixels[100, 150, 2] ^= 1
    Image.fromarray(pixels).save(path)
    assert any(f.startswith(f"{path.name}: differs outside of its plates, in 1 pixels") for f in faults(folders))


def test_a_change_outside_of_a_jpeg_is_found(folders):
    path = folders[0] / "two.jpg"
    old = Image.open(path)
    pixels = np.array(old)
    pixels[100:104, 150:154] ^= 64
    Image.fromarray(pixels).save(path, qtables=old.quantization, subsampling=2)
    assert any(f.startswith("two.jpg: differs outside") for f in faults(folders))


@pytest.mark.parametrize(
    "section, name, more",
    [
        ("plates", "redacted", 1),
        ("pictures", "written", 1),
        ("pixels", "outside", 1),
        ("source_texts", "bytes", 1),
        ("kept", "picture_paths", 1),
        ("kept", "columns", ["size"]),
        ("output", "sha256", "0"),
    ],
)
def test_a_forged_audit_is_found(folders, section, name, more):
    path = folders[0] / "audit.json"
    audit = json.loads(path.read_text())
    audit[section][name] += more
    path.write_text(json.dumps(audit))
    found = [f.split(" says")[0] for f in faults(folders) if "given_up" not in f]
    assert found == [f"audit.json: {section}.{name}:"]


def _redacted(audit):
    audit["plates"]["redacted"] += 1
    audit["reasons"]["reader"] = 1


@pytest.mark.parametrize(
    "forge, told",
    [
        (_redacted, "lists 0 redacted, the figures say 1"),
        (lambda audit: audit["given_up"].append(ITEM), "lists 1 redacted, the figures say 0"),
        (lambda audit: audit["given_up"].append(ITEM | {"outcome": "kept"}), "lists 1 kept, the figures say 0"),
        (lambda audit: audit["given_up"].append(ITEM), "its reasons are not those of the figures"),
        (lambda audit: audit["given_up"].extend([ITEM, ITEM]), "lists an id twice"),
        (lambda audit: audit.pop("given_up"), "is missing or damaged"),
        (lambda audit: audit.update(given_up=[1]), "is missing or damaged"),
    ],
)
def test_a_forged_list_is_found(folders, forge, told):
    path = folders[0] / "audit.json"
    audit = json.loads(path.read_text())
    forge(audit)
    path.write_text(json.dumps(audit))
    assert f"audit.json: given_up: {told}" in faults(folders)


@pytest.mark.parametrize("content", [None, "[]", "{"])
def test_an_audit_that_is_none_is_found(folders, content):
    path = folders[0] / "audit.json"
    path.write_text(content) if content else path.unlink()
    assert faults(folders) == ["audit.json: is missing or damaged: nothing says what was done"]


def test_the_command_that_the_audit_names_makes_its_hash_again(folders):
    said = json.loads((folders[0] / "audit.json").read_text())["output"]
    assert hash_by_command(folders[0]) == said["sha256"]
    (folders[0] / "one.txt").write_bytes((folders[0] / "one.txt").read_bytes()[::-1])  # as many bytes
    assert any(fault.startswith("audit.json: output.sha256:") for fault in faults(folders))


@pytest.mark.parametrize("paths", [[], ["b", "a b/ä\n.txt", "a.b", "sub/audit.json", "-c", "a\\b"]])
def test_the_hash_is_the_command_s_whatever_files_are_called(tmp_path, paths):
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    made = sha256_of_files(tmp_path)
    (tmp_path / "audit.json").write_text("{}")
    (tmp_path / "audit.html").write_text("<p>")
    assert made == sha256_of_files(tmp_path) == hash_by_command(tmp_path)


def hash_by_command(folder):
    return subprocess.run(SHA256_COMMAND, shell=True, cwd=folder, capture_output=True, text=True).stdout.split()[0]


def test_columns_that_stay_are_listed_and_are_no_texts_found(tmp_path, networks):
    """A plate may read like a column's name, which is in the audit and on its page."""
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    rows = ["path,text,source,licence,split"]
    for seed, text in enumerate(["ABC1234", "LICENCE"]):
        photograph(seed).save(corpus / f"{seed}.png")
        rows.append(f"{seed}.png,{text},camera 7,MIT,train")
    (corpus / "labels.csv").write_text("\n".join(rows) + "\n")
    audit = anonymize(AnonymizeRecipe(out=str(out), source={"path": str(corpus)}))
    assert audit["kept"] == {"picture_paths": 2, "columns": ["source", "licence", "split"]}
    assert "camera 7,MIT,train" in (out / "labels.csv").read_text() and faults((out, corpus)) == []


def test_a_missing_and_a_broken_picture_are_found(folders):
    (folders[0] / "one.png").unlink()
    broken = folders[0] / "two.jpg"
    broken.write_bytes(broken.read_bytes()[:-400])
    found = faults(folders)
    assert any(f.startswith("one: row 1: no such picture") for f in found)
    assert any(f.startswith("two.jpg: broken picture") for f in found)
    assert any(f.startswith("audit.json: pictures.written: says 4") for f in found)


def test_what_does_not_belong_there_is_found(folders):
    (folders[0] / "notes.md").write_text("seen")
    (folders[0] / ".anonymizing").mkdir()
    (folders[0] / "link").symlink_to(folders[1])
    found = faults(folders)
    assert "notes.md: is no file of the dataset; remove it" in found
    assert any(f.startswith(".anonymizing: the run has not ended") for f in found)
    assert any(f.startswith("link: ") for f in found)


def test_a_folder_of_another_format_is_a_fault_and_still_searched(folders, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "labels.csv").write_text("path,text\nXYZ9876.png,A\n")
    found = faults((tmp_path / "other", folders[1]))
    assert any("is no dataset of the corpus's format, openalpr" in f for f in found)
    assert any("spells XYZ9876" in f for f in found)


def test_the_command_says_what_it_found(folders, tmp_path):
    call = CliRunner().invoke(run_pipeline.main, ["verify", str(folders[0]), "--against", str(folders[1])])
    assert call.exit_code == 0 and call.output.rstrip().endswith("no fault")
    (folders[0] / "ABC1234.txt").write_text("")
    call = CliRunner().invoke(run_pipeline.main, ["verify", str(folders[0]), "--against", str(folders[1])])
    assert call.exit_code == 1 and "spells ABC1234" in call.output
    call = CliRunner().invoke(run_pipeline.main, ["verify", str(folders[0]), "--format", "yolo"])
    assert call.exit_code == 2
    with pytest.raises(PlatemintError, match="no such folder"):
        verify_against(tmp_path / "nowhere", folders[1])


def _rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


KINDS = {
    "tiff.tif": lambda p, path: p.save(path, tiffinfo={270: "a car"}),
    "webp.webp": lambda p, path: p.save(path, quality=60),
    "gray.jpg": lambda p, path: p.convert("L").save(path),
    "cmyk.jpg": lambda p, path: p.convert("CMYK").save(path),
    "turned.jpg": lambda p, path: p.rotate(90, expand=True).save(path, exif=_rotated()),
    "progressive.jpg": lambda p, path: p.crop((0, 0, 197, 113)).save(path, progressive=True, subsampling=2),
    "half.jpg": lambda p, path: p.save(path, subsampling=1, quality=40),
    "alpha.png": lambda p, path: p.convert("RGBA").save(path),
    "palette.png": lambda p, path: p.quantize(64).save(path),
    "gray.bmp": lambda p, path: p.convert("L").save(path),
}


def test_every_kind_of_picture_with_tilted_plates_is_sound(tmp_path, networks):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rows = ["path,text,x1,y1,x2,y2,x3,y3,x4,y4"]
    for seed, (name, save) in enumerate(KINDS.items()):
        save(photograph(seed), corpus / name)
        rows.append(f"{name},QRS{seed}4{seed}8,60,40,130,52,128,80,58,66")
    (corpus / "corners.csv").write_text("\n".join(rows) + "\n")
    anonymize(AnonymizeRecipe(out=str(tmp_path / "out"), source={"path": str(corpus)}))
    report = verify_against(tmp_path / "out", corpus)
    assert report.faults == [] and report.compared == len(KINDS) and report.lossy == 5
    spoilt = tmp_path / "out" / "tiff.tif"
    Image.open(spoilt).save(spoilt, tiffinfo={270: "a car"})
    assert "tiff.tif: holds metadata: tag 270" in verify_against(tmp_path / "out", corpus).faults


NAMED = {"ABC1234_1": "ABC1234", "XYZ9876_2": "XYZ9876", "bare": ""}


@pytest.mark.parametrize("replaced", [True, False])
def test_pictures_named_after_their_plates_are_read_again_even_without_any(tmp_path, networks, monkeypatch, replaced):
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    for seed, name in enumerate(NAMED):
        photograph(seed).save(corpus / f"{name}.png")
    if not replaced:
        monkeypatch.setattr(Agrees, "decide", lambda self, scores: "reader")
    audit = anonymize(AnonymizeRecipe(out=str(out), source={"path": str(corpus)}))
    assert audit["plates"] | ({"replaced": 2} if replaced else {"redacted": 2}) == audit["plates"]
    assert verify_against(out, corpus).faults == []
    next(out.glob("*_1.png")).unlink()
    assert any(f.startswith("audit.json: pictures.written: says 2") for f in faults((out, corpus)))


def test_a_folder_from_which_all_is_withheld_is_sound(tmp_path, made, networks, monkeypatch):
    monkeypatch.setattr(Agrees, "decide", lambda self, scores: "reader")
    recipe = AnonymizeRecipe(out=str(tmp_path / "out"), source={"path": str(made / "corpus")}, on_doubt="withhold")
    assert anonymize(recipe)["pictures"]["withheld"] == 4
    assert faults((tmp_path / "out", made / "corpus")) == []


def test_pictures_and_texts_that_are_set_aside_are_counted_and_searched(tmp_path, made, networks):
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    shutil.copytree(made / "corpus", corpus)
    whole = (corpus / "two.jpg").read_bytes()
    (corpus / "two.jpg").write_bytes(whole[: len(whole) // 2])
    (corpus / "bare.jpg").write_bytes(whole[: len(whole) // 2])
    (corpus / "one.txt").write_text("one.png\t900\t900\t9\t9\tABC1234\n")
    audit = anonymize(AnonymizeRecipe(out=str(out), source={"path": str(corpus)}))
    assert audit["pictures"]["set_aside"] == 3 and faults((out, corpus)) == []
    (out / "ABC1234").touch()
    assert any(f.startswith("ABC1234: spells ABC1234") for f in faults((out, corpus)))
