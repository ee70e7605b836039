"""The web app of the auction house, in this process."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from examples.auction import house
from examples.auction.app import app
from examples.auction.house import Auction, User
from trio_durable import current_runtime
from trio_durable.testing import drain_messages, fire_alarm

pytestmark = pytest.mark.anyio

LAMP = {"title": "A <b>lamp</b>", "minutes": 60}


@pytest.fixture
def anyio_backend(real_backend: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """In real time, since the storage runs in a thread."""
    return real_backend


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "auction.db"
    monkeypatch.setenv("AUCTION_DB", str(path))
    return path


@asynccontextmanager
async def serving() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://auction") as client,
    ):
        yield client


def user(name: str, key: str = "k-1") -> dict[str, str]:
    return {"X-User": name, "Idempotency-Key": key}


async def bid(client: httpx.AsyncClient, name: str, amount: object, key: str = "k-1") -> int:
    headers = user(name, key)
    answer = await client.post("/auctions/lamp/bids", json={"amount": amount}, headers=headers)
    return answer.status_code


async def test_a_bid_is_made_once_however_often_it_is_sent(path: Path) -> None:
    async with serving() as client:
        assert (
            await client.put("/auctions/lamp", json=LAMP, headers=user("eve"))
        ).status_code == 204
        assert [await bid(client, "ada", 600) for _ in range(3)] == [202] * 3
        assert await bid(client, "ada", 601) == 422, "the key was used for another bid"
        assert await bid(client, "ada", 601, "k-2") == 409, "the money is reserved"
        await drain_messages(current_runtime())
        account = (await client.get("/me", headers=user("ada"))).json()
        assert account == {"balance": 1000, "reserved": 600, "news": []}


async def test_bad_requests_are_refused(path: Path) -> None:
    async with serving() as client:
        for amount in (0, -1, 1.5, "many", 10**30, None):
            assert await bid(client, "ada", amount) == 422
        assert (
            await client.post("/auctions/lamp/bids", json={"amount": 1}, headers={})
        ).status_code == 422
        assert (
            await client.put("/me", json={"zone": "Middle/Earth"}, headers=user("ada"))
        ).status_code == 422
        assert (
            await client.put("/me", json={"zone": "Asia/Tokyo"}, headers=user("ada"))
        ).status_code == 204
        assert (
            await client.put(f"/auctions/{'x' * 600}", json=LAMP, headers=user("eve"))
        ).status_code == 404
        for title, status in (("A <b>lamp</b>", 204), ("A chair", 409)):
            await client.put("/auctions/lamp", json=LAMP, headers=user("eve"))
            again = await client.put(
                "/auctions/lamp", json={"title": title, "minutes": 5}, headers=user("eve")
            )
            assert again.status_code == status


async def test_a_page_follows_an_auction(path: Path) -> None:
    answers: list[str] = []

    async with serving() as client, anyio.create_task_group() as tasks:

        async def follow() -> None:
            answers.append((await client.get("/auctions/lamp/events")).text)

        assert "EventSource" in (await client.get("/auctions/lamp")).text
        await client.put("/auctions/lamp", json=LAMP, headers=user("eve"))
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        await bid(client, "ada", 10)
        await drain_messages(current_runtime())
        current_runtime().root.end_watches()
    assert '"status":"open"' in answers[0]
    assert '"bids":[["ada",10]]}' in answers[0]
    assert "seller" not in answers[0]


async def test_administrators_see_auctions_users_and_failures(path: Path) -> None:
    async with serving() as client:
        runtime = current_runtime()
        for name, amount in (("lamp", 10), ("chair", 30), ("table", 20), ("sold", 5)):
            await Auction.begin(name, f"A {name} <", "eve", 60)
            await User.bid("ada", name, amount)
        await drain_messages(runtime)
        await fire_alarm(runtime, Auction, "sold", "close")
        await drain_messages(runtime)
        await User.sign_up("bob", "UTC")
        await runtime.outgoing(after=3600).send(User.receive, "bob", "<lamp>", 5)
        await runtime.delete(User, "bob")
        await Auction.begin("rug", "A rug", "eve", 60)
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE durable_objects SET state = 'no JSON' WHERE object_id = 'rug'")
    async with serving() as client:
        html = (await client.get("/admin")).text
    auctions, users, failures = re.findall(r"<h1>.*?</table>", html)
    assert re.findall(r"<td>(\w+)<td>A (\w+) &lt;<td>ada", auctions) == [
        ("chair", "chair"),
        ("table", "table"),
        ("lamp", "lamp"),
    ]
    assert re.findall(r"<tr><td>(\d+)<td>(\d+)<td>(\w+)", users) == [
        ("1005", "0", "eve"),
        ("995", "60", "ada"),
    ]
    assert "the receiver was deleted" in failures
    assert "Auction(&#x27;rug&#x27;)" in failures


def test_the_app_is_small() -> None:
    folder = Path(house.__file__).parent
    programs = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    assert sum(text.count("\n") for text in programs) <= 300
