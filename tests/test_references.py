"""References: what a corpus shows of its typefaces, whatever its labels, and what the generator makes of them."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from platemint.models import checkpoint
from platemint.models.spg import BARE, FRAME, encode_texts, framed, placed
from platemint.pipeline import edit as editing
from platemint.pipeline import plan, run
from platemint.pipeline import references as collecting
from platemint.pipeline.alignment import known_places
from platemint.pipeline.edit import Editor
from platemint.pipeline.edit_folder import edit_folder
from platemint.pipeline.plate import ALPHABET, DIGITS, LETTERS
from platemint.pipeline.recipe import Edit, Filtering, GenerateRecipe, Source
from platemint.pipeline.references import Cut, References
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.render.photo import Lettering
from platemint.pipeline.stages import Stages
from platemint.pipeline.storage import read_json
from platemint.pipeline.train.typefaces import Typefaces

FACES = Typefaces(ALPHABET, (32, 20))
SLIM, BOLD = Lettering("Barlow Condensed", 300), Lettering("Anton", 400)
PLAIN = DIGITS + LETTERS


def plates(count, seed=0):
    rng, layout = np.random.default_rng(seed), load_layouts(["br-mercosur"])["br-mercosur"]
    made = [render_plate(layout, random_text(layout.positions, rng), rng, severity=0.2) for _ in range(count)]
    targets = [random_text(layout.positions, rng) for _ in made]
    return [dataclasses.replace(p, source=str(i), target=t) for i, (p, t) in enumerate(zip(made, targets))]


def references(count, rng, letters=1 + len(ALPHABET)):
    some = torch.zeros(count, letters, 2, 32, 20)
    some[:, 1:30, 0] = torch.from_numpy(rng.uniform(0, 1, (count, 29, 32, 20)).astype(np.float32))
    some[:, 1:30, 1] = 0.7
    return some


def corpus(faces, count, rng, wrong=0.0):
    """Glyphs of plates of six characters, each of one of the typefaces in turn; labels are wrong on a share of plates."""
    glyphs, characters, numbers = [], [], []
    for plate in range(count):
        text = rng.choice(list(PLAIN), 6)
        label = rng.choice(list(PLAIN), 6) if rng.random() < wrong else text
        for shown, said in zip(text, label):
            glyph = FACES._glyph(str(shown), faces[plate % len(faces)]) + rng.normal(0, 0.1, (32, 20))
            glyphs.append((255 * glyph.clip(0, 1)).astype(np.uint8))
            characters.append(1 + ALPHABET.index(said))
            numbers.append(plate)
    cut = Cut(np.stack(glyphs), np.array(characters), np.array(numbers))
    return References(cut, [str(i) for i in range(count)], 1 + len(ALPHABET))


def off(found, face):
    """How far glyphs that were found are from a typeface's, on average."""
    there = [c for c in PLAIN if found[1 + ALPHABET.index(c), 1, 0, 0]]
    return np.mean([np.abs(found[1 + ALPHABET.index(c), 0] - FACES._glyph(c, face)).mean() for c in there])


# -------------------------------------------------------------------------------------------------- in the generator


def test_a_glyph_placed_in_a_slot_is_found_in_its_frame():
    slots = torch.tensor([[[[0.3, 0.5], [0.06, 0.01], [-0.01, 0.35]], [[0.7, 0.45], [0.08, 0], [0.01, 0.3]]]])
    glyphs = torch.stack([torch.from_numpy(FACES._glyph(c, SLIM)) for c in "A7"])[None, :, None]
    mask = placed(glyphs, slots, 192, 640, FRAME)
    assert (framed(mask, slots, (32, 20)) - glyphs).abs().mean() < 0.03


