"""Findings about messages and types, for ``trio-durable doctor``: the same for all storages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from ...storage import Finding, Reader
from ..command_line import command_line
from ..output import quantity
from .formatting import format_relative
from .paging import select_tenants

_OLD_MICROSECONDS = 3600 * 10**6
"""A message that has waited for so long is warned of, unless it is delayed."""
_MANY_KEYS = 10_000
"""Expired once-keys that are warned of. A runtime removes them each hour."""
_PAGE = 1000


def message_findings(reader: Reader, now: int, location: str) -> Iterator[Finding]:
    """Dead letters, messages that have waited long, and expired once-keys, of all tenants.

    Args:
        reader: A reader of the storage.
        now: The current wall time.
        location: The storage, for command lines.
    """
    dead, waiting = [], []
    listings: dict[str, str] = {}
    expired = 0
    for tenant in select_tenants(reader, None):
        whose = f" of tenant {tenant}" if tenant else ""
        for each in reader.summarize_messages(tenant):
            if each.dead:
                dead.append(f"{each.dead:,} to {each.type_name}{whose}")
                listings.setdefault("dead", _listing("dead", location, tenant))
            oldest = _oldest_awake(reader, each.type_name, tenant, now) if each.waiting else None
            if oldest is not None and now - oldest > _OLD_MICROSECONDS:
                listings.setdefault("list", _listing("list", location, tenant))
                waiting.append(
                    f"{quantity(each.waiting, 'message')} to {each.type_name}{whose}, one sent "
                    f"{format_relative(oldest, now)}"
                )
        expired += _expired(reader, tenant, now)
    if dead:
        yield Finding(
            "messages",
            "warning",
            f"there are dead letters: {', '.join(dead)}",
            f"look at them with `{listings['dead']}`, and retry or drop them",
        )
    if waiting:
        yield Finding(
            "messages",
            "warning",
            f"these wait for long: {'; '.join(waiting)}",
            f"open a runtime that serves these types and handlers; `{listings['list']}` shows the "
            "errors",
        )
    if expired >= _MANY_KEYS:
        yield Finding(
            "messages",
            "warning",
            f"{expired:,} once-keys or more have expired, and weren't removed",
            "open a runtime, which removes them each hour",
        )
    if not (dead or waiting or expired >= _MANY_KEYS):
        yield Finding("messages", "ok", "none is dead, and none has waited for long")


def _listing(command: str, location: str, tenant: str) -> str:
    return command_line("messages", command, storage=location, tenant=tenant)


def type_finding(reader: Reader, now: int, known: Collection[str] | None) -> Finding:
    """Messages and alarms for types that the app doesn't know, of all tenants.

    Args:
        reader: A reader of the storage.
        now: The current wall time.
        known: The stored names of the app's types; None if they aren't known. Then a type with
            objects counts as one of them.
    """
    objects, alarms, messages = Counter[str](), Counter[str](), Counter[str]()
    for tenant in select_tenants(reader, None):
        for each in reader.summarize(now, tenant):
            objects[each.type_name] += each.objects
            alarms[each.type_name] += each.pending + each.overdue + each.dead
        for mail in reader.summarize_messages(tenant):
            messages[mail.type_name] += mail.waiting + mail.dead
    unknown = []
    for name in sorted({*alarms, *messages}):
        counts = [
            quantity(count, noun)
            for count, noun in ((messages[name], "message"), (alarms[name], "alarm"))
            if count
        ]
        if counts and (not objects[name] if known is None else name not in known):
            unknown.append(f"{' and '.join(counts)} for {name}")
    if not unknown:
        return Finding("types", "ok", "messages and alarms are for known types")
    listed = "; ".join(unknown)
    if known is None:
        return Finding(
            "types",
            "warning",
            f"no object has the type of these: {listed}",
            "compare with the classes by `--app`; rename a type with `trio-durable rename`",
        )
    return Finding(
        "types",
        "warning",
        f"the app has no class for these: {listed}",
        "rename the type with `trio-durable rename`, or serve it by an app that has the class",
    )


def _oldest_awake(reader: Reader, type_name: str, tenant: str, now: int) -> int | None:
    """When the oldest message of the first ones was sent that may be delivered now."""
    page = reader.list_messages(type_name, None, None, _PAGE, tenant)
    due = [each.wake_at or each.sent_at for each in page if (each.wake_at or 0) <= now]
    return min(due, default=None)


def _expired(reader: Reader, tenant: str, now: int) -> int:
    """The number of expired once-keys, as far as that is of interest."""
    count, after = 0, None
    while count < _MANY_KEYS and (page := reader.list_once(after, _PAGE, tenant)):
        count += sum(each.expires_at <= now for each in page)
        after = page[-1].key
    return count
