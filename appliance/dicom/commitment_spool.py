"""Storage commitment between the DICOM port and the database: small durable files, one for each message.

Layout, below the spool's root::

    commitments/requests/<name>.json     somebody asked this box; there before the N-ACTION is answered
    commitments/reports/<name>.json      somebody reported to this box; there before the N-EVENT-REPORT is answered
    commitments/answers/<name>.json      what this box reports of a request, for the association that asked
                       /<name>.taken     the port is sending it there
                       /<name>.sent      it was taken by the peer

The port writes requests and reports and never waits for anybody to read them; the deliver service makes rows of them
and removes them. Names carry nothing of the patient.
"""

from __future__ import annotations

import json
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from appliance.durable import PART_SUFFIX, sync, write_durably

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_T = TypeVar("_T")

_SUFFIX = ".json"
_TAKEN, _SENT = ".taken", ".sent"
# A report that the port took this long ago was not sent: the port was killed, or its peer never answered.
_TAKEN_FOR_S = 120.0


@dataclass(frozen=True, slots=True)
class ReferencedInstance:
    """An item of a Referenced or Failed SOP Sequence (PS3.3 C.14).

    Attributes
    ----------
    sop_class_uid, sop_instance_uid
        What is meant.
    failure
        Failure Reason (0008,1197); ``None`` where there is none.
    """

    sop_class_uid: str
    sop_instance_uid: str
    failure: int | None = None


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """Somebody asks this box for storage commitment (PS3.4 J.3.2).

    Attributes
    ----------
    name
        Of its file; sorts by time.
    peer_ae_title, peer_address
        Who asks, and from which IP address.
    transaction_uid
        As asked.
    instances
        What for.
    received_at
        Unix time.
    """

    name: str
    peer_ae_title: str
    peer_address: str
    transaction_uid: str
    instances: tuple[ReferencedInstance, ...]
    received_at: float


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """The outcome of a request (PS3.4 J.3.3), received or to be sent.

    Attributes
    ----------
    name
        Of its file.
    transaction_uid
        The request's.
    committed, failed
        Instances by outcome; each failed one has its reason.
    """

    name: str
    transaction_uid: str
    committed: tuple[ReferencedInstance, ...]
    failed: tuple[ReferencedInstance, ...]


class Handover(StrEnum):
    """Where a report that was offered to the port stands."""

    NOT_SENT = "not_sent"
    BEING_SENT = "being_sent"
    SENT = "sent"


def new_name() -> str:
    """Return a file's name: UTC time, so that listings sort by age, and 64 random bits, so that none repeats."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(8)}"


class CommitmentSpool:
    """The folders above; any number of processes may use them.

    Parameters
    ----------
    root
        Root of the spool.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / "commitments"
        self._requests = self._folder / "requests"
        self._reports = self._folder / "reports"
        self._answers = self._folder / "answers"

    def make(self) -> None:
        """Make the folders and delete what was being written when somebody was killed.

        Raises
        ------
        OSError
            They cannot be made.
        """
        for folder in (self._folder, self._requests, self._reports, self._answers):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync(folder.parent)
            for leftover in folder.glob(f"*{PART_SUFFIX}"):
                leftover.unlink(missing_ok=True)

    def put_request(self, request: CommitmentRequest) -> None:
        """Write a request so that it survives a power cut.

        Raises
        ------
        OSError
            It could not be made durable.
        """
        _write(self._requests, request.name, asdict(request))

    def put_report(self, report: CommitmentReport) -> None:
        """Write a report that was received so that it survives a power cut.

        Raises
        ------
        OSError
            It could not be made durable.
        """
        _write(self._reports, report.name, asdict(report))

    def requests(self) -> list[CommitmentRequest]:
        """Return the requests that nobody has made a row of yet, oldest first; damaged files are left out."""
        found = (_read(path, _request) for path in _listed(self._requests))
        return [request for request in found if request is not None]

    def reports(self) -> list[CommitmentReport]:
        """Return the reports that were received and not applied yet, oldest first; damaged files are left out."""
        found = (_read(path, _report) for path in _listed(self._reports))
        return [report for report in found if report is not None]

    def remove_request(self, name: str) -> None:
        """Remove a request of which there is a row."""
        (self._requests / f"{name}{_SUFFIX}").unlink(missing_ok=True)

    def remove_report(self, name: str) -> None:
        """Remove a report that is applied."""
        (self._reports / f"{name}{_SUFFIX}").unlink(missing_ok=True)

    # --- answering on the association that asked ----------------------------------------------------------

    def offer(self, report: CommitmentReport) -> None:
        """Offer a report to the port, in case the association that asked is still open.

        Raises
        ------
        OSError
            It could not be written.
        """
        _write(self._answers, report.name, asdict(report))

    def take(self, name: str) -> CommitmentReport | None:
        """Take an offered report for sending; ``None`` when none is offered (any more)."""
        taken = self._answers / f"{name}{_TAKEN}"
        try:
            (self._answers / f"{name}{_SUFFIX}").rename(taken)
        except FileNotFoundError:
            return None
        with suppress(OSError):
            taken.touch()
        return _read(taken, _report)

    def give_back(self, name: str, *, sent: bool) -> None:
        """Say what became of a report that was taken."""
        suffix = _SENT if sent else _SUFFIX
        with suppress(FileNotFoundError):
            (self._answers / f"{name}{_TAKEN}").rename(self._answers / f"{name}{suffix}")

    def withdraw(self, name: str, *, now: float | None = None) -> Handover:
        """Take an offer back; what was not sent then may be sent elsewhere.

        Parameters
        ----------
        name
            The request's.
        now
            Unix time; now by default.

        Returns
        -------
        Handover
            ``BEING_SENT`` changes nothing: ask again later.
        """
        sent, taken = self._answers / f"{name}{_SENT}", self._answers / f"{name}{_TAKEN}"
        if sent.exists():
            return Handover.SENT
        with suppress(FileNotFoundError):
            age_s = (time.time() if now is None else now) - taken.stat().st_mtime
            if 0.0 <= age_s < _TAKEN_FOR_S:
                return Handover.BEING_SENT
            taken.unlink()
        (self._answers / f"{name}{_SUFFIX}").unlink(missing_ok=True)
        # The port may have come between.
        if sent.exists():
            return Handover.SENT
        return Handover.BEING_SENT if taken.exists() else Handover.NOT_SENT

    def forget(self, name: str) -> None:
        """Remove what is left of an answer whose row says how it ended."""
        for suffix in (_SUFFIX, _TAKEN, _SENT):
            (self._answers / f"{name}{suffix}").unlink(missing_ok=True)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX)
    except FileNotFoundError:
        return []


def _write(folder: Path, name: str, tree: dict[str, Any]) -> None:
    write_durably(folder / f"{name}{_SUFFIX}", json.dumps(tree).encode())


def _read(path: Path, build: Callable[[dict[str, Any]], _T]) -> _T | None:
    try:
        return build(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _instances(items: Any) -> tuple[ReferencedInstance, ...]:
    return tuple(ReferencedInstance(**item) for item in items)


def _request(tree: dict[str, Any]) -> CommitmentRequest:
    return CommitmentRequest(**{**tree, "instances": _instances(tree["instances"])})


def _report(tree: dict[str, Any]) -> CommitmentReport:
    return CommitmentReport(
        **{**tree, "committed": _instances(tree["committed"]), "failed": _instances(tree["failed"])}
    )
