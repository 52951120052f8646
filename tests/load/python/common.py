"""What the peers in Python have in common."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

App: TypeAlias = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]

#: What the generator waits for, of Digi as of all others: from here on nothing is missed.
RESUMED = '{"type":"resumed"}'
#: Seconds that the end may take. Then the process ends in any case, and what works for it with it.
LAST_PATIENCE = 20


@dataclass(frozen=True)
class Run:
    """What is to be served."""

    dir: Path
    rooms: int
    members: int


@dataclass(frozen=True)
class Served:
    """An application, and the processes besides this one whose CPU time counts as its own."""

    app: App
    processes: tuple[int, ...] = ()


def announce(port: int, *processes: int) -> None:
    """Tells the parent where this peer listens, and who works for it."""
    print(f"127.0.0.1:{port}", *processes, flush=True)


def with_the_input(end: Callable[[], object]) -> threading.Event:
    """Calls that, from a thread, when the input ends. If the event is not set soon after, the process ends at once."""
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.buffer.read()
        end()
        if not ended.wait(LAST_PATIENCE):
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    return ended
