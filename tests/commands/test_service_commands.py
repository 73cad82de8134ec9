"""The commands that look at a running or stopped box, against a real database and real heartbeats."""

from __future__ import annotations

import json
import time
import tomllib

import pytest
from pynetdicom import AE

from appliance.commands.doctor_commitment import commitment
from appliance.config import Settings
from appliance.dicom.commitment_spool import CommitmentRequest, ReferencedInstance
from appliance.dicom.procedure_steps import PerformedSeries, ProcedureStep, StepStatus
from appliance.reasons import Reason, ReasonCode
from appliance.services.lifecycle import Heartbeat
from appliance.store.database import open_database
from appliance.store.lifecycle import ScanState


@pytest.fixture
def box(tmp_path):
    """A configuration file with its own state folder, and three scans: refused, failed, on its way."""
    state = tmp_path / "state"
    configuration = tmp_path / "appliance.toml"
    configuration.write_text(
        f'[box]\nstate_directory = "{state}"\n[receive]\ndisk_reserve_mib = 0\n[retention]\nsoft_free_mib = 0\n'
    )
    with open_database(Settings.model_validate({"box": {"state_directory": state}}).box.database) as store:
        for number in range(3):
            store.scans.create(
                study_instance_uid=f"1.2.{number}",
                series_instance_uid=f"1.2.{number}.3",
                accession_number=f"A{number}",
                modality="CT",
                revision=1,
                instances=0,
                at=1_700_000_000.0,
            )
            store.scans.move(number + 1, ScanState.COMPLETE, cause="released+quiet")
        gap = Reason(ReasonCode.MISSING_SLICE, "There is a gap of 5.0 mm after slice 12.")
        store.scans.move(1, ScanState.REFUSED, cause="refused", reason=gap)
        lost = Reason(ReasonCode.ATTEMPTS_EXHAUSTED, "Three attempts failed.")
        store.scans.move(2, ScanState.FAILED, cause="failed", reason=lost)
    return configuration, state


def test_results_lists_the_last_scans(run, box):
    ran = run("results", "--config", box[0])
    assert ran.exit_code == 0
    assert "refused" in ran.output
    assert "gap" in ran.output
    assert "missing_slice" in run("results", "1", "--config", box[0]).output


@pytest.mark.parametrize("reference", ["1", "A0", "1.2.0", "1.2.0.3"])
def test_a_scan_is_found_by_whatever_people_have(run, box, reference):
    document = json.loads(run("results", reference, "--json", "--config", box[0]).output)
    assert document["id"] == 1
    assert document["refused"]["code"] == "missing_slice"


def test_a_number_that_means_two_scans_is_refused(run, box):
    with open_database(box[1] / "appliance.db") as store, store.atomic():
        store.execute("UPDATE scans SET accession_number = '1' WHERE id = 3")
    ran = run("results", "1", "--config", box[0])
    assert ran.exit_code == 2
    assert "id:1 or accession:1" in ran.errors
    assert json.loads(run("results", "id:1", "--json", "--config", box[0]).output)["id"] == 1
    assert json.loads(run("results", "accession:1", "--json", "--config", box[0]).output)["id"] == 3


def test_an_accession_number_with_zeros_in_front_is_no_id(run, box):
    assert run("results", "001", "--config", box[0]).exit_code == 2


def test_without_a_database_nothing_is_made(run, tmp_path):
    configuration = tmp_path / "appliance.toml"
    configuration.write_text(f'[box]\nstate_directory = "{tmp_path / "nothing"}"\n')
    for command in (["results"], ["explain", "1"], ["retry", "1"]):
        assert run(*command, "--config", configuration).exit_code == 2
    assert not (tmp_path / "nothing").exists()


def test_an_unknown_scan_is_wrong_use(run, box):
    ran = run("results", "nobody", "--config", box[0])
    assert ran.exit_code == 2
    assert "no scan is known" in ran.errors


def test_explain_says_why(run, box):
    output = run("explain", "1", "--config", box[0]).output
    assert "missing_slice" in output
    assert "released+quiet" in output


def test_retry_takes_a_failed_scan_up_again(run, box):
    assert run("retry", "2", "--config", box[0]).exit_code == 0
    assert json.loads(run("results", "2", "--json", "--config", box[0]).output)["state"] == "complete"


