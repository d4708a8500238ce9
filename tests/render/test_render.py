"""The renderer: masks are exact, pairs differ in nothing but the text, layouts are data."""

import numpy as np
import pytest

from platemint.pipeline.plate import ALPHABET, PROVINCES, SEPARATORS, PlatemintError, spell_like
from platemint.pipeline.render import glyphs, load_layouts, photograph, random_text, render_pair, render_plate
from platemint.pipeline.render.glyphs import glyph
from platemint.pipeline.render.photo import character_boxes
from platemint.pipeline.render.wild import longer_or_shorter, wild_layout

LAYOUTS = load_layouts()
CLEAN = 0.0
ROW = {"pattern": "LL", "top": 1, "height": 1, "cell": 1, "gap": 1}


def rng(seed=0):
    return np.random.default_rng(seed)


def test_enough_layouts_over_enough_countries():
    assert len(LAYOUTS) >= 50
    assert len({layout.country for layout in LAYOUTS.values()}) >= 30
    assert any(len(layout.rows) == 2 for layout in LAYOUTS.values())
    assert any(layout.pictorial for layout in LAYOUTS.values())


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_rendered_with_ink_for_every_character(name):
    layout = LAYOUTS[name]
    text = random_text(layout.positions, rng())
    photo = photograph(layout, [text], 96, CLEAN, rng(1))[0]
    assert photo.image.dtype == np.uint8 and photo.image.shape[:2] == photo.mask.shape == photo.owner.shape
    assert len(photo.boxes) == len(text)
    for number in range(1, len(text) + 1):
        assert (photo.mask[photo.owner == number] > 127).sum() > 20, (name, text[number - 1])


@pytest.mark.parametrize("name", LAYOUTS)
def test_ink_lies_in_its_own_box(name):
    layout = LAYOUTS[name]
    photo = photograph(layout, [random_text(layout.positions, rng(2))], 96, CLEAN, rng(3))[0]
    h, w = photo.mask.shape
    for number, box in enumerate(photo.boxes, 1):
        y, x = np.nonzero((photo.owner == number) & (photo.mask > 127))
        centre = box.mean(0) * (w, h)
        assert abs(x.mean() - centre[0]) < 0.25 * np.ptp(box[:, 0] * w)
        assert abs(y.mean() - centre[1]) < 0.25 * np.ptp(box[:, 1] * h)


@pytest.mark.parametrize("seed", range(6))
def test_a_pair_shares_everything_but_the_ink(seed):
    layout = LAYOUTS["br-mercosur"]
    texts = [random_text(layout.positions, rng(10 + seed + k)) for k in range(2)]
    a, b = photograph(layout, texts, 64, CLEAN, rng(seed))
    untouched = (np.maximum(a.mask, b.mask) == 0) & ~_near(np.maximum(a.mask, b.mask))
    assert untouched.mean() > 0.3
    assert np.abs(a.image[untouched].astype(int) - b.image[untouched]).max() <= 3  # embossing's far skirt
    assert np.abs(a.image.astype(int) - b.image).max() > 60


def test_texts_of_two_lengths_share_everything_but_the_ink():
    """The same pitch and middle, unless there is no room; and nothing else of the photograph moves."""
    lengths = set()
    for seed in range(60):
        layout = wild_layout(rng(seed))
        if not (rows := longer_or_shorter(layout, rng(seed))):
            continue
        other = layout.model_copy(update={"rows": rows})
        texts = [random_text(kind.positions, rng(seed + k)) for k, kind in enumerate((layout, other))]
        lengths.add(len(texts[1]) - len(texts[0]))
        a, b = photograph(layout, texts, 48, CLEAN, rng(seed), [layout.rows, rows])
        assert len(a.boxes) == len(texts[0]) and len(b.boxes) == len(texts[1])
        assert a.boxes[:, :, 0].mean() == pytest.approx(b.boxes[:, :, 0].mean(), abs=0.08)
        away = ~_near(np.maximum(a.mask, b.mask))
        assert np.abs(a.image[away].astype(int) - b.image[away]).max(initial=0) <= 3
    assert {-1, 1} <= lengths


