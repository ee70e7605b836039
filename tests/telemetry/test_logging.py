"""The log that an instrument writes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from support.clock import settle
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import (
    CallTimeout,
    DurableObject,
    DurableRuntime,
    PersistenceError,
    StaleObject,
    handler,
)
from trio_durable.storage import StorageFault
from trio_durable.telemetry import LoggingInstrument

from .objects import Counter, Wrong


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_durable.telemetry")


@asynccontextmanager
async def logged(
    storage: ScriptedStorage | None = None, instrument: LoggingInstrument | None = None
) -> AsyncIterator[DurableRuntime]:
    storage = storage or ScriptedStorage()
    instruments = [instrument or LoggingInstrument()]
    async with DurableRuntime(storage, runner=storage.runner, instruments=instruments) as runtime:
        yield runtime


def lines(caplog: pytest.LogCaptureFixture, least: int = logging.DEBUG) -> list[str]:
    return [
        record.message
        for record in caplog.records
        if record.name == "trio_durable.telemetry" and record.levelno >= least
    ]


def record_of(caplog: pytest.LogCaptureFixture, start: str) -> dict[str, Any]:
    [record] = [record for record in caplog.records if record.message.startswith(start)]
    return {name: value for name, value in vars(record).items() if name.startswith("durable_")}


@pytest.mark.anyio
async def test_what_ends_well_is_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    async with logged():
        await Counter.add("a")
    assert [line.partition(" took ")[0] for line in lines(caplog)] == [
        "<DurableRuntime on :scripted:>: opened",
        "Counter('a'): entered",
        "load of Counter('a')",
        "Counter('a'): activated",
        "turn add of Counter('a')",
        "save of Counter('a')",
        "commit of 1 object",
        "call add of Counter('a')",
        "Counter('a'): left",
        "<DurableRuntime on :scripted:>: closed",
    ]
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


@pytest.mark.anyio
async def test_the_figures_are_attributes_of_the_record(caplog: pytest.LogCaptureFixture) -> None:
    async with logged():
        await Counter.add_slowly("a", 0.25)
        await Counter.plan("a", "ring", 1)
        await anyio.sleep(2)
    turn = record_of(caplog, "turn add_slowly")
    assert turn.pop("durable_duration") == pytest.approx(0.25, abs=0.001)
    assert turn == {
        "durable_event": "turn",
        "durable_type": "Counter",
        "durable_id": "a",
        "durable_name": "add_slowly",
        "durable_readonly": False,
    }
    assert "turn add_slowly of Counter('a') took 250 ms" in lines(caplog)
    alarm = record_of(caplog, "alarm delivery ring of Counter('a')")
    assert alarm["durable_name"] == "ring"
    assert alarm["durable_attempt"] == 1
    assert 0 <= alarm["durable_lateness"] < 0.1
    assert alarm["durable_due_at"].endswith("+00:00")
    commits = [record for record in caplog.records if record.message.startswith("commit of")]
    assert all(vars(record)["durable_objects"] == 1 for record in commits)


@pytest.mark.anyio
async def test_slow_turns_loads_and_commits_are_warnings(caplog: pytest.LogCaptureFixture) -> None:
    storage = ScriptedStorage()
    async with logged(storage), calls() as others:
        with storage.held("reader"):
            others.start(Counter.add_slowly, "a", 1.5)
            await anyio.sleep(2)
        await anyio.sleep(1.6)
        assert lines(caplog, logging.WARNING) == [
            "load of Counter('a') took 2 s, which is slow",
            "turn add_slowly of Counter('a') took 1.5 s, which is slow",
        ]


@pytest.mark.anyio
async def test_without_a_limit_nothing_is_slow(caplog: pytest.LogCaptureFixture) -> None:
    async with logged(instrument=LoggingInstrument(slow=None)):
        await Counter.add_slowly("a", 4)
    assert lines(caplog, logging.WARNING) == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("handler", "says"), [("fail", "def"), ("fail_slowly", "async"), ("fail_silently", "")]
)
async def test_what_a_handler_raises_is_one_warning(
    handler: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with logged() as runtime:
        with pytest.raises(Wrong):
            await runtime.call(Counter, "a", handler)
    [line] = lines(caplog, logging.WARNING)
    assert line.startswith(f"turn {handler} of Counter('a') failed after ")
    assert line.endswith(f"Wrong: {says}" if says else "Wrong")
    assert record_of(caplog, line)["durable_error"] == "Wrong"
    assert record_of(caplog, f"call {handler}")["durable_error"] == "Wrong"


@pytest.mark.anyio
async def test_a_call_that_times_out_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with logged() as runtime:
        with pytest.raises(CallTimeout):
            await runtime.get(Counter, "a", timeout=0.5).add_slowly(0.9)
        await anyio.sleep(1)
    [line] = lines(caplog, logging.WARNING)
    assert line.startswith("call add_slowly of Counter('a') failed after 500 ms: CallTimeout: ")


@pytest.mark.anyio
async def test_a_caller_who_is_cancelled_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async with logged(), calls() as others:
        call = others.start(Counter.add_slowly, "a", 0.5)
        await settle()
        call.cancel()
        await anyio.sleep(1)
    assert lines(caplog, logging.WARNING) == []
    assert any(line.startswith("call add_slowly of Counter('a') was cut") for line in lines(caplog))


@pytest.mark.anyio
async def test_a_commit_that_fails_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    storage = ScriptedStorage()
    async with logged(storage):
        await Counter.value("a")
        storage.fail_commits(StorageFault("the disk is full"))
        with pytest.raises(PersistenceError):
            await Counter.add("a")
    commit, call = lines(caplog, logging.WARNING)
    assert commit.startswith("commit of 1 object failed after ")
    assert commit.endswith(": StorageFault: the disk is full")
    assert call.startswith("call add of Counter('a') failed after ")


@pytest.mark.anyio
async def test_stale_objects_and_dead_letters_are_warnings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = ScriptedStorage()
    async with logged(storage):
        await Counter.add("a")
        storage.overwrite("Counter", "a", b"{}")
        with contextlib.suppress(StaleObject):
            await Counter.add("a")
        await Counter.plan("a", "ring_in_vain", 1)
        await anyio.sleep(10)
    warnings = lines(caplog, logging.WARNING)
    assert "Counter('a'): stale" in warnings
    assert "Counter('a'): dead lettered" in warnings
    # And the alarm's two attempts, as turns.
    assert len([line for line in warnings if line.startswith("turn ring_in_vain")]) == 2
    assert not [line for line in warnings if line.startswith("alarm delivery")]


class Untold(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Mute(DurableObject):
    @handler
    def speak(self) -> None:
        raise Untold


@pytest.mark.anyio
async def test_an_error_without_a_text_is_told_by_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with logged():
        with pytest.raises(Untold):
            await Mute.speak("a")
    [line] = lines(caplog, logging.WARNING)
    assert line.endswith(": Untold")


@pytest.mark.anyio
async def test_logger_and_level_can_be_chosen(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("app.objects")
    caplog.set_level(logging.DEBUG, "app")
    instrument = LoggingInstrument(logger, logging.ERROR, slow=0.1)
    async with logged(instrument=instrument):
        await Counter.add_slowly("a", 0.2)
    mine = [record for record in caplog.records if record.name == "app.objects"]
    assert {record.levelno for record in mine} == {logging.ERROR}
    assert lines(caplog) == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"slow": -1}, "slow must be"),
        ({"logger": "app.objects"}, "logger must be a logging.Logger, not 'app.objects'"),
        ({"logger": ""}, "logger must be"),
        ({"level": "INFO"}, "level must be an int such as logging.INFO, not 'INFO'"),
        ({"level": True}, "level must be"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        LoggingInstrument(**arguments)


@pytest.mark.anyio
async def test_a_tenant_s_objects_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    async with logged() as runtime:
        await runtime.tenant("acme").get(Counter, "a").add()
        assert record_of(caplog, "turn add of ")["durable_tenant"] == "acme"
        await runtime.get(Counter, "b").add()
    assert "durable_tenant" not in record_of(caplog, "turn add of Counter('b')")
