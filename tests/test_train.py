"""train: resumes to the same curve, refuses what it cannot do, and what it learns is what the renderer shows."""

import csv
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from models import checkpoint
from pipeline import train as training
from pipeline.plate import READABLE, PlatemintError
from pipeline.recipe import TrainRecipe, load_recipe
from run_pipeline import main

SMALL = dict(batch=2, workers=0, log_every=1, sheet_every=1000, warmup=2, layouts=("uk", "cn-blue"))


def recipe(folder, **changes):
    return TrainRecipe(**(SMALL | {"steps": 4, "generator_from": 2, "out": str(folder)} | changes))


def curve(folder):
    return list(csv.reader((folder / "losses.csv").open(encoding="utf8")))


def test_a_run_leaves_checkpoint_curve_sheet_and_tensorboard(tmp_path, untrained):
    path = training.train(
        recipe(tmp_path, sheet_every=4, adversarial=0.1, reader=untrained.reader), say=lambda line: None
    )
    assert checkpoint.load(str(path), "spg").config.height == 48
    rows = curve(tmp_path)
    assert [int(r[0]) for r in rows] == [1, 2, 3, 4]
    assert "l1=" not in " ".join(rows[1]) and all(
        f"{n}=" in " ".join(rows[3]) for n in ("l1", "recognition", "perceptual", "adversarial", "critic")
    )
    assert cv2.imread(str(tmp_path / "sheets" / "0000004.png")) is not None
    assert any((tmp_path / "tensorboard").iterdir())
    assert load_recipe(tmp_path / "recipe.yaml", (), "train").steps == 4


