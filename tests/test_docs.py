"""Pages: every command runs, the site builds, links lead somewhere, the reference is the program's."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from platemint import run_pipeline
from platemint.pipeline.recipe import load_recipe

ROOT = Path(run_pipeline.__file__).parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def named(path):
    return str(path.relative_to(ROOT))


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="the extra `docs` brings it")
    command = ["-m", "sphinx", "-W", "--keep-going", "-q", "-d", tmp_path / "doctrees", "-c", ROOT / "docs", ROOT]
    built = subprocess.run([sys.executable, *map(str, command), str(tmp_path / "site")], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "docs" / "tutorial.html").is_file()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    """In plain Markdown, too: to a file of the repository, or outside."""
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf8"))
    missing = [t for t in targets if not t.startswith("https://") and not (page.parent / t).exists()]
    assert missing == []


def test_the_reference_is_what_the_program_says():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import reference
    finally:
        sys.path.pop(0)
    written = {page.name: page.read_text(encoding="utf8") for page in reference.FOLDER.glob("*.md")}
    assert written == reference.pages(), "run `python docs/reference.py`"


def test_each_field_of_a_recipe_and_of_a_layout_is_described():
    for page in ("recipes.md", "layouts.md"):
        rows = re.findall(r"^\| `\S+` \|.*$", (ROOT / "docs" / "reference" / page).read_text(encoding="utf8"), re.M)
        assert len(rows) > 20 and not [row for row in rows if row.endswith("|  |")]


# ------------------------------------------------------------------------------------------------------------ commands

PROGRAM = "python run_pipeline.py "
# Commands are run as they stand, but with few plates and steps: of an option given twice the last one counts.
FEW = {
    "generate": "--count 44",
    "rebalance": "--count 8",
    "train": "--set steps=1 --set batch=2 --set real=1 --set workers=0 --set generator_from=0",
    "edits": "--count 8 --references none",
    "leak": "--count 44 --steps 1",
    "lpr": "--count 8 --steps 1",
    "realism": "--count 44 --steps 1",
}
NOT_RUN = {  # what has this in it, and why
    "python3 -m venv": "installs from PyPI; .ci/run does, and tests/test_installed.py installs a wheel",
    "source .venv": "belongs to the installation",
    ".venv/bin/": "the tests and tools themselves",
    "pip install": "installs from PyPI",
    "s3://": "needs an object store; tests/test_object_store.py has a server of its own",
    "ray get-auth-token": "of a cluster",
    "ray status": "of a cluster",
    "ray start": "starts a cluster; tests/test_ray.py starts one of its own",
    PROGRAM + "generate mine.yaml --engine ray": "needs a cluster; tests/test_ray.py runs on one of its own",
    "fast-plate-ocr train": "another project's program, of which tests/test_exports.py has the rules of reading",
    "_PLATEMINT_COMPLETE": "the installed program's; tests/test_cli.py prints the script",
    "echo '. ~/.platemint": "changes the user's shell",
}
PLACES = {  # of few plates, half for testing: evaluate lpr needs 20 of each
    "val_share=0.2": "val_share=0.5",
    "CORPUS": "corpus",
    "DATASET": "corpus",
    "--input_dir DIR": "--input_dir given",
    "gt.txt": "given/gt.txt",
}


def commands(page):
    """The commands of a page: lines of sh blocks, those after $ in console blocks, and what begins like ours in a line."""
    text = page.read_text(encoding="utf8")
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S):
        lines = block.replace("\\\n", "").splitlines()
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        if language in ("sh", "console"):
            yield from (line.partition("  #")[0].strip() for line in lines if line and not line.startswith("#"))
    outside = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    yield from re.findall(rf"`({PROGRAM}[^`]+)`", outside)


def is_run(command):
    return not any(part in command for part in NOT_RUN)


def carried_out(command):
    """Runs a command in the folder that this process is in; fails where it does."""
    for name, place in PLACES.items():
        command = re.sub(rf"(?<![\w-]){re.escape(name)}(?!\w)", place, command)
    if not command.startswith(PROGRAM):
        if command.startswith("cd "):
            return os.chdir(command.split()[1])
        return subprocess.run(command, shell=True, check=True)
    words = shlex.split(command.removeprefix(PROGRAM))
    verb = words[1] if words[0] == "evaluate" else words[0]
    if verb == "rebalance" and "--until" in words:
        i = words.index("--until")
        del words[i : i + 2]
    result = CliRunner().invoke(run_pipeline.main, [*words, *shlex.split(FEW.get(verb, ""))])
    assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with what somebody may have: a corpus, of which some digits are rare, and texts for four of its pictures."""
    folder, here = tmp_path_factory.mktemp("begun"), Path.cwd()
    (folder / "outputs").mkdir()  # as in a clone
    (folder / "shares.csv").write_text("character,share\n" + "".join(f"{n},0.{n}\n" for n in range(10)))
    os.chdir(folder)
    try:
        given = "--set source.layouts=[us-california] --set source.val_share=0.5 --set balance.target=shares.csv"
        carried_out(f"{PROGRAM}generate quickstart {given} --out rendered")
        carried_out(f"{PROGRAM}export rendered --to imagefolder --out corpus")
    finally:
        os.chdir(here)
    (folder / "given").mkdir()
    pictures = sorted((folder / "corpus").rglob("*.jpg"))[:4]
    for i, picture in enumerate(pictures):
        shutil.copy(picture, folder / "given" / f"{i}.jpg")
    (folder / "given" / "gt.txt").write_text("".join(f"{i}.jpg 5ABC27{i}\n" for i in range(len(pictures))))
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if any(map(is_run, commands(page)))], ids=named)
def test_every_command_runs(page, begun, tmp_path, monkeypatch):
    """In the order of the page, each in what the ones before it have left."""
    folder = shutil.copytree(begun, tmp_path / "folder")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for command in filter(is_run, commands(page)):
        carried_out(command)
    os.chdir(folder)
    for program in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf8"), re.M | re.S):
        exec(program, {})


def test_the_notebook_runs(tmp_path, monkeypatch):
    """Its cells one after the other, as a kernel does; where a picture is stored, there is one again."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf8"))["cells"]
    names, shown = {}, []
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        program, value = ast.parse("".join(cell["source"])), None
        last = program.body.pop() if isinstance(program.body[-1], ast.Expr) else None
        exec(compile(program, "cell", "exec"), names)
        if last:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        stored = any("image/jpeg" in output.get("data", {}) for output in cell["outputs"])
        assert isinstance(value, Image.Image) == stored
        shown.append(stored)
    assert sum(shown) == 2


def test_what_is_not_run_is_there():
    every = [command for page in PAGES for command in commands(page)]
    untagged = [named(page) for page in PAGES if "" in re.findall(r"^```(.*)\n", page.read_text("utf8"), re.M)[::2]]
    assert len(every) > 50 and untagged == []
    assert [part for part in NOT_RUN if not any(part in command for command in every)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if "```yaml" in page.read_text(encoding="utf8")], ids=named)
def test_recipes_in_pages_are_recipes(page, tmp_path):
    for i, recipe in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf8"), re.M | re.S)):
        (tmp_path / f"{i}.yaml").write_text(recipe)
        load_recipe(tmp_path / f"{i}.yaml")
