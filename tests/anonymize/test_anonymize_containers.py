"""anonymize on files that hold many pictures: what goes out, what stays behind, kills, and leaks that the search finds."""

import io
import json
import tarfile
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stand_ins import Stamps, anonymized, killed_after_two, stamp, stamped, tar

from platemint.pipeline.anonymize import plan as plans
from platemint.pipeline.anonymize.compare import verify_against
from platemint.pipeline.anonymize.search import scan
from platemint.pipeline.anonymize.unfinished import UNFINISHED, Unfinished
from platemint.pipeline.corpora import read_corpus
from platemint.pipeline.corpora.datasets import open_any
from platemint.pipeline.corpora.formats import lmdb as lmdb_format
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.storage import decode

HERE = Path(__file__).parents[1]
TEXTS = [f"ABC{1000 + n}" for n in range(12)]
FILES = {
    "parquet": "data/train-0.parquet",
    "lmdb": "data.mdb",
    "webdataset": "train-0.tar",
    "mds": "train/shard.00000.mds",
}


def crop(text: str, seed: int = 0) -> bytes:
    image = np.random.default_rng([len(text), seed]).integers(0, 256, (30, 64, 3), np.uint8)
    image[..., 2] |= 128  # no stamp by chance
    stamp(image, text, 12, 9)
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def read(png: bytes) -> str:
    return stamped(decode(png))


def write_parquet(path: Path, pictures: list[bytes], texts: list[str | None], columns: dict | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    held = [{"bytes": data, "path": f"/home/me/{text}.png"} for data, text in zip(pictures, texts)]
    pq.write_table(pa.table({"image": held, "text": texts} | (columns or {})), path, row_group_size=5)


def write_lmdb(
    path: Path, pictures: list[bytes], texts: list[str | None], more: dict[bytes, bytes] | None = None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 24) as held,
        held.begin(write=True) as transaction,
    ):
        for n, (data, text) in enumerate(zip(pictures, texts), 1):
            transaction.put(b"image-%09d" % n, data)
            if text is not None:
                transaction.put(b"label-%09d" % n, text.encode())
        for key, value in ({b"num-samples": b"%d" % len(texts)} | (more or {})).items():
            transaction.put(key, value)


def write_tar(path: Path, pictures: list[bytes], texts: list[str | None]) -> None:
    files = {}
    for n, (data, text) in enumerate(zip(pictures, texts)):
        files[f"{n:06}.png"] = data
        if text is not None:
            files[f"{n:06}.txt"] = text.encode()
    tar(path, files)


def write_mds(
    path: Path,
    pictures: list[bytes],
    texts: list[str | None],
    columns: dict[str, tuple[str, list[bytes]]] | None = None,
) -> None:
    """As MDSWriter of mosaicml-streaming does it. columns: others, each with its encoding, int64 with a size of its own."""
    held = {"image": ("png", pictures), "text": ("str", [(text or "").encode() for text in texts])} | (columns or {})
    held = dict(sorted(held.items()))
    sizes = [8 if encoding == "int64" else None for encoding, _ in held.values()]
    facts = {"version": 2, "format": "mds", "compression": None, "hashes": ["sha1"], "size_limit": 1 << 26,
             "column_names": [*held], "column_encodings": [e for e, _ in held.values()], "column_sizes": sizes}  # fmt: skip
    head, samples = json.dumps(facts, sort_keys=True).encode(), []
    for values in zip(*(values for _, values in held.values())):
        lengths = [len(value) for value, size in zip(values, sizes) if size is None]
        samples.append(np.array(lengths, np.uint32).tobytes() + b"".join(values))
    offsets = np.cumsum([4 + 4 * (len(samples) + 1) + len(head), *map(len, samples)]).astype(np.uint32)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.array(len(samples), np.uint32).tobytes() + offsets.tobytes() + head + b"".join(samples))
    raw = {"basename": path.name, "bytes": path.stat().st_size, "hashes": {"sha1": "0"}}
    shard = facts | {"samples": len(samples), "raw_data": raw, "zip_data": None}
    (path.parent / "index.json").write_text(json.dumps({"version": 2, "shards": [shard]}))


