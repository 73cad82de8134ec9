import time

import pytest

from appliance.health import assessment
from appliance.health.model import (
    Condition,
    Disk,
    Machine,
    Pack,
    PackTrust,
    Peer,
    PeerRole,
    Problem,
    Queue,
    SelfTest,
    Service,
    ServiceName,
    ServiceState,
)
from appliance.store.database import open_database
from appliance.store.lifecycle import ScanState

MACHINE = Machine(
    uptime_s=1, cpu_count=2, cpu_percent=1, load_1_min=0, memory_total_mib=2, memory_available_mib=1,
    temperature_c=None, clock_offset_s=None, clock_synchronised=None, clock_stepped_s=0.0,
)  # fmt: skip
DISK = Disk(total_mib=100, free_mib=50, soft_free_mib=20, reserve_mib=10)
QUEUE = Queue(
    by_state={}, oldest_waiting_s=None, last_finished_age_s=None, outbox_waiting=0, outbox_parked=0,
    outbox_oldest_s=None, clock_behind_s=0.0, stalled=False,
)  # fmt: skip
SERVICES = tuple(
    Service(name=name, state=ServiceState.ALIVE, heartbeat_age_s=1, resident_mib=1, children_mib=0, uptime_s=1)
    for name in ServiceName
)
HEALTHY = {"machine": MACHINE, "disk": DISK, "services": SERVICES, "queue": QUEUE, "packs": (), "peers": ()}


def service(name: ServiceName, state: ServiceState) -> tuple[Service, ...]:
    return tuple(item.model_copy(update={"state": state}) if item.name is name else item for item in SERVICES)


def peer(role: PeerRole, *, reachable: bool, echo: bool | None) -> tuple[Peer, ...]:
    return (Peer(name="x", role=role, reachable=reachable, echo=echo, seconds=None),)


PACK = Pack(
    name="trunk", version="1.0.0", digest="sha256:" + "0" * 64, self_test=SelfTest.FAILED, trust=PackTrust.SHIPPED
)


def test_a_box_without_problems_is_healthy():
    assert assessment.assess(**HEALTHY) == (Condition.HEALTHY, ())


@pytest.mark.parametrize(
    ("change", "condition", "problem"),
    [
        ({"queue": None}, Condition.DOWN, Problem.STORE_UNREADABLE),
        ({"queue": QUEUE.model_copy(update={"stalled": True})}, Condition.DEGRADED, Problem.WORK_STALLED),
        ({"disk": DISK.model_copy(update={"free_mib": 15})}, Condition.DEGRADED, Problem.DISK_LOW),
        ({"disk": DISK.model_copy(update={"free_mib": 5})}, Condition.DOWN, Problem.DISK_FULL),
        ({"services": service(ServiceName.RECEIVE, ServiceState.ABSENT)}, Condition.DOWN, Problem.RECEIVE_ABSENT),
        ({"services": service(ServiceName.WORK, ServiceState.ABSENT)}, Condition.DOWN, Problem.WORK_ABSENT),
        ({"services": service(ServiceName.DELIVER, ServiceState.ABSENT)}, Condition.DEGRADED, Problem.DELIVER_ABSENT),
        ({"services": service(ServiceName.WORK, ServiceState.SILENT)}, Condition.DEGRADED, Problem.SERVICE_SILENT),
        ({"packs": None}, Condition.DEGRADED, Problem.PACK_FAILED),
        ({"packs": (PACK,)}, Condition.DEGRADED, Problem.PACK_FAILED),
        (
            {"peers": peer(PeerRole.DESTINATION, reachable=False, echo=None)},
            Condition.DEGRADED,
            Problem.PEER_UNREACHABLE,
        ),
        (
            {"peers": peer(PeerRole.DESTINATION, reachable=True, echo=False)},
            Condition.DEGRADED,
            Problem.PEER_UNREACHABLE,
        ),
        ({"machine": MACHINE.model_copy(update={"clock_offset_s": -9.0})}, Condition.DEGRADED, Problem.CLOCK_WRONG),
        ({"machine": MACHINE.model_copy(update={"clock_stepped_s": 86400})}, Condition.DEGRADED, Problem.CLOCK_WRONG),
        ({"queue": QUEUE.model_copy(update={"clock_behind_s": 86400})}, Condition.DEGRADED, Problem.CLOCK_WRONG),
    ],
)
def test_a_problem_is_named(change, condition, problem):
    assert assessment.assess(**HEALTHY | change) == (condition, (problem,))


def test_a_step_that_a_time_server_has_made_is_right():
    mended = MACHINE.model_copy(update={"clock_stepped_s": 86400, "clock_synchronised": True})
    assert assessment.assess(**HEALTHY | {"machine": mended}) == (Condition.HEALTHY, ())


def test_a_lost_broker_is_no_fault_of_the_box():
    lost = peer(PeerRole.BROKER, reachable=False, echo=None)
    assert assessment.assess(**HEALTHY | {"peers": lost}) == (Condition.HEALTHY, ())


@pytest.fixture
def store(tmp_path):
    with open_database(tmp_path / "appliance.db") as store:
        yield store


def scan(store, number: int, at: float) -> int:
    return store.scans.create(
        study_instance_uid="1.2", series_instance_uid=f"1.2.{number}", accession_number="", modality="CT",
        revision=1, instances=0, at=at,
    )  # fmt: skip


def test_an_empty_box_is_not_stalled(store):
    queue = assessment.queue(store, stalled_after_s=10)
    assert (queue.stalled, queue.oldest_waiting_s) == (False, None)


def test_a_scan_that_waits_too_long_means_stalled(store):
    now = time.time()
    store.scans.move(scan(store, 1, now), ScanState.COMPLETE, cause="forced", at=now)
    assert not assessment.queue(store, stalled_after_s=10, now=now + 5).stalled
    assert assessment.queue(store, stalled_after_s=10, now=now + 11).stalled


def test_a_busy_box_with_a_long_queue_is_not_stalled(store):
    now = time.time()
    for number in (1, 2):
        store.scans.move(scan(store, number, now), ScanState.COMPLETE, cause="forced", at=now)
    store.scans.advance(1, ScanState.DONE, cause="test", at=now + 20)
    assert not assessment.queue(store, stalled_after_s=10, now=now + 25).stalled


def test_the_queue_counts_by_state(store):
    scan(store, 1, time.time())
    assert assessment.queue(store, stalled_after_s=10).by_state[ScanState.RECEIVING] == 1


@pytest.mark.parametrize("jump_s", [-86400.0, 86400.0])
def test_no_age_is_negative_when_the_clock_jumps(store, jump_s):
    now = time.time()
    for number in (1, 2):
        store.scans.move(scan(store, number, now), ScanState.COMPLETE, cause="forced", at=now)
    store.scans.advance(1, ScanState.DONE, cause="test", at=now)
    store.outbox.put("key", "deliver", {}, scan_id=1, at=now)
    queue = assessment.queue(store, stalled_after_s=10, now=now + jump_s)
    ages = [queue.oldest_waiting_s, queue.last_finished_age_s, queue.outbox_oldest_s, queue.clock_behind_s]
    assert min(ages) >= 0.0
    assert queue.clock_behind_s == max(0.0, -jump_s)
