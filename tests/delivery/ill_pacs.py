"""A PACS with one illness at a time, read from a file at each request: ``ill_pacs.py PORT FOLDER``."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.sop_class import (
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    Verification,
)

if TYPE_CHECKING:
    from pynetdicom.events import Event

FOLDER = Path(sys.argv[2])
CLASSES = {"sr": ComprehensiveSRStorage, "seg": SegmentationStorage, "capture": SecondaryCaptureImageStorage}


def illness() -> list[str]:
    return (FOLDER / "illness").read_text().split()


def on_requested(event: Event) -> None:
    """Choose what is accepted; pynetdicom looks at these settings after this."""
    with (FOLDER / "associations").open("a") as file:
        file.write("a")
    words = illness()
    ae = event.assoc.ae
    ae.require_calling_aet = ["SOMEBODY"] if "unknown_caller" in words else []
    ae.require_called_aet = "other_title" in words
    if "other_title" in words:
        event.assoc.acceptor.ae_title = "RENAMED"
    refused = {uid for kind, uid in CLASSES.items() if f"refuse_{kind}" in words}
    event.assoc.acceptor.supported_contexts = [
        context for context in event.assoc.acceptor.supported_contexts if context.abstract_syntax not in refused
    ]


def talkative(status: int) -> Dataset:
    """A failure with a comment that names a patient, tries to drive a terminal and does not end."""
    answer = Dataset()
    answer.Status = status
    answer.ErrorComment = "\x07\rZhang^San\n\x08" + "x" * 500
    return answer


def on_store(event: Event) -> int | Dataset:
    words = illness()
    if "drop" in words:
        event.assoc.abort()
        return 0x0000
    if "hang" in words:
        time.sleep(600)
    if "slow" in words:
        time.sleep(0.05)
    for word in words:
        if word.startswith("0x"):
            code, _, kind = word.partition("=")
            if not kind or event.request.AffectedSOPClassUID == CLASSES[kind]:
                return talkative(int(code, 16)) if "comment" in words else int(code, 16)
    digest = hashlib.sha256(event.request.DataSet.getvalue()).hexdigest()
    with (FOLDER / "arrived").open("a") as file:
        file.write(f"{event.request.AffectedSOPInstanceUID} {digest}\n")
        file.flush()
        os.fsync(file.fileno())
    if "drop_after" in words:
        event.assoc.abort()
    return int(next((word[5:] for word in words if word.startswith("warn=")), "0"), 16)


ae = AE(ae_title="PACS")
ae.add_supported_context(Verification)
for uid in CLASSES.values():
    ae.add_supported_context(uid, ALL_TRANSFER_SYNTAXES)
server = ae.start_server(
    ("127.0.0.1", int(sys.argv[1])),
    block=False,
    evt_handlers=[(evt.EVT_C_STORE, on_store), (evt.EVT_REQUESTED, on_requested)],
)
(FOLDER / "ready").touch()
time.sleep(3600)
