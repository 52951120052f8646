"""What has happened in a room, told in the process that has stored it, once it is committed.

    from django.dispatch import receiver
    from digi.django.signals import message_added

    @receiver(message_added)
    def notify(message, **_):
        ...

`message_added`, `message_edited` and `message_deleted` have `message` (a `digi.Message`), `member_joined` and
`member_left` have `user` (the key); all have `seq` and `room` (its id, or over the project's own tables its key; the
message there is given by `digi.django.keys.get_message`). Receivers run in the thread that writes for all rooms, or in
the one that called `digi.django.rooms`: what takes long belongs into a queue. One that raises is logged. They
are sent for the project's own database (`STORE` is `"orm"`, and it isn't SQL Server).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from django.db import transaction
from django.dispatch import Signal

from digi._digi import Outcome

logger = logging.getLogger(__name__)

message_added = Signal()
message_edited = Signal()
message_deleted = Signal()
member_joined = Signal()
member_left = Signal()

_OF_KIND = {
    "added": message_added,
    "edited": message_edited,
    "deleted": message_deleted,
    "joined": member_joined,
    "left": member_left,
}


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
