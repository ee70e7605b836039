"""The command that explains errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trio_durable.cli.commands.docs import public_errors
from trio_durable.cli.remedies import REMEDIES

from .support import assert_refused, run

BASES = {"CallFailed", "DurableError", "StorageError", "UsageError"}


def test_each_error_has_a_remedy() -> None:
    assert REMEDIES.keys() | BASES == public_errors().keys()
    assert not REMEDIES.keys() & BASES
    assert list(REMEDIES) == sorted(REMEDIES)


@pytest.mark.parametrize("name", ["StaleObject", "trio_durable.StaleObject"])
def test_an_error_is_explained(name: str) -> None:
    result = run("docs", name)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "StaleObject\n\n"
        "  A kind of PersistenceError, StorageError, DurableError, Exception.\n\n"
        "  The storage refused this instance's change, because another owner came\n"
        "  before it.\n\n"
        "  The other owner wrote the object since revision, or it claimed, set or\n"
        "  cancelled the alarm that the object handled.\n\n"
        "  What to do: Repeat the call, which starts from the new state.\n\n"
    )


def test_a_base_names_its_kinds() -> None:
    printed = run("docs", "StorageError").stdout
    assert "  Its kinds: PersistenceError, StorageUnavailable.\n" in printed
    assert "What to do" not in printed


def test_all_are_listed_and_every_line_fits() -> None:
    listed = run("docs").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(public_errors())
    explained = [line for name in public_errors() for line in run("docs", name).stdout.splitlines()]
    assert max(map(len, [*listed, *explained])) <= 80
    assert not re.search("``|Args:", "".join(explained))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("StaleObjekt", "did you mean: trio-durable docs StaleObject"),
        ("Xylophone", "run: trio-durable docs"),
        ("DurableObject", "there is no error 'DurableObject'; "),
    ],
)
def test_another_name_is_refused(name: str, says: str, folder: Path) -> None:
    assert_refused(folder, says, "docs", name)
