"""The ASGI application of a Django project that chats: HTTP goes to Django, the chat's WebSockets to Digi.

    from django.core.asgi import get_asgi_application
    from digi.django.asgi import get_application

    application = get_application(http=get_asgi_application())

Who a connection is comes from Django's session cookie, with whatever session backend and user model the project has.
"""

from __future__ import annotations

from importlib import import_module

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.db import close_old_connections
from django.http import HttpRequest, parse_cookie

from digi.asgi import Application, Chat, Scope
from digi.django import conf
from digi.django.engine import get_engine


def get_application(http: Application | None = None) -> Chat:
    """The application; `http` gets what is no WebSocket of the chat, usually Django's `get_asgi_application()`."""
    config = conf.get()
    return Chat(get_engine, session_user, route=config.route, origins=config.origins, other=http)


async def session_user(scope: Scope) -> tuple[str, str] | None:
    """The user whose Django session the request's cookie names: primary key and user name, or None."""
    cookies = b"; ".join(value for name, value in scope["headers"] if name.lower() == b"cookie")
    session_key = parse_cookie(cookies.decode("latin-1")).get(settings.SESSION_COOKIE_NAME)
    # In whatever thread is free, a few at once: the one that Django's views share would let in one after the other.
    return await sync_to_async(_user_of, thread_sensitive=False)(session_key) if session_key else None


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
