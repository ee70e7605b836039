"""Isolation of faults: the object or the tenant that a statement failed for, and locks of others.

The SQLSTATE of an error tells how far it reaches: one row (a constraint, a trigger, a value), one
tenant (a missing grant or schema), or the whole server. Only a fault of the whole server is passed
on as it is. Any other becomes a `PartialFault`.

Locks that other sessions hold are the case in which a fault costs time. Each wait for one is
bounded by the session's ``lock_timeout``. After a wait that ended so, `LockWatch` is wary for a
while: transactions wait `WARY_WAIT` only, and find the locked rows without waiting for them. A
tenant whose tables are locked is refused at once for a while, since a table can't be skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from time import monotonic

import psycopg

from .._faults import PartialFault, StorageFault
from ._connection import Connection

WARY_WAIT = "50ms"
"""How long a wary transaction waits for a lock."""
WARY_SECONDS = 10.0
"""For how long transactions are wary after a wait that ended without the lock."""
COOLING_SECONDS = 1.0
"""For how long a tenant is refused whose tables are locked, times the number of such tenants. So
waits for locked tables take no more than a twentieth of the time."""

_LOCK_NOT_AVAILABLE = "55P03"
_OUT_OF_MEMORY = "53200"
_ROW_CLASSES = {
    "21",  # cardinality violation
    "22",  # data exception
    "23",  # integrity constraint violation
    "2F",  # SQL routine exception
    "38",  # external routine exception
    "39",  # external routine invocation exception
    "44",  # WITH CHECK OPTION violation
    "54",  # program limit exceeded, such as the size of an index row
    "HV",  # foreign data wrapper
    "P0",  # RAISE in a trigger
    "XX",  # internal error, such as a corrupted block or index
}
_TENANT_CLASSES = {
    "0A",  # feature not supported, such as a table replaced by a view
    "2B",  # dependent objects
    "3F",  # invalid schema name
    "42",  # privileges, and names that don't exist
    "55",  # an object isn't in the required state
    "58",  # system error, such as an unreadable file of a table
}


class Reach(Enum):
    """How far the cause of an error reaches."""

    ROW = auto()
    TENANT = auto()
    SERVER = auto()


def reach_of(fault: StorageFault) -> Reach:
    """The reach of a fault that `ReconnectingConnection.run` raised."""
    error = fault.__cause__
    if isinstance(error, (struct.error, OverflowError, UnicodeError)):
        return Reach.ROW
    return reach_of_error(error) if isinstance(error, psycopg.Error) else Reach.SERVER


def reach_of_error(error: psycopg.Error) -> Reach:
    """The reach of an error that a statement raised."""
    code = error.sqlstate or ""
    if code == _LOCK_NOT_AVAILABLE:
        return Reach.ROW if error.diag.context else Reach.TENANT
    if code[:2] in _ROW_CLASSES:
        return Reach.ROW
    if code[:2] in _TENANT_CLASSES or code == _OUT_OF_MEMORY:
        return Reach.TENANT
    return Reach.SERVER


def is_lock_timeout(fault: StorageFault) -> bool:
    """True if a wait for a lock ended without it."""
    error = fault.__cause__
    return isinstance(error, psycopg.Error) and error.sqlstate == _LOCK_NOT_AVAILABLE


def is_table_lock(fault: StorageFault) -> bool:
    """True if a wait for the lock of a table ended without it.

    The server gives a context for locks of rows only.
    """
    return is_lock_timeout(fault) and reach_of(fault) is Reach.TENANT


def isolated(fault: StorageFault, tenants: Sequence[str]) -> StorageFault:
    """The fault of a batch, as a `PartialFault` if it isn't one of the whole server.

    Args:
        fault: A fault that `ReconnectingConnection.run` raised.
        tenants: The tenant of each item of the batch.
    """
    reach = reach_of(fault)
    is_out_of_locks = (
        isinstance(fault.__cause__, psycopg.Error) and fault.__cause__.sqlstate == _OUT_OF_MEMORY
    )
    one_tenant = len(set(tenants)) == 1
    if reach is Reach.SERVER or (is_out_of_locks and one_tenant):
        return fault
    positions = range(len(tenants)) if reach is Reach.TENANT and one_tenant else ()
    partial = PartialFault(str(fault), positions)
    partial.__cause__ = fault.__cause__
    return partial


class LockWatch:
    """Memory of the locks that other sessions held lately. Used by one thread."""

    def __init__(self) -> None:
        self._wary_until = 0.0
        self._cooling: dict[str, tuple[float, str]] = {}

    @property
    def is_wary(self) -> bool:
        """True if a wait for a lock ended without it a short while ago."""
        return self._wary_until > 0 and monotonic() < self._wary_until

    def timed_out(self) -> None:
        """A wait for a lock ended without it."""
        self._wary_until = monotonic() + WARY_SECONDS

    def table_locked(self, tenant: str, problem: str) -> None:
        """A wait for the lock of a tenant's table ended without it."""
        self.timed_out()
        number = len(self._cooling.keys() | {tenant})
        self._cooling[tenant] = (monotonic() + COOLING_SECONDS * number, problem)

    def refuse(self, tenants: Sequence[str]) -> None:
        """Refuse tenants whose tables were locked a short while ago.

        Args:
            tenants: The tenant of each item of a batch.

        Raises:
            PartialFault: Names the items of such tenants.
        """
        if not self._cooling:
            return
        now = monotonic()
        self._cooling = {tenant: entry for tenant, entry in self._cooling.items() if entry[0] > now}
        positions = [at for at, tenant in enumerate(tenants) if tenant in self._cooling]
        if positions:
            raise PartialFault(self._cooling[tenants[positions[0]]][1], positions)

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[None]:
        """A transaction for the block, whose waits for locks are short if this is wary."""
        with connection.transaction():
            if self.is_wary:
                limit_lock_waits(connection, WARY_WAIT)
            yield


def limit_lock_waits(connection: Connection, wait: str) -> str:
    """Bound the waits for locks until the transaction ends. Returns the bound so far."""
    row = connection.execute(
        "SELECT current_setting('lock_timeout'), set_config('lock_timeout', %s, true)", (wait,)
    ).fetchone()
    assert row is not None
    earlier: str = row[0]
    return earlier
