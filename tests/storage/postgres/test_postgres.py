"""PostgreSQL: what the conformance suite doesn't ask of every storage."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import pairwise

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from support.postgres import Database, wait_until

from trio_durable import DurableRuntime, ObjectKey, SchemaTooNew, StorageUnavailable
from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    AlarmChanges,
    AlarmRow,
    Commit,
    NewAlarm,
    Postponement,
    Reader,
    StorageFault,
    StoredObject,
    Writer,
)
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._migrations import _LOCK, GONE, names_of_all

NOW = 1_767_225_600_000_000
SECOND = 1_000_000


def key(object_id: str, tenant: str = "") -> ObjectKey:
    return ObjectKey("Cart", object_id, tenant)


def save(object_id: str, revision: int, state: bytes = b"1", epoch: int = 0) -> Commit:
    return Commit(key(object_id), revision, state, epoch=epoch)


def setting(object_id: str, *names: str, revision: int | None = None) -> Commit:
    changed = {name: NewAlarm(NOW, None) for name in names}
    return Commit(key(object_id), revision, alarms=AlarmChanges(changed={**changed}))


def alarm_key(object_id: str, name: str = "x") -> AlarmKey:
    return AlarmKey("Cart", object_id, name)


@pytest.fixture
def storage(postgres: str) -> PostgresStorage:
    return PostgresStorage(postgres)


@pytest.fixture
def writer(storage: PostgresStorage) -> Iterator[Writer]:
    with closing(storage.open_writer()) as writer:
        yield writer


@pytest.fixture
def other(storage: PostgresStorage, writer: Writer) -> Iterator[Writer]:
    """The writer of another runtime."""
    with closing(storage.open_writer()) as writer:
        yield writer


@pytest.fixture
def reader(storage: PostgresStorage, writer: Writer) -> Iterator[Reader]:
    with closing(storage.open_reader()) as reader:
        yield reader


@pytest.fixture
def admin(postgres: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Another program in the same schema."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        yield connection


def commit(writer: Writer, *batch: Commit) -> list[int]:
    return sorted(writer.commit(batch, NOW))


# --- several writers: epochs ---------------------------------------------------------------------


def test_several_writers_may_be_open(writer: Writer, other: Writer, reader: Reader) -> None:
    assert commit(writer, save("a", 0)) == []
    assert commit(other, save("a", 1, b"2")) == []
    assert commit(writer, save("a", 1, b"3")) == [0]
    assert reader.load([key("a")]) == [StoredObject(2, b"2")]


def test_what_is_based_on_an_object_that_is_gone_does_not_touch_the_new_one(
    writer: Writer, other: Writer, reader: Reader
) -> None:
    """Both have revision 1, and only their epochs differ."""
    assert commit(writer, save("a", 0, b"old", epoch=11)) == []
    assert reader.load([key("a")]) == [StoredObject(1, b"old", 11)]
    assert commit(other, Commit(key("a"), 1, delete=True, epoch=11)) == []
    assert commit(other, save("a", 0, b"new", epoch=22)) == []
    changes = AlarmChanges(changed={"x": NewAlarm(NOW, None)})
    for stale in (
        save("a", 1, b"overwritten", epoch=11),
        Commit(key("a"), 1, b"overwritten", alarms=changes, epoch=11),
        Commit(key("a"), 1, delete=True, epoch=11),
        Commit(key("a"), 1, alarms=changes, epoch=11),
    ):
        assert commit(writer, stale) == [0]
        assert commit(writer, save("b", 0), stale, setting("c", "x")) == [1]
        commit(writer, Commit(key("b"), 1, delete=True))
    assert reader.load([key("a")]) == [StoredObject(1, b"new", 22)]
    assert reader.list_alarms(key("a")) == []
    assert commit(writer, save("a", 1, b"newer", epoch=22)) == []
    assert reader.load([key("a")]) == [StoredObject(2, b"newer", 22)]
    assert [row.epoch for row in reader.browse_objects(None, None, 9)] == [22]


def test_a_save_whose_row_is_gone_does_not_make_it_anew(
    writer: Writer, other: Writer, reader: Reader
) -> None:
    commit(writer, save("a", 0), save("b", 0))
    commit(other, Commit(key("a"), 1, delete=True))
    assert commit(writer, save("a", 1, b"2"), save("b", 1, b"2"), save("c", 0)) == [0]
    rows = reader.load([key("a"), key("b"), key("c")])
    assert rows == [None, StoredObject(2, b"2"), StoredObject(1, b"1")]


def test_a_row_that_goes_while_a_save_waits_for_it_is_not_made_anew(
    writer: Writer, reader: Reader, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    commit(writer, save("a", 0), save("b", 0))
    with admin.transaction():
        admin.execute("DELETE FROM durable_objects WHERE object_id = 'a'")
        outcome, thread = in_thread(lambda: commit(writer, save("a", 1), save("b", 1, b"2")))
        wait_until(lambda: waits(admin) == 1)
    thread.join()
    assert outcome == [[0]]
    assert reader.load([key("a"), key("b")]) == [None, StoredObject(2, b"2")]


@pytest.mark.parametrize("kind", ["deletion", "alarms only"])
def test_a_row_that_changes_while_something_waits_for_it_makes_that_stale(
    writer: Writer, reader: Reader, admin: psycopg.Connection[tuple[object, ...]], kind: str
) -> None:
    commit(writer, save("a", 0), save("b", 0))
    stale = (
        Commit(key("a"), 1, delete=True) if kind == "deletion" else setting("a", "x", revision=1)
    )
    with admin.transaction():
        admin.execute("UPDATE durable_objects SET revision = 2 WHERE object_id = 'a'")
        outcome, thread = in_thread(lambda: commit(writer, stale, save("b", 1, b"2")))
        wait_until(lambda: waits(admin) == 1)
    thread.join()
    assert outcome == [[0]]
    assert reader.load([key("a"), key("b")]) == [StoredObject(2, b"1"), StoredObject(2, b"2")]
    assert reader.list_alarms(key("a")) == []


ALARM = {"x": NewAlarm(NOW, None)}
MIXES: dict[str, Callable[[], list[Commit]]] = {
    "save and leave": lambda: [save("b", 1), setting("a", "y", revision=1)],
    "save and delete": lambda: [save("b", 1), Commit(key("a"), 1, delete=True)],
    "delete and leave": lambda: [
        Commit(key("b"), 1, delete=True),
        setting("a", "y", revision=1),
    ],
    "cancel and set": lambda: [
        Commit(key("b"), None, alarms=AlarmChanges(changed={"x": None})),
        setting("a", "x"),
    ],
    "acknowledge and clear": lambda: [
        Commit(key("b"), None, alarms=AlarmChanges({"x": 1})),
        Commit(key("a"), None, alarms=AlarmChanges(clear=True)),
    ],
    "several tenants": lambda: [Commit(key("b", "acme"), 1, b"2"), save("a", 1)],
}


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
def test_a_batch_that_waits_for_its_first_key_has_locked_none_behind_it(
    writer: Writer,
    reader: Reader,
    admin: psycopg.Connection[tuple[object, ...]],
    mix: Callable[[], list[Commit]],
) -> None:
    """Or another batch could have locked the first, and wait for what is behind it."""
    changes = AlarmChanges(changed={**ALARM})
    both = [Commit(key(one), 0, b"1", alarms=changes) for one in "ab"]
    assert commit(writer, *both, Commit(key("b", "acme"), 0, b"1")) == []
    assert writer.claim([alarm_key("b")], 1, NOW, NOW + SECOND)
    tables = ("durable_objects", "durable_alarms")
    with admin.transaction():
        for table in tables:
            admin.execute(f"SELECT FROM {table} WHERE object_id = 'a' FOR UPDATE".encode())
        outcome, thread = in_thread(lambda: commit(writer, *mix()))
        wait_until(lambda: waits(admin) == 1)
        for table in (*tables, "durable_acme.durable_objects"):
            rest = f"SELECT FROM {table} WHERE object_id <> 'a' FOR UPDATE SKIP LOCKED"
            assert len(admin.execute(rest.encode()).fetchall()) == 1
    thread.join()
    assert outcome == [[]]


@pytest.mark.parametrize("how", ["delete", "set"])
def test_an_object_that_is_made_while_another_runtime_depends_on_there_being_none_waits(
    writer: Writer,
    other: Writer,
    reader: Reader,
    admin: psycopg.Connection[tuple[object, ...]],
    how: str,
) -> None:
    """Or its alarms could be taken for those that were there before it."""
    commit(writer, setting("v", "held"))
    assert writer.claim([alarm_key("v", "held")], 1, NOW, NOW + SECOND)
    changes = {"delete": AlarmChanges(clear=True), "set": AlarmChanges(changed={**ALARM})}[how]
    acknowledging = Commit(key("v"), 0, b"1", alarms=AlarmChanges({"held": 1}))
    from_nothing = Commit(key("u"), 0, delete=how == "delete", alarms=changes)
    later = AlarmChanges(changed={"x": NewAlarm(NOW + 7, None)})
    with admin.transaction():
        admin.execute("SELECT FROM durable_alarms WHERE object_id = 'v' FOR UPDATE")
        first, one = in_thread(lambda: commit(writer, from_nothing, acknowledging))
        wait_until(lambda: waits(admin) == 1)
        second, two = in_thread(lambda: commit(other, Commit(key("u"), 0, b"1", alarms=later)))
        wait_until(lambda: waits(admin) == 2 or second)
    one.join()
    two.join()
    assert (first, second) == ([[]], [[]])
    assert reader.load([key("u")]) == [StoredObject(1, b"1")]
    assert [alarm.due_at for alarm in reader.list_alarms(key("u"))] == [NOW + 7]


def test_what_depends_on_there_being_nothing_leaves_nothing(
    writer: Writer, reader: Reader, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    assert commit(writer, setting("a", "x", revision=0), save("b", 0)) == []
    assert commit(writer, setting("a", "y", revision=0), setting("b", "y", revision=0)) == [1]
    assert reader.load([key("a"), key("b")]) == [None, StoredObject(1, b"1")]
    assert [alarm.key.name for alarm in reader.list_alarms(key("a"))] == ["x", "y"]


def in_thread(work: Callable[[], object]) -> tuple[list[object], threading.Thread]:
    outcome: list[object] = []
    thread = threading.Thread(target=lambda: outcome.append(work()))
    thread.start()
    return outcome, thread


def waits(admin: psycopg.Connection[tuple[object, ...]]) -> int:
    """How many connections wait for a lock."""
    return count(admin, "SELECT count(*) FROM pg_locks WHERE NOT granted")


# --- several writers: races ----------------------------------------------------------------------


def race(storage: PostgresStorage, count: int, work: Callable[[int, Writer], object]) -> None:
    """Let ``work`` run in threads, each with a writer of its own."""
    start = threading.Barrier(count)
    errors: list[Exception] = []

    def run(number: int) -> None:
        try:
            start.wait()
            with closing(storage.open_writer()) as writer:
                work(number, writer)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def deadlocks(admin: psycopg.Connection[tuple[object, ...]], left: int) -> object:
    """How many there have been, once no more than ``left`` connections are open."""
    # A backend tells of what it did when it ends, at the latest.
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    wait_until(lambda: count(admin, sessions) <= left)
    return count(admin, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


def count(admin: psycopg.Connection[tuple[object, ...]], query: str) -> int:
    row = admin.execute(query.encode()).fetchone()
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]


def test_batches_of_several_writers_on_the_same_objects_never_lock_in_a_circle(
    storage: PostgresStorage,
    writer: Writer,
    reader: Reader,
    admin: psycopg.Connection[tuple[object, ...]],
) -> None:
    """Each comes with the objects in another order; every one that applied counts one."""
    ids = [f"{n:03}" for n in range(100)]
    applied = [0] * 4
    before = deadlocks(admin, 4)

    def work(number: int, mine: Writer) -> None:
        order = ids[number * 25 :] + ids[: number * 25]
        if number % 2:
            order.reverse()
        for _ in range(15):
            rows = reader_of[number].load([key(one) for one in order])
            batch = [
                save(one, row.revision if row else 0) for one, row in zip(order, rows, strict=True)
            ]
            applied[number] += len(batch) - len(mine.commit(batch, NOW))

    with ExitStack() as stack:
        reader_of = [stack.enter_context(closing(storage.open_reader())) for _ in range(4)]
        race(storage, 4, work)
    assert deadlocks(admin, 4) == before
    rows = reader.load([key(one) for one in ids])
    assert sum(row.revision for row in rows if row) == sum(applied) >= 1500


def test_of_writers_that_race_for_alarms_each_gets_its_own(
    storage: PostgresStorage, writer: Writer
) -> None:
    ids = [f"{n:03}" for n in range(200)]
    commit(writer, *(setting(one, "x") for one in ids))
    claimed: list[set[str]] = [set() for _ in range(4)]

    def work(number: int, mine: Writer) -> None:
        keys = [alarm_key(one) for one in (reversed(ids) if number % 2 else ids)]
        for claim in range(20):
            found = mine.claim(keys, 100 * number + claim + 1, NOW, NOW + SECOND)
            claimed[number] |= {alarm.key.object_id for alarm in found}

    race(storage, 4, work)
    assert sorted(one for mine in claimed for one in mine) == ids


def test_a_claim_passes_over_what_somebody_else_has_locked(
    writer: Writer, reader: Reader, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    commit(writer, setting("a", "x"), setting("b", "x"))
    with admin.transaction():
        admin.execute("SELECT FROM durable_alarms WHERE object_id = 'a' FOR UPDATE")
        keys = [alarm_key("a"), alarm_key("b")]
        found = writer.claim(keys, 1, NOW, NOW + SECOND)
        assert [alarm.key for alarm in found] == [alarm_key("b")]
    found = writer.claim(keys, 2, NOW, NOW + SECOND)
    assert [alarm.key for alarm in found] == [alarm_key("a")]


def test_of_writers_that_race_to_acknowledge_one_applies(
    storage: PostgresStorage, writer: Writer, reader: Reader
) -> None:
    ids = [f"{n:03}" for n in range(50)]
    commit(writer, *(setting(one, "x") for one in ids))
    writer.claim([alarm_key(one) for one in ids], 1, NOW, NOW + SECOND)
    applied: list[list[str]] = [[] for _ in range(4)]

    def work(number: int, mine: Writer) -> None:
        batch = [
            Commit(key(one), 0, b"%d" % number, alarms=AlarmChanges(acknowledged={"x": 1}))
            for one in (reversed(ids) if number % 2 else ids)
        ]
        stale = set(mine.commit(batch, NOW))
        applied[number] = [c.key.object_id for n, c in enumerate(batch) if n not in stale]

    race(storage, 4, work)
    assert sorted(one for mine in applied for one in mine) == ids
    rows = reader.load([key(one) for one in ids])
    assert {row.revision for row in rows if row} == {1}


def test_opening_gives_no_claims_back(writer: Writer, storage: PostgresStorage) -> None:
    """Who has claimed them may be alive. When they have run out they are free."""
    commit(writer, setting("a", "x"))
    assert writer.claim([alarm_key("a")], 1, NOW, NOW + SECOND)
    with closing(storage.open_writer()) as other:
        assert other.claim([alarm_key("a")], 2, NOW, NOW + SECOND) == []
        assert other.claim([alarm_key("a")], 3, NOW + SECOND, NOW + 2 * SECOND)
    writer.renew([(alarm_key("a"), 1)], NOW + 9 * SECOND)
    writer.postpone([Postponement(alarm_key("a"), 1, NOW, 1, None)])
    assert commit(writer, Commit(key("a"), 0, b"1", alarms=AlarmChanges({"x": 1}))) == [0]


# --- round trips and plans -----------------------------------------------------------------------


@contextmanager
def counted(writer: Writer) -> Iterator[list[str]]:
    """What a writer's connection sends: statements, and pipelines as one."""
    connection = writer._link._connection  # type: ignore[attr-defined]
    sent: list[str] = []
    wait = connection.wait

    def counting(gen: object, *args: object, **kwargs: object) -> object:
        sent.append(gen.__name__)  # type: ignore[attr-defined]
        return wait(gen, *args, **kwargs)

    connection.wait = counting
    try:
        yield sent
    finally:
        del connection.wait


