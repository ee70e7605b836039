"""The file is damaged: what can be read is served, and the rest refused in the library's own words.

Bits are flipped, and sectors and pages overwritten or cut off, at places drawn at random. SQLite
notices what breaks its structure; a bit in the middle of a text that stays one, nobody can.
"""

from __future__ import annotations

import logging
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_durable import (
    DurableObject,
    DurableRuntime,
    InlineRunner,
    PersistenceError,
    StateDecodeError,
    StorageUnavailable,
    alarm,
    handler,
)

SEEDS = range(int(os.environ.get("TRIO_DURABLE_DAMAGES", "30")))
"""More of them for a search through the night."""
BELLS = [f"bell {n}" for n in range(30)]
PAGE = 4096


class Bell(DurableObject):
    strokes: int = 0
    text: str = ""

    @handler
    def strike(self, text: str = "") -> int:
        self.strokes += 1
        self.text = text
        self.ctx.schedule_alarm("ring", after=5)
        return self.strokes

    @handler(readonly=True)
    def heard(self) -> int:
        return self.strokes

    @alarm
    def ring(self) -> None:
        pass


def serving(path: Path, scenario: Callable[[DurableRuntime], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(3600):
            async with DurableRuntime(
                path, objects=[Bell], runner=InlineRunner, polling_interval=10
            ) as runtime:
                await scenario(runtime)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def fill(runtime: DurableRuntime) -> None:
    for n, object_id in enumerate(BELLS):
        await runtime.get(Bell, object_id).strike("z" * (n * 37 % 900))
    for n in range(3):
        await runtime.tenant(f"t{n}").get(Bell, "its own").strike("z" * 300)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """What may be left of a file."""
    data = bytearray(content)
    place = rng.randrange(len(data))
    page, sector = place // PAGE * PAGE, place // 512 * 512
    match rng.choice(["bits", "bits", "zeroes", "garbage", "sector", "end"]):
        case "bits":
            for _ in range(rng.choice([1, 3, 20])):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "zeroes":
            data[page : page + PAGE] = bytes(PAGE)
        case "garbage":
            data[page : page + PAGE] = rng.randbytes(PAGE)
        case "sector":
            data[sector : sector + 512] = rng.randbytes(512)
        case _:
            del data[place:]
    return bytes(data)


async def use(runtime: DurableRuntime, outcomes: Counter[str]) -> None:
    """All there is to do with objects and alarms."""
    jobs: list[Callable[[], Awaitable[object]]] = []
    for object_id in BELLS:
        bell = runtime.get(Bell, object_id)
        jobs += [bell.heard, bell.strike]
    other = runtime.tenant("t1").get(Bell, "its own")
    jobs += [
        other.strike,
        lambda: runtime.list_objects(Bell),
        lambda: runtime.list_tenants(),
        lambda: runtime.list_alarms(Bell, BELLS[3]),
        lambda: runtime.exists(Bell, BELLS[4]),
        lambda: runtime.delete(Bell, BELLS[5]),
        lambda: runtime.drop_tenant("t2"),
    ]
    for job in jobs:
        try:
            await job()
            outcomes["served"] += 1
        except PersistenceError as error:
            assert error.key.object_id in str(error)  # noqa: PT017
            outcomes["refused"] += 1
        except (StateDecodeError, StorageUnavailable):
            outcomes["refused"] += 1
    await trio.sleep(20)


@pytest.fixture
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "trio_durable")


@pytest.mark.usefixtures("_quiet")
def test_a_damaged_file_is_served_or_refused(folder: Path) -> None:
    path = folder / "objects.db"
    serving(path, fill)
    content = path.read_bytes()
    outcomes: Counter[str] = Counter()
    for seed in SEEDS:
        for old in folder.glob("objects.db*"):
            old.unlink()
        path.write_bytes(damaged(content, random.Random(seed)))
        try:
            serving(path, lambda runtime: use(runtime, outcomes))
        except StorageUnavailable as error:
            assert error.location == str(path)  # noqa: PT017
            outcomes["not opened"] += 1
    assert outcomes["served"] > 100
    assert outcomes["refused"]
    assert outcomes["not opened"]


@pytest.mark.parametrize("table", ["durable_objects", "durable_alarms", "durable_tenants"])
def test_a_file_that_lacks_a_table_is_refused(folder: Path, table: str) -> None:
    path = folder / "objects.db"
    serving(path, fill)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"DROP TABLE {table}")
    with pytest.raises(StorageUnavailable, match=f"no such table: {table}"):
        serving(path, fill)


def test_a_tenant_that_lacks_a_table_keeps_no_other_from_its_work(folder: Path) -> None:
    path = folder / "objects.db"
    serving(path, fill)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute('DROP TABLE "tenant_t1_durable_objects"')

    async def scenario(runtime: DurableRuntime) -> None:
        with pytest.raises(PersistenceError, match="no such table"):
            await runtime.tenant("t1").get(Bell, "its own").strike()
        assert await runtime.tenant("t2").get(Bell, "its own").strike() == 2
        assert await runtime.get(Bell, BELLS[0]).strike() == 2

    serving(path, scenario)


def test_an_error_that_is_no_text_is_refused_as_well(folder: Path) -> None:
    """SQLite repeats the name of the table that it can't make sense of."""
    path = folder / "objects.db"
    serving(path, fill)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET name = CAST(x'ff' AS TEXT), sql = 'CREATE TABLE nonsense' "
            "WHERE name = 'durable_alarms'"
        )
    with pytest.raises(StorageUnavailable, match="malformed"):
        serving(path, fill)
