"""What Uvicorn can do when the application does next to nothing.

A text goes as it came to everybody who has connected with the same path. No storage, no tokens, no limits, and whoever
does not read holds up the room.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from common import RESUMED

Send = Callable[[dict[str, Any]], Awaitable[None]]

rooms: dict[str, list[Send]] = {}


async def application(scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Any]], send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    room = rooms.setdefault(scope["path"], [])
    room.append(send)
    # The generator waits for it, as it does for Digi's: from here on nothing is missed.
    await send({"type": "websocket.send", "text": RESUMED})
    try:
        while (message := await receive())["type"] == "websocket.receive":
            frame = {"type": "websocket.send", "text": message["text"]}
            # A copy, because members come and go while one of them is waited for.
            for member in tuple(room):
                try:
                    await member(frame)
                except OSError:
                    # Gone; its own task takes it out.
                    continue
    finally:
        room.remove(send)
