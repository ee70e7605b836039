"""Commands that change data while runtimes are open: these make the changes.

The runtimes are in this process, so the tests see what is in memory.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from click.testing import Result

from trio_durable import (
    Cluster,
    DurableObject,
    DurableRuntime,
    ObjectKey,
    Retry,
    alarm,
    handler,
    upgrade,
)
from trio_durable._cluster.settings import Command
from trio_durable._cluster.tls import ClusterTLS
from trio_durable._messages.message import message_id
from trio_durable.cli.storage.members import cluster_of
from trio_durable.cli.storage.open import resolve_storage
from trio_durable.cli.storage.owner import OtherRuntimes, OwnWriter, open_owner
from trio_durable.storage import AlarmRow, Commit, ObjectRow

from .serving import eventually
from .stored_data import DAY, NOW, fail, save, writer_of
from .support import run

APP = __name__
fired: list[str] = []
"""The objects whose alarm ``ring`` was handled."""
broken: set[str] = set()
"""The objects whose alarm fails."""
held: dict[str, tuple[threading.Event, threading.Event]] = {}
"""Set when the alarm of an object is handled, and what ends that."""


class Cart(DurableObject, name="cli.open.Cart", schema=2):
    cents: int = 0
    loads: int = attrs.field(default=0)

    @upgrade(from_schema=1)
    @staticmethod
    def count_cents(state: dict[str, object]) -> dict[str, object]:
        total = state.pop("total")
        assert isinstance(total, int)
        return {**state, "cents": total * 100}

    @handler
    def add(self, cents: int) -> int:
        self.cents += cents
        return self.cents

    @handler(readonly=True)
    def read(self) -> int:
        return self.cents

    @handler(retry=Retry(attempts=1))
    def deposit(self, cents: int) -> None:
        if self.ctx.object_id in broken:
            raise ValueError("broken")
        self.cents += cents

    @handler
    def fail_with(self, text: str) -> None:
        raise ValueError(text)

    @handler
    async def hang(self) -> None:
        began, end = held[self.ctx.key.object_id]
        began.set()
        await anyio.to_thread.run_sync(end.wait)

    @handler
    def wake_up(self, seconds: float) -> None:
        self.ctx.schedule_alarm("ring", after=seconds)

    @alarm(retry=Retry(attempts=1))
    async def ring(self) -> None:
        if self.ctx.key.object_id in held:
            began, end = held[self.ctx.key.object_id]
            began.set()
            await anyio.to_thread.run_sync(end.wait)
        if self.ctx.key.object_id in broken:
            raise ValueError("broken")
        fired.append(self.ctx.key.object_id)


class Other(DurableObject, name="cli.open.Other"):
    """A type that the runtimes don't serve."""


@attrs.frozen
class App:
    """Open runtimes of a cluster."""

    where: str
    portal: BlockingPortal
    runtime: DurableRuntime

    def call(self, object_id: str, name: str, *args: object, tenant: str = "") -> Any:
        async def call() -> Any:
            objects = self.runtime.tenant(tenant) if tenant else self.runtime
            return await objects.call(Cart, object_id, name, *args)

        return self.portal.call(call)

    def control_problem(self) -> str | None:
        async def problem() -> str | None:
            return self.runtime.statistics().control_problem

        return self.portal.call(problem)

    def objects(self, tenant: str = "") -> dict[str, ObjectRow]:
        with closing(resolve_storage(self.where).open_reader()) as reader:
            rows = reader.browse_objects("cli.open.Cart", None, 1000, tenant)
        return {row.key.object_id: row for row in rows}

    def alarms(self) -> dict[tuple[str, str], AlarmRow]:
        with closing(resolve_storage(self.where).open_reader()) as reader:
            rows = reader.browse_alarms(None, NOW, "cli.open.Cart", None, 1000)
        return {(row.alarm.key.object_id, row.alarm.key.name): row for row in rows}


