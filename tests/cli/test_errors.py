"""Errors of the commands on storages: one line, status 2, and nothing changed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from trio_durable.cli.application import application

from .support import assert_refused
from .test_documentation import commands
from .test_export import GOOD
from .test_writing import APP

REFUSED: dict[str, list[tuple[str, str]]] = {
    "ls": [
        ("ls -s app.db --after x", "--after is for the objects of a TYPE"),
        ("ls -s app.db --limit 3", "--limit is for the objects of a TYPE"),
        ("ls -s app.db Cart --limit 0", "0 is not in the range x>=1"),
        ("ls -s app.db Cart --limit x", "'x' is not a valid integer"),
        ("ls -s app.db Cart another", "unexpected extra argument (another)"),
        ("ls -s app.db Cart --after {''}", "'' can't be an id: it is empty"),
        ("ls -s app.db Countr", "app.db. Did you mean Counter?"),
        ("ls -s app.db Zebra --json", "app.db; it has Cart, Counter"),
        ("ls -s app.db {''}", "'' can't be a type: it is empty"),
    ],
    "show": [
        ("show -s app.db Cart", "Missing argument 'ID'"),
        ("show -s app.db Cart eve", "Cart('eve') isn't stored; `trio-durable ls -s "),
        ("show -s app.db -t acme Cart bob", "Cart('bob') of tenant acme isn't stored"),
        ("show -s app.db Crat ada", "app.db. Did you mean Cart?"),
        ("show -s app.db -t acme Counter hits", "app.db, tenant acme; it has Cart"),
        ("show -s app.db Cart " + 600 * "x", "can't be an id: it takes 600 bytes"),
    ],
    "alarms": [
        ("alarms -s app.db --status lost", "'lost' is not one of 'pending', 'overdue', 'dead'"),
        ("alarms -s app.db --id ada", "name it with --type"),
        ("alarms -s app.db --type Crat", "app.db. Did you mean Cart?"),
        ("alarms -s app.db --type {''}", "'' can't be a type: it is empty"),
        ("alarms -s app.db --type Cart --id {''}", "'' can't be an id: it is empty"),
        ("alarms -s app.db nonsense", "No such command 'nonsense'"),
    ],
    "alarms retry": [
        ("alarms retry -s app.db", "name a dead letter by TYPE, ID and NAME, or use --all"),
        ("alarms retry -s app.db Cart ada", "name a dead letter by TYPE, ID and NAME"),
        ("alarms retry -s app.db Cart ada lost --all", "leave NAME out"),
        ("alarms retry -s app.db Cart ada remind", "there is no dead letter remind of Cart('ada')"),
        ("alarms retry -s app.db --all {''}", "'' can't be a type: it is empty"),
        ("alarms retry -s app.db --all Cart {''}", "'' can't be an id: it is empty"),
        ("alarms retry -s app.db Cart ada {''}", "'' can't be the name of an alarm"),
        ("alarms --json -s app.db retry --all", "alarms retry takes its own options"),
        ("alarms --type Cart -s app.db retry --all", "alarms retry takes its own options"),
    ],
    "alarms cancel": [
        ("alarms cancel -s app.db Cart ada", "Missing argument 'NAME'"),
        ("alarms cancel -s app.db Cart ada none", "there is no alarm none of Cart('ada')"),
    ],
    "alarms move": [
        ("alarms move -s app.db", "Missing option '--to'"),
        ("alarms move -s app.db --to oban", "Oban's jobs are in PostgreSQL databases only"),
    ],
    "alarms reschedule": [
        ("alarms reschedule -s app.db", "Missing argument 'TYPE'"),
        ("alarms reschedule -s app.db Cart", "Missing option '--app'"),
        ("alarms reschedule -s app.db --app nowhere Cart", "there is no module nowhere"),
    ],
    "messages list": [
        ("messages list -s app.db {''}", "'' can't be a type: it is empty"),
        ("messages list -s app.db Cart {''}", "'' can't be an id: it is empty"),
        ("messages list -s app.db a b c", "unexpected extra argument (c)"),
    ],
    "messages dead": [
        ("messages dead -s app.db {''}", "'' can't be a type: it is empty"),
        ("messages dead -s app.db Crat", "app.db. Did you mean Cart?"),
    ],
    "messages retry": [
        ("messages retry -s app.db", "Missing argument 'MESSAGE...'"),
        ("messages retry -s app.db nonsense", "there is no dead letter 'nonsense'"),
        ("messages retry -s app.db 0123456789abcdef", "there is no dead letter '0123456789abcdef'"),
    ],
    "messages retry-all": [
        ("messages retry-all -s app.db {''}", "'' can't be a type: it is empty")
    ],
    "messages drop": [
        ("messages drop -s app.db", "Missing argument 'MESSAGE...'"),
        ("messages drop -s app.db nonsense", "there is no dead letter 'nonsense'"),
    ],
    "edit": [
        ("edit -s app.db Cart", "Missing argument 'ID'"),
        ("edit -s app.db Cart eve --set x=1", "Cart('eve') isn't stored"),
        ("edit -s app.db Cart ada --set x", "--set 'x': write it as field=JSON"),
        ("edit -s app.db Cart ada --set =1", "--set '=1': write it as field=JSON"),
        (
            "edit -s app.db Cart ada --set x=ada",
            "--set x: not JSON from column 1 on: 'ada'; strings are",
        ),
        ("edit -s app.db Cart ada --set x=NaN", "--set x: JSON has no NaN"),
        ("edit -s app.db Cart ada --input none.json", "there is no such file or folder; check"),
        ("edit -s app.db Cart ada --input folder", "folder: it is a folder; name a file in it"),
        ("edit -s app.db Cart ada --input note.txt --set x=1", "use one of them"),
        (
            "edit -s app.db Cart ada --app nomodule --set x=1",
            "--app: there is no module nomodule; check",
        ),
        ("edit -s app.db Cart ada --app json.x --set x=1", "--app: there is no module json.x;"),
        ("edit -s app.db Cart ada --app json:JSONDecoder", "json has no durable object"),
        (
            f"edit -s app.db Counter hits --app {APP}",
            "no class with the stored name 'Counter'",
        ),
        ("edit -s app.db Cart ada --app {''} --set x=1", "--app '': not the name of a module"),
        ("edit -s app.db Cart ada --app .x --set x=1", "--app '.x': not the name of a module"),
        ("edit -s app.db Cart ada --input app.db", "--input app.db: not UTF-8 text; name a file"),
        ("edit -s app.db Cart ada --set x=1e400", "use a string; strings are written as"),
    ],
    "copy": [
        ("copy app.db", "Missing argument 'TARGET'"),
        ("copy none.db new.db", "there is no such file"),
        ("copy note.txt new.db", "it is not an SQLite file"),
        ("copy app.db ./app.db", "SOURCE and TARGET are the same"),
        ("copy redis://x new.db", "SOURCE: no storage is known for redis:// URLs"),
        ("copy app.db :memory:", "TARGET: objects in memory end with their process"),
        ("copy app.db nowhere/new.db", "there is no folder"),
        ("copy app.db new.db -t other", "there is no tenant other"),
        ("copy app.db new.db -t A", "can't be the name of a tenant"),
    ],
    "doctor": [
        ("doctor app.db x", "unexpected extra argument (x)"),
        ("doctor -s app.db app.db", "STORAGE is given twice; leave out --storage"),
        ("doctor {''}", "STORAGE: the storage path is empty"),
    ],
    "export": [
        (
            "export -s app.db note.txt",
            "note.txt: it already exists; choose another name, or remove",
        ),
        (
            "export -s app.db none/new.jsonl",
            "none/new.jsonl: there is no folder none; create it first",
        ),
        ("export -s app.db folder", "folder: it is a folder; name a file in it"),
        ("export -s app.db note.txt/new", "note.txt/new: a part of the path is a file, not a f"),
        ("export -s app.db " + 300 * "x", "xxx: the name is too long; choose a shorter one"),
        ("export -s app.db a b", "unexpected extra argument (b)"),
    ],
    "import": [
        ("import -s app.db none.jsonl", "none.jsonl: there is no such file or folder; check the"),
        ("import -s app.db circle", "circle: its symbolic links form a loop; check them"),
        ("import -s app.db note.txt/x", "note.txt/x: a part of the path is a file, not a folder"),
        ("import -s app.db folder", "folder: it is a folder; name a file in it"),
        ("import -s app.db app.db", "app.db, line 1: not UTF-8 text; name a file"),
        ("import -s app.db note.txt", "note.txt, line 1: not JSON from column 1 on"),
        ("import -s app.db --skip --replace note.txt", "exclude each other; use one of them"),
        ("import -s app.db -t No note.txt", "'No' can't be the name of a tenant"),
        ("import -s new.db -t other good.jsonl", "good.jsonl has no rows of tenant other; check"),
        ("import -s folder good.jsonl", "it is a folder; name a file in it"),
        ("import -s none/new.db good.jsonl", "make it first"),
    ],
    "migrate-states": [
        ("migrate-states -s app.db", "Missing option '--app'"),
        ("migrate-states -s app.db --app nomodule", "--app: there is no module nomodule; check"),
        ("migrate-states -s app.db --app json:None", "json has no durable object 'None'"),
        (f"migrate-states -s app.db --app {APP},", "no durable object ''"),
        (f"migrate-states -s app.db --app {APP} -t none", "there is no tenant none"),
    ],
    "rename": [
        ("rename -s app.db Cart", "Missing argument 'NEW'"),
        ("rename -s app.db Cart Cart", "OLD and NEW are the same, 'Cart'"),
        ("rename -s app.db Cart {''}", "'' can't be a type: it is empty"),
        ("rename -s app.db Cart Basket -t none", "there is no tenant none"),
    ],
    "reopen": [
        ("reopen -s app.db", "app.db has no mark that it was moved"),
        ("reopen -s app.db -t acme", "has no mark that it was moved"),
        ("reopen -s app.db -t No", "'No' can't be the name of a tenant"),
    ],
    "rm": [
        ("rm -s app.db Cart", "Missing argument 'ID...'"),
        ("rm -s app.db Cart ada eve --yes", "Cart('eve') isn't stored"),
        ("rm -s app.db Cart {''} --yes", "'' can't be an id: it is empty"),
    ],
    "tenants drop": [
        ("tenants drop -s app.db", "Missing argument 'NAME'"),
        ("tenants drop -s app.db none --yes", "there is no tenant none in "),
        ("tenants drop -s app.db No --yes", "'No' can't be the name of a tenant"),
        ("tenants --json -s app.db drop acme --yes", "--json is for the list"),
    ],
    "stats": [("stats -s app.db x", "unexpected extra argument (x)")],
    "tenants": [("tenants -s app.db nonsense", "No such command 'nonsense'")],
    "migrate": [
        ("migrate -s app.db x", "unexpected extra argument (x)"),
        ("migrate -s app.db --sql", "app.db has no SQL to print; run migrate without --sql"),
        ("migrate -s app.db --sql --json", "leave out --check, --output and --json"),
        ("migrate -s app.db --down m001_objects --check", "--check lists pending migrations"),
        (
            "migrate -s app.db --down m001_objects --yes",
            "app.db: SQLite files can't be migrated down; restore an earlier backup",
        ),
        (
            "migrate -s app.db --down none --sql",
            "can't be migrated down; restore an earlier backup",
        ),
    ],
}

ON_ANY: list[tuple[str, str]] = [
    ("", "Missing option '--storage' / '-s'"),
    ("-s nowhere.db", "there is no such file; check the path"),
    ("-s {''}", "--storage: the storage path is empty"),
    ("-s :memory:", "--storage: objects in memory end with their process; name a file"),
    ("-s oracle://x", "--storage: no storage is known for oracle:// URLs"),
    ("-s sqlite://x", "--storage: an SQLite URL has three slashes"),
    ("-s folder", "it is a folder; name a file in it"),
    ("-s note.txt", "it is not an SQLite file"),
    ("-s foreign.db", "no durable objects; check the path"),
    ("-s app.db --nonsense", "No such option"),
]

ON_TENANTS: list[tuple[str, str]] = [
    ("-s app.db -t none", "there is no tenant none in "),
    ("-s app.db -t No", "'No' can't be the name of a tenant: it has forbidden characters"),
    ("-s app.db -t {''}", "'' can't be the name of a tenant: it has 0 characters"),
]

EXCEPTIONS = {
    (name, f"-s {path}")
    for name in ("doctor", "import")
    for path in ("nowhere.db", "folder", "note.txt", "foreign.db")
}
"""An import creates a missing storage, or adds its tables to a database. Before it
finds that it can't, it creates the lock file. The doctor reports such a storage as a result."""

