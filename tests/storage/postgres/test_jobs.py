"""Alarms that are jobs of Oban: the statements on its tables, without the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import attrs
import psycopg
import pytest
from support.job_storage import PRODUCER, JobStorage, schema_of, storage_with_jobs
from support.oban_tables import SQL, install_tables

from trio_durable import StorageInUse, StorageUnavailable
from trio_durable._keys import AlarmKey
from trio_durable._persistence.restoring import restore_alarms
from trio_durable.storage import (
    AlarmChanges,
    AlarmRow,
    Commit,
    NewAlarm,
    Onto,
    Postponement,
    Reader,
    Storage,
    StorageFault,
    StoredAlarm,
    Writer,
)
from trio_durable.storage.postgres import JobQueue, Jobs, PostgresStorage
from trio_durable.storage.postgres._alarms import IS_K, KEYS
from trio_durable.storage.postgres._names import Names
from trio_durable.testing.conformance._alarms import AlarmTests
from trio_durable.testing.conformance._browsing import BrowsingTests
from trio_durable.testing.conformance._recurrences import RecurrenceTests

from .rows import NOW, SECOND, Admin, alarm_key, commit, everything, key, save, setting

TTL = 60.0


class TestJobsAsAlarms(AlarmTests, BrowsingTests, RecurrenceTests):
    """The suite for storages, as far as it is about alarms."""

    @pytest.fixture
    def storage(self, postgres: str) -> Storage:
        return JobStorage(postgres)


@pytest.fixture
def storage(postgres: str) -> PostgresStorage:
    return storage_with_jobs(postgres)


@pytest.fixture
def queue(storage: PostgresStorage, writer: Writer) -> JobQueue:
    assert storage.job_queue is not None
    storage.job_queue.register(PRODUCER)
    return storage.job_queue


@pytest.fixture
def other_job(admin: Admin) -> Iterator[None]:
    """A job of the application's own in each state, which nothing may touch."""
    admin.execute(
        b"INSERT INTO oban_jobs (state, queue, worker, args, attempted_at, attempted_by, "
        b"discarded_at, completed_at, scheduled_at) SELECT s, 'durable', 'app.Worker', "
        b'\'{"type": "Cart", "id": "a", "name": "x", "tenant": ""}\', t, '
        b"ARRAY['n', 'gone'], t, t, t FROM unnest(enum_range(NULL::oban_job_state)) AS s, "
        b"(SELECT timestamp '2020-01-01' AS t) AS t"
    )
    before = admin.execute(b"SELECT * FROM oban_jobs ORDER BY id").fetchall()
    yield
    query = b"SELECT * FROM oban_jobs WHERE worker = 'app.Worker' ORDER BY id"
    assert admin.execute(query).fetchall() == before


def jobs(admin: Admin, columns: str = "state::text") -> list[tuple[object, ...]]:
    """The library's own jobs, by id."""
    query = f"SELECT {columns} FROM oban_jobs WHERE worker <> 'app.Worker' ORDER BY id"
    return admin.execute(query.encode()).fetchall()


def run(queue: JobQueue, name: str = "x", producer: str = PRODUCER) -> int:
    """Begin a run of an alarm's job; the claim."""
    job = queue.claim(alarm_key("a", name), "node", producer)
    assert job is not None
    return job.claim


def acknowledged(claim: int, revision: int = 1, **changed: NewAlarm) -> Commit:
    changes = AlarmChanges({"x": claim}, changed={**changed})
    return Commit(key("a"), revision, b"2", alarms=changes)


def failed(claim: int, available_at: int | None, failures: int) -> Postponement:
    return Postponement(alarm_key("a"), claim, available_at, failures, "ValueError: no")


# --- commits -------------------------------------------------------------------------------------


def test_the_tables_are_those_of_the_package() -> None:
    schema = pytest.importorskip("oban.schema")
    assert schema.install_sql("public").replace("public.", "") == SQL


