"""Released migrations never change: a database holds the text of its schema, with its comments."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing

from trio_durable.storage.postgres._migrations import names_of_all, script
from trio_durable.storage.sqlite._migrations import (
    m001_objects,
    m002_alarms,
    m003_tenants,
    m004_crashes,
    m005_messages,
    m006_recurrences,
    m007_views,
)
from trio_durable.storage.sqlite._names import TableNames

SQLITE = {
    "m001_objects": "9c66db6d145714fd",
    "m002_alarms": "3f4f974447752612",
    "m003_tenants": "760f39129910f3ff",
    "m004_crashes": "10e29c62a156a93e",
    "m005_messages": "ba405e96832c9228",
    "m006_recurrences": "c6d21b57d47c9347",
    "m007_views": "02afb634926fb504",
}
POSTGRES = {
    "m001_objects": "799922416ef31192",
    "m002_alarms": "7641b3f273b0fac4",
    "m003_tenants": "aad0ebdbe4ca69f6",
    "m004_crashes": "dfb5258132e6470b",
    "m005_cluster": "142c860968bf8773",
    "m006_messages": "99ab6f9647e43156",
    "m007_recurrences": "cb14824ee89437d0",
    "m008_views": "f5dbfcfc89cee1bb",
}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_of_sqlite() -> None:
    found = {}
    steps = (
        m001_objects,
        m002_alarms,
        m003_tenants,
        m004_crashes,
        m005_messages,
        m006_recurrences,
        m007_views,
    )
    for step in steps:
        with closing(sqlite3.connect(":memory:")) as connection:
            if step in (m004_crashes, m006_recurrences):
                m002_alarms(connection, TableNames())
            step(connection, TableNames())
            rows = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
        found[step.__name__] = digest(repr(rows))
    assert found == SQLITE


def test_of_postgres() -> None:
    assert {name: digest(script("home", [("", name)])) for name in names_of_all()} == POSTGRES
