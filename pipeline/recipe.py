"""What a run is: typed, frozen recipes in which every default stands once, with its reason."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from platemint.pipeline.object_store import ObjectPath, place
from platemint.pipeline.parsing import parse_yaml
from platemint.pipeline.plate import UNREADABLE, PlatemintError, normalise

_PLAINLY = {  # pydantic's own words, where they are not a user's
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text (in quotes where YAML would read a number, yes, no or null)",
    "string_pattern_mismatch": "must be letters, digits and . _ - only, 100 at most, a letter or digit first",
    "invalid_key": "must be the name of a field",
}
# Where a run lands, who computes it, what may be done with it and what is made of it change no byte of its shards.
NOT_IN_HASH: dict[str, Any] = {
    "out": True,
    "engine": True,
    "source": {"license"},
    "sources": {"__all__": {"license"}},
    "write": {"also"},
}
Export = Literal["fast-plate-ocr", "paddleocr", "lmdb", "webdataset", "mds", "imagefolder", "ccpd", "yolo"]

Names = Annotated[tuple[str, ...], Field(strict=False)]  # YAML gives lists; a frozen recipe holds tuples
Share = Annotated[float, Field(ge=0, le=1)]
# In YAML a mapping {name: share}; a frozen recipe holds it as pairs. Lengths are numbers there and names here.
Shares = Annotated[
    tuple[tuple[str, Share], ...],
    Field(strict=False),
    BeforeValidator(lambda given: tuple((str(k), v) for k, v in given.items()) if isinstance(given, dict) else given),
    PlainSerializer(dict),
]


def _auto_or_number(workers: Any) -> int | str:
    if workers == "auto" or (type(workers) is int and 1 <= workers <= 1024):
        return workers
    raise ValueError(f"must be auto or a whole number from 1 to 1024, not {workers!r}")


_WORKERS = Union[Literal["auto"], Annotated[int, Field(ge=1, le=1024)]]
Workers = Annotated[Union[int, str], PlainValidator(_auto_or_number, json_schema_input_type=_WORKERS)]

# One field in every recipe that reads labels: what is no text for training is none for anonymize, and the other way round.
Unreadable = Annotated[
    Names,
    Field(description="Labels that say a plate cannot be read, and are no text; nor is one mark repeated (XXXX, ###)."),
]


class Strict(BaseModel):
    """A section of a recipe: unknown keys refused, no silent conversion ("8" is not 8), immutable once made."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_section(cls, data: Any) -> Any:
        return {} if data is None else data  # `filter:` with every line below it commented out


class Source(Strict):
    """Where source plates come from: a corpus of crops or frames, or plates rendered from layouts."""

    path: str = Field("", description="Labelled crops or annotated frames; empty, so that a first run needs no data.")
    format: str = Field("auto", description="Its format; auto takes the one that fits, and says by what.")
    classes: Names = Field((), description="Classes of plates, by name or number; empty: those that speak of plates.")
    layout: str = Field("", description="Layout the corpus's plates share; empty: patterns are read off labels.")
    grammar: str = Field("", description="What new texts follow: faker:LOCALE, a layout, or another corpus's labels.")
    tries: int = Field(
        0,
        ge=0,
        le=1000,
        description="Texts tried first on each photograph of a small group: one that takes none is not used.",
    )
    layouts: Names = Field((), description="Layouts to render; empty takes all: variety is what rendering is for.")
    split: str = Field("", description="Use only this split of the corpus; empty uses all, each kept apart.")
    unreadable: Unreadable = UNREADABLE
    max_set_aside: Share = Field(
        0.5, description="Most records, of all, that may be unusable: where half are, they are read wrongly."
    )
    license: str = Field("", description="Licence of the plates, as SPDX names it; the run's card carries it on.")
    val_share: Share = Field(0.0, description="Share of rendered plates in split val; 0, a later split is as easy.")

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        idle = ("layouts", "val_share") if self.path else ("classes", "layout", "split", "grammar", "tries")
        if given := [name for name in idle if getattr(self, name)]:
            here, there = ("a corpus", "rendered plates") if self.path else ("rendered plates (no path)", "a corpus")
            raise ValueError(f"{', '.join(given)} is for {there}, and this source is {here}")
        if self.layout and self.grammar:
            raise ValueError("layout and grammar both say what new texts follow: give one of them")
        return self


