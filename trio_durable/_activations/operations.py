"""Operations: what a runtime does to an object at its user's request, in a turn of the object.

Each is named and takes plain arguments, so that a request can be described, and sent elsewhere.
"""

from __future__ import annotations

from typing import Any

from .activation import STOP as STOP
from .activation import Activation
from .envelope import Operation


def _ensure_started(activation: Activation) -> None:
    # To be served, the request needs the instance.
    activation.state.autostart(activation.wall_time())


def _get_state(activation: Activation) -> Any:
    return activation.state.read()


def _put_state(activation: Activation, encoded: bytes) -> None:
    activation.write_state(encoded)


def _replace_state(
    activation: Activation, encoded: bytes, revision: int, digest: str | None
) -> bool:
    return activation.replace_state(encoded, revision, digest)


def _rewrite(activation: Activation, revision: int, epoch: int, row: bytes | None) -> None:
    activation.rewrite(revision, epoch, row)


def _exists(activation: Activation) -> bool:
    return activation.state.is_stored


def _delete(activation: Activation) -> None:
    activation.state.delete()


ENSURE_STARTED = Operation("ensure_started", _ensure_started, needs_instance=True)
GET_STATE = Operation("get_state", _get_state, saves=False)
PUT_STATE = Operation("put_state", _put_state)
REPLACE_STATE = Operation("put_state", _replace_state)
REWRITE = Operation("rewrite", _rewrite)
EXISTS = Operation("exists", _exists, saves=False)
DELETE = Operation("delete", _delete)
