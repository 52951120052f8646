"""Digi's side of the bridge."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import digi
from redis_servers import RedisServer
from stock import TIMEOUT, Event

T = TypeVar("T")

SECRET = "a secret of the tests, of thirty-two bytes and more"
LIMITS = {"frames_per_second": 0, "refusals_per_second": 0, "close_spread_ms": 0}
NAMES = {"1": "alice", "2": "bob"}


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a test's coroutine, and not for ever."""
    return asyncio.run(asyncio.wait_for(main, TIMEOUT * 4))


async def until(is_so: Callable[[], object]) -> None:
    """Waits for what comes by itself."""
    deadline = time.monotonic() + TIMEOUT
    while not is_so():
        assert time.monotonic() < deadline, "it does not come"
        await asyncio.sleep(0.01)


class Node:
    """A Digi process: an engine, and a session of each of two users in the room."""

    def __init__(self, engine: digi.Engine, room: int) -> None:
        self.engine = engine
        self.room = room
        self.sessions: dict[str, digi.Session] = {}
        self._waiting: dict[str, list[Event]] = {user: [] for user in NAMES}

    async def enter(self) -> None:
        token = self.engine.cipher.seal("room", self.room)
        for user, name in NAMES.items():
            self.sessions[user] = await self.engine.connect(token, user, name)
            await self.read(user, lambda frame: frame["type"] == "resumed")

    async def read(self, user: str, is_last: Callable[[Event], bool]) -> list[Event]:
        """The frames of a user up to one."""
        read: list[Event] = []
        while True:
            waiting = self._waiting[user]
            if not waiting:
                frames = await asyncio.wait_for(self.sessions[user].frames(), TIMEOUT)
                assert frames, f"closed with {self.sessions[user].close_code}"
                waiting += [json.loads(frame) for frame in frames]
            read.append(waiting.pop(0))
            if is_last(read[-1]):
                return read

    async def read_up_to(self, user: str, text: str) -> list[Event]:
        return await self.read(user, lambda frame: frame.get("message") == text)

    def stat(self, name: str) -> int:
        return self.engine.stats()["bridge_" + name]

    async def until(self, name: str, value: int) -> None:
        """Waits until a figure of the bridge's is so much."""
        await until(lambda: self.stat(name) == value)


@asynccontextmanager
async def nodes(
    directory: Path, layer: RedisServer, bridge: Mapping[str, object], cipher: digi.TokenCipher | str = SECRET
) -> AsyncIterator[tuple[Node, Node]]:
    """Two processes on one database, both with a bridge that is up."""
    store, engines = f"sqlite:{directory / 'chat.db'}", []
    for _ in range(2):
        engines.append(digi.Engine(cipher, store, layer=layer.url, bridge=bridge, limits=LIMITS))
        await engines[-1].open()
    room = await engines[0].create_room([(user, name, "member") for user, name in NAMES.items()])
    first, second = (Node(engine, room) for engine in engines)
    for node in (first, second):
        await node.enter()
        await node.until("up", 1)
    yield first, second
    for node in (first, second):
        await node.engine.close()


def joined(servers: list[RedisServer], room: int) -> int:
    """How many Digi processes are in the room's group."""
    count = 0
    for server in servers:
        with server.client() as client:
            [(_, subscribers)] = client.pubsub_numsub(f"asgi__group__chat_{room}")
            members = client.zrange(f"asgi:group:chat_{room}", 0, -1)
            count += subscribers + len([name for name in members if name.startswith(b"specific.digi")])
    return count
