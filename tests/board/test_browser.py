"""The board in a real browser: what a radiographer sees, hears, and can do with a mouse, a keyboard or neither."""

import time

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.machine import wait_until

from .room import Room, not_run, screening

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    room = Room(tmp_path_factory.mktemp("house"))
    room.scan = room.add_scan(
        "A77",
        [
            screening("aorta", "finding", "urgent", summary="ascending aorta 56 mm"),
            screening("coronary_calcium", "finding", "soon", summary="Agatston score 400"),
            screening("liver_fat"),
            not_run("emphysema"),
            screening(
                "bone_density",
                "abstained",
                reason={"code": "metal_in_organ", "text": "metal in L1"},
                caveats=["x"],
            ),
            screening("kidney_stone", "failed", reason={"code": "screening_failed", "text": "an internal error"}),
        ],
        pictures=["aorta"],
    )
    room.board = room.start(people=["Li Wei", "王芳"])
    yield room
    room.close()


@pytest.fixture(scope="module")
def _window(house, browse_module):
    browser = browse_module(house.board.url)
    browser.log_in()
    return browser


@pytest.fixture
def page(house, _window):
    """The first page, with nothing open and no sound chosen; nothing may complain on its console."""
    acknowledge_everything(house)
    _window.driver.switch_to.window(_window.driver.window_handles[0])
    _window.log_in()
    _window.run("localStorage.clear()")
    _window.open()
    _window.wait_text("#alerts-title", "No open alerts")
    _window.complaints()
    yield _window
    assert _window.complaints() == []


def acknowledge_everything(room: Room) -> None:
    with room.store() as store:
        for alert in store.alerts.unacknowledged(1000):
            store.alerts.acknowledge(alert.id, "test")


def raise_one(room: Room, *screenings: tuple[str, str]) -> int:
    scan = room.add_scan("", [screening(name, "finding", urgency) for name, urgency in screenings])
    room.raise_alert(scan, *screenings)
    return scan


def test_a_wrong_password_is_told_and_the_right_one_opens(house, browse):
    browser = browse(house.board.url)
    browser.open()
    browser.log_in("wrong password")
    assert "This is not the password" in browser.text("[role=alert]")
    assert browser.one("#password") == browser.driver.switch_to.active_element
    browser.log_in()
    browser.wait_text("#alerts-title", "alerts")


def test_an_alert_appears_without_loading_the_page_and_is_announced(house, page):
    page.run("window.mark = 1; document.querySelector('#name').value = 'half a na'")
    scan = raise_one(house, ("aorta", "urgent"))
    page.wait_text("#cards", "Aorta")
    assert page.text("#alerts-title") == "Open alerts: 1"
    assert "URGENT" in page.text(".card .kind")
    assert f"New alert: Aorta, Scan {scan}" in page.run("return document.querySelector('#announce').textContent")
    assert page.run("return document.querySelector('#announce').getAttribute('role')") == "alert"
    assert page.run("return window.mark") == 1
    assert page.run("return document.querySelector('#name').value") == "half a na"
    assert page.driver.title.startswith("(1)")


def test_one_click_and_a_name(house, page):
    scan = raise_one(house, ("aorta", "urgent"), ("coronary_calcium", "soon"))
    page.wait_text("#cards", "Aorta, Coronary calcium")
    page.run("window.mark = 1; document.querySelector('#name').value = ''")
    page.one("#name").send_keys("王芳")
    page.one(".card button").click()
    page.wait_text("#alerts-title", "No open alerts")
    page.wait_text("#told", "Acknowledged by 王芳.")
    page.wait_text("#recent", "王芳")
    assert page.run("return window.mark") == 1
    with house.store() as store:
        assert {a.acknowledged_by for a in store.alerts.recent(50) if a.scan_id == scan} == {"王芳"}
    page.open()
    assert page.run("return document.querySelector('#name').value") == "王芳"


def test_without_a_name_the_browser_asks_for_one(house, page):
    raise_one(house, ("aorta", "urgent"))
    page.wait_text("#cards", "Aorta")
    page.run("document.querySelector('#name').value = ''")
    page.one(".card button").click()
    assert page.run("return document.querySelector('#name').matches(':invalid')")
    assert page.cards() == 1


