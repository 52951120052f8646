"""digi.js under Node, and at the other end a server that says exactly what a test wants it to say, in that order."""

import http
import json
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlparse

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from chat_client import TIMEOUT, Frame
from node_client import NodeClient, node_client

AT = "2026-03-01T12:00:00.000Z"


class Line:
    """One connection of the client, held by the test."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.over = threading.Event()
        assert connection.request is not None
        address = urlparse(connection.request.path)
        self.path, self.query = address.path, parse_qs(address.query)
        self.after = self.query.get("after", [None])[0]

    def say(self, kind: str, **keys: object) -> None:
        self._connection.send(json.dumps({"type": kind, **keys}))

    def change(self, kind: str, seq: int, pos: int, text: str | None = None, user: str = "bob") -> None:
        message = {} if text is None else {"message": text}
        self.say(kind, user=user, message_id=f"m{pos}", seq=seq, pos=pos, at=AT, **message)

    def page(self, asked: Frame, *messages: tuple[int, str | None], more: bool, through: int, epoch: int = 1) -> None:
        entries: list[Frame] = []
        for pos, text in messages:
            entry = {"user": "bob", "message_id": f"m{pos}", "pos": pos, "at": AT}
            entries.append(entry | ({"deleted": True} if text is None else {"message": text}))
        name = {"client_id": asked["client_id"]} if "client_id" in asked else {}
        self.say("history", messages=entries, more=more, through=through, cursor=f"{epoch}.{through}", **name)

    def acknowledge(self, sent: Frame, seq: int, pos: int | None = None) -> None:
        pos = pos or seq
        self.say("ack", client_id=sent["client_id"], message_id=f"m{pos}", seq=seq, pos=pos)

    def hear(self, kind: str) -> Frame:
        frame = json.loads(self._connection.recv(TIMEOUT))
        assert isinstance(frame, dict)
        assert frame["type"] == kind
        return frame

    def close(self, code: int) -> None:
        self._connection.close(code)
        self.over.set()

    def cut(self) -> None:
        """Breaks without a word."""
        self._connection.socket.shutdown(socket.SHUT_RDWR)
        self.over.set()


class Script:
    """The other end."""

    def __init__(self) -> None:
        self.lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
        self._all: list[Line] = []
        self.join_status = http.HTTPStatus.OK
        self.server: Server = serve(
            self._hold,
            "127.0.0.1",
            0,
            process_request=self._answer,
            subprotocols=[Subprotocol("digi")],
            compression=None,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.socket.getsockname()[1]}/"

    def accept(self) -> Line:
        return self.lines.get(timeout=TIMEOUT)

    def close(self) -> None:
        # The server waits for its connections, so they have to end first.
        for line in self._all:
            line.over.set()
        self.server.shutdown()

    def _hold(self, connection: ServerConnection) -> None:
        line = Line(connection)
        self._all.append(line)
        self.lines.put(line)
        line.over.wait()

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        if not request.path.startswith("/join"):
            return None
        body = json.dumps({"path": "/ws/chat/room/", "login": "x"})
        response = connection.respond(self.join_status, body)
        response.headers = Headers(response.headers)
        return response


Stage = tuple[Script, NodeClient]


@contextmanager
def scripted(path: str | None = None, **options: object) -> Iterator[Stage]:
    script = Script()
    thread = threading.Thread(target=script.server.serve_forever)
    thread.start()
    if path is not None:
        options["where"] = script.url.rstrip("/") + path
    try:
        with node_client(script.url, "alice", **options) as client:
            yield script, client
    finally:
        script.close()
        thread.join()


def begin(stage: Stage, *messages: tuple[int, str | None], more: bool = False, head: int = 10) -> Line:
    """A first visit, up to its first page."""
    line = stage[0].accept()
    assert line.after is None
    line.say("resumed", cursor=f"1.{head}")
    asked = line.hear("history")
    assert asked["before"] == head + 1
    line.page(asked, *messages, more=more, through=head)
    stage[1].wait_for_texts(*(text for _, text in messages))
    return line


def again(stage: Stage) -> Line:
    """The client comes back by itself."""
    return stage[0].accept()
