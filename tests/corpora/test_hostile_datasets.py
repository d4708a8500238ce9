"""Datasets that are damaged or lie: refused, or set aside with a reason. Nothing else is raised, nothing explodes."""

import io
import json
import pickle
import resource
import tarfile
from functools import cache
from pathlib import Path

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_every_format
from hypothesis import given, settings
from hypothesis import strategies as st
from test_every_format import WRITERS, coco, cvat, lmdb_folder, mds, parquet, plates, png, put, voc, yolo

from platemint.pipeline.corpora import containers, read_corpus
from platemint.pipeline.corpora.formats import lmdb as lmdb_format
from platemint.pipeline.corpora.formats import parquet as parquet_format
from platemint.pipeline.corpora.pixels import read_plates
from platemint.pipeline.plate import PlatemintError

FEW = 2
TOKENS = (b"", b"\0", b"\xff\xfe", b"-1", b"NaN", b"1e999", b"9" * 400, b"9" * 5000, b"null", b"[]", b"{}", b'"', b"<a>" * 300,
          b"[" * 3000, b"../../x.png", b"/etc/passwd", b"x" * 5000, b" " * 3000, b"\n" * 3000, b"!!python/name:os.system",
          b"&a [*a]", "²".encode(), b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x89PNG")  # fmt: skip


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(test_every_format, "COUNT", FEW)


@cache
def written(name, folder):
    WRITERS[name][1](folder / "valid")
    files = sorted(path for path in (folder / "valid").rglob("*") if path.is_file() and path.name != "lock.mdb")
    return {path.relative_to(folder / "valid"): path.read_bytes() for path in files}


def damaged(data, at, much, token):
    """A file with a part replaced, or cut off."""
    at = at % (len(data) + 1)
    return data[:at] if token == b"" and much > 30 else data[:at] + token + data[at + much :]


def read_all(root):
    """Reads a dataset's labels and pictures; what is wrong with it is said in a PlatemintError or in set_aside."""
    try:
        corpus = read_corpus(root)
    except PlatemintError as refused:
        return str(refused)
    for label in corpus.labels:
        read_plates([label])  # gives the reason back
    return "; ".join(item["reason"] for item in corpus.set_aside)


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "our own run"])
def test_damage_is_refused_or_set_aside(name, tmp_path):
    valid = written(name, tmp_path)
    notes = [path for path in valid if path.suffix != ".png"] or [*valid]
    places = st.tuples(st.sampled_from(notes), st.integers(0, 1 << 20), st.integers(0, 40), st.sampled_from(TOKENS))

    @settings(derandomize=True, max_examples=15, deadline=None, database=None)
    @given(places)
    def tried(place):
        path, *damage = place
        for other, data in valid.items():
            put(tmp_path / "in" / other, damaged(data, *damage) if other == path else data)
        read_all(tmp_path / "in")

    tried()


# --------------------------------------------------------------------------------------------------------------- texts


LAUGHS = "".join(f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi"))


def test_what_explodes_is_refused_by_name(tmp_path):
    for write, path, text, said in (
        (voc, "Annotations/000.xml", '<!DOCTYPE a [<!ENTITY l "lol">]><annotation>&l;</annotation>', "document type"),
        (voc, "Annotations/000.xml", f"<annotation>{'<a>' * 9000}{'</a>' * 9000}</annotation>", "100 levels"),
        (
            cvat,
            "annotations.xml",
            '<!DOCTYPE a [<!ENTITY l "lol">]><annotations><image /></annotations>',
            "document type",
        ),
        (yolo, "data.yaml", f"a: &a [x, x]\n{LAUGHS}names: *i\n", "data.yaml: names:"),
        (yolo, "data.yaml", f"names: {'[' * 5000}\n", "data.yaml: names:"),
        (yolo, "data.yaml", "names: !!python/object/apply:os.getcwd []\n", "data.yaml: names:"),
    ):
        root = tmp_path / write.__name__ / str(len(text))
        write(root)
        put(root / path, text)
        assert said in read_all(root), (path, text[:40])


def test_numbers_of_no_size_are_a_fault_of_their_plate(tmp_path):
    coco(tmp_path)
    held = json.loads((tmp_path / "annotations.json").read_text())
    held["annotations"][0]["bbox"][2] = 10**400
    held["images"][1]["width"] = 10**400
    put(tmp_path / "annotations.json", json.dumps(held))
    assert "000.png: " not in read_all(tmp_path) and "not finite" in read_all(tmp_path)


def test_one_stray_quotation_mark_a_line_does_not_read_the_file_again_and_again(tmp_path):
    put(tmp_path / "labels.csv", "path,text\n" + 'x.png,"AB1\n' * 20_000)
    assert len(read_corpus(tmp_path).set_aside) == 20_000


# ---------------------------------------------------------------------------------------------------------- containers


@pytest.mark.parametrize(
    "image",
    [[1, 2], [1.5, None], [["x"], ["y"]], [{"bytes": 1, "path": 2}] * 2, [{"bytes": {"bytes": b"x"}}] * 2,
     [{"bytes": None, "path": "a\0b"}] * 2, [{"bytes": None, "path": "../" * 2000}] * 2, [{"bytes": b""}] * 2, [b"x", None]],
)  # fmt: skip
def test_parquet_of_other_types_is_refused_or_set_aside(image, tmp_path):
    for text in (["AB1", "AB2"], [1, 2], [b"\xff", b"x"], [{"a": 1}] * 2, [None, None], [["AB1"]] * 2):
        pq.write_table(pa.table({"image": pa.array(image), "text": pa.array(text)}), tmp_path / "a.parquet")
        read_all(tmp_path)


def test_a_small_parquet_of_large_rows_stays_small(tmp_path, monkeypatch):
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), ["A" * 1_000_000])
    pq.write_table(pa.table({"image": [b"x"] * 20_000, "text": texts}), tmp_path / "a.parquet")  # 20 GB of text
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "longer than 12" in read_all(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    monkeypatch.setattr(parquet_format, "MOST_CHUNK", 1 << 22)
    pq.write_table(pa.table({"image": [b"x" * 1_000_000] * 40, "text": ["AB1"] * 40}), tmp_path / "a.parquet")
    [reason] = {str(fault) for label in read_corpus(tmp_path).labels for fault in read_plates([label])}
    assert reason == "the file that holds it is damaged"


def test_lies_about_rows_and_columns_are_found(tmp_path):
    pq.write_table(pa.table({"image": pa.nulls(1_000_000, pa.binary()), "text": pa.nulls(1_000_000, pa.string())}),
                   tmp_path / "a.parquet")  # fmt: skip
    assert "says that it holds 1,000,000 rows" in read_all(tmp_path)
    pq.write_table(pa.table([[b"x"], ["AB1"], ["AB2"]], ["image", "text", "text"]), tmp_path / "a.parquet")
    assert "two of its columns have one name" in read_all(tmp_path)


def test_no_pickle_is_ever_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "opened",)

    bomb = pickle.dumps(Bomb())
    mds(tmp_path / "in")
    [shard] = (tmp_path / "in").rglob("*.mds")
    data = shard.read_bytes()
    assert b'["bytes", "str"]' in data
    shard.write_bytes(data.replace(b'["bytes", "str"]', b'["pkl", "str"]  '))
    for name in ("a.pkl", "labels.npy", "a.pt", "data.pickle"):
        put(tmp_path / "in" / name, bomb)
    assert "needs a column of pictures" in read_all(tmp_path / "in")
    parquet(tmp_path / "other")
    put(tmp_path / "other" / "000.pkl", bomb)
    pq.write_table(pa.table({"image": [bomb], "text": ["AB1"]}), tmp_path / "other" / "data" / "a.parquet")
    assert read_all(tmp_path / "other") == ""
    assert not (tmp_path / "opened").exists()


