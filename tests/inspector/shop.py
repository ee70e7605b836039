"""The app behind the inspector that a real browser visits, see `test_browser`.

It is a program of its own: a server runs it in the folder of its file, which has many objects
already. At its start it makes the few things that only an app can make, such as dead letters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import attrs
from anyio.abc import TaskGroup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from trio_durable import DurableObject, DurableRuntime, Objects, Retry, alarm, handler
from trio_durable.inspector import Access, inspector
from trio_durable.inspector._access import RIGHTS


class Order(DurableObject, name="browsed.Order"):
    customer: str = ""
    total: int = 0
    lines: list[str] = attrs.field(factory=list)
    note: str | None = None

    @handler
    def place(self, customer: str) -> None:
        self.customer = customer
        self.ctx.schedule_alarm("remind", after=86_400, payload={"customer": customer})

    @handler
    def add(self, line: str, price: int) -> int:
        self.lines.append(line)
        self.total += price
        return self.total

    @handler
    def write(self, note: str) -> None:
        self.note = note

    @handler(retry=Retry(attempts=1))
    def ship(self, address: str) -> None:
        raise ConnectionError(f"the carrier refuses {address}")

    @alarm(retry=Retry(attempts=1))
    def remind(self) -> None:
        raise TimeoutError("the mail server is silent")


class Basket(DurableObject, name="browsed.Basket"):
    items: dict[str, int] = attrs.field(factory=dict)


class Warehouse(DurableObject, name="browsed.Warehouse"):
    @handler
    async def count(self) -> None:
        await anyio.sleep_forever()

    @handler
    async def ask(self, other: str) -> None:
        await self.ctx.runtime.get(Warehouse, other, timeout=None).count()


DEAD = 3
"""Dead letters of each kind, for objects without a tenant; each tenant has one of each."""
TENANTS = ("acme", "globex")

runtime = DurableRuntime("shop.db", objects=[Order, Basket, Warehouse])
pages = inspector(runtime, authorize=lambda _: Access("ada@example.com", RIGHTS, tenants=None))


async def add(request: Request) -> JSONResponse:
    """Change an order, as another client would."""
    order = runtime.get(Order, request.path_params["order"])
    return JSONResponse(await order.add("tea", 2))


async def fill(objects: Objects, dead: int) -> None:
    """Make dead letters, an alarm that is set, and a message that waits."""
    for number in range(dead):
        key = f"dead-{number}"
        await objects.get(Order, key).add("tea", 2)
        await objects.schedule_alarm(Order, key, "remind", after=0)
        await objects.send(Order.ship, key, "1 Long Road")
    while (
        len(await objects.list_dead_letters(Order)) < dead
        or len(await objects.list_dead_messages(Order)) < dead
    ):
        await anyio.sleep(0.02)
    await objects.get(Order, "full").place("Ada")
    await objects.get(Order, "full").write("call first")
    await objects.outgoing(after=86_400).send(Order.ship, "full", "1 Long Road")


async def wait(tasks: TaskGroup) -> None:
    """Let two objects wait for a third, whose turn lasts."""
    tasks.start_soon(runtime.get(Warehouse, "north", timeout=None).count)
    for name in ("east", "west"):
        tasks.start_soon(runtime.get(Warehouse, name, timeout=None).ask, "north")


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    async with runtime, anyio.create_task_group() as tasks:
        await fill(runtime, DEAD)
        for tenant in TENANTS:
            await fill(runtime.tenant(tenant), 1)
        await wait(tasks)
        yield
        tasks.cancel_scope.cancel()


app = Starlette(
    routes=[Route("/add/{order}", add, methods=["POST"]), Mount("/inspector", pages)],
    lifespan=lifespan,
)
