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
from appliance.store.leases import process_start_ticks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.config_deliver import DeliverSettings, Destination

_MIB = 1024.0 * 1024.0
_PROBE_TIMEOUT_S = 3.0

# chronyc(1), `-c tracking`: comma-separated; the clock is slow of the reference by the fifth value.
_CHRONY_SYSTEM_TIME = 4
_CHRONY_LEAP_STATUS = 13


def machine(*, clock_stepped_s: float = 0.0) -> Machine:
    """Measure the computer; processor load is the mean since the call before.

    Parameters
    ----------
    clock_stepped_s
        What the caller has seen of the clock being set.
    """
    memory = psutil.virtual_memory()
    offset_s = clock_offset_s()
    return Machine(
        uptime_s=since_boot_s(),
        cpu_count=os.cpu_count() or 1,
        cpu_percent=min(100.0, max(0.0, psutil.cpu_percent(interval=None))),
        load_1_min=os.getloadavg()[0],
        memory_total_mib=memory.total / _MIB,
        memory_available_mib=memory.available / _MIB,
        temperature_c=temperature_c(),
        clock_offset_s=offset_s,
        clock_synchronised=True if offset_s is not None else clock_synchronised(),
        clock_stepped_s=clock_stepped_s,
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


def clock_synchronised() -> bool | None:
    """Return whether the clock follows a time server, as systemd knows of any such service; ``None`` if it does not."""
    if shutil.which("timedatectl") is None:
        return None
    try:
        told = subprocess.run(
            ["timedatectl", "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return {"yes": True, "no": False}.get(told.stdout.strip())


class ClockWatch:
    """Notices that the clock was set, by the clock that nobody sets."""

    def __init__(self) -> None:
        self._difference_s = self._seen_s = self._now_s()

    @property
    def stepped_s(self) -> float:
        """How far the clock was set since the beginning, seconds; forward is positive."""
        return self._seen_s - self._difference_s

    def look(self, *, at_least_s: float) -> float | None:
        """Return how far the clock was set since the look before, or ``None`` when that is less."""
        now_s = self._now_s()
        step_s = now_s - self._seen_s
        if abs(step_s) < at_least_s:
            return None
        self._seen_s = now_s
        return step_s

    @staticmethod
    def _now_s() -> float:
        return time.time() - since_boot_s()


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


def services(
    run_directory: Path, *, silent_after_s: float, board: bool = False, now_s: float | None = None
) -> tuple[Service, ...]:
    """Read the heartbeats of the services.

    Parameters
    ----------
    run_directory
        Where each service keeps its heartbeat, see :class:`appliance.services.lifecycle.Heartbeat`.
    silent_after_s
        A living process whose heartbeat is older is silent.
    board
        Whether an alert board is configured.
    now_s
        Seconds since boot: nobody's setting the clock makes a service look dead or young.
    """
    moment = since_boot_s() if now_s is None else now_s
    return tuple(
        _service(name, run_directory / f"{name}.json", silent_after_s, moment)
        for name in ServiceName
        if board or name is not ServiceName.BOARD
    )


def since_boot_s() -> float:
    """Return the seconds since boot, which no setting of the clock changes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _service(name: ServiceName, heartbeat: Path, silent_after_s: float, now_s: float) -> Service:
    absent = Service(
        name=name,
        state=ServiceState.ABSENT,
        heartbeat_age_s=None,
        resident_mib=None,
        children_mib=None,
        uptime_s=None,
    )
    try:
        told = json.loads(heartbeat.read_bytes())
        pid, ticks, age_s = int(told["pid"]), int(told["start_ticks"]), now_s - float(told["beat_s"])
        # A process that started at another time only wears the number of the one that wrote it; a heartbeat from the
        # future was written before the machine was started anew.
        if process_start_ticks(pid) != ticks or age_s < -1.0:
            return absent
        process = psutil.Process(pid)
        resident_mib = process.memory_info().rss / _MIB
        children_mib = sum(map(_resident_mib, process.children(recursive=True)))
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return absent
    return Service(
        name=name,
        state=ServiceState.ALIVE if age_s <= silent_after_s else ServiceState.SILENT,
        heartbeat_age_s=max(0.0, age_s),
        resident_mib=resident_mib,
        children_mib=children_mib,
        uptime_s=max(0.0, now_s - ticks / os.sysconf("SC_CLK_TCK")),
    )


def _resident_mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / _MIB
    except psutil.Error:
        return 0.0


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
