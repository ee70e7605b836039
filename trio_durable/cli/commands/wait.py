"""``trio-durable wait``."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import anyio
import click

from ..._keys import ObjectKey
from ..._text import short_repr
from ...storage import Storage
from ..errors import CommandError
from ..exit_status import ExitStatus
from ..options import seconds_option, storage_options
from ..output import print_json, printable
from ..storage.changes import Condition, fields_of
from ..storage.formatting import state_json
from ..storage.members import PATIENCE_SECONDS
from ..storage.open import object_key, open_reader, resolve_storage
from ..storage.running import WatchedState
from ..storage.type_completion import complete_type
from ..storage.watching import state_watch


@click.command()
@click.argument("type_name", metavar="TYPE", shell_complete=complete_type)
@click.argument("object_id", metavar="ID")
@click.argument("texts", metavar="[FIELD=VALUE | FIELD:=JSON]...", nargs=-1)
@storage_options()
@seconds_option("--timeout", default=PATIENCE_SECONDS, help="How long to wait.")
@click.option("--gone", is_flag=True, help="Wait until nothing is stored.")
def wait(
    type_name: str,
    object_id: str,
    texts: tuple[str, ...],
    storage: str,
    tenant: str | None,
    timeout: float,
    gone: bool,
) -> int:
    """Wait until the stored state of an object has some values.

    FIELD=VALUE holds for the text VALUE, and for the JSON that it is; FIELD:=JSON
    for the JSON alone. address.city is the member city of the field address. All
    conditions must hold in one state; without any, the object has to be stored.
    That state is printed as JSON. A state that is replaced at once may be missed.

    Exit status 1 after the timeout. An app that ends or starts meanwhile doesn't
    end the wait.

    \b
    Examples:
      trio-durable wait -s app.db Order 17 status=paid
      trio-durable wait -s app.db Order 17 paid:=true lines.0.count=2 --timeout 5
      trio-durable wait -s app.db Order 17 --gone
    """
    key = object_key(type_name, object_id, tenant)
    if gone and texts:
        raise CommandError("--gone waits until nothing is stored; leave the conditions out")
    conditions = [Condition.parse(text) for text in texts]
    store = resolve_storage(storage)
    with open_reader(store, tenant):
        pass  # so that a misspelt path or tenant is an error
    waiting = _Waiting(key, conditions, gone)
    found = anyio.run(_wait, store, waiting, timeout, backend="trio")
    if found is None:
        click.echo(printable(f"{waiting.problem()} after {timeout:g} s."), err=True)
        return ExitStatus.NO
    print_json(state_json(key, found.revision, found.state))
    return ExitStatus.DONE


async def _wait(store: Storage, waiting: _Waiting, timeout: float) -> WatchedState | None:
    async with state_watch(store, waiting.key) as states:
        found: WatchedState | None = None
        while found is None:  # as once when the app has ended: the storage has the rest
            found = await states.next()
        with anyio.move_on_after(timeout):
            while not waiting.ends_with(found):
                found = await states.next() or found
            return found
    return None


class _Waiting:
    """What is waited for, and the last state that wasn't it.

    Args:
        key: The object.
        conditions: Conditions that must hold at once.
        gone: Whether nothing must be stored.
    """

    def __init__(self, key: ObjectKey, conditions: Sequence[Condition], gone: bool) -> None:
        self.key = key
        self._conditions = conditions
        self._gone = gone
        self._last = WatchedState("", 0, None)
        self._has_warned = False

    def ends_with(self, found: WatchedState) -> bool:
        """True if a state is the one that is waited for."""
        self._last = found
        if self._gone or found.state is None:
            return self._gone and found.state is None
        fields = fields_of(found.state)
        if fields is None:
            return not self._conditions
        self._warn(fields)
        return all(each.holds_in(fields) for each in self._conditions)

    def _warn(self, fields: dict[str, object]) -> None:
        """Say once that a field isn't there: it may be misspelt."""
        if self._has_warned:
            return
        self._has_warned = True
        for each in self._conditions:
            if not each.found_in(fields)[0]:
                close = get_close_matches(each.path, fields, 1)
                guess = f"; did you mean {close[0]}?" if close else ""
                click.echo(
                    printable(
                        f"{self.key} has no {each.path} yet (it has {', '.join(fields)}){guess}"
                    ),
                    err=True,
                )

    def problem(self) -> str:
        """The reason that the last state wasn't the one."""
        last = self._last
        if last.state is None:
            return f"{self.key} isn't stored"
        if self._gone:
            return f"{self.key} is still stored"
        fields = fields_of(last.state)
        if fields is None:
            return f"{self.key} has a state that is no JSON object"
        for each in self._conditions:
            if not each.holds_in(fields):
                is_there, value = each.found_in(fields)
                has = f"is {short_repr(value)}" if is_there else "isn't there"
                return f"{each.path} of {self.key} {has}"
        return f"{self.key} isn't as wanted"