def mds_samples(root: Path) -> list[dict[str, bytes]]:
    """As MDSReader does it: an index says where, and of which columns."""
    found = []
    for shard in json.loads((root / "train/index.json").read_text())["shards"]:
        data = (root / "train" / shard["raw_data"]["basename"]).read_bytes()
        assert len(data) == shard["raw_data"]["bytes"] and shard["zip_data"] is None and shard["compression"] is None
        for n in range(shard["samples"]):
            start, end = np.frombuffer(data, np.uint32, 2, 4 + 4 * n).tolist()
            lengths = iter(np.frombuffer(data, np.uint32, shard["column_sizes"].count(None), start).tolist())
            at, values = start + 4 * shard["column_sizes"].count(None), {}
            for name, size in zip(shard["column_names"], shard["column_sizes"]):
                size = next(lengths) if size is None else size
                values[name] = data[at : at + size]
                at += size
            assert at == end
            found.append(values)
    return found


WRITERS = {"parquet": write_parquet, "lmdb": write_lmdb, "webdataset": write_tar, "mds": write_mds}


@pytest.fixture(params=WRITERS)
def format(request):
    return request.param


def corpus(root: Path, format: str, texts=tuple(TEXTS), pictures=None) -> Path:
    pictures = pictures or [crop(text, n) for n, text in enumerate(texts)]
    WRITERS[format](root / FILES[format], pictures, [*texts])
    return root


def contents(root: Path, format: str) -> list[tuple[str | None, bytes]]:
    """Text and picture of each record, as the format's users read it."""
    lmdb_format.release()
    path = root / FILES[format]
    if format == "parquet":
        return [(row["text"], row["image"]["bytes"]) for row in pq.read_table(path).to_pylist()]
    if format == "lmdb":
        with lmdb.open(str(path.parent), readonly=True, lock=False) as held, held.begin() as transaction:
            numbers = range(1, int(transaction.get(b"num-samples")) + 1)
            labels = [transaction.get(b"label-%09d" % n) for n in numbers]
            texts = [None if label is None else label.decode() for label in labels]
            return [(text, transaction.get(b"image-%09d" % n)) for text, n in zip(texts, numbers)]
    if format == "mds":
        return [(sample["text"].decode(), sample["image"]) for sample in mds_samples(root)]
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as opened:
        for member in opened:
            key, _, suffix = member.name.partition(".")
            samples.setdefault(key, {})[suffix] = opened.extractfile(member).read()
    return [(s["txt"].decode() if "txt" in s else None, s["png"]) for s in samples.values()]


def test_every_picture_shows_what_its_new_label_says(tmp_path, format):
    source = corpus(tmp_path / "in", format)
    audit = anonymized(source, tmp_path / "out")
    assert audit["plates"]["replaced"] == 12 and "left_out" not in audit
    found = contents(tmp_path / "out", format)
    assert [read(data) for _, data in found] == [text for text, _ in found]
    assert len({text for text, _ in found}) == 12 and not {text for text, _ in found} & {*TEXTS}
    assert verify_against(tmp_path / "out", source).faults == []
    assert [label.text for label in read_corpus(tmp_path / "out").labels] == [text for text, _ in found]
    assert {p.name for p in (tmp_path / "out").rglob("*") if p.is_file()} == {
        "audit.json", "audit.html", Path(FILES[format]).name, *(["index.json"] if format == "mds" else []),
    }  # fmt: skip


def test_one_key_gives_one_text(tmp_path, format):
    texts = [*TEXTS[:4], *TEXTS[:4], "abc1001"]
    source = corpus(tmp_path / "in", format, texts, [crop(text.upper(), n) for n, text in enumerate(texts)])
    for name in "12":
        anonymized(source, tmp_path / name, key_file=str(tmp_path / "key"))
    one, two = (contents(tmp_path / name, format) for name in "12")
    new = [text for text, _ in one]
    assert one == two and new[:4] == new[4:8] and len({*new[:4]}) == 4 and new[8] == new[1].lower()


