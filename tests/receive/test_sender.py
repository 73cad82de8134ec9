"""What the sender says when something is wrong, and what it sends when nothing is."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, JPEGLSLossless, MRImageStorage
from pynetdicom import _config
from pynetdicom.presentation import build_context

from appliance.dicom.network.link import Link, application_entity, associate
from appliance.dicom.network.sender import SendReport, echo, send
from tests.receive.conftest import CALLED, SENDER, data_set_bytes, eventually, make_instance, make_series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from appliance.dicom.network.receiver import Receiver


def deliver(paths: list[Path], port: int, called: str = CALLED, calling: str = SENDER) -> SendReport:
    return send(paths, host="127.0.0.1", port=port, called_ae=called, calling_ae=calling, timeout_s=10)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """dcmtk's receiver, which accepts uncompressed images only."""
    if not shutil.which("storescp"):
        pytest.skip("dcmtk is not installed")
    folder = tmp_path / "storescp"
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(["storescp", "-aet", CALLED, "-od", str(folder), str(port)])
    eventually(lambda: echo(host="127.0.0.1", port=port, called_ae=CALLED, calling_ae=SENDER, timeout_s=5).ok)
    yield port, folder
    process.terminate()
    process.wait()


def test_all_files_are_reported_in_order(receiver: Receiver, tmp_path: Path) -> None:
    paths = make_series(tmp_path / "ct", 5)
    report = deliver(paths, receiver.port)
    assert [each.path for each in report.results] == paths
    assert (report.ok, report.accepted, report.problem) == (True, 5, None)
    assert report.seconds > 0


