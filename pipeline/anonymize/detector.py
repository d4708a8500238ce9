"""detector: plates that no annotation covers, looked for in pictures that are written, by a model in an ONNX file.

What the model does not find stays unknown. It sees a whole picture scaled to its own input, mostly 256 to 640 pixels
wide, where little is left of a large frame's small plates.
"""

from __future__ import annotations

import ast
import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from platemint.pipeline.anonymize.picture import open_picture
from platemint.pipeline.corpora.datasets import Annotation, Frame
from platemint.pipeline.corpora.records import PLATE, bounds
from platemint.pipeline.corpora.rectify import Box
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.progress import Count
from platemint.pipeline.recipe import Detect

INSTALL = "pip install -c constraints.txt -e '.[detector]'"
FORMS = "(n, 7), (1, n, 6) with n up to 1000, and (1, 4 + classes, n) with more places n than classes"
GRAY = 114  # of 255, beside a letterboxed picture: what these models are trained with
SIDE = 640  # pixels of an input whose size the file leaves open and its metadata does not give
MOST_ROWS = 1000  # of finished detections; Ultralytics writes 300. A YOLOv5 has the shape (1, 25200, 6) before NMS
REPEATED = 0.5  # IoU from which on two detections are one plate
COVERED = 0.5  # of the larger of two boxes that they share where they show one plate; of two plates in one it is less


class Detector:
    """A model that finds plates, by what is documented of the public ones' exports.

    Input: float32 (1, 3, H, W), RGB of 0..1, letterboxed: scaled to fit, in the middle of gray. Output, recognised by
    its shape, with coordinates in pixels of the input:
      (n, 7): batch, x1, y1, x2, y2, class, score. The YOLOv9 plate detectors ("end2end") of
        github.com/ankandrew/open-image-models: open_image_models/detection/core/yolo_v9, preprocess and postprocess.
      (1, n, 6): x1, y1, x2, y2, score, class, rows of zeros at the end. Ultralytics with nms=True, and its models that
        need none (YOLOv10, YOLO26): github.com/ultralytics/ultralytics, NMSModel in ultralytics/engine/exporter.py and
        Detect.postprocess in ultralytics/nn/modules/head.py.
      (1, 4 + classes, n): the middle's x and y, width, height, a score for each class, before NMS. Ultralytics' YOLOv8
        and YOLO11: examples/YOLOv8-ONNXRuntime/main.py there.
    Where the metadata names several classes, those with a plate's name count; in a file that names none, all do.
    """

    def __init__(self, options: Detect):
        """Raises PlatemintError where onnxruntime is missing, and for a file that is no such model."""
        self.path, self.min_score = Path(options.path), options.min_score
        if not self.path.is_file():
            raise self._fault("no such file; give the ONNX file of a plate detector")
        data = self.path.read_bytes()
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.session = self._load(data)
        self.metadata = self.session.get_modelmeta().custom_metadata_map
        self.name, self.size = self._input()
        self.classes = self._classes()
        try:
            self._run(np.full((*self.size, 3), GRAY, np.uint8))
        except ValueError as fault:
            raise self._fault(str(fault)) from None

    def find(self, pixels: np.ndarray) -> list[tuple[Box, float]]:
        """The plates of a picture, uint8 (H, W, 3) RGB, and their scores, best first.

        Raises ValueError where the model cannot be run on it.
        """
        height, width = pixels.shape[:2]
        canvas, scale, shift = letterboxed(pixels, self.size)
        rows = self._run(canvas)
        rows = rows[rows[:, 4] >= self.min_score]
        if self.classes is not None:
            rows = rows[np.isin(rows[:, 5], self.classes)]
        sizes = rows[:, 2:4] - rows[:, :2]
        best = cv2.dnn.NMSBoxes(np.hstack([rows[:, :2], sizes]), rows[:, 4].astype(np.float32), 0.0, REPEATED)
        found = []
        for *corners, score, _ in rows[list(best)]:
            low, high = np.clip((np.reshape(corners, (2, 2)) - shift) / scale, 0, (width, height))
            if (low < high).all():  # else it is in the gray
                found.append(((*map(math.floor, low), *map(math.ceil, high)), float(score)))
        return found

    def _run(self, canvas: np.ndarray) -> np.ndarray:
        """What the model makes of an input, uint8 (H, W, 3): float64 (n, 6), x1, y1, x2, y2, score, class."""
        values = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], dtype=np.float32) / 255
        try:
            outputs = self.session.run(None, {self.name: values})
        except Exception as fault:  # onnxruntime's exceptions have no common class
            raise ValueError(f"the model cannot be run ({_first_line(fault)})") from None
        if len(outputs) != 1:
            raise ValueError(f"has {len(outputs)} outputs; known is one, {FORMS}: export it for detection alone")
        rows = _rows(np.asarray(outputs[0]))
        if not np.isfinite(rows).all():
            raise ValueError("the model gives numbers that are not finite")
        return rows

    def _load(self, data: bytes) -> Any:
        try:
            import onnxruntime
        except ImportError as fault:
            raise self._fault(f"needs onnxruntime, which cannot be imported ({fault}): {INSTALL}") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # faults are reported here, as PlatemintError
        there = onnxruntime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]
        try:
            return onnxruntime.InferenceSession(data, options, providers)
        except Exception as fault:  # as above
            raise self._fault(f"not an ONNX model that onnxruntime can load ({_first_line(fault)})") from None

    def _input(self) -> tuple[str, tuple[int, int]]:
        """The input's name, height and width."""
        inputs = self.session.get_inputs()
        inputs_found = ", ".join(f"{i.name}: {i.type} {tuple(i.shape)}" for i in inputs)
        shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type == "tensor(float)" else ()
        if len(shape) != 4 or any(isinstance(n, int) and n != known for n, known in zip(shape, (1, 3))):
            raise self._fault(
                f"input of an unknown form ({inputs_found}); known is one of float32 (1, 3, height, width)"
            )
        size = tuple(n if isinstance(n, int) else 0 for n in shape[2:])
        return inputs[0].name, size if all(size) else self._open_size()

    def _open_size(self) -> tuple[int, int]:
        size = self._said("imgsz", [SIDE, SIDE])
        if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
            raise self._fault(f"its metadata's imgsz is {size}, not [height, width]; export it with a fixed size")
        return tuple(size)

    def _classes(self) -> list[int] | None:
        """The numbers of the classes that are plates, None for all."""
        if (task := self.metadata.get("task", "detect")) != "detect":
            raise self._fault(f"is a model for the task {task}; give one for detect")
        names = self._said("names", {})
        try:
            names = {int(n): str(name) for n, name in (names.items() if isinstance(names, dict) else enumerate(names))}
        except (TypeError, ValueError):
            raise self._fault(f"its metadata's names are {names}, not of classes by number; export it again") from None
        plates = [number for number, name in names.items() if PLATE.search(name)]
        if len(names) > 1 and not plates:
            few = ", ".join(list(names.values())[:5])
            raise self._fault(f"finds {few}{', ...' * (len(names) > 5)}, and no plates; give a plate detector")
        return plates if len(names) > 1 else None

    def _said(self, key: str, otherwise: Any) -> Any:
        """A value of the metadata, which Ultralytics writes as Python does."""
        try:
            return ast.literal_eval(self.metadata[key]) if key in self.metadata else otherwise
        except Exception:  # literal_eval raises exceptions of many classes
            raise self._fault(f"its metadata's {key} cannot be read; export it again") from None

    def _fault(self, what: str) -> PlatemintError:
        return PlatemintError(f"detector.path: {self.path}: {what}")


