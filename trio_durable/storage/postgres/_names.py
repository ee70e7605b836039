"""What things are called in a PostgreSQL database.

The nameless tenant lives in the connection's own schema, and every other in a schema of its name.
All names are written with their schema and quoted, so neither the search path nor a name's
characters matter.
"""

from __future__ import annotations

from psycopg import sql

_PREFIX = "durable_"


class Names:
    """The names of one tenant's tables.

    Args:
        home: The schema of the nameless tenant; None if it isn't known, and names without a
            schema are meant.
        tenant: A checked name.
    """

    def __init__(self, home: str | None, tenant: str = "") -> None:
        self.tenant = tenant
        self.schema = f"{_PREFIX}{tenant}" if tenant else home
        self._names = {
            "schema": _quoted(self.schema) if self.schema is not None else "",
            "objects": self._of("durable_objects"),
            "alarms": self._of("durable_alarms"),
            "begin_at_1": self._of("durable_begin_at_1"),
            "tenants": _of(home, "durable_tenants"),
            "migrations": _of(home, "durable_migrations"),
        }

    def _of(self, name: str) -> str:
        return _of(self.schema, name)

    def statement(self, template: str) -> str:
        """A statement without parameters."""
        return template.format(**self._names)

    def query(self, template: str, **others: str) -> bytes:
        """A statement with parameters, for which psycopg looks at every percent sign."""
        names = {key: name.replace("%", "%%") for key, name in self._names.items()}
        return template.format(**names, **others).encode()


def _of(schema: str | None, name: str) -> str:
    return _quoted(name) if schema is None else _quoted(schema, name)


def _quoted(*parts: str) -> str:
    return sql.Identifier(*parts).as_string(None)
