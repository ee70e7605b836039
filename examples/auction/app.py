"""The auction house over HTTP: bids, and a page per auction that shows them as they come."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated
from zoneinfo import available_timezones

from fastapi import Body, FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse

from trio_durable import DurableError, DurableRuntime, Snapshot, current_runtime
from trio_durable.web import end_watches_on_signals, http_status, sse
from trio_durable.web.starlette import EventStreamResponse

from .admin import overview
from .house import Auction, Mailer, Refused, User

Me = Annotated[str, Header(alias="X-User", min_length=1, max_length=99)]  # your session
Key = Annotated[str, Header(alias="Idempotency-Key", min_length=1, max_length=99)]
Text = Annotated[str, Body(embed=True, min_length=1, max_length=99)]
Number = Annotated[int, Body(embed=True, ge=1, le=100_000)]


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    storage = os.environ.get("AUCTION_DB", "auction.db")
    objects = [Auction, Mailer, User]
    async with DurableRuntime(storage, objects=objects, cluster=True) as runtime:
        with end_watches_on_signals(runtime):  # or the server would wait for open pages
            yield


async def failed(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Refused):
        return JSONResponse({"detail": str(error)}, 409)
    answer = http_status(error)
    if answer.status == 500:
        raise error  # a bug, which the server logs
    return JSONResponse({"detail": answer.text}, answer.status, answer.headers)


app = FastAPI(lifespan=lifespan, exception_handlers={Refused: failed, DurableError: failed})


@app.put("/me", status_code=204)
async def sign_up(user: Me, zone: Text) -> None:
    if zone not in available_timezones():
        raise HTTPException(422, "there is no such time zone")
    await User.sign_up(user, zone)


@app.get("/me")
async def account(user: Me) -> dict[str, int | list[str]]:
    return await User.account(user)


@app.put("/auctions/{auction}", status_code=204)
async def begin(auction: str, title: Text, minutes: Number, user: Me) -> None:
    await Auction.begin(auction, title, user, minutes)


@app.post("/auctions/{auction}/bids", status_code=202)
async def bid(auction: str, amount: Number, user: Me, key: Key) -> None:
    await current_runtime().get(User, user, once=key).bid(auction, amount)


@app.get("/auctions/{auction}")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("auction.html"))


def public(auction: Snapshot[Auction]) -> dict[str, object]:
    """The part of an auction that every browser may see."""
    state = auction.state
    return {
        "title": state.title,
        "status": state.status,
        "closes": state.closes_at and state.closes_at.isoformat(),
        "bids": [[bid.user, bid.amount] for bid in reversed(state.bids)],
    }


@app.get("/auctions/{auction}/events")
async def events(request: Request, auction: str) -> EventStreamResponse:
    watch = current_runtime().watch(Auction, auction)
    return EventStreamResponse(sse(request, watch, view=public))


app.get("/admin", response_class=HTMLResponse)(overview)  # behind your login
