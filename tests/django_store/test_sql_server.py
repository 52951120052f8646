"""Tables, models, rooms and checks on SQL Server, if `DIGI_MSSQL_URL` names one."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.db.models import Max, Min
from django.test import override_settings

import digi
from digi.django import checks, mssql, rooms
from digi.django.engine import get_engine, make_engine
from digi.django.models import Batch, Change, Head, Member, Message, Room
from digi.django.schema import TABLES, _SqlServer

ALICE, BOB = ("7", "alice"), ("8", "bob")


@pytest.fixture(name="sql_server")
def sql_server_with_an_engine(sql_server: str) -> Iterator[str]:
    """The process's engine ends with the test."""
    yield sql_server
    get_engine().close().result()


def tell(alias: str, statement: str) -> list[Any]:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def shape(alias: str) -> list[Any]:
    """What the tables are made of."""
    columns = tell(
        alias,
        "SELECT table_name, column_name, data_type, character_maximum_length, datetime_precision, is_nullable, "
        "collation_name, column_default FROM information_schema.columns "
        "WHERE table_name LIKE 'digi%' ORDER BY table_name, ordinal_position",
    )
    keys = tell(
        alias,
        "SELECT table_name, constraint_name, column_name FROM information_schema.key_column_usage "
        "WHERE table_name LIKE 'digi%' ORDER BY table_name, constraint_name, ordinal_position",
    )
    return [columns, keys, tell(alias, "SELECT id, version FROM digi_schema")]


def test_the_tables_are_the_native_stores(sql_server: str) -> None:
    by_django = shape(sql_server)
    assert {row[0] for row in by_django[0]} == {*TABLES, "digi_schema"}
    call_command("migrate", "digi", "zero", database=sql_server, verbosity=0)
    assert shape_is_gone(sql_server)
    with make_engine() as engine:
        room = engine.create_room([(*ALICE, "member")]).result()
        engine.post(room, *ALICE, "hello").result()
    assert shape(sql_server) == by_django
    # What a native store has made is taken over.
    call_command("migrate", "digi", database=sql_server, verbosity=0)
    assert shape(sql_server) == by_django
    assert Message.objects.using(sql_server).get().body == "hello"


def shape_is_gone(alias: str) -> bool:
    return tell(alias, "SELECT table_name FROM information_schema.tables WHERE table_name LIKE 'digi%'") == []


def test_the_tables_may_be_in_another_schema(sql_server: str) -> None:
    tell(sql_server, "CREATE SCHEMA elsewhere")
    setting = {"DATABASE": sql_server, "SQL_SERVER": {"schema": "elsewhere"}}
    with override_settings(DIGI=setting), connections[sql_server].cursor() as cursor:
        tables = _SqlServer(cursor)
        tables.apply({"mssql": 1})
        with make_engine() as engine:
            engine.create_room([(*ALICE, "member")], name="there").result()
        assert tell(sql_server, "SELECT name FROM elsewhere.digi_room") == [("there",)]
        assert tell(sql_server, "SELECT name FROM dbo.digi_room") == []
        tables.drop()
        left = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'elsewhere'"
        assert tell(sql_server, left) == []
    tell(sql_server, "DROP SCHEMA elsewhere")


def test_a_newer_schema_is_refused(sql_server: str) -> None:
    tell(sql_server, "UPDATE digi_schema SET version = 99")
    tell(sql_server, "DELETE FROM django_migrations WHERE app = 'digi'")
    try:
        with pytest.raises(digi.ConfigError, match="version 99"):
            call_command("migrate", "digi", database=sql_server, verbosity=0)
        with pytest.raises(digi.ConfigError, match="version 99"):
            make_engine().open().result()
    finally:
        tell(sql_server, "UPDATE digi_schema SET version = 1")
        call_command("migrate", "digi", database=sql_server, verbosity=0)


def test_models_read_what_the_engine_wrote(sql_server: str) -> None:
    with make_engine() as engine:
        room = engine.create_room([(*ALICE, "moderator"), (*BOB, "member")], name="Plans").result()
        text = "Grüße 👋🏽  "
        first = engine.post(room, *ALICE, text, client_id="one").result()
        second = engine.post(room, *BOB, "x" * 10_000).result()
        assert second.message_id is not None
        engine.edit(room, *BOB, second.message_id, "short").result()
        engine.delete(room, *ALICE, second.message_id).result()
        history = engine.history(room).result()
    messages = list(Message.objects.using(sql_server).order_by("id"))
    names = ("id", "sender_name", "client_id", "created_at", "edited_at", "deleted_at", "body")
    assert [[getattr(message, name) for name in names] for message in messages] == [
        [getattr(message, name) for name in names] for message in history
    ]
    assert (messages[0].body, messages[1].body) == (text, None)
    assert messages[0].pk == first.message_id
    written = messages[0].created_at
    found = Message.objects.using(sql_server)
    assert found.filter(created_at=written, edited_at=None).first() == messages[0]
    assert found.filter(created_at__gte=written).count() == 2
    assert not found.filter(created_at__lt=written).exists()
    assert found.filter(created_at__lte=2**63 - 1, deleted_at__isnull=False).count() == 1
    assert found.aggregate(Min("created_at"), Max("edited_at")) == {
        "created_at__min": written,
        "edited_at__max": messages[1].edited_at,
    }
    head = Head.objects.using(sql_server).get(pk=room)
    assert (head.last_seq, head.last_at >= written) == (4, True)
    assert Member.objects.using(sql_server).get(pk=(room, "8")).user_name == "bob"
    assert [change.kind for change in Change.objects.using(sql_server).order_by("seq")] == [1, 2]
    assert Batch.objects.using(sql_server).filter(at__gte=written).exists()
    assert Room.objects.using(sql_server).get().created_at <= written


