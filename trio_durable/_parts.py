"""Which classes a runtime is made of: plain ones, or if it has instruments, those that tell them.

They are chosen when the runtime opens, so that a runtime without instruments does not so much as
look whether it has any: a call would have to, several times, and there are some 8 µs in one. The
price is that instruments can't be attached later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import attrs

from ._activations.directory import Directory
from ._activations.services import Services
from ._api.durable_object import ObjectDefinition
from ._eventloop.timeouts import Deadlines
from ._instrumented.directory import InstrumentedDirectory
from ._telemetry.notifier import Notifier


@attrs.frozen
class Parts:
    """How to make those parts of a runtime that instruments make a difference to."""

    notifier: Notifier | None
    directory: Callable[[ObjectDefinition, Services, Deadlines, float | None, int], Directory]


PLAIN = Parts(None, Directory)


def instrumented(telemetry: Notifier) -> Parts:
    """The parts that tell what they do. An object's activation comes from its directory."""
    return Parts(telemetry, partial(InstrumentedDirectory, telemetry))
