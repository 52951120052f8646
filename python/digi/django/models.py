"""Digi's tables as models, for reading and for the admin. What is written goes through `digi.django.rooms` or an engine:
a row that is changed here takes no number, and nobody hears of it.

The columns are those of the native stores, and on SQLite the tables are made by the same scripts. Times are milliseconds
since 1970-01-01T00:00:00Z.
"""

from __future__ import annotations

from django.db import models

from digi.django.fields import ExactCharField, ExactTextField

#: The longest user key: what every database can have in an index.
KEY_LENGTH = 191
#: The longest client id, in bytes.
CLIENT_ID_LENGTH = 64


class Room(models.Model):
    """A conversation. Ids lie between 1 and 2^31 - 1."""

    id = models.BigIntegerField(primary_key=True)
    name = ExactTextField()
    kind = ExactTextField()
    created_at = models.BigIntegerField()

    class Meta:
        db_table = "digi_room"

    def __str__(self) -> str:
        return self.name or f"Room {self.pk}"


class Head(models.Model):
    """The numbering of a room. Numbers up to `floor` can no longer be read; times of a room never go back."""

    room_id = models.BigIntegerField(primary_key=True)
    epoch = models.BigIntegerField()
    last_seq = models.BigIntegerField()
    floor = models.BigIntegerField()
    last_at = models.BigIntegerField()

    class Meta:
        db_table = "digi_head"

    def __str__(self) -> str:
        return f"{self.room_id}: {self.epoch}.{self.last_seq}"


class Member(models.Model):
    """Who may be in a room."""

    class Role(models.IntegerChoices):
        """What a member may do: a moderator also deletes the messages of others."""

        MEMBER = 0
        MODERATOR = 1

    pk = models.CompositePrimaryKey("room_id", "user_key")
    room_id = models.BigIntegerField()
    user_key = ExactCharField(max_length=KEY_LENGTH)
    user_name = ExactTextField()
    role = models.BigIntegerField(choices=Role)
    read_seq = models.BigIntegerField(default=0, db_default=0)
    joined_at = models.BigIntegerField()

    class Meta:
        db_table = "digi_member"

    def __str__(self) -> str:
        return f"{self.user_name} in {self.room_id}"


class Message(models.Model):
    """A message in its present state; `id` is `room_id * 2**32 + pos`, and the body of a deleted one is NULL."""

    id = models.BigIntegerField(primary_key=True)
    room_id = models.BigIntegerField()
    pos = models.BigIntegerField()
    sender_key = ExactCharField(max_length=KEY_LENGTH)
    sender_name = ExactTextField()
    client_id = ExactCharField(max_length=CLIENT_ID_LENGTH, null=True)
    created_at = models.BigIntegerField()
    edited_at = models.BigIntegerField(null=True)
    deleted_at = models.BigIntegerField(null=True)
    body = ExactTextField(null=True)

    class Meta:
        db_table = "digi_message"

    def __str__(self) -> str:
        return f"{self.pos} in {self.room_id} by {self.sender_name}"


class Change(models.Model):
    """A row of the log that is no added message."""

    class Kind(models.IntegerChoices):
        """What changed."""

        EDITED = 1
        DELETED = 2
        JOINED = 3
        LEFT = 4

    pk = models.CompositePrimaryKey("room_id", "seq")
    room_id = models.BigIntegerField()
    seq = models.BigIntegerField()
    kind = models.BigIntegerField(choices=Kind)
    message_id = models.BigIntegerField(null=True)
    user_key = ExactCharField(max_length=KEY_LENGTH, null=True)
    at = models.BigIntegerField()

    class Meta:
        db_table = "digi_change"

    def __str__(self) -> str:
        return f"{self.seq} in {self.room_id}"


class Batch(models.Model):
    """A batch that was committed, so that a repeat finds what became of it; NULL outcomes: it was made void."""

    pk = models.CompositePrimaryKey("node", "number")
    node = models.BigIntegerField()
    number = models.BigIntegerField()
    at = models.BigIntegerField()
    outcomes = ExactTextField(null=True)

    class Meta:
        db_table = "digi_batch"

    def __str__(self) -> str:
        return f"{self.node}/{self.number}"