@pytest.mark.parametrize("rows", [1, 64, 1000])
def test_a_batch_of_saves_is_one_round_trip(writer: Writer, rows: int) -> None:
    ids = [f"{n:04}" for n in range(rows)]
    for revision in range(8):  # some of them prepared
        with counted(writer) as sent:
            assert commit(writer, *(save(one, revision) for one in ids)) == []
        assert len(sent) == 1


def test_stale_saves_take_no_second_round_trip(writer: Writer) -> None:
    commit(writer, save("a", 0), save("b", 0))
    with counted(writer) as sent:
        assert commit(writer, save("a", 1), save("b", 7), save("c", 0)) == [1]
    assert len(sent) == 1


def catch_up(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Wait until the statistics have what backends did that have ended."""
    if connection.info.server_version >= 150000:
        connection.execute("SELECT pg_stat_force_next_flush()")
        return
    # There they go to a process, one after the other: wait until something newer got through.
    connection.execute("CREATE TEMPORARY TABLE newer (n int)")

    def is_counted() -> bool:
        connection.execute("SELECT * FROM newer")
        counted = connection.execute(
            "SELECT seq_scan > 0 FROM pg_stat_user_tables WHERE relid = 'newer'::regclass"
        )
        return counted.fetchone() == (True,)

    wait_until(is_counted)
    connection.execute("DROP TABLE newer")


def rows_changed(postgres: str, table: str) -> tuple[int, int]:
    """How many rows of a table were updated, and how many of these within their page."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        catch_up(connection)
        found = connection.execute(
            "SELECT pg_stat_get_tuples_updated(oid), pg_stat_get_tuples_hot_updated(oid) "
            "FROM pg_class WHERE oid = %s::regclass",
            (table,),
        ).fetchone()
    assert found is not None
    return found


def test_saves_stay_within_their_page(writer: Writer, postgres: str) -> None:
    """No index is written, since no indexed column changes and there is room in each page."""
    ids = [f"{n:03}" for n in range(500)]
    commit(writer, *(save(one, 0, b'"%s"' % (b"x" * 50)) for one in ids))
    for revision in range(1, 5):
        for start in range(100):
            batch = [save(one, revision, b'"%s"' % (b"x" * 50)) for one in ids[start::100]]
            assert commit(writer, *batch) == []
    writer.close()
    updated, within = rows_changed(postgres, "durable_objects")
    assert updated == 2000
    assert within > 0.9 * updated


QUERIES: dict[str, Callable[[Writer, Reader, list[AlarmKey]], object]] = {
    "save": lambda w, r, keys: w.commit([save(k.object_id, 1) for k in keys], NOW),
    "delete": lambda w, r, keys: w.commit(
        [Commit(k.object_key, 1, delete=True) for k in keys], NOW
    ),
    "untouched": lambda w, r, keys: w.commit(
        [setting(k.object_id, "y", revision=1) for k in keys], NOW
    ),
    "stale": lambda w, r, keys: w.commit(
        [setting(k.object_id, "y", revision=7) for k in keys], NOW
    ),
    "load": lambda w, r, keys: r.load([k.object_key for k in keys]),
    "list": lambda w, r, keys: r.list_ids("Cart", keys[0].object_id, 5),
    "browse": lambda w, r, keys: r.browse_objects(None, keys[0].object_key, 5),
    "browse a type": lambda w, r, keys: r.browse_objects("Cart", keys[0].object_key, 5),
    "claim": lambda w, r, keys: w.claim(keys, 5, NOW, NOW + SECOND),
    "renew": lambda w, r, keys: w.renew([(k, 1) for k in keys], NOW),
    "postpone": lambda w, r, keys: w.postpone([Postponement(k, 1, NOW, 1, None) for k in keys]),
    "acknowledge": lambda w, r, keys: w.commit(
        [Commit(k.object_key, None, alarms=AlarmChanges({k.name: 1})) for k in keys], NOW
    ),
    "set": lambda w, r, keys: w.commit([setting(k.object_id, "x", "z") for k in keys], NOW),
    "cancel": lambda w, r, keys: w.commit(
        [Commit(k.object_key, None, alarms=AlarmChanges(changed={"x": None})) for k in keys], NOW
    ),
    "clear": lambda w, r, keys: w.commit(
        [Commit(k.object_key, None, alarms=AlarmChanges(clear=True)) for k in keys], NOW
    ),
    "depend on nothing": lambda w, r, keys: w.commit(
        [setting("new" + k.object_id, "x", revision=0) for k in keys], NOW
    ),
    "save and delete": lambda w, r, keys: w.commit(
        [save(keys[0].object_id, 1), Commit(keys[1].object_key, 2, delete=True)], NOW
    ),
    "cancel and set": lambda w, r, keys: w.commit(
        [
            Commit(k.object_key, None, alarms=AlarmChanges(changed={"x": None, "y": ALARM["x"]}))
            for k in keys
        ],
        NOW,
    ),
    "clear and set": lambda w, r, keys: w.commit(
        [
            Commit(k.object_key, None, alarms=AlarmChanges(clear=True, changed={**ALARM}))
            for k in keys
        ],
        NOW,
    ),
    "due": lambda w, r, keys: r.due_alarms(NOW + 1, None, 5, ()),
    "alarms": lambda w, r, keys: r.list_alarms(keys[0].object_key),
    "dead letters": lambda w, r, keys: r.list_dead_letters("Cart", keys[0], 5),
    "browse alarms": lambda w, r, keys: r.browse_alarms(None, NOW, "Cart", keys[0], 5),
    "revive": lambda w, r, keys: w.revive(keys[0], NOW),
}


@pytest.fixture(scope="module")
def large(postgres_database: Database) -> Iterator[tuple[PostgresStorage, str]]:
    """Tables of some size, whose statistics are known."""
    conninfo = postgres_database.new_schema("large_tables")
    storage = PostgresStorage(conninfo)
    with closing(storage.open_writer()) as writer:
        ids = [f"{n:05}" for n in range(20_000)]
        for start in range(0, len(ids), 1000):
            batch = [
                Commit(key(one), 0, b"1", alarms=AlarmChanges(changed={"x": NewAlarm(NOW, None)}))
                for one in ids[start : start + 1000]
            ]
            writer.commit(batch, NOW)
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("ANALYZE durable_objects, durable_alarms")
    yield storage, conninfo
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("DROP SCHEMA large_tables CASCADE")


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_no_statement_looks_at_a_whole_table(
    large: tuple[PostgresStorage, str], query: Callable[[Writer, Reader, list[AlarmKey]], object]
) -> None:
    storage, conninfo = large
    with psycopg.connect(conninfo, autocommit=True) as admin:

        def scans() -> object:
            catch_up(admin)
            return admin.execute(
                "SELECT relname, seq_scan FROM pg_stat_user_tables "
                "WHERE schemaname = 'large_tables' AND relname IN "
                "('durable_objects', 'durable_alarms') ORDER BY 1"
            ).fetchall()

        before = scans()
        with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
            keys = [alarm_key(f"{n:05}") for n in range(100, 140)]
            for _ in range(12):  # prepared, and with plans for any parameters
                query(writer, reader, keys)
        # A backend tells what it did when it ends, at the latest.
        wait_until(
            lambda: (
                admin.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'trio_durable'"
                ).fetchone()
                == (0,)
            )
        )
        assert scans() == before


