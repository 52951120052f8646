"""A real Redis as a process of the test's own, and a network between it and Digi that delays and cuts."""

import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from asgi_servers import free_port
from conftest import START_TIMEOUT, STOP_TIMEOUT


class RedisServer:
    """Without persistence. `with` starts and ends it; it keeps its port over restarts."""

    def __init__(self, folder: Path) -> None:
        assert shutil.which("redis-server"), "no Redis here: apt-get install redis-server"
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        command += ["--save", "", "--appendonly", "no"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while self._cli("PING") != "PONG":
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """`kill -9`."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(STOP_TIMEOUT)
        self._process = None

    def freeze(self) -> None:
        """It keeps its connections, and does nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def command(self, *words: str) -> str:
        answer = self._cli(*words)
        assert answer is not None, "Redis did not answer"
        return answer

    def _cli(self, *words: str) -> str | None:
        command = ["redis-cli", "-p", str(self.port), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_TIMEOUT)
        return done.stdout.strip() if done.returncode == 0 else None

    def _signal(self, signum: signal.Signals) -> None:
        assert self._process is not None, "Redis is not running"
        self._process.send_signal(signum)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()


class Proxy:
    """What lies between one node and Redis. `with` starts and ends it."""

    def __init__(self, target: int, dice: random.Random) -> None:
        self._target = target
        self._dice = dice
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        #: The longest that a piece of what passes is held up, in seconds.
        self.delay = 0.0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def cut(self) -> None:
        """Every connection breaks; what is on its way is gone."""
        with self._lock:
            ends = list(self._open)
        for end in ends:
            self._shut(end)

    def _shut(self, end: socket.socket) -> None:
        with suppress(OSError):  # the other side may have been quicker
            end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), START_TIMEOUT)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                self._spawn(self._pass_on, source, sink)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                if self.delay:
                    time.sleep(self._dice.uniform(0, self.delay))
                sink.sendall(piece)
        self._shut(source)
        self._shut(sink)
        with self._lock:
            self._open.discard(source)
        source.close()

    def _spawn(self, work: object, *arguments: object) -> None:
        assert callable(work)
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shut(self._listener)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT)
