"""Digi as an ASGI application: on its own SQLite store, and on Django's models.

It does all its work: logins, tokens and memberships are checked, and every message is committed before anybody gets it.
Only the rate limits are off.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
from common import Run, Served

import digi
from digi.asgi import Chat
from digi.store import Store

# Rates of 0 are none. Nobody waits for the clients of a load run, so that closing them need not be spread.
LIMITS = {
    "frames_per_second": 0,
    "frames_burst": 0,
    "refusals_per_second": 0,
    "refusals_burst": 0,
    "close_spread_ms": 1,
}


async def authenticate(scope: MutableMapping[str, Any]) -> str | None:
    bearer = dict(scope["headers"])[b"authorization"].decode()
    secret = os.environ["DIGI_LOAD_LOGIN_SECRET"]
    user: str = jwt.decode(bearer.removeprefix("Bearer "), secret, algorithms=["HS256"])["sub"]
    return user


@asynccontextmanager
async def on(store: str | Store, run: Run) -> AsyncIterator[Served]:
    async with digi.Engine(os.environ["DIGI_LOAD_ID_SECRET"], store, limits=LIMITS) as engine:
        for room in range(run.rooms):
            names = [f"{room}-{member}" for member in range(run.members)]
            await engine.create_room([(name, name, "member") for name in names], id=room + 1)
        yield Served(Chat(engine, authenticate=authenticate, route="/ws/chat/"))


@asynccontextmanager
async def on_sqlite(run: Run) -> AsyncIterator[Served]:
    async with on(f"sqlite:{run.dir / 'chat.db'}", run) as served:
        yield served


@asynccontextmanager
async def on_orm(run: Run) -> AsyncIterator[Served]:
    # Migrating is synchronous, and Django keeps that off a running loop.
    async with on(await asyncio.to_thread(orm_store, run.dir / "chat.db"), run) as served:
        yield served


def orm_store(database: Path) -> Store:
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
        INSTALLED_APPS=["digi.django"],
        SECRET_KEY=os.environ["DIGI_LOAD_ID_SECRET"],
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from digi.django.store import OrmStore

    store: Store = OrmStore()
    return store
