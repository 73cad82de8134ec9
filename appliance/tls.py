"""TLS, for the DICOM port as for the broker mutual: both sides show a certificate, or there is no link (BCP 195)."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Protocol

from appliance.errors import ConfigurationError
from appliance.secret_files import require_private

if TYPE_CHECKING:
    from pathlib import Path


class TlsFiles(Protocol):
    """The three PEM files of one side; :class:`appliance.config.TlsSettings` is one."""

    @property
    def certificate(self) -> Path:
        """Certificate chain of this side."""

    @property
    def private_key(self) -> Path:
        """Its private key, which nobody else may read."""

    @property
    def trusted(self) -> Path:
        """Certificates that the other side must chain to."""


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a context that accepts only clients whose certificate chains to ``files.trusted``.

    Raises
    ------
    ConfigurationError
        A file cannot be read or does not hold what it should, or others may read the private key.
    """
    return _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files)


def page_context(certificate: Path, private_key: Path, trusted: Path | None) -> ssl.SSLContext:
    """Return a context for browsers, which show a certificate of their own only where ``trusted`` is given.

    Raises
    ------
    ConfigurationError
        As in :func:`server_context`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_own(context, certificate, private_key)
    if trusted is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_trusted(context, trusted)
    return context


def client_context(files: TlsFiles, *, compare_host_name: bool) -> ssl.SSLContext:
    """Return a context that accepts only servers whose certificate chains to ``files.trusted``.

    Parameters
    ----------
    files
        Our side.
    compare_host_name
        Whether the certificate must also name the host that was called. DICOM nodes are addressed by IP address and
        their certificates rarely name it, so there the chain alone decides; keep ``trusted`` to the site's own
        authority.

    Raises
    ------
    ConfigurationError
        As in :func:`server_context`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = compare_host_name
    return _load(context, files)


def _load(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    _load_own(context, files.certificate, files.private_key)
    _load_trusted(context, files.trusted)
    return context


def _load_own(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    try:
        context.load_cert_chain(certificate, private_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"TLS: {certificate} and {private_key} cannot be used as certificate and key: {error}"
        ) from error
    # Checked second, so that of files that are missing altogether the certificate is named.
    require_private(private_key)


def _load_trusted(context: ssl.SSLContext, trusted: Path) -> None:
    try:
        context.load_verify_locations(trusted)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"TLS: {trusted} cannot be used as trusted certificates: {error}") from error


def https_context(trusted: Path | None, certificate: Path | None, private_key: Path | None) -> ssl.SSLContext:
    """Return a context for HTTPS: the server must name the host that was called and chain to an authority.

    Parameters
    ----------
    trusted
        PEM file with the authorities; ``None`` takes the operating system's.
    certificate, private_key
        What is shown when the server asks for a certificate; both or neither.

    Raises
    ------
    ConfigurationError
        As in :func:`server_context`.
    """
    try:
        context = ssl.create_default_context(cafile=trusted)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"TLS: {trusted} cannot be used as trusted certificates: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None and private_key is not None:
        _load_own(context, certificate, private_key)
    return context