def test_an_alarm_is_completed_with_the_state_that_came_of_it(
    writer: Writer, queue: JobQueue, reader: Reader, admin: Admin
) -> None:
    commit(writer, save("a", 0), setting("b", "x"))
    commit(writer, setting("a", "x"))
    claim = run(queue)
    assert commit(writer, acknowledged(claim)) == []
    assert jobs(admin) == [("available",), ("completed",)]
    assert reader.list_alarms(key("a")) == []


def test_a_run_that_oban_has_rescued_can_t_acknowledge(
    writer: Writer, queue: JobQueue, reader: Reader, admin: Admin
) -> None:
    commit(writer, save("a", 0))
    commit(writer, setting("a", "x"))
    claim = run(queue)
    admin.execute(b"UPDATE oban_jobs SET state = 'available'")
    assert commit(writer, acknowledged(claim)) == [0]
    later = run(queue)
    assert later == claim + 1
    assert commit(writer, acknowledged(claim)) == [0]
    assert commit(writer, acknowledged(later)) == []


@pytest.mark.parametrize(
    "ends", ["DELETE FROM oban_jobs", "UPDATE oban_jobs SET state = 'cancelled'"]
)
def test_a_job_that_a_dashboard_ends_while_it_runs_can_t_be_acknowledged(
    writer: Writer, queue: JobQueue, reader: Reader, admin: Admin, ends: str
) -> None:
    commit(writer, save("a", 0))
    commit(writer, setting("a", "x"))
    claim = run(queue)
    admin.execute(ends.encode())
    assert commit(writer, acknowledged(claim)) == [0]
    writer.postpone([failed(claim, NOW, 1)])
    assert reader.list_alarms(key("a")) == reader.list_dead_letters("Cart", None, 9) == []


def test_an_alarm_that_is_set_while_it_runs_is_another_job(
    writer: Writer, queue: JobQueue, reader: Reader, admin: Admin
) -> None:
    commit(writer, save("a", 0))
    commit(writer, setting("a", "x"))
    claim = run(queue)
    commit(writer, setting("a", "x"))
    assert commit(writer, acknowledged(claim)) == [0]
    assert jobs(admin, "id, attempt") == [(2, 0)]


def test_times_and_payloads_come_back_exactly(
    writer: Writer, queue: JobQueue, reader: Reader
) -> None:
    payload = b'{"n": 1e400, "m": 0.10, "z": "\\u0000\\ue000", "n": 2}'
    for due_at in (-62_135_596_800_000_000, -1, 0, NOW + 1, 253_402_300_799_999_999):
        new = NewAlarm(due_at, payload)
        commit(writer, Commit(key("a"), None, alarms=AlarmChanges(changed={"x": new})))
        assert reader.list_alarms(key("a")) == [
            StoredAlarm(alarm_key("a"), due_at, payload, 0, None)
        ]
        (row,) = reader.load_alarms([alarm_key("a")], NOW)
        assert row is not None
        assert row.available_at == due_at
    job = queue.claim(alarm_key("a"), "node", PRODUCER)
    assert job is not None
    assert job.alarm.payload == payload


def test_an_alarm_that_is_due_is_available_and_others_are_scheduled(
    writer: Writer, admin: Admin
) -> None:
    changed = {"x": NewAlarm(NOW, None), "y": NewAlarm(NOW + 10**15, None)}
    commit(writer, Commit(key("a"), None, alarms=AlarmChanges(changed={**changed})))
    assert sorted(jobs(admin)) == [("available",), ("scheduled",)]


def test_the_mark_of_an_alarm_that_is_off_is_no_job_that_runs(writer: Writer, admin: Admin) -> None:
    new = NewAlarm(NOW, None, "stopped")
    commit(writer, Commit(key("a"), None, alarms=AlarmChanges(changed={"x": new})))
    assert jobs(admin) == [("suspended",)]
    on = NewAlarm(NOW, None, "each hour", Onto.STOPPED)
    commit(writer, Commit(key("a"), None, alarms=AlarmChanges(changed={"x": on})))
    assert jobs(admin) == [("available",)]


