"""``trio-durable docs``."""

from __future__ import annotations

import inspect
import textwrap
from difflib import get_close_matches

import click

import trio_durable

from ..._errors import DurableError
from ..errors import CommandError
from ..remedies import REMEDIES

_WIDTH = 76


@click.command()
@click.argument("error", required=False)
def docs(error: str | None) -> None:
    """Explain an error: its meaning and what to do.

    ERROR is the name of a class, as in a traceback. Without it, all are
    listed.

    \b
    Examples:
      trio-durable docs
      trio-durable docs StaleObject
      trio-durable docs trio_durable.StaleObject
    """
    errors = public_errors()
    if error is None:
        for each, explained in errors.items():
            click.echo(f"{each:<20} {_summary(explained)}")
        return
    name = error.rpartition(".")[2]
    if name not in errors:
        raise CommandError(_unknown(error, list(errors)))
    cls = errors[name]
    bases = [each.__name__ for each in cls.__mro__[1:] if issubclass(each, Exception)]
    click.echo(f"{name}\n")
    _print(f"A kind of {', '.join(bases)}.")
    for paragraph in _meaning(cls).split("\n\n"):
        _print(paragraph)
    remedy = REMEDIES.get(name)
    if remedy is not None:
        _print(f"What to do: {remedy}")
    kinds = [other for other, each in errors.items() if cls in each.__bases__]
    if kinds:
        _print(f"Its kinds: {', '.join(kinds)}.")


def public_errors() -> dict[str, type[DurableError]]:
    """The public errors, by name."""
    values = ((name, getattr(trio_durable, name)) for name in sorted(trio_durable.__all__))
    return {
        name: value
        for name, value in values
        if isinstance(value, type) and issubclass(value, DurableError)
    }


def _unknown(error: str, names: list[str]) -> str:
    close = get_close_matches(error, names, n=1)
    remedy = f"did you mean: trio-durable docs {close[0]}" if close else "run: trio-durable docs"
    return f"there is no error {error!r:.80}; {remedy}"


def _meaning(cls: type[DurableError]) -> str:
    return (inspect.getdoc(cls) or "").replace("`", "").partition("\n\nArgs:")[0]


def _summary(cls: type[DurableError]) -> str:
    room = _WIDTH - 19
    return textwrap.shorten(_meaning(cls).partition("\n\n")[0], room, placeholder=" …")


def _print(paragraph: str) -> None:
    text = textwrap.fill(
        paragraph,
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    click.echo(f"{text}\n")
