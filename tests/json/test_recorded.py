"""State that another declaration wrote: read as the type that wrote it, or by a rule."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs
import pytest
from exactness.snapshot import same
from support.codecs import KEY, Item, Row, box, codec_of

from trio_durable import BigInt, DurableObject, definition_of, upgrade
from trio_durable._api.registry import state_codec


@pytest.mark.parametrize(
    ("stored", "value", "now"),
    [
        (Sequence[Sequence[Row]], [[]], Sequence[Sequence[Row]] | None),
        (Sequence[Sequence[Row]], [()], Sequence[Sequence[Row]] | None),
        (list[Item | Row], [], list[Item | Row] | tuple[Item | Row, ...]),
        (list[datetime | list[Row]], [[]], list[datetime | list[Row]] | tuple[Row, ...]),
    ],
    ids=repr,
)
def test_a_union_in_a_union_is_read_as_the_member_that_wrote_it(
    stored: Any, value: Any, now: Any
) -> None:
    before, after = box(stored, value), box(now, value)
    state = codec_of(before).encode(KEY, before(value=value))
    assert same(codec_of(after).decode(KEY, state).value, value)


def test_an_int_of_the_last_release_is_read_as_a_big_int() -> None:
    codec = codec_of(box(BigInt, 0))
    assert codec.decode(KEY, b'{"value":7}').value == 7
    assert codec.decode(KEY, b'{"value":"7"}').value == 7


class Before(DurableObject, name="Recent"):
    lines: deque[str] = attrs.field(factory=lambda: deque("ab", 2))


class After(DurableObject, name="Recent", schema=2):
    recent: deque[str] = attrs.field(factory=deque)

    @upgrade(from_schema=1)
    @staticmethod
    def rename(state: dict[str, Any]) -> dict[str, Any]:
        state["recent"] = state.pop("lines")
        return state


def test_an_upgrade_moves_a_deque_with_its_maxlen() -> None:
    before, after = (state_codec(definition_of(cls)) for cls in (Before, After))
    assert after.decode(KEY, before.encode(KEY, Before())).recent.maxlen == 2
