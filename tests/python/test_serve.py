"""`digi.serve`: the Rust server from Python, with a login that Python checks."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

import digi
from digi.types import Identity
from engines import MEMBERS, TIMEOUT, new_engine, run

KNOWN: dict[str, Identity] = {"alice": ("1", "Alice"), "bob": "2"}


def by_cookie(handshake: digi.Handshake) -> Identity:
    return KNOWN.get(handshake.cookies().get("session", ""))


@contextmanager
def serving(
    authenticator: Callable[[digi.Handshake], Identity | Awaitable[Identity]] = by_cookie,
    origins: list[str] | None = None,
) -> Iterator[str]:
    """A server in this process; gives the room's address."""
    with new_engine() as engine:
        token = engine.cipher.seal("room", engine.create_room(MEMBERS).result())
        with digi.serve(engine, "127.0.0.1:0", authenticator=authenticator, origins=origins).result() as server:
            yield f"ws://{server.address}/ws/chat/{token}/"


def enter(url: str, who: str, origin: str | None = None) -> ClientConnection:
    return connect(
        url,
        additional_headers={"Cookie": f'theme=dark; session="{who}"'},
        origin=None if origin is None else Origin(origin),
        open_timeout=TIMEOUT,
    )


def _read_on(socket: ClientConnection) -> NoReturn:
    while True:
        socket.recv(TIMEOUT)


def close_code(url: str, who: str) -> int:
    with enter(url, who) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            _read_on(socket)
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code


def test_a_plain_function_says_who_it_is() -> None:
    with serving() as url, enter(url, "alice") as alice, enter(url, "bob") as bob:
        assert "resumed" in str(alice.recv(TIMEOUT))
        assert "resumed" in str(bob.recv(TIMEOUT))
        alice.send('{"message": "hello"}')
        assert '"user":"Alice"' in str(bob.recv(TIMEOUT))
        assert close_code(url, "eve") == 4503


def test_a_coroutine_function_runs_on_the_loop() -> None:
    async def main() -> None:
        here = asyncio.get_running_loop()

        async def who(handshake: digi.Handshake) -> Identity:
            assert asyncio.get_running_loop() is here
            assert handshake.path.startswith("/ws/chat/")
            assert handshake.header("Upgrade") == "websocket"
            assert handshake.remote.startswith("127.0.0.1:")
            await asyncio.sleep(0)
            return by_cookie(handshake)

        async with new_engine() as engine:
            token = engine.cipher.seal("room", await engine.create_room(MEMBERS))
            async with await digi.serve(engine, "127.0.0.1:0", authenticator=who) as server:
                url = f"ws://{server.address}/ws/chat/{token}/"
                assert await asyncio.to_thread(close_code, url, "eve") == 4503

                def first() -> str:
                    with enter(url, "alice") as alice:
                        return str(alice.recv(TIMEOUT))

                assert "resumed" in await asyncio.to_thread(first)

    run(main())


def test_one_that_raises_or_answers_nonsense_closes_with_4001(caplog: pytest.LogCaptureFixture) -> None:
    def raises(handshake: digi.Handshake) -> Identity:
        raise LookupError(f"no table for {handshake.cookies()['session']}")

    def nonsense(_: digi.Handshake) -> Identity:
        return 7  # type: ignore[return-value]

    with caplog.at_level(logging.WARNING, "digi"):
        for authenticator, said in ((raises, "no table for alice"), (nonsense, "not int")):
            with serving(authenticator) as url:
                assert close_code(url, "alice") == 4001
                assert close_code(url, "alice") == 4001
            # Lines are handed on by a thread of their own, which the closing of the engine does not wait for.
            _until(caplog, said)


def test_one_that_hangs_holds_nobody_up() -> None:
    async def main() -> None:
        cancelled = asyncio.Event()

        async def hangs(handshake: digi.Handshake) -> Identity:
            if "hangs" in handshake.cookies().values():
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()
            return by_cookie(handshake)

        async with new_engine() as engine:
            token = engine.cipher.seal("room", await engine.create_room(MEMBERS))
            async with await digi.serve(engine, "127.0.0.1:0", authenticator=hangs) as server:
                url = f"ws://{server.address}/ws/chat/{token}/"
                waiting = asyncio.create_task(asyncio.to_thread(close_code, url, "hangs"))

                def first() -> str:
                    with enter(url, "alice") as alice:
                        return str(alice.recv(TIMEOUT))

                assert "resumed" in await asyncio.to_thread(first)
                assert await waiting == 4001
                await asyncio.wait_for(cancelled.wait(), TIMEOUT)

    run(main())


def test_origins() -> None:
    with serving(origins=["https://app.example"]) as url:
        with enter(url, "alice", "https://app.example") as alice:
            assert "resumed" in str(alice.recv(TIMEOUT))
        with pytest.raises(InvalidStatus):
            enter(url, "alice", "https://evil.example")


def test_what_cannot_be_served_is_named() -> None:
    with new_engine() as engine:
        with pytest.raises(digi.ConfigError, match="route"):
            digi.serve(engine, "127.0.0.1:0", authenticator=by_cookie, route="chat").result()
        with pytest.raises(digi.ConfigError, match="no-such-host"):
            digi.serve(engine, "no-such-host.invalid:1", authenticator=by_cookie).result()
        with pytest.raises(TypeError, match="authenticator"):
            digi.serve(engine, authenticator="alice")  # type: ignore[arg-type]

        async def who(_: digi.Handshake) -> Identity:
            return None

        with pytest.raises(RuntimeError, match="event loop"):
            digi.serve(engine, authenticator=who)
    with pytest.raises(digi.ClosedError):
        digi.serve(engine, authenticator=by_cookie)


def _until(caplog: pytest.LogCaptureFixture, said: str) -> None:
    """Waits for what another thread does."""
    deadline = time.monotonic() + TIMEOUT
    while said not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
