"""What the handlers of alarms raise, which nobody hears of but the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def alarm_errors() -> Iterator[list[BaseException]]:
    """Collect in a list, instead of in the log, what goes wrong with alarms."""
    errors: list[BaseException] = []
    logger = logging.getLogger("trio_durable.alarms")

    def take(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            errors.append(record.exc_info[1])
        return False

    logger.addFilter(take)
    try:
        yield errors
    finally:
        logger.removeFilter(take)
