"""The consumer that takes the place of a project's own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import update_wrapper
from typing import Any
from uuid import uuid4

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from digi._digi import Engine
from digi.asgi import Application, Receive, Scope, Send, Socket
from digi.django import keys, logins, origins
from digi.django.asgi import session_user
from digi.django.engine import get_engine
from digi.errors import ConnectionRefusedByDigi, InputError, NoSuchRoomError
from digi.types import Identity

Frame = dict[str, Any]

logger = logging.getLogger(__name__)

#: What changes no message. All else is shown to `before_store`, so that nothing gets past it.
_OTHERS = ("resume", "history", "typing", "read")
#: What only pages know that know more than the classic frames.
_NOT_STORED = ("typing", "presence", "read")


def _key_of(room: int) -> Any:
    # No request begins or ends here, so nobody else looks after the thread's connections.
    close_old_connections()
    try:
        return keys.room_key(room)
    finally:
        close_old_connections()


class Refused(Exception):
    """Raised by `before_store`: the change is not made, and the text is shown to who asked for it."""


class ChatConsumer:
    """One WebSocket of the chat, inside `URLRouter`, `AuthMiddlewareStack` and whatever else a project has there.

    What frames there are is told in docs/protocol.md. The methods below may be overridden, each by itself; `self.scope`
    is the connection's ASGI scope. Members alone get in, whatever they answer.
    """

    # What is not overridden costs nothing: a frame is taken apart for the hooks about frames alone.

    #: The name under which the route has the room's token; without one, the route has to have one argument.
    token_argument: str | None = None

    scope: Scope

    @classmethod
    def as_asgi(cls, **attributes: Any) -> Application:
        """The application to be routed to; `attributes` set what the class has under these names."""
        for name in attributes:
            if not hasattr(cls, name):
                raise TypeError(f"{cls.__name__} has no attribute {name!r}")

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            consumer = cls()
            for name, value in attributes.items():
                setattr(consumer, name, value)
            await consumer._serve(scope, receive, send)

        return update_wrapper(application, cls, updated=())

    async def get_user(self) -> Identity:
        """Who it is: the key and the name of the user in `scope["user"]`, or else in Django's session; None: nobody."""
        user = self.scope.get("user")
        if user is None:
            return await session_user(self.scope)
        if not user.is_authenticated:
            return None
        session_key = getattr(self.scope.get("session"), "session_key", None)
        login = (logins.remember(session_key),) if session_key else ()
        return (str(user.pk), user.get_username(), *login)

    async def get_room(self) -> str:
        """The token of the room: what the route has of it."""
        arguments = self.scope.get("url_route", {}).get("kwargs", {})
        if self.token_argument is not None:
            return str(arguments[self.token_argument])
        if len(arguments) != 1:
            raise LookupError(f"the route has the arguments {sorted(arguments)}: name one of them in token_argument")
        return str(next(iter(arguments.values())))

    async def may_enter(self, user: str, room: Any) -> bool:
        """Whether the user with this key, if a member, may enter the room with this id (over the project's own tables,
        with this key).
        """
        del user, room
        return True

    async def before_store(self, frame: Frame) -> Frame:
        """What the page asks for (`add`, `edit` or `delete`; an `add` may have no type), as it is or changed.

        Raises `Refused`. Frames of no known type come here as well; the engine refuses them.
        """
        return frame

    async def after_store(self, frame: Frame, stored: Frame) -> None:
        """What this connection has asked for is stored, and the room was told: `frame` as `before_store` left it.

        `stored` has its `message_id`, `seq` and `pos`. Comes in the order of the frames, also for one that was sent
        again and had been stored the first time. What it raises is logged. Who wants to hear of everything that this
        process stores, whoever asked for it, takes `digi.django.signals`.
        """

    async def before_send(self, frame: Frame) -> Frame | None:
        """A frame for the page, as it is or changed; None: nothing."""
        return frame

    def get_engine(self) -> Engine:
        """The engine of this process."""
        return get_engine()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        if scope["type"] != "websocket":
            raise ValueError(f"{type(self).__name__} serves WebSockets, not {scope['type']}: see ProtocolTypeRouter")
        self._receive, self._send = receive, send
        socket = Socket(scope, receive, send, origins.allow)
        self._asked = _Asked(b"after=" in scope.get("query_string", b"")) if self._overrides("after_store") else None
        inbound = self._inbound if self._asked or self._overrides("before_store") else None
        outbound = self._outbound if self._asked or self._overrides("before_send") else None
        token = await self.get_room()
        await socket.serve(self.get_engine, self._authenticate(token), token, inbound=inbound, outbound=outbound)

    @classmethod
    def _overrides(cls, name: str) -> bool:
        return getattr(cls, name) is not getattr(ChatConsumer, name)

    def _authenticate(self, token: str) -> Callable[[Scope], Any]:
        async def authenticate(_: Scope) -> Identity:
            user = await self.get_user()
            if user is None or not self._overrides("may_enter"):
                return user
            try:
                number = self.get_engine().cipher.open("room", token)
                room = await sync_to_async(_key_of, thread_sensitive=False)(number)
            except (InputError, NoSuchRoomError):
                return user  # The engine refuses it.
            if not await self.may_enter(user if isinstance(user, str) else user[0], room):
                raise ConnectionRefusedByDigi("may_enter", code="not_a_member", number=4501)
            return user

        return authenticate

    async def _inbound(self, text: str) -> str | None:
        try:
            frame = json.loads(text)
        except ValueError:
            return text  # What is wrong with it, the engine says.
        if not isinstance(frame, dict):
            return text
        if frame.get("type") in _OTHERS and "action" not in frame:
            if self._asked:
                self._asked.listens = True
            # Written anew, so that the engine sees what was judged here, whatever stood there twice.
            return json.dumps(frame)
        try:
            frame = await self.before_store(frame)
            return json.dumps(self._asked.note(frame) if self._asked else frame)
        except Refused as refused:
            error = {"type": "error", "code": "refused", "detail": str(refused)}
            if isinstance(frame.get("client_id"), str):
                error["client_id"] = frame["client_id"]
            await self._send({"type": "websocket.send", "text": json.dumps(error)})
            return None

    async def _outbound(self, text: str) -> str | None:
        frame: Frame | None = json.loads(text)
        if self._asked and frame is not None:
            asked, frame = self._asked.answer(frame)
            if asked is not None:
                try:
                    await self.after_store(*asked)
                except Exception:
                    logger.exception("%s.after_store failed", type(self).__name__)
        if frame is not None:
            frame = await self.before_send(frame)
        return None if frame is None else json.dumps(frame)


