"""Exports: the plates of a run, or of other Parquet, in the forms that trainers read.

One module per format; each has

    writer(plates, folder)      a context in which add(plate) writes one below a folder

and, where it is written by an optional library, ready(): raises PlatemintError where that is missing. `add` returns what
the plate's picture is called in the export, for scores.csv, which holds whatever the format has no place for; "" where the
format itself holds all columns. It raises ValueError, and writes nothing, for a plate that the format cannot hold.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TextIO

from platemint.pipeline import lock
from platemint.pipeline.exports import ccpd, fast_plate_ocr, imagefolder, lmdb, mds, paddleocr, webdataset, yolo
from platemint.pipeline.exports.files import table, write_table
from platemint.pipeline.exports.plates import ExportedPlates
from platemint.pipeline.object_store import ObjectPath, fetched, place, upload
from platemint.pipeline.plate import Failure, PlatemintError
from platemint.pipeline.progress import Count
from platemint.pipeline.recipe import nearest
from platemint.pipeline.storage import TEMPORARY, read_json
from platemint.pipeline.write import csv_cells

__all__ = ["FORMATS", "Exported", "export", "export_run"]

FORMATS: dict[str, ModuleType] = {
    "fast-plate-ocr": fast_plate_ocr,
    "paddleocr": paddleocr,
    "lmdb": lmdb,
    "webdataset": webdataset,
    "mds": mds,
    "imagefolder": imagefolder,
    "ccpd": ccpd,
    "yolo": yolo,
}
RECORD = "export.json"  # in every export: what it was made from
SCORES, SET_ASIDE = "scores.csv", "set_aside.csv"


@dataclass(frozen=True)
class Exported:
    """What an export came to. plates: of each split. set_aside: rows that it does not hold, listed in set_aside.csv."""

    folder: Path | ObjectPath
    plates: dict[str, int]
    set_aside: int

    def __str__(self) -> str:
        shown = ", ".join(f"{split} {count:,}" for split, count in self.plates.items())
        aside = f"; {self.set_aside:,} set aside, see {self.folder / SET_ASIDE}" if self.set_aside else ""
        return f"{self.folder}: {sum(self.plates.values()):,} plates ({shown}){aside}"


def export(
    run: str | Path | ObjectPath, form: str, out: str | Path | ObjectPath, progress: TextIO | None = None
) -> Exported:
    """Writes the plates of a run's folder, or of Parquet with pictures and texts, in another format.

    form: a name in `FORMATS`. out: a folder that is not there yet, or empty; it appears once it is whole. On an object
    store, whence a run is fetched first, it counts once it holds export.json. Raises
    PlatemintError where that is not so, for a run that is not finished, and where no row fits the format; Failure where
    the disk is full or another process is writing it.
    """
    there, out = place(run), place(out)
    _check(form)
    _refuse_taken(out)
    plates = ExportedPlates(fetched(there))
    with _filled(out) as folder:
        return _write(plates, form, folder, out, progress)


def export_run(run: Path | ObjectPath, forms: tuple[str, ...], progress: TextIO | None = None) -> tuple[Exported, ...]:
    """The exports that a finished run's recipe asks for, each beside its folder; those that are there stay."""
    return tuple(_there(run, form) or export(run, form, beside(run, form), progress) for form in forms)


def ready(run: Path | ObjectPath, forms: tuple[str, ...], changes: bool) -> None:
    """Raises PlatemintError, before a run begins, where it could not be exported in the end.

    changes: the run will hold other plates than now, so that an export of it is one of another state.
    """
    for form in forms:
        _check(form)
        if form not in _present(run, forms):
            _refuse_taken(beside(run, form))
        elif changes:
            raise PlatemintError(
                f"{beside(run, form)}: is an export of another state of {run}: remove it or move it elsewhere, and the run "
                "is exported anew in its end; or leave write.also out, and `export` later into another folder"
            )


def kept(run: Path | ObjectPath, forms: tuple[str, ...]) -> list[Path | ObjectPath]:
    """The folders of exports beside a run."""
    return [beside(run, form) for form in _present(run, forms)]


