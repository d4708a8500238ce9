"""What can be spelled is the checkpoint's, and grows by training without losing what is there."""

import numpy as np
import pytest
import torch

from platemint.models import checkpoint
from platemint.models.reader import greedy_decode
from platemint.models.spg import encode_texts
from platemint.pipeline.plate import (
    ACCENTED,
    ALPHABET,
    LETTERS,
    PROVINCES,
    SEPARATORS,
    PlatemintError,
    kin,
    kind_of,
    unspellable,
)
from platemint.pipeline.recipe import TrainRecipe, load_recipe
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.render.glyphs import glyph
from platemint.pipeline.render.layout import spelled_with
from platemint.pipeline.train import train
from platemint.pipeline.train.alphabets import nearest_character, spelled, start

HANGUL = "가나다라마거너더러머버서어저고노도로모보소오조구누두루무부수우주하허호배"


def pictures(config, count=4):
    layout = load_layouts(["uk"])["uk"]
    rng = np.random.default_rng(0)
    images = [render_plate(layout, random_text(layout.positions, rng), rng).image for _ in range(count)]
    from platemint.pipeline.networks import network_input

    return network_input(images, config.height, config.width, "cpu")


@pytest.mark.parametrize("kind", ["spg", "reader"])
def test_a_network_that_learns_more_characters_gives_for_old_texts_what_it_gave(kind, tmp_path):
    shipped = {"spg": "spg-small", "reader": "reader"}[kind]
    old = checkpoint.load(shipped, kind)
    grown = start(TrainRecipe(network=kind, start=shipped, alphabet={"add": "Ä" + HANGUL})).eval()
    assert grown.config.alphabet == old.config.alphabet + unspellable("Ä" + HANGUL, old.config.alphabet)
    images = pictures(old.config)
    with torch.inference_mode():
        if kind == "reader":
            before, after = old(images), grown(images)
            assert greedy_decode(before, old.config.alphabet) == greedy_decode(after, grown.config.alphabet)
            assert (before.exp() - after[..., : before.shape[-1]].exp()).abs().max() < 1e-3
        else:
            texts = [encode_texts(["AB12CDE", "京A12345"] * 2, network.config.alphabet) for network in (old, grown)]
            edits = [net(images, text, text.roll(1, 1)) for net, text in zip((old, grown), texts)]
            assert (edits[0].O_t - edits[1].O_t).abs().max() < 1e-4
            assert (edits[0].B_t - edits[1].B_t).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["spg", "reader"])
def test_frozen_but_for_new_characters_a_network_learns_these_and_changes_nothing_else(kind, tmp_path):
    shipped = {"spg": "spg-small", "reader": "reader"}[kind]
    recipe = TrainRecipe(
        network=kind, start=shipped, alphabet={"add": HANGUL, "freeze": True}, reader="", layouts=("kr",), wild=0.0, steps=2,
        batch=2, workers=0, validate_every=2, lr=0.01, warmup=1, out=str(tmp_path), **({"generator_from": 9} if kind == "spg" else {}),
    )  # fmt: skip
    first = start(recipe).state_dict()
    train(recipe)
    after = checkpoint.load(str(tmp_path / f"{recipe.name}.safetensors"), kind)
    known, own = 1 + len(checkpoint.checkpoint_alphabet(shipped, kind)), checkpoint.per_character(after)
    for name, weight in after.state_dict().items():
        old = known if name in own else None
        assert torch.equal(weight[:old] if old else weight, first[name][:old] if old else first[name]), name
        assert not old or not torch.equal(weight[old:], first[name][old:]), name


