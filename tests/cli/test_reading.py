"""Read-only commands on a storage."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from trio_durable import ObjectKey, SQLiteStorage
from trio_durable._browsing import find_alarm, find_object, has_tenant, iter_alarms, iter_types
from trio_durable._keys import AlarmKey
from trio_durable.cli.storage.paging import iter_objects
from trio_durable.storage import Reader

from .stored_data import ADA, DAY, LATEST, NOW, fail, fill, json_of, lines_of, save, writer_of
from .support import contents, environment, run

# --- ls ------------------------------------------------------------------------------------------


def test_ls_lists_types_with_counts(db: Path) -> None:
    assert lines_of("ls", "-s", "app.db", "--json") == [
        {"type": "Cart", "objects": 2, "size": 48, "alarms": 3},
        {"type": "Counter", "objects": 1, "size": 23, "alarms": 0},
    ]
    result = run("ls", "-s", "app.db")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.split() for line in result.stdout.splitlines() if "C" in line] == [
        ["Cart", "2", "48", "bytes", "3"],
        ["Counter", "1", "23", "bytes", "0"],
    ]


def test_ls_lists_the_objects_of_a_type(db: Path) -> None:
    ada, bob = lines_of("ls", "-s", "app.db", "Cart", "--json")
    assert ada.items() >= {"type": "Cart", "id": "ada", "revision": 2, "size": 26}.items()
    assert ada.keys() == {"type", "id", "revision", "size", "updated_at"}
    assert ada["updated_at"] < bob["updated_at"]
    result = run("ls", "-s", "app.db", "Cart")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.split() for line in result.stdout.splitlines() if "bytes" in line] == [
        ["ada", "2", "26", "bytes", "3", "d"],
        ["bob", "1", "22", "bytes", *result.stdout.split()[-2:]],
    ]


def test_ls_goes_on_after_an_id(db: Path) -> None:
    cut = run("ls", "-s", "app.db", "Cart", "--limit", "1")
    assert cut.exit_code == 0
    assert re.fullmatch(r"There are more: trio-durable ls --after=ada --limit=1 .*\n", cut.stderr)
    assert "bob" not in cut.stdout
    rest = run("ls", "-s", "app.db", "Cart", "--after", "ada")
    assert "bob" in rest.stdout
    assert "ada" not in rest.stdout
    assert rest.stderr == ""
    assert [row["id"] for row in lines_of("ls", "-sapp.db", "Cart", "--json", "--limit=1")] == [
        "ada"
    ]


def test_json_has_all_objects_and_people_get_a_page(folder: Path) -> None:
    with writer_of(folder / "app.db") as writer:
        for number in range(130):
            save(writer, ObjectKey("Cart", f"{number:03}"), {})
    assert len(lines_of("ls", "-s", "app.db", "Cart", "--json")) == 130
    result = run("ls", "-s", "app.db", "Cart")
    assert "There are more: trio-durable ls --after=099 -s " in result.stderr


def test_a_tenant_is_looked_at_alone(db: Path) -> None:
    assert lines_of("ls", "-s", "app.db", "-t", "acme", "--json") == [
        {"tenant": "acme", "type": "Cart", "objects": 1, "size": 22, "alarms": 1}
    ]
    [row] = lines_of("ls", "-s", "app.db", "-t", "acme", "Cart", "--json")
    assert (row["tenant"], row["id"]) == ("acme", "ada")
    assert json_of("show", "-sapp.db", "-tacme", "Cart", "ada", "--json")["state"]["total"] == 9
    [alarm] = lines_of("alarms", "-s", "app.db", "-t", "acme", "--json")
    assert (alarm["tenant"], alarm["name"]) == ("acme", "x")


def test_an_empty_storage_is_said_to_be_empty(folder: Path) -> None:
    with writer_of(folder / "app.db"):
        pass
    for args, says in [
        (("ls",), "Nothing is stored."),
        (("alarms",), "No alarms match."),
        (("tenants",), "There are no tenants."),
    ]:
        result = run(*args, "-s", "app.db")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{says}\n")
        assert lines_of(*args, "-s", "app.db", "--json") == []
    assert json_of("stats", "-s", "app.db", "--json")["total"]["objects"] == 0


# --- show ----------------------------------------------------------------------------------------


def test_show_tells_all_of_an_object(db: Path) -> None:
    shown = json_of("show", "-s", "app.db", "Cart", "ada", "--json")
    assert shown["state"] == {"total": 4, "items": ["é"]}
    assert (shown["revision"], shown["schema"]) == (2, 1)
    assert [(each["name"], each["status"]) for each in shown["alarms"]] == [
        ("lost", "dead"),
        ("overdue", "overdue"),
        ("remind", "pending"),
    ]
    assert shown["alarms"][2]["payload"] == {"times": 2}
    result = run("show", "-s", "app.db", "Cart", "ada")
    assert (result.exit_code, result.stderr) == (0, "")
    first, second, *_ = result.stdout.splitlines()
    assert first == "Cart('ada')"
    assert second.startswith("revision 2, schema 1, 26 bytes, updated ")
    assert second.endswith("(3 d ago)")
    assert '{\n  "total": 4,\n  "items": [\n    "é"\n  ]\n}' in result.stdout
    assert "remind" in result.stdout
    assert json_of("show", "-s", "app.db", "Counter", "hits", "--json")["schema"] == 2


def test_show_has_nothing_to_say_of_alarms_that_are_not_there(db: Path) -> None:
    result = run("show", "-s", "app.db", "Cart", "bob")
    assert result.stdout.endswith("}\n")


def test_show_knows_objects_that_have_alarms_only(folder: Path) -> None:
    with writer_of(folder / "app.db") as writer:
        save(writer, ObjectKey("Cart", "eve"), None, {"remind": (NOW + DAY, None)})
    shown = json_of("show", "-s", "app.db", "Cart", "eve", "--json")
    assert (shown["revision"], shown["state"], shown["updated_at"]) == (0, None, None)
    assert "no stored state, only alarms" in run("show", "-s", "app.db", "Cart", "eve").stdout


def test_what_is_not_json_is_shown_as_it_is(folder: Path) -> None:
    with writer_of(folder / "app.db") as writer:
        save(writer, ObjectKey("Cart", "odd"), b"{not json\x1b[31m")
    result = run("show", "-s", "app.db", "Cart", "odd")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1].startswith("revision 1, 14 bytes, updated ")
    assert result.stdout.splitlines()[2] == "{not json\\x1b[31m"
    shown = json_of("show", "-s", "app.db", "Cart", "odd", "--json")
    assert (shown["state_text"], shown["schema"]) == ("{not json\x1b[31m", None)
    assert "state" not in shown


WIDE = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "200"}


def test_names_do_nothing_to_a_terminal(folder: Path) -> None:
    name = "[red]\x1b[2J\n]"
    with writer_of(folder / "app.db") as writer:
        save(writer, ObjectKey(name, name), {"x": name, "$schema": name}, {name: (NOW, None)})
    for args in [("ls",), ("ls", name), ("show", name, name), ("alarms",), ("stats",)]:
        result = run(*args, "-s", "app.db", env=WIDE)
        assert result.exit_code == 0
        assert "\x1b[2J" not in result.stdout
        assert "[red]\\x1b" in result.stdout
    # Where there is no terminal, click itself leaves out such sequences, but no new lines.
    shown = run("show", name, name, "-s", "app.db").stdout.splitlines()
    assert shown[1].startswith("revision 1, schema [red]\\x1b[2J\\n], ")


def test_times_that_no_calendar_has_are_shown(folder: Path) -> None:
    with writer_of(folder / "app.db") as writer:
        save(writer, ObjectKey("Cart", "old"), {}, {"x": (2**62, None)}, now=-(2**62))
    assert json_of("ls", "-s", "app.db", "Cart", "--json")["updated_at"] == -(2**62)
    assert run("ls", "-s", "app.db", "Cart").exit_code == 0
    assert "µs since 1970" in run("show", "-s", "app.db", "Cart", "old").stdout


# --- alarms --------------------------------------------------------------------------------------


def names(*args: str) -> list[str]:
    return [each["name"] for each in lines_of("alarms", "-s", "app.db", "--json", *args)]


def test_alarms_are_chosen_by_status_type_and_object(db: Path) -> None:
    assert names() == ["lost", "overdue", "remind"]
    assert names("--status", "dead") == ["lost"]
    assert names("--status", "overdue") == ["overdue"]
    assert names("--status", "pending") == ["remind"]
    assert names("--type", "Cart") == ["lost", "overdue", "remind"]
    assert names("--type", "Cart", "--id", "ada", "--status", "pending") == ["remind"]
    assert names("--type", "Cart", "--id", "ad") == names("--type", "Counter") == []
    assert names("--limit", "2") == ["lost", "overdue"]


def rows_by_name(table: str) -> dict[str, str]:
    """The rows of a table of alarms, by the name of the alarm."""
    rows = [line for line in table.splitlines() if " Cart " in line]
    return {line.split()[-1]: line for line in rows}


def test_alarms_tell_of_crashes(db: Path) -> None:
    with writer_of(db) as writer:
        for name, crashes in (("none", None), ("suspect", 0), ("once", 1), ("often", 7)):
            save(writer, ADA, None, {name: (NOW, None)})
            fail(writer, ADA.alarm(name), NOW, 0, None, crashes)
    result = run("alarms", "-s", "app.db", env={"COLUMNS": "200"})
    lines = rows_by_name(result.stdout)
    for name, says in (("once", ", crashes: 1"), ("often", ", crashes: 7")):
        assert says in lines[name]
    for name in ("none", "suspect", "lost"):
        assert "crash" not in lines[name]
    assert {
        each["name"]: each["crashes"] for each in lines_of("alarms", "-s", "app.db", "--json")
    }.items() >= {"none": None, "suspect": 0, "once": 1, "often": 7, "lost": 2}.items()


def test_alarms_tell_when_and_why(db: Path) -> None:
    result = run("alarms", "-s", "app.db", env={"COLUMNS": "200"})
    assert (result.exit_code, result.stderr) == (0, "")
    lines = rows_by_name(result.stdout)
    assert "1 d ago" in lines["overdue"]
    assert "in 23 h" in lines["remind"]
    assert "dead, 5 failures" in lines["lost"]
    assert "  ValueError: [bold]no\\nway[/]" in result.stdout
    [lost] = lines_of("alarms", "-s", "app.db", "--status", "dead", "--json")
    assert (lost["failures"], lost["crashes"], lost["available_at"]) == (5, 2, None)
    assert lost["last_error"] == "ValueError: [bold]no\nway[/]"
    cut = run("alarms", "-s", "app.db", "--limit", "1")
    assert cut.stderr == "There are more: raise --limit, or use more filters.\n"


# --- tenants, stats ------------------------------------------------------------------------------


def test_tenants_are_listed_with_counts(db: Path) -> None:
    assert json_of("tenants", "-s", "app.db", "--json") == {
        "tenant": "acme",
        "objects": 1,
        "alarms": 1,
    }
    assert "acme" in run("tenants", "-s", "app.db").stdout


def test_stats_count_types_tenants_and_all(db: Path) -> None:
    stats = json_of("stats", "-s", "app.db", "--json")
    assert stats["types"][0] == {
        "tenant": "",
        "type": "Cart",
        "objects": 2,
        "size": 48,
        "pending": 1,
        "overdue": 1,
        "dead": 1,
    }
    assert [(each["tenant"], each["objects"]) for each in stats["tenants"]] == [
        ("", 3),
        ("acme", 1),
    ]
    total = {"objects": 4, "size": 93, "pending": 1, "overdue": 2, "dead": 1}
    assert stats["total"] == total
    assert stats["file_size"] == db.stat().st_size
    result = run("stats", "-s", "app.db")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["(all)", "4", "93", "bytes", "1", "2", "1"] in rows
    assert ["acme", "Cart", "1", "22", "bytes", "0", "1", "0"] in rows
    assert "Size of the file: " in result.stdout
    of_acme = json_of("stats", "-s", "app.db", "-t", "acme", "--json")
    assert [each["tenant"] for each in of_acme["tenants"]] == ["acme"]
    assert of_acme["total"]["objects"] == 1


def test_the_size_of_the_file_has_that_of_its_log(db: Path) -> None:
    with writer_of(db) as writer:
        save(writer, ObjectKey("Cart", "large"), {"text": 100_000 * "x"})
        log = db.with_name("app.db-wal").stat().st_size
        assert log > 100_000
        stats = json_of("stats", "-s", "app.db", "--json")
        assert stats["file_size"] == db.stat().st_size + log


# --- while a runtime is open ----------------------------------------------------------------------

RUNTIME = """
import sys, trio
from trio_durable import DurableObject, DurableRuntime, handler

