"""export-networks: the networks as ONNX, for programs that have no torch, and a file that says how to call them.

A file is written only where onnxruntime computes with it what torch does. Outside of it stay what has the size of a
photograph (`edit.finish`, `text_frame`), reference glyphs (`references`) and private edits: which row new characters stand
in is decided by medians of values of which some are not defined (`models.cells.even`), for which ONNX has no operator.
"""

from __future__ import annotations

import json
import warnings
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MethodType
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from platemint.models.checkpoint import find_checkpoint
from platemint.models.finder import Finder, likeliest_block
from platemint.models.reader import Reader
from platemint.models.spg import SPG, C_d, Typeface, encode_texts, region
from platemint.pipeline import storage
from platemint.pipeline.edit import AROUND, SHARPEN
from platemint.pipeline.find import SURE
from platemint.pipeline.networks import load_network, network_input
from platemint.pipeline.object_store import ObjectPath
from platemint.pipeline.plate import Failure, PlatemintError, Stream
from platemint.pipeline.recipe import Edit
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.text_frame import LOOSE, MARGIN

OPSET = 17  # the first with layer norms; runtimes of 2023 and later know it
BATCHES = (1, 3)  # sizes that are compared
TOLERANCE = (
    1e-3  # of values that are 0..1, slots included; log-probabilities, down to -30, may differ by ten times that
)
SHARPENED = 11  # pixels that OpenCV takes for the Gaussian of `AROUND`

SOURCE = "RGB in 0..1, the plate stretched to this size; plates fill their picture, or are cut out as the finder says"
INPUTS = {
    "source": SOURCE,
    "source_text": "what stands on the plate: 1 + place of each character in the alphabet, then 0",
    "target_text": "what shall stand there, likewise",
    "references": "how the plate's typeface draws each character, and how sure that is (1 + place in the alphabet); zeros "
    "where that is not known",
}
OUTPUTS = {
    "edited": "the edited plate, edges as the network draws them, RGB in 0..1; equals the source where region is 0",
    "source_mask": "old strokes, 0..1",
    "target_mask": "new strokes, 0..1",
    "region": "what an edit changes, 0..1",
    "filled": "the plate without its characters, RGB in 0..1",
    "ink": "the colour of the strokes everywhere, RGB in 0..1",
    "correction": "what is added to filled * (1 - target_mask) + ink * target_mask, RGB",
    "target_slots": "of each new character its centre, half width vector and half height vector, as fractions of width and "
    "height",
}
FOUND = {
    "corners": "of the block of all characters, clockwise from the upper left in reading order, as fractions of width and height",
    "sure": "how sure the network is of it, 0..1",
}
LOG_PROBABILITIES = (
    "over time: class 0 is blank, class i the i-th character of the alphabet. To read: the likeliest class of each step, "
    "repeated ones once, without blanks"
)


