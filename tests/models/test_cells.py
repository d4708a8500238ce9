"""models.cells: nothing of a character's own place is left, and everything of the row's is."""

import numpy as np
import pytest
import torch

from platemint.models.cells import covering, even, smooth
from platemint.models.spg import cell_mask, erasure, repaint

HEIGHT, WIDTH, LONGEST = 48, 160, 12
SIZE = torch.tensor([WIDTH, HEIGHT])


def row(n: int, gaps=(), first=(20.0, 22.0), step=(16.0, 0.5), second=0, gap=1.5) -> torch.Tensor:
    """Slots of characters evenly spaced, before those in gaps by so many steps, in pixels: (n, 3, 2)."""
    slots, at = [], np.array(first)
    for i in range(n):
        if i and i == second:
            at = np.add(first, (3, 20))
        elif i:
            at = at + np.array(step) * (gap if i in gaps else 1)
        slots.append([at, (6, 0.2), (-0.3, 9)])
    return torch.tensor(np.array(slots), dtype=torch.float32)


def stacked(*rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As the network has them: slots (B, N, 3, 2) as fractions, texts (B, N)."""
    slots, text = torch.zeros(len(rows), LONGEST, 3, 2), torch.zeros(len(rows), LONGEST, dtype=torch.int64)
    for number, some in enumerate(rows):
        slots[number, : len(some)], text[number, : len(some)] = some / SIZE, 1
    return slots, text


def evened(*rows: torch.Tensor) -> list[torch.Tensor]:
    slots, text = stacked(*rows)
    return [some[: len(r)] * SIZE for some, r in zip(even(slots, text, HEIGHT, WIDTH), rows)]


REGULAR = {
    "one row": row(7),
    "a gap": row(7, gaps=(2,)),
    "two gaps": row(7, gaps=(2, 5)),
    "tilted": row(6, gaps=(3,), step=(15, -3)),
    "two rows": row(7, second=2),
    "an emblem between few": row(4, gaps=(1,), gap=2.8),
    "an emblem between three": row(3, gaps=(2,), gap=2.5),
    "one": row(1),
    "two": row(2),
    "longest": row(LONGEST, step=(11, 0)),
}


@pytest.mark.parametrize("name", REGULAR)
def test_an_even_row_stays_where_it_is(name):
    (there,) = evened(REGULAR[name])
    torch.testing.assert_close(there, REGULAR[name], atol=0.01, rtol=0)


@pytest.mark.parametrize("name", ["one row", "a gap", "tilted"])
def test_what_sets_a_character_apart_is_gone(name):
    """A place that is off by some pixels, and a slot that is narrower, are spread over the whole row."""
    regular, own = REGULAR[name], REGULAR[name].clone()
    own[4, 0] += torch.tensor([1.5, 1.0])
    own[4, 1] *= 0.5
    (there,) = evened(own)
    rest = there[:, 0] - regular[:, 0]
    assert rest.norm(dim=1).max() < 0.6 * 1.8
    widths = there[:, 1].norm(dim=1)
    assert (widths.diff().diff().abs() < 0.01).all()  # linear along the row: none is narrower than its neighbours
    steps = there[1:, 0] - there[:-1, 0]
    gap = {"one row": None, "a gap": 1, "tilted": 2}[name]
    alike = torch.stack([step for i, step in enumerate(steps) if i != gap])
    torch.testing.assert_close(alike, alike[:1].expand_as(alike), atol=1e-3, rtol=0)


def test_a_narrow_neighbour_is_no_gap():
    own = row(6)
    own[3:, 0, 0] -= 6  # closer than all others, as where a 1 stands
    (there,) = evened(own)
    steps = there[1:, 0, 0] - there[:-1, 0, 0]
    assert steps.min() > 0.999 * steps.median()


def test_of_few_characters_a_gap_is_no_place_of_their_own():
    """As wide as one may stand apart by its shape alone, it is spread over the row."""
    (there,) = evened(row(4, gaps=(1,), gap=1.3))
    steps = there[1:, 0, 0] - there[:-1, 0, 0]
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=1e-3, rtol=0)


def test_what_stands_off_its_row_is_covered_by_a_cell_like_all_others():
    own = row(5)
    own[4, 0, 0] += 9
    own[4, 1] *= 0.5
    own[3, 0, 0] += 1
    slots, text = stacked(own)
    regular, _ = stacked(row(5))
    both = covering(slots, regular)[0] * SIZE
    torch.testing.assert_close(both[:LONGEST], regular[0] * SIZE)
    torch.testing.assert_close(both[LONGEST : LONGEST + 4], row(5)[:4])  # near enough
    torch.testing.assert_close(both[LONGEST + 4, 0], own[4, 0])
    torch.testing.assert_close(both[LONGEST + 4, 1:], row(5)[4, 1:])  # of its own shape nothing is told


def test_a_plate_does_not_depend_on_its_batch_nor_on_what_is_beyond_its_text():
    rows = list(REGULAR.values())
    slots, text = stacked(*rows)
    slots[text == 0] = torch.nan_to_num(torch.randn(int((text == 0).sum()), 3, 2))
    together = even(slots, text, HEIGHT, WIDTH)
    for number, alone in enumerate(rows):
        (there,) = evened(alone)
        torch.testing.assert_close(together[number, : len(alone)] * SIZE, there, atol=1e-3, rtol=0)


def test_no_text_is_no_fault():
    slots, text = stacked(row(3))
    assert even(slots, torch.zeros_like(text), HEIGHT, WIDTH).isfinite().all()


def test_smooth_is_a_mean_of_what_counts():
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.random((2, 3, HEIGHT, WIDTH), np.float32))
    weight = torch.zeros(2, 1, HEIGHT, WIDTH)
    weight[..., 10:30, 20:90] = 1
    known = smooth(values * weight + 99 * (1 - weight), weight, 8.0)
    assert known[..., 10:30, 20:90].min() > 0 and known[..., 10:30, 20:90].max() < 1
    flat = smooth(torch.full_like(values, 0.25), torch.ones_like(weight), 8.0)
    torch.testing.assert_close(flat, torch.full_like(values, 0.25))
    assert smooth(values, torch.ones_like(weight), 8.0).std() < 0.1 * values.std()


def test_a_repainted_plate_tells_nothing_of_its_strokes():
    """Two plates that differ inside the cells alone come out the same where the layers are, bit for bit."""
    slots, text = stacked(row(6))
    erased = erasure(cell_mask(slots, text, HEIGHT, WIDTH), torch.zeros(1, 1, HEIGHT, WIDTH))
    whole, outside = erased == 1, erased == 0
    assert whole.any() and outside.any()
    plate = torch.rand(1, 3, HEIGHT, WIDTH)
    other = torch.where(whole, 1 - plate, plate)
    B_t = torch.zeros(1, 1, HEIGHT, WIDTH)
    B_t[..., 14:30, 18:24] = 1
    layers = [torch.full_like(plate, value) for value in (0.7, 0.1, 0.0)]
    a, b = (repaint(some, erased, B_t, *layers) for some in (plate, other))
    assert torch.equal(a, b)
    free = outside & (torch.nn.functional.max_pool2d(B_t, 3, 1, 1) == 0)
    assert torch.equal(a[free.expand_as(a)], plate[free.expand_as(a)])