PLAIN = {
    "alarms": "",
    "alarms cancel": "Cart ada remind",
    "alarms retry": "Cart ada lost",
    "alarms reschedule": f"--app {APP} Cart",
    "messages list": "",
    "messages dead": "",
    "messages retry": "0123456789abcdef",
    "messages retry-all": "",
    "messages drop": "0123456789abcdef",
    "doctor": "",
    "edit": "Cart ada --set total=1",
    "export": "new.jsonl",
    "import": "good.jsonl",
    "ls": "",
    "migrate": "",
    "migrate-states": f"--app {APP}",
    "rename": "Cart Basket --yes",
    "reopen": "--yes",
    "rm": "Cart ada --yes",
    "show": "Cart ada",
    "stats": "",
    "tenants": "",
    "tenants drop": "acme --yes",
}
"""Valid arguments of each command."""

CASES = [
    *(case for cases in REFUSED.values() for case in cases),
    *(
        (f"{name} {plain} {bad}", says)
        for name, plain in PLAIN.items()
        for bad, says in ON_ANY
        if (name, bad) not in EXCEPTIONS
    ),
    *(
        (f"{name} {plain} {bad}", says)
        for name, plain in PLAIN.items()
        for bad, says in ON_TENANTS
        if not name.startswith(("tenants", "migrate", "import", "doctor"))
    ),
]


