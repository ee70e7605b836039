"""``python -m trio_durable`` is the command ``trio-durable``."""

from .cli import main

main()
