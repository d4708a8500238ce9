"""croissant.json: a run described for machines, in Croissant 1.0, so that dataset tools find, check and load it.

Specification: http://mlcommons.org/croissant/1.0, JSON-LD on top of schema.org's Dataset.
"""

from __future__ import annotations

import json

import pyarrow as pa

from platemint.pipeline.recipe import GenerateRecipe

# The context of the specification, whole: readers compare it.
_TERMS = """citeAs column equivalentProperty extract field fileObject fileProperty fileSet format includes isLiveDataset
jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source subField
transform""".split()
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
_TYPES = {pa.string(): "sc:Text", pa.int64(): "sc:Integer", pa.int32(): "sc:Integer", pa.float32(): "sc:Float"}


def croissant(recipe: GenerateRecipe, manifest: dict, schema: pa.Schema, columns: dict[str, str]) -> str:
    """The description of a finished run, JSON-LD.

    manifest: contents of manifest.json. schema: of its shards. columns: what each of them means, by name.
    """
    fields = [_field(name, schema.field(name).type, columns.get(name, "")) for name in schema.names]
    described = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": recipe.name,
        "description": f"{manifest['accepted']:,} labelled license plates, made by platemint.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "version": "1.0.0",
        **({"license": recipe.license} if recipe.license else {}),
        "distribution": [_shards()],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "plates",
                "name": "plates",
                "description": "A row for each plate.",
                "field": fields,
            }
        ],
    }
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def _shards() -> dict:
    return {
        "@type": "cr:FileSet",
        "@id": "shards",
        "name": "shards",
        "description": "Parquet shards, beside this file.",
        "encodingFormat": "application/x-parquet",
        "includes": "data/*.parquet",
    }


def _field(name: str, type: pa.DataType, meaning: str) -> dict:
    """A column of the shards. Pictures are structs, whose member `bytes` is the encoded picture."""
    source: dict = {"fileSet": {"@id": "shards"}, "extract": {"column": name}}
    if pa.types.is_struct(type):
        source["transform"] = {"jsonPath": "bytes"}
    return {
        "@type": "cr:Field",
        "@id": f"plates/{name}",
        "name": name,
        "description": meaning,
        "dataType": _TYPES.get(type, "sc:ImageObject"),
        "source": source,
    }
