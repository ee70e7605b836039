"""The page of the administrators: open auctions by value, users by balance, and failures."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeVar

from trio_durable import DurableError, DurableObject, current_runtime

from .house import Auction, User

T = TypeVar("T", bound=DurableObject)


async def overview() -> str:
    failures: list[tuple[object, ...]] = [
        (each.id, each.receiver, each.handler, each.last_error)
        for each in await current_runtime().list_dead_messages()
    ]
    auctions = [
        (each.price, name, each.title, each.leader)
        for name, each in await states(Auction, failures)
        if each.status == "open"
    ]
    users = [(u.balance, u.reserved, name) for name, u in await states(User, failures)]
    return (
        "<!doctype html><meta charset=utf-8><title>Auctions</title>"
        + table("Open auctions", sorted(auctions, reverse=True))
        + table("Users", sorted(users, reverse=True))
        + table("Failures", failures)
    )


async def states(cls: type[T], failures: list[tuple[object, ...]]) -> list[tuple[str, T]]:
    """All states of a class by id. States that can't be read are failures."""
    found, after = list[tuple[str, T]](), None
    while True:
        page = await current_runtime().list_states(cls, after=after, limit=1000)
        for each in page:
            try:
                found.append((each.key.object_id, each.state))
            except DurableError as error:
                failures.append(("", each.key, "", error))
        if page.next is None:
            return found
        after = page.next


def table(title: str, rows: Iterable[tuple[object, ...]]) -> str:
    lines = ("".join(f"<td>{escape(str(cell))}" for cell in row) for row in rows)
    return f"<h1>{title}</h1><table>{''.join(f'<tr>{line}' for line in lines)}</table>"
