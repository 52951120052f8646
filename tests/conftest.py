"""What the end-to-end tests share: the example server as a process of its own, and real browsers."""

import json
import os
import shutil
import signal
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

ROOT = Path(__file__).resolve().parent.parent
ADDRESS_LINE = "listening on http://"
# Seconds. Far beyond what either takes, so that a slow machine fails no test.
START_TIMEOUT = 30
STOP_TIMEOUT = 30


# Whoever runs the tests in the background may have SIGINT ignored, and every process that they start would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Door(NamedTuple):
    """How a user gets into the demo's room."""

    url: str
    room: str
    subprotocols: list[str]


class Process:
    """A server as a process of its own, on a port that it keeps over restarts, with its own data directory."""

    def __init__(self, command: list[str | Path], ready: str, data: Path, environment: dict[str, str]) -> None:
        self.data = data
        self.port = 0
        self.output_lines: list[str] = []
        self._command = command
        self._ready = ready
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def output(self) -> str:
        """All that it has printed, over every start."""
        return "".join(self.output_lines)

    def door(self, user: str) -> Door:
        """The way into the demo's room."""
        raise NotImplementedError

    def start(self, **environment: str) -> str:
        """Starts it and returns the line with which it says that it is ready."""
        assert self._process is None, "the server is running already"
        self._process = subprocess.Popen(
            self._command,
            env=os.environ | self._environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Some servers have helpers, which a kill has to reach, too.
            start_new_session=True,
        )
        settled = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, settled), daemon=True)
        before = len(self.output_lines)
        self._reader.start()
        settled.wait(START_TIMEOUT)
        line = next((line for line in self.output_lines[before:] if self._ready in line), None)
        if line is None:
            self.kill()
            pytest.fail(f"the server did not start:\n{self.output}")
        return line

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs for a test. Its output is shown when that fails."""
        try:
            self.start()
            yield
        finally:
            self.close()
            print(self.output)

    def kill(self) -> None:
        """`kill -9`: whatever it had in hand is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Asks it to stop, as Ctrl-C does, and returns its exit status."""
        return self._end(signal.SIGINT)

    def restart(self) -> None:
        """Kills it and starts it again on the same port and data."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Leaves no process behind, whatever state the test left it in."""
        if self._process is not None:
            self.kill()

    def _end(self, signum: signal.Signals) -> int:
        assert self._process is not None, "the server is not running"
        assert self._reader is not None
        if signum == signal.SIGKILL:
            os.killpg(self._process.pid, signum)
        else:
            self._process.send_signal(signum)
        try:
            status = self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            pytest.fail(f"the server did not stop on {signum.name}:\n{self.output}")
        finally:
            self._reader.join()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
        return status

    def _read(self, process: subprocess.Popen[str], settled: threading.Event) -> None:
        """Reads to the end, so that the server never blocks on a full pipe."""
        assert process.stdout is not None
        for line in process.stdout:
            self.output_lines.append(line)
            if self._ready in line:
                settled.set()
        settled.set()


class Server(Process):
    """The example server. It chooses a free port at its first start."""

    def __init__(self, binary: Path, data: Path) -> None:
        super().__init__([binary], ADDRESS_LINE, data, {"DIGI_DATA": str(data)})

    def start(self, **environment: str) -> str:
        line = super().start(**{"DIGI_LISTEN": f"127.0.0.1:{self.port}"} | environment)
        self.port = int(line.split(ADDRESS_LINE)[1].split("/")[0].rpartition(":")[2])
        return line

    def door(self, user: str) -> Door:
        query = urllib.parse.urlencode({"user": user})
        with urllib.request.urlopen(f"{self.url}join?{query}", timeout=START_TIMEOUT) as response:
            answer = json.load(response)
        path, login = answer["path"], answer["login"]
        return Door(self.ws_url.rstrip("/") + path, path.strip("/").split("/")[-1], ["digi", f"digi.jwt.{login}"])


@pytest.fixture(scope="session")
def server_binary() -> Path:
    """The example server, with what the Rust tests have built."""
    command = ["cargo", "build", "--workspace", "--all-features", "--bin", "rust-server"]
    command += ["--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert built.returncode == 0, "cargo could not build rust-server"
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    binaries = [Path(message["executable"]) for message in messages if message.get("executable")]
    assert len(binaries) == 1, binaries
    return binaries[0]


@pytest.fixture
def server(server_binary: Path, tmp_path: Path) -> Iterator[Server]:
    """A running server of this test's own. Its output is shown when the test fails."""
    server = Server(server_binary, tmp_path / "data")
    with server.running():
        yield server


@pytest.fixture
def open_browser() -> Iterator[Callable[[], "Chrome"]]:
    """Opens headless Chromiums that share nothing: each call is another person's browser."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    browsers: list[Chrome] = []

    def open_browser() -> Chrome:
        options = ChromeOptions()
        options.binary_location = chromium
        # As root, and in containers, Chromium has neither its sandbox nor a large /dev/shm.
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=720,900"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        browsers.append(Chrome(options=options, service=ChromeService(executable_path=driver)))
        return browsers[-1]

    try:
        yield open_browser
    finally:
        for browser in browsers:
            browser.quit()
