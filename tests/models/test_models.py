"""The networks: shapes, what depends on what, and checkpoints that load without pickle."""

from itertools import product

import pytest
import torch

from platemint.models import checkpoint
from platemint.models.losses import dice, mask_iou, mask_loss, perceptual, pointed_near, region_l1, slot_loss
from platemint.models.reader import align, ctc, greedy_decode
from platemint.models.spg import (
    SIZES,
    SPG,
    D_t,
    Fill,
    Ink,
    SPGConfig,
    _in_reading_order,
    _matching_slots,
    _picked_place,
    compose,
    encode_texts,
    push_pull,
    region,
    slot_grid,
    token_places,
)
from platemint.pipeline.plate import ALPHABET, READABLE


@pytest.fixture(scope="module")
def spg(untrained):
    return checkpoint.load(untrained.checkpoint, "spg")


def pictures(n=2, seed=0):
    return torch.rand(n, 3, 48, 160, generator=torch.Generator().manual_seed(seed))


def codes(*texts):
    return encode_texts(list(texts), ALPHABET)


def test_edit_has_the_shapes_it_promises(spg):
    with torch.no_grad():
        edit = spg(pictures(), codes("AB12", "ABC1234"), codes("CD34", "XYZ9876"))
    assert edit.O_t.shape == (2, 3, 48, 160) and edit.B_s.shape == edit.B_t.shape == (2, 1, 48, 160)
    assert edit.source_slots.shape == edit.target_slots.shape == (2, 7, 3, 2)
    assert edit.O_t.min() >= 0 and edit.O_t.max() <= 1


def test_an_edit_does_not_depend_on_its_batch_nor_on_padding(spg):
    x = pictures(3)
    with torch.no_grad():
        together = spg(x, codes("AB12", "ABC1234", "A-1"), codes("CD34", "XYZ9876", "B-2"))
        alone = spg(x[:1], codes("AB12"), codes("CD34"))
    assert torch.allclose(together.O_t[:1], alone.O_t, atol=1e-4)
    assert torch.allclose(together.B_t[:1], alone.B_t, atol=1e-4)


def test_both_masks_come_from_the_same_weights(spg):
    x = pictures(1)
    grads = []
    for pick in ("source_logits", "target_logits"):
        spg.zero_grad()
        getattr(spg(x, codes("AB12"), codes("CD34")), pick).sum().backward()
        grads.append({name for name, p in spg.C_d.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0})
    spg.zero_grad()
    assert grads[0] == grads[1] and len(grads[0]) > 5


