"""Depth: nesting is bounded at write, so that whatever is stored can be read."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from support.codecs import KEY, box, codec_of
from typing_extensions import TypeAliasType

from trio_durable import DurableObject, StateEncodeError
from trio_durable._json.depth import MAX_DEPTH

Tree = TypeAliasType("Tree", "list[Tree] | int")
Bare = TypeAliasType("Bare", "list[Bare]")


@attrs.define
class Node:
    next: Node | None = None


@attrs.define
class Branch:
    children: list[Branch] = attrs.field(factory=list)


@attrs.define
class Either:
    next: Either | int | None = None


def lists(levels: int) -> Any:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def dicts(levels: int) -> Any:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def nodes(levels: int) -> Node:
    value = Node()
    for _ in range(levels - 1):
        value = Node(value)
    return value


def branches(levels: int) -> Branch:
    """Two levels of JSON for each branch."""
    value = Branch()
    for _ in range(levels // 2 - 1):
        value = Branch([value])
    return value


def either(levels: int) -> Either:
    """Two levels of JSON for each one, with its tag."""
    value = Either()
    for _ in range((levels + 1) // 2 - 1):
        value = Either(value)
    return value


KINDS = [
    (Any, lists, 1),
    (Any, dicts, 1),
    (dict[str, Any], dicts, 1),
    (Bare, lists, 1),
    (Node, nodes, 1),
    (Branch, branches, 2),
    (Either, either, 2),
]


@pytest.mark.parametrize(("annotation", "make", "step"), KINDS)
def test_nesting_is_bounded_and_all_that_is_written_is_read(
    annotation: Any, make: Any, step: int
) -> None:
    cls = box(annotation | None, None) if annotation is not Bare else box(annotation, [])
    codec = codec_of(cls)
    most = MAX_DEPTH - 1  # the state itself is one level
    deepest = make(most - most % step if step == 2 and annotation is Branch else most)
    state = codec.encode(KEY, cls(value=deepest))
    for other in (state, state.partition(b',"$as"')[0] + b"}"):
        back = codec.decode(KEY, other)
        assert codec.encode(KEY, back) == state
    with pytest.raises(StateEncodeError, match="more than 200 levels") as caught:
        codec.encode(KEY, cls(value=make(most + step)))
    assert caught.value.field.startswith("value")


class Earlier(DurableObject, name="Deep"):
    node: Node | None = None
    either: Either | None = None


class Later(DurableObject, name="Deep"):
    node: Node | None = None
    either: Either | None = None
    added: bytes = b""


def test_deep_state_of_another_declaration_is_read() -> None:
    state = codec_of(Earlier).encode(KEY, Earlier(node=nodes(199), either=either(199)))
    back = codec_of(Later).decode(KEY, state)
    assert codec_of(Later).encode(KEY, back).startswith(state.partition(b',"$as"')[0])
