"""Schemas and upgrades: in the body, called as functions, introspected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, assert_type

import attrs

from trio_durable import (
    DurableObject,
    StateDecodeError,
    StateTooNew,
    UpgradeDefinition,
    definition_of,
    handler,
    upgrade,
)

State = dict[str, Any]


def logged(function: Callable[[State], State]) -> Callable[[State], State]:
    @wraps(function)
    def inner(state: State) -> State:
        return function(state)

    return inner


class Cart(DurableObject, schema=4):
    cents: int = 0
    items: dict[str, int] = attrs.field(factory=dict[str, int])

    @upgrade(from_schema=1)
    @staticmethod
    def count_cents(state: dict[str, Any]) -> dict[str, Any]:
        """Say it in cents."""
        state["cents"] = round(state.pop("total") * 100)
        return state

    @upgrade(from_schema=2)
    @staticmethod
    def _count_items(state: State) -> State:
        return {**state, "items": dict.fromkeys(state["items"], 1)}

    @upgrade(from_schema=3)
    @staticmethod
    @logged
    def rename(state: State) -> State:
        return state

    @handler
    def look(self) -> int:
        return self.cents


class Special(Cart, schema=5):
    @upgrade(from_schema=1)
    @staticmethod
    def count_cents(state: State) -> State:
        return Cart.count_cents(state)

    @upgrade(from_schema=4)
    @staticmethod
    def keep(state: State) -> State:
        return state


def called() -> None:
    assert_type(Cart.count_cents({"total": 1}), dict[str, Any])
    assert_type(Cart().count_cents({"total": 1}), dict[str, Any])
    Cart(cents=1, items={"apple": 2})


def introspected() -> None:
    definition = definition_of(Cart)
    assert_type(definition.schema, int)
    assert_type(definition.upgrades, Mapping[int, UpgradeDefinition])
    step = definition.upgrades[1]
    assert_type(step.name, str)
    assert_type(step.from_schema, int)
    assert_type(step.function({}), dict[str, Any])


def refused(error: StateDecodeError) -> tuple[int, int] | None:
    if isinstance(error, StateTooNew):
        assert_type(error.stored_schema, int)
        return error.stored_schema, error.schema
    return None
