"""Real Redis servers of a test's own."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

# Seconds. Far beyond what it takes.
TIMEOUT = 20.0


class RedisServer:
    """A `redis-server` that keeps its port over restarts, and nothing else."""

    def __init__(self, directory: Path, password: str = "") -> None:
        self.port = 0
        self._directory = directory
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        login = f":{self._password}@" if self._password else ""
        return f"redis://{login}127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        for _ in range(5):
            port = self.port or _free_port()
            command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            if self._password:
                command += ["--requirepass", self._password]
            self._process = subprocess.Popen(command, cwd=self._directory, stdout=subprocess.DEVNULL)
            if self._comes_up(port):
                self.port = port
                return
            # Somebody else took the port meanwhile.
        pytest.fail("redis-server does not start")

    def _comes_up(self, port: int) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + TIMEOUT
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16):
                        return True
            except OSError:
                time.sleep(0.02)
        self.kill()
        return False

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
def redis_servers(directory: Path, count: int, password: str = "") -> Iterator[list[RedisServer]]:
    """So many running servers."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here: apt-get install redis-server")
    servers = [RedisServer(directory, password) for _ in range(count)]
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            server.start()
        yield servers
