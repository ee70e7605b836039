"""What a command raises when it won't do what it was asked."""

from __future__ import annotations

import errno
import os

import click


class CommandError(click.ClickException):
    """Bad input, or a state of things in which the command can't work; nothing was changed.

    Args:
        message: One line: what is wrong, then what to do.
    """

    exit_code = 2


_WORDS = {
    errno.EACCES: "the permission for it is missing; have it granted, or choose another place",
    errno.EDQUOT: "the quota is used up; make room",
    errno.EEXIST: "it is there already; choose another name, or move it away",
    errno.EISDIR: "it is a folder; name a file in it",
    errno.ELOOP: "its links lead in a circle; check where they lead",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.ENOSPC: "the disk is full; make room",
    errno.ENOTDIR: "a part of the path is a file, and no folder; check the path",
    errno.EPERM: "the permission for it is missing; have it granted, or choose another place",
    errno.EROFS: "nothing can be written there; choose another place",
}


def describe_os_error(error: OSError) -> str:
    """What went wrong, with the path; in the words of whoever raised it if we have none."""
    text = error.strerror or str(error)
    # Others than the system raise such errors, too, and say more.
    if error.errno in _WORDS and text == os.strerror(error.errno):
        text = _WORDS[error.errno]
    return text if error.filename is None else f"{error.filename}: {text}"
