"""The command ``trio-durable``, described in ``docs/cli.md``.

It is built on click and rich, which the extra ``cli`` installs. The library itself needs neither.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command with the arguments of this process, and exit with its status."""
    try:
        from .application import application
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("click", "rich"):
            raise
        sys.stderr.write(
            f"trio-durable: the command line needs {package}, which isn't installed; run: "
            "pip install 'trio-durable[cli]'\n"
        )
        sys.exit(2)
    sys.exit(application.main(prog_name=application.name))