def test_without_references_an_edit_is_what_it_was_and_with_them_it_is_another(untrained):
    spg = checkpoint.load(untrained.checkpoint, "spg")
    source, rng = torch.rand(2, 3, 48, 160), np.random.default_rng(0)
    texts = encode_texts(["ABC123", "XY12"], ALPHABET), encode_texts(["DEF456", "ZZ99"], ALPHABET)
    some = references(2, rng)
    some[1] = 0
    with torch.inference_mode():
        plain, shown = spg(source, *texts), spg(source, *texts, references=some)
        nothing = spg(source, *texts, references=torch.zeros_like(some))
    assert torch.equal(plain.O_t, nothing.O_t)
    assert torch.equal(plain.target_logits[1], shown.target_logits[1])  # no other picture's references reach it
    assert (plain.target_logits[0] - shown.target_logits[0]).abs().max() > 0.01
    assert torch.equal(plain.source_logits, shown.source_logits)


def test_weights_from_before_references_load_and_edit_as_before(untrained, tmp_path):
    with safe_open(untrained.checkpoint, "pt") as file:
        weights, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    weights = {k: v for k, v in weights.items() if not k.startswith(("C_d.typeface", "C_d.trust"))}
    weights["C_d.at_half.0.weight"] = weights["C_d.at_half.0.weight"][:, :-8].contiguous()
    metadata["config"] = metadata["config"].replace(', "typeface": 64', "")
    save_file(weights, tmp_path / "old.safetensors", metadata)
    old, new = (checkpoint.load(str(n), "spg") for n in (tmp_path / "old.safetensors", untrained.checkpoint))
    source, text = torch.rand(1, 3, 48, 160), encode_texts(["ABC123"], ALPHABET)
    with torch.inference_mode():
        assert torch.equal(old(source, text, text).O_t, new(source, text, text).O_t)


def test_no_ink_stands_where_sure_references_show_none(untrained):
    """Far from the strokes of a reference; beside them masks stay, since slots are not found to the pixel."""
    C_d = Editor(untrained).spg.C_d
    bar = torch.zeros(1, len(PLAIN) + 60, 2, 32, 20)[:, : C_d.glyphs.shape[0]]
    bar[0, 5, 0, :, 8:12] = 1.0
    votes = []
    for sure in (0.3, 0.6):
        bar[0, 5, 1] = sure
        slots = torch.tensor([[[[0.5, 0.5], [0.3, 0.0], [0.0, 0.5]]]])
        votes.append(C_d.placed_references(torch.tensor([[5]]), slots, bar, None)[0, 2, 20])
    weak, strong = (vote.detach() for vote in votes)
    trust = float(C_d.trust[0])
    assert float(strong.max()) == pytest.approx(trust, abs=0.01) and float(weak.max()) == pytest.approx(trust, abs=0.01)
    assert float(weak.min()) == pytest.approx(-trust - 0.3 * BARE, abs=0.01)
    assert float(strong.min()) == pytest.approx(-trust - 0.6 * BARE, abs=0.01)
    inked = torch.nonzero(strong > 0).flatten()
    beside = [int(inked.min()) - 1, int(inked.max()) + 1]
    assert (strong[beside] >= -trust - 0.01).all()  # no more than before


def test_a_character_takes_no_ink_from_its_neighbour(untrained):
    """Frames of characters overlap: where one shows ink, another that shows none has nothing to say."""
    C_d = Editor(untrained).spg.C_d
    references = torch.zeros(1, C_d.glyphs.shape[0], 2, 32, 20)
    references[0, 5:7, 1], references[0, 5, 0] = 0.6, 1.0  # a full glyph beside an empty one
    slots = torch.tensor([[[[0.4, 0.5], [0.1, 0.0], [0.0, 0.5]], [[0.6, 0.5], [0.1, 0.0], [0.0, 0.5]]]])
    vote = C_d.placed_references(torch.tensor([[5, 6]]), slots, references, None)[0, 2, 24].detach()
    full = slice(round(0.31 * len(vote)), round(0.49 * len(vote)))
    assert (vote[full] > -C_d.trust[0]).all() and float(vote[round(0.6 * len(vote))]) < -0.5 * BARE


def test_private_edits_take_no_references(untrained):
    editor, some = Editor(untrained, private=True), plates(3)
    before = editor(some)
    editor.references = corpus([SLIM], 20, np.random.default_rng(0))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(before, editor(some)))


