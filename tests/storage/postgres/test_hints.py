"""Hints of alarms between processes on a PostgreSQL database. Real servers, so no virtual time."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import anyio
import psycopg
import pytest
from support.postgres import Server, running, wait_until
from support.proxy import Proxy

from trio_durable import DurableObject, DurableRuntime, PostgresStorage, alarm, handler
from trio_durable.storage import Hints

HOUR = 3600
PATIENCE = 20
LIBRARY = "FROM pg_stat_activity WHERE application_name LIKE 'trio_durable%'"
fired: list[str] = []


class Page(DurableObject):
    views: int = 0

    @handler
    def view(self) -> int:
        self.views += 1
        return self.views


class Export(DurableObject):
    runs: int = 0

    @alarm
    def run(self) -> None:
        fired.append(self.ctx.object_id)
        self.runs += 1


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    with running(log_statement="all", log_line_prefix="%p|", max_notify_queue_pages=64) as server:
        yield server


@pytest.fixture
def server(own_server: Server) -> Iterator[Server]:
    """A server with nothing in it, whatever was done to it before."""
    own_server.execute("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    (own_server.folder / "log").write_text("")
    fired.clear()
    yield own_server
    if not own_server.is_running:
        own_server.start()


class Ear:
    """Hears hints, and notes them."""

    def __init__(self, conninfo: str, **options: Any) -> None:
        self.heard: list[int] = []
        hints = PostgresStorage(conninfo, **options).open_hints(self.heard.append)
        assert hints is not None
        self.hints: Hints = hints

    def connects(self) -> None:
        """Return when it is connected, maybe again, and forget what was heard until then."""
        wait_until(lambda: 0 in self.heard)
        self.heard.clear()

    def hears(self, *hints: int) -> None:
        """Return when it has heard exactly that."""
        wait_until(lambda: len(self.heard) >= len(hints))
        assert self.heard == list(hints)
        self.heard.clear()

    def close(self) -> None:
        self.hints.close()


@pytest.fixture
def ear() -> Iterator[Callable[..., Ear]]:
    with ExitStack() as stack:

        def make(conninfo: str, **options: Any) -> Ear:
            made = stack.enter_context(closing(Ear(conninfo, **options)))
            made.connects()
            return made

        yield make


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "trio_durable hints"]


# --- sent and heard ------------------------------------------------------------------------------


def test_the_others_hear_what_one_sends_and_it_does_not(
    server: Server, ear: Callable[..., Ear]
) -> None:
    one, other, third = (ear(server.conninfo()) for _ in range(3))
    one.hints.send(17)
    other.hears(17)
    third.hears(17)
    other.hints.send(4)
    one.hears(4)


def test_what_is_sent_within_a_moment_is_one_hint_of_the_earliest(
    server: Server, ear: Callable[..., Ear]
) -> None:
    one, other = ear(server.conninfo()), ear(server.conninfo())
    for _ in range(3):
        for at in range(1000, 0, -1):
            one.hints.send(at)
        wait_until(lambda: 1 in other.heard)
        # The first that comes goes at once; the others are still too many for that.
        assert other.heard[-1] == 1
        assert len(other.heard) <= 3
        other.heard.clear()


def test_what_belongs_to_other_tables_is_not_heard(server: Server, ear: Callable[..., Ear]) -> None:
    server.execute("CREATE SCHEMA IF NOT EXISTS elsewhere", 'CREATE SCHEMA IF NOT EXISTS "o.d""d"')
    one, same = ear(server.conninfo()), ear(server.conninfo())
    elsewhere = {
        name: ear(server.conninfo(options=f"-csearch_path={name}"))
        for name in ("elsewhere", '"o.d""d"')
    }
    for odd in elsewhere.values():
        odd.hints.send(1)
    one.hints.send(2)
    same.hears(2)
    for odd in elsewhere.values():
        assert odd.heard == []


def test_a_schema_with_a_very_long_name_has_hints(server: Server, ear: Callable[..., Ear]) -> None:
    name = "ä" * 31
    server.execute(f'CREATE SCHEMA IF NOT EXISTS "{name}"')
    one, other = (ear(server.conninfo(options=f"-csearch_path={name}")) for _ in range(2))
    one.hints.send(3)
    other.hears(3)


def test_what_strangers_send_is_ignored(server: Server, ear: Callable[..., Ear]) -> None:
    one, other = ear(server.conninfo()), ear(server.conninfo())
    for payload in ("", "soon", "1.5", "\N{SNOWMAN}"):
        server.execute(f"""NOTIFY "durable_alarms public", '{payload}'""")
    one.hints.send(3)
    other.hears(3)


def test_hints_can_be_left_out(server: Server) -> None:
    assert PostgresStorage(server.conninfo(), hints=False).open_hints(print) is None


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_hints_go_on_after_a_restart(
    server: Server, ear: Callable[..., Ear], how: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = ear(server.conninfo()), ear(server.conninfo())
    server.stop(how)
    one.hints.send(9)  # kept until there is somebody to tell
    server.start()
    wait_until(lambda: 0 in one.heard and 0 in other.heard)
    one.hints.send(5)
    wait_until(lambda: 5 in other.heard)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_connection_that_is_cut_is_made_anew(proxy: Proxy, ear: Callable[..., Ear]) -> None:
    one, other = ear(proxy.url()), ear(proxy.url())
    proxy.cut()
    for each in (one, other):
        each.connects()
    one.hints.send(5)
    other.hears(5)


def test_attempts_to_connect_become_rarer(
    proxy: Proxy, ear: Callable[..., Ear], server: Server
) -> None:
    one = ear(proxy.url())
    proxy.refuse()
    proxy.cut()
    before = proxy.connections
    threading.Event().wait(0.5)
    # Without pauses there would be hundreds.
    assert 1 <= proxy.connections - before <= 8
    proxy.refuse(False)
    one.connects()


def test_a_hint_that_the_server_does_not_take_is_dropped(
    server: Server, ear: Callable[..., Ear]
) -> None:
    one, other = ear(server.conninfo()), ear(server.conninfo())
    with full_queue(server):
        one.hints.send(1)
        wait_until(lambda: one.hints._to_send is None)  # type: ignore[attr-defined]
    connections = server.execute(f"SELECT pid {LIBRARY} ORDER BY pid")
    one.hints.send(2)
    other.hears(2)
    assert server.execute(f"SELECT pid {LIBRARY} ORDER BY pid") == connections


def fill(connection: psycopg.Connection[Any]) -> None:
    """Send until it fails."""
    for number in range(1000):
        connection.execute("SELECT pg_notify('nothing', %s)", (f"{number:07900}",))


class full_queue:  # noqa: N801 - a context manager
    """Leaves the server no room for notifications: somebody listens and doesn't take them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        if server.execute("SHOW server_version_num") < [("170000",)]:
            pytest.skip("the queue's size can't be set")

    def __enter__(self) -> None:
        self._holder = psycopg.connect(self._server.conninfo())
        self._holder.execute("LISTEN nothing")
        self._holder.commit()
        self._holder.execute("SELECT 1")
        with psycopg.connect(self._server.conninfo(), autocommit=True) as filler:
            filler.execute("LISTEN nothing")
            with pytest.raises(psycopg.OperationalError, match="too many notifications"):
                fill(filler)

    def __exit__(self, *_: object) -> None:
        self._holder.close()
        # Which also lets the server look how much of it is still of use to anybody.
        usage = "SELECT pg_notification_queue_usage() < 0.5"
        wait_until(lambda: self._server.execute(usage) == [(True,)])


