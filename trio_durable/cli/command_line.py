"""Command lines in messages, to be pasted into a shell as they are."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_ESCAPES = {"\\": "\\\\", "'": "\\'"}


def command_line(
    *words: str, storage: str | None = None, tenant: str | None = None, names: Sequence[str] = ()
) -> str:
    """A command line of ``trio-durable``.

    Args:
        words: The command with its own options.
        storage: The value of ``--storage``.
        tenant: The value of ``--tenant``; none without a name.
        names: The arguments, such as a type and an id. They may begin with ``-``.
    """
    where = [] if storage is None else ["-s", storage]
    whose = ["-t", tenant] if tenant else []
    end = ["--"] if any(name.startswith("-") for name in names) else []
    return quoted("trio-durable", *words, *where, *whose, *end, *names)


def quoted(*words: str) -> str:
    """Words for bash and zsh, all of whose characters are printable."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    return f"$'{''.join(map(_escaped, word))}'"


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    number = ord(character)
    # Above 7 bits, \\x would be a byte.
    return f"\\x{number:02x}" if number < 128 else f"\\U{number:08x}"
