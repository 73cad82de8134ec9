"""`appliance serve` over stub services: real processes, real signals."""

import re
import signal

import psutil
import pytest

from tests.machine import wait_until

from .conftest import SLEEP, alive

STUBBORN = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEP}"
WITH_CHILD = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print('grandchild', child.pid, flush=True)\ntime.sleep(600)"
)
CRASH = "import sys\nprint('about to fall', flush=True)\nsys.exit(9)"


def pids(text: str, name: str) -> list[int]:
    return [int(number) for number in re.findall(rf"{name} started, process (\d+)", text)]


def wait_ready(path, number: int) -> None:
    wait_until(lambda: path.read_text().count("ready") == number, f"{number} services ready")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stops_everything_on_a_signal(serve, number):
    process, path = serve({"receive": SLEEP, "work": SLEEP})
    wait_ready(path, 2)
    process.send_signal(number)
    assert process.wait(30) == 0
    text = path.read_text()
    assert not any(alive(pid) for pid in pids(text, "receive") + pids(text, "work"))


def test_names_the_service_in_front_of_each_line(serve):
    process, path = serve({"receive": SLEEP, "work": SLEEP})
    wait_ready(path, 2)
    process.terminate()
    process.wait(30)
    assert {line for line in path.read_text().splitlines() if "ready" in line} == {
        "receive | ready",
        "work    | ready",
    }


def test_writes_no_colour_into_a_file(serve):
    process, path = serve({"receive": SLEEP})
    wait_ready(path, 1)
    process.terminate()
    process.wait(30)
    assert "\x1b" not in path.read_text()


def test_starts_a_killed_service_again(serve):
    process, path = serve({"receive": SLEEP, "work": SLEEP})
    wait_ready(path, 2)
    psutil.Process(pids(path.read_text(), "work")[0]).kill()
    wait_ready(path, 3)
    process.terminate()
    assert process.wait(30) == 0
    text = path.read_text()
    assert "work was ended by SIGKILL; starting it again" in text
    assert len(pids(text, "receive")) == 1


def test_a_service_that_keeps_falling_stays_down_while_the_others_go_on(serve):
    process, path = serve({"receive": SLEEP, "work": CRASH}, "first_delay_s=0.01, limit=2")
    wait_until(lambda: "it stays down" in path.read_text(), "work given up")
    assert alive(pids(path.read_text(), "receive")[0])
    process.terminate()
    assert process.wait(30) == 4
    assert len(pids(path.read_text(), "work")) == 3


def test_ends_when_no_service_is_left(serve):
    process, path = serve({"work": CRASH}, "first_delay_s=0.01, limit=1")
    assert process.wait(60) == 4
    assert "no service is left" in path.read_text()


def test_a_wrong_configuration_ends_everything_with_its_exit_code(serve):
    process, path = serve({"receive": SLEEP, "work": "import sys; sys.exit(2)"})
    assert process.wait(60) == 2
    assert not any(alive(pid) for pid in pids(path.read_text(), "receive"))


def test_kills_a_service_that_will_not_stop(serve):
    process, path = serve({"work": STUBBORN}, "stop_s=0.3")
    wait_ready(path, 1)
    process.terminate()
    assert process.wait(30) == 0
    text = path.read_text()
    assert "did not stop within 0.3 s" in text
    assert not alive(pids(text, "work")[0])


def test_leaves_no_grandchild(serve):
    process, path = serve({"work": WITH_CHILD})
    wait_until(lambda: "grandchild" in path.read_text(), "the grandchild")
    grandchild = int(re.search(r"grandchild (\d+)", path.read_text())[1])
    process.terminate()
    process.wait(30)
    wait_until(lambda: not alive(grandchild), "the grandchild's end")


def test_leaves_no_orphan_when_it_is_killed_itself(serve):
    process, path = serve({"receive": SLEEP, "work": SLEEP})
    wait_ready(path, 2)
    text = path.read_text()
    process.kill()
    for pid in pids(text, "receive") + pids(text, "work"):
        wait_until(lambda pid=pid: not alive(pid), f"the end of {pid}")
