"""Commands that change stored data."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from trio_durable import DurableObject, ObjectKey, SQLiteStorage, upgrade
from trio_durable._json import exact

from .stored_data import ADA, DAY, NOW, everything, fail, json_of, lines_of, save, writer_of
from .support import assert_refused, contents, run


class Cart(DurableObject, schema=2):
    """The carts of `fill` in a later schema."""

    cents: int = 0
    items: list[str] = attrs.field(factory=list)

    @upgrade(from_schema=1)
    @staticmethod
    def count_cents(state: dict[str, object]) -> dict[str, object]:
        total = state.pop("total", 0)
        assert isinstance(total, int), "no number"
        return {**state, "cents": total * 100}


APP = f"{__name__}:Cart"


def state_of(object_id: str, *options: str) -> object:
    return json_of("show", "-s", "app.db", "Cart", object_id, "--json", *options)["state"]


KEY = ("Cart", "ada")


def edit(*args: str, **kwargs: str) -> str:
    result = run("edit", "-s", "app.db", "Cart", "ada", *args, stdin=kwargs.get("stdin"))
    note = "It was not validated; --app checks a state against its class.\n"
    is_unchecked = "--app" not in args and result.stdout.startswith("Saved")
    assert (result.exit_code, result.stderr) == (0, note if is_unchecked else ""), result.output
    return result.stdout


# --- edit ----------------------------------------------------------------------------------------


def test_edit_sets_fields_and_leaves_the_rest(db: Path) -> None:
    before, alarms = everything(db)
    change = ("--set", "total=5", "--set", 'note="é\\n"')
    assert_refused(db.parent, "has 'note', which isn't stored", "edit", "-sapp.db", *KEY, *change)
    assert edit(*change, "--force") == "Saved as revision 3.\n"
    assert state_of("ada") == {"total": 5, "items": ["é"], "note": "é\n"}
    after, alarms_after = everything(db)
    assert [row for row in after if row.key != ADA] == [row for row in before if row.key != ADA]
    assert alarms_after == alarms
    [row] = [row for row in after if row.key == ADA]
    assert row.revision == 3
    assert row.updated_at >= NOW


def test_edit_takes_a_state_from_a_file_or_standard_input(db: Path) -> None:
    assert edit("--input", "-", stdin='{"total": 1}\n') == "Saved as revision 3.\n"
    assert state_of("ada") == {"total": 1}
    (db.parent / "new.json").write_text('{"total": 2}', encoding="utf-8")
    assert edit("--input", "new.json") == "Saved as revision 4.\n"
    assert state_of("ada") == {"total": 2}


def test_edit_writes_nothing_without_a_change(db: Path) -> None:
    before = everything(db)
    assert edit("--set", "total=4") == "Nothing has changed.\n"
    assert edit("--input", "-", stdin='{ "total": 4, "items": ["é"]}') == "Nothing has changed.\n"
    assert everything(db) == before
    # These are equal to Python, and not the same state.
    assert edit("--set", "total=4.0") == "Saved as revision 3.\n"


def test_edit_is_of_one_tenant(db: Path) -> None:
    result = run("edit", "-sapp.db", "-t", "acme", "Cart", "ada", "--set", "total=1")
    assert result.stdout == "Saved as revision 2.\n"
    assert state_of("ada", "-t", "acme") == {"total": 1, "items": []}
    assert state_of("ada") == {"total": 4, "items": ["é"]}


@pytest.fixture
def editor(db: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An editor that saves the contents of new0, new1, …, and keeps each text that it opened."""
    code = """
import pathlib, sys
folder = pathlib.Path(__file__).parent
path = pathlib.Path(sys.argv[1])
times = len(list(folder.glob("seen*")))
(folder / f"seen{times}").write_bytes(path.read_bytes())
new = folder / f"new{times}"
if new.exists():
    path.write_bytes(new.read_bytes())
"""
    folder = db.parent / "editor"
    folder.mkdir()
    (folder / "editor.py").write_text(code, encoding="utf-8")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {folder / 'editor.py'}")
    return folder


def test_edit_opens_an_editor(editor: Path) -> None:
    (editor / "new0").write_text('{"total": 7}\n\n', encoding="utf-8")
    assert edit() == "Saved as revision 3.\n"
    assert state_of("ada") == {"total": 7}
    seen = (editor / "seen0").read_text(encoding="utf-8")
    assert json.loads(seen) == {"total": 4, "items": ["é"]}
    assert seen.startswith('{\n  "total": 4,\n')


