"""The disk fails: whoever asked hears of it, nothing that was acknowledged is lost, work goes on.

Every call that SQLite makes to its files fails in turn, once: each read, write, sync, change of
size, opening and removal. The storage has to say that it failed, to have done nothing then, to go
on with what comes next, and to hold all that it has acknowledged when it is opened the next time.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from support.disk import Event, Mark, Written
from support.watched_disk import (
    Fault,
    StorageOnDisk,
    WatchedDisk,
    disk_full,
    failure,
    from_then_on,
)

from trio_durable import PersistenceError, SQLiteStorage, StorageUnavailable
from trio_durable.storage import StorageFault

from .history import Contents, Work, opened
from .served import Told, check, in_virtual_time, serve, stored
from .workload import Allowed, integrity, watched, work_on

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the disk is one of POSIX")

EVERY = int(os.environ.get("TRIO_DURABLE_FAULT_EVERY", "9"))
"""Which of the calls fail, every so manieth; 1 for each of them."""


def once(number: int) -> Fault:
    """The call with that number fails."""
    return lambda call: failure(call) if call.number == number else None


def allowed_at_end(events: list[Event]) -> Allowed:
    last = [event.value for event in events if isinstance(event, Mark)][-1]
    assert isinstance(last, tuple)
    return last


def calls_of(folder: Path, seed: object, steps: int) -> int:
    """How many calls a history makes when all of them succeed."""
    with watched(folder) as disk:
        work_on(disk, StorageOnDisk(disk), Work(seed), steps=steps)
        return disk.calls


def check_end(folder: Path, events: list[Event]) -> None:
    """The next process finds what was promised."""
    path = folder / "objects.db"
    with opened(SQLiteStorage(path)) as (_, reader):
        assert Contents.read(reader) in allowed_at_end(events)
    assert integrity(path) == []


@pytest.mark.parametrize("offset", range(EVERY) if EVERY < 4 else [4])
def test_a_call_that_fails_once_undoes_what_was_asked_for_and_no_more(
    folder: Path, offset: int
) -> None:
    seed, steps = f"once {offset}", 6
    calls = calls_of(folder / "well", seed, steps)
    assert calls > 400
    for number in range(offset % EVERY, calls, EVERY):
        place = folder / str(number)
        with watched(place) as disk:
            disk.fault = once(number)
            work_on(disk, StorageOnDisk(disk), Work(seed), steps=steps)
            assert disk.failed == 1
        check_end(place, disk.events)


@pytest.mark.parametrize("length", [1, 7, 60])
def test_a_full_disk_that_is_emptied_again(folder: Path, length: int) -> None:
    """From some write on, so many find no room, whether they are a commit's or a checkpoint's."""
    seed, steps = f"full {length}", 6
    with watched(folder / "well") as disk:
        work_on(disk, StorageOnDisk(disk), Work(seed), steps=steps)
        writes = sum(isinstance(event, Written) for event in disk.events)
    for number in range(length % EVERY, writes, EVERY):
        place = folder / str(number)
        with watched(place) as disk:
            disk.fault = from_then_on("write", number, length, disk_full)
            work_on(disk, StorageOnDisk(disk), Work(seed), steps=steps)
            assert 1 <= disk.failed <= length
        check_end(place, disk.events)


def test_a_disk_that_fails_for_good_is_said_to_and_let_go(folder: Path) -> None:
    """From some call on, all fail: nothing hangs, and what was acknowledged is there later on."""
    with watched(folder / "well") as disk:
        work_until_it_fails(disk)
        calls = disk.calls
    assert calls > 200
    for number in range(0, calls, EVERY):
        place = folder / str(number)
        with watched(place) as disk:
            disk.fault = lambda call, first=number: failure(call) if call.number >= first else None
            with suppress(StorageFault, StorageUnavailable):
                work_until_it_fails(disk)
            assert disk.failed
        # The lock is free, or this would be refused.
        check_end(place, disk.events)


def work_until_it_fails(disk: WatchedDisk) -> None:
    """Do things, one after the other."""
    work = Work("for good")
    disk.mark((work.contents(),))
    with opened(StorageOnDisk(disk)) as (writer, _):
        for _ in range(12):
            job = work.draw()
            disk.mark((work.contents(), work.after(job)))
            outcome = job.do(writer)
            assert outcome == work.done(job)
            disk.mark((work.contents(),))


# --- a runtime on such a disk --------------------------------------------------------------------


@pytest.fixture
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    # Alarms that fail are logged, with tracebacks, and pytest would keep a thousand of them.
    caplog.set_level(logging.CRITICAL, "trio_durable.alarms")


def runtime_calls(folder: Path) -> int:
    """How many calls to its files a runtime makes when all of them succeed."""
    with watched(folder) as disk:
        told = Told()
        in_virtual_time(lambda: serve(StorageOnDisk(disk), told, then=lambda: None))
        in_virtual_time(lambda: check_later(folder, told))
        assert told.errors == []
        return disk.calls


async def check_later(folder: Path, told: Told) -> None:
    """As the next process finds it."""
    check(await stored(SQLiteStorage(folder / "objects.db")), told)
    assert integrity(folder / "objects.db") == []


@pytest.mark.usefixtures("_quiet")
def test_a_runtime_outlives_a_call_that_fails(folder: Path) -> None:
    """Those whose commits met it are told; later calls succeed, and every alarm has its effect."""
    told_of_failures = met = 0
    numbers = range(0, runtime_calls(folder / "well"), EVERY)
    for number in numbers:
        place = folder / str(number)
        with watched(place) as disk:
            disk.fault = once(number)
            told = Told()
            try:
                in_virtual_time(partial(serve, StorageOnDisk(disk), told, then=lambda: None))
            except StorageUnavailable:
                assert not told.acknowledged  # it failed to open
            in_virtual_time(partial(check_later, place, told))
            met += disk.failed
            told_of_failures += bool(told.errors)
    # How many calls there are in all depends a little on which of the callers come first.
    assert met > len(numbers) / 2
    assert told_of_failures > met / 10


@pytest.mark.usefixtures("_quiet")
def test_a_runtime_on_a_disk_that_fails_for_a_while(folder: Path) -> None:
    """Every call that needs it fails, none hangs, and when the disk is well all is as before."""
    failures = 0
    for number in range(0, runtime_calls(folder / "well"), 3 * EVERY):
        place = folder / str(number)
        with watched(place) as disk:
            disk.fault = lambda call, first=number: failure(call) if call.number >= first else None
            told = Told()

            def mend(disk: WatchedDisk = disk) -> None:
                disk.fault = None

            try:
                in_virtual_time(partial(serve, StorageOnDisk(disk), told, then=mend))
            except StorageUnavailable:
                assert not told.acknowledged
            in_virtual_time(partial(check_later, place, told))
            failures += len(told.errors)
    assert failures > 20


@pytest.mark.usefixtures("_quiet")
def test_a_runtime_closes_on_a_disk_that_fails_for_good(folder: Path) -> None:
    for number in range(0, runtime_calls(folder / "well"), 3 * EVERY):
        place = folder / str(number)
        with watched(place) as disk:
            disk.fault = lambda call, first=number: failure(call) if call.number >= first else None
            told = Told()
            with suppress(PersistenceError, StorageUnavailable):
                in_virtual_time(
                    partial(serve, StorageOnDisk(disk), told, then=lambda: None, wait=5)
                )
            in_virtual_time(partial(check_later, place, told))
