"""The formats of the commands that list."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from trio_durable import DurableObject, ObjectKey, upgrade

from .stored_data import save, writer_of
from .support import environment, run

LISTS = {
    "ls": ["-s", "app.db"],
    "ls of a type": ["-s", "app.db", "Cart"],
    "alarms": ["-s", "app.db"],
    "messages list": ["-s", "app.db"],
    "messages dead": ["-s", "app.db"],
    "stats": ["-s", "app.db"],
    "tenants": ["-s", "app.db"],
    "query": ["app.db", "SELECT id, state FROM durable_objects_v1"],
    "show": ["-s", "app.db", "Cart", "ada"],
    "doctor": ["app.db"],
    "migrate": ["-s", "app.db", "--check"],
    "migrate-states": ["-s", "app.db", "--app", "cli.test_output:Purse", "--dry-run"],
}
"""Each with its arguments, up to where the name of the command ends."""
PARTS = {"stats": "types", "doctor": "findings", "migrate": "pending", "migrate-states": "types"}
"""The member with the rows, of commands whose JSON has more."""
every_list = pytest.mark.parametrize("name", LISTS)


class Purse(DurableObject, name="Cart", schema=2):
    total: int = 0
    items: list[str] = attrs.field(factory=list)

    @upgrade(from_schema=1)
    @staticmethod
    def keep(state: dict[str, object]) -> dict[str, object]:
        return state


def printed(name: str, output: str) -> str:
    result = run(*name.removesuffix(" of a type").split(), *LISTS[name], "-o", output)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def on_a_terminal(*args: str, cwd: Path, columns: int = 200) -> bytes:
    """The output of a command on a terminal, which is wide enough for most."""
    outer, inner = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "trio_durable", *args],
        cwd=cwd,
        env=environment() | {"TERM": "xterm-256color", "COLUMNS": str(columns)},
        stdout=inner,
    ) as process:
        os.close(inner)
        printed = b""
        while True:
            try:
                part = os.read(outer, 65_536)
            except OSError:  # as Linux says that the last one has closed it
                break
            if not part:
                break
            printed += part
    os.close(outer)
    assert process.returncode == 0
    return printed


@every_list
def test_the_formats_have_the_same_rows(db: Path, name: str) -> None:
    lines = [json.loads(line) for line in printed(name, "jsonl").splitlines()]
    whole = json.loads(printed(name, "json"))
    if name == "migrate-states":  # whose lines may be failures
        [lines] = [line["types"] for line in lines]
    if name in PARTS:
        assert whole[PARTS[name]] == lines
    elif name == "show":
        assert [whole] == lines
    else:
        assert whole == lines
    rows = table(printed(name, "csv"))
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        assert line.keys() <= row.keys()
        for member, cell in row.items():
            value = line.get(member)
            if isinstance(value, str):
                assert cell == value
            else:
                assert cell == "" if value is None else json.loads(cell) == value


@every_list
def test_no_row_is_an_empty_list(folder: Path, name: str) -> None:
    with writer_of(folder / "app.db") as writer:
        if name in ("show", "ls of a type"):
            save(writer, ObjectKey("Cart", "ada"), {})
    if name in PARTS or name == "show":
        return
    options = LISTS[name]
    if name == "query":
        options = ["app.db", "SELECT 1 AS one WHERE 0"]
    elif name == "ls of a type":
        options = [*options, "--after", "ada"]
    command = name.removesuffix(" of a type").split()
    assert run(*command, *options, "-o", "json").stdout == "[]\n"
    assert run(*command, *options, "-o", "jsonl").stdout == ""
    assert run(*command, *options, "-o", "csv").stdout.count("\n") == 1


def test_json_is_short_for_a_format(db: Path) -> None:
    assert run("ls", "-s", "app.db", "--json").stdout == printed("ls", "jsonl")
    assert run("show", *LISTS["show"], "--json").stdout == printed("show", "json")
    refused = run("ls", "-s", "app.db", "--json", "-o", "csv")
    assert refused.exit_code == 2
    assert "--json is -o jsonl; leave it out, or -o csv" in refused.stderr
    assert run("ls", "-s", "app.db", "--json", "-o", "jsonl").exit_code == 0


NASTY = 'a\x1b]0;owned\x07\x9b31m\u202e,"\nb'


@pytest.fixture
def nasty(folder: Path) -> Path:
    """A storage with an id that would change what a terminal shows."""
    with writer_of(folder / "app.db") as writer:
        save(writer, ObjectKey("Cart", NASTY), {"note": NASTY})
        save(writer, ObjectKey("Cart", "=1+1"), {"note": 12345678901234567890123})
    return folder


@pytest.mark.parametrize("output", ["json", "jsonl", "csv", "table"])
@pytest.mark.parametrize(
    "args",
    [
        ["ls", "-s", "app.db", "Cart"],
        ["show", "-s", "app.db", "Cart", NASTY],
        ["query", "app.db", "SELECT id AS '\x1b[31m', state FROM durable_objects_v1"],
    ],
    ids=lambda args: args[0],
)
def test_a_terminal_gets_nothing_that_changes_it(
    nasty: Path, output: str, args: Sequence[str]
) -> None:
    shown = on_a_terminal(*args, "-o", output, cwd=nasty)
    assert b"owned" in shown
    for sequence in (b"\x1b]", b"\x07", "\x9b".encode(), "\u202e".encode(), b"\x9b"):
        assert sequence not in shown.replace("│".encode(), b"").replace("─".encode(), b"")
    if output.startswith("json"):
        assert b"\x1b[" in shown  # its colours


def test_elsewhere_the_data_is_as_it_is(nasty: Path) -> None:
    rows = table(run("ls", "-s", "app.db", "Cart", "-o", "csv").stdout)
    assert [row["id"] for row in rows] == ["=1+1", NASTY]
    [row] = table(run("show", "-s", "app.db", "Cart", NASTY, "-o", "csv").stdout)
    assert json.loads(row["state"]) == {"note": NASTY}


def test_integers_of_any_size_are_exact_on_a_terminal(nasty: Path) -> None:
    shown = on_a_terminal("show", "-s", "app.db", "Cart", "=1+1", "-o", "json", cwd=nasty)
    assert b"12345678901234567890123" in shown


@pytest.mark.parametrize("output", ["json", "jsonl", "csv", "table"])
@pytest.mark.parametrize("name", ["query", "stats", "show"])
def test_a_program_that_has_read_enough_is_no_error(db: Path, name: str, output: str) -> None:
    """As head has, which closes its end of the pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [sys.executable, "-m", "trio_durable", name, *LISTS[name], "-o", output],
        cwd=db.parent,
        env=environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, b"")
