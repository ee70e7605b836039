"""An auction house: bids with money, a closing time that moves, and a digest each morning.

Money never changes hands between two awaits. A bid reserves it at the bidder and offers it to the
auction in one commit. The auction sends it back, or at the end lets the winner pay the seller.
`simulations.py` looks for stories of bids and crashes after which money is missing or reserved for
nothing.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import attrs

from trio_durable import DurableObject, alarm, handler

CREDIT = 1_000
"""The balance of a new user."""
LAST_SECONDS = timedelta(seconds=10)
"""A bid in the last seconds moves the end by as much."""
LAST_BIDS = 20
"""The number of bids that an auction keeps."""


class NotEnough(Exception):
    """The user's money is reserved by other bids, or there isn't as much."""


class NotOpen(Exception):
    """The auction is over, or hasn't begun."""


async def send_mail(user: str, lines: list[str], key: str) -> None:
    """Send a digest, once per ``key``."""


@attrs.frozen
class Bid:
    user: str
    amount: int
    at: datetime


class User(DurableObject, remember=timedelta(days=2)):
    balance: int = CREDIT
    reserved: int = 0  # a part of the balance
    zone: str = "UTC"
    news: list[str] = attrs.field(factory=list)

    @handler
    def sign_up(self, zone: str) -> None:
        """Get a digest each morning at nine."""
        self.zone = ZoneInfo(zone).key
        self._wait_for_the_morning()

    @handler(expected=NotEnough)
    def bid(self, auction: str, amount: int) -> None:
        """Reserve the amount, and offer it to the auction."""
        if amount < 1 or amount > self.balance - self.reserved:
            raise NotEnough(self.balance - self.reserved)
        self.reserved += amount
        self.ctx.send(Auction.offer, auction, self.ctx.object_id, amount)

    @handler
    def release(self, auction: str, amount: int) -> None:
        """Take back the reservation of a bid that was refused or outbid."""
        self.reserved -= amount
        self.news.append(f"{auction}: your bid of {amount} was not enough")

    @handler
    def pay(self, auction: str, amount: int, seller: str) -> None:
        """Pay for a bid that has won."""
        self.reserved -= amount
        self.balance -= amount
        self.news.append(f"{auction}: you won for {amount}")
        self.ctx.send(User.receive, seller, auction, amount)

    @handler
    def receive(self, auction: str, amount: int) -> None:
        """Get the price of an auction."""
        self.balance += amount
        self.news.append(f"{auction}: sold for {amount}")

    @alarm
    async def digest(self) -> None:
        """Send the news of the day. The alarm's time is the key: the same at each attempt."""
        assert self.ctx.alarm is not None
        if self.news:
            key = f"{self.ctx.object_id} {self.ctx.alarm.due_at.isoformat()}"
            await send_mail(self.ctx.object_id, self.news, key)
        self.news = []
        self._wait_for_the_morning()

    def _wait_for_the_morning(self) -> None:
        now = self.ctx.now().astimezone(ZoneInfo(self.zone))
        nine = datetime.combine(now.date(), time(9), ZoneInfo(self.zone))
        if nine <= now:
            nine = datetime.combine(now.date() + timedelta(days=1), time(9), nine.tzinfo)
        self.ctx.schedule_alarm("digest", at=nine)


class Auction(DurableObject):
    title: str = ""
    seller: str = ""
    status: Literal["new", "open", "over"] = "new"
    closes_at: datetime | None = None
    leader: str | None = None
    price: int = 0
    bids: list[Bid] = attrs.field(factory=list)

    @handler
    def begin(self, title: str, seller: str, minutes: int) -> None:
        """Open the auction. A repetition changes nothing."""
        if self.status == "new":
            self.title, self.seller, self.status = title, seller, "open"
            self._close_at(self.ctx.now() + timedelta(minutes=max(minutes, 1)))

    @handler
    def offer(self, user: str, amount: int) -> None:
        """Take the highest bid, and send back any other."""
        now = self.ctx.now()
        if self.closes_at is None or now >= self.closes_at or amount <= self.price:
            self.ctx.send(User.release, user, self.ctx.object_id, amount)
            return
        if self.leader is not None:
            self.ctx.send(User.release, self.leader, self.ctx.object_id, self.price)
        self.leader, self.price = user, amount
        self.bids = [*self.bids, Bid(user, amount, now)][-LAST_BIDS:]
        if self.closes_at - now < LAST_SECONDS:
            self._close_at(now + LAST_SECONDS)

    @alarm
    def close(self) -> None:
        """Let the winner pay."""
        self.status, self.closes_at = "over", None
        if self.leader is not None:
            auction = self.ctx.object_id
            self.ctx.send(User.pay, self.leader, auction, self.price, self.seller)

    def _close_at(self, at: datetime) -> None:
        self.closes_at = at
        self.ctx.schedule_alarm("close", at=at)  # replaces the one before
