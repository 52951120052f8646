"""Rooms and messages in the admin, and pages without browsers."""

import time
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings

import digi
from digi.django import delete, testing
from digi.django.engine import get_engine
from digi.django.rooms import create_room
from digi.django.testing import ended_engine, page


@pytest.fixture
def room(sqlite: str) -> Iterator[int]:
    """A room of alice and bob, who have said something."""
    assert sqlite == "default"
    alice, bob = (User.objects.create_user(name) for name in ("alice", "bob"))
    with ended_engine():
        room = create_room([alice, bob], name="Plans", kind="team")
        with page(room, alice) as hers, page(room, bob) as his:
            hers.send(message="a secret")
            his.send(message="another one", client_id="1")
            assert his.receive("ack")["client_id"] == "1"
            gone = hers.receive("add")["message_id"]
        delete(get_engine().cipher.open("message", gone))
        yield room


def shown(path: str, **setting: object) -> str:
    browser = Client()
    browser.force_login(User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)[0])
    with override_settings(DIGI=setting):
        answer = browser.get(f"/admin/digi/{path}")
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_admin_shows_and_changes_nothing(room: int) -> None:
    rooms = shown("room/")
    assert ("Plans" in rooms, "team" in rooms, "/digi/room/add/" in rooms) == (True, True, False)
    message = room * 2**32 + 2
    for path in ("message/", f"message/{message}/change/"):
        assert ("bob" in shown(path), "another one" in shown(path)) == (True, False)
        assert "another one" in shown(path, ADMIN_BODIES=True)
        for word in ('name="_save"', "deletelink", "/digi/message/add/"):
            assert word not in shown(path)
    assert "bob" not in shown("message/?deleted=yes")
    assert "alice" not in shown("message/?deleted=no")
    # What isn't shown isn't found either.
    assert "another one" in shown("message/?q=another", ADMIN_BODIES=True)
    assert "bob" not in shown("message/?q=another")
    assert "bob" in shown(f"message/?q={room}")


def test_a_page_says_what_is_wrong(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    carol = User.objects.create_user("carol")
    with pytest.raises(digi.ConnectionRefusedByDigi, match="not_a_member"), page(room, carol):
        pass
    monkeypatch.setattr(testing, "TIMEOUT", 0.1)
    with page(room, User.objects.get(username="bob")) as his:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            his.receive()
        assert time.monotonic() - begun < 5
        get_engine().kick(str(User.objects.get(username="bob").pk))
        monkeypatch.setattr(testing, "TIMEOUT", 10)
        with pytest.raises(EOFError, match="closed with 4504"):
            his.receive()
