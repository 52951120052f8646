"""Tables as a project may have had them before Digi came: as plain as can be, and with every column it can map."""

from typing import ClassVar

from django.conf import settings
from django.db import models

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
