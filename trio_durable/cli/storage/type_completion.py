"""Shell completion of the argument TYPE from the types in the storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..._browsing import iter_types
from ..._errors import DurableError
from ..errors import CommandError
from .open import open_reader, resolve_storage

if TYPE_CHECKING:
    import click


def complete_type(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """The stored types that begin with ``incomplete``; none if the storage can't be read."""
    values: dict[str, Any] = {**(ctx.parent.params if ctx.parent else {}), **ctx.params}
    storage, tenant = values.get("storage"), values.get("tenant")
    if not storage:
        return []
    try:
        with open_reader(resolve_storage(storage), tenant) as reader:
            types = iter_types(reader, tenant or "")
            return [name for name in types if name.startswith(incomplete)]
    except (DurableError, CommandError):
        return []
