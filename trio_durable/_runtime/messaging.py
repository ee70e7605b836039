"""Messaging: the parts of an open runtime that have messages and once-keys.

Imported by runtimes whose storage keeps messages, since it takes long to import.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from .._activations.calls import LocalCalls
from .._activations.object_type import ObjectType
from .._activations.once_runs import OnceRuns
from .._activations.services import Services
from .._cluster.handles import Handles
from .._keys import ObjectKey
from .._once.cleaning import Cleaning
from .._once.codecs import OnceCodecs
from .._once.once_calls import OnceCalls
from .._outbox.composing import Composer
from .._outbox.message_codec import MessageCodecs
from .._outbox.outbox import Outbox
from .sides import Sides


class Messaging:
    """Messages and once-keys of one runtime.

    Args:
        services: The runtime's parts.
        sides: The storage.
        calls: Returns the calls of a type's objects, by its stored name.
        handles: The handles of the runtime.
        type_of: The object type of a class, or of a stored name.
        is_here: False if an object lives in another process.
        hint: Lets the process with an object know that messages wait for it.
        polling_interval: Seconds between looks at the messages that sleep.
        location: The storage, for errors.
    """

    def __init__(
        self,
        services: Services,
        sides: Sides,
        calls: Callable[[str], LocalCalls],
        handles: Handles,
        type_of: Callable[[type | str], ObjectType],
        is_here: Callable[[ObjectKey], bool],
        hint: Callable[[ObjectKey], Awaitable[None]],
        polling_interval: float,
        location: str,
    ) -> None:
        codecs, once_codecs = MessageCodecs(handles), OnceCodecs(handles)
        runner, reader = sides.reading.runner, sides.reader
        self.once_runs: OnceRuns = OnceRuns(services, runner, reader, once_codecs.of, location)
        self.outbox: Outbox = Outbox(
            services,
            runner,
            reader,
            calls,
            is_here,
            hint,
            codecs,
            Composer(codecs, type_of),
            self.once_runs,
            polling_interval,
            location,
        )
        self.once_calls: OnceCalls = OnceCalls(services, self.once_runs, once_codecs, self.outbox)
        self.cleaning: Cleaning = Cleaning(services.clock, services.group_commit, runner, reader)
