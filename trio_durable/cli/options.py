"""Options and parameter types that commands share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Protocol, TypeVar, cast, get_args

import click
from click.core import ParameterSource

from .errors import CommandError
from .output import Output

F = TypeVar("F", bound=Callable[..., Any])


class Decorator(Protocol):
    """Adds an option to a command, whose type stays."""

    def __call__(self, function: F, /) -> F:
        """The function with the option."""
        ...


json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print only JSON to standard output."
)


def output_option(*, json_is: Output) -> Callable[[F], F]:
    """``--output`` of commands that list, passed as ``output``; ``--json`` is short for one format.

    Args:
        json_is: That format: ``"jsonl"``, or ``"json"`` of commands that print one thing.
    """

    def add(function: F) -> F:
        @wraps(function)
        def command(*args: Any, output: Output | None, as_json: bool, **kwargs: Any) -> Any:
            if as_json and output not in (None, json_is):
                raise CommandError(f"--json is -o {json_is}; leave it out, or -o {output}")
            return function(*args, output=output or (json_is if as_json else "table"), **kwargs)

        as_json = click.option(
            "--json", "as_json", is_flag=True, help=f"The same as --output {json_is}."
        )
        chosen = click.option(
            "--output",
            "-o",
            type=click.Choice(get_args(Output)),
            help="The format of the output; by default, a table for people.",
        )
        return cast("F", chosen(as_json(command)))

    return add


class InheritedOption(click.Option):
    """An option that may be given to the command's group instead.

    The command's own command line takes precedence, then the group's command line and environment.
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


def seconds_option(name: str, *, default: float, help: str) -> Callable[[F], F]:  # noqa: A002
    """An option of a number of seconds."""
    return click.option(
        name,
        type=click.FloatRange(0, min_open=True),
        metavar="SECONDS",
        default=default,
        show_default=True,
        help=help,
    )


def storage_options(
    *, required: bool = True, tenant_help: str = "Tenant of the objects; by default, none."
) -> Callable[[F], F]:
    """``--storage`` and ``--tenant``.

    Args:
        required: Whether ``--storage`` is required. In a group it is not: a command may have it.
        tenant_help: The help text of ``--tenant``.
    """
    tenant = click.option("--tenant", "-t", cls=InheritedOption, metavar="NAME", help=tenant_help)

    def add(function: F) -> F:
        return (storage_option if required else storage_option_of_group)(tenant(function))

    return add


def _storage_option(required: bool) -> Decorator:
    return click.option(
        "--storage",
        "-s",
        cls=InheritedOption,
        metavar="WHERE",
        envvar="TRIO_DURABLE_STORAGE",
        show_envvar=True,
        required=required,
        help="An SQLite file, or the URL of a database.",
    )


storage_option: Decorator = _storage_option(required=True)
storage_option_of_group: Decorator = _storage_option(required=False)


def storage_argument(function: F) -> F:
    """``STORAGE``, for commands on the runtimes of a storage; the environment may have it."""
    add = click.argument("storage", envvar="TRIO_DURABLE_STORAGE")
    return add(function)


def required_storage(context: click.Context, storage: str | None) -> str:
    """The storage of a group that was invoked without a command.

    Raises:
        click.MissingParameter: It has none.
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
        """Parse the number. NaN passes the checks of the range, so it is rejected here."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return seconds
