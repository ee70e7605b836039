"""Layers of the library: imports point down, from the command to the keys of objects.

A room is a module or a package directly in ``trio_durable``. `LAYERS` is the order of the rooms,
and `RANKS` the order of the modules in each room that has several. Imports under
``if TYPE_CHECKING:`` count like all others, since a name in an annotation is knowledge, too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import trio_durable

ROOT = Path(trio_durable.__file__).parent
PACKAGE = "trio_durable"

LAYERS = [
    "_keys _durations _clock _random_bits _text",
    "_errors _telemetry",
    "_eventloop _json storage",
    "_alarms _browsing _messages _persistence",
    "_declarations scheduler _watching",
    "_activations",
    "_cluster",
    "_outbox",
    "_once",
    "_runtime",
    "_api",
    "trio_durable",
    "telemetry testing web",
    "inspector",
    "cli",
    "__main__",
]
"""The rooms, bottom up. A room imports from the layers below its own, and from no other room."""

RANKS = {
    "_telemetry": ["events", "notifier"],
    "_eventloop": [
        "budget current loop",
        "asyncio trio runner tasks timeouts wakeup",
        "running timed_queue",
    ],
    "_json": [
        "errors",
        "depth exact forms names namespaces",
        "annotations layout scalars terms",
        "choices plain sequences texts",
        "comparison defaults keys pydantic_types sets upgrades",
        "hooks mappings records rows",
        "models structs unions",
        "readers",
        "lookup resolution",
        "custom state",
    ],
    "storage": [
        "_faults _flock _maintenance _membership _messages _query",
        "_message_sides _moves _records _renaming",
        "_contract",
        "_batch",
        "_memory_alarms _memory_messages",
        "_forwarding",
        "memory sqlite postgres",
        "_urls",
    ],
    "storage.sqlite": [
        "_backup _database_file _lock _mounts _moves _names _parameters _query _transaction",
        "_changes_view _message_schema _recurrence_sql",
        "_log _message_rows _migrations _watch",
        "_alarms _messages _objects _once",
        "_changes",
        "_tables",
        "_row_checks _reader _writer",
        "_doctor",
        "_storage",
    ],
    "storage.postgres": [
        "_errors _jobs _leases _presence _servers _shard_function",
        "_arrays _conninfo _message_groups _names _query _steps",
        "_connection _message_rows",
        "_job_place _moves",
        "_isolation _session _verification",
        "_connecting _migrations _nodes",
        "_deaths _job_checks _objects _shards _tenants",
        "_membership",
        "_cluster",
        "_alarm_reads _message_commits _messages _reconnecting",
        "_alarms _job_queue _once",
        "_job_alarms _recurrences",
        "_job_recurrences",
        "_job_move _tables",
        "_job_findings _node_checks _reader _tenant_work",
        "_doctor",
        "_message_writer",
        "_writer",
        "_storage",
    ],
    "_alarms": ["cron retry staged", "recurrence", "alarm input", "delivery"],
    "_messages": ["message once request statistics", "delivery"],
    "_persistence": [
        "batching commit_listener division doorbell ticket wait_estimate",
        "batched_load commit_events listeners restoring",
        "group_commit",
        "other_commits",
    ],
    "_declarations": [
        "alarm bases field_types handler keywords parametrised records upgrade",
        "class_body parameter_types",
        "attrs_class handlers_of_class",
    ],
    "scheduler": ["_contract", "_delivery", "_oban _wheel", "oban"],
    "scheduler._delivery": [
        "failures from_outside in_flight",
        "claims start_check",
        "suspects",
        "deliverer",
    ],
    "scheduler._oban": [
        "bounces dispatcher queues requirements settings staging",
        "deliverer instance",
        "scheduler",
        "making",
    ],
    "scheduler._wheel": ["timing_wheel", "upcoming", "deliverer feed", "scheduler"],
    "_watching": ["cell", "pacing", "cells", "hub", "session"],
    "_activations": [
        "await_chain by_value effects encoded eviction exchange info interruption raised slices",
        "wait_graph",
        "envelope object_type output_gate placement tenure",
        "state_host",
        "state",
        "turns",
        "observation worker",
        "phase pump",
        "mailbox services",
        "admission resident",
        "opening",
        "activation",
        "directory operations submission",
        "requests",
        "calls",
        "once_records",
        "once_runs",
    ],
    "_cluster": [
        "address balance chain frames news_codec node_note nodes tls",
        "handshake incoming outlet",
        "link",
        "declaration exception_storage handles listener outcomes plain_values settings",
        "endpoint file_endpoint parameters peer remote_errors",
        "call_codec peers places",
        "links",
        "publisher router shard_map",
        "answer feeds handover routed_calls",
        "file_cluster member_cluster routed_hub service",
    ],
    "_outbox": [
        "failing_tenants inbox message_codec sleeping_lanes suspicion",
        "inboxes paging",
        "composing deferrals lanes message_events",
        "sleepers suspects",
        "deliverer feed",
        "outbox",
    ],
    "_once": ["cleaning codecs", "once_calls"],
    "_runtime": [
        "forks host request_arguments settings",
        "leasing sharing",
        "sides",
        "messaging scheduling",
        "control file_sharing member_sharing",
        "ending",
        "open_runtime",
        "tenant_drop",
        "administration tenant_barrier",
        "routed_administration",
    ],
    "_api": [
        "statistics handle plain_arguments",
        "outgoing",
        "context durable_object",
        "messages registry snapshot",
        "alarms watch",
        "watches",
        "objects instrument",
        "editing",
        "commands",
        "cluster",
        "tenant",
        "runtime",
    ],
    "inspector": [
        "_access _history _visible",
        "_boundary _contents _source",
        "_audit _rendering _runtime_source",
        "_view",
        "_live _overview",
        "_dead _objects",
        "_app",
        "_alone",
    ],
    "telemetry": ["_failures", "_logging _metrics", "opentelemetry"],
    "web": [
        "_events _exit_signals _renderings _statuses",
        "_showing",
        "_event_stream",
        "quart starlette",
    ],
    "testing": [
        "_alarms _eventually _intercepted _new_runtime _perform _state",
        "_messages",
        "_asyncio_fixtures",
        "plugin",
        "conformance scheduler_conformance simulate",
    ],
    "testing.conformance": [
        "_values",
        "_builders",
        "_message_model _strategies _tests",
        "_message_tests _model",
        "_alarm_batches _alarms _browsing _claims _crashes _feed _machine _objects _tenants",
        "_dead_messages _mail _message_machine _messages _once _recurrences",
        "_suite",
    ],
    "testing.scheduler_conformance": [
        "_clock _destination _runner",
        "_bench",
        "_tests",
        "_crashes _deliveries _failures _recurrences _runtimes _setting",
        "_suite",
    ],
    "testing.simulate": [
        "_alarm_log _attributes _faults _loop _randomness _source _strategies",
        "_call _disk _outside",
        "_report",
        "_operations _running",
        "_contents _models _process",
        "_model_check _rules _second_owner _tenant",
        "_machine",
        "_simulation",
    ],
    "cli": [
        "command_line errors exit_status output probes remedies",
        "options",
        "prompts",
        "cluster_options",
        "storage",
        "transfer scaffold bench demo",
        "commands",
        "application",
    ],
    "cli.storage": [
        "batches paging restore totals",
        "changes missing",
        "app_classes formatting members open",
        "draining message_findings",
        "owner running type_completion",
        "inspected state_upgrade watching",
    ],
    "cli.transfer": ["fields", "message_lines", "format", "export_file"],
    "cli.scaffold": [
        "annotations files names rendering",
        "app_package fields new_app",
        "first_handler",
        "new_object",
    ],
    "cli.bench": ["callers objects plain", "figures", "measure"],
    "cli.demo": ["bank", "worker", "child", "ledger", "scenario", "report"],
    "cli.commands": [
        "alarms backup bench call completion copy demo docs doctor edit export import_ init ls",
        "messages",
        "migrate migrate_states new nodes query rename reopen restore rm serve shell show simulate",
        "stacks stats tenants top ui wait watch",
    ],
}
"""The modules of each room, bottom up. The package's own ``__init__`` is above them."""

