"""A client of the browser protocol (docs/protocol.md) over a real socket, as the end-to-end tests use it."""

import json
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import jwt
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from conftest import Process, Server

Frame = dict[str, Any]
# Seconds. Far beyond what anything takes, so that only what never comes fails a test.
TIMEOUT = 20.0


def forge_login(server: Server, user: str, *, lifetime: int = 60, secret: bytes | None = None) -> str:
    """A login as the example makes them, for a user that it would not give one to."""
    secret = (server.data / "secret").read_bytes()[32:] if secret is None else secret
    claims = {"sub": user, "name": user, "exp": int(time.time()) + lifetime}
    return jwt.encode(claims, secret, algorithm="HS256")


class Client:
    """One connection. What `expect` passes over is kept for a later `expect`."""

    def __init__(self, socket: ClientConnection, room: str) -> None:
        self.socket = socket
        self.room = room
        self._kept: list[Frame] = []
        self._questions = 0

    def send(self, kind: str, **keys: object) -> None:
        self.socket.send(json.dumps({"type": kind, **keys}))

    def receive(self) -> Frame:
        """The next frame, whatever it is."""
        if self._kept:
            return self._kept.pop(0)
        return self._receive()

    def expect(self, kind: str, **keys: object) -> Frame:
        """The next frame of this type with these values."""

        def fits(frame: Frame) -> bool:
            return frame["type"] == kind and keys.items() <= frame.items()

        for index, frame in enumerate(self._kept):
            if fits(frame):
                return self._kept.pop(index)
        while not fits(frame := self._receive()):
            self._kept.append(frame)
        return frame

    def add(self, text: str) -> Frame:
        """Adds a message and waits until it is stored and shown; gives the `add`."""
        client_id = uuid.uuid4().hex
        self.send("add", message=text, client_id=client_id)
        ack = self.expect("ack", client_id=client_id)
        return self.expect("add", message_id=ack["message_id"])

    def history(self, **keys: object) -> Frame:
        self._questions += 1
        client_id = f"history-{self._questions}"
        self.send("history", client_id=client_id, **keys)
        return self.expect("history", client_id=client_id)

    def rest(self) -> list[Frame]:
        """All that has come and was not expected yet, up to the answer to a question asked now."""
        self.history(limit=1)
        rest, self._kept = self._kept, []
        return rest

    def close_code(self) -> int:
        """Reads until the server closes."""
        with pytest.raises(ConnectionClosed) as closed:
            self._read_on()
        assert closed.value.rcvd is not None, "the connection broke without a close frame"
        return closed.value.rcvd.code

    def _read_on(self) -> NoReturn:
        while True:
            self._receive()

    def _receive(self) -> Frame:
        frame = json.loads(self.socket.recv(TIMEOUT))
        assert isinstance(frame, dict)
        return frame


@contextmanager
def connected(
    server: Process,
    user: str = "alice",
    *,
    after: str | None = None,
    room: str | None = None,
    login: str | None = None,
    origin: str | None = None,
) -> Iterator[Client]:
    """A connection. `room` and `login` take the place of what the server's door gives."""
    door = server.door("alice" if login else user)
    url = door.url if room is None else door.url.replace(door.room, room)
    if after is not None:
        url += ("&" if "?" in url else "?") + urllib.parse.urlencode({"after": after})
    subprotocols = ["digi", f"digi.jwt.{login}"] if login else door.subprotocols
    with connect(
        url,
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        origin=None if origin is None else Origin(origin),
        open_timeout=TIMEOUT,
        compression=None,
        max_size=None,
    ) as socket:
        yield Client(socket, door.room)


@contextmanager
def live(server: Process, user: str) -> Iterator[Client]:
    """A connection that has its first `resumed` behind it."""
    with connected(server, user) as client:
        client.expect("resumed")
        yield client
