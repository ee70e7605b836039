"""Copies and changes of raw storage, over the definitions that the property test draws."""

from __future__ import annotations

from typing import Any

from hypothesis import given, reject
from hypothesis import strategies as st

from .definitions import definitions
from .drawn_types import Typed
from .profile import examples
from .raw import Uncopyable, copied, mutables, wreck
from .snapshot import sharing, snapshot


@examples(100)
@given(st.data(), definitions())
def test_a_copy_is_the_same_and_shares_nothing(data: st.DataObject, drawn: Typed) -> None:
    value: Any = data.draw(drawn.values)
    before = snapshot(value)
    try:
        made = copied(value)
    except Uncopyable:
        reject()
    assert snapshot(made) == before
    assert sharing(made) == sharing(value)
    assert not mutables(made).keys() & mutables(value).keys()
    wreck(made)
    assert snapshot(value) == before
    assert (snapshot(made) != before) == bool(mutables(value))
