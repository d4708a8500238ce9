"""One door: a small rendered dataset in every format, and every verb that reads on each. `-s` prints the table."""

import json
import sys
from functools import cache
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stand_ins import Agrees, Fills, Lucky, edit, recipe, tar

from platemint.pipeline import run, storage
from platemint.pipeline.anonymize import anonymizer
from platemint.pipeline.anonymize.compare import verify_against
from platemint.pipeline.anonymize.run import anonymize
from platemint.pipeline.balance.forbidden import forbidden_texts
from platemint.pipeline.balance.grammar import read_grammar
from platemint.pipeline.corpora import FORMATS, filenames, pixels, read_corpus
from platemint.pipeline.corpora.formats import ccpd
from platemint.pipeline.corpora.formats.parquet import NO_COMMIT
from platemint.pipeline.corpora.pixels import read_plate, read_plates
from platemint.pipeline.evaluate.edits import Edits
from platemint.pipeline.plate import READABLE, PlatemintError
from platemint.pipeline.rebalance import propose
from platemint.pipeline.recipe import AnonymizeRecipe, load_recipe
from platemint.pipeline.render import load_layouts, random_text, render_plate
from platemint.pipeline.report.inspect import inspect
from platemint.pipeline.sample import open_sources
from platemint.pipeline.shard import Stages
from platemint.pipeline.storage import sha256
from platemint.pipeline.train.crops import learnable_crops
from platemint.pipeline.verify import verify

COUNT = 21  # one more than training needs
FEW = 3  # for what rewrites, which takes longer
X, Y, W, H = 60, 50, 120, 36  # of the plate in a frame
CORNERS = [(X, Y), (X + W, Y), (X + W, Y + H), (X, Y + H)]
FRAME = (240, 160)


def plates():
    """(text, pixels) of rendered plates; the texts are such as a CCPD name can hold."""
    return rendered()[:COUNT]


@cache
def rendered():
    layout, rng = load_layouts(["cn-blue"])["cn-blue"], np.random.default_rng(3)
    texts = {}
    while len(texts) < 21:
        text = random_text(layout.positions, rng)
        if filenames.may_be_text(text):
            texts.setdefault(text, render_plate(layout, text, rng, 0.2).image)
    return list(texts.items())


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def frame(number):
    """A frame with one plate, soft noise around it."""
    few = np.random.default_rng(number).integers(60, 190, (10, 15, 3), np.uint8)
    image = cv2.resize(few, FRAME, interpolation=cv2.INTER_CUBIC)
    image[Y : Y + H, X : X + W] = cv2.resize(plates()[number][1], (W, H), interpolation=cv2.INTER_AREA)
    return image


# ------------------------------------------------------------------------------------------------------------- formats


def crops(folder, name="{:03}.png"):
    """Writes the crops; (name, text) of each."""
    named = [(name.format(n), text) for n, (text, _) in enumerate(plates())]
    for (file, _), (_, image) in zip(named, plates()):
        put(folder / file, png(image))
    return named


def framed(folder, suffix=".png"):
    """Writes the frames; (stem, text) of each."""
    for n in range(COUNT):
        put(folder / f"{n:03}{suffix}", png(frame(n)))
    return [(f"{n:03}", text) for n, (text, _) in enumerate(plates())]


def table_csv(root):
    put(root / "labels.csv", "path,text\n" + "".join(f"{n},{t}\n" for n, t in crops(root)))


def table_jsonl(root):
    put(root / "labels.jsonl", "".join(json.dumps({"path": n, "text": t}) + "\n" for n, t in crops(root)))


def gt_txt(root):
    put(root / "gt.txt", "".join(f"{n}\t{t}\n" for n, t in crops(root)))


def spg(root):
    named = crops(root / "i_s")
    put(root / "gt2.txt", "".join(f"{n} {t}\n" for n, t in named))
    put(root / "gt.txt", "".join(f"{n} {t[:2]}00000\n" for n, t in named))


def paddle(root):
    put(root / "rec" / "rec_gt_train.txt", "".join(f"train/{n}\t{t}\n" for n, t in crops(root / "rec" / "train")))