def test_retry_takes_a_refused_scan_up_again(run, box):
    assert run("retry", "1", "--config", box[0]).exit_code == 0
    assert json.loads(run("results", "1", "--json", "--config", box[0]).output)["state"] == "complete"


def test_retry_of_a_scan_that_waits_anyway_is_told_to_be_impossible(run, box):
    ran = run("retry", "3", "--config", box[0])
    assert ran.exit_code == 4
    assert "is complete and cannot become" in ran.errors


def test_status_of_a_stopped_box_is_down(run, box):
    ran = run("status", "--json", "--config", box[0])
    status = json.loads(ran.output)
    assert ran.exit_code == 2
    assert {"receive_absent", "work_absent"} <= set(status["problems"])
    assert [scan["state"] for scan in status["scans"]] == ["complete", "failed", "refused"]


def test_status_of_a_running_box_is_healthy(run, box):
    beats = [Heartbeat(box[1], name) for name in ("receive", "work", "deliver", "health")]
    for beat in beats:
        beat.beat(problem=None)
    ran = run("status", "--config", box[0])
    assert ran.exit_code == 0, ran.output
    assert ran.output.startswith("healthy")
    beats[1].beat(problem="screening_unable")
    ran = run("status", "--config", box[0])
    assert ran.exit_code == 1
    assert "nothing can be screened" in ran.output


def test_doctor_finds_what_is_missing_and_says_what_to_do(run, box):
    ran = run("doctor", "--json", "--config", box[0])
    checks = {check["name"]: check for check in json.loads(ran.output)}
    assert ran.exit_code == 2
    assert checks["senders"]["verdict"] == "problem"
    assert "receive.peers" in checks["senders"]["fix"]
    assert checks["service receive"]["verdict"] == "problem"
    assert all(check["fix"] for check in checks.values() if check["verdict"] != "ok")


def test_doctor_runs_the_packs_own_test(run, box):
    checks = json.loads(run("doctor", "--json", "--config", box[0]).output)
    (pack,) = (check for check in checks if check["name"].startswith("pack "))
    assert pack["verdict"] == "ok", pack


def reported(store, status, images):
    series = (PerformedSeries("1.2.2.3", images),)
    store.procedure_steps.put(ProcedureStep("1.9", "CT1", status, series, 1_700_000_000.0))


def test_explain_tells_what_the_scanner_reported(run, box):
    with open_database(box[1] / "appliance.db") as store:
        reported(store, StepStatus.DISCONTINUED, ())
    assert "discontinued" in run("explain", "3", "--config", box[0]).output
    with open_database(box[1] / "appliance.db") as store:
        reported(store, StepStatus.COMPLETED, ("1.2.2.3.1", "1.2.2.3.2"))
    assert "2 images of this series as made; 2 are not here" in run("explain", "3", "--config", box[0]).output
    document = json.loads(run("results", "3", "--json", "--config", box[0]).output)
    assert document["procedure_step"] == {"statuses": ["COMPLETED"], "images_named": 2, "images_missing": 2}
    assert "scanner reported" not in run("explain", "1", "--config", box[0]).output


def test_who_asks_for_storage_commitment_is_told_with_what_to_change(run, box):
    with open_database(box[1] / "appliance.db") as store:
        request = CommitmentRequest("x", "CT7", "10.1.2.3", "2.25.1", (ReferencedInstance("1", "1.1"),), time.time())
        store.commitment_requests.put(request, duplicate_failure=0x0131)
    told = " ".join(run("status", "--config", box[0]).output.split())
    assert "storage commitment asked by CT7 in the last day: 1 waiting for their report" in told
    (row,) = json.loads(run("status", "--json", "--config", box[0]).output)["commitment_requests"]
    assert (row["ae_title"], row["waiting"]) == ("CT7", 1)
    checks = {check["name"]: check for check in json.loads(run("doctor", "--json", "--config", box[0]).output)}
    assert checks["sender CT7"]["verdict"] == "warning"
    assert "clear the setting for storage commitment of APPLIANCE there" in checks["sender CT7"]["fix"]


