"""Recipes, layouts, pictures, checkpoints and detectors of strangers: refused with one message, through the verbs too."""

import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from platemint import run_pipeline
from platemint.models import checkpoint
from platemint.models.reader import Reader, ReaderConfig
from platemint.pipeline.anonymize.detector import Detector
from platemint.pipeline.anonymize.picture import open_picture
from platemint.pipeline.parsing import parse_json, parse_yaml
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.recipe import Detect, load_recipe
from platemint.pipeline.render.layout import load_layouts
from platemint.pipeline.storage import MOST_SCANS, decode

LAUGHS = "".join(f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi"))
YAMLS = {
    "tag": "name: !!python/object/apply:os.getcwd []\n",
    "laughs": f"a: &a [x, x]\n{LAUGHS}name: *i\n",
    "itself": "name: &a [*a]\n",
    "deep": f"name: {'[' * 5000}\n",
    "day": "name: 2026-13-45\n",
    "number": f"count: {'9' * 5000}\n",
    "time": "name: !!timestamp x\n",
    "long": f"name: {'x' * (2 << 20)}\n",
}


class Bomb:
    """What makes a file when somebody unpickles it."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.fixture
def called():
    """Calls the program; a traceback fails the test."""

    def call(*args, code=2):
        result = CliRunner().invoke(run_pipeline.main, [*map(str, args)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        return result.output

    return call


# ---------------------------------------------------------------------------------------------------------------- YAML


@pytest.mark.parametrize("kind", YAMLS)
def test_a_recipe_or_layout_that_explodes_is_refused_by_name(kind, tmp_path, called):
    file = tmp_path / "x.yaml"
    file.write_text(YAMLS[kind])
    for read in (load_recipe, lambda path: load_layouts([str(path)])):
        with pytest.raises(PlatemintError, match=str(file)) as refused:
            read(file)
        assert len(str(refused.value)) < 2000
    assert str(file) in called("generate", file)


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(st.text("[]{}:,&*!?|>-\"'#%@` \n\tab0.", max_size=60))
def test_no_text_is_more_than_a_fault_of_yaml(text):
    import yaml

    try:
        parse_yaml(text)
    except yaml.YAMLError as fault:
        assert str(fault)


@pytest.mark.parametrize("opened", ["[", '{"a":'])
def test_nested_json_is_refused(opened):
    closed = {"[": "]"}.get(opened, "1}")
    assert parse_json(opened * 90 + closed[:-1] + closed[-1] * 90)
    for depth in (150, 100_000):
        with pytest.raises(ValueError, match="100 levels"):
            parse_json(opened * depth + closed[:-1] + closed[-1] * depth)


# ------------------------------------------------------------------------------------------------------------ pictures


def picture(format, **options):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 120, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format, **options)
    return sink.getvalue()


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def test_pictures_that_explode_are_refused():
    for width, height in ((60_000, 60_000), (2**31 - 1, 1)):
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        with pytest.raises(ValueError, match="too many|more than"):
            decode(bomb)
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", "x" * 10_000_000, zip=True)
    with pytest.raises(ValueError, match="broken|not a picture"):
        decode(picture("PNG", pnginfo=note))
    jpeg = picture("JPEG", progressive=True)
    scan = jpeg.index(b"\xff\xda")
    with pytest.raises(ValueError, match=f"more than {MOST_SCANS} scans"):
        decode(jpeg[:-2] + jpeg[scan:-2] * MOST_SCANS + jpeg[-2:])


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_damaged_picture_is_a_reason(format, tmp_path):
    valid = picture(format)

    @settings(derandomize=True, max_examples=40, deadline=None, database=None)
    @given(st.integers(0, len(valid) - 1), st.binary(max_size=12), st.booleans())
    def tried(at, put, cut):
        data = valid[:at] + put + (b"" if cut else valid[at + len(put) :])
        (tmp_path / "x").write_bytes(data)
        for read in (lambda: decode(data), lambda: open_picture(tmp_path / "x")):
            try:
                read()
            except ValueError as fault:
                assert str(fault)

    tried()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP"])
def test_of_a_file_that_is_two_only_the_picture_is_written(format, tmp_path):
    sink = io.BytesIO(picture(format))
    with zipfile.ZipFile(sink, "a") as other:
        other.writestr("secret.txt", "ABC1234")
    (tmp_path / "x").write_bytes(sink.getvalue())
    assert zipfile.is_zipfile(tmp_path / "x")
    opened = open_picture(tmp_path / "x")
    assert b"ABC1234" in sink.getvalue() and b"ABC1234" not in opened.encode(opened.pixels)


# ------------------------------------------------------------------------------------------------------------ networks


@pytest.fixture
def reader(tmp_path):
    """Writes a small reader whose weights and metadata can be changed; gives its file."""
    from safetensors.torch import load_file, save_file

    network = Reader(ReaderConfig("ABC0", channels=(8, 8, 8), heads=1, layers=1))
    file = tmp_path / "reader.safetensors"
    checkpoint.save(network, file)

    def changed(config=None, **weights):
        facts = {"kind": "reader", "config": json.dumps(network.config.__dict__ | (config or {}))}
        save_file(load_file(str(file)) | weights, str(file), metadata=facts)
        return str(file)

    return changed


def test_a_checkpoint_that_lies_is_refused(reader, called):
    name, weight = next(iter(Reader(ReaderConfig("ABC0", channels=(8, 8, 8), heads=1, layers=1)).state_dict().items()))
    assert checkpoint.load(reader(), "reader").config.alphabet == "ABC0"
    for config, said in (
        ({"alphabet": "ABC01234"}, "weights are not of its config"),
        ({"alphabet": "AABC"}, "its alphabet is not a text of different characters"),
        ({"alphabet": 7}, "its alphabet is not a text"),
        ({"channels": [8, 8, 10**9]}, "a size below 0 or above"),
        ({"layers": 10**9}, "a size below 0 or above"),
        ({"layers": 2}, "weights are not of its config"),
        ({"height": "x"}, "not a checkpoint this version can read"),
        ({"other": 1}, "not a checkpoint this version can read"),
    ):
        with pytest.raises(checkpoint.CheckpointError, match=said):
            checkpoint.load(reader(config), "reader")
    for broken, said in ((torch.full_like(weight, torch.nan), "no number"), (weight[..., :1].contiguous(), "such as")):
        with pytest.raises(checkpoint.CheckpointError, match=said):
            checkpoint.load(reader(**{name: broken}), "reader")
    assert "edit.reader" in called(
        "generate", "--count", 2, "--set", f"edit.reader={reader(**{name: weight * torch.inf})}"
    )


def test_a_pickle_in_place_of_a_checkpoint_is_never_opened(tmp_path, called):
    sentinel = tmp_path / "opened"
    pickled, stored = tmp_path / "a.pt", tmp_path / "b.npy"
    torch.save(Bomb(sentinel), pickled)
    np.save(stored, np.array([Bomb(sentinel)], dtype=object), allow_pickle=True)
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(Bomb(sentinel)))
    for file in (pickled, stored, tmp_path / "c.pkl"):
        assert "edit.checkpoint" in called("generate", "--count", 2, "--set", f"edit.checkpoint={file}")
        with pytest.raises(PlatemintError, match="detector.path"):
            Detector(Detect(path=str(file)))
    assert not sentinel.exists()


@settings(derandomize=True, max_examples=15, deadline=None, database=None)
@given(st.integers(0, 400), st.binary(max_size=9))
def test_a_damaged_header_of_a_checkpoint_is_refused(at, put):
    data = (checkpoint.FOLDER / "finder.safetensors").read_bytes()
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(data[:at] + put + data[at + len(put) :])
        file.flush()
        try:
            checkpoint.load(file.name, "finder")
        except checkpoint.CheckpointError as fault:
            assert file.name in str(fault)


# --------------------------------------------------------------------------------------------------------------- verbs


@pytest.mark.parametrize(
    "held", ["annotations.json", "data.mdb", "a.parquet", "a.tar", "a.mds", "data.yaml", "labels.csv"]
)
def test_every_verb_refuses_garbage_in_one_message(held, tmp_path, called):
    corpus, out = tmp_path / "in", tmp_path / "out"
    corpus.mkdir()
    (corpus / held).write_bytes(b"\x00\xff[{" * 3000)
    assert "Error" in called("inspect", corpus)
    assert "Error" in called("generate", "--source", corpus, "--out", out)
    assert "Error" in called("anonymize", corpus, "--out", out)
    assert "Error" in called("train", "--source", corpus, "--set", f"out={out}", "--set", "steps=1")
    assert "Error" in called("export", corpus, "--to", "lmdb", "--out", out)
    assert "Error" in called("verify", corpus)
