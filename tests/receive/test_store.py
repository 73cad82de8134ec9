"""What happens to single instances: kept, set aside, or refused alone."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    EncapsulatedPDFStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    XRayRadiationDoseSRStorage,
    generate_uid,
)
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE

from appliance.dicom.network.sender import send
from appliance.dicom.spool import CloseReason, list_set_aside
from tests.receive.conftest import (
    CALLED,
    SENDER,
    associate,
    data_set_bytes,
    eventually,
    list_associations,
    make_instance,
    make_series,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pynetdicom.association import Association

    from appliance.dicom.network.receiver import Receiver

SIEMENS_CSA_NON_IMAGE = "1.3.12.2.1107.5.9.1"
NEWER_THAN_THIS_SOFTWARE = "1.2.840.10008.5.1.4.1.1.999.1"
MIB = 1 << 20


def send_raw(association: Association, data: bytes | None, **changes: Any) -> Any:
    """Send a C-STORE request whose parts need not fit each other and return the response."""
    context = association.accepted_contexts[0]
    request = C_STORE()
    request.MessageID = 1
    request.Priority = 2
    request.AffectedSOPClassUID = changes.get("sop_class", context.abstract_syntax)
    request.AffectedSOPInstanceUID = changes.get("sop_instance", generate_uid())
    if data is not None:
        request.DataSet = BytesIO(data)
    association._reactor_checkpoint.clear()
    eventually(lambda: association._is_paused)
    association.dimse.send_msg(request, context.context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return response


def good_after(association: Association, path: Path) -> bool:
    """Return whether the association still takes a good instance."""
    return bool(association.send_c_store(dcmread(path)).Status == 0)


@pytest.mark.parametrize("sop_class", [CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage])
def test_ct_is_kept(sop_class: str, receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    path = make_instance(tmp_path / "one.dcm", sop_class=sop_class)
    assert send([path], host="127.0.0.1", port=receiver.port, called_ae=CALLED, calling_ae=SENDER).ok
    (association,) = list_associations(spool)
    assert len(association.instances) == 1
    assert list_set_aside(spool) == []


@pytest.mark.parametrize(
    "sop_class",
    [
        SecondaryCaptureImageStorage,
        BasicTextSRStorage,
        KeyObjectSelectionDocumentStorage,
        GrayscaleSoftcopyPresentationStateStorage,
        XRayRadiationDoseSRStorage,
        EncapsulatedPDFStorage,
        MRImageStorage,
        SIEMENS_CSA_NON_IMAGE,
        NEWER_THAN_THIS_SOFTWARE,
    ],
)
def test_everything_else_is_set_aside(sop_class: str, receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    path = make_instance(tmp_path / "one.dcm", sop_class=sop_class)
    assert send([path], host="127.0.0.1", port=receiver.port, called_ae=CALLED, calling_ae=SENDER).ok
    (association,) = list_set_aside(spool)
    assert [data_set_bytes(each) for each in association.instances] == [data_set_bytes(path)]
    assert list_associations(spool) == []


def test_a_mixed_send_job_is_kept_apart(receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    images = make_series(tmp_path / "ct", 3)
    report = make_instance(tmp_path / "dose.dcm", sop_class=XRayRadiationDoseSRStorage)
    job = [images[0], report, *images[1:]]
    assert send(job, host="127.0.0.1", port=receiver.port, called_ae=CALLED, calling_ae=SENDER).ok
    (association,), (aside,) = list_associations(spool), list_set_aside(spool)
    assert association.name == aside.name
    assert [path.name for path in association.instances] == ["000001.dcm", "000002.dcm", "000003.dcm"]
    eventually(lambda: list_set_aside(spool)[0].closed)
    assert list_set_aside(spool)[0].closed.instances == 1


def test_association_is_described(receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    send(make_series(tmp_path / "ct", 2), host="127.0.0.1", port=receiver.port, called_ae=CALLED, calling_ae=SENDER)
    association = eventually(lambda: [each for each in list_associations(spool) if each.closed])[0]
    assert association.opened.calling_ae_title == SENDER
    assert association.opened.called_ae_title == CALLED
    assert association.opened.peer_address == "127.0.0.1"
    assert association.closed.reason is CloseReason.RELEASED
    assert association.closed.instances == 2


def test_folder_and_files_are_private(receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    send(make_series(tmp_path / "ct", 1), host="127.0.0.1", port=receiver.port, called_ae=CALLED, calling_ae=SENDER)
    (association,) = list_associations(spool)
    assert association.path.stat().st_mode & 0o777 == 0o700
    assert association.instances[0].stat().st_mode & 0o777 == 0o600


def test_names_carry_nothing(receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    (path,) = make_series(tmp_path / "ct", 1, PatientID="SECRET-ID", PatientName="Secret^Name")
    send([path], host="127.0.0.1", port=receiver.port, called_ae=CALLED, calling_ae=SENDER)
    names = " ".join(str(each) for each in spool.rglob("*"))
    assert "SECRET" not in names.upper()
    assert dcmread(path).SOPInstanceUID not in names


def test_an_echo_leaves_no_folder(receiver: Receiver, spool: Path) -> None:
    association = associate(receiver, ("1.2.840.10008.1.1", "1.2.840.10008.1.2"))
    association.send_c_echo()
    association.release()
    eventually(lambda: receiver.statistics.associations_open == 0)
    assert list((spool / "associations").iterdir()) == []


def test_an_aborted_association_keeps_what_was_acknowledged(receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    association = associate(receiver)
    assert good_after(association, make_instance(tmp_path / "one.dcm"))
    association.abort()
    (found,) = eventually(lambda: [each for each in list_associations(spool) if each.closed])
    assert found.closed.reason is CloseReason.ABORTED
    assert len(found.instances) == 1


def test_a_silent_association_times_out(start_receiver: Callable[..., Receiver], spool: Path, tmp_path: Path) -> None:
    association = associate(start_receiver(network_timeout_s=0.5))
    assert good_after(association, make_instance(tmp_path / "one.dcm"))
    (found,) = eventually(lambda: [each for each in list_associations(spool) if each.closed])
    assert found.closed.reason is CloseReason.TIMEOUT
    association.abort()


def test_a_sender_that_stalls_within_an_image_times_out(
    start_receiver: Callable[..., Receiver], spool: Path, tmp_path: Path
) -> None:
    association = associate(start_receiver(network_timeout_s=0.5))
    assert good_after(association, make_instance(tmp_path / "one.dcm"))
    association.dul.socket.socket.sendall(b"\x04\x00\x00\x01\x00\x00half of an image")
    (found,) = eventually(lambda: [each for each in list_associations(spool) if each.closed])
    assert found.closed.reason is CloseReason.TIMEOUT
    assert len(found.instances) == 1
    association.abort()


# --- refused alone ------------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return make_instance(tmp_path / "good.dcm")


def test_without_data_set(receiver: Receiver, good: Path) -> None:
    association = associate(receiver)
    response = send_raw(association, None)
    assert (response.Status, response.ErrorComment) == (0xC000, "The data set is empty")
    assert good_after(association, good)
    association.release()


def test_other_instance_than_named(receiver: Receiver, good: Path) -> None:
    association = associate(receiver)
    response = send_raw(association, data_set_bytes(good))
    assert response.Status == 0xC000
    assert response.ErrorComment == "SOP Instance UID differs between command and data set"
    assert good_after(association, good)
    association.release()


def test_other_class_than_the_context_s(receiver: Receiver, good: Path) -> None:
    association = associate(receiver)
    response = send_raw(association, data_set_bytes(good), sop_class=MRImageStorage)
    assert response.Status == 0xA900
    assert good_after(association, good)
    association.release()


def test_unknown_class_in_the_command(receiver: Receiver, good: Path) -> None:
    association = associate(receiver)
    response = send_raw(association, data_set_bytes(good), sop_class="1.2.3.4")
    assert response.Status == 0xA900
    assert good_after(association, good)
    association.release()


def test_other_class_in_the_data_set(receiver: Receiver, good: Path, tmp_path: Path) -> None:
    other = make_instance(tmp_path / "other.dcm", sop_class=MRImageStorage)
    association = associate(receiver)
    response = send_raw(association, data_set_bytes(other), sop_instance=dcmread(other).SOPInstanceUID)
    assert response.Status == 0xA900
    assert good_after(association, good)
    association.release()


@pytest.mark.parametrize("rubbish", [b"\0" * 4096, b"not DICOM at all " * 100, b"\x08\0", bytes(range(256)) * 16])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, "1.2.840.10008.1.2.1.99"])
def test_rubbish(rubbish: bytes, syntax: str, receiver: Receiver, tmp_path: Path, spool: Path) -> None:
    association = associate(receiver, (CTImageStorage, syntax))
    response = send_raw(association, rubbish)
    assert response.Status == 0xC000
    assert 0 < len(response.ErrorComment) <= 64
    assert good_after(association, make_instance(tmp_path / "good.dcm", transfer_syntax=syntax))
    association.release()
    assert len(list(spool.rglob("*.dcm"))) == 1


def test_too_large(start_receiver: Callable[..., Receiver], good: Path, tmp_path: Path, spool: Path) -> None:
    receiver = start_receiver(maximum_instance_mib=1)
    association = associate(receiver)
    response = association.send_c_store(dcmread(make_instance(tmp_path / "large.dcm", size=2 * MIB)))
    assert response.Status == 0xA700
    assert response.ErrorComment == "The instance is larger than the 1 MiB allowed here"
    assert good_after(association, good)
    association.release()
    assert len(list(spool.rglob("*.dcm"))) == 1


def test_too_large_in_many_pieces(
    start_receiver: Callable[..., Receiver], good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = start_receiver(maximum_instance_mib=1)
    association = associate(receiver)
    monkeypatch.setattr(DIMSEServiceProvider, "maximum_pdu_size", 16384)
    response = association.send_c_store(dcmread(make_instance(tmp_path / "large.dcm", size=3 * MIB)))
    assert response.Status == 0xA700
    assert good_after(association, good)
    association.release()


def test_failures_are_counted_and_named(receiver: Receiver) -> None:
    association = associate(receiver)
    send_raw(association, b"rubbish")
    association.release()
    assert receiver.statistics.failed == 1
    assert receiver.statistics.last_error_status == 0xC000


def test_description_is_json(receiver: Receiver, spool: Path, good: Path) -> None:
    send([good], host="127.0.0.1", port=receiver.port, called_ae=CALLED, calling_ae=SENDER)
    (association,) = eventually(lambda: [each for each in list_associations(spool) if each.closed])
    assert json.loads((association.path / "closed.json").read_text())["reason"] == "released"