class MixedSource(Source):
    """One of several sources of a run."""

    share: Share | None = Field(None, description="Its share of the run; what is left is shared by those without one.")

    @model_validator(mode="after")
    def _not_empty(self) -> MixedSource:
        if not (self.path or self.layouts):
            raise ValueError("names neither a corpus (path) nor layouts to render")
        return self


class Balance(Strict):
    """What the new texts are balanced over, and to which shares."""

    per: Literal["position", "layout", "character"] = Field(
        "position",
        description="What is counted: a position over all layouts, or of each layout, or a character wherever it is.",
    )
    target: str = Field("uniform", description="A CSV of position,character,share or character,share; or uniform.")
    pairs: bool = Field(False, description="Even pairs of neighbours too, so that no reader learns one from the other.")
    layouts: Shares = Field((), description="Shares of layouts, parts of 1; others share what is left.")
    lengths: Shares = Field((), description="Shares of texts by their number of characters, likewise.")
    top_up: bool = Field(False, description="Add to what the corpus has, split by split: its rare characters first.")

    @model_validator(mode="after")
    def _what_goes_together(self) -> Balance:
        if self.top_up and (self.pairs or self.per == "character"):
            raise ValueError("top_up adds to single positions: it goes with neither pairs nor per: character")
        return self


class Words(Strict):
    """Texts that no new one may be."""

    blocked: Names = Field(
        ("ASS", "CUM", "FAG", "FKU", "FUC", "FUK", "FUX", "KKK", "NGR", "NIG", "SEX", "SHT", "TIT"),
        description="Words no text may hold; a layout may name more. Agencies block these and the like.",
    )
    reserved: Names = Field(
        ("NULL", "NA", "NAN", "NONE", "N/A", "NIL", "TRUE", "FALSE"),
        description="Texts never drawn: common table readers turn them into missing values or booleans.",
    )


class Draw(Words):
    """Which texts are never drawn."""

    forbid: str = Field(
        "", description="Texts never drawn: a file with one a line, or a corpus, whose labels they are."
    )
    lengths: Shares = Field(
        (),
        description="Shares of texts longer or shorter than their plate, {-1: 0.1, 1: 0.1}, of plates that have room.",
    )

    @model_validator(mode="after")
    def _of_other_lengths(self) -> Draw:
        if wrong := [d for d, _ in self.lengths if d not in ("-2", "-1", "1", "2")]:
            raise ValueError(f"lengths: {wrong[0]!r} is not one of -2, -1, 1, 2, the characters that a text has more")
        if sum(share for _, share in self.lengths) > 1 + 1e-9:
            raise ValueError("lengths: the shares add up to more than 1")
        return self


class Edit(Strict):
    """The networks that edit and judge plates, and the device they run on."""

    checkpoint: str = Field("spg-small", description="Generator: a name in models/checkpoints or a file.")
    reader: str = Field("reader", description="Reader that judges the edits: a name in models/checkpoints or a file.")
    find: Literal["auto", "none"] = Field(
        "auto",
        description="auto: where text fills little of a picture, it is edited in a frame around it; tight crops as ever.",
    )
    finder: str = Field("finder", description="Network that finds the text: a name in models/checkpoints or a file.")
    references: Literal["auto", "none"] = Field(
        "auto", description="auto draws letters as a corpus's other plates show them: no typeface is known as well."
    )
    batch: int = Field(32, ge=1, le=4096, description="Plates per forward pass; 32 fits 2 GB and fills small devices.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto takes the fastest there is.")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where it is faster.")
    threads: int = Field(
        1, ge=1, le=256, description="Torch threads of one batch. Sums depend on it, so it is fixed: same bytes."
    )


class Limits(Strict):
    """Which edits are kept, by their scores."""

    min_stability: Share = Field(0.1, description="Least agreement of the target mask cut a little higher and lower.")
    min_slots: Share = Field(0.6, description="Least agreement of the target mask with the text's length and places.")
    min_mask_reader: Share = Field(0.1, description="Least score of the text, read from the target mask alone.")
    min_reader: Share = Field(0.85, description="Least score of the text, read from the plate: about when it is right.")
    max_residue: Share = Field(0.2, description="Most that may still be seen of the source's characters.")