def test_enter_in_the_name_acknowledges_nothing(house, page):
    raise_one(house, ("aorta", "urgent"))
    page.wait_text("#cards", "Aorta")
    page.run("document.querySelector('#name').value = ''")
    page.one("#name").send_keys("Li Wei", Keys.ENTER)
    time.sleep(1.0)
    with house.store() as store:
        assert len(store.alerts.unacknowledged()) == 1


def test_with_the_keyboard_alone(house, page):
    raise_one(house, ("aorta", "urgent"))
    two = raise_one(house, ("emphysema", "soon"))
    wait_until(lambda: page.cards() == 2, "two cards")

    def focused(script: str) -> str:
        return page.run(f"const e = document.activeElement; return {script}")

    def tab_to(what: str) -> None:
        for _ in range(40):
            ActionChains(page.driver).send_keys(Keys.TAB).perform()
            if focused(f"e.matches({what!r})"):
                return
        pytest.fail(f"no way to {what} with the tabulator")

    page.run("document.querySelector('#name').value = ''; document.activeElement.blur()")
    ActionChains(page.driver).send_keys(Keys.TAB).perform()
    assert focused("e.className") == "skip"
    tab_to("#name")
    ActionChains(page.driver).send_keys("Li Wei").perform()
    tab_to(".card button")
    assert page.run("const s = getComputedStyle(document.activeElement); return parseInt(s.outlineWidth)") >= 3
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    wait_until(lambda: page.cards() == 1, "one card less")
    # The focus goes on to the next one and not to the top of the page.
    wait_until(lambda: focused("e.closest('.card')?.dataset.key") == str(two), "the focus on the next card")
    ActionChains(page.driver).send_keys(Keys.SPACE).perform()
    page.wait_text("#alerts-title", "No open alerts")
    wait_until(lambda: focused("e.id") == "alerts-title", "the focus on the heading")


def test_two_browsers_at_once(house, page, browse):
    other = browse(house.board.url)
    other.log_in()
    raise_one(house, ("aorta", "urgent"))
    for browser in (page, other):
        browser.wait_text("#cards", "Aorta")
        browser.run("window.mark = 1")
    other.run("document.querySelector('#name').value = 'Zhang'")
    other.one(".card button").click()
    page.wait_text("#alerts-title", "No open alerts")
    page.wait_text("#recent", "Zhang")
    assert page.run("return window.mark") == 1
    assert other.complaints() == []


def test_the_language_is_switched_and_remembered(house, page):
    raise_one(house, ("aorta", "urgent"))
    page.wait_text("#cards", "Aorta")
    page.one("button[lang='zh-CN']").click()
    page.wait_text("#cards", "主动脉")
    assert page.run("return document.documentElement.lang") == "zh-CN"
    page.open(f"/scans/{house.scan}")
    text = page.text()
    for words in ("主动脉", "有发现（紧急）", "未运行", "层厚过大", "请同时发送薄层序列", "未经医师审核"):
        assert words in text
    page.one("button[lang='en']").click()
    page.wait_text("h1", "Accession A77")
    assert page.driver.current_url.endswith(f"/scans/{house.scan}")


def test_the_sound_is_off_until_somebody_turns_it_on_and_then_remembered(house, page):
    def sound() -> str:
        return page.text("#sound")

    assert "SOUND IS OFF" in sound()
    page.one("#sound").click()
    wait_until(lambda: sound() == "Sound is on", "the sound")
    assert page.run("return document.querySelector('#sound').getAttribute('aria-pressed')") == "true"
    assert page.run("return document.documentElement.dataset.lastBeep") == "test"
    raise_one(house, ("aorta", "urgent"))
    wait_until(lambda: page.run("return document.documentElement.dataset.lastBeep") == "urgent", "the alarm")
    beeps = int(page.run("return document.documentElement.dataset.beeps"))
    wait_until(lambda: int(page.run("return document.documentElement.dataset.beeps")) > beeps, "the alarm again")
    page.open()
    wait_until(lambda: sound() and "OFF" not in sound(), "the choice remembered")
    # Whether the new page may sound at once is the browser's choice; a press turns it on, or off where it was on.
    for _ in range(2):
        before = sound()
        page.one("#sound").click()
        wait_until(lambda before=before: sound() != before, "an answer to the press")
        if "OFF" in sound():
            break
    assert "OFF" in sound()


