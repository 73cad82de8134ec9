"""Reports to whoever asked this box for storage commitment: a part of the ``deliver`` service, in a thread of its own.

A scanner that is away holds up nothing else.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from appliance.delivery.backoff import Backoff
from appliance.delivery.commitment_answers import CommitmentAnswers
from appliance.dicom.commitment_spool import CommitmentSpool
from appliance.store.database import open_database

if TYPE_CHECKING:
    from appliance.config import Settings

_log = structlog.get_logger()


class CommitmentReporter(threading.Thread):
    """Reports until the service ends; an error in it ends the service.

    Parameters
    ----------
    settings
        The whole configuration.
    stop
        Ends it, and is set when it ends by an error.

    Attributes
    ----------
    error
        What it ended by; ``None`` otherwise.
    """

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        super().__init__(name="commitment-answers", daemon=True)
        self._settings = settings
        self._stop_asked = stop
        self.error: Exception | None = None

    def run(self) -> None:
        """Look for what is due every ``deliver.poll_s``."""
        deliver, box = self._settings.deliver, self._settings.box
        backoff = Backoff(deliver.retry_first_s, deliver.retry_longest_s)
        try:
            with open_database(box.database, check=False) as store:
                spool = CommitmentSpool(box.spool)
                answers = CommitmentAnswers(store, spool, self._settings.receive, backoff, self._stop_asked)
                while not self._stop_asked.is_set():
                    try:
                        answers.round()
                    except OSError as error:
                        _log.error("commitment_not_reported", error=error.strerror)
                    self._stop_asked.wait(deliver.poll_s)
        except Exception as error:  # noqa: BLE001  # not swallowed
            # Told by the main thread, which ends the service: its manager starts it again.
            self.error = error
            self._stop_asked.set()
