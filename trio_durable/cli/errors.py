"""Errors that end a command with one line on standard error."""

from __future__ import annotations

import errno
import os

import click


class CommandError(click.ClickException):
    """Bad input, or a situation in which the command can't work. Nothing was changed.

    Args:
        message: One line: the problem, then the remedy.
    """

    exit_code = 2


_NO_PERMISSION = "permission denied; ask for access, or choose another place"
_DESCRIPTIONS = {
    errno.EACCES: _NO_PERMISSION,
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EEXIST: "it already exists; choose another name, or move it away",
    errno.EISDIR: "it is a folder; name a file in it",
    errno.ELOOP: "its symbolic links form a loop; check them",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.ENOSPC: "the disk is full; free some space",
    errno.ENOTDIR: "a part of the path is a file, not a folder; check the path",
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: "the file system is read-only; choose another place",
}


def describe_os_error(error: OSError) -> str:
    """The problem and its remedy, after the path if the error has one."""
    text = error.strerror or str(error)
    # Python code raises such errors, too, with a text of its own that says more.
    if error.errno in _DESCRIPTIONS and text == os.strerror(error.errno):
        text = _DESCRIPTIONS[error.errno]
    return text if error.filename is None else f"{error.filename}: {text}"
