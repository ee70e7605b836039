"""One row or tenant that can't be read or written, and everything else that goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from support.postgres import Server, running, wait_until

from trio_durable._keys import AlarmKey
from trio_durable._persistence.division import in_parts
from trio_durable.storage import (
    AlarmChanges,
    Commit,
    MessageChanges,
    MessageKey,
    PartialFault,
    Postponement,
    Reader,
    StorageFault,
    StoredObject,
    Writer,
)
from trio_durable.storage.postgres import PostgresStorage, _isolation, _migrations, _steps
from trio_durable.storage.postgres._steps import Migration
from trio_durable.storage.postgres._tenant_work import MAX_TENANTS
from trio_durable.storage.postgres._writer import MAX_NEW_TENANTS

from .rows import (
    ALARM,
    NOW,
    SECOND,
    Admin,
    alarm_key,
    beside,
    commit,
    count,
    key,
    race,
    save,
    setting,
)


@pytest.fixture
def storage(postgres: str) -> PostgresStorage:
    """Its lock timeout is short, for the waits of these tests end with it."""
    options = conninfo_to_dict(postgres)["options"]
    return PostgresStorage(make_conninfo(postgres, options=f"{options} -clock_timeout=50ms"))


def positions(fault: PartialFault, batch: Sequence[object]) -> list[int]:
    """The positions that a fault names; all stands for a batch of one item."""
    return sorted(fault.positions) or list(range(len(batch)))[:1]


def of_tenant(tenant: str, object_id: str = "a", revision: int = 0, state: bytes = b"1") -> Commit:
    return Commit(key(object_id, tenant), revision, state)


def committed(writer: Writer, batch: list[Commit]) -> tuple[list[Commit], list[Commit], int]:
    """Commit in parts, as a runtime does: what was applied, what was refused, and the attempts."""
    applied: list[Commit] = []
    refused: list[Commit] = []
    attempts = 0

    def attempt(part: list[Commit]) -> object:
        nonlocal attempts
        attempts += 1
        try:
            assert sorted(writer.commit(part, NOW)) == []
        except StorageFault as fault:
            return fault
        return None

    for part, outcome in in_parts(batch, lambda each: each.key.tenant, attempt):
        (refused if isinstance(outcome, StorageFault) else applied).extend(part)
    return applied, refused, attempts


# --- locked rows ---------------------------------------------------------------------------------

KINDS: dict[str, Callable[[str], Commit]] = {
    "save": lambda one: save(one, 1, b"2"),
    "save and set": lambda one: Commit(key(one), 1, b"2", alarms=AlarmChanges(changed={**ALARM})),
    "delete": lambda one: Commit(key(one), 1, delete=True),
    "unchanged": lambda one: setting(one, "y", revision=1),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a_row_that_another_session_has_locked_is_named(
    writer: Writer, reader: Reader, admin: Admin, kind: Callable[[str], Commit]
) -> None:
    commit(writer, *(save(one, 0) for one in "abc"))
    with admin.transaction():
        admin.execute("SELECT FROM durable_objects WHERE object_id = 'b' FOR UPDATE")
        for _ in range(3):  # the first wait ends with the lock timeout, the others find it at once
            with pytest.raises(PartialFault, match="locked") as caught:
                writer.commit([kind(one) for one in "abc"], NOW)
            assert caught.value.positions == [1]
        with pytest.raises(PartialFault, match="locked"):
            writer.commit([kind("b")], NOW)
        assert commit(writer, kind("a"), kind("c")) == []
    assert commit(writer, kind("b")) == []  # at once when the lock is gone
    rows = reader.load([key(one) for one in "abc"])
    assert len({row and row.revision for row in rows}) == 1


def test_an_alarm_that_another_session_has_locked_is_named(
    writer: Writer, reader: Reader, admin: Admin
) -> None:
    batch = [setting(one, "x") for one in "abc"]
    commit(writer, *batch)
    with admin.transaction():
        admin.execute("SELECT FROM durable_alarms WHERE object_id = 'b' FOR UPDATE")
        for changes in (AlarmChanges(changed={**ALARM}), AlarmChanges(clear=True)):
            with pytest.raises(PartialFault, match="locked") as caught:
                writer.commit([Commit(key(one), None, alarms=changes) for one in "abc"], NOW)
            assert caught.value.positions == [1]
    assert commit(writer, *batch) == []


def test_when_all_rows_are_locked_all_are_named_after_one_wait(
    writer: Writer, reader: Reader, admin: Admin
) -> None:
    ids = [f"{n:03}" for n in range(200)]
    commit(writer, *(save(one, 0) for one in ids), save("free", 0))
    with admin.transaction():
        admin.execute("UPDATE durable_objects SET revision = revision + 1 WHERE object_id < 'a'")
        applied, refused, attempts = committed(
            writer, [*(save(one, 1) for one in ids), save("free", 1)]
        )
        assert [each.key.object_id for each in applied] == ["free"]
        assert len(refused) == 200
        assert attempts == 3
    assert commit(writer, *(save(one, 1, b"2") for one in ids)) == list(range(200))
    assert commit(writer, *(save(one, 2, b"2") for one in ids)) == []


def test_a_row_that_another_session_is_inserting_is_found(
    writer: Writer, reader: Reader, admin: Admin
) -> None:
    """It can't be seen, so it is found by halving."""
    with admin.transaction():
        admin.execute("INSERT INTO durable_objects VALUES ('Cart', 'b', null, 0, 1, 0, '7')")
        batch = [save(one, 0) for one in "abcdefgh"]
        applied, refused, attempts = committed(writer, batch)
        assert [each.key.object_id for each in refused] == ["b"]
        assert len(applied) == 7
        assert attempts == 7
    assert commit(writer, save("b", 0)) == [0]