@pytest.mark.parametrize(
    ("offers", "peers", "verdict", "words"),
    [
        (True, '[{ae_title = "PACS", address = "127.0.0.1"}]', "ok", "offered"),
        (True, "[]", "problem", "add ae_title PACS"),
        (False, "[]", "problem", "commitment = false"),
    ],
)
def test_the_doctor_looks_whether_a_pacs_commits(tmp_path, offers, peers, verdict, words):
    ae = AE(ae_title="PACS")
    ae.add_supported_context("1.2.840.10008.1.20.1" if offers else "1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    settings = tomllib.loads(
        f'[receive]\npeers = {peers}\n[box]\nstate_directory = "{tmp_path}"\n[[deliver.destinations]]\nname = "pacs"\n'
        f'ae_title = "PACS"\naddress = "127.0.0.1"\nport = {server.server_address[1]}\ncommitment = true\n'
    )
    (check,) = commitment(Settings.model_validate(settings))
    server.shutdown()
    assert check.verdict.value == verdict
    assert words in f"{check.text} {check.fix}"


def test_a_wrong_configuration_names_key_value_and_what_is_allowed(run, tmp_path):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[receive]\nport = 99999\nprot = 1\n")
    ran = run("config", "check", wrong)
    assert ran.exit_code == 2
    assert "receive.port = 99999" in ran.errors
    assert "65535" in ran.errors
    assert "receive.prot: there is no such key" in ran.errors


@pytest.mark.parametrize("address", ["scanner.example", "10.1.2", "10.1.2.0/33", ""])
def test_a_senders_address_that_is_none_is_told_before_anything_starts(run, tmp_path, address):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(f'[[receive.peers]]\nae_title = "CT1"\naddress = "{address}"\n')
    ran = run("config", "check", wrong)
    assert ran.exit_code == 2
    assert "receive.peers.0.address" in ran.errors
    assert "neither an IP address nor a network" in ran.errors


@pytest.mark.parametrize("address", ["10.1.2.3", "10.1.2.3/24", "fd00::1", "fd00::/8"])
def test_addresses_and_networks_are_taken(run, tmp_path, address):
    right = tmp_path / "right.toml"
    right.write_text(f'[[receive.peers]]\nae_title = "CT1"\naddress = "{address}"\n')
    assert run("config", "check", right).exit_code == 0


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('url = "http://pacs.example/dicom-web"', "deliver.dicomweb.0.allow_http: url begins with http://"),
        ('url = "pacs.example"', "deliver.dicomweb.0.url: 'pacs.example' is no address such as https://"),
        ('url = "https://box:secret@pacs.example"', "deliver.dicomweb.0.url: user and password do not belong"),
        ('url = "https://pacs.example/rs/studies"', "deliver.dicomweb.0.url: "),
        ('url = "https://pacs.example"\nusername = "box"', "deliver.dicomweb.0.secret_file: username is set"),
        ('url = "https://pacs.example"\nprivate_key = "/k"', "deliver.dicomweb.0.private_key: certificate and private"),
        ('url = "https://pacs.example"\nae_title = "PACS"', "deliver.dicomweb.0.ae_title: there is no such key"),
        ('url = "https://pacs.example"\nkinds = ["pdg"]', "deliver.dicomweb.0.kinds.0 = 'pdg'"),
    ],
)
def test_a_wrong_key_of_a_dicomweb_destination_is_named(run, tmp_path, lines, told):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(f'[[deliver.dicomweb]]\nname = "pacs"\n{lines}\n')
    ran = run("config", "check", str(wrong))
    assert ran.exit_code == 2
    assert told in ran.errors
    assert "secret@" not in ran.errors


def test_two_destinations_of_one_name_are_told(run, tmp_path):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[[deliver.destinations]]\nname = "pacs"\nae_title = "PACS"\naddress = "10.1.2.4"\n' * 2)
    ran = run("config", "check", wrong)
    assert ran.exit_code == 2
    assert "deliver: the name 'pacs' is there more than once" in ran.errors


def test_config_show_tells_where_a_value_comes_from(run, box):
    output = run("config", "show", "--config", box[0]).output
    assert "state_directory" in output


def test_packs_list_show_verify(run):
    assert "trunk" in run("packs", "list").output
    shown = run("packs", "show", "trunk").output
    assert "not for:" in shown
    assert "sha256:" in shown
    assert run("packs", "show", "nothing").exit_code == 2
    verified = run("packs", "verify")
    assert verified.exit_code == 0, verified.output
