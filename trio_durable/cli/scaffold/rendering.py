"""Templates rendered as source code that a formatter leaves as it is.

Templates have each statement on one line. A line that is too long is broken at its last brackets,
with one item and a comma per line. Ruff and Black break it there as well, and keep a layout with a
trailing comma, so no formatter is needed here. Lines that this rule can't shorten are rejected.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.resources import files
from string import Template

from ..errors import CommandError

MAX_WIDTH = 88


def render(*templates: str, **values: str) -> str:
    """The text of templates, one after the other, with values for their placeholders."""
    assert __package__
    folder = files(__package__).joinpath("templates")
    texts = [folder.joinpath(f"{each}.template").read_text(encoding="utf-8") for each in templates]
    return Template("".join(texts)).substitute(values)


def render_module(*templates: str, modules: Mapping[str, str], **values: str) -> str:
    """The source of a module, whose templates have the placeholder ``$imports``.

    Args:
        templates: Names of templates.
        modules: The module of each name that may be imported; empty for a module itself.
        values: Values for the other placeholders.

    Raises:
        CommandError: A line is too long.
    """
    imports = _imports_for(render(*templates, imports="", **values), modules)
    source = render(*templates, imports=imports, **values)
    source = wrap(source)
    longest = max(source.splitlines(), key=len)
    if len(longest) > MAX_WIDTH:
        raise CommandError(
            f"{longest.strip()!r} makes a line of more than {MAX_WIDTH} characters; choose shorter "
            "names, or write this type by hand"
        )
    return source


def wrap(source: str) -> str:
    """Break the lines of ``source`` that are too long, as far as the rule above can."""
    return "".join(f"{part}\n" for line in source.splitlines() for part in _wrapped(line))


def split_items(text: str) -> Iterator[str]:
    """Split ``text`` at the commas outside brackets."""
    item, depth = "", 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth <= 0:
            yield item.strip()
            item = ""
        else:
            item += character
    yield item.strip()


def _wrapped(line: str) -> list[str]:
    if len(line) <= MAX_WIDTH:
        return [line]
    if line.startswith("from "):
        line = line.replace("import ", "import (") + ")"
    code = line.removesuffix(" -> None:")
    if code[-1] not in ")]}":
        return [line]
    opening, depth = len(code) - 1, 1
    while depth:
        opening -= 1
        depth += (code[opening] in ")]}") - (code[opening] in "([{")
    # A tuple of one item has its trailing comma already.
    items = filter(None, split_items(code[opening + 1 : -1]))
    indent = " " * (len(line) - len(line.lstrip()))
    end = indent + line[len(code) - 1 :]
    return [code[: opening + 1], *(f"{indent}    {item}," for item in items), end]


def _imports_for(code: str, modules: Mapping[str, str]) -> str:
    """Import statements for the names in ``code``: standard library first, each group sorted."""
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    names: dict[str, list[str]] = defaultdict(list)
    for name in sorted(used & modules.keys()):  # capitals first, as isort has them
        names[modules[name]].append(name)
    lines = [f"import {name}" for name in names.pop("", ())]
    standard: list[str] = []
    for module, found in sorted(names.items()):
        group = standard if module in sys.stdlib_module_names else lines
        group.append(f"from {module} import {', '.join(found)}")
    return "\n\n".join("\n".join(group) for group in (standard, lines) if group)
