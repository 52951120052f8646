"""Who is logged in by Django's session, and whether still.

A connection is let in by the session that its cookie names, and lives longer than a request. So whoever logs out, is
deactivated or deleted is closed at once where that is heard of: in this process, and over the channel layer in the
others. And every process looks from time to time whether the sessions of its connections still hold.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    load_backend,
    user_logged_out,
)
from django.contrib.sessions.backends import cache, cached_db, db
from django.core.exceptions import ValidationError
from django.db import close_old_connections, transaction
from django.db.models.signals import post_delete, post_save
from django.http import HttpRequest, parse_cookie
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from digi._digi import Engine
from digi.django import conf, posting
from digi.django.engine import get_engine

logger = logging.getLogger(__name__)

#: Seconds for which a session is remembered by which nobody is here: who comes in is on the way for some of them.
KEPT = 60.0
#: Seconds between two looks at what other processes have left behind.
SWEEP = 5.0
#: Sessions, or users, that are looked up at once.
TOGETHER = 500


class _Sessions:
    """The keys of the sessions by which somebody has come in here."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: By log-in: the session's key, and when it was last used to come in.
        self.keys: dict[str, tuple[str, float]] = {}
        self.watcher: threading.Thread | None = None


_sessions = _Sessions()


def user_of(cookies: str) -> tuple[str, str, str] | None:
    """The user whose session the header `Cookie` names: key, name and log-in; None: nobody."""
    session_key = parse_cookie(cookies).get(settings.SESSION_COOKIE_NAME)
    user = _user_of(session_key) if session_key else None
    return None if user is None or session_key is None else (*user, remember(session_key))


def _user_of(session_key: str) -> tuple[str, str] | None:
    user = _users_of([session_key]).get(session_key)
    return None if user is None else (str(user.pk), user.get_username())


def _users_of(session_keys: Sequence[str]) -> dict[str, Any]:
    """The users of sessions, by the sessions' keys; whose session does not hold is not among them.

    As for pages, but nothing is written: a page may give a session another key, a connection cannot tell the browser.
    """
    # No request begins or ends here, so nobody else looks after the thread's connections.
    close_old_connections()
    try:
        sessions = _read(session_keys)
        claims = {key: claim for key, data in sessions.items() if (claim := _claim(data)) is not None}
        users = _find(claims.values())
        found = {key: users.get(claim) for key, claim in claims.items()}
        return {
            key: user
            for key, user in found.items()
            if user is not None and user.is_authenticated and _has_hash_of(user, sessions[key])
        }
    finally:
        close_old_connections()


