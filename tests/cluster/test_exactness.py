"""What crosses is what a local copy is, for types and values drawn together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from exactness.definitions import definitions
from exactness.drawn_types import Typed
from exactness.raw import mutables
from exactness.snapshot import Snapshot, same, snapshot
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from trio_durable import ArgumentError, DefinitionError, ReplyError
from trio_durable._activations.by_value import copied

from .codecs import KEY, codec_of, crossed, echo, key, replied

relaxed = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
    ],
)


def in_any_order(value: Snapshot) -> Any:
    """A snapshot in which dicts have no order: a TypedDict arrives in that of its declaration."""
    if not isinstance(value, tuple):
        return value
    parts = tuple(map(in_any_order, value))
    if parts[:1] != ("dict",):
        return parts
    return tuple(sorted(part, key=repr) if isinstance(part, tuple) else part for part in parts)


def refusal(run: Callable[..., object], *args: Any) -> str:
    """The text of the error with which an argument is refused."""
    with pytest.raises(ArgumentError, match="the argument value") as raised:
        run(*args)
    return str(raised.value)


@relaxed
@given(st.data(), definitions())
def test_what_crosses_is_what_a_local_copy_is(data: st.DataObject, drawn: Typed) -> None:
    try:
        codec = codec_of(echo(drawn.annotation))
    except DefinitionError:
        reject()
    value = data.draw(drawn.values, "value")
    before = snapshot(value)
    try:
        (there,), _ = crossed(codec, value)
    except ArgumentError:
        # In this process it is refused as well, and in the same words.
        there = refusal(codec.encode_arguments, key, (value,), {})
        assert refusal(codec.local_arguments, key, (value,), {}) == there
        with pytest.raises(ReplyError):
            codec.encode_reply(KEY, value)
        return
    (named,) = crossed(codec, value=value)[1].values()
    (here,), _ = codec.local_arguments(key, (value,), {})
    assert snapshot(value) == before
    for other in (named, here, replied(codec, value), codec.local_reply(KEY, value)):
        assert same(other, there)
        assert mutables(other).keys().isdisjoint(mutables(value, there))
    assert in_any_order(snapshot(there)) == in_any_order(before)
    assert in_any_order(snapshot(copied(value))) == in_any_order(before)
    # What has arrived can be sent on.
    assert codec.encode_arguments(key, (there,), {}) == codec.encode_arguments(key, (value,), {})


@relaxed
@given(st.data(), definitions(), definitions())
def test_values_of_other_types_arrive_as_they_were_or_are_refused(
    data: st.DataObject, declared: Typed, other: Typed
) -> None:
    try:
        codec = codec_of(echo(declared.annotation))
    except DefinitionError:
        reject()
    value = data.draw(other.values, "value")
    before = snapshot(value)
    try:
        encoded = codec.encode_arguments(key, (value,), {})
    except ArgumentError:
        refusal(codec.encode_arguments, key, (value,), {})
        return
    (there,), _ = codec.decode_arguments(key, orjson.loads(encoded))
    assert in_any_order(snapshot(there)) == in_any_order(before)


@relaxed
@given(st.data(), definitions(), definitions())
def test_another_release_reads_the_value_or_refuses_it(
    data: st.DataObject, old: Typed, new: Typed
) -> None:
    try:
        sender, receiver = codec_of(echo(old.annotation)), codec_of(echo(new.annotation))
        encoded = sender.encode_arguments(key, (data.draw(old.values, "value"),), {})
        (there,), _ = receiver.decode_arguments(key, orjson.loads(encoded))
    except DefinitionError:
        reject()
    except ArgumentError:
        return
    assert receiver.encode_arguments(key, (there,), {})  # what is read can be sent on
