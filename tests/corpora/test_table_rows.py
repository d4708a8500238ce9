"""One reader of tables for corpora and for annotated datasets: no row is lost, no frame taken for a crop."""

import codecs
import csv
import io
import json
import unicodedata

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from platemint import run_pipeline
from platemint.pipeline.corpora import read_corpus, table_rows
from platemint.pipeline.corpora.datasets import open_dataset, rewrite_dataset
from platemint.pipeline.corpora.filenames import NOT_A_TEXT
from platemint.pipeline.corpora.labels import split_named, standard_split
from platemint.pipeline.plate import UNREADABLE, PlatemintError, says_unreadable
from platemint.pipeline.recipe import load_recipe
from platemint.pipeline.sample import open_sources

BOX = ((20.0, 30.0), (120.0, 30.0), (120.0, 60.0), (20.0, 60.0))


def make(root, files):
    """Files with a text or bytes; None is a picture of its own, 400 x 300 pixels."""
    for number, (name, text) in enumerate(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            Image.new("RGB", (400, 300), (number, number, 9)).save(path)
        else:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def pictures(*names):
    return dict.fromkeys(names)


def texts(corpus):
    return {label.name: label.text for label in corpus.labels}


def aside(corpus):
    return {(row["path"], row["row"]): row["reason"] for row in corpus.set_aside}


def plates(dataset):
    return {
        frame.path: [(annotation.text, annotation.corners) for annotation in frame.annotations]
        for frame in dataset.frames
    }


def other(frame, text):
    return "Z" + text[1:]


# ------------------------------------------------------------------------------------------------------ rows and lines

STRAY = {
    "in one row": ('path,text\n1.jpg,"AB1\n2.jpg,AB2\n3.jpg,AB3\n', {"2"}),
    "in two rows, as if a cell went over both": ('path,text\n1.jpg,"AB1\n2.jpg,AB2\n3.jpg,AB3"\n', {"2", "4"}),
    "in two rows with text first": ('text,path\n"AB1,1.jpg\nAB2",2.jpg\nAB3,3.jpg\n', {"2", "3"}),
    "in two rows between other cells": ('n,text,path\n1,"AB1,1.jpg\n2,AB2",2.jpg\n3,AB3,3.jpg\n', {"2", "3"}),
    "behind the text": ('path,text\n1.jpg,"AB1"2\n2.jpg,AB2\n3.jpg,AB3\n', {"2"}),
    "in the last row": ('path,text\n1.jpg,AB1\n2.jpg,AB2\n3.jpg,"AB3', {"4"}),
}


@pytest.mark.parametrize("name", STRAY)
def test_a_stray_quotation_mark_spoils_no_row_but_its_own(tmp_path, name):
    content, lines = STRAY[name]
    make(tmp_path, {"labels.csv": content} | pictures("1.jpg", "2.jpg", "3.jpg"))
    corpus, dataset = read_corpus(tmp_path), open_dataset(tmp_path)
    assert {row for _, row in aside(corpus)} <= lines and aside(corpus)
    assert len(corpus.labels) + len(corpus.set_aside) == 3
    assert len(dataset.frames) + len(dataset.set_aside) == 3 and all(frame.annotations for frame in dataset.frames)


CELL = st.text(st.characters(exclude_characters="\0\r\n,;\t", exclude_categories=["Cs"]), max_size=8)
LINES = st.lists(CELL, min_size=1, max_size=3).map("\n".join)


@given(
    st.lists(st.tuples(CELL, LINES) | st.tuples(LINES, CELL), min_size=1, max_size=8),
    st.sampled_from(",;"),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=200, deadline=None)
def test_what_python_writes_as_csv_is_read_row_by_row(rows, delimiter, end):
    sink = io.StringIO()
    csv.writer(sink, delimiter=delimiter, lineterminator=end).writerows([("path", "text"), *rows])
    read = list(table_rows.Table(sink.getvalue(), jsonl=False).rows())
    assert "".join(row.raw for row in read) == sink.getvalue()
    header, *used = read
    assert header.fields is None and not any(row.fault for row in used)
    found = [tuple(cell.lstrip(" ") for cell in row.fields.values()) for row in used]
    assert found == [tuple(cell.lstrip(" ") for cell in row) for row in rows]


@given(st.lists(st.sampled_from(["1.jpg", '"', ",", "\n", "A1", '""', " "]), max_size=40))
def test_no_character_of_any_table_is_lost(parts):
    content = "path,text\n" + "".join(parts)
    rows = list(table_rows.Table(content, jsonl=False).rows())
    assert "".join(row.raw for row in rows) == content
    listed = [row for row in rows if row.fields is not None]
    assert all(sum("," in line for line in row.raw.splitlines()) <= 1 for row in listed), "no row swallows another"


def test_a_quoted_newline_is_one_row_and_is_rewritten_as_one(tmp_path):
    content = 'note,text,path\r\n"gate, 1\r\nnorth","AB1\r\n234",1.jpg\r\nx,CD567,2.jpg\r\n"y","EF\n89",3.jpg'
    make(tmp_path, {"labels.csv": content} | pictures("1.jpg", "2.jpg", "3.jpg"))
    assert texts(read_corpus(tmp_path)) == {"1.jpg": "AB1 234", "2.jpg": "CD567", "3.jpg": "EF 89"}
    dataset = open_dataset(tmp_path)
    assert plates(dataset) == {"1.jpg": [("AB1 234", ())], "2.jpg": [("CD567", ())], "3.jpg": [("EF 89", ())]}
    assert rewrite_dataset(dataset, lambda frame, text: text)["labels.csv"][1] == content.encode()
    renewed = rewrite_dataset(dataset, other)["labels.csv"][1].decode()
    assert list(csv.reader(io.StringIO(renewed, newline="")))[1:] == [
        ["gate, 1\r\nnorth", "ZB1 234", "1.jpg"],
        ["x", "ZD567", "2.jpg"],
        ["y", "ZF 89", "3.jpg"],
    ]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_line_ends_end_lines(tmp_path, character):
    note = f"a{character}b"
    rows = [{"path": f"{n}.jpg", "text": f"AB{n}", "note": note} for n in range(2)]
    make(tmp_path, pictures("0.jpg", "1.jpg"))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf8")
    assert texts(read_corpus(tmp_path)) == {"0.jpg": "AB0", "1.jpg": "AB1"}
    assert len(open_dataset(tmp_path).frames) == 2 and not open_dataset(tmp_path).set_aside
    (tmp_path / "a.jsonl").unlink()
    make(tmp_path, {"a.csv": "path,text,note\n" + "".join(f"{n}.jpg,AB{n},{note}\n" for n in range(2))})
    assert len(read_corpus(tmp_path).labels) == len(open_dataset(tmp_path).frames) == 2


def test_broken_lines_of_jsonl_are_listed_and_their_pictures_stay_back(tmp_path):
    content = '{"path": "1.jpg", "text": "AB1"}\n{"path": "2.jpg", "te\n[3]\n'
    make(tmp_path, {"a.jsonl": content} | pictures("1.jpg", "2.jpg"))
    assert aside(read_corpus(tmp_path)) == {("", n): "not a JSON object in one line" for n in "23"}
    dataset = open_dataset(tmp_path)
    assert list(plates(dataset)) == ["1.jpg"] and dataset.withheld == ["2.jpg"]


# --------------------------------------------------------------------------------------------------- encodings, headers


@pytest.mark.parametrize("bom", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF8, codecs.BOM_UTF32_LE, b""])
@pytest.mark.parametrize(
    "name, delimiter", [("a.csv", ","), ("a.csv", "\t"), ("a.tsv", "\t"), ("a.txt", "\t"), ("a.csv", ";")]
)
def test_encodings_and_delimiters_of_spreadsheets(tmp_path, bom, name, delimiter):
    encodings = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be", codecs.BOM_UTF32_LE: "utf-32-le"}
    encoding = encodings.get(bom, "utf-8")
    content = f"Path{delimiter}Text\r\n1.jpg{delimiter}京A12345\r\n"
    make(tmp_path, {name: bom + content.encode(encoding)} | pictures("1.jpg"))
    assert texts(read_corpus(tmp_path)) == texts(read_corpus(tmp_path / name)) == {"1.jpg": "京A12345"}
    dataset = open_dataset(tmp_path)
    assert plates(dataset) == {"1.jpg": [("京A12345", ())]}
    assert rewrite_dataset(dataset, other)[name][1] == bom + content.replace("京", "Z").encode(encoding)


