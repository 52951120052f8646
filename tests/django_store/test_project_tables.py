"""Digi over tables that a project had before, and that others go on writing to."""

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import override_settings

import digi
from digi._digi import Batch, BatchId, Command
from digi.django import conf, rooms
from digi.django.adoption import RECENT, RECENT_OF_ALL
from digi.django.engine import get_engine
from digi.django.mapping import look_up
from digi.django.models import Log
from digi.django.store import OrmStore
from django_store.project.models import Letter, Pair

NOW = 1_700_000_000_000
PAIRS = {
    "ROOM_MODEL": "project.Pair",
    "MEMBERS": ["one", "two"],
    "MESSAGE_MODEL": "project.Letter",
    "FIELDS": {"created_at": "written", "edited_at": "changed", "deleted_at": "removed"},
}
PLAIN = PAIRS | {"FIELDS": {}}


class Chat:
    """Alice's and Bob's letters."""

    def __init__(self, using: str, setting: dict[str, Any] = PAIRS) -> None:
        self.using = using
        users = get_user_model().objects.db_manager(using)
        self.alice, self.bob = (users.get_or_create(username=name)[0] for name in ("alice", "bob"))
        self.pair = Pair.objects.using(using).create(one=self.alice, two=self.bob)
        self.store = OrmStore(using, look_up(setting))
        self.batches = 0

    @property
    def room(self) -> int:
        return int(self.pair.pk)

    def letter(self, words: str) -> Letter:
        """By somebody who knows nothing of Digi."""
        return Letter.objects.using(self.using).create(pair=self.pair, writer=self.bob, words=words)

    def apply(self, *commands: Command) -> list[digi._digi.Outcome]:
        self.batches += 1
        return self.store.apply(Batch(BatchId(1, self.batches), commands, now=NOW)).outcomes

    def say(self, words: str, client_id: str | None = None) -> Command:
        return Command("add", self.room, str(self.alice.pk), "alice", body=words, client_id=client_id)

    def change(self, kind: Any, message: int, user: Any, words: str | None = None) -> Command:
        return Command(kind, self.room, str(user.pk), user.get_username(), message_id=message, body=words)

    def bodies(self) -> list[str | None]:
        return [message.body for message in self.store.history(self.room, None, 100).messages]


@pytest.fixture
def chat(database: str) -> Iterator[Chat]:
    yield Chat(database)
    get_user_model().objects.db_manager(database).all().delete()


def test_messages_are_rows_of_the_projects(chat: Chat) -> None:
    (added,) = chat.apply(chat.say("hello"))
    letter = Letter.objects.using(chat.using).get()
    assert added.message is not None
    assert (added.message.id, added.message.pos, letter.words, letter.writer) == (letter.pk, 1, "hello", chat.alice)
    (edited, refused) = chat.apply(
        chat.change("edit", letter.pk, chat.alice, "hello again"), chat.change("edit", letter.pk, chat.bob, "mine now")
    )
    letter.refresh_from_db()
    assert (edited.kind, edited.message_id, refused.code) == ("edited", letter.pk, "not_sender")
    assert (letter.words, letter.changed is None, letter.removed) == ("hello again", False, None)
    (deleted,) = chat.apply(chat.change("delete", letter.pk, chat.alice))
    letter.refresh_from_db()
    assert (deleted.kind, letter.removed is None) == ("deleted", False)
    assert chat.bodies() == [None]


def test_without_a_column_for_it_a_deleted_message_has_no_row(database: str) -> None:
    chat = Chat(database, PLAIN)
    (added,) = chat.apply(chat.say("hello"))
    assert added.message_id is not None
    (deleted,) = chat.apply(chat.change("delete", added.message_id, chat.alice))
    assert not Letter.objects.using(database).exists()
    # Who was away hears of it all the same.
    (row,) = chat.store.changes(chat.room, 0, 10).rows
    assert row.message is not None
    assert (row.seq, row.message.id, row.message.body, row.message.sender_name) == (2, added.message_id, None, "alice")
    (added, deleted) = chat.apply(chat.say("again"), chat.say("and again", "id"))
    (again,) = chat.apply(chat.say("and again", "id"))
    assert (again.kind, again.message_id, again.pos) == ("duplicate", deleted.message_id, 4)


