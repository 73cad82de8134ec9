"""A headless Chromium before the board, driven through the chromedriver of the operating system's packages."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.machine import wait_until

from .room import PASSWORD

if TYPE_CHECKING:
    from pathlib import Path

    from selenium.webdriver.remote.webelement import WebElement

CHROMEDRIVER = shutil.which("chromedriver")
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--disable-dev-shm-usage", "--mute-audio",
)  # fmt: skip


class Browser:
    """One browser with a profile of its own."""

    def __init__(
        self,
        url: str,
        profile: Path,
        *,
        script: bool = True,
        width: int = 1920,
        height: int = 1080,
        arguments: tuple[str, ...] = (),
    ) -> None:
        options = ChromeOptions()
        for argument in (*_OPTIONS, f"--user-data-dir={profile}", f"--window-size={width},{height}", *arguments):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        if not script:
            options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
        # Named by its path, so that selenium looks for no driver elsewhere.
        self.driver = Chrome(options=options, service=Service(CHROMEDRIVER))
        self.driver.set_page_load_timeout(120)
        self.url = url

    def open(self, path: str = "/") -> None:
        self.driver.get(self.url + path)

    def log_in(self, password: str = PASSWORD) -> None:
        """Log in, where this browser is not logged in yet."""
        self.open("/login")
        wait_until(lambda: self.all("#alerts-title") or self.all("#password"), "the login or the board")
        if self.all("#password"):
            self.one("#password").send_keys(password, Keys.ENTER)
            wait_until(lambda: self.all("#alerts-title") or self.all("#problem"), "the page after the login")

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str) -> WebElement:
        return wait_until(lambda: next(iter(self.all(css)), None), css)

    def text(self, css: str = "body") -> str:
        # In one step inside the browser: the page may replace the element meanwhile.
        return self.run("const e = document.querySelector(arguments[0]); return e ? e.innerText : ''", css)

    def wait_text(self, css: str, text: str, at_most_s: float = 120.0) -> None:
        wait_until(lambda: text in self.text(css), f"{text!r} in {css}, not {self.text(css)!r}", at_most_s)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def cards(self) -> int:
        return self.run("return document.querySelectorAll('#cards .card').length")

    def complaints(self) -> list[str]:
        """Errors on the console, breaches of the Content-Security-Policy among them."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