# --- big things ----------------------------------------------------------------------------------


def test_a_batch_of_32_mb_of_quotes(writer: Writer, reader: Reader) -> None:
    states = [b'"' + b'\\"' * (512 * 1024 - 1) + b'"' for _ in range(32)]
    ids = [f"{n:02}" for n in range(32)]
    batch = [save(one, 0, state) for one, state in zip(ids, states, strict=True)]
    assert commit(writer, *batch) == []
    rows = reader.load([key(one) for one in ids])
    assert [row.state for row in rows if row] == states


def test_numbers_of_64_bits(writer: Writer, reader: Reader) -> None:
    epoch = 2**63 - 1
    commit(writer, save("a", 0, b'{"n":-9223372036854775808,"m":18446744073709551615}', epoch))
    assert commit(writer, Commit(key("a"), 1, b"1", epoch=epoch - 1)) == [0]
    (row,) = reader.load([key("a")])
    assert row == StoredObject(1, b'{"n":-9223372036854775808,"m":18446744073709551615}', epoch)
    latest = AlarmChanges(changed={"x": NewAlarm(2**63 - 1, None)})
    commit(writer, Commit(key("a"), None, alarms=latest))
    assert reader.list_alarms(key("a"))[0].due_at == 2**63 - 1


@pytest.mark.parametrize("bad", [save("a", 0, epoch=2**63), save("a", 0, b"\xff"), save("a\0", 0)])
def test_what_no_row_can_hold_is_a_fault(writer: Writer, reader: Reader, bad: Commit) -> None:
    with pytest.raises(StorageFault):
        commit(writer, save("b", 0), bad)
    assert reader.browse_objects(None, None, 9) == []
    assert commit(writer, save("b", 0)) == []


