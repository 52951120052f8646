"""What has happened in a room, told in the process that has stored it, once it is committed.

    from django.dispatch import receiver
    from digi.django.signals import message_added

    @receiver(message_added)
    def notify(message, **_):
        ...

`message_added`, `message_edited` and `message_deleted` have `message` (a `digi.Message`), `member_joined` and
`member_left` have `user` (the key); all have `seq` and `room` (its id, or over the project's own tables its key; the
message there is given by `digi.django.keys.get_message`). One that raises is logged.

Over the project's own database, receivers run in the thread that writes for all rooms, or in the one that called
`digi.django.rooms`: what takes long belongs into a queue. With a store of Digi's own (a URL as `STORE`, or SQL Server)
they run beside, in a thread for nothing else (see `Engine.observe`); the sender is `digi.Engine`.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

from django.db import close_old_connections, transaction
from django.dispatch import Signal

from digi._digi import Engine, Outcome

logger = logging.getLogger(__name__)


class _Watched:
    """Engines whose store tells of nothing by itself. They are observed once there is a receiver."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.engines: weakref.WeakSet[Engine] = weakref.WeakSet()


_watched = _Watched()


class _Signal(Signal):
    def connect(self, *args: Any, **kwargs: Any) -> None:
        super().connect(*args, **kwargs)
        with _watched.lock:
            engines = list(_watched.engines)
        for engine in engines:
            engine.observe(_observed)


message_added = _Signal()
message_edited = _Signal()
message_deleted = _Signal()
member_joined = _Signal()
member_left = _Signal()

_OF_KIND = {
    "added": message_added,
    "edited": message_edited,
    "deleted": message_deleted,
    "joined": member_joined,
    "left": member_left,
}


def watch(engine: Engine) -> None:
    """Sends what an engine with a store of Digi's own stores."""
    with _watched.lock:
        _watched.engines.add(engine)
    if any(signal.receivers for signal in _OF_KIND.values()):
        engine.observe(_observed)


def _observed(changes: Sequence[tuple[int, Outcome]]) -> None:
    try:
        _send(Engine, changes)
    finally:
        # Receivers may have used some, in a thread that no request ends in.
        close_old_connections()


def _begin_anew() -> None:
    global _watched
    _watched = _Watched()


# The parent's engines are of no use in a child, and its lock may have been held.
os.register_at_fork(after_in_child=_begin_anew)


def tell(sender: type, using: str, rooms: Sequence[Any], outcomes: Sequence[Outcome]) -> None:
    """Sends what has become of commands in rooms, now or when the caller's transaction is committed."""
    if not any(signal.has_listeners(sender) for signal in _OF_KIND.values()):
        return
    transaction.on_commit(partial(_send, sender, list(zip(rooms, outcomes, strict=True))), using=using)


def _send(sender: type, pairs: Sequence[tuple[Any, Outcome]]) -> None:
    for room, outcome in pairs:
        signal = _OF_KIND.get(outcome.kind)
        if signal is None:
            continue
        about = {"user": outcome.user} if outcome.message is None else {"message": outcome.message}
        for receiver, answer in signal.send_robust(sender, room=room, seq=outcome.seq, **about):
            if isinstance(answer, Exception):
                logger.error("%r failed", receiver, exc_info=answer)
