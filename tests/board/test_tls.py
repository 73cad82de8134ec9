"""HTTPS, and a certificate for the PC in place of a password, with the real server."""

import socket
import ssl

import httpx
import pytest

from tests.health.conftest import Authority
from tests.machine import wait_until

from .room import Room, Visitor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    folder = tmp_path_factory.mktemp("authorities")
    return Authority(folder / "hospital", "hospital"), Authority(folder / "stranger", "stranger")


def context(hospital: Authority, certificate=None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=hospital.certificate)
    if certificate:
        made.load_cert_chain(*certificate)
    return made


def tls(authority: Authority, **more) -> dict:
    certificate, key = authority.issue("board")
    return {"certificate": certificate, "private_key": key} | more


def test_https_with_the_password(room, authorities, visit):
    hospital, _ = authorities
    room.add_scan("A1")
    board = room.start(tls=tls(hospital))
    visitor = visit(board, verify=context(hospital), logged_in=False)
    answer = visitor.log_in()
    assert answer.headers["set-cookie"].startswith("__Host-board=")
    assert "Secure" in answer.headers["set-cookie"]
    assert "A1" in visitor.get("/").text
    sent = {"language": "zh"}
    assert visitor.post("/language", sent, headers={"Origin": board.url}).status_code == 303
    assert visitor.post("/language", sent, headers={"Origin": board.url.replace("https", "http")}).status_code == 403


def test_http_on_the_https_port_is_not_answered(room, authorities):
    board = room.start(tls=tls(authorities[0]))
    with socket.create_connection(("127.0.0.1", board.port), timeout=30) as connection:
        connection.sendall(b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            assert b"HTTP/1.1 200" not in connection.recv(1000)
        except ConnectionError:
            return


def test_old_protocols_are_refused(room, authorities):
    board = room.start(tls=tls(authorities[0]))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("DEFAULT@SECLEVEL=0")  # or this side would not even ask
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", board.port), timeout=30) as connection,
        pytest.raises(ssl.SSLError, match=r"ALERT|EOF"),
    ):
        old.wrap_socket(connection)


def test_a_certificate_in_place_of_the_password(room: Room, authorities):
    hospital, stranger = authorities
    (alert,) = room.raise_alert(room.add_scan("A1"))
    board = room.start(tls=tls(hospital, trusted=hospital.certificate), password_file=None)
    with Visitor(board.url, verify=context(hospital, hospital.issue("scanner-pc"))) as visitor:
        wait_until(lambda: "Open alerts: 1" in visitor.get("/").text, "the alert")
        assert "Log out" not in visitor.get("/").text
        assert visitor.post("/acknowledge", {"name": "Li Wei", "alerts": str(alert)}).status_code == 303
        assert visitor.post("/acknowledge", {"name": "Li Wei", "alerts": "1"}, token="0" * 64).status_code == 403
    with room.store() as store:
        assert store.alerts.get(alert).acknowledged_by == "Li Wei"
    for certificate in (None, stranger.issue("scanner-pc")):
        with (
            Visitor(board.url, verify=context(hospital, certificate)) as visitor,
            pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)),
        ):
            visitor.get("/")


def test_a_certificate_and_the_password(room, authorities):
    hospital, _ = authorities
    room.add_scan("A1")
    board = room.start(tls=tls(hospital, trusted=hospital.certificate))
    with Visitor(board.url, verify=context(hospital, hospital.issue("scanner-pc"))) as visitor:
        assert visitor.get("/").status_code == 303
        assert visitor.log_in().headers["location"] == "/"


def test_a_browser_over_https(room, authorities, browse):
    room.add_scan("A1")
    board = room.start(tls=tls(authorities[0]))
    browser = browse(board.url, arguments=("--ignore-certificate-errors",))
    browser.log_in()
    browser.wait_text("#scans", "A1")
    browser.run("window.mark = 1")
    room.raise_alert(1)
    browser.wait_text("#cards", "Aorta")
    assert browser.run("return window.mark") == 1
    assert browser.complaints() == []
