"""Pages about objects: a type, one object, the search for an id, and edits."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

import attrs
from starlette.responses import RedirectResponse, Response

from .._activations.encoded import row_digest
from .._api.commands import ACTIVATION
from .._browsing import find_object, iter_alarms_of, iter_types, just_before
from .._errors import DurableError, StateConflict
from .._json.exact import parse
from .._keys import ObjectKey, id_problem
from .._messages.message import message_id
from ..storage import AlarmRow, ObjectRow, Reader, StoredMessage
from ._contents import (
    LARGE,
    Change,
    RedactedEdit,
    changes,
    compact,
    fields_of,
    merged,
    parsed,
    pretty,
    unredacted,
    with_declaration,
)
from ._overview import busy_objects, served_types
from ._rendering import to_object
from ._view import NotFound, Refused, Rendered, View

_PAGE = 100
_MOST_FOUND = 20
_MOST_TYPES = 200
_KEPT_CHANGES = 20

# --- a type --------------------------------------------------------------------------------------


async def of_type(view: View) -> Rendered:
    """The objects of a type, with the most changed and the busiest."""
    view.check_tenant()
    name, tenant = view.type_name, view.tenant
    prefix, after = view.query("prefix"), view.query("after")

    def read(reader: Reader) -> list[str]:
        # Ids before the prefix are skipped by the index; those after it end the page.
        start = after or (_before(prefix) if prefix else None)
        return reader.list_ids(name, start, _PAGE + 1, tenant)

    ids = [each for each in await view.source.read(read) if each.startswith(prefix)]
    rows = await view.source.read(lambda reader: _rows(reader, name, ids[:_PAGE], tenant))
    history = view.source.history
    recent: list[Any] = []
    busiest: list[Any] = []
    if history is not None:
        of_this = (each for each in history.changed() if _is_of(each[0], name, tenant))
        recent = [(key, int(at * 1e6), revision) for key, at, revision in islice(of_this, 10)]
        busiest = history.busiest(lambda key: _is_of(key, name, tenant), 10)
    return Rendered(
        "type.html",
        name,
        {
            "type_name": name,
            "prefix": prefix,
            "after": after,
            "rows": rows,
            "next": ids[_PAGE - 1] if len(ids) > _PAGE else None,
            "is_kept": history is not None,
            "recent": recent,
            "busiest": busiest,
            "is_served": name in await served_types(view),
        },
    )


def _before(prefix: str) -> str | None:
    """A bound below all ids with a prefix, and not below many others."""
    return just_before(prefix) or None


def _is_of(key: ObjectKey, type_name: str, tenant: str) -> bool:
    return (key.type_name, key.tenant) == (type_name, tenant)


@attrs.frozen
class Row:
    """An object in a list, without its state."""

    key: ObjectKey
    revision: int
    size: int


def _rows(reader: Reader, name: str, ids: Iterable[str], tenant: str) -> list[Row]:
    keys = [ObjectKey(name, object_id, tenant) for object_id in ids]
    found = reader.load(keys) if keys else ()
    return [
        Row(key, stored.revision, len(stored.state))
        for key, stored in zip(keys, found, strict=True)
        if stored is not None
    ]


# --- the search ----------------------------------------------------------------------------------

_REPR = re.compile(r"(?P<type>[\w.\[\], ]+)\((?P<quote>['\"])(?P<id>.*)(?P=quote)\)", re.DOTALL)


async def find(view: View) -> Rendered | Response:
    """The objects that a pasted text may mean: an id, ``Type/id`` or ``Type('id')``."""
    view.check_tenant()
    text, tenant = view.query("text").strip(), view.tenant
    wanted: list[tuple[str | None, str]] = [(None, text)] if text else []
    if matched := _REPR.fullmatch(text):
        wanted.append((matched["type"], matched["id"]))
    type_name, slash, object_id = text.partition("/")
    if slash:
        wanted.append((type_name, object_id))

    def read(reader: Reader) -> list[ObjectKey]:
        types = list(islice(iter_types(reader, tenant), _MOST_TYPES))
        keys = [
            ObjectKey(name, wanted_id, tenant)
            for wanted_type, wanted_id in wanted
            if id_problem(wanted_id) is None
            for name in types
            if wanted_type in (None, name)
        ]
        found = reader.load(keys) if keys else ()
        return [key for key, stored in zip(keys, found, strict=True) if stored is not None]

    found = await view.source.read(read)
    if len(found) == 1:
        return RedirectResponse(to_object(found[0]), 303)
    return Rendered("find.html", "Find", {"text": text, "found": found[:_MOST_FOUND]})


# --- one object ----------------------------------------------------------------------------------


@attrs.frozen
class _Stored:
    row: ObjectRow | None
    alarms: list[AlarmRow]
    messages: list[StoredMessage]


def _read(reader: Reader, key: ObjectKey, now: int) -> _Stored:
    return _Stored(
        find_object(reader, key),
        list(islice(iter_alarms_of(reader, key, now), _PAGE + 1)),
        reader.list_messages(key.type_name, key.object_id, None, _PAGE + 1, key.tenant),
    )


@attrs.define
class Watched:
    """The revisions of an object that one stream has seen, for their differences."""

    revision: int | None = None
    state: Any = None
    changes: deque[tuple[int, int, list[Change]]] = attrs.field(
        factory=lambda: deque(maxlen=_KEPT_CHANGES)
    )

    def saw(self, revision: int, state: Any) -> None:
        """Note a redacted state, and its differences from the one before."""
        if self.revision is not None and revision != self.revision:
            self.changes.appendleft((self.revision, revision, changes(self.state, state)))
        self.revision, self.state = revision, state


async def one_object(view: View, watched: Watched | None = None) -> Rendered:
    """One object: its state, alarms, messages and turn."""
    view.check_tenant()
    key, now = view.key, view.now
    stored = await view.source.read(lambda reader: _read(reader, key, now))
    arguments = [key.type_name, key.object_id, key.tenant]
    there = [each for each in await view.source.ask(ACTIVATION, arguments) if each is not None]
    busy = [each for each in await busy_objects(view) if each.key == key]
    row, may_see = stored.row, view.access.may("state")
    is_large = row is not None and len(row.state) > LARGE
    state = None
    if row is not None and may_see and not is_large:
        state = view.redactor.shown(key, "state", fields_of(parsed(row.state)))
    watched = watched or Watched()
    if may_see:
        watched.saw(0 if row is None else row.revision, state)
    is_served = key.type_name in await served_types(view)
    return Rendered(
        "object.html",
        key.object_id,
        {
            "key": key,
            "row": row,
            "size": 0 if row is None else len(row.state),
            "may_see": may_see,
            "is_large": is_large,
            "state": state,
            "changes": list(watched.changes),
            "alarms": [_alarm(view, each) for each in stored.alarms[:_PAGE]],
            "more_alarms": len(stored.alarms) > _PAGE,
            "messages": [_message(view, each) for each in stored.messages[:_PAGE]],
            "more_messages": len(stored.messages) > _PAGE,
            "there": there[0] if there else None,
            "busy": busy[0] if busy else None,
            "may_edit": view.access.may("edit") and may_see and is_served and not is_large,
            "is_served": is_served,
            "test": as_test(key, state) if isinstance(state, dict) else None,
            "saved": view.query("saved"),
        },
        200 if row or stored.alarms or stored.messages or there else 404,
    )


def _alarm(view: View, row: AlarmRow) -> dict[str, Any]:
    alarm = row.alarm
    key = alarm.key.object_key
    payload = (
        view.redactor.parsed(key, "payload", alarm.payload) if view.access.may("state") else None
    )
    return {
        "name": alarm.key.name,
        "status": row.status,
        "due_at": alarm.due_at,
        "available_at": row.available_at,
        "failures": alarm.failures,
        "is_recurring": alarm.recurrence is not None,
        "payload": payload,
        "error": view.error(key, alarm.last_error),
    }


def _message(view: View, message: StoredMessage) -> dict[str, Any]:
    key, may_see = message.key.to, view.access.may("state")
    sender = message.sender
    return {
        "id": message_id(message.key.token),
        "handler": message.handler,
        "sender": sender if sender is None or view.sees(sender) else None,
        "sent_at": message.sent_at,
        "wake_at": message.wake_at,
        "failures": message.failures,
        "arguments": (
            view.redactor.parsed(key, "arguments", message.arguments) if may_see else None
        ),
        "error": view.error(key, message.last_error),
    }


def as_test(key: ObjectKey, state: dict[str, Any]) -> str:
    """A test that begins with a state, for the page to copy."""
    text = pretty(state).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    cls = re.sub(r"\W", "_", key.type_name.rpartition(".")[2])
    return f'''\
import json

import pytest

from trio_durable.testing import perform_handler

# from your_app import {cls}

STATE = json.loads("""
{text}
""")


@pytest.mark.anyio
async def test_{cls.lower()}() -> None:
    turn = await perform_handler({cls}(**STATE), "a_handler")
    assert turn.state.{next(iter(state), "a_field")} == ...
'''


async def download(view: View) -> Response:
    """The state of an object as a file, redacted like the page."""
    view.check_tenant()
    key = view.key
    row = await _found(view, key)
    shown = view.redactor.shown(key, "state", fields_of(parsed(row.state)))
    return Response(
        json.dumps(shown, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass"),
        media_type="application/json",
        headers={"Content-Disposition": 'attachment; filename="state.json"'},
    )


async def _found(view: View, key: ObjectKey) -> ObjectRow:
    row = await view.source.read(lambda reader: find_object(reader, key))
    if row is None:
        raise NotFound(f"{key} isn't stored.")
    return row


# --- edits ---------------------------------------------------------------------------------------


async def edit_form(view: View) -> Rendered:
    """The form of an edit, with the state that is stored."""
    key, row = await _editable(view)
    shown = view.redactor.shown(key, "state", fields_of(parsed(row.state)))
    return _form(view, key, row, text=pretty(shown), base=compact(shown))


async def edit(view: View) -> Rendered | Response:
    """Save an edit, if the state is still the one that it is based on."""
    key, row = await _editable(view)
    form = await view.form()
    text, base = (form.get(name, [""])[0] for name in ("state", "base"))
    revision, digest = (form.get(name, [""])[0] for name in ("revision", "digest"))
    if not re.fullmatch(r"\d{1,18}", revision) or not re.fullmatch(r"[0-9a-f]{1,128}", digest):
        raise Refused(400, "Not understood", "The form has no revision; open it again.")
    stored = parsed(row.state)
    shown = view.redactor.shown(key, "state", fields_of(stored))

    def again(problem: str, status: int = 422) -> Rendered:
        _record(view, key, "refused", int(revision))
        return _form(
            view,
            key,
            row,
            text=text,
            base=base,
            problem=problem,
            status=status,
            revision=int(revision),
            digest=digest,
        )

    try:
        mine = parse(text)
    except ValueError as error:
        return again(f"The new state: {error}.")
    if not isinstance(mine, dict):
        return again("The new state is no JSON object, such as {…}.")
    if (int(revision), digest) != (row.revision, row_digest(row.state)):
        return _conflict(view, key, row, base, shown, mine, int(revision))
    try:
        fields = unredacted(fields_of(stored), shown, mine)
    except RedactedEdit as redacted:
        return again(
            f"{redacted} has redacted values, and another shape than before, so it isn't known "
            "which values are meant. Change one value at a time."
        )
    new = json.dumps(with_declaration(fields, stored), ensure_ascii=False)
    try:
        await view.source.edit(key, new, (row.revision, digest))
    except StateConflict:
        row = await _found(view, key)
        shown = view.redactor.shown(key, "state", fields_of(parsed(row.state)))
        return _conflict(view, key, row, base, shown, mine, int(revision))
    except DurableError as error:
        _record(view, key, type(error).__name__, row.revision)
        problem = view.error(key, str(error)) or ""
        return _form(view, key, row, text=text, base=base, problem=problem, status=422)
    _record(view, key, "done", row.revision, row.revision + 1)
    return RedirectResponse(to_object(key, saved=row.revision + 1), 303)


async def _editable(view: View) -> tuple[ObjectKey, ObjectRow]:
    view.check_tenant()
    key = view.key
    if not view.access.may("state"):
        raise Refused(403, "Not allowed", "An edit shows the state, which needs the right “state”.")
    if key.type_name not in await served_types(view):
        raise Refused(
            409,
            "View only",
            f"No process that runs serves the type {key.type_name}, so its states can't be "
            "checked and are view only.",
        )
    row = await _found(view, key)
    if len(row.state) > LARGE:
        raise Refused(413, "Too large", f"{key} has more than 256 kB; edit it by the command.")
    return key, row


def _form(
    view: View,
    key: ObjectKey,
    row: ObjectRow,
    *,
    text: str,
    base: str,
    problem: str = "",
    status: int = 200,
    revision: int | None = None,
    digest: str | None = None,
) -> Rendered:
    data = {
        "key": key,
        "text": text,
        "base": base,
        "revision": row.revision if revision is None else revision,
        "digest": row_digest(row.state) if digest is None else digest,
        "problem": problem,
        "redacts": view.redactor.redacts,
        "conflict": None,
    }
    return Rendered("edit.html", f"Edit {key.object_id}", data, status)


def _parsed(text: str) -> Any:
    """The value of a JSON text; None if it is none."""
    try:
        return parse(text)
    except ValueError:
        return None


def _conflict(
    view: View, key: ObjectKey, row: ObjectRow, base: str, theirs: Any, mine: Any, before: int
) -> Rendered:
    """The form again, with the edit on the present state."""
    _record(view, key, "conflict", before)
    was = _parsed(base)
    merge = merged(was, theirs, mine)
    names = [] if merge is None else _changed_names(was, theirs, mine)
    form = _form(
        view,
        key,
        row,
        text=pretty(mine if merge is None else merge.value),
        base=compact(theirs),
        status=409,
    )
    form.data["conflict"] = {
        "before": before,
        "both": [] if merge is None else merge.both,
        "rows": [
            {
                "name": name,
                "base": _member(was, name),
                "theirs": _member(theirs, name),
                "mine": _member(mine, name),
            }
            for name in names
        ],
    }
    return form


def _changed_names(base: dict[str, Any], theirs: dict[str, Any], mine: dict[str, Any]) -> list[str]:
    names = dict.fromkeys([*base, *theirs, *mine])
    return [
        name for name in names if len({_member(each, name) for each in (base, theirs, mine)}) > 1
    ]


def _member(value: Any, name: str) -> str | None:
    return compact(value[name]) if isinstance(value, dict) and name in value else None


def _record(
    view: View, key: ObjectKey, outcome: str, before: int, after: int | None = None
) -> None:
    event = view.audit.record(
        view.now, view.access.who, "edit", key, outcome, before=before, after=after
    )
    view.source.tell(event)
