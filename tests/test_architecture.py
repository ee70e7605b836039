"""Which module may import which: imports point one way, from the runtime down to the errors."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_durable

ROOT = Path(trio_durable.__file__).parent
PACKAGE = "trio_durable"

ORDER: list[set[str]] = [
    {"__main__"},
    {"cli"},
    {"cli.application"},
    {
        "cli.commands.alarms",
        "cli.commands.copy",
        "cli.commands.edit",
        "cli.commands.export",
        "cli.commands.import_",
        "cli.commands.ls",
        "cli.commands.migrate",
        "cli.commands.migrate_states",
        "cli.commands.rm",
        "cli.commands.show",
        "cli.commands.stats",
        "cli.commands.tenants",
    },
    {"cli.transfer.checked_file", "cli.storage.state_upgrade"},
    {
        "cli.storage.app_classes",
        "cli.transfer.batches",
        "cli.transfer.format",
        "cli.transfer.restore",
        "cli.storage.totals",
        "cli.storage.type_argument",
    },
    {"cli.storage.open", "cli.storage.formatting"},
    {"cli.storage.exact_json", "cli.storage.paging"},
    {
        "cli.commands.bench",
        "cli.commands.completion",
        "cli.commands.demo",
        "cli.commands.init",
        "cli.commands.new",
    },
    {"cli.bench.measure", "cli.demo.scenario", "cli.scaffold.new_object"},
    {
        "cli.scaffold.app_package",
        "cli.demo.report",
        "cli.scaffold.fields",
        "cli.scaffold.imports",
        "cli.scaffold.new_app",
    },
    {"cli.bench.callers", "cli.bench.figures", "cli.bench.objects", "cli.bench.plain"},
    {"cli.demo.load"},
    {"cli.demo.ledger"},
    {"cli.demo.child", "cli.demo.worker"},
    {"cli.bench", "cli.demo", "cli.demo.protocol"},
    {
        "cli.prompts",
        "cli.scaffold.annotations",
        "cli.scaffold.files",
        "cli.scaffold.line_breaks",
        "cli.scaffold.names",
        "cli.options",
        "cli.output",
    },
    {"cli.errors"},
    {"trio_durable"},
    {"testing", "testing.conformance", "testing.simulate"},
    {"testing.conformance._suite"},
    {
        "testing.conformance._alarm_batches",
        "testing.conformance._alarms",
        "testing.conformance._browsing",
        "testing.conformance._claims",
        "testing.conformance._feed",
        "testing.conformance._machine",
        "testing.conformance._objects",
        "testing.conformance._tenants",
    },
    {"testing.conformance._model", "testing.conformance._tests"},
    {"testing.conformance._builders", "testing.conformance._strategies"},
    {"testing.conformance._values"},
    {"testing.simulate._simulation"},
    {"testing.simulate._rules"},
    {
        "testing.simulate._alarm_log",
        "testing.simulate._attributes",
        "testing.simulate._contents",
        "testing.simulate._models",
        "testing.simulate._outside",
        "testing.simulate._process",
        "testing.simulate._strategies",
    },
    {"testing.simulate._disk", "testing.simulate._loop", "testing.simulate._operations"},
    {"testing.simulate._faults"},
    {
        "testing._alarms",
        "testing._eventually",
        "testing._perform",
        "testing._state",
        "testing.plugin",
    },
    {"telemetry"},
    {"telemetry._logging", "telemetry.opentelemetry"},
    {"telemetry._metrics"},
    {"_api.runtime"},
    {"_api.tenant"},
    {"_parts"},
    {"_instrumented.deliveries", "_instrumented.directory"},
    {"_instrumented.activation", "_instrumented.group_commit"},
    {"_instrumented"},
    {"_instrumented.telemetry"},
    {"_api.objects"},
    {"scheduler"},
    {"scheduler._wheel.scheduler"},
    {"scheduler._wheel.delivery", "scheduler._wheel.feed"},
    {
        "scheduler._wheel.upcoming",
        "_eventloop.wakeup",
        "scheduler._wheel.in_flight",
        "scheduler._contract",
    },
    {"scheduler._wheel.timing_wheel"},
    {"_api.handle", "_api.registry"},
    {"_activations.directory"},
    {"_activations.admission"},
    {"_activations.activation"},
    {"_activations.worker", "_activations.mailbox"},
    {"_activations.services"},
    {"_activations.eviction", "_eventloop.timeouts"},
    {"_activations.envelope"},
    {"_api.context"},
    {"_api.durable_object"},
    {"_declarations.class_body", "_json.state"},
    {"_alarms.alarm", "_declarations.handler", "_declarations.upgrade"},
    {"_alarms.retry", "_json.hooks"},
    {"_json.classes", "_json.keys"},
    {"_json.choices"},
    {"_json.scalars"},
    {"storage"},
    {"storage._urls"},
    {"storage.postgres", "storage.sqlite"},
    {
        "_persistence.group_commit",
        "_persistence.batched_load",
        "storage.memory",
        "storage.postgres._storage",
        "storage.sqlite._storage",
    },
    {
        "storage._forwarding",
        "storage.postgres._notify",
        "storage.postgres._reader",
        "storage.postgres._writer",
    },
    {"storage.postgres._tables"},
    {"storage.postgres._alarms"},
    {"storage.postgres._reconnecting"},
    {"storage.postgres._objects", "storage.postgres._migrations"},
    {"storage.postgres._connection"},
    {"storage.postgres._arrays", "storage.postgres._conninfo", "storage.postgres._names"},
    {"storage.postgres._errors"},
    {
        "storage.sqlite._reader",
        "storage.sqlite._writer",
        "_persistence.batching",
        "_persistence.ticket",
    },
    {"storage.sqlite._lock"},
    {"storage.sqlite._tables"},
    {"storage.sqlite._alarms", "storage.sqlite._objects"},
    {"storage._reads"},
    {"storage._batch", "storage.sqlite._migrations", "storage.sqlite._parameters"},
    {"storage._contract"},
    {"storage._records"},
    {"_eventloop.runner", "_eventloop.current", "_activations.by_value"},
    {"_eventloop.loop"},
    {"_persistence.wait_estimate", "_clock", "_durations", "_telemetry.events"},
    {"_errors"},
    {"_keys", "_text"},
    {
        "cli.commands",
        "cli.scaffold",
        "cli.storage",
        "cli.transfer",
        "_activations",
        "_alarms",
        "_api",
        "_declarations",
        "_eventloop",
        "_json",
        "_persistence",
        "_telemetry",
        "scheduler._wheel",
    },
]
"""All modules, top to bottom; modules beside each other know nothing of each other.