def test_each_job_is_looked_up_by_its_key_without_statistics(
    writer: Writer, admin: Admin, postgres: str
) -> None:
    commit(writer, *(setting(str(n), "x") for n in range(300)))
    place = Jobs(schema_of(postgres), "durable")
    template = "SELECT a.id FROM {keys} AS k (t, i, m) JOIN {{alarms}} AS a ON {is_k}"
    template = template.format(keys=KEYS, is_k=IS_K)
    ids = [str(n) for n in range(300)]
    parameters = (["Cart"] * 300, ids, ["x"] * 300)
    query = b"EXPLAIN (ANALYZE, TIMING OFF) " + Names("", "", place).query(template)
    plan = "\n".join(str(row[0]) for row in admin.execute(query, parameters))
    assert "Index Scan using trio_durable_alarms" in plan
    assert "Rows Removed by Join Filter" not in plan


# --- outcomes ------------------------------------------------------------------------------------


def test_a_failure_counts_an_attempt_and_what_isn_t_one_adds_one(
    writer: Writer, queue: JobQueue, reader: Reader, admin: Admin
) -> None:
    commit(writer, setting("a", "x"))
    admin.execute(b"UPDATE oban_jobs SET max_attempts = 3")
    writer.postpone([failed(run(queue), NOW + 10**15, 1)])
    assert jobs(admin, "state::text, attempt, max_attempts") == [("retryable", 1, 3)]
    given_back = Postponement(alarm_key("a"), run(queue), NOW, 1, "ValueError: no")
    writer.postpone([given_back])
    assert jobs(admin, "state::text, attempt, max_attempts") == [("available", 2, 4)]
    ((errors,),) = jobs(admin, "errors")
    assert isinstance(errors, list)
    assert [(each["attempt"], each["error"]) for each in errors] == [(1, "ValueError: no")]


def test_nothing_is_available_without_an_attempt_that_is_left(
    writer: Writer, queue: JobQueue, admin: Admin
) -> None:
    commit(writer, setting("a", "x"))
    admin.execute(b"UPDATE oban_jobs SET max_attempts = 1")
    writer.postpone([failed(run(queue), NOW, 1)])
    admin.execute(b"UPDATE oban_jobs SET max_attempts = attempt")  # as an older release might
    queue.tidy(TTL)
    assert jobs(admin, "attempt < max_attempts") == [(True,)]


def test_twenty_errors_are_kept(writer: Writer, queue: JobQueue, admin: Admin) -> None:
    commit(writer, setting("a", "x"))
    for failures in range(1, 23):
        writer.postpone([failed(run(queue), NOW, failures)])
    ((errors,),) = jobs(admin, "errors")
    assert isinstance(errors, list)
    assert [each["attempt"] for each in errors] == list(range(3, 23))


def test_a_dead_letter_isn_t_pruned_and_can_be_revived(
    writer: Writer, queue: JobQueue, reader: Reader, admin: Admin
) -> None:
    commit(writer, setting("a", "x"))
    writer.postpone([failed(run(queue), None, 1)])
    assert jobs(admin, "state::text, discarded_at") == [("discarded", None)]
    (dead,) = reader.list_dead_letters("Cart", None, 9)
    assert (dead.failures, dead.last_error) == (1, "ValueError: no")
    assert queue.claim(alarm_key("a"), "node", PRODUCER) is None
    assert writer.revive(alarm_key("a"), NOW)
    assert jobs(admin) == [("available",)]


