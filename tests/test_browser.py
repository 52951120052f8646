"""Alice and Bob in two real browsers."""

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from chat_client import live
from conftest import Server

TIMEOUT = 30  # seconds
Open = Callable[[], Chrome]


class Page:
    """What one person sees and does."""

    def __init__(self, browser: Chrome, server: Server, user: str) -> None:
        self.browser = browser
        browser.get(f"{server.url}?as={user}")
        self.wait_for_status("Connected")

    def texts(self) -> list[str]:
        """The texts of all bubbles from top to bottom, in one look."""
        found = self.browser.execute_script(
            "return [...document.querySelectorAll('.message .text')].map((text) => text.textContent)"
        )
        assert isinstance(found, list)
        return found

    def write(self, text: str) -> None:
        self.find("#text").send_keys(text, Keys.ENTER)

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def bubble(self, text: str) -> WebElement:
        return self.browser.find_element(By.XPATH, f"//li[p[@class='text' and text()='{text}']]")

    def is_mine(self, text: str) -> bool:
        return "mine" in (self.bubble(text).get_attribute("class") or "").split()

    def press(self, text: str, button: str) -> None:
        """Presses a button that belongs to a message, as somebody does who has no mouse."""
        self.focus(text, button).send_keys(Keys.ENTER)

    def focus(self, text: str, button: str) -> WebElement:
        element = self.bubble(text).find_element(By.XPATH, f".//button[text()='{button}']")
        self.browser.execute_script("arguments[0].focus()", element)
        visible = "return getComputedStyle(arguments[0].parentElement).opacity === '1'"
        self.wait("the button", lambda: bool(self.browser.execute_script(visible, element)))
        return element

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        try:
            # What was looked at may have been replaced meanwhile: look again.
            waiting = WebDriverWait(self.browser, TIMEOUT, 0.05, [StaleElementReferenceException])
            waiting.until(lambda _: condition())
        except TimeoutException:
            pytest.fail(f"{what}, but there is {self.find('#status').text!r} {self.texts()}")

    def wait_for_texts(self, *texts: str) -> None:
        self.wait(f"waited for {texts}", lambda: self.texts() == list(texts))

    def wait_for_status(self, text: str) -> None:
        self.wait(f"waited for {text!r}", lambda: self.find("#status").text.startswith(text))

    def wait_until_stored(self) -> None:
        self.wait("unsent", lambda: not self.browser.find_elements(By.CSS_SELECTOR, ".sending, .waiting, .saving"))

    def picture(self, name: str) -> str:
        """A picture in base64; kept in `DIGI_SCREENSHOTS`, if that is set."""
        picture = self.browser.get_screenshot_as_base64()
        if folder := os.environ.get("DIGI_SCREENSHOTS"):
            path = Path(folder) / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(picture))
        return picture

    def resize(self, width: int, height: int, *, touch: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def emulate(self, *, scheme: str = "light", width: int = 720, height: int = 900, touch: bool = False) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        # A headless Chromium has no mouse, and cannot be told that it has one.
        self.browser.execute_script(
            "for (const { media } of document.styleSheets[0].cssRules)"
            " if (/hover: hover|^(not )?all$/.test(media?.mediaText)) media.mediaText = arguments[0]",
            "not all" if touch else "all",
        )
        shown = "1" if touch else "0"
        self.wait("buttons", lambda: self.find(".mine .actions").value_of_css_property("opacity") == shown)
        self.resize(width, height, touch=touch)

    def complaints(self) -> list[str]:
        """What the browser's console has against the page; that a server is away is no fault of it."""
        lines = [str(entry["message"]) for entry in self.browser.get_log("browser")]  # type: ignore[no-untyped-call]
        return [line for line in lines if "ERR_CONNECTION_REFUSED" not in line and "WebSocket connection" not in line]


@pytest.fixture
def pages(server: Server, open_browser: Open) -> Iterator[tuple[Page, Page]]:
    alice, bob = Page(open_browser(), server, "alice"), Page(open_browser(), server, "bob")
    yield alice, bob
    assert (alice.complaints(), bob.complaints()) == ([], [])


def test_two_people_chat(server: Server, pages: tuple[Page, Page]) -> None:
    alice, bob = pages
    alice.write("Hello Bob")
    bob.wait_for_texts("Hello Bob")
    bob.write("Hello Alice")
    alice.wait_for_texts("Hello Bob", "Hello Alice")
    assert (alice.is_mine("Hello Bob"), bob.is_mine("Hello Bob")) == (True, False)
    # What others wrote is read out, one's own is not.
    alice.wait("announced", lambda: alice.find("#news").get_attribute("textContent") == "Bob: Hello Alice")
    # Nobody can change what another wrote.
    assert alice.bubble("Hello Alice").find_elements(By.TAG_NAME, "button") == []

    alice.press("Hello Bob", "Edit")
    assert alice.find("#text").get_attribute("value") == "Hello Bob"
    alice.write("!")
    bob.wait_for_texts("Hello Bob!", "Hello Alice")
    assert "edited" in bob.bubble("Hello Bob!").text
    alice.wait_until_stored()

    alice.press("Hello Bob!", "Delete")
    alice.wait("asked", lambda: alice.find("#confirm").is_displayed())
    alice.find("#confirm .danger").click()
    gone = "This message was deleted."
    bob.wait_for_texts(gone, "Hello Alice")
    alice.wait_for_texts(gone, "Hello Alice")

    # The arrow up takes the last own message; Escape leaves it as it was.
    bob.find("#text").send_keys(Keys.ARROW_UP)
    assert bob.find("#text").get_attribute("value") == "Hello Alice"
    bob.find("#text").send_keys(" and the rest", Keys.ESCAPE)
    assert bob.find("#text").get_attribute("value") == ""
    assert bob.texts() == [gone, "Hello Alice"]

    # Two lines, and nothing in a text is taken for HTML.
    bob.find("#text").send_keys("<b>one</b>", Keys.SHIFT, Keys.ENTER, Keys.NULL, "two", Keys.ENTER)
    alice.wait_for_texts(gone, "Hello Alice", "<b>one</b>\ntwo")
    alice.browser.refresh()
    alice.wait_for_texts(gone, "Hello Alice", "<b>one</b>\ntwo")
    with live(server, "alice") as client:
        assert client.history()["through"] == 5


def test_a_killed_server_loses_and_doubles_nothing(server: Server, pages: tuple[Page, Page]) -> None:
    alice, bob = pages
    alice.write("before")
    bob.wait_for_texts("before")
    server.kill()
    for page in pages:
        page.wait_for_status("Not connected")
    alice.write("written offline")
    alice.write("and a second one")
    bob.write("Bob as well")
    alice.wait_for_texts("before", "written offline", "and a second one")
    assert "Waiting" in alice.bubble("written offline").text
    alice.press("before", "Edit")
    alice.write(", edited offline")
    alice.wait_for_texts("before, edited offline", "written offline", "and a second one")

    server.start()
    for page in pages:
        page.wait_for_status("Connected")
        page.wait("all four", lambda page=page: len(page.texts()) == 4)  # type: ignore[misc]
        page.wait_until_stored()
    assert sorted(alice.texts()) == sorted(
        ["before, edited offline", "written offline", "and a second one", "Bob as well"]
    )
    assert alice.texts().index("written offline") < alice.texts().index("and a second one")
    alice.wait_for_texts(*bob.texts())
    with live(server, "alice") as client:
        history = client.history()
        assert [message["message"] for message in history["messages"]] == bob.texts()
        assert history["through"] == 5


def test_a_server_that_dies_while_someone_writes(server: Server, pages: tuple[Page, Page]) -> None:
    alice, bob = pages
    expected = []
    for number in range(60):
        expected.append(f"message {number}")
        alice.write(expected[-1])
        if number % 20 == 10:
            server.restart()
    for page in pages:
        page.wait_for_status("Connected")
        page.wait_for_texts(*expected)
        page.wait_until_stored()
    with live(server, "alice") as client:
        history = client.history(limit=200)
        assert [message["message"] for message in history["messages"]] == expected
        assert history["through"] == 60
    bob.browser.refresh()
    bob.wait("reloaded", lambda: bob.texts()[-1:] == ["message 59"])


def test_older_messages_come_in_pages(server: Server, open_browser: Open) -> None:
    with live(server, "bob") as bob:
        for number in range(120):
            bob.send("add", message=f"message {number}")
        for _ in range(120):
            bob.expect("add")
    page = Page(open_browser(), server, "alice")
    page.wait_for_texts(*(f"message {number}" for number in range(70, 120)))
    page.find("#older").click()
    page.wait_for_texts(*(f"message {number}" for number in range(20, 120)))
    # What one was looking at stays in sight.
    assert page.browser.execute_script("return document.getElementById('scroller').scrollTop") > 500
    page.find("#older").click()
    page.wait_for_texts(*(f"message {number}" for number in range(120)))
    assert not page.find("#older").is_displayed()


def test_what_is_refused_says_so_and_can_be_discarded(pages: tuple[Page, Page]) -> None:
    alice, bob = pages
    too_long = "x" * 17_000
    alice.browser.execute_script("document.getElementById('text').value = arguments[0]", too_long)
    alice.write("")
    alice.wait("refused", lambda: bool(alice.browser.find_elements(By.CSS_SELECTOR, ".failed")))
    assert "Too long" in alice.find(".failed .note").text
    alice.write("what follows is sent")
    bob.wait_for_texts("what follows is sent")
    alice.press(too_long, "Discard")
    alice.wait_for_texts("what follows is sent")


def test_the_first_page_lets_one_choose(server: Server, open_browser: Open) -> None:
    browser = open_browser()
    browser.get(server.url)
    links = browser.find_elements(By.CSS_SELECTOR, "#choose a")
    assert [link.get_attribute("href") for link in links] == [f"{server.url}?as=alice", f"{server.url}?as=bob"]
    links[1].click()
    WebDriverWait(browser, TIMEOUT).until(lambda _: browser.title == "Bob · Digi chat")


def test_light_and_dark_wide_and_narrow(pages: tuple[Page, Page]) -> None:
    alice, bob = pages
    alice.write("Did you see that the new engine is in?")
    bob.wait_until_stored()
    bob.wait_for_texts("Did you see that the new engine is in?")
    bob.write("Yes! I closed the laptop in the train and nothing was lost when I came back 🎉")
    bob.wait_until_stored()
    bob.write("It even kept the order.")
    bob.wait_until_stored()
    alice.wait("three", lambda: len(alice.texts()) == 3)
    alice.write("Lunch at twelve?")
    alice.wait_until_stored()
    alice.press("Lunch at twelve?", "Edit")
    alice.write(" At the harbour.")
    alice.wait_until_stored()
    alice.write("Wrong chat, sorry")
    alice.wait_until_stored()
    alice.press("Wrong chat, sorry", "Delete")
    alice.find("#confirm .danger").click()
    bob.wait("tombstone", lambda: "This message was deleted." in bob.texts())
    bob.write("See you there. שלום 👋")
    alice.wait("seven", lambda: len(alice.texts()) == 6)
    bob.wait_until_stored()

    side_by_side = []
    for page, name in ((alice, "alice"), (bob, "bob")):
        for scheme in ("light", "dark"):
            for width, height, touch in ((720, 900, False), (390, 760, True), (320, 568, True)):
                page.emulate(scheme=scheme, width=width, height=height, touch=touch)
                overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
                assert page.browser.execute_script(overflow) == 0
                assert page.find("#send").is_displayed()
                page.picture(f"{name}-{scheme}-{width}")
        page.emulate(scheme="light" if name == "alice" else "dark", width=560, height=640)
        if name == "alice":
            page.focus("Lunch at twelve? At the harbour.", "Edit")
        side_by_side.append(page.picture(f"{name}-half"))
    frames = "".join(f"<img src='data:image/png;base64,{picture}'>" for picture in side_by_side)
    alice.browser.get("about:blank")
    alice.browser.execute_script(
        "document.body.style.cssText = 'margin:0;padding:16px;display:flex;gap:16px;background:#c3c9d4';"
        "document.body.innerHTML = arguments[0]",
        frames,
    )
    alice.resize(2 * 560 + 48, 640 + 32)
    alice.picture("two-tabs")