def member(name, data=b"", **fields):
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for field, value in fields.items():
        setattr(made, field, value)
    return made, data


def tar(path, *members):
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as opened:
        for made, data in members:
            opened.addfile(made, io.BytesIO(data))


def test_members_of_tars_lead_nowhere(tmp_path):
    picture = png(plates()[0][1])
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    linked = [member(f"{n}.png", type=kind, linkname="/etc/passwd") for n, kind in enumerate(kinds)]
    outside = [member(name, picture) for name in ("../a.png", "/b.png", "c/../../d.png")]
    sparse = member(
        "e.png", picture, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.size": "9"}
    )
    texts = [member(name, b"AB1") for name in ("../a.txt", "/b.txt", "c/../../d.txt", *(f"{n}.txt" for n in range(5)))]
    for made in ([*linked, *outside, *texts], [sparse]):
        tar(tmp_path / "a.tar", *made)
        before = sorted(tmp_path.parent.rglob("*"))
        read_all(tmp_path)
        assert sorted(tmp_path.parent.rglob("*")) == before, "nothing is unpacked"
    tar(tmp_path / "a.tar", *linked, *texts)
    assert read_all(tmp_path) == "" and not read_corpus(tmp_path).labels
    for size in ("-5", "99999999999"):
        tar(tmp_path / "a.tar", member("a.png", picture, pax_headers={"size": size}))
        assert "not a whole tar file" in read_all(tmp_path)
        with pytest.raises(ValueError, match="damaged"):
            list(containers.container_parts(tmp_path / "a.tar"))


def test_a_damaged_lmdb_does_not_end_the_process(tmp_path):
    root = tmp_path / "in"
    lmdb_folder(root)
    file = root / "data.mdb"
    data = file.read_bytes()
    for broken in (data[: len(data) // 2], data[:-4096], data[:8192] + b"\xff" * 4096 + data[12288:]):
        file.write_bytes(broken)
        assert "not an LMDB that can be read" in read_all(root)
    for count in (b"", b"-1", b"9" * 5000, b"\xff", "²".encode(), b"400"):
        lmdb_format.release()
        file.write_bytes(data)
        with lmdb.open(str(root), map_size=1 << 24) as database, database.begin(write=True) as transaction:
            transaction.put(b"num-samples", count)
        assert "not the number of its pictures" in read_all(root)


def test_an_mds_shard_that_lies_is_refused(tmp_path):
    mds(tmp_path)
    [shard] = tmp_path.rglob("*.mds")
    data = shard.read_bytes()
    for at, value in ((0, 2**32 - 1), (4, 2**32 - 1), (4, 0), (8, 2**32 - 1), (12, 1)):
        broken = bytearray(data)
        broken[at : at + 4] = np.uint32(value).tobytes()
        shard.write_bytes(broken)
        assert "not a whole MDS shard" in read_all(tmp_path)
    start = int(np.frombuffer(data[4:8], "<u4")[0])
    shard.write_bytes(data[:start] + b"\xff" * 8 + data[start + 8 :])
    assert read_all(tmp_path) == "the sample is damaged"
