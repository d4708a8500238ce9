"""audit.html: the audit of an anonymized dataset for who signs for it, and new plates to look at. Nothing of the dataset.

One file that loads nothing. It is printed without the plates, so that it can be filed. Of the dataset it holds names of
columns, and no other name, path or text: what else it says is counted, or stands here or in the templates,
audit_page.html and those that this one is of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from platemint.pipeline.recipe import AnonymizeRecipe
from platemint.pipeline.report.gallery import Gallery
from platemint.pipeline.report.page import BINS, for_script, histograms, rendered_page
from platemint.pipeline.versions import versions

TITLE = "Audit of an anonymized dataset"
OWN = [
    Path(__file__).parent / name for name in ("audit_page.py", "audit_page.html", "page.py", "page.html", "parts.html")
]
_FRAME = OWN[3].read_text(encoding="utf8")
# Every audit's page begins and ends with these.
HEAD = _FRAME.partition("<body>")[0].replace("{% block title %}{% endblock %}", TITLE) + "<body>"
TAIL = _FRAME.rpartition("{{ gallery | tojson }}")[2]
TITLES = {
    "plates": "Plates",
    "reasons": "Why plates were not replaced",
    "pictures": "Pictures",
    "annotations": "Annotations that found no picture",
    "pixels": "Pixels of the pictures written, before encoding",
    "reading": "Plates without a text, read from their pictures",
    "detector": "Plates that a detector found in the pictures written",
    "settings": "Settings",
    "source_characters": "Characters of the dataset's plates, looked for where they stood",
    "source_texts": "Texts of the dataset, searched in every name and byte of the output",
    "kept": "What stayed as it was",
}
FIGURES = {  # what figures of audit.json are called; one that is not here goes by its own name
    "plates.annotated": "annotated",
    "plates.found": "found by a detector, and not annotated",
    "plates.replaced": "shown with other characters",
    "plates.redacted": "made unreadable, without a text",
    "plates.withheld": "not in the output, nor are their pictures",
    "plates.set_aside": "in pictures or entries that could not be used, not in the output",
    "reasons.no text": "annotated without a text",
    "reasons.found, no text": "found by a detector, with no text that was read for sure",
    "reasons.a text that cannot be written": "the text has characters that cannot be written",
    "reasons.no new text is free": "no new text was free",
    "reasons.source read": "the old text might still be read",
    "reasons.source characters in view": "an old character was still to be seen",
    "reasons.a character too many read": "more was read than the new text",
    "reasons.not read where it is annotated": "the annotated text was not read from the photograph",
    "reasons.stability": "the new characters came out blurred, with no certain outlines",
    "reasons.slots": "the new characters were not in their places",
    "reasons.mask_reader": "the new characters' shapes were not read as the new text",
    "reasons.reader": "the new text was not read from the plate",
    "reasons.residue": "the old characters were still to be seen",
    "reasons.not proven once encoded": "the plate held until its picture was encoded, with loss",
    "pictures.written": "written",
    "pictures.withheld": "withheld",
    "pictures.set_aside": "could not be used, not in the output",
    "annotations.left_over": "annotations of plates that belong to no picture, and files of them in no known form",
    "annotations.pictures_withheld": "pictures without an annotated plate, not in the output for that reason",
    "missing_pictures_and_other_faults": "entries that could not be used, such as of missing pictures; not in the output",
    "pictures.without_annotation": "without any annotated plate; written as they are, metadata removed",
    "files_not_copied": "other files of the dataset, and columns, keys and members of its files, not in the output",
    "pixels.pixels": "in all",
    "pixels.changed": "changed",
    "pixels.outside": "changed outside of plates",
    "reading.min_reading": "least likelihood per character of a reading that is sure",
    "reading.without_text": "plates annotated without a text",
    "reading.read": "plates read for sure, those that a detector found included",
    "reading.read_and_replaced": "of these, shown with other characters",
    "reading.replaced_without_label": "of these, without the new text in an annotation",
    "reading.texts": "texts that only the reader has given; they are searched for like all others",
    "detector.finds": "what was done with plates found in the dataset outside annotations",
    "detector.found_replaced": "of these, shown with other characters",
    "detector.found_redacted": "of these, made unreadable",
    "detector.found_withheld": "of these, in pictures that are not in the output",
    "detector.found_not_annotated": "of these, in the pictures alone: their annotations have no place for them",
    "detector.min_score": "least score that counts",
    "detector.pictures": "pictures looked at",
    "detector.pictures_not_looked_at": "pictures it could not be run on",
    "detector.plates": "plates found",
    "detector.plates_covered": "of these, annotated ones",
    "detector.plates_uncovered": "of these, plates that no annotation covers",
    "source_characters.looked_for": "characters of replaced plates looked for",
    "source_characters.in_view": "of these still in view",
    "source_characters.not_placed": "characters of replaced plates too hard to read for that",
    "kept.picture_paths": "pictures written under the path and name that they had",
    "source_texts.searched": "texts searched",
    "source_texts.too_short_to_search": "texts too short to be searched",
    "source_texts.found": "times one was found",
    "source_texts.found_in_numbers_and_keys": "times one is a coordinate, size, id or key of an annotation file",
    "source_texts.found_in_coded_pixels": "times one came up among the numbers that code a picture",
    "source_texts.expected_there_by_chance": "times that is to be expected by chance",
    "source_texts.not_looked_into": "files that could not be looked into",
    "source_texts.files": "files searched, without this audit's two",
    "source_texts.bytes": "bytes searched",
    "reasons.overlaps another plate": "it overlaps another plate",
    "reasons.the same plate twice": "the same plate in the picture was given up",
    "reasons.in one picture with another": "another plate in the picture was given up",
}
HEADLINE = {
    "annotated": "plates annotated",
    "replaced": "replaced",
    "redacted": "made unreadable",
    "withheld": "left out, with their pictures",
    "set_aside": "in files that could not be used",
}
GIVEN_UP = "given_up"  # in audit.json, a list of {"id", "outcome", "reason"}
MOST_ROWS = 200  # of it on the page
# Makes the hash of an output again, in its folder, with GNU's programs: `pipeline.anonymize.audit.sha256_of_files`.
SHA256_COMMAND = (
    "find . -type f ! -path ./audit.html ! -path ./audit.json -print0 "
    "| LC_ALL=C sort -z | xargs -0r sha256sum -z | sha256sum"
)
VERIFY_COMMAND = "python run_pipeline.py verify OUTPUT --against DATASET"
NO_FIGURES = ("made_with", "output")  # sections that have places of their own on the page
ENHANCED = {
    "plain": "as it is",
    "stretched": "with its contrast stretched",
    "sharpened": "sharpened",
    "enlarged": "enlarged and cut closer",
}


def page(audit: dict, recipe: AnonymizeRecipe, looks: Iterable[str], shown: Gallery, scores: Counter) -> str:
    """The page of an audit, as `pipeline.anonymize.audit.as_dict` gives it.

    looks: how a plate was looked at for its old text, by the names of `ENHANCED`. shown: new plates. scores: as
    `pipeline.anonymize.audit.Audit` has them.
    """
    detector = audit.get("detector", {})
    model = {"detector, sha256": detector["sha256"]} if detector else {}
    limits = recipe.filter.model_dump()
    names = [
        name for name in dict.fromkeys(name for name, *_ in scores) if {f"min_{name}", f"max_{name}"} & limits.keys()
    ]
    plates = [plate | {"reason": _reason(plate["reason"])} for plate in shown.plates]
    return rendered_page(
        "audit_page.html",
        title=TITLE,
        audit=audit,
        recipe=recipe,
        detector=detector,
        headline=[(name, _figure(audit["plates"].get(key, 0))) for key, name in HEADLINE.items()],
        tables=list(_tables(audit)),
        given_up=[*map(_given_up, audit.get(GIVEN_UP, []))],
        most_rows=MOST_ROWS,
        seen=[ENHANCED.get(look, look) for look in looks],
        made_with=(audit["made_with"] | model).items(),
        renamed=audit["pictures"]["written"] - audit["kept"]["picture_paths"],
        verify=VERIFY_COMMAND,
        shown=shown,
        gallery=for_script(Gallery(plates, shown.total), names, limits, "replaced", "made unreadable"),
        scores=histograms(
            limits,
            {name: [[scores[name, kept, k] for k in range(BINS)] for kept in (True, False)] for name in names},
        ),
    )


def audit_settings(recipe: AnonymizeRecipe) -> dict[str, object]:
    """The fields of a recipe that decided which plates left; others are paths, words and names."""
    return {"on_doubt": recipe.on_doubt} | {f"filter.{name}": limit for name, limit in recipe.filter}


def own_words() -> str:
    """The letters of all that the page says whatever the dataset, in upper case and without anything between them."""
    return letters("".join(path.read_text(encoding="utf8") for path in OWN) + " ".join(versions()))


def letters(words: str) -> str:
    """The letters of words in upper case, without anything between them."""
    return "".join(c for c in words.upper() if c.isalpha())


def not_covered(recipe: AnonymizeRecipe, detector: dict, kept: dict, written: int) -> list[str]:
    """What nobody has to expect of an output. detector, kept: sections of its audit. written: pictures."""
    unannotated = "plates that nobody annotated stay as they are"
    if recipe.detector.finds != "list":
        unannotated = "plates that nobody annotated and the detector did not find stay as they are"
    if detector:
        unannotated = (
            f"{unannotated}; a detector looked for them in the result and found {detector['plates_uncovered']:,}, listed in audit.json; what "
            "it does not find, such as plates small in a large picture, nobody knows of"
        )
    keyed = ["keyed texts are pseudonyms: who has the key has the plates"] if recipe.key_file else []
    traces = (
        "traces of old characters that nobody can read may be left; platemint's command evaluate leak measures what a reader can "
        "recover that was trained on such plates and their true texts"
    )
    originals = (
        "whoever has the original pictures can tell which of them each new one was, and so its old plate: "
        f"{kept['picture_paths']:,} of {written:,} pictures kept their path and name, and outside of plates all of them "
        "show what they showed"
    )
    fields = (
        "all else that annotations say stays, but for old texts in it, and may say where a picture comes from: fields such as "
        "ids, sources, readings, cameras and times"
    )
    if kept["columns"]:
        fields += f"; columns kept: {', '.join(kept['columns'])}"
    identify = "vehicles, places, faces, stickers and times may still identify"
    return [identify, unannotated, originals, fields, traces, *keyed]


def _tables(audit: dict) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Title and rows for each section of figures; single figures are a table too. What else there is has another place."""
    for name, part in audit.items():
        if isinstance(part, dict) and any(part.values()) and name not in NO_FIGURES:
            figures = {key: value for key, value in part.items() if not isinstance(value, list) and key != "sha256"}
            shown = {key: value for key, value in figures.items() if value or name != "reasons"}
            rows = [(FIGURES.get(f"{name}.{key}", key), _figure(value)) for key, value in shown.items()]
            yield TITLES.get(name, name), rows
        elif isinstance(part, int | float):
            yield "", [(FIGURES.get(name, name), _figure(part))]


def _figure(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _reason(reason: str) -> str:
    return FIGURES.get(f"reasons.{reason}", reason)


def _given_up(item: dict[str, str]) -> tuple[str, str]:
    """A plate that was redacted or withheld, or what was set aside, by its id."""
    return item["id"], f"{item['outcome']}: {_reason(item['reason'])}"
