"""One typed settings tree: each field has a title, a unit, a range and a default, and the manual is made from it.

The file is TOML. Only :mod:`appliance.cli` and :mod:`appliance.services` read it and hand the parts down.
"""

from __future__ import annotations

import hashlib
import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from appliance.config_deliver import DeliverSettings
from appliance.config_parts import AETitle, ObjectKind, Port, Section, TlsSettings
from appliance.errors import ConfigurationError
from appliance.screenings.registry import screenings as _screenings
from appliance.screenings.registry import settings_model as _screenings_settings_model

DEFAULT_PATH = Path("/etc/appliance/appliance.toml")


class BoxSettings(Section):
    """Who this box is and where it keeps its state."""

    name: str = Field(
        "appliance",
        title="Name of the box; the fleet's topic when there is no client certificate",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
    )
    state_directory: Path = Field(
        Path("/var/lib/appliance"), title="Where the spool, the database and the results live"
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", title="Log lines: text on a terminal, JSON for the journal"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", title="Least severe log line written; debug may name identifiers and must not stay on"
    )

    @property
    def spool(self) -> Path:
        """Received instances, one folder per association."""
        return self.state_directory / "spool"

    @property
    def results(self) -> Path:
        """One folder per screened scan."""
        return self.state_directory / "results"

    @property
    def packs(self) -> Path:
        """Installed model packs, and which of them are active."""
        return self.state_directory / "packs"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.state_directory / "appliance.db"


class Peer(Section):
    """A DICOM node that may send to this box."""

    name: str | None = Field(
        None,
        title="Name used towards the fleet, such as ct-1; without one it is peer-1, peer-2, … in the order given here",
        pattern=r"^[A-Za-z0-9._-]{1,32}$",
    )
    ae_title: AETitle = Field(title="Its calling AE title")
    address: str = Field(title="Its IP address or network, such as 10.1.2.3 or 10.1.2.0/24")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, title="TCP port that it listens on for reports of storage commitment; without it none are sent to it anew"
    )

    @field_validator("address")
    @classmethod
    def _address_is_numeric(cls, address: str) -> str:
        try:
            ipaddress.ip_network(address, strict=False)
        except ValueError:
            raise ValueError(
                f"{address!r} is neither an IP address nor a network, such as 10.1.2.3 or 10.1.2.0/24; "
                "host names are not looked up"
            ) from None
        return address


class ReceiveSettings(Section):
    """The DICOM port."""

    ae_title: AETitle = Field("APPLIANCE", title="Called AE title that senders must use")
    address: str = Field("0.0.0.0", title="Local address to listen on")  # noqa: S104  # the allow-list below is empty by default
    port: Port = Field(11112, title="TCP port; 0 takes a free one")
    peers: tuple[Peer, ...] = Field((), title="Who may send; empty refuses everybody")
    check_called_ae_title: bool = Field(True, title="Refuse associations that call another AE title")
    maximum_associations: int = Field(8, title="Associations at the same time", ge=1, le=64)
    network_timeout_s: float = Field(60.0, title="Close an association that has been silent this long", gt=0, le=3600)
    storage_commitment: Literal["honest", "off"] = Field(
        "honest",
        title="Requests for storage commitment: honest answers that this box is no archive, off does not take them",
    )
    procedure_steps: bool = Field(
        True, title="Take what scanners report of their procedure steps (MPPS); it completes series without quiet time"
    )
    disk_reserve_mib: int = Field(4096, title="Refuse associations while less space than this is free", ge=0)
    maximum_instance_mib: int = Field(2048, title="Largest single instance accepted", ge=1)
    tls: TlsSettings | None = Field(None, title="Transport encryption of the DICOM port")


class AssembleSettings(Section):
    """When a series is complete."""

    quiet_s: float = Field(
        15.0, title="Quiet time after the last image, with all its associations closed", ge=0, le=3600
    )
    force_s: float = Field(
        600.0, title="Quiet time after which a series is taken even if an association is still open", gt=0
    )


class WorkSettings(Section):
    """How scans are screened."""

    engine: Literal["auto", "openvino", "onnxruntime"] = Field(
        "auto", title="Inference engine; auto takes OpenVINO, and ONNX Runtime when that fails"
    )
    precision: Literal["auto", "int8", "bf16", "f32"] = Field(
        "auto", title="Precision; auto takes INT8 where the pack proves it"
    )
    device: Literal["auto", "CPU", "GPU", "NPU"] = Field(
        "auto",
        title="Device that networks run on; auto takes what `appliance packs bench` found best, else the CPU; one that "
        "fails is replaced by the CPU",
    )
    threads: int = Field(0, title="CPU threads; 0 takes all", ge=0, le=256)
    compiled: Path = Field(
        Path("compiled"), title="Folder for compiled networks, by itself or within the state directory"
    )
    packs: tuple[Path, ...] = Field((), title="Folders of further packs; the shipped pack is always there")
    lease_s: float = Field(600.0, title="A worker that says nothing for this long has lost its scan", gt=0)
    attempts: int = Field(3, title="Attempts before a scan is quarantined", ge=1, le=10)
    memory_limit_mib: int = Field(
        3072, title="The child process that screens is ended above this resident size", ge=256
    )
    time_limit_s: float = Field(900.0, title="Longest time one scan may take", gt=0)
    recycle_after_scans: int = Field(20, title="Scans after which the child process is replaced", ge=1)


