"""What picows can do when it does nothing else: a text goes as it came to everybody who has connected with the same
path. No storage, no tokens, no limits.
"""

from __future__ import annotations

import asyncio

import uvloop
from common import RESUMED, announce, with_the_input
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

rooms: dict[bytes, list[WSTransport]] = {}


class Member(WSListener):
    def __init__(self, request: WSUpgradeRequest) -> None:
        self.room = rooms.setdefault(request.path, [])

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.room.append(transport)
        transport.send(WSMsgType.TEXT, RESUMED.encode())

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            text = frame.get_payload_as_bytes()
            for member in tuple(self.room):
                member.send(WSMsgType.TEXT, text)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close()
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.room.remove(transport)


async def serve() -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    thread = with_the_input(lambda: loop.call_soon_threadsafe(ended.set))
    server = await ws_create_server(Member, "127.0.0.1", 0, backlog=2048)
    announce(server.sockets[0].getsockname()[1])
    await ended.wait()
    thread.set()


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
