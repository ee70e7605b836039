"""The page of dead letters, and their retries and removals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeAlias

import attrs
from markupsafe import escape
from starlette.responses import RedirectResponse, Response, StreamingResponse

from .._browsing import iter_alarm_types
from .._errors import DurableError
from .._keys import AlarmKey, ObjectKey, id_problem
from .._messages.message import message_id, token_of
from .._telemetry.events import AuditedAction
from ..storage import DeadMessage, Reader, StoredAlarm
from ._overview import served_types
from ._rendering import link, page
from ._view import NotFound, Refused, Rendered, View

Kind: TypeAlias = Literal["alarms", "messages"]

_PAGE = 100
_GROUPED = 1000
_MOST_TYPES = 200


@attrs.frozen
class DeadLetter:
    """A dead letter of either kind."""

    key: ObjectKey
    name: str
    """The alarm's name, or the message's handler."""
    id: str
    """The message's id; "" for an alarm."""
    at: int
    """When the alarm was due, or the message died, in microseconds since 1970 UTC."""
    attempts: int
    error: str | None
    content: bytes | None
    """The payload or the arguments."""
    note: str = ""

    @property
    def item(self) -> str:
        """The dead letter in a form, as plain ASCII."""
        if self.id:
            return json.dumps(["message", self.id])
        return json.dumps(["alarm", self.key.type_name, self.key.object_id, self.name])

    @property
    def place(self) -> str:
        """Its place in the list, for the next page."""
        return json.dumps([self.key.type_name, self.key.object_id, self.name])


def _of_alarm(alarm: StoredAlarm) -> DeadLetter:
    return DeadLetter(
        alarm.key.object_key,
        alarm.key.name,
        "",
        alarm.due_at,
        alarm.failures,
        alarm.last_error,
        alarm.payload,
    )


def _of_message(dead: DeadMessage) -> DeadLetter:
    message = dead.message
    return DeadLetter(
        message.key.to,
        message.handler,
        message_id(message.key.token),
        dead.died_at,
        message.failures,
        message.last_error,
        message.arguments,
        "later messages were handled since" if dead.is_overtaken else "",
    )


def _alarms(
    reader: Reader, now: int, tenant: str, type_name: str | None, after: AlarmKey | None
) -> Iterator[DeadLetter]:
    """Dead letters among alarms, by type, id and name."""
    types = [type_name] if type_name else islice(iter_alarm_types(reader, now, tenant), _MOST_TYPES)
    for name in types:
        if after is not None and name.encode() < after.type_name.encode():
            continue
        last = after if after is not None and after.type_name == name else None
        while found := reader.list_dead_letters(name, last, _PAGE, tenant):
            yield from map(_of_alarm, found)
            last = found[-1].key


def _messages(
    reader: Reader, tenant: str, type_name: str | None, after: int
) -> Iterator[tuple[int, DeadLetter]]:
    """Dead letters among messages by number, each with its number."""
    while found := reader.list_dead_messages(type_name, after, _PAGE, tenant):
        for dead in found:
            after = dead.message.key.seq
            yield after, _of_message(dead)


def _first_alarms(
    reader: Reader, now: int, tenant: str, type_name: str | None, after: AlarmKey | None
) -> list[DeadLetter]:
    return list(islice(_alarms(reader, now, tenant, type_name, after), _PAGE))


def _first_messages(
    reader: Reader, tenant: str, type_name: str | None, after: int
) -> list[tuple[int, DeadLetter]]:
    return list(islice(_messages(reader, tenant, type_name, after), _PAGE))


def _kind(view: View) -> Kind:
    return "messages" if view.query("kind") == "messages" else "alarms"


def _listed(view: View, reader: Reader, most: int) -> tuple[list[DeadLetter], str | None]:
    """Dead letters from the place of the query on, and the place of the next page."""
    type_name, tenant = view.query("type") or None, view.tenant
    if _kind(view) == "messages":
        after = view.query("after")
        number = int(after) if after.isdecimal() and len(after) < 19 else 0
        numbered = list(islice(_messages(reader, tenant, type_name, number), most + 1))
        following = str(numbered[most - 1][0]) if len(numbered) > most else None
        return [dead for _, dead in numbered[:most]], following
    last = _alarm_place(view.query("after"), tenant)
    found = list(islice(_alarms(reader, view.now, tenant, type_name, last), most + 1))
    return found[:most], found[most - 1].place if len(found) > most else None


def _alarm_place(text: str, tenant: str) -> AlarmKey | None:
    if not text:
        return None
    try:
        match json.loads(text):
            case [str(type_name), str(object_id), str(name)]:
                return AlarmKey(type_name, object_id, name, tenant)
    except (ValueError, RecursionError):
        pass
    raise NotFound("The address names no place in the list.")


async def dead_letters(view: View) -> Rendered:
    """Dead letters: a page of them, and the first thousand by type and error."""
    view.check_tenant()

    def read(reader: Reader) -> tuple[list[DeadLetter], str | None, list[DeadLetter]]:
        listed, following = _listed(view, reader, _PAGE)
        first = listed
        if following is not None:
            first, _ = _listed(view, reader, _GROUPED)
        return listed, following, first

    listed, following, first = await view.source.read(read)
    served = await served_types(view)
    groups = Counter((dead.key.type_name, dead.name, _error_class(dead.error)) for dead in first)
    return Rendered(
        "dead.html",
        "Dead letters",
        {
            "kind": _kind(view),
            "type_name": view.query("type"),
            "after": view.query("after"),
            "letters": [_shown(view, dead, served) for dead in listed],
            "next": following,
            "groups": groups.most_common(20),
            "grouped": len(first),
            "most_grouped": _GROUPED,
            "may_retry": view.access.may("retry") and view.source.is_running,
            "may_drop": view.access.may("drop") and view.source.is_running,
            "done": view.query("done"),
        },
    )


