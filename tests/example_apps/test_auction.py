"""The objects of the auction house, turn by turn and in virtual time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import anyio
import pytest

from examples.auction import house
from examples.auction.house import CREDIT, Auction, Mailer, Refused, User
from trio_durable import DurableRuntime
from trio_durable.testing import assert_sent, drain_messages, fire_alarm, perform_handler

pytestmark = pytest.mark.anyio


async def test_the_winner_pays_and_the_others_get_their_money_back() -> None:
    async with DurableRuntime(":memory:", objects=[Auction, Mailer, User]) as runtime:
        await Auction.begin("lamp", "A lamp", "eve", 1)
        await User.bid("ada", "lamp", 10)
        await drain_messages(runtime)
        await User.bid("bob", "lamp", 20)
        await drain_messages(runtime)
        await User.bid("ada", "lamp", 15)  # too low
        await drain_messages(runtime)
        await anyio.sleep(61)
        await drain_messages(runtime)
        states = {each.key.object_id: each.state for each in await runtime.list_states(User)}
    assert {name: user.balance - CREDIT for name, user in states.items()} == {
        "ada": 0,
        "bob": -20,
        "eve": 20,
    }
    assert all(user.reserved == 0 for user in states.values())
    assert states["bob"].news == ["lamp: you won for 20"]
    assert states["ada"].news == [
        "lamp: your bid of 10 was not enough",
        "lamp: your bid of 15 was not enough",
    ]


async def test_money_can_be_reserved_once() -> None:
    turn = await perform_handler(User(balance=30), "bid", "lamp", 20)
    assert turn.state.reserved == 20
    assert_sent(turn, Auction.offer, "lamp", "test", 20)
    with pytest.raises(Refused):
        await perform_handler(turn.state, "bid", "chair", 11)


async def test_a_bid_in_the_last_seconds_moves_the_end() -> None:
    async with DurableRuntime(":memory:", objects=[Auction, Mailer, User]) as runtime:
        await Auction.begin("lamp", "A lamp", "eve", 1)
        await anyio.sleep(55)
        await User.bid("ada", "lamp", 10)
        await anyio.sleep(9)
        [open_] = [each.state for each in await runtime.list_states(Auction)]
        assert open_.status == "open"
        await anyio.sleep(2)
        [over] = [each.state for each in await runtime.list_states(Auction)]
        assert (over.status, over.leader) == ("over", "ada")


async def test_a_bid_after_the_end_is_sent_back() -> None:
    ended = datetime.now(UTC) - timedelta(seconds=1)
    late = Auction(status="open", closes_at=ended)
    turn = await perform_handler(late, "offer", "ada", 10)
    assert_sent(turn, User.release, "ada", "test", 10)
    assert turn.state == late


async def test_beginning_again_changes_nothing() -> None:
    first = await perform_handler(Auction(), "begin", "A lamp", "eve", 5)
    again = await perform_handler(first.state, "begin", "A lamp", "eve", 9)
    assert (again.state, again.alarms) == (first.state, {})
    with pytest.raises(Refused, match="another auction"):
        await perform_handler(first.state, "begin", "A chair", "bob", 9)


async def test_the_digest_comes_at_nine_in_the_morning_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[tuple[str, list[str], str]] = []

    async def send_mail(user: str, lines: list[str], key: str) -> None:
        sent.append((user, lines, key))

    monkeypatch.setattr(house, "send_mail", send_mail)
    async with DurableRuntime(
        ":memory:", objects=[Auction, Mailer, User], polling_interval=86400
    ) as runtime:
        await User.sign_up("ada", "America/New_York")
        [digest] = await runtime.list_alarms(User, "ada")
        local = digest.due_at.astimezone(ZoneInfo("America/New_York"))
        assert (local.hour, local.minute) == (9, 0)
        await User.receive("ada", "lamp", 5)
        await anyio.sleep(2 * 86400 + 3600)
    # The second morning had no news.
    assert [(user, lines) for user, lines, _ in sent] == [("ada", ["lamp: sold for 5"])]


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2030-03-29T07:59", "2030-03-29T08:00"),
        ("2030-03-29T08:00", "2030-03-30T08:00"),
        ("2030-03-30T08:00", "2030-03-31T07:00"),  # the clocks have been set forward
        ("2030-10-26T07:00", "2030-10-27T08:00"),  # and back
        ("2030-10-26T23:30", "2030-10-27T08:00"),  # it is Sunday there
    ],
)
async def test_nine_stays_nine_when_the_clocks_change(now: str, due: str) -> None:
    found = house.next_nine(datetime.fromisoformat(f"{now}+00:00"), "Europe/Berlin")
    assert found == datetime.fromisoformat(f"{due}+00:00")


async def test_a_mail_that_fails_for_good_is_a_dead_letter(
    durable_runtime: DurableRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send_mail(user: str, lines: list[str], key: str) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(house, "send_mail", send_mail)
    await User.receive("ada", "lamp", 5)
    await User.sign_up("ada", "UTC")
    await fire_alarm(durable_runtime, User, "ada", "digest")
    await anyio.sleep(3600)
    [dead] = await durable_runtime.list_dead_messages()
    assert (dead.handler, dead.last_error) == ("send", "ConnectionError: no route")
    assert await User.account("ada") == {"balance": CREDIT + 5, "reserved": 0, "news": []}
