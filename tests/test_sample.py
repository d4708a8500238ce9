"""Sources: the same plate for the same numbers, even use, and every unusable picture set aside."""

import os
import pickle
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stand_ins import Lucky, Sources, recipe

from platemint.pipeline.plan import make_plan
from platemint.pipeline.plate import DIGITS, LETTERS, PROVINCES, PlatemintError, normalise
from platemint.pipeline.recipe import load_recipe
from platemint.pipeline.sample import _stride, _varied, open_sources, style_of
from platemint.pipeline.shard import MOST_OFTEN, run_shard
from platemint.pipeline.storage import MOST_SIDE

SHARED = Path(__file__).parents[2] / "shared" / "plates"
NO_IO = LETTERS.replace("I", "").replace("O", "")


def picture(path, seed=0, size=(24, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return pixels[..., ::-1]


def corpus(folder, rows):
    """rows: (text, split). The pictures are PNG, all different."""
    lines = ["path,text,split"]
    for n, (text, split) in enumerate(rows):
        picture(folder / f"{n}.png", n)
        lines.append(f"{n}.png,{text},{split}")
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf8")
    return folder


def opened(path="", **fields):
    source = {f"source.{key}": value for key, value in fields.items()}
    return open_sources(load_recipe(None, overrides={"source.path": str(path), **source}))


def reasons(sources):
    return {row["path"]: row["reason"] for row in sources.set_aside}


def test_groups_are_split_and_pattern_with_their_share(tmp_path):
    rows = [("ABC-123", "train"), ("ABD-124", "train"), ("AB1", "train"), ("ABE-125", "val")]
    sources = opened(corpus(tmp_path, rows))
    assert {g.name: (g.weight, g.sources) for g in sources.groups} == {
        "corpus/train/LLD": (0.25, 1),
        "corpus/train/LLL-DDD": (0.5, 2),
        "corpus/val/LLL-DDD": (0.25, 1),
    }
    assert sources.texts == {text for text, _ in rows}


def test_a_source_is_the_files_pixels_and_the_same_every_time(tmp_path):
    rows = [(f"AB{n}", "train") for n in range(5)]
    folder = corpus(tmp_path, rows)
    sources, again = opened(folder), pickle.loads(pickle.dumps(opened(folder)))
    for index in range(12):
        plate, same = (s.get(0, s.turn(0, index, 1)) for s in (sources, again))
        number = [text for text, _ in rows].index(plate.text)
        assert np.array_equal(plate.image, picture(tmp_path / "again.png", number))
        assert plate.image.dtype == np.uint8 and len(plate.source) == 16
        assert np.array_equal(plate.image, same.image) and (plate.text, plate.source) == (same.text, same.source)


@given(st.integers(1, 400), st.integers(0, 3))
def test_attempts_go_through_all_photographs_before_one_comes_again(n, index):
    visited = [(index + attempt * _stride(n)) % n for attempt in range(n)]
    assert sorted(visited) == list(range(n))


def test_photographs_are_used_evenly(tmp_path):
    sources = opened(corpus(tmp_path, [(f"AB{n}", "train") for n in range(7)]))
    used = Counter(sources.get(0, sources.turn(0, index, 0)).text for index in range(7 * 3 + 2))
    assert len(used) == 7 and set(used.values()) == {3, 4}
    assert len({sources.get(0, sources.turn(0, 0, attempt)).text for attempt in range(4)}) == 4


def test_unusable_pictures_are_set_aside_and_the_rest_goes_on(tmp_path):
    folder = tmp_path / "corpus"
    picture(tmp_path / "outside.png", 99)
    corpus(folder, [("AB1", "train")])
    (folder / "empty.png").touch()
    (folder / "noise.png").write_bytes(bytes(range(256)))
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:900])
    (folder / "twin.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    os.mkfifo(folder / "pipe.png")
    picture(folder / "thin.png", size=(7, 80))
    cv2.imwrite(str(folder / "huge.png"), np.zeros((2001, 2000), np.uint8))
    cv2.imwrite(str(folder / "bomb.png"), np.zeros((9600, 9600), np.uint8))
    cv2.imwrite(str(folder / "ribbon.png"), np.zeros((8, MOST_SIDE + 1), np.uint8))
    Image.new("1", (20_000, 10_000)).save(folder / "poster.png")
    cv2.imwrite(str(folder / "deep.png"), np.zeros((24, 80), np.uint16))
    names = "empty noise cut twin folder link circle pipe thin huge bomb ribbon poster deep missing".split()
    rows = [f"{name}.png,AC{n}" for n, name in enumerate(names)] + [f"../outside.png,AD1\n{tmp_path}/outside.png,AD2"]
    with open(folder / "labels.csv", "a") as table:
        table.write("\n" + "\n".join(rows))

    sources = opened(folder, max_set_aside=1)
    said = reasons(sources)
    assert [g.sources for g in sources.groups] == [2]
    assert len(sources.set_aside) == len(names) + 1
    assert said["empty.png"] == "empty file"
    assert "not a picture" in said["noise.png"]
    assert "broken picture" in said["cut.png"]
    assert said["twin.png"] == "the same picture as 0.png"
    assert said["missing.png"] == said["folder.png"] == said["pipe.png"] == "no such file"
    assert said["link.png"] == "a link out of the corpus folder"
    assert said[f"{tmp_path}/outside.png"] == "the same picture as ../outside.png", "a table may name it there"
    assert "too few" in said["thin.png"] and "too many" in said["huge.png"] and "too many" in said["bomb.png"]
    assert "too many" in said["ribbon.png"] and said["poster.png"] == "more than 4,000,000 pixels"
    assert "8 bits" in said["deep.png"] and said["circle.png"]
    assert "AC3" in sources.texts  # a plate of the corpus all the same: never drawn


def test_a_plate_stays_in_one_split(tmp_path):
    sources = opened(corpus(tmp_path, [("AB1", "train"), ("AB1", "val"), ("AB1", "train"), ("AB2", "val")]))
    assert {g.split: g.sources for g in sources.groups} == {"train": 2, "val": 1}
    assert reasons(sources) == {"1.png": "its text is also in the split train"}


def test_one_split_can_be_asked_for_but_all_texts_stay_forbidden(tmp_path):
    folder = corpus(tmp_path, [("AB1", "train"), ("AB2", "val")])
    sources = opened(folder, split="val")
    assert [g.split for g in sources.groups] == ["val"] and sources.texts == {"AB1", "AB2"}
    with pytest.raises(PlatemintError, match=r"source.split: no split vall \(did you mean val\?\); it has train, val"):
        opened(folder, split="vall")


def test_a_declared_layout_gives_the_grammar(tmp_path):
    rows = [("皖A12345", "train"), ("皖·AB2345", "train"), ("ABC123", "train")]
    sources = opened(corpus(tmp_path, rows), layout="cn-blue")
    assert {g.name for g in sources.groups} == {"cn-blue/train/PLAAAAA", "cn-blue/train/P·LAAAAA"}
    assert "does not fit the layout cn-blue, PLAAAAA" in reasons(sources)["2.png"]
    assert sources.get(0, 0).layout == "cn-blue"
    with pytest.raises(PlatemintError, match="cn-blu"):
        opened(tmp_path, layout="cn-blu")


def test_letters_follow_what_the_corpus_uses(tmp_path):
    sources = opened(corpus(tmp_path, [("OB1", "train"), ("皖A1B", "train")]))
    alphabets = {g.name: g.positions for g in sources.groups}
    assert alphabets["corpus/train/LLD"][0] == LETTERS.replace("I", "").replace("Q", "")
    assert alphabets["corpus/train/PLDL"] == (PROVINCES, NO_IO, DIGITS, NO_IO)


def test_a_corpus_of_nothing_usable_says_why(tmp_path):
    (tmp_path / "ABC123_.jpg").touch()
    with pytest.raises(PlatemintError, match="not one usable plate; 1 set aside, the first: ABC123_.jpg: empty file"):
        opened(tmp_path)


def test_a_changed_or_lost_file_is_noticed(tmp_path):
    sources = opened(corpus(tmp_path, [("AB1", "train")]))
    picture(tmp_path / "0.png", 5)
    with pytest.raises(PlatemintError, match="0.png: is not the picture it was"):
        sources.get(0, 0)
    (tmp_path / "0.png").unlink()
    with pytest.raises(PlatemintError, match="0.png: was usable .* now: no such file"):
        sources.get(0, 0)


def test_the_fingerprint_changes_with_pictures_and_labels(tmp_path):
    folder = corpus(tmp_path, [("AB1", "train"), ("AB2", "train")])
    before = opened(folder).fingerprint
    assert opened(folder).fingerprint == before
    picture(folder / "0.png", 5)
    changed = opened(folder).fingerprint
    (folder / "labels.csv").write_text("path,text\n0.png,AB1\n1.png,AB3")
    assert len({before, changed, opened(folder).fingerprint}) == 3


def test_a_photograph_is_upright(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # held sideways
    Image.fromarray(np.zeros((80, 24, 3), np.uint8)).save(tmp_path / "AB1_.jpg", exif=exif)
    assert opened(tmp_path).get(0, 0).image.shape == (24, 80, 3)


def test_rendered_plates_are_pure_functions_of_their_numbers():
    sources, again = opened(layouts=["uk", "cn-blue"]), opened(layouts=["uk", "cn-blue"])
    seen = set()
    for numbers in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]:
        plate, same = (s.get(numbers[0], s.turn(*numbers)) for s in (sources, again))
        assert np.array_equal(plate.image, same.image) and (plate.text, plate.source) == (same.text, same.source)
        assert plate.layout == sources.groups[numbers[0]].layout and plate.split == "train"
        assert all(c in alphabet for c, alphabet in zip(plate.text, sources.groups[numbers[0]].positions, strict=True))
        seen.add(plate.source)
    assert len(seen) == 4


def test_rendered_plates_can_have_a_val_split():
    sources = opened(layouts=["uk", "cn-blue"], val_share=0.25)
    weights = {(g.layout, g.split): g.weight for g in sources.groups}
    shares = {"train": 0.375, "val": 0.125}
    assert weights == {(layout, split): share for split, share in shares.items() for layout in ("uk", "cn-blue")}


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real plates here")
def test_real_plates_open():
    sources = opened(SHARED, split="train")
    assert sum(g.sources for g in sources.groups) > 1600
    assert abs(sum(g.weight for g in sources.groups) - 1) < 1e-9
    assert sources.get(0, 3).image.ndim == 3


@pytest.mark.parametrize("locale", ["en_GB", "fr_FR", "pl_PL", "zh_TW", "en_US", "pt_BR"])
def test_plates_of_faker_s_countries_become_groups_of_their_patterns(tmp_path, locale):
    """Labels a stranger might have: every one lands in a group that can spell it, separators and all."""
    from faker import Faker

    fake = Faker(locale)
    fake.seed_instance(0)
    texts = list(dict.fromkeys(normalise(fake.license_plate()) for _ in range(25)))
    sources = opened(corpus(tmp_path, [(text, "train") for text in texts]))
    assert sum(group.sources for group in sources.groups) == len(texts) and not sources.set_aside
    for number, group in enumerate(sources.groups):
        for index in range(group.sources):
            text = sources.get(number, index).text
            assert len(text) == len(group.positions) and all(c in a for c, a in zip(text, group.positions))


def off(order: np.ndarray, styles: np.ndarray, length: int) -> float:
    """By how many the thirds of brightness, height and tilt miss their share in the worst stretch of this length."""
    thirds = 3 * np.argsort(np.argsort(styles, axis=0), axis=0) // len(styles)
    stretches = [order[start : start + length] for start in range(0, len(order) - length + 1, 9)]
    return max(
        abs(np.bincount(column[some], minlength=3) - length / 3).max() for column in thirds.T for some in stretches
    )


@pytest.mark.parametrize("seed", range(5))
def test_any_stretch_of_photographs_shows_dark_and_light_small_and_large_level_and_tilted(seed):
    rng = np.random.default_rng(seed)
    styles = rng.normal(size=(810, 3)) * (40, 20, 5)
    order = _varied([tuple(style) for style in styles.tolist()], rng)
    assert off(order, styles, 81) <= 7 < 9 <= off(rng.permutation(810), styles, 81)


@given(st.lists(st.tuples(st.sampled_from([1.0, 2.0]), st.floats(0, 9), st.floats(-9, 9)), min_size=1, max_size=60))
def test_an_order_has_every_photograph_once(styles):
    assert sorted(_varied(styles, np.random.default_rng(0)).tolist()) == list(range(len(styles)))


def test_photographs_of_a_corpus_are_used_in_such_an_order(tmp_path):
    """The light ones are the last thirty of ninety; a third of every thirty used are light."""
    folder = corpus(tmp_path, [(f"AB{n:02d}", "train") for n in range(90)])
    for n in range(60, 90):
        assert cv2.imwrite(str(folder / f"{n}.png"), np.random.default_rng(n).integers(200, 256, (24, 80, 3), np.uint8))
    [photos] = opened(folder).photos
    light = [photo.style[0] > 200 for photo in photos]
    assert all(5 <= sum(light[start : start + 30]) <= 15 for start in range(0, 61, 3))


@pytest.mark.parametrize("angle", [-5, -2, 0, 3, 5])
def test_the_tilt_of_a_plate_is_measured_with_its_sign(angle):
    from platemint.pipeline.render import load_layouts, random_text, render_plate

    layout, rng = load_layouts(["uk"])["uk"], np.random.default_rng(4)
    found = []
    for _ in range(5):
        plate = render_plate(layout, random_text(layout.positions, rng), rng).image
        plate = cv2.resize(plate, (320, 80), interpolation=cv2.INTER_AREA)
        turn = cv2.getRotationMatrix2D((160, 40), -angle, 1)  # OpenCV turns counter-clockwise
        turned = cv2.warpAffine(plate, turn, (320, 80), borderMode=cv2.BORDER_REPLICATE)
        found.append(style_of(turned)[2] - style_of(plate)[2])
    assert np.median(found) == pytest.approx(angle, abs=max(0.3, 0.4 * abs(angle)))


def test_brightness_and_height_are_the_picture_s():
    assert style_of(np.full((30, 90, 3), 77, np.uint8)) == pytest.approx((77, 30, 0))


def test_no_photograph_stands_in_for_all(tmp_path):
    """Two of seven accept anything, the others next to nothing: each of the two serves twice its share and no more."""

    class Seven(Sources):
        groups = Sources.groups[:1]

    class Easy(Lucky):
        sources = Seven()

        def filter(self, plates):
            for plate in super().filter(plates):
                if plate.source in ("0/1", "0/4"):
                    plate.reason, plate.scores["reader"] = "", 1.0
            return plates

    made = recipe(tmp_path / "plates", count=70, filter={"rounds": 30, "min_reader": 0.97}, write={"shard_rows": 70})
    stages = Easy(made)
    [shard] = make_plan(stages).shards
    commit = run_shard(shard, stages)
    served = Counter(pq.read_table(made.folder / commit["files"][0]["path"])["source"].to_pylist())
    assert served["0/1"] == served["0/4"] == MOST_OFTEN * 10 and max(served.values()) == MOST_OFTEN * 10
    assert served.total() < 70