def named(root):
    for text, image in plates():
        put(root / f"{text}_a.png", png(image))


def fast_plate_ocr(root):
    rows = "".join(f"images/{n},{t}\n" for n, t in crops(root / "train" / "images"))
    put(root / "train" / "annotations.csv", "image_path,plate_text\n" + rows)


def imagefolder(root):
    rows = (json.dumps({"file_name": f"images/{n}", "text": t}) + "\n" for n, t in crops(root / "train" / "images"))
    put(root / "train" / "metadata.jsonl", "".join(rows))


def boxes_csv(root):
    rows = "".join(f"{stem}.png,{t},{X},{Y},{X + W},{Y + H}\n" for stem, t in framed(root))
    put(root / "a.csv", "path,text,xmin,ymin,xmax,ymax\n" + rows)


def corners_csv(root):
    corners = ",".join(f"{x},{y}" for x, y in CORNERS)
    rows = "".join(f"{stem}.png,{t},{corners}\n" for stem, t in framed(root))
    put(root / "a.csv", "file,text,x1,y1,x2,y2,x3,y3,x4,y4\n" + rows)


def openalpr(root):
    for stem, text in framed(root):
        put(root / f"{stem}.txt", f"{stem}.png\t{X}\t{Y}\t{W}\t{H}\t{text}\n")


def ufpr(root):
    corners = " ".join(f"{x},{y}" for x, y in CORNERS)
    for stem, text in framed(root / "training" / "track0001"):
        put(root / "training" / "track0001" / f"{stem}.txt", f"type: car\nplate: {text}\ncorners: {corners}\n")


def rodosol(root):
    corners = " ".join(f"{x},{y}" for x, y in CORNERS)
    for stem, text in framed(root / "cars"):
        put(root / "cars" / f"{stem}.txt", f"type: car\nplate: {text}\nlayout: Brazilian\ncorners: {corners}")


def aolp(root):
    for stem, text in framed(root / "Subset_AC" / "Image"):
        put(root / "Subset_AC/groundtruth_localization" / f"{stem}.txt", f"{X}\n{Y}\n{X + W}\n{Y + H}\n")
        put(root / "Subset_AC/groundtruth_recognition" / f"{stem}.txt", "\n".join(text) + "\n")


def yolo(root):
    box = ((X + W / 2) / FRAME[0], (Y + H / 2) / FRAME[1], W / FRAME[0], H / FRAME[1])
    for stem, _ in framed(root / "images"):
        put(root / "labels" / f"{stem}.txt", f"0 {' '.join(f'{v:.6f}' for v in box)}\n")


def coco(root):
    images, annotations = [], []
    for n, (stem, text) in enumerate(framed(root / "images"), 1):
        images.append({"id": n, "file_name": f"images/{stem}.png", "width": FRAME[0], "height": FRAME[1]})
        told = {"id": n, "image_id": n, "category_id": 1, "bbox": [X, Y, W, H], "attributes": {"text": text}}
        annotations.append(told)
    held = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "license plate"}]}
    put(root / "annotations.json", json.dumps(held))


def voc(root):
    box = f"<xmin>{X + 1}</xmin><ymin>{Y + 1}</ymin><xmax>{X + W + 1}</xmax><ymax>{Y + H + 1}</ymax>"
    for stem, text in framed(root / "JPEGImages"):
        put(
            root / "Annotations" / f"{stem}.xml",
            f"<annotation><filename>{stem}.png</filename><object><name>license-plate</name><attributes><attribute>"
            f"<name>plate</name><value>{text}</value></attribute></attributes><bndbox>{box}</bndbox></object></annotation>",
        )


def corner_lines(root):
    for stem, text in framed(root):
        xs, ys = ([f"{v / side:.6f}" for v in values] for values, side in zip(zip(*CORNERS), FRAME))
        put(root / f"{stem}.txt", f"4,{','.join(xs)},{','.join(ys)},{text},\n")


