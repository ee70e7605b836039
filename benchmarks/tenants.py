"""Growth with the number of tenants: ``python -m benchmarks.tenants``.

Makes more and more tenants, each with one object and one alarm, and measures at each doubling. What
is done for one tenant should not depend on how many there are; what is done for all of them should
take at most n log n.

- made: milliseconds per tenant, in batches of 64 commits. Each is loaded before, as a runtime does.
- use: milliseconds of a batch that saves one object of each of 64 tenants.
- opened: seconds to open the writer and the reader.
- feed: seconds to read the alarms that are due soon, of all tenants.
- dropped: milliseconds per tenant.
- size: KiB per tenant in the database, and the memory of this process in MiB.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from time import perf_counter

import psycopg

from trio_durable import ObjectKey, SQLiteStorage, Storage
from trio_durable._persistence.division import in_parts
from trio_durable.storage import AlarmChanges, Commit, NewAlarm, Reader, StorageFault, Writer
from trio_durable.storage.postgres import PostgresStorage

from .memory import resident_bytes
from .postgres import server

BATCH = 64
ROW = "{:>8} {:>10} {:>10} {:>8} {:>8} {:>10} {:>12} {:>8}"
HEADINGS = (
    "tenants",
    "made, ms",
    "use, ms",
    "opened, s",
    "feed, s",
    "dropped, ms",
    "KiB each",
    "MiB",
)


def commits(tenants: Sequence[str], revision: int) -> list[Commit]:
    """One commit for the object of each tenant."""
    return [
        Commit(
            ObjectKey("Counter", "a", tenant),
            revision,
            b'{"count":1}',
            alarms=AlarmChanges(changed={"later": NewAlarm(2**60, None)}),
        )
        for tenant in tenants
    ]


def write(writer: Writer, batch: list[Commit]) -> None:
    """Commit a batch in parts, as a runtime does."""

    def attempt(part: list[Commit]) -> object:
        try:
            assert not writer.commit(part, 1)
        except StorageFault as fault:
            return fault
        return None

    for _, outcome in in_parts(batch, lambda commit: commit.key.tenant, attempt):
        if isinstance(outcome, StorageFault):
            raise outcome


def make(writer: Writer, reader: Reader, tenants: Sequence[str]) -> None:
    """Make tenants."""
    for start in range(0, len(tenants), BATCH):
        batch = commits(tenants[start : start + BATCH], 0)
        reader.load([commit.key for commit in batch])
        write(writer, batch)


def read_feed(reader: Reader) -> None:
    """Read what is due soon, of all tenants."""
    tenants = [""]
    while tenants:
        for tenant in tenants:
            reader.due_alarms(1, None, 128, (), tenant)
        tenants = reader.list_tenants(tenants[-1], BATCH)


def measure(
    storage: Storage, size_of: Callable[[], float], most: int, least: int, seconds: float
) -> None:
    """Print a row at each doubling of the number of tenants."""
    print(ROW.format(*HEADINGS), flush=True)
    made: list[str] = []
    count = least
    while count <= most:
        with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
            new = [f"tenant-{n:06}" for n in range(len(made), count)]
            began = perf_counter()
            make(writer, reader, new)
            per_tenant = (perf_counter() - began) / len(new)
            took = perf_counter() - began
            made += new
            size = size_of() / len(made)
        began = perf_counter()
        with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
            opened = perf_counter() - began
            some = random.Random(count).sample(made, BATCH)
            rows = reader.load([ObjectKey("Counter", "a", tenant) for tenant in some])
            batch = commits(some, 0)
            for commit, row in zip(batch, rows, strict=True):
                assert row is not None
                commit.revision, commit.epoch = row.revision, row.epoch
            began = perf_counter()
            write(writer, batch)
            used = perf_counter() - began
            began = perf_counter()
            read_feed(reader)
            feed = perf_counter() - began
            memory = resident_bytes() / 2**20
            began = perf_counter()
            for tenant in made[-8:]:
                assert writer.drop_tenant(tenant)
            dropped = (perf_counter() - began) / 8
            del made[-8:]
        print(
            ROW.format(
                count,
                f"{per_tenant * 1e3:.2f}",
                f"{used * 1e3:.1f}",
                f"{opened:.2f}",
                f"{feed:.2f}",
                f"{dropped * 1e3:.1f}",
                f"{size / 1024:.0f}",
                f"{memory:.0f}",
            ),
            flush=True,
        )
        if took > seconds:
            break
        count *= 2


def database_size(conninfo: str) -> float:
    """The bytes of the connection's database."""
    with psycopg.connect(conninfo) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return float(row[0])


def main() -> None:
    """Measure the storages that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tenants", description=__doc__)
    parser.add_argument("storages", nargs="*", choices=[[], "sqlite", "postgres"])
    parser.add_argument("--least", type=int, default=1000, help="tenants in the first row")
    parser.add_argument("--most", type=int, default=64_000, help="tenants in the last row")
    parser.add_argument(
        "--seconds", type=float, default=120, help="end after a row whose making took longer"
    )
    parser.add_argument("--dir", type=Path, help="where to put the databases (default: here)")
    arguments = parser.parse_args()
    limits = (arguments.most, arguments.least, arguments.seconds)
    with tempfile.TemporaryDirectory(prefix="tenants-", dir=arguments.dir or Path.cwd()) as name:
        folder = Path(name)
        if not arguments.storages or "sqlite" in arguments.storages:
            print("SQLite")
            path = folder / "app.db"
            measure(SQLiteStorage(path), lambda: float(path.stat().st_size), *limits)
        if (not arguments.storages or "postgres" in arguments.storages) and not server.obstacle():
            with server.own(folder) as conninfo:
                print("PostgreSQL")
                measure(PostgresStorage(conninfo), lambda: database_size(conninfo), *limits)


if __name__ == "__main__":
    main()
