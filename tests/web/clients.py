"""Clients of event streams: requests, and browsers that read their events over ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import anyio
import attrs

from trio_durable import DurableRuntime


@attrs.frozen
class Request:
    """A request, with its user and the id that a reconnecting client sends."""

    user: str = "ada"
    last_event_id: str | None = None

    @property
    def scope(self) -> Mapping[str, Any]:
        headers = [(b"accept", b"text/event-stream")]
        if self.last_event_id is not None:
            headers.append((b"Last-Event-ID", self.last_event_id.encode()))
        return {"type": "http", "headers": headers}


App: TypeAlias = Callable[[dict[str, Any], Any, Any], Awaitable[object]]


class Event(NamedTuple):
    """An event as a browser dispatches it."""

    name: str
    data: str
    id: str


class Browser:
    """What a client has got of one stream. It can read slowly, and leave."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.text = ""
        self.has_ended = False
        self._has_asked = False
        self._left = anyio.Event()
        self._may_read = anyio.Event()
        self._may_read.set()
        self._news = anyio.Event()

    @property
    def events(self) -> list[Event]:
        """The events so far, as the standard reads them."""
        found, event_id = [], ""
        for block in self.text.split("\n\n")[:-1]:
            name, data = "message", []
            for line in block.split("\n"):
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    data.append(value)
                elif field == "id":
                    event_id = value
            if data:
                found.append(Event(name, "\n".join(data), event_id))
        return found

    @property
    def shown(self) -> list[tuple[str, str]]:
        """Names and data of the events so far."""
        return [(each.name, each.data) for each in self.events]

    @property
    def comments(self) -> int:
        """The number of comments so far."""
        return self.text.count(":\n\n")

    async def open(self, app: App, path: str = "/") -> None:
        """Read a stream to its end."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 4711),
            "server": ("127.0.0.1", 80),
        }
        await app(scope, self._receive, self._send)

    async def wait_for(self, count: int) -> list[Event]:
        """The events, once there are so many."""
        with anyio.fail_after(10_000):
            while len(self.events) < count:
                await self._news.wait()
        return self.events

    def leave(self) -> None:
        """Disconnect."""
        self._left.set()

    def stop_reading(self) -> None:
        """Take nothing until `read_on`, as a client on a slow network."""
        self._may_read = anyio.Event()

    def read_on(self) -> None:
        self._may_read.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._has_asked:
            self._has_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await self._may_read.wait()
        if message["type"] == "http.response.start":
            assert self.status is None
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            assert self.status is not None
            self.text += message.get("body", b"").decode()
            self.has_ended = not message.get("more_body", False)
        self._news.set()
        self._news = anyio.Event()


def watched(runtime: DurableRuntime) -> int:
    """The number of objects that streams watch."""
    return runtime._usable().hub.count