@pytest.mark.parametrize("on_doubt", ["redact", "withhold"])
def test_what_is_not_replaced_is_treated_as_in_other_formats(tmp_path, format, on_doubt):
    """A plate that is not read where it is annotated, one without text, a file that is no picture."""
    texts = [*TEXTS]
    pictures = [crop(text, n) for n, text in enumerate(texts)]
    pictures[2], pictures[7] = crop("XYZ9999"), b"no picture"
    texts[4] = None
    source = corpus(tmp_path / "in", format, texts, pictures)
    audit = anonymized(source, tmp_path / "out", on_doubt=on_doubt)
    withheld = on_doubt == "withhold"
    assert audit["plates"] == {"annotated": 12, "replaced": 9, "redacted": 2 - withheld, "withheld": int(withheld),
                               "set_aside": 1}  # fmt: skip
    found = contents(tmp_path / "out", format)
    assert [text or "" for text, _ in found].count("") == 2 - withheld and len(found) == 11 - withheld
    assert all(read(data) == (text or "") for text, data in found)
    if format != "webdataset":
        assert audit["left_out"] == [{"file": FILES[format], "pictures": [2, 7] if withheld else [7]}]
    assert verify_against(tmp_path / "out", source).faults == []


def test_a_plate_left_in_place_of_its_edit_is_found(tmp_path, format):
    """The picture compared is the one it was made from, though records before it are gone."""
    pictures = [crop(text, n) for n, text in enumerate(TEXTS)]
    pictures[1] = b"no picture"
    source = corpus(tmp_path / "in", format, TEXTS, pictures)
    anonymized(source, tmp_path / "out")
    found = contents(tmp_path / "out", format)
    (tmp_path / "out" / FILES[format]).unlink()
    larger = cv2.imencode(".png", cv2.resize(decode(found[5][1]), (99, 40)))[1].tobytes()
    found[5] = found[5][0], larger
    corpus(tmp_path / "out", format, [text for text, _ in found], [data for _, data in found])
    faults = verify_against(tmp_path / "out", source).faults
    assert any("another kind or size" in fault for fault in faults)


# ------------------------------------------------------------------------------------------------- the other contents


def test_parquet_columns_are_reworded_or_left_out(tmp_path):
    columns = {
        "note": [f"seen {text[:3]}-{text[3:]} twice" for text in TEXTS],
        "tags": [[text, "car"] for text in TEXTS],
        "more": [{"who": text.lower(), "age": 3} for text in TEXTS],
        "kind": pa.array(TEXTS).dictionary_encode(),
        "number": list(range(12)),
        "group": pa.array([7] * 12).dictionary_encode(),
        "score_reader": [0.5] * 12,
        "reading": [text[:-1] + "X" for text in TEXTS],
        "source": ["0123456789abcdef"] * 12,
        "file_path": ["/home/me/a.png"] * 12,
        "mask": [{"bytes": crop(text), "path": "m.png"} for text in TEXTS],
        "vector": [[0.1, 0.2]] * 12,
        "raw": [b"ABC"] * 12,
    }
    pictures = [crop(text, n) for n, text in enumerate(TEXTS)]
    held = {"image": [{"bytes": data, "path": "x.png"} for data in pictures], "text": TEXTS} | columns
    features = {name: {"dtype": "string", "_type": "Value"} for name in held} | {"image": {"_type": "Image"}}
    features["kind"] = {"names": TEXTS, "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "pandas": json.dumps(TEXTS)}
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(held).replace_schema_metadata(metadata), tmp_path / "in" / "a.parquet", row_group_size=5)
    audit = anonymized(tmp_path / "in", tmp_path / "out")
    copy = pq.read_table(tmp_path / "out" / "a.parquet")
    assert copy.column_names == ["image", "text", "note", "tags", "more", "kind", "number", "group"]
    assert audit["kept"] == {"picture_paths": 12, "columns": copy.column_names[2:]}
    assert audit["files_not_copied"] == 7 and audit["source_texts"]["found"] == 0
    assert {*copy.schema.metadata} == {b"huggingface"}
    said = json.loads(copy.schema.metadata[b"huggingface"])["info"]["features"]
    assert [*said] == copy.column_names and said["image"] == {"_type": "Image"}
    for n, row in enumerate(copy.to_pylist()):
        new = row["text"]
        assert row["note"].replace("-", "") == f"seen {new} twice" and row["tags"] == [new, "car"]
        assert row["more"] == {"who": new.lower(), "age": 3} and row["kind"] == new and row["number"] == n
        assert not {"/", "ABC"} & {*row["image"]["path"]}
    assert verify_against(tmp_path / "out", tmp_path / "in").faults == []


