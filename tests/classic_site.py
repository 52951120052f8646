"""The classic chat of examples/classic-chat as processes of its own, at any step of its way to Digi."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.alert import Alert
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from asgi_servers import free_port
from browser_page import TIMEOUT, Page
from conftest import ROOT, Process

EXAMPLE = ROOT / "examples" / "classic-chat"
#: As `manage.py demo` makes them.
PASSWORD = "classic-demo"

SERVERS = {
    "daphne": (["daphne", "--port", "{port}", "website.asgi:application"], "Listening on TCP address"),
    "uvicorn": (["uvicorn", "--port", "{port}", "website.asgi:application"], "Uvicorn running on"),
    "hypercorn": (["hypercorn", "--bind", "127.0.0.1:{port}", "website.asgi:application"], "Running on"),
    "granian": (["granian", "--interface", "asgi", "--port", "{port}", "website.asgi:application"], "Started worker-1"),
}


class ClassicSite(Process):
    """A copy of the example under an ASGI server."""

    def __init__(self, directory: Path, redis: str, server: str = "daphne", step: str | None = None) -> None:
        (program, *arguments), ready = SERVERS[server]
        port = free_port()
        self.source = directory / "classic-chat"
        command: list[str | Path] = [Path(sys.executable).parent / program]
        command += [argument.format(port=port) for argument in arguments]
        environment = {
            "CHAT_DATA": str(directory / "data"),
            "CHAT_REDIS": redis,
            "DJANGO_SETTINGS_MODULE": "website.settings",
            "PYTHONPATH": str(self.source),
            "PYTHONUNBUFFERED": "1",
        }
        super().__init__(command, ready, directory / "data", environment)
        self.port = port
        shutil.copytree(EXAMPLE, self.source, ignore=shutil.ignore_patterns("data", "__pycache__"))
        if step is not None:
            self.take(step)

    def take(self, step: str) -> None:
        """Changes the project as the example's folder `steps` says."""
        apply: list[str | Path] = ["git", "apply", "-p1", EXAMPLE / "steps" / f"{step}.patch"]
        done = subprocess.run(apply, cwd=self.source, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def manage(self, *arguments: str) -> str:
        command: list[str | Path] = [sys.executable, self.source / "manage.py", *arguments]
        environment = os.environ | self._environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class ClassicPage(Page):
    """A page of the site, and somebody in front of it."""

    def __init__(self, browser: Chrome, site: ClassicSite, user: str) -> None:
        super().__init__(browser)
        self.site = site
        self.browser.get(site.url + "login/")
        self.find("#id_username").send_keys(user)
        self.find("#id_password").send_keys(PASSWORD, Keys.ENTER)
        self.wait("logged in", lambda: bool(self.browser.find_elements(By.ID, "connections")))

    def enter(self) -> None:
        self.find("#connections a").click()
        self.wait_until_connected()

    def wait_until_connected(self) -> None:
        self.wait("connected", lambda: self.find("#chat-state").text == "connected")

    def texts(self) -> list[str]:
        found = self.browser.execute_script(
            "return [...document.querySelectorAll('#chat-log .text')].map((text) => text.textContent)"
        )
        assert isinstance(found, list)
        return found

    def write(self, text: str) -> None:
        self.find("#chat-message-input").send_keys(text, Keys.ENTER)

    def button(self, text: str, name: str) -> None:
        self.browser.find_element(By.XPATH, f"//li[span[text()='{text}']]/button[@class='{name}']").click()

    def edit(self, text: str, changed: str) -> None:
        self.button(text, "edit")
        prompt = WebDriverWait(self.browser, TIMEOUT).until(lambda browser: Alert(browser))
        prompt.send_keys(changed)
        prompt.accept()

    def reload(self) -> None:
        self.browser.refresh()
        self.wait_until_connected()
