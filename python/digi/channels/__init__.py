"""Digi in the places that Django Channels has: the channel layer, and the consumer of a chat.

# settings.py
CHANNEL_LAYERS = {"default": {"BACKEND": "digi.channels.DigiChannelLayer"}}

# routing.py
from digi.channels import ChatConsumer

websocket_urlpatterns = [re_path(r"^ws/chat/(?P<connectionId>[^/]+)/$", ChatConsumer.as_asgi())]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from digi.channels.layer import DigiChannelLayer

if TYPE_CHECKING:
    from digi.channels.consumer import ChatConsumer, Refused

__all__ = ["ChatConsumer", "DigiChannelLayer", "Refused"]


def __getattr__(name: str) -> Any:
    # The layer alone needs no "digi.django" in INSTALLED_APPS.
    if name in ("ChatConsumer", "Refused"):
        from digi.channels import consumer

        return getattr(consumer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
