"""For tests of a project: pages without browsers.

    from django.test import TransactionTestCase
    from digi.django.testing import ended_engine, page

    class ChatTests(TransactionTestCase):
        def test_hello(self):
            with ended_engine(), page(room, alice) as hers, page(room, bob) as his:
                hers.send(message="hello")
                assert his.receive("add")["message"] == "hello"

An engine writes in threads of its own, which don't see a test's transaction: use `TransactionTestCase`, and with SQLite
a file, `DATABASES["default"]["TEST"] = {"NAME": …}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth.models import AbstractBaseUser

from digi._digi import Engine, Session
from digi.django.engine import get_engine
from digi.django.keys import room_number

#: Seconds after which a frame that was waited for counts as missing.
TIMEOUT = 10.0

Frame = dict[str, Any]


class Page:
    """What a page of a user's gets and sends."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._waiting: list[Frame] = []

    def send(self, **frame: Any) -> None:
        """Sends a frame, of type `add` unless it says otherwise (docs/protocol.md)."""
        self.session.receive(json.dumps(frame)).result(TIMEOUT)

    def receive(self, kind: str | None = None) -> Frame:
        """The next frame, or the next of a type; those before it are passed over.

        Raises `TimeoutError`, and `EOFError` with the close code when the session is closed instead.
        """
        while True:
            while not self._waiting:
                frames = self.session.frames().result(TIMEOUT)
                if not frames:
                    raise EOFError(f"closed with {self.session.close_code} {self.session.close_reason}")
                self._waiting += [json.loads(frame) for frame in frames]
            frame = self._waiting.pop(0)
            if kind is None or frame["type"] == kind:
                return frame


@contextmanager
def page(room: Any, user: AbstractBaseUser) -> Iterator[Page]:
    """A page in a room (an object of the project's, or an id or key), once it is in.

    Raises `ConnectionRefusedByDigi` where the user may not enter.
    """
    engine = get_engine().open().result()
    token = engine.cipher.seal("room", room_number(room))
    with engine.connect(token, str(user.pk), user.get_username()).result() as session:
        opened = Page(session)
        opened.receive("resumed")
        yield opened


@contextmanager
def ended_engine() -> Iterator[Engine]:
    """The engine of this process, which ends with the block: its connections would keep a test database in use."""
    engine = get_engine()
    try:
        yield engine
    finally:
        engine.close().result()