def test_a_job_that_oban_discards_is_a_dead_letter_unless_it_recurs(
    writer: Writer, queue: JobQueue, reader: Reader, admin: Admin, other_job: None
) -> None:
    changed = {"x": NewAlarm(NOW, None), "y": NewAlarm(NOW, None, "each hour")}
    commit(writer, Commit(key("a"), None, alarms=AlarmChanges(changed={**changed})))
    ours = b"worker <> 'app.Worker'"
    admin.execute(b"UPDATE oban_jobs SET state = 'discarded', discarded_at = now() WHERE " + ours)
    queue.tidy(TTL)
    assert jobs(admin, "args->>'name', state::text, discarded_at IS NULL") == [
        ("x", "discarded", True),
        ("y", "available", True),
    ]
    assert [each.last_error for each in reader.list_dead_letters("Cart", None, 9)] == [
        "Oban discarded the job"
    ]


# --- processes that are gone ---------------------------------------------------------------------


@pytest.mark.parametrize("is_marked", [False, True])
def test_jobs_of_a_process_that_is_gone_are_put_back_and_counted_if_marked(
    writer: Writer, queue: JobQueue, reader: Reader, admin: Admin, is_marked: bool, other_job: None
) -> None:
    commit(writer, setting("a", "x", "y"))
    run(queue, "y")
    gone = str(uuid4())
    for crashes in (None, 0, 1 if is_marked else 0):
        claim = run(queue, producer=gone)
        stored = {each.key.name: each.crashes for each in reader.list_alarms(key("a"))}
        assert stored == {"x": crashes, "y": None}
        if is_marked:
            assert writer.mark(alarm_key("a"), claim)
        assert queue.take_over(TTL) == 1
    assert jobs(admin, "state::text, max_attempts - attempt") == [
        ("available", 32_767 - 3),
        ("executing", 32_767 - 1),
    ]


def test_a_run_that_nothing_renews_is_put_back(
    writer: Writer, queue: JobQueue, admin: Admin
) -> None:
    commit(writer, setting("a", "x"))
    claim = run(queue)
    age = b"UPDATE oban_jobs SET attempted_at = attempted_at - interval '61 s'"
    admin.execute(age)
    writer.renew([(alarm_key("a"), claim)], 0)
    assert queue.take_over(TTL) == 0
    admin.execute(age)
    assert queue.take_over(TTL) == 1


def test_the_end_of_a_node_is_that_of_its_producers(
    writer: Writer, queue: JobQueue, admin: Admin, postgres: str
) -> None:
    commit(writer, setting("a", "x"))
    run(queue)
    admin.execute(b"DELETE FROM durable_nodes")
    assert admin.execute(b"SELECT * FROM durable_oban_producers").fetchall() == []
    with pytest.raises(StorageFault, match="isn't in the database any more"):
        writer.revive(alarm_key("a"), NOW)
    other = PostgresStorage(postgres)
    with closing(other.open_writer()):
        assert other.job_queue is not None
        assert other.job_queue.take_over(TTL) == 1


def test_a_job_counts_from_0_under_another_number_before_its_attempts_overflow(
    writer: Writer, queue: JobQueue, admin: Admin
) -> None:
    commit(writer, setting("a", "x"))
    admin.execute(b"UPDATE oban_jobs SET attempt = 32000, max_attempts = 32767")
    queue.tidy(TTL)
    assert jobs(admin, "id > 1, attempt") == [(True, 0)]


# --- everything else -----------------------------------------------------------------------------


def test_staging_touches_what_is_due_of_the_library_and_nothing_else(
    writer: Writer, queue: JobQueue, admin: Admin, other_job: None
) -> None:
    commit(writer, setting("a", "x", "y"))
    admin.execute(
        b"UPDATE oban_jobs SET state = 'scheduled', scheduled_at = CASE args->>'name' WHEN 'x' "
        b"THEN now() AT TIME ZONE 'UTC' ELSE '2100-01-01' END WHERE worker <> 'app.Worker'"
    )
    queue.stage()
    assert sorted(jobs(admin)) == [("available",), ("scheduled",)]