class PackRepository(Section):
    """A repository of packs, as The Update Framework describes it."""

    source: str = Field(title="Its address (http, https) or its folder, such as a mounted USB stick's")
    root: Path = Field(title="Its first root.json, got by a way that is trusted")


class PacksSettings(Section):
    """Which model packs are trusted, and which one wins."""

    keys: tuple[Path, ...] = Field((), title="Public key files, or folders of them, whose signatures are trusted")
    allow_unsigned: bool = Field(
        False, title="Development mode: use packs without a signature and say so in every result"
    )
    prefer: tuple[str, ...] = Field(
        (), title="Names of packs; where two provide one structure, the one named first wins"
    )
    repository: PackRepository | None = Field(None, title="Where `appliance packs update` looks for packs")


class RetentionSettings(Section):
    """How long things are kept."""

    pixel_days: float = Field(7.0, title="Days that received images are kept after their scan is done", ge=0)
    set_aside_days: float = Field(1.0, title="Days that set-aside objects (reports, secondary captures) are kept", ge=0)
    alert_days: float = Field(90.0, title="Days that an alert is kept after somebody has acknowledged it", ge=1)
    soft_free_mib: int = Field(
        16384, title="Below this free space images of finished scans go early, oldest first", ge=0
    )


class ResultsSettings(Section):
    """The DICOM objects that a result is written as."""

    objects: tuple[ObjectKind, ...] = Field(
        ("sr", "seg", "capture"),
        title="Which are made: structured report (sr), segmentations (seg), key images (capture), the summary page as "
        "a document (pdf), key object selection (ko); empty makes none",
    )
    language: Literal["en", "zh"] = Field("en", title="Language of what people read in them")
    patient_name_on_captures: bool = Field(
        False, title="Write the patient's name and identifier into the pixels of the key images"
    )
    first_series_number: int = Field(
        9001,
        title="Series Number of the reports; segmentations, key images, documents and key objects take the next four",
        ge=1,
        le=2147483643,
    )


class MqttSettings(Section):
    """The fleet's broker."""

    host: str = Field(title="Host name or IP address of the broker")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(8883, title="TCP port")
    tls: TlsSettings | None = Field(None, title="Client certificate; its common name becomes the box's name")
    username: str | None = Field(None, title="User name, when there is no client certificate")
    password_file: Path | None = Field(None, title="File with the password, mode 0600, or a systemd credential")
    allow_plaintext: bool = Field(False, title="Allow a connection without TLS (a broker on this machine)")
    drift: bool = Field(True, title="Publish counts and histograms of inputs and results once a day")
    commands: bool = Field(False, title="Do what the fleet asks for over MQTT: self-test, diagnostics and the like")


class HealthSettings(Section):
    """Measuring and telling how the box is."""

    interval_s: float = Field(60.0, title="How often health is measured and published", ge=0.2, le=3600)
    stalled_after_s: float = Field(
        1800.0, title="Scans waiting this long with none finished means the work is stalled", gt=0
    )
    prometheus_port: Port = Field(
        0, title="TCP port, for this machine alone, where Prometheus can read the same figures; 0 opens none"
    )
    mqtt: MqttSettings | None = Field(None, title="The fleet's broker; absent publishes nothing")


AlertLevel = Literal["never", "routine", "soon", "urgent"]
_alert_levels: dict[str, Any] = {
    name: (
        Literal["default", "never", "routine", "soon", "urgent"],
        Field("default", title=f"{screening.title}; default takes alerts.urgency"),
    )
    for name, screening in sorted(_screenings().items())
}
AlertScreeningsSettings: Any = create_model(
    "AlertScreeningsSettings",
    __base__=Section,
    __doc__="Least urgency of a finding that raises an alert, for single screenings.",
    **_alert_levels,
)