class Filtering(Limits):
    """Which edits are kept, and how often a rejected text is tried again."""

    min_source_reader: Share = Field(
        0.1,
        description="Least score of the source's label, read from the source: below, the one is not of the other.",
    )
    rounds: int = Field(24, ge=1, le=100, description="Tries per text, each on another source, until it is given up.")


class Write(Strict):
    """What each shard stores."""

    format: Literal["jpeg", "png", "webp"] = Field("jpeg", description="jpeg: what cameras and LPR datasets hold.")
    quality: int = Field(95, ge=1, le=100, description="Of jpeg and webp; 95 leaves no trace a recogniser would learn.")
    masks: bool = Field(False, description="Also store the mask of the new characters (PNG).")
    slots: bool = Field(False, description="Also store where each character stands: YOLO's boxes are made of it.")
    also: Annotated[tuple[Export, ...], Field(strict=False)] = Field(
        (), description="Formats that the finished run is exported to, in folders beside its own, NAME-FORMAT."
    )
    real: bool = Field(False, description="Also write the corpus's own plates, as they are: rows of origin real.")
    shard_rows: int = Field(1000, ge=1, le=100_000, description="Rows a shard: the most that a kill costs.")
    dropped_pixels: bool = Field(True, description="Keep rejected pictures too, so that a threshold can be looked at.")

    @model_validator(mode="after")
    def _boxes_need_slots(self) -> Write:
        if "yolo" in self.also and not self.slots:
            raise ValueError("also: yolo needs slots: true, which boxes of characters are made of")
        return self


class Engine(Strict):
    """Which processes compute the shards. It changes no byte of them."""

    kind: Literal["local", "ray"] = Field("local", description="Who runs shards: this machine, or a cluster of Ray.")
    address: str = Field("", description="Of a Ray cluster, such as auto or HOST:6379; empty starts one here.")
    workers: Workers = Field(
        "auto", description="Processes. auto uses all cores or GPUs; few plates are made soonest by one, in threads."
    )

    @model_validator(mode="after")
    def _address_of_ray(self) -> Engine:
        if self.address and self.kind != "ray":
            raise ValueError("address is of a Ray cluster: give kind: ray (--engine ray), too")
        return self


class GenerateRecipe(Strict):
    """Balanced labelled plates from a corpus of plates or from rendered ones."""

    task: Literal["generate"] = "generate"
    name: str = Field("plates", pattern=r"^\w[\w.-]{0,99}$", description="Names the run's folder.")
    seed: int = Field(0, ge=0, lt=2**63, description="Another seed is another dataset.")
    count: int = Field(500, ge=1, le=100_000_000, description="Accepted plates; 500 takes minutes on two CPU cores.")
    out: str = Field("", description="Run folder; empty is outputs/NAME.")
    source: Source = Source()
    sources: Annotated[
        tuple[MixedSource, ...], Field(strict=False, description="Several, with shares, and no source.")
    ] = ()
    balance: Balance = Balance()
    draw: Draw = Draw()
    edit: Edit = Edit()
    filter: Filtering = Filtering()
    write: Write = Write()
    engine: Engine = Engine()

    @model_validator(mode="after")
    def _needs_a_corpus(self) -> GenerateRecipe:
        wanted = [name for name, on in (("balance.top_up", self.balance.top_up), ("write.real", self.write.real)) if on]
        if wanted and not any(part.path for part in self.sources or (self.source,)):
            raise ValueError(f"{wanted[0]} is about a corpus's own plates: give one as source.path")
        if self.balance.top_up and self.draw.lengths:
            raise ValueError(
                "balance.top_up counts a corpus's plates as long as they are: it goes not with draw.lengths"
            )
        return self

    @model_validator(mode="after")
    def _one_or_several(self) -> GenerateRecipe:
        if not self.sources:
            return self
        if self.source != Source():
            raise ValueError("source and sources: give one of them")
        if twice := [part.path for part in self.sources if part.path and _listed_twice(part, self.sources)]:
            raise ValueError(f"sources: {twice[0]} stands there twice")
        shares_of(self.sources)
        return self

    @property
    def license(self) -> str:
        """The licences of its sources, "" where none is given."""
        return ", ".join(dict.fromkeys(part.source.license for part in self.parts if part.source.license))

    @property
    def parts(self) -> tuple[GenerateRecipe, ...]:
        """A recipe for each of its sources."""
        parts = (Source(**part.model_dump(exclude={"share"})) for part in self.sources)
        return tuple(self.model_copy(update={"source": part, "sources": ()}) for part in parts) or (self,)

    @property
    def folder(self) -> Path | ObjectPath:
        """The run folder. Raises PlatemintError where it is a URL of an unknown kind."""
        return place(self.out or f"outputs/{self.name}")


