"""The group of all commands, and the conventions for how a command ends.

- A command returns its `ExitStatus`; None stands for `ExitStatus.DONE`.
- Bad input, or a situation in which the command can't work, becomes one line on standard error and
  `ExitStatus.REFUSED`, and nothing is changed. A command raises a `CommandError` for it. The
  library's errors and `OSError` are reported in the same way.
- Control-C ends a command with `ExitStatus.INTERRUPTED`, without a traceback.
- Any other exception is a bug in the command, and keeps its traceback.
"""

from __future__ import annotations

import re
import sys
from difflib import get_close_matches
from itertools import chain
from typing import Any

import click

from .._errors import DurableError
from .command_line import quoted
from .commands.alarms import alarms
from .commands.backup import backup
from .commands.bench import bench
from .commands.call import call
from .commands.completion import completion
from .commands.copy import copy_
from .commands.demo import demo
from .commands.docs import docs
from .commands.doctor import doctor
from .commands.edit import edit
from .commands.export import export
from .commands.import_ import import_
from .commands.init import init
from .commands.ls import ls
from .commands.messages import messages
from .commands.migrate import migrate
from .commands.migrate_states import migrate_states
from .commands.new import new
from .commands.nodes import nodes
from .commands.query import query
from .commands.rename import rename
from .commands.reopen import reopen
from .commands.restore import restore
from .commands.rm import rm
from .commands.serve import serve
from .commands.shell import shell
from .commands.show import show
from .commands.simulate import simulate
from .commands.stacks import stacks
from .commands.stats import stats
from .commands.tenants import tenants
from .commands.top import top
from .commands.ui import ui
from .commands.wait import wait
from .commands.watch import watch
from .errors import describe_os_error
from .exit_status import ExitStatus
from .output import leave_closed_pipe, printable

_WHOLE_SENTENCE = 300
"""Characters of the short help, which is wrapped and not cut off."""

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Projects": (init, new, simulate, demo, bench),
    "Objects": (ls, show, query, edit, rm, watch, wait),
    "A running app": (serve, call, shell, top, stacks, nodes, ui),
    "Alarms and messages": (alarms, messages),
    "Storage": (stats, tenants, doctor, backup, restore, export, import_, copy_, reopen),
    "Upgrades": (migrate, migrate_states, rename),
    "Help": (docs, completion),
}
"""The commands, in the order of the help."""


class Application(click.Group):
    """A group that ends its commands by the conventions above."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section. See `click.Group.format_commands`."""
        width = max(len(name) for name in self.commands)
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [
                        (str(each.name).ljust(width), each.get_short_help_str(_WHOLE_SENTENCE))
                        for each in commands
                    ]
                )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See `click.Group.resolve_command`. A misspelt command is answered with the right one.

        Raises:
            click.UsageError: There is no such command.
        """
        name, *rest = args
        close = get_close_matches(name, self.commands, 1)
        if close and name not in self.commands and not ctx.resilient_parsing:
            line = quoted(*ctx.command_path.split(), close[0], *rest)
            raise click.UsageError(f"No such command {name!r}. Did you mean `{line}`?", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. That a program has read enough of its output is its end, and no error."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if not isinstance(_unwrapped(error), BrokenPipeError):
                raise
            leave_closed_pipe()
            return 0

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command and exit with its status. See `click.Group.main` for the arguments."""
        kwargs["standalone_mode"] = False
        try:
            status = super().main(*args, **kwargs)
        except click.Abort:  # click raises it for KeyboardInterrupt
            status = ExitStatus.INTERRUPTED
        except Exception as error:
            line = _line_for(_unwrapped(error))
            if line is None:
                raise
            click.echo(line, err=True)
            status = ExitStatus.REFUSED
        except BaseExceptionGroup as group:
            if group.subgroup(KeyboardInterrupt) is None:
                raise
            status = ExitStatus.INTERRUPTED
        sys.exit(status)


def _unwrapped(error: Exception) -> Exception:
    """The only error in the exception groups of nurseries; ``error`` itself if there are more."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _line_for(error: Exception) -> str | None:
    """The line to print; None for a bug, which a user can't do anything about."""
    path, more = "trio-durable", ""
    if isinstance(error, click.UsageError):
        if error.ctx is not None:
            path = error.ctx.command_path
        message = error.format_message().removesuffix(".")
        more = f" (see {path} --help)"
    elif isinstance(error, click.ClickException):
        message = error.format_message()
    elif isinstance(error, DurableError):
        message = str(error)
    elif isinstance(error, OSError):
        message = describe_os_error(error)
    else:
        return None
    # Other white space may be that of an id in a command line.
    line = re.sub(r"\s*\n\s*", " ", message.strip())
    return f"{path}: {printable(line)}{more}"


@click.group(
    "trio-durable",
    cls=Application,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="trio-durable", message="%(prog)s %(version)s")
@click.pass_context
def application(context: click.Context) -> None:
    """Durable objects for Python, on Trio.

    \b
    Examples:
      trio-durable init shop                       start an app
      trio-durable new Cart                        add an object to it
      trio-durable demo                            see a crash and a recovery
      trio-durable ls -s app.db Cart               list stored objects

    Exit status: 0 for success, 1 if the answer is no, 2 if the command can't
    be carried out and nothing was changed, 3 if the outcome isn't known, 130
    after Control-C.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in chain.from_iterable(SECTIONS.values()):
    application.add_command(_command)
