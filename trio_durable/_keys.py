"""What names an object."""

from __future__ import annotations

from typing import NamedTuple

import attrs

MAX_ID_BYTES = 512


@attrs.frozen
class ObjectKey:
    """The identity of a durable object: its stored type name and its id."""

    type_name: str
    object_id: str

    def __str__(self) -> str:
        return f"{self.type_name}({self.object_id!r})"

    def alarm(self, name: str) -> AlarmKey:
        """The identity of the object's alarm of that name."""
        return AlarmKey(self.type_name, self.object_id, name)


class AlarmKey(NamedTuple):
    """The identity of an alarm: its object's, and its name.

    A plain tuple, because the timing wheel hashes several of them for each alarm.
    """

    type_name: str
    object_id: str
    name: str

    @property
    def object_key(self) -> ObjectKey:
        """Whose alarm it is."""
        return ObjectKey(self.type_name, self.object_id)

    def __str__(self) -> str:
        return f"{self.name} of {self.object_key}"


def id_problem(object_id: object) -> str | None:
    """Say why ``object_id`` can't be an id, or return None."""
    if not isinstance(object_id, str):
        return f"it is of type {type(object_id).__name__}"
    if not object_id:
        return "it is empty"
    if "\0" in object_id:
        return "it contains NUL"
    if len(object_id) * 4 > MAX_ID_BYTES:
        try:
            size = len(object_id.encode())
        except UnicodeEncodeError:
            return "it contains a lone surrogate"
        if size > MAX_ID_BYTES:
            return f"it takes {size} bytes"
    elif not object_id.isascii() and not _encodable(object_id):
        return "it contains a lone surrogate"
    return None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