def test_parquet_that_only_points_to_pictures_is_refused_or_set_aside(tmp_path):
    for name in ("paths", "structs"):
        (tmp_path / name).mkdir()
    (tmp_path / "real.png").write_bytes(crop(TEXTS[0]))
    pq.write_table(pa.table({"path": ["../real.png"], "text": TEXTS[:1]}), tmp_path / "paths" / "a.parquet")
    with pytest.raises(PlatemintError, match="files of their own.*jsonl"):
        anonymized(tmp_path / "paths", tmp_path / "1")
    held = [{"bytes": None, "path": str(tmp_path / "real.png")}, {"bytes": crop(TEXTS[1]), "path": None}]
    pq.write_table(pa.table({"image": held, "text": TEXTS[:2]}), tmp_path / "structs" / "a.parquet")
    audit = anonymized(tmp_path / "structs", tmp_path / "2")
    assert audit["pictures"] | {"written": 1, "set_aside": 1} == audit["pictures"]


def test_keys_and_members_that_are_not_understood_stay_behind(tmp_path):
    pictures = [crop(text, n) for n, text in enumerate(TEXTS)]
    more = {b"path-000000001": b"/home/me/ABC1000.png", b"meta": b"x"}
    write_lmdb(tmp_path / "in" / "data.mdb", pictures, TEXTS, more)
    audit = anonymized(tmp_path / "in", tmp_path / "out")
    lmdb_format.release()
    with lmdb.open(str(tmp_path / "out"), readonly=True, lock=False) as held, held.begin() as transaction:
        assert {key.rstrip(b"0123456789") for key in transaction.cursor().iternext(values=False)} == {
            b"image-", b"label-", b"num-samples",
        }  # fmt: skip
    assert audit["files_not_copied"] == 2 and verify_against(tmp_path / "out", tmp_path / "in").faults == []


def test_columns_of_mds_are_reworded_or_left_out(tmp_path):
    def values(*each):
        return [json.dumps(value, ensure_ascii=False).encode() for value in each]

    columns = {
        "note": ("str", [f"seen {text[:3]}-{text[3:]} twice".encode() for text in TEXTS]),
        "more": ("json", values(*({"who": [text.lower()], "age": 3, "path": f"/home/{text}"} for text in TEXTS))),
        "broken": ("json", [b"{", *values(*range(11))]),
        "number": ("int64", [n.to_bytes(8, "little") for n in range(12)]),
        "score_reader": ("json", values(*[0.5] * 12)),
        "file_path": ("str", [b"/home/me/a.png"] * 12),
        "mask": ("png", [crop(text) for text in TEXTS]),
        "object": ("pkl", [b"ABC"] * 12),
    }
    write_mds(tmp_path / "in/train/shard.00000.mds", [crop(text, n) for n, text in enumerate(TEXTS)], TEXTS, columns)
    audit = anonymized(tmp_path / "in", tmp_path / "out")
    assert audit["files_not_copied"] == 4 and audit["source_texts"]["found"] == 0
    for n, sample in enumerate(mds_samples(tmp_path / "out")):
        new = sample["text"].decode()
        assert [*sample] == ["broken", "image", "more", "note", "number", "text"] and read(sample["image"]) == new
        assert sample["note"].decode().replace("-", "") == f"seen {new} twice"
        assert json.loads(sample["more"]) == {"who": [new.lower()], "age": 3}
        assert json.loads(sample["broken"]) == (n - 1 if n else None)
        assert int.from_bytes(sample["number"], "little") == n
    assert verify_against(tmp_path / "out", tmp_path / "in").faults == []


