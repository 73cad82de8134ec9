"""``appliance status``: the box on one screen, in the words and figures that the fleet also gets."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from appliance.health.model import Condition, Problem, SelfTest, ServiceState

if TYPE_CHECKING:
    from rich.console import Console

    from appliance.config import Settings
    from appliance.health.model import Health, Pack

_EXIT = {Condition.HEALTHY: 0, Condition.DEGRADED: 1, Condition.DOWN: 2}

_SENTENCES = {
    Problem.RECEIVE_ABSENT: "the DICOM port is closed: the receive service is not running",
    Problem.WORK_ABSENT: "nothing is screened: the work service is not running",
    Problem.DELIVER_ABSENT: "nothing is delivered: the deliver service is not running",
    Problem.HEALTH_ABSENT: "the fleet is not told: the health service is not running",
    Problem.BOARD_ABSENT: "no alert is shown in the scanner room: the board service is not running",
    Problem.SERVICE_SILENT: "a service is running but gives no sign of life",
    Problem.DISK_LOW: "the disk is getting full; images of finished scans are deleted early",
    Problem.DISK_FULL: "the disk is full; the DICOM port refuses new images until space is free",
    Problem.WORK_STALLED: "scans wait and none is finished",
    Problem.PACK_FAILED: "a network does not compute on this machine what it should",
    Problem.PACK_UNSIGNED: "a pack without a signature is in use (packs.allow_unsigned): this box is for development",
    Problem.PEER_UNREACHABLE: "a destination cannot be reached or refuses this box",
    Problem.CLOCK_WRONG: "the clock is wrong",
    Problem.STORE_UNREADABLE: "the database cannot be read, or no scan service ever ran here",
}

# What the work service says of itself in its heartbeat.
_WORK_SENTENCES = {
    "screening_unable": "nothing can be screened: no usable pack or no space for results; see `appliance doctor`",
    "screener_does_not_start": "the screening process does not start; see the work service's log",
    "screener_too_large": "the screening process is too large before its first scan; raise work.memory_limit_mib",
    "work_interrupted": "the work service was interrupted by an error and tries again; see its log",
}


def run(settings: Settings, *, as_json: bool) -> int:
    """Print the box's state.

    Returns
    -------
    int
        0 healthy, 1 degraded, 2 down.
    """
    from appliance.health.measure import measure
    from appliance.logs import configure
    from appliance.services.health import installed_packs
    from appliance.services.lifecycle import read_heartbeat

    configure("error", "text")  # what a log line would say is on the screen anyway
    health = measure(settings, packs=installed_packs(settings))
    scans, deliveries, asking = _last_scans(settings), _deliveries(settings), _asking(settings)
    alerts, alert_words = _alerts(settings)
    hindrance = (read_heartbeat(settings.box.state_directory, "work") or {}).get("problem")
    condition = Condition.DEGRADED if hindrance and health.condition is Condition.HEALTHY else health.condition
    if as_json:
        document = json.loads(health.model_dump_json()) | {
            "condition": condition.value,
            "work_problem": hindrance,
            "alerts": alerts,
            "deliveries": deliveries,
            "commitment_requests": asking,
            "scans": scans,
        }
        print(json.dumps(document, indent=1, ensure_ascii=False))  # noqa: T201
    else:
        lines = [alert_words, *map(_delivery_words, deliveries), *map(_asking_words, asking)]
        _print(health, condition, hindrance, scans, lines)
    return _EXIT[condition]


def _last_scans(settings: Settings) -> list[dict[str, Any]]:
    from appliance.errors import StoreError
    from appliance.store.database import open_database

    try:
        with open_database(settings.box.database, read_only=True) as store:
            return [
                {
                    "id": scan.id,
                    "revision": scan.revision,
                    "state": scan.state.value,
                    "images": scan.instances,
                    "arrived_at": scan.created_at,
                    "reason": scan.reason_code.value if scan.reason_code else None,
                    "missing_objects": [item.kind for item in store.results.missing(scan.id)],
                }
                for scan in store.scans.last(5)
            ]
    except StoreError:
        return []


def _deliveries(settings: Settings) -> list[dict[str, Any]]:
    from appliance.errors import StoreError
    from appliance.store.database import open_database

    try:
        with open_database(settings.box.database, read_only=True) as store:
            return [asdict(row) for row in store.deliveries.destinations()]
    except StoreError:
        return []


def _alerts(settings: Settings) -> tuple[dict[str, Any] | None, str]:
    from appliance.commands.alerts import in_words
    from appliance.errors import StoreError
    from appliance.store.database import open_database

    try:
        with open_database(settings.box.database, read_only=True) as store:
            document, words = in_words(store)
            return document, f"alerts: {words}"
    except StoreError:
        return None, "alerts: not known"


def _asking(settings: Settings) -> list[dict[str, Any]]:
    from appliance.errors import StoreError
    from appliance.store.database import open_database

    try:
        with open_database(settings.box.database, read_only=True) as store:
            return [asdict(peer) for peer in store.commitment_requests.peers(since=time.time() - 86400.0)]
    except StoreError:
        return []


def _print(
    health: Health,
    condition: Condition,
    hindrance: str | None,
    scans: list[dict[str, Any]],
    lines: list[str],
) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    style = {Condition.HEALTHY: "bold green", Condition.DEGRADED: "bold yellow", Condition.DOWN: "bold red"}
    console.print(f"[{style[condition]}]{condition.value}[/], appliance {health.appliance_version}")
    for problem in health.problems:
        console.print(f"  {_SENTENCES[problem]} [dim]({problem.value})[/]")
    if hindrance:
        console.print(f"  {_WORK_SENTENCES.get(hindrance, hindrance)} [dim]({hindrance})[/]")
    services = ", ".join(
        f"{service.name.value} {service.state.value}"
        + (f" ({service.resident_mib:.0f} MiB)" if service.state is ServiceState.ALIVE and service.resident_mib else "")
        for service in health.services
    )
    console.print(f"services: {services}")
    disk, machine = health.disk, health.machine
    console.print(
        f"disk: {disk.free_mib / 1024:.1f} of {disk.total_mib / 1024:.1f} GiB free; memory: "
        f"{machine.memory_available_mib / 1024:.1f} of {machine.memory_total_mib / 1024:.1f} GiB free; "
        f"processor: {machine.cpu_percent:.0f} % of {machine.cpu_count} cores"
    )
    console.print("packs: " + (", ".join(map(_pack_words, health.packs)) or "none"))
    _print_queue(health, console)
    for line in lines:
        console.print(line, markup=False)
    for scan in scans:
        arrived = time.strftime("%Y-%m-%d %H:%M", time.localtime(scan["arrived_at"]))
        why = f" [{scan['reason']}]" if scan["reason"] else ""
        if scan["missing_objects"]:
            why += f", without {' and '.join(scan['missing_objects'])} objects (`appliance explain {scan['id']}`)"
        console.print(f"  scan {scan['id']}: {arrived}, {scan['images']} images, {scan['state']}{why}", markup=False)


def _pack_words(pack: Pack) -> str:
    failed = ", failed its test or its check and is not used" if pack.self_test is SelfTest.FAILED else ""
    return f"{pack.name} {pack.version} ({pack.trust.value}{failed})"


def _delivery_words(row: dict[str, Any]) -> str:
    parts = []
    if row["waiting"]:
        wait_s = max(0.0, row["next_try_at"] - time.time())
        parts.append(
            f"{row['waiting']} waiting, next try in {wait_s:.0f} s" if wait_s >= 1 else f"{row['waiting']} waiting"
        )
    if row["parked"]:
        parts.append(f"{row['parked']} parked")
    why = f": {row['reason']}" if row["reason"] else ""
    return f"delivery to {row['name']}: {', '.join(parts)}{why}"


def _asking_words(row: dict[str, Any]) -> str:
    counts = {"waiting for their report": row["waiting"], "reported": row["reported"], "given up": row["given_up"]}
    told = ", ".join(f"{number} {words}" for words, number in counts.items() if number)
    why = row["reason"] or "this box is no archive; clear the setting for storage commitment there"
    return f"storage commitment asked by {row['ae_title']} in the last day: {told}: {why}"


def _print_queue(health: Health, console: Console) -> None:
    if health.queue is None:
        return
    counts = ", ".join(f"{state.value} {count}" for state, count in health.queue.by_state.items() if count)
    console.print(f"scans: {counts or 'none yet'}")