def test_a_browser_that_blocks_the_sound_is_said_to(house, browse):
    browser = browse(house.board.url, arguments=("--autoplay-policy=document-user-activation-required",))
    browser.log_in()
    browser.run("localStorage.setItem('board-sound', 'on')")
    browser.driver.get("about:blank")
    browser.open()
    wait_until(lambda: "BLOCKED" in browser.text("#sound"), "the sign")
    browser.one("#alerts-title").click()  # any press will do
    wait_until(lambda: browser.text("#sound") == "Sound is on", "the sound")


def test_without_javascript(house, browse):
    acknowledge_everything(house)
    scan = raise_one(house, ("aorta", "urgent"))
    browser = browse(house.board.url, script=False)
    browser.log_in()
    assert "JavaScript is off" in browser.one("noscript p").text
    assert browser.one("meta[http-equiv=refresh]").get_attribute("content") == "20;url=/"
    assert browser.one(".card h2").text == "Aorta"
    assert not browser.one("#sound").is_displayed()
    browser.one("#name").send_keys("Zhang")
    browser.one(".card button").click()
    wait_until(lambda: "No open alerts" in browser.one("#alerts-title").text, "the page after it")
    assert "Acknowledged by Zhang." in browser.one("#told").text
    assert browser.one("#name").get_attribute("value") == "Zhang"
    browser.one(f"a[href='/scans/{scan}']").click()
    wait_until(lambda: "URGENT" in browser.one("body").text or "urgent" in browser.one("body").text, "the scan")
    browser.one("button[lang='zh-CN']").click()
    wait_until(lambda: "返回看板" in browser.one("body").text, "the other language")


def test_logging_out_elsewhere_shows_the_login(house, page):
    form = "document.querySelector(\"form[action='/logout']\")"
    page.run(f"fetch('/logout', {{method: 'POST', body: new URLSearchParams(new FormData({form}))}})")
    wait_until(lambda: page.driver.current_url.endswith("/login"), "the login")
    assert "neither shown nor sounded" in page.text()


def test_a_lost_box_is_said_and_found_again(room, browse):
    scan = room.add_scan("A1")
    board = room.start()
    port = board.port
    browser = browse(board.url)
    browser.log_in()
    browser.run("window.mark = 1")
    assert browser.text("#lost") == ""
    board.stop()
    browser.wait_text("#lost", "No connection to the box")
    room.raise_alert(scan)
    room.start(port=port)
    browser.wait_text("#cards", "Aorta")
    wait_until(lambda: browser.text("#lost") == "", "the sign gone")
    assert browser.run("return window.mark") == 1


def test_a_picture_is_shown(house, page):
    page.open(f"/scans/{house.scan}")
    page.run("document.querySelector('img').scrollIntoView()")
    wait_until(lambda: page.run("return document.querySelector('img').naturalWidth") == 64, "the picture")
    assert "Aorta" in page.run("return document.querySelector('img').alt")


# --- readable and usable by everybody -------------------------------------------------------------------------------