def test_who_is_in_the_room_is_the_projects_to_say(chat: Chat) -> None:
    carol = get_user_model().objects.db_manager(chat.using).create(username="carol")
    assert [chat.store.member(chat.room, str(user.pk)).role for user in (chat.alice, chat.bob, carol)] == [
        "member",
        "member",
        None,
    ]
    (refused,) = chat.apply(Command("add", chat.room, str(carol.pk), "carol", body="let me in"))
    assert refused.code == "not_a_member"
    Pair.objects.using(chat.using).update(two=carol)
    (added,) = chat.apply(Command("add", chat.room, str(carol.pk), "carol", body="thank you"))
    assert added.kind == "added"
    with pytest.raises(digi.StoreRejectedError, match="is the project's to say"):
        chat.apply(Command("remove_member", chat.room, "", is_host=True, member=str(carol.pk)))
    with pytest.raises(digi.NoSuchRoomError):
        chat.store.member(chat.room + 1, str(carol.pk))


def test_what_was_there_before_is_numbered_when_a_room_is_met(chat: Chat) -> None:
    letters = [chat.letter(f"letter {number}") for number in range(5)]
    page = chat.store.history(chat.room, None, 3)
    assert [(message.pos, message.body, message.id) for message in page.messages] == [
        (number + 1, f"letter {number}", letters[number].pk) for number in (2, 3, 4)
    ]
    assert {message.sender_name for message in page.messages} == {"bob"}
    assert [message.created_at for message in page.messages] == [
        int(letter.written.timestamp() * 1000) for letter in letters[2:]
    ]


def test_what_others_write_gets_a_number(chat: Chat) -> None:
    chat.apply(chat.say("one"))
    chat.letter("two")
    # When somebody enters ...
    assert chat.store.member(chat.room, str(chat.bob.pk)).head.last_seq == 2
    chat.letter("three")
    # ... when rooms are compared ...
    assert chat.store.heads([chat.room])[0][2] == 3
    letter = chat.letter("four")
    # ... and when it is changed.
    (edited,) = chat.apply(chat.change("edit", letter.pk, chat.bob, "vier"))
    assert (edited.seq, edited.message and edited.message.pos) == (5, 4)
    chat.letter("five")
    (added,) = chat.apply(chat.say("six"))
    assert chat.store.heads([chat.room])[0][2] == 7
    assert chat.bodies() == ["one", "two", "three", "vier", "six", "five"]
    # A row that was inserted early and committed late: its key is not the highest.
    Log.objects.using(chat.using).filter(message_id=letter.pk).delete()
    assert added.message_id is not None
    assert chat.store.heads([chat.room])[0][2] == 8


def test_what_others_delete_is_gone(chat: Chat) -> None:
    letters = [chat.letter(f"letter {number}") for number in range(6)]
    assert len(chat.bodies()) == 6
    Letter.objects.using(chat.using).filter(pk__in=[letter.pk for letter in letters[2:5]]).delete()
    # A page is as long as it can be.
    page = chat.store.history(chat.room, None, 3)
    assert [message.pos for message in page.messages] == [1, 2, 6]
    (refused,) = chat.apply(chat.change("edit", letters[3].pk, chat.bob, "still there?"))
    assert refused.code == "no_such_message"


def test_a_message_of_another_room_is_none_of_this(chat: Chat) -> None:
    other = Pair.objects.using(chat.using).create(one=chat.bob, two=chat.bob)
    letter = Letter.objects.using(chat.using).create(pair=other, writer=chat.alice, words="elsewhere")
    for _ in range(2):
        (refused,) = chat.apply(chat.change("edit", letter.pk, chat.alice, "here"))
        assert refused.code == "no_such_message"
        chat.store.member(other.pk, str(chat.bob.pk))
    letter.refresh_from_db()
    assert letter.words == "elsewhere"


def test_adopt_numbers_the_whole_past(sqlite: str) -> None:
    chat = Chat(sqlite)
    assert chat.bodies() == []
    some = [Letter(pair=chat.pair, writer=chat.bob, words=str(number)) for number in range(RECENT_OF_ALL + RECENT + 1)]
    Letter.objects.bulk_create(some)
    Pair.objects.create(one=chat.bob, two=chat.bob)
    with override_settings(DIGI=PAIRS):
        out = io.StringIO()
        call_command("digi", "adopt", stdout=out)
        assert out.getvalue() == f"{len(some)} messages have got their numbers.\n"
        out = io.StringIO()
        call_command("digi", "adopt", stdout=out)
        assert out.getvalue() == "0 messages have got their numbers.\n"
    with pytest.raises(CommandError, match="MESSAGE_MODEL"):
        call_command("digi", "adopt")
    assert chat.bodies()[-1] == str(len(some) - 1)


