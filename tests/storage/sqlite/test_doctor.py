"""Checks of an SQLite file, each with its advice."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from trio_durable import SQLiteStorage
from trio_durable.storage import (
    AlarmChanges,
    Commit,
    Deferral,
    Finding,
    MessageChanges,
    NewAlarm,
    NewMessage,
    lane_of,
    new_token,
)
from trio_durable.storage.sqlite import _doctor
from trio_durable.storage.sqlite._mounts import Mount, mount_of

from .files import CORRUPT, NOW, execute, key, posix_only, setting, theirs, writing

pytestmark = posix_only

ALL = [
    *("sqlite", "file", "names", "file system", "permissions", "lock", "free space", "log"),
    *("header", "schema", "journal mode", "integrity", "alarms", "marks"),
    "rows",
]


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local disk, wherever the tests run."""
    monkeypatch.setattr(_doctor, "mount_of", lambda _: Mount(Path("/"), "ext4"))


def diagnosed(path: Path, *, thorough: bool = False) -> Mapping[str, Finding]:
    """The findings by name, in order. The files stay as they are."""
    folder = path.parent
    before = contents(folder)
    findings = list(SQLiteStorage(path).diagnose(thorough))
    after = contents(folder)
    after.pop(f"{path.name}-shm", None)
    before.pop(f"{path.name}-shm", None)
    assert after == before
    for each in findings:
        assert bool(each.advice) == (each.status != "ok"), each
        assert (each.text + each.advice).isprintable()
    return {each.name: each for each in findings}


def contents(folder: Path) -> dict[str, bytes | None]:
    if not folder.is_dir():
        return {}
    return {
        str(file.relative_to(folder)): file.read_bytes() if file.is_file() else None
        for file in folder.rglob("*")
    }


def not_ok(findings: Mapping[str, Finding]) -> dict[str, str]:
    return {name: each.status for name, each in findings.items() if each.status != "ok"}


def fill(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        batch = [Commit(key("a"), 0, b"{}"), setting("b", "x"), Commit(theirs("acme"), 0, b"{}")]
        assert writer.commit(batch, NOW) == ()


@pytest.fixture
def filled(path: Path) -> Path:
    fill(path)
    return path


def test_a_file_that_is_well(filled: Path) -> None:
    assert [*diagnosed(filled)] == ALL[:-1]
    findings = diagnosed(filled, thorough=True)
    assert [*findings] == ALL
    assert not_ok(findings) == {}
    assert findings["rows"].text == "all 3 can be read"
    assert "integrity_check" in findings["integrity"].text
    assert "quick_check" in diagnosed(filled)["integrity"].text


def test_a_file_that_this_process_has_open(filled: Path) -> None:
    """Its locks stay, and so does its log."""
    storage = SQLiteStorage(filled)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        writer.commit([Commit(key("c"), 0, b"{}")], NOW)
        findings = diagnosed(filled, thorough=True)
        assert not_ok(findings) == {}
        assert findings["lock"].text == f"a runtime of process {os.getpid()} has the file open"
        assert findings["rows"].text == "all 4 can be read"
        writer.commit([Commit(key("c"), 1, b"{}")], NOW)
        assert reader.load([key("c")])[0] is not None


# --- the file ------------------------------------------------------------------------------------


def make_folder(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    os.mkfifo(path)


def leave_log(path: Path) -> None:
    fill(path)
    path.with_name("objects.db-wal").touch()
    path.unlink()


def nothing(_: Path) -> None:
    """No file."""


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (nothing, "there is no file"),
        (make_folder, "is no regular file"),
        (make_socket, "is no regular file"),
        (leave_log, "objects.db, but objects.db-wal, which would be applied to a new file"),
    ],
)
def test_there_is_no_file(path: Path, make: Callable[[Path], None], says: str) -> None:
    make(path)
    findings = diagnosed(path)
    assert [*findings] == ["sqlite", "file"]
    assert findings["file"].status == "problem"
    assert says in findings["file"].text


def test_there_is_no_folder(path: Path) -> None:
    findings = diagnosed(path / "objects.db")
    assert findings["file"].text.startswith("there is no folder ")


