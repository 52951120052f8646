"""What the end-to-end tests share: the example server as a process of its own, and real browsers."""

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

ROOT = Path(__file__).resolve().parent.parent
ADDRESS_LINE = "listening on http://"
# Seconds. Far beyond what either takes, so that a slow machine fails no test.
START_TIMEOUT = 30
STOP_TIMEOUT = 30


class Server:
    """The example server on its own free port with its own data directory.

    The port found at the first start is kept, so that clients find a restarted server where it was.
    """

    def __init__(self, binary: Path, data: Path) -> None:
        self.data = data
        self.port = 0
        self._binary = binary
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._output: list[str] = []

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
        return "".join(self._output)

    def start(self, **environment: str) -> None:
        """Starts it and returns once it has said where it listens."""
        assert self._process is None, "the server is running already"
        self._process = subprocess.Popen(
            [self._binary],
            env=os.environ | {"DIGI_LISTEN": f"127.0.0.1:{self.port}", "DIGI_DATA": str(self.data)} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        settled = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, settled), daemon=True)
        before = len(self._output)
        self._reader.start()
        settled.wait(START_TIMEOUT)
        line = next((line for line in self._output[before:] if ADDRESS_LINE in line), None)
        if line is None:
            self.kill()
            pytest.fail(f"the server did not start:\n{self.output}")
        self.port = int(line.split(ADDRESS_LINE)[1].split("/")[0].rpartition(":")[2])

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
        self._process.send_signal(signum)
        try:
            status = self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
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
            self._output.append(line)
            if ADDRESS_LINE in line:
                settled.set()
        settled.set()


@pytest.fixture(scope="session")
def server_binary() -> Path:
    """The example server, built once as `make run` builds it."""
    command = ["cargo", "build", "--release", "-p", "rust-server", "--message-format", "json-render-diagnostics"]
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
    try:
        server.start()
        yield server
    finally:
        server.close()
        print(server.output)


@pytest.fixture
def open_browser() -> Iterator[Callable[[], Chrome]]:
    """Opens headless Chromiums that share nothing: each call is another person's browser."""
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
