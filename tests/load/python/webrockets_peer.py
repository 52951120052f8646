"""What webrockets can do when it does nothing else: a text goes as it came to everybody who has connected with the same
path, by the broadcast of webrockets within its process. No storage, no tokens.
"""

from __future__ import annotations

import os
import socket
import threading
import time

from common import RESUMED, announce, with_the_input
from webrockets import Connection, WebsocketServer


def main() -> None:
    # It stores nothing, so that it can simply end.
    with_the_input(lambda: os._exit(0))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    server = WebsocketServer(host="127.0.0.1", port=port)
    chat = server.create_route("ws/chat/{token}/")

    def connected(connection: Connection) -> None:
        connection.join(connection.path)
        connection.send(RESUMED)

    def received(connection: Connection, text: str | bytes) -> None:
        connection.broadcast([connection.path], text)

    chat.connect("after")(connected)
    chat.receive(received)
    threading.Thread(target=announce_when_it_answers, args=[port], daemon=True).start()
    server.start()


def announce_when_it_answers(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            announce(port)
            return