class _Asked:
    """What a connection has asked for and not heard of yet. A page that gives its frames no `client_id` gets none back,
    and nothing that only pages know which do.
    """

    #: An edit that changes nothing is not answered.
    MOST = 1_024

    def __init__(self, listens: bool) -> None:
        #: Whether the page has shown that it knows more than the classic frames.
        self.listens = listens
        self._frames: dict[str, tuple[Frame, bool]] = {}

    def note(self, frame: Frame) -> Frame:
        """What the engine is asked in its place."""
        given = frame.get("client_id")
        if given is not None:
            self.listens = True
            if isinstance(given, str):
                self._frames[given] = (frame, False)
        else:
            own = f"digi-{uuid4().hex}"
            self._frames[own] = (frame, True)
            frame = frame | {"client_id": own}
        if len(self._frames) > self.MOST:
            del self._frames[next(iter(self._frames))]
        return frame

    def answer(self, frame: Frame) -> tuple[tuple[Frame, Frame] | None, Frame | None]:
        """What was stored and how, and what the page is to be shown."""
        kind = frame["type"]
        if kind in _NOT_STORED:
            return None, frame if self.listens else None
        asked = self._frames.pop(frame.get("client_id", ""), None) if kind in ("ack", "error") else None
        if asked is None:
            return None, frame
        wanted, is_own = asked
        shown = {key: value for key, value in frame.items() if key != "client_id"} if is_own else frame
        if kind == "error":
            return None, shown
        stored = {key: value for key, value in frame.items() if key not in ("type", "client_id")}
        return (wanted, stored), None if is_own else frame
