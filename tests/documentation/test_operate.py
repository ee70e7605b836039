"""The pages for operators name commands, options and settings that there are."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.support import ROOT, run

from trio_durable import Cluster, DurableObject, DurableRuntime, PostgresStorage, Retry
from trio_durable.storage import SQLiteStorage

OPERATE = sorted((ROOT / "docs" / "operate").glob("*.md"))
SETTINGS = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")


def commands(page: Path) -> list[str]:
    """The commands in the text of a page, such as those in its tables."""
    return re.findall(r"`(?:\S*/)?trio-durable ([^`]+)`", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", OPERATE, ids=lambda page: page.name)
def test_its_commands_exist_with_their_options(page: Path) -> None:
    for command in commands(page):
        names: list[str] = []
        for word in command.split():
            if not re.fullmatch(r"[a-z-]+", word) or word.startswith("-"):
                break
            names.append(word)
        help_ = run(*names, "--help")
        assert help_.exit_code == 0, command
        for option in re.findall(r"(?<!\S)--?[a-z-]+", command):
            assert re.search(rf"(?<!\S){option}\b", help_.stdout), f"{option} of {command}"


def test_the_runbook_has_commands() -> None:
    assert len(commands(ROOT / "docs" / "operate" / "runbook.md")) > 10


def rows(title: str) -> Iterator[list[str]]:
    """The cells of a table of the settings, without the backticks."""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", SETTINGS, re.MULTILINE | re.DOTALL)
    assert section, title
    for line in re.findall(r"^\| (`.*) \|$", section[1], re.MULTILINE):
        yield [cell.replace("`", "") for cell in line.split(" | ")]


def written(value: object) -> str:
    """A default as the page writes it."""
    units = {1.0: "1 s", 86400.0: "1 day", 16 * 1024 * 1024: "16 MiB"}
    if value in units and type(value) is not bool:
        return units[value]
    if isinstance(value, float):
        return f"{value:g} s"
    if isinstance(value, str):
        return f'"{value}"'
    return f"{value:,}" if type(value) is int else str(value)


@pytest.mark.parametrize(
    ("title", "function", "skipped"),
    [
        ("`DurableRuntime`", DurableRuntime.__init__, {"self", "storage"}),
        ("`Retry`", Retry, set()),
        ("`Cluster`", Cluster, set()),
    ],
)
def test_settings_and_defaults(title: str, function: Callable[..., Any], skipped: set[str]) -> None:
    parameters = inspect.signature(function).parameters
    expected = {name: written(each.default) for name, each in parameters.items()}
    shown = {name: default for name, default, _ in rows(title)}
    assert shown.keys() == expected.keys() - skipped
    expected |= {"factor": "2"}  # a ratio, not a duration
    assert shown == {name: default for name, default in expected.items() if name in shown}


def test_class_keywords() -> None:
    keywords = inspect.signature(DurableObject.__init_subclass__).parameters.keys()
    assert {name for name, *_ in rows("Class keywords")} == keywords - {"kwargs"}


def test_storages() -> None:
    shown = {(name, of): default for name, of, default, _ in rows("Storages")}
    for storage in (SQLiteStorage, PostgresStorage):
        for name, parameter in inspect.signature(storage).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                where = storage.__name__ if (name, storage.__name__) in shown else "both"
                assert shown[name, where] == written(parameter.default), name
