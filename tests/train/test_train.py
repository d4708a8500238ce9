"""train: resumes to the same curve, refuses what it cannot do, and what it learns is what the renderer shows."""

import csv
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open

from platemint.models import checkpoint
from platemint.models.spg import SPGConfig
from platemint.pipeline import train as training
from platemint.pipeline.plate import ALPHABET, READABLE, PlatemintError, kind_of
from platemint.pipeline.recipe import TrainRecipe, load_recipe
from platemint.pipeline.render import load_layouts, photograph, random_text, render_plate
from platemint.pipeline.render.surroundings import pasted
from platemint.pipeline.train.finder import block_of
from platemint.pipeline.train.generator import SPGTask, another_text, shortened
from platemint.pipeline.train.pairs import Pairs, pair_batches, shrink, slots_of, unit_pictures, validation
from platemint.pipeline.train.reading import UNKNOWN, frames_of
from platemint.run_pipeline import main

SIZE = SPGConfig.height, SPGConfig.width
SMALL = dict(batch=2, workers=0, log_every=1, sheet_every=1000, warmup=2, layouts=("uk", "cn-blue"))


def recipe(folder, **changes):
    own = {} if changes.get("network") == "reader" else {"generator_from": 2}
    return TrainRecipe(**(SMALL | {"steps": 4, "out": str(folder)} | own | changes))


def curve(folder):
    return list(csv.reader((folder / "losses.csv").open(encoding="utf8")))


def silent(line):
    pass


def corpus(folder, count=24, layout="uk", share_of_wrong=0.0):
    """Labelled rendered crops, as a user's folder of plates would hold them."""
    folder.mkdir()
    rng, kind = np.random.default_rng(5), load_layouts([layout])[layout]
    texts = [random_text(kind.positions, rng) for _ in range(count)]
    for i, text in enumerate(texts):
        plate = render_plate(kind, text, rng, severity=0.2)
        cv2.imwrite(str(folder / f"{text}_{i}.png"), plate.image[..., ::-1])
    return folder


def test_a_run_leaves_checkpoint_curve_sheet_and_tensorboard(tmp_path, untrained):
    path = training.train(recipe(tmp_path, sheet_every=4, adversarial=0.1, reader=untrained.reader), say=silent)
    assert checkpoint.load(str(path), "spg").config.height == 48
    rows = curve(tmp_path)
    assert [int(r[0]) for r in rows] == [1, 2, 3, 4, 4] and rows[4][1].startswith("score=")
    assert "l1=" not in " ".join(rows[1]) and all(
        f"{n}=" in " ".join(rows[3]) for n in ("l1", "recognition", "perceptual", "adversarial", "critic")
    )
    assert cv2.imread(str(tmp_path / "sheets" / "0000004.png")) is not None
    assert any((tmp_path / "tensorboard").iterdir())
    assert load_recipe(tmp_path / "recipe.yaml", (), "train").steps == 4