A module may import from the ranks below its own. Whoever adds one decides here where it stands.
"""

RANK = {module: rank for rank, modules in enumerate(ORDER) for module in modules}

LOOPS = {"trio", "asyncio", "uvloop"}
THIRD_PARTY = {"anyio", "attrs", "cattrs", "orjson", "psycopg", "sqlite_utils", "trio"}

EXTRA = {
    # No dependency: only pytest itself imports its plugin.
    "testing.plugin": {"pytest"},
    # In an extra of the same name; nothing else imports these modules.
    "telemetry.opentelemetry": {"opentelemetry"},
    "telemetry._metrics": {"opentelemetry"},
}
MAX_LINES = 500
LONGER = {
    "_activations.activation": 810,  # one state machine, whose parts all need each other's state
    "_errors": 600,  # one tree, drawn at its head
}


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts) or PACKAGE


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}

every_module = pytest.mark.parametrize("module", SOURCES)


class Imports(ast.NodeVisitor):
    """Collects the absolute names of what a module imports, wherever in it that happens.

    What stands under ``if TYPE_CHECKING:`` doesn't count. Annotations name the objects that come
    in from above, a context its runtime for example; no code is reached that way.
    """

    def __init__(self, package: list[str]) -> None:
        self._package = package
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        start = self._package[: len(self._package) - node.level + 1] if node.level else []
        base = ".".join([*start, *filter(None, [node.module])])
        for alias in node.names:
            # `from .storage import sqlite` is an import of the module, not of the package's name.
            full = f"{base}.{alias.name}"
            self.found.add(full if full.removeprefix(f"{PACKAGE}.") in SOURCES else base)


def imports(source: str, package: list[str]) -> set[str]:
    visitor = Imports(package)
    visitor.visit(ast.parse(source))
    return visitor.found


def imports_of(module: str) -> set[str]:
    path = SOURCES[module]
    package = [PACKAGE, *path.relative_to(ROOT).parent.parts]
    return imports(path.read_text(encoding="utf-8"), package)


def own(names: set[str]) -> Iterator[str]:
    """Those of ``names`` that are modules of this library, as they stand in `ORDER`."""
    for name in names:
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            yield name.removeprefix(f"{PACKAGE}.")


def top_level(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_every_module_has_one_place() -> None:
    places = Counter(module for modules in ORDER for module in modules)
    assert [module for module, count in places.items() if count > 1] == []
    assert places.keys() == SOURCES.keys()


@every_module
def test_imports_point_downwards(module: str) -> None:
    upwards = sorted(name for name in own(imports_of(module)) if RANK[name] <= RANK[module])
    assert not upwards, f"{module} imports {', '.join(upwards)}, which isn't below it"


@every_module
def test_only_the_rendezvous_knows_the_loop(module: str) -> None:
    # The demo is an app as a user of Trio writes it; a simulation is the host of the loop itself,
    # which anyio can't run as a guest.
    if module not in ("_eventloop.loop", "cli.demo.worker", "testing.simulate._loop"):
        assert not top_level(imports_of(module)) & LOOPS


@every_module
def test_only_storage_knows_databases(module: str) -> None:
    # The benchmark measures plain sqlite3, too.
    if module.partition(".")[0] != "storage" and not module.startswith(
        ("cli.bench.", "cli.commands.bench")
    ):
        assert not top_level(imports_of(module)) & {"psycopg", "sqlite3", "sqlite_utils"}


@pytest.mark.parametrize(
    "module",
    [name for name in SOURCES if name.startswith("storage.")],
)
def test_storages_are_synchronous(module: str) -> None:
    # They run in threads; what stands between them and the loop are these.
    if module in ("_persistence.group_commit", "_persistence.ticket", "_persistence.batched_load"):
        return
    found = imports_of(module)
    assert not top_level(found) & {"anyio", *LOOPS}
    assert not set(own(found)) & {"_eventloop.loop", "_eventloop.runner", "_eventloop.current"}


@every_module
def test_nothing_undeclared_is_imported(module: str) -> None:
    foreign = top_level(imports_of(module)) - sys.stdlib_module_names - {PACKAGE, "__future__"}
    allowed = THIRD_PARTY | EXTRA.get(module, set())
    if module.startswith("cli."):
        allowed |= {"click", "rich"}  # an extra
    if module.startswith("testing.simulate"):
        allowed |= {"hypothesis"}  # an extra
    if module.startswith("testing.conformance"):
        allowed |= {"hypothesis", "pytest"}  # the same extra
    assert foreign <= allowed


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
    from ._text import reason
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
        "trio_durable.storage",
        "trio_durable.storage.memory",
        "trio_durable.telemetry",
        "typing",
    }
    assert imports("from .._keys import ObjectKey", [PACKAGE, "storage"]) == {"trio_durable._keys"}
    assert imports("from ._batch import Batch", [PACKAGE, "storage"]) == {
        "trio_durable.storage._batch"
    }
