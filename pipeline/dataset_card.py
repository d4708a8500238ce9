"""The dataset card of a run: README.md, its header read by the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from platemint.pipeline import write
from platemint.pipeline.balance.evenness import evenness
from platemint.pipeline.recipe import GenerateRecipe

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))

_COLUMNS = {
    "image": "the plate",
    "mask": "where the new characters are (PNG, 0..255)",
    "slots": "where each character is: x, y of its middle, of the way to its right edge, of that to its lower edge",
    "text": "what the plate says",
    "layout": "name of the plate's layout, empty where it was not known",
    "split": "split of the source photograph; a source stays in its split",
    "source": "opaque id of the source photograph",
    "index": "number of the planned text",
    "round": "attempt at which it was accepted, from 0",
    "reading": "what our reader reads on the finished plate",
    "origin": "synthetic, or real for a plate of the corpus as it is",
    "digital_source_type": "IPTC digital source type",
}


def card(recipe: GenerateRecipe, shards: Sequence[dict], manifest: dict) -> str:
    """The card's text. shards: as plans have them. manifest: contents of manifest.json."""
    header = yaml.safe_dump(_header(recipe, shards, manifest), sort_keys=False, allow_unicode=True)
    return f"---\n{header}---\n\n{_body(recipe, manifest)}"


def _header(recipe: GenerateRecipe, shards: Sequence[dict], manifest: dict) -> dict:
    splits = dict.fromkeys(shard["split"] for shard in shards)
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    return {
        "pretty_name": recipe.name,
        **({"license": recipe.license} if recipe.license else {}),
        "task_categories": ["image-to-text"],
        "annotations_creators": ["machine-generated"],
        "size_categories": [next((name for size, name in _SIZES if manifest["accepted"] < size), "10M<n<100M")],
        "tags": ["synthetic", "image", "license-plates"],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def meanings(recipe: GenerateRecipe) -> dict[str, str]:
    """What each column of a run's shards means."""
    checks = {f"score_{name}": f"{says}, 0..1" for name, says in write.SAYS.items()}
    return {name: (_COLUMNS | checks)[name] for name in write.schema(recipe).names}


def _body(recipe: GenerateRecipe, manifest: dict) -> str:
    columns = meanings(recipe)
    kinds = {_EDITED if part.source.path else _RENDERED for part in recipe.parts}
    kind = "; and ".join(sorted(kinds))
    real = (
        f"\n\nBeside them {manifest['real']:,} plates of the corpus as they are (origin real)."
        if manifest["real"]
        else ""
    )
    return f"""# {recipe.name}

{manifest["accepted"]:,} labelled license plates, made by platemint: {kind}{real}

- seed {recipe.seed}, recipe sha256 `{manifest["recipe_sha256"]}`; the whole recipe is in `recipe.yaml`
- {sum(manifest["rejected"].values()):,} rejected plates, with reason and scores, are in `dropped/`
- {manifest["missing"]:,} planned texts could not be filled; which characters are missing is in `manifest.json`

## Columns

{_table(("column", "meaning"), columns.items())}

## Balance

How often each character stands at a position of the new plates, 0 the first; an even spread has max/min and entropy 1.

{_table(("position", "characters", "plates", "max/min", "entropy"), _evenness(manifest["counts"]))}

## Datasheet

{_table(("question", "answer"), _datasheet(recipe, manifest))}
"""


_EDITED = """photographs of
plates whose characters were replaced. Vehicle, place and time of a photograph may still be recognisable: this is no
guarantee of anonymity. The licence of the photographs carries over to these pictures."""

_RENDERED = """plates that
were rendered, and whose characters were then replaced. No photograph and no real plate was used."""


def _datasheet(recipe: GenerateRecipe, manifest: dict) -> list[tuple[str, str]]:
    """Questions of Gebru et al., Datasheets for Datasets (CACM 2021), as far as the run's files answer them."""
    photographs = any(part.source.path for part in recipe.parts)
    tries = manifest["accepted"] + sum(manifest["rejected"].values())
    return [
        ("What was it made for?", "Training license-plate recognition on characters that are evenly spread."),
        ("What is an instance?", "A picture of one plate, its text, and scores of the checks it passed."),
        (
            "How many are there?",
            f"{manifest['accepted'] + manifest['real']:,}, {manifest['real']:,} of them photographs as they are.",
        ),
        ("Is it a sample?", "Texts are drawn anew: they follow no real distribution, and no text comes twice."),
        (
            "How were labels made?",
            "The text is what was written on the plate. Column `reading` is what a recogniser read; it may differ, as in O for 0.",
        ),
        (
            "What was left out?",
            f"{sum(manifest['rejected'].values()):,} of {tries:,} edits, for their scores: hard pictures are rarer than in the source.",
        ),
        (
            "Are there errors?",
            f"On {manifest['read_otherwise']:,} plates the reader reads another text than was written, O and 0, I and 1 "
            "taken for the same. An edit may look unlike its source's typeface; the scores do not measure that.",
        ),
        ("Does it relate to people?", _people(photographs)),
        ("Which licence?", recipe.license or ("That of the photographs." if photographs else "None was given.")),
    ]


def _people(photographs: bool) -> str:
    if photographs:
        return "Photographs of real vehicles: place, time and vehicle may identify people, though texts are new."
    return "No: nothing in it was photographed."


def _evenness(counts: dict[str, dict[str, int]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for key, table in counts.items():
        position, alphabet, *scope = key.split("/", 2)
        figures = evenness(list(table.values()))
        if len(alphabet) > 1:
            rows.append(
                (
                    position,
                    " ".join([alphabet, *scope]),
                    f"{sum(table.values()):,}",
                    f"{figures['max_min']:.3f}",
                    f"{figures['entropy']:.5f}",
                )
            )
    return rows


def _table(head: tuple[str, ...], rows) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