@pytest.mark.parametrize(
    "header",
    ["Path,Text", "path, text", "FILE_NAME,Plate Text", "filename,words", "Image,label", "img_path,LicensePlate"],
)
def test_columns_are_known_by_several_words(tmp_path, header):
    make(tmp_path, {"a.csv": f"{header}\n1.jpg, AB123\n"} | pictures("1.jpg"))
    assert texts(read_corpus(tmp_path)) == {"1.jpg": "AB123"}
    assert plates(open_dataset(tmp_path)) == {"1.jpg": [("AB123", ())]}


def test_a_header_that_is_not_understood_is_quoted_with_what_is_wanted(tmp_path):
    make(tmp_path, {"a.csv": "Bild,Kennzeichen\n1.jpg,AB123\n"} | pictures("1.jpg"))
    for read in (read_corpus, open_dataset):
        with pytest.raises(PlatemintError, match="a.csv.* needs the columns path and text.*it has: Bild, Kennzeichen"):
            read(tmp_path)
    make(tmp_path, {"a.csv": "0001,AB123\n0002,AB124\n"})
    with pytest.raises(PlatemintError, match="needs the columns") as told:
        open_dataset(tmp_path)
    assert "AB123" not in str(told.value), "a first row may be no header"


@pytest.mark.parametrize(
    "rows", ["1.jpg,AB123\n2.PNG,AB124\n", "AB123;1.jpg\nAB124;2.PNG\n", "1.jpg,x,AB123\n2.PNG,y,AB124\n"]
)
def test_a_table_without_a_header_is_read_where_it_is_plain(tmp_path, rows):
    make(tmp_path, {"a.csv": rows} | pictures("1.jpg", "2.PNG"))
    assert texts(read_corpus(tmp_path)) == {"1.jpg": "AB123", "2.PNG": "AB124"}
    assert [[text for text, _ in found] for found in plates(open_dataset(tmp_path)).values()] == [["AB123"], ["AB124"]]
    make(tmp_path, {"a.csv": "1.jpg,7,8,9,AB123\n"})
    with pytest.raises(PlatemintError, match="needs the columns"):
        read_corpus(tmp_path)


