"""Real Redis servers of a test's own, and a network between them and Digi that delays and cuts."""

import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import redis

# Seconds. Far beyond what it takes.
TIMEOUT = 20.0


class RedisServer:
    """A `redis-server` that keeps its port over restarts, and nothing else."""

    def __init__(self, directory: Path, password: str = "", tls: Mapping[str, Path] | None = None) -> None:
        self.port = 0
        self._directory = directory
        self._password = password
        #: Files by the ends of the options' names, for a server with TLS only.
        self._tls = tls or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        login = f":{self._password}@" if self._password else ""
        return f"redis{'s' if self._tls else ''}://{login}127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        for _ in range(5):
            port = self.port or _free_port()
            command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            if self._password:
                command += ["--requirepass", self._password]
            if self._tls:
                command += ["--port", "0", "--tls-port", str(port)]
                command += [word for name, file in self._tls.items() for word in (f"--tls-{name}-file", str(file))]
            log = self._directory / f"redis-{port}.log"
            with log.open("wb") as stdout:
                self._process = subprocess.Popen(command, cwd=self._directory, stdout=stdout)
            if self._comes_up(log):
                self.port = port
                return
            # Somebody else took the port meanwhile.
        pytest.fail("redis-server does not start")

    def _comes_up(self, log: Path) -> bool:
        """It says so itself: what answers on its port may be another server."""
        assert self._process is not None
        deadline = time.monotonic() + TIMEOUT
        while self._process.poll() is None and time.monotonic() < deadline:
            if b"Ready to accept connections" in log.read_bytes():
                return True
            time.sleep(0.02)
        self.kill()
        return False

    def freeze(self) -> None:
        """It keeps its connections, and does nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, signum: signal.Signals) -> None:
        assert self._process is not None, "Redis is not running"
        self._process.send_signal(signum)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis_servers(
    directory: Path, count: int, password: str = "", tls: Mapping[str, Path] | None = None
) -> Iterator[list[RedisServer]]:
    """So many running servers."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here: apt-get install redis-server")
    servers = [RedisServer(directory, password, tls) for _ in range(count)]
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            server.start()
        yield servers


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
                far = socket.create_connection(("127.0.0.1", self._target), TIMEOUT)
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
            thread.join(TIMEOUT)
