"""The Django example under Uvicorn, and its pages."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from asgi_servers import free_port
from browser_page import Page
from conftest import ROOT, Process

EXAMPLE = ROOT / "examples" / "django-chat"


def manage(data: Path, *arguments: str, **changes: str) -> str:
    """Runs `manage.py`, with changes to its environment, and gives what it printed."""
    command: list[str | Path] = [sys.executable, EXAMPLE / "manage.py", *arguments]
    done = subprocess.run(command, env=environment(data) | changes, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def environment(data: Path) -> dict[str, str]:
    settings = "website.settings"
    return {**os.environ, "DJANGO_SETTINGS_MODULE": settings, "DIGI_DATA": str(data), "PYTHONUNBUFFERED": "1"}


class Site(Process):
    """The site as a process of its own; its data begins as a copy of what was prepared."""

    def __init__(self, prepared: Path, data: Path, **changes: str) -> None:
        port = free_port()
        uvicorn = Path(sys.executable).parent / "uvicorn"
        command: list[str | Path] = [uvicorn, "--port", str(port), "--app-dir", EXAMPLE, "website.asgi:application"]
        super().__init__(command, "Uvicorn running on", data, environment(data) | changes)
        self.port = port
        shutil.copytree(prepared, data)


class SitePage(Page):
    """A page of the site, and somebody in front of it."""

    def __init__(self, browser: Chrome, site: Site) -> None:
        super().__init__(browser)
        self.site = site

    def log_in(self, user: str, password: str) -> None:
        self.find("#id_username").clear()
        self.find("#id_username").send_keys(user)
        self.click(lambda: self.find("#id_password").send_keys(password, Keys.ENTER))

    def enter(self, room: str = "Alice and Bob") -> None:
        """From the list of rooms into one."""
        link = self.browser.find_element(By.XPATH, f"//li/a[span[@class='room' and text()='{room}']]")
        self.click(link.click)
        self.wait_for_status("Connected")

    def follow(self, selector: str) -> None:
        self.click(self.find(selector).click)

    def click(self, act: Callable[[], object]) -> None:
        """Does what leads to another page, and waits for that."""
        before = self.find("html")
        act()
        self.wait("another page", lambda: self.find("html") != before and self.is_complete())

    def is_complete(self) -> bool:
        return bool(self.browser.execute_script("return document.readyState === 'complete'"))

    def wait_for_others(self, text: str) -> None:
        self.wait(f"waited for {text!r}", lambda: self.find("#others").text.removeprefix("· ") == text)

    def say(self, text: str) -> None:
        """Writes at once what would take long to type."""
        self.browser.execute_script(
            "document.getElementById('text').value = arguments[0];document.getElementById('composer').requestSubmit()",
            text,
        )

    def delete(self, text: str) -> None:
        self.press(text, "Delete")
        self.wait("asked", lambda: self.find("#confirm").is_displayed())
        self.find("#confirm .danger").click()

    def wait_until_stored(self) -> None:
        unsent = "return document.querySelector('.sending, .waiting, .saving, .deleting') === null"
        self.wait("unsent", lambda: bool(self.browser.execute_script(unsent)))

    def emulate(self, *, scheme: str = "light", width: int = 720, height: int = 900, touch: bool = False) -> None:
        self.prefer(scheme)
        # A headless Chromium has no mouse, and cannot be told that it has one.
        self.browser.execute_script(
            "for (const sheet of document.styleSheets) for (const { media } of sheet.cssRules)"
            " if (/hover: hover|^(not )?all$/.test(media?.mediaText)) media.mediaText = arguments[0]",
            "not all" if touch else "all",
        )
        self.resize(width, height, touch=touch)
        shown = "1" if touch else "0"
        opacities = "return [...document.querySelectorAll('.actions')].map((each) => getComputedStyle(each).opacity)"
        self.wait("buttons", lambda: set(self.browser.execute_script(opacities)) <= {shown})