@pytest.mark.parametrize(("line", "says"), CASES, ids=[line[:60] for line, _ in CASES])
def test_bad_input_is_refused(db: Path, line: str, says: str) -> None:
    (db.parent / "folder").mkdir()
    (db.parent / "circle").symlink_to("circle")
    (db.parent / "note.txt").write_text("not a database, but some text that is long enough " * 20)
    with closing(sqlite3.connect(db.parent / "foreign.db")) as foreign:
        foreign.execute("CREATE TABLE theirs (x)")
    (db.parent / "good.jsonl").write_text("\n".join(GOOD), encoding="utf-8")
    args = ["" if word == "{''}" else word for word in line.split()]
    assert_refused(db.parent, says, *args)


def test_every_command_about_storages_is_here() -> None:
    about_apps = {"init", "new", "demo", "bench", "completion", "docs", "simulate"}
    about_runtimes = {"nodes", "serve"}  # see test_serve
    about_runtimes |= {"call", "shell", "stacks", "top"}  # see test_running
    about_runtimes |= {"wait", "watch"}  # see test_watching
    about_files = {"backup", "restore"}  # see test_backup
    about_files |= {"query", "ui"}  # see test_query and test_ui
    names = {" ".join(path) for path in commands(application) if path}
    names -= about_apps | about_runtimes | about_files | {"messages"}  # which has commands alone
    assert REFUSED.keys() == names
    # The former names its storages otherwise, and the latter works on PostgreSQL alone.
    assert PLAIN.keys() == names - {"copy", "alarms move"}