# ------------------------------------------------------------------------------------------------------- plates' places

PLACED = {
    "xmin,ymin,xmax,ymax": "20,30,120,60",
    "X_Min,Y_Min,X_Max,Y_Max": "20,30,120,60",
    "bbox_x1,bbox_y1,bbox_x2,bbox_y2": "20,30,120,60",
    "left,top,right,bottom": "20,30,120,60",
    "x,y,w,h": "20,30,100,30",
    "bbox_x,bbox_y,bbox_width,bbox_height": "20,30,100.0,30",
    "x,y,width,height": "20,30,100,30",
    "left,top,width,height": "20,30,100,30",
    "x1,y1,x2,y2,x3,y3,x4,y4": "120,60,20,60,20,30,120,30",
    "bbox": '"[20, 30, 100, 30]"',
    "xyxy": "20 30 120 60",
    "corners": '"[[20, 30], [120, 30], [120, 60], [20, 60]]"',
    "width,height,class,xmin,ymin,xmax,ymax": "400,300,plate,20,30,120,60",
}


@pytest.mark.parametrize("names", PLACED)
def test_places_in_columns(tmp_path, names):
    content = f"path,text,{names},seen_at\n1.jpg,AB123,{PLACED[names]},gate 7\n"
    make(tmp_path, {"a.csv": content} | pictures("1.jpg"))
    dataset = open_dataset(tmp_path)
    assert plates(dataset) == {"1.jpg": [("AB123", BOX)]} and not dataset.set_aside
    assert rewrite_dataset(dataset, other)["a.csv"][1].decode() == content.replace("AB123", "ZB123")
    (label,) = read_corpus(tmp_path).labels
    assert (label.path, label.text, label.corners, label.row) == (tmp_path / "1.jpg", "AB123", BOX, "2")
    assert read_corpus(tmp_path / "a.csv").labels == [label]


