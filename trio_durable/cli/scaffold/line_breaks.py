"""Lays out generated code as formatters do, as far as that takes no more than a rule.

Templates have every statement on one line. One that is too long for that gets each of the items
between its last brackets on a line of its own, with a comma behind the last: this is where `ruff
format` and `black` leave it, too. What is too long even so, they only could lay out.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import CommandError

WIDTH = 88


def laid_out(what: str, code: str) -> str:
    """The same code without lines that are too long.

    Raises:
        Refusal: There would be one still; ``what`` is for the message.
    """
    lines = [short for line in code.splitlines() for short in _lines(line)]
    longest = max(lines, key=len)
    if len(longest) > WIDTH:
        raise CommandError(
            f"{what}: {longest.strip()!r} makes a line of more than {WIDTH} characters; choose "
            "shorter names, or write this type by hand"
        )
    return "\n".join(lines) + "\n"


def split_outside_brackets(text: str) -> Iterator[str]:
    """The parts of ``text`` between the commas that are in no brackets."""
    part, depth = "", 0
    for character in text:
        if character == "," and depth <= 0:
            yield part.strip()
            part = ""
            continue
        depth += (character in "([{") - (character in ")]}")
        part += character
    yield part.strip()


def _lines(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    if line.startswith("from "):
        head, _, names = line.partition(" import ")
        return [f"{head} import (", *(f"    {name}," for name in names.split(", ")), ")"]
    code = line.removesuffix(" -> None:")
    if code[-1] not in ")]}":
        return [line]
    opening = _opening(code)
    indent = " " * (len(line) - len(line.lstrip()))
    # The comma of a tuple of one has nothing behind it.
    items = filter(None, split_outside_brackets(code[opening + 1 : -1]))
    tail = line[len(code) - 1 :]
    return [code[: opening + 1], *(f"{indent}    {item}," for item in items), f"{indent}{tail}"]


def _opening(code: str) -> int:
    """Where the bracket is that the last one closes."""
    depth = 0
    for place in range(len(code) - 1, -1, -1):
        depth += (code[place] in ")]}") - (code[place] in "([{")
        if depth == 0:
            return place
    raise AssertionError(code)
