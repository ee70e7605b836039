"""Event stream: the states of watched objects as server-sent events, an ASGI app for one request.

Invariants:

- The watch is entered after the client is authorized, and left however the stream ends: by the
  client, the server, a cancellation, or a fault.
- Between two authorizations no more than ``keep_alive`` passes, however busy the objects are.
- An event is made of the latest snapshot when the client can take it. There is no queue.
- Errors are logged. The client learns that a state isn't available, and no more.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Protocol, TypeAlias, TypeVar

import anyio

from .._api.durable_object import DurableObject
from .._api.snapshot import Snapshot
from .._api.watch import Watch
from .._durations import Duration, interval_seconds
from .._errors import PersistenceError, RuntimeClosed, TenantDropped
from .._keys import ObjectKey
from .._random_bits import random_bits
from ._events import KEEP_ALIVE, event, reconnect_after
from ._renderings import View
from ._showing import Showing

logger = logging.getLogger("trio_durable.web")

T = TypeVar("T", bound=DurableObject)


class WebRequest(Protocol):
    """A request of an ASGI framework: of Starlette, FastAPI, Litestar, Quart and others."""

    @property
    def scope(self) -> Mapping[str, Any]:
        """The connection, as the server has described it."""
        ...


R = TypeVar("R", bound=WebRequest)

Authorize: TypeAlias = Callable[[R], bool | Awaitable[bool]]
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # nginx would collect the events.
    "X-Accel-Buffering": "no",
}
_PAUSE = 1.0
"""Seconds between a read that has failed and the next."""


class EventStream:
    """The states of watched objects as server-sent events; made by `sse`.

    It is an ASGI app that answers one request. A framework whose responses aren't ASGI apps asks
    for `status`, and if that is 200 sends `headers` and then `chunks`.
    """

    def __init__(
        self,
        last_event_id: str | None,
        watch: Watch[DurableObject],
        view: View[Any],
        authorize: Callable[[], bool | Awaitable[bool]] | None,
        max_age: float,
        keep_alive: float,
        retry_after: float,
    ) -> None:
        self._last_event_id = last_event_id
        self._watch = watch
        self._view = view
        self._authorize = authorize
        self._max_age = max_age
        self._keep_alive = keep_alive
        self._retry_after = retry_after
        self._showing = _showings(watch.keys, last_event_id)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a response with status 200."""
        return dict(HEADERS)

    async def status(self) -> int:
        """The status of the response: 200, or if the client isn't authorized, 401 or 204.

        A browser's ``EventSource`` gives up at both. Other clients reconnect after most statuses,
        so a client that reconnects gets 204, which the standard has for that.
        """
        if await self._is_authorized():
            return 200
        return 401 if self._last_event_id is None else 204

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer the request, until the client, the watch or ``max_age`` ends the stream."""
        failure: Exception | None = None
        last: dict[str, Any] | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_at_disconnect, receive, tasks.cancel_scope.cancel)
            try:
                last = await self._respond(send)
            except _ClientGone:
                pass
            except Exception as error:  # noqa: BLE001  # raised outside of the group
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if last is not None:
            # Not in the group: hypercorn reports a disconnection while it sends the end of a
            # response, and a cancellation there would keep the connection open for ever.
            with suppress(OSError):
                await send(last)

    async def _respond(self, send: Send) -> dict[str, Any]:
        """Send all messages but the last one, which is returned."""
        last = {"type": "http.response.body"}
        status = await self.status()
        if status != 200:
            await _send(send, _start(status, {"Cache-Control": "no-store"}))
            return last
        async with aclosing(self.chunks()) as chunks:
            first = await anext(chunks)  # before the status, since it may raise
            await _send(send, _start(200, HEADERS))
            await _send(send, _body(first))
            async for chunk in chunks:
                await _send(send, _body(chunk))
        return last

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body, chunk by chunk. Close it with ``aclosing``, which leaves the watch.

        Raises:
            UsageError: The watch can't be entered.
        """
        # Clients of a server that was restarted, or that has opened many streams at once, don't
        # come back all in the same moment.
        first = reconnect_after(self._retry_after * (0.5 + _random()))
        ends = anyio.current_time() + self._max_age * (0.8 + 0.2 * _random())
        try:
            await self._watch.__aenter__()
        except (RuntimeClosed, TenantDropped):
            yield first
            return
        try:
            yield first
            due = anyio.current_time() + self._keep_alive
            while anyio.current_time() < ends:
                chunk = b""
                try:
                    snapshot = await self._next_until(min(due, ends))
                except (StopAsyncIteration, RuntimeClosed):
                    return
                except PersistenceError as error:
                    snapshot, chunk = None, await self._unreadable(error)
                if anyio.current_time() >= due:
                    if not await self._is_authorized():
                        return
                    due = anyio.current_time() + self._keep_alive
                    chunk = chunk or KEEP_ALIVE
                if snapshot is not None:
                    chunk = self._event(snapshot) or chunk
                if chunk:
                    yield chunk
        finally:
            await self._watch.__aexit__(None, None, None)

    async def _next_until(self, deadline: float) -> Snapshot[DurableObject] | None:
        """The next snapshot; None if none comes before the deadline."""
        with anyio.CancelScope(deadline=deadline):
            return await anext(self._watch)
        return None

    async def _unreadable(self, error: PersistenceError) -> bytes:
        logger.error("the events of %s have no state: %s", error.key, error)
        await anyio.sleep(_PAUSE)
        return self._bytes(self._showing[error.key].fail())

    def _event(self, snapshot: Snapshot[DurableObject]) -> bytes:
        return self._bytes(self._showing[snapshot.key].update(self._view, snapshot))

    def _bytes(self, shown: tuple[str | None, bytes] | None) -> bytes:
        if shown is None:
            return b""
        name, data = shown
        event_id = ",".join(each.token for each in self._showing.values())
        return event(data, name=name, event_id=event_id)

    async def _is_authorized(self) -> bool:
        if self._authorize is None:
            return True
        answer = self._authorize()
        if isawaitable(answer):
            answer = await answer
        if not isinstance(answer, bool):
            raise TypeError(f"authorize must return True or False, not {answer!r:.80}")
        return answer


