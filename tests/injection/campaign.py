"""Campaign: many trials, each in a forked process that is given a limited time."""

from __future__ import annotations

import os
import pickle
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import anyio
import attrs

from trio_durable import DurableRuntime

from .faults import ACTIONS, Point, first_and_last
from .situations import SITUATIONS
from .trial import Report, perform
from .verdict import faults
from .world import KEY, STORED, Ledger

HANG_SECONDS = 25.0
"""A trial that takes longer hangs. Its own bounds add up to less."""
JOBS = os.cpu_count() or 1


def backends() -> list[str]:
    """The event loops that can be tried here."""
    eager = ["eager"] if sys.version_info >= (3, 12) else []
    uvloop = ["uvloop"] if find_spec("uvloop") else []
    return ["trio", "asyncio", *uvloop, *eager]


def actions(backend: str) -> list[str]:
    """The faults that a backend can have: only eager tasks begin within others."""
    return [each for each in ACTIONS if each != "reenter" or backend == "eager"]


@attrs.frozen
class Plan:
    """One trial to be run."""

    backend: str
    situation: str
    action: str
    point: Point | None

    @property
    def command(self) -> str:
        """The arguments that run it again."""
        assert self.point is not None
        return (
            f"--backend {self.backend} --situation {self.situation} --action {self.action} "
            f"--points {self.point.module}:{self.point.line}"
        )


@attrs.define
class Totals:
    """The figures of a campaign."""

    points: int = 0
    not_reached: int = 0
    ended: int = 0
    """Runtimes that ended with a cause, which is fine."""
    bad: Counter[str] = attrs.field(factory=Counter)
    """The number of trials for each kind of fault."""

    def line(self) -> str:
        """The figures in a line."""
        found = "; ".join(f"{count} {kind}" for kind, count in sorted(self.bad.items()))
        return (
            f"{self.points:,} points, {self.ended} runtimes ended with a cause, "
            f"{self.not_reached} lines not reached again; {found or 'nothing was wrong'}"
        )


class Campaign:
    """Runs trials.

    Args:
        folder: A folder for the files of trials, in memory if there is such a place.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template.db"
        self.totals = Totals()

    async def _write_template(self) -> None:
        async with DurableRuntime(self._template, objects=[Ledger]) as runtime:
            await runtime.get(Ledger, KEY).add(STORED)

    def points(self, backend: str, situation: str) -> list[Point]:
        """The lines that run in a situation: of each the first time and the last."""
        if not self._template.exists():
            anyio.run(self._write_template)
        plan = Plan(backend, situation, "exception", None)
        for _, report, wrong in self.results([plan]):
            if report is None or wrong:
                raise RuntimeError(f"{backend}, {situation}: fails without a fault: {wrong}")
            return first_and_last(report.points)
        raise AssertionError

    def results(self, plans: Iterable[Plan]) -> Iterator[tuple[Plan, Report | None, list[str]]]:
        """Run trials, some at a time; yield each with what is wrong."""
        running: dict[int, _Child] = {}
        waiting = iter(plans)
        while True:
            while len(running) < JOBS and (plan := next(waiting, None)) is not None:
                child = _Child(plan, self._folder, self._template)
                running[child.pipe] = child
            if not running:
                return
            readable, _, _ = select.select(list(running), [], [], 0.5)
            now = time.monotonic()
            for pipe in list(running):
                child = running[pipe]
                if pipe in readable or now > child.deadline:
                    del running[pipe]
                    yield child.plan, *child.result()

    def run(self, plans: Iterable[Plan]) -> Iterator[str]:
        """Run trials, count, and yield a text for each: what went wrong, or nothing."""
        totals = self.totals
        for plan, report, wrong in self.results(plans):
            if report is not None and not report.is_reached and not wrong:
                totals.not_reached += 1
                yield ""
                continue
            totals.points += 1
            totals.ended += report is not None and report.ended
            for kind in {each.partition(":")[0] for each in wrong}:
                totals.bad[kind] += 1
            outcomes = {call.entry: call.outcome for call in report.calls} if report else {}
            text = "\n    ".join([str(plan.point), *wrong, str(outcomes), plan.command])
            yield text if wrong else ""


class _Child:
    """A forked process with one trial."""

    def __init__(self, plan: Plan, folder: Path, template: Path) -> None:
        self.plan = plan
        self.deadline = time.monotonic() + HANG_SECONDS
        self._folder = Path(tempfile.mkdtemp(dir=folder))
        self._path = self._folder / "a.db"
        shutil.copy(template, self._path)
        self.pipe, write = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            self._become_trial(write)
        os.close(write)

    def _become_trial(self, write: int) -> None:
        report, plan = Report(), self.plan
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            os.dup2(devnull, 2)
            situation = SITUATIONS[plan.situation]
            path = str(self._path)
            perform(plan.backend, situation, plan.action, plan.point, path, report)
        finally:
            with suppress(BaseException), os.fdopen(write, "wb") as pipe:
                pipe.write(pickle.dumps(report))
            os._exit(0)

    def result(self) -> tuple[Report | None, list[str]]:
        """Its report, and what is wrong. Ends the process."""
        try:
            if time.monotonic() > self.deadline:
                os.kill(self._pid, signal.SIGKILL)
                return None, ["hang: the process was killed"]
            with os.fdopen(self.pipe, "rb", closefd=False) as pipe:
                data = pipe.read()
            if not data:
                return None, ["died: there is no report"]
            report: Report = pickle.loads(data)
        finally:
            os.waitpid(self._pid, 0)
            os.close(self.pipe)
        situation = SITUATIONS[self.plan.situation]
        wrong = list(faults(situation, self.plan.action, report, self._path))
        shutil.rmtree(self._folder)
        return report, wrong