def _refuse_url(field: str, path: str, why: str) -> None:
    if "://" in path:
        raise ValueError(f"{field}: {path}: {why}: give a path of this machine, and copy from and to the store by hand")


def _listed_twice(part: MixedSource, parts: Iterable[MixedSource]) -> bool:
    """Whether the corpus of a part is another one's too: the same split, or one of both takes all."""
    same = (other for other in parts if other.path and Path(other.path).resolve() == Path(part.path).resolve())
    return any(other is not part and (not other.split or not part.split or other.split == part.split) for other in same)


def shares_of(sources: Iterable[MixedSource]) -> list[float]:
    """The share of each source of a mix. Raises ValueError where they do not add up to 1."""
    given = [source.share for source in sources]
    rest, open_ = 1 - sum(share for share in given if share is not None), given.count(None)
    if rest < -1e-9 or (rest > 1e-9) != bool(open_):
        why = "and nothing is left for those without one" if open_ else "they are parts of 1"
        raise ValueError(f"sources: the shares add up to {1 - rest:.4g}: {why}")
    if 0 in given:
        raise ValueError("sources: a share of 0: leave that source out")
    return [rest / open_ if share is None else share for share in given]


class DatasetSource(Strict):
    """The annotated dataset that is anonymized."""

    path: str = Field("", description="Folder of the annotated dataset.")
    format: str = Field("auto", description="Its format, such as coco, voc, yolo, ccpd; auto takes the one that fits.")
    unreadable: Unreadable = UNREADABLE
    classes: Names = Field((), description="Classes of plates, by name or number; empty: those that speak of plates.")


class Detect(Strict):
    """The plate detector that searches the anonymized pictures."""

    path: str = Field("", description="ONNX file of a plate detector that looks at the result; empty: none.")
    min_score: Share = Field(0.25, description="Least score of a plate found; most exports keep none below 0.25.")
    finds: Literal["list", "redact", "replace"] = Field(
        "list", description="What becomes of plates found outside annotations; replace reads them first."
    )

    @model_validator(mode="after")
    def _needs_a_model(self) -> Detect:
        if self.finds != "list" and not self.path:
            raise ValueError(f"finds: {self.finds} is about what a detector finds: give its file as path")
        return self


class AnonymizeRecipe(Strict):
    """The same dataset with other plates, or without those that cannot be replaced."""

    task: Literal["anonymize"] = "anonymize"
    name: str = Field("anonymized", pattern=r"^\w[\w.-]{0,99}$", description="Names the folder written.")
    out: str = Field("", description="Folder written; empty is outputs/NAME.")
    source: DatasetSource = DatasetSource()
    key_file: str = Field("", description="Key from which new texts are computed: the same plate, the same text.")
    track_consistent: bool = Field(False, description="The same plate, the same text, within this run alone.")
    list_file: str = Field("", description="CSV of the plates given up, for the owner alone: it names real plates.")
    on_doubt: Literal["redact", "withhold"] = Field("redact", description="What becomes of a plate not proven gone.")
    detector: Detect = Detect()
    read_texts: bool = Field(False, description="Read plates annotated without a text; replace those read for sure.")
    min_reading: Share = Field(
        0.96,
        description="Least score of a text that is read: of 673 real plates it takes 545 readings, 541 of them right.",
    )
    draw: Words = Words()
    edit: Edit = Edit()
    filter: Limits = Limits()
    engine: Engine = Engine()

    @model_validator(mode="after")
    def _on_this_machine(self) -> AnonymizeRecipe:
        for field, path in (("source.path", self.source.path), ("out", self.out), ("list_file", self.list_file)):
            _refuse_url(field, path, "anonymize works on local files, of which it leaves nothing anywhere else")
        return self

    @model_validator(mode="after")
    def _one_identity(self) -> AnonymizeRecipe:
        if self.key_file and self.track_consistent:
            raise ValueError(
                "key_file keeps a plate's text in all runs, track_consistent in this one: give one of them"
            )
        if self.key_file and self.list_file and Path(self.key_file).resolve() == Path(self.list_file).resolve():
            raise ValueError("key_file and list_file are one file: give the list another name")
        return self

    @property
    def folder(self) -> Path:
        """The folder written."""
        return Path(self.out or f"outputs/{self.name}")


