"""Node note: a file beside an SQLite database in which the owner says where it can be reached.

Only the owner of the database's lock writes it, by renaming, once it listens. So a reader finds the
note of the present owner, of an earlier one, or none; which it is shows when it calls the address.
The note holds the secret that both sides of a connection prove, so it has the mode 0600: processes
of other users aren't members.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import attrs

_MOST_BYTES = 65_536


class UnreadableNote(Exception):
    """There is a note that can't be read, or isn't one."""


@attrs.frozen
class NodeNote:
    """The owner of a file."""

    node: str
    """The id of its runtime, which no other runtime ever has."""
    host: str
    pid: int
    address: str
    secret: str
    """Hexadecimal."""
    is_shared: bool = True
    """False for a runtime that isn't in a cluster, and is reached by commands only."""


def note_beside(database: Path) -> Path:
    """The path of the note of a database file."""
    return database.with_name(f"{database.name}-node")


def write_note(path: Path, note: NodeNote) -> None:
    """Write a note in place of another one. The caller has the lock of the database.

    Raises:
        OSError: The folder can't be written.
    """
    # One name for all owners, so that one that is killed here leaves nothing for ever.
    written = path.with_name(f"{path.name}-new")
    written.unlink(missing_ok=True)
    fd = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(attrs.asdict(note), file)
        os.replace(written, path)
    except BaseException:
        with contextlib.suppress(OSError):
            written.unlink()
        raise


def read_note(path: Path) -> NodeNote | None:
    """The note at a path; None if there is none.

    Raises:
        UnreadableNote: It can't be read.
    """
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_MOST_BYTES))
        fields = {field.name: data[field.name] for field in attrs.fields(NodeNote)[:-1]}
        note = NodeNote(**fields, is_shared=data.get("is_shared", True))
        bytes.fromhex(note.secret)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableNote(f"{path} can't be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UnreadableNote(f"{path} isn't the note of a runtime") from error
    is_right = isinstance(note.pid, int) and isinstance(note.is_shared, bool)
    if not (is_right and all(type(part) is str for part in _texts(note))):
        raise UnreadableNote(f"{path} isn't the note of a runtime")
    return note


def _texts(note: NodeNote) -> tuple[object, ...]:
    return note.node, note.host, note.address, note.secret


def is_noted_at(path: Path, node: str) -> bool:
    """True if the note at a path is that of a runtime."""
    try:
        note = read_note(path)
    except UnreadableNote:
        return False
    return note is not None and note.node == node


def remove_note(path: Path, node: str) -> None:
    """Remove a runtime's own note, before it gives up the lock. Never raises."""
    if is_noted_at(path, node):
        with contextlib.suppress(OSError):
            path.unlink()
