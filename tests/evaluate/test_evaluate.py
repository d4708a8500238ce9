"""Evaluation: what each figure is worth on pictures whose answer is known, and what the command says and writes."""

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from platemint import run_pipeline
from platemint.pipeline import plate
from platemint.pipeline.evaluate import edits as ev
from platemint.pipeline.evaluate import metrics
from platemint.pipeline.plate import Plate, PlatemintError, characters
from platemint.pipeline.render import load_layouts, render_plate
from platemint.pipeline.render.glyphs import FONTS, HELD_OUT_FONTS
from platemint.pipeline.render.layout import HELD_OUT_COUNTRIES, training_layouts
from platemint.pipeline.render.wild import wild_layout

HELD_OUT = ev.held_out_layouts()


def noise(seed=0, shape=(40, 120, 3), low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, shape, np.uint8)


def small(pair, height=32):
    """A pair at a size that costs no time."""
    size = round(height * pair[0].image.shape[1] / pair[0].image.shape[0]), height
    return tuple(replace(p, image=cv2.resize(p.image, size), mask=cv2.resize(p.mask, size)) for p in pair)


@pytest.fixture(scope="module")
def pairs():
    return [small(ev.rendered_pair(HELD_OUT, 3, number)) for number in range(4)]


@pytest.fixture(scope="module")
def reader(untrained):
    return ev.FeatureReader(untrained)


# ---------------------------------------------------------------------------------------------------------- the figures


def test_a_picture_beside_itself_is_perfect(reader):
    picture = noise()
    figures = metrics.likeness(picture, picture, np.ones(picture.shape[:2], bool))
    assert (
        figures["mse"] == figures["region_mse"] == 0 and figures["psnr"] == figures["region_psnr"] == metrics.BEST_PSNR
    )
    assert figures["ssim"] == pytest.approx(1) and figures["ms_ssim"] == pytest.approx(1)
    features = reader([picture])[0]
    assert metrics.distance(features, features) == [0]
    mask = noise(1, (40, 120))
    assert metrics.mask_overlap(mask, mask) == 1


@pytest.mark.parametrize("step", [1, 10, 51])
def test_a_known_difference_gives_the_error_it_must(step):
    truth = noise(high=200)
    inside = np.zeros(truth.shape[:2], bool)
    inside[:10] = True
    picture = truth.copy()
    picture[inside] += np.uint8(step)
    figures = metrics.likeness(picture, truth, inside)
    assert figures["region_mse"] == pytest.approx((step / 255) ** 2)
    assert figures["mse"] == pytest.approx((step / 255) ** 2 / 4)
    assert figures["region_psnr"] == pytest.approx(-20 * np.log10(step / 255))
    assert np.isnan(metrics.mean_squared_error(picture, truth, np.zeros_like(inside)))


def test_more_noise_is_worse_in_every_figure(pairs, reader):
    truth = pairs[0][1].image
    rng = np.random.default_rng(0)
    everywhere = np.ones(truth.shape[:2], bool)
    pictures = [np.clip(truth + rng.normal(0, s, truth.shape), 0, 255).astype(np.uint8) for s in (4, 16, 64)]
    figures = [metrics.likeness(picture, truth, everywhere) for picture in pictures]
    for name in ("psnr", "ssim", "ms_ssim", "region_psnr"):
        assert figures[0][name] > figures[1][name] > figures[2][name], name
    near, middle, far = (metrics.distance(reader([picture])[0], reader([truth])[0])[0] for picture in pictures)
    assert 0 < near < middle < far


def test_similarity_is_the_published_formula():
    a, b = (metrics.luma(noise(seed, (24, 30, 3))) for seed in (0, 1))
    steps = np.arange(-5, 6)
    window = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * 1.5**2))
    window /= window.sum()
    views = [np.lib.stride_tricks.sliding_window_view(x, (11, 11)) for x in (a, b)]
    mean_a, mean_b = ((v * window).sum((2, 3)) for v in views)
    off_a, off_b = (v - m[..., None, None] for v, m in zip(views, (mean_a, mean_b)))
    var_a, var_b, both = ((product * window).sum((2, 3)) for product in (off_a**2, off_b**2, off_a * off_b))
    c1, c2 = 2.55**2, 7.65**2
    contrast = (2 * both + c2) / (var_a + var_b + c2)
    whole = contrast * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    assert metrics.similarity(a, b) == pytest.approx((whole.mean(), contrast.mean()))


