"""Server-sent events: the latest durable state, to authorized clients, and nothing else."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.lowlevel
import orjson
import pytest
from support.clock import settle
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import Outcome, calls
from watching.rooms import Room

from trio_durable import DurableObject, DurableRuntime, Snapshot, UsageError
from trio_durable.storage import StorageFault
from trio_durable.web import EventStream, sse
from trio_durable.web import _event_stream as module

from .clients import Browser, Request, watched

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage() -> ScriptedStorage:
    return ScriptedStorage()


@pytest.fixture(autouse=True)
def no_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams live for their whole ``max_age``."""
    monkeypatch.setattr(module, "_random", lambda: 1.0)


def public(room: Snapshot[Room]) -> dict[str, object]:
    return {"lines": room.state.lines}


def length(room: Snapshot[Room]) -> int:
    return len(room.state.lines)


def data(*lines: str) -> str:
    return orjson.dumps({"lines": lines}).decode()


@asynccontextmanager
async def streaming(
    stream: EventStream, browser: Browser | None = None
) -> AsyncIterator[tuple[Browser, Outcome[None]]]:
    browser = browser or Browser()
    async with calls() as started:
        outcome = started.start(browser.open, stream)
        await settle()
        yield browser, outcome
        browser.leave()
        await outcome.wait()


def lobby(
    runtime: DurableRuntime, last_event_id: str | None = None, object_id: str = "lobby"
) -> EventStream:
    request = Request(last_event_id=last_event_id)
    return sse(request, runtime.watch(Room, object_id), view=public)


# --- states --------------------------------------------------------------------------------------


