"""From the project's rooms and messages to what Digi knows, and back.

    from digi.django.keys import get_message, get_room, message_token, room_number, room_token

    room_token(room)            # what stands in the chat's URL
    message_token(message)      # the `message_id` of frames
    room_number(room)           # what the engine knows: `get_engine().history(room_number(room))`
    get_room(number)            # and back, to the project's object
    get_message(message.id)     # of a `digi.Message`

Rooms and messages are given as the project's objects or their keys, or as Digi's numbers where those are no keys. Over
the project's own tables (`DIGI["ROOM_MODEL"]`) whole numbers are used as they are; where the keys are UUIDs or texts, a
room gets a number when it is first asked for, in the caller's transaction.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from django.db.models import Model

from digi.django import conf
from digi.django.engine import get_cipher
from digi.django.models import Message, Room
from digi.django.project_keys import Key
from digi.django.store import OrmStore
from digi.errors import NoSuchRoomError, RefusedError

#: A room or a message: an object of the project's or of Digi's, or its key, or Digi's number.
Thing: TypeAlias = Any


def room_number(room: Thing) -> int:
    """The number by which the engine knows a room. Raises `NoSuchRoomError` for an object or a key of none."""
    mapped = conf.mapped()
    if mapped is None or mapped.room_key.is_number:
        return _whole(room)
    try:
        name = _name(room, mapped.room_key)
    except ValueError:
        raise NoSuchRoomError(f"there is no room {room}") from None
    return name if isinstance(name, int) else OrmStore(conf.get().database, mapped).room_number(name)


def get_room(number: int) -> Any:
    """The project's room (or the `Room` of Digi's) that the engine knows by a number. Raises `NoSuchRoomError`."""
    mapped, using = conf.mapped(), conf.get().database
    model: Any = Room if mapped is None else mapped.room_model
    key = number if mapped is None else OrmStore(using, mapped).room_key(number)
    found = model._base_manager.using(using).filter(pk=key).first()
    if found is None:
        raise NoSuchRoomError(f"there is no room {key}")
    return found


def room_key(number: int) -> Any:
    """The key of that room; without a query where it is the number. Raises `NoSuchRoomError`."""
    mapped = conf.mapped()
    if mapped is None or mapped.room_key.is_number:
        return number
    return OrmStore(conf.get().database, mapped).room_key(number)


def message_id(message: Thing) -> int:
    """The id by which the engine and its frames know a message. Raises `RefusedError` where there is none."""
    name = message_name(message)
    found = OrmStore(conf.get().database, conf.mapped()).message_id(name) if isinstance(name, str) else name
    if found is None:
        raise RefusedError(f"there is no message {message}", code="no_such_message")
    return found


def message_name(message: Thing) -> int | str:
    """The same without looking: the id, or the key where that has to be looked up (`message_id` takes either)."""
    mapped = conf.mapped()
    if mapped is None or mapped.message_key.is_number:
        return _whole(message)
    try:
        return _name(message, mapped.message_key)
    except ValueError:
        raise RefusedError(f"there is no message {message}", code="no_such_message") from None


def message_key(id: int) -> Any:
    """The key of the message that the engine knows by an id; None: there is none."""
    return OrmStore(conf.get().database, mapped).message_key(id) if (mapped := conf.mapped()) is not None else id


def get_message(id: int) -> Any:
    """The project's message (or the `Message` of Digi's) that the engine knows by an id; None: there is none."""
    mapped, using = conf.mapped(), conf.get().database
    model: Any = Message if mapped is None else mapped.message_model
    key = message_key(id)
    return None if key is None else model._base_manager.using(using).filter(pk=key).first()


def room_token(room: Thing) -> str:
    """The token of a room."""
    return get_cipher().seal("room", room_number(room))


def message_token(message: Thing) -> str:
    """The token of a message."""
    return get_cipher().seal("message", message_id(message))


def _name(thing: Thing, key: Key) -> int | str:
    """Digi's number, or the project's key as it stands in Digi's tables."""
    value = thing.pk if isinstance(thing, Model) else thing
    if value is None:
        raise TypeError(f"an object that is saved, or a key, not {type(thing).__name__}")
    number = thing if isinstance(thing, int) else getattr(thing, "id", None)
    if isinstance(number, int) and not isinstance(thing, Model) and key.kind != "large":
        return number
    return str(key.stored(value))


def _whole(thing: Thing) -> int:
    found = thing if isinstance(thing, int) else getattr(thing, "pk", getattr(thing, "id", None))
    if not isinstance(found, int):
        raise TypeError(f"an id, or an object with a whole number as its primary key, not {type(thing).__name__}")
    return found
