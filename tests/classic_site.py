"""The classic chat of examples/classic-chat as processes of its own, at any step of its way to Digi."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
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

    def __init__(
        self, directory: Path, redis: str, server: str = "daphne", step: str | None = None, data: Path | None = None
    ) -> None:
        (program, *arguments), ready = SERVERS[server]
        port = free_port()
        self.source = directory / "classic-chat"
        command: list[str | Path] = [Path(sys.executable).parent / program]
        command += [argument.format(port=port) for argument in arguments]
        environment = {
            "CHAT_DATA": str(data or directory / "data"),
            "CHAT_REDIS": redis,
            "DJANGO_SETTINGS_MODULE": "website.settings",
            "PYTHONPATH": str(self.source),
            "PYTHONUNBUFFERED": "1",
        }
        super().__init__(command, ready, data or directory / "data", environment)
        self.port = port
        shutil.copytree(EXAMPLE, self.source, ignore=shutil.ignore_patterns("data", "__pycache__"))
        if step is not None:
            self.take(step)

    @property
    def environment(self) -> dict[str, str]:
        return self._environment

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


class DigiServer(Process):
    """`manage.py digi serve` of a site that has taken the step."""

    def __init__(self, site: ClassicSite, *arguments: str) -> None:
        port = free_port()
        command: list[str | Path] = [sys.executable, site.source / "manage.py", "digi", "serve"]
        command += ["--bind", f"127.0.0.1:{port}", *arguments]
        super().__init__(command, "Digi listens on", site.data, site.environment)
        self.port = port


class Nginx(Process):
    """A real nginx with the example's configuration, but for the ports."""

    def __init__(self, directory: Path, pages: int, sockets: int) -> None:
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        if not Path(binary).exists():
            pytest.skip("no nginx here: apt-get install nginx-light")
        port = free_port()
        server = (EXAMPLE / "steps" / "nginx.conf").read_text()
        for there, here in ((":8080", f":{port}"), (":8000", f":{pages}"), (":9001", f":{sockets}")):
            assert there in server
            server = server.replace(there, here)
        folder = directory / "nginx"
        folder.mkdir()
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"{user} worker_processes 1; pid {folder}/pid; error_log stderr notice;"
            f"events {{ }} http {{ access_log off; {temporary} {server} }}"
        )
        command: list[str | Path] = [binary, "-p", folder, "-c", folder / "nginx.conf", "-g", "daemon off;"]
        super().__init__(command, "start worker process ", folder, {})
        self.port = port


class Caddy(Process):
    """A real Caddy with the example's configuration, but for the ports, and the certificate that it would ask for."""

    def __init__(self, directory: Path, pages: int, sockets: int) -> None:
        binary = shutil.which("caddy")
        if binary is None:
            pytest.skip("no Caddy here: apt-get install caddy")
        port = free_port()
        site = (EXAMPLE / "steps" / "Caddyfile").read_text()
        for there, here in (("chat.example {", f"http://:{port} {{"), (":8000", f":{pages}"), (":9001", f":{sockets}")):
            assert there in site
            site = site.replace(there, here)
        folder = directory / "caddy"
        folder.mkdir()
        (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n}}\n{site}")
        command: list[str | Path] = [binary, "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"]
        homes = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(folder))
        super().__init__(command, "serving initial configuration", folder, homes)
        self.port = port


class ClassicPage(Page):
    """A page of the site, and somebody in front of it."""

    def __init__(self, browser: Chrome, site: Process, user: str) -> None:
        super().__init__(browser)
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

    def wait_until_closed(self) -> None:
        self.wait("closed", lambda: self.find("#chat-state").text.startswith("closed"))

    def reload(self) -> None:
        self.browser.refresh()
        self.wait_until_connected()
