"""Copies of storages in use: the mark of what was moved, and waiting until nothing waits."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from trio_durable import (
    DurableObject,
    DurableRuntime,
    PersistenceError,
    PostgresStorage,
    SQLiteStorage,
    Storage,
    StorageInUse,
    StorageMoved,
    handler,
)
from trio_durable.cli.commands import copy as copying
from trio_durable.cli.storage.restore import Mail, restore_mail
from trio_durable.storage import Commit, MessageChanges, StorageFault

from .stored_data import NOW, writer_of
from .support import run
from .test_messages import BOB, THEIRS, a_message, mail_db, mail_of

__all__ = ["mail_db"]  # a fixture of the tests


class Account(DurableObject):
    cents: int = 0

    @handler
    def read(self) -> int:
        return self.cents


@pytest.fixture(params=["sqlite", "postgres"])
def source(request: pytest.FixtureRequest, mail_db: Path) -> str:
    """The URL of a storage with messages of a tenant and without one."""
    if request.param == "sqlite":
        return str(mail_db)
    database: str = request.getfixturevalue("database")
    succeeded("copy", str(mail_db), database, "--move")
    return database


@pytest.fixture
def target(source: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The URL of an empty storage, which is of the other kind."""
    if source.startswith("postgresql"):
        return str(tmp_path / "target.db")
    database: str = request.getfixturevalue("database")
    return database


def storage_of(url: str) -> Storage:
    return PostgresStorage(url) if url.startswith("postgresql") else SQLiteStorage(url)


def succeeded(*args: str) -> str:
    result = run(*args)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def refused(*args: str) -> str:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    return result.stderr


def read(url: str, tenant: str = "") -> int:
    """The balance of an account, as a runtime has it."""

    async def main() -> int:
        async with DurableRuntime(storage_of(url), objects=[Account]) as runtime:
            objects = runtime.tenant(tenant) if tenant else runtime
            return await objects.get(Account, "bob").read()

    return anyio.run(main)


def test_a_source_with_messages_is_copied_only_if_it_is_moved(source: str, target: str) -> None:
    said = refused("copy", source, target)
    assert "4 messages to Account, the oldest sent" in said
    assert "1 message to Account of tenant acme" in said
    assert "would happen in both storages; mark" in said
    with pytest.raises(Exception, match=r"no such file|no tables"):
        storage_of(target).open_reader().close()


def test_a_runtime_refuses_what_was_moved_until_that_is_taken_back(
    source: str, target: str
) -> None:
    said = succeeded("copy", source, target, "--move")
    assert "as moved; `trio-durable reopen -s " in said
    with pytest.raises(StorageMoved, match=r"was moved on 20.* take the mark back with") as caught:
        read(source)
    assert caught.value.target == storage_of(target).location
    assert read(target) == 0
    assert "Account" in succeeded("ls", "-s", source)  # it can be looked at
    assert run("reopen", "-s", source, stdin="n\n").exit_code == 1
    with pytest.raises(StorageMoved):
        read(source)
    assert "may use" in succeeded("reopen", "-s", source, "--yes")
    assert read(source) == 0
    assert "has no mark that it was moved" in refused("reopen", "-s", source)


def test_what_was_moved_is_not_copied_once_more(source: str, target: str, tmp_path: Path) -> None:
    succeeded("copy", source, target, "--move")
    for where in (target, str(tmp_path / "third.db")):
        for option in ("--resume", "--move"):
            said = refused("copy", source, where, option)
            assert f"was moved to {storage_of(target).location} on" in said
    assert "moved" in refused("copy", source, str(tmp_path / "third.db"), "-t", "acme", "--move")


def test_one_tenant_is_moved_and_the_others_stay(source: str, target: str) -> None:
    said = succeeded("copy", source, target, "-t", "acme", "--move")
    assert "Marked tenant acme of" in said
    assert read(source) == 0
    with pytest.raises(PersistenceError, match=r"tenant 'acme' was moved to .*reopen -t acme"):
        read(source, "acme")
    assert "acme was moved to" in succeeded("tenants", "-s", source)
    assert '"moved_to":' in succeeded("tenants", "-s", source, "--json")
    assert read(target, "acme") == 0
    assert "but of these tenants: acme" in refused("reopen", "-s", source)
    succeeded("reopen", "-s", source, "-t", "acme", "--yes")
    assert read(source, "acme") == 0


def test_messages_of_a_tenant_that_was_moved_are_not_delivered(source: str, target: str) -> None:
    succeeded("copy", source, target, "-t", "acme", "--move")
    storage = storage_of(source)
    with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
        assert reader.list_tenants(None, 9) == []
        with pytest.raises(StorageFault, match="was moved to"):
            reader.list_messages(None, None, None, 9, "acme")
        with pytest.raises(StorageFault, match="was moved to"):
            writer.commit([Commit(THEIRS, 0, b"{}")], NOW)
        assert writer.drop_tenant("acme") is True
        assert not writer.commit([Commit(THEIRS, 0, b"{}")], NOW)
    assert storage_of(source).list_moves() == []


