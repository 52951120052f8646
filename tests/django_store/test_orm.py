"""Migrations, rooms, and a database that fails."""

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

import digi
from digi._digi import Batch, BatchId, Command, NewRoom
from digi.django import rooms
from digi.django.models import Member, Message, Room
from digi.django.schema import TABLES
from digi.django.store import FORGET_EVERY, KEPT_BATCHES, OrmStore
from django_store.conftest import use_file

NOW = 1_700_000_000_000
RUN_MIGRATE = r"run `manage\.py migrate`"


def batch(number: int, *commands: Command, now: int = NOW) -> Batch:
    return Batch(BatchId(2**64 - 1, number), commands, now=now)


def add(room: int, body: str, client_id: str | None = None) -> Command:
    return Command("add", room, "7", "alice", body=body, client_id=client_id)


def alice(store: OrmStore) -> int:
    return store.create_room(NewRoom([("7", "alice", "member")]), NOW)


# Migrations.


@pytest.mark.usefixtures("sqlite")
def test_models_and_migrations_agree() -> None:
    call_command("makemigrations", "digi", check=True, dry_run=True, verbosity=0)


def test_the_tables_are_the_native_stores(sqlite: str, tmp_path: Path) -> None:
    with digi.Engine("a secret of at least thirty-two bytes", f"sqlite:{tmp_path / 'native.db'}"):
        pass
    schemas = []
    for path in (connections[sqlite].settings_dict["NAME"], tmp_path / "native.db"):
        use_file(path)
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "SELECT name, sql FROM sqlite_master WHERE name LIKE 'digi\\_%' ESCAPE '\\'"
                " AND tbl_name NOT IN ('digi_log', 'digi_post', 'digi_room_key', 'digi_journal', 'digi_placed')"
                " ORDER BY name"
            )
            schemas.append(cursor.fetchall())
    assert schemas[0] == schemas[1]
    assert [name for name, *_ in schemas[0]] == sorted(TABLES)


@pytest.mark.usefixtures("sqlite")
def test_a_native_file_is_taken_over(tmp_path: Path) -> None:
    with digi.Engine("a secret of at least thirty-two bytes", f"sqlite:{tmp_path / 'native.db'}") as engine:
        room = engine.create_room([("7", "alice", "member")]).result()
        engine.post(room, "7", "alice", "hello").result()
    del engine
    use_file(tmp_path / "native.db")
    call_command("migrate", verbosity=0)
    assert [message.body for message in OrmStore().history(room, None, 10).messages] == ["hello"]
    assert Message.objects.get().sender_name == "alice"


@pytest.mark.usefixtures("sqlite")
def test_what_a_native_store_has_not_placed_is_not_passed_over(tmp_path: Path) -> None:
    use_file(tmp_path / "native.db")
    call_command("migrate", verbosity=0)
    connections["default"].close()
    with digi.Engine("a secret of at least thirty-two bytes", f"sqlite:{tmp_path / 'native.db'}"):
        pass
    store = OrmStore()
    store.migrate()
    room = store.create_room(NewRoom([("7", "alice", "member")]), NOW)
    with connections["default"].cursor() as cursor:
        cursor.execute("INSERT INTO digi_journal (n, batch) VALUES (9, x'01')")
    for use in (store.migrate, lambda: store.raise_epoch(room, (1, 1), NOW)):
        with pytest.raises(digi.ConfigError, match="left messages in its journal"):
            use()


@pytest.mark.usefixtures("sqlite")
def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    use_file(tmp_path / "newer.db")
    with connections["default"].cursor() as cursor:
        cursor.execute("PRAGMA user_version = 99")
    with pytest.raises(digi.ConfigError, match="version 99"):
        call_command("migrate", verbosity=0)


