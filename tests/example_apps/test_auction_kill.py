"""200 bidders at once, and SIGKILL in the middle: no money appears or vanishes.

On one process, on two that share a file, and on two that share a PostgreSQL database.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import attrs
import httpx
import pytest
from cli.support import ROOT
from documentation.server import free_port
from support.postgres import running

from examples.auction.house import CREDIT, Auction, Mailer, User
from trio_durable import DurableRuntime
from trio_durable.testing import drain_messages, fire_alarm

SECONDS = 60
"""The time that a client tries. Nothing takes that long unless it is stuck."""
AUCTIONS = [f"a-{number}" for number in range(5)]
BIDDERS = 200
BIDS = 3


@attrs.define
class Worker:
    """A server process of the app on a port of its own, which can be killed and started again."""

    storage: str
    folder: Path
    port: int = attrs.field(factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.folder / f"{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "uvicorn",
                    "examples.auction.app:app",
                    f"--port={self.port}",
                ],
                cwd=ROOT,
                env=os.environ | {"AUCTION_DB": self.storage},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(SECONDS) in (0, -15), self.log

    @property
    def log(self) -> str:
        return (self.folder / f"{self.port}.log").read_text(errors="replace")


Start = Callable[[str, int], list[Worker]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(storage: str, count: int) -> list[Worker]:
            workers = [Worker(storage, tmp_path) for _ in range(count)]
            for worker in workers:
                worker.start()
                stack.callback(worker.kill)
            return workers

        yield start


@attrs.define
class Bidders:
    """Clients that repeat each request with its key until they get an answer."""

    workers: list[Worker]
    client: httpx.AsyncClient
    accepted: Counter[str] = attrs.field(factory=Counter)

    async def request(self, number: int, method: str, path: str, json: object, key: str) -> int:
        headers = {"X-User": f"u-{number}", "Idempotency-Key": key}
        with anyio.fail_after(SECONDS):
            for attempt in range(number, 1_000_000):
                url = self.workers[attempt % len(self.workers)].url + path
                try:
                    answer = await self.client.request(method, url, json=json, headers=headers)
                except httpx.TransportError:
                    pass  # it is down, or has been killed
                else:
                    if answer.status_code not in (503, 504):
                        return answer.status_code
                await anyio.sleep(0.05)
        raise AssertionError

    async def bid(self, number: int) -> None:
        for each in range(BIDS):
            auction = AUCTIONS[(number + each) % len(AUCTIONS)]
            amount = {"amount": number + 1 + each * 100}
            path = f"/auctions/{auction}/bids"
            status = await self.request(number, "POST", path, amount, f"k-{each}")
            assert status in (202, 409), status
            self.accepted[f"u-{number}"] += status == 202
            if self.accepted.total() == BIDDERS * BIDS // 3:
                # The other clients are waiting for answers.
                self.workers[0].kill()
                self.workers[0].start()


async def bid_and_kill(workers: list[Worker]) -> Counter[str]:
    limits = httpx.Limits(max_connections=BIDDERS)
    async with httpx.AsyncClient(limits=limits, timeout=SECONDS) as client:
        bidders = Bidders(workers, client)
        for number, auction in enumerate(AUCTIONS):
            new = {"title": auction, "minutes": 600}
            assert await bidders.request(number, "PUT", f"/auctions/{auction}", new, "k") == 204
        async with anyio.create_task_group() as tasks:
            for number in range(BIDDERS):
                tasks.start_soon(bidders.bid, number)
    return bidders.accepted


async def check(storage: str, accepted: Counter[str]) -> None:
    """Each accepted bid has had one outcome, and the sum of all money is what it was."""
    objects = [Auction, Mailer, User]
    async with DurableRuntime(storage, objects=objects, cluster=True) as runtime:
        drained = await drain_messages(runtime)
        assert (drained.dead, drained.waiting) == (0, ())
        leading: Counter[str] = Counter()
        for auction in await runtime.list_states(Auction):
            assert auction.state.leader is not None
            leading[auction.state.leader] += auction.state.price
        for user in await runtime.list_states(User, limit=1000):
            assert user.state.reserved == leading[user.key.object_id]

        for name in AUCTIONS:
            await runtime.ensure_started(Auction, name)
            await fire_alarm(runtime, Auction, name, "close")
        await drain_messages(runtime)
        users = {
            each.key.object_id: each.state for each in await runtime.list_states(User, limit=1000)
        }
        assert len(users) == BIDDERS
        assert sum(each.balance for each in users.values()) == BIDDERS * CREDIT
        assert all(each.reserved == 0 for each in users.values())
        outcomes = {
            name: sum("sold" not in line for line in each.news) for name, each in users.items()
        }
        assert outcomes == accepted


def story(start: Start, storage: str, workers: int) -> None:
    started = start(storage, workers)
    accepted = anyio.run(bid_and_kill, started)
    assert accepted.total() >= BIDDERS
    for worker in started:
        worker.stop()
        assert "Traceback" not in worker.log
    anyio.run(check, storage, accepted)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_kill_on_a_file(start: Start, tmp_path: Path, workers: int) -> None:
    story(start, str(tmp_path / "auction.db"), workers)


@pytest.mark.timeout(300)
def test_a_kill_on_postgres(start: Start) -> None:
    with running(max_connections=60) as server:
        server.execute("CREATE DATABASE auction")
        story(start, server.url(database="auction"), 2)
