"""Options and types of values that commands share."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar

import click
from click.core import ParameterSource

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, and nothing else, to standard output."
)


class InheritedOption(click.Option):
    """An option that may be given to the group of a command as well.

    What is given to the command itself comes first, then what the group has, from its own command
    line or the environment.
    """

    def consume_value(
        self, ctx: click.Context, opts: Mapping[str, Any]
    ) -> tuple[Any, ParameterSource]:
        """See `click.Parameter.consume_value`."""
        value, source = super().consume_value(ctx, opts)
        outer = ctx.parent.params.get(self.name or "") if ctx.parent else None
        if source is not ParameterSource.COMMANDLINE and outer is not None:
            return outer, ParameterSource.COMMANDLINE
        return value, source


def storage_options(
    *, required: bool = True, tenant_help: str = "Whose; else what has no tenant."
) -> Callable[[F], F]:
    """``--storage`` and ``--tenant``.

    Args:
        required: Whether it can't do without a storage. A group leaves that to its commands.
        tenant_help: The help text of ``--tenant``.
    """
    tenant = click.option("--tenant", "-t", cls=InheritedOption, metavar="NAME", help=tenant_help)

    def add(function: F) -> F:
        return (storage_option if required else storage_option_of_group)(tenant(function))

    return add


def _storage_option(required: bool) -> Callable[[F], F]:
    return click.option(
        "--storage",
        "-s",
        cls=InheritedOption,
        metavar="WHERE",
        envvar="TRIO_DURABLE_STORAGE",
        show_envvar=True,
        required=required,
        help="Where the objects are: an SQLite file, or the URL of a database.",
    )


storage_option = _storage_option(required=True)
storage_option_of_group = _storage_option(required=False)


def required_storage(context: click.Context, storage: str | None) -> str:
    """What a group got as its storage, if it has to do without a command.

    Raises:
        click.MissingParameter: Nothing.
    """
    if storage is None:
        [option] = [param for param in context.command.params if param.name == "storage"]
        raise click.MissingParameter(ctx=context, param=option)
    return storage


class Seconds(click.FloatRange):
    """A number of seconds, from ``minimum`` to an hour."""

    name = "number"

    def __init__(self, minimum: float) -> None:
        super().__init__(minimum, 3600)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number that was written."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):  # which is beyond no bound
            self.fail(f"{value!r} is not a number.", param, ctx)
        return seconds


@contextmanager
def input_file(name: str) -> Iterator[BinaryIO]:
    """The file of that name; standard input, if it is ``-``.

    Raises:
        OSError: It can't be read.
    """
    if name == "-":
        yield sys.stdin.buffer
        return
    with open(name, "rb") as file:
        yield file
