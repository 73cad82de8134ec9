import subprocess
import sys

import psutil
import pytest

RUNNER = """
import sys
from appliance.services.serve import RestartPolicy, run
services = {{name: [sys.executable, "-c", code] for name, code in {services!r}.items()}}
sys.exit(run(services=services, policy=RestartPolicy({policy})))
"""
SLEEP = "import time\nprint('ready', flush=True)\ntime.sleep(600)"


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def serve(tmp_path):
    """Start `serve` as a real process over stub services; gives the process and the path of its output."""
    started = []

    def start(services: dict[str, str], policy: str = "first_delay_s=0.05"):
        path = tmp_path / "output.txt"
        with path.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", RUNNER.format(services=services, policy=policy)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process, path

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