@pytest.mark.usefixtures("sql_server")
def test_rooms_are_made_and_listed() -> None:
    first = rooms.create_room([ALICE, (*BOB, "moderator")], name="One", kind="direct")
    second = rooms.create_room([ALICE])
    posted = get_engine().post(first, *ALICE, "hello").result()
    entries = rooms.rooms_of("7")
    assert [(entry.id, entry.name, entry.kind, entry.role) for entry in entries] == [
        (first, "One", "direct", "member"),
        (second, "", "", "member"),
    ]
    assert entries[0].last_message is not None
    assert entries[0].last_message.pk == posted.message_id
    assert entries[0].last_at == entries[0].last_message.created_at
    assert entries[1].last_message is None
    assert rooms.rooms_of("nobody") == []


def test_members_come_and_go(sql_server: str) -> None:
    room = rooms.create_room([ALICE])
    assert rooms.add_member(room, BOB).kind == "joined"
    assert rooms.add_member(room, BOB).kind == "unchanged"
    assert rooms.add_member(room, BOB, "moderator").seq == 2
    assert rooms.remove_member(room, "8").kind == "left"
    assert rooms.remove_member(room, "8").kind == "unchanged"
    assert [member.user_name for member in Member.objects.using(sql_server).all()] == ["alice"]
    with pytest.raises(digi.NoSuchRoomError):
        rooms.add_member(room + 1, BOB)
    with pytest.raises(digi.RoomExistsError):
        rooms.create_room(id=room)


def test_rooms_are_not_part_of_the_callers_transaction(sql_server: str) -> None:
    with transaction.atomic(using=sql_server):
        room = rooms.create_room([ALICE])
        assert [entry.id for entry in rooms.rooms_of("7")] == [room]
        rooms.add_member(room, BOB)
        transaction.set_rollback(True, using=sql_server)
    assert [entry.id for entry in rooms.rooms_of("8")] == [room]


def test_restored_raises_every_room(sql_server: str) -> None:
    room = rooms.create_room([ALICE])
    before = Head.objects.using(sql_server).get(pk=room).epoch
    call_command("digi", "restored", stdout=io.StringIO())
    assert Head.objects.using(sql_server).get(pk=room).epoch > before


def test_the_database_is_as_it_should_be(sql_server: str) -> None:
    assert checks.check_sql_server(databases=[sql_server]) == []
    assert checks.check_sql_server(databases=["default"]) == []
    assert checks.check_sql_server() == []


def test_what_is_not_is_said(sql_server: str) -> None:
    name = mssql.ask(connections[sql_server]).name
    connections[sql_server].close()
    found = {}
    for setting, back in (
        ("READ_COMMITTED_SNAPSHOT OFF WITH ROLLBACK IMMEDIATE", "READ_COMMITTED_SNAPSHOT ON WITH ROLLBACK IMMEDIATE"),
        ("COMPATIBILITY_LEVEL = 120", "COMPATIBILITY_LEVEL = 140"),
    ):
        tell(sql_server, f"ALTER DATABASE [{name}] SET {setting}")
        try:
            for warning in checks.check_sql_server(databases=[sql_server]):
                found[warning.id] = warning.hint
        finally:
            tell(sql_server, f"ALTER DATABASE [{name}] SET {back}")
    assert found == {
        "digi.W001": f"ALTER DATABASE [{name}] SET READ_COMMITTED_SNAPSHOT ON WITH ROLLBACK IMMEDIATE",
        "digi.W002": f"ALTER DATABASE [{name}] SET COMPATIBILITY_LEVEL = 130 (or higher)",
    }


def test_a_schema_in_which_django_does_not_look_is_said(sql_server: str) -> None:
    with override_settings(DIGI={"DATABASE": sql_server, "SQL_SERVER": {"schema": "elsewhere"}}):
        [warning] = checks.check_sql_server(databases=[sql_server])
    assert warning.id == "digi.W003"
