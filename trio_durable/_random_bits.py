"""Random numbers for tokens, epochs and claims: 62 bits from the operating system's generator.

Read in blocks. `os.urandom` is a system call, which on virtual machines can take longer than all
else that a turn does; a block costs as much as one number. No generator of the process is used,
since programs seed `random`, and two runs with one seed would draw the same tokens.
"""

from __future__ import annotations

import os
import struct

_BLOCK = struct.Struct("512Q")
_numbers: list[int] = []


def random_bits() -> int:
    """A random number of 62 bits, which fits a signed integer of SQL. May be called in threads."""
    while True:
        try:
            return _numbers.pop()
        except IndexError:
            _numbers.extend(n >> 2 for n in _BLOCK.unpack(os.urandom(_BLOCK.size)))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    # A forked process would draw what its parent draws.
    os.register_at_fork(after_in_child=_numbers.clear)
