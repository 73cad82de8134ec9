"""A disk that is full, failing or read-only: a readable status, nothing left behind, and the port stays up."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from appliance.dicom.spool import Opened, Room, Spool
from appliance.dicom.uids import MODALITY_PERFORMED_PROCEDURE_STEP as MPPS
from appliance.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL as PUSH
from appliance.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE as WELL_KNOWN
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
from tests.receive.test_commitment_requests import asked
from tests.receive.test_procedure_steps import in_progress
from tests.small_disk import small_disk as mounted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from appliance.dicom.network.receiver import Receiver

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a real file system of 2 MiB."""
    with mounted(tmp_path / "small", 2048) as folder:
        yield folder


def test_full_disk_while_receiving(small_disk: Path, start_receiver: Callable[..., Receiver], tmp_path: Path) -> None:
    # The receiver is made to believe in free space, so that the kernel is what says no.
    receiver = start_receiver(root=small_disk / "spool", free_space=lambda _: 1 << 40)
    association = associate(receiver)
    paths = make_series(tmp_path / "ct", 8, size=512 * 1024)
    answers = [association.send_c_store(dcmread(path)) for path in paths]
    kept = [path for path, answer in zip(paths, answers, strict=True) if answer.Status == 0]
    assert 0 < len(kept) < len(paths)
    for answer in answers:
        assert answer.Status in (0, 0xA700)
        if answer.Status:
            assert answer.ErrorComment == "The receiver's disk is full; send again later"
    association.release()
    (found,) = list_associations(small_disk / "spool")
    assert [data_set_bytes(path) for path in found.instances] == [data_set_bytes(path) for path in kept]
    assert not list(small_disk.rglob("*.part"))
    assert receiver.check_self()


def test_the_end_is_written_once_there_is_room(
    small_disk: Path, start_receiver: Callable[..., Receiver], tmp_path: Path
) -> None:
    receiver = start_receiver(root=small_disk / "spool")
    association = associate(receiver)
    assert association.send_c_store(dcmread(make_instance(tmp_path / "one.dcm"))).Status == 0
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))
    association.release()
    eventually(lambda: receiver.statistics.associations_open == 0)
    assert list_associations(small_disk / "spool")[0].closed is None
    filler.unlink()
    receiver.housekeeping()
    assert list_associations(small_disk / "spool")[0].closed is not None


def test_a_full_disk_does_not_keep_the_receiver_from_starting(
    small_disk: Path, start_receiver: Callable[..., Receiver]
) -> None:
    root = small_disk / "spool"
    with Spool(root) as spool:
        spool.open_folder(Room.ASSOCIATIONS, "one", Opened(SENDER, CALLED, "10.1.2.3", "", 42)).store(b"data")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))
    receiver = start_receiver(root=root)
    assert receiver.check_self()
    assert list_associations(root)[0].closed is None
    receiver.housekeeping()
    filler.unlink()
    receiver.housekeeping()
    assert list_associations(root)[0].closed is not None


def test_reserve_reached_within_an_association(
    start_receiver: Callable[..., Receiver], spool: Path, tmp_path: Path
) -> None:
    free = [100 * MIB]
    receiver = start_receiver(disk_reserve_mib=10, free_space=lambda _: free[0])
    association = associate(receiver)
    one, two, three = make_series(tmp_path / "ct", 3)
    assert association.send_c_store(dcmread(one)).Status == 0
    free[0] = 10 * MIB
    refused = association.send_c_store(dcmread(two))
    assert (refused.Status, refused.ErrorComment) == (
        0xA700,
        "The receiver's disk is nearly full; send again later",
    )
    free[0] = 100 * MIB
    assert association.send_c_store(dcmread(three)).Status == 0
    association.release()
    assert len(list_associations(spool)[0].instances) == 2


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Make a folder read-only for everybody, root included."""
    if os.geteuid() != 0:
        yield lambda folder: folder.chmod(0o500)
        return
    mounted: list[Path] = []

    def make(folder: Path) -> None:
        bind = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, check=False)
        if bind.returncode != 0:
            pytest.skip("this machine does not let root mount")
        mounted.append(folder)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_read_only_folder(
    start_receiver: Callable[..., Receiver], spool: Path, tmp_path: Path, read_only_disk: Callable[[Path], None]
) -> None:
    receiver = start_receiver()
    read_only_disk(spool / "associations")
    association = associate(receiver)
    answer = association.send_c_store(dcmread(make_instance(tmp_path / "one.dcm")))
    assert answer.Status == 0xA700
    assert answer.ErrorComment == "The receiver may not write to its disk; call its service"
    association.release()
    assert receiver.check_self()


def test_failing_sync_is_no_success(
    receiver: Receiver, spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    association = associate(receiver)
    assert association.send_c_store(dcmread(make_instance(tmp_path / "one.dcm"))).Status == 0

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        answer = association.send_c_store(dcmread(make_instance(tmp_path / "two.dcm")))
    assert (answer.Status, answer.ErrorComment) == (0xA700, "The receiver's disk failed; call its service")
    association.release()
    assert len(list(spool.rglob("*.dcm"))) == 1


def test_a_defect_fails_one_instance_only(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError

    association = associate(receiver)
    with monkeypatch.context() as patched:
        patched.setattr("appliance.dicom.network.intake.glance", defect)
        answer = association.send_c_store(dcmread(make_instance(tmp_path / "one.dcm")))
    assert (answer.Status, answer.ErrorComment) == (0x0110, "The receiver failed; its log tells why")
    assert association.send_c_store(dcmread(make_instance(tmp_path / "two.dcm"))).Status == 0
    association.release()


def test_messages_on_a_full_disk_are_answered_and_taken_when_there_is_room(
    small_disk: Path, start_receiver: Callable[..., Receiver]
) -> None:
    # Not even the folders can be made, and the port opens all the same.
    filler = small_disk / "filler"
    with Spool(small_disk / "spool"), filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(1024))
    receiver = start_receiver(root=small_disk / "spool", free_space=lambda _: 1 << 40)
    contexts = [(uid, ImplicitVRLittleEndian) for uid in (MPPS, PUSH)]
    association = associate(receiver, *contexts)
    assert association.send_n_create(in_progress(), MPPS, "1.2.3")[0].Status == 0x0110
    assert association.send_n_action(asked(), 1, PUSH, WELL_KNOWN)[0].Status == 0x0110
    filler.unlink()
    receiver.housekeeping()
    assert association.send_n_create(in_progress(), MPPS, "1.2.3")[0].Status == 0x0000
    assert association.send_n_action(asked(), 1, PUSH, WELL_KNOWN)[0].Status == 0x0000
    association.release()
    assert not list(small_disk.rglob("*.part"))
