"""The list of one's rooms, and a room."""

from datetime import datetime, timezone

from digi import InputError
from digi.django import conf
from digi.django.engine import get_cipher
from digi.django.models import Member, Room
from digi.django.rooms import rooms_of, user_key
from digi.django.store import ROLES
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe


@never_cache
@login_required
@require_safe
def rooms(request: HttpRequest) -> HttpResponse:
    """One's rooms, with the last message of each."""
    listed = [(room, room.last_message and written_at(room.last_message.created_at)) for room in rooms_of(request.user)]
    return render(request, "chat/rooms.html", {"rooms": listed})


@never_cache
@login_required
@require_safe
def room(request: HttpRequest, token: str) -> HttpResponse:
    """A room. Its messages come over the WebSocket; this is the frame around them."""
    try:
        room_id = get_cipher().open("room", token)
    except InputError:
        raise Http404 from None
    # Whoever has the address but isn't a member learns nothing, not even that there is such a room.
    member = get_object_or_404(Member, room_id=room_id, user_key=user_key(request.user))
    data = {
        "path": f"{conf.get().route}{token}/",
        "user": request.user.get_username(),
        "moderates": member.role == ROLES["moderator"],
    }
    return render(request, "chat/room.html", {"room": Room.objects.get(pk=room_id), "data": data})


def written_at(milliseconds: int) -> datetime:
    """When a message was written."""
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
