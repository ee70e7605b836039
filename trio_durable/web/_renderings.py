"""Renderings: the bytes that views make of snapshots, each once for all streams that show it.

A rendering is found by its view and its snapshot, which are compared by value, and exists while a
stream shows it. So ten thousand streams of one object share one text, and nothing is kept of
states that no stream shows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import blake2b
from typing import TypeAlias, TypeVar
from weakref import WeakValueDictionary

import attrs
import orjson

from .._api.durable_object import DurableObject
from .._api.snapshot import Snapshot

T = TypeVar("T", bound=DurableObject)

View: TypeAlias = Callable[[Snapshot[T]], object]

logger = logging.getLogger("trio_durable.web")


@attrs.frozen(eq=False)
class Rendering:
    """The text of one snapshot."""

    data: bytes | None
    """The text; None if the view or the decoding of the state has failed."""
    token: str
    """The revision and a digest of the text and the object, compared for equality only.

    The digest is needed, since an object that was deleted and made again, or a restored backup, may
    have the same revision with another state.
    """


_renderings: WeakValueDictionary[tuple[object, object], Rendering] = WeakValueDictionary()


def rendering(view: View[T], snapshot: Snapshot[T]) -> Rendering:
    """The rendering of a snapshot, which the first caller makes.

    A failure is logged, once while streams show it.
    """
    known = _renderings.get((view, snapshot))
    if known is not None:
        return known
    made = _render(view, snapshot)
    _renderings[view, snapshot] = made
    return made


def token_of_failure(revision: int) -> str:
    """The token of a revision that can't be shown. It equals none of a state."""
    return f"{revision}-"


def revision_of(token: str) -> int:
    """The revision in a token that a client has sent; 0 if it is none."""
    revision = token.partition("-")[0]
    is_number = revision.isascii() and revision.isdecimal() and len(revision) < 20
    return int(revision) if is_number else 0


def _render(view: View[T], snapshot: Snapshot[T]) -> Rendering:
    try:
        shown = view(snapshot)
        data = shown.encode() if isinstance(shown, str) else orjson.dumps(shown)
    except Exception:
        logger.exception("%r can't be shown: its view has failed", snapshot)
        return Rendering(None, token_of_failure(snapshot.revision))
    digest = blake2b(data, digest_size=8)
    digest.update(str(snapshot.key).encode())
    return Rendering(data, f"{snapshot.revision}-{digest.hexdigest()}")
