"""Makes the pictures of the alert board in the manual, of the test patient and of nobody else.

``python -m tests.board.pictures`` starts a whole appliance, sends it digital phantoms through its DICOM port, opens the
board in a headless Chromium, and writes ``docs/pictures/board_*.png``. It takes a few minutes.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from appliance.board.passwords import write_password
from appliance.config import load
from appliance.dicom.network.sender import send
from appliance.phantom import Calcification, PhantomOptions, WedgeFracture, write_series
from appliance.store.database import open_database
from appliance.store.lifecycle import TERMINAL
from tests.machine import wait_until

from .browsers import Browser
from .room import PASSWORD

if TYPE_CHECKING:
    from appliance.config import Settings

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
WIDTH_PX = 1280
_SLICES = {"slice_thickness_mm": 2.0, "slice_spacing_mm": 2.0}
PATIENTS = {
    "well": PhantomOptions(seed=1),
    "contrast": PhantomOptions(seed=12, **_SLICES, contrast_in_header=True, contrast_in_image=True),
    "ill": PhantomOptions(
        seed=13,
        **_SLICES,
        emphysema_fraction=0.10,
        wedge_fracture=WedgeFracture("T8", 45.0),
        calcifications=(Calcification(),),
        kidney_stone_diameter_mm=8.0,
        effusion_right_ml=300.0,
    ),
    "urgent": PhantomOptions(seed=14, **_SLICES, effusion_left_ml=1300.0),
}


def configure(folder: Path) -> Settings:
    write_password(folder / "password", PASSWORD, folder)
    file = folder / "box.toml"
    file.write_text(
        f"[box]\nname = 'county-12'\nstate_directory = {json.dumps(str(folder / 'state'))}\n"
        "[receive]\naddress = '127.0.0.1'\nport = 0\nnetwork_timeout_s = 900\ndisk_reserve_mib = 64\n"
        "peers = [{ ae_title = 'CT1', address = '127.0.0.1' }]\n[assemble]\nquiet_s = 1.0\n"
        "[retention]\nsoft_free_mib = 64\n[alerts]\nurgency = 'soon'\nescalate_after_min = 0\n"
        f"[board]\nport = 0\npassword_file = {json.dumps(str(folder / 'password'))}\npeople = ['Li Wei', '王芳']\n"
    )
    return load(file)


def heartbeat(settings: Settings, service: str) -> dict:
    try:
        return json.loads((settings.box.state_directory / f"run/{service}.json").read_text())
    except (OSError, ValueError):
        return {}


def screen(settings: Settings, series: Path, number: int) -> None:
    """Send a series and wait until it is done."""
    files = sorted(series.glob("*.dcm"))
    send(
        files,
        host="127.0.0.1",
        port=heartbeat(settings, "receive")["port"],
        called_ae=settings.receive.ae_title,
        calling_ae="CT1",
    )

    def done() -> bool:
        if not settings.box.database.exists():
            return False
        with open_database(settings.box.database, read_only=True) as store:
            scans = store.scans.last(10)
        return len(scans) == number and all(scan.state in TERMINAL for scan in scans)

    wait_until(done, f"scan {number}", 900.0)


def take(browser: Browser, name: str, height: int) -> None:
    """Save what the window shows, small."""
    browser.driver.set_window_size(1920, height)
    time.sleep(1.5)
    for image in browser.all("img"):
        wait_until(lambda image=image: browser.run("return arguments[0].complete", image), "a picture")
    shot = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("RGB")
    small = shot.resize((WIDTH_PX, round(shot.height * WIDTH_PX / shot.width)), Image.Resampling.LANCZOS)
    path = PICTURES / f"board_{name}.png"
    small.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1024} kB")


def both(browser: Browser, path: str, name: str, height: int) -> None:
    for language in ("zh", "en"):
        browser.open(path)
        browser.one(f"button[value='{language}']").click()
        # Opened before the choice has arrived, the page would come in the language from before.
        spoken = "return document.documentElement.lang.startsWith(arguments[0])"
        wait_until(lambda spoken=spoken, language=language: browser.run(spoken, language), f"the page in {language}")
        browser.open(path)
        browser.run("document.documentElement.style.scrollBehavior = 'auto'; scrollTo(0, 0)")
        take(browser, f"{name}_{language}", height)


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="board-pictures-"))
    settings = configure(folder)
    series = {name: folder / name for name in PATIENTS}
    for name, options in PATIENTS.items():
        write_series(options, series[name])
    process = subprocess.Popen([sys.executable, "-m", "appliance", "serve", "--config", str(folder / "box.toml")])
    browser = None
    try:
        for service in ("receive", "work", "deliver", "health", "board"):
            wait_until(lambda service=service: heartbeat(settings, service).get("pid"), service, 120.0)
        browser = Browser(f"http://127.0.0.1:{heartbeat(settings, 'board')['port']}", folder / "browser")
        browser.open("/login")
        take(browser, "login_en", 700)
        browser.log_in()
        for number, name in enumerate(PATIENTS, start=1):
            screen(settings, series[name], number)
            if name == "contrast":
                both(browser, "/", "quiet", 1080)
            if name == "ill":  # nobody looks for a while
                with open_database(settings.box.database, check=False) as store:
                    store.alerts.escalate_overdue()
        browser.open()
        browser.run("document.querySelector('#sound').click()")
        both(browser, "/", "alerts", 1500)
        both(browser, f"/scans/{len(PATIENTS) - 1}", "scan", 1600)
        both(browser, "/scans/2", "not_run", 1300)
    finally:
        if browser is not None:
            browser.driver.quit()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
