"""Reads what the box needs of its own X.509 certificate: the subject's common name and the last day.

The standard library loads certificates but shows only the peer's; this walks the DER encoding (ITU-T X.690).
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from appliance.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_COMMON_NAME = bytes.fromhex("550403")  # 2.5.4.3, id-at-commonName (RFC 5280, appendix A.1)
_VERSION = 0xA0  # [0] EXPLICIT, absent in version 1 certificates
_UTC_TIME = 0x17
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
        certificate = _parse(ssl.PEM_cert_to_DER_cert(block.group()))
    except (ValueError, IndexError, StopIteration) as error:
        raise ConfigurationError(f"{path}: the certificate is damaged") from error
    if not _NAME.fullmatch(certificate.common_name):
        raise ConfigurationError(
            f"{path}: the common name {certificate.common_name!r} cannot name a box; "
            "letters, digits, '.', '_' and '-' are allowed, at most 64"
        )
    return certificate


def _parse(der: bytes) -> Certificate:
    # RFC 5280, 4.1: version, serialNumber, signature, issuer, validity, subject, …
    _, certificate = next(_elements(der))
    _, to_be_signed = next(_elements(certificate))
    fields = [element for element in _elements(to_be_signed) if element[0] != _VERSION]
    validity, subject = fields[3][1], fields[4][1]
    return Certificate(_common_name(subject), _not_after(validity))


def _common_name(subject: bytes) -> str:
    for _, attributes in _elements(subject):
        for _, attribute in _elements(attributes):
            (_, kind), (_, value) = _elements(attribute)
            if kind == _COMMON_NAME:
                return value.decode()
    return ""


def _not_after(validity: bytes) -> datetime:
    _, (tag, value) = _elements(validity)
    # RFC 5280, 4.1.2.5.1: two-digit years below 50 are in this century.
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element of a DER sequence."""
    place = 0
    while place < len(data):
        tag, length = data[place], data[place + 1]
        place += 2
        if length >= 0x80:
            octets = length & 0x7F
            length = int.from_bytes(data[place : place + octets])
            place += octets
        if place + length > len(data):
            raise ValueError("an element ends after its sequence")
        yield tag, data[place : place + length]
        place += length
