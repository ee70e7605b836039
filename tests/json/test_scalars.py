"""The tables of scalars, and the lists elsewhere that must agree with them."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.codecs import box

from trio_durable import DefinitionError
from trio_durable._activations import by_value
from trio_durable._json.scalars import OWN
from trio_durable._json.texts import TEXTS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "state.md"
SCALARS = {*OWN, *TEXTS, timedelta}


def names(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def section() -> str:
    _, _, text = PAGE.read_text("utf-8").partition("\n## The list\n")
    return text.partition("\n## ")[0]


def test_the_page_lists_every_scalar() -> None:
    shown = {"None" if tp is type(None) else tp.__name__ for tp in SCALARS}
    assert shown - {"PosixPath", "WindowsPath"} <= names(section())


def test_the_page_lists_the_types_that_keys_may_be() -> None:
    (keys,) = re.findall(r"\*\*Keys\*\* of dicts are ([^.]*)\.", section())
    assert names(keys) == {"str", "int", "bool", "BigInt", "Literal", "tuple"}


@pytest.mark.parametrize("key", [bytes, *TEXTS, int, bool, str], ids=lambda tp: tp.__name__)
def test_types_that_are_written_as_text_are_keys(key: Any) -> None:
    box(dict[key, int], {})


def test_every_scalar_is_passed_by_value_without_a_copy() -> None:
    kinds = {type_ for form in (*OWN.values(), *TEXTS.values()) for type_ in form.types}
    assert {*kinds, timedelta} <= by_value._ATOMS


@pytest.mark.parametrize(
    ("key", "named"), [(float, "float"), (tuple[int, float], "tuple")], ids=str
)
def test_the_error_of_a_bad_key_lists_the_types_of_keys(key: Any, named: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        box(dict[key, int], {})
    assert caught.value.problem == (
        f"{named} can't be the key of a dict in JSON; use str, int, bool, a type that is written "
        "as text, an enum, a Literal or a tuple of these"
    )
