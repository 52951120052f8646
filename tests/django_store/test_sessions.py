"""Who a connection is, out of Django's session cookie, with every session backend that Django has."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.test import override_settings
from django.utils.module_loading import import_string

import digi
from digi.django import logins
from digi.django.asgi import session_user
from digi.django.engine import get_engine
from digi.django.rooms import create_room

BACKENDS = ["db", "cache", "cached_db", "file", "signed_cookies"]


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, sqlite: str, tmp_path: Path) -> Iterator[type[SessionBase]]:
    assert sqlite == "default"
    engine = f"django.contrib.sessions.backends.{request.param}"
    with override_settings(SESSION_ENGINE=engine, SESSION_FILE_PATH=str(tmp_path)):
        yield import_string(f"{engine}.SessionStore")


def log_in(store: type[SessionBase], user: User) -> SessionBase:
    """What Django's log-in leaves in a session."""
    session = store()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return session


def who(*cookies: str) -> tuple[str, str] | None:
    headers = [(b"host", b"chat.example"), *((b"Cookie", cookie.encode()) for cookie in cookies)]
    found = asyncio.run(session_user({"headers": headers}))
    return None if found is None else (found[0], found[1])


def test_the_user_of_the_session(store: type[SessionBase]) -> None:
    user = User.objects.create_user("alice", password="secret")
    session = log_in(store, user)
    assert who(f"theme=dark; sessionid={session.session_key}") == (str(user.pk), "alice")
    # HTTP/2 may send cookies in several headers.
    assert who("theme=dark", f"sessionid={session.session_key}") == (str(user.pk), "alice")
    for nobody in ("theme=dark", "sessionid=", "sessionid=nonsense", "sessionid=\0", f"session={session.session_key}"):
        assert who(nobody) is None
    assert who() is None


def test_who_may_no_longer_log_in_is_nobody(store: type[SessionBase]) -> None:
    user = User.objects.create_user("alice", password="secret")
    session = log_in(store, user)
    cookie = f"sessionid={session.session_key}"
    user.is_active = False
    user.save()
    assert who(cookie) is None
    user.is_active = True
    user.set_password("another")
    user.save()
    assert who(cookie) is None


def test_a_session_that_was_ended_is_nobodys(store: type[SessionBase]) -> None:
    user = User.objects.create_user("alice", password="secret")
    session = log_in(store, user)
    cookie = f"sessionid={session.session_key}"
    assert who(cookie) is not None
    session.flush()
    # A signed cookie is all there is of such a session; who has copied it has the session, as Django says.
    if not store.__module__.endswith("signed_cookies"):
        assert who(cookie) is None


@pytest.mark.usefixtures("sqlite")
def test_whose_session_has_ended_is_closed() -> None:
    store = import_string("django.contrib.sessions.backends.db.SessionStore")
    alice, bob = (User.objects.create_user(name, password="secret") for name in ("alice", "bob"))
    laptop, phone, bobs = log_in(store, alice), log_in(store, alice), log_in(store, bob)
    room = create_room([alice, bob])
    with get_engine() as engine:
        token = engine.cipher.seal("room", room)

        def enter(session: SessionBase) -> digi.Session:
            found = logins.user_of(f"sessionid={session.session_key}")
            assert found is not None
            user, name, login = found
            assert str(session.session_key) not in login
            return engine.connect(token, user, name, login=login).result()

        opened = [enter(session) for session in (laptop, phone, bobs)]
        from_elsewhere = engine.connect(token, str(alice.pk), "alice", login="not by Django").result()
        assert logins.check() == 0
        laptop.flush()
        bob.is_active = False
        bob.save()  # This one is heard of at once.
        assert logins.check() == 1
        for session, code in zip(opened, (4503, None, 4504), strict=True):
            if code is not None:
                list(session)
            assert session.close_code == code
        assert from_elsewhere.close_code is None
        assert logins.check() == 0
        bob.is_active = True
        bob.save()
        alice.set_password("another")
        alice.save()
        assert logins.check() == 1
        list(opened[1])
        assert opened[1].close_code == 4503
