"""The peers in Python: chat servers, each a process of its own.

    python peers.py KIND DIR ROOMS MEMBERS

Makes rooms 1 to ROOMS with so many members each, writes `host:port` to its output, followed by the ids of the processes
that work for it, and serves until its input ends. What it stores lies in a folder in DIR and goes with it. The secrets
of ids and logins are in DIGI_LOAD_ID_SECRET and DIGI_LOAD_LOGIN_SECRET.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from pathlib import Path

import uvicorn
import uvloop
from common import App, Run, Served, announce, with_the_input


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
    """The peer of that name under Uvicorn."""
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


async def serve(listener: socket.socket, peer: AbstractAsyncContextManager[Served]) -> None:
    """Serves under Uvicorn."""
    async with peer as served:
        server = uvicorn.Server(config(served.app))
        loop = asyncio.get_running_loop()
        ended = with_the_input(lambda: loop.call_soon_threadsafe(setattr, server, "should_exit", True))
        announce(listener.getsockname()[1], *served.processes)
        await server.serve(sockets=[listener])
    ended.set()


def under_uvicorn(listener: socket.socket, peer: AbstractAsyncContextManager[Served]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(listener, peer))


def serve_with_folder(kind: str, run: Run) -> None:
    match kind:
        case "channels-2":
            from channels_peer import of_workers

            asyncio.run(of_workers(run, 2))
        case "classic":
            import classic_peer

            classic_peer.main(run)
        case _:
            under_uvicorn(socket.create_server(("127.0.0.1", 0), backlog=2048), peer(kind, run))


def main() -> None:
    kind, folder, rooms, members = sys.argv[1:]
    # Each is imported where it is needed, so that one does not need what another does.
    match kind:
        case "picows" | "socketify" | "webrockets":
            import_module(f"{kind}_peer").main()
        case "channels-worker":
            from channels_peer import as_worker

            under_uvicorn(*as_worker(Path(folder)))
        case _:
            with tempfile.TemporaryDirectory(prefix="digi-load-", dir=folder) as own:
                serve_with_folder(kind, Run(Path(own), int(rooms), int(members)))


if __name__ == "__main__":
    main()
