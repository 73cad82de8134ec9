"""Mutual TLS for DICOM (PS3.15 Annex B.12, BCP 195): both sides show a certificate, or there is no link."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Protocol

from appliance.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


class TlsFiles(Protocol):
    """The three PEM files of one side; :class:`appliance.config.TlsSettings` is one."""

    @property
    def certificate(self) -> Path:
        """Certificate chain of this side."""

    @property
    def private_key(self) -> Path:
        """Its private key."""

    @property
    def trusted(self) -> Path:
        """Certificates that the other side must chain to."""


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a context that accepts only clients whose certificate chains to ``files.trusted``.

    Raises
    ------
    ConfigurationError
        A file cannot be read or does not hold what it should.
    """
    return _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a context that accepts only servers whose certificate chains to ``files.trusted``.

    DICOM nodes are addressed by IP address and their certificates rarely name it, so the chain decides and the
    host name is not compared; keep ``trusted`` to the site's own authority.

    Raises
    ------
    ConfigurationError
        A file cannot be read or does not hold what it should.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return _load(context, files)


def _load(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(files.certificate, files.private_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"TLS: {files.certificate} and {files.private_key} cannot be used as certificate and key: {error}"
        ) from error
    try:
        context.load_verify_locations(files.trusted)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"TLS: {files.trusted} cannot be used as trusted certificates: {error}") from error
    return context
