"""``trio-durable watch``."""

from __future__ import annotations

import sys
from collections.abc import Callable

import anyio
import click

from ..._clock import SystemClock
from ..._keys import ObjectKey
from ...storage import Storage
from ..options import json_option, storage_options
from ..output import console, print_json, printable
from ..storage.changes import changed_lines
from ..storage.formatting import format_instant, pretty_state, printable_lines, state_json
from ..storage.open import object_key, open_reader, resolve_storage
from ..storage.running import WatchedState
from ..storage.type_completion import complete_type
from ..storage.watching import state_watch

_PAUSE_SECONDS = 0.2
"""The shortest time between two states on a terminal."""


@click.command()
@click.argument("type_name", metavar="TYPE", shell_complete=complete_type)
@click.argument("object_id", metavar="ID")
@storage_options()
@click.option("--count", type=click.IntRange(1), help="End after so many states.")
@json_option
def watch(
    type_name: str,
    object_id: str,
    storage: str,
    tenant: str | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Show the stored state of an object whenever it changes.

    On a terminal, the state and then what changes in it; elsewhere, and with
    --json, one line of JSON per state. Each state is durable. A state that is
    replaced before it is printed is left out. Revision 0 says that nothing is
    stored. It ends with the app, and by Control-C. Without a running app that
    can be asked, the storage is read twice a second.

    \b
    Examples:
      trio-durable watch -s app.db Cart ada
      trio-durable watch -s app.db Cart ada | jq .state.total
    """
    key = object_key(type_name, object_id, tenant)
    store = resolve_storage(storage)
    with open_reader(store, tenant):
        pass  # so that a misspelt path or tenant is an error
    is_shown = sys.stdout.isatty() and not as_json
    show = _Screen(key).show if is_shown else _print_line(key)
    pause = _PAUSE_SECONDS if is_shown else 0.0
    anyio.run(_watch, store, key, show, count, pause, backend="trio")


async def _watch(
    store: Storage,
    key: ObjectKey,
    show: Callable[[WatchedState], object],
    count: int | None,
    pause: float,
) -> None:
    async with state_watch(store, key) as states:
        if not states.is_of_app:
            click.echo("No running app can be asked, so the storage is read.", err=True)
        while (found := await states.next()) is not None:
            show(found)
            if count is not None:
                count -= 1
                if not count:
                    return
            await anyio.sleep(pause)
    click.echo("The app has ended.", err=True)


def _print_line(key: ObjectKey) -> Callable[[WatchedState], object]:
    return lambda found: print_json(state_json(key, found.revision, found.state))


class _Screen:
    """The states of one object, each as the difference to the one before.

    Args:
        key: The object.
    """

    def __init__(self, key: ObjectKey) -> None:
        self._key = key
        self._last: WatchedState | None = None

    def show(self, found: WatchedState) -> None:
        """Print a state."""
        last, self._last = self._last, found
        when = format_instant(SystemClock().now())
        revision = f"revision {found.revision:,}" if found.revision else "not stored"
        click.echo(printable(f"{self._key}: {revision}, seen {when} UTC"))
        if found.state is None:
            return
        if last is None or last.state is None:
            click.echo(printable_lines(pretty_state(found.state)))
        else:
            _print_changes(last.state, found.state)


def _print_changes(old: bytes, new: bytes) -> None:
    from rich.text import Text

    screen = console()
    for line in changed_lines(pretty_state(old), pretty_state(new)):
        style = {"-": "red", "+": "green"}.get(line[:1], "")
        screen.print(Text(printable(line), style=style), soft_wrap=True)
