"""networks: a GPU whose memory does not suffice for a batch gets smaller ones, and nothing else changes."""

import numpy as np
import pytest
import torch
from test_edit import plates

from platemint.pipeline import edit, filter, networks
from platemint.pipeline.edit import Editor
from platemint.pipeline.filter import Filter
from platemint.pipeline.networks import in_batches
from platemint.pipeline.plate import Failure
from platemint.pipeline.recipe import Limits


@pytest.fixture
def memory(monkeypatch):
    """A GPU with memory for so many pictures at a time; gives the sizes of the batches that were tried."""
    tried: list[int] = []

    def suffices_for(most: int) -> list[int]:
        def network_input(pictures, *args):
            tried.append(len(pictures))
            if len(pictures) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return networks.network_input(pictures, *args)

        for module in (edit, filter):
            monkeypatch.setattr(module, "network_input", network_input)
        return tried

    return suffices_for


@pytest.mark.parametrize("private", [False, True])
def test_with_little_memory_the_same_plates_come_out(untrained, memory, private):
    """But for rounding: in float32 sums of another batch size may be added up in another order."""
    editor, judge = Editor(untrained, private), Filter(Limits(), untrained)
    before = plates([(48, 160), (61, 203), (24, 94)] * 3)
    expected = judge(editor(before))
    read = judge.read([plate.image for plate in expected])
    tried = memory(2)
    found = judge(editor(before))
    assert max(tried) == 8 and {1, 2} <= {*tried}
    for a, b in zip(expected, found, strict=True):
        for one, other in ((a.image, b.image), (a.target_mask, b.target_mask)):
            assert np.abs(one.astype(int) - other).max() <= 1
        assert (a.text, a.reading, a.reason) == (b.text, b.reading, b.reason)
        assert a.scores == pytest.approx(b.scores, abs=1e-3)
    assert judge.read([plate.image for plate in expected]) == read


def test_too_little_for_a_single_plate_is_told(untrained, memory):
    memory(0)
    with pytest.raises(Failure, match="edit.device: .*single plate"):
        Editor(untrained)(plates([(48, 160)] * 3))


@pytest.mark.parametrize("count, size, most", [(0, 4, 1), (7, 3, 3), (23, 8, 1), (23, 16, 5)])
def test_every_item_is_worked_on_once_and_in_order(count, size, most):
    def work(some):
        if len(some) > most:
            raise torch.OutOfMemoryError
        return [item * 2 for item in some]

    assert in_batches(work, range(count), size) == [item * 2 for item in range(count)]
