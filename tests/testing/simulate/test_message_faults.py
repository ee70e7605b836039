"""Faults where the storage defers, marks, buries, retries and drops messages; planted mistakes."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from trio_durable import (
    DurableObject,
    ObjectKey,
    Retry,
    SendFailed,
    StorageUnavailable,
    handler,
)
from trio_durable._outbox import deferrals
from trio_durable._runtime.administration import Administration
from trio_durable.storage import Commit, MessageChanges, MessageKey, StorageFault
from trio_durable.testing.simulate import Simulation, outside
from trio_durable.testing.simulate._disk import _Writer
from trio_durable.testing.simulate._faults import DrawnFault, Faults, Kind, Verb, When

from .objects import simulate

ATTEMPTS = 2
STORIES = int(os.environ.get("TRIO_DURABLE_EXAMPLES", "2"))
AT_ALL = ("crash before", "crash after", "fail before", "fail after")


class Jam(Exception):
    """The press has failed."""


def feed_paper(job: str) -> None:
    """Feed a sheet for a job: an effect outside, which shows each attempt."""
    raise NotImplementedError(job)


class Press(DurableObject, name="simulated.Press"):
    """Prints jobs, some of them at the second attempt or never."""

    printed: list[str] = attrs.field(factory=list)

    @handler(retry=Retry(attempts=ATTEMPTS, crashes=2, initial=5, factor=1))
    def print(self, job: str, *, jams: int) -> None:
        feed_paper(job)
        message = self.ctx.message
        assert message is not None
        if message.attempt <= jams:
            raise Jam
        self.printed = [*self.printed, job]


class Desk(DurableObject, name="simulated.Desk"):
    """Sends jobs to a press, and decides about those that it couldn't print."""

    jobs: int = 0
    refused: list[str] = attrs.field(factory=list)
    to_drop: list[str] = attrs.field(factory=list)
    dropped: int = 0

    @handler
    def order(self, jams: int) -> None:
        self.jobs += 1
        job = f"{self.ctx.object_id}{self.jobs}"
        self.ctx.outgoing(failed=Desk.told).send(Press.print, "p", job, jams=jams)

    @handler
    def order_for_later(self, jams: int) -> None:
        self.jobs += 1
        job = f"{self.ctx.object_id}{self.jobs}"
        self.ctx.outgoing(after=30, failed=Desk.told).send(Press.print, "p", job, jams=jams)

    @handler
    def told(self, failure: SendFailed) -> None:
        self.refused = [*self.refused, failure.id]

    @handler
    async def retry(self) -> int:
        return await self.ctx.runtime.retry_messages(Press)

    @handler
    async def drop(self) -> None:
        for dead in await self.ctx.runtime.list_dead_messages(Press):
            self.to_drop = [*self.to_drop, dead.id]
            await self.ctx.commit()
            await self.ctx.runtime.drop_message(dead.id)

    @handler
    async def drop_carelessly(self) -> None:
        """Does a dual write: the note of it comes in a later commit."""
        for dead in await self.ctx.runtime.list_dead_messages(Press):
            await self.ctx.runtime.drop_message(dead.id)
            self.to_drop = [*self.to_drop, dead.id]


class Prints(Simulation):
    objects = (Press, Desk)
    ids = ("a", "b")
    allowed = (Jam,)
    delays = (1, 60)
    left_out = ("Press.print", "Desk.told", "Desk.drop_carelessly")
    arguments: ClassVar = {
        "Desk.order.jams": st.sampled_from([0, 1, ATTEMPTS]),
        "Desk.order_for_later.jams": st.sampled_from([0, 1, ATTEMPTS]),
    }

    def __init__(self) -> None:
        self.sheets: list[str] = []
        super().__init__()

    @outside(sys.modules[__name__], "feed_paper", fails_with=OSError)
    def feed_paper(self, job: str) -> None:
        self.sheets.append(job)

    @property
    def printed(self) -> list[str]:
        return self.stored(Press).get("p", Press()).printed

    @property
    def waiting(self) -> list[str]:
        return [job_of(each) for each in self.messages if each.handler == "print"]

    @property
    def dead(self) -> list[str]:
        return [job_of(each) for each in self.dead_messages]

    @invariant()
    def each_job_is_in_one_place(self) -> None:
        places = Counter([*self.printed, *self.waiting, *self.dead])
        assert not [job for job, count in places.items() if count > 1]
        desks = self.stored(Desk)
        jobs = {f"{name}{n + 1}" for name, desk in desks.items() for n in range(desk.jobs)}
        assert places.keys() <= jobs
        # What is gone was to be dropped.
        noted = {each for desk in desks.values() for each in desk.to_drop}
        assert len(jobs - places.keys()) <= len(noted)

    @invariant()
    def each_desk_is_told_of_each_death(self) -> None:
        told = [id_of_dead(each) for each in self.messages if each.handler == "told"]
        told += [each for desk in self.stored(Desk).values() for each in desk.refused]
        assert {each.id for each in self.dead_messages} <= set(told)

    @rule()
    def rest(self) -> None:
        """Whatever has happened, nothing waits for longer than its attempts take."""
        self.wait(900)
        assert not self.messages