def test_a_claim_is_renewed_and_postponed_though_another_is_locked(
    writer: Writer, reader: Reader, admin: Admin
) -> None:
    commit(writer, setting("a", "x"), setting("b", "x"))
    keys = [alarm_key("a"), alarm_key("b")]
    writer.claim(keys, 1, NOW, NOW + SECOND)
    with admin.transaction():
        admin.execute("SELECT FROM durable_alarms WHERE object_id = 'a' FOR UPDATE")
        writer.renew([(each, 1) for each in keys], NOW + 9 * SECOND)
        due = reader.due_alarms(NOW + 10 * SECOND, None, 9, ())
        assert {each.key: each.available_at for each in due} == {
            keys[0]: NOW + SECOND,
            keys[1]: NOW + 9 * SECOND,
        }
        both = [Postponement(each, 1, NOW, 1, "failed") for each in keys]
        with pytest.raises(PartialFault):
            writer.postpone(both)
        writer.postpone(both[1:])
    writer.postpone(both[:1])
    assert [alarm.failures for each in "ab" for alarm in reader.list_alarms(key(each))] == [1, 1]


def test_the_lock_timeout_is_a_second_unless_the_user_sets_another(postgres: str) -> None:
    options = conninfo_to_dict(postgres)["options"]
    other = make_conninfo(postgres, options=f"{options} -clock_timeout=7s")
    for conninfo, expected in ((postgres, "1s"), (other, "7s")):
        with closing(PostgresStorage(conninfo).open_writer()) as writer:
            connection = writer._reconnecting._connection  # type: ignore[attr-defined]
            assert connection.execute("SHOW lock_timeout").fetchone() == (expected,)