def test_a_copy_that_was_interrupted_leaves_the_source_as_it_was(
    source: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(copying.StorageCopy, "differences", interrupted)
        assert run("copy", source, target, "--move").exit_code == 130
    assert storage_of(source).list_moves() == []
    succeeded("copy", source, target, "--move", "--resume")
    assert [move.tenant for move in storage_of(source).list_moves()] == [""]


def test_a_copy_that_differs_leaves_the_source_as_it_was(
    source: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying.StorageCopy, "differences", lambda *_: iter(["Cart/a differs"]))
    assert run("copy", source, target, "--move").exit_code == 1
    assert storage_of(source).list_moves() == []


def test_a_source_that_is_open_is_not_moved(source: str, target: str) -> None:
    with closing(storage_of(source).open_writer()):
        assert "is in use by" in refused("copy", source, target, "--move")
        succeeded("copy", "--help")
    assert storage_of(source).list_moves() == []
    succeeded("copy", source, target, "--move")


def test_a_mark_is_not_taken_back_while_the_storage_is_open(source: str, target: str) -> None:
    succeeded("copy", source, target, "-t", "acme", "--move")
    with closing(storage_of(source).open_writer()), pytest.raises(StorageInUse):
        storage_of(source).reopen("acme")
    assert storage_of(source).reopen("acme") is True
    assert storage_of(source).reopen("acme") is False


def test_a_tenant_that_was_moved_can_be_dropped(source: str, target: str) -> None:
    succeeded("copy", source, target, "-t", "acme", "--move")
    said = succeeded("tenants", "drop", "-s", source, "acme", "--yes")
    assert "Dropped tenant acme with what was moved to" in said
    assert storage_of(source).list_moves() == []
    assert read(target, "acme") == 0


# --- draining ------------------------------------------------------------------------------------


class Hours:
    """A clock that jumps as a command waits, and a runtime that works meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.waits = 0
        self.work: list[object] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits += 1
        if self.work:
            work = self.work.pop(0)
            assert callable(work)
            work()


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    return Hours(monkeypatch)


def handle_all(path: Path) -> None:
    with writer_of(path) as writer, closing(SQLiteStorage(path).open_reader()) as reader:
        for tenant in ("", "acme"):
            keys = [each.key for each in reader.list_messages(None, None, None, 9, tenant)]
            commits = [
                Commit(key.to, None, messages=MessageChanges(acknowledged=[key])) for key in keys
            ]
            assert not writer.commit(commits, NOW)


def test_a_drained_source_is_copied_without_a_mark(
    mail_db: Path, tmp_path: Path, hours: Hours
) -> None:
    hours.work = [lambda: None, lambda: handle_all(mail_db)]
    succeeded("copy", str(mail_db), str(tmp_path / "new.db"), "--drain", "60")
    assert hours.waits == 2
    assert SQLiteStorage(mail_db).list_moves() == []
    assert mail_of(tmp_path / "new.db") == mail_of(mail_db)


def test_what_still_waits_when_the_time_is_over_is_named(
    mail_db: Path, tmp_path: Path, hours: Hours
) -> None:
    said = refused("copy", str(mail_db), str(tmp_path / "new.db"), "--drain", "60")
    assert hours.now == pytest.approx(60)
    assert "there still wait in" in said
    assert "4 messages to Account, the oldest sent" in said
    assert not (tmp_path / "new.db").exists()


def test_draining_waits_until_no_runtime_is_open(
    mail_db: Path, tmp_path: Path, hours: Hours
) -> None:
    handle_all(mail_db)
    writer = SQLiteStorage(mail_db).open_writer()
    hours.work = [lambda: None, writer.close]
    succeeded("copy", str(mail_db), str(tmp_path / "new.db"), "--drain", "60")
    with closing(SQLiteStorage(mail_db).open_writer()):
        said = refused("copy", str(mail_db), str(tmp_path / "other.db"), "--drain", "1")
    assert "in use by a runtime" in said


def test_what_was_sent_after_the_draining_is_noticed(
    mail_db: Path, tmp_path: Path, hours: Hours
) -> None:
    handle_all(mail_db)
    writer = SQLiteStorage(mail_db).open_writer()

    def send_and_close() -> None:
        restore_mail(writer, Mail([a_message(7)]), NOW)
        writer.close()

    hours.work = [send_and_close]
    said = refused("copy", str(mail_db), str(tmp_path / "new.db"), "--drain", "60")
    assert "would happen in both storages" in said
    assert BOB.type_name in said
