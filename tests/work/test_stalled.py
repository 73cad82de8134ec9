"""A worker that lives and does nothing is found by what it has not finished, not by whether it lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.health.measure import measure
from appliance.health.model import Problem, ServiceName, ServiceState

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.config import Settings
    from tests.work.conftest import Scanner


def test_a_worker_that_hangs_is_alive_and_stalled(
    working: Callable[..., Any], scanner: Scanner, until: Callable[[Callable[[], bool]], None], settings: Settings
) -> None:
    impatient = settings.model_copy(update={"health": settings.health.model_copy(update={"stalled_after_s": 2.0})})
    scanner.send("1.1", accession="HANG")
    working()
    until(lambda: Problem.WORK_STALLED in measure(impatient).problems)
    health = measure(impatient)
    work = next(service for service in health.services if service.name is ServiceName.WORK)
    assert work.state is ServiceState.ALIVE
    assert work.children_mib is not None
    assert work.children_mib > 1.0
    assert Problem.WORK_ABSENT not in health.problems


def test_a_worker_that_finishes_is_not_stalled(
    working: Callable[..., Any], scanner: Scanner, until: Callable[[Callable[[], bool]], None], settings: Settings
) -> None:
    scanner.send("1.1")
    working()
    until(lambda: (queue := measure(settings).queue) is not None and queue.last_finished_age_s is not None)
    health = measure(settings)
    assert health.queue is not None
    assert not health.queue.stalled