@pytest.mark.parametrize(
    "place",
    [{"bbox": [20, 30, 100, 30]}, {"corners": [20, 30, 120, 30, 120, 60, 20, 60]}, {"xyxy": [20, 30, 120, 60]},
     {"x": 20, "y": 30, "w": 100, "h": 30}],
)  # fmt: skip
def test_places_in_jsonl_and_several_plates_of_a_picture(tmp_path, place):
    rows = [{"file_name": "1.jpg", "text": "AB123", **place}, {"file_name": "1.jpg", "text": "CD456", "bbox": [200, 200, 50, 20]},
            {"file_name": "2.jpg", "text": None}]  # fmt: skip
    content = "".join(json.dumps(row | {"tags": {"near": ["gate ab123"], "n": 1}}) + "\n" for row in rows)
    make(tmp_path, {"a.jsonl": content} | pictures("1.jpg", "2.jpg"))
    dataset = open_dataset(tmp_path)
    found = plates(dataset)
    assert found["1.jpg"][0] == ("AB123", BOX) and found["1.jpg"][1][0] == "CD456" and found["2.jpg"] == []
    renewed = rewrite_dataset(dataset, other)["a.jsonl"][1].decode()
    assert renewed == content.replace('"AB123"', '"ZB123"').replace("ab123", "zb123").replace("CD456", "ZD456")


def test_a_row_with_a_text_and_no_place_is_set_aside_where_others_have_one(tmp_path):
    content = "path,text,xmin,ymin,xmax,ymax\n1.jpg,AB123,20,30,120,60\n2.jpg,AB124,,,,\n3.jpg,,,,,\n4.jpg,AB125,a,30,120,60\n"
    dataset = open_dataset(make(tmp_path, {"a.csv": content} | pictures("1.jpg", "2.jpg", "3.jpg", "4.jpg")))
    assert plates(dataset) == {"1.jpg": [("AB123", BOX)], "3.jpg": []}
    assert [row["path"] for row in dataset.set_aside] == ["2.jpg", "4.jpg"]


def test_places_without_texts_are_plates_without_text(tmp_path):
    content = "filename,width,height,class,xmin,ymin,xmax,ymax\n1.jpg,400,300,car,0,0,399,299\n1.jpg,400,300,license-plate,20,30,120,60\n"
    dataset = open_dataset(make(tmp_path, {"a.csv": content} | pictures("1.jpg")))
    assert plates(dataset) == {"1.jpg": [("", BOX)]} and dataset.classes == ("license-plate",)
    assert rewrite_dataset(dataset, other)["a.csv"][1].decode() == content


def test_a_declared_size_is_compared_with_the_picture(tmp_path):
    rows = ["1.jpg,AB123,800,600,40,60,240,120", "2.jpg,AB124,300,300,20,30,120,60"]
    content = "path,text,width,height,xmin,ymin,xmax,ymax\n" + "\n".join(rows)
    dataset = open_dataset(make(tmp_path, {"a.csv": content} | pictures("1.jpg", "2.jpg")))
    assert plates(dataset) == {"1.jpg": [("AB123", BOX)]} and "declared as 300 x 300" in dataset.set_aside[0]["reason"]