def test_the_time_of_a_commit_is_noted(
    writer: Writer, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    writer.commit([save("a", 0)], NOW)
    writer.commit([save("a", 1)], NOW + 7)
    found = admin.execute("SELECT owner, revision, updated_at, state FROM durable_objects")
    assert found.fetchall() == [(None, 2, NOW + 7, "1")]


# --- settings of a connection --------------------------------------------------------------------


def settings_of(side: object, *names: str) -> list[str]:
    connection = side._link._connection  # type: ignore[attr-defined]
    return [connection.execute(f"SHOW {name}".encode()).fetchone()[0] for name in names]


def test_what_a_connection_is_set_to(postgres: str) -> None:
    parameters = make_conninfo(
        postgres,
        options=f"{conninfo_to_dict(postgres)['options']} -csynchronous_commit=off "
        "-cdefault_transaction_isolation=serializable",
    )
    names = ("synchronous_commit", "statement_timeout", "idle_in_transaction_session_timeout")
    with closing(PostgresStorage(parameters, statement_timeout=7).open_writer()) as writer:
        assert settings_of(writer, *names) == ["on", "7s", "7s"]
        names = ("default_transaction_isolation", "client_encoding", "application_name")
        assert settings_of(writer, *names) == ["read committed", "UTF8", "trio_durable"]
    with closing(PostgresStorage(postgres, durability="normal").open_writer()) as writer:
        assert settings_of(writer, "synchronous_commit") == ["off"]


def test_what_the_user_sets_stays(postgres: str) -> None:
    options = conninfo_to_dict(postgres)["options"]
    parameters = make_conninfo(
        postgres,
        options=f"{options} -csynchronous_commit=remote_apply -cstatement_timeout=0",
        application_name="shop",
    )
    with closing(PostgresStorage(parameters).open_writer()) as writer:
        names = ("synchronous_commit", "statement_timeout", "application_name")
        assert settings_of(writer, *names) == ["remote_apply", "0", "shop"]
        assert writer._link._connection.patience is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("prepared", [True, False])
def test_statements_are_prepared_unless_a_pooler_can_not_have_them(
    postgres: str, prepared: bool
) -> None:
    storage = PostgresStorage(postgres, prepared_statements=prepared)
    with closing(storage.open_writer()) as writer:
        for revision in range(8):
            commit(writer, save("a", revision))
        connection = writer._link._connection  # type: ignore[attr-defined]
        count = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert (count[0] > 0) is prepared


# --- migrations ----------------------------------------------------------------------------------

CATALOGUE = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), l.collname::text,
    a.attnotnull::text || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = %(schema)s::text::regnamespace AND a.attnum > 0 AND c.relkind = 'r'
