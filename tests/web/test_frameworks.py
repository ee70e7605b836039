"""Streams as responses of four frameworks: they last, end with their client, and keep nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from fastapi import Request as FastAPIRequest
from litestar import Litestar, get
from litestar import Request as LitestarRequest
from litestar.types import ASGIApp
from quart import Response as QuartResponse
from quart import request as quart_request
from quart_trio import QuartTrio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from support.clock import settle
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls
from watching.rooms import Room

from trio_durable import Snapshot, current_runtime
from trio_durable.web import EventStream, sse
from trio_durable.web.quart import event_stream_response
from trio_durable.web.starlette import EventStreamResponse

from .clients import App, Browser, watched

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True),  # as Quart-Trio
]


def public(room: Snapshot[Room]) -> dict[str, object]:
    return {"lines": room.state.lines}


def stream(request: Any) -> EventStream:
    def authorize(request: Any) -> bool:
        return bool(request.scope["path"] == "/events")  # also when its context is gone

    watch = current_runtime().watch(Room, "lobby")
    return sse(request, watch, view=public, authorize=authorize)


def starlette() -> App:
    async def events(request: Request) -> EventStream:
        return stream(request)

    return Starlette(routes=[Route("/events", events)])


def fastapi() -> App:
    app = FastAPI()

    @app.get("/events")
    async def events(request: FastAPIRequest) -> EventStreamResponse:
        response = EventStreamResponse(stream(request))
        response.set_cookie("seen", "1")
        return response

    return app


def litestar() -> App:
    @get("/events", include_in_schema=False)
    async def events(request: LitestarRequest[Any, Any, Any]) -> ASGIApp:
        return stream(request)

    return Litestar([events])  # type: ignore[return-value]


def quart() -> App:
    app = QuartTrio(__name__)

    @app.get("/events")
    async def events() -> QuartResponse:
        return await event_stream_response(stream(quart_request))

    return app  # type: ignore[return-value]


@pytest.mark.parametrize("make", [starlette, fastapi, litestar, quart])
async def test_a_stream_lasts_until_its_client_leaves(make: Callable[[], App]) -> None:
    async with scripted_runtime(ScriptedStorage()) as runtime, calls() as started:
        browser = Browser()
        outcome = started.start(browser.open, make(), "/events")
        await browser.wait_for(1)
        assert browser.status == 200
        assert browser.headers["content-type"].startswith("text/event-stream")
        assert browser.headers["cache-control"] == "no-store"
        assert ("set-cookie" in browser.headers) == (make is fastapi)
        await anyio.sleep(300)
        assert browser.comments >= 19
        await runtime.get(Room, "lobby").say("hello")
        await browser.wait_for(2)
        assert json.loads(browser.shown[-1][1]) == {"lines": ["hello"]}
        assert watched(runtime) == 1
        browser.leave()
        await settle()
        assert outcome.done
        assert outcome.error is None
        assert watched(runtime) == 0
