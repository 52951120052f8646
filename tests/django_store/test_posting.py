"""Messages from views and tasks, in and outside of transactions, and the signals of what was stored."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections, transaction
from django.dispatch import Signal
from django.test import override_settings

import digi
from digi.django import adelete, announce, apost, delete, edit, kick, post, posting, signals
from digi.django.engine import get_engine
from digi.django.models import Message, Post
from digi.django.rooms import add_member, create_room, remove_member
from django_store.project.models import Letter, Pair
from django_store.test_project_tables import PAIRS


class Chat:
    """Alice and Bob in a room, on a database."""

    def __init__(self, using: str) -> None:
        self.using = using
        users = User.objects.db_manager(using)
        self.alice, self.bob, self.carol = (users.create_user(name) for name in ("alice", "bob", "carol"))
        self.room = create_room([self.alice, self.bob])

    def bodies(self) -> list[str | None]:
        return [message.body for message in get_engine().history(self.room).result()]

    def waiting(self) -> int:
        return Post.objects.using(self.using).count()


@pytest.fixture
def chat(database: str) -> Iterator[Chat]:
    with override_settings(DIGI={"DATABASE": database}), get_engine():
        yield Chat(database)
    User.objects.db_manager(database).all().delete()


def test_at_once(chat: Chat) -> None:
    posted = post(chat.room, chat.alice, "hello", client_id="1")
    assert posted is not None
    again = post(chat.room, chat.alice, "hello", client_id="1")
    assert again is not None
    assert (posted.kind, again.kind, again.message_id) == ("added", "duplicate", posted.message_id)
    message = posted.message_id
    assert message is not None
    with pytest.raises(digi.RefusedError, match="not_sender"):
        edit(message, "mine", user=chat.bob)
    edit(message, "hello!", user=chat.alice)
    assert chat.bodies() == ["hello!"]
    edit(Message.objects.using(chat.using).get(pk=message), "corrected")
    assert chat.bodies() == ["corrected"]
    with pytest.raises(digi.RefusedError, match="not_a_member"):
        post(chat.room, chat.carol, "let me in")
    announce(chat.room, "Closing at eight", name="Shop")
    delete(message)
    assert chat.bodies() == [None, "Closing at eight"]
    with pytest.raises(TypeError, match="an id, or an object"):
        post("room", chat.alice, "hello")


def test_for_coroutines(chat: Chat) -> None:
    async def main() -> None:
        posted = await apost(chat.room, chat.alice, "hello")
        await adelete(posted.message_id, user=chat.alice)

    asyncio.run(main())
    assert chat.bodies() == [None]
    assert (apost.__name__, "coroutines" in str(apost.__doc__)) == ("apost", True)


def test_in_a_transaction(chat: Chat) -> None:
    with transaction.atomic(using=chat.using):
        assert post(chat.room, chat.alice, "never") is None
        transaction.set_rollback(True, using=chat.using)
    assert (chat.bodies(), chat.waiting()) == ([], 0)
    with transaction.atomic(using=chat.using):
        post(chat.room, chat.alice, "one")
        announce(chat.room, "two")
        post(chat.room, chat.carol, "refused")
        assert (chat.bodies(), chat.waiting()) == ([], 3)
    assert (chat.bodies(), chat.waiting()) == (["one", "two"], 0)
    first = get_engine().history(chat.room).result()[0].id
    with transaction.atomic(using=chat.using):
        edit(first, "eins")
        delete(first, user=chat.bob)  # who may not
    assert (chat.bodies(), chat.waiting()) == (["eins", "two"], 0)


def test_what_a_process_that_died_has_left_behind(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as dying:
        # It dies after the commit.
        dying.setattr(posting, "_finish", lambda _: None)
        with transaction.atomic(using=chat.using):
            post(chat.room, chat.alice, "left behind")
    assert (chat.bodies(), chat.waiting()) == ([], 1)
    assert posting.sweep() == 0, "not yet: it may be alive"
    Post.objects.using(chat.using).update(at=0)
    [row] = Post.objects.using(chat.using).all()
    assert posting.sweep() == 1
    # Somebody else had begun with it as well.
    posting._finish(row)
    assert (chat.bodies(), chat.waiting()) == (["left behind"], 0)
    assert posting.sweep() == 0


def test_what_cannot_be_stored_holds_nobody_up(sqlite: str) -> None:
    assert sqlite == "default"
    alice, bob = (User.objects.create_user(name) for name in ("alice", "bob"))
    pair = Pair.objects.create(one=alice, two=bob)
    with override_settings(DIGI=PAIRS), get_engine():
        with transaction.atomic():
            announce(pair, "by nobody, and the table wants a writer")
            post(pair, alice, 7)  # type: ignore[arg-type]
            post(pair, alice, "what comes behind")
        assert not Post.objects.exists()
    assert [letter.words for letter in Letter.objects.all()] == ["what comes behind"]
    connections["default"].close()


def test_a_store_that_is_away_keeps_it(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise digi.StoreUnavailableError("away")

    with monkeypatch.context() as broken:
        broken.setattr(posting, "_carry_out", away)
        with transaction.atomic(using=chat.using):
            post(chat.room, chat.alice, "later")
    assert (chat.bodies(), chat.waiting()) == ([], 1)
    Post.objects.using(chat.using).update(at=0)
    assert posting.sweep() == 1
    assert (chat.bodies(), chat.waiting()) == (["later"], 0)


def test_kick(chat: Chat) -> None:
    engine = get_engine()
    token = engine.cipher.seal("room", chat.room)
    session = engine.connect(token, str(chat.bob.pk), "bob").result()
    kick(chat.bob)
    list(session)
    assert session.close_code == 4504


def test_over_the_projects_own_tables(sqlite: str) -> None:
    assert sqlite == "default"
    alice, bob = (User.objects.create_user(name) for name in ("alice", "bob"))
    pair = Pair.objects.create(one=alice, two=bob)
    letter = Letter.objects.create(pair=pair, writer=bob, words="by hand")
    with override_settings(DIGI=PAIRS), get_engine():
        post(pair, alice, "hello")
        edit(letter, "by hand!", user=bob)
        with transaction.atomic():
            post(pair, bob, "and in a transaction")
        with pytest.raises(digi.RefusedError, match="no_such_message"):
            delete(10**6)
    assert list(Letter.objects.order_by("pk").values_list("words", flat=True)) == [
        "by hand!",
        "hello",
        "and in a transaction",
    ]
    connections["default"].close()


@pytest.fixture
def heard() -> Iterator[list[tuple[str, Any]]]:
    """What the signals have told."""
    told: list[tuple[str, Any]] = []
    receivers: list[tuple[Signal, Callable[..., None]]] = []
    for name in ("message_added", "message_edited", "message_deleted", "member_joined", "member_left"):

        def receive(name: str = name, **keys: Any) -> None:
            about = keys["message"].body if "message" in keys else keys["user"]
            told.append((name, about))
            assert keys["seq"] > 0

        signal: Signal = getattr(signals, name)
        signal.connect(receive)
        receivers.append((signal, receive))
    yield told
    for signal, receive in receivers:
        signal.disconnect(receive)


def test_signals(chat: Chat, heard: list[tuple[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    posted = post(chat.room, chat.alice, "hello", client_id="1")
    assert posted is not None
    post(chat.room, chat.alice, "hello", client_id="1")  # a duplicate is nothing new
    edit(posted.message_id, "hello!")
    delete(posted.message_id)
    add_member(chat.room, chat.carol)
    carol = str(chat.carol.pk)
    with transaction.atomic(using=chat.using):
        remove_member(chat.room, chat.carol)
        transaction.set_rollback(True, using=chat.using)
    remove_member(chat.room, chat.carol)
    wanted = [("message_added", "hello"), ("message_edited", "hello!"), ("message_deleted", None)]
    assert heard == [*wanted, ("member_joined", carol), ("member_left", carol)]

    def fails(**_: object) -> None:
        raise LookupError("in a receiver")

    signals.message_added.connect(fails)
    try:
        with caplog.at_level(logging.ERROR, "digi"):
            post(chat.room, chat.alice, "stored all the same")
    finally:
        signals.message_added.disconnect(fails)
    assert chat.bodies() == [None, "stored all the same"]
    assert "in a receiver" in caplog.text