def test_the_picture_does_not_train_the_masks(spg):
    spg.zero_grad()
    spg(pictures(1), codes("AB12"), codes("CD34")).O_t.sum().backward()
    touched = {
        name.split(".")[0] for name, p in spg.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    spg.zero_grad()
    assert touched == {"E_s", "G_t"}


def test_where_true_masks_are_unknown_the_picture_trains_them(spg):
    spg.zero_grad()
    spg(pictures(1), codes("AB12"), codes("CD34"), attached=True).O_t.sum().backward()
    reached = all(part.glyphs.grad.abs().sum() > 0 for part in [spg.C_d])
    spg.zero_grad()
    assert reached


def test_what_stands_on_a_plate_does_not_depend_on_what_shall(spg):
    x = pictures(1)
    with torch.no_grad():
        a, b = (spg(x, codes("AB12"), codes(t)) for t in ("CD34", "KLMNOP8"))
    assert torch.allclose(a.B_s, b.B_s, atol=1e-5) and torch.equal(a.pointer, b.pointer)


def test_a_target_of_another_length_stands_as_far_apart_around_the_same_middle():
    x = torch.linspace(0.2, 0.8, 5)
    slots = torch.zeros(1, 5, 3, 2)
    slots[0, :, 0, 0], slots[0, :, 1, 0] = x, 0.05
    for text in ("ABC", "ABCDEF", "AB", "ABCDE"):
        placed = _matching_slots(slots, codes("ABCDE"), codes(text))[0, : len(text), 0, 0]
        assert torch.allclose(
            placed.diff(), torch.full((len(text) - 1,), 0.15)
        ) and placed.mean().item() == pytest.approx(0.5)
    alone = _matching_slots(slots[:, :1], codes("A"), codes("BCD"))
    assert torch.isfinite(alone).all()


def test_of_two_far_places_one_is_picked_not_the_middle():
    logits = torch.full((1, 1, 6 * 20), -9.0)
    logits[0, 0, 2 * 20 + 3], logits[0, 0, 2 * 20 + 15] = 2.0, 1.9
    place = _picked_place(logits, codes("A"), token_places(6, 20, "cpu")[None], 6, 20)[0, 0]
    assert place[0].item() == pytest.approx(3.5 / 20, abs=0.01)


def test_each_text_decides_its_mask(spg):
    x = pictures(1)
    with torch.no_grad():
        a, b, c = (spg(x, codes(s), codes(t)) for s, t in (("AB12", "CD34"), ("AB12", "KL78"), ("ZZ99", "CD34")))
    assert (a.B_t - b.B_t).abs().max() > 1e-3 and (a.B_s - c.B_s).abs().max() > 1e-3


def test_fill_erases_strokes_and_leaves_the_rest():
    plate = torch.full((1, 3, 48, 160), 0.8)
    mask = torch.zeros(1, 1, 48, 160)
    mask[..., 10:40, 20:30] = 1
    stroked = torch.where(mask > 0, torch.tensor(0.1), plate)
    assert torch.allclose(Fill(stroked, mask), plate, atol=0.01)
    assert torch.equal(Fill(stroked, torch.zeros_like(mask)), stroked)
    assert torch.allclose(Ink(stroked, plate, mask), torch.tensor(0.1), atol=0.02)


def test_fill_does_not_depend_on_the_batch():
    x, mask = pictures(4), torch.rand(4, 1, 48, 160)
    assert torch.allclose(Fill(x, mask)[2:3], Fill(x[2:3], mask[2:3]), atol=1e-6)


@pytest.mark.parametrize("height, width", [(1, 1), (3, 50), (24, 94), (137, 311)])
def test_push_pull_takes_any_size_and_stays_in_range(height, width):
    x, w = torch.rand(1, 3, height, width), torch.rand(1, 1, height, width)
    y = push_pull(x, w)
    assert y.shape == x.shape and y.min() >= -1e-4 and y.max() <= 1 + 1e-4
    assert torch.allclose(push_pull(x, torch.ones_like(w)), x)


def test_nothing_outside_the_region_changes():
    x, B_s, B_t = pictures(1), torch.zeros(1, 1, 48, 160), torch.zeros(1, 1, 48, 160)
    B_s[..., 10:30, 20:40], B_t[..., 12:33, 60:80] = 1, 0.7
    edited = compose(x, Fill(x, B_s), B_s, B_t, ink=torch.rand_like(x), correction=0.3)
    outside = (region(B_s, B_t) == 0).expand_as(x)
    assert outside.float().mean() > 0.7
    assert torch.equal(edited[outside], x[outside])
    assert (edited - x)[~outside].abs().max() > 0.2


def test_slot_grid_is_the_slot_s_own_coordinates():
    slots = torch.tensor([[[[0.5, 0.5], [0.25, 0.0], [0.0, 0.25]]]])
    grid = slot_grid(slots, 8, 8)[0, 0]
    assert torch.allclose(grid[2, 2], torch.tensor([-0.75, -0.75])) and torch.allclose(
        grid[5, 3], torch.tensor([-0.25, 0.75])
    )


@pytest.mark.parametrize("size", SIZES)
def test_every_size_edits_at_its_own_resolution(size):
    config = SPGConfig(ALPHABET, **SIZES[size])
    with torch.no_grad():
        edit = SPG(config)(torch.rand(1, 3, config.height, config.width), codes("AB12"), codes("CD345"))
    assert edit.O_t.shape == edit.ink.shape == (1, 3, config.height, config.width)


def test_discriminator_sees_the_source():
    torch.manual_seed(0)
    critic = D_t(SPGConfig(ALPHABET)).eval()
    x, a, b = pictures(1), pictures(1, 1), pictures(1, 2)
    with torch.no_grad():
        assert critic(x, a).shape == (1, 1, 6, 20)
        assert not torch.allclose(critic(x, a), critic(x, b))


def test_losses_are_zero_at_the_truth_and_grow_away_from_it():
    mask = torch.zeros(2, 1, 48, 160)
    mask[..., 10:30, 10:40] = 1
    right, wrong = 20 * (mask - 0.5), -20 * (mask - 0.5)
    assert mask_loss(right, mask) < 0.05 < mask_loss(torch.zeros_like(mask), mask) < mask_loss(wrong, mask)
    assert (
        dice(mask, mask) < 1e-3
        and mask_iou(mask, mask).tolist() == [1, 1]
        and mask_iou(1 - mask, mask).tolist() == [0, 0]
    )
    slots = torch.rand(1, 4, 3, 2)
    assert slot_loss(slots, slots, codes("AB12")) == 0
    assert slot_loss(slots + 0.1, slots, codes("AB")[:, :2].repeat(1, 2)) == pytest.approx(0.1, abs=1e-5)
    x = pictures(2)
    assert region_l1(x, x + 0.5, mask) == pytest.approx(0.5, abs=1e-5) and perceptual([x], [x]) == 0


def test_ctc_decoding_round_trip():
    text = "AAB0京"
    steps = [c for ch in text for c in (READABLE.index(ch) + 1, 0)]
    logits = torch.full((1, len(steps), len(READABLE) + 1), -20.0)
    logits[0, range(len(steps)), steps] = 0
    log_probabilities = logits.log_softmax(-1)
    assert greedy_decode(log_probabilities, READABLE) == [text]
    assert (
        ctc(log_probabilities, encode_texts([text], READABLE))
        < 0.01
        < ctc(log_probabilities, encode_texts(["AAB1京"], READABLE))
    )


def likeliest_path(log_probabilities, text):
    """By trying all: the classes of every step, of which repeats and then blanks are struck out to leave the text."""
    steps, classes = log_probabilities.shape
    best = {}
    for path in product(range(classes), repeat=steps):
        kept = [c for c, before in zip(path, [0, *path]) if c and c != before]
        if kept == text:
            best[path] = sum(log_probabilities[step, c].item() for step, c in enumerate(path))
    return max(best, key=best.get)


@pytest.mark.parametrize("text", [[1, 2], [1, 1], [2], [3, 1, 3]])
def test_a_known_text_is_found_where_the_likeliest_path_has_it(text):
    generator = torch.Generator().manual_seed(len(text))
    for _ in range(5):
        seen = torch.randn(1, 6, 4, generator=generator).log_softmax(-1)
        path = likeliest_path(seen[0], text)
        starts = [i for i, c in enumerate(path) if c and (i == 0 or path[i - 1] != c)]
        ends = [next((j for j in range(i, 6) if path[j] != path[i]), 6) for i in starts]
        codes = torch.tensor([[*text, 0]])  # padding changes nothing
        found = align(seen, codes)[0, : len(text)]
        assert found.tolist() == pytest.approx([(i + j - 1) / 2 for i, j in zip(starts, ends)])


def test_a_pointer_is_blamed_for_what_it_points_elsewhere():
    near = torch.tensor([[[True, True, False, False], [False, False, False, True]]])
    right, wrong = torch.full((1, 1, 2, 4), -9.0), torch.full((1, 1, 2, 4), -9.0)
    right[0, 0, 0, 1], right[0, 0, 1, 3] = 9, 9
    wrong[0, 0, 0, 2], wrong[0, 0, 1, 3] = 9, 9
    text, short = torch.tensor([[5, 6]]), torch.tensor([[5, 0]])
    assert pointed_near(right, near, text) < 1e-3
    assert pointed_near(wrong, near, text).item() == pytest.approx(8.65, abs=0.1)
    assert pointed_near(wrong, near, short).item() == pytest.approx(17.3, abs=0.1)  # padding is nobody's fault


def test_checkpoints_keep_weights_and_config(spg, tmp_path):
    checkpoint.save(spg, tmp_path / "a.safetensors")
    again = checkpoint.load(str(tmp_path / "a.safetensors"), "spg")
    assert again.config == spg.config
    assert all(torch.equal(a, b) for a, b in zip(spg.state_dict().values(), again.state_dict().values()))
    checkpoint.save(spg, tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "a.safetensors").stat().st_size


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x80\x04 a pickle",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"alphabet", b"alphabxx"),
    ],
)
def test_a_broken_checkpoint_is_named(spg, tmp_path, damage):
    path = tmp_path / "broken.safetensors"
    checkpoint.save(spg, path)
    path.write_bytes(damage(path.read_bytes()) if callable(damage) else damage)
    with pytest.raises(checkpoint.CheckpointError, match="broken.safetensors"):
        checkpoint.load(str(path), "spg")