class Alphabet(Strict):
    """What a network can spell is its checkpoint's to say, and grows by training."""

    add: str = Field("", description="More characters, as ÄÖÜ; a character starts from the one that is nearest to it.")
    freeze: bool = Field(
        False,
        description="Train what is of the added characters alone: texts of the others come out exactly as before.",
    )

    @model_validator(mode="after")
    def _new_characters(self) -> Alphabet:
        if wrong := "".join(c for c in self.add if not c.isalnum() or normalise(c) != c):
            raise ValueError(f"add: {wrong!r} is no capital letter or digit as labels have them")
        if len(set(self.add)) < len(self.add):
            raise ValueError(f"add: {self.add!r} holds a character twice")
        if self.freeze and not self.add:
            raise ValueError("freeze: nothing is trained without characters to add")
        return self


class TrainRecipe(Strict):
    """Training of generator, reader or finder, on rendered plates and, where a corpus is given, its crops."""

    task: Literal["train"] = "train"
    name: str = Field("spg", pattern=r"^\w[\w.-]{0,99}$", description="Names the run's folder and its checkpoint.")
    network: Literal["spg", "reader", "finder"] = Field("spg", description="What is trained.")
    size: Literal["small", "base"] = Field("small", description="Of a generator that starts afresh; base wants a GPU.")
    seed: int = Field(0, ge=0, lt=2**63, description="Pair number i is a function of seed and i alone.")
    out: str = Field("", description="Run folder; empty is outputs/NAME.")
    start: str = Field("", description="Checkpoint to start from; empty starts afresh.")
    parts: tuple[Literal["C_e", "T", "C_d", "E_s", "G_t"], ...] = Field(
        (), strict=False, description="Parts of the generator that learn; empty: all of it."
    )
    alphabet: Alphabet = Alphabet()
    reader: str = Field("", description="Reader that judges edits and checks a corpus's labels; empty: neither.")
    layouts: Names = Field(
        (), description="Layouts to render, loosened; empty: all but those of countries held out for measuring."
    )
    wild: Share = Field(0.5, description="Share of made-up layouts: the way to plates never seen.")
    source: str = Field("", description="Labelled plates to learn too; only their split train is used.")
    format: str = Field("auto", description="Their format; auto takes the one that fits.")
    max_set_aside: Share = Field(0.5, description="Most of their records, of all, that may be unusable.")
    unreadable: Unreadable = UNREADABLE
    real_share: Share = Field(0.3, description="Share of the reader's or finder's examples from that corpus.")
    real: int = Field(4, ge=1, le=4096, description="Crops of that corpus the generator edits there and back a step.")
    steps: int = Field(6000, ge=1, description="Optimiser steps.")
    batch: int = Field(
        8, ge=1, le=4096, description="Pairs a step, over all processes; steps are what a CPU is short of."
    )
    lr: float = Field(6e-4, gt=0, lt=1, description="Peak learning rate of AdamW.")
    warmup: int = Field(200, ge=1, description="Steps over which the learning rate rises.")
    cooldown: Share = Field(0.3, description="Share of the steps over which it falls.")
    clip: float = Field(5.0, gt=0, description="Largest gradient norm.")
    ema: float = Field(0.998, ge=0, lt=1, description="Decay of the averaged weights, the ones that are saved.")
    generator_from: int = Field(4000, ge=0, description="Step at which painting starts; masks come first.")
    recognition: float = Field(1.0, ge=0, description="Weight of the recognition loss.")
    adversarial: float = Field(0.0, ge=0, description="Weight of the adversarial loss; 0 leaves D_t out.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto takes cuda where there is one.")
    precision: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="Of the convolutions; weights stay float32."
    )
    threads: int = Field(1, ge=1, le=256, description="Torch threads.")
    workers: int = Field(1, ge=0, le=256, description="Processes that render ahead; 0 renders in between.")
    log_every: int = Field(50, ge=1, description="Steps between log lines.")
    validate_every: int = Field(500, ge=1, description="Steps between validations of the averaged weights.")
    patience: int = Field(12, ge=0, description="Validations without a better score that end the run; 0: never.")
    sheet_every: int = Field(500, ge=1, description="Steps between sample sheets.")
    save_minutes: float = Field(3.0, gt=0, description="Minutes between saves: what a kill costs at most.")

    @model_validator(mode="after")
    def _on_this_machine(self) -> TrainRecipe:
        _refuse_url("out", self.out, "checkpoints are saved every few minutes, in a local folder")
        return self

    @model_validator(mode="after")
    def _of_this_network(self) -> TrainRecipe:
        generator = ("size", "parts", "real", "generator_from", "recognition", "adversarial")
        idle = {"spg": ("real_share",), "reader": generator}
        idle["finder"] = (*generator, "reader")
        if self.alphabet.freeze and not self.start:
            raise ValueError(
                "alphabet.freeze: nothing is known yet that could stay as it is: give the checkpoint as start"
            )
        fields = type(self).model_fields
        if given := [name for name in idle[self.network] if getattr(self, name) != fields[name].default]:
            raise ValueError(f"{', '.join(given)} is for another network than {self.network}: leave it out")
        return self

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.out or f"outputs/{self.name}")


