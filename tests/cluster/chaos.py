"""Several processes on one file, killed, stopped, terminated and restarted at random.

    python -m tests.cluster.chaos [--minutes N | --changes N | --seconds N] [--seed N]

A round has a file of its own: processes of all event loops call its objects, while this process
kills and stops them. At its end the history of each object must be linearizable
(see `chaos_history`): answered calls, their replies and exceptions, reads, and the contents of the
file. The first round has the seed that is printed, the second round the next one. A seed fixes the
random choices, not the order in which processes run, so a failure may take several rounds to come
back; its files are kept.

Needs ``PYTHONPATH=tests``.
"""

from __future__ import annotations

import argparse
import contextlib
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

from trio_durable import Cluster
from trio_durable._cluster.node_note import UnreadableNote, read_note

from . import chaos_member
from .chaos_history import History, judge
from .chaos_member import TTL, Job
from .members import BACKENDS

ROUND_SECONDS = 12.0
PROCESSES = 4
_SEEDS = 2**31
_LONGEST_PAUSE = 3.0


@attrs.define
class Process:
    """A process that was started."""

    pid: int
    job: Job
    is_stopped: bool = False


class Round:
    """One file, its processes and their deaths.

    Args:
        folder: For its files.
        seed: Of what is drawn.
        seconds: The time during which processes are killed.
    """

    def __init__(self, folder: Path, seed: int, seconds: float) -> None:
        self.path = folder / "chaos.db"
        self.folder = folder
        self.events: Counter[str] = Counter()
        self._draw = random.Random(seed)
        self._numbers = count()
        self._until = time.monotonic() + seconds
        self._living: dict[int, Process] = {}
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._seed = seed
        self._listen = self._draw.choice([None, None, "tcp://127.0.0.1:0"])

    def run(self) -> None:
        """Start processes, harm them, and end them all."""
        try:
            for n in range(PROCESSES):
                cluster = Cluster(
                    serve=n != PROCESSES - 1,
                    listen=self._listen,
                    ttl=TTL,
                    max_calls=self._draw.choice([2, 1024]),
                )
                self._start(BACKENDS[n % 3], cluster)
            while (now := time.monotonic()) < self._until:
                self._reap()
                for due in [each for each in self._later if each[0] <= now]:
                    self._later.remove(due)
                    due[1]()
                if self._draw.random() < 0.02:
                    self._harm()
                time.sleep(0.01)
            self._end()
        finally:
            for process in self._living.values():
                os.kill(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)

    def _start(self, backend: str, cluster: Cluster) -> None:
        n = next(self._numbers)
        seed = self._seed * 1000 + n
        job = Job(
            str(self.path), str(self.folder / f"{n}.calls"), backend, cluster, seed, self._until
        )
        pid = os.fork()
        if not pid:
            chaos_member.main(job)
        self._living[pid] = Process(pid, job)
        self.events["started"] += 1

    def _reap(self) -> None:
        for process in list(self._living.values()):
            ended, status = os.waitpid(process.pid, os.WNOHANG)
            if ended:
                self._ended(process, os.waitstatus_to_exitcode(status))

    def _ended(self, process: Process, code: int) -> None:
        del self._living[process.pid]
        self.events[f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"] += 1
        if time.monotonic() < self._until:
            job = process.job
            self._after(
                self._draw.choice([0.0, 0.01, 0.2]), lambda: self._start(job.backend, job.cluster)
            )

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, action))

    def _harm(self) -> None:
        processes = list(self._living.values())
        if not processes:
            return
        owner = self._living.get(self._owner() or 0)
        victim = self._draw.choice(processes)
        if owner is not None and self._draw.random() < 0.5:
            victim = owner
        harms: dict[Callable[[Process], None], int] = {
            self._kill: 8,
            self._kill_two: 2,
            self._stop: 4,
            self._terminate: 5,
            self._fork: 3,
            self._fork_and_kill: 2,
            self._remove_file: 1,
        }
        [harm] = self._draw.choices(list(harms), list(harms.values()))
        self.events[harm.__name__[1:] + (" owner" if victim is owner else "")] += 1
        harm(victim)

    def _owner(self) -> int | None:
        with contextlib.suppress(UnreadableNote):
            note = read_note(self.path.with_name(f"{self.path.name}-node"))
            return None if note is None else note.pid
        return None

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

    def _remove_file(self, _: Process) -> None:
        names = ["node"], ["socket"], ["lock"], ["node", "socket", "lock"]
        for name in self._draw.choice(names):
            self.path.with_name(f"{self.path.name}-{name}").unlink(missing_ok=True)

    def _end(self) -> None:
        """Let what is stopped go on, and have all close their runtimes."""
        for process in list(self._living.values()):
            os.kill(process.pid, signal.SIGCONT)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while self._living:
            self._reap()
            if time.monotonic() > deadline:
                raise AssertionError(f"{self._living} don't end")
            time.sleep(0.01)


def run_round(seed: int, seconds: float, total: Counter[str]) -> None:
    """A round and its verdict.

    Raises:
        AssertionError: Something was wrong. The files are kept, and the message names them.
    """
    folder = Path(mkdtemp(prefix="chaos-"))
    chaos = Round(folder, seed, seconds)
    try:
        chaos.run()
        history = History.of(folder.glob("*.calls"))
        history.read_file(chaos.path)
        total.update(chaos.events)
        total.update(judge(history))
    except BaseException as error:
        error.add_note(f"seed {seed}; the files are in {folder}")
        raise
    shutil.rmtree(folder)


def main(arguments: list[str] | None = None) -> int:
    """Run rounds; 1 if something was wrong."""
    parser = argparse.ArgumentParser(prog="chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, help="how long")
    parser.add_argument("--seconds", type=float, help="the length of one round, which is the only")
    parser.add_argument("--changes", type=int, help="how many acknowledged changes")
    parser.add_argument("--seed", type=int, help="of the first round; a fresh one if not given")
    options = parser.parse_args(arguments)
    seed = SystemRandom().randrange(_SEEDS) if options.seed is None else options.seed
    say(f"seeds from {seed} on")
    total: Counter[str] = Counter()
    began = time.monotonic()
    try:
        for each in _rounds(seed, options, total):
            run_round(each, options.seconds or ROUND_SECONDS, total)
            say(f"{time.monotonic() - began:6.0f} s, {summary(total)}")
    except AssertionError as error:
        say("\n".join([str(error), *getattr(error, "__notes__", ())]))
        return 1
    except KeyboardInterrupt:
        say("stopped")
    say(", ".join(f"{number} {event}" for event, number in sorted(total.items())))
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
