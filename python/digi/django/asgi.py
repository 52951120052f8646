"""The ASGI application of a Django project that chats: HTTP goes to Django, the chat's WebSockets to Digi.

    from django.core.asgi import get_asgi_application
    from digi.django.asgi import get_application

    application = get_application(http=get_asgi_application())

Who a connection is comes from Django's session cookie, with whatever session backend and user model the project has.
"""

from __future__ import annotations

from asgiref.sync import sync_to_async

from digi.asgi import Application, Chat, Scope
from digi.django import conf, logins
from digi.django.engine import get_engine
from digi.types import Identity


def get_application(http: Application | None = None) -> Chat:
    """The application; `http` gets what is no WebSocket of the chat, usually Django's `get_asgi_application()`."""
    config = conf.get()
    return Chat(get_engine, session_user, route=config.route, origins=config.origins, other=http)


async def session_user(scope: Scope) -> Identity:
    """The user whose Django session the request's cookie names, or None."""
    cookies = b"; ".join(value for name, value in scope["headers"] if name.lower() == b"cookie")
    # In whatever thread is free, a few at once: the one that Django's views share would let in one after the other.
    return await sync_to_async(logins.user_of, thread_sensitive=False)(cookies.decode("latin-1"))
