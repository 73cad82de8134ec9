"""A program of the site's own is told of each step once, with nothing that names a patient, and may misbehave."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from appliance.delivery.alert_command import AlertCommand, Program
from appliance.delivery.backoff import Backoff
from appliance.store.announcements import AlertStep, CommandOutcome
from appliance.store.events import EventKind
from appliance.store.outbox import OutboxState
from tests.machine import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.store.database import Store
    from tests.alerts.conftest import Lamp

LONG_S = 60.0


@pytest.fixture
def runner(store: Store, lamp: Lamp) -> Callable[..., AlertCommand]:
    """Make what runs the lamp's program; its waits are so short that the next step tries again."""

    def make(
        *arguments: str, timeout_s: float = LONG_S, tries: int = 3, stop: threading.Event | None = None
    ) -> AlertCommand:
        program = Program((str(lamp.program), *arguments), timeout_s, tries)
        return AlertCommand(store, program, Backoff(0.0, 0.0), stop or threading.Event())

    return make


def outcomes(store: Store, number: int) -> list[tuple[str, str, int | None]]:
    return [(run.step.value, run.outcome.value, run.exit_status) for run in store.announcements.commands(number)]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def step_until_idle(command: AlertCommand) -> None:
    while command.step():
        time.sleep(0.005)


def test_each_step_is_told_once(
    store: Store, lamp: Lamp, alarm: Callable[..., int], runner: Callable[..., AlertCommand]
) -> None:
    number, command = alarm(), runner()
    assert command.step()
    store.alerts.escalate_overdue()
    assert command.step()
    store.alerts.acknowledge(number, "Li")
    assert command.step()
    assert not command.step()
    assert lamp.told() == [f"{number} raised", f"{number} escalated", f"{number} acknowledged"]
    assert outcomes(store, number) == [(step.value, "exited", 0) for step in AlertStep]


def test_the_program_learns_the_alert_twice_and_nothing_else(
    store: Store, lamp: Lamp, alarm: Callable[..., int], runner: Callable[..., AlertCommand]
) -> None:
    lamp.install(f"env > {lamp.folder}/env", f"cat > {lamp.folder}/input", f'echo "$@" > {lamp.folder}/arguments')
    number = alarm("soon")
    alarm("routine")
    assert runner("--bright", "a b").step()
    told = json.loads((lamp.folder / "input").read_text())
    assert told["raised_at"].endswith("+00:00")
    assert told == {
        "id": number,
        "step": "raised",
        "screening": "aorta",
        "urgency": "soon",
        "scan": store.alerts.get(number).scan_id,
        "raised_at": told["raised_at"],
        "unacknowledged": 2,
    }
    variables = dict(line.split("=", 1) for line in (lamp.folder / "env").read_text().splitlines())
    expected = {f"APPLIANCE_ALERT_{name.upper()}": str(value) for name, value in told.items()}
    added_by_the_shell = {"PWD", "SHLVL", "_", "OLDPWD"}
    assert {name: variables[name] for name in expected} == expected
    assert variables.keys() - expected.keys() - added_by_the_shell == {"PATH", "LANG"}
    assert (lamp.folder / "arguments").read_text() == "--bright a b\n"


def test_the_most_urgent_is_told_first_and_of_these_the_oldest(
    lamp: Lamp, alarm: Callable[..., int], runner: Callable[..., AlertCommand]
) -> None:
    numbers = [alarm(urgency) for urgency in ("routine", "urgent", "soon", "urgent")]
    step_until_idle(runner())
    assert lamp.told() == [f"{numbers[place]} raised" for place in (1, 3, 2, 0)]


def test_a_program_that_fails_is_run_again_so_many_times_and_the_fleet_learns_it(
    store: Store, lamp: Lamp, alarm: Callable[..., int], runner: Callable[..., AlertCommand]
) -> None:
    lamp.install("exit 3")
    number, command = alarm(), runner()
    wait_until(lambda: not command.step() and store.outbox.counts() == {OutboxState.DONE: 1}, "the last try")
    assert outcomes(store, number) == [("raised", "exited", 3)] * 3
    assert store.outbox.get(f"alert/{number}/raised/command/").reason == (
        "The program in alerts.command ended with exit status 3."
    )
    assert [event.kind for event in store.events.waiting()] == [EventKind.ALERT_COMMAND_FAILED]


