"""``trio-durable completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete this command.

    \b
    Examples:
      trio-durable completion bash >> ~/.bashrc
      trio-durable completion zsh >> ~/.zshrc
      trio-durable completion fish > ~/.config/fish/completions/trio-durable.fish
    """
    complete_with = get_completion_class(shell)
    assert complete_with is not None  # click has these three
    root = context.find_root().command
    # The variable by which click recognizes that a shell asks.
    complete = complete_with(root, {}, "trio-durable", "_TRIO_DURABLE_COMPLETE")
    click.echo(complete.source())
