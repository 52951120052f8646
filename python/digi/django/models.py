"""Digi's tables as models, for reading and for the admin.

What is written goes through `digi.django.rooms` or an engine: a row that is changed here takes no number, and nobody
hears of it. The columns are those of the native stores, and on SQLite and SQL Server the tables are made by the same
scripts. Times are milliseconds since 1970-01-01T00:00:00Z.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from digi.django.fields import (
    HOST_KEY_LENGTH,
    CompositePrimaryKey,
    ExactCharField,
    ExactTextField,
    integer,
    integer_from_zero,
    integer_or_null,
    millis,
    millis_or_null,
)

#: The longest user key: what every database can have in an index.
KEY_LENGTH = 191
#: The longest client id, in bytes.
CLIENT_ID_LENGTH = 64
#: What a member may do: a moderator also deletes the messages of others.
ROLES = [(0, "Member"), (1, "Moderator")]
#: What a row of the log tells.
KINDS = [(1, "Edited"), (2, "Deleted"), (3, "Joined"), (4, "Left")]


class Room(models.Model):
    """A conversation. Ids lie between 1 and 2^31 - 1."""

    id = integer(primary_key=True)
    name = ExactTextField()
    kind = ExactTextField()
    created_at = millis()

    class Meta:
        db_table = "digi_room"

    def __str__(self) -> str:
        return self.name or f"Room {self.pk}"


class Head(models.Model):
    """The numbering of a room. Numbers up to `floor` can no longer be read; times of a room never go back."""

    room_id = integer(primary_key=True)
    epoch = integer()
    last_seq = integer()
    floor = integer()
    last_at = millis()

    class Meta:
        db_table = "digi_head"

    def __str__(self) -> str:
        return f"{self.room_id}: {self.epoch}.{self.last_seq}"


class Member(models.Model):
    """Who may be in a room."""

    pk = CompositePrimaryKey("room_id", "user_key")
    room_id = integer()
    user_key = ExactCharField(max_length=KEY_LENGTH)
    user_name = ExactTextField()
    role = integer(choices=ROLES)
    read_seq = integer_from_zero()
    joined_at = millis()

    class Meta:
        db_table = "digi_member"

    def __str__(self) -> str:
        return f"{self.user_name} in {self.room_id}"


class Message(models.Model):
    """A message in its present state; `id` is `room_id * 2**32 + pos`, and the body of a deleted one is NULL."""

    id = integer(primary_key=True)
    room_id = integer()
    pos = integer()
    sender_key = ExactCharField(max_length=KEY_LENGTH)
    sender_name = ExactTextField()
    client_id = ExactCharField(max_length=CLIENT_ID_LENGTH, null=True)
    created_at = millis()
    edited_at = millis_or_null()
    deleted_at = millis_or_null()
    body = ExactTextField(null=True)

    class Meta:
        db_table = "digi_message"

    def __str__(self) -> str:
        return f"{self.pos} in {self.room_id} by {self.sender_name}"


class Change(models.Model):
    """A row of the log that is no added message."""

    pk = CompositePrimaryKey("room_id", "seq")
    room_id = integer()
    seq = integer()
    kind = integer(choices=KINDS)
    message_id = integer_or_null()
    user_key = ExactCharField(max_length=KEY_LENGTH, null=True)
    at = millis()

    class Meta:
        db_table = "digi_change"

    def __str__(self) -> str:
        return f"{self.seq} in {self.room_id}"


class Batch(models.Model):
    """A batch that was committed, so that a repeat finds what became of it; NULL outcomes: it was made void."""

    pk = CompositePrimaryKey("node", "number")
    node = integer()
    number = integer()
    at = millis()
    outcomes = ExactTextField(null=True)

    class Meta:
        db_table = "digi_batch"

    def __str__(self) -> str:
        return f"{self.node}/{self.number}"


class Log(models.Model):
    """A change in a room whose messages are in a table of the project's own; adds are among them.

    `pos` is the place of the message: the number of its add, or of its adoption where others have written it. In these
    rows stand the sender's key and name. The message's key is in `message_id`, or in `message_key` where it is no whole
    number.
    """

    pk = CompositePrimaryKey("room_id", "seq")
    room_id = integer()
    seq = integer()
    kind = integer(choices=[(0, "Added"), *KINDS, (5, "Adopted")])
    message_id = integer_or_null()
    pos = integer_or_null()
    user_key = ExactCharField(max_length=KEY_LENGTH, null=True)
    sender_name = ExactTextField(null=True)
    client_id = ExactCharField(max_length=CLIENT_ID_LENGTH, null=True)
    at = millis()
    message_key = ExactCharField(max_length=HOST_KEY_LENGTH, null=True)

    class Meta:
        db_table = "digi_log"
        indexes: ClassVar = [
            models.Index(fields=["message_id"], name="digi_log_message"),
            models.Index(fields=["message_key"], name="digi_log_message_key"),
        ]

    def __str__(self) -> str:
        return f"{self.seq} in {self.room_id}"


class Post(models.Model):
    """What was posted in a transaction and is to be carried out once that is committed; see `digi.django.posting`."""

    op_id = ExactCharField(max_length=32, primary_key=True)
    at = millis()
    operation = ExactTextField()

    class Meta:
        db_table = "digi_post"

    def __str__(self) -> str:
        return str(self.op_id)


class RoomKey(models.Model):
    """The number that Digi has given to a room of the project's whose key is a UUID (without dashes) or a text."""

    host_key = ExactCharField(max_length=HOST_KEY_LENGTH, primary_key=True)
    room_id = integer(unique=True)

    class Meta:
        db_table = "digi_room_key"

    def __str__(self) -> str:
        return f"{self.host_key}: {self.room_id}"
