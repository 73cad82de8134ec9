"""``appliance results`` and ``appliance explain``: what the database knows of a scan."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from appliance.dicom.procedure_steps import StepStatus
from appliance.errors import ConfigurationError
from appliance.results.table import print_report, sentences, title_of
from appliance.screenings.registry import screenings
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState

if TYPE_CHECKING:
    from rich.console import Console

    from appliance.config import Settings
    from appliance.store.database import Store
    from appliance.store.outbox import OutboxEntry
    from appliance.store.scan_rows import ScanRow

_ON_THE_WAY = {
    ScanState.RECEIVING: "its images are still arriving",
    ScanState.COMPLETE: "it waits to be screened",
    ScanState.PLANNED: "it is being screened",
    ScanState.SCREENING: "it is being screened",
    ScanState.SCREENED: "it is screened and waits for delivery",
    ScanState.DELIVERING: "its results are being delivered",
    ScanState.DONE: "it is done",
}


def show(settings: Settings, reference: str | None, *, as_json: bool) -> int:
    """Print the result of a scan, or the list of the last scans.

    Raises
    ------
    ConfigurationError
        No scan is meant by the reference.
    StoreError
        There is no database yet, or it cannot be read.
    """
    from rich.console import Console

    console = Console(highlight=False)
    with _open(settings) as store:
        if reference is None:
            _list(store, console, as_json=as_json)
            return 0
        found = _find(store, reference)
        if as_json:
            documents = [_document(store, scan) for scan in found]
            print(json.dumps(documents[0] if len(documents) == 1 else documents, indent=1, ensure_ascii=False))  # noqa: T201
            return 0
        for scan in found:
            print_scan(store, scan, console)
    return 0


def explain(settings: Settings, reference: str) -> int:
    """Print a sentence for every screening of a scan, and for every step of its life."""
    with _open(settings) as store:
        for scan in _find(store, reference):
            lines = [f"Scan {scan.id}, revision {scan.revision}, {scan.instances} images: {_where(scan)}."]
            if scan.completion_reason:
                lines.append(f"The series was taken as complete because: {scan.completion_reason}.")
            lines += _step_sentences(store, scan)
            lines += _delivery_sentences(store, scan)
            result = store.results.get(scan.id)
            if result is not None:
                lines += sentences(result.report)
                lines += [f"note: {note}" for note in result.report["scan"]["notes"]]
            elif scan.reason is not None:
                lines += [f"{title_of(name)} was not run: see above." for name in screenings()]
            print("\n".join(lines))  # noqa: T201
    return 0


def retry(settings: Settings, reference: str) -> int:
    """Give a refused, failed or parked scan another chance.

    Raises
    ------
    ConfigurationError
        No scan is meant by the reference.
    StoreError
        The scan is none of these, or its images are gone.
    """
    from appliance.store.database import open_database

    if not settings.box.database.exists():
        raise ConfigurationError(f"{settings.box.database}: there is no database; check box.state_directory")
    with open_database(settings.box.database, check=False) as store:
        scan = _find(store, reference)[0]
        store.scans.retry(scan.id)
        print(f"Scan {scan.id} is taken up again.")  # noqa: T201
    return 0


def print_scan(store: Store, scan: ScanRow, console: Console) -> None:
    """Print one scan's report, or where it stands."""
    from rich.markup import escape

    where = escape(_where(scan))
    console.print(f"[bold]Scan {scan.id}[/], revision {scan.revision}, {scan.instances} images: {where}")
    for line in (*_step_sentences(store, scan), *_delivery_sentences(store, scan)):
        console.print(escape(line))
    result = store.results.get(scan.id)
    if result is not None:
        print_report(result.report, console)


def _step_sentences(store: Store, scan: ScanRow) -> list[str]:
    """Return what the scanner has said of the series, in a sentence; nothing where it has said nothing of use."""
    signal = store.procedure_steps.signal(scan.series_instance_uid)
    if StepStatus.DISCONTINUED in signal.statuses:
        return ["The scanner reported the examination as discontinued; the series may not be whole."]
    if signal.missing and signal.tells_when_complete:
        return [f"The scanner reported {signal.named} images of this series as made; {signal.missing} are not here."]
    return []


def _delivery_sentences(store: Store, scan: ScanRow) -> list[str]:
    missing = [item.sentence() for item in store.results.missing(scan.id)]
    return [*missing, *map(_delivery_sentence, store.outbox.of_scan(scan.id))]


