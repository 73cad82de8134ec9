"""What the pages say, and what they record."""

import time

import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from appliance.board.overview import MOST_CARDS
from appliance.board.passwords import write_password
from appliance.board.paths import path_of
from appliance.reasons import ReasonCode
from appliance.results.objects.patient import written_name

from .room import TITLES, not_run, screening


def test_before_the_first_scan(look, room):
    answer = look().get("/")
    assert answer.status_code == 200
    assert "no scan was received since it was installed" in answer.text
    room.add_scan("A1")


def test_a_thousand_open_alerts_are_counted_and_the_worst_are_shown(look, room):
    routine = room.add_scan("A0")
    with room.store() as store, store.atomic():
        for number in range(1, 1000):
            scan = store.scans.create(
                study_instance_uid=f"1.9.{number}", series_instance_uid=f"1.8.{number}", accession_number=f"B{number}",
                modality="CT", revision=1, instances=1, at=1.0,
            )  # fmt: skip
            store.alerts.raise_for(scan, [("aorta", "soon")])
        (urgent,) = store.alerts.raise_for(routine, [("aorta", "urgent")])
    visitor = look()
    assert "Open alerts: 1000" in visitor.get("/").text
    text = visitor.get("/").text
    assert text.count('class="card ') == MOST_CARDS
    assert f"The {MOST_CARDS} most urgent of 1000 are shown." in text
    assert text.index(f'value="{urgent}"') < text.index('class="card soon')
    assert len(text) < 200_000


def test_one_click_acknowledges_what_its_card_shows_and_nothing_else(look, room):
    one, two = room.add_scan("A1"), room.add_scan("A2")
    alerts = room.raise_alert(one, ("aorta", "urgent"), ("coronary_calcium", "soon"))
    room.raise_alert(two)
    visitor = look()
    assert "Open alerts: 3" in visitor.get("/").text
    assert f'value="{alerts[0]} {alerts[1]}"' in visitor.get("/").text
    (late,) = room.raise_alert(one, ("emphysema", "urgent"))
    answer = visitor.post("/acknowledge", {"name": "  Li   Wei ", "alerts": f"{alerts[0]} {alerts[1]}"})
    assert answer.headers["location"] == "/?told=now"
    with room.store() as store:
        assert {store.alerts.get(alert).acknowledged_by for alert in alerts} == {"Li Wei"}
        assert store.alerts.get(late).acknowledged_by is None
    again = visitor.post("/acknowledge", {"name": "Somebody Else", "alerts": f"{alerts[0]}"})
    assert again.headers["location"] == "/?told=before"
    with room.store() as store:
        assert store.alerts.get(alerts[0]).acknowledged_by == "Li Wei"


@pytest.mark.parametrize("name", ["", "   ", "\u200b", "x" * 65])
def test_without_a_name_nothing_is_acknowledged(look, room, name):
    (alert,) = room.raise_alert(room.add_scan("A1"))
    answer = look().post("/acknowledge", {"name": name, "alerts": str(alert)})
    assert answer.status_code == 422
    assert "Write your name first" in answer.text
    with room.store() as store:
        assert store.alerts.get(alert).acknowledged_by is None


@pytest.mark.parametrize("alerts", ["", "x", "1;2", "-1", "9" * 40, "1 " * 200])
def test_what_is_no_list_of_alerts_is_refused(look, room, alerts):
    room.raise_alert(room.add_scan("A1"))
    assert look().post("/acknowledge", {"name": "x", "alerts": alerts}).status_code == 400


def test_an_alert_that_waited_too_long_says_so(look, room):
    room.raise_alert(room.add_scan("A1"), at=time.time() - 3600)
    with room.store() as store:
        store.alerts.escalate_overdue(time.time() - 60)
    visitor = look()
    assert "NOT ACKNOWLEDGED IN TIME" in visitor.get("/").text
    assert "waited too long: 1" in visitor.get("/").text


def test_a_refused_scan_says_why_and_what_can_be_done(look, room):
    room.refuse_scan(ReasonCode.MISSING_SLICE, "the gap after slice 12 is 5 mm wide")
    text = look().get("/").text
    for words in ("cannot be screened", "the gap after slice 12 is 5 mm wide", "send the series again"):
        assert words in text


def test_what_has_no_answer_is_on_the_first_page(look, room):
    room.add_scan("A1", [screening("aorta"), not_run("emphysema"), not_run("liver_fat")])
    text = look().get("/").text
    assert "No answer from 2" in text
    assert "Emphysema, Liver fat: 5 mm slices; at most 3 mm" in text
    assert "Nothing found" in text


def test_a_result_of_another_release_costs_only_itself(look, room):
    room.add_scan("A1", [screening("aorta") | {"status": "a new kind"}])
    scan = room.add_scan("A2")
    visitor = look()
    text = visitor.get("/").text
    assert "A1" in text
    assert "A2" in text
    assert visitor.get(f"/scans/{scan}").status_code == 200
    assert visitor.get("/scans/1").status_code == 200


