"""platemint: balanced, labelled license-plate images, made from photographs of plates or from plates it renders.

from platemint import generate, load_recipe
manifest = generate(load_recipe("quickstart"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platemint.pipeline.anonymize.anonymizer import anonymize as anonymize
    from platemint.pipeline.edit import Editor as Editor
    from platemint.pipeline.plate import Plate as Plate
    from platemint.pipeline.plate import PlatemintError as PlatemintError
    from platemint.pipeline.recipe import load_recipe as load_recipe
    from platemint.pipeline.run import run as generate
    from platemint.pipeline.verify import verify as verify

# Where each public name is; imported when it is asked for, so that `import platemint` and --help are quick.
_PUBLIC = {}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'platemint' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(module), attribute)
