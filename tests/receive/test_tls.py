"""Mutual TLS on the DICOM port: with the right certificate, with a stranger's, with none."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
import structlog

from appliance.config_parts import TlsSettings
from appliance.dicom.network.sender import echo, send
from appliance.errors import ConfigurationError
from tests.receive.conftest import CALLED, SENDER, data_set_bytes, eventually, list_associations, make_series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.dicom.network.receiver import Receiver

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificates")


def openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def authority(folder: Path, name: str) -> None:
    options = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        f"/CN={name}",
    ]
    openssl("req", "-x509", *options, "-keyout", f"{name}.key", "-out", f"{name}.pem", folder=folder)


def certificate(folder: Path, name: str, issuer: str) -> None:
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"]
    openssl("req", *options, "-keyout", f"{name}.key", "-out", f"{name}.csr", folder=folder)
    signing = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-CAcreateserial", "-days", "2"]
    openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem", folder=folder)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("site", "stranger"):
        authority(folder, name)
    certificate(folder, "box", "site")
    certificate(folder, "scanner", "site")
    certificate(folder, "intruder", "stranger")
    for key in folder.glob("*.key"):
        key.chmod(0o600)
    return folder


def files(folder: Path, name: str, trusted: str = "site") -> TlsSettings:
    return TlsSettings(
        certificate=folder / f"{name}.pem", private_key=folder / f"{name}.key", trusted=folder / f"{trusted}.pem"
    )


@pytest.fixture
def secure(start_receiver: Callable[..., Receiver], certificates: Path) -> Receiver:
    return start_receiver(tls=files(certificates, "box").model_dump())


def test_trusted_sender_is_served(secure: Receiver, certificates: Path, spool: Path, tmp_path: Path) -> None:
    paths = make_series(tmp_path / "ct", 3, size=256 * 1024)
    tls = files(certificates, "scanner")
    report = send(paths, host="127.0.0.1", port=secure.port, called_ae=CALLED, calling_ae=SENDER, tls=tls)
    assert report.ok, report
    stored = list_associations(spool)[0].instances
    assert [data_set_bytes(path) for path in stored] == [data_set_bytes(path) for path in paths]


def test_stranger_is_refused(secure: Receiver, certificates: Path) -> None:
    tls = files(certificates, "intruder")
    report = echo(host="127.0.0.1", port=secure.port, called_ae=CALLED, calling_ae=SENDER, tls=tls, timeout_s=5)
    assert not report.ok
    assert secure.statistics.associations == 0


def test_sender_refuses_a_strange_box(secure: Receiver, certificates: Path) -> None:
    tls = files(certificates, "scanner", trusted="stranger")
    report = echo(host="127.0.0.1", port=secure.port, called_ae=CALLED, calling_ae=SENDER, tls=tls, timeout_s=5)
    assert not report.ok
    assert "cannot be reached" in str(report.problem)


def test_without_certificate_is_refused(secure: Receiver) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    answered = b"nothing"
    with (
        socket.create_connection(("127.0.0.1", secure.port), 5) as connection,
        contextlib.suppress(OSError),
        context.wrap_socket(connection) as wrapped,
    ):
        wrapped.sendall(b"\x01\x00\x00\x00\x00\x04abcd")
        answered = wrapped.recv(1)
    assert answered in (b"nothing", b"")


def test_plain_tcp_is_refused(secure: Receiver) -> None:
    report = echo(host="127.0.0.1", port=secure.port, called_ae=CALLED, calling_ae=SENDER, timeout_s=5)
    assert not report.ok
    assert secure.statistics.associations == 0


def test_a_silent_handshake_does_not_hold_up_others(secure: Receiver, certificates: Path) -> None:
    with socket.create_connection(("127.0.0.1", secure.port), 5):
        tls = files(certificates, "scanner")
        assert echo(host="127.0.0.1", port=secure.port, called_ae=CALLED, calling_ae=SENDER, tls=tls).ok


def test_the_secure_port_answers_itself(secure: Receiver) -> None:
    assert secure.check_self()


def test_the_box_does_not_warn_of_its_own_question(secure: Receiver) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with structlog.testing.capture_logs() as logged:
        assert all(secure.check_self() for _ in range(5))
        with socket.create_connection(("127.0.0.1", secure.port), 5) as stranger:
            stranger.sendall(b"no handshake at all")
            eventually(lambda: logged)
    assert [(entry["event"], entry["reason"]) for entry in logged] == [("connection_refused", "tls")]


def test_old_protocols_are_refused(secure: Receiver, certificates: Path) -> None:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{secure.port}", "-tls1_1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert done.returncode != 0


@pytest.mark.skipif(not shutil.which("echoscu"), reason="dcmtk is not installed")
def test_dcmtk_over_tls(secure: Receiver, certificates: Path) -> None:
    keys = ["+tls", str(certificates / "scanner.key"), str(certificates / "scanner.pem")]
    trusted = ["+cf", str(certificates / "site.pem")]
    command = ["echoscu", *keys, *trusted, "-aet", SENDER, "-aec", CALLED, "127.0.0.1", str(secure.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unknown option" in done.stderr.lower():
        pytest.skip("this dcmtk was built without TLS")
    assert done.returncode == 0, done.stderr


def test_a_key_that_others_may_read_is_refused(start_receiver: Callable[..., Receiver], certificates: Path) -> None:
    key = shutil.copy(certificates / "box.key", certificates / "open.key")
    key.chmod(0o640)
    wrong = files(certificates, "box").model_dump() | {"private_key": key}
    with pytest.raises(ConfigurationError, match="chmod 600"):
        start_receiver(tls=wrong)


def test_missing_certificate_is_named(start_receiver: Callable[..., Receiver], certificates: Path) -> None:
    wrong = files(certificates, "nobody").model_dump()
    with pytest.raises(ConfigurationError, match=r"nobody\.pem"):
        start_receiver(tls=wrong)


def test_key_of_another_certificate_is_named(start_receiver: Callable[..., Receiver], certificates: Path) -> None:
    wrong = files(certificates, "box").model_dump() | {"private_key": certificates / "scanner.key"}
    with pytest.raises(ConfigurationError, match="cannot be used as certificate and key"):
        start_receiver(tls=wrong)