def test_a_silent_service_is_told(look, room):
    room.add_scan("A1")
    (room.state / "run/receive.json").unlink()
    visitor = look()
    assert "This box needs help" in visitor.get("/").text
    room.beat("receive")
    visitor.board.watcher.latest = visitor.board.reader.read()
    assert "This box needs help" not in visitor.get("/").text


def test_a_parked_delivery_is_told_with_the_setting_to_change(look, room):
    scan = room.add_scan("A1")
    with room.store() as store:
        store.outbox.put("pacs/main/x", "pacs", {}, destination="main", scan_id=scan)
        store.outbox.park("pacs/main/x", "set deliver.destinations.ae_title to the PACS's own AE title")
    text = look().get("/").text
    assert "STOPPED" in text
    assert "set deliver.destinations.ae_title" in text


def test_all_ten_screenings_are_on_a_scans_page(look, room):
    scan = room.add_scan()
    text = look().get(f"/scans/{scan}").text
    assert all(title in text for title in TITLES.values())
    assert "10 of 10 screenings ran" in text


def test_names_are_escaped(look, room):
    scan = room.add_scan("<script>alert(1)</script>")
    room.raise_alert(scan)
    visitor = look(people=['"><img src=x>'])
    assert "&lt;script&gt;" in visitor.get("/").text
    text = visitor.get("/").text + visitor.get(f"/scans/{scan}").text
    assert "<script>alert" not in text
    assert "<img src=x>" not in text


def test_wrong_passwords_are_slowed_and_the_room_can_still_get_in(look, room):
    room.add_scan()
    visitor = look()
    throttle = visitor.board.throttle
    now_s = [1000.0]
    throttle._clock = lambda: now_s[0]
    session = visitor.client.cookies["board"]
    visitor.client.cookies.delete("board")
    answers = [visitor.log_in("wrong password") for _ in range(8)]
    assert answers[0].status_code == 401
    assert "This is not the password" in answers[0].text
    assert answers[-1].status_code == 429
    wait_s = int(answers[-1].headers["retry-after"])
    assert 1 <= wait_s <= 60
    assert f"{wait_s} seconds" in answers[-1].text
    assert visitor.log_in().status_code == 429  # the right one has to wait as well, or waiting would tell
    now_s[0] += wait_s
    assert visitor.log_in().status_code == 303
    visitor.client.cookies.set("board", session)
    assert visitor.get("/").status_code == 200  # who was inside has noticed nothing


def test_another_password_logs_everybody_out(look, room):
    room.add_scan()
    visitor = look()
    write_password(room.password_file, "a new password", room.state)
    assert visitor.get("/").status_code == 303
    assert visitor.log_in().status_code == 401
    assert visitor.log_in("a new password").status_code == 303


def test_logging_out_ends_the_session_for_good(look, room):
    room.add_scan()
    visitor = look()
    token = visitor.client.cookies["board"]
    assert visitor.post("/logout", {}).headers["location"] == "/login"
    visitor.client.cookies.set("board", token)
    assert visitor.get("/").status_code == 303


def test_a_patient_is_named_only_where_that_is_chosen(look, room):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    ds.SpecificCharacterSet = "GB18030"
    ds.PatientName = "Zhang^San=张^三"
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    scan = room.add_scan("A1")
    room.raise_alert(scan)
    folder = room.state / "results" / f"{scan}-r1" / "objects"
    folder.mkdir(parents=True)
    ds.save_as(folder / "report.dcm", enforce_file_format=True)
    assert "张 三" not in look().get("/").text
    named = look(show_patient_name=True)
    for path in ("/", f"/scans/{scan}"):
        assert f"张 三 · Scan {scan}" in named.get(path).text
    assert "Accession A1" not in named.get("/").text


def test_a_patient_without_result_objects_is_called_by_the_accession_number(look, room):
    room.add_scan("A1")
    assert "Accession A1" in look(show_patient_name=True).get("/").text


@pytest.mark.parametrize(
    ("person_name", "written"),
    [
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "山田 太郎"),
        ("Müller^Jörg^^Dr.", "Müller Jörg Dr."),
        ("=张^三", "张 三"),
        ("^^", ""),
        ("", ""),
    ],
)
def test_person_names_are_written_as_people_do(person_name, written):
    assert written_name(person_name) == written


@pytest.mark.parametrize(
    ("sent", "led_to"),
    [
        ("/scans/7", "/scans/7"),
        ("/", "/"),
        ("//evil.example", "/"),
        ("https://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("/scans/7?x=1", "/"),
        ("", "/"),
    ],
)
def test_a_form_leads_back_to_the_board_only(sent, led_to):
    assert path_of(sent) == led_to