async def test_a_client_gets_the_state_and_then_each_change(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, streaming(lobby(runtime)) as (browser, _):
        assert browser.status == 200
        assert browser.headers == {
            "content-type": "text/event-stream",
            "cache-control": "no-store",
            "x-accel-buffering": "no",
        }
        await browser.wait_for(1)
        await runtime.get(Room, "lobby").say("hello")
        await browser.wait_for(2)
        assert browser.shown == [("message", data()), ("message", data("hello"))]


async def test_nothing_is_shown_before_it_is_durable(storage: ScriptedStorage) -> None:
    async with (
        scripted_runtime(storage) as runtime,
        streaming(lobby(runtime)) as (browser, _),
        calls() as started,
    ):
        await browser.wait_for(1)
        with storage.held("writer"):
            said = started.start(runtime.get(Room, "lobby").say, "hello")
            await settle()
            assert len(browser.events) == 1
        await said.wait()
        await browser.wait_for(2)


async def test_an_equal_view_sends_nothing(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Room, "lobby").say("hello")
        stream = sse(Request(), runtime.watch(Room, "lobby"), view=length)
        async with streaming(stream) as (browser, _):
            await browser.wait_for(1)
            await runtime.put_state(Room, "lobby", Room(lines=["other"]))
            await settle()
            assert browser.shown == [("message", "1")]


async def test_a_str_is_sent_as_it_is(storage: ScriptedStorage) -> None:
    def html(room: Snapshot[Room]) -> str:
        return "\n".join(f"<li>{line}" for line in room.state.lines)

    async with scripted_runtime(storage) as runtime:
        for line in ("a", "b\r", "c"):
            await runtime.get(Room, "lobby").say(line)
        stream = sse(Request(), runtime.watch(Room, "lobby"), view=html)
        async with streaming(stream) as (browser, _):
            assert browser.shown == [("message", "<li>a\n<li>b\n<li>c")]


async def test_a_slow_client_gets_fewer_states(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, streaming(lobby(runtime)) as (browser, _):
        await browser.wait_for(1)
        browser.stop_reading()
        for number in range(100):
            await runtime.get(Room, "lobby").say(str(number))
            await settle()
        browser.read_on()
        await settle()
        lines = [orjson.loads(text)["lines"] for _, text in browser.shown]
        assert len(lines) == 3  # one was on its way
        assert lines[-1] == [str(number) for number in range(100)]


# --- deletion ------------------------------------------------------------------------------------


async def test_a_deletion_is_an_event_and_the_stream_goes_on(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        room = runtime.get(Room, "lobby")
        await room.say("old")
        async with streaming(lobby(runtime)) as (browser, _):
            await browser.wait_for(1)
            await room.clear()
            await browser.wait_for(2)
            await room.say("new")
            await browser.wait_for(3)
            assert [name for name, _ in browser.shown] == ["message", "gone", "message"]
            assert browser.shown[-1] == ("message", data("new"))


async def test_a_deletion_is_an_event_though_the_view_is_equal(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        await runtime.put_state(Room, "lobby", Room())
        async with streaming(lobby(runtime)) as (browser, _):
            await browser.wait_for(1)
            await runtime.get(Room, "lobby").clear()
            await browser.wait_for(2)
            assert browser.shown == [("message", data()), ("gone", data())]
            await runtime.put_state(Room, "lobby", Room())
            await browser.wait_for(3)
            assert browser.shown[-1] == ("message", data())


# --- reconnecting --------------------------------------------------------------------------------


async def test_a_client_that_reconnects_with_the_state_gets_nothing(
    storage: ScriptedStorage,
) -> None:
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Room, "lobby").say("hello")
        async with streaming(lobby(runtime)) as (browser, _):
            [event] = await browser.wait_for(1)
        async with streaming(lobby(runtime, event.id)) as (browser, _):
            assert (browser.status, browser.events) == (200, [])
            await runtime.get(Room, "lobby").say("again")
            await browser.wait_for(1)
            assert browser.shown == [("message", data("hello", "again"))]


async def test_an_older_state_is_replaced(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Room, "lobby").say("hello")
        async with streaming(lobby(runtime)) as (browser, _):
            [event] = await browser.wait_for(1)
        await runtime.get(Room, "lobby").say("again")
        async with streaming(lobby(runtime, event.id)) as (browser, _):
            assert browser.shown == [("message", data("hello", "again"))]


async def test_another_state_with_the_same_revision_is_sent(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        room = runtime.get(Room, "lobby")
        await room.say("old")
        async with streaming(lobby(runtime)) as (browser, _):
            [event] = await browser.wait_for(1)
        await room.clear()
        await room.say("new")
        async with streaming(lobby(runtime, event.id)) as (browser, _):
            assert browser.shown == [("message", data("new"))]
            assert browser.events[0].id.partition("-")[0] == event.id.partition("-")[0]


async def test_a_deletion_while_a_client_was_away_is_an_event(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Room, "lobby").say("hello")
        async with streaming(lobby(runtime)) as (browser, _):
            [event] = await browser.wait_for(1)
        await runtime.get(Room, "lobby").clear()
        async with streaming(lobby(runtime, event.id)) as (browser, _):
            assert browser.shown == [("gone", data())]
            [event] = browser.events
        async with streaming(lobby(runtime, event.id)) as (browser, _):
            assert browser.events == []


@pytest.mark.parametrize(
    "sent", ["", "x", "1", "-", "1-", "²-", "9" * 30 + "-", ",", "1-0,1-0", "é", "0-0\t"]
)
async def test_an_id_that_is_none_gets_the_state(storage: ScriptedStorage, sent: str) -> None:
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Room, "lobby").say("hello")
        async with streaming(lobby(runtime, sent)) as (browser, _):
            assert browser.shown == [("message", data("hello"))]


async def test_clients_do_not_come_back_all_at_once(
    storage: ScriptedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted_runtime(storage) as runtime:
        retries = set()
        for number in (0.0, 0.25, 1.0):
            monkeypatch.setattr(module, "_random", lambda number=number: number)
            async with streaming(lobby(runtime)) as (browser, _):
                retries.add(browser.text.partition("\n")[0])
        assert retries == {"retry: 1500", "retry: 2250", "retry: 4500"}


# --- several objects -----------------------------------------------------------------------------


def named(room: Snapshot[DurableObject]) -> list[object]:
    state = room.state
    assert isinstance(state, Room)
    return [room.key.object_id, *state.lines]


def two(runtime: DurableRuntime, last_event_id: str | None = None) -> EventStream:
    watch = runtime.watch_many([(Room, "a"), (Room, "b")])
    return sse(Request(last_event_id=last_event_id), watch, view=named)


async def test_one_stream_has_several_objects(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        async with streaming(two(runtime)) as (browser, _):
            await browser.wait_for(2)
            await runtime.get(Room, "b").say("hello")
            events = await browser.wait_for(3)
            assert browser.shown == [
                ("message", '["a"]'),
                ("message", '["b"]'),
                ("message", '["b","hello"]'),
            ]
        await runtime.get(Room, "a").say("again")
        async with streaming(two(runtime, events[-1].id)) as (browser, _):
            assert browser.shown == [("message", '["a","again"]')]
        async with streaming(two(runtime, events[0].id)) as (browser, _):
            assert len(browser.events) == 2


async def test_the_state_of_one_object_is_not_taken_for_that_of_another(
    storage: ScriptedStorage,
) -> None:
    async with scripted_runtime(storage) as runtime:
        async with streaming(lobby(runtime)) as (browser, _):
            [event] = await browser.wait_for(1)
        async with streaming(lobby(runtime, event.id, "kitchen")) as (browser, _):
            assert browser.shown == [("message", data())]


# --- the view ------------------------------------------------------------------------------------


async def test_a_view_runs_once_for_all_clients(storage: ScriptedStorage) -> None:
    seen: list[int] = []

    def counted(room: Snapshot[Room]) -> dict[str, object]:
        seen.append(room.revision)
        return public(room)

    async with scripted_runtime(storage) as runtime, calls() as started:
        browsers = [Browser() for _ in range(20)]
        for browser in browsers:
            stream = sse(Request(), runtime.watch(Room, "lobby"), view=counted)
            started.start(browser.open, stream)
        await settle()
        await runtime.get(Room, "lobby").say("hello")
        for browser in browsers:
            await browser.wait_for(2)
            browser.leave()
        assert seen == [0, 1]


async def test_views_of_different_users_are_not_shared(storage: ScriptedStorage) -> None:
    def greeting(user: str, room: Snapshot[Room]) -> str:
        return f"{user}: {len(room.state.lines)}"

    async with scripted_runtime(storage) as runtime, calls() as started:
        browsers = {user: Browser() for user in ("ada", "bob")}
        for user, browser in browsers.items():
            view = partial(greeting, user)
            started.start(browser.open, sse(Request(), runtime.watch(Room, "lobby"), view=view))
        for user, browser in browsers.items():
            await browser.wait_for(1)
            assert browser.shown == [("message", f"{user}: 0")]
            browser.leave()


async def test_nothing_is_kept_of_states_that_no_stream_shows(storage: ScriptedStorage) -> None:
    from trio_durable.web import _renderings

    async with scripted_runtime(storage) as runtime:
        async with streaming(lobby(runtime)) as (browser, _):
            for number in range(10):
                await browser.wait_for(number + 1)
                await runtime.get(Room, "lobby").say(str(number))
            await settle()
            gc.collect()
            assert len(_renderings._renderings) == 1
        del browser
        gc.collect()
        assert len(_renderings._renderings) == 0


async def test_a_failing_view_does_not_reach_the_client(
    storage: ScriptedStorage, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(room: Snapshot[Room]) -> dict[str, object]:
        if room.revision == 1:
            raise ValueError("the password is 1234")
        return public(room)

    async with scripted_runtime(storage) as runtime, calls() as started:
        browsers = [Browser() for _ in range(3)]
        for browser in browsers:
            stream = sse(Request(), runtime.watch(Room, "lobby"), view=failing)
            started.start(browser.open, stream)
        await settle()
        await runtime.get(Room, "lobby").say("hello")
        await settle()
        await runtime.get(Room, "lobby").say("again")
        for browser in browsers:
            await browser.wait_for(3)
            assert browser.shown == [
                ("message", data()),
                ("unavailable", "{}"),
                ("message", data("hello", "again")),
            ]
            assert "1234" not in browser.text
            browser.leave()
        assert len(caplog.records) == 1
        assert "1234" in caplog.text


@pytest.mark.parametrize("shown", [object(), "\udcff", {"\udcff": 1}, 2**70])
async def test_a_view_of_no_json_does_not_reach_the_client(
    storage: ScriptedStorage, shown: object
) -> None:
    async with scripted_runtime(storage) as runtime:
        stream = sse(Request(), runtime.watch(Room, "lobby"), view=lambda _room: shown)
        async with streaming(stream) as (browser, _):
            assert browser.shown == [("unavailable", "{}")]


async def test_a_state_that_can_not_be_decoded_does_not_reach_the_client(
    storage: ScriptedStorage,
) -> None:
    storage.overwrite("Room", "lobby", b'{"lines":"secret"}')
    async with scripted_runtime(storage) as runtime, streaming(lobby(runtime)) as (browser, _):
        [event] = await browser.wait_for(1)
        assert browser.shown == [("unavailable", "{}")]
        assert "secret" not in browser.text
        await runtime.put_state(Room, "lobby", Room(lines=["repaired"]))
        await browser.wait_for(2)
        assert browser.shown[-1] == ("message", data("repaired"))
    async with (
        scripted_runtime(storage) as runtime,
        streaming(lobby(runtime, event.id)) as (browser, _),
    ):
        assert browser.shown == [("message", data("repaired"))]


async def test_the_same_state_is_sent_again_after_it_was_unavailable(
    storage: ScriptedStorage,
) -> None:
    def failing(_room: Snapshot[Room]) -> object:
        raise ValueError

    async with scripted_runtime(storage) as runtime:
        await runtime.get(Room, "lobby").say("hello")
        async with streaming(lobby(runtime)) as (browser, _):
            [shown] = await browser.wait_for(1)
        stream = sse(Request(last_event_id=shown.id), runtime.watch(Room, "lobby"), view=failing)
        async with streaming(stream) as (browser, _):
            [failed] = await browser.wait_for(1)
        async with streaming(lobby(runtime, failed.id)) as (browser, _):
            assert browser.shown == [("message", data("hello"))]


async def test_a_coroutine_function_is_no_view(storage: ScriptedStorage) -> None:
    async def view(_room: Snapshot[Room]) -> str:
        return ""

    async with scripted_runtime(storage) as runtime:
        with pytest.raises(TypeError, match="coroutine function"):
            sse(Request(), runtime.watch(Room, "lobby"), view=view)


# --- storage -------------------------------------------------------------------------------------


async def test_a_storage_that_can_not_be_read_does_not_end_the_stream(
    storage: ScriptedStorage, caplog: pytest.LogCaptureFixture
) -> None:
    async with scripted_runtime(storage) as runtime:
        storage.fail_loads(StorageFault("/var/secret is gone"))
        async with streaming(lobby(runtime)) as (browser, _):
            await browser.wait_for(2)
            assert browser.shown == [("unavailable", "{}"), ("message", data())]
        assert "secret" in caplog.text
        assert "secret" not in browser.text


# --- authorization -------------------------------------------------------------------------------


async def test_a_client_that_is_not_authorized_gets_401(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        stream = sse(
            Request("eve"),
            runtime.watch(Room, "lobby"),
            view=public,
            authorize=lambda request: request.user == "ada",
        )
        async with streaming(stream) as (browser, outcome):
            assert (browser.status, browser.text) == (401, "")
            assert browser.headers == {"cache-control": "no-store"}
            assert outcome.done
            assert watched(runtime) == 0


async def test_a_client_that_reconnects_without_authorization_gets_204(
    storage: ScriptedStorage,
) -> None:
    async with scripted_runtime(storage) as runtime:
        stream = sse(
            Request("eve", last_event_id="1-0"),
            runtime.watch(Room, "lobby"),
            view=public,
            authorize=lambda _request: False,
        )
        async with streaming(stream) as (browser, _):
            assert (browser.status, browser.text) == (204, "")


@pytest.mark.parametrize("busy", [False, True])
async def test_a_client_is_authorized_again_and_again(storage: ScriptedStorage, busy: bool) -> None:
    members = {"ada"}
    asked = 0

    async def is_member(request: Request) -> bool:
        nonlocal asked
        asked += 1
        await anyio.lowlevel.checkpoint()
        return request.user in members

    async with scripted_runtime(storage) as runtime:
        stream = sse(
            Request(), runtime.watch(Room, "lobby"), view=public, authorize=is_member, keep_alive=15
        )
        async with streaming(stream) as (browser, outcome):
            await browser.wait_for(1)
            for _ in range(100):
                await anyio.sleep(1)
                if busy:
                    await runtime.get(Room, "lobby").say("hello")
            await settle()
            assert 6 <= asked <= 8
            assert not outcome.done
            members.clear()
            for _ in range(15):
                await anyio.sleep(1)
                if busy:
                    await runtime.get(Room, "lobby").say("secret")
            await settle()
            count = len(browser.events)
            await anyio.sleep(1)
            await runtime.get(Room, "lobby").say("later")
            await settle()
            assert outcome.done
            assert browser.has_ended
            assert len(browser.events) == count
            assert watched(runtime) == 0


@pytest.mark.parametrize("answer", [None, 1, "yes", object()])
async def test_only_true_authorizes(storage: ScriptedStorage, answer: object) -> None:
    def authorize(_request: Request) -> bool:
        return answer  # type: ignore[return-value]

    async with scripted_runtime(storage) as runtime, calls() as started:
        browser = Browser()
        stream = sse(Request(), runtime.watch(Room, "lobby"), view=public, authorize=authorize)
        outcome = started.start(browser.open, stream)
        await outcome.wait()
        assert isinstance(outcome.error, TypeError)
        assert browser.status is None


# --- the end -------------------------------------------------------------------------------------


async def test_an_idle_stream_is_kept_alive(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, streaming(lobby(runtime)) as (browser, _):
        await browser.wait_for(1)
        await anyio.sleep(100)
        await settle()
        assert browser.comments == 6
        assert len(browser.events) == 1


async def test_a_stream_ends_at_its_age(storage: ScriptedStorage) -> None:
    async with (
        scripted_runtime(storage) as runtime,
        streaming(lobby(runtime)) as (browser, outcome),
    ):
        await anyio.sleep(599)
        await settle()
        assert not outcome.done
        await anyio.sleep(2)
        await settle()
        assert outcome.done
        assert browser.has_ended
        assert watched(runtime) == 0


async def test_a_client_that_leaves_ends_its_watch(storage: ScriptedStorage) -> None:
    async with (
        scripted_runtime(storage) as runtime,
        streaming(lobby(runtime)) as (browser, outcome),
    ):
        assert watched(runtime) == 1
        browser.leave()
        await settle()
        assert outcome.done
        assert outcome.error is None
        assert watched(runtime) == 0


async def test_a_client_that_leaves_while_it_reads_slowly_ends_its_watch(
    storage: ScriptedStorage,
) -> None:
    async with (
        scripted_runtime(storage) as runtime,
        streaming(lobby(runtime)) as (browser, outcome),
    ):
        browser.stop_reading()
        await runtime.get(Room, "lobby").say("hello")
        await settle()
        browser.leave()
        await settle()
        assert outcome.done
        assert watched(runtime) == 0


async def test_a_cancelled_request_ends_its_watch(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, streaming(lobby(runtime)) as (_, outcome):
        outcome.cancel()
        await outcome.wait()
        assert watched(runtime) == 0


async def test_a_disconnection_at_the_end_does_not_cut_the_end_off(
    storage: ScriptedStorage,
) -> None:
    """As hypercorn reports one while it sends the end of a response."""

    class Hypercorn(Browser):
        sent_the_end = False

        async def _send(self, message: dict[str, object]) -> None:
            await super()._send(message)
            if self.has_ended:
                self.leave()
                await settle()
                self.sent_the_end = True

    browser = Hypercorn()
    async with scripted_runtime(storage) as runtime, streaming(lobby(runtime), browser):
        runtime.end_watches()
        await settle()
    assert browser.sent_the_end


async def test_a_send_that_fails_ends_the_stream(storage: ScriptedStorage) -> None:
    class Broken(Browser):
        async def _send(self, message: dict[str, object]) -> None:
            if self.text:
                raise OSError("the connection is gone")
            await super()._send(message)

    async with (
        scripted_runtime(storage) as runtime,
        streaming(lobby(runtime), Broken()) as (_, outcome),
    ):
        await settle()
        assert outcome.done
        assert outcome.error is None
        assert watched(runtime) == 0


async def test_end_watches_ends_streams_after_the_last_state(storage: ScriptedStorage) -> None:
    async with (
        scripted_runtime(storage) as runtime,
        streaming(lobby(runtime)) as (browser, outcome),
    ):
        await browser.wait_for(1)
        await runtime.get(Room, "lobby").say("hello")
        runtime.end_watches()
        await outcome.wait()
        assert browser.shown == [("message", data()), ("message", data("hello"))]
        assert browser.has_ended


async def test_a_stream_of_a_closed_runtime_ends_at_once(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        stream = lobby(runtime)
    async with streaming(stream) as (browser, outcome):
        assert outcome.done
        assert (browser.status, browser.events, browser.has_ended) == (200, [], True)


async def test_a_watch_that_can_not_be_entered_is_an_error_before_the_answer(
    storage: ScriptedStorage,
) -> None:
    async with scripted_runtime(storage) as runtime:
        watch = runtime.watch(Room, "lobby")
        async with watch:
            pass
        async with calls() as started:
            browser = Browser()
            outcome = started.start(browser.open, sse(Request(), watch, view=public))
            await outcome.wait()
        assert isinstance(outcome.error, UsageError)
        assert browser.status is None
