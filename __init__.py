"""platemint: balanced, labelled license-plate images, made from photographs of plates or from plates it renders.

from platemint import generate, load_recipe
result = generate(load_recipe("quickstart"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from platemint.pipeline.anonymize.run import anonymize as anonymize
    from platemint.pipeline.corpora import read_corpus as read_corpus
    from platemint.pipeline.edit import Editor as Editor
    from platemint.pipeline.filter import Filter as Filter
    from platemint.pipeline.plate import Plate as Plate
    from platemint.pipeline.plate import PlatemintError as PlatemintError
    from platemint.pipeline.recipe import load_recipe as load_recipe
    from platemint.pipeline.run import generate as generate
    from platemint.pipeline.verify import verify as verify

# Where each public name is. It is imported when it is asked for: `import platemint` and --help load nothing heavy.
_PUBLIC = {
    "Editor": "edit",
    "Filter": "filter",
    "Plate": "plate",
    "PlatemintError": "plate",
    "anonymize": "anonymize.run",
    "generate": "run",
    "load_recipe": "recipe",
    "read_corpus": "corpora",
    "verify": "verify",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'platemint' has no attribute {name!r}")
    return getattr(import_module(f"platemint.pipeline.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
