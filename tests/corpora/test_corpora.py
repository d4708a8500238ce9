"""Reading labels: every form a corpus comes in, and what is set aside."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platemint.pipeline.corpora import filenames, read_corpus
from platemint.pipeline.plate import DIGITS, LETTERS, PROVINCES, UNREADABLE, PlatemintError, normalise, says_unreadable

SHARED = Path(__file__).parents[3] / "shared" / "plates"
AWKWARD = ["NULL", "NA", "00123", "1E5", "TRUE", "京A12345", "RGF·7863", "AB 123 CD"]

plates = st.text(DIGITS + LETTERS + PROVINCES, min_size=1, max_size=12).filter(
    lambda text: not says_unreadable(text, UNREADABLE)
)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf8")
    return path


def texts(corpus):
    return [label.text for label in corpus.labels]


def reasons(corpus):
    return {(row["path"], row["row"]): row["reason"] for row in corpus.set_aside}


@given(st.lists(plates, min_size=1, max_size=20))
def test_every_form_reads_the_same_labels(tmp_path_factory, plates):
    folder = tmp_path_factory.mktemp("corpus")
    names = [f"{n}.jpg" for n in range(len(plates))]
    rows = list(zip(names, plates))
    csv = write(folder / "a.csv", "path,text\n" + "".join(f"{n},{t}\n" for n, t in rows))
    jsonl = write(folder / "a.jsonl", "".join(json.dumps({"path": n, "text": t}) + "\n" for n, t in rows))
    tabs = write(folder / "tabs.txt", "".join(f"{n}\t{t}\n" for n, t in rows))
    blanks = write(folder / "blanks.txt", "".join(f"{n} {t}\n" for n, t in rows))
    read = [read_corpus(path) for path in (csv, jsonl, tabs, blanks)]
    assert [texts(corpus) for corpus in read] == [plates] * 4
    assert all([label.path.name for label in corpus.labels] == names for corpus in read)
    assert not any(corpus.set_aside for corpus in read)


def test_plates_that_look_like_missing_values_or_numbers_stay_text(tmp_path):
    write(tmp_path / "labels.csv", "path,text\n" + "".join(f"{n}.jpg,{t}\n" for n, t in enumerate(AWKWARD)))
    assert texts(read_corpus(tmp_path)) == AWKWARD


@pytest.mark.parametrize("head", ["image_path,plate_text", "file_name,text", "path;text", "\ufeffpath\ttext"])
def test_other_headers_and_delimiters(tmp_path, head):
    delimiter = next(c for c in ",;\t" if c in head)
    write(tmp_path / "annotations.csv", f"{head}\nimages/1.jpg{delimiter}ab-123\n")
    (label,) = read_corpus(tmp_path).labels
    assert (label.text, label.path) == ("AB-123", tmp_path / "images" / "1.jpg")


def test_names_with_a_text_in_front(tmp_path):
    for name in ("ABC123_1.jpg", "ab-123_x_y.PNG", "val/京A12345_.webp", "nameless.jpg", "notes_1.md"):
        write(tmp_path / name, "")
    corpus = read_corpus(tmp_path)
    assert {(label.text, label.split) for label in corpus.labels} == {
        ("ABC123", "train"),
        ("AB-123", "train"),
        ("京A12345", "val"),
    }
    assert reasons(corpus) == {("nameless.jpg", ""): filenames.NOT_A_TEXT}


def test_the_spg_form_has_source_texts_in_gt2(tmp_path):
    write(tmp_path / "gt.txt", "1.jpg NEW·1111\n")
    write(tmp_path / "gt2.txt", "1.jpg OLD·0000\n\n")
    write(tmp_path / "i_s" / "1.jpg", "")
    (label,) = read_corpus(tmp_path).labels
    assert (label.text, label.path) == ("OLD·0000", tmp_path / "i_s" / "1.jpg")
    assert texts(read_corpus(tmp_path / "gt.txt")) == ["NEW·1111"]


def test_what_cannot_be_used_is_set_aside_with_row_and_reason(tmp_path):
    write(
        tmp_path / "labels.jsonl",
        "\n".join(
            [
                '{"path": "good.jpg", "text": "abc123", "split": "val"}',
                '{"path": "none.jpg", "text": ""}',
                '{"path": "null.jpg", "text": null}',
                '{"path": "dash.jpg", "text": "---"}',
                '{"path": "number.jpg", "text": 123}',
                '{"path": "strange.jpg", "text": "♥B †1"}',
                '{"path": "long.jpg", "text": "ABCDEFGHIJ123"}',
                '{"path": "split.jpg", "text": "ABC124", "split": "../../etc"}',
                '{"text": "ABC125"}',
            ]
        ),
    )
    corpus = read_corpus(tmp_path)
    assert [(label.text, label.split) for label in corpus.labels] == [("ABC123", "val")]
    said = reasons(corpus)
    assert len(said) == 8
    assert said["none.jpg", "2"] == said["null.jpg", "3"] == said["dash.jpg", "4"] == "no label"
    assert "not text" in said["number.jpg", "5"]
    assert "♥†" in said["strange.jpg", "6"]
    assert "longer than 12" in said["long.jpg", "7"]
    assert "split" in said["split.jpg", "8"]
    assert "no file" in said["", "9"]


def test_a_row_short_of_fields_is_set_aside(tmp_path):
    write(tmp_path / "labels.csv", "path,text\nx.jpg\ny.jpg,ABC123,more,fields\n")
    corpus = read_corpus(tmp_path)
    fault = "the row has not as many fields as the header: "
    assert reasons(corpus) == {("x.jpg", "2"): f"{fault}1, not 2", ("y.jpg", "3"): f"{fault}4, not 2"}
    write(tmp_path / "labels.csv", "path,text,split,note\nx.jpg,AB12\ny.jpg,ABC123,val,,,\n")
    assert [(label.text, label.split) for label in read_corpus(tmp_path).labels] == [
        ("AB12", "train"),
        ("ABC123", "val"),
    ]


def test_names_in_another_encoding_are_noted_in_characters_a_file_can_hold(tmp_path):
    (tmp_path / "AB1_.jpg").touch()
    (tmp_path / os.fsdecode(b"\xc4B1_.jpg")).touch()
    (row,) = read_corpus(tmp_path).set_aside
    assert row["path"].encode("utf8") == b"\\udcc4B1_.jpg" and row["reason"].encode("utf8")


@pytest.mark.parametrize(
    "files, said",
    [
        ({}, "no labelled plates found here"),
        ({"photo.jpg": ""}, "no labelled plates found here"),
        ({"other.csv": "file,note\n1.jpg,3\n"}, "no labelled plates found here"),
        ({"other.csv": "file,x1\n1.jpg,3\n"}, "other.csv, line 2: x1: looks like a plate's place"),
        (dict.fromkeys(["a.csv", "b.csv"], "path,text\n1.jpg,A\n"), r"several tables of labels \(a.csv, b.csv\)"),
    ],
)
def test_a_folder_without_one_corpus_is_refused(tmp_path, files, said):
    for name, text in files.items():
        write(tmp_path / name, text)
    with pytest.raises(PlatemintError, match=said) as caught:
        read_corpus(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "name, data, said",
    [
        ("labels.csv", b"Bild,Kennzeichen\n1.jpg,A\n", "needs the columns path and text.* it has: Bild, Kennzeichen"),
        ("labels.csv", b"", "needs the columns path and text"),
        ("labels.csv", b"path,text\n1.jpg,\xff\xfe\n", "not UTF-8"),
        ("labels.jsonl", b"[1]\n", "needs the columns path and text"),
        ("gt.txt", b"\xff\xfe1", "not UTF-16-LE"),
        ("gt.txt", b"1.jpg \xff", "not UTF-8"),
        ("labels.xml", b"<a/>", "not a file of labels"),
    ],
)
def test_a_broken_label_file_is_refused_by_name(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PlatemintError, match=said) as caught:
        read_corpus(tmp_path / name)
    assert name in str(caught.value)


def test_nothing_there(tmp_path):
    with pytest.raises(PlatemintError, match="no such folder or file"):
        read_corpus(tmp_path / "nope")


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real plates here")
def test_real_plates():
    corpus = read_corpus(SHARED)
    assert len(corpus.labels) > 2000 and {label.split for label in corpus.labels} == {"train", "val"}
    assert all(label.path.is_file() and label.text == normalise(label.text) for label in corpus.labels)
    assert texts(read_corpus(SHARED / "spg-demo"))[0] == "MNK·0036"
