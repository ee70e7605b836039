"""What a command raises when it won't do what it was asked."""

from __future__ import annotations

import click


class Refusal(click.ClickException):
    """Bad input, or a state of things in which the command can't work; nothing was changed.

    Args:
        message: One line: what is wrong, then what to do.
    """

    exit_code = 2