def as_a_pooler(data: bytes) -> bytes:
    """The server's greeting with a process id that isn't the server's, as poolers make it."""
    greeting = rb"(K\0\0\0\x0c)...."
    return re.sub(greeting, lambda found: found[1] + b"\0\1\2\3", data, flags=re.DOTALL)


def test_through_a_pooler_hints_are_sent_and_not_heard(
    server: Server, proxy: Proxy, ear: Callable[..., Ear], caplog: pytest.LogCaptureFixture
) -> None:
    direct = ear(server.conninfo())
    proxy.alter = as_a_pooler
    with closing(Ear(proxy.url())) as pooled:
        pooled.hints.send(1)
        direct.hears(1)
        proxy.cut()
        wait_until(lambda: proxy.connections == 2)
        pooled.hints.send(2)
        direct.hears(2)
        direct.hints.send(3)
    assert pooled.heard == []
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "found at the polling interval" in warning.getMessage()
    assert (server.folder / "log").read_text().count("LISTEN") == 1  # the direct one


# --- closing -------------------------------------------------------------------------------------


def test_closing_sends_what_waits_and_leaves_nothing_behind(
    server: Server, ear: Callable[..., Ear]
) -> None:
    other = ear(server.conninfo())
    for at in (7, 6):
        # One that isn't connected yet, too.
        one = Ear(server.conninfo())
        one.hints.send(at)
        one.close()
        other.hears(at)
    assert len(threads()) == 1
    wait_until(lambda: server.execute(f"SELECT count(*) {LIBRARY}") == [(1,)])
    one.hints.send(1)
    one.close()


def test_closing_does_not_wait_for_a_network_that_is_silent(
    proxy: Proxy, ear: Callable[..., Ear]
) -> None:
    one = ear(proxy.url())
    proxy.freeze()
    one.hints.send(1)
    one.close()
    proxy.cut()
    proxy.thaw()
    wait_until(lambda: not threads())


