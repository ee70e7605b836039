"""The argument TYPE, which shells complete from the storage."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from ..._errors import DurableError
from ..errors import CommandError
from .open import open_reader, resolve_storage
from .paging import iter_types


class TypeName(click.types.StringParamType):
    """The stored name of a type."""

    name = "type"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Those types that are stored; none, if that can't be told."""
        values: dict[str, Any] = {**(ctx.parent.params if ctx.parent else {}), **ctx.params}
        storage, tenant = values.get("storage"), values.get("tenant")
        if not storage:
            return []
        try:
            with open_reader(resolve_storage(storage), tenant) as reader:
                return [
                    CompletionItem(name)
                    for name in iter_types(reader, tenant or "")
                    if name.startswith(incomplete)
                ]
        except (DurableError, CommandError):
            return []
