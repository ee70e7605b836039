"""TLS between the members of a cluster, each of which shows a certificate."""

from __future__ import annotations

import os
import ssl

import attrs


@attrs.frozen(kw_only=True)
class ClusterTLS:
    """Certificates for the connections between the processes of a cluster.

    Each process shows its certificate to the other one, and accepts those that the authority has
    signed. The name or address by which a process is dialled, see ``Cluster.advertise``, must be in
    its certificate.

    Args:
        certificate: The file with this process' certificate, and those in between, as PEM.
        key: The file with its private key, as PEM.
        authority: The file with the certificates of the authority, as PEM.
        password: The password of the private key; None if it has none.
    """

    certificate: str | os.PathLike[str]
    key: str | os.PathLike[str]
    authority: str | os.PathLike[str]
    password: str | None = attrs.field(default=None, repr=False)

    def client_context(self) -> ssl.SSLContext:
        """The context for dialling.

        Raises:
            OSError: A file can't be read, or isn't what it should be; `ssl.SSLError` is one.
        """
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def server_context(self) -> ssl.SSLContext:
        """The context for accepting connections.

        Raises:
            OSError: See `client_context`.
        """
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.certificate, self.key, self.password)
        context.load_verify_locations(cafile=self.authority)
        return context