def test_an_sqlite_that_is_too_old(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))
    findings = diagnosed(filled)
    assert not_ok(findings) == {"sqlite": "problem"}
    assert "3.38 or newer is needed" in findings["sqlite"].text


def test_a_hard_link(filled: Path) -> None:
    filled.with_name("other.db").hardlink_to(filled)
    findings = diagnosed(filled)
    assert not_ok(findings) == {"names": "warning"}
    assert "the file has 2 names (hard links)" in findings["names"].text
    with writing(SQLiteStorage(filled)):
        other = diagnosed(filled.with_name("other.db"))
    assert other["lock"].text == "a runtime has the file open, under another name"
    assert [*other][-1] == "contents"
    assert other["contents"].status == "warning"


class Kind(NamedTuple):
    kind: str
    status: str


@pytest.mark.parametrize(
    "kind",
    [
        *(Kind(name, "ok") for name in ("ext4", "xfs", "btrfs", "overlay", "zfs")),
        *(Kind(name, "problem") for name in ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph")),
        *(Kind(name, "warning") for name in ("fuse.sshfs", "fuseblk", "tmpfs")),
    ],
    ids=lambda kind: kind.kind,
)
def test_the_file_system(filled: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    monkeypatch.setattr(_doctor, "mount_of", lambda _: Mount(Path("/"), kind.kind))
    finding = diagnosed(filled)["file system"]
    assert finding.status == kind.status
    assert kind.kind in finding.text


def test_a_file_that_is_mounted_alone(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor, "mount_of", lambda path: Mount(path, "ext4"))
    finding = diagnosed(filled)["names"]
    assert finding.status == "warning"
    assert finding.advice == "mount the folder of the file instead"


def test_without_a_table_of_mounts(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor, "mount_of", lambda _: None)
    findings = diagnosed(filled)
    assert not_ok(findings) == {}
    assert "file system" not in findings


MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 0:30 / /data rw - nfs4 server:/data rw
31 27 0:31 / /data rw - xfs /dev/vdb rw
63 31 254:0 /a /data/my\040app.db rw,relatime - btrfs /dev/vdc rw
nonsense
64 27 0:32 / /data/sub
65 27 0:33 / /database rw - fuse.s3 s3 rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/app.db", Mount(Path("/"), "ext4")),
        ("/data/app.db", Mount(Path("/data"), "xfs")),
        ("/data/sub/app.db", Mount(Path("/data"), "xfs")),
        ("/data/my app.db", Mount(Path("/data/my app.db"), "btrfs")),
        ("/data/my app.db-wal", Mount(Path("/data"), "xfs")),
        ("/database/app.db", Mount(Path("/database"), "fuse.s3")),
    ],
)
def test_the_table_of_mounts(tmp_path: Path, path: str, expected: Mount) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS, encoding="utf-8")
    assert mount_of(Path(path), table) == expected
    assert mount_of(Path(path), tmp_path / "none") is None


def test_a_log_that_belongs_to_another_user(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    lock = filled.with_name("objects.db-lock")
    os.chown(lock, 65534, -1)
    findings = diagnosed(filled)
    assert not_ok(findings) == {"permissions": "warning"}
    assert findings["permissions"].advice.endswith("chown root objects.db-lock")


def test_a_file_that_may_not_be_written(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = filled.with_name("objects.db-lock")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != refused and access(path, mode))
    finding = diagnosed(filled)["permissions"]
    assert finding.status == "problem"
    assert finding.text == f"this user may not read and write {refused}"


@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_everyone_may_write(filled: Path, which: str) -> None:
    target = filled if which == "file" else filled.parent
    target.chmod(target.stat().st_mode | 0o002)
    findings = diagnosed(filled)
    assert not_ok(findings) == {"permissions": "warning"}
    assert findings["permissions"].advice.endswith(f"chmod o-w {target}")


@pytest.mark.parametrize(
    ("free", "status"), [(1_000_000, "problem"), (100_000_000, "warning"), (10**9, "ok")]
)
def test_the_free_space(
    filled: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 0, free))
    assert diagnosed(filled)["free space"].status == status


