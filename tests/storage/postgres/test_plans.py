"""Round trips to PostgreSQL, and the plans of its statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
from support.postgres import Database, wait_until

from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    AlarmChanges,
    Commit,
    DeadFiring,
    NewAlarm,
    Onto,
    Postponement,
    Reader,
    Writer,
)
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._connection import Connection

from .rows import ALARM, NOW, SECOND, Admin, alarm_key, commit, key, save, setting


@contextmanager
def counted(writer: Writer) -> Iterator[list[str]]:
    """What a writer's connection sends: statements, and pipelines as one."""
    connection = writer._reconnecting._connection  # type: ignore[attr-defined]
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


@pytest.mark.parametrize("revision", [1, 7])
def test_a_batch_of_any_changes_is_one_round_trip(writer: Writer, revision: int) -> None:
    """Stale commits are left out in the same one."""
    alarms = AlarmChanges(changed={**ALARM})
    for one in "abc":
        commit(writer, Commit(key(one), 0, b"1", alarms=alarms))
    batch = [
        Commit(key("a"), 1, b"2", alarms=alarms),
        Commit(key("b"), revision, delete=True, alarms=AlarmChanges(clear=True)),
        setting("c", "y", revision=1),
        setting("d", "y"),
    ]
    with counted(writer) as sent:
        assert commit(writer, *batch) == ([] if revision == 1 else [1])
    # Everything is inside of one pipeline.
    assert (sent[0], sent[-1]) == ("_enter_gen", "_exit_gen")
    assert set(sent[1:-1]) <= {"_execute_gen", "_communicate_gen", "_fetch_gen"}
    assert sent.count("_enter_gen") == 1


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


CONDITIONAL = NewAlarm(NOW + 5, None, "f", Onto.STOPPED | Onto.OUTDATED | Onto.LATE)
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
    "set what is conditional": lambda w, r, keys: w.commit(
        [Commit(k.object_key, None, alarms=AlarmChanges(changed={"x": CONDITIONAL})) for k in keys],
        NOW,
    ),
    "postpone as dead, with the next": lambda w, r, keys: w.postpone(
        [
            Postponement(k, 1, None, 1, "no", dead_firing=DeadFiring("x@1", "firing", CONDITIONAL))
            for k in keys
        ]
    ),
    "load alarms": lambda w, r, keys: r.load_alarms(keys, NOW),
    "recurring alarms": lambda w, r, keys: r.recurring_alarms("Cart", "r", NOW, keys[0], 5),
    "revive": lambda w, r, keys: w.revive(keys[0], NOW),
    "mark": lambda w, r, keys: w.mark(keys[0], 1),
    "acquit": lambda w, r, keys: w.acquit(keys[0], 1),
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
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE application_name LIKE 'trio_durable%'"
                ).fetchone()
                == (0,)
            )
        )
        assert scans() == before


@pytest.mark.parametrize("runs", [1, 12])  # the latter is prepared, and has a plan for any values
@pytest.mark.parametrize("behind", ["", "00100"])
def test_far_times_are_found_by_their_index(
    postgres: str, admin: Admin, monkeypatch: pytest.MonkeyPatch, runs: int, behind: str
) -> None:
    """Not by a walk through all alarms of the type, though these are in the wanted order."""
    plans: list[str] = []
    execute: Any = Connection.execute

    def explained(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(query, bytes) and b"recurrence <>" in query:
            rows = execute(self, b"EXPLAIN " + query, *args)
            plans.append("\n".join(str(row[0]) for row in rows))
        return execute(self, query, *args, **kwargs)

    storage = PostgresStorage(postgres)
    storage.open_writer().close()
    admin.execute(
        "INSERT INTO durable_alarms "
        "(type_name, object_id, name, due_at, available_at, recurrence) "
        "SELECT 'Cart', to_char(n, 'FM00000'), 'x', %s + n, %s + n, 'f' "
        "FROM generate_series(1, 20000) AS n",
        (NOW, NOW),
    )
    admin.execute("ANALYZE durable_alarms")
    monkeypatch.setattr(Connection, "execute", explained)
    with closing(storage.open_reader()) as reader:
        after = alarm_key(behind, "x") if behind else None
        for _ in range(runs):
            found = reader.recurring_alarms("Cart", "x", NOW + 19_990, after, 1000)
            assert len(found) == 10
    for plan in plans:
        assert "durable_alarms_recurring" in plan
        assert "Seq Scan" not in plan
