"""Rooms and messages of a project whose keys are UUIDs or texts."""

import asyncio
import io
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections, models, transaction
from django.template import Context, Template
from django.test import Client, override_settings
from django.test.utils import isolate_apps
from django.utils import timezone

import digi
from digi.channels import ChatConsumer
from digi.django import announce, conf, delete, edit, keys, post, signals
from digi.django.adoption import RECENT_TIME
from digi.django.engine import get_cipher, get_engine
from digi.django.fields import HOST_KEY_LENGTH
from digi.django.mapping import look_up
from digi.django.models import Head, Log, RoomKey
from digi.django.models import Post as Waiting
from digi.django.project_keys import key_of
from digi.django.rooms import add_member, create_room, remove_member
from digi.django.store import OrmStore
from digi.django.testing import page
from django_store.project.models import (
    CIRCLES,
    HALLS,
    NOTED_CIRCLES,
    TOPICS,
    Call,
    Circle,
    GreatHall,
    Hall,
    HallMember,
    Membership,
    Note,
    Post,
    Remark,
    Topic,
    TopicMember,
)

#: For each way to map: the setting, and the models of rooms, members and messages with the name of their room.
KINDS: dict[str, tuple[dict[str, Any], Any, Any, Any, str]] = {
    "uuids": (HALLS, Hall, HallMember, Call, "hall"),
    "topics": (TOPICS, Topic, TopicMember, Remark, "topic"),
    "numbers": (CIRCLES | {"ROOM_NUMBERS": True}, Circle, Membership, Post, "circle"),
    "notes": (NOTED_CIRCLES, Circle, Membership, Note, "circle"),
}


class Chat:
    """Alice and Bob in a room of the project's."""

    def __init__(self, using: str, kind: str) -> None:
        self.using = using
        self.setting, self.rooms, self.members, self.messages, self.field = KINDS[kind]
        self.alice, self.bob = (User.objects.db_manager(using).get_or_create(username=name)[0] for name in ("al", "bo"))
        self.room = self.new_room()
        self.store = OrmStore(using, look_up(self.setting))

    def new_room(self) -> Any:
        room = self.rooms.objects.using(self.using).create()
        for user in (self.alice, self.bob):
            self.members.objects.using(self.using).create(person=str(user.pk), **{self.field: room})
        return room

    def write(self, text: str, **given: Any) -> Any:
        """By somebody who knows nothing of Digi."""
        given = {self.field: self.room, "author": str(self.bob.pk), "text": text} | given
        return self.messages.objects.using(self.using).create(**given)

    def bodies(self, room: Any = None) -> list[str | None]:
        return [message.body for message in get_engine().history(keys.room_number(room or self.room)).result()]

    def texts(self) -> set[str]:
        return set(self.messages.objects.using(self.using).values_list("text", flat=True))


def chatting(using: str, kind: str) -> Iterator[Chat]:
    with override_settings(DIGI=KINDS[kind][0] | {"DATABASE": using}), get_engine():
        yield Chat(using, kind)
    User.objects.db_manager(using).all().delete()


@pytest.fixture(params=list(KINDS))
def chat(database: str, request: pytest.FixtureRequest) -> Iterator[Chat]:
    yield from chatting(database, request.param)


@pytest.fixture
def halls(database: str) -> Iterator[Chat]:
    yield from chatting(database, "uuids")


@pytest.fixture
def topics(database: str) -> Iterator[Chat]:
    yield from chatting(database, "topics")


# Rooms.


def test_a_room_gets_its_number_once(halls: Chat) -> None:
    room = halls.room
    number = keys.room_number(room)
    assert 1 <= number < 2**31
    for same in (room, room.pk, str(room.pk), room.pk.hex.upper(), number):
        assert keys.room_number(same) == number
    assert (keys.get_room(number), keys.room_key(number)) == (room, room.pk)
    assert Head.objects.using(halls.using).get().room_id == number
    assert RoomKey.objects.using(halls.using).get().host_key == room.pk.hex
    assert keys.room_number(halls.new_room()) != number
    for none in (uuid.uuid4(), "no UUID", Hall()):
        with pytest.raises(digi.NoSuchRoomError):
            keys.room_number(none)
    for find in (keys.get_room, keys.room_key):
        with pytest.raises(digi.NoSuchRoomError):
            find(number - 1)
    with pytest.raises(TypeError, match="an object that is saved, or a key"):
        keys.room_number(None)