def test_the_tables_go_and_come_back(database: str) -> None:
    call_command("migrate", "digi", "zero", database=database, verbosity=0)
    assert not set(TABLES) & set(connections[database].introspection.table_names())
    with pytest.raises(digi.ConfigError, match=RUN_MIGRATE):
        OrmStore(database).migrate()
    with pytest.raises(digi.ConfigError, match=RUN_MIGRATE):
        OrmStore(database).heads([1])
    call_command("migrate", "digi", database=database, verbosity=0)
    OrmStore(database).migrate()
    assert Room.objects.using(database).count() == 0


# Batches.


def test_a_batch_is_few_statements_whatever_its_size(database: str) -> None:
    store = OrmStore(database)
    room = alice(store)
    store.apply(batch(1, add(room, "first", "id")))
    counts = []
    for number, size in ((2, 1), (3, 80)):
        with CaptureQueriesContext(connections[database]) as queries:
            store.apply(batch(number, *(add(room, "x" * 1_000) for _ in range(size))))
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 8


def test_old_batches_are_forgotten(database: str) -> None:
    store = OrmStore(database)
    room = alice(store)
    for number in range(1, 5):
        store.apply(batch(number, add(room, str(number))))
    far = (KEPT_BATCHES // FORGET_EVERY + 2) * FORGET_EVERY
    store.apply(batch(far, add(room, "later")))
    with connections[database].cursor() as cursor:
        cursor.execute("SELECT number FROM digi_batch")
        assert list(cursor.fetchall()) == [(far,)]


def test_a_batch_waits_for_the_same_batch_elsewhere(postgresql: str) -> None:
    """An earlier try that is still on its way: its repeat finds what became of it."""
    store = OrmStore(postgresql)
    room = alice(store)
    again = batch(1, add(room, "once"))
    answers: list[Any] = []

    def repeat() -> None:
        answers.append(OrmStore(postgresql).apply(again))
        connections[postgresql].close()

    thread = threading.Thread(target=repeat)
    with transaction.atomic(using=postgresql):
        first = store.apply(again)
        thread.start()
        while not is_somebody_waiting(postgresql):
            pass
    thread.join()
    assert answers == [first]
    assert [message.body for message in store.history(room, None, 10).messages] == ["once"]


def is_somebody_waiting(alias: str) -> bool:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def test_a_batch_that_had_to_give_way_is_done_again(postgresql: str) -> None:
    """A view may lock rooms in any order."""
    store = OrmStore(postgresql)
    first, second = alice(store), alice(store)
    outcomes: list[Any] = []

    def write() -> None:
        outcomes.extend(OrmStore(postgresql).apply(batch(1, add(first, "one"), add(second, "two"))).outcomes)
        connections[postgresql].close()

    thread = threading.Thread(target=write)
    with transaction.atomic(using=postgresql):
        with connections[postgresql].cursor() as cursor:
            # The other one looks for deadlocks, and gives way.
            cursor.execute("SET LOCAL deadlock_timeout = '60s'")
        store.apply(batch(2, add(second, "view")))
        thread.start()
        while not is_somebody_waiting(postgresql):
            pass
        store.apply(batch(3, add(first, "view")))
    thread.join()
    assert [outcome.seq for outcome in outcomes] == [2, 2]


# A database that fails.


def end_connections(alias: str) -> None:
    """As a restart of the server does, or a firewall that forgets."""
    admin = connections.create_connection(alias)
    with admin.cursor() as cursor:
        if admin.vendor == "postgresql":
            cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        else:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = 'digi' AND id <> connection_id()")
            for (process,) in cursor.fetchall():
                cursor.execute(f"KILL {process}")
    admin.close()


@pytest.fixture(params=["postgresql", "mariadb"])
def remote(request: pytest.FixtureRequest) -> str:
    """The alias of a database behind a network."""
    alias: str = request.getfixturevalue(request.param)
    return alias


def test_a_connection_that_was_closed_in_between_is_made_again(remote: str) -> None:
    store = OrmStore(remote)
    room = alice(store)
    for number in range(1, 3):
        end_connections(remote)
        [outcome] = store.apply(batch(number, add(room, "hello"))).outcomes
        assert outcome.seq == number
        end_connections(remote)
        assert store.heads([room])[0][2] == number


def fail_to_commit(monkeypatch: pytest.MonkeyPatch, alias: str, after: bool) -> None:
    """Ends the server's side of the connection around its next commit."""
    connection: Any = connections[alias]
    commit = connection._commit

    def commit_and_fail() -> None:
        monkeypatch.setattr(connection, "_commit", commit)
        if after:
            commit()
        end_connections(alias)
        commit()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    monkeypatch.setattr(connection, "_commit", commit_and_fail)


@pytest.mark.parametrize("after", [False, True])
def test_a_lost_answer_to_a_commit_is_unknown(remote: str, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    store = OrmStore(remote)
    room = alice(store)
    again = batch(1, add(room, "hello"))
    fail_to_commit(monkeypatch, remote, after)
    with pytest.raises(digi.StoreUnknownError):
        store.apply(again)
    [outcome] = store.apply(again).outcomes
    assert (outcome.kind, outcome.seq) == ("added", 1)
    assert [message.body for message in store.history(room, None, 10).messages] == ["hello"]


def test_what_the_database_does_not_take_is_rejected(postgresql: str) -> None:
    store = OrmStore(postgresql)
    with pytest.raises(digi.StoreRejectedError) as raised:
        store.create_room(NewRoom([("7" * 500, "secret name", "member")]), NOW)
    assert "secret" not in str(raised.value)
    assert store.create_room(NewRoom([]), NOW) == 1


def test_a_database_that_is_not_there_is_unavailable(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connections[postgresql].close()
    monkeypatch.setitem(connections[postgresql].settings_dict, "PORT", 1)
    with pytest.raises(digi.StoreUnavailableError):
        OrmStore(postgresql).heads([1])


def test_a_locked_file_is_unavailable(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    monkeypatch.setitem(connections.settings["default"], "OPTIONS", {"timeout": 0.01})
    use_file(Path(connections[sqlite].settings_dict["NAME"]))
    store = OrmStore(sqlite)
    room = alice(store)
    other = sqlite3.connect(connections[sqlite].settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(digi.StoreUnavailableError, match="locked"):
        store.apply(batch(1, add(room, "hello")))
    assert store.heads([room])[0][2] == 0
    other.execute("ROLLBACK")
    other.close()
    assert store.apply(batch(1, add(room, "hello"))).outcomes[0].seq == 1


def test_commits_reach_the_disk(sqlite: str) -> None:
    store = OrmStore(sqlite)
    store.raise_all(NOW)
    with connections[sqlite].cursor() as cursor:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2)):
            cursor.execute(f"PRAGMA {pragma}")
            assert cursor.fetchone() == (value,)


def test_the_marker_changes_with_the_writes_of_others(sqlite: str) -> None:
    store = OrmStore(sqlite)
    room = alice(store)
    before = store.change_marker()
    store.apply(batch(1, add(room, "own")))
    assert store.change_marker() == before

    def write() -> None:
        OrmStore(sqlite).apply(batch(2, add(room, "another's")))
        connections[sqlite].close()

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert store.change_marker() != before
    between = store.change_marker()
    store.release()
    assert store.change_marker() != between


def test_a_database_in_memory_is_refused(sqlite: str) -> None:
    use_file(Path(":memory:"))
    with pytest.raises(digi.ConfigError, match="is in memory"):
        OrmStore(sqlite).migrate()


# Rooms.


@pytest.fixture
def people(sqlite: str) -> Iterator[tuple[Any, Any]]:
    with override_settings(DIGI={"DATABASE": sqlite}):
        manager: Any = get_user_model().objects
        yield manager.create_user("alice"), manager.create_user("bob")


def test_rooms_are_made_and_listed(people: tuple[Any, Any]) -> None:
    alice, bob = people
    first = rooms.create_room([alice, (str(bob.pk), "Bob", "moderator")], name="One", kind="direct")
    second = rooms.create_room([alice])
    time_of = rooms._now()
    store = OrmStore()
    store.apply(
        Batch(BatchId(1, 1), [Command("add", first, str(alice.pk), "alice", body="hello")], now=time_of + 5_000)
    )
    with CaptureQueriesContext(connections["default"]) as queries:
        entries = rooms.rooms_of(alice)
    assert len(queries) == 2
    assert [(entry.id, entry.name, entry.kind, entry.role) for entry in entries] == [
        (first, "One", "direct", "member"),
        (second, "", "", "member"),
    ]
    assert entries[0].last_message is not None
    assert entries[0].last_message.body == "hello"
    assert entries[1].last_message is None
    assert [entry.role for entry in rooms.rooms_of(str(bob.pk))] == ["moderator"]
    assert rooms.rooms_of("nobody") == []


def test_members_come_and_go(people: tuple[Any, Any]) -> None:
    alice, bob = people
    room = rooms.create_room([alice])
    assert rooms.add_member(room, bob).kind == "joined"
    assert rooms.add_member(room, bob).kind == "unchanged"
    assert rooms.add_member(room, bob, "moderator").seq == 2
    assert rooms.remove_member(room, bob).kind == "left"
    assert rooms.remove_member(room, str(bob.pk)).kind == "unchanged"
    assert [member.user_name for member in Member.objects.all()] == ["alice"]
    with pytest.raises(digi.NoSuchRoomError):
        rooms.add_member(room + 1, bob)
    with pytest.raises(digi.RoomExistsError):
        rooms.create_room(id=room)


def test_what_is_rolled_back_has_not_been(people: tuple[Any, Any]) -> None:
    alice, bob = people
    room = rooms.create_room([alice])
    with transaction.atomic():
        rooms.add_member(room, bob)
        transaction.set_rollback(True)
    assert rooms.add_member(room, bob).seq == 1
    with transaction.atomic():
        rooms.remove_member(room, bob)
        with pytest.raises(digi.NoSuchRoomError):
            rooms.remove_member(room + 1, bob)
        assert rooms.remove_member(room, alice).seq == 3
        transaction.set_rollback(True)
    assert OrmStore().heads([room])[0][2] == 1


def test_an_engine_hears_of_what_a_view_did(people: tuple[Any, Any]) -> None:
    from digi.django.engine import get_cipher, make_engine

    alice, bob = people
    room = rooms.create_room([alice, bob])
    with make_engine() as engine:
        session = engine.connect(get_cipher().seal("room", room), str(bob.pk), "bob").result()
        rooms.remove_member(room, bob)
        for _ in session:
            pass
        assert session.close_code == 4502


# Commands.


@pytest.mark.usefixtures("people")
def test_the_demo_is_made_once() -> None:
    from digi.django.engine import get_cipher

    with pytest.raises(CommandError, match="DEBUG is off"):
        call_command("digi", "demo")
    texts = []
    for options in ({"force": True}, {"force": True}):
        out = io.StringIO()
        call_command("digi", "demo", stdout=out, **options)
        texts.append(out.getvalue())
    assert texts[0] == texts[1]
    assert Room.objects.count() == 3
    token = texts[0].splitlines()[1].split("/ws/chat/")[1].rstrip("/")
    assert Room.objects.get(pk=get_cipher().open("room", token)).name == "Alice and Bob"


def test_restored_raises_every_room(people: tuple[Any, Any]) -> None:
    room = rooms.create_room([people[0]])
    [(_, before, _)] = OrmStore().heads([room])
    until = time.monotonic() + 5
    while rooms._now() <= before and time.monotonic() < until:
        pass
    call_command("digi", "restored", stdout=io.StringIO())
    assert OrmStore().heads([room])[0][1] > before
