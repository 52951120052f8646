"""What the tests of the Python module share."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import digi
from digi.types import Member

T = TypeVar("T")

SECRET = "a secret of the tests, of thirty-two bytes and more"
#: Seconds. Far beyond what anything takes, so that only what never comes fails a test.
TIMEOUT = 20.0
#: No test is slowed down or closed for what it sends.
LIMITS = {"frames_per_second": 0, "refusals_per_second": 0, "close_spread_ms": 0}
MEMBERS: list[Member] = [("1", "alice", "member"), ("2", "bob", "member")]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a test's coroutine, and not for ever."""
    return asyncio.run(asyncio.wait_for(main, TIMEOUT * 3))


def new_engine(store: str = "memory:") -> digi.Engine:
    return digi.Engine(SECRET, store, limits=LIMITS)


@asynccontextmanager
async def opened(store: str = "memory:") -> AsyncIterator[tuple[digi.Engine, str, int]]:
    """An engine with a room for alice (1) and bob (2): engine, token, room."""
    async with new_engine(store) as engine:
        room = await engine.create_room(MEMBERS)
        yield engine, engine.cipher.seal("room", room), room


async def connect(engine: digi.Engine, token: str, user: str = "1") -> digi.Session:
    """A session that has its first `resumed` behind it."""
    session = await engine.connect(token, user, {"1": "alice", "2": "bob"}.get(user))
    await read(session, "resumed")
    return session


async def read(session: digi.Session, wanted: str, count: int = 1) -> list[str]:
    """Reads until `count` frames contain `wanted`; gives those."""
    found: list[str] = []
    while len(found) < count:
        frames = await asyncio.wait_for(session.frames(), TIMEOUT)
        assert frames, f"closed with {session.close_code}"
        found += [frame for frame in frames if wanted in frame]
    return found