def test_ended_jobs_are_pruned_where_no_instance_leads(
    writer: Writer, queue: JobQueue, admin: Admin, other_job: None
) -> None:
    commit(writer, save("a", 0))
    commit(writer, setting("a", "x"))
    commit(writer, acknowledged(run(queue)))
    admin.execute(b"INSERT INTO oban_leaders VALUES ('Oban', 'n', now(), now() + interval '1 h')")
    queue.tidy(0.0)
    assert jobs(admin) == [("completed",)]
    admin.execute(b"DELETE FROM oban_leaders")
    queue.tidy(TTL)
    assert jobs(admin) == [("completed",)]
    queue.tidy(-1.0)
    assert jobs(admin) == []


def test_a_dropped_tenant_and_a_renamed_type_take_their_jobs_along(
    writer: Writer, queue: JobQueue, reader: Reader, admin: Admin, other_job: None
) -> None:
    commit(writer, setting("a", "x"))
    of_tenant = Commit(
        key("a", "acme"), 0, b"1", alarms=AlarmChanges(changed={"x": NewAlarm(NOW, None)})
    )
    commit(writer, of_tenant)
    writer.rename_type("Cart", "Basket", "")
    assert jobs(admin, "args->>'tenant', args->>'type'") == [("", "Basket"), ("acme", "Cart")]
    assert writer.drop_tenant("acme")
    assert jobs(admin, "args->>'tenant'") == [("",)]
    assert queue.claim(AlarmKey("Cart", "a", "x", "acme"), "node", PRODUCER) is None


# --- opening -------------------------------------------------------------------------------------


def opens(storage: PostgresStorage) -> None:
    storage.open_writer().close()


def test_without_oban_s_tables_the_error_says_how_to_install_them(postgres: str) -> None:
    storage = PostgresStorage(postgres)
    storage.keep_alarms_as_jobs(Jobs(schema_of(postgres), "durable"))
    with pytest.raises(StorageUnavailable, match=r"no table .*oban_jobs.*install_sql\(\)"):
        opens(storage)


def test_the_tables_of_oban_for_elixir_are_refused(storage: PostgresStorage, admin: Admin) -> None:
    admin.execute(b"ALTER TABLE oban_jobs DROP COLUMN errors, ADD COLUMN errors jsonb[]")
    with pytest.raises(
        StorageUnavailable, match=r"errors of .* is jsonb\[\], and not jsonb.*Elixir"
    ):
        opens(storage)


def test_without_the_right_to_build_an_index_the_error_prints_the_statement(
    storage: PostgresStorage, admin: Admin, postgres: str
) -> None:
    opens(PostgresStorage(postgres))
    admin.execute(b"CREATE ROLE td_jobs LOGIN")
    schema = schema_of(postgres).encode()
    try:
        admin.execute(b"GRANT ALL ON SCHEMA " + schema + b" TO td_jobs")
        admin.execute(b"GRANT ALL ON ALL TABLES IN SCHEMA " + schema + b" TO td_jobs")
        as_role = PostgresStorage(postgres.replace("user=postgres", "user=td_jobs"))
        as_role.keep_alarms_as_jobs(Jobs(schema_of(postgres), "durable"))
        with pytest.raises(
            StorageUnavailable, match="CREATE UNIQUE INDEX CONCURRENTLY trio_durable"
        ):
            opens(as_role)
    finally:
        admin.execute(b"DROP OWNED BY td_jobs")
        admin.execute(b"DROP ROLE td_jobs")


def test_an_index_whose_build_was_cut_off_is_built_once_more(
    storage: PostgresStorage, admin: Admin
) -> None:
    opens(storage)
    admin.execute(
        b"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'trio_durable_alarms'::regclass"
    )
    opens(storage)
    query = b"SELECT indisvalid FROM pg_index WHERE indexrelid = 'trio_durable_alarms'::regclass"
    assert admin.execute(query).fetchall() == [(True,)]


