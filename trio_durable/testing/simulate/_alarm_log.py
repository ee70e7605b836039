"""Errors of alarm handlers, taken from the log: no caller gets them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def alarm_errors() -> Iterator[list[BaseException]]:
    """Collect the errors of alarm handlers in a list instead of the log."""
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