def test_mds_of_frames_is_refused(tmp_path):
    write_mds(
        tmp_path / "in/train/shard.00000.mds", [crop(text) for text in TEXTS], TEXTS, {"bbox": ("json", [b"[]"] * 12)}
    )
    with pytest.raises(PlatemintError, match="bbox: looks like a plate's place"):
        anonymized(tmp_path / "in", tmp_path / "out")


def test_members_of_tars(tmp_path):
    """Names with plates, fields, several pictures of a sample, names that lead out, links, and texts that differ."""
    (tmp_path / "secret.png").write_bytes(crop(TEXTS[9]))
    files = {
        "a/ABC1000.png": crop(TEXTS[0]),
        "a/ABC1000.json": json.dumps({"text": TEXTS[0], "where": "ABC 1000 here", "path": "/home"}).encode(),
        "./b.png": crop(TEXTS[1]), "b.txt": b"abc1001\n", "b.cls": b"3", "b.json": b'{"text": "ABC1001"}',
        "c.left.png": crop(TEXTS[2]), "c.right.png": crop(TEXTS[2]), "c.txt": TEXTS[2].encode(),
        "d.png": crop(TEXTS[3]), "d.txt": TEXTS[3].encode(), "d.json": b'{"text": "QQQ777"}',
        "../secret.png": crop(TEXTS[4]), "../secret.txt": TEXTS[4].encode(),
        "e.png": crop(TEXTS[5]), "e.txt": TEXTS[5].encode(), "e.caption": b"ABC1005",
    }  # fmt: skip
    (tmp_path / "in").mkdir()
    tar(tmp_path / "in" / "x.tar", files, {"f.png": "../secret.png"})
    audit = anonymized(tmp_path / "in", tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "x.tar") as opened:
        held = {member.name: opened.extractfile(member).read() for member in opened}
    assert audit["plates"]["replaced"] == 3 and audit["pictures"]["set_aside"] == 4
    [name] = [name for name in held if name.startswith("a/") and name.endswith(".png")]
    fields = json.loads(held[name.replace(".png", ".json")])
    assert [*fields] == ["text", "where"] and read(held[name]) == fields["text"] and fields["text"] in name
    assert fields["where"].replace(" ", "") == fields["text"] + "here"
    assert {name for name in held if not name.startswith("a/")} == {"b.png", "b.txt", "b.json", "e.png", "e.txt"}
    assert held["b.txt"].decode().upper() == read(held["b.png"]) == json.loads(held["b.json"])["text"]
    assert verify_against(tmp_path / "out", tmp_path / "in").faults == []
    assert "QQQ777" in open_any(tmp_path / "in").lost


def test_only_committed_shards_of_a_run_go_out(tmp_path):
    for n in range(2):
        some = TEXTS[6 * n : 6 * n + 6]
        write_parquet(tmp_path / "in" / "data" / f"{n}.parquet", [crop(text) for text in some], some)
    (tmp_path / "in" / "plan.json").write_text("{}")
    (tmp_path / "in" / "commits").mkdir()
    commit = {"files": [{"path": "data/0.parquet"}]}
    (tmp_path / "in" / "commits" / "0.json").write_text(json.dumps(commit))
    assert anonymized(tmp_path / "in", tmp_path / "out")["plates"]["replaced"] == 6
    assert [path.name for path in (tmp_path / "out" / "data").iterdir()] == ["0.parquet"]
    assert verify_against(tmp_path / "out", tmp_path / "in").faults == []


