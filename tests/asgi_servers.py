"""ASGI servers as processes of their own, with the application of `asgi_app` in them."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from conftest import ROOT, START_TIMEOUT, Door, Process

#: The command of each server, and what it prints once it listens.
SERVERS = {
    "uvicorn": (["uvicorn", "--port", "{port}", "asgi_app:application"], "Uvicorn running on"),
    "daphne": (["daphne", "--port", "{port}", "asgi_app:application"], "Listening on TCP address"),
    "hypercorn": (["hypercorn", "--bind", "127.0.0.1:{port}", "asgi_app:application"], "Running on"),
    "granian": (["granian", "--interface", "asgi", "--port", "{port}", "asgi_app:application"], "Started worker-1"),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class AsgiServer(Process):
    """One of `SERVERS`, with a room for alice and bob."""

    def __init__(self, name: str, data: Path, store: str = "native") -> None:
        (program, *arguments), ready = SERVERS[name]
        port = free_port()
        command: list[str | Path] = [Path(sys.executable).parent / program]
        command += [argument.format(port=port) for argument in arguments]
        tests = ROOT / "tests"
        environment = {"DIGI_DATA": str(data), "DIGI_STORE": store, "PYTHONPATH": str(tests), "PYTHONUNBUFFERED": "1"}
        super().__init__(command, ready, data, environment)
        self.port = port
        data.mkdir()
        prepare: list[str | Path] = [sys.executable, tests / "asgi_app.py"]
        made = subprocess.run(prepare, env=os.environ | environment, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        self.room = made.stdout.strip()

    def start(self, **environment: str) -> str:
        line = super().start(**environment)
        # Granian says that it has started before it listens.
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), START_TIMEOUT).close()
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, self.output
                time.sleep(0.01)
            else:
                return line

    def door(self, user: str) -> Door:
        return Door(f"{self.ws_url}ws/chat/{self.room}/?as={user}", self.room, [])
