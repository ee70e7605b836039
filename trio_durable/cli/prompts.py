"""Asking before what can't be undone."""

from __future__ import annotations

import sys

import click

from .errors import CommandError

yes_option = click.option("--yes", "-y", is_flag=True, help="Don't ask.")


def confirm(question: str, *, yes: bool) -> bool:
    """Whether somebody says yes to ``question``, or has said so with ``--yes``.

    Raises:
        Refusal: There is nobody to ask.
    """
    if yes:
        return True
    try:
        return click.confirm(question, err=True)
    except click.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            click.echo(err=True)
            raise CommandError(
                "there is nobody here to ask; say --yes if this is what you want"
            ) from None
        raise


def is_interactive() -> bool:
    """Whether somebody sits at a terminal."""
    return sys.stdin.isatty()
