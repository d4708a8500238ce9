"""A text that is a number or a word of an annotation file's format is told apart from one that stands for a plate."""

import json

import pytest
from stand_ins import anonymized, frames

from platemint.pipeline.anonymize.compare import verify_against
from platemint.pipeline.anonymize.search import scan
from platemint.pipeline.anonymize.unfinished import UNFINISHED

OF_THE_FORMAT = {  # name: (file, what it holds, texts that it holds as literals)
    "COCO": (
        "a.json",
        json.dumps(
            {
                "images": [{"id": 1280, "file_name": "1.jpg", "width": 1280, "height": 1024, "imageWidth": 1280}],
                "categories": [{"id": 1, "name": "license plate", "supercategory": "vehicle"}],
                "annotations": [
                    {"id": 1, "image_id": 12345, "bbox": [569.128, 1280, 63, 31], "area": 1953.0,
                     "segmentation": [[1280, 5, 6, 7], [1, 1024, 2, 3]], "iscrowd": 0, "attributes": {"text": "A"}},
                ],
            }
        ),
        ["1280", "1024", "1953", "12345", "569128", "IMAGES", "PLATE", "VEHICLE", "LICENSE PLATE", "FILE-NAME", "TEXT"],
    ),
    "indented, with a mark": ("a.json", '\ufeff{\n "images": [\n  {\n   "width": 1280\n  }\n ]\n}', ["1280", "IMAGES"]),
    "numbers as strings": ("a.json", '{"width": "1280"}', ["1280"]),
    "JSONL": (
        "a.jsonl", '{"path": "1.jpg", "x1": 1280, "y1": 3}\n\n{"path": "2.jpg", "x1": 1024}\n', ["1280", "1024", "PATH"],
    ),
    "VOC": (
        "a.xml",
        '<?xml version="1.0"?>\n<annotation><!-- x --><size><width>1280</width><depth>3</depth></size><object>'
        "<name>plate</name>\n<bndbox><xmin> 1024 </xmin></bndbox><polygon xtl='1933' /></object></annotation>",
        ["1280", "1024", "1933", "PLATE", "ANNOTATION", "OBJECT", "WIDTH", "BNDBOX"],
    ),
    "YOLO": (
        "a.txt",
        "0 0.512800 0.5 0.25 0.1\r\n12 0.25 0.3 0.1 0.2 0.5 0.6 0.7 0.8\n",
        ["5128", "512800", "00512", "02503"],
    ),
    "corner lines": ("a.txt", "4,0.512800,0.3,1,0.000000,0.1,0.1,0.2,0.2,AB12345,\r\n", ["5128", "05128", "000000"]),
    "LP-2024": ("a.txt", "AB12345 1280 30 1933 35 121 66 19 60\n_ 1024 1 2 3 4 5 6 7\n", ["1280", "1933", "1024"]),
    "UFPR": (
        "a.txt",
        "camera: GoPro\nposition_vehicle: 1280 720 1933 31\nplate: A\ncorners: 1024,318 632,318\n"
        "\tchar 1: 1571 3 4 5\n",
        ["1280", "1933", "1024", "1571", "CAMERA", "PLATE", "CORNERS", "POSITION"],
    ),
    "OpenALPR": ("a.txt", "1.jpg\t1280\t3\t1024\t5\tA\n", ["1280", "1024"]),
    "AOLP": ("a.txt", "128.0\n33.25\n1024.5\n2.0\n", ["1280", "3325", "10245"]),
    "PaddleOCR": (
        "a.txt",
        '1.jpg\t[{"transcription": "A", "points": [[1280, 2], [3, 4]]}]\n',
        ["1280", "POINTS", "TRANSCRIPTION"],
    ),
    "CSV": ("a.csv", "\ufefffile,text,x1,y1,width\n1.jpg,A,1280,2,1024\n", ["1280", "1024", "WIDTH", "FILE", "TEXT"]),
    "CSV, quoted": ("a.csv", '"file";"text";"x1"\n"a;b.jpg";"A ""B""";"1280"\n', ["1280", "FILE"]),
    "YAML": ("data.yaml", "train: images\nwidth: 1280\n", ["1280", "TRAIN", "WIDTH"]),
}  # fmt: skip
LEAKS = {  # name: (file, what it holds, the text that must be found)
    "a text before corners": ("a.txt", "0128000 20 30 120 35 121 66 19 60\n", "0128000"),
    "a corner line's text": ("a.txt", "4,0.1,0.3,0.3,0.1,0.1,0.1,0.2,0.2,0128000", "0128000"),
    "a number under a text's key": ("a.json", '{"plate": 1234567}', "1234567"),
    "a short one": ("a.json", '{"attributes": {"text": 1280}}', "1280"),
    "a string": ("a.json", '{"width": 1280, "note": "1280"}', "1280"),
    "a text that is a word": ("a.json", '{"text": "IMAGES", "images": []}', "IMAGES"),
    "a text in a name": ("a.json", '{"name": "plate ABC1234"}', "ABC1234"),
    "a key that is no word of a format": ("a.json", '{"ABC1234": {"x": 1}}', "ABC1234"),
    "a text beside its numbers": ("a.json", '{"bbox": "1280 in 1, 2"}', "1280"),
    "an unknown number": ("a.json", '{"registration": 1280}', "1280"),
    "a long id": ("a.json", '{"id": 7391840}', "7391840"),
    "an id of a plate": ("a.json", '{"plate_id": 7391}', "7391"),
    "broken JSON": ("a.json", '{"width": 1280', "1280"),
    "a key that holds a key": ("a.json", '{"x": "\\"width\\": 1280"}', "1280"),
    "below an unknown key": ("a.json", '{"bbox": {"owner": 1280}}', "1280"),
    "behind numbers": ("a.json", '{"bbox": [1], "text": [1280]}', "1280"),
    "JSONL": ("a.jsonl", '{"x1": 1280}\n{"text": 1280}\n', "1280"),
    "an element": ("a.xml", "<a><width>1280</width><text>1280</text></a>", "1280"),
    "an attribute": ("a.xml", "<a width='1280' plate='1280'/>", "1280"),
    "a comment": ("a.xml", "<a><!-- <width>1280</width> --></a>", "1280"),
    "CDATA": ("a.xml", "<a><text><![CDATA[<width>1280</width>]]></text></a>", "1280"),
    "an element that is a plate": ("a.xml", "<a><ABC1234/></a>", "ABC1234"),
    "broken XML": ("a.xml", "<a><width>1280</width>", "1280"),
    "a column": ("a.csv", "file,text,x1\n1.jpg,1280,1280\n", "1280"),
    "a quoted comma": ("a.csv", 'file,text,x1\n1.jpg,"1280",3\n', "1280"),
    "a column too many": ("a.csv", "file,text,x1\n1.jpg,7,3,1280\n", "1280"),
    "no header": ("a.csv", "1.jpg,az,1280\n", "1280"),
    "a text in a line": ("a.txt", "1.jpg 1280\n", "1280"),
    "a text by itself": ("a.txt", "1280\n", "1280"),
    "two numbers": ("a.txt", "0001 1280\n", "1280"),
    "a text before numbers": ("a.txt", "1280 10 20 30 40 1 2 3 4 5 6 7 8\n", "1280"),
    "OpenALPR": ("a.txt", "1.jpg\t1\t3\t4\t5\t1280\n", "1280"),
    "UFPR": ("a.txt", "plate: 1280\ncorners: 1280,2 3,4\n", "1280"),
    "PaddleOCR": ("a.txt", '1.jpg\t[{"transcription": "1280", "points": [[1280, 2]]}]\n', "1280"),
    "another kind of file": ("a.bin", '{"width": 1280}', "1280"),
}


