"""`ChatConsumer` inside Channels' own routing and middleware."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client, override_settings
from django.urls import re_path

from digi.channels import ChatConsumer, Refused
from digi.django import origins
from digi.django.engine import get_engine
from digi.django.rooms import create_room

TIMEOUT = 20
HEADERS = [(b"host", b"chat.example"), (b"origin", b"http://chat.example")]


class Site:
    """Alice, logged in, and a room of hers."""

    def __init__(self) -> None:
        self.alice = User.objects.create_user("alice", password="secret")
        self.room = create_room([self.alice], name="Plans")
        self.token = get_engine().cipher.seal("room", self.room)
        browser = Client()
        browser.force_login(self.alice)
        self.cookie = (b"cookie", f"sessionid={browser.cookies['sessionid'].value}".encode())

    def application(self, consumer: type[ChatConsumer], route: str = r"^ws/(?P<connectionId>[^/]+)/$") -> Any:
        routes = URLRouter([re_path(route, consumer.as_asgi())])  # type: ignore[arg-type]
        return ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(routes))})

    async def open(
        self, consumer: type[ChatConsumer], *headers: tuple[bytes, bytes], query: str = ""
    ) -> WebsocketCommunicator:
        path = f"/ws/{self.token}/{query}"
        socket = WebsocketCommunicator(
            self.application(consumer), path, headers=[*HEADERS, *(headers or (self.cookie,))]
        )
        accepted, _ = await socket.connect(timeout=TIMEOUT)
        assert accepted
        return socket


@pytest.fixture
def site(sqlite: str) -> Any:
    assert sqlite == "default"
    with override_settings(ALLOWED_HOSTS=["chat.example"]):
        yield Site()


def run(main: Coroutine[Any, Any, None]) -> None:
    def begin_anew() -> None:
        connections["default"].close()
        del connections["default"]

    async def to_the_end() -> None:
        # The thread in which Channels asks the database outlives a test, and would ask that of the last one.
        await sync_to_async(begin_anew)()
        try:
            await asyncio.wait_for(main, TIMEOUT * 2)
        finally:
            await get_engine().close()

    asyncio.run(to_the_end())


async def frame(socket: WebsocketCommunicator) -> dict[str, Any]:
    event = await socket.receive_output(timeout=TIMEOUT)
    assert event["type"] == "websocket.send", event
    found = json.loads(event["text"])
    assert isinstance(found, dict)
    return found


async def closed(socket: WebsocketCommunicator) -> int:
    event = await socket.receive_output(timeout=TIMEOUT)
    assert event["type"] == "websocket.close", event
    return int(event["code"])


def test_a_user_of_channels_chats(site: Site) -> None:
    async def main() -> None:
        socket = await site.open(ChatConsumer)
        assert (await frame(socket))["type"] == "resumed"
        await socket.send_to(json.dumps({"message": "hello", "user": "somebody else"}))
        added = await frame(socket)
        assert (added["message"], added["user"]) == ("hello", "alice")
        await socket.disconnect(timeout=TIMEOUT)
        nobody = await site.open(ChatConsumer, (b"cookie", b"sessionid=nonsense"))
        assert await closed(nobody) == 4503

    run(main())


def test_hooks(site: Site) -> None:
    class Strict(ChatConsumer):
        async def may_enter(self, user: str, room: int) -> bool:
            assert (user, room) == (str(site.alice.pk), site.room)
            return bool(self.scope["query_string"] != b"no")

        async def before_store(self, frame: dict[str, Any]) -> dict[str, Any]:
            if "secret" in frame.get("message", ""):
                raise Refused("not here")
            return frame | {"message": frame["message"].upper()}

        async def before_send(self, frame: dict[str, Any]) -> dict[str, Any] | None:
            return None if frame["type"] == "resumed" else frame | {"seen": True}

    async def main() -> None:
        socket = await site.open(Strict)
        await socket.send_to(json.dumps({"message": "a secret", "client_id": "1"}))
        refused = await frame(socket)
        assert refused == {"type": "error", "code": "refused", "detail": "not here", "client_id": "1"}
        await socket.send_to(json.dumps({"message": "hello"}))
        added = await frame(socket)
        assert (added["message"], added["seen"]) == ("HELLO", True)
        # No way leads past it.
        for kind in (
            '"type": null',
            '"type": "typing", "action": "add"',
            '"type": "add", "type": null',
            '"action": "add"',
        ):
            await socket.send_to(f'{{{kind}, "message": "a secret"}}')
            assert (await frame(socket))["detail"] == "not here"
        await socket.send_to("no JSON")
        assert (await frame(socket))["code"] == "bad_json"
        await socket.disconnect(timeout=TIMEOUT)
        assert await closed(await site.open(Strict, query="?no")) == 4501

    run(main())


def test_what_was_stored_is_told_to_who_asked_for_it(site: Site) -> None:
    told: list[tuple[str, str]] = []

    class Telling(ChatConsumer):
        async def before_store(self, frame: dict[str, Any]) -> dict[str, Any]:
            return frame | {"message": frame["message"].upper()} if "message" in frame else frame

        async def after_store(self, frame: dict[str, Any], stored: dict[str, Any]) -> None:
            assert set(stored) == {"message_id", "seq", "pos"}
            told.append((frame.get("type", "add"), frame.get("message", "")))
            if frame.get("message") == "RAISE":
                raise RuntimeError("the hook's own mistake")

    async def main() -> None:
        socket = await site.open(Telling)
        listener = await site.open(ChatConsumer)
        assert (await frame(socket))["type"] == "resumed"
        await frame(listener)
        # A classic page: no client_id, and nothing comes back that it doesn't know.
        await socket.send_to(json.dumps({"message": "hello"}))
        added = await frame(socket)
        assert (added["type"], added["message"]) == ("add", "HELLO")
        await socket.send_to(json.dumps({"type": "edit", "message_id": added["message_id"], "message": "raise"}))
        assert (await frame(socket))["type"] == "edit"
        await listener.send_to(json.dumps({"type": "typing"}))
        await socket.send_to(json.dumps({"type": "edit", "message_id": "nonsense", "message": "x"}))
        refused = await frame(socket)
        assert (refused["type"], "client_id" in refused) == ("error", False)
        # One that gives its own gets it back.
        await socket.send_to(json.dumps({"message": "again", "client_id": "mine"}))
        kinds = {(await frame(socket))["type"] for _ in range(2)}
        assert kinds == {"add", "ack"}
        await socket.send_to(json.dumps({"type": "delete", "message_id": added["message_id"]}))
        assert (await frame(socket))["type"] == "delete"
        await socket.send_to(json.dumps({"message": "last", "client_id": "last"}))
        while (await frame(socket)).get("client_id") != "last":
            pass
        assert told == [("add", "HELLO"), ("edit", "RAISE"), ("add", "AGAIN"), ("delete", ""), ("add", "LAST")]
        await socket.disconnect(timeout=TIMEOUT)
        await listener.disconnect(timeout=TIMEOUT)

    run(main())


def test_the_routes_argument_has_any_name(site: Site) -> None:
    class Named(ChatConsumer):
        token_argument = "conversation"

    async def first(consumer: type[ChatConsumer], route: str) -> str:
        headers = [*HEADERS, site.cookie]
        socket = WebsocketCommunicator(site.application(consumer, route), f"/ws/de/{site.token}/", headers=headers)
        assert (await socket.connect(timeout=TIMEOUT))[0]
        kind = (await frame(socket))["type"]
        await socket.disconnect(timeout=TIMEOUT)
        return str(kind)

    async def main() -> None:
        two = r"^ws/(?P<language>[^/]+)/(?P<conversation>[^/]+)/$"
        assert await first(Named, two) == "resumed"
        assert await first(ChatConsumer, r"^ws/de/(?P<slug>[^/]+)/$") == "resumed"
        lost = ChatConsumer()
        lost.scope = {"url_route": {"kwargs": {"language": "de", "conversation": site.token}}}
        with pytest.raises(LookupError, match=r"conversation.*language.*token_argument"):
            await lost.get_room()

    run(main())


def test_wrong_uses() -> None:
    with pytest.raises(TypeError, match="no attribute 'tokenargument'"):
        ChatConsumer.as_asgi(tokenargument="x")
    with pytest.raises(ValueError, match="serves WebSockets, not http"):
        asyncio.run(ChatConsumer.as_asgi()({"type": "http"}, None, None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        (None, True),
        ("https://chat.example:8443", True),  # the host itself
        ("https://www.site.example", True),  # one of ALLOWED_HOSTS
        ("http://www.site.example:8000", True),
        ("https://evil.example", False),
        ("https://pages.other.example", True),  # one of CSRF_TRUSTED_ORIGINS
        ("https://a.b.other.example", True),
        ("http://pages.other.example", False),
        ("null", False),
        ("https://", False),
        ("https://chat.example.evil.example", False),
    ],
)
def test_origins_follow_djangos_settings(origin: str | None, is_allowed: bool) -> None:
    trusted = ["https://*.other.example"]
    with override_settings(ALLOWED_HOSTS=[".site.example", "*"], CSRF_TRUSTED_ORIGINS=trusted):
        assert origins.allow(origin, "chat.example:8443") is is_allowed
    with override_settings(DIGI={"ORIGINS": ["https://only.example"]}, ALLOWED_HOSTS=["chat.example"]):
        assert origins.allow("https://only.example", "chat.example")
        assert not origins.allow("https://chat.example", "chat.example")
