"""The results folders as the database's second copy.

Each folder says which scan it belongs to and what that scan was made of, so that after the database was lost a finished
scan is known to be finished, and is neither screened nor sent a second time. Everything else is re-read from the spool.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import structlog

from appliance.durable import write_durably
from appliance.errors import StoreError
from appliance.results.missing import read_missing
from appliance.store.instances import UsedInstance
from appliance.store.lifecycle import ScanState
from appliance.store.results import ReportInvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from appliance.store.alert_rules import AlertRules
    from appliance.store.database import Store
    from appliance.store.scan_rows import ScanRow

_log = structlog.get_logger()

REPORT_NAME = "report.json"
_IDENTITY_NAME = "scan.json"
_FINISHED_NAME = "finished.json"
_ALERTS_AGAIN_S = 86400.0
_SCAN_FIELDS = (
    "id",
    "study_instance_uid",
    "series_instance_uid",
    "revision",
    "accession_number",
    "modality",
    "completion_reason",
    "instances",
    "attempts",
    "created_at",
    "last_instance_at",
    "completed_at",
)


@dataclass(frozen=True, slots=True)
class Restored:
    """What was found in the results folders.

    Attributes
    ----------
    finished
        Scans that were done.
    unfinished
        Scans that are screened and must still be delivered.
    unreadable
        Folders that say too little; their scans are screened again from the spool.
    """

    finished: int = 0
    unfinished: int = 0
    unreadable: int = 0


def write_identity(folder: Path, scan: ScanRow, instances: Sequence[UsedInstance]) -> None:
    """Write into a results folder what the database would have to know if it were lost."""
    tree = {name: getattr(scan, name) for name in _SCAN_FIELDS}
    tree["used"] = [asdict(instance) for instance in instances]
    (folder / _IDENTITY_NAME).write_text(json.dumps(tree, indent=1), encoding="utf-8")


def belongs_to(folder: Path, scan: ScanRow) -> bool:
    """Return whether a results folder is complete and was made for this revision of this series."""
    try:
        tree = json.loads((folder / _IDENTITY_NAME).read_bytes())
        names = ("id", "study_instance_uid", "series_instance_uid", "revision", "instances")
        return (folder / REPORT_NAME).is_file() and all(tree[name] == getattr(scan, name) for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def mark_finished(folder: Path, at: float) -> None:
    """Write into a results folder that its scan is done, durably; repeating it changes nothing."""
    marker = folder / _FINISHED_NAME
    if marker.exists() or not folder.is_dir():
        return
    write_durably(marker, json.dumps({"finished_at": at}).encode())


def key_images(folder: Path) -> list[str]:
    """Return the key images in a results folder, as paths below it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("key_images/*.png"))


def save(
    store: Store, folder: Path, scan_id: int, *, alerts: AlertRules | None = None, at: float | None = None
) -> bool:
    """Store the report that lies in a results folder, and raise its alerts; repeating it changes nothing.

    Returns
    -------
    bool
        Whether it was stored now.

    Raises
    ------
    OSError
        The report is missing or cannot be read.
    ValueError
        It is not JSON.
    StoreError
        It lacks something, or its scan is not one that can be screened.
    """
    report = json.loads((folder / REPORT_NAME).read_bytes())
    return store.results.save(
        scan_id,
        report,
        folder=folder.name,
        key_images=key_images(folder),
        missing=read_missing(folder),
        alerts=alerts,
        at=at,
    )


def take_up(store: Store, results: Path, *, alerts: AlertRules | None = None) -> list[int]:
    """Store the results that a killed worker had given their names and not committed yet.

    Call it before its leases are taken back: its last attempt would count as lost although its report is whole.

    Returns
    -------
    list of int
        Ids of the scans that are screened now.
    """
    taken = []
    for scan in store.leases.held():
        folder = results / scan.folder
        if not belongs_to(folder, scan):
            continue
        try:
            save(store, folder, scan.id, alerts=alerts)
        except (OSError, ValueError, ReportInvalidError) as error:
            # The scan is screened again; the folder is replaced then.
            _log.warning("results_folder_not_taken_up", folder=folder.name, error=type(error).__name__)
        else:
            taken.append(scan.id)
    return taken


def _nothing() -> None:
    """Nobody is watching."""


def restore(
    store: Store,
    results: Path,
    *,
    alerts: AlertRules | None = None,
    on_folder: Callable[[], object] = _nothing,
    now: float | None = None,
) -> Restored:
    """Bring back the scans that have a results folder and are not in the database.

    The alerts of the last day are raised again, because nobody knows whether somebody had seen them; an alarm about a
    scan of last month would only teach people not to listen.

    Call it before the spool is indexed: what is indexed before its result is known would be screened again. It may be
    stopped between any two folders and called again.

    Parameters
    ----------
    store
        The database.
    results
        The folder of the results folders.
    alerts
        Which findings raise an alert.
    on_folder
        Called before each folder that is brought back.
    now
        Unix time; now by default.

    Returns
    -------
    Restored
        What was found.
    """
    moment = time.time() if now is None else now
    counts = {"finished": 0, "unfinished": 0, "unreadable": 0}
    known = store.scans.folders()
    for folder in sorted((folder for folder in _folders(results) if folder.name not in known), key=_number):
        on_folder()
        try:
            with store.atomic():
                finished = _restore_one(store, folder, alerts, moment)
        except (OSError, ValueError, KeyError, TypeError, StoreError) as error:
            # Its scan is screened again from the spool; the folder stays for whoever looks into it.
            _log.warning("results_folder_not_restored", folder=folder.name, error=type(error).__name__)
            counts["unreadable"] += 1
        else:
            counts["finished" if finished else "unfinished"] += 1
    return Restored(**counts)


def _folders(results: Path) -> list[Path]:
    try:
        return [path for path in results.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except FileNotFoundError:
        return []


def _number(folder: Path) -> tuple[int, str]:
    number = folder.name.partition("-")[0]
    return (int(number) if number.isascii() and number.isdigit() else 0, folder.name)


def _restore_one(store: Store, folder: Path, alerts: AlertRules | None, now: float) -> bool:
    tree = json.loads((folder / _IDENTITY_NAME).read_bytes())
    row: dict[str, Any] = {name: tree[name] for name in _SCAN_FIELDS}
    if folder.name != f"{row['id']}-r{row['revision']}":
        raise StoreError(f"{folder}: the folder's name and its {_IDENTITY_NAME} disagree.")
    scan_id = int(row["id"])
    saved_at = (folder / REPORT_NAME).stat().st_mtime
    store.scans.restore({**row, "state": ScanState.COMPLETE.value}, at=saved_at)
    names = {field.name for field in fields(UsedInstance)}
    for used in tree["used"]:
        store.instances.restore(scan_id, UsedInstance(**{name: used[name] for name in names}))
    recent = saved_at > now - _ALERTS_AGAIN_S
    save(store, folder, scan_id, alerts=alerts if recent else None, at=saved_at)
    try:
        finished_at = float(json.loads((folder / _FINISHED_NAME).read_bytes())["finished_at"])
    except FileNotFoundError:
        return False
    store.scans.advance(scan_id, ScanState.DONE, cause="restored from its results folder", at=finished_at)
    return True