def test_a_program_that_recovers_is_told_what_it_missed(
    store: Store, lamp: Lamp, alarm: Callable[..., int], runner: Callable[..., AlertCommand]
) -> None:
    lamp.install("exit 1")
    number, command = alarm(), runner()
    assert command.step()
    lamp.install()
    wait_until(command.step, "the next try")
    assert lamp.told() == [f"{number} raised"]
    assert outcomes(store, number) == [("raised", "exited", 1), ("raised", "exited", 0)]
    assert store.events.waiting() == []


def test_a_program_that_hangs_is_ended_with_its_children(
    store: Store, lamp: Lamp, alarm: Callable[..., int], runner: Callable[..., AlertCommand]
) -> None:
    child = lamp.folder / "child"
    lamp.install("sleep 600 &", f"echo $! > {child}.part; mv {child}.part {child}", "wait")
    number = alarm()
    assert runner(timeout_s=2.0).step()
    assert outcomes(store, number) == [("raised", "timed_out", None)]
    wait_until(lambda: not alive(int(child.read_text())), "the end of the child")


def test_a_program_that_is_not_there_is_a_failed_try(
    store: Store, lamp: Lamp, alarm: Callable[..., int], runner: Callable[..., AlertCommand]
) -> None:
    lamp.program.unlink()
    number = alarm()
    assert runner().step()
    assert outcomes(store, number) == [("raised", "not_started", None)]


def test_a_program_that_is_killed_is_a_failed_try(
    store: Store, lamp: Lamp, alarm: Callable[..., int], runner: Callable[..., AlertCommand]
) -> None:
    lamp.install("kill -9 $$")
    number = alarm()
    assert runner().step()
    assert outcomes(store, number) == [("raised", "killed", None)]


def test_a_program_that_reads_no_input_or_floods_its_output_is_well(
    store: Store, lamp: Lamp, alarm: Callable[..., int], runner: Callable[..., AlertCommand]
) -> None:
    lamp.install("exec 0<&-", "head -c 300000 /dev/zero", "head -c 300000 /dev/zero >&2")
    number = alarm()
    assert runner().step()
    assert outcomes(store, number) == [("raised", "exited", 0)]


def test_what_somebody_has_acknowledged_already_lights_no_lamp(
    store: Store, lamp: Lamp, alarm: Callable[..., int], runner: Callable[..., AlertCommand]
) -> None:
    number = alarm()
    store.alerts.escalate_overdue()
    store.alerts.acknowledge(number, "Li")
    step_until_idle(runner())
    assert lamp.told() == [f"{number} acknowledged"]
    assert "acknowledged" in (store.outbox.get(f"alert/{number}/raised/command/").reason or "")


def test_a_service_that_ends_ends_the_program_and_runs_it_again_next_time(
    store: Store, lamp: Lamp, alarm: Callable[..., int], runner: Callable[..., AlertCommand]
) -> None:
    lamp.install(f"touch {lamp.folder}/began", "sleep 60")
    number, stop = alarm(), threading.Event()
    watcher = threading.Thread(target=lambda: (wait_until((lamp.folder / "began").exists, "it"), stop.set()))
    watcher.start()
    assert not runner(stop=stop).step()
    watcher.join()
    assert outcomes(store, number) == []
    lamp.install()
    assert runner().step()
    assert [run.outcome for run in store.announcements.commands(number)] == [CommandOutcome.EXITED]


def test_without_a_shell_nothing_in_an_argument_is_run(
    lamp: Lamp, alarm: Callable[..., int], runner: Callable[..., AlertCommand]
) -> None:
    alarm()
    assert runner(f"; touch {lamp.folder}/injected", f"$(touch {lamp.folder}/injected)").step()
    assert len(lamp.told()) == 1
    assert not (lamp.folder / "injected").exists()


def test_a_clock_that_is_set_back_delays_nothing(
    store: Store,
    lamp: Lamp,
    alarm: Callable[..., int],
    runner: Callable[..., AlertCommand],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lamp.install("exit 1")
    number, command = alarm(), runner()
    assert command.step()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 10 * 365 * 86400.0)
    lamp.install()
    assert command.step()
    assert lamp.told() == [f"{number} raised"]
