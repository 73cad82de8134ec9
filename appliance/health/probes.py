"""Measures the box: the computer, its disk, its services and the peers it is configured to talk to.

Every probe is bounded in time and says ``None`` for what it cannot know; none of them raises because a part is missing.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil

from appliance.errors import ConfigurationError
from appliance.health.model import Disk, Machine, Peer, PeerRole, Service, ServiceName, ServiceState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.config import DeliverSettings, Destination

_MIB = 1024.0 * 1024.0
_PROBE_TIMEOUT_S = 3.0

# chronyc(1), `-c tracking`: comma-separated; the clock is slow of the reference by the fifth value.
_CHRONY_SYSTEM_TIME = 4
_CHRONY_LEAP_STATUS = 13


def machine() -> Machine:
    """Measure the computer; processor load is the mean since the call before."""
    memory = psutil.virtual_memory()
    return Machine(
        uptime_s=max(0.0, time.time() - psutil.boot_time()),
        cpu_count=os.cpu_count() or 1,
        cpu_percent=min(100.0, max(0.0, psutil.cpu_percent(interval=None))),
        load_1_min=os.getloadavg()[0],
        memory_total_mib=memory.total / _MIB,
        memory_available_mib=memory.available / _MIB,
        temperature_c=temperature_c(),
        clock_offset_s=clock_offset_s(),
    )


def temperature_c() -> float | None:
    """Return the hottest sensor, degrees Celsius."""
    sensors: dict[str, Sequence[Any]] = getattr(psutil, "sensors_temperatures", dict)()
    readings = [reading.current for group in sensors.values() for reading in group]
    plausible = [float(value) for value in readings if value is not None and -60.0 <= value <= 200.0]
    return max(plausible, default=None)


def clock_offset_s() -> float | None:
    """Return clock minus reference, seconds, as chrony tells it; ``None`` without a synchronised chrony."""
    if shutil.which("chronyc") is None:
        return None
    try:
        told = subprocess.run(
            ["chronyc", "-c", "tracking"],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        values = next(csv.reader(told.stdout.splitlines()))
        if values[_CHRONY_LEAP_STATUS] == "Not synchronised":
            return None
        return -float(values[_CHRONY_SYSTEM_TIME])
    except (OSError, subprocess.SubprocessError, StopIteration, IndexError, ValueError):
        return None


def disk(folder: Path, *, soft_free_mib: int, reserve_mib: int) -> Disk:
    """Measure the file system that holds a folder, as an unprivileged process may use it."""
    while not folder.exists():
        folder = folder.parent
    figures = os.statvfs(folder)
    return Disk(
        total_mib=figures.f_blocks * figures.f_frsize / _MIB,
        free_mib=figures.f_bavail * figures.f_frsize / _MIB,
        soft_free_mib=soft_free_mib,
        reserve_mib=reserve_mib,
    )


def services(run_directory: Path, *, silent_after_s: float, now: float | None = None) -> tuple[Service, ...]:
    """Read the heartbeats of the four services.

    Parameters
    ----------
    run_directory
        Where each service keeps ``<name>.json`` with its ``pid``; the file's time is that of the last heartbeat.
    silent_after_s
        A living process whose heartbeat is older is silent.
    now
        Unix time.
    """
    moment = time.time() if now is None else now
    return tuple(_service(name, run_directory / f"{name}.json", silent_after_s, moment) for name in ServiceName)


def _service(name: ServiceName, heartbeat: Path, silent_after_s: float, now: float) -> Service:
    absent = Service(name=name, state=ServiceState.ABSENT, heartbeat_age_s=None, resident_mib=None, uptime_s=None)
    try:
        age_s = max(0.0, now - heartbeat.stat().st_mtime)
        process = psutil.Process(int(json.loads(heartbeat.read_bytes())["pid"]))
        started_at = process.create_time()
        # A process that began after the heartbeat was written only wears the number of the one that wrote it.
        if process.status() == psutil.STATUS_ZOMBIE or started_at > now - age_s + 1.0:
            return absent
        resident_mib = process.memory_info().rss / _MIB
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return absent
    return Service(
        name=name,
        state=ServiceState.ALIVE if age_s <= silent_after_s else ServiceState.SILENT,
        heartbeat_age_s=age_s,
        resident_mib=resident_mib,
        uptime_s=max(0.0, now - started_at),
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """How a peer answered.

    Attributes
    ----------
    connected
        Whether its TCP port accepted a connection.
    echoed
        Whether it answered a C-ECHO with success (PS3.7, 9.1.5).
    seconds
        How long this took.
    """

    connected: bool
    echoed: bool
    seconds: float


def ask(destination: Destination, calling_ae_title: str) -> Answer:
    """Connect to a destination and, when that works, ask it for a C-ECHO; at most three times three seconds."""
    from appliance.dicom.network.sender import echo

    began_s = time.monotonic()
    try:
        with socket.create_connection((destination.address, destination.port), timeout=_PROBE_TIMEOUT_S):
            pass
    except OSError:
        return Answer(connected=False, echoed=False, seconds=time.monotonic() - began_s)
    try:
        echoed = echo(
            host=destination.address,
            port=destination.port,
            called_ae=destination.ae_title,
            calling_ae=calling_ae_title,
            tls=destination.tls,
            timeout_s=_PROBE_TIMEOUT_S,
        ).ok
    except ConfigurationError:
        echoed = False  # our own TLS files; `appliance doctor` looks at them
    return Answer(connected=True, echoed=echoed, seconds=time.monotonic() - began_s)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A destination that is no DICOM node: name, host and TCP port."""

    name: str
    host: str
    port: int


def endpoints(deliver: DeliverSettings) -> list[Endpoint]:
    """Return the configured destinations that are not asked for a C-ECHO."""
    addresses = [(each.name, urlsplit(each.url)) for each in deliver.dicomweb]
    return [
        Endpoint(name, url.hostname or "", url.port or (443 if url.scheme == "https" else 80))
        for name, url in addresses
    ]


def connections(configured: Sequence[Endpoint]) -> tuple[Peer, ...]:
    """Connect to all of these at the same time; whether they do what they should is seen when something is sent."""
    if not configured:
        return ()
    with ThreadPoolExecutor(max_workers=min(8, len(configured)), thread_name_prefix="peer") as pool:
        seconds = list(pool.map(_connect, configured))
    return tuple(
        Peer(name=each.name, role=PeerRole.DESTINATION, reachable=took is not None, echo=None, seconds=took)
        for each, took in zip(configured, seconds, strict=True)
    )


def _connect(endpoint: Endpoint) -> float | None:
    began_s = time.monotonic()
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout=_PROBE_TIMEOUT_S):
            return time.monotonic() - began_s
    except OSError:
        return None


def destinations(configured: Sequence[Destination], calling_ae_title: str) -> tuple[Peer, ...]:
    """Ask all destinations at the same time."""
    if not configured:
        return ()
    with ThreadPoolExecutor(max_workers=min(8, len(configured)), thread_name_prefix="peer") as pool:
        answers = list(pool.map(lambda destination: ask(destination, calling_ae_title), configured))
    return tuple(
        Peer(
            name=destination.name,
            role=PeerRole.DESTINATION,
            reachable=answer.connected,
            echo=answer.echoed if answer.connected else None,
            seconds=answer.seconds if answer.connected else None,
        )
        for destination, answer in zip(configured, answers, strict=True)
    )
