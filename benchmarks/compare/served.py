"""trio_durable behind Starlette, for uvicorn: the paths that workerd/worker.js serves, too.

``COMPARED_FOLDER`` names the folder with the objects.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from benchmarks.alarms import Reminder
from benchmarks.objects import Counter
from trio_durable import DurableRuntime


async def increment(request: Request) -> Response:
    return PlainTextResponse(str(await Counter.add(request.path_params["key"], 1)))


async def value(request: Request) -> Response:
    return PlainTextResponse(str(await Counter.value(request.path_params["key"])))


async def constant(_: Request) -> Response:
    return PlainTextResponse("0")


async def set_alarm(request: Request) -> Response:
    at = datetime.fromtimestamp(int(request.query_params["at"]) / 1000, UTC)
    key: str = request.path_params["key"]
    await request.app.state.runtime.schedule_alarm(Reminder, key, "ring", at=at)
    return PlainTextResponse("0")


async def alarms_handled(request: Request) -> Response:
    return PlainTextResponse(str(request.app.state.runtime.statistics().alarms_delivered))


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    path = Path(os.environ["COMPARED_FOLDER"]) / "objects.db"
    async with DurableRuntime(path, objects=[Counter, Reminder]) as runtime:
        app.state.runtime = runtime
        yield


app = Starlette(
    routes=[
        Route("/counters/{key}", value),
        Route("/counters/{key}", increment, methods=["POST"]),
        Route("/counters/{key}/alarm", set_alarm, methods=["PUT"]),
        Route("/alarms-handled", alarms_handled),
        Route("/constant/{key}", constant),
    ],
    lifespan=lifespan,
)
