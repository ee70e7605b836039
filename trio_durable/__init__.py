"""Durable objects for Python, on Trio: named, stateful, crash-safe objects in your own process."""

from typing import TYPE_CHECKING

from ._activations.info import ActivationInfo
from ._alarms.alarm import Alarm
from ._alarms.retry import Retry
from ._api.context import Context
from ._api.durable_object import DurableObject, ObjectDefinition, definition_of
from ._api.handle import Handle
from ._api.instrument import Instrument
from ._api.objects import Objects
from ._api.runtime import DurableRuntime, current_runtime
from ._api.statistics import RuntimeStatistics
from ._api.tenant import Tenant
from ._clock import Clock
from ._declarations.alarm import alarm
from ._declarations.handler import (
    BoundHandler,
    BoundSyncHandler,
    Client,
    Handler,
    SyncHandler,
    handler,
)
from ._declarations.records import AlarmDefinition, FieldDefinition, HandlerDefinition, Options
from ._declarations.upgrade import upgrade
from ._durations import Duration
from ._errors import (
    ActivationFailed,
    AlarmSuperseded,
    ArgumentError,
    CallCycle,
    CallFailed,
    CallTimeout,
    DefinitionError,
    DurableError,
    HandlerCancelled,
    InvalidAlarm,
    InvalidObjectId,
    InvalidTenant,
    MailboxFull,
    NoRuntime,
    NotInTurn,
    ObjectNotRunning,
    Overloaded,
    PersistenceError,
    ReadonlyViolation,
    ReplyError,
    RuntimeClosed,
    SchemaTooNew,
    StaleObject,
    StateDecodeError,
    StateEncodeError,
    StateTooLarge,
    StateTooNew,
    StorageError,
    StorageInUse,
    StorageUnavailable,
    TenantDropped,
    UnknownHandler,
    UnknownObjectType,
    UsageError,
    WrongEventLoop,
)
from ._eventloop.runner import InlineRunner, Runner, ThreadRunner
from ._json.upgrades import UpgradeDefinition
from ._keys import ObjectKey
from .storage import Durability, MemoryStorage, SQLiteStorage, Storage

if TYPE_CHECKING:
    from .storage.postgres import PostgresStorage as PostgresStorage

__all__ = [
    "ActivationFailed",
    "ActivationInfo",
    "Alarm",
    "AlarmDefinition",
    "AlarmSuperseded",
    "ArgumentError",
    "BoundHandler",
    "BoundSyncHandler",
    "CallCycle",
    "CallFailed",
    "CallTimeout",
    "Client",
    "Clock",
    "Context",
    "DefinitionError",
    "Durability",
    "DurableError",
    "DurableObject",
    "DurableRuntime",
    "Duration",
    "FieldDefinition",
    "Handle",
    "Handler",
    "HandlerCancelled",
    "HandlerDefinition",
    "InlineRunner",
    "Instrument",
    "InvalidAlarm",
    "InvalidObjectId",
    "InvalidTenant",
    "MailboxFull",
    "MemoryStorage",
    "NoRuntime",
    "NotInTurn",
    "ObjectDefinition",
    "ObjectKey",
    "ObjectNotRunning",
    "Objects",
    "Options",
    "Overloaded",
    "PersistenceError",
    "ReadonlyViolation",
    "ReplyError",
    "Retry",
    "Runner",
    "RuntimeClosed",
    "RuntimeStatistics",
    "SQLiteStorage",
    "SchemaTooNew",
    "StaleObject",
    "StateDecodeError",
    "StateEncodeError",
    "StateTooLarge",
    "StateTooNew",
    "Storage",
    "StorageError",
    "StorageInUse",
    "StorageUnavailable",
    "SyncHandler",
    "Tenant",
    "TenantDropped",
    "ThreadRunner",
    "UnknownHandler",
    "UnknownObjectType",
    "UpgradeDefinition",
    "UsageError",
    "WrongEventLoop",
    "alarm",
    "current_runtime",
    "definition_of",
    "handler",
    "upgrade",
]


def __getattr__(name: str) -> object:
    # Not with the others, nor in __all__: it needs psycopg, which is an extra.
    if name == "PostgresStorage":
        from .storage.postgres import PostgresStorage

        return PostgresStorage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