def lp2024(root):
    corners = " ".join(f"{x} {y}" for x, y in CORNERS)
    for stem, text in framed(root / "images"):
        put(root / "labels" / f"{stem}.txt", f"{text} {corners}\n")


def yolo_characters(root):
    """A box of the plate, and one of each character in it."""
    names = ["plate", *READABLE]
    put(root / "data.yaml", "names: " + json.dumps(names, ensure_ascii=False) + "\n")
    for stem, text in framed(root / "images"):
        wide = W / len(text)
        boxes = [(0, X + W / 2, W, H)]
        boxes += [(names.index(c), X + (n + 0.5) * wide, 0.8 * wide, 0.7 * H) for n, c in enumerate(text)]
        lines = (
            f"{kind} {x / FRAME[0]:.6f} {(Y + H / 2) / FRAME[1]:.6f} {w / FRAME[0]:.6f} {h / FRAME[1]:.6f}\n"
            for kind, x, w, h in boxes
        )
        put(root / "labels" / f"{stem}.txt", "".join(lines))


def cvat(root):
    box = f'label="plate" xtl="{X}" ytl="{Y}" xbr="{X + W}" ybr="{Y + H}"'
    images = (
        f'<image id="{n}" name="{stem}.png" width="{FRAME[0]}" height="{FRAME[1]}"><box {box}>'
        f'<attribute name="text">{text}</attribute></box></image>\n'
        for n, (stem, text) in enumerate(framed(root / "images"))
    )
    put(root / "annotations.xml", f"<annotations><version>1.1</version>\n{''.join(images)}</annotations>\n")


def label_studio(root):
    tasks = []
    size = {"original_width": FRAME[0], "original_height": FRAME[1]}
    place = {
        "x": 100 * X / FRAME[0],
        "y": 100 * Y / FRAME[1],
        "width": 100 * W / FRAME[0],
        "height": 100 * H / FRAME[1],
    }
    region = size | {
        "id": "r",
        "type": "rectanglelabels",
        "value": place | {"rotation": 0, "rectanglelabels": ["plate"]},
    }
    for stem, text in framed(root / "images"):
        told = {"id": "r", "type": "textarea", "from_name": "text", "value": {"text": [text]}}
        tasks.append({"data": {"image": f"images/{stem}.png"}, "annotations": [{"result": [region, told]}]})
    put(root / "tasks.json", json.dumps(tasks))


def ppocrlabel(root):
    lines = (
        f"a/{stem}.png\t" + json.dumps([{"transcription": text, "points": CORNERS, "difficult": False}]) + "\n"
        for stem, text in framed(root / "a")
    )
    put(root / "a" / "Label.txt", "".join(lines))


def ccpd_names(root):
    x1, y1, x2, y2 = X, Y, X + W, Y + H
    for n, (text, _) in enumerate(plates()):
        place = f"{x1}&{y1}_{x2}&{y2}-{x2}&{y2}_{x1}&{y2}_{x1}&{y1}_{x2}&{y1}"
        put(root / "ccpd_base" / f"{n:03}-90_90-{place}-{ccpd.encoded(text, '')}-37-15.png", png(frame(n)))


def parquet(root, texts=None):
    pictures = [{"bytes": png(image), "path": f"{n:03}.png"} for n, (_, image) in enumerate(plates())]
    held = pa.table({"image": pictures, "label": texts or [text for text, _ in plates()]})
    (root / "data").mkdir(parents=True)
    pq.write_table(held, root / "data" / "train-00000-of-00001.parquet", row_group_size=5)


def our_run(root):
    """What `rebalance --merge` wrote: the corpus's own plates among edited ones."""
    before = root.with_name(f"{root.name}-before")
    table_csv(before)
    source = {"path": str(before)}
    made = recipe(root, 4, source=source, write={"shard_rows": 8, "real": True}, filter=ALL_PASS)
    assert run.generate(made, stages=FromCorpus(made)).accepted == 4


