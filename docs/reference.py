"""Writes the pages of docs/reference from the program itself: python docs/reference.py.

Recipes from the fields of their classes, layouts likewise, commands from their --help, Python from docstrings.
tests/test_docs.py compares the pages with what this writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

import platemint
from platemint import run_pipeline
from platemint.pipeline.recipe import TASKS
from platemint.pipeline.render.layout import Layout, load_layouts

FOLDER = Path(__file__).parent / "reference"
WIDTH = 100  # characters of a line of --help
HEADER = "| field | default | values | what it is |\n|---|---|---|---|"


def pages() -> dict[str, str]:
    """The text of each page by its file name."""
    return {"recipes.md": recipes(), "layouts.md": layouts(), "commands.md": commands(), "python.md": python()}


def recipes() -> str:
    """Every field of every recipe."""
    parts = [
        "# Recipes",
        "Every field of every recipe, with its default. A recipe holds only what differs. Any field can be set from the "
        "command line: `--set filter.min_reader=0.7`. `rebalance` takes the recipe of `generate`.",
    ]
    for task, model in TASKS.items():
        schema = model.model_json_schema()
        parts += [f"## {task}", schema["description"], *_tables(schema, schema["$defs"], "")]
    return _joined(parts)


def layouts() -> str:
    """Every field of a layout, and the layouts that ship."""
    schema = Layout.model_json_schema()
    parts = [
        "# Layouts",
        "A layout is a YAML file in `recipes/layouts`. [How to add one](../layouts.md).",
        "## Fields",
        schema["description"],
        *_tables(schema, schema["$defs"], ""),
        "## Those that ship",
    ]
    rows = (
        f"| `{k.name}` | {k.country} | `{'` / `'.join(r.pattern for r in k.rows)}` | {k.about} |"
        for k in load_layouts().values()
    )
    return _joined([*parts, "\n".join(["| name | country | rows | what it is |", "|---|---|---|---|", *rows])])


def commands() -> str:
    """The --help of every command."""
    program = click.Context(run_pipeline.main, info_name="platemint", **run_pipeline.main.context_settings)
    parts = ["# Commands", "`python run_pipeline.py VERB --help`; installed, the program is called `platemint`, too."]
    for title, text in _help(program):
        parts += [f"## {title}", f"```text\n{text}\n```"]
    return _joined(parts)


def python() -> str:
    """What `import platemint` offers."""
    about, example = inspect.getdoc(platemint).split("\n\n")
    parts = ["# Python", about, f"```python\n{example}\n```"]
    for name in platemint.__all__:
        offered = getattr(platemint, name)
        parts += [f"## {name}", _signature(name, offered), inspect.getdoc(offered)]
        methods = inspect.getmembers(offered, inspect.isfunction) if inspect.isclass(offered) else ()
        for method, function in methods:
            if not method.startswith("_") and function.__doc__:
                parts += [f"### {name}.{method}", _signature(method, function), inspect.getdoc(function)]
    return _joined(parts)


def _tables(schema: dict[str, Any], others: dict[str, Any], within: str) -> Iterator[str]:
    """A table of the plain fields, then one for each section. within: the dotted name of the section, "" of a recipe."""
    plain, sections = [], []
    for name, field in schema["properties"].items():
        key = f"{within}.{name}" if within else name
        if section := _section(field):
            sections.append((key, others[section]))
        elif "const" not in field:
            plain.append((key, field))
    if plain:
        yield "\n".join([HEADER, *(_row(key, field, schema.get("required", ())) for key, field in plain)])
    for key, section in sections:
        yield f"### {key}"
        yield section["description"]
        yield from _tables(section, others, key)


def _section(field: dict[str, Any]) -> str:
    """The name of the class of a section, or of the items of a list of sections; "" for a value."""
    return field.get("$ref", field.get("items", {}).get("$ref", "")).rpartition("/")[2]


def _row(key: str, field: dict[str, Any], required: list[str]) -> str:
    default = "required" if key.rpartition(".")[2] in required else f"`{_yaml(field.get('default'))}`"
    cells = [f"`{key}`", default, _values(field), field.get("description", "")]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _yaml(value: Any) -> str:
    """A default as one would write it in a recipe."""
    shown = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).strip()
    return shown.removesuffix("\n...").replace("'", '"')


def _values(field: dict[str, Any]) -> str:
    """What a field takes, in words."""
    if "anyOf" in field:
        return ", ".join(_values(part) for part in field["anyOf"] if part.get("type") != "null")
    if "enum" in field or "const" in field:
        return ", ".join(map(str, field.get("enum", [field.get("const")])))
    kind = field.get("type", "")
    if kind == "array":
        return _listed(field)
    if kind in ("integer", "number"):
        return " ".join(filter(None, ["whole number" if kind == "integer" else "number", _bounds(field)]))
    return {"boolean": "true, false", "string": "text", "object": "texts by name"}.get(kind, kind)


def _listed(field: dict[str, Any]) -> str:
    items = field.get("items") or {}
    if parts := field.get("prefixItems"):
        return f"{len(parts)} numbers"
    if parts := items.get("prefixItems"):
        return "shares by name" if parts[0].get("type") == "string" else f"list of {len(parts)} numbers each"
    return f"list of {_values(items)}" if "enum" in items else "list of texts"


def _bounds(field: dict[str, Any]) -> str:
    above, below = field.get("exclusiveMinimum"), field.get("exclusiveMaximum")
    least, most = field.get("minimum"), field.get("maximum")
    words = [
        "" if least is None else f"from {least:,}",
        "" if above is None else f"above {above:,}",
        "" if most is None else f"to {most:,}",
        "" if below is None else f"below {below:,}" if below < 2**53 else "below 2^63",
    ]
    return " ".join(filter(None, words))


def _help(context: click.Context) -> Iterator[tuple[str, str]]:
    """Title and help of a command and of all below it."""
    context.terminal_width = WIDTH
    yield context.command_path, context.command.get_help(context)
    for name, command in getattr(context.command, "commands", {}).items():
        yield from _help(click.Context(command, info_name=name, parent=context))


def _signature(name: str, offered: Any) -> str:
    if inspect.isclass(offered) and issubclass(offered, Exception):
        return f"```python\nclass {name}({offered.__base__.__name__})\n```"
    given = inspect.signature(offered)
    parameters = [_without_long_default(p) for p in given.parameters.values() if p.name != "self"]
    shown = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(given.replace(parameters=parameters)))  # annotations are strings
    shown = shown.replace("Ellipsis", "...").removesuffix(" -> None")
    return f"```python\n{name}{shown}\n```"


def _without_long_default(parameter: inspect.Parameter) -> inspect.Parameter:
    """Defaults of many words, and those that are made anew, are shown as dots."""
    shown = repr(parameter.default)
    return parameter if len(shown) < 40 and "factory" not in shown else parameter.replace(default=...)


def _joined(parts: list[str]) -> str:
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        (FOLDER / file).write_text(text, encoding="utf8")