CONTRAST = """
const luminance = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const c = numbers(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c.slice(0, 3);
    if (c[3] !== 0) return [-1, -1, -1];
  }
  return [255, 255, 255];
};
const bad = [];
let seen = 0;
for (const e of document.querySelectorAll("body *")) {
  const text = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
  if (!text || !e.checkVisibility() || e.closest("noscript, .unseen, .skip")) continue;
  seen += 1;
  const [a, b] = [numbers(getComputedStyle(e).color).slice(0, 3), ground(e)].map(luminance);
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (!(ratio >= 7)) bad.push(`${ratio.toFixed(2)} ${e.className} ${text}`);
}
return [seen, bad];
"""
ACCESSIBLE = """
const bad = [];
const say = (what, e) => bad.push(`${what}: ${e.outerHTML.slice(0, 120)}`);
const name = (e) => (e.getAttribute("aria-label") || e.textContent || "").trim();
for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea"))
  if (!e.labels.length) say("no label", e);
for (const e of document.querySelectorAll("button:not([hidden]), a[href]"))
  if (!name(e) && !e.querySelector("img[alt]")) say("no name", e);
for (const e of document.querySelectorAll("img")) if (!e.alt) say("no alternative", e);
for (const e of document.querySelectorAll("th")) if (!e.scope) say("no scope", e);
for (const e of document.querySelectorAll("[tabindex]")) if (e.tabIndex > 0) say("an order of its own", e);
for (const e of document.querySelectorAll("[aria-labelledby], [aria-describedby]"))
  for (const id of `${e.getAttribute("aria-labelledby") || ""} ${e.getAttribute("aria-describedby") || ""}`.split(" "))
    if (id && !document.getElementById(id)) say("named by nothing", e);
for (const e of document.querySelectorAll("section"))
  if (!e.getAttribute("aria-labelledby")) say("a section without name", e);
const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
if (new Set(ids).size !== ids.length) bad.push("an id twice");
for (const tag of ["main", "h1", "header"]) if (document.querySelectorAll(tag).length !== 1) bad.push(`not one ${tag}`);
const levels = [...document.querySelectorAll("h1, h2, h3")].map((e) => Number(e.tagName[1]));
if (levels[0] !== 1 || levels.some((v, i) => i && v > levels[i - 1] + 1)) bad.push(`headings ${levels}`);
if (!document.documentElement.lang || !document.title.trim()) bad.push("no language or no title");
const targets = [...document.querySelectorAll("button:not([hidden])")].filter((e) => e.checkVisibility());
for (const e of targets) if (e.getBoundingClientRect().height < 40) say("too small to press", e);
if (!document.querySelector("p.notice")) bad.push("not said that nobody has reviewed it");
if (document.documentElement.scrollWidth > innerWidth) bad.push("wider than the window");
return bad;
"""


def fill(house) -> None:
    raise_one(house, ("aorta", "urgent"))
    raise_one(house, ("emphysema", "soon"))
    raise_one(house, ("liver_fat", "routine"))
    with house.store() as store:
        store.alerts.escalate_overdue()
    raise_one(house, ("kidney_stone", "urgent"))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_can_be_read_and_used_by_everybody(house, page, language):
    fill(house)
    wait_until(lambda: page.cards() == 4, "four cards")
    page.one(f"button[value='{language}']").click()
    try:
        for path in ("/", f"/scans/{house.scan}", "/help", "/scans/99999"):
            page.open(path)
            seen, bad = page.run(CONTRAST)
            assert seen > 8
            assert bad == [], path
            assert page.run(ACCESSIBLE) == [], path
    finally:
        page.open()
        page.one("button[value='en']").click()
    page.complaints()  # the page that is not there is an error on the console, rightly


def test_the_login_can_be_read_and_used_by_everybody(house, browse):
    browser = browse(house.board.url)
    browser.log_in("wrong password")
    assert browser.run(CONTRAST)[1] == []
    assert browser.run(ACCESSIBLE) == []


def test_what_matters_can_be_read_from_three_metres(house, page):
    """At 1920 pixels across a 24-inch screen (0.277 mm each) capitals are 14 mm high: 16 minutes of arc at 3 m."""
    fill(house)
    wait_until(lambda: page.cards() == 4, "four cards")
    for css in ("#alerts-title", ".card h2"):
        height_px = page.run("return parseFloat(getComputedStyle(document.querySelector(arguments[0])).fontSize)", css)
        assert height_px * 0.72 * 0.277 >= 14, css


def test_nothing_moves_where_that_is_asked_for(house, browse):
    fill(house)
    browser = browse(house.board.url, arguments=("--force-prefers-reduced-motion",))
    browser.log_in()
    wait_until(lambda: browser.all(".card.escalated"), "an escalated card")
    assert browser.run("return document.getAnimations().length") == 0
    assert "dashed" in browser.run("return getComputedStyle(document.querySelector('.card.escalated')).outlineStyle")


def test_a_narrow_window_needs_no_scrolling_sideways(house, browse):
    fill(house)
    browser = browse(house.board.url, width=560, height=900)
    browser.log_in()
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
