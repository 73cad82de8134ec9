"""Modality Performed Procedure Steps as the DICOM port keeps them: one small durable file for each.

The port must know at once whether a step exists and whether it is final, and must not ask the database; so the files
are the truth, below the spool's root as ``procedure-steps/<digest>.json``, and the database only indexes them.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from appliance.durable import PART_SUFFIX, sync, write_durably

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = "procedure-steps"
_SUFFIX = ".json"


class StepStatus(StrEnum):
    """Performed Procedure Step Status (0040,0252)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


FINAL = frozenset({StepStatus.COMPLETED, StepStatus.DISCONTINUED})
"""Statuses after which a step is never changed (PS3.4 F.7.2.2.2)."""


@dataclass(frozen=True, slots=True)
class PerformedSeries:
    """An item of the Performed Series Sequence (0040,0340).

    Attributes
    ----------
    series_instance_uid
        The series.
    images
        SOP Instance UIDs of its CT images; what the box only sets aside is left out, for it is never waited for.
    """

    series_instance_uid: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProcedureStep:
    """One step.

    Attributes
    ----------
    sop_instance_uid
        Of the step.
    peer_ae_title
        Who reported it.
    status
        As reported last.
    series
        As reported last.
    changed_at
        Unix time of the last message.
    """

    sop_instance_uid: str
    peer_ae_title: str
    status: StepStatus
    series: tuple[PerformedSeries, ...]
    changed_at: float


class StepExistsError(Exception):
    """A step with this SOP Instance UID was created before."""


class StepUnknownError(Exception):
    """No step with this SOP Instance UID was ever created here, or it was forgotten."""


class StepFinalError(Exception):
    """The step is completed or discontinued and may no longer be changed."""


class ProcedureSteps:
    """The folder; one receiver writes, others read.

    Parameters
    ----------
    root
        Root of the spool.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER
        self._lock = threading.Lock()

    def make(self) -> None:
        """Make the folder and delete what was being written when the receiver was killed.

        Raises
        ------
        OSError
            It cannot be made.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(self._folder.parent)
        for leftover in self._folder.glob(f"*{PART_SUFFIX}"):
            leftover.unlink(missing_ok=True)

    def create(self, step: ProcedureStep) -> None:
        """Keep a new step, durably.

        Raises
        ------
        StepExistsError
            There is one with its SOP Instance UID.
        OSError
            It could not be made durable.
        """
        with self._lock:
            path = self._path(step.sop_instance_uid)
            if path.exists():
                raise StepExistsError
            self._write(path, step)

    def change(
        self,
        sop_instance_uid: str,
        *,
        status: StepStatus | None,
        series: tuple[PerformedSeries, ...] | None,
        changed_at: float,
    ) -> ProcedureStep:
        """Change a step, durably, and return it as it is now.

        Parameters
        ----------
        sop_instance_uid
            Which step.
        status, series
            What was reported; ``None`` leaves it as it was.
        changed_at
            Unix time.

        Raises
        ------
        StepUnknownError
            There is none.
        StepFinalError
            It is completed or discontinued.
        OSError
            The change could not be made durable; the step is as it was.
        """
        with self._lock:
            path = self._path(sop_instance_uid)
            step = read(path)
            if step is None:
                raise StepUnknownError
            if step.status in FINAL:
                raise StepFinalError
            changed = replace(
                step,
                status=step.status if status is None else status,
                series=step.series if series is None else series,
                changed_at=changed_at,
            )
            self._write(path, changed)
        return changed

    def _path(self, sop_instance_uid: str) -> Path:
        # A digest, so that a name is short and carries nothing that was received.
        return self._folder / (hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:32] + _SUFFIX)

    @staticmethod
    def _write(path: Path, step: ProcedureStep) -> None:
        write_durably(path, json.dumps(asdict(step)).encode())


def files(root: Path) -> Iterator[tuple[Path, int]]:
    """Yield each step's file with the time of its last change, in nanoseconds, to tell which one is new.

    Parameters
    ----------
    root
        Root of the spool.
    """
    try:
        paths = sorted((root / FOLDER).glob(f"*{_SUFFIX}"))
    except FileNotFoundError:
        return
    for path in paths:
        try:
            yield path, path.stat().st_mtime_ns
        except FileNotFoundError:
            continue


def read(path: Path) -> ProcedureStep | None:
    """Return the step in a file, or ``None`` when it is gone or damaged."""
    try:
        return _step(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget(root: Path, *, changed_before: float) -> int:
    """Delete the steps that were last changed before a time, Unix seconds; return how many.

    Raises
    ------
    OSError
        A file cannot be deleted.
    """
    number = 0
    for path, changed_ns in files(root):
        if changed_ns / 1e9 < changed_before:
            path.unlink(missing_ok=True)
            number += 1
    return number


def _step(tree: dict[str, Any]) -> ProcedureStep:
    series = tuple(
        PerformedSeries(str(item["series_instance_uid"]), tuple(map(str, item["images"]))) for item in tree["series"]
    )
    return ProcedureStep(
        sop_instance_uid=str(tree["sop_instance_uid"]),
        peer_ae_title=str(tree["peer_ae_title"]),
        status=StepStatus(tree["status"]),
        series=series,
        changed_at=float(tree["changed_at"]),
    )
