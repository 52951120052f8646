from django.conf import settings
from django.db import models
from django.db.models import Q


class Connection(models.Model):
    """Two users who can chat with each other."""

    user_one = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    user_two = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")

    def __str__(self):
        return f"{self.user_one} and {self.user_two}"

    @staticmethod
    def of(user):
        return Connection.objects.filter(Q(user_one=user) | Q(user_two=user)).select_related("user_one", "user_two")

    def other(self, user):
        return self.user_two if self.user_one == user else self.user_one


class Message(models.Model):
    connection = models.ForeignKey(Connection, models.CASCADE, related_name="messages")
    sender = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    text = models.TextField()
    sent_at = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return f"{self.sender}: {self.text}"