def sse(
    request: R,
    watch: Watch[T],
    *,
    view: View[T],
    authorize: Authorize[R] | None = None,
    max_age: Duration = 600,
    keep_alive: Duration = 15,
    retry: Duration = 3,
) -> EventStream:
    """Stream the states of watched objects to a browser, as server-sent events.

    ::

        def public(room: Snapshot[Room]) -> dict[str, object]:
            return {"topic": room.state.topic}

        async def events(request: Request) -> EventStream:
            room = runtime.watch(Room, request.path_params["room"])
            return sse(request, room, view=public, authorize=is_member)

    The client gets the state at once and then each change, as data of a ``message``. Each state is
    durable. A client that is slower than the changes gets fewer of them. A client that reconnects
    gets the state, unless it has it. Two more events exist:

    - ``gone``: the object was deleted. Its data is the view of the defaults.
    - ``unavailable``: the state can't be read, decoded or shown now; the log says why.

    Args:
        request: The request, of any ASGI framework.
        watch: A watch of one object or several, which isn't entered yet.
        view: Makes of a snapshot all that the client gets: a str, which is sent as it is, or a
            value for JSON. It is called once for each state, and the result goes to all clients
            that have the same function. So it must depend on the snapshot alone; let each group of
            users with rights of their own have a view.
        authorize: Decides whether the client of the request may have the stream, at first and once
            in each ``keep_alive``. It is called with the same request each time, so it has to look
            up what may have changed.
        max_age: When the stream ends at the latest. The client reconnects, with a new request.
        keep_alive: When a comment is sent at the latest, so that proxies keep the connection.
        retry: How long clients wait on average before they reconnect.

    Raises:
        ValueError: A duration isn't between a millisecond and a year.
        TypeError: The view is a coroutine function, or can't be hashed.
    """
    if iscoroutinefunction(view):
        raise TypeError(f"view must be a plain function, and {view!r} is a coroutine function")
    hash(view)
    # In Quart, `request` is a proxy for that of the context, which ends before the stream.
    request = getattr(request, "_get_current_object", lambda: request)()
    return EventStream(
        _header(request, b"last-event-id"),
        watch,
        view,
        None if authorize is None else partial(authorize, request),
        interval_seconds(max_age, "max_age"),
        interval_seconds(keep_alive, "keep_alive"),
        interval_seconds(retry, "retry"),
    )


class _ClientGone(Exception):
    """The server can send nothing more."""


async def _at_disconnect(receive: Receive, cancel: Callable[[], object]) -> None:
    """Cancel when the client is gone. Some servers report that here only."""
    while (await receive())["type"] != "http.disconnect":
        pass
    cancel()


async def _send(send: Send, message: dict[str, Any]) -> None:
    try:
        await send(message)
    except OSError as error:
        raise _ClientGone from error


def _start(status: int, headers: Mapping[str, str]) -> dict[str, Any]:
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def _body(chunk: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": chunk, "more_body": True}


def _header(request: WebRequest, name: bytes) -> str | None:
    found = [value for key, value in request.scope["headers"] if bytes(key).lower() == name]
    return bytes(found[-1]).decode("latin-1") if found else None


def _showings(keys: tuple[ObjectKey, ...], last_event_id: str | None) -> dict[ObjectKey, Showing]:
    tokens = [] if last_event_id is None else last_event_id.split(",")
    if len(tokens) != len(keys):
        tokens = [""] * len(keys)
    return {key: Showing(token) for key, token in zip(keys, tokens, strict=True)}


def _random() -> float:
    """A number from 0 to 1."""
    return random_bits() / 2**62
