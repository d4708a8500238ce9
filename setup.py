"""The package `platemint` is this folder: its packages stand at the top of the repository."""

import re
from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).with_name("README.md").read_text(encoding="utf8")
PICTURE = r"!\[[^\]]*\]\((?!https:)[^)]*\)\n\n\*[^*]*\*\n\n"  # of the repository, and the caption below it
LINK = r"\[([^\]]+)\]\((?!https:)[^)]*\)"  # to a page of the repository

# An index of packages shows the README alone, where neither leads anywhere.
description = re.sub(LINK, r"\1", re.sub(PICTURE, "", README))

inside = find_packages(include=["pipeline*", "models*", "recipes*"])
setup(
    packages=["platemint", *(f"platemint.{name}" for name in inside)],
    package_dir={"platemint": "."},
    long_description=f"{description}\n*The pages and pictures named here are in the repository.*\n",
    long_description_content_type="text/markdown",
)
