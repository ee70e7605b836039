"""``trio-durable edit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import click
import orjson

from ..._api.durable_object import ObjectDefinition
from ..._api.registry import state_codec
from ..._browsing import find_object
from ..._clock import SystemClock
from ..._errors import StateDecodeError
from ..._json import exact
from ..._json.upgrades import SCHEMA_MEMBER
from ..._keys import ObjectKey
from ...storage import Commit
from ..errors import CommandError
from ..options import storage_options
from ..prompts import confirm, is_interactive
from ..storage.app_classes import AppClasses, app_option
from ..storage.formatting import pretty_state
from ..storage.missing import object_not_found
from ..storage.open import object_key, open_reader, resolve_storage
from ..storage.owner import open_owner
from ..storage.type_completion import complete_type


@click.command()
@click.argument("type_name", metavar="TYPE", shell_complete=complete_type)
@click.argument("object_id", metavar="ID")
@storage_options()
@click.option(
    "--set",
    "assignments",
    metavar="FIELD=JSON",
    multiple=True,
    help="Set a field; may be given several times.",
)
@click.option(
    "--input",
    "source",
    metavar="FILE",
    help="Read the whole state from FILE; - is standard input.",
)
@app_option(required=False, help="Module with the class that the new state has to fit.")
@click.option("--force", is_flag=True, help="Without --app, accept members that aren't stored.")
def edit(
    type_name: str,
    object_id: str,
    storage: str,
    tenant: str | None,
    assignments: tuple[str, ...],
    source: str | None,
    apps: tuple[str, ...],
    force: bool,
) -> None:
    """Edit the stored state of an object.

    Without --set and --input, the state is opened in your editor ($VISUAL or
    $EDITOR). State is one JSON object. JSON that can't be stored exactly is
    rejected, and nothing is written without a change. While an app has the
    storage open, its process saves the state, unless the object has changed
    meanwhile. Otherwise no runtime can open the storage until the editor is
    closed.

    With --app, the state is checked against its class. Without it nothing is
    validated, and a member that isn't stored, such as a misspelt one, is refused
    unless you --force it.

    \b
    Examples:
      trio-durable edit -s app.db Cart ada
      trio-durable edit -s app.db Cart ada --set total=3 --set 'name="Ada"'
      trio-durable edit -s app.db Cart ada --input ada.json --app shop
    """
    if assignments and source is not None:
        raise CommandError("--set changes the state, and --input replaces it; use one of them")
    key = object_key(type_name, object_id, tenant)
    definition = AppClasses(apps).of_type(type_name) if apps else None
    change = _change(assignments, source)
    store = resolve_storage(storage)
    with open_reader(store, tenant) as reader:
        if find_object(reader, key) is None:
            raise object_not_found(reader, store, key)
        with open_owner(store) as owner:
            row = find_object(reader, key)  # again: a later change by others refuses this one
            if row is None:
                raise object_not_found(reader, store, key)
            state = change(row.state, _StateParser(key, row.state, definition, force))
            if state is None or state == _canonical(row.state):
                click.echo("Nothing has changed.")
                return
            commit = Commit(key, row.revision, state, epoch=row.epoch)
            if owner.commit([commit], SystemClock().now()):
                raise CommandError(f"{key} was changed meanwhile; edit it again")
    click.echo(f"Saved as revision {row.revision + 1:,}.")
    if definition is None:
        click.echo("It was not validated; --app checks a state against its class.", err=True)


@attrs.frozen
class _StateParser:
    """Turns the text of a new state into the bytes to store."""

    key: ObjectKey
    old: bytes
    definition: ObjectDefinition | None
    force: bool

    def __call__(self, text: str) -> bytes:
        """The state in ``text``.

        Raises:
            CommandError: It isn't valid state.
        """
        try:
            data = exact.parse(text)
        except ValueError as error:
            raise CommandError(f"the new state of {self.key}: {error}") from None
        if type(data) is not dict:
            raise CommandError(f"the new state of {self.key} is not a JSON object, such as {{…}}")
        state = orjson.dumps(data)
        if self.definition is not None:
            self._check_fit(self.definition, data, state)
        elif not self.force:
            self._check_members(data)
        return state

    def _check_members(self, data: dict[str, Any]) -> None:
        stored = _members(self.old)
        new = [name for name in data if stored is not None and name not in stored]
        if new:
            raise CommandError(
                f"the new state of {self.key} has {new[0]!r:.80}, which isn't stored (stored: "
                f"{', '.join(stored or ())}); name the module of its class by --app, or use --force"
            )

    def _check_fit(self, definition: ObjectDefinition, data: dict[str, Any], state: bytes) -> None:
        codec = state_codec(definition)
        try:
            codec.decode(self.key, state)
        except StateDecodeError as error:
            problem = f"{error.field}: {error.problem}" if error.field else error.problem
            if not problem:
                problem = f"its {SCHEMA_MEMBER} is later than {definition.schema}"
            raise CommandError(
                f"the new state of {self.key} doesn't fit the class: {problem}"
            ) from error
        # A misspelt field would be lost when a runtime next saves the object.
        known = {*definition.fields, SCHEMA_MEMBER, *(_members(self.old) or ())}
        unknown = [name for name in data if name not in known]
        if unknown and data.get(SCHEMA_MEMBER, 1) == definition.schema:
            raise CommandError(
                f"the new state of {self.key} doesn't fit the class: {unknown[0]!r:.80} is not "
                f"a field (fields: {', '.join(definition.fields)})"
            )


_Change = Callable[[bytes, _StateParser], bytes | None]
"""Makes the new state from the stored one; None if it is the same."""


def _change(assignments: tuple[str, ...], source: str | None) -> _Change:
    """The change that the options ask for.

    Raises:
        CommandError: An option is invalid.
    """
    if source is not None:
        try:
            with click.open_file(source, "rb") as file:
                text = file.read().decode()
        except UnicodeDecodeError:
            raise CommandError(f"--input {source}: not UTF-8 text; name a file with JSON") from None
        return lambda state, parse: parse(text)
    if not assignments:
        return _edit_by_hand
    fields = {}
    for assignment in assignments:
        field, separator, value = assignment.partition("=")
        if not field or not separator:
            raise CommandError(f"--set {assignment!r:.80}: write it as field=JSON, such as total=3")
        try:
            fields[field] = exact.parse(value)
        except ValueError as error:
            raise CommandError(
                f"--set {field:.80}: {error}; strings are written as '\"…\"'"
            ) from None

    def assign(state: bytes, parse: _StateParser) -> bytes:
        members = _members(state)
        if members is None:
            raise CommandError(
                f"the stored state of {parse.key} is not a JSON object; replace it with --input"
            )
        return parse(orjson.dumps(members | fields).decode())

    return assign


def _edit_by_hand(state: bytes, parse: _StateParser) -> bytes | None:
    text = pretty_state(state)
    while True:
        try:
            edited = click.edit(text, extension=".json")
        except click.ClickException as error:
            raise CommandError(
                f"the editor failed ({error.format_message()}), nothing was changed; set $VISUAL "
                "or $EDITOR to another, or use --set or --input"
            ) from None
        if edited is None or edited.rstrip("\n") == pretty_state(state):
            return None
        try:
            return parse(edited)
        except CommandError as error:
            # The user's changes would be lost.
            question = f"{error.message}. Continue editing?"
            if not (is_interactive() and confirm(question, yes=False)):
                raise
            text = edited


def _members(state: bytes) -> dict[str, Any] | None:
    try:
        data = exact.parse(state.decode())
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _canonical(state: bytes) -> bytes:
    members = _members(state)
    return state if members is None else orjson.dumps(members)