class ExportedGenerator(nn.Module):
    """The generator with its output composed as `edit` does, edges as drawn: `INPUTS` and `OUTPUTS` say of what."""

    bell: Tensor

    def __init__(self, spg: SPG):
        super().__init__()
        self.spg = deepcopy(spg)
        C_d = self.spg.C_d
        C_d.completed = MethodType(_completed, C_d)  # type: ignore[method-assign]
        C_d.typeface.summary = MethodType(_summary, C_d.typeface)  # type: ignore[method-assign]
        bell = torch.from_numpy(cv2.getGaussianKernel(SHARPENED, AROUND)).float()
        self.register_buffer("bell", (bell @ bell.T)[None, None])

    def forward(self, source: Tensor, source_text: Tensor, target_text: Tensor, references: Tensor):
        edit = self.spg(source, source_text, target_text, references=references)
        around = F.conv2d(F.pad(edit.B_t, [SHARPENED // 2] * 4, "reflect"), self.bell)
        B_t = (edit.B_t + SHARPEN * (edit.B_t - around)).clamp(0, 1)
        changed = region(edit.B_s, B_t)
        picture = (torch.lerp(edit.filled, edit.ink, B_t) + edit.correction).clamp(0, 1)
        edited = torch.lerp(source, picture, changed)
        return edited, edit.B_s, B_t, changed, edit.filled, edit.ink, edit.correction, edit.target_slots


class ExportedFinder(nn.Module):
    """The finder, and which of the places it finds is the plate's."""

    def __init__(self, finder: Finder):
        super().__init__()
        self.finder = finder

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return likeliest_block(*self.finder(image))


def _completed(self: C_d, own: Tensor, references: Tensor, of: Tensor, text: Tensor, absent: Tensor) -> Tensor:
    """As `C_d.completed`, with a glyph drawn for every character: no shape depends on the data."""
    drawn = self.typeface(self.glyphs, references, of[:, None].expand_as(text).flatten(), text.flatten()).sigmoid()
    return torch.where(absent[:, :, None, None, None], drawn.unflatten(0, text.shape), own)


def _summary(self: Typeface, learned: Tensor, references: Tensor) -> Tensor:
    """As `Typeface.summary`, over all characters, those without references at weight 0: no shape depends on the data."""
    sure = references[:, :, 1, 0, 0]
    pairs = torch.cat([references[:, :, :1], learned.expand(references.shape[0], -1, -1, -1, -1)], 2)
    seen = self.seen(pairs.flatten(0, 1)).unflatten(0, (-1, learned.shape[0]))
    return (seen * sure[:, :, None]).sum(1) / sure.sum(1, keepdim=True).clamp(min=1e-3)


def export_networks(checkpoint: str, reader: str, finder: str, out: Path | ObjectPath) -> dict[str, Any]:
    """Writes generator.onnx, reader.onnx, finder.onnx and networks.json into a folder; what the last one holds.

    checkpoint, reader, finder: names in models/checkpoints, or files. Raises PlatemintError where one cannot be loaded or a
    library is missing, and Failure where onnxruntime computes something else than torch.
    """
    _onnxruntime()
    options = Edit(checkpoint=checkpoint, reader=reader, finder=finder, device="cpu", precision="float32")
    spg, judge, finds = (
        load_network(name, kind, options)
        for name, kind in ((checkpoint, "spg"), (reader, "reader"), (finder, "finder"))
    )
    facts = {
        "opset": OPSET,
        "generator": _of(spg, checkpoint) | _exported(*_generator(spg), out / "generator.onnx", TOLERANCE),
        "reader": _of(judge, reader) | _exported(*_reader(judge), out / "reader.onnx", 10 * TOLERANCE),
        "finder": _of(finds, finder) | _exported(*_finder(finds), out / "finder.onnx", TOLERANCE)
        | {"least_sure": SURE, "margin": MARGIN, "loose": LOOSE},
    }  # fmt: skip
    storage.write(out / "networks.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return facts


def networks_as_text(facts: dict[str, Any], out: Path | ObjectPath) -> str:
    """A line for each file that was written."""
    parts = (part for part in facts.values() if isinstance(part, dict))
    return "\n".join(
        f"{out / part['file']}: {part['checkpoint']}, at most {part['largest_difference']:.1e} from what torch gives"
        for part in parts
    )


def _of(network: SPG | Reader | Finder, name: str) -> dict[str, Any]:
    weights = find_checkpoint(name)
    facts = {"checkpoint": weights.name, "checkpoint_sha256": storage.sha256(weights.read_bytes())}
    return facts if isinstance(network, Finder) else facts | {"alphabet": network.config.alphabet}


def _generator(spg: SPG) -> tuple[nn.Module, list[tuple[Tensor, ...]], dict[str, str], dict[str, str]]:
    """The network, examples of its inputs, and what inputs and outputs are."""
    source, *_, references = _example(spg, 2)
    # A text of full length comes first, by which the graph is recorded: so masks have room for the longest one.
    full = torch.randint(1, len(spg.config.alphabet) + 1, (2, 2, spg.config.longest), generator=_random())
    examples = [(source, *full, references), *(_example(spg, size) for size in BATCHES)]
    return ExportedGenerator(spg), examples, INPUTS, OUTPUTS


def _finder(finder: Finder) -> tuple[nn.Module, list[tuple[Tensor, ...]], dict[str, str], dict[str, str]]:
    examples: list[tuple[Tensor, ...]] = [
        (_pictures(finder.config.height, finder.config.width, size),) for size in BATCHES
    ]
    return (
        ExportedFinder(finder),
        examples,
        {"image": "RGB in 0..1, any picture with a plate, stretched to this size"},
        FOUND,
    )


def _reader(reader: Reader) -> tuple[nn.Module, list[tuple[Tensor, ...]], dict[str, str], dict[str, str]]:
    examples: list[tuple[Tensor, ...]] = [
        (_pictures(reader.config.height, reader.config.width, size),) for size in BATCHES
    ]
    return reader, examples, {"image": SOURCE}, {"log_probabilities": LOG_PROBABILITIES}


def _exported(
    network: nn.Module,
    examples: list[tuple[Tensor, ...]],
    inputs: dict[str, str],
    outputs: dict[str, str],
    path: Path | ObjectPath,
    tolerance: float,
) -> dict[str, Any]:
    """Writes a network once it has been compared with torch; what networks.json says of it."""
    onnx = _onnx(network.eval(), examples[0], [*inputs], [*outputs])
    session = _session(onnx)
    differ = max(_difference(network, session, example) for example in examples)
    if not differ <= tolerance:  # nor nan
        raise Failure(
            f"{path}: not written: onnxruntime differs from torch by {differ:.2g}, more than {tolerance:g}: export with "
            "the versions of constraints.txt"
        )
    storage.write(path, onnx)
    return {
        "file": path.name,
        "sha256": storage.sha256(onnx),
        "largest_difference": differ,
        "inputs": [_described(put, value, inputs) for put, value in zip(session.get_inputs(), examples[0])],
        "outputs": [
            _described(got, value, outputs) for got, value in zip(session.get_outputs(), _run(network, examples[0]))
        ],
    }


def _described(node, value: Tensor, says: dict[str, str]) -> dict[str, Any]:
    """An input or output of a session, and what it is."""
    shape = ["batch", *value.shape[1:]]
    return {"name": node.name, "type": str(value.dtype).removeprefix("torch."), "shape": shape, "is": says[node.name]}


@torch.inference_mode()
def _onnx(network: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str]) -> bytes:
    """The exporter that records a graph: the newer one takes no shapes that depend on data, and brings libraries."""
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every Python number; what came of them is compared
        torch.onnx.export(
            network, example, f"{folder}/onnx", input_names=inputs, output_names=outputs, opset_version=OPSET, dynamo=False,
            dynamic_axes={name: {0: "batch"} for name in [*inputs, *outputs]},
        )  # fmt: skip
        return Path(folder, "onnx").read_bytes()


def _session(onnx: bytes):
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(onnx, options, ["CPUExecutionProvider"])


def _onnxruntime():
    """Raises PlatemintError where a library is missing."""
    try:
        import onnx  # noqa: F401 (torch writes the file with it)
        import onnxruntime
    except ImportError as fault:
        raise PlatemintError(
            f"export-networks needs onnx and onnxruntime ({fault}): pip install -c constraints.txt -e '.[onnx]'"
        ) from None
    return onnxruntime


def _difference(network: nn.Module, session, example: tuple[Tensor, ...]) -> float:
    """The largest difference of any output."""
    names = (put.name for put in session.get_inputs())
    found = session.run(None, {name: value.numpy() for name, value in zip(names, example)})
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, _run(network, example), strict=True))


@torch.inference_mode()
def _run(network: nn.Module, example: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    results = network(*example)
    return results if isinstance(results, tuple) else (results,)


def _example(spg: SPG, size: int) -> tuple[Tensor, ...]:
    """Inputs of the generator: rendered plates, texts of several lengths, and references of about half the characters."""
    config, random = spg.config, _random()
    texts = [
        encode_texts([config.alphabet[: 4 + (k + shift) % 5] for k in range(size)], config.alphabet, config.longest)
        for shift in (0, 2)
    ]
    references = torch.rand(size, 1 + len(config.alphabet), 2, *config.glyph[1:], generator=random)
    known = torch.rand(size, 1 + len(config.alphabet), 1, 1, generator=random)
    references[:, :, 1] = (known - 0.5).clamp(min=0)
    return _pictures(config.height, config.width, size), *texts, references


def _pictures(height: int, width: int, size: int) -> Tensor:
    layout = load_layouts(["br-mercosur"])["br-mercosur"]
    rng = np.random.default_rng([0, Stream.SAMPLE])
    plates = [render_plate(layout, random_text(layout.positions, rng), rng).image for _ in range(size)]
    return network_input(plates, height, width, torch.device("cpu"))


def _random() -> torch.Generator:
    return torch.Generator().manual_seed(0)
