"""Pages: the site builds, links lead somewhere, the reference is the program's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from platemint import run_pipeline

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