# --- locked tables -------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["durable_objects", "durable_alarms"])
def test_a_tenant_whose_table_is_locked_is_refused_without_waiting(
    writer: Writer,
    reader: Reader,
    admin: Admin,
    table: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(_isolation, "monotonic", lambda: 1000 + now)
    changes = AlarmChanges(changed={**ALARM})
    tenants = ["", "acme", "zoo"]

    def batch(revision: int) -> list[Commit]:
        return [
            Commit(key(one, tenant), revision, b"1", alarms=changes)
            for tenant in tenants
            for one in "ab"
        ]

    assert commit(writer, *batch(0)) == []
    with admin.transaction():
        admin.execute(f"LOCK TABLE durable_acme.{table}".encode())
        applied, refused, _ = committed(writer, batch(1))
        assert {each.key.tenant for each in applied} == {"", "zoo"}
        assert {each.key.tenant for each in refused} == {"acme"}
        sent = writer._reconnecting  # type: ignore[attr-defined]
        monkeypatch.setattr(sent, "run", fail)
        with pytest.raises(PartialFault) as caught:
            writer.commit(batch(1), NOW)
        assert caught.value.positions == [2, 3]
        monkeypatch.undo()
        monkeypatch.setattr(_isolation, "monotonic", lambda: 1000 + now)
        alarms = [AlarmKey("Cart", one, "x", tenant) for tenant in tenants for one in "ab"]
        with pytest.raises(PartialFault) as caught:
            writer.claim(alarms, 1, NOW, NOW)
        assert caught.value.positions == [2, 3]
        now = 2.0
        of_acme = [each for each in batch(1) if each.key.tenant == "acme"]
        assert committed(writer, of_acme)[:2] == ([], of_acme)
    now = 4.0
    assert committed(writer, of_acme)[:2] == (of_acme, [])


def fail(work: object) -> object:
    raise AssertionError("it was sent")


def test_reads_of_others_go_on_while_a_table_is_locked(
    writer: Writer, reader: Reader, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(_isolation, "monotonic", lambda: 1000 + now)
    tenants = ["", "acme", "zoo"]
    commit(writer, *(of_tenant(tenant) for tenant in tenants))
    keys = [key("a", tenant) for tenant in tenants]
    with admin.transaction():
        admin.execute("LOCK TABLE durable_acme.durable_objects, durable_acme.durable_alarms")
        for _ in range(2):
            with pytest.raises(PartialFault, match="lock") as caught:
                reader.load(keys)
            assert caught.value.positions == [1]
            assert reader.load([keys[0], keys[2]]) == [StoredObject(1, b"1")] * 2
            with pytest.raises(PartialFault):
                reader.due_alarms(NOW, None, 9, (), "acme")
            with pytest.raises(PartialFault) as caught:
                reader.load([keys[1], key("b", "acme")])
            assert sorted(caught.value.positions) == [0, 1]
            now += 20
    assert reader.load(keys) == [StoredObject(1, b"1")] * 3


# --- what the server refuses ---------------------------------------------------------------------


def test_a_row_that_a_constraint_refuses_fails_alone(
    writer: Writer, reader: Reader, admin: Admin
) -> None:
    admin.execute("ALTER TABLE durable_objects ADD CHECK (state <> '\"bad\"')")
    batch = [save(f"{n:02}", 0, b'"bad"' if n == 17 else b"1") for n in range(64)]
    with pytest.raises(PartialFault, match="violates check constraint"):
        writer.commit(batch, NOW)
    applied, refused, attempts = committed(writer, batch)
    assert [each.key.object_id for each in refused] == ["17"]
    assert len(applied) == 63
    assert attempts == 13


def test_an_id_that_the_driver_cant_send_fails_alone(writer: Writer) -> None:
    batch = [save(one, 0) for one in ("a", "\ud800", "b")]
    applied, refused, _ = committed(writer, batch)
    assert (len(applied), [each.key.object_id for each in refused]) == (2, ["\ud800"])


@pytest.fixture
def limited(postgres: str, admin: Admin, storage: PostgresStorage) -> Iterator[PostgresStorage]:
    """A storage of a role that owns nothing; the fixture `storage` has made the tables."""
    storage.open_writer().close()
    schema = count_text(admin, "SELECT current_schema()")
    admin.execute("CREATE ROLE limited LOGIN")
    admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO limited".encode())
    admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO limited".encode())
    yield PostgresStorage(make_conninfo(postgres, user="limited"))
    admin.execute("DROP OWNED BY limited")
    admin.execute("DROP ROLE limited")


def count_text(admin: Admin, query: str) -> str:
    row = admin.execute(query.encode()).fetchone()
    assert row is not None
    return str(row[0])


def test_a_tenant_without_grants_fails_alone(
    limited: PostgresStorage, storage: PostgresStorage, admin: Admin
) -> None:
    with closing(storage.open_writer()) as owner:
        commit(owner, of_tenant("acme"), of_tenant("bee"), of_tenant("zoo"))
    for tenant in ("bee", "zoo"):
        admin.execute(f"GRANT USAGE ON SCHEMA durable_{tenant} TO limited".encode())
        admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA durable_{tenant} TO limited".encode())
    batch = [of_tenant(t, one, 0) for one in "bc" for t in ("acme", "bee", "", "zoo")]
    with closing(limited.open_writer()) as writer, closing(limited.open_reader()) as reader:
        applied, refused, attempts = committed(writer, batch)
        assert {each.key.tenant for each in refused} == {"acme"}
        assert (len(refused), len(applied)) == (2, 6)
        assert attempts == 5  # the tenant's commits have one reason, and aren't halved
        with pytest.raises(PartialFault, match="grant the role") as caught:
            reader.load([each.key for each in batch])
        assert caught.value.positions == [0, 4]
        with pytest.raises(PartialFault, match="grant the role"):
            reader.due_alarms(NOW, None, 9, (), "acme")
        # Nor may it make one.
        applied, refused, _ = committed(writer, [of_tenant("new"), save("d", 0)])
        assert [each.key.tenant for each in refused] == ["new"]
        assert [each.key.tenant for each in applied] == [""]


def test_a_tenant_without_a_schema_fails_alone_and_can_be_dropped(
    writer: Writer, reader: Reader, admin: Admin
) -> None:
    commit(writer, of_tenant("acme"), of_tenant("zoo"))
    admin.execute("DROP SCHEMA durable_acme CASCADE")
    batch = [of_tenant("acme", "a", 1), of_tenant("zoo", "a", 1), save("a", 0)]
    _, refused, _ = committed(writer, batch)
    assert [each.key.tenant for each in refused] == ["acme"]
    with pytest.raises(PartialFault, match="is missing") as caught:
        reader.load([each.key for each in batch])
    assert caught.value.positions == [0]
    assert reader.list_tenants(None, 9) == ["acme", "zoo"]
    assert writer.drop_tenant("acme") is True
    assert reader.list_tenants(None, 9) == ["zoo"]
    assert commit(writer, of_tenant("acme")) == []


def test_of_several_causes_each_is_found(writer: Writer, reader: Reader, admin: Admin) -> None:
    tenants = [f"t{n}" for n in range(8)]
    commit(writer, *(of_tenant(tenant) for tenant in tenants))
    admin.execute("DROP SCHEMA durable_t1 CASCADE")
    admin.execute("ALTER TABLE durable_t6.durable_objects ADD CHECK (state <> '2')")
    with admin.transaction():
        admin.execute("SELECT FROM durable_t3.durable_objects FOR UPDATE")
        batch = [of_tenant(tenant, "a", 1, b"2") for tenant in tenants]
        _, refused, _ = committed(writer, batch)
        assert sorted(each.key.tenant for each in refused) == ["t1", "t3", "t6"]


# --- many tenants --------------------------------------------------------------------------------


def test_a_transaction_takes_no_more_locks_than_a_small_server_has() -> None:
    """A server with 64 locks for each of 12 connections, and one batch of many tenants."""
    with running(max_connections=12, max_locks_per_transaction=64) as server:
        storage = PostgresStorage(server.conninfo())
        tenants = [f"t{n:03}" for n in range(300)]
        changes = AlarmChanges(changed={**ALARM})
        with closing(storage.open_writer()) as writer:
            for revision in range(2):
                batch = [
                    Commit(key("a", tenant), revision, b"1", alarms=changes) for tenant in tenants
                ]
                applied, refused, attempts = committed(writer, batch)
                assert (len(applied), refused) == (300, [])
                assert attempts <= 2 * 300 // (MAX_TENANTS if revision else MAX_NEW_TENANTS) * 2
            alarms = [AlarmKey("Cart", "a", "x", tenant) for tenant in tenants]
            with pytest.raises(PartialFault, match="too many"):
                writer.claim(alarms, 1, NOW, NOW)
            claimed = 0
            for _, outcome in in_parts(
                alarms,
                lambda alarm: alarm.tenant,
                lambda part: claimed_of(writer, part),
            ):
                assert not isinstance(outcome, StorageFault)
                claimed += len(outcome)
            assert claimed == 300


def claimed_of(writer: Writer, part: list[AlarmKey]) -> list[object] | StorageFault:
    try:
        return [*writer.claim(part, 1, NOW, NOW + SECOND)]
    except StorageFault as fault:
        return fault


def test_a_batch_of_too_many_tenants_is_refused_before_it_is_sent(
    writer: Writer, admin: Admin
) -> None:
    with pytest.raises(PartialFault, match="too many"):
        writer.commit([of_tenant(f"t{n}") for n in range(MAX_TENANTS + 1)], NOW)
    with pytest.raises(PartialFault, match="too many"):
        writer.commit([of_tenant(f"t{n}") for n in range(MAX_NEW_TENANTS + 1)], NOW)
    assert count(admin, "SELECT count(*) FROM durable_tenants") == 0
    assert commit(writer, *(of_tenant(f"t{n}") for n in range(MAX_NEW_TENANTS))) == []


def test_writers_that_make_tenants_never_lock_in_a_circle(postgres: str) -> None:
    """One makes tenants that come before an existing one, the other those that come after it."""
    storage = beside(postgres)
    with closing(storage.open_writer()) as writer:
        commit(writer, of_tenant("mmm", "x"))

    def work(number: int, mine: Writer) -> None:
        prefix = "az"[number]
        with closing(storage.open_reader()) as reader:
            for n in range(15):
                (row,) = reader.load([key("x", "mmm")])
                assert row is not None
                new = of_tenant(f"{prefix}{n}", "x")
                again = Commit(key("x", "mmm"), row.revision, b"1", epoch=row.epoch)
                mine.commit([again, new], NOW)

    began = deadlocks(postgres)
    race(postgres, 2, work)
    assert deadlocks(postgres) == began
    with closing(storage.open_reader()) as reader:
        assert len(reader.list_tenants(None, 99)) == 31


def deadlocks(postgres: str) -> int:
    with psycopg.connect(postgres, autocommit=True) as admin:
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'trio_durable'"
        wait_until(lambda: count(admin, sessions) <= 2)
        return count(
            admin, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )


# --- releases ------------------------------------------------------------------------------------

NOTE = Migration(
    "m007_note",
    ("ALTER TABLE {objects} ADD COLUMN note text",),
    ("ALTER TABLE {objects} DROP COLUMN note",),
)


def test_an_older_release_makes_no_tenants_once_a_newer_one_has_migrated(
    postgres: str, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = beside(postgres)
    with closing(storage.open_writer()) as writer:
        check_that_it_makes_none(writer, postgres, admin, monkeypatch)


def check_that_it_makes_none(
    writer: Writer, postgres: str, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(writer, of_tenant("zoo"))
    with monkeypatch.context() as newer:
        newer.setattr(_migrations, "TENANT_STEPS", (*_steps.TENANT_STEPS, NOTE))
        beside(postgres).open_writer().close()
    batch = [of_tenant("acme"), of_tenant("zoo", "a", 1), save("a", 0)]
    with pytest.raises(PartialFault, match=r"newer release .*m007_note.*upgrade it") as caught:
        writer.commit(batch, NOW)
    assert caught.value.positions == [0]
    applied, refused, _ = committed(writer, batch)
    assert [each.key.tenant for each in refused] == ["acme"]
    assert len(applied) == 2
    assert admin.execute("SELECT to_regnamespace('durable_acme')").fetchone() == (None,)


@pytest.mark.parametrize("side", ["writer", "reader"])
def test_a_newer_release_brings_tenants_of_an_older_one_up_to_date(
    postgres: str,
    admin: Admin,
    monkeypatch: pytest.MonkeyPatch,
    side: str,
) -> None:
    """A release without the check for newer ones has made it while the newer one was open."""
    storage = beside(postgres)
    with closing(storage.open_writer()) as writer:
        commit(writer, save("a", 0))
    monkeypatch.setattr(_migrations, "TENANT_STEPS", (*_steps.TENANT_STEPS, NOTE))
    newer = beside(postgres)
    with closing(newer.open_writer()) as new_writer, closing(newer.open_reader()) as reader:
        with monkeypatch.context() as older:
            older.setattr(_migrations, "TENANT_STEPS", _steps.TENANT_STEPS)
            older.setattr(_migrations, "unknown", lambda applied: [])
            admin.execute(storage.migration_sql(tenant="acme").encode())
        has_note = (
            "SELECT count(*) FROM pg_attribute WHERE attname = 'note' "
            "AND attrelid = 'durable_acme.durable_objects'::regclass"
        )
        assert count(admin, has_note) == 0
        if side == "writer":
            assert commit(new_writer, of_tenant("acme")) == []
        else:
            assert reader.load([key("a", "acme")]) == [None]
        assert count(admin, has_note) == 1


# --- dropping ------------------------------------------------------------------------------------


def test_a_tenant_in_use_is_dropped_once_it_isnt(
    writer: Writer, reader: Reader, storage: PostgresStorage, admin: Admin
) -> None:
    commit(writer, of_tenant("acme"))
    with admin.transaction():  # as pg_dump does
        admin.execute("LOCK TABLE durable_acme.durable_objects IN ACCESS SHARE MODE")
        began = time.monotonic()
        with pytest.raises(StorageFault, match="lock timeout"):
            writer.drop_tenant("acme")
        assert time.monotonic() - began < 5
        assert commit(writer, of_tenant("acme", "a", 1), of_tenant("new")) == []
    assert writer.drop_tenant("acme") is True
    assert reader.load([key("a", "acme")]) == [None]


# --- the server's log ----------------------------------------------------------------------------


def errors_in(server: Server) -> list[str]:
    log = (server.folder / "log").read_text()
    return [line for line in log.splitlines() if "ERROR:" in line]


def test_nothing_normal_is_an_error_in_the_servers_log(fresh_server: Server) -> None:
    storage = PostgresStorage(fresh_server.conninfo())
    known = len(errors_in(fresh_server))
    alarms = AlarmChanges(changed={**ALARM})
    lost = MessageKey(key("a"), "Cart/b", 7, 7)
    with ExitStack() as stack:
        writer = stack.enter_context(closing(storage.open_writer()))
        reader = stack.enter_context(closing(storage.open_reader()))
        commit(writer, save("a", 0), save("b", 0), Commit(key("c"), 0, b"1", alarms=alarms))
        writer.claim([alarm_key("c")], 1, NOW, NOW + SECOND)
        stale: list[Commit] = [
            save("a", 7),
            Commit(key("a"), 7, b"2", alarms=alarms),
            Commit(key("a"), 0, b"2", alarms=alarms),
            Commit(key("a"), 7, delete=True),
            setting("a", "x", revision=7),
            setting("a", "x", revision=0),
            Commit(key("c"), 1, b"2", alarms=AlarmChanges({"x": 2})),
            Commit(key("gone"), 1, delete=True),
            setting("gone", "x", revision=1),
            of_tenant("acme", "a", 3),
            Commit(key("a"), 1, messages=MessageChanges([lost])),
            Commit(key("a"), 7, messages=MessageChanges(cancelled=["k"])),
        ]
        for each in stale:
            assert commit(writer, each, save("new", 0)) in ([0], [0, 1])
        assert commit(writer, *[each for each in stale if each.revision == 7][:1]) == [0]
        for n in range(5):
            assert reader.load([key("a", f"guess{n}"), key("a")]) != [None, None]
            assert reader.due_alarms(NOW, None, 9, (), f"guess{n}") == []
            assert writer.revive(AlarmKey("Cart", "a", "x", f"guess{n}"), NOW) is False
            assert writer.drop_tenant(f"guess{n}") is False
        assert commit(writer, of_tenant("acme"), of_tenant("zoo")) == []
        assert reader.load([key("a", "acme")]) == [StoredObject(1, b"1")]
        assert writer.drop_tenant("acme") is True
        assert reader.load([key("a", "acme")]) == [None]
        assert reader.summarize(NOW, "acme") == []
    assert errors_in(fresh_server)[known:] == []


# --- states that can be queried ------------------------------------------------------------------


def test_every_state_can_be_cast_to_jsonb(writer: Writer, reader: Reader, admin: Admin) -> None:
    admin.execute("CREATE INDEX ON durable_objects ((state::jsonb ->> 'a'))")
    admin.execute("CREATE INDEX ON durable_alarms ((payload::jsonb ->> 'a'))")
    state = rb'{"a":"\u0000","b":"\\u0000 \u0000\u0000","c":"\\\u0000"}'
    alarms = AlarmChanges(changed={"x": ALARM["x"].__class__(NOW, state)})
    for revision in range(2):
        assert commit(writer, Commit(key("a"), revision, state, alarms=alarms)) == []
    found = admin.execute("SELECT state::jsonb ->> 'a', state::jsonb ->> 'b' FROM durable_objects")
    assert found.fetchall() == [("\ue000", "\\u0000 \ue000\ue000")]
    assert reader.load([key("a")]) == [StoredObject(2, state)]
    assert [alarm.payload for alarm in reader.list_alarms(key("a"))] == [state]
    (row,) = reader.browse_objects(None, None, 9)
    assert row.state == state