def lmdb_folder(root, texts=None):
    root.mkdir(parents=True)
    with lmdb.open(str(root), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        texts = texts or [text for text, _ in plates()]
        transaction.put(b"num-samples", str(len(texts)).encode())
        for n, text in enumerate(texts, 1):
            transaction.put(b"image-%09d" % n, png(plates()[n - 1][1]))
            transaction.put(b"label-%09d" % n, text.encode())


def webdataset(root, texts=None):
    files = {}
    for n, (text, image) in enumerate(plates()):
        files |= {f"{n:06}.png": png(image), f"{n:06}.txt": (texts[n] if texts else text).encode()}
    tar(root / "train-000000.tar", files)


def webdataset_json(root):
    files = {}
    for n, (text, image) in enumerate(plates()):
        files |= {f"a/{n:06}.json": json.dumps({"text": text}).encode(), f"a/{n:06}.png": png(image)}
    tar(root / "train-000000.tar", files)


def mds(root):
    samples = []
    for text, image in plates():
        parts = [png(image), text.encode()]
        samples.append(np.array([*map(len, parts)], "<u4").tobytes() + b"".join(parts))
    facts = {"column_names": ["image", "text"], "column_encodings": ["bytes", "str"], "column_sizes": [None, None]}
    facts |= {"version": 2, "format": "mds", "compression": None, "hashes": [], "size_limit": 1 << 26}
    head = json.dumps(facts).encode()
    starts = 4 + 4 * (len(samples) + 1) + len(head) + np.cumsum([0, *map(len, samples)])
    data = np.array([len(samples), *starts], "<u4").tobytes() + head + b"".join(samples)
    (root / "train").mkdir(parents=True)
    (root / "train" / "shard.00000.mds").write_bytes(data)
    held = {"raw_data": {"basename": "shard.00000.mds", "bytes": len(data), "hashes": {}}, "zip_data": None}
    index = {"version": 2, "shards": [facts | held | {"samples": len(samples)}]}
    (root / "train" / "index.json").write_text(json.dumps(index))


# Name: (format, what writes it)
WRITERS = {
    "csv": ("table", table_csv),
    "jsonl": ("table", table_jsonl),
    "fast-plate-ocr": ("table", fast_plate_ocr),
    "imagefolder": ("table", imagefolder),
    "gt.txt": ("gt", gt_txt),
    "gt.txt of the SPG": ("gt", spg),
    "PaddleOCR": ("gt", paddle),
    "names": ("names", named),
    "boxes in a csv": ("table", boxes_csv),
    "corners in a csv": ("table", corners_csv),
    "OpenALPR": ("openalpr", openalpr),
    "UFPR-ALPR": ("ufpr", ufpr),
    "RodoSol-ALPR": ("ufpr", rodosol),
    "AOLP": ("aolp", aolp),
    "YOLO boxes": ("yolo", yolo),
    "COCO": ("coco", coco),
    "Pascal VOC": ("voc", voc),
    "corner lines": ("corner_lines", corner_lines),
    "LP-2024": ("lp2024", lp2024),
    "YOLO characters": ("yolo_characters", yolo_characters),
    "CVAT": ("cvat", cvat),
    "Label Studio": ("label_studio", label_studio),
    "PPOCRLabel": ("ppocrlabel", ppocrlabel),
    "CCPD": ("ccpd", ccpd_names),
    "Parquet": ("parquet", parquet),
    "our own run": ("parquet", our_run),
    "LMDB": ("lmdb", lmdb_folder),
    "WebDataset": ("webdataset", webdataset),
    "WebDataset, json": ("webdataset", webdataset_json),
    "MDS": ("mds", mds),
}
WITHOUT_TEXT = ["YOLO boxes"]  # nothing to read there, but plates to replace


# --------------------------------------------------------------------------------------------------------------- verbs


ALL_PASS = {"rounds": 30, "min_reader": 0.0}  # a picture's bytes, and so its luck, are not the same on every machine


class FromCorpus(Lucky):
    """Real sources, stand-in networks."""

    sources = Stages.__dict__["sources"]


def generated(path, out, untrained):
    made = recipe(out, 6, source={"path": str(path)}, filter=ALL_PASS)
    stages = FromCorpus(made)
    used = {photo.source for photos in stages.sources.photos for photo in photos}
    assert run.generate(made, stages=stages).accepted == 6
    rows = [row for file in sorted((out / "data").glob("*")) for row in pq.read_table(file).to_pylist()]
    assert {row["source"] for row in rows} <= used and not {row["text"] for row in rows} & stages.sources.texts


def rebalanced(path, out, untrained):
    made = recipe(out, 4, source={"path": str(path)}, balance={"top_up": True}, write={"real": True}, filter=ALL_PASS)
    stages = FromCorpus(made)
    assert propose(stages, 4).count == 4
    result = run.generate(made, stages=stages)
    assert (result.accepted, result.real) == (4, len(read_corpus(path).labels))
    again = read_corpus(out)
    assert len(again.labels) == 4 + result.real and not again.set_aside
    assert {label.text for label in again.labels} > {label.text for label in read_corpus(path).labels}


def inspected(path, out, untrained):
    assert inspect(path)["plates"] >= COUNT


def grammar(path, out, untrained):
    assert sum(form.share for form in read_grammar(str(path)).forms) == pytest.approx(1)


def trained(path, out, untrained):
    said = []
    assert len(learnable_crops(str(path), say=said.append)) >= COUNT and "read as" in said[0]


def evaluated(path, out, untrained):
    [judged] = Edits(untrained, path, count=2).corpus()
    assert len(judged) == 2


def forbidding(path, out, untrained):
    assert forbidden_texts(str(path)) >= {text for text, _ in plates()}


def anonymized(path, out, untrained):
    audit = anonymize(AnonymizeRecipe(source={"path": str(path)}, out=str(out)))
    count = FEW if read_corpus(path).format != "parquet" else len(read_corpus(path).labels)  # a run has drawn more
    assert audit["pictures"]["written"] == audit["plates"]["annotated"] == count


def verified(path, out, untrained):
    assert verify_against(out.parent / "anonymize", path).faults == []


VERBS = {
    "generate": generated,
    "rebalance": rebalanced,
    "inspect": inspected,
    "grammar": grammar,
    "train": trained,
    "evaluate": evaluated,
    "forbid": forbidding,
    "anonymize": anonymized,
    "verify": verified,
}
REWRITING = ("anonymize", "verify")


def painted(plates):
    """Plates painted over as a whole, with the target across them."""
    for plate in edit(plates):
        plate.image = np.where(plate.target_mask[..., None] > 0, np.uint8([[[0, 0, 0]]]), np.uint8(150))
        plate.source_mask = np.full_like(plate.target_mask, 255)
    return plates


@pytest.fixture
def networks(monkeypatch):
    """In place of anonymize's networks: texts are written across plates, and whatever is read is right."""
    monkeypatch.setattr(anonymizer, "Editor", lambda options, private: painted)
    monkeypatch.setattr(anonymizer, "Filter", Agrees)
    monkeypatch.setattr(anonymizer, "TextFinder", Fills)


def works(verb, path, out, untrained):
    """Whether a verb takes a dataset; whatever else goes wrong is a fault."""
    try:
        VERBS[verb](path, out / verb, untrained)
    except PlatemintError as refused:
        assert str(path) in str(refused) or verb in REWRITING, refused
        return False
    return True


@pytest.mark.parametrize("name", WRITERS)
def test_every_verb_takes_every_format(name, tmp_path, untrained, networks, monkeypatch):
    format, write = WRITERS[name]
    path = tmp_path / "dataset"
    write(path)
    corpus = read_corpus(path)
    assert corpus.format == format and read_corpus(path, format=format).labels == corpus.labels
    few = tmp_path / "few"
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], "COUNT", FEW)
        write(few)
    row = {verb: works(verb, few if verb in REWRITING else path, tmp_path, untrained) for verb in VERBS}
    print(f"\n{name:18}", " ".join(f"{verb if taken else '-':10}" for verb, taken in row.items()))
    assert row == {verb: verb in REWRITING or name not in WITHOUT_TEXT for verb in VERBS}
    assert name in WITHOUT_TEXT or read_corpus(tmp_path / "anonymize").format == format