@pytest.mark.parametrize(
    "name, value", [("cx", "20"), ("x_center", "20"), ("x1", "20"), ("polygon_coords", "x"), ("keypoints", "1"), ("top_left_x", "3"),
                    ("where", "[20, 30, 120, 60]"), ("where", "20 30 120 60"), ("plates", [{"bbox": [1, 2, 3, 4]}]),
                    ("objects", {"bbox": [[1, 2, 3, 4]]}), ("shape", {"x": 1, "y": 2}), ("bboxes", "1"), ("plate_x1", "9")]
)  # fmt: skip
def test_what_looks_like_a_place_and_is_not_understood_is_refused_by_name(tmp_path, name, value):
    row = {"path": "1.jpg", "text": "AB123", name: value}
    make(tmp_path, {"a.jsonl": json.dumps(row) + "\n"} | pictures("1.jpg"))
    for read in (read_corpus, open_dataset):
        with pytest.raises(PlatemintError, match=rf"a.jsonl, line 1: {name}: looks like"):
            read(tmp_path)


def test_harmless_columns_are_no_places(tmp_path):
    names = "country,plate_region,licence,quality,index,entry,rotation,time,width,height,colour"
    content = f"path,text,{names}\n1.jpg,AB123,US,eu,MIT,0.5,3,4,90,2024-01-02 03:04:05,400,300,255 0 0\n"
    make(tmp_path, {"a.csv": content} | pictures("1.jpg"))
    assert texts(read_corpus(tmp_path)) == {"1.jpg": "AB123"} and plates(open_dataset(tmp_path)) == {
        "1.jpg": [("AB123", ())]
    }


def test_a_bbox_of_two_corners_is_refused(tmp_path):
    rows = [
        {"path": "1.jpg", "text": "AB123", "bbox": [20, 30, 120, 60]},
        {"path": "2.jpg", "text": "AB124", "bbox": [300, 200, 390, 230]},
    ]
    make(tmp_path, {"a.jsonl": "".join(json.dumps(row) + "\n" for row in rows)} | pictures("1.jpg", "2.jpg"))
    with pytest.raises(PlatemintError, match="a.jsonl: bbox: .*call it xyxy"):
        open_dataset(tmp_path)


# --------------------------------------------------------------------------------------------------- where pictures are


@pytest.mark.parametrize(
    "named, there",
    [("img\\1.jpg", "img/1.jpg"), ("D:\\work\\img\\1.jpg", "img/1.jpg"), ("/home/me/data/img/1.jpg", "img/1.jpg"),
     ("IMG/1.JPG", "img/1.jpg"), ("a%20b.jpg", "a b.jpg"), (unicodedata.normalize("NFD", "é.jpg"), "é.jpg")],
)  # fmt: skip
def test_pictures_are_found_as_other_machines_name_them(tmp_path, named, there):
    make(tmp_path, {"a.csv": f"path,text\n{named},AB123\n", there: None})
    (label,) = read_corpus(tmp_path).labels
    assert label.path == tmp_path / there
    assert list(plates(open_dataset(tmp_path))) == [there]


def test_a_picture_that_two_rows_may_mean_is_guessed_for_neither(tmp_path):
    make(
        tmp_path,
        {"a.csv": "path,text\n/x/a/1.jpg,AB123\n/x/b/1.jpg,AB124\nc/2.jpg,AB125\n/x/d/2.jpg,AB126\n"}
        | pictures("1.jpg", "c/2.jpg"),
    )
    found = [label.text for label in read_corpus(tmp_path).labels if label.path.is_file()]
    assert found == ["AB125"]


def test_a_corpus_may_name_pictures_anywhere_and_a_dataset_may_not(tmp_path):
    make(tmp_path, pictures("away/0.jpg", "away/1.jpg", "away/3.jpg"))
    away = tmp_path / "away" / "1.jpg"
    make(
        tmp_path / "in",
        {"a.csv": f"path,text\n{away},AB123\n2.jpg,AB124\n../away/3.jpg,AB125\n", "x": b"", "y": b"", "2.jpg": None},
    )
    sources = open_sources(load_recipe(None, overrides={"source.path": str(tmp_path / "in")}))
    used = {photo.path.resolve() for photos in sources.photos for photo in photos}
    assert used == {away, tmp_path / "away" / "3.jpg", tmp_path / "in" / "2.jpg"}
    assert not any("away" in frame.path for frame in open_dataset(tmp_path / "in").frames)