def job_of(message: Any) -> str:
    job: str = message.arguments["job"]
    return job


def id_of_dead(note: Any) -> str:
    message_id: str = note.arguments["failure"]["id"]
    return message_id


@contextmanager
def printing(kind: type[Prints] = Prints) -> Iterator[Prints]:
    state = kind()
    try:
        yield state
    finally:
        state.teardown()


# --- where the storage changes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "sheets"),
    [
        ("crash before defer 1", 3),  # the attempt isn't counted
        ("crash after defer 1", 2),
        ("fail before defer 1", 2),
        ("fail after defer 1", 2),
    ],
)
def test_a_failed_attempt_counts_when_its_deferral_is_stored(fault: str, sheets: int) -> None:
    with printing() as state:
        state.call(Desk, "a", "order", ATTEMPTS, fault=fault)
        state.rest()
        assert (state.sheets, state.dead) == (["a1"] * sheets, ["a1"])


@pytest.mark.parametrize(
    ("fault", "crashes"),
    [
        ("crash before mark 1", 0),
        ("crash after mark 1", 1),
        ("fail before mark 1", 0),
        ("fail after mark 1", 0),
    ],
)
def test_a_crash_counts_against_a_message_that_was_marked(fault: str, crashes: int) -> None:
    with printing() as state:
        state.call(Desk, "a", "order_for_later", 0)
        state.crash(down_for=60, fault=fault)
        stored = state._disk.messages()
        assert sum(each.crashes for each in stored) == crashes
        state.rest()
        assert state.printed == ["a1"]


def kill_twice(state: Prints) -> None:
    """Let a message kill its process as often as it may."""
    state.call(Desk, "a", "order_for_later", 0)
    state.crash(down_for=60, fault="crash after mark 1")
    state.wait(60, fault="crash after mark 1")
    state.wait(1)
    assert state.dead == ["a1"]


def test_a_message_that_kills_its_process_is_buried() -> None:
    with printing() as state:
        kill_twice(state)
        assert state.sheets == []
        assert "died in each of its last 2" in str(state.dead_messages[0].last_error)


def die(state: Prints, fault: str | None = None) -> None:
    """Let a job be buried; the fault comes to the commit of that."""
    state.call(Desk, "a", "order", ATTEMPTS)
    state.wait(10, fault=fault)


@pytest.mark.parametrize("when", AT_ALL)
def test_a_burial_is_a_commit_with_the_note_of_it(when: str) -> None:
    with printing() as state:
        die(state, f"{when} commit 1")
        state.rest()
        assert (state.dead, len(state.stored(Desk)["a"].refused)) == (["a1"], 1)


@pytest.mark.parametrize("when", AT_ALL)
def test_a_retried_message_waits_or_is_dead(when: str) -> None:
    with printing() as state:
        die(state)
        sheets = len(state.sheets)
        call = state.call(Desk, "b", "retry", fault=f"{when} retry 1")
        assert isinstance(call.error, StorageUnavailable) == when.startswith("fail")
        state.rest()
        again = ATTEMPTS if when.endswith("after") else 0
        assert (len(state.sheets) - sheets, state.dead) == (again, ["a1"])


