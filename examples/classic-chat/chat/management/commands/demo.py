from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from chat.models import Connection

PASSWORD = "classic-demo"


class Command(BaseCommand):
    help = "Makes alice and bob, who can chat with each other."

    def handle(self, **options):
        users = get_user_model().objects
        pair = [
            users.filter(username=name).first() or users.create_user(name, password=PASSWORD)
            for name in ("alice", "bob")
        ]
        Connection.objects.get_or_create(user_one=pair[0], user_two=pair[1])
        self.stdout.write(f"alice and bob, password {PASSWORD}")