def test_a_rewritten_table_does_not_name_the_old_pictures_by_their_paths(tmp_path):
    make(tmp_path, pictures("img/1.jpg"))
    make(tmp_path, {"notes/a.csv": f"path,text\n{tmp_path}/img/1.jpg,AB123\n"})
    assert rewrite_dataset(open_dataset(tmp_path), other)["notes/a.csv"][1] == b"path,text\n../img/1.jpg,ZB123\n"


# ------------------------------------------------------------------------------------------------- names, gt.txt, words


@pytest.mark.parametrize(
    "names", [["AB123CD", "XY987ZW"], ["ab-123", "京A12345"], ["AB1234", "CD5678 (2)", "EF9012_x"]]
)
def test_pictures_named_after_their_plates(tmp_path, names):
    make(tmp_path, pictures(*(f"{name}.jpg" for name in names), "cover.jpg"))
    corpus, dataset = read_corpus(tmp_path), open_dataset(tmp_path)
    assert dataset.format == "names" and len(corpus.labels) == len(dataset.frames) == len(names)
    assert aside(corpus) == {("cover.jpg", ""): NOT_A_TEXT} and not dataset.unannotated
    assert {label.text for label in corpus.labels} == {text for found in plates(dataset).values() for text, _ in found}


@pytest.mark.parametrize(
    "names",
    [["0001", "0002"], ["IMG_1234", "IMG_1235"], ["IMG1234"], ["frame12", "frame13"], ["cam1_0001", "cam1_0002"],
     ["v12", "v13", "v14"], ["20240101_120000"], ["3f2a9c81", "b71c0d22"], ["photo", "car"],
     [f"take2_{n:04d}" for n in range(40)]],
)  # fmt: skip
def test_other_names_are_no_plates(tmp_path, names):
    make(tmp_path, pictures(*(f"{name}.jpg" for name in names)))
    for read in (read_corpus, open_dataset):
        with pytest.raises(PlatemintError, match="no labelled plates found|no annotations found"):
            read(tmp_path)


def test_names_of_redacted_plates_are_read_again_as_such(tmp_path):
    dataset = open_dataset(make(tmp_path, pictures("AB123.jpg", "CD456.jpg", "EF789.jpg")))
    becomes = rewrite_dataset(dataset, lambda frame, text: "" if text != "EF789" else text)
    again = open_dataset(make(tmp_path / "out", pictures(*(new for new, _ in becomes.values()))), "names", sure=True)
    assert sorted(plates(again)) == ["EF789.jpg", "unreadable_-2.jpg", "unreadable_.jpg"] and not again.set_aside
    assert sorted(text for found in plates(again).values() for text, _ in found) == ["", "", "EF789"]


def test_blanks_in_names_of_gt(tmp_path):
    content = "my car 0.png AB 123\nmy car  1.png CD 456\nmy.png x.png EF789\nplain.png GH012\nno text.png\t\n"
    make(
        tmp_path, {"gt.txt": content} | pictures("no text.png", "my car 0.png", "my car  1.png", "my.png", "plain.png")
    )
    wanted = {"my car 0.png": "AB 123", "my car  1.png": "CD 456", "my.png": "X.PNG EF789", "plain.png": "GH012"}
    dataset = open_dataset(tmp_path)
    assert {path: found[0][0] for path, found in plates(dataset).items()} == wanted | {"no text.png": ""}
    assert texts(read_corpus(tmp_path)) == wanted
    renewed = rewrite_dataset(dataset, other)["gt.txt"][1].decode()
    assert renewed.splitlines()[:2] == ["my car 0.png ZB 123", "my car  1.png ZD 456"]


