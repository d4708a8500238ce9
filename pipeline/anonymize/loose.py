"""loose: annotations with much of a car around the plate: the view of the plate alone, where the finder sees its text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from platemint.pipeline.corpora.rectify import View, view_of
from platemint.pipeline.find import TextFinder
from platemint.pipeline.text_frame import is_whole


def closer_views(finder: TextFinder, views: Sequence[View], pictures: Sequence[np.ndarray]) -> list[View | None]:
    """Of each plate a view of what the finder sees in it; None where the plate fills its view, or no text is found.

    pictures: uint8 (H, W, 3), the whole frame that each view is of.
    """
    cuts = [view.cut(pixels) for view, pixels in zip(views, pictures)]
    return [
        None if is_whole(frame) else view_of(view.in_frame(frame * cut.shape[1::-1]), pixels)
        for view, pixels, cut, frame in zip(views, pictures, cuts, finder.frames(cuts))
    ]
