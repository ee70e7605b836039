"""An app with objects, and its inspector, for the tests of its pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
from starlette.requests import Request
from starlette.responses import Response

from trio_durable import DurableObject, DurableRuntime, InlineRunner, Retry, alarm, handler
from trio_durable.inspector import Access, inspector
from trio_durable.inspector._access import RIGHTS
from trio_durable.inspector._app import InspectorApp
from trio_durable.storage import SQLiteStorage

ALL = Access("ada", can=RIGHTS, tenants=None)
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
HOST = "inspected"


class Account(DurableObject, name="inspected.Account"):
    owner: str = ""
    balance: int = 0
    secret: str = ""
    tags: list[str] = attrs.field(factory=list)

    @handler
    def open(self, owner: str, secret: str = "") -> None:
        self.owner, self.secret = owner, secret

    @handler
    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    @handler
    def fail(self, text: str) -> None:
        raise RuntimeError(text)

    @handler
    def remind(self, note: str) -> None:
        self.ctx.schedule_alarm("reminder", after=0, payload={"note": note})

    @alarm(retry=Retry(attempts=1))
    def reminder(self) -> None:
        assert self.ctx.alarm is not None
        raise RuntimeError(f"no post for {self.ctx.alarm.payload}")

    @handler(retry=Retry(attempts=1))
    def receive(self, text: str) -> None:
        raise RuntimeError(f"can't receive {text}")

    @handler
    async def ask(self, other: str) -> int:
        return await self.ctx.runtime.get(Account, other, timeout=None).deposit(0)

    @handler
    async def sleep(self) -> None:
        await anyio.sleep(1000)


Authorize = Callable[[Request], Any]


@asynccontextmanager
async def served(
    path: Path, authorize: Access | Authorize | None = ALL, **options: Any
) -> AsyncIterator[Site]:
    """A runtime, and a client of its inspector."""
    runtime = DurableRuntime(SQLiteStorage(path), objects=[Account], runner=InlineRunner)
    decide: Authorize = (lambda _: authorize) if not callable(authorize) else authorize
    app = inspector(runtime, authorize=decide, **options)
    assert isinstance(app, InspectorApp)
    async with runtime, client_of(app) as client:
        yield Site(runtime, app, client)


def client_of(app: Any, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, **options), base_url=f"http://{HOST}"
    )


@attrs.frozen
class Site:
    runtime: DurableRuntime
    app: InspectorApp
    client: httpx.AsyncClient

    async def get(self, path: str, /, **query: str) -> str:
        """The text of a page, which must be there."""
        response = await self.client.get(path, params=query or None)
        assert response.status_code == 200, response.text
        return response.text

    async def post(self, path: str, data: dict[str, Any], **query: str) -> httpx.Response:
        return await self.client.post(path, params=query, data=data, headers=SAME_ORIGIN)

    async def dead_letters(self, *ids: str, tenant: str = "", text: str = "x") -> None:
        """Let an alarm and a message of each object die."""
        objects = self.runtime.tenant(tenant) if tenant else self.runtime
        for each in ids:
            await objects.get(Account, each).remind(text)
            await objects.send(Account.receive, each, text)
        with anyio.fail_after(600):
            while len(await objects.list_dead_letters(Account, limit=1000)) < len(ids) or len(
                await objects.list_dead_messages(Account, limit=1000)
            ) < len(ids):
                await anyio.sleep(0.05)


class Stream:
    """A stream of events, read from the ASGI app itself, since clients wait for the end of it."""

    def __init__(self, app: Any, path: str, query: Sequence[tuple[str, str]] = ()) -> None:
        self._request = httpx.Request("GET", f"http://{HOST}/{path}", params=list(query))
        self._app = app
        self.status = 0
        self.text = ""
        self.has_ended = False

    async def run(self) -> None:
        """Serve the stream until it ends, or the task is cancelled."""
        url = self._request.url
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": url.path,
            "raw_path": url.raw_path,
            "query_string": url.query,
            "root_path": "",
            "headers": [(b"host", HOST.encode())],
            "client": ("127.0.0.1", 1),
            "server": (HOST, 80),
        }

        async def receive() -> dict[str, Any]:
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            else:
                self.text += message.get("body", b"").decode()

        await self._app(scope, receive, send)
        self.has_ended = True


def refuse(_: Request) -> Response:
    return Response("log in first", 401)