def test_killed_and_resumed_the_loss_curve_is_the_same(tmp_path):
    """kill -9 while it trains, as the machine would."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    training.train(recipe(whole, steps=12, generator_from=6, log_every=2), say=lambda line: None)
    sets = [
        f"--set={k}={list(v) if isinstance(v, tuple) else v}"
        for k, v in (
            SMALL | {"steps": 12, "generator_from": 6, "log_every": 2, "out": broken, "save_minutes": 1e-6}
        ).items()
    ]
    command = [sys.executable, "run_pipeline.py", "train", *sets]
    child = subprocess.Popen(command, cwd=os.path.dirname(os.path.dirname(__file__)), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not ((broken / "losses.csv").exists() and len(curve(broken)) >= 2):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert len(curve(broken)) < 6
    training.train(
        recipe(broken, steps=12, generator_from=6, log_every=2, save_minutes=1e-6), resume=True, say=lambda line: None
    )
    assert curve(broken) == curve(whole)
    a, b = (checkpoint.load(str(f / "spg.safetensors"), "spg").state_dict() for f in (whole, broken))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_another_run_is_not_overwritten_and_nothing_is_not_resumed(tmp_path):
    with pytest.raises(PlatemintError, match="nothing to resume"):
        training.train(recipe(tmp_path / "none"), resume=True)
    training.train(recipe(tmp_path / "a", steps=1), say=lambda line: None)
    with pytest.raises(PlatemintError, match="--resume"):
        training.train(recipe(tmp_path / "a", steps=1))


def test_a_resumed_run_is_the_same_run(tmp_path):
    training.train(recipe(tmp_path, steps=1), say=lambda line: None)
    with pytest.raises(PlatemintError, match="another seed, lr"):
        training.train(recipe(tmp_path, steps=2, seed=9, lr=0.1), resume=True)
    training.train(recipe(tmp_path, steps=2), resume=True, say=lambda line: None)  # longer is allowed
    assert [row[0] for row in curve(tmp_path)] == ["1", "2"]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"x" * 100])
def test_a_damaged_state_is_told(tmp_path, damage):
    training.train(recipe(tmp_path, steps=1), say=lambda line: None)
    state = tmp_path / "state.pt"
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(PlatemintError, match="state.pt: is damaged"):
        training.train(recipe(tmp_path, steps=2), resume=True)


def test_a_missing_reader_is_told_without_a_traceback(tmp_path):
    run = CliRunner().invoke(main, ["train", "--set", f"out={tmp_path}", "--set", "reader=nowhere", "--set", "steps=1"])
    assert run.exit_code == 1 and "nowhere" in run.output and "Traceback" not in run.output


def test_a_loss_that_is_not_a_number_stops_and_saves_the_batch(tmp_path):
    run = training.Run(recipe(tmp_path), tmp_path)
    batch = next(iter(training.batches(run.recipe, 0)))
    with torch.no_grad():
        run.task.network.C_d.hint.weight.fill_(float("nan"))
    with pytest.raises(PlatemintError, match="nan-batch.pt"):
        run.advance(batch)
    assert torch.load(tmp_path / "nan-batch.pt", weights_only=True)["source_text"] == batch.source_text


def test_pairs_are_the_same_in_every_process_and_differ_by_number(tmp_path):
    pairs = training.Pairs(recipe(tmp_path))
    (a, _), (b, _), (c, _) = pairs[3], pairs[3], pairs[4]
    assert np.array_equal(a.image, b.image) and a.text == b.text and a.text != c.text
    inline = next(iter(training.batches(recipe(tmp_path), 1)))
    ahead = next(iter(training.batches(recipe(tmp_path, workers=1), 1)))
    assert torch.equal(inline.source, ahead.source) and inline.target_text == ahead.target_text


def test_frames_say_what_is_read_where():
    slots = torch.tensor([[[x, y], [0.1, 0.0], [0.0, 0.2]] for x, y in ((0.25, 0.25), (0.75, 0.25), (0.5, 0.75))])
    frames = training.frames_of("A-7", slots, 40).view(2, 40)
    assert frames[0, 10] == READABLE.index("A") + 1 and frames[1, 20] == READABLE.index("7") + 1
    assert frames[0, 30] == 0 and frames[1, 10] == 0


def test_training_lowers_the_loss(tmp_path):
    training.train(
        recipe(tmp_path, steps=40, generator_from=100, batch=4, lr=2e-3, layouts=("uk",), wild=0.0),
        say=lambda line: None,
    )
    losses = [float(r[1].split("=")[1]) for r in curve(tmp_path)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_the_reader_learns_labelled_crops_too(tmp_path, untrained):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    image = np.random.default_rng(0).integers(0, 255, (24, 94, 3), np.uint8)
    for text in ("AB123", "CD456"):
        cv2.imwrite(str(corpus / f"{text}_1.png"), image)
    chosen = recipe(tmp_path / "run", network="reader", name="reader", source=str(corpus), real_share=0.8, steps=2)
    path = training.train(chosen, say=lambda line: None)
    assert checkpoint.load(str(path), "reader").config.alphabet == READABLE
    batch = next(iter(training.batches(chosen, 0)))
    _, texts, frames = training.ReaderTask(chosen).examples(batch, 0)
    assert {"AB123", "CD456"} & set(texts) and (frames == training.UNKNOWN).any()


def test_a_broken_picture_does_not_stop_the_reader_nor_a_batch_of_crops_alone(tmp_path):
    (tmp_path / "AB123_1.png").write_bytes(b"")
    cv2.imwrite(str(tmp_path / "CD456_1.png"), np.full((24, 94, 3), 128, np.uint8))
    chosen = recipe(tmp_path / "run", network="reader", source=str(tmp_path), real_share=1.0, steps=1)
    task = training.ReaderTask(chosen)
    assert [text for _, text in task.real] == ["CD456"]
    batch = next(iter(training.batches(chosen, 0)))
    while not (task.examples(batch, 0)[2] == training.UNKNOWN).all():
        chosen = chosen.model_copy(update={"seed": chosen.seed + 1})
        task.recipe = chosen
    assert torch.isfinite(task.loss(batch, 0)[0])


def test_a_corpus_that_cannot_teach_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "labels.csv").write_text("path,text,split\na.png,AB1,val\n", encoding="utf8")
    with pytest.raises(PlatemintError, match="no readable labelled crop"):
        training.train(recipe(tmp_path / "run", network="reader", source=str(tmp_path / "x")))
