"""A web shop's carts, orders and rate limits as durable objects, behind Starlette.

Serve it on asyncio or on trio, from the folder above this one::

    uvicorn examples.shop:app
    hypercorn --worker-class trio examples.shop:app

and go shopping::

    user=localhost:8000/users/ada
    curl $user/cart/items -H 'Idempotency-Key: 1' -d '{"sku": "tea", "quantity": 2}'
    curl $user/cart
    curl $user/cart/items/tea -X DELETE
    curl $user/checkout -H 'Idempotency-Key: 2' -X POST
    curl $user/orders/1

Kill the server whenever you like: what it has answered is there when it is back.

A cart that nobody touches for a week is emptied, by an alarm that survives all that, too.

``SHOP_DB`` names the SQLite file (default shop.db), ``SHOP_REQUESTS_PER_MINUTE`` sets each user's
limit (default 120), ``SHOP_CART_SECONDS`` how long a cart is kept (default a week). Run one worker
process: the file belongs to one runtime.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from trio_durable import (
    CallTimeout,
    DurableObject,
    DurableRuntime,
    InvalidObjectId,
    InvalidOnceKey,
    OnceKeyReused,
    PersistenceError,
    RuntimeClosed,
    SendFailed,
    StateTooLarge,
    alarm,
    current_runtime,
    handler,
)

REQUESTS_PER_MINUTE = int(os.environ.get("SHOP_REQUESTS_PER_MINUTE", "120"))
WINDOW = timedelta(minutes=1)
INTERVAL = WINDOW / REQUESTS_PER_MINUTE
CART_LIFETIME = timedelta(seconds=float(os.environ.get("SHOP_CART_SECONDS", "604800")))

# Longer than any client goes on repeating a request that wasn't answered.
REMEMBERED = timedelta(days=1)
# Of each article, in the warehouse.
IN_STOCK = 1000

Json = dict[str, Any]


# --- the durable objects -------------------------------------------------------------------------


class RateLimiter(DurableObject, hibernate_after=60, shutdown_after=timedelta(minutes=10)):
    """One user's limit: a full minute's worth of requests at once, then one every INTERVAL."""

    # All there is to know of a leaky bucket: when it will have run dry.
    dry_at: datetime = datetime(2000, 1, 1, tzinfo=UTC)

    @handler
    def admit(self) -> float:
        """Count a request and return 0, or return how many seconds are missing until the next."""
        now = datetime.now(UTC)
        # Not beyond a full bucket, in case the clock was set back.
        dry_at = min(max(self.dry_at, now), now + WINDOW)
        missing = dry_at + INTERVAL - (now + WINDOW)
        if missing > timedelta(0):
            return missing.total_seconds()  # no state has changed, so nothing is written
        self.dry_at = dry_at + INTERVAL
        return 0.0


class EmptyCart(Exception):
    """There is nothing to check out."""


class Cart(DurableObject, shutdown_after=timedelta(hours=1), remember=REMEMBERED):
    """One user's shopping cart.

    A client whose connection breaks can't know whether its request was carried out, so it has to
    repeat it. Hence every request that isn't harmless to repeat is called with a once-key. The
    runtime stores key and answer in the same commit as the change: after a crash either both are
    there or neither, and a repeated request gets the stored answer.

    An order leaves in a message, which belongs to the commit that empties the cart. So there is no
    moment in which it is in both, or in neither. The alarm that empties a cart is set in that
    commit as well. There is no more than one, for setting it again replaces it; and it goes along
    with what it was for.
    """

    items: dict[str, int] = attrs.field(factory=dict)
    orders: int = 0

    @handler
    def add(self, sku: str, quantity: int) -> Json:
        """Put ``quantity`` more of an article into the cart."""
        self.items[sku] = self.items.get(sku, 0) + quantity
        self._touched()
        return {"sku": sku, "quantity": self.items[sku]}

    @handler(expected=EmptyCart)
    def check_out(self) -> Json:
        """Turn what is in the cart into an order."""
        if not self.items:
            raise EmptyCart
        self.orders += 1
        order, items = f"{self.ctx.object_id}-{self.orders}", self.items
        self.ctx.send(Order.place, order, items)
        self.items = {}
        self._touched()
        return {"order": order, "items": items}

    @handler
    def remove(self, sku: str) -> None:
        """Take an article out. Harmless to repeat, so it needs no key."""
        if self.items.pop(sku, None) is not None:
            self._touched()

    @alarm
    def expire(self) -> None:
        """Empty the cart; nobody seems to want it. What was ordered and answered stays known."""
        self.items = {}

    @handler(readonly=True)
    def contents(self) -> dict[str, int]:
        """What is in the cart."""
        return self.items

    def _touched(self) -> None:
        """Let the cart live for another CART_LIFETIME, if there is anything in it."""
        if self.items:
            self.ctx.schedule_alarm("expire", after=CART_LIFETIME)
        else:
            self.ctx.cancel_alarm("expire")


class Order(DurableObject, shutdown_after=timedelta(hours=1)):
    """An order, which waits for the warehouse and hears of its decision."""

    items: dict[str, int] = attrs.field(factory=dict)
    status: str = "unknown"

    @handler
    def place(self, items: dict[str, int]) -> None:
        """Ask the warehouse. Its answer comes as a message, too."""
        self.items, self.status = items, "placed"
        asked = self.ctx.outgoing(reply=Order.reserved, failed=Order.refused)
        asked.send(Warehouse.reserve, "main", items)

    @handler
    def reserved(self, left: dict[str, int]) -> None:
        """The warehouse has reserved everything."""
        self.status = "ready"

    @handler
    async def refused(self, failure: SendFailed) -> None:
        """The warehouse has reserved nothing."""
        self.status = "refused"
        # An ordinary answer. So the dead letters that remain are those to look at.
        await self.ctx.runtime.drop_message(failure.id)

    @handler(readonly=True)
    def show(self) -> Json:
        """What was ordered, and what became of it."""
        return {"status": self.status, "items": self.items}


class OutOfStock(Exception):
    """There isn't enough of some article."""