def test_folders_of_several_formats_and_annotations_beside(tmp_path):
    corpus(tmp_path, "lmdb", TEXTS[:2])
    corpus(tmp_path, "parquet", TEXTS[2:4])
    with pytest.raises(PlatemintError, match=r"several formats \(parquet, lmdb\)"):
        open_any(tmp_path)
    assert len(open_any(tmp_path, "lmdb").frames) == 2
    (tmp_path / "labels.csv").write_text(f"path,text\n1.png,{TEXTS[5]}\n")
    (tmp_path / "1.png").write_bytes(crop(TEXTS[5]))
    assert open_any(tmp_path).format == "table"


# --------------------------------------------------------------------------------------------------- the search inside


@pytest.mark.parametrize("codec", ["none", "snappy", "zstd", "gzip"])
def test_texts_in_parquet_are_found(tmp_path, codec):
    clean, texts = ["QQ1", "QQ2"], ["XYZ7777", "MNO-8888", "KLM5555", "HIJ3333", "DEF2222"]
    buffer = io.BytesIO()
    from PIL import Image

    exif = Image.Exif()
    exif[0x010E] = "by KLM 5555"
    Image.new("RGB", (64, 30)).save(buffer, "JPEG", exif=exif)
    table = pa.table({
        "image": [{"bytes": buffer.getvalue(), "path": "HIJ3333.jpg"}, {"bytes": crop("A"), "path": ""}],
        "text": clean, "note": [None, "was xyz7777"], "list": [[{"deep": "mno 8888"}], []],
    })  # fmt: skip
    pq.write_table(table.replace_schema_metadata({"by": "DEF2222"}), tmp_path / "a.parquet", compression=codec)
    found = scan(tmp_path, [*texts, *clean, "NOT4444"])
    assert {hit.text for hit in found.hits} == {*texts} and not found.unread
    assert all(hit.path.startswith("a.parquet/") for hit in found.hits)
    assert any(hit.path == "a.parquet/0/image" for hit in found.hits)


def test_fractions_are_told_apart_from_texts(tmp_path):
    pq.write_table(pa.table({"text": ["A"], "score": [0.123456], "count": [77123]}), tmp_path / "a.parquet")
    found = scan(tmp_path, ["12345", "77123"])
    assert [hit.text for hit in found.hits] == ["77123"] and [hit.text for hit in found.literals] == ["12345"]


def test_texts_in_lmdb_are_found(tmp_path):
    write_lmdb(
        tmp_path / "data.mdb", [crop("A")], ["xyz-7777"], {b"by-KLM5555": b"HIJ 3333", b"a": crop("B") + b"DEF2222"}
    )
    found = scan(tmp_path, ["XYZ7777", "KLM5555", "HIJ3333", "DEF2222", "00000001"])
    assert sorted(hit.text for hit in found.hits) == ["DEF2222", "HIJ3333", "KLM5555", "XYZ7777"] and not found.unread


def test_texts_in_tars_are_found(tmp_path):
    path = tmp_path / "a.tar"
    tar(path, {"XYZ7777.png": crop("A"), "a.txt": b"klm 5555", "b.json": b'{"t": "\\u0048IJ3333"}'}, {"c": "/DEF2222"})
    data = bytearray(path.read_bytes())
    at = data.index(b"klm 5555") + 100
    data[at : at + 7] = b"PAD1111"
    path.write_bytes(data + b"END6666")
    found = scan(tmp_path, ["XYZ7777", "KLM5555", "HIJ3333", "DEF2222", "PAD1111", "END6666"])
    assert {hit.text for hit in found.hits} == {"XYZ7777", "KLM5555", "HIJ3333", "DEF2222", "PAD1111", "END6666"}


