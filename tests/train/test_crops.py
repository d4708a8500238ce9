"""crops: every fault of a corpus is told with its figure, a sound corpus passes without a word."""

import csv

import cv2
import numpy as np
import pytest

from platemint.models import checkpoint
from platemint.pipeline.plate import DIGITS, LETTERS, PlatemintError, same_reading
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.train import crops as learn
from platemint.pipeline.train.crops import learnable_crops

KINDS = ("uk", "us-california", "ar-mercosur")


@pytest.fixture(scope="module")
def reader():
    return checkpoint.load("reader", "reader")


@pytest.fixture(scope="module")
def plates(reader):
    """50 rendered plates of three kinds that the shipped reader reads, and is sure of: others it leaves unjudged."""
    layouts, rng = list(load_layouts(KINDS).values()), np.random.default_rng(5)
    kinds = [layouts[i % 3] for i in range(70)]
    drawn_ = [render_plate(kind, random_text(kind.positions, rng), rng, severity=0.2) for kind in kinds]
    readings = learn._read([learn.Crop(plate.image, plate.text, "", "") for plate in drawn_], reader)
    known = [p for p, (text, sure) in zip(drawn_, readings) if same_reading(text, p.text) and sure > learn.SURE]
    assert len(known) >= 50
    return known[:50]


def drawn(count):
    """Quick pictures and labels: as many different texts with every digit, each written on its picture."""
    rng, rows = np.random.default_rng(1), []
    for _ in range(count):
        text = "".join(rng.choice(list(alphabet)) for alphabet in (LETTERS,) * 3 + (DIGITS,) * 3)
        rows.append((cv2.putText(np.full((32, 96, 3), 230, np.uint8), text, (4, 22), 0, 0.7, (20, 20, 20), 2), text))
    return rows


def write(folder, rows, splits=()):
    """A corpus with a labels.csv. rows: (picture or the bytes of its file or None for no file, text)."""
    folder.mkdir(exist_ok=True)
    with (folder / "labels.csv").open("w", encoding="utf8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "text", "split"])
        for number, (picture, text) in enumerate(rows):
            name = f"{number:03}.png"
            if picture is not None:
                data = picture if isinstance(picture, bytes) else cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
                (folder / name).write_bytes(data)
            table.writerow([name, text, splits[number] if splits else "train"])
    return str(folder)


def judged(path, **options):
    """The crops and what was said of the corpus."""
    said = []
    crops = learnable_crops(path, say=said.append, **options)
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in said)
    assert said.pop(0) == f"{path}: read as table (labels.csv)"
    return crops, [line.removeprefix(f"{path}: ") for line in said]


def refusal(path, **options):
    with pytest.raises(PlatemintError) as fault:
        judged(path, **options)
    assert str(fault.value).startswith(f"{path}: ")
    return str(fault.value).removeprefix(f"{path}: ")


def labelled(plates, texts=None):
    return list(zip([plate.image for plate in plates], texts or [plate.text for plate in plates]))


# ---------------------------------------------------------------------------------------------------------- a sound one


def test_a_sound_corpus_passes_without_a_word_and_whole(tmp_path, plates):
    rows = labelled(plates) + drawn(170)
    rows[0] = (rows[0][0], "ab-12•c")
    crops, said = judged(write(tmp_path / "c", rows))
    assert said == []
    assert [crop.text for crop in crops] == ["AB-12·C"] + [text for _, text in rows[1:]]
    small = [(crop.image, picture) for crop, (picture, _) in zip(crops, rows) if picture.shape[1] <= learn.MOST_WIDTH]
    assert len(small) > 20 and all(np.array_equal(*pair) for pair in small)
    assert all(crop.image.shape[1] <= learn.MOST_WIDTH for crop in crops)  # memory: larger ones are kept smaller
    assert crops[0].group == "LL-DD·L" and crops[0].name == "000.png" and crops[0].image.dtype == np.uint8


# ----------------------------------------------------------------------------------------------------------- the labels


def test_letters_of_the_plates_that_cannot_be_spelled_are_refused_with_counts_and_examples(tmp_path):
    starts = ["MÑ"] * 30 + ["Ø"] * 4 + ["A#"] * 6 + [""] * 60
    rows = [(picture, start + text[2:]) for start, (picture, text) in zip(starts, drawn(100))]
    message = refusal(write(tmp_path / "c", rows))
    assert "2 letters that platemint cannot spell" in message and "more than 1 % of its 100 labels" in message
    assert "'Ñ' in 30 (30 %), the first 000.png (line 2); 'Ø' in 4 (4 %), the first 030.png (line 32)" in message
    assert "#" not in message and "alphabet.add=ÑØ" in message