Recipe = Union[GenerateRecipe, TrainRecipe, AnonymizeRecipe]
TASKS: dict[str, type[Recipe]] = {"generate": GenerateRecipe, "train": TrainRecipe, "anonymize": AnonymizeRecipe}


def load_recipe(
    path: str | Path | ObjectPath | None,
    sets: Iterable[str] = (),
    task: str = "generate",
    overrides: Mapping[str, Any] = {},
) -> Recipe:
    """The recipe of a file (None: the defaults), then `overrides`, then `sets` on top.

    path: a YAML file, or the name of a recipe that ships (`quickstart`). sets: "filter.min_reader=0.8", the value read
    as YAML. overrides: values by dotted key, taken as they are. Raises PlatemintError naming file or option, and field.
    """
    file = None if path is None else _find(path)
    raw = _read(file) if file else {}
    if raw.get("task", task) != task:
        raise PlatemintError(f"{file}: task: a recipe for {raw['task']!r}; `{task}` takes one with task: {task}")
    origins = {key: f"--{key.split('.')[0]}" for key in overrides}
    values = dict(overrides)
    for assignment in sets:
        key, value = _parse_set(assignment)
        values[key], origins[key] = value, f"--set {assignment}"
    for key, value in values.items():
        _put(raw, key, value, origins[key])
    try:
        return TASKS[task].model_validate(raw)
    except ValidationError as error:
        raise PlatemintError("\n".join(_faults(TASKS[task], error, str(file or "recipe"), origins))) from None


def dump(recipe: Recipe) -> str:
    """The whole recipe as YAML, defaults included; `load_recipe` of it gives an equal recipe."""
    return yaml.dump(recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False)


