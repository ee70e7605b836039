"""Pages about the whole app: overview, turns, waiting, nodes, tenants and audit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import attrs

from .._api.commands import STATISTICS, TURNS, TYPES, WAITS
from .._browsing import iter_alarm_types, iter_types
from .._keys import ObjectKey
from ..storage import Reader
from ._history import FinishedTurn, TurnHistory, quantiles
from ._view import Rendered, View

COUNTED = 1000
"""The number up to which objects are counted for a page."""
DEAD_COUNTED = 100
_MOST_TYPES = 200
_MOST_ROWS = 50
_STUCK_SECONDS = 1.0
_PAGE = 100
_LIBRARIES = ("/site-packages/", "/lib/python3", "/trio_durable/")
"""Parts of the paths of files that aren't the app's."""


@attrs.frozen
class Busy:
    """An object with a turn, as a process has described it."""

    key: ObjectKey
    doing: str
    seconds: float
    waiting: int
    cancelled: float | None
    awaits: list[dict[str, Any]]

    @property
    def place(self) -> dict[str, Any] | None:
        """The innermost frame of the app's own code that awaits; of any code, if none is."""
        own = [each for each in self.awaits if not any(part in each["file"] for part in _LIBRARIES)]
        found = own or self.awaits
        return found[-1] if found else None


async def busy_objects(view: View) -> list[Busy]:
    """The busy objects of all processes that may be seen, the longest busy first."""
    found = [
        Busy(
            ObjectKey(turn["type"], turn["id"], turn["tenant"]),
            turn["doing"],
            turn["seconds"],
            turn["waiting"],
            turn["cancelled"],
            turn["awaits"],
        )
        for turns in await view.source.ask(TURNS)
        for turn in turns
    ]
    found = [busy for busy in found if view.sees(busy.key)]
    return sorted(found, key=lambda busy: -busy.seconds)


async def served_types(view: View) -> set[str]:
    """The types that the processes serve."""
    return {name for names in await view.source.ask(TYPES) for name in names}


# --- overview ------------------------------------------------------------------------------------


@attrs.frozen
class TypeCount:
    """A type with the number of its objects, as far as they were counted."""

    name: str
    objects: int
    is_served: bool


def _stored(reader: Reader, now: int, tenant: str, served: Iterable[str]) -> dict[str, Any]:
    names = set(islice(iter_types(reader, tenant), _MOST_TYPES))
    alarm_types = list(islice(iter_alarm_types(reader, now, tenant), _MOST_TYPES))
    served = set(served)
    dead_alarms = 0
    for name in alarm_types:
        left = DEAD_COUNTED + 1 - dead_alarms
        dead_alarms += len(reader.list_dead_letters(name, None, left, tenant)) if left else 0
    return {
        "types": [
            TypeCount(name, len(reader.list_ids(name, None, COUNTED + 1, tenant)), name in served)
            for name in sorted(names | served | set(alarm_types))
        ],
        "dead_alarms": dead_alarms,
        "dead_messages": len(reader.list_dead_messages(None, 0, DEAD_COUNTED + 1, tenant)),
    }


class Rates:
    """Rates of the app's counters, between the last two looks that were half a second apart."""

    _COUNTERS = ("commits", "alarms_delivered", "messages_delivered", "alarms_failed")

    def __init__(self) -> None:
        self._looked: tuple[float, dict[str, int]] | None = None
        self._rates: dict[str, float] | None = None

    def of(self, processes: list[dict[str, Any]]) -> dict[str, float] | None:
        """The rates in a second; None at the first look."""
        now = time.monotonic()
        counters = {name: sum(each[name] for each in processes) for name in self._COUNTERS}
        if self._looked is None:
            self._looked = now, counters
            return None
        began, before = self._looked
        if now - began >= 0.5:
            self._looked = now, counters
            self._rates = {
                # A process that has ended takes its counters with it.
                name: max(0.0, (counters[name] - before[name]) / (now - began))
                for name in self._COUNTERS
            }
        return self._rates


async def overview(view: View, rates: Rates) -> Rendered:
    """The first page."""
    view.check_tenant()
    served, tenant, now = await served_types(view), view.tenant, view.now
    stored = await view.source.read(lambda reader: _stored(reader, now, tenant, served))
    busy = await busy_objects(view)
    data: dict[str, Any] = {
        **stored,
        "stuck": [each for each in busy if each.seconds >= _STUCK_SECONDS][:_MOST_ROWS],
        "busy": len(busy),
        "processes": None,
        "rates": None,
        "history": None,
        "counted": COUNTED,
        "dead_counted": DEAD_COUNTED,
    }
    # Figures of whole processes are those of all tenants together.
    if view.source.is_running and view.access.tenants is None:
        data["processes"] = processes = await view.source.ask(STATISTICS)
        data["rates"] = rates.of(processes)
    if (history := view.source.history) is not None:
        data["history"] = _figures(history, view)
    return Rendered("overview.html", "Overview", data)