class AlertsSettings(Section):
    """Which findings raise an alert, and who is told of it."""

    urgency: AlertLevel = Field("urgent", title="Least urgency of a finding that raises an alert; never raises none")
    escalate_after_min: float = Field(
        10.0,
        title="An alert that nobody has acknowledged for this long is told to everybody once more; 0 leaves it",
        ge=0,
        le=1440,
    )
    command: tuple[str, ...] = Field(
        (),
        title="Program and its arguments, run without a shell for each step of an alert; empty runs none",
    )
    command_timeout_s: float = Field(10.0, title="The program is ended when it runs longer", gt=0, le=60)
    command_tries: int = Field(5, title="How often it is run until it succeeds", ge=1, le=20)
    screenings: AlertScreeningsSettings = Field(default_factory=AlertScreeningsSettings)

    @field_validator("command")
    @classmethod
    def _program_is_absolute(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if command and not Path(command[0]).is_absolute():
            raise ValueError(f"{command[0]!r} must be the whole path of a program, such as /etc/appliance/lamp")
        return command


class BoardTlsSettings(Section):
    """HTTPS for the alert board."""

    certificate: Path = Field(title="PEM file with the board's certificate chain")
    private_key: Path = Field(title="PEM file with its key, mode 0600, or a systemd credential")
    trusted: Path | None = Field(
        None, title="PEM file with the authorities that browsers' certificates must chain to; absent asks for none"
    )


class BoardSettings(Section):
    """The alert board: a page for the PC in the scanner room."""

    address: str = Field("127.0.0.1", title="Local IP address to listen on; no other is served")
    port: Port = Field(8443, title="TCP port; 0 takes a free one")
    host_names: tuple[str, ...] = Field(
        (), title="Names, besides its IP address, under which browsers may call the board"
    )
    tls: BoardTlsSettings | None = Field(None, title="HTTPS; absent means HTTP")
    allow_plaintext: bool = Field(
        False, title="Allow HTTP on an address that other machines reach: everybody on that network can then read along"
    )
    password_file: Path | None = Field(
        None, title="File that `appliance board-password` writes, mode 0600, or a systemd credential"
    )
    language: Literal["en", "zh"] = Field("en", title="Language of the page until somebody chooses another one")
    people: tuple[str, ...] = Field((), title="Names that are proposed when an alert is acknowledged")
    show_patient_name: bool = Field(
        False, title="Show the patient's name beside each scan, else its accession number or its number on this box"
    )
    scans: int = Field(12, title="How many of the last scans are shown", ge=1, le=100)
    session_hours: float = Field(24.0, title="Hours without use after which the password is asked for again", gt=0)

    @field_validator("address")
    @classmethod
    def _address_is_numeric(cls, address: str) -> str:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError(
                f"{address!r} is not an IP address, such as 127.0.0.1 or 10.1.2.5; host names are not looked up"
            ) from None
        return address

    @model_validator(mode="after")
    def _nothing_is_open_by_mistake(self) -> BoardSettings:
        if self.password_file is None and (self.tls is None or self.tls.trusted is None):
            raise ValueError(
                "anybody could read the board: set board.password_file and run `appliance board-password`, or set "
                "board.tls.trusted so that browsers need a certificate"
            )
        if self.tls is None and not self.allow_plaintext and not ipaddress.ip_address(self.address).is_loopback:
            raise ValueError(
                f"the board would speak HTTP without encryption on {self.address}: set board.tls, or set "
                "board.allow_plaintext = true if everybody on that network may read along"
            )
        return self


ScreeningsSettings: Any = _screenings_settings_model(Section)


class Settings(Section):
    """The whole configuration."""

    box: BoxSettings = Field(default_factory=BoxSettings)
    receive: ReceiveSettings = Field(default_factory=ReceiveSettings)
    assemble: AssembleSettings = Field(default_factory=AssembleSettings)
    work: WorkSettings = Field(default_factory=WorkSettings)
    packs: PacksSettings = Field(default_factory=PacksSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    results: ResultsSettings = Field(default_factory=ResultsSettings)
    deliver: DeliverSettings = Field(default_factory=DeliverSettings)
    health: HealthSettings = Field(default_factory=HealthSettings)
    alerts: AlertsSettings = Field(default_factory=AlertsSettings)
    board: BoardSettings | None = Field(None, title="The alert board; absent serves nothing")
    screenings: ScreeningsSettings = Field(default_factory=ScreeningsSettings)

    @model_validator(mode="after")
    def _reserves_are_ordered(self) -> Settings:
        if self.retention.soft_free_mib < self.receive.disk_reserve_mib:
            raise ValueError(
                f"retention.soft_free_mib ({self.retention.soft_free_mib}) must not be below receive.disk_reserve_mib "
                f"({self.receive.disk_reserve_mib}), or nothing is pruned before the port closes"
            )
        return self

    def digest(self) -> str:
        """Return ``sha256:…`` over the effective settings, recorded with every result."""
        canonical = self.model_dump_json(exclude={"box": {"state_directory", "log_format", "log_level"}})
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def load(path: Path | None = None) -> Settings:
    """Read a configuration file.

    Parameters
    ----------
    path
        A TOML file. ``None`` reads :data:`DEFAULT_PATH` when it exists and otherwise gives the defaults.

    Raises
    ------
    ConfigurationError
        The file is missing or wrong; the message names the key, the value and what is allowed.
    """
    if path is None:
        if not DEFAULT_PATH.exists():
            return Settings()
        path = DEFAULT_PATH
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: the configuration cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not a TOML file: {error}") from error
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigurationError("\n".join(f"{path}: {line}" for line in _sentences(error))) from error


def _sentences(error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(whole file)"
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: there is no such key")
        elif item["type"] == "missing":
            lines.append(f"{key}: this key is required")
        elif item["type"] == "value_error":
            lines.append(f"{key}: {item['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"{key} = {item['input']!r}: {item['msg'][:1].lower()}{item['msg'][1:]}")
    return lines
