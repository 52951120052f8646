"""`manage.py digi demo`: something to try it with."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from digi.django import conf
from digi.django.engine import get_cipher
from digi.django.models import Room
from digi.django.rooms import Someone, create_room

PASSWORD = "digi-demo"
USERS = ("alice", "bob")
KIND = "demo"
#: Who is in which room; the first one moderates it.
ROOMS = {"Alice and Bob": ("alice", "bob"), "Team": ("bob", "alice"), "Alice's notes": ("alice",)}

HELP = f"make users {' and '.join(USERS)} and some rooms, if they are missing"


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("--force", action="store_true", help="also when DEBUG is off: the password is well known")


def run(command: BaseCommand, force: bool) -> None:
    """Makes what is missing."""
    if not (settings.DEBUG or force):
        raise CommandError("DEBUG is off, and the demo's password is well known: say --force if you mean it")
    if conf.get().store != "orm" or conf.mapped() is not None:
        raise CommandError("the demo's rooms are made in Digi's own tables in the project's database")
    with transaction.atomic():
        users = {name: _user(name) for name in USERS}
        made = {room.name: room.pk for room in Room.objects.using(conf.get().database).filter(kind=KIND)}
        for name, members in ROOMS.items():
            if name not in made:
                people = [users[member] for member in members]
                first: Someone = (str(people[0].pk), people[0].get_username(), "moderator")
                made[name] = create_room([first, *people[1:]], name=name, kind=KIND)
    command.stdout.write(f"Log in as {' or '.join(USERS)} with the password {PASSWORD}")
    for name in ROOMS:
        command.stdout.write(f"{name}: {conf.get().route}{get_cipher().seal('room', made[name])}/")


def _user(name: str) -> Any:
    model: Any = get_user_model()
    found = model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()
    return found or model._default_manager.create_user(**{model.USERNAME_FIELD: name, "password": PASSWORD})
