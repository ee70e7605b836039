"""Files that commands read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from .refusal import Refusal


@contextmanager
def input_file(name: str) -> Iterator[BinaryIO]:
    """The file of that name; standard input, if it is ``-``.

    Raises:
        Refusal: There is no such file.
        OSError: It can't be read.
    """
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(name, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise Refusal(f"{name}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise Refusal(f"{name}: it is a folder; name a file in it") from None
    with file:
        yield file
