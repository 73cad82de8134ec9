from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from appliance.board.watcher import Watcher
from appliance.config import load
from appliance.services.board import board_of, reader_of

from .browsers import CHROMEDRIVER, Browser
from .room import Room, Visitor, configure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.close()


@pytest.fixture
def visit(room: Room) -> Iterator[Callable[..., Visitor]]:
    """Visit a board, by default one that is started for it, logged in."""
    opened = []

    def go(board=None, *, logged_in: bool = True, **options) -> Visitor:
        visitor = Visitor((board or room.start()).url, **options)
        opened.append(visitor)
        if logged_in:
            assert visitor.log_in().headers["location"] == "/"
        return visitor

    yield go
    for visitor in opened:
        visitor.client.close()


@pytest.fixture
def look(room: Room) -> Callable[..., Visitor]:
    """The same pages without a server: a visitor who is logged in, with the board as ``board``."""

    def go(**settings) -> Visitor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it would rather have another client than the one that is a dependency
            from starlette.testclient import TestClient
        configured = load(configure(room, settings))
        watcher = Watcher(reader_of(configured, configured.board), configured.box.database)
        board = board_of(configured, configured.board, watcher)
        client = TestClient(board.application(), base_url="http://localhost", follow_redirects=False)
        visitor = Visitor("http://localhost", client=client)
        visitor.board = board
        assert visitor.log_in().headers["location"] == "/"
        return visitor

    return go


@pytest.fixture
def browse() -> Iterator[Callable[..., Browser]]:
    """Open a real browser; each has a profile of its own."""
    yield from _browsers()


@pytest.fixture(scope="module")
def browse_module() -> Iterator[Callable[..., Browser]]:
    """The same for a browser that several tests use."""
    yield from _browsers()


def _browsers() -> Iterator[Callable[..., Browser]]:
    if not CHROMEDRIVER:
        pytest.skip("chromedriver is not installed")
    opened, folders = [], []

    def go(url: str, **options) -> Browser:
        folder = Path(tempfile.mkdtemp(prefix="board-browser-"))
        folders.append(folder)
        browser = Browser(url, folder, **options)
        opened.append(browser)
        return browser

    yield go
    for browser in opened:
        browser.driver.quit()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