def test_tables_with_the_alarms_of_another_schema_are_refused(
    storage: PostgresStorage, admin: Admin, postgres: str
) -> None:
    opens(storage)
    other = f"{schema_of(postgres)}_other"
    admin.execute(f"CREATE SCHEMA {other}".encode())
    try:
        there = PostgresStorage(postgres.replace(schema_of(postgres), other))
        there.keep_alarms_as_jobs(Jobs(schema_of(postgres), "other"))
        with pytest.raises(StorageUnavailable, match=f"those of {other} too"):
            opens(there)
    finally:
        admin.execute(f"DROP SCHEMA {other} CASCADE".encode())
    opens(storage)


def finding(storage: PostgresStorage) -> tuple[str, str]:
    (found,) = (each for each in storage.diagnose(False) if each.name == "jobs")
    assert found.advice or found.status == "ok"
    return found.status, found.text


def test_the_doctor_looks_at_jobs_and_indexes(
    storage: PostgresStorage, admin: Admin, postgres: str
) -> None:
    assert [each.name for each in storage.diagnose(False) if each.name == "jobs"] == []
    with closing(storage.open_writer()) as writer:
        commit(writer, setting("a", "x"))
    assert finding(storage)[0] == "warning"
    assert finding(storage)[1].startswith("an alarm has been due for")
    changes = {
        "max_attempts = 1, attempt = 1, state = 'available'": "1 alarms have no attempt left",
        "state = 'executing', attempted_by = ARRAY['n', 'gone']": "1 alarms were run by processes",
        "queue = 'app'": "1 alarms are in other queues than 'durable'",
    }
    for change, expected in changes.items():
        admin.execute(f"UPDATE oban_jobs SET {change}".encode())
        assert finding(storage)[1].startswith(expected)
    admin.execute(b"DROP INDEX trio_durable_recurring")
    assert "lacks the index trio_durable_recurring" in finding(storage)[1]
    admin.execute(b"ALTER TABLE oban_jobs DROP COLUMN meta CASCADE")
    status, text = finding(storage)
    assert status == "problem"
    assert text.startswith(f"the column meta of {schema_of(postgres)}.oban_jobs is missing")


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_alarms_of_the_wheel_are_refused(
    storage: PostgresStorage, postgres: str, tenant: str
) -> None:
    with closing(PostgresStorage(postgres).open_writer()) as writer:
        changes = AlarmChanges(changed={"x": NewAlarm(NOW, None)})
        commit(writer, Commit(key("a", tenant), 0, b"1", alarms=changes))
    with pytest.raises(StorageUnavailable, match="alarms move --to oban"):
        opens(storage)


def test_another_queue_than_before_is_refused(storage: PostgresStorage, postgres: str) -> None:
    opens(storage)
    storage.keep_alarms_as_jobs(Jobs(schema_of(postgres), "other"))
    with pytest.raises(StorageUnavailable, match="in queue 'durable'"):
        opens(storage)


def test_a_storage_finds_out_by_itself_that_its_alarms_are_jobs(
    storage: PostgresStorage, postgres: str
) -> None:
    with closing(storage.open_writer()) as writer:
        commit(writer, setting("a", "x"))
    plain = PostgresStorage(postgres)
    assert plain.foreign_alarms is None
    with closing(plain.open_reader()) as reader:
        assert [each.key.name for each in reader.list_alarms(key("a"))] == ["x"]
    assert plain.foreign_alarms is not None
    assert "'durable'" in plain.foreign_alarms


def test_installing_the_tables_twice_changes_nothing(postgres: str) -> None:
    install_tables(postgres)
    install_tables(postgres)
    with psycopg.connect(postgres) as connection:
        assert connection.execute(b"SELECT count(*) FROM oban_jobs").fetchone() == (0,)


# --- restoring and moving -------------------------------------------------------------------------