def test_of_many_unspellable_letters_ten_are_listed(tmp_path):
    rows = [(picture, "АБГДЕЖЗИЙКЛМН"[i % 13] + text[1:]) for i, (picture, text) in enumerate(drawn(39))]
    message = refusal(write(tmp_path / "c", rows))
    assert "13 letters" in message and message.count("' in 3 (7.69 %)") == 10 and "and 3 more characters" in message


def test_slips_in_labels_are_left_out_and_counted(tmp_path):
    rows = drawn(250)
    for number, text in ((3, "Ñ123"), (7, "AB#12"), (8, "AB#13"), (9, ""), (10, "A" * 13)):
        rows[number] = (rows[number][0], text)
    crops, said = judged(write(tmp_path / "c", rows))
    assert len(crops) == 245 and not any("warning" in line for line in said) and len(said) == 3
    assert "'#' in 2 (0.8 %), the first 007.png (line 9); 'Ñ' in 1 (0.4 %), the first 003.png (line 5)" in said[0]
    assert "1 of 250 (0.4 %) left out; the first: 009.png (line 11): no label" in said[1]
    assert "010.png (line 12): the label is longer than 12 characters" in said[2]


def test_mostly_unusable_labels_are_refused(tmp_path):
    rows = [(picture, text + "?" * (i < 31)) for i, (picture, text) in enumerate(drawn(60))]
    assert "labels: 31 of 60 (51.7 %) cannot be used, more than 50 % (max_set_aside)" in refusal(
        write(tmp_path / "c", rows)
    )


# ------------------------------------------------------------------------------------------------------------- how many


@pytest.mark.parametrize("count", (1, 3, 19))
def test_too_few_crops_are_refused(tmp_path, count):
    assert f"{count} usable crops in split train, at least 20" in refusal(write(tmp_path / "c", drawn(count)))


def test_all_in_another_split_names_the_splits(tmp_path):
    message = refusal(write(tmp_path / "c", drawn(50), ["val"] * 30 + ["test"] * 20))
    assert "0 usable crops in split train" in message and "the corpus has: val 30, test 20" in message
    assert len(judged(write(tmp_path / "c", drawn(50), ["val"] * 30 + ["test"] * 20), split="val")[0]) == 30


def test_a_small_corpus_is_warned_of(tmp_path):
    crops, said = judged(write(tmp_path / "c", drawn(199)))
    assert len(crops) == 199 and len(said) == 1 and "warning: only 199 crops" in said[0]


def test_one_text_on_all_crops_is_refused(tmp_path):
    message = refusal(write(tmp_path / "c", [(picture, "ABC123") for picture, _ in drawn(40)]))
    assert "1 different texts on 40 crops (ABC123 on 40), at least 10" in message


def test_few_texts_and_missing_digits_are_warned_of(tmp_path):
    rows = drawn(220)
    texts = [f"{rows[i % 60][1][:3]}{100 + i % 60 % 8}" for i in range(220)]
    _, said = judged(write(tmp_path / "c", [(picture, text) for (picture, _), text in zip(rows, texts)]))
    assert len(said) == 2 and "warning: only 60 different texts on 220 crops (27.3 %)" in said[0]
    assert "warning: 2 of the 10 digits are in no label: 8, 9" in said[1]


# --------------------------------------------------------------------------------------------------------- the pictures


