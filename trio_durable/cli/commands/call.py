"""``trio-durable call``."""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio
import click

from ..._errors import CallTimeout, DurableError, OwnerLost, RemoteError
from ..._keys import ObjectKey
from ..._text import error_summary
from ...storage import Storage
from ..errors import CommandError
from ..exit_status import ExitStatus
from ..options import seconds_option, storage_options
from ..output import print_reply, printable
from ..storage.members import PATIENCE_SECONDS
from ..storage.open import object_key, resolve_storage
from ..storage.running import running_app
from ..storage.type_completion import complete_type


@click.command()
@click.argument("type_name", metavar="TYPE", shell_complete=complete_type)
@click.argument("object_id", metavar="ID")
@click.argument("handler")
@click.argument("arguments", metavar="[NAME=TEXT | NAME:=JSON | -]...", nargs=-1)
@storage_options()
@seconds_option("--timeout", default=PATIENCE_SECONDS, help="How long to wait for the reply.")
@click.option("--once", metavar="KEY", help="Once-key: with it the call can be repeated safely.")
def call(
    type_name: str,
    object_id: str,
    handler: str,
    arguments: tuple[str, ...],
    storage: str,
    tenant: str | None,
    timeout: float,
    once: str | None,
) -> int:
    """Call a handler of an object in a running app.

    Arguments are named. NAME=TEXT is a string, NAME:=JSON any JSON, and - reads a
    JSON object with all of them from standard input. The reply is printed as JSON.

    Exit status 1 if the handler raised, and 3 if it isn't known whether it ran.

    \b
    Examples:
      trio-durable call -s app.db Cart ada add item=apple count:=2
      echo '{"item": "apple"}' | trio-durable call -s app.db Cart ada add -
    """
    key = object_key(type_name, object_id, tenant)
    given = _arguments(arguments)
    store = resolve_storage(storage)
    try:
        reply = anyio.run(_call, store, key, handler, given, once, timeout, backend="trio")
    except (CallTimeout, OwnerLost) as error:
        if isinstance(error, CallTimeout) and not error.may_have_run:
            raise
        click.echo(f"trio-durable: {printable(str(error))}", err=True)
        return ExitStatus.UNKNOWN
    except RemoteError as error:
        click.echo(printable(error_summary(error)), err=True)
        return ExitStatus.NO
    except (DurableError, CommandError):
        raise
    except Exception as error:  # noqa: BLE001  # the handler's
        click.echo(printable(error_summary(error)), err=True)
        return ExitStatus.NO
    print_reply(reply)
    return ExitStatus.DONE


async def _call(
    store: Storage,
    key: ObjectKey,
    handler: str,
    arguments: dict[str, Any],
    once: str | None,
    timeout: float,
) -> Any:
    async with running_app(store, timeout=timeout) as app:
        return await app.call(key, handler, arguments, once, timeout)


def _arguments(texts: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of the command line, by name.

    Raises:
        CommandError: One is malformed, or given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        if text == "-":
            given = _json(sys.stdin.read(), "standard input")
            if not isinstance(given, dict):
                raise CommandError("standard input must be a JSON object of arguments by name")
        else:
            name, separator, value = text.partition("=")
            if not separator or not name.removesuffix(":").isidentifier():
                raise CommandError(
                    f"{text!r} is no argument; write NAME=TEXT, NAME:=JSON, or - for standard input"
                )
            given = {name: value}
            if name.endswith(":"):
                given = {name[:-1]: _json(value, name)}
        for name in given:
            if name in found:
                raise CommandError(f"the argument {name!r} is given twice; give it once")
        found |= given
    return found


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandError(f"{place} is not JSON: {error}; write NAME=TEXT for a string") from error