def test_an_engine_on_the_projects_tables(sqlite: str) -> None:
    chat = Chat(sqlite)
    chat.letter("before Digi")

    async def main() -> None:
        async with get_engine() as engine:
            token = engine.cipher.seal("room", chat.room)
            async with await engine.connect(token, str(chat.alice.pk), "alice", after=f"{NOW}.0") as session:
                await session.receive(json.dumps({"message": "hello", "client_id": "1"}))
                seen: list[dict[str, Any]] = []
                wanted = {"before Digi", "hello", "by hand"}
                async for frames in session:
                    seen += [json.loads(frame) for frame in frames]
                    if any(frame["type"] == "ack" for frame in seen):
                        await asyncio.to_thread(chat.letter, "by hand")
                        wanted.discard("hello")
                    texts = {frame.get("message") for frame in seen}
                    texts |= {message["message"] for frame in seen for message in frame.get("messages", ())}
                    if wanted <= texts:
                        break
            ids = [engine.cipher.open("message", frame["message_id"]) for frame in seen if frame["type"] == "add"]
            assert ids == sorted(ids)
            keys = await asyncio.to_thread(lambda: set(Letter.objects.values_list("pk", flat=True)))
            assert set(ids) <= keys

    with override_settings(DIGI=PAIRS):
        asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"ROOM_MODEL": "project.Pair"}, "'MEMBERS'.*needed beside ROOM_MODEL"),
        (PAIRS | {"ROOM_MODEL": "Pair"}, "'ROOM_MODEL'.*'application.Model'"),
        (PAIRS | {"MESSAGE_MODEL": "project.Nothing"}, "'MESSAGE_MODEL'.*Nothing"),
        (PAIRS | {"MEMBERS": ["one", "three"]}, "'MEMBERS'.*three"),
        (PAIRS | {"MEMBERS": {"model": "project.Membership"}}, "'MEMBERS'.*'user'"),
        (PAIRS | {"FIELDS": {"sender": "author"}}, "'FIELDS'.*author"),
        (PAIRS | {"FIELDS": {"colour": "red"}}, "'FIELDS'.*room, sender"),
        (PAIRS | {"FIELDS": {"edited_at": "words"}}, "'edited_at'.*DateTimeField"),
        (PAIRS | {"MESSAGE_MODEL": "project.Post"}, "'room'.*which field"),
        (PAIRS | {"STORE": "memory:"}, "'STORE'.*\"orm\""),
        (PAIRS | {"DATABASE": "sql_server"}, "SQL Server"),
    ],
)
def test_wrong_mappings(setting: dict[str, Any], problem: str) -> None:
    with override_settings(DIGI=setting), pytest.raises(ImproperlyConfigured, match=problem):
        conf.get()


class Router:
    """As a project has one that keeps an application's tables elsewhere."""

    def db_for_write(self, model: Any, **_: Any) -> str | None:
        return "postgresql" if model._meta.app_label == "project" else None


def test_the_projects_routers_say_which_database() -> None:
    with override_settings(DATABASE_ROUTERS=[Router()]):
        with override_settings(DIGI=PAIRS):
            assert conf.get().database == "postgresql"
        with override_settings(DIGI=PAIRS | {"DATABASE": "mariadb"}):
            assert conf.get().database == "mariadb"
        with override_settings(DIGI={}):
            assert conf.get().database == "default"


def test_a_field_to_many_users_is_a_membership() -> None:
    found = look_up(
        {
            "ROOM_MODEL": "auth.Group",
            "MEMBERS": {"model": "auth.User_groups", "room": "group", "user": "user"},
            "MESSAGE_MODEL": "project.Letter",
            "FIELDS": {"room": "pair"},
        }
    )
    assert found is not None
    assert found.membership is not None


@pytest.mark.usefixtures("sqlite")
def test_the_list_of_rooms_is_the_projects() -> None:
    with override_settings(DIGI=PAIRS), pytest.raises(ImproperlyConfigured, match="their list"):
        rooms.rooms_of("1")
    assert connections["default"].vendor == "sqlite"
