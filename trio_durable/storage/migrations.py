"""The tables of an SQLite file, as versioned migrations.

Applied by sqlite-utils, each in a transaction of its own together with the note that it was.
A migration that has been released is never edited.
"""

from __future__ import annotations

import sqlite_utils
from sqlite_utils import Migrations

migrations = Migrations("trio_durable")


@migrations()
def m001_objects(db: sqlite_utils.Database) -> None:
    """One row an object."""
    db.execute(
        """
        CREATE TABLE durable_objects (
            type_name  TEXT NOT NULL,
            object_id  TEXT NOT NULL,
            revision   INTEGER NOT NULL,  -- the object's commit number, from 1
            updated_at INTEGER NOT NULL,  -- microseconds since 1970 UTC
            state      TEXT NOT NULL,     -- JSON
            PRIMARY KEY (type_name, object_id)
        )
        """
    )
    # The half of the fence that an upsert can't express: a save that finds its row gone would
    # insert it anew. It costs nothing where the row is there.
    db.execute(
        """
        CREATE TRIGGER durable_objects_begin_at_1 AFTER INSERT ON durable_objects
        WHEN NEW.revision <> 1
        BEGIN SELECT RAISE(ABORT, 'stale'); END
        """
    )


@migrations()
def m002_alarms(db: sqlite_utils.Database) -> None:
    """One row an alarm."""
    # Without rowid, so that the index by time holds the key and the horizon feed reads nothing
    # else.
    db.execute(
        """
        CREATE TABLE durable_alarms (
            type_name    TEXT NOT NULL,
            object_id    TEXT NOT NULL,
            name         TEXT NOT NULL,
            due_at       INTEGER NOT NULL,           -- microseconds since 1970 UTC
            available_at INTEGER,                    -- the same; NULL for a dead letter
            claim        INTEGER,                    -- whose it is, until available_at
            failures     INTEGER NOT NULL DEFAULT 0,
            last_error   TEXT,
            payload      TEXT,                       -- JSON
            PRIMARY KEY (type_name, object_id, name)
        ) WITHOUT ROWID
        """
    )
    db.execute("CREATE INDEX durable_alarms_by_time ON durable_alarms (available_at)")
    db.execute(
        "CREATE INDEX durable_alarms_claimed ON durable_alarms (claim) WHERE claim IS NOT NULL"
    )


def known_names() -> frozenset[str]:
    """The names of all migrations of this release."""
    return frozenset(migration.name for migration in migrations._migrations)
