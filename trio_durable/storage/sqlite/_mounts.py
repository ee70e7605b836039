"""Mounted file systems, from Linux's table of mounts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

TABLE = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mounted file system."""

    point: Path
    """The path at which it is mounted; for a bind mount of one file, the path of that file."""
    kind: str
    """The type of the file system, such as ``ext4`` or ``fuse.sshfs``."""


def mount_of(path: Path, table: Path = TABLE) -> Mount | None:
    """The file system of an absolute path without symbolic links.

    Returns:
        None on other systems than Linux, or if the table can't be read.
    """
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    found = None
    for line in lines:
        # See proc(5): the mount point is the fifth field, and the type follows a lone hyphen.
        fields = line.split(" ")
        try:
            point, kind = Path(_unescaped(fields[4])), fields[fields.index("-") + 1]
        except (IndexError, ValueError):
            continue
        # Of several mounts at one point, the last is in effect.
        is_nearer = found is None or len(point.parts) >= len(found.point.parts)
        if is_nearer and path.is_relative_to(point):
            found = Mount(point, kind)
    return found


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