def _delivery_sentence(entry: OutboxEntry) -> str:
    begin = f"Delivery to {entry.destination}: "
    if entry.state is OutboxState.DONE:
        return begin + (entry.reason or "done") + "."
    why = f": {entry.reason}" if entry.reason else "."
    if entry.state is OutboxState.PARKED:
        return f"{begin}parked{why}"
    at = (
        f", next try at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(entry.next_try_at))}"
        if entry.attempts
        else ""
    )
    return f"{begin}waiting after {entry.attempts} tries{at}{why}"


def _where(scan: ScanRow) -> str:
    if scan.reason is not None:
        return f"{scan.state.value}: {scan.reason.text} [{scan.reason.code}]"
    return _ON_THE_WAY.get(scan.state, scan.state.value)


def _open(settings: Settings) -> Store:
    from appliance.store.database import open_database

    if not settings.box.database.exists():
        raise ConfigurationError(
            f"{settings.box.database}: there is no database yet: no scan has arrived, or box.state_directory is wrong"
        )
    return open_database(settings.box.database, read_only=True)


def _find(store: Store, reference: str) -> list[ScanRow]:
    meanings = [store.scans.find(f"{kind}:{reference}") for kind in ("id", "accession")]
    if all(meanings):
        raise ConfigurationError(
            f"{reference} is a database id and also an accession number; write id:{reference} or accession:{reference}"
        )
    found = store.scans.find(reference)
    if not found:
        raise ConfigurationError(
            f"no scan is known by {reference!r}; give a database id (as `appliance results` lists them), "
            "an accession number or a UID"
        )
    return found


def _document(store: Store, scan: ScanRow) -> dict[str, Any]:
    """Return the public JSON of a scan, whatever its state."""
    result = store.results.get(scan.id)
    document: dict[str, Any] = (
        dict(result.report)
        if result is not None
        else {
            "scan": {
                "study_instance_uid": scan.study_instance_uid,
                "series_instance_uid": scan.series_instance_uid,
                "modality": scan.modality,
                "slices": scan.instances,
                "revision": scan.revision,
            },
            "screenings": [],
        }
    )
    if scan.state is ScanState.REFUSED and scan.reason is not None:
        document["refused"] = scan.reason.to_json()
    document["id"] = scan.id
    document["state"] = scan.state.value
    document["reason"] = scan.reason.to_json() if scan.reason is not None else None
    document["missing_objects"] = [asdict(item) for item in store.results.missing(scan.id)]
    signal = store.procedure_steps.signal(scan.series_instance_uid)
    document["procedure_step"] = {
        "statuses": sorted(status.value for status in signal.statuses),
        "images_named": signal.named,
        "images_missing": signal.missing,
    }
    document["deliveries"] = [
        {
            "destination": entry.destination,
            "state": entry.state.value,
            "attempts": entry.attempts,
            "reason": entry.reason,
            "next_try_at": entry.next_try_at if entry.state is OutboxState.WAITING else None,
        }
        for entry in store.outbox.of_scan(scan.id)
    ]
    return document


def _list(store: Store, console: Console, *, as_json: bool) -> None:
    rows = store.scans.last(20)
    if as_json:
        print(json.dumps([_document(store, scan) for scan in rows], indent=1, ensure_ascii=False))  # noqa: T201
        return
    if not rows:
        console.print("No scan has arrived yet.")
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(pad_edge=False)
    for heading in ("Scan", "Revision", "Images", "Arrived", "State", "What was found, or why not"):
        table.add_column(heading)
    for scan in rows:
        result = store.results.get(scan.id)
        table.add_row(
            str(scan.id),
            str(scan.revision),
            str(scan.instances),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(scan.created_at)),
            scan.state.value,
            escape(_one_line(scan, result.report if result is not None else None)),
        )
    console.print(table)


def _one_line(scan: ScanRow, report: dict[str, Any] | None) -> str:
    if report is None:
        return scan.reason.text if scan.reason is not None else ""
    found = [item["summary"] for item in report["screenings"] if item["status"] == "finding"]
    if found:
        return "; ".join(found)
    ran = sum(item["status"] == "normal" for item in report["screenings"])
    why = [item["reason"]["text"] for item in report["screenings"] if item["reason"] is not None]
    unread = f"; {len(why)} gave no number: {'; '.join(why)}" if why else ""
    return f"no finding in {ran} of {len(report['screenings'])} screenings{unread}"
