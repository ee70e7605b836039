"""The examples, run as their users run them: as processes, on real sockets, killed for real."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import anyio
import attrs
import httpx
import pytest

from examples.shop import CART_LIFETIME, OBJECTS, Cart
from trio_durable import DurableRuntime

ROOT = Path(__file__).parents[2]

SERVERS = {
    "uvicorn on asyncio": ["uvicorn", "--host=127.0.0.1", "--port={port}"],
    # Without a worker process of its own, so that the kill hits what serves.
    "hypercorn on trio": [
        "hypercorn",
        "--worker-class=trio",
        "--workers=0",
        "--bind=127.0.0.1:{port}",
    ],
}

Serve = Callable[..., contextlib.AbstractContextManager["Server"]]


@attrs.frozen
class Server:
    """The shop, serving."""

    process: subprocess.Popen[bytes]
    url: str

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=10)


@pytest.fixture(params=list(SERVERS))
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """Serves the shop from one file, with another process each time it is called."""

    @contextlib.contextmanager
    def serve(requests_per_minute: int = 1_000_000) -> Iterator[Server]:
        port = free_port()
        command = [word.format(port=port) for word in SERVERS[request.param]]
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--log-level=warning", "examples.shop:app"],
            cwd=ROOT,
            env={
                **os.environ,
                "SHOP_DB": str(tmp_path / "shop.db"),
                "SHOP_REQUESTS_PER_MINUTE": str(requests_per_minute),
            },
        )
        with process:
            try:
                wait_until_ready(process, port)
                yield Server(process, f"http://127.0.0.1:{port}")
            finally:
                process.kill()

    return serve


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended before it was ready"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("the server wasn't ready within 30 s")


def decided(client: httpx.Client, user: str, number: int) -> dict[str, object]:
    """The order, when the warehouse has answered."""
    for _ in range(600):
        order: dict[str, object] = client.get(f"/users/{user}/orders/{number}").json()
        if order["status"] not in ("unknown", "placed"):
            return order
        time.sleep(0.05)
    raise AssertionError("the warehouse didn't answer within 30 s")


def key(value: object) -> dict[str, str]:
    return {"Idempotency-Key": str(value)}


def test_shopping(serve: Serve) -> None:
    with serve() as server, server.client() as client:
        tea = {"sku": "tea", "quantity": 2}
        cart = "/users/ada/cart"
        assert client.get(cart).json() == {"items": {}}

        first = client.post(f"{cart}/items", json=tea, headers=key(1))
        assert (first.status_code, first.json()) == (200, {"sku": "tea", "quantity": 2})
        more = client.post(f"{cart}/items", json=tea, headers=key(2))
        assert more.json() == {"sku": "tea", "quantity": 4}
        repeated = client.post(f"{cart}/items", json=tea, headers=key(1))
        assert repeated.json() == first.json()
        client.post(f"{cart}/items", json={"sku": "milk", "quantity": 1}, headers=key(3))
        assert client.get(cart).json() == {"items": {"tea": 4, "milk": 1}}

        for _ in range(2):
            assert client.delete(f"{cart}/items/milk").status_code == 204
        assert client.get(cart).json() == {"items": {"tea": 4}}
        assert client.get("/users/bob/cart").json() == {"items": {}}

        for _ in range(2):
            order = client.post("/users/ada/checkout", headers=key(4))
            assert (order.status_code, order.json()) == (
                200,
                {"order": "ada-1", "items": {"tea": 4}},
            )
        assert client.get(cart).json() == {"items": {}}
        assert client.post("/users/ada/checkout", headers=key(5)).status_code == 409
        assert decided(client, "ada", 1) == {"status": "ready", "items": {"tea": 4}}

        client.post("/users/bob/cart/items", json={"sku": "tea", "quantity": 997}, headers=key(1))
        assert client.post("/users/bob/checkout", headers=key(2)).json()["order"] == "bob-1"
        assert decided(client, "bob", 1)["status"] == "refused"
        assert client.get("/users/bob/orders/2").json() == {"status": "unknown", "items": {}}


def test_bad_input_is_refused_and_the_server_serves_on(serve: Serve) -> None:
    with serve() as server, server.client() as client:
        items = "/users/ada/cart/items"
        fine = {"sku": "tea", "quantity": 1}

        def status(body: object, path: str = items) -> int:
            return client.post(path, json=body, headers=key(1)).status_code

        refused: list[object] = [
            {"sku": "tea", "quantity": -1},
            {"sku": "tea", "quantity": 0},
            {"sku": "tea", "quantity": 10**30},
            {"sku": "tea", "quantity": True},
            {"sku": "tea", "quantity": 1.5},
            {"sku": "tea", "quantity": "1"},
            {"sku": "", "quantity": 1},
            {"sku": "tea\n", "quantity": 1},
            {"sku": "tea"},
            [],
            "tea",
        ]
        for body in refused:
            assert status(body) == 422, body
        lone_surrogate = b'{"sku": "\\ud800", "quantity": 1}'
        assert client.post(items, content=lone_surrogate, headers=key(1)).status_code == 422
        for content in (b"", b"{", b"\xff", b"[" * 100_000):
            assert client.post(items, content=content, headers=key(1)).status_code == 400
        for user in ("a" * 513, "%C3%A4" * 300, "a%00b"):
            assert status(fine, f"/users/{user}/cart/items") == 404
            assert client.get(f"/users/{user}/cart").status_code == 404
        assert client.post(items, json=fine).status_code == 400
        assert client.post(items, json=fine, headers=key("x" * 512)).status_code == 400
        assert client.get("/users/ada/nothing").status_code == 404
        assert client.put("/users/ada/cart").status_code == 405

        assert client.get("/users/ada/cart").json() == {"items": {}}
        assert status(fine) == 200
        assert status({"sku": "tea", "quantity": 2}) == 422, "the key was used for another request"
        assert client.get("/users/ada/cart").json() == {"items": {"tea": 1}}


def test_the_rate_limit_holds_across_a_kill(serve: Serve) -> None:
    # So few that none is regained while the test runs: the next would be in 30 seconds.
    with serve(requests_per_minute=2) as server, server.client() as client:
        assert [client.get("/users/ada/cart").status_code for _ in range(3)] == [200, 200, 429]
        server.kill()
    with serve(requests_per_minute=2) as server, server.client() as client:
        refused = client.get("/users/ada/cart")
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 30
        assert client.get("/users/bob/cart").status_code == 200


@attrs.define
class Shopper:
    """A client that adds one new article after the other, and what it knows about them."""

    number: int
    acknowledged: list[int] = attrs.field(factory=list)
    unanswered: int | None = None

    @property
    def user(self) -> str:
        # Two shoppers share each cart.
        return f"user-{self.number // 2}"

    def sku(self, article: int) -> str:
        return f"{self.number}-{article}"

    @staticmethod
    def quantity(article: int) -> int:
        return article % 7 + 1

    async def add(self, client: httpx.AsyncClient, article: int) -> None:
        answer = await client.post(
            f"/users/{self.user}/cart/items",
            json={"sku": self.sku(article), "quantity": self.quantity(article)},
            headers=key(self.sku(article)),
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["quantity"] == self.quantity(article)

    async def shop_until_it_breaks(
        self, client: httpx.AsyncClient, on_acknowledged: Callable[[], None]
    ) -> None:
        for article in range(100_000):
            self.unanswered = article
            try:
                await self.add(client, article)
            except httpx.TransportError:
                return
            self.acknowledged.append(article)
            self.unanswered = None
            on_acknowledged()


async def all_items(client: httpx.AsyncClient, shoppers: list[Shopper]) -> dict[str, int]:
    items: dict[str, int] = {}
    for user in sorted({shopper.user for shopper in shoppers}):
        items |= (await client.get(f"/users/{user}/cart")).json()["items"]
    return items


def test_a_kill_under_load_loses_and_doubles_nothing(serve: Serve) -> None:
    shoppers = [Shopper(number) for number in range(8)]
    kill_after = 150

    async def load(server: Server) -> None:
        def on_acknowledged() -> None:
            # From in here, all others have a request under way.
            if sum(len(shopper.acknowledged) for shopper in shoppers) == kill_after:
                server.process.kill()

        async with (
            httpx.AsyncClient(base_url=server.url, timeout=10) as client,
            anyio.create_task_group() as tasks,
        ):
            for shopper in shoppers:
                tasks.start_soon(shopper.shop_until_it_breaks, client, on_acknowledged)

    async def check(server: Server) -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=10) as client:
            found = await all_items(client, shoppers)
            promised = {
                shopper.sku(article): shopper.quantity(article)
                for shopper in shoppers
                for article in shopper.acknowledged
            }
            in_flight = {
                shopper.sku(shopper.unanswered): shopper.quantity(shopper.unanswered)
                for shopper in shoppers
                if shopper.unanswered is not None
            }
            assert {sku: found.get(sku) for sku in promised} == promised
            extra = {sku: found[sku] for sku in found.keys() - promised.keys()}
            assert extra.items() <= in_flight.items()

            # Each repeats what was not answered, and its last request that was, to be sure.
            for shopper in shoppers:
                assert shopper.unanswered is not None
                for article in [*shopper.acknowledged[-1:], shopper.unanswered]:
                    await shopper.add(client, article)
            assert await all_items(client, shoppers) == promised | in_flight

    with serve() as server:
        anyio.run(load, server)
        server.kill()
    assert sum(len(shopper.acknowledged) for shopper in shoppers) >= kill_after
    with serve() as server:
        anyio.run(check, server)


@pytest.mark.anyio
async def test_a_cart_that_nobody_touches_is_emptied() -> None:
    almost = (CART_LIFETIME - timedelta(seconds=1)).total_seconds()
    # Or the runtime would wake up a hundred thousand times in these two weeks.
    seldom = timedelta(days=1)
    async with DurableRuntime(
        ":memory:", objects=OBJECTS, polling_interval=seldom, claim_ttl=seldom
    ) as runtime:
        cart = runtime.get(Cart, "ada")
        await cart.add("tea", 2)
        await anyio.sleep(almost)
        await cart.add("milk", 1)
        await anyio.sleep(almost)
        assert await cart.contents() == {"tea": 2, "milk": 1}
        await anyio.sleep(2)
        assert await cart.contents() == {}


@pytest.mark.anyio
@pytest.mark.parametrize("emptied_by", ["checkout", "removal"])
async def test_an_empty_cart_has_nothing_to_wait_for(emptied_by: str) -> None:
    async with DurableRuntime(":memory:", objects=OBJECTS) as runtime:
        cart = runtime.get(Cart, "ada")
        await cart.add("tea", 2)
        await cart.add("milk", 1)
        await cart.remove("milk")
        [alarm] = await runtime.list_alarms(Cart, "ada")
        assert alarm.name == "expire"
        if emptied_by == "checkout":
            await cart.check_out()
        else:
            await cart.remove("tea")
        assert await runtime.list_alarms(Cart, "ada") == []