def test_new_characters_start_from_their_nearest():
    assert [nearest_character(c, ALPHABET.replace("Ä", "")) for c in "ÄĐÅ"] == ["A", "D", "A"]
    assert nearest_character("Н", "ABCHKM0123") == "H"  # a Cyrillic en looks like it
    old = checkpoint.load("spg-small", "spg")
    grown = start(TrainRecipe(start="spg-small", alphabet={"add": "Å"}))
    a, new = 1 + old.config.alphabet.index("A"), 1 + grown.config.alphabet.index("Å")
    assert torch.equal(grown.T.character.weight[new], old.T.character.weight[a])
    letter, drawn, mark = old.C_d.glyphs[a], grown.C_d.glyphs[new], slice(0, 6)
    assert drawn[:, mark].max() > 0.9 > 0.5 > drawn[:, mark, [0, -1]].max()  # a ring stands there from the start
    assert not torch.equal(drawn, letter)


def test_fonts_without_a_character_take_it_from_one_that_has_it():
    assert len({glyph(c, "Saira", 500).tobytes() for c in HANGUL + "ЖДИ"}) == len(HANGUL) + 3


def test_characters_stand_for_their_like_alone():
    alphabet = ALPHABET + HANGUL
    assert set(kin("가", alphabet)) == set(HANGUL)
    assert kin("B", alphabet) == LETTERS and set(kin("Ä", alphabet)) == set(LETTERS + ACCENTED)
    assert kin("京", alphabet) == PROVINCES
    assert all(kin(c, alphabet) == c for c in "警学港澳挂使领" + SEPARATORS)
    assert [kind_of(c) for c in "7ÄЖ가"] == ["D", "L", "CYRILLIC", "HANGUL"]


def test_layouts_are_drawn_without_what_the_network_cannot_spell(tmp_path):
    path = tmp_path / "xx.yaml"
    path.write_text(
        "country: XX\nsize: [520, 110]\nclasses: {L: ABÄ, H: 가나}\nbackground: [[240, 240, 240]]\nink: [[0, 0, 0]]\n"
        'fonts: ["Saira:500"]\nrows: [{pattern: LLDD, top: 17, height: 75, cell: 45, gap: 8}]\n'
    )
    with_hangul = tmp_path / "xy.yaml"
    with_hangul.write_text(path.read_text().replace("LLDD", "LHDD"))
    layouts = load_layouts([str(path), str(with_hangul)])
    kept, notes = spelled_with("AB0123456789", layouts)
    assert {name: layout.positions[0] for name, layout in kept.items()} == {"xx": "AB"}
    assert ["Ä" in notes[0], "가" in notes[1]] == [True, True] and len(notes) == 2
    assert spelled_with("ABÄ0123456789가나", layouts) == (layouts, [])
    with pytest.raises(PlatemintError, match="alphabet.add"):
        spelled_with("0123456789", layouts)


@pytest.mark.parametrize("add", ["ä", "AA", "-", "?"])
def test_an_alphabet_is_of_capital_letters_each_once(add):
    with pytest.raises(PlatemintError, match="alphabet"):
        load_recipe(None, [f"alphabet.add='{add}'"], "train")


@pytest.mark.parametrize("network", ["spg", "reader"])
def test_a_few_steps_teach_another_script(network, tmp_path):
    recipe = load_recipe(
        "train-korean", [f"out={tmp_path}", "steps=2", "batch=2", "workers=0", "validate_every=2"], "train"
    )
    given = {"network": network, "name": network, "wild": 1.0}
    if network == "reader":
        given |= {"start": "reader", "reader": "", "generator_from": 4000, "recognition": 1.0}
    else:
        given |= {"reader": ""}
    recipe = TrainRecipe.model_validate(recipe.model_dump() | given)
    path = train(recipe, say=lambda line: None)
    alphabet = checkpoint.load(str(path), network).config.alphabet
    assert alphabet == spelled(recipe) and set(HANGUL) <= set(alphabet)


def test_a_reader_that_cannot_read_new_characters_cannot_teach_them(tmp_path):
    recipe = TrainRecipe(out=str(tmp_path), start="spg-small", reader="reader", alphabet={"add": "Ñ"})
    with pytest.raises(PlatemintError, match="does not read Ñ"):
        train(recipe, say=lambda line: None)
