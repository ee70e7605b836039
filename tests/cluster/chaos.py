"""Several processes on one storage, killed, stopped, terminated and restarted at random.

    python -m tests.cluster.chaos [--storage sqlite | postgres | standby | lossy] [--minutes N |
        --changes N | --seconds N] [--seed N]

A round has an empty storage: processes of all event loops call its objects, while this process
kills and stops them, and harms the storage (see `chaos_storage`). At its end the history of each
object must be linearizable (see `chaos_history`): answered calls, their replies and exceptions,
reads, and the contents of the storage. All alarms must have gone off. Once there are no harms any
more, no call may time out. The first round has the seed that is printed, the second round the next
one. A seed fixes the random choices, not the order in which processes run, so a failure may take
several rounds to come back; its files are kept.

Needs ``PYTHONPATH=tests``.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import SystemRandom
from tempfile import mkdtemp

import attrs

from . import chaos_member
from .chaos_history import History, judge
from .chaos_member import Job
from .chaos_storage import STORAGES, ChaosStorage, Harm, Place, Process, storage_of

ROUND_SECONDS = 12.0
_SEEDS = 2**31
_TICK = 0.01
_ORPHAN_SECONDS = 60.0
"""How long processes go on without this one."""
_LONGEST_PAUSE = 3.0
_LONGEST_END = 20.0
_LONGEST_DELIVERY = 20.0


class Round:
    """One empty storage, its processes and their deaths.

    Args:
        storage: The storage.
        folder: For the files.
        seed: Of what is drawn.
        seconds: The time during which processes are killed.
    """

    def __init__(self, storage: ChaosStorage, folder: Path, seed: int, seconds: float) -> None:
        self.folder = folder
        self.events: Counter[str] = Counter()
        self._storage = storage
        self._draw = random.Random(seed)
        self._numbers = count()
        self._seconds = seconds
        self._begin_time()
        self._living: dict[int, Process] = {}
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._seed = seed
        self._harms: dict[Harm, int] = {
            self._kill: 8,
            self._kill_two: 2,
            self._stop: 4,
            self._terminate: 5,
            self._fork: 3,
            self._fork_and_kill: 2,
        }

    def _begin_time(self) -> None:
        self._harmed_until = time.monotonic() + self._seconds
        self._until = self._harmed_until + self._storage.calm_seconds
        self.calm = self._harmed_until + self._storage.settled_seconds, self._until
        """When no call may time out."""

    def run(self) -> None:
        """Start processes, harm them, and end them all."""
        try:
            self._places = self._storage.begin(self.folder, self._draw)
            self._begin_time()
            for place in self._places:
                self._start(place)
            self._storage.wait_until_used()
            self._begin_time()
            while time.monotonic() < self._harmed_until:
                self._reap()
                self._do_what_is_due(time.monotonic())
                if self._draw.random() < self._storage.harms_per_second * _TICK:
                    self._harm()
                time.sleep(_TICK)
            self._recover()
            while time.monotonic() < self._until:
                self._reap()
                time.sleep(0.01)
            self._storage.check_calm()
            self._end()
            self._deliver_all()
            self._storage.check_end()
        finally:
            self._storage.recover()
            for process in self._living.values():
                os.kill(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)

    def _do_what_is_due(self, now: float) -> None:
        for due in [each for each in self._later if each[0] <= now]:
            self._later.remove(due)
            due[1]()

    def _recover(self) -> None:
        """Let all processes and the storage be well again."""
        self._do_what_is_due(math.inf)
        self._storage.recover()

    def _start(self, place: Place, *, callers: bool = True) -> Process:
        n = next(self._numbers)
        if not callers:
            place = attrs.evolve(place, callers=0)
        seed = self._seed * 1000 + n
        job = Job(place, self.folder / f"{n}.calls", seed, self._until + _ORPHAN_SECONDS)
        pid = os.fork()
        if not pid:
            chaos_member.main(job)
        self.events["started"] += 1
        process = self._living[pid] = Process(pid, place)
        return process

    def _reap(self) -> None:
        for process in list(self._living.values()):
            ended, status = os.waitpid(process.pid, os.WNOHANG)
            if ended:
                self._ended(process, os.waitstatus_to_exitcode(status))

    def _ended(self, process: Process, code: int) -> None:
        del self._living[process.pid]
        self.events[f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"] += 1
        if time.monotonic() < self._harmed_until:
            pause = self._draw.choice([0.0, 0.01, 0.2])
            self._after(pause, lambda: self._start_again(process.place))

    def _start_again(self, place: Place) -> None:
        self._start(place)

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, action))

    def _harm(self) -> None:
        processes = list(self._living.values())
        if not processes:
            return
        favourite = self._living.get(self._storage.favourite() or 0)
        victim = self._draw.choice(processes)
        if favourite is not None and self._draw.random() < 0.5:
            victim = favourite
        harms = {**self._harms, **self._storage.harms(self._after)}
        [harm] = self._draw.choices(list(harms), list(harms.values()))
        self.events[harm.__name__.lstrip("_") + (" owner" if victim is favourite else "")] += 1
        harm(victim)

    def _kill(self, process: Process) -> None:
        os.kill(process.pid, signal.SIGKILL)

    def _kill_two(self, process: Process) -> None:
        self._kill(process)
        self._kill(self._draw.choice(list(self._living.values())))

    def _stop(self, process: Process) -> None:
        if not process.is_stopped:
            process.is_stopped = True
            os.kill(process.pid, signal.SIGSTOP)
            pause = self._draw.choice([0.05, 0.3, 1.0, _LONGEST_PAUSE])
            self._after(pause, lambda: self._go_on(process))

    def _go_on(self, process: Process) -> None:
        process.is_stopped = False
        if process.pid in self._living:
            os.kill(process.pid, signal.SIGCONT)

    def _terminate(self, process: Process) -> None:
        os.kill(process.pid, signal.SIGTERM)

    def _fork(self, process: Process) -> None:
        os.kill(process.pid, signal.SIGUSR1)

    def _fork_and_kill(self, process: Process) -> None:
        self._fork(process)
        self._after(0.05, lambda: self._kill_if_living(process))

    def _kill_if_living(self, process: Process) -> None:
        if process.pid in self._living:
            self._kill(process)

    def _end(self) -> None:
        """Have all processes close their runtimes."""
        began = time.monotonic()
        for process in list(self._living.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        while self._living:
            self._reap()
            if time.monotonic() > began + _LONGEST_END:
                raise AssertionError(f"{self._living} don't end")
            time.sleep(0.01)

    def _deliver_all(self) -> None:
        """Have one more process deliver all alarms that are left."""
        process = self._start(self._places[0], callers=False)
        began = time.monotonic()
        while alarms := self._storage.contents().alarms:
            if time.monotonic() > began + _LONGEST_DELIVERY:
                raise AssertionError(f"{sorted(alarms)} don't go off")
            time.sleep(0.05)
        self._terminate(process)
        self._end()


def run_round(storage: ChaosStorage, seed: int, seconds: float, total: Counter[str]) -> None:
    """A round and its verdict.

    Raises:
        AssertionError: Something was wrong. The files are kept, and the message names them.
    """
    folder = Path(mkdtemp(prefix="chaos-"))
    chaos = Round(storage, folder, seed, seconds)
    try:
        chaos.run()
        history = History.of(folder.glob("*.calls"))
        history.read(storage.contents(), storage.failover)
        total.update(chaos.events)
        total.update(judge(history, chaos.calm))
    except BaseException as error:
        error.add_note(f"seed {seed}; the files are in {folder}")
        raise
    shutil.rmtree(folder)


def main(arguments: list[str] | None = None) -> int:
    """Run rounds; 1 if something was wrong, or if they came to nothing."""
    parser = argparse.ArgumentParser(prog="chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, help="how long")
    parser.add_argument("--seconds", type=float, help="the length of one round, which is the only")
    parser.add_argument("--changes", type=int, help="how many acknowledged changes")
    parser.add_argument("--seed", type=int, help="of the first round; a fresh one if not given")
    parser.add_argument("--storage", choices=STORAGES, default="sqlite", help="sqlite by default")
    options = parser.parse_args(arguments)
    seed = SystemRandom().randrange(_SEEDS) if options.seed is None else options.seed
    say(f"seeds from {seed} on")
    total: Counter[str] = Counter()
    began = time.monotonic()
    try:
        with storage_of(options.storage) as storage:
            for each in _rounds(seed, options, total):
                run_round(storage, each, options.seconds or ROUND_SECONDS, total)
                say(f"{time.monotonic() - began:6.0f} s, {summary(total)}")
    except AssertionError as error:
        say("\n".join([str(error), *getattr(error, "__notes__", ())]))
        return 1
    except KeyboardInterrupt:
        say("stopped")
    say(", ".join(f"{number} {event}" for event, number in sorted(total.items())))
    if not total["changes"] and options.seconds is None:
        say("nothing was shown: no change was acknowledged")
        return 1
    say("nothing was wrong")
    return 0


def _rounds(seed: int, options: argparse.Namespace, total: Counter[str]) -> Iterator[int]:
    """The seeds of the rounds."""
    began = time.monotonic()
    for each in count(seed):
        yield each
        if options.seconds is not None:
            return
        if options.minutes is not None and time.monotonic() - began > options.minutes * 60:
            return
        if options.changes is not None and total["changes"] >= options.changes:
            return


def summary(total: Counter[str]) -> str:
    names = ("changes", "reads", "unknown", "histories", "too hard", "started")
    return ", ".join(f"{total[name]} {name}" for name in names)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