def test_a_check_that_fails_is_a_problem(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied", str(filled))

    monkeypatch.setattr(shutil, "disk_usage", refuse)
    findings = diagnosed(filled)
    assert not_ok(findings) == {"free space": "problem"}
    assert "Permission denied" in findings["free space"].text
    assert [*findings] == ALL[:-1]


# --- the log -------------------------------------------------------------------------------------

KILLED = """
import os, sys
from trio_durable import ObjectKey, SQLiteStorage
from trio_durable.storage import Commit

writer = SQLiteStorage(sys.argv[1]).open_writer()
for revision in range(3):
    writer.commit([Commit(ObjectKey("Counter", "killed"), revision, b"{}")], 1)
os._exit(0)
"""


def test_the_log_of_a_crash_is_read_and_stays(filled: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(filled)], check=True)
    log = filled.with_name("objects.db-wal")
    before = log.read_bytes()
    assert before
    findings = diagnosed(filled, thorough=True)
    assert not_ok(findings) == {}
    assert "a process that ended without closing has left" in findings["log"].text
    assert findings["rows"].text == "all 4 can be read"
    assert log.read_bytes() == before


@pytest.mark.parametrize("is_open", [True, False])
def test_a_large_log(filled: Path, monkeypatch: pytest.MonkeyPatch, is_open: bool) -> None:
    monkeypatch.setattr(_doctor, "_LARGE_LOG", 100)
    if is_open:
        with writing(SQLiteStorage(filled)) as writer:
            writer.commit([Commit(key("c"), 0, b"{}")], NOW)
            finding = diagnosed(filled)["log"]
        assert "end long reads" in finding.advice
    else:
        subprocess.run([sys.executable, "-c", KILLED, str(filled)], check=True)
        finding = diagnosed(filled)["log"]
        assert "open a runtime" in finding.advice
    assert finding.status == "warning"


def test_a_journal_of_another_program(filled: Path) -> None:
    journal = filled.with_name("objects.db-journal")
    journal.touch()
    assert not_ok(diagnosed(filled)) == {}
    journal.write_bytes(b"a transaction")
    findings = diagnosed(filled)
    assert not_ok(findings) == {"log": "warning", "contents": "warning"}
    assert "objects.db-journal" in findings["log"].text


# --- the contents --------------------------------------------------------------------------------


def test_no_database(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 100)
    findings = diagnosed(path)
    assert not_ok(findings) == {"header": "problem"}
    assert [*findings][-1] == "header"
    assert "choose another path" in findings["header"].advice


def test_an_empty_file(path: Path) -> None:
    path.touch()
    findings = diagnosed(path)
    assert findings["header"].text == "the file is empty"
    assert set(not_ok(findings).values()) == {"warning"}


def test_a_file_of_another_program(path: Path) -> None:
    execute(path, "CREATE TABLE theirs (x)")
    findings = diagnosed(path)
    assert not_ok(findings) == {"header": "problem"}
    assert "the file holds tables, but no durable objects" in findings["header"].text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("PRAGMA user_version = 3", "a file of trio_durable"),
        ("PRAGMA application_id = 5", "a file that another program has marked or uses, too"),
        ("PRAGMA application_id = 0", "a file that another program has marked or uses, too"),
    ],
)
def test_the_mark_of_a_file(filled: Path, change: str, says: str) -> None:
    execute(filled, change)
    findings = diagnosed(filled)
    assert not_ok(findings) == {}
    assert findings["header"].text.endswith(says)


def test_a_file_of_an_earlier_release(filled: Path) -> None:
    execute(filled, "PRAGMA application_id = 0")
    execute(filled, "PRAGMA user_version = 0")
    assert "the next runtime marks it" in diagnosed(filled)["header"].text


def test_a_file_of_a_newer_release(filled: Path) -> None:
    execute(
        filled,
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
        *("trio_durable", "m999_from_the_future", "2099-01-01"),
    )
    findings = diagnosed(filled, thorough=True)
    assert not_ok(findings) == {"schema": "problem"}
    assert "m999_from_the_future" in findings["schema"].text
    assert "rows" not in findings


def test_pending_migrations(filled: Path) -> None:
    execute(filled, "DELETE FROM _sqlite_migrations WHERE name = 'm003_tenants'")
    execute(filled, "DELETE FROM _sqlite_migrations WHERE migration_set GLOB '*:acme'")
    findings = diagnosed(filled, thorough=True)
    assert not_ok(findings) == {"schema": "warning"}
    assert "m003_tenants" in findings["schema"].text
    assert "rows" not in findings


