"""Digi behind an ASGI server: Uvicorn, Daphne, Hypercorn, Granian, whatever speaks ASGI 3 on asyncio.

    from digi import Engine
    from digi.asgi import Chat

    async def who(scope):
        ...                       # look at scope["headers"]; answer a key, (key, name), or None for nobody

    application = Chat(Engine(secret, "sqlite:chat.db"), who, other=my_http_app)

WebSockets on `<route><room token>/` go to the engine, everything else to `other`. The engine is opened when the server
starts (or with the first connection, where the server has no lifespan events) and closed when it stops. What the frames
mean is told in docs/protocol.md; for Django there is `digi.django.asgi`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from digi._digi import Engine, Origins, Session
from digi.errors import ClosedError, ConnectionRefusedByDigi
from digi.types import Identity

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Authenticate: TypeAlias = Callable[[Scope], Awaitable[Identity]]
#: Given the headers `Origin` and `Host`.
Allow: TypeAlias = Callable[["str | None", "str | None"], bool]
Translate: TypeAlias = Callable[[str], Awaitable["str | None"]]

logger = logging.getLogger(__name__)

#: The sub-protocol that Digi's own clients offer.
SUBPROTOCOL = "digi"
#: Seconds that `authenticate` may take, before the connection is closed with 4001.
AUTH_TIMEOUT = 5.0
#: Seconds that a client may take nothing of what is sent to it, before it is cut off (within twice that time).
WRITE_TIMEOUT = 20.0

_RESTART = (1012, "restart")
_UNAVAILABLE = (4001, "unavailable")
_UNAUTHENTICATED = (4503, "unauthenticated")


class Chat:
    """An ASGI application for the chat's WebSockets.

    `engine` is an `Engine` that this opens and closes, or a function that gives one, the same each time. `authenticate`
    is awaited once per connection, concurrently, with the ASGI scope. `route` is what precedes the token in the path.
    `origins` lists the pages that may connect (default: those of the host that the request is for). `other` gets all
    other requests; without it they are refused.
    """

    def __init__(
        self,
        engine: Engine | Callable[[], Engine],
        authenticate: Authenticate,
        *,
        route: str = "/ws/chat/",
        origins: Sequence[str] | None = None,
        other: Application | None = None,
    ) -> None:
        if not (route.startswith("/") and route.endswith("/")):
            raise ValueError(f"route: {route!r} has to begin and end with a slash")
        if not callable(authenticate):
            raise TypeError("authenticate: an async function of the ASGI scope")
        self._engine = engine
        self._authenticate = authenticate
        self._route = route
        self._origins = Origins(origins)
        self._other = other

    @property
    def engine(self) -> Engine:
        """The engine behind it."""
        return self._engine if isinstance(self._engine, Engine) else self._engine()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI wants it."""
        kind = scope["type"]
        if kind == "websocket" and scope["path"].startswith(self._route):
            await self._websocket(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif self._other is not None:
            await self._other(scope, receive, send)
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        else:
            await _not_found(send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                try:
                    await self.engine.open()
                except Exception as error:
                    logger.exception("the engine could not be opened")
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.engine.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = scope["path"][len(self._route) :].removesuffix("/")
        await Socket(scope, receive, send, self._origins.allow).serve(lambda: self.engine, self._authenticate, token)


class Socket:
    """A WebSocket from its handshake on. `allow` says whether a page may connect, given its origin and the host."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, allow: Allow) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._allow = allow

    async def serve(
        self,
        engine: Callable[[], Engine],
        authenticate: Authenticate,
        token: str,
        *,
        inbound: Translate | None = None,
        outbound: Translate | None = None,
    ) -> None:
        """Goes on until the client or the session is gone.

        `inbound` is given each text of the client's, `outbound` each frame; they answer what goes on in its place, or
        None for nothing.
        """
        scope, send = self._scope, self._send
        if (await self._receive())["type"] != "websocket.connect":
            return
        headers = _headers(scope)
        origin = headers.get("origin")
        if not self._allow(origin, headers.get("host")):
            # Before it was accepted, so that the server answers 403.
            await send({"type": "websocket.close"})
            return
        user = await _user(authenticate, scope)
        # Accepted whatever comes next: a browser is shown a close code, but not the status of a refused handshake.
        offered = scope.get("subprotocols") or ()
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None})
        if not isinstance(user, _User):
            await send({"type": "websocket.close", "code": user[0], "reason": user[1]})
            return
        after = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("after")
        client = scope.get("client")
        try:
            opened = engine()
            if not opened.is_open:
                await opened.open()
            session = await opened.connect(
                token,
                user.key,
                user.name,
                after=after[0] if after else None,
                origin=origin,
                remote=f"{client[0]}:{client[1]}" if client else None,
                login=user.login,
            )
        except ConnectionRefusedByDigi as refusal:
            code = (refusal.number, refusal.code)
        except ClosedError:
            code = _RESTART
        except Exception:
            logger.exception("the engine could not take a connection")
            code = _UNAVAILABLE
        else:
            await _Connection(session, self._receive, send, inbound, outbound).serve()
            return
        await send({"type": "websocket.close", "code": code[0], "reason": code[1]})


async def _user(authenticate: Authenticate, scope: Scope) -> _User | tuple[int, str]:
    """Who it is, or the close code and its reason."""
    try:
        answer = await asyncio.wait_for(authenticate(scope), AUTH_TIMEOUT)
    except asyncio.TimeoutError:
        logger.warning("authenticate gave no answer within %s s", AUTH_TIMEOUT)
        return _UNAVAILABLE
    except ConnectionRefusedByDigi as refusal:
        return refusal.number, refusal.code
    except Exception:
        logger.exception("authenticate failed")
        return _UNAVAILABLE
    if answer is None:
        return _UNAUTHENTICATED
    if isinstance(answer, str):
        return _User(answer, answer)
    if isinstance(answer, tuple) and len(answer) in (2, 3) and all(isinstance(part, str) for part in answer):
        return _User(*answer)
    wanted = "None, a key, (key, name) or (key, name, login), all str"
    logger.error("authenticate answers %s; not %s", wanted, type(answer).__name__)
    return _UNAVAILABLE


class _User:
    __slots__ = ("key", "login", "name")

    def __init__(self, key: str, name: str, login: str | None = None) -> None:
        self.key = key
        self.name = name
        self.login = login


class _Connection:
    """A session and the two ways of its frames."""

    def __init__(
        self, session: Session, receive: Receive, send: Send, inbound: Translate | None, outbound: Translate | None
    ) -> None:
        self.session = session
        self._inbound = inbound
        self._outbound = outbound
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._owner = asyncio.current_task()
        #: Counts the batches that were sent; odd while one is on its way.
        self._sent = 0
        #: Why it is cut off.
        self._failure: str | None = None

    async def serve(self) -> None:
        """Goes on until the client or the session is gone."""
        writer = asyncio.ensure_future(self._write())
        writer.add_done_callback(self._written)
        self._watch = self._loop.call_later(WRITE_TIMEOUT, self._look, self._sent)
        try:
            try:
                await self._read()
            except ClosedError:
                # The writer says why; the client's answer to that is of no use.
                await writer
        except asyncio.CancelledError:
            if self._failure is None:
                raise
            logger.info("a client is cut off: %s", self._failure)
        finally:
            self._watch.cancel()
            writer.remove_done_callback(self._written)
            self.session.close()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _read(self) -> None:
        while (event := await self._receive())["type"] == "websocket.receive":
            text = event.get("text")
            if text is None:
                self.session.receive_binary()
                continue
            if self._inbound is not None and (text := await self._inbound(text)) is None:
                continue
            await self.session.receive(text)

    async def _write(self) -> None:
        session, send = self.session, self._send
        try:
            async for frames in session:
                self._sent += 1
                for frame in frames:
                    shown = frame if self._outbound is None else await self._outbound(frame)
                    if shown is not None:
                        await send({"type": "websocket.send", "text": shown})
                self._sent += 1
            self._sent += 1
            await send({"type": "websocket.close", "code": session.close_code, "reason": session.close_reason})
        except OSError:
            # The client is gone, which the reader is told, too.
            return

    def _written(self, writer: asyncio.Task[None]) -> None:
        """Nobody would hear anything any more."""
        if not writer.cancelled() and (error := writer.exception()) is not None:
            self._cut_off(f"{type(error).__name__}: {error}")

    def _cut_off(self, failure: str) -> None:
        if self._failure is None and self._owner is not None:
            self._failure = failure
            self._owner.cancel()

    def _look(self, before: int) -> None:
        """Ends a connection on which one batch was on its way all the time since the last look."""
        if self._sent == before and before % 2 == 1:
            self._cut_off(f"it took nothing for {WRITE_TIMEOUT:g} s")
        else:
            self._watch = self._loop.call_later(WRITE_TIMEOUT, self._look, self._sent)


async def _not_found(send: Send) -> None:
    body = b"Not Found"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[str, str]:
    """The headers by name; of those that stand twice all values, so that no check sees one and misses the other."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