def test_pictures_that_show_nothing_are_left_out_each_with_its_reason(tmp_path):
    rows = drawn(220)
    whole = cv2.imencode(".jpg", rows[7][0])[1].tobytes()
    faults = {
        0: (np.zeros((1, 1, 3), np.uint8), "1 x 1 pixels are too few"),
        1: (rows[1][0][:, 40:52], "12 x 32 pixels are too few to read a plate"),
        2: (np.full((32, 96, 3), 90, np.uint8), "no contrast: its grey levels span 0 of 255"),
        3: (whole[: len(whole) // 2], "broken picture"),
        4: (b"", "empty file"),
        5: (b"GIF89a or so", "not a picture"),
        6: (None, "no such file"),
        8: (rows[7][0], "the same picture as 007.png"),
    }
    for number, (picture, _) in faults.items():
        rows[number] = (picture, rows[number][1])
    crops, said = judged(write(tmp_path / "c", rows))
    assert len(crops) == 212 and len(said) == len(faults)
    for number, (_, reason) in faults.items():
        line = next(line for line in said if f"{number:03}.png (line {number + 2})" in line)
        assert "1 of 220 (0.455 %) left out" in line and reason in line


def test_pictures_of_one_fault_are_counted_in_one_line(tmp_path):
    rows = drawn(220)
    rows[:20] = [(np.full((40, 100 + i, 3), i, np.uint8), text) for i, (_, text) in enumerate(rows[:20])]
    _, said = judged(write(tmp_path / "c", rows))
    assert len(said) == 1 and "20 of 220 (9.09 %) left out; the first: 000.png (line 2): no contrast" in said[0]


def test_more_than_half_of_the_pictures_unusable_is_refused(tmp_path):
    rows = [(b"x" * i if i < 51 else picture, text) for i, (picture, text) in enumerate(drawn(100))]
    message = refusal(write(tmp_path / "c", rows))
    assert "pictures of split train: 51 of 100 (51 %) cannot be used" in message and "000.png (line 2)" in message


def test_a_text_stays_in_the_split_it_stood_in_first(tmp_path):
    rows = drawn(230)
    rows[229] = (rows[229][0], rows[0][1])
    crops, said = judged(write(tmp_path / "c", rows, ["val"] + ["train"] * 229))
    assert len(crops) == 228 and len(said) == 1 and "its text is also in the split val" in said[0]


# --------------------------------------------------------------------------------------------------------- wrong labels


def swapped(plates, share):
    """The labels with a share of them handed on to the next of those."""
    texts = [plate.text for plate in plates]
    chosen = list(range(round(share * len(plates))))
    for here, there in zip(chosen, chosen[1:] + chosen[:1]):
        texts[here] = plates[there].text
    return labelled(plates, texts), chosen


def wrong_labels(said):
    return [line for line in said if "labels" in line]


@pytest.mark.parametrize("share", (0, 0.2))
def test_labels_of_other_crops_are_found_and_right_ones_kept(tmp_path, plates, reader, share):
    rows, chosen = swapped(plates, share)
    crops, said = judged(write(tmp_path / "c", rows), reader=reader)
    kept = {crop.name for crop in crops}
    assert {f"{number:03}.png" for number in range(50)} - kept == {f"{number:03}.png" for number in chosen}
    assert bool(wrong_labels(said)) == bool(share)
    if share:
        (line,) = wrong_labels(said)
        assert "warning: 10 of 50 labels that the reader could check (20 %)" in line
        assert "10 of these show another crop's label" in line and f"label {rows[0][1]}, reads" in line


def test_one_wrong_label_in_fifty_is_no_warning_but_told(tmp_path, plates, reader):
    crops, said = judged(write(tmp_path / "c", [*labelled(plates[:-1]), (plates[-1].image, "QX77WW8")]), reader=reader)
    (line,) = wrong_labels(said)
    assert len(crops) == 49 and "1 of 50 labels" in line and "(2 %)" in line and "warning" not in line


def test_labels_shifted_by_a_line_are_refused(tmp_path, plates, reader):
    message = refusal(write(tmp_path / "c", swapped(plates, 1)[0]), reader=reader)
    assert "50 of 50 labels that the reader could check (100 %)" in message
    assert "50 of these show another crop's label" in message and "more than 30 %" in message


def test_nothing_is_judged_by_a_reader_that_does_not_know_the_plates(tmp_path, plates, reader):
    """Mirrored plates: it is unsure, or sure of what is no label of this corpus."""
    rows = [(np.ascontiguousarray(picture[:, ::-1]), text) for picture, text in labelled(plates)]
    crops, said = judged(write(tmp_path / "c", rows), reader=reader)
    (line,) = wrong_labels(said)
    assert len(crops) == 50 and "could not be checked" in line and "of 50 crops" in line and " 0 of these" in line


def test_difference_is_blind_to_separators_and_look_alikes():
    assert learn._difference("AB-O1Q", "AB0I0") == 0
    assert learn._difference("ABC", "ABD") == pytest.approx(1 / 3)
    assert learn._difference("", "AB") == 1 and learn._difference("AB12", "B12") == 0.25
