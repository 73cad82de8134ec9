"""A box with a board, as a real process on a state directory of its own, and what happens on it."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import httpx
from PIL import Image

from appliance.board.passwords import write_password
from appliance.reasons import Reason, ReasonCode
from appliance.store.database import Store, open_database
from appliance.store.lifecycle import ScanState
from tests.machine import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PASSWORD = "correct horse battery"
TITLES = {
    "aorta": "Aorta",
    "body_composition": "Body composition",
    "bone_density": "Bone density",
    "coronary_calcium": "Coronary calcium",
    "emphysema": "Emphysema",
    "kidney_stone": "Kidney stones",
    "liver_fat": "Liver fat",
    "pleural_effusion": "Pleural effusion",
    "pulmonary_artery": "Pulmonary artery",
    "vertebral_fracture": "Vertebral fracture",
}
_numbers = itertools.count(1)


def screening(name: str, status: str = "normal", urgency: str = "routine", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "status": status,
        "urgency": urgency,
        "reason": None,
        "seconds": 0.1,
        "summary": f"{TITLES.get(name, name)} measured",
        "caveats": [],
        "measurements": [],
        "findings": [],
        **more,
    }


def not_run(name: str, code: str = "slice_too_thick", text: str = "5 mm slices; at most 3 mm") -> dict[str, Any]:
    return screening(name, "not_run", summary="", reason={"code": code, "text": text})


class Room:
    """The state directory of a box, and what arrives on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir(mode=0o700)
        self.password_file = folder / "password"
        write_password(self.password_file, PASSWORD, self.state)
        self.processes: list[BoardProcess] = []
        self.beat()

    @property
    def database(self) -> Path:
        return self.state / "appliance.db"

    def store(self) -> Store:
        return open_database(self.database, check=False)

    def beat(self, *services: str) -> None:
        """Be the other services, which live."""
        (self.state / "run").mkdir(exist_ok=True)
        for service in services or ("receive", "work", "deliver", "health"):
            told = {"service": service, "pid": 1, "beat_s": time.clock_gettime(time.CLOCK_BOOTTIME)}
            (self.state / f"run/{service}.json").write_text(json.dumps(told))

    def add_scan(
        self,
        accession: str = "",
        screenings: Sequence[dict[str, Any]] | None = None,
        *,
        pictures: Sequence[str] = (),
    ) -> int:
        """A screened and delivered scan, with a key image for each of ``pictures``."""
        number = next(_numbers)
        with self.store() as store:
            scan_id = store.scans.create(
                study_instance_uid=f"1.2.826.0.1.{number}",
                series_instance_uid=f"1.2.826.0.2.{number}",
                accession_number=accession,
                modality="CT",
                revision=1,
                instances=200,
                at=time.time(),
            )
            store.scans.advance(scan_id, ScanState.SCREENING, cause="released+quiet")
            folder = store.scans.get(scan_id).folder
            images = []
            for name in pictures:
                path = self.state / "results" / folder / "key_images" / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (64, 64), (number % 255, 80, 80)).save(path)
                images.append(f"key_images/{name}.png")
            report = {
                "appliance": {"version": "1.0", "config_digest": "sha256:0"},
                "scan": {"slices": 200, "revision": 1},
                "packs": [],
                "screenings": list(screenings if screenings is not None else [screening(name) for name in TITLES]),
                "timings": {"total_s": 1.5},
            }
            store.results.save(scan_id, report, folder=folder, key_images=images)
            store.scans.hand_over(scan_id, ())
        return scan_id

    def refuse_scan(self, code: ReasonCode, text: str) -> int:
        number = next(_numbers)
        with self.store() as store:
            scan_id = store.scans.create(
                study_instance_uid=f"1.2.826.0.1.{number}", series_instance_uid=f"1.2.826.0.2.{number}",
                accession_number="", modality="CT", revision=1, instances=3, at=time.time(),
            )  # fmt: skip
            store.scans.advance(scan_id, ScanState.COMPLETE, cause="released+quiet")
            store.scans.move(scan_id, ScanState.REFUSED, cause="planned", reason=Reason(code, text))
        return scan_id

    def raise_alert(self, scan_id: int, *screenings: tuple[str, str], at: float | None = None) -> list[int]:
        with self.store() as store:
            return store.alerts.raise_for(scan_id, screenings or [("aorta", "urgent")], at=at)

    def start(self, **settings: Any) -> BoardProcess:
        process = BoardProcess(self, settings)
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.stop()


def configure(room: Room, settings: dict[str, Any]) -> Path:
    """Write the box's configuration with these settings of the board."""
    tables = {"tls": settings.get("tls")}
    own = {"port": 0, "password_file": str(room.password_file)} | settings
    lines = [f"{key} = {json.dumps(value)}" for key, value in own.items() if value is not None and key not in tables]
    text = f'[box]\nname = "county-12"\nstate_directory = "{room.state}"\n[receive]\ndisk_reserve_mib = 0\n'
    text += "[retention]\nsoft_free_mib = 0\n[board]\n" + "\n".join(lines) + "\n"
    if tables["tls"]:
        text += "[board.tls]\n" + "".join(f'{key} = "{value}"\n' for key, value in tables["tls"].items())
    path = room.folder / "box.toml"
    path.write_text(text, encoding="utf-8")
    return path


class BoardProcess:
    """``appliance board``, listening."""

    def __init__(self, room: Room, settings: dict[str, Any]) -> None:
        self.room = room
        self.secure = bool(settings.get("tls"))
        self.configuration = configure(room, settings)
        self._log = room.folder / "board.log"
        (room.state / "run/board.json").unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "appliance", "board", "--config", str(self.configuration)],
                stdout=log,
                stderr=log,
            )
        wait_until(self._listens, "the board's port")

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log()
        return bool(self.heartbeat())

    def heartbeat(self) -> dict[str, Any]:
        try:
            return json.loads((self.room.state / "run/board.json").read_text())
        except (OSError, ValueError):
            return {}

    @property
    def port(self) -> int:
        return self.heartbeat()["port"]

    @property
    def url(self) -> str:
        return f"{'https' if self.secure else 'http'}://127.0.0.1:{self.port}"

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Visitor:
    """A browser without the browser: cookies, and the tokens of the forms."""

    def __init__(self, url: str, *, client: httpx.Client | None = None, **options: Any) -> None:
        # Loopback must not go through a proxy that the machine may have.
        self.client = client or httpx.Client(base_url=url, timeout=120.0, trust_env=False, **options)
        self.url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def token(self, path: str = "/login") -> str:
        answer = self.get(path)
        found = re.search(r"name=\"form_token\" value=\"([0-9a-f]+)\"", answer.text)
        assert found, (answer.status_code, answer.text)
        return found[1]

    def post(self, path: str, fields: dict[str, str], *, token: str | None = None, **options: Any) -> httpx.Response:
        page = "/login" if path == "/login" else "/"
        sent = {"form_token": self.token(page) if token is None else token} | fields
        return self.client.post(path, data=sent, **options)

    def log_in(self, password: str = PASSWORD) -> httpx.Response:
        return self.post("/login", {"password": password})