def test_an_editor_that_is_closed_without_saving_changes_nothing(editor: Path) -> None:
    assert edit() == "Nothing has changed.\n"


@pytest.mark.parametrize("program", ["false", "no-such-editor"])
def test_an_editor_that_fails_changes_nothing(
    editor: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setenv("VISUAL", program)
    result = run("edit", "-s", "app.db", "Cart", "ada")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"the editor failed ({program}: Editing failed" in result.stderr
    assert "set $VISUAL or $EDITOR to another, or use --set or --input" in result.stderr
    assert state_of("ada") == {"total": 4, "items": ["é"]}


def test_bad_json_from_an_editor_is_refused(editor: Path) -> None:
    (editor / "new0").write_text('{"total": 7,}', encoding="utf-8")
    assert run("edit", "-s", "app.db", "Cart", "ada").exit_code == 2
    assert state_of("ada") == {"total": 4, "items": ["é"]}


def test_at_a_terminal_one_can_go_on_editing(editor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_durable.cli.commands.edit.is_interactive", lambda: True)
    (editor / "new0").write_text('{"total": 7,}', encoding="utf-8")
    (editor / "new1").write_text('{"total": 7}', encoding="utf-8")
    result = run("edit", "-s", "app.db", "Cart", "ada", stdin="y\n")
    # Where the runner of tests shows an answer depends on the release of click, here and below.
    assert result.exit_code == 0
    assert result.stdout.endswith("Saved as revision 3.\n")
    assert "not JSON" in result.stderr
    assert "Continue editing? [y/N]" in result.stderr
    assert (editor / "seen1").read_text(encoding="utf-8").strip() == '{"total": 7,}'
    (editor / "new2").write_text("[]", encoding="utf-8")
    result = run("edit", "-s", "app.db", "Cart", "ada", stdin="n\n")
    assert result.exit_code == 2
    assert state_of("ada") == {"total": 7}


def test_no_runtime_starts_while_an_editor_is_open(editor: Path) -> None:
    # The editor is another process, which tries.
    code = f"""
import subprocess, sys
ran = subprocess.run([sys.executable, "-m", "trio_durable", "rm", "-y", "-s", "app.db", "Cart",
                      "ada"], capture_output=True, text=True)
open({str(editor / "tried")!r}, "w").write(f"{{ran.returncode}} {{ran.stderr}}")
"""
    (editor / "editor.py").write_text(code, encoding="utf-8")
    assert edit() == "Nothing has changed.\n"
    tried = (editor / "tried").read_text(encoding="utf-8")
    assert tried.startswith("2 ")
    assert "is in use by a runtime of process" in tried
    assert "; stop its process first, or open it without control=False" in tried


def test_edit_checks_the_state_against_the_class(db: Path) -> None:
    assert edit("--app", APP, "--set", "total=8") == "Saved as revision 3.\n"
    new = '{"$schema": 2, "cents": 5}'
    assert edit("--app", APP, "--input", "-", stdin=new) == "Saved as revision 4.\n"
    for value, says in [
        ('{"$schema": 2, "cents": "5"}', "doesn't fit the class: cents: '5' is of type str"),
        ('{"$schema": 2, "cent": 5}', "'cent' is not a field (fields: cents, items)"),
        ('{"$schema": 3}', "its $schema is later than 2"),
        ('{"$schema": "2"}', "'2' is not the number of a schema"),
        ('{"total": "x"}', "the upgrade count_cents from schema 1 raised AssertionError"),
    ]:
        args = ("edit", "-sapp.db", "Cart", "ada", "--app", APP, "--input", "-")
        assert_refused(db.parent, says, *args, stdin=value)
    # An unknown field that was stored before may stay, such as a removed one.
    save_extra = '{"$schema": 2, "cents": 5, "gone": 1}'
    edit("--input", "-", "--force", stdin=save_extra)
    assert edit("--app", APP, "--set", "cents=6") == "Saved as revision 6.\n"


def test_a_state_that_is_no_json_can_be_replaced(db: Path) -> None:
    with writer_of(db) as writer:
        save(writer, ADA, b"{broken", revision=2)
    says = "the stored state of Cart('ada') is not a JSON object; replace it with --input"
    assert_refused(db.parent, says, "edit", "-sapp.db", "Cart", "ada", "--set", "total=1")
    assert edit("--input", "-", stdin="{}") == "Saved as revision 4.\n"


BAD_STATES = {
    "NaN": ("NaN", "JSON has no NaN"),
    "infinity": ('{"x": [-Infinity]}', "JSON has no -Infinity"),
    "a large int": ('{"x": 18446744073709551616}', "doesn't fit into 64 bits"),
    "a huge int": (f'{{"x": {"9" * 5000}}}', "doesn't fit into 64 bits"),
    "a huge float": ('{"x": 1e999}', "too large for a float"),
    "two of a name": ('{"x": 1, "x": 2}', "'x' is there twice"),
    "half a character": ('{"x": "\\ud800"}', "surrogate"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "nothing": ("", "not JSON: it is empty"),
    "cut off": ('{"x":\n\n', "not JSON: it ends too early"),
    "a comma": ('{"x": 1,\n "y": 2,}', "not JSON from line 2 column "),
    "a list": ("[1]", "is not a JSON object"),
    "null": ("null", "is not a JSON object"),
    "not UTF-8": (b'{"x": "\xff"}', "--input -: not UTF-8"),
}


@pytest.mark.parametrize(("text", "says"), BAD_STATES.values(), ids=BAD_STATES)
def test_what_is_unknown_to_json_is_refused(db: Path, text: str | bytes, says: str) -> None:
    args = ("edit", "-s", "app.db", "Cart", "ada", "--input", "-")
    assert_refused(db.parent, says, *args, stdin=text)


def test_all_else_is_taken_as_it_is() -> None:
    numbers = [0, -(2**63), 2**64 - 1, 1.5, 1e308, -0.0]
    assert exact.parse(json.dumps(numbers)) == numbers
    assert exact.parse('{"é\\u2028": [true, null, {}]}') == {"é\u2028": [True, None, {}]}


# --- rm ------------------------------------------------------------------------------------------


def test_rm_removes_objects_and_their_alarms(db: Path) -> None:
    result = run("rm", "-s", "app.db", "Cart", "ada", "bob", "ada", stdin="y\n")
    assert result.exit_code == 0
    assert result.stderr.startswith("Remove 2 objects of 'Cart' with 3 alarms? [y/N]:")
    assert result.stdout.endswith("Removed 2 objects of 'Cart' with 3 alarms.\n")
    objects, alarms = everything(db)
    assert [(row.key.type_name, row.key.tenant) for row in objects] == [
        ("Counter", ""),
        ("Cart", "acme"),
    ]
    assert len(alarms) == 1


def test_rm_removes_what_has_alarms_only(db: Path) -> None:
    with writer_of(db) as writer:
        save(writer, ObjectKey("Cart", "eve"), None, {"a": (NOW, None)})
    result = run("rm", "-s", "app.db", "Cart", "eve", "--yes")
    assert result.stdout == "Removed 1 object of 'Cart' with 1 alarm.\n"
    assert lines_of("alarms", "-sapp.db", "--type=Cart", "--id=eve", "--json") == []


ASKS = {
    "removed": ("rm", "Cart", "ada"),
    "dropped": ("tenants", "drop", "acme"),
}


@pytest.mark.parametrize(("done", "args"), ASKS.items())
def test_no_means_that_nothing_happens(db: Path, done: str, args: tuple[str, ...]) -> None:
    before = everything(db)
    result = run(*args, "-s", "app.db", stdin="n\n")
    assert result.exit_code == 1
    assert "[y/N]:" in result.stderr
    assert result.stderr.endswith(f"Nothing was {done}.\n")
    assert everything(db) == before


@pytest.mark.parametrize("args", ASKS.values(), ids=" ".join)
def test_where_nobody_can_be_asked_nothing_happens(db: Path, args: tuple[str, ...]) -> None:
    before = everything(db)
    result = run(*args, "-s", "app.db")
    assert (result.exit_code, result.stdout.strip()) == (2, "")
    assert result.stderr.splitlines()[1:] == [
        "trio-durable: no answer on standard input; confirm with --yes"
    ]
    assert everything(db) == before


# --- alarms --------------------------------------------------------------------------------------


def test_a_dead_letter_is_retried(db: Path) -> None:
    result = run("alarms", "retry", "-s", "app.db", "Cart", "ada", "lost")
    assert (result.exit_code, result.stdout) == (0, "Made 1 dead letter due.\n")
    [lost] = [a for a in lines_of("alarms", "-sapp.db", "--json") if a["name"] == "lost"]
    assert (lost["status"], lost["failures"]) == ("overdue", 0)
    assert lost["available_at"] > lost["due_at"]


def test_all_dead_letters_are_retried_or_those_of_a_type_or_object(db: Path) -> None:
    others = [
        ObjectKey("Cart", "bob"),
        ObjectKey("Counter", "hits"),
        ObjectKey("Cart", "z", "acme"),
    ]
    with writer_of(db) as writer:
        for key in others:
            save(writer, key, None, {"x": (NOW, None), "y": (NOW + DAY, None)})
            fail(writer, key.alarm("x"), None, 1, None)

    def dead(*options: str) -> int:
        return len(lines_of("alarms", "-s", "app.db", "--status=dead", "--json", *options))

    def retry(*args: str) -> str:
        result = run("alarms", "retry", "-s", "app.db", "--all", *args)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    assert dead() == 3
    assert retry("Cart", "bob") == "Made 1 dead letter due.\n"
    assert retry("Cart", "bob") == "No dead letters match.\n"
    assert retry("Counter") == "Made 1 dead letter due.\n"
    assert dead() == 1
    assert retry() == "Made 1 dead letter due.\n"
    assert (dead(), dead("-t", "acme")) == (0, 1)


def test_an_alarm_is_cancelled_whatever_its_status(db: Path) -> None:
    for name in ("lost", "remind"):
        result = run("alarms", "cancel", "-s", "app.db", "Cart", "ada", name)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == f"Cancelled {name} of Cart('ada').\n"
    assert [alarm["name"] for alarm in lines_of("alarms", "-s", "app.db", "--json")] == ["overdue"]
    assert state_of("ada") == {"total": 4, "items": ["é"]}


def test_options_may_be_given_to_the_group(db: Path) -> None:
    elsewhere = {"TRIO_DURABLE_STORAGE": "nowhere.db"}
    args = ("alarms", "-s", "app.db", "-t", "acme", "cancel", "Cart", "ada", "x")
    assert run(*args, env=elsewhere).stdout == "Cancelled x of Cart('ada') of tenant acme.\n"
    own = ("cancel", "-s", "app.db", "-t", "acme", "Cart", "ada", "x")
    assert run("alarms", "-s", "nowhere.db", "-t", "none", *own).stderr.startswith(
        "trio-durable: there is no alarm x of"
    )


# --- tenants -------------------------------------------------------------------------------------


def test_a_tenant_is_dropped(db: Path) -> None:
    result = run("tenants", "drop", "-s", "app.db", "acme", stdin="y\n")
    assert result.exit_code == 0
    assert result.stderr.startswith("Drop tenant acme with 1 object and 1 alarm? [y/N]:")
    assert result.stdout.endswith("Dropped tenant acme with 1 object and 1 alarm.\n")
    with closing(SQLiteStorage(db).open_reader()) as reader:
        assert reader.list_tenants(None, 10) == []
        assert len(reader.browse_objects(None, None, 10)) == 3


# --- while a runtime is open ----------------------------------------------------------------------

WRITING = [
    ("edit", "Cart", "ada", "--set", "total=1"),
    ("rm", "Cart", "ada", "--yes"),
    ("alarms", "retry", "Cart", "ada", "lost"),
    ("alarms", "retry", "--all"),
    ("alarms", "cancel", "Cart", "ada", "remind"),
    ("tenants", "drop", "acme", "--yes"),
]


@pytest.mark.parametrize("args", WRITING, ids=lambda args: " ".join(args[:2]))
def test_while_a_runtime_has_the_storage_nothing_is_changed(
    db: Path, args: tuple[str, ...]
) -> None:
    with closing(SQLiteStorage(db).open_writer()):
        before = contents(db.parent)
        result = run(*args, "-s", "app.db")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "is in use by a runtime of this process" in result.stderr
        says_how = "or drop it in the app: await runtime.drop_tenant('acme')" in result.stderr
        assert says_how == (args[0] == "tenants")
        assert result.stderr.count("\n") == 1
        assert contents(db.parent) == before


# --- rename --------------------------------------------------------------------------------------


def test_a_type_is_renamed(db: Path) -> None:
    result = run("rename", "-s", "app.db", "Cart", "Basket", "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("Renamed ")
    assert "Basket" in run("ls", "-s", "app.db").stdout
    assert "Cart" not in run("ls", "-s", "app.db").stdout
    assert run("rename", "-s", "app.db", "Basket", "Cart", stdin="n\n").exit_code == 1
    assert "Basket" in run("ls", "-s", "app.db").stdout
