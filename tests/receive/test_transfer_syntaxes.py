"""Every transfer syntax of the port, stored byte for byte as it was sent."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from pydicom.uid import UID, CTImageStorage

from appliance.dicom.image.codecs import COMPRESSED_SYNTAXES
from appliance.dicom.network.sender import send
from appliance.dicom.network.transfer_syntaxes import RECEIVED_TRANSFER_SYNTAXES
from appliance.dicom.uids import CT_STORAGE_CLASSES, NATIVE_SYNTAXES
from tests.receive.conftest import (
    CALLED,
    SENDER,
    associate,
    data_set_bytes,
    eventually,
    list_associations,
    make_instance,
)

if TYPE_CHECKING:
    from appliance.dicom.network.receiver import Receiver

CODECS = Path(__file__).parents[2].parent / "shared" / "data" / "codecs"

# What dcmtk must be told to propose besides its defaults.
DCMTK_OPTIONS = {
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.5": "-xr",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
}


def received(spool: Path) -> list[Path]:
    associations = eventually(lambda: [each for each in list_associations(spool) if each.closed])
    return [path for association in associations for path in association.instances]


@pytest.mark.parametrize("syntax", RECEIVED_TRANSFER_SYNTAXES)
def test_is_stored_byte_for_byte(syntax: str, receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    path = make_instance(tmp_path / "one.dcm", transfer_syntax=syntax)
    report = send([path], host="127.0.0.1", port=receiver.port, called_ae=CALLED, calling_ae=SENDER)
    assert report.ok, report
    (stored,) = received(spool)
    assert data_set_bytes(stored) == data_set_bytes(path)


@pytest.mark.parametrize("syntax", RECEIVED_TRANSFER_SYNTAXES)
def test_file_names_its_transfer_syntax(syntax: str, receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    path = make_instance(tmp_path / "one.dcm", transfer_syntax=syntax)
    send([path], host="127.0.0.1", port=receiver.port, called_ae=CALLED, calling_ae=SENDER)
    sent, stored = dcmread(path), dcmread(received(spool)[0])
    assert stored.file_meta.TransferSyntaxUID == syntax
    assert stored.file_meta.MediaStorageSOPInstanceUID == sent.SOPInstanceUID
    assert stored.file_meta.SourceApplicationEntityTitle == SENDER
    assert stored == sent


@pytest.mark.skipif(not shutil.which("storescu"), reason="dcmtk is not installed")
@pytest.mark.parametrize("syntax", DCMTK_OPTIONS)
def test_dcmtk_can_send_it(syntax: str, receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    path = make_instance(tmp_path / "one.dcm", transfer_syntax=syntax)
    command = ["storescu", "-R", DCMTK_OPTIONS[syntax], "-aet", SENDER, "-aec", CALLED, "127.0.0.1"]
    done = subprocess.run([*command, str(receiver.port), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (stored,) = received(spool)
    # Its pixels may lie otherwise in the file, but they and their transfer syntax are the same.
    assert dcmread(stored).file_meta.TransferSyntaxUID == syntax
    assert dcmread(stored).PixelData == dcmread(path).PixelData


@pytest.mark.skipif(not CODECS.exists(), reason="the shared data are not here")
def test_real_compressed_images_are_stored_byte_for_byte(receiver: Receiver, spool: Path) -> None:
    paths = sorted(CODECS.glob("*.dcm"))
    report = send(paths, host="127.0.0.1", port=receiver.port, called_ae=CALLED, calling_ae=SENDER)
    assert report.ok, report
    stored = received(spool)
    assert [data_set_bytes(path) for path in stored] == [data_set_bytes(path) for path in paths]


@pytest.mark.skipif(not (CODECS.exists() and shutil.which("dcmsend")), reason="no shared data or no dcmtk")
def test_dcmsend_sends_real_compressed_images(receiver: Receiver, spool: Path) -> None:
    paths = sorted(CODECS.glob("CT*.dcm"))
    command = ["dcmsend", "--no-uid-checks", "-aet", SENDER, "-aec", CALLED, "127.0.0.1", str(receiver.port)]
    subprocess.run(command + list(map(str, paths)), check=True, env=os.environ | {"TCP_NODELAY": "1"})
    assert len(received(spool)) == len(paths)


def test_sender_s_first_choice_is_taken(receiver: Receiver) -> None:
    # It names first what it holds; another choice would make it convert.
    wanted = ["1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
    association = associate(receiver, (CTImageStorage, wanted))
    assert association.accepted_contexts[0].transfer_syntax == [wanted[0]]
    association.release()


def chosen(receiver: Receiver, *contexts: tuple[str, list[str]]) -> list[str]:
    """Return the transfer syntax of each accepted context, in the order of the contexts."""
    association = associate(receiver, *contexts)
    association.release()
    return [str(context.transfer_syntax[0]) for context in association.accepted_contexts]


EXPLICIT, BASELINE, EXTENDED, JPEG_LS = "1.2.1", "1.2.4.50", "1.2.4.51", "1.2.4.80"


@pytest.mark.parametrize("sop_class", sorted(CT_STORAGE_CLASSES))
@pytest.mark.parametrize(
    ("proposed", "taken"),
    [
        ([BASELINE, EXPLICIT], EXPLICIT),
        (["1.2.4.81", "1.2.4.91", "1.2.4.203", JPEG_LS, EXPLICIT], JPEG_LS),
        ([EXTENDED, BASELINE], BASELINE),
        ([EXTENDED, EXPLICIT], EXPLICIT),
        (["1.2.4.91", BASELINE], "1.2.4.91"),
        ([BASELINE], BASELINE),
        ([EXTENDED], EXTENDED),
    ],
)
def test_ct_comes_without_loss_where_it_can(
    sop_class: str, proposed: list[str], taken: str, receiver: Receiver
) -> None:
    root = "1.2.840.10008."
    assert chosen(receiver, (sop_class, [root + tail for tail in proposed])) == [root + taken]


def test_other_objects_come_as_the_sender_holds_them(receiver: Receiver) -> None:
    secondary_capture = "1.2.840.10008.5.1.4.1.1.7"
    wanted = ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1"]
    assert chosen(receiver, (secondary_capture, wanted)) == [wanted[0]]


def test_each_context_of_a_class_is_decided_by_itself(receiver: Receiver) -> None:
    lossless, explicit, implicit = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
    orders = [[lossless, explicit, implicit], [implicit, explicit, lossless], ["1.2.840.10008.1.2.4.50"]]
    assert chosen(receiver, *((CTImageStorage, order) for order in orders)) == [order[0] for order in orders]


def test_what_is_received_can_be_read() -> None:
    assert set(RECEIVED_TRANSFER_SYNTAXES) == NATIVE_SYNTAXES | COMPRESSED_SYNTAXES


def test_unknown_transfer_syntax_is_not_negotiated(receiver: Receiver) -> None:
    association = associate(
        receiver, (CTImageStorage, "1.2.840.10008.1.2.4.100"), ("1.2.840.10008.1.1", "1.2.840.10008.1.2")
    )
    (refused,) = association.rejected_contexts
    assert refused.result == 0x04
    association.release()


@pytest.mark.parametrize("syntax", RECEIVED_TRANSFER_SYNTAXES)
def test_names_are_the_standard_s(syntax: str) -> None:
    assert RECEIVED_TRANSFER_SYNTAXES[syntax].split()[0] in UID(syntax).name