UNION ALL
SELECT 'index', tablename, indexname, indexdef, null, null FROM pg_indexes
WHERE schemaname = %(schema)s::text
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), null, null
FROM pg_constraint WHERE connamespace = %(schema)s::text::regnamespace
UNION ALL
SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), null, null
FROM pg_trigger WHERE tgrelid::regclass::text LIKE '%%durable%%'
    AND (SELECT relnamespace FROM pg_class c WHERE c.oid = tgrelid) = %(schema)s::text::regnamespace
UNION ALL
SELECT 'function', null, proname, pg_get_functiondef(oid), null, null
FROM pg_proc WHERE pronamespace = %(schema)s::text::regnamespace
UNION ALL
SELECT 'table', null, relname, reloptions::text, null, null
FROM pg_class WHERE relkind = 'r' AND relnamespace = %(schema)s::text::regnamespace
ORDER BY 1, 2, 3
"""

Admin = psycopg.Connection[tuple[object, ...]]


def schema_of(admin: Admin) -> str:
    row = admin.execute("SELECT current_schema()").fetchone()
    assert row is not None
    return str(row[0])


def catalogue(admin: Admin, schema: str | None = None) -> list[tuple[object, ...]]:
    """Everything there is in a schema, without the schema's own name."""
    schema = schema or schema_of(admin)
    rows = admin.execute(CATALOGUE, {"schema": schema}).fetchall()
    return [
        tuple(
            text.replace(f'"{schema}".', "").replace(f"{schema}.", "")
            if isinstance(text, str)
            else text
            for text in row
        )
        for row in rows
    ]


