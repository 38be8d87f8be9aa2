"""The gateway's own certificates: TLS 1.2 or newer on every port, rotated without a restart.

Files are looked at before each handshake. A pair that does not fit together, or an authority file
that holds none, is not used: the last good one stays, and `guard_reload_failures_total` counts.
Connections that are up keep what they began with, until `max_connection_age`.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
from cryptography import x509

from guard import metrics
from guard.config.access import ServerTls
from guard.errors import ConfigError
from guard.gateway.watched import Watched, read


@dataclass(frozen=True)
class Certificates:
    """One consistent state of the files."""

    chain: bytes  # PEM, the gateway's own first
    key: bytes  # PEM
    authorities: bytes | None  # PEM; None: clients show no certificates
    expires: datetime
    context: ssl.SSLContext  # the same for the pages

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """The same for gRPC."""
        return grpc.ssl_server_certificate_configuration(
            ((self.key, self.chain),), self.authorities
        )


def watched_certificates(tls: ServerTls) -> Watched[Certificates] | None:
    """The certificates of these settings, None without TLS. Raises ConfigError."""
    if not tls.cert:
        return None
    paths = (tls.cert, tls.key, tls.client_ca)
    return Watched("certificates", paths, lambda: read_certificates(tls))


def read_certificates(tls: ServerTls) -> Certificates:
    """The files as they are now; ConfigError where they cannot serve."""
    chain, key = read(tls.cert, "gateway.tls.cert"), read(tls.key, "gateway.tls.key")
    authorities = read(tls.client_ca, "gateway.tls.client_ca") if tls.client_ca else None
    context = _context(tls, authorities)
    if (read(tls.cert, "gateway.tls.cert"), read(tls.key, "gateway.tls.key")) != (chain, key):
        raise ConfigError("gateway.tls: the files changed while they were read", key="gateway.tls")
    try:
        expires = x509.load_pem_x509_certificates(chain)[0].not_valid_after_utc
    except ValueError as error:
        setting = "gateway.tls.cert"
        raise ConfigError(f"{setting}: {tls.cert} is no valid certificate", key=setting) from error
    metrics.CERTIFICATE_EXPIRY.set(expires.timestamp())
    return Certificates(chain, key, authorities, expires, context)


def server_credentials(certificates: Watched[Certificates]) -> grpc.ServerCredentials:
    """For `add_secure_port`; asks `certificates` before every handshake."""
    current = certificates.get()
    given = [current]

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        newest = certificates.get()
        if newest is given[0]:
            return None
        given[0] = newest
        return newest.configuration()

    return grpc.dynamic_ssl_server_credentials(
        current.configuration(), fetch, current.authorities is not None
    )


def expired(certificates: Certificates) -> bool:
    """Whether clients will refuse the gateway's own certificate now."""
    return certificates.expires < datetime.now(UTC)


def _context(tls: ServerTls, authorities: bytes | None) -> ssl.SSLContext:
    """OpenSSL's view of the files, which also finds out whether key and certificate are a pair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or "unreadable"
        text = f"gateway.tls: cert and key are no usable pair ({reason.replace('_', ' ').lower()})"
        raise ConfigError(text, key="gateway.tls") from error
    if authorities is not None:
        try:
            context.load_verify_locations(cadata=authorities.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            key = "gateway.tls.client_ca"
            raise ConfigError(f"{key}: {tls.client_ca} holds no certificate", key=key) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
