"""``trio-durable completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script for tab completion in a shell.

    \b
    Examples:
      trio-durable completion bash >> ~/.bashrc
      trio-durable completion zsh >> ~/.zshrc
      trio-durable completion fish > ~/.config/fish/completions/trio-durable.fish
    """
    complete_with = get_completion_class(shell)
    assert complete_with is not None  # click supports these three
    root = context.find_root().command
    # click answers a shell that sets this variable.
    complete = complete_with(root, {}, "trio-durable", "_TRIO_DURABLE_COMPLETE")
    click.echo(complete.source())
