"""Public classes and functions name the module that users import them from."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from types import FunctionType
from typing import get_type_hints

import attrs
import pytest

import trio_durable
from trio_durable import Alarm, ObjectKey, Retry

PUBLIC = {
    name: public
    for name in trio_durable.__all__
    if isinstance(public := getattr(trio_durable, name), (type, FunctionType))
}
KEEP_THEIR_MODULE = {
    "DurableObject": "trio_durable._api.durable_object",
    "ObjectKey": "trio_durable._keys",
}

every_name = pytest.mark.parametrize("name", PUBLIC)


@every_name
def test_a_public_name_says_where_it_is_imported_from(name: str) -> None:
    assert PUBLIC[name].__module__ == KEEP_THEIR_MODULE.get(name, "trio_durable")


@every_name
def test_what_is_public_can_be_pickled_by_name(name: str) -> None:
    assert pickle.loads(pickle.dumps(PUBLIC[name])) is PUBLIC[name]


@every_name
def test_the_annotations_of_what_is_public_can_be_resolved(name: str) -> None:
    public = PUBLIC[name]
    bases = public.__mro__ if isinstance(public, type) else [public]
    annotated = {each for base in bases for each in getattr(base, "__annotations__", {})}
    # Attributes for the library's own use may name types that only type checkers import.
    if not all(each.startswith("_") for each in annotated):
        hints = get_type_hints(public, include_extras=True)
        assert hints.keys() == annotated
        assert not any(isinstance(hint, str) for hint in hints.values())


@pytest.mark.parametrize(
    "cls", [each for each in PUBLIC.values() if isinstance(each, type) and attrs.has(each)]
)
def test_attrs_resolves_the_fields_of_what_is_public(cls: type) -> None:
    attrs.resolve_types(cls)
    assert not any(isinstance(field.type, str) for field in attrs.fields(cls))


def test_records_are_pickled_by_their_public_name() -> None:
    key = ObjectKey("Cart", "ada", "acme")
    for record in (Alarm(key, "remind", datetime(2030, 1, 1, tzinfo=UTC), {"n": 1}, 2), Retry()):
        pickled = pickle.dumps(record, 0)
        assert f"ctrio_durable\n{type(record).__name__}\n".encode() in pickled
        assert pickle.loads(pickled) == record
    assert repr(Alarm) == "<class 'trio_durable.Alarm'>"