def test_an_edit_does_not_depend_on_its_batch_with_references_either(untrained):
    editor, some = Editor(untrained.model_copy(update={"precision": "float32"})), plates(5)
    editor.references = editor.collected(some[:3], checkpoint.load(untrained.reader, "reader"))
    together, alone = editor(some), [editor([plate])[0] for plate in some]
    assert max(np.abs(a.image.astype(int) - b.image).max() for a, b in zip(together, alone)) <= 1


# ----------------------------------------------------------------------------------------------------- of a corpus


@pytest.mark.parametrize("wrong", [0.0, 0.2], ids=["right labels", "a fifth shuffled"])
def test_plates_of_mixed_typefaces_each_find_their_own(wrong):
    mixed = corpus([SLIM, BOLD], 900, np.random.default_rng(1), wrong)
    for plate, own, other in ((2, SLIM, BOLD), (3, BOLD, SLIM)):
        found = mixed.of(plate, alone=True)
        assert off(found, own) < 0.06 < 0.12 < off(found, other)
        assert (found[1:37, 1, 0, 0] > 0).sum() > 25


def test_a_single_plate_brings_its_own_characters_and_no_others():
    one = corpus([SLIM], 1, np.random.default_rng(2))
    found = one.of(0)
    assert {*np.flatnonzero(found[:, 1, 0, 0])} == {*one.cut.character}
    assert off(found, SLIM) < 0.12 and not one.of(0, alone=True).any()


@pytest.mark.parametrize("count, wrong", [(3, 0), (10, 0), (10, 0.2), (40, 0.2)])
def test_few_plates_bring_what_several_of_them_show_and_no_wrong_label_spoils_it(count, wrong):
    few = corpus([SLIM], count, np.random.default_rng(6), wrong)
    for plate in range(count):
        found = few.of(plate)
        there = np.flatnonzero(found[:, 1, 0, 0])
        assert {*there} <= {*few.cut.character} and (not len(there) or off(found, SLIM) < 0.12)


def test_more_plates_are_surer():
    few, many = (corpus([SLIM], count, np.random.default_rng(3)).of(0)[1:37, 1, 0, 0].mean() for count in (40, 200))
    assert 0 < few < many < 1


def test_what_is_stored_is_what_was_found(tmp_path):
    first = corpus([SLIM, BOLD], 30, np.random.default_rng(4))
    first.write(tmp_path / "glyphs.npz")
    again = References.read(tmp_path / "glyphs.npz")
    assert np.array_equal(first.of(3), again.of(3)) and first.fingerprint == again.fingerprint
    assert first.fingerprint != corpus([SLIM, BOLD], 31, np.random.default_rng(4)).fingerprint


def test_characters_that_the_generator_looks_for_elsewhere_stand_where_the_reader_sees_them(monkeypatch, tmp_path):
    editor, reader, some = Editor(Edit()), checkpoint.load("reader", "reader"), plates(3)
    cut, true = collecting._cut, {}

    def astray(spg, batch, device, dtype):
        """The generator takes an emblem for the first character of one plate, unless it is told."""
        glyphs, middles = cut(spg, batch, device, dtype)
        for plate, row in zip(batch, middles):
            if plate.source == "1" and plate.places is None:
                true[plate.source] = row[: len(plate.text)].copy()
                row -= 0.12
        return glyphs, middles

    monkeypatch.setattr(collecting, "_cut", astray)
    editor.references = editor.collected(some, reader)
    editor.references.write(tmp_path / "glyphs.npz")
    for found in (editor.references, References.read(tmp_path / "glyphs.npz")):
        assert {*found.places} == {"1"} and {*found.source_scores} == {"0", "1", "2"}
        known = np.isfinite(found.places["1"])
        assert known.sum() >= 4 and np.abs(found.places["1"] - true["1"])[known].max() < 0.05
    given = []
    monkeypatch.setattr(
        editing, "known_places", lambda places, longest: given.extend(places) or known_places(places, longest)
    )
    editor(some)
    assert [places is not None for places in given] == [False, True, False]


# --------------------------------------------------------------------------------------------------------- in runs


def labelled(folder, count):
    folder.mkdir()
    for i, plate in enumerate(plates(count)):
        cv2.imwrite(str(folder / f"{plate.text}_{i}.png"), plate.image[..., ::-1])
    return folder


