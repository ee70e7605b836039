"""Tenants: the same type and id under another name is another object, in everything."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import pytest
from support.carts import Cart, opened

from trio_durable import (
    InvalidTenant,
)

pytestmark = pytest.mark.anyio


# --- what a name of a tenant may be --------------------------------------------------------------


class Name(str, enum.Enum):  # noqa: UP042 - a StrEnum formats as its value
    """As configurations have them; its format() isn't its value."""

    ACME = "acme"


class Text(str):
    """Shows itself as something else."""

    def __str__(self) -> str:
        return "something else"

    __repr__ = __str__


@pytest.mark.parametrize("name", [Name.ACME, Text("acme")], ids=["enum", "subclass"])
async def test_of_a_str_subclass_only_the_text_counts(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path / "objects.db") as runtime:
        tenant = runtime.tenant(name)
        assert type(tenant.name) is str
        assert tenant.name == "acme"
        assert runtime.tenant("acme") is tenant
        await tenant.get(Cart, "a").add("tea")
        assert await runtime.list_tenants() == ["acme"]
        assert await runtime.list_tenants(after=name) == []
        assert await runtime.drop_tenant(name)
        assert await runtime.list_tenants() == []
        # Its rows are gone as well, not only its name.
        assert await runtime.tenant("acme").get(Cart, "a").add("milk") == ["milk"]
        assert await runtime.drop_tenant("acme")


BAD_NAMES: list[object] = [
    "",
    "x" * 49,
    "Acme",
    "ACME",
    "-acme",
    "_acme",
    "a cme",
    "acme ",
    "acme\n",
    "acme\0",
    "acme\0x",
    "\0",
    "a.b",
    "a/b",
    "a:b",
    'a"b',
    "a'b",
    "a;b",
    "a%b",
    "é",
    "\u0661",
    "\uff41",
    "\ud800",
    None,
    5,
    b"acme",
    ["acme"],
    {},
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
async def test_what_cannot_be_a_name(name: Any) -> None:
    async with opened() as runtime:
        with pytest.raises(InvalidTenant, match="1 to 48 small letters") as caught:
            runtime.tenant(name)
        assert caught.value.tenant == f"{name!r:.80}"
        with pytest.raises(InvalidTenant):
            await runtime.drop_tenant(name)
        if name:
            with pytest.raises(InvalidTenant):
                await runtime.list_tenants(after=name)
        assert await runtime.list_tenants() == []


async def test_what_can_be_a_name() -> None:
    async with opened() as runtime:
        names = ["0", "a", "a-", "a_", "0-_z", "x" * 48]
        for name in names:
            assert runtime.tenant(name).name == name
            await runtime.tenant(name).get(Cart, "a").add(name)
        assert await runtime.list_tenants() == sorted(names)
