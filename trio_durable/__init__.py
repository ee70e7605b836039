"""Durable objects for Python, on Trio: named, stateful, crash-safe objects in your own process."""

from inspect import get_annotations
from types import FunctionType
from typing import TYPE_CHECKING, get_type_hints

from ._activations.info import ActivationInfo, BusyObject
from ._alarms.alarm import Alarm
from ._alarms.cron import Cron
from ._alarms.recurrence import Every, LeftOut, Missed, Recurrence
from ._alarms.retry import Retry
from ._api.context import Context
from ._api.durable_object import DurableObject, ObjectDefinition, definition_of
from ._api.handle import Handle
from ._api.instrument import Instrument
from ._api.objects import Objects
from ._api.outgoing import Outgoing, OutsideMessage, Withdrawal
from ._api.runtime import DurableRuntime, current_runtime
from ._api.snapshot import Snapshot, StatesPage
from ._api.statistics import RuntimeStatistics
from ._api.tenant import Tenant
from ._api.watch import Watch
from ._clock import Clock
from ._cluster.nodes import Node
from ._cluster.settings import Cluster
from ._cluster.tls import ClusterTLS
from ._declarations.alarm import alarm
from ._declarations.handler import (
    BoundHandler,
    BoundSyncHandler,
    Client,
    Handler,
    handler,
)
from ._declarations.records import AlarmDefinition, FieldDefinition, HandlerDefinition, Options
from ._declarations.upgrade import upgrade
from ._durations import Duration
from ._errors import (
    ActivationFailed,
    AlarmCrashed,
    AlarmSuperseded,
    AlarmUnhandled,
    ArgumentError,
    CallCycle,
    CallFailed,
    CallTimeout,
    CommitRefused,
    DefinitionError,
    DurableError,
    ForeignHandle,
    HandlerCancelled,
    InvalidAlarm,
    InvalidMessage,
    InvalidObjectId,
    InvalidOnceKey,
    InvalidTenant,
    MailboxFull,
    NoRuntime,
    NotInTurn,
    NotOnHandle,
    ObjectNotRunning,
    OnceKeyReused,
    OnceMessageDied,
    OnceReplyUnreadable,
    Overloaded,
    OwnerLost,
    PersistenceError,
    ReadonlyViolation,
    RemoteError,
    ReplyDecodeError,
    ReplyError,
    RuntimeClosed,
    SchemaTooNew,
    StaleObject,
    StateConflict,
    StateDecodeError,
    StateEncodeError,
    StateTooLarge,
    StateTooNew,
    StorageError,
    StorageInUse,
    StorageMoved,
    StorageUnavailable,
    TenantDropped,
    TooManyMessages,
    TurnInterrupted,
    TurnTimeout,
    TurnWontEnd,
    UnknownHandler,
    UnknownObjectType,
    UsageError,
    WatchInTurn,
    WrongEventLoop,
)
from ._eventloop.runner import InlineRunner, Runner, ThreadRunner
from ._json.names import stored_as
from ._json.texts import BigInt
from ._json.upgrades import UpgradeDefinition
from ._keys import ObjectKey
from ._messages.message import DeadMessage, Message, MessageCounts, SendFailed, WaitingMessage
from .scheduler.oban import ObanScheduler
from .storage import Durability, MemoryStorage, SQLiteStorage, Storage

if TYPE_CHECKING:
    from ._json.custom import make_converter as make_converter
    from .storage.postgres import PostgresStorage as PostgresStorage

__all__ = [
    "ActivationFailed",
    "ActivationInfo",
    "Alarm",
    "AlarmCrashed",
    "AlarmDefinition",
    "AlarmSuperseded",
    "AlarmUnhandled",
    "ArgumentError",
    "BigInt",
    "BoundHandler",
    "BoundSyncHandler",
    "BusyObject",
    "CallCycle",
    "CallFailed",
    "CallTimeout",
    "Client",
    "Clock",
    "Cluster",
    "ClusterTLS",
    "CommitRefused",
    "Context",
    "Cron",
    "DeadMessage",
    "DefinitionError",
    "Durability",
    "DurableError",
    "DurableObject",
    "DurableRuntime",
    "Duration",
    "Every",
    "FieldDefinition",
    "ForeignHandle",
    "Handle",
    "Handler",
    "HandlerCancelled",
    "HandlerDefinition",
    "InlineRunner",
    "Instrument",
    "InvalidAlarm",
    "InvalidMessage",
    "InvalidObjectId",
    "InvalidOnceKey",
    "InvalidTenant",
    "LeftOut",
    "MailboxFull",
    "MemoryStorage",
    "Message",
    "MessageCounts",
    "Missed",
    "NoRuntime",
    "Node",
    "NotInTurn",
    "NotOnHandle",
    "ObanScheduler",
    "ObjectDefinition",
    "ObjectKey",
    "ObjectNotRunning",
    "Objects",
    "OnceKeyReused",
    "OnceMessageDied",
    "OnceReplyUnreadable",
    "Options",
    "Outgoing",
    "OutsideMessage",
    "Overloaded",
    "OwnerLost",
    "PersistenceError",
    "ReadonlyViolation",
    "Recurrence",
    "RemoteError",
    "ReplyDecodeError",
    "ReplyError",
    "Retry",
    "Runner",
    "RuntimeClosed",
    "RuntimeStatistics",
    "SQLiteStorage",
    "SchemaTooNew",
    "SendFailed",
    "Snapshot",
    "StaleObject",
    "StateConflict",
    "StateDecodeError",
    "StateEncodeError",
    "StateTooLarge",
    "StateTooNew",
    "StatesPage",
    "Storage",
    "StorageError",
    "StorageInUse",
    "StorageMoved",
    "StorageUnavailable",
    "Tenant",
    "TenantDropped",
    "ThreadRunner",
    "TooManyMessages",
    "TurnInterrupted",
    "TurnTimeout",
    "TurnWontEnd",
    "UnknownHandler",
    "UnknownObjectType",
    "UpgradeDefinition",
    "UsageError",
    "WaitingMessage",
    "Watch",
    "WatchInTurn",
    "Withdrawal",
    "WrongEventLoop",
    "alarm",
    "current_runtime",
    "definition_of",
    "handler",
    "stored_as",
    "upgrade",
]

_KEEP_THEIR_MODULE = {
    # Python resolves the annotations of users' classes in the namespaces of their bases' modules.
    "DurableObject",
    # Part of every pickled error, so its place is part of a format.
    "ObjectKey",
}


def _name_by_import() -> None:
    """Let reprs, tracebacks and pickles name what is public by the module users import it from."""
    for public_name in __all__:
        public = globals()[public_name]
        if public_name in _KEEP_THEIR_MODULE or not isinstance(public, (type, FunctionType)):
            continue
        if isinstance(public, type) and get_annotations(public):
            # Resolved while its module is still known, for these names are unknown in this one.
            hints = get_type_hints(public, include_extras=True)
            public.__annotations__ = {name: hints[name] for name in get_annotations(public)}
        public.__module__ = __name__


_name_by_import()


def __getattr__(name: str) -> object:
    # Not with the others, nor in __all__: the first needs psycopg, which is an extra, and the other
    # cattrs, which takes longer to import than the library.
    if name == "PostgresStorage":
        from .storage.postgres import PostgresStorage

        return PostgresStorage
    if name == "make_converter":
        from ._json.custom import make_converter

        make_converter.__module__ = __name__
        return make_converter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
