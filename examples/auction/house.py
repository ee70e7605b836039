"""The objects of an auction house: users with money, auctions, and mail.

Money never changes hands between two awaits. A bid reserves it at the bidder and offers it to the
auction in one commit. The auction sends it back, or at the end lets the winner pay the seller.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import attrs

from trio_durable import DurableObject, Retry, alarm, handler

CREDIT = 1_000
"""The balance of a new user."""
LAST_SECONDS = timedelta(seconds=10)
"""A bid in the last seconds moves the end by as much."""


class Refused(Exception):
    """The answer is no, and says why."""


async def send_mail(user: str, lines: list[str], key: str) -> None:
    """Send a mail, once per ``key``; in place of your provider."""
    print(f"mail {key} to {user}: {lines}")


def next_nine(now: datetime, zone: str) -> datetime:
    """The next nine o'clock in a time zone."""
    here = now.astimezone(ZoneInfo(zone))
    nine = datetime.combine(here.date(), time(9), here.tzinfo)
    return nine if nine > here else nine + timedelta(days=1)  # of the calendar, not 24 hours


class Mailer(DurableObject):
    """The mail to one user, whose name is the id."""

    @handler(retry=Retry(attempts=8), limit=30)
    async def send(self, lines: list[str]) -> None:
        assert self.ctx.message is not None
        await send_mail(self.ctx.object_id, lines, self.ctx.message.id)


class User(DurableObject, remember=timedelta(days=2)):
    balance: int = CREDIT
    reserved: int = 0  # a part of the balance
    zone: str = "UTC"
    news: list[str] = attrs.field(factory=list)

    @handler
    def sign_up(self, zone: str) -> None:
        """Get a digest each morning at nine."""
        self.zone = ZoneInfo(zone).key
        self.ctx.schedule_alarm("digest", at=next_nine(self.ctx.now(), self.zone))

    @handler(expected=Refused)
    def bid(self, auction: str, amount: int) -> None:
        """Reserve the amount, and offer it to the auction."""
        free = self.balance - self.reserved
        if not 1 <= amount <= free:
            raise Refused(f"you can bid from 1 to {free}")
        self.reserved += amount
        self.ctx.send(Auction.offer, auction, self.ctx.object_id, amount)

    @handler
    def release(self, auction: str, amount: int) -> None:
        """Take back the reservation of a bid that was refused or outbid."""
        self.reserved -= amount
        self._note(f"{auction}: your bid of {amount} was not enough")

    @handler
    def pay(self, auction: str, amount: int, seller: str) -> None:
        """Pay for a bid that has won."""
        self.reserved -= amount
        self.balance -= amount
        self._note(f"{auction}: you won for {amount}")
        self.ctx.send(User.receive, seller, auction, amount)

    @handler
    def receive(self, auction: str, amount: int) -> None:
        """Get the price of an auction."""
        self.balance += amount
        self._note(f"{auction}: sold for {amount}")

    @alarm
    def digest(self) -> None:
        """Mail the news of the day, and wait for the next one."""
        if self.news:
            self.ctx.send(Mailer.send, self.ctx.object_id, self.news)
        self.news = []
        self.ctx.schedule_alarm("digest", at=next_nine(self.ctx.now(), self.zone))

    @handler(readonly=True)
    def account(self) -> dict[str, int | list[str]]:
        return {"balance": self.balance, "reserved": self.reserved, "news": self.news}

    def _note(self, line: str) -> None:
        self.news = [*self.news, line][-50:]


@attrs.frozen
class Bid:
    user: str
    amount: int


class Auction(DurableObject):
    title: str = ""
    seller: str = ""
    status: Literal["new", "open", "over"] = "new"
    closes_at: datetime | None = None
    leader: str | None = None
    price: int = 0
    bids: list[Bid] = attrs.field(factory=list)  # the last 20

    @handler(expected=Refused)
    def begin(self, title: str, seller: str, minutes: int) -> None:
        """Open the auction. A repetition changes nothing."""
        if self.status == "new":
            self.title, self.seller, self.status = title, seller, "open"
            self._close_at(self.ctx.now() + timedelta(minutes=minutes))
        elif (self.title, self.seller) != (title, seller):
            raise Refused("there is another auction of this name")

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
        self.bids = [*self.bids, Bid(user, amount)][-20:]
        if self.closes_at - now < LAST_SECONDS:
            self._close_at(now + LAST_SECONDS)

    @alarm
    def close(self) -> None:
        """Let the winner pay."""
        self.status, self.closes_at = "over", None
        if self.leader is not None:
            name, seller = self.ctx.object_id, self.seller
            self.ctx.send(User.pay, self.leader, name, self.price, seller)

    def _close_at(self, at: datetime) -> None:
        self.closes_at = at
        self.ctx.schedule_alarm("close", at=at)  # replaces the one before
