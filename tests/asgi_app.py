"""The ASGI application under test: rooms in DIGI_DATA, and whoever `?as=` says.

`python asgi_app.py` makes the room of alice and bob and prints its token. DIGI_STORE is `native` (the default) or
`orm`, Django's own connection to an SQLite file with the same tables, or to the database whose settings DIGI_DATABASE
has as JSON; `project` is the same over tables of the project's own, `uuids` over such with UUIDs as keys. DIGI_LAYER is
the channel layer.
"""

import json
import os
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs

from digi import Engine, Store
from digi.asgi import Chat, Scope
from digi.types import Member

SECRET = "a secret of the tests, of thirty-two bytes and more"
MEMBERS: list[Member] = [("alice", "alice", "member"), ("bob", "bob", "member")]
#: A connection of the load test sends as fast as it is answered.
LIMITS = {"frames_per_second": 0}


async def who(scope: Scope) -> str | None:
    asked = parse_qs(scope["query_string"].decode()).get("as")
    return asked[0] if asked else None


def store(data: Path) -> str | Store:
    file = data / "chat.db"
    if os.environ.get("DIGI_STORE", "native") == "native":
        return f"sqlite:{file}"
    import django
    from django.conf import settings

    database = json.loads(os.environ.get("DIGI_DATABASE", "null"))
    database = database or {"ENGINE": "django.db.backends.sqlite3", "NAME": file}
    apps = ["django.contrib.contenttypes", "django.contrib.auth", "django_store.project"] if _is_projects() else []
    settings.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=["digi.django", *apps],
        SECRET_KEY=SECRET,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()
    from digi.django.mapping import look_up
    from digi.django.store import OrmStore

    if not _is_projects():
        return OrmStore()
    from django_store.project.models import CIRCLES, HALLS

    return OrmStore("default", look_up(HALLS if os.environ["DIGI_STORE"] == "uuids" else CIRCLES))


def _is_projects() -> bool:
    return os.environ.get("DIGI_STORE") in ("project", "uuids")


@cache
def engine() -> Engine:
    layer = os.environ.get("DIGI_LAYER", "local:")
    return Engine(SECRET, store(Path(os.environ["DIGI_DATA"])), layer=layer, limits=LIMITS)


def migrate() -> None:
    if os.environ.get("DIGI_STORE") == "orm" or _is_projects():
        from django.core.management import call_command

        call_command("migrate", verbosity=0)


def prepare() -> str:
    made = engine()
    migrate()
    with made:
        return made.cipher.seal("room", made.create_room(MEMBERS).result())


if __name__ == "__main__":
    print(prepare())
elif "DIGI_DATA" in os.environ:
    application = Chat(engine, who)
