"""`examples/classic-chat` as it is, under Daphne: synchronous consumer, the core layer of channels_redis, messages in
SQLite through Django.

Only what the load run has otherwise is put in between: who somebody is comes from the bearer token instead of a
session, the room's token is Digi's instead of a Fernet token, and the keys of a frame stand in the order that the
generator reads.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from channels_peer import redis_server
from common import RESUMED, App, Run, announce, with_the_input

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "classic-chat"


def set_up(run: Run, redis_port: int) -> App:
    import django
    import jwt
    from django.core.management import call_command

    from digi import TokenCipher

    sys.path.insert(0, str(EXAMPLE))
    os.environ.update(
        DJANGO_SETTINGS_MODULE="website.settings", CHAT_DATA=str(run.dir), CHAT_REDIS=f"redis://127.0.0.1:{redis_port}"
    )
    django.setup()
    call_command("migrate", verbosity=0)

    from chat.consumers import ChatConsumer
    from chat.models import Connection
    from chat.tokens import encrypt_id
    from django.contrib.auth import get_user_model

    users = get_user_model().objects
    if run.members != 2:
        raise SystemExit("a classic room has two members")
    # The name that the generator's frames give, which the classic consumer believes.
    users.create(username="load")
    for room in range(run.rooms):
        one, two = (users.create(username=f"{room}-{member}") for member in range(2))
        Connection.objects.create(pk=room + 1, user_one=one, user_two=two)

    class LoadConsumer(ChatConsumer):
        def accept(self, *args: Any, **kwargs: Any) -> None:
            super().accept(*args, **kwargs)
            self.send(RESUMED)

        def show(self, kind: str, event: dict[str, Any], **keys: Any) -> None:
            frame = {"type": kind, **keys, "user": event["user"], "message_id": event["message_id"]}
            self.send(json.dumps(frame, separators=(",", ":")))

    consumer = LoadConsumer.as_asgi()
    keys, secret = TokenCipher(os.environ["DIGI_LOAD_ID_SECRET"]), os.environ["DIGI_LOAD_LOGIN_SECRET"]

    async def app(
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        bearer = dict(scope["headers"])[b"authorization"].decode().removeprefix("Bearer ")
        user = await users.aget(username=jwt.decode(bearer, secret, algorithms=["HS256"])["sub"])
        room = keys.open("room", scope["path"].split("/")[3])
        route = {"args": (), "kwargs": {"connectionId": encrypt_id(room)}}
        await consumer({**scope, "user": user, "url_route": route}, receive, send)

    return app


def main(run: Run) -> None:
    # Its reactor runs on this loop.
    from daphne.server import Server, twisted_loop

    loop = twisted_loop
    asyncio.set_event_loop(loop)
    redis = redis_server(run.dir)
    port, pid = loop.run_until_complete(redis.__aenter__())
    try:
        app = loop.run_until_complete(asyncio.to_thread(set_up, run, port))
        server = Server(
            app,
            endpoints=["tcp:port=0:interface=127.0.0.1:backlog=2048"],
            signal_handlers=False,
            # While another peer has its turn nobody would answer a ping.
            ping_interval=100_000,
        )
        server.ready_callable = lambda: announce(server.listening_addresses[0][1], pid)
        ended = with_the_input(lambda: loop.call_soon_threadsafe(server.stop))
        server.run()
    finally:
        loop.run_until_complete(redis.__aexit__(None, None, None))
    ended.set()