def test_similarity_agrees_with_a_package():
    import pytorch_msssim

    a, b = (metrics.luma(noise(seed, (24, 90, 3))) for seed in (0, 1))
    theirs = pytorch_msssim.ssim(*(torch.from_numpy(x)[None, None] for x in (a, b)), data_range=255)
    assert metrics.similarity(a, b)[0] == pytest.approx(float(theirs), abs=1e-6)


def test_distance_is_of_directions_over_channels():
    x, y = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    x[:, 0], y[:, 1] = 5, 7
    assert metrics.distance([x, x], [y, 9 * x]) == pytest.approx([2])  # at right angles: 2; alike but for length: 0


def test_stroke_width_of_bars():
    for width in (1, 2, 6):
        mask = np.zeros((80, 200), np.uint8)
        for x in (20, 80, 140):
            mask[10:70, x : x + width] = 255
        assert metrics.stroke_width(mask) == pytest.approx(width / (1 + width / 60), rel=0.02)
        assert metrics.stroke_width(np.kron(mask, np.ones((2, 2), np.uint8))) == pytest.approx(
            2 * metrics.stroke_width(mask), rel=0.02
        )
    assert np.isnan(metrics.stroke_width(np.zeros((4, 4), np.uint8)))


def test_ink_colour_is_the_median_under_the_mask():
    picture, mask = np.full((10, 10, 3), 255, np.uint8), np.zeros((10, 10), np.uint8)
    mask[2:5] = 255
    picture[2:5, :9] = 0  # and a few pixels of the plate
    ink, white = metrics.ink_colour(picture, mask), metrics.ink_colour(picture, 255 - mask)
    assert (
        metrics.colour_difference(ink, white) == pytest.approx(100, abs=0.1)
        and metrics.colour_difference(ink, ink) == 0
    )
    assert np.isnan(metrics.colour_difference(ink, metrics.ink_colour(picture, 0 * mask)))


@pytest.mark.parametrize(
    "a, b, near",
    [
        ("ABC123", "ABC123", True),
        ("ABC123", "ABC124", True),
        ("ABC123", "ABC12", True),
        ("ABC123", "XABC123", True),
        ("ABC-1O3", "ABC103", True),
        ("ABC123", "ABC145", False),
        ("ABC123", "BAC123", False),
        ("ABC123", "", False),
        ("ABC123", "AB3", False),
    ],
)
def test_one_character_off(a, b, near):
    assert plate.within_one(a, b) is plate.within_one(b, a) is near


def test_a_change_outside_the_region_is_found():
    original = noise()
    mask = np.zeros(original.shape[:2], np.uint8)
    mask[10:20, 10:20] = 255
    image = original.copy()
    image[12:15, 12:15] ^= 128
    plate = Plate(image, "A", original=original, source_mask=mask, target_mask=mask)
    assert metrics.outside_change(plate) == (0, 0)
    image[30, 100] ^= 64
    assert metrics.outside_change(plate) == (pytest.approx(64 / (40 * 120 - 12 * 12)), 64)


# ------------------------------------------------------------------------------------------------------- rendered pairs


def test_held_out_layouts_and_fonts_are_unknown_to_training():
    assert len(HELD_OUT) >= 3 and any(len(layout.rows) == 2 for layout in HELD_OUT)
    assert any(sum(layout.background[0]) < sum(layout.ink[0]) for layout in HELD_OUT)
    assert any(sum(layout.background[0]) > sum(layout.ink[0]) for layout in HELD_OUT)
    known = training_layouts()
    assert {layout.country for layout in HELD_OUT} == set(HELD_OUT_COUNTRIES)
    assert not {layout.name for layout in HELD_OUT} & set(load_layouts())
    assert not {layout.country for layout in HELD_OUT} & {layout.country for layout in known.values()}
    fonts = {font.partition(":")[0] for layout in HELD_OUT for font in layout.fonts}
    assert fonts == set(HELD_OUT_FONTS) and not fonts & set(FONTS)
    drawn = [font for seed in range(50) for font in wild_layout(np.random.default_rng(seed)).fonts]
    assert not {font.partition(":")[0] for font in (*drawn, *(f for k in known.values() for f in k.fonts))} & fonts


