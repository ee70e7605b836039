"""``trio-durable serve`` and ``nodes``, in processes of their own."""

from __future__ import annotations

import signal
import socket
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from trio_durable import DurableObject, PostgresStorage

from .serving import APP, called, eventually, nodes, serving
from .stored_data import json_of
from .support import python, run


class Basket(DurableObject, name="served.in_tests.Basket"):
    items: int = 0


EXPORT = """{"trio_durable":"export","version":1}
{"kind":"object","type":"served.Basket","id":"a","revision":1,"updated_at":"2026-01-31T09:30:00+00:00","state":{"items":4}}
{"kind":"end","objects":1,"alarms":0}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_it_serves_until_it_is_told_to_end(folder: Path, backend: str) -> None:
    ready, live = folder / "ready", folder / "live"
    options = ("--backend", backend, "--ready", str(ready), "--live", f"unix://{live}")
    with serving(folder, *options) as process:
        assert ready.is_file()
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(live))
            assert probe.recv(1) == b""
        assert called(folder) == "1\n"
        [node] = nodes(folder)
        assert (node["pid"], node["shards"], node["serves"]) == (process.pid, 1, True)
        assert (node["group"], node["is_leaving"], node["age"]) == ("default", False, None)
        table = python("-m", "trio_durable", "nodes", "app.db", cwd=folder)
        assert str(process.pid) in table.stdout
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not ready.exists()
    assert not live.exists()
    refused = python("-m", "trio_durable", "nodes", "app.db", cwd=folder)
    assert refused.returncode == 2
    assert "app.db open that commands can reach; start it" in refused.stderr


def test_commands_change_what_it_has_in_memory(folder: Path) -> None:
    with serving(folder):
        assert called(folder) == "1\n"
        edit = ("edit", "-s", "app.db", "served.Basket", "a", "--set", "items=5")
        assert python("-m", "trio_durable", *edit, cwd=folder).stdout == "Saved as revision 2.\n"
        assert called(folder) == "6\n"


def test_another_one_takes_over_at_a_kill(folder: Path) -> None:
    with serving(folder) as first, serving(folder) as second:
        assert called(folder) == "1\n"
        first.kill()
        first.wait(30)
        assert called(folder) == "2\n"
        second.send_signal(signal.SIGINT)
        assert second.wait(30) == 0


def test_an_app_without_objects_is_refused(folder: Path) -> None:
    (folder / "empty.py").write_text("")
    done = python("-m", "trio_durable", "serve", "app.db", "--app", "empty", cwd=folder)
    assert done.returncode == 2
    assert "--app has no durable object" in done.stderr
    assert not (folder / "app.db").exists()


# --- PostgreSQL ----------------------------------------------------------------------------------


def test_processes_divide_a_database_and_give_their_shards_away(
    folder: Path, database: str
) -> None:
    # Long enough that a busy machine doesn't end a lease, which moves shards as well.
    options = {"TRIO_DURABLE_LISTEN": "tcp://127.0.0.1:0", "TRIO_DURABLE_TTL": "6"}
    with (
        serving(folder, storage=database, env=options) as first,
        serving(folder, "--backend", "asyncio", storage=database, env=options) as second,
    ):
        eventually(lambda: [each["shards"] for each in nodes(folder, database)] == [512, 512])
        found = nodes(folder, database)
        assert {each["pid"] for each in found} == {first.pid, second.pid}
        assert [each["group"] for each in found] == ["default", "default"]
        assert all(each["serves"] and 0 <= each["age"] < 60 for each in found)
        assert [called(folder, database, name) for name in "abc"] == ["1\n"] * 3
        first.send_signal(signal.SIGTERM)
        assert first.wait(30) == 0
        eventually(lambda: [each["shards"] for each in nodes(folder, database)] == [1024])
        assert [called(folder, database, name) for name in "abc"] == ["2\n"] * 3
        second.kill()
        second.wait(30)
        [node] = nodes(folder, database)  # which nothing serves, and nothing has removed it yet
        assert (node["pid"], node["shards"]) == (second.pid, 1024)
        table = python("-m", "trio_durable", "nodes", database, cwd=folder).stdout
        assert "s ago" in table


def test_the_settings_of_the_cluster_are_options(folder: Path, database: str) -> None:
    listen = f"unix://{folder}/s"
    options = ("--group", "blue", "--release", "3", "--ttl", "60", "--listen", listen)
    with serving(folder, *options, storage=database) as process:
        [node] = nodes(folder, database)
        assert (node["pid"], node["group"]) == (process.pid, "blue")
        assert (folder / "s").is_socket()


def test_commands_reach_members_by_tls(
    folder: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    tls = {
        "TRIO_DURABLE_TLS_CERTIFICATE": f"{folder / 'cert.pem'}",
        "TRIO_DURABLE_TLS_KEY": f"{folder / 'key.pem'}",
        "TRIO_DURABLE_TLS_AUTHORITY": f"{folder / 'ca.pem'}",
    }
    listen = ("--listen", "tcp://127.0.0.1:0")
    with serving(folder, *listen, storage=database, env=tls):
        imported = run("import", "-s", database, stdin=EXPORT, env=tls)
        assert imported.output == "Imported 1 object and 0 alarms.\n"
        assert [node["shards"] for node in nodes(folder, database)] == [1024]
        monkeypatch.setattr("trio_durable.cli.storage.members.PATIENCE_SECONDS", 0.5)
        refused = run("rm", "-s", database, "served.Basket", "a", "--yes")
        assert refused.exit_code == 2
        assert "if the processes use TLS, name the certificates by" in refused.stderr
    with closing(PostgresStorage(database).open_reader()) as reader:
        assert reader.list_ids("served.Basket", None, 10) == ["a"]


def test_nothing_is_open(folder: Path, database: str) -> None:
    result = run("nodes", database)
    assert result.exit_code == 2
    assert "there are no tables in schema test_" in result.stderr
    assert run("migrate", "-s", database).exit_code == 0
    result = run("nodes", database)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "No runtime is open.\n"
    with closing(PostgresStorage(database).open_writer()):
        node = json_of("nodes", database, "--json")
    assert (node["group"], node["serves"], node["shards"]) == (None, True, 1)


# --- refusals ------------------------------------------------------------------------------------

DATABASE = "postgresql://127.0.0.1:1/none"


@pytest.mark.parametrize(
    ("storage", "options", "says"),
    [
        (DATABASE, {"LISTEN": "tcp://0.0.0.0:1"}, "is no address that others can call"),
        (DATABASE, {"LISTEN": "tcp://10.0.0.5:1"}, "calls would cross the network in the clear"),
        (DATABASE, {"ADVERTISE": "tcp://127.0.0.1:1"}, "advertise needs listen"),
        (DATABASE, {"LISTEN": "somewhere"}, "somewhere"),
        (DATABASE, {"TLS_KEY": "key.pem"}, "TLS needs all of --tls-certificate, --tls-key and"),
        (DATABASE, {"GROUP": "x" * 101}, "group must be a name of 1 to 100 characters"),
        ("app.db", {"LISTEN": "tcp://10.0.0.5:1"}, "can be reached from other machines"),
        ("app.db", {"LISTEN": "tcp://127.0.0.1"}, "tcp://127.0.0.1"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    storage: str,
    options: dict[str, str],
    says: str,
) -> None:
    monkeypatch.chdir(folder)
    env = {f"TRIO_DURABLE_{name}": value for name, value in options.items()}
    result = run("serve", storage, "--app", f"{__name__}:Basket", env=env)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_probe_at_a_place_that_is_none_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    result = run("serve", "app.db", "--app", f"{__name__}:Basket", "--ready", "ftp://x")
    assert result.exit_code == 2
    assert "ftp://x" in result.stderr
    assert result.stderr.count("\n") == 1
