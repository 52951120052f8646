"""Tables as a project may have had them before Digi came: as plain as can be, and with every column it can map."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.utils import timezone

from digi.django.fields import ExactCharField, ExactTextField

#: What `DIGI` says of circles and posts.
CIRCLES = {
    "ROOM_MODEL": "project.Circle",
    "MEMBERS": {"model": "project.Membership", "room": "circle", "user": "person", "role": "is_moderator"},
    "MESSAGE_MODEL": "project.Post",
    "FIELDS": {"sender": "author", "body": "text"},
}


class Circle(models.Model):
    """A room with any number of members."""


class Membership(models.Model):
    circle = models.ForeignKey(Circle, models.CASCADE)
    person = ExactCharField(max_length=191)
    is_moderator = models.IntegerField(default=0)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["circle", "person"], name="one_membership")]


class Post(models.Model):
    circle = models.ForeignKey(Circle, models.CASCADE)
    author = ExactTextField()
    text = ExactTextField()


class Pair(models.Model):
    """A room of two users."""

    one = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    two = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")


class Letter(models.Model):
    pair = models.ForeignKey(Pair, models.CASCADE)
    writer = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    words = models.TextField()
    written = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(null=True)
    removed = models.DateTimeField(null=True)


# The same with UUIDs and texts as keys.

#: What `DIGI` says of halls and calls.
HALLS = {
    "ROOM_MODEL": "project.Hall",
    "MEMBERS": {"model": "project.HallMember", "room": "hall", "user": "person", "role": "is_moderator"},
    "MESSAGE_MODEL": "project.Call",
    "FIELDS": {"sender": "author", "body": "text", "created_at": "called"},
}
#: Texts as keys of rooms, whole numbers as those of messages.
TOPICS = {
    "ROOM_MODEL": "project.Topic",
    "MEMBERS": {"model": "project.TopicMember", "room": "topic", "user": "person", "role": "is_moderator"},
    "MESSAGE_MODEL": "project.Remark",
    "FIELDS": {"sender": "author", "body": "text"},
}
#: Whole numbers as keys of rooms, texts as those of messages.
NOTED_CIRCLES = CIRCLES | {"MESSAGE_MODEL": "project.Note"}


def word() -> str:
    """A key with dashes, capitals and a letter beyond ASCII in it."""
    return f"Wört-{uuid.uuid4()}"


class Hall(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)


class GreatHall(Hall):
    """A room that extends another model."""


class HallMember(models.Model):
    hall = models.ForeignKey(Hall, models.CASCADE)
    person = ExactCharField(max_length=191)
    is_moderator = models.IntegerField(default=0)


class Call(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    hall = models.ForeignKey(Hall, models.CASCADE)
    author = ExactTextField()
    text = ExactTextField()
    called = models.DateTimeField(default=timezone.now)


class Topic(models.Model):
    name = models.CharField(max_length=100, primary_key=True, default=word)


class TopicMember(models.Model):
    topic = models.ForeignKey(Topic, models.CASCADE)
    person = ExactCharField(max_length=191)
    is_moderator = models.IntegerField(default=0)


class Remark(models.Model):
    topic = models.ForeignKey(Topic, models.CASCADE)
    author = ExactTextField()
    text = ExactTextField()


class Note(models.Model):
    slug = models.SlugField(primary_key=True, default=word, max_length=60)
    circle = models.ForeignKey(Circle, models.CASCADE)
    author = ExactTextField()
    text = ExactTextField()
