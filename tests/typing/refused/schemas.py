"""Wrong schemas and upgrades, as far as annotations can tell."""

from __future__ import annotations

from typing import Any

from trio_durable import DurableObject, upgrade


class WrongSchema(DurableObject, schema="2"):  # refused
    pass


class Cart(DurableObject, schema=2):
    @upgrade(from_schema=1)
    @staticmethod
    def right(state: dict[str, Any]) -> dict[str, Any]:
        return state

    @upgrade(from_schema="1")  # refused
    @staticmethod
    def wrong_number(state: dict[str, Any]) -> dict[str, Any]:
        return state

    @upgrade(from_schema=1)  # refused
    @staticmethod
    def wrong_argument(state: int) -> dict[str, Any]:
        return {}

    @upgrade(from_schema=1)  # refused
    @staticmethod
    def wrong_result(state: dict[str, Any]) -> int:
        return 1

    @upgrade(from_schema=1)  # refused
    @staticmethod
    async def wrong_kind(state: dict[str, Any]) -> dict[str, Any]:
        return state

    @upgrade(from_schema=1)  # refused
    @staticmethod
    def wrong_count(state: dict[str, Any], more: int) -> dict[str, Any]:
        return state

    @upgrade(from_schema=1)  # refused
    def with_self(self, state: dict[str, Any]) -> dict[str, Any]:
        return state

    @upgrade()  # refused
    @staticmethod
    def without_number(state: dict[str, Any]) -> dict[str, Any]:
        return state


def wrong_calls() -> None:
    Cart.right(1)  # refused
    text: str = Cart.right({})  # refused
    del text
