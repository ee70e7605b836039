"""Settings of the `Cluster` of a runtime that a command opens: options, and their environment.

A container has the settings of its process in the environment. So a command that joins the cluster
from within that container, as a client, needs no options for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from .._cluster.settings import DEFAULT_GROUP, DEFAULT_TTL, Cluster
from .._cluster.tls import ClusterTLS
from .errors import CommandError
from .options import Seconds


def _option(name: str, help: str, **settings: Any) -> Callable[[Any], Any]:  # noqa: A002
    settings.setdefault("show_default", "default" in settings)
    return click.option(name, envvar=_variable(name), show_envvar=True, help=help, **settings)


def _variable(option: str) -> str:
    return f"TRIO_DURABLE_{option.removeprefix('--').upper().replace('-', '_')}"


_OPTIONS = (
    _option("--listen", "Where other processes call this one.", metavar="ADDRESS"),
    _option("--advertise", "Where they reach it, if not there.", metavar="ADDRESS"),
    _option("--tls-certificate", "Certificate of this process, as PEM.", metavar="FILE"),
    _option("--tls-key", "Its private key, as PEM.", metavar="FILE"),
    _option("--tls-authority", "Authority of all certificates, as PEM.", metavar="FILE"),
    _option("--insecure", "Allow TCP without TLS beyond this machine.", is_flag=True),
    _option("--group", "Members that share objects.", metavar="NAME", default=DEFAULT_GROUP),
    _option(
        "--ttl",
        "Seconds of silence until others take over.",
        type=Seconds(0.001),
        default=DEFAULT_TTL,
    ),
    _option(
        "--release",
        "Number of the app's release, which grows.",
        type=click.IntRange(0),
        default=0,
    ),
)


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a process that serves. The function gets the settings as ``cluster``."""

    @wraps(function)
    def command(
        *args: Any,
        tls_certificate: str | None,
        tls_key: str | None,
        tls_authority: str | None,
        listen: str | None,
        advertise: str | None,
        insecure: bool,
        group: str,
        ttl: float,
        release: int,
        **kwargs: Any,
    ) -> Any:
        try:
            cluster = Cluster(
                listen=listen,
                advertise=advertise,
                tls=_tls(tls_certificate, tls_key, tls_authority),
                insecure=insecure,
                group=group,
                ttl=ttl,
                release=release,
            )
        except ValueError as error:
            raise CommandError(str(error)) from error
        return function(*args, cluster=cluster, **kwargs)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def client_group() -> str | None:
    """The group that the environment names."""
    return os.environ.get(_variable("--group")) or None


def client_tls() -> ClusterTLS | None:
    """The certificates that the environment names.

    Raises:
        CommandError: Some are missing.
    """
    names = ("--tls-certificate", "--tls-key", "--tls-authority")
    return _tls(*(os.environ.get(_variable(name)) for name in names))


def _tls(certificate: str | None, key: str | None, authority: str | None) -> ClusterTLS | None:
    if certificate and key and authority:
        return ClusterTLS(certificate=certificate, key=key, authority=authority)
    if certificate or key or authority:
        raise CommandError("TLS needs all of --tls-certificate, --tls-key and --tls-authority")
    return None