CIRCLE = {
    "_api.context",
    "_api.durable_object",
    "_api.instrument",
    "_api.objects",
    "_api.runtime",
    "_api.tenant",
}
"""Users reach each of these from the others, so they name each other. Nothing else may."""

LOOPS = {"trio", "asyncio", "uvloop"}
THIRD_PARTY = {
    "anyio",
    "attrs",
    "cattrs",
    "cronsim",
    "orjson",
    "outcome",
    "psycopg",
    "sqlite_utils",
    "trio",
}
EXTRAS = {
    # No dependency: only pytest itself imports its plugin.
    "testing.plugin": {"pytest"},
    # Imported where pytest-asyncio is loaded.
    "testing._asyncio_fixtures": {"pytest_asyncio"},
    "testing.conformance": {"hypothesis", "pytest"},
    "testing.scheduler_conformance": {"pytest"},
    "testing.simulate": {"hypothesis"},
    "telemetry.opentelemetry": {"opentelemetry"},
    # To read offsets that pydantic has parsed.
    "_json.texts": {"pydantic_core"},
    "telemetry._metrics": {"opentelemetry"},
    "cli": {"click", "rich"},
    # Responses of the user's own framework.
    "web.quart": {"quart"},
    "web.starlette": {"starlette"},
    "cli.commands.ui": {"hypercorn", "starlette"},
    "inspector": {"jinja2", "markupsafe", "starlette"},
    # No dependency either: a value of one of its types has imported it.
    "_activations.by_value": {"msgspec"},
}
"""Imports of an extra, or of the user's own environment, by the room that may have them."""

