"""edit: any size in, the same size out, nothing changed but the strokes, whatever else is in the batch."""

import csv
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from platemint.pipeline import edit as edit_module
from platemint.pipeline.edit import Editor, contact_sheet, distinct, finish, ground_of, unlike
from platemint.pipeline.edit_folder import edit_folder
from platemint.pipeline.filter import Filter
from platemint.pipeline.networks import editable_alphabet
from platemint.pipeline.plate import ALPHABET, SEPARATORS, Plate, PlatemintError, kind_of
from platemint.pipeline.recipe import Edit, Filtering, Limits
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.render.layout import spelled_with
from platemint.pipeline.storage import read_picture
from platemint.run_pipeline import main

SIZES = ((24, 94), (48, 160), (61, 203), (156, 320), (12, 30), (400, 900))


@pytest.fixture(scope="module", params=[False, True], ids=["strokes", "private"])
def editor(untrained, request):
    """In float32, where batches differ by less than a level; in bfloat16 a mask's threshold may fall the other way."""
    return Editor(untrained.model_copy(update={"precision": "float32"}), private=request.param)


def plates(sizes=SIZES, seed=0):
    rng, layout = np.random.default_rng(seed), load_layouts(["br-mercosur"])["br-mercosur"]
    made = []
    for height, width in sizes:
        plate = render_plate(layout, random_text(layout.positions, rng), rng)
        plate.image = cv2.resize(plate.image, (width, height))
        plate.target = random_text(layout.positions, rng)
        made.append(plate)
    return made


def test_edits_keep_size_and_take_the_target(editor):
    before = plates()
    after = editor(before)
    for a, b in zip(before, after):
        assert b.image.shape == a.image.shape == b.original.shape and b.image.dtype == np.uint8
        assert (b.text, b.original_text) == (a.target, a.text)
        assert b.source_mask.shape == b.target_mask.shape == b.image.shape[:2]
        assert len(b.slots) == len(b.text)


CELL = torch.tensor([[[0.5, 0.5], [0.05, 0], [0, 0.3]]]).repeat(2, 1, 1)  # on its row, and as it stands


@pytest.mark.parametrize("cell", [None, CELL], ids=["strokes", "private"])
@pytest.mark.parametrize("height, width", SIZES)
def test_pixels_outside_both_masks_are_the_source_s_bit_for_bit(height, width, cell):
    """Masks are blocks at the network's size; whatever ink and correction say, the rest of the photograph stays."""
    plate = plates([(height, width)])[0]
    layers = np.random.default_rng(0).uniform(0, 1, (48, 160, 11)).astype(np.float32)
    layers[..., :2] = 0
    layers[10:40, 30:50, 0], layers[10:40, 60:80, 1] = 1, 1
    edited = finish(plate, ground_of(plate, layers, cell), layers, np.zeros((12, 3, 2), np.float32))
    ink = np.maximum(edited.source_mask, edited.target_mask)
    far = cv2.dilate(ink, np.ones((3, 3), np.uint8)) < (0.06 * 255 - 1 if cell is None else 1)
    assert far.mean() > 0.3
    assert np.array_equal(edited.image[far], plate.image[far])
    assert (edited.image != plate.image).any(-1)[ink == 255].mean() > 0.9


def test_private_edits_paint_whole_cells_anew():
    """Of a plate with noise between its strokes nothing is left inside the cells; without, the noise stays there."""
    plate = plates([(48, 160)])[0]
    plate.text, plate.target = "A", "B"
    plate.image = np.random.default_rng(1).integers(0, 255, plate.image.shape, np.uint8)
    layers = np.zeros((48, 160, 11), np.float32)
    layers[20:28, 78:82, :2] = 1
    layers[..., 8:] = 0.5
    slots = np.zeros((12, 3, 2), np.float32)
    private, other = (finish(plate, ground_of(plate, layers, cell), layers, slots) for cell in (CELL, None))
    inside = np.s_[14:18, 74:86]  # of the cell, beside its stroke
    assert np.ptp(private.image[inside]) <= 1 and (private.source_mask[inside] == 255).all()
    assert np.array_equal(other.image[inside], plate.image[inside])


def test_private_characters_stand_evenly_whatever_stood_there():
    """Of the network's own slots none is like another; of private ones all are, but for at most two gaps."""
    before = plates([(48, 160)] * 8, seed=3)
    spread = {}
    for private in (False, True):
        edited = Editor(Edit(), private)(before)
        steps = np.diff([p.slots[:, 0, 0] for p in edited], axis=1)
        spread[private] = np.median(np.abs(steps - np.median(steps, 1, keepdims=True)), 1)  # no gap counts
    assert (spread[True] < 1e-5).all() and (spread[False] > 1e-4).all()


