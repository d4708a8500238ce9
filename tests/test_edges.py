"""edges: as steep as the source's, never softer, and nothing drawn where nothing was."""

import cv2
import numpy as np
import torch

from platemint.pipeline.edges import slope_of, steepened, steepness

SCALE = 200 / 48


def bars(height: int, width: int, blur: float, left: float) -> torch.Tensor:
    """Four bars, float (1, 1, H, W), with soft edges. left: of the first one, as a fraction."""
    mask = np.zeros((height, width), np.float32)
    for i in range(4):
        x = round((left + 0.22 * i) * width)
        mask[height // 4 : 3 * height // 4, x : x + width // 12] = 1
    return torch.from_numpy(cv2.GaussianBlur(mask, (0, 0), blur))[None, None]


def test_edges_become_as_steep_as_the_source_s_but_never_softer():
    sharp, soft, new = bars(200, 640, 1.2, 0.05), bars(200, 640, 2.4, 0.05), bars(200, 640, 2.4, 0.1)
    ink, plate = torch.zeros(1, 3, 200, 640), torch.full((1, 3, 200, 640), 0.9)
    ratio = {}

    def drawn_like(strokes):
        return steepened(new, slope_of(torch.lerp(plate, ink, strokes), plate, soft, ink, SCALE), SCALE)

    for name, strokes in (("sharp", sharp), ("soft", soft)):
        drawn = drawn_like(strokes)
        ratio[name] = steepness(drawn, new, 4) / steepness(strokes, strokes, 4)
        assert drawn.min() >= 0 and drawn.max() <= 1 and not drawn[new == 0].any()
    assert 0.9 < ratio["sharp"] < 1.2 and ratio["soft"] > 0.9
    assert torch.equal(drawn_like(bars(200, 640, 6, 0.05)), new)
    for blur in np.linspace(1.2, 2.6, 15):  # from much steeper than drawn to softer
        drawn = drawn_like(bars(200, 640, blur, 0.05))
        assert not drawn[new == 0].any() and (drawn[new == 1] == 1).all()
    nothing = torch.zeros_like(new)
    assert torch.equal(steepened(nothing, slope_of(plate, plate, nothing, ink, SCALE), SCALE), nothing)
