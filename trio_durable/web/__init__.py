"""Durable objects behind HTTP: statuses of errors.

`http_status` says how to answer a request whose call has raised. The module imports no framework.
"""

from ._statuses import ErrorStatus, http_status

__all__ = [
    "ErrorStatus",
    "http_status",
]