SHARED_PRIVATELY = {
    # Users pass a path or URL to the runtime or the command, so the function that reads it is not
    # public; both take the same strings, so there is one.
    ("_api.runtime", "storage._urls"),
    ("cli.storage.open", "storage._urls"),
    # Only the command backs a file up; a program can have SQLite do it.
    ("cli.commands.backup", "storage.sqlite._backup"),
    ("cli.commands.restore", "storage.sqlite._backup"),
    # Only the command runs SQL of a user; a program has drivers of its own.
    ("cli.commands.query", "storage._query"),
    ("cli.commands.query", "storage.postgres._query"),
    ("cli.commands.query", "storage.sqlite._query"),
    ("cli.commands.restore", "storage.sqlite._lock"),
    # The command serves the same pages alone, from another source.
    ("cli.commands.ui", "inspector._alone"),
    ("cli.storage.inspected", "inspector._source"),
    # A runtime makes the scheduler; users give its settings, which are public.
    ("_runtime.scheduling", "scheduler._oban.making"),
    ("_runtime.scheduling", "scheduler._oban.scheduler"),
}
"""Imports of a private module from outside its package: the importer, and the module."""

MAX_LINES = 500
LONGER = {
    "_errors": 870,  # one tree, drawn at its head
    "testing.simulate._simulation": 530,  # one class, whose attributes and steps users read
    "_activations.activation": 600,  # one state machine: all of it reads or moves the phase
}


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts) or PACKAGE


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def every_module(test: Callable[[str], None]) -> Callable[[], None]:
    """One test of all modules, which names those that fail.

    A test for each would be thousands, and those take a minute to report that they have passed.
    """

    def test_all() -> None:
        failed = {}
        for module in SOURCES:
            try:
                test(module)
            except AssertionError as error:
                failed[module] = str(error)
        assert failed == {}

    test_all.__name__ = test.__name__
    return test_all


@cache
def import_statements(source: str) -> list[ast.Import | ast.ImportFrom]:
    """The statements of a module that import, wherever in it. Each source is read once for all."""
    nodes = ast.walk(ast.parse(source))
    return [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]


def imported(source: str, package: list[str]) -> Iterator[tuple[str, str | None]]:
    """The absolute modules that a module imports, wherever in it, each with a name from it or None.

    ``from .storage import sqlite`` is one of a name, though it imports a module.
    """
    for node in import_statements(source):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        else:
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            yield from ((base, alias.name) for alias in node.names)


def imports(source: str, package: list[str]) -> set[str]:
    """The absolute names of the modules that a module imports."""
    found: set[str] = set()
    for base, name in imported(source, package):
        full = f"{base}.{name}"
        found.add(full if full.removeprefix(f"{PACKAGE}.") in SOURCES else base)
    return found


def private_imports(source: str, package: list[str]) -> set[str]:
    """The private modules of other packages that a module imports."""
    found: set[str] = set()
    for base, name in imported(source, package):
        first, *rest = parts = [*base.split("."), *filter(None, [name])]
        if first != PACKAGE and any(
            part.startswith("_") or part in ("internal", "vendor")
            for part in (parts if first != "__future__" else rest)
        ):
            found.add(".".join(parts))
    return found