def test_the_tables(storage: PostgresStorage, admin: Admin) -> None:
    storage.open_writer().close()
    found = catalogue(admin)
    columns = [row[1:] for row in found if row[0] == "column" and row[1] == "durable_objects"]
    assert columns == [
        ("durable_objects", "epoch", "bigint", None, "true"),
        ("durable_objects", "object_id", "text", "C", "true"),
        ("durable_objects", "owner", "uuid", None, "false"),
        ("durable_objects", "revision", "bigint", None, "true"),
        ("durable_objects", "state", "text", "default", "true"),
        ("durable_objects", "type_name", "text", "C", "true"),
        ("durable_objects", "updated_at", "bigint", None, "true"),
    ]
    assert [row[2] for row in found if row[0] == "index"] == [
        "durable_alarms_by_time",
        "durable_alarms_pkey",
        "durable_migrations_pkey",
        "durable_objects_pkey",
        "durable_tenants_pkey",
    ]
    assert ("table", None, "durable_objects", "{fillfactor=70}", None, None) in found


def test_migrations_one_by_one_make_the_schema_from_scratch(
    storage: PostgresStorage, admin: Admin
) -> None:
    assert storage.pending_migrations() == names_of_all()
    assert storage.applied_migrations() == []
    storage.open_writer().close()
    scratch = catalogue(admin)
    assert storage.applied_migrations() == names_of_all()
    assert storage.pending_migrations() == []
    # Down step by step and up again, from each of them.
    seen = [scratch]
    for to in [*reversed(names_of_all()[:-1]), None]:
        storage.migrate_down(to)
        assert storage.applied_migrations() == (
            [] if to is None else names_of_all()[: names_of_all().index(to) + 1]
        )
        seen.append(catalogue(admin))
        storage.open_writer().close()
        assert catalogue(admin) == scratch
        storage.migrate_down(to)
        assert catalogue(admin) == seen[-1]
    assert seen[-1] == []
    assert all(len(less) < len(more) for more, less in pairwise(seen))


def test_migrations_down_and_up_with_tenants(
    storage: PostgresStorage, admin: Admin, writer: Writer
) -> None:
    commit(writer, save("a", 0), Commit(key("a", "acme"), 0, b"1"))
    scratch = catalogue(admin), catalogue(admin, "durable_acme")
    writer.close()
    assert storage.migrate_down("m001_objects") == ["m003_tenants", "m002_alarms"]
    assert admin.execute("SELECT to_regnamespace('durable_acme')").fetchone() == (None,)
    with closing(storage.open_writer()) as again:
        commit(again, Commit(key("a", "acme"), 0, b"1"))
        assert (catalogue(admin), catalogue(admin, "durable_acme")) == scratch
        with closing(storage.open_reader()) as reader:
            assert reader.load([key("a")]) == [StoredObject(1, b"1")]  # what they had in common


@pytest.mark.parametrize("to", [*names_of_all(), None])
def test_the_sql_of_migrations_down_does_the_same(
    storage: PostgresStorage, admin: Admin, to: str | None
) -> None:
    def fill() -> None:
        with closing(storage.open_writer()) as writer:
            commit(writer, save("a", 0), Commit(key("a", "acme"), 0, b"1"))

    def found() -> list[object]:
        of_tenant = admin.execute("SELECT to_regnamespace('durable_acme')").fetchone()
        return [catalogue(admin), of_tenant, storage.applied_migrations()]

    fill()
    before = found()
    printed = storage.migrate_down_sql(to)
    assert found() == before  # looking changes nothing
    storage.migrate_down(to)
    after = found()
    if after != before:
        admin.execute("DROP SCHEMA IF EXISTS durable_acme CASCADE")
        storage.migrate_down(None)
        fill()
        assert found() == before
    run_script(admin, printed)
    assert found() == after
    assert storage.migrate_down_sql(to) == ""


