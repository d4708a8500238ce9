"""The README, the pages of this folder and the model card as a site: python -m sphinx -W -c docs . outputs/site.

All are read as plain Markdown, too.
"""

from importlib import metadata

project = "platemint"
release = version = metadata.version("platemint")
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**.md", "models/checkpoints/README.md"]
exclude_patterns = [".*", "outputs", "build"]
html_theme = "furo"
html_title = f"platemint {release}"
myst_heading_anchors = 3  # titles have the same #anchors as where Markdown is shown

# The order of the pages. It stands here and not in a page, where a reader of Markdown would see it as code.
PAGES = {
    "Learn": ["tutorial", "edit"],
    "How to": ["generate", "rebalance", "anonymize", "train", "export", "cluster", "storage", "onnx"],
    "What there is": ["index", "guarantees", "layouts", "measured"],
    "Reference": ["reference/commands", "reference/recipes", "reference/layouts", "reference/python"],
}
OTHERS = ["models/checkpoints/README", "CONTRIBUTING", "CHANGELOG"]


def setup(app):
    """Adds the order of the pages to the first one."""

    def add(app, name, source):
        if name == root_doc:
            pages = {caption: [f"docs/{page}" for page in pages] for caption, pages in PAGES.items()}
            for caption, listed in (pages | {"About": OTHERS}).items():
                source[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *listed, "```", ""])

    app.connect("source-read", add)
