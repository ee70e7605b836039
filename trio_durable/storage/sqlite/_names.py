"""Names of a tenant's tables in an SQLite file."""

from __future__ import annotations


class TableNames:
    """Names of one tenant's tables, quoted for SQL where necessary.

    Args:
        tenant: A valid tenant name; "" for the tables without a prefix.
    """

    def __init__(self, tenant: str = "") -> None:
        self.tenant = tenant
        self.objects = self.of("durable_objects")
        self.alarms = self.of("durable_alarms")
        self.alarms_by_time = self.of("durable_alarms_by_time")
        self.alarms_recurring = self.of("durable_alarms_recurring")
        self.messages = self.of("durable_messages")
        self.dead_messages = self.of("durable_dead_messages")
        self.once = self.of("durable_once")
        self.objects_v1 = self.of("durable_objects_v1")
        self.changes = self.of("durable_changes")

    def of(self, name: str) -> str:
        """Name of the tenant's table, view, index or trigger ``name``, with its prefix."""
        return f'"{self.prefix}{name}"' if self.tenant else name

    @property
    def prefix(self) -> str:
        """The prefix of the names of the tenant's tables. It needs no escapes in quotes."""
        # With a prefix, since SQLite reserves names that begin with "sqlite_".
        return f"tenant_{self.tenant}_" if self.tenant else ""

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of all tables of the tenant."""
        return self.objects, self.alarms, self.messages, self.dead_messages, self.once
