"""The driver of ``make compare``, with invented contenders."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import anyio
import attrs
import orjson
import pytest

from benchmarks.callers import Period
from benchmarks.compare import __main__ as command
from benchmarks.compare import page, report, syncs
from benchmarks.compare.catalogue import ENTRIES, Entry
from benchmarks.compare.contender import Alarms, Counters, Parts, Step
from benchmarks.compare.driver import BlockingWalk, Effort, WrongCount, drive
from benchmarks.compare.over_http import Client, UnexpectedAnswer
from benchmarks.compare.results import WORKLOADS, Result, Stretch, WorkloadName, collect
from benchmarks.measurements import Sample
from benchmarks.processes import ChildFailed


@asynccontextmanager
async def opened(*fakes: FakeCounters | FakeAlarms) -> AsyncIterator[Parts]:
    """A contender of these parts."""
    yield [fake.part() for fake in fakes]


class FakeCounters:
    """A call takes a millisecond."""

    blocking = False

    def __init__(self, lost_after: float = float("inf")) -> None:
        self.counts: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self._lost_after = lost_after

    def part(self) -> Counters:
        return Counters(self.increment, self.value, blocking=self.blocking)

    def increment(self, key: str) -> Step:
        async def step() -> None:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            await anyio.sleep(0.001)
            self.at_once -= 1
            if self.counts.total() < self._lost_after:
                self.counts[key] += 1

        return step

    def value(self, key: str) -> Step:
        async def step() -> int:
            await anyio.sleep(0.001)
            return self.counts[key]

        return step


class FakeAlarms:
    """They make their change half a second after they are due."""

    def __init__(self, lead: float = 0) -> None:
        self.due: list[float] = []
        self.keys: Sequence[str] = ()
        self.lead = lead

    def part(self) -> Alarms:
        return Alarms(self.schedule, self.handled, self.lead)

    async def schedule(self, keys: Sequence[str], due_at: datetime) -> None:
        self.keys = keys
        self.due += [anyio.current_time() + 1.5] * len(keys)

    async def handled(self) -> int:
        return sum(due <= anyio.current_time() for due in self.due)


def effort(*workloads: WorkloadName, callers: int = 64) -> Effort:
    return Effort(0.1, 10, callers, workloads or WORKLOADS)


@pytest.mark.anyio
async def test_a_contender_is_put_through_all_it_can_do() -> None:
    counters = FakeCounters()
    stretches = await drive(opened(counters, FakeAlarms()), effort())
    assert [stretch.workload for stretch in stretches] == ["one", "many", "reads", "alarms"]
    operations = [stretch.operations for stretch in stretches]
    assert operations == pytest.approx([100, 6400, 6400, 10], rel=0.02)
    assert counters.most_at_once == 64

    stretches = await drive(opened(FakeAlarms()), effort())
    assert [stretch.workload for stretch in stretches] == ["alarms"]


@pytest.mark.anyio
async def test_a_contender_with_a_driver_of_its_own_is_called_by_that() -> None:
    counters, seen = FakeCounters(), list[tuple[str, int, int, float]]()

    async def drive_itself(operation: str, callers: int, objects: int, seconds: float) -> int:
        seen.append((operation, callers, objects, seconds))
        if operation == "add":
            counters.counts["object-0000000"] += 7
        return 7

    @asynccontextmanager
    async def contender() -> AsyncIterator[Parts]:
        yield [attrs.evolve(counters.part(), drive=drive_itself)]

    stretches = await drive(contender(), effort("many", "reads"))
    assert [(stretch.workload, stretch.operations) for stretch in stretches] == [
        ("many", 7),
        ("reads", 7),
    ]
    assert seen == [
        ("add", 64, 1000, 0.01),
        ("add", 64, 1000, 0.1),
        ("value", 64, 1000, 0.01),
        ("value", 64, 1000, 0.1),
    ]


@pytest.mark.anyio
async def test_only_what_was_asked_for_is_done() -> None:
    counters, alarms = FakeCounters(), FakeAlarms()
    stretches = await drive(opened(counters, alarms), effort("alarms"))
    assert [stretch.workload for stretch in stretches] == ["alarms"]
    assert not counters.counts

    stretches = await drive(opened(counters, alarms), effort("one"))
    assert [stretch.workload for stretch in stretches] == ["one"]


@pytest.mark.anyio
async def test_a_contender_that_loses_a_change_has_no_figures() -> None:
    with pytest.raises(WrongCount, match=r"changes were acknowledged, and 1,100 are there"):
        await drive(opened(FakeCounters(lost_after=1100)), effort("one", "many"))


def test_callers_of_what_blocks_have_a_thread_each() -> None:
    period = Period(math.inf)
    all_four = threading.Barrier(4, timeout=10)

    def step() -> None:
        all_four.wait()
        period.over = True

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(BlockingWalk([step], number), period)

    anyio.run(main)
    assert period.calls == 4


class FakeBlocking(FakeCounters):
    """A call takes a thread and no time."""

    blocking = True

    def increment(self, key: str) -> Step:
        return lambda: self.counts.update([key])

    def value(self, key: str) -> Step:
        return lambda: self.counts[key]


def test_changes_by_what_blocks_are_counted() -> None:
    # One caller, as `Counter.update` isn't safe with more.
    stretches = anyio.run(drive, opened(FakeBlocking()), effort("one"))
    assert [stretch.workload for stretch in stretches] == ["one"]


@pytest.mark.anyio
async def test_alarms_are_set_again_if_some_were_due_before_the_last_was_set() -> None:
    alarms = FakeAlarms(lead=-110)  # a tenth of a second ago, and then two tenths …
    with pytest.raises(TimeoutError, match="10 alarms weren't set within"):
        await drive(opened(alarms), effort("alarms"))
    assert alarms.keys[0] == "alarm-2-000000"


def test_the_rounds_of_a_contender_become_a_result_each() -> None:
    rounds = [
        [Stretch("one", 10, 0, 1), Stretch("reads", 50, 1, 2)],
        [Stretch("one", 30, 0, 1), Stretch("reads", 100, 1, 2)],
        [Stretch("one", 40, 0, 2), Stretch("reads", 150, 1, 2)],
    ]
    assert collect("x", rounds, {"one": 1000.0}) == [
        Result("x", "one", Sample((10, 30, 20)), 1000.0),
        Result("x", "reads", Sample((50, 100, 150)), None),
    ]


def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n42", b"HTTP/1.1 500 No\r\n\r\n"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop(0))
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            client = Client(port)
            assert await client.number("GET", "/") == 42
            [(reader, _)] = client._idle
            while not reader.at_eof():
                await asyncio.sleep(0)
            with pytest.raises(UnexpectedAnswer, match="500"):
                await client.number("GET", "/")
            client.close()

    asyncio.run(main())


LOG = """\
77 100.000000 fsync(3) = 0
78 101.500000 fdatasync(24 <unfinished ...>
77 101.600000 openat(AT_FDCWD, "/fsync(", O_RDONLY) = 3
78 101.700000 <... fdatasync resumed>) = 0
79 101.400000 sync_file_range(5, 0, 0, SYNC_FILE_RANGE_WRITE) = 0
79 103.000000 msync(0x7f, 4096, MS_SYNC) = 0
79 103.100000 +++ exited with 0 +++
"""


def test_syncs_are_counted_while_a_workload_is_done() -> None:
    times = syncs.times(LOG)
    assert times == [100.0, 101.4, 101.5, 103.0]
    assert syncs.within(times, 101, 102) == 2


def test_a_contender_that_is_not_installed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry(
        name="x", title="X", place="nowhere:X", needs=["no_such_module"], durability="none"
    )
    monkeypatch.setattr(syncs, "obstacle", lambda: "no strace")
    results, [absent] = command.compare([entry], tmp_path, command.SHORT, WORKLOADS)
    assert not results
    assert (absent.reason, absent.failed) == ("no_such_module isn't installed", False)


def test_a_contender_that_breaks_says_why_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_through(entry: Entry, folder: Path, effort: Effort) -> list[Stretch]:
        if entry.name == "breaks":
            raise ChildFailed("Traceback\nValueError: no")
        return [Stretch("one", 10, 0, 1)]

    monkeypatch.setattr(syncs, "obstacle", lambda: "no strace")
    monkeypatch.setattr(command, "put_through", put_through)
    entries = [
        Entry(name=name, title=name, place="nowhere:X", durability="none")
        for name in ("breaks", "works")
    ]
    results, [absent] = command.compare(entries, tmp_path, command.SHORT, WORKLOADS)
    assert [result.contender for result in results] == ["works"]
    assert absent.failed
    assert "ValueError: no" in absent.reason


def test_each_contender_that_can_be_measured_here_can_be_loaded() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        if entry.obstacle() is None:
            assert callable(entry.load())


def test_the_chart_is_a_picture_with_all_results_in_it() -> None:
    results = [
        Result(entry.name, "many", Sample((10.0**number,))) for number, entry in enumerate(ENTRIES)
    ]
    picture = ET.fromstring(report.draw(results, "a disk & more"))
    texts = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert "a disk & more" in texts
    assert all(any(text and entry.title in text for text in texts) for entry in ENTRIES)


# --- the page ------------------------------------------------------------------------------------


def test_the_page_has_the_committed_results() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.with_tables(text, orjson.loads(page.RESULTS.read_bytes())) == text


def test_each_contender_of_the_results_is_known() -> None:
    document = orjson.loads(page.RESULTS.read_bytes())
    assert document["absent"] == []
    assert {each["contender"] for each in document["results"]} == {each.name for each in ENTRIES}
