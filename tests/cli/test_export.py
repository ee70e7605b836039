"""Export and import: exact, whole, or refused."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from contextlib import closing
from pathlib import Path

import attrs
import pytest
from click.testing import Result
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trio_durable import ObjectKey, SQLiteStorage
from trio_durable._keys import AlarmKey
from trio_durable.cli.storage.paging import existing_alarms
from trio_durable.storage import AlarmRow, StoredAlarm

from .stored_data import ADA, DAY, LATEST, NOW, everything, fail, save, writer_of
from .support import assert_refused, contents, run

EARLIEST = -62_135_596_800_000_000


def export(path: Path, *args: str) -> bytes:
    result = run("export", "-s", str(path), *args)
    assert result.exit_code == 0, result.stderr
    assert re.fullmatch(r"Exported [\d,]+ objects? and [\d,]+ alarms?\.\n", result.stderr)
    return result.stdout_bytes


def import_into(path: Path, data: bytes, *args: str) -> str:
    result = run("import", "-s", str(path), *args, stdin=data)
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    return result.stdout


def without_revisions(data: bytes) -> bytes:
    return re.sub(rb'(?m)^({"kind":"object",.*?"revision":)\d+', rb"\1_", data)


# --- round trips ---------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
names = text.filter(bool) | st.sampled_from(["\x01", "\U0010ffff", "{", '"', "é" * 256])
tenants = st.sampled_from(["", "acme", "b-1", "0"])
instants = st.integers(EARLIEST, LATEST) | st.sampled_from([EARLIEST, 0, NOW, LATEST])
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
states = st.dictionaries(text, plain, max_size=3).map(lambda data: json.dumps(data).encode())
compact = st.dictionaries(text, plain, max_size=3).map(
    lambda data: json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
)
odd = st.sampled_from(
    [
        b"",
        b"null",
        b"[1]",
        b"{broken",
        b'{"a":1,"a":2}',
        b'{"a":1e2}',
        b'{"a":99999999999999999999}',
    ]
)
objects = st.dictionaries(
    st.builds(ObjectKey, names, names, tenants),
    st.tuples(instants, states | compact | odd),
    max_size=6,
)
marks = st.none() | st.tuples(
    st.none() | instants, st.integers(0, 2**31), st.none() | text | st.just("x" * 1000)
)
alarms = st.dictionaries(
    st.builds(AlarmKey, names, names, names, tenants),
    st.tuples(instants, st.none() | states | compact | odd, marks),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(objects, alarms, st.integers(1, 3))
@example({}, {}, 1)
def test_an_import_exports_as_it_was(
    objects: dict[ObjectKey, tuple[int, bytes]],
    alarms: dict[AlarmKey, tuple[int, bytes | None, tuple[int | None, int, str | None] | None]],
    revisions: int,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        first, second = Path(name, "first.db"), Path(name, "second.db")
        with writer_of(first) as writer:
            for key, (updated_at, state) in objects.items():
                for revision in range(revisions):
                    save(writer, key, state, revision=revision, now=updated_at)
            for alarm, (due_at, payload, mark) in alarms.items():
                save(writer, alarm.object_key, None, {alarm.name: (due_at, payload)})
                if mark is not None:
                    fail(writer, alarm, *mark)
        exported = export(first)
        import_into(second, exported)
        assert without_revisions(export(second)) == without_revisions(exported)
        assert len(exported.splitlines()) == len(objects) + len(alarms) + 2
        # What an export doesn't show can't be different either.
        before, after = everything(first), everything(second)
        assert [attrs.evolve(row, revision=1) for row in before[0]] == after[0]
        assert before[1] == after[1]


def test_revisions_begin_anew_or_go_on(db: Path) -> None:
    exported = export(db)
    import_into(db.with_name("new.db"), exported)
    assert {row.revision for row in everything(db.with_name("new.db"))[0]} == {1}
    import_into(db, exported, "--replace")
    assert {str(row.key): row.revision for row in everything(db)[0]} == {
        "Cart('ada')": 3,
        "Cart('bob')": 2,
        "Counter('hits')": 2,
        "Cart('ada') of tenant acme": 2,
    }


def test_many_pieces_are_one_import(folder: Path) -> None:
    first, second = folder / "first.db", folder / "second.db"
    with writer_of(first) as writer:
        for number in range(1203):
            key = ObjectKey("Cart", f"{number % 1100}", "acme" if number >= 1100 else "")
            save(writer, key, {"n": number}, {"a": (NOW, None), "b": (NOW, None)}, now=number)
        large = {"text": "x" * 3_000_000}
        for object_id in "abc":
            save(writer, ObjectKey("Large", object_id), large)
    exported = export(first)
    assert import_into(second, exported) == "Imported 1,206 objects and 2,406 alarms.\n"
    assert without_revisions(export(second)) == without_revisions(exported)
    skipped = import_into(second, exported, "--skip")
    assert skipped == "Imported 0 objects and 0 alarms. Skipped 1,206 objects and 2,406 alarms.\n"


def test_files_and_pipes_are_the_same(db: Path) -> None:
    folder = db.parent
    exported = export(db)
    result = run("export", "-s", "app.db", "app.jsonl")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (folder / "app.jsonl").read_bytes() == exported
    assert export(db, "-") == exported
    result = run("import", "-s", "new.db", "app.jsonl")
    assert (result.exit_code, result.stdout) == (0, "Imported 4 objects and 4 alarms.\n")
    assert without_revisions(export(folder / "new.db")) == without_revisions(exported)


def test_no_file_is_replaced(db: Path) -> None:
    (db.parent / "app.jsonl").write_text("mine", encoding="utf-8")
    assert_refused(db.parent, "app.jsonl: it already exists", "export", "-s", "app.db", "app.jsonl")


def test_an_export_that_fails_leaves_no_file(db: Path) -> None:
    with writer_of(db) as writer:
        save(writer, ObjectKey("Cart", "old"), {}, now=2**62)
    says = "Cart('old') has a time outside the years 1 to 9999"
    assert_refused(db.parent, says, "export", "-s", "app.db", "new.jsonl")


def test_one_tenant_can_be_taken_out(db: Path) -> None:
    exported = export(db, "-t", "acme")
    assert len(exported.splitlines()) == 4
    assert import_into(db.with_name("one.db"), exported) == "Imported 1 object and 1 alarm.\n"
    # Or out of an export of all.
    assert import_into(db.with_name("two.db"), export(db), "--tenant", "acme") == (
        "Imported 1 object and 1 alarm.\n"
    )
    assert export(db.with_name("one.db")) == export(db.with_name("two.db")) == exported


# --- what is there already -----------------------------------------------------------------------


@pytest.fixture
def changed(db: Path) -> bytes:
    """An export of ``app.db``, in which most things have changed since."""
    exported = export(db)
    with writer_of(db) as writer:
        save(writer, ADA, {"new": 1}, {"lost": (NOW + DAY, "new")}, revision=2)
        save(writer, ObjectKey("Cart", "eve"), {"new": 2})
    assert run("rm", "-y", "-s", "app.db", "Cart", "bob").exit_code == 0
    return exported


def state_of(path: Path, object_id: str) -> object:
    [row] = [r for r in everything(path)[0] if r.key == ObjectKey("Cart", object_id)]
    return json.loads(row.state)


def alarm_of(path: Path, name: str) -> StoredAlarm:
    [alarm] = [
        a
        for row in everything(path)[1]
        if isinstance(row, tuple) and (a := row[0]).key == ADA.alarm(name)
    ]
    assert isinstance(alarm, StoredAlarm)
    return alarm


def test_what_is_stored_is_not_touched_unasked(db: Path, changed: bytes) -> None:
    says = "standard input, line 2: Cart('ada') is stored already; use --replace or --skip"
    assert_refused(db.parent, says, "import", "-s", "app.db", stdin=changed)


def test_an_alarm_clashes_as_well(db: Path) -> None:
    exported = export(db)
    for key in ("Cart ada", "Cart bob", "Counter hits"):
        run("rm", "-y", "-s", "app.db", *key.split())
    run("tenants", "drop", "-y", "-s", "app.db", "acme")
    with writer_of(db) as writer:
        save(writer, ADA, None, {"lost": (NOW, None), "mine": (NOW, None)})
        fail(writer, ADA.alarm("lost"), None, 1, None)
    says = "line 5: alarm lost of Cart('ada') is stored already"
    assert_refused(db.parent, says, "import", "-s", "app.db", stdin=exported)


def test_skip_leaves_it_as_it_is(db: Path, changed: bytes) -> None:
    assert import_into(db, changed, "--skip") == (
        "Imported 1 object and 0 alarms. Skipped 3 objects and 4 alarms.\n"
    )
    assert state_of(db, "ada") == {"new": 1}
    assert state_of(db, "bob") == {"total": 0, "items": []}
    assert alarm_of(db, "lost").payload == b'"new"'


def test_replace_puts_it_back(db: Path, changed: bytes) -> None:
    assert import_into(db, changed, "--replace") == "Imported 4 objects and 4 alarms.\n"
    assert state_of(db, "ada") == {"total": 4, "items": ["é"]}
    assert state_of(db, "eve") == {"new": 2}
    lost = alarm_of(db, "lost")
    assert (lost.payload, lost.failures, lost.crashes) == (None, 5, 2)


def test_alarms_are_found_among_many(folder: Path) -> None:
    with writer_of(folder / "app.db") as writer:
        many = {f"{number:04}": (NOW, None) for number in range(500)}
        save(writer, ADA, None, dict(itertools.islice(many.items(), 0, None, 2)))
        save(writer, ObjectKey("Cart", "ad"), None, many)
        fail(writer, ADA.alarm("0004"), None, 1, None)
    with closing(SQLiteStorage(folder / "app.db").open_reader()) as reader:
        wanted = [ADA.alarm(name) for name in ("0003", "0004", "0005", "0498", "0499")]
        wanted.append(ObjectKey("Cart", "eve").alarm("0004"))
        assert existing_alarms(reader, wanted, NOW) == {wanted[1], wanted[3]}


def test_to_find_alarms_their_neighbours_are_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [ObjectKey("Cart", f"{number:03}") for number in range(100)]
    with writer_of(folder / "app.db") as writer:
        for key in keys:
            save(writer, key, None, {"x": (NOW, None)})
    read: list[object] = []
    with closing(SQLiteStorage(folder / "app.db").open_reader()) as reader:
        browse = reader.browse_alarms

        def browsing(*args: object, **kwargs: object) -> list[AlarmRow]:
            rows = browse(*args, **kwargs)  # type: ignore[arg-type]
            read.extend(rows)
            return rows

        monkeypatch.setattr(reader, "browse_alarms", browsing)
        wanted = [key.alarm("x") for key in keys]
        assert existing_alarms(reader, wanted, NOW) == set(wanted)
    assert len(read) == 100


# --- bad files -----------------------------------------------------------------------------------

HEADER = '{"trio_durable": "export", "version": 1}'
OBJECT = (
    '{"kind": "object", "type": "Cart", "id": "b", "revision": 1, '
    '"updated_at": "2026-01-31T09:30:00+00:00", "state": {}}'
)
ALARM = (
    '{"kind": "alarm", "type": "Cart", "id": "b", "name": "n", "due_at": '
    '"2026-01-31T09:30:00+00:00", "available_at": null, "failures": 1, "last_error": null}'
)
END = '{"kind": "end", "objects": 1, "alarms": 1}'
GOOD = [HEADER, OBJECT, ALARM, END]


def changed_object(old: str, new: str) -> list[str]:
    assert old in OBJECT
    return [HEADER, OBJECT.replace(old, new), ALARM, END]


def changed_alarm(old: str, new: str) -> list[str]:
    assert old in ALARM
    return [HEADER, OBJECT, ALARM.replace(old, new), END]


TIME = '"2026-01-31T09:30:00+00:00"'
NUMBER = "not a number from 0 to 2**63 - 1"
BAD_FILES: dict[str, tuple[list[str], str]] = {
    "empty": (
        [],
        "line 1: the end is missing; the file is truncated, or not an export: export again",
    ),
    "not one": (["{}", END], "line 1: not the first line of an export"),
    "no header": (GOOD[1:], "line 1: not the first line of an export"),
    "no JSON": (["what?"], "standard input, line 1: not JSON from column 1 on: 'what?'; fix"),
    "later": (['{"trio_durable": "export", "version": 2}'], "the export has version 2, and this"),
    "no version": (['{"trio_durable": "export", "version": true}'], "the export has version True"),
    "a longer header": (['{"trio_durable":"export","version":1,"x":1}'], "line 1: 'x' is unknown"),
    "cut off": (GOOD[:-1], "line 4: the end is missing"),
    "cut in a line": ([HEADER, OBJECT[:39]], "line 2: not JSON: it ends too early; fix the file"),
    "cut in a string": ([HEADER, OBJECT[:43]], "line 2: not JSON: it ends too early"),
    "a comma": ([HEADER, OBJECT.replace(', "id"', ' "id"')], "line 2: not JSON from column 35 on"),
    "line missing": (
        [HEADER, OBJECT, END],
        "line 3: it says 1 object and 1 alarm, but the file has 1 and 0",
    ),
    "more": ([*GOOD, OBJECT], "line 5: the line is after the end"),
    "empty line": ([HEADER, "", *GOOD[1:]], "line 2: not JSON: it is empty; fix the file, or"),
    "list": ([HEADER, "[]"], "line 2: not a JSON object"),
    "kind": (changed_object('"object"', '"thing"'), "kind is 'thing', not one of object, alarm"),
    "kind 2": (changed_object('"object"', "[]"), "line 2: kind is []"),
    "twice": ([HEADER, OBJECT, OBJECT], "line 3: Cart('b') is there twice"),
    "order": (
        [HEADER, OBJECT, OBJECT.replace('"b"', '"a"')],
        "line 3: Cart('a') is not in order; lines are sorted by tenant",
    ),
    "kinds": ([HEADER, ALARM, OBJECT], "line 3: Cart('b') is not in order"),
    "alarm twice": ([*GOOD[:3], ALARM], "line 4: n of Cart('b') is there twice"),
    "missing": (changed_object('"revision": 1, ', ""), "line 2: revision is missing"),
    "unknown": (changed_object('"id"', '"x": 1, "id"'), "line 2: 'x' is unknown here"),
    "no state": (changed_object('"state": {}', '"x": 1'), "line 2: state is missing"),
    "state": (changed_object("{}", "[]"), "line 2: state is not a JSON object"),
    "both": (changed_object("{}", '{}, "state_base64": ""'), "both state and state_base64"),
    "base64": (changed_object('"state": {}', '"state_base64": "&"'), "state_base64 is not base64;"),
    "base64 2": (
        changed_object('"state": {}', '"state_base64": "é"'),
        "state_base64 is not base64;",
    ),
    "NaN": (changed_object("{}", '{"x": NaN}'), "line 2: JSON has no NaN"),
    "int": (changed_object("{}", '{"x": 99999999999999999999}'), "doesn't fit into 64 bits"),
    "two": (changed_object("{}", '{"x": 1, "x": 1}'), "line 2: 'x' is there twice"),
    "id": (changed_object('"b"', '""'), "line 2: id can't be '': it is empty"),
    "type": (changed_object('"Cart"', "3"), "line 2: type can't be 3: it is of type int"),
    "tenant": (
        changed_object('"id"', '"tenant": "A", "id"'),
        "tenant can't be 'A': it has forbidden",
    ),
    "no tenant": (changed_object('"id"', '"tenant": "", "id"'), "it has 0 characters"),
    "revision": (changed_object(": 1,", ': "1",'), f"line 2: revision is '1', {NUMBER}"),
    "time": (changed_object(TIME, '"soon"'), "line 2: updated_at is 'soon', not an instant"),
    "naive": (changed_object("+00:00", ""), "not an instant such as 2026-01-31T09:30:00+00:00"),
    "number": (changed_alarm(TIME, "5"), "line 3: due_at is 5, not an instant"),
    "late": (changed_alarm(TIME, '"9999-12-31T23:59:59-01:00"'), "not an instant"),
    "failures": (changed_alarm(": 1,", ": -1,"), f"line 3: failures is -1, {NUMBER}"),
    "many": (changed_alarm(": 1,", ": 1e3,"), f"line 3: failures is 1000.0, {NUMBER}"),
    "crashes": (changed_alarm('"id"', '"crashes": -1, "id"'), f"line 3: crashes is -1, {NUMBER}"),
    "error": (changed_alarm('"last_error": null', '"last_error": "\\u0000"'), "without NUL"),
    "name": (changed_alarm('"n"', "null"), "line 3: name can't be None"),
    "payload": (
        changed_alarm('"id"', '"payload_base64": "/w==", "id"'),
        "line 3: payload_base64 is not UTF-8",
    ),
}


@pytest.mark.parametrize(("lines", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused(folder: Path, lines: list[str], says: str) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    assert_refused(folder, says, "import", "-s", "new.db", stdin=data)


def test_a_good_one_is_taken(folder: Path) -> None:
    data = "\n".join(GOOD).encode()  # by hand, and without an end of the last line
    assert import_into(folder / "new.db", data) == "Imported 1 object and 1 alarm.\n"


def test_other_encodings_are_refused(folder: Path) -> None:
    data = "\n".join(GOOD).encode("utf-16")
    assert_refused(
        folder,
        "standard input, line 1: not UTF-8 text; name a file that `trio-durable export` wrote",
        "import",
        "-s",
        "new.db",
        stdin=data,
    )


def test_a_storage_in_use_is_not_imported_into(db: Path) -> None:
    exported = export(db)
    with closing(SQLiteStorage(db).open_writer()):
        before = contents(db.parent)
        result: Result = run("import", "-s", "app.db", "--replace", stdin=exported)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "is in use by a runtime" in result.stderr
        assert contents(db.parent) == before
        assert export(db) == exported
