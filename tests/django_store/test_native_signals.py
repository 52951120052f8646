"""Signals of what a store of Digi's own stores, which has no thread of Python's."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

import digi
from digi.django import signals
from digi.django.engine import get_engine
from django_store.test_posting import heard

__all__ = ["heard"]

ALICE = ("1", "alice")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[digi.Engine]:
    with override_settings(DIGI={"STORE": f"sqlite:{tmp_path / 'chat.db'}"}), get_engine() as engine:
        yield engine


def make_room(engine: digi.Engine) -> int:
    return engine.create_room([(*ALICE, "member")]).result()


def test_what_is_stored_is_told(
    heard: list[tuple[str, Any]], engine: digi.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(**_: object) -> None:
        raise LookupError("in a receiver")

    signals.message_edited.connect(fails)
    room = make_room(engine)
    message = engine.post(room, *ALICE, "hello", client_id="1").result().message_id
    assert message is not None
    engine.post(room, *ALICE, "hello", client_id="1").result()  # a duplicate is nothing new
    engine.edit(room, *ALICE, message, "hello!").result()
    engine.delete(room, *ALICE, message).result()
    engine.add_member(room, "2", "bob").result()
    engine.remove_member(room, "2").result()
    with caplog.at_level(logging.ERROR, "digi"):
        engine.close().result()
    signals.message_edited.disconnect(fails)
    wanted = [("message_added", "hello"), ("message_edited", "hello!"), ("message_deleted", None)]
    assert heard == [*wanted, ("member_joined", "2"), ("member_left", "2")]
    assert "in a receiver" in caplog.text


def test_a_slow_receiver_holds_nobody_up_and_hears_everything(engine: digi.Engine) -> None:
    """It also comes when the engine is at work already."""
    room, goes_on, told = make_room(engine), threading.Event(), []

    def receive(message: digi.Message, room: int, seq: int, sender: type, **_: object) -> None:
        assert goes_on.wait(20)
        told.append((message.body, room, seq, sender, threading.current_thread()))

    engine.post(room, *ALICE, "nobody listens").result()
    signals.message_added.connect(receive)
    try:
        for number in range(20):
            engine.post(room, *ALICE, str(number)).result()
        assert told == []
        goes_on.set()
        engine.close().result()
    finally:
        signals.message_added.disconnect(receive)
    assert [of[:-1] for of in told] == [(str(number), room, number + 2, digi.Engine) for number in range(20)]
    assert len({thread for *_, thread in told}) == 1
