"""Chat rooms whose pages show durable posts alone, by server-sent events; once-keys for retries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from trio_durable import DurableObject, DurableRuntime, Snapshot, current_runtime, handler
from trio_durable.web import EventStream, end_watches_on_signals, sse


@attrs.frozen
class Post:
    user: str
    text: str


class ChatRoom(DurableObject):
    posts: list[Post] = attrs.field(factory=list)

    @handler
    def post(self, user: str, text: str) -> None:
        self.posts = [*self.posts, Post(user, text)][-100:]


def public(room: Snapshot[ChatRoom]) -> list[dict[str, str]]:
    return [attrs.asdict(post) for post in room.state.posts]


async def page(_request: Request) -> Response:
    return FileResponse(Path(__file__).with_name("chat.html"))


async def post(request: Request) -> Response:
    match await request.json():
        case {"user": str(user), "text": str(text), "key": str(key)} if len(user + text) < 1000:
            await (
                current_runtime()
                .get(ChatRoom, request.path_params["room"], once=key)
                .post(user, text)
            )
            return Response(status_code=204)
    return JSONResponse("a post has a user, a text and a key, and is short", 422)


async def events(request: Request) -> EventStream:
    watch = current_runtime().watch(ChatRoom, request.path_params["room"])
    return sse(request, watch, view=public)


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    async with DurableRuntime("chat.db", objects=[ChatRoom]) as runtime:
        with end_watches_on_signals(runtime):
            yield


ROOM = "/rooms/{room}"
ROUTES = [Route(ROOM, page), Route(ROOM, post, methods=["POST"]), Route(ROOM + "/events", events)]
app = Starlette(routes=ROUTES, lifespan=lifespan)
