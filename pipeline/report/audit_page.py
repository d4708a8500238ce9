"""audit.html: the audit of an anonymized dataset for who signs for it. Figures and sentences, nothing of the dataset.

One file without scripts, pictures or anything from elsewhere, so that it can be filed and printed as it is. It holds no
name, path or text of the dataset: what it says is counted or written here.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from platemint.pipeline.recipe import AnonymizeRecipe
from platemint.pipeline.run import versions

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
    "reasons.stability": "the new characters' shapes were unsettled",
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
    "files_not_copied": "other files of the dataset, not in the output",
    "pixels.pixels": "in all",
    "pixels.changed": "changed",
    "pixels.outside": "changed outside of plates",
    "reading.min_reading": "least likelihood per character of a reading that is sure",
    "reading.without_text": "plates annotated without a text",
    "reading.read": "plates read for sure, those that a detector found included",
    "reading.read_and_replaced": "of these, shown with other characters",
    "reading.replaced_without_label": "of these, without the new text in an annotation",
    "reading.texts": "texts that nothing but the reading told; they are searched for like all others",
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
    "source_texts.searched": "texts searched",
    "source_texts.too_short_to_search": "texts too short to be searched",
    "source_texts.found": "times one was found",
    "source_texts.found_in_numbers_and_keys": "times one is a coordinate, size, id or key of an annotation file",
    "source_texts.found_in_coded_pixels": "times one came up among the numbers that code a picture",
    "source_texts.expected_there_by_chance": "times that is to be expected by chance",
    "source_texts.not_looked_into": "files that could not be looked into",
    "source_texts.files": "files searched",
    "source_texts.bytes": "bytes searched",
    "reasons.overlaps another plate": "it overlaps another plate",
    "reasons.the same plate twice": "the same plate in the picture was given up",
    "reasons.in one picture with another": "another plate in the picture was given up",
}
GIVEN_UP = "given_up"  # in audit.json, a list of {"id", "outcome", "reason"}
MOST_ROWS = 200  # of it on the page
IDENTITY = {
    "none": "Each plate of each picture has a text of its own. Nothing that was kept links new texts to old ones.",
    "within this run": "A plate has the same new text in all pictures, so that pictures of one vehicle can be told to "
    "belong together. What linked new texts to old ones was thrown away when the run ended.",
    "keyed": "New texts are computed from the old ones with a secret key: a plate has the same one wherever this key "
    "is used. Who has the key can compute the old texts. For them the output is pseudonymised, not anonymous.",
}
ON_DOUBT = {"redact": "made unreadable", "withhold": "kept out of the output with its whole picture"}
WITHOUT_TEXT = {
    False: "made unreadable",
    True: "read and, where the reader was sure, treated like others; else it was made unreadable",
}
FINDS = {
    "redact": "What a plate detector found outside annotations was made unreadable.",
    "replace": "What a plate detector found outside annotations was read and, where the reader was sure, treated like "
    "annotated plates; else it was made unreadable.",
}
ENHANCED = {
    "plain": "as it is",
    "stretched": "with its contrast stretched",
    "sharpened": "sharpened",
    "enlarged": "enlarged and cut closer",
}
LOOKED = (
    "A plate detector looked at every picture of the output as it is written, scaled to its own input. What it found is "
    "covered where at least half of the larger box, its own or the one around an annotated plate, is shared by both. A "
    "picture that is one plate as a whole is covered as a whole."
)
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 1rem; color: #111; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.result { border: 2px solid #1a6b2f; padding: .6rem 1rem; font-weight: 600; } .bad { border-color: #a00; color: #a00; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; break-inside: avoid; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
td { border-top: 1px solid #ccc; padding: .25rem .5rem .25rem 0; vertical-align: top; overflow-wrap: anywhere; }
td + td { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; padding-right: 0; }
.made td + td { white-space: normal; font-family: ui-monospace, monospace; font-size: .8rem; }
.sign td { height: 3rem; width: 50%; } .sign td + td { text-align: left; white-space: normal; }
@media print { body { font-size: 11pt; padding: 0; } h2 { break-after: avoid; } }
"""
HEAD = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit of an anonymized dataset</title>
<style>{STYLE}</style>
</head>
<body>"""


def page(audit: dict, recipe: AnonymizeRecipe, looks: Iterable[str]) -> str:
    """The page of an audit, as `pipeline.anonymize.as_dict` gives it.

    looks: how a plate was looked at for its old text, as in `LOOKS`.
    """
    parts = [
        "<h1>Audit of an anonymized dataset</h1>",
        _result(audit),
        _section("What was done", _done(audit, recipe)),
        "<h2>Figures</h2>",
        *_tables(audit),
        *_given_up(audit.get(GIVEN_UP, [])),
        _section("What was checked, and how", _checks(recipe, looks)),
        _section("What is not covered", audit["not_covered"]),
        "<h2>Made with</h2>",
        _table("", (audit["made_with"] | _model(audit)).items(), "made"),
        "<h2>Signed</h2>",
        _table("", [("Name and office", "Day and signature")], "sign"),
    ]
    return "\n".join([HEAD, *parts, "</body>\n</html>\n"])


def settings(recipe: AnonymizeRecipe) -> dict[str, object]:
    """The fields of a recipe that decided which plates left; others are paths, words and names."""
    return {"on_doubt": recipe.on_doubt} | {f"filter.{name}": limit for name, limit in recipe.filter}


def own_words() -> str:
    """The letters of all that the page says whatever the dataset, in upper case and without anything between them."""
    words = Path(__file__).read_text(encoding="utf8") + " ".join(versions())
    return "".join(c for c in words.upper() if c.isalpha())


def not_covered(recipe: AnonymizeRecipe, detector: dict) -> list[str]:
    """What nobody has to expect of an output. detector: that section of its audit, {} for none."""
    told = "plates that nobody annotated stay as they are"
    if recipe.detector.finds != "list":
        told = "plates that nobody annotated and the detector did not find stay as they are"
    if detector:
        told = (
            f"{told}; a detector looked for them in the result and found {detector['plates_uncovered']:,}, listed in audit.json; what "
            "it does not find, such as plates small in a large picture, nobody knows of"
        )
    keyed = ["keyed texts are pseudonyms: who has the key has the plates"] if recipe.key_file else []
    traces = (
        "traces of old characters that nobody can read may be left; `evaluate leak` measures what a reader tells that was "
        "trained on such plates and their true texts"
    )
    return ["vehicles, places, faces, stickers and times may still identify", told, traces, *keyed]


def _result(audit: dict) -> str:
    found, outside = audit["source_texts"]["found"], audit["pixels"]["outside"]
    looked_for, in_view = (audit["source_characters"][name] for name in ("looked_for", "in_view"))
    if not found and not outside and not in_view:
        told = (
            f"No text of the dataset was found in the output, none of {looked_for:,} characters that were looked for on "
            "replaced plates, and nothing was changed outside of plates."
        )
        if left := _left(audit.get("detector", {})):
            return f'<p class="result bad">Not to be passed on yet: {left} {told}</p>'
        return f'<p class="result">{told}</p>'
    told = (
        f"Not to be passed on: {found:,} times a text of the dataset was found in the output, {in_view:,} characters of its "
        f"plates are still in view, and {outside:,} pixels were changed outside of plates."
    )
    return f'<p class="result bad">{told}</p>'


def _left(detector: dict) -> str:
    """What a detector has left for somebody to look at, "" for nothing."""
    uncovered, unseen = (detector.get(key, 0) for key in ("plates_uncovered", "pictures_not_looked_at"))
    if not uncovered and not unseen:
        return ""
    return (
        f"a detector found {uncovered:,} plates that no annotation covers, shown as they were, and could not look at "
        f"{unseen:,} pictures. Somebody has to: audit.json lists them."
    )


def _model(audit: dict) -> dict[str, str]:
    return {"detector, sha256": audit["detector"]["sha256"]} if "detector" in audit else {}


def _done(audit: dict, recipe: AnonymizeRecipe) -> list[str]:
    return [
        "The dataset was written anew in its own format. On its annotated plates the "
        "characters' cells were painted anew, with new characters, evenly spaced; labels, other annotations and names of files and folders were given the new texts.",
        IDENTITY.get(audit["identity"], audit["identity"]),
        f"A plate of which it could not be shown that its old text is gone was {ON_DOUBT[recipe.on_doubt]}. A plate "
        f"annotated without a text was {WITHOUT_TEXT[recipe.read_texts]}.",
        *([FINDS[recipe.detector.finds]] if recipe.detector.finds != "list" else []),
        _bare(audit["annotations"]),
        "Pictures were encoded anew, without the metadata they had: EXIF, GPS, XMP, thumbnails, comments.",
    ]


def _bare(annotations: dict[str, int]) -> str:
    """What became of pictures without an annotated plate."""
    if left := annotations["left_over"]:
        return (
            f"{left:,} annotations of plates found no picture. Each may be about one of the pictures without an annotated "
            f"plate: these, {annotations['pictures_withheld']:,}, were kept out of the output."
        )
    return "Every annotation of a plate found its picture. Pictures without one were written as they are."


def _checks(recipe: AnonymizeRecipe, looks: Iterable[str]) -> list[str]:
    limits, seen = recipe.filter, ", ".join(ENHANCED.get(look, look) for look in looks)
    return [
        "A new text is none of the dataset's, nor read like one, confusable characters (O and 0, I and 1) counting as "
        "the same.",
        "A network that reads plates has to read the new text from the plate, with a likelihood per character of at "
        f"least {limits.min_reader:g}; where it could not read the photograph either, from the new characters' shapes "
        f"alone, with at least {limits.min_mask_reader:g}.",
        f"The same network looked for the old text: at the plate {seen}. A plate was given up where it read that text "
        f"or one a character off it, or gave it a likelihood per character of more than {limits.max_residue:g}.",
        "Where a picture's format loses (JPEG), both were done again with the plates as the finished file shows them.",
        "Every picture was compared with the original, pixel by pixel, before it was encoded.",
        *([LOOKED] if recipe.detector.path else []),
        "Every byte and name of the output was searched for every text of the dataset: as part of something longer, in "
        "any case, with and without separators.",
        "Who has the dataset can repeat these checks from the two folders alone: python run_pipeline.py verify OUTPUT "
        "--against DATASET.",
    ]


def _tables(audit: dict) -> list[str]:
    """A table for each section of figures; single figures are a table too. What else there is has another place."""
    tables = []
    for name, part in audit.items():
        if isinstance(part, dict) and any(part.values()) and name != "made_with":
            figures = {key: value for key, value in part.items() if not isinstance(value, list) and key != "sha256"}
            told = {key: value for key, value in figures.items() if value or name != "reasons"}
            rows = [(FIGURES.get(f"{name}.{key}", key), value) for key, value in told.items()]
            tables.append(_table(TITLES.get(name, name), rows))
        elif isinstance(part, int | float):
            tables.append(_table("", [(FIGURES.get(name, name), part)]))
    return tables


def _given_up(items: list[dict[str, str]]) -> list[str]:
    """Which plates were redacted or withheld and what was set aside, by ids."""
    if not items:
        return []
    told = [
        "Each line is a plate, or a picture or an entry that could not be used. Who ran this may have had a list written "
        "(--list) that says which. Nobody else can tell: ids are hashes under a secret that was thrown away."
    ]
    if len(items) > MOST_ROWS:
        told.append(f"These are {MOST_ROWS:,}; {len(items) - MOST_ROWS:,} more stand in audit.json.")
    shown = items[:MOST_ROWS]
    rows = [
        (item["id"], f"{item['outcome']}: {FIGURES.get('reasons.' + item['reason'], item['reason'])}") for item in shown
    ]
    return [_section("Plates given up, and what was set aside", told), _table("", rows, "made")]


def _section(title: str, sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<h2>{escape(title)}</h2>\n<ul>{items}</ul>"


def _table(caption: str, rows: Iterable[tuple[str, object]], kind: str = "") -> str:
    shown = f"<caption>{escape(caption)}</caption>" if caption else ""
    cells = "".join(f"<tr><td>{escape(str(name))}</td><td>{escape(_plain(value))}</td></tr>" for name, value in rows)
    return f'<table class="{kind}">{shown}{cells}</table>'


def _plain(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
