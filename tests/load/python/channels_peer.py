"""A chat on Django Channels, as an able Django developer tunes it: asynchronous consumer, Redis pub/sub with hiredis,
messages in SQLite with a write-ahead log.

What is done once per message is done once: the frame for the browsers is encoded by the consumer that got the message,
not by each that hands it on. Unlike Digi's peers it asks nobody for a login or a membership and its commits do not wait
for the disk (`synchronous=NORMAL`): what people usually run, and less work.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import django
from common import RESUMED, App, Run, Served, announce, with_the_input
from django.conf import settings

DATABASE = "channels.db"


def set_up(database: Path, redis_port: int, *, new: bool) -> App:
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": database,
                "OPTIONS": {
                    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
                    "transaction_mode": "IMMEDIATE",
                },
                "CONN_MAX_AGE": None,
            }
        },
        CHANNEL_LAYERS={
            "default": {
                "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
                "CONFIG": {"hosts": [("127.0.0.1", redis_port)]},
            }
        },
        INSTALLED_APPS=["channels"],
        USE_TZ=True,
    )
    django.setup()

    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.db import connection, models
    from django.urls import re_path

    class Message(models.Model):
        room = models.CharField(max_length=64, db_index=True)
        user = models.CharField(max_length=150)
        body = models.TextField()
        at = models.DateTimeField(auto_now_add=True)

        class Meta:
            app_label = "chat"

    if new:
        with connection.schema_editor() as editor:
            editor.create_model(Message)

    class ChatConsumer(AsyncWebsocketConsumer):
        async def dispatch(self, message: dict[str, Any]) -> None:
            # Channels goes through a thread to close old database connections before it hands on anything. What only
            # goes to the browser needs no database; in a large room this takes away more than half of all work.
            if message["type"] == "chat.message":
                await self.send(message["text"])
            else:
                await super().dispatch(message)

        async def connect(self) -> None:
            self.room = self.scope["url_route"]["kwargs"]["token"]
            self.group = f"chat_{self.room}"
            await self.channel_layer.group_add(self.group, self.channel_name)
            await self.accept()
            # The generator waits for it, as it does for Digi's: from here on nothing is missed.
            await self.send(RESUMED)

        async def disconnect(self, _code: int) -> None:
            await self.channel_layer.group_discard(self.group, self.channel_name)

        async def receive(self, text_data: str) -> None:
            frame = json.loads(text_data)
            message = await Message.objects.acreate(room=self.room, user=frame["user"], body=frame["message"])
            answer = {
                "type": "add",
                "message": message.body,
                "user": message.user,
                "message_id": message.pk,
                "at": message.at.isoformat(),
            }
            text = json.dumps(answer, separators=(",", ":"))
            await self.channel_layer.group_send(self.group, {"type": "chat.message", "text": text})

    route = re_path(r"^ws/chat/(?P<token>[^/]+)/$", ChatConsumer.as_asgi())
    app: App = ProtocolTypeRouter({"websocket": URLRouter([route])})
    return app


@asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[tuple[int, int]]:
    """Its port and process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    # setpriv: should this process be killed, Redis goes too.
    command = f"setpriv --pdeathsig KILL redis-server --port {port} --bind 127.0.0.1 --appendonly no --save"
    redis = await asyncio.create_subprocess_exec(*command.split(), "", cwd=folder, stdin=DEVNULL, stdout=DEVNULL)
    try:
        await answers(port, redis)
        yield port, redis.pid
    finally:
        if redis.returncode is None:
            redis.kill()
        await redis.wait()


@asynccontextmanager
async def on_redis(run: Run) -> AsyncIterator[Served]:
    async with redis_server(run.dir) as (port, pid):
        # Making the table is synchronous, and Django keeps that off a running loop.
        app = await asyncio.to_thread(set_up, run.dir / DATABASE, port, new=True)
        yield Served(app, (pid,))


async def of_workers(run: Run, count: int) -> None:
    """The same in several processes; the kernel spreads the connections over them."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    thread = with_the_input(lambda: loop.call_soon_threadsafe(ended.set))
    async with redis_server(run.dir) as (redis_port, redis), AsyncExitStack() as stack:
        await asyncio.to_thread(set_up, run.dir / DATABASE, redis_port, new=True)
        place = stack.enter_context(reusable(0))
        port = place.getsockname()[1]
        environment = {**os.environ, "DIGI_LOAD_PORT": str(port), "DIGI_LOAD_REDIS": str(redis_port)}
        command = [sys.executable, sys.argv[0], "channels-worker", str(run.dir), "0", "0"]
        workers = []
        for _ in range(count):
            worker = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment)
            stack.push_async_callback(stop, worker)
            assert worker.stdout
            # Connections go to those who listen at the time.
            if not await worker.stdout.readline():
                raise SystemExit("a worker did not start")
            workers.append(worker.pid)
        announce(port, redis, *workers)
        await ended.wait()
    thread.set()


async def stop(worker: Process) -> None:
    assert worker.stdin
    worker.stdin.close()
    await worker.wait()


def as_worker(folder: Path) -> tuple[socket.socket, AbstractAsyncContextManager[Served]]:
    @asynccontextmanager
    async def served() -> AsyncIterator[Served]:
        redis_port = int(os.environ["DIGI_LOAD_REDIS"])
        yield Served(await asyncio.to_thread(set_up, folder / DATABASE, redis_port, new=False))

    listener = reusable(int(os.environ["DIGI_LOAD_PORT"]))
    listener.listen(2048)
    return listener, served()


def reusable(port: int) -> socket.socket:
    """A socket on a port that others have too."""
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    own.bind(("127.0.0.1", port))
    return own


async def answers(port: int, redis: Process) -> None:
    """Waits until Redis takes connections."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if redis.returncode is not None:
                raise SystemExit("redis-server did not start") from None
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