class Warehouse(DurableObject):
    """All articles, of which orders take some."""

    taken: dict[str, int] = attrs.field(factory=dict)

    @handler(expected=OutOfStock)
    def reserve(self, items: dict[str, int]) -> dict[str, int]:
        """Take all items or none, and say how many of each are left.

        It is called by messages alone, so it needs no key to do that once.
        """
        for sku, quantity in items.items():
            self.taken[sku] = self.taken.get(sku, 0) + quantity
            if self.taken[sku] > IN_STOCK:
                raise OutOfStock(sku)  # the whole turn is undone
        return {sku: IN_STOCK - self.taken[sku] for sku in items}


# --- HTTP ----------------------------------------------------------------------------------------


async def add_item(request: Request) -> Response:
    """``POST /users/{user}/cart/items``."""
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None
    match body:
        case {"sku": str(sku), "quantity": int(quantity)} if (
            re.fullmatch(r"[A-Za-z0-9._-]{1,64}", sku)
            and not isinstance(quantity, bool)
            and 1 <= quantity <= 1000
        ):
            return JSONResponse(await once(request).add(sku, quantity))
        case _:
            raise HTTPException(
                422, "expected a sku (letters, digits, '.', '_', '-') and a quantity of 1 to 1000"
            )


async def show_cart(request: Request) -> Response:
    """``GET /users/{user}/cart``."""
    return JSONResponse({"items": await Cart.contents(user(request))})


async def remove_item(request: Request) -> Response:
    """``DELETE /users/{user}/cart/items/{sku}``."""
    await Cart.remove(user(request), request.path_params["sku"])
    return Response(status_code=204)


async def check_out(request: Request) -> Response:
    """``POST /users/{user}/checkout``."""
    return JSONResponse(await once(request).check_out())


async def show_order(request: Request) -> Response:
    """``GET /users/{user}/orders/{number}``."""
    return JSONResponse(await Order.show(f"{user(request)}-{request.path_params['number']}"))


def user(request: Request) -> str:
    """Whose cart it is. A real shop takes that from a session, not from the path."""
    name: str = request.path_params["user"]
    return name


def once(request: Request) -> Cart:
    """The user's cart, for a call that happens once however often the request is repeated.

    Raises:
        HTTPException: 400, there is no key.
    """
    key = request.headers.get("Idempotency-Key", "")
    if not key:
        raise HTTPException(400, "an Idempotency-Key header is needed")
    # Prefixed with who asks, so that nobody gets the answer of somebody else's request. Each user
    # has a cart of his own here, but that may change.
    return current_runtime().get(Cart, user(request), once=f"{user(request)} {key}")


class RateLimited:
    """ASGI middleware: lets through what the user's `RateLimiter` admits."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        missing = await RateLimiter.admit(scope["path_params"]["user"])
        if missing:
            headers = {"Retry-After": str(math.ceil(missing))}
            raise HTTPException(429, "too many requests", headers)
        await self.app(scope, receive, send)


ErrorHandler = Callable[[Request, Exception], Awaitable[Response]]


def answer_with(status: int, text: str) -> ErrorHandler:
    """An error handler that gives always the same answer."""
    headers = {"Retry-After": "1"} if status >= 500 else None

    async def answer(_request: Request, _error: Exception) -> Response:
        return JSONResponse({"error": text}, status, headers)

    return answer


async def refused(_request: Request, error: Exception) -> Response:
    """The errors that are raised above, as JSON like all answers."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


# Whether the change was made before things went wrong the client can't know. It needn't: the
# answer is stored under the key.
REPEAT = "the shop can't answer now; repeat the request with the same Idempotency-Key"

ERROR_HANDLERS: dict[Any, ErrorHandler] = {
    HTTPException: refused,
    InvalidOnceKey: answer_with(400, "this Idempotency-Key is too long"),
    OnceKeyReused: answer_with(422, "this Idempotency-Key came with another request before"),
    EmptyCart: answer_with(409, "the cart is empty"),
    InvalidObjectId: answer_with(404, "there is no such user"),
    StateTooLarge: answer_with(413, "the cart is full"),
    CallTimeout: answer_with(504, REPEAT),  # MailboxFull among them
    PersistenceError: answer_with(503, REPEAT),  # a full disk, say
    RuntimeClosed: answer_with(503, REPEAT),  # the server is shutting down
}


OBJECTS = [RateLimiter, Cart, Order, Warehouse]


@contextlib.asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """Keep the runtime open while the server runs.

    It is the only one in the event loop, so that `Cart.add` and the others find it by themselves.
    """
    async with DurableRuntime(os.environ.get("SHOP_DB", "shop.db"), objects=OBJECTS):
        yield


app = Starlette(
    routes=[
        Mount(
            "/users/{user}",
            routes=[
                Route("/cart", show_cart),
                Route("/cart/items", add_item, methods=["POST"]),
                Route("/cart/items/{sku}", remove_item, methods=["DELETE"]),
                Route("/checkout", check_out, methods=["POST"]),
                Route("/orders/{number:int}", show_order),
            ],
            middleware=[Middleware(RateLimited)],
        )
    ],
    exception_handlers=ERROR_HANDLERS,
    lifespan=lifespan,
)