def recipe_hash(recipe: Recipe) -> str:
    """sha256 (hex) of all that decides a run's bytes: everything but `NOT_IN_HASH`."""
    kept = recipe.model_dump(mode="json", exclude=NOT_IN_HASH)
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def nearest(name: str, names: Iterable[str]) -> str:
    """The words " (did you mean X?)" for the most similar of the names, "" when none is close."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _find(path: str | Path | ObjectPath) -> Path | ObjectPath:
    if place(path).is_file():
        return place(path)
    from platemint import recipes

    shipped = {p.stem: p for p in sorted(Path(recipes.__file__).parent.glob("*.yaml"))}
    if str(path) in shipped:
        return shipped[str(path)]
    hint = nearest(Path(str(path)).stem, shipped)
    raise PlatemintError(f"{path}: no such recipe file{hint}; recipes that ship: {', '.join(shipped)}")


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets a later key silently replace an earlier one; a recipe must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in keys.items():
            if count > 1:
                raise yaml.MarkedYAMLError(problem=f"{key} stands here twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 1e-4 for text, since it lacks a point; in a recipe it is the usual way to write a learning rate.
# The dumper has to know it too, so that it quotes a text such as 0E0.
class _Dumper(yaml.SafeDumper):
    """Writes what `_UniqueKeys` reads back as it was."""


for _yaml in (_UniqueKeys, _Dumper):
    _yaml.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def _parse(text: str, origin: str) -> Any:
    try:
        return parse_yaml(text, _UniqueKeys)
    except yaml.YAMLError as error:
        record = getattr(error, "problem_mark", None)
        where = f", line {record.line + 1}" if record else ""
        raise PlatemintError(f"{origin}{where}: not YAML: {getattr(error, 'problem', None) or error}") from None


def _read(file: Path | ObjectPath) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise PlatemintError(f"{file}: not a text file in UTF-8, so not a recipe") from None
    raw = _parse(text, str(file))
    if raw is not None and not isinstance(raw, dict):
        raise PlatemintError(f"{file}: a recipe is a list of `field: value` lines, this is a {type(raw).__name__}")
    return raw or {}


def _parse_set(assignment: str) -> tuple[str, Any]:
    key, equals, value = assignment.partition("=")
    if not equals or not key.strip():
        raise PlatemintError(f"--set {assignment}: write it as KEY=VALUE, for instance --set filter.min_reader=0.8")
    return key.strip(), _parse(value, f"--set {assignment}")


def _put(raw: dict[str, Any], key: str, value: Any, origin: str) -> None:
    *sections, last = key.split(".")
    for name in sections:
        if raw.get(name) is None:
            raw[name] = {}
        if not isinstance(raw[name], dict):
            raise PlatemintError(f"{origin}: {name} is a single value and has no field {last}")
        raw = raw[name]
    raw[last] = value


def _faults(model: type[Strict], error: ValidationError, file: str, origins: Mapping[str, str]) -> Iterable[str]:
    for fault in error.errors():
        key = ".".join(map(str, fault["loc"]))
        given = (origin for k, origin in origins.items() if (key + ".").startswith(k + ".") or k.startswith(key + "."))
        yield ": ".join(filter(None, [next(given, file), key, _explain(model, fault)]))


def _explain(model: type[Strict], fault: Mapping[str, Any]) -> str:
    if fault["type"] == "value_error":  # it may be about fields that do not go together, and then has no place
        return str(fault["ctx"]["error"])
    *sections, last = fault["loc"]
    if fault["type"] == "extra_forbidden":
        names = _fields(model, sections)
        return f"unknown field{nearest(str(last), names)}; fields here: {', '.join(names)}"
    if fault["type"] == "model_type":
        return f"is a section with the fields {', '.join(_fields(model, fault['loc']))}, not {fault['input']!r}"
    if fault["type"] == "literal_error":
        field = _fields(model, sections).get(last)  # None for an item of a list
        choices = get_args(field.annotation) if field else ()
        return f"must be {fault['ctx']['expected']}, not {fault['input']!r}{nearest(str(fault['input']), choices)}"
    must = _PLAINLY.get(fault["type"]) or re.sub(r"^(Input|String) should", "must", fault["msg"])
    return f"{must}, not {fault['input']!r}"


def _fields(model: type[Strict], sections: Iterable[str]) -> dict[str, Any]:
    for name in sections:
        if not isinstance(name, int):  # of a list's items
            if (field := getattr(model, "model_fields", {}).get(name)) is None:  # of what may have several forms
                return {}
            model = next(iter(get_args(field.annotation)), field.annotation)
    return getattr(model, "model_fields", {})
