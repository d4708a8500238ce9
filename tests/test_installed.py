"""Installed, it is the package platemint: what a wheel holds, what it runs beside, and what it offers."""

import inspect
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_type_hints

import pytest

import platemint
from platemint import run_pipeline

ROOT = Path(run_pipeline.__file__).parent


def run(*command, **options):
    result = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing of an earlier build gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".*", "outputs", "build", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT, folder / "source", ignore=left_out)
    run("-m", "pip", "wheel", source, "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", folder)
    (built,) = folder.glob("platemint-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel):
    """The folder that holds the package and nothing of the repository."""
    folder = wheel.parent / "installed"
    run("-m", "pip", "install", wheel, "--no-deps", "--no-index", "--quiet", "--target", folder)
    return folder


@pytest.mark.wheel
def test_a_wheel_holds_the_package_and_its_data_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = [
        path.relative_to(ROOT)
        for folder in ("pipeline", "models", "recipes")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".yaml", ".html", ".safetensors")
    ]
    assert len(tracked) > 100 and {f"platemint/{path.as_posix()}" for path in tracked} <= names
    assert {"platemint/run_pipeline.py", "platemint/py.typed", "platemint/__init__.py"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"platemint"}
    assert not [name for name in names if "/tests/" in name or "__pycache__" in name]


@pytest.mark.wheel
def test_it_runs_beside_folders_of_the_same_names(installed, tmp_path):
    for name in ("models", "pipeline", "recipes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('a folder of somebody else')\n")
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = ["-m", "platemint.run_pipeline", "generate", "quickstart", "--count", 20]
    result = run(*command, cwd=tmp_path, env=environment)
    assert "20 plates" in result.stdout and (tmp_path / "outputs" / "quickstart" / "manifest.json").is_file()
    where = "import platemint.pipeline.run as run; print(run.__file__)"
    assert run("-c", where, cwd=tmp_path, env=environment).stdout.startswith(str(installed))


@pytest.mark.parametrize("missing", ["platemint", "click"])
def test_a_clone_that_is_not_installed_says_how_to(tmp_path, missing):
    """A Python that has not what is missing: without its site-packages, or with a click and nothing else."""
    program = shutil.copy(ROOT / "run_pipeline.py", tmp_path)
    if missing == "platemint":
        (tmp_path / "click.py").touch()
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-S", program, "generate", "quickstart"]
    result = subprocess.run(command, capture_output=True, text=True, env=clean)
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and result.stdout == ""
    assert result.stderr.startswith(f"{missing} is not installed") and "pip install" in result.stderr


@pytest.mark.parametrize(
    "program, said",
    [
        ("raise ModuleNotFoundError(\"No module named 'numpy'\", name='numpy')", "install platemint again"),
        ("raise ImportError('libGL.so.1: cannot open shared object file')", "pip uninstall opencv-python"),
    ],
)
def test_a_library_that_cannot_be_loaded_is_one_message(tmp_path, program, said):
    (tmp_path / "cv2.py").write_text(program)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "platemint.run_pipeline", "generate", "quickstart", "--dry-run"]
    environment = os.environ | {"PYTHONPATH": path}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 1 and said in result.stderr and "Traceback" not in result.stderr


def test_opencv_loads_without_the_libraries_of_a_desktop():
    """As in a slim container. With opencv-python, which has windows, this holds only where a desktop is."""
    pytest.importorskip("cv2")
    from importlib import metadata

    if {d.metadata["Name"] for d in metadata.distributions()} & {"opencv-python", "opencv-contrib-python"}:
        pytest.skip("opencv-python is installed, which needs libGL")
    hidden = "import sys, cv2; print([line.split()[-1] for line in open('/proc/self/maps')])"
    assert "libGL" not in run("-c", hidden).stdout and "libX11" not in run("-c", hidden).stdout


# ------------------------------------------------------------------------------------------------------ import platemint


def test_ten_names_or_fewer_are_offered():
    assert 0 < len(platemint.__all__) <= 10 and dir(platemint) == platemint.__all__
    with pytest.raises(AttributeError, match="nothing"):
        _ = platemint.nothing


@pytest.mark.parametrize("name", platemint.__all__)
def test_each_is_documented_and_typed(name):
    offered = getattr(platemint, name)
    assert offered.__doc__ and len(offered.__doc__.split()) > 5 and not offered.__doc__.startswith(f"{name}(")
    for function in [offered] if inspect.isfunction(offered) else [f for _, f in inspect.getmembers(offered, _own)]:
        hints = get_type_hints(function)
        wanted = {p for p in inspect.signature(function).parameters if p != "self"} | {"return"}
        assert wanted <= {*hints, *({"return"} if function.__name__ == "__init__" else ())}, function


def _own(member):
    named = inspect.isfunction(member) and (not member.__name__.startswith("_") or member.__name__ == "__init__")
    return named and member.__module__.startswith("platemint")


def test_what_type_checkers_see_is_what_is_there():
    source = (ROOT / "__init__.py").read_text()
    for name, module in platemint._PUBLIC.items():
        assert f"from platemint.pipeline.{module} import {name} as {name}" in source
