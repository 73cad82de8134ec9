"""Results over STOW-RS: a server with every illness, encryption, and what each answer makes of a scan."""

from __future__ import annotations

import os
import shutil
import threading
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import structlog

from appliance.delivery.backoff import Backoff
from appliance.delivery.outbox_worker import settle
from appliance.dicom.web.stow import instances
from appliance.store.lifecycle import ScanState
from appliance.store.outbox import OutboxState
from tests.delivery.conftest import Pacs
from tests.machine import free_port
from tests.receive.test_tls import authority, openssl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from appliance.delivery.courier import Courier
    from appliance.store.database import Store
    from appliance.store.outbox import OutboxEntry


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    with Pacs.running("ill_stow.py", tmp_path_factory.mktemp("stow")) as peer:
        yield peer


@pytest.fixture
def web(_server: Pacs) -> Pacs:
    """Give the server, well and empty."""
    _server.become("")
    for name in ("arrived", "requests"):
        (_server.folder / name).unlink(missing_ok=True)
    return _server


def requests(web: Pacs) -> list[list[str]]:
    path = web.folder / "requests"
    return [line.split(" ", 2) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def served(stow: Callable[..., Courier], web: Pacs) -> Courier:
    return stow(f"http://127.0.0.1:{web.port}/dicom-web")


def entry_of(store: Store, scan_id: int) -> OutboxEntry:
    (entry,) = store.outbox.of_scan(scan_id)
    return entry


def until_done(store: Store, scan_id: int, courier: Courier) -> None:
    for _ in range(200):
        if entry_of(store, scan_id).state is OutboxState.DONE:
            return
        courier.round()
        threading.Event().wait(0.01)
    pytest.fail(f"not done: {entry_of(store, scan_id)}")


def test_a_scan_goes_over_in_one_request_and_is_done(screen, served, web, store):
    scan_id, uids = screen()
    served.round()
    settle(store)
    assert store.scans.get(scan_id).state is ScanState.DONE
    assert web.uids == uids
    assert [line[0] for line in requests(web)] == ["/dicom-web/studies"]
    assert set(store.deliveries.confirmed(entry_of(store, scan_id).key)) == uids


def test_of_a_partial_success_only_what_is_missing_is_sent_again(screen, served, web, store):
    web.become("fail_seg=A700")
    scan_id, uids = screen()
    served.round()
    entry = entry_of(store, scan_id)
    assert (entry.state, entry.attempts) == (OutboxState.WAITING, 1)
    assert "failure reason 0xA700" in entry.reason
    assert len(store.deliveries.confirmed(entry.key)) == 2
    web.become("")
    until_done(store, scan_id, served)
    assert sorted(uid for uid, _ in web.arrived()) == sorted(uids)


@pytest.mark.parametrize(
    ("illness", "sentence"),
    [
        ("fail_seg=0122", ('does not take Segmentation Storage (1.2.840.10008.5.1.4.1.1.66.4): have it accept this SOP '
         'class, or leave "seg" out of its kinds in deliver.dicomweb')),
        ("fail_sr=A900", "has not stored this Comprehensive SR Storage"),
        ("401", ("(HTTP 401): correct username, secret_file or certificate of "
         'deliver.dicomweb "pacs", or allow it there')),
        ("403", "does not let this box store (HTTP 403)"),
        ("404", ('There is no STOW-RS at http://127.0.0.1:{port}/dicom-web/studies (HTTP 404): correct url of '
         'deliver.dicomweb "pacs"')),
        ("415", "does not take DICOM files in a multipart/related request"),
        ("413>100", "raise its limit, or that of the proxy before it"),
        ("301 Location=https://elsewhere.example/dicom-web/studies", "redirects to https://elsewhere.example/dicom-web"),
    ],
)  # fmt: skip
def test_what_is_permanent_is_parked_at_once_with_the_setting_and_goes_on_when_mended(
    screen, served, web, store, illness, sentence
):
    web.become(illness)
    scan_id, uids = screen()
    served.round()
    settle(store)
    scan = store.scans.get(scan_id)
    assert scan.state is ScanState.PARKED
    assert sentence.replace("{port}", str(web.port)) in scan.reason.text
    web.become("")
    store.scans.retry(scan_id)
    until_done(store, scan_id, served)
    assert sorted(uid for uid, _ in web.arrived()) == sorted(uids)


def test_a_busy_server_is_left_alone_as_long_as_it_asks(screen, stow, web, store):
    web.become("503 Retry-After=77")
    first, _ = screen()
    second, _ = screen()
    stow(f"http://127.0.0.1:{web.port}", backoff=Backoff(0.001, 3600.0)).round()
    entry = entry_of(store, first)
    assert "is busy (HTTP 503) and wants to be left alone for 77 s" in entry.reason
    assert entry.next_try_at - entry.created_at >= 77
    assert entry_of(store, second).attempts == 0  # one scan asks for all
    assert len(requests(web)) == 1


@pytest.mark.parametrize("illness", ["drop", "drop_early", "drop_after"])
def test_a_server_that_drops_is_asked_again_with_the_same_objects(screen, served, web, store, illness):
    web.become(illness)
    scan_id, uids = screen()
    served.round()
    assert entry_of(store, scan_id).state is OutboxState.WAITING
    assert "broke off the connection" in entry_of(store, scan_id).reason
    web.become("")
    until_done(store, scan_id, served)
    assert web.uids == uids
    assert len(set(web.arrived())) == len(uids)


@pytest.mark.slow
def test_a_server_that_hangs_is_left_after_the_time_out(screen, stow, web, store):
    web.become("hang")
    scan_id, _ = screen()
    stow(f"http://127.0.0.1:{web.port}", timeout_s=1.0).round()
    assert "did not answer within timeout_s = 1" in entry_of(store, scan_id).reason
    assert entry_of(store, scan_id).state is OutboxState.WAITING


def test_a_portal_that_says_200_to_everything_is_no_delivery(screen, served, web, store):
    web.become("portal")
    scan_id, _ = screen()
    for _ in range(200):
        served.round()
        if entry_of(store, scan_id).state is OutboxState.PARKED:
            break
    entry = entry_of(store, scan_id)
    assert (entry.state, entry.attempts) == (OutboxState.PARKED, 5)
    assert "without naming" in entry.reason
    assert store.deliveries.confirmed(entry.key) == {}


def test_one_object_too_large_costs_no_other(screen, served, web, store, results):
    scan_id, _ = screen(("sr", "capture"))
    (path,) = (results / store.scans.get(scan_id).folder / "objects").glob("*capture*")
    path.write_bytes(path.read_bytes() + b"\x42\x00\x11\x00OB\x00\x00\x00\x10\x00\x00" + bytes(4096))
    web.become("413>2000")
    served.round()
    assert len(web.arrived()) == 1
    assert "takes no request as large as 1-capture.dcm (0.0 MiB)" in entry_of(store, scan_id).reason


def test_nobody_there_is_one_try_for_all(screen, stow, store):
    scans = [screen()[0] for _ in range(3)]
    away = stow(f"http://127.0.0.1:{free_port()}", backoff=Backoff(600.0, 600.0))
    for _ in range(3):
        away.round()
    assert [entry_of(store, scan_id).attempts for scan_id in scans] == [1, 0, 0]
    assert "cannot be reached" in entry_of(store, scans[0]).reason


def test_token_and_password_are_read_from_private_files_and_told_nobody(screen, stow, web, store, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o644)
    scan_id, _ = screen()
    url = f"http://127.0.0.1:{web.port}"
    with structlog.testing.capture_logs() as logs:
        stow(url, secret_file=secret).round()
        assert "run `chmod 600" in entry_of(store, scan_id).reason
        assert requests(web) == []
        secret.chmod(0o600)
        stow(url, secret_file=secret).round()
    assert entry_of(store, scan_id).state is OutboxState.DONE
    stow(url, username="box", secret_file=secret)
    screen()
    stow(url, username="box", secret_file=secret).round()
    assert [line[2] for line in requests(web)] == ["Bearer s3cret", "Basic Ym94OnMzY3JldA=="]
    assert "s3cret" not in str(logs)


def test_a_renewed_secret_takes_up_what_was_parked(screen, stow, web, store, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("old")
    secret.chmod(0o600)
    web.become("401")
    scan_id, _ = screen()
    url = f"http://127.0.0.1:{web.port}"
    stow(url, secret_file=secret).round()
    settle(store)
    assert "correct secret_file of" in store.scans.get(scan_id).reason.text
    web.become("")
    secret.write_text("new")
    os.utime(secret, (1e9, 1e9))
    renewed = stow(url, secret_file=secret)
    renewed.begin()
    renewed.round()
    settle(store)
    assert store.scans.get(scan_id).state is ScanState.DONE


def test_a_large_object_goes_over_in_little_memory(screen, served, web, store):
    scan_id, _ = screen(("capture",), size=96 << 20)
    tracemalloc.start()
    served.round()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert entry_of(store, scan_id).state is OutboxState.DONE
    assert peak < 8 << 20


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificates")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("site", "stranger"):
        authority(folder, name)
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("localhost", "box"):
        openssl("req", *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr", folder=folder)
        (folder / "names").write_text(f"subjectAltName=DNS:{name}")
        sign = ["-CA", "site.pem", "-CAkey", "site.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
        openssl("x509", "-req", "-in", f"{name}.csr", *sign, "-out", f"{name}.pem", folder=folder)
    for key in folder.glob("*.key"):
        key.chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def secure(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    """A server that shows a certificate for localhost and asks for one."""
    names = [certificates / name for name in ("localhost.pem", "localhost.key", "site.pem")]
    with Pacs.running("ill_stow.py", tmp_path_factory.mktemp("secure"), *names) as peer:
        yield peer


def test_objects_go_over_https_with_certificates_on_both_sides(screen, stow, secure, certificates, store):
    scan_id, uids = screen()
    own = {"certificate": certificates / "box.pem", "private_key": certificates / "box.key"}
    stow(f"https://localhost:{secure.port}", trusted=certificates / "site.pem", **own).round()
    assert entry_of(store, scan_id).state is OutboxState.DONE
    assert secure.uids >= uids


@pytest.mark.parametrize(
    ("host", "trusted", "said"),
    [
        ("localhost", "stranger", "do not trust each other"),
        ("127.0.0.1", "site", "let url name the host that the certificate names"),
        ("localhost", None, "Set trusted of deliver.dicomweb"),
    ],
)
def test_a_certificate_that_does_not_fit_is_told_and_tried_again(
    screen, stow, secure, certificates, store, host, trusted, said
):
    scan_id, _ = screen()
    files = {"trusted": certificates / f"{trusted}.pem"} if trusted else {}
    stow(f"https://{host}:{secure.port}", **files).round()
    entry = entry_of(store, scan_id)
    assert entry.state is OutboxState.WAITING
    assert said in entry.reason


@pytest.mark.parametrize(
    "text",
    [b"", b"no", b"[]", b"{}", b"7", b'{"00081199": {"Value": [{}]}}', b'{"00081199": 3}', b"[" * 100_000, b"\xff\xfe"],
)
def test_an_answer_that_names_no_instance_confirms_none(text):
    stored, failed = instances(text)
    assert not {"1.2.3"} & stored
    assert "1.2.3" not in failed


def test_an_instance_in_both_sequences_is_not_stored():
    text = (
        b'[{"00081199": {"Value": [{"00081155": {"Value": ["1.2"]}}, {"00081155": {"Value": ["1.3"]}}]},'
        b' "00081198": {"Value": [{"00081155": {"Value": ["1.2"]}, "00081197": {"Value": [272]}}]}}]'
    )
    assert instances(text) == (frozenset({"1.3"}), {"1.2": 272})
