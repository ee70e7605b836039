"""The table of alarms in an SQLite file: statements, their plans, and failures."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
import sqlite_utils

from trio_durable import ObjectKey, SQLiteStorage
from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    AlarmChanges,
    Commit,
    DeadFiring,
    DueAlarm,
    NewAlarm,
    Onto,
    Postponement,
    Reader,
    StorageFault,
    StoredAlarm,
    Writer,
)
from trio_durable.storage.sqlite._alarms import MAX_ROWS, AlarmTable
from trio_durable.storage.sqlite._names import TableNames

from .files import (
    CORRUPT,
    NOW,
    alarm_key,
    connection_of,
    drop_messages,
    execute,
    executed,
    fill,
    key,
    rows_of_alarms,
    schema,
    setting,
    steps_of,
    traced,
    writing,
)

# --- alarms: statements and their plans ----------------------------------------------------------


def test_the_table_of_alarms(path: Path) -> None:
    SQLiteStorage(path).open_writer().close()
    with closing(sqlite3.connect(path)) as connection:
        table = sqlite_utils.Database(connection).table("durable_alarms")
        assert [(c.name, c.type, c.notnull) for c in table.columns] == [
            ("type_name", "TEXT", 1),
            ("object_id", "TEXT", 1),
            ("name", "TEXT", 1),
            ("due_at", "INTEGER", 1),
            ("available_at", "INTEGER", 0),
            ("claim", "INTEGER", 0),
            ("failures", "INTEGER", 1),
            ("last_error", "TEXT", 0),
            ("payload", "TEXT", 0),
            ("crashes", "INTEGER", 0),
            ("marked", "INTEGER", 0),
            ("recurrence", "TEXT", 0),
        ]
        assert table.pks == ["type_name", "object_id", "name"]
        assert "WITHOUT ROWID" in table.schema
        assert {i.name: i.columns for i in table.indexes if i.origin == "c"} == {
            "durable_alarms_by_time": ["available_at"],
            "durable_alarms_claimed": ["claim"],
            "durable_alarms_recurring": ["type_name", "name", "due_at"],
        }
        # Partial, so that alarms that nobody claims cost nothing there.
        (sql,) = connection.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'durable_alarms_claimed'"
        ).fetchone()
        assert sql.endswith("WHERE claim IS NOT NULL")


def test_an_alarm_as_another_program_sees_it(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([setting("a", "x", payload=b'{"n":"\\u00e9"}'), setting("a", "y")], NOW)
    columns = "name, due_at, available_at, claim, failures, last_error, payload ->> 'n'"
    assert execute(path, f"SELECT {columns} FROM durable_alarms ORDER BY name") == [
        ("x", NOW, NOW, None, 0, None, "é"),
        ("y", NOW, NOW, None, 0, None, None),
    ]
    types = execute(path, "SELECT typeof(due_at), typeof(payload) FROM durable_alarms")
    assert types == [("integer", "text"), ("integer", "null")]


def test_a_file_from_before_alarms_is_migrated(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([Commit(key("a"), 0, b"1")], NOW)
    after = schema(path)
    execute(path, "DROP VIEW durable_objects_v1")
    execute(path, "DROP TABLE durable_alarms")
    execute(path, "DROP TABLE durable_tenants")
    drop_messages(path)
    execute(path, "DELETE FROM _sqlite_migrations WHERE name <> 'm001_objects'")
    with writing(SQLiteStorage(path)) as writer:
        assert schema(path) == after
        both = Commit(key("a"), 1, b"2", alarms=AlarmChanges(changed={"x": NewAlarm(NOW, None)}))
        assert writer.commit([both], NOW) == ()
    assert execute(path, "SELECT revision FROM durable_objects") == [(2,)]


BY_KEY = "PRIMARY KEY (type_name=? AND object_id=? AND name=?)"
BY_OBJECT = "PRIMARY KEY (type_name=? AND object_id=?)"

# What is done, and how each of its statements must find its alarms.
Work = Callable[[Writer, Reader, list[AlarmKey]], object]
PLANS: dict[str, tuple[Work, list[str]]] = {
    "acknowledge": (
        lambda writer, _, keys: writer.commit(acknowledging(keys, 1), NOW),
        [BY_KEY],
    ),
    "acknowledge what is lost": (
        lambda writer, _, keys: writer.commit(acknowledging(keys, 2), NOW),
        [BY_KEY, BY_KEY],
    ),
    "set": (
        lambda writer, _, keys: writer.commit([setting(k.object_id, k.name) for k in keys], NOW),
        [],
    ),
    "cancel": (lambda writer, _, keys: writer.commit(cancelling(keys), NOW), [BY_KEY]),
    "clear": (lambda writer, _, keys: writer.commit(clearing(keys), NOW), [BY_OBJECT]),
    "claim": (
        lambda writer, _, keys: writer.claim(keys, 3, NOW + 60, NOW + 90),
        [BY_KEY, "INDEX durable_alarms_claimed (claim=?)"],
    ),
    "renew": (
        lambda writer, _, keys: writer.renew([(one, 1) for one in keys], NOW + 90),
        [BY_KEY],
    ),
    "postpone": (
        lambda writer, _, keys: writer.postpone(
            [Postponement(one, 1, NOW + 90, 1, "no") for one in keys]
        ),
        [BY_KEY],
    ),
    "revive": (lambda writer, _, keys: writer.revive(keys[0], NOW), [BY_KEY]),
    "mark": (lambda writer, _, keys: writer.mark(keys[0], 1), [BY_KEY]),
    "acquit": (lambda writer, _, keys: writer.acquit(keys[0], 1), [BY_KEY]),
    "give back": (
        lambda writer, _, __: AlarmTable(connection_of(writer), TableNames()).give_back(),
        ["durable_alarms_claimed"],
    ),
    "due": (
        lambda _, reader, __: reader.due_alarms(NOW + 90, None, 10, ["Other"]),
        ["COVERING INDEX durable_alarms_by_time ("],
    ),
    "due behind one": (
        lambda _, reader, keys: reader.due_alarms(NOW + 90, DueAlarm(NOW, keys[9]), 10, ()),
        ["COVERING INDEX durable_alarms_by_time ("],
    ),
    "list": (lambda _, reader, keys: reader.list_alarms(keys[0].object_key), [BY_OBJECT]),
    "dead": (
        lambda _, reader, __: reader.list_dead_letters("Counter", None, 10),
        ["INDEX durable_alarms_by_time (available_at=? AND type_name=?"],
    ),
    "set what is conditional": (
        lambda writer, _, keys: writer.commit(beginning(keys), NOW),
        [BY_KEY],
    ),
    "postpone as dead, with the next": (
        lambda writer, _, keys: writer.postpone([dying(one) for one in keys]),
        [BY_KEY, BY_KEY],
    ),
    "load": (lambda _, reader, keys: reader.load_alarms(keys, NOW), [BY_KEY]),
    "recurring": (
        lambda _, reader, __: reader.recurring_alarms("Counter", "x", NOW + 90, None, 10),
        ["INDEX durable_alarms_recurring (type_name=? AND name=? AND due_at>?)"],
    ),
    "recurring behind one": (
        lambda _, reader, keys: reader.recurring_alarms("Counter", "x", NOW + 90, keys[9], 10),
        ["INDEX durable_alarms_recurring (type_name=? AND name=? AND due_at>?)"],
    ),
    "dead behind one": (
        lambda _, reader, keys: reader.list_dead_letters("Counter", keys[9], 10),
        ["INDEX durable_alarms_by_time (available_at=? AND type_name=?"],
    ),
}


def acknowledging(keys: list[AlarmKey], claim: int) -> list[Commit]:
    return [
        Commit(one, None, alarms=AlarmChanges(acknowledged=dict.fromkeys(names, claim)))
        for one, names in by_object(keys).items()
    ]


def beginning(keys: list[AlarmKey]) -> list[Commit]:
    onto = Onto.STOPPED | Onto.OUTDATED | Onto.LATE
    return [
        Commit(
            *(one, None),
            alarms=AlarmChanges(
                changed={name: NewAlarm(NOW + 9, None, "f", onto) for name in names}
            ),
        )
        for one, names in by_object(keys).items()
    ]


def dying(one: AlarmKey) -> Postponement:
    firing = DeadFiring(f"{one.name}@1", "firing", NewAlarm(NOW + 90, None, "f"))
    return Postponement(one, 1, None, 1, "no", dead_firing=firing)


def cancelling(keys: list[AlarmKey]) -> list[Commit]:
    return [
        Commit(one, None, alarms=AlarmChanges(changed=dict.fromkeys(names)))
        for one, names in by_object(keys).items()
    ]


def clearing(keys: list[AlarmKey]) -> list[Commit]:
    return [Commit(one, None, alarms=AlarmChanges(clear=True)) for one in by_object(keys)]


def by_object(keys: list[AlarmKey]) -> dict[ObjectKey, list[str]]:
    names: dict[ObjectKey, list[str]] = {}
    for one in keys:
        names.setdefault(one.object_key, []).append(one.name)
    return names


@contextmanager
def table_of_alarms(path: Path, objects: int) -> Iterator[tuple[Writer, Reader, list[AlarmKey]]]:
    """Some are claimed and some dead; those that are given out are all claimed, by claim 1."""
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        keys = fill(writer, objects)
        dead, claimed = keys[-20:], keys[:400]
        writer.claim(dead, 999, NOW, NOW)
        writer.postpone([Postponement(one, 999, None, 1, "no") for one in dead])
        assert len(writer.claim(claimed, 1, NOW, NOW + 50)) == 400
        yield writer, reader, claimed


@pytest.mark.parametrize("analyzed", [False, True], ids=["", "analyzed"])
@pytest.mark.parametrize(("work", "expected"), PLANS.values(), ids=PLANS.keys())
def test_no_statement_looks_at_all_alarms(
    path: Path, work: Work, expected: list[str], analyzed: bool
) -> None:
    """However the planner sees the table."""
    with table_of_alarms(path, 500) as (writer, reader, keys):
        if analyzed:
            connection_of(writer).execute("ANALYZE")
        with traced(writer, reader) as statements:
            work(writer, reader, keys[:64])
        found: list[str] = []
        for statement in dict.fromkeys(statements):
            if "durable_alarms" not in statement:
                continue
            plan = connection_of(writer).execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            details = [step[3] for step in plan]
            # An alias of the table stands for it in the plan.
            names = ("durable_alarms", "a")
            for detail in details:
                verb, name, *_ = detail.split()
                assert not (verb == "SCAN" and name in names), (statement[:200], details)
            found += [d for d in details if d.split()[0] == "SEARCH" and d.split()[1] in names]
        assert len(found) == len(expected), found
        for detail, fragment in zip(found, expected, strict=True):
            # From statistics by which an object has few alarms, the planner concludes that their
            # names needn't be looked up.
            assert fragment in detail or (analyzed and fragment == BY_KEY and BY_OBJECT in detail)


@pytest.mark.parametrize("work", [work for work, _ in PLANS.values()], ids=PLANS.keys())
def test_the_work_does_not_grow_with_the_table(path: Path, work: Work) -> None:
    found = []
    for objects in (400, 2000):
        with table_of_alarms(path.with_name(f"{objects}.db"), objects) as (writer, reader, keys):
            found.append(steps_of(writer, reader, partial(work, writer, reader, keys[:64])))
    small, large = found
    assert large <= small * 1.05 + 10


@pytest.mark.parametrize(
    "work",
    [PLANS[name][0] for name in PLANS if name.split()[0] not in ("due", "dead", "list", "give")],
    ids=[name for name in PLANS if name.split()[0] not in ("due", "dead", "list", "give")],
)
def test_the_work_is_proportional_to_the_alarms_asked_for(path: Path, work: Work) -> None:
    """Not to their square, though all of them have one claim."""
    found = []
    for rows in (32, 256):
        with table_of_alarms(path.with_name(f"{rows}.db"), 500) as (writer, reader, keys):
            some = keys[:rows]
            found.append(steps_of(writer, reader, partial(work, writer, reader, some)))
    few, many = found
    assert many <= few * 8 * 1.2


@pytest.mark.parametrize("dead", [False, True], ids=["due", "dead"])
def test_each_page_takes_the_same_work(path: Path, dead: bool) -> None:
    """All alarms have one time, so that only their keys tell them apart."""
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        keys = fill(writer, 1000)
        if dead:
            for claim, start in enumerate(range(0, len(keys), 500), 1):
                some = keys[start : start + 500]
                writer.claim(some, claim, NOW, NOW)
                writer.postpone([Postponement(one, claim, None, 1, "no") for one in some])

        def page(after: AlarmKey) -> None:
            found: Sequence[DueAlarm | StoredAlarm]
            if dead:
                found = reader.list_dead_letters("Counter", after, 10)
            else:
                found = reader.due_alarms(NOW + 1, DueAlarm(NOW, after), 10, ())
            assert len(found) == 10

        page(keys[0])  # the first reads the schema as well
        places = (0, 1000, 1980)
        steps = [steps_of(writer, reader, partial(page, keys[place])) for place in places]
        assert max(steps) <= min(steps) * 1.05


@pytest.mark.usefixtures("unstamped")
@pytest.mark.parametrize("rows", [1, 2, 64, 500])
def test_a_batch_that_only_sets_alarms_from_outside_is_one_statement(path: Path, rows: int) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        for attempt in range(2):  # new ones, and then in their place
            batch = [setting(f"{n}", "x", "y", due_at=NOW + attempt) for n in range(rows)]
            with traced(writer, reader) as statements:
                assert writer.commit(batch, NOW) == ()
            assert len(executed(statements)) == 1, [s[:80] for s in statements]
            assert statements[0].lstrip().startswith("INSERT INTO durable_alarms")
        assert len(reader.due_alarms(NOW + 2, None, 9999, ())) == 2 * rows


@pytest.mark.usefixtures("unstamped")
def test_more_alarms_than_one_statement_takes_are_one_transaction(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        ids = [f"{n}" for n in range(MAX_ROWS)]
        for batch in (
            [setting(one, "x", "y", "z") for one in ids],
            [setting("one", *ids, "one more")],
        ):
            with traced(writer, reader) as statements:
                assert writer.commit(batch, NOW) == ()
            words = [text.split()[0] for text in executed(statements)]
            assert (words[0], words[-1]) == ("BEGIN", "COMMIT")
            assert set(words[1:-1]) == {"INSERT"}


def test_one_claim_of_more_alarms_than_one_statement_takes_is_one_transaction(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        keys = fill(writer, MAX_ROWS)
        before = rows_of_alarms(path)
        execute(
            path,
            "CREATE TRIGGER refuse BEFORE UPDATE ON durable_alarms "
            f"WHEN NEW.object_id = '{keys[-1].object_id}' "
            "BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END",
        )
        with pytest.raises(StorageFault, match="refused by a trigger"):
            writer.claim(keys, 1, NOW, NOW + 60)
        assert rows_of_alarms(path) == before
        execute(path, "DROP TRIGGER refuse")
        assert len(writer.claim(keys, 2, NOW, NOW + 60)) == len(keys)


def mixed(rows: int) -> list[Commit]:
    """One of each kind, again and again; after `prepare_mixed`."""
    batch: list[Commit] = []
    for n in range(0, rows, 7):
        batch += [
            Commit(key(f"{n}"), 1, b"2"),
            Commit(key(f"{n + 1}"), 1, delete=True, alarms=AlarmChanges(clear=True)),
            Commit(key(f"{n + 2}"), 1, b"2", alarms=AlarmChanges(acknowledged={"claimed": 1})),
            Commit(key(f"{n + 3}"), 1, alarms=AlarmChanges(changed={"old": None})),
            Commit(key(f"{n + 4}"), 1, alarms=AlarmChanges(changed={"new": NewAlarm(NOW, None)})),
            setting(f"{n + 5}", "old", "new", due_at=NOW + 1),
            Commit(key(f"{n + 6}"), None, alarms=AlarmChanges(clear=True)),
        ]
    return batch


def prepare_mixed(writer: Writer, rows: int) -> None:
    ids = [f"{n}" for n in range(rows)]
    writer.commit([Commit(key(one), 0, b"1") for one in ids], NOW)
    writer.commit([setting(one, "old", "claimed") for one in ids], NOW)
    writer.claim([alarm_key("claimed", one) for one in ids], 1, NOW, NOW + 60)
    # The first deletion creates the view that it goes through.
    writer.commit([Commit(key("none"), 0, delete=True)], NOW)


@pytest.mark.parametrize("stale", [False, True], ids=["", "taken apart"])
def test_a_mixed_batch_is_one_transaction(path: Path, stale: bool) -> None:
    counts = []
    for rows in (7, 140):  # the trace takes the square of them
        storage = SQLiteStorage(path.with_name(f"{rows}.db"))
        with writing(storage) as writer, closing(storage.open_reader()) as reader:
            prepare_mixed(writer, rows)
            batch = mixed(rows)
            if stale:
                batch.append(Commit(key("stale"), 0, alarms=AlarmChanges(acknowledged={"x": 1})))
            with traced(writer, reader) as statements:
                assert list(writer.commit(batch, NOW)) == ([rows] if stale else [])
            words = [text.split()[0] for text in executed(statements)]
            assert words.count("COMMIT") == 1
            assert words.count("BEGIN") == 1 + stale
            assert words.count("ROLLBACK") == stale
            assert words[0] == "BEGIN"
            assert words[-1] == "COMMIT"
            assert not connection_of(writer).in_transaction
            counts.append(len(words))
    assert counts[0] == counts[1]


@pytest.mark.usefixtures("unstamped")
@pytest.mark.parametrize("kind", ["cancel", "clear"])
def test_to_cancel_from_outside_is_one_statement(path: Path, kind: str) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        keys = fill(writer, 50)
        batch = cancelling(keys[:40]) if kind == "cancel" else clearing(keys[:40])
        with traced(writer, reader) as statements:
            assert writer.commit(batch, NOW) == ()
        assert len(statements) == 1
        assert len(reader.due_alarms(NOW + 1, None, 999, ())) == 60


# --- alarms: what fails leaves nothing -----------------------------------------------------------

REFUSALS = {
    "set": "BEFORE INSERT ON durable_alarms WHEN NEW.name = 'new'",
    "set anew": "BEFORE UPDATE ON durable_alarms WHEN NEW.name = 'old'",
    "acknowledge": "BEFORE DELETE ON durable_alarms WHEN OLD.name = 'claimed'",
    "cancel": "BEFORE DELETE ON durable_alarms WHEN OLD.object_id = '3'",
    "clear": "BEFORE DELETE ON durable_alarms WHEN OLD.object_id = '6'",
    "save": "BEFORE UPDATE ON durable_objects WHEN NEW.object_id = '2'",
    "delete": "BEFORE DELETE ON durable_objects",
}


@pytest.mark.parametrize("stale", [False, True], ids=["", "taken apart"])
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_mixed_batch_that_fails_applies_nothing(path: Path, refusal: str, stale: bool) -> None:
    with writing(SQLiteStorage(path)) as writer:
        prepare_mixed(writer, 14)
        batch = mixed(14)
        if stale:
            batch.insert(5, Commit(key("stale"), 0, alarms=AlarmChanges(acknowledged={"x": 1})))
        objects = "SELECT * FROM durable_objects ORDER BY object_id"
        before = execute(path, objects), rows_of_alarms(path)
        execute(
            path,
            f"CREATE TRIGGER refuse {refusal} "
            "BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END",
        )
        with pytest.raises(StorageFault, match="refused by a trigger"):
            writer.commit(batch, NOW)
        assert not connection_of(writer).in_transaction
        assert (execute(path, objects), rows_of_alarms(path)) == before
        # And the writer goes on.
        execute(path, "DROP TRIGGER refuse")
        assert list(writer.commit(batch, NOW)) == ([5] if stale else [])


@pytest.mark.parametrize("name", ["x", "z"])
def test_sets_from_outside_that_fail_apply_nothing(path: Path, name: str) -> None:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([setting("a", "x", "y")], NOW)
        before = rows_of_alarms(path)
        for event in ("INSERT", "UPDATE"):
            execute(
                path,
                f"CREATE TRIGGER refuse_{event} BEFORE {event} ON durable_alarms "
                f"WHEN NEW.name = '{name}' "
                "BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END",
            )
        last = [setting("a", "y", "x", due_at=NOW + 1), setting("b", "y", "z")]
        many = [setting(f"{n}", "y") for n in range(MAX_ROWS)]
        for batch in (last, [*many, *last]):
            with pytest.raises(StorageFault, match="refused by a trigger"):
                writer.commit(batch, NOW)
            assert rows_of_alarms(path) == before


def test_a_full_disk_in_the_middle_of_a_batch(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        prepare_mixed(writer, 14)
        before = rows_of_alarms(path)
        connection = connection_of(writer)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        large = b'"' + b"x" * 100_000 + b'"'
        for batch in (
            [*mixed(14), setting("large", "x", payload=large)],
            [setting("a", "x"), setting("large", "x", payload=large)],
        ):
            with pytest.raises(StorageFault, match="full"):
                writer.commit(batch, NOW)
            assert not connection.in_transaction
            assert rows_of_alarms(path) == before
        one, two = alarm_key("claimed", "0"), alarm_key("claimed", "1")
        with pytest.raises(StorageFault, match="full"):
            writer.postpone(
                [
                    Postponement(one, 1, NOW, 1, "small"),
                    Postponement(two, 1, None, 1, "x" * 100_000),
                ]
            )
        assert rows_of_alarms(path) == before
        # What fits goes on, and with space so does the rest.
        assert writer.commit([Commit(key("0"), 1, b"2")], NOW) == ()
        connection.execute("PRAGMA max_page_count = 1000000")
        assert writer.commit([setting("large", "x", payload=large)], NOW) == ()
        assert reader.list_alarms(key("large"))[0].payload == large


def test_a_locked_file_is_a_fault_of_whatever_is_done(path: Path) -> None:
    x = alarm_key("x")
    works: list[Callable[[Writer], object]] = [
        lambda writer: writer.commit([setting("a", "y")], NOW),
        lambda writer: writer.commit(acknowledging([x], 1), NOW),
        lambda writer: writer.claim([x], 2, NOW + 60, NOW + 90),
        lambda writer: writer.renew([(x, 1)], NOW + 90),
        lambda writer: writer.postpone([Postponement(x, 1, NOW, 1, "no")]),
        lambda writer: writer.revive(x, NOW),
    ]
    with writing(SQLiteStorage(path, busy_timeout=0)) as writer:
        writer.commit([setting("a", "x")], NOW)
        writer.claim([x], 1, NOW, NOW + 60)
        before = rows_of_alarms(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for work in works:
                with pytest.raises(StorageFault, match="locked"):
                    work(writer)
                assert not connection_of(writer).in_transaction
            other.execute("COMMIT")
        assert rows_of_alarms(path) == before
        for work in works:
            work(writer)


def test_a_lost_table_is_a_fault_of_whatever_is_read(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage), closing(storage.open_reader()) as reader:
        execute(path, "DROP TABLE durable_alarms")
        reads: list[Callable[[], object]] = [
            lambda: reader.due_alarms(NOW, None, 10, ()),
            lambda: reader.list_alarms(key("a")),
            lambda: reader.list_dead_letters("Counter", None, 10),
        ]
        for read in reads:
            with pytest.raises(StorageFault, match="no such table"):
                read()


@pytest.mark.parametrize("due_at", [2**63, -(2**63) - 1])
def test_a_time_that_no_row_can_hold_is_a_fault(path: Path, due_at: int) -> None:
    with writing(SQLiteStorage(path)) as writer:
        with pytest.raises(StorageFault):
            writer.commit([setting("a", "x"), setting("b", "x", due_at=due_at)], NOW)
        assert rows_of_alarms(path) == []
        assert writer.commit([setting("a", "x")], NOW) == ()


@pytest.mark.parametrize("corrupt", CORRUPT.values(), ids=CORRUPT.keys())
def test_a_corrupt_payload_does_not_keep_others_from_being_read(path: Path, corrupt: str) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        keys = [alarm_key(name) for name in ("bad", "good", "none")]
        writer.commit([setting("a", "bad", "good", payload=b"[1]"), setting("b", "x")], NOW)
        writer.commit([setting("a", "none")], NOW)
        execute(path, f"UPDATE durable_alarms SET payload = {corrupt} WHERE name = 'bad'")
        listed = reader.list_alarms(key("a"))
        claimed = sorted(writer.claim(keys, 1, NOW, NOW + 60), key=lambda alarm: alarm.key)
        writer.postpone([Postponement(one, 1, None, 1, "no") for one in keys])
        dead = reader.list_dead_letters("Counter", None, 10)
        for alarms in (listed, claimed, dead):
            assert [alarm.key for alarm in alarms] == keys
            assert type(alarms[0].payload) is bytes
            assert [alarm.payload for alarm in alarms[1:]] == [b"[1]", None]
