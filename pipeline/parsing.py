"""parsing: JSON, YAML and XML of unknown origin. What is nested too deeply, or would explode, is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from xml.etree import ElementTree

import yaml

MOST_DEPTH = 100  # levels; parsers and what walks their trees recurse, and Python allows about a thousand calls
MOST_YAML = 1 << 20  # characters: the parser takes seconds for so many, and recipes are a thousandth of it
MOST_NODES = 100_000  # of YAML, each alias counted as all that it stands for
DEEP = f"nested more than {MOST_DEPTH} levels deep"
_DOCTYPE = re.compile(r"<!(DOCTYPE|ENTITY)", re.IGNORECASE)


def parse_json(text: str | bytes) -> Any:
    """Raises ValueError for what is not JSON, or is nested too deeply."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(DEEP) from None
    _refuse_deep(
        [value], lambda held: held.values() if isinstance(held, dict) else held if isinstance(held, list) else ()
    )
    return value


def parse_xml(text: str) -> ElementTree.Element:
    """Raises ValueError for what is not XML, declares a document type or is nested too deeply."""
    if _DOCTYPE.search(text):
        raise ValueError("the file declares a document type, which can make it explode; remove <!DOCTYPE ...>")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as fault:
        raise ValueError(f"not XML: {fault}") from None
    _refuse_deep([root], iter)
    return root


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Plain values: tags of Python's objects are faults. Raises yaml.YAMLError for these too, and for what is too large."""
    if len(text) > MOST_YAML:
        raise yaml.YAMLError(f"more than {MOST_YAML:,} characters")
    opened = loader(text)
    try:
        node = opened.get_single_node()
        _refuse_expanding(node)
        return None if node is None else opened.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError(DEEP) from None
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as fault:  # of a date that no calendar has
        raise yaml.YAMLError(f"a value that is none: {fault}") from None
    finally:
        opened.dispose()


def _refuse_deep(level: list, parts: Callable[[Any], Iterable]) -> None:
    for _ in range(MOST_DEPTH):
        if not (level := [part for held in level for part in parts(held)]):
            return
    raise ValueError(DEEP)


def _refuse_expanding(node: yaml.Node | None) -> None:
    """Raises yaml.YAMLError where aliases of aliases stand for more than anybody writes, or for themselves."""
    waiting, seen = [node], 0
    while waiting:
        held = waiting.pop()
        seen += 1
        if seen > MOST_NODES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_NODES:,} values")
        if isinstance(held, yaml.SequenceNode):
            waiting += held.value
        elif isinstance(held, yaml.MappingNode):
            waiting += [part for pair in held.value for part in pair]