@contextmanager
def opened(where: str, *clusters: Cluster | bool, control: bool = True) -> Iterator[App]:
    """Open a runtime for each of the settings, in one event loop."""
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal("trio"))
        runtimes = [
            DurableRuntime(where, objects=[Cart], cluster=each, control=control)
            for each in clusters
        ]
        for runtime in runtimes:
            stack.enter_context(portal.wrap_async_context_manager(runtime))
        if len(runtimes) > 1:
            eventually(lambda: all(n.shards for n in portal.call(runtimes[0].list_nodes)))
        app = App(where, portal, runtimes[0])
        if where == "app.db" and control:
            eventually(lambda: app.control_problem() is None)
        yield app


@pytest.fixture(params=["alone", "sqlite", "postgres"])
def where(request: pytest.FixtureRequest, folder: Path) -> str:
    """An empty storage."""
    fired.clear()
    broken.clear()
    held.clear()
    return request.getfixturevalue("database") if request.param == "postgres" else "app.db"


@pytest.fixture
def app(where: str, request: pytest.FixtureRequest) -> Iterator[App]:
    """The processes of an app; on PostgreSQL two members, so that some objects are in either."""
    kind = request.node.callspec.params["where"]
    clusters = {"alone": [False], "sqlite": [True], "postgres": [True, True]}
    with opened(where, *clusters[kind]) as app:
        yield app


