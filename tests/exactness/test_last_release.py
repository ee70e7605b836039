"""Files of the last release and of this one, each read by the other, in processes of their own."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
LAST_RELEASE = "38d5109"
"""The last commit whose codec recorded no declarations, that of release 0.1.0."""

APPLICATION = """
from __future__ import annotations

import dataclasses
import enum
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import attrs
import trio

import trio_durable
from trio_durable import DurableObject, DurableRuntime, handler


class Colour(enum.Enum):
    RED = "red"
    FIRST = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@attrs.define
class Item:
    name: str = ""
    price: Decimal = Decimal(0)
    tags: set[str] = attrs.field(factory=set)
    _hidden: int = 0


@dataclasses.dataclass(frozen=True)
class Note:
    text: str
    since: date = date(2000, 1, 1)


class Row(NamedTuple):
    number: int
    label: str


class Options(TypedDict):
    size: int


class Cart(DurableObject):
    count: int = 0
    ratio: float = 0.0
    open: bool = False
    title: str | None = None
    at: datetime | None = None
    clock: time = time(0)
    wait: timedelta = timedelta(0)
    ident: UUID = UUID(int=0)
    data: bytes = b""
    colour: Colour = Colour.RED
    rights: Rights = Rights.READ
    size: Literal["s", "m"] = "s"
    items: list[Item] = attrs.field(factory=list)
    notes: dict[str, Note] = attrs.field(factory=dict)
    by_day: dict[date, list[int]] = attrs.field(factory=dict)
    days: frozenset[date] = frozenset()
    pair: tuple[int, Decimal] = (0, Decimal(0))
    row: Row = Row(0, "")
    options: Options = attrs.field(factory=lambda: {"size": 0})
    plain: Any = None
    last: Item | Note | None = None
    value: int | str | None = None

    @handler
    def fill(self) -> None:
        self.count, self.ratio, self.open, self.title = 2**63, 1.5, True, "\\u6f22 \\x00"
        self.at = datetime(2024, 1, 1, 12, tzinfo=UTC)
        self.clock, self.wait = time(12, 30), timedelta(days=-1, microseconds=3)
        self.ident, self.data = UUID(int=7), bytes(range(256))
        self.colour, self.rights, self.size = Colour.FIRST, Rights.READ | Rights.WRITE, "m"
        self.items = [Item("tea", Decimal("1.50"), {"b", "a"}, 3), Item()]
        self.notes = {"a": Note("x"), "b": Note("y", date(2024, 2, 29))}
        self.by_day = {date(2024, 1, 1): [1, 2]}
        self.days = frozenset({date(2024, 1, 2), date(2024, 1, 1)})
        self.pair, self.row = (1, Decimal("-0.0")), Row(3, "c")
        self.options, self.plain = {"size": 4}, {"a": [1, None, 2.5, {"b": True}]}
        self.last, self.value = Note("last"), "text"


async def main(path: str, does: str) -> None:
    async with DurableRuntime(path, objects=[Cart]) as runtime:
        if does == "write":
            await runtime.get(Cart, "full").fill()
            await runtime.put_state(Cart, "empty", Cart())
        for object_id in ("full", "empty"):
            await runtime.ensure_started(Cart, object_id)
            state = await runtime.get_state(Cart, object_id)
            days = sorted(state.days)
            tags = [sorted(item.tags) for item in state.items]
            for item in state.items:
                item.tags = set()
            state.days = frozenset()
            print(ascii((state, days, tags)))


print(trio_durable.__file__)
trio.run(main, *sys.argv[1:])
"""


@pytest.fixture(scope="module")
def last_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the package of the last release."""
    folder = tmp_path_factory.mktemp("last_release")
    git = shutil.which("git")
    if git is None:
        pytest.skip("needs git")
    made = subprocess.run(
        [git, "archive", LAST_RELEASE, "trio_durable"],
        cwd=PROJECT,
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"needs the history of the repository: {made.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def run(package: Path, path: Path, does: str) -> list[str]:
    """The states that a process with one of the packages writes or reads."""
    child = subprocess.run(
        [sys.executable, "-c", APPLICATION, str(path), does],
        env={**os.environ, "PYTHONPATH": str(package)},
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    module, *states = child.stdout.splitlines()
    assert module == str(package / "trio_durable" / "__init__.py")
    assert len(states) == 2
    return states


def with_tables_of_last_release(path: Path) -> None:
    """Undo later migrations, which the last release would refuse; the states stay as they are."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("DROP VIEW durable_objects_v1")
        file.execute("DROP INDEX durable_alarms_recurring")
        for column in ("crashes", "marked", "recurrence"):
            file.execute(f"ALTER TABLE durable_alarms DROP COLUMN {column}")
        for table in ("messages", "dead_messages", "once"):
            file.execute(f"DROP TABLE durable_{table}")
        file.execute("DELETE FROM _sqlite_migrations WHERE name > 'm004'")


def test_a_file_of_the_last_release_is_read(last_release: Path, tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    written = run(last_release, path, "write")
    assert run(PROJECT, path, "read") == written


def test_the_last_release_reads_a_file_of_this_one(last_release: Path, tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    written = run(PROJECT, path, "write")
    with_tables_of_last_release(path)
    assert run(last_release, path, "read") == written
    assert run(PROJECT, path, "read") == written