def _shown(view: View, dead: DeadLetter, served: set[str]) -> dict[str, Any]:
    kind: Literal["payload", "arguments"] = "arguments" if dead.id else "payload"
    content = None
    if view.access.may("state"):
        content = view.redactor.parsed(dead.key, kind, dead.content)
    return {
        "key": dead.key,
        "name": dead.name,
        "id": dead.id,
        "at": dead.at,
        "attempts": dead.attempts,
        "error": view.error(dead.key, dead.error),
        "content": content,
        "note": dead.note,
        "item": dead.item,
        "is_served": dead.key.type_name in served,
    }


def _error_class(error: str | None) -> str:
    head = (error or "").partition(":")[0]
    return head if head.isidentifier() else "another error"


# --- changes -------------------------------------------------------------------------------------


async def retry(view: View) -> Response:
    """Retry one dead letter, the selected ones, or all of a list."""
    form = await _form(view)
    if form.get("scope") == ["all"]:
        return _retry_all(view)
    return await _change(view, form, "retry")


async def drop(view: View) -> Response:
    """Remove one dead letter, or the selected ones."""
    return await _change(view, await _form(view), "drop")


async def _form(view: View) -> dict[str, list[str]]:
    view.check_tenant()
    if not view.source.is_running:
        raise Refused(409, "Read only", "No process runs that could make the change.")
    return await view.form()


async def _change(view: View, form: dict[str, list[str]], action: AuditedAction) -> Response:
    items = form.get("only") or form.get("item", [])
    done = 0
    for item in items[: 2 * _PAGE]:
        found = await _found(view, item)
        if found is not None:
            done += await _one(view, found, action)
    word = "will be tried again" if action == "retry" else "removed"
    return RedirectResponse(_back(view, f"{done} of {len(items)} {word}"), 303)


def _back(view: View, done: str) -> str:
    return link(
        "dead",
        kind=_kind(view),
        type=view.query("type"),
        tenant=view.tenant,
        done=done,
    )


async def _found(view: View, item: str) -> DeadLetter | None:
    """The dead letter that an item of a form names; None if it isn't there any more."""
    tenant = view.tenant
    try:
        named = json.loads(item)
    except (ValueError, RecursionError):
        named = None
    match named:
        case ["alarm", str(type_name), str(object_id), str(name)]:
            if any(id_problem(each) for each in (type_name, object_id, name)):
                raise NotFound("The form names no dead letter.")
            key = AlarmKey(type_name, object_id, name, tenant)
            [row] = await view.source.read(lambda reader: reader.load_alarms([key], view.now))
            return None if row is None or row.status != "dead" else _of_alarm(row.alarm)
        case ["message", str(found)] if (token := token_of(found)) is not None:
            [dead] = await view.source.read(
                lambda reader: reader.load_dead_messages([token], tenant)
            )
            return None if dead is None else _of_message(dead)
    raise NotFound("The form names no dead letter.")


async def _one(view: View, dead: DeadLetter, action: AuditedAction) -> bool:
    """Change one dead letter, and record it. Returns whether it was there."""
    source, key = view.source, dead.key
    outcome, alarm = "done", key.alarm(dead.name)
    try:
        if action == "retry":
            if dead.id:
                is_done = await source.retry_message(key.tenant, dead.id)
            else:
                is_done = await source.retry_alarm(alarm)
        elif dead.id:
            is_done = await source.drop_message(key.tenant, dead.id)
        else:
            await source.drop_alarm(alarm)
            is_done = True
        outcome = "done" if is_done else "gone"
    except DurableError as error:
        is_done, outcome = False, type(error).__name__
    event = view.audit.record(
        view.now, view.access.who, action, key, outcome, name=dead.id or dead.name
    )
    source.tell(event)
    return is_done


def _retry_all(view: View) -> Response:
    """Retry a whole list, with a page that grows as it is done. It works without scripts."""

    async def lines() -> AsyncIterator[str]:
        head, middle, end = page(
            "progress.html",
            {
                "title": "Retrying",
                "view": view,
                "tenant": view.tenant,
                "path": "dead",
                "location": view.source.location,
                "live": None,
                "is_running": True,
                "now": view.now,
            },
        ).split("<!-- progress -->")
        yield head
        done = failed = 0
        async for batch in _batches(view):
            for dead in batch:
                is_done = await _one(view, dead, "retry")
                done, failed = done + is_done, failed + (not is_done)
            yield f"<li>{done:,} retried{f', {failed:,} not' if failed else ''}</li>\n"
        back = escape(_back(view, f"{done} will be tried again"))
        yield f'{middle}<p><strong>Done.</strong> <a href="{back}">Back to the list</a></p>{end}'

    return StreamingResponse(lines(), media_type="text/html")


async def _batches(view: View) -> AsyncIterator[list[DeadLetter]]:
    """All dead letters of a list, each once, though a letter that fails again returns to it."""
    type_name, tenant, now = view.query("type") or None, view.tenant, view.now
    seen: set[str] = set()
    if _kind(view) == "messages":
        number = 0
        while True:
            numbered = await view.source.read(
                partial(_first_messages, tenant=tenant, type_name=type_name, after=number)
            )
            if not numbered:
                return
            number = numbered[-1][0]
            batch = [dead for _, dead in numbered if dead.item not in seen]
            seen.update(dead.item for dead in batch)
            yield batch
    last: AlarmKey | None = None
    while True:
        found = await view.source.read(
            partial(_first_alarms, now=now, tenant=tenant, type_name=type_name, after=last)
        )
        if not found:
            return
        last = found[-1].key.alarm(found[-1].name)
        yield found
