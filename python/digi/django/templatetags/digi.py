"""`{% load digi %}`."""

from __future__ import annotations

from django import template

from digi.django.engine import get_cipher
from digi.django.models import Room
from digi.django.rooms import RoomEntry

register = template.Library()


@register.simple_tag
def room_token(room: Room | RoomEntry | int) -> str:
    """The token of a room, given an id, a `Room` or an entry of `rooms_of`: what stands in the chat's URL."""
    return get_cipher().seal("room", room if isinstance(room, int) else room.id)
