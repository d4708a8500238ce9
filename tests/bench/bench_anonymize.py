"""Frames per second of anonymize against blurring the same plates with OpenCV, in turn, in the same minute.

    python tests/bench/bench_anonymize.py [DATASET] [--format FORMAT] [--turns N]

anonymize does all it does, from opening the dataset to searching what it has written; only its networks are loaded
before. The blur is what a person would write: imread, a box blur over each annotated plate, imwrite; it has the boxes
ready, writes no annotations and checks nothing. The bare networks get ready batches, as many plates as anonymize gave
each of them. Without a DATASET, rendered plates in frames of noise. Medians over the turns.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import torch

from platemint.models.spg import encode_texts
from platemint.pipeline.anonymize.anonymizer import Anonymizer
from platemint.pipeline.anonymize.plan import AnonymizePlan
from platemint.pipeline.anonymize.run import anonymize
from platemint.pipeline.corpora.datasets import FORMATS, open_dataset
from platemint.pipeline.evaluate.leak import blurred
from platemint.pipeline.networks import autocast
from platemint.pipeline.recipe import AnonymizeRecipe
from platemint.pipeline.render import load_layouts, photograph, random_text

QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", type=Path)
    parser.add_argument("--format", default="", choices=FORMATS)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench(options.dataset or rendered(Path(scratch) / "frames"), options.format, options.turns, Path(scratch))


def bench(corpus: Path, format: str, turns: int, scratch: Path) -> None:
    recipe = AnonymizeRecipe(source={"path": str(corpus), "format": format})
    networks, seen = Anonymizer(recipe).networks(), Counter()
    for name, network in zip(("edited", "read"), (networks[0].spg, networks[1].reader)):
        network.register_forward_hook(lambda _, inputs, __, name=name: seen.update({name: len(inputs[0])}))

    class Warm(Anonymizer):
        def networks(self):
            return networks

    def run(out: Path) -> None:
        made = recipe.model_copy(update={"out": str(out)})
        anonymize(made, None, AnonymizePlan(made, Warm(made)))

    frames = open_dataset(corpus, format).frames
    run(scratch / "first")
    plates, counts = sum(len(frame.annotations) for frame in frames), dict(seen)
    works = {
        "anonymize": run,
        "blur": lambda out: blur(corpus, frames, out),
        "networks": lambda out: bare(*networks, counts),
    }
    rates = {name: [] for name in works}
    for turn in range(turns):
        for name, work in works.items():
            start = time.perf_counter()
            work(scratch / f"{name}{turn}")
            rates[name].append(len(frames) / (time.perf_counter() - start))
    print(
        f"{len(frames)} frames with {plates} plates; went through the generator {counts['edited']}, the reader {counts['read']} times"
    )
    middle = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:9} {middle[name]:7.1f} frames/s  ({min(values):.1f} to {max(values):.1f})")
    print(f"anonymize / blur: {middle['anonymize'] / middle['blur']:.2f}")
    print(f"anonymize / its bare networks: {middle['anonymize'] / middle['networks']:.2f}")


def blur(corpus: Path, frames: list, out: Path) -> None:
    for frame in frames:
        image = cv2.imread(str(corpus / frame.path))
        for annotation in frame.annotations:
            corners = np.array(annotation.corners or [(0, 0), image.shape[1::-1]])
            (x1, y1), (x2, y2) = corners.min(0).astype(int).clip(0), np.ceil(corners.max(0)).astype(int)
            image[y1:y2, x1:x2] = blurred(image[y1:y2, x1:x2])
        (out / frame.path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(out / frame.path), image, QUALITY)


@torch.inference_mode()
def bare(editor, judge, counts: dict[str, int]) -> None:
    batch, spg, reader = editor.options.batch, editor.spg.config, judge.reader.config
    text = encode_texts(["ABC1234"] * batch, spg.alphabet, spg.longest).to(editor.device)
    with autocast(editor.device, editor.dtype):
        for n in sizes(counts["edited"], batch):
            editor.spg(noise(n, spg, editor.device), text[:n], text[:n]).O_t.cpu()
        for n in sizes(counts["read"], batch):
            judge.reader(noise(n, reader, judge.device)).cpu()


def noise(count: int, config, device) -> torch.Tensor:
    picture = torch.rand(count, 3, config.height, config.width)
    return picture.to(device, memory_format=torch.channels_last)


def sizes(count: int, batch: int) -> list[int]:
    return [min(batch, count - begin) for begin in range(0, count, batch)]


def rendered(folder: Path) -> Path:
    """48 frames of 1280 x 720 pixels with two plates each, in OpenALPR's form."""
    folder.mkdir()
    rng, layouts = np.random.default_rng(0), list(load_layouts(["us-california", "eu-pl"]).values())
    for number in range(48):
        noise = cv2.resize(rng.integers(0, 256, (45, 80, 3), np.uint8), (1280, 720), interpolation=cv2.INTER_CUBIC)
        lines = []
        for k, layout in enumerate(layouts):
            text, x, y = random_text(layout.positions, rng), 100 + 8 * number, 150 + 300 * k
            plate = photograph(layout, [text], 60, 0.1, rng)[0].image
            h, w = plate.shape[:2]
            noise[y : y + h, x : x + w] = plate[..., ::-1]
            lines.append(f"{number}.jpg\t{x}\t{y}\t{w}\t{h}\t{text}\n")
        cv2.imwrite(str(folder / f"{number}.jpg"), noise, QUALITY)
        (folder / f"{number}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


if __name__ == "__main__":
    main()