def test_keys_are_read_as_the_database_reads_them(topics: Chat) -> None:
    for name in ("General", "Größe", "a-b", "a--b", "17", "x" * 100):
        Topic.objects.using(topics.using).create(name=name)
    numbers = [keys.room_number(name) for name in ("General", "Größe", "a-b", "a--b", "17", "x" * 100)]
    assert len(set(numbers)) == 6
    assert [keys.room_key(number) for number in numbers] == ["General", "Größe", "a-b", "a--b", "17", "x" * 100]
    if Topic.objects.using(topics.using).filter(pk="general").exists():
        assert keys.room_number("general") == numbers[0]
    else:
        with pytest.raises(digi.NoSuchRoomError):
            keys.room_number("general")
    with pytest.raises(digi.NoSuchRoomError):
        keys.room_number("x" * 1_000)


def test_no_number_comes_out_of_a_transaction_that_was_rolled_back(halls: Chat) -> None:
    with transaction.atomic(using=halls.using):
        number = keys.room_number(halls.room)
        assert keys.room_number(halls.room) == number
        transaction.set_rollback(True, using=halls.using)
    assert not RoomKey.objects.using(halls.using).exists()
    with pytest.raises(digi.NoSuchRoomError):
        keys.get_room(number)
    assert keys.get_room(keys.room_number(halls.room)) == halls.room