def test_killed_and_resumed_the_loss_curve_is_the_same(tmp_path):
    """kill -9 while it trains, as the machine would."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    training.train(recipe(whole, steps=12, generator_from=6, log_every=2), say=silent)
    sets = [
        f"--set={k}={list(v) if isinstance(v, tuple) else v}"
        for k, v in (
            SMALL | {"steps": 12, "generator_from": 6, "log_every": 2, "out": broken, "save_minutes": 1e-6}
        ).items()
    ]
    command = [sys.executable, "run_pipeline.py", "train", *sets]
    child = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not ((broken / "losses.csv").exists() and len(curve(broken)) >= 2):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert len(curve(broken)) < 6
    training.train(recipe(broken, steps=12, generator_from=6, log_every=2, save_minutes=1e-6), resume=True, say=silent)
    assert curve(broken) == curve(whole)
    a, b = (checkpoint.load(str(f / "spg.safetensors"), "spg").state_dict() for f in (whole, broken))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_another_run_is_not_overwritten_and_nothing_is_not_resumed(tmp_path):
    with pytest.raises(PlatemintError, match="nothing to resume"):
        training.train(recipe(tmp_path / "none"), resume=True)
    training.train(recipe(tmp_path / "a", steps=1), say=silent)
    with pytest.raises(PlatemintError, match="--resume"):
        training.train(recipe(tmp_path / "a", steps=1))


def test_a_resumed_run_is_the_same_run(tmp_path):
    training.train(recipe(tmp_path, steps=1), say=silent)
    with pytest.raises(PlatemintError, match="another seed, lr"):
        training.train(recipe(tmp_path, steps=2, seed=9, lr=0.1), resume=True)
    training.train(recipe(tmp_path, steps=2), resume=True, say=silent)  # longer is allowed
    assert [row[0] for row in curve(tmp_path)] == ["1", "1", "2", "2"]  # figures and score


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"x" * 100])
def test_a_damaged_state_is_told(tmp_path, damage):
    training.train(recipe(tmp_path, steps=1), say=silent)
    state = tmp_path / "state.pt"
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(PlatemintError, match="state.pt: is damaged"):
        training.train(recipe(tmp_path, steps=2), resume=True)


def test_a_missing_reader_is_told_without_a_traceback(tmp_path):
    run = CliRunner().invoke(main, ["train", "--set", f"out={tmp_path}", "--set", "reader=nowhere", "--set", "steps=1"])
    assert run.exit_code == 2 and "nowhere" in run.output and "Traceback" not in run.output
    assert not any(tmp_path.iterdir())


def test_a_loss_that_is_not_a_number_stops_and_saves_the_batch(tmp_path):
    run = training.Run(recipe(tmp_path), tmp_path)
    batch = next(iter(run.batches()))
    with torch.no_grad():
        run.task.network.C_d.hint.weight.fill_(float("nan"))
    with pytest.raises(PlatemintError, match="nan-batch.pt"):
        run.advance(batch)
    assert torch.load(tmp_path / "nan-batch.pt", weights_only=True)["source_text"] == batch.source_text


def test_pairs_are_the_same_in_every_process_and_differ_by_number(tmp_path):
    pairs = Pairs(recipe(tmp_path), ALPHABET)
    (a, *_), (b, *_), (c, *_) = pairs[3], pairs[3], pairs[4]
    assert np.array_equal(a.image, b.image) and a.text == b.text and a.text != c.text
    inline = next(iter(pair_batches(recipe(tmp_path), ALPHABET, SIZE, 1)))
    ahead = next(iter(pair_batches(recipe(tmp_path, workers=1), ALPHABET, SIZE, 1)))
    assert torch.equal(inline.source, ahead.source) and inline.target_text == ahead.target_text


def test_processes_share_a_batch_without_gap_or_overlap(tmp_path):
    whole = next(iter(pair_batches(recipe(tmp_path, batch=4), ALPHABET, SIZE, 1)))
    parts = [next(iter(pair_batches(recipe(tmp_path, batch=4), ALPHABET, SIZE, 1, rank, 2))) for rank in range(2)]
    assert torch.equal(whole.source[0::2], parts[0].source) and torch.equal(whole.source[1::2], parts[1].source)


def test_frames_say_what_is_read_where():
    slots = torch.tensor([[[x, y], [0.1, 0.0], [0.0, 0.2]] for x, y in ((0.25, 0.25), (0.75, 0.25), (0.5, 0.75))])
    frames = frames_of("A-7", slots, 40, READABLE).view(2, 40)
    assert frames[0, 10] == READABLE.index("A") + 1 and frames[1, 20] == READABLE.index("7") + 1
    assert frames[0, 30] == 0 and frames[1, 10] == 0


def test_training_lowers_the_loss(tmp_path):
    training.train(
        recipe(tmp_path, steps=40, generator_from=100, batch=4, lr=2e-3, layouts=("uk",), wild=0.0),
        say=silent,
    )
    losses = [float(r[1].split("=")[1]) for r in curve(tmp_path)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_the_reader_learns_labelled_crops_too(tmp_path):
    source = corpus(tmp_path / "corpus")
    chosen = recipe(tmp_path / "run", network="reader", name="reader", source=str(source), real_share=0.8, steps=2)
    run = training.Run(chosen, tmp_path, silent)
    assert len(run.task.crops) == 24
    _, texts, frames = run.task.examples(next(iter(run.batches())), np.random.default_rng(0))
    assert {text for _, text in run.task.crops} & set(texts) and (frames == UNKNOWN).any()
    path = training.train(chosen, say=silent)
    assert checkpoint.load(str(path), "reader").config.alphabet == READABLE


def test_a_batch_of_crops_alone_has_a_loss(tmp_path):
    chosen = recipe(tmp_path, network="reader", source=str(corpus(tmp_path / "corpus")), real_share=1.0)
    run = training.Run(chosen, tmp_path, silent)
    batch = next(iter(run.batches()))
    seed = next(s for s in range(100) if (run.task.examples(batch, np.random.default_rng(s))[2] == UNKNOWN).all())
    assert torch.isfinite(run.task.loss(batch, 0, np.random.default_rng(seed))[0])


def test_phase_2_learns_from_real_plates_without_masks(tmp_path, untrained):
    """Its losses reach the masks, which nothing else tells about real plates, and a pattern is kept."""
    chosen = recipe(tmp_path / "run", source=str(corpus(tmp_path / "corpus")), reader=untrained.reader, steps=2, real=2)
    run = training.Run(chosen, tmp_path, silent)
    parts = run.task._real(np.random.default_rng(0))
    parts["real_l1"].backward()
    assert run.task.network.C_d.glyphs.grad.abs().sum() > 0
    training.train(chosen, say=silent)
    assert "real_read=" in (tmp_path / "run" / "losses.csv").read_text()
    assert not {i for i, _ in enumerate(run.task.held_back)} & {24}
    kinds = [
        "".join(kind_of(c) or c for c in t)
        for t in ("AB12-CD", another_text("XY90-ZZ", np.random.default_rng(0), ALPHABET))
    ]
    assert kinds[0] == kinds[1]


def test_the_discriminator_is_shown_photographs_and_their_edits(tmp_path, untrained):
    """It learns from them, what it says reaches the network, and no step is judged by an earlier one's pictures."""
    source = str(corpus(tmp_path / "corpus"))
    chosen = recipe(tmp_path / "run", source=source, reader=untrained.reader, real=2, adversarial=0.5, generator_from=9)
    run = training.Run(chosen, tmp_path, silent)
    before = [weight.clone() for weight in run.task.critic.parameters()]
    run.task._real(np.random.default_rng(0))["real_adversarial"].backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in run.task.network.G_t.parameters())
    assert all(weight.grad is None for weight in run.task.critic.parameters())
    for batch in islice(run.batches(), 2):
        assert (
            "critic" in run.advance(batch) and len(run.task._seen) == 2
        )  # there and back; nothing rendered is painted yet
    assert not all(map(torch.equal, before, run.task.critic.parameters()))


