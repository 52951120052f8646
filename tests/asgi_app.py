"""The ASGI application under test: a native SQLite store in DIGI_DATA, and whoever `?as=` says."""

import os
from pathlib import Path
from urllib.parse import parse_qs

from digi import Engine
from digi.asgi import Chat, Scope

SECRET = "a secret of the tests, of thirty-two bytes and more"
#: A connection of the load test sends as fast as it is answered.
LIMITS = {"frames_per_second": 0}


async def who(scope: Scope) -> str | None:
    asked = parse_qs(scope["query_string"].decode()).get("as")
    return asked[0] if asked else None


def store_url(data: Path) -> str:
    return f"sqlite:{data / 'chat.db'}"


if "DIGI_DATA" in os.environ:
    application = Chat(Engine(SECRET, store_url(Path(os.environ["DIGI_DATA"])), limits=LIMITS), who)