def test_the_tables_of_a_tenant_are_those_of_everybody(
    storage: PostgresStorage, admin: Admin, writer: Writer
) -> None:
    commit(writer, Commit(key("a", "acme"), 0, b"1"))
    theirs = catalogue(admin, "durable_acme")
    of_everybody = [row for row in catalogue(admin) if row in theirs]
    assert theirs == of_everybody
    assert [row[2] for row in theirs if row[0] == "table"] == ["durable_alarms", "durable_objects"]


def test_a_tenant_is_brought_up_to_date(
    storage: PostgresStorage, admin: Admin, writer: Writer
) -> None:
    commit(writer, Commit(key("a", "acme"), 0, b"1"))
    scratch = catalogue(admin, "durable_acme")
    writer.close()
    admin.execute("DROP TABLE durable_acme.durable_alarms")
    admin.execute("DELETE FROM durable_migrations WHERE tenant = 'acme' AND name = 'm002_alarms'")
    assert storage.pending_migrations() == ["m002_alarms of tenant acme"]
    with pytest.raises(StorageUnavailable, match=r"older release.*trio-durable migrate"):
        storage.open_reader()
    storage.open_writer().close()
    assert catalogue(admin, "durable_acme") == scratch


def test_ten_that_start_at_once_apply_each_migration_once(
    storage: PostgresStorage, admin: Admin
) -> None:
    """All of them have seen that nothing is there when the first begins."""
    threads = []
    outcomes = []
    with admin.transaction():
        admin.execute(_LOCK.encode())
        for number in range(10):
            outcome, thread = in_thread(partial(opened_and_saved, storage, f"{number}"))
            outcomes.append(outcome)
            threads.append(thread)
        wait_until(lambda: waits(admin) == 10)
    for thread in threads:
        thread.join()
    assert outcomes == [[[]]] * 10
    found = admin.execute("SELECT name, count(*) FROM durable_migrations GROUP BY 1 ORDER BY 1")
    assert found.fetchall() == [(name, 1) for name in names_of_all()]


def opened_and_saved(storage: PostgresStorage, object_id: str) -> list[int]:
    with closing(storage.open_writer()) as writer:
        return commit(writer, save(object_id, 0))


def test_ten_that_make_the_same_tenant_at_once(storage: PostgresStorage, writer: Writer) -> None:
    def work(number: int, mine: Writer) -> None:
        assert commit(mine, Commit(key(f"{number}", "acme"), 0, b"1")) == []

    race(storage, 10, work)
    with closing(storage.open_reader()) as reader:
        assert reader.list_tenants(None, 9) == ["acme"]
        assert len(reader.list_ids("Cart", None, 99, "acme")) == 10


def test_a_newer_schema_is_refused(storage: PostgresStorage, admin: Admin) -> None:
    storage.open_writer().close()
    admin.execute("INSERT INTO durable_migrations (tenant, name) VALUES ('', 'm099_future')")
    works: list[Callable[[], object]] = [
        storage.open_writer,
        storage.open_reader,
        storage.pending_migrations,
        storage.migration_sql,
        lambda: storage.migrate_down(None),
        lambda: storage.migrate_down_sql(None),
    ]
    for work in works:
        with pytest.raises(SchemaTooNew) as caught:
            work()
        assert caught.value.unknown == ("m099_future",)
    assert storage.applied_migrations() == [*names_of_all(), "m099_future"]


def test_a_migration_down_to_nowhere_is_refused(storage: PostgresStorage) -> None:
    for work in (storage.migrate_down, storage.migrate_down_sql):
        with pytest.raises(ValueError, match=r"no migration 'm9', only m001_objects, "):
            work("m9")


def test_nothing_to_read_yet(storage: PostgresStorage, admin: Admin) -> None:
    with pytest.raises(StorageUnavailable, match=r"no tables in schema test_.* yet"):
        storage.open_reader()
    assert catalogue(admin) == []


@pytest.mark.parametrize("everything", [True, False])
def test_the_sql_of_migrations_makes_the_same_schema(
    storage: PostgresStorage, admin: Admin, everything: bool
) -> None:
    printed = storage.migration_sql(everything=everything)
    assert catalogue(admin) == []
    run_script(admin, printed)
    made = catalogue(admin)
    assert storage.pending_migrations() == []
    assert storage.migration_sql() == ""
    storage.migrate_down(None)
    storage.open_writer().close()
    assert catalogue(admin) == made


def test_the_sql_of_a_tenant_makes_the_same_schema(
    storage: PostgresStorage, admin: Admin, writer: Writer
) -> None:
    run_script(admin, storage.migration_sql(tenant="acme"))
    made = catalogue(admin, "durable_acme")
    assert commit(writer, Commit(key("a", "acme"), 0, b"1")) == []
    assert writer.drop_tenant("acme") is True
    assert commit(writer, Commit(key("a", "acme"), 0, b"1")) == []
    assert catalogue(admin, "durable_acme") == made


def run_script(admin: Admin, script: str) -> None:
    admin.execute(script.encode(), prepare=False)


