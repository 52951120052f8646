"""Keys of several columns: Django 5.2's own, or before that Digi's."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import FieldError, ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connections
from django.db.models.signals import pre_delete

from digi.django.models import Batch, Change, Log, Member

SOME = [(1, "7"), (1, "8"), (2, "7")]


@pytest.fixture
def members(database: str) -> str:
    """A database with some of them."""
    for room, user in SOME:
        Member(room_id=room, user_key=user, user_name="before", role=0, joined_at=0).save(using=database)
    return database


@pytest.fixture
def listener() -> Iterator[list[Any]]:
    """A project that wants to hear of everything that is deleted: then Django deletes by primary key."""
    heard: list[Any] = []

    def hear(instance: Any, **_: Any) -> None:
        heard.append(instance.pk)

    pre_delete.connect(hear)
    yield heard
    pre_delete.disconnect(hear)


def all_of(using: str) -> list[Any]:
    return list(Member.objects.using(using).order_by("pk").values_list("room_id", "user_key", "user_name"))


def test_rows_are_found_by_their_keys(members: str) -> None:
    rows = Member.objects.using(members)
    one = rows.get(pk=(1, "8"))
    assert (one.pk, one.room_id, one.user_key) == ((1, "8"), 1, "8")
    assert [rows.filter(pk=key).exists() for key in ((1, "8"), (2, "8"), (1, None))] == [True, False, False]
    assert [row.pk for row in rows.filter(pk__in=[(2, "7"), (1, "8"), (3, "9")]).order_by("pk")] == [(1, "8"), (2, "7")]
    assert not rows.filter(pk__in=[]).exists()
    assert rows.exclude(pk__in=SOME[:2]).get().pk == SOME[2]
    assert rows.in_bulk([(1, "7")])[1, "7"].user_key == "7"
    many = [(room, "7") for room in range(1_500)]
    assert rows.filter(pk__in=many[:400]).count() == 2
    first, last = rows.first(), rows.last()
    assert first is not None
    assert last is not None
    assert [first.pk, last.pk] == [SOME[0], SOME[-1]]
    assert [row.pk for row in rows.order_by("-pk")] == SOME[::-1]
    Member.objects.using(members).filter(pk=(1, "8")).update(user_name="since")
    one.refresh_from_db()
    assert one.user_name == "since"
    for wrong in (1, "17", (1,), (1, "7", 2)):
        with pytest.raises((ValueError, TypeError, FieldError)):
            rows.filter(pk=wrong).exists()


def test_saving_changes_one_row(members: str) -> None:
    one = Member.objects.using(members).get(pk=(1, "7"))
    one.user_name = "after"
    one.save()
    one.save(update_fields=["user_name"])
    assert all_of(members) == [(1, "7", "after"), (1, "8", "before"), (2, "7", "before")]
    Member(room_id=1, user_key="9", user_name="new", role=0, joined_at=0).save(using=members)
    assert len(all_of(members)) == 4
    rows = list(Member.objects.using(members).filter(room_id=1))
    for row in rows:
        row.user_name = f"name {row.user_key}"
    Member.objects.using(members).bulk_update(rows, ["user_name"])
    assert [name for _, _, name in all_of(members)] == ["name 7", "name 8", "name 9", "before"]
    again = Member(room_id=1, user_key="7", user_name="", role=0, joined_at=0)
    with pytest.raises(IntegrityError):
        again.save(using=members, force_insert=True)


def test_a_row_never_comes_without_its_key(members: str) -> None:
    rows = Member.objects.using(members)
    for some in (rows.only("user_name"), rows.only("pk"), rows.only("room_id"), rows.defer("user_name")):
        one = some.get(user_key="8")
        assert one.pk == (1, "8")
        one.user_name = "after"
        one.save(update_fields=["user_name"])
        assert all_of(members) == [(1, "7", "before"), (1, "8", "after"), (2, "7", "before")]
    made = Member(pk=(3, "9"), user_name="new", role=0, joined_at=0)
    assert (made.room_id, made.user_key) == (3, "9")
    made.save(using=members)
    assert rows.get(pk=(3, "9")).user_name == "new"


def test_deleting_one_row_leaves_its_neighbours(members: str) -> None:
    one = Member.objects.using(members).get(pk=(1, "7"))
    assert one.delete()[0] == 1
    assert one.pk == (None, None)
    assert [key for *key, _ in all_of(members)] == [[1, "8"], [2, "7"]]
    Member.objects.using(members).filter(user_key="8").delete()
    assert [key for *key, _ in all_of(members)] == [[2, "7"]]


def test_so_does_deleting_where_somebody_listens(members: str, listener: list[Any]) -> None:
    assert Member.objects.using(members).filter(user_key="7").delete()[0] == 2
    Member.objects.using(members).get().delete()
    assert all_of(members) == []
    assert sorted(listener) == [(1, "7"), (1, "8"), (2, "7")]


@pytest.mark.usefixtures("sqlite")
def test_a_fixture_brings_every_row_back(tmp_path: Path) -> None:
    for room, user in SOME:
        Member.objects.create(room_id=room, user_key=user, user_name="é", role=0, joined_at=0)
    with pytest.raises(ValidationError, match="already exists"):
        Member(room_id=1, user_key="7").validate_unique()
    Member(room_id=1, user_key="9").validate_unique()
    Batch.objects.create(node=-1, number=2, at=3)
    path = tmp_path / "rows.json"
    call_command("dumpdata", "digi", output=str(path))
    for _ in range(2):
        call_command("loaddata", str(path), stdout=StringIO())
        assert [key for *key, _ in all_of("default")] == [list(key) for key in SOME]
    Member.objects.all().delete()
    call_command("loaddata", str(path), stdout=StringIO())
    assert [name for *_, name in all_of("default")] == ["é"] * 3
    assert Batch.objects.get().pk == (-1, 2)


def test_the_database_has_the_keys(database: str) -> None:
    connection = connections[database]
    with connection.cursor() as cursor:
        for model in (Member, Change, Batch, Log):
            found = connection.introspection.get_constraints(cursor, model._meta.db_table)
            [columns] = [constraint["columns"] for constraint in found.values() if constraint["primary_key"]]
            names = [field.name for field in model._meta.concrete_fields]
            assert columns == names[:2]
        cursor.execute(
            "INSERT INTO digi_member (room_id, user_key, user_name, role, joined_at) VALUES (1, '7', '', 0, 0)"
        )
    assert Member.objects.using(database).get().read_seq == 0