def test_closing_does_not_wait_for_a_server_that_is_away(
    server: Server, ear: Callable[..., Ear]
) -> None:
    one = ear(server.conninfo())
    server.stop()
    one.hints.send(1)
    one.close()
    wait_until(lambda: not threads())


def test_closing_does_not_wait_for_a_server_that_says_nothing(proxy: Proxy) -> None:
    proxy.freeze()
    one = Ear(proxy.url(), connect_timeout=1)
    one.hints.send(1)
    one.close()
    proxy.cut()
    proxy.thaw()
    wait_until(lambda: not threads())


# --- between runtimes ----------------------------------------------------------------------------


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, {} if request.param == "trio" else {
        "loop_factory": asyncio.new_event_loop
    }


def serving(conninfo: str, *objects: type[DurableObject], **options: Any) -> DurableRuntime:
    """A runtime that finds nothing by polling before the test is over."""
    given = {"polling_interval": HOUR, "grace_period": 0, **options}
    return DurableRuntime(PostgresStorage(conninfo), objects=objects, **given)


async def holds(condition: Callable[[], object]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.005)


async def listening(server: Server, count: int) -> None:
    """Return when so many runtimes listen, and have looked for what they missed."""
    await holds(
        lambda: server.execute(f"SELECT count(*) {LIBRARY} AND query LIKE 'LISTEN%'") == [(count,)]
    )
    await anyio.sleep(0.3)


@pytest.mark.anyio
async def test_an_alarm_that_its_setter_does_not_serve_fires_when_it_is_due(
    server: Server,
) -> None:
    async with serving(server.conninfo(), Page) as web, serving(server.conninfo(), Export):
        await listening(server, 2)
        for object_id, after in (("now", 0.0), ("soon", 0.4)):
            await web.schedule_alarm(Export, object_id, "run", after=after)
            await holds(partial(fired.__contains__, object_id))
        assert await web.get(Page, "p").view() == 1


@pytest.mark.anyio
async def test_what_a_runtime_leaves_when_it_closes_is_delivered_by_another(
    server: Server,
) -> None:
    async with serving(server.conninfo(), Export):
        async with serving(server.conninfo(), Export) as other:
            await listening(server, 2)
            await other.schedule_alarm(Export, "left", "run", after=0.5)
        assert fired == []
        await holds(lambda: fired == ["left"])


@pytest.mark.anyio
async def test_what_was_set_while_nobody_could_be_told_is_found_after_a_restart(
    server: Server,
) -> None:
    async with serving(server.conninfo(), Page) as web, serving(server.conninfo(), Export):
        await listening(server, 2)
        await anyio.to_thread.run_sync(server.stop)
        await anyio.to_thread.run_sync(server.start)
        await web.schedule_alarm(Export, "e", "run", after=0)
        await holds(lambda: fired == ["e"])


@pytest.mark.anyio
async def test_commits_go_on_while_hints_fail(server: Server) -> None:
    async with serving(server.conninfo(), Page) as web, serving(server.conninfo(), Export):
        await listening(server, 2)
        with await anyio.to_thread.run_sync(full_queue, server):
            await web.schedule_alarm(Export, "unheard", "run", after=0)
            assert await web.get(Page, "p").view() == 1
            await anyio.sleep(0.3)
            assert fired == []
        await web.schedule_alarm(Export, "heard", "run", after=0)
        await holds(lambda: sorted(fired) == ["heard", "unheard"])


@pytest.mark.anyio
async def test_no_hint_is_part_of_a_transaction_that_writes(server: Server) -> None:
    async with serving(server.conninfo(), Page) as web, serving(server.conninfo(), Export):
        await listening(server, 2)
        for number in range(20):
            await web.schedule_alarm(Export, str(number), "run", after=0)
            await web.get(Page, str(number)).view()
        await holds(lambda: len(fired) == 20)
    statements = re.findall(
        r"^(\d+)\|LOG:  (?:statement|execute [^:]*): (.*(?:\n\t.*)*)$",
        (server.folder / "log").read_text(),
        re.MULTILINE,
    )
    senders = {pid for pid, text in statements if "pg_notify" in text}
    said = [text for pid, text in statements if pid in senders]
    assert len(senders) == 2
    assert {text.split()[0] for text in said} <= {"SELECT", "LISTEN"}
    # One for each alarm would be 20 at least, and 2 are of the ends.
    assert sum("pg_notify" in text for text in said) < 20


@pytest.mark.anyio
async def test_what_a_runtime_delivers_itself_is_nobody_elses_business(server: Server) -> None:
    async with serving(server.conninfo(), Export) as runtime:
        await listening(server, 1)
        for number in range(5):
            await runtime.schedule_alarm(Export, str(number), "run", after=0)
        await holds(lambda: len(fired) == 5)
        assert "pg_notify" not in (server.folder / "log").read_text()
    assert "pg_notify" in (server.folder / "log").read_text()