@pytest.mark.parametrize(
    "text", ["unknown", "N/A", "None", "XXXXXXX", "XXX-XXX", "###", "????", "----", "*", "license_plate", "no plate"]
)
def test_what_is_no_text(tmp_path, text):
    make(tmp_path, {"a.csv": f"path,text\n1.jpg,{text}\n2.jpg,AB123\n"} | pictures("1.jpg", "2.jpg"))
    assert texts(read_corpus(tmp_path)) == {"2.jpg": "AB123"} and list(aside(read_corpus(tmp_path))) == [("1.jpg", "2")]
    assert plates(open_dataset(tmp_path)) == {"1.jpg": [("", ())], "2.jpg": [("AB123", ())]}


@pytest.mark.parametrize("text", ["NULL", "NA", "XX", "XXX1", "1111", "0000", "AAAA", "X1X"])
def test_what_is_a_text(text):
    assert not says_unreadable(text, UNREADABLE)


def test_the_words_are_the_recipes(tmp_path):
    make(tmp_path, {"a.csv": "path,text\n1.jpg,dirty 1\n2.jpg,NONE\n"} | pictures("1.jpg", "2.jpg"))
    sources = open_sources(load_recipe(None, ["source.unreadable=[Dirty-1]"], overrides={"source.path": str(tmp_path)}))
    assert sources.texts == {"NONE"}
    for task in ("anonymize", "generate", "train"):
        recipe = load_recipe(None, task=task)
        assert (recipe if task == "train" else recipe.source).unreadable == UNREADABLE
    assert [
        annotation.text for f in open_dataset(tmp_path, unreadable=["DIRTY1"]).frames for annotation in f.annotations
    ] == ["", "NONE"]


@pytest.mark.parametrize(
    "split, words",
    [
        ("train", "Train TRAINING train2017 trainset"),
        ("val", "valid Validation VAL dev val2017"),
        ("test", "Testing eval tests/test"),
    ],
)
def test_words_for_splits_are_the_same_in_folders_columns_and_lists(tmp_path, split, words):
    for number, word in enumerate(words.split()):
        assert split_named(f"data/{word}/x") == split
        names = make(
            tmp_path / f"{number}", {f"{word}/AB123.jpg": None, f"{word}/._AB123.jpg": b"x", f"{word}/Thumbs.db": b"x"}
        )
        assert (
            [label.split for label in read_corpus(names).labels]
            == [f.split for f in open_dataset(names).frames]
            == [split]
        )
    for word in ("Valid", "development"):
        make(tmp_path / word, {"a.csv": f"path,text,split\n1.jpg,AB123,{word}\n"} | pictures("1.jpg"))
        assert [label.split for label in read_corpus(tmp_path / word).labels] == ["val"]
        assert [frame.split for frame in open_dataset(tmp_path / word).frames] == ["val"]
        recipe = load_recipe(None, overrides={"source.path": str(tmp_path / word), "source.split": "Validation"})
        assert [group.split for group in open_sources(recipe).groups] == ["val"]
    assert standard_split("fold1") == "fold1" and standard_split("test1") == "test1"


# --------------------------------------------------------------------------------------------------------- nothing there


def inspected(path):
    return CliRunner().invoke(run_pipeline.main, ["inspect", str(path)])


def test_inspect_counts_pictures_that_are_not_there(tmp_path):
    make(tmp_path, {"a.csv": "path,text\n1.jpg,AB123\n2.jpg,AB124\n3.jpg,AB125\n"} | pictures("1.jpg", "3.png"))
    result = inspected(tmp_path)
    assert result.exit_code == 0 and "corpus of 1 plates" in result.output and "no such file 2" in result.output
    (tmp_path / "1.jpg").unlink()
    result = inspected(tmp_path)
    assert result.exit_code == 2 and "not one plate: 3 set aside, the first: 1.jpg: no such file" in result.output
    make(tmp_path, {"a.csv": "path,text\n3.png,UNKNOWN\n"})
    assert inspected(tmp_path).exit_code == 2
