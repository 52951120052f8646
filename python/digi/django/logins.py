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
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user, user_logged_out
from django.db import close_old_connections
from django.db.models.signals import post_delete, post_save
from django.http import HttpRequest, parse_cookie

from digi._digi import Engine
from digi.django import conf, posting
from digi.django.engine import get_engine

logger = logging.getLogger(__name__)

#: Seconds for which a session is remembered by which nobody is here: who comes in is on the way for some of them.
KEPT = 60.0
#: Seconds between two looks at what other processes have left behind.
SWEEP = 5.0


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
    # No request begins or ends here, so nobody else looks after the thread's connections.
    close_old_connections()
    try:
        request = HttpRequest()
        request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
        user = get_user(request)
        return (str(user.pk), user.get_username()) if user.is_authenticated else None
    finally:
        close_old_connections()


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
    ended = 0
    for user, login in logins:
        if login not in known:
            continue  # Somebody else has let this one in.
        found = _user_of(known[login])
        if found is None or found[0] != user:
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


def _on_save(*, instance: Any, created: bool, **_: Any) -> None:
    if not created and not instance.is_active and (engine := _reaching_engine()) is not None:
        engine.kick(str(instance.pk))


def _on_delete(*, instance: Any, **_: Any) -> None:
    if (engine := _reaching_engine()) is not None:
        engine.kick(str(instance.pk))


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
