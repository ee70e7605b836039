"""The table of scalars, and the lists elsewhere that must agree with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.codecs import box, codec_of

from trio_durable import DefinitionError
from trio_durable._activations import by_value
from trio_durable._json.scalars import JSON_SCALARS, KEY_SCALARS, SCALARS

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"


def names(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def section() -> str:
    _, _, text = GUIDE.read_text("utf-8").partition("\n### What state may hold\n")
    return text.partition("\n### ")[0]


def test_the_guide_lists_every_scalar() -> None:
    shown = {"None" if tp is type(None) else tp.__name__ for tp in SCALARS}
    assert shown <= names(section())


def test_the_guide_lists_the_scalars_that_keys_may_be() -> None:
    (keys,) = re.findall(r"`dict` \(keys of ([^)]*)\)", section())
    assert names(keys) == {tp.__name__ for tp in KEY_SCALARS} | {"int"}


def test_every_scalar_is_passed_by_value_without_a_copy() -> None:
    assert SCALARS.keys() <= by_value._ATOMS


def test_scalars_of_keys_and_of_json_are_scalars() -> None:
    assert SCALARS.keys() >= {*KEY_SCALARS, *JSON_SCALARS}


@pytest.mark.parametrize(
    ("key", "named"), [(float, "float"), (tuple[int, int], "tuple[int, int]")], ids=str
)
def test_the_error_of_a_bad_key_lists_the_types_of_keys(key: Any, named: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        codec_of(box(dict[key, int], {}))
    assert caught.value.problem == (
        f"{named} can't be the key of a dict in JSON; use int, str, UUID, date, datetime, Decimal, "
        "an enum or a Literal of str"
    )
