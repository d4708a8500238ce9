"""The package `platemint` is this folder: its packages stand at the top of the repository."""

from setuptools import find_packages, setup

inside = find_packages(include=["pipeline*", "models*", "recipes*"])
setup(packages=["platemint", *(f"platemint.{name}" for name in inside)], package_dir={"platemint": "."})
