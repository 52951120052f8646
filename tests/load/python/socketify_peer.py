"""What uWebSockets under socketify can do when it does nothing else: a text goes as it came to everybody who has
connected with the same path, by the publish of uWebSockets. No storage, no tokens.
"""

from __future__ import annotations

import os
from typing import Any

from common import RESUMED, announce, with_the_input
from socketify import App, AppListenOptions, OpCode

app = App()


def upgrade(response: Any, request: Any, context: Any) -> None:
    key, protocol, extensions = (
        request.get_header(f"sec-websocket-{name}") for name in ("key", "protocol", "extensions")
    )
    response.upgrade(key, protocol, extensions, context, request.get_url())


def opened(socket: Any) -> None:
    socket.subscribe(socket.get_user_data())
    socket.send(RESUMED, OpCode.TEXT)


def message(socket: Any, text: str, opcode: OpCode) -> None:
    app.publish(socket.get_user_data(), text, opcode)


def main() -> None:
    # It stores nothing, so that it can simply end.
    with_the_input(lambda: os._exit(0))
    behaviour = {
        "upgrade": upgrade,
        "open": opened,
        "message": message,
        # While another peer has its turn nobody would answer a ping.
        "idle_timeout": 0,
        # What waits for a client that reads slowly; beyond, messages are dropped.
        "max_backpressure": 64 * 1024 * 1024,
    }
    app.ws("/*", behaviour)
    app.listen(AppListenOptions(port=0, host="127.0.0.1"), lambda config: announce(config.port))
    app.run()