def test_an_emblem_stands_beside_the_characters_and_never_in_the_mask():
    layouts = (wild_layout(rng(seed)) for seed in range(99))
    layout = next(layout for layout in layouts if any(piece.kind == "emblem" for piece in layout.pieces))
    emblem = next(piece for piece in layout.pieces if piece.kind == "emblem")
    photo = photograph(layout, [random_text(layout.positions, rng(1))], 64, CLEAN, rng(2))[0]
    centre = (emblem.box[0] + emblem.box[2] / 2) / layout.size[0]
    x = round(centre * photo.mask.shape[1])
    assert photo.mask[:, max(0, x - 3) : x + 4].mean() < 20


def _near(mask):
    import cv2

    return cv2.dilate(mask, np.ones((9, 9), np.uint8)) > 0


def test_the_mask_is_the_alpha_of_the_ink():
    """Before sensor and file noise, picture = background * (1 - mask) + ink * mask: two texts give both unknowns."""
    layout = LAYOUTS["ar-black"].model_copy(update={"fonts": ("Saira Condensed:600",)})
    for seed in range(20):
        photo = photograph(layout, ["HHH888"], 96, CLEAN, rng(seed))[0]
        full, none = photo.mask == 255, (photo.mask == 0) & ~_near(photo.mask)
        half = (photo.mask > 96) & (photo.mask < 160)
        gray = photo.image.mean(2)
        expected = (
            gray[none & (gray < 60)].mean()
            + (gray[full].mean() - gray[none & (gray < 60)].mean()) * photo.mask[half].mean() / 255
        )
        assert abs(gray[half].mean() - expected) < 25, seed


def test_a_separator_the_text_leaves_out_stays_on_the_plate_and_out_of_the_mask():
    layout = LAYOUTS["tw-2012"]
    plain = photograph(layout, ["ABC1234"], 96, CLEAN, rng(4))[0]
    spelled = photograph(layout, ["ABC-1234"], 96, CLEAN, rng(4))[0]
    assert np.abs(plain.image.astype(int) - spelled.image).mean() < 1
    assert spelled.mask.astype(int).sum() > plain.mask.astype(int).sum()
    assert [c.printed for c in character_boxes(layout, "ABC1234")].count(False) == 1


def test_same_seed_same_plate():
    layout = LAYOUTS["us-scenic"]
    a, b = (render_plate(layout, "ABC1234", rng(5)) for _ in range(2))
    assert np.array_equal(a.image, b.image) and np.array_equal(a.source_mask, b.source_mask)
    assert not np.array_equal(a.image, render_plate(layout, "ABC1234", rng(6)).image)


def test_wild_layouts_can_all_be_rendered_and_spelled():
    for seed in range(60):
        layout = wild_layout(rng(seed))
        text = random_text(layout.positions, rng(seed))
        assert set(spell_like(text, layout.pattern)) <= set(ALPHABET)
        for shown in (text, spell_like(text, layout.pattern)):
            photo = photograph(layout, [shown], 48, 1.0, rng(seed))[0]
            assert photo.text == shown and photo.boxes.shape == (len(shown), 4, 2)


def test_pairs_spell_separators_in_some_and_leave_them_out_in_others():
    texts = [render_pair(list(LAYOUTS.values()), rng(seed))[0].text for seed in range(60)]
    spelled = sum(any(c in SEPARATORS for c in text) for text in texts)
    assert 3 < spelled < 40