def wanted(folder, source, untrained, **edit):
    accept = dict.fromkeys(("min_source_reader", "min_stability", "min_slots", "min_mask_reader", "min_reader"), 0.0)
    options = untrained.model_copy(update=edit)
    filtering = Filtering(rounds=1, max_residue=1.0, **accept)
    return GenerateRecipe(count=12, out=str(folder), source=Source(path=str(source)), edit=options, filter=filtering)


def test_threads_find_the_same_references(untrained):
    editor, reader, some = Editor(untrained), checkpoint.load(untrained.reader, "reader"), plates(20)
    for number, plate in enumerate(some):
        plate.source = str(number)
    one, several = (editor.collected(some, reader, threads) for threads in (1, 3))
    assert one.fingerprint == several.fingerprint and one.sources == several.sources
    assert one.source_scores == several.source_scores and len(one.sources) == 20


def test_a_run_is_bound_to_its_references_and_leaves_no_glyph_behind(tmp_path, untrained):
    source = labelled(tmp_path / "plates", 8)
    first, again = (wanted(tmp_path / name, source, untrained) for name in ("a", "b"))
    run.generate(first), run.generate(again)
    plans = [read_json(tmp_path / name / "plan.json") for name in ("a", "b")]
    assert plans[0]["references"] == plans[1]["references"] == Stages(first).references.fingerprint
    files = [sorted((tmp_path / name / "data").glob("*.parquet")) for name in ("a", "b")]
    assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]
    assert not [*tmp_path.glob("a/**/*.npz"), *tmp_path.glob("a/.*.tmp")]
    run.generate(without := wanted(tmp_path / "c", source, untrained, references="none"))
    assert Stages(without).references is None and "references" not in read_json(tmp_path / "c" / "plan.json")


def test_to_foretell_a_run_few_photographs_are_looked_at_and_the_same_is_planned(tmp_path, untrained, monkeypatch):
    recipe = wanted(tmp_path / "run", labelled(tmp_path / "plates", 8), untrained)
    every, few = Stages(recipe), Stages(recipe)
    few.most_looked_at = 2
    counted = []
    monkeypatch.setattr(Editor, "collected", lambda self, plates, *rest: counted.append(len([*plates])))
    assert [stages.references for stages in (every, few)] == [None, None] and counted == [8, 2]
    assert few.seconds_of_looks > 0
    monkeypatch.undo()
    assert plan.make_plan(every).facts == plan.make_plan(few).facts


def test_a_folder_of_one_picture_is_edited_with_its_own_characters(tmp_path, untrained, monkeypatch):
    (plate,) = plates(1)
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), plate.image[..., ::-1])
    (tmp_path / "to.txt").write_text(f"a.png {plate.target}\n")
    (tmp_path / "is.txt").write_text(f"a.png {plate.text}\n")
    given = []
    monkeypatch.setattr(References, "of", lambda self, number: given.append(self.sources) or self._as_input({}))
    edit_folder(tmp_path / "in", tmp_path / "to.txt", tmp_path / "is.txt", untrained.checkpoint, tmp_path / "out")
    assert len(given) == 1 and len(given[0]) == 1


# ------------------------------------------------------------------------------------------------------ in training


def test_rendered_references_are_often_absent_often_incomplete_and_near_the_truth():
    drawn = [FACES(SLIM, "ABC123", np.random.default_rng(i)) for i in range(60)]
    present = np.array([(some[:, 1, 0, 0] > 0).sum() for some, _ in drawn])
    assert (
        8 <= (present == 0).sum() <= 30
        and (present == present.max()).sum() > 5
        and ((present > 0) & (present < 30)).any()
    )
    for some, truth in drawn:
        there = (some[:, 1, 0, 0] > 0) & truth.any((1, 2, 3))
        assert not there.any() or np.abs(some[there, 0] - truth[there, 0]).mean() < 0.25
    again = FACES(SLIM, "ABC123", np.random.default_rng(7))
    assert np.array_equal(again[0], drawn[7][0])
