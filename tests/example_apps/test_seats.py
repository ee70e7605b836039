from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import anyio
import httpx
import pytest

from examples.seats import Seat, app
from trio_durable import DurableRuntime
from trio_durable.testing import perform_alarm_handler, perform_handler


@pytest.mark.anyio
async def test_a_seat_is_held_for_ten_minutes() -> None:
    async with DurableRuntime(":memory:", objects=[Seat]):
        assert await Seat.hold("1A", "ada")
        assert not await Seat.hold("1A", "bob")
        await anyio.sleep(599)
        assert not await Seat.hold("1A", "bob")
        await anyio.sleep(2)
        assert await Seat.hold("1A", "bob")


@pytest.mark.anyio
async def test_holding_it_again_does_not_prolong_it() -> None:
    first = await perform_handler(Seat(), "hold", "ada")
    assert first.alarms["release"].due_at == first.began_at + timedelta(minutes=10)
    again = await perform_handler(first.state, "hold", "ada")
    assert (again.result, again.alarms) == (True, {})
    assert (await perform_alarm_handler(again.state, "release")).state == Seat()


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_over_http(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In real time: a virtual clock would jump while the storage's thread works.
    monkeypatch.chdir(tmp_path)

    async def main() -> list[bool]:
        transport = httpx.ASGITransport(app)
        client = httpx.AsyncClient(transport=transport, base_url="http://seats")
        async with app.router.lifespan_context(app), client:
            return [
                (await client.post("/seats/1A/hold", params={"user": user})).json()
                for user in ("ada", "bob", "ada")
            ]

    assert anyio.run(main, backend=backend) == [True, False, True]
