"""The peers under Uvicorn: chat servers in Python, each a process of its own.

    python peers.py KIND DIR ROOMS MEMBERS

Makes rooms 1 to ROOMS with so many members each, writes `host:port` to its output, followed by the ids of the processes
that work for it, and serves until its input ends. What it stores lies in a folder in DIR and goes with it. The secrets
of ids and logins are in DIGI_LOAD_ID_SECRET and DIGI_LOAD_LOGIN_SECRET.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import uvicorn
import uvloop
from common import App, Run, Served

# Seconds that the end may take. Then the process ends in any case, and what works for it with it.
LAST_PATIENCE = 20


def config(app: App) -> uvicorn.Config:
    """Uvicorn as every peer gets it: one process, on uvloop, and nothing logged per connection."""
    return uvicorn.Config(
        app,
        # What Uvicorn itself chooses; the older `websockets` is on its way out.
        ws="websockets-sansio",
        # While another peer has its turn nobody would answer.
        ws_ping_interval=None,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )


@asynccontextmanager
async def asgi_bare(_: Run) -> AsyncIterator[Served]:
    from bare_peer import application

    yield Served(application)


def peer(kind: str, run: Run) -> AbstractAsyncContextManager[Served]:
    """The peer of that name. What it needs is imported here, so that one peer does not need what another does."""
    match kind:
        case "asgi-digi":
            from digi_peer import on_sqlite

            return on_sqlite(run)
        case "asgi-orm":
            from digi_peer import on_orm

            return on_orm(run)
        case "channels":
            from channels_peer import on_redis

            return on_redis(run)
        case "asgi-bare":
            return asgi_bare(run)
        case _:
            raise SystemExit(f"{kind!r} is no peer")


async def serve(kind: str, run: Run) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    async with peer(kind, run) as served:
        server = uvicorn.Server(config(served.app))
        loop = asyncio.get_running_loop()

        def end_with_the_input() -> None:
            sys.stdin.buffer.read()
            loop.call_soon_threadsafe(setattr, server, "should_exit", True)
            if not ended.wait(LAST_PATIENCE):
                os._exit(1)

        ended = threading.Event()
        threading.Thread(target=end_with_the_input, daemon=True).start()
        host, port = listener.getsockname()
        print(f"{host}:{port}", *served.processes, flush=True)
        await server.serve(sockets=[listener])
    ended.set()


def main() -> None:
    kind, folder, rooms, members = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="digi-load-", dir=folder) as own:
        run = Run(Path(own), int(rooms), int(members))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(kind, run))


if __name__ == "__main__":
    main()