def _read(session_keys: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """What is in sessions. Django's own stores are asked for many at once, others for one after the other."""
    kind: Any = import_module(settings.SESSION_ENGINE).SessionStore
    sessions = {key: session for key in session_keys if (session := kind(key)).session_key is not None}
    if kind.load not in (db.SessionStore.load, cache.SessionStore.load, cached_db.SessionStore.load):
        return {key: dict(session.items()) for key, session in sessions.items()}
    found: dict[str, Mapping[str, Any]] = {}
    if kind.load != db.SessionStore.load:
        by_name = {session.cache_key: (key, session) for key, session in sessions.items()}
        for names in _chunks(list(by_name)):
            try:
                kept = by_name[names[0]][1]._cache.get_many(names)
            except Exception:
                # As there: a cache that is away, or finds a key odd, has nothing.
                kept = {name: by_name[name][1].load() for name in names}
            found |= {by_name[name][0]: data for name, data in kept.items()}
    if kind.load != cache.SessionStore.load:
        for keys in _chunks([key for key in sessions if key not in found]):
            rows = kind.get_model_class().objects.filter(session_key__in=keys, expire_date__gt=timezone.now())
            for row in rows:
                # Not every database tells lower case from upper.
                if (session := sessions.get(row.session_key)) is not None:
                    found[row.session_key] = session.decode(row.session_data)
    return found


def _claim(data: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Which backend has let whom in."""
    try:
        user: Any = get_user_model()
        claim = (data[BACKEND_SESSION_KEY], user._meta.pk.to_python(data[SESSION_KEY]))
    except (KeyError, ValidationError):
        return None
    return claim if claim[0] in settings.AUTHENTICATION_BACKENDS else None


def _find(claims: Iterable[tuple[str, Any]]) -> dict[tuple[str, Any], Any]:
    """The users as their backends give them. Where that is Django's own way, it is done for many at once."""
    # Not every process that stores messages has Django's users.
    from django.contrib.auth.backends import ModelBackend

    by_backend: dict[str, set[Any]] = {}
    for path, key in claims:
        by_backend.setdefault(path, set()).add(key)
    found: dict[tuple[str, Any], Any] = {}
    for path, wanted in by_backend.items():
        backend: Any = load_backend(path)
        if getattr(type(backend), "get_user", None) is not ModelBackend.get_user:
            found |= {(path, key): backend.get_user(key) for key in wanted}
            continue
        users: Any = get_user_model()._default_manager
        for keys in _chunks(list(wanted)):
            rows = users.in_bulk(keys)
            found |= {(path, key): user for key, user in rows.items() if backend.user_can_authenticate(user)}
    return found


def _has_hash_of(user: Any, data: Mapping[str, Any]) -> bool:
    """Whether the session was begun with the password that the user still has."""
    if not hasattr(user, "get_session_auth_hash"):
        return True
    older = user.get_session_auth_fallback_hash() if hasattr(user, "get_session_auth_fallback_hash") else ()
    given = data.get(HASH_SESSION_KEY) or ""
    return any(constant_time_compare(given, wanted) for wanted in (user.get_session_auth_hash(), *older))


def _chunks(keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (keys[start : start + TOGETHER] for start in range(0, len(keys), TOGETHER))


def login_of(session_key: str) -> str:
    """What the engines call a session: its key is a secret, and stays here."""
    return hashlib.sha256(b"digi login " + session_key.encode()).hexdigest()[:32]


def remember(session_key: str) -> str:
    """Its name for `Engine.connect`; from now on it is looked at from time to time."""
    login = login_of(session_key)
    with _sessions.lock:
        _sessions.keys[login] = (session_key, time.monotonic())
        if _sessions.watcher is None or not _sessions.watcher.is_alive():
            _sessions.watcher = threading.Thread(target=_watch, name="digi-logins", daemon=True)
            _sessions.watcher.start()
    return login


def _watch() -> None:
    checked = time.monotonic()
    while True:
        time.sleep(SWEEP)
        seconds = conf.get().login_check
        is_due = seconds and time.monotonic() - checked >= seconds
        try:
            if get_engine().is_open:
                posting.sweep()
            if is_due:
                checked = time.monotonic()
                check()
        except Exception:
            logger.exception("it could not be looked who is still logged in, or what was left behind")


def check() -> int:
    """Closes the connections whose sessions no longer hold: of how many sessions."""
    engine = get_engine()
    logins = engine.logins() if engine.is_open else []
    present = {login for _, login in logins}
    long_ago = time.monotonic() - KEPT
    with _sessions.lock:
        kept = {login: entry for login, entry in _sessions.keys.items() if login in present or entry[1] > long_ago}
        _sessions.keys = kept
        known = {login: key for login, (key, _) in kept.items()}
    # The rest somebody else has let in.
    asked = [(user, login, known[login]) for user, login in logins if login in known]
    users = _users_of(sorted({key for _, _, key in asked})) if asked else {}
    ended = 0
    for user, login, key in asked:
        if key not in users or str(users[key].pk) != user:
            engine.end_login(user, login)
            ended += 1
    return ended


def listen() -> None:
    """Connects the signals."""
    user_logged_out.connect(_on_logout, dispatch_uid="digi")
    post_save.connect(_on_save, sender=settings.AUTH_USER_MODEL, dispatch_uid="digi")
    post_delete.connect(_on_delete, sender=settings.AUTH_USER_MODEL, dispatch_uid="digi")


def _on_logout(*, request: HttpRequest, user: Any, **_: Any) -> None:
    session_key = getattr(getattr(request, "session", None), "session_key", None)
    if user is not None and session_key and (engine := _reaching_engine()) is not None:
        engine.end_login(str(user.pk), login_of(session_key))


def _on_save(*, instance: Any, created: bool, using: str, **_: Any) -> None:
    if not created and not instance.is_active:
        _kick_once_committed(instance, using)


def _on_delete(*, instance: Any, using: str, **_: Any) -> None:
    _kick_once_committed(instance, using)


def _kick_once_committed(user: Any, using: str) -> None:
    # When a user was deleted, the object loses its key.
    key = str(user.pk)

    def kick() -> None:
        if (engine := _reaching_engine()) is not None:
            engine.kick(key)

    transaction.on_commit(kick, using=using, robust=True)


def _reaching_engine() -> Engine | None:
    """The engine, if somebody may hear it: it is opened where only other processes have connections."""
    try:
        engine = get_engine()
        if not engine.is_open and conf.get().layer != "local:":
            engine.open().result()
        return engine if engine.is_open else None
    except Exception:
        # Logging out has to work; the others find out by themselves.
        logger.exception("who has logged out could not be told to the chat at once")
        return None
