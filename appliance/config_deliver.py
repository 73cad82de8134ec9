"""The part of the settings tree that says where results go."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads it when the class is made
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from appliance.config_parts import AETitle, ObjectKind, Section, TlsSettings


class Destination(Section):
    """A PACS that results are sent to."""

    name: str = Field(title="Name used in logs and status", pattern=r"^[A-Za-z0-9._-]{1,32}$")
    ae_title: AETitle = Field(title="Its AE title")
    address: str = Field(title="Host name or IP address")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(104, title="TCP port")
    kinds: Annotated[tuple[ObjectKind, ...], Field(min_length=1)] = Field(
        ("capture", "seg", "sr"), title="Which of the objects that results.objects makes it is sent"
    )
    tls: TlsSettings | None = Field(None, title="Transport encryption of the connection to it")
    timeout_s: float = Field(60.0, title="For connecting to it and for each of its answers", ge=1, le=3600)
    commitment: bool = Field(
        False, title="Ask it for storage commitment; a scan is done only when it has confirmed every object"
    )
    commitment_timeout_s: float = Field(
        1800.0,
        title="How long its report of storage commitment is waited for before it is asked again",
        ge=1,
        le=604800,
    )


class DicomwebDestination(Section):
    """A PACS that results are sent to over DICOMweb (STOW-RS)."""

    name: str = Field(title="Name used in logs and status", pattern=r"^[A-Za-z0-9._-]{1,32}$")
    url: str = Field(title="Root of its DICOMweb service; /studies is added to it")
    kinds: Annotated[tuple[ObjectKind, ...], Field(min_length=1)] = Field(
        ("capture", "seg", "sr"), title="Which of the objects that results.objects makes it is sent"
    )
    username: str | None = Field(None, title="User name, where it wants basic authentication", pattern=r"^[^:]+$")
    secret_file: Path | None = Field(
        None,
        title="File with the bearer token, or with the password of username; mode 0600, or a systemd credential",
        validate_default=True,
    )
    certificate: Path | None = Field(None, title="PEM file with this box's certificate, where it asks for one")
    private_key: Path | None = Field(None, title="PEM file with its key, mode 0600", validate_default=True)
    trusted: Path | None = Field(
        None, title="PEM file with the authorities that its certificate must chain to; those of the system when absent"
    )
    allow_http: bool = Field(False, title="Allow http://, which shows patients to the network", validate_default=True)
    timeout_s: float = Field(60.0, title="For connecting to it and for each of its answers", ge=1, le=3600)

    @field_validator("url")
    @classmethod
    def _url_is_a_root(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            raise ValueError(f"{url!r} is no address such as https://pacs.example/dicom-web")
        if parts.username is not None or parts.password is not None:
            raise ValueError("user and password do not belong into the address: use username and secret_file")
        if parts.query or parts.fragment:
            raise ValueError(f"{url!r} must end with the path: nothing after ? or #")
        if parts.path.rstrip("/").endswith("/studies"):
            raise ValueError(f"{url!r} must be the root of the service: leave out /studies, which is added to it")
        return url.rstrip("/")

    @field_validator("secret_file")
    @classmethod
    def _user_has_a_password(cls, secret_file: Path | None, others: ValidationInfo) -> Path | None:
        if others.data.get("username") is not None and secret_file is None:
            raise ValueError("username is set and there is no file with its password")
        return secret_file

    @field_validator("private_key")
    @classmethod
    def _key_has_a_certificate(cls, private_key: Path | None, others: ValidationInfo) -> Path | None:
        if (others.data.get("certificate") is None) != (private_key is None):
            raise ValueError("certificate and private_key belong together: give both or neither")
        return private_key

    @field_validator("allow_http")
    @classmethod
    def _http_is_allowed(cls, allow_http: bool, others: ValidationInfo) -> bool:
        if str(others.data.get("url", "")).startswith("http://") and not allow_http:
            raise ValueError("url begins with http://, which is not encrypted: use https://, or set allow_http = true")
        return allow_http


class Hl7Destination(Section):
    """An information system that is told results and alerts by HL7 v2 over MLLP."""

    name: str = Field(title="Name used in logs and status", pattern=r"^[A-Za-z0-9._-]{1,32}$")
    address: str = Field(title="Host name or IP address")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(2575, title="TCP port")
    sends: Annotated[tuple[Literal["results", "alerts"], ...], Field(min_length=1)] = Field(
        ("results", "alerts"), title="What it is told: the result of each scan, and alerts"
    )
    version: Literal["2.5.1", "2.3.1"] = Field("2.5.1", title="Version of HL7 that it takes")
    character_set: Literal["UTF-8", "GB18030"] = Field("UTF-8", title="Character set of the messages, told in MSH-18")
    sending_application: str = Field("APPLIANCE", title="MSH-3", max_length=180)
    sending_facility: str = Field("", title="MSH-4; empty takes box.name", max_length=180)
    receiving_application: str = Field("", title="MSH-5", max_length=180)
    receiving_facility: str = Field("", title="MSH-6", max_length=180)
    tls: TlsSettings | None = Field(None, title="Transport encryption of the connection to it")
    timeout_s: float = Field(30.0, title="For connecting to it and for its answer", ge=1, le=3600)


class DeliverSettings(Section):
    """Where results go."""

    destinations: tuple[Destination, ...] = Field(
        (), title="Where result objects are sent with C-STORE; without any destination they stay on the box"
    )
    dicomweb: tuple[DicomwebDestination, ...] = Field((), title="Where result objects are sent with STOW-RS")
    hl7: tuple[Hl7Destination, ...] = Field((), title="Who is told results and alerts by HL7")

    @model_validator(mode="after")
    def _names_are_unique(self) -> DeliverSettings:
        names = [*self.pacs_names, *(each.name for each in self.hl7)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the name {twice[0]!r} is there more than once; each destination needs a name of its own")
        return self

    @property
    def pacs_names(self) -> tuple[str, ...]:
        """Names of all destinations of result objects, however they are spoken to."""
        return (*(each.name for each in self.destinations), *(each.name for each in self.dicomweb))

    def hl7_names(self, what: Literal["results", "alerts"]) -> tuple[str, ...]:
        """Names of the HL7 receivers that are told results, or alerts."""
        return tuple(each.name for each in self.hl7 if what in each.sends)

    poll_s: float = Field(2.0, title="How often the outbox is looked at", gt=0, le=60)
    retry_first_s: float = Field(15.0, title="About how long after a first failure it is tried again", gt=0, le=3600)
    retry_longest_s: float = Field(
        900.0, title="Longest wait between two tries; the waits double up to this", gt=0, le=86400
    )
