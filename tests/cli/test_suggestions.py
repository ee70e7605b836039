"""Command lines in messages can be pasted into a shell, whatever the names are."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_durable import ObjectKey
from trio_durable.cli.command_line import command_line, quoted
from trio_durable.cli.storage.restore import Mail, restore_mail
from trio_durable.storage import DeadMessage

from .stored_data import DAY, NOW, save, writer_of
from .support import run
from .test_messages import a_message

NASTY = '-it\'s "a"  $(touch gone)\n\x1b[31m&é;*?~#!\\'
TYPE = "shop Cart's"
PLACE = "a b/my 'app'.db"


def words_of(line: str, folder: Path) -> list[str]:
    """The words of a line, as bash reads them."""
    ran = subprocess.run(
        ["/bin/bash", "-c", rf"printf '%s\0' {line}"],
        cwd=folder,
        env={"PATH": "/bin:/usr/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
    )
    assert not ran.stderr
    return ran.stdout.decode().removesuffix("\0").split("\0")


@pytest.fixture
def nasty(folder: Path) -> Path:
    """A storage of such names, at such a path."""
    path = folder / PLACE
    path.parent.mkdir()
    key = ObjectKey(TYPE, NASTY)
    with writer_of(path) as writer:
        for tenant in ("", "acme"):
            save(writer, ObjectKey(TYPE, NASTY, tenant), {"total": 1})
            save(writer, ObjectKey(TYPE, f"{NASTY}2", tenant), {"total": 1})
        old = a_message(1, key, sent_at=NOW - DAY)
        mail = Mail([old], [DeadMessage(a_message(2, key), NOW, is_overtaken=False)])
        restore_mail(writer, mail, NOW)
    return path


def suggested(output: str) -> list[str]:
    """The command lines in an output: between backticks, or up to the end of a line."""
    found = re.findall(r"`(trio-durable [^`]+ [^`]+)`", output)
    return found + re.findall(r"(?:There are more|did you mean|run): (trio-durable .+)", output)


SUGGESTIONS: Mapping[str, tuple[Sequence[str], str]] = {
    "ls": (["ls", "-s", PLACE, "--limit=1", TYPE], f"--after={NASTY}"),
    "ls of a tenant": (["ls", "-s", PLACE, "-t", "acme", "--limit=1", TYPE], "acme"),
    "show": (["show", "-s", PLACE, "--", TYPE, NASTY], NASTY),
    "show of an unknown object": (["show", "-s", PLACE, TYPE, "nobody"], TYPE),
    "rm": (["rm", "-s", PLACE, "-t", "acme", TYPE, "nobody"], TYPE),
    "alarms cancel": (["alarms", "cancel", "-s", PLACE, TYPE, "a", "remind"], "alarms"),
    "alarms retry": (["alarms", "retry", "-s", PLACE, TYPE, "a", "remind"], "dead"),
    "messages drop": (["messages", "drop", "-s", PLACE, "0000000000000009"], "dead"),
    "an unknown tenant": (["ls", "-s", PLACE, "-t", "nobody"], "tenants"),
    "doctor": (["doctor", PLACE], "dead"),
    "a misspelt command": (["shwo", "-s", PLACE, "--", TYPE, NASTY], NASTY),
    "a misspelt error": (["docs", "StaleObjekt"], "StaleObject"),
    "an unknown error": (["docs", "Xyz"], "docs"),
}


@pytest.mark.parametrize("name", SUGGESTIONS)
def test_a_suggestion_can_be_pasted(nasty: Path, folder: Path, name: str) -> None:
    args, part = SUGGESTIONS[name]
    result = run(*args)
    found = suggested(result.stdout + result.stderr)
    assert found, result.output
    for line in found:
        program, *words = words_of(line, folder)
        assert program == "trio-durable"
        assert run(*words).exit_code in (0, 1), line
    assert any(part in words_of(line, folder) for line in found), found
    assert not (folder / "gone").exists()


def test_a_moved_storage_is_reopened_by_the_line_that_says_so(nasty: Path, folder: Path) -> None:
    copied = run("copy", PLACE, "copy.db", "--move")
    again = run("copy", PLACE, "copy.db", "--move")
    checked = run("doctor", PLACE)
    for output in (copied.stdout, again.stderr, checked.stdout):
        found = [each for each in suggested(output) if each.startswith("trio-durable reopen")]
        assert len(found) == 1, output
        [line] = found
        _, *words = words_of(line, folder)
        assert run(*words, stdin="n\n").exit_code == 1
    assert run(*words, "--yes").exit_code == 0


def test_the_alarms_of_a_list_are_arguments(folder: Path) -> None:
    with writer_of(folder / "app.db") as writer:
        save(writer, ObjectKey(TYPE, NASTY), {}, {NASTY: (NOW + DAY, None)})
    table = run("alarms", "-s", "app.db", env={"COLUMNS": "500"}).stdout
    [line] = [line for line in table.splitlines() if "pending" in line]
    words = words_of(line.partition("pending")[2].strip(), folder)
    assert words == [TYPE, NASTY, NASTY]
    assert run("alarms", "cancel", "-s", "app.db", "--", *words).exit_code == 0


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_a_shell_reads_the_words_that_were_quoted(words: list[str]) -> None:
    line = quoted(*words)
    assert line.isprintable()
    if words:
        assert words_of(line, Path("/")) == words


def test_names_that_look_like_options_come_after_the_end_of_these() -> None:
    assert command_line("ls", storage="a", names=["-x"]) == "trio-durable ls -s a -- -x"
    assert command_line("ls", tenant="t", names=["x"]) == "trio-durable ls -t t x"
