"""Who may open an association, and what those who may not are told."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from pydicom.uid import CTImageStorage

from appliance.dicom.spool import SpoolError
from tests.receive.conftest import CALLED, SENDER, associate, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pynetdicom.association import Association

    from appliance.dicom.network.receiver import Receiver

GIB = 1 << 30


def rejection(association: Association) -> tuple[int, int, int]:
    """Return result, source and reason of an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""
    assert association.is_rejected
    answer = association.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


def test_known_caller_is_admitted(receiver: Receiver) -> None:
    association = associate(receiver)
    assert association.is_established
    association.release()


def test_echo_is_answered(receiver: Receiver) -> None:
    association = associate(receiver, ("1.2.840.10008.1.1", "1.2.840.10008.1.2"))
    assert association.send_c_echo().Status == 0
    association.release()


@pytest.mark.skipif(not shutil.which("echoscu"), reason="dcmtk is not installed")
def test_dcmtk_echo_is_answered(receiver: Receiver) -> None:
    subprocess.run(["echoscu", "-aet", SENDER, "-aec", CALLED, "127.0.0.1", str(receiver.port)], check=True)


def test_any_pdu_size_is_offered(receiver: Receiver) -> None:
    association = associate(receiver)
    assert association.acceptor.maximum_length == 0
    association.release()


# Repeated, because a rejection that races with the closing of the connection fails only now and then.
@pytest.mark.parametrize("_", range(20))
def test_unknown_calling_ae_title(receiver: Receiver, _: int) -> None:
    assert rejection(associate(receiver, calling="STRANGER")) == (1, 1, 3)


def test_unknown_called_ae_title(receiver: Receiver) -> None:
    assert rejection(associate(receiver, called="ELSEWHERE")) == (1, 1, 7)


def test_called_ae_title_may_be_left_unchecked(start_receiver: Callable[..., Receiver]) -> None:
    association = associate(start_receiver(check_called_ae_title=False), called="ELSEWHERE")
    assert association.is_established
    association.release()


def test_right_title_from_the_wrong_address(start_receiver: Callable[..., Receiver]) -> None:
    receiver = start_receiver(peers=[{"ae_title": SENDER, "address": "10.1.2.0/24"}])
    assert rejection(associate(receiver)) == (1, 1, 3)


def test_right_title_and_right_address_of_different_entries(start_receiver: Callable[..., Receiver]) -> None:
    receiver = start_receiver(
        peers=[{"ae_title": SENDER, "address": "10.1.2.3"}, {"ae_title": "OTHER", "address": "127.0.0.1"}]
    )
    assert rejection(associate(receiver)) == (1, 1, 3)


def test_an_empty_list_admits_nobody(start_receiver: Callable[..., Receiver]) -> None:
    assert rejection(associate(start_receiver(peers=[]))) == (1, 1, 3)


def test_network_admits_its_addresses(start_receiver: Callable[..., Receiver]) -> None:
    association = associate(start_receiver(peers=[{"ae_title": SENDER, "address": "127.0.0.0/8"}]))
    assert association.is_established
    association.release()


def test_too_many_associations_are_refused_for_now(start_receiver: Callable[..., Receiver]) -> None:
    receiver = start_receiver(maximum_associations=2)
    held = [associate(receiver), associate(receiver)]
    assert rejection(associate(receiver)) == (2, 3, 2)
    for association in held:
        association.release()
    eventually(lambda: receiver.statistics.associations_open == 0)
    again = associate(receiver)
    assert again.is_established
    again.release()


def test_below_the_disk_reserve_is_refused_for_now(start_receiver: Callable[..., Receiver]) -> None:
    receiver = start_receiver(disk_reserve_mib=1024, free_space=lambda _: GIB - 1)
    assert rejection(associate(receiver)) == (2, 3, 1)


def test_at_the_disk_reserve_is_admitted(start_receiver: Callable[..., Receiver]) -> None:
    association = associate(start_receiver(disk_reserve_mib=1024, free_space=lambda _: GIB))
    assert association.is_established
    association.release()


def test_a_check_that_fails_admits_nobody(start_receiver: Callable[..., Receiver]) -> None:
    def broken(_: Path) -> int:
        raise OSError("no such device")

    assert rejection(associate(start_receiver(disk_reserve_mib=1, free_space=broken))) == (2, 1, 1)


def test_refusals_are_counted(receiver: Receiver) -> None:
    associate(receiver, calling="STRANGER")
    eventually(lambda: receiver.statistics.associations_refused == 1)
    assert receiver.statistics.associations == 0


def test_query_retrieve_is_not_offered(receiver: Receiver) -> None:
    find = "1.2.840.10008.5.1.4.1.2.2.1"
    association = associate(receiver, (find, "1.2.840.10008.1.2"), (CTImageStorage, "1.2.840.10008.1.2"))
    assert [str(each.abstract_syntax) for each in association.rejected_contexts] == [find]
    association.release()


def test_the_port_answers_itself(receiver: Receiver) -> None:
    assert receiver.check_self()
    assert receiver.statistics.associations == 0


def test_the_port_answers_itself_when_nobody_else_may_come(start_receiver: Callable[..., Receiver]) -> None:
    receiver = start_receiver(peers=[], disk_reserve_mib=1, free_space=lambda _: 0)
    assert receiver.check_self()


def test_a_stopped_port_does_not_answer_itself(receiver: Receiver) -> None:
    port = receiver.port
    receiver.stop()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_taken_port_is_a_sentence(receiver: Receiver, start_receiver: Callable[..., Receiver], tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match=f"cannot start on 127.0.0.1 port {receiver.port}"):
        start_receiver(port=receiver.port, root=tmp_path / "other")


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\xff\xff\xff\xff", b"\x04\x00\x00\x00\x00\x04abcd"]
)
def test_noise_on_the_port_does_no_harm(receiver: Receiver, noise: bytes) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port), 5) as connection:
        connection.sendall(noise)
        connection.settimeout(10)
        while connection.recv(4096):
            pass
    assert receiver.check_self()


def test_silent_connections_do_not_hold_up_others(receiver: Receiver) -> None:
    silent = [socket.create_connection(("127.0.0.1", receiver.port), 5) for _ in range(10)]
    association = associate(receiver)
    assert association.is_established
    association.release()
    for connection in silent:
        connection.close()


def test_a_flood_of_connections_is_cut_off(start_receiver: Callable[..., Receiver]) -> None:
    receiver = start_receiver(maximum_associations=1, network_timeout_s=1.0)
    flood = [socket.create_connection(("127.0.0.1", receiver.port), 5) for _ in range(60)]
    for connection in flood:
        connection.close()
    assert eventually(receiver.check_self)