def test_texts_in_mds_are_found(tmp_path):
    """In values of every kind, numbers too, in names of columns, and behind the columns of a sample."""
    path = tmp_path / "a.mds"
    columns = {
        "note": ("str", [b"xyz-7777"]), "more": ("json", [b'{"a": "KLM 5555"}']), "raw": ("bytes", [b"HIJ3333"]),
        "DEF2222": ("int64", [(44556677).to_bytes(8, "little")]),
    }  # fmt: skip
    write_mds(path, [crop("A")], ["B"], columns)
    data = bytearray(path.read_bytes())
    data[8:12] = np.array([len(data) + 7], np.uint32).tobytes()
    path.write_bytes(data + b"END6666")
    texts = ["XYZ7777", "KLM5555", "HIJ3333", "DEF2222", "44556677", "END6666"]
    found = scan(tmp_path, [*texts, "NOT4444"])
    assert {hit.text for hit in found.hits if hit.path.startswith("a.mds/")} == {*texts} and not found.unread


def test_damaged_files_are_searched_as_they_are_and_listed(tmp_path):
    for name in ("a.parquet", "data.mdb", "a.tar", "a.mds"):
        (tmp_path / name).write_bytes(b"x" * 5000 + b" ABC1234")
    found = scan(tmp_path, ["ABC1234"])
    assert len(found.unread) == len(found.hits) == 4


def test_a_leak_planted_in_a_copy_is_found(tmp_path, format):
    source = corpus(tmp_path / "in", format)
    anonymized(source, tmp_path / "out")
    found = contents(tmp_path / "out", format)
    (tmp_path / "out" / FILES[format]).unlink()
    for leak in ("label", "behind"):
        texts, pictures = [text for text, _ in found], [data for _, data in found]
        texts[3] = TEXTS[3] if leak == "label" else texts[3]
        pictures[3] += b"ABC-1003" if leak == "behind" else b""
        corpus(tmp_path / "out", format, texts, pictures)
        faults = verify_against(tmp_path / "out", source).faults
        assert any("spells ABC1003" in fault for fault in faults), faults
        (tmp_path / "out" / FILES[format]).unlink()


# -------------------------------------------------------------------------------------------------------------- kill -9


def without_audit(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in root.rglob("*") if p.is_file() and p.stem != "audit"}


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, format, call, monkeypatch):
    monkeypatch.setattr(plans, "PICTURES", 3)
    source, out, record = corpus(tmp_path / "in", format), tmp_path / "out", Unfinished(tmp_path / "out")
    killed_after_two(record.mark / "commits", "anonymize", source, "--out", out)
    assert not scan(out, TEXTS).hits
    secret = record.secret()
    assert len(list(record.mark.glob("commits/*.json"))) < 4
    assert call(source, "--out", out).exit_code == 0
    assert verify_against(out, source).faults == [] and not list(out.rglob(".*"))
    monkeypatch.setattr("secrets.token_bytes", lambda n: secret[:n])
    assert call(source, "--out", tmp_path / "whole").exit_code == 0
    assert without_audit(out) == without_audit(tmp_path / "whole")


def test_a_kill_while_the_file_is_put_together_leaves_no_half_one(tmp_path, format, monkeypatch):
    source, out = corpus(tmp_path / "in", format), tmp_path / "out"
    read_bytes, left = Path.read_bytes, iter(range(5))

    def fails(path):
        if path.parent.name == "pictures" and next(left, None) is None:
            raise InterruptedError
        return read_bytes(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fails)
        with pytest.raises(PlatemintError):
            anonymized(source, out)
    assert not (out / FILES[format]).exists() and (out / UNFINISHED).exists()

    class Never(Stamps):
        def encoded(self, pictures):
            raise AssertionError("made again")

    assert anonymized(source, out, Never)["plates"]["replaced"] == 12
    assert not list(out.rglob(".*")) and verify_against(out, source).faults == []
