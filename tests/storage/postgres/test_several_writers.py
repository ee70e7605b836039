"""Several writers on one PostgreSQL database: epochs, races, tenants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import psycopg
import pytest
from support.postgres import wait_until

from trio_durable.storage import (
    AlarmChanges,
    Commit,
    NewAlarm,
    Postponement,
    Reader,
    StoredObject,
    Writer,
)
from trio_durable.storage.postgres import PostgresStorage

from .rows import (
    ALARM,
    NOW,
    SECOND,
    Admin,
    alarm_key,
    beside,
    commit,
    count,
    in_thread,
    key,
    race,
    save,
    setting,
    waits,
)


@pytest.fixture
def storage(postgres: str) -> PostgresStorage:
    return beside(postgres)


@pytest.fixture
def other(storage: PostgresStorage, writer: Writer) -> Iterator[Writer]:
    """The writer of another runtime."""
    with closing(storage.open_writer()) as writer:
        yield writer


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


# --- several writers: races ----------------------------------------------------------------------


def deadlocks(admin: psycopg.Connection[tuple[object, ...]], left: int) -> object:
    """How many there have been, once no more than ``left`` connections are open."""
    # A backend tells of what it did when it ends, at the latest.
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    wait_until(lambda: count(admin, sessions) <= left)
    return count(admin, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


def test_batches_of_several_writers_on_the_same_objects_never_lock_in_a_circle(
    postgres: str,
    storage: PostgresStorage,
    writer: Writer,
    reader: Reader,
    admin: psycopg.Connection[tuple[object, ...]],
) -> None:
    """Each comes with the objects in another order; every one that applied counts one."""
    ids = [f"{n:03}" for n in range(100)]
    applied = [0] * 4
    before = deadlocks(admin, 5)

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
        race(postgres, 4, work)
    assert deadlocks(admin, 5) == before
    rows = reader.load([key(one) for one in ids])
    assert sum(row.revision for row in rows if row) == sum(applied) >= 1500


def test_of_writers_that_race_for_alarms_each_gets_its_own(postgres: str, writer: Writer) -> None:
    ids = [f"{n:03}" for n in range(200)]
    commit(writer, *(setting(one, "x") for one in ids))
    claimed: list[set[str]] = [set() for _ in range(4)]

    def work(number: int, mine: Writer) -> None:
        keys = [alarm_key(one) for one in (reversed(ids) if number % 2 else ids)]
        for claim in range(20):
            found = mine.claim(keys, 100 * number + claim + 1, NOW, NOW + SECOND)
            claimed[number] |= {alarm.key.object_id for alarm in found}

    race(postgres, 4, work)
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
    postgres: str, writer: Writer, reader: Reader
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

    race(postgres, 4, work)
    assert sorted(one for mine in applied for one in mine) == ids
    rows = reader.load([key(one) for one in ids])
    assert {row.revision for row in rows if row} == {1}


def test_a_node_beside_others_gives_no_claims_back(
    writer: Writer, storage: PostgresStorage
) -> None:
    """Who has claimed them may be alive. When they have run out they are free."""
    commit(writer, setting("a", "x"))
    assert writer.claim([alarm_key("a")], 1, NOW, NOW + SECOND)
    with closing(storage.open_writer()) as other:
        assert other.claim([alarm_key("a")], 2, NOW, NOW + SECOND) == []
        assert other.claim([alarm_key("a")], 3, NOW + SECOND, NOW + 2 * SECOND)
    writer.renew([(alarm_key("a"), 1)], NOW + 9 * SECOND)
    writer.postpone([Postponement(alarm_key("a"), 1, NOW, 1, None)])
    assert commit(writer, Commit(key("a"), 0, b"1", alarms=AlarmChanges({"x": 1}))) == [0]


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