def test_some_texts_are_shortened_by_two_neighbours_and_never_by_the_first():
    rng = np.random.default_rng(0)
    found = [shortened("ABC1234", rng) for _ in range(500)]
    assert {len(text) for text in found} == {5, 7} and 50 < sum(len(text) == 5 for text in found) < 150
    assert {text for text in found if len(text) == 5} == {"A1234", "AB234", "ABC34", "ABC14"}
    assert all(shortened(text, rng) == text for text in ("AB123", "AB-12345") for _ in range(50))


def test_the_reader_says_where_characters_of_a_real_plate_stand(tmp_path):
    """On plates of one row and of two, beside emblems; a separator that the label spells may be anywhere."""
    task = SPGTask(TrainRecipe(network="spg", reader="reader", **SMALL), torch.device("cpu"), torch.float32, [])
    rng, found = np.random.default_rng(0), []
    for name, text in [("uk", "AB12 CDE"), ("us-scenic", None), ("br-mercosur-moto", None), ("ar-mercosur", None)]:
        layout = load_layouts([name])[name]
        photo = photograph(layout, [text or random_text(layout.positions, rng)], 90, 0.1, rng)[0]
        picture = unit_pictures(shrink(photo.image, SIZE)[None], "cpu")
        near = task._near(task.reader.features(picture), [photo.text])[0]
        assert all(near[i].all() for i, c in enumerate(photo.text) if c == " ")
        height, width = SIZE[0] // 8, SIZE[1] // 8
        for n, (x, y) in enumerate(slots_of(photo.boxes)[:, 0]):
            if photo.text[n] != " ":
                found.append(bool(near[n][int(y * height) * width + int(x * width)]))
                assert near[n].sum() <= 3 * height
    assert np.mean(found) > 0.95


def test_phase_2_without_a_reader_is_refused(tmp_path):
    with pytest.raises(PlatemintError, match="reader"):
        training.train(recipe(tmp_path, source="anywhere"))


@pytest.mark.parametrize("network", ["spg", "reader"])
def test_a_corpus_that_cannot_teach_is_refused(tmp_path, untrained, network):
    source = corpus(tmp_path / "corpus", count=3)
    chosen = recipe(tmp_path / "run", network=network, source=str(source), reader=untrained.reader)
    with pytest.raises(PlatemintError, match="3"):
        training.train(chosen, say=silent)


def test_training_stops_when_the_score_stops_rising(tmp_path, monkeypatch):
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    monkeypatch.setattr(training.SPGTask, "score", lambda *_: next(scores))
    said = []
    chosen = recipe(tmp_path, steps=10, generator_from=99, validate_every=1, patience=2)
    path = training.train(chosen, say=said.append)
    assert "stopped" in said[-1]
    with safe_open(str(path), framework="pt") as file:
        assert file.metadata()["step"] == "2"  # the best, not the last


