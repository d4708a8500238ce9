"""What is released: source, wheel, list of libraries, container files, citation."""

import configparser
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from platemint import run_pipeline

ROOT = Path(run_pipeline.__file__).parent
SETUP = configparser.ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg", encoding="utf8")
DOCKERFILES = ["Dockerfile", "Dockerfile.cuda"]
STARTS = {"ENTRYPOINT", "CMD"}


def run(*command, **options):
    result = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def names_in(wheel):
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def built(source, out, *kinds):
    """A source archive and the wheel made from it, or a wheel alone, from a copy: nothing of an earlier build gets in."""
    pytest.importorskip("build", reason="the extra `release` brings it")
    run("-m", "build", "--no-isolation", *kinds, "--outdir", out, source)
    return sorted(out.iterdir())


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    left_out = shutil.ignore_patterns(".*", "outputs", "build", "*.egg-info", "__pycache__")
    wheel, source = built(shutil.copytree(ROOT, folder / "source", ignore=left_out), folder / "dist")
    return wheel, source


@pytest.mark.wheel
def test_source_and_wheel_are_as_an_index_wants_them(released):
    pytest.importorskip("twine", reason="the extra `release` brings it")
    run("-m", "twine", "check", "--strict", *released)
    with zipfile.ZipFile(released[0]) as wheel:
        (metadata,) = (wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA"))
    shown, readme = metadata.partition("\n\n")[2], (ROOT / "README.md").read_text(encoding="utf8")
    assert {*re.findall(r"\]\(([^)]*)\)", readme)} and not re.findall(r"\]\((?!https:)[^)]*\)", shown)
    assert "Description-Content-Type: text/markdown" in metadata and "## Four uses" in shown and "rebalance" in shown


@pytest.mark.wheel
def test_the_source_holds_what_the_wheel_is_made_of_and_no_tests(released):
    wheel, source = released
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {name.removeprefix("platemint/") for name in names_in(wheel)} <= held
    assert {"LICENSE", "README.md", "constraints.txt", "CITATION.cff"} <= held
    assert not [name for name in held if name.startswith(("tests", "docs", "outputs"))]


def test_libraries_are_listed_with_version_and_licence(tmp_path):
    """Of this environment; CONTRIBUTING has it made of a clean one, and validated."""
    pytest.importorskip("cyclonedx_py", reason="the extra `release` brings it")
    run("-m", "cyclonedx_py", "environment", "--no-validate", "-o", tmp_path / "sbom.json", sys.executable)
    listed = {c["name"].lower(): c for c in json.loads((tmp_path / "sbom.json").read_text())["components"]}
    assert listed["pillow"]["version"] and listed["pillow"]["licenses"]
    assert {"torch", "numpy", "pyarrow"} <= listed.keys()


def test_every_library_that_is_asked_for_is_pinned():
    asked = [SETUP["options"]["install_requires"], *SETUP["options.extras_require"].values()]
    names = {re.split(r"[\[<>=]", line.strip())[0].lower() for part in asked for line in part.split()}
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    assert len(names) > 60 and {name for name in names if "%" not in name} - pinned == set()


# ---------------------------------------------------------------------------------------------------------- containers


def instructions(name):
    """Instruction and rest of each line of a container file, continued lines joined, comments left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(encoding="utf8"), flags=re.M).replace("\\\n", "")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_container_file_can_be_read(name):
    steps = instructions(name)
    assert steps[0][0] == "FROM" and {step for step, _ in steps} <= {"FROM", "ENV", "COPY", "RUN", "WORKDIR", *STARTS}
    for step, rest in steps:
        if step == "RUN":
            subprocess.run(["bash", "-n", "-c", rest], check=True)
        if step == "ENV":
            assert all(re.fullmatch(r"\w+=\S+", word) for word in rest.split())
        if step in STARTS:
            assert all(isinstance(word, str) for word in json.loads(rest))
    assert json.loads(dict(steps)["ENTRYPOINT"])[0] in SETUP["options.entry_points"]["console_scripts"]
    extras = re.findall(r"/src\[([\w,]+)\]", " ".join(rest for _, rest in steps))
    assert extras and set(extras[0].split(",")) <= SETUP["options.extras_require"].keys()


@pytest.mark.wheel
@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_a_container_file_copies_makes_the_same_wheel(name, released, tmp_path):
    for step, rest in instructions(name):
        *sources, target = rest.split()
        for source in sources if step == "COPY" else ():
            place = tmp_path / target.lstrip("/")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)
    (wheel,) = built(tmp_path / "src", tmp_path / "dist", "--wheel")
    assert names_in(wheel) == names_in(released[0])


# ------------------------------------------------------------------------------------------------------------ citation


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys() and cited["cff-version"] == "1.2.0"
    assert (cited["version"], cited["license"]) == (SETUP["metadata"]["version"], SETUP["metadata"]["license"])
    assert all({"type", "title", "authors"} <= reference.keys() for reference in cited["references"])
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf8"), re.M)[1]
    assert first == cited["version"]