def test_a_pair_is_a_function_of_seed_and_number():
    once, again = (ev.rendered_pair(HELD_OUT, 1, 6) for _ in range(2))
    assert all(np.array_equal(a.image, b.image) and a.text == b.text for a, b in zip(once, again))
    other = ev.rendered_pair(HELD_OUT, 2, 6)
    assert other[0].text != once[0].text
    for source, target in (once, other):
        assert len(source.text) == len(target.text) and characters(source.text) != characters(target.text)
        assert source.image.shape == target.image.shape and 24 <= source.image.shape[0] <= 400


def test_a_copy_is_measured_exactly_and_an_edit_that_copies_equals_it(pairs, reader):
    def copy(plates):
        return [
            replace(p, text=p.target, original=p.image, original_text=p.text, source_mask=s.mask, target_mask=s.mask)
            for p, (s, _) in zip(plates, pairs)
        ]

    for measured, (source, target) in zip(ev.measure_pairs(pairs, copy, reader), pairs):
        for columns in measured.figures.values():
            assert "copy" not in columns or columns["edit"] == columns["copy"]
        error = np.mean((source.image / 255 - target.image / 255) ** 2)
        assert measured.figures["mse"]["copy"] == pytest.approx(error) and measured.figures["read"]["copy"] == 0


def test_an_edit_that_equals_the_truth_is_perfect(pairs, reader):
    def perfect(plates):
        return [
            replace(p, image=t.image, text=p.target, original=p.image, source_mask=s.mask, target_mask=t.mask)
            for p, (s, t) in zip(plates, pairs)
        ]

    for measured in ev.measure_pairs(pairs, perfect, reader):
        best = {"mse": 0, "psnr": 100, "ssim": 1, "ms_ssim": 1, "distance": 0, "iou_source": 1, "iou_target": 1}
        assert {name: measured.figures[name]["edit"] for name in best} == pytest.approx(best)
        for name in ("read", "likelihood"):
            assert measured.figures[name]["edit"] == measured.figures[name]["truth"]


def test_what_is_measured_on_a_pair_does_not_depend_on_the_number_of_pairs(untrained, tmp_path):
    alone = untrained.model_copy(update={"references": "none"})  # which are of all pairs
    for count in (1, 2):
        ev.evaluate_edits(ev.Edits(alone, count=count, seed=7), out=tmp_path / str(count))
    one, two = (json.loads((tmp_path / name / "edits.json").read_text(encoding="utf8")) for name in "12")
    assert one["pairs"]["rows"][0]["target"] == two["pairs"]["rows"][0]["target"]
    for name, columns in one["pairs"]["rows"][0]["figures"].items():
        assert columns == pytest.approx(two["pairs"]["rows"][0]["figures"][name], rel=1e-4), name


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three plates of two kinds in split val, one in train, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = ["path,text,split,country"]
    for i, (text, split) in enumerate([("ABC123", "val"), ("DEF456", "val"), ("GHJ789", "val"), ("KLM012", "train")]):
        plate = render_plate(load_layouts()["ar-black"], text, np.random.default_rng(i))
        cv2.imwrite(str(folder / f"{i}.png"), plate.image[..., ::-1])
        rows.append(f"{i}.png,{text},{split},{'XA' if i else 'XB'}")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "labels.csv").write_text("\n".join([*rows, "broken.png,NPR345,val,XA"]), encoding="utf8")
    return folder


