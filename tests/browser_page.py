"""A chat page in a real browser, and somebody in front of it."""

import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

TIMEOUT = 30  # seconds
GONE = "This message was deleted."
Open = Callable[[], Chrome]


class Page:
    """What one person sees and does."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def texts(self) -> list[str]:
        """The texts of all messages from top to bottom, in one look."""
        found = self.browser.execute_script(
            "return [...document.querySelectorAll('.message .text')].map((text) => text.textContent)"
        )
        assert isinstance(found, list)
        return found

    def write(self, text: str) -> None:
        self.find("#text").send_keys(text, Keys.ENTER)

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def message(self, text: str) -> WebElement:
        return self.browser.find_element(By.XPATH, f"//li[p[@class='text' and text()='{text}']]")

    def is_mine(self, text: str) -> bool:
        return "mine" in (self.message(text).get_attribute("class") or "").split()

    def press(self, text: str, button: str) -> None:
        """Presses a button that belongs to a message, as somebody does who has no mouse."""
        self.focus(text, button).send_keys(Keys.ENTER)

    def focus(self, text: str, button: str) -> WebElement:
        element = self.message(text).find_element(By.XPATH, f".//button[text()='{button}']")
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
            pytest.fail(f"{what}, but there is {self.find('body').text!r}")

    def wait_for_texts(self, *texts: str) -> None:
        self.wait(f"waited for {texts}", lambda: self.texts() == list(texts))

    def wait_for_status(self, text: str) -> None:
        self.wait(f"waited for {text!r}", lambda: text in self.find("#status").text)

    def picture(self, name: str, folder: Path | None = None) -> str:
        """A picture in base64; kept in `DIGI_SCREENSHOTS`, if that is set, otherwise in `folder`."""
        picture = self.browser.get_screenshot_as_base64()
        if kept := os.environ.get("DIGI_SCREENSHOTS") or folder:
            path = Path(kept) / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(picture))
        return picture

    def resize(self, width: int, height: int, *, touch: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, scheme: str) -> None:
        """Light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def fits(self) -> bool:
        """Whether nothing sticks out to the side."""
        overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return bool(self.browser.execute_script(overflow) == 0)

    def complaints(self) -> list[str]:
        """What the browser's console has against the page; that a server is away is no fault of it."""
        lines = [str(entry["message"]) for entry in self.browser.get_log("browser")]  # type: ignore[no-untyped-call]
        return [line for line in lines if "ERR_CONNECTION_REFUSED" not in line and "WebSocket connection" not in line]
