"""A destination as delivery knows it: its address, what it wants, and who we are to it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from appliance.delivery.objects import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.dicom.web.stow import Access
    from appliance.hl7.routing import Routing
    from appliance.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class PacsNode:
    """A PACS that is spoken to over DICOM associations.

    Attributes
    ----------
    name
        Its name on this box.
    ae_title, address, port
        Where it listens, and the AE title it answers to.
    calling_ae
        The box's own AE title.
    kinds
        The kinds of objects it is sent.
    tls
        Our TLS files; ``None`` speaks plain TCP.
    timeout_s
        For connecting and for each answer.
    commitment
        Whether it is asked for storage commitment.
    commitment_timeout_s
        How long its report is waited for.
    """

    name: str
    ae_title: str
    address: str
    port: int
    calling_ae: str
    kinds: frozenset[Kind] = frozenset(Kind)
    tls: TlsFiles | None = None
    timeout_s: float = 60.0
    commitment: bool = False
    commitment_timeout_s: float = 1800.0

    def digest(self) -> str:
        """Return ``sha256:…`` over everything that a change of the configuration can mend."""
        tls = (
            None if self.tls is None else [str(self.tls.certificate), str(self.tls.private_key), str(self.tls.trusted)]
        )
        told = [self.ae_title, self.address, self.port, self.calling_ae, sorted(self.kinds), tls, self.timeout_s]
        return digest_of([*told, self.commitment_timeout_s] if self.commitment else told)


@dataclass(frozen=True, slots=True)
class DicomwebNode:
    """A PACS that is spoken to over DICOMweb.

    Attributes
    ----------
    name
        Its name on this box.
    access
        Its address and what opens it.
    kinds
        The kinds of objects it is sent.
    """

    name: str
    access: Access
    kinds: frozenset[Kind] = frozenset(Kind)

    def digest(self) -> str:
        """Return ``sha256:…`` over everything that a change of the configuration can mend, renewed files included."""
        access = self.access
        files = (access.secret_file, access.certificate, access.private_key, access.trusted)
        told = [access.url, access.username, access.timeout_s, sorted(self.kinds), [*map(_file_mark, files)]]
        return digest_of(told)


@dataclass(frozen=True, slots=True)
class Hl7Node:
    """A receiver of HL7 messages.

    Attributes
    ----------
    name
        Its name on this box.
    address, port
        Where it listens.
    routing
        How it wants its messages.
    tls
        Our TLS files; ``None`` speaks plain TCP.
    timeout_s
        For connecting and for the answer.
    """

    name: str
    address: str
    port: int
    routing: Routing
    tls: TlsFiles | None = None
    timeout_s: float = 30.0

    def digest(self) -> str:
        """Return ``sha256:…`` over everything that a change of the configuration can mend."""
        tls = self.tls
        files = () if tls is None else (tls.certificate, tls.private_key, tls.trusted)
        told = [self.address, self.port, *asdict(self.routing).values(), [*map(_file_mark, files)], self.timeout_s]
        return digest_of(told)


def digest_of(told: Sequence[object]) -> str:
    """Return ``sha256:…`` over settings."""
    return "sha256:" + hashlib.sha256(json.dumps(list(told)).encode()).hexdigest()


def _file_mark(path: Path | None) -> list[object] | None:
    """Return what changes when a file is replaced; never what is in it."""
    if path is None:
        return None
    try:
        return [str(path), path.stat().st_mtime_ns]
    except OSError:
        return [str(path), None]
