"""Linter, formatter and type checker find nothing; what CONTRIBUTING.md names is there.

Rules and their exceptions stand in ruff.toml and mypy.ini.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from platemint import run_pipeline

ROOT = Path(run_pipeline.__file__).parent


def finds_nothing(tool, *arguments, **options):
    pytest.importorskip(tool, reason="the extra `lint` brings it")
    command = [sys.executable, "-m", tool, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_ruff(arguments):
    finds_nothing("ruff", *arguments, ROOT)


def test_types(tmp_path):
    """The repository's folder is the package platemint, whatever it is called: mypy is shown a link of that name."""
    (tmp_path / "platemint").symlink_to(ROOT)
    packages = ["-p", "platemint.pipeline", "-p", "platemint.models"]
    cache = ROOT / ".mypy_cache"
    arguments = ["--config-file", ROOT / "mypy.ini", "--cache-dir", cache, *packages]
    finds_nothing("mypy", *arguments, cwd=tmp_path)


def test_files_and_tests_that_contributing_names_are_there():
    said = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
    files = {name for name in re.findall(r"`([\w/-]+\.(?:py|toml|ini|md))`", said) if "NAME" not in name}
    places = ["", "pipeline", "pipeline/corpora"]
    missing = {name for name in files if not any((ROOT / place / name).is_file() for place in places)}
    assert len(files) > 15 and not missing
    tests = "".join(path.read_text(encoding="utf8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", said))
    assert named and all(f"def {name}(" in tests for name in named)


# What every dataset format offers (corpora/datasets.py, corpora/containers.py) has one name in all of them.
FORMAT_FUNCTIONS = {"add", "chosen", "find", "fits", "member", "others", "parts", "picture", "read", "read_names"}
FORMAT_FUNCTIONS |= {"other_columns", "records", "rename", "rewrite", "room"}
PROTOCOLS = {"formats": FORMAT_FUNCTIONS, "exports": {"ready", "writer"}}  # by folder; exports: see exports/__init__.py


def public_names(path):
    """Top-level classes and functions of a file, but for commands, which are named after what they run."""
    for node in ast.parse(path.read_text(encoding="utf8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            if not any(".command(" in decorator or ".group(" in decorator for decorator in decorators):
                yield node.name


def test_no_public_name_has_two_meanings():
    places = {}
    for path in [ROOT / "run_pipeline.py", *(ROOT / "pipeline").rglob("*.py"), *(ROOT / "models").rglob("*.py")]:
        for name in public_names(path):
            if name not in PROTOCOLS.get(path.parent.name, ()):
                places.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert len(places) > 400 and {name: found for name, found in places.items() if len(found) > 1} == {}
