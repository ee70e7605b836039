"""``trio-durable shell``: a prompt with ``await`` and the runtime.

The event loop has a thread, since the prompt blocks the main one, where Control-C arrives: it
clears the line that is typed, or cancels what runs. The runtime goes on meanwhile.
"""

from __future__ import annotations

import ast
import codeop
import inspect
import sys
import traceback
from contextlib import ExitStack, suppress
from types import CodeType
from typing import Any

import anyio
import click
from anyio.from_thread import BlockingPortal, start_blocking_portal

from ..._api.runtime import DurableRuntime
from ..errors import CommandError
from ..options import storage_option
from ..storage.app_classes import AppClasses, app_option
from ..storage.open import resolve_storage
from ..storage.running import running_app

_NAME = "<shell>"


@click.command()
@storage_option
@app_option(required=False, help="Module with the classes, whose names the shell knows.")
@click.option("--own", is_flag=True, help="Own the objects here, and fire their alarms.")
def shell(storage: str, apps: tuple[str, ...], own: bool) -> None:
    """Open a Python prompt on the objects of an app.

    The names runtime and anyio are there, and the classes of --app. Lines may
    await. Handlers run in the app. With --own they run here, on the storage
    of an app that is stopped, and its alarms fire while the prompt is open.
    Control-C clears the line or cancels what runs; Control-D ends the shell.

    \b
    Examples:
      trio-durable shell -s app.db --app shop
      >>> await runtime.get(Cart, "ada").add("apple")
    """
    classes: list[type[Any]] = [definition.cls for definition in AppClasses(apps)] if apps else []
    if own and not classes:
        raise CommandError("--own needs the classes; name their module by --app")
    storage_ = resolve_storage(storage)
    with start_blocking_portal("trio") as portal, ExitStack() as stack:
        if own:
            runtime = stack.enter_context(
                portal.wrap_async_context_manager(DurableRuntime(storage_, objects=classes))
            )
        else:
            connecting = running_app(storage_, objects=classes)
            runtime = stack.enter_context(portal.wrap_async_context_manager(connecting)).runtime
        names = {"runtime": runtime, "anyio": anyio, **{cls.__name__: cls for cls in classes}}
        _complete(names)
        Prompt(portal, names).run()


class Prompt:
    """A prompt that awaits.

    Args:
        portal: The event loop, in a thread.
        names: The names that are there at the beginning.
    """

    def __init__(self, portal: BlockingPortal, names: dict[str, Any]) -> None:
        self._portal = portal
        self._names = {"__name__": "__console__", "__builtins__": __builtins__, **names}
        self._compiler = codeop.CommandCompiler()
        self._compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._lines: list[str] = []

    def run(self) -> None:
        """Read and run statements until the end of the input."""
        while True:
            try:
                self._lines.append(input("... " if self._lines else ">>> "))
                code = self._compiled()
                if code is not None:
                    self._lines.clear()
                    self._run(code)
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                self._lines.clear()
                click.echo("\nKeyboardInterrupt", err=True)

    def _run(self, code: CodeType) -> None:
        running = self._portal.start_task_soon(self._run_in_loop, code)
        try:
            running.result()
        except BaseException:
            running.cancel()  # and so the task, if it still runs
            raise

    def _compiled(self) -> CodeType | None:
        """The statement of the lines; None if it isn't complete, or has an error."""
        try:
            return self._compiler("\n".join(self._lines), _NAME, "single")
        except (SyntaxError, ValueError, OverflowError):
            self._lines.clear()
            kind, error, _ = sys.exc_info()
            click.echo("".join(traceback.format_exception_only(kind, error)), err=True, nl=False)
            return None

    async def _run_in_loop(self, code: CodeType) -> None:
        try:
            # With ``await`` in it, it is the code of a coroutine.
            outcome = eval(code, self._names)  # noqa: S307  # typed by the user
            if inspect.iscoroutine(outcome):
                await outcome
        except Exception as error:  # noqa: BLE001  # of the user's code
            frames = error.__traceback__.tb_next if error.__traceback__ else None
            lines = traceback.format_exception(type(error), error, frames)
            click.echo("".join(lines), err=True, nl=False)


def _complete(names: dict[str, Any]) -> None:
    """Let tab complete names, where there is readline."""
    with suppress(ImportError):
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
