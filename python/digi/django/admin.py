"""Rooms and messages in Django's admin, for reading.

What messages say is shown where `DIGI["ADMIN_BODIES"]` is True. Rows are not changed here: that would take no number,
and nobody would hear of it (see `digi.django.edit`, `delete` and `rooms`).
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from digi.django import conf
from digi.django.models import Head, Member, Message, Room, RoomKey


class _ForReading(admin.ModelAdmin):  # type: ignore[type-arg]
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class WasDeleted(admin.SimpleListFilter):
    """Whether a message was deleted."""

    title = "deleted"
    parameter_name = "deleted"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Yes and no."""
        return [("yes", "Yes"), ("no", "No")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Those that were, or were not."""
        if self.value() not in ("yes", "no"):
            return queryset
        return queryset.filter(deleted_at__isnull=self.value() == "no")


@admin.register(Room)
class RoomAdmin(_ForReading):
    """Rooms, with their members and their last change."""

    list_display = ("id", "name", "kind", "made", "members", "changes")
    list_filter = ("kind",)
    search_fields = ("=id", "name")

    @admin.display(description="made", ordering="created_at")
    def made(self, room: Room) -> datetime:
        """When it was made."""
        return _moment(room.created_at)

    @admin.display(description="members")
    def members(self, room: Room) -> int:
        """How many there are."""
        return Member.objects.using(room._state.db).filter(room_id=room.pk).count()

    @admin.display(description="changes")
    def changes(self, room: Room) -> int:
        """How many there have been."""
        head = Head.objects.using(room._state.db).filter(room_id=room.pk).first()
        return head.last_seq if head else 0


@admin.register(Message)
class MessageAdmin(_ForReading):
    """Messages, the newest first."""

    list_filter = (WasDeleted,)
    search_fields = ("=room_id", "=sender_key", "sender_name")
    ordering = ("-id",)

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        """With what they say, or without."""
        return ("id", "room_id", "pos", "sender_name", "sent", *(("body",) if conf.get().admin_bodies else ()))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """The same of a single one."""
        names = [field.name for field in Message._meta.fields]
        return names if conf.get().admin_bodies else [name for name in names if name != "body"]

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """What is not shown is not searched either."""
        return (*self.search_fields, *(("body",) if conf.get().admin_bodies else ()))

    @admin.display(description="sent", ordering="created_at")
    def sent(self, message: Message) -> datetime:
        """When it was sent."""
        return _moment(message.created_at)


@admin.register(RoomKey)
class RoomKeyAdmin(_ForReading):
    """The numbers of the project's own rooms, where their keys are UUIDs (without dashes) or texts."""

    list_display = ("host_key", "room_id")
    search_fields = ("=host_key", "=room_id")
    ordering = ("host_key",)


def _moment(millis: int) -> datetime:
    return datetime.fromtimestamp(millis / 1000, timezone.utc)
