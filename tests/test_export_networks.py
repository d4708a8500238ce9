"""ONNX of the networks: what onnxruntime makes of it is what the pipeline makes, and what differs is not written."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_edit import plates

from platemint import run_pipeline
from platemint.pipeline import edit, export_networks
from platemint.pipeline.edit import Editor
from platemint.pipeline.filter import Filter
from platemint.pipeline.find import TextFinder
from platemint.pipeline.plate import Failure, PlatemintError
from platemint.pipeline.recipe import Edit, Limits

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def networks(untrained, tmp_path_factory):
    """The folder, written by the program."""
    out = tmp_path_factory.mktemp("networks")
    names = ["--checkpoint", untrained.checkpoint, "--reader", untrained.reader]  # the finder is the one that ships
    args = ["export-networks", *names, "--out", str(out)]
    result = CliRunner().invoke(run_pipeline.main, args, catch_exceptions=False)
    assert result.exit_code == 0 and result.output.count("from what torch gives") == 3
    return out


def facts(networks) -> dict:
    return json.loads((networks / "networks.json").read_text(encoding="utf8"))


def run(networks, name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """What a program gets that knows networks.json alone."""
    said = facts(networks)[name]
    assert {put["name"] for put in said["inputs"]} == inputs.keys()
    for put in said["inputs"]:
        assert inputs[put["name"]].dtype == put["type"] and [*inputs[put["name"]].shape[1:]] == put["shape"][1:]
    session = onnxruntime.InferenceSession(networks / said["file"], providers=["CPUExecutionProvider"])
    results = session.run(None, inputs)
    for got, value in zip(said["outputs"], results, strict=True):
        assert value.dtype == got["type"] and [*value.shape[1:]] == got["shape"][1:]
    return dict(zip([got["name"] for got in said["outputs"]], results))


def codes(texts: list[str], said: dict) -> np.ndarray:
    longest = next(put["shape"][1] for put in said["inputs"] if put["name"] == "source_text")
    rows = [[1 + said["alphabet"].index(c) for c in text] + [0] * (longest - len(text)) for text in texts]
    return np.array(rows, dtype=np.int64)


def references_for(networks, count: int, known: float) -> np.ndarray:
    """Of that share of characters, random ones."""
    shape = next(put["shape"] for put in facts(networks)["generator"]["inputs"] if put["name"] == "references")
    rng = np.random.default_rng(0)
    found = rng.uniform(0, 1, (count, *shape[1:])).astype(np.float32)
    found[:, :, 1] = np.where(rng.uniform(0, 1, found.shape[:2]) < known, 0.4, 0)[..., None, None]
    return found


@pytest.mark.parametrize("known", [0, 0.5, 1])
@pytest.mark.parametrize("count", [1, 5])
def test_an_edit_is_the_pipeline_s(networks, untrained, count, known, monkeypatch):
    """Of plates that have the network's own size, where nothing has to be composed at another; edges as drawn."""
    monkeypatch.setattr(edit, "steepened", lambda B_t, *_: B_t)
    before = plates([(48, 160)] * count)
    for number, plate in enumerate(before):
        plate.target = plate.target[: 4 + number % 4]
    references = references_for(networks, count, known)
    editor = Editor(untrained.model_copy(update={"find": "none", "device": "cpu", "precision": "float32"}))
    monkeypatch.setattr(editor, "_references", lambda photos, seen: torch.from_numpy(references))
    said = facts(networks)["generator"]
    found = run(
        networks,
        "generator",
        source=np.stack([p.image for p in before]).transpose(0, 3, 1, 2).astype(np.float32) / 255,
        source_text=codes([p.text for p in before], said),
        target_text=codes([p.target for p in before], said),
        references=references,
    )
    for number, plate in enumerate(editor(before)):
        for name, wanted in (("source_mask", plate.source_mask[None]), ("target_mask", plate.target_mask[None]),
                             ("edited", plate.image.transpose(2, 0, 1))):  # fmt: skip
            assert np.abs(found[name][number] * 255 - wanted).max() < 0.6, name
        assert np.allclose(found["target_slots"][number][: len(plate.text)], plate.slots, atol=1e-4)
    untouched = np.broadcast_to(found["region"] == 0, found["edited"].shape)
    source = np.stack([p.image for p in before]).transpose(0, 3, 1, 2).astype(np.float32) / 255
    assert (found["edited"][untouched] == source[untouched]).all()


def test_a_reading_is_the_pipeline_s(networks, untrained):
    before = plates([(48, 160)] * 4)
    found = run(
        networks, "reader", image=np.stack([p.image for p in before]).transpose(0, 3, 1, 2).astype(np.float32) / 255
    )
    alphabet = facts(networks)["reader"]["alphabet"]
    texts = []
    for steps in found["log_probabilities"].argmax(2):
        kept = [s for s, earlier in zip(steps, [0, *steps]) if s not in (0, earlier)]
        texts.append("".join(alphabet[s - 1] for s in kept))
    options = untrained.model_copy(update={"device": "cpu", "precision": "float32"})
    assert texts == [text for text, _ in Filter(Limits(), options).read([p.image for p in before])]


@pytest.mark.parametrize("count", [1, 5])
def test_what_is_found_is_the_pipeline_s(networks, count):
    """Where the text stands on loose crops."""
    rng = np.random.default_rng(count)
    loose = [np.full((80, 160, 3), 90, np.uint8) for _ in range(count)]
    for picture, plate in zip(loose, plates([(34, 100)] * count)):
        y, x = rng.integers(4, 40), rng.integers(4, 56)
        picture[y : y + 34, x : x + 100] = plate.image
    said = facts(networks)["finder"]
    found = run(networks, "finder", image=np.stack(loose).transpose(0, 3, 1, 2).astype(np.float32) / 255)
    finder = TextFinder(Edit(device="cpu", precision="float32"))
    for corners, sure, block in zip(found["corners"], found["sure"], finder.blocks(loose)):
        assert (sure >= said["least_sure"]) == (block is not None)
        assert block is None or np.abs(corners - block).max() < 1e-4
    assert any(block is not None for block in finder.blocks(loose))


def test_what_differs_from_torch_is_not_written(untrained, tmp_path, monkeypatch):
    monkeypatch.setattr(export_networks, "TOLERANCE", 0.0)
    with pytest.raises(Failure, match=r"generator.onnx: not written: onnxruntime differs from torch by"):
        export_networks.export_networks(untrained.checkpoint, untrained.reader, "finder", tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_told_first(untrained, tmp_path, monkeypatch):
    with pytest.raises(PlatemintError, match="edit.reader: nothing"):
        export_networks.export_networks(untrained.checkpoint, "nothing", "finder", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(PlatemintError, match=r"needs onnx and onnxruntime.*\.\[onnx\]"):
        export_networks.export_networks(untrained.checkpoint, untrained.reader, "finder", tmp_path)
    assert not list(tmp_path.iterdir())