def _figures(history: TurnHistory, view: View) -> dict[str, Any]:
    turns = [turn for turn in history.turns() if view.sees(turn.key)]
    per_second = history.per_second() if view.access.tenants is None else None
    failed = sum(1 for turn in turns if turn.error is not None and not turn.is_expected)
    return {
        "turns": len(turns),
        "failed": failed,
        "quantiles": quantiles([turn.seconds for turn in turns]),
        "per_second": None if per_second is None else [each for each, _ in per_second],
        "rate": None if per_second is None else sum(each for each, _ in per_second[-10:]) / 10,
    }


# --- turns ---------------------------------------------------------------------------------------


async def turns(view: View) -> Rendered:
    """Turns: the running, the slowest and the failed ones."""
    history = view.source.history

    def visible(found: Iterator[FinishedTurn]) -> list[dict[str, Any]]:
        seen = (turn for turn in found if view.sees(turn.key))
        return [_turn(view, turn) for turn in islice(seen, _MOST_ROWS)]

    return Rendered(
        "turns.html",
        "Turns",
        {
            "busy": (await busy_objects(view))[:_PAGE],
            "is_kept": history is not None,
            "slowest": visible(history.slowest()) if history else [],
            "failed": visible(history.failed()) if history else [],
            "latest": visible(history.turns()) if history else [],
        },
    )


def _turn(view: View, turn: FinishedTurn) -> dict[str, Any]:
    return {
        "at": int(turn.at * 1e6),
        "key": turn.key,
        "handler": turn.handler,
        "seconds": turn.seconds,
        "source": turn.source,
        "error": view.error(turn.key, turn.error),
        "is_expected": turn.is_expected,
    }


# --- waiting -------------------------------------------------------------------------------------


@attrs.frozen
class Waiting:
    """An object in the tree of waiting objects."""

    key: ObjectKey
    handler: str
    """The handler whose turn waits; "" at the top, or where another process has it."""
    waiters: list[Waiting]


async def waiting(view: View) -> Rendered:
    """The wait-for graph as trees: below each object are those whose turns wait for it."""
    edges = [
        (_key(edge["waiting"]), edge["handler"], _key(edge["for"]))
        for answers in await view.source.ask(WAITS)
        for edge in answers
    ]
    edges = [edge for edge in edges if view.sees(edge[0]) and view.sees(edge[2])]
    busy = {each.key: each for each in await busy_objects(view)}
    return Rendered(
        "waiting.html",
        "Waiting",
        {"trees": trees(edges), "busy": busy, "waits": len(edges)},
    )


def trees(edges: Iterable[tuple[ObjectKey, str, ObjectKey]]) -> list[Waiting]:
    """The trees of waits, the largest first. One that waits for two is in both."""
    waiters: dict[ObjectKey, dict[ObjectKey, str]] = {}
    waits: set[ObjectKey] = set()
    for key, handler, other in edges:
        waiters.setdefault(other, {})[key] = handler
        waits.add(key)

    def tree(key: ObjectKey, handler: str, above: frozenset[ObjectKey]) -> Waiting:
        below = above | {key}
        found = waiters.get(key, {}).items() if len(below) <= _MOST_ROWS else ()
        return Waiting(key, handler, [tree(k, h, below) for k, h in found if k not in below])

    roots = [key for key in waiters if key not in waits] or list(waiters)[:1]
    found = [tree(key, "", frozenset()) for key in roots]
    return sorted(found, key=lambda each: -_size(each))[:_PAGE]


def _size(tree: Waiting) -> int:
    return 1 + sum(map(_size, tree.waiters))


def _key(named: dict[str, str]) -> ObjectKey:
    return ObjectKey(named["type"], named["id"], named["tenant"])


# --- nodes, tenants, audit -----------------------------------------------------------------------


async def nodes(view: View) -> Rendered:
    """The processes that share the storage. For an access to all tenants alone."""
    found = await view.source.nodes()
    processes = {each["node"]: each for each in await view.source.ask(STATISTICS)}
    return Rendered("nodes.html", "Nodes", {"nodes": found, "processes": processes})


async def tenants(view: View) -> Rendered:
    """The tenants that may be seen."""
    after, allowed = view.query("after") or None, view.access.tenants

    def read(reader: Reader) -> list[str]:
        if allowed is None:
            return reader.list_tenants(after, _PAGE + 1)
        return sorted(name for name in allowed if name and (after is None or name > after))

    found = await view.source.read(read)
    names = found[:_PAGE]
    following = names[-1] if len(found) > _PAGE else None
    has_nameless = after is None and view.access.sees("")
    data = {"names": names, "next": following, "has_nameless": has_nameless}
    return Rendered("tenants.html", "Tenants", data)


async def audit(view: View) -> Rendered:
    """The latest changes that were made by the inspector."""
    entries = [entry for entry in view.audit.entries() if view.sees(entry.event.key)]
    return Rendered("audit.html", "Audit", {"entries": entries[:_PAGE]})