def letterboxed(pixels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture, uint8 (H, W, 3), in the middle of a gray one of a height and width; its scale and place, each x, y."""
    (high, wide), (height, width) = pixels.shape[:2], size
    scale = min(height / high, width / wide)
    h, w = max(1, round(high * scale)), max(1, round(wide * scale))
    x, y = round((width - w) / 2 - 0.1), round((height - h) / 2 - 0.1)  # a pixel left over is right of it or below
    canvas = np.full((height, width, 3), GRAY, np.uint8)
    canvas[y : y + h, x : x + w] = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_LINEAR)
    return canvas, np.array([w / wide, h / high]), np.array([x, y])


def _rows(output: np.ndarray) -> np.ndarray:
    """A model's output as float64 (n, 6): x1, y1, x2, y2, score, class. Raises ValueError for a form not known."""
    shape = output.shape
    if len(shape) == 2 and shape[1] == 7:
        return output[:, [1, 2, 3, 4, 6, 5]].astype(np.float64)
    if len(shape) == 3 and shape[0] == 1 and shape[2] == 6 and shape[1] <= MOST_ROWS:
        return output[0].astype(np.float64)
    if len(shape) == 3 and shape[0] == 1 and 4 < shape[1] < shape[2]:
        middle, size, scores = np.split(output[0].T.astype(np.float64), (2, 4), axis=1)
        return np.column_stack([middle - size / 2, middle + size / 2, scores.max(1), scores.argmax(1)])
    raise ValueError(f"output of an unknown form, {shape}; known are {FORMS}")


def look(detector: Detector, folder: Path, frames: Mapping[str, Frame], progress: TextIO | None = None) -> dict:
    """What the audit says of plates that no annotation covers. frames: {picture below the folder: its annotations}.

    A picture that the detector cannot be run on is listed as well: it may show anything.
    """
    found, uncovered, unseen = 0, [], []
    reporter = Count(len(frames), progress, "pictures looked at by the detector")
    for path, frame in sorted(frames.items()):
        try:
            plates = detector.find(open_picture(folder / path).pixels)
        except ValueError:
            unseen.append(path)
        else:
            found += len(plates)
            alone = [(box, score) for box, score in plates if not covered(box, frame.annotations)]
            uncovered += [{"picture": path, "box": list(box), "score": round(score, 2)} for box, score in alone]
        reporter.add(1, 0)
    reporter.close()
    return {
        "sha256": detector.sha256,
        "min_score": detector.min_score,
        "pictures": len(frames) - len(unseen),
        "pictures_not_looked_at": len(unseen),
        "plates": found,
        "plates_covered": found - len(uncovered),
        "plates_uncovered": len(uncovered),
        "uncovered": uncovered,
        "not_looked_at": unseen,
    }


def covered(box: Box, annotations: Iterable[Annotation]) -> bool:
    """Whether a detection is one of a picture's annotated plates. A crop is a plate as a whole, whatever it shows.

    The upright box around the annotation is compared, since detections are upright too. A detection much larger than
    it may hold another plate, and so may an annotation much larger than the detection: neither covers the other.
    """
    return any(
        not annotation.corners or _shared(box, bounds(annotation.corners)) >= COVERED for annotation in annotations
    )


def _shared(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """What two boxes share, as a part of the larger one."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) / max((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b))


def _first_line(fault: Exception) -> str:
    return next(iter(str(fault).splitlines()), type(fault).__name__)
