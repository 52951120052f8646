"""A stock Django Channels chat: its consumer, its layers, and pages that look at it."""

import base64
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_store.settings")
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402
from channels.testing import WebsocketCommunicator  # noqa: E402
from cryptography.fernet import Fernet  # noqa: E402
from django.test import override_settings  # noqa: E402

BACKENDS = {
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
    "core": "channels_redis.core.RedisChannelLayer",
}
#: Seconds. Far beyond what anything takes, so that only what never comes fails a test.
TIMEOUT = 20.0

Event = dict[str, Any]


class ClassicChat(AsyncWebsocketConsumer):  # type: ignore[misc]
    """As classic apps have it. Shows its page the events themselves; dies of one that it has no handler for."""

    async def connect(self) -> None:
        self.group = "chat_" + self.scope["path"].strip("/").split("/")[-1]
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, _: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str) -> None:
        await self.channel_layer.group_send(self.group, json.loads(text_data))

    async def chat_message(self, event: Event) -> None:
        await self.send(json.dumps(event))

    async def chat_message_edit(self, event: Event) -> None:
        await self.send(json.dumps(event))

    async def chat_message_delete(self, event: Event) -> None:
        await self.send(json.dumps(event))


class Page:
    """What a browser is to the consumer."""

    def __init__(self, room: int) -> None:
        self._socket = WebsocketCommunicator(ClassicChat.as_asgi(), f"/ws/chat/{room}/")

    async def open(self) -> None:
        accepted, _ = await self._socket.connect(timeout=TIMEOUT)
        assert accepted

    async def send(self, **event: object) -> None:
        """Has the consumer send an event to its group."""
        await self._socket.send_to(text_data=json.dumps(event))

    async def hear(self) -> Event:
        """The next event, whatever it is."""
        event = json.loads(await self._socket.receive_from(timeout=TIMEOUT))
        assert isinstance(event, dict)
        return event

    async def hear_message(self, text: str) -> list[Event]:
        """All events up to the one with this text."""
        events = [await self.hear()]
        while events[-1].get("message") != text:
            events.append(await self.hear())
        return events

    async def close(self) -> None:
        await self._socket.disconnect(timeout=TIMEOUT)


@asynccontextmanager
async def page(room: int) -> AsyncIterator[Page]:
    opened = Page(room)
    await opened.open()
    yield opened
    # Not after a failure, which would be hidden by whatever goes wrong here.
    await opened.close()


@contextmanager
def stock_layer(style: str, config: dict[str, Any]) -> Iterator[None]:
    """The `CHANNEL_LAYERS` of the stock workers."""
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": BACKENDS[style], "CONFIG": config}}):
        yield


async def group_send(room: int, **event: object) -> None:
    """As a view of a stock project does it."""
    await get_channel_layer().group_send(f"chat_{room}", event)


def classic_token(key: str, number: int) -> str:
    """An id as classic apps seal it: another text every time."""
    return base64.b64encode(Fernet(key).encrypt(str(number).encode())).decode()