def _present(run: Path | ObjectPath, forms: tuple[str, ...]) -> list[str]:
    return [form for form in forms if (beside(run, form) / RECORD).exists()]


def beside(run: Path | ObjectPath, form: str) -> Path | ObjectPath:
    """Where a run is exported to by its recipe: a folder of its own, since a run's holds that run alone."""
    run = run.resolve() if isinstance(run, Path) and not run.name else run
    return run.with_name(f"{run.name}-{form}")


def _check(form: str) -> None:
    """Raises PlatemintError where there is no such format, or its library is missing."""
    if form not in FORMATS:
        raise PlatemintError(f"{form}: no such format{nearest(form, FORMATS)}; there are {', '.join(FORMATS)}")
    if hasattr(FORMATS[form], "ready"):
        FORMATS[form].ready()


def _refuse_taken(out: Path | ObjectPath) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PlatemintError(f"{out}: holds files already: choose another --out, or remove it first")


@contextlib.contextmanager
def _filled(out: Path | ObjectPath) -> Iterator[Path]:
    """A folder to be filled, which then is what `out` is."""
    if isinstance(out, ObjectPath):
        with TemporaryDirectory() as folder:
            yield Path(folder)
            upload(Path(folder), out, last=RECORD)
        return
    whole = Path(os.path.abspath(out))
    part = whole.with_name(f".{whole.name}{TEMPORARY}")
    try:
        with lock.held(part), _renamed(part / "whole", out) as folder:
            yield folder
    finally:
        with contextlib.suppress(OSError):  # where a killed export has left it
            part.rmdir()


@contextlib.contextmanager
def _renamed(part: Path, out: Path) -> Iterator[Path]:
    """A folder to be filled, which then gets its name. Nothing is left of it where that fails."""
    shutil.rmtree(part, ignore_errors=True)  # what a killed export has left
    try:
        part.mkdir()
        yield part
        _sync()
        if out.exists():
            out.rmdir()  # it is empty
        part.rename(out)
    except OSError as fault:
        raise Failure(
            f"{out}: cannot be written ({fault.strerror or fault}): make room or make the folder writable, and export "
            "again; or choose another --out"
        ) from fault
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sync() -> None:
    """Has all files reach the disk, so that a folder that has its name is whole even after a power cut."""
    if hasattr(os, "sync"):
        os.sync()


def _write(
    plates: ExportedPlates, form: str, folder: Path, out: Path | ObjectPath, progress: TextIO | None
) -> Exported:
    """Writes an export and what it was made from. Raises PlatemintError where no row fits the format."""
    written, count = Counter(), Count(plates.counts.total(), progress, "plates")
    columns = dict.fromkeys(["file", *plates.columns])
    with FORMATS[form].writer(plates, folder) as add, table(folder / SCORES, columns) as scores:
        for plate in plates:
            try:
                if name := add(plate):
                    scores.writerow(csv_cells(plate.fields | {"file": name}))
            except ValueError as fault:
                plates.put_aside(str(fault))
            else:
                written[plate.split] += 1
            count.add(1, 0)
    count.close()
    if not written:
        first = plates.set_aside[0]["reason"] if plates.set_aside else "there are none"
        raise PlatemintError(f"{plates.path}: no row can be exported to {form}; the first: {first}")
    if plates.set_aside:
        write_table(folder / SET_ASIDE, ("path", "row", "reason"), map(csv_cells, plates.set_aside))
    made = Exported(out, dict(written), len(plates.set_aside))
    record = {"format": form, "plates": made.plates, "set_aside": made.set_aside, "made_from": plates.fingerprint}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
    return made


def _there(run: Path | ObjectPath, form: str) -> Exported | None:
    """The export of this very run, where it is there. Raises PlatemintError where another is."""
    folder = beside(run, form)
    if not (folder / RECORD).exists():
        return None
    record = read_json(folder / RECORD)
    if (record["format"], record["made_from"]) != (form, ExportedPlates(fetched(run)).fingerprint):
        raise PlatemintError(f"{folder}: was exported from another state of {run}: remove it, and run again")
    return Exported(folder, record["plates"], record["set_aside"])