def test_a_reader_is_no_generator_and_a_missing_file_is_told(untrained):
    with pytest.raises(checkpoint.CheckpointError, match="'reader' network"):
        checkpoint.load(untrained.reader, "spg")
    with pytest.raises(checkpoint.CheckpointError, match="nowhere"):
        checkpoint.load("nowhere", "spg")


def _favouring(*tokens, h=6, w=20):
    """Logits of characters that each favour some tokens, the first most."""
    logits = torch.full((1, len(tokens), h * w), -9.0)
    for n, wanted in enumerate(tokens):
        for rank, (x, y) in enumerate(wanted):
            logits[0, n, y * w + x] = 3.0 - rank
    return logits


def test_two_characters_do_not_take_one_place():
    logits = _favouring([(3, 2)], [(9, 2), (6, 2)], [(9, 2)])
    picked = _in_reading_order(logits, codes("ABC"), 6, 20)[0].tolist()
    assert [(t % 20, t // 20) for t in picked] == [(3, 2), (6, 2), (9, 2)]


def test_a_second_row_begins_at_the_left_again_and_padding_is_passed_over():
    logits = _favouring([(8, 1)], [(13, 1)], [(3, 4)], [(8, 4)], [(0, 0)])
    text = torch.cat([codes("ABCD"), torch.zeros(1, 1, dtype=torch.int64)], 1)
    picked = _in_reading_order(logits, text, 6, 20)[0].tolist()
    assert [(t % 20, t // 20) for t in picked[:4]] == [(8, 1), (13, 1), (3, 4), (8, 4)]
