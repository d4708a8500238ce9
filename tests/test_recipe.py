"""Recipes: what they refuse, what they say about it, and what their hash depends on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_ins import frames

from platemint.pipeline.anonymize.run import anonymize
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.recipe import (
    AnonymizeRecipe,
    GenerateRecipe,
    Strict,
    TrainRecipe,
    dump,
    load_recipe,
    recipe_hash,
)
from platemint.pipeline.run import generate


def fault(tmp_path, text=None, sets=(), **more):
    path = None
    if text is not None:
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf8")
    with pytest.raises(PlatemintError) as caught:
        load_recipe(path, sets, **more)
    return str(caught.value)


def test_a_reserved_text_that_looks_like_a_number_stays_a_text(tmp_path):
    path = tmp_path / "dumped.yaml"
    path.write_text(dump(GenerateRecipe(draw={"reserved": ["0E0", "1e5"]})), encoding="utf8")
    assert load_recipe(path).draw.reserved == GenerateRecipe(draw={"reserved": ["0E0", "1e5"]}).draw.reserved


@given(
    st.integers(0, 2**63 - 1),
    st.floats(0, 1),
    st.lists(st.text(max_size=8), max_size=4),
    st.sampled_from(["jpeg", "png", "webp"]),
)
def test_a_dumped_recipe_loads_as_itself(tmp_path_factory, seed, least, reserved, form):
    recipe = GenerateRecipe(
        seed=seed, filter={"min_reader": least}, draw={"reserved": reserved}, write={"format": form}
    )
    path = tmp_path_factory.mktemp("recipe") / "dumped.yaml"
    path.write_text(dump(recipe), encoding="utf8")
    again = load_recipe(path)
    assert again == recipe
    assert recipe_hash(again) == recipe_hash(recipe)


def test_file_then_options_then_sets(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("count: 7\nseed: 7\nname: seven\nfilter:\n  # all below is commented out\n")
    sets = ["seed=9", "filter.min_reader=0.5", "write={masks: true}"]
    recipe = load_recipe(path, sets, overrides={"count": 8, "seed": 8})
    assert (recipe.count, recipe.seed, recipe.name) == (8, 9, "seven")
    assert recipe.filter.min_reader == 0.5 and recipe.filter.rounds == GenerateRecipe().filter.rounds
    assert recipe.write.masks


def test_an_unknown_field_is_refused_with_file_field_and_nearest_name(tmp_path):
    message = fault(tmp_path, "filter: {min_raeder: 0.8}\ncuont: 3")
    assert f"{tmp_path / 'my.yaml'}: filter.min_raeder: unknown field (did you mean min_reader?)" in message
    assert "max_residue" in message  # the fields there are
    assert "cuont: unknown field (did you mean count?)" in message  # every fault at once


@pytest.mark.parametrize(
    "text, said",
    [
        ("write: {format: jpg}", "write.format: must be 'jpeg', 'png' or 'webp', not 'jpg' (did you mean jpeg?)"),
        ("write: {quality: 101}", "write.quality: must be less than or equal to 100, not 101"),
        ("count: '8'", "count: must be a whole number, not '8'"),
        ("count: true", "count: must be a whole number, not True"),
        ("edit: {batch: 1.5}", "edit.batch: must be a whole number, not 1.5"),
        ("filter: {min_reader: .nan}", "filter.min_reader: must be"),
        ("draw: {reserved: [NO]}", "draw.reserved.0: must be text (in quotes"),
        ("name: ../elsewhere", "name: must be letters, digits"),
        ("filter: high", "filter: is a section with the fields min_stability, "),
        ("count: 1\ncount: 2", "line 1: not YAML: count stands here twice"),
        ("count: [", "not YAML"),
        ("- count", "a recipe is a list of `field: value` lines"),
        ("task: train", "task: a recipe for 'train'"),
        ("source: {path: x, layouts: [uk]}", "source: layouts is for rendered plates"),
        ("source: {split: val}", "source: split is for a corpus"),
        ("task: anonymize\ndraw: {forbid: nowhere.txt}", "draw.forbid: unknown field"),
        ("task: anonymize\nfilter: {rounds: 3}", "filter.rounds: unknown field"),
        ("task: train\nreal_share: 0.5", "real_share is for another network than spg"),
        ("task: train\nnetwork: reader\nadversarial: 0.1", "adversarial is for another network than reader"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_file_and_remedy(tmp_path, text, said):
    task = next((task for task in ("anonymize", "train") if f"task: {task}\n" in text), "generate")
    message = fault(tmp_path, text, task=task)
    assert message.startswith(str(tmp_path / "my.yaml"))
    assert said in message


@pytest.mark.parametrize(
    "assignment", ["filter.min_reader=2", "filter.min_reader='0.8'", "count.x=3", "edit=[", "nonsense"]
)
def test_a_wrong_set_is_refused_by_its_own_words(tmp_path, assignment):
    assert fault(tmp_path, sets=[assignment]).startswith(f"--set {assignment}")


def test_an_option_is_named_as_itself(tmp_path):
    assert fault(tmp_path, overrides={"source.path": 3}).startswith("--source: source.path: must be text")


def test_a_missing_recipe_names_those_that_ship(tmp_path):
    with pytest.raises(PlatemintError, match=r"did you mean quickstart\?.*recipes that ship: .*generate.*quickstart"):
        load_recipe("quikstart")


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "my.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(PlatemintError, match="not a text file"):
        load_recipe(tmp_path / "my.yaml")


@pytest.fixture
def read(monkeypatch):
    """The fields of recipes that are read from now on, as (class, field)."""
    found = set()

    def reading(self, name):
        if name in type(self).model_fields:
            found.add((type(self), name))
        return super(Strict, self).__getattribute__(name)

    monkeypatch.setattr(Strict, "__getattribute__", reading, raising=False)
    return found


def sections(model: type[Strict]) -> set[tuple[type[Strict], str]]:
    """All fields of a recipe and of its sections."""
    fields = {(model, name): field.annotation for name, field in model.model_fields.items()}
    inner = [kind for kind in fields.values() if isinstance(kind, type) and issubclass(kind, Strict)]
    return fields.keys() | {field for kind in inner for field in sections(kind)}


def test_generate_reads_every_field_that_its_recipe_takes(read, untrained, tmp_path):
    loose = {"min_stability": 0.0, "min_slots": 0.0, "min_mask_reader": 0.0, "min_reader": 0.0, "max_residue": 1.0}
    made = GenerateRecipe(
        count=1, source={"layouts": ["uk"]}, edit=untrained.model_dump(), filter=loose, out=str(tmp_path / "out")
    )
    read.clear()
    assert generate(made).accepted == 1
    unread = {f"{kind.__name__}.{name}" for kind, name in sections(GenerateRecipe) - read}
    of_corpora = {
        f"Source.{name}" for name in ("format", "classes", "layout", "grammar", "split", "unreadable", "max_set_aside")
    }
    assert unread - of_corpora == {"GenerateRecipe.task"}


def test_anonymize_reads_every_field_that_its_recipe_takes(read, untrained, tmp_path):
    frames(tmp_path / "in", {"ABC1234_a": []})
    made = AnonymizeRecipe(
        source={"path": str(tmp_path / "in")}, edit=untrained.model_dump(), name="x",
        draw={"blocked": ["QQ"]}, filter={"min_stability": 0.0}, detector={},
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr("platemint.pipeline.anonymize.anonymizer.LEGIBLE", 0.0)  # to an untrained reader
        read.clear()
        anonymize(made)
    unread = {f"{kind.__name__}.{name}" for kind, name in sections(AnonymizeRecipe) - read}
    of_others = {"AnonymizeRecipe.min_reading", "Detect.min_score", "Engine.address"}  # for --read, a detector, Ray
    assert unread == {"AnonymizeRecipe.task", "Edit.references"} | of_others  # private edits take no references


def test_recipes_that_ship_load():
    assert load_recipe("quickstart").count == 500 and not load_recipe("quickstart").source.path
    assert load_recipe("generate").source.path
    assert isinstance(load_recipe(None, task="train"), TrainRecipe)


def test_a_recipe_cannot_be_changed():
    recipe = load_recipe(None)
    with pytest.raises(ValueError, match="frozen"):
        recipe.filter.rounds = 9
    assert hash(recipe)  # every value in it is immutable


def test_the_hash_holds_what_decides_bytes_and_nothing_else():
    base = load_recipe(None)
    same = [load_recipe(None, [s]) for s in ("out=elsewhere", "engine.workers=7")]
    changes = ("seed=1", "count=501", "edit.threads=2", "filter.rounds=5", "write.quality=94")
    other = [load_recipe(None, [change]) for change in changes]
    assert {recipe_hash(r) for r in same} == {recipe_hash(base)}
    assert len({recipe_hash(r) for r in [base, *other]}) == 1 + len(other)


def test_the_run_folder_is_named_after_the_recipe_or_by_out():
    assert load_recipe(None, ["name=mine"]).folder.as_posix() == "outputs/mine"
    assert load_recipe(None, ["out=/a/b"]).folder.as_posix() == "/a/b"
