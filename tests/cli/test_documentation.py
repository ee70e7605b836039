"""docs/cli.md has the help of every command, as the command prints it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from trio_durable.cli.application import application

from .support import ROOT, run

DOCUMENT = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"^```console\n\$ trio-durable (.*?)--help\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
BLOCKS = dict(BLOCK.findall(DOCUMENT))


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


COMMANDS = sorted(commands(application))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_of_each_command_is_there(path: tuple[str, ...]) -> None:
    key = "".join(f"{name} " for name in path)
    assert BLOCKS[key] == run(*path, "--help").stdout


def test_each_command_has_a_section_of_its_own() -> None:
    headings = re.findall(r"^## `trio-durable (.*)`$", DOCUMENT, re.MULTILINE)
    assert sorted(headings) == [" ".join(path) for path in COMMANDS if path]
    assert len(BLOCKS) == len(COMMANDS)
