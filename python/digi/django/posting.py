"""Messages from views, tasks and commands, in whatever thread or process.

    from digi.django import announce, delete, edit, kick, post

    post(room, request.user, "Hello")           # if the user is a member
    edit(message, "Hello!")                     # in the site's name, whoever wrote it
    delete(message, user=request.user)          # if the user may
    announce(room, "The shop closes at eight", name="Shop")
    kick(user)

Each has a twin for coroutines (`apost`, `aedit`, `adelete`, `aannounce`, `akick`). They give the `digi.Outcome` once it
is committed, and raise `RefusedError`, `InputError` or `StoreError`.

Inside of `transaction.atomic()` nothing is sent before the commit, and nothing at all after a rollback: there they
leave a row in `digi_post` and give None. After the commit it is carried out; where the process dies in between, by
another one that serves the chat, within some seconds. What is refused then is logged.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from asgiref.sync import sync_to_async
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import close_old_connections, connections, transaction
from django.utils.asyncio import async_unsafe

from digi._digi import Outcome
from digi.django import conf, keys, mssql
from digi.django.engine import get_engine
from digi.django.models import Post
from digi.errors import InputError, RefusedError, StoreRejectedError

logger = logging.getLogger(__name__)

#: A user, or a key and a name.
Someone: TypeAlias = "AbstractBaseUser | tuple[str, str]"
#: A room or a message: its id, or an object of the project's, or its key (`digi.django.keys`).
Thing: TypeAlias = Any

#: Milliseconds after which a row that somebody left behind is carried out by others.
LEFT_BEHIND = 5_000
#: Rows that are carried out in one go.
TOGETHER = 100


def post(room: Thing, user: Someone, text: str, *, client_id: str | None = None) -> Outcome | None:
    """Adds a message in a member's name; `client_id` makes it idempotent (`Engine.post`)."""
    key, name = _someone(user)
    return _do(kind="post", room=keys.room_number(room), user=key, name=name, text=text, client_id=client_id)


def announce(room: Thing, text: str, *, name: str = "", key: str = "") -> Outcome | None:
    """Adds a message of the site's own, under a name, and a key if one is to tell by it who that was."""
    return _do(kind="post", room=keys.room_number(room), user=key, name=name, text=text, client_id=None, as_host=True)


def edit(message: Thing, text: str, *, user: Someone | None = None) -> Outcome | None:
    """Replaces a message's text: in the site's name, or in a user's, who has to be its sender."""
    key, name = _someone(user)
    return _do(kind="edit", message=keys.message_name(message), user=key, name=name, text=text, as_host=user is None)


def delete(message: Thing, *, user: Someone | None = None) -> Outcome | None:
    """Deletes a message: in the site's name, or in a user's, who has to be its sender or a moderator."""
    key, name = _someone(user)
    return _do(kind="delete", message=keys.message_name(message), user=key, name=name, as_host=user is None)


@async_unsafe
def kick(user: AbstractBaseUser | str) -> None:
    """Closes all of a user's connections, here and where the layer reaches."""
    engine = get_engine().open().result()
    engine.kick(user if isinstance(user, str) else str(user.pk))


def _twin(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def twin(*arguments: Any, **keywords: Any) -> Any:
        return await sync_to_async(function)(*arguments, **keywords)

    twin.__name__ = twin.__qualname__ = f"a{function.__name__}"
    twin.__doc__ = f"`{function.__name__}`, for coroutines."
    return twin


apost, aannounce, aedit, adelete, akick = (_twin(function) for function in (post, announce, edit, delete, kick))


@async_unsafe
def _do(**operation: Any) -> Outcome | None:
    config = conf.get()
    is_ours = config.store == "orm" and not mssql.is_sql_server(config.database)
    if not (is_ours and connections[config.database].in_atomic_block):
        return _carry_out(operation)
    row = Post(op_id=uuid.uuid4().hex, at=_now(), operation=json.dumps(operation))
    row.save(using=config.database, force_insert=True)
    transaction.on_commit(lambda: _finish(row), using=config.database, robust=True)
    return None


def _carry_out(operation: dict[str, Any], op_id: str | None = None) -> Outcome:
    engine = get_engine().open().result()
    kind, user, name = operation["kind"], operation["user"], operation["name"]
    as_host = operation.get("as_host", False)
    if kind == "post":
        # A row that is carried out twice gives one message.
        client_id = operation["client_id"] or op_id
        posted = engine.post(operation["room"], user, name, operation["text"], client_id=client_id, as_host=as_host)
        return posted.result()
    message = keys.message_id(operation["message"])
    room = _room_of(message)
    if kind == "edit":
        return engine.edit(room, user, name, message, operation["text"], as_host=as_host).result()
    return engine.delete(room, user, name, message, as_host=as_host).result()


def _finish(row: Post) -> None:
    """Carries a row out and removes it, unless it can be done later. No row holds up those behind it."""
    using = conf.get().database
    try:
        _carry_out(json.loads(row.operation), row.op_id)
    except (RefusedError, InputError, StoreRejectedError, TypeError, ValueError) as error:
        logger.warning("what was posted in a transaction is refused: %s", error)
    except Exception as error:
        logger.warning("what was posted in a transaction is carried out later: %s: %s", type(error).__name__, error)
        return
    Post.objects.using(using).filter(pk=row.pk).delete()


def sweep() -> int:
    """Carries out what processes that died have left behind: how many rows."""
    config = conf.get()
    if config.store != "orm" or mssql.is_sql_server(config.database):
        return 0
    close_old_connections()
    try:
        old = Post.objects.using(config.database).filter(at__lt=_now() - LEFT_BEHIND).order_by("at")
        rows = list(old[:TOGETHER])
        for row in rows:
            _finish(row)
        return len(rows)
    finally:
        # It is long until the next time.
        connections[config.database].close()


def _room_of(message: int) -> int:
    mapped = conf.mapped()
    if mapped is None or not mapped.message_key.is_number:
        return message >> 32
    rows = mapped.message_model._base_manager.using(conf.get().database).filter(pk=message)
    room: Any = rows.values_list(mapped.room_column, flat=True).first()
    if room is None:
        raise RefusedError(f"there is no message {message}", code="no_such_message")
    return keys.room_number(room)


def _someone(user: Someone | None) -> tuple[str, str]:
    if user is None:
        return "", ""
    return user if isinstance(user, tuple) else (str(user.pk), user.get_username())


def _now() -> int:
    return time.time_ns() // 1_000_000
