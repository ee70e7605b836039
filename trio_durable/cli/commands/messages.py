"""``trio-durable messages`` and its commands."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import click

from ..._clock import SystemClock
from ..._messages.message import message_id, token_of
from ...storage import DeadMessage, Reader, Storage, StoredMessage
from ..command_line import command_line, quoted
from ..errors import CommandError
from ..options import output_option, storage_options
from ..output import Output, add_row, console, excerpt, new_table, print_rows, quantity
from ..storage.formatting import format_relative, json_instant, json_member, key_members
from ..storage.missing import check_type_stored
from ..storage.open import check_type_name, object_key, open_reader, resolve_storage
from ..storage.owner import open_owner
from ..storage.paging import iter_dead_messages, iter_messages
from ..storage.type_completion import complete_type

_LIMIT = 100

_limit_option = click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"List at most so many; by default {_LIMIT} in a table, else all.",
)

_COLUMNS = (
    *("message", "tenant", "type", "id", "handler", "sender", "sent_at", "wake_at"),
    *("failures", "crashes", "last_error", "arguments", "arguments_text"),
)
_DEAD_COLUMNS = (*_COLUMNS, "died_at", "is_overtaken")


@click.group()
def messages() -> None:
    """List messages, and retry or drop dead letters.

    \b
    Examples:
      trio-durable messages list -s app.db Cart ada
      trio-durable messages dead -s app.db
      trio-durable messages retry -s app.db 0f3a5c7e9b1d2468
    """


@messages.command("list")
@click.argument("type_name", metavar="[TYPE]", shell_complete=complete_type, required=False)
@click.argument("object_id", metavar="[ID]", required=False)
@storage_options()
@_limit_option
@output_option(json_is="jsonl")
def list_(
    type_name: str | None,
    object_id: str | None,
    storage: str,
    tenant: str | None,
    limit: int | None,
    output: Output,
) -> None:
    """List messages that wait.

    Those of all receivers, of a TYPE, or of one object.

    The order is by receiver, then sender, then as they were sent. The senders and
    the arguments are in the other formats.

    \b
    Examples:
      trio-durable messages list -s app.db
      trio-durable messages list -s app.db Cart ada --json
    """
    if type_name is not None:
        check_type_name(type_name)
        if object_id is not None:
            object_key(type_name, object_id, tenant)
    now = SystemClock().now()
    store = resolve_storage(storage)
    with open_reader(store, tenant) as reader:
        if type_name is not None:
            check_type_stored(reader, store, type_name, tenant)
        rows = iter_messages(reader, type_name, object_id, tenant or "")
        if output != "table":
            print_rows(output, _COLUMNS, map(_message_json, islice(rows, limit)))
            return
        page = list(islice(rows, limit or _LIMIT))
        has_more = next(rows, None) is not None
    if not page:
        click.echo("No messages match.", err=True)
        return
    table = new_table("|message", "|sent", "status", "to")
    for row in page:
        status = "waiting"
        if row.wake_at is not None:
            status += f", again {format_relative(row.wake_at, now)}"
        add_row(table, *_cells(row, status, now))
    console().print(table)
    _tell_more(has_more)


@messages.command()
@click.argument("type_name", metavar="[TYPE]", shell_complete=complete_type, required=False)
@storage_options()
@_limit_option
@output_option(json_is="jsonl")
def dead(
    type_name: str | None, storage: str, tenant: str | None, limit: int | None, output: Output
) -> None:
    """List dead letters among messages.

    Those to all receivers or to objects of a TYPE, oldest first.

    "overtaken" says that later messages of the sender to the receiver were
    handled since: a retry comes after them.

    \b
    Examples:
      trio-durable messages dead -s app.db
      trio-durable messages dead -s app.db Cart --json
    """
    if type_name is not None:
        check_type_name(type_name)
    now = SystemClock().now()
    store = resolve_storage(storage)
    with open_reader(store, tenant) as reader:
        if type_name is not None:
            check_type_stored(reader, store, type_name, tenant)
        rows = iter_dead_messages(reader, type_name, tenant or "")
        if output != "table":
            print_rows(output, _DEAD_COLUMNS, map(_dead_json, islice(rows, limit)))
            return
        page = list(islice(rows, limit or _LIMIT))
        has_more = next(rows, None) is not None
    if not page:
        click.echo("No dead letters match.", err=True)
        return
    table = new_table("|message", "|sent", "status", "to")
    for row in page:
        status = f"died {format_relative(row.died_at, now)}"
        status += ", overtaken" if row.is_overtaken else ""
        add_row(table, *_cells(row.message, status, now))
    console().print(table)
    _tell_more(has_more)


@messages.command()
@click.argument("ids", metavar="MESSAGE...", nargs=-1, required=True)
@storage_options()
def retry(ids: tuple[str, ...], storage: str, tenant: str | None) -> None:
    """Let dead letters wait again, with all attempts.

    Each goes behind what its sender has sent to its receiver since.

    \b
    Example:
      trio-durable messages retry -s app.db 0f3a5c7e9b1d2468
    """
    store = resolve_storage(storage)
    with open_reader(store, tenant) as reader:
        found = _dead_letters(store, reader, ids, tenant or "")
    with open_owner(store) as owner:
        retried = sum(owner.retry_message(_token(each), tenant or "") for each in found)
    click.echo(f"Made {quantity(retried, 'dead letter')} wait again.")
    overtaken = sum(each.is_overtaken for each in found)
    if overtaken:
        click.echo(f"Later messages were handled before {overtaken:,} of them.", err=True)


@messages.command("retry-all")
@click.argument("type_name", metavar="[TYPE]", shell_complete=complete_type, required=False)
@storage_options()
def retry_all(type_name: str | None, storage: str, tenant: str | None) -> None:
    """Let all dead letters wait again.

    Or those to objects of a TYPE; oldest first.

    \b
    Examples:
      trio-durable messages retry-all -s app.db
      trio-durable messages retry-all -s app.db Cart
    """
    if type_name is not None:
        check_type_name(type_name)
    store = resolve_storage(storage)
    with open_reader(store, tenant) as reader:
        # All are known before the first is retried, which may die again meanwhile.
        tokens = [_token(each) for each in iter_dead_messages(reader, type_name, tenant or "")]
    retried = 0
    if tokens:
        with open_owner(store) as owner:
            retried = sum(owner.retry_message(token, tenant or "") for token in tokens)
    click.echo(
        f"Made {quantity(retried, 'dead letter')} wait again."
        if retried
        else "No dead letters match."
    )


@messages.command()
@click.argument("ids", metavar="MESSAGE...", nargs=-1, required=True)
@storage_options()
def drop(ids: tuple[str, ...], storage: str, tenant: str | None) -> None:
    """Remove dead letters. Messages that wait are never removed.

    \b
    Example:
      trio-durable messages drop -s app.db 0f3a5c7e9b1d2468
    """
    store = resolve_storage(storage)
    with open_reader(store, tenant) as reader:
        found = _dead_letters(store, reader, ids, tenant or "")
    with open_owner(store) as owner:
        dropped = sum(owner.drop_message(_token(each), tenant or "") for each in found)
    click.echo(f"Dropped {quantity(dropped, 'dead letter')}.")


def _dead_letters(
    store: Storage, reader: Reader, ids: Iterable[str], tenant: str
) -> list[DeadMessage]:
    """The dead letters with these ids, before any is changed."""
    found: list[DeadMessage] = []
    for each in dict.fromkeys(ids):
        token = token_of(each)
        dead = None if token is None else reader.load_dead_messages([token], tenant)[0]
        if dead is None:
            listing = command_line("messages", "dead", storage=store.location, tenant=tenant)
            raise CommandError(f"there is no dead letter {each!r}; `{listing}` lists them")
        found.append(dead)
    return found


def _token(dead: DeadMessage) -> int:
    return dead.message.key.token


def _cells(row: StoredMessage, status: str, now: int) -> tuple[str | tuple[str, ...], ...]:
    to = row.key.to
    if row.failures:
        status += f", {quantity(row.failures, 'failure')}"
    receiver = quoted(to.type_name, to.object_id, row.handler)
    problem = (excerpt(row.last_error),) if row.last_error else ()
    sent = format_relative(row.sent_at, now)
    return (message_id(row.key.token), sent, status, (receiver, *problem))


def _message_json(row: StoredMessage) -> dict[str, object]:
    sender = row.sender
    return {
        "message": message_id(row.key.token),
        **key_members(row.key.to),
        "handler": row.handler,
        "sender": None if sender is None else key_members(sender),
        "sent_at": json_instant(row.sent_at),
        "wake_at": None if row.wake_at is None else json_instant(row.wake_at),
        "failures": row.failures,
        "crashes": row.crashes,
        "last_error": row.last_error,
        **json_member("arguments", row.arguments),
    }


def _dead_json(row: DeadMessage) -> dict[str, object]:
    own = {"died_at": json_instant(row.died_at), "is_overtaken": row.is_overtaken}
    return {**_message_json(row.message), **own}


def _tell_more(has_more: bool) -> None:
    if has_more:
        click.echo("There are more: raise --limit, or use more filters.", err=True)
