"""Verdict: whether what a trial has seen may be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson

from trio_durable import ObjectKey, SQLiteStorage

from .situations import ENTERING, LEAVING, Situation
from .trial import CLOSE_TIMEOUT, GRACE_PERIOD, Report
from .world import ACKNOWLEDGED, KEY, PLANNED, STORED, Ledger

LEAVING_SECONDS = GRACE_PERIOD + CLOSE_TIMEOUT + 3.0
"""How long leaving may take, on a busy machine."""


def stored_entries(path: Path) -> list[list[str]]:
    """The object's entries in a file that no process has open."""
    reader = SQLiteStorage(path).open_reader()
    try:
        [row] = reader.load([ObjectKey(Ledger.__name__, KEY)])
    finally:
        reader.close()
    assert row is not None
    state = orjson.loads(row.state)
    return [state["begun"], state["ended"]]


def faults(situation: Situation, action: str, report: Report, path: Path) -> Iterator[str]:
    """What is wrong; nothing if all is as it must be."""
    yield from _of_the_state(report, stored_entries(path))
    for each in report.unserved:
        yield f"wedge: {each}"
    for line in report.logged:
        if "nothing served it" in line:
            yield "wedge, repaired after a call's timeout"
    if report.alarm_is_late:
        yield "wedge: the alarm isn't handled"
    if report.escaped == "TrioInternalError":
        yield "internal error of Trio"
    elif report.escaped and action != "exit":
        yield f"escaped from the loop: {report.escaped}"
    for line in report.from_callbacks:
        yield f"left a callback or task: {line}"
    if report.leaving_took > LEAVING_SECONDS:
        yield f"hang: leaving took {report.leaving_took:.1f} s"
    if report.reopened not in ("", ACKNOWLEDGED):
        yield f"lock kept: {report.reopened}"
    for call in report.calls:
        if call.outcome == "waiting" and not report.escaped:
            yield f"hang: the call {call.entry!r} has no outcome"
        is_closed = call.outcome == "RuntimeClosed"
        if is_closed and not call.has_cause and situation not in (ENTERING, LEAVING):
            yield f"no cause: the call {call.entry!r} got RuntimeClosed"


def _of_the_state(report: Report, stored: list[list[str]]) -> Iterator[str]:
    begun, ended = stored
    if begun != ended:
        yield f"wrong state: half a turn is stored, {begun} and {ended}"
    if begun[0] != STORED:
        yield f"wrong state: it began with {begun[0]!r}"
    if len(set(ended)) < len(ended):
        yield f"wrong state: stored twice, {ended}"
    for call in report.calls:
        if call.is_acknowledged and call.entry and call.entry not in ended:
            yield f"wrong state: {call.entry!r} was acknowledged and isn't stored"
        elif call.is_acknowledged and call.entry and call.reply != ended.index(call.entry) + 1:
            yield f"wrong state: {call.entry!r} got the reply {call.reply}, and stored is {ended}"
        elif call.is_acknowledged and not call.entry:
            seen, also_seen = call.reply
            if seen != also_seen or seen != ended[: len(seen)]:
                yield f"wrong state: {seen} was read, and stored is {ended}"
    if report.memory is not None and PLANNED not in ended and report.memory != stored:
        yield f"wrong state: in memory was {report.memory[1]}, and stored is {ended}"