def call(*args):
    result = CliRunner().invoke(run_pipeline.main, ["evaluate", "edits", *map(str, args)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_edits_prints_what_it_stores(untrained, corpus, tmp_path):
    names = "--checkpoint", untrained.checkpoint, "--reader", untrained.reader
    result = call(*names, "--source", corpus, "--count", 4, "--seed", 1, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "edits.json").read_text(encoding="utf8"))
    assert report["pairs"]["count"] == 4 == len(report["pairs"]["rows"])
    real = report["corpus"]
    assert real["count"] == 3 == len(real["rows"])  # each photograph of split val once
    assert {name: group["count"] for name, group in real["groups"].items()} == {"XA": 2, "XB": 1}
    assert sum(real["set_aside"].values()) == 1 and "set aside: not a picture" in result.stdout
    assert "broken.png" in (tmp_path / "set_aside.csv").read_text(encoding="utf8")
    assert real["figures"]["read"]["copy"] == 0 == real["figures"]["outside_max"]["edit"]

    stored = {
        ev._cell(value, section.figures[name])
        for kind, section in ev.SECTIONS.items()
        for part in (report[kind], *report[kind]["groups"].values())
        for name, columns in part["figures"].items()
        for value in columns.values()
    }
    printed = set(re.findall(r"(?<= )\d+\.\d+(?=\s)", result.stdout))
    assert len(printed) > 20 and printed <= stored
    for kind, section in ev.SECTIONS.items():
        assert list(report[kind]["figures"]) == list(section.figures)
        for name, figure in section.figures.items():
            assert figure.title in result.stdout
            sheet = tmp_path / f"worst-{section.prefix}{name}.png"
            assert sheet.is_file() if figure.badness else not sheet.exists()
    assert cv2.imread(str(tmp_path / "worst-psnr.png")).shape == (2 * 64, 2 * 4 * 192, 3)


def test_the_worst_come_first_and_are_few():
    section, sheets = ev.SECTIONS["pairs"], {}
    worst = ev.Worst(section, sheets)
    blank = np.zeros((8, 8, 3), np.uint8)
    for number in range(100):
        plate = Plate(blank, "A", original=blank, source_mask=blank[..., 0], target_mask=blank[..., 0])
        value = float(number * 37 % 100) if number else float("nan")
        worst.see(ev.Measured(plate, {name: {"edit": value} for name in section.figures}, (), {}), number)
    assert [-badness for badness, _, _ in sheets["psnr"]] == list(range(1, 1 + ev.SHOWN))
    assert [badness for badness, _, _ in sheets["distance"]] == list(range(99, 99 - ev.SHOWN, -1))


def test_faults_of_a_user_are_wrong_use(untrained, corpus, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    good = "--checkpoint", untrained.checkpoint, "--reader", untrained.reader
    for args, said in [
        (["--source", tmp_path / "nope"], "nope"),
        ([*good, "--source", tmp_path], "no labelled plates found here"),
        ([*good, "--source", corpus, "--split", "vla"], "no split vla"),
        (["--checkpoint", tmp_path / "bad.safetensors"], "bad.safetensors: not a checkpoint"),
        (["--checkpoint", "atlantis"], "atlantis: neither a checkpoint file nor one that ships"),
        (["--checkpoint", untrained.reader], "'spg' is needed"),
        (["--reader", untrained.checkpoint], "'reader' is needed"),
        (["--count", "0"], "--count"),
        (["--seed", "x"], "--seed"),
    ]:
        result = call(*args)
        assert result.exit_code == 2 and said in result.output, (args, result.output)


def test_a_folder_that_cannot_be_made_is_named_before_the_work(untrained, tmp_path):
    (tmp_path / "file").write_text("")
    named = "--checkpoint", untrained.checkpoint, "--reader", untrained.reader
    result = call(*named, "--out", tmp_path / "file")
    assert result.exit_code == 2 and f"{tmp_path / 'file'}: File exists" in result.output


def test_the_split_is_val_where_there_is_one(corpus, untrained):
    from platemint.pipeline.corpora import read_corpus

    labels = read_corpus(corpus)
    assert ev.split_to_measure(labels, None) == "val" and ev.split_to_measure(labels, "train") == "train"
    with pytest.raises(PlatemintError, match="no split test"):
        ev.Edits(untrained, corpus, "test")
