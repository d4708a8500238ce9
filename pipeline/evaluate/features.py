"""features: what a text recogniser that nobody trained on our plates sees in a picture, between its input and its letters.

It is PP-OCRv4's recogniser (PaddleOCR, Apache-2.0), which the wheel of `rapidocr` carries as an ONNX file. The features are
the channels of a layer in the middle of its convolutions, each averaged over the picture.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from platemint.pipeline.networks import resize
from platemint.pipeline.plate import PlatemintError

# Its bytes are the same in every wheel of rapidocr from 3.4 to 3.8, under two names.
SHA256 = "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b"
LAYER, CHANNELS = "p2o.Add.87", 128  # what the seventh block hands on to the eighth
HEIGHT = 48  # pixels, as the recogniser wants them
BATCH = 64
INSTALL = "`pip install -c constraints.txt -e '.[realism]'`, or leave these figures out with --no-features"


class Features:
    """Pictures of one size, uint8 (n, h, w, 3) RGB -> float64 (n, CHANNELS)."""

    def __init__(self):
        """Raises PlatemintError where a library, or the weights, are missing."""
        try:
            import onnx
            import onnxruntime
        except ImportError as fault:
            raise PlatemintError(f"features of a recogniser need onnx and onnxruntime ({fault}): {INSTALL}") from None
        model = onnx.load_from_string(_weights())
        del model.graph.output[:]  # so that what comes after the layer is not computed
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(LAYER))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns of every weight that is not needed now
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def __call__(self, images: np.ndarray) -> np.ndarray:
        width = round(images.shape[2] * HEIGHT / images.shape[1])
        return np.concatenate([self._of(images[i : i + BATCH], width) for i in range(0, len(images), BATCH)])

    def _of(self, images: np.ndarray, width: int) -> np.ndarray:
        sized = np.stack([resize(image, HEIGHT, width) for image in images])
        values = sized[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        (maps,) = self.session.run(None, {self.name: values})
        return maps.mean((2, 3), dtype=np.float64)


def _weights() -> bytes:
    spec = find_spec("rapidocr")
    if spec is None:
        raise PlatemintError(f"features of a recogniser need rapidocr, whose wheel has its weights: {INSTALL}")
    files = (path.read_bytes() for path in Path(spec.submodule_search_locations[0], "models").glob("*rec*.onnx"))
    found = next((data for data in files if hashlib.sha256(data).hexdigest() == SHA256), None)
    if found is None:
        raise PlatemintError(f"rapidocr: this version does not have PP-OCRv4's recogniser; 3.4 to 3.8 do: {INSTALL}")
    return found
