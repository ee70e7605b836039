"""Bad input to the commands about storages: one line, status 2, and nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_durable.cli.application import application

from .support import assert_refused

REFUSED: dict[str, list[tuple[str, str]]] = {
    "ls": [
        ("ls -s app.db --after x", "--after is about the objects of a TYPE"),
        ("ls -s app.db --limit 3", "--limit is about the objects of a TYPE"),
        ("ls -s app.db Cart --limit 0", "0 is not in the range x>=1"),
        ("ls -s app.db Cart --limit x", "'x' is not a valid integer"),
        ("ls -s app.db Cart another", "unexpected extra argument (another)"),
        ("ls -s app.db Cart --after {''}", "'' can't be an id: it is empty"),
        ("ls -s app.db {''}", "'' can't be a type: it is empty"),
    ],
    "show": [
        ("show -s app.db Cart", "Missing argument 'ID'"),
        ("show -s app.db Cart eve", "nothing is stored of Cart('eve'); `trio-durable ls Cart`"),
        ("show -s app.db -t acme Cart bob", "nothing is stored of Cart('bob') of tenant acme"),
        ("show -s app.db Cart " + 600 * "x", "can't be an id: it takes 600 bytes"),
    ],
    "alarms": [
        ("alarms -s app.db --status lost", "'lost' is not one of 'pending', 'overdue', 'dead'"),
        ("alarms -s app.db --id ada", "name that with --type"),
        ("alarms -s app.db nonsense", "No such command 'nonsense'"),
    ],
    "stats": [("stats -s app.db x", "unexpected extra argument (x)")],
    "tenants": [("tenants -s app.db nonsense", "No such command 'nonsense'")],
    "migrate": [("migrate -s app.db x", "unexpected extra argument (x)")],
}

ON_ANY: list[tuple[str, str]] = [
    ("", "Missing option '--storage' / '-s'"),
    ("-s nowhere.db", "there is no such file; check the path"),
    ("-s {''}", "--storage: the storage path is empty"),
    ("-s :memory:", "--storage: objects in memory are gone with their process; name a file"),
    ("-s oracle://x", "--storage: no storage is known for oracle:// URLs"),
    ("-s sqlite://x", "--storage: an SQLite URL has three slashes"),
    ("-s folder", "can't use"),
    ("-s note.txt", "it is not an SQLite file"),
    ("-s app.db --nonsense", "No such option"),
]

ON_TENANTS: list[tuple[str, str]] = [
    ("-s app.db -t none", "there is no tenant none in "),
    ("-s app.db -t No", "'No' can't be the name of a tenant: it has other characters"),
    ("-s app.db -t {''}", "'' can't be the name of a tenant: it has 0 characters"),
]

PLAIN = {"ls": "", "show": "Cart ada", "alarms": "", "stats": "", "tenants": "", "migrate": ""}
"""What each command takes when it is content."""

CASES = [
    *(case for cases in REFUSED.values() for case in cases),
    *((f"{name} {plain} {bad}", says) for name, plain in PLAIN.items() for bad, says in ON_ANY),
    *(
        (f"{name} {plain} {bad}", says)
        for name, plain in PLAIN.items()
        for bad, says in ON_TENANTS
        if name not in ("tenants", "migrate")
    ),
]


@pytest.mark.parametrize(("line", "says"), CASES, ids=[line[:60] for line, _ in CASES])
def test_bad_input_is_refused(db: Path, line: str, says: str) -> None:
    (db.parent / "folder").mkdir()
    (db.parent / "note.txt").write_text("not a database, but some text that is long enough " * 20)
    args = ["" if word == "{''}" else word for word in line.split()]
    assert_refused(db.parent, says, *args)


def test_every_command_about_storages_is_here() -> None:
    about_apps = {"init", "new", "demo", "bench", "completion"}
    assert PLAIN.keys() == REFUSED.keys() == application.commands.keys() - about_apps