def test_the_sql_of_migrations_is_the_same_until_they_are_applied(
    storage: PostgresStorage,
) -> None:
    assert storage.migration_sql() == storage.migration_sql()
    assert "CREATE TABLE" in storage.migration_sql()
    assert GONE in storage.migration_sql()


# --- odd names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ['odd "schema" %s %(x)s {y} é', "UPPER", "a.b"])
def test_schemas_of_any_name(postgres: str, admin: Admin, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    admin.execute(f"CREATE SCHEMA {quoted}".encode())
    escaped = quoted.replace("\\", "\\\\").replace(" ", "\\ ")
    storage = PostgresStorage(make_conninfo(postgres, options=f"-csearch_path={escaped}"))
    try:
        with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
            assert commit(writer, save("a", 0), setting("a%s", "x")) == []
            assert commit(writer, save("a", 5)) == [0]
            assert reader.load([key("a")]) == [StoredObject(1, b"1")]
            assert commit(writer, Commit(key("a", "a-b_c"), 0, b"1")) == []
            assert reader.list_tenants(None, 9) == ["a-b_c"]
            assert [each.objects for each in reader.summarize(NOW)] == [1]
            assert [row.alarm.key.name for row in everything(reader)] == ["x"]
            assert writer.drop_tenant("a-b_c")
        assert storage.pending_migrations() == []
        assert storage.migrate_down(None)
    finally:
        admin.execute(f"DROP SCHEMA {quoted} CASCADE".encode())


def everything(reader: Reader) -> list[AlarmRow]:
    return reader.browse_alarms(None, NOW, None, None, 9)


def test_a_schema_of_somebody_else_is_not_taken_for_a_tenants(
    writer: Writer, reader: Reader, admin: Admin
) -> None:
    """Two applications in one database, each with a schema, have no tenant in common."""
    admin.execute("CREATE SCHEMA durable_acme")
    with pytest.raises(StorageFault, match="durable_acme"):
        commit(writer, Commit(key("a", "acme"), 0, b"1"))
    assert reader.list_tenants(None, 9) == []
    assert writer.drop_tenant("acme") is False
    assert admin.execute("SELECT to_regnamespace('durable_acme')").fetchone() != (None,)


# --- tenants and several writers -----------------------------------------------------------------


def test_a_tenant_that_another_runtime_dropped_is_not_there(
    writer: Writer, other: Writer, reader: Reader
) -> None:
    a = key("a", "acme")
    x = a.alarm("x")
    set_x = AlarmChanges(changed={"x": NewAlarm(NOW, None)})
    for revision in range(3):  # so that the statements are known and the tenant is too
        assert commit(writer, Commit(a, revision, b"1", alarms=set_x)) == []
        assert reader.load([a]) == [StoredObject(revision + 1, b"1")]
    assert other.drop_tenant("acme") is True
    assert reader.load([a, key("a")]) == [None, None]
    assert reader.list_alarms(a) == []
    assert reader.summarize(NOW, "acme") == []
    assert commit(writer, Commit(a, 3, b"2")) == [0]
    assert writer.claim([x], 1, NOW, NOW + 1) == []
    assert writer.revive(x, NOW) is False
    assert writer.drop_tenant("acme") is False
    assert reader.list_tenants(None, 9) == []
    # And a commit that begins something makes it anew.
    assert commit(writer, Commit(a, 0, b"2", alarms=set_x), save("b", 0)) == []
    assert reader.list_tenants(None, 9) == ["acme"]
    assert other.drop_tenant("acme") is True
    assert commit(writer, Commit(a, 0, b"3")) == []
    assert reader.load([a]) == [StoredObject(1, b"3")]


def test_a_refused_commit_makes_no_tenant(writer: Writer, reader: Reader, admin: Admin) -> None:
    stale = Commit(key("a", "acme"), 3, b"1")
    cancel = AlarmChanges(clear=True, changed={"x": None})
    assert commit(writer, stale, save("b", 0)) == [0]
    assert commit(writer, Commit(key("a", "acme"), None, alarms=cancel)) == []
    assert reader.list_tenants(None, 9) == []
    assert admin.execute("SELECT to_regnamespace('durable_acme')").fetchone() == (None,)


# --- without psycopg -----------------------------------------------------------------------------


def test_without_psycopg_all_else_works_and_an_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["psycopg"] = None  # as if it weren't there
import trio_durable
trio_durable.DurableRuntime(":memory:")
for make in (
    lambda: trio_durable.DurableRuntime("postgresql://user:sesame@host/db"),
    lambda: trio_durable.PostgresStorage,
):
    try:
        make()
    except ModuleNotFoundError as error:
        print(error)
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    said = "objects in PostgreSQL need psycopg: pip install 'trio-durable[postgres]'"
    assert run.stdout.splitlines() == [said, said]


def test_psycopg_is_imported_when_it_is_needed() -> None:
    code = """
import sys, trio_durable
assert "psycopg" not in sys.modules
assert trio_durable.PostgresStorage.__name__ == "PostgresStorage"
assert "psycopg" in sys.modules
try:
    trio_durable.NoSuchThing
except AttributeError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "module 'trio_durable' has no attribute 'NoSuchThing'\n"


def test_urls_name_a_database(postgres: str) -> None:
    for url in ("postgresql://me@db.example:5433/app", "postgres://me@db.example:5433/app"):
        runtime = DurableRuntime(url)
        assert repr(runtime) == "<DurableRuntime on postgresql://me@db.example:5433/app>"
    runtime = DurableRuntime("postgresql:///app", durability="normal")
    assert runtime._storage._settings.durability == "normal"  # type: ignore[attr-defined]
