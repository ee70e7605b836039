"""Endpoint: where a member of a cluster listens, and the address by which others find it."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path
from uuid import uuid4

import attrs

from .._errors import StorageUnavailable
from .._text import error_summary
from .address import (
    Address,
    Listening,
    TCPAddress,
    listen,
    local_address,
    parse_address,
)
from .settings import Cluster

_ANY_HOST = {"0.0.0.0", "::", "*"}  # noqa: S104  # to be refused


@attrs.frozen
class Endpoint:
    """Where a member listens, and the address by which others find it."""

    listening: Listening
    address: str
    server_tls: ssl.SSLContext | None
    """Encrypts the connections that it accepts; None without TLS."""
    client_tls: ssl.SSLContext | None
    """Encrypts those that it dials, likewise."""


def check_addresses(settings: Cluster) -> None:
    """Check where a member listens, before anything is opened.

    Raises:
        ValueError: Others can't reach it there, or the connections would be open to all.
    """
    listen_at = None if settings.listen is None else parse_address(settings.listen)
    advertised = None if settings.advertise is None else parse_address(settings.advertise)
    if advertised is not None and listen_at is None:
        raise ValueError("advertise needs listen, the address at which this process listens")
    if isinstance(listen_at, TCPAddress) and listen_at.host in _ANY_HOST and advertised is None:
        raise ValueError(
            f"listen={settings.listen!r} is no address that others can call; give "
            "advertise='tcp://HOST:PORT', too"
        )
    for address in (listen_at, advertised):
        if (
            isinstance(address, TCPAddress)
            and not address.is_loopback
            and settings.tls is None
            and not settings.insecure
        ):
            raise ValueError(
                f"{address} can be reached from other machines, and calls would cross the network "
                "in the clear; give tls=ClusterTLS(…), or insecure=True if the network encrypts"
            )


async def begin_to_listen(settings: Cluster, location: str) -> Endpoint:
    """Listen where the settings say. Certificates are read once, here.

    Args:
        settings: The user's.
        location: The storage, for messages.

    Raises:
        StorageUnavailable: The address can't be had, or a certificate can't be read.
    """
    server_tls = client_tls = None
    address: Address
    if settings.listen is None:
        address = local_address(Path(tempfile.gettempdir(), f"trio-durable-{uuid4().hex}.sock"))
    else:
        address = parse_address(settings.listen)
    try:
        if settings.tls is not None:
            server_tls, client_tls = settings.tls.server_context(), settings.tls.client_context()
        listening = await listen(address)
    except OSError as error:
        problem = f"can't listen at {address} ({error_summary(error)})"
        raise StorageUnavailable(location, problem) from error
    advertised = settings.advertise or str(listening.address)
    return Endpoint(listening, advertised, server_tls, client_tls)
