"""Commands about recurring alarms, on files and databases, with and without open runtimes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from anyio.from_thread import start_blocking_portal

from trio_durable import DurableObject, DurableRuntime, ObjectKey, alarm, handler
from trio_durable._alarms.recurrence import FIRING, letter_name
from trio_durable._api.durable_object import definition_of
from trio_durable._keys import AlarmKey
from trio_durable.cli.storage.open import resolve_storage
from trio_durable.storage import (
    MOVED,
    STOPPED,
    AlarmChanges,
    AlarmRow,
    Commit,
    DeadFiring,
    NewAlarm,
    Postponement,
    Writer,
)

from .serving import eventually
from .stored_data import DAY, LATEST, NOW, SECOND, lines_of
from .support import run

APP = f"{__name__}:Report"
TYPE = "cli.Report"
TENANTS = ("", "acme")


class Report(DurableObject, name="cli.Report"):
    count: int = 0

    @alarm(every=3600)
    def digest(self) -> None:
        self.count += 1


RECURRENCE = definition_of(Report).alarms["digest"].recurrence
assert RECURRENCE is not None
SAME = RECURRENCE.fingerprint
HOUR = 3600 * SECOND

STORED: dict[str, NewAlarm] = {
    "current": NewAlarm(NOW + HOUR // 2, None, SAME),
    "other schedule": NewAlarm(NOW + 5 * DAY, None, "0123456789abcdef"),
    "earlier schedule": NewAlarm(NOW + 60 * SECOND, None, "0123456789abcdef"),
    "far": NewAlarm(NOW + 400 * DAY, None, SAME),
    "moved": NewAlarm(NOW + 9 * DAY, b'{"for":"ada"}', MOVED),
    "off": NewAlarm(NOW, None, STOPPED),
    "due": NewAlarm(NOW - DAY, None, "0123456789abcdef"),
}
"""By the ids of objects: the rows of their alarm "digest"."""


def fill(writer: Writer) -> None:
    """Store all kinds of rows, in two tenants."""
    for tenant in TENANTS:
        for object_id, new in STORED.items():
            key = ObjectKey(TYPE, object_id, tenant)
            changes = AlarmChanges(changed={"digest": new})
            writer.commit([Commit(key, 0, b'{"count":0}', alarms=changes)], NOW)
        died = ObjectKey(TYPE, "died", tenant).alarm("digest")
        changes = AlarmChanges(changed={"digest": NewAlarm(NOW - DAY, None, SAME)})
        writer.commit([Commit(died.object_key, None, alarms=changes)], NOW)
        assert writer.claim([died], 1, LATEST, LATEST)
        firing = DeadFiring(letter_name(died, NOW - DAY), FIRING, NewAlarm(NOW + 9, None, SAME))
        writer.postpone([Postponement(died, 1, None, 5, "ValueError: no", dead_firing=firing)])


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, folder: Path) -> str:
    """A storage with all kinds of rows."""
    storage = "app.db" if request.param == "sqlite" else request.getfixturevalue("database")
    with closing(resolve_storage(storage).open_writer()) as writer:
        fill(writer)
    return storage


@contextmanager
def opened(where: str) -> Iterator[None]:
    """Runtimes of a cluster; two members on PostgreSQL."""
    with start_blocking_portal("trio") as portal:
        first = DurableRuntime(where, objects=[Report], cluster=True)
        with portal.wrap_async_context_manager(first):
            if where == "app.db":
                yield
                return
            second = DurableRuntime(where, objects=[Report], cluster=True)
            with portal.wrap_async_context_manager(second):
                eventually(lambda: all(n.shards for n in portal.call(first.list_nodes)))
                yield


def rows(where: str, type_name: str = TYPE) -> dict[tuple[str, str, str], AlarmRow]:
    with closing(resolve_storage(where).open_reader()) as reader:
        return {
            (tenant, row.alarm.key.object_id, row.alarm.key.name): row
            for tenant in TENANTS
            for row in reader.browse_alarms(None, NOW, type_name, None, 1000, tenant)
        }


def succeeds(*args: str, stdin: str | None = None) -> str:
    result = run(*args, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def changed(where: str, before: dict[Any, AlarmRow]) -> set[tuple[str, str]]:
    """The tenants and ids of the objects whose rows are other ones than before."""
    after = rows(where)
    assert after.keys() == before.keys()
    return {key[:2] for key, row in after.items() if row != before[key]}


OUTDATED = {"other schedule", "earlier schedule", "far"}


# --- rescheduling --------------------------------------------------------------------------------


def test_times_of_another_schedule_are_computed_once_more(where: str) -> None:
    before = rows(where)
    reschedule = ("alarms", "reschedule", "-s", where, "--app", APP, TYPE)
    assert succeeds(*reschedule) == "Rescheduled 6 alarms.\n"
    assert changed(where, before) == {(tenant, each) for tenant in TENANTS for each in OUTDATED}
    after = rows(where)
    for tenant in TENANTS:
        for each in OUTDATED:
            row = after[tenant, each, "digest"]
            assert NOW + HOUR <= row.alarm.due_at < NOW + HOUR + 600 * SECOND
            assert (row.alarm.recurrence, row.available_at) == (SAME, row.alarm.due_at)
    assert succeeds(*reschedule) == "Rescheduled 0 alarms.\n"


def test_times_of_one_tenant_can_be_computed(where: str) -> None:
    before = rows(where)
    args = ("alarms", "reschedule", "-s", where, "--app", APP, "--tenant", "acme", TYPE)
    assert succeeds(*args) == "Rescheduled 3 alarms.\n"
    assert changed(where, before) == {("acme", each) for each in OUTDATED}


def test_open_runtimes_reschedule_their_own(where: str) -> None:
    before = rows(where)
    with opened(where):
        # What lies too far they have pulled in by themselves.
        far = {"far", "other schedule"}
        expected = {(tenant, each) for tenant in TENANTS for each in far}
        not_due = {key: row for key, row in before.items() if key[1] not in ("due", "died")}

        def others() -> set[tuple[str, str]]:
            after = rows(where)
            return {key[:2] for key, row in not_due.items() if after[key] != row}

        eventually(lambda: others() == expected)
        found = succeeds("alarms", "reschedule", "-s", where, "--app", APP, TYPE)
        assert found == "Rescheduled 2 alarms.\n"
        assert others() == {(tenant, each) for tenant in TENANTS for each in OUTDATED}


# --- listing and cancelling ----------------------------------------------------------------------


def test_lists_tell_which_alarms_recur(where: str) -> None:
    table = run("alarms", "-s", where, "--type", TYPE, env={"COLUMNS": "200"}).stdout
    for object_id, status in (
        ("current", "pending, recurring"),
        ("moved", "pending, moved"),
        ("off", "stopped"),
        ("due", "overdue, recurring"),
    ):
        [line] = [line for line in table.splitlines() if f" {TYPE} {object_id} " in line]
        assert status in line
    found = {
        (line["id"], line["name"]): (line["status"], line.get("recurrence"))
        for line in lines_of("alarms", "-s", where, "--type", TYPE, "--json")
    }
    assert found["current", "digest"] == ("pending", SAME)
    assert found["moved", "digest"] == ("pending", MOVED)
    assert found["off", "digest"] == ("stopped", STOPPED)
    letter = letter_name(ObjectKey(TYPE, "died").alarm("digest"), NOW - DAY)
    assert found["died", letter] == ("dead", FIRING)
    assert len(lines_of("alarms", "-s", where, "--status", "stopped", "--json")) == 1


@pytest.mark.parametrize("is_open", [False, True])
def test_cancelling_turns_off_and_once_more_removes_the_mark(where: str, is_open: bool) -> None:
    cancel = ("alarms", "cancel", "-s", where, TYPE, "current", "digest")

    def cancelled_twice() -> None:
        succeeds(*cancel)
        row = rows(where)["", "current", "digest"]
        assert (row.status, row.alarm.recurrence) == ("stopped", STOPPED)
        succeeds(*cancel)
        assert ("", "current", "digest") not in rows(where)

    if is_open:
        with opened(where):
            cancelled_twice()
    else:
        cancelled_twice()


def test_what_is_off_is_no_dead_letter_to_retry(where: str) -> None:
    assert succeeds("alarms", "retry", "-s", where, TYPE, "--all") == "Made 1 dead letter due.\n"
    refused = run("alarms", "retry", "-s", where, TYPE, "off", "digest")
    assert "there is no dead letter" in refused.stderr


# --- moving --------------------------------------------------------------------------------------


def test_an_import_restores_all_of_them(where: str, folder: Path) -> None:
    exported = succeeds("export", "-s", where)
    succeeds("import", "-s", "new.db", stdin=exported)
    assert rows("new.db") == rows(where)
    succeeds("import", "-s", where, "--replace", stdin=exported)
    assert rows("new.db") == rows(where)


def test_open_runtimes_restore_all_of_them(where: str, folder: Path) -> None:
    exported = succeeds("export", "-s", where)
    before = rows(where)
    # The others are due, or too far away, so that runtimes change them.
    kept = {key: row for key, row in before.items() if key[1] in ("moved", "off", "current")}
    kept |= {key: row for key, row in before.items() if row.alarm.recurrence == FIRING}
    with opened(where):
        succeeds("alarms", "cancel", "-s", where, TYPE, "moved", "digest")
        succeeds("import", "-s", where, "--replace", stdin=exported)
        after = rows(where)
        assert {key: after[key] for key in kept} == kept


class Journal(DurableObject, name="cli.Journal"):
    count: int = 0

    @alarm(every=3600)
    def digest(self) -> None:
        self.count += 1

    @handler(readonly=True)
    def read(self) -> int:
        return self.count


def test_an_export_can_be_imported_as_another_type(where: str, folder: Path) -> None:
    exported = succeeds("export", "-s", where).replace(TYPE, "cli.Journal")
    succeeds("import", "-s", "new.db", stdin=exported)
    expected = {
        key: attrs.evolve(row, alarm=attrs.evolve(row.alarm, key=renamed(row.alarm.key)))
        for key, row in rows(where).items()
    }
    assert rows("new.db", "cli.Journal") == expected
    # The marks are those of the same schedule, so that nothing is corrected but what was before.
    with start_blocking_portal("trio") as portal:
        runtime = DurableRuntime("new.db", objects=[Journal])
        with portal.wrap_async_context_manager(runtime):
            for each in ("current", "moved", "off"):
                portal.call(runtime.call, Journal, each, "read")
                assert (
                    rows("new.db", "cli.Journal")["", each, "digest"]
                    == expected["", each, "digest"]
                )


def renamed(key: AlarmKey) -> AlarmKey:
    return key._replace(type_name="cli.Journal")


def test_a_copy_has_all_of_them(where: str, database: str, folder: Path) -> None:
    target = "new.db" if where != "app.db" else database
    succeeds("copy", where, target)
    assert rows(target) == rows(where)
