"""``appliance doctor``: everything a field engineer must know before leaving, one line and a fix each."""

from __future__ import annotations

import json
import os
import ssl
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.commands.doctor_checks import Check, Verdict
from appliance.commands.doctor_commitment import commitment
from appliance.errors import ApplianceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from appliance.config import Settings
    from appliance.config_parts import TlsSettings

_EXPIRY_WARNING_DAYS = 60
_CLOCK_TOLERANCE_S = 5.0
_LEAST_MEMORY_MIB = 7000.0  # a box is sold with 8 GiB


def run(settings: Settings, *, as_json: bool) -> int:
    """Run every check and print it.

    Returns
    -------
    int
        0 all well, 1 warnings, 2 problems.
    """
    from appliance.logs import configure

    configure("error", "text")
    checks = [check for examine in _EXAMINATIONS for check in _guarded(examine, settings)]
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=1, ensure_ascii=False))  # noqa: T201
    else:
        _print(checks)
    verdicts = {check.verdict for check in checks}
    return 2 if Verdict.PROBLEM in verdicts else 1 if Verdict.WARNING in verdicts else 0


def _print(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table

    style = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "bold red"}
    table = Table(pad_edge=False, show_lines=False)
    for heading in ("Check", "", "What was seen", "What to do"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        table.add_row(check.name, f"[{style[check.verdict]}]{check.verdict}[/]", check.text, check.fix)
    Console(highlight=False).print(table)


def _guarded(examine: Callable[[Settings], Iterator[Check]], settings: Settings) -> Iterator[Check]:
    """A check that cannot even be made is a problem, and the others still run."""
    try:
        yield from examine(settings)
    except (ApplianceError, OSError) as error:
        yield Check(
            examine.__name__.strip("_").replace("_", " "), Verdict.PROBLEM, str(error), "see the sentence beside"
        )


def _processor(_settings: Settings) -> Iterator[Check]:
    flags = _cpu_flags()
    best = [name for name in ("amx_int8", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx2") if name in flags]
    cores = os.cpu_count() or 1
    if "avx2" not in flags:
        yield Check(
            "processor", Verdict.PROBLEM, f"{cores} cores without AVX2", "the networks need a processor with AVX2"
        )
    else:
        yield Check("processor", Verdict.OK, f"{cores} cores, {', '.join(best)}")


def _cpu_flags() -> set[str]:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return set(line.partition(":")[2].split())


def _memory_and_clock(settings: Settings) -> Iterator[Check]:
    from appliance.health.probes import machine

    measured = machine()
    total = measured.memory_total_mib
    if total < _LEAST_MEMORY_MIB or total < settings.work.memory_limit_mib * 1.5:
        yield Check("memory", Verdict.WARNING, f"{total:.0f} MiB", "8 GiB is the least a box should have")
    else:
        yield Check("memory", Verdict.OK, f"{total:.0f} MiB, {measured.memory_available_mib:.0f} MiB free")
    offset = measured.clock_offset_s
    if offset is None and measured.clock_synchronised:
        yield Check("clock", Verdict.OK, "follows a time server, says systemd")
    elif offset is None:
        fix = "install chrony and name the hospital's time server"
        yield Check("clock", Verdict.WARNING, f"nobody checks it; it says {datetime.now().astimezone():%F %T %Z}", fix)
    elif abs(offset) > _CLOCK_TOLERANCE_S:
        yield Check("clock", Verdict.PROBLEM, f"{offset:+.1f} s off", "chronyc makestep")
    else:
        yield Check("clock", Verdict.OK, f"{offset:+.3f} s off its reference")


def _disk(settings: Settings) -> Iterator[Check]:
    from appliance.health.probes import disk

    folder = settings.box.state_directory
    measured = disk(
        folder, soft_free_mib=settings.retention.soft_free_mib, reserve_mib=settings.receive.disk_reserve_mib
    )
    text = f"{measured.free_mib:.0f} of {measured.total_mib:.0f} MiB free"
    if measured.free_mib < measured.reserve_mib:
        fix = f"the DICOM port refuses below {measured.reserve_mib} MiB: free space on this disk or add one"
        yield Check("disk", Verdict.PROBLEM, text, fix)
    elif measured.free_mib < measured.soft_free_mib:
        yield Check("disk", Verdict.WARNING, text, "images of finished scans are deleted early; add a larger disk")
    else:
        yield Check("disk", Verdict.OK, text)
    if folder.exists() and not os.access(folder, os.W_OK):
        yield Check(
            "state folder", Verdict.PROBLEM, f"{folder} cannot be written", "run as the service's user, or root"
        )
    elif folder.exists() and folder.stat().st_mode & 0o077:
        yield Check("state folder", Verdict.WARNING, f"{folder} can be read by others", f"chmod 700 {folder}")


def _services(settings: Settings) -> Iterator[Check]:
    from appliance.health.model import ServiceState
    from appliance.health.probes import services

    board = settings.board is not None
    for service in services(settings.box.state_directory / "run", silent_after_s=60.0, board=board):
        name = f"service {service.name.value}"
        if service.state is ServiceState.ALIVE:
            yield Check(name, Verdict.OK, "alive")
        elif service.state is ServiceState.SILENT:
            yield Check(name, Verdict.WARNING, "gives no sign of life", f"journalctl -u appliance-{service.name.value}")
        else:
            yield Check(name, Verdict.PROBLEM, "not running", "systemctl start appliance.target")


def _dicom_port(settings: Settings) -> Iterator[Check]:
    from appliance.dicom.network.sender import echo
    from appliance.services.lifecycle import read_heartbeat

    beat = read_heartbeat(settings.box.state_directory, "receive")
    if beat is not None and "port" in beat:
        host = "127.0.0.1" if settings.receive.address in {"0.0.0.0", "::"} else settings.receive.address  # noqa: S104
        answer = echo(
            host=host,
            port=int(beat["port"]),
            called_ae=settings.receive.ae_title,
            calling_ae=settings.receive.ae_title,
            tls=settings.receive.tls,
        )
        if answer.ok or answer.permanent:
            # being refused by the allow-list is an answer too: the port is alive
            yield Check("DICOM port", Verdict.OK, f"{settings.receive.ae_title} answers on port {beat['port']}")
        else:
            yield Check("DICOM port", Verdict.PROBLEM, answer.problem or "no answer", "see the receive service's log")
    if settings.receive.peers:
        senders = ", ".join(f"{peer.ae_title} at {peer.address}" for peer in settings.receive.peers)
        yield Check("senders", Verdict.OK, senders)
    else:
        yield Check("senders", Verdict.PROBLEM, "nobody may send", "name the scanner under receive.peers")


def _packs(settings: Settings) -> Iterator[Check]:
    from appliance.packs.choice import read_choice
    from appliance.packs.pack import UNSIGNED
    from appliance.packs.registry import ALL_TASKS, available
    from appliance.packs.rules import Rules
    from appliance.packs.selftest import self_test

    rules = Rules.from_settings(settings)
    for pack in available(rules, tasks=ALL_TASKS):
        name = f"pack {pack.name} {pack.version}"
        agreements = self_test(pack, threads=settings.work.threads)
        text = ", ".join(f"{item.engine} {item.used} {item.share:.3f}" for item in agreements)
        if not all(item.passed for item in agreements):
            fix = "install the pack again; if that does not help, report it"
            yield Check(name, Verdict.PROBLEM, f"does not compute here what it should: {text}", fix)
        elif pack.trust == UNSIGNED:
            fix = "for patients, have it signed and set packs.allow_unsigned = false"
            yield Check(name, Verdict.WARNING, f"without a signature; computes here what it should: {text}", fix)
        else:
            yield Check(name, Verdict.OK, f"{pack.trust}, whole, and computes here what it should: {text}")
    if settings.packs.allow_unsigned:
        fix = "set packs.allow_unsigned = false before patients are screened"
        yield Check("pack signatures", Verdict.WARNING, "development mode: packs without a signature are used", fix)
    for key, failure in read_choice(rules.installed).failed.items():
        fix = "install a newer version, or choose one with `appliance packs activate`"
        yield Check(f"pack {key.replace('/', ' ')}", Verdict.PROBLEM, f"taken out of use: {failure.text}", fix)
    yield from _pack_keys(settings)


def _pack_keys(settings: Settings) -> Iterator[Check]:
    from appliance.packs.key_ring import KeyRing

    for key in KeyRing.read(settings.packs.keys).keys.values():
        left = (key.not_after - datetime.now(UTC)).days
        if left < _EXPIRY_WARNING_DAYS:
            text = f"expired {-left} days ago" if left < 0 else f"expires in {left} days"
            fix = "installed packs go on; new ones need a signature by a newer key"
            yield Check(f"pack key {key.key}", Verdict.WARNING, text, fix)


def _destinations(settings: Settings) -> Iterator[Check]:
    from appliance.health.probes import connections, destinations, endpoints

    if not settings.deliver.pacs_names:
        yield Check("destinations", Verdict.OK, "none: results stay on the box")
    for peer in destinations(settings.deliver.destinations, settings.receive.ae_title):
        name = f"destination {peer.name}"
        if peer.echo:
            yield Check(name, Verdict.OK, "answers C-ECHO")
        elif peer.reachable:
            fix = f"register AE title {settings.receive.ae_title} and this box's address at the PACS"
            yield Check(name, Verdict.PROBLEM, "accepts the connection but refuses C-ECHO", fix)
        else:
            yield Check(name, Verdict.PROBLEM, "cannot be reached", "check address, port, cable and firewall")
    for peer in connections(endpoints(settings.deliver)):
        name = f"destination {peer.name}"
        if peer.reachable:
            yield Check(name, Verdict.OK, "accepts the connection; the first result shows whether it takes one")
        else:
            yield Check(name, Verdict.PROBLEM, "cannot be reached", "check address, port, name server and firewall")


def _board(settings: Settings) -> Iterator[Check]:
    from appliance.board.passwords import read_password
    from appliance.services.lifecycle import read_heartbeat

    board = settings.board
    if board is None:
        yield Check("alert board", Verdict.OK, "not configured: alerts are not shown in the scanner room")
        return
    if board.password_file is not None:
        read_password(board.password_file)
    beat = read_heartbeat(settings.box.state_directory, "board")
    if beat is None or "port" not in beat:
        yield Check("alert board", Verdict.PROBLEM, "not running", "journalctl -u appliance-board")
        return
    where = f"{'https' if board.tls else 'http'}://{board.address}:{beat['port']}"
    if beat.get("pages"):
        yield Check("alert board", Verdict.OK, f"{where}, open on {beat['pages']} pages")
    else:
        fix = "open this address in the browser of the scanner room's PC, log in and turn the sound on"
        yield Check("alert board", Verdict.WARNING, f"{where} is open on no PC: nobody sees an alert", fix)


def _alerts(settings: Settings) -> Iterator[Check]:
    from appliance.services.alert_rules import channels

    told = [channel.kind.value for channel in channels(settings)] + (["board"] if settings.board else [])
    if not told:
        fix = "configure [board], alerts.command, [health.mqtt] or [[deliver.hl7]] (docs/alerts.md)"
        yield Check("alerts", Verdict.WARNING, "nobody is told when something urgent is found", fix)
        return
    yield Check("alerts", Verdict.OK, f"told to: {', '.join(dict.fromkeys(told))}")
    if settings.alerts.command:
        yield _alert_command(Path(settings.alerts.command[0]), settings.box.database)


def _alert_command(program: Path, database: Path) -> Check:
    from appliance.store.database import open_database

    name = "alert command"
    if not program.is_file():
        return Check(name, Verdict.PROBLEM, f"{program} is not there", "install it, or correct alerts.command")
    mode = program.stat().st_mode
    if not os.access(program, os.X_OK):
        return Check(name, Verdict.PROBLEM, f"{program} cannot be run", f"chmod a+rx {program}")
    if mode & 0o022:
        text = f"{program} can be changed by others than its owner"
        return Check(name, Verdict.PROBLEM, text, f"chmod go-w {program}")
    if database.exists():
        with open_database(database, read_only=True) as store:
            last = store.announcements.last_command()
        if last is not None and last.exit_status != 0:
            how = f"exit status {last.exit_status}" if last.exit_status is not None else last.outcome.replace("_", " ")
            return Check(
                name, Verdict.WARNING, f"{program} failed the last time ({how})", "try it as in docs/alerts.md"
            )
    return Check(name, Verdict.OK, str(program))


def _broker(settings: Settings) -> Iterator[Check]:
    import socket

    mqtt = settings.health.mqtt
    if mqtt is None:
        yield Check("MQTT", Verdict.OK, "not configured: the fleet does not see this box")
        return
    from appliance.health.broker import Broker

    broker = Broker.from_settings(mqtt, settings.box.name)
    context = broker.tls_context()
    try:
        with socket.create_connection((mqtt.host, mqtt.port), timeout=5.0) as connection:
            if context is not None:
                with context.wrap_socket(connection, server_hostname=mqtt.host):
                    pass
    except ssl.SSLError as error:
        text = f"{mqtt.host}:{mqtt.port} refuses the encryption: {error.reason}"
        yield Check("MQTT", Verdict.PROBLEM, text, "check certificate, key and trusted authorities on both sides")
    except OSError as error:
        text = f"{mqtt.host}:{mqtt.port} cannot be reached: {error.strerror or error}"
        yield Check("MQTT", Verdict.WARNING, text, "check address, port and firewall; events are kept until then")
    else:
        yield Check("MQTT", Verdict.OK, f"{mqtt.host}:{mqtt.port} accepts the connection")


def _certificates(settings: Settings) -> Iterator[Check]:
    from appliance.health.certificate import read
    from appliance.secret_files import require_private

    deliver = settings.deliver
    sides: dict[str, TlsSettings | None] = {
        "DICOM port's certificate": settings.receive.tls,
        "MQTT certificate": settings.health.mqtt.tls if settings.health.mqtt else None,
    }
    sides |= {f"certificate for {peer.name}": peer.tls for peer in deliver.destinations}
    sides |= {f"certificate for {receiver.name}": receiver.tls for receiver in deliver.hl7}
    used = {name: (tls.certificate, tls.private_key) for name, tls in sides.items() if tls is not None}
    if settings.board is not None and settings.board.tls is not None:
        used["alert board's certificate"] = (settings.board.tls.certificate, settings.board.tls.private_key)
    for web in deliver.dicomweb:
        if web.certificate is not None and web.private_key is not None:
            used[f"certificate for {web.name}"] = (web.certificate, web.private_key)
        if web.secret_file is not None:
            require_private(web.secret_file)
    for name, (certificate, private_key) in used.items():
        require_private(private_key)
        left = read(certificate).not_after - datetime.now(UTC)
        if left.days < 0:
            yield Check(name, Verdict.PROBLEM, f"expired {-left.days} days ago", "renew it now")
        elif left.days < _EXPIRY_WARNING_DAYS:
            yield Check(name, Verdict.WARNING, f"expires in {left.days} days", "renew it soon")
        else:
            yield Check(name, Verdict.OK, f"valid for {left.days} days")


_EXAMINATIONS: tuple[Callable[[Settings], Iterator[Check]], ...] = (
    _processor,
    _memory_and_clock,
    _disk,
    _services,
    _dicom_port,
    _packs,
    _destinations,
    _board,
    commitment,
    _alerts,
    _broker,
    _certificates,
)
