"""Lists on a terminal of 80 columns: no line is longer, whatever the names are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from trio_durable import DurableObject, DurableRuntime, ObjectKey, handler
from trio_durable.cli.storage.restore import Mail, restore_mail
from trio_durable.storage import DeadMessage

from .serving import eventually
from .stored_data import DAY, NOW, fail, lines_of, save, writer_of
from .support import run
from .test_messages import a_message
from .test_output import on_a_terminal

TYPE = "shop.orders." + "T" * 48
ID = "customer/" + "x" * 191
TENANT = "acme-" + "y" * 43
ERROR = "ValueError: " + "the provider of payments said no, " * 20
NAME = "remind" * 20


class Order(DurableObject, name=TYPE):
    @handler
    async def wait_for_the_payment(self) -> None:
        await anyio.sleep_forever()


@pytest.fixture
def long_names(folder: Path) -> Path:
    """A storage whose names are as long as they come."""
    with writer_of(folder / "app.db") as writer:
        key = ObjectKey(TYPE, ID)
        alarms = {NAME: (NOW + DAY, None), "lost": (NOW - DAY, None), "late": (NOW - DAY, None)}
        save(writer, key, {"note": "n" * 300}, alarms)
        fail(writer, key.alarm("lost"), None, 5, ERROR)
        fail(writer, key.alarm("late"), NOW + DAY, 1234, ERROR, 3)
        save(writer, ObjectKey(TYPE, ID, TENANT), {}, {"x": (0, None)})
        waiting = a_message(1, key, failures=12, wake_at=NOW + DAY, last_error=ERROR)
        dead = a_message(2, key, failures=1234, last_error=ERROR)
        restore_mail(writer, Mail([waiting], [DeadMessage(dead, NOW, is_overtaken=True)]), NOW)
    return folder


def lines_on_a_terminal(folder: Path, *args: str) -> list[str]:
    shown = on_a_terminal(*args, cwd=folder, columns=80).decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).splitlines()


def assert_fits(lines: list[str], *values: str) -> None:
    """No line is too long, and the values are whole, although they may be folded."""
    assert max(map(len, lines)) <= 80, max(lines, key=len)
    text = "".join(lines)
    for value in values:
        assert all(text.count(each) >= value.count(each) for each in set(value)), value


WHERE = ("-s", "app.db")


@pytest.mark.parametrize(
    ("args", "values"),
    [
        (["ls", *WHERE], [TYPE]),
        (["ls", *WHERE, TYPE], [ID]),
        (["alarms", *WHERE], ["2", TYPE, ID, NAME]),
        (["messages", "list", *WHERE], [TYPE, ID]),
        (["messages", "dead", *WHERE], [TYPE, ID]),
        (["stats", *WHERE], [TYPE, TENANT]),
        (["tenants", *WHERE], [TENANT]),
        (["query", "app.db", "SELECT type, id, revision FROM durable_objects_v1"], [TYPE, ID]),
        (["doctor", "app.db"], []),
    ],
    ids=lambda value: " ".join(value)[:16] if isinstance(value, list) else None,
)
def test_lists_of_a_storage_fit(long_names: Path, args: list[str], values: list[str]) -> None:
    assert_fits(lines_on_a_terminal(long_names, *args), *values)


def test_times_come_first_and_are_never_folded(long_names: Path) -> None:
    lines = lines_on_a_terminal(long_names, "alarms", *WHERE)
    times = [line for line in lines if re.match(r"  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d +", line)]
    assert len(times) == 3
    assert any("dead, 5 failures" in line for line in times)


def test_the_alarms_of_one_object_fit(long_names: Path) -> None:
    lines = lines_on_a_terminal(long_names, "show", *WHERE, TYPE, ID)
    state = next(line for line in lines if line.startswith('  "note"'))
    assert state == f'  "note": "{"n" * 300}"'  # to be copied
    lines.remove(state)
    assert_fits(lines, TYPE, ID, NAME, ERROR.replace(" ", ""))


def test_long_errors_are_whole_unless_a_terminal_lists_them(long_names: Path) -> None:
    shown = " ".join(lines_on_a_terminal(long_names, "alarms", *WHERE))
    assert "…" in shown
    piped = run("alarms", *WHERE, env={"COLUMNS": "2000"}).stdout
    assert (ERROR.strip() in piped, ID in piped, "…" in piped) == (True, True, False)
    errors = {each["last_error"] for each in lines_of("alarms", *WHERE, "--json")}
    assert ERROR in errors


@pytest.fixture
def running(folder: Path) -> Iterator[Path]:
    """An app with a busy object of long names."""
    with start_blocking_portal("trio") as portal:
        runtime = DurableRuntime("app.db", objects=[Order])
        with portal.wrap_async_context_manager(runtime):
            key = ObjectKey(TYPE, ID)

            async def is_reachable() -> bool:
                return runtime.statistics().control_problem is None

            eventually(lambda: portal.call(is_reachable))
            call = portal.start_task_soon(runtime.call, key.type_name, ID, "wait_for_the_payment")
            eventually(lambda: bool(run("stacks", *WHERE).stdout))
            yield folder
            call.cancel()


def test_lists_of_a_running_app_fit(running: Path) -> None:
    for args in (["top", *WHERE, "--looks", "1"], ["stacks", *WHERE]):
        assert_fits(lines_on_a_terminal(running, *args), TYPE, ID, "wait_for_the_payment")
    assert_fits(lines_on_a_terminal(running, "nodes", "app.db"))
    piped = run("stacks", *WHERE).stdout.splitlines()
    assert piped[0].startswith(f"{TYPE}('{ID}'): wait_for_the_payment for ")