def test_progress_is_told(receiver: Receiver, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    paths = make_series(tmp_path / "ct", 3)
    send(
        paths,
        host="127.0.0.1",
        port=receiver.port,
        called_ae=CALLED,
        calling_ae=SENDER,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_what_is_not_dicom_fails_alone(receiver: Receiver, tmp_path: Path) -> None:
    good = make_instance(tmp_path / "good.dcm")
    text = tmp_path / "text.dcm"
    text.write_text("not DICOM")
    report = deliver([text, good, tmp_path / "missing.dcm"], receiver.port)
    assert [each.problem for each in report.results] == [
        "The file is not a DICOM file with file meta information.",
        None,
        "The file cannot be read: No such file or directory.",
    ]
    assert not report.ok


def test_unknown_calling_title_names_the_setting(receiver: Receiver, tmp_path: Path) -> None:
    report = deliver([make_instance(tmp_path / "a.dcm")], receiver.port, calling="STRANGER")
    assert report.permanent
    assert str(report.problem).endswith("does not know the calling AE title STRANGER; add it there.")


def test_unknown_called_title_names_the_setting(receiver: Receiver, tmp_path: Path) -> None:
    report = deliver([make_instance(tmp_path / "a.dcm")], receiver.port, called="WRONG")
    assert report.permanent
    assert "correct the called AE title here" in str(report.problem)


def test_congestion_is_not_permanent(start_receiver: Callable[..., Receiver], tmp_path: Path) -> None:
    receiver = start_receiver(disk_reserve_mib=1, free_space=lambda _: 0)
    report = deliver([make_instance(tmp_path / "a.dcm")], receiver.port)
    assert not report.permanent
    assert "try again later" in str(report.problem)


def test_nobody_there(closed_port: int, tmp_path: Path) -> None:
    report = deliver([make_instance(tmp_path / "a.dcm")], closed_port)
    assert not report.permanent
    assert "cannot be reached" in str(report.problem)
    assert report.results[0].problem == report.problem


def test_error_comment_is_passed_on(start_receiver: Callable[..., Receiver], tmp_path: Path) -> None:
    receiver = start_receiver(maximum_instance_mib=1)
    large, good = make_instance(tmp_path / "l.dcm", size=2 << 20), make_instance(tmp_path / "g.dcm")
    report = deliver([large, good], receiver.port)
    assert report.results[0].status == 0xA700
    assert "0xA700: The instance is larger than the 1 MiB allowed here." in str(report.results[0].problem)
    assert report.results[1].problem is None


def test_compressed_is_not_recompressed_for_a_plain_peer(storescp: tuple[int, Path], tmp_path: Path) -> None:
    port, folder = storescp
    compressed = make_instance(tmp_path / "c.dcm", transfer_syntax=JPEGLSLossless)
    plain = make_instance(tmp_path / "p.dcm")
    report = deliver([compressed, plain], port)
    assert "does not accept this kind of object in JPEG-LS Lossless" in str(report.results[0].problem)
    assert report.results[1].problem is None
    assert len(list(folder.iterdir())) == 1


def test_bytes_reach_dcmtk_unchanged(storescp: tuple[int, Path], tmp_path: Path) -> None:
    port, folder = storescp
    path = make_instance(tmp_path / "p.dcm")
    assert deliver([path], port).ok
    (stored,) = folder.iterdir()
    assert dcmread(stored) == dcmread(path)


def test_many_kinds_of_objects_go_out(receiver: Receiver, tmp_path: Path) -> None:
    # More kinds than one association has presentation contexts for.
    paths = [make_instance(tmp_path / f"{n}.dcm", sop_class=f"1.2.3.{n}") for n in range(70)]
    report = deliver(paths, receiver.port)
    assert report.accepted == 70
    eventually(lambda: receiver.statistics.associations_open == 0)
    assert receiver.statistics.associations == 2


def test_the_answer_is_kept_for_who_waits_for_it(receiver: Receiver) -> None:
    ae = application_entity(SENDER, 30.0)
    link = associate(ae, [build_context("1.2.840.10008.1.1")], "127.0.0.1", receiver.port, CALLED, None)
    assert isinstance(link, Link)
    with link as association:
        association._reactor_checkpoint.clear()  # as pynetdicom does before it sends
        association.dimse.msg_queue.put((1, "answer"))
        assert association.dimse.get_msg(block=False) == (None, None)  # its own thread looks for requests
        assert association.dimse.get_msg(block=True) == (1, "answer")
        association._reactor_checkpoint.set()


def test_a_series_takes_one_association(receiver: Receiver, tmp_path: Path) -> None:
    paths = make_series(tmp_path / "ct", 3) + make_series(tmp_path / "mr", 3, sop_class=MRImageStorage)
    deliver(paths, receiver.port)
    assert receiver.statistics.associations == 1


def test_implicit_is_sent_as_it_is(receiver: Receiver, spool: Path, tmp_path: Path) -> None:
    path = make_instance(tmp_path / "i.dcm", transfer_syntax="1.2.840.10008.1.2", sop_class=CTImageStorage)
    assert deliver([path], receiver.port).ok
    (stored,) = spool.rglob("*.dcm")
    assert data_set_bytes(stored) == data_set_bytes(path)


def test_nothing_to_send(closed_port: int) -> None:
    report = deliver([], closed_port)
    assert (report.ok, report.results) == (True, ())


def test_sending_changes_no_setting_of_the_library(receiver: Receiver, tmp_path: Path) -> None:
    settings = {name: value for name, value in vars(_config).items() if name.isupper()}
    paths = make_series(tmp_path / "ct", 1)
    assert send(paths, host="127.0.0.1", port=receiver.port, called_ae=CALLED, calling_ae=SENDER).ok
    assert {name: value for name, value in vars(_config).items() if name.isupper()} == settings


def test_echo(receiver: Receiver) -> None:
    assert echo(host="127.0.0.1", port=receiver.port, called_ae=CALLED, calling_ae=SENDER).ok


def test_echo_to_nobody(closed_port: int) -> None:
    report = echo(host="127.0.0.1", port=closed_port, called_ae=CALLED, calling_ae=SENDER)
    assert "cannot be reached" in str(report.problem)


def test_unknown_host_name(tmp_path: Path) -> None:
    report = echo(host="no-such-host.invalid", port=104, called_ae=CALLED, calling_ae=SENDER)
    assert "cannot be found" in str(report.problem)


def test_a_peer_that_goes_away_is_noticed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        import threading

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        report = deliver([make_instance(tmp_path / "a.dcm")], port)
        thread.join()
    assert "broke it off" in str(report.problem)