def test_another_journal_mode(filled: Path) -> None:
    execute(filled, "PRAGMA journal_mode = DELETE")
    findings = diagnosed(filled)
    assert not_ok(findings) == {"journal mode": "warning"}
    assert findings["journal mode"].text.startswith("delete, ")


@pytest.mark.parametrize(
    ("place", "damage", "says"),
    [
        (36, (5).to_bytes(4, "big"), "the file is damaged: "),  # the length of the free list
        (-3 * 4096, bytes(2 * 4096), "malformed"),
    ],
)
def test_a_damaged_file(filled: Path, place: int, damage: bytes, says: str) -> None:
    with writing(SQLiteStorage(filled)) as writer:
        writer.commit([Commit(key(f"{n}"), 0, b"x" * 2000) for n in range(100)], NOW)
    content = bytearray(filled.read_bytes())
    content[place : place + len(damage)] = damage
    filled.write_bytes(content)
    findings = diagnosed(filled)
    assert findings["integrity"].status == "problem"
    assert says in findings["integrity"].text
    assert "restore a backup" in findings["integrity"].advice


def test_alarms_without_a_time(filled: Path) -> None:
    execute(filled, "UPDATE durable_alarms SET available_at = 'soon'")
    findings = diagnosed(filled)
    assert not_ok(findings) == {"alarms": "warning"}
    assert findings["alarms"].text.endswith("1 in durable_alarms")


UNREADABLE = {
    name: sql
    for name, sql in CORRUPT.items()
    if name
    in ("BLOB that isn't text", "invalid UTF-8", "empty", "NUL behind", "no JSON", "cut off")
}


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("prefix", ["", "tenant_acme_"])
def test_a_corrupt_row(filled: Path, prefix: str, value: str) -> None:
    execute(filled, f"UPDATE {prefix}durable_objects SET state = {value}")
    findings = diagnosed(filled, thorough=True)
    assert not_ok(findings) == {"rows": "problem"}
    table = f'"{prefix}durable_objects"' if prefix else "durable_objects"
    assert findings["rows"].text == f"1 of 3 rows can't be read: {table} Counter a"


def test_a_corrupt_alarm_with_a_corrupt_name(filled: Path) -> None:
    execute(filled, "UPDATE durable_alarms SET payload = '{', name = CAST(x'ff' AS TEXT)")
    text = diagnosed(filled, thorough=True)["rows"].text
    assert text == "1 of 3 rows can't be read: durable_alarms Counter b \\xff"


def test_many_corrupt_rows(filled: Path) -> None:
    with writing(SQLiteStorage(filled)) as writer:
        writer.commit([Commit(key(f"{n}"), 0, b"x") for n in range(10)], NOW)
    text = diagnosed(filled, thorough=True)["rows"].text
    assert text.startswith("10 of 13 rows can't be read: durable_objects Counter 0, ")
    assert text.endswith(", and 7 more")


def test_deliveries_in_which_a_process_died(filled: Path) -> None:
    new = NewMessage(key("b"), lane_of(key("a")), new_token(), "add", b"[{}]", NOW)
    alarm = key("a").alarm("ring")
    with writing(SQLiteStorage(filled)) as writer:
        changes = AlarmChanges(changed={"ring": NewAlarm(NOW, None)})
        writer.commit([Commit(key("a"), None, alarms=changes)], NOW)
        writer.commit([Commit(key("b"), None, messages=MessageChanges(sent=[new]))], NOW)
        assert writer.claim([alarm], 1, NOW, NOW + 1)
        assert writer.mark(alarm, 1)
        assert writer.mark_message(new.key)
        assert "marks" not in diagnosed(filled)  # it may run
    found = diagnosed(filled)["marks"]
    assert found.status == "warning"
    assert found.text == "a process died while it delivered add of Counter/b, ring of Counter/a"
    with writing(SQLiteStorage(filled)) as writer:
        writer.defer_messages([Deferral(new.key, None, 0, None)])
    # The claim has ended with the process, which was counted as the file opened.
    assert diagnosed(filled)["marks"].status == "ok"