def private_names(source: str, package: list[str]) -> set[str]:
    """The private names that a module imports from modules of this library, modules left out."""
    found: set[str] = set()
    for base, name in imported(source, package):
        if top_level({base}) == {PACKAGE} and name is not None and name.startswith("_"):
            full = f"{base}.{name}"
            if full.removeprefix(f"{PACKAGE}.") not in SOURCES:
                found.add(full)
    return found


def is_private_to(module: str) -> str | None:
    """The package that alone may import a private module, or None. Rooms are open to all."""
    parts = module.split(".")
    for depth, part in enumerate(parts[1:], 1):
        if part.startswith("_"):
            return ".".join(parts[:depth])
    return None


def source_of(module: str) -> tuple[str, list[str]]:
    """The source of a module of this library, and the parts of its package's name."""
    path = SOURCES[module]
    return path.read_text(encoding="utf-8"), [PACKAGE, *path.relative_to(ROOT).parent.parts]


def imports_of(module: str) -> set[str]:
    return imports(*source_of(module))


def own(names: set[str]) -> set[str]:
    """The modules of this library among ``names``, without its name in front."""
    prefix = f"{PACKAGE}."
    return {n.removeprefix(prefix) for n in names if n == PACKAGE or n.startswith(prefix)}


def top_level(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def place(module: str, room: str) -> int:
    """The rank in ``room`` of the part of it that ``module`` is, or is in; the room's own is last.

    Raises:
        KeyError: It has no place there.
    """
    rows = RANKS[room] if room else LAYERS
    part = module.removeprefix(f"{room}.").partition(".")[0] if room else module.partition(".")[0]
    if module == room:
        return len(rows)
    for rank, row in enumerate(rows):
        if part in row.split():
            return rank
    raise KeyError(f"{module} has no place in {room or 'LAYERS'}")


def is_below(lower: str, upper: str) -> bool:
    """Whether ``upper`` may import ``lower``: by their ranks in the smallest room of both."""
    room = ""
    for name in upper.split("."):
        inner = f"{room}.{name}" if room else name
        if inner not in RANKS or not is_in(lower, inner):
            break
        room = inner
    return place(lower, room) < place(upper, room)


def test_every_module_has_one_place() -> None:
    named = [f"{room}.{part}" for room, rows in RANKS.items() for part in " ".join(rows).split()]
    named += " ".join(LAYERS).split()
    assert sorted(named) == sorted(SOURCES)


@every_module
def test_imports_point_down(module: str) -> None:
    for imported in own(imports_of(module)) - {module}:
        if {module, imported} <= CIRCLE:
            continue
        assert is_below(imported, module), f"{module} imports {imported}, which isn't below it"


@every_module
def test_one_room_knows_the_event_loop(module: str) -> None:
    # The demo is an app as a user of Trio writes it; a simulation is the host of the loop itself,
    # which anyio can't run as a guest. Oban's dispatcher has to return tasks of asyncio.
    if not is_in(module, "_eventloop") and module not in (
        "cli.demo.worker",
        "scheduler._oban.dispatcher",
        "testing.simulate._loop",
    ):
        assert not top_level(imports_of(module)) & LOOPS


@every_module
def test_only_storages_know_databases(module: str) -> None:
    # The benchmark measures plain sqlite3, too.
    if not any(is_in(module, room) for room in ("storage", "cli.bench", "cli.commands.bench")):
        assert not top_level(imports_of(module)) & {"psycopg", "sqlite3", "sqlite_utils"}


@pytest.mark.parametrize("module", [name for name in SOURCES if is_in(name, "storage")])
def test_storages_are_synchronous(module: str) -> None:
    # They run in threads, and below the event loop in the order of rooms.
    assert not top_level(imports_of(module)) & {"anyio", *LOOPS}


@every_module
def test_a_scheduler_is_known_by_its_contract_alone(module: str) -> None:
    if not is_in(module, "scheduler"):
        assert not {name for name in own(imports_of(module)) if is_in(name, "scheduler._wheel")}


@every_module
def test_nothing_undeclared_is_imported(module: str) -> None:
    foreign = top_level(imports_of(module)) - sys.stdlib_module_names - {PACKAGE, "__future__"}
    extras = [names for room, names in EXTRAS.items() if is_in(module, room)]
    assert foreign <= THIRD_PARTY.union(*extras)


@every_module
def test_no_private_module_of_another_package_is_imported(module: str) -> None:
    # A release of it may move or remove one without notice.
    assert private_imports(*source_of(module)) == set()


@every_module
def test_no_private_name_of_another_module_is_imported(module: str) -> None:
    assert private_names(*source_of(module)) == set()


@every_module
def test_private_modules_are_imported_in_their_package_alone(module: str) -> None:
    for imported in own(imports_of(module)):
        package = is_private_to(imported)
        if package is not None and (module, imported) not in SHARED_PRIVATELY:
            assert is_in(module, package), f"{module} imports {imported}, private to {package}"


def test_each_exception_for_a_private_module_is_needed() -> None:
    for module, imported in SHARED_PRIVATELY:
        assert imported in own(imports_of(module))


@every_module
def test_no_module_is_too_long(module: str) -> None:
    lines = len(SOURCES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGER.get(module, MAX_LINES), f"{module}: {lines} lines, find the two in it"


def test_the_reader_of_imports_reads_them_all() -> None:
    # The tests above see nothing if this sees nothing.
    source = """
from __future__ import annotations
import os.path, trio
from typing import TYPE_CHECKING
from . import _clock
from ._keys import ObjectKey
from .storage import Storage, memory
if TYPE_CHECKING:
    from ._text import short_repr
else:
    from ._durations import Duration
if os.name == "nt":
    import msvcrt
def lazy():
    from trio_durable._errors import NoRuntime
    from trio_durable import DurableObject, telemetry
"""
    assert imports(source, [PACKAGE]) == {
        "__future__",
        "msvcrt",
        "os.path",
        "trio",
        "trio_durable",
        "trio_durable._clock",
        "trio_durable._durations",
        "trio_durable._errors",
        "trio_durable._keys",
        "trio_durable._text",
        "trio_durable.storage",
        "trio_durable.storage.memory",
        "trio_durable.telemetry",
        "typing",
    }
    assert imports("from .._keys import ObjectKey", [PACKAGE, "storage"]) == {"trio_durable._keys"}
    assert imports("from ._batch import Batch", [PACKAGE, "storage"]) == {
        "trio_durable.storage._batch"
    }


def test_the_reader_of_private_imports_reads_them_all() -> None:
    source = """
from __future__ import annotations
import _socket
import trio._core
import trio.lowlevel as _low
from trio import _core as core
from hypothesis.internal.entropy import deterministic_PRNG
from attrs.vendor import pretty
from trio_durable import _keys
from . import _clock
from ._text import short_repr
"""
    assert private_imports(source, [PACKAGE]) == {
        "_socket",
        "attrs.vendor.pretty",
        "hypothesis.internal.entropy.deterministic_PRNG",
        "trio._core",
    }


def test_the_reader_of_private_names_reads_them_all() -> None:
    source = """
from __future__ import annotations
from trio._core import _run
from trio_durable._keys import _TENANT, ObjectKey
from trio_durable import _keys
from . import _clock
from .storage._urls import _postgres_storage, storage_at
from .storage import _records
if TYPE_CHECKING:
    from ._text import _short as short
def lazy():
    from .scheduler._delivery.claims import _NEVER
"""
    assert private_names(source, [PACKAGE]) == {
        "trio_durable._keys._TENANT",
        "trio_durable._text._short",
        "trio_durable.scheduler._delivery.claims._NEVER",
        "trio_durable.storage._urls._postgres_storage",
    }


def test_a_private_module_belongs_to_the_package_that_holds_it() -> None:
    assert is_private_to("storage._records") == "storage"
    assert is_private_to("storage.sqlite._objects") == "storage.sqlite"
    assert is_private_to("scheduler._delivery.claims") == "scheduler"
    assert is_private_to("storage.memory") is None
    assert is_private_to("_activations.calls") is None
    assert is_private_to("_keys") is None


def test_the_order_is_compared_in_the_smallest_common_room() -> None:
    assert is_below("_keys", "storage.sqlite._tables")
    assert is_below("storage._records", "storage.sqlite._tables")
    assert is_below("storage.sqlite._objects", "storage.sqlite._tables")
    assert is_below("storage.sqlite._tables", "storage.sqlite")
    assert not is_below("storage.postgres._names", "storage.sqlite._tables")
    assert not is_below("storage.sqlite", "storage.sqlite._tables")
    assert not is_below("_json.state", "storage.memory")
    assert not is_below("_api.runtime", "_activations.directory")