@pytest.mark.parametrize("kind", OF_THE_FORMAT)
def test_numbers_and_words_of_a_format_are_no_leak(tmp_path, kind):
    name, content, texts = OF_THE_FORMAT[kind]
    (tmp_path / name).write_text(content, encoding="utf8", newline="")
    for text in texts:
        found = scan(tmp_path, [text])
        assert found.literals and not found.hits, text


@pytest.mark.parametrize("kind", LEAKS)
def test_a_leak_is_found_whatever_stands_beside_it(tmp_path, kind):
    name, content, text = LEAKS[kind]
    (tmp_path / name).write_text(content, encoding="utf8")
    (hit,) = scan(tmp_path, [text]).hits
    assert content.encode()[hit.offset :].startswith(text.encode())


@pytest.mark.parametrize("name", ["images/1280.jpg", "1280/a.json", "IMAGES.txt"])
def test_names_are_no_literals(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    assert [hit.where for hit in scan(tmp_path, ["1280", "IMAGES"]).hits] == ["name"] * (1 + ("images/" in name))


def coco(root, text: str):
    """A frame whose annotation file holds the text as a number and in a key, and as a plate."""
    frames(root / "images", {"a": [text], "b": ["XYZ7777"]}, size=(1280, 100))
    for note in (root / "images").glob("*.txt"):
        note.unlink()
    data = {
        "images": [
            {"id": n, "file_name": f"images/{name}.png", "width": 1280, "height": 100} for n, name in enumerate("ab")
        ],
        "categories": [{"id": 1, "name": "plate"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [8, 10, 60, 30], "attributes": {"text": label}}
            for n, label in enumerate([text, "XYZ7777"])
        ],
    }  # fmt: skip
    (root / "annotations.json").write_text(json.dumps(data))
    return root


@pytest.mark.parametrize("text", ["1280", "CATEGORIES", "IMAGES", "ATTRIBUTES", "WIDTH"])
def test_a_dataset_with_such_a_plate_is_finished_and_verified(tmp_path, text):
    corpus, out = coco(tmp_path / "in", text), tmp_path / f"out of {text}"
    audit = anonymized(corpus, out)["source_texts"]
    assert audit["found"] == 0 < audit["found_in_numbers_and_keys"] and not (out / UNFINISHED).exists()
    assert verify_against(out, corpus).faults == []


def test_the_same_text_in_a_label_is_found_by_both(tmp_path):
    corpus, out = coco(tmp_path / "in", "1280"), tmp_path / "out"
    anonymized(corpus, out)
    note = out / "annotations.json"
    data = json.loads(note.read_text())
    data["annotations"][1]["attributes"]["text"] = 1280
    note.write_text(json.dumps(data))
    assert any(f.startswith("annotations.json: spells 1280") for f in verify_against(out, corpus).faults)
