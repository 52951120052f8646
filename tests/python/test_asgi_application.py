"""`digi.asgi.Chat` by itself, where a real server would take too long to misbehave."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import digi
import digi.asgi
from digi.asgi import Chat, Event, Scope
from digi.types import Identity
from engines import MEMBERS, TIMEOUT, new_engine, run


class Server:
    """The server's side of one connection."""

    def __init__(self, *events: Event) -> None:
        self.received = asyncio.Queue[Event]()
        for event in events:
            self.received.put_nowait(event)
        self.sent = asyncio.Queue[Event]()
        self.takes = asyncio.Event()
        self.takes.set()

    async def receive(self) -> Event:
        return await self.received.get()

    async def send(self, event: Event) -> None:
        await self.takes.wait()
        self.sent.put_nowait(event)

    async def next(self) -> Event:
        return await asyncio.wait_for(self.sent.get(), TIMEOUT)


def scope(token: str, **others: Any) -> Scope:
    path = f"/ws/chat/{token}/"
    return {"type": "websocket", "path": path, "headers": [], "query_string": b"", "subprotocols": ["digi"]} | others


CONNECT: Event = {"type": "websocket.connect"}


async def alice(_: Scope) -> Identity:
    return "1", "alice"


async def entering(authenticate: Callable[[Scope], Awaitable[Any]], **others: Any) -> list[Event]:
    """What somebody is told who may not come in."""
    engine = await new_engine().open()
    token = engine.cipher.seal("room", await engine.create_room(MEMBERS))
    server = Server(CONNECT)
    chat = Chat(engine, authenticate)
    await asyncio.wait_for(chat(scope(token, **others), server.receive, server.send), TIMEOUT)
    await engine.close()
    return [server.sent.get_nowait() for _ in range(server.sent.qsize())]


def test_an_authenticate_that_fails_closes_with_4001(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digi.asgi, "AUTH_TIMEOUT", 0.01)

    async def raises(_: Scope) -> Identity:
        raise LookupError("no table")

    async def hangs(_: Scope) -> Identity:
        await asyncio.Event().wait()
        return None

    async def nonsense(_: Scope) -> Any:
        return "1", 2

    for authenticate, said in ((raises, "no table"), (hangs, "no answer"), (nonsense, "not tuple")):
        accepted, closed = run(entering(authenticate))
        assert accepted == {"type": "websocket.accept", "subprotocol": "digi"}
        assert (closed["code"], closed["reason"]) == (4001, "unavailable")
        assert said in caplog.text


def test_two_origins_are_not_one() -> None:
    headers = [(b"Host", b"chat.example"), (b"Origin", b"https://evil.example"), (b"Origin", b"https://chat.example")]
    assert run(entering(alice, headers=headers)) == [{"type": "websocket.close"}]


def test_a_client_that_takes_nothing_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(digi.asgi, "WRITE_TIMEOUT", 0.02)

    async def main() -> None:
        async with new_engine() as engine:
            room = await engine.create_room(MEMBERS)
            server = Server(CONNECT)
            chat = Chat(engine, alice)
            serving = asyncio.ensure_future(chat(scope(engine.cipher.seal("room", room)), server.receive, server.send))
            assert (await server.next())["type"] == "websocket.accept"
            assert "resumed" in (await server.next())["text"]
            # Looked at several times while nothing is to be sent, which is no reason.
            for n in range(5):
                await engine.post(room, "2", "bob", f"{n}")
                assert f'"{n}"' in (await server.next())["text"]
                await asyncio.sleep(0.02)
            server.takes.clear()
            await engine.post(room, "2", "bob", "taken by nobody")
            await asyncio.wait_for(serving, TIMEOUT)
            assert engine.stats()["sessions"] == 0

    with caplog.at_level(logging.INFO, "digi"):
        run(main())
    assert "took nothing" in caplog.text


def test_a_server_that_cannot_send_is_left(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with new_engine() as engine:
            server = Server(CONNECT)
            token = engine.cipher.seal("room", await engine.create_room(MEMBERS))

            async def send(event: Event) -> None:
                if event["type"] == "websocket.send":
                    raise LookupError("no transport")
                await server.send(event)

            await asyncio.wait_for(Chat(engine, alice)(scope(token), server.receive, send), TIMEOUT)
            assert engine.stats()["sessions"] == 0

    with caplog.at_level(logging.INFO, "digi"):
        run(main())
    assert "no transport" in caplog.text


def test_a_store_that_is_away_closes_with_4001(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server = Server(CONNECT)
        chat = Chat(new_engine("sqlite:/nowhere/at/all/chat.db"), alice)
        await chat(scope("AAAA"), server.receive, server.send)
        assert (await server.next())["type"] == "websocket.accept"
        assert (await server.next())["code"] == 4001

    run(main())
    assert "/nowhere/at/all" in caplog.text


def test_a_server_that_cancels_is_obeyed() -> None:
    async def main() -> None:
        async with new_engine() as engine:
            server = Server(CONNECT)
            token = engine.cipher.seal("room", await engine.create_room(MEMBERS))
            serving = asyncio.ensure_future(Chat(engine, alice)(scope(token), server.receive, server.send))
            assert (await server.next())["type"] == "websocket.accept"
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert engine.stats()["sessions"] == 0

    run(main())


def test_an_engine_that_does_not_open_fails_the_start() -> None:
    async def main() -> None:
        server = Server({"type": "lifespan.startup"})
        chat = Chat(new_engine("sqlite:/nowhere/at/all/chat.db"), alice)
        await chat({"type": "lifespan"}, server.receive, server.send)
        failed = await server.next()
        assert failed["type"] == "lifespan.startup.failed"
        assert "/nowhere/at/all" in failed["message"]

    run(main())


def test_a_closed_engine_sends_everybody_back_in_a_moment() -> None:
    async def main() -> None:
        async with new_engine() as engine:
            token = engine.cipher.seal("room", await engine.create_room(MEMBERS))
        server = Server(CONNECT)
        await Chat(engine, alice)(scope(token), server.receive, server.send)
        await server.next()
        assert (await server.next())["code"] == 1012

    run(main())


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="route"):
        Chat(new_engine(), alice, route="ws")
    with pytest.raises(TypeError, match="authenticate"):
        Chat(new_engine(), "alice")  # type: ignore[arg-type]
