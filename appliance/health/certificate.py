"""Reads what the box needs of its own X.509 certificate: the subject's common name and the last day."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the box reads of its own certificate.

    Attributes
    ----------
    common_name
        Common name of the subject.
    not_after
        Last moment of its validity, UTC.
    """

    common_name: str
    not_after: datetime


def read(path: Path) -> Certificate:
    """Read the first certificate of a PEM file.

    Raises
    ------
    ConfigurationError
        The file cannot be read, is not a certificate, or its common name cannot be part of an MQTT topic.
    """
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise ConfigurationError(f"{path}: the certificate cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not a certificate in PEM form") from error
    block = _BLOCK.search(text)
    if block is None:
        raise ConfigurationError(f"{path}: not a certificate in PEM form")
    try:
        certificate = _parse(block.group())
    except ValueError as error:
        raise ConfigurationError(f"{path}: the certificate is damaged") from error
    if not _NAME.fullmatch(certificate.common_name):
        raise ConfigurationError(
            f"{path}: the common name {certificate.common_name!r} cannot name a box; "
            "letters, digits, '.', '_' and '-' are allowed, at most 64"
        )
    return certificate


def _parse(pem: str) -> Certificate:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    found = x509.load_pem_x509_certificate(pem.encode())
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Certificate(str(names[0].value) if names else "", found.not_valid_after_utc)