def test_two_processes_train_as_one_does(tmp_path):
    """The same pairs, gradients averaged: the weights agree to rounding.

    After one step: from the second on, Adam makes whole steps of what rounding has left of gradients that are zero.
    """
    fields = {"steps": 1, "batch": 4, "generator_from": 0, "ema": 0, "precision": "float32"}
    training.train(recipe(tmp_path / "one", **fields), say=silent)
    sets = [
        f"--set={k}={list(v) if isinstance(v, tuple) else v}"
        for k, v in (SMALL | fields | {"out": tmp_path / "two"}).items()
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"]
    subprocess.run(
        [*launch, "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "run_pipeline.py", "train", *sets],
        cwd=Path(__file__).parents[2], check=True, timeout=300, capture_output=True,
    )  # fmt: skip
    one, two = (checkpoint.load(str(tmp_path / f / "spg.safetensors"), "spg").state_dict() for f in ("one", "two"))
    start = training.Run(recipe(tmp_path, **fields), tmp_path).task.network.state_dict()
    moved = torch.cat([(one[k] - start[k]).flatten() for k in one])
    apart = torch.cat([(one[k] - two[k]).flatten() for k in one])
    assert apart.norm() < 0.25 * moved.norm()  # 0.06 here; 0.76 where each takes half of the pairs and none averages


def test_every_recipe_that_takes_a_corpus_checks_its_labels():
    assert all(load_recipe(name, (), "train").reader == "reader" for name in ("train-reader", "train-phase2"))


def finder_recipe(folder, **changes):
    own = {"network": "finder", "name": "finder", "steps": 4, "cooldown": 0.0, "validate_every": 2}
    return TrainRecipe(**(SMALL | own | {"out": str(folder)} | changes))


def test_the_finder_learns_without_data_and_goes_on_to_the_same_weights(tmp_path):
    path = training.train(finder_recipe(tmp_path / "whole", sheet_every=4), say=silent)
    training.train(finder_recipe(tmp_path / "broken", steps=2), say=silent)
    training.train(finder_recipe(tmp_path / "broken"), resume=True, say=silent)
    assert "corners=" in " ".join(curve(tmp_path / "whole")[0])
    assert cv2.imread(str(tmp_path / "whole" / "sheets" / "0000004.png")) is not None
    a, b = (checkpoint.load(str(p), "finder").state_dict() for p in (path, tmp_path / "broken" / "finder.safetensors"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_finder_learns_labelled_crops_too(tmp_path):
    source = corpus(tmp_path / "corpus")
    chosen = finder_recipe(tmp_path / "run", source=str(source), real_share=1.0, steps=1)
    task = training.Run(chosen, tmp_path, say=silent).task
    assert len(task.real) == 22 and len(task.held_back.pictures) == 2
    batch = validation(chosen, task.alphabet, task.size, 6, task.kind)
    blank = torch.zeros_like(batch.pictures)
    real = task.examples(type(batch)(blank, batch.blocks), np.random.default_rng(0))
    assert (
        real.pictures.flatten(1).any(1).all()
        and not real.blocks[:, 0].isnan().any()
        and real.blocks[:, 1].isnan().all()
    )


def test_fields_of_other_networks_are_refused_for_the_finder(tmp_path):
    with pytest.raises(ValueError, match="reader is for another network than finder"):
        finder_recipe(tmp_path, reader="reader")


def test_the_block_of_slots_lies_around_them():
    """One row seen in perspective, and two rows of which the lower is longer."""
    block = np.float32([[0.1, 0.3], [0.9, 0.4], [0.9, 0.7], [0.1, 0.65]])
    parts = np.linspace(0, 1, 8)[:, None]
    upper, lower = block[0] + parts * (block[1] - block[0]), block[3] + parts * (block[2] - block[3])
    boxes = np.stack([upper[:-1], upper[1:], lower[1:], lower[:-1]], 1)
    assert np.allclose(block_of(slots_of(boxes)), block, atol=0.01)
    at = np.float32([[0.4, 0.3], [0.6, 0.3], [0.2, 0.7], [0.4, 0.7], [0.6, 0.7], [0.8, 0.7]])
    slots = np.stack([at, np.full_like(at, 0) + [0.1, 0], np.full_like(at, 0) + [0, 0.15]], 1)
    assert np.allclose(block_of(slots), [[0.1, 0.15], [0.9, 0.15], [0.9, 0.85], [0.1, 0.85]], atol=1e-6)


@pytest.mark.parametrize("number", range(8))
def test_a_pasted_plate_s_text_is_where_the_block_says(number):
    """A crop that is red where its text stands: hardly a red pixel lies outside of the block, and most of it is red."""
    crop, block = np.full((40, 120, 3), 60, np.uint8), np.float32([[0.1, 0.25], [0.9, 0.25], [0.9, 0.75], [0.1, 0.75]])
    crop[10:30, 12:108] = 255, 0, 0
    picture, there = pasted(crop, block, np.random.default_rng(number))
    inside = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillConvexPoly(inside, (there * picture.shape[1::-1]).round().astype(np.int32), 1)
    red = picture[..., 0] > picture[..., 1:].max(2).astype(int) + 60
    assert red[inside > 0].mean() > 0.6