@pytest.mark.parametrize("is_committed", [True, False])
def test_two_that_meet_a_room_at_once_get_one_number(
    halls: Chat, is_committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    halls.write("hello")
    is_about_to = threading.Event()
    found: list[int] = []
    # On SQLite who comes second waits at the beginning of its transaction, elsewhere once it has chosen a number.
    place: Any = OrmStore if halls.using == "default" else secrets
    name = "_write" if halls.using == "default" else "randbelow"
    original: Callable[..., Any] = getattr(place, name)

    def second() -> None:
        try:
            found.append(keys.room_number(halls.room))
        finally:
            connections[halls.using].close()

    other = threading.Thread(target=second)
    with transaction.atomic(using=halls.using):
        number = keys.room_number(halls.room)
        with monkeypatch.context() as watched:

            def tell(*arguments: Any) -> Any:
                is_about_to.set()
                return original(*arguments)

            watched.setattr(place, name, tell)
            other.start()
            assert is_about_to.wait(20)
        transaction.set_rollback(not is_committed, using=halls.using)
    other.join()
    assert (found == [number]) == is_committed
    assert [row.room_id for row in RoomKey.objects.using(halls.using).all()] == found
    assert [row.room_id for row in Head.objects.using(halls.using).all()] == found
    assert halls.bodies() == ["hello"]


def test_a_number_that_another_room_has_is_not_taken(halls: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    first = keys.room_number(halls.room)
    # Of rooms that Digi kept itself, before.
    Head.objects.using(halls.using).create(room_id=5, epoch=1, last_seq=7, floor=0, last_at=0)
    offered = iter([first - 1, 4, 41])
    monkeypatch.setattr("digi.django.project_rooms.secrets.randbelow", lambda _: next(offered))
    assert keys.room_number(halls.new_room()) == 42
    assert Head.objects.using(halls.using).get(room_id=5).last_seq == 7


def test_a_room_that_the_project_deletes(chat: Chat) -> None:
    post(chat.room, chat.alice, "hello")
    number, key = keys.room_number(chat.room), chat.room.pk
    with page(chat.room, chat.alice) as hers:
        chat.room.delete()
        hers.send(message="is anybody here?", client_id="1")
        assert hers.receive("error")["code"] == "not_a_member"
    with pytest.raises(digi.ConnectionRefusedByDigi), page(key, chat.bob):
        pass
    with pytest.raises(digi.DigiError):
        announce(key, "into the void")
    with pytest.raises(digi.NoSuchRoomError):
        keys.get_room(number)
    assert keys.room_number(chat.new_room()) != number
    # Who knows its key gets what it was called.
    assert keys.room_key(number) == key
    assert chat.texts() == set()


def test_rooms_are_made_and_joined(chat: Chat) -> None:
    key = create_room([chat.alice])
    room = chat.rooms.objects.using(chat.using).get(pk=key)
    assert keys.get_room(keys.room_number(key)) == room
    with pytest.raises(digi.RefusedError, match="not_a_member"):
        post(room, chat.bob, "hello")
    add_member(room, chat.bob, role="moderator")
    post(room, chat.bob, "hello")
    remove_member(key, chat.bob)
    with pytest.raises(digi.RefusedError, match="not_a_member"):
        post(key, chat.bob, "hello")
    assert chat.bodies(room) == ["hello"]
    with pytest.raises(digi.NoSuchRoomError):
        add_member(10**9 if chat.rooms is Circle else uuid.uuid4(), chat.bob)


def test_a_key_may_be_chosen(topics: Chat) -> None:
    assert create_room([topics.alice], id="general") == "general"
    post("general", topics.alice, "hello")
    assert topics.bodies("general") == ["hello"]
    with pytest.raises(digi.RoomExistsError, match="general"):
        create_room(id="general")
    with pytest.raises(digi.StoreRejectedError, match=r"project\.Topic has to be given its key"):
        create_room(id="")


def test_whole_numbers_of_any_size(sqlite: str) -> None:
    # Elsewhere the numbers of the tests behind would begin there.
    for chat in chatting(sqlite, "numbers"):
        room = Circle.objects.create(id=2**62)
        Membership.objects.create(circle=room, person=str(chat.alice.pk))
        post(2**62, chat.alice, "hello")
        assert chat.bodies(room) == ["hello"]
        assert keys.get_room(keys.room_number(2**62)) == room
        assert 1 <= keys.room_number(room) < 2**31


def test_rooms_that_extend_others(sqlite: str) -> None:
    fields: Any = HALLS["FIELDS"]
    setting = HALLS | {"ROOM_MODEL": "project.GreatHall", "FIELDS": fields | {"room": "hall"}}
    with override_settings(DIGI=setting), get_engine():
        key = create_room([("1", "al")])
        assert GreatHall.objects.get().pk == key
        post(key, ("1", "al"), "hello")
        assert [message.body for message in get_engine().history(keys.room_number(key)).result()] == ["hello"]
    assert sqlite == "default"


# Messages.


def test_messages_by_objects_keys_and_ids(chat: Chat) -> None:
    posted = post(chat.room.pk, chat.alice, "one")
    assert posted is not None
    assert posted.message_id is not None
    row = chat.messages.objects.using(chat.using).get()
    assert (row.text, keys.get_message(posted.message_id), keys.message_id(row)) == ("one", row, posted.message_id)
    for number, message in enumerate((row, row.pk, posted.message_id, keys.message_id(row.pk))):
        edit(message, f"text {number}", user=chat.alice)
        row.refresh_from_db()
        assert row.text == f"text {number}"
    with pytest.raises(digi.RefusedError, match="not_sender"):
        edit(row, "mine", user=chat.bob)
    announce(chat.room, "by the site", name="Shop")
    delete(row)
    assert chat.bodies() == [None, "by the site"]
    assert chat.texts() == {"by the site"}
    if chat.messages is Note and chat.messages.objects.using(chat.using).filter(pk=chat.write("x").pk.upper()).exists():
        edit(chat.messages.objects.using(chat.using).get(text="x").pk.upper(), "not the capitals count")
        assert "not the capitals count" in chat.texts()
    with pytest.raises(digi.RefusedError, match="no_such_message"):
        delete("none" if chat.messages in (Call, Note) else 10**9)


def test_in_a_transaction(chat: Chat) -> None:
    other = chat.new_room()
    with transaction.atomic(using=chat.using):
        post(other, chat.alice, "never")
        transaction.set_rollback(True, using=chat.using)
    by_hand = chat.write("by hand")
    with transaction.atomic(using=chat.using):
        assert post(other, chat.alice, "one") is None
        assert edit(by_hand, "by hand!", user=chat.bob) is None
        assert edit(chat.write("by hand, too"), "and edited") is None
        assert chat.texts() == {"by hand", "by hand, too"}
    assert not Waiting.objects.using(chat.using).exists()
    assert (chat.bodies(other), sorted(filter(None, chat.bodies()))) == (["one"], ["and edited", "by hand!"])


def test_a_page(chat: Chat) -> None:
    old = chat.write("from before")
    with page(chat.room, chat.alice) as hers, page(chat.room.pk, chat.bob) as his:
        hers.send(message="hello", client_id="1")
        added = his.receive("add")
        row = chat.messages.objects.using(chat.using).get(text="hello")
        assert added["message_id"] == keys.message_token(row)
        his.send(type="edit", message_id=keys.message_token(old), message="from long ago")
        assert hers.receive("edit")["message"] == "from long ago"
        hers.send(type="delete", message_id=added["message_id"])
        assert his.receive("delete")["message_id"] == added["message_id"]
    assert chat.bodies() == ["from long ago", None]


def test_signals_name_the_projects_rooms(chat: Chat) -> None:
    told: list[Any] = []

    def receive(room: Any, message: Any, **_: Any) -> None:
        told.append((room, keys.get_message(message.id).text))

    signals.message_added.connect(receive)
    try:
        post(chat.room, chat.alice, "hello")
    finally:
        signals.message_added.disconnect(receive)
    assert told == [(chat.room.pk, "hello")]


# Numbers for what others write.


def test_what_was_there_gets_numbers_as_it_came_to_be(halls: Chat) -> None:
    begun = timezone.now() - timedelta(days=1)
    for minute in range(5):
        # The keys fall.
        halls.write(str(minute), id=uuid.UUID(int=10 - minute), called=begun + timedelta(minutes=minute))
    messages = get_engine().history(keys.room_number(halls.room)).result()
    assert [(message.pos, message.body) for message in messages] == [(n + 1, str(n)) for n in range(5)]
    assert messages[0].created_at == int(begun.timestamp() * 1000)


def test_what_others_write_gets_a_number(chat: Chat) -> None:
    room = chat.store.room_number(chat.room.pk)
    chat.write("one")
    # When somebody enters ...
    assert chat.store.member(room, str(chat.bob.pk)).head.last_seq == 1
    assert chat.store.heads([room])[0][2] == 1
    chat.write("two")
    # ... when rooms are compared ...
    assert chat.store.heads([room])[0][2] == 2
    # ... and when it is named.
    three = chat.write("three")
    edit(three, "drei")
    assert chat.store.heads([room])[0][2] == 4
    assert chat.bodies() == ["one", "two", "drei"]
    # A row that was inserted early and committed late.
    Log.objects.using(chat.using).filter(seq=1).delete()
    assert chat.store.heads([room])[0][2] == 5
    other = chat.new_room()
    chat.write("elsewhere", **{chat.field: other})
    assert [head[2] for head in chat.store.heads([room, chat.store.room_number(other.pk)]) if head[0] != room] == [1]


def test_where_the_time_tells_what_is_new(halls: Chat) -> None:
    room = halls.store.room_number(halls.room.pk)
    assert halls.store.heads([room])[0][2] == 0
    halls.write("in a transaction for a while", called=timezone.now() - timedelta(seconds=RECENT_TIME // 2))
    assert halls.store.heads([room])[0][2] == 1
    halls.write("brought in from elsewhere", called=timezone.now() - timedelta(seconds=RECENT_TIME * 2))
    assert halls.store.heads([room])[0][2] == 1
    assert halls.store.member(room, str(halls.bob.pk)).head.last_seq == 2


def test_adopt(chat: Chat) -> None:
    rooms = [chat.room, *(chat.new_room() for _ in range(60))]
    for number, room in enumerate(rooms):
        chat.write(f"in {number}", **{chat.field: room})
    for expected in (61, 0):
        out = io.StringIO()
        call_command("digi", "adopt", stdout=out)
        assert out.getvalue() == f"{expected} messages have got their numbers.\n"
    assert chat.bodies(rooms[-1]) == ["in 60"]


def test_old_messages_are_purged(chat: Chat) -> None:
    post(chat.room, chat.alice, "hello")
    number = keys.room_number(chat.room)
    assert chat.store.purge(number, 2**62) == 1
    assert (chat.texts(), Log.objects.using(chat.using).count()) == (set(), 0)


# Tokens.


def test_tokens(chat: Chat) -> None:
    post(chat.room, chat.alice, "hello")
    row = chat.messages.objects.using(chat.using).get()
    sealed = get_cipher().seal("room", keys.room_number(chat.room))
    template = Template("{% load digi %}{% room_token room %} {% message_token message %}")
    for room, message in ((chat.room, row), (chat.room.pk, row.pk)):
        shown = template.render(Context({"room": room, "message": message})).split()
        assert shown == [sealed, keys.message_token(row)]
    assert said("token", "room", str(chat.room.pk)) == f"/ws/chat/{sealed}/"
    assert said("token", "room", sealed) == str(chat.room.pk)
    assert said("token", "message", str(row.pk)) == keys.message_token(row)
    assert said("token", "message", keys.message_token(row)) == str(row.pk)


def test_what_is_neither_a_token_nor_a_key(halls: Chat) -> None:
    for kind in ("room", "message"):
        for given in ("nothing", str(uuid.uuid4())):
            with pytest.raises(CommandError, match=f"does not open as the token of a {kind}, and there is no {kind}"):
                said("token", kind, given)
    gone = keys.room_number(halls.room)
    RoomKey.objects.using(halls.using).all().delete()
    assert said("token", "room", get_cipher().seal("room", gone)) == str(gone)


def said(*words: str) -> str:
    out = io.StringIO()
    call_command("digi", *words, stdout=out)
    return out.getvalue().strip()


def test_the_admin_has_the_numbers(sqlite: str) -> None:
    for chat in chatting(sqlite, "topics"):
        number = keys.room_number(chat.room)
        browser = Client()
        browser.force_login(User.objects.create(username="root", is_staff=True, is_superuser=True))
        answer = browser.get(f"/admin/digi/roomkey/?q={number}")
        assert (answer.status_code, str(chat.room.pk) in answer.content.decode()) == (200, True)


def test_a_consumer_is_asked_about_the_projects_room(sqlite: str) -> None:
    asked: list[Any] = []

    class Asking(ChatConsumer):
        async def get_user(self) -> Any:
            return (str(self.scope["who"].pk), "al")

        async def may_enter(self, user: str, room: Any) -> bool:
            asked.append((user, room))
            return False

    async def connect(chat: Chat) -> list[Any]:
        sent: list[Any] = []
        scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "who": chat.alice}
        scope |= {"url_route": {"kwargs": {"token": keys_token}}}

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await Asking.as_asgi()(scope, receive, send)
        return sent

    for chat in chatting(sqlite, "uuids"):
        keys_token = keys.room_token(chat.room)
        sent = asyncio.run(asyncio.wait_for(connect(chat), 30))
        assert asked == [(str(chat.alice.pk), chat.room.pk)]
        assert sent[-1]["type"] == "websocket.close"


# What cannot work.


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (HALLS | {"EMIT": "fernet"}, r"'EMIT'.*\"fernet\" seals whole numbers.*rooms are UUIDs"),
        (TOPICS | {"EMIT": "fernet"}, r"'EMIT'.*rooms are texts"),
        (NOTED_CIRCLES | {"EMIT": "fernet"}, r"'EMIT'.*messages are texts"),
        (HALLS | {"BRIDGE": {"format": "core", "hosts": []}}, r"'BRIDGE'.*rooms are UUIDs"),
        (NOTED_CIRCLES | {"BRIDGE": "core"}, r"'BRIDGE'"),
        (TOPICS | {"LEGACY_FERNET": ["x"]}, r"'LEGACY_FERNET'.*rooms are texts"),
        (CIRCLES | {"ROOM_NUMBERS": True, "EMIT": "fernet"}, r"'EMIT'.*rooms are other numbers than Digi's"),
        (HALLS | {"ROOM_NUMBERS": 1}, r"'ROOM_NUMBERS'.*True or False"),
        ({"ROOM_NUMBERS": True}, r"'ROOM_MODEL'.*needed beside ROOM_NUMBERS"),
        (HALLS | {"MESSAGE_MODEL": "sessions.Session"}, r"'MESSAGE_MODEL'.*sessions\.Session.*needs a default"),
        (HALLS | {"STORE": "memory:"}, r"'STORE'.*\"orm\""),
    ],
)
def test_what_cannot_work_is_said_at_the_start(setting: dict[str, Any], problem: str) -> None:
    with override_settings(DIGI=setting), pytest.raises(ImproperlyConfigured, match=problem):
        conf.get()


def test_old_links_open_where_rooms_have_numbers() -> None:
    with override_settings(DIGI=NOTED_CIRCLES | {"LEGACY_FERNET": ["x"]}):
        assert conf.get().legacy_fernet == ["x"]


@isolate_apps("django_store.project")
def test_keys_that_digi_does_not_take() -> None:
    class Long(models.Model):
        key: Any = models.CharField(max_length=HOST_KEY_LENGTH + 1, primary_key=True)

        class Meta:
            app_label = "project"

    class Binary(models.Model):
        key: Any = models.BinaryField(primary_key=True)

        class Meta:
            app_label = "project"

    with pytest.raises(ImproperlyConfigured, match=r"'ROOM_MODEL'.*project\.Long.*256 characters; Digi takes 255"):
        key_of("ROOM_MODEL", Long)
    with pytest.raises(ImproperlyConfigured, match=r"'ROOM_MODEL'.*a BinaryField; Digi takes whole numbers, UUIDs and"):
        key_of("ROOM_MODEL", Binary)
