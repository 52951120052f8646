"""Who a connection is, out of Django's session cookie, with every session backend that Django has."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.db import connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
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


@pytest.fixture
def unwatched() -> Iterator[None]:
    """Only the test looks who is logged in, and not also the thread that does so every minute."""
    with override_settings(DIGI={"LOGIN_CHECK": 0}):
        yield


@pytest.mark.usefixtures("sqlite", "unwatched")
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


@pytest.mark.usefixtures("unwatched")
@pytest.mark.parametrize(("kind", "queries"), [("db", 4), ("cached_db", 4), ("cache", 2), ("file", 2)])
def test_many_log_ins_are_looked_at_with_few_queries(
    kind: str, queries: int, sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two for sessions and two for users, where ten are looked up at once."""
    monkeypatch.setattr(logins, "TOGETHER", 10)
    engine = f"django.contrib.sessions.backends.{kind}"
    with override_settings(SESSION_ENGINE=engine, SESSION_FILE_PATH=str(tmp_path)), get_engine() as chat:
        users = [User.objects.create_user(f"user {number}") for number in range(20)]
        sessions = [log_in(import_string(f"{engine}.SessionStore"), user) for user in users]
        token = chat.cipher.seal("room", create_room(users))
        opened = []
        for session in sessions:
            user, name, login = logins.user_of(f"sessionid={session.session_key}") or ("", "", "")
            opened.append(chat.connect(token, user, name, login=login).result())
        if kind == "cached_db":
            caches["default"].clear()
        with CaptureQueriesContext(connections[sqlite]) as asked:
            assert logins.check() == 0
        # Beside those with which a connection is set up.
        assert len([query for query in asked if query["sql"].startswith("SELECT")]) == queries
        User.objects.filter(pk=users[3].pk).update(is_active=False)
        users[12].delete()  # This one is heard of at once.
        users[15].set_password("another")
        User.objects.bulk_update(users[15:16], ["password"])
        sessions[18].flush()
        assert logins.check() == 3
        codes = [4503 if number in (3, 15, 18) else 4504 if number == 12 else None for number in range(20)]
        for page, code in zip(opened, codes, strict=True):
            if code is not None:
                list(page)
            assert page.close_code == code


@pytest.mark.usefixtures("sqlite")
@pytest.mark.parametrize("kind", ["db", "cached_db"])
def test_an_expired_session_is_nobodys(kind: str) -> None:
    engine = f"django.contrib.sessions.backends.{kind}"
    with override_settings(SESSION_ENGINE=engine):
        session = log_in(import_string(f"{engine}.SessionStore"), User.objects.create_user("alice"))
        caches["default"].clear()
        for left, is_known in ((timedelta(seconds=60), True), (timedelta(seconds=-1), False)):
            Session.objects.update(expire_date=timezone.now() + left)
            assert (logins.user_of(f"sessionid={session.session_key}") is not None) == is_known


class Strict(ModelBackend):
    """A project's own."""

    def get_user(self, user_id: int) -> Any:
        user = super().get_user(user_id)
        return None if user is None or user.get_username() == "banned" else user


@pytest.mark.usefixtures("sqlite")
def test_a_projects_own_backend_has_its_say() -> None:
    store = import_string("django.contrib.sessions.backends.db.SessionStore")
    path = f"{__name__}.Strict"
    sessions = []
    for name in ("alice", "banned"):
        session = log_in(store, User.objects.create_user(name, password="secret"))
        session[BACKEND_SESSION_KEY] = path
        session.save()
        sessions.append(f"sessionid={session.session_key}")
    # A backend that the settings have no more lets nobody in.
    assert [logins.user_of(cookie) for cookie in sessions] == [None, None]
    with override_settings(AUTHENTICATION_BACKENDS=[path]):
        assert [logins.user_of(cookie) is not None for cookie in sessions] == [True, False]


@pytest.mark.usefixtures("sqlite")
def test_a_session_outlives_the_change_of_the_secret_key() -> None:
    """Django gives it a new key then, which a page is told and a connection could not be."""
    store = import_string("django.contrib.sessions.backends.db.SessionStore")
    session = log_in(store, User.objects.create_user("alice", password="secret"))
    cookie = f"sessionid={session.session_key}"
    with override_settings(SECRET_KEY="another " * 8, SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        for _ in range(2):
            assert logins.user_of(cookie) is not None
    with override_settings(SECRET_KEY="another " * 8):
        assert logins.user_of(cookie) is None
    assert store().exists(session.session_key)


@pytest.mark.usefixtures("sqlite", "unwatched")
def test_nobody_is_closed_by_a_transaction_that_is_rolled_back() -> None:
    store = import_string("django.contrib.sessions.backends.db.SessionStore")
    alice = User.objects.create_user("alice", password="secret")
    session = log_in(store, alice)
    room = create_room([alice])
    with get_engine() as engine:
        user, name, login = logins.user_of(f"sessionid={session.session_key}") or ("", "", "")
        opened = engine.connect(engine.cipher.seal("room", room), user, name, login=login).result()
        alice.is_active = False
        for end in (alice.save, alice.delete):
            with suppress(RuntimeError), transaction.atomic():
                end()
                raise RuntimeError
            alice.pk = int(user)
            assert logins.check() == 0
            assert opened.close_code is None
        with transaction.atomic():
            alice.save()
            assert engine.logins() != []
        list(opened)
        assert opened.close_code == 4504