def succeeds(*args: str, stdin: str | None = None) -> str:
    result = run(*args, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


IDS = [f"cart {n}" for n in range(8)]
"""In PostgreSQL each member has some of them, but for one time in a hundred."""


# --- objects -------------------------------------------------------------------------------------


def test_a_live_object_has_the_edited_state(app: App) -> None:
    for object_id in IDS:
        assert app.call(object_id, "add", 1) == 1
        edit = ("edit", "-s", app.where, "cli.open.Cart", object_id, "--set", "cents=5")
        assert succeeds(*edit) == "Saved as revision 2.\n"
        assert app.call(object_id, "read") == 5  # the first turn writes nothing
        assert app.objects()[object_id].revision == 2
        assert app.call(object_id, "add", 1) == 6
        assert app.objects()[object_id].revision == 3


def test_a_state_of_an_earlier_schema_is_upgraded_by_its_next_call(app: App) -> None:
    app.call("a", "add", 1)
    edit = ("edit", "-s", app.where, "cli.open.Cart", "a", "--input", "-", "--force")
    succeeds(*edit, stdin='{"total": 3, "loads": 0}')
    assert json.loads(app.objects()["a"].state) == {"total": 3, "loads": 0}
    assert app.call("a", "read") == 300
    assert app.call("a", "add", 1) == 301


def test_a_row_that_changed_meanwhile_is_kept(app: App) -> None:
    app.call("a", "add", 1)
    app.call("b", "add", 1)
    store = resolve_storage(app.where)
    before = app.objects()
    batch = [
        Commit(row.key, row.revision, b'{"cents":9,"$schema":2}', epoch=row.epoch)
        for row in (before["a"], before["b"])
    ]
    with open_owner(store) as owner:
        assert isinstance(owner, OtherRuntimes)
        app.call("a", "add", 1)
        assert list(owner.commit(batch, NOW)) == [0]
        assert [app.call(each, "read") for each in "ab"] == [2, 9]
        new = Commit(before["a"].key, 0, b'{"cents":9,"$schema":2}')
        assert list(owner.commit([new], NOW)) == [0]
    assert app.call("a", "read") == 2


def test_a_row_of_an_earlier_life_is_another_one(database: str) -> None:
    with opened(database, True) as app:
        app.call("a", "add", 1)
        row = app.objects()["a"]
        succeeds("rm", "-s", database, "cli.open.Cart", "a", "--yes")
        app.call("a", "add", 1)
        assert app.objects()["a"].revision == row.revision
        commit = Commit(row.key, row.revision, b'{"cents":9,"$schema":2}', epoch=row.epoch)
        with open_owner(resolve_storage(database)) as owner:
            assert list(owner.commit([commit], NOW)) == [0]


def test_rm_lets_a_live_object_start_over(app: App) -> None:
    for object_id in IDS:
        app.call(object_id, "add", 1)
        app.call(object_id, "wake_up", 86_400)
    rm = succeeds("rm", "-s", app.where, "cli.open.Cart", *IDS, "--yes")
    assert rm == "Removed 8 objects of 'cli.open.Cart' with 8 alarms.\n"
    assert (app.objects(), app.alarms()) == ({}, {})
    assert [app.call(object_id, "add", 1) for object_id in IDS] == [1] * 8


def test_states_are_upgraded(app: App) -> None:
    app.call("a", "add", 1)
    edit = ("edit", "-s", app.where, "cli.open.Cart", "a", "--input", "-", "--force")
    succeeds(*edit, stdin='{"total": 3, "loads": 0}')
    migrated = succeeds("migrate-states", "-s", app.where, "--app", f"{APP}:Cart")
    assert migrated == "cli.open.Cart: 1 state upgraded to schema 2, 0 had it already.\n"
    assert json.loads(app.objects()["a"].state)["cents"] == 300
    assert app.call("a", "read") == 300


# --- alarms --------------------------------------------------------------------------------------


def test_an_alarm_is_cancelled(app: App) -> None:
    app.call("a", "wake_up", 86_400)
    succeeds("alarms", "cancel", "-s", app.where, "cli.open.Cart", "a", "ring")
    assert app.alarms() == {}


def test_a_dead_letter_is_delivered_again(app: App) -> None:
    broken.update(IDS)
    for object_id in IDS:
        app.call(object_id, "wake_up", 0)
    eventually(lambda: [row.status for row in app.alarms().values()] == ["dead"] * 8)
    broken.clear()
    retry = ("alarms", "retry", "-s", app.where, "--all")
    assert succeeds(*retry) == "Made 8 dead letters due.\n"
    eventually(lambda: sorted(fired) == IDS and not app.alarms())


# --- messages ------------------------------------------------------------------------------------


def dead_of(app: App, tenant: str = "") -> dict[str, str]:
    """The ids of the dead letters, by receiver."""
    with closing(resolve_storage(app.where).open_reader()) as reader:
        found = reader.list_dead_messages(None, 0, 100, tenant)
    return {each.message.key.to.object_id: message_id(each.message.key.token) for each in found}


def bury(app: App, tenant: str = "") -> dict[str, str]:
    """Send each object a message that becomes a dead letter."""

    async def send(object_id: str) -> str:
        objects = app.runtime.tenant(tenant) if tenant else app.runtime
        return await objects.send(Cart.deposit, object_id, 5)

    broken.update(IDS)
    for object_id in IDS:
        app.portal.call(send, object_id)
    eventually(lambda: sorted(dead_of(app, tenant)) == IDS)
    broken.clear()
    return dead_of(app, tenant)


def has_arrived(app: App, *ids: str, tenant: str = "") -> bool:
    return all(app.call(object_id, "read", tenant=tenant) == 5 for object_id in ids)


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_dead_messages_are_retried_and_dropped_by_the_processes_with_their_objects(
    app: App, tenant: str
) -> None:
    of_tenant = ("-t", tenant) if tenant else ()
    dead = bury(app, tenant)
    first, second, third, *rest = IDS
    retry = ("messages", "retry", "-s", app.where, *of_tenant, dead[first], dead[second])
    assert succeeds(*retry) == "Made 2 dead letters wait again.\n"
    eventually(lambda: has_arrived(app, first, second, tenant=tenant))
    drop = ("messages", "drop", "-s", app.where, *of_tenant, dead[third])
    assert succeeds(*drop) == "Dropped 1 dead letter.\n"
    retry_all = ("messages", "retry-all", "-s", app.where, *of_tenant, "cli.open.Cart")
    assert succeeds(*retry_all) == "Made 5 dead letters wait again.\n"
    eventually(lambda: has_arrived(app, *rest, tenant=tenant))
    assert dead_of(app, tenant) == {}
    assert app.call(third, "read", tenant=tenant) == 0


def test_each_member_retries_and_drops_dead_messages_of_all_objects(app: App) -> None:
    dead = bury(app)
    retried, dropped = IDS[:6], IDS[6:]
    assert all(app.portal.call(app.runtime.drop_message, dead[each]) for each in dropped)
    assert all(app.portal.call(app.runtime.retry_message, dead[each]) for each in retried[:3])
    eventually(lambda: has_arrived(app, *retried[:3]))
    assert app.portal.call(app.runtime.retry_messages, Cart) == 3
    eventually(lambda: has_arrived(app, *retried))
    assert not any(app.portal.call(app.runtime.retry_message, dead[each]) for each in IDS)
    assert (dead_of(app), [app.call(each, "read") for each in dropped]) == ({}, [0, 0])


# --- tenants -------------------------------------------------------------------------------------


def test_a_tenant_is_dropped(app: App) -> None:
    for object_id in IDS:
        app.call(object_id, "add", 1, tenant="acme")
    drop = succeeds("tenants", "drop", "-s", app.where, "acme", "--yes")
    assert drop == "Dropped tenant acme with 8 objects and 0 alarms.\n"
    assert app.objects("acme") == {}
    assert [app.call(object_id, "add", 1, tenant="acme") for object_id in IDS] == [1] * 8


# --- imports -------------------------------------------------------------------------------------


def test_an_import_restores_objects_and_alarms(app: App, folder: Path) -> None:
    keys = [ObjectKey("cli.open.Cart", object_id) for object_id in IDS]
    with writer_of(folder / "old.db") as writer:
        for key in keys:
            alarms: Mapping[str, tuple[int, object]] = {
                "ring": (NOW - DAY, None),  # it would be delivered at once, had it not failed
                "later": (NOW + DAY, {"é": 1}),
                "soon": (NOW + DAY, [1]),
                "lost": (NOW - DAY, None),
            }
            save(writer, key, {"total": 3, "loads": 0}, alarms)
            fail(writer, key.alarm("ring"), NOW + DAY, 2, "ValueError: é")
            fail(writer, key.alarm("lost"), None, 5, "ValueError", 2)
    exported = succeeds("export", "-s", "old.db")
    imported = succeeds("import", "-s", app.where, stdin=exported)
    assert imported == "Imported 8 objects and 32 alarms.\n"
    assert _comparable(succeeds("export", "-s", app.where)) == _comparable(exported)
    assert [app.call(object_id, "read") for object_id in IDS] == [300] * 8
    assert fired == []
    refused = run("import", "-s", app.where, stdin=exported)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "is stored already; use --replace or --skip" in refused.stderr
    assert app.call(IDS[0], "add", 1) == 301
    succeeds("import", "-s", app.where, "--replace", stdin=exported)
    assert app.call(IDS[0], "read") == 300


def test_alarms_of_other_programs_are_imported_byte_for_byte(app: App, folder: Path) -> None:
    key = ObjectKey("cli.open.Cart", "a")
    with writer_of(folder / "old.db") as writer:
        save(writer, key, {"total": 3, "loads": 0}, {"ring": (NOW + DAY, '{"é":  1}'.encode())})
    exported = succeeds("export", "-s", "old.db")
    succeeds("import", "-s", app.where, stdin=exported)
    assert app.alarms()["a", "ring"].alarm.payload == '{"é":  1}'.encode()


def test_an_imported_alarm_takes_the_place_of_one_that_is_being_handled(app: App) -> None:
    """The end of the turn that handles the former one doesn't remove it."""
    app.call("a", "wake_up", 86_400)
    exported = succeeds("export", "-s", app.where).replace('"failures":0', '"failures":1')
    began, end = held["a"] = threading.Event(), threading.Event()
    app.call("a", "wake_up", 0)
    assert began.wait(20)
    # Without the object, for whose turn this would wait.
    exported = re.sub('^.*"kind":"object".*\n', "", exported, flags=re.MULTILINE)
    exported = exported.replace('"objects":1', '"objects":0')
    succeeds("import", "-s", app.where, "--replace", stdin=exported)
    end.set()
    app.call("a", "read")
    assert app.alarms()["a", "ring"].alarm.failures == 1


def _comparable(exported: str) -> list[dict[str, Any]]:
    """The lines of an export, without the times of changes, which are those of the runtimes."""
    lines = [json.loads(line) for line in exported.splitlines()]
    return [{**line, "updated_at": None} for line in lines]


# --- refusals ------------------------------------------------------------------------------------


def refused(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_a_type_that_the_runtimes_do_not_know_is_refused(where: str) -> None:
    with open_owner(resolve_storage(where)) as owner:
        assert isinstance(owner, OwnWriter)
        key = ObjectKey("cli.open.Other", "a")
        assert not owner.commit([Commit(key, 0, b"{}", epoch=1)], NOW)
    with opened(where, True):
        error = refused(run("rm", "-s", where, "cli.open.Other", "a", "--yes"))
    assert "no durable object class is known as 'cli.open.Other' (known: cli.open.Cart)" in error
    succeeds("rm", "-s", where, "cli.open.Other", "a", "--yes")


@pytest.mark.parametrize("command", [("rm", "--yes"), ("edit", "--set", "cents=1")])
def test_a_runtime_without_control_keeps_commands_out(where: str, command: tuple[str, ...]) -> None:
    name, *options = command
    with opened(where, False, control=False) as app:
        app.call("a", "add", 3)
        assert app.control_problem() is not None
        # A note that a killed process of a cluster has left.
        note = {"node": "x", "host": "x", "pid": 1, "address": "unix:///x", "secret": ""}
        Path("app.db-node").write_text(json.dumps(note))
        error = refused(run(name, "-s", where, "cli.open.Cart", "a", *options))
        assert "is in use by a runtime of this process" in error
        assert app.call("a", "read") == 3
    Path("app.db-node").unlink()


def test_one_of_several_groups_has_to_be_named(database: str) -> None:
    with opened(database, Cluster(group="blue")) as blue, opened(database, Cluster(group="red")):
        blue.call("a", "add", 3)
        blue.call("a", "wake_up", 86_400)
        edit = ("edit", "-s", database, "cli.open.Cart", "a", "--set", "cents=5")
        error = refused(run(*edit))
        assert "several groups are open, blue, red; name the one" in error
        error = refused(run(*edit, env={"TRIO_DURABLE_GROUP": "green"}))
        assert "no process of TRIO_DURABLE_GROUP=green is open, but of blue, red" in error
        assert run(*edit, env={"TRIO_DURABLE_GROUP": "blue"}).exit_code == 0
        assert blue.call("a", "read") == 5


def test_certificates_come_whole(database: str) -> None:
    rm = ("rm", "-s", database, "cli.open.Cart", "a", "--yes")
    with opened(database, True) as app:
        app.call("a", "add", 3)
        error = refused(run(*rm, env={"TRIO_DURABLE_TLS_KEY": "key.pem"}))
        assert "TLS needs all of --tls-certificate" in error
    assert run(*rm).exit_code == 0  # nothing is open any more


def test_certificates_come_from_the_environment(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = {"certificate": "cert.pem", "key": "key.pem", "authority": "ca.pem"}
    for name, value in tls.items():
        monkeypatch.setenv(f"TRIO_DURABLE_TLS_{name.upper()}", value)
    with opened(database, True):
        assert cluster_of(resolve_storage(database), None) == Command(tls=ClusterTLS(**tls))