def test_every_format_is_tried():
    assert {format for format, _ in WRITERS.values()} == {*FORMATS}


# ---------------------------------------------------------------------------------------------------------- containers

AWKWARD = ["NULL", "NA", "00123", "1E5", "TRUE", "nan1", "京A12345"]


@pytest.mark.parametrize("write", [parquet, lmdb_folder, webdataset, mds])
def test_a_picture_in_a_container_is_the_one_it_would_be_as_a_file(write, tmp_path):
    write(tmp_path / "held")
    table_csv(tmp_path / "files")
    held, files = (read_corpus(tmp_path / name).labels for name in ("held", "files"))
    for a, b in zip(held, files, strict=True):
        assert (a.text == b.text and a.split == b.split == "train" and a.name.startswith(f"{a.path.name}/")) or a.member
        (pixels_a, source_a), (pixels_b, source_b) = read_plate(a), read_plate(b)
        assert np.array_equal(pixels_a, pixels_b)
        assert source_a == source_b == sha256(b.path.read_bytes())[:16]


@pytest.mark.parametrize("write", [parquet, lmdb_folder, webdataset])
def test_texts_of_containers_stay_texts(write, tmp_path):
    texts = AWKWARD + ["", "UNREADABLE"] + [f"AB{n}" for n in range(COUNT - len(AWKWARD) - 2)]
    write(tmp_path / "held", texts)
    corpus = read_corpus(tmp_path / "held")
    assert [label.text for label in corpus.labels][: len(AWKWARD)] == [text.upper() for text in AWKWARD]
    assert [item["reason"] for item in corpus.set_aside] == [
        "no label", "the label says that the plate is unreadable",
    ]  # fmt: skip
    member = {"parquet": "7", "lmdb_folder": "image-000000008", "webdataset": "000007.png"}[write.__name__]
    assert corpus.set_aside[0]["path"].endswith(f"/{member}"), "counted as the format counts"


