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


def known_names() -> frozenset[str]:
    """The names of all migrations of this release."""
    return frozenset(migration.name for migration in migrations._migrations)
