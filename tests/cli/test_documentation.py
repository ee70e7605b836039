"""docs/cli.md has all commands. The tests of its console blocks compare the help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from trio_durable.cli import exit_status
from trio_durable.cli.application import application

from .support import ROOT

DOCUMENT = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
HELP = re.findall(r"^```console\n\$ trio-durable (.*?)--help\n", DOCUMENT, re.MULTILINE)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


COMMANDS = sorted(commands(application))


def test_each_command_has_a_section_of_its_own_with_its_help() -> None:
    headings = re.findall(r"^## `trio-durable (.*)`$", DOCUMENT, re.MULTILINE)
    assert sorted(headings) == [" ".join(path) for path in COMMANDS if path]
    assert sorted(path.split() for path in HELP) == [list(path) for path in COMMANDS]


def test_the_exit_statuses_are_those_of_the_code() -> None:
    source = inspect.getsource(exit_status.ExitStatus)
    docstrings = re.findall(r'^ +[A-Z]+ = (\d+)\n +"""(.*?)"""$', source, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    assert [(status, " ".join(text.split())) for status, text in docstrings] == rows
    assert [int(status) for status, _ in rows] == list(exit_status.ExitStatus)
