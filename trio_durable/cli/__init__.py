"""The command ``trio-durable``; ``docs/cli.md`` shows all of it.

It is built on click and rich, which come with the extra ``cli``: the library itself needs neither.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command that this process was called with, and exit with its status."""
    try:
        from .application import application
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(
            f"trio-durable: the command line needs {error.name}, which isn't installed; run: "
            "pip install 'trio-durable[cli]'\n"
        )
        sys.exit(2)
    sys.exit(application.main(prog_name=application.name))
