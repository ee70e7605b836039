"""Qualified names of a tenant's tables in a PostgreSQL database.

The tables of the nameless tenant are in the connection's current schema, those of the tenant
``acme`` in the schema ``durable_acme``. All names are quoted and qualified by their schema, so that
neither the search path nor special characters matter.
"""

from __future__ import annotations

from psycopg import sql

from ._jobs import Jobs, key_by_key

_PREFIX = "durable_"


class Names:
    """The names of one tenant's tables.

    Args:
        home: The schema of the nameless tenant; None for names without a schema.
        tenant: A valid tenant name; "" for the nameless tenant.
        jobs: The place of alarms that are jobs of Oban; None if they are in a table of their own.
    """

    def __init__(self, home: str | None, tenant: str = "", jobs: Jobs | None = None) -> None:
        self.tenant = tenant
        self.jobs = jobs
        self.schema = f"{_PREFIX}{tenant}" if tenant else home
        self._names = {
            "tenant": tenant,
            "schema": _quoted(self.schema) if self.schema is not None else "",
            "objects": self._of("durable_objects"),
            "objects_v1": self._of("durable_objects_v1"),
            "alarms": self._of("durable_alarms"),
            "messages": self._of("durable_messages"),
            "dead_messages": self._of("durable_dead_messages"),
            "once": self._of("durable_once"),
            "begin_at_1": self._of("durable_begin_at_1"),
            "tenants": _of(home, "durable_tenants"),
            "cluster": _of(home, "durable_cluster"),
            "nodes": _of(home, "durable_nodes"),
            "beats": _of(home, "durable_beats"),
            "shards": _of(home, "durable_shards"),
            "migrations": _of(home, "durable_migrations"),
            "moves": _of(home, "durable_moves"),
            "oban": _of(home, "durable_oban"),
            "producers": _of(home, "durable_oban_producers"),
        }
        if jobs is not None:
            self._names |= jobs.names()
            self._names["alarms"] = jobs.as_alarms(tenant)
            self._names["leaders"] = _of(jobs.schema, "oban_leaders")
            self._names["oban_producers"] = _of(jobs.schema, "oban_producers")

    def _of(self, name: str) -> str:
        return _of(self.schema, name)

    def statement(self, template: str) -> str:
        """Fill in the names of a statement without parameters."""
        return template.format(**self._names)

    def query(self, template: str, **others: str) -> bytes:
        """Fill in the names of a statement with parameters, with their percent signs doubled."""
        names = {key: name.replace("%", "%%") for key, name in self._names.items()}
        if self.jobs is not None:
            template = key_by_key(template)
        return template.format(**names, **others).encode()


def _of(schema: str | None, name: str) -> str:
    return _quoted(name) if schema is None else _quoted(schema, name)


def _quoted(*parts: str) -> str:
    return sql.Identifier(*parts).as_string(None)
