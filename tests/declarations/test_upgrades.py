"""Schemas and upgrades as declared."""

from __future__ import annotations

from typing import Any

from trio_durable import DurableObject, UpgradeDefinition, definition_of, upgrade

from .examples import UPGRADE, Billed, Counter, Labelled, as_it_is, define


def test_a_class_has_schema_1_unless_it_says_otherwise() -> None:
    definition = definition_of(Counter)
    assert definition.schema == 1
    assert definition.upgrades == {}


def test_upgrades_in_the_definition() -> None:
    definition = definition_of(Billed)
    assert definition.schema == 2
    assert definition.upgrades == {1: UpgradeDefinition("to_cents", Billed.to_cents, 1)}
    assert definition.handlers.keys() == {"pay"}
    assert definition.fields.keys() == {"cents"}


def test_upgrades_are_listed_in_the_order_in_which_they_run() -> None:
    steps = [UPGRADE.format(number, f"from_{number}") for number in (3, 1, 4, 2)]
    definition = definition_of(define("DurableObject, schema=5", "".join(steps)))
    assert list(definition.upgrades) == [1, 2, 3, 4]
    assert [step.name for step in definition.upgrades.values()] == [
        "from_1",
        "from_2",
        "from_3",
        "from_4",
    ]


def test_an_upgrade_is_called_as_a_function() -> None:
    assert Billed.to_cents({"price": 3}) == {"cents": 300}
    assert Billed().to_cents({"price": 3}) == {"cents": 300}
    assert Billed.to_cents.__doc__ == "Count cents."


def test_upgrades_may_be_private_and_made_elsewhere() -> None:
    cls = define(
        "DurableObject, schema=3",
        UPGRADE.format(1, "_quiet") + "loud = upgrade(from_schema=2)(staticmethod(as_it_is))",
    )
    upgrades = definition_of(cls).upgrades
    assert [step.name for step in upgrades.values()] == ["_quiet", "loud"]
    assert upgrades[2].function is as_it_is


def test_schema_and_upgrades_are_inherited_with_the_fields() -> None:
    # What a subclass has stored so far holds the base's fields in their older form, too.
    class Sub(Billed, hibernate_after=1):
        title: str = ""

    assert definition_of(Sub).schema == 2
    assert definition_of(Sub).upgrades == definition_of(Billed).upgrades


def test_a_subclass_counts_on_from_its_base() -> None:
    class Sub(Billed, schema=3):
        @upgrade(from_schema=2)
        @staticmethod
        def to_title(state: dict[str, Any]) -> dict[str, Any]:
            return state

    assert [step.name for step in definition_of(Sub).upgrades.values()] == ["to_cents", "to_title"]
    assert definition_of(Billed).schema == 2


def test_a_subclass_replaces_an_upgrade_under_its_name() -> None:
    class Sub(Billed):
        @upgrade(from_schema=1)
        @staticmethod
        def to_cents(state: dict[str, Any]) -> dict[str, Any]:
            return {**Billed.to_cents(state), "rounded": True}

    assert definition_of(Sub).upgrades[1].function({"price": 1}) == {"cents": 100, "rounded": True}


def test_two_bases_with_upgrades_are_put_in_a_row() -> None:
    class Both(Billed, Labelled, schema=3):
        @upgrade(from_schema=2)
        @staticmethod
        def to_label(state: dict[str, Any]) -> dict[str, Any]:
            return Labelled.to_label(state)

    assert [step.name for step in definition_of(Both).upgrades.values()] == ["to_cents", "to_label"]


def test_a_base_without_upgrades_beside_one_with() -> None:
    class Both(Counter, Billed):
        pass

    assert definition_of(Both).schema == 2


def test_upgrades_of_plain_mixins() -> None:
    class Renaming:
        @upgrade(from_schema=1)
        @staticmethod
        def rename(state: dict[str, Any]) -> dict[str, Any]:
            return state

    class Named(Renaming, DurableObject, schema=2):
        title: str = ""

    assert definition_of(Named).upgrades.keys() == {1}
