"""digi.js, run by Node."""

import json
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from chat_client import TIMEOUT

SCRIPT = Path(__file__).parent / "node" / "client.mjs"
Shown = dict[str, Any]


class NodeClient:
    """What it knows, and what it is told to do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(process.stdout,))
        self._reader.start()
        self.shown: Shown = {}

    def do(self, what: str, **keys: object) -> None:
        self._stdin.write(json.dumps({"do": what, **keys}) + "\n")
        self._stdin.flush()

    def wait(self, condition: Callable[[Shown], bool]) -> Shown:
        """Waits until what it shows is so."""
        deadline = time.monotonic() + TIMEOUT
        while not (self.shown and condition(self.shown)):
            try:
                self.shown = json.loads(self._lines.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                pytest.fail(f"it still shows {json.dumps(self.shown, indent=1)}")
        return self.shown

    def wait_for_texts(self, *texts: str | None) -> Shown:
        """Waits until it shows these messages and has nothing left to send."""
        return self.wait(
            lambda shown: not shown["outbox"] and [message["text"] for message in shown["messages"]] == list(texts)
        )

    def close(self) -> None:
        self._stdin.close()
        self._reader.join()

    def _read(self, stdout: IO[str]) -> None:
        for line in stdout:
            self._lines.put(line)


@contextmanager
def node_client(url: str, user: str, **options: object) -> Iterator[NodeClient]:
    """The client as a process of its own; `url` ends with a slash, the options are those of its constructor."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node here")
    with subprocess.Popen(
        [node, SCRIPT, url, user, json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        client = NodeClient(process)
        try:
            yield client
        finally:
            client.close()
