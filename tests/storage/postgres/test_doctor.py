"""Checks of a PostgreSQL database for ``trio-durable doctor``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from support.pooler import pooled
from support.postgres import Server, running, wait_until

from trio_durable import ObjectKey
from trio_durable.storage import AlarmChanges, Commit, Finding, NewAlarm
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._membership import NodeSettings

from .messages import message, sent_by

NOW = 1_767_225_600_000_000


@pytest.fixture(scope="module")
def doctored() -> Iterator[Server]:
    with running(max_connections=12) as server:
        yield server


@pytest.fixture
def server(doctored: Server) -> Iterator[Server]:
    doctored.execute("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    with closing(PostgresStorage(doctored.url()).open_writer()) as writer:
        alarms = AlarmChanges(changed={"x": NewAlarm(NOW, b"1")})
        writer.commit([Commit(ObjectKey("Cart", "a"), 0, b"1", alarms=alarms)], NOW)
        writer.commit([Commit(ObjectKey("Cart", "a", "acme"), 0, b"1")], NOW)
    yield doctored
    doctored.execute("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")
    wait_until(lambda: doctored.execute("SHOW synchronous_standby_names") == [("",)])
    doctored.execute("DROP SCHEMA IF EXISTS durable_acme CASCADE", "ALTER ROLE postgres RESET ALL")


def found(conninfo: str, *, thorough: bool = False, **options: float) -> dict[str, Finding]:
    findings = list(PostgresStorage(conninfo, **options).diagnose(thorough))  # type: ignore[arg-type]
    named = {finding.name: finding for finding in findings}
    assert len(named) == len(findings)
    for finding in findings:
        assert "\n" not in finding.text + finding.advice
        if finding.status == "problem":
            assert finding.advice
    return named


def change(server: Server, name: str, value: str) -> None:
    server.execute(f"ALTER SYSTEM SET {name} = {value}", "SELECT pg_reload_conf()")
    wait_until(lambda: server.execute(f"SHOW {name}") == [(value,)])


def assert_finding(finding: Finding, status: str, text: str) -> None:
    assert finding.status == status, finding
    assert text in finding.text


def test_a_sound_database(server: Server) -> None:
    findings = found(server.url(), thorough=True)
    problems = {each.name: each for each in findings.values() if each.status != "ok"}
    # The server of the tests doesn't sync.
    assert set(problems) <= {"durability", "rows"}
    assert set(findings) == {
        "clock",
        "connection",
        "connections",
        "durability",
        "encryption",
        "marks",
        "nodes",
        "pooler",
        "rows",
        "schema",
        "standbys",
        "tenants",
        "timeouts",
        "vacuum",
    }


def test_a_server_that_cannot_be_reached(server: Server) -> None:
    findings = found("host=/nowhere")
    assert_finding(findings["connection"], "problem", "No such file or directory")
    assert len(findings) == 1


def test_a_server_that_does_not_sync(server: Server) -> None:
    assert_finding(found(server.url())["durability"], "problem", "fsync is off")


def test_nothing_is_changed(server: Server) -> None:
    server.execute("DROP SCHEMA public, durable_acme CASCADE", "CREATE SCHEMA public")
    assert_finding(found(server.url())["schema"], "warning", "migrations are pending")
    assert server.execute("SELECT count(*) FROM pg_class WHERE relname ~ 'durable_'") == [(0,)]


def test_tables_that_are_not_as_they_were_made(server: Server) -> None:
    server.execute("ALTER TABLE durable_objects DISABLE TRIGGER ALL")
    finding = found(server.url())["schema"]
    assert_finding(finding, "problem", "lacks the trigger durable_objects_begin_at_1")


def test_a_newer_schema(server: Server) -> None:
    server.execute("INSERT INTO durable_migrations (tenant, name) VALUES ('', 'm999_future')")
    assert_finding(found(server.url())["schema"], "problem", "m999_future")


def test_a_schema_that_is_missing(server: Server) -> None:
    findings = found(server.url() + "?options=-csearch_path%3Dshpo")
    assert_finding(findings["schema"], "problem", "up to shpo")


@pytest.mark.parametrize("table", ["durable_messages", "durable_dead_messages", "durable_once"])
def test_the_tables_of_messages_are_checked(server: Server, table: str) -> None:
    server.execute(f"ALTER TABLE durable_acme.{table} RENAME TO gone")
    finding = found(server.url())["tenants"]
    assert_finding(finding, "problem", f"durable_acme.{table} is missing")


def test_messages_that_cannot_be_read(server: Server) -> None:
    with closing(PostgresStorage(server.url()).open_writer()) as writer:
        sent_by(writer, message(ObjectKey("Cart", "a", "acme")))
    server.execute("UPDATE durable_acme.durable_messages SET arguments = '{'")
    finding = found(server.url(), thorough=True)["rows"]
    if finding.status == "warning":
        pytest.skip(finding.text)
    assert_finding(finding, "problem", "durable_acme: 0 objects, 0 alarms, 1 messages")


def test_privileges_on_the_tables_of_tenants(server: Server) -> None:
    server.execute(
        "CREATE ROLE visitor LOGIN",
        "GRANT USAGE ON SCHEMA public, durable_acme TO visitor",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO visitor",
        "GRANT SELECT ON ALL TABLES IN SCHEMA durable_acme TO visitor",
    )
    try:
        findings = found(server.url("visitor"))
        assert_finding(findings["schema"], "ok", "public")
        assert_finding(findings["tenants"], "problem", "may not use the tables of acme")
        server.execute("GRANT ALL ON ALL TABLES IN SCHEMA durable_acme TO visitor")
        findings = found(server.url("visitor"))
        assert_finding(findings["tenants"], "ok", "1; the role may not create others")
    finally:
        server.execute("DROP OWNED BY visitor", "DROP ROLE visitor")


def test_tables_of_tenants(server: Server) -> None:
    server.execute("ALTER TABLE durable_acme.durable_objects DISABLE TRIGGER ALL")
    findings = found(server.url())
    assert_finding(findings["schema"], "ok", "public")
    problem = "1 can't be used: acme: the tables aren't as the migrations have made them"
    assert_finding(findings["tenants"], "problem", problem)
    assert "lacks the trigger" in findings["tenants"].text


def test_a_standby_that_is_missing(server: Server) -> None:
    change(server, "synchronous_standby_names", "two")
    finding = found(server.url())["standbys"]
    assert_finding(finding, "problem", "no standby of synchronous_standby_names = two")


def test_a_pooler(server: Server) -> None:
    with pooled(server) as pooler:
        assert_finding(found(pooler.url())["pooler"], "warning", "shares connections")


def test_a_pooler_that_splits_reads(server: Server) -> None:
    with running() as other, pooled(server, for_reads=other) as pooler:
        assert_finding(
            found(pooler.url())["connection"], "problem", "sends reads to another server"
        )


def test_hosts(server: Server) -> None:
    url = f"postgresql://postgres@127.0.0.1:{server.port},127.0.0.1:1/postgres"
    assert_finding(found(url)["hosts"], "warning", "refused")
    with running() as other:
        url = f"postgresql://postgres@127.0.0.1:{server.port},127.0.0.1:{other.port}/postgres"
        assert_finding(found(url)["hosts"], "problem", "there must be one primary")
    url = f"postgresql://postgres@127.0.0.1,localhost:{server.port}/postgres"
    assert found(url)["hosts"].status in ("ok", "warning")


def test_few_connections_are_free(server: Server) -> None:
    others = [psycopg.connect(server.url()) for _ in range(7)]
    assert_finding(found(server.url())["connections"], "warning", "a runtime takes three")
    for each in others:
        each.close()


def test_timeouts(server: Server) -> None:
    server.execute("ALTER ROLE postgres SET idle_session_timeout = '1h'")
    assert_finding(found(server.url())["timeouts"], "warning", "idle_session_timeout = 1h")
    url = server.url() + "?options=-cstatement_timeout%3D0"
    assert_finding(found(url)["timeouts"], "warning", "statement_timeout is 0")


def test_autovacuum_that_is_off(server: Server) -> None:
    change(server, "autovacuum", "off")
    assert_finding(found(server.url())["vacuum"], "problem", "autovacuum is off")


def test_rows_that_cannot_be_read(server: Server) -> None:
    if server.execute("SHOW server_version_num") < [("160000",)]:
        pytest.skip("IS JSON is of PostgreSQL 16")
    server.execute("UPDATE durable_acme.durable_objects SET state = '{'")
    assert "rows" not in found(server.url())
    finding = found(server.url(), thorough=True)["rows"]
    assert_finding(finding, "problem", "durable_acme: 1 objects, 0 alarms")


def test_a_check_that_fails_leaves_the_others(server: Server) -> None:
    server.execute("ALTER TABLE durable_tenants RENAME TO other")
    findings = found(server.url())
    assert_finding(findings["tenants"], "warning", "it can't be checked")
    assert findings["vacuum"].status == "ok"


def test_nodes(server: Server) -> None:
    assert_finding(found(server.url())["nodes"], "ok", "no runtime is open")
    storage = PostgresStorage(server.url())
    storage._node = NodeSettings(ttl=600)  # so it isn't renewed in the middle of the test
    with closing(storage.open_writer()):
        finding = found(server.url())["nodes"]
        assert_finding(finding, "ok", f"process {os.getpid()} on ")
        server.execute("UPDATE durable_beats SET beaten_at = beaten_at - interval '1 hour'")
        assert_finding(found(server.url())["nodes"], "warning", "isn't renewed is dead")


def test_deliveries_in_which_a_process_died(server: Server) -> None:
    new, alarm = message(ObjectKey("Cart", "b", "acme")), ObjectKey("Cart", "a").alarm("x")
    with closing(PostgresStorage(server.url()).open_writer()) as writer:
        sent_by(writer, new)
        assert writer.claim([alarm], 1, NOW, NOW + 1)
        assert writer.mark(alarm, 1)
        assert writer.mark_message(new.key)
        assert "marks" not in found(server.url())  # it may run
    finding = found(server.url())["marks"]
    assert_finding(finding, "warning", "while it delivered x of Cart/a, f of Cart/b")