def test_exported_alarms_are_restored_with_their_failures(writer: Writer, reader: Reader) -> None:
    commit(writer, setting("a", "x", "y"))
    rows = everything(reader)
    dead = attrs.evolve(rows[0].alarm, failures=3, last_error="no")
    rows[0] = attrs.evolve(rows[0], alarm=dead, available_at=None, status="dead")
    restore_alarms(writer, rows, NOW)
    assert everything(reader) == rows
    assert writer.claim([alarm_key("a", "y")], 7, NOW, NOW + 1)
    assert writer.claim([alarm_key("a", "y")], 8, NOW, NOW + 1) == []
    assert commit(writer, acknowledged_by("y", 8)) == [0]
    assert commit(writer, acknowledged_by("y", 7)) == []


def acknowledged_by(name: str, claim: int) -> Commit:
    return Commit(key("a"), None, alarms=AlarmChanges({name: claim}))


def all_alarms(storage: PostgresStorage) -> list[list[AlarmRow]]:
    with closing(storage.open_reader()) as reader:
        return [reader.browse_alarms(None, NOW, None, None, 99, each) for each in ("", "acme")]


@pytest.fixture
def filled(postgres: str) -> PostgresStorage:
    """A storage with an alarm of each kind, in the tables of two tenants."""
    storage = PostgresStorage(postgres)
    changed = {
        "due": NewAlarm(NOW, b'{"a": "\\u0000"}'),
        "later": NewAlarm(NOW + 10**15, None),
        "recurring": NewAlarm(NOW + 10**15, None, "each hour"),
        "off": NewAlarm(NOW, None, "stopped"),
        "failed": NewAlarm(NOW, None),
        "dead": NewAlarm(NOW, None),
        "claimed": NewAlarm(NOW, None),
    }
    with closing(storage.open_writer()) as writer:
        for tenant in ("", "acme"):
            changes = AlarmChanges(changed={**changed})
            commit(writer, Commit(key("a", tenant), 0, b"1", alarms=changes))
            taken = [key("a", tenant).alarm(name) for name in ("failed", "dead", "claimed")]
            assert len(writer.claim(taken, 1, NOW, NOW + SECOND)) == 3
            writer.postpone(
                [
                    Postponement(taken[0], 1, NOW + 10**15, 2, "no", 1),
                    Postponement(taken[1], 1, None, 3, "no"),
                ]
            )
    return storage


def test_alarms_move_to_jobs_and_back_as_they_are(
    filled: PostgresStorage, postgres: str, admin: Admin
) -> None:
    install_tables(postgres)
    before = [
        [
            attrs.evolve(row, available_at=NOW) if row.alarm.key.name == "claimed" else row
            for row in rows
        ]
        for rows in all_alarms(filled)
    ]
    place = Jobs(schema_of(postgres), "durable")
    assert filled.move_alarms(place) == 14
    assert all_alarms(filled) == before
    assert filled.foreign_alarms == str(place)
    assert admin.execute(b"SELECT count(*) FROM durable_alarms").fetchall() == [(0,)]
    with closing(filled.open_writer()) as writer:
        assert filled.job_queue is not None
        assert filled.job_queue.claim(alarm_key("a", "due"), "node", PRODUCER) is not None
        assert writer.revive(alarm_key("a", "dead"), NOW)
        writer.commit([setting("a", "dead")], NOW)
    assert filled.move_alarms(place) == 0
    assert filled.move_alarms(None) == 14
    assert filled.foreign_alarms is None or all_alarms(filled)
    assert filled.foreign_alarms is None
    assert jobs(admin) == []


def test_a_move_to_tables_that_oban_hasn_t_changes_nothing(
    filled: PostgresStorage, postgres: str
) -> None:
    before = all_alarms(filled)
    with pytest.raises(StorageUnavailable, match=r"install_sql\(\)"):
        filled.move_alarms(Jobs(schema_of(postgres), "durable"))
    assert all_alarms(filled) == before
    assert filled.move_alarms(None) == 0


def test_a_move_while_a_runtime_is_open_is_refused(filled: PostgresStorage, postgres: str) -> None:
    install_tables(postgres)
    with closing(filled.open_writer()), pytest.raises(StorageInUse):
        PostgresStorage(postgres).move_alarms(Jobs(schema_of(postgres), "durable"))
