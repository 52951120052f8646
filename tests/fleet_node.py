"""One gateway of a fleet: the Rust server, on the database and the layer of `asgi_app`.

`python fleet_node.py rooms MEMBER,... MEMBER,...` makes a room for each list and prints their tokens.
"""

import asyncio
import logging
import os
import sys
from contextlib import suppress
from urllib.parse import parse_qs

import digi
from asgi_app import engine, migrate
from digi.types import Member


def who(handshake: digi.Handshake) -> str | None:
    asked = parse_qs(handshake.query).get("as")
    return asked[0] if asked else None


async def serve() -> None:
    async with engine() as made:
        listen = f"127.0.0.1:{os.environ['DIGI_PORT']}"
        async with await digi.serve(made, listen, authenticator=who) as server:
            print(f"gateway on {server.address}", flush=True)
            await asyncio.Event().wait()


def make_rooms(rooms: list[str]) -> None:
    made = engine()
    migrate()
    with made:
        for members in rooms:
            listed: list[Member] = [(user, user, "member") for user in members.split(",")]
            print(made.cipher.seal("room", made.create_room(listed).result()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["rooms"]:
        make_rooms(sys.argv[2:])
    else:
        logging.basicConfig(level=logging.INFO, stream=sys.stdout)
        # Two hundred people come and go.
        logging.getLogger("digi.server").setLevel(logging.WARNING)
        with suppress(KeyboardInterrupt):
            asyncio.run(serve())
