"""edit: given texts on given plates, the SPG authors' inference call. What it is not sure of stands in scores.csv."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from platemint.pipeline import lock, storage, write
from platemint.pipeline.corpora import text_lines
from platemint.pipeline.edit import QUALITY, Editor, contact_sheet
from platemint.pipeline.engines import threads
from platemint.pipeline.filter import Filter
from platemint.pipeline.networks import batched
from platemint.pipeline.plate import Plate, PlatemintError, characters, normalise, spell_like
from platemint.pipeline.recipe import Edit, Filtering
from platemint.pipeline.references import MOST_PLATES
from platemint.pipeline.storage import read_picture

FORMATS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}  # that are written, by the name's ending
SHEET, LABELS, SCORES = "sheet.png", "gt.txt", "scores.csv"
SHOWN = 40  # plates on the sheet


def edit_folder(input_dir: Path, input_text: Path, source_text: Path | None, name: str, out: Path) -> str:
    """Edits the pictures of a folder to the texts of a `name text` file; returns a summary.

    source_text: what the pictures say, in the same form; where None, our reader reads them. Writes to out the edited
    pictures under their own names, gt.txt with their new texts, scores.csv with what our reader reads of each, its
    scores and which of `generate`'s default thresholds it fails, and sheet.png (source, B_s, B_t and edit of the first
    ones). What cannot be edited is set aside with its reason.
    Raises PlatemintError where out is the pictures' folder and where not one picture can be edited, Failure where
    another process writes to out.
    """
    folder = input_dir / text_lines.PICTURES if (input_dir / text_lines.PICTURES).is_dir() else input_dir
    if out.resolve() in (folder.resolve(), input_dir.resolve()):
        raise PlatemintError(f"--out {out}: is the folder of the pictures, which would be overwritten; choose another")
    options = Edit(checkpoint=name)
    editor, filter_ = Editor(options), Filter(Filtering(), options)
    known = {file: text for _, file, text in text_lines.pairs(source_text, folder)} if source_text else {}
    wanted = {
        file: (normalise(known.get(file, "")), normalise(text))
        for _, file, text in text_lines.pairs(input_text, folder)
    }
    with lock.held(out):
        return _edited(wanted, folder, editor, filter_, out)


def _edited(wanted: dict[str, tuple[str, str]], folder: Path, editor: Editor, filter_: Filter, out: Path) -> str:
    """Writes everything; returns the summary. wanted: {name: (source text, target)}."""
    aside: dict[str, str] = {}
    first = dict(islice(wanted.items(), MOST_PLATES))
    editor.references = editor.collected(
        _each(first, folder, editor, filter_, aside), filter_.reader, threads(1, editor.options.threads)
    )
    filter_.references = editor.references
    scored, shown = [], []
    for batch in batched(wanted.items(), editor.options.batch):
        plates = _edit_batch(dict(batch), folder, editor, filter_, aside)
        for file, plate in plates.items():
            storage.write(out / file, storage.encode(plate.image, FORMATS[Path(file).suffix.lower()], QUALITY))
            scored.append(_scores(file, plate))
        shown += list(plates.values())[: SHOWN - len(shown)]
    reasons = "".join(f"\n  {file}: {reason}" for file, reason in aside.items())
    if not scored:
        raise PlatemintError(f"{folder}: not one picture could be edited; {len(aside)} set aside{reasons}")
    storage.write(out / LABELS, "".join(f"{row['file']} {row['text']}\n" for row in scored))
    storage.write(out / SCORES, write.rows_as_csv(scored, scored[0]))
    storage.write(out / SHEET, storage.encode(contact_sheet(shown), "png", QUALITY))
    doubtful = sum(bool(row["reason"]) for row in scored)
    doubt = f", {doubtful} of them under the default thresholds (see {SCORES})" if doubtful else ""
    return f"{out}: {len(scored)} plates edited{doubt}; {len(aside)} set aside{reasons}"


def _scores(file: str, plate: Plate) -> dict[str, str]:
    scores = {name: f"{score:.4f}" for name, score in plate.scores.items()}
    return {"file": file, "text": plate.text, "reading": plate.reading, **scores, "reason": plate.reason}


def _edit_batch(
    wanted: dict[str, tuple[str, str]], folder: Path, editor: Editor, filter_: Filter, aside: dict[str, str]
) -> dict[str, Plate]:
    """{name: edited and scored plate}; what cannot be edited goes to aside with its reason."""
    plates = _read_some(wanted, folder, editor, filter_, aside)
    return dict(zip(plates, filter_(editor(list(plates.values())))))


def _each(wanted, folder: Path, editor: Editor, filter_: Filter, aside: dict[str, str]) -> Iterator[Plate]:
    """The plates that can be edited, one by one."""
    for some in batched(wanted.items(), editor.options.batch):
        yield from _read_some(dict(some), folder, editor, filter_, aside).values()


def _read_some(
    wanted: dict[str, tuple[str, str]], folder: Path, editor: Editor, filter_: Filter, aside: dict[str, str]
) -> dict[str, Plate]:
    """{name: plate with its target}; what cannot be edited goes to aside with its reason."""
    plates: dict[str, Plate] = {}
    for file, (text, target) in wanted.items():
        try:
            if Path(file).name != file or file in (SHEET, LABELS) or Path(file).suffix.lower() not in FORMATS:
                raise ValueError(f"must be the plain name of a picture ending in {', '.join(FORMATS)}")
            image, source = read_picture(folder / file)
            plates[file] = Plate(image, text, source=source, target=target)
        except ValueError as fault:
            aside[file] = str(fault)
    plates = dict(zip(plates, editor.find(list(plates.values()))))
    _read_missing([plate for plate in plates.values() if not plate.text], filter_)
    for file, plate in list(plates.items()):
        try:
            editor.check(plate)
        except PlatemintError as fault:
            aside[file] = str(fault)
            del plates[file]
    return plates


def _read_missing(plates: list[Plate], filter_: Filter) -> None:
    """Reads the source texts that were not given."""
    if not plates:
        return
    for plate, (text, _) in zip(plates, filter_.read([filter_.view(plate.image, plate) for plate in plates])):
        same_count = len(text) == len(characters(plate.target))  # then separators of the target are on the plate too
        plate.text = spell_like(text, plate.target) if same_count else text