@pytest.mark.parametrize("when", AT_ALL)
def test_a_dropped_message_is_gone_when_that_is_stored(when: str) -> None:
    with printing() as state:
        die(state)
        call = state.call(Desk, "b", "drop", fault=f"{when} drop 1")
        assert isinstance(call.error, StorageUnavailable) == when.startswith("fail")
        state.rest()
        assert state.dead == ([] if when.endswith("after") else ["a1"])


def test_a_fault_comes_while_the_process_restarts_or_its_clock_is_set() -> None:
    class Jumping(Prints):
        clock_jumps = (100,)

    with printing(Jumping) as state:
        state.call(Desk, "a", "order_for_later", 0)
        state.set_clock(100, fault="crash before effect 1")
        state.call(Desk, "b", "order_for_later", 0)
        state.crash(down_for=60, fault="crash before commit 1")
        state.restart(fault="crash before commit 1")
        state.rest()
        assert sorted(state.printed) == ["a1", "b1"]


# --- stories that are drawn ----------------------------------------------------------------------


def test_messages_stand_it() -> None:
    simulate(Prints, stories=STORIES, stateful_step_count=15)


@pytest.mark.parametrize("kind", ["defer", "mark", "retry", "drop"])
def test_faults_are_drawn_wherever_messages_are_changed(kind: Kind) -> None:
    moments: tuple[When, ...] = ("before", "after")
    expected: dict[Verb, set[When]] = {"crash": {"after"}, "fail": {"before", "after"}}
    for verb, drawn in expected.items():
        for when in moments:
            faults = Faults([])
            faults.begin_step(DrawnFault(verb, 1))
            assert (faults.inject(when, kind) is not None) == (when in drawn)


# --- planted mistakes ----------------------------------------------------------------------------


def stored_as_far_as_it_knows(batch: list[Any], writer: Any) -> list[Any]:
    """A deferral that could not be stored is taken for one that was."""
    with suppress(StorageFault):
        writer.defer_messages([deferral for _, deferral in batch])
    return [(batch, None)]


def marked_in_memory(self: _Writer, message: MessageKey) -> bool:
    return self._call("mark_message", lambda: True)


commit = _Writer.commit


def bury_apart(self: _Writer, batch: Sequence[Commit], now: int) -> Collection[int]:
    """The note of a death is sent in a commit of its own."""
    notes = [
        Commit(each.key, None, messages=MessageChanges(sent=each.messages.sent))
        for each in batch
        if each.messages is not None and each.messages.buried
    ]
    for each in batch:
        if each.messages is not None and each.messages.buried:
            each.messages = attrs.evolve(each.messages, sent=[])
    stale = commit(self, batch, now)
    if notes:
        commit(self, notes, now)
    return stale


async def look_if_that_is_known(self: Administration, key: ObjectKey, token: int) -> bool:
    """A message is looked for only if its retry is known to be stored."""
    retried = await self._perform(key, lambda writer: writer.retry_messages([token], key.tenant))
    if retried and self._opened.outbox is not None:
        self._opened.outbox.look(key)
    return bool(retried)


MISTAKES: dict[str, tuple[tuple[Any, str, Callable[..., Any]], Callable[[], None]]] = {
    "a deferral that failed is taken for stored": (
        (deferrals, "_defer_in_parts", stored_as_far_as_it_knows),
        lambda: test_a_failed_attempt_counts_when_its_deferral_is_stored("fail before defer 1", 2),
    ),
    "a mark is not stored": (
        (_Writer, "mark_message", marked_in_memory),
        lambda: test_a_message_that_kills_its_process_is_buried(),
    ),
    "the note of a death comes in a commit of its own": (
        (_Writer, "commit", bury_apart),
        lambda: test_a_burial_is_a_commit_with_the_note_of_it("crash after"),
    ),
    "a message is looked for after a retry that is known": (
        (Administration, "retry_message", look_if_that_is_known),
        lambda: test_a_retried_message_waits_or_is_dead("fail after"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_with_messages_are_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted, story = MISTAKES[mistake]
    story()
    monkeypatch.setattr(*planted)
    with pytest.raises(AssertionError):
        story()


def test_a_drop_that_is_noted_later_is_found() -> None:
    with printing() as state:
        die(state)
        with pytest.raises(AssertionError):
            state.call(Desk, "b", "drop_carelessly", fault="crash after drop 1")
