"""What the peers under Uvicorn have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

App: TypeAlias = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]


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