def test_letters_change_as_the_layout_says():
    """A waist lifts what stands in the middle, such as the bar of H; rounding takes corners off; the size stays."""
    plain, lifted, lowered, rounded = (
        glyph("H", "Saira", 500, waist=waist, rounding=rounding)
        for waist, rounding in ((0, 0), (0.08, 0), (-0.08, 0), (0, 8))
    )

    def bar(bitmap):
        return np.average(np.arange(96), weights=bitmap[:, bitmap.shape[1] // 2] + 1e-9)

    assert bar(lifted) + 5 < bar(plain) < bar(lowered) - 5
    assert {g.shape for g in (lifted, lowered, rounded)} == {plain.shape}
    left = int(np.argmax(plain[48] > 128))  # of the left stroke
    corner = slice(3), slice(left, left + 3)
    assert rounded[corner].mean() < 0.6 * plain[corner].mean() and rounded[48, left + 5] > 128


@pytest.mark.parametrize("family", glyphs.FONTS + glyphs.HELD_OUT_FONTS)
def test_a_bare_1_is_as_wide_as_a_stroke_and_nothing_else_changes(family):
    for weight in (300, 700):
        bare, flagged, full = (glyph("1", family, weight, bar_one=bare) for bare in (True, False, True))
        assert bare.min() == 255 and bare.shape[1] < 0.75 * flagged.shape[1] and np.array_equal(bare, full)
        assert np.array_equal(glyph("7", family, weight, bar_one=True), glyph("7", family, weight))


def test_chinese_plates_have_a_bare_1():
    layouts = load_layouts()
    assert {name for name, layout in layouts.items() if layout.bar_one} == {n for n in layouts if n.startswith("cn-")}


def test_every_province_is_drawn_differently():
    from platemint.pipeline.render.glyphs import glyph

    drawn = {glyph(c, "Saira", 500).tobytes() for c in PROVINCES}
    assert len(drawn) == len(PROVINCES)


def test_an_unknown_layout_is_refused_with_the_ones_there_are():
    with pytest.raises(PlatemintError, match="tw-2012"):
        load_layouts(["atlantis"])


@pytest.mark.parametrize(
    "change, named",
    [
        ({"rows": [ROW | {"pattern": "QQ"}]}, "Q"),
        ({"rows": [ROW | {"pattern": ""}]}, "rows.0.pattern"),
        ({"rows": [ROW | {"pattern": 13 * "L"}]}, "12"),
        ({"rows": [ROW | {"height": 0}]}, "rows.0.height"),
        ({"rows": [ROW | {"gap": float("nan")}]}, "rows.0.gap"),
        ({"size": [0, 0]}, "size"),
        ({"fonts": ["Comic:4"]}, "Comic"),
        ({"fonts": ["Saira:0"]}, "Saira:0"),
        ({"pieces": [{"kind": "text", "box": [0, 0, 9, 9], "color": [0, 0, 0]}]}, "needs a text"),
        ({"pieces": [{"kind": "disc", "box": [0, 0, -1, 9], "color": [0, 0, 0]}]}, "pieces.0.box"),
        ({"colour": 1}, "colour"),
        ({"name": "other"}, "name"),
    ],
)
def test_a_broken_layout_file_is_refused_by_name_and_field(tmp_path, change, named):
    import yaml

    fields = LAYOUTS["uk"].model_dump(mode="json", exclude={"name"}) | change
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf8")
    with pytest.raises(PlatemintError, match=f"mine.yaml.*{named}") as fault:
        load_layouts([str(path)])
    assert "mine.yaml" in str(fault.value)


def test_a_file_that_is_no_yaml_and_two_of_one_name_are_refused(tmp_path):
    (tmp_path / "uk.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlatemintError, match="uk.yaml"):
        load_layouts([str(tmp_path / "uk.yaml")])
    with pytest.raises(PlatemintError, match="already one called uk"):
        load_layouts(["uk", "uk"])


def test_a_new_country_is_one_file_and_no_code(tmp_path):
    fields = LAYOUTS["uk"].model_dump(mode="json", exclude={"name"}) | {"country": "ZZ"}
    import yaml

    path = tmp_path / "zz.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf8")
    layout = load_layouts([str(path)])["zz"]
    assert render_plate(layout, random_text(layout.positions, rng()), rng()).image.ndim == 3


# The hologram of eu-pl has always lain on its second letter, and the bytes of quickstart hang on it.
@pytest.mark.parametrize("name", sorted({*LAYOUTS} - {"eu-pl"}))
def test_characters_stand_on_their_plate_and_not_on_what_is_printed_between(name):
    layout = LAYOUTS[name]
    placed = [c for c in character_boxes(layout, "".join(p[0] for p in layout.positions)) if c.printed]
    assert all(c.x >= 0 and c.x + c.width <= layout.size[0] and c.y + c.height <= layout.size[1] for c in placed)
    for piece in (piece for piece in layout.pieces if piece.kind in ("emblem", "disc")):
        x, y, w, h = piece.box
        apart = [
            x + w <= c.x + 1 or c.x + c.width <= x + 1 or y + h <= c.y + 1 or c.y + c.height <= y + 1 for c in placed
        ]
        assert all(apart), f"{piece.kind} at {piece.box} lies on a character"
