"""The group of all commands, and how each of them ends.

The conventions that all commands share:

- A command returns its exit status: None or 0 is fine, 1 means that it ran and the answer is no.
- What is wrong with the input, or stands in the way, becomes one line on stderr and status 2.
  Commands raise a `Refusal` for it; the library's own errors and the system's are told likewise.
  Nothing has been changed then.
- Control-C ends any of them with 130, without a traceback.
- Anything else is a mistake in the command, and keeps its traceback.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from .._errors import DurableError
from .commands.alarms import alarms
from .commands.bench import bench
from .commands.completion import completion
from .commands.copy import copy_
from .commands.demo import demo
from .commands.edit import edit
from .commands.export import export
from .commands.import_ import import_
from .commands.init import init
from .commands.ls import ls
from .commands.migrate import migrate
from .commands.migrate_states import migrate_states
from .commands.new import new
from .commands.rm import rm
from .commands.show import show
from .commands.stats import stats
from .commands.tenants import tenants
from .errors import describe_os_error
from .output import printable

REFUSED = 2
INTERRUPTED = 130  # as shells tell it of what SIGINT has ended


class Application(click.Group):
    """A group whose commands end as the conventions say."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command and exit with its status; takes what `click.Group.main` takes."""
        kwargs["standalone_mode"] = False
        try:
            status = super().main(*args, **kwargs)
        except click.Abort:  # what click makes of KeyboardInterrupt
            status = INTERRUPTED
        except Exception as error:
            line = _line_of(_sole(error))
            if line is None:
                raise
            click.echo(line, err=True)
            status = REFUSED
        except BaseExceptionGroup as group:
            if group.subgroup(KeyboardInterrupt) is None:
                raise
            status = INTERRUPTED
        sys.exit(status)


def _sole(error: Exception) -> Exception:
    """What is in a nursery's group, if that is one error."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _line_of(error: Exception) -> str | None:
    """What to tell of an error that a user can do something about."""
    path, more = "trio-durable", ""
    if isinstance(error, click.UsageError):
        if error.ctx is not None:
            path = error.ctx.command_path
        message = error.format_message().removesuffix(".")
        more = f" ({path} --help shows what it takes)"
    elif isinstance(error, click.ClickException):
        message = error.format_message()
    elif isinstance(error, DurableError):
        message = str(error)
    elif isinstance(error, OSError):
        message = describe_os_error(error)
    else:
        return None
    return f"{path}: {printable(' '.join(message.split()))}{more}"


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
      trio-durable new Cart --fields total:int     add an object to it
      trio-durable demo                            see a crash and a recovery
      trio-durable ls -s app.db Cart               look at what is stored

    Exit status: 0 if all is well, 1 if the answer is no, 2 if the input was bad
    or refused and nothing was changed, 130 after Control-C.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


_ABOUT_APPS = (init, new, demo, bench, completion)
_ABOUT_STORAGES = (
    alarms,
    copy_,
    edit,
    export,
    import_,
    ls,
    migrate,
    migrate_states,
    rm,
    show,
    stats,
    tenants,
)

for _command in (*_ABOUT_APPS, *_ABOUT_STORAGES):
    application.add_command(_command)