def test_the_text_in_between_is_another_everywhere_and_of_the_same_pattern():
    alphabet = ALPHABET + "가나다"
    for text in ("ABC-1234", "皖A·12345", "粤A1234警", "000000000000", "ZZZZZZZZZZZZ", "ÖÄ-AB 1", "12가3456"):
        other = unlike(text, alphabet)
        assert all((a == b) == (a in SEPARATORS + "警") for a, b in zip(text, other, strict=True))
        assert [*map(kind_of, text)] == [*map(kind_of, other)] and other == unlike(text, alphabet)


def test_the_source_is_not_written_to(editor):
    before = plates()
    kept = [p.image.copy() for p in before]
    editor(before)
    assert all(np.array_equal(p.image, image) for p, image in zip(before, kept))


@pytest.fixture(params=[False, True], ids=["plain", "grainy"])
def grainy(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(edit_module, "grain_of", lambda *_, **__: None)
    return request.param


def equal_but_for_rounding(a, b, grainy):
    """In float32 a matrix product of more rows may be added up in another order; compression may then round otherwise."""
    apart = np.abs(a.astype(int) - b)
    return apart.max() <= 1 or (grainy and apart.mean() < 0.01 and apart.max() <= 16)


def test_an_edit_does_not_depend_on_its_batch(editor, grainy):
    def several():
        made = plates(SIZES * 2)
        made[1].target, made[6].target, made[8].text = (
            "AB",
            "ABCDEF-12345",
            "X1",
        )  # texts of other lengths than the rest
        return made

    together = editor(several())
    for i in (0, 1, 3, 6, 7, 8, 11):
        alone = editor([several()[i]])[0]
        assert equal_but_for_rounding(alone.image, together[i].image, grainy), i


def test_edits_of_one_photograph_are_what_each_alone_would_be(editor, grainy):
    """Though what they have in common is made once; the photograph of another text is another."""
    one, other = plates(SIZES[2:4])
    targets = ["AB12", "XY-98765", "Q"]
    several = [replace(p, target=target) for target in targets for p in (one, other, replace(one, text="Z1"))]
    firsts, of = distinct(several)
    assert len(firsts) == 3 and of == [0, 1, 2] * 3
    for plate, together in zip(several, editor(several), strict=True):
        alone = editor([plate])[0]
        assert (together.text, together.original_text) == (plate.target, plate.text)
        assert equal_but_for_rounding(alone.image, together.image, grainy)
        assert np.abs(alone.slots - together.slots).max() < 1e-4
        assert np.abs(alone.source_mask.astype(int) - together.source_mask).max() <= 1


@pytest.mark.parametrize("target", ["", "ABCDEFGHIJKLM", "AB♥"])
def test_a_target_that_cannot_be_written_is_refused(editor, target):
    plate = plates(SIZES[:1])[0]
    plate.target = target
    with pytest.raises(PlatemintError, match="target"):
        editor([plate])


def test_a_device_that_is_not_there_is_named(untrained):
    with pytest.raises(PlatemintError, match="device: mps is not available"):
        Editor(untrained.model_copy(update={"device": "mps"}))


def test_contact_sheet_shows_all_plates(editor):
    sheet = contact_sheet(editor(plates()))
    assert sheet.shape == (3 * 64, 2 * 4 * 192, 3) and sheet.std() > 10


@pytest.fixture
def folder(tmp_path):
    """Three good pictures and four that cannot be edited, in the SPG authors' form."""
    (tmp_path / "i_s").mkdir()
    for number, plate in enumerate(plates(SIZES[:3]), 1):
        cv2.imwrite(str(tmp_path / "i_s" / f"{number}.jpg"), plate.image)
    (tmp_path / "i_s" / "empty.jpg").write_bytes(b"")
    cv2.imwrite(str(tmp_path / "i_s" / "long.jpg"), plates(SIZES[:1])[0].image)
    (tmp_path / "gt.txt").write_text(
        "1.jpg AB·1234\n2.jpg AB·12\n3.jpg xyz-789\nempty.jpg A1\nlong.jpg ABCDEFGHIJKLMN\ngone.jpg A1\n",
        encoding="utf8",
    )
    (tmp_path / "gt2.txt").write_text("1.jpg CD·5678\n2.jpg CD·56\n3.jpg ABC-123\nlong.jpg A1\n", encoding="utf8")
    return tmp_path


def test_the_spg_authors_call(folder, untrained, tmp_path):
    out = tmp_path / "out"
    summary = edit_folder(folder, folder / "gt.txt", folder / "gt2.txt", untrained.checkpoint, out)
    assert re.search(
        r"3 plates edited, . of them under the default thresholds \(see scores.csv\); 3 set aside", summary
    )
    for name in ("empty.jpg", "long.jpg", "gone.jpg"):
        assert name in summary
    assert (out / "gt.txt").read_text(encoding="utf8") == "1.jpg AB·1234\n2.jpg AB·12\n3.jpg XYZ-789\n"
    for number, size in enumerate(SIZES[:3], 1):
        assert cv2.imread(str(out / f"{number}.jpg")).shape[:2] == size
    assert cv2.imread(str(out / "sheet.png")) is not None


def test_scores_are_those_of_the_filter(folder, untrained, tmp_path):
    """Those that `generate` would store of the same edits, and the reason it would drop them for."""
    out = tmp_path / "out"
    summary = edit_folder(folder, folder / "gt.txt", folder / "gt2.txt", untrained.checkpoint, out)
    rows = list(csv.DictReader((out / "scores.csv").open(encoding="utf8")))
    assert list(rows[0]) == [
        "file",
        "text",
        "reading",
        "stability",
        "slots",
        "mask_reader",
        "reader",
        "residue",
        "source_reader",
        "reason",
    ]
    texts = [("AB·1234", "CD·5678"), ("AB·12", "CD·56"), ("XYZ-789", "ABC-123")]
    images = [read_picture(folder / f"i_s/{n}.jpg")[0] for n in (1, 2, 3)]
    options = Edit(checkpoint=untrained.checkpoint)
    plates = [Plate(image, old, target=new, source=new) for image, (new, old) in zip(images, texts)]
    editor, judge = Editor(options), Filter(Filtering(), options)
    editor.references = editor.collected(plates, judge.reader)
    for row, plate in zip(rows, judge(editor(plates)), strict=True):
        assert (row["text"], row["reading"], row["reason"]) == (plate.text, plate.reading, plate.reason)
        assert all(float(row[name]) == pytest.approx(score, abs=1e-4) for name, score in plate.scores.items())
    assert f"{sum(bool(row['reason']) for row in rows)} of them under" in summary and any(row["reason"] for row in rows)


def test_nothing_to_edit_is_unusable_input(folder, untrained, tmp_path):
    (folder / "gt.txt").write_text("gone.jpg A1\nempty.jpg A1\n")
    with pytest.raises(PlatemintError, match="not one picture could be edited; 2 set aside\n  gone.jpg: no such file"):
        edit_folder(folder, folder / "gt.txt", None, untrained.checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../outside.jpg", "{folder}/i_s/1.jpg", "sheet.png", "gt.txt", "noext", "1.xyz"])
def test_a_name_never_leads_out_of_the_folder_nor_over_its_own_files(folder, untrained, tmp_path, name):
    name = name.format(folder=folder)
    before = (folder / "i_s" / "1.jpg").read_bytes()
    for target in (
        folder / "outside.jpg",
        folder / "i_s" / "sheet.png",
        folder / "i_s" / "gt.txt",
        folder / "i_s" / "noext",
    ):
        target.write_bytes(before)
    (folder / "gt.txt").write_text(f"{name} AB·1234\n2.jpg AB·12\n", encoding="utf8")
    summary = edit_folder(folder, folder / "gt.txt", folder / "gt2.txt", untrained.checkpoint, tmp_path / "out")
    assert "1 plates edited" in summary and "; 1 set aside" in summary and "plain name" in summary
    assert (folder / "i_s" / "1.jpg").read_bytes() == (folder / "outside.jpg").read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["2.jpg", "gt.txt", "scores.csv", "sheet.png"]


def test_the_pictures_own_folder_is_no_place_for_results(folder, untrained):
    with pytest.raises(PlatemintError, match="would be overwritten"):
        edit_folder(folder, folder / "gt.txt", None, untrained.checkpoint, folder / "i_s")


def test_edit_on_the_command_line_reads_what_it_is_not_told(folder, tmp_path):
    """With what ships: the reader reads the source texts, and no traceback on a missing checkpoint."""
    arguments = ["edit", "--input_dir", folder, "--input_text", folder / "gt.txt", "--out", tmp_path / "out"]
    run = CliRunner().invoke(main, list(map(str, arguments)))
    assert run.exit_code == 0 and " set aside" in run.output, run.output
    run = CliRunner().invoke(main, list(map(str, [*arguments, "--checkpoint", "nowhere"])))
    assert run.exit_code == 2 and "nowhere" in run.output and "Traceback" not in run.output


def test_shipped_checkpoints_write_what_they_are_told():
    """On rendered plates never trained on, our own reader reads the edits nearly as often as it reads the sources."""
    rng, layouts = (
        np.random.default_rng(2**40),
        list(spelled_with(editable_alphabet(Edit()), load_layouts())[0].values()),
    )
    made = []
    for i in range(52):
        layout = layouts[i % len(layouts)]
        plate = render_plate(layout, random_text(layout.positions, rng), rng, severity=0.4)
        plate.target = random_text(layout.positions, rng)
        made.append(plate)
    judge = Filter(Limits(), Edit())
    edited = judge(Editor(Edit())(made))
    assert np.median([p.scores["reader"] for p in edited]) > 0.5
    assert np.median([p.scores["residue"] for p in edited]) < 0.05
    still = [
        Plate(p.original, p.original_text, original_text=p.text, target_mask=p.source_mask, slots=p.slots)
        for p in edited
    ]
    assert np.mean([p.scores["reader"] > 0.5 for p in edited]) > 0.7 * np.mean(
        [p.scores["reader"] > 0.5 for p in judge(still)]
    )
