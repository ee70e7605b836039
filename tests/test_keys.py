"""Ids that can name an object, and ids that can't."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_durable import ObjectKey
from trio_durable._keys import MAX_ID_BYTES, id_problem


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "object_id",
    [
        "a",
        " ",
        "user-123",
        "a/b?c#d%00",
        "\n",
        "\x01",
        "\x7f",
        "\ufeff",
        "ünï©ødé",
        "😀",
        "x" * 512,
        "é" * 256,
        "€" * 170 + "xx",
        "😀" * 128,
        Text("of a subclass"),
    ],
)
def test_good_ids(object_id: str) -> None:
    assert id_problem(object_id) is None


@pytest.mark.parametrize(
    ("object_id", "problem"),
    [
        ("", "it is empty"),
        (Text(), "it is empty"),
        ("\0", "it contains NUL"),
        ("user\0", "it contains NUL"),
        ("x" * 513, "it takes 513 bytes"),
        ("é" * 256 + "x", "it takes 513 bytes"),
        ("é" * 257, "it takes 514 bytes"),
        ("😀" * 128 + "x", "it takes 513 bytes"),
        ("\ud800", "it contains a lone surrogate"),
        ("user-\udfff", "it contains a lone surrogate"),
        ("\ud83d\ude00", "it contains a lone surrogate"),
        ("x" * 128 + "\ud800", "it contains a lone surrogate"),
        ("\ud800" * 600, "it contains a lone surrogate"),
        (None, "it is of type NoneType"),
        (7, "it is of type int"),
        (b"user", "it is of type bytes"),
        (["user"], "it is of type list"),
        (str, "it is of type type"),
    ],
)
def test_bad_ids(object_id: object, problem: str) -> None:
    assert id_problem(object_id) == problem


def _naive_is_good(object_id: str) -> bool:
    try:
        size = len(object_id.encode())
    except UnicodeEncodeError:
        return False
    return 1 <= size <= MAX_ID_BYTES and "\0" not in object_id


@given(
    st.one_of(
        st.text(st.characters(categories=None), max_size=12),
        # Around the two lengths where id_problem takes another path: 512 bytes, 128 characters.
        st.builds(
            lambda filler, count, tail: filler * count + tail,
            st.sampled_from("xé€😀"),
            st.integers(120, 520),
            st.text(st.characters(categories=None), max_size=2),
        ),
    )
)
def test_the_short_cuts_decide_like_the_plain_rule(object_id: str) -> None:
    assert (id_problem(object_id) is None) == _naive_is_good(object_id)


def test_a_key_is_a_value() -> None:
    key = ObjectKey("Cart", "user-123")
    assert key == ObjectKey("Cart", "user-123")
    assert hash(key) == hash(ObjectKey("Cart", "user-123"))
    assert key != ObjectKey("Cart", "user-124")
    assert key != ObjectKey("Basket", "user-123")
    assert pickle.loads(pickle.dumps(key)) == key
    assert str(key) == "Cart('user-123')"
    assert str(ObjectKey("Cart", "it's")) == 'Cart("it\'s")'
    with pytest.raises(AttributeError):
        key.object_id = "other"  # type: ignore[misc]