class Cart(DurableObject):
    total: int = 0

    @handler
    def add(self) -> None:
        self.total += 1
        self.ctx.schedule_alarm("remind", after=3600)

async def main():
    async with DurableRuntime("app.db", objects=[Cart]) as runtime:
        await runtime.get(Cart, "ada").add()
        print("open", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)

trio.run(main)
"""


@contextmanager
def running_runtime(folder: Path) -> Iterator[int]:
    """A process with a runtime on ``app.db``; its pid."""
    with subprocess.Popen(
        [sys.executable, "-c", RUNTIME],
        cwd=folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "open\n"
            yield process.pid
            process.communicate("\n", timeout=30)
            assert process.returncode == 0
        finally:
            process.kill()


READING = [
    ("ls", "--json"),
    ("ls", "Cart", "--json"),
    ("show", "Cart", "ada", "--json"),
    ("alarms", "--json"),
    ("tenants", "--json"),
    ("stats", "--json"),
    ("doctor", "--json"),
    ("migrate", "--json"),
    ("migrate", "--check", "--json"),
]


def test_they_read_beside_a_running_runtime(folder: Path) -> None:
    with running_runtime(folder):
        seen = {args: lines_of(*args, "-s", "app.db") for args in READING}
    assert seen["show", "Cart", "ada", "--json"][0]["state"] == {"total": 1, "$as": {}}
    assert seen["ls", "--json"][0]["objects"] == 1
    assert seen["alarms", "--json"][0]["name"] == "remind"
    assert seen["migrate", "--json"] == [{"applied": []}]


@pytest.mark.parametrize("args", [args for args in READING if args[0] != "show"])
def test_reading_makes_nothing(folder: Path, args: tuple[str, ...]) -> None:
    fill(folder / "app.db")
    before = contents(folder)
    lines_of(*args, "-s", "app.db")
    assert contents(folder) == before


# --- finding -------------------------------------------------------------------------------------


@pytest.fixture
def reader(folder: Path) -> Iterator[Reader]:
    """Of a storage with names that are next to each other."""
    with writer_of(folder / "app.db") as writer:
        for name in NEIGHBOURS:
            save(writer, ObjectKey(name, name), {}, dict.fromkeys(NEIGHBOURS, (NOW, None)))
        for name in ("a", "a-", "a0", "b", "az" * 24):
            save(writer, ObjectKey("Cart", "x", name), {})
    with closing(SQLiteStorage(folder / "app.db").open_reader()) as reader:
        yield reader


NEIGHBOURS = ["\x01", "\x02", "a", "aa", "ab", "b", "\ud7ff", "\ue000", "\U0010ffff" * 128]


def test_each_name_is_found_and_no_other(reader: Reader) -> None:
    for name in NEIGHBOURS:
        key = ObjectKey(name, name)
        row = find_object(reader, key)
        assert row is not None
        assert row.key == key
        alarm = find_alarm(reader, key.alarm(name), NOW)
        assert alarm is not None
        assert alarm.alarm.key == key.alarm(name)
    for name in ["\x03", "aaa", "`", "c", "\ue001"]:
        assert find_object(reader, ObjectKey("a", name)) is None
        assert find_alarm(reader, AlarmKey("a", "a", name), NOW) is None
    assert all(has_tenant(reader, name) for name in ("a", "a-", "a0", "b", "az" * 24))
    assert not any(has_tenant(reader, name) for name in ("c", "aa", "a1", "a_", "0"))
    assert list(iter_types(reader)) == NEIGHBOURS


def test_pages_leave_nothing_out(folder: Path) -> None:
    ids = [f"{number:04}" for number in range(2500)]
    with writer_of(folder / "app.db") as writer:
        for object_id in ids:
            save(writer, ObjectKey("Cart", object_id), {}, {"x": (LATEST, None)})
        save(writer, ObjectKey("Cart", "large"), {"text": "x" * 5_000_000})
    with closing(SQLiteStorage(folder / "app.db").open_reader()) as reader:
        rows = [row.key.object_id for row in iter_objects(reader, "Cart")]
        assert rows == [*ids, "large"]
        assert [row.alarm.key.object_id for row in iter_alarms(reader, NOW)] == ids


# --- completion ----------------------------------------------------------------------------------


def completed(words: str, **env: str) -> set[str]:
    asked = {
        "_TRIO_DURABLE_COMPLETE": "fish_complete",
        "COMP_WORDS": f"trio-durable {words}",
        "COMP_CWORD": "C",
    }
    result = run(env={**asked, **env})
    assert (result.exit_code, result.stderr) == (0, "")
    return {line.partition(",")[2] for line in result.stdout.splitlines()}


def test_types_are_completed_from_the_storage(db: Path) -> None:
    found = {"Cart", "Counter"}
    assert completed("ls -s app.db ") == found
    assert completed("show ", TRIO_DURABLE_STORAGE="app.db") == found
    assert completed("ls -s app.db -t acme ") == {"Cart"}
    assert completed("alarms -s app.db --type ") == found
    assert completed("ls -s nowhere.db ") == completed("ls ") == {""}
