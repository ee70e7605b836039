"""Confirmation prompts before changes that can't be undone."""

from __future__ import annotations

import sys

import click

from .errors import CommandError
from .options import Decorator

yes_option: Decorator = click.option(
    "--yes", "-y", is_flag=True, help="Don't ask for confirmation."
)


def confirm(question: str, *, yes: bool) -> bool:
    """Ask ``question`` and return whether the answer is yes; with ``yes``, don't ask.

    Raises:
        CommandError: Standard input has no answer.
    """
    if yes:
        return True
    try:
        return click.confirm(question, err=True)
    except click.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            click.echo(err=True)
            raise CommandError("no answer on standard input; confirm with --yes") from None
        raise


def is_interactive() -> bool:
    """True if standard input is a terminal."""
    return sys.stdin.isatty()