def test_damaged_containers_are_named(tmp_path):
    for name, said in (("a.parquet", "not a whole Parquet"), ("data.mdb", "not an LMDB"), ("a.tar", "not a whole tar")):
        put(tmp_path / name, b"x" * 5000)
        with pytest.raises(PlatemintError, match=f"{name}: {said}"):
            read_corpus(tmp_path / name)
    pq.write_table(pa.table({"image": [b"x"], "caption_of": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(PlatemintError, match="a.parquet: needs a column .* it has: image, caption_of"):
        read_corpus(tmp_path / "a.parquet")
    places = {"image": [b"x"], "text": ["AB1"], "bbox": [[1, 2, 3, 4]]}
    pq.write_table(pa.table(places), tmp_path / "a.parquet")
    with pytest.raises(PlatemintError, match="a.parquet: bbox: looks like a plate's place"):
        read_corpus(tmp_path / "a.parquet")


def test_paths_in_parquet_count_from_its_folder(tmp_path):
    named = crops(tmp_path / "images")
    rows = {"file_name": [f"images/{n}" for n, _ in named], "text": [t for _, t in named]}
    pq.write_table(pa.table(rows), tmp_path / "metadata.parquet")
    pictures = [{"bytes": None, "path": f"images/{n}"} for n, _ in named]
    pq.write_table(pa.table({"image": pictures, "text": rows["text"]}), tmp_path / "other.parquet")
    for file in ("metadata.parquet", "other.parquet"):
        labels = read_corpus(tmp_path / file).labels
        assert [sha256(read_plate(label)[0].tobytes()) for label in labels] == [
            sha256(image.tobytes()) for _, image in plates()
        ]


def test_of_an_interrupted_run_what_is_committed_counts(tmp_path):
    our_run(tmp_path / "run")
    whole = read_corpus(tmp_path / "run")
    first, *_ = sorted((tmp_path / "run" / "commits").glob("*.json"))
    lost = json.loads(first.read_text())["files"][0]
    first.unlink()
    left = read_corpus(tmp_path / "run")
    assert left.set_aside == [{"path": lost["path"], "row": "", "reason": NO_COMMIT}]
    assert len(left.labels) == len(whole.labels) - lost["rows"] > 0


# -------------------------------------------------------------------------------------------------------------- frames


def test_a_plate_with_corners_is_seen_level(tmp_path):
    text, image = plates()[0]
    image = cv2.resize(image, (160, 48), interpolation=cv2.INTER_AREA)
    corners = np.float32([[80, 60], [230, 100], [222, 150], [76, 108]])
    matrix = cv2.getPerspectiveTransform(np.float32([[0, 0], [160, 0], [160, 48], [0, 48]]), corners)
    scene = np.full((240, 320, 3), 120, np.uint8)
    cv2.warpPerspective(image, matrix, (320, 240), dst=scene, borderMode=cv2.BORDER_TRANSPARENT)
    put(tmp_path / "1.png", png(scene))
    row = {"path": "1.png", "text": text, "corners": corners.tolist()}
    put(tmp_path / "a.jsonl", json.dumps(row) + "\n")
    [label] = read_corpus(tmp_path).labels
    level, _ = read_plate(label)
    edge = round(0.06 / 1.12 * level.shape[0])  # what is around the plate
    seen = cv2.resize(level[edge:-edge, edge:-edge], (160, 48), interpolation=cv2.INTER_AREA)
    as_it_lies = cv2.resize(scene[60:150, 76:230], (160, 48), interpolation=cv2.INTER_AREA)
    alike = [np.corrcoef(a.ravel(), image.ravel())[0, 1] for a in (seen, as_it_lies)]
    assert alike[0] > 0.9 > alike[1] + 0.2


def several(root, boxes):
    """A frame of more pixels than a crop may have, with plates."""
    scene = np.full((2100, 2100, 3), 90, np.uint8)
    for n, (x, y, w, h) in enumerate(boxes):
        scene[y : y + h, x : x + w] = cv2.resize(plates()[n][1], (w, h))
    put(root / "1.png", png(scene))
    lines = (f"1.png\t{x}\t{y}\t{w}\t{h}\t{plates()[n][0]}\n" for n, (x, y, w, h) in enumerate(boxes))
    put(root / "1.txt", "".join(lines))
    return root


def test_the_plates_of_a_frame_are_sources_of_their_own_and_it_is_decoded_once(tmp_path, monkeypatch):
    boxes = [(100, 100, 150, 44), (900, 400, 200, 60), (30, 2000, 120, 40), (1500, 1500, 60, 7)]
    corpus = read_corpus(several(tmp_path, boxes))
    decoded, decode = [], pixels.decode
    monkeypatch.setattr(pixels, "decode", lambda *args: decoded.append(1) or decode(*args))
    *read, small = read_plates(corpus.labels)
    assert len(decoded) == 1 and str(small) == "60 x 7 pixels are too few to show a plate"
    digest = sha256((tmp_path / "1.png").read_bytes())[:16]
    sources = {source for _, source in read}
    assert len(sources) == 3 and digest not in sources
    for label, (image, source) in zip(corpus.labels, read):
        again, same = read_plate(label)
        assert np.array_equal(image, again) and source == same
        assert 1 <= image.shape[0] / (label.corners[2][1] - label.corners[0][1]) < 1.4
    assert len(decoded) == 2
    sources = open_sources(load_recipe(None, overrides={"source.path": str(tmp_path)}))
    assert {p.source for photos in sources.photos for p in photos} == {source for _, source in read}
    assert sources.texts == {text for text, _ in plates()[:4]}
    assert [(item["path"], item["row"]) for item in sources.set_aside] == [("1.png", "4")]


def test_a_run_with_real_plates_cut_out_of_frames_is_verified(tmp_path):
    openalpr(tmp_path / "in")
    put(tmp_path / "in" / "000.txt", f"000.png\t{X}\t{Y}\t{W}\t{H}\t粤OA9112\n")  # no new Chinese plate gets an O
    made = recipe(tmp_path / "out", 4, source={"path": str(tmp_path / "in")}, write={"real": True})
    assert run.generate(made, stages=FromCorpus(made)).real == COUNT
    real = pq.read_table(tmp_path / "out" / "data" / "train-real-00000-of-00001.parquet").to_pylist()
    assert all(storage.decode(row["image"]["bytes"]).shape[0] < FRAME[1] / 2 for row in real), "no whole frame"
    cut = {source: image for image, source in map(read_plate, read_corpus(tmp_path / "in").labels)}
    assert all(np.array_equal(storage.decode(row["image"]["bytes"]), cut[row["source"]]) for row in real)
    assert verify(tmp_path / "out").faults == []


def test_texts_of_frames_that_are_set_aside_are_never_drawn(tmp_path):
    openalpr(tmp_path)
    put(tmp_path / "000.txt", f"000.png\t{X}\t{Y}\t{W}\t{9 * H}\t{plates()[0][0]}\n")
    corpus = read_corpus(tmp_path)
    assert len(corpus.labels) == COUNT - 1 and plates()[0][0] in corpus.texts
    assert "reaches out of the picture" in corpus.set_aside[0]["reason"]


def test_lists_of_pictures_that_are_not_here_are_no_faulty_records(tmp_path):
    openalpr(tmp_path)
    listed = [f"{n:03}.png" for n in range(COUNT)] + [f"away-{n}.png" for n in range(COUNT - 1)]
    put(tmp_path / "train.txt", "\n".join(listed) + "\n")
    corpus = read_corpus(tmp_path)
    assert len(corpus.labels) == COUNT
    assert [item["reason"] for item in corpus.set_aside] == [f"{COUNT - 1} lines name no picture of the dataset"]


# -------------------------------------------------------------------------------------------- what is refused, and said


def test_a_run_stops_before_any_network_where_too_much_is_set_aside(tmp_path):
    rows = [f"{n},{t}\n" for n, t in crops(tmp_path)]
    rows += [f"away{n}.png,AB{n}\n" for n in range(COUNT)] + ["000.png,UNREADABLE\n"] * 3 + ["000.png,\n"] * 2
    put(tmp_path / "labels.csv", "path,text\n" + "".join(rows))
    with pytest.raises(PlatemintError) as refused:
        run.generate(recipe(tmp_path / "out", source={"path": str(tmp_path)}))  # with networks, had it come to them
    said = str(refused.value)
    assert "26 of 47 records cannot be used, more than 50 % (source.max_set_aside)" in said
    assert "21 times: no such file (the first: away0.png, line 23); 3 times: the label says" in said
    assert "2 times: no label (the first: 000.png, line 47)" in said
    loose = {"source.path": str(tmp_path), "source.max_set_aside": 0.6}
    assert sum(g.sources for g in open_sources(load_recipe(None, overrides=loose)).groups) == COUNT


def test_two_formats_that_fit_are_named_and_one_can_be_chosen(tmp_path):
    openalpr(tmp_path)
    webdataset(tmp_path)
    with pytest.raises(
        PlatemintError,
        match=r"\(webdataset, openalpr\): webdataset by 1 file such as .*, openalpr by 21 annotation files",
    ):
        read_corpus(tmp_path)
    assert read_corpus(tmp_path, format="webdataset").labels[0].member
    assert read_corpus(tmp_path, format="openalpr").labels[0].corners
    with pytest.raises(PlatemintError, match="format: there is no png; choose auto or one of table, "):
        read_corpus(tmp_path, format="png")
    with pytest.raises(PlatemintError, match="format: no .mdb file here"):
        read_corpus(tmp_path, format="lmdb")


def test_a_file_of_annotations_can_be_given_by_itself(tmp_path):
    coco(tmp_path)
    boxes_csv(tmp_path / "b")
    for path in (tmp_path / "annotations.json", tmp_path / "b" / "a.csv"):
        corpus = read_corpus(path)
        assert len(corpus.labels) == COUNT and all(label.corners for label in corpus.labels)
    with pytest.raises(PlatemintError, match="several formats"):
        read_corpus(tmp_path)
    assert Path(read_corpus(tmp_path / "annotations.json").labels[0].path) == tmp_path / "images" / "000.png"
