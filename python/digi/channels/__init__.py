"""Digi in the places that Django Channels has: the consumer of a chat.

# routing.py
from digi.channels import ChatConsumer

websocket_urlpatterns = [re_path(r"^ws/chat/(?P<connectionId>[^/]+)/$", ChatConsumer.as_asgi())]
"""

from digi.channels.consumer import ChatConsumer, Refused

__all__ = ["ChatConsumer", "Refused"]
