"""`{% load digi %}`."""

from __future__ import annotations

from django import template

from digi.django import keys

register = template.Library()


@register.simple_tag
def room_token(room: keys.Thing) -> str:
    """The token of a room, given the project's object, an id or key, or an entry of `rooms_of`: for the chat's URL."""
    return keys.room_token(room)


@register.simple_tag
def message_token(message: keys.Thing) -> str:
    """The token of a message, given the project's object, or an id or key: the `message_id` of frames."""
    return keys.message_token(message)
