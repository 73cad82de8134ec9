"""`appliance alerts` and what `appliance status` says of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.commands import doctor
from appliance.store.announcements import AlertStep, CommandOutcome, CommandRun

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.store.database import Store
    from tests.alerts.conftest import Lamp


@pytest.fixture
def run(tmp_path: Path, state: Path) -> Callable[..., tuple[int, str]]:
    """Run a command; gives its exit code and what it printed on either stream."""
    file = tmp_path / "box.toml"
    file.write_text(
        f'[box]\nstate_directory = "{state}"\n[receive]\ndisk_reserve_mib = 0\n[retention]\nsoft_free_mib = 0\n'
    )

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, [*arguments, "--config", str(file)])
        return result.exit_code, result.output

    return call


def test_without_alerts_there_is_nothing_to_acknowledge(store: Store, run: Callable[..., tuple[int, str]]) -> None:
    assert run("alerts", "list") == (0, "Nothing to acknowledge.\n")
    assert run("alerts", "list", "--all") == (0, "No alerts.\n")
    assert run("alerts", "list", "--json") == (0, "[]\n")


def test_what_is_open_is_listed_until_somebody_acknowledges_it(
    store: Store, alarm: Callable[..., int], run: Callable[..., tuple[int, str]]
) -> None:
    soon, urgent = alarm("soon"), alarm("urgent")
    store.alerts.escalate_overdue()
    code, output = run("alerts", "list")
    assert code == 0
    assert [line.split(":")[0] for line in output.splitlines()] == [f"alert {urgent}", f"alert {soon}"]
    assert "Aorta, urgent" in output
    assert output.count("escalated") == 2
    assert run("alerts", "acknowledge", str(urgent), "--by", "李伟") == (
        0,
        f"Alert {urgent} is acknowledged by 李伟.\n",
    )
    assert f"alert {urgent}:" not in run("alerts", "list")[1]
    assert "by 李伟" in run("alerts", "list", "--all")[1]


def test_acknowledging_again_is_no_error_and_says_who_was_first(
    store: Store, alarm: Callable[..., int], run: Callable[..., tuple[int, str]]
) -> None:
    number = str(alarm())
    run("alerts", "acknowledge", number, "--by", "Li")
    code, output = run("alerts", "acknowledge", number, "--by", "Wang")
    assert (code, "was acknowledged before, by Li" in output) == (0, True)


def test_what_is_wrong_ends_with_2_and_a_sentence(
    store: Store, alarm: Callable[..., int], run: Callable[..., tuple[int, str]]
) -> None:
    number = str(alarm())
    for arguments, words in [
        (("77", "--by", "Li"), "there is no such alert"),
        ((number, "--by", "  "), "give a name"),
        ((number,), "--by"),
        (("x", "--by", "Li"), "x"),
    ]:
        code, output = run("alerts", "acknowledge", *arguments)
        assert (code, words in output) == (2, True), output


def test_without_a_database_a_sentence_is_printed(run: Callable[..., tuple[int, str]]) -> None:
    assert "there is no database" in run("alerts", "acknowledge", "1", "--by", "Li")[1]
    assert run("alerts", "list")[0] == 4


def test_programs_get_everything_as_json(
    store: Store, alarm: Callable[..., int], run: Callable[..., tuple[int, str]]
) -> None:
    number = alarm()
    store.announcements.record(CommandRun(number, AlertStep.RAISED, 5.0, 0.1, CommandOutcome.EXITED, 3))
    (document,) = json.loads(run("alerts", "list", "--json")[1])
    assert (document["id"], document["state"], document["acknowledged_by"]) == (number, "open", None)
    assert document["commands"] == [
        {"step": "raised", "ran_at": 5.0, "seconds": 0.1, "outcome": "exited", "exit_status": 3}
    ]
    assert "the program failed (exit status 3)" in run("alerts", "list")[1]


def test_status_shows_what_is_open(
    store: Store, alarm: Callable[..., int], run: Callable[..., tuple[int, str]]
) -> None:
    assert json.loads(run("status", "--json")[1])["alerts"] == {"open": 0, "escalated": 0, "most_urgent": None}
    alarm("soon")
    store.alerts.escalate_overdue()
    alarm("urgent")
    assert json.loads(run("status", "--json")[1])["alerts"] == {"open": 1, "escalated": 1, "most_urgent": "urgent"}
    assert "alerts: 2 to acknowledge, 1 escalated; the first: Aorta, urgent" in run("status")[1]


def checks(run: Callable[..., tuple[int, str]]) -> dict[str, tuple[str, str]]:
    """Verdict and text of each of doctor's checks."""
    return {check["name"]: (check["verdict"], check["text"]) for check in json.loads(run("doctor", "--json")[1])}


@pytest.fixture
def only_alerts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other checks, which run networks, have their own tests."""
    monkeypatch.setattr(doctor, "_EXAMINATIONS", (doctor._alerts,))


@pytest.mark.usefixtures("only_alerts")
def test_doctor_warns_where_nobody_is_told(run: Callable[..., tuple[int, str]]) -> None:
    assert checks(run)["alerts"] == ("warning", "nobody is told when something urgent is found")


@pytest.mark.usefixtures("only_alerts")
def test_doctor_looks_at_the_program(
    store: Store, alarm: Callable[..., int], lamp: Lamp, run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    file = tmp_path / "box.toml"
    file.write_text(file.read_text() + f'[alerts]\ncommand = ["{lamp.program}"]\n')
    assert checks(run)["alert command"] == ("ok", str(lamp.program))
    store.announcements.record(CommandRun(alarm(), AlertStep.RAISED, 5.0, 9.0, CommandOutcome.TIMED_OUT))
    assert checks(run)["alert command"] == ("warning", f"{lamp.program} failed the last time (timed out)")
    lamp.program.chmod(0o777)
    assert checks(run)["alert command"][0] == "problem"
    lamp.program.unlink()
    assert checks(run)["alert command"] == ("problem", f"{lamp.program} is not there")
